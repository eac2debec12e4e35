//! What a daemon knows at any moment, for whoever asks it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::hub::Hub;
use super::source::host_name;
use super::{document, time};
use crate::datapath::{Error, Meter, Status};
use crate::worker::Worker;

/// A daemon's knowledge. What filters is asked of the kernel each time.
pub struct Live {
    /// Tells what happens.
    pub hub: Hub,
    /// This host's name.
    pub node: Option<Arc<str>>,
    /// When the daemon began.
    pub started: SystemTime,
    /// What it was asked to do.
    pub asked: Asked,
    /// How its pushes fare.
    #[cfg(feature = "otlp")]
    pub pushes: super::otlp::Pushes,
    meter: Arc<Mutex<Meter>>,
    reader: Worker,
    policies: Mutex<Policies>,
}

/// What a daemon was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where policies come from.
    pub policies: Vec<PathBuf>,
    /// Dropped packets that are reported, a second and CPU.
    pub sample_drops: u32,
}

/// How the policies fare.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// When they were last read.
    pub last_attempt: Option<SystemTime>,
    /// When they were last put in force, or found in force already.
    pub last_success: Option<SystemTime>,
    /// Why they were not, since then.
    pub last_error: Option<(SystemTime, String)>,
    /// How often they were.
    pub successes: u64,
    /// How often they were not.
    pub failures: u64,
    /// The interfaces that are to be filtered.
    pub interfaces: Vec<String>,
}

impl Live {
    /// Knows nothing yet. `reader` is who may read what is in force.
    #[must_use]
    pub(crate) fn new(pin_root: &Path, asked: Asked, reader: Worker) -> Self {
        Self {
            hub: Hub::default(),
            node: host_name(),
            started: SystemTime::now(),
            asked,
            #[cfg(feature = "otlp")]
            pushes: super::otlp::Pushes::default(),
            meter: Arc::new(Mutex::new(Meter::new(pin_root))),
            reader,
            policies: Mutex::default(),
        }
    }

    /// Reads what is in force, and every counter. One reading at a time: it takes some
    /// milliseconds, longer while a policy changes, and may block.
    pub fn read(&self) -> Result<Vec<Status>, Error> {
        let meter = Arc::clone(&self.meter);
        self.reader.call(move || {
            // A reading that panicked leaves it as it was before.
            meter.lock().unwrap_or_else(PoisonError::into_inner).read()
        })
    }

    /// How the policies fare.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies_mut().clone()
    }

    fn policies_mut(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policies are in force on these interfaces.
    pub fn succeeded(
        &self,
        interfaces: &[String],
        generations: &BTreeMap<String, u64>,
        message: &str,
    ) {
        let now = SystemTime::now();
        {
            let mut policies = self.policies_mut();
            policies.last_attempt = Some(now);
            policies.last_success = Some(now);
            policies.last_error = None;
            policies.successes += 1;
            policies.interfaces = interfaces.to_vec();
        }
        self.hub.tell_policy(json!({
            "time": super::exact_time(now),
            "result": "success",
            "message": message,
            "generations": generations,
        }));
    }

    /// These interfaces are to be filtered, and not all of them are.
    pub fn wants(&self, interfaces: &[String]) {
        self.policies_mut().interfaces = interfaces.to_vec();
    }

    /// Whether this went wrong otherwise than the last time.
    #[must_use]
    pub fn is_news(&self, message: &str) -> bool {
        let policies = self.policies_mut();
        let last = policies.last_error.as_ref();
        last.is_none_or(|(_, error)| error != message)
    }

    /// They are not, or not all; what was in force before is.
    pub fn failed(&self, message: &str) {
        let now = SystemTime::now();
        {
            let mut policies = self.policies_mut();
            policies.last_attempt = Some(now);
            policies.last_error = Some((now, message.to_owned()));
            policies.failures += 1;
        }
        self.hub.tell_policy(json!({
            "time": super::exact_time(now),
            "result": "failure",
            "message": message,
            "generations": {},
        }));
    }

    /// The interfaces that are to be filtered and are not.
    #[must_use]
    pub fn missing(&self, all: &[Status]) -> Vec<String> {
        let is_there = |name: &String| {
            let mut all = all.iter();
            all.any(|status| status.interface == *name && status.is_attached())
        };
        let mut wanted = self.policies().interfaces;
        wanted.retain(|name| !is_there(name));
        wanted
    }

    /// Why the host is not filtered as it was asked for; `None` where it is.
    #[must_use]
    pub fn not_ready(&self, all: &Result<Vec<Status>, Error>) -> Option<String> {
        let all = match all {
            Ok(all) => all,
            Err(error) => return Some(error.to_string()),
        };
        let policies = self.policies();
        if let Some((at, error)) = &policies.last_error {
            return Some(format!(
                "the policies read at {} are not in force: {error}",
                time(*at)
            ));
        }
        if policies.last_success.is_none() {
            return Some("no policies have been put in force yet".to_owned());
        }
        let missing = self.missing(all);
        (!missing.is_empty()).then(|| format!("not filtered: {}", missing.join(", ")))
    }

    /// The document of all this. `clients` listen.
    #[must_use]
    pub fn status(&self, all: &Result<Vec<Status>, Error>, clients: usize) -> Value {
        let not_ready = self.not_ready(all);
        json!({
            "schema": 1,
            "time": time(SystemTime::now()),
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node,
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "daemon": self.daemon(clients),
            "interfaces": all.as_deref().map(document::interfaces).unwrap_or_default(),
        })
    }

    /// What there is to say of the daemon alone.
    #[must_use]
    pub fn daemon(&self, clients: usize) -> Value {
        let policies = self.policies();
        let error = policies.last_error.as_ref();
        let error = error.map(|(at, message)| json!({"time": time(*at), "message": message}));
        json!({
            "pid": std::process::id(),
            "started": time(self.started),
            "policies": self.asked.policies,
            "last_attempt": policies.last_attempt.map(time),
            "last_success": policies.last_success.map(time),
            "last_error": error,
            "reloads": {"success": policies.successes, "failure": policies.failures},
            "sample_drops": self.asked.sample_drops,
            "events_lost": self.hub.totals().lost,
            "clients": clients,
        })
    }
}
