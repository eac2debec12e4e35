//! The combination by parts: for rulesets with many rules over both addresses,
//! where a table of all source classes with all destination classes would take
//! too much.
//!
//! Lines that ask for one address only (or for none) are decided by a table of
//! that address's classes. The others are split by how wide their networks are:
//! in each part the classes are cut by its own lines only, so that few pairs
//! of classes have a line, and those are held in a hash table.

use filter_common::abi::{
    BY_SOURCE_PORT, HASH_PROBES, HashLayout, LINE_WORDS, Line, NONE, PART_SLOT_WORDS, PARTS,
    PARTS_RECORD_WORDS, PartsLayout, ROW_BY_SOURCE_PORT,
};
use filter_common::classify::parts::hash_of;
use hashbrown::HashMap;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::class::{self, Cell, WITHOUT};
use super::classes::{Classes, FamilyClasses};
use super::decide::{self, End};
use super::l4;
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

/// Writes the tables of one IP version.
pub(super) fn write(
    classes: &Classes<'_>,
    family: &FamilyClasses,
    default: u32,
    budget: u64,
    words: &mut Words,
) -> Result<PartsLayout, CompileError> {
    let lines = &classes.lines;
    let split = Split::of(lines, family);
    let mut layout = PartsLayout {
        default,
        ..PartsLayout::default()
    };
    let records = |dimension: &Dimension| vec![[0; 1 + PARTS]; dimension.count()];
    let (mut src, mut dst) = (records(&family.src), records(&family.dst));

    let mut rows = Rows::new();
    let mut one = |dimension, members: &Bits, records: &mut [Record]| {
        one_address(classes, dimension, members, records, &mut rows, words)
    };
    layout.by_src = one(&family.src, &split.by_src, &mut src)?;
    layout.by_dst = one(&family.dst, &split.by_dst, &mut dst)?;
    let nowhere = Bits::empty(lines.count());
    let mut ports = ListRows {
        each: (0..classes.l4.classes.len())
            .map(|l4| Ports::of(classes, l4, &nowhere))
            .collect(),
        rows,
        shapes: HashMap::new(),
    };
    for (part, members) in split.both.iter().enumerate() {
        let Some(members) = members else { continue };
        let sources = Asked::of(&family.src, members, &mut src, part);
        let destinations = Asked::of(&family.dst, members, &mut dst, part);
        let pairs = pairs(&sources, &destinations, budget)?;
        layout.both[part] = both_addresses(classes, pairs, &mut ports, budget, words)?;
    }

    layout.src = write_records(&src, words)?;
    layout.dst = write_records(&dst, words)?;
    Ok(layout)
}

/// What stands in the record of an address class.
type Record = [u32; 1 + PARTS];

fn write_records(records: &[Record], words: &mut Words) -> Result<u32, CompileError> {
    let stride = PARTS_RECORD_WORDS as usize;
    let start = words.reserve(records.len() as u64 * u64::from(PARTS_RECORD_WORDS))?;
    for (room, record) in words.at(start).chunks_exact_mut(stride).zip(records) {
        room[..record.len()].copy_from_slice(record);
    }
    Ok(start)
}

/// Which lines are in which part.
struct Split {
    by_src: Bits,
    by_dst: Bits,
    /// `None` for a part without lines.
    both: [Option<Bits>; PARTS],
}

impl Split {
    fn of(lines: &Lines<'_>, family: &FamilyClasses) -> Self {
        let count = lines.count();
        let (src, dst) = (spread(&family.src, count), spread(&family.dst, count));
        let mut split = Self {
            by_src: Bits::empty(count),
            by_dst: Bits::empty(count),
            both: [const { None }; PARTS],
        };
        for line in 0..count {
            if dst[line] == EVERYWHERE {
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

/// The table of the lines that ask for one address only; where it begins.
fn one_address(
    classes: &Classes<'_>,
    dimension: &Dimension,
    members: &Bits,
    records: &mut [Record],
    rows: &mut Rows,
    words: &mut Words,
) -> Result<u32, CompileError> {
    let lines = &classes.lines;
    let everywhere = dimension.everywhere.intersection(members);
    let mut lists = Lists::default();
    let mut own = Vec::new();
    for (record, class) in records.iter_mut().zip(dimension.classes()) {
        own.clear();
        let member = |line: &&u32| members.contains((**line & !WITHOUT) as usize);
        own.extend(class.own.iter().filter(member));
        record[0] = lists.number(&own);
    }
    if lists.len() == 1 && lists.get(0).is_empty() && everywhere.iter().next().is_none() {
        return Ok(NONE);
    }
    let count = classes.l4.classes.len();
    let start = words.reserve(lists.len() as u64 * count as u64)?;
    for l4 in 0..count {
        let ports = Ports::of(classes, l4, &everywhere);
        for (class, own) in lists.iter().enumerate() {
            let word = ports.row(
                own,
                rows,
                words,
                |end| value(lines, end),
                |line| line << 8 | BY_SOURCE_PORT,
            )?;
            words.set(start + (class * count + l4) as u32, word);
        }
    }
    Ok(start)
}

/// Rows of values, one a class of source ports, by what they hold: their line.
type Rows = HashMap<Vec<u32>, u32>;

/// An L4 class without source port, and what it is with each class of them.
struct Ports<'c> {
    lines: &'c Lines<'c>,
    /// Without the lines that ask for source ports.
    any: l4::Class,
    any_common: Vec<u32>,
    /// The conditions that ask for source ports and may hold.
    asking: Bits,
    /// The first line that is everywhere and does.
    first_asking: Option<u32>,
    /// With each class of source ports, and the lines that are everywhere.
    each: Vec<(&'c l4::Class, Vec<u32>)>,
}

impl<'c> Ports<'c> {
    fn of(classes: &'c Classes<'c>, l4: usize, everywhere: &Bits) -> Self {
        let lines = &classes.lines;
        let conditions = &lines.conditions;
        let any_port = Bits::of(conditions.len(), |number| {
            let asked = &conditions[number];
            asked.src_ports.is_empty() && asked.not_src_ports.is_empty()
        });
        let class = &classes.l4.classes[l4];
        let any = l4::Class {
            matching: class.matching.intersection(&any_port),
            undecidable: class.undecidable.clone(),
        };
        let asking = Bits::of(conditions.len(), |number| {
            class.matching.contains(number) && !any_port.contains(number)
        });
        let count = classes.source_ports.classes.len();
        let each = (0..count).map(|port| {
            let whole = classes.joint[l4 * count + port];
            let class = &classes.whole_l4[whole as usize];
            (class, class::common(lines, everywhere, class))
        });
        Self {
            lines,
            first_asking: everywhere
                .iter()
                .find(|&line| asking.contains(lines.condition(line)))
                .map(|line| line as u32),
            asking,
            any_common: class::common(lines, everywhere, &any),
            any,
            each: each.collect(),
        }
    }

    fn end(&self, own: &[u32], common: &[u32], l4: &l4::Class) -> End {
        let cell = Cell::new(self.lines, own, common, l4);
        decide::fate(self.lines, 0..self.lines.rules.len(), cell, false).end
    }

    /// What the lines come to: one value, or a row of them where source ports
    /// decide, by `value` and `place`.
    fn row(
        &self,
        own: &[u32],
        rows: &mut Rows,
        words: &mut Words,
        value: impl Fn(End) -> u32,
        place: impl Fn(u32) -> u32,
    ) -> Result<u32, CompileError> {
        let end = self.end(own, &self.any_common, &self.any);
        let any = value(end);
        let asks = |line: &u32| {
            line & WITHOUT == 0 && self.asking.contains(self.lines.condition(*line as usize))
        };
        // What comes behind the line that decides anyway asks in vain.
        let first = own
            .iter()
            .copied()
            .find(asks)
            .into_iter()
            .chain(self.first_asking)
            .min();
        let first = first.map(|line| self.lines.all[line as usize].rule);
        if first.is_none_or(|first| end.rule().is_some_and(|end| end < first)) {
            return Ok(any);
        }
        let row: Vec<u32> = self
            .each
            .iter()
            .map(|(l4, common)| value(self.end(own, common, l4)))
            .collect();
        if row.iter().all(|&value| value == row[0]) {
            return Ok(row[0]);
        }
        if let Some(&line) = rows.get(&row) {
            return Ok(place(line));
        }
        let start = words.reserve_lines(row.len().div_ceil(LINE_WORDS) as u64)?;
        words.at(start)[..row.len()].copy_from_slice(&row);
        let line = start / LINE_WORDS as u32;
        rows.insert(row, line);
        Ok(place(line))
    }
}

/// An end as the tables have it: the least is the first in order.
fn value(lines: &Lines<'_>, end: End) -> u32 {
    decide::word_with_rule(lines.rules, end).map_or(NONE, |word| word.rotate_left(8))
}

/// What the lines of a part ask of one address.
struct Asked {
    /// Of each line, the classes of the part in which it matches.
    classes_of: Vec<Vec<u32>>,
}

impl Asked {
    /// Puts the class of the part in each record: 0 where no line matches.
    fn of(dimension: &Dimension, members: &Bits, records: &mut [Record], part: usize) -> Self {
        // Those that match everywhere but in some classes.
        let everywhere = dimension.everywhere.intersection(members);
        let mut lists = Lists::default();
        lists.number(&[]);
        let mut matching = Vec::new();
        for (record, class) in records.iter_mut().zip(dimension.classes()) {
            matching.clear();
            let own = class.own.iter().copied().filter(|line| line & WITHOUT == 0);
            matching.extend(own.filter(|&line| members.contains(line as usize)));
            matching.extend(
                everywhere
                    .iter()
                    .map(|line| line as u32)
                    .filter(|&line| class.contains(line)),
            );
            matching.sort_unstable();
            record[1 + part] = lists.number(&matching);
        }
        let last = members.iter().last().map_or(0, |last| last + 1);
        let mut classes_of = vec![Vec::new(); last];
        for (class, list) in lists.iter().enumerate() {
            for &line in list {
                classes_of[line as usize].push(class as u32);
            }
        }
        Self { classes_of }
    }
}

/// The pairs of classes that have a line: source, destination, line, in order.
fn pairs(src: &Asked, dst: &Asked, budget: u64) -> Result<Vec<(u32, u32, u32)>, CompileError> {
    let both = || src.classes_of.iter().zip(&dst.classes_of);
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

/// Writes the lists of the pairs, and the hash table that finds them.
fn both_addresses(
    classes: &Classes<'_>,
    pairs: Vec<(u32, u32, u32)>,
    ports: &mut ListRows<'_>,
    budget: u64,
    words: &mut Words,
) -> Result<HashLayout, CompileError> {
    let mut lists = Lists::default();
    let mut written = Vec::new();
    let mut slots = Vec::new();
    let mut list = Vec::new();
    for pair in pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        list.clear();
        list.extend(pair.iter().map(|&(_, _, line)| line));
        let number = lists.number(&list) as usize;
        if number == written.len() {
            written.push(write_list(classes, &list, ports, words)?);
        }
        let (at, row) = written[number];
        slots.push([pair[0].0, pair[0].1, at, row]);
    }
    drop(pairs);
    let mut table = hash_lines(slots.len());
    loop {
        // Before it is filled: were hashes alike, no table would be large enough.
        let needed = (table * size_of::<Line>()) as u64;
        if needed > budget {
            return Err(CompileError::TooLarge { needed, budget });
        }
        if let Some(filled) = fill(&slots, table) {
            let start = words.reserve_lines(table as u64)?;
            words.at(start)[..filled.len()].copy_from_slice(&filled);
            return Ok(HashLayout {
                table: start / LINE_WORDS as u32,
                mask: (table - 1) as u32,
            });
        }
        table *= 2;
    }
}

/// Lines of a table in which at most half of the slots are taken.
fn hash_lines(slots: usize) -> usize {
    let a_line = LINE_WORDS / PART_SLOT_WORDS;
    (slots * 2).div_ceil(a_line).next_power_of_two()
}

/// The hash table; `None` where a pair is too far from its place.
fn fill(slots: &[[u32; PART_SLOT_WORDS]], lines: usize) -> Option<Vec<u32>> {
    let mut table = vec![0; lines * LINE_WORDS];
    for slot in slots {
        let place = hash_of(slot[0], slot[1]) as usize;
        let free = (0..HASH_PROBES as usize).find_map(|probe| {
            let line = ((place + probe) & (lines - 1)) * LINE_WORDS;
            (line..line + LINE_WORDS)
                .step_by(PART_SLOT_WORDS)
                .find(|&at| table[at] == 0)
        })?;
        table[free..free + PART_SLOT_WORDS].copy_from_slice(slot);
    }
    Some(table)
}

/// Writes the lines of a pair, and which of them is the first in each L4 class;
/// where both begin. Lists that ask the same of the L4 header share a row.
fn write_list(
    classes: &Classes<'_>,
    list: &[u32],
    ports: &mut ListRows<'_>,
    words: &mut Words,
) -> Result<(u32, u32), CompileError> {
    let lines = &classes.lines;
    let rule = |line: u32| lines.all[line as usize].rule;
    let at = words.reserve(list.len() as u64)?;
    let shape: Vec<u32> = list
        .iter()
        .enumerate()
        .map(|(index, &line)| {
            let same_rule = index > 0 && rule(list[index - 1]) == rule(line);
            lines.all[line as usize].condition << 1 | u32::from(same_rule)
        })
        .collect();
    for (word, &line) in words.at(at).iter_mut().zip(list) {
        *word = value(lines, End::Rule(rule(line)));
    }
    if let Some(&row) = ports.shapes.get(&shape) {
        return Ok((at, row));
    }
    let index = |end: End| {
        let first = end.rule();
        let index = first.and_then(|first| list.iter().position(|&line| rule(line) == first));
        let undecidable = matches!(end, End::Undecidable(_));
        index.map_or(NONE, |index| (index as u32) << 1 | u32::from(undecidable))
    };
    let row = words.reserve(ports.each.len() as u64)?;
    for (word, l4) in (row..).zip(&ports.each) {
        let place = |line| line | ROW_BY_SOURCE_PORT;
        let value = l4.row(list, &mut ports.rows, words, index, place)?;
        words.set(word, value);
    }
    ports.shapes.insert(shape, row);
    Ok((at, row))
}

/// How lists of lines are decided by L4 classes.
struct ListRows<'c> {
    each: Vec<Ports<'c>>,
    rows: Rows,
    /// The rows of lists that ask the same, by what they ask.
    shapes: HashMap<Vec<u32>, u32>,
}
