//! The scoreboard: nodewall's column, the document, and the runner itself. The other
//! filters' columns are `cargo xtask scoreboard`'s.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tests::require;
use tests::scoreboard::{Hook, Mark, Outcome, Peer, cases, listed, run};

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

/// What the runner sees of a filter is the filter's doing.
#[test]
fn without_a_filter_all_passes_and_behind_a_closed_one_nothing() {
    if !require::root_and_bpf() {
        return;
    }
    let cases = cases();
    for hook in [Hook::Driver, Hook::Ingress, Hook::Prerouting] {
        let open = run(Peer::Nothing(hook), &cases).unwrap();
        let closed = run(Peer::Everything(hook), &cases).unwrap();
        let (mut in_order, mut beyond) = (0, 0);
        for ((open, closed), case) in open.iter().zip(&closed).zip(&cases) {
            let name = &case.row.name;
            match (open, closed) {
                (Outcome::Passed | Outcome::PassedThenRefused, Outcome::Dropped) => {
                    in_order += 1;
                    let marks = (open.mark(false), closed.mark(true));
                    let refused = *open == Outcome::PassedThenRefused;
                    let let_in = if refused { Mark::Stack } else { Mark::LetIn };
                    assert_eq!(marks, (let_in, Mark::KeptOut), "{name}");
                }
                // xdp-filter allows no such frames.
                (_, Outcome::TooLarge) if hook == Hook::Driver => beyond += 1,
                (Outcome::Refused | Outcome::NotSeen, same) if hook == Hook::Prerouting => {
                    assert_eq!(open, same, "{name}");
                    beyond += 1;
                }
                _ => panic!("{hook:?}, {name}: {open:?} without a filter, {closed:?} behind one"),
            }
        }
        println!("{hook:?}: {in_order} pass and are dropped, {beyond} are beyond it");
        assert!(in_order > beyond);
    }
}
