//! Policies on trial: in force for a time, and then those from before again, unless they
//! are kept.
//!
//! ```text
//! <root>/<interface>/<program id>/        the trial whose program has this id:
//!     program                             what the link runs
//!     trial                               until when, and what it hands packets to
//!     next                                the programs that it calls
//!     egress/program, egress/next
//! ```
//!
//! The link runs a program that looks at the time of each packet and calls the new
//! generation or the one from before; both stay pinned. So the way back is the kernel's
//! alone, whatever becomes of the process that asked for the trial. A trial that is over
//! still stands in the link until the next change [finishes](super::in_force::InForce::settle)
//! it: both directions and all readers go by the one word of its end, so nothing depends
//! on when that is.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use filter_common::trial::{GIVEN_UP, KEPT, NEW, OLD, Trial as Element};
use nix::time::{ClockId, clock_gettime};

use super::error::Error;
use super::generation::Pair;
use super::in_force::{EGRESS, InForce};
use super::loader::{self, Program, Wanted};
use super::pins::{self, Slot};
use super::{PROGRAM, sys};

/// The compiled dispatcher of `filter-ebpf`.
#[cfg(feature = "bpf")]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/nodewall-trial.bpf.o"
)));
#[cfg(not(feature = "bpf"))]
static OBJECT: Option<&[u8]> = None;

/// The map of the one element that both programs read.
const TRIAL: &str = "TRIAL";
/// The map of a program's successors.
const NEXT: &str = "NEXT";
/// The pin that makes a folder that of a trial.
const PIN: &str = "trial";

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// The new policies are in force until this time.
    Runs(SystemTime),
    /// They are kept.
    Kept,
    /// They are not: those from before are in force again.
    Over,
}

/// A trial that a link runs, as it stood when it was looked at: who asks twice must not be
/// told of two moments.
pub(super) struct Trial {
    programs: (u32, Option<u32>),
    state: TrialState,
    folder: PathBuf,
}

impl Trial {
    /// The trial whose program has this id, if there is one.
    pub(super) fn of(slot: &Slot, program: u32) -> Result<Option<Self>, Error> {
        let folder = slot.generation(program);
        let path = folder.join(PIN);
        if !pins::is_there(&path)? {
            return Ok(None);
        }
        let element: Element = mapping(&path)
            .map(|mapping| bytemuck::pod_read_unaligned(mapping.bytes()))
            .map_err(|error| Error::io(format_args!("cannot read {}", path.display()), &error))?;
        let [new, old] = element.programs[0];
        Ok(Some(Self {
            programs: (new, Some(old).filter(|old| *old != 0)),
            state: state(element.until, now()),
            folder,
        }))
    }

    /// The programs that decided what comes in: the new one, and the one from before, if
    /// there was one.
    pub(super) const fn programs(&self) -> (u32, Option<u32>) {
        self.programs
    }

    pub(super) const fn state(&self) -> TrialState {
        self.state
    }

    /// The program of the generation that decides; `None` where none does any more.
    pub(super) const fn decides(&self) -> Option<u32> {
        let (new, old) = self.programs;
        match self.state {
            TrialState::Runs(_) | TrialState::Kept => Some(new),
            TrialState::Over => old,
        }
    }

    /// From this moment on the new policies are in force for good.
    pub(super) fn keep(&mut self) -> Result<(), Error> {
        end(&self.folder, KEPT)?;
        self.state = TrialState::Kept;
        Ok(())
    }

    /// From this moment on those from before are in force again: look anew which those are.
    pub(super) fn give_up(&self) -> Result<(), Error> {
        end(&self.folder, GIVEN_UP)
    }
}

/// Says when the trial in a folder ends.
fn end(folder: &Path, until: u64) -> Result<(), Error> {
    let path = folder.join(PIN);
    mapping(&path)
        .map(|mapping| mapping.store_first(until))
        .map_err(|error| Error::io(format_args!("cannot write {}", path.display()), &error))
}

/// How a trial that ends then stands.
fn state(until: u64, now: u64) -> TrialState {
    match until {
        KEPT => TrialState::Kept,
        until if Element::decides(until, now) == NEW => {
            TrialState::Runs(SystemTime::now() + Duration::from_nanos(until - now))
        }
        _ => TrialState::Over,
    }
}

fn mapping(path: &Path) -> io::Result<sys::Mapping> {
    sys::Mapping::new(sys::get(path)?.as_fd(), size_of::<Element>())
}

/// Nanoseconds since boot, as the programs read it.
fn now() -> u64 {
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The programs of a trial that is about to begin.
pub(super) struct NewTrial {
    ingress: Program,
    egress: Option<Program>,
    folder: PathBuf,
}

impl NewTrial {
    /// Loads and pins what hands packets to `new`, and after its time to `before`.
    pub(super) fn load(slot: &Slot, new: &Pair, before: Option<&InForce>) -> Result<Self, Error> {
        let old = |path: PathBuf| {
            sys::get(&path)
                .map_err(|error| Error::io(format_args!("cannot open {}", path.display()), &error))
        };
        let before_in = before.map(|before| old(before.folder().join(PROGRAM)));
        let before_in = before_in.transpose()?;
        let before_out = before.filter(|before| before.egress.is_some());
        let before_out = before_out.map(|before| old(before.folder().join(EGRESS).join(PROGRAM)));
        let before_out = before_out.transpose()?;
        let before_out = before_out.as_ref().map(|program| program.as_fd());
        let new_out = new.egress.as_ref().map(super::Generation::program);

        let mut element = Element::default();
        element.programs[0] = [
            new.ingress.program_id()?,
            before.map_or(0, |before| before.program),
        ];
        if let Some(egress) = &new.egress {
            element.programs[1][NEW as usize] = egress.program_id()?;
        }
        if let Some(before) = before {
            element.programs[1][OLD as usize] = before.record.head.egress.unwrap_or_default();
        }

        let wanted = Wanted {
            values: vec![(TRIAL, size_of::<Element>())],
            ..Wanted::default()
        };
        let dispatcher = |name, next: [Option<BorrowedFd<'_>>; 2], shared: Option<&Dispatcher>| {
            Dispatcher::load(&wanted, name, next, shared)
        };
        let before_in = before_in.as_ref().map(|program| program.as_fd());
        let ingress = dispatcher(
            "trial_ingress",
            [Some(new.ingress.program()), before_in],
            None,
        )?;
        let egress = (new_out.is_some() || before_out.is_some())
            .then(|| dispatcher("trial_egress", [new_out, before_out], Some(&ingress)))
            .transpose()?;

        let id = ingress.program.info()?.id;
        let folder = slot.generation(id);
        pins::create(&folder)?;
        let write = |path: &Path| {
            ingress.pin(TRIAL, path)?;
            // Nobody reads it before it is in a link.
            let write = sys::get(path)
                .and_then(|map| sys::update(map.as_fd(), 0, bytemuck::bytes_of(&element)));
            write
                .map_err(|error| Error::io(format_args!("cannot write {}", path.display()), &error))
        };
        write(&folder.join(PIN))?;
        ingress.pin_all(&folder)?;
        if let Some(egress) = &egress {
            let folder = folder.join(EGRESS);
            pins::create(&folder)?;
            egress.pin_all(&folder)?;
        }
        Ok(Self {
            ingress: ingress.program,
            egress: egress.map(|egress| egress.program),
            folder,
        })
    }

    pub(super) fn ingress(&self) -> BorrowedFd<'_> {
        self.ingress.fd()
    }

    pub(super) fn egress(&self) -> Option<BorrowedFd<'_>> {
        self.egress.as_ref().map(Program::fd)
    }

    /// The id of the program that comes into the link.
    pub(super) fn program_id(&self) -> Result<u32, Error> {
        self.ingress.info().map(|info| info.id)
    }

    /// Its time begins to run; returns when it is over.
    pub(super) fn begin(&self, time: Duration) -> Result<SystemTime, Error> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        end(
            &self.folder,
            now().saturating_add(nanoseconds).min(KEPT - 1),
        )?;
        Ok(SystemTime::now() + time)
    }
}

/// One direction's program with its maps.
struct Dispatcher {
    program: Program,
    maps: std::collections::HashMap<String, aya::maps::Map>,
}

impl Dispatcher {
    fn load(
        wanted: &Wanted<'_>,
        name: &str,
        next: [Option<BorrowedFd<'_>>; 2],
        shared: Option<&Self>,
    ) -> Result<Self, Error> {
        let object = OBJECT.ok_or_else(super::generation::no_object)?;
        let mut prepared = loader::prepare(object, wanted)?;
        if let Some(other) = shared {
            prepared.share(TRIAL, other.map(TRIAL)?)?;
        }
        let (program, maps) = prepared.load(name)?;
        let dispatcher = Self { program, maps };
        for (place, program) in (NEW..).zip(next) {
            if let Some(program) = program {
                sys::set_program(dispatcher.map(NEXT)?, place, program)
                    .map_err(|error| Error::io("cannot prepare a trial", &error))?;
            }
        }
        Ok(dispatcher)
    }

    fn map(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let map = self.maps.get(name);
        let map = map.ok_or_else(|| Error::Failed(super::generation::missing(name)))?;
        Ok(loader::data(map).fd().as_fd())
    }

    fn pin(&self, map: &str, path: &Path) -> Result<(), Error> {
        pin(self.map(map)?, path)
    }

    /// Pins the program, and its successors: an array of programs that no file and no
    /// descriptor holds is emptied by the kernel.
    fn pin_all(&self, folder: &Path) -> Result<(), Error> {
        pin(self.program.fd(), &folder.join(PROGRAM))?;
        self.pin(NEXT, &folder.join("next"))
    }
}

fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    sys::pin(fd, path)
        .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_and_how_it_stands_are_of_one_moment() {
        for (until, now, new) in [
            (1_000, 999, true),
            (1_000, 1_000, false),
            (KEPT, 1, true),
            (GIVEN_UP, 1, false),
        ] {
            let trial = Trial {
                programs: (7, Some(5)),
                state: state(until, now),
                folder: PathBuf::new(),
            };
            assert_eq!(trial.decides(), Some(if new { 7 } else { 5 }));
            assert_eq!(trial.state() == TrialState::Over, !new);
        }
    }
}
