//! All that a daemon counts and knows, as families of series: the same for who scrapes it
//! and for whom it pushes to.
//!
//! Nothing is kept from one time to the next: what is told is what the kernel counts at that
//! moment. No label has an address, so that the number of series follows the policies and
//! not the traffic.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use filter_common::verdict::Verdict;

use super::document::flows_of;
use super::hub::Totals;
use super::live::{Live, Policies};
use crate::datapath::{Count, Error, Mode, Status};

/// What a family is about. The name is without its unit, and without what counters end in.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The name.
    pub name: &'a str,
    /// What it is, in a sentence.
    pub help: &'a str,
    /// What it is measured in, where that is not pieces.
    pub unit: Option<Unit>,
    /// How its values behave.
    pub kind: Kind,
}

/// A base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// As it stands at the end of a name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// How values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up; the kernel has counted since before the daemon began.
    OfKernel,
    /// Up, since the daemon began.
    OfDaemon,
}

/// The labels of a series, with their values.
pub type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Where families go, one after the other.
pub trait Families {
    /// Takes a family, which may have no series.
    fn family(
        &mut self,
        about: &About<'_>,
        all: &mut dyn Iterator<Item = (Labels<'_>, u64)>,
    ) -> fmt::Result;
}

/// What is in force and counted at a moment, if it could be read.
pub type Reading = Result<Vec<Status>, Error>;

/// All there is to tell at a moment.
#[derive(Debug)]
pub struct Scrape {
    reading: Arc<Reading>,
    ready: bool,
    policies: Policies,
    sample_drops: u32,
    totals: Totals,
    clients: Option<usize>,
    #[cfg(feature = "otlp")]
    pushes: [(&'static str, u64); 2],
}

impl Scrape {
    /// What a daemon knows, and what it has read. `clients` listen to its stream, where that
    /// is known.
    #[must_use]
    pub fn of(live: &Live, reading: Arc<Reading>, clients: Option<usize>) -> Self {
        Self {
            ready: live.not_ready(&reading).is_none(),
            reading,
            policies: live.policies(),
            sample_drops: live.asked.sample_drops,
            totals: live.hub.totals(),
            clients,
            #[cfg(feature = "otlp")]
            pushes: live.pushes.totals(),
        }
    }

    fn all(&self) -> &[Status] {
        self.reading.as_deref().unwrap_or_default()
    }

    /// How many rules it tells of.
    pub(super) fn rule_count(&self) -> usize {
        let totals = self.all().iter().flat_map(Status::totals);
        totals.map(|stats| stats.of_rules.len()).sum()
    }

    /// Tells all of it.
    pub fn tell(&self, families: &mut dyn Families) -> fmt::Result {
        self.daemon(families)?;
        self.generations(families)?;
        self.packets(families)?;
        self.rules(families)?;
        self.flows(families)
    }
}

/// The value of a label.
type Label<'a> = Cow<'a, str>;

impl Scrape {
    fn daemon(&self, families: &mut dyn Families) -> fmt::Result {
        families.gauges(
            "nodewall_build_info",
            "The version that runs.",
            None,
            &Series::of(["version"], [([env!("CARGO_PKG_VERSION").into()], 1)]),
        )?;
        families.gauge(
            "nodewall_ready",
            "Whether the host is filtered as it was asked for: 1 or 0.",
            self.ready.into(),
        )?;
        let reloads = [
            (["success".into()], self.policies.successes),
            (["failure".into()], self.policies.failures),
        ];
        families.counters(
            "nodewall_policy_reloads",
            "Attempts to bring the policies in force, since the daemon began.",
            &Series::of(["result"], reloads),
        )?;
        if self.policies.last_attempt.is_some() {
            families.gauge(
                "nodewall_policy_last_reload_successful",
                "Whether the last attempt to bring the policies in force was successful: 1 or 0.",
                self.policies.last_error.is_none().into(),
            )?;
        }
        let last = self.policies.last_success;
        if let Some(since) = last.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            families.gauges(
                "nodewall_policy_last_success_timestamp",
                "When the policies were last brought in force, or found to be.",
                Some(Unit::Seconds),
                &Series::of([], [([], since.as_secs())]),
            )?;
        }
        families.gauge(
            "nodewall_sample_drops",
            "Dropped packets that are reported at most, a second and CPU.",
            self.sample_drops.into(),
        )?;
        if let Some(clients) = self.clients {
            families.gauge(
                "nodewall_stream_clients",
                "Readers of events.",
                u64::try_from(clients).unwrap_or(u64::MAX),
            )?;
        }
        #[cfg(feature = "otlp")]
        families.counters(
            "nodewall_otlp_pushes",
            "Pushes to a collector, since the daemon began.",
            &Series::of(
                ["result"],
                self.pushes
                    .map(|(result, pushes)| ([result.into()], pushes)),
            ),
        )?;
        let events = [
            (["drop".into()], self.totals.drops),
            (["log".into()], self.totals.logs),
        ];
        families.counters(
            "nodewall_events",
            "Packets that were reported, since the daemon began.",
            &Series::of(["kind"], events),
        )?;
        families.counters(
            "nodewall_events_lost",
            "Packets that were not, as more came than are reported, since the daemon began.",
            &Series::of([], [([], self.totals.lost)]),
        )
    }

    fn generations(&self, families: &mut dyn Families) -> fmt::Result {
        let all = self.all();
        let mut attached = Series::new(["interface", "mode"]);
        for status in all {
            let mode = status.mode.map_or("", Mode::name);
            attached.add(
                [(&*status.interface).into(), mode.into()],
                status.is_attached().into(),
            );
        }
        for name in &self.policies.interfaces {
            if all.iter().all(|status| status.interface != *name) {
                attached.add([(&**name).into(), "".into()], 0);
            }
        }
        families.gauges(
            "nodewall_interface_attached",
            "Whether a filter is attached: 1, or 0 where one should be and is not.",
            None,
            &attached,
        )?;
        let of = |value: fn(&Status) -> u64| {
            let values = all
                .iter()
                .map(move |status| ([(&*status.interface).into()], value(status)));
            Series::of(["interface"], values)
        };
        families.gauges(
            "nodewall_policy_generation",
            "Changes of the policy since the filter was attached.",
            None,
            &of(|status| status.generation),
        )?;
        let maps = all
            .iter()
            .map(|status| ([(&*status.interface).into(), "all".into()], status.memory));
        families.gauges(
            "nodewall_map",
            "Memory of the maps, as the kernel accounts it.",
            Some(Unit::Bytes),
            &Series::of(["interface", "map"], maps),
        )
    }

    fn packets(&self, families: &mut dyn Families) -> fmt::Result {
        let mut verdicts = Series::new(["interface", "direction", "verdict"]);
        let mut dropped = Series::new(["interface", "direction", "reason"]);
        for stats in self.all().iter().flat_map(Status::totals) {
            let place = || {
                [
                    Label::from(&*stats.interface),
                    stats.direction.name().into(),
                ]
            };
            for verdict in [Verdict::Pass, Verdict::Drop] {
                let [interface, direction] = place();
                verdicts.add(
                    [interface, direction, verdict.name().into()],
                    stats.total(verdict),
                );
            }
            let drops = stats.reasons.iter();
            for (reason, _, count) in drops.filter(|(_, given, _)| *given == Verdict::Drop) {
                let [interface, direction] = place();
                dropped.add([interface, direction, reason.name().into()], *count);
            }
        }
        families.counted(
            ["nodewall_packets", "nodewall"],
            [
                "Packets, by what became of them.",
                "Bytes of the packets, without FCS.",
            ],
            &verdicts,
        )?;
        families.counted(
            ["nodewall_dropped_packets", "nodewall_dropped"],
            [
                "Dropped packets, by why.",
                "Bytes of the dropped packets, without FCS.",
            ],
            &dropped,
        )
    }

    fn rules(&self, families: &mut dyn Families) -> fmt::Result {
        let mut rules = Series::new(["interface", "direction", "policy", "rule", "action"]);
        for stats in self.all().iter().flat_map(Status::totals) {
            for (_, rule, count) in stats.counted_rules() {
                let index = rule.id.index;
                let index = index.map_or(Label::from("default"), |index| index.to_string().into());
                let action = rule.action.name();
                let action = if rule.staged {
                    format!("would_{action}").into()
                } else {
                    action.into()
                };
                let labels = [
                    (&*stats.interface).into(),
                    stats.direction.name().into(),
                    (&*rule.id.policy).into(),
                    index,
                    action,
                ];
                rules.add(labels, count);
            }
        }
        families.counted(
            ["nodewall_rule_packets", "nodewall_rule"],
            [
                "Packets that the rule decided, or matched where it is staged, logs or passes.",
                "Bytes of those packets, without FCS.",
            ],
            &rules,
        )
    }

    fn flows(&self, families: &mut dyn Families) -> fmt::Result {
        let mut entries = Series::new(["interface", "direction"]);
        let mut most = Series::new(["interface", "direction"]);
        for status in self.all() {
            for (begun, flows) in flows_of(status) {
                let labels = [Label::from(&*status.interface), begun.into()];
                entries.add(labels.clone(), flows.entries);
                most.add(labels, flows.max_entries);
            }
        }
        families.gauges(
            "nodewall_flow_entries",
            "Flows that are remembered, by the direction they began in.",
            None,
            &entries,
        )?;
        families.gauges(
            "nodewall_flow_max_entries",
            "Flows that can be remembered.",
            None,
            &most,
        )
    }
}

/// The series of a family, in the order they came. What has the same labels is one
/// series, their sum: a scraper may refuse all where two are alike, and two slots can
/// have one interface's name, or a policy the name of the failsafe rules.
struct Series<'a, V, const N: usize> {
    names: [&'static str; N],
    places: HashMap<[Label<'a>; N], usize>,
    all: Vec<([Label<'a>; N], V)>,
}

impl<'a, V: Copy + Add<Output = V>, const N: usize> Series<'a, V, N> {
    fn new(names: [&'static str; N]) -> Self {
        Self {
            names,
            places: HashMap::new(),
            all: Vec::new(),
        }
    }

    fn of(names: [&'static str; N], all: impl IntoIterator<Item = ([Label<'a>; N], V)>) -> Self {
        let mut series = Self::new(names);
        for (labels, value) in all {
            series.add(labels, value);
        }
        series
    }

    fn add(&mut self, labels: [Label<'a>; N], value: V) {
        if let Some(place) = self.places.get(&labels) {
            let sum = &mut self.all[*place].1;
            *sum = *sum + value;
        } else {
            self.places.insert(labels.clone(), self.all.len());
            self.all.push((labels, value));
        }
    }

    fn map<W>(&self, value: impl Fn(V) -> W) -> impl Iterator<Item = (Vec<(&str, &str)>, W)> {
        self.all.iter().map(move |(labels, given)| {
            let labels = labels.iter().map(|label| &**label);
            (
                self.names.iter().copied().zip(labels).collect(),
                value(*given),
            )
        })
    }
}

impl dyn Families + '_ {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, None, &Series::of([], [([], value)]))
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: &Series<'_, u64, N>,
    ) -> fmt::Result {
        let about = About {
            name,
            help,
            unit,
            kind: Kind::Gauge,
        };
        self.family(&about, &mut series.map(|value| value))
    }

    /// What the daemon counts.
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: &Series<'_, u64, N>,
    ) -> fmt::Result {
        let about = About {
            name,
            help,
            unit: None,
            kind: Kind::OfDaemon,
        };
        self.family(&about, &mut series.map(|value| value))
    }

    /// What the kernel counts: packets, and the bytes of the same.
    fn counted<const N: usize>(
        &mut self,
        names: [&str; 2],
        helps: [&str; 2],
        series: &Series<'_, Count, N>,
    ) -> fmt::Result {
        let about = |which: usize, unit| About {
            name: names[which],
            help: helps[which],
            unit,
            kind: Kind::OfKernel,
        };
        self.family(&about(0, None), &mut series.map(|count| count.packets))?;
        let bytes = &mut series.map(|count| count.bytes);
        self.family(&about(1, Some(Unit::Bytes)), bytes)
    }
}
