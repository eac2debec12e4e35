//! Fragments of both versions.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Fragments, Match, Rule, Ruleset};
use tests::packet::{Extension, Icmp, Ipv4, Payload, Tcp, Udp};

use crate::rules::{allow, deny, from, ports, protocol, ruleset};
use crate::{Filter, between, plain, v6_with};

fn first(payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv4::fragment(0, true).carry(payload))
}

fn later(payload: &dyn Payload) -> [Vec<u8>; 2] {
    [
        plain(&Ipv4::fragment(64, true).carry(payload)),
        v6_with([Extension::fragment(64, false)], payload),
    ]
}

/// Denies tcp 80 by default-allow.
fn web() -> Vec<Rule> {
    vec![deny(ports(6, &[(80, 80)]))]
}

fn l3_only(mut ruleset: Ruleset) -> Ruleset {
    ruleset.options.fragments = Fragments::L3Only;
    ruleset
}

#[test]
fn a_whole_first_fragment_is_evaluated() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, web())) else {
        return;
    };
    filter.denied_by(0, &first(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &first(&Tcp::to(443)));
    let over_v6 = |port| v6_with([Extension::fragment(0, true)], &Tcp::to(port));
    filter.denied_by(0, &over_v6(80));
    filter.passes(Reason::DefaultAllow, &over_v6(443));
}

#[test]
fn tiny_fragments_are_dropped_whatever_the_rules() {
    let Some(mut filter) = Filter::load(&l3_only(ruleset(Action::Allow, []))) else {
        return;
    };
    for length in [0, 8, 19] {
        let packet = Ipv4 {
            payload: 0..length,
            ..Ipv4::fragment(0, true)
        };
        filter.drops(Reason::TinyFragment, &plain(&packet.carry(&Tcp::to(443))));
    }
    let one = Ipv4::fragment(1, false);
    filter.drops(Reason::TinyFragment, &plain(&one.carry(&Tcp::to(443))));
    filter.passes(Reason::DefaultAllow, &plain(&one.carry(&Udp::to(443))));
    let one = v6_with([Extension::fragment(1, false)], &Tcp::to(443));
    filter.drops(Reason::TinyFragment, &one);
}

#[test]
fn a_later_fragment_that_a_port_rule_could_match_is_dropped() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, web())) else {
        return;
    };
    for frame in later(&Tcp::to(443)) {
        filter.drops(Reason::Fragment, &frame);
    }
    for frame in later(&Udp::to(80)) {
        filter.passes(Reason::DefaultAllow, &frame);
    }
    for frame in later(&Icmp::new(8, 0)) {
        filter.passes(Reason::DefaultAllow, &frame);
    }
}

#[test]
fn or_judged_by_l3_alone() {
    let Some(mut filter) = Filter::load(&l3_only(ruleset(Action::Allow, web()))) else {
        return;
    };
    for frame in later(&Tcp::to(80)) {
        filter.passes(Reason::DefaultAllow, &frame);
    }
    filter.denied_by(0, &first(&Tcp::to(80)));

    let rules = [allow(ports(6, &[(80, 80)]))];
    let Some(mut filter) = Filter::load(&l3_only(ruleset(Action::Deny, rules))) else {
        return;
    };
    for frame in later(&Tcp::to(80)) {
        filter.drops(Reason::DefaultDeny, &frame);
    }
}

#[test]
fn rules_without_ports_decide_it() {
    let rules = [
        allow(from(&["203.0.113.0/24"])),
        allow(from(&["2001:db8:f::/48"])),
        deny(protocol(17)),
        deny(ports(6, &[(80, 80)])),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for (rule, frame) in (0..).zip(later(&Tcp::to(80))) {
        filter.allowed_by(rule, &frame);
    }
    let elsewhere = |payload: &dyn Payload| {
        let packet = Ipv4 {
            src: [198, 51, 100, 7].into(),
            ..Ipv4::fragment(64, false)
        };
        plain(&packet.carry(payload))
    };
    filter.denied_by(2, &elsewhere(&Udp::to(80)));
    filter.drops(Reason::Fragment, &elsewhere(&Tcp::to(80)));
    filter.denied_by(3, &between("198.51.100.7", "192.0.2.10", &Tcp::to(80)));
}

#[test]
fn a_port_rule_of_another_address_does_not_matter() {
    let matches = Match {
        src: from(&["198.51.100.0/24"]).src,
        ..ports(6, &[(80, 80)])
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(matches)])) else {
        return;
    };
    for frame in later(&Tcp::to(80)) {
        filter.passes(Reason::DefaultAllow, &frame);
    }
}

#[test]
fn a_fragment_that_hides_its_protocol() {
    let hides = |source: &[Rule], action| ruleset(action, source.to_vec());
    let frame = v6_with(
        [Extension::fragment(64, false).says(60)],
        &tests::packet::Raw::new(6, &[0; 16]),
    );
    let Some(mut filter) = Filter::load(&hides(&[allow(protocol(99))], Action::Allow)) else {
        return;
    };
    filter.drops(Reason::Fragment, &frame);
    let by_source = [deny(from(&["2001:db8:f::/48"])), allow(protocol(99))];
    let Some(mut filter) = Filter::load(&hides(&by_source, Action::Allow)) else {
        return;
    };
    filter.denied_by(0, &frame);
    let Some(mut filter) = Filter::load(&l3_only(hides(&[deny(protocol(99))], Action::Allow)))
    else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &frame);
}
