//! The reference: a naive evaluator of the ruleset, slow and obviously right.
//!
//! It is written from the semantics of the policies and the standards of the
//! packets, reads frames with a parser of its own, and shares no code with
//! the compiler, the classifier and their parser, which are checked against
//! it. It must never become clever.

mod frame;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;

use crate::decision::Decision;
use crate::ruleset::{Action, Family, Fragments, Match, Ruleset, Stage, Switch};
use frame::{Frame, L4, Packet};

/// Decides a frame (from the Ethernet header on).
#[must_use]
pub fn evaluate(ruleset: &Ruleset, frame: &[u8]) -> Decision {
    let options = &ruleset.options;
    match frame::read(frame) {
        Frame::Drop(reason) => drop(reason),
        Frame::Ip(packet) => rules(ruleset, &packet),
        Frame::WrappedIp if options.encapsulated_ip == Switch::Drop => drop(Reason::Encapsulated),
        // ARP is no packet that rules speak about, but default deny, or
        // dropping what is not IP, must not cost the host its neighbours.
        Frame::Arp
            if options.essentials
                && (ruleset.default == Action::Deny || options.non_ip == Switch::Drop) =>
        {
            pass(Reason::Essential)
        }
        Frame::WrappedIp | Frame::Arp | Frame::NotIp => match options.non_ip {
            Switch::Pass => pass(Reason::NotIp),
            Switch::Drop => drop(Reason::NotIp),
        },
    }
}

const fn pass(reason: Reason) -> Decision {
    Decision {
        verdict: Verdict::Pass,
        reason,
        rule: None,
    }
}

const fn drop(reason: Reason) -> Decision {
    Decision {
        verdict: Verdict::Drop,
        reason,
        rule: None,
    }
}

/// Whether a rule matches a packet.
enum Answer {
    Yes,
    No,
    /// Only what isn't in the packet could tell.
    Unknown,
}

/// Tries the rules in their order.
fn rules(ruleset: &Ruleset, packet: &Packet) -> Decision {
    for (index, rule) in (0..).zip(&ruleset.rules) {
        match rule
            .matches
            .first()
            .map_or(Answer::No, |matches| answer(matches, packet))
        {
            Answer::No => {}
            Answer::Yes => {
                return match (rule.action, rule.id.stage) {
                    (Action::Deny, _) => Decision {
                        rule: Some(index),
                        ..drop(Reason::PolicyDeny)
                    },
                    (Action::Allow, Stage::Failsafe) => Decision {
                        rule: Some(index),
                        ..pass(Reason::Failsafe)
                    },
                    _ => Decision {
                        rule: Some(index),
                        ..pass(Reason::PolicyAllow)
                    },
                };
            }
            // A failsafe opens only what surely is its port.
            Answer::Unknown if rule.id.stage == Stage::Failsafe => {}
            Answer::Unknown => match packet.l4 {
                L4::Absent(Reason::Fragment) if ruleset.options.fragments == Fragments::L3Only => {}
                L4::Absent(reason) => return drop(reason),
                // Nothing is unknown of a packet that shows its L4 header.
                _ => return drop(Reason::Internal),
            },
        }
    }
    match ruleset.default {
        Action::Deny if ruleset.options.essentials && is_essential(packet) => {
            pass(Reason::Essential)
        }
        Action::Deny => drop(Reason::DefaultDeny),
        _ => pass(Reason::DefaultAllow),
    }
}

fn answer(matches: &Match, packet: &Packet) -> Answer {
    let family = if packet.src.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    if matches.family.is_some_and(|wanted| wanted != family) {
        return Answer::No;
    }
    if !among(packet.src, &matches.src.nets) || !among(packet.dst, &matches.dst.nets) {
        return Answer::No;
    }
    match (matches.protocol, packet.protocol) {
        (Some(wanted), Some(protocol)) if wanted != protocol => return Answer::No,
        (Some(_), None) => return Answer::Unknown,
        _ => {}
    }
    if matches.dst_ports.is_empty() {
        return Answer::Yes;
    }
    match packet.l4 {
        L4::Ports { destination } => {
            let listed = matches
                .dst_ports
                .iter()
                .any(|range| range.first <= destination && destination <= range.last);
            if listed { Answer::Yes } else { Answer::No }
        }
        L4::Absent(_) => Answer::Unknown,
        L4::Icmp { .. } | L4::Other => Answer::No,
    }
}

/// Whether an address lies in one of the networks; no networks, no condition.
/// An IPv4-mapped IPv6 address is an IPv6 address.
fn among(address: IpAddr, nets: &[IpNet]) -> bool {
    nets.is_empty()
        || nets.iter().any(|net| match (net, address) {
            (IpNet::V4(net), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(net.prefix_len());
                let part = |address: u32| u64::from(address) >> shift;
                part(net.addr().to_bits()) == part(address.to_bits())
            }
            (IpNet::V6(net), IpAddr::V6(address)) => (0..u32::from(net.prefix_len())).all(|bit| {
                let of = |address: u128| address >> (127 - bit) & 1;
                of(net.addr().to_bits()) == of(address.to_bits())
            }),
            _ => false,
        })
}

/// What must pass where nothing else is allowed: neighbour discovery
/// (RFC 4861, hop limit 255), MLD (RFC 2710, 3810), the errors of ICMPv6
/// (RFC 4443), path-MTU discovery (RFC 1191), IGMP (RFC 3376), and the
/// servers' answers of DHCP (RFC 2131) and DHCPv6 (RFC 8415).
fn is_essential(packet: &Packet) -> bool {
    match (packet.src, packet.protocol, &packet.l4) {
        (IpAddr::V4(_), Some(1), L4::Icmp { kind, code }) => (*kind, *code) == (3, 4),
        // By its number: a later fragment of it as well.
        (IpAddr::V4(_), Some(2), _) => true,
        (IpAddr::V4(_), Some(17), L4::Ports { destination }) => *destination == 68,
        (IpAddr::V6(_), Some(17), L4::Ports { destination }) => *destination == 546,
        (IpAddr::V6(_), Some(58), L4::Icmp { kind, .. }) => match kind {
            1..=4 | 130..=132 | 143 => true,
            133..=137 => packet.hop_limit == 255,
            _ => false,
        },
        _ => false,
    }
}
