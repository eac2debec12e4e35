//! What default deny must not break, and what an explicit deny may.

use filter_common::verdict::{Essential, Reason};
use filter_user::ruleset::{Action, Direction, Essentials, Match, Ruleset};
use tests::packet::{Arp, Icmp, Icmpv6, Ipv4, Ipv6, Raw, Tcp, Udp};

use crate::rules::{deny, ruleset};
use crate::{Filter, plain, v4, v6};

fn icmpv6(kind: u8, hop_limit: u8) -> Vec<u8> {
    let packet = Ipv6 {
        hop_limit,
        ..Ipv6::default()
    };
    plain(&packet.carry(&Icmpv6::new(kind, 0)))
}

/// Every essential but ARP.
fn essentials() -> Vec<Vec<u8>> {
    let mut frames = vec![
        v4(&Icmp::new(3, 4)),
        v4(&Raw::new(2, &[0x16, 0, 0, 0, 224, 0, 0, 251])),
        v4(&Udp::to(68)),
        v6(&Udp::to(546)),
    ];
    frames.extend((133..=137).map(|kind| icmpv6(kind, 255)));
    frames.extend([1, 2, 3, 4, 130, 131, 132, 143].map(|kind| icmpv6(kind, 1)));
    frames
}

fn arp() -> Vec<u8> {
    let arp = Arp {
        sender: [203, 0, 113, 7].into(),
        target: [192, 0, 2, 10].into(),
    };
    plain(&arp.packet())
}

fn closed(essentials: bool) -> Ruleset {
    let mut ruleset = ruleset(Action::Deny, []);
    ruleset.options.essentials = if essentials {
        Essentials::ALL
    } else {
        Essentials::NONE
    };
    ruleset
}

#[test]
fn they_pass_under_default_deny() {
    let Some(mut filter) = Filter::load(&closed(true)) else {
        return;
    };
    for frame in essentials() {
        filter.passes(Reason::Essential, &frame);
    }
    filter.passes(Reason::Essential, &arp());
}

/// Frames of each kind, in one direction.
fn kinds(direction: Direction) -> Vec<(Essential, Vec<Vec<u8>>)> {
    let [dhcp, dhcpv6] = match direction {
        Direction::Ingress => [68, 546],
        Direction::Egress => [67, 547],
    };
    let all = |kinds: &[u8]| kinds.iter().map(|kind| icmpv6(*kind, 255)).collect();
    vec![
        (Essential::Arp, vec![arp()]),
        (
            Essential::NeighbourDiscovery,
            all(&[133, 134, 135, 136, 137]),
        ),
        (Essential::Mld, all(&[130, 131, 132, 143])),
        (
            Essential::Igmp,
            vec![v4(&Raw::new(2, &[0x16, 0, 0, 0, 224, 0, 0, 251]))],
        ),
        (Essential::PathMtu, vec![v4(&Icmp::new(3, 4))]),
        (Essential::Icmpv6Errors, all(&[1, 2, 3, 4])),
        (Essential::Dhcp, vec![v4(&Udp::to(dhcp))]),
        (Essential::Dhcpv6, vec![v6(&Udp::to(dhcpv6))]),
    ]
}

#[test]
fn each_kind_is_switched_and_counted_by_itself() {
    for direction in [Direction::Ingress, Direction::Egress] {
        for (on, _) in kinds(direction) {
            let mut ruleset = closed(false);
            ruleset.direction = direction;
            ruleset.options.essentials = Essentials::NONE.with(on);
            let Some(mut filter) = Filter::load(&ruleset) else {
                return;
            };
            for (kind, frames) in kinds(direction) {
                for frame in frames {
                    let before = filter.essentials();
                    if kind == on {
                        filter.passes(Reason::Essential, &frame);
                    } else if kind == Essential::Arp {
                        filter.passes(Reason::NotIp, &frame);
                    } else {
                        filter.drops(Reason::DefaultDeny, &frame);
                    }
                    for (old, new) in before.iter().zip(filter.essentials()) {
                        let counted = new.1.packets - old.1.packets;
                        let its = kind == on && new.0 == kind;
                        assert_eq!(
                            counted,
                            u64::from(its),
                            "{direction:?} {kind:?} {:?}",
                            new.0
                        );
                    }
                }
            }
        }
    }
}

/// The answers come in and the questions go out, not the other way round.
#[test]
fn dhcp_is_that_of_a_client() {
    for (direction, ports) in [
        (Direction::Ingress, [67, 547]),
        (Direction::Egress, [68, 546]),
    ] {
        let mut ruleset = closed(true);
        ruleset.direction = direction;
        let Some(mut filter) = Filter::load(&ruleset) else {
            return;
        };
        filter.drops(Reason::DefaultDeny, &v4(&Udp::to(ports[0])));
        filter.drops(Reason::DefaultDeny, &v6(&Udp::to(ports[1])));
    }
}

#[test]
fn a_later_fragment_of_igmp_is_igmp() {
    let Some(mut filter) = Filter::load(&closed(true)) else {
        return;
    };
    let rest = Raw::new(2, &[0; 8]);
    filter.passes(
        Reason::Essential,
        &plain(&Ipv4::fragment(64, false).carry(&rest)),
    );
}

#[test]
fn what_is_like_them_does_not() {
    let Some(mut filter) = Filter::load(&closed(true)) else {
        return;
    };
    let rest = Ipv4::fragment(64, false);
    let mut frames = vec![
        v4(&Icmp::new(0, 0)),
        v4(&Icmp::new(3, 0)),
        v4(&Icmp::new(4, 3)),
        v4(&Icmp::new(8, 0)),
        v6(&Icmp::new(3, 4)),
        v4(&Icmpv6::new(135, 0)),
        v6(&Raw::new(2, &[0; 8])),
        v4(&Udp::to(67)),
        v4(&Udp::to(546)),
        v6(&Udp::to(547)),
        v6(&Udp::to(68)),
        v4(&Tcp::to(68)),
        v4(&Raw::new(1, &[3, 4, 0, 0, 0, 0, 0])),
        plain(&rest.carry(&Udp::to(68))),
        plain(&rest.carry(&Icmp::new(3, 4))),
    ];
    frames.extend((133..=137).map(|kind| icmpv6(kind, 254)));
    frames.extend([0, 5, 128, 129, 138, 142, 144].map(|kind| icmpv6(kind, 255)));
    for frame in frames {
        filter.drops(Reason::DefaultDeny, &frame);
    }
}

#[test]
fn an_explicit_deny_decides_before_them() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, [deny(Match::default())])) else {
        return;
    };
    for frame in essentials() {
        filter.denied_by(0, &frame);
    }
    // No rule speaks about ARP.
    filter.passes(Reason::Essential, &arp());
}

#[test]
fn switched_off_they_meet_the_default() {
    let Some(mut filter) = Filter::load(&closed(false)) else {
        return;
    };
    for frame in essentials() {
        filter.drops(Reason::DefaultDeny, &frame);
    }
    filter.passes(Reason::NotIp, &arp());
}

#[test]
fn under_default_allow_they_are_nothing_special() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [])) else {
        return;
    };
    for frame in essentials() {
        filter.passes(Reason::DefaultAllow, &frame);
    }
    filter.passes(Reason::NotIp, &arp());
}
