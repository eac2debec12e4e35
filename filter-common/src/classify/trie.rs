//! IPv6 address → class, by a trie whose ways are compressed: nodes of 8 bits where
//! boundaries are dense, branches of up to six ways where they are not.
//!
//! A step costs one access to memory; no step calls a helper, and the search in
//! a branch takes no jump that traffic could make unpredictable.

use super::Tables;
use crate::abi::{
    BRANCH, LEVELS_SMALL, LEVELS_V6, LINE_WORDS, LOW, Line, NARROW_BOUNDARIES, NONE, PLACE,
    PLACE_WORDS, POINTER, WIDE, WIDE_BOUNDARIES, at, forms,
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
    let table = tables.constant::<A, B, { at::TABLE }>();
    if table == NONE {
        let entry = tables.constant::<A, B, { at::ENTRY }>();
        walk::<A, B, T>(value, value.high, entry, tables)
    } else {
        let top = (value.high >> 48) as u32;
        let entry = tables.word(table.wrapping_add(top))?;
        walk::<A, B, T>(value, value.high << 16, entry, tables)
    }
}

/// From an entry on; `key` is what is left of the value's half.
#[inline(always)]
fn walk<const A: usize, const B: usize, T: Tables>(
    value: Address,
    mut key: u64,
    mut entry: u32,
    tables: &T,
) -> Option<u32> {
    let levels = || tables.constant::<A, B, { at::LEVELS }>();
    let has = |form: u32| tables.constant::<A, B, { at::FORMS }>() & form != 0;
    // Written out, level by level: the verifier remembers too few states in a
    // loop, and the ways through it would multiply.
    macro_rules! descend {
        ($($level:literal)*) => {$(
            if $level < LEVELS_V6 && !(T::SMALL && $level >= LEVELS_SMALL) {
                if $level >= levels() || entry & POINTER == 0 {
                    return Some(entry);
                }
                if has(forms::LOW) && entry & LOW != 0 {
                    key = value.low;
                }
                let place = entry & PLACE;
                entry = if has(forms::NODE)
                    && (!has(forms::NARROW | forms::WIDE) || entry & BRANCH == 0)
                {
                    let next = place
                        .wrapping_mul(PLACE_WORDS)
                        .wrapping_add((key >> 56) as u32);
                    key <<= 8;
                    tables.word(next)?
                } else {
                    let line = tables.line(place / 2)?;
                    if has(forms::NARROW) && (!has(forms::WIDE) || entry & WIDE == 0) {
                        narrow(line, key, place as usize % 2)
                    } else {
                        wide(line, key)
                    }
                };
            }
        )*};
    }
    descend!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
    // Nothing is left to take bits from.
    let _ = key;
    (entry & POINTER == 0).then_some(entry)
}

#[inline(always)]
fn wide(line: &Line, key: u64) -> u32 {
    let boundaries: &[u64; LINE_WORDS / 2] = bytemuck::cast_ref(line);
    let mut above = 0;
    let mut index = 0;
    while index < WIDE_BOUNDARIES {
        above += is_above(boundaries[index], key);
        index += 1;
    }
    line.0[(WIDE_BOUNDARIES * 2 + above) % LINE_WORDS]
}

#[inline(always)]
fn narrow(line: &Line, key: u64, half: usize) -> u32 {
    let boundaries: &[u64; LINE_WORDS / 2] = bytemuck::cast_ref(line);
    let first = half * (LINE_WORDS / 4);
    let above = is_above(boundaries[first % (LINE_WORDS / 2)], key)
        + is_above(boundaries[(first + 1) % (LINE_WORDS / 2)], key);
    line.0[(half * PLACE_WORDS as usize + NARROW_BOUNDARIES * 2 + above) % LINE_WORDS]
}

/// 1 where `boundary > key`, else 0: by the borrow of the subtraction, since a
/// comparison would be compiled to a jump.
#[inline(always)]
const fn is_above(boundary: u64, key: u64) -> usize {
    // Warren, Hacker's Delight, 2-13.
    let borrow = (!key & boundary) | (!(key ^ boundary) & key.wrapping_sub(boundary));
    (borrow >> 63) as usize
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
                assert_eq!(is_above(boundary, key), usize::from(boundary > key));
            }
        }
    }
}
