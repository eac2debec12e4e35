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

    /// Adds the numbers below `count`.
    pub(super) fn fill(&mut self, count: usize) {
        self.0.clear();
        self.0.resize(count / 64, u64::MAX);
        if !count.is_multiple_of(64) {
            self.0.push((1 << (count % 64)) - 1);
        }
    }

    /// Takes out the numbers of another set.
    pub(super) fn remove(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= !other;
        }
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Whether a number is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// The numbers in both, in order.
    pub(super) fn in_both<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = usize> + 's {
        numbers(self.0.iter().zip(&other.0).map(|(a, b)| a & b))
    }

    /// The numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        numbers(self.0.iter().copied())
    }
}

/// The numbers that these words have.
fn numbers(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(index, word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest.checked_sub(1)?;
            Some(index * 64 + bit)
        })
    })
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
        assert_eq!(some.in_both(&other).collect::<Vec<_>>(), [64]);
        assert!(some.meets(&other));
        other.remove(&some);
        assert!(!some.meets(&other) && !other.is_empty());
        for count in [0, 1, 63, 64, 65, 200] {
            other.fill(count);
            assert!(other.iter().eq(0..count));
            assert_eq!(other.is_empty(), count == 0);
        }
    }
}
