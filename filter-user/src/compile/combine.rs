//! Classes → decisions: the tables that join what the dimensions found.

use std::collections::HashMap;

use filter_common::abi::{
    DECIDE_ALLOW, DECIDE_DEFAULT, DECIDE_DENY, DECIDE_FAILSAFE, DECIDE_UNDECIDABLE, FamilyLayout,
    NONE,
};

use super::rule_set::RuleSet;
use super::words::Words;
use super::{CompileError, address, l4};
use crate::ruleset::{Action, Rule, Stage};

/// The pair classes: which rules match a source and a destination together.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The rules of each class.
    pub(super) classes: Vec<RuleSet>,
    shared: HashMap<RuleSet, u32>,
}

impl Pairs {
    /// Joins source and destination of one IP version.
    pub(super) fn join(
        &mut self,
        src: &address::Dimension,
        dst: &address::Dimension,
        words: &mut Words,
    ) -> Result<FamilyLayout, CompileError> {
        let mut layout = FamilyLayout {
            src: src.root,
            dst: dst.root,
            pairs: NONE,
            dst_classes: dst.classes.len() as u32,
            pair_offset: 0,
        };
        let both = || {
            src.classes
                .iter()
                .flat_map(|src| dst.classes.iter().map(|dst| src.intersection(dst)))
        };
        if src.classes.len() == 1 || dst.classes.len() == 1 {
            layout.pair_offset = self.classes.len() as u32;
            self.classes.extend(both());
        } else {
            let count = src.classes.len() as u64 * dst.classes.len() as u64;
            layout.pairs = words.reserve(count)?;
            for (index, set) in both().enumerate() {
                let class = *self.shared.entry(set).or_insert_with_key(|set| {
                    self.classes.push(set.clone());
                    (self.classes.len() - 1) as u32
                });
                words.set(layout.pairs + index as u32, class);
            }
        }
        Ok(layout)
    }
}

/// Writes the decision of each pair class with each L4 class.
pub(super) fn decisions(
    rules: &[Rule],
    pairs: &[RuleSet],
    l4: &[l4::Class],
    words: &mut Words,
) -> Result<u32, CompileError> {
    let start = words.reserve(pairs.len() as u64 * l4.len() as u64)?;
    let cells = pairs
        .iter()
        .flat_map(|pair| l4.iter().map(move |l4| (pair, l4)));
    for (index, (pair, l4)) in cells.enumerate() {
        words.set(start + index as u32, decision(rules, pair, l4));
    }
    Ok(start)
}

/// The first rule in order decides: by its action, or by being undecidable.
fn decision(rules: &[Rule], pair: &RuleSet, l4: &l4::Class) -> u32 {
    let Some(first) = pair.first_in_either(&l4.matching, &l4.undecidable) else {
        return DECIDE_DEFAULT;
    };
    if l4.undecidable.contains(first) {
        return DECIDE_UNDECIDABLE;
    }
    let rule = &rules[first];
    let kind = match (rule.action, rule.id.stage) {
        (Action::Deny, _) => DECIDE_DENY,
        (Action::Allow, Stage::Failsafe) => DECIDE_FAILSAFE,
        (_, _) => DECIDE_ALLOW,
    };
    kind | first as u32
}
