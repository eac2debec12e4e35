//! IPv6 address → class: a table over the part of the address space that has
//! boundaries, and behind it lines of boundaries of 64 bits; where the first half of
//! an address leaves it open, lines of the second half.
//!
//! A step costs one access to memory. No step calls a helper, and the search in a
//! line takes no jump that traffic could make unpredictable.

use super::Tables;
use crate::abi::trie::{BRANCH_BOUNDARIES, BRANCH_ENTRIES, PAIR_BOUNDARIES, PAIR_ENTRIES};
use crate::abi::{
    LEVELS_SMALL, LEVELS_V6, LINE_WORDS, LOW, Line, NONE, PAIR, PLACE, POINTER, at, forms,
};
use crate::parse::Address;

/// The class of an IPv6 address, by the root at the sum of `A` and `B` among the
/// [constants](Tables::constant). `None` where the tables are broken.
///
/// How many levels there are, and of which forms, are constants too: the
/// verifier deletes the others.
#[inline(always)]
pub(super) fn class<const A: usize, const B: usize, T: Tables>(
    value: Address,
    tables: &T,
) -> Option<u32> {
    let levels = || tables.constant::<A, B, { at::LEVELS }>();
    let has = |form: u32| tables.constant::<A, B, { at::FORMS }>() & form != 0;
    let table = tables.constant::<A, B, { at::TABLE }>();
    let mut entry = if table != NONE {
        tables.word(table.wrapping_add(place::<A, B, T>(value.high, tables)))?
    } else if has(forms::DIRECT) {
        let first = tables.constant::<A, B, { at::ENTRY }>();
        first.wrapping_add(place::<A, B, T>(value.high, tables))
    } else {
        tables.constant::<A, B, { at::ENTRY }>()
    };
    let mut key = value.high;
    // Written out, level by level: the verifier remembers too few states in a
    // loop, and the ways through it would multiply.
    macro_rules! descend {
        ($($level:literal)*) => {$(
            if $level < LEVELS_V6 && !(T::SMALL && $level >= LEVELS_SMALL) {
                let certain = $level == 0 && has(forms::CERTAIN | forms::DIRECT);
                if $level >= levels() || !certain && entry & POINTER == 0 {
                    return Some(entry);
                }
                if has(forms::LOW) {
                    let is_low = u64::from(entry & LOW) / u64::from(LOW);
                    key ^= (key ^ value.low) & is_low.wrapping_neg();
                }
                let line = tables.line(entry & PLACE)?;
                entry = if has(forms::PAIR) && (!has(forms::BRANCH) || entry & PAIR != 0) {
                    pair(line, key)
                } else {
                    branch(line, key)
                };
            }
        )*};
    }
    const { assert!(LEVELS_V6 == 18) };
    descend!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
    // Nothing is left to look for.
    let _ = key;
    (entry & POINTER == 0).then_some(entry)
}

/// Which entry of the table, or line of the row, is an address's: the last where it
/// does not reach.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "compared by its sign; at most the number of entries"
)]
fn place<const A: usize, const B: usize, T: Tables>(high: u64, tables: &T) -> u32 {
    let base = u64::from(tables.constant::<A, B, { at::BASE_HIGH }>()) << 32
        | u64::from(tables.constant::<A, B, { at::BASE }>());
    let last = u64::from(tables.constant::<A, B, { at::LAST_PLACE }>());
    let shift = tables.constant::<A, B, { at::RANGE_SHIFT }>() & 63;
    let beyond = (high.wrapping_sub(base) >> shift).wrapping_sub(last);
    // Without a jump.
    (last as u32).wrapping_add((beyond & (beyond as i64 >> 63) as u64) as u32)
}

/// The entry of the way that the key takes: behind as many as boundaries are above
/// it.
#[inline(always)]
fn branch(line: &Line, key: u64) -> u32 {
    let mut above = 0;
    let mut index = 0;
    while index < BRANCH_BOUNDARIES {
        above += (borrow(line, index, key) >> 63) as usize;
        index += 1;
    }
    line.0[(BRANCH_ENTRIES + above) % LINE_WORDS]
}

/// The entry of the key, where two take turns: whether the number of such
/// boundaries is odd is all there is to know.
#[inline(always)]
fn pair(line: &Line, key: u64) -> u32 {
    let mut odd = 0;
    let mut index = 0;
    while index < PAIR_BOUNDARIES {
        odd ^= borrow(line, index, key);
        index += 1;
    }
    line.0[PAIR_ENTRIES + (odd >> 63) as usize % 2]
}

/// The highest bit is set where this boundary is above the key: by the borrow of a
/// subtraction, since a comparison would be compiled to a jump.
#[inline(always)]
fn borrow(line: &Line, index: usize, key: u64) -> u64 {
    let boundaries: &[u64; LINE_WORDS / 2] = bytemuck::cast_ref(line);
    borrow_of(key, boundaries[index])
}

/// That of `key - boundary` (Warren, Hacker's Delight, 2-13).
#[inline(always)]
const fn borrow_of(key: u64, boundary: u64) -> u64 {
    (!key & boundary) | (!(key ^ boundary) & key.wrapping_sub(boundary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_as_comparisons_do() {
        let values = [0, 1, 2, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 63) + 1];
        let values = values.into_iter().flat_map(|value| [value, !value]);
        for boundary in values.clone() {
            for key in values.clone() {
                assert_eq!(borrow_of(key, boundary) >> 63 == 1, boundary > key);
            }
        }
    }
}
