//! Writes the trie that gives each IPv4 address its class: a table of the first
//! bits, and lines that are searched in lanes.
//!
//! How many bits the table takes follows from the boundaries: so many that most of
//! what lies behind an entry is one line, and so few that table and lines stay in
//! the fastest cache that can hold them.

use hashbrown::{HashMap, HashSet};

use filter_common::abi::lanes::{
    BRANCH_BOUNDARIES, BRANCH_ENTRIES, BRANCH_WORDS, PAIR_ENTRIES, PAIR_WORDS,
};
use filter_common::abi::{LEVELS_V4, LINE_WORDS, Lanes, NONE, PAIR, POINTER, Range, Root, forms};

use super::CompileError;
use super::blocks::{self, Blocks, CERTAIN};
use super::segment::Segment;
use super::words::Words;

/// Bits that a table takes at most: 4 MiB.
const MAX_BITS: u32 = 20;
/// Bits that a row of lines takes at most: 8 MiB.
const MAX_DIRECT: u32 = 17;

/// Writes the trie. `segments` covers all addresses, in order, neighbours of
/// different classes; addresses are aligned to the top of 64 bits.
///
/// Classes are written as multiples of `unit`.
pub(super) fn write(
    segments: &[Segment],
    unit: u32,
    words: &mut Words,
) -> Result<Root, CompileError> {
    let pairs = segments.len() > 1
        && segments
            .iter()
            .zip(segments.iter().skip(2))
            .all(|(one, two)| one.class == two.class);
    let form = Form::choose(segments, pairs);
    let mut writer = Writer {
        form,
        lanes: Lanes::behind(form.bits),
        unit,
        words,
        level: 0,
        levels: 0,
        forms: 0,
    };
    let (table, entry) = if form.bits == 0 {
        (NONE, writer.block(segments)?)
    } else if form.direct {
        (NONE, writer.row(segments)?)
    } else {
        (writer.table(segments)?, 0)
    };
    Ok(Root {
        table,
        entry,
        levels: writer.levels,
        forms: writer.forms,
        lanes: writer.lanes,
        range: Range::default(),
    })
}

fn address(segment: &Segment) -> u32 {
    (segment.first >> 32) as u32
}

/// What a trie is built of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    /// Bits that the table takes, or the row of lines; 0 where there is neither.
    bits: u32,
    /// Whether it is a row of lines.
    direct: bool,
    /// Whether there are but two classes, which take turns.
    pairs: bool,
}

impl Form {
    /// Segments that a branch holds.
    fn branch(self) -> usize {
        BRANCH_BOUNDARIES.min(BRANCH_WORDS * Lanes::count(self.bits) as usize) + 1
    }

    /// Segments that a line without lines behind it holds.
    fn leaf(self) -> usize {
        if self.pairs {
            PAIR_WORDS * Lanes::count(self.bits) as usize + 1
        } else {
            self.branch()
        }
    }

    /// Segments that each way of a branch over this many has.
    fn each(self, segments: usize) -> usize {
        let mut each = self.leaf();
        while each * self.branch() < segments {
            each *= self.branch();
        }
        each
    }

    /// Whether no entry leads over more lines than the program goes along, wherever
    /// the segments are.
    fn holds(self, segments: usize) -> bool {
        let branches = match self.bits {
            0 => 0,
            // A pair may lead to branches, and has no ways itself.
            _ if self.direct && self.pairs => LEVELS_V4 as u32 - 2,
            _ => LEVELS_V4 as u32 - 1,
        };
        let most = self.leaf() * self.branch().pow(branches);
        // No more addresses lie behind an entry.
        segments.min(1 << (u32::BITS - self.bits)) <= most
    }

    /// The best one, by an estimate of what random addresses cost.
    fn choose(segments: &[Segment], pairs: bool) -> Self {
        let form = |bits, direct| Self {
            bits,
            direct,
            pairs,
        };
        if form(0, false).leaf() >= segments.len() {
            return form(0, false);
        }
        let rows = (1..=MAX_DIRECT).map(|bits| form(bits, true));
        let tables = (1..=MAX_BITS).map(|bits| form(bits, false));
        rows.chain(tables)
            .filter(|form| form.holds(segments.len()))
            .min_by_key(|form| form.cost(segments))
            .unwrap_or(form(MAX_BITS, false))
    }

    /// What it costs (see [`blocks::Form::cost`]).
    fn cost(self, segments: &[Segment]) -> (u64, u64) {
        let form = blocks::Form {
            shift: u64::BITS - self.bits,
            entries: 1 << self.bits,
            leaf: self.leaf(),
            branch: self.branch(),
            direct: self.direct,
            pairs: self.pairs,
        };
        form.cost(segments)
    }

    /// The segments behind each entry.
    fn blocks(self, segments: &[Segment]) -> Blocks<'_> {
        Blocks::of(segments, 0, u64::BITS - self.bits, 1 << self.bits)
    }
}

struct Writer<'w> {
    form: Form,
    lanes: Lanes,
    unit: u32,
    words: &'w mut Words,
    /// Lines above what is being written.
    level: u32,
    /// Lines on the longest way so far.
    levels: u32,
    /// Which of them there are.
    forms: u32,
}

impl Writer<'_> {
    /// Writes the table and all behind it; its first word.
    fn table(&mut self, segments: &[Segment]) -> Result<u32, CompileError> {
        let entries = 1_u64 << self.form.bits;
        let lines = entries.div_ceil(LINE_WORDS as u64);
        let table = self.words.reserve_lines(lines)?;
        let alone = self.alone(segments)?;
        for (word, block) in (table..).zip(self.form.blocks(segments)) {
            let entry = match block {
                [one] if !alone.is_empty() => alone[&one.class],
                block => self.block(block)?,
            };
            self.words.set(word, entry);
        }
        Ok(table)
    }

    /// Writes a row of lines and all behind it; the entry of the first.
    fn row(&mut self, segments: &[Segment]) -> Result<u32, CompileError> {
        self.forms |= forms::DIRECT;
        let start = self.words.reserve_lines(1 << self.form.bits)?;
        let lines = (start..).step_by(LINE_WORDS);
        let mut entry = 0;
        for (line, block) in lines.zip(self.form.blocks(segments)) {
            let this = self.line(block, line)?;
            if line == start {
                entry = this;
            }
        }
        Ok(entry)
    }

    /// Writes a line of the row; its entry.
    fn line(&mut self, block: &[Segment], start: u32) -> Result<u32, CompileError> {
        if !self.form.pairs {
            let each = self.form.each(block.len());
            return self.branch_at(block, if each >= block.len() { 1 } else { each }, start);
        }
        if block.len() <= self.form.leaf() {
            return Ok(self.pair_at(block, start));
        }
        // A pair without boundaries, whose entries lead on.
        self.begin(forms::PAIR);
        let further = self.block(block)?;
        self.level -= 1;
        Ok(self.pair_of(&[], [further; 2], start))
    }

    /// The lines of the classes that entries are no more than, if they shall have
    /// some.
    fn alone(&mut self, segments: &[Segment]) -> Result<HashMap<u32, u32>, CompileError> {
        let mut classes = HashSet::new();
        let mut leads_on = false;
        for block in self.form.blocks(segments) {
            if let [one] = block {
                classes.insert(one.class);
                if classes.len() > CERTAIN {
                    return Ok(HashMap::new());
                }
            } else {
                leads_on = true;
            }
        }
        if leads_on {
            self.forms |= forms::CERTAIN;
            let mut classes: Vec<u32> = classes.into_iter().collect();
            classes.sort_unstable();
            let lines = classes.into_iter().map(|class| {
                let segment = Segment { first: 0, class };
                Ok((class, self.leaf(&[segment])?))
            });
            return lines.collect();
        }
        Ok(HashMap::new())
    }

    /// The entry for the addresses of a block. The first segment begins at or before
    /// it, the others in it.
    fn block(&mut self, segments: &[Segment]) -> Result<u32, CompileError> {
        match segments {
            [one] => Ok(one.class * self.unit),
            segments if segments.len() <= self.form.leaf() => self.leaf(segments),
            segments => self.branch(segments, self.form.each(segments.len())),
        }
    }

    /// A line with nothing behind it.
    fn leaf(&mut self, segments: &[Segment]) -> Result<u32, CompileError> {
        if !self.form.pairs {
            return self.branch(segments, 1);
        }
        let start = self.words.reserve_lines(1)?;
        Ok(self.pair_at(segments, start))
    }

    fn pair_at(&mut self, segments: &[Segment], start: u32) -> u32 {
        self.begin(forms::PAIR);
        self.level -= 1;
        let odd = segments.get(1).unwrap_or(&segments[0]).class;
        let entries = [segments[0].class * self.unit, odd * self.unit];
        self.pair_of(segments, entries, start)
    }

    /// Writes a pair; what leads to it.
    fn pair_of(&mut self, segments: &[Segment], entries: [u32; 2], start: u32) -> u32 {
        self.boundaries(start, PAIR_WORDS, segments, 1);
        self.words.at(start)[PAIR_ENTRIES..][..2].copy_from_slice(&entries);
        POINTER | PAIR | (start / LINE_WORDS as u32)
    }

    /// A line with a way for each so many segments.
    fn branch(&mut self, segments: &[Segment], each: usize) -> Result<u32, CompileError> {
        let start = self.words.reserve_lines(1)?;
        self.branch_at(segments, each, start)
    }

    fn branch_at(
        &mut self,
        segments: &[Segment],
        each: usize,
        start: u32,
    ) -> Result<u32, CompileError> {
        self.begin(forms::BRANCH);
        self.boundaries(start, BRANCH_WORDS, segments, each);
        let mut entry = 0;
        let mut ways = segments.chunks(each);
        for place in BRANCH_ENTRIES..LINE_WORDS {
            // Behind the last one nothing is looked up.
            if let Some(way) = ways.next() {
                entry = self.block(way)?;
            }
            self.words.at(start)[place] = entry;
        }
        self.level -= 1;
        Ok(POINTER | (start / LINE_WORDS as u32))
    }

    /// Begins one level more, of this form.
    fn begin(&mut self, form: u32) {
        self.level += 1;
        self.levels = self.levels.max(self.level);
        self.forms |= form;
    }

    /// Writes where all ways of so many segments but the first begin.
    fn boundaries(&mut self, start: u32, words: usize, segments: &[Segment], each: usize) {
        let firsts = segments.chunks(each).skip(1);
        let firsts: Vec<u32> = firsts
            .map(|way| address(&way[0]) & self.lanes.mask)
            .collect();
        let mut firsts = firsts.chunks(Lanes::count(self.form.bits) as usize);
        for word in 0..words {
            let lanes: [u32; 2] =
                bytemuck::cast(self.lanes.word(firsts.next().unwrap_or_default()));
            self.words.at(start)[word * 2..][..2].copy_from_slice(&lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::{Line, PLACE};
    use proptest::prelude::*;

    use super::*;

    /// Walks as the kernel does, in the plainest way; the class and the levels that
    /// it took.
    fn look_up(lines: &[Line], root: Root, address: u32) -> (u32, u32) {
        let words: &[u32] = bytemuck::cast_slice(lines);
        let place = || address >> root.lanes.shift;
        let entry = match root.table {
            NONE if root.forms & forms::DIRECT != 0 => root.entry + place(),
            NONE => root.entry,
            table => words[(table + place()) as usize],
        };
        let key = u64::from(address & root.lanes.mask);
        let width = root.lanes.last + 1;
        let (mut entry, mut levels) = (entry, 0);
        while entry & POINTER != 0 {
            levels += 1;
            let line = &lines[(entry & PLACE) as usize].0;
            let is_pair = entry & PAIR != 0;
            let count = if is_pair { PAIR_WORDS } else { BRANCH_WORDS };
            let mut rank = 0;
            for word in line.chunks(2).take(count) {
                let word = u64::from(word[0]) | u64::from(word[1]) << 32;
                for lane in 0..64 / width {
                    let boundary = word >> (lane * width) & (u64::MAX >> (64 - width));
                    rank += usize::from(boundary <= key);
                }
            }
            entry = if is_pair {
                line[PAIR_ENTRIES + rank % 2]
            } else {
                line[BRANCH_ENTRIES + rank]
            };
        }
        (entry, levels)
    }

    /// Checks each boundary and its neighbours, for the classes that `class` gives
    /// segments.
    fn check(firsts: &[u32], class: impl Fn(u32) -> u32) -> Root {
        let mut firsts = firsts.to_vec();
        firsts.push(0);
        firsts.sort_unstable();
        firsts.dedup();
        let segments: Vec<Segment> = (0..)
            .zip(&firsts)
            .map(|(index, &first)| Segment {
                first: u64::from(first) << 32,
                class: class(index),
            })
            .collect();
        let mut words = Words::new(1 << 32);
        words.reserve(5).expect("within the budget");
        let root = write(&segments, 3, &mut words).expect("within the budget");
        let lines = words.finish();
        for &first in &firsts {
            for address in [first, first.wrapping_sub(1), first.wrapping_add(1)] {
                let index = firsts.partition_point(|&other| other <= address) - 1;
                let (found, levels) = look_up(&lines, root, address);
                assert_eq!(found, segments[index].class * 3, "{address:08x}, {root:?}");
                assert!(levels <= root.levels, "{levels} levels at {address:08x}");
            }
        }
        assert!(root.levels as usize <= LEVELS_V4, "{root:?}");
        root
    }

    fn check_all(firsts: &[u32]) {
        check(firsts, |index| index);
        check(firsts, |index| index % 2);
        check(firsts, |index| index % 3);
    }

    /// Boundaries that share long prefixes here and there.
    fn clustered() -> impl Strategy<Value = Vec<u32>> {
        let cluster = (
            any::<u32>(),
            0..32_u32,
            prop::collection::vec(any::<u32>(), 1..90),
        );
        let clusters = prop::collection::vec(cluster, 0..6);
        clusters.prop_map(|clusters| {
            let values = clusters.into_iter().flat_map(|(prefix, length, below)| {
                let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
                below
                    .into_iter()
                    .map(move |value| prefix & mask | value & !mask)
            });
            values.collect()
        })
    }

    proptest! {
        #[test]
        fn each_address_has_its_class(firsts in clustered()) {
            check_all(&firsts);
        }
    }

    #[test]
    fn every_number_of_boundaries_around_the_changes_of_form() {
        for count in (0..40).chain([60, 69, 70, 71, 99, 100, 101, 216, 343, 344, 1_000]) {
            // Dense at the end and in the middle, then far apart.
            let dense: Vec<u32> = (1..=count).map(|index| u32::MAX - index + 1).collect();
            check_all(&dense);
            let middle: Vec<u32> = (1..=count).map(|index| (7 << 28) + index).collect();
            check_all(&middle);
            let apart: Vec<u32> = (1..=count).map(|index| index << 20).collect();
            check_all(&apart);
        }
    }

    #[test]
    fn many_boundaries() {
        for count in [2_000, 20_000, 200_000] {
            let spread: Vec<u32> = (1..=count)
                .map(|index: u32| index.wrapping_mul(0x9e37_79b1))
                .collect();
            check_all(&spread);
            // All in one place: the longest way there is.
            let dense: Vec<u32> = (1..=count).map(|index| (10 << 24) + index * 3).collect();
            check_all(&dense);
        }
    }

    #[test]
    fn each_width_of_lanes_is_used() {
        let spread = |count: u32| -> Vec<u32> {
            let each = u32::MAX / count;
            (1..count).map(|index| index * each).collect()
        };
        let counts = [3, 400, 250_000, 1_500_000];
        let widths = counts.map(|count| check(&spread(count), |index| index % 2).lanes.last + 1);
        assert_eq!(widths, [64, 32, 21, 16]);
    }

    #[test]
    fn where_two_classes_take_turns_no_line_has_ways() {
        let spread: Vec<u32> = (1..100_000_u32)
            .map(|index| index.wrapping_mul(0x9e37_79b1))
            .collect();
        let root = check(&spread, |index| index % 2);
        assert_eq!(root.forms & forms::BRANCH, 0);
        // Entries that are no more than a class, of too many classes for a line each.
        let mut number = 0x9e37_79b9_u32;
        let scattered: Vec<u32> = (0..1_000_000)
            .map(|_| {
                number ^= number << 13;
                number ^= number >> 17;
                number ^= number << 5;
                number
            })
            .collect();
        let root = check(&scattered, |index| index);
        assert_eq!(root.forms, forms::BRANCH);
    }
}
