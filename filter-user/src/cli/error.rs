//! What ends a verb early, and its exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use super::output::{self, Color};
use crate::{datapath, privileges};

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something is wrong; the message says what, where and what to do.
    Failed(String),
    /// As above, and the messages are on stderr already.
    Reported,
    /// A flag that clap can't judge is wrong.
    Usage(String),
    /// There is no such attachment.
    NotAttached(String),
    /// The process may not do this.
    Privileges(String),
    /// The reader of stdout went away: no failure at all.
    ClosedPipe,
}

impl Failure {
    /// A failure with a message.
    pub(super) fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }

    /// The same, with a sentence after its message.
    #[must_use]
    pub(super) fn and(mut self, sentence: &str) -> Self {
        if let Self::Failed(message)
        | Self::Usage(message)
        | Self::NotAttached(message)
        | Self::Privileges(message) = &mut self
        {
            let end = if message.ends_with('.') { "" } else { "." };
            *message = format!("{message}{end} {sentence}");
        }
        self
    }

    /// The same, of what could not be said where all else was done.
    #[must_use]
    pub(super) fn though_done(self) -> Self {
        self.and("What was asked for is done, and in force.")
    }

    /// The message, where there is one that is not on stderr already.
    #[must_use]
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::NotAttached(message)
            | Self::Privileges(message) => Some(message),
            Self::Reported | Self::ClosedPipe => None,
        }
    }

    /// Prints the message, if there is one, and gives the exit code.
    #[must_use]
    pub(super) fn report(self, color: Color) -> ExitCode {
        let (code, message) = match self {
            Self::ClosedPipe => return ExitCode::SUCCESS,
            Self::Reported => return ExitCode::from(1),
            Self::Failed(message) => (1, message),
            Self::Usage(message) => (2, message),
            Self::NotAttached(message) => (3, message),
            Self::Privileges(message) => (4, message),
        };
        output::error(color, message);
        ExitCode::from(code)
    }
}

impl From<datapath::Error> for Failure {
    fn from(error: datapath::Error) -> Self {
        match error {
            datapath::Error::Privileges(message) => Self::Privileges(message),
            datapath::Error::NotAttached(message) => Self::NotAttached(message),
            datapath::Error::Failed(message) => Self::Failed(message),
            error @ datapath::Error::OnTrial { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<privileges::Error> for Failure {
    fn from(error: privileges::Error) -> Self {
        Self::failed(error)
    }
}

impl From<io::Error> for Failure {
    /// For writes to stdout alone.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Failed(format!("cannot write the output: {error}"))
        }
    }
}

impl From<serde_json::Error> for Failure {
    /// For writing JSON to stdout alone: our own values always serialize.
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}
