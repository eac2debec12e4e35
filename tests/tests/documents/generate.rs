//! Random documents, legal ones, and packets that aim at them.
//!
//! Both are drawn from a tape of random numbers, so that proptest can shrink
//! the tape: where it is 0, or at its end, the simplest choice is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::model::{
    Action, Case, DEFAULT_ALLOW, Dialect, Documents, Endpoint, Entity, Expression, Firewall,
    FirewallEntry, FirewallProtocol, FirewallRule, INTERFACE, KubernetesPeer, KubernetesPolicy,
    KubernetesPort, KubernetesRule, LabelSelector, Labels, NAMESPACE, NetworkSet, Packet, Policy,
    Port, Profile, Protocol, Rule, Selector, Tier,
};

const NAMESPACES: [&str; 2] = ["red", "blue"];
const KEYS: [&str; 2] = ["role", "env"];
const VALUES: [&str; 3] = ["web", "db", "webdb"];
const TAGS: [&str; 2] = ["old", "older"];
const PROFILES: [&str; 2] = ["first", "second"];
const PORT_NAMES: [&str; 2] = ["http", "dns"];
const ORDERS: [Option<f64>; 8] = [
    None,
    Some(1.0),
    Some(10.0),
    Some(2.5),
    Some(-1.0),
    Some(1000.0),
    Some(1001.0),
    Some(0.0),
];
const PORTS: [u16; 10] = [80, 1, 53, 22, 79, 81, 443, 30000, 32767, 65535];
const V4: [[u8; 4]; 5] = [
    [10, 0, 0, 0],
    [10, 1, 2, 3],
    [192, 0, 2, 10],
    [10, 1, 0, 0],
    [203, 0, 113, 128],
];
const V6: [u128; 4] = [
    0x2001_0db8 << 96,
    0x2001_0db8_0000_0000_0000_0000_0000_0010,
    0x2001_0db8_000f_0000_0000_0000_0000_0007,
    0xffff_0a01_0203,
];

/// Random numbers, drawn one by one.
pub(crate) struct Tape<'a> {
    numbers: &'a [u16],
    at: usize,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(numbers: &'a [u16]) -> Self {
        Self { numbers, at: 0 }
    }

    fn next(&mut self) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        number.into()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() % limit
    }

    /// True with this probability, in percent.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Some, with this probability.
    fn some<T>(&mut self, percent: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.chance(percent) {
            Some(make(self))
        } else {
            None
        }
    }

    /// Up to `most`, mostly few.
    fn list<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }
}

// ---- cases

/// A case: documents and what is asked.
pub(crate) fn case(tape: &mut Tape<'_>) -> Case {
    let mut documents = Documents::default();
    let kinds = tape.below(8);
    let (calico, firewalls, kubernetes) = match kinds {
        0..=3 => (true, false, false),
        4 => (false, true, false),
        5 => (true, true, false),
        6 => (true, false, true),
        _ => (true, true, true),
    };
    documents.profiles = profiles(tape);
    // Which of them the endpoint that is asked about has a document of its own.
    if tape.chance(50) {
        documents.endpoints = endpoints(tape, &documents.profiles);
    }
    documents.sets = sets(tape);
    documents.tiers = tiers(tape);
    if calico {
        let tiers: Vec<&'static str> = documents.tiers.iter().map(|tier| tier.name).collect();
        let count = 1 + tape.below(7);
        for index in 0..count {
            let policy = policy(tape, index, &tiers);
            // A staged twin has the name of the policy that it may replace.
            if !policy.staged && policy.dialect != Dialect::V1 && tape.chance(10) {
                documents.policies.push(Policy {
                    staged: true,
                    ..policy.clone()
                });
            }
            documents.policies.push(policy);
        }
    }
    if kubernetes {
        documents.kubernetes = kubernetes_policies(tape);
    }
    if firewalls {
        documents.firewalls = ingress_node_firewalls(tape);
    }
    let mut labels = labels(tape);
    if tape.chance(30) {
        labels.insert(NAMESPACE.to_owned(), tape.pick(&NAMESPACES).to_owned());
    }
    Case {
        labels,
        egress: tape.chance(20),
        failsafe: tape.chance(25),
        node: tape.some(30, node),
        documents,
    }
}

fn node(tape: &mut Tape<'_>) -> Vec<IpNet> {
    let own = |address: &str| address.parse().unwrap_or_default();
    let mut nets: Vec<IpNet> = vec![own("192.0.2.10/32"), own("2001:db8::10/128")];
    if tape.chance(30) {
        nets.push(own("10.1.2.3/32"));
    }
    nets
}

fn labels(tape: &mut Tape<'_>) -> Labels {
    let mut labels = Labels::new();
    for key in KEYS {
        if tape.chance(60) {
            labels.insert(key.to_owned(), tape.pick(&VALUES).to_owned());
        }
    }
    labels
}

fn profiles(tape: &mut Tape<'_>) -> Vec<Profile> {
    let mut profiles = Vec::new();
    for name in PROFILES {
        if !tape.chance(40) {
            continue;
        }
        // There are none of the CRD form.
        let dialect = tape.pick(&[Dialect::V3, Dialect::V1]);
        let rules = |tape: &mut Tape<'_>| {
            let mut rules = tape.list(3, |tape| rule(tape, dialect));
            // Profiles have no Pass.
            rules.retain(|rule| rule.action != Action::Pass);
            rules
        };
        profiles.push(Profile {
            dialect,
            name,
            labels: if tape.chance(30) {
                labels(tape)
            } else {
                Labels::new()
            },
            tags: match dialect {
                Dialect::V1 => tape.list(2, |tape| tape.pick(&TAGS)),
                _ => Vec::new(),
            },
            ingress: rules(tape),
            egress: rules(tape),
        });
    }
    profiles
}

fn endpoints(tape: &mut Tape<'_>, known: &[Profile]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    let count = 1 + tape.below(3);
    for index in 0..count {
        let dialect = dialect(tape);
        let interface = match (index, tape.below(4)) {
            (0, 3) if dialect != Dialect::V1 => Some("*"),
            (0, _) => Some(INTERFACE),
            (1, _) => Some("eth1"),
            _ => Some("eth2"),
        };
        let mut expected_ips = Vec::new();
        if tape.chance(60) {
            let address = tape.chance(30);
            expected_ips.push(if address {
                v6(tape.pick(&V6))
            } else {
                v4(tape.pick(&V4))
            });
        }
        // Known by its addresses alone.
        let first = endpoints.first();
        let is_named = first.is_some_and(|first: &Endpoint| first.interface == Some(INTERFACE));
        let interface =
            interface.filter(|_| !is_named || expected_ips.is_empty() || tape.chance(50));
        let mut with = labels(tape);
        if tape.chance(15) {
            with.insert(NAMESPACE.to_owned(), tape.pick(&NAMESPACES).to_owned());
        }
        let mut names = Vec::new();
        for profile in known {
            if tape.chance(50) {
                names.push(profile.name);
            }
        }
        if tape.chance(40) {
            names.push(DEFAULT_ALLOW);
        }
        endpoints.push(Endpoint {
            dialect,
            name: format!("ep{index}"),
            labels: with,
            interface,
            expected_ips,
            profiles: names,
            ports: PORT_NAMES
                .into_iter()
                .filter_map(|name| {
                    let protocol = by_name(tape.pick(&[6, 17]));
                    tape.some(60, |tape| (name, protocol, tape.pick(&[80, 53, 80, 443])))
                })
                .collect(),
        });
    }
    endpoints
}

fn sets(tape: &mut Tape<'_>) -> Vec<NetworkSet> {
    let count = tape.below(5);
    (0..count)
        .map(|index| NetworkSet {
            namespace: tape.some(40, |tape| tape.pick(&NAMESPACES)),
            name: format!("set{index}"),
            labels: labels(tape),
            nets: tape.list(3, |tape| {
                let v6 = tape.chance(30);
                net(tape, v6)
            }),
        })
        .collect()
}

fn tiers(tape: &mut Tape<'_>) -> Vec<Tier> {
    let mut tiers = Vec::new();
    for name in ["zone", "base", "admin"] {
        if tape.chance(40) {
            tiers.push(Tier {
                name,
                order: tape.pick(&[Some(10.0), None, Some(5.0), Some(1000.5), Some(2_000_000.0)]),
                default_pass: tape.pick(&[None, Some(false), Some(true)]),
            });
        }
    }
    // As a cluster exports those that it has anyway.
    for (name, order, pass) in super::model::WELL_KNOWN_TIERS {
        if tape.chance(10) {
            tiers.push(Tier {
                name,
                order: Some(order),
                default_pass: tape.pick(&[Some(pass), None]),
            });
        }
    }
    tiers
}

fn dialect(tape: &mut Tape<'_>) -> Dialect {
    tape.pick(&[Dialect::V3, Dialect::V3, Dialect::V1, Dialect::Crd])
}

// ---- Calico

fn policy(tape: &mut Tape<'_>, index: usize, tiers: &[&'static str]) -> Policy {
    let dialect = dialect(tape);
    let namespace = match dialect {
        Dialect::V1 => None,
        _ => tape.some(20, |tape| tape.pick(&NAMESPACES)),
    };
    let staged = dialect != Dialect::V1 && tape.chance(20);
    let stage = if namespace.is_none() {
        tape.below(6)
    } else {
        0
    };
    let (do_not_track, pre_dnat) = (stage == 4, stage == 5);
    let mut known = tiers.to_vec();
    known.extend(["kube-admin", "default", "kube-baseline"]);
    let tier = tape.some(40, |tape| tape.pick(&known));
    // v3 names begin with their tier.
    let name = match (dialect, tier) {
        (Dialect::V3, None) if tape.chance(10) => format!("default.p{index}"),
        (Dialect::V1, _) | (_, None) => format!("p{index}"),
        (_, Some(tier)) => format!("{tier}.p{index}"),
    };
    let rules = |tape: &mut Tape<'_>| tape.list(4, |tape| rule(tape, dialect));
    let ingress = rules(tape);
    let egress = if !pre_dnat && tape.chance(30) {
        rules(tape)
    } else {
        Vec::new()
    };
    let types = if pre_dnat {
        tape.pick(&[None, Some((true, false))])
    } else {
        tape.pick(&[
            None,
            None,
            Some((true, false)),
            Some((false, true)),
            Some((true, true)),
        ])
    };
    Policy {
        dialect,
        namespace,
        staged,
        name,
        tier,
        order: tape.pick(&ORDERS),
        selector: tape.some(45, selector),
        namespace_selector: match (dialect, namespace) {
            (Dialect::V1, _) | (_, Some(_)) => None,
            _ => tape.some(5, |_| Selector::All),
        },
        do_not_track,
        pre_dnat,
        apply_on_forward: do_not_track || pre_dnat || namespace.is_none() && tape.chance(40),
        types,
        ingress,
        egress,
    }
}

fn rule(tape: &mut Tape<'_>, dialect: Dialect) -> Rule {
    let action = tape.pick(&[
        Action::Deny,
        Action::Allow,
        Action::Deny,
        Action::Allow,
        Action::Deny,
        Action::Allow,
        Action::Log,
        Action::Pass,
    ]);
    // Both versions, or one: all networks of a rule are of one.
    let version = tape.pick(&[None, Some(4), Some(4), Some(6)]);
    let protocol = match tape.below(8) {
        0 | 1 => None,
        2..=4 => Some(by_name(tape.pick(&[6, 17, 132]))),
        5 => match version {
            Some(4) => Some(by_name(1)),
            Some(_) => Some(by_name(58)),
            None => Some(by_name(tape.pick(&[1, 58]))),
        },
        6 => Some(by_name(136)),
        _ => Some(Protocol {
            number: tape.pick(&[6, 17, 47, 2, 255, 1, 58]),
            by_name: false,
        }),
    };
    let number = protocol.map_or(0, |protocol| protocol.number);
    let version_ok = match number {
        1 => version == Some(4) || version.is_none(),
        58 => version == Some(6) || version.is_none(),
        _ => true,
    };
    let protocol = protocol.filter(|_| version_ok);
    let number = protocol.map_or(0, |protocol| protocol.number);
    let is_icmp = matches!(number, 1 | 58);
    let has_ports = matches!(number, 6 | 17 | 132);
    let icmp = |tape: &mut Tape<'_>| {
        let kind = tape.pick(&[8, 0, 3, 128, 135, 254]);
        (kind, tape.pick(&[None, Some(0), Some(4), Some(255)]))
    };
    Rule {
        action,
        ip_version: version.filter(|_| tape.chance(40)),
        protocol,
        not_protocol: match protocol {
            None => tape.some(15, |tape| by_name(tape.pick(&[6, 17, 132]))),
            Some(_) => None,
        },
        icmp: if is_icmp { tape.some(60, icmp) } else { None },
        not_icmp: if is_icmp { tape.some(40, icmp) } else { None },
        source: entity(tape, dialect, version, has_ports),
        destination: entity(tape, dialect, version, has_ports),
    }
}

fn entity(tape: &mut Tape<'_>, dialect: Dialect, version: Option<u8>, has_ports: bool) -> Entity {
    let mut entity = Entity::default();
    if tape.chance(35) {
        return entity;
    }
    if let Some(version) = version {
        let v6 = version == 6;
        match tape.below(6) {
            0 if dialect == Dialect::V1 => entity.net = Some(net(tape, v6)),
            1 if dialect == Dialect::V1 => entity.not_net = Some(narrow(net(tape, v6))),
            0..=2 => entity.nets = tape.list(3, |tape| net(tape, v6)),
            3 => {
                entity.nets = tape.list(2, |tape| net(tape, v6));
                entity.not_nets = tape.list(2, |tape| narrow(net(tape, v6)));
            }
            _ => {}
        }
    }
    if tape.chance(20) {
        entity.selector = Some(selector(tape));
    }
    if tape.chance(8) {
        entity.not_selector = Some(selector(tape));
    }
    if dialect == Dialect::V1 {
        entity.tag = tape.some(8, |tape| tape.pick(&TAGS));
        entity.not_tag = tape.some(5, |tape| tape.pick(&TAGS));
    } else {
        entity.namespace_selector = tape.some(10, |tape| {
            tape.pick(&[
                Selector::All,
                Selector::Is("projectcalico.org/name", "red"),
                Selector::IsNot("kubernetes.io/metadata.name", "red"),
                Selector::Global,
            ])
        });
    }
    if has_ports {
        let named = dialect != Dialect::V1;
        if tape.chance(50) {
            entity.ports = tape.list(3, |tape| port(tape, named));
        }
        if tape.chance(25) {
            entity.not_ports = tape.list(2, |tape| port(tape, named));
        }
    }
    entity
}

fn port(tape: &mut Tape<'_>, named: bool) -> Port {
    match tape.below(6) {
        0 | 1 => Port::One(tape.pick(&PORTS)),
        4 | 5 if named => Port::Named(tape.pick(&PORT_NAMES)),
        _ => {
            let (a, b) = (tape.pick(&PORTS), tape.pick(&PORTS));
            Port::Range(a.min(b), a.max(b))
        }
    }
}

const fn by_name(number: u8) -> Protocol {
    Protocol {
        number,
        by_name: true,
    }
}

fn selector(tape: &mut Tape<'_>) -> Selector {
    let key = tape.pick(&KEYS);
    let value = tape.pick(&VALUES);
    match tape.below(14) {
        0..=2 => Selector::Is(key, value),
        3 | 4 => Selector::IsNot(key, value),
        5 => Selector::Has(key),
        6 => Selector::In(key, tape.list(2, |tape| tape.pick(&VALUES))),
        7 => Selector::NotIn(key, tape.list(2, |tape| tape.pick(&VALUES))),
        8 => Selector::Contains(key, "b"),
        9 => Selector::StartsWith(key, "web"),
        10 => Selector::EndsWith(key, "db"),
        11 => Selector::Not(Box::new(selector(tape))),
        12 => Selector::And(Box::new(selector(tape)), Box::new(selector(tape))),
        13 => Selector::Or(Box::new(selector(tape)), Box::new(selector(tape))),
        _ => Selector::All,
    }
}

fn v4(bytes: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(bytes).into()
}

fn v6(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

fn net(tape: &mut Tape<'_>, six: bool) -> IpNet {
    let (address, length) = cidr(tape, six);
    IpNet::new(address, length).map_or_else(|error| panic!("{error}"), |net| net.trunc())
}

fn cidr(tape: &mut Tape<'_>, six: bool) -> (IpAddr, u8) {
    if six {
        (v6(tape.pick(&V6)), tape.pick(&[32, 64, 128, 48, 0, 127]))
    } else {
        (v4(tape.pick(&V4)), tape.pick(&[8, 24, 32, 16, 0, 25, 31]))
    }
}

/// v3 refuses a negated /0.
fn narrow(net: IpNet) -> IpNet {
    match (net.prefix_len(), net) {
        (0, IpNet::V4(_)) => IpNet::from(v4(V4[1])),
        (0, IpNet::V6(_)) => IpNet::from(v6(V6[1])),
        _ => net,
    }
}

// ---- the other formats

fn label_selector(tape: &mut Tape<'_>) -> LabelSelector {
    let mut selector = LabelSelector::default();
    if tape.chance(30) {
        let key = tape.pick(&KEYS).to_owned();
        selector.labels.insert(key, tape.pick(&VALUES).to_owned());
    }
    if tape.chance(25) {
        let key = tape.pick(&KEYS);
        let values = vec![tape.pick(&VALUES)];
        selector.expressions.push(match tape.below(4) {
            0 => Expression::Exists(key),
            1 => Expression::In(key, values),
            2 => Expression::NotIn(key, values),
            _ => Expression::DoesNotExist(key),
        });
    }
    selector
}

fn ingress_node_firewalls(tape: &mut Tape<'_>) -> Vec<Firewall> {
    let count = 1 + tape.below(2);
    // Unique over all, so that no network has one twice.
    let mut orders: Vec<u32> = (1..=40).collect();
    let mut firewalls = Vec::new();
    for index in 0..count {
        let entries = 1 + tape.below(4);
        let mut ingress = Vec::new();
        for _ in 0..entries {
            let six = tape.chance(30);
            let cidrs = 1 + tape.below(2);
            let count = 1 + tape.below(3);
            let mut source_cidrs: Vec<(IpAddr, u8)> = Vec::new();
            for _ in 0..cidrs {
                let new = cidr(tape, six);
                let same = |other: &(IpAddr, u8)| {
                    let net =
                        |(address, length)| IpNet::new(address, length).map(|net| net.trunc());
                    net(*other).ok() == net(new).ok()
                };
                if !source_cidrs.iter().any(same) {
                    source_cidrs.push(new);
                }
            }
            ingress.push(FirewallEntry {
                source_cidrs,
                rules: (0..count)
                    .map(|_| {
                        let place = tape.below(orders.len());
                        FirewallRule {
                            order: orders.remove(place),
                            protocol: firewall_protocol(tape, six),
                            allow: tape.chance(40),
                        }
                    })
                    .collect(),
            });
        }
        firewalls.push(Firewall {
            name: format!("firewall{index}"),
            interfaces: tape.pick(&[vec![INTERFACE], vec!["eth7", INTERFACE], vec!["eth7"]]),
            node_selector: label_selector(tape),
            ingress,
        });
    }
    firewalls
}

fn firewall_protocol(tape: &mut Tape<'_>, six: bool) -> FirewallProtocol {
    match tape.below(5) {
        0 => FirewallProtocol::Any,
        1..=3 => {
            let number = tape.pick(&[6, 17, 132]);
            let (a, b) = (tape.pick(&PORTS), tape.pick(&PORTS));
            FirewallProtocol::Ports(number, a.min(b), a.max(b))
        }
        _ => {
            let number = if six { 58 } else { 1 };
            let kind = tape.pick(&[8, 0, 3, 128, 255]);
            let code = tape.pick(&[Some(0), Some(4)]);
            FirewallProtocol::Icmp(number, Some((kind, code)))
        }
    }
}

fn kubernetes_policies(tape: &mut Tape<'_>) -> Vec<KubernetesPolicy> {
    let count = 1 + tape.below(3);
    (0..count)
        .map(|index| {
            let rules = |tape: &mut Tape<'_>| {
                tape.list(3, |tape| KubernetesRule {
                    peers: tape.list(2, kubernetes_peer),
                    ports: tape.list(2, kubernetes_port),
                })
            };
            KubernetesPolicy {
                namespace: tape.some(70, |tape| tape.pick(&NAMESPACES)),
                name: format!("k{index}"),
                pod_selector: label_selector(tape),
                types: tape.pick(&[None, None, Some((true, false)), Some((true, true))]),
                ingress: rules(tape),
                egress: if tape.chance(30) {
                    rules(tape)
                } else {
                    Vec::new()
                },
            }
        })
        .collect()
}

fn kubernetes_peer(tape: &mut Tape<'_>) -> KubernetesPeer {
    if tape.chance(15) {
        return KubernetesPeer::Pods;
    }
    let six = tape.chance(30);
    let cidr = net(tape, six);
    let except = tape.list(2, |tape| net(tape, six));
    // They lie inside, and leave something.
    let except = except.into_iter();
    let except = except.filter(|net| cidr.contains(net) && *net != cidr);
    KubernetesPeer::Block {
        cidr,
        except: except.collect(),
    }
}

fn kubernetes_port(tape: &mut Tape<'_>) -> KubernetesPort {
    let protocol = tape.pick(&[None, Some(6), Some(17), Some(132)]);
    let port = match tape.below(4) {
        0 => None,
        1 => Some(Port::One(tape.pick(&PORTS))),
        2 => {
            let (a, b) = (tape.pick(&PORTS), tape.pick(&PORTS));
            Some(Port::Range(a.min(b), a.max(b)))
        }
        _ => Some(Port::Named(tape.pick(&PORT_NAMES))),
    };
    KubernetesPort { protocol, port }
}

// ---- packets

/// A packet whose fields are those that documents name, or beside them.
pub(crate) fn packet(tape: &mut Tape<'_>) -> Packet {
    let six = tape.chance(35);
    let src = address(tape, six);
    let dst = address(tape, six);
    let icmp = if six { 58 } else { 1 };
    let proto = tape.pick(&[6, 17, 6, 17, icmp, icmp, 132, 47, 2, 136, 255]);
    let l4 = match proto {
        1 | 58 => (
            tape.pick(&[8, 0, 3, 128, 7, 135, 255, 254]),
            tape.pick(&[0, 4, 1, 255]),
        ),
        6 | 17 | 132 | 136 => (near_port(tape), near_port(tape)),
        _ => (0, 0),
    };
    Packet {
        src,
        dst,
        proto,
        hop_limit: tape.pick(&[64, 255]),
        l4,
    }
}

fn near_port(tape: &mut Tape<'_>) -> u16 {
    let port = tape.pick(&PORTS);
    match tape.below(6) {
        0..=3 => port,
        4 => port.wrapping_add(1),
        _ => tape.pick(&[port.wrapping_sub(1), 68, 546, 6443]),
    }
}

fn address(tape: &mut Tape<'_>, six: bool) -> IpAddr {
    if six {
        let bits = tape.pick(&V6);
        v6(match tape.below(8) {
            0..=5 => bits,
            6 => bits.wrapping_add(1),
            _ => bits.wrapping_sub(1),
        })
    } else {
        let bits = u32::from_be_bytes(tape.pick(&V4));
        v4(match tape.below(10) {
            0..=5 => bits,
            6 => bits.wrapping_add(1),
            7 => bits.wrapping_sub(1),
            8 => bits | 0xff,
            _ => bits ^ 0x0100_0000,
        }
        .to_be_bytes())
    }
}
