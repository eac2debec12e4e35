//! Frames from the client to the node, with right checksums: without them the
//! IP stack, not the filter, would drop what passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Side;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The transport layer of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Segment {
    /// A SYN to this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
    /// The rest of a UDP datagram whose header was in an earlier fragment.
    UdpRest,
}

impl Segment {
    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp(_) => TCP,
            Self::Udp(_) | Self::UdpRest => UDP,
        }
    }

    /// Its bytes, from `sport`.
    fn bytes(self, sport: u16, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let sport = sport.to_be_bytes();
        let (mut bytes, checksum_at) = match self {
            Self::UdpRest => return vec![0x55; 32],
            Self::Tcp(port) => {
                let mut header = [&sport, &port.to_be_bytes()[..], &[0; 8]].concat();
                // Five words of header, SYN, window; checksum, urgent pointer.
                header.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
                (header, 16)
            }
            Self::Udp(port) => {
                let payload = b"flood flood flood ";
                let length = length(8 + payload.len());
                let header = [&sport, &port.to_be_bytes()[..], &length, &[0, 0]].concat();
                ([&header[..], payload].concat(), 6)
            }
        };
        let mut pseudo = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => [src.octets(), dst.octets()].concat(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => [src.octets(), dst.octets()].concat(),
            _ => Vec::new(),
        };
        pseudo.extend([0, self.protocol()]);
        pseudo.extend(length(bytes.len()));
        let checksum = checksum(&[&pseudo, &bytes].map(|part| &part[..]).concat());
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
        bytes
    }
}

/// An IPv4 packet from `198.51.100.<source>`, with `options` (whole words) and the fragment field.
#[must_use]
pub fn v4(source: u8, options: &[u8], fragment: u16, segment: Segment) -> Vec<u8> {
    let (src, dst) = (Ipv4Addr::new(198, 51, 100, source), Side::Node.v4());
    let payload = segment.bytes(sport(source), src.into(), dst.into());
    let header_length = 20 + options.len();
    let words = u8::try_from(header_length / 4).unwrap_or(15);
    let mut header = vec![0x40 | words, 0];
    header.extend(length(header_length + payload.len()));
    header.extend([0, source]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, segment.protocol(), 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    header.extend(options);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    ethernet(&[], 0x0800, &[header, payload].concat())
}

/// An IPv6 packet from `2001:db8:f::<source>`, with an empty hop-by-hop header if `hop_by_hop`.
#[must_use]
pub fn v6(source: u8, hop_by_hop: bool, segment: Segment) -> Vec<u8> {
    let src = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, source.into());
    let dst = Side::Node.v6();
    let mut payload = segment.bytes(sport(source), src.into(), dst.into());
    let mut next = segment.protocol();
    if hop_by_hop {
        // Eight bytes, of which six are one padding option.
        payload.splice(..0, [next, 0, 1, 4, 0, 0, 0, 0]);
        next = 0;
    }
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length(payload.len()));
    header.extend([next, 64]);
    header.extend(src.octets());
    header.extend(dst.octets());
    ethernet(&[], 0x86dd, &[header, payload].concat())
}

/// `frame` behind VLAN tags of these types.
#[must_use]
pub fn tagged(tags: &[u16], frame: &[u8]) -> Vec<u8> {
    let inner = u16::from_be_bytes([frame[12], frame[13]]);
    ethernet(tags, inner, &frame[14..])
}

fn ethernet(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [Side::Node.mac(), Side::Client.mac()].concat();
    for (tag, vlan) in tags.iter().zip(100_u16..) {
        frame.extend(tag.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    // What a network card would not send shorter.
    frame.resize(frame.len().max(60), 0);
    frame
}

fn sport(source: u8) -> u16 {
    40_000 + u16::from(source)
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or(0);
    (!folded).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksummed_header_sums_to_nothing() {
        let frame = v4(7, &[1; 8], 0, Segment::Udp(30080));
        assert_eq!(checksum(&frame[14..14 + 28]), [0, 0]);
        assert_eq!(frame[14], 0x47);
    }

    #[test]
    fn tags_stand_before_the_packet() {
        let plain = v6(1, false, Segment::Tcp(80));
        let frame = tagged(&[0x88a8, 0x8100], &plain);
        assert_eq!(
            frame[12..22],
            [0x88, 0xa8, 0, 100, 0x81, 0, 0, 101, 0x86, 0xdd]
        );
        assert_eq!(frame[22..], plain[14..]);
    }
}
