//! Source port → class, only where a line asks for one; and the table that
//! joins it with the class of the rest of the L4 header.

use std::collections::{BTreeSet, HashMap};

use filter_common::abi::Table16;

use super::CompileError;
use super::bits::Bits;
use super::l4::{self, Class};
use super::lines::Condition;
use super::table16::Blocks;
use super::words::Words;

/// The dimension, cut into classes.
#[derive(Debug)]
pub(super) struct Dimension {
    /// The conditions that each class meets: those that ask for no source port in
    /// all.
    pub(super) classes: Vec<Bits>,
    /// From each port on, the class.
    pub(super) steps: Vec<(u16, u32)>,
}

impl Dimension {
    /// Cuts the dimension where the conditions say.
    pub(super) fn cut(conditions: &[Condition<'_>]) -> Self {
        let mut cuts = BTreeSet::from([0]);
        for asked in conditions {
            for range in asked.src_ports.iter().chain(asked.not_src_ports) {
                cuts.insert(range.first);
                cuts.extend(range.last.checked_add(1));
            }
        }
        let mut dimension = Self {
            classes: Vec::new(),
            steps: Vec::new(),
        };
        let mut numbers: HashMap<Bits, u32> = HashMap::new();
        for port in cuts {
            let set = Bits::of(conditions.len(), |number| {
                let asked = &conditions[number];
                l4::in_ranges(asked.src_ports, asked.not_src_ports, port)
            });
            let class = if let Some(&class) = numbers.get(&set) {
                class
            } else {
                let class = dimension.classes.len() as u32;
                dimension.classes.push(set.clone());
                numbers.insert(set, class);
                class
            };
            if dimension
                .steps
                .last()
                .is_none_or(|&(_, last)| last != class)
            {
                dimension.steps.push((port, class));
            }
        }
        dimension
    }

    /// The classes of the whole L4 header: each of `l4` with each of these,
    /// in that order, without doubles; and the number of each.
    pub(super) fn join(&self, l4: &[Class]) -> (Vec<Class>, Vec<u32>) {
        let mut classes = l4::Classes::default();
        let mut numbers = Vec::with_capacity(l4.len() * self.classes.len());
        for class in l4 {
            for ports in &self.classes {
                numbers.push(classes.number(Class {
                    // What can't be decided has no port that could be asked.
                    matching: class.matching.intersection(ports),
                    undecidable: class.undecidable.clone(),
                }));
            }
        }
        (classes.list, numbers)
    }

    /// Writes the classes of ports: where their blocks are said, and where classes
    /// are.
    pub(super) fn write(&self, words: &mut Words) -> Result<(u32, Table16), CompileError> {
        let mut blocks = Blocks::default();
        let heads = blocks.heads(&self.steps, words)?;
        Ok((heads, blocks.write(self.classes.len(), words)?))
    }
}
