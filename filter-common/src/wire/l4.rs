//! Transport headers: TCP (RFC 9293), UDP (RFC 768), UDP-Lite (RFC 3828),
//! SCTP (RFC 9260), ICMP (RFC 792), ICMPv6 (RFC 4443).

use core::mem::size_of;

use network_types::icmp::{Icmpv4Hdr, Icmpv6Hdr};
use network_types::ip::IpProto;
use network_types::sctp::SctpHdr;
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use super::ip;

/// TCP.
pub const TCP: u8 = IpProto::Tcp as u8;
/// UDP.
pub const UDP: u8 = IpProto::Udp as u8;
/// UDP-Lite.
pub const UDP_LITE: u8 = IpProto::UdpLite as u8;
/// SCTP.
pub const SCTP: u8 = IpProto::Sctp as u8;
/// ICMP.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// ICMPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
/// IGMP (no ports, no type that a rule asks for).
pub const IGMP: u8 = IpProto::Igmp as u8;

/// Destination port, in every protocol that has ports.
pub const DESTINATION_PORT: usize = 2;

/// The flags of TCP (one byte): FIN, SYN, RST, PSH, ACK, … from the lowest bit on.
pub const TCP_FLAGS: usize = 13;
/// FIN, in [`TCP_FLAGS`].
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 1 << 1;
/// RST.
pub const RST: u8 = 1 << 2;
/// ACK.
pub const ACK: u8 = 1 << 4;

/// The identifier of an ICMP echo (2 bytes), of both versions.
pub const ECHO_IDENTIFIER: usize = 4;
/// The packet that an ICMP error is about, behind the error's header.
pub const EMBEDDED: usize = 8;
/// The type of an echo request of ICMP (RFC 792).
pub const ECHO_REQUEST: u8 = 8;
/// Its reply.
pub const ECHO_REPLY: u8 = 0;
/// The type of an echo request of ICMPv6 (RFC 4443).
pub const ECHO_REQUEST_V6: u8 = 128;
/// Its reply.
pub const ECHO_REPLY_V6: u8 = 129;

/// The selector (type << 8 | code) of the echo reply to a request, or the other
/// way round; any other is left as it is. No type of one version is an echo in
/// the other.
#[inline(always)]
#[must_use]
pub const fn echo_reversed(selector: u16) -> u16 {
    let code = selector & 0xff;
    let kind = match (selector >> 8) as u8 {
        ECHO_REQUEST => ECHO_REPLY,
        ECHO_REPLY => ECHO_REQUEST,
        ECHO_REQUEST_V6 => ECHO_REPLY_V6,
        ECHO_REPLY_V6 => ECHO_REQUEST_V6,
        other => other,
    };
    (kind as u16) << 8 | code
}

/// Bytes of the header that must be in the packet before its ports, or type
/// and code, are believed; 0 where rules can't ask about the header.
#[inline(always)]
#[must_use]
pub const fn header(protocol: u8) -> usize {
    match protocol {
        TCP => TcpHdr::LEN,
        UDP | UDP_LITE => UdpHdr::LEN,
        SCTP => size_of::<SctpHdr>(),
        ICMP => Icmpv4Hdr::LEN,
        ICMPV6 => Icmpv6Hdr::LEN,
        _ => 0,
    }
}

/// Whether the header has ports (and not a type and a code).
#[inline(always)]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDP_LITE | SCTP)
}

/// What rules ask of a header that begins with this word: source port << 16 |
/// destination port, or type << 8 | code; 0 where they can't ask.
#[inline(always)]
#[must_use]
pub const fn fields(protocol: u8, word: u32) -> u32 {
    if has_ports(protocol) {
        word
    } else if header(protocol) != 0 {
        word >> 16
    } else {
        0
    }
}

/// The header of a protocol in one word, for which no question is asked of the
/// protocol: in mixed traffic each would be a jump that can't be foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub u32);

impl Shape {
    /// Beside it: an IPv6 packet has no L4 header here yet.
    const EXTENSION: u32 = 1 << 16;

    /// That of a protocol.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most 20 bytes")]
    pub const fn of(protocol: u8) -> Self {
        let shift = if has_ports(protocol) {
            0
        } else if header(protocol) != 0 {
            u16::BITS
        } else {
            u32::BITS
        };
        let extension = if ip::v6::is_extension(protocol) {
            Self::EXTENSION
        } else {
            0
        };
        Self(shift | (header(protocol) as u32) << 8 | extension)
    }

    /// [`header`].
    #[inline(always)]
    #[must_use]
    pub const fn header(self) -> usize {
        (self.0 >> 8) as usize & 0xff
    }

    /// [`fields`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a word was shifted right")]
    pub const fn fields(self, word: u32) -> u32 {
        ((word as u64) >> (self.0 & 0x3f)) as u32
    }

    /// Whether the protocol is an extension header of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn is_extension(self) -> bool {
        self.0 & Self::EXTENSION != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_the_header_in_one_word() {
        for protocol in 0..=u8::MAX {
            let shape = Shape::of(protocol);
            assert_eq!(shape.header(), header(protocol));
            assert_eq!(shape.is_extension(), ip::v6::is_extension(protocol));
            for word in [0, 1, 0x1234_5678, 0x8000_8000, u32::MAX] {
                assert_eq!(shape.fields(word), fields(protocol, word));
            }
        }
    }

    #[test]
    fn headers_have_the_lengths_of_the_standards() {
        let lengths = [TCP, UDP, UDP_LITE, SCTP, ICMP, ICMPV6, IGMP].map(header);
        assert_eq!(lengths, [20, 8, 8, 12, 8, 8, 0]);
        assert_eq!(
            [TCP, UDP, UDP_LITE, SCTP, ICMP, ICMPV6],
            [6, 17, 136, 132, 1, 58]
        );
    }
}
