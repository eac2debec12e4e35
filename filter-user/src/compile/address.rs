//! Addresses → classes: for one dimension (source or destination) and one IP
//! version, the trie that gives each address the class of addresses which the
//! same lines match.

use std::ops::Range;
use std::thread;

use filter_common::abi::Root;
use hashbrown::HashMap;
use ipnet::IpNet;

use super::CompileError;
use super::bits::Bits;
use super::class::{Class, WITHOUT};
use super::lanes;
use super::lines::Lines;
use super::lists::Lists;
use super::segment::{Long, Segment};
use super::trie;
use super::words::Words;
use crate::ruleset::{Addresses, Family, Match, NetSet};

/// One dimension, cut into classes.
#[derive(Debug)]
pub(super) struct Dimension {
    /// The lines that match all addresses, but those of classes that say so.
    pub(super) everywhere: Bits,
    /// The [own lines](Class::own) of each class.
    classes: Lists,
    segments: Segments,
}

/// Where the classes of one IP version begin: in as few bytes as its addresses
/// take, since there may be two million of them.
#[derive(Debug)]
enum Segments {
    V4(Vec<Segment<u64>>),
    V6(Vec<Segment<Long>>),
}

impl Dimension {
    /// Cuts the dimension that `side` names where the lines say.
    pub(super) fn cut(
        lines: &Lines<'_>,
        sets: &[NetSet],
        family: Family,
        side: fn(&Match) -> &Addresses,
    ) -> Self {
        let conditions = Conditions::of(lines, sets, family, side);
        let mut classes = Lists::default();
        let segments = match family {
            Family::V4 if conditions.lists.len() <= Prefix::PACKED_LISTS => {
                let packed = |net: &IpNet, list| Prefix::of(net, list).map(Prefix::pack);
                let sorted = sorted(&conditions.lists, packed).map(Prefix::unpack);
                Segments::V4(conditions.segments(sorted, &mut classes))
            }
            Family::V4 => {
                let sorted = sorted(&conditions.lists, Prefix::of);
                Segments::V4(conditions.segments(sorted, &mut classes))
            }
            Family::V6 => {
                let sorted = sorted(&conditions.lists, Prefix::of);
                Segments::V6(conditions.segments(sorted, &mut classes))
            }
        };
        Self {
            everywhere: conditions.everywhere,
            classes,
            segments,
        }
    }

    /// How many classes there are.
    pub(super) fn count(&self) -> usize {
        self.classes.len()
    }

    /// Each class, by its number.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class<'_>> {
        self.classes.iter().map(|own| Class {
            everywhere: &self.everywhere,
            own,
        })
    }

    /// Writes the trie, with classes as multiples of `unit`.
    pub(super) fn write(&self, unit: u32, words: &mut Words) -> Result<Root, CompileError> {
        match &self.segments {
            Segments::V4(segments) => lanes::write(segments, unit, words),
            Segments::V6(segments) => trie::write(segments, unit, words),
        }
    }

    /// An address of each class, at the top of 128 bits. The last one of `liked`
    /// that is in the class; else none that ends in 0, where there is another.
    pub(super) fn examples(&self, liked: &[u128]) -> Vec<u128> {
        match &self.segments {
            Segments::V4(segments) => examples(segments, self.count(), liked),
            Segments::V6(segments) => examples(segments, self.count(), liked),
        }
    }
}

fn examples<V: Value>(segments: &[Segment<V>], classes: usize, liked: &[u128]) -> Vec<u128> {
    let mut examples = vec![0; classes];
    // The first segment of a class is kept.
    for (index, segment) in segments.iter().enumerate().rev() {
        let end = segments.get(index + 1).map(|next| next.first);
        examples[segment.class as usize] = segment
            .first
            .next_address()
            .filter(|next| end.is_none_or(|end| *next < end))
            .unwrap_or(segment.first)
            .at_top();
    }
    for &liked in liked {
        let around = segments.partition_point(|segment| segment.first.at_top() <= liked);
        if let Some(around) = around.checked_sub(1) {
            examples[segments[around].class as usize] = liked;
        }
    }
    examples
}

/// What the lines ask of an address, in terms of lists of networks that
/// contain it or don't. A list that several lines have is there once.
struct Conditions<'r> {
    lists: Vec<&'r [IpNet]>,
    /// The lines that no list is needed for.
    everywhere: Bits,
    /// Of each list: the lines that ask for it first, with the other lists
    /// that they ask for.
    wanted: Vec<Vec<(u32, Vec<u32>)>>,
    /// Of each list: the lines that it keeps from matching.
    unwanted: Vec<Vec<u32>>,
}

impl<'r> Conditions<'r> {
    fn of(
        lines: &Lines<'r>,
        sets: &'r [NetSet],
        family: Family,
        side: fn(&Match) -> &Addresses,
    ) -> Self {
        let mut conditions = Self {
            lists: Vec::new(),
            everywhere: Bits::empty(lines.count()),
            wanted: Vec::new(),
            unwanted: Vec::new(),
        };
        let mut inline: HashMap<&'r [IpNet], u32> = HashMap::new();
        let mut named: HashMap<u32, u32> = HashMap::new();
        for (index, line) in lines.all.iter().enumerate() {
            if line.matches.family.is_some_and(|only| only != family) {
                continue;
            }
            let asked = side(line.matches);
            let mut list =
                |nets: &'r [IpNet]| *inline.entry(nets).or_insert_with(|| conditions.list(nets));
            let inline = |nets: &'r Vec<IpNet>| (!nets.is_empty()).then_some(nets.as_slice());
            let mut wanted: Vec<u32> = inline(&asked.nets).map(&mut list).into_iter().collect();
            let mut unwanted: Vec<u32> =
                inline(&asked.not_nets).map(&mut list).into_iter().collect();
            let mut set = |&set: &u32| {
                *named.entry(set).or_insert_with(|| {
                    // A set that isn't there contains nothing.
                    let nets = sets.get(set as usize).map(|set| set.nets.as_slice());
                    conditions.list(nets.unwrap_or_default())
                })
            };
            wanted.extend(asked.sets.iter().map(&mut set));
            unwanted.extend(asked.not_sets.iter().map(set));
            match wanted.split_first() {
                None => conditions.everywhere.insert(index),
                Some((&first, rest)) => {
                    conditions.wanted[first as usize].push((index as u32, rest.to_vec()));
                }
            }
            for list in unwanted {
                conditions.unwanted[list as usize].push(index as u32);
            }
        }
        conditions
    }

    fn list(&mut self, nets: &'r [IpNet]) -> u32 {
        self.lists.push(nets);
        self.wanted.push(Vec::new());
        self.unwanted.push(Vec::new());
        (self.lists.len() - 1) as u32
    }

    /// Cuts the addresses of one IP version into the classes that these networks,
    /// sorted, make; numbers the [own lines](Class::own) of each.
    fn segments<V: Value>(
        &self,
        prefixes: impl ExactSizeIterator<Item = Prefix<V>>,
        classes: &mut Lists,
    ) -> Vec<Segment<V>> {
        let (mut segments, containing) = segments(prefixes);
        // Addresses in different lists may still mean the same to all lines;
        // and no address may be in the lists of a class.
        let mut own = Vec::new();
        let mut known = vec![None; containing.len()];
        for segment in &mut segments {
            let lists = segment.class;
            segment.class = *known[lists as usize].get_or_insert_with(|| {
                self.lines_in(containing.get(lists), &mut own);
                classes.number(&own)
            });
        }
        segments.dedup_by_key(|segment| segment.class);
        segments
    }

    /// The [own lines](Class::own) of an address in these lists, and in no
    /// other; `lists` is sorted.
    fn lines_in(&self, lists: &[u32], own: &mut Vec<u32>) {
        own.clear();
        let has = |list: &u32| lists.binary_search(list).is_ok();
        let wanted = lists.iter().flat_map(|&list| &self.wanted[list as usize]);
        own.extend(
            wanted
                .filter(|(_, others)| others.iter().all(has))
                .map(|(line, _)| *line),
        );
        own.sort_unstable();
        let unwanted = lists.iter().flat_map(|&list| &self.unwanted[list as usize]);
        for &line in unwanted {
            if self.everywhere.contains(line as usize) {
                own.push(line | WITHOUT);
            } else if let Ok(index) = own.binary_search(&line) {
                own.remove(index);
            }
        }
        own.sort_unstable();
        own.dedup();
    }
}

/// An address at the top of as few bits as it takes; those behind it are part of
/// its last value.
trait Value: Copy + Default + Ord {
    /// The first address of a network, if it is of this IP version.
    fn of(net: &IpNet) -> Option<Self>;
    /// The last value of a network that begins here.
    fn last(self, length: u8) -> Self;
    /// The value behind this one.
    fn next(self) -> Option<Self>;
    /// The address behind this one.
    fn next_address(self) -> Option<Self>;
    /// The address at the top of 128 bits.
    fn at_top(self) -> u128;
}

impl Value for u64 {
    fn of(net: &IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Some(Self::from(net.network().to_bits()) << 32),
            IpNet::V6(_) => None,
        }
    }

    fn last(self, length: u8) -> Self {
        self | Self::MAX >> length
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn next_address(self) -> Option<Self> {
        self.checked_add(1 << 32)
    }

    fn at_top(self) -> u128 {
        u128::from(self) << 64
    }
}

impl Value for Long {
    fn of(net: &IpNet) -> Option<Self> {
        match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net.network().to_bits().into()),
        }
    }

    fn last(self, length: u8) -> Self {
        let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        Self::from(self.bits() | host)
    }

    fn next(self) -> Option<Self> {
        self.bits().checked_add(1).map(Self::from)
    }

    fn next_address(self) -> Option<Self> {
        self.next()
    }

    fn at_top(self) -> u128 {
        self.bits()
    }
}

/// A network of a list. The order is what [`Conditions::segments`] needs: by
/// first address, the wider network first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix<V> {
    first: V,
    length: u8,
    list: u32,
}

impl<V: Value> Prefix<V> {
    fn of(net: &IpNet, list: u32) -> Option<Self> {
        Some(Self {
            first: V::of(net)?,
            length: net.prefix_len(),
            list,
        })
    }

    fn last(self) -> V {
        self.first.last(self.length)
    }
}

impl Prefix<u64> {
    /// Lists whose number [`Self::pack`] has room for.
    const PACKED_LISTS: usize = 1 << 26;

    /// An IPv4 network in one word, in the same order: a million of them are
    /// sorted in a fraction of the time.
    fn pack(self) -> u64 {
        self.first | u64::from(self.length) << 26 | u64::from(self.list)
    }

    fn unpack(packed: u64) -> Self {
        Self {
            first: packed >> 32 << 32,
            length: (packed >> 26 & 0x3f) as u8,
            list: packed as u32 & ((1 << 26) - 1),
        }
    }
}

/// Networks from which on two threads sort them.
const HALVED: usize = 1 << 16;

/// The networks of all lists as `prefix` has them, in its order.
fn sorted<P: Copy + Ord + Send>(
    lists: &[&[IpNet]],
    prefix: impl Fn(&IpNet, u32) -> Option<P>,
) -> impl ExactSizeIterator<Item = P> {
    let mut all = Vec::with_capacity(lists.iter().map(|nets| nets.len()).sum());
    for (list, nets) in (0..).zip(lists) {
        all.extend(nets.iter().filter_map(|net| prefix(net, list)));
    }
    let middle = if all.len() < HALVED {
        all.len()
    } else {
        all.len() / 2
    };
    let (first, second) = all.split_at_mut(middle);
    if second.is_empty() {
        first.sort_unstable();
    } else {
        thread::scope(|scope| {
            scope.spawn(|| second.sort_unstable());
            first.sort_unstable();
        });
    }
    Merged {
        first: 0..middle,
        second: middle..all.len(),
        all,
    }
}

/// Two halves, each sorted, as one.
struct Merged<P> {
    all: Vec<P>,
    /// What is left of each half.
    first: Range<usize>,
    second: Range<usize>,
}

impl<P: Copy + Ord> Iterator for Merged<P> {
    type Item = P;

    fn next(&mut self) -> Option<P> {
        let of_second = match (self.first.is_empty(), self.second.is_empty()) {
            (false, false) => self.all[self.second.start] < self.all[self.first.start],
            (none_of_first, _) => none_of_first,
        };
        let half = if of_second {
            &mut self.second
        } else {
            &mut self.first
        };
        half.next().map(|index| self.all[index])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.first.len() + self.second.len();
        (left, Some(left))
    }
}

impl<P: Copy + Ord> ExactSizeIterator for Merged<P> {}

/// Cuts the address space where the lists that contain an address change.
/// Class 0 is in no list; the lists of a class are sorted.
fn segments<V: Value>(
    prefixes: impl ExactSizeIterator<Item = Prefix<V>>,
) -> (Vec<Segment<V>>, Lists) {
    let mut classes = Lists::default();
    classes.number(&[]);
    // Of a class with one list more, the class; and the last one that was asked.
    let mut inner: HashMap<(u32, u32), u32> = HashMap::new();
    let mut recent = None;
    let mut lists = Vec::new();
    // A network has two boundaries at most.
    let mut sweep = Sweep {
        segments: Vec::with_capacity(prefixes.len() * 2 + 1),
        around: Vec::new(),
    };
    sweep.cut(V::default());
    let mut prefixes = prefixes.peekable();
    while let Some(prefix) = prefixes.next() {
        sweep.leave_before(Some(prefix.first));
        let mut class = sweep.class();
        let mut list = prefix.list;
        loop {
            let asked = (class, list);
            class = match recent {
                Some((recent, class)) if recent == asked => class,
                _ => *inner.entry(asked).or_insert_with(|| {
                    lists.clear();
                    lists.extend_from_slice(classes.get(class));
                    if let Err(index) = lists.binary_search(&list) {
                        lists.insert(index, list);
                    }
                    classes.number(&lists)
                }),
            };
            recent = Some((asked, class));
            let place = (prefix.first, prefix.length);
            match prefixes.next_if(|next| (next.first, next.length) == place) {
                Some(same) => list = same.list,
                None => break,
            }
        }
        sweep.around.push((prefix.last(), class));
        sweep.cut(prefix.first);
    }
    sweep.leave_before(None);
    (sweep.segments, classes)
}

/// A walk over the address space, from network to network.
struct Sweep<V> {
    segments: Vec<Segment<V>>,
    /// Last address and class of the networks around the present address,
    /// the widest first.
    around: Vec<(V, u32)>,
}

impl<V: Value> Sweep<V> {
    /// The class at the present address.
    fn class(&self) -> u32 {
        self.around.last().map_or(0, |&(_, class)| class)
    }

    /// Begins a segment of the present class.
    fn cut(&mut self, first: V) {
        let class = self.class();
        self.segments.pop_if(|last| last.first == first);
        if self.segments.last().is_none_or(|last| last.class != class) {
            self.segments.push(Segment { first, class });
        }
    }

    /// Leaves the networks that end before `address`; all where there is none.
    fn leave_before(&mut self, address: Option<V>) {
        while let Some((last, _)) = self
            .around
            .pop_if(|(last, _)| address.is_none_or(|address| *last < address))
        {
            if let Some(next) = last.next() {
                self.cut(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv6Net;

    use super::*;

    /// Networks all over the place, some more than once.
    fn nets(count: usize) -> Vec<IpNet> {
        (0..count as u128)
            .map(|index| {
                let bits = (index / 3 * 2).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let net = Ipv6Net::new(bits.into(), 48 + (index % 2) as u8 * 80);
                net.expect("a length").trunc().into()
            })
            .collect()
    }

    /// Two threads sort what is long, and nothing is lost or in another order.
    #[test]
    fn long_lists_are_sorted_as_short_ones() {
        for count in [0, 1, 2, HALVED - 1, HALVED, HALVED + 1] {
            let random = nets(count);
            let mut ascending = random.clone();
            ascending.sort_unstable();
            let descending: Vec<IpNet> = ascending.iter().rev().copied().collect();
            for nets in [random, ascending, descending] {
                // What is in two lists is there twice.
                let lists = [nets.as_slice(), &nets[..count / 2]];
                let found = sorted(&lists, Prefix::<Long>::of);
                assert_eq!(found.len(), count + count / 2);
                let mut expected: Vec<Prefix<Long>> = (0..)
                    .zip(lists)
                    .flat_map(|(list, nets)| {
                        nets.iter().filter_map(move |net| Prefix::of(net, list))
                    })
                    .collect();
                expected.sort_unstable();
                assert!(found.eq(expected), "{count}");
            }
        }
    }
}
