//! Random conversations, and three independent answers to each of their packets: the
//! reference's, the host's, and the kernel's. Judgements and what is remembered are
//! compared, step by step.
//!
//! The other tests check that the talks reach what a comparison is to find, and that the
//! comparison finds it: wrong evaluators must be caught.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/flow_mistakes.rs"]
mod flow_mistakes;
#[path = "common/known.rs"]
mod known;
#[path = "common/random.rs"]
mod random;
#[path = "common/talk.rs"]
mod talk;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};
use filter_user::compile::Image;
use filter_user::conversation::Conversation as OnHost;
use filter_user::decision::{Decision, Judgement};
use filter_user::reference::{self, Conversation, Flow, State};
use filter_user::ruleset::{Direction, Ruleset, Stage};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};
use tests::times::times;

use flow_mistakes::{Mistake, Wrong};
use known::{Known, known_to_host, known_to_reference, unclear};
use talk::{Kind, Step, Talk, talk};

/// The same talks in every run, and the first of them in a longer one.
fn runner(talks: u32) -> TestRunner {
    let config = Config {
        cases: times(talks),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let rng = TestRng::from_seed(config.rng_algorithm, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
}

/// A step, and what there was before and after it.
struct Moment<'a> {
    step: &'a Step,
    ruleset: &'a Ruleset,
    /// What the rules alone say.
    by_rules: Judgement,
    judgement: Judgement,
    /// What it would have been without the wait.
    in_time: Judgement,
    before: Vec<Flow>,
    after: Vec<Flow>,
}

/// Goes through a talk.
fn hold(
    talk: &Talk,
    mut check: impl FnMut(&Moment<'_>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut conversation = Conversation::new(&talk.ingress, &talk.egress);
    let mut now = Duration::ZERO;
    for step in &talk.steps {
        let Step {
            wait,
            direction,
            kind: _,
            frame,
        } = step;
        let in_time = conversation.clone().judge(now, *direction, &frame.0);
        now += Duration::from_secs(*wait);
        let before = conversation.flows(now);
        let judgement = conversation.judge(now, *direction, &frame.0);
        let ruleset = match direction {
            Direction::Ingress => &talk.ingress,
            Direction::Egress => &talk.egress,
        };
        check(&Moment {
            step,
            ruleset,
            by_rules: reference::judge(ruleset, &frame.0),
            judgement,
            in_time,
            before,
            after: conversation.flows(now),
        })?;
    }
    Ok(())
}

fn run(talks: u32, check: impl FnMut(&Moment<'_>) -> Result<(), TestCaseError>) {
    let check = RefCell::new(check);
    let result = runner(talks).run(&talk(), |talk| hold(&talk, &mut *check.borrow_mut()));
    if let Err(error) = result {
        panic!("{error}");
    }
}

impl Moment<'_> {
    fn is_established(&self) -> bool {
        self.judgement.decision.reason == Reason::Established
    }

    /// The same flow before, if it was there.
    fn earlier(&self, flow: &Flow) -> Option<&Flow> {
        let key = |flow: &Flow| (flow.begun, flow.src, flow.dst, flow.protocol, flow.numbers);
        self.before.iter().find(|other| key(other) == key(flow))
    }

    /// Whether a flow came to this state, from another one if it was there.
    fn reached(&self, state: State) -> bool {
        self.after.iter().any(|flow| {
            let before = self.earlier(flow);
            flow.state == state && before.is_none_or(|before| before.state != state)
        })
    }

    /// Whether a flow left this state by a packet.
    fn left(&self, state: State) -> bool {
        self.after.iter().any(|flow| {
            let before = self.earlier(flow);
            flow.state != state && before.is_some_and(|before| before.state == state)
        })
    }

    /// What a comparison is to meet.
    fn cases(&self) -> Vec<&'static str> {
        let established = self.is_established();
        let kind = self.step.kind;
        let replied = self.after.iter().any(|flow| {
            let before = self.earlier(flow);
            before.is_some_and(|before| before.back < flow.back)
        });
        let unchanged = self.before == self.after;
        let in_time = self.in_time.decision.reason == Reason::Established;
        let by_rules = self.by_rules.decision;
        let rule = by_rules.rule.map(|rule| &self.ruleset.rules[rule as usize]);
        let untracked = rule.is_some_and(|rule| rule.id.stage == Stage::Untracked);
        let is_reset = |flow: &Flow| flow.state == State::Reset;
        let ingress = self.step.direction == Direction::Ingress;
        let begun = |direction| {
            let mut new = self.after.iter();
            new.any(|flow| flow.begun == direction && self.earlier(flow).is_none())
        };
        let answered = |protocols: &[u8]| {
            replied
                && self.after.iter().any(|flow| {
                    self.earlier(flow) != Some(flow) && protocols.contains(&flow.protocol)
                })
        };
        let gone = self.step.wait > 0 && !established && in_time;
        [
            ("established by tuple", established && replied),
            (
                "established by tuple, IPv6",
                established && replied && self.step.frame.0[12] == 0x86,
            ),
            ("established, going out", established && replied && !ingress),
            (
                "established by ICMP error",
                established && kind == Kind::Error && unchanged,
            ),
            (
                "an error about nothing known",
                !established && kind == Kind::Error && by_rules.verdict == Verdict::Drop,
            ),
            (
                "established fragment",
                established && kind == Kind::Later && by_rules.reason == Reason::Fragment,
            ),
            (
                "a fragment of nothing known",
                !established && by_rules.reason == Reason::Fragment,
            ),
            ("expired flow refused", gone && kind == Kind::Packet),
            ("expired flow of an error", gone && kind == Kind::Error),
            ("expired fragment", gone && kind == Kind::Later),
            ("syn answered", self.reached(State::SynAnswered)),
            ("TCP established", self.reached(State::Established)),
            ("closing", self.reached(State::Closing)),
            ("begins again after a FIN", {
                self.left(State::Closing) && self.reached(State::SynSent)
            }),
            ("reset", self.reached(State::Reset)),
            ("state reset left", self.left(State::Reset)),
            (
                "a packet in vain after a reset",
                ingress && established && unchanged && self.before.iter().any(is_reset),
            ),
            ("tracked pick-up", self.reached(State::Unanswered)),
            ("pick-up answered", {
                self.left(State::Unanswered) && self.reached(State::Established)
            }),
            ("two ways", self.reached(State::TwoWay)),
            ("echo answered", answered(&[1, 58])),
            ("another protocol answered", answered(&[47, 50, 253])),
            ("outbound flow begun", begun(Direction::Egress)),
            ("inbound flow begun", begun(Direction::Ingress)),
            (
                "allowed, and nothing kept",
                kind == Kind::Packet && by_rules.verdict == Verdict::Pass && unchanged,
            ),
            (
                "dropped untracked",
                untracked && by_rules.verdict == Verdict::Drop,
            ),
            (
                "noted beside established",
                established && !self.judgement.noted.is_empty(),
            ),
        ]
        .into_iter()
        .filter_map(|(name, holds)| holds.then_some(name))
        .collect()
    }
}

/// All that [`Moment::cases`] knows of.
const CASES: &[&str] = &[
    "established by tuple",
    "established by tuple, IPv6",
    "established, going out",
    "established by ICMP error",
    "an error about nothing known",
    "established fragment",
    "a fragment of nothing known",
    "expired flow refused",
    "expired flow of an error",
    "expired fragment",
    "syn answered",
    "TCP established",
    "closing",
    "begins again after a FIN",
    "reset",
    "state reset left",
    "a packet in vain after a reset",
    "tracked pick-up",
    "pick-up answered",
    "two ways",
    "echo answered",
    "another protocol answered",
    "outbound flow begun",
    "inbound flow begun",
    "allowed, and nothing kept",
    "dropped untracked",
    "noted beside established",
];

/// Talks that never reach a case can't find what is wrong with it.
#[test]
fn the_talks_reach_every_case() {
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    run(600, |moment| {
        for case in moment.cases() {
            *reached.entry(case).or_default() += 1;
        }
        Ok(())
    });
    for case in CASES {
        let count = reached.get(case).copied().unwrap_or(0);
        assert!(count >= 10, "{case}: {count} of {reached:#?}");
    }
    assert_eq!(reached.len(), CASES.len());
}

/// Whatever is remembered, it lets pass what the rules drop, and changes nothing else.
#[test]
fn state_changes_drops_to_passes_alone() {
    run(600, |moment| {
        let expected = if moment.is_established() {
            prop_assert_eq!(moment.by_rules.decision.verdict, Verdict::Drop);
            Judgement {
                decision: Decision {
                    verdict: Verdict::Pass,
                    reason: Reason::Established,
                    rule: None,
                },
                essential: None,
                noted: moment.by_rules.noted.clone(),
            }
        } else {
            moment.by_rules.clone()
        };
        prop_assert_eq!(&moment.judgement, &expected);
        // No packet is seen by two flows.
        let changed = |flow: &&Flow| moment.earlier(flow) != Some(flow);
        let changed = moment.after.iter().filter(changed).count();
        prop_assert!(changed <= 1);
        // None ends by a packet.
        prop_assert!(moment.after.len() >= moment.before.len());
        // What is dropped is seen by none.
        if moment.judgement.decision.verdict == Verdict::Drop {
            prop_assert_eq!(&moment.before, &moment.after);
        }
        Ok(())
    });
}

const BUDGET: u64 = 64 << 20;

fn compiled(ruleset: &Ruleset) -> Result<Image, TestCaseError> {
    Image::compile(ruleset, BUDGET).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// How an evaluator tells the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// It is told it.
    Told,
    /// By a clock of its own, which began at another moment.
    Own,
}

/// Has another evaluator answer the packets of random talks; how it differs from the
/// reference, if it does. It is asked about what `can_be_run`.
fn against_reference<J>(
    (talks, clock): (u32, Clock),
    can_be_run: impl Fn(&Step) -> bool,
    begin: impl Fn(&Talk) -> Result<J, TestCaseError>,
    judge: impl Fn(&mut J, Duration, &Step) -> (Judgement, Vec<Known>),
) -> Result<(), String> {
    let check = |talk: Talk| {
        let mut other = begin(&talk)?;
        let mut reference = Conversation::new(&talk.ingress, &talk.egress);
        let mut now = Duration::ZERO;
        for step in talk.steps.iter().filter(|step| can_be_run(step)) {
            now += Duration::from_secs(step.wait);
            // Such a clock is not to be asked at the very end of something's time.
            while clock == Clock::Own && unclear(&reference, now, step.direction, &step.frame.0) {
                now += Duration::from_secs(1);
            }
            let judgement = reference.judge(now, step.direction, &step.frame.0);
            let (answer, known) = judge(&mut other, now, step);
            prop_assert_eq!(&answer, &judgement, "of {:?} at {:?}", step, now);
            let flows = known_to_reference(&reference, now);
            prop_assert_eq!(known, flows, "after {:?} at {:?}", step, now);
        }
        Ok(())
    };
    runner(talks)
        .run(&talk(), check)
        .map_err(|error| error.to_string())
}

/// A talk's images, to be shared by what evaluates it.
struct Images {
    ingress: Ruleset,
    egress: Ruleset,
    both: [Image; 2],
}

impl Images {
    fn of(talk: &Talk) -> Result<Self, TestCaseError> {
        Ok(Self {
            ingress: talk.ingress.clone(),
            egress: talk.egress.clone(),
            both: [compiled(&talk.ingress)?, compiled(&talk.egress)?],
        })
    }
}

#[test]
fn the_host_agrees_with_the_reference() {
    for_host(3_000).unwrap();
}

fn for_host(talks: u32) -> Result<(), String> {
    let begin = |talk: &Talk| {
        // It lives as long as the process: the conversation borrows from it.
        let images: &'static Images = Box::leak(Box::new(Images::of(talk)?));
        let [ingress, egress] = &images.both;
        Ok(OnHost::new(
            (&images.ingress, ingress),
            (&images.egress, egress),
        ))
    };
    against_reference(
        (talks, Clock::Told),
        |_| true,
        begin,
        |host, now, step| {
            let judgement = host.judge(now, step.direction, &step.frame.0);
            (judgement, known_to_host(host.flows(now)))
        },
    )
}

/// A talk, and what the reference says of each of its packets.
struct Answered {
    talk: Talk,
    images: [Rc<Image>; 2],
    answers: Vec<(Duration, Judgement, Vec<Known>)>,
}

impl Answered {
    fn new(talk: Talk) -> Self {
        let mut reference = Conversation::new(&talk.ingress, &talk.egress);
        let mut now = Duration::ZERO;
        let answer = |step: &Step| {
            now += Duration::from_secs(step.wait);
            let judgement = reference.judge(now, step.direction, &step.frame.0);
            (now, judgement, known_to_reference(&reference, now))
        };
        let answers = talk.steps.iter().map(answer).collect();
        let images =
            [&talk.ingress, &talk.egress].map(|ruleset| Rc::new(compiled(ruleset).unwrap()));
        Self {
            talk,
            images,
            answers,
        }
    }

    /// What somebody answers otherwise, who makes this mistake.
    fn catches(&self, mistake: &Mistake) -> Option<&Step> {
        let Talk {
            ingress,
            egress,
            steps,
        } = &self.talk;
        let compile = |ruleset: &Ruleset| compiled(ruleset).unwrap();
        let wrong = Wrong::new(mistake, [ingress, egress], &self.images, compile);
        let mut steps = steps.iter().zip(&self.answers);
        let differs = |(step, (now, judgement, known)): &(&Step, &(_, _, Vec<Known>))| {
            let answer = wrong.judge(*now, step.direction, &step.frame.0);
            answer != *judgement || known_to_host(wrong.flows(*now)) != *known
        };
        steps.find(differs).map(|(step, _)| step)
    }
}

/// The comparison must be able to fail: a check that can't is a defect.
#[test]
fn every_mistake_about_return_traffic_is_caught() {
    const TALKS: u32 = 1_000;
    let mut left: Vec<_> = flow_mistakes::all().collect();
    let mut runner = runner(TALKS);
    for number in 0..TALKS {
        let talk = talk().new_tree(&mut runner).unwrap().current();
        let talk = Answered::new(talk);
        // What makes no mistake is not caught.
        let caught = talk.catches(&flow_mistakes::RIGHT);
        assert!(caught.is_none(), "{caught:?} of {:?}", talk.talk);
        left.retain(|(name, mistake)| {
            let caught = talk.catches(mistake).is_some();
            if caught {
                println!("caught by talk {number}: {name}");
            }
            !caught
        });
        if left.is_empty() {
            return;
        }
    }
    let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
    panic!("not caught: {names:#?}");
}

#[cfg(feature = "bpf")]
mod kernel {
    use filter_user::datapath::{Compiled, TestBench};
    use tests::require;

    use super::known::Loaded;
    use super::*;

    #[test]
    fn the_kernel_agrees_with_the_reference() {
        if !require::root_and_bpf() {
            return;
        }
        let begin = |talk: &Talk| {
            let [ingress, egress] = [compiled(&talk.ingress)?, compiled(&talk.egress)?];
            let side = |ruleset, image| Compiled { ruleset, image };
            Loaded::new(side(&talk.ingress, &ingress), side(&talk.egress, &egress))
                .map_err(TestCaseError::fail)
        };
        let can_be_run = |step: &Step| TestBench::takes(step.direction, &step.frame.0);
        against_reference((150, Clock::Own), can_be_run, begin, |loaded, now, step| {
            loaded.advance(now);
            let judgement = loaded.pair.judge(step.direction, &step.frame.0);
            (judgement.unwrap(), loaded.known())
        })
        .unwrap();
    }
}
