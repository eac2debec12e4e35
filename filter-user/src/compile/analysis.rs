//! What can be said of a ruleset exactly, since its classes are all the kinds
//! of packets that there are: which rules no packet meets, what happens to a
//! kind of packet, and which packets two rulesets treat differently.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use filter_common::abi;
use filter_common::parse::UNKNOWN_PROTOCOL;
use filter_common::verdict::{Essential, Verdict};
use filter_common::wire::ip::v6;
use filter_common::wire::l4;

use super::class::Cell;
use super::classes::{Cells, Classes, FamilyClasses};
use super::combine::Pairs;
use super::decide::End;
use super::{Combination, CompileError, Image, decide};
use crate::decision::Decision;
use crate::packet_text::{Fields, Header, PacketText};
use crate::reference;
use crate::ruleset::{Action, Essentials, Family, Options, Rule, Ruleset, Stage};

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

/// Packets that two rulesets treat differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the first one does with the example.
    pub before: Decision,
    /// What the second one does with it.
    pub after: Decision,
    /// One of the packets.
    pub example: PacketText,
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

fn join(classes: &Classes<'_>) -> Result<[Pairs; 2], CompileError> {
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

/// The IP packets that pass under one of two rulesets and not under the other:
/// one example for each two rules that decide differently, and each kind of
/// essentials that one of them lets through.
///
/// Other frames, and packets that the state of something decides (flows,
/// fragments that came before), are none of them.
pub fn differences(before: &Ruleset, after: &Ruleset) -> Result<Vec<Difference>, CompileError> {
    let both = joint(before, after);
    let sides = [
        Side {
            ruleset: before,
            rules: 0..before.rules.len(),
        },
        Side {
            ruleset: after,
            rules: before.rules.len()..both.rules.len(),
        },
    ];
    let classes = Classes::with(&both, |rule| {
        let side = sides.iter().find(|side| side.rules.contains(&rule));
        side.unwrap_or(&sides[0]).ruleset.options.fragments
    });
    let pairs = join(&classes)?;
    let headers = [Family::V4, Family::V6].map(|family| headers(&classes, &both, family));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (family, headers) in [Family::V4, Family::V6].into_iter().zip(&headers) {
        let family_classes = &classes.families[family as usize];
        let sources = addresses(family, &family_classes.src, [203, 0, 113, 7]);
        let destinations = addresses(family, &family_classes.dst, [192, 0, 2, 10]);
        let hosts = sources
            .iter()
            .flat_map(|src| destinations.iter().map(move |dst| (src, dst)));
        let pairs = &pairs[family as usize];
        let cells = Cells::of(&classes, pairs);
        for (&pair, (src, dst)) in pairs.table().iter().zip(hosts) {
            for (l4, headers) in headers.iter().enumerate() {
                let cell = cells.cell(pair, l4);
                let fates = sides.each_ref().map(|side| side.fate(&classes, cell));
                let denied = fates.each_ref().map(|fate| fate.denied);
                if denied[0] == denied[1] && !fates.iter().any(|fate| fate.spares.is_some()) {
                    continue;
                }
                for (kind, header) in headers {
                    let spared = fates.each_ref().map(|fate| fate.lets_through(*kind));
                    if (denied[0] && !spared[0]) == (denied[1] && !spared[1]) {
                        continue;
                    }
                    let kind = kind.filter(|_| spared.contains(&true));
                    if !seen.insert((fates.each_ref().map(|fate| fate.end), kind)) {
                        continue;
                    }
                    let example = PacketText::new(Fields {
                        src: *src,
                        dst: *dst,
                        ..*header
                    });
                    let frame = example.frame();
                    found.push(Difference {
                        before: reference::evaluate(before, &frame),
                        after: reference::evaluate(after, &frame),
                        example,
                    });
                }
            }
        }
    }
    // What shows its ports tells more.
    found.sort_by_key(|difference| !difference.example.is_whole());
    Ok(found)
}

/// One of two rulesets that are compared.
struct Side<'r> {
    ruleset: &'r Ruleset,
    /// Its rules among those of both.
    rules: Range<usize>,
}

impl Side<'_> {
    fn fate(&self, classes: &Classes<'_>, cell: Cell<'_>) -> SideFate {
        let lines = &classes.lines;
        let end = decide::fate(lines, self.rules.clone(), cell, false).end;
        let by_default = decide::denies_by_default(self.ruleset, lines.rules, end);
        SideFate {
            end,
            denied: decide::denies(self.ruleset, lines.rules, end),
            spares: by_default.then_some(self.ruleset.options.essentials),
        }
    }
}

/// What a ruleset does with the packets of a cell.
struct SideFate {
    end: End,
    denied: bool,
    /// Where a default denies: essentials that pass all the same.
    spares: Option<Essentials>,
}

impl SideFate {
    /// Whether packets of this kind pass though the others of their cell are
    /// denied.
    fn lets_through(&self, kind: Option<Essential>) -> bool {
        match (self.spares, kind) {
            (Some(spared), Some(kind)) => spared.has(kind),
            _ => false,
        }
    }
}

/// Both rulesets as one, so that its classes are fine enough for both.
fn joint(before: &Ruleset, after: &Ruleset) -> Ruleset {
    let mut both = before.clone();
    let offset = both.sets.len() as u32;
    both.options = after.options.clone();
    both.sets.extend(after.sets.iter().cloned());
    both.rules
        .extend(after.rules.iter().cloned().map(|mut rule| {
            for asked in &mut rule.matches {
                for side in [&mut asked.src, &mut asked.dst] {
                    for set in side.sets.iter_mut().chain(&mut side.not_sets) {
                        *set += offset;
                    }
                }
            }
            rule
        }));
    both
}

/// An address of each class; one of those for examples where it fits, best
/// `favourite`, or the IPv6 address that ends like it.
fn addresses(
    family: Family,
    dimension: &super::address::Dimension,
    favourite: [u8; 4],
) -> Vec<IpAddr> {
    let [.., host] = favourite;
    let well_known = match family {
        Family::V4 => {
            let nets = [[198, 51, 100], [192, 0, 2], [203, 0, 113]];
            let known = nets.map(|[a, b, c]| [a, b, c, host]);
            let known = [known[0], known[1], known[2], favourite].map(Ipv4Addr::from);
            known.map(|known| u128::from(known.to_bits()) << 96)
        }
        Family::V6 => [3, 2, 1, 0]
            .map(|net| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, u16::from(host)).to_bits()),
    };
    dimension
        .examples(&well_known)
        .into_iter()
        .map(|bits| match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32)),
            Family::V6 => IpAddr::from(Ipv6Addr::from_bits(bits)),
        })
        .collect()
}

/// For each class of L4 headers one that a packet of this IP version can have,
/// common protocols first, and one of each kind of essentials; none where that
/// is none that can be written down.
fn headers(
    classes: &Classes<'_>,
    ruleset: &Ruleset,
    family: Family,
) -> Vec<BTreeMap<Option<Essential>, Fields>> {
    let mut headers = Headers {
        found: vec![BTreeMap::new(); classes.whole_l4().classes.len()],
        // Whose default lets all essentials through and nothing else.
        closed: Ruleset {
            endpoint: ruleset.endpoint.clone(),
            direction: ruleset.direction,
            sets: Vec::new(),
            rules: Vec::new(),
            default: Action::Deny,
            options: Options::default(),
        },
    };
    let any_host = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let blank = |protocol| Fields {
        protocol,
        src: any_host,
        dst: any_host,
        ..Fields::default()
    };
    let sports = &classes.source_ports;
    let whole = |l4: u32, sport: u32| {
        let joint = l4 as usize * sports.classes.len() + sport as usize;
        classes.whole_l4().joint[joint] as usize
    };
    for protocol in protocols(family) {
        let of_protocol = &classes.l4.protocols[usize::from(protocol)];
        let blank = blank(Some(protocol));
        for (selector, l4) in selectors(protocol, &of_protocol.read) {
            for (sport, sport_class) in choices(&sports.steps, 51_515) {
                let header = Fields {
                    sport,
                    selector,
                    ..blank
                };
                headers.add(whole(l4, sport_class), header);
                // Neighbour discovery that came from afar is none.
                if family == Family::V6 && header.usual_hop_limit() == 255 {
                    let header = Fields {
                        hop_limit: Some(64),
                        ..header
                    };
                    headers.add(whole(l4, sport_class), header);
                }
            }
        }
        headers.add_absent(
            whole(of_protocol.later_fragment, 0),
            Header::LaterFragment,
            blank,
        );
        if l4::has_ports(protocol) || matches!(protocol, l4::ICMP | l4::ICMPV6) {
            headers.add_absent(whole(of_protocol.unreadable, 0), Header::Cut, blank);
        }
    }
    if family == Family::V6 {
        let of_protocol = &classes.l4.protocols[usize::from(UNKNOWN_PROTOCOL)];
        let blank = blank(None);
        headers.add_absent(
            whole(of_protocol.later_fragment, 0),
            Header::LaterFragment,
            blank,
        );
        headers.add_absent(whole(of_protocol.unreadable, 0), Header::Whole, blank);
    }
    headers.found
}

/// Protocols that a packet of this IP version can have, common ones first, and the
/// ICMP of the other version last.
fn protocols(family: Family) -> impl Iterator<Item = u8> {
    const COMMON: [u8; 6] = [6, 17, 1, 58, 132, 136];
    let other = match family {
        Family::V4 => l4::ICMPV6,
        Family::V6 => l4::ICMP,
    };
    COMMON
        .into_iter()
        .filter(move |protocol| *protocol != other)
        .chain((0..=u8::MAX).filter(|protocol| !COMMON.contains(protocol)))
        .chain([other])
        .filter(move |protocol| family == Family::V4 || !v6::is_extension(*protocol))
}

/// Examples that are found.
struct Headers {
    /// Of each class of whole L4 headers.
    found: Vec<BTreeMap<Option<Essential>, Fields>>,
    closed: Ruleset,
}

impl Headers {
    /// Takes a header for its class, if it is the first of its kind.
    fn add(&mut self, class: usize, header: Fields) {
        let frame = PacketText::new(header).frame();
        let kind = reference::judge(&self.closed, &frame).essential;
        self.found[class].entry(kind).or_insert(header);
    }

    fn add_absent(&mut self, class: usize, header: Header, blank: Fields) {
        self.add(class, Fields { header, ..blank });
    }
}

/// Destination ports, or ICMP types and codes, of each step, with its class: a
/// well-known one, and all those by which something is an essential.
fn selectors(protocol: u8, steps: &[(u16, u32)]) -> Vec<(u16, u32)> {
    let (liked, notable): (u16, Vec<u16>) = match protocol {
        l4::ICMP => (8 << 8, vec![3 << 8 | 4]),
        l4::ICMPV6 => {
            // Each type; first the one that nothing goes without.
            let types = [135].into_iter().chain(0..=u8::MAX);
            (128 << 8, types.map(|kind| u16::from(kind) << 8).collect())
        }
        l4::UDP => (443, vec![67, 68, 546, 547]),
        _ => (443, Vec::new()),
    };
    let notable = notable.into_iter().filter_map(|selector| {
        let step = steps.iter().rfind(|(first, _)| *first <= selector);
        step.map(|&(_, class)| (selector, class))
    });
    choices(steps, liked).into_iter().chain(notable).collect()
}

/// Values of each step, with its class: the liked one where it is in it, and
/// 0 only where there is no other; and the last one, since an essential may be
/// the first.
fn choices(steps: &[(u16, u32)], liked: u16) -> Vec<(u16, u32)> {
    (0..)
        .zip(steps)
        .flat_map(|(index, &(first, class)): (usize, _)| {
            let last = steps
                .get(index + 1)
                .map_or(u16::MAX, |&(next, _)| next.saturating_sub(1));
            let value = if (first..=last).contains(&liked) {
                liked
            } else {
                first.max(1).min(last)
            };
            [(value, class)]
                .into_iter()
                .chain((value != last).then_some((last, class)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Addresses, Direction, Fragments, Icmp, Match, NetSet, PortRange, RuleId};

    fn tcp(ports: &[(u16, u16)]) -> Match {
        Match {
            protocol: Some(6),
            dst_ports: ports
                .iter()
                .map(|&(first, last)| PortRange { first, last })
                .collect(),
            ..Match::default()
        }
    }

    fn from(net: &str, matches: Match) -> Match {
        Match {
            src: vec![net.parse().expect("a network")].into(),
            ..matches
        }
    }

    fn ruleset(default: Action, rules: Vec<(Action, Match)>) -> Ruleset {
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

    #[test]
    fn differences_have_an_example_each() {
        let before = ruleset(Action::Allow, vec![(Action::Deny, tcp(&[(30000, 32767)]))]);
        let mut after = ruleset(
            Action::Allow,
            vec![
                (
                    Action::Allow,
                    from("198.51.100.0/24", tcp(&[(30000, 30009)])),
                ),
                (Action::Deny, tcp(&[(30000, 32768)])),
            ],
        );
        let found = differences(&before, &after).expect("small");
        let shown: Vec<_> = found
            .iter()
            .map(|found| {
                let verdicts = (found.before.verdict.name(), found.after.verdict.name());
                (found.example.to_string(), verdicts)
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "tcp 203.0.113.7:51515 > 192.0.2.10:32768".to_owned(),
                    ("pass", "drop")
                ),
                (
                    "tcp 198.51.100.7:51515 > 192.0.2.10:30000".to_owned(),
                    ("drop", "pass")
                ),
            ]
        );
        after.clone_from(&before);
        assert_eq!(differences(&before, &after), Ok(Vec::new()));
        after.default = Action::Deny;
        let found = differences(&before, &after).expect("small");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].example.to_string(),
            "tcp 203.0.113.7:51515 > 192.0.2.10:443"
        );
    }

    /// What is shown of two rulesets' differences: the packet, its reason before
    /// and after.
    fn shown(before: &Ruleset, after: &Ruleset) -> Vec<(String, [&'static str; 2])> {
        let found = differences(before, after).expect("small");
        let shown = found.iter().map(|found| {
            let reasons = [found.before.reason.name(), found.after.reason.name()];
            (found.example.to_string(), reasons)
        });
        shown.collect()
    }

    #[test]
    fn essentials_are_differences_too() {
        let icmpv6 = Match {
            family: Some(Family::V6),
            protocol: Some(l4::ICMPV6),
            ..Match::default()
        };
        let closed = ruleset(Action::Deny, vec![]);
        let harsh = ruleset(Action::Deny, vec![(Action::Deny, icmpv6.clone())]);
        assert_eq!(
            shown(&closed, &harsh),
            [135, 130, 1].map(|kind| (
                format!("icmpv6 2001:db8::7 > 2001:db8::a type {kind} code 0"),
                ["essential", "policy_deny"]
            ))
        );
        // Of a class of essentials, those that came from afar are none.
        let discovery = Match {
            icmp: Some(Icmp {
                kind: 135,
                code: Some(0),
            }),
            ..icmpv6
        };
        let open = ruleset(Action::Deny, vec![(Action::Allow, discovery)]);
        assert_eq!(
            shown(&closed, &open),
            [(
                "icmpv6 2001:db8::7 > 2001:db8::a type 135 code 0 hoplimit 64".to_owned(),
                ["default_deny", "policy_allow"]
            )]
        );
        // A kind that the options name no more.
        let mut fewer = closed.clone();
        fewer.options.essentials = Essentials::NONE.with(Essential::Igmp);
        let names: Vec<String> = shown(&closed, &fewer)
            .into_iter()
            .map(|(packet, reasons)| {
                assert_eq!(reasons, ["essential", "default_deny"], "{packet}");
                packet
            })
            .collect();
        assert_eq!(
            names,
            [
                "icmp 203.0.113.7 > 192.0.2.10 type 3 code 4",
                "udp 203.0.113.7:51515 > 192.0.2.10:68",
                "icmpv6 2001:db8::7 > 2001:db8::a type 135 code 0",
                "icmpv6 2001:db8::7 > 2001:db8::a type 130 code 0",
                "icmpv6 2001:db8::7 > 2001:db8::a type 1 code 0",
                "udp [2001:db8::7]:51515 > [2001:db8::a]:546",
            ]
        );
    }

    #[test]
    fn what_shows_no_header_may_differ_alone() {
        let all_ports = |kind| ruleset(Action::Deny, vec![(Action::Allow, kind)]);
        let (ports, protocol) = (all_ports(tcp(&[(0, u16::MAX)])), all_ports(tcp(&[])));
        assert_eq!(
            shown(&ports, &protocol),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 frag".to_owned(),
                ["fragment", "policy_allow"]
            ),]
        );
        // Where later fragments don't wait for ports, what is cut short does.
        let l3_only = |mut ruleset: Ruleset| {
            ruleset.options.fragments = Fragments::L3Only;
            ruleset
        };
        let open = |matches| l3_only(ruleset(Action::Allow, vec![(Action::Allow, matches)]));
        assert_eq!(
            shown(&open(tcp(&[(0, u16::MAX)])), &open(tcp(&[]))),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 cut".to_owned(),
                ["unreadable_l4", "policy_allow"]
            ),]
        );
        assert_eq!(
            shown(&open(tcp(&[])), &open(Match::default())),
            [(
                "hidden 2001:db8::7 > 2001:db8::a".to_owned(),
                ["unreadable_l4", "policy_allow"]
            ),]
        );
        // The options alone.
        let web = ruleset(Action::Allow, vec![(Action::Deny, tcp(&[(80, 80)]))]);
        assert_eq!(
            shown(&web, &l3_only(web.clone())),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 frag".to_owned(),
                ["fragment", "default_allow"]
            ),]
        );
    }
}
