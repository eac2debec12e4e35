//! Writes the trie that gives each IPv6 address its class: a table over the part of
//! the address space that has boundaries, and lines of boundaries.
//!
//! Addresses are their first 64 bits, and where those leave it open the other 64.

use std::collections::BTreeSet;
use std::{iter, mem};

use filter_common::abi::trie::{BRANCH_BOUNDARIES, BRANCH_ENTRIES, PAIR_BOUNDARIES, PAIR_ENTRIES};
use filter_common::abi::{
    LEVELS_V6, LINE_WORDS, LOW, Lanes, NONE, PAIR, POINTER, Range, Root, forms,
};
use hashbrown::HashMap;

use super::CompileError;
use super::blocks::{Blocks, CERTAIN, Form};
use super::segment::{Long, Segment};
use super::words::Words;

/// Bits that an entry of the table leaves, where the table can't leave out what no
/// boundary is in.
const SHIFT_OF_ALL: u32 = u64::BITS - 18;
/// Entries of the table at most: 4 MiB.
const MAX_ENTRIES: u64 = 1 << 20;
/// Lines of a row at most: 8 MiB.
const MAX_DIRECT: u64 = 1 << 17;
/// Segments that a branch holds.
const BRANCH: usize = BRANCH_BOUNDARIES + 1;
/// Segments that a pair holds.
const TWO: usize = PAIR_BOUNDARIES + 1;

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
    let mut writer = Writer {
        segments,
        lows: &lows,
        low_steps: Vec::new(),
        two: segments
            .iter()
            .zip(segments.iter().skip(2))
            .all(|(one, two)| one.class == two.class),
        in_low: false,
        unit,
        words,
        level: 0,
        levels: 0,
        forms: 0,
    };
    let leaf = writer.leaf_segments();
    let (table, range, entry) = if steps.len() <= leaf {
        (NONE, Range::default(), writer.block(&steps)?)
    } else {
        let reach = Reach::choose(&steps, leaf, writer.pairs());
        let range = Range {
            base: reach.base as u32,
            base_high: (reach.base >> 32) as u32,
            shift: reach.shift,
            last: reach.entries as u32,
        };
        if reach.direct {
            (NONE, range, writer.row(&steps, reach)?)
        } else {
            (writer.table(&steps, reach)?, range, 0)
        }
    };
    if writer.levels as usize > LEVELS_V6 {
        return Err(CompileError::TooDeep);
    }
    Ok(Root {
        table,
        entry,
        levels: writer.levels,
        forms: writer.forms,
        lanes: Lanes::default(),
        range,
    })
}

/// What a table has entries for, or a row lines, but for a last one of all other
/// addresses.
#[derive(Clone, Copy, Debug)]
struct Reach {
    base: u64,
    shift: u32,
    entries: u64,
    /// Whether it is a row of lines.
    direct: bool,
}

impl Reach {
    /// The best one, by an estimate of what random addresses cost.
    fn choose(steps: &[Segment], leaf: usize, pairs: bool) -> Self {
        let outside = [&steps[0], &steps[steps.len() - 1]].map(|step| step.class);
        // Where what is before the first boundary and behind the last one differs,
        // all addresses need an entry of their own.
        if outside[0] != outside[1] || outside[0] & DECIDED_LOW != 0 {
            return Self {
                base: 0,
                shift: SHIFT_OF_ALL,
                entries: 1 << (u64::BITS - SHIFT_OF_ALL),
                direct: false,
            };
        }
        let (first, last) = (steps[1].first, steps[steps.len() - 1].first);
        let reach = |shift: u32, direct| {
            let base = first >> shift << shift;
            Self {
                base,
                shift,
                entries: ((last - base) >> shift) + 1,
                direct,
            }
        };
        let cost = |reach: &Self| {
            let form = Form {
                shift: reach.shift,
                entries: reach.entries,
                leaf,
                branch: BRANCH,
                direct: reach.direct,
                pairs,
            };
            form.cost(steps)
        };
        // More entries than boundaries would mostly be for none.
        let most = (steps.len() as u64 * 2).clamp(64, MAX_ENTRIES);
        let shifts = 1..u64::BITS - 1;
        let rows = shifts.clone().map(|shift| reach(shift, true));
        let tables = shifts.map(|shift| reach(shift, false));
        rows.filter(|reach| reach.entries <= most.min(MAX_DIRECT))
            .chain(tables.filter(|reach| reach.entries <= most))
            .min_by_key(cost)
            .unwrap_or(reach(u64::BITS - 2, false))
    }
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
    /// Whether there are but two classes, which take turns.
    two: bool,
    /// Whether the low halves are being written.
    in_low: bool,
    unit: u32,
    words: &'s mut Words,
    /// Lines above what is being written.
    level: u32,
    /// Lines on the longest way so far.
    levels: u32,
    /// Which of them there are, and what else there is to know.
    forms: u32,
}

impl Writer<'_> {
    /// Whether lines without lines behind them are pairs. All of a half are, or none
    /// is, so that it is no question where it is but one.
    fn pairs(&self) -> bool {
        self.two && (self.in_low || self.lows.is_empty())
    }

    /// Segments that a line without lines behind it holds.
    fn leaf_segments(&self) -> usize {
        if self.pairs() { TWO } else { BRANCH }
    }

    /// Writes the table and all behind it; its first word.
    fn table(&mut self, steps: &[Segment], reach: Reach) -> Result<u32, CompileError> {
        let lines = (reach.entries + 1).div_ceil(LINE_WORDS as u64);
        let table = self.words.reserve_lines(lines)?;
        let blocks = || Blocks::of(steps, reach.base, reach.shift, reach.entries);
        let alone = self.alone(blocks(), steps[0].class)?;
        let entry = |writer: &mut Self, block: &[Segment]| match block {
            [one] if alone.contains_key(&one.class) => Ok(alone[&one.class]),
            block => writer.block(block),
        };
        for (word, block) in (table..).zip(blocks()) {
            let entry = entry(self, block)?;
            self.words.set(word, entry);
        }
        let outside = entry(self, &steps[..1])?;
        self.words.set(table + reach.entries as u32, outside);
        Ok(table)
    }

    /// Writes a row of lines and all behind it; the entry of the first.
    fn row(&mut self, steps: &[Segment], reach: Reach) -> Result<u32, CompileError> {
        self.forms |= forms::DIRECT;
        let start = self.words.reserve_lines(reach.entries + 1)?;
        let blocks = Blocks::of(steps, reach.base, reach.shift, reach.entries);
        let mut first = 0;
        let lines = (start..).step_by(LINE_WORDS);
        for (line, block) in lines.zip(blocks.chain([&steps[..1]])) {
            let entry = self.line(block, line)?;
            if line == start {
                first = entry;
            }
        }
        Ok(first)
    }

    /// Writes a line of the row; its entry.
    fn line(&mut self, block: &[Segment], start: u32) -> Result<u32, CompileError> {
        let leaf = self.leaf_segments();
        if !self.pairs() {
            let each = if block.len() <= leaf {
                1
            } else {
                Self::each(leaf, block.len())
            };
            return self.branch_at(block, each, start);
        }
        if block.len() <= leaf {
            return Ok(self.pair_at(block, start));
        }
        // A pair without boundaries, whose entries lead on.
        self.begin(forms::PAIR);
        let further = self.block(block)?;
        self.level -= 1;
        Ok(self.pair_of(&[], [further; 2], start))
    }

    /// Steps that each way of a branch over this many has.
    fn each(leaf: usize, steps: usize) -> usize {
        let mut each = leaf;
        while each * BRANCH < steps {
            each *= BRANCH;
        }
        each
    }

    /// The lines of the classes that entries are no more than, if they shall have
    /// some: then all entries lead on.
    fn alone(
        &mut self,
        blocks: Blocks<'_>,
        outside: u32,
    ) -> Result<HashMap<u32, u32>, CompileError> {
        let mut classes = BTreeSet::from([outside]);
        let mut leads_on = false;
        for block in blocks {
            match block {
                [one] => {
                    classes.insert(one.class);
                }
                _ => leads_on = true,
            }
            if classes.len() > CERTAIN {
                return Ok(HashMap::new());
            }
        }
        if !leads_on {
            return Ok(HashMap::new());
        }
        self.forms |= forms::CERTAIN;
        // Those that the low halves decide lead on by themselves.
        let classes = classes.into_iter().filter(|class| class & DECIDED_LOW == 0);
        let lines = classes.map(|class| Ok((class, self.leaf(&[Segment { first: 0, class }])?)));
        lines.collect()
    }

    /// The entry for the values of a block. The first step begins at or before it,
    /// the others in it.
    fn block(&mut self, steps: &[Segment]) -> Result<u32, CompileError> {
        let leaf = self.leaf_segments();
        match steps {
            [one] => self.target(one.class),
            steps if steps.len() <= leaf => self.leaf(steps),
            steps => self.branch(steps, Self::each(leaf, steps.len())),
        }
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
        self.in_low = true;
        let entry = self.block(&steps);
        self.in_low = false;
        self.low_steps = steps;
        Ok(entry? | LOW)
    }

    /// A line with nothing behind it but low halves.
    fn leaf(&mut self, steps: &[Segment]) -> Result<u32, CompileError> {
        if !self.pairs() {
            return self.branch(steps, 1);
        }
        let start = self.words.reserve_lines(1)?;
        Ok(self.pair_at(steps, start))
    }

    fn pair_at(&mut self, steps: &[Segment], start: u32) -> u32 {
        self.begin(forms::PAIR);
        self.level -= 1;
        let used = steps.len() - 1;
        let entry = |above: usize| steps[(used + above) % 2 % steps.len()].class * self.unit;
        let entries = [entry(0), entry(1)];
        self.pair_of(&steps[1..], entries, start)
    }

    /// Writes a pair with these boundaries; what leads to it.
    fn pair_of(&mut self, steps: &[Segment], entries: [u32; 2], start: u32) -> u32 {
        // Unused boundaries are above all values but the last one: where their number
        // is odd, one of them is put below all.
        let below = (PAIR_BOUNDARIES - steps.len()) % 2;
        let boundaries = (0..below).map(|_| 0);
        let boundaries = boundaries.chain(steps.iter().map(|step| step.first));
        self.boundaries(start, PAIR_BOUNDARIES, boundaries);
        self.words.at(start)[PAIR_ENTRIES..][..2].copy_from_slice(&entries);
        POINTER | PAIR | (start / LINE_WORDS as u32)
    }

    /// A line with a way for each so many steps.
    fn branch(&mut self, steps: &[Segment], each: usize) -> Result<u32, CompileError> {
        let start = self.words.reserve_lines(1)?;
        self.branch_at(steps, each, start)
    }

    fn branch_at(
        &mut self,
        steps: &[Segment],
        each: usize,
        start: u32,
    ) -> Result<u32, CompileError> {
        self.begin(forms::BRANCH);
        let used = steps.len().div_ceil(each);
        for (way, below) in steps.chunks(each).enumerate() {
            let entry = self.block(below)?;
            // Boundaries that are above a value of this way; unused ones are, but
            // above a value of all bits set.
            let above = BRANCH - 1 - way;
            let same = if way + 1 == used { 0 } else { above };
            self.words.at(start)[BRANCH_ENTRIES..][same..=above].fill(entry);
        }
        let firsts = steps.chunks(each).skip(1).map(|way| way[0].first);
        self.boundaries(start, BRANCH_BOUNDARIES, firsts);
        self.level -= 1;
        Ok(POINTER | (start / LINE_WORDS as u32))
    }

    /// Begins one level more, of this form.
    fn begin(&mut self, form: u32) {
        self.level += 1;
        self.levels = self.levels.max(self.level);
        self.forms |= form;
    }

    fn boundaries(&mut self, start: u32, count: usize, firsts: impl Iterator<Item = u64>) {
        let firsts = firsts.chain(iter::repeat(u64::MAX)).take(count);
        for (room, first) in self.words.at(start).chunks_exact_mut(2).zip(firsts) {
            let words: [u32; 2] = bytemuck::cast(first);
            room.copy_from_slice(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::{Line, PLACE};
    use proptest::prelude::*;

    use super::*;

    /// Walks as the kernel does, in the plainest way; the class and the levels
    /// that it took.
    fn look_up(lines: &[Line], root: Root, value: u128) -> (u32, usize) {
        let words: &[u32] = bytemuck::cast_slice(lines);
        let mut key = (value >> 64) as u64;
        let place = || {
            let base = u64::from(root.range.base_high) << 32 | u64::from(root.range.base);
            key.checked_sub(base)
                .map(|distance| distance >> root.range.shift)
                .filter(|&place| place < u64::from(root.range.last))
                .unwrap_or(root.range.last.into()) as u32
        };
        let mut entry = match root.table {
            NONE if root.forms & forms::DIRECT != 0 => root.entry + place(),
            NONE => root.entry,
            table => words[(table + place()) as usize],
        };
        let mut levels = 0;
        while entry & POINTER != 0 {
            levels += 1;
            if entry & LOW != 0 {
                key = value as u64;
            }
            let line = &lines[(entry & PLACE) as usize].0;
            let boundary = |at: usize| u64::from(line[at * 2]) | u64::from(line[at * 2 + 1]) << 32;
            let above = |count: usize| (0..count).filter(|&at| boundary(at) > key).count();
            entry = if entry & PAIR != 0 {
                line[PAIR_ENTRIES + above(PAIR_BOUNDARIES) % 2]
            } else {
                line[BRANCH_ENTRIES + above(BRANCH_BOUNDARIES)]
            };
        }
        (entry, levels)
    }

    fn check(firsts: &[u128]) {
        check_as(firsts, |index| index);
        check_as(firsts, |index| index % 2);
        check_as(firsts, |index| index % 3);
    }

    fn check_as(firsts: &[u128], class: impl Fn(u32) -> u32) {
        let mut firsts = firsts.to_vec();
        firsts.push(0);
        firsts.sort_unstable();
        firsts.dedup();
        let segments: Vec<Segment<Long>> = (0..)
            .zip(&firsts)
            .map(|(index, &first)| Segment {
                first: first.into(),
                class: class(index),
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
        for count in (0..12).chain([35, 36, 37, 47, 48, 49, 215, 216, 217, 287, 288, 289]) {
            // Dense at the end, then far apart.
            let dense: Vec<u128> = (1..=count).collect();
            check(&dense);
            let apart: Vec<u128> = (1..=count).map(|index: u128| index << 119).collect();
            check(&apart);
        }
    }

    #[test]
    fn with_a_table_for_the_first_bits() {
        for count in [500, 2_000, 20_000] {
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
