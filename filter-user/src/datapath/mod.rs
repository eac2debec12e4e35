//! The kernel side of the loader: every aya call, and every `unsafe`, of
//! this crate is below this module.
//!
//! The kernel is the database: what filters is what is pinned in bpffs, with
//! or without a process. A change loads a new [generation](generation) beside
//! the one in force and swaps the program of the pinned link; nothing is
//! edited in place, so there is no half-applied state.

mod changes;
mod clsact;
mod corpus;
mod counters;
mod egress;
mod error;
mod event_filter;
mod events;
mod flows;
mod generation;
mod host;
mod immediate;
mod in_force;
mod interface;
mod loader;
mod meter;
mod pins;
pub(crate) mod record;
mod swap;
#[expect(unsafe_code, reason = "raw bpf(2) commands that aya does not offer")]
mod sys;
mod test_bench;
mod trial;
mod way_back;

use std::collections::BTreeMap;
use std::io;
use std::ops::{Add, Sub};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use filter_common::abi::REASON_COUNTERS;
use filter_common::event::Rate;
use filter_common::verdict::{Essential, Reason, Verdict};

pub use changes::{HostChange, HostChanges};
pub use corpus::{Corpus, Shape, Target, Took};
pub use counters::counters_memory;
pub use egress::EgressHook;
pub use error::Error;
pub use event_filter::EventFilter;
pub use events::{Observed, Observer};
pub use flows::{Flow, FlowTotals};
pub use generation::{Compiled, ProgramSize, loaded_map_ids};
use generation::{Generation, Loading, Pair, Trace};
pub use host::{HostAddresses, addresses, forwards};
use in_force::{CARRIED, EGRESS, InForce, RECORD, Records, Replaced, Unread};
use interface::Interface;
pub use meter::Meter;
use pins::Slot;
pub use record::{Described, DescribedDocument};
use record::{NewRecord, Settings};
pub use test_bench::{TestBench, TestPair};
pub use trial::TrialState;
use trial::{NewTrial, Trial};
pub use way_back::{Confirmed, GivenUp, Previous};

use crate::compile::Combination;
use crate::ruleset::{Direction, Rule, Ruleset};

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

/// What is to be in force on an interface.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a> {
    /// What comes in.
    pub ingress: Compiled<'a>,
    /// What goes out; `None` where all of it passes, uncounted, and nothing of it
    /// is remembered.
    pub egress: Option<Compiled<'a>>,
    /// What they were made of, to be kept beside them.
    pub described: &'a Described,
}

/// What `apply` did to an interface.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The mode in force: `Native` or `Generic`.
    pub mode: Mode,
    /// The generation now in force, from 1.
    pub generation: u64,
    /// What was in force before; `None` where nothing was attached.
    pub before: Option<Arc<Ruleset>>,
    /// The same of what goes out.
    pub egress_before: Option<Arc<Ruleset>>,
    /// When those from before come back, unless this is confirmed.
    pub until: Option<SystemTime>,
    /// Whether a filter was there that another version put there, whose totals and flows
    /// could not be read.
    pub taken_over: bool,
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
    /// Which way the packets went.
    pub direction: Direction,
    /// What is in force; without rules where this direction is not filtered any more.
    pub ruleset: Arc<Ruleset>,
    /// The total of each of its rules.
    pub of_rules: Vec<Count>,
    /// Every reason with the verdict it gave and its total: its rules'
    /// totals, those of rules that are gone, and what no rule decided.
    pub reasons: Vec<(Reason, Verdict, Count)>,
    /// Every kind of essentials with its total; their sum is that of their reason.
    pub essentials: Vec<(Essential, Count)>,
}

impl Stats {
    /// The rules in force, in order, each with its total.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, Count)> {
        self.ruleset.rules.iter().zip(self.of_rules.iter().copied())
    }

    /// The rules of documents with their places and totals, and the ends of tiers that
    /// staged policies would bring: what else an end decides is counted by its reason.
    pub fn counted_rules(&self) -> impl Iterator<Item = (usize, &Rule, Count)> {
        let rules = self.rules().enumerate();
        rules
            .filter(|(_, (rule, _))| !rule.is_default() || rule.staged)
            .map(|(place, (rule, count))| (place, rule, count))
    }

    /// The packets and bytes that got this verdict.
    #[must_use]
    pub fn total(&self, verdict: Verdict) -> Count {
        let given = self.reasons.iter();
        let given = given.filter(|(_, given, _)| *given == verdict);
        given.fold(Count::default(), |sum, (_, _, count)| sum + *count)
    }
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
    pub ruleset: Arc<Ruleset>,
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
    /// What is in force on what goes out, where something is.
    pub egress: Option<EgressStatus>,
    /// What was counted of it, where nothing is any more.
    pub egress_before: Option<Stats>,
    /// The trial that this is in force by, or again by.
    pub trial: Option<TrialState>,
    /// What is counted of flows that began on the way in, and on the way out; `None`
    /// where none are remembered.
    pub flows: Option<[FlowTotals; 2]>,
}

impl Status {
    /// Whether all of it filters: nobody has taken either direction off.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let egress = self.egress.as_ref();
        self.mode.is_some() && egress.is_none_or(|egress| egress.hook.is_some())
    }

    /// All totals there are, what comes in first.
    pub fn totals(&self) -> impl Iterator<Item = &Stats> {
        let egress = self.egress.as_ref().map(|egress| &egress.stats);
        std::iter::once(&self.stats)
            .chain(egress)
            .chain(&self.egress_before)
    }
}

/// What is in force on what leaves an interface.
#[derive(Clone, Debug)]
pub struct EgressStatus {
    /// Where it is attached; `None` where somebody has taken it off.
    pub hook: Option<EgressHook>,
    /// The kernel's id of the program in force.
    pub program_id: u32,
    /// The ruleset in force.
    pub ruleset: Arc<Ruleset>,
    /// The program as the kernel has it, where the record says it.
    pub program_size: Option<ProgramSize>,
    /// How classes are combined, likewise.
    pub combination: Option<Combination>,
    /// Totals.
    pub stats: Stats,
}

/// The pinned state, opened for reading or changing.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
    sampling: Rate,
    max_flows: u32,
    hook: Option<EgressHook>,
    trial: Option<Duration>,
    take_over: bool,
    /// The names of programs that may be somebody else's.
    names: BTreeMap<u32, String>,
}

/// Flows of each direction that are remembered unless told otherwise.
pub const DEFAULT_MAX_FLOWS: u32 = 131_072;

/// The pin of a side's program, in its folder.
const PROGRAM: &str = "program";

impl Datapath {
    /// The pinned state at `root`. Nothing is touched yet.
    pub fn open(root: &Path) -> Result<Self, Error> {
        if root.is_absolute() {
            Ok(Self {
                root: root.to_owned(),
                sampling: Rate::OFF,
                max_flows: DEFAULT_MAX_FLOWS,
                hook: None,
                trial: None,
                take_over: false,
                names: BTreeMap::new(),
            })
        } else {
            Err(Error::Failed(format!(
                "--pin-root {} must be an absolute path",
                root.display()
            )))
        }
    }

    /// Mounts the BPF file system where it is not, as it is only at the first time after a
    /// start of the host. Takes `CAP_SYS_ADMIN` then.
    pub fn mount(&self) -> Result<(), Error> {
        pins::mount_bpffs(&self.root)
    }

    /// Asks for the names of the programs that are on this namespace's interfaces: who has not
    /// `CAP_SYS_ADMIN` can't, and a message that refuses a foreign one should say its name.
    #[must_use]
    pub fn knowing_names(mut self) -> Self {
        let interfaces = interface::all().unwrap_or_default();
        let attached: Vec<u32> = interfaces
            .iter()
            .filter_map(|interface| Some(interface.xdp?.program))
            .collect();
        if !attached.is_empty() {
            self.names = aya::programs::loaded_programs()
                .filter_map(Result::ok)
                .filter(|program| attached.contains(&program.id()))
                .map(|program| {
                    // `name_as_str` would first try out what the kernel has.
                    let name = String::from_utf8_lossy(program.name());
                    (program.id(), name.into_owned())
                })
                .collect();
        }
        self
    }

    /// What is applied from now on reports up to `events` dropped packets a
    /// second and CPU.
    #[must_use]
    pub fn sampling_drops(mut self, events: u32) -> Self {
        self.sampling = Rate::per_second(events, host::jiffies_per_second());
        self
    }

    /// What is applied from now on remembers up to `flows` flows of each direction;
    /// with 0, none: no packet passes for the sake of another.
    #[must_use]
    pub const fn remembering(mut self, flows: u32) -> Self {
        self.max_flows = flows;
        self
    }

    /// What is applied from now on filters what goes out at this hook; with `None` at
    /// TCX, if the kernel has it. What is attached already stays where it is.
    #[must_use]
    pub const fn egress_at(mut self, hook: Option<EgressHook>) -> Self {
        self.hook = hook;
        self
    }

    /// What is applied from now on is in force for this time, and then what was before is
    /// again, unless it is [confirmed](Self::confirm): by the kernel, without any process.
    #[must_use]
    pub const fn on_trial(mut self, time: Option<Duration>) -> Self {
        self.trial = time;
        self
    }

    /// What is applied from now on may take the place of a filter whose record can't be
    /// read, which is refused otherwise. What that one counted and remembered is lost.
    #[must_use]
    pub const fn taking_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Loads policies, swaps them in and pins them. Each direction changes atomically,
    /// what goes out just before what comes in. On an error nothing is changed. Where a
    /// trial runs, that is one.
    pub fn apply(
        &self,
        interface: &str,
        mode: Mode,
        policies: Policies<'_>,
    ) -> Result<Applied, Error> {
        let name = interface::by_name(interface)?.name;
        pins::prepare(&self.root)?;
        let lock = pins::lock(&self.root, true)?;
        // What it runs may have changed until nobody else changed it.
        let mut interface = interface::by_name(&name)?;
        if self.clear_first_trial(&interface)? {
            interface = interface::by_name(&name)?;
        }
        let applied = self.apply_locked(&interface, mode, policies);
        if applied.is_err() {
            pins::tidy(&self.root);
        }
        drop(lock);
        applied
    }

    /// What is applied from now on reports and remembers as this did.
    #[must_use]
    pub fn as_before(mut self, previous: &Previous) -> Self {
        if let Some(settings) = previous.settings {
            let [events, jiffies] = settings.sampling;
            self.sampling = Rate { events, jiffies };
            self.max_flows = settings.max_flows;
        }
        self
    }

    const fn settings(&self) -> Settings {
        Settings {
            sampling: [self.sampling.events, self.sampling.jiffies],
            max_flows: self.max_flows,
        }
    }

    /// Whether just this is in force on an interface, as [`Self::apply`] would put it
    /// there. What another change was cut short in is finished.
    pub fn is_in_force(
        &self,
        interface: &str,
        mode: Mode,
        policies: Policies<'_>,
    ) -> Result<bool, Error> {
        let present = interface::by_name(interface)?;
        let Some(_lock) = pins::lock(&self.root, true)? else {
            return Ok(false);
        };
        let Some(mut in_force) = self.find(&present, interface::namespace()?)? else {
            return Ok(false);
        };
        in_force.settle()?;
        let egress = in_force.egress.as_ref();
        Ok(refuse_other_mode(&present, mode).is_ok()
            && in_force.record.head.settings == Some(self.settings())
            && *in_force.record.ruleset == *policies.ingress.ruleset
            && egress.map(|record| &*record.ruleset) == policies.egress.map(|side| side.ruleset)
            && in_force.described()? == *policies.described)
    }

    fn apply_locked(
        &self,
        interface: &Interface,
        mode: Mode,
        policies: Policies<'_>,
    ) -> Result<Applied, Error> {
        let namespace = interface::namespace()?;
        let (mut before, unread) = match self.find(interface, namespace) {
            Err(error) if self.take_over => match Unread::on(&self.root, interface)? {
                Some(_) if self.trial.is_some() => return Err(no_way_back(interface)),
                Some(unread) => (None, Some(unread)),
                None => return Err(error),
            },
            found => (found?, None),
        };
        let ours = before.as_ref().map(|before| before.attached);
        self.refuse_foreign(interface, ours.or(unread.as_ref().map(Unread::program)))?;
        if let Some(before) = &mut before {
            before.settle()?;
            refuse_on_trial(interface, before)?;
        }
        let replaced = match (&before, &unread) {
            (Some(before), _) => Some(before.replaced()),
            (None, Some(unread)) => Some(unread.replaced()),
            (None, None) => None,
        };
        if replaced.is_some() {
            refuse_other_mode(interface, mode)?;
        }
        // Of a device that is gone, what its filter counted goes on; what it remembered was
        // of another wire, perhaps.
        let (slot, gone) = match &replaced {
            Some(before) => (before.slot.clone(), None),
            None => vacant_slot(&self.root, interface)?,
        };
        let gone_program = gone.as_ref().map(|gone| gone.program);
        let keep = replaced
            .as_ref()
            .map(|before| before.program)
            .or(gone_program);
        let heritage = before.as_ref().or(gone.as_ref());
        let flows = before.as_ref().map(InForce::flows).transpose()?.flatten();

        // What is kept beside the programs is put together while the kernel
        // verifies them.
        let start = Instant::now();
        let loading = Loading {
            sampling: self.sampling,
            trace: Trace::Off,
            max_flows: self.max_flows,
        };
        let (pair, records) = thread::scope(|scope| {
            let records = scope.spawn(|| Records::of(policies, namespace, interface.index));
            let pair = Pair::load(policies.ingress, policies.egress, loading, flows.as_ref());
            let records = records.join();
            (pair, records.unwrap_or_else(|panic| resume_unwind(panic)))
        });
        let (pair, mut records) = (pair?, records?);
        records.complete(&pair, policies, self.settings(), heritage)?;
        let number = records.ingress.head.generation;

        let reports = |side: Compiled<'_>| side.image.reports() || self.sampling != Rate::OFF;
        let in_force = before.as_ref();
        let put = || {
            let program = pin_pair(&slot, &pair, &records, policies, heritage, reports)?;
            let trial = self.trial.map(|_| NewTrial::load(&slot, &pair, in_force));
            let trial = trial.transpose()?;
            let programs = trial
                .as_ref()
                .map_or_else(|| Programs::of(&pair), Programs::of_trial);
            let attached = match &trial {
                Some(trial) => trial.program_id()?,
                None => program,
            };
            let load = start.elapsed();
            let start = Instant::now();
            let until = match (&trial, self.trial) {
                (Some(trial), Some(time)) => Some(trial.begin(time)?),
                _ => None,
            };
            put_in_force(
                interface,
                mode,
                self.hook,
                programs,
                &slot,
                replaced.as_ref(),
            )?;
            Ok((program, attached, until, load, start.elapsed()))
        };
        let (program, attached, until, load, swap) =
            put().map_err(|error| undo(&slot, before.is_some(), keep, error))?;

        // From here on the new generation is in force.
        let start = Instant::now();
        if before.is_some() && until.is_none() {
            sys::wait_for_readers().map_err(|error| {
                Error::io(
                    "the policy is in force, but the old counters can't be carried over yet",
                    &error,
                )
            })?;
        }
        let here = slot.link().map_err(Error::once_in_force)?;
        if here.is_none_or(|(_, link)| link.program != attached) {
            return Err(Error::Failed(format!(
                "the filter on {} was removed by somebody while it was being applied",
                interface.name
            )));
        }
        // What is on trial leaves all from before as it is.
        let finish = || {
            if until.is_none() {
                if pair.egress.is_none() {
                    egress::remove(&slot, interface.index)?;
                }
                if let Some(before) = heritage {
                    let folder = slot.generation(program);
                    before.ingress().carry(policies.ingress.ruleset, &folder)?;
                    if let Some(old) = before.egress_side()? {
                        let unfiltered = in_force::unfiltered();
                        let new = policies.egress.map_or(&*unfiltered, |new| new.ruleset);
                        old.carry(new, &folder.join(EGRESS))?;
                    }
                    in_force::keep_previous(&before.folder(), &folder)?;
                    in_force::forget_before(&folder)?;
                }
                slot.remove_generations_except(program)?;
            }
            interface::by_name(&interface.name)
        };
        let mode = finish()
            .map_err(Error::once_in_force)?
            .xdp
            .and_then(|xdp| xdp.mode)
            .unwrap_or(mode);
        let (before, egress_before) = match before {
            None => (None, None),
            Some(before) => (
                Some(before.record.ruleset),
                before.egress.map(|record| record.ruleset),
            ),
        };
        Ok(Applied {
            mode,
            generation: number,
            before,
            egress_before,
            until,
            taken_over: unread.is_some(),
            spent: Spent {
                load,
                swap,
                carry: start.elapsed(),
            },
        })
    }

    /// Whether what is pinned could be seen: a BPF file system is mounted there.
    #[must_use]
    pub fn sees_pins(&self) -> bool {
        pins::are_seen(&self.root)
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
        Meter::new(&self.root).read()
    }

    /// The same, with what it was made of.
    pub fn status_described(&self) -> Result<Vec<Status>, Error> {
        Meter::new(&self.root).read_described()
    }

    /// The totals, per interface, by name, and what comes in before what goes out; of
    /// `interface` alone if named.
    pub fn stats(&self, interface: Option<&str>) -> Result<Vec<Stats>, Error> {
        let mut all: Vec<Stats> = self
            .status()?
            .iter()
            .flat_map(|status| status.totals().cloned().collect::<Vec<_>>())
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
        // What goes out alone is filtered where a first change was cut short.
        let link = match slot.link()? {
            Some(link) => Some(link),
            None => slot.egress()?,
        };
        let ifindex = match link {
            Some((_, link)) => link.ifindex,
            None if pins::is_there(&slot.clsact_path())? => {
                interface::by_name(interface).map_or(0, |present| present.index)
            }
            // What a removal that was cut short has left.
            None if Slot::all(&self.root)?.contains(&slot) => 0,
            None => return Err(not_attached(interface)),
        };
        egress::remove(&slot, ifindex)?;
        slot.remove()?;
        pins::tidy(&self.root);
        Ok(())
    }

    /// Removes the pin folder where nothing is in it, as a removal that was cut short may
    /// leave it.
    pub fn tidy(&self) -> Result<(), Error> {
        if let Some(_lock) = pins::lock(&self.root, true)? {
            pins::tidy(&self.root);
        }
        Ok(())
    }

    /// The flows of an interface, those that began on the way in first; those that are
    /// over are among them until they are pushed out. `None` where none are remembered.
    pub fn flows(&self, interface: &str) -> Result<Option<Vec<Flow>>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        let flows = self.flow_tables(interface)?;
        flows.map(|flows| flows.flows()).transpose()
    }

    /// Forgets the flows of an interface that `gone` says; how many those were.
    pub fn forget_flows(
        &self,
        interface: &str,
        gone: impl Fn(&Flow) -> bool,
    ) -> Result<u64, Error> {
        let _lock = pins::lock(&self.root, true)?;
        let flows = self.flow_tables(interface)?;
        flows.map_or(Ok(0), |flows| flows.remove(gone))
    }

    fn flow_tables(&self, interface: &str) -> Result<Option<flows::Tables>, Error> {
        let present = interface::by_name(interface)?;
        let in_force = self.find(&present, interface::namespace()?)?;
        let in_force = in_force.ok_or_else(|| not_attached(interface))?;
        in_force.flows()
    }

    /// Another program on the interface is somebody's: never replaced.
    fn refuse_foreign(&self, interface: &Interface, ours: Option<u32>) -> Result<(), Error> {
        let Some(attached) = interface.xdp else {
            return Ok(());
        };
        if ours == Some(attached.program) {
            return Ok(());
        }
        let name = self.names.get(&attached.program);
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

    /// The filter on `interface`, whatever the interface was called when it
    /// was put there.
    fn find(&self, interface: &Interface, namespace: u64) -> Result<Option<InForce>, Error> {
        for slot in Slot::all(&self.root)? {
            // The records of others may be long.
            let index = slot.link()?.map(|(_, link)| link.ifindex);
            if index == Some(interface.index)
                && let Some(in_force) = InForce::of(slot)?
                && in_force.ifindex == interface.index
                && in_force.record.head.namespace == namespace
            {
                return Ok(Some(in_force));
            }
        }
        Ok(None)
    }
}

/// The slot of the interface's name, where it is nobody's, and what was in force there
/// on a device that is gone.
fn vacant_slot(root: &Path, interface: &Interface) -> Result<(Slot, Option<InForce>), Error> {
    let slot = Slot::named(root, &interface.name);
    match slot.link()? {
        Some((_, info)) if info.ifindex != 0 => Err(Error::Failed(format!(
            "{} holds the filter of another interface (index {}, perhaps in another network \
             namespace); nothing was changed. Detach that one, or pin this one elsewhere with \
             --pin-root.",
            slot.link_path().display(),
            info.ifindex
        ))),
        Some(_) => {
            egress::remove(&slot, interface.index)?;
            // What can't be read, of another version perhaps, has no heir.
            if let Ok(Some(gone)) = InForce::of(slot.clone())
                && gone.settle_totals().is_ok()
                && slot.remove_generations_except(gone.program).is_ok()
            {
                return Ok((slot, Some(gone)));
            }
            slot.remove()?;
            Ok((slot, None))
        }
        None => {
            // Where a first change was cut short, what goes out is filtered alone.
            egress::remove(&slot, interface.index)?;
            slot.remove()?;
            Ok((slot, None))
        }
    }
}

fn not_attached(interface: &str) -> Error {
    Error::NotAttached(format!(
        "no nodewall filter is attached to {interface:?}. `nodewall status` lists those that are."
    ))
}

/// Pins all of a generation but the links. By the record of what comes in it is known as a
/// generation, so that this comes last. Returns the id of the program that decides what comes
/// in.
fn pin_pair(
    slot: &Slot,
    pair: &Pair,
    records: &Records,
    policies: Policies<'_>,
    before: Option<&InForce>,
    reports: impl Fn(Compiled<'_>) -> bool,
) -> Result<u32, Error> {
    let program = pair.ingress.program_id()?;
    let folder = slot.generation(program);
    pins::create(&folder)?;
    if let Some(before) = before {
        before.keep_totals(&folder)?;
    }
    if let Some(flows) = &pair.flows {
        flows.pin(&folder)?;
    }
    let of_egress = (&pair.egress, &records.egress, policies.egress);
    if let (Some(loaded), Some(record), Some(side)) = of_egress {
        pin_side(&folder.join(EGRESS), loaded, record, side, reports(side))?;
    } else if let Some(before) = before
        && before.egress_side()?.is_some()
    {
        // What was counted goes on being told.
        let folder = folder.join(EGRESS);
        pins::create(&folder)?;
        counters::create_carried(&folder.join(CARRIED), REASON_COUNTERS)?;
    }
    let side = policies.ingress;
    pin_side(
        &folder,
        &pair.ingress,
        &records.ingress,
        side,
        reports(side),
    )?;
    Ok(program)
}

fn pin_side(
    folder: &Path,
    generation: &Generation,
    record: &NewRecord,
    compiled: Compiled<'_>,
    reports: bool,
) -> Result<(), Error> {
    pins::create(folder)?;
    generation.pin_program(&folder.join(PROGRAM))?;
    generation.pin_counters(&folder.join("counters"))?;
    counters::create_carried(&folder.join(CARRIED), compiled.image.counters())?;
    if reports {
        generation.pin_events(folder)?;
    }
    record.pin(&folder.join(RECORD))
}

/// Removes what a failed apply left; the error is what made it fail. `keep` is the
/// program of what was there before, and still filters where it is `in_force`.
fn undo(slot: &Slot, in_force: bool, keep: Option<u32>, error: Error) -> Error {
    let removed = match keep {
        // What goes out may have been counted by the new one.
        Some(_) if in_force => match InForce::of(slot.clone()) {
            Ok(Some(mut again)) => again.settle(),
            other => other.map(drop),
        },
        Some(before) => slot.remove_generations_except(before),
        None => slot.remove(),
    };
    match removed {
        Ok(()) => error,
        Err(left) => Error::Failed(format!("{error} Cleaning up failed as well: {left}")),
    }
}

/// What is put into the links: the programs of a generation, or those of its trial.
#[derive(Clone, Copy)]
struct Programs<'p> {
    ingress: BorrowedFd<'p>,
    egress: Option<BorrowedFd<'p>>,
}

impl<'p> Programs<'p> {
    fn of(pair: &'p Pair) -> Self {
        Self {
            ingress: pair.ingress.program(),
            egress: pair.egress.as_ref().map(Generation::program),
        }
    }

    fn of_trial(trial: &'p NewTrial) -> Self {
        Self {
            ingress: trial.ingress(),
            egress: trial.egress(),
        }
    }
}

/// Puts the loaded programs into the links. What goes out is changed first and what
/// comes in last: whatever fails before is undone.
fn put_in_force(
    interface: &Interface,
    mode: Mode,
    hook: Option<EgressHook>,
    programs: Programs<'_>,
    slot: &Slot,
    before: Option<&Replaced<'_>>,
) -> Result<(), Error> {
    if let Some(egress) = programs.egress {
        egress::put(interface, slot, hook, egress)?;
    }
    let swapped = match before {
        Some(before) => swap(interface, programs.ingress, before),
        None => attach(interface, mode, programs.ingress, slot),
    };
    match (swapped, before) {
        (Ok(()), _) => Ok(()),
        // The slot is removed as a whole.
        (Err(error), None) => match egress::remove(slot, interface.index) {
            Ok(()) => Err(error),
            Err(left) => Err(Error::Failed(format!(
                "{error} And the filter of what goes out could not be removed: {left}"
            ))),
        },
        (Err(error), Some(before)) => {
            let folder = slot.generation(before.program);
            match egress::settle(slot, interface.index, &folder, before.egress) {
                Ok(()) => Err(error),
                Err(left) => Err(Error::Failed(format!(
                    "{error} And what goes out could not be changed back: {left}"
                ))),
            }
        }
    }
}

/// Puts a program into the pinned link.
fn swap(
    interface: &Interface,
    program: BorrowedFd<'_>,
    before: &Replaced<'_>,
) -> Result<(), Error> {
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
    sys::link_update(before.link, program).map_err(failed)
}

/// Attaches the first generation and pins its link.
fn attach(
    interface: &Interface,
    mode: Mode,
    program: BorrowedFd<'_>,
    slot: &Slot,
) -> Result<(), Error> {
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
    slot.pin_link(link.as_fd())
}

/// What nobody here can read can't be gone back to.
fn no_way_back(interface: &Interface) -> Error {
    Error::Failed(format!(
        "the filter on {} was put there by another version, so it can't be what a trial goes back \
         to; nothing was changed. Take it over without --confirm.",
        interface.name
    ))
}

/// What is on trial is to be kept or given up first.
fn refuse_on_trial(interface: &Interface, in_force: &InForce) -> Result<(), Error> {
    match in_force.trial.as_ref().map(Trial::state) {
        Some(TrialState::Runs(until)) => Err(Error::OnTrial {
            interface: interface.name.clone(),
            until,
        }),
        _ => Ok(()),
    }
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
