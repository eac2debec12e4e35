//! Lines that match → what happens: the walk along the rules, done once for
//! each class and not for each packet.

use filter_common::abi::{
    DECIDE_ASK, DECIDE_DEFAULT, DECIDE_DROP, DECIDE_FAILSAFE, DECIDE_STATEFUL, NOTE_EVENT,
    REASON_COUNTERS, reason_counter,
};
use filter_common::verdict::{Reason, Verdict};

use std::ops::Range;

use super::class::Cell;
use super::lines::Lines;
use crate::ruleset::{Action, Essentials, Rule, Ruleset, Stage};

/// Where a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    /// At a rule that decides; also at the end of a tier.
    Rule(usize),
    /// At a rule that can't be decided.
    Undecidable(usize),
    /// Behind all rules.
    Default,
}

impl End {
    /// The rule that decides.
    pub(super) const fn decided_by(self) -> Option<usize> {
        match self {
            Self::Rule(rule) => Some(rule),
            Self::Undecidable(_) | Self::Default => None,
        }
    }

    /// The rule that ends the walk.
    pub(super) const fn rule(self) -> Option<usize> {
        match self {
            Self::Rule(rule) | Self::Undecidable(rule) => Some(rule),
            Self::Default => None,
        }
    }
}

/// What becomes of the packets of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fate {
    /// What decides.
    pub(super) end: End,
    /// The rules that are counted beside it, in order.
    pub(super) noted: Vec<usize>,
}

/// The fate of the packets of a cell, if these rules are all there are.
/// `staged`: whether staged ones are among them.
pub(super) fn fate(lines: &Lines<'_>, rules: Range<usize>, cell: Cell<'_>, staged: bool) -> Fate {
    let mut noted = Vec::new();
    let end = walk(lines, rules.clone(), cell, false, &mut noted);
    if staged {
        walk(lines, rules, cell, true, &mut noted);
        noted.sort_unstable();
    }
    Fate { end, noted }
}

/// Walks along the rules, with the staged ones or without, and notes what is
/// met on the way: with them, only those.
fn walk(
    lines: &Lines<'_>,
    rules: Range<usize>,
    cell: Cell<'_>,
    staged: bool,
    noted: &mut Vec<usize>,
) -> End {
    let mut next = rules
        .start
        .checked_sub(1)
        .map_or(0, |before| lines.behind(before));
    while let Some(line) = cell.next(next) {
        let index = lines.all[line].rule;
        if index >= rules.end {
            break;
        }
        let rule = &lines.rules[index];
        next = lines.behind(index);
        if rule.staged && !staged {
            continue;
        }
        if !(line..next).any(|line| cell.matches(line)) {
            return End::Undecidable(index);
        }
        let note = rule.staged == staged;
        match rule.action {
            Action::Allow | Action::Deny => {
                if rule.staged {
                    noted.push(index);
                }
                return End::Rule(index);
            }
            Action::Log if note => noted.push(index),
            Action::Log => {}
            Action::Pass => {
                if note {
                    noted.push(index);
                }
                next = lines.behind_tier(index);
            }
        }
    }
    End::Default
}

/// The decision word for an end.
pub(super) fn word(ruleset: &Ruleset, end: End) -> u32 {
    match end {
        End::Default => by_default(ruleset, ruleset.default, true),
        End::Rule(index) if ruleset.rules[index].is_default() => {
            let rule = &ruleset.rules[index];
            by_default(ruleset, rule.action, rule.is_stateful())
        }
        End::Rule(index) => by_rule(&ruleset.rules, index),
        End::Undecidable(index) => undecidable(index),
    }
}

/// A decision word of the same meaning, that has the index of the rule which
/// ends the walk whatever that rule is; `None` where none does.
pub(super) fn word_with_rule(rules: &[Rule], end: End) -> Option<u32> {
    match end {
        End::Default => None,
        End::Rule(index) => Some(by_rule(rules, index)),
        End::Undecidable(index) => Some(undecidable(index)),
    }
}

fn by_default(ruleset: &Ruleset, action: Action, is_stateful: bool) -> u32 {
    let decision = match action {
        Action::Deny if ruleset.options.essentials != Essentials::NONE => {
            DECIDE_ASK | DECIDE_DEFAULT | DECIDE_DROP
        }
        Action::Deny => DECIDE_DROP | reason_counter(Reason::DefaultDeny, Verdict::Drop),
        _ => reason_counter(Reason::DefaultAllow, Verdict::Pass),
    };
    decision | stateful(is_stateful)
}

const fn stateful(is_stateful: bool) -> u32 {
    if is_stateful { DECIDE_STATEFUL } else { 0 }
}

fn by_rule(rules: &[Rule], index: usize) -> u32 {
    let rule = &rules[index];
    let kind = match (rule.action, rule.id.stage) {
        (Action::Deny, _) => DECIDE_DROP,
        (_, Stage::Failsafe) => DECIDE_FAILSAFE,
        _ => 0,
    };
    let default = if rule.is_default() {
        DECIDE_ASK | DECIDE_DEFAULT
    } else {
        0
    };
    counter(index) | kind | default | stateful(rule.is_stateful())
}

fn undecidable(index: usize) -> u32 {
    DECIDE_ASK | DECIDE_DROP | counter(index)
}

const fn counter(rule: usize) -> u32 {
    REASON_COUNTERS + rule as u32
}

/// Whether the packets are dropped, essentials apart. The rules of the end may
/// be those of a ruleset of which this one is a part.
pub(super) fn denies(ruleset: &Ruleset, rules: &[Rule], end: End) -> bool {
    match end {
        End::Undecidable(_) => true,
        End::Default => ruleset.default == Action::Deny,
        End::Rule(index) => rules[index].action == Action::Deny,
    }
}

/// Whether nothing but a default, of all or of a tier, denies the packets: then
/// essentials pass. `rules` as for [`denies`].
pub(super) fn denies_by_default(ruleset: &Ruleset, rules: &[Rule], end: End) -> bool {
    let is_default = match end {
        End::Undecidable(_) => false,
        End::Default => true,
        End::Rule(index) => rules[index].is_default(),
    };
    is_default && denies(ruleset, rules, end)
}

/// The word for a noted rule: an enforced Log is an event as well.
pub(super) fn note(rules: &[Rule], index: usize) -> u32 {
    let event = super::reports(&rules[index]);
    index as u32 | if event { NOTE_EVENT } else { 0 }
}
