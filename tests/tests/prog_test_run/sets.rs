//! Sets: in every one of these, in none of those.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Addresses, Match, NetSet, Ruleset};
use tests::packet::Tcp;

use crate::rules::{deny, parse, ruleset};
use crate::{Filter, between};

const TEN: u32 = 0;
/// Overlaps [`TEN`].
const LOW: u32 = 1;
const EMPTY: u32 = 2;
const SIX: u32 = 3;

/// One deny rule of these conditions, with the sets above.
fn rules(src: Addresses, dst: Addresses) -> Ruleset {
    let matches = Match {
        src,
        dst,
        ..Match::default()
    };
    let mut ruleset = ruleset(Action::Allow, [deny(matches)]);
    ruleset.sets = [
        &["10.0.0.0/8"][..],
        &["9.0.0.0/8", "10.0.0.0/9"],
        &[],
        &["2001:db8::/32", "10.9.9.9/32"],
    ]
    .map(|nets| NetSet {
        name: "test".to_owned(),
        nets: parse(nets).into(),
    })
    .to_vec();
    ruleset
}

fn within(sets: &[u32], not_sets: &[u32]) -> Addresses {
    Addresses {
        sets: sets.to_vec(),
        not_sets: not_sets.to_vec(),
        ..Addresses::default()
    }
}

fn any() -> Addresses {
    Addresses::default()
}

/// Which of these addresses are denied, as a source; the others pass.
#[track_caller]
fn denies(asked: Addresses, denied: &[&str]) {
    let all = [
        "8.255.255.255",
        "9.0.0.0",
        "9.255.255.255",
        "10.0.0.0",
        "10.9.9.9",
        "10.127.255.255",
        "10.128.0.0",
        "10.255.255.255",
        "11.0.0.0",
        "2001:db7::",
        "2001:db8::",
    ];
    let Some(mut filter) = Filter::load(&rules(asked, any())) else {
        return;
    };
    for address in all {
        let other = if address.contains(':') {
            "fe80::1"
        } else {
            "192.0.2.1"
        };
        let frame = between(address, other, &Tcp::to(80));
        if denied.contains(&address) {
            filter.denied_by(0, &frame);
        } else {
            filter.passes(Reason::DefaultAllow, &frame);
        }
    }
}

#[test]
fn in_a_set() {
    let ten = [
        "10.0.0.0",
        "10.9.9.9",
        "10.127.255.255",
        "10.128.0.0",
        "10.255.255.255",
    ];
    denies(within(&[TEN], &[]), &ten);
    denies(within(&[SIX], &[]), &["10.9.9.9", "2001:db8::"]);
}

#[test]
fn in_every_one_of_several() {
    denies(
        within(&[TEN, LOW], &[]),
        &["10.0.0.0", "10.9.9.9", "10.127.255.255"],
    );
    denies(within(&[TEN, LOW, SIX], &[]), &["10.9.9.9"]);
}

#[test]
fn in_none_of_several() {
    denies(
        within(&[], &[TEN, LOW]),
        &["8.255.255.255", "11.0.0.0", "2001:db7::", "2001:db8::"],
    );
    denies(within(&[TEN], &[LOW]), &["10.128.0.0", "10.255.255.255"]);
    denies(within(&[TEN], &[TEN]), &[]);
}

#[test]
fn a_set_without_networks_contains_nothing() {
    denies(within(&[EMPTY], &[]), &[]);
    denies(within(&[TEN, EMPTY], &[]), &[]);
    denies(within(&[SIX], &[EMPTY]), &["10.9.9.9", "2001:db8::"]);
}

#[test]
fn together_with_networks() {
    let asked = Addresses {
        nets: parse(&["10.128.0.0/9", "9.0.0.0/32"]),
        not_nets: parse(&["10.255.0.0/16"]),
        ..within(&[TEN], &[])
    };
    denies(asked, &["10.128.0.0"]);
}

#[test]
fn of_each_side() {
    let Some(mut filter) = Filter::load(&rules(within(&[TEN], &[]), within(&[SIX], &[LOW]))) else {
        return;
    };
    let tcp = &Tcp::to(80);
    // What is in SIX over IPv4 is in LOW.
    filter.passes(Reason::DefaultAllow, &between("10.0.0.1", "10.9.9.9", tcp));
    let Some(mut filter) = Filter::load(&rules(within(&[TEN], &[]), within(&[LOW], &[SIX]))) else {
        return;
    };
    filter.denied_by(0, &between("10.128.0.0", "9.1.1.1", tcp));
    filter.denied_by(0, &between("10.9.9.9", "10.9.9.8", tcp));
    filter.passes(Reason::DefaultAllow, &between("10.9.9.8", "10.9.9.9", tcp));
    filter.passes(Reason::DefaultAllow, &between("9.1.1.1", "10.128.0.0", tcp));
}
