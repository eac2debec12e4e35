//! Pushes metrics to an OpenTelemetry collector, the same that a scraper gets.
//!
//! By messages of `opentelemetry-proto`, and not by the SDK's instruments: the kernel's
//! counters are older than the process that reads them and begin anew when a filter is
//! taken off, so each has a start of its own, where the SDK knows one for all; and the SDK
//! gives up on telling series apart at 2,000 an instrument, where rulesets have ten thousands.

mod message;
mod send;
pub mod settings;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use message::Messages;
use send::Sender;
use settings::Settings;

use super::families::Scrape;
use super::live::Live;
use crate::daemon::Journal;

/// How a daemon's pushes fared.
#[derive(Debug, Default)]
pub struct Pushes {
    successes: AtomicU64,
    failures: AtomicU64,
}

impl Pushes {
    /// How many there were, by what became of them.
    #[must_use]
    pub fn totals(&self) -> [(&'static str, u64); 2] {
        [("success", &self.successes), ("failure", &self.failures)]
            .map(|(result, pushes)| (result, pushes.load(Ordering::Relaxed)))
    }
}

/// How long a push may take, unless the next one is due before.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last one may, at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Pushes what a daemon knows, until `ended`, and then once more. It is a task of its own,
/// and no one waits for it: a collector that is slow, or not there, costs a push, which the
/// next one makes good.
pub async fn push(
    live: Arc<Live>,
    settings: Settings,
    journal: Journal,
    ended: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut pusher = Pusher {
        sender: Sender::new(&settings)?,
        messages: Messages::new(live.node.as_deref(), &settings.attributes, live.started),
        live,
        journal,
        failing: None,
        endpoint: format!("{} at {}", settings.protocol, settings.endpoint),
    };
    let mut clock = tokio::time::interval(settings.interval);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = PATIENCE.min(settings.interval);
    tokio::pin!(ended);
    loop {
        let turn = async {
            clock.tick().await;
            pusher.push(patience).await;
        };
        tokio::select! {
            () = &mut ended => break,
            () = turn => {}
        }
    }
    pusher.push(FAREWELL).await;
    Ok(())
}

struct Pusher {
    live: Arc<Live>,
    sender: Sender,
    messages: Messages,
    journal: Journal,
    /// What was told of the last failure, and how many there were in a row.
    failing: Option<(String, u64)>,
    endpoint: String,
}

impl Pusher {
    async fn push(&mut self, patience: Duration) {
        let outcome = tokio::time::timeout(patience, self.try_to()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {patience:.0?}")));
        let pushes = &self.live.pushes;
        match outcome {
            Ok(()) => {
                pushes.successes.fetch_add(1, Ordering::Relaxed);
                if let Some((_, failures)) = self.failing.take() {
                    self.journal.note(&format!(
                        "metrics are pushed again by OTLP over {}, after {failures} failures; \
                         nothing that was counted is lost",
                        self.endpoint
                    ));
                }
            }
            Err(error) => {
                pushes.failures.fetch_add(1, Ordering::Relaxed);
                let (told, failures) = self.failing.take().unwrap_or_default();
                // The same again is told once.
                if told != error {
                    self.journal.warning(&format!(
                        "cannot push metrics by OTLP over {}: {error}. It is tried again and \
                         again; counters go on",
                        self.endpoint
                    ));
                }
                self.failing = Some((error, failures + 1));
            }
        }
    }

    async fn try_to(&mut self) -> Result<(), String> {
        let live = Arc::clone(&self.live);
        // A reading blocks, while a policy changes for longer.
        let scrape = tokio::task::spawn_blocking(move || {
            let reading = Arc::new(live.read());
            // Who streams, HTTP alone knows.
            Scrape::of(&live, reading, None)
        });
        let scrape = scrape.await.map_err(|error| error.to_string())?;
        let requests = self
            .messages
            .of(SystemTime::now(), |families| scrape.tell(families));
        for request in requests.map_err(|_| "cannot make messages of the metrics".to_owned())? {
            self.sender.send(request).await?;
        }
        Ok(())
    }
}
