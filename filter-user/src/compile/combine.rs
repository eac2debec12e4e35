//! Source and destination classes → pair classes.

use filter_common::abi::NONE;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::lists::Lists;
use super::words::Words;

/// Where joining was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// So many words of a table of pairs.
    Pairs(u64),
    /// So many pair classes, at least.
    Classes(u64),
}

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
    /// Joins source and destination of one IP version, if their table takes at
    /// most `max_pairs` words, and there are at most `max_classes`.
    pub(super) fn join(
        src: &Dimension,
        dst: &Dimension,
        max_pairs: u64,
        max_classes: u64,
    ) -> Result<Self, TooMany> {
        // Along one dimension a table would only repeat the class.
        let direct = src.count() == 1 || dst.count() == 1;
        let cells = src.count() as u64 * dst.count() as u64;
        if !direct && cells > max_pairs {
            return Err(TooMany::Pairs(cells));
        }
        if direct && cells > max_classes {
            return Err(TooMany::Classes(cells));
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
            if classes.len() as u64 > max_classes {
                return Err(TooMany::Classes(classes.len() as u64));
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

    /// The units of source and destination classes, in an image in which those
    /// of pair classes are `unit`.
    pub(super) fn units(&self, unit: u32) -> [u32; 2] {
        if self.direct {
            [unit, unit]
        } else {
            [self.dst_classes as u32, 1]
        }
    }

    /// Writes the table of one IP version, with pair classes as multiples of
    /// `unit`; where it begins.
    pub(super) fn write(&self, unit: u32, words: &mut Words) -> Result<u32, CompileError> {
        if self.direct {
            return Ok(NONE);
        }
        let start = words.reserve(self.table.len() as u64)?;
        for (word, pair) in words.at(start).iter_mut().zip(&self.table) {
            *word = pair * unit;
        }
        Ok(start)
    }
}
