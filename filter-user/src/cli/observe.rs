//! `nodewall observe`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, ValueEnum};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use filter_common::verdict::Reason;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::args::Global;
use super::error::Failure;
use super::output::{count, grouped, index_of, note, time, warning};
use crate::datapath::{Datapath, EventFilter, Observed, Observer};
use crate::ruleset::{Direction, Rule, protocol_name};

/// How long a reader waits for more.
const PAUSE: Duration = Duration::from_millis(100);

/// Show dropped packets, and those that rules report
///
/// Dropped packets where `apply --sample-drops N` asked for them, and the packets
/// that Log rules match, as they come. They are a sample: each CPU reports N
/// dropped ones a second, and of the others some thousand, and what is beyond
/// that is counted as lost and shown. Counters (`nodewall stats`) are exact. Without --follow: what
/// is waiting to be read, then the end.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall observe -f
  nodewall observe -f --interface eth0 --src 203.0.113.0/24 --proto tcp
  nodewall observe -f -o jsonl | jq .ip.src")]
pub(super) struct Observe {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Interface; may be repeated. Default: all that are filtered
    #[arg(
        long,
        value_name = "IF",
        env = "NODEWALL_INTERFACE",
        value_delimiter = ','
    )]
    interface: Vec<String>,

    /// Only what a rule of this policy reports or dropped
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// Only what the rule with this index reports or dropped
    #[arg(long, value_name = "INDEX")]
    rule: Option<u32>,

    /// Only from this address or network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    src: Option<IpNet>,

    /// Only to this address or network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    dst: Option<IpNet>,

    /// Only this protocol: a name or a number
    #[arg(long, value_name = "PROTO", value_parser = protocol)]
    proto: Option<u8>,

    /// Only with this source or destination port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Only packets with this reason, such as `policy_deny`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "compact"
    )]
    output: Format,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line an event, for people
    Compact,
    /// A JSON document an event
    Jsonl,
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
        .map_err(|_| "write an address or a network, such as 203.0.113.0/24".to_owned())
}

pub(super) fn protocol(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    (0..=u8::MAX)
        .find(|number| protocol_name(*number).eq_ignore_ascii_case(text))
        .ok_or_else(|| "write tcp, udp, sctp, udplite, icmp, icmpv6 or a number".to_owned())
}

/// What the headers of a packet say, as far as they were reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Headers {
    /// Source, destination, protocol.
    ip: Option<(IpAddr, IpAddr, u8)>,
    ports: Option<(u16, u16)>,
    tcp_flags: Option<u8>,
    icmp: Option<(u8, u8)>,
}

impl Headers {
    fn read(frame: &[u8]) -> Self {
        let mut headers = Self::default();
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return headers;
        };
        headers.ip = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => Some((
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            )),
            Some(LaxNetSlice::Ipv6(ip)) => Some((
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            )),
            _ => None,
        };
        match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                headers.ports = Some((tcp.source_port(), tcp.destination_port()));
                headers.tcp_flags = tcp.slice().get(13).copied();
            }
            Some(TransportSlice::Udp(udp)) => {
                headers.ports = Some((udp.source_port(), udp.destination_port()));
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                headers.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                headers.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            }
            None => {}
        }
        headers
    }
}

impl Observe {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = Datapath::open(&global.pin_root)?;
        let mut observer = Observer::new(datapath, self.interface.clone())?;
        if !observer.has_sources() {
            let what = "nothing in force reports packets: rules with the action Log do, and \
                        `nodewall apply --sample-drops N` reports dropped ones";
            if !self.follow {
                return Err(Failure::failed(what));
            }
            note(global.color, format_args!("{what}; waiting for either"));
        }
        if self.follow {
            observer.want(self.asked())?;
        }
        let node = nix::unistd::gethostname().ok();
        let node = node.map(|name| name.to_string_lossy().into_owned());
        let mut shown = 0;
        loop {
            let (events, lost) = observer.read()?;
            for event in &events {
                let headers = Headers::read(&event.header);
                if !self.wants(event, &headers) {
                    continue;
                }
                match self.output {
                    Format::Compact => writeln!(stdout(), "{}", compact(event, &headers))?,
                    Format::Jsonl => {
                        writeln!(stdout(), "{}", json(event, &headers, node.as_deref()))?;
                    }
                }
                shown += 1;
                if self.count.is_some_and(|most| shown >= most) {
                    return Ok(());
                }
            }
            if lost > 0 {
                self.say_lost(lost, global)?;
            }
            stdout().flush()?;
            if !self.follow {
                return Ok(());
            }
            sleep(PAUSE);
        }
    }

    /// What the kernel can be asked: at least what is [wanted](Self::wants).
    fn asked(&self) -> EventFilter {
        let known = Reason::ALL.iter().copied();
        EventFilter {
            reasons: known
                .filter(|reason| self.reason.as_deref() == Some(reason.name()))
                .collect(),
            policy: self.policy.clone(),
            rule: self.rule,
            proto: self.proto,
            port: self.port,
            src: self.src,
            dst: self.dst,
        }
    }

    fn say_lost(&self, lost: u64, global: &Global) -> Result<(), Failure> {
        match self.output {
            Format::Jsonl => writeln!(stdout(), "{}", json!({"lost": lost}))?,
            Format::Compact => warning(
                global.color,
                format_args!(
                    "{} not reported: more came than are; the counters have them",
                    count(lost, "packet was", "packets were")
                ),
            ),
        }
        Ok(())
    }

    fn wants(&self, event: &Observed, headers: &Headers) -> bool {
        fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let within = |wanted: Option<&IpNet>, found: Option<IpAddr>| {
            wanted.is_none_or(|net| found.is_some_and(|address| net.contains(&address)))
        };
        let id = event.rule.as_ref().map(|rule| &rule.id);
        is(self.policy.as_deref(), id.map(|id| &*id.policy))
            && is(self.rule.as_ref(), id.and_then(|id| id.index.as_ref()))
            && within(self.src.as_ref(), headers.ip.map(|(src, _, _)| src))
            && within(self.dst.as_ref(), headers.ip.map(|(_, dst, _)| dst))
            && is(
                self.proto.as_ref(),
                headers.ip.map(|(_, _, proto)| proto).as_ref(),
            )
            && self.port.is_none_or(|port| {
                headers
                    .ports
                    .is_some_and(|(src, dst)| port == src || port == dst)
            })
            && is(self.reason.as_deref(), Some(event.reason.name()))
    }
}

/// `12:00:00.123 eth0 pass tcp 192.0.2.1:9 > 192.0.2.10:80 S web 0`.
fn compact(event: &Observed, headers: &Headers) -> String {
    let full = time(event.time);
    let verdict = if event.dropped { "drop" } else { "pass" };
    let egress = match event.direction {
        Direction::Ingress => "",
        Direction::Egress => " egress",
    };
    let mut line = format!("{full} {}{egress} {verdict}", event.interface);
    match headers.ip {
        Some((src, dst, protocol)) => {
            let _ = write!(line, " {}", protocol_name(protocol));
            match headers.ports {
                Some((sport, dport)) => {
                    let _ = write!(line, " {} > {}", at(src, sport), at(dst, dport));
                }
                None => {
                    let _ = write!(line, " {src} > {dst}");
                }
            }
        }
        None => line.push_str(" not readable"),
    }
    if let Some(flags) = headers.tcp_flags {
        let _ = write!(line, " {}", flag_letters(flags));
    }
    if let Some((kind, code)) = headers.icmp {
        let _ = write!(line, " type {kind} code {code}");
    }
    let _ = write!(line, " {}", event.reason.name());
    if let Some(rule) = &event.rule {
        let _ = write!(line, " {} {}", rule.id.policy, index_of(rule));
    }
    if let Some(packets) = event.sampled_1_in {
        let _ = write!(line, " (1 in {})", grouped(packets));
    }
    line
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

fn json(event: &Observed, headers: &Headers, node: Option<&str>) -> Value {
    let identity = |rule: &Rule| {
        json!({
            "stage": rule.id.stage.name(),
            "tier": rule.tier,
            "policy": rule.id.policy,
            "rule": rule.id.index,
        })
    };
    let rule = event.rule.as_ref();
    json!({
        "time": time(event.time),
        "node": node,
        "interface": event.interface,
        "direction": event.direction,
        "verdict": if event.dropped { "drop" } else { "pass" },
        "reason": event.reason.name(),
        "action": rule.map(|rule| rule.action.name()),
        "stage": rule.map(|rule| rule.id.stage.name()),
        "tier": rule.map(|rule| &rule.tier),
        "policy": rule.map(|rule| &rule.id.policy),
        "rule": rule.map(|rule| rule.id.index),
        "decided_by": event.decided_by.as_ref().map(identity),
        "ip": headers.ip.map(|(src, dst, _)| json!({
            "version": if src.is_ipv4() { 4 } else { 6 },
            "src": src,
            "dst": dst,
        })),
        "l4": headers.ip.map(|(_, _, proto)| json!({
            "proto": protocol_name(proto),
            "sport": headers.ports.map(|(sport, _)| sport),
            "dport": headers.ports.map(|(_, dport)| dport),
            "tcp_flags": headers.tcp_flags,
        })),
        "icmp": headers.icmp.map(|(kind, code)| json!({"type": kind, "code": code})),
        "length": event.length,
        "sampled_1_in": event.sampled_1_in,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_text::PacketText;

    fn read(text: &str) -> Headers {
        let packet: PacketText = text.parse().expect("a packet");
        Headers::read(&packet.frame())
    }

    #[test]
    fn headers_are_read_as_far_as_they_go() {
        let tcp = read("tcp 203.0.113.7:51515 > 192.0.2.10:30080 vlan 10");
        assert_eq!(tcp.ports, Some((51515, 30080)));
        assert_eq!(tcp.tcp_flags.map(flag_letters), Some("S".to_owned()));
        let icmp = read("icmpv6 2001:db8::7 > 2001:db8::10 type 128 code 0");
        assert_eq!(icmp.icmp, Some((128, 0)));
        assert!(icmp.ip.is_some_and(|(_, _, protocol)| protocol == 58));
        let later = read("udp 203.0.113.7 > 192.0.2.10 frag");
        assert!(later.ip.is_some() && later.ports.is_none());
        assert_eq!(Headers::read(&[0; 5]), Headers::default());
    }

    #[test]
    fn arguments() {
        assert_eq!(protocol("TCP"), Ok(6));
        assert_eq!(protocol("47"), Ok(47));
        assert!(protocol("tpc").is_err() && protocol("256").is_err());
        assert_eq!(
            network("192.0.2.7/24").map(|net| net.to_string()),
            Ok("192.0.2.0/24".into())
        );
        assert!(network("x").is_err());
    }
}
