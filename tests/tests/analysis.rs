//! What is said of rulesets as a whole, against packets: rules that no packet
//! meets, and the packets that two rulesets treat differently. `validate` and
//! `diff` call both exact.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/random.rs"]
mod random;

use filter_common::verdict::Reason;
use filter_user::compile::{Analysis, differences};
use filter_user::reference;
use filter_user::ruleset::{Action, Ruleset};
use proptest::prelude::*;
use proptest::sample::Index;

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

/// Behind tags it may have some.
fn has_extensions(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 0]) => false,
        Some([0x86, 0xdd]) => frame
            .get(20)
            .is_none_or(|next| [0, 43, 44, 51, 60, 135].contains(next)),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
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
        after.options = before.options.clone();
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
        for (index, recipe) in recipes.iter().enumerate() {
            let frame = recipe.frame(sides[index % 2]);
            let first = reference::evaluate(&before, &frame.0);
            let second = reference::evaluate(&after, &frame.0);
            let reasons = [first.reason, second.reason];
            // An example is a packet that can be written in a line: none has
            // its header hidden. Essentials share their classes with others.
            let plain = [
                Reason::UnreadableL4,
                Reason::Fragment,
                Reason::Essential,
            ]
            .iter()
            .all(|reason| !reasons.contains(reason));
            if first.verdict == second.verdict || !plain || has_extensions(&frame.0) {
                continue;
            }
            let known = found
                .iter()
                .any(|found| (found.before.rule, found.after.rule) == (first.rule, second.rule));
            prop_assert!(
                known,
                "{:?}, then {:?}: no example like {:?} in {:#?}",
                first, second, frame, found
            );
        }
    }
}
