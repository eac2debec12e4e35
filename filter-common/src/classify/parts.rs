//! The combination for many rules over both addresses: the lines of the ruleset
//! are split into parts, each part gives its first line, and the first of those
//! decides.
//!
//! A part of lines that ask for one address only has a list of lines for each
//! class of it. A part of lines that ask for both has a list for each pair of
//! classes that has a line at all: the rows of a sparse matrix, laid one over
//! the other so that no two of their slots meet, and each slot knows its owner.
//! Which value of a list an L4 class has, a row says that is shared by all
//! lists which ask the same. Most lists have one value, and it stands beside what leads
//! to it.
//!
//! No jump here depends on the packet, but where a list has several values or
//! source ports decide: the parts know nothing of each other, so a processor that
//! need not guess reads what all of them want at the same time. The slot of
//! another source is masked out, and its row is one that is read all the time.
//!
//! Where source ports decide, a value leads to a row of one for each sixteen
//! classes of them, and from there to one for each: all L4 classes with all
//! source ports would be too many.

use super::{Tables, is_set};
use crate::abi::{
    DECIDE_ASK, DECIDE_DROP, ELSEWHERE, IN_A_LIST, LINE_WORDS, NONE, PARTS, RECORD_PARTS,
    RECORD_ROW, RECORD_VALUES, SLOT_OWNER, SLOT_ROW, SLOT_VALUES, WIDTH_BYTE, WIDTH_HALF, at,
    flags, list_of, used,
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
/// broken. Of a `PLAIN` frame the L4 header was read: all lines can be decided.
#[inline(always)]
pub(super) fn decision<const FAMILY: usize, const PLAIN: bool, T: Tables>(
    src: u32,
    dst: u32,
    l4: L4Classes,
    tables: &T,
) -> Option<u32> {
    macro_rules! constant {
        ($at:ident) => {
            tables.constant::<FAMILY, { at::PARTS }, { at::$at }>()
        };
    }
    let src = tables.record(constant!(SRC_RECORDS).wrapping_add(src))?;
    let dst = tables.record(constant!(DST_RECORDS).wrapping_add(dst))?;
    let rows = constant!(ROWS).wrapping_add(l4.l4);
    let mut first = constant!(DEFAULT);
    // No closure: it would become a function of its own.
    macro_rules! ask {
        ($row:expr, $has:ident[$values:ident]) => {{
            let index = rows.wrapping_add($row);
            let element = element::<FAMILY, T>(index, tables)?;
            let value = $has[$values + (element.number & 1) as usize];
            let value = settled::<PLAIN, T>(value, element, l4.sport, tables)?;
            first = least(first, value, tables);
        }};
    }
    // Written out, like the levels of a trie.
    macro_rules! both {
        ($($part:literal)*) => {$(
            if constant!(USED) & used::BOTH << $part != 0 {
                let displacement = src[RECORD_PARTS + $part];
                let slot = tables.slot(displacement.wrapping_add(dst[RECORD_PARTS + $part]))?;
                let owned = ones_if_zero(displacement ^ slot[SLOT_OWNER], tables);
                ask!(slot[SLOT_ROW] & owned, slot[SLOT_VALUES]);
            }
        )*};
    }
    const { assert!(PARTS == 4) };
    both!(0 1 2 3);
    if constant!(USED) & used::SRC != 0 {
        ask!(src[RECORD_ROW], src[RECORD_VALUES]);
    }
    if constant!(USED) & used::DST != 0 {
        ask!(dst[RECORD_ROW], dst[RECORD_VALUES]);
    }
    if constant!(ANY) != NONE {
        let value = tables.word(constant!(ANY).wrapping_add(l4.l4))?;
        let value = by_source_port(value, l4.sport, tables)?;
        first = least(first, value, tables);
    }
    Some(first.rotate_right(8))
}

/// An element of a row.
#[derive(Clone, Copy)]
struct Element {
    number: u32,
    /// Which bit is the highest.
    highest: u32,
}

#[inline(always)]
fn element<const FAMILY: usize, T: Tables>(index: u32, tables: &T) -> Option<Element> {
    let (number, highest) = match tables.constant::<FAMILY, { at::PARTS }, { at::ROW_WIDTH }>() {
        WIDTH_BYTE => (u32::from(tables.byte(index)?), 7),
        WIDTH_HALF => (u32::from(tables.half(index)?), 15),
        _ => (tables.word(index)?, 31),
    };
    Some(Element { number, highest })
}

/// The value itself, and not where it is.
#[inline(always)]
fn settled<const PLAIN: bool, T: Tables>(
    mut value: u32,
    element: Element,
    sport: u32,
    tables: &T,
) -> Option<u32> {
    if value & ELSEWHERE != 0 {
        if value & IN_A_LIST != 0 {
            let place = (element.number & !(1 << element.highest)) >> 1;
            value = tables.word(list_of(value).wrapping_add(place))?;
        }
        value = by_source_port(value, sport, tables)?;
    }
    if PLAIN {
        return Some(value);
    }
    let undecidable = !ones_if_zero(element.number >> element.highest, tables);
    let dropped = value & !0xff | (DECIDE_ASK | DECIDE_DROP) >> 24;
    Some(value & !undecidable | dropped & undecidable)
}

/// All bits where the number is 0, else none: by the borrow of a subtraction.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "all bits are alike")]
fn ones_if_zero<T: Tables>(number: u32, tables: &T) -> u32 {
    tables.sign(u64::from(number).wrapping_sub(1)) as u32
}

/// The less of two, likewise.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "of two words one is left")]
fn least<T: Tables>(one: u32, other: u32, tables: &T) -> u32 {
    let (one, other) = (u64::from(one), u64::from(other));
    let difference = one.wrapping_sub(other);
    other.wrapping_add(difference & tables.sign(difference)) as u32
}

const _: () = assert!(LINE_WORDS == 1 << 4);

/// The value itself, or where source ports decide, that of their class.
#[inline(always)]
fn by_source_port<T: Tables>(value: u32, sport: u32, tables: &T) -> Option<u32> {
    if !is_set(flags::SOURCE_PORTS, tables) || value & ELSEWHERE == 0 {
        return Some(value);
    }
    let value = tables.word((value >> 8 << 4).wrapping_add(sport >> 4))?;
    if value & ELSEWHERE == 0 {
        return Some(value);
    }
    tables.word((value >> 8 << 4).wrapping_add(sport & 0xf))
}

#[cfg(test)]
mod tests {
    use crate::abi::{Line, NO_LINE, Record, Slot};

    use super::*;

    struct Nothing;

    impl Tables for Nothing {
        fn word(&self, _: u32) -> Option<u32> {
            None
        }

        fn half(&self, _: u32) -> Option<u16> {
            None
        }

        fn byte(&self, _: u32) -> Option<u8> {
            None
        }

        fn line(&self, _: u32) -> Option<&Line> {
            None
        }

        fn slot(&self, _: u32) -> Option<&Slot> {
            None
        }

        fn record(&self, _: u32) -> Option<&Record> {
            None
        }

        fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32 {
            NONE
        }
    }

    #[test]
    fn arithmetic_does_what_comparisons_do() {
        let numbers = [0, 1, 2, 0x7f, 0x80, 1 << 30, 1 << 31, NO_LINE, NONE];
        for one in numbers {
            let is_zero = one == 0;
            assert_eq!(ones_if_zero(one, &Nothing), if is_zero { NONE } else { 0 });
            for other in numbers {
                assert_eq!(least(one, other, &Nothing), one.min(other));
            }
        }
    }
}
