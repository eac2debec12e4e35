//! How far the run is, for whoever waits for it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

struct Clock {
    began: Instant,
    section: &'static str,
    /// When this section should be over.
    over: Instant,
    /// What comes after it.
    behind: Duration,
}

static CLOCK: Mutex<Option<Clock>> = Mutex::new(None);

/// A section begins: so many seconds it should take, and all behind it.
pub(crate) fn section(section: &'static str, seconds: u64, behind: u64) {
    let Ok(mut clock) = CLOCK.lock() else { return };
    let now = Instant::now();
    *clock = Some(Clock {
        began: clock.as_ref().map_or(now, |clock| clock.began),
        section,
        over: now + Duration::from_secs(seconds),
        behind: Duration::from_secs(behind),
    });
}

/// `3:05 acls, 9 min left`.
pub(crate) fn now() -> String {
    let clock = CLOCK.lock();
    let Some(clock) = clock.as_ref().ok().and_then(|clock| clock.as_ref()) else {
        return String::new();
    };
    let now = Instant::now();
    let passed = (now - clock.began).as_secs();
    let left = (clock.over.saturating_duration_since(now) + clock.behind).as_secs();
    let left = match left {
        0..60 => "under a minute".to_owned(),
        _ => format!("about {} min", left.div_ceil(60)),
    };
    format!(
        "[{}:{:02} {}, {left} left]",
        passed / 60,
        passed % 60,
        clock.section
    )
}
