//! How the classes of a packet's dimensions lead to its decision, and which way
//! is taken for a ruleset.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::classes::{Classes, FamilyClasses};
use super::parts;

/// The ways to combine classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// At most one address of each IP version makes a difference: its class and
    /// the L4 class are looked up in one table.
    OneDimension,
    /// A table of all source classes with all destination classes, and one of
    /// the pairs that are found there with all L4 classes.
    Dense,
    /// Tables by what lines ask for, and hash tables of the pairs of classes that
    /// have a line at all.
    Parts,
}

/// Pairs of source and destination classes up to which a table of all of them
/// is taken: 4 MiB, which large caches hold.
const DENSE: u64 = 1 << 20;

impl Combination {
    /// The best one for a ruleset.
    pub(super) fn choose(classes: &Classes<'_>) -> Self {
        let families = &classes.families;
        let both = families
            .iter()
            .filter(|family| family.src.count() > 1 && family.dst.count() > 1);
        match both.map(FamilyClasses::pairs).max() {
            None => Self::OneDimension,
            Some(pairs) if pairs > DENSE && parts::can_hold(&classes.lines) => Self::Parts,
            Some(_) => Self::Dense,
        }
    }

    /// Why it is the best one, in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::OneDimension => "no IP version has rules over both addresses",
            Self::Dense => "pairs of addresses fit in a table, or rules need one",
            Self::Parts => "more than 1,048,576 pairs of address classes",
        }
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneDimension => "one dimension",
            Self::Dense => "dense cross table",
            Self::Parts => "parts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileError, Image};
    use crate::ruleset::{Action, Direction, Match, Options, Rule, RuleId, Ruleset, Stage};

    #[test]
    fn what_is_counted_beside_a_verdict_is_not_combined_by_parts() {
        let mut ruleset = Ruleset {
            endpoint: "eth0".into(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules: vec![Rule {
                id: RuleId {
                    stage: Stage::Normal,
                    policy: "p".into(),
                    direction: Direction::Ingress,
                    index: Some(0),
                },
                tier: None,
                action: Action::Log,
                staged: false,
                matches: vec![Match::default()],
                source: None,
            }],
            default: Action::Allow,
            options: Options::default(),
        };
        let forced =
            |ruleset: &Ruleset| Image::compile_as(ruleset, 1 << 20, Some(Combination::Parts));
        assert_eq!(forced(&ruleset), Err(CompileError::NotByParts));
        ruleset.rules[0].action = Action::Deny;
        assert!(forced(&ruleset).is_ok());
    }
}
