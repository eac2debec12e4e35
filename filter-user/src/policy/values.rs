//! Single values: addresses, ports, protocols, names. Text in, value or the
//! reason out; no documents here.

use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::{Code, quote};
use super::documents::calico::Dialect;
use super::model::Port;
use crate::ruleset::{Family, PortRange};

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
    /// For under the caret.
    pub(super) label: String,
    pub(super) help: String,
}

impl Refusal {
    fn new(
        code: Code,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            label: label.into(),
            help: help.into(),
        }
    }
}

/// A CIDR without host bits, or an address, which is a network of one.
pub(super) fn net(text: &str) -> Result<IpNet, Refusal> {
    let (address_text, prefix_text) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address_text.parse::<IpAddr>() else {
        return Err(Refusal::new(
            Code::InvalidNet,
            format!("{} is not an IP address or CIDR", quote(text)),
            "not an address",
            "write an address (`192.0.2.7`, `2001:db8::1`) or a network \
             (`192.0.2.0/24`, `2001:db8::/32`)",
        ));
    };
    let Some(prefix_text) = prefix_text else {
        return Ok(IpNet::from(address));
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let net = decimal(prefix_text)
        .and_then(|prefix| u8::try_from(prefix).ok())
        .and_then(|prefix| IpNet::new(address, prefix).ok());
    let Some(net) = net else {
        return Err(Refusal::new(
            Code::InvalidNet,
            format!("{} is not a prefix length", quote(prefix_text)),
            format!("the part after `/` is not a number from 0 to {longest}"),
            format!(
                "an IPv{} prefix has 0 to {longest} bits",
                if longest == 32 { 4 } else { 6 }
            ),
        ));
    };
    if net.trunc() != net {
        return Err(Refusal::new(
            Code::HostBits,
            format!("{} has bits set behind its prefix", quote(text)),
            "an address and not a network",
            format!(
                "write `{}` for the whole network, or `{address}` for the one address",
                net.trunc()
            ),
        ));
    }
    Ok(net)
}

/// The IP version of a network.
pub(super) const fn family(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// How a family is called.
pub(super) const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// A port, a range, or the name of a port.
pub(super) fn port(text: &str) -> Result<Port, Refusal> {
    match ports(text) {
        Err(_) if is_port_name(text) => Ok(Port::Named(text.to_owned())),
        range => range.map(Port::Range),
    }
}

/// A port, or a range `first:last` with both ends in it.
pub(super) fn ports(text: &str) -> Result<PortRange, Refusal> {
    let (first_text, last_text) = text.split_once(':').unwrap_or((text, text));
    let (Some(first), Some(last)) = (decimal(first_text), decimal(last_text)) else {
        let help = match text.split_once('-') {
            Some((first, last)) if decimal(first).is_some() && decimal(last).is_some() => {
                format!("ranges are written with a colon: `{first}:{last}`")
            }
            _ => "write one port (`80`) or a range with both its ends (`30000:32767`)".into(),
        };
        return Err(Refusal::new(
            Code::InvalidPort,
            format!("{} is not a port", quote(text)),
            "not a number or a range of numbers",
            help,
        ));
    };
    let port = |number: u32| u16::try_from(number).ok().filter(|&port| port != 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err(Refusal::new(
            Code::InvalidPort,
            format!("{} is outside the ports 1 to 65535", quote(text)),
            "not a port that a rule can name",
            "ports are numbers from 1 to 65535",
        ));
    };
    if first > last {
        return Err(Refusal::new(
            Code::InvalidPort,
            format!("the range {} ends before it begins", quote(text)),
            "no port is in this range",
            format!("did you mean `{last}:{first}`?"),
        ));
    }
    Ok(PortRange { first, last })
}

/// Whether a text that is no number has the form of a port's name.
pub(super) fn is_port_name(text: &str) -> bool {
    let characters = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    characters && letters && text.len() <= 128
}

/// A number as people write it. A leading zero is refused, because YAML 1.1
/// would make the number octal; a sign, because nothing here has one.
pub(super) fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (digits && !leading_zero)
        .then(|| text.parse().ok())
        .flatten()
}

/// A protocol that has a name in the formats.
#[derive(Debug)]
struct Protocol {
    v1: &'static str,
    v3: &'static str,
    number: u8,
}

const PROTOCOLS: [Protocol; 6] = [
    protocol_named("tcp", "TCP", 6),
    protocol_named("udp", "UDP", 17),
    protocol_named("icmp", "ICMP", 1),
    protocol_named("icmpv6", "ICMPv6", 58),
    protocol_named("sctp", "SCTP", 132),
    protocol_named("udplite", "UDPLite", 136),
];

const fn protocol_named(v1: &'static str, v3: &'static str, number: u8) -> Protocol {
    Protocol { v1, v3, number }
}

/// A protocol and the IP version that it belongs to, if its name says one.
/// The bare number 1 says nothing of ICMP: it may be meant in IPv6 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedProtocol {
    pub(super) number: u8,
    pub(super) family: Option<Family>,
}

impl NamedProtocol {
    /// Whether rules can ask for its ports.
    pub(super) const fn has_ports(self) -> bool {
        matches!(self.number, 6 | 17 | 132)
    }
}

/// A protocol by name or number.
pub(super) fn protocol(text: &str, dialect: Dialect) -> Result<NamedProtocol, Refusal> {
    let name = |protocol: &Protocol| match dialect {
        Dialect::V1 => protocol.v1,
        Dialect::V3 => protocol.v3,
    };
    if let Some(number) = decimal(text) {
        return match u8::try_from(number) {
            Ok(number) if number != 0 => Ok(NamedProtocol {
                number,
                family: None,
            }),
            _ => Err(Refusal::new(
                Code::InvalidValue,
                format!("{} is not a protocol number", quote(text)),
                "outside 1 to 255",
                "protocol numbers go from 1 to 255",
            )),
        };
    }
    if let Some(found) = PROTOCOLS.iter().find(|known| name(known) == text) {
        let family = match found.number {
            1 => Some(Family::V4),
            58 => Some(Family::V6),
            _ => None,
        };
        return Ok(NamedProtocol {
            number: found.number,
            family,
        });
    }
    let other_case = PROTOCOLS
        .iter()
        .find(|known| known.v1.eq_ignore_ascii_case(text));
    let help = match other_case {
        Some(meant) => format!("write `{}`: this format is strict about case", name(meant)),
        None => format!(
            "the protocols with names are {}; write others as a number from 1 to 255",
            super::schema::list(PROTOCOLS.iter().map(name))
        ),
    };
    Err(Refusal::new(
        Code::InvalidValue,
        format!("{} is not a protocol", quote(text)),
        "not known",
        help,
    ))
}

/// The pattern of v1 names: also of what else v1 names.
pub(super) fn is_v1_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-'))
}

/// Lower-case letters, digits and `-`, not at the ends.
pub(super) fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// DNS labels with dots between them.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A name that a network interface can have, as Calico has it.
pub(super) fn is_interface_name(text: &str) -> bool {
    // The kernel refuses the names of folders, and pins are named by interface.
    (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, expected) in [
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("::/0", "::/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            // An IPv4-mapped address is an IPv6 address.
            ("::ffff:192.0.2.0/120", "::ffff:192.0.2.0/120"),
        ] {
            assert_eq!(net(text).unwrap().to_string(), expected, "{text}");
        }
        for (text, code, help) in [
            ("192.0.2.7/24", Code::HostBits, "192.0.2.0/24"),
            ("192.0.2.7/0", Code::HostBits, "0.0.0.0/0"),
            ("2001:db8::1/32", Code::HostBits, "2001:db8::/32"),
            ("192.0.2.0/33", Code::InvalidNet, "0 to 32"),
            ("2001:db8::/129", Code::InvalidNet, "0 to 128"),
            ("192.0.2.0/", Code::InvalidNet, "0 to 32"),
            ("192.0.2.0/024", Code::InvalidNet, "0 to 32"),
            ("192.0.2.0/-1", Code::InvalidNet, "0 to 32"),
            ("192.0.2.0/255.255.255.0", Code::InvalidNet, "0 to 32"),
            ("192.0.2.0/24/24", Code::InvalidNet, "0 to 32"),
            ("192.0.2", Code::InvalidNet, "address"),
            ("192.0.2.256", Code::InvalidNet, "address"),
            ("010.0.0.0/8", Code::InvalidNet, "address"),
            ("fe80::1%eth0", Code::InvalidNet, "address"),
            (" 192.0.2.7", Code::InvalidNet, "address"),
            ("example.org", Code::InvalidNet, "address"),
            ("", Code::InvalidNet, "address"),
        ] {
            let refusal = net(text).expect_err(text);
            assert_eq!(refusal.code, code, "{text}");
            assert!(refusal.help.contains(help), "{text}: {}", refusal.help);
        }
    }

    #[test]
    fn port_ranges() {
        for (text, first, last) in [
            ("1", 1, 1),
            ("80", 80, 80),
            ("65535", 65535, 65535),
            ("30000:32767", 30000, 32767),
            ("80:80", 80, 80),
            ("1:65535", 1, 65535),
        ] {
            assert_eq!(ports(text), Ok(PortRange { first, last }), "{text}");
        }
        for (text, code) in [
            ("0", Code::InvalidPort),
            ("0:80", Code::InvalidPort),
            ("65536", Code::InvalidPort),
            ("80:65536", Code::InvalidPort),
            ("99999999999999999999", Code::InvalidPort),
            ("90:80", Code::InvalidPort),
            ("80-90", Code::InvalidPort),
            ("80:", Code::InvalidPort),
            (":80", Code::InvalidPort),
            ("80:81:82", Code::InvalidPort),
            ("080", Code::InvalidPort),
            ("+80", Code::InvalidPort),
            ("-1", Code::InvalidPort),
            ("80.0", Code::InvalidPort),
            ("80, 90", Code::InvalidPort),
            ("80 : 90", Code::InvalidPort),
            ("", Code::InvalidPort),
            ("http", Code::InvalidPort),
        ] {
            assert_eq!(ports(text).expect_err(text).code, code, "{text}");
        }
        assert!(
            ports("32767:30000")
                .unwrap_err()
                .help
                .contains("30000:32767")
        );
    }

    #[test]
    fn protocols() {
        let number = |text, dialect| protocol(text, dialect).map(|found| found.number);
        for (v1, v3, expected) in [
            ("tcp", "TCP", 6),
            ("udp", "UDP", 17),
            ("icmp", "ICMP", 1),
            ("icmpv6", "ICMPv6", 58),
            ("sctp", "SCTP", 132),
            ("udplite", "UDPLite", 136),
            ("1", "1", 1),
            ("255", "255", 255),
        ] {
            assert_eq!(number(v1, Dialect::V1), Ok(expected));
            assert_eq!(number(v3, Dialect::V3), Ok(expected));
            if v1 != v3 {
                let help = protocol(v3, Dialect::V1).unwrap_err().help;
                assert!(help.contains(v1), "{help}");
                let help = protocol(v1, Dialect::V3).unwrap_err().help;
                assert!(help.contains(v3), "{help}");
            }
        }
        for text in ["0", "256", "-1", "tpc", "TCP ", "", "06"] {
            assert!(protocol(text, Dialect::V1).is_err(), "{text}");
            assert!(protocol(text, Dialect::V3).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert!(is_v1_name("deny-kube-node-port-services") && is_v1_name("A_b./9"));
        assert!(is_v1_name(&"a".repeat(128)) && !is_v1_name(&"a".repeat(129)));
        assert!(!is_v1_name("") && !is_v1_name("a b") && !is_v1_name("é"));
        assert!(is_dns_label("a-1") && is_dns_label(&"a".repeat(63)));
        for text in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!is_dns_label(text), "{text}");
        }
        assert!(is_dns_name("a.b-1") && !is_dns_name("a..b") && !is_dns_name(""));
        assert!(is_interface_name("eth0") && is_interface_name("a_b.c-d12345678"));
        for text in ["", ".", "..", "a/b", "a b", "a234567890123456", "*"] {
            assert!(!is_interface_name(text), "{text}");
        }
    }
}
