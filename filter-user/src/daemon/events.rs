//! The thread that reads what is reported and counted, and tells it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Journal, Settings};
use crate::datapath::{Datapath, Error, Observer};
use crate::telemetry::Event;
use crate::telemetry::live::Live;

/// How often the rings are read: they hold what comes in that time.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the totals are told.
const SECOND: Duration = Duration::from_secs(1);
/// After so long without a turn it is taken for dead: a change of a large policy keeps
/// readers away for seconds.
const DEAD: Duration = Duration::from_mins(1);

/// The thread, seen from outside.
pub(super) struct Pulse {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    began: Instant,
    /// Milliseconds since then, at its last turn.
    beat: AtomicU64,
    ends: AtomicBool,
}

impl Pulse {
    /// Whether it lives.
    pub(super) fn beats(&self) -> bool {
        let beat = Duration::from_millis(self.shared.beat.load(Ordering::Relaxed));
        !self.thread.is_finished() && self.shared.began.elapsed().saturating_sub(beat) < DEAD
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // It may wait for a change to end, and holds nothing that must be given back.
        let until = Instant::now() + SECOND;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the thread does.
pub(super) struct Reader {
    pin_root: std::path::PathBuf,
    journal: Journal,
    live: Arc<Live>,
    observer: Option<Observer>,
    /// What went wrong the last time: it is said once.
    said: Option<String>,
}

impl Reader {
    pub(super) fn new(settings: &Settings, live: Arc<Live>) -> Self {
        Self {
            pin_root: settings.pin_root.clone(),
            journal: settings.journal,
            live,
            observer: None,
            said: None,
        }
    }

    /// Begins to read, with what the caller may.
    pub(super) fn begin(mut self) -> io::Result<Pulse> {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            beat: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        });
        let begin = thread::Builder::new().name("events".to_owned());
        let thread = begin.spawn({
            let shared = Arc::clone(&shared);
            move || self.run(&shared)
        })?;
        Ok(Pulse { shared, thread })
    }

    fn run(&mut self, shared: &Shared) {
        let mut told = shared.began;
        let mut tried = None;
        while !shared.ends.load(Ordering::Relaxed) {
            let now = Instant::now();
            if self.observer.is_some() || tried.is_none_or(|at| now.duration_since(at) >= SECOND) {
                tried = Some(now);
                let read = self.read();
                self.say(read);
            }
            if now.duration_since(told) >= SECOND {
                told = now;
                // Where it can't be read, /readyz says why.
                if let Ok(all) = self.live.read() {
                    self.live.hub.tell_stats(&all);
                }
            }
            let beat = shared.began.elapsed().as_millis();
            let beat = u64::try_from(beat).unwrap_or(u64::MAX);
            shared.beat.store(beat, Ordering::Relaxed);
            thread::sleep(PAUSE.saturating_sub(now.elapsed()));
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let mut observer = match self.observer.take() {
            Some(observer) => observer,
            None => Observer::new(Datapath::open(&self.pin_root)?, Vec::new())?,
        };
        let (reported, lost) = observer.read()?;
        self.observer = Some(observer);
        let mut before = lost;
        let node = self.live.node.as_ref();
        let events = reported
            .into_iter()
            .map(|one| Event::of(one, node, std::mem::take(&mut before)));
        self.live.hub.tell_packets(events.collect(), lost);
        Ok(())
    }

    fn say(&mut self, read: Result<(), Error>) {
        let error = match read {
            // Nothing is in force yet.
            Ok(()) | Err(Error::NotAttached(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error
            .as_ref()
            .filter(|error| Some(*error) != self.said.as_ref())
        {
            self.journal
                .warning(&format!("reported packets can't be read: {error}"));
        }
        self.said = error;
    }
}
