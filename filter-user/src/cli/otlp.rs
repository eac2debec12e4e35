//! The flags of `nodewall run` that say where metrics are pushed to.

use std::env;
use std::time::Duration;

use clap::Args;

use super::error::Failure;
use crate::daemon::{Journal, Serve};
use crate::telemetry::otlp;
use crate::telemetry::otlp::settings::{Asked, INTERVALS, Protocol, Settings};

/// Where metrics are pushed to. What none of these says, OpenTelemetry's own variables do.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "flags have their names")]
pub(super) struct OtlpFlags {
    /// Push metrics to an OpenTelemetry collector, in plain HTTP or gRPC
    #[arg(long, value_name = "URL", env = "NODEWALL_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,

    /// How the collector is spoken to: http or grpc [default: http]
    #[arg(long, value_name = "PROTOCOL", env = "NODEWALL_OTLP_PROTOCOL", value_parser = protocol)]
    otlp_protocol: Option<Protocol>,

    /// Seconds between two pushes [default: 10s]
    #[arg(long, value_name = "SECONDS", env = "NODEWALL_OTLP_INTERVAL", value_parser = interval)]
    otlp_interval: Option<Duration>,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::named(text).ok_or_else(|| "a protocol is `http` or `grpc`".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let [least, most] = INTERVALS.map(|interval| interval.as_secs());
    text.strip_suffix('s')
        .unwrap_or(text)
        .parse::<u64>()
        .ok()
        .filter(|seconds| (least..=most).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("an interval is a number of seconds from {least} to {most}"))
}

impl OtlpFlags {
    /// What pushes, before anything is changed.
    pub(super) fn open(&self) -> Result<Option<Serve>, Failure> {
        let asked = Asked {
            endpoint: self.otlp_endpoint.clone(),
            protocol: self.otlp_protocol,
            interval: self.otlp_interval,
        };
        let settings = Settings::new(&asked, |name| env::var(name).ok());
        let Some(settings) = settings.map_err(Failure::Usage)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(|live, ended| {
            Box::pin(async {
                let journal = Journal::new();
                if let Err(error) = otlp::push(live, settings, journal, ended).await {
                    journal.error(&format!("metrics can't be pushed: {error}"));
                }
            })
        })))
    }
}
