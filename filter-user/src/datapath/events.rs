//! Reported packets: from the rings of the generations in force.
//!
//! Each generation has a ring of its own, so that an event means the rule of
//! the ruleset that reported it, also when a change comes between the report
//! and its reader. A reader that sees another generation in force first reads
//! what is left in the old ring, which it still holds open.
//!
//! What a reader asks for, the program evaluates before a packet takes from the budget.
//! It is said to each generation for itself, and holds for as long as there is the reader;
//! where one was killed, the next one takes it back.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use filter_common::abi::NONE;
use filter_common::event::{BUDGETS, Budget, Event, Kind};
use filter_common::verdict::Reason;
use nix::time::{ClockId, clock_gettime};

use super::error::Error;
use super::event_filter::{Asked, EventFilter, ask};
use super::in_force::{Decides, EGRESS, InForce};
use super::{Datapath, not_attached, pins};
use crate::datapath::pins::Slot;
use crate::ruleset::{Direction, Rule, Ruleset};

/// A reported packet.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When it was reported.
    pub time: SystemTime,
    /// The interface.
    pub interface: String,
    /// Which way it went.
    pub direction: Direction,
    /// The rule that reports it; of a dropped packet the one that decided,
    /// where one did.
    pub rule: Option<Rule>,
    /// Of a dropped packet: how many it stands for.
    pub sampled_1_in: Option<u64>,
    /// The rule that decided, where one did.
    pub decided_by: Option<Rule>,
    /// Whether it was dropped.
    pub dropped: bool,
    /// Why it passed or was dropped.
    pub reason: Reason,
    /// Bytes of the frame.
    pub length: u32,
    /// Its first bytes, from the Ethernet header on.
    pub header: Vec<u8>,
}

/// Reads what is reported on some interfaces. One reader an interface: a ring
/// gives each event once.
pub struct Observer {
    datapath: Datapath,
    interfaces: Vec<String>,
    filter: EventFilter,
    sources: BTreeMap<Place, Source>,
    /// The program of each interface when it was last looked at.
    looked_at: BTreeMap<String, u32>,
    /// Held for as long as the rings are read.
    locks: BTreeMap<String, File>,
    /// Rings of generations that a change has just replaced: a CPU may be
    /// about to write to them, so they are read once more.
    retired: Vec<(Place, Source)>,
    /// Losses of generations that are gone.
    lost_before: u64,
}

/// What a ring is of: an interface and a direction.
type Place = (String, Direction);

/// The ring of one direction of a generation.
struct Source {
    ring: RingBuf<MapData>,
    budget: Budgets<MapData>,
    asked: Asked<MapData>,
    ruleset: Arc<Ruleset>,
    lost: u64,
}

/// The map of [`Budget`]s, as aya reads it.
pub(super) type Budgets<T> = PerCpuArray<T, [u64; size_of::<Budget>() / size_of::<u64>()]>;

impl Observer {
    /// Begins to read on these interfaces; on all that are filtered if none is
    /// named. Everything is asked for, until [`Self::want`] says what.
    pub fn new(datapath: Datapath, interfaces: Vec<String>) -> Result<Self, Error> {
        let in_force = datapath.interfaces()?;
        if let Some(missing) = interfaces.iter().find(|name| !in_force.contains(name)) {
            return Err(not_attached(missing));
        }
        if in_force.is_empty() {
            return Err(Error::NotAttached(
                "no filter is in force, so there is nothing to observe. `nodewall apply` puts one \
                 in force."
                    .to_owned(),
            ));
        }
        let mut observer = Self {
            datapath,
            interfaces,
            filter: EventFilter::default(),
            sources: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            locks: BTreeMap::new(),
            retired: Vec::new(),
            lost_before: 0,
        };
        observer.follow()?;
        Ok(observer)
    }

    /// Whether anything in force reports packets.
    #[must_use]
    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Asks for these events alone from now on, also of generations that come. What is
    /// not asked for is not among the losses; but what is read may have more, see
    /// [`EventFilter`]: of packets that were reported before, or by a generation that was
    /// not told yet, as well.
    pub fn want(&mut self, filter: EventFilter) -> Result<(), Error> {
        self.filter = filter;
        self.ask()
    }

    /// Tells the programs what is asked for, those that don't know.
    fn ask(&mut self) -> Result<(), Error> {
        let filter = &self.filter;
        ask(self.sources.values_mut().map(|source| {
            let criteria = filter.criteria(&source.ruleset);
            (&mut source.asked, criteria)
        }))
    }

    /// What was reported since the last call, and how many reports were lost
    /// since then; the first call says it of all the time that the policies
    /// have been in force.
    pub fn read(&mut self) -> Result<(Vec<Observed>, u64), Error> {
        let before = self.lost();
        let clock = Clock::now();
        let mut events = Vec::new();
        for ((interface, _), source) in &mut self.sources {
            source.drain(interface, &clock, &mut events)?;
        }
        for ((interface, _), mut source) in std::mem::take(&mut self.retired) {
            source.drain(&interface, &clock, &mut events)?;
            self.lost_before += source.lost;
        }
        self.retired = self.follow()?;
        events.sort_by_key(|event| event.time);
        Ok((events, self.lost() - before))
    }

    fn lost(&self) -> u64 {
        let retired = self.retired.iter().map(|(_, source)| source);
        let now: u64 = self
            .sources
            .values()
            .chain(retired)
            .map(|source| source.lost)
            .sum();
        self.lost_before + now
    }

    /// Opens the rings of the generations in force, and asks them for what is wanted;
    /// returns those that are no longer in force.
    fn follow(&mut self) -> Result<Vec<(Place, Source)>, Error> {
        let (gone, is_new) = self.open()?;
        if is_new {
            self.ask()?;
        }
        Ok(gone)
    }

    /// Opens the rings of the generations in force; returns those that are no
    /// longer, and whether there are new ones.
    fn open(&mut self) -> Result<(Vec<(Place, Source)>, bool), Error> {
        let root = self.datapath.root.clone();
        let _lock = pins::lock(&root, false)?;
        let mut gone = Vec::new();
        let mut is_new = false;
        let mut present = Vec::new();
        for slot in Slot::all(&root)? {
            let wanted = self.interfaces.is_empty() || self.interfaces.contains(&slot.name);
            let Some((_, link)) = slot.link()?.filter(|_| wanted) else {
                continue;
            };
            let name = slot.name.clone();
            present.push(name.clone());
            let Some(program) = Decides::of(&slot, link.program)?.program else {
                continue;
            };
            // Its record may be long, and says the same as the last time.
            if self.looked_at.insert(name.clone(), program) == Some(program) {
                continue;
            }
            let Some(in_force) = InForce::of(slot)? else {
                continue;
            };
            for direction in [Direction::Ingress, Direction::Egress] {
                gone.extend(self.sources.remove_entry(&(name.clone(), direction)));
            }
            let folder = in_force.folder();
            let egress = in_force.egress.map(|record| (folder.join(EGRESS), record));
            let sides = std::iter::once((folder, in_force.record)).chain(egress);
            for (folder, record) in sides {
                if !pins::is_there(&folder.join("events"))? {
                    if !record.ruleset.rules.iter().any(crate::compile::reports) {
                        continue;
                    }
                    return Err(Error::Failed(format!(
                        "the filter on {name} was applied by a nodewall that reports no packets, so \
                         its Log rules count and say nothing; apply its policies again with this one"
                    )));
                }
                if !self.locks.contains_key(&name) {
                    self.locks.insert(name.clone(), lock(&root, &name)?);
                }
                let place = (name.clone(), record.ruleset.direction);
                let source = Source::open(&folder, record.ruleset)?;
                self.sources.insert(place, source);
                is_new = true;
            }
        }
        let places: Vec<Place> = self.sources.keys().cloned().collect();
        for place in places.iter().filter(|(name, _)| !present.contains(name)) {
            gone.extend(self.sources.remove_entry(place));
        }
        // A filter that comes again has another folder to lock.
        self.locks.retain(|name, _| present.contains(name));
        self.looked_at.retain(|name, _| present.contains(name));
        Ok((gone, is_new))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        for source in self.sources.values_mut() {
            // Where it fails, the next reader does it.
            let _ = source.asked.reset();
        }
    }
}

/// Keeps other readers away until it is closed.
fn lock(root: &Path, interface: &str) -> Result<File, Error> {
    let folder = root.join(interface);
    let file = File::open(&folder)
        .map_err(|error| Error::io(format_args!("cannot open {}", folder.display()), &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Failed(format!(
            "another `nodewall observe` or `top` reads the events of {interface}, and each event \
             is given once; end that one first"
        ))),
        Err(TryLockError::Error(error)) => Err(Error::io(
            format_args!("cannot lock {}", folder.display()),
            &error,
        )),
    }
}

impl Source {
    fn open(folder: &Path, ruleset: Arc<Ruleset>) -> Result<Self, Error> {
        let failed = |error| Error::aya(format_args!("cannot read {}", folder.display()), &error);
        let ring = RingBuf::try_from(pinned(folder, "events")?).map_err(failed)?;
        let asked = Array::try_from(pinned(folder, "filter")?).map_err(failed)?;
        Ok(Self {
            ring,
            budget: budget(folder)?,
            asked: Asked::new(asked),
            ruleset,
            lost: 0,
        })
    }

    fn drain(
        &mut self,
        interface: &str,
        clock: &Clock,
        events: &mut Vec<Observed>,
    ) -> Result<(), Error> {
        while let Some(item) = self.ring.next() {
            let event = read(&item)?;
            let rule = self.ruleset.rules.get(event.rule as usize);
            let kind = Kind::from_number(event.kind);
            let reason = Reason::from_number(event.reason);
            let no_rule = event.rule == NONE && kind == Some(Kind::Drop);
            let (Some(kind), Some(reason), true) = (kind, reason, rule.is_some() || no_rule) else {
                return Err(Error::Failed(format!(
                    "{interface}: an event names kind {}, rule {} and reason {}, which don't exist",
                    event.kind, event.rule, event.reason
                )));
            };
            let captured = usize::from(event.captured).min(event.header.len());
            events.push(Observed {
                time: clock.wall(event.time),
                interface: interface.to_owned(),
                direction: self.ruleset.direction,
                rule: rule.cloned(),
                sampled_1_in: (kind == Kind::Drop).then_some(event.stands_for),
                decided_by: self.ruleset.rules.get(event.decided_by as usize).cloned(),
                dropped: event.verdict != 0,
                reason,
                length: event.length,
                header: event.header[..captured].to_vec(),
            });
        }
        self.lost = sum_lost(&self.budget)?;
        Ok(())
    }
}

/// How many reports the generation in `folder` has lost so far: 0 where it
/// reports nothing.
pub(super) fn lost(folder: &Path) -> Result<u64, Error> {
    if pins::is_there(&folder.join("budget"))? {
        sum_lost(&budget(folder)?)
    } else {
        Ok(0)
    }
}

/// An event as the ring holds it.
pub(super) fn read(item: &[u8]) -> Result<Event, Error> {
    bytemuck::try_pod_read_unaligned(item).map_err(|error| {
        Error::Failed(format!(
            "an event is not readable by this nodewall ({error})"
        ))
    })
}

/// How many reports of all kinds were lost on all CPUs.
pub(super) fn sum_lost<T: Borrow<MapData>>(budgets: &Budgets<T>) -> Result<u64, Error> {
    let mut lost = 0;
    for kind in 0..BUDGETS {
        let of_cpus = budgets
            .get(&kind, 0)
            .map_err(|error| Error::aya("cannot read how many events were lost", &error))?;
        let of_cpus = of_cpus.iter().map(|words| bytemuck::cast(*words));
        lost += of_cpus.map(|budget: Budget| budget.lost()).sum::<u64>();
    }
    Ok(lost)
}

fn budget(folder: &Path) -> Result<Budgets<MapData>, Error> {
    PerCpuArray::try_from(pinned(folder, "budget")?)
        .map_err(|error| Error::aya(format_args!("cannot read {}", folder.display()), &error))
}

fn pinned(folder: &Path, name: &str) -> Result<Map, Error> {
    let path = folder.join(name);
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::aya(format_args!("cannot open {}", path.display()), error)
    };
    let data = MapData::from_pin(&path).map_err(|error| failed(&error))?;
    Map::from_map_data(data).map_err(|error| failed(&error))
}

/// The time since boot, in wall-clock time.
struct Clock {
    boot: SystemTime,
}

impl Clock {
    fn now() -> Self {
        let since_boot =
            clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self {
            boot: SystemTime::now()
                .checked_sub(since_boot)
                .unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    fn wall(&self, nanoseconds: u64) -> SystemTime {
        self.boot + Duration::from_nanos(nanoseconds)
    }
}
