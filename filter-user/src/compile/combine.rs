//! Source and destination classes → pair classes.

use std::collections::HashMap;

use filter_common::abi::{FamilyLayout, NONE};

use super::CompileError;
use super::address::Dimension;
use super::line_set::LineSet;
use super::words::Words;

/// The pair classes: which lines match a source and a destination together.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The lines of each class.
    pub(super) classes: Vec<LineSet>,
    shared: HashMap<LineSet, u32>,
}

/// The pair classes of one IP version.
#[derive(Debug)]
pub(super) struct Joined {
    /// Of each source class with each destination class, in that order, the
    /// pair class.
    pub(super) pairs: Vec<u32>,
    /// Whether they are simply numbered in that order from the first on.
    direct: bool,
    dst_classes: usize,
}

impl Pairs {
    /// Joins source and destination of one IP version.
    pub(super) fn join(&mut self, src: &Dimension, dst: &Dimension) -> Joined {
        let both = src
            .classes
            .iter()
            .flat_map(|src| dst.classes.iter().map(|dst| src.intersection(dst)));
        // Along one dimension a table would only repeat the class.
        let direct = src.classes.len() == 1 || dst.classes.len() == 1;
        let pairs = both
            .map(|set| {
                let classes = &mut self.classes;
                let mut new = |set: &LineSet| {
                    classes.push(set.clone());
                    (classes.len() - 1) as u32
                };
                if direct {
                    new(&set)
                } else {
                    *self.shared.entry(set).or_insert_with_key(new)
                }
            })
            .collect();
        Joined {
            pairs,
            direct,
            dst_classes: dst.classes.len(),
        }
    }
}

impl Joined {
    /// Writes the tables of one IP version.
    pub(super) fn write(
        &self,
        src: &Dimension,
        dst: &Dimension,
        words: &mut Words,
    ) -> Result<FamilyLayout, CompileError> {
        let mut layout = FamilyLayout {
            src: src.write(words)?,
            dst: dst.write(words)?,
            pairs: NONE,
            dst_classes: self.dst_classes as u32,
            pair_offset: 0,
        };
        if self.direct {
            layout.pair_offset = self.pairs.first().copied().unwrap_or(0);
        } else {
            layout.pairs = words.reserve(self.pairs.len() as u64)?;
            for (index, pair) in (layout.pairs..).zip(&self.pairs) {
                words.set(index, *pair);
            }
        }
        Ok(layout)
    }
}
