//! What flows ask of a packet.

use super::{Datagram, Direction, Tuple};
use crate::packet::Packet;
use crate::parse::{Address, Family, Key, L4, Place, UNKNOWN_PROTOCOL, plain};
use crate::wire::ip::{v4, v6};
use crate::wire::l4::Shape;
use crate::wire::{be16, l4};

/// How a packet can be part of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Either way.
    Either,
    /// Forward only: an echo request.
    Request,
    /// Back only: an echo reply.
    Reply,
}

/// A packet, as flows see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who talks to whom.
    pub tuple: Tuple,
    /// The flags of TCP; 0 for others.
    pub flags: u8,
    /// Which way it can go.
    pub role: Role,
}

impl Step {
    /// What flows see of the packet; `None` where it has no tuple.
    #[inline(always)]
    pub fn of<P: Packet>(packet: &P, key: &Key, place: &Place) -> Option<Self> {
        let fields = key.fields;
        if fields.l4() != L4::Read || fields.proto() == UNKNOWN_PROTOCOL {
            return None;
        }
        let proto = u8::try_from(fields.proto()).ok()?;
        let mut numbers = u32::from(fields.sport()) << 16 | u32::from(fields.selector());
        let mut flags = 0;
        let mut role = Role::Either;
        if proto == l4::TCP {
            let [found] = packet.read(place.l4 + l4::TCP_FLAGS)?;
            flags = found;
        } else if proto == l4::ICMP || proto == l4::ICMPV6 {
            role = echo(proto, selector_type(fields.selector()))?;
            let at = place.l4 + l4::ECHO_IDENTIFIER;
            numbers = twice(be16(packet.read(at)?));
        } else if !l4::has_ports(proto) {
            numbers = 0;
        }
        Some(Self {
            tuple: Tuple {
                src: key.src,
                dst: key.dst,
                numbers,
                kind: kind(proto, key.family),
            },
            flags,
            role,
        })
    }

    /// The same of a [plain] frame of TCP or UDP; `None` of others.
    #[inline(always)]
    pub fn of_plain<P: Packet>(packet: &P) -> Option<Self> {
        let shape = |proto: u8| match proto {
            l4::TCP => Some(const { Shape::of(l4::TCP) }),
            l4::UDP => Some(const { Shape::of(l4::UDP) }),
            _ => None,
        };
        let (key, place) = plain::with_place(packet, shape)?;
        Self::of(packet, &key, &place)
    }

    /// The packet that an ICMP error is about, if the error goes back to where
    /// that packet came from.
    #[inline(always)]
    pub fn embedded<P: Packet>(packet: &P, key: &Key, place: &Place) -> Option<Self> {
        if key.fields.l4() != L4::Read {
            return None;
        }
        let kind = selector_type(key.fields.selector());
        let is_error = match u8::try_from(key.fields.proto()).ok()? {
            l4::ICMP => matches!(kind, 3 | 11 | 12),
            l4::ICMPV6 => matches!(kind, 1..=4),
            _ => false,
        };
        if !is_error {
            return None;
        }
        let at = place.l4 + l4::EMBEDDED;
        let (src, dst, proto, header) = match key.family {
            Family::V4 => embedded_v4(packet, at)?,
            Family::V6 => embedded_v6(packet, at)?,
        };
        // As conntrack does (nf_conntrack_inet_error): an error that goes
        // elsewhere is about somebody else's packet.
        if src != key.dst {
            return None;
        }
        // RFC 792: the first 64 bits of the datagram's data.
        if header + 8 > place.end {
            return None;
        }
        let word = u64::from_be_bytes(packet.read(header)?);
        let [kind_byte, ..] = word.to_be_bytes();
        let [_, _, _, _, a, b, ..] = word.to_be_bytes();
        let (numbers, role) = match proto {
            l4::ICMP | l4::ICMPV6 => (twice(be16([a, b])), echo(proto, kind_byte)?),
            _ if l4::has_ports(proto) => ((word >> 32) as u32, Role::Either),
            _ => (0, Role::Either),
        };
        Some(Self {
            tuple: Tuple {
                src,
                dst,
                numbers,
                kind: self::kind(proto, key.family),
            },
            flags: 0,
            role,
        })
    }
}

#[inline(always)]
fn v4_address<P: Packet>(packet: &P, at: usize) -> Option<Address> {
    Some(Address {
        high: u64::from(u32::from_be_bytes(packet.read(at)?)) << 32,
        low: 0,
    })
}

#[inline(always)]
fn v6_address<P: Packet>(packet: &P, at: usize) -> Option<Address> {
    Some(Address {
        high: u64::from_be_bytes(packet.read(at)?),
        low: u64::from_be_bytes(packet.read(at + 8)?),
    })
}

/// Source, destination, protocol of an embedded packet, and where its L4 header is.
type Embedded = (Address, Address, u8, usize);

#[inline(always)]
fn embedded_v4<P: Packet>(packet: &P, at: usize) -> Option<Embedded> {
    let [version_and_length] = packet.read(at + v4::VERSION_IHL)?;
    let [proto] = packet.read(at + v4::PROTOCOL)?;
    let fragment = be16(packet.read(at + v4::FRAGMENT)?);
    let length = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || length < v4::HEADER || fragment & v4::FRAGMENT_OFFSET != 0 {
        return None;
    }
    let src = v4_address(packet, at + v4::SOURCE)?;
    let dst = v4_address(packet, at + v4::DESTINATION)?;
    Some((src, dst, proto, at + length))
}

#[inline(always)]
fn embedded_v6<P: Packet>(packet: &P, at: usize) -> Option<Embedded> {
    let [version] = packet.read(at)?;
    let [next] = packet.read(at + v6::NEXT_HEADER)?;
    if version >> 4 != 6 || v6::is_extension(next) {
        return None;
    }
    let src = v6_address(packet, at + v6::SOURCE)?;
    let dst = v6_address(packet, at + v6::DESTINATION)?;
    Some((src, dst, next, at + v6::HEADER))
}

/// The role of an echo of this type; `None` for other types.
#[inline(always)]
const fn echo(proto: u8, kind: u8) -> Option<Role> {
    match (proto, kind) {
        (l4::ICMP, l4::ECHO_REQUEST) | (l4::ICMPV6, l4::ECHO_REQUEST_V6) => Some(Role::Request),
        (l4::ICMP, l4::ECHO_REPLY) | (l4::ICMPV6, l4::ECHO_REPLY_V6) => Some(Role::Reply),
        _ => None,
    }
}

#[inline(always)]
const fn selector_type(selector: u16) -> u8 {
    selector.to_be_bytes()[0]
}

#[inline(always)]
const fn twice(number: u16) -> u32 {
    (number as u32) << 16 | number as u32
}

#[inline(always)]
const fn kind(proto: u8, family: Family) -> u32 {
    proto as u32 | (family as u32) << 8
}

/// Whether a fragment is the first one of its datagram.
#[inline(always)]
pub(super) fn is_first(key: &Key) -> bool {
    key.fields.l4() == L4::Read
}

/// The datagram that a fragment is of; `None` where its protocol is hidden.
#[inline(always)]
pub(super) fn datagram<P: Packet>(
    packet: &P,
    key: &Key,
    place: &Place,
    direction: Direction,
) -> Option<Datagram> {
    let proto = u8::try_from(key.fields.proto()).ok()?;
    let at = place.identification;
    let identification = match key.family {
        Family::V4 => u32::from(be16(packet.read(at)?)),
        Family::V6 => u32::from_be_bytes(packet.read(at)?),
    };
    let way = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1 << 16,
    };
    Some(Datagram {
        src: key.src,
        dst: key.dst,
        identification,
        kind: kind(proto, key.family) | way,
    })
}
