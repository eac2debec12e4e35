//! Addresses → classes: for one dimension (source or destination) and one IP
//! version, the trie that gives each address the class of addresses which the
//! same rules match.

use std::collections::HashMap;

use filter_common::abi::{NONE, PAGE_WORDS_U32, POINTER, ROOT_WORDS};
use ipnet::IpNet;

use super::CompileError;
use super::rule_set::RuleSet;
use super::words::Words;
use crate::ruleset::{Family, Rule};

/// One dimension, compiled.
#[derive(Debug)]
pub(super) struct Dimension {
    /// The rules of each class.
    pub(super) classes: Vec<RuleSet>,
    /// First word of the trie; [`NONE`] where there is one class.
    pub(super) root: u32,
}

/// Compiles one dimension of `rules`; `nets` names the dimension.
pub(super) fn compile(
    rules: &[Rule],
    family: Family,
    nets: impl Fn(&Rule) -> &[IpNet],
    words: &mut Words,
) -> Result<Dimension, CompileError> {
    let here = |rule: &Rule| rule.matches[0].family.is_none_or(|only| only == family);
    let everywhere = RuleSet::of(rules.len(), |rule| {
        here(&rules[rule]) && nets(&rules[rule]).is_empty()
    });
    let mut prefixes: Vec<Prefix> = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| here(rule))
        .flat_map(|(index, rule)| {
            nets(rule)
                .iter()
                .filter_map(move |net| Prefix::of(net, family, index as u32))
        })
        .collect();
    prefixes.sort_unstable();

    let (segments, sets) = segments(&prefixes);
    let classes: Vec<RuleSet> = sets
        .into_iter()
        .map(|set| {
            let mut class = everywhere.clone();
            for rule in set {
                class.insert(rule as usize);
            }
            class
        })
        .collect();
    let root = if classes.len() == 1 {
        NONE
    } else {
        trie(&segments, words)?
    };
    Ok(Dimension { classes, root })
}

/// A network of one rule. Addresses of both versions are aligned to the top
/// of 128 bits, so that one algorithm serves both. The order is what
/// [`segments`] needs: by first address, the wider network first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    first: u128,
    length: u8,
    rule: u32,
}

impl Prefix {
    fn of(net: &IpNet, family: Family, rule: u32) -> Option<Self> {
        let first = match (net, family) {
            (IpNet::V4(net), Family::V4) => u128::from(net.network().to_bits()) << 96,
            (IpNet::V6(net), Family::V6) => net.network().to_bits(),
            _ => return None,
        };
        Some(Self {
            first,
            length: net.prefix_len(),
            rule,
        })
    }

    fn last(self) -> u128 {
        self.first | u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0)
    }
}

/// From an address on, until the next segment: this class.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u128,
    class: u32,
}

/// Cuts the address space where the set of matching rules changes. Class 0
/// has no network; the sets are those of the networks alone, sorted.
fn segments(prefixes: &[Prefix]) -> (Vec<Segment>, Vec<Vec<u32>>) {
    let mut classes: HashMap<Vec<u32>, u32> = HashMap::from([(Vec::new(), 0)]);
    let mut sets = vec![Vec::new()];
    let mut sweep = Sweep {
        segments: vec![Segment { first: 0, class: 0 }],
        around: Vec::new(),
    };
    for group in prefixes.chunk_by(|a, b| (a.first, a.length) == (b.first, b.length)) {
        let prefix = group[0];
        sweep.leave_before(Some(prefix.first));
        let mut set: Vec<u32> = sets[sweep.class() as usize].clone();
        set.extend(group.iter().map(|prefix| prefix.rule));
        set.sort_unstable();
        set.dedup();
        let class = *classes.entry(set).or_insert_with_key(|set| {
            sets.push(set.clone());
            (sets.len() - 1) as u32
        });
        sweep.around.push((prefix.last(), class));
        sweep.cut(prefix.first);
    }
    sweep.leave_before(None);
    (sweep.segments, sets)
}

/// A walk over the address space, from network to network.
struct Sweep {
    segments: Vec<Segment>,
    /// Last address and class of the networks around the present address,
    /// the widest first.
    around: Vec<(u128, u32)>,
}

impl Sweep {
    /// The class at the present address.
    fn class(&self) -> u32 {
        self.around.last().map_or(0, |&(_, class)| class)
    }

    /// Begins a segment of the present class.
    fn cut(&mut self, first: u128) {
        let class = self.class();
        self.segments.pop_if(|last| last.first == first);
        if self.segments.last().is_none_or(|last| last.class != class) {
            self.segments.push(Segment { first, class });
        }
    }

    /// Leaves the networks that end before `address`; all where there is none.
    fn leave_before(&mut self, address: Option<u128>) {
        while let Some((last, _)) = self
            .around
            .pop_if(|(last, _)| address.is_none_or(|address| *last < address))
        {
            if let Some(next) = last.checked_add(1) {
                self.cut(next);
            }
        }
    }
}

/// Writes the multibit trie of the segments: 16 bits, then 8 a level.
fn trie(segments: &[Segment], words: &mut Words) -> Result<u32, CompileError> {
    let page = words.reserve_pages(u64::from(ROOT_WORDS) / u64::from(PAGE_WORDS_U32))?;
    let root = page * PAGE_WORDS_U32;
    fill(segments, words, root, ROOT_WORDS, 0, 16)?;
    Ok(root)
}

/// Fills `count` entries from `base` on, each for 2^(128 - `depth`) addresses,
/// the first from `first` on. `segments` begins at or before `first`.
fn fill(
    mut segments: &[Segment],
    words: &mut Words,
    base: u32,
    count: u32,
    first: u128,
    depth: u32,
) -> Result<(), CompileError> {
    let span = u128::MAX.checked_shr(depth).unwrap_or(0);
    for entry in 0..count {
        let first = first + (u128::from(entry) << (128 - depth));
        let last = first | span;
        while segments.get(1).is_some_and(|next| next.first <= first) {
            segments = &segments[1..];
        }
        let one_class = segments.get(1).is_none_or(|next| next.first > last);
        let word = if one_class {
            segments[0].class
        } else {
            let page = words.reserve_pages(1)?;
            let below = page * PAGE_WORDS_U32;
            fill(segments, words, below, PAGE_WORDS_U32, first, depth + 8)?;
            POINTER | page
        };
        words.set(base + entry, word);
    }
    Ok(())
}
