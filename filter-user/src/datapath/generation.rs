//! One load of the programs with maps sized for one ruleset each, filled and
//! frozen. Never edited afterwards: a change is a new generation.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use aya::maps::{Array, Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use filter_common::abi::{Constants, FlowConstants, ImageConstants, Layout, Line, switches};
use filter_common::event::{RING_BYTES, Rate};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::event_filter::Asked;
use super::events::Budgets;
use super::flows;
use super::loader::{self, Prepared, Program, Wanted};
use super::{host, sys};
use crate::compile::Image;
use crate::conversation::flow_switches;
use crate::ruleset::{Direction, Ruleset};

/// The compiled `filter-ebpf`.
#[cfg(feature = "bpf")]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/nodewall.bpf.o"
)));
#[cfg(not(feature = "bpf"))]
static OBJECT: Option<&[u8]> = None;

const IMAGE: &str = "IMAGE";
const OTHER: &str = "OTHER";
const COUNTERS: &str = "COUNTERS";
const EVENTS: &str = "EVENTS";
const BUDGET: &str = "BUDGET";
const FILTER: &str = "FILTER";

/// The maps that no other program has.
const OWN: [&str; 9] = [
    IMAGE, COUNTERS, EVENTS, BUDGET, FILTER, "SCRATCH", "SIGHT", "ENTRY", "LOADED",
];

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

/// A ruleset and what it was compiled to.
#[derive(Clone, Copy, Debug)]
pub struct Compiled<'a> {
    /// The ruleset.
    pub ruleset: &'a Ruleset,
    /// Its image.
    pub image: &'a Image,
}

/// How programs are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    /// The rate at which dropped packets are reported.
    pub(super) sampling: Rate,
    pub(super) trace: Trace,
    /// Flows of a direction that are remembered at most; 0 for none.
    pub(super) max_flows: u32,
}

impl Loading {
    /// Nothing is reported, and no flow remembered.
    pub(super) const PLAIN: Self = Self {
        sampling: Rate::OFF,
        trace: Trace::Off,
        max_flows: 0,
    };

    /// What the programs of the two directions do with flows, and how many of each
    /// direction's own they remember: no more than one where none is asked for.
    fn flows(&self, own: Compiled<'_>, other: Option<Compiled<'_>>) -> (FlowConstants, u32) {
        let other = other.map(|other| other.ruleset);
        let constants = FlowConstants {
            switches: flow_switches(own.ruleset, other, self.max_flows > 0),
            second: host::jiffies_per_second(),
            ..FlowConstants::default()
        };
        let fills = constants.switches & switches::FILL != 0;
        // A table of one would be taken for one that is not used.
        let room = if fills {
            self.max_flows.max(flows::UNUSED + 1)
        } else {
            flows::UNUSED
        };
        (constants, room)
    }
}

/// A loaded program with its maps.
#[derive(Debug)]
pub(super) struct Generation {
    maps: HashMap<String, Map>,
    program: Program,
    direction: Direction,
}

/// The loaded programs of an endpoint.
#[derive(Debug)]
pub(super) struct Pair {
    /// That of what comes in.
    pub(super) ingress: Generation,
    /// That of what goes out.
    pub(super) egress: Option<Generation>,
    /// What they remember, if they do.
    pub(super) flows: Option<flows::Tables>,
}

impl Pair {
    /// Loads the programs of an endpoint; `before` are the flows that the generation
    /// in force knows. Nothing is attached.
    pub(super) fn load(
        ingress: Compiled<'_>,
        egress: Option<Compiled<'_>>,
        loading: Loading,
        before: Option<&flows::Tables>,
    ) -> Result<Self, Error> {
        let mut half_in = Half::new(ingress, egress, loading);
        let mut half_out = egress.map(|egress| Half::new(egress, Some(ingress), loading));
        let room = |half: Option<&Half<'_>>| half.map_or(flows::UNUSED, Half::room);
        let any = |half: &Half<'_>| half.constants.flows.switches != 0;
        let flows = if any(&half_in) || half_out.as_ref().is_some_and(any) {
            let room = [room(Some(&half_in)), room(half_out.as_ref())];
            Some(flows::Tables::new(room, before)?)
        } else {
            None
        };
        if let Some(flows) = &flows {
            let halves = std::iter::once(&mut half_in).chain(&mut half_out);
            halves.for_each(|half| half.constants.flows.set_seed(flows.seed()));
        }
        let Some(half_out) = half_out else {
            let wanted = half_in.wanted();
            let prepared = prepare(&wanted, flows.as_ref())?;
            return Ok(Self {
                ingress: half_in.load(prepared)?,
                egress: None,
                flows,
            });
        };
        let (wanted_in, wanted_out) = (half_in.wanted(), half_out.wanted());
        let (prepared_in, prepared_out) = both(
            || prepare(&wanted_in, flows.as_ref()),
            || prepare(&wanted_out, flows.as_ref()),
        );
        let (mut prepared_in, mut prepared_out) = (prepared_in?, prepared_out?);
        // The other direction's rules are asked by its own tables.
        let (image_in, image_out) = (image(&prepared_in)?, image(&prepared_out)?);
        prepared_in.share(OTHER, image_out.as_fd())?;
        prepared_out.share(OTHER, image_in.as_fd())?;
        let (ingress, egress) = both(|| half_in.load(prepared_in), || half_out.load(prepared_out));
        Ok(Self {
            ingress: ingress?,
            egress: Some(egress?),
            flows,
        })
    }

    /// Bytes of all maps, as the kernel accounts them.
    pub(super) fn memory(&self) -> u64 {
        let egress = self.egress.as_ref().map_or(0, Generation::memory);
        let flows = self.flows.as_ref().map_or(0, flows::Tables::memory);
        self.ingress.memory() + egress + flows
    }
}

/// One direction of a generation that is being loaded.
struct Half<'a> {
    image: &'a Image,
    constants: Constants,
    small: bool,
    direction: Direction,
    /// Flows of its own that are remembered.
    room: u32,
    level: u8,
    reports: bool,
}

impl<'a> Half<'a> {
    fn new(own: Compiled<'a>, other: Option<Compiled<'a>>, loading: Loading) -> Self {
        let (flows, room) = loading.flows(own, other);
        let asked = other.filter(|_| flows.switches & switches::FILL != 0);
        let layout = own.image.layout();
        let other = asked.map(|other| other.image.layout());
        Self {
            image: own.image,
            constants: Constants {
                other: other.map_or_else(ImageConstants::default, ImageConstants::new),
                flows,
                ..Constants::new(layout, loading.sampling)
            },
            small: layout.is_small() && other.is_none_or(Layout::is_small),
            direction: own.ruleset.direction,
            room,
            level: match loading.trace {
                Trace::Off => 0,
                Trace::On => aya_log::Level::Debug as u8,
            },
            reports: own.image.reports() || loading.sampling != Rate::OFF,
        }
    }

    const fn room(&self) -> u32 {
        self.room
    }

    fn wanted(&self) -> Wanted<'_> {
        let lines = self.image.lines();
        Wanted {
            entries: vec![
                (COUNTERS, self.image.counters()),
                (EVENTS, if self.reports { RING_BYTES } else { IDLE_RING }),
            ],
            // An empty image has no value, which the kernel does not take.
            values: vec![
                (IMAGE, size_of_val(lines).max(size_of::<Line>())),
                (OTHER, size_of::<Line>()),
            ],
            constants: vec![(
                aya_log::LEVEL,
                std::slice::from_ref(&self.level),
                self.level != 0,
            )],
            words: self.constants.words(),
            direct: &[IMAGE, OTHER, FILTER],
        }
    }

    fn load(&self, prepared: Prepared<'_>) -> Result<Generation, Error> {
        let program = match (self.direction, self.small) {
            (Direction::Ingress, false) => "nodewall_ingress",
            (Direction::Ingress, true) => "nodewall_ingress_small",
            (Direction::Egress, false) => "nodewall_egress",
            (Direction::Egress, true) => "nodewall_egress_small",
        };
        let tables = image(&prepared)?;
        // The verifier needs to know how large they are, not what is in them.
        let (filled, loaded) = both(
            || fill(tables.as_fd(), self.image.lines()),
            || prepared.load(program),
        );
        filled.map_err(|error| Error::io("cannot fill the BPF tables", &error))?;
        let (program, maps) = loaded?;
        Ok(Generation {
            maps,
            program,
            direction: self.direction,
        })
    }
}

/// Makes the maps of a program; it shares what is remembered.
fn prepare<'w>(
    wanted: &'w Wanted<'w>,
    flows: Option<&flows::Tables>,
) -> Result<Prepared<'w>, Error> {
    let object = OBJECT.ok_or_else(no_object)?;
    let mut prepared = loader::prepare(object, wanted)?;
    if let Some(flows) = flows {
        flows.give(&mut prepared)?;
    }
    Ok(prepared)
}

/// The tables of a program that is being loaded.
fn image(prepared: &Prepared<'_>) -> Result<OwnedFd, Error> {
    let map = prepared
        .map(IMAGE)
        .ok_or_else(|| Error::Failed(missing(IMAGE)))?;
    let tables = loader::data(map).fd().as_fd();
    tables
        .try_clone_to_owned()
        .map_err(|error| Error::io("cannot share the BPF tables", &error))
}

/// Does both, side by side.
fn both<A: Send, B>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let a = scope.spawn(a);
        let b = b();
        (a.join().unwrap_or_else(|panic| resume_unwind(panic)), b)
    })
}

impl Generation {
    /// Loads the program for one direction alone, which keeps no state.
    pub(super) fn load(compiled: Compiled<'_>, loading: Loading) -> Result<Self, Error> {
        Pair::load(compiled, None, loading, None).map(|pair| pair.ingress)
    }

    /// Which way its packets go.
    pub(super) const fn direction(&self) -> Direction {
        self.direction
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

    /// Bytes of its own maps, as the kernel accounts them.
    pub(super) fn memory(&self) -> u64 {
        let own = self
            .maps
            .iter()
            .filter(|(name, _)| OWN.contains(&name.as_str()));
        own.map(|(_, map)| host::map_memory(loader::data(map).fd().as_fd()))
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

    /// What is asked of events.
    pub(super) fn asked(&mut self) -> Result<Asked<&mut MapData>, Error> {
        self.maps
            .get_mut(FILTER)
            .and_then(|map| Array::try_from(map).ok())
            .map(Asked::new)
            .ok_or_else(|| Error::Failed(missing(FILTER)))
    }

    /// Pins the program at `path`.
    pub(super) fn pin_program(&self, path: &Path) -> Result<(), Error> {
        sys::pin(self.program(), path)
            .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))
    }

    /// Pins the ring, its budget and its filter below `folder`, where packets are
    /// reported.
    pub(super) fn pin_events(&self, folder: &Path) -> Result<(), Error> {
        for (name, pin) in [(EVENTS, "events"), (BUDGET, "budget"), (FILTER, "filter")] {
            let map = self.maps.get(name);
            let map = map.ok_or_else(|| Error::Failed(missing(name)))?;
            let path = folder.join(pin);
            sys::pin(loader::data(map).fd().as_fd(), &path).map_err(|error| {
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

/// Copies the tables into their map, and keeps user space out from then on.
fn fill(map: BorrowedFd<'_>, lines: &[Line]) -> io::Result<()> {
    let bytes: &[u8] = bytemuck::cast_slice(lines);
    let mut mapping = sys::Mapping::new(map, bytes.len())?;
    mapping.bytes_mut().copy_from_slice(bytes);
    // A map is not frozen while somebody could write to it.
    drop(mapping);
    sys::freeze(map)
}

/// The ids of all maps that the kernel has, whoever made them.
///
/// None is opened, unlike by `aya::maps::loaded_maps`. Where the last descriptor of a program
/// array is closed, the kernel clears it a moment later; where somebody opens it by its id and
/// closes it again before that, it is never freed (`prog_array_map_clear` of
/// kernel/bpf/arraymap.c takes a reference for work that is queued already; seen on Linux 6.18).
pub fn loaded_map_ids() -> Result<BTreeSet<u32>, Error> {
    let mut ids = BTreeSet::new();
    let mut last = 0;
    while let Some(id) = sys::next_map_id(last)
        .map_err(|error| Error::io("cannot ask the kernel for its maps", &error))?
    {
        ids.insert(id);
        last = id;
    }
    Ok(ids)
}

/// What is said where no object is embedded.
pub(super) fn no_object() -> Error {
    Error::Failed(
        "this nodewall was built without its BPF program, so it can only check policies. Build \
         the whole with `cargo xtask build --release`."
            .to_owned(),
    )
}

pub(super) fn missing(name: &str) -> String {
    format!("the embedded BPF object has no {name}: this build is broken, please report it")
}
