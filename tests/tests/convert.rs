//! Random documents of all kinds, converted to Calico v3 and read again: as
//! `convert` prints them all, and as `get` prints those in force.
//!
//! Compared exactly, on the classes of both rulesets: no packet may be treated
//! differently. Where v3 has one rule for one, the images are the same.

#[path = "documents/generate.rs"]
#[allow(dead_code, reason = "packets are for the other test of documents")]
mod generate;
#[path = "documents/model.rs"]
#[allow(dead_code, reason = "packets are for the other test of documents")]
mod model;
#[path = "documents/write.rs"]
#[allow(dead_code, reason = "packets are for the other test of documents")]
mod write;

use filter_user::compile::{Image, differences};
use filter_user::policy::diagnostic::render;
use filter_user::policy::print::{self, PrintOptions};
use filter_user::policy::{
    Endpoint, Host, Labels, Model, SelectOptions, Severity, Source, check, endpoints_for,
    only_endpoint, select,
};
use filter_user::ruleset::{Direction, Ruleset};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tests::times::times;

use generate::Tape;
use model::{Case, INTERFACE};

fn read(sources: &[Source]) -> Result<Model, TestCaseError> {
    let checked = check(sources);
    let said = render(&checked.diagnostics, sources, false);
    checked.model.ok_or_else(|| {
        let texts: Vec<&str> = sources.iter().map(Source::text).collect();
        TestCaseError::fail(format!("{said}\n{}", texts.concat()))
    })
}

fn endpoint(model: &Model, labels: &Labels) -> Result<Endpoint, TestCaseError> {
    endpoints_for(model, &[INTERFACE.to_owned()], labels, &Host::default())
        .and_then(only_endpoint)
        .map_err(|error| TestCaseError::fail(error.to_string()))
}

/// What a round trip came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    SameImage,
    SameVerdicts,
    NotSaid,
}

fn round_trip(case: &Case, in_force: bool) -> Result<Outcome, TestCaseError> {
    let texts = write::texts(&case.documents);
    let sources = (0..).zip(&texts);
    let sources: Vec<Source> = sources
        .map(|(index, text): (u32, &String)| Source::new(format!("{index}.yaml"), text.as_str()))
        .collect();
    let before = read(&sources)?;
    let described = !before.endpoints().is_empty();
    let labels = if described {
        Labels::new()
    } else {
        case.labels.clone()
    };
    let here = endpoint(&before, &labels)?;
    let options = PrintOptions {
        node: Some("here"),
        endpoints: if described || in_force {
            &[]
        } else {
            std::slice::from_ref(&here)
        },
        in_force_on: in_force.then_some(&here),
    };
    let printed = print::print(&before, &options);
    let errors = |found: &filter_user::policy::Diagnostic| found.severity == Severity::Error;
    if printed.diagnostics.iter().any(errors) {
        return Ok(Outcome::NotSaid);
    }
    let text = print::to_yaml(&printed.complete());
    let after = read(&[Source::new("converted", text.as_str())])?;
    let there = endpoint(&after, &Labels::new())?;
    let options = SelectOptions {
        node_addresses: case.node.clone(),
        ..SelectOptions::default()
    };
    let mut outcome = Outcome::SameImage;
    for direction in [Direction::Ingress, Direction::Egress] {
        let old = select(&before, &here, direction, &options).ruleset;
        let new = select(&after, &there, direction, &options).ruleset;
        let compile = |ruleset: &Ruleset| Image::compile(ruleset, u64::MAX);
        let (Ok(old_image), Ok(new_image)) = (compile(&old), compile(&new)) else {
            continue;
        };
        let found = differences(&old, &new).expect("they compile");
        if let Some(found) = found.first() {
            return Err(TestCaseError::fail(format!(
                "{found:?}\n{}\n=== became\n{text}",
                texts.concat()
            )));
        }
        if old_image != new_image {
            outcome = Outcome::SameVerdicts;
        }
    }
    Ok(outcome)
}

/// Documents that are converted in each test.
const IN_CI: u32 = 300;

fn run(in_force: bool) {
    let cases = times(IN_CI);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let counts = std::cell::RefCell::new([0_u32; 3]);
    let tapes = prop::collection::vec(any::<u16>(), 0..1_200);
    TestRunner::new(config)
        .run(&tapes, |tape| {
            let case = generate::case(&mut Tape::new(&tape));
            let outcome = round_trip(&case, in_force)?;
            counts.borrow_mut()[outcome as usize] += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let [same_image, same_verdicts, not_said] = counts.into_inner();
    println!("same image {same_image}, same verdicts {same_verdicts}, not said {not_said}");
    assert!(same_image > cases / 2 && not_said < cases / 4);
}

#[test]
fn what_is_converted_decides_the_same() {
    run(false);
}

#[test]
fn what_is_read_back_decides_the_same() {
    run(true);
}
