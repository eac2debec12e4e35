//! Random packets that aim at a ruleset: the boundaries of its prefixes, sets
//! and port ranges, the neighbours of its ICMP types and codes, and every
//! oddity of the formats.

use std::fmt;

use filter_user::ruleset::{Addresses, Family, Icmp, Match, NetSet, PortRange, Ruleset};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// How to make a packet for a ruleset.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// At which condition of the ruleset; all of them if `None`.
    aim: Option<Index>,
    /// Ignores the aim's family and protocol.
    stubborn: bool,
    v6: bool,
    tags: Vec<u16>,
    ethertype: Option<u16>,
    src: Index,
    dst: Index,
    proto: u8,
    port: Index,
    sport: Index,
    icmp: (Index, Index),
    /// What stands around wrapped IP.
    wrapping: u16,
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
    let aim = prop_oneof![2 => Just(None), 3 => any::<Index>().prop_map(Some)];
    (
        (aim, prop::bool::weighted(0.15), any::<bool>()),
        (any::<bool>(), tags, ethertype, any::<Index>(), any::<Index>()),
        (
            prop_oneof![8 => select(vec![6, 17]), 4 => select(vec![1, 2, 58, 132, 136, 47, 50, 51, 59]), 1 => any::<u8>()],
            any::<Index>(),
            any::<Index>(),
            any::<(Index, Index)>(),
            any::<u16>(),
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
                (aim, stubborn, plain),
                (v6, tags, ethertype, src, dst),
                (proto, port, sport, icmp, wrapping, hop_limit),
                (fragment, extensions, options),
                (l4_extra, length_error, padding, cut, noise, junk),
            )| {
                let odd = Recipe {
                aim,
                stubborn,
                v6,
                tags,
                ethertype,
                src,
                dst,
                proto,
                port,
                sport,
                icmp,
                wrapping,
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
            };
            if plain { odd.made_plain() } else { odd }
            }
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
    /// Without any oddity: what rules are mostly about.
    fn made_plain(self) -> Self {
        Self {
            tags: Vec::new(),
            ethertype: None,
            fragment: (0, false),
            extensions: Vec::new(),
            options: 0,
            l4_extra: self.l4_extra.max(0),
            length_error: 0,
            cut: None,
            noise: Vec::new(),
            junk: None,
            ..self
        }
    }

    /// Makes the packet, aimed at `ruleset`.
    pub(crate) fn frame(&self, ruleset: &Ruleset) -> Frame {
        let target = Target::new(self, ruleset);
        let v6 = target.v6;
        let ip = if v6 { target.ipv6() } else { target.ipv4() };
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 10]);
        }
        let ethertype = self.ethertype.unwrap_or(if v6 { 0x86dd } else { 0x0800 });
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

    /// What stands between such an Ethertype and IP.
    fn wrapping(&self, ethertype: u16) -> Vec<u8> {
        let choice = usize::from(self.wrapping);
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
}

/// What a recipe aims at.
struct Target<'a> {
    recipe: &'a Recipe,
    conditions: Vec<&'a Match>,
    sets: &'a [NetSet],
    v6: bool,
    proto: u8,
}

impl<'a> Target<'a> {
    fn new(recipe: &'a Recipe, ruleset: &'a Ruleset) -> Self {
        let all: Vec<&Match> = ruleset
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .collect();
        let aim = recipe.aim.filter(|_| !all.is_empty());
        let aim = aim.map(|aim| *aim.get(&all));
        let wish = aim.filter(|_| !recipe.stubborn);
        let nets = wish.and_then(|wish| wish.src.nets.first().or(wish.dst.nets.first()));
        let family = wish
            .and_then(|wish| wish.family)
            .or(nets.map(|net| super::family_of(*net)));
        Self {
            recipe,
            conditions: aim.map_or(all, |aim| vec![aim]),
            sets: &ruleset.sets,
            v6: family.map_or(recipe.v6, |family| family == Family::V6),
            proto: wish.and_then(|wish| wish.protocol).unwrap_or(recipe.proto),
        }
    }

    /// The ends of the ranges that are asked for, and what is beside them.
    fn port(&self, which: Index, ranges: fn(&Match) -> [&Vec<PortRange>; 2]) -> u16 {
        let mut ports: Vec<u16> = vec![0, 22, 68, 80, 546, 30080, u16::MAX];
        let asked = self.conditions.iter().flat_map(|matches| ranges(matches));
        for PortRange { first, last } in asked.flatten().copied() {
            ports.extend([first.wrapping_sub(1), first, first.wrapping_add(1)]);
            ports.extend([last.wrapping_sub(1), last, last.wrapping_add(1)]);
        }
        *which.get(&ports)
    }

    /// The types and codes that are asked for, and their neighbours, and those
    /// of essentials.
    fn icmp(&self) -> [u8; 2] {
        let mut kinds: Vec<u8> = vec![0, 1, 3, 4, 5, 8, 128, 130, 132, 133, 135, 137, 138, 143];
        let mut codes: Vec<u8> = vec![0, 1, 4];
        for matches in &self.conditions {
            for Icmp { kind, code } in [matches.icmp, matches.not_icmp].into_iter().flatten() {
                kinds.extend([kind.wrapping_sub(1), kind.wrapping_add(1)]);
                kinds.extend([kind; 8]);
                if let Some(code) = code {
                    codes.extend([code.wrapping_sub(1), code, code, code.wrapping_add(1)]);
                }
            }
        }
        let (kind, code) = &self.recipe.icmp;
        [*kind.get(&kinds), *code.get(&codes)]
    }

    fn l4(&self) -> Vec<u8> {
        let length: i8 = match self.proto {
            6 => 20,
            132 => 12,
            _ => 8,
        };
        let mut l4 = if matches!(self.proto, 1 | 58) {
            self.icmp().to_vec()
        } else {
            let sport = self.port(self.recipe.sport, |m| [&m.src_ports, &m.not_src_ports]);
            let dport = self.port(self.recipe.port, |m| [&m.dst_ports, &m.not_dst_ports]);
            [sport.to_be_bytes(), dport.to_be_bytes()].concat()
        };
        // Something in the payload that looks like ports, to be mistaken.
        l4.resize(64, 0x50);
        let wanted = length + self.recipe.l4_extra;
        l4.truncate(usize::try_from(wanted).unwrap_or(0));
        l4
    }

    /// The first and last addresses of the networks that are asked for, and
    /// those beside them.
    fn address(&self, which: Index, side: fn(&Match) -> &Addresses) -> u128 {
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
        let asked = self.conditions.iter().flat_map(|matches| {
            let side = side(matches);
            let sets = side.sets.iter().chain(&side.not_sets);
            let of_sets = sets.flat_map(|set| self.sets[*set as usize].nets.iter());
            side.nets.iter().chain(&side.not_nets).chain(of_sets)
        });
        for net in asked {
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

    fn src(&self) -> u128 {
        self.address(self.recipe.src, |matches| &matches.src)
    }

    fn dst(&self) -> u128 {
        self.address(self.recipe.dst, |matches| &matches.dst)
    }

    fn ipv4(&self) -> Vec<u8> {
        let recipe = self.recipe;
        let l4 = self.l4();
        // 255 stands for an IHL below 5.
        let ihl = if recipe.options == 255 {
            4
        } else {
            5 + recipe.options
        };
        let header = usize::from(ihl.max(5)) * 4;
        let length = u16::try_from(header + l4.len())
            .unwrap()
            .wrapping_add_signed(recipe.length_error.into());
        let (offset, more) = recipe.fragment;
        let mut ip = vec![0x40 | ihl, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([0, 1]);
        ip.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        ip.extend([recipe.hop_limit, self.proto, 0, 0]);
        for bits in [self.src(), self.dst()] {
            ip.extend(u32::try_from(bits).unwrap().to_be_bytes());
        }
        ip.resize(header, 1);
        ip.extend(l4);
        ip
    }

    fn ipv6(&self) -> Vec<u8> {
        let recipe = self.recipe;
        let mut chain = recipe.extensions.clone();
        if recipe.fragment != (0, false) {
            let (offset, more) = recipe.fragment;
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
        payload.extend(self.l4());
        let length = u16::try_from(payload.len())
            .unwrap()
            .wrapping_add_signed(recipe.length_error.into());
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([
            chain.first().map_or(self.proto, |(kind, _, _)| *kind),
            recipe.hop_limit,
        ]);
        ip.extend(self.src().to_be_bytes());
        ip.extend(self.dst().to_be_bytes());
        ip.extend(payload);
        ip
    }
}
