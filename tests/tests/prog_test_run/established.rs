//! Return traffic: the verdict, what is counted of it, and what it costs.

use std::time::Duration;

use filter_common::flow::State;
use filter_common::verdict::{Reason, Verdict};
use filter_user::compile::Image;
use filter_user::datapath::{Compiled, TestPair};
use filter_user::decision::{Decision, Judgement};
use filter_user::ruleset::{Action, Direction, Match, Rule, Ruleset, Stage};
use tests::packet::ethertype::VLAN;
use tests::packet::{Ethernet, Extension, Ipv4, Ipv6, Payload, Tcp, Udp};

use crate::egress::egress;
use crate::rules::{allow, deny, in_stage, log, ports, protocol, ranges, ruleset, staged};
use crate::{BUDGET, between, counted, decision, drops, plain};

const NODE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const PEER: [&str; 2] = ["203.0.113.7", "2001:db8:f::7"];

const ESTABLISHED: Decision = decision(Verdict::Pass, Reason::Established, None);

/// Both programs, attached to nothing.
struct Both(TestPair);

impl Both {
    /// Loads them; `None`, loudly, where that isn't allowed.
    fn load(ingress: &Ruleset, egress: &Ruleset, max_flows: u32) -> Option<Self> {
        if !tests::require::root_and_bpf() {
            return None;
        }
        let images = [ingress, egress].map(|ruleset| Image::compile(ruleset, BUDGET).unwrap());
        let side = |ruleset, image| Compiled { ruleset, image };
        let pair = TestPair::load(
            side(ingress, &images[0]),
            side(egress, &images[1]),
            max_flows,
        );
        Some(Self(pair.unwrap()))
    }

    /// A packet goes out, and nothing is said of it but that it does.
    #[track_caller]
    fn sends(&mut self, frame: &[u8]) {
        let judgement = self.0.judge(Direction::Egress, frame).unwrap();
        assert_eq!(judgement.decision.verdict, Verdict::Pass, "{judgement:?}");
    }

    /// What comes in gets this answer and is counted once, there and nowhere else.
    #[track_caller]
    fn expect(&mut self, frame: &[u8], decision: Decision, noted: &[u32]) {
        let before = self.0.ingress().stats().unwrap();
        let found = self.0.judge(Direction::Ingress, frame).unwrap();
        let after = self.0.ingress().stats().unwrap();
        let wanted = Judgement {
            decision,
            essential: None,
            noted: noted.to_vec(),
        };
        assert_eq!(found, wanted, "of {frame:02x?}");
        counted::once(&before, &after, &found, frame);
    }

    #[track_caller]
    fn answers(&mut self, frame: &[u8]) {
        self.expect(frame, ESTABLISHED, &[]);
    }

    /// What is counted of flows that the node began.
    fn totals(&self) -> filter_user::datapath::FlowTotals {
        self.0.flow_totals().unwrap()[1]
    }

    fn entries(&self) -> usize {
        self.0.flows().unwrap().len()
    }
}

fn udp(sport: u16, dport: u16) -> Udp {
    Udp {
        sport,
        ..Udp::to(dport)
    }
}

/// The node asks, of either version.
fn question(version: usize, port: u16) -> Vec<u8> {
    between(NODE[version], PEER[version], &udp(port, 53))
}

fn answer(version: usize, port: u16) -> Vec<u8> {
    between(PEER[version], NODE[version], &udp(53, port))
}

fn closed() -> Ruleset {
    ruleset(Action::Deny, [])
}

fn open() -> Ruleset {
    egress(Action::Allow, [])
}

#[test]
fn an_answer_is_counted_as_established_and_nowhere_else() {
    let rules = [deny(protocol(17))];
    for ingress in [closed(), ruleset(Action::Allow, rules)] {
        let Some(mut both) = Both::load(&ingress, &open(), 1_024) else {
            return;
        };
        for version in [0, 1] {
            let rule = ingress.rules.first().map(|_| 0);
            let refused = match rule {
                None => drops(Reason::DefaultDeny),
                Some(_) => decision(Verdict::Drop, Reason::PolicyDeny, rule),
            };
            both.expect(&answer(version, 4_000), refused, &[]);
            both.sends(&question(version, 4_000));
            both.answers(&answer(version, 4_000));
            both.answers(&answer(version, 4_000));
            both.expect(&answer(version, 4_001), refused, &[]);
        }
        let totals = both.totals();
        let counts = (totals.inserts, totals.entries, totals.hits);
        assert_eq!(counts, (2, 2, 4));
        assert_eq!((totals.evictions, totals.refused), (0, 0));
    }
}

#[test]
fn rules_are_noted_beside_it() {
    let rules = [
        log(Match::default()),
        staged(allow(protocol(17))),
        deny(protocol(17)),
        log(Match::default()),
    ];
    let Some(mut both) = Both::load(&ruleset(Action::Allow, rules), &open(), 1_024) else {
        return;
    };
    both.sends(&question(0, 4_000));
    let denied = decision(Verdict::Drop, Reason::PolicyDeny, Some(2));
    both.expect(&answer(0, 4_001), denied, &[0, 1]);
    both.expect(&answer(0, 4_000), ESTABLISHED, &[0, 1]);
}

#[test]
fn a_flow_says_who_talks_to_whom() {
    let Some(mut both) = Both::load(&closed(), &open(), 1_024) else {
        return;
    };
    for version in [0, 1] {
        both.sends(&question(version, 4_000));
        both.sends(&question(version, 4_000));
        both.answers(&answer(version, 4_000));
        let flows = both.0.flows().unwrap();
        let [flow] = &flows[version..] else {
            panic!("{flows:#?}");
        };
        assert_eq!(flow.begun, Direction::Egress);
        assert_eq!(flow.src.to_string(), NODE[version]);
        assert_eq!(flow.dst.to_string(), PEER[version]);
        assert_eq!((flow.protocol, flow.numbers), (17, [4_000, 53]));
        assert_eq!(flow.state, State::TwoWay);
        assert_eq!((flow.forward, flow.back), (2, 1));
        let left = flow.left.unwrap();
        assert!(left > Duration::from_secs(100) && left <= Duration::from_mins(2));
    }
}

#[test]
fn tcp_goes_through_its_states() {
    let Some(mut both) = Both::load(&closed(), &open(), 1_024) else {
        return;
    };
    let tcp = |sport, dport, flags| Tcp {
        sport,
        flags,
        ..Tcp::to(dport)
    };
    let there = |flags| between(NODE[0], PEER[0], &tcp(4_000, 443, flags));
    let back = |flags| between(PEER[0], NODE[0], &tcp(443, 4_000, flags));
    let state = |both: &Both| {
        let flows = both.0.flows().unwrap();
        assert_eq!(flows.len(), 1);
        flows[0].state
    };
    both.sends(&there(Tcp::SYN));
    assert_eq!(state(&both), State::SynSent);
    both.answers(&back(Tcp::SYN | Tcp::ACK));
    assert_eq!(state(&both), State::SynAnswered);
    both.sends(&there(Tcp::ACK));
    assert_eq!(state(&both), State::Established);
    both.answers(&back(Tcp::ACK));
    both.answers(&back(Tcp::FIN | Tcp::ACK));
    assert_eq!(state(&both), State::Closing);
    both.sends(&there(Tcp::SYN));
    assert_eq!(state(&both), State::SynSent);
    both.answers(&back(Tcp::RST | Tcp::ACK));
    assert_eq!(state(&both), State::Reset);
    both.0.age(Duration::from_secs(11)).unwrap();
    both.expect(&back(Tcp::ACK), drops(Reason::DefaultDeny), &[]);
    assert_eq!(both.totals().inserts, 1);
}

/// Frames that are not plain take another way through the program.
#[test]
fn odd_frames_are_answers_too() {
    let Some(mut both) = Both::load(&closed(), &open(), 1_024) else {
        return;
    };
    let v4 = |src: &str, dst: &str| Ipv4 {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        options: vec![1; 8],
        ..Ipv4::default()
    };
    let v6 = |src: &str, dst: &str| Ipv6 {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        ..Ipv6::with([Extension::hop_by_hop(), Extension::destination()])
    };
    let tagged = Ethernet::default().tagged(&[VLAN]);
    let asks = udp(4_000, 53);
    let says = Udp {
        data: vec![0x55; 2_500],
        ..udp(53, 4_000)
    };
    for frame in [
        plain(&v4(NODE[0], PEER[0]).carry(&asks)),
        plain(&v6(NODE[1], PEER[1]).carry(&asks)),
    ] {
        both.sends(&frame);
    }
    for frame in [
        plain(&v4(PEER[0], NODE[0]).carry(&says)),
        plain(&v6(PEER[1], NODE[1]).carry(&says)),
        tagged.carry(&v4(PEER[0], NODE[0]).carry(&says)),
        tagged.carry(&v6(PEER[1], NODE[1]).carry(&says)),
        between(PEER[0], NODE[0], &says),
        between(PEER[1], NODE[1], &says),
    ] {
        both.answers(&frame);
    }
    assert_eq!((both.entries(), both.totals().hits), (2, 6));
}

/// A rule of both directions' untracked stage costs no flow.
#[test]
fn what_is_untracked_keeps_nothing() {
    let untracked = |rule: Rule| in_stage(Stage::Untracked, rule);
    let from_53 = Match {
        src_ports: ranges(&[(53, 53)]),
        ..protocol(17)
    };
    let nothing = |both: &Both| {
        assert_eq!(both.entries(), 0);
        let [begun_in, begun_out] = both.0.flow_totals().unwrap();
        let counts = [begun_in, begun_out].map(|totals| (totals.inserts, totals.hits));
        assert_eq!(counts, [(0, 0); 2]);
    };

    // Untracked rules drop the answer, whatever was asked.
    let ingress = ruleset(Action::Deny, [untracked(deny(protocol(17)))]);
    let Some(mut both) = Both::load(&ingress, &open(), 1_024) else {
        return;
    };
    both.sends(&question(0, 4_000));
    let denied = decision(Verdict::Drop, Reason::PolicyDeny, Some(0));
    both.expect(&answer(0, 4_000), denied, &[]);
    nothing(&both);

    // They allow it.
    let ingress = ruleset(Action::Deny, [untracked(allow(from_53))]);
    let Some(mut both) = Both::load(&ingress, &open(), 1_024) else {
        return;
    };
    both.sends(&question(0, 4_000));
    let allowed = decision(Verdict::Pass, Reason::PolicyAllow, Some(0));
    both.expect(&answer(0, 4_000), allowed, &[]);
    nothing(&both);

    // They allow the question, and nothing is remembered of it.
    let egress = egress(Action::Allow, [untracked(allow(protocol(17)))]);
    let Some(mut both) = Both::load(&closed(), &egress, 1_024) else {
        return;
    };
    both.sends(&question(0, 4_000));
    both.expect(&answer(0, 4_000), drops(Reason::DefaultDeny), &[]);
    nothing(&both);
}

/// A flood at an open port, which may be answered, leaves no trace.
#[test]
fn what_may_be_answered_keeps_nothing() {
    let ingress = ruleset(Action::Deny, [allow(ports(6, &[(80, 80)]))]);
    let egress = egress(Action::Allow, [deny(ports(17, &[(9, 9)]))]);
    let Some(mut both) = Both::load(&ingress, &egress, 1_024) else {
        return;
    };
    for sport in 1..500 {
        let syn = Tcp {
            sport,
            ..Tcp::to(80)
        };
        let allowed = decision(Verdict::Pass, Reason::PolicyAllow, Some(0));
        both.expect(&between(PEER[0], NODE[0], &syn), allowed, &[]);
    }
    assert_eq!(both.entries(), 0);
}

#[test]
fn without_room_nothing_is_remembered() {
    let Some(mut both) = Both::load(&closed(), &open(), 0) else {
        return;
    };
    both.sends(&question(0, 4_000));
    both.expect(&answer(0, 4_000), drops(Reason::DefaultDeny), &[]);
    assert_eq!(both.entries(), 0);
}

/// The ones that were seen least recently go, and each that goes is counted; those that
/// begin outside are in a table of their own.
#[test]
fn a_full_table_forgets_the_oldest() {
    const ROOM: u32 = 256;
    const MANY: u16 = 2_000;
    /// Beyond the ports of DHCP, which are essential.
    const FIRST: u16 = 10_000;
    let ingress = ruleset(Action::Deny, [allow(ports(6, &[(80, 80)]))]);
    let to_80 = Match {
        dst_ports: ranges(&[(1, 79), (81, u16::MAX)]),
        ..protocol(17)
    };
    let egress = egress(Action::Deny, [allow(to_80)]);
    let Some(mut both) = Both::load(&ingress, &egress, ROOM) else {
        return;
    };
    for port in FIRST..FIRST + MANY {
        both.sends(&question(0, port));
    }
    both.answers(&answer(0, FIRST + MANY - 1));
    both.expect(&answer(0, FIRST), drops(Reason::DefaultDeny), &[]);
    let totals = both.totals();
    assert_eq!(totals.inserts, u64::from(MANY));
    assert_eq!(totals.evictions, totals.inserts - totals.entries);
    assert!(totals.entries <= ROOM.into(), "{totals:?}");
    assert!(totals.entries >= u64::from(ROOM) / 2, "{totals:?}");
    assert_eq!(totals.refused, 0);

    // As many from outside, whose answers the node may not send by itself.
    for sport in 1..=MANY {
        let syn = Tcp {
            sport,
            ..Tcp::to(80)
        };
        let frame = between(PEER[0], NODE[0], &syn as &dyn Payload);
        let judgement = both.0.judge(Direction::Ingress, &frame).unwrap();
        assert_eq!(judgement.decision.reason, Reason::PolicyAllow);
    }
    let [begun_in, begun_out] = both.0.flow_totals().unwrap();
    assert_eq!(begun_in.inserts, u64::from(MANY));
    assert_eq!(
        (begun_out.entries, begun_out.evictions),
        (totals.entries, totals.evictions)
    );
    both.answers(&answer(0, FIRST + MANY - 1));
}
