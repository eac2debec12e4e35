//! One packet of a measurement: addresses, protocol, ports, as the bytes of a
//! frame that every filter, and the kernel's own stack, takes for valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet, IPv4 and TCP.
pub const V4_HEADER: usize = 54;
/// Ethernet, IPv6 and TCP.
pub const V6_HEADER: usize = 74;
/// The shortest frame on the wire, without its FCS.
pub const V4_FRAME: usize = 60;
/// The shortest frame that holds [`V6_HEADER`] as the shim writes it.
pub const V6_FRAME: usize = 80;

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same IP version.
    pub dst: IpAddr,
    /// Protocol number.
    pub proto: u8,
    /// Source port; nothing where the protocol has none.
    pub sport: u16,
    /// Destination port; ICMP type and code.
    pub dport: u16,
}

impl Flow {
    /// Writes the frame over `frame`, whose length it takes.
    ///
    /// # Panics
    ///
    /// Where `frame` is shorter than [`V4_FRAME`], or [`V6_FRAME`] of IPv6.
    pub fn write(&self, frame: &mut [u8]) {
        frame.fill(0);
        frame[..6].copy_from_slice(&DESTINATION);
        frame[6..12].copy_from_slice(&SOURCE);
        let l4 = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                write_v4(frame, self.proto, src, dst);
                34
            }
            (src, dst) => {
                write_v6(frame, self.proto, v6(src), v6(dst));
                54
            }
        };
        let length = u16::try_from(frame.len() - l4).unwrap_or(u16::MAX);
        let payload = &mut frame[l4..];
        if matches!(self.proto, 1 | 58) {
            payload[..2].copy_from_slice(&self.dport.to_be_bytes());
        } else {
            payload[..2].copy_from_slice(&self.sport.to_be_bytes());
            payload[2..4].copy_from_slice(&self.dport.to_be_bytes());
        }
        match self.proto {
            // SYN, five words of header.
            6 => payload[12..14].copy_from_slice(&[0x50, 0x02]),
            17 => payload[4..6].copy_from_slice(&length.to_be_bytes()),
            _ => {}
        }
    }
}

/// Locally administered addresses; what receives live frames has the first.
pub const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// What sends them.
pub const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}

fn write_v4(frame: &mut [u8], proto: u8, src: Ipv4Addr, dst: Ipv4Addr) {
    let length = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let header = &mut frame[14..34];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    // Don't fragment.
    header[6] = 0x40;
    header[8] = 64;
    header[9] = proto;
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    let mut sum: u32 = header
        .as_chunks()
        .0
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(sum).unwrap_or(0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn write_v6(frame: &mut [u8], proto: u8, src: Ipv6Addr, dst: Ipv6Addr) {
    let length = u16::try_from(frame.len() - 54).unwrap_or(u16::MAX);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    let header = &mut frame[14..54];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = proto;
    header[7] = 64;
    header[8..24].copy_from_slice(&src.octets());
    header[24..40].copy_from_slice(&dst.octets());
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn flow(src: &str, dst: &str, proto: u8) -> Flow {
        Flow {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto,
            sport: 40_000,
            dport: 443,
        }
    }

    /// As another parser reads it, checksum and lengths included.
    #[test]
    fn frames_are_valid() {
        for (flow, length) in [
            (flow("192.0.2.1", "198.51.100.255", 6), V4_FRAME),
            (flow("255.255.255.255", "255.254.253.252", 17), 1_500),
            (flow("2001:db8::1", "2001:db8:ffff::2", 17), V6_FRAME),
            (flow("2001:db8::1", "::", 6), 1_500),
        ] {
            let mut frame = vec![0xee; length];
            flow.write(&mut frame);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.calc_header_checksum(), header.header_checksum);
                    assert_eq!(usize::from(header.total_len), length - 14);
                    assert_eq!(IpAddr::from(header.source), flow.src);
                    assert_eq!(IpAddr::from(header.destination), flow.dst);
                }
                NetSlice::Ipv6(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(usize::from(header.payload_length), length - 54);
                    assert_eq!(IpAddr::from(header.source), flow.src);
                    assert_eq!(IpAddr::from(header.destination), flow.dst);
                }
                NetSlice::Arp(_) => panic!("not IP"),
            }
            let ports = match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
                TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
                other => panic!("{other:?}"),
            };
            assert_eq!(ports, (40_000, 443));
        }
    }

    #[test]
    fn icmp_has_a_type_and_a_code() {
        let mut frame = [0; V4_FRAME];
        Flow {
            dport: 0x0304,
            ..flow("192.0.2.1", "192.0.2.2", 1)
        }
        .write(&mut frame);
        assert_eq!(frame[34..36], [3, 4]);
    }
}
