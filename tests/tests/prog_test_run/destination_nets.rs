//! `destination.nets`.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::Tcp;

use crate::nets::{self, Side};
use crate::rules::{deny, from, ruleset, to};
use crate::{Filter, between};

#[test]
fn every_prefix() {
    nets::every_prefix(Side::Destination);
}

#[test]
fn only_the_destination() {
    nets::only_its_side(Side::Destination);
}

#[test]
fn any_of_a_list() {
    nets::any_of_a_list(Side::Destination);
}

#[test]
fn nested_prefixes() {
    nets::nested_prefixes(Side::Destination);
}

#[test]
fn source_and_destination_must_both_match() {
    let both = Match {
        dst: to(&["192.0.2.0/24", "2001:db8:2::/48"]).dst,
        ..from(&["10.0.0.0/8", "2001:db8:1::/48"])
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(both)])) else {
        return;
    };
    let tcp = Tcp::to(80);
    filter.denied_by(0, &between("10.1.1.1", "192.0.2.1", &tcp));
    filter.denied_by(0, &between("2001:db8:1::1", "2001:db8:2::1", &tcp));
    for (src, dst) in [
        ("10.1.1.1", "192.0.3.1"),
        ("11.1.1.1", "192.0.2.1"),
        ("192.0.2.1", "10.1.1.1"),
        ("2001:db8:1::1", "2001:db8:3::1"),
        ("2001:db8:2::1", "2001:db8:1::1"),
    ] {
        filter.passes(Reason::DefaultAllow, &between(src, dst, &tcp));
    }
}
