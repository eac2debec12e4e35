//! What can go wrong below this module, said so that a person can act on it.

use std::io;
use std::time::SystemTime;

use jiff::{Timestamp, Unit};

/// What went wrong, and what to do. `Display` is one paragraph for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do this (exit code 4).
    #[error("{0}")]
    Privileges(String),
    /// No such attachment (exit code 3 in `status`).
    #[error("{0}")]
    NotAttached(String),
    /// Policies are on trial, and to be kept or given up first (exit code 1).
    #[error(
        "what is in force on {interface} is on trial until {}; nothing was changed. `nodewall confirm` \
         keeps it, `nodewall rollback` gives it up.",
        when(*.until)
    )]
    OnTrial {
        /// Where.
        interface: String,
        /// When it ends by itself.
        until: SystemTime,
    },
    /// Anything else (exit code 1).
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// `error` met while doing `what`.
    pub(super) fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::privileges(what),
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }

    /// Not allowed to do `what`.
    pub(super) fn privileges(what: impl std::fmt::Display) -> Self {
        Self::Privileges(format!(
            "{what}: permission denied. Loading and reading the filter needs root, or the \
             capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a pin folder that is yours; \
             try again with sudo. Checking policies (validate, explain, apply --dry-run, replay \
             --engine host) needs no privileges."
        ))
    }

    /// An aya error met while doing `what`. Its last cause says most.
    pub(super) fn aya(
        what: impl std::fmt::Display,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        let mut last = error;
        let mut denied = false;
        loop {
            if let Some(io) = last.downcast_ref::<io::Error>() {
                denied |= matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES));
            }
            match last.source() {
                Some(source) => last = source,
                None => break,
            }
        }
        if denied {
            Self::privileges(what)
        } else if error.to_string().contains(&last.to_string()) {
            Self::Failed(format!("{what}: {error}"))
        } else {
            Self::Failed(format!("{what}: {error}: {last}"))
        }
    }
}

/// The time in RFC 3339, to the second.
fn when(time: SystemTime) -> Timestamp {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.round(Unit::Second).unwrap_or(time)
}
