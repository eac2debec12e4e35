//! The lines of a ruleset: each alternative of each rule, in order. Classes
//! are sets of lines.

use std::ops::Range;

use crate::ruleset::{Action, Match, Rule, Ruleset, Stage};

/// One alternative of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'r> {
    /// The rule's index.
    pub(super) rule: usize,
    /// When it applies.
    pub(super) matches: &'r Match,
    /// Whether it doesn't match where it can't be told: a failsafe only ever
    /// opens, and a Log changes nothing.
    pub(super) optional: bool,
}

/// The lines of a ruleset.
#[derive(Debug)]
pub(super) struct Lines<'r> {
    /// The rules.
    pub(super) rules: &'r [Rule],
    /// Their lines.
    pub(super) all: Vec<Line<'r>>,
    /// Of each rule, the end of its lines.
    ends: Vec<usize>,
    /// Of each rule, the first later one of another tier: where a Pass goes.
    behind_tier: Vec<usize>,
}

impl<'r> Lines<'r> {
    /// The lines of `ruleset`.
    pub(super) fn of(ruleset: &'r Ruleset) -> Self {
        let rules = ruleset.rules.as_slice();
        let mut all = Vec::new();
        let mut ends = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let optional = rule.id.stage == Stage::Failsafe || rule.action == Action::Log;
            all.extend(rule.matches.iter().map(|matches| Line {
                rule: index,
                matches,
                optional,
            }));
            ends.push(all.len());
        }
        let mut behind_tier = vec![rules.len(); rules.len()];
        for index in (0..rules.len().saturating_sub(1)).rev() {
            behind_tier[index] = if rules[index].same_tier(&rules[index + 1]) {
                behind_tier[index + 1]
            } else {
                index + 1
            };
        }
        Self {
            rules,
            all,
            ends,
            behind_tier,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The first line behind this rule's.
    pub(super) fn behind(&self, rule: usize) -> usize {
        self.ends[rule]
    }

    /// The lines of a rule.
    pub(super) fn of_rule(&self, rule: usize) -> Range<usize> {
        let start = rule.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[rule]
    }

    /// The first line behind this rule's tier.
    pub(super) fn behind_tier(&self, rule: usize) -> usize {
        match self.behind_tier[rule] {
            0 => 0,
            next => self.ends[next - 1],
        }
    }
}
