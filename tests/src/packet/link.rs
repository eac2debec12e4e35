//! Ethernet and what stands between it and IP.

use std::net::Ipv4Addr;

use super::ip::Packet;
use super::{ethertype, length};

/// An Ethernet header with its VLAN tags.
#[derive(Clone, Debug)]
pub struct Ethernet {
    /// Destination.
    pub dst: [u8; 6],
    /// Source.
    pub src: [u8; 6],
    /// VLAN tags, outermost first: tag protocol and tag control.
    pub tags: Vec<(u16, u16)>,
    /// The type behind the tags; the packet's if `None`.
    pub ethertype: Option<u16>,
    /// Padded with these bytes' repetition up to this length. A card sends
    /// no frame shorter than 60 bytes, but a test says what it wants.
    pub pad_to: usize,
    /// The byte to pad with.
    pub padding: u8,
}

impl Default for Ethernet {
    fn default() -> Self {
        Self {
            dst: [2, 0, 0, 0, 0, 0x10],
            src: [2, 0, 0, 0, 0, 0x01],
            tags: Vec::new(),
            ethertype: None,
            pad_to: 0,
            padding: 0,
        }
    }
}

impl Ethernet {
    /// With tags of these protocols, the first VLAN being number 100.
    #[must_use]
    pub fn tagged(mut self, protocols: &[u16]) -> Self {
        self.tags = protocols.iter().copied().zip(100..).collect();
        self
    }

    /// The frame with this packet.
    #[must_use]
    pub fn carry(&self, packet: &Packet) -> Vec<u8> {
        let mut frame = [self.dst, self.src].concat();
        for (protocol, control) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(self.ethertype.unwrap_or(packet.ethertype).to_be_bytes());
        frame.extend(&packet.bytes);
        frame.resize(frame.len().max(self.pad_to), self.padding);
        frame
    }
}

/// An ARP request (RFC 826).
#[derive(Clone, Debug)]
pub struct Arp {
    /// Who asks.
    pub sender: Ipv4Addr,
    /// Who is looked for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Packet {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x01];
        bytes.extend(self.sender.octets());
        bytes.extend([0; 6]);
        bytes.extend(self.target.octets());
        Packet {
            ethertype: ethertype::ARP,
            bytes,
        }
    }
}

/// An 802.3 frame's content: an LLC header (IEEE 802.2) of `dsap`, `ssap` and
/// "unnumbered information", then `payload`.
#[must_use]
pub fn llc(dsap: u8, ssap: u8, payload: &[u8]) -> Packet {
    let bytes = [&[dsap, ssap, 0x03], payload].concat();
    Packet {
        ethertype: length(bytes.len()),
        bytes,
    }
}

/// `packet` behind LLC and SNAP (RFC 1042) with this organisation.
#[must_use]
pub fn snap(organisation: [u8; 3], packet: &Packet) -> Packet {
    let ethertype = packet.ethertype.to_be_bytes();
    llc(
        0xaa,
        0xaa,
        &[&organisation, &ethertype[..], &packet.bytes].concat(),
    )
}

/// A `PPPoE` session frame (RFC 2516) around `payload`, with its PPP protocol
/// in two bytes, or in one if `compressed` (RFC 1661, section 6.5).
#[must_use]
pub fn pppoe(protocol: u16, compressed: bool, payload: &[u8]) -> Packet {
    let protocol = protocol.to_be_bytes();
    let protocol = &protocol[usize::from(compressed)..];
    let mut bytes = vec![0x11, 0, 0, 1];
    bytes.extend(length(protocol.len() + payload.len()).to_be_bytes());
    bytes.extend(protocol);
    bytes.extend(payload);
    Packet {
        ethertype: ethertype::PPPOE_SESSION,
        bytes,
    }
}

/// `payload` behind a stack of MPLS labels (RFC 3032), the last of which is
/// the bottom.
#[must_use]
pub fn mpls(labels: &[u32], payload: &[u8]) -> Packet {
    let mut bytes = Vec::new();
    for (index, label) in labels.iter().enumerate() {
        let bottom = u32::from(index + 1 == labels.len());
        bytes.extend((label << 12 | bottom << 8 | 64).to_be_bytes());
    }
    bytes.extend(payload);
    Packet {
        ethertype: ethertype::MPLS,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ipv4, Udp};
    use super::*;

    #[test]
    fn tags_stand_between_addresses_and_type() {
        let packet = Packet::new(0x88cc, b"lldp");
        let frame = Ethernet::default().tagged(&[0x88a8, 0x8100]).carry(&packet);
        assert_eq!(
            frame[12..],
            [
                0x88, 0xa8, 0, 100, 0x81, 0, 0, 101, 0x88, 0xcc, b'l', b'l', b'd', b'p'
            ]
        );
    }

    #[test]
    fn padding_is_behind_everything() {
        let frame = Ethernet {
            pad_to: 60,
            padding: 7,
            ethertype: Some(0x1234),
            ..Ethernet::default()
        }
        .carry(&Packet::new(0, &[1]));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[12..16], [0x12, 0x34, 1, 7]);
    }

    #[test]
    fn wrappings() {
        let packet = Ipv4::default().carry(&Udp::to(53));
        let wrapped = snap([0, 0, 0xf8], &packet);
        assert_eq!(usize::from(wrapped.ethertype), wrapped.bytes.len());
        assert_eq!(wrapped.bytes[..9], [0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0, 0x45]);
        let wrapped = pppoe(0x21, false, &packet.bytes);
        assert_eq!(wrapped.bytes[..9], [0x11, 0, 0, 1, 0, 38, 0, 0x21, 0x45]);
        let wrapped = pppoe(0x21, true, &packet.bytes);
        assert_eq!(wrapped.bytes[..8], [0x11, 0, 0, 1, 0, 37, 0x21, 0x45]);
        let wrapped = mpls(&[16, 17], &packet.bytes);
        assert_eq!(wrapped.bytes[..9], [0, 1, 0, 64, 0, 1, 0x11, 64, 0x45]);
    }

    #[test]
    fn arp_is_28_bytes() {
        let arp = Arp {
            sender: [192, 0, 2, 1].into(),
            target: [192, 0, 2, 10].into(),
        };
        let bytes = arp.packet().bytes;
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[24..], [192, 0, 2, 10]);
    }
}
