//! What an IP packet carries.

use super::checksum::{crc32c, internet_checksum};
use super::{length, protocol};

/// What can be carried in an IP packet.
pub trait Payload {
    /// Its number in the IP header.
    fn protocol(&self) -> u8;

    /// Its bytes. `pseudo` makes the sum of the pseudo-header of the packet
    /// around it (RFC 9293, RFC 8200) for the length of these bytes.
    fn bytes(&self, pseudo: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8>;
}

/// A TCP segment (RFC 9293).
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, from the highest bit.
    pub flags: u8,
    /// Header length in 32-bit words.
    pub data_offset: u8,
    /// The checksum; computed if `None`.
    pub checksum: Option<u16>,
    /// Options (whole words) and data.
    pub rest: Vec<u8>,
}

impl Tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// A SYN to this port.
    #[must_use]
    pub const fn to(dport: u16) -> Self {
        Self {
            sport: 51515,
            dport,
            flags: Self::SYN,
            data_offset: 5,
            checksum: None,
            rest: Vec::new(),
        }
    }
}

impl Payload for Tcp {
    fn protocol(&self) -> u8 {
        protocol::TCP
    }

    fn bytes(&self, pseudo: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        // Sequence and acknowledgement number.
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend([self.data_offset << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(&self.rest);
        fill(&mut bytes, 16, self.checksum, pseudo);
        bytes
    }
}

/// A UDP or UDP-Lite datagram (RFC 768, RFC 3828).
#[derive(Clone, Debug)]
pub struct Udp {
    /// UDP-Lite, covered wholly by its checksum.
    pub lite: bool,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// The length (for UDP-Lite: the coverage) field; computed if `None`.
    pub length: Option<u16>,
    /// The checksum; computed if `None`.
    pub checksum: Option<u16>,
    /// Data.
    pub data: Vec<u8>,
}

impl Udp {
    /// A datagram to this port.
    #[must_use]
    pub fn to(dport: u16) -> Self {
        Self {
            lite: false,
            sport: 51515,
            dport,
            length: None,
            checksum: None,
            data: b"nodewall".to_vec(),
        }
    }

    /// A UDP-Lite datagram to this port.
    #[must_use]
    pub fn lite_to(dport: u16) -> Self {
        Self {
            lite: true,
            ..Self::to(dport)
        }
    }
}

impl Payload for Udp {
    fn protocol(&self) -> u8 {
        if self.lite {
            protocol::UDP_LITE
        } else {
            protocol::UDP
        }
    }

    fn bytes(&self, pseudo: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        let length = self.length.unwrap_or(length(8 + self.data.len()));
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.data);
        fill(&mut bytes, 6, self.checksum, pseudo);
        // Zero on the wire would mean "not computed".
        if self.checksum.is_none() && bytes[6..8] == [0, 0] {
            bytes[6..8].fill(0xff);
        }
        bytes
    }
}

/// An SCTP packet (RFC 9260) with one INIT chunk.
#[derive(Clone, Debug)]
pub struct Sctp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// The CRC-32C; computed if `None`.
    pub checksum: Option<u32>,
}

impl Sctp {
    /// A packet to this port.
    #[must_use]
    pub const fn to(dport: u16) -> Self {
        Self {
            sport: 51515,
            dport,
            checksum: None,
        }
    }
}

impl Payload for Sctp {
    fn protocol(&self) -> u8 {
        protocol::SCTP
    }

    fn bytes(&self, _: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        // Verification tag, checksum; INIT of 20 bytes with its tag, window,
        // one stream each way, first number.
        bytes.extend([0; 8]);
        bytes.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let checksum = self.checksum.unwrap_or_else(|| crc32c(&bytes));
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// An ICMP message (RFC 792).
#[derive(Clone, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The checksum; computed if `None`.
    pub checksum: Option<u16>,
    /// What follows the checksum.
    pub rest: Vec<u8>,
}

impl Icmp {
    /// A message of this type and code, with four bytes behind its checksum.
    #[must_use]
    pub fn new(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            checksum: None,
            rest: vec![0, 7, 0, 1],
        }
    }
}

impl Payload for Icmp {
    fn protocol(&self) -> u8 {
        protocol::ICMP
    }

    fn bytes(&self, _: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(&self.rest);
        // No pseudo-header in ICMP.
        fill(&mut bytes, 2, self.checksum, &|_| Vec::new());
        bytes
    }
}

/// An ICMPv6 message (RFC 4443).
#[derive(Clone, Debug)]
pub struct Icmpv6 {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The checksum; computed if `None`.
    pub checksum: Option<u16>,
    /// What follows the checksum.
    pub rest: Vec<u8>,
}

impl Icmpv6 {
    /// A message of this type and code, with as much behind its checksum as
    /// neighbour solicitation has.
    #[must_use]
    pub fn new(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            checksum: None,
            rest: vec![0; 20],
        }
    }
}

impl Payload for Icmpv6 {
    fn protocol(&self) -> u8 {
        protocol::ICMPV6
    }

    fn bytes(&self, pseudo: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(&self.rest);
        fill(&mut bytes, 2, self.checksum, pseudo);
        bytes
    }
}

/// Any bytes under any protocol number.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The protocol number.
    pub protocol: u8,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Raw {
    /// These bytes under this number.
    #[must_use]
    pub fn new(protocol: u8, bytes: &[u8]) -> Self {
        Self {
            protocol,
            bytes: bytes.to_vec(),
        }
    }
}

impl Payload for Raw {
    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn bytes(&self, _: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// Writes the checksum of pseudo-header and `bytes` at `at`, where zeros are,
/// or the one that is asked for.
fn fill(bytes: &mut [u8], at: usize, wanted: Option<u16>, pseudo: &dyn Fn(usize) -> Vec<u8>) {
    let checksum = wanted.unwrap_or_else(|| internet_checksum(&[&pseudo(bytes.len()), bytes]));
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}
