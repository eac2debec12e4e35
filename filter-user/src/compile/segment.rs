//! What a dimension of addresses is cut into: from a value on, a class.

use std::cmp::Ordering;

/// From a value on, until the next segment: this class. Values are aligned to the
/// top of 64 bits, those of more bits to the top of 128 ([`Long`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<V = u64> {
    pub(super) first: V,
    pub(super) class: u32,
}

/// A value of 128 bits. In two halves it is aligned as they are, so that two
/// million segments take a quarter less memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Long {
    pub(super) high: u64,
    pub(super) low: u64,
}

impl Long {
    /// The value as one number.
    pub(super) fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl From<u128> for Long {
    fn from(bits: u128) -> Self {
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

// As one number, which takes no branch: a million of them are sorted.
impl Ord for Long {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bits().cmp(&other.bits())
    }
}

impl PartialOrd for Long {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
