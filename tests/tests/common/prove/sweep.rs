//! What is at the edges of a ruleset, all of it and in order: addresses beside the ends of
//! each network, ports beside those of each range, every port and protocol that there is,
//! every chain of extension headers up to four, and what is cut at every byte.

use std::net::IpAddr;

use filter_user::ruleset::{Addresses, Family, Match, PortRange, Ruleset};
use ipnet::IpNet;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// A packet that meets one alternative of a rule, as far as its first conditions go.
#[derive(Clone, Copy, Debug)]
struct Aim {
    v6: bool,
    src: u128,
    dst: u128,
    protocol: u8,
    ports: [u16; 2],
}

/// What stands for no address in particular.
const fn nowhere(v6: bool) -> u128 {
    if v6 {
        0x2001_0db8_00ff << 80 | 1
    } else {
        0xc633_6401
    }
}

const fn top(v6: bool) -> u128 {
    if v6 { u128::MAX } else { u32::MAX as u128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// All networks that a side is asked about.
fn nets<'r>(side: &'r Addresses, ruleset: &'r Ruleset) -> impl Iterator<Item = &'r IpNet> {
    let sets = side.sets.iter().chain(&side.not_sets);
    let of_sets = sets.flat_map(|set| ruleset.sets[*set as usize].nets.iter());
    side.nets.iter().chain(&side.not_nets).chain(of_sets)
}

const fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

impl Aim {
    fn at(matches: &Match, ruleset: &Ruleset) -> Self {
        let first = |side| nets(side, ruleset).next();
        let (src, dst) = (first(&matches.src), first(&matches.dst));
        let v6 = match (src.or(dst), matches.family) {
            (Some(net), _) => is_v6(net),
            (None, family) => family == Some(Family::V6) || matches.protocol == Some(58),
        };
        let address = |net: Option<&IpNet>| match net {
            Some(net) if is_v6(net) == v6 => bits(net.network()),
            _ => nowhere(v6),
        };
        let port = |ranges: &[PortRange]| ranges.first().map_or(80, |range| range.first);
        Self {
            v6,
            src: address(src),
            dst: address(dst),
            protocol: matches.protocol.unwrap_or(6),
            ports: [port(&matches.src_ports), port(&matches.dst_ports)],
        }
    }

    fn l4(&self) -> Vec<u8> {
        let [src, dst] = self.ports.map(u16::to_be_bytes);
        let mut l4 = if matches!(self.protocol, 1 | 58) {
            dst.to_vec()
        } else {
            [src, dst].concat()
        };
        l4.resize(if self.protocol == 6 { 20 } else { 12 }, 0);
        if self.protocol == 6 {
            l4[12] = 0x50;
        }
        l4
    }

    fn frame(&self) -> Vec<u8> {
        if self.v6 {
            self.behind(&[])
        } else {
            self.with_options(&[])
        }
    }

    /// IPv4, with these options.
    fn with_options(&self, options: &[u8]) -> Vec<u8> {
        let l4 = self.l4();
        let header = 20 + options.len();
        let mut ip = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        ip.extend(u16::try_from(header + l4.len()).unwrap().to_be_bytes());
        ip.extend([0, 1, 0, 0, 64, self.protocol, 0, 0]);
        for address in [self.src, self.dst] {
            ip.extend(u32::try_from(address & top(false)).unwrap().to_be_bytes());
        }
        ip.extend(options);
        ip.extend(l4);
        ethernet(&[0x08, 0x00], &ip)
    }

    /// IPv6, behind these extension headers.
    fn behind(&self, chain: &[Link]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (place, link) in chain.iter().enumerate() {
            let next = chain.get(place + 1).map_or(self.protocol, |link| link.kind);
            payload.push(next);
            payload.extend(link.rest);
        }
        payload.extend(self.l4());
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        ip.extend([chain.first().map_or(self.protocol, |link| link.kind), 255]);
        ip.extend(self.src.to_be_bytes());
        ip.extend(self.dst.to_be_bytes());
        ip.extend(payload);
        ethernet(&[0x86, 0xdd], &ip)
    }
}

fn ethernet(ethertype: &[u8], ip: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], ethertype, ip].concat()
}

/// An extension header, from its second byte on.
struct Link {
    kind: u8,
    rest: &'static [u8],
}

const fn link(kind: u8, rest: &'static [u8]) -> Link {
    Link { kind, rest }
}

/// One of each kind, and of each that is treated otherwise: routing of the forbidden type and
/// of another, and fragments that are whole, first, and later. The authentication header has
/// three words, so that who counts in units of 8 bytes misses what follows.
const LINKS: [fn() -> Link; 9] = [
    || link(HOP_BY_HOP, &[0; 7]),
    || link(ROUTING, &[0; 7]),
    || link(ROUTING, &[0, 4, 0, 0, 0, 0, 0]),
    || link(FRAGMENT, &[0; 7]),
    || link(FRAGMENT, &[0, 0, 1, 0, 0, 0, 1]),
    || link(FRAGMENT, &[0, 0, 8, 0, 0, 0, 1]),
    || link(AUTHENTICATION, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    || link(DESTINATION, &[0; 7]),
    || link(MOBILITY, &[0; 7]),
];

fn alternatives(ruleset: &Ruleset) -> impl Iterator<Item = &Match> {
    ruleset.rules.iter().flat_map(|rule| &rule.matches)
}

/// One of the alternatives, another one each turn; something plain where there is none.
fn one(ruleset: &Ruleset, turn: usize, wanted: impl Fn(&Match) -> bool) -> Aim {
    let all: Vec<&Match> = alternatives(ruleset)
        .filter(|matches| wanted(matches))
        .collect();
    let plain = Match::default();
    let matches = all.get(turn % all.len().max(1)).copied().unwrap_or(&plain);
    Aim::at(matches, ruleset)
}

/// For each network of each alternative, as source or destination, the address below it, its
/// first, its last, and the one above it.
pub(crate) fn addresses(ruleset: &Ruleset) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for matches in alternatives(ruleset) {
        let aim = Aim::at(matches, ruleset);
        for (side, is_src) in [(&matches.src, true), (&matches.dst, false)] {
            for net in nets(side, ruleset) {
                let v6 = is_v6(net);
                let (first, last) = (bits(net.network()), bits(net.broadcast()));
                for address in [
                    first.wrapping_sub(1) & top(v6),
                    first,
                    last,
                    last.wrapping_add(1) & top(v6),
                ] {
                    let mut aim = aim;
                    if aim.v6 != v6 {
                        (aim.v6, aim.src, aim.dst) = (v6, nowhere(v6), nowhere(v6));
                    }
                    *(if is_src { &mut aim.src } else { &mut aim.dst }) = address;
                    frames.push(aim.frame());
                }
            }
        }
    }
    frames
}

/// For each range of ports of each alternative, the port below it, its first, its last, and
/// the one above it.
pub(crate) fn range_ends(ruleset: &Ruleset) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for matches in alternatives(ruleset) {
        let aim = Aim::at(matches, ruleset);
        let sides = [
            [&matches.src_ports, &matches.not_src_ports],
            [&matches.dst_ports, &matches.not_dst_ports],
        ];
        for (side, ranges) in sides.into_iter().enumerate() {
            for range in ranges.into_iter().flatten() {
                let PortRange { first, last } = *range;
                for port in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
                    let mut aim = aim;
                    aim.ports[side] = port;
                    frames.push(aim.frame());
                }
            }
        }
    }
    frames
}

/// Every port of one protocol: source ports where they are asked for, each second turn.
pub(crate) fn ports(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let from =
        |matches: &Match| !(matches.src_ports.is_empty() && matches.not_src_ports.is_empty());
    let to = |matches: &Match| !(matches.dst_ports.is_empty() && matches.not_dst_ports.is_empty());
    let by_source = turn % 2 == 1 && alternatives(ruleset).any(from);
    let mut aim = one(ruleset, turn, |matches| {
        if by_source {
            from(matches)
        } else {
            to(matches)
        }
    });
    let side = usize::from(!by_source);
    let mut frame = move |port| {
        aim.ports[side] = port;
        aim.frame()
    };
    (0..=u16::MAX).map(&mut frame).collect()
}

/// Every protocol of both IP versions.
pub(crate) fn protocols(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for v6 in [false, true] {
        let mut aim = one(ruleset, turn, |matches| Aim::at(matches, ruleset).v6 == v6);
        if aim.v6 != v6 {
            (aim.v6, aim.src, aim.dst) = (v6, nowhere(v6), nowhere(v6));
        }
        frames.extend((0..=u8::MAX).map(|protocol| Aim { protocol, ..aim }.frame()));
    }
    frames
}

/// Every type and code of ICMP, of one of the versions.
pub(crate) fn icmp(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let protocol = [1, 58][turn % 2];
    let mut aim = one(ruleset, turn, |matches| matches.protocol == Some(protocol));
    if aim.v6 != (protocol == 58) {
        let v6 = !aim.v6;
        (aim.v6, aim.src, aim.dst) = (v6, nowhere(v6), nowhere(v6));
    }
    aim.protocol = protocol;
    let mut frame = move |kind_and_code| {
        aim.ports[1] = kind_and_code;
        aim.frame()
    };
    (0..=u16::MAX).map(&mut frame).collect()
}

/// Every chain of up to four extension headers before one protocol.
pub(crate) fn chains(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let mut aim = one(ruleset, turn, |matches| Aim::at(matches, ruleset).v6);
    if !aim.v6 {
        (aim.v6, aim.src, aim.dst) = (true, nowhere(true), nowhere(true));
    }
    // ESP, and nothing at all.
    if turn % 3 == 2 {
        aim.protocol = [50, 59][turn % 2];
    }
    let mut frames = Vec::new();
    for length in 0..=4 {
        for mut number in 0..LINKS.len().pow(length) {
            let mut chain = Vec::new();
            for _ in 0..length {
                chain.push(LINKS[number % LINKS.len()]());
                number /= LINKS.len();
            }
            frames.push(aim.behind(&chain));
        }
    }
    frames
}

/// Frames of every format.
fn formats(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let of = |v6: bool| {
        let mut aim = one(ruleset, turn, |matches| Aim::at(matches, ruleset).v6 == v6);
        if aim.v6 != v6 {
            (aim.v6, aim.src, aim.dst) = (v6, nowhere(v6), nowhere(v6));
        }
        aim
    };
    let (v4, v6) = (of(false), of(true));
    let tagged = |frame: &[u8], tags: usize| {
        let tags = [0x81, 0x00, 0, 10].repeat(tags);
        [&frame[..12], &tags, &frame[12..]].concat()
    };
    let first_of_fragments = |mut frame: Vec<u8>| {
        frame[20] |= 0x20;
        frame
    };
    let udp = Aim { protocol: 17, ..v4 };
    let all: Vec<Link> = [0, 2, 3, 6, 7].map(|place: usize| LINKS[place]()).into();
    vec![
        v4.frame(),
        udp.frame(),
        Aim { protocol: 1, ..v4 }.frame(),
        v4.with_options(&[1; 4]),
        udp.with_options(&[1; 40]),
        first_of_fragments(udp.frame()),
        tagged(&udp.frame(), 1),
        tagged(&v4.frame(), 2),
        v6.frame(),
        Aim {
            protocol: 58,
            ports: [0, 135 << 8],
            ..v6
        }
        .frame(),
        v6.behind(&[LINKS[4]()]),
        v6.behind(&all),
        tagged(&v6.behind(&all), 2),
        ethernet(&[0x88, 0x47, 0, 1, 1, 64], &v4.frame()[14..]),
        ethernet(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 0, 0, 0x21],
            &v4.frame()[14..],
        ),
    ]
}

/// Frames of every format, cut at every byte; and plain ones once more, whose lengths say so.
pub(crate) fn truncations(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for frame in formats(ruleset, turn) {
        frames.extend((0..=frame.len()).map(|length| frame[..length].to_vec()));
        let (header, field) = match frame[12..14] {
            [0x08, 0x00] => (14, 16),
            [0x86, 0xdd] => (54, 18),
            _ => continue,
        };
        for length in header + usize::from(header == 14) * 20..frame.len() {
            let mut frame = frame[..length].to_vec();
            let says = u16::try_from(length - header).unwrap();
            frame[field..field + 2].copy_from_slice(&says.to_be_bytes());
            frames.push(frame);
        }
    }
    frames
}

/// All of it.
pub(crate) fn sweep(ruleset: &Ruleset, turn: usize) -> Vec<Vec<u8>> {
    [
        addresses(ruleset),
        range_ends(ruleset),
        ports(ruleset, turn),
        protocols(ruleset, turn),
        icmp(ruleset, turn),
        chains(ruleset, turn),
        truncations(ruleset, turn),
    ]
    .concat()
}
