//! Source and destination classes → pair classes.

use filter_common::abi::FamilyLayout;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::lists::Lists;
use super::words::Words;

/// The pair classes of one IP version: which lines match a source and a
/// destination together.
#[derive(Debug)]
pub(super) struct Pairs {
    /// The lines that match all pairs, but those of classes that say so.
    pub(super) everywhere: Bits,
    /// The own lines of each class (see [`super::class::Class`]).
    classes: Lists,
    /// Of each source class with each destination class, in that order, the
    /// pair class.
    table: Vec<u32>,
    /// Whether at most one of the two has more than one class: then the pair
    /// classes are numbered as that one's, and no table is needed.
    direct: bool,
    dst_classes: usize,
}

impl Pairs {
    /// Joins source and destination of one IP version. An error where the table
    /// would take more than `max_memory` bytes.
    pub(super) fn join(
        src: &Dimension,
        dst: &Dimension,
        max_memory: u64,
    ) -> Result<Self, CompileError> {
        // Along one dimension a table would only repeat the class.
        let direct = src.count() == 1 || dst.count() == 1;
        let cells = src.count() as u64 * dst.count() as u64;
        if !direct && cells * 4 > max_memory {
            return Err(CompileError::TooLarge {
                needed: cells * 4,
                budget: max_memory,
            });
        }
        let mut classes = Lists::default();
        let mut own = Vec::new();
        let mut table = Vec::with_capacity(cells as usize);
        for src in src.classes() {
            for dst in dst.classes() {
                src.intersection(dst, &mut own);
                table.push(if direct {
                    classes.add(&own)
                } else {
                    classes.number(&own)
                });
            }
        }
        Ok(Self {
            everywhere: src.everywhere.intersection(&dst.everywhere),
            classes,
            table,
            direct,
            dst_classes: dst.count(),
        })
    }

    /// The pair class of each source class with each destination class, in that
    /// order.
    pub(super) fn table(&self) -> &[u32] {
        &self.table
    }

    /// How many classes there are.
    pub(super) fn count(&self) -> usize {
        self.classes.len()
    }

    /// The own lines of a class.
    pub(super) fn own(&self, number: u32) -> &[u32] {
        self.classes.get(number)
    }

    /// Writes the table of one IP version, whose pair classes are numbered from
    /// `offset` on.
    pub(super) fn write(
        &self,
        offset: u32,
        layout: &mut FamilyLayout,
        words: &mut Words,
    ) -> Result<(), CompileError> {
        layout.dst_classes = self.dst_classes as u32;
        layout.pair_offset = offset;
        if !self.direct {
            layout.pairs = words.reserve(self.table.len() as u64)?;
            for (word, pair) in words.at(layout.pairs).iter_mut().zip(&self.table) {
                *word = pair + offset;
            }
        }
        Ok(())
    }
}
