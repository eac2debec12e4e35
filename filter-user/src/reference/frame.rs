//! What a frame says, read the plain way: slices, no tricks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::verdict::Reason;

/// What is left to decide about a frame once it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// An IP packet: the rules decide.
    Ip(Packet),
    /// ARP.
    Arp,
    /// IP, wrapped so that no rule can see it.
    WrappedIp,
    /// Anything else.
    NotIp,
    /// Dropped whatever the rules say.
    Drop(Reason),
}

/// An IP packet: what rules can ask about, and what conversations know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) hop_limit: u8,
    /// `None` where an extension chain hides it.
    pub(super) protocol: Option<u8>,
    pub(super) l4: L4,
    /// `None`: it is whole.
    pub(super) fragment: Option<Fragment>,
    /// From the L4 header to the end of the IP packet. Empty where the header is
    /// absent.
    pub(super) body: Vec<u8>,
}

/// Which part of which datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// At offset 0, with more to come; else a later one.
    pub(super) first: bool,
    /// The datagram's, of 16 bits in IPv4 and of 32 in IPv6.
    pub(super) id: u32,
    /// What IPv4 says of each fragment, and the fragment header of IPv6: there it may
    /// be an extension header.
    pub(super) protocol: u8,
}

/// The flags of a TCP header that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the header has them")]
pub(super) struct Flags {
    pub(super) fin: bool,
    pub(super) syn: bool,
    pub(super) rst: bool,
    pub(super) ack: bool,
}

impl Packet {
    /// The flags, if it is TCP (RFC 9293) and shows its header.
    pub(super) fn flags(&self) -> Option<Flags> {
        match (self.protocol, self.body.get(13)) {
            (Some(TCP), Some(flags)) => Some(Flags {
                fin: flags & 0x01 != 0,
                syn: flags & 0x02 != 0,
                rst: flags & 0x04 != 0,
                ack: flags & 0x10 != 0,
            }),
            _ => None,
        }
    }

    /// The identifier of an echo request or reply (RFC 792, RFC 4443).
    pub(super) fn echo_id(&self) -> Option<u16> {
        match (self.protocol, &self.l4) {
            (Some(1), L4::Icmp { kind: 0 | 8, .. })
            | (
                Some(58),
                L4::Icmp {
                    kind: 128 | 129, ..
                },
            ) => Some(u16::from_be_bytes([*self.body.get(4)?, *self.body.get(5)?])),
            _ => None,
        }
    }

    /// The packet that an ICMP error is about, as far as the error shows it: of the same
    /// IP version, with 8 bytes of its L4 header or more, and no extension header.
    pub(super) fn embedded(&self) -> Option<Self> {
        let is_error = match (self.protocol, &self.l4) {
            // RFC 792: unreachable, time exceeded, parameter problem.
            (Some(1), L4::Icmp { kind, .. }) => [3, 11, 12].contains(kind),
            // RFC 4443: these, and too big.
            (Some(58), L4::Icmp { kind, .. }) => [1, 2, 3, 4].contains(kind),
            _ => false,
        };
        if !is_error {
            return None;
        }
        // Type, code, checksum, and four bytes that some errors use.
        let bytes = self.body.get(8..)?;
        match self.src {
            IpAddr::V4(_) => embedded_ipv4(bytes),
            IpAddr::V6(_) => embedded_ipv6(bytes),
        }
    }
}

/// It is mostly cut: its total length says nothing about what is here.
fn embedded_ipv4(bytes: &[u8]) -> Option<Packet> {
    if bytes.len() < 20 || bytes[0] / 16 != 4 || bytes[0] % 16 < 5 {
        return None;
    }
    let offset = u16::from_be_bytes([bytes[6] & 0x1f, bytes[7]]);
    if offset != 0 {
        return None;
    }
    let header = usize::from(bytes[0] % 16) * 4;
    embedded_l4(
        v4_address(bytes, 12),
        v4_address(bytes, 16),
        bytes[9],
        bytes.get(header..)?,
    )
}

fn embedded_ipv6(bytes: &[u8]) -> Option<Packet> {
    if bytes.len() < 40 || bytes[0] / 16 != 6 || is_extension(bytes[6]) {
        return None;
    }
    embedded_l4(
        v6_address(bytes, 8),
        v6_address(bytes, 24),
        bytes[6],
        &bytes[40..],
    )
}

fn embedded_l4(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Option<Packet> {
    if body.len() < 8 {
        return None;
    }
    Some(Packet {
        src,
        dst,
        hop_limit: 0,
        protocol: Some(protocol),
        l4: l4_fields(protocol, body),
        fragment: None,
        body: body.to_vec(),
    })
}

/// The L4 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum L4 {
    /// It has ports.
    Ports {
        /// The source's.
        source: u16,
        /// The destination's.
        destination: u16,
    },
    /// It has a type and a code.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// The protocol has nothing that rules ask about.
    Other,
    /// It isn't in this packet; the reason to drop if a rule asks for it.
    Absent(Reason),
}

const TCP: u8 = 6;

/// Reads a frame from its Ethernet header on.
pub(super) fn read(frame: &[u8]) -> Frame {
    // Destination, source, then tags and at last the type.
    let Some(mut rest) = frame.get(12..) else {
        return Frame::Drop(Reason::Malformed);
    };
    let mut tags = 0;
    loop {
        let Some((ethertype, after)) = u16_first(rest) else {
            return Frame::Drop(Reason::Malformed);
        };
        if is_vlan(ethertype) {
            if tags == 2 {
                return Frame::Drop(Reason::VlanDepth);
            }
            tags += 1;
            // Two bytes of tag control stand before the next type.
            let Some(next) = after.get(2..) else {
                return Frame::Drop(Reason::Malformed);
            };
            rest = next;
            continue;
        }
        return match ethertype {
            0x0800 => ipv4(after),
            0x86dd => ipv6(after),
            0x0806 => Frame::Arp,
            0..=1500 if llc_wraps_ip(after) => Frame::WrappedIp,
            0x8864 if pppoe_wraps_ip(after) => Frame::WrappedIp,
            0x8847 | 0x8848 if mpls_wraps_ip(after) => Frame::WrappedIp,
            _ => Frame::NotIp,
        };
    }
}

fn is_vlan(ethertype: u16) -> bool {
    [0x8100, 0x88a8, 0x9100].contains(&ethertype)
}

fn u16_first(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*first), rest))
}

/// IEEE 802.2, RFC 1042. Too short to tell: no.
fn llc_wraps_ip(llc: &[u8]) -> bool {
    match llc {
        [0x06, _, ..] | [_, 0x06, ..] => true,
        [0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00 | 0xf8, high, low, ..] => {
            let ethertype = u16::from_be_bytes([*high, *low]);
            is_vlan(ethertype) || [0x0800, 0x86dd, 0x8864, 0x8847, 0x8848].contains(&ethertype)
        }
        _ => false,
    }
}

/// RFC 2516, RFC 1661. Too short to tell: yes.
fn pppoe_wraps_ip(pppoe: &[u8]) -> bool {
    let protocol = match pppoe.get(6..) {
        Some([compressed, ..]) if compressed % 2 == 1 => u16::from(*compressed),
        Some([high, low, ..]) => u16::from_be_bytes([*high, *low]),
        _ => return true,
    };
    [0x0021, 0x0057, 0x0281, 0x0283].contains(&protocol)
}

/// RFC 3032. Too short to tell, or more than eight labels: yes.
fn mpls_wraps_ip(labels: &[u8]) -> bool {
    for (index, label) in labels.chunks(4).enumerate().take(8) {
        match label {
            [_, _, bottom, _] if bottom % 2 == 1 => {
                return match labels.get(4 * (index + 1)) {
                    Some(first) => matches!(first / 16, 4 | 6),
                    None => true,
                };
            }
            [_, _, _, _] => {}
            _ => return true,
        }
    }
    true
}

/// RFC 791.
fn ipv4(bytes: &[u8]) -> Frame {
    if bytes.len() < 20 {
        return Frame::Drop(Reason::Malformed);
    }
    let version = bytes[0] / 16;
    let header = usize::from(bytes[0] % 16) * 4;
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if version != 4 || header < 20 || total < header || total > bytes.len() {
        return Frame::Drop(Reason::Malformed);
    }
    let more = bytes[6] & 0x20 != 0;
    let offset = u16::from_be_bytes([bytes[6] & 0x1f, bytes[7]]);
    let protocol = bytes[9];
    // What lies behind the total length is padding of the Ethernet frame.
    let l4 = match l4(protocol, &bytes[header..total], offset, more) {
        Ok(l4) => l4,
        Err(reason) => return Frame::Drop(reason),
    };
    let fragment = (offset != 0 || more).then(|| Fragment {
        first: offset == 0,
        id: u16::from_be_bytes([bytes[4], bytes[5]]).into(),
        protocol,
    });
    Frame::Ip(Packet {
        src: v4_address(bytes, 12),
        dst: v4_address(bytes, 16),
        hop_limit: bytes[8],
        protocol: Some(protocol),
        body: shown(&l4, &bytes[header..total]),
        l4,
        fragment,
    })
}

fn v4_address(bytes: &[u8], at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(
        bytes[at],
        bytes[at + 1],
        bytes[at + 2],
        bytes[at + 3],
    ))
}

fn v6_address(bytes: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// What a packet has from its L4 header on.
fn shown(l4: &L4, bytes: &[u8]) -> Vec<u8> {
    match l4 {
        L4::Absent(_) => Vec::new(),
        _ => bytes.to_vec(),
    }
}

/// RFC 8200.
fn ipv6(bytes: &[u8]) -> Frame {
    if bytes.len() < 40 {
        return Frame::Drop(Reason::Malformed);
    }
    let end = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    if bytes[0] / 16 != 6 || end > bytes.len() {
        return Frame::Drop(Reason::Malformed);
    }
    let chain = match extensions(bytes[6], &bytes[40..end]) {
        Ok(found) => found,
        Err(reason) => return Frame::Drop(reason),
    };
    Frame::Ip(Packet {
        src: v6_address(bytes, 8),
        dst: v6_address(bytes, 24),
        hop_limit: bytes[7],
        protocol: chain.protocol,
        body: shown(&chain.l4, chain.rest),
        l4: chain.l4,
        fragment: chain.fragment,
    })
}

/// What an extension chain leads to.
struct Chain<'a> {
    /// If it shows.
    protocol: Option<u8>,
    l4: L4,
    fragment: Option<Fragment>,
    /// From the L4 header on, if it is there.
    rest: &'a [u8],
}

/// Whether a next-header value is an extension header that is looked through.
fn is_extension(next: u8) -> bool {
    [0, 43, 44, 51, 60, 135].contains(&next)
}

/// Follows the extension headers: the protocol, if it shows, and its header.
fn extensions(first: u8, payload: &[u8]) -> Result<Chain<'_>, Reason> {
    let mut next = first;
    let mut rest = payload;
    let mut walked = 0;
    let hidden = |reason, part| Chain {
        protocol: None,
        l4: L4::Absent(reason),
        fragment: part,
        rest: &[],
    };
    // What the fragment header says, unless it says that the packet is whole.
    let mut part: Option<Fragment> = None;
    // Offset and "more" of the fragment header, once there was one.
    let mut fragment: Option<(u16, bool)> = None;
    while is_extension(next) {
        if walked == 8 {
            return Err(Reason::Ipv6Extension);
        }
        walked += 1;
        if next == 44 && fragment.is_some() {
            return Err(Reason::Ipv6Extension);
        }
        // Routing type 0 (RFC 5095), seen as soon as its byte is there.
        if next == 43 && rest.get(2) == Some(&0) {
            return Err(Reason::Ipv6Extension);
        }
        let length = match (next, rest) {
            (44, _) => Some(8),
            (51, [_, words, ..]) => Some((usize::from(*words) + 2) * 4),
            (_, [_, units, ..]) => Some((usize::from(*units) + 1) * 8),
            _ => None,
        };
        let Some(header) = length.and_then(|length| rest.get(..length)) else {
            return match fragment {
                // RFC 7112: all headers are in the first fragment.
                Some((0, true)) => Err(Reason::Ipv6Extension),
                _ => Ok(hidden(Reason::UnreadableL4, part)),
            };
        };
        if next == 44 {
            let field = u16::from_be_bytes([header[2], header[3]]);
            let (offset, more) = (field / 8, field % 2 == 1);
            fragment = Some((offset, more));
            part = (offset != 0 || more).then(|| Fragment {
                first: offset == 0,
                id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                protocol: header[0],
            });
            if offset != 0 {
                // The rest is the middle of something.
                return match header[0] {
                    44 => Err(Reason::Ipv6Extension),
                    next if is_extension(next) => Ok(hidden(Reason::Fragment, part)),
                    protocol => Ok(Chain {
                        protocol: Some(protocol),
                        l4: l4(protocol, &rest[8..], offset, more)?,
                        fragment: part,
                        rest: &rest[8..],
                    }),
                };
            }
        }
        next = header[0];
        rest = &rest[header.len()..];
    }
    let (offset, more) = fragment.unwrap_or((0, false));
    Ok(Chain {
        protocol: Some(next),
        l4: l4(next, rest, offset, more)?,
        fragment: part,
        rest,
    })
}

/// The L4 header at the beginning of `bytes`, which end where the IP packet
/// ends; `Err` where the packet is to be dropped whatever the rules say.
fn l4(protocol: u8, bytes: &[u8], offset: u16, more: bool) -> Result<L4, Reason> {
    if offset != 0 {
        // RFC 3128: such a fragment would rewrite the flags of the TCP header.
        return if protocol == TCP && offset == 1 {
            Err(Reason::TinyFragment)
        } else {
            Ok(L4::Absent(Reason::Fragment))
        };
    }
    let needed = match protocol {
        6 => 20,
        17 | 136 | 1 | 58 => 8,
        132 => 12,
        _ => return Ok(L4::Other),
    };
    if bytes.len() < needed {
        // RFC 1858: a first fragment too small to be judged.
        return if more {
            Err(Reason::TinyFragment)
        } else {
            Ok(L4::Absent(Reason::UnreadableL4))
        };
    }
    Ok(l4_fields(protocol, bytes))
}

/// What rules ask about, of 4 bytes of a header or more.
fn l4_fields(protocol: u8, bytes: &[u8]) -> L4 {
    match protocol {
        1 | 58 => L4::Icmp {
            kind: bytes[0],
            code: bytes[1],
        },
        6 | 17 | 136 | 132 => L4::Ports {
            source: u16::from_be_bytes([bytes[0], bytes[1]]),
            destination: u16::from_be_bytes([bytes[2], bytes[3]]),
        },
        _ => L4::Other,
    }
}
