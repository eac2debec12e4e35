//! Several conditions of one rule: any of them.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::{Raw, Tcp, Udp};

use crate::rules::{any_of, deny, from, ports, protocol, ruleset};
use crate::{Filter, v4, v6};

#[test]
fn one_of_them_is_enough() {
    let rules = [any_of(
        [
            ports(6, &[(80, 80)]),
            ports(17, &[(53, 53)]),
            from(&["2001:db8::/32"]),
        ],
        deny(Match::default()),
    )];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v4(&Udp::to(53)));
    filter.denied_by(0, &v6(&Udp::to(54)));
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(53)));
    filter.passes(Reason::DefaultAllow, &v4(&Udp::to(80)));
}

#[test]
fn without_any_it_never_matches() {
    let rules = [any_of([], deny(Match::default())), deny(protocol(17))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(6, &[])));
    filter.denied_by(1, &v4(&Udp::to(80)));
}

#[test]
fn one_that_matches_outweighs_one_that_cannot_be_told() {
    let (web, tcp) = (|| ports(6, &[(80, 80)]), || protocol(6));
    let short = v4(&Raw::new(6, &[0; 19]));
    for alternatives in [[web(), tcp()], [tcp(), web()]] {
        let rules = [any_of(alternatives, deny(Match::default()))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.denied_by(0, &short);
    }
    for alternatives in [[web(), protocol(17)], [protocol(17), web()]] {
        let rules = [any_of(alternatives, deny(Match::default()))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.drops(Reason::UnreadableL4, &short);
    }
}
