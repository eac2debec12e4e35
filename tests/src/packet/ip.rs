//! IPv4 and IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::internet_checksum;
use super::l4::Payload;
use super::{ethertype, length, protocol};

/// What an Ethernet frame carries: a type and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The Ethertype in front of it.
    pub ethertype: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// These bytes behind this Ethertype.
    #[must_use]
    pub fn new(ethertype: u16, bytes: &[u8]) -> Self {
        Self {
            ethertype,
            bytes: bytes.to_vec(),
        }
    }

    /// Only its first `length` bytes; no header is corrected.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }
}

/// An IPv4 header (RFC 791).
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// 4.
    pub version: u8,
    /// The header's length in 32-bit words; computed if `None`.
    pub ihl: Option<u8>,
    /// The length of header and payload; computed if `None`.
    pub total_length: Option<u16>,
    /// Identification.
    pub id: u16,
    /// "Don't fragment".
    pub dont_fragment: bool,
    /// "More fragments".
    pub more_fragments: bool,
    /// Where the payload belongs in the datagram, in units of 8 bytes.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// The protocol; the payload's if `None`.
    pub protocol: Option<u8>,
    /// The header's checksum; computed if `None`.
    pub checksum: Option<u16>,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Options; padded to whole words.
    pub options: Vec<u8>,
    /// Only so many bytes of the payload: what a short packet, or a fragment,
    /// has of it. Its checksum is of all of it.
    pub payload: std::ops::Range<usize>,
}

impl Default for Ipv4 {
    fn default() -> Self {
        Self {
            version: 4,
            ihl: None,
            total_length: None,
            id: 7,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: None,
            checksum: None,
            src: Ipv4Addr::new(203, 0, 113, 7),
            dst: Ipv4Addr::new(192, 0, 2, 10),
            options: Vec::new(),
            payload: 0..usize::MAX,
        }
    }
}

impl Ipv4 {
    /// From this source.
    #[must_use]
    pub fn from(src: Ipv4Addr) -> Self {
        Self {
            src,
            ..Self::default()
        }
    }

    /// A fragment that begins at `offset` units of 8 bytes and says whether
    /// `more` follow. Holds all of the payload it is given.
    #[must_use]
    pub fn fragment(offset: u16, more: bool) -> Self {
        Self {
            fragment_offset: offset,
            more_fragments: more,
            ..Self::default()
        }
    }

    /// The packet with this payload.
    #[must_use]
    pub fn carry(&self, payload: &dyn Payload) -> Packet {
        let protocol = self.protocol.unwrap_or(payload.protocol());
        let body = payload.bytes(&|length| self.pseudo_header(payload.protocol(), length));
        let body = part(&body, &self.payload);

        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let ihl = self.ihl.unwrap_or(u8::try_from(header / 4).unwrap_or(15));
        let total = self.total_length.unwrap_or(length(header + body.len()));
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;

        let mut bytes = vec![self.version << 4 | ihl & 0x0f, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend((flags | self.fragment_offset & 0x1fff).to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(options);
        let checksum = self
            .checksum
            .unwrap_or_else(|| internet_checksum(&[&bytes]));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(body);
        Packet {
            ethertype: ethertype::IPV4,
            bytes,
        }
    }

    /// RFC 9293, section 3.1.
    fn pseudo_header(&self, protocol: u8, upper: usize) -> Vec<u8> {
        let mut bytes = [self.src.octets(), self.dst.octets()].concat();
        bytes.extend([0, protocol]);
        bytes.extend(length(upper).to_be_bytes());
        bytes
    }
}

/// An IPv6 header (RFC 8200) with its extension headers.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// 6.
    pub version: u8,
    /// The length of extension headers and payload; computed if `None`.
    pub payload_length: Option<u16>,
    /// Hop limit.
    pub hop_limit: u8,
    /// What the last header says comes next; the payload's number if `None`.
    pub protocol: Option<u8>,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// The extension headers, in order.
    pub extensions: Vec<Extension>,
    /// Only so many bytes of the payload: what a short packet, or a fragment,
    /// has of it. Its checksum is of all of it.
    pub payload: std::ops::Range<usize>,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Self {
            version: 6,
            payload_length: None,
            hop_limit: 64,
            protocol: None,
            src: Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7),
            dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10),
            extensions: Vec::new(),
            payload: 0..usize::MAX,
        }
    }
}

impl Ipv6 {
    /// From this source.
    #[must_use]
    pub fn from(src: Ipv6Addr) -> Self {
        Self {
            src,
            ..Self::default()
        }
    }

    /// With these extension headers.
    #[must_use]
    pub fn with(extensions: impl Into<Vec<Extension>>) -> Self {
        Self {
            extensions: extensions.into(),
            ..Self::default()
        }
    }

    /// The packet with this payload.
    #[must_use]
    pub fn carry(&self, payload: &dyn Payload) -> Packet {
        let last = self.protocol.unwrap_or(payload.protocol());
        let body = payload.bytes(&|length| self.pseudo_header(payload.protocol(), length));

        let mut chain = Vec::new();
        for (index, extension) in self.extensions.iter().enumerate() {
            let next = self
                .extensions
                .get(index + 1)
                .map_or(last, |next| next.kind);
            chain.extend(extension.bytes(next));
        }
        chain.extend(part(&body, &self.payload));
        let first = self.extensions.first().map_or(last, |first| first.kind);

        let mut bytes = vec![self.version << 4, 0, 0, 0];
        let length = self.payload_length.unwrap_or(length(chain.len()));
        bytes.extend(length.to_be_bytes());
        bytes.extend([first, self.hop_limit]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(chain);
        Packet {
            ethertype: ethertype::IPV6,
            bytes,
        }
    }

    /// RFC 8200, section 8.1.
    fn pseudo_header(&self, protocol: u8, upper: usize) -> Vec<u8> {
        let mut bytes = [self.src.octets(), self.dst.octets()].concat();
        bytes.extend([0, 0]);
        bytes.extend(length(upper).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub struct Extension {
    /// Its number, as the header before it says.
    pub kind: u8,
    /// What it says comes next; the number of what does if `None`.
    pub next: Option<u8>,
    /// All behind the next-header byte, the length byte first.
    pub rest: Vec<u8>,
}

impl Extension {
    /// A header of `8 * units` bytes (RFC 8200), 1 to 256 units, zeros behind
    /// its length.
    #[must_use]
    pub fn units(kind: u8, units: u16) -> Self {
        let length = u8::try_from(units.max(1) - 1).unwrap_or(u8::MAX);
        let mut rest = vec![0; (usize::from(length) + 1) * 8 - 1];
        rest[0] = length;
        Self {
            kind,
            next: None,
            rest,
        }
    }

    /// Hop-by-hop options: 8 bytes, one padding option.
    #[must_use]
    pub fn hop_by_hop() -> Self {
        Self::options(protocol::HOP_BY_HOP)
    }

    /// Destination options: 8 bytes, one padding option.
    #[must_use]
    pub fn destination() -> Self {
        Self::options(protocol::DESTINATION)
    }

    fn options(kind: u8) -> Self {
        let mut options = Self::units(kind, 1);
        // PadN over the remaining six bytes.
        options.rest[1..3].copy_from_slice(&[1, 4]);
        options
    }

    /// A routing header of this type, with no segments left and one address.
    #[must_use]
    pub fn routing(kind: u8) -> Self {
        let mut routing = Self::units(protocol::ROUTING, 3);
        routing.rest[1] = kind;
        routing
    }

    /// A fragment header: `offset` in units of 8 bytes.
    #[must_use]
    pub fn fragment(offset: u16, more: bool) -> Self {
        let mut fragment = Self::units(protocol::FRAGMENT, 1);
        let field = offset << 3 | u16::from(more);
        fragment.rest[1..3].copy_from_slice(&field.to_be_bytes());
        fragment.rest[6] = 7;
        fragment
    }

    /// An authentication header (RFC 4302) with `words` words of check value:
    /// its length is counted in 32-bit words, minus 2.
    #[must_use]
    pub fn authentication(words: u8) -> Self {
        let mut rest = vec![0; 11 + usize::from(words) * 4];
        rest[0] = words + 1;
        Self {
            kind: protocol::AH,
            next: None,
            rest,
        }
    }

    /// A mobility header (RFC 6275): 8 bytes, a binding refresh request.
    #[must_use]
    pub fn mobility() -> Self {
        Self::units(protocol::MOBILITY, 1)
    }

    /// Says that something else comes next than does.
    #[must_use]
    pub fn says(mut self, next: u8) -> Self {
        self.next = Some(next);
        self
    }

    /// Says that it is this long, in its own units.
    #[must_use]
    pub fn claims(mut self, length: u8) -> Self {
        self.rest[0] = length;
        self
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        [&[self.next.unwrap_or(next)], &self.rest[..]].concat()
    }
}

fn part<'a>(bytes: &'a [u8], range: &std::ops::Range<usize>) -> &'a [u8] {
    let end = range.end.min(bytes.len());
    &bytes[range.start.min(end)..end]
}

#[cfg(test)]
mod tests {
    use super::super::{Icmp, Icmpv6, Raw, Sctp, Tcp, Udp};
    use super::*;

    /// The checksums of a packet as `tcpdump -v` verifies them: everything
    /// with its checksum sums to nothing.
    fn sums_to_nothing(pseudo: &[u8], bytes: &[u8]) {
        assert_eq!(internet_checksum(&[pseudo, bytes]), 0);
    }

    #[test]
    fn checksums_verify() {
        let v4 = Ipv4 {
            options: vec![1; 3],
            ..Ipv4::default()
        };
        let v6 = Ipv6::with([Extension::hop_by_hop()]);
        let payloads: [&dyn Payload; 5] = [
            &Tcp::to(80),
            &Tcp {
                rest: b"odd".to_vec(),
                ..Tcp::to(1)
            },
            &Udp::to(53),
            &Udp::lite_to(53),
            &Icmpv6::new(128, 0),
        ];
        for payload in payloads {
            let number = payload.protocol();
            let packet = v4.carry(payload).bytes;
            sums_to_nothing(&[], &packet[..24]);
            sums_to_nothing(&v4.pseudo_header(number, packet.len() - 24), &packet[24..]);
            let packet = v6.carry(payload).bytes;
            sums_to_nothing(&v6.pseudo_header(number, packet.len() - 48), &packet[48..]);
        }
        sums_to_nothing(&[], &v4.carry(&Icmp::new(8, 0)).bytes[24..]);
    }

    #[test]
    fn a_known_packet() {
        // An echo request, its sums added up by hand.
        let ping = Ipv4 {
            src: [192, 0, 2, 1].into(),
            dst: [192, 0, 2, 2].into(),
            id: 0,
            dont_fragment: true,
            ..Ipv4::default()
        };
        let message = Icmp {
            rest: vec![0, 1, 0, 1],
            ..Icmp::new(8, 0)
        };
        assert_eq!(
            ping.carry(&message).bytes,
            [
                0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 1, 0xb6, 0xdd, 192, 0, 2, 1, 192, 0, 2,
                2, //
                8, 0, 0xf7, 0xfd, 0, 1, 0, 1
            ]
        );
    }

    #[test]
    fn fields_are_where_the_standards_put_them() {
        let packet = Ipv4 {
            ihl: Some(3),
            total_length: Some(9),
            checksum: Some(0xabcd),
            protocol: Some(99),
            more_fragments: true,
            fragment_offset: 2,
            payload: 0..3,
            ..Ipv4::default()
        }
        .carry(&Tcp::to(80))
        .bytes;
        assert_eq!(packet[0], 0x43);
        assert_eq!(packet[2..4], [0, 9]);
        assert_eq!(packet[6..8], [0x20, 2]);
        assert_eq!(packet[9..12], [99, 0xab, 0xcd]);
        assert_eq!(packet.len(), 23);

        let packet = Ipv6::with([
            Extension::routing(4),
            Extension::fragment(3, true),
            Extension::authentication(3),
        ])
        .carry(&Sctp::to(80))
        .bytes;
        assert_eq!(packet[6], 43);
        assert_eq!(packet[40..43], [44, 2, 4]);
        assert_eq!(packet[64..68], [51, 0, 0, 3 << 3 | 1]);
        assert_eq!(packet[72..74], [132, 4]);
        // (4 + 2) words of authentication header, then SCTP's ports.
        assert_eq!(packet[72 + 24 + 2..72 + 24 + 4], [0, 80]);
        assert_eq!(usize::from(packet[5]), packet.len() - 40);
    }

    #[test]
    fn wishes_override() {
        let packet = Ipv6 {
            payload_length: Some(1),
            protocol: Some(59),
            ..Ipv6::with([Extension::destination().says(17).claims(9)])
        }
        .carry(&Raw::new(6, b"x"))
        .bytes;
        assert_eq!(packet[4..7], [0, 1, 60]);
        assert_eq!(packet[40..42], [17, 9]);
        assert_eq!(packet.last(), Some(&b'x'));
    }
}
