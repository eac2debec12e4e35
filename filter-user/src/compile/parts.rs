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
    PARTS_RECORD_WORDS, PartsLayout,
};
use filter_common::classify::parts::hash_of;
use hashbrown::HashMap;

use super::CompileError;
use super::address::Dimension;
use super::bits::Bits;
use super::class::WITHOUT;
use super::classes::{Classes, FamilyClasses};
use super::decide::{self, End};
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

    let mut finder = Finder {
        walk: Walk::of(classes),
        by_source_port: SourcePortRows::default(),
    };
    let mut one = |dimension, members: &Bits, records: &mut [Record]| {
        one_address(lines, dimension, members, records, &mut finder, words)
    };
    layout.by_src = one(&family.src, &split.by_src, &mut src)?;
    layout.by_dst = one(&family.dst, &split.by_dst, &mut dst)?;
    let mut finder = ListFinder {
        finder,
        shapes: HashMap::new(),
    };
    for (part, members) in split.both.iter().enumerate() {
        let Some(members) = members else { continue };
        let sources = Asked::of(&family.src, members, &mut src, part);
        let destinations = Asked::of(&family.dst, members, &mut dst, part);
        let pairs = pairs(&sources, &destinations, budget)?;
        layout.both[part] = both_addresses(lines, pairs, &mut finder, budget, words)?;
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
    lines: &Lines<'_>,
    dimension: &Dimension,
    members: &Bits,
    records: &mut [Record],
    finder: &mut Finder,
    words: &mut Words,
) -> Result<u32, CompileError> {
    let everywhere = dimension.everywhere.intersection(members);
    let everywhere: Vec<u32> = everywhere.iter().map(|line| line as u32).collect();
    let keyed = |&line: &u32| {
        let line = line as usize;
        (lines.condition(line), lines.all[line].rule as u32)
    };
    let mut lists = Lists::default();
    let mut rows = Lists::default();
    let mut row_of = Vec::new();
    let (mut own, mut row) = (Vec::new(), Vec::new());
    for (record, class) in records.iter_mut().zip(dimension.classes()) {
        own.clear();
        let member = |line: &&u32| members.contains((**line & !WITHOUT) as usize);
        own.extend(class.own.iter().filter(member));
        let list = lists.number(&own) as usize;
        if list == row_of.len() {
            own.retain(|line| line & WITHOUT == 0);
            own.extend(everywhere.iter().filter(|line| class.contains(**line)));
            own.sort_unstable();
            finder.walk.along(own.iter().map(keyed));
            let value = |key: u32| value(lines, key);
            finder.row(value, &mut row, words)?;
            row_of.push(rows.number(&row));
        }
        record[0] = row_of[list];
    }
    if rows.len() == 1 && rows.get(0).iter().all(|&value| value == NONE) {
        return Ok(NONE);
    }
    let count = rows.get(0).len();
    let start = words.reserve(rows.len() as u64 * count as u64)?;
    for (room, row) in words.at(start).chunks_exact_mut(count).zip(rows.iter()) {
        room.copy_from_slice(row);
    }
    Ok(start)
}

/// Finds the first line of lists, and writes what it comes to where source ports
/// decide.
struct Finder {
    walk: Walk,
    by_source_port: SourcePortRows,
}

impl Finder {
    /// What the last walk has found, as a row of one value for each L4 class: that
    /// of the key; where source ports decide, where theirs are.
    fn row(
        &mut self,
        value: impl Fn(u32) -> u32,
        row: &mut Vec<u32>,
        words: &mut Words,
    ) -> Result<(), CompileError> {
        let value = |key: u32| if key == NO_KEY { NONE } else { value(key) };
        let mut known: Vec<(u32, u32)> = Vec::new();
        row.clear();
        for first in self.walk.found() {
            let (number, keys) = match first {
                First::Same(key) => {
                    row.push(value(key));
                    continue;
                }
                First::BySourcePort(number, keys) => (number, keys),
            };
            if let Some(&(_, word)) = known.iter().find(|(known, _)| *known == number) {
                row.push(word);
                continue;
            }
            let word = self.by_source_port.write(keys, value, words)?;
            known.push((number, word));
            row.push(word);
        }
        Ok(())
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
        let place = |start: u32| (start / LINE_WORDS as u32) << 8 | BY_SOURCE_PORT;
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
            .all(|&word| word == head[0] && (word == NONE || word & BY_SOURCE_PORT == 0))
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

/// What a [key](Walk::along) of a rule comes to in the tables: the least is the
/// first in order.
fn value(lines: &Lines<'_>, key: u32) -> u32 {
    let rule = (key >> 1) as usize;
    let end = if key & 1 == 0 {
        End::Rule(rule)
    } else {
        End::Undecidable(rule)
    };
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
        let everywhere: Vec<u32> = everywhere.iter().map(|line| line as u32).collect();
        let mut lists = Lists::default();
        lists.number(&[]);
        let mut matching = Vec::new();
        for (record, class) in records.iter_mut().zip(dimension.classes()) {
            matching.clear();
            let own = class.own.iter().copied().filter(|line| line & WITHOUT == 0);
            matching.extend(own.filter(|&line| members.contains(line as usize)));
            matching.extend(everywhere.iter().filter(|&&line| class.contains(line)));
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
    lines: &Lines<'_>,
    pairs: Vec<(u32, u32, u32)>,
    finder: &mut ListFinder,
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
            written.push(write_list(lines, &list, finder, words)?);
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
    lines: &Lines<'_>,
    list: &[u32],
    finder: &mut ListFinder,
    words: &mut Words,
) -> Result<(u32, u32), CompileError> {
    let rule = |line: u32| lines.all[line as usize].rule as u32;
    // What each line asks, and the place of the first one of its rule.
    let mut asked: Vec<(usize, u32)> = Vec::with_capacity(list.len());
    for (index, &line) in list.iter().enumerate() {
        let first = match asked.last() {
            Some(&(_, first)) if rule(list[first as usize]) == rule(line) => first,
            _ => index as u32,
        };
        asked.push((lines.condition(line as usize), first));
    }
    let at = words.reserve(list.len() as u64)?;
    for (word, &line) in words.at(at).iter_mut().zip(list) {
        *word = value(lines, rule(line) << 1);
    }
    let shape: Vec<u32> = asked
        .iter()
        .flat_map(|&(condition, first)| [condition as u32, first])
        .collect();
    if let Some(&row) = finder.shapes.get(&shape) {
        return Ok((at, row));
    }
    let ListFinder { finder, shapes } = finder;
    finder.walk.along(asked.into_iter());
    let index = |key: u32| (key >> 1) << 8 | key & 1;
    let mut values = Vec::new();
    finder.row(index, &mut values, words)?;
    let row = words.reserve_all(&values)?;
    shapes.insert(shape, row);
    Ok((at, row))
}

/// The same for lists of lines that ask for both addresses.
struct ListFinder {
    finder: Finder,
    /// The rows of lists that ask the same, by what they ask.
    shapes: HashMap<Vec<u32>, u32>,
}
