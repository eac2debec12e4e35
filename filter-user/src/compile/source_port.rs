//! Source port → class, only where a line asks for one; and the table that
//! joins it with the class of the rest of the L4 header.

use std::collections::{BTreeSet, HashMap};

use filter_common::abi::{BLOCK_WORDS, NONE};

use super::CompileError;
use super::l4::{self, Class};
use super::line_set::LineSet;
use super::lines::Lines;
use super::words::Words;

/// The dimension, cut into classes.
#[derive(Debug)]
pub(super) struct Dimension {
    /// The lines of each class: those that ask for no source port in all.
    pub(super) classes: Vec<LineSet>,
    /// From each port on, the class.
    pub(super) steps: Vec<(u16, u16)>,
}

/// Where the dimension is in the image; [`NONE`] if it isn't.
#[derive(Debug)]
pub(super) struct Written {
    /// First word of the table of ports.
    pub(super) ports: u32,
    /// First word of the table (L4 class, source port class) → joint class.
    pub(super) joint: u32,
}

impl Dimension {
    /// Cuts the dimension where the lines say.
    pub(super) fn cut(lines: &Lines<'_>) -> Result<Self, CompileError> {
        let mut cuts = BTreeSet::from([0]);
        for line in &lines.all {
            let asked = line.matches;
            for range in asked.src_ports.iter().chain(&asked.not_src_ports) {
                cuts.insert(range.first);
                cuts.extend(range.last.checked_add(1));
            }
        }
        let mut dimension = Self {
            classes: Vec::new(),
            steps: Vec::new(),
        };
        let mut numbers: HashMap<LineSet, u16> = HashMap::new();
        for port in cuts {
            let set = LineSet::of(lines.count(), |line| {
                let asked = lines.all[line].matches;
                l4::in_ranges(&asked.src_ports, &asked.not_src_ports, port)
            });
            let class = if let Some(&class) = numbers.get(&set) {
                class
            } else {
                let class = u16::try_from(dimension.classes.len())
                    .map_err(|_| CompileError::TooManyClasses)?;
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
        Ok(dimension)
    }

    /// Whether source ports make a difference. One class of all ports does
    /// where lines ask for ports that contradict each other.
    fn is_used(&self, joint: &[u16]) -> bool {
        self.classes.len() > 1 || (0..).zip(joint).any(|(l4, class)| l4 != *class)
    }

    /// The classes of the whole L4 header: each of `l4` with each of these,
    /// in that order, without doubles; and the number of each.
    pub(super) fn join(&self, l4: &[Class]) -> Result<(Vec<Class>, Vec<u16>), CompileError> {
        let mut classes = l4::Classes::default();
        let mut numbers = Vec::with_capacity(l4.len() * self.classes.len());
        for class in l4 {
            for ports in &self.classes {
                numbers.push(classes.number(Class {
                    // What can't be decided has no port that could be asked.
                    matching: class.matching.intersection(ports),
                    undecidable: class.undecidable.clone(),
                })?);
            }
        }
        Ok((classes.list, numbers))
    }

    /// Writes the tables, if source ports make a difference.
    pub(super) fn write(&self, joint: &[u16], words: &mut Words) -> Result<Written, CompileError> {
        if !self.is_used(joint) {
            return Ok(Written {
                ports: NONE,
                joint: NONE,
            });
        }
        let ports = words.reserve(u64::from(BLOCK_WORDS))?;
        l4::write_steps(&self.steps, words, ports);
        let start = words.reserve(joint.len() as u64)?;
        for (index, class) in (start..).zip(joint) {
            words.set(index, u32::from(*class));
        }
        Ok(Written {
            ports,
            joint: start,
        })
    }
}
