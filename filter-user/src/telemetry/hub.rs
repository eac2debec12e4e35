//! What a daemon tells its listeners: reported packets, totals, changes of the policy and
//! what was lost, each with a number of its own.
//!
//! Nobody who listens can hold up who speaks: a listener that is slower than what is told
//! misses some, and is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use filter_common::verdict::{Reason, Verdict};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use super::tops::{By, Tops};
use super::{Event, exact_time};
use crate::datapath::{Count, Mode, Stats, Status};

/// Messages that are kept for those who come later, or come again.
pub const BACKLOG: usize = 1_000;
/// Messages that a listener may be behind.
const ROOM: usize = 4_096;

/// Something that is told.
#[derive(Debug)]
pub struct Message {
    /// Its number: one more than the message's before, of whatever kind.
    pub id: u64,
    /// What it is about.
    pub about: About,
    data: OnceLock<String>,
}

/// What a message is about.
#[derive(Debug)]
pub enum About {
    /// A packet was reported.
    Packet(Box<Event>),
    /// The totals, once a second.
    Stats(Value),
    /// Policies were put in force, or could not be.
    Policy(Value),
    /// Reports were lost.
    Lost(Lost),
}

/// Reports that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When that was seen.
    pub time: SystemTime,
    /// How many, since it was seen the last time.
    pub lost: u64,
    /// How many since the daemon began.
    pub total: u64,
    /// Why.
    pub why: WhyLost,
}

/// Why reports were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyLost {
    /// More came than the kernel reports.
    Budget,
    /// The listener did not read them in time.
    SlowReader,
}

impl WhyLost {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::SlowReader => "slow_reader",
        }
    }
}

impl Lost {
    /// The document of it.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "time": exact_time(self.time),
            "lost": self.lost,
            "total": self.total,
            "why": self.why.name(),
        })
    }
}

impl Message {
    fn new(id: u64, about: About) -> Self {
        Self {
            id,
            about,
            data: OnceLock::new(),
        }
    }

    /// The name of its kind: `drop`, `log`, `stats`, `policy` or `lost`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match &self.about {
            About::Packet(event) => event.kind().name(),
            About::Stats(_) => "stats",
            About::Policy(_) => "policy",
            About::Lost(_) => "lost",
        }
    }

    /// The packet that it is about, if it is.
    #[must_use]
    pub fn packet(&self) -> Option<&Event> {
        match &self.about {
            About::Packet(event) => Some(event),
            _ => None,
        }
    }

    /// Its document, in one line; made once for all who ask.
    #[must_use]
    pub fn data(&self) -> &str {
        self.data.get_or_init(|| match &self.about {
            About::Packet(event) => {
                let event = Event::clone(event).without_header();
                // Our own values always serialize.
                serde_json::to_string(&event).unwrap_or_default()
            }
            About::Stats(document) | About::Policy(document) => document.to_string(),
            About::Lost(lost) => lost.document().to_string(),
        })
    }
}

/// Tells.
#[derive(Debug)]
pub struct Hub {
    told: Mutex<Told>,
    sender: broadcast::Sender<Arc<Message>>,
}

#[derive(Debug, Default)]
struct Told {
    last_id: u64,
    backlog: VecDeque<Arc<Message>>,
    totals: Totals,
    tops: Tops,
}

/// What was told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Reported packets that were dropped.
    pub drops: u64,
    /// Packets that Log rules reported.
    pub logs: u64,
    /// Reports that the kernel did not make, since the daemon began.
    pub lost: u64,
}

/// Listens from a moment on.
#[derive(Debug)]
pub struct Listener {
    /// What was told before, as far as it was asked for and is kept.
    pub before: Vec<Arc<Message>>,
    /// What is told from now on.
    pub receiver: broadcast::Receiver<Arc<Message>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            told: Mutex::default(),
            sender: broadcast::Sender::new(ROOM),
        }
    }
}

impl Hub {
    fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing that is done under it can leave it half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens: to what was told behind the message with this number, first, where one
    /// is named.
    #[must_use]
    pub fn listen(&self, behind: Option<u64>) -> Listener {
        let told = self.told();
        let kept = told.backlog.iter();
        // A number that was not given yet is one of another daemon's, before this one.
        let behind = behind.map(|id| if id > told.last_id { 0 } else { id });
        let before = behind.map(|id| kept.filter(|message| message.id > id).cloned().collect());
        Listener {
            before: before.unwrap_or_default(),
            receiver: self.sender.subscribe(),
        }
    }

    /// What was told so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.told().totals
    }

    /// The document of who is dropped most: the first `n`.
    #[must_use]
    pub fn top(&self, by: By, n: usize) -> Value {
        self.told().tops.document(by, n)
    }

    /// Tells of reported packets, and of reports that were lost.
    pub fn tell_packets(&self, events: Vec<Event>, lost: u64) {
        let mut told = self.told();
        if lost > 0 {
            told.totals.lost += lost;
            let total = told.totals.lost;
            let lost = Lost {
                time: SystemTime::now(),
                lost,
                total,
                why: WhyLost::Budget,
            };
            self.tell(&mut told, About::Lost(lost));
        }
        for event in events {
            match event.kind() {
                super::Kind::Drop => {
                    told.totals.drops += 1;
                    told.tops.add(&event);
                }
                super::Kind::Log => told.totals.logs += 1,
            }
            self.tell(&mut told, About::Packet(Box::new(event)));
        }
    }

    /// Tells the totals.
    pub fn tell_stats(&self, all: &[Status]) {
        let mut told = self.told();
        let document = stats(all, told.totals.lost);
        self.tell(&mut told, About::Stats(document));
    }

    /// Tells that policies were put in force, or why they were not.
    pub fn tell_policy(&self, document: Value) {
        self.tell(&mut self.told(), About::Policy(document));
    }

    fn tell(&self, told: &mut Told, about: About) {
        told.last_id += 1;
        let message = Arc::new(Message::new(told.last_id, about));
        if told.backlog.len() == BACKLOG {
            told.backlog.pop_front();
        }
        told.backlog.push_back(Arc::clone(&message));
        // Nobody may listen.
        let _ = self.sender.send(message);
    }
}

/// The totals of a moment, without those of rules.
fn stats(all: &[Status], lost: u64) -> Value {
    let of = |status: &Status, stats: &Stats| {
        let count = |count: Count| json!({"packets": count.packets, "bytes": count.bytes});
        let dropping = |(reason, verdict, total): &(Reason, Verdict, Count)| {
            (*verdict == Verdict::Drop && total.packets > 0)
                .then(|| (reason.name().to_owned(), count(*total)))
        };
        let reasons: Map<String, Value> = stats.reasons.iter().filter_map(dropping).collect();
        json!({
            "interface": stats.interface,
            "direction": stats.direction,
            "mode": status.mode.map(Mode::name),
            "generation": status.generation,
            "passed": count(stats.total(Verdict::Pass)),
            "dropped": count(stats.total(Verdict::Drop)),
            "reasons": reasons,
        })
    };
    let interfaces = all.iter();
    let interfaces =
        interfaces.flat_map(|status| status.totals().map(move |stats| of(status, stats)));
    json!({
        "time": exact_time(SystemTime::now()),
        "interfaces": interfaces.collect::<Vec<_>>(),
        "events_lost": lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_and_the_backlog_ends() {
        let hub = Hub::default();
        let mut early = hub.listen(None);
        for _ in 0..BACKLOG + 10 {
            hub.tell_policy(json!({"result": "success"}));
        }
        hub.tell_packets(Vec::new(), 7);
        let late = hub.listen(Some(0));
        assert_eq!(late.before.len(), BACKLOG);
        let ids: Vec<u64> = late.before.iter().map(|message| message.id).collect();
        assert!(ids.is_sorted() && ids.first() == Some(&12) && ids.last() == Some(&1_011));
        assert_eq!(late.before.last().map(|last| last.kind()), Some("lost"));
        assert_eq!(hub.listen(Some(1_010)).before.len(), 1);
        assert!(hub.listen(None).before.is_empty());
        assert!(hub.listen(Some(1_011)).before.is_empty());
        assert_eq!(hub.listen(Some(1_012)).before.len(), BACKLOG);
        let first = early.receiver.try_recv().expect("a message");
        assert_eq!((first.id, first.data()), (1, r#"{"result":"success"}"#));
        assert_eq!(hub.totals().lost, 7);
    }

    #[test]
    fn who_is_slow_misses_some_and_holds_up_nobody() {
        let hub = Hub::default();
        let mut slow = hub.listen(None);
        for _ in 0..2 * ROOM {
            hub.tell_policy(Value::Null);
        }
        let missed = slow.receiver.try_recv();
        assert!(matches!(
            missed,
            Err(broadcast::error::TryRecvError::Lagged(_))
        ));
    }
}
