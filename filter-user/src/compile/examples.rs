//! A packet of each class, as people write it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::parse::UNKNOWN_PROTOCOL;
use filter_common::verdict::Essential;
use filter_common::wire::ip::v6;
use filter_common::wire::l4;

use super::address::Dimension;
use super::classes::Classes;
use crate::packet_text::{Fields, Header, PacketText};
use crate::reference;
use crate::ruleset::{Action, Family, Options, Ruleset};

/// An address of each class; one of those for examples where it fits, best
/// `favourite`, or the IPv6 address that ends like it.
pub(super) fn addresses(family: Family, dimension: &Dimension, favourite: [u8; 4]) -> Vec<IpAddr> {
    let [.., host] = favourite;
    let well_known = match family {
        Family::V4 => {
            let nets = [[198, 51, 100], [192, 0, 2], [203, 0, 113]];
            let known = nets.map(|[a, b, c]| [a, b, c, host]);
            let known = [known[0], known[1], known[2], favourite].map(Ipv4Addr::from);
            known.map(|known| u128::from(known.to_bits()) << 96)
        }
        Family::V6 => [3, 2, 1, 0]
            .map(|net| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, u16::from(host)).to_bits()),
    };
    dimension
        .examples(&well_known)
        .into_iter()
        .map(|bits| match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32)),
            Family::V6 => IpAddr::from(Ipv6Addr::from_bits(bits)),
        })
        .collect()
}

/// For each class of L4 headers one that a packet of this IP version can have,
/// common protocols first, and one of each kind of essentials; none where that
/// is none that can be written down.
pub(super) fn headers(
    classes: &Classes<'_>,
    ruleset: &Ruleset,
    family: Family,
) -> Vec<BTreeMap<Option<Essential>, Fields>> {
    let mut headers = Headers {
        found: vec![BTreeMap::new(); classes.whole_l4().classes.len()],
        // Whose default lets all essentials through and nothing else.
        closed: Ruleset {
            endpoint: ruleset.endpoint.clone(),
            direction: ruleset.direction,
            sets: Vec::new(),
            rules: Vec::new(),
            default: Action::Deny,
            options: Options::default(),
        },
    };
    let any_host = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let blank = |protocol| Fields {
        protocol,
        src: any_host,
        dst: any_host,
        ..Fields::default()
    };
    let sports = &classes.source_ports;
    let whole = |l4: u32, sport: u32| {
        let joint = l4 as usize * sports.classes.len() + sport as usize;
        classes.whole_l4().joint[joint] as usize
    };
    for protocol in protocols(family) {
        let of_protocol = &classes.l4.protocols[usize::from(protocol)];
        let blank = blank(Some(protocol));
        for (selector, l4) in selectors(protocol, &of_protocol.read) {
            for (sport, sport_class) in choices(&sports.steps, 51_515) {
                let header = Fields {
                    sport,
                    selector,
                    ..blank
                };
                headers.add(whole(l4, sport_class), header);
                // Neighbour discovery that came from afar is none.
                if family == Family::V6 && header.usual_hop_limit() == 255 {
                    let header = Fields {
                        hop_limit: Some(64),
                        ..header
                    };
                    headers.add(whole(l4, sport_class), header);
                }
            }
        }
        headers.add_absent(
            whole(of_protocol.later_fragment, 0),
            Header::LaterFragment,
            blank,
        );
        if l4::has_ports(protocol) || matches!(protocol, l4::ICMP | l4::ICMPV6) {
            headers.add_absent(whole(of_protocol.unreadable, 0), Header::Cut, blank);
        }
    }
    if family == Family::V6 {
        let of_protocol = &classes.l4.protocols[usize::from(UNKNOWN_PROTOCOL)];
        let blank = blank(None);
        headers.add_absent(
            whole(of_protocol.later_fragment, 0),
            Header::LaterFragment,
            blank,
        );
        headers.add_absent(whole(of_protocol.unreadable, 0), Header::Whole, blank);
    }
    headers.found
}

/// Protocols that a packet of this IP version can have, common ones first, and the
/// ICMP of the other version last.
fn protocols(family: Family) -> impl Iterator<Item = u8> {
    const COMMON: [u8; 6] = [6, 17, 1, 58, 132, 136];
    let other = match family {
        Family::V4 => l4::ICMPV6,
        Family::V6 => l4::ICMP,
    };
    COMMON
        .into_iter()
        .filter(move |protocol| *protocol != other)
        .chain((0..=u8::MAX).filter(|protocol| !COMMON.contains(protocol)))
        .chain([other])
        .filter(move |protocol| family == Family::V4 || !v6::is_extension(*protocol))
}

/// Examples that are found.
struct Headers {
    /// Of each class of whole L4 headers.
    found: Vec<BTreeMap<Option<Essential>, Fields>>,
    closed: Ruleset,
}

impl Headers {
    /// Takes a header for its class, if it is the first of its kind.
    fn add(&mut self, class: usize, header: Fields) {
        let frame = PacketText::new(header).frame();
        let kind = reference::judge(&self.closed, &frame).essential;
        self.found[class].entry(kind).or_insert(header);
    }

    fn add_absent(&mut self, class: usize, header: Header, blank: Fields) {
        self.add(class, Fields { header, ..blank });
    }
}

/// Destination ports, or ICMP types and codes, of each step, with its class: a
/// well-known one, and all those by which something is an essential.
fn selectors(protocol: u8, steps: &[(u16, u32)]) -> Vec<(u16, u32)> {
    let (liked, notable): (u16, Vec<u16>) = match protocol {
        l4::ICMP => (8 << 8, vec![3 << 8 | 4]),
        l4::ICMPV6 => {
            // Each type; first the one that nothing goes without.
            let types = [135].into_iter().chain(0..=u8::MAX);
            (128 << 8, types.map(|kind| u16::from(kind) << 8).collect())
        }
        l4::UDP => (443, vec![67, 68, 546, 547]),
        _ => (443, Vec::new()),
    };
    let notable = notable.into_iter().filter_map(|selector| {
        let step = steps.iter().rfind(|(first, _)| *first <= selector);
        step.map(|&(_, class)| (selector, class))
    });
    choices(steps, liked).into_iter().chain(notable).collect()
}

/// Values of each step, with its class: the liked one where it is in it, and
/// 0 only where there is no other; and the last one, since an essential may be
/// the first.
fn choices(steps: &[(u16, u32)], liked: u16) -> Vec<(u16, u32)> {
    (0..)
        .zip(steps)
        .flat_map(|(index, &(first, class)): (usize, _)| {
            let last = steps
                .get(index + 1)
                .map_or(u16::MAX, |&(next, _)| next.saturating_sub(1));
            let value = if (first..=last).contains(&liked) {
                liked
            } else {
                first.max(1).min(last)
            };
            [(value, class)]
                .into_iter()
                .chain((value != last).then_some((last, class)))
        })
        .collect()
}
