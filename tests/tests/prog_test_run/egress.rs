//! The program of what goes out: the same answers as on the way in, as actions of
//! traffic control.

use filter_common::verdict::{Reason, Verdict};
use filter_user::ruleset::{Action, Direction, Match, Rule, Ruleset};
use tests::packet::ethertype::{SERVICE_VLAN, VLAN};
use tests::packet::{Arp, Ethernet, Extension, Icmpv6, Ipv4, Ipv6, Raw, Tcp, Udp};

use crate::rules::{allow, deny, failsafe, log, ports, protocol, ruleset, to};
use crate::{Filter, decision, plain, v4, v6, v6_with};

/// The ruleset of what goes out.
pub(crate) fn egress(default: Action, rules: impl IntoIterator<Item = Rule>) -> Ruleset {
    let mut ruleset = ruleset(default, rules);
    ruleset.direction = Direction::Egress;
    for rule in &mut ruleset.rules {
        rule.id.direction = Direction::Egress;
    }
    ruleset
}

/// Denies tcp 80 by default-allow.
fn web() -> Ruleset {
    egress(Action::Allow, [deny(ports(6, &[(80, 80)]))])
}

#[test]
fn each_packet_is_decided_and_counted_once() {
    let rules = [
        failsafe(ports(17, &[(53, 53)])),
        log(protocol(6)),
        deny(to(&["192.0.2.0/24", "2001:db8::/32"])),
        allow(protocol(6)),
    ];
    let Some(mut filter) = Filter::load(&egress(Action::Deny, rules)) else {
        return;
    };
    let open = decision(Verdict::Pass, Reason::Failsafe, Some(0));
    for frame in [v4(&Udp::to(53)), v6(&Udp::to(53))] {
        filter.expect(&frame, open);
    }
    let denied = decision(Verdict::Drop, Reason::PolicyDeny, Some(2));
    for frame in [v4(&Tcp::to(80)), v6(&Tcp::to(80))] {
        filter.expect_noting(&[1], &frame, denied);
    }
    filter.denied_by(2, &v4(&Udp::to(54)));
    let elsewhere = Ipv4 {
        dst: [198, 51, 100, 7].into(),
        ..Ipv4::default()
    };
    let allowed = decision(Verdict::Pass, Reason::PolicyAllow, Some(3));
    filter.expect_noting(&[1], &plain(&elsewhere.carry(&Tcp::to(80))), allowed);
    filter.drops(Reason::DefaultDeny, &plain(&elsewhere.carry(&Udp::to(54))));
}

#[test]
fn what_no_rule_decides_passes_by_default() {
    let Some(mut filter) = Filter::load(&web()) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v6(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(443)));
    filter.passes(Reason::DefaultAllow, &v6(&Udp::to(80)));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(47, &[0; 8])));
}

#[test]
fn default_deny_leaves_the_node_its_neighbours() {
    let Some(mut filter) = Filter::load(&egress(Action::Deny, [])) else {
        return;
    };
    filter.drops(Reason::DefaultDeny, &v4(&Tcp::to(80)));
    filter.drops(Reason::DefaultDeny, &v6(&Udp::to(53)));
    let arp = Arp {
        sender: [192, 0, 2, 10].into(),
        target: [203, 0, 113, 7].into(),
    };
    filter.passes(Reason::Essential, &plain(&arp.packet()));
    for kind in [135, 136] {
        let neighbour = Ipv6 {
            hop_limit: 255,
            ..Ipv6::default()
        };
        let frame = plain(&neighbour.carry(&Icmpv6::new(kind, 0)));
        filter.passes(Reason::Essential, &frame);
    }
}

#[test]
fn a_rule_that_denies_all_is_asked_first() {
    let Some(mut filter) = Filter::load(&egress(Action::Allow, [deny(Match::default())])) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v6(&Icmpv6::new(135, 0)));
}

/// What is tagged in the frame, and not by the card.
#[test]
fn tags_are_looked_through() {
    let Some(mut filter) = Filter::load(&web()) else {
        return;
    };
    let tcp = |port| Ipv4::default().carry(&Tcp::to(port));
    for tags in [&[VLAN][..], &[SERVICE_VLAN], &[SERVICE_VLAN, VLAN]] {
        let tagged = Ethernet::default().tagged(tags);
        filter.denied_by(0, &tagged.carry(&tcp(80)));
        filter.passes(Reason::DefaultAllow, &tagged.carry(&tcp(443)));
        let over_v6 = Ipv6::default().carry(&Tcp::to(80));
        filter.denied_by(0, &tagged.carry(&over_v6));
    }
    let deep = Ethernet::default().tagged(&[VLAN; 3]);
    filter.drops(Reason::VlanDepth, &deep.carry(&tcp(443)));
}

#[test]
fn options_and_extension_headers_are_skipped() {
    let Some(mut filter) = Filter::load(&web()) else {
        return;
    };
    for words in [1, 5, 10] {
        let packet = Ipv4 {
            options: vec![1; words * 4],
            ..Ipv4::default()
        };
        filter.denied_by(0, &plain(&packet.carry(&Tcp::to(80))));
        filter.passes(Reason::DefaultAllow, &plain(&packet.carry(&Tcp::to(443))));
    }
    let chain = [
        Extension::hop_by_hop(),
        Extension::destination(),
        Extension::routing(2),
    ];
    for count in 1..=chain.len() {
        let chain = &chain[..count];
        filter.denied_by(0, &v6_with(chain, &Tcp::to(80)));
        filter.passes(Reason::DefaultAllow, &v6_with(chain, &Tcp::to(443)));
    }
    let forbidden = v6_with([Extension::routing(0)], &Tcp::to(443));
    filter.drops(Reason::Ipv6Extension, &forbidden);
}

#[test]
fn what_is_wrong_does_not_go_out_either() {
    let Some(mut filter) = Filter::load(&web()) else {
        return;
    };
    let short = Ipv4 {
        ihl: Some(4),
        ..Ipv4::default()
    };
    filter.drops(Reason::Malformed, &plain(&short.carry(&Tcp::to(443))));
    let tiny = Ipv4 {
        payload: 0..8,
        ..Ipv4::fragment(0, true)
    };
    filter.drops(Reason::TinyFragment, &plain(&tiny.carry(&Tcp::to(443))));
    let later = plain(&Ipv4::fragment(64, false).carry(&Tcp::to(443)));
    filter.drops(Reason::Fragment, &later);
    filter.drops(Reason::UnreadableL4, &v4(&Raw::new(6, &[0; 3])));
}

/// What the stack hands over is larger than a frame on the wire; the kernel's test run
/// takes what fits into a page, beside what it keeps there itself.
#[test]
fn large_packets_are_decided_and_their_bytes_counted() {
    const LARGE: usize = 3_000;
    let Some(mut filter) = Filter::load(&web()) else {
        return;
    };
    let segment = |port, size| Tcp {
        rest: vec![0x55; size],
        ..Tcp::to(port)
    };
    for size in [1_460, 1_461, 1_500, 2_000, LARGE] {
        filter.denied_by(0, &v4(&segment(80, size)));
        filter.denied_by(0, &v6(&segment(80, size)));
        filter.passes(Reason::DefaultAllow, &v4(&segment(443, size)));
    }
    // The header behind 2,048 bytes of extensions.
    let long = [Extension::units(60, 256)];
    filter.denied_by(0, &v6_with(long.clone(), &segment(80, 500)));
    filter.passes(Reason::DefaultAllow, &v6_with(long, &segment(443, 500)));
}
