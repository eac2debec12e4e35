//! `ipVersion`.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Family, Match};
use tests::packet::Tcp;

use crate::rules::{deny, family, from, ruleset};
use crate::{Filter, between, v4, v6};

#[test]
fn a_rule_of_one_version_leaves_the_other() {
    for (version, matched, left) in [
        (Family::V4, v4(&Tcp::to(80)), v6(&Tcp::to(80))),
        (Family::V6, v6(&Tcp::to(80)), v4(&Tcp::to(80))),
    ] {
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(family(version))]))
        else {
            return;
        };
        filter.denied_by(0, &matched);
        filter.passes(Reason::DefaultAllow, &left);
    }
}

#[test]
fn a_rule_of_no_version_matches_both() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(Match::default())])) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v6(&Tcp::to(80)));
}

#[test]
fn versions_go_with_the_other_conditions() {
    let four = Match {
        family: Some(Family::V4),
        ..from(&["203.0.113.0/24"])
    };
    let six = Match {
        family: Some(Family::V6),
        protocol: Some(17),
        ..Match::default()
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(four), deny(six)])) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(1, &v6(&tests::packet::Udp::to(80)));
    filter.passes(Reason::DefaultAllow, &v6(&Tcp::to(80)));
    filter.passes(
        Reason::DefaultAllow,
        &between("203.0.112.1", "192.0.2.10", &Tcp::to(80)),
    );
}
