//! What is told, as OpenTelemetry has it: names, units, times and requests.

use std::collections::HashMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::telemetry::families::{About, Families, Kind, Labels, Unit};

/// Points of a request: a collector takes 4 MiB of gRPC unless told otherwise, and one of
/// a rule with long names has some 200 bytes.
const MOST_POINTS: usize = 5_000;

/// Makes messages of what is told, and remembers since when each counter counts.
pub(super) struct Messages {
    resource: Resource,
    /// When the daemon began: its own counters count since then.
    began: u64,
    /// When the push before was made.
    before: Option<u64>,
    known: HashMap<Series, Known>,
}

type Series = (String, Vec<(String, String)>);

/// A counter of the kernel's.
#[derive(Clone, Copy, Debug)]
struct Known {
    since: u64,
    value: u64,
}

/// Metrics of one moment.
struct Metrics<'m> {
    now: u64,
    messages: &'m Messages,
    known: HashMap<Series, Known>,
    all: Vec<Metric>,
}

impl Messages {
    /// `attributes` describe the daemon; what is among them comes before what it knows.
    pub(super) fn new(
        node: Option<&str>,
        attributes: &[(String, String)],
        began: SystemTime,
    ) -> Self {
        let own = [
            ("service.name", Some("nodewall")),
            ("service.version", Some(env!("CARGO_PKG_VERSION"))),
            // What tells apart the daemons of one service: Prometheus' `instance`.
            ("service.instance.id", node),
            ("host.name", node),
        ];
        let own = own
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .filter(|(key, _)| attributes.iter().all(|(given, _)| given != key));
        let attributes = own.chain(attributes.iter().cloned());
        Self {
            resource: Resource {
                attributes: attributes
                    .map(|(key, value)| attribute(&key, &value))
                    .collect(),
                ..Resource::default()
            },
            began: nanoseconds(began),
            before: None,
            known: HashMap::new(),
        }
    }

    /// The requests that push what is told. Counters say all that they ever counted, so
    /// that a push which is lost is made good by the next.
    pub(super) fn of(
        &mut self,
        now: SystemTime,
        tell: impl FnOnce(&mut dyn Families) -> fmt::Result,
    ) -> Result<Vec<ExportMetricsServiceRequest>, fmt::Error> {
        let now = nanoseconds(now);
        let mut metrics = Metrics {
            now,
            messages: self,
            known: HashMap::with_capacity(self.known.len()),
            all: Vec::new(),
        };
        tell(&mut metrics)?;
        let Metrics { known, all, .. } = metrics;
        self.known = known;
        self.before = Some(now);
        Ok(self.requests(all))
    }

    /// Several of them, where one would be too long.
    fn requests(&self, metrics: Vec<Metric>) -> Vec<ExportMetricsServiceRequest> {
        let mut requests = Vec::new();
        let mut of_request = Vec::new();
        let mut room = MOST_POINTS;
        for metric in metrics {
            for part in parts(metric, MOST_POINTS) {
                let points = points(&part).len();
                if points > room {
                    requests.push(self.request(std::mem::take(&mut of_request)));
                    room = MOST_POINTS;
                }
                room -= points;
                of_request.push(part);
            }
        }
        if !of_request.is_empty() {
            requests.push(self.request(of_request));
        }
        requests
    }

    fn request(&self, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "nodewall".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        }
    }
}

impl Metrics<'_> {
    /// Since when a counter counts. Those of the kernel are older than the daemon, and
    /// nobody knows by how much: their first point says so by beginning when it is made
    /// (OpenTelemetry, "unknown start time"). One that is less than before began anew.
    fn since(&mut self, about: &About<'_>, labels: &Labels<'_>, value: u64) -> u64 {
        if about.kind == Kind::OfDaemon {
            return self.messages.began;
        }
        let labels = labels.iter();
        let labels = labels.map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        let series = (name(about), labels.collect());
        let since = match self.messages.known.get(&series) {
            Some(known) if known.value <= value => known.since,
            Some(_) => self.messages.before.unwrap_or(self.now),
            None => self.now,
        };
        self.known.insert(series, Known { since, value });
        since
    }
}

impl Families for Metrics<'_> {
    fn family(
        &mut self,
        about: &About<'_>,
        all: &mut dyn Iterator<Item = (Labels<'_>, u64)>,
    ) -> fmt::Result {
        let counts = about.kind != Kind::Gauge;
        let mut data_points = Vec::new();
        for (labels, value) in all {
            let start_time_unix_nano = if counts {
                self.since(about, &labels, value)
            } else {
                0
            };
            data_points.push(NumberDataPoint {
                attributes: labels
                    .iter()
                    .map(|(key, value)| attribute(key, value))
                    .collect(),
                start_time_unix_nano,
                time_unix_nano: self.now,
                value: Some(number_data_point::Value::AsInt(
                    i64::try_from(value).unwrap_or(i64::MAX),
                )),
                ..NumberDataPoint::default()
            });
        }
        if data_points.is_empty() {
            return Ok(());
        }
        let data = if counts {
            metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            })
        } else {
            metric::Data::Gauge(Gauge { data_points })
        };
        self.all.push(Metric {
            name: name(about),
            description: about.help.to_owned(),
            unit: unit(about).to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        });
        Ok(())
    }
}

/// `nodewall.packets` of `nodewall_packets_total`: the namespace ends at a dot, and the
/// end that Prometheus gives a counter is added again by whoever brings it there.
fn name(about: &About<'_>) -> String {
    let name = match about.unit {
        Some(unit) => format!("{}_{}", about.name, unit.name()),
        None => about.name.to_owned(),
    };
    name.replacen('_', ".", 1)
}

/// By its code of UCUM. What is counted in pieces has none: "1" would be a ratio where it is
/// brought to Prometheus.
fn unit(about: &About<'_>) -> &'static str {
    match about.unit {
        Some(Unit::Bytes) => "By",
        Some(Unit::Seconds) => "s",
        None => "",
    }
}

fn points(metric: &Metric) -> &[NumberDataPoint] {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        _ => &[],
    }
}

/// The metric in parts of so many points at the most.
fn parts(metric: Metric, most: usize) -> Vec<Metric> {
    let all = points(&metric);
    if all.len() <= most {
        return vec![metric];
    }
    let part = |points: &[NumberDataPoint]| {
        let data_points = points.to_vec();
        let data = metric.data.as_ref().map(|data| match data {
            metric::Data::Sum(sum) => metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality: sum.aggregation_temporality,
                is_monotonic: sum.is_monotonic,
            }),
            _ => metric::Data::Gauge(Gauge { data_points }),
        });
        Metric {
            name: metric.name.clone(),
            description: metric.description.clone(),
            unit: metric.unit.clone(),
            metadata: Vec::new(),
            data,
        }
    };
    all.chunks(most).map(part).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BEGAN: u64 = 1_700_000_000;

    fn messages() -> Messages {
        Messages::new(Some("worker-1"), &[], at(0))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(BEGAN + seconds)
    }

    const PACKETS: About<'_> = About {
        name: "nodewall_packets",
        help: "Packets.",
        unit: None,
        kind: Kind::OfKernel,
    };

    /// The metrics of a moment, each with its points.
    fn told(
        messages: &mut Messages,
        seconds: u64,
        about: &About<'_>,
        all: &[(&str, u64)],
    ) -> Vec<(Metric, Vec<NumberDataPoint>)> {
        let requests = messages.of(at(seconds), |families| {
            let mut all = all
                .iter()
                .map(|(of, value)| (vec![("interface", *of)], *value));
            families.family(about, &mut all)
        });
        let requests = requests.unwrap().into_iter();
        let of_requests = requests.flat_map(|request| request.resource_metrics);
        let metrics = of_requests
            .flat_map(|of| of.scope_metrics)
            .flat_map(|of| of.metrics);
        metrics
            .map(|metric| {
                let points = points(&metric).to_vec();
                (metric, points)
            })
            .collect()
    }

    /// Seconds since the daemon began, at which the counter of each series begins.
    fn starts(told: &[(Metric, Vec<NumberDataPoint>)]) -> Vec<u64> {
        let all = told.iter().flat_map(|(_, points)| points);
        all.map(|point| point.start_time_unix_nano / 1_000_000_000 - BEGAN)
            .collect()
    }

    #[test]
    fn a_counter_of_the_kernel_s_begins_when_it_is_first_seen() {
        let mut messages = messages();
        let first = told(&mut messages, 10, &PACKETS, &[("eth0", 1_000)]);
        assert_eq!(starts(&first), [10]);
        assert_eq!(
            first[0].1[0].time_unix_nano,
            first[0].1[0].start_time_unix_nano
        );
        let all = [("eth0", 1_000), ("eth1", 7)];
        assert_eq!(starts(&told(&mut messages, 20, &PACKETS, &all)), [10, 20]);
        // Taken off and attached again: less than before.
        let all = [("eth0", 999), ("eth1", 8)];
        assert_eq!(starts(&told(&mut messages, 30, &PACKETS, &all)), [20, 20]);
        // One that was away is new.
        assert_eq!(
            starts(&told(&mut messages, 40, &PACKETS, &[("eth1", 9)])),
            [20]
        );
        let all = [("eth0", 2_000), ("eth1", 9)];
        assert_eq!(starts(&told(&mut messages, 50, &PACKETS, &all)), [50, 20]);
    }

    #[test]
    fn a_counter_of_the_daemon_s_begins_with_it_and_a_gauge_does_not() {
        let mut messages = messages();
        let about = About {
            kind: Kind::OfDaemon,
            ..PACKETS
        };
        assert_eq!(
            starts(&told(&mut messages, 10, &about, &[("eth0", 1)])),
            [0]
        );
        let about = About {
            kind: Kind::Gauge,
            ..PACKETS
        };
        let told = told(&mut messages, 10, &about, &[("eth0", 1)]);
        assert_eq!(told[0].1[0].start_time_unix_nano, 0);
        assert!(matches!(told[0].0.data, Some(metric::Data::Gauge(_))));
    }

    #[test]
    fn names_and_units_are_opentelemetry_s() {
        let mut messages = messages();
        for (of, unit, name, code) in [
            ("nodewall_rule_packets", None, "nodewall.rule_packets", ""),
            ("nodewall", Some(Unit::Bytes), "nodewall.bytes", "By"),
            (
                "nodewall_age",
                Some(Unit::Seconds),
                "nodewall.age_seconds",
                "s",
            ),
        ] {
            let about = About {
                name: of,
                unit,
                ..PACKETS
            };
            let told = told(&mut messages, 1, &about, &[("eth0", 1)]);
            assert_eq!((&*told[0].0.name, &*told[0].0.unit), (name, code));
        }
    }

    #[test]
    fn what_is_too_long_is_several_requests_and_all_of_it() {
        let mut messages = messages();
        let names: Vec<String> = (0..=MOST_POINTS * 2).map(|n| n.to_string()).collect();
        let requests = messages.of(at(1), |families| {
            for _ in 0..2 {
                let all = names.iter().zip(0..);
                let mut all = all.map(|(name, value)| (vec![("interface", &**name)], value));
                families.family(&PACKETS, &mut all)?;
            }
            Ok(())
        });
        let requests = requests.unwrap();
        let lengths = requests.iter().map(|request| {
            let of = &request.resource_metrics[0];
            assert!(!of.resource.as_ref().unwrap().attributes.is_empty());
            let metrics = &of.scope_metrics[0].metrics;
            metrics.iter().map(|metric| points(metric).len()).sum()
        });
        let lengths: Vec<usize> = lengths.collect();
        assert!(
            lengths.iter().all(|length| *length <= MOST_POINTS),
            "{lengths:?}"
        );
        assert_eq!(lengths.iter().sum::<usize>(), names.len() * 2);
    }

    #[test]
    fn what_is_given_describes_the_daemon_before_what_it_knows() {
        let given = [("service.name".to_owned(), "edge".to_owned())];
        let messages = Messages::new(Some("worker-1"), &given, at(0));
        let attributes = &messages.resource.attributes;
        let of = |key: &str| {
            let all = attributes.iter().filter(|attribute| attribute.key == key);
            all.cloned().collect::<Vec<_>>()
        };
        assert_eq!(of("service.name"), [attribute("service.name", "edge")]);
        let instance = attribute("service.instance.id", "worker-1");
        assert_eq!(of("service.instance.id"), [instance]);
        assert_eq!(of("host.name"), [attribute("host.name", "worker-1")]);
    }
}
