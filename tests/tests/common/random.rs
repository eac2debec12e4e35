//! Random rulesets, and packets that aim at them: the boundaries of their
//! prefixes and port ranges, and every oddity of the formats.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_user::ruleset::{
    Action, Direction, Family, Fragments, Match, Options, PortRange, Rule, RuleId, Ruleset, Stage,
    Switch,
};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A ruleset of up to `rules` rules.
pub(crate) fn ruleset(rules: usize) -> impl Strategy<Value = Ruleset> {
    (
        prop::collection::vec(rule(), 0..=rules),
        prop::bool::ANY,
        (
            prop::bool::ANY,
            prop::bool::ANY,
            prop::bool::ANY,
            prop::bool::ANY,
        ),
    )
        .prop_map(
            |(mut rules, deny, (l3_only, drop_non_ip, pass_wrapped, essentials))| {
                // Stages come in their order, failsafes first.
                rules.sort_by_key(|rule| rule.id.stage);
                for (index, rule) in (0..).zip(&mut rules) {
                    rule.id.index = Some(index);
                }
                Ruleset {
                    endpoint: "random".to_owned(),
                    direction: Direction::Ingress,
                    rules,
                    sets: Vec::new(),
                    default: if deny { Action::Deny } else { Action::Allow },
                    options: Options {
                        fragments: if l3_only {
                            Fragments::L3Only
                        } else {
                            Fragments::Drop
                        },
                        non_ip: if drop_non_ip {
                            Switch::Drop
                        } else {
                            Switch::Pass
                        },
                        encapsulated_ip: if pass_wrapped {
                            Switch::Pass
                        } else {
                            Switch::Drop
                        },
                        essentials,
                    },
                }
            },
        )
}

fn rule() -> impl Strategy<Value = Rule> {
    let stage = prop_oneof![
        1 => Just(Stage::Failsafe),
        4 => Just(Stage::PreDnat),
        4 => Just(Stage::Normal),
    ];
    (stage, prop::bool::ANY, matches()).prop_map(|(stage, allow, matches)| Rule {
        id: RuleId {
            stage,
            policy: "p".into(),
            direction: Direction::Ingress,
            index: Some(0),
        },
        action: if allow || stage == Stage::Failsafe {
            Action::Allow
        } else {
            Action::Deny
        },
        tier: None,
        staged: false,
        matches: vec![matches],
        source: None,
    })
}

fn matches() -> impl Strategy<Value = Match> {
    let protocol = prop_oneof![
        2 => Just(None),
        6 => select(vec![6, 17]).prop_map(Some),
        3 => select(vec![1, 58, 132, 136, 47, 50, 51, 2, 0, 44, 59]).prop_map(Some),
        1 => any::<u8>().prop_map(Some),
    ];
    (
        select(vec![None, None, Some(Family::V4), Some(Family::V6)]),
        protocol,
        prop::bool::ANY,
        prop::collection::vec((any::<bool>(), net(Family::V4), net(Family::V6)), 0..3),
        prop::collection::vec((any::<bool>(), net(Family::V4), net(Family::V6)), 0..3),
        prop::collection::vec(ports(), 0..3),
    )
        .prop_map(|(family, protocol, v6, src, dst, ports)| {
            let v6 = family.map_or(v6, |family| family == Family::V6);
            let nets = |list: Vec<(bool, IpNet, IpNet)>| -> Vec<IpNet> {
                list.into_iter()
                    .filter(|(keep, _, _)| *keep)
                    .map(|(_, v4, six)| if v6 { six } else { v4 })
                    .collect()
            };
            let has_ports = matches!(protocol, Some(6 | 17 | 132 | 136));
            Match {
                family,
                protocol,
                src: nets(src).into(),
                dst: nets(dst).into(),
                dst_ports: if has_ports { ports } else { Vec::new() },
                ..Match::default()
            }
        })
}

/// Few addresses and all prefix lengths: so that networks nest and touch.
fn net(family: Family) -> BoxedStrategy<IpNet> {
    let v4 = || {
        prop_oneof![
            3 => select(vec![0, 0x0a01_0203, 0x0a01_0200, 0xc000_024d, u32::MAX]),
            1 => any::<u32>(),
        ]
    };
    let v6 = || {
        prop_oneof![
            3 => select(vec![0, 0x2001_0db8 << 96 | 7, 0x2001_0db8 << 96, 0xffff_0a01_0203, u128::MAX]),
            1 => any::<u128>(),
        ]
    };
    match family {
        Family::V4 => (v4(), 0..=32_u8)
            .prop_map(|(bits, length)| {
                let net = IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length);
                net.map_or_else(|error| panic!("{error}"), |net| net.trunc())
            })
            .boxed(),
        Family::V6 => (v6(), 0..=128_u8)
            .prop_map(|(bits, length)| {
                let net = IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), length);
                net.map_or_else(|error| panic!("{error}"), |net| net.trunc())
            })
            .boxed(),
    }
}

fn ports() -> impl Strategy<Value = PortRange> {
    let port = || {
        prop_oneof![
            2 => select(vec![0, 1, 80, 255, 256, 30000, 32767, 32768, u16::MAX]),
            1 => any::<u16>(),
        ]
    };
    (port(), port()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    })
}

/// How to make a packet for a ruleset.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    v6: bool,
    tags: Vec<u16>,
    ethertype: Option<u16>,
    src: Index,
    dst: Index,
    proto: u8,
    port: Index,
    sport: u16,
    icmp: (u8, u8),
    hop_limit: u8,
    fragment: (u16, bool),
    extensions: Vec<(u8, u8, [u8; 2])>,
    options: u8,
    /// Bytes that the L4 part has more, or less, than its header.
    l4_extra: i8,
    /// What is added to the length field.
    length_error: i8,
    padding: u8,
    cut: Option<Index>,
    noise: Vec<(Index, u8)>,
    /// Instead of all behind the Ethertype.
    junk: Option<Vec<u8>>,
}

/// Any packet.
pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    let tags = prop_oneof![
        6 => Just(vec![]),
        4 => prop::collection::vec(select(vec![0x8100, 0x88a8, 0x9100]), 1..=4),
    ];
    let ethertype = prop_oneof![
        12 => Just(None),
        2 => select(vec![0x0806, 0x0006, 0x05dc, 0x05dd, 0x8847, 0x8848, 0x8863, 0x8864, 0x88cc, 0x0800, 0x86dd]).prop_map(Some),
    ];
    let fragment = prop_oneof![
        6 => Just((0, false)),
        1 => Just((0, true)),
        2 => (select(vec![1, 2, 185, 0x1fff]), any::<bool>()),
    ];
    let extension = (
        prop_oneof![8 => select(vec![0, 43, 44, 51, 60, 135]), 1 => any::<u8>()],
        prop_oneof![6 => 0..3_u8, 1 => any::<u8>()],
        prop_oneof![3 => Just([0, 0]), 1 => Just([0, 1]), 1 => Just([0, 8]), 1 => any::<[u8; 2]>()],
    );
    let extensions = prop_oneof![
        3 => Just(vec![]),
        3 => prop::collection::vec(extension.clone(), 1..4),
        1 => prop::collection::vec(extension, 6..11),
    ];
    (
        (any::<bool>(), tags, ethertype, any::<Index>(), any::<Index>()),
        (
            prop_oneof![8 => select(vec![6, 17]), 4 => select(vec![1, 2, 58, 132, 136, 47, 50, 51, 59]), 1 => any::<u8>()],
            any::<Index>(),
            any::<u16>(),
            (select(vec![0, 1, 3, 4, 5, 8, 128, 130, 132, 133, 135, 137, 138, 143]), select(vec![0, 1, 4])),
            select(vec![0, 1, 64, 254, 255]),
        ),
        (fragment, extensions, prop_oneof![4 => Just(0_u8), 1 => 1..11_u8, 1 => Just(255)]),
        (
            prop_oneof![5 => 0..20_i8, 2 => -20..0_i8],
            prop_oneof![12 => Just(0_i8), 1 => any::<i8>()],
            select(vec![0, 0, 0, 1, 18]),
            prop_oneof![8 => Just(None), 1 => any::<Index>().prop_map(Some)],
            prop_oneof![8 => Just(vec![]), 1 => prop::collection::vec((any::<Index>(), any::<u8>()), 1..4)],
            prop_oneof![30 => Just(None), 1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Some)],
        ),
    )
        .prop_map(
            |(
                (v6, tags, ethertype, src, dst),
                (proto, port, sport, icmp, hop_limit),
                (fragment, extensions, options),
                (l4_extra, length_error, padding, cut, noise, junk),
            )| Recipe {
                v6,
                tags,
                ethertype,
                src,
                dst,
                proto,
                port,
                sport,
                icmp,
                hop_limit,
                fragment,
                extensions,
                options,
                l4_extra,
                length_error,
                padding,
                cut,
                noise,
                junk,
            },
        )
}

/// A frame that prints as hex.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame(pub Vec<u8>);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Recipe {
    /// Makes the packet, aimed at `ruleset`.
    pub(crate) fn frame(&self, ruleset: &Ruleset) -> Frame {
        let ip = if self.v6 {
            self.ipv6(ruleset)
        } else {
            self.ipv4(ruleset)
        };
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 10]);
        }
        let ethertype = self
            .ethertype
            .unwrap_or(if self.v6 { 0x86dd } else { 0x0800 });
        frame.extend(ethertype.to_be_bytes());
        if let Some(junk) = &self.junk {
            frame.extend(junk);
        } else {
            frame.extend(self.wrapping(ethertype));
            frame.extend(ip);
        }
        frame.extend(vec![0xaa; usize::from(self.padding)]);
        if let Some(cut) = self.cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        if frame.is_empty() {
            return Frame(frame);
        }
        for (place, byte) in &self.noise {
            let place = place.index(frame.len());
            frame[place] ^= byte;
        }
        Frame(frame)
    }

    /// What stands between such an Ethertype and IP. One random number of the
    /// recipe makes its choices.
    fn wrapping(&self, ethertype: u16) -> Vec<u8> {
        let choice = usize::from(self.sport);
        match ethertype {
            0x8863 | 0x8864 => {
                let protocols: [&[u8]; 8] = [
                    &[0x00, 0x21],
                    &[0x00, 0x57],
                    &[0x21],
                    &[0x57],
                    &[0x02, 0x81],
                    &[0x02, 0x83],
                    &[0xc0, 0x21],
                    &[0x00],
                ];
                [&[0x11, 0, 0, 1, 0, 0], protocols[choice % 8]].concat()
            }
            0x8847 | 0x8848 => {
                let mut labels = [0, 1, 0, 64].repeat(choice % 10);
                labels.extend([0, 1, 1, 64]);
                labels
            }
            0..=1500 => {
                let headers: [&[u8]; 10] = [
                    &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0],
                    &[0xaa, 0xaa, 3, 0, 0, 0xf8, 0x86, 0xdd],
                    &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0],
                    &[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0x47],
                    &[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0x64],
                    &[0xaa, 0xaa, 3, 0, 0, 0, 8, 6],
                    &[0xaa, 0xaa, 3, 0, 0, 0xc, 8, 0],
                    &[6, 6, 3],
                    &[0x42, 6, 3],
                    &[0x42, 0x42, 3],
                ];
                headers[choice % 10].to_vec()
            }
            _ => Vec::new(),
        }
    }

    fn l4(&self, ruleset: &Ruleset) -> Vec<u8> {
        let mut ports: Vec<u16> = vec![0, 22, 68, 80, 546, 30080, u16::MAX];
        for range in ruleset
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .flat_map(|matches| &matches.dst_ports)
        {
            let (first, last) = (range.first, range.last);
            ports.extend([first.wrapping_sub(1), first, first.wrapping_add(1)]);
            ports.extend([last.wrapping_sub(1), last, last.wrapping_add(1)]);
        }
        let length: i8 = match self.proto {
            6 => 20,
            132 => 12,
            _ => 8,
        };
        let mut l4 = if matches!(self.proto, 1 | 58) {
            vec![self.icmp.0, self.icmp.1, 0, 0]
        } else {
            let mut ports_field = self.sport.to_be_bytes().to_vec();
            ports_field.extend(self.port.get(&ports).to_be_bytes());
            ports_field
        };
        // Something in the payload that looks like ports, to be mistaken.
        l4.resize(64, 0x50);
        let wanted = length + self.l4_extra;
        l4.truncate(usize::try_from(wanted).unwrap_or(0));
        l4
    }

    fn address(
        &self,
        ruleset: &Ruleset,
        which: Index,
        nets: impl Fn(&Match) -> &Vec<IpNet>,
    ) -> u128 {
        let top = if self.v6 {
            u128::MAX
        } else {
            u128::from(u32::MAX)
        };
        let mut addresses = vec![
            0,
            top,
            if self.v6 {
                0xffff_0a01_0203
            } else {
                0x0a01_0203
            },
        ];
        for net in ruleset
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .flat_map(nets)
        {
            let (first, last) = match (net, self.v6) {
                (IpNet::V4(net), false) => (
                    net.network().to_bits().into(),
                    net.broadcast().to_bits().into(),
                ),
                (IpNet::V6(net), true) => (net.network().to_bits(), net.broadcast().to_bits()),
                _ => continue,
            };
            addresses.extend([
                first,
                last,
                first.wrapping_sub(1) & top,
                last.wrapping_add(1) & top,
            ]);
        }
        *which.get(&addresses)
    }

    fn ipv4(&self, ruleset: &Ruleset) -> Vec<u8> {
        let l4 = self.l4(ruleset);
        // 255 stands for an IHL below 5.
        let ihl = if self.options == 255 {
            4
        } else {
            5 + self.options
        };
        let header = usize::from(ihl.max(5)) * 4;
        let length = u16::try_from(header + l4.len())
            .unwrap()
            .wrapping_add_signed(self.length_error.into());
        let (offset, more) = self.fragment;
        let mut ip = vec![0x40 | ihl, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([0, 1]);
        ip.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        ip.extend([self.hop_limit, self.proto, 0, 0]);
        for (which, nets) in [
            (
                self.src,
                (|m: &Match| &m.src.nets) as fn(&Match) -> &Vec<IpNet>,
            ),
            (self.dst, |m: &Match| &m.dst.nets),
        ] {
            let bits = self.address(ruleset, which, nets);
            ip.extend(u32::try_from(bits).unwrap().to_be_bytes());
        }
        ip.resize(header, 1);
        ip.extend(l4);
        ip
    }

    fn ipv6(&self, ruleset: &Ruleset) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if self.fragment != (0, false) {
            let (offset, more) = self.fragment;
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            chain.push((44, 0, field));
        }
        let mut payload = Vec::new();
        for (index, (kind, length, field)) in chain.iter().enumerate() {
            let next = chain
                .get(index + 1)
                .map_or(self.proto, |(kind, _, _)| *kind);
            let start = payload.len();
            payload.extend([next, *length, field[0], field[1]]);
            let size = match kind {
                44 => 8,
                51 => (usize::from(*length) + 2) * 4,
                _ => (usize::from(*length) + 1) * 8,
            };
            payload.resize(start + size, 0);
        }
        payload.extend(self.l4(ruleset));
        let length = u16::try_from(payload.len())
            .unwrap()
            .wrapping_add_signed(self.length_error.into());
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([
            chain.first().map_or(self.proto, |(kind, _, _)| *kind),
            self.hop_limit,
        ]);
        ip.extend(
            self.address(ruleset, self.src, |m| &m.src.nets)
                .to_be_bytes(),
        );
        ip.extend(
            self.address(ruleset, self.dst, |m| &m.dst.nets)
                .to_be_bytes(),
        );
        ip.extend(payload);
        ip
    }
}
