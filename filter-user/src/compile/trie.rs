//! Writes the trie that gives each IPv6 address its class.
//!
//! Memory follows the number of boundaries, not how far they are apart: about
//! 13 bytes for each where they are many.

use std::cmp::Ordering;
use std::mem;

use filter_common::abi::{
    BRANCH, LOW, Lanes, NARROW_BOUNDARIES, NODE_WORDS, NONE, PLACE_WORDS, POINTER, ROOT_WORDS,
    Root, WIDE, WIDE_BOUNDARIES, forms,
};

use super::CompileError;
use super::words::Words;

/// From a value on, until the next segment: this class. Values are aligned to the
/// top of 64 bits, those of more bits to the top of 128 ([`Long`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<V = u64> {
    pub(super) first: V,
    pub(super) class: u32,
}

/// A value of 128 bits. In two halves it is aligned as they are, so that two
/// million segments take a quarter less memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Long {
    high: u64,
    low: u64,
}

impl Long {
    /// The value as one number.
    pub(super) fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl From<u128> for Long {
    fn from(bits: u128) -> Self {
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

// As one number, which takes no branch: a million of them are sorted.
impl Ord for Long {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bits().cmp(&other.bits())
    }
}

impl PartialOrd for Long {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Segments from which on the first 16 bits have a table of their own (256 KiB).
const ROOT_FROM: usize = 512;
/// Ways of a wide branch.
const WAYS: usize = WIDE_BOUNDARIES + 1;
/// Segments of a block that two levels of branches hold, rather than a node
/// (1 KiB).
const BRANCHED: usize = WAYS * WAYS;
/// The same where a node would have but one way with boundaries.
const LONE_BRANCHED: usize = BRANCHED * WAYS;

/// Writes the trie. `segments` covers all addresses, in order, neighbours of
/// different classes.
///
/// Classes are written as multiples of `unit`.
pub(super) fn write(
    segments: &[Segment<Long>],
    unit: u32,
    words: &mut Words,
) -> Result<Root, CompileError> {
    let (steps, lows) = high_steps(segments);
    let writer = Writer {
        segments,
        lows: &lows,
        low_steps: Vec::new(),
        unit,
        words,
        level: 0,
        levels: 0,
        forms: 0,
    };
    writer.write(&steps)
}

/// Beside the class of a step of 64 bits: it is no class, the low halves decide;
/// and the number of the [`Low`] that says how.
const DECIDED_LOW: u32 = POINTER;

/// The low halves decide: `count` segments from this one on.
#[derive(Clone, Copy, Debug)]
struct Low {
    segment: u32,
    count: u32,
}

/// The steps of the high halves.
fn high_steps(segments: &[Segment<Long>]) -> (Vec<Segment>, Vec<Low>) {
    let mut steps = Vec::with_capacity(segments.len());
    let mut lows = Vec::new();
    let mut index = 0;
    while let Some(segment) = segments.get(index) {
        let first = segment.first.high;
        // Segments that begin inside the addresses of one high half.
        let inside = segments[index..]
            .iter()
            .position(|next| next.first.high != first)
            .unwrap_or(segments.len() - index);
        let last = &segments[index + inside - 1];
        if segment.first.low == 0 && inside == 1 {
            steps.push(Segment {
                first,
                class: segment.class,
            });
        } else {
            // Where none begins with the half, the one before reaches into it.
            let reaching = usize::from(segment.first.low != 0);
            steps.push(Segment {
                first,
                class: DECIDED_LOW | lows.len() as u32,
            });
            lows.push(Low {
                segment: (index - reaching) as u32,
                count: (inside + reaching) as u32,
            });
            let next = segments.get(index + inside).map(|next| next.first);
            if let Some(behind) = first.checked_add(1)
                && next
                    != Some(Long {
                        high: behind,
                        low: 0,
                    })
            {
                steps.push(Segment {
                    first: behind,
                    class: last.class,
                });
            }
        }
        index += inside;
    }
    (steps, lows)
}

struct Writer<'s> {
    /// Those of 128 bits.
    segments: &'s [Segment<Long>],
    lows: &'s [Low],
    /// Room for the steps of one of the lows, none of which leads to another.
    low_steps: Vec<Segment>,
    unit: u32,
    words: &'s mut Words,
    /// Nodes and branches above what is being written.
    level: u32,
    /// Nodes and branches on the longest way so far.
    levels: u32,
    /// Which of them there are.
    forms: u32,
}

impl Writer<'_> {
    /// Writes the trie of these steps.
    fn write(mut self, steps: &[Segment]) -> Result<Root, CompileError> {
        let (table, entry) = if steps.len() <= ROOT_FROM {
            (NONE, self.block(steps, 0)?)
        } else {
            let table = self.words.reserve_root()?;
            self.fill(table, ROOT_WORDS, steps, 16)?;
            (table, 0)
        };
        Ok(Root {
            table,
            entry,
            levels: self.levels,
            forms: self.forms,
            lanes: Lanes::default(),
        })
    }

    /// The entry for the values of a block, of which `depth` bits are known. The
    /// first step begins at or before the block, the others in it.
    fn block(&mut self, steps: &[Segment], depth: u32) -> Result<u32, CompileError> {
        let one_way = || {
            let way = |step: &Segment| step.first << depth >> 56;
            // The first step may begin before the block.
            way(&steps[1]) == way(&steps[steps.len() - 1]) && steps[1].first << depth << 8 != 0
        };
        match steps.len() {
            1 => self.target(steps[0].class),
            count if count <= Self::branched(depth) => self.branch(steps, depth),
            count if count <= LONE_BRANCHED && one_way() => self.branch(steps, depth),
            _ => {
                let place = self.words.reserve_node()?;
                self.begin(forms::NODE);
                self.fill(place * PLACE_WORDS, NODE_WORDS, steps, depth + 8)?;
                self.level -= 1;
                Ok(POINTER | place)
            }
        }
    }

    /// Begins one level more, of this form.
    fn begin(&mut self, form: u32) {
        self.level += 1;
        self.levels = self.levels.max(self.level);
        self.forms |= form;
    }

    /// Segments of a block that branches hold, rather than a node: it is faster,
    /// so it is taken where there are few of its kind.
    const fn branched(depth: u32) -> usize {
        match depth {
            0 => WAYS,
            _ => BRANCHED,
        }
    }

    /// Writes `count` entries from the word `start` on: those of all blocks of
    /// which `depth` bits are known.
    fn fill(
        &mut self,
        start: u32,
        count: u32,
        mut steps: &[Segment],
        depth: u32,
    ) -> Result<(), CompileError> {
        let bits = count.trailing_zeros();
        let outer = depth - bits;
        // All steps but the first are in the outer block.
        let base = match (outer, steps.get(1)) {
            (1.., Some(step)) => step.first >> (64 - outer) << (64 - outer),
            _ => 0,
        };
        for entry in 0..count {
            let first = base | u64::from(entry) << (64 - depth);
            let last = first | u64::MAX.checked_shr(depth).unwrap_or(0);
            while steps.get(1).is_some_and(|next| next.first <= first) {
                steps = &steps[1..];
            }
            let inside = steps[1..].iter().take_while(|step| step.first <= last);
            let count = 1 + inside.count();
            let word = self.block(&steps[..count], depth)?;
            self.words.set(start + entry, word);
        }
        Ok(())
    }

    /// Where a step leads.
    fn target(&mut self, class: u32) -> Result<u32, CompileError> {
        if class & DECIDED_LOW == 0 {
            return Ok(class * self.unit);
        }
        let Low { segment, count } = self.lows[(class & !DECIDED_LOW) as usize];
        let segments = &self.segments[segment as usize..][..count as usize];
        let mut steps = mem::take(&mut self.low_steps);
        steps.clear();
        steps.extend(segments.iter().enumerate().map(|(index, segment)| Segment {
            first: if index == 0 { 0 } else { segment.first.low },
            class: segment.class,
        }));
        self.forms |= forms::LOW;
        let entry = self.block(&steps, 0)?;
        self.low_steps = steps;
        Ok(entry | LOW)
    }

    /// Writes branches for more than one step: the values of a block are
    /// compared without the `depth` bits that are known.
    fn branch(&mut self, steps: &[Segment], depth: u32) -> Result<u32, CompileError> {
        let (kind, place, boundaries) = if steps.len() <= NARROW_BOUNDARIES + 1 {
            self.begin(forms::NARROW);
            (0, self.words.reserve_half_line()?, NARROW_BOUNDARIES)
        } else {
            self.begin(forms::WIDE);
            (WIDE, self.words.reserve_line()?, WIDE_BOUNDARIES)
        };
        let ways = boundaries + 1;
        let mut each = 1;
        while each * ways < steps.len() {
            each *= WAYS;
        }
        let start = place * PLACE_WORDS;
        let used = steps.len().div_ceil(each);
        for (way, below) in steps.chunks(each).enumerate() {
            let entry = match below {
                [step] => self.target(step.class)?,
                steps => self.branch(steps, depth)?,
            };
            // Boundaries that are above a value of this way; unused ones are, but
            // above a value of all bits set.
            let above = ways - 1 - way;
            let same = if way + 1 == used { 0 } else { above };
            self.words.at(start)[boundaries * 2..][same..=above].fill(entry);
            if way > 0 {
                self.boundary(start, way - 1, below[0].first << depth);
            }
        }
        for unused in used - 1..boundaries {
            self.boundary(start, unused, u64::MAX);
        }
        self.level -= 1;
        Ok(POINTER | BRANCH | kind | place)
    }

    fn boundary(&mut self, start: u32, index: usize, boundary: u64) {
        let words: [u32; 2] = bytemuck::cast(boundary);
        self.words.at(start)[index * 2..][..2].copy_from_slice(&words);
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::{LEVELS_V6, Line};
    use proptest::prelude::*;

    use super::*;

    /// Walks as the kernel does, in the plainest way; the class and the levels
    /// that it took.
    fn look_up(lines: &[Line], root: Root, value: u128) -> (u32, usize) {
        let words: &[u32] = bytemuck::cast_slice(lines);
        let mut key = (value >> 64) as u64;
        let mut entry = root.entry;
        if root.table != NONE {
            entry = words[root.table as usize + (key >> 48) as usize];
            key <<= 16;
        }
        let mut levels = 0;
        while entry & POINTER != 0 {
            levels += 1;
            if entry & LOW != 0 {
                key = value as u64;
            }
            let place = (entry & (LOW - 1)) as usize * PLACE_WORDS as usize;
            if entry & BRANCH == 0 {
                entry = words[place + (key >> 56) as usize];
                key <<= 8;
                continue;
            }
            let boundaries = if entry & WIDE == 0 { 2 } else { 5 };
            let boundary = |at: usize| {
                u64::from(words[place + at * 2]) | u64::from(words[place + at * 2 + 1]) << 32
            };
            let above = (0..boundaries).filter(|&at| boundary(at) > key);
            entry = words[place + boundaries * 2 + above.count()];
        }
        (entry, levels)
    }

    fn check(firsts: &[u128]) {
        let mut firsts = firsts.to_vec();
        firsts.push(0);
        firsts.sort_unstable();
        firsts.dedup();
        let segments: Vec<Segment<Long>> = (0..)
            .zip(&firsts)
            .map(|(class, &first)| Segment {
                first: first.into(),
                class,
            })
            .collect();
        let mut words = Words::new(1 << 32);
        words.reserve(5).expect("within the budget");
        let root = write(&segments, 1, &mut words).expect("within the budget");
        let lines = words.finish();
        for segment in &segments {
            let first = segment.first.bits();
            for value in [first, first.wrapping_sub(1), first.wrapping_add(1)] {
                let expected = segments.iter().rfind(|other| other.first.bits() <= value);
                let (class, levels) = look_up(&lines, root, value);
                assert_eq!(
                    Some(class),
                    expected.map(|other| other.class),
                    "{value:032x}"
                );
                assert!(levels <= LEVELS_V6, "{levels} levels at {value:032x}");
                assert!(
                    levels <= root.levels as usize,
                    "{levels} levels at {value:032x}"
                );
            }
        }
    }

    /// Boundaries that share long prefixes here and there.
    fn clustered() -> impl Strategy<Value = Vec<u128>> {
        let cluster = (
            any::<u128>(),
            0..128_u32,
            prop::collection::vec(any::<u128>(), 1..60),
        );
        let clusters = prop::collection::vec(cluster, 0..6);
        clusters.prop_map(|clusters| {
            let values = clusters.into_iter().flat_map(|(prefix, length, below)| {
                let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                below
                    .into_iter()
                    .map(move |value| prefix & mask | value & !mask)
            });
            values.collect()
        })
    }

    proptest! {
        #[test]
        fn each_value_has_its_class(firsts in clustered()) {
            check(&firsts);
        }
    }

    #[test]
    fn every_number_of_boundaries_around_the_changes_of_form() {
        for count in [0, 1, 2, 3, 4, 5, 6, 34, 35, 36, 37, 214, 215, 216, 217] {
            // Dense at the end, then far apart.
            let dense: Vec<u128> = (1..=count).collect();
            check(&dense);
            let apart: Vec<u128> = (1..=count).map(|index: u128| index << 119).collect();
            check(&apart);
        }
    }

    #[test]
    fn with_a_table_for_the_first_bits() {
        for count in [
            ROOT_FROM as u128 - 2,
            ROOT_FROM as u128 - 1,
            ROOT_FROM as u128,
            20_000,
        ] {
            let spread: Vec<u128> = (1..=count)
                .map(|index: u128| index.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
                .collect();
            check(&spread);
        }
    }

    #[test]
    fn the_longest_way() {
        // Each half line up to the last bit, with many neighbours at each level.
        let mut firsts = Vec::new();
        let base: u128 = 0x2001_0db8_1111_2222_3333_4444_5555_6666;
        for level in 0..16 {
            for sibling in 0..=255_u128 {
                let shift = 120 - level * 8;
                let known = u128::MAX.checked_shl(shift + 8).unwrap_or(0);
                firsts.push(base & known | sibling << shift);
            }
        }
        check(&firsts);
    }
}
