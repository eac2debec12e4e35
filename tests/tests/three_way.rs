//! Three independent answers to every (policy, packet): the reference, the
//! classifier on the host, and the program in the kernel.
//!
//! reference = host finds bugs of the compiler and the classifier; host =
//! kernel finds bugs of maps, code generation and counting. Verdict, reason,
//! rule, what is noted, and counters are compared. The last tests check the comparison: wrong
//! evaluators must be caught, and the packets must reach every reason.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/mistakes.rs"]
mod mistakes;
#[path = "common/random.rs"]
mod random;
#[path = "common/switch_over.rs"]
mod switch_over;
#[path = "common/table_mistakes.rs"]
mod table_mistakes;

#[cfg(feature = "bpf")]
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use filter_common::verdict::Reason;
use filter_user::compile::{Combination, Image};
use filter_user::reference;
use filter_user::ruleset::{Action, Ruleset};
#[cfg(feature = "bpf")]
use filter_user::ruleset::{Direction, Match, Rule, RuleId, Stage};
#[cfg(feature = "bpf")]
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};
use tests::times::times;

use random::{Frame, Recipe, recipe, ruleset};
use table_mistakes::{Glass, Mistake};

const BUDGET: u64 = 64 << 20;
const MAX_RULES: usize = 40;

type Failure = Box<TestError<(Ruleset, Vec<Recipe>)>>;

/// How much is compared, and from which random numbers.
struct Size {
    rulesets: u32,
    /// Packets that each ruleset meets.
    packets: RangeInclusive<usize>,
    /// The same packets in every run, and a failure as it is found, not
    /// shrunk: for the tests of this test.
    repeatable: bool,
}

impl Size {
    fn runner(&self) -> TestRunner {
        let config = Config {
            cases: if self.repeatable {
                self.rulesets
            } else {
                times(self.rulesets)
            },
            // A failure is printed whole, ruleset and packets.
            failure_persistence: None,
            max_shrink_iters: if self.repeatable { 0 } else { 20_000 },
            ..Config::default()
        };
        if self.repeatable {
            let rng = TestRng::from_seed(config.rng_algorithm, &[7; 32]);
            TestRunner::new_with_rng(config, rng)
        } else {
            TestRunner::new(config)
        }
    }
}

/// Runs `check` on random rulesets, each with packets that aim at it.
fn compare(
    size: &Size,
    check: impl FnMut(&Ruleset, &[Frame]) -> Result<(), TestCaseError>,
) -> Result<(), Failure> {
    let check = RefCell::new(check);
    let packets = prop::collection::vec(recipe(), size.packets.clone());
    size.runner()
        .run(&(ruleset(MAX_RULES), packets), |(ruleset, recipes)| {
            let frames = frames(&ruleset, &recipes);
            (check.borrow_mut())(&ruleset, &frames)
        })
        .map_err(Box::new)
}

fn frames(ruleset: &Ruleset, recipes: &[Recipe]) -> Vec<Frame> {
    recipes.iter().map(|recipe| recipe.frame(ruleset)).collect()
}

/// Two answers about a frame must be one.
fn same<A: fmt::Debug + PartialEq>(
    (first, answer): (&str, A),
    (second, other): (&str, A),
    frame: &Frame,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        answer,
        other,
        "{} and {} disagree about the frame {:?}",
        first,
        second,
        frame
    );
    Ok(())
}

fn compiled(ruleset: &Ruleset) -> Result<Image, TestCaseError> {
    Image::compile(ruleset, BUDGET).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// The ruleset without what is counted beside a verdict, combined by parts.
fn by_parts(ruleset: &Ruleset) -> Result<(Ruleset, Image), TestCaseError> {
    let mut plain = ruleset.clone();
    plain
        .rules
        .retain(|rule| !rule.staged && matches!(rule.action, Action::Allow | Action::Deny));
    let image = Image::compile_as(&plain, BUDGET, Some(Combination::Parts))
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    Ok((plain, image))
}

/// Panics with the smallest counter-example.
fn expect_agreement(result: Result<(), Failure>) {
    match result.map_err(|failure| *failure) {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{reason}"),
        Err(TestError::Fail(reason, (ruleset, recipes))) => {
            let frames = frames(&ruleset, &recipes);
            panic!("{reason}\nruleset: {ruleset:#?}\nframes: {frames:#?}");
        }
    }
}

#[test]
fn reference_and_host_agree() {
    agree_by(|ruleset| Ok((ruleset.clone(), compiled(ruleset)?)));
}

#[test]
fn reference_and_host_agree_by_parts() {
    agree_by(by_parts);
}

/// One line of a rule surely matches, another one in another part can't be decided.
#[test]
fn a_rule_is_decided_where_one_of_its_lines_is() {
    use filter_user::ruleset::{Addresses, Direction, Match, PortRange, Rule, RuleId, Stage};
    use tests::packet::{Ethernet, Ipv4, Tcp};

    let net: ipnet::IpNet = "0.0.0.0/0".parse().unwrap();
    let port = PortRange {
        first: 80,
        last: 80,
    };
    let by_port = Match {
        protocol: Some(6),
        dst: Addresses::from(vec![net]),
        dst_ports: vec![port],
        ..Match::default()
    };
    let later = Ethernet::default().carry(&Ipv4::fragment(64, false).carry(&Tcp::to(80)));
    for action in [Action::Allow, Action::Deny] {
        for matches in [
            [Match::default(), by_port.clone()],
            [by_port.clone(), Match::default()],
        ] {
            let ruleset = Ruleset {
                endpoint: "lines".to_owned(),
                direction: Direction::Ingress,
                sets: Vec::new(),
                rules: vec![Rule {
                    id: RuleId {
                        stage: Stage::Normal,
                        policy: "p".into(),
                        direction: Direction::Ingress,
                        index: Some(0),
                    },
                    tier: None,
                    action,
                    staged: false,
                    matches: matches.to_vec(),
                    source: None,
                }],
                default: Action::Allow,
                options: filter_user::ruleset::Options::default(),
            };
            let expected = reference::judge(&ruleset, &later);
            assert_eq!(expected.decision.rule, Some(0));
            for combination in [Combination::Dense, Combination::Parts] {
                let image = Image::compile_as(&ruleset, BUDGET, Some(combination)).unwrap();
                assert_eq!(image.judge(&later), expected, "{action:?}, {combination}");
            }
        }
    }
}

fn agree_by(compile: impl Fn(&Ruleset) -> Result<(Ruleset, Image), TestCaseError>) {
    let size = Size {
        rulesets: 1_200,
        packets: 1..=380,
        repeatable: false,
    };
    let mut cases = 0;
    expect_agreement(compare(&size, |ruleset, frames| {
        let (ruleset, image) = &compile(ruleset)?;
        cases += frames.len();
        frames.iter().try_for_each(|frame| {
            same(
                ("reference", reference::judge(ruleset, &frame.0)),
                ("host", image.judge(&frame.0)),
                frame,
            )
        })
    }));
    assert!(cases >= 200_000, "only {cases} cases");
}

/// Every cut of every packet, and never a panic.
#[test]
fn reference_and_host_agree_on_every_truncation() {
    let size = Size {
        rulesets: 300,
        packets: 1..=12,
        repeatable: false,
    };
    expect_agreement(compare(&size, |ruleset, frames| {
        let image = compiled(ruleset)?;
        for frame in frames {
            // Extension headers can be long; their headers are what matters.
            for length in (0..frame.0.len()).take(400) {
                let cut = Frame(frame.0[..length].to_vec());
                same(
                    ("reference", reference::judge(ruleset, &cut.0)),
                    ("host", image.judge(&cut.0)),
                    &cut,
                )?;
            }
        }
        Ok(())
    }));
}

#[cfg(feature = "bpf")]
#[test]
fn host_and_kernel_agree() {
    // There is a program for small images and one for all: each gets its share.
    let loads = [const { Cell::new(0) }; 2];
    kernel_agrees_by(|ruleset| {
        let mut ruleset = ruleset.clone();
        if ruleset.rules.len() % 4 == 0 {
            ruleset.rules.extend(nested());
        }
        let image = compiled(&ruleset)?;
        let loads = &loads[usize::from(image.layout().is_small())];
        loads.set(loads.get() + 1);
        Ok((ruleset, image))
    });
    assert!(loads.iter().all(|loads| loads.get() > 5), "{loads:?}");
}

/// Rules over networks in each other, for which a trie has many levels.
#[cfg(feature = "bpf")]
fn nested() -> impl Iterator<Item = Rule> {
    (0..).zip((16..=128).step_by(8)).map(|(index, length)| {
        let net = IpNet::new_assert("2001:db8::7".parse().unwrap(), length).trunc();
        let action = if index % 2 == 0 {
            Action::Deny
        } else {
            Action::Allow
        };
        Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: "nested".into(),
                direction: Direction::Ingress,
                index: Some(index),
            },
            tier: None,
            action,
            staged: false,
            matches: vec![Match {
                src: vec![net].into(),
                ..Match::default()
            }],
            source: None,
        }
    })
}

#[cfg(feature = "bpf")]
#[test]
fn host_and_kernel_agree_by_parts() {
    kernel_agrees_by(by_parts);
}

#[cfg(feature = "bpf")]
fn kernel_agrees_by(compile: impl Fn(&Ruleset) -> Result<(Ruleset, Image), TestCaseError>) {
    use filter_user::datapath::{Count, TestBench};

    if !tests::require::root_and_bpf() {
        return;
    }
    let size = Size {
        rulesets: 100,
        packets: 1..=500,
        repeatable: false,
    };
    let mut cases = 0;
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    expect_agreement(compare(&size, |ruleset, frames| {
        let (ruleset, image) = &compile(ruleset)?;
        let mut bench = TestBench::load(ruleset, image).map_err(|error| failed(&error))?;
        let mut by_rule = vec![Count::default(); ruleset.rules.len()];
        let mut by_reason = BTreeMap::new();
        for frame in frames
            .iter()
            .filter(|frame| TestBench::takes(ruleset.direction, &frame.0))
        {
            let host = image.judge(&frame.0);
            let kernel = bench.judge(&frame.0).map_err(|error| failed(&error))?;
            same(("host", host.clone()), ("kernel", kernel), frame)?;
            cases += 1;
            let one = Count {
                packets: 1,
                bytes: frame.0.len() as u64,
            };
            for rule in host.decision.rule.iter().chain(&host.noted) {
                by_rule[*rule as usize] = by_rule[*rule as usize] + one;
            }
            let sum = by_reason
                .entry((host.decision.reason, host.decision.verdict.name()))
                .or_insert(Count::default());
            *sum = *sum + one;
        }
        // Everything was counted once, in its reason, and in each rule that it
        // met.
        let stats = bench.stats().map_err(|error| failed(&error))?;
        let counted: Vec<Count> = stats.of_rules.clone();
        prop_assert_eq!(counted, by_rule);
        let counted: BTreeMap<_, _> = stats
            .reasons
            .iter()
            .filter(|(_, _, count)| *count != Count::default())
            .map(|(reason, verdict, count)| ((*reason, verdict.name()), *count))
            .collect();
        prop_assert_eq!(counted, by_reason);
        Ok(())
    }));
    assert!(cases >= 20_000, "only {cases} cases");
}

/// Packets that a case meets.
const BESIDE: usize = 150;

/// Host and kernel are compared at the same points in `in_kernel.rs`.
#[test]
fn reference_and_host_agree_where_the_compiler_switches_over() {
    for case in switch_over::quick().iter().chain(&switch_over::slow()) {
        let image = case
            .compile()
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        if let Some(expected) = case.expected {
            assert_eq!(image.combination(), expected, "{}", case.name);
        }
        if let Some(expected) = case.l4_classes {
            assert_eq!(image.layout().l4_classes, expected, "{}", case.name);
        }
        // The reference asks rule after rule.
        let many = case.ruleset.rules.len() > 10_000;
        let frames = case.frames(if many { 12 } else { BESIDE });
        assert!(frames.len() >= 9, "{}", case.name);
        for frame in &frames {
            assert_eq!(
                reference::judge(&case.ruleset, frame),
                image.judge(frame),
                "{}: {:?}",
                case.name,
                Frame(frame.clone())
            );
        }
    }
}

/// A byte less than the tables take is an error that says what they take.
#[test]
fn the_memory_budget_is_exact() {
    use filter_user::compile::CompileError;

    for case in switch_over::quick() {
        let image = case.compile().unwrap();
        // Of one part, it is not what is made where parts are asked for by name.
        if case.forced.is_none() && image.combination() == Combination::Parts {
            continue;
        }
        // Where there is a choice, the compiler would try another combination.
        let combination = Some(image.combination());
        let with = |budget: u64| Image::compile_as(&case.ruleset, budget, combination);
        // What the compiler itself needs for a moment may be more.
        match with(image.memory()) {
            Ok(again) => assert!(again.lines() == image.lines(), "{}", case.name),
            Err(CompileError::TooLarge { needed, budget }) => {
                assert!(needed > budget, "{}", case.name);
                assert_eq!(image.combination(), Combination::Parts, "{}", case.name);
            }
            Err(error) => panic!("{}: {error}", case.name),
        }
        let refused = with(image.memory() - 64);
        assert!(
            matches!(refused, Err(CompileError::TooLarge { needed, budget })
                if needed > budget && budget == image.memory() - 64),
            "{}: {:?}",
            case.name,
            refused.map(|image| image.memory())
        );
    }
}

/// What a mistake in the tables or in how they are read makes of a packet must
/// be seen by one of the packets.
#[test]
fn every_mistake_in_the_tables_is_caught() {
    let cases = switch_over::quick();
    let images: Vec<Image> = cases.iter().map(|case| case.compile().unwrap()).collect();
    let frames: Vec<_> = cases.iter().map(|case| case.frames(BESIDE)).collect();
    let all = || images.iter().zip(&frames);
    for (name, mistake) in table_mistakes::ALL {
        let caught = all().position(|(image, frames)| {
            let glass = Glass::new(image, *mistake);
            let mut frames = frames.iter();
            frames.any(|frame| glass.decide(frame) != image.classify(frame))
        });
        let Some(case) = caught else {
            panic!("not caught: {name}");
        };
        println!("caught by the tables at {}: {name}", cases[case].name);
    }
    // And what makes no mistake is not caught.
    for (image, frames) in all() {
        let glass = Glass::new(image, Mistake::None);
        for frame in frames {
            assert_eq!(glass.decide(frame), image.classify(frame));
        }
    }
}

/// The comparison must be able to fail: a check that can't is a defect.
#[test]
fn every_seeded_mistake_is_caught() {
    let size = || Size {
        rulesets: 400,
        packets: 1..=220,
        repeatable: true,
    };
    for (name, mistake) in mistakes::all() {
        let mut packets = 0_u32;
        let result = compare(&size(), |ruleset, frames| {
            frames.iter().try_for_each(|frame| {
                packets += 1;
                let (mut taken, mut bytes) = (ruleset.clone(), frame.0.clone());
                mistake(&mut taken, &mut bytes);
                same(
                    ("reference", reference::judge(ruleset, &frame.0)),
                    ("mistaken", reference::judge(&taken, &bytes)),
                    frame,
                )
            })
        });
        assert!(
            result.is_err_and(|failure| matches!(*failure, TestError::Fail(..))),
            "not caught: {name}"
        );
        println!("caught by the comparison of evaluators, packet {packets}: {name}");
    }
    // And what makes no mistake is not caught.
    expect_agreement(compare(&size(), |ruleset, frames| {
        frames.iter().try_for_each(|frame| {
            let answer = reference::judge(ruleset, &frame.0);
            same(("reference", answer.clone()), ("itself", answer), frame)
        })
    }));
}

/// Packets that never reach a reason can't find what is wrong with it.
#[test]
fn the_packets_reach_every_reason() {
    let size = Size {
        rulesets: 400,
        packets: 1..=220,
        repeatable: true,
    };
    let mut reached: BTreeMap<(Reason, &str), u32> = BTreeMap::new();
    expect_agreement(compare(&size, |ruleset, frames| {
        for frame in frames {
            let decision = reference::evaluate(ruleset, &frame.0);
            *reached
                .entry((decision.reason, decision.verdict.name()))
                .or_default() += 1;
        }
        Ok(())
    }));
    for reason in Reason::ALL {
        // A look-up that fails, and flows, which this program has none of.
        if [Reason::Internal, Reason::Established].contains(reason) {
            continue;
        }
        let verdicts = match reason {
            Reason::NotIp => vec!["pass", "drop"],
            _ => vec![reason.usual_verdict().name()],
        };
        for verdict in verdicts {
            let count = reached.get(&(*reason, verdict)).copied().unwrap_or(0);
            assert!(count >= 100, "{reason:?} {verdict}: {count} of {reached:?}");
        }
    }
}

/// Nor can packets that meet no rule of a kind.
#[test]
fn the_packets_meet_rules_of_every_kind() {
    let size = Size {
        rulesets: 600,
        packets: 1..=220,
        repeatable: true,
    };
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    let mut at_once = 0;
    expect_agreement(compare(&size, |ruleset, frames| {
        for frame in frames {
            let judgement = reference::judge(ruleset, &frame.0);
            at_once = at_once.max(judgement.noted.len());
            for index in judgement.decision.rule.iter().chain(&judgement.noted) {
                let rule = &ruleset.rules[*index as usize];
                let end = if rule.is_default() { " at the end" } else { "" };
                let staged = if rule.staged { "staged " } else { "" };
                let kind = format!("{staged}{}{end}", rule.action.name());
                *met.entry(kind).or_default() += 1;
            }
        }
        Ok(())
    }));
    for kind in [
        "allow",
        "deny",
        "log",
        "pass",
        "staged allow",
        "staged deny",
        "staged log",
        "staged pass",
        "staged allow at the end",
        "staged deny at the end",
    ] {
        let count = met.get(kind).copied().unwrap_or(0);
        assert!(count >= 200, "{kind}: {count} of {met:?}");
    }
    assert!(at_once >= 5, "only {at_once} rules noted at once");
}
