//! What is in force and what it counts, as JSON: the same of the command line and of
//! the daemon. Each document carries a `schema` number; counters are integers.

use std::collections::HashMap;
use std::time::SystemTime;

use filter_common::verdict::Verdict;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::time;
use crate::datapath::{Count, EgressStatus, FlowTotals, Mode, Stats, Status, TrialState};
use crate::ruleset::{Action, Direction, Match, Rule, SourceLine, Stage};

fn count(count: Count) -> Value {
    json!({"packets": count.packets, "bytes": count.bytes})
}

/// What is in force, per interface.
#[must_use]
pub fn status(all: &[Status]) -> Value {
    json!({"schema": 1, "interfaces": interfaces(all)})
}

/// The same, as part of a larger document.
#[must_use]
pub fn interfaces(all: &[Status]) -> Vec<Value> {
    let one = |status: &Status| {
        json!({
            "interface": status.interface,
            "mode": status.mode.map(Mode::name),
            "generation": status.generation,
            "program_id": status.program_id,
            "since": time(status.since),
            "endpoint": status.ruleset.endpoint,
            "default": status.ruleset.default.name(),
            "rules": status.ruleset.rules.len(),
            "memory": {"maps_bytes": status.memory},
            "combination": status.combination,
            "program": status.program_size,
            "events_lost": status.events_lost,
            "passed": count(status.stats.total(Verdict::Pass)),
            "dropped": count(status.stats.total(Verdict::Drop)),
            "egress": status.egress.as_ref().map(egress),
            "flows": flows(status),
            "trial": status.trial.map(trial),
        })
    };
    all.iter().map(one).collect()
}

/// How a trial stands that is not finished.
fn trial(state: TrialState) -> Value {
    let (state, until) = match state {
        TrialState::Runs(until) => ("runs", Some(time(until))),
        TrialState::Kept => ("kept", None),
        TrialState::Over => ("over", None),
    };
    json!({"state": state, "until": until})
}

fn egress(egress: &EgressStatus) -> Value {
    json!({
        "hook": egress.hook.name(),
        "program_id": egress.program_id,
        "default": egress.ruleset.default.name(),
        "rules": egress.ruleset.rules.len(),
        "combination": egress.combination,
        "program": egress.program_size,
        "passed": count(egress.stats.total(Verdict::Pass)),
        "dropped": count(egress.stats.total(Verdict::Drop)),
    })
}

/// What is counted of flows, by the direction that they begin in, as far as any are
/// remembered.
pub(crate) fn flows_of(status: &Status) -> impl Iterator<Item = (&'static str, FlowTotals)> {
    let directions = [Direction::Ingress.name(), Direction::Egress.name()];
    let totals = status.flows.unwrap_or_default();
    directions
        .into_iter()
        .zip(totals)
        .filter(|(_, totals)| totals.max_entries > 0)
}

/// The same, as part of a document.
#[must_use]
pub fn flows(status: &Status) -> Value {
    let flows = flows_of(status).map(|(begun, flows)| {
        let counts = json!({
            "max_entries": flows.max_entries,
            "entries": flows.entries,
            "inserts": flows.inserts,
            "hits": flows.hits,
            "evictions": flows.evictions,
            "refused": flows.refused,
            "fragments": flows.fragments,
        });
        (begun.to_owned(), counts)
    });
    Value::Object(flows.collect())
}

/// Exact totals, per interface and direction.
///
/// There may be very many rules, so that this and [`rules`] are written as they are, and
/// not made into a tree of values first, which would take twenty times the text.
pub fn stats<'s>(all: impl IntoIterator<Item = &'s Stats>, at: SystemTime) -> impl Serialize {
    Totals {
        schema: 1,
        time: time(at),
        interfaces: all.into_iter().map(of_direction).collect(),
    }
}

/// A document as a tree of values.
pub fn value(document: &impl Serialize) -> Value {
    // Our own values always serialize.
    serde_json::to_value(document).unwrap_or_default()
}

#[derive(Serialize)]
struct Totals<'s> {
    schema: u32,
    time: String,
    interfaces: Vec<OfDirection<'s>>,
}

#[derive(Serialize)]
struct OfDirection<'s> {
    interface: &'s str,
    direction: Direction,
    rules: Vec<OfRule<'s>>,
    reasons: Vec<OfReason>,
    essentials: Vec<OfKind>,
}

#[derive(Serialize)]
struct OfRule<'s> {
    stage: Stage,
    policy: &'s str,
    rule: Option<u32>,
    direction: Direction,
    action: Action,
    staged: bool,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct OfReason {
    reason: &'static str,
    verdict: &'static str,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct OfKind {
    kind: &'static str,
    packets: u64,
    bytes: u64,
}

fn of_direction(stats: &Stats) -> OfDirection<'_> {
    let rules = stats.counted_rules().map(|(_, rule, count)| OfRule {
        stage: rule.id.stage,
        policy: &rule.id.policy,
        rule: rule.id.index,
        direction: rule.id.direction,
        action: rule.action,
        staged: rule.staged,
        packets: count.packets,
        bytes: count.bytes,
    });
    let reasons = stats.reasons.iter();
    let reasons = reasons.map(|(reason, verdict, count)| OfReason {
        reason: reason.name(),
        verdict: verdict.name(),
        packets: count.packets,
        bytes: count.bytes,
    });
    let essentials = stats.essentials.iter().map(|(kind, count)| OfKind {
        kind: kind.name(),
        packets: count.packets,
        bytes: count.bytes,
    });
    OfDirection {
        interface: &stats.interface,
        direction: stats.direction,
        rules: rules.collect(),
        reasons: reasons.collect(),
        essentials: essentials.collect(),
    }
}

/// A rule of a flat list.
#[derive(Serialize)]
struct Listed<'s> {
    interface: &'s str,
    place: usize,
    stage: Stage,
    tier: Option<&'s str>,
    policy: &'s str,
    direction: Direction,
    rule: Option<u32>,
    action: Action,
    staged: bool,
    #[serde(rename = "match")]
    words: String,
    matches: &'s [Match],
    packets: u64,
    bytes: u64,
    source: Option<&'s SourceLine>,
}

/// The flat lists of rules of the policies that are wanted, with their totals.
pub fn rules<'s>(all: &'s [Status], wanted: impl Fn(&str) -> bool + 's) -> impl Serialize + 's {
    Rules {
        schema: 1,
        rules: List { all, wanted },
    }
}

fn listed<'s>(
    all: &'s [Status],
    wanted: &impl Fn(&str) -> bool,
) -> impl Iterator<Item = Listed<'s>> {
    let totals = all
        .iter()
        .flat_map(|status| status.totals().map(move |stats| (status, stats)));
    let rules = totals.flat_map(|(status, stats)| {
        let rules = stats.rules().enumerate();
        rules.map(move |(place, (rule, count))| (status, stats, place, rule, count))
    });
    let rules = rules.filter(|(_, _, _, rule, _)| wanted(&rule.id.policy));
    rules.map(|(status, stats, place, rule, count)| Listed {
        interface: &status.interface,
        place,
        stage: rule.id.stage,
        tier: rule.tier.as_deref(),
        policy: &rule.id.policy,
        direction: rule.id.direction,
        rule: rule.id.index,
        action: rule.action,
        staged: rule.staged,
        words: stats.ruleset.words(rule),
        matches: &rule.matches,
        packets: count.packets,
        bytes: count.bytes,
        source: rule.source.as_ref(),
    })
}

#[derive(Serialize)]
struct Rules<R> {
    schema: u32,
    rules: R,
}

/// Rules, each of which is made when it is written.
struct List<'s, W> {
    all: &'s [Status],
    wanted: W,
}

impl<W: Fn(&str) -> bool> Serialize for List<'_, W> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(listed(self.all, &self.wanted))
    }
}

/// The policies that have rules in force, in evaluation order, those of what comes in
/// first; a policy with rules in both directions is there once.
#[must_use]
pub fn policies(all: &[Status]) -> Value {
    let mut policies = Vec::new();
    for status in all {
        let mut places = HashMap::new();
        let mut of_interface: Vec<(&Rule, u64, Count)> = Vec::new();
        let rules = status.totals().flat_map(Stats::rules);
        for (rule, count) in rules.filter(|(rule, _)| !rule.is_default()) {
            let identity = (&rule.id.policy, rule.id.stage, rule.staged);
            let place = *places.entry(identity).or_insert(of_interface.len());
            match of_interface.get_mut(place) {
                Some((_, rules, sum)) => (*rules, *sum) = (*rules + 1, *sum + count),
                None => of_interface.push((rule, 1, count)),
            }
        }
        policies.extend(of_interface.into_iter().map(|(first, rules, sum)| {
            json!({
                "interface": status.interface,
                "policy": first.id.policy,
                "tier": first.tier,
                "stage": first.id.stage.name(),
                "staged": first.staged,
                "rules": rules,
                "packets": sum.packets,
                "bytes": sum.bytes,
            })
        }));
    }
    json!({"schema": 1, "policies": policies})
}
