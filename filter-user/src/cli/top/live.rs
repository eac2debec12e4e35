//! What is known at one moment: totals, what they were a reading before, and what was
//! reported since.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use clap::ValueEnum;
use filter_common::verdict::{Reason, Verdict};

use crate::datapath::{Count, EgressHook, Mode, Stats, Status};
use crate::ruleset::{Action, Direction, Rule, RuleId, Ruleset, Stage, protocol_name};
use crate::telemetry::sketch::{Counted, SpaceSaving};
use crate::telemetry::{Event, Kind};

/// Readings that the picture of drops goes back.
const READINGS: usize = 600;
/// Sources and ports that are told apart, of each interface.
const KEYS: usize = 2_048;
/// Reported packets that are kept.
const RECENT: usize = 500;

/// An interface, or all of them.
pub(super) type Scope = Option<Arc<str>>;

/// All totals at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) time: SystemTime,
    pub(super) interfaces: Vec<Interface>,
}

/// What is in force on an interface, and its totals.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: Arc<str>,
    /// `None` where the device is gone.
    pub(super) mode: Option<Mode>,
    pub(super) generation: u64,
    /// Where what goes out is filtered.
    pub(super) hook: Option<EgressHook>,
    pub(super) totals: Vec<Stats>,
}

impl From<&Status> for Interface {
    fn from(status: &Status) -> Self {
        Self {
            name: status.interface.as_str().into(),
            mode: status.mode,
            generation: status.generation,
            hook: status.egress.as_ref().and_then(|egress| egress.hook),
            totals: status.totals().cloned().collect(),
        }
    }
}

/// Packets, or bytes and packets, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// What one direction did since the reading before.
#[derive(Clone, Debug)]
struct Rates {
    passed: Rate,
    dropped: Rate,
    /// Packets of each rule, and of each reason.
    rules: Vec<u64>,
    reasons: Vec<u64>,
}

/// One direction of an interface. No rates at its first reading.
#[derive(Clone, Debug)]
struct Side {
    interface: Arc<str>,
    stats: Stats,
    rates: Option<Rates>,
}

/// Who was dropped, by what was reported.
#[derive(Clone, Debug)]
struct Tops {
    sources: SpaceSaving<IpAddr>,
    ports: SpaceSaving<Port>,
}

/// A destination port of a protocol; of one without ports, the protocol alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port {
    pub(super) proto: u8,
    pub(super) port: Option<u16>,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&protocol_name(self.proto))?;
        match self.port {
            Some(port) => write!(f, "/{port}"),
            None => Ok(()),
        }
    }
}

impl Default for Tops {
    fn default() -> Self {
        Self {
            sources: SpaceSaving::new(KEYS),
            ports: SpaceSaving::new(KEYS),
        }
    }
}

/// All that is known now.
#[derive(Clone, Debug)]
pub(super) struct Live {
    reading: Reading,
    sides: Vec<Side>,
    /// Drops a second at each reading, the newest first, and the seconds it is about.
    drops: BTreeMap<Scope, VecDeque<(u64, f64)>>,
    tops: BTreeMap<Scope, Tops>,
    /// What was dropped, and what rules reported, the newest first.
    dropped: VecDeque<Event>,
    logged: VecDeque<Event>,
    /// Reports that were lost since the tops began.
    lost: u64,
}

/// A rule of the table.
#[derive(Clone, Debug)]
pub(super) struct RuleRow<'a> {
    pub(super) interface: &'a Arc<str>,
    pub(super) ruleset: &'a Ruleset,
    pub(super) rule: &'a Rule,
    pub(super) count: Count,
    pub(super) rate: Option<u64>,
}

/// A reason of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReasonRow {
    pub(super) reason: Reason,
    pub(super) verdict: Verdict,
    pub(super) count: Count,
    pub(super) rate: Option<u64>,
}

/// What comes first in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Most packets a second
    #[default]
    Rate,
    /// Most packets
    Packets,
    /// Most bytes
    Bytes,
    /// The order of evaluation
    Order,
    /// The policy's name
    Policy,
}

impl Sort {
    const ALL: [Self; 5] = [
        Self::Rate,
        Self::Packets,
        Self::Bytes,
        Self::Order,
        Self::Policy,
    ];

    /// The one so many places on.
    pub(super) fn moved(self, by: isize) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self);
        let place = place.unwrap_or(0).cast_signed() + by;
        let places = Self::ALL.len().cast_signed();
        Self::ALL[place.rem_euclid(places).cast_unsigned()]
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Order => "order",
            Self::Policy => "policy",
        }
    }
}

/// What is chosen of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) scope: Scope,
    /// In lower case.
    pub(super) filter: String,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    /// Whether what was never counted is left out.
    pub(super) hits_only: bool,
    /// Whether packets that rules report stand among the dropped ones.
    pub(super) with_logged: bool,
}

impl Choice {
    fn is_in(&self, interface: &str) -> bool {
        self.scope
            .as_ref()
            .is_none_or(|scope| **scope == *interface)
    }

    /// Whether one of these texts has what is looked for.
    fn finds<T: AsRef<str>>(&self, texts: impl IntoIterator<Item = T>) -> bool {
        let mut texts = texts.into_iter();
        self.filter.is_empty()
            || texts.any(|text| text.as_ref().to_lowercase().contains(&self.filter))
    }
}

impl Live {
    /// Begins with the first reading.
    pub(super) fn new(reading: Reading) -> Self {
        let mut live = Self {
            reading: Reading {
                interfaces: Vec::new(),
                ..reading
            },
            sides: Vec::new(),
            drops: BTreeMap::new(),
            tops: BTreeMap::new(),
            dropped: VecDeque::new(),
            logged: VecDeque::new(),
            lost: 0,
        };
        live.read(reading);
        live
    }

    /// Goes on to the next reading.
    pub(super) fn read(&mut self, reading: Reading) {
        let seconds = reading.at.duration_since(self.reading.at).as_secs_f64();
        let mut sides = Vec::new();
        let mut dropped: BTreeMap<Scope, u64> = BTreeMap::new();
        for interface in &reading.interfaces {
            for stats in &interface.totals {
                let before = self.sides.iter().find(|side| {
                    (&side.interface, side.stats.direction) == (&interface.name, stats.direction)
                });
                let rates = before
                    .filter(|_| seconds > 0.0)
                    .map(|before| Rates::between(&before.stats, stats, seconds));
                if let Some(rates) = &rates {
                    for scope in [None, Some(Arc::clone(&interface.name))] {
                        *dropped.entry(scope).or_default() += rates.dropped.packets;
                    }
                }
                sides.push(Side {
                    interface: Arc::clone(&interface.name),
                    stats: stats.clone(),
                    rates,
                });
            }
        }
        self.drops.retain(|scope, _| {
            let mut there = reading.interfaces.iter();
            scope
                .as_ref()
                .is_none_or(|scope| there.any(|interface| interface.name == *scope))
        });
        for (scope, rate) in dropped {
            let drops = self.drops.entry(scope).or_default();
            drops.push_front((rate, seconds));
            drops.truncate(READINGS);
        }
        self.sides = sides;
        self.reading = reading;
    }

    /// Takes what was reported.
    pub(super) fn take(&mut self, events: Vec<Event>, lost: u64) {
        self.lost += lost;
        for event in events {
            if event.kind() == Kind::Drop {
                let weight = event.sampled_1_in.unwrap_or(1);
                for scope in [None, Some(Arc::clone(&event.interface))] {
                    let tops = self.tops.entry(scope).or_default();
                    if let Some(ip) = event.ip {
                        tops.sources.add(ip.src, weight);
                    }
                    if let Some(l4) = event.l4 {
                        let port = Port {
                            proto: l4.proto,
                            port: l4.dport,
                        };
                        tops.ports.add(port, weight);
                    }
                }
            }
            let recent = match event.kind() {
                Kind::Drop => &mut self.dropped,
                Kind::Log => &mut self.logged,
            };
            recent.push_front(event);
            recent.truncate(RECENT);
        }
    }

    /// Forgets what was reported.
    pub(super) fn reset_tops(&mut self) {
        self.tops.clear();
        self.dropped.clear();
        self.logged.clear();
        self.lost = 0;
    }

    pub(super) const fn time(&self) -> SystemTime {
        self.reading.time
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// What is in force, by name.
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.reading.interfaces
    }

    fn sides<'a>(&'a self, choice: &'a Choice) -> impl Iterator<Item = &'a Side> {
        let sides = self.sides.iter();
        sides.filter(|side| choice.is_in(&side.interface))
    }

    /// Whether anything that goes out is counted.
    pub(super) fn has_egress(&self, choice: &Choice) -> bool {
        self.sides(choice)
            .any(|side| side.stats.direction == Direction::Egress)
    }

    /// How many packets got this verdict, and how many do a second.
    pub(super) fn total(&self, choice: &Choice, verdict: Verdict) -> (Count, Option<Rate>) {
        let mut sum = (Count::default(), None);
        for side in self.sides(choice) {
            sum.0 = sum.0 + side.stats.total(verdict);
            if let Some(rates) = &side.rates {
                let of_side = match verdict {
                    Verdict::Pass => rates.passed,
                    Verdict::Drop => rates.dropped,
                };
                let rate: &mut Rate = sum.1.get_or_insert_default();
                rate.packets += of_side.packets;
                rate.bytes += of_side.bytes;
            }
        }
        sum
    }

    /// Drops a second, the newest first, each with the seconds that it is about.
    pub(super) fn drops(&self, choice: &Choice) -> impl Iterator<Item = (u64, f64)> {
        self.drops.get(&choice.scope).into_iter().flatten().copied()
    }

    /// The rules, as chosen.
    pub(super) fn rules<'a>(&'a self, choice: &'a Choice) -> Vec<RuleRow<'a>> {
        let mut rows: Vec<RuleRow<'a>> = Vec::new();
        for side in self.sides(choice) {
            for (place, rule, count) in side.stats.counted_rules() {
                let row = RuleRow {
                    interface: &side.interface,
                    ruleset: &side.stats.ruleset,
                    rule,
                    count,
                    rate: side
                        .rates
                        .as_ref()
                        .and_then(|rates| rates.rules.get(place))
                        .copied(),
                };
                let is_wanted = count.packets > 0 || !choice.hits_only;
                if is_wanted && (choice.filter.is_empty() || choice.finds(row.texts())) {
                    rows.push(row);
                }
            }
        }
        // Failsafe rules are many, and seldom what somebody looks for.
        let is_own = |row: &RuleRow<'_>| row.rule.id.stage != Stage::Failsafe;
        match choice.sort {
            Sort::Rate => {
                rows.sort_by_key(|row| Reverse((row.rate, row.count.packets, is_own(row))));
            }
            Sort::Packets => rows.sort_by_key(|row| Reverse((row.count.packets, is_own(row)))),
            Sort::Bytes => rows.sort_by_key(|row| Reverse((row.count.bytes, is_own(row)))),
            Sort::Order => {}
            Sort::Policy => rows.sort_by(|a, b| {
                let name = |row: &RuleRow<'a>| (Arc::clone(&row.rule.id.policy), row.rule.id.index);
                name(a).cmp(&name(b))
            }),
        }
        if choice.reverse {
            rows.reverse();
        }
        rows
    }

    /// The reasons, as chosen, those of all directions and interfaces together.
    pub(super) fn reasons(&self, choice: &Choice) -> Vec<ReasonRow> {
        let mut rows: Vec<ReasonRow> = Vec::new();
        for side in self.sides(choice) {
            for (place, (reason, verdict, count)) in side.stats.reasons.iter().enumerate() {
                let rate = side.rates.as_ref().map(|rates| rates.reasons[place]);
                let same = |row: &&mut ReasonRow| (row.reason, row.verdict) == (*reason, *verdict);
                if let Some(row) = rows.iter_mut().find(same) {
                    row.count = row.count + *count;
                    row.rate = match (row.rate, rate) {
                        (Some(one), Some(other)) => Some(one + other),
                        (one, other) => one.or(other),
                    };
                } else {
                    rows.push(ReasonRow {
                        reason: *reason,
                        verdict: *verdict,
                        count: *count,
                        rate,
                    });
                }
            }
        }
        // Most never come.
        rows.retain(|row| {
            row.count.packets > 0 && choice.finds([row.reason.name(), row.verdict.name()])
        });
        match choice.sort {
            Sort::Rate => rows.sort_by_key(|row| Reverse((row.rate, row.count.packets))),
            Sort::Packets => rows.sort_by_key(|row| Reverse(row.count.packets)),
            Sort::Bytes => rows.sort_by_key(|row| Reverse(row.count.bytes)),
            Sort::Order => {}
            Sort::Policy => rows.sort_by_key(|row| row.reason.name()),
        }
        if choice.reverse {
            rows.reverse();
        }
        rows
    }

    /// Who was dropped most, how many that was of all, and how far off that may be.
    pub(super) fn sources(&self, choice: &Choice) -> Top<IpAddr> {
        let tops = self.tops.get(&choice.scope);
        Top::of(tops.map(|tops| &tops.sources), choice)
    }

    /// What was dropped most, likewise.
    pub(super) fn ports(&self, choice: &Choice) -> Top<Port> {
        let tops = self.tops.get(&choice.scope);
        Top::of(tops.map(|tops| &tops.ports), choice)
    }

    /// What was reported, the newest first.
    pub(super) fn recent<'a>(&'a self, choice: &'a Choice) -> Vec<&'a Event> {
        let logged = self.logged.iter().filter(|_| choice.with_logged);
        let mut recent: Vec<&Event> = self
            .dropped
            .iter()
            .chain(logged)
            .filter(|event| {
                let is_in = choice.is_in(&event.interface);
                is_in && (choice.filter.is_empty() || choice.finds([event.compact()]))
            })
            .collect();
        recent.sort_by_key(|event| Reverse(event.time));
        recent
    }
}

/// The heaviest.
pub(super) struct Top<K> {
    pub(super) items: Vec<Counted<K>>,
    pub(super) total: u64,
    pub(super) error_bound: u64,
}

impl<K: std::hash::Hash + Eq + Clone + std::fmt::Display> Top<K> {
    fn of(sketch: Option<&SpaceSaving<K>>, choice: &Choice) -> Self {
        let mut items = sketch.map_or_else(Vec::new, |sketch| sketch.top(KEYS));
        if !choice.filter.is_empty() {
            items.retain(|item| choice.finds([item.key.to_string()]));
        }
        Self {
            items,
            total: sketch.map_or(0, SpaceSaving::total),
            error_bound: sketch.map_or(0, SpaceSaving::error_bound),
        }
    }
}

impl RuleRow<'_> {
    /// What a filter looks into.
    fn texts(&self) -> [String; 5] {
        [
            format!("{} {}", self.rule.id.policy, index(self.rule)),
            self.interface.to_string(),
            self.rule.id.stage.name().to_owned(),
            self.action(),
            self.rule.id.direction.name().to_owned(),
        ]
    }

    /// What it does, or would do.
    pub(super) fn action(&self) -> String {
        if self.rule.staged {
            format!("would {}", self.rule.action.name())
        } else {
            self.rule.action.name().to_owned()
        }
    }
}

/// The rule's index; what has none is a default.
pub(super) fn index(rule: &Rule) -> String {
    super::super::output::index_of(rule)
}

impl Rates {
    fn between(before: &Stats, now: &Stats, seconds: f64) -> Self {
        let all = |stats: &Stats| (stats.total(Verdict::Pass) + stats.total(Verdict::Drop)).packets;
        // Taken off and put in force again, it is counted anew.
        let is_anew = all(now) < all(before);
        let was = |count: Option<u64>| if is_anew { 0 } else { count.unwrap_or(0) };
        let rate = |now: u64, before: Option<u64>| per_second(now, was(before), seconds);
        let of = |verdict| {
            let (now, before) = (now.total(verdict), before.total(verdict));
            Rate {
                packets: rate(now.packets, Some(before.packets)),
                bytes: rate(now.bytes, Some(before.bytes)),
            }
        };
        let rules = if Arc::ptr_eq(&before.ruleset, &now.ruleset) {
            let counts = now.of_rules.iter().zip(&before.of_rules);
            counts
                .map(|(now, before)| rate(now.packets, Some(before.packets)))
                .collect()
        } else {
            let before: HashMap<Identity<'_>, u64> = before
                .rules()
                .map(|(rule, count)| (identity(rule), count.packets))
                .collect();
            // What is new began with nothing.
            now.rules()
                .map(|(rule, count)| rate(count.packets, before.get(&identity(rule)).copied()))
                .collect()
        };
        let reason = |(reason, verdict, count): &(Reason, Verdict, Count)| {
            let mut before = before.reasons.iter();
            let before = before.find(|(old, given, _)| (old, given) == (reason, verdict));
            rate(count.packets, before.map(|(_, _, count)| count.packets))
        };
        Self {
            passed: of(Verdict::Pass),
            dropped: of(Verdict::Drop),
            rules,
            reasons: now.reasons.iter().map(reason).collect(),
        }
    }
}

/// By what a rule keeps its total over changes.
type Identity<'a> = (&'a RuleId, Action, bool);

fn identity(rule: &Rule) -> Identity<'_> {
    (&rule.id, rule.action, rule.staged)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rate is shown as a whole number, and is not negative"
)]
fn per_second(now: u64, before: u64, seconds: f64) -> u64 {
    (now.saturating_sub(before) as f64 / seconds).round() as u64
}
