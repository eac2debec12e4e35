//! A set of lines as a bitmap, in their order: the meaning of an equivalence
//! class.

/// Which lines match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LineSet(Vec<u64>);

impl LineSet {
    /// The empty set, with room for `lines` lines.
    pub(super) fn empty(lines: usize) -> Self {
        Self(vec![0; lines.div_ceil(64)])
    }

    /// Those of `lines` lines for which `holds`.
    pub(super) fn of(lines: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut set = Self::empty(lines);
        (0..lines)
            .filter(|&line| holds(line))
            .for_each(|line| set.insert(line));
        set
    }

    /// Adds a line.
    pub(super) fn insert(&mut self, line: usize) {
        self.0[line / 64] |= 1 << (line % 64);
    }

    /// Takes a line out.
    pub(super) fn remove(&mut self, line: usize) {
        self.0[line / 64] &= !(1 << (line % 64));
    }

    /// Whether it has this line.
    pub(super) fn contains(&self, line: usize) -> bool {
        self.0[line / 64] >> (line % 64) & 1 == 1
    }

    /// The lines in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// The first line from `start` on that is in this set and in `one` or
    /// `other`.
    pub(super) fn next_in_either(&self, start: usize, one: &Self, other: &Self) -> Option<usize> {
        let first = start / 64;
        let mut mask = u64::MAX << (start % 64);
        for index in first..self.0.len() {
            let common = self.0[index] & (one.0[index] | other.0[index]) & mask;
            if common != 0 {
                return Some(index * 64 + common.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_common_line_across_words() {
        let all = LineSet::of(200, |_| true);
        let mut some = LineSet::of(200, |line| line == 130 || line == 199);
        let none = LineSet::empty(200);
        assert_eq!(all.next_in_either(0, &some, &none), Some(130));
        assert_eq!(all.next_in_either(130, &none, &some), Some(130));
        assert_eq!(all.next_in_either(131, &none, &some), Some(199));
        assert_eq!(all.next_in_either(200, &none, &some), None);
        assert_eq!(all.next_in_either(0, &none, &none), None);
        assert_eq!(all.intersection(&some), some);
        assert!(some.contains(199) && !some.contains(198));
        some.remove(130);
        assert_eq!(all.next_in_either(0, &some, &none), Some(199));
    }
}
