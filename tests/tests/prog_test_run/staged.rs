//! Staged rules: counted as if they were enforced, and enforced by nobody.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Fragments, Match};
use tests::packet::{Arp, Ipv4, Raw, Tcp, Udp};

use crate::rules::{allow, deny, end, in_tier, log, pass_on, ports, protocol, ruleset, staged};
use crate::{Filter, allowed_by, denied_by, passes, plain, v4, v6};

#[test]
fn they_change_no_verdict() {
    for action in [deny, allow, log, pass_on] {
        for default in [Action::Allow, Action::Deny] {
            let rules = [staged(action(protocol(6))), deny(ports(6, &[(80, 80)]))];
            let Some(mut filter) = Filter::load(&ruleset(default, rules)) else {
                return;
            };
            let other = match default {
                Action::Allow => passes(Reason::DefaultAllow),
                _ => crate::drops(Reason::DefaultDeny),
            };
            filter.expect_noting(&[0], &v4(&Tcp::to(80)), denied_by(1));
            filter.expect_noting(&[0], &v6(&Tcp::to(81)), other);
            filter.expect(&v4(&Udp::to(80)), other);
        }
    }
}

#[test]
fn the_first_that_would_decide_ends_the_staged_walk_alone() {
    let all = Match::default;
    for action in [deny, allow] {
        let rules = [
            log(all()),
            staged(log(all())),
            staged(action(protocol(6))),
            staged(deny(all())),
            log(all()),
            allow(all()),
            staged(deny(all())),
        ];
        let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
            return;
        };
        filter.expect_noting(&[0, 1, 2, 4], &v4(&Tcp::to(80)), allowed_by(5));
        filter.expect_noting(&[0, 1, 3, 4], &v4(&Udp::to(80)), allowed_by(5));
    }
}

#[test]
fn behind_an_enforced_decision_nothing_is_counted() {
    let rules = [deny(protocol(6)), staged(deny(Match::default()))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.expect_noting(&[1], &v4(&Udp::to(80)), passes(Reason::DefaultAllow));
}

#[test]
fn what_cannot_be_told_ends_the_staged_walk() {
    let rules = [
        staged(log(ports(6, &[(22, 22)]))),
        staged(log(Match::default())),
        staged(deny(ports(6, &[(80, 80)]))),
        staged(deny(Match::default())),
        allow(protocol(6)),
    ];
    let mut ruleset = ruleset(Action::Deny, rules);
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    let short = v4(&Raw::new(6, &[0; 19]));
    let later = plain(&Ipv4::fragment(64, false).carry(&Tcp::to(80)));
    filter.expect_noting(&[1], &short, allowed_by(4));
    filter.expect_noting(&[1], &later, allowed_by(4));
    filter.expect_noting(&[1, 3], &v4(&Tcp::to(81)), allowed_by(4));
    ruleset.options.fragments = Fragments::L3Only;
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    filter.expect_noting(&[1], &short, allowed_by(4));
    filter.expect_noting(&[1, 3], &later, allowed_by(4));
}

#[test]
fn a_staged_pass_leaves_its_tier_in_the_staged_walk_alone() {
    let all = Match::default;
    let rules = [
        in_tier("a", staged(pass_on(protocol(6)))),
        in_tier("a", staged(log(all()))),
        in_tier("a", log(all())),
        in_tier("a", pass_on(all())),
        in_tier("a", staged(deny(all()))),
        in_tier("b", staged(deny(all()))),
        in_tier("b", deny(all())),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.expect_noting(&[0, 2, 3, 5], &v4(&Tcp::to(80)), denied_by(6));
    filter.expect_noting(&[1, 2, 3, 5], &v4(&Udp::to(80)), denied_by(6));
}

#[test]
fn the_end_of_a_tier_that_is_staged() {
    let rules = [
        in_tier("a", staged(allow(protocol(17)))),
        in_tier("a", staged(end(Action::Deny))),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let open = passes(Reason::DefaultAllow);
    filter.expect_noting(&[0], &v4(&Udp::to(80)), open);
    filter.expect_noting(&[1], &v4(&Tcp::to(80)), open);
    // It denies nothing, so ARP needs no exception.
    let arp = Arp {
        sender: [203, 0, 113, 7].into(),
        target: [192, 0, 2, 10].into(),
    };
    filter.passes(Reason::NotIp, &plain(&arp.packet()));
}
