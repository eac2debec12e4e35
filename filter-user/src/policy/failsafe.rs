//! Ports that stay open whatever the policies say.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::values;
use crate::ruleset::{Addresses, Direction, Match, PortRange};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The list of open ports, in Calico's syntax: `[proto:][cidr:]port` separated
/// by commas, IPv6 as `proto:[cidr]:port`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FailsafeList(Vec<FailsafePort>);

/// A port that stays open, from everywhere or from one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailsafePort {
    /// TCP or UDP, by number.
    protocol: u8,
    net: Option<IpNet>,
    port: u16,
}

/// Why a list can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is not a failsafe port: {reason}; write a list such as \
     `tcp:22, udp:68, tcp:192.0.2.0/24:6443, tcp:[2001:db8::/32]:22`, or `none`"
)]
pub struct FailsafeError {
    /// The entry.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
}

const fn open(protocol: u8, port: u16) -> FailsafePort {
    FailsafePort {
        protocol,
        net: None,
        port,
    }
}

impl FailsafeList {
    /// Calico's inbound ports, and the one of `DHCPv6`, whose clients starve
    /// under XDP as those of DHCP do.
    #[must_use]
    pub fn inbound() -> Self {
        Self(vec![
            open(TCP, 22),
            open(UDP, 68),
            open(TCP, 179),
            open(TCP, 2379),
            open(TCP, 2380),
            open(TCP, 5473),
            open(TCP, 6443),
            open(TCP, 6666),
            open(TCP, 6667),
            open(UDP, 546),
        ])
    }

    /// Calico's outbound ports, and the one of `DHCPv6` servers.
    #[must_use]
    pub fn outbound() -> Self {
        Self(vec![
            open(UDP, 53),
            open(UDP, 67),
            open(TCP, 179),
            open(TCP, 2379),
            open(TCP, 2380),
            open(TCP, 5473),
            open(TCP, 6443),
            open(TCP, 6666),
            open(TCP, 6667),
            open(UDP, 547),
        ])
    }

    /// No port stays open.
    pub const NONE: Self = Self(Vec::new());

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &[FailsafePort] {
        &self.0
    }
}

impl FailsafePort {
    /// The condition under which a packet is for this port; the network is
    /// that of the other side.
    #[must_use]
    pub fn to_match(self, direction: Direction) -> Match {
        let other: Addresses = self.net.into_iter().collect::<Vec<_>>().into();
        let (src, dst) = match direction {
            Direction::Ingress => (other, Addresses::default()),
            Direction::Egress => (Addresses::default(), other),
        };
        Match {
            protocol: Some(self.protocol),
            src,
            dst,
            dst_ports: vec![PortRange {
                first: self.port,
                last: self.port,
            }],
            ..Match::default()
        }
    }

    fn parse(entry: &str) -> Result<Self, String> {
        let (protocol, rest) = match entry.split_once(':') {
            Some((name, rest)) if name.eq_ignore_ascii_case("tcp") => (TCP, rest),
            Some((name, rest)) if name.eq_ignore_ascii_case("udp") => (UDP, rest),
            Some((name, _)) if name.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                return Err(format!("the protocol is `{name}`, and can be tcp or udp"));
            }
            _ => (TCP, entry),
        };
        let (net, port) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((net, port)) => {
                let bracketed = net.strip_prefix('[').and_then(|net| net.strip_suffix(']'));
                if bracketed.is_none() && net.contains(':') {
                    return Err("an IPv6 network stands in brackets".into());
                }
                let net = values::net(bracketed.unwrap_or(net))
                    .map_err(|refusal| format!("{}, {}", refusal.message, refusal.help))?;
                (Some(net), port)
            }
        };
        match values::ports(port) {
            Ok(range) if range.first == range.last => Ok(Self {
                protocol,
                net,
                port: range.first,
            }),
            _ => Err(format!("`{port}` is not a port from 1 to 65535")),
        }
    }
}

impl FromStr for FailsafeList {
    type Err = FailsafeError;

    fn from_str(text: &str) -> Result<Self, FailsafeError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::NONE);
        }
        let mut ports = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let port = FailsafePort::parse(entry).map_err(|reason| FailsafeError {
                entry: entry.to_owned(),
                reason,
            })?;
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        Ok(Self(ports))
    }
}

impl fmt::Display for FailsafeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, port) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            port.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for FailsafePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == UDP { "udp" } else { "tcp" };
        match self.net {
            None => write!(f, "{protocol}:{}", self.port),
            Some(IpNet::V4(net)) => write!(f, "{protocol}:{net}:{}", self.port),
            Some(IpNet::V6(net)) => write!(f, "{protocol}:[{net}]:{}", self.port),
        }
    }
}

impl TryFrom<String> for FailsafeList {
    type Error = FailsafeError;

    fn try_from(text: String) -> Result<Self, FailsafeError> {
        text.parse()
    }
}

impl From<FailsafeList> for String {
    fn from(list: FailsafeList) -> Self {
        list.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_calicos_syntax() {
        for (text, expected) in [
            ("none", "none"),
            ("None", "none"),
            ("22", "tcp:22"),
            ("tcp:22,udp:68", "tcp:22,udp:68"),
            ("tcp:22, UDP:68 ,tcp:22", "tcp:22,udp:68"),
            ("192.0.2.0/24:22", "tcp:192.0.2.0/24:22"),
            ("udp:192.0.2.7:53", "udp:192.0.2.7/32:53"),
            ("tcp:[2001:db8::/32]:22", "tcp:[2001:db8::/32]:22"),
            ("[::1]:22", "tcp:[::1/128]:22"),
        ] {
            let list: FailsafeList = text.parse().unwrap();
            assert_eq!(list.to_string(), expected, "{text}");
            assert_eq!(list.to_string().parse(), Ok(list), "{text}");
        }
        for (text, reason) in [
            ("", "not a port"),
            ("22,", "not a port"),
            ("sctp:22", "tcp or udp"),
            ("0", "not a port"),
            ("65536", "not a port"),
            ("22:23", "not an IP address"),
            ("ssh", "not a port"),
            ("tcp:2001:db8::/32:22", "brackets"),
            ("tcp:192.0.2.7/24:22", "192.0.2.0/24"),
            ("tcp:22-23", "not a port"),
        ] {
            let error = text.parse::<FailsafeList>().expect_err(text);
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn keeps_calicos_ports_and_dhcpv6_open() {
        assert_eq!(
            FailsafeList::inbound().to_string(),
            "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667,udp:546"
        );
    }
}
