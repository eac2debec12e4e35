//! Frames, byte by byte: what the tests and the demo send.
//!
//! A header is a struct whose fields are the wire's. Lengths and checksums are
//! `None` by default, which computes them; `Some` writes what is asked for, so
//! that every wrong packet can be made too. Layers are put together from the
//! inside out:
//!
//! ```
//! use tests::packet::{Ethernet, Ipv4, Tcp};
//!
//! let packet = Ipv4::default().carry(&Tcp::to(80));
//! let frame = Ethernet::default().tagged(&[0x8100]).carry(&packet);
//! assert_eq!(frame.len(), 14 + 4 + 20 + 20);
//! ```
//!
//! Nothing here depends on the filter: what tests it must not share its
//! mistakes.

mod checksum;
mod ip;
mod l4;
mod link;

pub use checksum::internet_checksum;
pub use ip::{Extension, Ipv4, Ipv6, Packet};
pub use l4::{Icmp, Icmpv6, Payload, Raw, Sctp, Tcp, Udp};
pub use link::{Arp, Ethernet, llc, mpls, pppoe, snap};

/// Ethertypes (IANA, "IEEE 802 Numbers").
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS with a label from downstream (RFC 3032, RFC 5332).
    pub const MPLS: u16 = 0x8847;
    /// MPLS with a label from upstream (RFC 5332).
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// `PPPoE` discovery (RFC 2516).
    pub const PPPOE_DISCOVERY: u16 = 0x8863;
    /// `PPPoE` session (RFC 2516).
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// Link Layer Discovery Protocol.
    pub const LLDP: u16 = 0x88cc;
    /// The service tag of switches older than 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
}

/// Protocol numbers (IANA, "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 no next header.
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// A length field; what does not fit is written as the largest.
fn length(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
