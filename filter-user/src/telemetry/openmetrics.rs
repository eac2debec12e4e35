//! The counters for a scraper, in the text formats of OpenMetrics and of Prometheus.

#[cfg(test)]
mod strict;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{self, Registry};

use super::families::{About, Families, Kind, Labels, Scrape, Unit};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// What Prometheus had before, and some tools still want.
    Classic,
}

impl Format {
    /// Its name in a Content-Type header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The one that a scraper with this Accept header gets: OpenMetrics, unless it asks
    /// for plain text and for nothing that would be OpenMetrics.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let kinds = accept.split(',').filter_map(|kind| {
            let mut parts = kind.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            (!refused).then_some(name)
        });
        let kinds: Vec<String> = kinds.collect();
        let has = |names: &[&str]| kinds.iter().any(|kind| names.contains(&kind.as_str()));
        let open = ["application/openmetrics-text", "application/*", "*/*"];
        if has(&["text/plain", "text/*"]) && !has(&open) {
            Self::Classic
        } else {
            Self::OpenMetrics
        }
    }
}

impl Scrape {
    /// All of it, as text.
    pub fn encode(self, format: Format) -> Result<String, fmt::Error> {
        let rules = self.rule_count();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        // A rule has two lines of some 120 bytes.
        let mut out = String::with_capacity(16_384 + rules * 256);
        match format {
            Format::OpenMetrics => text::encode(&mut out, &registry)?,
            Format::Classic => prometheus_text::encode(&mut out, &registry)?,
        }
        Ok(out)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.tell(&mut Text(encoder))
    }
}

/// Writes families, one after the other.
struct Text<'e>(DescriptorEncoder<'e>);

impl Families for Text<'_> {
    fn family(
        &mut self,
        about: &About<'_>,
        all: &mut dyn Iterator<Item = (Labels<'_>, u64)>,
    ) -> fmt::Result {
        match about.kind {
            Kind::Gauge => self.write(about, all.map(|(of, value)| (of, ConstGauge::new(value)))),
            Kind::OfKernel | Kind::OfDaemon => {
                self.write(about, all.map(|(of, value)| (of, ConstCounter::new(value))))
            }
        }
    }
}

impl Text<'_> {
    fn write<'s, M: EncodeMetric>(
        &mut self,
        about: &About<'_>,
        all: impl Iterator<Item = (Labels<'s>, M)>,
    ) -> fmt::Result {
        let mut all = all.peekable();
        let Some((_, first)) = all.peek() else {
            return Ok(());
        };
        let unit = about.unit.map(|unit| match unit {
            Unit::Bytes => registry::Unit::Bytes,
            Unit::Seconds => registry::Unit::Seconds,
        });
        let kind = first.metric_type();
        let (name, help) = (about.name, about.help);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, metric) in all {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use filter_common::verdict::{Essential, Reason, Verdict};

    use super::strict::{self, Name};
    use super::*;
    use crate::compile::Combination;
    use crate::datapath::{
        Count, Described, EgressHook, EgressStatus, FlowTotals, Mode, ProgramSize, Stats, Status,
    };
    use crate::ruleset::{Action, Direction, Match, Options, Rule, RuleId, Ruleset, Stage};
    use crate::telemetry::live::{Asked, Live};
    use crate::worker::Worker;

    /// A rule, and how many packets it has.
    pub(crate) fn rule(
        policy: &str,
        index: Option<u32>,
        action: Action,
        packets: u64,
    ) -> (Rule, u64) {
        let rule = Rule {
            id: RuleId {
                stage: Stage::PreDnat,
                policy: policy.into(),
                direction: Direction::Ingress,
                index,
            },
            tier: None,
            action,
            staged: false,
            matches: vec![Match::default()],
            source: None,
        };
        (rule, packets)
    }

    const fn count(packets: u64) -> Count {
        Count {
            packets,
            bytes: packets * 64,
        }
    }

    fn totals(interface: &str, direction: Direction, rules: &[(Rule, u64)]) -> Stats {
        let reasons = Reason::ALL.iter().map(|reason| {
            let of = |(rule, packets): &(Rule, u64)| {
                (rule.reason() == Some(*reason)).then_some(*packets)
            };
            let packets = rules.iter().filter_map(of).sum();
            (*reason, reason.usual_verdict(), count(packets))
        });
        let refused = (Reason::NotIp, Verdict::Drop, count(3));
        Stats {
            interface: interface.to_owned(),
            direction,
            ruleset: Arc::new(Ruleset {
                endpoint: "worker-1".to_owned(),
                direction,
                sets: Vec::new(),
                rules: rules.iter().map(|(rule, _)| rule.clone()).collect(),
                default: Action::Allow,
                options: Options::default(),
            }),
            of_rules: rules.iter().map(|(_, packets)| count(*packets)).collect(),
            reasons: reasons.chain([refused]).collect(),
            essentials: Essential::ALL
                .iter()
                .map(|kind| (*kind, count(0)))
                .collect(),
        }
    }

    /// An interface with these rules, of what comes in.
    pub(crate) fn status(interface: &str, rules: &[(Rule, u64)]) -> Status {
        let stats = totals(interface, Direction::Ingress, rules);
        let of_egress = totals(interface, Direction::Egress, &[]);
        Status {
            interface: interface.to_owned(),
            mode: Some(Mode::Native),
            generation: 5,
            program_id: 139,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            ruleset: Arc::clone(&stats.ruleset),
            described: Described::default(),
            memory: 1 << 20,
            combination: Some(Combination::OneDimension),
            program_size: Some(ProgramSize {
                verified_instructions: 20_000,
                xlated_bytes: 16_000,
                jited_bytes: 9_000,
            }),
            events_lost: 0,
            egress: Some(EgressStatus {
                hook: Some(EgressHook::Tcx),
                program_id: 140,
                ruleset: Arc::clone(&of_egress.ruleset),
                program_size: None,
                combination: Some(Combination::OneDimension),
                stats: of_egress,
            }),
            egress_before: None,
            trial: None,
            flows: Some(
                [FlowTotals {
                    max_entries: 1 << 17,
                    entries: 12,
                    hits: 5_000_000_000,
                    ..FlowTotals::default()
                }; 2],
            ),
            stats,
        }
    }

    /// A daemon that knows nothing of policies yet.
    pub(crate) fn live() -> Live {
        let asked = Asked {
            policies: vec!["/etc/nodewall/policies.d".into()],
            sample_drops: 100,
        };
        Live::new(
            Path::new("/nonexistent"),
            asked,
            Worker::begin("readings").expect("a thread"),
        )
    }

    fn encoded(live: &Live, all: Vec<Status>, format: Format) -> String {
        let scrape = Scrape::of(live, Arc::new(Ok(all)), Some(2));
        scrape.encode(format).expect("text")
    }

    fn name(name: &str, labels: &[(&str, &str)]) -> Name {
        let labels = labels.iter();
        let labels = labels.map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        (name.to_owned(), labels.collect())
    }

    fn series(all: &BTreeMap<Name, u64>, series: &str, labels: &[(&str, &str)]) -> u64 {
        let found = all.get(&name(series, labels));
        *found.unwrap_or_else(|| panic!("no {series}{labels:?} in {all:#?}"))
    }

    #[test]
    fn everything_is_told_once_and_in_base_units() {
        let live = live();
        let names = ["eth0".to_owned(), "eth9".to_owned()];
        live.succeeded(&names, &BTreeMap::new(), "2 policies");
        live.failed("a mistake");
        let mut staged = rule("next", Some(0), Action::Deny, 9);
        staged.0.staged = true;
        let mut end = rule("next", None, Action::Deny, 8);
        end.0.staged = true;
        let rules = [
            rule("deny-node-ports", Some(0), Action::Deny, 1_000),
            rule("deny-node-ports", Some(1), Action::Allow, 70),
            rule("audit", Some(0), Action::Log, 5),
            rule("audit", Some(1), Action::Pass, 6),
            staged,
            end,
            // What the end of a tier decides is counted by its reason.
            rule("audit", None, Action::Deny, 0),
        ];
        let mut gone = status("eth1", &[]);
        gone.mode = None;
        gone.flows = None;
        let all = strict::read(&encoded(
            &live,
            vec![status("eth0", &rules), gone],
            Format::OpenMetrics,
        ));
        let of = |series: &str, labels: &[(&str, &str)]| self::series(&all, series, labels);
        let eth0 = ("interface", "eth0");
        let here = ("direction", "ingress");
        for (verdict, packets) in [("pass", 70), ("drop", 1_003)] {
            let labels = [eth0, here, ("verdict", verdict)];
            assert_eq!(of("nodewall_packets_total", &labels), packets);
            assert_eq!(of("nodewall_bytes_total", &labels), packets * 64);
        }
        for (reason, packets) in [("policy_deny", 1_000), ("default_deny", 0), ("not_ip", 3)] {
            let labels = [eth0, here, ("reason", reason)];
            assert_eq!(of("nodewall_dropped_packets_total", &labels), packets);
            assert_eq!(of("nodewall_dropped_bytes_total", &labels), packets * 64);
        }
        for (policy, rule, action, packets) in [
            ("deny-node-ports", "0", "deny", 1_000),
            ("deny-node-ports", "1", "allow", 70),
            ("audit", "0", "log", 5),
            ("audit", "1", "pass", 6),
            ("next", "0", "would_deny", 9),
            ("next", "default", "would_deny", 8),
        ] {
            let labels = [
                eth0,
                here,
                ("policy", policy),
                ("rule", rule),
                ("action", action),
            ];
            assert_eq!(of("nodewall_rule_packets_total", &labels), packets);
            assert_eq!(of("nodewall_rule_bytes_total", &labels), packets * 64);
        }
        let rules = all
            .keys()
            .filter(|(name, _)| name == "nodewall_rule_packets_total");
        assert_eq!(rules.count(), 6);
        // One that is there, one whose device is gone, one that should be and is not.
        for (interface, mode, attached) in [("eth0", "native", 1), ("eth1", "", 0), ("eth9", "", 0)]
        {
            let labels = [("interface", interface), ("mode", mode)];
            assert_eq!(of("nodewall_interface_attached", &labels), attached);
        }
        for direction in ["ingress", "egress"] {
            let labels = [eth0, ("direction", direction)];
            assert_eq!(of("nodewall_flow_entries", &labels), 12);
            assert_eq!(of("nodewall_flow_max_entries", &labels), 1 << 17);
        }
        assert_eq!(of("nodewall_map_bytes", &[eth0, ("map", "all")]), 1 << 20);
        assert_eq!(of("nodewall_policy_generation", &[eth0]), 5);
        assert_eq!(
            of("nodewall_policy_reloads_total", &[("result", "success")]),
            1
        );
        assert_eq!(
            of("nodewall_policy_reloads_total", &[("result", "failure")]),
            1
        );
        assert!(of("nodewall_policy_last_success_timestamp_seconds", &[]) > 1_700_000_000);
        assert_eq!(of("nodewall_policy_last_reload_successful", &[]), 0);
        assert_eq!(of("nodewall_ready", &[]), 0);
        assert_eq!(of("nodewall_sample_drops", &[]), 100);
        assert_eq!(of("nodewall_stream_clients", &[]), 2);
        assert_eq!(of("nodewall_events_lost_total", &[]), 0);
        assert_eq!(of("nodewall_events_total", &[("kind", "drop")]), 0);
        let version = ("version", env!("CARGO_PKG_VERSION"));
        assert_eq!(of("nodewall_build_info", &[version]), 1);
        // No family beyond those that the manual lists.
        let manual = include_str!("../../../docs/manual.md");
        for (name, _) in all.keys() {
            assert!(
                manual.contains(&format!("`{name}`")),
                "the manual has no {name}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let live = live();
        let all = strict::read(&encoded(&live, Vec::new(), Format::OpenMetrics));
        let names: Vec<&str> = all.keys().map(|(name, _)| &**name).collect();
        assert!(!names.contains(&"nodewall_packets_total"), "{names:?}");
        assert!(!names.contains(&"nodewall_policy_last_success_timestamp_seconds"));
        assert!(!names.contains(&"nodewall_policy_last_reload_successful"));
        assert!(names.contains(&"nodewall_ready"));
    }

    #[test]
    fn names_are_escaped_and_come_back() {
        let odd = "a \"quoted\" name\\n\nwith {all}, = and # EOF ä";
        let all = vec![status("eth0", &[rule(odd, Some(0), Action::Deny, 1)])];
        let text = encoded(&live(), all, Format::OpenMetrics);
        let all = strict::read(&text);
        let mut policies = all.keys().filter_map(|(_, labels)| labels.get("policy"));
        assert!(policies.all(|policy| policy == odd), "{text}");
    }

    /// A scraper refuses all of a text in which a series is there twice.
    #[test]
    fn what_has_the_same_labels_is_added_up() {
        let mut other = rule("failsafe", Some(0), Action::Allow, 20);
        other.0.id.stage = Stage::Failsafe;
        let rules = [rule("failsafe", Some(0), Action::Allow, 1), other];
        // Two slots whose interfaces have come to the same name.
        let all = vec![status("eth0", &rules), status("eth0", &rules)];
        let all = strict::read(&encoded(&live(), all, Format::OpenMetrics));
        let labels = [
            ("interface", "eth0"),
            ("direction", "ingress"),
            ("policy", "failsafe"),
            ("rule", "0"),
            ("action", "allow"),
        ];
        assert_eq!(series(&all, "nodewall_rule_packets_total", &labels), 42);
        assert_eq!(series(&all, "nodewall_rule_bytes_total", &labels), 42 * 64);
    }

    #[test]
    fn what_a_direction_counted_stays_when_it_is_not_filtered_any_more() {
        let mut status = status("eth0", &[]);
        let before = status.egress.take().map(|egress| egress.stats);
        status.egress_before = before;
        let all = strict::read(&encoded(&live(), vec![status], Format::OpenMetrics));
        let labels = [
            ("interface", "eth0"),
            ("direction", "egress"),
            ("verdict", "drop"),
        ];
        assert_eq!(series(&all, "nodewall_packets_total", &labels), 3);
    }

    #[test]
    fn the_classic_format_names_counters_as_they_are() {
        let all = vec![status("eth0", &[rule("p", Some(0), Action::Deny, 1)])];
        let text = encoded(&live(), all, Format::Classic);
        assert!(
            text.contains("# TYPE nodewall_rule_bytes_total counter\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE nodewall_build_info gauge\n"),
            "{text}"
        );
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT"),
            "{text}"
        );
    }

    #[test]
    fn a_scraper_gets_what_it_accepts() {
        for (accept, format) in [
            ("", Format::OpenMetrics),
            ("*/*", Format::OpenMetrics),
            ("text/html,*/*;q=0.8", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
            ("text/plain", Format::Classic),
            ("Text/Plain;version=0.0.4;q=0.5", Format::Classic),
            (
                "text/plain,application/openmetrics-text;q=0",
                Format::Classic,
            ),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,\
                 */*;q=0.2",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    #[should_panic(expected = "a series is there twice")]
    fn the_strict_reader_refuses_a_series_that_is_there_twice() {
        strict::read(
            "# HELP nodewall_a A.\n# TYPE nodewall_a gauge\nnodewall_a 1\nnodewall_a 1\n# EOF\n",
        );
    }

    #[test]
    #[should_panic(expected = "a family is there twice")]
    fn the_strict_reader_refuses_a_family_in_two_places() {
        let family = "# HELP nodewall_a A.\n# TYPE nodewall_a gauge\nnodewall_a 1\n";
        strict::read(&format!(
            "{family}{}{family}# EOF\n",
            family.replace("_a", "_b")
        ));
    }
}
