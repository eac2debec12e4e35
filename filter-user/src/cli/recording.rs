//! `nodewall observe -w`: reported packets into a capture, until somebody ends it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Seek as _, Stdout, Write, stderr, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::ended::{ASKED, Ended};
use super::error::Failure;
use super::output::{Color, count, message, note};
use crate::telemetry::pcapng::{Broken, Writer};
use crate::telemetry::{Event, source};

/// How often a terminal is told how far it has come.
const A_WHILE: Duration = Duration::from_secs(1);

/// A capture that is being written.
pub(super) struct Recording {
    name: String,
    writer: Writer<Output>,
    ended: Ended,
    color: Color,
    /// Reports that were lost since the last packet.
    lost: u64,
    all_lost: u64,
    /// Where somebody looks on: when they were last told.
    told: Option<Instant>,
}

enum Output {
    File(File),
    Stdout(Stdout),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

impl Recording {
    /// Begins a capture in a file, in the place of what is in it; on stdout for `-`.
    pub(super) fn open(path: &Path, color: Color) -> Result<Self, Failure> {
        let is_stdout = path.as_os_str() == "-";
        if is_stdout && stdout().is_terminal() {
            return Err(Failure::Usage(
                "a capture is nothing to look at in a terminal: `-w FILE` writes it to a file, \
                 `-w - | tshark -r -` gives it to a reader"
                    .to_owned(),
            ));
        }
        // Before the file is emptied.
        let ended = Ended::by(ASKED.into_iter().chain([Signal::SIGHUP]))?;
        let (name, out) = if is_stdout {
            ("stdout".to_owned(), Output::Stdout(stdout()))
        } else {
            let name = path.display().to_string();
            let file = File::create(path).map_err(|error| {
                Failure::failed(format_args!("cannot write the capture {name}: {error}"))
            })?;
            (name, Output::File(file))
        };
        let writer = Writer::new(out, source::host_name().as_deref()).map_err(Failure::failed)?;
        let mut recording = Self {
            name,
            writer,
            ended,
            color,
            lost: 0,
            all_lost: 0,
            told: stderr().is_terminal().then(Instant::now),
        };
        // A file that can't be written is named at once, and one without packets can be
        // read too.
        recording.flush()?;
        Ok(recording)
    }

    /// Notes that reports were lost.
    pub(super) fn lost(&mut self, reports: u64) {
        self.lost += reports;
        self.all_lost += reports;
    }

    /// Adds a packet.
    pub(super) fn add(&mut self, mut event: Event) -> Result<(), Failure> {
        event.lost = std::mem::take(&mut self.lost);
        self.writer.write(&event).map_err(Failure::failed)
    }

    /// Writes out what was added.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if let Err(Broken { error, torn }) = self.writer.flush() {
            return Err(self.broken(error, torn));
        }
        if self.told.is_some_and(|told| told.elapsed() >= A_WHILE) {
            self.told = Some(Instant::now());
            message(&format!("\r{} ", self.so_far()));
        }
        Ok(())
    }

    /// Whether somebody wants an end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.is_wanted()
    }

    /// Says what it has come to.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.flush()?;
        self.end_line();
        note(self.color, format_args!("{}: {}", self.name, self.so_far()));
        Ok(())
    }

    /// Whoever reads the file finds whole packets.
    fn broken(&mut self, error: io::Error, torn: u64) -> Failure {
        let cut = self.cut(torn);
        self.end_line();
        if matches!(self.writer.get_ref(), Output::Stdout(_)) {
            return error.into();
        }
        let what = match cut {
            Ok(()) => "they can be read",
            Err(_) => "what stands behind them is torn",
        };
        Failure::failed(format_args!(
            "cannot write the capture {}: {error}. It has {}; {what}",
            self.name,
            count(self.writer.packets(), "packet", "packets"),
        ))
    }

    fn cut(&self, torn: u64) -> io::Result<()> {
        match self.writer.get_ref() {
            // What is no file, a pipe for one, can't be cut.
            Output::File(file) if file.metadata()?.is_file() => {
                let mut file: &File = file;
                let length = file.stream_position()?;
                file.set_len(length - torn)
            }
            _ => Ok(()),
        }
    }

    fn end_line(&self) {
        if self.told.is_some() {
            message("\r\x1b[K");
        }
    }

    fn so_far(&self) -> String {
        format!(
            "{} written, {}",
            count(self.writer.packets(), "packet", "packets"),
            count(self.all_lost, "report was lost", "reports were lost"),
        )
    }
}
