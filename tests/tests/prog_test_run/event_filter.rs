//! Which packets are reported: what a reader asks for, asked before the budget.

use filter_common::abi::NONE;
use filter_common::event::{Event, Kind, Rate};
use filter_common::packet::Cursor;
use filter_common::verdict::{Reason, Verdict};
use filter_user::compile::Image;
use filter_user::datapath::{Corpus, EventFilter, Shape, TestBench};
use filter_user::ruleset::{Action, Ruleset};
use tests::packet::ethertype::{SERVICE_VLAN, VLAN};
use tests::packet::{Ethernet, Extension, Icmp, Ipv4, Ipv6, Packet, Payload, Raw, Tcp, Udp};

use crate::egress::egress;
use crate::rules::{allow, deny, from, log, ports, protocol, ruleset};
use crate::{BUDGET, between, plain, v4, v6, v6_with};

/// A window that ends after no test.
const FOR_EVER: u32 = 1 << 30;

fn load(ruleset: &Ruleset, events: u32) -> Option<TestBench> {
    if !tests::require::root_and_bpf() {
        return None;
    }
    let image = Image::compile(ruleset, BUDGET).unwrap();
    let rate = Rate {
        events,
        jiffies: FOR_EVER,
    };
    Some(TestBench::load_sampling(ruleset, &image, rate).unwrap())
}

/// What is reported of one frame, of which nothing may be lost.
#[track_caller]
fn told(bench: &mut TestBench, frame: &[u8]) -> Vec<Event> {
    let (_, before) = bench.reported().unwrap();
    bench.judge(frame).unwrap();
    let (events, lost) = bench.reported().unwrap();
    assert_eq!(lost, before, "{frame:02x?}");
    for event in &events {
        assert_eq!(event.stands_for, 1);
        assert_eq!(
            &event.header[..usize::from(event.captured)],
            &frame[..frame.len().min(128)]
        );
    }
    events
}

fn src(net: &str) -> EventFilter {
    EventFilter {
        src: Some(net.parse().unwrap()),
        ..EventFilter::default()
    }
}

fn dst(net: &str) -> EventFilter {
    EventFilter {
        dst: Some(net.parse().unwrap()),
        ..EventFilter::default()
    }
}

fn proto(number: u8) -> EventFilter {
    EventFilter {
        proto: Some(number),
        ..EventFilter::default()
    }
}

fn port(number: u16) -> EventFilter {
    EventFilter {
        port: Some(number),
        ..EventFilter::default()
    }
}

fn reasons(reasons: &[Reason]) -> EventFilter {
    EventFilter {
        reasons: reasons.to_vec(),
        ..EventFilter::default()
    }
}

fn rule(policy: Option<&str>, rule: Option<u32>) -> EventFilter {
    EventFilter {
        policy: policy.map(str::to_owned),
        rule,
        ..EventFilter::default()
    }
}

const A4: &str = "198.51.100.1";
const B4: &str = "192.0.2.2";
const A6: &str = "2001:db8:a::1";
const B6: &str = "2001:db8:b::2";

fn both(payload: &dyn Payload) -> [Vec<u8>; 2] {
    [between(A4, B4, payload), between(A6, B6, payload)]
}

fn in_tags(tags: &[u16], packet: &Packet) -> Vec<u8> {
    Ethernet::default().tagged(tags).carry(packet)
}

fn packet4(payload: &dyn Payload) -> Packet {
    Ipv4 {
        src: A4.parse().unwrap(),
        dst: B4.parse().unwrap(),
        ..Ipv4::default()
    }
    .carry(payload)
}

fn packet6(extensions: &[Extension], payload: &dyn Payload) -> Packet {
    Ipv6 {
        src: A6.parse().unwrap(),
        dst: B6.parse().unwrap(),
        ..Ipv6::with(extensions)
    }
    .carry(payload)
}

/// Frames that a ruleset without rules drops, of every form: those with a port 53 as
/// source or destination, and the others.
fn frames() -> Vec<Vec<u8>> {
    let reply = Udp {
        sport: 53,
        ..Udp::to(9)
    };
    let mut frames = Vec::new();
    for payload in [&Udp::to(53) as &dyn Payload, &reply, &Tcp::to(443)] {
        frames.extend(both(payload));
        let (packet4, packet6) = (packet4(payload), packet6(&[], payload));
        for tags in [
            &[VLAN][..],
            &[SERVICE_VLAN, VLAN],
            // One more than rules look through.
            &[VLAN, VLAN, VLAN],
            &[VLAN, VLAN, VLAN, VLAN],
        ] {
            frames.extend([in_tags(tags, &packet4), in_tags(tags, &packet6)]);
        }
        let options = Ipv4 {
            options: vec![1; 8],
            ..Ipv4::default()
        };
        frames.push(plain(&options.carry(payload)));
        for (offset, more) in [(0, true), (64, true), (64, false)] {
            frames.push(plain(&Ipv4::fragment(offset, more).carry(payload)));
            frames.push(v6_with([Extension::fragment(offset, more)], payload));
        }
        frames.push(v6_with([Extension::units(60, 1)], payload));
        frames.push(v6_with(
            [Extension::fragment(0, false), Extension::units(60, 2)],
            payload,
        ));
        let malformed = Ipv4 {
            total_length: Some(9_000),
            ..Ipv4::default()
        };
        frames.push(plain(&malformed.carry(payload)));
    }
    frames.extend([v4(&Icmp::new(8, 0)), v4(&Raw::new(47, &[0, 53, 0, 53]))]);
    frames.extend([
        v4(&Raw::new(51, &[17, 4, 0, 0])),
        v6(&Raw::new(132, &[0; 3])),
    ]);
    frames
}

#[test]
fn each_criterion_tells_what_is_wanted_and_nothing_else() {
    let [dns4, dns6] = both(&Udp::to(53));
    let reply = Udp {
        sport: 53,
        ..Udp::to(9)
    };
    let [reply4, reply6] = both(&reply);
    let [web4, web6] = both(&Tcp::to(443));
    let back4 = between(B4, A4, &Udp::to(9));
    let back6 = between(B6, A6, &Udp::to(9));
    let tagged4 = in_tags(&[VLAN], &packet4(&Udp::to(53)));
    let tagged6 = in_tags(&[SERVICE_VLAN, VLAN], &packet6(&[], &Udp::to(53)));
    let first6 = plain(&packet6(&[Extension::fragment(0, true)], &Udp::to(53)));
    let later6 = plain(&packet6(&[Extension::fragment(8, false)], &Udp::to(53)));
    let later4 = plain(&Ipv4::fragment(8, false).carry(&Udp::to(53)));
    let mut short4 = web4.clone();
    short4.truncate(14 + 20 + 3);
    let mut shorter4 = web4.clone();
    shorter4.truncate(14 + 19);
    let all = [
        &dns4, &dns6, &reply4, &reply6, &web4, &web6, &back4, &back6, &tagged4, &tagged6, &first6,
        &later6, &later4, &short4, &shorter4,
    ];
    let from_a4 = vec![&dns4, &reply4, &web4, &tagged4, &short4];
    let from_a6 = vec![&dns6, &reply6, &web6, &tagged6, &first6, &later6];
    let with_53 = vec![&dns4, &dns6, &reply4, &reply6, &tagged4, &tagged6, &first6];
    let of_udp = vec![
        &dns4, &dns6, &reply4, &reply6, &back4, &back6, &tagged4, &tagged6, &first6, &later6,
        &later4,
    ];
    let cases: Vec<(EventFilter, Vec<&Vec<u8>>)> = vec![
        (EventFilter::default(), all.to_vec()),
        (src("198.51.100.0/24"), from_a4.clone()),
        (src("198.51.100.1/32"), from_a4.clone()),
        (src("198.51.100.2/32"), vec![]),
        (dst("192.0.2.2/31"), from_a4.clone()),
        (src("192.0.2.2/32"), vec![&back4]),
        (dst("198.51.100.1/32"), vec![&back4]),
        (src("2001:db8:a::/48"), from_a6.clone()),
        (src("2001:db8:a::1/128"), from_a6.clone()),
        (src("2001:db8:a::2/128"), vec![]),
        (dst("2001:db8:b::2/128"), from_a6.clone()),
        (src("2001:db8:b::/64"), vec![&back6]),
        (src("::/0"), [from_a6.clone(), vec![&back6]].concat()),
        (port(53), with_53.clone()),
        (port(443), vec![&web4, &web6]),
        (port(7), vec![]),
        (proto(17), of_udp),
        (proto(6), vec![&web4, &web6, &short4]),
        (proto(1), vec![]),
        (
            reasons(&[Reason::DefaultDeny]),
            all.iter()
                .copied()
                .filter(|frame| **frame != short4 && **frame != shorter4)
                .collect(),
        ),
        (reasons(&[Reason::Malformed]), vec![&short4, &shorter4]),
        (
            EventFilter {
                port: Some(53),
                proto: Some(17),
                ..src("198.51.100.0/24")
            },
            vec![&dns4, &reply4, &tagged4],
        ),
        (
            EventFilter {
                reasons: vec![Reason::Malformed],
                ..src("198.51.100.0/24")
            },
            vec![&short4],
        ),
    ];
    for egressing in [false, true] {
        let rules = if egressing {
            egress(Action::Deny, [])
        } else {
            ruleset(Action::Deny, [])
        };
        let Some(mut bench) = load(&rules, 10_000) else {
            return;
        };
        for (filter, wanted) in &cases {
            bench.want(filter).unwrap();
            for frame in all {
                if !TestBench::takes(rules.direction, frame) {
                    continue;
                }
                let events = told(&mut bench, frame);
                let expected = usize::from(wanted.contains(&frame));
                assert_eq!(
                    events.len(),
                    expected,
                    "egress {egressing}, {filter:?} of {frame:02x?}"
                );
            }
        }
    }
}

/// The kernel asks what the host does, of frames of every form and length.
#[test]
fn kernel_and_host_want_the_same() {
    let filters = [
        src("198.51.100.0/24"),
        dst("2001:db8:b::2/128"),
        proto(17),
        proto(44),
        port(53),
        EventFilter {
            proto: Some(17),
            dst: Some("192.0.2.0/24".parse().unwrap()),
            port: Some(53),
            ..EventFilter::default()
        },
        reasons(&[Reason::DefaultDeny, Reason::VlanDepth]),
    ];
    for rules in [ruleset(Action::Deny, []), egress(Action::Deny, [])] {
        let Some(mut bench) = load(&rules, u32::MAX) else {
            return;
        };
        for filter in &filters {
            bench.want(filter).unwrap();
            let criteria = filter.criteria(&rules);
            let mut found = [0, 0];
            for frame in frames() {
                for length in (0..frame.len()).step_by(3).chain([frame.len()]) {
                    let frame = &frame[..length];
                    if !TestBench::takes(rules.direction, frame) {
                        continue;
                    }
                    let decision = bench.run(frame).unwrap();
                    let (events, _) = bench.reported().unwrap();
                    let wanted = decision.verdict == Verdict::Drop
                        && criteria.wants_decision(NONE, decision.reason)
                        && criteria.wants_packet(&Cursor::over(frame));
                    assert_eq!(events.len(), usize::from(wanted), "{filter:?} {frame:02x?}");
                    found[usize::from(wanted)] += 1;
                }
            }
            assert!(found[0] > 50 && found[1] > 50, "{filter:?}: {found:?}");
        }
    }
}

#[test]
fn rules_are_asked_by_policy_and_index() {
    let mut rules = ruleset(
        Action::Deny,
        [
            log(protocol(17)),
            deny(ports(17, &[(9, 9)])),
            deny(ports(17, &[(10, 10)])),
            log(protocol(6)),
            deny(from(&["198.51.100.0/24", "2001:db8:a::/48"])),
        ],
    );
    for rule in &mut rules.rules[3..] {
        rule.id.policy = "other".into();
    }
    let Some(mut bench) = load(&rules, 10_000) else {
        return;
    };
    // Who reports it, and the rule that does.
    let (logged, dropped) = (Kind::Log as u8, Kind::Drop as u8);
    for (filter, of_9, of_10, of_tcp, of_default) in [
        (
            rule(None, None),
            vec![(logged, 0), (dropped, 1)],
            vec![(logged, 0), (dropped, 2)],
            vec![(logged, 3), (dropped, 4)],
            vec![(dropped, NONE)],
        ),
        (
            rule(Some("test"), None),
            vec![(logged, 0), (dropped, 1)],
            vec![(logged, 0), (dropped, 2)],
            vec![],
            vec![],
        ),
        (
            rule(Some("other"), None),
            vec![],
            vec![],
            vec![(logged, 3), (dropped, 4)],
            vec![],
        ),
        (
            rule(Some("test"), Some(1)),
            vec![(dropped, 1)],
            vec![],
            vec![],
            vec![],
        ),
        (
            rule(None, Some(0)),
            vec![(logged, 0)],
            vec![(logged, 0)],
            vec![],
            vec![],
        ),
        (rule(Some("neither"), None), vec![], vec![], vec![], vec![]),
        (
            EventFilter {
                reasons: vec![Reason::DefaultDeny],
                ..rule(None, None)
            },
            vec![],
            vec![],
            vec![],
            vec![(dropped, NONE)],
        ),
    ] {
        bench.want(&filter).unwrap();
        let unnamed = v4(&Raw::new(47, &[]));
        for (frames, wanted) in [
            (both(&Udp::to(9)), of_9),
            (both(&Udp::to(10)), of_10),
            (both(&Tcp::to(9)), of_tcp),
            ([unnamed.clone(), unnamed], of_default),
        ] {
            for frame in frames {
                let events = told(&mut bench, &frame);
                let found: Vec<(u8, u32)> = events
                    .iter()
                    .map(|event| (event.kind, event.rule))
                    .collect();
                assert_eq!(found, wanted, "{filter:?} of {frame:02x?}");
            }
        }
    }
}

/// What Log rules report of packets that pass is asked likewise.
#[test]
fn logged_packets_that_pass_are_asked_about() {
    let open = [log(protocol(17)), allow(protocol(17))];
    for rules in [
        ruleset(Action::Deny, open.clone()),
        egress(Action::Deny, open),
    ] {
        let image = Image::compile(&rules, BUDGET).unwrap();
        if !tests::require::root_and_bpf() {
            return;
        }
        // No drops are sampled: Log rules report by themselves.
        let mut bench = TestBench::load(&rules, &image).unwrap();
        for (filter, wanted) in [
            (port(53), [true, true, false, false]),
            (src("198.51.100.1/32"), [true, false, true, false]),
            (dst("2001:db8:b::/48"), [false, true, false, true]),
            (reasons(&[Reason::PolicyAllow]), [true; 4]),
            (reasons(&[Reason::PolicyDeny]), [false; 4]),
        ] {
            bench.want(&filter).unwrap();
            let ([a, b], [c, d]) = (both(&Udp::to(53)), both(&Udp::to(9)));
            let found = [a, b, c, d].map(|frame| !told(&mut bench, &frame).is_empty());
            assert_eq!(found, wanted, "{filter:?}");
        }
    }
}

/// A flood that nobody asks for takes nothing, and is not told as lost.
#[test]
fn what_nobody_wants_costs_no_budget() {
    let rules = ruleset(Action::Deny, []);
    let Some(mut bench) = load(&rules, 5) else {
        return;
    };
    let mut corpus = Corpus::new(Shape::Cases, 100).unwrap();
    let [unwanted4, unwanted6] = both(&Udp::to(9));
    corpus.push(&unwanted4).unwrap();
    corpus.push(&unwanted6).unwrap();
    let wanted = between("198.51.100.77", B4, &Udp::to(9));
    let only = src("198.51.100.77/32");

    // Before anybody asks, it is all there is, but for what the budget gives.
    bench.run_corpus(&mut corpus, 0..2, 10_000).unwrap();
    let (events, lost) = bench.reported().unwrap();
    assert_eq!(events.len() as u64 + lost, 10_000);
    assert!(lost > 9_000);

    // What is asked for has the whole budget from now on, and stands for itself.
    bench.want(&only).unwrap();
    for _ in 0..5 {
        bench.run_corpus(&mut corpus, 0..2, 10_000).unwrap();
        let (events, now) = bench.reported().unwrap();
        assert_eq!((events.len(), now), (0, lost));
        bench.judge(&wanted).unwrap();
        let (events, now) = bench.reported().unwrap();
        assert_eq!(now, lost);
        let [event] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event.stands_for, 1);
    }

    // Its own flood is lost and counted, and stood for.
    corpus.clear();
    corpus.push(&unwanted4).unwrap();
    corpus.push(&wanted).unwrap();
    bench.run_corpus(&mut corpus, 0..2, 1_000).unwrap();
    let (events, now) = bench.reported().unwrap();
    assert_eq!(events.len() as u64 + now - lost, 500);

    // Taken back, everything is told again.
    bench.want(&EventFilter::default()).unwrap();
    let (_, before) = bench.reported().unwrap();
    bench.judge(&unwanted4).unwrap();
    let (events, now) = bench.reported().unwrap();
    assert_eq!((events.len(), now), (1, before));
    assert_eq!(events[0].stands_for, 1);
}
