//! Frame → [`Key`]: the fields that rules ask about, or why there are none.

pub mod plain;

use bytemuck::{Pod, Zeroable};

use crate::packet::Packet;
use crate::wire::{be16, ethernet, ip, l4, wrapped};

/// An IP version, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// What is known of the L4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum L4 {
    /// It was read, or the protocol has none that rules ask about.
    Read = 0,
    /// It should be there and isn't, or not wholly.
    Unreadable = 1,
    /// The packet is a later fragment: the header is elsewhere.
    LaterFragment = 2,
}

const ICMP: u16 = l4::ICMP as u16;
const ICMPV6: u16 = l4::ICMPV6 as u16;

/// The protocol where an extension chain breaks off before naming it.
pub const UNKNOWN_PROTOCOL: u16 = 256;

/// An address, or a shorter value that tables are asked for: aligned to the top
/// of 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Address {
    /// The first 64 bits; an IPv4 address in the upper half of it.
    pub high: u64,
    /// The others.
    pub low: u64,
}

/// What rules ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The IP version.
    pub family: Family,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// The rest.
    pub fields: Fields,
}

impl Key {
    /// That of a packet which goes the other way: addresses and ports change places,
    /// and an echo request becomes a reply, or the other way round. For a header
    /// that was read.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            family: self.family,
            src: self.dst,
            dst: self.src,
            fields: self.fields.reversed(),
        }
    }
}

/// The fields of a [`Key`] besides its addresses, in one word: selector, source
/// port, 2 bits of [`L4`], protocol, and from bit 48 on the hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields(usize);

const _: () = assert!(usize::BITS == 64);

#[expect(
    clippy::cast_possible_truncation,
    reason = "each takes its own bits of the word"
)]
impl Fields {
    #[inline(always)]
    fn new(proto: u16, header: &Header, hop_limit: u8) -> Self {
        Self(
            header.fields as usize
                | (header.state as usize) << 32
                | usize::from(proto) << 34
                | usize::from(hop_limit) << 48,
        )
    }

    #[inline(always)]
    const fn reversed(self) -> Self {
        const PORTS: usize = u32::MAX as usize;
        let (selector, sport) = (self.selector(), self.sport());
        let ports = match self.proto() {
            ICMP | ICMPV6 => l4::echo_reversed(selector) as usize,
            _ => sport as usize | (selector as usize) << 16,
        };
        Self(self.0 & !PORTS | ports)
    }

    /// The same fields, of which the verifier then knows nothing: it walks what
    /// follows once for all the ways that led here.
    #[inline(always)]
    fn forgotten<P: Packet>(self, packet: &P) -> Self {
        Self(packet.forget(self.0))
    }

    /// Destination port, or ICMP type << 8 | code; 0 where not [`L4::Read`]
    /// or where the protocol has neither.
    #[inline(always)]
    #[must_use]
    pub const fn selector(self) -> u16 {
        self.0 as u16
    }

    /// Source port; 0 likewise.
    #[inline(always)]
    #[must_use]
    pub const fn sport(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether [`Self::selector`] can be believed.
    #[inline(always)]
    #[must_use]
    pub const fn l4(self) -> L4 {
        match self.0 >> 32 & 3 {
            0 => L4::Read,
            1 => L4::Unreadable,
            _ => L4::LaterFragment,
        }
    }

    /// The protocol's number, or [`UNKNOWN_PROTOCOL`].
    #[inline(always)]
    #[must_use]
    pub const fn proto(self) -> u16 {
        (self.0 >> 34) as u16 & 0x1ff
    }

    /// Where the table of protocols has the entry for this one and this L4.
    #[inline(always)]
    pub(crate) const fn row(self) -> u32 {
        (self.0 >> 32) as u32 & 0x7ff
    }

    /// TTL or hop limit.
    #[inline(always)]
    #[must_use]
    pub const fn hop_limit(self) -> u8 {
        (self.0 >> 48) as u8
    }
}

/// Why a frame has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// A header contradicts itself or the frame.
    Malformed,
    /// RFC 1858, RFC 3128.
    TinyFragment,
    /// An extension chain too long, forbidden or cut by fragmentation.
    Ipv6Extension,
    /// More tags than are looked through.
    VlanDepth,
    /// IP behind a header that is not looked through.
    Encapsulated,
    /// ARP.
    Arp,
    /// Anything else that is not IP.
    NotIp,
    /// Bytes that are known to be there could not be read.
    Internal,
}

/// Where the parts of an IP packet are that rules don't ask about, as offsets in
/// the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The L4 header; where a later fragment's payload begins.
    pub l4: usize,
    /// Where the IP packet ends.
    pub end: usize,
    /// The number that all fragments of a datagram have: of 16 bits in IPv4, of 32
    /// in IPv6. 0 where the packet is no fragment.
    pub identification: usize,
}

/// What was read of a packet, put down in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sight {
    src: Address,
    dst: Address,
    fields: u64,
    family: u64,
    l4: u64,
    end: u64,
    identification: u64,
}

impl Sight {
    /// What was read.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: &Key, place: &Place) -> Self {
        Self {
            src: key.src,
            dst: key.dst,
            fields: key.fields.0 as u64,
            family: key.family as u64,
            l4: place.l4 as u64,
            end: place.end as u64,
            identification: place.identification as u64,
        }
    }

    /// The key and the places, which the verifier then knows the bounds of.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "they were smaller")]
    pub const fn seen(&self) -> (Key, Place) {
        const MAX_OFFSET: usize = 0x1_ffff;
        let key = Key {
            family: if self.family == Family::V4 as u64 {
                Family::V4
            } else {
                Family::V6
            },
            src: self.src,
            dst: self.dst,
            fields: Fields(self.fields as usize),
        };
        let place = Place {
            l4: self.l4 as usize & MAX_CHAIN,
            end: self.end as usize & MAX_OFFSET,
            identification: self.identification as usize & MAX_CHAIN,
        };
        (key, place)
    }
}

/// Bits of the offset at which IP begins.
const MAX_LINK_HEADER: usize = 0x1f;
/// Bits of the offset at which an extension header begins: eight of at most
/// 2,048 bytes stand before it.
const MAX_CHAIN: usize = 0x7fff;

/// Reads the frame from its Ethernet header on.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Key, NoKey> {
    parse_with_place(packet).map(|(key, _)| key)
}

/// The same, with where its parts are.
#[inline(always)]
pub fn parse_with_place<P: Packet>(packet: &P) -> Result<(Key, Place), NoKey> {
    let mut offset = ethernet::HEADER;
    let mut ethertype = be16(packet.read(ethernet::ETHERTYPE).ok_or(NoKey::Malformed)?);
    for _ in 0..ethernet::MAX_TAGS {
        if !ethernet::is_tag(ethertype) {
            break;
        }
        // Tag control, then the next Ethertype.
        let [_, _, high, low] = packet
            .read::<{ ethernet::TAG }>(offset)
            .ok_or(NoKey::Malformed)?;
        ethertype = be16([high, low]);
        offset += ethernet::TAG;
    }
    // Also where there is no tag: the verifier then walks the rest once.
    offset = packet.forget(offset) & MAX_LINK_HEADER;
    match ethertype {
        ethernet::IPV4 => ipv4(packet, offset),
        ethernet::IPV6 => ipv6(packet, offset),
        _ => Err(not_ip(packet, offset, ethertype)),
    }
}

#[inline(always)]
fn not_ip<P: Packet>(packet: &P, offset: usize, ethertype: u16) -> NoKey {
    let holds_ip = match ethertype {
        ethernet::ARP => return NoKey::Arp,
        tag if ethernet::is_tag(tag) => return NoKey::VlanDepth,
        0..=ethernet::MAX_LENGTH => wrapped::llc_holds_ip(packet, offset),
        ethernet::PPPOE_SESSION => wrapped::pppoe_holds_ip(packet, offset),
        ethernet::MPLS_UNICAST | ethernet::MPLS_MULTICAST => wrapped::mpls_holds_ip(packet, offset),
        _ => false,
    };
    if holds_ip {
        NoKey::Encapsulated
    } else {
        NoKey::NotIp
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, offset: usize) -> Result<(Key, Place), NoKey> {
    use ip::v4;

    let header: [u8; v4::HEADER] = packet.read(offset).ok_or(NoKey::Malformed)?;
    let field = |at: usize| be16([header[at], header[at + 1]]);
    let address = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        Address {
            high: u64::from(u32::from_be_bytes(bytes)) << 32,
            low: 0,
        }
    };

    let header_length = usize::from(header[v4::VERSION_IHL] & 0x0f) * 4;
    let total = usize::from(field(v4::TOTAL_LENGTH));
    if header[v4::VERSION_IHL] >> 4 != 4
        || header_length < v4::HEADER
        || total < header_length
        || !packet.has(offset + total)
    {
        return Err(NoKey::Malformed);
    }

    let proto = header[v4::PROTOCOL];
    let fragment = field(v4::FRAGMENT);
    let part = Part::of(
        fragment & v4::FRAGMENT_OFFSET,
        fragment & v4::MORE_FRAGMENTS != 0,
    );
    let l4 = l4(packet, proto, part, offset + header_length, offset + total)?;
    let key = Key {
        family: Family::V4,
        src: address(v4::SOURCE),
        dst: address(v4::DESTINATION),
        fields: Fields::new(proto.into(), &l4, header[v4::TTL]).forgotten(packet),
    };
    let place = Place {
        l4: offset + header_length,
        end: offset + total,
        identification: match part {
            Part::Whole => 0,
            Part::First | Part::Later { .. } => offset + v4::IDENTIFICATION,
        },
    };
    Ok((key, place))
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, offset: usize) -> Result<(Key, Place), NoKey> {
    use ip::v6;

    let header: [u8; v6::HEADER] = packet.read(offset).ok_or(NoKey::Malformed)?;
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let address = |at: usize| Address {
        high: half(at),
        low: half(at + 8),
    };
    let end = offset
        + v6::HEADER
        + usize::from(be16([
            header[v6::PAYLOAD_LENGTH],
            header[v6::PAYLOAD_LENGTH + 1],
        ]));
    if header[0] >> 4 != 6 || !packet.has(end) {
        return Err(NoKey::Malformed);
    }

    let chain = extensions(packet, header[v6::NEXT_HEADER], offset + v6::HEADER, end)?;
    let (proto, l4, at, fragment) = match chain {
        Chain::Payload {
            proto,
            part,
            at,
            fragment,
        } => (
            u16::from(proto),
            l4(packet, proto, part, at, end)?,
            at,
            fragment,
        ),
        Chain::Hidden(state) => (UNKNOWN_PROTOCOL, Header::without_fields(state), end, 0),
    };
    let key = Key {
        family: Family::V6,
        src: address(v6::SOURCE),
        dst: address(v6::DESTINATION),
        fields: Fields::new(proto, &l4, header[v6::HOP_LIMIT]).forgotten(packet),
    };
    let place = Place {
        l4: at,
        end,
        identification: match fragment {
            0 => 0,
            header => header + v6::IDENTIFICATION,
        },
    };
    Ok((key, place))
}

/// Where an extension chain leads.
enum Chain {
    /// To the payload. `fragment`: where the fragment header is; 0 where there is
    /// none, or the packet is whole.
    Payload {
        proto: u8,
        part: Part,
        at: usize,
        fragment: usize,
    },
    /// Nowhere: the protocol is not in this packet.
    Hidden(L4),
}

/// Where the walk along an extension chain is, in one word: the place of the
/// next header, its number, and what was seen before.
#[derive(Clone, Copy)]
struct Walk(u64);

impl Walk {
    /// There was a fragment header.
    const FRAGMENTED: u64 = 1 << 24;
    /// It was a first fragment's.
    const FIRST: u64 = 1 << 25;
    /// The packet may not be.
    const REFUSED: u64 = 1 << 26;
    /// Bytes that are known to be there could not be read.
    const INTERNAL: u64 = 1 << 27;
    /// The chain is cut off.
    const CUT: u64 = 1 << 28;
    /// What follows is from the middle of the payload, and the fragment's
    /// offset is in the upper half.
    const LATER: u64 = 1 << 29;
    /// All but the first two, after which the walk ends.
    const ENDS: u64 = Self::REFUSED | Self::INTERNAL | Self::CUT | Self::LATER;

    #[inline(always)]
    const fn new(next: u8, at: usize, seen: u64) -> Self {
        Self(at as u64 | (next as u64) << 16 | seen)
    }

    /// Bounded for the verifier, which knows nothing of the word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "of 15 bits")]
    const fn at(self) -> usize {
        self.0 as usize & MAX_CHAIN
    }

    #[inline(always)]
    const fn next(self) -> u8 {
        self.0.to_le_bytes()[2]
    }

    #[inline(always)]
    const fn has(self, seen: u64) -> bool {
        self.0 & seen != 0
    }

    #[inline(always)]
    const fn offset(self) -> u16 {
        let [_, _, _, _, low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Where the header of a fragment is, for what was seen of it.
    const FRAGMENT_SHIFT: u32 = 48;

    /// The place behind that shift; 0 where the packet is whole.
    #[inline(always)]
    const fn fragment(self) -> usize {
        (self.0 >> Self::FRAGMENT_SHIFT) as usize & MAX_CHAIN
    }
}

/// Walks the chain that begins with the header `next` at `at`.
#[inline(always)]
fn extensions<P: Packet>(packet: &P, next: u8, at: usize, end: usize) -> Result<Chain, NoKey> {
    use ip::v6;

    let mut walk = Walk::new(next, at, 0);
    for _ in 0..v6::MAX_EXTENSIONS {
        if !v6::is_extension(walk.next()) {
            break;
        }
        walk = Walk(packet.extension(walk.0, end as u64));
        if walk.has(Walk::ENDS) {
            break;
        }
    }
    if walk.has(Walk::INTERNAL) {
        return Err(NoKey::Internal);
    }
    let next = walk.next();
    if walk.has(Walk::CUT) {
        return Ok(Chain::Hidden(L4::Unreadable));
    }
    if walk.has(Walk::LATER) && next != v6::FRAGMENT && v6::is_extension(next) {
        return Ok(Chain::Hidden(L4::LaterFragment));
    }
    if walk.has(Walk::REFUSED) || v6::is_extension(next) {
        return Err(NoKey::Ipv6Extension);
    }
    let part = if walk.has(Walk::LATER) {
        Part::Later {
            offset: walk.offset(),
        }
    } else if walk.has(Walk::FIRST) {
        Part::First
    } else {
        Part::Whole
    };
    Ok(Chain::Payload {
        proto: next,
        part,
        at: walk.at(),
        fragment: walk.fragment(),
    })
}

/// One step of the walk along an extension chain, over a header that is one
/// (see [`Packet::extension`]).
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a place in the frame")]
pub fn extension<P: Packet>(packet: &P, walk: u64, end: u64) -> u64 {
    use ip::v6;

    let (walk, end) = (Walk(walk), end as usize);
    let (next, at) = (walk.next(), walk.at());
    let header_seen = (MAX_CHAIN as u64) << Walk::FRAGMENT_SHIFT;
    let seen = walk.0 & (Walk::FRAGMENTED | Walk::FIRST | header_seen);
    let ended = |why| Walk::new(next, at, seen | why).0;

    if next == v6::FRAGMENT && walk.has(Walk::FRAGMENTED) {
        return ended(Walk::REFUSED);
    }
    // The routing type is judged even where the rest is cut off.
    if next == v6::ROUTING && at + v6::ROUTING_TYPE < end {
        match packet.read(at + v6::ROUTING_TYPE) {
            Some([0]) => return ended(Walk::REFUSED),
            Some([_]) => {}
            None => return ended(Walk::INTERNAL),
        }
    }
    let cut = if walk.has(Walk::FIRST) {
        // The chain must be whole in the first fragment (RFC 7112).
        Walk::REFUSED
    } else {
        Walk::CUT
    };
    // The shortest extension header has 8 bytes.
    if at + 8 > end {
        return ended(cut);
    }
    let Some([following, length, high, low]) = packet.read(at) else {
        return ended(Walk::INTERNAL);
    };
    let size = match next {
        v6::FRAGMENT => v6::FRAGMENT_HEADER,
        v6::AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    if at + size > end {
        return ended(cut);
    }
    let behind = at + size;
    if next != v6::FRAGMENT {
        return Walk::new(following, behind, seen).0;
    }
    let field = be16([high, low]);
    let offset = field >> 3;
    let header = (at as u64) << Walk::FRAGMENT_SHIFT;
    let seen = match (offset, field & v6::MORE_FRAGMENTS != 0) {
        (0, false) => Walk::FRAGMENTED,
        (0, true) => Walk::FRAGMENTED | Walk::FIRST | header,
        (offset, _) => Walk::FRAGMENTED | Walk::LATER | u64::from(offset) << 32 | header,
    };
    Walk::new(following, behind, seen).0
}

/// Which part of its datagram a packet is.
#[derive(Clone, Copy)]
enum Part {
    /// All of it. An atomic fragment (RFC 6946) too.
    Whole,
    /// The first fragment.
    First,
    /// A fragment from 8 × `offset` bytes on.
    Later { offset: u16 },
}

impl Part {
    #[inline(always)]
    const fn of(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            (offset, _) => Self::Later { offset },
        }
    }
}

/// What was read of an L4 header.
struct Header {
    state: L4,
    /// Source port << 16 | selector.
    fields: u32,
}

impl Header {
    #[inline(always)]
    const fn without_fields(state: L4) -> Self {
        Self { state, fields: 0 }
    }
}

/// Reads what rules ask about from the L4 header at `at`; the IP packet ends
/// at `end`, which lies in the frame.
#[inline(always)]
fn l4<P: Packet>(
    packet: &P,
    proto: u8,
    part: Part,
    at: usize,
    end: usize,
) -> Result<Header, NoKey> {
    let header = l4::header(proto);
    match part {
        // It would overwrite the flags of a TCP header (RFC 3128).
        Part::Later { offset: 1 } if proto == l4::TCP => Err(NoKey::TinyFragment),
        Part::Later { .. } => Ok(Header::without_fields(L4::LaterFragment)),
        _ if header == 0 => Ok(Header::without_fields(L4::Read)),
        Part::First if at + header > end => Err(NoKey::TinyFragment),
        Part::Whole if at + header > end => Ok(Header::without_fields(L4::Unreadable)),
        Part::First | Part::Whole => {
            // Source and destination port, or type, code and checksum.
            let word = u32::from_be_bytes(packet.read(at).ok_or(NoKey::Internal)?);
            Ok(Header {
                state: L4::Read,
                fields: l4::fields(proto, word),
            })
        }
    }
}
