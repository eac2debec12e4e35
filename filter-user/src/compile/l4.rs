//! (protocol, selector) → class, where the selector is the destination port
//! or the ICMP type and code.
//!
//! A class knows two sets of rules: those that match, and those that would
//! need an L4 header which this packet doesn't show.

use std::collections::{BTreeSet, HashMap};

use filter_common::abi::{BLOCK_WORDS, PAGE_WORDS_U32};
use filter_common::parse::UNKNOWN_PROTOCOL;

use super::CompileError;
use super::rule_set::RuleSet;
use super::words::Words;
use crate::ruleset::{Fragments, Rule, Stage};

/// What a class of L4 headers means to the rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// The rules whose L4 part matches.
    pub(super) matching: RuleSet,
    /// The rules that can't be decided.
    pub(super) undecidable: RuleSet,
}

/// The dimension, compiled.
#[derive(Debug)]
pub(super) struct Dimension {
    /// Each class.
    pub(super) classes: Vec<Class>,
    /// First word of the protocol table.
    pub(super) protocols: u32,
    /// First word of the selector blocks.
    pub(super) blocks: u32,
}

/// Compiles the dimension.
pub(super) fn compile(
    rules: &[Rule],
    fragments: Fragments,
    words: &mut Words,
) -> Result<Dimension, CompileError> {
    let mut classes = Classes::default();
    let protocols = words.reserve((u64::from(UNKNOWN_PROTOCOL) + 1) * 2)?;
    // Page-aligned, so that blocks can be reserved one by one behind it.
    let blocks = words.reserve_pages(0)? * PAGE_WORDS_U32;
    let mut block_count = 0;

    for proto in 0..=UNKNOWN_PROTOCOL {
        // Unknown where an extension chain hides the protocol.
        let known = u8::try_from(proto).ok();
        let speaks_of = |rule: &Rule| {
            rule.matches[0]
                .protocol
                .is_none_or(|only| known.is_none_or(|known| only == known))
        };
        let asks_l4 = |rule: &Rule| {
            rule.matches[0].needs_l4() || (known.is_none() && rule.matches[0].protocol.is_some())
        };

        // The header is absent: what asks for it can't be decided. A failsafe
        // only ever opens, so it is closed where it isn't sure.
        let matching = RuleSet::of(rules.len(), |rule| {
            speaks_of(&rules[rule]) && !asks_l4(&rules[rule])
        });
        let undecidable = RuleSet::of(rules.len(), |rule| {
            let rule = &rules[rule];
            speaks_of(rule) && asks_l4(rule) && rule.id.stage != Stage::Failsafe
        });
        let unreadable = classes.number(Class {
            matching: matching.clone(),
            undecidable: undecidable.clone(),
        })?;
        let later_fragment = classes.number(Class {
            matching: matching.clone(),
            undecidable: match fragments {
                Fragments::Drop => undecidable,
                Fragments::L3Only => RuleSet::empty(rules.len()),
            },
        })?;

        // The header was read. Where rules ask for its selector: a block.
        let asking: Vec<usize> = (0..rules.len())
            .filter(|&rule| speaks_of(&rules[rule]) && asks_l4(&rules[rule]))
            .collect();
        let row = protocols + u32::from(proto) * 2;
        if known.is_none() || asking.is_empty() {
            let read = classes.number(Class {
                matching,
                undecidable: RuleSet::empty(rules.len()),
            })?;
            words.set_half(row, 0, read);
        } else {
            let start = words.reserve(u64::from(BLOCK_WORDS))?;
            block_count += 1;
            words.set_half(row + 1, 1, block_count);
            block(rules, &asking, &matching, &mut classes, words, start)?;
        }
        words.set_half(row, 1, unreadable);
        words.set_half(row + 1, 0, later_fragment);
    }
    Ok(Dimension {
        classes: classes.list,
        protocols,
        blocks,
    })
}

/// Fills a block: each selector's class.
fn block(
    rules: &[Rule],
    asking: &[usize],
    matching: &RuleSet,
    classes: &mut Classes,
    words: &mut Words,
    start: u32,
) -> Result<(), CompileError> {
    let mut cuts: BTreeSet<u32> = BTreeSet::from([0, 1 << 16]);
    for &rule in asking {
        for range in &rules[rule].matches[0].dst_ports {
            cuts.insert(u32::from(range.first));
            cuts.insert(u32::from(range.last) + 1);
        }
    }
    let cuts: Vec<u32> = cuts.into_iter().collect();
    for pair in cuts.windows(2) {
        let (first, end) = (pair[0], pair[1]);
        let mut set = matching.clone();
        for &rule in asking {
            let ports = &rules[rule].matches[0].dst_ports;
            if ports.iter().any(|range| range.contains(first as u16)) {
                set.insert(rule);
            }
        }
        let class = classes.number(Class {
            matching: set,
            undecidable: RuleSet::empty(rules.len()),
        })?;
        for selector in first..end {
            words.set_half(start + selector / 2, selector % 2, class);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Classes {
    list: Vec<Class>,
    numbers: HashMap<Class, u16>,
}

impl Classes {
    fn number(&mut self, class: Class) -> Result<u16, CompileError> {
        if let Some(&number) = self.numbers.get(&class) {
            return Ok(number);
        }
        let number = u16::try_from(self.list.len()).map_err(|_| CompileError::TooManyClasses)?;
        self.list.push(class.clone());
        self.numbers.insert(class, number);
        Ok(number)
    }
}
