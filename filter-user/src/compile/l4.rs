//! (protocol, selector) → class, where the selector is the destination port
//! or the ICMP type and code.
//!
//! A class knows two sets of conditions: those that hold, and those that would
//! need an L4 header which this packet doesn't show.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use filter_common::abi::{PROTOCOL_WORDS, SHAPE, Table16};
use filter_common::parse::UNKNOWN_PROTOCOL;
use filter_common::wire::l4;

use super::CompileError;
use super::bits::Bits;
use super::lines::Condition;
use super::table16::Blocks;
use super::words::Words;
use crate::ruleset::{Icmp, PortRange};

/// What a class of L4 headers means to the [conditions](Condition) of lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// Those that hold.
    pub(super) matching: Bits,
    /// Those that can't be decided.
    pub(super) undecidable: Bits,
}

/// The dimension, cut into classes.
#[derive(Debug)]
pub(super) struct Dimension {
    /// Each class.
    pub(super) classes: Vec<Class>,
    /// Each protocol from 0 on, at last the unknown one.
    pub(super) protocols: Vec<Protocol>,
}

/// The classes of one protocol.
#[derive(Debug)]
pub(super) struct Protocol {
    /// Where the header was read: from each selector on, the class.
    pub(super) read: Vec<(u16, u32)>,
    /// Where it can't be read.
    pub(super) unreadable: u32,
    /// Where the packet is a later fragment.
    pub(super) later_fragment: u32,
}

impl Dimension {
    /// Cuts the dimension where the conditions say.
    pub(super) fn cut(conditions: &[Condition<'_>]) -> Self {
        let mut classes = Classes::default();
        let protocols = (0..=UNKNOWN_PROTOCOL)
            // Unknown where an extension chain hides the protocol.
            .map(|proto| {
                let known = u8::try_from(proto).ok();
                cut_protocol(conditions, known, &mut classes)
            })
            .collect();
        Self {
            classes: classes.list,
            protocols,
        }
    }

    /// Writes the tables: the first word of that of protocols, and where classes are.
    pub(super) fn write(&self, words: &mut Words) -> Result<(u32, Table16), CompileError> {
        let count = self.protocols.len() as u64;
        let start = words.reserve(count * u64::from(PROTOCOL_WORDS))?;
        let mut blocks = Blocks::default();
        // Most protocols have the same steps.
        let mut written: HashMap<&[(u16, u32)], u32> = HashMap::new();
        let rows = (start..).step_by(PROTOCOL_WORDS as usize);
        for (row, protocol) in rows.clone().zip(&self.protocols) {
            let heads = match written.entry(&protocol.read) {
                Entry::Occupied(heads) => *heads.get(),
                Entry::Vacant(heads) => *heads.insert(blocks.heads(&protocol.read, words)?),
            };
            words.set(row, heads);
            words.set(row + 1, protocol.unreadable);
            words.set(row + 2, protocol.later_fragment);
        }
        for (proto, row) in (0..=u8::MAX).zip(rows) {
            words.set(row + SHAPE, l4::Shape::of(proto).0);
        }
        Ok((start, blocks.write(self.classes.len(), words)?))
    }
}

fn cut_protocol(
    conditions: &[Condition<'_>],
    known: Option<u8>,
    classes: &mut Classes,
) -> Protocol {
    let speaks_of = |asked: &Condition<'_>| {
        let of = |only: u8| known.is_none_or(|known| only == known);
        asked.protocol.is_none_or(of)
            && asked
                .not_protocol
                .is_none_or(|not| known.is_none_or(|known| not != known))
    };
    let asks_l4 = |asked: &Condition<'_>| {
        let asks_protocol = asked.protocol.is_some() || asked.not_protocol.is_some();
        asked.asks_ports() || asked.asks_icmp() || (known.is_none() && asks_protocol)
    };
    let all = conditions.len();

    // The header is absent: what asks for it can't be decided.
    let l3_only = Bits::of(all, |number| {
        let asked = &conditions[number];
        speaks_of(asked) && !asks_l4(asked)
    });
    let is_undecidable =
        |asked: &Condition<'_>| speaks_of(asked) && asks_l4(asked) && !asked.optional;
    let unreadable = classes.number(Class {
        matching: l3_only.clone(),
        undecidable: Bits::of(all, |number| is_undecidable(&conditions[number])),
    });
    let later_fragment = classes.number(Class {
        matching: l3_only.clone(),
        undecidable: Bits::of(all, |number| {
            let asked = &conditions[number];
            is_undecidable(asked) && !asked.skips_fragments
        }),
    });

    // The header was read.
    let asking: Vec<(usize, &Condition<'_>)> = conditions
        .iter()
        .enumerate()
        .filter(|(_, asked)| speaks_of(asked) && (asked.asks_ports() || asked.asks_icmp()))
        .collect();
    let mut read: Vec<(u16, u32)> = Vec::new();
    for first in cuts(&asking, known) {
        let mut matching = l3_only.clone();
        for &(number, asked) in &asking {
            if known.is_some_and(|proto| matches(asked, proto, first)) {
                matching.insert(number);
            }
        }
        let class = classes.number(Class {
            matching,
            undecidable: Bits::empty(all),
        });
        if read.last().is_none_or(|&(_, last)| last != class) {
            read.push((first, class));
        }
    }
    Protocol {
        read,
        unreadable,
        later_fragment,
    }
}

/// Selectors at which a condition may begin or cease to hold.
fn cuts(asking: &[(usize, &Condition<'_>)], proto: Option<u8>) -> BTreeSet<u16> {
    let mut cuts = BTreeSet::from([0]);
    let Some(proto) = proto else {
        return cuts;
    };
    let mut cut = |range: PortRange| {
        cuts.insert(range.first);
        cuts.extend(range.last.checked_add(1));
    };
    for (_, asked) in asking {
        if l4::has_ports(proto) {
            let ports = asked.dst_ports.iter().chain(asked.not_dst_ports);
            ports.copied().for_each(&mut cut);
        } else {
            let icmp = asked.icmp.into_iter().chain(asked.not_icmp);
            icmp.map(selectors).for_each(&mut cut);
        }
    }
    cuts
}

/// Whether the L4 header of a packet has what is asked for, source ports
/// apart. A protocol without ports has none that a condition on ports could
/// hold for, negated or not; likewise ICMP.
fn matches(asked: &Condition<'_>, proto: u8, selector: u16) -> bool {
    let is_icmp = matches!(proto, l4::ICMP | l4::ICMPV6);
    let has = |icmp: Icmp| selectors(icmp).contains(selector);
    (!asked.asks_ports()
        || l4::has_ports(proto) && in_ranges(asked.dst_ports, asked.not_dst_ports, selector))
        && (!asked.asks_icmp()
            || is_icmp && asked.icmp.is_none_or(has) && !asked.not_icmp.is_some_and(has))
}

/// Whether a port is in one of the ranges (if there are any), and in none of
/// the others.
pub(super) fn in_ranges(ranges: &[PortRange], not: &[PortRange], port: u16) -> bool {
    let listed = |ranges: &[PortRange]| ranges.iter().any(|range| range.contains(port));
    (ranges.is_empty() || listed(ranges)) && !listed(not)
}

/// The selectors (type << 8 | code) that mean this.
fn selectors(icmp: Icmp) -> PortRange {
    let of = |code: u8| u16::from_be_bytes([icmp.kind, code]);
    PortRange {
        first: of(icmp.code.unwrap_or(0)),
        last: of(icmp.code.unwrap_or(u8::MAX)),
    }
}

/// Classes by what they mean.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) list: Vec<Class>,
    numbers: HashMap<Class, u32>,
}

impl Classes {
    pub(super) fn number(&mut self, class: Class) -> u32 {
        if let Some(&number) = self.numbers.get(&class) {
            return number;
        }
        // Fewer than 2^26: there are but so many keys.
        let number = self.list.len() as u32;
        self.list.push(class.clone());
        self.numbers.insert(class, number);
        number
    }
}
