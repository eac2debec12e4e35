//! Tells systemd how the daemon fares (`sd_notify(3)`); without one, nobody.

use std::time::Duration;

use sd_notify::NotifyState;

/// Who supervises the daemon.
pub(super) struct Supervisor {
    watchdog: Option<Duration>,
}

/// How often there is something to do where nobody waits for it.
const IDLE: Duration = Duration::from_hours(1);

impl Supervisor {
    pub(super) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// How often [`Self::alive`] is to be said.
    pub(super) fn interval(&self) -> Duration {
        self.watchdog.map_or(IDLE, |watchdog| {
            (watchdog / 2).max(Duration::from_millis(10))
        })
    }

    pub(super) fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn ready(&self, state: &str) {
        let state: String = state.lines().collect::<Vec<_>>().join(" ");
        tell(&[NotifyState::Ready, NotifyState::Status(&state)]);
        self.alive();
    }

    /// Has to say when, by the clock that systemd compares it with.
    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        self.alive();
    }

    #[expect(clippy::unused_self, reason = "who supervises is told")]
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // Who supervises notices silence by itself.
    let _ = sd_notify::notify(state);
}
