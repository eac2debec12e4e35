//! The table's second part: packets that are about others. Each row is an exchange, and
//! its last packet is judged.

use std::net::IpAddr;

use super::{Extension, Icmp, Icmpv6, Ipv4, Ipv6, Packet, Payload, Sctp, Tcp, Udp, plain};
use crate::packet::{Raw, protocol};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// To the node.
    In,
    /// From the node.
    Out,
}

/// The rulesets of both directions, without essentials. What they hold is written here
/// in words; whoever runs the table builds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rules {
    /// In: (0) allows tcp 22, denies by default. Out: no rules, allows by default.
    Outbound,
    /// The same, and fragments are tracked both ways.
    OutboundTrack,
    /// In: the failsafe (0) tcp 22, denies by default. Out: (0) allows udp 53, denies by
    /// default.
    ClosedBoth,
    /// In: (0) denies udp, (1) logs everything, (2) denies icmp and (3) `ICMPv6`, allows
    /// by default. Out: no rules, allows by default.
    NoUdp,
    /// In: the untracked (0) denies udp, (1) denies tcp; allows by default. Out: no
    /// rules, allows by default.
    Untracked,
    /// In: (0) allows udp from port 53, denies by default. Out: no rules, allows by
    /// default. What comes from port 53 needs no flow.
    OpenAnswers,
}

impl Rules {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Outbound,
        Self::OutboundTrack,
        Self::ClosedBoth,
        Self::NoUdp,
        Self::Untracked,
        Self::OpenAnswers,
    ];
}

/// What comes before the packet under judgement.
#[derive(Clone, Debug)]
pub enum Before {
    /// A packet, whatever becomes of it.
    Frame(Going, Vec<u8>),
    /// So many seconds.
    Wait(u64),
}

/// One exchange, one right answer about its end.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What it is, unique in the table.
    pub name: String,
    /// Which of the project's rules demands the answer.
    pub source: &'static str,
    /// The rulesets that it meets.
    pub rules: Rules,
    /// What was there before.
    pub before: Vec<Before>,
    /// Which way the last packet goes.
    pub going: Going,
    /// Its frame.
    pub frame: Vec<u8>,
    /// `pass` or `drop`.
    pub verdict: &'static str,
    /// The reason's name.
    pub reason: &'static str,
    /// The index of the rule that decides, if one does.
    pub rule: Option<u32>,
    /// The indices of the rules that are counted beside the verdict.
    pub noted: Vec<u32>,
}

/// The table.
#[must_use]
pub fn exchanges() -> Vec<Exchange> {
    let mut table = Table {
        rows: Vec::new(),
        source: "",
        rules: Rules::Outbound,
    };
    for v in [V4, V6] {
        datagrams(&mut table, v);
        other_protocols(&mut table, v);
        connections(&mut table, v);
        echoes(&mut table, v);
        errors(&mut table, v);
        fragments(&mut table, v);
        rules(&mut table, v);
    }
    table.rows
}

struct Table {
    rows: Vec<Exchange>,
    source: &'static str,
    rules: Rules,
}

/// An IP version: names of its rows begin with it.
#[derive(Clone, Copy)]
struct Version {
    name: &'static str,
    node: &'static str,
    peer: &'static str,
    stranger: &'static str,
    router: &'static str,
    everybody: &'static str,
}

const V4: Version = Version {
    name: "IPv4",
    node: "192.0.2.10",
    peer: "203.0.113.7",
    stranger: "203.0.113.8",
    router: "198.51.100.1",
    everybody: "224.0.0.251",
};

const V6: Version = Version {
    name: "IPv6",
    node: "2001:db8::10",
    peer: "2001:db8:f::7",
    stranger: "2001:db8:f::8",
    router: "2001:db8:e::1",
    everybody: "ff02::fb",
};

/// The answer about the last packet.
type Answer = (&'static str, &'static str, Option<u32>);

const ESTABLISHED: Answer = ("pass", "established", None);
const DENIED: Answer = ("drop", "default_deny", None);

impl Table {
    fn section(&mut self, source: &'static str, rules: Rules) {
        self.source = source;
        self.rules = rules;
    }

    fn push(
        &mut self,
        (version, name): (Version, &str),
        before: Vec<Before>,
        (going, frame): (Going, Vec<u8>),
        (verdict, reason, rule): Answer,
    ) {
        self.rows.push(Exchange {
            name: format!("{}, {:?}: {name}", version.name, self.rules),
            source: self.source,
            rules: self.rules,
            before,
            going,
            frame,
            verdict,
            reason,
            rule,
            noted: Vec::new(),
        });
    }

    /// The row that was added last is noted by these rules.
    fn noting(&mut self, noted: &[u32]) {
        if let Some(row) = self.rows.last_mut() {
            row.noted = noted.to_vec();
        }
    }

    /// What comes in at the end passes for a flow's sake.
    fn answers(&mut self, name: (Version, &str), before: Vec<Before>, frame: Vec<u8>) {
        self.push(name, before, (Going::In, frame), ESTABLISHED);
    }

    /// What comes in at the end is dropped by default.
    fn drops(&mut self, name: (Version, &str), before: Vec<Before>, frame: Vec<u8>) {
        self.push(name, before, (Going::In, frame), DENIED);
    }
}

impl Version {
    fn is_v4(self) -> bool {
        self.name == V4.name
    }

    /// From the node to its peer.
    fn to_peer(self, payload: &dyn Payload) -> Vec<u8> {
        between([self.node, self.peer], payload)
    }

    /// From the peer to the node.
    fn to_node(self, payload: &dyn Payload) -> Vec<u8> {
        between([self.peer, self.node], payload)
    }

    fn echo(self, request: bool, id: u8) -> Box<dyn Payload> {
        if self.is_v4() {
            let mut icmp = Icmp::new(if request { 8 } else { 0 }, 0);
            icmp.rest[1] = id;
            Box::new(icmp)
        } else {
            let mut icmp = Icmpv6::new(if request { 128 } else { 129 }, 0);
            icmp.rest[1] = id;
            Box::new(icmp)
        }
    }

    /// "Destination unreachable", about so many bytes of a packet.
    fn unreachable(self, about: &Packet) -> Box<dyn Payload> {
        self.error(if self.is_v4() { (3, 1) } else { (1, 3) }, about)
    }

    fn error(self, (kind, code): (u8, u8), about: &Packet) -> Box<dyn Payload> {
        let rest = [&[0; 4], &about.bytes[..]].concat();
        if self.is_v4() {
            Box::new(Icmp {
                rest,
                ..Icmp::new(kind, code)
            })
        } else {
            Box::new(Icmpv6 {
                rest,
                ..Icmpv6::new(kind, code)
            })
        }
    }
}

fn packet([src, dst]: [&str; 2], payload: &dyn Payload) -> Packet {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    match (address(src), address(dst)) {
        (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) => Ipv4 {
            src,
            dst,
            ..Ipv4::default()
        }
        .carry(payload),
        (Some(IpAddr::V6(src)), Some(IpAddr::V6(dst))) => Ipv6 {
            src,
            dst,
            ..Ipv6::default()
        }
        .carry(payload),
        _ => unreachable!("{src} and {dst} are addresses of one version"),
    }
}

/// A fragment of a datagram between node and peer.
fn fragment([src, dst]: [&str; 2], (offset, id): (u16, u8), payload: &dyn Payload) -> Vec<u8> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let more = offset == 0;
    let packet = match (address(src), address(dst)) {
        (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) => Ipv4 {
            src,
            dst,
            id: id.into(),
            ..Ipv4::fragment(offset, more)
        }
        .carry(payload),
        (Some(IpAddr::V6(src)), Some(IpAddr::V6(dst))) => {
            let mut fragment = Extension::fragment(offset, more);
            fragment.rest[6] = id;
            Ipv6 {
                src,
                dst,
                ..Ipv6::with([fragment])
            }
            .carry(payload)
        }
        _ => unreachable!("{src} and {dst} are addresses of one version"),
    };
    plain(&packet)
}

fn between(ends: [&str; 2], payload: &dyn Payload) -> Vec<u8> {
    plain(&packet(ends, payload))
}

const SYN_ACK: u8 = Tcp::SYN | Tcp::ACK;

const NODES_PORT: u16 = 40_000;

fn udp(sport: u16, dport: u16) -> Udp {
    Udp {
        sport,
        ..Udp::to(dport)
    }
}

fn question() -> Udp {
    udp(NODES_PORT, 53)
}

fn answer() -> Udp {
    udp(53, NODES_PORT)
}

fn out(frame: Vec<u8>) -> Before {
    Before::Frame(Going::Out, frame)
}

fn back(frame: Vec<u8>) -> Before {
    Before::Frame(Going::In, frame)
}

fn datagrams(t: &mut Table, v: Version) {
    t.section("an answer is told by the exact tuple", Rules::Outbound);
    let asked = || vec![out(v.to_peer(&question()))];
    let yes = v.to_node(&answer());
    t.drops((v, "udp 53 that nobody asked"), vec![], yes.clone());
    t.answers((v, "udp 53 that was asked"), asked(), yes.clone());
    t.drops(
        (v, "udp 53 to another port"),
        asked(),
        v.to_node(&udp(53, NODES_PORT + 1)),
    );
    t.drops(
        (v, "udp to the right port, from another one"),
        asked(),
        v.to_node(&udp(54, NODES_PORT)),
    );
    t.drops(
        (v, "udp with the ports of the question"),
        asked(),
        v.to_node(&question()),
    );
    t.drops(
        (v, "udp 53 from somebody else"),
        asked(),
        between([v.stranger, v.node], &answer()),
    );
    t.drops(
        (v, "udp 53 to somebody else"),
        asked(),
        between([v.peer, v.stranger], &answer()),
    );
    let lite = Udp {
        lite: true,
        ..answer()
    };
    t.drops(
        (v, "UDP-Lite where UDP was asked"),
        asked(),
        v.to_node(&lite),
    );
    let tcp = Tcp {
        sport: 53,
        flags: Tcp::ACK,
        ..Tcp::to(NODES_PORT)
    };
    t.drops((v, "TCP where UDP was asked"), asked(), v.to_node(&tcp));
    let (other, theirs) = if v.is_v4() {
        (V6, "IPv6")
    } else {
        (V4, "IPv4")
    };
    t.drops(
        (v, &format!("an answer over {theirs}")),
        asked(),
        other.to_node(&answer()),
    );
    t.push(
        (v, "the question again"),
        asked(),
        (Going::Out, v.to_peer(&question())),
        ("pass", "default_allow", None),
    );
    t.drops(
        (v, "an answer from a member of a multicast group"),
        vec![out(between([v.node, v.everybody], &question()))],
        between([v.everybody, v.node], &answer()),
    );

    t.section(
        "a flow is over some time after its last packet",
        Rules::Outbound,
    );
    let after = |waits: &[u64], before: Vec<Before>| {
        waits.iter().fold(before, |mut all, wait| {
            all.push(Before::Wait(*wait));
            all
        })
    };
    t.answers(
        (v, "udp 53, 29 s later"),
        after(&[29], asked()),
        yes.clone(),
    );
    t.drops(
        (v, "udp 53, 31 s later"),
        after(&[31], asked()),
        yes.clone(),
    );
    let answered = || {
        let mut all = asked();
        all.push(back(yes.clone()));
        all
    };
    t.answers(
        (v, "udp 53 once more, 118 s later"),
        after(&[118], answered()),
        yes.clone(),
    );
    t.drops(
        (v, "udp 53 once more, 121 s later"),
        after(&[121], answered()),
        yes.clone(),
    );
    let mut again = after(&[29], asked());
    again.push(out(v.to_peer(&question())));
    t.answers(
        (v, "udp 53, 29 s after the question was repeated"),
        after(&[29], again),
        yes.clone(),
    );
    let mut dropped = after(&[31], asked());
    dropped.push(back(yes.clone()));
    t.drops((v, "what is dropped begins nothing"), dropped, yes);
}

fn other_protocols(t: &mut Table, v: Version) {
    t.section("protocols that are no TCP or UDP", Rules::Outbound);
    let sctp = |sport, dport| Sctp {
        sport,
        ..Sctp::to(dport)
    };
    let asked = || vec![out(v.to_peer(&sctp(7, 9)))];
    t.answers((v, "sctp"), asked(), v.to_node(&sctp(9, 7)));
    t.drops((v, "sctp, another port"), asked(), v.to_node(&sctp(9, 8)));
    let gre = Raw::new(protocol::GRE, &[0, 0, 0x88, 0xb5, 1, 2, 3, 4]);
    let asked = || vec![out(v.to_peer(&gre))];
    t.answers((v, "GRE"), asked(), v.to_node(&gre));
    t.drops(
        (v, "GRE, another source"),
        asked(),
        between([v.stranger, v.node], &gre),
    );
    let mut late = asked();
    late.push(Before::Wait(602));
    t.drops((v, "GRE, 602 s later"), late, v.to_node(&gre));
}

fn connections(t: &mut Table, v: Version) {
    t.section("TCP is followed by its flags", Rules::Outbound);
    let there = |flags| {
        v.to_peer(&Tcp {
            sport: NODES_PORT,
            flags,
            ..Tcp::to(443)
        })
    };
    let here = |flags| {
        v.to_node(&Tcp {
            sport: 443,
            flags,
            ..Tcp::to(NODES_PORT)
        })
    };
    let begun = || vec![out(there(Tcp::SYN))];
    let open = || {
        vec![
            out(there(Tcp::SYN)),
            back(here(SYN_ACK)),
            out(there(Tcp::ACK)),
        ]
    };
    let and = |mut before: Vec<Before>, more: Before| {
        before.push(more);
        before
    };
    let mut drops = |name, before, flags| t.drops((v, name), before, here(flags));
    drops("SYN+ACK without a SYN", vec![], SYN_ACK);
    drops("RST without a flow", vec![], Tcp::RST);
    drops("RST+ACK without a flow", vec![], Tcp::RST | Tcp::ACK);
    drops("ACK without a flow", vec![], Tcp::ACK);
    drops("FIN without a flow", vec![], Tcp::FIN | Tcp::ACK);
    drops(
        "an ACK after the node's RST",
        vec![out(there(Tcp::RST))],
        Tcp::ACK,
    );
    drops(
        "an ACK after the node's SYN+ACK",
        vec![out(there(SYN_ACK))],
        Tcp::ACK,
    );
    drops(
        "a SYN+ACK, 121 s later",
        and(begun(), Before::Wait(121)),
        SYN_ACK,
    );
    drops(
        "an ACK, 61 s after a half-open handshake",
        and(and(begun(), back(here(SYN_ACK))), Before::Wait(61)),
        Tcp::ACK,
    );
    drops(
        "an ACK after more than 5 days",
        and(open(), Before::Wait(432_001)),
        Tcp::ACK,
    );
    drops(
        "an ACK, 121 s after a FIN",
        and(
            and(open(), back(here(Tcp::FIN | Tcp::ACK))),
            Before::Wait(121),
        ),
        Tcp::ACK,
    );
    drops(
        "an ACK, 11 s after a RST",
        and(and(open(), back(here(Tcp::RST))), Before::Wait(11)),
        Tcp::ACK,
    );
    drops(
        "an ACK, 301 s after what was picked up",
        vec![out(there(Tcp::ACK)), Before::Wait(301)],
        Tcp::ACK,
    );
    let vain = and(and(open(), back(here(Tcp::RST))), Before::Wait(8));
    let vain = and(and(vain, back(here(Tcp::ACK))), Before::Wait(8));
    drops(
        "what comes in vain keeps no reset flow alive",
        vain,
        Tcp::ACK,
    );

    let mut answers = |name, before, flags| t.answers((v, name), before, here(flags));
    answers("SYN+ACK", begun(), SYN_ACK);
    answers("a RST to a SYN", begun(), Tcp::RST | Tcp::ACK);
    answers("a SYN to a SYN", begun(), Tcp::SYN);
    answers(
        "an ACK, four days later",
        and(open(), Before::Wait(345_600)),
        Tcp::ACK,
    );
    answers(
        "an ACK, 118 s after a FIN",
        and(
            and(open(), back(here(Tcp::FIN | Tcp::ACK))),
            Before::Wait(118),
        ),
        Tcp::ACK,
    );
    answers(
        "an ACK, 8 s after a RST",
        and(and(open(), back(here(Tcp::RST))), Before::Wait(8)),
        Tcp::ACK,
    );
    let survived = and(and(open(), back(here(Tcp::RST))), out(there(Tcp::ACK)));
    answers(
        "a RST that the node did not believe, a day later",
        and(survived, Before::Wait(86_400)),
        Tcp::ACK,
    );
    answers(
        "an ACK of what was picked up",
        vec![out(there(Tcp::ACK)), Before::Wait(298)],
        Tcp::ACK,
    );

    let ssh = Tcp::to(22);
    t.push(
        (v, "what a rule allows needs no flow"),
        begun(),
        (Going::In, v.to_node(&ssh)),
        ("pass", "policy_allow", Some(0)),
    );
}

fn echoes(t: &mut Table, v: Version) {
    t.section(
        "an echo request is answered, nothing else is",
        Rules::Outbound,
    );
    let asked = || vec![out(v.to_peer(&*v.echo(true, 5)))];
    t.answers((v, "echo reply"), asked(), v.to_node(&*v.echo(false, 5)));
    t.drops(
        (v, "echo reply to nothing"),
        vec![],
        v.to_node(&*v.echo(false, 5)),
    );
    t.drops(
        (v, "echo reply of another identifier"),
        asked(),
        v.to_node(&*v.echo(false, 6)),
    );
    t.drops(
        (v, "echo request back"),
        asked(),
        v.to_node(&*v.echo(true, 5)),
    );
    t.drops(
        (v, "echo reply to an echo reply"),
        vec![out(v.to_peer(&*v.echo(false, 5)))],
        v.to_node(&*v.echo(false, 5)),
    );
    let mut late = asked();
    late.push(Before::Wait(31));
    t.drops(
        (v, "echo reply, 31 s later"),
        late,
        v.to_node(&*v.echo(false, 5)),
    );
}

fn errors(t: &mut Table, v: Version) {
    t.section("an ICMP error passes about a known flow", Rules::Outbound);
    let to_node = |payload: &dyn Payload| between([v.router, v.node], payload);
    let ours = || packet([v.node, v.peer], &question());
    let asked = || vec![out(v.to_peer(&question()))];
    let whole = v.unreachable(&ours());
    t.answers((v, "unreachable, about ours"), asked(), to_node(&*whole));
    t.answers(
        (v, "unreachable, from the destination"),
        asked(),
        v.to_node(&*whole),
    );
    t.drops(
        (v, "unreachable, about nothing known"),
        vec![],
        to_node(&*whole),
    );
    let header = if v.is_v4() { 20 } else { 40 };
    let (eight, seven) = (ours().cut(header + 8), ours().cut(header + 7));
    t.answers(
        (v, "unreachable, about 8 bytes of ours"),
        asked(),
        to_node(&*v.unreachable(&eight)),
    );
    t.drops(
        (v, "unreachable, about 7 bytes of ours"),
        asked(),
        to_node(&*v.unreachable(&seven)),
    );
    let kinds: &[((u8, u8), &str, bool)] = if v.is_v4() {
        &[
            ((11, 0), "time exceeded, about ours", true),
            ((12, 0), "parameter problem, about ours", true),
            ((4, 0), "source quench, about ours", false),
            ((5, 0), "redirect, about ours", false),
        ]
    } else {
        &[
            ((3, 0), "time exceeded, about ours", true),
            ((4, 1), "parameter problem, about ours", true),
            ((100, 0), "private experimentation, about ours", false),
            ((0, 0), "a type that is none, about ours", false),
        ]
    };
    for (kind, name, passes) in kinds {
        let frame = to_node(&*v.error(*kind, &ours()));
        if *passes {
            t.answers((v, name), asked(), frame);
        } else {
            t.drops((v, name), asked(), frame);
        }
    }
    t.drops(
        (v, "unreachable, about somebody else's"),
        asked(),
        to_node(&*v.unreachable(&packet([v.stranger, v.peer], &question()))),
    );
    t.drops(
        (v, "unreachable, about ours, to somebody else"),
        asked(),
        between([v.router, v.stranger], &*whole),
    );
    t.drops(
        (v, "unreachable, about another port of ours"),
        asked(),
        to_node(&*v.unreachable(&packet([v.node, v.peer], &udp(NODES_PORT, 54)))),
    );
    t.drops(
        (v, "unreachable, about what comes back"),
        asked(),
        to_node(&*v.unreachable(&packet([v.peer, v.node], &answer()))),
    );
    t.answers(
        (v, "unreachable, about our echo request"),
        vec![out(v.to_peer(&*v.echo(true, 5)))],
        to_node(&*v.unreachable(&packet([v.node, v.peer], &*v.echo(true, 5)))),
    );
    t.drops(
        (v, "unreachable, about an echo reply that was a request"),
        vec![out(v.to_peer(&*v.echo(true, 5)))],
        to_node(&*v.unreachable(&packet([v.node, v.peer], &*v.echo(false, 5)))),
    );
    let mut late = asked();
    late.push(Before::Wait(31));
    t.drops((v, "unreachable, 31 s later"), late, to_node(&*whole));
    let mut twice = asked();
    twice.extend([Before::Wait(20), back(to_node(&*whole)), Before::Wait(20)]);
    t.drops(
        (v, "an error keeps no flow alive"),
        twice,
        v.to_node(&answer()),
    );
    let mut later = ours();
    if v.is_v4() {
        later.bytes[7] = 8;
        let name = "unreachable, about a later fragment";
        t.drops((v, name), asked(), to_node(&*v.unreachable(&later)));
        later.bytes[7] = 0;
        later.bytes[6] = 0x20;
        let name = "unreachable, about a first fragment";
        t.answers((v, name), asked(), to_node(&*v.unreachable(&later)));
    }

    t.section(
        "an error about an answer goes out, where the node may send nothing",
        Rules::ClosedBoth,
    );
    let ssh = |sport, dport| Tcp {
        sport,
        ..Tcp::to(dport)
    };
    t.push(
        (v, "unreachable, about what a failsafe let in"),
        vec![back(v.to_node(&ssh(51_515, 22)))],
        (
            Going::Out,
            v.to_peer(&*v.unreachable(&packet([v.peer, v.node], &ssh(51_515, 22)))),
        ),
        ESTABLISHED,
    );
    t.push(
        (v, "unreachable, about what nobody let in"),
        vec![back(v.to_node(&ssh(51_515, 23)))],
        (
            Going::Out,
            v.to_peer(&*v.unreachable(&packet([v.peer, v.node], &ssh(51_515, 23)))),
        ),
        DENIED,
    );
}

fn fragments(t: &mut Table, v: Version) {
    // Those of UDP: no rule asks for a port, so that the default drops them.
    t.section(
        "later fragments go where the first one went",
        Rules::OutboundTrack,
    );
    // Whole, its header says that it is longer.
    let large = |sport, dport| Udp {
        data: vec![0x55; 56],
        ..udp(sport, dport)
    };
    let way = [v.peer, v.node];
    let asked = || vec![out(v.to_peer(&question()))];
    let first = |id| fragment(way, (0, id), &large(53, NODES_PORT));
    let later = |id| fragment(way, (8, id), &large(53, NODES_PORT));
    let begun = || {
        let mut all = asked();
        all.push(back(first(1)));
        all
    };
    let and = |mut before: Vec<Before>, more: Before| {
        before.push(more);
        before
    };
    t.answers((v, "the first one of an answer"), asked(), first(1));
    t.answers((v, "a later one"), begun(), later(1));
    t.drops((v, "one of another identification"), begun(), later(2));
    t.drops(
        (v, "one of another source"),
        begun(),
        fragment([v.stranger, v.node], (8, 1), &large(53, NODES_PORT)),
    );
    t.drops(
        (v, "one of another protocol"),
        begun(),
        fragment(
            way,
            (8, 1),
            &Udp {
                lite: true,
                ..large(53, NODES_PORT)
            },
        ),
    );
    t.answers(
        (v, "one, 8 s later"),
        and(begun(), Before::Wait(8)),
        later(1),
    );
    t.drops(
        (v, "one, 11 s later"),
        and(begun(), Before::Wait(11)),
        later(1),
    );
    let twice = and(and(begun(), Before::Wait(8)), back(later(1)));
    t.drops(
        (v, "one, 11 s later, with others meanwhile"),
        and(twice, Before::Wait(3)),
        later(1),
    );
    t.drops(
        (v, "one whose first one was dropped"),
        vec![back(first(1))],
        later(1),
    );
    t.drops(
        (v, "one whose first one went out"),
        vec![out(fragment(way, (0, 1), &large(53, NODES_PORT)))],
        later(1),
    );
    let ssh = Tcp {
        rest: vec![0; 44],
        ..Tcp::to(22)
    };
    t.push(
        (v, "one that only its header could decide"),
        vec![],
        (Going::In, fragment(way, (8, 3), &ssh)),
        ("drop", "fragment", None),
    );
    t.answers(
        (v, "one of what a rule allowed"),
        vec![back(fragment(way, (0, 3), &ssh))],
        fragment(way, (8, 3), &ssh),
    );
}

fn rules(t: &mut Table, v: Version) {
    t.section("both directions may be closed", Rules::ClosedBoth);
    let ssh = |flags| {
        v.to_node(&Tcp {
            flags,
            ..Tcp::to(22)
        })
    };
    let ssh_back = |flags| {
        v.to_peer(&Tcp {
            sport: 22,
            flags,
            ..Tcp::to(51_515)
        })
    };
    t.push(
        (v, "a failsafe's answer goes out"),
        vec![back(ssh(Tcp::SYN))],
        (Going::Out, ssh_back(SYN_ACK)),
        ESTABLISHED,
    );
    t.push(
        (v, "what was not asked does not go out"),
        vec![],
        (Going::Out, ssh_back(SYN_ACK)),
        DENIED,
    );
    t.push(
        (v, "what was asked at another port does not go out"),
        vec![back(v.to_node(&Tcp::to(23)))],
        (
            Going::Out,
            v.to_peer(&Tcp {
                sport: 23,
                ..Tcp::to(51_515)
            }),
        ),
        DENIED,
    );
    t.push(
        (v, "the node begins nothing towards who asked it"),
        vec![back(ssh(Tcp::SYN))],
        (Going::Out, v.to_peer(&Tcp::to(51_515))),
        DENIED,
    );
    t.answers(
        (v, "what the node may ask is answered"),
        vec![out(v.to_peer(&question()))],
        v.to_node(&answer()),
    );
    t.drops(
        (v, "what it may not ask is not"),
        vec![out(v.to_peer(&udp(NODES_PORT, 54)))],
        v.to_node(&udp(54, NODES_PORT)),
    );

    t.section("a rule that drops is as the default", Rules::NoUdp);
    let yes = v.to_node(&answer());
    t.push(
        (v, "an answer that nobody asked"),
        vec![],
        (Going::In, yes.clone()),
        ("drop", "policy_deny", Some(0)),
    );
    t.answers(
        (v, "an answer"),
        vec![out(v.to_peer(&question()))],
        yes.clone(),
    );
    // The second rule sees ICMP before the ones that drop it.
    t.answers(
        (v, "an echo reply, logged"),
        vec![out(v.to_peer(&*v.echo(true, 5)))],
        v.to_node(&*v.echo(false, 5)),
    );
    t.noting(&[1]);

    t.section("untracked rules know no state", Rules::Untracked);
    t.push(
        (v, "an answer is dropped"),
        vec![out(v.to_peer(&question()))],
        (Going::In, yes.clone()),
        ("drop", "policy_deny", Some(0)),
    );

    t.section("what the rules allow is not remembered", Rules::OpenAnswers);
    t.push(
        (v, "an answer that needs no flow"),
        vec![out(v.to_peer(&question()))],
        (Going::In, yes),
        ("pass", "policy_allow", Some(0)),
    );
    let error = v.unreachable(&packet([v.node, v.peer], &question()));
    t.drops(
        (v, "an error about what is not remembered"),
        vec![out(v.to_peer(&question()))],
        v.to_node(&*error),
    );
}
