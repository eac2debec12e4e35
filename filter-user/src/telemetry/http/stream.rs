//! Events as they come: server-sent events, or lines of JSON.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response};
use futures_util::stream::unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::answer::{self, Refused};
use super::connection::closed;
use super::query::{Query, one_of};
use crate::ruleset::Direction;
use crate::telemetry::hub::{Hub, Listener, Lost, Message, WhyLost};
use crate::telemetry::{Wanted, wanted};

/// What a reader hears of us at the latest.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Bytes that are put together before they are written.
const TOGETHER: usize = 16 << 10;

/// The kinds of events.
const KINDS: [(&str, usize); 5] = [
    ("drop", 0),
    ("log", 1),
    ("stats", 2),
    ("policy", 3),
    ("lost", 4),
];

/// What a reader asked for.
#[derive(Debug)]
pub(super) struct Asked {
    kinds: [bool; KINDS.len()],
    pub(super) wanted: Wanted,
    /// The end comes after so many.
    most: Option<u64>,
    /// What comes behind this one is asked for, as far as it is kept.
    behind: Option<u64>,
    form: Form,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Sse,
    Lines,
}

impl Asked {
    pub(super) fn read(query: &mut Query<'_>, headers: &HeaderMap) -> Result<Self, Refused> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or("it is a number")
        };
        let named = |text: &str| {
            let named = !text.is_empty();
            named.then(|| text.to_owned()).ok_or("it is a name")
        };
        let directions = [Direction::Ingress, Direction::Egress];
        let directions = directions.map(|direction| (direction.name(), direction));
        let kinds = query.value("types", |text| {
            let mut kinds = [false; KINDS.len()];
            for kind in text.split(',') {
                kinds[one_of(&KINDS)(kind)?] = true;
            }
            Ok::<_, String>(kinds)
        })?;
        let wanted = Wanted {
            interfaces: query.value("interface", named)?.into_iter().collect(),
            direction: query.value("direction", one_of(&directions))?,
            policy: query.value("policy", named)?,
            rule: small(query.value("rule", number)?, "rule")?,
            src: query.value("src", wanted::network)?,
            dst: query.value("dst", wanted::network)?,
            proto: query.value("proto", wanted::protocol)?,
            port: small(query.value("port", number)?, "port")?,
            reason: query.value("reason", wanted::reason)?,
        };
        let most = query.value("n", super::query::number(u64::MAX))?;
        let last_id = query.value("last_id", number)?;
        let last_seen = headers.get("last-event-id").map(|value| {
            let text = value.to_str().unwrap_or_default();
            number(text).map_err(|what| {
                Refused::bad(format_args!(
                    "the header Last-Event-ID can't be {text:?}: {what}"
                ))
            })
        });
        Ok(Self {
            kinds: kinds.unwrap_or([true; KINDS.len()]),
            wanted,
            most,
            // Who comes again asks by the same address, and the header is what is new.
            behind: last_seen.transpose()?.or(last_id),
            form: Form::accepted(headers),
        })
    }

    fn wants(&self, message: &Message) -> bool {
        let kind = KINDS.iter().position(|(name, _)| *name == message.kind());
        kind.is_some_and(|kind| self.kinds[kind])
            && message
                .packet()
                .is_none_or(|event| self.wanted.matches(event))
    }
}

fn small<T: TryFrom<u64>>(number: Option<u64>, name: &str) -> Result<Option<T>, Refused> {
    let too_large = |_| Refused::bad(format_args!("the parameter {name} is too large"));
    number.map(T::try_from).transpose().map_err(too_large)
}

impl Form {
    fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(ACCEPT).iter();
        let mut kinds = accepts
            .filter_map(|accept| accept.to_str().ok())
            .flat_map(|accept| accept.split(','))
            .filter_map(|kind| kind.split(';').next())
            .map(|kind| kind.trim().to_ascii_lowercase());
        if kinds.any(|kind| kind == Self::Lines.content_type()) {
            Self::Lines
        } else {
            Self::Sse
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    const fn heartbeat(self) -> &'static str {
        match self {
            Self::Sse => ": heartbeat\n\n",
            Self::Lines => "\n",
        }
    }

    /// Documents have no line breaks, so one line of data holds any.
    fn write(self, out: &mut String, id: u64, kind: &str, data: &str) {
        let _ = match self {
            Self::Sse => write!(out, "id: {id}\nevent: {kind}\ndata: {data}\n\n"),
            Self::Lines => {
                writeln!(out, r#"{{"id":{id},"event":"{kind}","data":{data}}}"#)
            }
        };
    }
}

/// A reader's stream, until it has what it asked for, is too slow, or all ends.
pub(super) struct Stream {
    asked: Asked,
    /// Its place among the streams.
    _place: OwnedSemaphorePermit,
    before: VecDeque<Arc<Message>>,
    receiver: Receiver<Arc<Message>>,
    heartbeat: Interval,
    closing: watch::Receiver<bool>,
    last_id: u64,
    told: u64,
    ended: bool,
}

impl Stream {
    pub(super) fn new(
        asked: Asked,
        hub: &Hub,
        place: OwnedSemaphorePermit,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let Listener { before, receiver } = hub.listen(asked.behind);
        let mut heartbeat = interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            last_id: asked.behind.unwrap_or_default(),
            asked,
            _place: place,
            before: before.into(),
            receiver,
            heartbeat,
            closing,
            told: 0,
            ended: false,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let content_type = self.asked.form.content_type();
        let parts = unfold(self, async |mut stream| {
            let part = stream.next().await?;
            Some((Ok::<_, std::convert::Infallible>(part), stream))
        });
        let mut response = Response::new(Body::from_stream(parts));
        answer::data(response.headers_mut(), content_type);
        response
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while out.is_empty() {
            if self.ended {
                return None;
            }
            if let Some(message) = self.before.pop_front() {
                self.tell(&mut out, &message);
            } else {
                tokio::select! {
                    biased;
                    () = closed(&mut self.closing) => return None,
                    received = self.receiver.recv() => match received {
                        Ok(message) => self.tell(&mut out, &message),
                        Err(RecvError::Lagged(missed)) => self.lose(&mut out, missed),
                        Err(RecvError::Closed) => return None,
                    },
                    _ = self.heartbeat.tick() => out.push_str(self.asked.form.heartbeat()),
                }
            }
            self.tell_waiting(&mut out);
        }
        Some(out.into())
    }

    /// Tells what is there, up to a size.
    fn tell_waiting(&mut self, out: &mut String) {
        while !self.ended && out.len() < TOGETHER {
            let message = match self.before.pop_front() {
                Some(message) => Ok(message),
                None => self.receiver.try_recv(),
            };
            match message {
                Ok(message) => self.tell(out, &message),
                Err(TryRecvError::Lagged(missed)) => self.lose(out, missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn tell(&mut self, out: &mut String, message: &Message) {
        self.last_id = message.id;
        if !self.asked.wants(message) {
            return;
        }
        self.asked
            .form
            .write(out, message.id, message.kind(), message.data());
        self.told += 1;
        self.ended = self.asked.most.is_some_and(|most| self.told >= most);
    }

    /// The reader was too slow. What it missed can't be told any more, so it is told
    /// that, and may come again. Its number stays at what it has seen, so that then it
    /// gets of what it missed all that is kept.
    fn lose(&mut self, out: &mut String, missed: u64) {
        let lost = Lost {
            time: SystemTime::now(),
            lost: missed,
            total: missed,
            why: WhyLost::SlowReader,
        };
        let lost = lost.document().to_string();
        self.asked.form.write(out, self.last_id, "lost", &lost);
        self.ended = true;
    }
}
