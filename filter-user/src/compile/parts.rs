//! The combination by parts: for rulesets with many rules over both addresses,
//! where a table of all source classes with all destination classes would take
//! too much.
//!
//! Lines that ask for one address only (or for none) are decided by a table of
//! that address's classes. The others are split by how wide their networks are:
//! in each part the classes are cut by its own lines only, so that few pairs
//! of classes have a line, and those are held in a hash table.

use filter_common::abi::{
    HASH_PROBES, HashLayout, LINE_WORDS, NONE, PART_SLOT_WORDS, PARTS, PARTS_RECORD_WORDS,
    PartsLayout,
};
use filter_common::classify::parts::hash_of;
use hashbrown::HashMap;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::class::{self, Cell, WITHOUT};
use super::classes::{Classes, FamilyClasses};
use super::decide::{self, End};
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
    default: Action,
    budget: u64,
    words: &mut Words,
) -> Result<PartsLayout, CompileError> {
    let lines = &classes.lines;
    let split = Split::of(lines, family);
    let mut layout = PartsLayout {
        default: decide::word(lines.rules, default, End::Default),
        ..PartsLayout::default()
    };
    let records = |dimension: &Dimension| vec![[0; 1 + PARTS]; dimension.count()];
    let (mut src, mut dst) = (records(&family.src), records(&family.dst));

    let mut one = |dimension, members: &Bits, records: &mut [Record]| {
        one_address(classes, dimension, members, records, words)
    };
    layout.by_src = one(&family.src, &split.by_src, &mut src)?;
    layout.by_dst = one(&family.dst, &split.by_dst, &mut dst)?;
    for (part, members) in split.both.iter().enumerate() {
        let Some(members) = members else { continue };
        let sources = Asked::of(&family.src, members, &mut src, part);
        let destinations = Asked::of(&family.dst, members, &mut dst, part);
        let pairs = pairs(&sources, &destinations, budget)?;
        layout.both[part] = both_addresses(classes, pairs, words)?;
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
    let l4 = &classes.whole_l4;
    let start = words.reserve(lists.len() as u64 * l4.len() as u64)?;
    for (index, l4_class) in l4.iter().enumerate() {
        let common = class::common(lines, &everywhere, l4_class);
        for (class, own) in lists.iter().enumerate() {
            let cell = Cell::new(lines, own, &common, l4_class);
            let end = decide::fate(lines, 0..lines.rules.len(), cell, false).end;
            words.set(start + (class * l4.len() + index) as u32, value(lines, end));
        }
    }
    Ok(start)
}

/// An end as the tables have it: the least is the first in order.
fn value(lines: &Lines<'_>, end: End) -> u32 {
    let kind = decide::word(lines.rules, Action::Allow, end) >> 24;
    end.rule().map_or(NONE, |rule| (rule as u32) << 8 | kind)
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
    words: &mut Words,
) -> Result<HashLayout, CompileError> {
    let mut lists = Lists::default();
    let mut written = Vec::new();
    let mut rows = HashMap::new();
    let mut slots = Vec::new();
    let mut list = Vec::new();
    for pair in pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        list.clear();
        list.extend(pair.iter().map(|&(_, _, line)| line));
        let number = lists.number(&list) as usize;
        if number == written.len() {
            written.push(write_list(classes, &list, &mut rows, words)?);
        }
        let (at, row) = written[number];
        slots.push([pair[0].0, pair[0].1, at, row]);
    }
    drop(pairs);
    let mut table = hash_lines(slots.len());
    loop {
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
    rows: &mut HashMap<Vec<u32>, u32>,
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
    if let Some(&row) = rows.get(&shape) {
        return Ok((at, row));
    }
    let row = words.reserve(classes.whole_l4.len() as u64)?;
    for (word, l4) in (row..).zip(&classes.whole_l4) {
        let cell = Cell::new(lines, list, &[], l4);
        let end = decide::fate(lines, 0..lines.rules.len(), cell, false).end;
        let undecidable = matches!(end, End::Undecidable(_));
        let index = end
            .rule()
            .and_then(|first| list.iter().position(|&line| rule(line) == first));
        let index = index.map_or(NONE, |index| (index as u32) << 1 | u32::from(undecidable));
        words.set(word, index);
    }
    rows.insert(shape, row);
    Ok((at, row))
}
