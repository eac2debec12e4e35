//! Three independent answers to every (policy, packet): the reference, the
//! classifier on the host, and the program in the kernel.
//!
//! reference = host finds bugs of the compiler and the classifier; host =
//! kernel finds bugs of maps, code generation and counting. `TestBench::run`
//! fails by itself where a packet isn't counted exactly once, so verdict,
//! reason, rule and counter are compared.

#[path = "common/random.rs"]
mod random;

use filter_user::compile::Image;
use filter_user::decision::Decision;
use filter_user::reference;
use filter_user::ruleset::{Ruleset, Stage};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use random::{Frame, Recipe, recipe, ruleset};

const BUDGET: u64 = 64 << 20;

/// Compares two evaluators on `rulesets` × `packets` cases; the seed is fixed
/// for a sanity check and random otherwise.
fn compare(
    mut runner: TestRunner,
    packets: usize,
    mut check: impl FnMut(&Ruleset, &[Frame]) -> Result<(), TestCaseError>,
) -> Result<(), TestError<(Ruleset, Vec<Recipe>)>> {
    let check = std::cell::RefCell::new(&mut check);
    let cases = (ruleset(12), prop::collection::vec(recipe(), 1..=packets));
    runner.run(&cases, |(ruleset, recipes)| {
        let frames: Vec<Frame> = recipes
            .iter()
            .map(|recipe| recipe.frame(&ruleset))
            .collect();
        (check.borrow_mut())(&ruleset, &frames)
    })
}

fn runner(rulesets: u32) -> TestRunner {
    TestRunner::new(Config {
        cases: rulesets,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    })
}

/// What a failure shows.
fn equal(expected: Decision, found: Decision, frame: &Frame) -> Result<(), TestCaseError> {
    prop_assert_eq!(expected, found, "of the frame {:?}", frame);
    Ok(())
}

/// Panics with the smallest counter-example.
fn expect_agreement(result: Result<(), TestError<(Ruleset, Vec<Recipe>)>>) {
    if let Err(TestError::Fail(reason, (ruleset, recipes))) = &result {
        let frames: Vec<Frame> = recipes.iter().map(|recipe| recipe.frame(ruleset)).collect();
        panic!("{reason}\nruleset: {ruleset:#?}\nframes: {frames:#?}");
    }
    result.unwrap();
}

#[test]
fn reference_and_host_agree() {
    expect_agreement(compare(runner(4_000), 100, |ruleset, frames| {
        let image = Image::compile(ruleset, BUDGET)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        frames.iter().try_for_each(|frame| {
            equal(
                reference::evaluate(ruleset, &frame.0),
                image.classify(&frame.0),
                frame,
            )
        })
    }));
}

#[cfg(feature = "bpf")]
#[test]
fn host_and_kernel_agree() {
    use filter_user::datapath::TestBench;

    if !tests::require::privileged() {
        return;
    }
    expect_agreement(compare(runner(250), 160, |ruleset, frames| {
        let fail = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
        let image = Image::compile(ruleset, BUDGET).map_err(|error| fail(&error))?;
        let mut bench = TestBench::load(ruleset, &image).map_err(|error| fail(&error))?;
        for frame in frames {
            let found = bench.run(&frame.0).map_err(|error| fail(&error))?;
            equal(image.classify(&frame.0), found, frame)?;
        }
        Ok(())
    }));
}

/// The comparison must be able to fail: each of these wrong evaluators is
/// caught by it.
#[test]
fn seeded_bugs_are_caught() {
    type Bug = fn(&mut Ruleset, &mut Vec<u8>);
    let bugs: [(&str, Bug); 9] = [
        ("the end of a range is exclusive", |ruleset, _| {
            for rule in &mut ruleset.rules {
                for range in &mut rule.matches.dst_ports {
                    range.last = range.last.saturating_sub(1).max(range.first);
                }
            }
        }),
        ("source and destination are swapped", |ruleset, _| {
            for rule in &mut ruleset.rules {
                let matches = &mut rule.matches;
                std::mem::swap(&mut matches.src_nets, &mut matches.dst_nets);
            }
        }),
        ("IPv4 options are not skipped", |_, frame| {
            if frame[12..14] == [8, 0] && frame.len() > 14 && frame[14] > 0x45 {
                frame[14] = 0x45;
            }
        }),
        ("the fragment offset is ignored", |_, frame| {
            if frame[12..14] == [8, 0] && frame.len() > 22 {
                frame[20..22].fill(0);
            }
        }),
        ("a third VLAN tag is looked through", |_, frame| {
            while frame.len() > 26
                && frame[12..14] == [0x81, 0]
                && frame[16..18] == [0x81, 0]
                && frame[20..22] == [0x81, 0]
            {
                frame.drain(12..16);
            }
        }),
        ("the last rule is missing", |ruleset, _| {
            ruleset.rules.pop();
        }),
        ("IPv6 is forgotten", |ruleset, _| {
            ruleset
                .rules
                .retain(|rule| rule.matches.family != Some(filter_user::ruleset::Family::V6));
        }),
        ("stages are evaluated in the wrong order", |ruleset, _| {
            ruleset
                .rules
                .sort_by_key(|rule| std::cmp::Reverse(rule.id.stage));
        }),
        ("failsafes are ordinary rules", |ruleset, _| {
            for rule in &mut ruleset.rules {
                if rule.id.stage == Stage::Failsafe {
                    rule.id.stage = Stage::Normal;
                }
            }
        }),
    ];
    for (name, bug) in bugs {
        let rng = TestRng::from_seed(Config::default().rng_algorithm, &[7; 32]);
        let config = Config {
            cases: 2_000,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..Config::default()
        };
        let result = compare(
            TestRunner::new_with_rng(config, rng),
            100,
            |ruleset, frames| {
                for frame in frames {
                    let (mut wrong, mut bytes) = (ruleset.clone(), frame.0.clone());
                    bug(&mut wrong, &mut bytes);
                    let image = Image::compile(&wrong, BUDGET)
                        .map_err(|error| TestCaseError::fail(error.to_string()))?;
                    equal(
                        reference::evaluate(ruleset, &frame.0),
                        image.classify(&bytes),
                        frame,
                    )?;
                }
                Ok(())
            },
        );
        assert!(
            matches!(result, Err(TestError::Fail(..))),
            "not caught: {name}"
        );
    }
}
