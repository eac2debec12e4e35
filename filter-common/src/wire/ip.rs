//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200).

use core::mem::offset_of;

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

/// The fixed IPv4 header.
pub mod v4 {
    use super::{Ipv4Hdr, offset_of};

    /// Bytes of the header without options.
    pub const HEADER: usize = Ipv4Hdr::LEN;
    /// Version (high nibble) and header length in 4-byte words (low nibble).
    pub const VERSION_IHL: usize = offset_of!(Ipv4Hdr, vihl);
    /// Bytes of header and payload.
    pub const TOTAL_LENGTH: usize = offset_of!(Ipv4Hdr, tot_len);
    /// The number that all fragments of a datagram have.
    pub const IDENTIFICATION: usize = offset_of!(Ipv4Hdr, id);
    /// Flags (3 bits) and fragment offset in 8-byte units (13 bits).
    pub const FRAGMENT: usize = offset_of!(Ipv4Hdr, frags);
    /// Time to live.
    pub const TTL: usize = offset_of!(Ipv4Hdr, ttl);
    /// The payload's protocol.
    pub const PROTOCOL: usize = offset_of!(Ipv4Hdr, proto);
    /// Source address.
    pub const SOURCE: usize = offset_of!(Ipv4Hdr, src_addr);
    /// Destination address.
    pub const DESTINATION: usize = offset_of!(Ipv4Hdr, dst_addr);
    /// "More fragments" in the [`FRAGMENT`] field.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The fragment offset in the [`FRAGMENT`] field.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
}

/// The IPv6 header and its extension headers.
pub mod v6 {
    use super::{IpProto, Ipv6Hdr, offset_of};

    /// Bytes of the header.
    pub const HEADER: usize = Ipv6Hdr::LEN;
    /// Bytes after the header.
    pub const PAYLOAD_LENGTH: usize = offset_of!(Ipv6Hdr, payload_len);
    /// What the first extension header, or the payload, is.
    pub const NEXT_HEADER: usize = offset_of!(Ipv6Hdr, next_hdr);
    /// Hop limit.
    pub const HOP_LIMIT: usize = offset_of!(Ipv6Hdr, hop_limit);
    /// Source address.
    pub const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    /// Destination address.
    pub const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);

    /// Extension headers that are walked. A longer chain is dropped.
    pub const MAX_EXTENSIONS: usize = 8;

    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    /// Routing header.
    pub const ROUTING: u8 = IpProto::Ipv6Route as u8;
    /// Fragment header.
    pub const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = IpProto::Ah as u8;
    /// Destination options.
    pub const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
    /// Mobility header (RFC 6275).
    pub const MOBILITY: u8 = IpProto::MobilityHeader as u8;

    /// Whether `next` is an extension header that is looked through.
    #[inline(always)]
    #[must_use]
    pub const fn is_extension(next: u8) -> bool {
        matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
        )
    }

    /// The routing type, in a routing header.
    pub const ROUTING_TYPE: usize = 2;
    /// Offset (13 bits), reserved (2), "more fragments" (1) in a fragment header.
    pub const FRAGMENT_FIELD: usize = 2;
    /// The number that all fragments of a datagram have (4 bytes), likewise.
    pub const IDENTIFICATION: usize = 4;
    /// Bytes of a fragment header.
    pub const FRAGMENT_HEADER: usize = 8;
    /// "More fragments" in the [`FRAGMENT_FIELD`].
    pub const MORE_FRAGMENTS: u16 = 0x0001;
}
