//! Random conversations: the rulesets of both directions, and packets that go in and
//! out one after the other. There are few ends and few ports, and most packets are about
//! one that came shortly before: answers, retransmissions, errors, fragments, and what
//! is like those but for one thing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_user::ruleset::{
    Action, Direction, Fragments, Icmp, Match, PortRange, Rule, RuleId, Ruleset, Stage,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::random::{Frame, Recipe, order, recipe, ruleset};

/// An endpoint and the packets that it meets.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) ingress: Ruleset,
    pub(crate) egress: Ruleset,
    pub(crate) steps: Vec<Step>,
}

/// A packet of a talk.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Seconds since the step before.
    pub(crate) wait: u64,
    pub(crate) direction: Direction,
    #[allow(
        dead_code,
        reason = "who only compares answers does not ask what it was made to be"
    )]
    pub(crate) kind: Kind,
    pub(crate) frame: Frame,
}

/// What a step was made to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A packet, or the first fragment of one.
    Packet,
    /// An ICMP error about one, or what looks like such an error.
    Error,
    /// A later fragment.
    Later,
    /// Anything.
    Odd,
}

/// Any talk.
pub(crate) fn talk() -> impl Strategy<Value = Talk> {
    let wait = prop_oneof![
        24 => Just(0),
        12 => 1..6_u64,
        3 => 9..=11_u64,
        6 => select(vec![
            29, 30, 31, 59, 60, 61, 119, 120, 121, 209, 210, 211, 299, 300, 301, 599,
            600, 601,
        ]),
        1 => select(vec![431_999, 432_000, 432_001]),
    ];
    let steps = prop::collection::vec((wait, plan()), 20..=60);
    let defaults = prop_oneof![
        1 => Just(None),
        3 => select(vec![[Action::Deny, Action::Allow], [Action::Allow, Action::Deny]])
            .prop_map(Some),
        2 => Just(Some([Action::Deny; 2])),
    ];
    let sides = (side(Direction::Ingress), side(Direction::Egress));
    (sides, defaults, steps).prop_map(|((mut ingress, mut egress), defaults, plans)| {
        // Where both allow, there is nothing to remember.
        if let Some(defaults) = defaults {
            [ingress.default, egress.default] = defaults;
        }
        let mut told = Told {
            packets: Vec::new(),
            firsts: Vec::new(),
        };
        let mut steps = Vec::new();
        for (wait, plan) in plans {
            let (direction, kind, frame) = told.step(&plan, |direction| match direction {
                Direction::Ingress => &ingress,
                Direction::Egress => &egress,
            });
            steps.push(Step {
                wait,
                direction,
                kind,
                frame,
            });
        }
        Talk {
            ingress,
            egress,
            steps,
        }
    })
}

// ---- rulesets

/// The ruleset of a direction: few random rules, and few that are about the packets of
/// the talk.
fn side(direction: Direction) -> impl Strategy<Value = Ruleset> {
    let fragments = prop_oneof![
        1 => select(vec![Fragments::Drop, Fragments::L3Only]),
        3 => Just(Fragments::Track),
    ];
    let rules = prop_oneof![1 => Just(0), 2 => 1..=3_usize, 1 => 4..=8_usize];
    let random = rules.prop_flat_map(ruleset);
    (random, prop::collection::vec(about_talk(), 0..6), fragments).prop_map(
        move |(mut ruleset, about, fragments)| {
            ruleset.direction = direction;
            ruleset.options.fragments = fragments;
            ruleset.rules.extend(about);
            order(&mut ruleset.rules);
            for rule in &mut ruleset.rules {
                rule.id.direction = direction;
            }
            ruleset
        },
    )
}

/// A rule that many packets of a talk meet.
fn about_talk() -> impl Strategy<Value = Rule> {
    let stage = prop_oneof![
        1 => Just(Stage::Failsafe),
        1 => Just(Stage::Untracked),
        1 => Just(Stage::PreDnat),
        5 => Just(Stage::Normal),
    ];
    let protocol = select(vec![6, 6, 17, 17, 132, 136, 1, 58, 47]);
    let ports = || prop_oneof![1 => Just(None), 1 => select(PORTS).prop_map(Some)];
    let action = select(vec![Action::Allow, Action::Deny]);
    let echo = select(vec![None, Some([8, 128]), Some([0, 129])]);
    let ports = (ports(), ports());
    (stage, action, protocol, ports, echo).prop_map(|(stage, action, protocol, ports, echo)| {
        let (from, to) = ports;
        let kind = |version: usize| echo.map(|kinds| kinds[version]);
        let kind = match protocol {
            1 => kind(0),
            58 => kind(1),
            _ => None,
        };
        let has_ports = matches!(protocol, 6 | 17 | 132 | 136);
        let range = |port: Option<u16>| {
            let port = port.filter(|_| has_ports);
            let range = |port| PortRange {
                first: port,
                last: port,
            };
            port.into_iter().map(range).collect()
        };
        Rule {
            id: RuleId {
                stage,
                policy: "talk".into(),
                direction: Direction::Ingress,
                index: Some(0),
            },
            tier: None,
            action: if stage == Stage::Failsafe {
                Action::Allow
            } else {
                action
            },
            staged: false,
            matches: vec![Match {
                protocol: Some(protocol),
                icmp: kind.map(|kind| Icmp { kind, code: None }),
                src_ports: range(from),
                dst_ports: range(to),
                ..Match::default()
            }],
            source: None,
        }
    })
}

// ---- packets

/// Ports, and identifiers of echoes; random rules ask about them.
const PORTS: &[u16] = &[1, 80, 30000, 32768];

/// The two hosts of this side, the two of the other one, and everybody.
const ADDRESSES: [[IpAddr; 5]; 2] = [
    [
        IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
        IpAddr::V4(Ipv4Addr::new(10, 1, 2, 0)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 76)),
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
    ],
    [
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 6)),
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x0203)),
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x0202)),
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
    ],
];

const EVERYBODY: usize = 4;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A packet that may be answered.
#[derive(Clone, Copy, Debug)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// The ports; of an echo the identifier is the first of them, and the second one is the
    /// sequence number.
    ports: [u16; 2],
    flags: u8,
    /// Type and code of ICMP.
    icmp: [u8; 2],
}

impl Packet {
    /// What comes back.
    fn answer(self, flags: Option<u8>) -> Self {
        let natural = match self.flags {
            flags if flags & RST != 0 => ACK,
            SYN => SYN | ACK,
            flags if flags & FIN != 0 => FIN | ACK,
            _ => ACK,
        };
        let [kind, code] = self.icmp;
        let kind = match kind {
            8 => 0,
            0 => 8,
            128 => 129,
            129 => 128,
            other => other,
        };
        let is_icmp = matches!(self.protocol, 1 | 58);
        let [first, second] = self.ports;
        Self {
            src: self.dst,
            dst: self.src,
            ports: if is_icmp { self.ports } else { [second, first] },
            flags: flags.unwrap_or(natural),
            icmp: [kind, code],
            ..self
        }
    }

    /// The same again, or the next one.
    fn again(self, flags: Option<u8>) -> Self {
        Self {
            flags: flags.unwrap_or(ACK),
            ..self
        }
    }

    /// From the L4 header on.
    fn body(self) -> Vec<u8> {
        let [first, second] = self.ports.map(u16::to_be_bytes);
        let mut bytes = if matches!(self.protocol, 1 | 58) {
            [self.icmp, [0, 0], first, second].concat()
        } else {
            [first, second].concat()
        };
        bytes.resize(24, 0x50);
        if self.protocol == 6 {
            bytes[13] = self.flags;
        }
        bytes
    }

    /// Without an Ethernet header.
    fn ip(self, dress: Dress) -> Vec<u8> {
        self.around(dress, &self.body())
    }

    fn around(self, dress: Dress, body: &[u8]) -> Vec<u8> {
        let fragment = match dress {
            Dress::First(id) => Some((0, true, id)),
            Dress::Later(id, more) => Some((3, more, id)),
            Dress::Plain | Dress::Longer => None,
        };
        let longer = dress == Dress::Longer;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let options = if longer { vec![1; 4] } else { vec![] };
                let length = u16::try_from(20 + options.len() + body.len()).unwrap();
                let (offset, more, id) = fragment.unwrap_or((0, false, 1));
                let field = offset | u16::from(more) << 13;
                let mut ip = vec![if longer { 0x46 } else { 0x45 }, 0];
                ip.extend(length.to_be_bytes());
                // A whole packet has an id too.
                ip.extend(u16::from(id).to_be_bytes());
                ip.extend(field.to_be_bytes());
                ip.extend([64, self.protocol, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(options);
                ip.extend(body);
                ip
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut payload = Vec::new();
                let mut next = self.protocol;
                if let Some((offset, more, id)) = fragment {
                    payload.extend([self.protocol, 0]);
                    payload.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    // In the high half, which IPv4 doesn't have.
                    payload.extend([id, 0, 0, 1]);
                    next = 44;
                }
                if longer {
                    payload.extend([self.protocol, 0, 1, 4, 0, 0, 0, 0]);
                    next = 60;
                }
                payload.extend(body);
                let length = u16::try_from(payload.len()).unwrap();
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(length.to_be_bytes());
                ip.extend([next, 64]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(payload);
                ip
            }
            (src, dst) => panic!("{src} and {dst}"),
        }
    }

    fn frame(self, dress: Dress) -> Frame {
        ethernet(&self.ip(dress))
    }
}

fn ethernet(ip: &[u8]) -> Frame {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(if ip[0] / 16 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(ip);
    Frame(frame)
}

/// What a packet goes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dress {
    Plain,
    /// With options or an extension header.
    Longer,
    /// The first fragment of this id.
    First(u8),
    /// A later one, and whether there is more.
    Later(u8, bool),
}

// ---- steps

/// How to make a step out of those before.
#[derive(Clone, Debug)]
enum Plan {
    /// A packet of its own.
    Fresh(Direction, Packet, Dress),
    /// The answer to a packet, the other way.
    Answer(Index, Option<u8>, Dress),
    /// A packet again, with other flags.
    Again(Index, Option<u8>, Dress),
    /// A packet, or what would answer it, from where it can't be expected.
    Astray(Index, bool),
    /// An answer that differs in one thing.
    AlmostAnswer(Index, u8),
    /// An error about a packet.
    Error(Index, Complaint),
    /// A later fragment of a datagram of which the first one was there, or of another:
    /// with another identification, or other in one thing.
    Later(Index, Option<u8>, bool, Option<u8>),
    /// Anything.
    Odd(Direction, Box<Recipe>),
}

/// An ICMP error.
#[derive(Clone, Copy, Debug)]
struct Complaint {
    kind: u8,
    /// What is wrong with it.
    flaw: Flaw,
    /// Cut to so many bytes of the L4 header.
    shown: usize,
    /// From the destination, and not from a router.
    by_the_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// Sent to another host.
    Receiver,
    /// About another port.
    Port,
    /// About the answer to it.
    Reversed,
    /// About such a fragment.
    Fragment(bool),
    /// About what had options or an extension header.
    Longer,
    /// Of the other IP version.
    Version,
    /// The way that the packet went.
    Direction,
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Ingress, Direction::Egress])
}

fn dress() -> impl Strategy<Value = Dress> {
    prop_oneof![
        10 => Just(Dress::Plain),
        1 => Just(Dress::Longer),
        3 => (1..3_u8).prop_map(Dress::First),
    ]
}

/// `None`: what would be natural.
fn flags() -> impl Strategy<Value = Option<u8>> {
    let any = select(vec![
        SYN,
        SYN,
        SYN | ACK,
        ACK,
        PSH | ACK,
        FIN | ACK,
        FIN,
        RST,
        RST | ACK,
        RST | ACK,
        SYN | FIN,
        0,
    ]);
    prop_oneof![3 => Just(None), 2 => any.prop_map(Some)]
}

fn fresh() -> impl Strategy<Value = (Direction, Packet, Dress)> {
    let protocol = prop_oneof![
        9 => Just(6),
        5 => Just(17),
        1 => Just(136),
        1 => Just(132),
        // ICMP of the version.
        5 => Just(1),
        2 => select(vec![47, 50, 253]),
    ];
    let icmp = prop_oneof![
        8 => Just([8, 0]),
        1 => Just([8, 1]),
        1 => Just([0, 0]),
        1 => select(vec![[13, 0], [3, 3], [5, 0]]),
    ];
    let ends = (
        select(vec![0, 0, 0, 1]),
        select(vec![2, 2, 2, 3]),
        // Whether the direction is that of the addresses; whether it goes to everybody.
        prop::bool::weighted(0.95),
        prop::bool::weighted(0.05),
    );
    // A talk is mostly of few things.
    let ports = (select(&PORTS[2..]), select(&PORTS[..2])).prop_map(|(from, to)| [from, to]);
    let flags = select(vec![
        SYN,
        SYN,
        SYN,
        SYN,
        SYN,
        ACK,
        ACK,
        FIN | ACK,
        RST,
        SYN | ACK,
    ]);
    (
        direction(),
        any::<bool>(),
        ends,
        protocol,
        ports,
        (flags, icmp, dress()),
    )
        .prop_map(
            |(direction, v6, (here, there, expected, everybody), protocol, ports, rest)| {
                let (flags, mut icmp, dress) = rest;
                let outward = (direction == Direction::Egress) == expected;
                let (src, dst) = if outward {
                    (here, there)
                } else {
                    (there, here)
                };
                let dst = if everybody { EVERYBODY } else { dst };
                let addresses = ADDRESSES[usize::from(v6)];
                let mut protocol = protocol;
                if v6 && protocol == 1 {
                    protocol = 58;
                    icmp[0] = match icmp[0] {
                        8 => 128,
                        0 => 129,
                        other => other,
                    };
                }
                let packet = Packet {
                    src: addresses[src],
                    dst: addresses[dst],
                    protocol,
                    ports,
                    flags,
                    icmp,
                };
                (direction, packet, dress)
            },
        )
}

fn complaint() -> impl Strategy<Value = Complaint> {
    let flaw = prop_oneof![
        9 => Just(Flaw::Nothing),
        1 => Just(Flaw::Receiver),
        1 => Just(Flaw::Port),
        1 => Just(Flaw::Reversed),
        1 => any::<bool>().prop_map(Flaw::Fragment),
        1 => Just(Flaw::Longer),
        1 => Just(Flaw::Version),
        1 => Just(Flaw::Direction),
    ];
    let kind = prop_oneof![9 => 0..4_u8, 1 => 4..7_u8];
    let shown = select(vec![24, 24, 24, 8, 8, 7, 0]);
    (kind, flaw, shown, any::<bool>()).prop_map(|(kind, flaw, shown, by_the_end)| Complaint {
        kind,
        flaw,
        shown,
        by_the_end,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let of = any::<Index>;
    prop_oneof![
        8 => fresh().prop_map(|(direction, packet, dress)| Plan::Fresh(direction, packet, dress)),
        14 => (of(), flags(), dress()).prop_map(|(to, flags, dress)| Plan::Answer(to, flags, dress)),
        8 => (of(), flags(), dress()).prop_map(|(of, flags, dress)| Plan::Again(of, flags, dress)),
        1 => (of(), any::<bool>()).prop_map(|(of, answer)| Plan::Astray(of, answer)),
        1 => (of(), 0..6_u8).prop_map(|(of, thing)| Plan::AlmostAnswer(of, thing)),
        5 => (of(), complaint()).prop_map(|(about, complaint)| Plan::Error(about, complaint)),
        10 => (
            of(),
            prop_oneof![6 => Just(None), 1 => (1..4_u8).prop_map(Some)],
            any::<bool>(),
            prop_oneof![8 => Just(None), 2 => (0..4_u8).prop_map(Some)],
        )
            .prop_map(|(of, id, more, thing)| Plan::Later(of, id, more, thing)),
        2 => (direction(), recipe())
            .prop_map(|(direction, recipe)| Plan::Odd(direction, Box::new(recipe))),
    ]
}

/// What was there so far.
struct Told {
    packets: Vec<(Direction, Packet)>,
    firsts: Vec<(Direction, Packet, u8)>,
}

/// How far back most packets are that the next one is about.
const RECENT: &[usize] = &[0, 0, 0, 1, 1, 2, 3, 6];

impl Told {
    fn step<'a>(
        &mut self,
        plan: &Plan,
        ruleset: impl Fn(Direction) -> &'a Ruleset,
    ) -> (Direction, Kind, Frame) {
        match plan {
            Plan::Fresh(direction, packet, dress) => self.packet(*direction, *packet, *dress),
            Plan::Answer(to, flags, dress) => {
                let (direction, packet) = self.recent(*to);
                self.packet(opposite(direction), packet.answer(*flags), *dress)
            }
            Plan::Again(of, flags, dress) => {
                let (direction, packet) = self.recent(*of);
                self.packet(direction, packet.again(*flags), *dress)
            }
            Plan::Astray(of, answer) => {
                let (direction, packet) = self.recent(*of);
                let (direction, packet) = if *answer {
                    (direction, packet.answer(None))
                } else {
                    (opposite(direction), packet)
                };
                (direction, Kind::Packet, packet.frame(Dress::Plain))
            }
            Plan::AlmostAnswer(of, thing) => {
                let (direction, packet) = self.recent(*of);
                let mut packet = packet.answer(None);
                match thing {
                    0 => packet.ports[0] ^= 1,
                    1 => packet.ports[1] ^= 1,
                    2 => packet.src = neighbour(packet.src),
                    3 => packet.dst = neighbour(packet.dst),
                    4 => packet.protocol = beside(packet.protocol),
                    _ => {
                        packet.src = of_other_version(packet.src);
                        packet.dst = of_other_version(packet.dst);
                    }
                }
                let frame = packet.frame(Dress::Plain);
                (opposite(direction), Kind::Packet, frame)
            }
            Plan::Error(about, complaint) => {
                let (direction, packet) = self.recent(*about);
                let direction = match complaint.flaw {
                    Flaw::Direction => direction,
                    _ => opposite(direction),
                };
                (direction, Kind::Error, complaint.about(packet))
            }
            Plan::Later(of, id, more, thing) => {
                let last = self.firsts.len().min(2);
                let (mut direction, mut packet, first) = if last == 0 {
                    let (direction, packet) = self.recent(*of);
                    (direction, packet, 1)
                } else {
                    self.firsts[self.firsts.len() - 1 - of.index(last)]
                };
                match thing {
                    Some(0) => packet.src = neighbour(packet.src),
                    Some(1) => packet.dst = neighbour(packet.dst),
                    Some(2) => packet.protocol = beside(packet.protocol),
                    Some(_) => direction = opposite(direction),
                    None => {}
                }
                let dress = Dress::Later(id.unwrap_or(first), *more);
                (direction, Kind::Later, packet.frame(dress))
            }
            Plan::Odd(direction, recipe) => {
                let frame = recipe.frame(ruleset(*direction));
                (*direction, Kind::Odd, frame)
            }
        }
    }

    fn packet(
        &mut self,
        direction: Direction,
        packet: Packet,
        dress: Dress,
    ) -> (Direction, Kind, Frame) {
        self.packets.push((direction, packet));
        if let Dress::First(id) = dress {
            self.firsts.push((direction, packet, id));
        }
        (direction, Kind::Packet, packet.frame(dress))
    }

    /// One of the last packets; one that went out, if there was none.
    fn recent(&self, which: Index) -> (Direction, Packet) {
        if self.packets.is_empty() {
            let [src, _, dst, ..] = ADDRESSES[0];
            let packet = Packet {
                src,
                dst,
                protocol: 6,
                ports: [30000, 80],
                flags: SYN,
                icmp: [8, 0],
            };
            return (Direction::Egress, packet);
        }
        let back = (*which.get(RECENT)).min(self.packets.len() - 1);
        self.packets[self.packets.len() - 1 - back]
    }
}

impl Complaint {
    fn about(&self, packet: Packet) -> Frame {
        let router = ADDRESSES[usize::from(packet.src.is_ipv6())][3];
        let (src, dst) = match self.flaw {
            Flaw::Receiver => (router, neighbour(packet.src)),
            _ if self.by_the_end => (packet.dst, packet.src),
            _ => (router, packet.src),
        };
        let mut inner = packet;
        let mut dress = Dress::Plain;
        match self.flaw {
            Flaw::Port => inner.ports[0] ^= 1,
            Flaw::Reversed => inner = packet.answer(None),
            Flaw::Fragment(true) => dress = Dress::First(1),
            Flaw::Fragment(false) => dress = Dress::Later(1, false),
            Flaw::Longer => dress = Dress::Longer,
            _ => {}
        }
        let mut about = inner.ip(dress);
        about.truncate(about.len() - 24 + self.shown);
        if self.flaw == Flaw::Version {
            about[0] ^= 0x20;
        }
        // The errors first, then what isn't one.
        let (protocol, kinds) = if packet.src.is_ipv4() {
            (1, [3, 11, 12, 3, 4, 5, 13])
        } else {
            (58, [1, 2, 3, 4, 0, 5, 130])
        };
        let mut body = vec![kinds[usize::from(self.kind)], 1, 0, 0, 0, 0, 0, 0];
        body.extend(about);
        let outer = Packet {
            src,
            dst,
            protocol,
            ..packet
        };
        ethernet(&outer.around(Dress::Plain, &body))
    }
}

/// The address that differs in the last bit.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() ^ 1).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() ^ 1).into(),
    }
}

/// The other one of UDP and UDP-Lite, and ICMP of the other version.
fn beside(protocol: u8) -> u8 {
    match protocol {
        17 => 136,
        136 => 17,
        1 => 58,
        58 => 1,
        6 => 132,
        other => other ^ 1,
    }
}

/// The address with the same bits, as far as there are so many.
fn of_other_version(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv6Addr::from_bits(u128::from(address.to_bits()) << 96).into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}
