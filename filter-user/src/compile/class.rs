//! Which lines match: of a class of addresses, of a pair of such, of a cell.
//!
//! Most lines either match all addresses or very few. So a class is a list of
//! the lines that it differs in from a set that all classes of its dimension
//! share; 1,000,000 classes of one line each are then 1,000,000 numbers.

use super::bits::Bits;
use super::l4;
use super::lines::Lines;

/// Beside a line in a class: it is in the shared set and does *not* match.
/// Such come last in a sorted list.
pub(super) const WITHOUT: u32 = 1 << 31;

/// The lines of a class, in terms of its dimension's `everywhere`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class<'c> {
    pub(super) everywhere: &'c Bits,
    /// Sorted: lines that match, then those [`WITHOUT`].
    pub(super) own: &'c [u32],
}

impl Class<'_> {
    /// Whether the line matches.
    pub(super) fn contains(self, line: u32) -> bool {
        if self.everywhere.contains(line as usize) {
            self.own.binary_search(&(line | WITHOUT)).is_err()
        } else {
            self.own.binary_search(&line).is_ok()
        }
    }

    /// The lines in this and another class, in terms of the lines that are
    /// everywhere in both.
    pub(super) fn intersection(self, other: Self, list: &mut Vec<u32>) {
        list.clear();
        for (one, two) in [(self, other), (other, self)] {
            for &line in one.own {
                let line = line & !WITHOUT;
                let everywhere = (
                    one.everywhere.contains(line as usize),
                    two.everywhere.contains(line as usize),
                );
                match everywhere {
                    // It is here, by its own right, and there.
                    (false, _) if two.contains(line) => list.push(line),
                    (true, true) => list.push(line | WITHOUT),
                    _ => {}
                }
            }
        }
        list.sort_unstable();
        list.dedup();
    }
}

/// The lines that may match packets of a pair class and an L4 class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'c> {
    lines: &'c Lines<'c>,
    /// See [`Class::own`], of the pair.
    own: &'c [u32],
    /// The lines that are everywhere, so far as the L4 class does not exclude
    /// them.
    common: &'c [u32],
    l4: &'c l4::Class,
}

impl<'c> Cell<'c> {
    /// `common` is [`common`] of the same L4 class.
    pub(super) fn new(
        lines: &'c Lines<'c>,
        own: &'c [u32],
        common: &'c [u32],
        l4: &'c l4::Class,
    ) -> Self {
        Self {
            lines,
            own,
            common,
            l4,
        }
    }

    /// The first line from `start` on that matches or can't be decided.
    pub(super) fn next(self, start: usize) -> Option<usize> {
        let from = |list: &'c [u32]| {
            let begins = list.partition_point(|&line| (line as usize) < start);
            list[begins..].iter().copied()
        };
        let own = from(self.own).find(|&line| line < WITHOUT && self.l4_may_match(line));
        let common =
            from(self.common).find(|&line| self.own.binary_search(&(line | WITHOUT)).is_err());
        own.into_iter()
            .chain(common)
            .min()
            .map(|line| line as usize)
    }

    /// Whether the line matches.
    pub(super) fn matches(self, line: usize) -> bool {
        let number = line as u32;
        self.l4.matching.contains(self.lines.condition(line))
            && (self.own.binary_search(&number).is_ok()
                || self.common.binary_search(&number).is_ok()
                    && self.own.binary_search(&(number | WITHOUT)).is_err())
    }

    fn l4_may_match(self, line: u32) -> bool {
        may_match(self.lines, self.l4, line as usize)
    }
}

fn may_match(lines: &Lines<'_>, l4: &l4::Class, line: usize) -> bool {
    let condition = lines.condition(line);
    l4.matching.contains(condition) || l4.undecidable.contains(condition)
}

/// The lines of `everywhere` that an L4 class does not exclude.
pub(super) fn common(lines: &Lines<'_>, everywhere: &Bits, l4: &l4::Class) -> Vec<u32> {
    everywhere
        .iter()
        .filter(|&line| may_match(lines, l4, line))
        .map(|line| line as u32)
        .collect()
}
