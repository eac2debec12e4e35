//! The image's one array of words, filled from the front.

use filter_common::abi::{LINE_WORDS, Line, MAX_LINES};

use super::CompileError;

const EMPTY: Line = Line([0; LINE_WORDS]);

/// Bytes of the largest image that the kernel takes.
pub(super) const LARGEST: u64 = (MAX_LINES * size_of::<Line>()) as u64;

/// Words so far, and how many there may be.
#[derive(Debug)]
pub(super) struct Words {
    lines: Vec<Line>,
    /// Words in use.
    length: usize,
    budget: u64,
}

impl Words {
    /// None yet, of at most `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            lines: Vec::new(),
            length: 0,
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

    /// Room for `count` lines; the first word of the first one.
    pub(super) fn reserve_lines(&mut self, count: u64) -> Result<u32, CompileError> {
        let padding = self.length.next_multiple_of(LINE_WORDS) - self.length;
        self.reserve(padding as u64)?;
        self.reserve(count * LINE_WORDS as u64)
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
    fn lines_begin_where_cache_lines_do() {
        let mut words = Words::new(1 << 20);
        assert_eq!(words.reserve(3), Ok(0));
        assert_eq!(words.reserve_lines(2), Ok(16));
        assert_eq!(words.reserve(1), Ok(48));
        assert_eq!(words.reserve_lines(1), Ok(64));
        assert_eq!(words.finish().len(), 5);
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
