//! Conditions as policies write them → conditions on packets: selectors and
//! tags become sets of networks, named ports become numbers.

pub(super) mod ingress_node_firewall;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::diagnostic::{Code, Diagnostic};
use super::endpoints::{Endpoint, all_labels};
use super::model::{Criteria, Model, Peer, Port};
use super::selector::Labels;
use crate::ruleset::{Addresses, Direction, Match, NetSet, PortRange, SourceLine};

/// More alternatives than this a rule may not come to.
const MAX_ALTERNATIVES: usize = 256;

/// Lowers conditions for one endpoint.
pub(super) struct Lowering<'m> {
    pub(super) sets: Sets,
    /// What can't be enforced.
    pub(super) diagnostics: Vec<Diagnostic>,
    model: &'m Model,
    endpoint: &'m Endpoint,
    direction: Direction,
    /// Labels, tags and addresses of each endpoint of the documents.
    peers: Vec<KnownEndpoint<'m>>,
}

/// The sets of a ruleset, each there once.
#[derive(Default)]
pub(super) struct Sets {
    pub(super) list: Vec<NetSet>,
    numbers: HashMap<String, u32>,
}

impl Sets {
    /// The number of this set, which is added if none has its name.
    pub(super) fn push(&mut self, set: NetSet) -> u32 {
        let name = set.name.clone();
        self.get_or_add(&name, || set.nets)
    }

    fn get_or_add(&mut self, name: &str, nets: impl FnOnce() -> Arc<Vec<IpNet>>) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "each set stands in a document of at most some megabytes"
        )]
        let number = self.list.len() as u32;
        self.list.push(NetSet {
            name: name.to_owned(),
            nets: nets(),
        });
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// What selectors and named ports see of an endpoint.
struct KnownEndpoint<'m> {
    labels: Labels,
    tags: Vec<&'m str>,
    addresses: &'m [IpAddr],
    ports: &'m [super::model::NamedPort],
}

/// Which side of a packet a condition is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// One way in which a side can match.
#[derive(Clone, Default)]
struct Alternative {
    sets: Vec<u32>,
    not_sets: Vec<u32>,
    ports: Vec<PortRange>,
    not_ports: Vec<PortRange>,
}

impl<'m> Lowering<'m> {
    /// For an endpoint and a direction.
    pub(super) fn new(model: &'m Model, endpoint: &'m Endpoint, direction: Direction) -> Self {
        let peers = model
            .endpoints()
            .iter()
            .map(|document| {
                let profiles = document.profiles().iter();
                let profiles = profiles.filter_map(|name| model.profile(name));
                KnownEndpoint {
                    labels: all_labels(model, document),
                    tags: profiles
                        .flat_map(|profile| profile.tags.iter().map(String::as_str))
                        .collect(),
                    addresses: document.expected_ips(),
                    ports: document.ports(),
                }
            })
            .collect();
        Self {
            sets: Sets::default(),
            diagnostics: Vec::new(),
            model,
            endpoint,
            direction,
            peers,
        }
    }

    /// The alternatives that a condition comes to.
    pub(super) fn criteria(&mut self, criteria: &Criteria, source: &SourceLine) -> Vec<Match> {
        let from = self.alternatives(&criteria.src, criteria.protocol, Side::Source);
        let to = self.alternatives(&criteria.dst, criteria.protocol, Side::Destination);
        if from.len() * to.len() > MAX_ALTERNATIVES {
            let message = format!(
                "{source}: the named ports of this rule come to {} alternatives, more than the \
                 {MAX_ALTERNATIVES} that are possible",
                from.len() * to.len()
            );
            self.diagnostics.push(
                Diagnostic::error(Code::NotEnforced, message)
                    .help("write port numbers, or several rules"),
            );
            return Vec::new();
        }
        let src = self.addresses(&criteria.src);
        let dst = self.addresses(&criteria.dst);
        let mut matches = Vec::with_capacity(from.len() * to.len());
        for from in &from {
            for to in &to {
                matches.push(Match {
                    family: criteria.family,
                    protocol: criteria.protocol,
                    not_protocol: criteria.not_protocol,
                    icmp: criteria.icmp,
                    not_icmp: criteria.not_icmp,
                    src: narrowed(&src, from),
                    dst: narrowed(&dst, to),
                    src_ports: from.ports.clone(),
                    not_src_ports: from.not_ports.clone(),
                    dst_ports: to.ports.clone(),
                    not_dst_ports: to.not_ports.clone(),
                });
            }
        }
        matches
    }

    /// What a side asks of the address, named ports apart.
    fn addresses(&mut self, peer: &Peer) -> Addresses {
        let mut addresses = Addresses {
            nets: peer.nets.clone(),
            not_nets: peer.not_nets.clone(),
            ..Addresses::default()
        };
        if let Some(selector) = &peer.selector {
            addresses.sets.push(self.selected(selector));
        }
        if let Some(tag) = &peer.tag {
            addresses.sets.push(self.tagged(tag));
        }
        if let Some(selector) = &peer.not_selector {
            addresses.not_sets.push(self.selected(selector));
        }
        if let Some(tag) = &peer.not_tag {
            addresses.not_sets.push(self.tagged(tag));
        }
        addresses
    }

    /// The set of what a selector selects: network sets, and the addresses of
    /// endpoints, as far as the documents say them.
    fn selected(&mut self, selector: &super::selector::Selector) -> u32 {
        let (model, peers) = (self.model, &self.peers);
        self.sets.get_or_add(&format!("selector {selector}"), || {
            let sets = model.sets().iter();
            let sets = sets.filter(|set| selector.matches(&set.labels));
            let sets: Vec<_> = sets.map(|set| &set.nets).collect();
            let peers = peers.iter().filter(|peer| selector.matches(&peer.labels));
            let peers = peers.flat_map(|peer| peer.addresses.iter().map(|&ip| IpNet::from(ip)));
            let peers: Vec<IpNet> = peers.collect();
            match sets[..] {
                // There may be a million of them.
                [only] if peers.is_empty() => Arc::clone(only),
                _ => {
                    let sets = sets.iter().map(|nets| nets.as_slice());
                    let all: Vec<&[IpNet]> = sets.chain([&peers[..]]).collect();
                    Arc::new(all.concat())
                }
            }
        })
    }

    /// The addresses of the endpoints that have a profile with this tag.
    fn tagged(&mut self, tag: &str) -> u32 {
        let peers = &self.peers;
        self.sets.get_or_add(&format!("tag {tag}"), || {
            let peers = peers.iter().filter(|peer| peer.tags.contains(&tag));
            let addresses = peers.flat_map(|peer| peer.addresses.iter());
            Arc::new(addresses.map(|&ip| IpNet::from(ip)).collect())
        })
    }

    /// The alternatives of one side: one, where it names no port.
    fn alternatives(&mut self, peer: &Peer, protocol: Option<u8>, side: Side) -> Vec<Alternative> {
        let (numbers, names) = split(&peer.ports);
        let (not_numbers, not_names) = split(&peer.not_ports);
        let mut alternatives = Vec::new();
        if !numbers.is_empty() || peer.ports.is_empty() {
            alternatives.push(Alternative {
                ports: numbers,
                ..Alternative::default()
            });
        }
        for name in names {
            for (port, set) in self.named(name, protocol, side) {
                alternatives.push(Alternative {
                    ports: vec![port],
                    sets: set.into_iter().collect(),
                    ..Alternative::default()
                });
            }
        }
        for alternative in &mut alternatives {
            alternative.not_ports.clone_from(&not_numbers);
        }
        for name in not_names {
            for (port, set) in self.named(name, protocol, side) {
                // Another port, or another address.
                let mut elsewhere = Vec::new();
                if let Some(set) = set {
                    elsewhere.clone_from(&alternatives);
                    for alternative in &mut elsewhere {
                        alternative.not_sets.push(set);
                    }
                }
                for alternative in &mut alternatives {
                    alternative.not_ports.push(port);
                }
                alternatives.extend(elsewhere);
                if alternatives.len() > MAX_ALTERNATIVES {
                    return alternatives;
                }
            }
        }
        alternatives
    }

    /// What a port's name means: numbers, each with the set of the addresses
    /// where it means that. At the endpoint itself it needs no address.
    fn named(
        &mut self,
        name: &str,
        protocol: Option<u8>,
        side: Side,
    ) -> Vec<(PortRange, Option<u32>)> {
        let one = |port: u16| PortRange {
            first: port,
            last: port,
        };
        let own_side = match self.direction {
            Direction::Ingress => Side::Destination,
            Direction::Egress => Side::Source,
        };
        let mut found = Vec::new();
        if side == own_side && self.endpoint.expected_ips.is_empty() {
            let ports = self.endpoint.ports.iter();
            let ports = ports.filter(|port| port.name == name && Some(port.protocol) == protocol);
            found.extend(ports.map(|port| (one(port.port), None)));
        }
        let mut elsewhere: BTreeMap<u16, Vec<IpNet>> = BTreeMap::new();
        for peer in &self.peers {
            for port in peer.ports {
                if port.name == name && Some(port.protocol) == protocol {
                    let addresses = peer.addresses.iter().map(|&ip| IpNet::from(ip));
                    elsewhere.entry(port.port).or_default().extend(addresses);
                }
            }
        }
        for (port, addresses) in elsewhere {
            if !addresses.is_empty() {
                let protocol = protocol.unwrap_or_default();
                let set = format!("endpoints with port {name} = {port}/{protocol}");
                let set = self.sets.get_or_add(&set, || addresses.into());
                found.push((one(port), Some(set)));
            }
        }
        found
    }
}

fn split(ports: &[Port]) -> (Vec<PortRange>, Vec<&str>) {
    let mut numbers = Vec::new();
    let mut names = Vec::new();
    for port in ports {
        match port {
            Port::Range(range) => numbers.push(*range),
            Port::Named(name) => names.push(name.as_str()),
        }
    }
    (numbers, names)
}

fn narrowed(addresses: &Addresses, alternative: &Alternative) -> Addresses {
    let mut addresses = addresses.clone();
    addresses.sets.extend(&alternative.sets);
    addresses.not_sets.extend(&alternative.not_sets);
    addresses
}
