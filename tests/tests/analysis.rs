//! What is said of rulesets as a whole, against packets: rules that no packet
//! meets, and the packets that two rulesets treat differently. `validate` and
//! `diff` call both exact.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/random.rs"]
mod random;

use filter_common::verdict::{Essential, Reason};
use filter_user::compile::{Analysis, differences};
use filter_user::reference;
use filter_user::ruleset::{Action, Options, Ruleset};
use proptest::prelude::*;
use proptest::sample::Index;
use tests::times::times;

use random::{recipe, ruleset};

/// A change that somebody may make to a ruleset.
fn change(ruleset: &mut Ruleset, kind: u8, place: Index, other: &Ruleset) {
    let count = ruleset.rules.len();
    match (kind, count) {
        (0, _) | (_, 0) => ruleset.default = other.default,
        (1, _) => {
            ruleset.rules.remove(place.index(count));
        }
        (2, _) => {
            let rule = &mut ruleset.rules[place.index(count)];
            rule.action = match rule.action {
                Action::Allow => Action::Deny,
                Action::Deny => Action::Allow,
                Action::Log => Action::Pass,
                Action::Pass => Action::Log,
            };
        }
        (3, _) => {
            let rule = &mut ruleset.rules[place.index(count)];
            rule.matches.truncate(1);
            if let Some(matches) = rule.matches.first_mut() {
                matches.src.nets.pop();
                matches.dst_ports.pop();
            }
        }
        (4, _) => {
            let rule = &mut ruleset.rules[place.index(count)];
            rule.staged = !rule.staged;
        }
        _ => ruleset.clone_from(other),
    }
}

/// By what two rulesets treat a packet differently: the rules that decide, the
/// kind of essentials that it is of where that decides, and whether a rule could
/// not be decided.
type Cause = [(Option<u32>, Option<Essential>, bool); 2];

fn cause(sides: [&Ruleset; 2], frame: &[u8]) -> Cause {
    sides.map(|side| {
        let found = reference::judge(side, frame);
        let undecided = [Reason::UnreadableL4, Reason::Fragment];
        (
            found.decision.rule,
            found.essential,
            undecided.contains(&found.decision.reason),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: times(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_packet_meets_an_unreachable_rule(
        ruleset in ruleset(30),
        recipes in prop::collection::vec(recipe(), 1..300),
    ) {
        let found = Analysis::of(&ruleset).unwrap().unreachable();
        for recipe in recipes {
            let frame = recipe.frame(&ruleset);
            let judgement = reference::judge(&ruleset, &frame.0);
            for met in judgement.decision.rule.iter().chain(&judgement.noted) {
                let wrong = found.iter().find(|found| found.rule == *met);
                prop_assert!(wrong.is_none(), "{:?} is met by {:?}", wrong, frame);
            }
        }
    }

    #[test]
    fn every_difference_has_its_example(
        before in ruleset(12),
        other in ruleset(12),
        kind in 0..7_u8,
        place in any::<Index>(),
        recipes in prop::collection::vec(recipe(), 1..300),
    ) {
        let mut after = before.clone();
        change(&mut after, kind, place, &other);
        // What frames without rules get is no matter of classes.
        after.options = Options {
            non_ip: before.options.non_ip,
            encapsulated_ip: before.options.encapsulated_ip,
            ..if kind % 2 == 0 { other.options } else { before.options.clone() }
        };
        let found = differences(&before, &after).unwrap();
        for found in &found {
            let frame = found.example.frame();
            let decisions = (
                reference::evaluate(&before, &frame),
                reference::evaluate(&after, &frame),
            );
            prop_assert_eq!(decisions, (found.before, found.after), "{}", found.example);
            prop_assert_ne!(found.before.verdict, found.after.verdict);
        }
        let sides = [&before, &after];
        let known: Vec<Cause> = found
            .iter()
            .map(|found| cause(sides, &found.example.frame()))
            .collect();
        for (index, recipe) in recipes.iter().enumerate() {
            let frame = recipe.frame(sides[index % 2]);
            let first = reference::evaluate(&before, &frame.0);
            let second = reference::evaluate(&after, &frame.0);
            let cause = cause(sides, &frame.0);
            // ARP is no packet of a class.
            let is_arp = cause.iter().any(|(_, kind, _)| *kind == Some(Essential::Arp));
            if first.verdict == second.verdict || is_arp {
                continue;
            }
            prop_assert!(
                known.contains(&cause),
                "{:?}, then {:?}: no example like {:?} in {:#?}",
                first, second, frame, found
            );
        }
    }
}
