//! Twenty million packets through loaded programs, against the host and the reference, and the
//! tests of that: see `common/prove`. `cargo xtask prove` does more of the same.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "documents/mod.rs"]
mod documents;
#[path = "common/known.rs"]
mod known;
#[path = "common/mistakes.rs"]
mod mistakes;
#[path = "common/prove/mod.rs"]
mod prove;
#[path = "common/random.rs"]
mod random;
#[path = "common/switch_over.rs"]
mod switch_over;
#[path = "common/talk.rs"]
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use filter_common::verdict::Reason;
use filter_user::compile::Image;
use filter_user::reference;
use filter_user::ruleset::{Addresses, Direction, Ruleset};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tests::require;

use prove::example::Example;
use prove::kernel::{Kernel, corpus};
use prove::{Cheap, Done, Plan, drawn, next_to, runner, sweep};
use random::{Recipe, recipe, ruleset};

const BUDGET: u64 = 64 << 20;
const CASES: u64 = 20_000_000;
/// What was found wrong once, and must never be again.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");

#[test]
fn twenty_million_packets_are_decided_and_counted_as_the_host_says() {
    if !require::root_and_bpf() {
        return;
    }
    let seed = drawn(&mut TestRunner::default(), &any::<u64>());
    let plan = Plan {
        cases: CASES,
        seed,
        until: None,
        folder: Path::new(REGRESSIONS),
    };
    let done = Done::default();
    if let Err(found) = prove::prove(&plan, &done, |_| {}) {
        panic!(
            "{}\nkept as {:?}: {:#?}",
            found.what, found.kept, found.example
        );
    }
    println!("seed {seed}: {}", done.summary());
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!(of(&done.kernel) >= CASES);
    let edges = switch_over::quick().len() + switch_over::slow().len();
    assert!(of(&done.rounds) >= 100 + edges as u64, "{done:?}");
    assert!(of(&done.documents) >= 40, "{done:?}");
    assert!(of(&done.outward) >= 200_000, "{done:?}");
    assert!(of(&done.talks) >= 1_000, "{done:?}");
    assert!(of(&done.swept) >= 500_000, "{done:?}");
    assert!(of(&done.reference) >= 1_000_000, "{done:?}");
    assert!(of(&done.distinct) * 2 > of(&done.looked_at), "{done:?}");
}

#[test]
fn what_was_wrong_once_is_right() {
    if !require::root_and_bpf() {
        return;
    }
    let cases = prove::replay(Path::new(REGRESSIONS)).unwrap();
    assert!(cases >= 5, "only {cases} packets");
}

fn frames(ruleset: &Ruleset, recipes: &[Recipe]) -> Vec<Vec<u8>> {
    recipes
        .iter()
        .map(|recipe| recipe.frame(ruleset).0)
        .collect()
}

/// The search must find what is wrong, down to the frame, in both directions.
#[test]
fn one_wrong_answer_is_found() {
    if !require::root_and_bpf() {
        return;
    }
    let mut runner = runner(11, 0);
    let recipes: Vec<Recipe> = (0..300).map(|_| drawn(&mut runner, &recipe())).collect();
    let mut ruleset = drawn(&mut runner, &ruleset(40));
    let mut corpus = corpus();
    for direction in [Direction::Ingress, Direction::Egress] {
        ruleset.direction = direction;
        let image = Image::compile(&ruleset, BUDGET).unwrap();
        let takes = |frame: &Vec<u8>| Kernel::takes(direction, frame);
        let mut aimed = frames(&ruleset, &recipes);
        aimed.retain(takes);
        let mut kernel = Kernel::new(&ruleset, &image, &mut corpus);
        let mut cheap = Cheap(7);
        let frames = (0..30_000).map(|_| next_to(&aimed, &mut cheap));
        kernel.fill(frames.filter(takes));
        assert_eq!(kernel.differs(&|frame| image.judge(frame)), None);
        let last = kernel.frames.len() - 1;
        for place in [0, 1, last / 2, last] {
            let odd = kernel.frames[place].clone();
            // The first of its kind, if it is there more than once: a frame of
            // another length has another sum of bytes.
            let found = kernel.differs(&|frame| {
                let mut judgement = image.judge(frame);
                if *frame == *odd {
                    judgement.decision.rule = None;
                    judgement.decision.reason = Reason::Internal;
                }
                judgement
            });
            assert_eq!(found, Some(odd));
        }
    }
}

/// What a wrong evaluator gets wrong comes down to a rule or two and a packet, can be kept, and
/// is the same when it is read.
#[test]
fn a_failure_is_shrunk_and_kept() {
    if !require::root_and_bpf() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "the end of a port range is exclusive",
        "ICMP code 0 is no code",
        "an IPv4-mapped address is an IPv4 address",
        "source and destination are swapped",
        "the last match decides",
    ] {
        let (_, mistake) = mistakes::all().find(|(known, _)| *known == name).unwrap();
        // Whose verdict is another.
        let fails = |example: &Example| {
            let ruleset = &example.rulesets[0];
            example.steps.iter().any(|step| {
                let (mut taken, mut bytes) = (ruleset.clone(), step.frame.clone());
                mistake(&mut taken, &mut bytes);
                let right = reference::evaluate(ruleset, &step.frame).verdict;
                right != reference::evaluate(&taken, &bytes).verdict
            })
        };
        let failing = (0..).find_map(|number| {
            let mut runner = runner(3, number);
            let ruleset = drawn(&mut runner, &ruleset(40));
            let recipes: Vec<Recipe> = (0..200).map(|_| drawn(&mut runner, &recipe())).collect();
            let frames = frames(&ruleset, &recipes).into_iter();
            let mut examples = frames.map(|frame| Example::of(ruleset.clone(), None, frame));
            examples.find(|example| fails(example))
        });
        let failing = failing.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let example = failing.shrunk(until, fails);
        let rules = example.rulesets[0].rules.len();
        assert!(
            rules <= 2 && example.steps.len() == 1,
            "{name}: {example:#?}"
        );
        let kept = example.keep(folder.path(), name).unwrap();
        let text = fs::read_to_string(&kept).unwrap();
        let (again, expected) = Example::read(&text).unwrap();
        assert_eq!(format!("{again:?}"), format!("{example:?}"));
        // The three of us have it right.
        assert_eq!(again.compare(&mut 0), Ok(expected), "{name}");
        println!("{name}: {rules} rules are enough\n{text}");
    }
}

/// What is at the edges of rulesets, told from the frames' bytes alone.
#[test]
fn a_sweep_leaves_nothing_out() {
    let mut all_networks = 0;
    let mut all_ranges = 0;
    for number in 0..8 {
        let ruleset = drawn(&mut runner(5, number), &ruleset(40));
        let turn = usize::try_from(number).unwrap();
        // Four for each, of which some are the same.
        let at = sweep::addresses(&ruleset);
        assert_eq!(at.len(), 4 * networks(&ruleset));
        let sides: BTreeSet<&[u8]> = at.iter().flat_map(|frame| addresses_of(frame)).collect();
        for net in ruleset
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .flat_map(|matches| &matches.src.nets)
        {
            for end in [net.network(), net.broadcast()] {
                let bytes = match end {
                    std::net::IpAddr::V4(end) => end.octets().to_vec(),
                    std::net::IpAddr::V6(end) => end.octets().to_vec(),
                };
                assert!(sides.contains(&bytes[..]), "{net}");
            }
        }
        all_networks += networks(&ruleset);
        assert_eq!(sweep::range_ends(&ruleset).len(), 4 * ranges(&ruleset));
        all_ranges += ranges(&ruleset);

        let all = sweep::ports(&ruleset, turn);
        let l4 = |frame: &[u8]| if frame[12] == 8 { 34 } else { 54 };
        let ports: BTreeSet<&[u8]> = all.iter().map(|frame| &frame[l4(frame)..][..2]).collect();
        let others: BTreeSet<&[u8]> = all
            .iter()
            .map(|frame| &frame[l4(frame) + 2..][..2])
            .collect();
        assert_eq!(ports.len().max(others.len()), 65_536);
        let all = sweep::icmp(&ruleset, turn);
        let kinds: BTreeSet<&[u8]> = all.iter().map(|frame| &frame[l4(frame)..][..2]).collect();
        assert_eq!(kinds.len(), 65_536);

        let all = sweep::protocols(&ruleset, turn);
        let mut protocols: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for frame in &all {
            let protocol = frame[if frame[12] == 8 { 23 } else { 20 }];
            protocols.entry(frame[12]).or_default().insert(protocol);
        }
        let counts: Vec<usize> = protocols.values().map(BTreeSet::len).collect();
        assert_eq!(counts, [256, 256]);

        // Walked along with the sizes that RFC 8200 and RFC 4302 give them.
        let all = sweep::chains(&ruleset, turn);
        let mut chains = BTreeSet::new();
        for frame in &all {
            let (mut next, mut at, mut chain) = (frame[20], 54, Vec::new());
            while [0, 43, 44, 51, 60, 135].contains(&next) {
                let size = match next {
                    44 => 8,
                    51 => (usize::from(frame[at + 1]) + 2) * 4,
                    _ => (usize::from(frame[at + 1]) + 1) * 8,
                };
                chain.push(&frame[at + 2..at + 8]);
                chain.push(std::slice::from_ref(&frame[at]));
                (next, at) = (frame[at], at + size);
            }
            chains.insert((frame[20], chain.concat()));
            assert!(at + 4 <= frame.len());
        }
        // Of nine kinds.
        assert_eq!(chains.len(), 1 + 9 + 9 * 9 + 9 * 9 * 9 + 9 * 9 * 9 * 9);

        let all = sweep::truncations(&ruleset, turn);
        let lengths: BTreeSet<usize> = all.iter().map(Vec::len).collect();
        let longest = lengths.last().copied().unwrap();
        assert!(longest > 100 && lengths.len() == longest + 1, "{lengths:?}");
        assert!(all.len() > 1_000, "{}", all.len());
    }
    assert!(
        all_networks > 200 && all_ranges > 50,
        "{all_networks}, {all_ranges}"
    );
}

/// All that is asked about networks, with those of sets.
fn networks(ruleset: &Ruleset) -> usize {
    let alternatives = ruleset.rules.iter().flat_map(|rule| &rule.matches);
    let sides = alternatives.flat_map(|matches| [&matches.src, &matches.dst]);
    let count = |side: &Addresses| {
        let sets = side.sets.iter().chain(&side.not_sets);
        let of_sets = sets.map(|set| ruleset.sets[*set as usize].nets.len());
        side.nets.len() + side.not_nets.len() + of_sets.sum::<usize>()
    };
    sides.map(count).sum()
}

fn ranges(ruleset: &Ruleset) -> usize {
    let alternatives = ruleset.rules.iter().flat_map(|rule| &rule.matches);
    let counts = alternatives.map(|matches| {
        let not = matches.not_src_ports.len() + matches.not_dst_ports.len();
        not + matches.src_ports.len() + matches.dst_ports.len()
    });
    counts.sum()
}

fn addresses_of(frame: &[u8]) -> [&[u8]; 2] {
    match frame[12] {
        8 => [&frame[26..30], &frame[30..34]],
        _ => [&frame[22..38], &frame[38..54]],
    }
}

/// One number, port, or header that is treated otherwise than it should be, and that random
/// packets hardly come to.
#[test]
fn a_sweep_catches_what_is_wrong_at_one_edge() {
    type Wrong = fn(&[u8]) -> bool;
    let wrong: [(&str, Wrong); 6] = [
        ("protocol 253 is another", |frame| {
            frame[12] == 8 && frame[23] == 253
        }),
        ("port 41,234 is another", |frame| {
            frame[12] == 8
                && frame[34..38]
                    .as_chunks::<2>()
                    .0
                    .contains(&41_234_u16.to_be_bytes())
        }),
        ("ICMP 77/201 is another", |frame| {
            frame[12] == 8 && frame[23] == 1 && frame[34..36] == [77, 201]
        }),
        (
            "destination options behind three headers are not seen",
            |frame| {
                frame[12] == 0x86
                    && frame[20] == 60
                    && frame.get(54) == Some(&135)
                    && frame.get(62) == Some(&51)
                    && frame.get(70) == Some(&60)
            },
        ),
        ("a frame of 61 bytes is another", |frame| frame.len() == 61),
        ("2001:db8:: is another", |frame| {
            frame[12] == 0x86
                && frame[22..38] == [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }),
    ];
    for (name, wrong) in wrong {
        let met = (0..12).find_map(|number| {
            let ruleset = drawn(&mut runner(5, number), &ruleset(40));
            let frames = sweep::sweep(&ruleset, usize::try_from(number).unwrap());
            let place = frames
                .iter()
                .position(|frame| frame.len() >= 46 && wrong(frame))?;
            Some((number, place))
        });
        let (ruleset, place) = met.unwrap_or_else(|| panic!("not caught: {name}"));
        println!("caught by the sweep of ruleset {ruleset}, packet {place}: {name}");
    }
}
