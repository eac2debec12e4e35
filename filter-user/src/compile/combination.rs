//! How the classes of a packet's dimensions lead to its decision, and which way
//! is taken for a ruleset.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CompileError;
use super::classes::{Classes, FamilyClasses};
use super::combine::Pairs;
use super::parts::{self, Parts};

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
    /// Tables by what lines ask for; for those that ask for both addresses, of the
    /// pairs of classes that have a line at all.
    Parts,
}

/// Words that a table of pairs, or of decisions, has at most where there is a
/// choice: 4 MiB, which large caches hold.
pub(super) const DENSE: u64 = 1 << 20;
/// L4 classes, with those of source ports, that are joined at most to find out.
const JOINED: u64 = 1 << 16;

/// How the classes of a ruleset are combined, and what was worked out to know.
pub(super) enum Plan {
    /// By a table of pair classes with all L4 classes.
    Table(Box<[Pairs; 2]>),
    /// [`Combination::Parts`].
    Parts(Parts),
}

impl Combination {
    /// The best one for a ruleset; or `forced`, if it can hold the ruleset.
    pub(super) fn plan(
        classes: &Classes<'_>,
        max_memory: u64,
        forced: Option<Self>,
    ) -> Result<(Self, Plan), CompileError> {
        let has_both = classes.families.iter().any(FamilyClasses::has_both);
        let table = if has_both {
            Self::Dense
        } else {
            Self::OneDimension
        };
        let most = max_memory / 4;
        if !parts::can_hold(&classes.lines) {
            if forced == Some(Self::Parts) {
                return Err(CompileError::NotByParts);
            }
        } else if forced == Some(Self::Parts) {
            return Ok((Self::Parts, Plan::Parts(Parts::All)));
        } else if forced.is_none() && (has_both || classes.has_source_ports()) {
            let most = most.min(DENSE);
            return Ok(match Self::small(classes, most) {
                Some(pairs) => (table, Plan::Table(pairs.into())),
                None => (Self::Parts, Plan::Parts(Parts::of(classes))),
            });
        }
        let pairs = classes.join(most, most);
        let pairs = pairs.map_err(|words| CompileError::TooLarge {
            needed: words * 4,
            budget: max_memory,
        })?;
        Ok((forced.unwrap_or(table), Plan::Table(pairs.into())))
    }

    /// The pair classes, if tables of so many words each hold them.
    fn small(classes: &Classes<'_>, most: u64) -> Option<[Pairs; 2]> {
        let families = &classes.families;
        let both = families.iter().filter(|family| family.has_both());
        let sports = classes.source_ports.classes.len() as u64;
        if both.map(FamilyClasses::pairs).any(|pairs| pairs > most)
            || classes.l4.classes.len() as u64 * sports > JOINED
        {
            return None;
        }
        classes.join(most, most).ok()
    }

    /// Why it is the best one, in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::OneDimension => "no IP version has rules over both addresses",
            Self::Dense => "tables of all classes take at most 4 MiB each, or rules need them",
            Self::Parts => "a table of all classes would take more than 4 MiB, or than allowed",
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
