//! Ruleset → image: the compiled tables, pure bytes.
//!
//! Each dimension of a packet is cut into equivalence classes (values that
//! the same lines match, a line being one alternative of a rule), and tables
//! join the classes to the decision. No
//! aya, no unsafe, no policy knowledge; the same ruleset gives the same bytes.

#![expect(
    clippy::cast_possible_truncation,
    reason = "rules are counted against MAX_RULES first, words against 32-bit indices as they are reserved"
)]

mod address;
mod analysis;
mod bits;
mod blocks;
mod class;
mod classes;
mod combination;
mod combine;
mod decide;
mod differences;
mod displacement;
mod examples;
mod first;
mod l4;
mod lanes;
#[cfg(test)]
mod limits;
mod lines;
mod lists;
mod parts;
mod segment;
mod source_port;
mod table16;
mod trie;
mod words;

use std::collections::HashMap;

use filter_common::abi::{self, LINE_WORDS, Layout, Line, NONE, NOTED, Record, Slot};
use filter_common::classify::{self, Outcome, Tables};
use filter_common::packet::Cursor;

use crate::bytes::needed_and_allowed;
use crate::decision::{Decision, Judgement};
use crate::ruleset::{Action, Direction, Rule, Ruleset, Switch};
use classes::{Cells, Classes};
use combine::Pairs;
use words::Words;

use combination::Plan;
use parts::Parts;

pub use combination::Combination;

pub use analysis::{Analysis, Outcome as KindOutcome, Unreachable};
pub use differences::{Difference, differences};

/// The compiled tables of one ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    layout: Layout,
    lines: Vec<Line>,
    rules: u32,
    combination: Combination,
}

/// Why a ruleset can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The tables would take more memory than allowed.
    #[error("{}", too_large(*needed, *budget))]
    TooLarge {
        /// Bytes needed, at the point where it was given up.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
    },
    /// More rules that log, pass or are staged than are counted for one packet.
    #[error(
        "a packet can meet more than {max} rules that log, pass or are staged, from {first} to {last}; \
         merge some of them, or let them exclude each other",
        max = abi::MAX_NOTES
    )]
    TooManyNotes {
        /// The first of them.
        first: String,
        /// The last.
        last: String,
    },
    /// More combinations of such rules than a decision can name.
    #[error(
        "the rules that log, pass or are staged combine in too many ways; let fewer of them overlap"
    )]
    TooManyNoteRecords,
    /// Rules that are counted beside a verdict, where only the first one is found.
    #[error("rules that log, pass or are staged can't be combined by parts")]
    NotByParts,
    /// More kinds of packets than are asked one by one.
    #[error("{0} kinds of packets are too many to ask what happens to each")]
    TooManyKinds(u64),
    /// More lines behind each other than the program goes along.
    #[error(
        "the IPv6 addresses of this ruleset lie so close together that finding one takes more than \
         {max} steps; merge some of its networks",
        max = abi::LEVELS_V6
    )]
    TooDeep,
    /// More rules than a decision can name.
    #[error("{0} rules are more than the {max} a ruleset can have", max = abi::MAX_RULES)]
    TooManyRules(usize),
}

/// What is too large, and what to do.
fn too_large(needed: u64, budget: u64) -> String {
    let [takes, allowed] = needed_and_allowed(needed, budget);
    let way_out = if needed > words::LARGEST {
        "tables can't be larger than 512 MiB, so merge rules that differ only in their addresses, \
         or let fewer rules log, pass or be staged"
    } else {
        "allow more with --max-memory, or merge rules that differ only in their addresses"
    };
    format!(
        "the tables of this ruleset take at least {takes}, more than the budget of {allowed}; \
         {way_out}"
    )
}

impl Image {
    /// Compiles a ruleset into tables of at most `max_memory` bytes.
    pub fn compile(ruleset: &Ruleset, max_memory: u64) -> Result<Self, CompileError> {
        Self::compile_as(ruleset, max_memory, None)
    }

    /// Compiles with this combination, whatever is best: for tests and
    /// measurements. [`Combination::Parts`] can't hold rules that log, pass or are
    /// staged.
    pub fn compile_as(
        ruleset: &Ruleset,
        max_memory: u64,
        combination: Option<Combination>,
    ) -> Result<Self, CompileError> {
        Analysis::of(ruleset)?.image(max_memory, combination)
    }

    /// Writes the tables of a ruleset that is cut into classes, with this
    /// combination or the best one.
    fn write(
        ruleset: &Ruleset,
        classes: &Classes<'_>,
        max_memory: u64,
        forced: Option<Combination>,
    ) -> Result<Self, CompileError> {
        let (combination, plan) = Combination::plan(classes, max_memory, forced)?;
        let has_choice = forced.is_none() && parts::can_hold(&classes.lines);
        if let Plan::Parts(Parts::One) = plan {
            match Self::write_as(ruleset, classes, max_memory, combination, plan) {
                Err(CompileError::TooLarge { .. }) => {}
                written => return written,
            }
            let plan = Plan::Parts(Parts::All);
            return Self::write_as(ruleset, classes, max_memory, combination, plan);
        }
        match Self::write_as(ruleset, classes, max_memory, combination, plan) {
            // The best one that is in the budget.
            Err(CompileError::TooLarge { .. })
                if has_choice && combination != Combination::Parts =>
            {
                let parts = Combination::Parts;
                let plan = Plan::Parts(Parts::All);
                Self::write_as(ruleset, classes, max_memory, parts, plan)
            }
            written => written,
        }
    }

    fn write_as(
        ruleset: &Ruleset,
        classes: &Classes<'_>,
        max_memory: u64,
        combination: Combination,
        plan: Plan,
    ) -> Result<Self, CompileError> {
        let mut words = Words::new(match plan {
            Plan::Parts(Parts::One) => max_memory.min(parts::ONE_PART_BYTES),
            _ => max_memory,
        });
        let mut layout = Layout {
            l4_classes: classes.l4.classes.len() as u32,
            source_port_classes: classes.source_ports.classes.len() as u32,
            source_port_heads: NONE,
            joint: NONE,
            notes: NONE,
            flags: flags(ruleset),
            ..Layout::default()
        };
        (layout.protocols, layout.selectors) = classes.l4.write(&mut words)?;
        if classes.has_source_ports() {
            (layout.source_port_heads, layout.source_ports) =
                classes.source_ports.write(&mut words)?;
        }
        match plan {
            Plan::Parts(which) => {
                layout.flags |= abi::flags::PARTS;
                if classes.has_source_ports() {
                    layout.flags |= abi::flags::SOURCE_PORTS;
                }
                let default = decide::word(ruleset, decide::End::Default);
                for (layout, family) in layout.families.iter_mut().zip(&classes.families) {
                    layout.src = family.src.write(1, &mut words)?;
                    layout.dst = family.dst.write(1, &mut words)?;
                    layout.pairs = NONE;
                    layout.parts =
                        parts::write(classes, family, which, default, max_memory, &mut words)?;
                }
            }
            Plan::Table(pairs) => {
                let whole = classes.whole_l4();
                layout.l4_classes = whole.classes.len() as u32;
                if classes.has_source_ports() {
                    layout.joint = words.reserve_all(&whole.joint)?;
                }
                let unit = layout.l4_classes;
                let rows: usize = pairs.iter().map(Pairs::count).sum();
                // Classes are numbered by their rows: there must be that many words.
                words.check(rows as u64 * u64::from(unit))?;
                for ((layout, family), pairs) in layout
                    .families
                    .iter_mut()
                    .zip(&classes.families)
                    .zip(pairs.iter())
                {
                    let [src, dst] = pairs.units(unit);
                    layout.src = family.src.write(src, &mut words)?;
                    layout.dst = family.dst.write(dst, &mut words)?;
                    layout.pairs = pairs.write(unit, &mut words)?;
                }
                decisions(ruleset, classes, &pairs, &mut layout, &mut words)?;
            }
        }
        let lines = words.finish();
        layout.lines = lines.len() as u32;
        Ok(Self {
            layout,
            lines,
            rules: ruleset.rules.len() as u32,
            combination,
        })
    }

    /// Decides a frame (from the Ethernet header on) on the host, with the
    /// classifier that the kernel program runs.
    #[must_use]
    pub fn classify(&self, frame: &[u8]) -> Decision {
        classify::decide(&Cursor::over(frame), self).into()
    }

    /// Decides a frame, and says what else the kernel program would count.
    #[must_use]
    pub fn judge(&self, frame: &[u8]) -> Judgement {
        self.judgement(classify::decide(&Cursor::over(frame), self))
    }

    /// What an outcome over this image says.
    pub(crate) fn judgement(&self, outcome: Outcome) -> Judgement {
        let mut noted = Vec::new();
        if outcome.notes != NONE {
            let count = self.word(outcome.notes).unwrap_or(0).min(abi::MAX_NOTES);
            let words =
                (1..=count).filter_map(|index| self.word(outcome.notes.wrapping_add(index)));
            noted.extend(words.map(|word| word & !abi::NOTE_EVENT));
        }
        Judgement {
            decision: outcome.into(),
            essential: outcome.essential_kind(),
            noted,
        }
    }

    /// Bytes of the tables.
    #[must_use]
    pub fn memory(&self) -> u64 {
        size_of_val(self.lines.as_slice()) as u64
    }

    /// Where the tables are in [`Self::lines`].
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tables, line by line.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The image with something else in it: for tests, which must see that it is wrong.
    #[must_use]
    pub fn spoilt(&self, spoil: impl FnOnce(&mut Layout, &mut [Line])) -> Self {
        let mut layout = self.layout;
        let mut lines = self.lines.clone();
        spoil(&mut layout, &mut lines);
        Self {
            layout,
            lines,
            ..*self
        }
    }

    /// How the classes are combined.
    #[must_use]
    pub fn combination(&self) -> Combination {
        self.combination
    }

    /// Whether the program reports packets.
    #[must_use]
    pub fn reports(&self) -> bool {
        self.layout.flags & abi::flags::REPORTS != 0
    }

    /// Counters that the program needs: one a reason and one a rule.
    #[must_use]
    pub fn counters(&self) -> u32 {
        abi::REASON_COUNTERS + self.rules
    }
}

/// Writes the decision of each pair class with each L4 class, and the notes
/// of those that have any.
fn decisions(
    ruleset: &Ruleset,
    classes: &Classes<'_>,
    pairs: &[Pairs; 2],
    layout: &mut Layout,
    words: &mut Words,
) -> Result<(), CompileError> {
    let rules = &ruleset.rules;
    let staged = rules.iter().any(|rule| rule.staged);
    let families = pairs.each_ref().map(|pairs| Cells::of(classes, pairs));
    let columns = classes.whole_l4().classes.len() as u64;
    for (layout, pairs) in layout.families.iter_mut().zip(pairs) {
        layout.decisions = words.reserve(pairs.count() as u64 * columns)?;
    }
    let start = layout.families[0].decisions;
    let notes = words.reserve(0)?;
    let mut written: HashMap<decide::Fate, u32> = HashMap::new();
    for (word, cell) in (start..).zip(families.iter().flat_map(Cells::iter)) {
        let fate = decide::fate(&classes.lines, 0..rules.len(), cell, staged);
        let decision = decide::word(ruleset, fate.end);
        if fate.noted.is_empty() {
            words.set(word, decision);
            continue;
        }
        if fate.noted.len() > abi::MAX_NOTES as usize {
            return Err(CompileError::TooManyNotes {
                first: name_of(rules, fate.noted.first()),
                last: name_of(rules, fate.noted.last()),
            });
        }
        let record = if let Some(&record) = written.get(&fate) {
            record
        } else {
            let at = words.reserve(fate.noted.len() as u64 + 2)?;
            words.set(at, decision);
            words.set(at + 1, fate.noted.len() as u32);
            for (index, &rule) in (at + 2..).zip(&fate.noted) {
                words.set(index, decide::note(rules, rule));
            }
            let record = at - notes;
            written.insert(fate, record);
            record
        };
        if record > abi::MAX_RECORD {
            return Err(CompileError::TooManyNoteRecords);
        }
        words.set(word, NOTED | record);
    }
    if !written.is_empty() {
        layout.notes = notes;
    }
    Ok(())
}

fn name_of(rules: &[Rule], index: Option<&usize>) -> String {
    index.map_or_else(String::new, |&index| {
        let id = &rules[index].id;
        match id.index {
            Some(index) => format!("{} {index}", id.policy),
            None => id.policy.to_string(),
        }
    })
}

/// Whether a rule reports packets: an enforced Log.
pub(crate) fn reports(rule: &Rule) -> bool {
    rule.action == Action::Log && !rule.staged
}

fn flags(ruleset: &Ruleset) -> u32 {
    let options = &ruleset.options;
    [
        (ruleset.denies_by_default(), abi::flags::DEFAULT_DENY),
        (ruleset.direction == Direction::Egress, abi::flags::EGRESS),
        (options.non_ip == Switch::Drop, abi::flags::DROP_NON_IP),
        (ruleset.rules.iter().any(reports), abi::flags::REPORTS),
        (
            options.encapsulated_ip == Switch::Pass,
            abi::flags::PASS_ENCAPSULATED,
        ),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .map(|(_, flag)| flag)
    .chain(options.essentials.kinds().map(abi::flags::essential))
    .fold(0, |flags, flag| flags | flag)
}

impl Tables for Image {
    fn word(&self, index: u32) -> Option<u32> {
        let line = self.line(index / LINE_WORDS as u32)?;
        Some(line.0[index as usize % LINE_WORDS])
    }

    fn half(&self, index: u32) -> Option<u16> {
        let halves: &[u16] = bytemuck::cast_slice(&self.lines);
        halves.get(index as usize).copied()
    }

    fn byte(&self, index: u32) -> Option<u8> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.lines);
        bytes.get(index as usize).copied()
    }

    fn line(&self, number: u32) -> Option<&Line> {
        self.lines.get(number as usize)
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        let slots: &[Slot] = bytemuck::cast_slice(&self.lines);
        slots.get(number as usize)
    }

    fn record(&self, number: u32) -> Option<&Record> {
        let records: &[Record] = bytemuck::cast_slice(&self.lines);
        records.get(number as usize)
    }

    fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32 {
        let words: &[u32] = bytemuck::cast_slice(bytemuck::bytes_of(&self.layout));
        words[(A + B + C) / size_of::<u32>()]
    }
}

impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        Self {
            verdict: outcome.verdict(),
            reason: outcome.reason(),
            rule: outcome.rule(),
        }
    }
}
