//! The edge-case table against every evaluator.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/policies.rs"]
mod policies;
#[path = "common/rules.rs"]
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use filter_common::packet::Cursor;
use filter_common::parse::{Family, parse, plain};
use filter_common::wire::l4::Shape;
use filter_user::compile::Image;
use filter_user::conversation;
use filter_user::decision::{Decision, Judgement};
use filter_user::reference;
use filter_user::ruleset::{Direction, Ruleset};
use tests::edge::{Before, Exchange, Going, Policy, Row, Rules, exchanges, rows};

const BUDGET: u64 = 64 << 20;

/// The table, by policy.
fn table() -> BTreeMap<Policy, Vec<Row>> {
    let mut table: BTreeMap<Policy, Vec<Row>> = BTreeMap::new();
    for row in rows() {
        table.entry(row.policy).or_default().push(row);
    }
    table
}

/// What is wrong with the answer, if anything.
fn complaint(row: &Row, found: &Judgement) -> Option<String> {
    let wanted = (row.verdict, row.reason, row.rule, row.noted.as_slice());
    let Decision {
        verdict,
        reason,
        rule,
    } = found.decision;
    let found = (verdict.name(), reason.name(), rule, found.noted.as_slice());
    (wanted != found).then(|| {
        let start = &row.frame[..row.frame.len().min(200)];
        format!(
            "{} ({}; {:?}): wanted {wanted:?}, found {found:?}, of {} bytes {start:02x?}",
            row.name,
            row.source,
            row.policy,
            row.frame.len()
        )
    })
}

/// Holds an evaluator against the whole table; all complaints at once.
fn check(mut evaluate: impl FnMut(&Ruleset, &[Row]) -> Vec<Judgement>) {
    let mut complaints = Vec::new();
    let mut rows = 0;
    for (policy, of_policy) in table() {
        let found = evaluate(&policies::build(policy), &of_policy);
        assert_eq!(found.len(), of_policy.len());
        rows += found.len();
        complaints.extend(
            of_policy
                .iter()
                .zip(&found)
                .filter_map(|(row, found)| complaint(row, found)),
        );
    }
    assert!(
        complaints.is_empty(),
        "{} of {rows} rows are answered wrongly:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn plain_frames_have_the_key_that_the_whole_parser_gives() {
    let mut plain = [0; 2];
    let shape = |proto| Some(Shape::of(proto));
    for row in rows() {
        let packet = Cursor::over(&row.frame);
        let (family, key) = match plain::family(&packet) {
            Some(Family::V4) => (0, plain::ipv4(&packet, shape)),
            Some(Family::V6) => (1, plain::ipv6(&packet, shape)),
            None => continue,
        };
        if let Some(key) = key {
            assert_eq!(parse(&packet), Ok(key), "{}", row.name);
            plain[family] += 1;
        }
    }
    assert!(plain.iter().all(|&count| count > 20), "{plain:?}");
}

#[test]
fn the_reference_answers_every_row() {
    check(|ruleset, rows| {
        rows.iter()
            .map(|row| reference::judge(ruleset, &row.frame))
            .collect()
    });
}

#[test]
fn the_host_answers_every_row() {
    check(|ruleset, rows| {
        let image = Image::compile(ruleset, BUDGET).unwrap();
        rows.iter().map(|row| image.judge(&row.frame)).collect()
    });
}

/// Also that each packet is counted once, with its bytes, where its reason
/// and rule say, and nowhere else.
#[cfg(feature = "bpf")]
#[test]
fn the_kernel_answers_and_counts_every_row() {
    use filter_user::datapath::TestBench;

    if !tests::require::root_and_bpf() {
        return;
    }
    check(|ruleset, rows| {
        let image = Image::compile(ruleset, BUDGET).unwrap();
        let mut bench = TestBench::load(ruleset, &image).unwrap();
        rows.iter()
            .map(|row| {
                // What the kernel can't run is answered on the host alone.
                if !TestBench::takes(ruleset.direction, &row.frame) {
                    return image.judge(&row.frame);
                }
                let before = bench.stats().unwrap();
                let found = bench.judge(&row.frame).unwrap();
                let after = bench.stats().unwrap();
                counted::once(&before, &after, &found, &row.frame);
                found
            })
            .collect()
    });
}

#[cfg(feature = "bpf")]
#[path = "common/counted.rs"]
mod counted;

#[test]
fn a_wrong_answer_is_a_complaint() {
    let row = rows().into_iter().next().unwrap();
    let right = reference::judge(&policies::build(row.policy), &row.frame);
    assert_eq!(complaint(&row, &right), None);
    let decision = right.decision;
    for wrong in [
        Decision {
            rule: decision.rule.map(|rule| rule + 1),
            ..decision
        },
        Decision {
            reason: filter_common::verdict::Reason::DefaultDeny,
            ..decision
        },
        Decision {
            verdict: filter_common::verdict::Verdict::Pass,
            ..decision
        },
    ] {
        let wrong = Judgement {
            decision: wrong,
            ..right.clone()
        };
        assert!(complaint(&row, &wrong).is_some());
    }
    let wrong = Judgement {
        noted: vec![0],
        ..right
    };
    assert!(complaint(&row, &wrong).is_some());
}

// ---- packets that are about others

/// Answers the packets of one exchange after the other.
trait Evaluator {
    /// Something is asked that has nothing to do with what was before.
    fn begin(&mut self);

    fn wait(&mut self, time: Duration);

    fn judge(&mut self, direction: Direction, frame: &[u8]) -> Judgement;
}

const fn direction(going: Going) -> Direction {
    match going {
        Going::In => Direction::Ingress,
        Going::Out => Direction::Egress,
    }
}

/// Holds an evaluator of these rules against their part of the table.
fn check_exchanges(
    rules: Rules,
    evaluator: &mut dyn Evaluator,
    complaints: &mut Vec<String>,
) -> usize {
    let of_rules = exchanges().into_iter().filter(|row| row.rules == rules);
    let mut rows = 0;
    for row in of_rules {
        evaluator.begin();
        for event in &row.before {
            match event {
                Before::Frame(going, frame) => drop(evaluator.judge(direction(*going), frame)),
                Before::Wait(seconds) => evaluator.wait(Duration::from_secs(*seconds)),
            }
        }
        let found = evaluator.judge(direction(row.going), &row.frame);
        complaints.extend(complaint_about(&row, &found));
        rows += 1;
    }
    rows
}

fn complaint_about(row: &Exchange, found: &Judgement) -> Option<String> {
    let wanted = (row.verdict, row.reason, row.rule, row.noted.as_slice());
    let Decision {
        verdict,
        reason,
        rule,
    } = found.decision;
    let found = (verdict.name(), reason.name(), rule, found.noted.as_slice());
    (wanted != found).then(|| {
        format!(
            "{} ({}): wanted {wanted:?}, found {found:?}, of {:02x?} after {:02x?}",
            row.name, row.source, row.frame, row.before
        )
    })
}

/// Holds evaluators against all of it.
fn check_all_exchanges(mut check: impl FnMut(Rules, &[Ruleset; 2], &mut Vec<String>) -> usize) {
    let mut complaints = Vec::new();
    let mut rows = 0;
    for rules in Rules::ALL {
        rows += check(*rules, &policies::build_both(*rules), &mut complaints);
    }
    assert_eq!(rows, exchanges().len());
    assert!(
        complaints.is_empty(),
        "{} of {rows} exchanges are answered wrongly:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn exchanges_have_names() {
    let all = exchanges();
    let names: BTreeSet<&str> = all.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.len() > 150, "only {}", all.len());
}

#[test]
fn the_reference_answers_every_exchange() {
    struct Reference<'r>(&'r [Ruleset; 2], reference::Conversation<'r>, Duration);

    impl Evaluator for Reference<'_> {
        fn begin(&mut self) {
            self.1 = reference::Conversation::new(&self.0[0], &self.0[1]);
        }

        fn wait(&mut self, time: Duration) {
            self.2 += time;
        }

        fn judge(&mut self, direction: Direction, frame: &[u8]) -> Judgement {
            self.1.judge(self.2, direction, frame)
        }
    }

    check_all_exchanges(|rules, both, complaints| {
        let conversation = reference::Conversation::new(&both[0], &both[1]);
        let mut evaluator = Reference(both, conversation, Duration::ZERO);
        check_exchanges(rules, &mut evaluator, complaints)
    });
}

#[test]
fn the_host_answers_every_exchange() {
    struct Host<'h> {
        rulesets: &'h [Ruleset; 2],
        images: &'h [Image; 2],
        conversation: conversation::Conversation<'h>,
        now: Duration,
    }

    fn begun<'h>(
        rulesets: &'h [Ruleset; 2],
        images: &'h [Image; 2],
    ) -> conversation::Conversation<'h> {
        let side = |which: usize| (&rulesets[which], &images[which]);
        conversation::Conversation::new(side(0), side(1))
    }

    impl Evaluator for Host<'_> {
        fn begin(&mut self) {
            self.conversation = begun(self.rulesets, self.images);
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        fn judge(&mut self, direction: Direction, frame: &[u8]) -> Judgement {
            self.conversation.judge(self.now, direction, frame)
        }
    }

    check_all_exchanges(|rules, rulesets, complaints| {
        let images = rulesets
            .each_ref()
            .map(|ruleset| Image::compile(ruleset, BUDGET).unwrap());
        let mut evaluator = Host {
            rulesets,
            images: &images,
            conversation: begun(rulesets, &images),
            now: Duration::ZERO,
        };
        check_exchanges(rules, &mut evaluator, complaints)
    });
}

#[cfg(feature = "bpf")]
#[test]
fn the_kernel_answers_every_exchange() {
    use filter_user::datapath::{Compiled, TestPair};

    struct Kernel(TestPair);

    impl Evaluator for Kernel {
        fn begin(&mut self) {
            // Longer than anything is remembered.
            self.wait(Duration::from_hours(6 * 24));
        }

        fn wait(&mut self, time: Duration) {
            self.0.age(time).unwrap();
        }

        fn judge(&mut self, direction: Direction, frame: &[u8]) -> Judgement {
            self.0.judge(direction, frame).unwrap()
        }
    }

    if !tests::require::root_and_bpf() {
        return;
    }
    check_all_exchanges(|rules, rulesets, complaints| {
        let images = rulesets
            .each_ref()
            .map(|ruleset| Image::compile(ruleset, BUDGET).unwrap());
        let side = |which: usize| Compiled {
            ruleset: &rulesets[which],
            image: &images[which],
        };
        let pair = TestPair::load(side(0), side(1), 1_024).unwrap();
        check_exchanges(rules, &mut Kernel(pair), complaints)
    });
}

#[test]
fn a_wrong_answer_to_an_exchange_is_a_complaint() {
    let row = exchanges().into_iter().next().unwrap();
    let both = policies::build_both(row.rules);
    let mut conversation = reference::Conversation::new(&both[0], &both[1]);
    let right = conversation.judge(Duration::ZERO, direction(row.going), &row.frame);
    assert_eq!(complaint_about(&row, &right), None);
    let wrong = Judgement {
        noted: vec![0],
        ..right
    };
    assert!(complaint_about(&row, &wrong).is_some());
}
