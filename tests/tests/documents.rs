//! Documents of all kinds, as YAML, against what they mean: a naive evaluator of
//! the documents themselves, and the filter's whole way from text to verdict.
//!
//! check → select → reference is compared with the evaluator of the documents
//! (verdict, reason, deciding rule, what is noted), and the compiled image and
//! the loaded program with the reference. The last tests check that: readers
//! who get something wrong must be caught.

#[path = "documents/evaluate.rs"]
mod evaluate;
#[path = "documents/generate.rs"]
mod generate;
#[path = "documents/lower.rs"]
mod lower;
#[path = "documents/model.rs"]
mod model;
#[path = "documents/quirk.rs"]
mod quirk;
#[path = "documents/write.rs"]
mod write;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use filter_user::compile::Image;
use filter_user::decision::Judgement;
use filter_user::reference;
use filter_user::ruleset::Ruleset;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};
use tests::times::times;

use evaluate::{Answer, Evaluator, Who};
use generate::Tape;
use lower::ruleset;
use model::{Case, Packet};
use quirk::Quirk;

const BUDGET: u64 = 64 << 20;

/// Of a case and of its packets.
type Tapes = (Vec<u16>, Vec<Vec<u16>>);

fn tapes(packets: usize) -> impl Strategy<Value = Tapes> {
    let packet = prop::collection::vec(any::<u16>(), 12);
    (
        prop::collection::vec(any::<u16>(), 0..1_200),
        prop::collection::vec(packet, 1..=packets),
    )
}

fn runner(cases: u32, repeatable: bool) -> TestRunner {
    let config = Config {
        cases: if repeatable { cases } else { times(cases) },
        failure_persistence: None,
        max_shrink_iters: if repeatable { 0 } else { 10_000 },
        ..Config::default()
    };
    if repeatable {
        let rng = TestRng::from_seed(config.rng_algorithm, &[11; 32]);
        TestRunner::new_with_rng(config, rng)
    } else {
        TestRunner::new(config)
    }
}

fn case(tapes: &Tapes) -> (Case, Vec<Packet>) {
    let case = generate::case(&mut Tape::new(&tapes.0));
    let packets = tapes.1.iter();
    let packets = packets.map(|tape| generate::packet(&mut Tape::new(tape)));
    (case, packets.collect())
}

/// The filter's answer in the words of the documents.
fn in_words(ruleset: &Ruleset, judgement: &Judgement) -> Answer {
    let who = |index: u32| -> Who {
        let id = &ruleset.rules[index as usize].id;
        id.index.map(|index| (id.policy.to_string(), index))
    };
    let decision = judgement.decision;
    let mut noted: Vec<Who> = judgement.noted.iter().map(|index| who(*index)).collect();
    noted.sort();
    Answer {
        verdict: decision.verdict,
        reason: decision.reason,
        rule: decision.rule.and_then(who),
        noted,
    }
}

/// What the documents mean to a reader, right or not.
fn meaning(case: &Case, quirk: Option<Quirk>, packet: &Packet) -> Answer {
    let mut answer = Evaluator { case, quirk }.judge(packet);
    answer.noted.sort();
    answer
}

/// The filter's answers are those that the documents mean.
fn holds(case: &Case, packets: &[Packet], quirk: Option<Quirk>) -> Result<Ruleset, TestCaseError> {
    let ruleset = ruleset(case).map_err(TestCaseError::fail)?;
    for packet in packets {
        let judgement = reference::judge(&ruleset, &write::frame(packet));
        prop_assert_eq!(
            meaning(case, quirk, packet),
            in_words(&ruleset, &judgement),
            "the documents mean, and the filter decides, of {:?}",
            packet
        );
    }
    Ok(ruleset)
}

fn expect_agreement(result: Result<(), TestError<Tapes>>) {
    match result {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{reason}"),
        Err(TestError::Fail(reason, tapes)) => {
            let (case, packets) = case(&tapes);
            let texts = write::texts(&case.documents).join("");
            let Case {
                labels,
                egress,
                failsafe,
                node,
                ..
            } = &case;
            panic!(
                "{reason}\n{texts}\nlabels {labels:?}, egress {egress}, failsafe {failsafe}, \
                 node {node:?}, packets {packets:?}\nruleset {:#?}",
                ruleset(&case).map(|ruleset| ruleset.rules)
            );
        }
    }
}

#[test]
fn documents_mean_what_they_say() {
    expect_agreement(runner(2_500, false).run(&tapes(40), |tapes| {
        let (case, packets) = case(&tapes);
        let ruleset = holds(&case, &packets, None)?;
        let image = Image::compile(&ruleset, BUDGET)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        for packet in &packets {
            let frame = write::frame(packet);
            let judgement = reference::judge(&ruleset, &frame);
            prop_assert_eq!(judgement, image.judge(&frame), "host, of {:?}", packet);
        }
        Ok(())
    }));
}

#[cfg(feature = "bpf")]
#[test]
fn the_kernel_does_what_documents_say() {
    use filter_user::datapath::TestBench;

    if !tests::require::root_and_bpf() {
        return;
    }
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    expect_agreement(runner(60, false).run(&tapes(100), |tapes| {
        let (case, packets) = case(&tapes);
        let ruleset = ruleset(&case).map_err(TestCaseError::fail)?;
        let image = Image::compile(&ruleset, BUDGET).map_err(|error| failed(&error))?;
        let mut bench = TestBench::load(&ruleset, &image).map_err(|error| failed(&error))?;
        for packet in &packets {
            let judgement = bench
                .judge(&write::frame(packet))
                .map_err(|error| failed(&error))?;
            prop_assert_eq!(
                meaning(&case, None, packet),
                in_words(&ruleset, &judgement),
                "the documents mean, and the kernel does, with {:?}",
                packet
            );
        }
        Ok(())
    }));
}

/// The comparison must be able to fail.
#[test]
fn every_misreading_is_caught() {
    let mut not_caught = Vec::new();
    for quirk in Quirk::ALL {
        let cases = Cell::new(0_u32);
        let result = runner(3_000, true).run(&tapes(40), |tapes| {
            cases.set(cases.get() + 1);
            let (case, packets) = case(&tapes);
            holds(&case, &packets, Some(quirk)).map(drop)
        });
        if result.is_ok() {
            not_caught.push(quirk);
        } else {
            println!("caught by documents, case {}: {quirk:?}", cases.get());
        }
    }
    assert!(not_caught.is_empty(), "not caught: {not_caught:?}");
}

/// Nor may there be documents that nothing is ever decided by.
#[test]
fn documents_of_every_kind_decide() {
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    let counts = RefCell::new(&mut met);
    expect_agreement(runner(1_500, true).run(&tapes(40), |tapes| {
        let (case, packets) = case(&tapes);
        for packet in &packets {
            let answer = meaning(&case, None, packet);
            let count = |what: String| *counts.borrow_mut().entry(what).or_default() += 1;
            let deciding = answer.rule.as_ref().map(|(name, _)| kind(&case, name));
            count(format!(
                "{} {}",
                answer.reason.name(),
                deciding.unwrap_or("")
            ));
            for noted in answer.noted {
                let by = noted.map_or("the end of a tier", |(name, _)| kind(&case, &name));
                count(format!("noted {by}"));
            }
        }
        Ok(())
    }));
    for what in [
        "failsafe failsafe",
        "policy_allow a GlobalNetworkPolicy",
        "policy_allow a NetworkPolicy",
        "policy_allow a policy",
        "policy_allow a profile",
        "policy_allow an IngressNodeFirewall",
        "policy_allow Kubernetes",
        "policy_deny a GlobalNetworkPolicy",
        "policy_deny a NetworkPolicy",
        "policy_deny a policy",
        "policy_deny a profile",
        "policy_deny an IngressNodeFirewall",
        "default_allow ",
        "default_deny ",
        "essential ",
        "noted a GlobalNetworkPolicy",
        "noted a NetworkPolicy",
        "noted a policy",
        "noted a profile",
        "noted a StagedGlobalNetworkPolicy",
        "noted a StagedNetworkPolicy",
        "noted an IngressNodeFirewall",
        "noted the end of a tier",
    ] {
        let count = met.get(what).copied().unwrap_or(0);
        assert!(count >= 20, "{what}: {count} of {met:#?}");
    }
}

/// The kind of document that has this name.
fn kind(case: &Case, name: &str) -> &'static str {
    let named = |policy: &&model::Policy| policy.name == name;
    match name.split_once([':', '/']) {
        Some((_, name)) if name.starts_with('k') => "Kubernetes",
        Some(("profile", _)) => "a profile",
        Some(("staged", name)) if name.contains('/') => "a StagedNetworkPolicy",
        Some(("staged", _)) => "a StagedGlobalNetworkPolicy",
        Some(_) => "a NetworkPolicy",
        None if name == "failsafe" => "failsafe",
        None if name.starts_with("firewall") => "an IngressNodeFirewall",
        None => match case.documents.policies.iter().find(named) {
            Some(policy) if policy.dialect == model::Dialect::V1 => "a policy",
            _ => "a GlobalNetworkPolicy",
        },
    }
}
