//! Rulesets on both sides of every point where the compiler does otherwise:
//! numbers of classes, forms of the tries, the limit of the dense table; and
//! synthetic ones in every combination that holds them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_user::bench::{Flow, V4_FRAME, V6_FRAME};
use filter_user::compile::{Combination, CompileError, Image};
use filter_user::ruleset::{
    Action, Direction, Family, Match, Options, PortRange, Rule, RuleId, Ruleset, Stage,
};
use ipnet::IpNet;
use tests::synthetic::{self, Families, Flavour};

/// A ruleset, and how it is to be combined.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) ruleset: Ruleset,
    /// `None`: as the compiler wants.
    pub(crate) forced: Option<Combination>,
    /// What must come of it, where the case is about that.
    pub(crate) expected: Option<Combination>,
    /// How many classes of L4 headers, likewise.
    pub(crate) l4_classes: Option<u32>,
}

const BUDGET: u64 = 256 << 20;

impl Case {
    fn new(name: String, matches: impl IntoIterator<Item = Match>) -> Self {
        Self {
            name,
            ruleset: ruleset(matches),
            forced: None,
            expected: None,
            l4_classes: None,
        }
    }

    fn forced(self, combination: Combination) -> Self {
        Self {
            name: format!("{}, as {combination}", self.name),
            forced: Some(combination),
            expected: Some(combination),
            ..self
        }
    }

    pub(crate) fn compile(&self) -> Result<Image, CompileError> {
        Image::compile_as(&self.ruleset, BUDGET, self.forced)
    }

    /// Packets beside each boundary of some of its rules, about so many.
    pub(crate) fn frames(&self, about: usize) -> Vec<Vec<u8>> {
        let rules = &self.ruleset.rules;
        let step = (rules.len() * 9).div_ceil(about).max(1);
        let mut random = Random(0x9e37_79b9);
        let mut frames = Vec::new();
        for rule in rules.iter().step_by(step) {
            for matches in &rule.matches {
                aim(matches, rules, &mut random, &mut frames);
            }
        }
        frames
    }
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % end
    }
}

/// Rules in turns allow and deny; what none meets is denied.
fn ruleset(matches: impl IntoIterator<Item = Match>) -> Ruleset {
    let rules = (0..).zip(matches).map(|(index, matches)| Rule {
        id: RuleId {
            stage: Stage::Normal,
            policy: "switch".into(),
            direction: Direction::Ingress,
            index: Some(index),
        },
        tier: None,
        action: if index % 2 == 0 {
            Action::Allow
        } else {
            Action::Deny
        },
        staged: false,
        matches: vec![matches],
        source: None,
    });
    Ruleset {
        endpoint: "switch".to_owned(),
        direction: Direction::Ingress,
        sets: Vec::new(),
        rules: rules.collect(),
        default: Action::Deny,
        options: Options::default(),
    }
}

/// Those that are compiled in no time.
pub(crate) fn quick() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::V4, Family::V6] {
        // Classes of addresses: one is that of no rule.
        for classes in [255, 256, 257] {
            let name = format!("{classes} classes of {family:?} sources");
            cases.push(Case::new(name, sources(family, classes - 1)));
        }
        // One branch, in lanes of each width; a table; two levels, three.
        for &shift in shifts(family) {
            for steps in [
                2, 3, 4, 5, 6, 7, 8, 10, 11, 35, 36, 37, 49, 50, 70, 71, 100, 101, 216, 217, 343,
                344, 512,
            ] {
                let name = format!("{steps} steps of {family:?} at bit {shift}");
                cases.push(Case::new(name, adjacent(family, steps - 1, shift)));
            }
            // The same of pairs.
            for nets in [1, 3, 4, 7, 8, 10, 11, 14, 15, 24, 25, 100, 600] {
                let name = format!("{nets} networks of {family:?} at bit {shift} in one rule");
                cases.push(Case::new(name, [in_turns(family, nets, shift)]));
            }
        }
    }
    // Some classes are of no port: those of a byte end somewhere here.
    for named in 250..=257 {
        let name = format!("{named} destination ports, a rule each");
        cases.push(Case::new(name, ports(named, false)));
        let name = format!("{named} source ports, a rule each");
        cases.push(Case::new(name.clone(), ports(named, true)));
        let both = ports(named, true).map(with_addresses);
        cases.push(Case::new(name, both).forced(Combination::Parts));
    }
    // Places in a list of values: those of a byte end here.
    for values in [63, 64, 65] {
        cases.push(values_of_a_pair(values));
    }
    // Small enough for one part of all lines.
    for flavour in [Flavour::Fw, Flavour::Ipc] {
        let rules = synthetic::rules(flavour, Families::Both, 500, 5);
        let name = format!("{flavour:?}, in one part");
        let mut case = Case::new(name, rules.iter().map(of_synthetic));
        case.expected = Some(Combination::Parts);
        cases.push(case);
    }
    for forced in [Combination::Dense, Combination::Parts] {
        let name = "narrow and wide networks".to_owned();
        cases.push(Case::new(name, narrow_and_wide()).forced(forced));
    }
    for flavour in [Flavour::Acl, Flavour::Fw, Flavour::Ipc] {
        for families in [Families::V4, Families::V6, Families::Both] {
            for forced in [Combination::Dense, Combination::Parts] {
                let name = format!("{flavour:?}, {families:?}");
                let rules = synthetic::rules(flavour, families, 120, 5);
                cases.push(Case::new(name, rules.iter().map(of_synthetic)).forced(forced));
            }
        }
    }
    cases
}

/// The others: seconds.
pub(crate) fn slow() -> Vec<Case> {
    let mut cases = Vec::new();
    for classes in [65_535, 65_536, 65_537] {
        for family in [Family::V4, Family::V6] {
            let name = format!("{classes} classes of {family:?} sources");
            cases.push(Case::new(name, sources(family, classes - 1)));
        }
    }
    // A class for each port, one of which is also that of all other protocols, and
    // one where the port can't be read.
    for (alike, l4_classes) in [(2, 65_535), (1, 65_536), (0, 65_537)] {
        let name = format!("{l4_classes} classes of L4 headers");
        let mut case = Case::new(name, binary_ports(alike));
        case.l4_classes = Some(l4_classes);
        cases.push(case);
    }
    // Those of half a word end here.
    for values in [16_383, 16_384, 16_385] {
        cases.push(values_of_a_pair(values));
    }
    // The largest dense table, and what is larger.
    for (sources, expected) in [
        (1_023, Combination::Dense),
        (1_024, Combination::Dense),
        (1_025, Combination::Parts),
    ] {
        let name = format!("{sources} × 1024 pairs");
        let mut case = Case::new(name, pairs(sources - 1, 1_023));
        case.expected = Some(expected);
        cases.push(case);
    }
    for flavour in [Flavour::Acl, Flavour::Fw, Flavour::Ipc] {
        let name = format!("{flavour:?}, 1,500 rules of both");
        let rules = synthetic::rules(flavour, Families::Both, 1_500, 6);
        cases.push(Case::new(name, rules.iter().map(of_synthetic)).forced(Combination::Parts));
    }
    cases
}

/// Where the networks of [`adjacent`] differ.
fn shifts(family: Family) -> &'static [u32] {
    match family {
        // In the second byte on, the third on, in the last two.
        Family::V4 => &[16, 8, 0],
        // Across the first bytes, inside one, across the halves, in the low one.
        Family::V6 => &[112, 72, 60, 0],
    }
}

fn net(family: Family, bits: u128, length: u8) -> IpNet {
    let address = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::from_bits(u32::try_from(bits).unwrap())),
        Family::V6 => IpAddr::from(Ipv6Addr::from_bits(bits)),
    };
    IpNet::new(address, length).unwrap()
}

const fn base(family: Family) -> (u128, u8) {
    match family {
        Family::V4 => (0x0a00_0000, 32),
        Family::V6 => (0x2001_0db8 << 96, 128),
    }
}

fn from(net: IpNet) -> Match {
    Match {
        src: vec![net].into(),
        ..Match::default()
    }
}

/// Single addresses, apart from each other, a rule each.
fn sources(family: Family, count: u32) -> impl Iterator<Item = Match> {
    let (base, length) = base(family);
    (0..count).map(move |index| from(net(family, base + u128::from(index) * 5, length)))
}

/// Networks side by side from the lowest address on, a rule each: so many
/// boundaries.
fn adjacent(family: Family, count: u32, shift: u32) -> impl Iterator<Item = Match> {
    let (_, width) = base(family);
    let length = width - u8::try_from(shift).unwrap();
    (0..count).map(move |index| from(net(family, u128::from(index) << shift, length)))
}

/// Every second network from the lowest address on, in one rule: two classes that
/// take turns.
fn in_turns(family: Family, count: u32, shift: u32) -> Match {
    let (_, width) = base(family);
    let length = width - u8::try_from(shift).unwrap();
    let nets = (0..count).map(|index| net(family, u128::from(index) << (shift + 1), length));
    Match {
        src: nets.collect::<Vec<_>>().into(),
        ..Match::default()
    }
}

/// A port each.
fn ports(count: u32, source: bool) -> impl Iterator<Item = Match> {
    (0..count).map(move |port| {
        let port = u16::try_from(port).unwrap();
        let ports = vec![PortRange {
            first: port,
            last: port,
        }];
        let (src_ports, dst_ports) = if source {
            (ports, Vec::new())
        } else {
            (Vec::new(), ports)
        };
        Match {
            protocol: Some(6),
            src_ports,
            dst_ports,
            ..Match::default()
        }
    })
}

/// A rule for each bit of a port: no two ports meet the same rules, but for so many
/// of those with one bit, which meet none, as port 0.
fn binary_ports(alike: u32) -> impl Iterator<Item = Match> {
    (0..16_u32).map(move |bit| {
        let first = if bit < alike { 2 << bit } else { 1 << bit };
        let is_set = |port: &u16| port >> bit & 1 == 1 && u32::from(*port) >= first;
        let ports = (0..=u16::MAX).filter(is_set).collect::<Vec<_>>();
        let runs = ports.chunk_by(|port, next| port + 1 == *next);
        Match {
            protocol: Some(6),
            dst_ports: runs
                .map(|run| PortRange {
                    first: run[0],
                    last: run[run.len() - 1],
                })
                .collect(),
            ..Match::default()
        }
    })
}

/// The same between a few networks.
fn with_addresses(asked: Match) -> Match {
    let port = asked.src_ports[0].first;
    let within = |base: u128, part: u16| {
        let network = base | u128::from(part) << 8;
        vec![net(Family::V4, network, 24)].into()
    };
    Match {
        src: within(0x0a00_0000, port % 4),
        dst: within(0xc0a8_0000, port % 3),
        ..asked
    }
}

/// One pair of networks, with a rule for each port.
fn values_of_a_pair(values: u32) -> Case {
    let within = |base: u128| vec![net(Family::V4, base, 24)].into();
    let name = format!("{values} rules of a pair of networks");
    let rules = ports(values, false).map(|asked| Match {
        src: within(0x0a00_0000),
        dst: within(0xc0a8_0000),
        ..asked
    });
    Case::new(name, rules).forced(Combination::Parts)
}

/// So many sources and destinations: some lines ask for one, some for both.
fn pairs(sources: u32, destinations: u32) -> impl Iterator<Item = Match> {
    let source = |index: u32| vec![net(Family::V4, 0x0a00_0000 + u128::from(index) * 3, 32)];
    let destination = |index: u32| vec![net(Family::V4, 0xc0a8_0000 + u128::from(index) * 3, 32)];
    (0..sources.max(destinations)).flat_map(move |index| {
        let src = source(index % sources);
        let dst = destination(index % destinations);
        let alone = index % 7 == 3;
        let both = Match {
            src: src.clone().into(),
            dst: if alone { Vec::new() } else { dst.clone() }.into(),
            ..Match::default()
        };
        let other = Match {
            dst: dst.into(),
            protocol: Some(17),
            ..Match::default()
        };
        [Some(both), alone.then_some(other)].into_iter().flatten()
    })
}

/// Each host with each, and the network of all hosts with each and with itself:
/// a network covers many classes of addresses, a host one.
fn narrow_and_wide() -> impl Iterator<Item = Match> {
    (0..40_u16).flat_map(|index| {
        let host = |base: u128| net(Family::V4, base | u128::from(index), 32);
        let [src, dst] = [host(0x0a00_0000), host(0xc0a8_0000)];
        let [all_src, all_dst] = [src, dst].map(|host| net_of(host, 26));
        let asked = move |src: IpNet, dst: IpNet, port: u16| Match {
            protocol: Some(6),
            src: vec![src].into(),
            dst: vec![dst].into(),
            dst_ports: vec![PortRange {
                first: port,
                last: port,
            }],
            ..Match::default()
        };
        [
            asked(src, dst, 1),
            asked(src, all_dst, 2),
            asked(all_src, dst, 3),
            asked(all_src, all_dst, 4 + index),
        ]
    })
}

fn net_of(host: IpNet, length: u8) -> IpNet {
    IpNet::new(host.addr(), length).unwrap().trunc()
}

/// A synthetic rule's conditions.
fn of_synthetic(rule: &synthetic::Rule) -> Match {
    let side = |net: synthetic::Net| {
        let some = (!net.is_any()).then(|| IpNet::new(net.first(), net.length).unwrap());
        some.into_iter().collect::<Vec<_>>().into()
    };
    let ports = |ports: Option<(u16, u16)>| {
        let range = ports.map(|(first, last)| PortRange { first, last });
        range.into_iter().collect()
    };
    Match {
        family: Some(match rule.src.family {
            synthetic::Family::V4 => Family::V4,
            synthetic::Family::V6 => Family::V6,
        }),
        protocol: rule.protocol,
        src: side(rule.src),
        dst: side(rule.dst),
        src_ports: ports(rule.sport),
        dst_ports: ports(rule.dport),
        ..Match::default()
    }
}

/// Packets of the first and the last address and port that match, of those
/// beside them, and one with another rule's addresses.
fn aim(asked: &Match, rules: &[Rule], random: &mut Random, frames: &mut Vec<Vec<u8>>) {
    let other = &rules[random.below(rules.len())].matches[0];
    let named = asked.src.nets.iter().chain(&asked.dst.nets).next();
    let v6 = match (asked.family, named) {
        (Some(family), _) => family == Family::V6,
        (None, Some(net)) => net.addr().is_ipv6(),
        (None, None) => random.below(2) == 0,
    };
    for place in 0..9 {
        // What is not looked at stays inside.
        let (at_src, at_dst, at_port) = match place {
            0..4 => (place, 1, 1),
            4..8 => (1, place - 4, place - 4),
            _ => (1, 1, 1),
        };
        let dst = if place == 8 { other } else { asked };
        let flow = Flow {
            src: beside(asked.src.nets.first(), v6, at_src, random),
            dst: beside(dst.dst.nets.first(), v6, at_dst, random),
            proto: asked.protocol.unwrap_or([6, 17][random.below(2)]),
            sport: port_beside(&asked.src_ports, at_port, random),
            dport: port_beside(&asked.dst_ports, at_port, random),
        };
        let mut frame = vec![0; if v6 { V6_FRAME } else { V4_FRAME }];
        flow.write(&mut frame);
        frames.push(frame);
    }
}

/// Before, at the first, at the last, or behind.
fn beside(net: Option<&IpNet>, v6: bool, place: usize, random: &mut Random) -> IpAddr {
    let last = if v6 { u128::MAX } else { u32::MAX.into() };
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let bits = match net.filter(|net| net.addr().is_ipv6() == v6) {
        None => random.below(1 << 32) as u128,
        Some(net) => match place {
            0 => of(net.network()).wrapping_sub(1) & last,
            1 => of(net.network()),
            2 => of(net.broadcast()),
            _ => of(net.broadcast()).wrapping_add(1) & last,
        },
    };
    if v6 {
        Ipv6Addr::from_bits(bits).into()
    } else {
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into()
    }
}

fn port_beside(ranges: &[PortRange], place: usize, random: &mut Random) -> u16 {
    let Some(range) = ranges.first() else {
        return u16::try_from(random.below(1 << 16)).unwrap();
    };
    match place {
        0 => range.first.wrapping_sub(1),
        1 => range.first,
        2 => range.last,
        _ => range.last.wrapping_add(1),
    }
}
