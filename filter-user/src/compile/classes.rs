//! A ruleset, cut into classes: every packet that rules speak about belongs to
//! one cell, a pair class and an L4 class, and what happens to it is the
//! same for all packets of the cell.

use super::CompileError;
use super::class::{self, Cell};
use super::combine::Pairs;
use super::lines::Lines;
use super::{address, l4, source_port};
use crate::ruleset::{Family, Ruleset};

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

    /// Each source class with each destination class.
    pub(super) fn join(&self, max_memory: u64) -> Result<Pairs, CompileError> {
        Pairs::join(&self.src, &self.dst, max_memory)
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
    /// Of each class in `l4` with each of `source_ports`, in that order, the
    /// class in `whole_l4`.
    pub(super) joint: Vec<u32>,
    /// With source ports.
    pub(super) whole_l4: Vec<l4::Class>,
}

impl<'r> Classes<'r> {
    /// Cuts a ruleset.
    pub(super) fn of(ruleset: &'r Ruleset) -> Self {
        let lines = Lines::of(ruleset);
        let families = [Family::V4, Family::V6].map(|family| {
            let cut = |side| address::Dimension::cut(&lines, &ruleset.sets, family, side);
            FamilyClasses {
                src: cut(|matches| &matches.src),
                dst: cut(|matches| &matches.dst),
            }
        });
        let l4 = l4::Dimension::cut(&lines.conditions, ruleset.options.fragments);
        let source_ports = source_port::Dimension::cut(&lines.conditions);
        let (whole_l4, joint) = source_ports.join(&l4.classes);
        Self {
            lines,
            families,
            l4,
            source_ports,
            joint,
            whole_l4,
        }
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
            .whole_l4
            .iter()
            .map(|l4| class::common(&classes.lines, &pairs.everywhere, l4))
            .collect();
        Self {
            lines: &classes.lines,
            l4: &classes.whole_l4,
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
