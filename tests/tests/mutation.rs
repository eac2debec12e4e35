//! Mistakes that are seeded, and must be caught: programs that are loaded with something
//! wrong, and what other filters get wrong. The mistakes of evaluators, tables, readers of
//! documents and of flows are seeded in `three_way.rs`, `documents.rs` and `talk.rs`, wrong
//! changes in `soak.rs`. All these tests are named `…_is_caught` and print what caught each
//! mistake, and when: `cargo xtask test -- is_caught --nocapture`.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]
#![allow(
    dead_code,
    reason = "of the lists of other tests, the names are asked for alone"
)]

#[path = "common/flow_mistakes.rs"]
mod flow_mistakes;
#[cfg(feature = "bpf")]
#[path = "common/known.rs"]
mod known;
#[path = "common/mistakes.rs"]
mod mistakes;
#[path = "common/peer_mistakes.rs"]
mod peer_mistakes;
#[cfg(feature = "bpf")]
#[path = "common/prove/kernel.rs"]
mod prove_kernel;
#[path = "documents/quirk.rs"]
mod quirk;
#[path = "common/random.rs"]
mod random;
#[path = "common/switch_over.rs"]
mod switch_over;
#[path = "common/table_mistakes.rs"]
mod table_mistakes;
#[path = "common/talk.rs"]
mod talk;

use filter_user::decision::Judgement;
use filter_user::reference;
use filter_user::ruleset::Ruleset;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};

use peer_mistakes::Seed;
use quirk::Quirk;
use random::{Frame, Recipe, recipe, ruleset};

/// The same random numbers in every run.
fn runner() -> TestRunner {
    let config = Config::default();
    let rng = TestRng::from_seed(config.rng_algorithm, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
}

fn drawn<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

/// Every defect that is known of a peer is seeded somewhere, and the quick comparison finds it.
#[test]
fn every_defect_of_a_peer_is_caught() {
    let mut runner = runner();
    let recipes: Vec<Recipe> = (0..1_000).map(|_| drawn(&mut runner, &recipe())).collect();
    let rulesets: Vec<Ruleset> = (0..120).map(|_| drawn(&mut runner, &ruleset(40))).collect();
    let mut not_caught = Vec::new();
    for (who, defect, seed) in peer_mistakes::ALL {
        let search = |mistake: &mistakes::Mistake, differs: fn(&Judgement, &Judgement) -> bool| {
            let mut packets = 0_u32;
            for ruleset in &rulesets {
                for recipe in &recipes {
                    let Frame(frame) = recipe.frame(ruleset);
                    let (mut taken, mut bytes) = (ruleset.clone(), frame.clone());
                    mistake(&mut taken, &mut bytes);
                    packets += 1;
                    let right = reference::judge(ruleset, &frame);
                    if differs(&right, &reference::judge(&taken, &bytes)) {
                        return Some(format!("the comparison of evaluators, packet {packets}"));
                    }
                }
            }
            None
        };
        let by = match seed {
            Seed::Verdict(mistake) => search(mistake, |right, wrong| {
                right.decision.verdict != wrong.decision.verdict
            }),
            Seed::Count(mistake) => search(mistake, |right, wrong| {
                let (right, wrong) = (right.decision, wrong.decision);
                right.verdict == wrong.verdict && right.rule != wrong.rule
            }),
            Seed::Named(name) => {
                let mut evaluators = mistakes::all().map(|(name, _)| *name);
                let mut flows = flow_mistakes::all().map(|(name, _)| *name);
                let by = if evaluators.any(|known| known == *name) {
                    Some("three_way.rs")
                } else {
                    flows.any(|known| known == *name).then_some("talk.rs")
                };
                by.map(|by| format!("{by}: {name}"))
            }
            Seed::Reading(quirk) => Quirk::ALL
                .contains(quirk)
                .then(|| format!("documents.rs: {quirk:?}")),
            Seed::Swap(fault) => {
                // Those of all that are seeded; the test there goes through all.
                let known = include_str!("common/soak.rs").contains(&format!("Self::{fault},"));
                known.then(|| format!("soak.rs: {fault}"))
            }
        };
        match by {
            Some(by) => println!("caught by {by}: {who}: {defect}"),
            None => not_caught.push((who, defect)),
        }
    }
    assert!(not_caught.is_empty(), "not caught: {not_caught:#?}");
    assert!(peer_mistakes::ALL.len() >= 30);
}

#[cfg(feature = "bpf")]
mod kernel {
    use std::time::Duration;

    use filter_user::compile::Image;
    use filter_user::datapath::{Compiled, TestBench, TestPair};
    use filter_user::reference::Conversation;
    use filter_user::ruleset::{Action, Direction, Rule};
    use tests::require;

    use super::known::{Loaded, known_to_reference, unclear};
    use super::prove_kernel::{Kernel, corpus};
    use super::switch_over::{self, Case};
    use super::table_mistakes::{self, Glass, Mistake};
    use super::talk::{Talk, talk};
    use super::*;

    const BUDGET: u64 = 64 << 20;

    /// Mistakes in the tables and the constants, in a program that is loaded with them.
    #[test]
    fn every_mistake_in_a_loaded_image_is_caught() {
        if !require::root_and_bpf() {
            return;
        }
        let cases = switch_over::quick();
        let images: Vec<Image> = cases.iter().map(|case| case.compile().unwrap()).collect();
        let frames: Vec<_> = cases.iter().map(|case| case.frames(150)).collect();
        let mut corpus = corpus();
        let mut seeded = 0;
        for (name, mistake) in table_mistakes::ALL {
            let spoilt = |image: &Image| match mistake {
                Mistake::Layout(change) => Some(image.spoilt(|layout, _| change(layout))),
                Mistake::Line(change) => {
                    Some(image.spoilt(|_, lines| lines.iter_mut().for_each(change)))
                }
                // In how tables are read, which a loaded program can't be made to do.
                _ => None,
            };
            let all = cases.iter().zip(&images).zip(&frames);
            let hit = all.filter(|((_, image), frames)| {
                let glass = Glass::new(image, *mistake);
                let mut frames = frames.iter();
                frames.any(|frame| glass.decide(frame) != image.classify(frame))
            });
            let mut by_kernel = hit
                .filter_map(|((case, image), frames)| Some((case, image, spoilt(image)?, frames)));
            let Some((case, image, wrong, frames)) = by_kernel.next() else {
                continue;
            };
            seeded += 1;
            let found = differs(case, image, &wrong, frames, &mut corpus);
            assert!(found, "not caught in the kernel: {name}");
            println!("caught by the kernel at {}: {name}", case.name);
        }
        assert!(seeded >= 20, "only {seeded} mistakes were loaded");
    }

    /// Whether a program that is loaded with the wrong image gives itself away. What the
    /// verifier refuses does, too.
    fn differs(
        case: &Case,
        image: &Image,
        wrong: &Image,
        frames: &[Vec<u8>],
        corpus: &mut filter_user::datapath::Corpus,
    ) -> bool {
        let mut kernel = Kernel::new(&case.ruleset, wrong, corpus);
        let takes = |frame: &&Vec<u8>| Kernel::takes(Direction::Ingress, frame);
        kernel.fill(frames.iter().filter(takes).cloned());
        kernel.differs(&|frame| image.judge(frame)).is_some()
    }

    /// What a program might be loaded with in the place of its own image: with the policy, and
    /// the one that was in force before.
    type WrongImage = fn(&Ruleset, &Ruleset) -> Image;

    fn compiled(ruleset: &Ruleset) -> Image {
        Image::compile(ruleset, BUDGET).unwrap()
    }

    const IMAGES: &[(&str, WrongImage)] = &[
        ("the tables are those of the policy before", |_, before| {
            compiled(before)
        }),
        (
            "the constants are those of the policy before",
            |policy, before| {
                let before = compiled(before);
                compiled(policy).spoilt(|layout, _| *layout = *before.layout())
            },
        ),
        ("the tables are not filled", |policy, _| {
            compiled(policy).spoilt(|_, lines| lines.fill(bytemuck::Zeroable::zeroed()))
        }),
        (
            "the second half of the tables is not filled",
            |policy, _| {
                compiled(policy).spoilt(|_, lines| {
                    let half = lines.len() / 2;
                    lines[half..].fill(bytemuck::Zeroable::zeroed());
                })
            },
        ),
        ("the tables begin one line too late", |policy, _| {
            compiled(policy).spoilt(|_, lines| lines.rotate_left(1))
        }),
        ("counters are those of the next rule", |policy, _| {
            let mut shifted = policy.clone();
            let none = Rule {
                matches: Vec::new(),
                ..shifted.rules[0].clone()
            };
            shifted.rules.insert(0, none);
            compiled(&shifted)
        }),
        ("the default is the other one", |policy, _| {
            let mut other = policy.clone();
            other.default = match other.default {
                Action::Allow => Action::Deny,
                _ => Action::Allow,
            };
            compiled(&other)
        }),
        (
            "options are those of the policy before",
            |policy, before| {
                let mut other = policy.clone();
                other.options = before.options.clone();
                compiled(&other)
            },
        ),
        ("the last rule is not there", |policy, _| {
            let mut fewer = policy.clone();
            fewer.rules.pop();
            compiled(&fewer)
        }),
        ("one IP version has the tables of the other", |policy, _| {
            compiled(policy).spoilt(|layout, _| layout.families.swap(0, 1))
        }),
        ("sources have the tables of destinations", |policy, _| {
            compiled(policy).spoilt(|layout, _| {
                for family in &mut layout.families {
                    std::mem::swap(&mut family.src, &mut family.dst);
                }
            })
        }),
        ("what is staged is enforced", |policy, _| {
            let mut enforced = policy.clone();
            for rule in &mut enforced.rules {
                rule.staged = false;
            }
            compiled(&enforced)
        }),
    ];

    /// Programs that are loaded with another image than the policy's.
    #[test]
    fn every_wrong_image_is_caught() {
        if !require::root_and_bpf() {
            return;
        }
        let mut runner = runner();
        let recipes: Vec<Recipe> = (0..400).map(|_| drawn(&mut runner, &recipe())).collect();
        let mut corpus = corpus();
        for (name, wrong) in IMAGES {
            let mut before = drawn(&mut runner, &ruleset(40));
            let mut packets = 0;
            let caught = (1..=10).find(|_| {
                let mut policy = drawn(&mut runner, &ruleset(40));
                if policy.rules.is_empty() {
                    return false;
                }
                std::mem::swap(&mut policy, &mut before);
                if policy.rules.is_empty() {
                    return false;
                }
                let image = compiled(&policy);
                let frames = recipes.iter().map(|recipe| recipe.frame(&policy).0);
                let frames: Vec<_> = frames
                    .filter(|frame| Kernel::takes(Direction::Ingress, frame))
                    .collect();
                packets += frames.len();
                let mut kernel = Kernel::new(&policy, &image, &mut corpus);
                kernel.fill(frames.clone());
                // What is right is not caught.
                assert_eq!(kernel.differs(&|frame| image.judge(frame)), None);
                let wrong = wrong(&policy, &before);
                let mut kernel = Kernel::new(&policy, &wrong, &mut corpus);
                kernel.fill(frames);
                kernel.differs(&|frame| image.judge(frame)).is_some()
            });
            let Some(policies) = caught else {
                panic!("not caught: {name}");
            };
            println!("caught by the kernel, policy {policies}, {packets} packets: {name}");
        }
    }

    /// The program for small images goes along fewer lines than a large one has.
    #[test]
    fn a_program_that_is_too_small_is_caught() {
        if !require::root_and_bpf() {
            return;
        }
        let mut corpus = corpus();
        let cases = switch_over::quick();
        let caught = cases.iter().any(|case| {
            let image = case.compile().unwrap();
            let is_deep = image
                .layout()
                .families
                .iter()
                .any(|family| [family.src, family.dst].iter().any(|root| root.levels > 3));
            if !is_deep {
                return false;
            }
            let wrong = image.spoilt(|layout, _| {
                for family in &mut layout.families {
                    family.src.levels = family.src.levels.min(3);
                    family.dst.levels = family.dst.levels.min(3);
                }
            });
            wrong.layout().is_small()
                && differs(case, &image, &wrong, &case.frames(150), &mut corpus)
        });
        assert!(caught, "not caught");
        println!("caught by the kernel: the small program is loaded for a large image");
    }

    /// How a pair of programs is loaded wrong.
    type WrongPair = fn(&Talk) -> Result<TestPair, filter_user::datapath::Error>;

    fn allows(ruleset: &Ruleset) -> Ruleset {
        let mut open = ruleset.clone();
        open.rules.clear();
        open.default = Action::Allow;
        open
    }

    /// Loads a pair with these rulesets and the images of those.
    fn pair(
        rulesets: [&Ruleset; 2],
        images: [&Ruleset; 2],
        flows: u32,
    ) -> Result<TestPair, filter_user::datapath::Error> {
        let [inward, outward] = images.map(compiled);
        let of = |place: usize, image| Compiled {
            ruleset: rulesets[place],
            image,
        };
        TestPair::load(of(0, &inward), of(1, &outward), flows)
    }

    /// With the direction that alone is asked, where one is.
    const PAIRS: &[(&str, WrongPair, Option<Direction>)] = &[
        (
            "nothing is remembered",
            |talk| {
                let both = [&talk.ingress, &talk.egress];
                pair(both, both, 0)
            },
            None,
        ),
        (
            "the switches of flows are those of a policy that denies nothing",
            |talk| {
                let open = [&talk.ingress, &talk.egress].map(allows);
                // With room for the rules that there are.
                let [mut inward, mut outward] = open;
                inward.rules = closed(&talk.ingress);
                outward.rules = closed(&talk.egress);
                pair([&inward, &outward], [&talk.ingress, &talk.egress], 1_024)
            },
            None,
        ),
        (
            "what goes out has the rules of what comes in",
            |talk| {
                let mut same = talk.ingress.clone();
                same.direction = Direction::Egress;
                pair([&talk.ingress, &same], [&talk.ingress, &same], 1_024)
            },
            None,
        ),
        (
            "the other direction's tables are those of another policy",
            |talk| {
                let other = allows(&talk.egress);
                pair(
                    [&talk.ingress, &talk.egress],
                    [&talk.ingress, &other],
                    1_024,
                )
            },
            Some(Direction::Ingress),
        ),
        (
            "the rules of both directions are exchanged",
            |talk| {
                let (mut inward, mut outward) = (talk.egress.clone(), talk.ingress.clone());
                inward.direction = Direction::Ingress;
                outward.direction = Direction::Egress;
                pair([&inward, &outward], [&inward, &outward], 1_024)
            },
            None,
        ),
    ];

    /// As many rules, which deny nothing.
    fn closed(ruleset: &Ruleset) -> Vec<Rule> {
        let mut rules = ruleset.rules.clone();
        for rule in &mut rules {
            rule.action = Action::Allow;
            rule.tier = None;
            rule.staged = false;
        }
        rules
    }

    /// What a talk says of programs that are loaded wrong, and of a clock that stands still.
    #[test]
    fn every_wrong_pair_of_programs_is_caught() {
        if !require::root_and_bpf() {
            return;
        }
        let mut runner = runner();
        let talks: Vec<Talk> = (0..40).map(|_| drawn(&mut runner, &talk())).collect();
        let none: WrongPair = |talk| {
            let both = [&talk.ingress, &talk.egress];
            pair(both, both, 1_024)
        };
        // What is right is not caught.
        for talk in &talks[..10] {
            assert_eq!(caught(talk, none, None, true), None);
        }
        let clock = [("flows never end", none, None, false)];
        let pairs = PAIRS
            .iter()
            .map(|(name, load, only)| (*name, *load, *only, true));
        for (name, load, only, ages) in clock.into_iter().chain(pairs) {
            let mut packets = 0;
            let by = talks.iter().position(|talk| {
                let caught = caught(talk, load, only, ages);
                packets += caught.unwrap_or(talk.steps.len());
                caught.is_some()
            });
            let Some(talk) = by else {
                panic!("not caught: {name}");
            };
            println!("caught by talk {talk}, after {packets} packets: {name}");
        }
    }

    /// The first packet of a talk that such programs say otherwise of, or remember otherwise.
    fn caught(talk: &Talk, load: WrongPair, only: Option<Direction>, ages: bool) -> Option<usize> {
        let mut loaded = Loaded::of(load(talk).unwrap());
        let mut reference = Conversation::new(&talk.ingress, &talk.egress);
        let mut now = Duration::ZERO;
        let mut steps = talk.steps.iter().enumerate();
        let differs = steps.find(|(_, step)| {
            let (direction, frame) = (step.direction, &step.frame.0[..]);
            let is_asked = only.is_none_or(|only| only == direction);
            if !is_asked || !TestBench::takes(direction, frame) {
                return false;
            }
            now += Duration::from_secs(step.wait);
            while unclear(&reference, now, direction, frame) {
                now += Duration::from_secs(1);
            }
            let right = reference.judge(now, direction, frame);
            if ages {
                loaded.advance(now);
            }
            // Reasons are told by the rules that a pair was said to have. What has no one
            // verdict, or one of no rule that there is, is wrong as well.
            let judgement = loaded.pair.judge(direction, frame).ok();
            let in_short = |judgement: &Judgement| {
                let decision = judgement.decision;
                (decision.verdict, decision.rule)
            };
            judgement.as_ref().map(in_short) != Some(in_short(&right))
                || loaded.known() != known_to_reference(&reference, now)
        });
        differs.map(|(step, _)| step)
    }
}
