//! The lines of a ruleset: each alternative of each rule, in order. Classes
//! are sets of lines.

use std::ops::Range;

use hashbrown::HashMap;

use crate::ruleset::{Action, Fragments, Icmp, Match, PortRange, Rule, Ruleset, Stage};

/// One alternative of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'r> {
    /// The rule's index.
    pub(super) rule: usize,
    /// When it applies.
    pub(super) matches: &'r Match,
    /// What it asks of the L4 header: the index of a [`Condition`].
    pub(super) condition: u32,
}

/// What lines ask of the L4 header and its protocol; those that ask the same
/// share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition<'r> {
    pub(super) protocol: Option<u8>,
    pub(super) not_protocol: Option<u8>,
    pub(super) icmp: Option<Icmp>,
    pub(super) not_icmp: Option<Icmp>,
    pub(super) src_ports: &'r [PortRange],
    pub(super) not_src_ports: &'r [PortRange],
    pub(super) dst_ports: &'r [PortRange],
    pub(super) not_dst_ports: &'r [PortRange],
    /// It does not hold where it can't be told: a failsafe only ever opens, and
    /// a Log changes nothing.
    pub(super) optional: bool,
    /// It does not hold for a later fragment where that can't be told.
    pub(super) skips_fragments: bool,
}

impl<'r> Condition<'r> {
    fn of(asked: &'r Match, optional: bool, skips_fragments: bool) -> Self {
        Self {
            protocol: asked.protocol,
            not_protocol: asked.not_protocol,
            icmp: asked.icmp,
            not_icmp: asked.not_icmp,
            src_ports: &asked.src_ports,
            not_src_ports: &asked.not_src_ports,
            dst_ports: &asked.dst_ports,
            not_dst_ports: &asked.not_dst_ports,
            optional,
            skips_fragments,
        }
    }

    /// Whether it asks for ports, source or destination.
    pub(super) fn asks_ports(&self) -> bool {
        [
            self.src_ports,
            self.not_src_ports,
            self.dst_ports,
            self.not_dst_ports,
        ]
        .iter()
        .any(|ports| !ports.is_empty())
    }

    /// Whether it asks for ICMP type and code.
    pub(super) fn asks_icmp(&self) -> bool {
        self.icmp.is_some() || self.not_icmp.is_some()
    }
}

/// The lines of a ruleset.
#[derive(Debug)]
pub(super) struct Lines<'r> {
    /// The rules.
    pub(super) rules: &'r [Rule],
    /// Their lines.
    pub(super) all: Vec<Line<'r>>,
    /// What they ask of the L4 header, each once.
    pub(super) conditions: Vec<Condition<'r>>,
    /// Of each rule, the end of its lines.
    ends: Vec<usize>,
    /// Of each rule, the first later one of another tier: where a Pass goes.
    behind_tier: Vec<usize>,
}

impl<'r> Lines<'r> {
    /// The lines of `ruleset`, each rule of which deals so with later fragments.
    pub(super) fn of(ruleset: &'r Ruleset, fragments: impl Fn(usize) -> Fragments) -> Self {
        let rules = ruleset.rules.as_slice();
        let mut all = Vec::new();
        let mut ends = Vec::with_capacity(rules.len());
        let mut conditions = Vec::new();
        let mut numbers: HashMap<Condition<'r>, u32> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let optional = rule.id.stage == Stage::Failsafe || rule.action == Action::Log;
            let skips_fragments = fragments(index) == Fragments::L3Only;
            all.extend(rule.matches.iter().map(|matches| {
                let condition = Condition::of(matches, optional, skips_fragments);
                let number = *numbers.entry(condition).or_insert_with(|| {
                    conditions.push(condition);
                    (conditions.len() - 1) as u32
                });
                Line {
                    rule: index,
                    matches,
                    condition: number,
                }
            }));
            ends.push(all.len());
        }
        let mut behind_tier = vec![rules.len(); rules.len()];
        for index in (0..rules.len().saturating_sub(1)).rev() {
            behind_tier[index] = if rules[index].same_tier(&rules[index + 1]) {
                behind_tier[index + 1]
            } else {
                index + 1
            };
        }
        Self {
            rules,
            all,
            conditions,
            ends,
            behind_tier,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// What a line asks of the L4 header, by its index.
    pub(super) fn condition(&self, line: usize) -> usize {
        self.all[line].condition as usize
    }

    /// The first line behind this rule's.
    pub(super) fn behind(&self, rule: usize) -> usize {
        self.ends[rule]
    }

    /// The lines of a rule.
    pub(super) fn of_rule(&self, rule: usize) -> Range<usize> {
        let start = rule.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[rule]
    }

    /// The first line behind this rule's tier.
    pub(super) fn behind_tier(&self, rule: usize) -> usize {
        match self.behind_tier[rule] {
            0 => 0,
            next => self.ends[next - 1],
        }
    }
}
