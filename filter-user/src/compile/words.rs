//! The image's one array of words, filled from the front.

use filter_common::abi::{self, LINE_WORDS, Line, MAX_LINES, NODE_WORDS, PLACE_WORDS};

use super::CompileError;

const HALF_LINE: usize = PLACE_WORDS as usize;
const EMPTY: Line = Line([0; LINE_WORDS]);

/// Bytes of the largest image that the kernel takes.
pub(super) const LARGEST: u64 = (MAX_LINES * size_of::<Line>()) as u64;

/// Words so far, and how many there may be.
#[derive(Debug)]
pub(super) struct Words {
    lines: Vec<Line>,
    /// Words in use.
    length: usize,
    /// The place of a half line that alignment has left.
    spare: Option<u32>,
    budget: u64,
}

impl Words {
    /// None yet, of at most `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            lines: Vec::new(),
            length: 0,
            spare: None,
            budget: budget.min(LARGEST),
        }
    }

    /// Room for `count` zero words; the index of the first.
    pub(super) fn reserve(&mut self, count: u64) -> Result<u32, CompileError> {
        let start = self.length as u64;
        self.check(count)?;
        self.length += count as usize;
        self.lines.resize(self.length.div_ceil(LINE_WORDS), EMPTY);
        Ok(start as u32)
    }

    /// Checks that `count` words more would be in the budget.
    pub(super) fn check(&self, count: u64) -> Result<(), CompileError> {
        let end = self.length as u64 + count;
        if end * 4 > self.budget {
            return Err(CompileError::TooLarge {
                needed: end * 4,
                budget: self.budget,
            });
        }
        Ok(())
    }

    /// Room for these words, which are put there; the index of the first.
    pub(super) fn reserve_all(&mut self, all: &[u32]) -> Result<u32, CompileError> {
        let start = self.reserve(all.len() as u64)?;
        self.at(start)[..all.len()].copy_from_slice(all);
        Ok(start)
    }

    /// The same, from the beginning of a line on.
    pub(super) fn reserve_lines_of(&mut self, all: &[u32]) -> Result<u32, CompileError> {
        let start = self.reserve_lines(all.len().div_ceil(LINE_WORDS) as u64)?;
        self.at(start)[..all.len()].copy_from_slice(all);
        Ok(start)
    }

    /// The next word to reserve is the first of a multiple of `unit`.
    fn align(&mut self, unit: usize) -> Result<(), CompileError> {
        let padding = self.length.next_multiple_of(unit) - self.length;
        if unit == LINE_WORDS && padding >= HALF_LINE {
            let half = self.length.next_multiple_of(HALF_LINE);
            self.spare = Some((half / HALF_LINE) as u32);
        }
        self.reserve(padding as u64).map(drop)
    }

    /// Room for a trie's root, from the beginning of a line on.
    pub(super) fn reserve_root(&mut self) -> Result<u32, CompileError> {
        self.align(LINE_WORDS)?;
        self.reserve(u64::from(abi::ROOT_WORDS))
    }

    /// Room for a node of a trie; its place.
    pub(super) fn reserve_node(&mut self) -> Result<u32, CompileError> {
        self.align(LINE_WORDS)?;
        Ok(self.reserve(u64::from(NODE_WORDS))? / PLACE_WORDS)
    }

    /// Room for `count` lines; the first word of the first one.
    pub(super) fn reserve_lines(&mut self, count: u64) -> Result<u32, CompileError> {
        self.align(LINE_WORDS)?;
        self.reserve(count * LINE_WORDS as u64)
    }

    /// Room for a wide branch; its place.
    pub(super) fn reserve_line(&mut self) -> Result<u32, CompileError> {
        self.align(LINE_WORDS)?;
        Ok(self.reserve(LINE_WORDS as u64)? / PLACE_WORDS)
    }

    /// Room for a narrow branch; its place.
    pub(super) fn reserve_half_line(&mut self) -> Result<u32, CompileError> {
        if let Some(place) = self.spare.take() {
            return Ok(place);
        }
        self.align(HALF_LINE)?;
        Ok(self.reserve(HALF_LINE as u64)? / PLACE_WORDS)
    }

    /// The words from `start` on.
    pub(super) fn at(&mut self, start: u32) -> &mut [u32] {
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut self.lines);
        &mut words[start as usize..]
    }

    /// Sets a word.
    pub(super) fn set(&mut self, index: u32, word: u32) {
        let line = &mut self.lines[index as usize / LINE_WORDS];
        line.0[index as usize % LINE_WORDS] = word;
    }

    /// All words, padded to whole lines.
    pub(super) fn finish(self) -> Vec<Line> {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_branches_fill_what_alignment_leaves() {
        let mut words = Words::new(1 << 20);
        assert_eq!(words.reserve(3), Ok(0));
        assert_eq!(words.reserve_line(), Ok(2));
        assert_eq!(words.reserve_half_line(), Ok(1));
        assert_eq!(words.reserve_half_line(), Ok(4));
        assert_eq!(words.reserve_half_line(), Ok(5));
        assert_eq!(words.reserve_node(), Ok(6));
        assert_eq!(words.reserve(1), Ok(6 * 8 + 256));
        assert_eq!(words.finish().len(), 20);
    }

    #[test]
    fn the_budget_is_kept_to_the_byte() {
        let mut words = Words::new(64);
        assert_eq!(words.reserve(16), Ok(0));
        assert_eq!(
            words.reserve(1),
            Err(CompileError::TooLarge {
                needed: 68,
                budget: 64
            })
        );
        assert_eq!(words.reserve(0), Ok(16));
    }
}
