//! What other filters get wrong, as far as it is known, and by which seeded mistake it is
//! shown that ours would be caught at it.

use filter_common::verdict::Reason;
use filter_user::reference;
use filter_user::ruleset::{Action, Essentials, Match, Ruleset};
use ipnet::IpNet;

use crate::mistakes::Mistake;
use crate::quirk::Quirk;

/// Where a defect is seeded.
#[derive(Clone, Copy)]
pub(crate) enum Seed {
    /// Here, and the verdict on some packet must be another.
    Verdict(Mistake),
    /// Here, and what is counted must be otherwise.
    Count(Mistake),
    /// In `mistakes.rs` or `flow_mistakes.rs`, by this name.
    Named(&'static str),
    /// In `documents/quirk.rs`.
    Reading(Quirk),
    /// In `soak.rs`, by this name.
    Swap(&'static str),
}

use Seed::{Count, Named, Reading, Swap, Verdict};

/// Who, what, and where.
pub(crate) const ALL: &[(&str, &str, Seed)] = &[
    (
        "ingress-node-firewall",
        "IPv4 options: such a packet passes",
        Verdict(|ruleset, frame| {
            if is_ipv4(frame) && frame.len() >= 34 && frame[14] > 0x45 {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "ingress-node-firewall",
        "a first fragment with a short L4 header passes, and one at offset 1",
        Verdict(|ruleset, frame| {
            if reason(ruleset, frame) == Reason::TinyFragment {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "ingress-node-firewall, xdp-filter",
        "later fragments pass",
        Verdict(|ruleset, frame| {
            if is_later_fragment(frame) {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "Calico (#8821)",
        "later fragments are dropped, also where no rule needs their ports",
        Verdict(|ruleset, frame| {
            if is_later_fragment(frame) {
                stop(ruleset, frame);
            }
        }),
    ),
    (
        "several",
        "a chain of more than 4 extension headers is dropped",
        Verdict(|ruleset, frame| {
            if links(frame).len() > 4 {
                stop(ruleset, frame);
            }
        }),
    ),
    (
        "several",
        "a chain of more than 6 extension headers is dropped",
        Verdict(|ruleset, frame| {
            if links(frame).len() > 6 {
                stop(ruleset, frame);
            }
        }),
    ),
    (
        "several",
        "the authentication header is counted in units of 8 bytes",
        Verdict(|_, frame| {
            for (kind, at) in links(frame) {
                if kind == 51 {
                    frame[at + 1] = frame[at + 1].saturating_mul(2);
                }
            }
        }),
    ),
    (
        "several",
        "the fragment header has a length",
        Verdict(|_, frame| {
            // As a header that has one.
            let chain = links(frame);
            for (place, (kind, _)) in chain.iter().enumerate() {
                if *kind == 44 {
                    let says = place.checked_sub(1).map_or(20, |before| chain[before].1);
                    frame[says] = 60;
                }
            }
        }),
    ),
    (
        "ingress-node-firewall",
        "GRE, ESP and other protocols pass whatever is denied",
        Verdict(|ruleset, frame| {
            if is_ipv4(frame) && frame.len() >= 34 && ![1, 6, 17, 132].contains(&frame[23]) {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "ingress-node-firewall",
        "what is cut passes",
        Verdict(|ruleset, frame| {
            let reason = reason(ruleset, frame);
            if [Reason::Malformed, Reason::UnreadableL4].contains(&reason) {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "ingress-node-firewall",
        "tagged frames pass",
        Verdict(|ruleset, frame| {
            if frame.get(12..14) == Some(&[0x81, 0]) {
                pass(ruleset, frame);
            }
        }),
    ),
    (
        "xdp-filter",
        "a default deny drops ARP and neighbour discovery",
        Verdict(|ruleset, _| ruleset.options.essentials = Essentials::NONE),
    ),
    (
        "xdp-filter",
        "DHCP is not let through in any case",
        Named("failsafes are ordinary rules"),
    ),
    (
        "ingress-node-firewall",
        "0.0.0.0/0 and ::/0 are one key",
        Verdict(|ruleset, _| {
            each(ruleset, |matches| {
                for side in [&mut matches.src, &mut matches.dst] {
                    if side.nets.iter().any(|net| net.prefix_len() == 0) {
                        side.nets.clear();
                    }
                }
            });
        }),
    ),
    (
        "ingress-node-firewall",
        "IPv4 rules are asked about IPv4-mapped addresses",
        Named("an IPv4-mapped address is an IPv4 address"),
    ),
    (
        "ingress-node-firewall",
        "the end of a port range does not belong to it",
        Named("the end of a port range is exclusive"),
    ),
    (
        "ingress-node-firewall",
        "ICMP type 0 is taken for none",
        Named("ICMP type 0 is no type"),
    ),
    (
        "ingress-node-firewall",
        "ICMP code 0 is taken for none",
        Named("ICMP code 0 is no code"),
    ),
    (
        "ingress-node-firewall",
        "ICMP code 0 of a document is taken for none",
        Reading(Quirk::IcmpCode0IsUnset),
    ),
    (
        "stateless filters",
        "return traffic is told by its source port",
        Named("an answer is told by its source port"),
    ),
    (
        "ingress-node-firewall",
        "what matches nothing passes",
        Verdict(|ruleset, _| ruleset.default = Action::Allow),
    ),
    (
        "ingress-node-firewall",
        "its longest CIDR comes before its order, which others forget",
        Reading(Quirk::OrderBeforeCidr),
    ),
    (
        "ingress-node-firewall",
        "rules of one order share a counter",
        Count(|ruleset, _| {
            // Each second one is counted by the one before it.
            for index in (1..ruleset.rules.len()).step_by(2) {
                let [before, rule] = &mut ruleset.rules[index - 1..=index] else {
                    unreachable!("two rules");
                };
                if before.action == rule.action && before.same_tier(rule) {
                    before.matches.append(&mut rule.matches);
                }
            }
        }),
    ),
    (
        "ingress-node-firewall",
        "a change takes away what is in force, and then adds what is new",
        Swap("PurgeThenAdd"),
    ),
    (
        "xdp-filter",
        "a change is made entry by entry",
        Swap("Mixture"),
    ),
    (
        "bpfilter (#389)",
        "counters begin again when a policy changes",
        Swap("ForgetsCounts"),
    ),
    (
        "Cilium",
        "a deny comes before every allow",
        Verdict(|ruleset, _| {
            let is_deny = |rule: &filter_user::ruleset::Rule| rule.action == Action::Deny;
            ruleset
                .rules
                .sort_by_key(|rule| (rule.id.stage, !is_deny(rule)));
        }),
    ),
    (
        "xdp-filter",
        "one condition that holds is enough",
        Verdict(|ruleset, _| {
            for rule in &mut ruleset.rules {
                let more: Vec<Match> = rule
                    .matches
                    .iter()
                    .filter(|matches| !matches.src.is_any())
                    .map(|matches| Match {
                        src: matches.src.clone(),
                        ..Match::default()
                    })
                    .collect();
                rule.matches.extend(more);
            }
        }),
    ),
    (
        "xdp-filter",
        "of a network, the one address that is written",
        Verdict(|ruleset, _| {
            each(ruleset, |matches| {
                for net in &mut matches.src.nets {
                    *net = IpNet::from(net.network());
                }
            });
        }),
    ),
    (
        "xdp-filter",
        "whatever is a hit gets the same verdict",
        Verdict(|ruleset, _| {
            for rule in &mut ruleset.rules {
                if rule.action == Action::Deny {
                    rule.action = Action::Allow;
                }
            }
        }),
    ),
    (
        "converters",
        "fields that are not known are left out: notPorts",
        Reading(Quirk::NotPortsIgnored),
    ),
    (
        "converters",
        "fields that are not known are left out: notSelector",
        Reading(Quirk::NotSelectorIgnored),
    ),
    (
        "converters",
        "fields that are not known are left out: except",
        Reading(Quirk::ExceptIgnored),
    ),
];

/// A packet that passes.
fn pass(ruleset: &mut Ruleset, frame: &mut Vec<u8>) {
    decide(ruleset, frame, Action::Allow);
}

/// A packet that is dropped.
fn stop(ruleset: &mut Ruleset, frame: &mut Vec<u8>) {
    decide(ruleset, frame, Action::Deny);
}

fn decide(ruleset: &mut Ruleset, frame: &mut Vec<u8>, action: Action) {
    ruleset.rules.clear();
    ruleset.default = action;
    *frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40];
    frame.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.resize(54, 0);
}

fn reason(ruleset: &Ruleset, frame: &[u8]) -> Reason {
    reference::evaluate(ruleset, frame).reason
}

fn each(ruleset: &mut Ruleset, change: impl FnMut(&mut Match)) {
    let rules = ruleset.rules.iter_mut();
    rules.flat_map(|rule| &mut rule.matches).for_each(change);
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

fn is_later_fragment(frame: &[u8]) -> bool {
    is_ipv4(frame) && frame.len() >= 34 && (frame[20] & 0x1f, frame[21]) > (0, 1)
}

/// The extension headers of a plain IPv6 frame, with their places.
fn links(frame: &[u8]) -> Vec<(u8, usize)> {
    let mut links = Vec::new();
    if frame.get(12..14) != Some(&[0x86, 0xdd]) || frame.len() < 54 {
        return links;
    }
    let (mut next, mut at) = (frame[20], 54);
    while [0, 43, 44, 51, 60, 135].contains(&next) && at + 8 <= frame.len() {
        links.push((next, at));
        let size = match next {
            44 => 8,
            51 => (usize::from(frame[at + 1]) + 2) * 4,
            _ => (usize::from(frame[at + 1]) + 1) * 8,
        };
        (next, at) = (frame[at], at + size);
    }
    links
}
