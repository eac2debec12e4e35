//! `IngressNodeFirewall`: of all networks that a source address lies in, the
//! longest is taken, and its rules are tried in their order.
//!
//! A rule for a network is therefore about that network without the longer
//! ones inside it. These remainders are disjoint, so that one list in the order
//! of the rules says the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::model::{Criteria, Policy, Port};
use crate::ruleset::{Action, Addresses, Direction, Match, PortRange, Rule, RuleId, Stage};

/// The tier that these rules are in.
pub(in super::super) const TIER: &str = "ingress-node-firewall";

/// The rules of these policies. `alone`: no other policies come after them, so
/// what they allow is decided; else it goes on to those.
pub(in super::super) fn lower(
    policies: &[&Policy],
    direction: Direction,
    alone: bool,
) -> Vec<Rule> {
    let all: BTreeSet<IpNet> = policies
        .iter()
        .flat_map(|policy| policy.ingress())
        .flat_map(|rule| &rule.criteria)
        .flat_map(|criteria| criteria.src.nets.iter().copied())
        .collect();
    let tier: Arc<str> = TIER.into();
    let mut rules: Vec<(u32, Rule)> = Vec::new();
    for policy in policies {
        for (index, rule) in (0..).zip(policy.ingress()) {
            let matches = rule
                .criteria
                .iter()
                .flat_map(|criteria| alternatives(criteria, &all))
                .collect();
            let lowered = Rule {
                id: RuleId {
                    stage: Stage::Untracked,
                    policy: Arc::clone(policy.name()),
                    direction,
                    index: Some(index),
                },
                tier: Some(Arc::clone(&tier)),
                action: match rule.action {
                    Action::Allow if !alone => Action::Pass,
                    action => action,
                },
                staged: false,
                matches,
                source: Some(rule.source.clone()),
            };
            rules.push((rule.order.unwrap_or(u32::MAX), lowered));
        }
    }
    rules.sort_by_key(|(order, _)| *order);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Of each network its remainder; those that none is inside of together.
fn alternatives(criteria: &Criteria, all: &BTreeSet<IpNet>) -> Vec<Match> {
    let mut whole = Vec::new();
    let mut parts = Vec::new();
    for net in &criteria.src.nets {
        let inside = widest_inside(net, all);
        if inside.is_empty() {
            whole.push(*net);
        } else {
            parts.push(Addresses {
                nets: vec![*net],
                not_nets: inside,
                ..Addresses::default()
            });
        }
    }
    if !whole.is_empty() {
        parts.insert(0, whole.into());
    }
    let dst_ports: Vec<PortRange> = criteria
        .dst
        .ports
        .iter()
        .filter_map(|port| match port {
            Port::Range(range) => Some(*range),
            // This format has none.
            Port::Named(_) => None,
        })
        .collect();
    parts
        .into_iter()
        .map(|src| Match {
            family: criteria.family,
            protocol: criteria.protocol,
            icmp: criteria.icmp,
            src,
            dst_ports: dst_ports.clone(),
            ..Match::default()
        })
        .collect()
}

/// The networks inside `net` that are inside no other one there.
fn widest_inside(net: &IpNet, all: &BTreeSet<IpNet>) -> Vec<IpNet> {
    // The order of networks is by address, then by length: what is inside
    // follows, the wider before the narrower.
    let mut found: Vec<IpNet> = Vec::new();
    for candidate in all.range(*net..).skip(1) {
        if !net.contains(candidate) {
            break;
        }
        if !found.last().is_some_and(|last| last.contains(candidate)) {
            found.push(*candidate);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_leave_out_what_is_longer() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect()
        };
        let all: BTreeSet<IpNet> = nets(&[
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.0.0.0/24",
            "10.128.0.0/9",
            "11.0.0.0/8",
            "::/0",
            "2001:db8::/32",
        ])
        .into_iter()
        .collect();
        for (net, inside) in [
            ("0.0.0.0/0", nets(&["10.0.0.0/8", "11.0.0.0/8"])),
            ("10.0.0.0/8", nets(&["10.0.0.0/16", "10.128.0.0/9"])),
            ("10.0.0.0/16", nets(&["10.0.0.0/24"])),
            ("10.0.0.0/24", nets(&[])),
            ("11.0.0.0/8", nets(&[])),
            ("::/0", nets(&["2001:db8::/32"])),
        ] {
            assert_eq!(widest_inside(&nets(&[net])[0], &all), inside, "{net}");
        }
    }
}
