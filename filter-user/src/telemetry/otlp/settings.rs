//! Where metrics are pushed to, how, and how often: from flags, nodewall's own environment
//! and OpenTelemetry's.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf in HTTP/1.1 posts.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// By its name, nodewall's or OpenTelemetry's.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "http" | "http/protobuf" => Some(Self::Http),
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
        })
    }
}

/// How often metrics are pushed, unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// How often at the most, and at the least.
pub const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(1)];

/// Where metrics are pushed to, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// All of it: `http`, a host, and where it is HTTP the path.
    pub endpoint: Uri,
    /// How.
    pub protocol: Protocol,
    /// How often.
    pub interval: Duration,
    /// What describes this daemon beside what it knows itself.
    pub attributes: Vec<(String, String)>,
}

/// What flags and nodewall's own environment say, in this order.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The collector.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Option<Protocol>,
    /// How often.
    pub interval: Option<Duration>,
}

impl Settings {
    /// What was asked for, and behind that what OpenTelemetry's variables say; `None` where
    /// nobody names an endpoint. An error says what to do.
    pub fn new(
        asked: &Asked,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        // One that is empty counts as one that is not there.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let of_metrics = variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
        let of_all = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        // The one of metrics alone is taken as it stands.
        let (endpoint, whole) = match (&asked.endpoint, of_metrics, of_all) {
            (Some(asked), ..) => (asked.clone(), false),
            (None, Some(of_metrics), _) => (of_metrics, true),
            (None, None, Some(of_all)) => (of_all, false),
            (None, None, None) => return Ok(None),
        };
        let protocol = match asked.protocol {
            Some(protocol) => protocol,
            None => protocol_of(&variable)?,
        };
        let interval = match asked.interval {
            Some(interval) => interval,
            None => interval_of(&variable)?,
        };
        Ok(Some(Self {
            endpoint: uri(&endpoint, protocol, whole)?,
            protocol,
            interval,
            attributes: attributes(&variable)?,
        }))
    }
}

fn protocol_of(variable: &impl Fn(&str) -> Option<String>) -> Result<Protocol, String> {
    for name in [
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ] {
        if let Some(value) = variable(name) {
            return Protocol::named(&value).ok_or_else(|| {
                format!(
                    "{name} is `{value}`: nodewall speaks `http/protobuf` and `grpc`. Set it to \
                     one of them, or give --otlp-protocol."
                )
            });
        }
    }
    Ok(Protocol::Http)
}

fn interval_of(variable: &impl Fn(&str) -> Option<String>) -> Result<Duration, String> {
    let name = "OTEL_METRIC_EXPORT_INTERVAL";
    let Some(value) = variable(name) else {
        return Ok(DEFAULT_INTERVAL);
    };
    let interval = value.parse().ok().map(Duration::from_millis);
    let [least, most] = INTERVALS;
    interval
        .filter(|interval| (least..=most).contains(interval))
        .ok_or_else(|| {
            format!(
                "{name} is `{value}`: it is a number of milliseconds from {} to {}. Mend it, or \
                 give --otlp-interval.",
                least.as_millis(),
                most.as_millis()
            )
        })
}

/// The endpoint, whole: of HTTP, the path for metrics is behind what is named.
fn uri(text: &str, protocol: Protocol, whole: bool) -> Result<Uri, String> {
    let wrong = |why: &str| {
        format!(
            "the OTLP endpoint `{text}` {why}. Name a collector like http://127.0.0.1:4318 \
             (gRPC: http://127.0.0.1:4317)."
        )
    };
    let uri: Uri = text
        .trim()
        .parse()
        .map_err(|error| wrong(&format!("is no address ({error})")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(wrong(
                "asks for TLS, which nodewall does not speak: let a collector on this host pass \
                 it on",
            ));
        }
        _ => return Err(wrong("does not begin with http://")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("has no host"));
    }
    if uri.query().is_some() {
        return Err(wrong("has a query, which OTLP knows nothing of"));
    }
    let path = uri.path().trim_end_matches('/');
    if protocol == Protocol::Grpc || whole || path.ends_with(METRICS) {
        return Ok(uri);
    }
    let mut parts = uri.clone().into_parts();
    let path = format!("{path}{METRICS}").parse();
    parts.path_and_query = Some(path.map_err(|error| wrong(&format!("has no path ({error})")))?);
    Uri::from_parts(parts).map_err(|error| wrong(&format!("is no address ({error})")))
}

const METRICS: &str = "/v1/metrics";

/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, which comes before it.
fn attributes(variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, String> {
    let mut attributes = Vec::new();
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        attributes.push(("service.name".to_owned(), name));
    }
    let list = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    for pair in list.split(',').filter(|pair| !pair.trim().is_empty()) {
        let parsed = pair
            .split_once('=')
            .and_then(|(key, value)| Some((key.trim().to_owned(), decoded(value.trim())?)));
        let (key, value) = parsed.filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            format!(
                "OTEL_RESOURCE_ATTRIBUTES has `{pair}`: it is a list like \
                 `deployment.environment=lab,team=net`, with %2C for a comma in a value."
            )
        })?;
        if attributes.iter().all(|(known, _)| *known != key) {
            attributes.push((key, value));
        }
    }
    Ok(attributes)
}

/// Without percent-encoding; `None` where that is wrong.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?].map(char::from);
            let [high, low] = digits.map(|digit| digit.to_digit(16));
            bytes.push(u8::try_from(high? * 16 + low?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(asked: &Asked, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::new(asked, |name| {
            let mut variables = variables.iter();
            variables
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoint(asked: Option<&str>, variables: &[(&str, &str)]) -> String {
        let asked = Asked {
            endpoint: asked.map(str::to_owned),
            ..Asked::default()
        };
        let settings = settings(&asked, variables).unwrap().unwrap();
        settings.endpoint.to_string()
    }

    const OF_ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/");
    const OF_METRICS: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:1/");

    #[test]
    fn nothing_is_pushed_unless_somebody_names_an_endpoint() {
        let of_others = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ];
        assert_eq!(settings(&Asked::default(), &of_others), Ok(None));
    }

    #[test]
    fn an_endpoint_is_the_flag_s_before_that_of_metrics_before_that_of_all() {
        let all = [OF_ALL, OF_METRICS];
        assert_eq!(
            endpoint(Some("http://flag:4318"), &all),
            "http://flag:4318/v1/metrics"
        );
        // Whole, as it stands.
        assert_eq!(endpoint(None, &all), "http://metrics:1/");
        assert_eq!(endpoint(None, &[OF_ALL]), "http://all:4318/base/v1/metrics");
        // What is whole already is no beginning.
        let whole = "http://[::1]:4318/v1/metrics";
        assert_eq!(endpoint(Some(whole), &[]), whole);
    }

    #[test]
    fn grpc_has_no_path() {
        let variables = [OF_ALL, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        let settings = settings(&Asked::default(), &variables).unwrap().unwrap();
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert_eq!(settings.endpoint.to_string(), OF_ALL.1);
    }

    #[test]
    fn protocol_and_interval_have_their_order_too() {
        let asked = Asked {
            protocol: Some(Protocol::Http),
            interval: Some(Duration::from_secs(3)),
            ..Asked::default()
        };
        let variables = [
            OF_ALL,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "30000"),
        ];
        let both = |settings: Settings| (settings.protocol, settings.interval.as_secs());
        let asked = settings(&asked, &variables).unwrap().unwrap();
        assert_eq!(both(asked), (Protocol::Http, 3));
        let by_variables = settings(&Asked::default(), &variables).unwrap().unwrap();
        assert_eq!(both(by_variables), (Protocol::Grpc, 30));
        let neither = settings(&Asked::default(), &[OF_ALL]).unwrap().unwrap();
        assert_eq!(both(neither), (Protocol::Http, 10));
    }

    #[test]
    fn what_describes_the_daemon_is_decoded() {
        let variables = [
            OF_ALL,
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "team=net%2Cops, a=b=c,service.name=no,",
            ),
            ("OTEL_SERVICE_NAME", "edge"),
        ];
        let settings = settings(&Asked::default(), &variables).unwrap().unwrap();
        let attributes: Vec<(&str, &str)> = settings
            .attributes
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        let expected = [("service.name", "edge"), ("team", "net,ops"), ("a", "b=c")];
        assert_eq!(attributes, expected);
    }

    #[test]
    fn an_error_names_what_is_wrong_and_what_to_do() {
        for (name, value, says) in [
            (OF_ALL.0, "https://collector:4318", "TLS"),
            (OF_ALL.0, "collector:4318", "http://"),
            (OF_ALL.0, "http://", "no address"),
            (OF_ALL.0, "http://collector/?token=1", "query"),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/json",
                "--otlp-protocol",
            ),
            ("OTEL_METRIC_EXPORT_INTERVAL", "10s", "milliseconds"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1", "1000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team", "`team`"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=%4", "%2C"),
        ] {
            let variables = [(name, value), OF_ALL];
            let error = settings(&Asked::default(), &variables).unwrap_err();
            assert!(error.contains(says), "{name}={value}: {error}");
        }
    }
}
