//! Writes the classes of values of 16 bits: ports, or ICMP types and codes.
//!
//! Few of the 256 blocks of a dimension have a boundary inside, and all others are
//! alike, so what is looked up at random stays in the fastest cache.

use std::collections::HashMap;

use filter_common::abi::{Table16, WIDTH_BYTE, WIDTH_HALF, WIDTH_WORD};

use super::CompileError;
use super::words::Words;

/// Values of a block, and blocks of a dimension.
const BLOCK: usize = 256;

/// The blocks so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    numbers: HashMap<[u32; BLOCK], u16>,
    /// Their classes.
    classes: Vec<u32>,
}

impl Blocks {
    /// Writes which block each upper byte has, where from each of these values on the
    /// class is another one; the index of the first, in half words.
    pub(super) fn heads(
        &mut self,
        steps: &[(u16, u32)],
        words: &mut Words,
    ) -> Result<u32, CompileError> {
        let start = words.reserve((BLOCK / 2) as u64)?;
        let mut steps = steps.iter().peekable();
        let mut class = 0;
        for upper in 0..BLOCK {
            let mut block = [0; BLOCK];
            for (lower, room) in block.iter_mut().enumerate() {
                let value = upper * BLOCK + lower;
                if let Some((_, next)) = steps.next_if(|(first, _)| usize::from(*first) == value) {
                    class = *next;
                }
                *room = class;
            }
            let number = self.number(&block);
            bytemuck::cast_slice_mut::<_, u16>(words.at(start))[upper] = number;
        }
        Ok(start * 2)
    }

    fn number(&mut self, block: &[u32; BLOCK]) -> u16 {
        // Six protocols have more than one class: not more than 6 x 256 blocks, and
        // one for each class of the others.
        let next = (self.classes.len() / BLOCK) as u16;
        *self.numbers.entry(*block).or_insert_with(|| {
            self.classes.extend(block);
            next
        })
    }

    /// Writes the blocks, of a dimension of so many classes.
    pub(super) fn write(self, classes: usize, words: &mut Words) -> Result<Table16, CompileError> {
        let width = match classes {
            0..=0x100 => WIDTH_BYTE,
            0x101..=0x1_0000 => WIDTH_HALF,
            _ => WIDTH_WORD,
        };
        let in_word = 4 >> width;
        let start = words.reserve((self.classes.len() / in_word) as u64)?;
        let room = words.at(start);
        match width {
            WIDTH_BYTE => put(bytemuck::cast_slice_mut::<_, u8>(room), &self.classes),
            WIDTH_HALF => put(bytemuck::cast_slice_mut::<_, u16>(room), &self.classes),
            _ => put(room, &self.classes),
        }
        Ok(Table16 {
            blocks: start * in_word as u32,
            width,
        })
    }
}

/// Puts numbers where those of their kind are, which hold them.
fn put<N: TryFrom<u32>>(room: &mut [N], numbers: &[u32]) {
    let numbers = numbers.iter().map(|&number| N::try_from(number));
    for (room, number) in room.iter_mut().zip(numbers) {
        if let Ok(number) = number {
            *room = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_blocks_are_written_once() {
        let mut words = Words::new(1 << 20);
        let mut blocks = Blocks::default();
        let ports = [(0, 0), (22, 1), (23, 0), (30_000, 2), (32_768, 0)];
        assert_eq!(blocks.heads(&ports, &mut words), Ok(0));
        assert_eq!(blocks.heads(&[(0, 2)], &mut words), Ok(256));
        // That of 22, all others, that where node ports begin, and theirs alone.
        assert_eq!(blocks.classes.len(), 4 * BLOCK);
        let table = blocks.write(3, &mut words).expect("within the budget");
        assert_eq!(table.width, WIDTH_BYTE);
        let lines = words.finish();
        let (halves, bytes): (&[u16], &[u8]) =
            (bytemuck::cast_slice(&lines), bytemuck::cast_slice(&lines));
        let class = |heads: usize, value: u16| {
            let block = usize::from(halves[heads + usize::from(value >> 8)]);
            bytes[table.blocks as usize + block * BLOCK + usize::from(value & 0xff)]
        };
        for port in 0..=u16::MAX {
            let step = ports.iter().rfind(|(first, _)| *first <= port);
            assert_eq!(step.map(|step| step.1), Some(class(0, port).into()));
            assert_eq!(class(256, port), 2);
        }
    }
}
