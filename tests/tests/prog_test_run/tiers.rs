//! Tiers: `Pass`, and what happens at their ends.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Essentials, Fragments, Match, Stage};
use tests::packet::{Arp, Icmp, Icmpv6, Ipv4, Ipv6, Raw, Tcp, Udp};

use crate::rules::{
    allow, deny, end, in_stage, in_tier, log, pass_on, ports, protocol, ruleset, to,
};
use crate::{Filter, allowed_by, denied_by, drops, passes, plain, v4, v6};

#[test]
fn a_pass_goes_on_with_the_next_tier() {
    let all = Match::default;
    let rules = [
        in_tier("a", pass_on(protocol(6))),
        in_tier("a", log(all())),
        in_tier("a", deny(all())),
        in_tier("a", end(Action::Deny)),
        in_tier("b", log(all())),
        in_tier("b", pass_on(ports(6, &[(80, 80)]))),
        in_tier("b", deny(ports(6, &[(443, 443)]))),
        in_tier("b", end(Action::Deny)),
        allow(protocol(6)),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
        return;
    };
    filter.expect_noting(&[0, 4, 5], &v4(&Tcp::to(80)), allowed_by(8));
    filter.expect_noting(&[0, 4], &v4(&Tcp::to(443)), denied_by(6));
    filter.expect_noting(&[0, 4], &v4(&Tcp::to(22)), drops(Reason::DefaultDeny));
    filter.expect_noting(&[1], &v4(&Udp::to(80)), denied_by(2));
}

#[test]
fn the_same_tier_in_two_stages_is_two() {
    let rules = [
        in_stage(Stage::Untracked, in_tier("a", pass_on(protocol(6)))),
        in_stage(Stage::Untracked, in_tier("a", deny(protocol(6)))),
        in_stage(Stage::PreDnat, in_tier("a", log(protocol(6)))),
        in_tier("a", deny(ports(6, &[(80, 80)]))),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.expect_noting(&[0, 2], &v4(&Tcp::to(80)), denied_by(3));
    filter.expect_noting(&[0, 2], &v4(&Tcp::to(81)), passes(Reason::DefaultAllow));
}

#[test]
fn a_pass_of_the_last_tier_goes_to_the_profiles_or_the_default() {
    let tier = || {
        [
            in_tier("a", pass_on(protocol(6))),
            in_tier("a", end(Action::Deny)),
        ]
    };
    for (default, wanted) in [
        (Action::Allow, passes(Reason::DefaultAllow)),
        (Action::Deny, drops(Reason::DefaultDeny)),
    ] {
        let Some(mut filter) = Filter::load(&ruleset(default, tier())) else {
            return;
        };
        filter.expect_noting(&[0], &v4(&Tcp::to(80)), wanted);
        filter.drops(Reason::DefaultDeny, &v4(&Udp::to(80)));
    }
    let profile = [allow(ports(6, &[(80, 80)])), end(Action::Deny)];
    let rules = tier().into_iter().chain(profile);
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.expect_noting(&[0], &v4(&Tcp::to(80)), allowed_by(2));
    filter.expect_noting(&[0], &v4(&Tcp::to(81)), drops(Reason::DefaultDeny));
    filter.drops(Reason::DefaultDeny, &v4(&Udp::to(80)));
}

#[test]
fn a_pass_that_cannot_be_told_drops() {
    let rules = [
        in_tier("a", pass_on(ports(6, &[(80, 80)]))),
        in_tier("a", allow(protocol(6))),
    ];
    let mut ruleset = ruleset(Action::Allow, rules);
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    let short = v4(&Raw::new(6, &[0; 19]));
    let later = plain(&Ipv4::fragment(64, false).carry(&Tcp::to(80)));
    filter.drops(Reason::UnreadableL4, &short);
    filter.drops(Reason::Fragment, &later);
    ruleset.options.fragments = Fragments::L3Only;
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    filter.drops(Reason::UnreadableL4, &short);
    filter.allowed_by(1, &later);
}

#[test]
fn at_the_end_of_a_tier_essentials_pass() {
    let rules = [
        in_tier("a", allow(ports(6, &[(80, 80)]))),
        in_tier("a", end(Action::Deny)),
    ];
    let mut ruleset = ruleset(Action::Allow, rules);
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    let neighbour = Ipv6 {
        hop_limit: 255,
        ..Ipv6::default()
    };
    let arp = Arp {
        sender: [203, 0, 113, 7].into(),
        target: [192, 0, 2, 10].into(),
    };
    let essentials = [
        v4(&Icmp::new(3, 4)),
        v4(&Udp::to(68)),
        plain(&neighbour.carry(&Icmpv6::new(135, 0))),
        plain(&arp.packet()),
    ];
    for frame in &essentials {
        filter.passes(Reason::Essential, frame);
    }
    filter.allowed_by(0, &v4(&Tcp::to(80)));
    filter.drops(Reason::DefaultDeny, &v4(&Icmp::new(8, 0)));
    ruleset.options.essentials = Essentials::NONE;
    let Some(mut filter) = Filter::load(&ruleset) else {
        return;
    };
    let (arp, others) = essentials.split_last().unwrap();
    for frame in others {
        filter.drops(Reason::DefaultDeny, frame);
    }
    filter.passes(Reason::NotIp, arp);
}

#[test]
fn an_end_that_allows_and_one_for_some_addresses() {
    let here = || {
        let mut here = end(Action::Deny);
        here.matches = vec![to(&["192.0.2.10/32"])];
        here
    };
    let rules = [
        here(),
        in_tier("b", deny(protocol(17))),
        end(Action::Allow),
        deny(protocol(6)),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
        return;
    };
    // `v4` goes there, `v6` elsewhere.
    filter.drops(Reason::DefaultDeny, &v4(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v6(&Tcp::to(80)));
    filter.denied_by(1, &v6(&Udp::to(80)));
}
