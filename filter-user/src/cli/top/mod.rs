//! `nodewall top`.
//!
//! `live` is what is known, `model` what is shown of it and what keys do, `view` the
//! picture. Here is the rest: the terminal, the kernel, and time.

mod live;
mod model;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal as _, stdin, stdout};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event as Input, poll, read};
use ratatui::crossterm::style::force_color_output;

use super::args::Global;
use super::ended::{ASKED, Ended};
use super::error::Failure;
use super::stats::seconds;
use crate::datapath::{Error, Meter};
use crate::telemetry::Wanted;
use crate::telemetry::source::{EventSource, Place};
use live::{Interface, Reading, Sort};
use model::{Asked, Model, Reports};
use view::Theme;

/// How long reported packets may wait until they are seen.
const PAUSE: Duration = Duration::from_millis(200);
/// How long to wait before reported packets are looked for again.
const LATER: Duration = Duration::from_secs(3);

/// Watch rules, reasons and who is dropped, live
///
/// A full-screen view of the counters, which are exact, with rates; and of reported
/// drops (`apply --sample-drops N`, or Log rules), which are a sample: top sources, top
/// destination ports, recent packets. `?` shows the keys. Where another process reads
/// the reports, it works on counters alone.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall top
  nodewall top --interface eth0 --sort packets
  nodewall stats -w                      where there is no terminal")]
pub(super) struct Top {
    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,

    /// Which rules come first
    #[arg(long, value_name = "KEY", value_enum, default_value = "rate")]
    sort: Sort,
}

impl Top {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        has_screen()?;
        // Says what is wrong with the folder before anything is drawn.
        global.datapath()?;
        let mut meter = Meter::new(&global.pin_root);
        let first = self.read(&mut meter)?;
        if first.interfaces.is_empty() {
            return Err(Failure::NotAttached(match &self.interface {
                None => "nothing is attached, so there is nothing to watch. `nodewall apply -f \
                         POLICY --interface IF` attaches a filter."
                    .to_owned(),
                Some(name) => format!(
                    "no filter is attached to {name}, so there is nothing to watch. `nodewall \
                     status` shows what is attached."
                ),
            }));
        }
        let place = Place {
            pin_root: &global.pin_root,
            run_dir: &global.run_dir,
        };
        let mut reporter = Reporter::new(place, self.interface.clone());
        let mut model = Model::new(first, self.sort, self.interval);
        let theme = Theme {
            color: global.color.on_screen(),
        };
        force_color_output(theme.color);
        // A terminal that hangs up ends it in the usual way.
        let ended = Ended::by(ASKED)?;
        let mut screen = Screen::open()?;
        let mut read_at = Instant::now();
        loop {
            reporter.read(&mut model);
            if read_at.elapsed() >= model.interval {
                read_at = Instant::now();
                match self.read(&mut meter) {
                    Ok(reading) => model.read(reading),
                    Err(error) => model.failed = Some(error.to_string()),
                }
            }
            screen.0.draw(|frame| view::draw(frame, &model, theme))?;
            let rest = model.interval.saturating_sub(read_at.elapsed());
            if !wait(&ended, rest.min(PAUSE))? || ended.is_wanted() {
                return Ok(());
            }
            // All keys that are there, then one picture.
            while poll(Duration::ZERO)? {
                if let Input::Key(key) = read()?
                    && model.key(key) == Asked::Quit
                {
                    return Ok(());
                }
            }
        }
    }

    fn read(&self, meter: &mut Meter) -> Result<Reading, Error> {
        let interfaces = meter.read()?;
        let is_wanted = |interface: &Interface| {
            let name = self.interface.as_ref();
            name.is_none_or(|name| **name == *interface.name)
        };
        Ok(Reading {
            at: Instant::now(),
            time: SystemTime::now(),
            interfaces: interfaces
                .iter()
                .map(Interface::from)
                .filter(is_wanted)
                .collect(),
        })
    }
}

/// Waits for a key, a signal, or so long; whether the terminal is still there. crossterm
/// doesn't ask that: it reads from one that is gone for ever.
fn wait(ended: &Ended, most: Duration) -> io::Result<bool> {
    let input = stdin();
    let mut sources = [
        PollFd::new(input.as_fd(), PollFlags::POLLIN),
        PollFd::new(ended.as_fd(), PollFlags::POLLIN),
    ];
    let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
    match nix::poll::poll(&mut sources, most) {
        // The terminal changed its size.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let found = sources[0].revents();
    Ok(!found.is_some_and(|found| found.intersects(gone)))
}

/// Whether there is a terminal, of which cells can be drawn.
fn has_screen() -> Result<(), Failure> {
    let instead = "`nodewall stats -w` shows counters with rates line by line, and where it \
                   writes to no terminal a JSON document a second";
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failure::Usage(format!(
            "nodewall top needs a terminal on its standard input and output; {instead}"
        )));
    }
    match std::env::var("TERM").as_deref() {
        Ok("dumb" | "") => Err(Failure::Usage(format!(
            "nodewall top needs a terminal that can place its cursor, and TERM says that this \
             one can't; {instead}"
        ))),
        _ => Ok(()),
    }
}

/// The terminal, as long as it is ours. A panic gives it back too, by a hook.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
        let _ = self.0.show_cursor();
    }
}

/// Brings reported packets, if there is a way to them, which may come and go.
struct Reporter<'a> {
    place: Place<'a>,
    wanted: Wanted,
    source: Result<EventSource, String>,
    tried: Instant,
}

impl<'a> Reporter<'a> {
    fn new(place: Place<'a>, interface: Option<String>) -> Self {
        let wanted = Wanted {
            interfaces: interface.into_iter().collect(),
            ..Wanted::default()
        };
        Self {
            source: EventSource::open(place, &wanted, true).map_err(|error| reason(&error)),
            place,
            wanted,
            tried: Instant::now(),
        }
    }

    fn read(&mut self, model: &mut Model) {
        if self.source.is_err() && self.tried.elapsed() >= LATER {
            *self = Self::new(self.place, self.wanted.interfaces.first().cloned());
        }
        if let Ok(source) = &mut self.source {
            match source.read() {
                Ok(batch) => model.take(batch.events, batch.lost),
                Err(error) => {
                    self.source = Err(reason(&error));
                    self.tried = Instant::now();
                }
            }
        }
        model.reports = match &self.source {
            Ok(source) if source.is_daemon() => Reports::Daemon,
            Ok(source) => Reports::Rings {
                any: source.has_sources(),
            },
            Err(why) => Reports::Nowhere(why.clone()),
        };
    }
}

/// As much of a message as a line has room for.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let end = text.find([',', ';']).unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}
