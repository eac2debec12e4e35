//! Dropped packets are reported within a budget, and what is not reported is
//! counted.

use filter_common::event::{Event, HEADER, Kind, Rate};
use filter_common::verdict::Verdict;
use filter_user::compile::Image;
use filter_user::datapath::{Corpus, Shape, TestBench};
use filter_user::ruleset::{Action, Match, Ruleset};
use tests::packet::{Raw, Tcp, Udp};

use crate::rules::{allow, deny, from, log, ports, ruleset};
use crate::{BUDGET, v4, v6};

/// A window that ends after no test.
const FOR_EVER: u32 = 1 << 30;

fn rules() -> Ruleset {
    ruleset(
        Action::Deny,
        [
            log(ports(17, &[(9, 9)])),
            deny(ports(17, &[(9, 10)])),
            allow(ports(6, &[(80, 80)])),
            deny(from(&["2001:db8::/32"])),
        ],
    )
}

fn load(ruleset: &Ruleset, sampling: Rate) -> Option<(TestBench, Image)> {
    if !tests::require::root_and_bpf() {
        return None;
    }
    let image = Image::compile(ruleset, BUDGET).unwrap();
    let bench = TestBench::load_sampling(ruleset, &image, sampling).unwrap();
    Some((bench, image))
}

fn rate(events: u32, jiffies: u32) -> Rate {
    Rate { events, jiffies }
}

/// Dropped by rules and by reasons, and passed, of many lengths.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = vec![
        v4(&Udp::to(9)),
        v4(&Udp::to(10)),
        v6(&Udp::to(11)),
        v4(&Tcp::to(80)),
        v4(&Tcp::to(81)),
        v6(&Raw::new(6, &[0; 3])),
    ];
    let whole = frames.clone();
    for frame in whole {
        frames.extend((14..frame.len()).map(|length| frame[..length].to_vec()));
        let mut padded = frame;
        padded.resize(1_400, 0);
        frames.push(padded);
    }
    frames
}

#[test]
fn each_dropped_packet_is_told_as_it_was_decided() {
    let ruleset = rules();
    let Some((mut bench, image)) = load(&ruleset, rate(1_000, FOR_EVER)) else {
        return;
    };
    let mut reached = std::collections::BTreeSet::new();
    for frame in frames() {
        let judgement = bench.judge(&frame).unwrap();
        assert_eq!(judgement, image.judge(&frame));
        let decision = judgement.decision;
        let (events, lost) = bench.reported().unwrap();
        assert_eq!(lost, 0);
        let (drops, logs): (Vec<Event>, Vec<Event>) = events
            .into_iter()
            .partition(|event| event.kind == Kind::Drop as u8);
        assert_eq!(logs.len(), judgement.noted.len());
        if decision.verdict == Verdict::Pass {
            assert!(drops.is_empty(), "{frame:02x?}");
            continue;
        }
        let [event] = drops[..] else {
            panic!("{drops:?} of {frame:02x?}");
        };
        reached.insert((decision.reason as u8, decision.rule));
        assert_eq!(event.reason, decision.reason as u8, "{frame:02x?}");
        let rule = decision.rule.unwrap_or(filter_common::abi::NONE);
        assert_eq!((event.rule, event.decided_by), (rule, rule));
        assert_eq!((event.verdict, event.stands_for), (1, 1));
        assert_eq!(event.length as usize, frame.len());
        let header = &frame[..frame.len().min(HEADER)];
        assert_eq!(&event.header[..usize::from(event.captured)], header);
    }
    // By two rules, by default, and by some reason of the parser.
    assert!(reached.len() >= 4, "{reached:?}");
}

/// Runs the frames round and round; gives how many packets were dropped.
fn flood(bench: &mut TestBench, image: &Image, packets: u32) -> u64 {
    let mut corpus = Corpus::new(Shape::Cases, 1_000).unwrap();
    let frames = frames();
    for frame in &frames {
        corpus.push(frame).unwrap();
    }
    let all = corpus.len();
    assert_eq!(packets % all, 0);
    bench.run_corpus(&mut corpus, 0..all, packets).unwrap();
    let is_dropped = |frame: &&Vec<u8>| image.judge(frame).decision.verdict == Verdict::Drop;
    frames.iter().filter(is_dropped).count() as u64 * u64::from(packets / all)
}

fn stand_for(events: &[Event]) -> u64 {
    events.iter().map(|event| event.stands_for).sum()
}

#[test]
fn a_flood_is_reported_or_counted() {
    // No Log rule, which has a budget of its own.
    let rules = [deny(ports(17, &[(9, 10)])), allow(ports(6, &[(80, 80)]))];
    let ruleset = ruleset(Action::Deny, rules);
    let rounds = u32::try_from(frames().len()).unwrap() * 300;
    for sampling in [rate(1, 1), rate(7, FOR_EVER), rate(2, 5), rate(50, 1)] {
        let Some((mut bench, image)) = load(&ruleset, sampling) else {
            return;
        };
        let dropped = flood(&mut bench, &image, rounds);
        let (events, lost) = bench.reported().unwrap();
        assert_eq!(events.len() as u64 + lost, dropped, "{sampling:?}");
        assert!(!events.is_empty() && lost > dropped / 2, "{sampling:?}");
        assert!(stand_for(&events) <= dropped);
        if sampling.jiffies == FOR_EVER {
            // One budget a CPU, and the run may change to another.
            assert_eq!(events.len() % 7, 0);
            assert_eq!(stand_for(&events), events.len() as u64);
        }
    }
}

#[test]
fn a_full_ring_is_counted_and_told_by_the_next_event() {
    let ruleset = ruleset(Action::Deny, [deny(Match::default())]);
    let Some((mut bench, image)) = load(&ruleset, rate(u32::MAX, FOR_EVER)) else {
        return;
    };
    let rounds = u32::try_from(frames().len()).unwrap() * 30;
    let mut dropped = flood(&mut bench, &image, rounds);
    let (events, lost) = bench.reported().unwrap();
    assert!((1_400..1_500).contains(&events.len()), "{}", events.len());
    assert_eq!(events.len() as u64 + lost, dropped);
    // The ring has room again. What comes next stands for what was lost, if it
    // is on the same CPU; so does what comes after it on the other ones.
    let mut told = stand_for(&events);
    for _ in 0..200 {
        bench.judge(&v4(&Udp::to(9))).unwrap();
        dropped += 1;
        told += stand_for(&bench.reported().unwrap().0);
        if told == dropped {
            return;
        }
    }
    panic!("{told} of {dropped} told");
}

#[test]
fn sampling_that_is_off_is_not_in_the_program() {
    let ruleset = ruleset(Action::Deny, [allow(ports(6, &[(80, 80)]))]);
    let (Some((mut off, image)), Some((mut on, _))) =
        (load(&ruleset, Rate::OFF), load(&ruleset, rate(2, 5)))
    else {
        return;
    };
    let (without, with) = (off.program_size().unwrap(), on.program_size().unwrap());
    // A budget's look-up and the whole of an event: some hundred bytes.
    assert!(
        without.xlated_bytes + 300 < with.xlated_bytes,
        "{without:?} {with:?}"
    );
    assert!(off.memory() < on.memory());
    let rounds = u32::try_from(frames().len()).unwrap();
    assert!(flood(&mut off, &image, rounds) > 0);
    let (events, lost) = off.reported().unwrap();
    assert_eq!((events.len(), lost), (0, 0));
}
