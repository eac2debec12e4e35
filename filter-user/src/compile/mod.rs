//! Ruleset → image: the compiled tables, pure bytes.
//!
//! Each dimension of a packet is cut into equivalence classes (values that
//! the same rules match), and tables join the classes to the decision. No
//! aya, no unsafe, no policy knowledge; the same ruleset gives the same bytes.

#![expect(
    clippy::cast_possible_truncation,
    reason = "rules are counted against MAX_RULES first, words against 32-bit indices as they are reserved"
)]

mod address;
mod combine;
mod l4;
mod rule_set;
mod words;

use filter_common::abi::{self, FamilyLayout, Layout, NONE};
use filter_common::classify::{self, Outcome, Tables};
use filter_common::packet::Cursor;
use filter_common::parse;

use crate::decision::Decision;
use crate::ruleset::{Action, Family, Ruleset, Switch};

/// The compiled tables of one ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    layout: Layout,
    words: Vec<u32>,
    rules: u32,
}

/// Why a ruleset can't be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The tables would take more memory than allowed.
    #[error(
        "the tables of this ruleset take at least {needed} bytes, more than the budget of {budget} \
         bytes; allow more with --max-memory, or merge rules that differ only in their addresses"
    )]
    TooLarge {
        /// Bytes needed, at the point where it was given up.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
    },
    /// More distinct port sets than a class number can hold.
    #[error(
        "the rules distinguish more than 65,536 classes of ports; merge overlapping port ranges"
    )]
    TooManyClasses,
    /// More rules than a decision can name.
    #[error("{0} rules are more than the {max} a ruleset can have", max = abi::MAX_RULES)]
    TooManyRules(usize),
}

impl Image {
    /// Compiles a ruleset into tables of at most `max_memory` bytes.
    pub fn compile(ruleset: &Ruleset, max_memory: u64) -> Result<Self, CompileError> {
        let rules = &ruleset.rules;
        if rules.len() > abi::MAX_RULES {
            return Err(CompileError::TooManyRules(rules.len()));
        }
        let mut words = words::Words::new(max_memory);
        let mut pairs = combine::Pairs::default();
        let mut families = [FamilyLayout::default(); 2];
        for (layout, family) in families.iter_mut().zip([Family::V4, Family::V6]) {
            let src =
                address::compile(rules, family, |rule| &rule.matches[0].src.nets, &mut words)?;
            let dst =
                address::compile(rules, family, |rule| &rule.matches[0].dst.nets, &mut words)?;
            *layout = pairs.join(&src, &dst, &mut words)?;
        }
        let l4 = l4::compile(rules, ruleset.options.fragments, &mut words)?;
        let decisions = combine::decisions(rules, &pairs.classes, &l4.classes, &mut words)?;
        Ok(Self {
            layout: Layout {
                families,
                protocols: l4.protocols,
                blocks: l4.blocks,
                decisions,
                l4_classes: l4.classes.len() as u32,
                flags: flags(ruleset),
            },
            words: words.finish(),
            rules: rules.len() as u32,
        })
    }

    /// Decides a frame (from the Ethernet header on) on the host, with the
    /// classifier that the kernel program runs.
    #[must_use]
    pub fn classify(&self, frame: &[u8]) -> Decision {
        classify::decide(&Cursor::over(frame), self).into()
    }

    /// Bytes of the tables.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.words.len() as u64 * 4
    }

    /// Where the tables are in [`Self::pages`].
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tables, page by page.
    #[must_use]
    pub fn pages(&self) -> &[abi::Page] {
        bytemuck::cast_slice(&self.words)
    }

    /// Counters that the program needs: one a reason and one a rule.
    #[must_use]
    pub fn counters(&self) -> u32 {
        abi::REASON_COUNTERS + self.rules
    }
}

fn flags(ruleset: &Ruleset) -> u32 {
    let options = &ruleset.options;
    [
        (ruleset.default == Action::Deny, abi::flags::DEFAULT_DENY),
        (options.essentials, abi::flags::ESSENTIALS),
        (options.non_ip == Switch::Drop, abi::flags::DROP_NON_IP),
        (
            options.encapsulated_ip == Switch::Pass,
            abi::flags::PASS_ENCAPSULATED,
        ),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |flags, (_, flag)| flags | flag)
}

impl Tables for Image {
    fn word(&self, index: u32) -> Option<u32> {
        self.words.get(index as usize).copied()
    }

    fn family(&self, family: parse::Family) -> FamilyLayout {
        self.layout.families[family as usize]
    }

    fn protocols(&self) -> u32 {
        self.layout.protocols
    }

    fn blocks(&self) -> u32 {
        self.layout.blocks
    }

    fn decisions(&self) -> u32 {
        self.layout.decisions
    }

    fn l4_classes(&self) -> u32 {
        self.layout.l4_classes
    }

    fn flags(&self) -> u32 {
        self.layout.flags
    }
}

impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        Self {
            verdict: outcome.verdict,
            reason: outcome.reason,
            rule: (outcome.rule != NONE).then_some(outcome.rule),
        }
    }
}
