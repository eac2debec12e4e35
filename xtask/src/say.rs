//! What a person reads: plain lines on stderr, coloured only on a terminal
//! and without `NO_COLOR`.

use std::env;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// The few colours in use.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

/// `text` in `ink`, where the terminal has colours.
pub(crate) fn ink(ink: Ink, text: &str) -> String {
    if !coloured() {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Bold => "1",
        Ink::Dim => "2",
        Ink::Green => "32",
        Ink::Red => "1;31",
        Ink::Cyan => "36",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn coloured() -> bool {
    stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// One line about what happens.
pub(crate) fn note(text: &str) {
    eprintln!("{} {text}", ink(Ink::Cyan, "xtask:"));
}

/// Why the task failed.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("{} {error:#}", ink(Ink::Red, "xtask:"));
}

/// Something that takes a while; says at its end how long it took.
pub(crate) struct Step {
    name: String,
    began: Instant,
}

impl Step {
    pub(crate) fn begin(name: &str, why: &str) -> Self {
        note(&format!("{name}: {why}"));
        Self {
            name: name.to_owned(),
            began: Instant::now(),
        }
    }

    pub(crate) fn done(self) {
        note(&format!(
            "{}: done in {}",
            self.name,
            seconds(self.began.elapsed())
        ));
    }
}

/// `12.3 s`
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
