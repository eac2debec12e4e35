//! The combination for many rules over both addresses: the lines of the ruleset
//! are split into parts, each part gives its first line, and the first of those
//! decides.
//!
//! A part of lines that ask for one address only is a table (class × L4
//! class). A part of lines that ask for both is a hash table of the pairs of
//! classes that have a line at all; an address in no line of the part asks
//! nothing of it.
//!
//! Where source ports decide, a value leads to a row of one for each sixteen
//! classes of them, and from there to one for each: all L4 classes with all
//! source ports would be too many.

use super::{Tables, is_set};
use crate::abi::{
    BY_SOURCE_PORT, DECIDE_ASK, DECIDE_DROP, HASH_PROBES, HashLayout, LINE_WORDS, NONE,
    PART_SLOT_WORDS, PARTS, PARTS_RECORD_WORDS, at, flags,
};

/// The classes of an L4 header.
#[derive(Clone, Copy)]
pub(super) struct L4Classes {
    /// Without its source port.
    pub(super) l4: u32,
    /// Of its source port; 0 where none is asked for.
    pub(super) sport: u32,
}

/// The decision for a packet of these classes. `None` where the tables are
/// broken.
#[inline(always)]
pub(super) fn decision<const FAMILY: usize, T: Tables>(
    src: u32,
    dst: u32,
    l4: L4Classes,
    tables: &T,
) -> Option<u32> {
    macro_rules! constant {
        ($($at:ident)+) => {
            tables.constant::<FAMILY, { at::PARTS }, { 0 $(+ at::$at)+ }>()
        };
    }
    let record =
        |class: u32, records: u32| records.wrapping_add(class.wrapping_mul(PARTS_RECORD_WORDS));
    let src = record(src, constant!(SRC_RECORDS));
    let dst = record(dst, constant!(DST_RECORDS));
    let mut first = NONE;
    if constant!(BY_SRC) != NONE {
        first = by_one(constant!(BY_SRC), src, l4, tables)?;
    }
    if constant!(BY_DST) != NONE {
        first = first.min(by_one(constant!(BY_DST), dst, l4, tables)?);
    }
    // Written out, like the levels of a trie.
    macro_rules! both {
        ($($part:literal)*) => {$({
            const HASH: usize = at::BOTH + $part * at::NEXT_HASH;
            let hash = HashLayout {
                table: tables.constant::<FAMILY, { at::PARTS }, { HASH + at::HASH_TABLE }>(),
                mask: tables.constant::<FAMILY, { at::PARTS }, { HASH + at::HASH_MASK }>(),
            };
            if hash.table != NONE {
                let src = tables.word(src.wrapping_add(1 + $part))?;
                let dst = tables.word(dst.wrapping_add(1 + $part))?;
                if src != 0 && dst != 0 {
                    first = first.min(by_both(hash, src, dst, l4, tables)?);
                }
            }
        })*};
    }
    const { assert!(PARTS == 4) };
    both!(0 1 2 3);
    Some(if first == NONE {
        constant!(DEFAULT)
    } else {
        first.rotate_right(8)
    })
}

/// The first line of a part that asks for one address: `record` has the class.
#[inline(always)]
fn by_one<T: Tables>(table: u32, record: u32, l4: L4Classes, tables: &T) -> Option<u32> {
    let class = tables.word(record)?;
    let row = class.wrapping_mul(tables.constant::<{ at::L4_CLASSES }, 0, 0>());
    let value = tables.word(table.wrapping_add(row).wrapping_add(l4.l4))?;
    by_source_port(value, l4.sport, tables)
}

const _: () = assert!(LINE_WORDS == 1 << 4);

/// The value itself, or where source ports decide, that of their class.
#[inline(always)]
fn by_source_port<T: Tables>(value: u32, sport: u32, tables: &T) -> Option<u32> {
    let decide = |value: u32| value != NONE && value & BY_SOURCE_PORT != 0;
    if !is_set(flags::SOURCE_PORTS, tables) || !decide(value) {
        return Some(value);
    }
    let value = tables.word((value >> 8 << 4).wrapping_add(sport >> 4))?;
    if !decide(value) {
        return Some(value);
    }
    tables.word((value >> 8 << 4).wrapping_add(sport & 0xf))
}

/// The first line of a part that asks for both.
#[inline(always)]
fn by_both<T: Tables>(
    hash: HashLayout,
    src: u32,
    dst: u32,
    l4: L4Classes,
    tables: &T,
) -> Option<u32> {
    let place = hash_of(src, dst);
    macro_rules! probe {
        ($($probe:literal)*) => {$(
            let line = tables.line(hash.table.wrapping_add(place.wrapping_add($probe) & hash.mask))?;
            let mut slot = 0;
            while slot < LINE_WORDS {
                if line.0[slot] == src && line.0[slot + 1] == dst {
                    return first_of(line.0[slot + 2], line.0[slot + 3], l4, tables);
                }
                slot += PART_SLOT_WORDS;
            }
            // Lines are filled from the front.
            if line.0[LINE_WORDS - PART_SLOT_WORDS] == 0 {
                return Some(NONE);
            }
        )*};
    }
    const { assert!(HASH_PROBES == 4) };
    probe!(0 1 2 3);
    Some(NONE)
}

/// The first line of a list: which of them the L4 class has in `row`.
#[inline(always)]
fn first_of<T: Tables>(list: u32, row: u32, l4: L4Classes, tables: &T) -> Option<u32> {
    let index = tables.word(row.wrapping_add(l4.l4))?;
    let index = by_source_port(index, l4.sport, tables)?;
    if index == NONE {
        return Some(NONE);
    }
    let value = tables.word(list.wrapping_add(index >> 8))?;
    Some(if index & 1 == 0 {
        value
    } else {
        value & !0xff | (DECIDE_ASK | DECIDE_DROP) >> 24
    })
}

/// Where the search for a pair begins. Mixed like in Appleby's `MurmurHash3`.
#[inline(always)]
#[must_use]
pub const fn hash_of(src: u32, dst: u32) -> u32 {
    let mut hash = src.wrapping_mul(0xcc9e_2d51).rotate_left(15) ^ dst;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
