//! Where reported packets come from: the rings themselves, which have one reader, or
//! the daemon that reads them.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Event, Wanted};
use crate::datapath::{Datapath, Error, Observer};

/// The socket of a daemon, in its folder.
pub(crate) const SOCKET: &str = "events.sock";

/// Where the rings are pinned, and where a daemon that reads them is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) pin_root: &'a Path,
    pub(crate) run_dir: &'a Path,
}

/// What a daemon says first, in a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The version of nodewall.
    pub(crate) version: String,
    /// Whose rings it reads.
    pub(crate) pin_root: PathBuf,
}

/// What a reader answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Whether it wants what was reported before, too.
    pub(crate) backlog: bool,
}

/// A line of a daemon's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// A reported packet, with its header.
    Event(Box<Event>),
    /// So many reports were lost.
    Lost(u64),
    /// The end of what was reported before.
    Now,
}

/// What came since the last time.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    /// Reports that were lost.
    pub(crate) lost: u64,
    /// Whether there is no more for now.
    pub(crate) is_last: bool,
}

/// Gives reported packets.
pub(crate) struct EventSource {
    pin_root: PathBuf,
    run_dir: PathBuf,
    wanted: Wanted,
    origin: Origin,
}

enum Origin {
    Rings {
        observer: Box<Observer>,
        node: Option<Arc<str>>,
    },
    Daemon(Daemon),
    /// The daemon ended; its successor, or the rings, are looked for.
    Nowhere {
        tried: Instant,
    },
}

struct Daemon {
    socket: UnixStream,
    /// What is no whole line yet.
    rest: Vec<u8>,
    is_now: bool,
}

/// How long a daemon may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before somebody is looked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// A line is shorter, or it is none of ours.
const LONGEST_LINE: usize = 64 << 10;

impl EventSource {
    /// Begins to read what is wanted. A reader that does not `follow`
    /// gets what waits to be read, or what a daemon has kept.
    pub(crate) fn open(place: Place<'_>, wanted: &Wanted, follow: bool) -> Result<Self, Error> {
        let origin = match Daemon::find(place, !follow) {
            Some(daemon) => Origin::Daemon(daemon),
            None => rings(place, wanted, follow)?,
        };
        Ok(Self {
            pin_root: place.pin_root.to_owned(),
            run_dir: place.run_dir.to_owned(),
            wanted: wanted.clone(),
            origin,
        })
    }

    /// Whether anything in force reports packets, as far as it can be told.
    pub(crate) fn has_sources(&self) -> bool {
        match &self.origin {
            Origin::Rings { observer, .. } => observer.has_sources(),
            Origin::Daemon(_) | Origin::Nowhere { .. } => true,
        }
    }

    /// Whether it is a daemon that reads the rings.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self.origin, Origin::Daemon(_))
    }

    /// What came of it since the last call. Waits for nothing. What was lost stands with
    /// the first event, too.
    pub(crate) fn read(&mut self) -> Result<Batch, Error> {
        let mut batch = self.next()?;
        // The kernel asks what it can, and a daemon tells all.
        batch.events.retain(|event| self.wanted.matches(event));
        let mut lost = batch.lost;
        for event in &mut batch.events {
            event.lost = std::mem::take(&mut lost);
        }
        Ok(batch)
    }

    fn next(&mut self) -> Result<Batch, Error> {
        match &mut self.origin {
            Origin::Rings { observer, node } => {
                let (observed, lost) = observer.read()?;
                let events = observed.into_iter();
                let events = events.map(|one| Event::of(one, node.as_ref(), 0));
                Ok(Batch {
                    events: events.collect(),
                    lost,
                    is_last: true,
                })
            }
            Origin::Daemon(daemon) => {
                let mut batch = Batch::default();
                if !daemon.read(&mut batch) {
                    self.origin = Origin::Nowhere {
                        tried: Instant::now(),
                    };
                    batch.is_last = true;
                }
                Ok(batch)
            }
            Origin::Nowhere { tried } => {
                if tried.elapsed() >= PAUSE {
                    let place = Place {
                        pin_root: &self.pin_root,
                        run_dir: &self.run_dir,
                    };
                    self.origin = match Daemon::find(place, false) {
                        Some(daemon) => Origin::Daemon(daemon),
                        None => rings(place, &self.wanted, true).unwrap_or(Origin::Nowhere {
                            tried: Instant::now(),
                        }),
                    };
                }
                Ok(Batch {
                    is_last: true,
                    ..Batch::default()
                })
            }
        }
    }
}

fn rings(place: Place<'_>, wanted: &Wanted, follow: bool) -> Result<Origin, Error> {
    let datapath = Datapath::open(place.pin_root)?;
    let mut observer = Observer::new(datapath, wanted.interfaces.clone())?;
    if follow {
        // What nobody asks for takes nothing from the budget.
        observer.want(wanted.in_kernel())?;
    }
    Ok(Origin::Rings {
        observer: Box::new(observer),
        node: host_name(),
    })
}

/// This host's name, as events say it.
pub(crate) fn host_name() -> Option<Arc<str>> {
    let name = nix::unistd::gethostname().ok()?;
    Some(name.to_string_lossy().into())
}

impl Daemon {
    /// The daemon that reads these rings, if one runs.
    fn find(place: Place<'_>, backlog: bool) -> Option<Self> {
        let socket = UnixStream::connect(place.run_dir.join(SOCKET)).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut daemon = Self {
            socket,
            rest: Vec::new(),
            is_now: !backlog,
        };
        let hello: Hello = serde_json::from_slice(&daemon.first_line()?).ok()?;
        if hello.pin_root != place.pin_root {
            return None;
        }
        let asked = serde_json::to_string(&Asked { backlog }).ok()?;
        writeln!(daemon.socket, "{asked}").ok()?;
        daemon.socket.set_nonblocking(true).ok()?;
        Some(daemon)
    }

    fn first_line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < LONGEST_LINE {
            self.socket.read_exact(&mut byte).ok()?;
            if byte == *b"\n" {
                return Some(line);
            }
            line.extend(byte);
        }
        None
    }

    /// Reads what is there; whether the daemon is, too.
    fn read(&mut self, batch: &mut Batch) -> bool {
        let mut buffer = [0; 16 << 10];
        let is_there = loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break false,
                Ok(read) => self.rest.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
            if !self.take_lines(batch) {
                break false;
            }
        };
        batch.is_last = self.is_now;
        is_there
    }

    /// Takes the whole lines; whether they are ours.
    fn take_lines(&mut self, batch: &mut Batch) -> bool {
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return self.rest.len() < LONGEST_LINE;
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(Line::Event(event)) => batch.events.push(*event),
                Ok(Line::Lost(lost)) => batch.lost += lost,
                Ok(Line::Now) => self.is_now = true,
                Err(_) => return false,
            }
        }
        true
    }
}
