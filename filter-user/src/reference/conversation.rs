//! Stateful evaluation, the naive way: what an endpoint remembers of the packets of
//! both directions, in lists that are searched from end to end.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};

use super::frame::{self, Flags, Fragment, Frame, L4, Packet};
use super::{End, World, by_default, pass, walk};
use crate::decision::Judgement;
use crate::ruleset::{Direction, Fragments, Ruleset, Stage};

/// Both directions of an endpoint and what it remembers.
///
/// It never forgets a flow before its time: what the program evicts where its tables
/// are full is not modelled.
#[derive(Clone, Debug)]
pub struct Conversation<'r> {
    ingress: &'r Ruleset,
    egress: &'r Ruleset,
    /// Those that ingress packets began and those that egress packets began.
    flows: Vec<Flow>,
    /// First fragments that passed.
    firsts: Vec<First>,
}

/// One flow: packets from `src` to `dst` and the replies to them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Which way the packet went that began it. Flows of one direction are apart from
    /// those of the other.
    pub begun: Direction,
    /// Of the packet that began it, like all that follows.
    pub src: IpAddr,
    /// Where it went to.
    pub dst: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// Source and destination port, or the identifier of an echo request twice, or zeros.
    pub numbers: [u16; 2],
    /// How far it is.
    pub state: State,
    /// The packets that it saw in the direction that it was begun in, the first one too.
    pub forward: u64,
    /// The replies that it saw.
    pub back: u64,
    /// When it saw one last.
    pub seen: Duration,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// TCP: begun by a SYN.
    SynSent,
    /// TCP: a SYN came back, with ACK or without.
    SynAnswered,
    /// TCP: what was sent was answered.
    Established,
    /// TCP: there was a FIN.
    Closing,
    /// TCP: there was an RST.
    Reset,
    /// TCP: begun by a packet from the middle, and no reply yet.
    Unanswered,
    /// Anything else than TCP: no reply yet.
    OneWay,
    /// Anything else than TCP: there was a reply.
    TwoWay,
}

impl State {
    /// For how long a flow lives after a packet.
    const fn timeout(self, protocol: u8) -> Duration {
        let of_udp = matches!(protocol, UDP | UDP_LITE);
        Duration::from_secs(match self {
            Self::SynSent | Self::Closing => 120,
            Self::SynAnswered => 60,
            Self::Established => 432_000,
            Self::Reset => 10,
            Self::Unanswered => 300,
            Self::OneWay if of_udp => 30,
            Self::TwoWay if of_udp => 120,
            Self::OneWay if protocol == SCTP => 30,
            Self::TwoWay if protocol == SCTP => 210,
            Self::OneWay | Self::TwoWay if matches!(protocol, ICMP | ICMPV6) => 30,
            Self::OneWay | Self::TwoWay => 600,
        })
    }
}

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// A first fragment that passed.
#[derive(Clone, Debug)]
struct First {
    direction: Direction,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
    passed: Duration,
}

/// For how long a first fragment opens the way to the later ones.
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What packets of one flow and one direction have in common. The addresses tell the IP
/// version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    numbers: [u16; 2],
}

impl Tuple {
    /// `None` where the packet doesn't show its L4 header, and of ICMP that is no echo.
    fn of(packet: &Packet) -> Option<Self> {
        let numbers = match packet.l4 {
            L4::Ports {
                source,
                destination,
            } => [source, destination],
            L4::Icmp { .. } => [packet.echo_id()?; 2],
            L4::Other => [0, 0],
            L4::Absent(_) => return None,
        };
        Some(Self {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol?,
            numbers,
        })
    }

    fn reverse(self) -> Self {
        let [source, destination] = self.numbers;
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            numbers: [destination, source],
        }
    }
}

/// What a flow sees of a packet: which way it crossed the interface, and which way it
/// goes along the flow.
#[derive(Clone, Copy, Debug)]
struct Sight {
    direction: Direction,
    way: Way,
    /// `None`: it is not TCP.
    flags: Option<Flags>,
}

/// Which way a packet goes along a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Reply,
}

impl Flow {
    /// A packet in this direction begins a flow.
    fn begin(now: Duration, direction: Direction, tuple: Tuple, flags: Option<Flags>) -> Self {
        let state = match flags {
            None => State::OneWay,
            Some(Flags { syn: true, .. }) => State::SynSent,
            Some(Flags { fin: true, .. }) => State::Closing,
            Some(_) => State::Unanswered,
        };
        Self {
            begun: direction,
            src: tuple.src,
            dst: tuple.dst,
            protocol: tuple.protocol,
            numbers: tuple.numbers,
            state,
            forward: 1,
            back: 0,
            seen: now,
        }
    }

    /// The tuple of the packet that began it.
    const fn tuple(&self) -> Tuple {
        Tuple {
            src: self.src,
            dst: self.dst,
            protocol: self.protocol,
            numbers: self.numbers,
        }
    }

    fn is_live(&self, now: Duration) -> bool {
        now <= self.seen + self.state.timeout(self.protocol)
    }

    fn see(&mut self, now: Duration, sight: Sight) {
        // Anybody can send the host an RST: what comes in after one must neither keep
        // the flow alive nor bring it back. The host knows better.
        if self.state == State::Reset && sight.direction == Direction::Ingress {
            return;
        }
        self.seen = now;
        match sight.way {
            Way::Forward => self.forward += 1,
            Way::Reply => self.back += 1,
        }
        self.state = match sight.flags {
            Some(flags) => tcp(self.state, sight.way, flags),
            None => other_than_tcp(self.state, sight.way),
        };
    }
}

/// The state after a packet with these flags, which in [`State::Reset`] the host sent.
fn tcp(state: State, way: Way, flags: Flags) -> State {
    if flags.rst {
        return State::Reset;
    }
    if state == State::Reset {
        return if flags.syn && !flags.ack && way == Way::Forward {
            State::SynSent
        } else {
            State::Established
        };
    }
    if flags.syn && !flags.ack {
        return match (way, state) {
            (Way::Forward, State::Closing) => State::SynSent,
            (Way::Reply, State::SynSent) => State::SynAnswered,
            _ => state,
        };
    }
    if flags.syn && flags.ack {
        return match (way, state) {
            (Way::Reply, State::SynSent) => State::SynAnswered,
            _ => state,
        };
    }
    if flags.fin {
        return State::Closing;
    }
    match (way, state) {
        (Way::Forward, State::SynAnswered) | (Way::Reply, State::Unanswered) => State::Established,
        _ => state,
    }
}

fn other_than_tcp(state: State, way: Way) -> State {
    match (way, state) {
        (Way::Reply, State::OneWay) => State::TwoWay,
        _ => state,
    }
}

impl<'r> Conversation<'r> {
    /// Nothing has been seen yet. Fragments of a direction are tracked if its ruleset
    /// says so.
    #[must_use]
    pub const fn new(ingress: &'r Ruleset, egress: &'r Ruleset) -> Self {
        Self {
            ingress,
            egress,
            flows: Vec::new(),
            firsts: Vec::new(),
        }
    }

    /// Decides a frame (from the Ethernet header on), and remembers what follows from it.
    ///
    /// `now`: time since some beginning; never goes backwards.
    pub fn judge(&mut self, now: Duration, direction: Direction, frame: &[u8]) -> Judgement {
        // What is not live is as if it weren't there.
        self.flows.retain(|flow| flow.is_live(now));
        self.firsts
            .retain(|first| now <= first.passed + FRAGMENT_TIMEOUT);

        let ruleset = self.ruleset(direction);
        let mut judgement = super::judge(ruleset, frame);
        let Frame::Ip(packet) = frame::read(frame) else {
            return judgement;
        };
        let decision = judgement.decision;
        let stateful = is_stateful(ruleset, &packet);
        let established = match decision.verdict {
            Verdict::Drop if stateful => {
                self.replies(now, direction, &packet)
                    || self.is_error_of_a_flow(direction, &packet)
                    || self.is_remembered(direction, &packet)
            }
            Verdict::Drop => {
                decision.reason == Reason::Fragment && self.is_remembered(direction, &packet)
            }
            Verdict::Pass if stateful => {
                self.track(now, direction, &packet);
                false
            }
            Verdict::Pass => false,
        };
        if established {
            judgement.decision = pass(Reason::Established);
            judgement.essential = None;
        }
        if judgement.decision.verdict == Verdict::Pass {
            self.remember(now, direction, &packet);
        }
        judgement
    }

    /// The live flows, sorted, to be compared with what the program has.
    #[must_use]
    pub fn flows(&self, now: Duration) -> Vec<Flow> {
        let live = self.flows.iter().filter(|flow| flow.is_live(now));
        let mut flows: Vec<Flow> = live.cloned().collect();
        flows.sort();
        flows
    }

    const fn ruleset(&self, direction: Direction) -> &'r Ruleset {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// The flow that was begun in a direction by a packet of this tuple.
    fn flow(&mut self, begun: Direction, tuple: Tuple) -> Option<&mut Flow> {
        let mut flows = self.flows.iter_mut();
        flows.find(|flow| flow.begun == begun && flow.tuple() == tuple)
    }

    /// Whether a packet is a reply to what went the other way; if so, its flow sees it.
    fn replies(&mut self, now: Duration, direction: Direction, packet: &Packet) -> bool {
        if !may_come_back(packet) {
            return false;
        }
        let Some(tuple) = Tuple::of(packet) else {
            return false;
        };
        let Some(flow) = self.flow(opposite(direction), tuple.reverse()) else {
            return false;
        };
        let sight = Sight {
            direction,
            way: Way::Reply,
            flags: packet.flags(),
        };
        flow.see(now, sight);
        true
    }

    /// Whether it is an ICMP error about a packet of a flow that went the other way. No
    /// flow sees it.
    fn is_error_of_a_flow(&mut self, direction: Direction, packet: &Packet) -> bool {
        let Some(cause) = packet.embedded() else {
            return false;
        };
        // Who sent it is told about it.
        if packet.dst != cause.src {
            return false;
        }
        let Some(tuple) = Tuple::of(&cause) else {
            return false;
        };
        let went_forward =
            may_go_forward(&cause) && self.flow(opposite(direction), tuple).is_some();
        let was_a_reply = may_come_back(&cause) && self.flow(direction, tuple.reverse()).is_some();
        went_forward || was_a_reply
    }

    /// What an allowed packet does to the flows of its direction.
    fn track(&mut self, now: Duration, direction: Direction, packet: &Packet) {
        let Some(tuple) = Tuple::of(packet) else {
            return;
        };
        if !self.needs_a_flow(direction, packet) {
            return;
        }
        let sight = Sight {
            direction,
            way: Way::Forward,
            flags: packet.flags(),
        };
        let goes_forward = may_go_forward(packet);
        match self.flow(direction, tuple) {
            Some(flow) if goes_forward => flow.see(now, sight),
            None if may_begin(packet) => {
                let flow = Flow::begin(now, direction, tuple, packet.flags());
                self.flows.push(flow);
            }
            _ => {}
        }
    }

    /// Whether the rules of the opposite direction alone would drop the answer.
    fn needs_a_flow(&self, direction: Direction, packet: &Packet) -> bool {
        let ruleset = self.ruleset(opposite(direction));
        let answer = reverse(packet);
        let judgement = super::rules(ruleset, &answer);
        judgement.decision.verdict == Verdict::Drop && is_stateful(ruleset, &answer)
    }

    /// Whether it is a later fragment of which the first one passed.
    fn is_remembered(&self, direction: Direction, packet: &Packet) -> bool {
        // Which protocol it is of must be known, and not only how its chain goes on.
        let (
            Some(Fragment {
                first: false,
                id,
                protocol,
            }),
            true,
        ) = (packet.fragment, packet.protocol.is_some())
        else {
            return false;
        };
        self.tracks_fragments(direction)
            && self.firsts.iter().any(|first| {
                first.direction == direction
                    && first.src == packet.src
                    && first.dst == packet.dst
                    && first.protocol == protocol
                    && first.id == id
            })
    }

    /// Remembers a packet that passes, if it is a first fragment.
    fn remember(&mut self, now: Duration, direction: Direction, packet: &Packet) {
        if let Some(Fragment {
            first: true,
            id,
            protocol,
        }) = packet.fragment
            && self.tracks_fragments(direction)
        {
            self.firsts.push(First {
                direction,
                src: packet.src,
                dst: packet.dst,
                protocol,
                id,
                passed: now,
            });
        }
    }

    fn tracks_fragments(&self, direction: Direction) -> bool {
        self.ruleset(direction).options.fragments == Fragments::Track
    }
}

const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// Whether state has a say in what the rules decide about a packet: a rule decided that
/// is not `untracked`, the end of a tier or of the profiles, or the default.
fn is_stateful(ruleset: &Ruleset, packet: &Packet) -> bool {
    let action = match walk(ruleset, packet, World::Enforced).end {
        End::Undecidable => return false,
        End::Decided(index) => {
            let rule = &ruleset.rules[index as usize];
            if rule.id.stage == Stage::Untracked {
                return false;
            }
            if rule.id.index.is_some() {
                return true;
            }
            rule.action
        }
        End::NoMoreRules => ruleset.default,
    };
    // No default decided an essential: it passes in spite of it.
    by_default(ruleset, packet, action).reason != Reason::Essential
}

/// The packet that would answer this one, as far as rules can ask about it.
fn reverse(packet: &Packet) -> Packet {
    let l4 = match packet.l4 {
        L4::Ports {
            source,
            destination,
        } => L4::Ports {
            source: destination,
            destination: source,
        },
        L4::Icmp { kind, code } => L4::Icmp {
            kind: match (packet.protocol, kind) {
                (Some(ICMP), 8) => 0,
                (Some(ICMP), 0) => 8,
                (Some(ICMPV6), 128) => 129,
                (Some(ICMPV6), 129) => 128,
                _ => kind,
            },
            code,
        },
        L4::Other => L4::Other,
        L4::Absent(reason) => L4::Absent(reason),
    };
    Packet {
        src: packet.dst,
        dst: packet.src,
        hop_limit: packet.hop_limit,
        protocol: packet.protocol,
        l4,
        fragment: None,
        body: Vec::new(),
    }
}

/// Of the echoes, a request does.
fn may_go_forward(packet: &Packet) -> bool {
    !is_echo(packet, [0, 129])
}

/// Of the echoes, a reply does.
fn may_come_back(packet: &Packet) -> bool {
    !is_echo(packet, [8, 128])
}

/// Whether it is ICMP of the first of these types, or `ICMPv6` of the second.
fn is_echo(packet: &Packet, [icmp, icmpv6]: [u8; 2]) -> bool {
    match (packet.protocol, &packet.l4) {
        (Some(ICMP), L4::Icmp { kind, .. }) => *kind == icmp,
        (Some(ICMPV6), L4::Icmp { kind, .. }) => *kind == icmpv6,
        _ => false,
    }
}

/// Whether a packet that has a tuple may begin a flow.
fn may_begin(packet: &Packet) -> bool {
    let answers_or_ends = packet
        .flags()
        .is_some_and(|flags| flags.rst || (flags.syn && flags.ack));
    may_go_forward(packet) && !answers_or_ends && !is_for_many(packet.dst)
}

/// Nobody answers from such an address.
fn is_for_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] / 16 == 14 || address == Ipv4Addr::BROADCAST,
        IpAddr::V6(address) => address.octets()[0] == 0xff,
    }
}
