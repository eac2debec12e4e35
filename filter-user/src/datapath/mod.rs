//! The kernel side of the loader: every aya call, and every `unsafe`, of
//! this crate is below this module.
//!
//! The kernel is the database: what filters is what is pinned in bpffs, with
//! or without a process. A change loads a new [generation](generation) beside
//! the one in force and swaps the program of the pinned link; nothing is
//! edited in place, so there is no half-applied state.

mod corpus;
mod counters;
mod error;
mod events;
mod generation;
mod host;
mod immediate;
mod interface;
mod loader;
mod pins;
mod record;
mod swap;
#[expect(unsafe_code, reason = "raw bpf(2) commands that aya does not offer")]
mod sys;
mod test_bench;

use std::io;
use std::ops::{Add, Sub};
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use filter_common::event::Rate;
use filter_common::verdict::{Reason, Verdict};

pub use corpus::{Corpus, Shape, Target, Took};
pub use counters::counters_memory;
pub use error::Error;
pub use events::{Observed, Observer};
pub use generation::ProgramSize;
use generation::{Generation, Trace};
pub use host::{HostAddresses, addresses, forwards};
use interface::Interface;
use pins::Slot;
pub use record::{Described, DescribedDocument};
use record::{NewRecord, Record};
pub use test_bench::TestBench;

use crate::compile::{Combination, Image};
use crate::ruleset::{Rule, Ruleset};

/// Where links and maps are pinned unless told otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/nodewall";

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver has it, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, behind the driver. Slower.
    Generic,
}

impl Mode {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What `apply` did to an interface.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The mode in force: `Native` or `Generic`.
    pub mode: Mode,
    /// The generation now in force, from 1.
    pub generation: u64,
    /// What was in force before; `None` where nothing was attached.
    pub before: Option<Ruleset>,
    /// How long it took.
    pub spent: Spent,
}

/// How long the steps of a change took.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// To make maps, fill them, and have the program verified and compiled.
    pub load: Duration,
    /// To put it into the link, or to attach it.
    pub swap: Duration,
    /// To take the totals over from the generation before; the new one is
    /// already in force.
    pub carry: Duration,
}

/// Packets and bytes (frame length without FCS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

/// The exact totals of one interface since it was first attached.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The interface.
    pub interface: String,
    /// The rules in force, in order, each with its total.
    pub rules: Vec<(Rule, Count)>,
    /// Every reason with the verdict it gave and its total: its rules'
    /// totals, those of rules that are gone, and what no rule decided.
    pub reasons: Vec<(Reason, Verdict, Count)>,
}

/// What is in force on one interface.
#[derive(Clone, Debug)]
pub struct Status {
    /// The interface's present name.
    pub interface: String,
    /// `Native` or `Generic`; `None` where that can't be told: the device is
    /// gone, or in another network namespace.
    pub mode: Option<Mode>,
    /// The generation in force.
    pub generation: u64,
    /// The kernel's id of the program in force.
    pub program_id: u32,
    /// When this generation was swapped in.
    pub since: SystemTime,
    /// The ruleset in force.
    pub ruleset: Ruleset,
    /// What it was made of, where [`Datapath::status_described`] was asked.
    pub described: Described,
    /// Bytes of its maps, as the kernel accounts them.
    pub memory: u64,
    /// The program as the kernel has it, where the record says it.
    pub program_size: Option<ProgramSize>,
    /// How classes are combined, likewise.
    pub combination: Option<Combination>,
    /// Reports of packets that this generation could not give.
    pub events_lost: u64,
    /// Totals.
    pub stats: Stats,
}

/// The pinned state, opened for reading or changing.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
    sampling: Rate,
}

/// One interface's generation in force.
struct InForce {
    slot: Slot,
    link: OwnedFd,
    /// As the kernel says it: 0 where the device is gone.
    ifindex: u32,
    program: u32,
    record: Record,
}

impl InForce {
    fn folder(&self) -> PathBuf {
        self.slot.generation(self.program)
    }

    /// The totals: where a swap was cut short before the old generation's
    /// totals were carried over, as if they had been.
    fn totals(&self) -> Result<Vec<Count>, Error> {
        match self.left_behind()? {
            Some(carried) => counters::own(&self.folder(), &self.record, carried),
            None => counters::totals(&self.folder(), &self.record),
        }
    }

    /// What is to be carried over from a predecessor that is still there.
    fn left_behind(&self) -> Result<Option<Vec<Count>>, Error> {
        let Some(predecessor) = self.record.head.predecessor else {
            return Ok(None);
        };
        let folder = self.slot.generation(predecessor);
        if !folder.exists() {
            return Ok(None);
        }
        let old = Record::read(&folder.join("record"))?;
        let totals = counters::totals(&folder, &old)?;
        Ok(Some(counters::carry(
            &old.ruleset.rules,
            &totals,
            &self.record.ruleset.rules,
        )))
    }

    /// Carries the predecessor's totals over and removes every generation
    /// that is not in force. Needs the exclusive lock.
    fn settle(&self) -> Result<(), Error> {
        if let Some(carried) = self.left_behind()? {
            counters::write_carried(&self.folder().join("carried"), &carried)?;
        }
        self.slot.remove_generations_except(self.program)
    }
}

impl Datapath {
    /// The pinned state at `root`. Nothing is touched yet.
    pub fn open(root: &Path) -> Result<Self, Error> {
        if root.is_absolute() {
            Ok(Self {
                root: root.to_owned(),
                sampling: Rate::OFF,
            })
        } else {
            Err(Error::Failed(format!(
                "--pin-root {} must be an absolute path",
                root.display()
            )))
        }
    }

    /// What is applied from now on reports up to `events` dropped packets a
    /// second and CPU.
    #[must_use]
    pub fn sampling_drops(mut self, events: u32) -> Self {
        self.sampling = Rate::per_second(events, host::jiffies_per_second());
        self
    }

    /// Loads `image`, swaps it in atomically and pins it. On an error nothing
    /// is changed.
    pub fn apply(
        &self,
        interface: &str,
        mode: Mode,
        ruleset: &Ruleset,
        image: &Image,
    ) -> Result<Applied, Error> {
        self.apply_described(interface, mode, ruleset, image, &Described::default())
    }

    /// The same, with what it was made of to be kept beside it.
    pub fn apply_described(
        &self,
        interface: &str,
        mode: Mode,
        ruleset: &Ruleset,
        image: &Image,
        described: &Described,
    ) -> Result<Applied, Error> {
        let interface = interface::by_name(interface)?;
        pins::prepare(&self.root)?;
        let lock = pins::lock(&self.root, true)?;
        let applied = self.apply_locked(&interface, mode, ruleset, image, described);
        if applied.is_err() {
            pins::tidy(&self.root);
        }
        drop(lock);
        applied
    }

    fn apply_locked(
        &self,
        interface: &Interface,
        mode: Mode,
        ruleset: &Ruleset,
        image: &Image,
        described: &Described,
    ) -> Result<Applied, Error> {
        let namespace = interface::namespace()?;
        let before = self.find(interface, namespace)?;
        refuse_foreign(interface, before.as_ref())?;
        if let Some(before) = &before {
            before.settle()?;
            refuse_other_mode(interface, mode)?;
        }

        // What is kept beside the program is put together while the kernel
        // verifies it.
        let start = Instant::now();
        let (generation, record) = thread::scope(|scope| {
            let record =
                scope.spawn(|| NewRecord::of(ruleset, described, namespace, interface.index));
            let generation = Generation::load(image, self.sampling, Trace::Off);
            let record = record.join();
            (
                generation,
                record.unwrap_or_else(|panic| resume_unwind(panic)),
            )
        });
        let (generation, mut record) = (generation?, record?);
        record.head.memory = generation.memory();
        record.head.program = Some(generation.program_size()?);
        record.head.combination = Some(image.combination());
        if let Some(before) = &before {
            record.head.generation = before.record.head.generation + 1;
            record.head.predecessor = Some(before.program);
        }
        let number = record.head.generation;

        let slot = match &before {
            Some(before) => before.slot.clone(),
            None => fresh_slot(&self.root, interface)?,
        };
        let reports = image.reports() || self.sampling != Rate::OFF;
        let counters = image.counters();
        let pinned = pin_generation(&slot, &generation, &record, counters, reports);
        let program = match pinned {
            Ok(program) => program,
            Err((program, error)) => return Err(undo(&slot, program, before.is_some(), error)),
        };
        let load = start.elapsed();
        let start = Instant::now();
        let swapped = match &before {
            Some(before) => swap(interface, &generation, before),
            None => attach(interface, mode, &generation, &slot),
        };
        if let Err(error) = swapped {
            return Err(undo(&slot, program, before.is_some(), error));
        }

        // From here on the new generation is in force.
        let swap = start.elapsed();
        let start = Instant::now();
        if before.is_some() {
            sys::wait_for_readers().map_err(|error| {
                Error::io(
                    "the policy is in force, but the old counters can't be carried over yet",
                    &error,
                )
            })?;
        }
        let here = slot.link()?;
        if here.is_none_or(|(_, link)| link.program != program) {
            return Err(Error::Failed(format!(
                "the filter on {} was removed by somebody while it was being applied",
                interface.name
            )));
        }
        if let Some(before) = &before {
            let totals = counters::totals(&before.folder(), &before.record)?;
            let carried = counters::carry(&before.record.ruleset.rules, &totals, &ruleset.rules);
            let folder = slot.generation(program);
            counters::write_carried(&folder.join("carried"), &carried)?;
        }
        slot.remove_generations_except(program)?;
        let mode = interface::by_name(&interface.name)?
            .xdp
            .and_then(|xdp| xdp.mode)
            .unwrap_or(mode);
        Ok(Applied {
            mode,
            generation: number,
            before: before.map(|before| before.record.ruleset),
            spent: Spent {
                load,
                swap,
                carry: start.elapsed(),
            },
        })
    }

    /// The interfaces that hold a filter, by name; also those whose record
    /// can't be read.
    pub fn interfaces(&self) -> Result<Vec<String>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        Ok(Slot::all(&self.root)?
            .into_iter()
            .map(|slot| slot.name)
            .collect())
    }

    /// What is in force, per interface, by name. Empty where nothing is.
    pub fn status(&self) -> Result<Vec<Status>, Error> {
        self.status_with(|_| Ok(Described::default()))
    }

    /// The same, with what it was made of.
    pub fn status_described(&self) -> Result<Vec<Status>, Error> {
        self.status_with(|in_force| in_force.record.described(&in_force.folder().join("record")))
    }

    fn status_with(
        &self,
        described: impl Fn(&InForce) -> Result<Described, Error>,
    ) -> Result<Vec<Status>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        let slots = Slot::all(&self.root)?;
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = interface::namespace()?;
        let interfaces = interface::all()?;
        let mut all = Vec::new();
        for slot in slots {
            let Some(in_force) = in_force(slot)? else {
                continue;
            };
            let interface = interfaces.iter().find(|interface| {
                in_force.record.head.namespace == namespace && interface.index == in_force.ifindex
            });
            let name = interface.map_or(&in_force.slot.name, |interface| &interface.name);
            let totals = in_force.totals()?;
            all.push(Status {
                interface: name.clone(),
                mode: interface.and_then(|interface| interface.xdp?.mode),
                generation: in_force.record.head.generation,
                program_id: in_force.program,
                since: in_force.record.head.since(),
                memory: in_force.record.head.memory,
                program_size: in_force.record.head.program,
                combination: in_force.record.head.combination,
                events_lost: events::lost(&in_force.folder())?,
                stats: counters::stats(name.clone(), &in_force.record.ruleset.rules, &totals),
                described: described(&in_force)?,
                ruleset: in_force.record.ruleset,
            });
        }
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(all)
    }

    /// The totals, per interface, by name; of `interface` alone if named.
    pub fn stats(&self, interface: Option<&str>) -> Result<Vec<Stats>, Error> {
        let mut all: Vec<Stats> = self
            .status()?
            .into_iter()
            .map(|status| status.stats)
            .collect();
        if let Some(name) = interface {
            all.retain(|stats| stats.interface == name);
            if all.is_empty() {
                return Err(not_attached(name));
            }
        }
        Ok(all)
    }

    /// Takes the filter off `interface`.
    pub fn detach(&self, interface: &str) -> Result<(), Error> {
        let _lock = pins::lock(&self.root, true)?;
        // By its present name, if the interface is here, else by its slot's.
        let slot = match (interface::by_name(interface), interface::namespace()) {
            (Ok(present), Ok(namespace)) => self
                .find(&present, namespace)
                .ok()
                .flatten()
                .map(|in_force| in_force.slot),
            _ => None,
        };
        let slot = slot.unwrap_or_else(|| Slot::named(&self.root, interface));
        if slot.link()?.is_none() {
            return Err(not_attached(interface));
        }
        slot.remove()?;
        pins::tidy(&self.root);
        Ok(())
    }

    /// The filter on `interface`, whatever the interface was called when it
    /// was put there.
    fn find(&self, interface: &Interface, namespace: u64) -> Result<Option<InForce>, Error> {
        for slot in Slot::all(&self.root)? {
            // The records of others may be long.
            let index = slot.link()?.map(|(_, link)| link.ifindex);
            if index == Some(interface.index)
                && let Some(in_force) = in_force(slot)?
                && in_force.ifindex == interface.index
                && in_force.record.head.namespace == namespace
            {
                return Ok(Some(in_force));
            }
        }
        Ok(None)
    }
}

/// The generation in force in a slot; `None` where no link is pinned.
fn in_force(slot: Slot) -> Result<Option<InForce>, Error> {
    let Some((link, info)) = slot.link()? else {
        return Ok(None);
    };
    let record = Record::read(&slot.generation(info.program).join("record"))?;
    Ok(Some(InForce {
        slot,
        link,
        ifindex: info.ifindex,
        program: info.program,
        record,
    }))
}

/// An empty slot of the interface's name. A link whose device is gone is
/// cleared away; any other is somebody's.
fn fresh_slot(root: &Path, interface: &Interface) -> Result<Slot, Error> {
    let slot = Slot::named(root, &interface.name);
    match slot.link()? {
        Some((_, info)) if info.ifindex != 0 => Err(Error::Failed(format!(
            "{} holds the filter of another interface (index {}, perhaps in another network \
             namespace); nothing was changed. Detach that one, or pin this one elsewhere with \
             --pin-root.",
            slot.link_path().display(),
            info.ifindex
        ))),
        _ => {
            slot.remove()?;
            Ok(slot)
        }
    }
}

fn not_attached(interface: &str) -> Error {
    Error::NotAttached(format!(
        "no nodewall filter is attached to {interface:?}. `nodewall status` lists those that are."
    ))
}

/// Pins all of a generation but the link. Returns the program's id.
fn pin_generation(
    slot: &Slot,
    generation: &Generation,
    record: &NewRecord,
    counters: u32,
    reports: bool,
) -> Result<u32, (u32, Error)> {
    let program = generation.program_id().map_err(|error| (0, error))?;
    let folder = slot.generation(program);
    let pin = || {
        pins::create(&folder)?;
        generation.pin_counters(&folder.join("counters"))?;
        counters::create_carried(&folder.join("carried"), counters)?;
        if reports {
            generation.pin_events(&folder)?;
        }
        record.pin(&folder.join("record"))
    };
    pin().map(|()| program).map_err(|error| (program, error))
}

/// Removes what a failed apply left; the error is what made it fail.
fn undo(slot: &Slot, program: u32, keep_slot: bool, error: Error) -> Error {
    let removed = if keep_slot {
        slot.remove_generation(program)
    } else {
        slot.remove()
    };
    match removed {
        Ok(()) => error,
        Err(left) => Error::Failed(format!("{error} Cleaning up failed as well: {left}")),
    }
}

/// Puts the new generation's program into the pinned link.
fn swap(interface: &Interface, generation: &Generation, before: &InForce) -> Result<(), Error> {
    let program = generation.program();
    let failed = |error: io::Error| {
        Error::io(
            format_args!(
                "cannot swap the program on {}; the old policy stays in force",
                interface.name
            ),
            &error,
        )
    };
    // The exclusive lock keeps other nodewalls away, and nobody else can
    // open a link in a folder of mode 0700.
    sys::link_update(before.link.as_fd(), program).map_err(failed)
}

/// Attaches the first generation and pins its link.
fn attach(
    interface: &Interface,
    mode: Mode,
    generation: &Generation,
    slot: &Slot,
) -> Result<(), Error> {
    let program = generation.program();
    let attach = |flags| sys::link_create(program, interface.index, flags);
    let link = match mode {
        Mode::Native => attach(sys::XDP_DRV_MODE),
        Mode::Generic => attach(sys::XDP_SKB_MODE),
        Mode::Auto => attach(sys::XDP_DRV_MODE).or_else(|native| {
            if matches!(
                native.raw_os_error(),
                Some(libc::EPERM | libc::EBUSY | libc::EEXIST)
            ) {
                Err(native)
            } else {
                attach(sys::XDP_SKB_MODE)
            }
        }),
    };
    let link = link.map_err(|error| refused_attach(interface, mode, &error))?;
    let path = slot.link_path();
    sys::pin(link.as_fd(), &path).map_err(|error| {
        Error::io(
            format_args!("cannot pin {}; nothing was changed", path.display()),
            &error,
        )
    })
}

/// Another program on the interface is somebody's: never replaced.
fn refuse_foreign(interface: &Interface, ours: Option<&InForce>) -> Result<(), Error> {
    let Some(attached) = interface.xdp else {
        return Ok(());
    };
    if ours.is_some_and(|ours| ours.program == attached.program) {
        return Ok(());
    }
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == attached.program)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    Err(Error::Failed(format!(
        "{} already runs an XDP program that is not nodewall's: id {}{}. It was left alone and \
         nothing was changed. Detach it with the tool that attached it (`bpftool net detach xdp dev \
         {}` if nothing else owns it), then apply again.",
        interface.name,
        attached.program,
        name.map_or_else(String::new, |name| format!(", {name:?}")),
        interface.name
    )))
}

/// The mode of an attached link can't be changed.
fn refuse_other_mode(interface: &Interface, wanted: Mode) -> Result<(), Error> {
    match interface.xdp.and_then(|xdp| xdp.mode) {
        Some(present) if wanted != Mode::Auto && wanted != present => Err(Error::Failed(format!(
            "the filter on {} is attached in {} mode, which can't be changed while it filters; \
             nothing was changed. Apply with --mode auto to keep the mode, or detach first.",
            interface.name,
            present.name()
        ))),
        _ => Ok(()),
    }
}

fn refused_attach(interface: &Interface, mode: Mode, error: &io::Error) -> Error {
    let name = &interface.name;
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Error::io(format_args!("cannot attach to {name}"), error)
        }
        Some(libc::EBUSY | libc::EEXIST) => Error::Failed(format!(
            "another XDP program holds {name} ({error}); it was left alone and nothing was changed. \
             `bpftool net show dev {name}` names it."
        )),
        _ if mode == Mode::Native => {
            let why = if interface.loopback {
                "a loopback interface has no driver".to_owned()
            } else if let Some(kind @ ("bridge" | "vlan" | "dummy" | "macvlan")) =
                interface.kind.as_deref()
            {
                format!(
                    "a {kind} interface has no driver of its own; filter the interface below it"
                )
            } else {
                format!(
                    "its driver{} says \"{error}\" (MTU {}; drivers refuse it where the MTU is too \
                     large, LRO is on, queues are short, or the interface is part of a bond)",
                    interface
                        .kind
                        .as_deref()
                        .map_or_else(String::new, |kind| format!(" ({kind})")),
                    interface.mtu
                )
            };
            Error::Failed(format!(
                "{name} refuses native XDP: {why}. Nothing was changed. `--mode generic` filters in \
                 the network stack instead, at a lower rate; `--mode auto` chooses."
            ))
        }
        _ => Error::Failed(format!(
            "cannot attach to {name}: {error}. Nothing was changed."
        )),
    }
}
