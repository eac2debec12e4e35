//! The combination by parts: for rulesets with many rules over both addresses,
//! where a table of all source classes with all destination classes would take
//! too much.
//!
//! Lines that ask for one address only (or for none) have a list for each class of
//! that address. The others are split by how wide their networks are: in each
//! part the classes are cut by its own lines only, so that few pairs of classes have
//! a line, and those are held as a sparse matrix whose rows are
//! [displaced](super::displacement).

use filter_common::abi::{
    DECIDE_ASK, DECIDE_DEFAULT, DECIDE_DROP, DECIDE_STATEFUL, DECISION_COUNTER, ELSEWHERE,
    LINE_WORDS, NO_LINE, NONE, PARTS, PartsLayout, RECORD_PARTS, RECORD_ROW, RECORD_VALUES,
    RECORD_WORDS, Record, SLOT_OWNER, SLOT_ROW, SLOT_VALUES, SLOT_WORDS, Slot, WIDTH_BYTE,
    WIDTH_HALF, WIDTH_WORD, list_at, used,
};
use hashbrown::HashMap;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::class::WITHOUT;
use super::classes::{Classes, FamilyClasses};
use super::decide::{self, End};
use super::displacement::displace;
use super::first::{First, NO_KEY, Walk};
use super::lines::Lines;
use super::lists::Lists;
use super::words::Words;
use crate::ruleset::Action;

/// Classes of addresses that the network of a narrow line covers at most.
const NARROW: u32 = 16;
/// Bytes that the compiler needs for a pair while it collects them.
const BYTES_PER_PAIR: u64 = 16;

/// Whether the rules can be combined so: a packet that meets rules which are
/// counted beside its verdict needs all of them, not only the first.
pub(super) fn can_hold(lines: &Lines<'_>) -> bool {
    lines
        .rules
        .iter()
        .all(|rule| !rule.staged && matches!(rule.action, Action::Allow | Action::Deny))
}

/// Which parts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// All that have lines.
    All,
    /// One of all lines: a packet then asks but once.
    One,
}

impl Parts {
    /// Those that are worth a try.
    pub(super) fn of(classes: &Classes<'_>) -> Self {
        let mut families = classes.families.iter();
        if families.all(|family| family.pairs() <= ONE_PART) {
            Self::One
        } else {
            Self::All
        }
    }
}

/// Pairs of address classes that one part of all lines has at most: 2 MiB of slots.
const ONE_PART: u64 = 1 << 17;
/// Bytes of tables up to which it is taken. Warm packets of more pay less as well, but
/// what is read at random more.
pub(super) const ONE_PART_BYTES: u64 = 2 << 20;

/// Writes the tables of one IP version.
pub(super) fn write(
    classes: &Classes<'_>,
    family: &FamilyClasses,
    which: Parts,
    default: u32,
    budget: u64,
    words: &mut Words,
) -> Result<PartsLayout, CompileError> {
    let split = if which == Parts::One {
        Split::in_one(&classes.lines, family)
    } else {
        Split::of(&classes.lines, family)
    };
    let mut layout = PartsLayout {
        default: behind_all(default),
        ..PartsLayout::default()
    };
    let mut record: Record = [0; RECORD_WORDS];
    record[RECORD_VALUES] = NO_LINE;
    let records = |dimension: &Dimension| vec![record; dimension.count()];
    let (mut src, mut dst) = (records(&family.src), records(&family.dst));
    let mut finder = Finder::of(classes);

    for (part, members) in split.both.iter().enumerate() {
        let Some(members) = members else { continue };
        let sources = Asked::of(&family.src, members);
        let destinations = Asked::of(&family.dst, members);
        let pairs = pairs(&sources, &destinations, budget)?;
        let displacements =
            both_addresses(pairs, [&sources, &destinations], &mut finder, budget, words)?;
        let Some(displacements) = displacements else {
            continue;
        };
        let place = RECORD_PARTS + part;
        for (record, &class) in src.iter_mut().zip(&sources.class_of) {
            record[place] = displacements[class as usize];
        }
        for (record, &class) in dst.iter_mut().zip(&destinations.class_of) {
            record[place] = class;
        }
        layout.used |= used::BOTH << part;
    }
    let mut one = |dimension, members: &Bits, records: &mut [Record]| {
        one_address(dimension, members, records, &mut finder, words)
    };
    if one(&family.src, &split.by_src, &mut src)? {
        layout.used |= used::SRC;
    }
    if one(&family.dst, &split.by_dst, &mut dst)? {
        layout.used |= used::DST;
    }
    (layout.rows, layout.width) = finder.write_rows(words)?;
    // Behind that: their one row is read here, and can be of more values.
    layout.any = no_address(&split.any, &mut finder, words)?;
    layout.src = write_records(&src, words)?;
    layout.dst = write_records(&dst, words)?;
    Ok(layout)
}

/// The value of the default: it comes behind those of all rules, and says itself
/// what happens.
const fn behind_all(default: u32) -> u32 {
    let more = DECIDE_ASK | DECIDE_DEFAULT | DECIDE_STATEFUL;
    let word = default & DECIDE_DROP | more | DECISION_COUNTER;
    word.rotate_left(8)
}

/// Writes records; the first, counted in records.
fn write_records(records: &[Record], words: &mut Words) -> Result<u32, CompileError> {
    let start = words.reserve_lines_of(records.as_flattened())?;
    Ok(start / RECORD_WORDS as u32)
}

/// Which lines are in which part.
struct Split {
    any: Bits,
    by_src: Bits,
    by_dst: Bits,
    /// `None` for a part without lines.
    both: [Option<Bits>; PARTS],
}

impl Split {
    /// All lines in one part.
    fn in_one(lines: &Lines<'_>, family: &FamilyClasses) -> Self {
        let count = lines.count();
        let (src, dst) = (spread(&family.src, count), spread(&family.dst, count));
        let all = Bits::of(count, |line| src[line] > 0 && dst[line] > 0);
        let empty = || Bits::empty(count);
        Self {
            any: empty(),
            by_src: empty(),
            by_dst: empty(),
            both: [Some(all), None, None, None],
        }
    }

    fn of(lines: &Lines<'_>, family: &FamilyClasses) -> Self {
        let count = lines.count();
        let (src, dst) = (spread(&family.src, count), spread(&family.dst, count));
        let mut split = Self {
            any: Bits::empty(count),
            by_src: Bits::empty(count),
            by_dst: Bits::empty(count),
            both: [const { None }; PARTS],
        };
        for line in 0..count {
            if dst[line] == EVERYWHERE && src[line] == EVERYWHERE {
                split.any.insert(line);
            } else if dst[line] == EVERYWHERE {
                split.by_src.insert(line);
            } else if src[line] == EVERYWHERE {
                split.by_dst.insert(line);
            } else if src[line] > 0 && dst[line] > 0 {
                let part = usize::from(src[line] > NARROW) << 1 | usize::from(dst[line] > NARROW);
                split.both[part]
                    .get_or_insert_with(|| Bits::empty(count))
                    .insert(line);
            }
        }
        split
    }
}

/// A line that matches all addresses.
const EVERYWHERE: u32 = u32::MAX;

/// Of each line the number of classes in which it matches.
fn spread(dimension: &Dimension, lines: usize) -> Vec<u32> {
    let mut spread = vec![0; lines];
    for line in dimension.everywhere.iter() {
        spread[line] = EVERYWHERE;
    }
    for class in dimension.classes() {
        for &line in class.own {
            let matching = &mut spread[(line & !WITHOUT) as usize];
            *matching = match *matching {
                _ if line & WITHOUT != 0 => EVERYWHERE - 1,
                count if count < EVERYWHERE - 1 => count + 1,
                count => count,
            };
        }
    }
    spread
}

/// The values of the lines that ask for no address; [`NONE`] where there are none.
fn no_address(
    members: &Bits,
    finder: &mut Finder<'_>,
    words: &mut Words,
) -> Result<u32, CompileError> {
    let list: Vec<u32> = members.iter().map(|line| line as u32).collect();
    if list.is_empty() {
        return Ok(NONE);
    }
    let row = finder.find(&list, words)?;
    let row = finder.rows.get(row / finder.l4_classes);
    let all: Vec<u32> = row
        .iter()
        .map(|&element| {
            let place = (element & !UNDECIDABLE) as usize / 2;
            match (element & 1, element & UNDECIDABLE) {
                (0, _) => NO_LINE,
                (_, 0) => finder.values[place],
                _ => finder.values[place] & !0xff | (DECIDE_ASK | DECIDE_DROP) >> 24,
            }
        })
        .collect();
    words.reserve_lines_of(&all)
}

/// Puts the lists of the lines that ask for one address only into the records;
/// whether there are any.
fn one_address(
    dimension: &Dimension,
    members: &Bits,
    records: &mut [Record],
    finder: &mut Finder<'_>,
    words: &mut Words,
) -> Result<bool, CompileError> {
    let asked = Asked::of(dimension, members);
    let mut found = Vec::with_capacity(asked.lists.len());
    for list in asked.lists.iter() {
        found.push(finder.list(list, words)?);
    }
    for (record, &class) in records.iter_mut().zip(&asked.class_of) {
        let List { row, value } = found[class as usize];
        record[RECORD_ROW] = row;
        record[RECORD_VALUES + 1] = value;
    }
    Ok(found.iter().any(|list| list.row != 0))
}

/// In an element of a row, before it has its width: the line can't be decided.
const UNDECIDABLE: u32 = 1 << 31;

/// A list as a slot or a record has it.
#[derive(Clone, Copy)]
struct List {
    /// Its first element, from the first row on: 0 where no line matches.
    row: u32,
    /// Its one value, or where they are.
    value: u32,
}

/// What lists that ask the same of the L4 header have in common.
struct Shape {
    row: u32,
    outcomes: Vec<Outcome>,
}

/// A value of a list.
enum Outcome {
    /// That of the line at this index.
    Line(u32),
    /// One for each class of source ports; [keys](Walk::along) of indices.
    BySourcePort(Vec<u32>),
}

/// Finds the first line of lists.
struct Finder<'c> {
    lines: &'c Lines<'c>,
    l4_classes: u32,
    walk: Walk,
    by_source_port: SourcePortRows,
    /// The shapes so far, by what the lists ask.
    shapes: HashMap<Vec<u32>, Shape>,
    /// An element for each L4 class.
    rows: Lists,
    /// Values of the longest list.
    most: usize,
    /// Those of the present list.
    values: Vec<u32>,
}

impl<'c> Finder<'c> {
    fn of(classes: &'c Classes<'c>) -> Self {
        let l4_classes = classes.l4.classes.len();
        let mut rows = Lists::default();
        rows.number(&vec![0; l4_classes]);
        Self {
            lines: &classes.lines,
            l4_classes: l4_classes as u32,
            walk: Walk::of(classes),
            by_source_port: SourcePortRows::default(),
            shapes: HashMap::new(),
            rows,
            most: 0,
            values: Vec::new(),
        }
    }

    /// The same with the values written, but for a single one.
    fn list(&mut self, list: &[u32], words: &mut Words) -> Result<List, CompileError> {
        let row = self.find(list, words)?;
        let value = match *self.values.as_slice() {
            [] => NO_LINE,
            [value] => value,
            ref values => list_at(words.reserve_all(values)?),
        };
        Ok(List { row, value })
    }

    /// The row of a list of lines, and in [`Self::values`] what its places stand for.
    fn find(&mut self, list: &[u32], words: &mut Words) -> Result<u32, CompileError> {
        self.values.clear();
        let lines = self.lines;
        let rule = |line: u32| lines.all[line as usize].rule as u32;
        // What each line asks, and the place of the first one of its rule.
        let mut shape: Vec<u32> = Vec::with_capacity(list.len() * 2);
        for (index, &line) in list.iter().enumerate() {
            let first = match shape.last() {
                Some(&first) if rule(list[first as usize]) == rule(line) => first,
                _ => index as u32,
            };
            shape.extend([lines.condition(line as usize) as u32, first]);
        }
        if !self.shapes.contains_key(&shape) {
            let new = self.shape(&shape, words)?;
            self.shapes.insert(shape.clone(), new);
        }
        let Shape { row, outcomes } = &self.shapes[&shape];
        let value = |key: u32| {
            let rule = rule(list[(key >> 1) as usize]) as usize;
            let end = if key & 1 == 0 {
                End::Rule(rule)
            } else {
                End::Undecidable(rule)
            };
            decide::word_with_rule(lines.rules, end).map_or(NO_LINE, |word| word.rotate_left(8))
        };
        for outcome in outcomes {
            self.values.push(match outcome {
                Outcome::Line(index) => value(index << 1),
                Outcome::BySourcePort(keys) => {
                    let value = |key: u32| if key == NO_KEY { NO_LINE } else { value(key) };
                    self.by_source_port.write(keys, value, words)?
                }
            });
        }
        Ok(*row)
    }

    /// Walks along lines that ask this.
    fn shape(&mut self, asked: &[u32], words: &Words) -> Result<Shape, CompileError> {
        let asked = asked
            .chunks_exact(2)
            .map(|asked| (asked[0] as usize, asked[1]));
        self.walk.along(asked);
        let mut places: HashMap<(bool, u32), u32> = HashMap::new();
        let mut outcomes = Vec::new();
        let mut row = Vec::with_capacity(self.l4_classes as usize);
        for first in self.walk.found() {
            let (by_source_port, number, undecidable) = match first {
                First::Same(NO_KEY) => {
                    row.push(0);
                    continue;
                }
                First::Same(key) => (false, key >> 1, UNDECIDABLE * (key & 1)),
                First::BySourcePort(number, _) => (true, number, 0),
            };
            let place = places.entry((by_source_port, number)).or_insert_with(|| {
                outcomes.push(match first {
                    First::Same(_) => Outcome::Line(number),
                    First::BySourcePort(_, keys) => Outcome::BySourcePort(keys.to_vec()),
                });
                outcomes.len() as u32 - 1
            });
            row.push(*place << 1 | 1 | undecidable);
        }
        self.most = self.most.max(outcomes.len());
        let row = u64::from(self.rows.number(&row)) * u64::from(self.l4_classes);
        words.check(row / 4)?;
        Ok(Shape {
            row: row as u32,
            outcomes,
        })
    }

    /// Writes the rows; the first element, and the width.
    fn write_rows(&self, words: &mut Words) -> Result<(u32, u32), CompileError> {
        let (width, bits) = match self.most {
            0..=0x40 => (WIDTH_BYTE, 8),
            0x41..=0x4000 => (WIDTH_HALF, 16),
            _ => (WIDTH_WORD, 32),
        };
        let in_a_word = 32 / bits;
        let count = self.rows.len() as u64 * u64::from(self.l4_classes);
        let count = count.div_ceil(u64::from(in_a_word));
        let start = words.reserve_lines(count.div_ceil(LINE_WORDS as u64))?;
        let elements = self.rows.iter().flatten();
        let elements = elements.map(|&all| all & !UNDECIDABLE | (all & UNDECIDABLE) >> (32 - bits));
        let room = words.at(start);
        match width {
            WIDTH_BYTE => bytemuck::cast_slice_mut(room)
                .iter_mut()
                .zip(elements)
                .for_each(|(room, element)| *room = element as u8),
            WIDTH_HALF => bytemuck::cast_slice_mut(room)
                .iter_mut()
                .zip(elements)
                .for_each(|(room, element)| *room = element as u16),
            _ => room
                .iter_mut()
                .zip(elements)
                .for_each(|(room, element)| *room = element),
        }
        Ok((start * in_a_word, width))
    }
}

/// Rows of values, one a class of source ports: a value for each sixteen classes,
/// or a line of theirs. What is alike is written once, since most of a row is
/// what it is without source ports.
#[derive(Default)]
struct SourcePortRows {
    blocks: HashMap<[u32; LINE_WORDS], u32>,
    heads: HashMap<Vec<u32>, u32>,
}

impl SourcePortRows {
    /// Writes the values of these keys; the value that stands for all of them.
    fn write(
        &mut self,
        keys: &[u32],
        value: impl Fn(u32) -> u32,
        words: &mut Words,
    ) -> Result<u32, CompileError> {
        let place = |start: u32| (start / LINE_WORDS as u32) << 8 | ELSEWHERE;
        let mut head = Vec::with_capacity(keys.len().div_ceil(LINE_WORDS));
        for keys in keys.chunks(LINE_WORDS) {
            let first = value(keys[0]);
            let mut block = [first; LINE_WORDS];
            for (at, pair) in keys.windows(2).enumerate() {
                block[at + 1] = if pair[0] == pair[1] {
                    block[at]
                } else {
                    value(pair[1])
                };
            }
            head.push(if block == [first; LINE_WORDS] {
                first
            } else if let Some(&line) = self.blocks.get(&block) {
                line
            } else {
                let line = place(words.reserve_lines_of(&block)?);
                self.blocks.insert(block, line);
                line
            });
        }
        if head
            .iter()
            .all(|&word| word == head[0] && word & ELSEWHERE == 0)
        {
            return Ok(head[0]);
        }
        if let Some(&line) = self.heads.get(&head) {
            return Ok(line);
        }
        let line = place(words.reserve_lines_of(&head)?);
        self.heads.insert(head, line);
        Ok(line)
    }
}

/// What the lines of a part ask of one address.
struct Asked {
    /// The class of the part of each class of addresses: 0 where no line matches.
    class_of: Vec<u32>,
    /// Of each class of the part, the lines that match.
    lists: Lists,
}

impl Asked {
    fn of(dimension: &Dimension, members: &Bits) -> Self {
        // Those that match everywhere but in some classes.
        let everywhere = dimension.everywhere.intersection(members);
        let everywhere: Vec<u32> = everywhere.iter().map(|line| line as u32).collect();
        let mut lists = Lists::default();
        lists.number(&[]);
        let mut matching = Vec::new();
        let class_of = dimension.classes().map(|class| {
            matching.clear();
            let own = class.own.iter().copied().filter(|line| line & WITHOUT == 0);
            matching.extend(own.filter(|&line| members.contains(line as usize)));
            matching.extend(everywhere.iter().filter(|&&line| class.contains(line)));
            matching.sort_unstable();
            lists.number(&matching)
        });
        Self {
            class_of: class_of.collect(),
            lists,
        }
    }

    /// Of each line below `end`, the classes of the part in which it matches.
    fn classes_of(&self, end: usize) -> Vec<Vec<u32>> {
        let mut classes_of = vec![Vec::new(); end];
        for (class, list) in self.lists.iter().enumerate() {
            for &line in list {
                classes_of[line as usize].push(class as u32);
            }
        }
        classes_of
    }
}

/// The pairs of classes that have a line: source, destination, line, in order.
fn pairs(src: &Asked, dst: &Asked, budget: u64) -> Result<Vec<(u32, u32, u32)>, CompileError> {
    let lines = src.lists.iter().chain(dst.lists.iter()).flatten();
    let end = lines.max().map_or(0, |&last| last as usize + 1);
    let (src, dst) = (src.classes_of(end), dst.classes_of(end));
    let both = || src.iter().zip(&dst);
    let count: u64 = both()
        .map(|(src, dst)| src.len() as u64 * dst.len() as u64)
        .sum();
    if count * BYTES_PER_PAIR > budget {
        return Err(CompileError::TooLarge {
            needed: count * BYTES_PER_PAIR,
            budget,
        });
    }
    let mut pairs = Vec::with_capacity(count as usize);
    for (line, (src, dst)) in (0..).zip(both()) {
        for &src in src {
            pairs.extend(dst.iter().map(|&dst| (src, dst, line)));
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// Writes the lists of the pairs and the slots that find them; the displacement of each
/// class of sources, `None` where no line matches.
fn both_addresses(
    pairs: Vec<(u32, u32, u32)>,
    [sources, destinations]: [&Asked; 2],
    finder: &mut Finder<'_>,
    budget: u64,
    words: &mut Words,
) -> Result<Option<Vec<u32>>, CompileError> {
    let mut lists = Lists::default();
    let mut found = Vec::new();
    let mut entries = Vec::new();
    let mut list = Vec::new();
    let mut rows = vec![Vec::new(); sources.lists.len()];
    for pair in pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        list.clear();
        list.extend(pair.iter().map(|&(_, _, line)| line));
        let number = lists.number(&list) as usize;
        if number == found.len() {
            found.push(finder.list(&list, words)?);
        }
        let (source, destination, _) = pair[0];
        // Some ask for what no packet of this IP version has.
        if found[number].row != 0 {
            rows[source as usize].push(destination);
            entries.push((source, destination, found[number]));
        }
    }
    drop(pairs);
    if entries.is_empty() {
        return Ok(None);
    }
    let most = (budget / size_of::<Slot>() as u64) as usize;
    let mut displacements = displace(&rows, most).map_err(|reached| CompileError::TooLarge {
        needed: (reached * size_of::<Slot>()) as u64,
        budget,
    })?;
    // Any source may meet any destination.
    let most = displacements.iter().max().copied().unwrap_or(0) as usize;
    let slots = most + destinations.lists.len();
    let start = words.reserve_lines((slots * SLOT_WORDS).div_ceil(LINE_WORDS) as u64)?;
    let first = start / SLOT_WORDS as u32;
    for displacement in &mut displacements {
        *displacement += first;
    }
    let mut slot: Slot = [0; SLOT_WORDS];
    slot[SLOT_VALUES] = NO_LINE;
    let room = &mut words.at(start)[..slots * SLOT_WORDS];
    let (room, _) = room.as_chunks_mut::<SLOT_WORDS>();
    room.fill(slot);
    for (source, destination, List { row, value }) in entries {
        slot[SLOT_OWNER] = displacements[source as usize];
        slot[SLOT_ROW] = row;
        slot[SLOT_VALUES + 1] = value;
        room[(slot[SLOT_OWNER] - first + destination) as usize] = slot;
    }
    Ok(Some(displacements))
}
