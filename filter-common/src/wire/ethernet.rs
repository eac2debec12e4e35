//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use network_types::eth::{EthHdr, EtherType};
use network_types::vlan::VlanHdr;

/// Bytes of an Ethernet header.
pub const HEADER: usize = EthHdr::LEN;
/// Where the Ethertype stands in the header.
pub const ETHERTYPE: usize = core::mem::offset_of!(EthHdr, ether_type);
/// Bytes that a tag adds: 2 of tag control, 2 of the next Ethertype.
pub const TAG: usize = VlanHdr::LEN;
/// Tags that are looked through. Deeper stacks are dropped.
pub const MAX_TAGS: usize = 2;
/// Values up to this are a length: an 802.3 frame with an LLC header.
pub const MAX_LENGTH: u16 = 1500;

/// IPv4.
pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
/// IPv6.
pub const IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
/// ARP (RFC 826).
pub const ARP: u16 = u16::from_be(EtherType::Arp as u16);
/// MAC security (IEEE 802.1AE).
pub const MACSEC: u16 = 0x88e5;
/// MPLS unicast (RFC 3032).
pub const MPLS_UNICAST: u16 = 0x8847;
/// MPLS multicast, or upstream-assigned (RFC 5332).
pub const MPLS_MULTICAST: u16 = 0x8848;
/// `PPPoE` session stage (RFC 2516).
pub const PPPOE_SESSION: u16 = 0x8864;

/// Whether a VLAN tag follows: 802.1Q, 802.1ad, and the TPID that switches
/// used for stacked tags before 802.1ad.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}
