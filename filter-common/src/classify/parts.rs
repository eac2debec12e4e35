//! The combination for many rules over both addresses: the lines of the ruleset
//! are split into parts, each part gives its first line, and the first of those
//! decides.
//!
//! A part of lines that ask for one address only has a list of lines for each
//! class of it. A part of lines that ask for both has a list for each pair of
//! classes that has a line at all: the rows of a sparse matrix, laid one over
//! the other so that no two of their slots meet, and each slot knows its owner.
//! Which value of a list an L4 class has, a row says that is shared by all
//! lists which ask the same.
//!
//! No jump here depends on the packet, but where source ports decide: the parts
//! know nothing of each other, so a processor that need not guess reads what all
//! of them want at the same time. What a jump would leave out (the slot of
//! another source, a list of which no line matches) is masked out, and leads to a
//! place that is read all the time.
//!
//! Where source ports decide, a value leads to a row of one for each sixteen
//! classes of them, and from there to one for each: all L4 classes with all
//! source ports would be too many.

use super::{Tables, is_set};
use crate::abi::{
    BY_SOURCE_PORT, DECIDE_ASK, DECIDE_DROP, LINE_WORDS, NO_LINE, NONE, PARTS, RECORD_LIST,
    RECORD_PARTS, RECORD_ROW, SLOT_LIST, SLOT_OWNER, SLOT_ROW, WIDTH_BYTE, WIDTH_HALF, at, flags,
    used,
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
    // No closure: it would become a function of its own.
    macro_rules! value {
        ($row:expr, $list:expr) => {{
            let index = rows.wrapping_add($row);
            let value = value::<FAMILY, PLAIN, T>(index, $list, tables)?;
            by_source_port(value, l4.sport, tables)?
        }};
    }
    let mut first = constant!(DEFAULT);
    // Written out, like the levels of a trie.
    macro_rules! both {
        ($($part:literal)*) => {$(
            if constant!(USED) & used::BOTH << $part != 0 {
                let displacement = src[RECORD_PARTS + $part];
                let slot = tables.slot(displacement.wrapping_add(dst[RECORD_PARTS + $part]))?;
                let owned = ones_if_zero(displacement ^ slot[SLOT_OWNER], tables);
                first = least(first, value!(slot[SLOT_ROW] & owned, slot[SLOT_LIST]), tables);
            }
        )*};
    }
    const { assert!(PARTS == 4) };
    both!(0 1 2 3);
    if constant!(USED) & used::SRC != 0 {
        first = least(first, value!(src[RECORD_ROW], src[RECORD_LIST]), tables);
    }
    if constant!(USED) & used::DST != 0 {
        first = least(first, value!(dst[RECORD_ROW], dst[RECORD_LIST]), tables);
    }
    if constant!(ANY) != NONE {
        let value = tables.word(constant!(ANY).wrapping_add(l4.l4))?;
        let value = by_source_port(value, l4.sport, tables)?;
        first = least(first, value, tables);
    }
    Some(first.rotate_right(8))
}

/// The first line of a list: the value whose place stands in a row, at the
/// element with this index.
#[inline(always)]
fn value<const FAMILY: usize, const PLAIN: bool, T: Tables>(
    index: u32,
    list: u32,
    tables: &T,
) -> Option<u32> {
    let (place, highest) = match tables.constant::<FAMILY, { at::PARTS }, { at::ROW_WIDTH }>() {
        WIDTH_BYTE => (u32::from(tables.byte(index)?), 7),
        WIDTH_HALF => (u32::from(tables.half(index)?), 15),
        _ => (tables.word(index)?, 31),
    };
    if PLAIN {
        let value = tables.word(list.wrapping_add(place))?;
        return Some(unless_zero(place, value, tables));
    }
    let undecidable = !ones_if_zero(place >> highest, tables);
    let place = place & !(1 << highest);
    let value = tables.word(list.wrapping_add(place))?;
    let dropped = value & !0xff | (DECIDE_ASK | DECIDE_DROP) >> 24;
    let value = value & !undecidable | dropped & undecidable;
    Some(unless_zero(place, value, tables))
}

/// The value at a place; [`NO_LINE`] where that is 0.
#[inline(always)]
fn unless_zero<T: Tables>(place: u32, value: u32, tables: &T) -> u32 {
    (value ^ NO_LINE) & !ones_if_zero(place, tables) ^ NO_LINE
}

/// All bits where the number is 0, else none: by the borrow of a subtraction.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "all bits are alike")]
fn ones_if_zero<T: Tables>(number: u32, tables: &T) -> u32 {
    tables.opaque(borrow(number, 1).1) as u32
}

/// The less of two.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "of two words one is left")]
fn least<T: Tables>(one: u32, other: u32, tables: &T) -> u32 {
    let (difference, borrow) = borrow(one, other);
    u64::from(other).wrapping_add(difference & tables.opaque(borrow)) as u32
}

/// The first less the second, and all bits where that is less than 0.
#[inline(always)]
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bits are moved"
)]
const fn borrow(one: u32, other: u32) -> (u64, u64) {
    let difference = (one as u64).wrapping_sub(other as u64);
    (difference, (difference as i64 >> 63) as u64)
}

const _: () = assert!(LINE_WORDS == 1 << 4);

/// The value itself, or where source ports decide, that of their class.
#[inline(always)]
fn by_source_port<T: Tables>(value: u32, sport: u32, tables: &T) -> Option<u32> {
    if !is_set(flags::SOURCE_PORTS, tables) || value & BY_SOURCE_PORT == 0 {
        return Some(value);
    }
    let value = tables.word((value >> 8 << 4).wrapping_add(sport >> 4))?;
    if value & BY_SOURCE_PORT == 0 {
        return Some(value);
    }
    tables.word((value >> 8 << 4).wrapping_add(sport & 0xf))
}

#[cfg(test)]
mod tests {
    use crate::abi::{Line, Record, Slot};

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
            let value = unless_zero(one, 7, &Nothing);
            assert_eq!(value, if is_zero { NO_LINE } else { 7 });
            for other in numbers {
                assert_eq!(least(one, other, &Nothing), one.min(other));
            }
        }
    }
}
