//! Conditions as the model has them → conditions that one v3 rule can say.

use ipnet::IpNet;

use super::nets::{halves, intersect, subtract, tidy};
use super::{GENERATED, Printer, TAG};
use crate::policy::diagnostic::Code;
use crate::policy::endpoints::all_labels;
use crate::policy::model::{Criteria, Peer, Policy, Port, Rule};
use crate::policy::selector::Selector;
use crate::policy::values::family;
use crate::ruleset::{Family, PortRange};

/// How many networks a list of v3 may have.
const MAX_NETS: usize = 256;

/// How many ports.
const MAX_PORTS: usize = 50;

/// How many characters a selector.
pub(super) const MAX_SELECTOR: usize = 1_024;

/// One rule of v3, but for its action.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Asked {
    pub(super) family: Option<Family>,
    pub(super) protocol: Option<u8>,
    pub(super) not_protocol: Option<u8>,
    pub(super) icmp: Option<crate::ruleset::Icmp>,
    pub(super) not_icmp: Option<crate::ruleset::Icmp>,
    pub(super) src: Side,
    pub(super) dst: Side,
}

/// One side of a packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    pub(super) nets: Vec<IpNet>,
    pub(super) not_nets: Vec<IpNet>,
    pub(super) selector: Option<String>,
    pub(super) namespace_selector: Option<String>,
    pub(super) not_selector: Option<String>,
    pub(super) ports: Vec<Port>,
    pub(super) not_ports: Vec<Port>,
}

/// Where conditions stand, for the names of sets and for messages.
pub(super) struct At<'a> {
    /// The policy or profile, as v3 has its name.
    pub(super) owner: &'a str,
    pub(super) direction: &'a str,
    pub(super) index: usize,
    /// The namespace that selectors are limited to.
    pub(super) namespace: Option<&'a str>,
    pub(super) policy: Option<&'a Policy>,
    pub(super) rule: &'a Rule,
}

impl Printer<'_> {
    /// The v3 rules that a rule comes to: one, wherever one can say it.
    pub(super) fn fit(&mut self, criteria: &[Criteria], at: &At<'_>) -> Vec<Asked> {
        let possible = criteria.iter().filter(|criteria| is_possible(criteria));
        let mut rules = Vec::new();
        for criteria in merge(possible.cloned().collect()) {
            let src = self.side(&criteria.src, "source", at);
            let dst = self.side(&criteria.dst, "destination", at);
            for from in chunks(&src.ports) {
                for to in chunks(&dst.ports) {
                    rules.push(Asked {
                        family: criteria.family,
                        protocol: criteria.protocol,
                        not_protocol: criteria.not_protocol,
                        icmp: criteria.icmp,
                        not_icmp: criteria.not_icmp,
                        src: Side {
                            ports: from.clone(),
                            ..src.clone()
                        },
                        dst: Side {
                            ports: to,
                            ..dst.clone()
                        },
                    });
                }
            }
            for icmp in [criteria.icmp, criteria.not_icmp].into_iter().flatten() {
                if icmp.kind == 255 {
                    self.cannot(
                        at,
                        Code::InvalidValue,
                        "asks for the ICMP type 255, and v3 has the types 0 to 254",
                        "remove the rule: no such packet is ever sent",
                    );
                }
            }
        }
        if rules.is_empty() {
            // It has no packets, and keeps its place and name.
            rules.push(Asked {
                src: Side {
                    selector: Some("!all()".to_owned()),
                    ..Side::default()
                },
                ..Asked::default()
            });
        }
        if rules.len() > 1 {
            let message = format!(
                "becomes {} rules of v3, so that the ones behind it have other numbers, and its \
                 count is the sum of theirs",
                rules.len()
            );
            self.differs(at, &message);
        }
        rules
    }

    fn side(&mut self, peer: &Peer, name: &str, at: &At<'_>) -> Side {
        let mut nets = peer.nets.clone();
        let families = |nets: &[IpNet]| {
            let first = nets.first().map(family);
            nets.iter().any(|net| Some(family(net)) != first)
        };
        if nets.len() > MAX_NETS {
            nets = tidy(&nets);
        }
        // All addresses there are.
        if [Family::V4, Family::V6].iter().all(|wanted| {
            let mut nets = nets.iter();
            nets.any(|net| net.prefix_len() == 0 && family(net) == *wanted)
        }) {
            nets.clear();
        }
        let many = nets.len() > MAX_NETS || families(&nets);
        let mut not_nets: Vec<IpNet> = peer.not_nets.clone();
        if not_nets.len() > MAX_NETS {
            not_nets = tidy(&not_nets);
        }
        // v3 has no /0 among them; its halves are the same.
        let mut not_nets: Vec<IpNet> = not_nets
            .into_iter()
            .flat_map(|net| match net.prefix_len() {
                0 => halves(net),
                _ => vec![net],
            })
            .collect();

        let mut side = Side::default();
        let label = |set: &str| format!("{GENERATED} == '{set}'");
        match (&peer.selector, &peer.tag) {
            (Some(selector), None) if !many => {
                let (selector, of_namespace) = self.selector(selector, at.namespace);
                side.selector = selector;
                side.namespace_selector = of_namespace;
            }
            (None, Some(tag)) if !many => side.selector = Some(tag_selector(tag)),
            (None, None) if !many => {}
            (selector, tag) => {
                // Members of sets are selected one by one, so what lies in two
                // of them is worked out here.
                let mut all = Vec::new();
                if let Some(selector) = selector {
                    all.push(self.resolve(selector));
                }
                if let Some(tag) = tag {
                    all.push(self.tagged(tag));
                }
                if many {
                    all.push(std::mem::take(&mut nets));
                }
                let both = all.into_iter().reduce(|a, b| intersect(&a, &b));
                let set = self.set(&both.unwrap_or_default(), name, at);
                side.selector = Some(label(&set));
                side.namespace_selector = at.namespace.map(|_| "global()".to_owned());
            }
        }
        let mut none_of = Vec::new();
        if let Some(selector) = &peer.not_selector {
            none_of.push(self.guarded(selector));
        }
        if let Some(tag) = &peer.not_tag {
            none_of.push(tag_selector(tag));
        }
        if not_nets.len() > MAX_NETS || families(&not_nets) {
            let set = self.set(&std::mem::take(&mut not_nets), &format!("not-{name}"), at);
            none_of.push(label(&set));
        }
        side.not_selector = match none_of.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("({})", several.join(") || ("))),
        };
        for selector in [&side.selector, &side.not_selector].into_iter().flatten() {
            if selector.chars().count() > MAX_SELECTOR {
                self.cannot(
                    at,
                    Code::TooMany,
                    "has a selector that is longer than the 1024 characters of v3",
                    "write shorter lists, or a label that stands for them",
                );
            }
        }
        side.nets = nets;
        side.not_nets = not_nets;
        side.ports = fewer(&peer.ports);
        side.not_ports = fewer(&peer.not_ports);
        if side.not_ports.len() > MAX_PORTS {
            self.cannot(
                at,
                Code::TooMany,
                "excludes more than the 50 ports of a list of v3",
                "write ranges",
            );
        }
        side
    }

    /// The addresses that a selector selects, as rules see them.
    pub(super) fn resolve(&self, selector: &Selector) -> Vec<IpNet> {
        let model = self.model;
        let sets = model.sets().iter();
        let sets = sets.filter(|set| selector.matches(&set.labels));
        let mut nets: Vec<IpNet> = sets.flat_map(|set| set.nets.iter().copied()).collect();
        for document in model.endpoints() {
            if selector.matches(&all_labels(model, document)) {
                nets.extend(document.expected_ips().iter().map(|&ip| IpNet::from(ip)));
            }
        }
        nets
    }

    fn tagged(&self, tag: &str) -> Vec<IpNet> {
        let model = self.model;
        let has_tag = |name: &String| {
            let profile = model.profile(name);
            profile.is_some_and(|profile| profile.tags.iter().any(|found| found == tag))
        };
        let documents = model.endpoints().iter();
        documents
            .filter(|document| document.profiles().iter().any(has_tag))
            .flat_map(|document| document.expected_ips().iter().map(|&ip| IpNet::from(ip)))
            .collect()
    }
}

/// The selector of the endpoints that have a profile with this tag.
fn tag_selector(tag: &str) -> String {
    format!("has({TAG}{tag})")
}

/// Whether there are such packets at all, as far as the IP version says it.
fn is_possible(criteria: &Criteria) -> bool {
    let mut family = criteria.family;
    for peer in [&criteria.src, &criteria.dst] {
        if peer.nets.is_empty() {
            continue;
        }
        let has = |wanted: Family| {
            let mut nets = peer.nets.iter();
            nets.any(|net| super::super::values::family(net) == wanted)
        };
        match family {
            Some(wanted) if !has(wanted) => return false,
            Some(_) => {}
            None if has(Family::V4) && has(Family::V6) => {}
            None => {
                family = Some(if has(Family::V4) {
                    Family::V4
                } else {
                    Family::V6
                });
            }
        }
    }
    true
}

/// Puts alternatives together where one says the same.
fn merge(all: Vec<Criteria>) -> Vec<Criteria> {
    let by_ports = combine(all, |a, b| {
        let without_ports = |criteria: &Criteria| {
            let mut criteria = criteria.clone();
            criteria.dst.ports.clear();
            criteria
        };
        if without_ports(a) != without_ports(b) {
            return None;
        }
        let mut both = a.clone();
        if a.dst.ports.is_empty() || b.dst.ports.is_empty() {
            both.dst.ports.clear();
        } else {
            let new = b
                .dst
                .ports
                .iter()
                .filter(|port| !a.dst.ports.contains(port));
            both.dst.ports.extend(new.cloned());
        }
        Some(both)
    });
    let by_source = combine(by_ports, |a, b| union(a, b, |criteria| &mut criteria.src));
    combine(by_source, |a, b| union(a, b, |criteria| &mut criteria.dst))
}

fn combine(
    all: Vec<Criteria>,
    both: impl Fn(&Criteria, &Criteria) -> Option<Criteria>,
) -> Vec<Criteria> {
    let mut combined: Vec<Criteria> = Vec::new();
    for next in all {
        let found = combined
            .iter_mut()
            .find_map(|known| Some((both(known, &next)?, known)));
        match found {
            Some((both, known)) => *known = both,
            None => combined.push(next),
        }
    }
    combined
}

/// Conditions that differ in the networks of one side.
fn union(
    a: &Criteria,
    b: &Criteria,
    side: impl Fn(&mut Criteria) -> &mut Peer,
) -> Option<Criteria> {
    let (mut a, mut b) = (a.clone(), b.clone());
    let take = |criteria: &mut Criteria| {
        let peer = side(criteria);
        (
            std::mem::take(&mut peer.nets),
            std::mem::take(&mut peer.not_nets),
        )
    };
    let ((a_nets, a_not), (b_nets, b_not)) = (take(&mut a), take(&mut b));
    if a != b {
        return None;
    }
    let mut both = a;
    let peer = side(&mut both);
    if (a_nets.is_empty() && a_not.is_empty()) || (b_nets.is_empty() && b_not.is_empty()) {
        return Some(both);
    }
    if a_nets.is_empty() || b_nets.is_empty() {
        return None;
    }
    let of_a = subtract(&a_nets, &a_not);
    let of_b = subtract(&b_nets, &b_not);
    let apart = intersect(&of_a, &b_not).is_empty() && intersect(&of_b, &a_not).is_empty();
    if apart {
        peer.nets = a_nets;
        peer.not_nets = a_not;
        for (list, more) in [(&mut peer.nets, b_nets), (&mut peer.not_nets, b_not)] {
            for net in more {
                if !list.contains(&net) {
                    list.push(net);
                }
            }
        }
    } else {
        peer.nets = tidy(&[of_a, of_b].concat());
    }
    Some(both)
}

/// The same ports in fewer ranges, where there are too many.
fn fewer(ports: &[Port]) -> Vec<Port> {
    if ports.len() <= MAX_PORTS {
        return ports.to_vec();
    }
    let mut ranges: Vec<PortRange> = Vec::new();
    let mut names = Vec::new();
    for port in ports {
        match port {
            Port::Range(range) => ranges.push(*range),
            Port::Named(_) if names.contains(port) => {}
            Port::Named(_) => names.push(port.clone()),
        }
    }
    ranges.sort_by_key(|range| (range.first, range.last));
    let mut joined: Vec<PortRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined.into_iter().map(Port::Range).chain(names).collect()
}

fn chunks(ports: &[Port]) -> Vec<Vec<Port>> {
    if ports.is_empty() {
        return vec![Vec::new()];
    }
    ports.chunks(MAX_PORTS).map(<[Port]>::to_vec).collect()
}
