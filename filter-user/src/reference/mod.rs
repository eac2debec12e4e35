//! The reference: a naive evaluator of the ruleset, slow and obviously right.
//!
//! It is written from the semantics of the policies and the standards of the
//! packets, reads frames with a parser of its own, and shares no code with
//! the compiler, the classifier and their parser, which are checked against
//! it. It must never become clever.

mod conversation;
mod frame;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use filter_common::verdict::{Essential, Reason, Verdict};
use ipnet::IpNet;

use crate::decision::{Decision, Judgement};
use crate::ruleset::{
    Action, Addresses, Direction, Family, Fragments, Icmp, Match, NetSet, PortRange, Rule, Ruleset,
    Stage, Switch,
};
pub use conversation::{Conversation, Flow, State};
use frame::{Frame, L4, Packet};

/// Decides a frame (from the Ethernet header on).
#[must_use]
pub fn evaluate(ruleset: &Ruleset, frame: &[u8]) -> Decision {
    judge(ruleset, frame).decision
}

/// Decides a frame, and says which rules are counted beside the decision.
#[must_use]
pub fn judge(ruleset: &Ruleset, frame: &[u8]) -> Judgement {
    let options = &ruleset.options;
    let decision = match frame::read(frame) {
        Frame::Ip(packet) => return rules(ruleset, &packet),
        Frame::Drop(reason) => drop(reason),
        Frame::WrappedIp if options.encapsulated_ip == Switch::Drop => drop(Reason::Encapsulated),
        // ARP is no packet that rules speak about, but default deny, or
        // dropping what is not IP, must not cost the host its neighbours.
        Frame::Arp
            if options.essentials.has(Essential::Arp)
                && (denies_by_default(ruleset) || options.non_ip == Switch::Drop) =>
        {
            pass(Reason::Essential)
        }
        Frame::WrappedIp | Frame::Arp | Frame::NotIp => match options.non_ip {
            Switch::Pass => pass(Reason::NotIp),
            Switch::Drop => drop(Reason::NotIp),
        },
    };
    Judgement {
        decision,
        // Of what is not IP, ARP alone can be one.
        essential: (decision.reason == Reason::Essential).then_some(Essential::Arp),
        noted: Vec::new(),
    }
}

/// Whether some packets are denied because nothing allows them: by the
/// default, or at the end of a tier.
fn denies_by_default(ruleset: &Ruleset) -> bool {
    ruleset.default == Action::Deny
        || ruleset
            .rules
            .iter()
            .any(|rule| !rule.staged && rule.action == Action::Deny && rule.id.index.is_none())
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

/// A world: which rules are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    /// As if there were no staged rules.
    Enforced,
    /// As if the staged rules were enforced like the others.
    Staged,
}

/// A walk through the rules of a world.
struct Walk {
    /// The rules that matched, in their order; the last one decided if the
    /// walk ended so.
    matched: Vec<u32>,
    end: End,
}

/// How a walk ends.
enum End {
    /// At this rule, which allows or denies.
    Decided(u32),
    /// At a rule that only what isn't in the packet could decide.
    Undecidable,
    /// There are no more rules.
    NoMoreRules,
}

/// Goes through the rules twice, once in each world. The first walk decides.
/// A rule that decides nothing is noted: those of the first walk that log or
/// pass, and the staged ones of the second.
fn rules(ruleset: &Ruleset, packet: &Packet) -> Judgement {
    let enforced = walk(ruleset, packet, World::Enforced);
    let staged = walk(ruleset, packet, World::Staged);
    let rule_of = |index: u32| &ruleset.rules[index as usize];

    let mut noted = Vec::new();
    for index in (0..).take(ruleset.rules.len()) {
        let rule = rule_of(index);
        let is_noted = if rule.staged {
            staged.matched.contains(&index)
        } else {
            matches!(rule.action, Action::Log | Action::Pass) && enforced.matched.contains(&index)
        };
        if is_noted {
            noted.push(index);
        }
    }
    let decision = match enforced.end {
        End::Decided(index) => decided_by(ruleset, packet, index),
        End::Undecidable => match packet.l4 {
            L4::Absent(reason) => drop(reason),
            // Nothing is unknown of a packet that shows its L4 header.
            _ => drop(Reason::Internal),
        },
        End::NoMoreRules => by_default(ruleset, packet, ruleset.default),
    };
    Judgement {
        decision,
        essential: match decision.reason {
            Reason::Essential => essential(packet, ruleset.direction),
            _ => None,
        },
        noted,
    }
}

/// What a rule that allows or denies makes of the packet.
fn decided_by(ruleset: &Ruleset, packet: &Packet, index: u32) -> Decision {
    let rule = &ruleset.rules[index as usize];
    match (rule.id.index, rule.action, rule.id.stage) {
        // The end of a tier, or of the profiles: no rule of anybody's.
        (None, action, _) => by_default(ruleset, packet, action),
        (Some(_), Action::Allow, Stage::Failsafe) => Decision {
            rule: Some(index),
            ..pass(Reason::Failsafe)
        },
        (Some(_), Action::Allow, _) => Decision {
            rule: Some(index),
            ..pass(Reason::PolicyAllow)
        },
        (Some(_), _, _) => Decision {
            rule: Some(index),
            ..drop(Reason::PolicyDeny)
        },
    }
}

/// What becomes of a packet that no rule decides.
fn by_default(ruleset: &Ruleset, packet: &Packet, action: Action) -> Decision {
    match action {
        Action::Allow => pass(Reason::DefaultAllow),
        _ if essential(packet, ruleset.direction)
            .is_some_and(|kind| ruleset.options.essentials.has(kind)) =>
        {
            pass(Reason::Essential)
        }
        _ => drop(Reason::DefaultDeny),
    }
}

/// Tries the rules of a world in their order.
fn walk(ruleset: &Ruleset, packet: &Packet, world: World) -> Walk {
    let mut matched = Vec::new();
    // The rule whose Pass leads out of its tier.
    let mut passed: Option<&Rule> = None;
    for (index, rule) in (0..).zip(&ruleset.rules) {
        if rule.staged && world == World::Enforced {
            continue;
        }
        if let Some(left) = passed
            && left.id.stage == rule.id.stage
            && left.tier == rule.tier
        {
            continue;
        }
        passed = None;
        match rule_answer(ruleset, rule, packet) {
            Answer::No => {}
            Answer::Yes => {
                matched.push(index);
                match rule.action {
                    Action::Allow | Action::Deny => {
                        let end = End::Decided(index);
                        return Walk { matched, end };
                    }
                    Action::Log => {}
                    Action::Pass => passed = Some(rule),
                }
            }
            // A failsafe opens only what surely is its port, and a log
            // reports only what it surely means.
            Answer::Unknown if rule.id.stage == Stage::Failsafe => {}
            Answer::Unknown if rule.action == Action::Log => {}
            Answer::Unknown
                if packet.l4 == L4::Absent(Reason::Fragment)
                    && ruleset.options.fragments == Fragments::L3Only => {}
            Answer::Unknown => {
                let end = End::Undecidable;
                return Walk { matched, end };
            }
        }
    }
    Walk {
        matched,
        end: End::NoMoreRules,
    }
}

/// Whether a rule, or a part of one, matches a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Only what isn't in the packet could tell.
    Unknown,
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// One of the alternatives must match.
fn rule_answer(ruleset: &Ruleset, rule: &Rule, packet: &Packet) -> Answer {
    let answers: Vec<Answer> = rule
        .matches
        .iter()
        .map(|matches| match_answer(&ruleset.sets, matches, packet))
        .collect();
    if answers.contains(&Answer::Yes) {
        Answer::Yes
    } else if answers.contains(&Answer::Unknown) {
        Answer::Unknown
    } else {
        Answer::No
    }
}

/// All of the conditions must hold.
fn match_answer(sets: &[NetSet], matches: &Match, packet: &Packet) -> Answer {
    let answers = [
        family_answer(matches.family, packet),
        Answer::from(lies_in(packet.src, &matches.src, sets)),
        Answer::from(lies_in(packet.dst, &matches.dst, sets)),
        protocol_answer(matches.protocol, packet, |wanted, found| wanted == found),
        protocol_answer(matches.not_protocol, packet, |wanted, found| {
            wanted != found
        }),
        icmp_answer(matches.icmp, packet, |same| same),
        icmp_answer(matches.not_icmp, packet, |same| !same),
        ports_answer(&matches.src_ports, packet, source, |listed| listed),
        ports_answer(&matches.not_src_ports, packet, source, |listed| !listed),
        ports_answer(&matches.dst_ports, packet, destination, |listed| listed),
        ports_answer(&matches.not_dst_ports, packet, destination, |listed| {
            !listed
        }),
    ];
    if answers.contains(&Answer::No) {
        Answer::No
    } else if answers.contains(&Answer::Unknown) {
        Answer::Unknown
    } else {
        Answer::Yes
    }
}

fn family_answer(wanted: Option<Family>, packet: &Packet) -> Answer {
    let family = if packet.src.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    Answer::from(wanted.is_none_or(|wanted| wanted == family))
}

fn protocol_answer(wanted: Option<u8>, packet: &Packet, holds: impl Fn(u8, u8) -> bool) -> Answer {
    match (wanted, packet.protocol) {
        (None, _) => Answer::Yes,
        (Some(wanted), Some(found)) => Answer::from(holds(wanted, found)),
        (Some(_), None) => Answer::Unknown,
    }
}

/// `holds` is told whether type and code are the wanted ones. What has no type
/// and code matches neither such a condition nor its negation.
fn icmp_answer(wanted: Option<Icmp>, packet: &Packet, holds: impl Fn(bool) -> bool) -> Answer {
    let Some(wanted) = wanted else {
        return Answer::Yes;
    };
    match packet.l4 {
        L4::Icmp { kind, code } => {
            let same_code = match wanted.code {
                None => true,
                Some(wanted) => wanted == code,
            };
            Answer::from(holds(wanted.kind == kind && same_code))
        }
        L4::Ports { .. } | L4::Other => Answer::No,
        L4::Absent(_) => Answer::Unknown,
    }
}

const fn source((source, _): (u16, u16)) -> u16 {
    source
}

const fn destination((_, destination): (u16, u16)) -> u16 {
    destination
}

/// `holds` is told whether the port is in one of the ranges. What has no ports
/// matches neither such a condition nor its negation.
fn ports_answer(
    ranges: &[PortRange],
    packet: &Packet,
    port: impl Fn((u16, u16)) -> u16,
    holds: impl Fn(bool) -> bool,
) -> Answer {
    if ranges.is_empty() {
        return Answer::Yes;
    }
    match packet.l4 {
        L4::Ports {
            source,
            destination,
        } => {
            let port = port((source, destination));
            let listed = ranges
                .iter()
                .any(|range| range.first <= port && port <= range.last);
            Answer::from(holds(listed))
        }
        L4::Icmp { .. } | L4::Other => Answer::No,
        L4::Absent(_) => Answer::Unknown,
    }
}

/// Whether an address is one of those that are asked for.
fn lies_in(address: IpAddr, wanted: &Addresses, sets: &[NetSet]) -> bool {
    let in_set = |set: &u32| among(address, &sets[*set as usize].nets);
    (wanted.nets.is_empty() || among(address, &wanted.nets))
        && !among(address, &wanted.not_nets)
        && wanted.sets.iter().all(in_set)
        && !wanted.not_sets.iter().any(in_set)
}

/// Whether an address lies in one of the networks. An IPv4-mapped IPv6 address
/// is an IPv6 address.
fn among(address: IpAddr, nets: &[IpNet]) -> bool {
    nets.iter().any(|net| match (net, address) {
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
/// (RFC 4443), path-MTU discovery (RFC 1191), IGMP (RFC 3376), and DHCP (RFC 2131)
/// and `DHCPv6` (RFC 8415) of a client. The kind of these that a packet is of.
fn essential(packet: &Packet, direction: Direction) -> Option<Essential> {
    let to = |server: u16, client: u16| match direction {
        // The answers come in, the questions go out.
        Direction::Ingress => client,
        Direction::Egress => server,
    };
    match (packet.src, packet.protocol, &packet.l4) {
        (IpAddr::V4(_), Some(1), L4::Icmp { kind: 3, code: 4 }) => Some(Essential::PathMtu),
        // By its number: a later fragment of it as well.
        (IpAddr::V4(_), Some(2), _) => Some(Essential::Igmp),
        (IpAddr::V4(_), Some(17), L4::Ports { destination, .. }) => {
            (*destination == to(67, 68)).then_some(Essential::Dhcp)
        }
        (IpAddr::V6(_), Some(17), L4::Ports { destination, .. }) => {
            (*destination == to(547, 546)).then_some(Essential::Dhcpv6)
        }
        (IpAddr::V6(_), Some(58), L4::Icmp { kind, .. }) => match kind {
            1..=4 => Some(Essential::Icmpv6Errors),
            130..=132 | 143 => Some(Essential::Mld),
            133..=137 if packet.hop_limit == 255 => Some(Essential::NeighbourDiscovery),
            _ => None,
        },
        _ => None,
    }
}
