//! Tells systemd how the daemon fares (`sd_notify(3)`); without one, nobody.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// Who supervises the daemon.
pub(super) struct Supervisor {
    watchdog: Option<Duration>,
    /// What could not be told of how it fares. systemd would end a daemon that it takes for
    /// one that still starts.
    untold: Option<String>,
}

/// How often there is something to do where nobody waits for it.
const IDLE: Duration = Duration::from_hours(1);

impl Supervisor {
    pub(super) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            untold: None,
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

    /// Where that can't be told, [`Self::again`] tells it.
    pub(super) fn ready(&mut self, state: &str) -> io::Result<()> {
        let state: String = state.lines().collect::<Vec<_>>().join(" ");
        let told = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&state)]);
        self.untold = told.is_err().then_some(state);
        self.alive();
        told
    }

    /// Tells what could not be told before.
    pub(super) fn again(&mut self) {
        if let Some(state) = self.untold.take() {
            // It is said once that it can't.
            let _ = self.ready(&state);
        }
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
