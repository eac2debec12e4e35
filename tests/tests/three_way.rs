//! Three independent answers to every (policy, packet): the reference, the
//! classifier on the host, and the program in the kernel.
//!
//! reference = host finds bugs of the compiler and the classifier; host =
//! kernel finds bugs of maps, code generation and counting. Verdict, reason,
//! rule and counters are compared. The last tests check the comparison: wrong
//! evaluators must be caught, and the packets must reach every reason.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/random.rs"]
mod random;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use filter_common::verdict::Reason;
use filter_user::compile::Image;
use filter_user::decision::Decision;
use filter_user::reference;
use filter_user::ruleset::{Family, Ruleset, Stage};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use random::{Frame, Recipe, recipe, ruleset};

const BUDGET: u64 = 64 << 20;
const MAX_RULES: usize = 40;

type Failure = TestError<(Ruleset, Vec<Recipe>)>;

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
            cases: self.rulesets,
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
}

fn frames(ruleset: &Ruleset, recipes: &[Recipe]) -> Vec<Frame> {
    recipes.iter().map(|recipe| recipe.frame(ruleset)).collect()
}

/// Two answers about a frame must be one.
fn same(
    (first, decision): (&str, Decision),
    (second, other): (&str, Decision),
    frame: &Frame,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        decision,
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

/// Panics with the smallest counter-example.
fn expect_agreement(result: Result<(), Failure>) {
    match result {
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
    let size = Size {
        rulesets: 1_200,
        packets: 1..=380,
        repeatable: false,
    };
    let mut cases = 0;
    expect_agreement(compare(&size, |ruleset, frames| {
        let image = compiled(ruleset)?;
        cases += frames.len();
        frames.iter().try_for_each(|frame| {
            same(
                ("reference", reference::evaluate(ruleset, &frame.0)),
                ("host", image.classify(&frame.0)),
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
                    ("reference", reference::evaluate(ruleset, &cut.0)),
                    ("host", image.classify(&cut.0)),
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
        let image = compiled(ruleset)?;
        let mut bench = TestBench::load(ruleset, &image).map_err(|error| failed(&error))?;
        let mut by_rule = vec![Count::default(); ruleset.rules.len()];
        let mut by_reason = BTreeMap::new();
        // The kernel knows no frame shorter than an Ethernet header.
        for frame in frames
            .iter()
            .filter(|frame| frame.0.len() >= TestBench::MIN_FRAME)
        {
            let host = image.classify(&frame.0);
            let kernel = bench.run(&frame.0).map_err(|error| failed(&error))?;
            same(("host", host), ("kernel", kernel), frame)?;
            cases += 1;
            let one = Count {
                packets: 1,
                bytes: frame.0.len() as u64,
            };
            if let Some(rule) = host.rule {
                by_rule[rule as usize] = by_rule[rule as usize] + one;
            }
            let sum = by_reason
                .entry((host.reason, host.verdict.name()))
                .or_insert(Count::default());
            *sum = *sum + one;
        }
        // Everything was counted once, in its rule and in its reason.
        let stats = bench.stats().map_err(|error| failed(&error))?;
        let counted: Vec<Count> = stats.rules.iter().map(|(_, count)| *count).collect();
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

/// A mistake that an evaluator might make: what it takes a ruleset and a frame
/// for.
type Mistake = fn(&mut Ruleset, &mut Vec<u8>);

const MISTAKES: &[(&str, Mistake)] = &[
    ("the end of a port range is exclusive", |ruleset, _| {
        for rule in &mut ruleset.rules {
            for range in rule.matches.iter_mut().flat_map(|m| &mut m.dst_ports) {
                range.last = range.last.saturating_sub(1).max(range.first);
            }
        }
    }),
    ("source and destination are swapped", |ruleset, _| {
        for rule in &mut ruleset.rules {
            for matches in &mut rule.matches {
                std::mem::swap(&mut matches.src, &mut matches.dst);
            }
        }
    }),
    ("a prefix is one bit short", |ruleset, _| {
        for rule in &mut ruleset.rules {
            for net in rule.matches.iter_mut().flat_map(|m| &mut m.src.nets) {
                *net = net.supernet().unwrap_or(*net);
            }
        }
    }),
    ("the IHL is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 && frame[14] > 0x45 {
            frame[14] = 0x45;
        }
    }),
    ("the fragment offset is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            frame[20..22].fill(0);
        }
    }),
    ("\"more fragments\" is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            frame[20] &= !0x20;
        }
    }),
    ("a third VLAN tag is looked through", |_, frame| {
        let is_tag = |at: usize| {
            frame.get(at..at + 2).is_some_and(|tag| {
                [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]].contains(&[tag[0], tag[1]])
            })
        };
        if is_tag(12) && is_tag(16) && is_tag(20) {
            frame.drain(12..16);
        }
    }),
    ("padding is read as L4", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            let all = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
            frame[16..18].copy_from_slice(&all.to_be_bytes());
        }
    }),
    (
        "the hop limit of neighbour discovery is not asked for",
        |_, frame| {
            if frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.len() >= 54 {
                frame[21] = 255;
            }
        },
    ),
    (
        "an IPv4-mapped address is an IPv4 address",
        |ruleset, frame| {
            if frame.get(12..14) == Some(&[0x86, 0xdd])
                && frame.get(22..34) == Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
            {
                let is_v4 = |net: &ipnet::IpNet| matches!(net, ipnet::IpNet::V4(_));
                for rule in &mut ruleset.rules {
                    for matches in &mut rule.matches {
                        if matches.src.nets.iter().any(is_v4) {
                            matches.src.nets.clear();
                        }
                    }
                }
            }
        },
    ),
    ("IPv6 is forgotten", |ruleset, _| {
        ruleset
            .rules
            .retain(|rule| rule.matches[0].family != Some(Family::V6));
    }),
    ("the last rule is missing", |ruleset, _| {
        ruleset.rules.pop();
    }),
    ("the last match decides", |ruleset, _| {
        ruleset.rules.reverse();
    }),
    ("failsafes are ordinary rules", |ruleset, _| {
        for rule in &mut ruleset.rules {
            if rule.id.stage == Stage::Failsafe {
                rule.id.stage = Stage::Normal;
            }
        }
    }),
    ("options are forgotten", |ruleset, _| {
        ruleset.options = filter_user::ruleset::Options::default();
    }),
];

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

/// The comparison must be able to fail: a check that can't is a defect.
#[test]
fn every_seeded_mistake_is_caught() {
    let size = || Size {
        rulesets: 400,
        packets: 1..=220,
        repeatable: true,
    };
    for (name, mistake) in MISTAKES {
        let result = compare(&size(), |ruleset, frames| {
            frames.iter().try_for_each(|frame| {
                let (mut taken, mut bytes) = (ruleset.clone(), frame.0.clone());
                mistake(&mut taken, &mut bytes);
                same(
                    ("reference", reference::evaluate(ruleset, &frame.0)),
                    ("mistaken", reference::evaluate(&taken, &bytes)),
                    frame,
                )
            })
        });
        assert!(
            matches!(result, Err(TestError::Fail(..))),
            "not caught: {name}"
        );
    }
    // And what makes no mistake is not caught.
    expect_agreement(compare(&size(), |ruleset, frames| {
        frames.iter().try_for_each(|frame| {
            let decision = reference::evaluate(ruleset, &frame.0);
            same(("reference", decision), ("itself", decision), frame)
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
