//! What the outputs of counters and reported packets share, whoever shows them: the
//! command line, the live view, the daemon.

pub mod document;
mod event;
pub mod families;
pub mod http;
pub mod hub;
pub mod live;
pub mod openmetrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub(crate) mod page;
pub mod pcapng;
pub mod sketch;
pub(crate) mod source;
pub mod tops;
pub(crate) mod wanted;

use std::time::SystemTime;

pub use event::{Event, Headers, Kind};
pub use wanted::Wanted;

/// RFC 3339, UTC, to the second.
#[must_use]
pub fn time(time: SystemTime) -> String {
    in_words(time, "%Y-%m-%dT%H:%M:%SZ")
}

/// The same, to the microsecond.
#[must_use]
pub fn exact_time(time: SystemTime) -> String {
    in_words(time, "%Y-%m-%dT%H:%M:%S%.6fZ")
}

fn in_words(time: SystemTime, format: &str) -> String {
    jiff::Timestamp::try_from(time).map_or_else(
        |_| "unknown".to_owned(),
        |time| time.strftime(format).to_string(),
    )
}
