//! The scoreboard: nodewall's column, the document, and the runner itself. The other
//! filters' columns are `cargo xtask scoreboard`'s.
#![cfg(feature = "bpf")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tests::require;
use tests::scoreboard::{Hook, Mark, Outcome, Peer, cases, control, listed, run};

#[test]
fn nodewall_decides_every_packet_as_required() {
    if !require::root_and_bpf() {
        return;
    }
    let cases = cases();
    let outcomes = run(Peer::Nodewall, &cases).unwrap();
    let wrong: Vec<_> = outcomes
        .iter()
        .zip(&cases)
        .filter(|(outcome, case)| outcome.mark(case.must_pass()) != Mark::Right)
        .map(|(outcome, case)| format!("{}: {outcome:?}", case.row.name))
        .collect();
    assert_eq!(outcomes.len(), cases.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_document_has_the_packets_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/scoreboard.md")).unwrap();
    let cases = cases();
    assert!(cases.len() >= 60);
    let names: HashSet<_> = cases.iter().map(|case| &case.row.name).collect();
    assert_eq!(names.len(), cases.len(), "a packet is there twice");
    let wanted: Vec<_> = cases
        .iter()
        .map(|case| (case.row.name.clone(), case.row.verdict.to_owned()))
        .collect();
    assert_eq!(listed(&document), wanted, "run `cargo xtask scoreboard`");
    for peer in Peer::ALL {
        assert!(document.contains(&format!("### {}\n", peer.name())));
    }
    let count = cases.len();
    let version = env!("CARGO_PKG_VERSION");
    assert!(document.contains(&format!(
        "| nodewall | {version} | **{count} of {count}** |"
    )));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        readme.contains(&format!("all {count} packets")),
        "README.md"
    );
}

/// What the runner sees of a filter is the filter's doing. `cargo xtask scoreboard` tries
/// this with all packets at every hook; here nodewall's hook has all, and the others some.
#[test]
fn without_a_filter_all_passes_and_behind_a_closed_one_nothing() {
    if !require::root_and_bpf() {
        return;
    }
    let cases = cases();
    let some: Vec<_> = cases.iter().step_by(5).cloned().collect();
    control(Hook::Driver, &cases).unwrap();
    control(Hook::Ingress, &some).unwrap();
    control(Hook::Prerouting, &some).unwrap();
}

/// … and a packet that is decided wrongly is marked so.
#[test]
fn wrong_is_not_right() {
    for (outcome, must_pass, mark) in [
        (Outcome::Passed, true, Mark::Right),
        (Outcome::Dropped, false, Mark::Right),
        (Outcome::Passed, false, Mark::LetIn),
        (Outcome::Dropped, true, Mark::KeptOut),
        (Outcome::PassedThenRefused, false, Mark::Stack),
        (Outcome::PassedThenRefused, true, Mark::Right),
        (Outcome::Refused, false, Mark::Stack),
        (Outcome::Refused, true, Mark::Stack),
        (Outcome::NotSeen, false, Mark::NotApplicable),
        (Outcome::TooLarge, true, Mark::NotApplicable),
    ] {
        assert_eq!(outcome.mark(must_pass), mark, "{outcome:?}, {must_pass}");
    }
}
