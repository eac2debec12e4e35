//! What can be said of a ruleset exactly, since its classes are all the kinds
//! of packets that there are: which rules no packet meets, and what happens to a
//! kind of packet.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use filter_common::abi;
use filter_common::verdict::Verdict;

use super::classes::{Cells, Classes, FamilyClasses};
use super::combine::Pairs;
use super::{Combination, CompileError, Image, decide};
use crate::ruleset::{Family, Rule, Ruleset, Stage};

/// Kinds of packets (pairs of address classes with L4 classes) up to which all
/// are asked: some seconds.
pub(super) const MAX_KINDS: u64 = 20_000_000;

/// A ruleset and its classes.
#[derive(Debug)]
pub struct Analysis<'r> {
    ruleset: &'r Ruleset,
    classes: Classes<'r>,
    /// IPv4, IPv6; worked out when they are first asked for.
    pairs: OnceCell<Result<[Pairs; 2], CompileError>>,
}

/// A rule that no packet meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The rule, by its index.
    pub rule: u32,
    /// The rules that all packets meet before it, those first that meet most
    /// kinds of them; none where no packet matches it at all.
    pub by: Vec<u32>,
}

/// What happens to some of the packets of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happens to them.
    pub verdict: Verdict,
    /// The rule that decides, by its index; `None` for a default.
    pub rule: Option<u32>,
}

impl<'r> Analysis<'r> {
    /// Cuts the ruleset into classes.
    pub fn of(ruleset: &'r Ruleset) -> Result<Self, CompileError> {
        let rules = ruleset.rules.len();
        if rules > abi::MAX_RULES {
            return Err(CompileError::TooManyRules(rules));
        }
        Ok(Self {
            ruleset,
            classes: Classes::of(ruleset),
            pairs: OnceCell::new(),
        })
    }

    /// The ruleset.
    #[must_use]
    pub const fn ruleset(&self) -> &'r Ruleset {
        self.ruleset
    }

    /// Compiles the ruleset into tables of at most `max_memory` bytes, with this
    /// combination or the best one.
    pub fn image(
        &self,
        max_memory: u64,
        combination: Option<Combination>,
    ) -> Result<Image, CompileError> {
        Image::write(self.ruleset, &self.classes, max_memory, combination)
    }

    /// An error where it would take more than some seconds to ask all kinds of
    /// packets; nothing is found then.
    pub fn asks_in_time(&self) -> Result<(), CompileError> {
        self.pairs().map(drop)
    }

    fn pairs(&self) -> Result<&[Pairs; 2], CompileError> {
        let pairs = self.pairs.get_or_init(|| join(&self.classes));
        pairs.as_ref().map_err(Clone::clone)
    }

    /// The rules that no packet meets; failsafes and defaults apart.
    #[must_use]
    pub fn unreachable(&self) -> Vec<Unreachable> {
        let lines = &self.classes.lines;
        let rules = lines.rules;
        let all = 0..rules.len();
        let staged = rules.iter().any(|rule| rule.staged);
        let Ok(pairs) = self.pairs() else {
            return Vec::new();
        };
        let families = pairs
            .each_ref()
            .map(|pairs| Cells::of(&self.classes, pairs));
        let cells = || families.iter().flat_map(Cells::iter);
        let mut met = vec![false; rules.len()];
        for cell in cells() {
            let fate = decide::fate(lines, all.clone(), cell, staged);
            for rule in fate.noted.into_iter().chain(fate.end.decided_by()) {
                met[rule] = true;
            }
        }
        let mut missed: BTreeMap<usize, BTreeMap<usize, usize>> = (0..rules.len())
            .filter(|&rule| !met[rule] && is_written(&rules[rule]))
            .map(|rule| (rule, BTreeMap::new()))
            .collect();
        if missed.is_empty() {
            return Vec::new();
        }
        for cell in cells() {
            let mut before: Option<Vec<usize>> = None;
            for (&rule, blockers) in &mut missed {
                if !lines.of_rule(rule).any(|line| cell.matches(line)) {
                    continue;
                }
                let before = before.get_or_insert_with(|| {
                    let fate = decide::fate(lines, all.clone(), cell, staged);
                    fate.noted.into_iter().chain(fate.end.rule()).collect()
                });
                // The last one met before it decided, or passed it over.
                if let Some(met) = before.iter().rfind(|&&met| met < rule) {
                    *blockers.entry(*met).or_insert(0) += 1;
                }
            }
        }
        missed
            .into_iter()
            .map(|(rule, by)| {
                let mut by: Vec<(usize, usize)> = by.into_iter().collect();
                by.sort_by_key(|&(_, kinds)| Reverse(kinds));
                Unreachable {
                    rule: rule as u32,
                    by: by.into_iter().map(|(rule, _)| rule as u32).collect(),
                }
            })
            .collect()
    }

    /// What happens to packets of a protocol with this destination port or
    /// ICMP type and code (type << 8 | code), from anywhere to anywhere: each
    /// outcome once.
    #[must_use]
    pub fn outcomes(&self, family: Family, protocol: u8, selector: u16) -> Vec<Outcome> {
        let read = &self.classes.l4.protocols[usize::from(protocol)].read;
        let step = read.iter().rfind(|(first, _)| *first <= selector);
        let Some(&(_, l4)) = step else {
            return Vec::new();
        };
        let mut ends = BTreeSet::new();
        let Ok(pairs) = self.pairs() else {
            return Vec::new();
        };
        let pairs = &pairs[family as usize];
        let cells = Cells::of(&self.classes, pairs);
        let sports = self.classes.source_ports.classes.len();
        for pair in 0..pairs.count() as u32 {
            for sport in 0..sports {
                let whole = self.classes.whole_l4().joint[l4 as usize * sports + sport];
                let rules = 0..self.ruleset.rules.len();
                let cell = cells.cell(pair, whole as usize);
                ends.insert(decide::fate(&self.classes.lines, rules, cell, false).end);
            }
        }
        ends.into_iter()
            .map(|end| {
                let denies = decide::denies(self.ruleset, &self.ruleset.rules, end);
                let rule = end.decided_by();
                Outcome {
                    verdict: if denies { Verdict::Drop } else { Verdict::Pass },
                    rule: rule
                        .filter(|&rule| !self.ruleset.rules[rule].is_default())
                        .map(|rule| rule as u32),
                }
            })
            .collect()
    }
}

/// The pair classes of both IP versions, where all kinds of packets can be asked in
/// time.
pub(super) fn join(classes: &Classes<'_>) -> Result<[Pairs; 2], CompileError> {
    let pairs: u64 = classes.families.iter().map(FamilyClasses::pairs).sum();
    let in_time = |l4: usize| match pairs * l4 as u64 {
        ..=MAX_KINDS => Ok(()),
        kinds => Err(CompileError::TooManyKinds(kinds)),
    };
    // Source ports can only add to these.
    in_time(classes.l4.classes.len())?;
    in_time(classes.whole_l4().classes.len())?;
    let joined = classes.join(MAX_KINDS, MAX_KINDS);
    joined.map_err(CompileError::TooManyKinds)
}

/// Whether somebody wrote the rule.
fn is_written(rule: &Rule) -> bool {
    rule.id.stage != Stage::Failsafe && !rule.is_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ruleset::{Action, Addresses, Direction, Match, NetSet, Options, PortRange, RuleId};

    pub(in super::super) fn tcp(ports: &[(u16, u16)]) -> Match {
        Match {
            protocol: Some(6),
            dst_ports: ports
                .iter()
                .map(|&(first, last)| PortRange { first, last })
                .collect(),
            ..Match::default()
        }
    }

    pub(in super::super) fn from(net: &str, matches: Match) -> Match {
        Match {
            src: vec![net.parse().expect("a network")].into(),
            ..matches
        }
    }

    pub(in super::super) fn ruleset(default: Action, rules: Vec<(Action, Match)>) -> Ruleset {
        Ruleset {
            endpoint: "eth0".into(),
            direction: Direction::Ingress,
            sets: vec![NetSet::default()],
            rules: (0..)
                .zip(rules)
                .map(|(index, (action, matches))| Rule {
                    id: RuleId {
                        stage: Stage::Normal,
                        policy: "p".into(),
                        direction: Direction::Ingress,
                        index: Some(index),
                    },
                    tier: Some(if index < 3 { "a".into() } else { "b".into() }),
                    action,
                    staged: false,
                    matches: vec![matches],
                    source: None,
                })
                .collect(),
            default,
            options: Options::default(),
        }
    }

    fn unreachable(rules: Vec<(Action, Match)>) -> Vec<(u32, Vec<u32>)> {
        let ruleset = ruleset(Action::Deny, rules);
        let analysis = Analysis::of(&ruleset).expect("small");
        analysis
            .unreachable()
            .into_iter()
            .map(|found| (found.rule, found.by))
            .collect()
    }

    #[test]
    fn shadows_are_found_exactly() {
        use Action::{Allow, Deny, Log, Pass};
        // Two halves together cover the third.
        let halves = |more: u16| {
            vec![
                (Allow, tcp(&[(1, 99)])),
                (Deny, tcp(&[(100, 200)])),
                (Allow, tcp(&[(50, 150 + more)])),
            ]
        };
        assert_eq!(unreachable(halves(0)), [(2, vec![0, 1])]);
        assert_eq!(unreachable(halves(51)), []);
        // Networks likewise.
        assert_eq!(
            unreachable(vec![
                (Deny, from("10.0.0.0/9", tcp(&[]))),
                (Deny, from("10.128.0.0/9", Match::default())),
                (Allow, from("10.0.0.0/8", tcp(&[(80, 80)]))),
            ]),
            [(2, vec![0, 1])]
        );
        // A Log hides nothing; a Pass hides the rest of its tier only.
        assert_eq!(
            unreachable(vec![(Log, Match::default()), (Deny, tcp(&[]))]),
            []
        );
        assert_eq!(
            unreachable(vec![
                (Pass, tcp(&[])),
                (Deny, tcp(&[(80, 80)])),
                (Deny, Match::default()),
                (Deny, tcp(&[(80, 80)])),
            ]),
            [(1, vec![0])]
        );
        // Nothing is in an empty set.
        let nowhere = Match {
            src: Addresses {
                sets: vec![0],
                ..Addresses::default()
            },
            ..Match::default()
        };
        assert_eq!(unreachable(vec![(Deny, nowhere)]), [(0, vec![])]);
    }

    #[test]
    fn outcomes_of_a_kind_of_packet() {
        let ruleset = ruleset(
            Action::Deny,
            vec![
                (Action::Allow, from("10.0.0.0/8", tcp(&[(22, 22)]))),
                (Action::Deny, tcp(&[(6443, 6443)])),
            ],
        );
        let analysis = Analysis::of(&ruleset).expect("small");
        let outcomes = |family, port| -> Vec<(Verdict, Option<u32>)> {
            let outcomes = analysis.outcomes(family, 6, port).into_iter();
            outcomes.map(|one| (one.verdict, one.rule)).collect()
        };
        assert_eq!(
            outcomes(Family::V4, 22),
            [(Verdict::Pass, Some(0)), (Verdict::Drop, None)]
        );
        assert_eq!(outcomes(Family::V6, 22), [(Verdict::Drop, None)]);
        assert_eq!(outcomes(Family::V4, 6443), [(Verdict::Drop, Some(1))]);
    }
}
