//! One load of the program with maps sized for one image, filled and frozen.
//! Never edited afterwards: a change is a new generation.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use aya::maps::{Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use filter_common::abi::{Constants, Line};
use filter_common::event::{RING_BYTES, Rate};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::events::Budgets;
use super::loader::{self, Program, Wanted};
use super::sys;
use crate::compile::Image;

/// The compiled `filter-ebpf`.
#[cfg(feature = "bpf")]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/nodewall.bpf.o"
)));
#[cfg(not(feature = "bpf"))]
static OBJECT: Option<&[u8]> = None;

const INGRESS: &str = "nodewall_ingress";
const INGRESS_SMALL: &str = "nodewall_ingress_small";
const IMAGE: &str = "IMAGE";
const COUNTERS: &str = "COUNTERS";
const EVENTS: &str = "EVENTS";
const BUDGET: &str = "BUDGET";

/// Bytes of a ring that nothing is reported into: the kernel takes no less
/// than a page.
const IDLE_RING: u32 = 4096;

/// Whether the program says what it does (`replay --trace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// It doesn't.
    Off,
    /// One record a packet; the embedded object must have been built for it.
    On,
}

/// A program as the kernel has it, for one ruleset: what the ruleset does not
/// use the verifier has deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSize {
    /// Instructions that the verifier walked.
    pub verified_instructions: u64,
    /// Bytes of the instructions that are left.
    pub xlated_bytes: u64,
    /// Bytes of machine code; 0 without a JIT compiler.
    pub jited_bytes: u64,
}

/// A loaded program with its maps.
#[derive(Debug)]
pub(super) struct Generation {
    maps: HashMap<String, Map>,
    program: Program,
}

impl Generation {
    /// Loads the program for `image`, which reports dropped packets at this
    /// rate. Nothing is attached.
    pub(super) fn load(image: &Image, sampling: Rate, trace: Trace) -> Result<Self, Error> {
        let object = OBJECT.ok_or_else(|| {
            Error::Failed(
                "this nodewall was built without its BPF program, so it can only check policies. \
                 Build the whole with `cargo xtask build --release`."
                    .to_owned(),
            )
        })?;
        let lines = image.lines();
        let level = match trace {
            Trace::Off => 0,
            Trace::On => aya_log::Level::Debug as u8,
        };
        let reports = image.reports() || sampling != Rate::OFF;
        let constants = Constants::new(image.layout(), sampling);
        let wanted = Wanted {
            entries: vec![
                (COUNTERS, image.counters()),
                (EVENTS, if reports { RING_BYTES } else { IDLE_RING }),
            ],
            // An empty image has no value, which the kernel does not take.
            values: vec![(IMAGE, size_of_val(lines).max(size_of::<Line>()))],
            constants: vec![(
                aya_log::LEVEL,
                std::slice::from_ref(&level),
                trace == Trace::On,
            )],
            words: constants.words(),
            direct: Some(IMAGE),
        };
        let program = if image.layout().is_small() {
            INGRESS_SMALL
        } else {
            INGRESS
        };
        let prepared = loader::prepare(object, &wanted)?;
        let map = prepared
            .map(IMAGE)
            .ok_or_else(|| Error::Failed(missing(IMAGE)))?;
        let cannot_fill = |error| Error::io("cannot fill the BPF tables", &error);
        let tables = loader::data(map).fd().as_fd();
        let tables = tables.try_clone_to_owned().map_err(cannot_fill)?;
        // The verifier needs to know how large they are, not what is in them.
        let (filled, loaded) = thread::scope(|scope| {
            let filling = scope.spawn(|| fill(tables.as_fd(), lines));
            let loaded = prepared.load(program);
            let filled = filling.join();
            (filled.unwrap_or_else(|panic| resume_unwind(panic)), loaded)
        });
        filled.map_err(cannot_fill)?;
        let (program, maps) = loaded?;
        Ok(Self { maps, program })
    }

    /// The loaded program.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.fd()
    }

    /// The loaded program's id.
    pub(super) fn program_id(&self) -> Result<u32, Error> {
        self.program.info().map(|info| info.id)
    }

    /// How large the loaded program is.
    pub(super) fn program_size(&self) -> Result<ProgramSize, Error> {
        let info = self.program.info()?;
        Ok(ProgramSize {
            verified_instructions: info.verified_instructions.into(),
            xlated_bytes: info.xlated_bytes.into(),
            jited_bytes: info.jited_bytes.into(),
        })
    }

    /// The counters.
    pub(super) fn counters(&self) -> Result<&MapData, Error> {
        match self.maps.get(COUNTERS) {
            Some(Map::PerCpuArray(map)) => Ok(map),
            _ => Err(Error::Failed(missing(COUNTERS))),
        }
    }

    /// Where the program's trace arrives.
    pub(super) fn logger(&self) -> Result<EbpfLogger<StderrLog>, Error> {
        EbpfLogger::init_from_id_with_logger(self.program_id()?, StderrLog).map_err(|_| {
            Error::Failed(
                "this nodewall's BPF program has no trace in it: build one with `cargo xtask build \
                 --trace`"
                    .to_owned(),
            )
        })
    }

    /// Bytes of all maps, as the kernel accounts them.
    pub(super) fn memory(&self) -> u64 {
        self.maps
            .values()
            .map(|map| memory(loader::data(map)))
            .sum()
    }

    /// The ring of events.
    pub(super) fn events(&mut self) -> Result<RingBuf<&mut MapData>, Error> {
        self.maps
            .get_mut(EVENTS)
            .and_then(|map| RingBuf::try_from(map).ok())
            .ok_or_else(|| Error::Failed(missing(EVENTS)))
    }

    /// The budgets of events.
    pub(super) fn budgets(&self) -> Result<Budgets<&MapData>, Error> {
        self.maps
            .get(BUDGET)
            .and_then(|map| Budgets::try_from(map).ok())
            .ok_or_else(|| Error::Failed(missing(BUDGET)))
    }

    /// Pins the ring and its budget below `folder`, where packets are reported.
    pub(super) fn pin_events(&self, folder: &Path) -> Result<(), Error> {
        for (name, pin) in [(EVENTS, "events"), (BUDGET, "budget")] {
            let Some(Map::RingBuf(map) | Map::PerCpuArray(map)) = self.maps.get(name) else {
                return Err(Error::Failed(missing(name)));
            };
            let path = folder.join(pin);
            sys::pin(map.fd().as_fd(), &path).map_err(|error| {
                Error::io(format_args!("cannot pin {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    /// Pins the counters at `path`.
    pub(super) fn pin_counters(&self, path: &Path) -> Result<(), Error> {
        sys::pin(self.counters()?.fd().as_fd(), path)
            .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))
    }
}

/// Writes the program's trace to stderr, a record a line.
#[derive(Debug)]
pub(super) struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("trace: {}", record.args());
    }

    fn flush(&self) {}
}

/// Bytes of a map: bpffs and bpf(2) don't say, its fdinfo does.
pub(super) fn memory(map: &MapData) -> u64 {
    use std::os::fd::AsRawFd as _;

    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Copies the tables into their map, and keeps user space out from then on.
fn fill(map: BorrowedFd<'_>, lines: &[Line]) -> io::Result<()> {
    let bytes: &[u8] = bytemuck::cast_slice(lines);
    let mut mapping = sys::Mapping::new(map, bytes.len())?;
    mapping.bytes_mut().copy_from_slice(bytes);
    // A map is not frozen while somebody could write to it.
    drop(mapping);
    sys::freeze(map)
}

fn missing(name: &str) -> String {
    format!("the embedded BPF object has no {name}: this build is broken, please report it")
}
