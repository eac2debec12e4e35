//! Which reported packets a reader wants.

use std::net::IpAddr;

use filter_common::verdict::Reason;
use ipnet::IpNet;

use super::Event;
use crate::datapath::EventFilter;
use crate::ruleset::{Direction, protocol_number};

/// What an event must be like: all that is asked. Nothing asked: all are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// On one of these interfaces.
    pub interfaces: Vec<String>,
    /// Going this way.
    pub direction: Option<Direction>,
    /// A rule of this policy reports or dropped it.
    pub policy: Option<String>,
    /// The rule with this index does.
    pub rule: Option<u32>,
    /// From this network.
    pub src: Option<IpNet>,
    /// To this network.
    pub dst: Option<IpNet>,
    /// Of this protocol.
    pub proto: Option<u8>,
    /// With this source or destination port.
    pub port: Option<u16>,
    /// For this reason.
    pub reason: Option<Reason>,
}

impl Wanted {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let within = |wanted: Option<&IpNet>, found: Option<IpAddr>| {
            wanted.is_none_or(|net| found.is_some_and(|address| net.contains(&address)))
        };
        let has_port = |port| {
            let l4 = event.l4.as_ref();
            l4.is_some_and(|l4| l4.sport == Some(port) || l4.dport == Some(port))
        };
        let mut interfaces = self.interfaces.iter();
        (self.interfaces.is_empty() || interfaces.any(|name| **name == *event.interface))
            && is(self.direction.as_ref(), Some(&event.direction))
            && is(self.policy.as_deref(), event.policy.as_deref())
            && is(self.rule.as_ref(), event.rule.as_ref())
            && within(self.src.as_ref(), event.ip.map(|ip| ip.src))
            && within(self.dst.as_ref(), event.ip.map(|ip| ip.dst))
            && is(self.proto.as_ref(), event.l4.map(|l4| l4.proto).as_ref())
            && self.port.is_none_or(has_port)
            && is(self.reason.as_ref(), Some(&event.reason))
    }
}

impl Wanted {
    /// As much of it as the kernel can be asked for.
    #[must_use]
    pub fn in_kernel(&self) -> EventFilter {
        EventFilter {
            reasons: self.reason.into_iter().collect(),
            policy: self.policy.clone(),
            rule: self.rule,
            proto: self.proto,
            port: self.port,
            src: self.src,
            dst: self.dst,
        }
    }
}

/// A network, or an address, as people write it.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
        .map_err(|_| "write an address or a network, such as 203.0.113.0/24".to_owned())
}

/// A protocol, by name or number.
pub(crate) fn protocol(text: &str) -> Result<u8, String> {
    protocol_number(text)
        .ok_or_else(|| "write tcp, udp, sctp, udplite, icmp, icmpv6 or a number".to_owned())
}

/// A reason, by name.
pub(crate) fn reason(text: &str) -> Result<Reason, String> {
    let mut all = Reason::ALL.iter().copied();
    all.find(|reason| reason.name() == text).ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("write one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(protocol("TCP"), Ok(6));
        assert_eq!(protocol("47"), Ok(47));
        assert!(protocol("tpc").is_err() && protocol("256").is_err());
        let net = network("192.0.2.7/24").map(|net| net.to_string());
        assert_eq!(net, Ok("192.0.2.0/24".into()));
        assert!(network("x").is_err());
        assert_eq!(reason("policy_deny"), Ok(Reason::PolicyDeny));
        assert!(reason("policy-deny").unwrap_err().contains("default_deny"));
    }
}
