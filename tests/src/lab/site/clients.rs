//! One thing that somebody does at the site, and what must become of it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Site;

/// What the filter that is in force must make of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It gets what it wants.
    Works,
    /// It does not.
    Refused,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Works => "works",
            Self::Refused => "refused",
        })
    }
}

/// How an attempt ended. What has to do with the lab and not with the network, such
/// as a program that is missing, is an error instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It got what it wanted.
    Worked,
    /// It did not, and this is what it saw.
    Failed(String),
}

impl Outcome {
    /// It worked if `worked`; otherwise this is what was seen.
    pub(super) fn when(worked: bool, seen: impl FnOnce() -> String) -> Self {
        if worked {
            Self::Worked
        } else {
            Self::Failed(seen())
        }
    }
}

type Action = dyn Fn(&Site) -> Result<Outcome> + Send + Sync;

/// Something that somebody does, again and again.
pub struct Client {
    /// What it is, for people.
    pub name: String,
    /// What must become of it.
    pub expect: Expect,
    action: Box<Action>,
    // Its ports and files are its own: it does one thing at a time.
    busy: Mutex<()>,
}

impl Client {
    /// A client that does this.
    pub fn new(
        name: impl Into<String>,
        expect: Expect,
        action: impl Fn(&Site) -> Result<Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            expect,
            action: Box::new(action),
            busy: Mutex::new(()),
        }
    }

    /// Does it once; says how it ended and how long it took.
    pub fn run(&self, site: &Site) -> Result<(Outcome, Duration)> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let outcome = (self.action)(site)?;
        Ok((outcome, began.elapsed()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}
