//! What a daemon says, on stderr: for people, or for the journal.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use crate::telemetry::time;

/// How a daemon speaks.
#[derive(Clone, Copy, Debug)]
pub struct Journal {
    /// Whether the reader writes down times himself, and takes levels as numbers
    /// (`sd-daemon(3)`).
    is_journald: bool,
}

impl Journal {
    /// As its reader wants it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_journald: std::env::var_os("JOURNAL_STREAM").is_some(),
        }
    }

    /// Something happened as it should.
    pub fn note(self, text: &str) {
        self.say(6, "note", text);
    }

    /// Something is not as it should be.
    pub fn warning(self, text: &str) {
        self.say(4, "warning", text);
    }

    /// Something failed.
    pub fn error(self, text: &str) {
        self.say(3, "error", text);
    }

    fn say(self, level: u8, name: &str, text: &str) {
        let mut lines = String::new();
        for line in text.lines() {
            if self.is_journald {
                let _ = writeln!(lines, "<{level}>{line}");
            } else {
                let _ = writeln!(lines, "{} {name}: {line}", time(SystemTime::now()));
            }
        }
        // Nobody may read it.
        let _ = std::io::stderr().write_all(lines.as_bytes());
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}
