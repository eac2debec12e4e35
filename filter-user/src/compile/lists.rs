//! Lists of numbers, which are numbered themselves in the order in which they
//! come.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

/// The lists so far, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Lists {
    items: Vec<u32>,
    ends: Vec<usize>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Lists {
    /// The number of a list; a new one where it is new.
    pub(super) fn number(&mut self, list: &[u32]) -> u32 {
        let hash = self.hasher.hash_one(list);
        let Self {
            items,
            ends,
            numbers,
            hasher,
        } = self;
        if let Some(&number) = numbers.find(hash, |&number| get(items, ends, number) == list) {
            return number;
        }
        let number = ends.len() as u32;
        items.extend_from_slice(list);
        ends.push(items.len());
        numbers.insert_unique(hash, number, |&number| {
            hasher.hash_one(get(items, ends, number))
        });
        number
    }

    /// Adds a list, whether it is new or not; its number.
    pub(super) fn add(&mut self, list: &[u32]) -> u32 {
        self.items.extend_from_slice(list);
        self.ends.push(self.items.len());
        (self.ends.len() - 1) as u32
    }

    /// The list with this number.
    pub(super) fn get(&self, number: u32) -> &[u32] {
        get(&self.items, &self.ends, number)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len() as u32).map(|number| self.get(number))
    }
}

fn get<'l>(items: &'l [u32], ends: &[usize], number: u32) -> &'l [u32] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &items[start..ends[number]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lists_once() {
        let mut lists = Lists::default();
        assert_eq!(lists.number(&[3, 4]), 0);
        assert_eq!(lists.number(&[]), 1);
        assert_eq!(lists.number(&[3]), 2);
        assert_eq!(lists.number(&[3, 4]), 0);
        assert_eq!(lists.number(&[]), 1);
        let all: Vec<_> = lists.iter().collect();
        assert_eq!(all, [&[3, 4][..], &[], &[3]]);
    }
}
