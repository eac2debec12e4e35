//! A set of rules as a bitmap, in rule order: the meaning of an equivalence
//! class.

/// Which rules match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RuleSet(Vec<u64>);

impl RuleSet {
    /// The empty set, with room for `rules` rules.
    pub(super) fn empty(rules: usize) -> Self {
        Self(vec![0; rules.div_ceil(64)])
    }

    /// Those of `rules` rules for which `holds`.
    pub(super) fn of(rules: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut set = Self::empty(rules);
        (0..rules)
            .filter(|&rule| holds(rule))
            .for_each(|rule| set.insert(rule));
        set
    }

    /// Adds a rule.
    pub(super) fn insert(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    /// Whether it has this rule.
    pub(super) fn contains(&self, rule: usize) -> bool {
        self.0[rule / 64] >> (rule % 64) & 1 == 1
    }

    /// The rules in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// The first rule that is in this set and in `one` or `other`.
    pub(super) fn first_in_either(&self, one: &Self, other: &Self) -> Option<usize> {
        self.0
            .iter()
            .zip(&one.0)
            .zip(&other.0)
            .enumerate()
            .find_map(|(index, ((word, one), other))| {
                let common = word & (one | other);
                (common != 0).then(|| index * 64 + common.trailing_zeros() as usize)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_common_rule_across_words() {
        let all = RuleSet::of(200, |_| true);
        let some = RuleSet::of(200, |rule| rule == 130 || rule == 199);
        let none = RuleSet::empty(200);
        assert_eq!(all.first_in_either(&some, &none), Some(130));
        assert_eq!(all.first_in_either(&none, &some), Some(130));
        assert_eq!(all.first_in_either(&none, &none), None);
        assert_eq!(all.intersection(&some), some);
        assert!(some.contains(199) && !some.contains(198));
    }
}
