//! Frames in which IP may hide behind another link-layer header: LLC/SNAP,
//! `PPPoE` and MPLS. Only whether IP is inside is of interest.

use super::{be16, ethernet};
use crate::packet::Packet;

/// LLC service access point of IP (IEEE 802, RFC 1042's forerunner).
const SAP_IP: u8 = 0x06;
/// LLC and SNAP: DSAP, SSAP, control, OUI, then an Ethertype.
const SNAP_ETHERTYPE: usize = 6;
/// Bytes of `PPPoE` before the PPP protocol (RFC 2516).
const PPPOE_HEADER: usize = 6;
/// PPP protocols (RFC 1332, 5072, 3032).
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const PPP_MPLS_UNICAST: u16 = 0x0281;
const PPP_MPLS_MULTICAST: u16 = 0x0283;
/// MPLS labels that are looked through.
const MAX_LABELS: usize = 8;
const LABEL: usize = 4;
/// The "bottom of stack" bit, in a label's third byte (RFC 3032).
const BOTTOM: u8 = 0x01;

/// Whether the LLC header at `offset` announces IP, or another wrapper that
/// could hold it. Too short to tell is no.
#[inline(always)]
pub fn llc_holds_ip<P: Packet>(packet: &P, offset: usize) -> bool {
    let Some([dsap, ssap]) = packet.read(offset) else {
        return false;
    };
    if dsap == SAP_IP || ssap == SAP_IP {
        return true;
    }
    if dsap != 0xaa || ssap != 0xaa {
        return false;
    }
    // RFC 1042's OUI, or 802.1H's for bridged Ethernet.
    let Some([0x03, 0, 0, 0x00 | 0xf8]) = packet.read(offset + 2) else {
        return false;
    };
    let Some(ethertype) = packet.read(offset + SNAP_ETHERTYPE).map(be16) else {
        return false;
    };
    matches!(
        ethertype,
        ethernet::IPV4
            | ethernet::IPV6
            | ethernet::PPPOE_SESSION
            | ethernet::MPLS_UNICAST
            | ethernet::MPLS_MULTICAST
    ) || ethernet::is_tag(ethertype)
}

/// Whether the `PPPoE` session frame whose header is at `offset` carries IP or
/// MPLS. Too short to tell is yes.
#[inline(always)]
pub fn pppoe_holds_ip<P: Packet>(packet: &P, offset: usize) -> bool {
    let at = offset + PPPOE_HEADER;
    let Some([first]) = packet.read(at) else {
        return true;
    };
    // An odd first byte is a protocol field compressed to that byte
    // (RFC 1661, 6.5).
    let protocol = if first & 1 == 1 {
        u16::from(first)
    } else {
        match packet.read(at).map(be16) {
            Some(protocol) => protocol,
            None => return true,
        }
    };
    matches!(
        protocol,
        PPP_IPV4 | PPP_IPV6 | PPP_MPLS_UNICAST | PPP_MPLS_MULTICAST
    )
}

/// Whether what is below the MPLS label stack at `offset` looks like IP. Too
/// deep or too short to tell is yes.
#[inline(always)]
pub fn mpls_holds_ip<P: Packet>(packet: &P, offset: usize) -> bool {
    let mut at = offset;
    for _ in 0..MAX_LABELS {
        let Some([_, _, flags, _]) = packet.read::<LABEL>(at) else {
            return true;
        };
        at += LABEL;
        if flags & BOTTOM != 0 {
            // There is no protocol field: the version nibble is what routers
            // go by (RFC 4928).
            return match packet.read(at) {
                Some([first]) => matches!(first >> 4, 4 | 6),
                None => true,
            };
        }
    }
    true
}
