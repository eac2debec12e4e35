//! Transport headers: TCP (RFC 9293), UDP (RFC 768), UDP-Lite (RFC 3828),
//! SCTP (RFC 9260), ICMP (RFC 792), ICMPv6 (RFC 4443).

use core::mem::size_of;

use network_types::icmp::{Icmpv4Hdr, Icmpv6Hdr};
use network_types::ip::IpProto;
use network_types::sctp::SctpHdr;
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

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

/// Whether this is TCP or UDP, asked in one: in traffic of both each question
/// by itself would be a jump that can't be foreseen.
#[inline(always)]
#[must_use]
pub const fn is_tcp_or_udp(protocol: u8) -> bool {
    const BOTH: u64 = 1 << TCP | 1 << UDP;
    protocol < 64 && BOTH >> (protocol & 63) & 1 == 1
}

/// 0 where this is TCP, 1 where it is UDP: without a jump, likewise.
#[inline(always)]
#[must_use]
pub const fn tcp_or_udp(protocol: u8) -> u32 {
    protocol as u32 >> 4
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_and_udp_are_told_apart_without_jumps() {
        for protocol in 0..=u8::MAX {
            let expected = protocol == TCP || protocol == UDP;
            assert_eq!(is_tcp_or_udp(protocol), expected);
        }
        assert_eq!((tcp_or_udp(TCP), tcp_or_udp(UDP)), (0, 1));
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
