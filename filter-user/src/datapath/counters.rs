//! Exact totals: read in one call, carried over from generation to generation
//! by the identity of the rules.
//!
//! The kernel counts each packet once, on its own CPU. What earlier
//! generations counted stands in a second map, `carried`, which is set (not
//! added to) from the predecessor's final totals after the swap: doing it
//! twice, or again after a crash, gives the same.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, MapData};
use filter_common::abi::{self, REASON_COUNTERS};
use filter_common::verdict::{Essential, Reason};

use super::error::Error;
use super::{Count, Stats, sys};
use crate::ruleset::{Action, Rule, RuleId, Ruleset};

const REASONS: usize = REASON_COUNTERS as usize;

/// Where the sum of a reason that rules give stands.
fn reason_place(reason: Reason) -> usize {
    abi::reason_counter(reason, reason.usual_verdict()) as usize
}

/// CPUs that have a copy of each counter.
fn cpus() -> Result<usize, Error> {
    aya::util::nr_cpus()
        .map_err(|(what, error)| Error::io(format_args!("cannot count the CPUs ({what})"), &error))
}

/// Bytes that the kernel takes for this many counters: on each CPU one with a
/// pointer to them, and the carried ones.
pub fn counters_memory(count: u32) -> Result<u64, Error> {
    let one = size_of::<Count>() as u64;
    let copies = cpus()? as u64;
    Ok(u64::from(count) * (one * copies + size_of::<usize>() as u64 + one))
}

/// Reads a generation's own counters, summed over the CPUs: one call for all. Where that
/// fails, the caller says of which map.
pub(super) fn read(
    map: BorrowedFd<'_>,
    count: usize,
    failed: impl FnOnce(&io::Error) -> Error,
) -> Result<Vec<Count>, Error> {
    let stride = cpus()? * 2;
    let mut words = vec![0; count * stride];
    sys::lookup_batch(map, stride, &mut words).map_err(|error| failed(&error))?;
    Ok(words
        .chunks_exact(stride)
        .map(|copies| {
            copies
                .as_chunks()
                .0
                .iter()
                .fold(Count::default(), |sum, [packets, bytes]| {
                    sum + Count {
                        packets: *packets,
                        bytes: *bytes,
                    }
                })
        })
        .collect())
}

/// Reads the elements of a map that has a word of 64 bits on each CPU.
pub(super) fn read_words(map: BorrowedFd<'_>, count: u32) -> Result<Vec<Vec<u64>>, Error> {
    let stride = cpus()?;
    let mut words = vec![0; count as usize * stride];
    sys::lookup_batch(map, stride, &mut words)
        .map_err(|error| Error::io("cannot read the counters of flows", &error))?;
    Ok(words.chunks_exact(stride).map(<[u64]>::to_vec).collect())
}

/// Creates and pins an all-zero `carried` map for `count` counters.
pub(super) fn create_carried(path: &Path, count: u32) -> Result<(), Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::aya(format_args!("cannot create {}", path.display()), error)
    };
    Array::<MapData, [u64; 2]>::create(count, sys::MMAPABLE)
        .map_err(|error| failed(&error))?
        .pin(path)
        .map_err(|error| failed(&error))
}

/// Sets the `carried` map, by its memory: a call for each of a million rules
/// would take more than a second.
pub(super) fn write_carried(path: &Path, totals: &[Count]) -> Result<(), Error> {
    let write = || {
        let map = sys::get(path)?;
        let mut mapping = sys::Mapping::new(map.as_fd(), size_of_val(totals))?;
        let places = mapping.bytes_mut().chunks_exact_mut(size_of::<Count>());
        for (place, total) in places.zip(totals) {
            let (packets, bytes) = place.split_at_mut(size_of::<u64>());
            packets.copy_from_slice(&total.packets.to_ne_bytes());
            bytes.copy_from_slice(&total.bytes.to_ne_bytes());
        }
        Ok(())
    };
    write().map_err(|error| Error::io(format_args!("cannot write {}", path.display()), &error))
}

/// What earlier generations counted, of a ruleset of so many rules: read by its
/// memory as well.
pub(super) fn read_carried(path: &Path, rules: usize) -> Result<Vec<Count>, Error> {
    let read = || -> io::Result<Vec<Count>> {
        let map = sys::get(path)?;
        let mapping = sys::Mapping::new(map.as_fd(), (REASONS + rules) * size_of::<Count>())?;
        let words: &[[u64; 2]] = bytemuck::cast_slice(mapping.bytes());
        let counts = words.iter();
        Ok(counts
            .map(|&[packets, bytes]| Count { packets, bytes })
            .collect())
    };
    read().map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::io(format_args!("cannot read {}", path.display()), error)
}

/// What the generation in `folder` counts itself, added to `carried`.
pub(super) fn add_own(folder: &Path, carried: Vec<Count>) -> Result<Vec<Count>, Error> {
    let path = folder.join("counters");
    let map = sys::get(&path).map_err(|error| unreadable(&path, &error))?;
    let failed = |error: &io::Error| unreadable(&path, error);
    let own = read(map.as_fd(), carried.len(), failed)?;
    Ok(own
        .into_iter()
        .zip(carried)
        .map(|(own, carried)| own + carried)
        .collect())
}

/// What the totals of an old generation are in the indices of a new one.
///
/// A rule keeps its total by identity and action. A rule that is gone leaves
/// its total to the reason that it gave, so that no sum ever goes backwards.
pub(super) fn carry(old: &[Rule], totals: &[Count], new: &[Rule]) -> Vec<Count> {
    let places: HashMap<(&RuleId, Action, Option<Reason>), usize> = (REASONS..)
        .zip(new)
        .map(|(place, rule)| ((&rule.id, rule.action, rule.reason()), place))
        .collect();
    let mut carried = vec![Count::default(); REASONS + new.len()];
    let (reasons, rules) = totals.split_at(REASONS);
    carried[..REASONS].copy_from_slice(reasons);
    for (rule, total) in old.iter().zip(rules) {
        let reason = rule.reason();
        let same = places.get(&(&rule.id, rule.action, reason)).copied();
        // What was noted beside a verdict is in no sum, and goes with its rule.
        if let Some(place) = same.or(reason.map(reason_place)) {
            carried[place] = carried[place] + *total;
        }
    }
    carried
}

/// The totals in the terms of the outputs.
pub(super) fn stats(interface: &str, ruleset: &Arc<Ruleset>, totals: &[Count]) -> Stats {
    let (retired, per_rule) = totals.split_at(REASONS);
    let mut reasons = retired.to_vec();
    let essentials: Vec<(Essential, Count)> = Essential::ALL
        .iter()
        .map(|kind| (*kind, retired[abi::essential_counter(*kind) as usize]))
        .collect();
    for (_, count) in &essentials {
        let sum = &mut reasons[reason_place(Reason::Essential)];
        *sum = *sum + *count;
    }
    for (rule, total) in ruleset.rules.iter().zip(per_rule) {
        if let Some(reason) = rule.reason() {
            let sum = &mut reasons[reason_place(reason)];
            *sum = *sum + *total;
        }
    }
    Stats {
        interface: interface.to_owned(),
        direction: ruleset.direction,
        ruleset: Arc::clone(ruleset),
        of_rules: per_rule.to_vec(),
        reasons: abi::reason_counters()
            .zip(reasons)
            .map(|((reason, verdict), count)| (reason, verdict, count))
            .collect(),
        essentials,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Direction, Match, Options, Stage};

    fn rule(index: u32, action: Action) -> Rule {
        Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: "p".into(),
                direction: Direction::Ingress,
                index: Some(index),
            },
            tier: None,
            action,
            staged: false,
            matches: vec![Match::default()],
            source: None,
        }
    }

    fn ruleset(rules: &[Rule]) -> Arc<Ruleset> {
        Arc::new(Ruleset {
            endpoint: String::new(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules: rules.to_vec(),
            default: Action::Allow,
            options: Options::default(),
        })
    }

    fn totals(of_rules: &[u64]) -> Vec<Count> {
        let mut totals = vec![Count::default(); REASONS];
        totals[reason_place(Reason::DefaultAllow)].packets = 5;
        totals.extend(of_rules.iter().map(|&packets| Count {
            packets,
            bytes: packets * 60,
        }));
        totals
    }

    fn of(stats: &Stats, reason: Reason) -> u64 {
        let all = stats.reasons.iter();
        all.filter(|(found, _, _)| *found == reason)
            .map(|(_, _, count)| count.packets)
            .sum()
    }

    #[test]
    fn counters_take_memory_on_each_cpu() {
        let cpus = cpus().expect("CPUs") as u64;
        let million = counters_memory(1_000_000).expect("CPUs");
        assert_eq!(million, 1_000_000 * (16 * cpus + 24));
    }

    #[test]
    fn totals_follow_the_identity_of_the_rule() {
        let old = [rule(0, Action::Deny), rule(1, Action::Allow)];
        // Rule 1 stands first now, rule 0 is gone, rule 2 is new.
        let new = [rule(1, Action::Allow), rule(2, Action::Deny)];
        let carried = carry(&old, &totals(&[10, 20]), &new);
        let stats = stats("", &ruleset(&new), &carried);
        assert_eq!(stats.of_rules[0].packets, 20);
        assert_eq!(stats.of_rules[0].bytes, 1_200);
        assert_eq!(stats.of_rules[1], Count::default());
        assert_eq!(of(&stats, Reason::PolicyDeny), 10);
        assert_eq!(of(&stats, Reason::PolicyAllow), 20);
        assert_eq!(of(&stats, Reason::DefaultAllow), 5);
    }

    #[test]
    fn no_reason_goes_backwards_when_a_rule_changes_its_action() {
        let old = [rule(0, Action::Deny)];
        let new = [rule(0, Action::Allow)];
        let carried = carry(&old, &totals(&[10]), &new);
        let stats = stats("", &ruleset(&new), &carried);
        assert_eq!(stats.of_rules[0], Count::default());
        assert_eq!(of(&stats, Reason::PolicyDeny), 10);
        assert_eq!(of(&stats, Reason::PolicyAllow), 0);
    }

    #[test]
    fn carrying_again_gives_the_same() {
        let rules = [rule(0, Action::Deny), rule(1, Action::Allow)];
        let once = carry(&rules, &totals(&[10, 20]), &rules);
        assert_eq!(once, carry(&rules, &once, &rules));
    }
}
