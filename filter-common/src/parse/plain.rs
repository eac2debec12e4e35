//! Plain frames, in which most packets come: an untagged packet with its L4
//! header, in IPv4 without options or fragmentation or in IPv6 without
//! extension headers. Each field has one place, so reading them takes no
//! decision but whether the frame is one.
//!
//! Whatever is not as expected is no plain frame, and left to [`super::parse`],
//! which gives the same key for those that are.

use super::{Address, Family, Fields, Header, Key, L4, Place};
use crate::packet::Packet;
use crate::wire::l4::{self, Shape};
use crate::wire::{be16, ethernet, ip};

/// What is read of an L4 header.
const L4_BYTES: usize = l4::header(l4::UDP);
const V4_BYTES: usize = ethernet::HEADER + ip::v4::HEADER + L4_BYTES;
const V6_BYTES: usize = ethernet::HEADER + ip::v6::HEADER + L4_BYTES;

/// The IP version, if the frame may be a plain one.
#[inline(always)]
pub fn family<P: Packet>(packet: &P) -> Option<Family> {
    let frame = packet.front::<V4_BYTES>()?;
    match word(frame, ethernet::ETHERTYPE) {
        ethernet::IPV4 => Some(Family::V4),
        ethernet::IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// The key of a plain frame, and where its parts are.
#[inline(always)]
pub fn with_place<P: Packet>(
    packet: &P,
    shape: impl Fn(u8) -> Option<Shape>,
) -> Option<(Key, Place)> {
    let (key, l4) = match family(packet)? {
        Family::V4 => (ipv4(packet, shape)?, ethernet::HEADER + ip::v4::HEADER),
        Family::V6 => (ipv6(packet, shape)?, ethernet::HEADER + ip::v6::HEADER),
    };
    let frame = packet.front::<V4_BYTES>()?;
    let end = match key.family {
        Family::V4 => word(frame, ethernet::HEADER + ip::v4::TOTAL_LENGTH) as usize,
        Family::V6 => {
            let payload = word(frame, ethernet::HEADER + ip::v6::PAYLOAD_LENGTH);
            ip::v6::HEADER + payload as usize
        }
    };
    let place = Place {
        l4,
        end: ethernet::HEADER + end,
        identification: 0,
    };
    Some((key, place))
}

/// The key of a plain IPv4 frame, whose Ethertype was read. `shape` gives that of
/// the protocol's header, or `None` where it can't.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, shape: impl Fn(u8) -> Option<Shape>) -> Option<Key> {
    use ip::v4;

    const fn at(field: usize) -> usize {
        ethernet::HEADER + field
    }
    const NO_OPTIONS: u8 = 0x45;
    // As it stands in the packet.
    const FRAGMENTED: u16 = (v4::MORE_FRAGMENTS | v4::FRAGMENT_OFFSET).to_be();

    let frame = packet.front::<V4_BYTES>()?;
    let proto = frame[at(v4::PROTOCOL)];
    let total = usize::from(word(frame, at(v4::TOTAL_LENGTH)));
    let shape = shape(proto)?;
    if frame[at(v4::VERSION_IHL)] != NO_OPTIONS
        || u16::from_ne_bytes([frame[at(v4::FRAGMENT)], frame[at(v4::FRAGMENT) + 1]]) & FRAGMENTED
            != 0
        || total < v4::HEADER + shape.header()
        || !packet.has_front(ethernet::HEADER + total)
    {
        return None;
    }
    let address = |field: usize| Address {
        high: u64::from(long(frame, at(field))) << 32,
        low: 0,
    };
    Some(Key {
        family: Family::V4,
        src: address(v4::SOURCE),
        dst: address(v4::DESTINATION),
        fields: fields(
            proto,
            shape,
            long(frame, at(v4::HEADER)),
            frame[at(v4::TTL)],
        ),
    })
}

/// The same of a plain IPv6 frame.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, shape: impl Fn(u8) -> Option<Shape>) -> Option<Key> {
    use ip::v6;

    const fn at(field: usize) -> usize {
        ethernet::HEADER + field
    }

    let frame = packet.front::<V6_BYTES>()?;
    let proto = frame[at(v6::NEXT_HEADER)];
    let payload = usize::from(word(frame, at(v6::PAYLOAD_LENGTH)));
    let shape = shape(proto)?;
    if frame[at(0)] >> 4 != 6
        || shape.is_extension()
        || payload < shape.header()
        || !packet.has_front(ethernet::HEADER + v6::HEADER + payload)
    {
        return None;
    }
    let half = |field: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&frame[at(field)..at(field) + 8]);
        u64::from_be_bytes(bytes)
    };
    let address = |field: usize| Address {
        high: half(field),
        low: half(field + 8),
    };
    Some(Key {
        family: Family::V6,
        src: address(v6::SOURCE),
        dst: address(v6::DESTINATION),
        fields: fields(
            proto,
            shape,
            long(frame, at(v6::HEADER)),
            frame[at(v6::HOP_LIMIT)],
        ),
    })
}

/// The fields where the L4 header begins with this word.
#[inline(always)]
fn fields(proto: u8, shape: Shape, word: u32, hop_limit: u8) -> Fields {
    let header = Header {
        state: L4::Read,
        fields: shape.fields(word),
    };
    Fields::new(proto.into(), &header, hop_limit)
}

#[inline(always)]
const fn word(frame: &[u8], at: usize) -> u16 {
    be16([frame[at], frame[at + 1]])
}

#[inline(always)]
const fn long(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}
