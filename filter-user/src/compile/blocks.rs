//! The segments behind each entry of a trie's table, and what tables of different
//! sizes would cost.

use filter_common::abi::LINE_WORDS;

use super::segment::Segment;

/// Classes that are all that is behind some entries, up to which each of them gets a
/// line all the same: all entries then lead on, which is a jump less that can't be
/// foreseen.
pub(super) const CERTAIN: usize = 64;

/// The blocks of a table's entries, in turn: the first segment begins at or before
/// the block, the others in it.
pub(super) struct Blocks<'s> {
    segments: &'s [Segment],
    /// The first value of the next block.
    first: u64,
    /// Blocks that are left.
    left: u64,
    shift: u32,
}

impl<'s> Blocks<'s> {
    /// `count` blocks of 2^`shift` values each, from `base` on.
    pub(super) fn of(segments: &'s [Segment], base: u64, shift: u32, count: u64) -> Self {
        Self {
            segments,
            first: base,
            left: count,
            shift,
        }
    }
}

impl<'s> Iterator for Blocks<'s> {
    type Item = &'s [Segment];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (first, last) = (self.first, self.first | ((1 << self.shift) - 1));
        // Of no block where it was the last one of all values.
        self.first = last.wrapping_add(1);
        let begun = self.segments[1..]
            .iter()
            .take_while(|segment| segment.first <= first);
        self.segments = &self.segments[begun.count()..];
        let inside = self.segments[1..]
            .iter()
            .take_while(|segment| segment.first <= last);
        Some(&self.segments[..=inside.count()])
    }
}

/// A table with lines behind it, or the lines alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Whether there is no table, but a row of lines, one for each entry.
    pub(super) direct: bool,
    /// Whether such a line is a pair, which leads over further lines by one more.
    pub(super) pairs: bool,
    /// Bits of 64 that an entry leaves.
    pub(super) shift: u32,
    /// How many entries there are.
    pub(super) entries: u64,
    /// Segments that a line without lines behind it holds.
    pub(super) leaf: usize,
    /// Segments that one with lines behind it holds, at least.
    pub(super) branch: usize,
}

impl Form {
    /// About what random values cost, in ps, and the bytes that it takes.
    pub(super) fn cost(self, segments: &[Segment]) -> (u64, u64) {
        const WINDOWS: usize = 32;
        const WINDOW: usize = 2_048;
        let mut found = Found::default();
        // Of many segments a part tells enough.
        if segments.len() <= WINDOWS * WINDOW {
            found.look(self, segments);
        } else {
            for window in 0..WINDOWS {
                let start = (segments.len() - WINDOW) / (WINDOWS - 1) * window;
                found.look(self, &segments[start..start + WINDOW]);
            }
        }
        let all = segments.len() as u64;
        let looked_at = all.min((WINDOWS * WINDOW) as u64);
        let behind = found.lines * all / looked_at;
        let (table, lines) = if self.direct {
            (0, self.entries + behind)
        } else {
            (self.entries * 4, behind)
        };
        let lines = lines * LINE_WORDS as u64 * 4;
        let line = access(lines);
        let further = found.further * (line + MISPREDICTED) / looked_at;
        let first = if self.direct {
            line
        } else {
            access(table) + line
        };
        (first + further, table + lines)
    }
}

/// What was found of a form.
#[derive(Default)]
struct Found {
    lines: u64,
    /// Lines behind the first one, once for each boundary that leads there.
    further: u64,
}

impl Found {
    fn look(&mut self, form: Form, segments: &[Segment]) {
        let inside = |segment: &&Segment| segment.first & ((1 << form.shift) - 1) != 0;
        let block = |segment: &Segment| segment.first >> form.shift;
        for block in segments.chunk_by(|one, two| block(one) == block(two)) {
            let boundaries = block.iter().filter(inside).count();
            if boundaries == 0 {
                continue;
            }
            let mut lines = (boundaries + 1).div_ceil(form.leaf);
            let one_more = form.direct && form.pairs && lines > 1;
            self.lines += lines as u64 + u64::from(one_more) - u64::from(form.direct);
            self.further += u64::from(one_more) * boundaries as u64;
            while lines > 1 {
                lines = lines.div_ceil(form.branch);
                self.lines += lines as u64;
                self.further += boundaries as u64;
            }
        }
    }
}

/// A jump that was not foreseen, in ps.
const MISPREDICTED: u64 = 6_000;

/// An access at random to so many bytes of a BPF array, in ps, about (AMD EPYC, 1 MiB
/// of L2, pages of 4 KiB): how a form is chosen, not what is promised.
const fn access(bytes: u64) -> u64 {
    match bytes >> 10 {
        0..=24 => 1_500,
        25..=128 => 3_000,
        129..=384 => 4_000,
        385..=768 => 5_500,
        769..=1_536 => 9_000,
        1_537..=4_096 => 16_000,
        4_097..=16_384 => 28_000,
        16_385..=65_536 => 50_000,
        _ => 80_000,
    }
}
