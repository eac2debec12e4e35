//! A ruleset, cut into classes: every packet that rules speak about belongs to
//! one cell, a pair class and an L4 class, and what happens to it is the
//! same for all packets of the cell.

use std::cell::OnceCell;

use super::class::{self, Cell};
use super::combine::{Pairs, TooMany};
use super::lines::Lines;
use super::{address, l4, source_port};
use crate::ruleset::{Family, Fragments, Ruleset};

/// The classes of one IP version.
#[derive(Debug)]
pub(super) struct FamilyClasses {
    pub(super) src: address::Dimension,
    pub(super) dst: address::Dimension,
}

impl FamilyClasses {
    /// How many pairs of source and destination classes there are.
    pub(super) fn pairs(&self) -> u64 {
        self.src.count() as u64 * self.dst.count() as u64
    }

    /// Whether both addresses make a difference.
    pub(super) fn has_both(&self) -> bool {
        self.src.count() > 1 && self.dst.count() > 1
    }
}

/// All classes of a ruleset.
#[derive(Debug)]
pub(super) struct Classes<'r> {
    pub(super) lines: Lines<'r>,
    /// IPv4, IPv6.
    pub(super) families: [FamilyClasses; 2],
    /// Without source ports.
    pub(super) l4: l4::Dimension,
    pub(super) source_ports: source_port::Dimension,
    /// Worked out when it is first asked for: not all combinations need it, and
    /// it may be tens of thousands.
    whole: OnceCell<WholeL4>,
}

/// The classes of L4 headers, source port and all.
#[derive(Debug)]
pub(super) struct WholeL4 {
    /// Each class.
    pub(super) classes: Vec<l4::Class>,
    /// Of each class without source ports with each of those, in that order, the
    /// class.
    pub(super) joint: Vec<u32>,
}

impl<'r> Classes<'r> {
    /// Cuts a ruleset.
    pub(super) fn of(ruleset: &'r Ruleset) -> Self {
        Self::with(ruleset, |_| ruleset.options.fragments)
    }

    /// Cuts a ruleset, each rule of which deals so with later fragments.
    pub(super) fn with(ruleset: &'r Ruleset, fragments: impl Fn(usize) -> Fragments) -> Self {
        let lines = Lines::of(ruleset, fragments);
        let families = [Family::V4, Family::V6].map(|family| {
            let cut = |side| address::Dimension::cut(&lines, &ruleset.sets, family, side);
            FamilyClasses {
                src: cut(|matches| &matches.src),
                dst: cut(|matches| &matches.dst),
            }
        });
        let l4 = l4::Dimension::cut(&lines.conditions);
        let source_ports = source_port::Dimension::cut(&lines.conditions);
        Self {
            lines,
            families,
            l4,
            source_ports,
            whole: OnceCell::new(),
        }
    }

    /// Whether source ports make a difference. One class of all ports does
    /// where lines ask for ports that contradict each other.
    pub(super) fn has_source_ports(&self) -> bool {
        let conditions = self.lines.conditions.len();
        match self.source_ports.classes.as_slice() {
            [one] => (0..conditions).any(|number| !one.contains(number)),
            _ => true,
        }
    }

    /// The classes of L4 headers, source port and all.
    pub(super) fn whole_l4(&self) -> &WholeL4 {
        self.whole.get_or_init(|| {
            let (classes, joint) = self.source_ports.join(&self.l4.classes);
            WholeL4 { classes, joint }
        })
    }

    /// The pair classes of both IP versions; else the words that would be needed
    /// at least, where a table of pairs would have more than `max_pairs`, or one
    /// of pair classes and whole L4 classes more than `max_decisions`.
    pub(super) fn join(&self, max_pairs: u64, max_decisions: u64) -> Result<[Pairs; 2], u64> {
        let l4 = self.whole_l4().classes.len() as u64;
        let mut left = max_decisions / l4;
        let [v4, v6] = self.families.each_ref().map(|family| {
            let joined = Pairs::join(&family.src, &family.dst, max_pairs, left);
            left -= joined.as_ref().map_or(0, |joined| joined.count() as u64);
            joined.map_err(|error| match error {
                TooMany::Pairs(pairs) => pairs,
                TooMany::Classes(classes) => classes * l4,
            })
        });
        Ok([v4?, v6?])
    }
}

/// The cells of one IP version.
#[derive(Debug)]
pub(super) struct Cells<'c> {
    lines: &'c Lines<'c>,
    l4: &'c [l4::Class],
    /// Of each L4 class, the lines that are everywhere and that it does not
    /// exclude.
    common: Vec<Vec<u32>>,
    pairs: &'c Pairs,
}

impl<'c> Cells<'c> {
    pub(super) fn of(classes: &'c Classes<'c>, pairs: &'c Pairs) -> Self {
        let common = classes
            .whole_l4()
            .classes
            .iter()
            .map(|l4| class::common(&classes.lines, &pairs.everywhere, l4))
            .collect();
        Self {
            lines: &classes.lines,
            l4: &classes.whole_l4().classes,
            common,
            pairs,
        }
    }

    /// The cell of a pair class and a whole L4 class.
    pub(super) fn cell(&self, pair: u32, l4: usize) -> Cell<'_> {
        let own = self.pairs.own(pair);
        Cell::new(self.lines, own, &self.common[l4], &self.l4[l4])
    }

    /// All cells, those of a pair together.
    pub(super) fn iter(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..self.pairs.count() as u32)
            .flat_map(move |pair| (0..self.l4.len()).map(move |l4| self.cell(pair, l4)))
    }
}
