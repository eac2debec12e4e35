//! Packets as people write them: `tcp 203.0.113.7:51515 > 192.0.2.10:30080`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use filter_common::wire::l4;

/// Shown with every syntax error.
pub const EXAMPLES: &str = "\
tcp 203.0.113.7:51515 > 192.0.2.10:30080
udp [2001:db8::7]:53 > [2001:db8::10]:32767
icmp 203.0.113.7 > 192.0.2.10 type 8 code 0
icmpv6 2001:db8::7 > 2001:db8::10 type 135 hoplimit 64
proto 47 203.0.113.7 > 192.0.2.10
udp 203.0.113.7 > 192.0.2.10 frag          (a later fragment)
udp 203.0.113.7 > 192.0.2.10 cut           (its header is cut short)
hidden 2001:db8::7 > 2001:db8::10          (an extension header is cut short)
tcp 203.0.113.7:1 > 192.0.2.10:80 vlan 10";

/// A packet described by a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketText {
    fields: Fields,
    vlan: Option<u16>,
}

/// The fields of a packet, without the headers around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The protocol's number; `None` where it is hidden, as an IPv6 extension
    /// header is cut short.
    pub protocol: Option<u8>,
    /// The source.
    pub src: IpAddr,
    /// The destination, of the same IP version.
    pub dst: IpAddr,
    /// The source port, if the protocol has ports.
    pub sport: u16,
    /// The destination port, or ICMP type << 8 | code.
    pub selector: u16,
    /// What there is of the L4 header.
    pub header: Header,
    /// The hop limit of IPv6, where it is not the usual one: 255 of neighbour
    /// discovery, else 64.
    pub hop_limit: Option<u8>,
}

/// What a packet shows of its L4 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// It is there.
    #[default]
    Whole,
    /// The packet ends within it.
    Cut,
    /// The packet is a later fragment.
    LaterFragment,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            protocol: Some(0),
            src: Ipv4Addr::UNSPECIFIED.into(),
            dst: Ipv4Addr::UNSPECIFIED.into(),
            sport: 0,
            selector: 0,
            header: Header::Whole,
            hop_limit: None,
        }
    }
}

impl Fields {
    fn has_ports(&self) -> bool {
        self.protocol.is_some_and(l4::has_ports)
    }

    /// Whether it has a type and a code.
    fn is_icmp(&self) -> bool {
        matches!(self.protocol, Some(l4::ICMP | l4::ICMPV6))
    }

    /// RFC 4861: neighbour discovery is believed with hop limit 255 only.
    pub(crate) fn usual_hop_limit(&self) -> u8 {
        let [kind, _] = self.selector.to_be_bytes();
        let is_discovery = self.protocol == Some(58)
            && self.header == Header::Whole
            && (133..=137).contains(&kind);
        if is_discovery { 255 } else { 64 }
    }
}

impl fmt::Display for PacketText {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &self.fields;
        match fields.protocol {
            Some(6) => f.write_str("tcp")?,
            Some(17) => f.write_str("udp")?,
            Some(132) => f.write_str("sctp")?,
            Some(136) => f.write_str("udplite")?,
            Some(1) => f.write_str("icmp")?,
            Some(58) => f.write_str("icmpv6")?,
            Some(other) => write!(f, "proto {other}")?,
            None => f.write_str("hidden")?,
        }
        let is_whole = fields.header == Header::Whole;
        let ports = is_whole && fields.has_ports();
        for (separator, address, port) in [
            ("", fields.src, fields.sport),
            (" >", fields.dst, fields.selector),
        ] {
            match (address, ports) {
                (IpAddr::V4(_), true) => write!(f, "{separator} {address}:{port}")?,
                (IpAddr::V6(_), true) => write!(f, "{separator} [{address}]:{port}")?,
                (_, false) => write!(f, "{separator} {address}")?,
            }
        }
        match fields.header {
            Header::Whole if fields.is_icmp() => {
                let [kind, code] = fields.selector.to_be_bytes();
                write!(f, " type {kind} code {code}")?;
            }
            Header::Whole => {}
            Header::Cut => f.write_str(" cut")?,
            Header::LaterFragment => f.write_str(" frag")?,
        }
        if let Some(hop_limit) = fields.hop_limit {
            write!(f, " hoplimit {hop_limit}")?;
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
            "tcp" => Some(6),
            "udp" => Some(17),
            "sctp" => Some(132),
            "udplite" => Some(136),
            "icmp" => Some(1),
            "icmpv6" => Some(58),
            "proto" => Some(words.number("a protocol number (0-255)")?),
            "hidden" => None,
            _ => {
                return Err(words.error(
                    start,
                    format!("{word:?} is not a protocol: tcp, udp, sctp, udplite, icmp, icmpv6, proto NUMBER or hidden"),
                ));
            }
        };
        let ports = protocol.is_some_and(l4::has_ports);
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
        if protocol.is_none() && src.is_ipv4() {
            return Err(words.error(
                start,
                "IPv4 hides no protocol: it has no extension headers".to_owned(),
            ));
        }
        let echo_request = match protocol {
            Some(1) => 8 << 8,
            Some(58) => 128 << 8,
            _ => 0,
        };
        let fields = Fields {
            protocol,
            src,
            dst,
            sport: sport.unwrap_or(0),
            selector: dport.unwrap_or(echo_request),
            ..Fields::default()
        };
        let mut packet = Self { fields, vlan: None };
        while let Some((start, word)) = words.peek() {
            words.at = start + word.len();
            packet.modify(&mut words, start, word)?;
        }
        if ports && packet.fields.header == Header::Whole && dport.is_none() {
            return Err(words.error(dst_at, "the destination port is missing".to_owned()));
        }
        Ok(packet)
    }
}

impl PacketText {
    /// Takes a word that stands behind the addresses, and what belongs to it.
    fn modify(
        &mut self,
        words: &mut Words<'_>,
        start: usize,
        word: &str,
    ) -> Result<(), SyntaxError> {
        let fields = &mut self.fields;
        let has_icmp = fields.is_icmp();
        let has_header = has_icmp || fields.has_ports();
        let [kind, code] = fields.selector.to_be_bytes();
        match word {
            "type" if has_icmp => {
                let kind = words.number("an ICMP type (0-255)")?;
                fields.selector = u16::from_be_bytes([kind, code]);
            }
            "code" if has_icmp => {
                let code = words.number("an ICMP code (0-255)")?;
                fields.selector = u16::from_be_bytes([kind, code]);
            }
            "cut" if !has_header => {
                let message =
                    "rules ask for nothing in this protocol's header: there is none to be cut";
                return Err(words.error(start, message.to_owned()));
            }
            "cut" | "frag" if fields.header != Header::Whole => {
                let message = "one of `frag` and `cut` is enough: a later fragment has no header";
                return Err(words.error(start, message.to_owned()));
            }
            "cut" => fields.header = Header::Cut,
            "frag" => fields.header = Header::LaterFragment,
            "hoplimit" if fields.src.is_ipv4() => {
                let message = "IPv4 has no hop limit, and nothing that decides asks for its TTL";
                return Err(words.error(start, message.to_owned()));
            }
            "hoplimit" => fields.hop_limit = Some(words.number("a hop limit (0-255)")?),
            "vlan" => {
                let (start, word) = words.next("a VLAN id (0-4095)")?;
                let id = word.parse().ok().filter(|id| *id <= 0x0fff);
                self.vlan = Some(id.ok_or_else(|| {
                    words.error(start, format!("{word:?} is not a VLAN id (0-4095)"))
                })?);
            }
            _ => return Err(words.error(start, format!("{word:?} is not understood here"))),
        }
        Ok(())
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
    pub const fn new(fields: Fields) -> Self {
        Self { fields, vlan: None }
    }

    /// Whether its protocol and its L4 header are there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.fields.protocol.is_some() && self.fields.header == Header::Whole
    }

    /// A frame with this packet. Its checksums are zero: nothing that decides
    /// looks at them.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        // Destination options (RFC 8200), of which nothing follows.
        const CUT_OPTIONS: u8 = 60;
        let fields = &self.fields;
        let later_fragment = fields.header == Header::LaterFragment;
        let protocol = fields.protocol.unwrap_or(CUT_OPTIONS);
        let payload = match (fields.protocol, fields.header) {
            (_, Header::LaterFragment) => vec![0; 16],
            (None, _) => Vec::new(),
            (Some(_), Header::Cut) => vec![0; 4],
            (Some(protocol), Header::Whole) => self.l4(protocol),
        };
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        // Locally administered addresses.
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        // Offset 185 × 8 bytes, the second of two fragments.
        let offset = 185_u16;
        match (fields.src, fields.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + length).to_be_bytes());
                frame.extend([0, 1]);
                frame.extend(if later_fragment { offset } else { 0 }.to_be_bytes());
                frame.extend([64, protocol, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (next, extra) = if later_fragment {
                    (44, 8)
                } else {
                    (protocol, 0)
                };
                let hop_limit = fields.hop_limit.unwrap_or(fields.usual_hop_limit());
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((length + extra).to_be_bytes());
                frame.extend([next, hop_limit]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                if later_fragment {
                    frame.extend([protocol, 0]);
                    frame.extend((offset << 3).to_be_bytes());
                    frame.extend([0, 0, 0, 1]);
                }
            }
            // The parser lets no mixture through.
            _ => {}
        }
        frame.extend(payload);
        frame
    }

    fn l4(&self, protocol: u8) -> Vec<u8> {
        let fields = &self.fields;
        let mut header = Vec::new();
        if fields.has_ports() {
            header.extend(fields.sport.to_be_bytes());
        }
        if fields.has_ports() || fields.is_icmp() {
            header.extend(fields.selector.to_be_bytes());
        }
        match protocol {
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
            ("udp 192.0.2.1 > 192.0.2.2 frag cut", 31, "is enough"),
            ("proto 47 192.0.2.1 > 192.0.2.2 cut", 31, "none to be cut"),
            ("hidden 192.0.2.1 > 192.0.2.2", 0, "hides no protocol"),
            ("udp 192.0.2.1:1 > 192.0.2.2:2 hoplimit 1", 30, "TTL"),
            ("udp [::1]:1 > [::2]:2 hoplimit 256", 31, "a hop limit"),
        ] {
            let error = text.parse::<PacketText>().unwrap_err();
            assert_eq!(error.column, column, "{text}");
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }
}
