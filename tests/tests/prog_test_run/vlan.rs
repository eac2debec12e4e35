//! VLAN tags in the frame.

use filter_common::verdict::Reason;
use filter_user::ruleset::Action;
use tests::packet::ethertype::{LLDP, OLD_SERVICE_VLAN, SERVICE_VLAN, VLAN};
use tests::packet::{Ethernet, Ipv4, Ipv6, Packet, Tcp};

use crate::Filter;
use crate::rules::{deny, ports, ruleset};

fn load() -> Option<Filter> {
    Filter::load(&ruleset(Action::Allow, [deny(ports(6, &[(80, 80)]))]))
}

fn tagged(tags: &[u16], packet: &Packet) -> Vec<u8> {
    Ethernet::default().tagged(tags).carry(packet)
}

#[test]
fn up_to_two_tags_are_looked_through() {
    let Some(mut filter) = load() else {
        return;
    };
    let kinds = [VLAN, SERVICE_VLAN, OLD_SERVICE_VLAN];
    let mut stacks: Vec<Vec<u16>> = vec![vec![]];
    stacks.extend(kinds.map(|kind| vec![kind]));
    stacks.extend(
        kinds
            .iter()
            .flat_map(|outer| kinds.map(|inner| vec![*outer, inner])),
    );
    for tags in stacks {
        for (port, denied) in [(80, true), (443, false)] {
            for packet in [
                Ipv4::default().carry(&Tcp::to(port)),
                Ipv6::default().carry(&Tcp::to(port)),
            ] {
                let frame = tagged(&tags, &packet);
                if denied {
                    filter.denied_by(0, &frame);
                } else {
                    filter.passes(Reason::DefaultAllow, &frame);
                }
            }
        }
        filter.passes(Reason::NotIp, &tagged(&tags, &Packet::new(LLDP, &[2, 7])));
    }
}

#[test]
fn deeper_is_dropped() {
    let Some(mut filter) = load() else {
        return;
    };
    let packet = Ipv4::default().carry(&Tcp::to(443));
    for tags in [
        &[VLAN; 3][..],
        &[SERVICE_VLAN, VLAN, OLD_SERVICE_VLAN],
        &[VLAN; 8],
    ] {
        filter.drops(Reason::VlanDepth, &tagged(tags, &packet));
        filter.drops(Reason::VlanDepth, &tagged(tags, &Packet::new(LLDP, &[])));
    }
}

#[test]
fn a_frame_that_ends_in_its_tags_is_malformed() {
    let Some(mut filter) = load() else {
        return;
    };
    let frame = tagged(&[VLAN, VLAN], &Ipv4::default().carry(&Tcp::to(443)));
    for length in 14..=41 {
        filter.drops(Reason::Malformed, &frame[..length]);
    }
}
