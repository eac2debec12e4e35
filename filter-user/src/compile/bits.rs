//! A set of small numbers as a bitmap.

/// Which numbers are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set, with room for the numbers below `count`.
    pub(super) fn empty(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Those numbers below `count` for which `holds`.
    pub(super) fn of(count: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut set = Self::empty(count);
        (0..count)
            .filter(|&number| holds(number))
            .for_each(|number| set.insert(number));
        set
    }

    /// Adds a number.
    pub(super) fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// Whether it has this number.
    pub(super) fn contains(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    /// The numbers in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// The numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.checked_sub(1)?;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_across_words() {
        let some = Bits::of(200, |number| matches!(number, 0 | 63 | 64 | 130 | 199));
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 63, 64, 130, 199]);
        assert!(some.contains(199) && !some.contains(198));
        let mut other = Bits::empty(200);
        other.insert(64);
        other.insert(65);
        assert_eq!(some.intersection(&other).iter().collect::<Vec<_>>(), [64]);
    }
}
