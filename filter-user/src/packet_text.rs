//! Packets as people write them: `tcp 203.0.113.7:51515 > 192.0.2.10:30080`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Shown with every syntax error.
pub const EXAMPLES: &str = "\
tcp 203.0.113.7:51515 > 192.0.2.10:30080
udp [2001:db8::7]:53 > [2001:db8::10]:32767
icmp 203.0.113.7 > 192.0.2.10 type 8 code 0
icmpv6 2001:db8::7 > 2001:db8::10 type 135
proto 47 203.0.113.7 > 192.0.2.10
udp 203.0.113.7 > 192.0.2.10 frag          (a later fragment)
tcp 203.0.113.7:1 > 192.0.2.10:80 vlan 10";

/// A packet described by a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketText {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    sport: u16,
    dport: u16,
    icmp: (u8, u8),
    later_fragment: bool,
    vlan: Option<u16>,
}

/// The fields of a packet, without the headers around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The protocol's number.
    pub protocol: u8,
    /// The source.
    pub src: IpAddr,
    /// The destination, of the same IP version.
    pub dst: IpAddr,
    /// The source port, if the protocol has ports.
    pub sport: u16,
    /// The destination port, or ICMP type << 8 | code.
    pub selector: u16,
    /// Whether it is a later fragment, without an L4 header.
    pub later_fragment: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            protocol: 0,
            src: Ipv4Addr::UNSPECIFIED.into(),
            dst: Ipv4Addr::UNSPECIFIED.into(),
            sport: 0,
            selector: 0,
            later_fragment: false,
        }
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132 | 136)
}

impl fmt::Display for PacketText {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            132 => f.write_str("sctp")?,
            136 => f.write_str("udplite")?,
            1 => f.write_str("icmp")?,
            58 => f.write_str("icmpv6")?,
            other => write!(f, "proto {other}")?,
        }
        let ports = has_ports(self.protocol) && !self.later_fragment;
        for (separator, address, port) in [("", self.src, self.sport), (" >", self.dst, self.dport)]
        {
            match (address, ports) {
                (IpAddr::V4(_), true) => write!(f, "{separator} {address}:{port}")?,
                (IpAddr::V6(_), true) => write!(f, "{separator} [{address}]:{port}")?,
                (_, false) => write!(f, "{separator} {address}")?,
            }
        }
        if self.later_fragment {
            f.write_str(" frag")?;
        } else if matches!(self.protocol, 1 | 58) {
            write!(f, " type {} code {}", self.icmp.0, self.icmp.1)?;
        }
        match self.vlan {
            Some(vlan) => write!(f, " vlan {vlan}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    text: String,
    /// Characters before the word that is wrong.
    column: usize,
    message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        writeln!(f, "  {}", self.text)?;
        writeln!(f, "  {}^", " ".repeat(self.column))?;
        writeln!(f, "A packet is written like one of these:")?;
        for (index, example) in EXAMPLES.lines().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "  {example}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SyntaxError {}

/// Reads words from left to right.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    /// The next word and where it begins.
    fn peek(&self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        let start = self.at + rest.find(|c: char| !c.is_whitespace())?;
        let word = self.text[start..].split_whitespace().next()?;
        Some((start, word))
    }

    fn next(&mut self, wanted: &str) -> Result<(usize, &'a str), SyntaxError> {
        match self.peek() {
            Some((start, word)) => {
                self.at = start + word.len();
                Ok((start, word))
            }
            None => Err(self.error(
                self.text.len(),
                format!("the packet ends where {wanted} should be"),
            )),
        }
    }

    fn error(&self, at: usize, message: String) -> SyntaxError {
        SyntaxError {
            text: self.text.to_owned(),
            column: self.text[..at].chars().count(),
            message,
        }
    }

    fn number<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, SyntaxError> {
        let (start, word) = self.next(wanted)?;
        word.parse()
            .map_err(|_| self.error(start, format!("{word:?} is not {wanted}")))
    }
}

impl std::str::FromStr for PacketText {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let mut words = Words { text, at: 0 };
        let (start, word) = words.next("the protocol")?;
        let protocol = match word.to_ascii_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            "udplite" => 136,
            "icmp" => 1,
            "icmpv6" => 58,
            "proto" => words.number("a protocol number (0-255)")?,
            _ => {
                return Err(words.error(
                    start,
                    format!("{word:?} is not a protocol: tcp, udp, sctp, udplite, icmp, icmpv6 or proto NUMBER"),
                ));
            }
        };
        let ports = has_ports(protocol);
        let (src_at, src) = words.next("the source address")?;
        let (src, sport) = address(&words, src_at, src, ports)?;
        let (at, arrow) = words.next("\">\"")?;
        if arrow != ">" && arrow != "->" {
            return Err(words.error(at, format!("{arrow:?} stands where \">\" should be")));
        }
        let (dst_at, dst) = words.next("the destination address")?;
        let (dst, dport) = address(&words, dst_at, dst, ports)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(words.error(
                dst_at,
                "source and destination are of different IP versions".to_owned(),
            ));
        }

        let mut packet = Self {
            protocol,
            src,
            dst,
            sport: sport.unwrap_or(0),
            dport: dport.unwrap_or(0),
            icmp: (8, 0),
            later_fragment: false,
            vlan: None,
        };
        if protocol == 58 {
            packet.icmp = (128, 0);
        }
        while let Some((start, word)) = words.peek() {
            words.at = start + word.len();
            match word {
                "type" if matches!(protocol, 1 | 58) => {
                    packet.icmp.0 = words.number("an ICMP type (0-255)")?;
                }
                "code" if matches!(protocol, 1 | 58) => {
                    packet.icmp.1 = words.number("an ICMP code (0-255)")?;
                }
                "frag" => packet.later_fragment = true,
                "vlan" => {
                    let (start, word) = words.next("a VLAN id (0-4095)")?;
                    let id = word.parse().ok().filter(|id| *id <= 0x0fff);
                    packet.vlan = Some(id.ok_or_else(|| {
                        words.error(start, format!("{word:?} is not a VLAN id (0-4095)"))
                    })?);
                }
                _ => return Err(words.error(start, format!("{word:?} is not understood here"))),
            }
        }
        if ports && !packet.later_fragment && dport.is_none() {
            return Err(words.error(dst_at, "the destination port is missing".to_owned()));
        }
        Ok(packet)
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(
    words: &Words<'_>,
    at: usize,
    word: &str,
    ports: bool,
) -> Result<(IpAddr, Option<u16>), SyntaxError> {
    let wrong = || {
        words.error(
            at,
            format!("{word:?} is not an IP address, nor an address and a port"),
        )
    };
    if let Ok(address) = word.parse() {
        return Ok((address, None));
    }
    let (address, port) = if let Some(rest) = word.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
        let port = rest.strip_prefix(':');
        (address, port.or_else(|| rest.is_empty().then_some("")))
    } else {
        let (address, port) = word.rsplit_once(':').ok_or_else(wrong)?;
        (address, Some(port))
    };
    let address = address.parse().map_err(|_| wrong())?;
    let port = port.ok_or_else(wrong)?;
    if port.is_empty() && word.ends_with(']') {
        return Ok((address, None));
    }
    if !ports {
        return Err(words.error(
            at,
            format!("{word:?} has a port, but this protocol has none"),
        ));
    }
    let port = port
        .parse()
        .map_err(|_| words.error(at, format!("{port:?} in {word:?} is not a port (0-65535)")))?;
    Ok((address, Some(port)))
}

impl PacketText {
    /// A packet with these fields.
    #[must_use]
    pub fn new(fields: Fields) -> Self {
        let [kind, code] = fields.selector.to_be_bytes();
        Self {
            protocol: fields.protocol,
            src: fields.src,
            dst: fields.dst,
            sport: fields.sport,
            dport: fields.selector,
            icmp: (kind, code),
            later_fragment: fields.later_fragment,
            vlan: None,
        }
    }

    /// Whether it is a later fragment, without an L4 header.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.later_fragment
    }

    /// A frame with this packet. Its checksums are zero: nothing that decides
    /// looks at them.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let payload = if self.later_fragment {
            vec![0; 16]
        } else {
            self.l4()
        };
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        // Locally administered addresses.
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + length).to_be_bytes());
                // Offset 185 × 8 bytes, the second of two fragments.
                let fragment = if self.later_fragment { 185_u16 } else { 0 };
                frame.extend([0, 1]);
                frame.extend(fragment.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (next, extra) = if self.later_fragment {
                    (44, 8)
                } else {
                    (self.protocol, 0)
                };
                // Neighbour discovery is believed with hop limit 255 only.
                let hop_limit = if self.protocol == 58 && (133..=137).contains(&self.icmp.0) {
                    255
                } else {
                    64
                };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((length + extra).to_be_bytes());
                frame.extend([next, hop_limit]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                if self.later_fragment {
                    frame.extend([self.protocol, 0]);
                    frame.extend((185_u16 << 3).to_be_bytes());
                    frame.extend([0, 0, 0, 1]);
                }
            }
            // The parser lets no mixture through.
            _ => {}
        }
        frame.extend(payload);
        frame
    }

    fn l4(&self) -> Vec<u8> {
        let mut header = Vec::new();
        match self.protocol {
            6 | 17 | 132 | 136 => {
                header.extend(self.sport.to_be_bytes());
                header.extend(self.dport.to_be_bytes());
            }
            1 | 58 => header.extend([self.icmp.0, self.icmp.1]),
            _ => {}
        }
        match self.protocol {
            6 => {
                header.resize(20, 0);
                header[12] = 5 << 4;
                header[13] = 0x02;
            }
            17 | 136 => {
                header.extend([0, 8]);
                header.resize(8, 0);
            }
            132 => header.resize(12, 0),
            _ => header.resize(8, 0),
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_understood() {
        for example in EXAMPLES.lines() {
            let text = example.split("  (").next().unwrap();
            let packet = text.parse::<PacketText>().expect(text);
            let again = packet.to_string().parse::<PacketText>();
            assert_eq!(
                again.map(|packet| packet.frame()),
                Ok(packet.frame()),
                "{packet}"
            );
        }
    }

    #[test]
    fn frames_hold_what_was_written() {
        let frame = "tcp 203.0.113.7:51515 > 192.0.2.10:30080 vlan 10"
            .parse::<PacketText>()
            .unwrap()
            .frame();
        assert_eq!(frame[12..18], [0x81, 0, 0, 10, 8, 0]);
        assert_eq!(frame[30..38], [203, 0, 113, 7, 192, 0, 2, 10]);
        assert_eq!(frame[38..42], [0xc9, 0x3b, 0x75, 0x80]);
        assert_eq!(frame.len(), 18 + 40);
    }

    #[test]
    fn modifiers_stand_in_any_order() {
        let frame = |text: &str| text.parse::<PacketText>().unwrap().frame();
        let icmp = frame("icmp 192.0.2.1 > 192.0.2.2 code 4 type 3");
        assert_eq!(icmp[34..36], [3, 4]);
        assert_eq!(icmp, frame("icmp 192.0.2.1 > 192.0.2.2 type 3 code 4"));
    }

    #[test]
    fn errors_point_at_the_word() {
        for (text, column, part) in [
            ("", 0, "the protocol"),
            ("tpc 192.0.2.1:1 > 192.0.2.2:2", 0, "not a protocol"),
            ("tcp 192.0.2.1:1 192.0.2.2:2", 16, "\">\""),
            ("tcp 192.0.2.1:1 > 192.0.2.2", 18, "destination port"),
            ("tcp 192.0.2.1:1 > 192.0.2.2:65536", 18, "not a port"),
            ("icmp 192.0.2.1 > 192.0.2.2:80", 17, "has none"),
            (
                "tcp 192.0.2.1:1 > [2001:db8::1]:2",
                18,
                "different IP versions",
            ),
            ("icmp 192.0.2.1 > 192.0.2.2 type x", 32, "ICMP type"),
            ("udp 192.0.2.1:1 > 192.0.2.2:2 fast", 30, "not understood"),
            ("udp 192.0.2.1:1 > 192.0.2.2:2 vlan 4096", 35, "VLAN id"),
            ("udp 192.0.2.1:1 > 192.0.2.2:2 vlan", 34, "a VLAN id"),
        ] {
            let error = text.parse::<PacketText>().unwrap_err();
            assert_eq!(error.column, column, "{text}");
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }
}
