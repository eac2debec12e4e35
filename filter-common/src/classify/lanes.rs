//! IPv4 address → class: a table of the first bits, and behind it lines that are
//! searched in lanes, several boundaries of a word at once.
//!
//! A step costs one access to memory. No step calls a helper, and the search in a
//! line takes no jump that traffic could make unpredictable: each lane of a
//! subtraction keeps or loses a bit of its own, and those that are kept are counted
//! (Lamport 1975, "Multiple byte processing with full-word instructions").

use super::Tables;
use crate::abi::lanes::{BRANCH_ENTRIES, BRANCH_WORDS, PAIR_ENTRIES, PAIR_WORDS};
use crate::abi::{
    LEVELS_SMALL, LEVELS_V4, LINE_WORDS, Line, NONE, PAIR, PLACE, POINTER, at, forms,
};
use crate::parse::Address;

/// The class of an IPv4 address, by the root at the sum of `A` and `B` among the
/// [constants](Tables::constant). `None` where the tables are broken.
///
/// How many levels there are, and of which forms, are constants too: the verifier
/// deletes the others.
#[inline(always)]
pub(super) fn class<const A: usize, const B: usize, T: Tables>(
    value: Address,
    tables: &T,
) -> Option<u32> {
    let address = (value.high >> 32) as u32;
    let levels = || tables.constant::<A, B, { at::LEVELS }>();
    let has = |form: u32| tables.constant::<A, B, { at::FORMS }>() & form != 0;
    let table = tables.constant::<A, B, { at::TABLE }>();
    let place = || address >> (tables.constant::<A, B, { at::SHIFT }>() & 31);
    let mut entry = if table != NONE {
        tables.word(table.wrapping_add(place()))?
    } else if has(forms::DIRECT) {
        tables
            .constant::<A, B, { at::ENTRY }>()
            .wrapping_add(place())
    } else {
        tables.constant::<A, B, { at::ENTRY }>()
    };
    if levels() == 0 {
        return Some(entry);
    }
    let search = Search::of::<A, B, T>(address, tables);
    // Written out, level by level: the verifier remembers too few states in a
    // loop, and the ways through it would multiply.
    macro_rules! descend {
        ($($level:literal)*) => {$(
            if $level < LEVELS_V4 && !(T::SMALL && $level >= LEVELS_SMALL) {
                let certain = $level == 0 && has(forms::CERTAIN | forms::DIRECT);
                if $level >= levels() || !certain && entry & POINTER == 0 {
                    return Some(entry);
                }
                let line = tables.line(entry & PLACE)?;
                entry = if has(forms::PAIR) && (!has(forms::BRANCH) || entry & PAIR != 0) {
                    search.pair(line)
                } else {
                    search.branch(line)
                };
            }
        )*};
    }
    const { assert!(LEVELS_V4 == 5) };
    descend!(0 1 2 3 4);
    (entry & POINTER == 0).then_some(entry)
}

/// What is searched for, in each lane of a word.
struct Search {
    /// The bits that the table has not taken, and above them the lane's last bit.
    keys: u64,
    /// The first bit of each lane.
    ones: u64,
    /// From there to the last bit.
    last: u32,
    /// From there to the first bit of the last lane.
    fold: u32,
}

impl Search {
    #[inline(always)]
    fn of<const A: usize, const B: usize, T: Tables>(address: u32, tables: &T) -> Self {
        let low = tables.constant::<A, B, { at::ONES }>();
        let high = tables.constant::<A, B, { at::ONES_HIGH }>();
        let ones = u64::from(high) << 32 | u64::from(low);
        let last = tables.constant::<A, B, { at::LAST }>() & 63;
        let rest = address & tables.constant::<A, B, { at::MASK }>();
        Self {
            keys: u64::from(rest).wrapping_mul(ones) | ones << last,
            ones,
            last,
            fold: tables.constant::<A, B, { at::FOLD }>() & 63,
        }
    }

    /// The entry of the way that the key takes: behind as many as boundaries are not
    /// above it.
    #[inline(always)]
    fn branch(&self, line: &Line) -> u32 {
        let mut kept = 0_u64;
        let mut index = 0;
        while index < BRANCH_WORDS {
            kept += self.kept(self.difference(line, index));
            index += 1;
        }
        line.0[(BRANCH_ENTRIES + (self.sum(kept) & 0x1f)) % LINE_WORDS]
    }

    /// The entry of the key, where two take turns: whether the number of such
    /// boundaries is odd is all there is to know.
    #[inline(always)]
    fn pair(&self, line: &Line) -> u32 {
        let mut odd = 0_u64;
        let mut index = 0;
        while index < PAIR_WORDS {
            odd ^= self.difference(line, index);
            index += 1;
        }
        line.0[PAIR_ENTRIES + (self.sum(self.kept(odd)) & 1)]
    }

    /// In each lane the last bit is kept where the boundary of this word is not above
    /// the key.
    #[inline(always)]
    fn difference(&self, line: &Line, index: usize) -> u64 {
        let words: &[u64; LINE_WORDS / 2] = bytemuck::cast_ref(line);
        self.keys.wrapping_sub(words[index])
    }

    /// 1 in each lane whose last bit is kept.
    #[inline(always)]
    const fn kept(&self, difference: u64) -> u64 {
        (difference >> self.last) & self.ones
    }

    /// The sum of all lanes, in the last lane of a product, and above it what is no
    /// part of it.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lowest bits are asked for"
    )]
    const fn sum(&self, lanes: u64) -> usize {
        (lanes.wrapping_mul(self.ones) >> self.fold) as usize
    }
}
