//! The edge-case table against every evaluator.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/policies.rs"]
mod policies;
#[path = "common/rules.rs"]
mod rules;

use std::collections::BTreeMap;

use filter_common::packet::Cursor;
use filter_common::parse::{Family, parse, plain};
use filter_common::wire::l4::Shape;
use filter_user::compile::Image;
use filter_user::decision::{Decision, Judgement};
use filter_user::reference;
use filter_user::ruleset::Ruleset;
use tests::edge::{Policy, Row, rows};

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
                // The kernel has no frames shorter than an Ethernet header:
                // what would be one is answered on the host alone.
                if row.frame.len() < TestBench::MIN_FRAME {
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
