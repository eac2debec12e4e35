//! The image's one array of words, filled from the front.

use filter_common::abi::PAGE_WORDS;

use super::CompileError;

/// Words so far, and how many there may be.
#[derive(Debug)]
pub(super) struct Words {
    words: Vec<u32>,
    budget: u64,
}

impl Words {
    /// None yet, of at most `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            words: Vec::new(),
            budget,
        }
    }

    /// Room for `count` zero words; the index of the first.
    pub(super) fn reserve(&mut self, count: u64) -> Result<u32, CompileError> {
        let start = self.words.len() as u64;
        let needed = (start + count) * 4;
        // Indices are 32 bits, and the highest is no index.
        if needed > self.budget || start + count >= u64::from(u32::MAX) {
            return Err(CompileError::TooLarge {
                needed,
                budget: self.budget,
            });
        }
        self.words.resize((start + count) as usize, 0);
        Ok(start as u32)
    }

    /// Room for `count` pages; the number of the first.
    pub(super) fn reserve_pages(&mut self, count: u64) -> Result<u32, CompileError> {
        let page = PAGE_WORDS as u64;
        let padding = (page - self.words.len() as u64 % page) % page;
        let start = self.reserve(padding + count * page)?;
        Ok(((u64::from(start) + padding) / page) as u32)
    }

    /// Sets a word.
    pub(super) fn set(&mut self, index: u32, word: u32) {
        self.words[index as usize] = word;
    }

    /// Sets the low (`half` 0) or high (1) half of a word.
    pub(super) fn set_half(&mut self, index: u32, half: u32, value: u16) {
        let word = &mut self.words[index as usize];
        let shift = half * 16;
        *word = *word & !(0xffff << shift) | u32::from(value) << shift;
    }

    /// All words, padded to whole pages.
    pub(super) fn finish(mut self) -> Vec<u32> {
        self.words
            .resize(self.words.len().next_multiple_of(PAGE_WORDS), 0);
        self.words
    }
}
