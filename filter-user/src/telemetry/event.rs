//! A reported packet, as every output tells it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use etherparse::{LaxIpv6Slice, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use filter_common::verdict::{Reason, Verdict};
use filter_common::wire::ip::v6;
use serde::{Deserialize, Serialize};

use super::exact_time;
use crate::datapath::Observed;
use crate::ruleset::{Action, Direction, Rule, Stage, protocol_name, protocol_number};

/// Why a packet is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was dropped, and is a sample of such.
    Drop,
    /// A Log rule matched it.
    Log,
}

impl Kind {
    /// The name of the event in a stream.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Log => "log",
        }
    }
}

/// A reported packet. Its fields are those of the JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was reported.
    #[serde(with = "stamp")]
    pub time: SystemTime,
    /// The host's name, where it has one.
    pub node: Option<Arc<str>>,
    /// The interface.
    pub interface: Arc<str>,
    /// Which way it went.
    pub direction: Direction,
    /// What became of it.
    #[serde(with = "verdict")]
    pub verdict: Verdict,
    /// Why.
    #[serde(with = "reason")]
    pub reason: Reason,
    /// What the rule does that reports it; of a dropped packet, the rule that decided.
    pub action: Option<Action>,
    /// The stage of that rule.
    pub stage: Option<Stage>,
    /// Its tier.
    pub tier: Option<Arc<str>>,
    /// Its policy.
    pub policy: Option<Arc<str>>,
    /// Its index in the policy; the end of a tier has none.
    pub rule: Option<u32>,
    /// The rule that decided, where one did.
    pub decided_by: Option<Identity>,
    /// Addresses, where they could be read.
    pub ip: Option<Ip>,
    /// Protocol and, where they could be read, ports.
    pub l4: Option<L4>,
    /// Of ICMP and ICMPv6.
    pub icmp: Option<Icmp>,
    /// Bytes of the frame, without FCS.
    pub length: u32,
    /// Of a dropped packet: how many it stands for, itself included.
    pub sampled_1_in: Option<u64>,
    /// Reports that were lost since the event before.
    #[serde(default)]
    pub lost: u64,
    /// The frame's first bytes, for who asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex")]
    pub header: Option<Vec<u8>>,
}

/// Who a rule is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its stage.
    pub stage: Stage,
    /// Its tier.
    pub tier: Option<Arc<str>>,
    /// Its policy.
    pub policy: Arc<str>,
    /// Its index there.
    pub rule: Option<u32>,
}

/// Addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// 4 or 6.
    pub version: u8,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
}

/// What stands behind IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L4 {
    /// The protocol's number; in JSON its name, where it has one.
    #[serde(with = "proto")]
    pub proto: u8,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// TCP's flags: bit 0 is FIN, bit 7 CWR (RFC 9293).
    pub tcp_flags: Option<u8>,
}

/// Type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// What the headers of a packet say, as far as they were reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Addresses.
    pub ip: Option<Ip>,
    /// What stands behind IP.
    pub l4: Option<L4>,
    /// Of ICMP and ICMPv6.
    pub icmp: Option<Icmp>,
}

impl Headers {
    /// Reads them from a frame, which may be cut.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let mut headers = Self::default();
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return headers;
        };
        let mut transport = packet.transport.as_ref();
        let (src, dst, proto): (IpAddr, IpAddr, u8) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            ),
            Some(LaxNetSlice::Ipv6(ip)) => {
                let proto = later_fragment(ip);
                transport = transport.filter(|_| proto.is_none());
                (
                    ip.header().source_addr().into(),
                    ip.header().destination_addr().into(),
                    proto.unwrap_or(ip.payload().ip_number.0),
                )
            }
            _ => return headers,
        };
        headers.ip = Some(Ip {
            version: if src.is_ipv4() { 4 } else { 6 },
            src,
            dst,
        });
        let mut l4 = L4 {
            proto,
            sport: None,
            dport: None,
            tcp_flags: None,
        };
        match transport {
            Some(TransportSlice::Tcp(tcp)) => {
                l4.sport = Some(tcp.source_port());
                l4.dport = Some(tcp.destination_port());
                l4.tcp_flags = tcp.slice().get(13).copied();
            }
            Some(TransportSlice::Udp(udp)) => {
                l4.sport = Some(udp.source_port());
                l4.dport = Some(udp.destination_port());
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                headers.icmp = Some(Icmp {
                    kind: icmp.type_u8(),
                    code: icmp.code_u8(),
                });
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                headers.icmp = Some(Icmp {
                    kind: icmp.type_u8(),
                    code: icmp.code_u8(),
                });
            }
            None => {}
        }
        headers.l4 = Some(l4);
        headers
    }
}

/// What a later fragment is one of; `None` of any other packet. There are no headers in it.
///
/// etherparse 0.19 reads such where the offset is 4, 8 or 12 units of 8 bytes: it leaves out other
/// bits than the reserved ones (`Ipv6FragmentHeaderSlice::is_fragmenting_payload`). Its iterator
/// over extension headers reads behind the end of a chain that is cut, so this walks the bytes.
fn later_fragment(ip: &LaxIpv6Slice<'_>) -> Option<u8> {
    let chain = ip.extensions();
    let (mut next, mut rest) = (chain.first_header()?.0, chain.slice());
    while v6::is_extension(next) {
        let [following, length, field @ ..] = *rest.first_chunk::<4>()?;
        let bytes = match next {
            v6::FRAGMENT if u16::from_be_bytes(field) >> 3 != 0 => return Some(following),
            v6::FRAGMENT => v6::FRAGMENT_HEADER,
            v6::AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        (next, rest) = (following, rest.get(bytes..)?);
    }
    None
}

impl Event {
    /// What was observed, in the terms of the outputs. `lost` reports went before it.
    #[must_use]
    pub fn of(observed: Observed, node: Option<&Arc<str>>, lost: u64) -> Self {
        let headers = Headers::read(&observed.header);
        let rule = observed.rule.as_ref();
        let identity = |rule: &Rule| Identity {
            stage: rule.id.stage,
            tier: rule.tier.clone(),
            policy: Arc::clone(&rule.id.policy),
            rule: rule.id.index,
        };
        Self {
            time: observed.time,
            node: node.cloned(),
            direction: observed.direction,
            verdict: if observed.dropped {
                Verdict::Drop
            } else {
                Verdict::Pass
            },
            reason: observed.reason,
            action: rule.map(|rule| rule.action),
            stage: rule.map(|rule| rule.id.stage),
            tier: rule.and_then(|rule| rule.tier.clone()),
            policy: rule.map(|rule| Arc::clone(&rule.id.policy)),
            rule: rule.and_then(|rule| rule.id.index),
            decided_by: observed.decided_by.as_ref().map(identity),
            ip: headers.ip,
            l4: headers.l4,
            icmp: headers.icmp,
            length: observed.length,
            sampled_1_in: observed.sampled_1_in,
            lost,
            interface: observed.interface.into(),
            header: Some(observed.header),
        }
    }

    /// Why it is reported.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.sampled_1_in {
            Some(_) => Kind::Drop,
            None => Kind::Log,
        }
    }

    /// The same without the frame's bytes, which few ask for.
    #[must_use]
    pub fn without_header(mut self) -> Self {
        self.header = None;
        self
    }

    /// A line for people: `2026-11-28T12:00:00.000123Z eth0 pass tcp 192.0.2.1:9 >
    /// 192.0.2.10:80 S policy_allow web 0`.
    #[must_use]
    pub fn compact(&self) -> String {
        let egress = match self.direction {
            Direction::Ingress => "",
            Direction::Egress => " egress",
        };
        let (time, verdict) = (exact_time(self.time), self.verdict.name());
        let mut line = format!("{time} {}{egress} {verdict} ", self.interface);
        line += &self.packet();
        let _ = write!(line, " {}", self.reason.name());
        if let Some(policy) = &self.policy {
            let _ = write!(line, " {policy} {}", self.rule_name());
        }
        if let Some(packets) = self.sampled_1_in {
            let _ = write!(line, " (1 in {})", crate::bytes::grouped(packets));
        }
        line
    }

    /// The index of its rule, or `default`.
    #[must_use]
    pub fn rule_name(&self) -> Cow<'static, str> {
        match self.rule {
            Some(index) => index.to_string().into(),
            None => "default".into(),
        }
    }

    /// The packet alone: `tcp 192.0.2.1:9 > 192.0.2.10:80 S`.
    #[must_use]
    pub fn packet(&self) -> String {
        let Some(ip) = &self.ip else {
            return "not readable".to_owned();
        };
        let proto = self
            .l4
            .map_or(Cow::Borrowed("ip"), |l4| protocol_name(l4.proto));
        let l4 = self.l4.as_ref();
        let ports = l4.and_then(|l4| l4.sport.zip(l4.dport));
        let mut text = match ports {
            Some((sport, dport)) => {
                format!("{proto} {} > {}", at(ip.src, sport), at(ip.dst, dport))
            }
            None => format!("{proto} {} > {}", ip.src, ip.dst),
        };
        if let Some(flags) = l4.and_then(|l4| l4.tcp_flags) {
            let _ = write!(text, " {}", flag_letters(flags));
        }
        if let Some(icmp) = self.icmp {
            let _ = write!(text, " type {} code {}", icmp.kind, icmp.code);
        }
        text
    }
}

fn at(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    }
}

/// The flags as tcpdump writes them.
fn flag_letters(flags: u8) -> String {
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];
    (0..8)
        .zip(LETTERS)
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, letter)| letter)
        .collect()
}

/// Times as RFC 3339 in UTC, to the microsecond.
mod stamp {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::exact_time(*time))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(time.into())
    }
}

mod verdict {
    use filter_common::verdict::Verdict;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub(super) fn serialize<S: Serializer>(verdict: &Verdict, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(verdict.name())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Verdict, D::Error> {
        let text = String::deserialize(from)?;
        let mut all = [Verdict::Pass, Verdict::Drop].into_iter();
        all.find(|verdict| verdict.name() == text)
            .ok_or_else(|| D::Error::custom(format_args!("no verdict: {text:?}")))
    }
}

mod reason {
    use filter_common::verdict::Reason;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub(super) fn serialize<S: Serializer>(reason: &Reason, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(reason.name())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Reason, D::Error> {
        let text = String::deserialize(from)?;
        let mut all = Reason::ALL.iter().copied();
        all.find(|reason| reason.name() == text)
            .ok_or_else(|| D::Error::custom(format_args!("no reason: {text:?}")))
    }
}

mod proto {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    pub(super) fn serialize<S: Serializer>(proto: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::protocol_name(*proto))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u8, D::Error> {
        let text = String::deserialize(from)?;
        super::protocol_number(&text)
            .ok_or_else(|| D::Error::custom(format_args!("no protocol: {text:?}")))
    }
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde asks so")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        let bytes = bytes.iter().flatten();
        let text: String = bytes
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok()
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .map(Some)
            .ok_or_else(|| D::Error::custom("no hexadecimal digits"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::packet_text::PacketText;

    fn frame(text: &str) -> Vec<u8> {
        let packet: PacketText = text.parse().expect("a packet");
        packet.frame()
    }

    #[test]
    fn headers_are_read_as_far_as_they_go() {
        let tcp = Headers::read(&frame("tcp 203.0.113.7:51515 > 192.0.2.10:30080 vlan 10"));
        let l4 = tcp.l4.expect("TCP");
        assert_eq!((l4.sport, l4.dport), (Some(51515), Some(30080)));
        assert_eq!(l4.tcp_flags.map(flag_letters), Some("S".to_owned()));
        let echo = "icmpv6 2001:db8::7 > 2001:db8::10 type 128 code 0";
        let icmp = Headers::read(&frame(echo));
        assert_eq!(icmp.icmp, Some(Icmp { kind: 128, code: 0 }));
        assert!(icmp.l4.is_some_and(|l4| l4.proto == 58));
        let later = Headers::read(&frame("udp 203.0.113.7 > 192.0.2.10 frag"));
        assert!(later.ip.is_some() && later.l4.is_some_and(|l4| l4.dport.is_none()));
        assert_eq!(Headers::read(&[0; 5]), Headers::default());
    }

    #[test]
    fn what_a_later_fragment_carries_is_no_header() {
        for (proto, offset) in (1_u16..=0x1fff).flat_map(|offset| [(17, offset), (60, offset)]) {
            let mut frame = frame("udp 2001:db8::7 > 2001:db8::10 frag");
            frame[14 + 40] = proto;
            frame[14 + 42..14 + 44].copy_from_slice(&(offset << 3).to_be_bytes());
            let headers = Headers::read(&frame);
            let l4 = headers.l4.expect("a protocol");
            assert_eq!(
                (l4.proto, l4.sport, l4.dport),
                (proto, None, None),
                "{offset}"
            );
        }
    }

    /// One that no rule decided.
    pub(crate) fn event(text: &str) -> Event {
        let header = frame(text);
        let observed = Observed {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_123),
            interface: "eth0".to_owned(),
            direction: Direction::Ingress,
            rule: None,
            sampled_1_in: Some(1_234),
            decided_by: None,
            dropped: true,
            reason: Reason::Malformed,
            length: u32::try_from(header.len()).expect("short"),
            header,
        };
        Event::of(observed, Some(&"worker-1".into()), 7)
    }

    #[test]
    fn an_event_is_a_line_and_a_document() {
        let event = event("tcp 203.0.113.7:51515 > 192.0.2.10:30080");
        assert_eq!(
            event.compact(),
            "2023-11-14T22:13:20.000123Z eth0 drop tcp 203.0.113.7:51515 > 192.0.2.10:30080 S \
             malformed (1 in 1,234)"
        );
        let text = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Event>(&text).expect("an event"),
            event
        );
        let document = serde_json::to_value(event.without_header()).expect("JSON");
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.000123Z",
            "node": "worker-1",
            "interface": "eth0",
            "direction": "ingress",
            "verdict": "drop",
            "reason": "malformed",
            "action": null,
            "stage": null,
            "tier": null,
            "policy": null,
            "rule": null,
            "decided_by": null,
            "ip": {"version": 4, "src": "203.0.113.7", "dst": "192.0.2.10"},
            "l4": {"proto": "tcp", "sport": 51515, "dport": 30080, "tcp_flags": 2},
            "icmp": null,
            "length": 54,
            "sampled_1_in": 1234,
            "lost": 7,
        });
        assert_eq!(document, expected);
    }
}
