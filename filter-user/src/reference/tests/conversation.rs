//! What is remembered of packets: a test for each sentence about state, as packets that
//! go in and out, each with what becomes of it and of the flows.

use std::net::IpAddr;
use std::time::Duration;

use filter_common::abi;

use super::*;
use crate::reference::State::{
    Closing, Established, OneWay, Reset, SynAnswered, SynSent, TwoWay, Unanswered,
};
use crate::reference::{Conversation, Flow, State};
use crate::ruleset::{Direction::Egress, Direction::Ingress, Essentials, Icmp};

const ICMP: u8 = 1;
const GRE: u8 = 47;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// The host, a peer and somebody else.
const HOST: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const PEER: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
const OTHER: [&str; 2] = ["203.0.113.66", "2001:db8:66::66"];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

// ---- packets

/// An IP packet, of the version of the addresses.
fn ip(src: &str, dst: &str, number: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let (ethertype, packet) = bare(src, dst, number, [0; 4], payload);
    ethernet(ethertype, &packet)
}

/// Without an Ethernet header. `fragment`: id and offset field of IPv4.
fn bare(src: IpAddr, dst: IpAddr, number: u8, fragment: [u8; 4], payload: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(payload.len()).unwrap();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut packet = vec![0x45, 0];
            packet.extend((20 + length).to_be_bytes());
            packet.extend(fragment);
            packet.extend([64, number, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            (0x0800, packet)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(length.to_be_bytes());
            packet.extend([number, 64]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            (0x86dd, packet)
        }
        _ => panic!("{src} and {dst}"),
    }
}

/// A fragment at `offset`, in units of 8 bytes.
fn part(
    (src, dst): (&str, &str),
    number: u8,
    id: u32,
    (offset, more): (u16, bool),
    payload: &[u8],
) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let (ethertype, packet) = if src.is_ipv4() {
        let [a, b] = u16::try_from(id).unwrap().to_be_bytes();
        let [c, d] = (offset | u16::from(more) << 13).to_be_bytes();
        bare(src, dst, number, [a, b, c, d], payload)
    } else {
        let mut header = vec![number, 0];
        header.extend((offset << 3 | u16::from(more)).to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend(payload);
        bare(src, dst, 44, [0; 4], &header)
    };
    ethernet(ethertype, &packet)
}

fn ends(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.resize(length, 0);
    header
}

fn segment(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = ends(source, destination, 20);
    header[12] = 0x50;
    header[13] = flags;
    header
}

fn datagram(source: u16, destination: u16) -> Vec<u8> {
    ends(source, destination, 8)
}

fn echo(kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, 0, 0, 0, high, low, 0, 1]
}

/// The packet of a frame without tags.
fn inside(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// An ICMP error of the peer's about a packet.
fn error(kind: u8, about: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 1, 0, 0, 0, 0, 0, 0];
    message.extend(about);
    message
}

// ---- rulesets

fn egress(mut ruleset: Ruleset) -> Ruleset {
    ruleset.direction = Egress;
    for rule in &mut ruleset.rules {
        rule.id.direction = Egress;
    }
    ruleset
}

fn bare_closed() -> Ruleset {
    with(closed(), |options| options.essentials = Essentials::NONE)
}

fn to(net: &str) -> Match {
    Match {
        dst: vec![net.parse().unwrap()].into(),
        ..Match::default()
    }
}

fn source_ports(protocol: u8, ranges: &[(u16, u16)]) -> Match {
    let mut matches = ports(protocol, ranges);
    std::mem::swap(&mut matches.src_ports, &mut matches.dst_ports);
    matches
}

/// The network of one IPv4 address.
fn one(address: &str) -> String {
    format!("{address}/32")
}

fn everything() -> Match {
    Match::default()
}

fn untracked(action: Action, matches: Match) -> Rule {
    rule(action, Stage::Untracked, matches)
}

fn at_the_end(mut rule: Rule) -> Rule {
    rule.id.index = None;
    rule
}

// ---- the lab

/// An endpoint and its clock.
struct Lab<'r> {
    conversation: Conversation<'r>,
    now: Duration,
}

impl<'r> Lab<'r> {
    fn new(ingress: &'r Ruleset, egress: &'r Ruleset) -> Self {
        Self {
            conversation: Conversation::new(ingress, egress),
            // Some beginning: not the one of the flows.
            now: Duration::from_secs(1000),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A frame that no rule of somebody's decides, or that is established.
    #[track_caller]
    fn sends(&mut self, direction: Direction, frame: &[u8], reason: Reason, flows: &[Short]) {
        self.meets(direction, frame, reason, None, flows);
    }

    #[track_caller]
    fn meets(
        &mut self,
        direction: Direction,
        frame: &[u8],
        reason: Reason,
        rule: Option<u32>,
        flows: &[Short],
    ) {
        let judgement = self.conversation.judge(self.now, direction, frame);
        let decision = judgement.decision;
        assert_eq!(
            (decision.verdict, decision.reason, decision.rule),
            (reason.usual_verdict(), reason, rule)
        );
        self.has(flows);
    }

    #[track_caller]
    fn has(&self, flows: &[Short]) {
        let short = |flow: &Flow| (flow.state, flow.forward, flow.back);
        let found: Vec<Short> = self.flows().iter().map(short).collect();
        assert_eq!(found, flows);
    }

    fn flows(&self) -> Vec<Flow> {
        self.conversation.flows(self.now)
    }

    /// When the only flow saw a packet last.
    fn last_seen(&self) -> Duration {
        let [flow] = &self.flows()[..] else {
            panic!("{:?}", self.flows());
        };
        flow.seen
    }
}

/// State, packets forward, packets back.
type Short = (State, u64, u64);

/// Both versions: host, peer, somebody else.
fn versions() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    (0..2).map(|version| (HOST[version], PEER[version], OTHER[version]))
}

/// TCP between port 40000 of one and port 80 of the other, both ways.
fn tcp_between<'a>(
    one: &'a str,
    other: &'a str,
) -> (impl Fn(u8) -> Vec<u8> + 'a, impl Fn(u8) -> Vec<u8> + 'a) {
    (
        move |flags| ip(one, other, TCP, &segment(40000, 80, flags)),
        move |flags| ip(other, one, TCP, &segment(80, 40000, flags)),
    )
}

const ALLOW: Reason = Reason::DefaultAllow;
const DENY: Reason = Reason::DefaultDeny;
const KNOWN: Reason = Reason::Established;

// ---- TCP

#[test]
fn a_tcp_connection_from_the_first_to_the_last_packet() {
    let (closed, open) = (closed(), egress(open()));
    for (host, peer, _) in versions() {
        let (goes, comes) = tcp_between(host, peer);
        let mut lab = Lab::new(&closed, &open);
        lab.sends(Ingress, &comes(SYN | ACK), DENY, &[]);
        lab.sends(Egress, &goes(SYN), ALLOW, &[(SynSent, 1, 0)]);
        lab.sends(Ingress, &comes(SYN | ACK), KNOWN, &[(SynAnswered, 1, 1)]);
        lab.sends(Egress, &goes(ACK), ALLOW, &[(Established, 2, 1)]);
        lab.sends(Ingress, &comes(ACK), KNOWN, &[(Established, 2, 2)]);
        lab.wait(432_000);
        lab.sends(Ingress, &comes(ACK), KNOWN, &[(Established, 2, 3)]);
        lab.sends(Ingress, &comes(FIN | ACK), KNOWN, &[(Closing, 2, 4)]);
        lab.sends(Egress, &goes(FIN | ACK), ALLOW, &[(Closing, 3, 4)]);
        lab.sends(Ingress, &comes(ACK), KNOWN, &[(Closing, 3, 5)]);
        lab.wait(120);
        lab.has(&[(Closing, 3, 5)]);
        lab.wait(1);
        lab.has(&[]);
        lab.sends(Ingress, &comes(ACK), DENY, &[]);
    }
}

#[test]
fn a_tcp_connection_from_outside() {
    let ingress = ruleset(Action::Deny, &[allow(ports(TCP, &[(80, 80)]))]);
    let egress = egress(closed());
    for (host, peer, _) in versions() {
        let (comes, goes) = tcp_between(peer, host);
        let mut lab = Lab::new(&ingress, &egress);
        let allowed = Reason::PolicyAllow;
        lab.sends(Egress, &goes(SYN | ACK), DENY, &[]);
        lab.meets(Ingress, &comes(SYN), allowed, Some(0), &[(SynSent, 1, 0)]);
        assert_eq!(
            lab.flows(),
            [Flow {
                begun: Ingress,
                src: peer.parse().unwrap(),
                dst: host.parse().unwrap(),
                protocol: 6,
                numbers: [40000, 80],
                state: SynSent,
                forward: 1,
                back: 0,
                seen: Duration::from_secs(1000),
            }]
        );
        lab.wait(3);
        lab.sends(Egress, &goes(SYN | ACK), KNOWN, &[(SynAnswered, 1, 1)]);
        assert_eq!(lab.last_seen(), Duration::from_secs(1003));
        let established = &[(Established, 2, 1)];
        lab.meets(Ingress, &comes(ACK), allowed, Some(0), established);
        lab.sends(Egress, &goes(FIN), KNOWN, &[(Closing, 2, 2)]);
        lab.sends(Egress, &goes(RST), KNOWN, &[(Reset, 2, 3)]);
    }
}

/// Brings a flow to a state, and says how many packets it then has seen, forward and
/// back. Made by packets of the one who began it and of the other.
fn brought_to(state: State) -> &'static [(bool, u8)] {
    const FORWARD: bool = true;
    const BACK: bool = false;
    match state {
        SynSent => &[(FORWARD, SYN)],
        SynAnswered => &[(FORWARD, SYN), (BACK, SYN | ACK)],
        Established => &[(FORWARD, SYN), (BACK, SYN | ACK), (FORWARD, ACK)],
        Closing => &[(FORWARD, FIN)],
        Reset => &[(FORWARD, SYN), (BACK, SYN | ACK), (FORWARD, RST)],
        Unanswered => &[(FORWARD, ACK)],
        OneWay | TwoWay => panic!("not TCP"),
    }
}

/// What becomes of each state by a packet; `None`: it stays as it is.
const TRANSITIONS: &[(bool, u8, [Option<State>; 5])] = {
    const NO: Option<State> = None;
    &[
        // Syn_sent, syn_answered, established, closing, unanswered; forward.
        (true, SYN, [NO, NO, NO, Some(SynSent), NO]),
        (true, SYN | FIN, [NO, NO, NO, Some(SynSent), NO]),
        (true, SYN | ACK, [NO; 5]),
        (true, SYN | ACK | FIN, [NO; 5]),
        (true, FIN, [Some(Closing); 5]),
        (true, FIN | ACK, [Some(Closing); 5]),
        (true, RST, [Some(Reset); 5]),
        (true, RST | ACK, [Some(Reset); 5]),
        (true, RST | SYN | FIN, [Some(Reset); 5]),
        (true, ACK, [NO, Some(Established), NO, NO, NO]),
        (true, 0, [NO, Some(Established), NO, NO, NO]),
        // PSH and URG, ECE and CWR.
        (true, 0xe8, [NO, Some(Established), NO, NO, NO]),
        // Replies.
        (false, SYN, [Some(SynAnswered), NO, NO, NO, NO]),
        (false, SYN | FIN, [Some(SynAnswered), NO, NO, NO, NO]),
        (false, SYN | ACK, [Some(SynAnswered), NO, NO, NO, NO]),
        (false, SYN | ACK | FIN, [Some(SynAnswered), NO, NO, NO, NO]),
        (false, FIN, [Some(Closing); 5]),
        (false, FIN | ACK, [Some(Closing); 5]),
        (false, RST, [Some(Reset); 5]),
        (false, RST | ACK, [Some(Reset); 5]),
        (false, RST | SYN | ACK, [Some(Reset); 5]),
        (false, ACK, [NO, NO, NO, NO, Some(Established)]),
        (false, 0, [NO, NO, NO, NO, Some(Established)]),
        (false, 0xe8, [NO, NO, NO, NO, Some(Established)]),
    ]
};

/// An endpoint at which one direction is open and the other one closed, so that what
/// the open one lets begin is remembered.
fn half_open(begun: Direction) -> (Ruleset, Ruleset) {
    match begun {
        Egress => (closed(), egress(open())),
        Ingress => (open(), egress(closed())),
    }
}

fn other_way(direction: Direction) -> Direction {
    match direction {
        Ingress => Egress,
        Egress => Ingress,
    }
}

#[test]
fn every_transition_of_tcp() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        for (host, peer, _) in versions() {
            let (forward, back) = tcp_between(host, peer);
            let step = |lab: &mut Lab<'_>, goes: bool, flags: u8| {
                let (direction, frame, reason) = if goes {
                    (begun, forward(flags), ALLOW)
                } else {
                    (other_way(begun), back(flags), KNOWN)
                };
                let judgement = lab.conversation.judge(lab.now, direction, &frame);
                assert_eq!(judgement.decision.reason, reason);
            };
            for &(goes, flags, becomes) in TRANSITIONS {
                let states = [SynSent, SynAnswered, Established, Closing, Unanswered];
                for (state, next) in states.into_iter().zip(becomes) {
                    let mut lab = Lab::new(&ingress, &egress);
                    for &(goes, flags) in brought_to(state) {
                        step(&mut lab, goes, flags);
                    }
                    let [before] = &lab.flows()[..] else {
                        panic!("one flow");
                    };
                    assert_eq!(before.state, state);
                    lab.wait(5);
                    step(&mut lab, goes, flags);
                    let after = Flow {
                        state: next.unwrap_or(state),
                        forward: before.forward + u64::from(goes),
                        back: before.back + u64::from(!goes),
                        seen: before.seen + Duration::from_secs(5),
                        ..before.clone()
                    };
                    assert_eq!(lab.flows(), [after], "{state:?} {goes} {flags:#x}");
                }
            }
        }
    }
}

#[test]
fn every_transition_out_of_a_reset() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        let (forward, back) = tcp_between(HOST[0], PEER[0]);
        for goes in [true, false] {
            for (flags, by_the_host) in [
                (SYN, if goes { SynSent } else { Established }),
                (SYN | FIN, if goes { SynSent } else { Established }),
                (SYN | ACK, Established),
                (FIN, Established),
                (FIN | ACK, Established),
                (ACK, Established),
                (0, Established),
                (RST, Reset),
                (RST | ACK, Reset),
                (RST | SYN, Reset),
            ] {
                let mut lab = Lab::new(&ingress, &egress);
                let step = |lab: &mut Lab<'_>, goes: bool, flags: u8| {
                    let (direction, frame) = if goes {
                        (begun, forward(flags))
                    } else {
                        (other_way(begun), back(flags))
                    };
                    let judgement = lab.conversation.judge(lab.now, direction, &frame);
                    assert_eq!(judgement.decision.verdict, Verdict::Pass);
                    direction
                };
                // An RST of the host's: it makes no difference who sent it.
                for &(goes, flags) in &brought_to(Established)[..3] {
                    step(&mut lab, goes, flags);
                }
                step(&mut lab, begun == Egress, RST);
                let before = lab.flows()[0].clone();
                assert_eq!(before.state, Reset);
                lab.wait(7);
                let direction = step(&mut lab, goes, flags);
                let after = match direction {
                    // Not even when it was seen last.
                    Ingress => before,
                    Egress => Flow {
                        state: by_the_host,
                        forward: before.forward + u64::from(goes),
                        back: before.back + u64::from(!goes),
                        seen: before.seen + Duration::from_secs(7),
                        ..before
                    },
                };
                assert_eq!(lab.flows(), [after], "{begun:?} {goes} {flags:#x}");
            }
        }
    }
}

#[test]
fn a_spoofed_reset_ends_nothing_if_the_host_goes_on() {
    let (closed, open) = (closed(), egress(open()));
    let (goes, comes) = tcp_between(HOST[0], PEER[0]);
    let mut lab = Lab::new(&closed, &open);
    for &(forward, flags) in brought_to(Established) {
        let (direction, frame) = if forward {
            (Egress, goes(flags))
        } else {
            (Ingress, comes(flags))
        };
        lab.conversation.judge(lab.now, direction, &frame);
    }
    lab.has(&[(Established, 2, 1)]);
    // Somebody else's RST with the right ports.
    lab.sends(Ingress, &comes(RST), KNOWN, &[(Reset, 2, 2)]);
    lab.wait(5);
    // What the peer sends meanwhile still passes, and changes nothing.
    lab.sends(Ingress, &comes(ACK), KNOWN, &[(Reset, 2, 2)]);
    lab.sends(Ingress, &comes(RST), KNOWN, &[(Reset, 2, 2)]);
    lab.wait(5);
    lab.sends(Egress, &goes(ACK), ALLOW, &[(Established, 3, 2)]);
    lab.wait(400_000);
    lab.sends(Ingress, &comes(ACK), KNOWN, &[(Established, 3, 3)]);
    // And where the host does not go on, ten seconds are all there is, however much
    // comes in.
    lab.sends(Ingress, &comes(RST), KNOWN, &[(Reset, 3, 4)]);
    for _ in 0..10 {
        lab.wait(1);
        lab.sends(Ingress, &comes(ACK), KNOWN, &[(Reset, 3, 4)]);
    }
    lab.wait(1);
    lab.sends(Ingress, &comes(ACK), DENY, &[]);
}

#[test]
fn a_reset_of_an_inbound_connection() {
    let (open, closed) = (open(), egress(closed()));
    let (comes, goes) = tcp_between(PEER[0], HOST[0]);
    let mut lab = Lab::new(&open, &closed);
    lab.sends(Ingress, &comes(SYN), ALLOW, &[(SynSent, 1, 0)]);
    lab.sends(Ingress, &comes(RST), ALLOW, &[(Reset, 2, 0)]);
    // The client tries again: nothing changes until the host answers.
    lab.sends(Ingress, &comes(SYN), ALLOW, &[(Reset, 2, 0)]);
    lab.sends(Egress, &goes(SYN | ACK), KNOWN, &[(Established, 2, 1)]);
    lab.sends(Egress, &goes(RST), KNOWN, &[(Reset, 2, 2)]);
    lab.wait(10);
    // One more of the host's keeps it for ten seconds more.
    lab.sends(Egress, &goes(RST), KNOWN, &[(Reset, 2, 3)]);
    lab.wait(10);
    lab.has(&[(Reset, 2, 3)]);
    lab.wait(1);
    lab.sends(Ingress, &comes(SYN), ALLOW, &[(SynSent, 1, 0)]);
}

#[test]
fn a_connection_picked_up_in_the_middle() {
    let (closed, open) = (closed(), egress(open()));
    let (goes, comes) = tcp_between(HOST[0], PEER[0]);
    let mut lab = Lab::new(&closed, &open);
    lab.sends(Egress, &goes(ACK), ALLOW, &[(Unanswered, 1, 0)]);
    lab.wait(300);
    lab.sends(Egress, &goes(ACK), ALLOW, &[(Unanswered, 2, 0)]);
    lab.wait(300);
    lab.sends(Ingress, &comes(ACK), KNOWN, &[(Established, 2, 1)]);
    let mut lab = Lab::new(&closed, &open);
    lab.sends(Egress, &goes(ACK), ALLOW, &[(Unanswered, 1, 0)]);
    lab.wait(301);
    lab.sends(Ingress, &comes(ACK), DENY, &[]);
    // At its end.
    lab.sends(Egress, &goes(FIN | ACK), ALLOW, &[(Closing, 1, 0)]);
    lab.sends(Ingress, &comes(FIN | ACK), KNOWN, &[(Closing, 1, 1)]);
    // Without any flag.
    lab.wait(121);
    lab.sends(Egress, &goes(0), ALLOW, &[(Unanswered, 1, 0)]);
}

#[test]
fn a_port_is_used_again() {
    let (closed, open) = (closed(), egress(open()));
    let (goes, comes) = tcp_between(HOST[0], PEER[0]);
    let mut lab = Lab::new(&closed, &open);
    // After a FIN: the same flow begins again.
    lab.sends(Egress, &goes(FIN), ALLOW, &[(Closing, 1, 0)]);
    lab.sends(Egress, &goes(SYN), ALLOW, &[(SynSent, 2, 0)]);
    lab.sends(Ingress, &comes(SYN | ACK), KNOWN, &[(SynAnswered, 2, 1)]);
    // After a reset.
    lab.sends(Ingress, &comes(RST), KNOWN, &[(Reset, 2, 2)]);
    lab.sends(Egress, &goes(SYN), ALLOW, &[(SynSent, 3, 2)]);
    // After its end: a flow of its own.
    lab.wait(121);
    lab.sends(Egress, &goes(SYN), ALLOW, &[(SynSent, 1, 0)]);
}

#[test]
fn both_ends_send_a_syn() {
    let (closed, open) = (closed(), egress(open()));
    let (goes, comes) = tcp_between(HOST[0], PEER[0]);
    let mut lab = Lab::new(&closed, &open);
    lab.sends(Egress, &goes(SYN), ALLOW, &[(SynSent, 1, 0)]);
    lab.sends(Ingress, &comes(SYN), KNOWN, &[(SynAnswered, 1, 1)]);
    lab.sends(Egress, &goes(SYN | ACK), ALLOW, &[(SynAnswered, 2, 1)]);
    lab.sends(Ingress, &comes(SYN | ACK), KNOWN, &[(SynAnswered, 2, 2)]);
    lab.sends(Egress, &goes(ACK), ALLOW, &[(Established, 3, 2)]);
}

#[test]
fn what_begins_no_tcp_flow() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        for (host, peer, _) in versions() {
            let (forward, back) = tcp_between(host, peer);
            let mut lab = Lab::new(&ingress, &egress);
            for flags in [
                RST,
                RST | ACK,
                RST | SYN,
                RST | FIN,
                SYN | ACK,
                SYN | ACK | FIN,
                0xff,
            ] {
                lab.sends(begun, &forward(flags), ALLOW, &[]);
                lab.sends(other_way(begun), &back(ACK), DENY, &[]);
            }
            // But a SYN with FIN does.
            lab.sends(begun, &forward(SYN | FIN), ALLOW, &[(SynSent, 1, 0)]);
            // And what begins none may be a part of one.
            lab.sends(begun, &forward(SYN | ACK), ALLOW, &[(SynSent, 2, 0)]);
        }
    }
}

// ---- anything else than TCP

/// A protocol's packets to and fro, the numbers of its flow, and how long it lives one
/// way and two.
type Protocol = (u8, Vec<u8>, Vec<u8>, [u16; 2], [u64; 2]);

fn other_than_tcp(v6: bool) -> Vec<Protocol> {
    let request = if v6 { [128, 129] } else { [8, 0] };
    let with_ports = |number, length, timeouts| {
        (
            number,
            ends(40000, 53, length),
            ends(53, 40000, length),
            [40000, 53],
            timeouts,
        )
    };
    vec![
        with_ports(UDP, 8, [30, 120]),
        with_ports(UDP_LITE, 8, [30, 120]),
        with_ports(SCTP, 12, [30, 210]),
        (
            if v6 { ICMPV6 } else { ICMP },
            echo(request[0], 0x1234),
            echo(request[1], 0x1234),
            [0x1234; 2],
            [30, 30],
        ),
        // What looks like ports isn't.
        (GRE, ends(1, 2, 8), ends(3, 4, 8), [0, 0], [600, 600]),
        (50, vec![], vec![], [0, 0], [600, 600]),
        (253, vec![1], vec![2; 40], [0, 0], [600, 600]),
    ]
}

#[test]
fn one_way_and_two_ways_of_each_protocol() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        let answered = other_way(begun);
        for (host, peer, _) in versions() {
            for (number, to, fro, numbers, [one_way, two_way]) in other_than_tcp(host.contains(':'))
            {
                let forward = ip(host, peer, number, &to);
                let back = ip(peer, host, number, &fro);
                let mut lab = Lab::new(&ingress, &egress);
                lab.sends(answered, &back, DENY, &[]);
                lab.sends(begun, &forward, ALLOW, &[(OneWay, 1, 0)]);
                assert_eq!(
                    lab.flows(),
                    [Flow {
                        begun,
                        src: host.parse().unwrap(),
                        dst: peer.parse().unwrap(),
                        protocol: number,
                        numbers,
                        state: OneWay,
                        forward: 1,
                        back: 0,
                        seen: Duration::from_secs(1000),
                    }]
                );
                // Just live.
                lab.wait(one_way);
                lab.sends(begun, &forward, ALLOW, &[(OneWay, 2, 0)]);
                assert_eq!(lab.last_seen(), Duration::from_secs(1000 + one_way));
                // Just dead: the next one begins another.
                lab.wait(one_way + 1);
                lab.has(&[]);
                lab.sends(answered, &back, DENY, &[]);
                lab.sends(begun, &forward, ALLOW, &[(OneWay, 1, 0)]);
                lab.wait(one_way);
                lab.sends(answered, &back, KNOWN, &[(TwoWay, 1, 1)]);
                lab.wait(two_way);
                lab.sends(answered, &back, KNOWN, &[(TwoWay, 1, 2)]);
                lab.sends(begun, &forward, ALLOW, &[(TwoWay, 2, 2)]);
                lab.wait(two_way);
                lab.has(&[(TwoWay, 2, 2)]);
                lab.now += Duration::from_nanos(1);
                lab.has(&[]);
                lab.sends(answered, &back, DENY, &[]);
            }
        }
    }
}

#[test]
fn the_timeouts_of_tcp() {
    for (state, timeout) in [
        (SynSent, 120),
        (SynAnswered, 60),
        (Established, 432_000),
        (Closing, 120),
        (Reset, 10),
        (Unanswered, 300),
    ] {
        let (closed, open) = (closed(), egress(open()));
        let (goes, comes) = tcp_between(HOST[0], PEER[0]);
        for late in [0, 1] {
            let mut lab = Lab::new(&closed, &open);
            for &(forward, flags) in brought_to(state) {
                let (direction, frame) = if forward {
                    (Egress, goes(flags))
                } else {
                    (Ingress, comes(flags))
                };
                lab.conversation.judge(lab.now, direction, &frame);
            }
            lab.wait(timeout + late);
            assert_eq!(lab.flows().len(), 1 - usize::try_from(late).unwrap());
            let decision = lab
                .conversation
                .judge(lab.now, Ingress, &comes(ACK))
                .decision;
            assert_eq!(
                decision.reason,
                if late == 0 { KNOWN } else { DENY },
                "{state:?}"
            );
        }
    }
}

// ---- the tuple

#[test]
fn a_reply_has_all_of_the_tuple() {
    let (closed, open) = (closed(), egress(open()));
    for (host, peer, other) in versions() {
        let mut lab = Lab::new(&closed, &open);
        let only: &[Short] = &[(OneWay, 1, 0)];
        let query = ip(host, peer, UDP, &datagram(40000, 53));
        lab.sends(Egress, &query, ALLOW, only);
        for (src, dst, number, source, destination) in [
            (other, host, UDP, 53, 40000),
            (peer, other, UDP, 53, 40000),
            (peer, host, UDP_LITE, 53, 40000),
            (peer, host, UDP, 54, 40000),
            (peer, host, UDP, 53, 40001),
            // The ports as they went out; the same packet, come back.
            (peer, host, UDP, 40000, 53),
            (host, peer, UDP, 40000, 53),
        ] {
            let frame = ip(src, dst, number, &datagram(source, destination));
            lab.sends(Ingress, &frame, DENY, only);
        }
        for number in [TCP, SCTP] {
            let frame = ip(peer, host, number, &segment(53, 40000, ACK));
            lab.sends(Ingress, &frame, DENY, only);
        }
        let answer = ip(peer, host, UDP, &datagram(53, 40000));
        lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
        // Going out it is no answer, but begins something.
        let both = &[(TwoWay, 1, 1), (OneWay, 1, 0)];
        lab.sends(Egress, &answer, ALLOW, both);
    }
}

#[test]
fn a_source_port_alone_lets_nobody_in() {
    let (closed, open) = (closed(), egress(open()));
    let mut lab = Lab::new(&closed, &open);
    for (host, peer, _) in versions() {
        for port in [53, 80, 443, 123] {
            let frame = ip(peer, host, UDP, &datagram(port, 40000));
            lab.sends(Ingress, &frame, DENY, &[]);
            for flags in [SYN | ACK, ACK, RST, FIN | ACK] {
                let frame = ip(peer, host, TCP, &segment(port, 40000, flags));
                lab.sends(Ingress, &frame, DENY, &[]);
            }
        }
    }
}

#[test]
fn the_versions_are_apart() {
    // The same bits at the end of an IPv6 address.
    let (closed, open) = (closed(), egress(open()));
    let mut lab = Lab::new(&closed, &open);
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    let mapped = |address: &str| format!("::ffff:{address}");
    let answer = ip(
        &mapped(PEER[0]),
        &mapped(HOST[0]),
        UDP,
        &datagram(53, 40000),
    );
    lab.sends(Ingress, &answer, DENY, &[(OneWay, 1, 0)]);
}

#[test]
fn an_echo_is_known_by_its_identifier() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        let answered = other_way(begun);
        for (host, peer, _) in versions() {
            let (number, request, reply) = if host.contains(':') {
                (ICMPV6, 128, 129)
            } else {
                (ICMP, 8, 0)
            };
            let message = |src, dst, kind, id| ip(src, dst, number, &echo(kind, id));
            let mut lab = Lab::new(&ingress, &egress);
            let one: &[Short] = &[(OneWay, 1, 0)];
            lab.sends(answered, &message(peer, host, reply, 7), DENY, &[]);
            lab.sends(begun, &message(host, peer, request, 7), ALLOW, one);
            lab.sends(answered, &message(peer, host, reply, 8), DENY, one);
            // A request is no answer to a request.
            lab.sends(answered, &message(peer, host, request, 7), DENY, one);
            let two: &[Short] = &[(TwoWay, 1, 1)];
            lab.sends(answered, &message(peer, host, reply, 7), KNOWN, two);
            // Nor does a reply go along it forward, or begin one.
            lab.sends(begun, &message(host, peer, reply, 7), ALLOW, two);
            lab.sends(begun, &message(host, peer, reply, 9), ALLOW, two);
            // Whatever the code.
            let mut odd = message(peer, host, reply, 7);
            let code = odd.len() - 7;
            odd[code] = 5;
            lab.sends(answered, &odd, KNOWN, &[(TwoWay, 1, 2)]);
            let mut odd = message(host, peer, request, 7);
            odd[code] = 6;
            lab.sends(begun, &odd, ALLOW, &[(TwoWay, 2, 2)]);
        }
    }
}

#[test]
fn no_other_icmp_has_a_tuple() {
    let (closed, open) = (bare_closed(), egress(open()));
    let mut lab = Lab::new(&closed, &open);
    // Timestamp, address mask, router solicitation, errors; the types of the other ICMP.
    for kind in [3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 128, 129, 255] {
        let frame = ip(HOST[0], PEER[0], ICMP, &echo(kind, 7));
        lab.sends(Egress, &frame, ALLOW, &[]);
    }
    for kind in [0, 1, 2, 3, 4, 8, 130, 133, 135, 136, 139, 255] {
        let frame = ip(HOST[1], PEER[1], ICMPV6, &echo(kind, 7));
        lab.sends(Egress, &frame, ALLOW, &[]);
    }
    let answer = ip(PEER[0], HOST[0], ICMP, &echo(14, 7));
    lab.sends(Ingress, &answer, DENY, &[]);
}

#[test]
fn what_does_not_show_its_l4_header_has_no_tuple() {
    let (closed, open) = (closed(), egress(open()));
    for (host, peer, _) in versions() {
        let mut lab = Lab::new(&closed, &open);
        let later = |src, dst| part((src, dst), UDP, 1, (9, false), &datagram(40000, 53));
        lab.sends(Egress, &later(host, peer), ALLOW, &[]);
        let short = ip(host, peer, UDP, &datagram(40000, 53)[..7]);
        lab.sends(Egress, &short, ALLOW, &[]);
        // A first fragment has one.
        let first = part((host, peer), UDP, 1, (0, true), &datagram(40000, 53));
        lab.sends(Egress, &first, ALLOW, &[(OneWay, 1, 0)]);
        let answer = part((peer, host), UDP, 2, (0, true), &datagram(53, 40000));
        lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
        // What has none is no answer.
        lab.sends(Ingress, &later(peer, host), DENY, &[(TwoWay, 1, 1)]);
        let short = ip(peer, host, UDP, &datagram(53, 40000)[..7]);
        lab.sends(Ingress, &short, DENY, &[(TwoWay, 1, 1)]);
    }
    // Of any protocol.
    let mut lab = Lab::new(&closed, &open);
    let frame = ip(HOST[0], PEER[0], GRE, &[]);
    lab.sends(Egress, &frame, ALLOW, &[(OneWay, 1, 0)]);
    let later = part((PEER[0], HOST[0]), GRE, 1, (9, false), &[]);
    lab.sends(Ingress, &later, DENY, &[(OneWay, 1, 0)]);
}

#[test]
fn a_reply_may_have_options_extension_headers_and_tags() {
    let (closed, open) = (closed(), egress(open()));
    let mut lab = Lab::new(&closed, &open);
    let query = [extension(60), extension(UDP), datagram(40000, 53)].concat();
    let frame = ip(HOST[1], PEER[1], 0, &query);
    lab.sends(Egress, &frame, ALLOW, &[(OneWay, 1, 0)]);
    let answer = ip(PEER[1], HOST[1], UDP, &datagram(53, 40000));
    lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
    let answer = [extension(UDP), datagram(53, 40000)].concat();
    let frame = ip(PEER[1], HOST[1], 60, &answer);
    lab.sends(Ingress, &frame, KNOWN, &[(TwoWay, 1, 2)]);
    let tagged = [&frame[..12], &[0x81, 0, 0, 1], &frame[12..]].concat();
    lab.sends(Ingress, &tagged, KNOWN, &[(TwoWay, 1, 3)]);
    // A chain that hides the protocol.
    let hidden = ip(PEER[1], HOST[1], 60, &[UDP, 9]);
    lab.sends(Ingress, &hidden, DENY, &[(TwoWay, 1, 3)]);

    let mut lab = Lab::new(&closed, &open);
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    let mut answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    answer[14] = 0x46;
    answer[17] += 4;
    answer.splice(34..34, [1; 4]);
    lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
}

#[test]
fn flows_of_both_directions_are_apart() {
    // Both let out what comes from the host's address, and nothing else.
    let ingress = ruleset(Action::Deny, &[allow(from(&one(HOST[0])))]);
    let egress = egress(ingress.clone());
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    let answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    let mut lab = Lab::new(&ingress, &egress);
    let allowed = Reason::PolicyAllow;
    lab.meets(Egress, &query, allowed, Some(0), &[(OneWay, 1, 0)]);
    // Where it went out, nothing comes back.
    lab.sends(Egress, &answer, DENY, &[(OneWay, 1, 0)]);
    // The same tuple the other way: a flow of its own. Ingress is first in order.
    let both = &[(OneWay, 1, 0), (OneWay, 1, 0)];
    lab.meets(Ingress, &query, allowed, Some(0), both);
    lab.sends(Ingress, &answer, KNOWN, &[(OneWay, 1, 0), (TwoWay, 1, 1)]);
    lab.sends(Egress, &answer, KNOWN, &[(TwoWay, 1, 1), (TwoWay, 1, 1)]);
    let begun: Vec<_> = lab.flows().iter().map(|flow| flow.begun).collect();
    assert_eq!(begun, [Ingress, Egress]);
}

// ---- where no flow is kept

#[test]
fn nothing_is_kept_where_the_other_side_allows() {
    let (open_in, open_out) = (open(), egress(open()));
    for (host, peer, _) in versions() {
        let mut lab = Lab::new(&open_in, &open_out);
        let (goes, _) = tcp_between(host, peer);
        lab.sends(Egress, &goes(SYN), ALLOW, &[]);
        lab.sends(Ingress, &goes(SYN), ALLOW, &[]);
    }
}

#[test]
fn the_reverse_packet_has_everything_swapped() {
    let query = ip(HOST[0], PEER[0], TCP, &segment(40000, 80, SYN));
    let keeps = |ingress: &Ruleset, frame: &[u8]| {
        let open = egress(open());
        let mut conversation = Conversation::new(ingress, &open);
        conversation.judge(Duration::ZERO, Egress, frame);
        !conversation.flows(Duration::ZERO).is_empty()
    };
    for (kept, condition) in [
        // What would let the answer in.
        (false, everything()),
        (false, protocol(TCP)),
        (false, ports(TCP, &[(40000, 40000)])),
        (false, source_ports(TCP, &[(80, 80)])),
        (false, from(&one(PEER[0]))),
        (false, to(&one(HOST[0]))),
        // And what looks at it from the wrong end.
        (true, protocol(UDP)),
        (true, ports(TCP, &[(80, 80)])),
        (true, source_ports(TCP, &[(40000, 40000)])),
        (true, from(&one(HOST[0]))),
        (true, to(&one(PEER[0]))),
    ] {
        let allows = ruleset(Action::Deny, &[allow(condition.clone())]);
        assert_eq!(keeps(&allows, &query), kept, "{condition:?}");
        let denies = ruleset(Action::Allow, &[deny(condition.clone())]);
        assert_eq!(keeps(&denies, &query), !kept, "{condition:?}");
    }
    for (version, number, request, reply) in [(0, ICMP, 8, 0), (1, ICMPV6, 128, 129)] {
        let frame = ip(HOST[version], PEER[version], number, &echo(request, 7));
        for (kept, kind, code) in [
            (false, reply, None),
            (false, reply, Some(0)),
            (true, reply, Some(1)),
            (true, request, None),
        ] {
            let condition = Match {
                icmp: Some(Icmp { kind, code }),
                ..protocol(number)
            };
            let allows = ruleset(Action::Deny, &[allow(condition)]);
            assert_eq!(keeps(&allows, &frame), kept, "{number} {kind} {code:?}");
            // The code is the same.
            let mut coded = frame.clone();
            let at = coded.len() - 7;
            coded[at] = 1;
            let kept = kind != reply || code == Some(0);
            assert_eq!(keeps(&allows, &coded), kept, "{number} {kind} {code:?}");
        }
    }
}

#[test]
fn the_reverse_of_a_fragment_or_a_chain_is_a_whole_packet() {
    // Were it a fragment, it could not be decided, and that is not stateful.
    let denies = ruleset(Action::Allow, &[deny(ports(UDP, &[(40000, 40000)]))]);
    let open = egress(open());
    for (host, peer, _) in versions() {
        let mut lab = Lab::new(&denies, &open);
        let first = part((host, peer), UDP, 1, (0, true), &datagram(40000, 53));
        lab.sends(Egress, &first, ALLOW, &[(OneWay, 1, 0)]);
    }
    let mut lab = Lab::new(&denies, &open);
    let chain = [extension(UDP), datagram(40000, 53)].concat();
    let frame = ip(HOST[1], PEER[1], 60, &chain);
    lab.sends(Egress, &frame, ALLOW, &[(OneWay, 1, 0)]);
}

const fn all_or_none(essentials: bool) -> Essentials {
    if essentials {
        Essentials::ALL
    } else {
        Essentials::NONE
    }
}

#[test]
fn nothing_is_kept_where_the_reverse_is_an_essential() {
    let open = egress(open());
    for (essentials, kept) in [(true, false), (false, true)] {
        let closed = with(closed(), |options| {
            options.essentials = all_or_none(essentials);
        });
        for (version, number, payload) in [
            (0, UDP, datagram(68, 67)),
            (1, UDP, datagram(546, 547)),
            (0, 2, vec![0x16; 8]),
        ] {
            let mut lab = Lab::new(&closed, &open);
            let frame = ip(HOST[version], PEER[version], number, &payload);
            let flows: &[Short] = if kept { &[(OneWay, 1, 0)] } else { &[] };
            lab.sends(Egress, &frame, ALLOW, flows);
        }
    }
    // And an essential that passes begins none, though nothing would let its reverse in.
    let closed_in = with(closed(), |options| options.essentials = Essentials::NONE);
    let closed_out = egress(closed());
    let mut lab = Lab::new(&closed_in, &closed_out);
    let frame = ip(HOST[0], PEER[0], UDP, &datagram(68, 67));
    lab.sends(Egress, &frame, Reason::Essential, &[]);
    let frame = ip(PEER[0], HOST[0], UDP, &datagram(67, 68));
    lab.sends(Ingress, &frame, DENY, &[]);
}

#[test]
fn what_goes_to_many_begins_none() {
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        let mut lab = Lab::new(&ingress, &egress);
        for many in [
            "224.0.0.0",
            "224.0.0.251",
            "239.255.255.255",
            "255.255.255.255",
        ] {
            let frame = ip(HOST[0], many, UDP, &datagram(40000, 53));
            lab.sends(begun, &frame, ALLOW, &[]);
            let frame = ip(HOST[0], many, GRE, &[]);
            lab.sends(begun, &frame, ALLOW, &[]);
            let frame = ip(HOST[0], many, ICMP, &echo(8, 7));
            lab.sends(begun, &frame, ALLOW, &[]);
        }
        for many in [
            "ff00::",
            "ff02::fb",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let frame = ip(HOST[1], many, UDP, &datagram(40000, 53));
            lab.sends(begun, &frame, ALLOW, &[]);
        }
        // What stands beside them is somebody; so is a subnet's broadcast address, which
        // nothing tells from another.
        for (host, one) in [
            (HOST[0], "223.255.255.255"),
            (HOST[0], "240.0.0.0"),
            (HOST[0], "255.255.255.254"),
            (HOST[0], "192.0.2.255"),
            (HOST[1], "feff:ffff::1"),
            (HOST[1], "fe80::1"),
        ] {
            let mut lab = Lab::new(&ingress, &egress);
            let frame = ip(host, one, UDP, &datagram(40000, 53));
            lab.sends(begun, &frame, ALLOW, &[(OneWay, 1, 0)]);
        }
    }
}

// ---- what is stateful

#[test]
fn every_stage_but_untracked_begins_flows() {
    let closed = closed();
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    let answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    let stage = |stage| rule(Action::Allow, stage, protocol(UDP));
    for (rule, reason, number, kept) in [
        (stage(Stage::Failsafe), Reason::Failsafe, Some(0), true),
        (stage(Stage::PreDnat), Reason::PolicyAllow, Some(0), true),
        (stage(Stage::Normal), Reason::PolicyAllow, Some(0), true),
        (at_the_end(stage(Stage::PreDnat)), ALLOW, None, true),
        (at_the_end(stage(Stage::Normal)), ALLOW, None, true),
        (stage(Stage::Untracked), Reason::PolicyAllow, Some(0), false),
        (at_the_end(stage(Stage::Untracked)), ALLOW, None, false),
    ] {
        let out = egress(ruleset(Action::Deny, &[rule]));
        let mut lab = Lab::new(&closed, &out);
        let flows: &[Short] = if kept { &[(OneWay, 1, 0)] } else { &[] };
        lab.meets(Egress, &query, reason, number, flows);
        let (reason, flows): (_, &[Short]) = if kept {
            (KNOWN, &[(TwoWay, 1, 1)])
        } else {
            (DENY, &[])
        };
        lab.sends(Ingress, &answer, reason, flows);
    }
}

#[test]
fn untracked_rules_do_not_ask_what_is_known() {
    let open = egress(open());
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    let answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    let odd_answer = ip(PEER[0], HOST[0], ICMP, &error(3, inside(&query)));
    let stage = |stage| rule(Action::Deny, stage, everything());
    for (rule, reason, number, kept) in [
        (stage(Stage::PreDnat), Reason::PolicyDeny, Some(0), true),
        (stage(Stage::Normal), Reason::PolicyDeny, Some(0), true),
        (at_the_end(stage(Stage::PreDnat)), DENY, None, true),
        (at_the_end(stage(Stage::Normal)), DENY, None, true),
        // Nothing is kept where the answer would be dropped without asking.
        (stage(Stage::Untracked), Reason::PolicyDeny, Some(0), false),
        (at_the_end(stage(Stage::Untracked)), DENY, None, false),
    ] {
        let ingress = ruleset(Action::Allow, &[rule]);
        let mut lab = Lab::new(&ingress, &open);
        lab.meets(Ingress, &answer, reason, number, &[]);
        let flows: &[Short] = if kept { &[(OneWay, 1, 0)] } else { &[] };
        lab.sends(Egress, &query, ALLOW, flows);
        if kept {
            lab.sends(Ingress, &odd_answer, KNOWN, &[(OneWay, 1, 0)]);
            lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
        } else {
            lab.meets(Ingress, &odd_answer, reason, number, &[]);
            lab.meets(Ingress, &answer, reason, number, &[]);
        }
    }
    // An untracked rule that drops only some of the answers, of a flow that there is.
    let condition = Match {
        icmp: Some(Icmp {
            kind: 0,
            code: Some(1),
        }),
        ..protocol(ICMP)
    };
    let ingress = ruleset(Action::Deny, &[untracked(Action::Deny, condition)]);
    let mut lab = Lab::new(&ingress, &open);
    let request = ip(HOST[0], PEER[0], ICMP, &echo(8, 7));
    lab.sends(Egress, &request, ALLOW, &[(OneWay, 1, 0)]);
    let mut answer = ip(PEER[0], HOST[0], ICMP, &echo(0, 7));
    lab.sends(Ingress, &answer, KNOWN, &[(TwoWay, 1, 1)]);
    answer[35] = 1;
    let reason = Reason::PolicyDeny;
    lab.meets(Ingress, &answer, reason, Some(0), &[(TwoWay, 1, 1)]);
    // And one that allows some of the requests: they go along no flow.
    let condition = Match {
        icmp: Some(Icmp {
            kind: 8,
            code: Some(1),
        }),
        ..protocol(ICMP)
    };
    let rules = [untracked(Action::Allow, condition)];
    let (closed, out) = (closed(), egress(ruleset(Action::Allow, &rules)));
    let mut lab = Lab::new(&closed, &out);
    lab.sends(Egress, &request, ALLOW, &[(OneWay, 1, 0)]);
    let mut request = request;
    request[35] = 1;
    let reason = Reason::PolicyAllow;
    lab.meets(Egress, &request, reason, Some(0), &[(OneWay, 1, 0)]);
}

#[test]
fn what_nobody_decided_stays_as_it_is() {
    // A deny with ports makes fragments and cut headers undecidable.
    let ingress = ruleset(
        Action::Deny,
        &[deny(ports(TCP, &[(22, 22)])), deny(ports(UDP, &[(22, 22)]))],
    );
    let open = egress(open());
    let mut lab = Lab::new(&ingress, &open);
    let (goes, comes) = tcp_between(HOST[0], PEER[0]);
    let flows: &[Short] = &[(SynSent, 1, 0)];
    lab.sends(Egress, &goes(SYN), ALLOW, flows);
    let answer = segment(80, 40000, SYN | ACK);
    let between = (PEER[0], HOST[0]);
    let mut malformed = comes(SYN | ACK);
    malformed[14] = 0x44;
    lab.sends(Ingress, &malformed, Reason::Malformed, flows);
    let tiny = part(between, TCP, 1, (0, true), &answer[..8]);
    lab.sends(Ingress, &tiny, Reason::TinyFragment, flows);
    let tiny = part(between, TCP, 1, (1, false), &answer);
    lab.sends(Ingress, &tiny, Reason::TinyFragment, flows);
    let later = part(between, TCP, 1, (9, false), &answer);
    lab.sends(Ingress, &later, Reason::Fragment, flows);
    let cut = ip(PEER[0], HOST[0], TCP, &answer[..19]);
    lab.sends(Ingress, &cut, Reason::UnreadableL4, flows);
    let tags = [0x81, 0, 0, 1].repeat(3);
    let tagged = [&comes(ACK)[..12], &tags, &comes(ACK)[12..]].concat();
    lab.sends(Ingress, &tagged, Reason::VlanDepth, flows);
    let llc = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    let wrapped = ethernet(60, &[&llc, inside(&comes(ACK))].concat());
    lab.sends(Ingress, &wrapped, Reason::Encapsulated, flows);
    lab.sends(Ingress, &ethernet(0x0806, &[]), Reason::Essential, flows);
    lab.sends(Ingress, &ethernet(0x88cc, &[]), Reason::NotIp, flows);
    let chain = [extension(60).repeat(8), extension(TCP), answer.clone()].concat();
    let long = ip(PEER[1], HOST[1], 60, &chain);
    lab.sends(Ingress, &long, Reason::Ipv6Extension, flows);
    lab.sends(Ingress, &comes(SYN | ACK), KNOWN, &[(SynAnswered, 1, 1)]);
}

#[test]
fn who_decides_what_stays_dropped_is_told() {
    let rules = [deny(protocol(GRE)), deny(protocol(UDP))];
    let (ingress, open) = (ruleset(Action::Allow, &rules), egress(open()));
    let mut lab = Lab::new(&ingress, &open);
    let answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    lab.meets(Ingress, &answer, Reason::PolicyDeny, Some(1), &[]);
}

#[test]
fn what_is_noted_stays_noted() {
    let log = rule(Action::Log, Stage::Normal, protocol(UDP));
    let mut staged = allow(ports(UDP, &[(40000, 40000)]));
    staged.staged = true;
    let rules = [log, staged, deny(protocol(UDP))];
    let (ingress, open) = (ruleset(Action::Allow, &rules), egress(open()));
    let mut conversation = Conversation::new(&ingress, &open);
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    let answer = ip(PEER[0], HOST[0], UDP, &datagram(53, 40000));
    let now = Duration::ZERO;
    let before = conversation.judge(now, Ingress, &answer);
    assert_eq!(before.noted, [0, 1]);
    assert_eq!(before.decision.rule, Some(2));
    conversation.judge(now, Egress, &query);
    let after = conversation.judge(now, Ingress, &answer);
    assert_eq!(after.noted, [0, 1]);
    assert_eq!(after.decision.rule, None);
    let counters: Vec<u32> = after.counters().collect();
    let established = abi::reason_counter(Reason::Established, Verdict::Pass);
    let rule = abi::REASON_COUNTERS;
    assert_eq!(counters, [rule, rule + 1, established]);
    // A staged rule makes no flow and keeps none away.
    let mut staged = allow(everything());
    staged.staged = true;
    let with_staged = ruleset(Action::Deny, &[staged]);
    let mut lab = Lab::new(&with_staged, &open);
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    let closed = closed();
    let staged_out = egress(with_staged.clone());
    let mut lab = Lab::new(&closed, &staged_out);
    lab.sends(Egress, &query, DENY, &[]);
}

#[test]
fn what_is_dropped_changes_nothing() {
    let closed_in = closed();
    let out = egress(ruleset(Action::Deny, &[allow(ports(UDP, &[(53, 53)]))]));
    let mut lab = Lab::new(&closed_in, &out);
    let frame = ip(HOST[0], PEER[0], UDP, &datagram(40000, 54));
    lab.sends(Egress, &frame, DENY, &[]);
    let frame = ip(PEER[0], HOST[0], UDP, &datagram(54, 40000));
    lab.sends(Ingress, &frame, DENY, &[]);
}

// ---- ICMP errors

/// An error about a packet of a flow, and whether it passes.
#[track_caller]
fn an_error(lab: &mut Lab<'_>, direction: Direction, frame: &[u8], passes: bool) {
    let before = lab.flows();
    lab.wait(1);
    let judgement = lab.conversation.judge(lab.now, direction, frame);
    let expected = if passes { KNOWN } else { DENY };
    assert_eq!(judgement.decision.reason, expected);
    assert_eq!(judgement.decision.verdict, expected.usual_verdict());
    assert_eq!(lab.flows(), before, "no flow sees it");
    lab.now -= Duration::from_secs(1);
}

/// The types of errors, and what isn't one.
fn kinds(v6: bool) -> (u8, &'static [u8], &'static [u8]) {
    if v6 {
        (ICMPV6, &[1, 2, 3, 4], &[0, 5, 11, 100, 127, 128, 129, 137])
    } else {
        (ICMP, &[3, 11, 12], &[0, 1, 2, 4, 5, 8, 13, 14])
    }
}

#[test]
fn errors_about_what_went_out() {
    // Without essentials, or errors of ICMPv6 would pass by themselves.
    for begun in [Ingress, Egress] {
        let (ingress, egress) = half_open(begun);
        let bare = |ruleset| with(ruleset, |options| options.essentials = Essentials::NONE);
        let (ingress, egress) = (bare(ingress), bare(egress));
        let back = other_way(begun);
        for (host, peer, router) in versions() {
            let v6 = host.contains(':');
            let (number, errors, others) = kinds(v6);
            let mut packets: Vec<Protocol> = other_than_tcp(v6);
            // 8 bytes of it must be there.
            packets.retain(|(_, payload, ..)| payload.len() >= 8);
            packets.push((TCP, segment(40000, 80, SYN), vec![], [0; 2], [0; 2]));
            for (inner, payload, ..) in packets {
                let mut lab = Lab::new(&ingress, &egress);
                let frame = ip(host, peer, inner, &payload);
                let about = inside(&frame);
                for &kind in errors {
                    let error = ip(router, host, number, &error(kind, about));
                    an_error(&mut lab, back, &error, false);
                }
                let judgement = lab.conversation.judge(lab.now, begun, &frame);
                assert_eq!(judgement.decision.reason, ALLOW);
                // Anybody on the way may send one, cut off or whole.
                let header = about.len() - payload.len();
                for &kind in errors {
                    for from in [router, peer] {
                        for length in header + 8..=about.len() {
                            let error = ip(from, host, number, &error(kind, &about[..length]));
                            an_error(&mut lab, back, &error, true);
                        }
                    }
                }
                for &kind in others {
                    let error = ip(router, host, number, &error(kind, about));
                    an_error(&mut lab, back, &error, false);
                }
                // Too short for 8 bytes of L4, down to nothing.
                for length in 0..header + 8 {
                    let error = ip(router, host, number, &error(errors[0], &about[..length]));
                    an_error(&mut lab, back, &error, false);
                }
                // What is not of the error any more.
                let mut error = ip(router, host, number, &error(errors[0], about));
                let short = u16::try_from(if v6 { 8 } else { 28 } + header + 7).unwrap();
                let at = if v6 { 18 } else { 16 };
                error[at..at + 2].copy_from_slice(&short.to_be_bytes());
                an_error(&mut lab, back, &error, false);
            }
        }
    }
}

#[test]
fn errors_about_replies() {
    // The peer sends to a port of the host, and a router of its way back complains.
    let (ingress, egress) = (open(), egress(bare_closed()));
    for (host, peer, router) in versions() {
        let (number, errors, _) = kinds(host.contains(':'));
        let mut lab = Lab::new(&ingress, &egress);
        let query = ip(peer, host, UDP, &datagram(40000, 53));
        let answer = ip(host, peer, UDP, &datagram(53, 40000));
        lab.sends(Ingress, &query, ALLOW, &[(OneWay, 1, 0)]);
        // It goes the way of the query, which is open; the flow sees nothing.
        let complaint = ip(router, host, number, &error(errors[0], inside(&answer)));
        lab.sends(Ingress, &complaint, ALLOW, &[(OneWay, 1, 0)]);
    }
    // Where only the port is open, the complaint is known by the flow.
    let rules = [allow(ports(UDP, &[(53, 53)]))];
    let ingress = with(ruleset(Action::Deny, &rules), |options| {
        options.essentials = Essentials::NONE;
    });
    for (host, peer, router) in versions() {
        let v6 = host.contains(':');
        let (number, errors, _) = kinds(v6);
        let mut lab = Lab::new(&ingress, &egress);
        let query = ip(peer, host, UDP, &datagram(40000, 53));
        let answer = ip(host, peer, UDP, &datagram(53, 40000));
        let complaint = ip(router, host, number, &error(errors[0], inside(&answer)));
        an_error(&mut lab, Ingress, &complaint, false);
        let allowed = Reason::PolicyAllow;
        lab.meets(Ingress, &query, allowed, Some(0), &[(OneWay, 1, 0)]);
        an_error(&mut lab, Ingress, &complaint, true);
        // The host complains about the query.
        let complaint = ip(host, peer, number, &error(errors[0], inside(&query)));
        an_error(&mut lab, Egress, &complaint, true);
        // But nobody complains about what went the other way.
        let complaint = ip(router, peer, number, &error(errors[0], inside(&query)));
        an_error(&mut lab, Ingress, &complaint, false);
        let complaint = ip(host, host, number, &error(errors[0], inside(&answer)));
        an_error(&mut lab, Egress, &complaint, false);
    }
}

#[test]
fn errors_about_echoes() {
    for (host, peer, router) in versions() {
        let v6 = host.contains(':');
        let (number, errors, _) = kinds(v6);
        let [request, reply] = if v6 { [128, 129] } else { [8, 0] };
        let requests = Match {
            icmp: Some(Icmp {
                kind: request,
                code: None,
            }),
            ..protocol(number)
        };
        let ingress = with(ruleset(Action::Deny, &[allow(requests)]), |options| {
            options.essentials = Essentials::NONE;
        });
        let egress = egress(ingress.clone());
        let complaint =
            |src, dst, about: &[u8]| ip(src, dst, number, &error(errors[0], inside(about)));
        let message = |src, dst, kind, id| ip(src, dst, number, &echo(kind, id));
        let allowed = Reason::PolicyAllow;

        let mut lab = Lab::new(&ingress, &egress);
        let out = message(host, peer, request, 7);
        lab.meets(Egress, &out, allowed, Some(0), &[(OneWay, 1, 0)]);
        an_error(&mut lab, Ingress, &complaint(router, host, &out), true);
        for (kind, id) in [(request, 8), (reply, 7)] {
            let wrong = complaint(router, host, &message(host, peer, kind, id));
            an_error(&mut lab, Ingress, &wrong, false);
        }
        // Another type.
        let wrong = complaint(router, host, &message(host, peer, errors[0], 7));
        an_error(&mut lab, Ingress, &wrong, false);

        // A reply that went out to somebody's request.
        let mut lab = Lab::new(&ingress, &egress);
        let query = message(peer, host, request, 7);
        lab.meets(Ingress, &query, allowed, Some(0), &[(OneWay, 1, 0)]);
        let answer = message(host, peer, reply, 7);
        an_error(&mut lab, Ingress, &complaint(router, host, &answer), true);
        for (kind, id) in [(reply, 8), (request, 7)] {
            let wrong = complaint(router, host, &message(host, peer, kind, id));
            an_error(&mut lab, Ingress, &wrong, false);
        }
    }
}

#[test]
fn errors_about_something_else() {
    let (ingress, egress) = (bare_closed(), egress(open()));
    for (host, peer, router) in versions() {
        let v6 = host.contains(':');
        let (number, errors, _) = kinds(v6);
        let mut lab = Lab::new(&ingress, &egress);
        let query = ip(host, peer, UDP, &datagram(40000, 53));
        lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
        let about = inside(&query).to_vec();
        let mut complain = |dst, about: &[u8], passes| {
            let frame = ip(router, dst, number, &error(errors[0], about));
            an_error(&mut lab, Ingress, &frame, passes);
        };
        complain(host, &about, true);
        // Told to somebody who didn't send it.
        complain(peer, &about, false);
        complain(router, &about, false);
        // Other ends, another protocol, the other way.
        for frame in [
            ip(host, peer, UDP, &datagram(40000, 54)),
            ip(host, peer, UDP, &datagram(40001, 53)),
            ip(host, router, UDP, &datagram(40000, 53)),
            ip(host, peer, UDP_LITE, &datagram(40000, 53)),
            ip(host, peer, UDP, &datagram(53, 40000)),
        ] {
            complain(host, inside(&frame), false);
        }
        complain(
            peer,
            inside(&ip(peer, host, UDP, &datagram(40000, 53))),
            false,
        );
        // A fragment: the first one shows its ports, a later one something else.
        let fragment = |offset| part((host, peer), UDP, 1, offset, &datagram(40000, 53));
        complain(host, inside(&fragment((0, true))), !v6);
        complain(host, inside(&fragment((9, true))), false);
        complain(host, inside(&fragment((9, false))), false);
        // Of another version, whatever follows.
        let mut odd = about.clone();
        odd[0] ^= 0x20;
        complain(host, &odd, false);
        if v6 {
            // Behind any extension header.
            for header in [0, 43, 44, 51, 60, 135] {
                let payload = [extension(UDP), datagram(40000, 53)].concat();
                complain(host, inside(&ip(host, peer, header, &payload)), false);
            }
        } else {
            // Options are skipped; an IHL below 5 is nothing.
            let mut options = about.clone();
            options[0] = 0x46;
            options[3] += 4;
            options.splice(20..20, [1; 4]);
            complain(host, &options, true);
            complain(host, &options[..options.len() - 1], false);
            let mut odd = about.clone();
            odd[0] = 0x44;
            complain(host, &odd, false);
            // It is cut anyway: what it says of its length is not asked.
            let mut long = about.clone();
            long[2..4].copy_from_slice(&1500_u16.to_be_bytes());
            complain(host, &long, true);
        }
    }
    // An IPv6 packet in an error of ICMP for IPv4.
    let mut lab = Lab::new(&ingress, &egress);
    let query = ip(HOST[1], PEER[1], UDP, &datagram(40000, 53));
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    let frame = ip(OTHER[0], HOST[0], ICMP, &error(3, inside(&query)));
    an_error(&mut lab, Ingress, &frame, false);
}

#[test]
fn errors_after_the_flow() {
    let (ingress, egress) = (bare_closed(), egress(open()));
    let mut lab = Lab::new(&ingress, &egress);
    let query = ip(HOST[0], PEER[0], UDP, &datagram(40000, 53));
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    let frame = ip(OTHER[0], HOST[0], ICMP, &error(3, inside(&query)));
    // They don't keep it alive either.
    lab.wait(29);
    an_error(&mut lab, Ingress, &frame, true);
    lab.wait(1);
    lab.sends(Ingress, &frame, KNOWN, &[(OneWay, 1, 0)]);
    lab.wait(1);
    lab.sends(Ingress, &frame, DENY, &[]);
}

// ---- fragments

fn track(ruleset: Ruleset) -> Ruleset {
    with(ruleset, |options| options.fragments = Fragments::Track)
}

/// Lets udp 53 in and nothing else: a later fragment can't be decided.
fn resolver() -> Ruleset {
    track(ruleset(Action::Deny, &[allow(ports(UDP, &[(53, 53)]))]))
}

/// A first and a later fragment of a datagram from the peer to a port of the host.
fn pieces(version: usize, port: u16, id: u32) -> [Vec<u8>; 2] {
    let between = (PEER[version], HOST[version]);
    let mut start = datagram(40000, port);
    start.resize(64, 0);
    [
        part(between, UDP, id, (0, true), &start),
        part(between, UDP, id, (8, false), &[0; 8]),
    ]
}

const PIECE: Reason = Reason::Fragment;
const POLICY: Reason = Reason::PolicyAllow;

#[test]
fn a_later_fragment_follows_its_first() {
    let (ingress, open) = (resolver(), egress(open()));
    for version in 0..2 {
        let mut lab = Lab::new(&ingress, &open);
        let [first, later] = pieces(version, 53, 7);
        lab.sends(Ingress, &later, PIECE, &[]);
        lab.meets(Ingress, &first, POLICY, Some(0), &[]);
        lab.sends(Ingress, &later, KNOWN, &[]);
        lab.sends(Ingress, &later, KNOWN, &[]);
        // With more to come.
        let between = (PEER[version], HOST[version]);
        let middle = part(between, UDP, 7, (100, true), &[]);
        lab.sends(Ingress, &middle, KNOWN, &[]);
        // Of another datagram, protocol, sender or receiver.
        let (peer, host, other) = (PEER[version], HOST[version], OTHER[version]);
        for (src, dst, number, id) in [
            (peer, host, UDP, 8),
            (peer, host, UDP, 0x107),
            (other, host, UDP, 7),
            (peer, other, UDP, 7),
            (host, peer, UDP, 7),
        ] {
            let frame = part((src, dst), number, id, (8, false), &[0; 8]);
            lab.sends(Ingress, &frame, PIECE, &[]);
        }
        // Of another protocol rules ask about: TCP is, if tcp rules are there.
        let frame = part((peer, host), TCP, 7, (8, false), &[0; 8]);
        lab.sends(Ingress, &frame, DENY, &[]);
        // RFC 3128 comes first.
        let frame = part((peer, host), TCP, 7, (1, false), &[0; 8]);
        lab.sends(Ingress, &frame, Reason::TinyFragment, &[]);
        // Ten seconds, whatever followed.
        lab.wait(10);
        lab.sends(Ingress, &later, KNOWN, &[]);
        lab.wait(1);
        lab.sends(Ingress, &later, PIECE, &[]);
        // From the last one on.
        lab.meets(Ingress, &first, POLICY, Some(0), &[]);
        lab.wait(6);
        lab.meets(Ingress, &first, POLICY, Some(0), &[]);
        lab.wait(10);
        lab.sends(Ingress, &later, KNOWN, &[]);
        lab.wait(1);
        lab.sends(Ingress, &later, PIECE, &[]);
    }
}

#[test]
fn the_protocol_tells_datagrams_apart() {
    let rules = [
        allow(ports(UDP, &[(53, 53)])),
        allow(ports(UDP_LITE, &[(53, 53)])),
    ];
    let (ingress, open) = (track(ruleset(Action::Deny, &rules)), egress(open()));
    for (host, peer, _) in versions() {
        let mut lab = Lab::new(&ingress, &open);
        let first = part((peer, host), UDP, 7, (0, true), &datagram(1, 53));
        lab.meets(Ingress, &first, POLICY, Some(0), &[]);
        let later = |number| part((peer, host), number, 7, (1, false), &[]);
        lab.sends(Ingress, &later(UDP_LITE), PIECE, &[]);
        lab.sends(Ingress, &later(UDP), KNOWN, &[]);
    }
}

#[test]
fn the_identifier_of_ipv6_has_32_bits() {
    let (ingress, open) = (resolver(), egress(open()));
    let mut lab = Lab::new(&ingress, &open);
    let [first, later] = pieces(1, 53, 0x0007_0001);
    lab.meets(Ingress, &first, POLICY, Some(0), &[]);
    for id in [1, 0x0008_0001, 0x0007_0000] {
        lab.sends(Ingress, &pieces(1, 53, id)[1], PIECE, &[]);
    }
    lab.sends(Ingress, &later, KNOWN, &[]);
}

#[test]
fn a_first_fragment_that_is_dropped_opens_nothing() {
    let (ingress, open) = (resolver(), egress(open()));
    for version in 0..2 {
        let mut lab = Lab::new(&ingress, &open);
        let [first, later] = pieces(version, 54, 7);
        lab.sends(Ingress, &first, DENY, &[]);
        lab.sends(Ingress, &later, PIECE, &[]);
        // Nor does a whole packet with the same id, or a last fragment.
        let (host, peer) = (HOST[version], PEER[version]);
        let whole = if version == 0 {
            let mut frame = ip(peer, host, UDP, &datagram(1, 53));
            frame[19] = 7;
            frame
        } else {
            part((peer, host), UDP, 7, (0, false), &datagram(1, 53))
        };
        lab.meets(Ingress, &whole, POLICY, Some(0), &[]);
        lab.sends(Ingress, &later, PIECE, &[]);
        // Nor one too small.
        let tiny = part((peer, host), UDP, 7, (0, true), &datagram(1, 53)[..7]);
        lab.sends(Ingress, &tiny, Reason::TinyFragment, &[]);
        lab.sends(Ingress, &later, PIECE, &[]);
    }
}

#[test]
fn any_pass_of_a_first_fragment_counts() {
    let open_out = egress(open());
    let resolver = |rule: Rule| track(ruleset(Action::Deny, &[rule]));
    let port = || ports(UDP, &[(53, 53)]);
    for version in 0..2 {
        let [first, later] = pieces(version, 53, 7);
        for (rule, reason) in [
            (rule(Action::Allow, Stage::Untracked, port()), POLICY),
            (
                rule(Action::Allow, Stage::Failsafe, port()),
                Reason::Failsafe,
            ),
            (rule(Action::Allow, Stage::PreDnat, port()), POLICY),
            (rule(Action::Allow, Stage::Normal, port()), POLICY),
        ] {
            let failsafe = rule.id.stage == Stage::Failsafe;
            let mut ingress = resolver(rule);
            if failsafe {
                // A failsafe leaves to others what it can't be sure of.
                ingress.rules.push(deny(ports(UDP, &[(54, 54)])));
            }
            let mut lab = Lab::new(&ingress, &open_out);
            lab.sends(Ingress, &later, PIECE, &[]);
            lab.meets(Ingress, &first, reason, Some(0), &[]);
            lab.sends(Ingress, &later, KNOWN, &[]);
        }
        // The default.
        let ingress = track(ruleset(Action::Allow, &[deny(ports(UDP, &[(54, 54)]))]));
        let mut lab = Lab::new(&ingress, &open_out);
        lab.sends(Ingress, &first, ALLOW, &[]);
        lab.sends(Ingress, &later, KNOWN, &[]);
        // An essential.
        let number = [68, 546][version];
        let ingress = track(ruleset(Action::Deny, &[deny(ports(UDP, &[(54, 54)]))]));
        let mut lab = Lab::new(&ingress, &open_out);
        let [first, later] = pieces(version, number, 7);
        lab.sends(Ingress, &first, Reason::Essential, &[]);
        lab.sends(Ingress, &later, KNOWN, &[]);
        // An answer.
        let (host, peer) = (HOST[version], PEER[version]);
        let mut lab = Lab::new(&ingress, &open_out);
        let query = ip(host, peer, UDP, &datagram(53, 40000));
        lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
        let [first, later] = pieces(version, 53, 7);
        lab.sends(Ingress, &first, KNOWN, &[(TwoWay, 1, 1)]);
        lab.wait(5);
        // No flow sees the later ones.
        lab.sends(Ingress, &later, KNOWN, &[(TwoWay, 1, 1)]);
        assert_eq!(lab.last_seen(), Duration::from_secs(1000));
    }
}

#[test]
fn a_later_fragment_follows_the_first_past_any_stateful_drop() {
    // A rule that needs no L4 header decides about the later one.
    let rules = [allow(ports(UDP, &[(53, 53)])), deny(everything())];
    let mut wrong_order = rules.clone();
    wrong_order.reverse();
    let open = egress(open());
    let [first, later] = pieces(0, 53, 7);
    let ingress = track(ruleset(Action::Deny, &rules));
    let mut lab = Lab::new(&ingress, &open);
    lab.meets(Ingress, &first, POLICY, Some(0), &[]);
    lab.sends(Ingress, &later, KNOWN, &[]);
    let ingress = track(ruleset(Action::Deny, &wrong_order));
    let mut lab = Lab::new(&ingress, &open);
    lab.meets(Ingress, &first, Reason::PolicyDeny, Some(0), &[]);
    // A failsafe lets the first one in, and leaves the later one to a rule that decides
    // it: past a stateful one it is followed.
    for stage in [Stage::Untracked, Stage::Normal] {
        let port = failsafe(ports(UDP, &[(53, 53)]));
        let rules = [port, rule(Action::Deny, stage, everything())];
        let ingress = track(ruleset(Action::Allow, &rules));
        let mut lab = Lab::new(&ingress, &open);
        lab.meets(Ingress, &first, Reason::Failsafe, Some(0), &[]);
        if stage == Stage::Untracked {
            lab.meets(Ingress, &later, Reason::PolicyDeny, Some(1), &[]);
        } else {
            lab.sends(Ingress, &later, KNOWN, &[]);
        }
    }
    // An answer's first fragment passes, and the later one with it.
    let ingress = track(closed());
    let mut lab = Lab::new(&ingress, &open);
    let query = ip(HOST[0], PEER[0], UDP, &datagram(53, 40000));
    lab.sends(Egress, &query, ALLOW, &[(OneWay, 1, 0)]);
    lab.sends(Ingress, &first, KNOWN, &[(TwoWay, 1, 1)]);
    lab.sends(Ingress, &later, KNOWN, &[(TwoWay, 1, 1)]);
}

#[test]
fn each_direction_tracks_its_own_fragments() {
    // The same rules both ways.
    let tracking = resolver();
    let dropping = with(tracking.clone(), |options| {
        options.fragments = Fragments::Drop;
    });
    let [first, later] = pieces(0, 53, 7);
    let out = egress(tracking.clone());
    let mut lab = Lab::new(&tracking, &out);
    let flow: &[Short] = &[(OneWay, 1, 0)];
    lab.meets(Ingress, &first, POLICY, Some(0), flow);
    lab.sends(Egress, &later, PIECE, flow);
    lab.sends(Ingress, &later, KNOWN, flow);
    let mut lab = Lab::new(&dropping, &out);
    lab.meets(Ingress, &first, POLICY, Some(0), flow);
    lab.sends(Ingress, &later, PIECE, flow);
    let both = &[(OneWay, 1, 0), (OneWay, 1, 0)];
    lab.meets(Egress, &first, POLICY, Some(0), both);
    lab.sends(Egress, &later, KNOWN, both);
    lab.sends(Ingress, &later, PIECE, both);
    // Where rules with ports are passed over, there is nothing to follow.
    let l3_only = with(tracking.clone(), |options| {
        options.fragments = Fragments::L3Only;
    });
    let mut lab = Lab::new(&l3_only, &out);
    lab.meets(Ingress, &first, POLICY, Some(0), flow);
    lab.sends(Ingress, &later, DENY, flow);
}

#[test]
fn a_hidden_protocol_is_not_tracked() {
    let (ingress, open) = (resolver(), egress(open()));
    let mut lab = Lab::new(&ingress, &open);
    let between = (PEER[1], HOST[1]);
    // The chain goes on behind the fragment header: both say so.
    let start = [extension(UDP), datagram(40000, 53)].concat();
    let first = part(between, 60, 7, (0, true), &start);
    lab.meets(Ingress, &first, POLICY, Some(0), &[]);
    for next in [60, UDP] {
        let later = part(between, next, 7, (8, false), &[0; 8]);
        lab.sends(Ingress, &later, PIECE, &[]);
    }
    // Headers before it are no part of what is cut.
    let [first, later] = pieces(1, 53, 9);
    let behind = |frame: &[u8]| {
        let packet = inside(frame);
        let payload = [&extension(44)[..], &packet[40..]].concat();
        ip(between.0, between.1, 60, &payload)
    };
    lab.meets(Ingress, &behind(&first), POLICY, Some(0), &[]);
    lab.sends(Ingress, &later, KNOWN, &[]);
    lab.sends(Ingress, &behind(&later), KNOWN, &[]);
}

#[test]
fn what_needs_no_conversation_is_judged_as_by_rules_alone() {
    let (web, open) = (track(web()), egress(open()));
    let mut lab = Lab::new(&web, &open);
    for frame in [
        v4(TCP, 0, &tcp(81)),
        v4(TCP, 0, &tcp(80)),
        v6(UDP, 64, &udp(80)),
        v4(TCP, 100, &[]),
        ethernet(0x0806, &[]),
        vec![],
    ] {
        let judgement = lab.conversation.judge(lab.now, Ingress, &frame);
        assert_eq!(judgement, crate::reference::judge(&web, &frame));
    }
}
