//! The heaviest of very many keys, in memory of a fixed size.
//!
//! "Space-Saving", by Metwally, Agrawal and El Abbadi (Efficient Computation of
//! Frequent and Top-k Elements in Data Streams, 2005), with weights: a key that
//! finds no room takes the place of the lightest, and its weight too. So what is
//! said of a key is never too low, and how much it may be too high is known.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Sums of weights by key, of the heaviest keys alone.
///
/// Whatever came, in whichever order, with `total` the sum of all weights:
///
/// - of each key in it `count - error <= true weight <= count`;
/// - `error <= error_bound() <= total / capacity`;
/// - a key whose true weight is above `error_bound()` is in it. So is therefore each
///   whose true weight is above `total / capacity`.
///
/// Where no more than `capacity` keys came, all of it is exact.
#[derive(Clone, Debug)]
pub struct SpaceSaving<K> {
    capacity: usize,
    total: u64,
    /// How many keys have been given a place so far.
    came: u64,
    places: HashMap<K, Place>,
    /// The same keys, the lightest first; of equally light ones the one that
    /// has been there longest.
    by_weight: BTreeMap<(u64, u64), K>,
}

/// What is known of a key that is in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    count: u64,
    error: u64,
    /// The value of `came` when it was given this place.
    since: u64,
}

/// A key and its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<K> {
    /// The key.
    pub key: K,
    /// Never less than its true weight.
    pub count: u64,
    /// How much more than that at most.
    pub error: u64,
}

impl<K: Hash + Eq + Clone> SpaceSaving<K> {
    /// With room for so many keys, one at least.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            total: 0,
            came: 0,
            places: HashMap::new(),
            by_weight: BTreeMap::new(),
        }
    }

    /// Adds to a key's weight. Takes time logarithmic in the capacity.
    pub fn add(&mut self, key: K, weight: u64) {
        // What weighs nothing pushes nothing out.
        if weight == 0 {
            return;
        }
        self.total = self.total.saturating_add(weight);
        if let Some(place) = self.places.get_mut(&key) {
            self.by_weight.remove(&(place.count, place.since));
            place.count = place.count.saturating_add(weight);
            self.by_weight.insert((place.count, place.since), key);
            return;
        }
        let mut inherited = 0;
        if self.places.len() >= self.capacity
            && let Some(((lightest, _), pushed_out)) = self.by_weight.pop_first()
        {
            self.places.remove(&pushed_out);
            inherited = lightest;
        }
        let place = Place {
            count: inherited.saturating_add(weight),
            error: inherited,
            since: self.came,
        };
        self.came += 1;
        self.by_weight
            .insert((place.count, place.since), key.clone());
        self.places.insert(key, place);
    }

    /// The heaviest keys, `n` at most. Where two weigh the same, the one that has been
    /// in it longer comes first: the same stream gives the same list.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<Counted<K>> {
        let mut all: Vec<(&K, &Place)> = self.places.iter().collect();
        all.sort_unstable_by_key(|(_, place)| (std::cmp::Reverse(place.count), place.since));
        let counted = all.into_iter().take(n).map(|(key, place)| Counted {
            key: key.clone(),
            count: place.count,
            error: place.error,
        });
        counted.collect()
    }

    /// The weight of everything that came.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// How much too high a count is at most, and how heavy a key that is not in it
    /// may be: at most `total / capacity`.
    #[must_use]
    pub fn error_bound(&self) -> u64 {
        // Until the first is pushed out, all is exact.
        let pushed_out = self.came > self.capacity as u64;
        let lightest = self.by_weight.first_key_value();
        lightest
            .filter(|_| pushed_out)
            .map_or(0, |((count, _), _)| *count)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Asserts all that is promised, against exact sums.
    fn check(sketch: &SpaceSaving<u32>, exact: &HashMap<u32, u64>) {
        let total: u64 = exact.values().sum();
        let all = sketch.top(usize::MAX);
        assert_eq!(sketch.total(), total);
        assert!(all.len() <= sketch.capacity && all.len() == exact.len().min(sketch.capacity));
        assert!(sketch.error_bound() <= total / sketch.capacity as u64);
        // Its sums are never made of nothing.
        assert_eq!(all.iter().map(|counted| counted.count).sum::<u64>(), total);
        for counted in &all {
            let weight = exact[&counted.key];
            assert!(counted.count - counted.error <= weight, "{counted:?}");
            assert!(weight <= counted.count, "{counted:?} but {weight}");
            assert!(counted.error <= sketch.error_bound(), "{counted:?}");
        }
        for (key, weight) in exact {
            let is_in = all.iter().any(|counted| counted.key == *key);
            assert!(is_in || *weight <= sketch.error_bound(), "{key}: {weight}");
        }
        assert!(all.is_sorted_by(|one, next| one.count >= next.count));
        for n in [0, 1, all.len() / 2] {
            assert_eq!(sketch.top(n), all[..n.min(all.len())]);
        }
        if exact.len() <= sketch.capacity {
            assert!(all.iter().all(|counted| counted.error == 0));
            assert_eq!(sketch.error_bound(), 0);
        }
    }

    fn feed(capacity: usize, stream: impl IntoIterator<Item = (u32, u64)>) {
        let mut sketch = SpaceSaving::new(capacity);
        let mut again = SpaceSaving::new(capacity);
        let mut exact = HashMap::new();
        for (key, weight) in stream {
            sketch.add(key, weight);
            again.add(key, weight);
            if weight > 0 {
                *exact.entry(key).or_default() += weight;
            }
        }
        check(&sketch, &exact);
        // Each map has another seed, and still the lists are alike.
        assert_eq!(sketch.top(usize::MAX), again.top(usize::MAX));
    }

    /// Few keys that often come, and many that seldom do, with light and heavy weights.
    fn skewed() -> impl Strategy<Value = (u32, u64)> {
        let key = prop_oneof![4 => 0..4_u32, 2 => 0..40_u32, 1 => any::<u32>()];
        let weight = prop_oneof![4 => Just(1), 2 => 0..10_u64, 1 => 0..1_000_000_u64];
        (key, weight)
    }

    proptest! {
        #[test]
        fn promises_hold(
            capacity in 1..24_usize,
            stream in prop::collection::vec(skewed(), 0..400),
        ) {
            feed(capacity, stream);
        }

        /// Whoever knows how it works sends what is worst for it: always a key that was
        /// just pushed out, and each heavy one when all others are light.
        #[test]
        fn promises_hold_against_an_adversary(
            capacity in 1..12_usize,
            weights in prop::collection::vec(1..50_u64, 1..200),
            heavy in prop::collection::vec(any::<Index>(), 0..5),
        ) {
            let mut sketch = SpaceSaving::new(capacity);
            let mut exact: HashMap<u32, u64> = HashMap::new();
            let mut add = |sketch: &mut SpaceSaving<u32>, key, weight| {
                sketch.add(key, weight);
                *exact.entry(key).or_default() += weight;
            };
            for (turn, weight) in weights.iter().enumerate() {
                let absent = (0..=u32::MAX).find(|key| !sketch.places.contains_key(key)).unwrap();
                let is_heavy = heavy.iter().any(|at| at.index(weights.len()) == turn);
                add(&mut sketch, absent, if is_heavy { weight * 100 } else { *weight });
            }
            check(&sketch, &exact);
        }

        #[test]
        fn any_order_keeps_what_is_heavy(
            capacity in 1..12_usize,
            stream in prop::collection::vec((0..30_u32, 1..5_u64), 1..200),
        ) {
            for order in [false, true] {
                let mut stream = stream.clone();
                stream.sort_unstable();
                if order {
                    stream.reverse();
                }
                feed(capacity, stream);
            }
        }
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_lightest() {
        let mut sketch = SpaceSaving::new(2);
        for (key, weight) in [("a", 10), ("b", 3), ("c", 4)] {
            sketch.add(key, weight);
        }
        let counted = |key, count, error| Counted { key, count, error };
        assert_eq!(
            sketch.top(9),
            [counted("a", 10, 0), counted("c", 7, 3)],
            "b went, and c inherited its weight"
        );
        assert_eq!((sketch.total(), sketch.error_bound()), (17, 7));
        sketch.clear();
        assert_eq!((sketch.total(), sketch.error_bound()), (0, 0));
        assert!(sketch.top(9).is_empty());
    }

    #[test]
    fn equal_weights_come_in_the_order_of_their_coming() {
        let mut sketch = SpaceSaving::new(8);
        for key in [5, 1, 3, 2] {
            sketch.add(key, 7);
        }
        let keys: Vec<i32> = sketch.top(3).into_iter().map(|found| found.key).collect();
        assert_eq!(keys, [5, 1, 3]);
    }

    #[test]
    fn sums_stop_at_the_highest_number() {
        let mut sketch = SpaceSaving::new(0);
        sketch.add(1, u64::MAX);
        sketch.add(1, 5);
        sketch.add(2, 5);
        assert_eq!(sketch.total(), u64::MAX);
        assert_eq!(sketch.top(1)[0].count, u64::MAX);
    }
}
