//! What is in force on an interface: one generation, both directions of it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use filter_common::abi::REASON_COUNTERS;

use super::error::Error;
use super::generation::{Compiled, Pair};
use super::interface::Interface;
use super::pins::Slot;
use super::record::{Head, NewRecord, Record, Settings};
use super::trial::{Trial, TrialState};
use super::{
    Count, Described, PROGRAM, Policies, Previous, Stats, counters, egress, flows, pins, sys,
};
use crate::ruleset::{Action, Direction, Options, Ruleset};

/// One interface's generation in force.
pub(super) struct InForce {
    pub(super) slot: Slot,
    pub(super) link: OwnedFd,
    /// As the kernel says it: 0 where the device is gone.
    pub(super) ifindex: u32,
    /// The program that the link runs: the generation's own, or that of a trial.
    pub(super) attached: u32,
    /// The program of the generation.
    pub(super) program: u32,
    pub(super) trial: Option<Trial>,
    /// The program of a generation that was to follow this one, and is not in force: its
    /// trial is over, or the change was cut short when only what goes out was changed.
    pub(super) given_up: Option<u32>,
    pub(super) record: Record,
    /// The record of what goes out, where that is filtered.
    pub(super) egress: Option<Record>,
}

/// The folder of what goes out, in that of a generation. Where nothing of it is
/// filtered any more, only what was counted before is there.
pub(super) const EGRESS: &str = "egress";
/// The pin of what earlier generations counted.
pub(super) const CARRIED: &str = "carried";
/// The pin of what was put in force, beside its totals.
pub(super) const RECORD: &str = "record";
/// The pin of the record of the generation before, in the folder of each direction.
pub(super) const PREVIOUS: &str = "previous";
/// The pin of what the generation before had carried, in the folder of each direction, until
/// its successor is in force for good.
const BEFORE: &str = "before";

/// One direction of a generation that is, or was, in force.
pub(super) struct Side {
    folder: PathBuf,
    ruleset: Arc<Ruleset>,
    /// Whether its packets are filtered; else there are only those of before.
    filters: bool,
    /// The folder of the same direction in the generation before.
    predecessor: Option<PathBuf>,
    /// What was to follow this one, and is not in force.
    given_up: Option<GivenUp>,
}

/// One direction of a generation that was given up.
struct GivenUp {
    folder: PathBuf,
}

impl Side {
    /// The side that is pinned in `folder`; `None` where there is none.
    fn at(folder: PathBuf) -> Result<Option<Self>, Error> {
        if !pins::is_there(&folder)? {
            return Ok(None);
        }
        let record = folder.join(RECORD);
        let ruleset = if pins::is_there(&record)? {
            Some(Record::read(&record)?.ruleset)
        } else {
            None
        };
        Ok(Some(Self {
            folder,
            filters: ruleset.is_some(),
            ruleset: ruleset.unwrap_or_else(unfiltered),
            predecessor: None,
            given_up: None,
        }))
    }

    /// The totals: where a swap was cut short before the old generation's
    /// totals were carried over, as if they had been.
    fn totals(&self) -> Result<Vec<Count>, Error> {
        match self.left_behind()? {
            Some(carried) => self.with_own(carried),
            None => self.kept(),
        }
    }

    /// The totals as the pins have them.
    fn kept(&self) -> Result<Vec<Count>, Error> {
        let rules = self.ruleset.rules.len();
        self.with_own(counters::read_carried(&self.folder.join(CARRIED), rules)?)
    }

    fn with_own(&self, carried: Vec<Count>) -> Result<Vec<Count>, Error> {
        if self.filters {
            counters::add_own(&self.folder, carried)
        } else {
            Ok(carried)
        }
    }

    /// What is to be carried over from what was in force before and is still there: a
    /// predecessor, or what was given up.
    fn left_behind(&self) -> Result<Option<Vec<Count>>, Error> {
        if let Some(given_up) = &self.given_up {
            return given_up.left_to(&self.ruleset).map(Some);
        }
        let folder = self.predecessor.clone();
        let Some(before) = folder.map(Self::at).transpose()?.flatten() else {
            return Ok(None);
        };
        Ok(Some(before.carried_to(&self.ruleset)?))
    }

    /// The totals in the terms of another ruleset.
    fn carried_to(&self, to: &Ruleset) -> Result<Vec<Count>, Error> {
        let totals = self.kept()?;
        Ok(counters::carry(&self.ruleset.rules, &totals, &to.rules))
    }

    /// Carries the totals over to the generation in `folder`, which has this ruleset.
    pub(super) fn carry(&self, to: &Ruleset, folder: &Path) -> Result<(), Error> {
        counters::write_carried(&folder.join(CARRIED), &self.carried_to(to)?)
    }

    fn settle(&self) -> Result<(), Error> {
        if let Some(totals) = self.left_behind()? {
            let carried = self.folder.join(CARRIED);
            if !pins::is_there(&carried)? {
                // What was given up filtered this direction, and before nothing had.
                pins::create(&self.folder)?;
                counters::create_carried(&carried, REASON_COUNTERS)?;
            }
            counters::write_carried(&carried, &totals)?;
        }
        Ok(())
    }

    pub(super) fn stats(&self, interface: &str) -> Result<Stats, Error> {
        let totals = self.totals()?;
        Ok(counters::stats(interface, &self.ruleset, &totals))
    }
}

impl GivenUp {
    /// What the generation that is in force is to carry: what it had carried, and what the
    /// other counted, however often it is set.
    fn left_to(&self, to: &Ruleset) -> Result<Vec<Count>, Error> {
        let path = self.folder.join(BEFORE);
        let before = if pins::is_there(&path)? {
            counters::read_carried(&path, to.rules.len())?
        } else {
            Vec::new()
        };
        // It counts itself; what it was to carry is the other's.
        let Some(other) = Side::at(self.folder.clone())?.filter(|other| other.filters) else {
            return Ok(before);
        };
        let rules = &other.ruleset.rules;
        let nothing = vec![Count::default(); REASON_COUNTERS as usize + rules.len()];
        let own = counters::add_own(&self.folder, nothing)?;
        let mut totals = counters::carry(rules, &own, &to.rules);
        for (total, before) in totals.iter_mut().zip(before) {
            *total = *total + before;
        }
        Ok(totals)
    }
}

/// What decides about the packets of a link that runs this program.
pub(super) struct Decides {
    /// The program of the generation that does; `None` where the trial of the first one is
    /// over.
    pub(super) program: Option<u32>,
    pub(super) trial: Option<Trial>,
}

impl Decides {
    pub(super) fn of(slot: &Slot, attached: u32) -> Result<Self, Error> {
        let trial = Trial::of(slot, attached)?;
        Ok(Self {
            program: trial.as_ref().map_or(Some(attached), Trial::decides),
            trial,
        })
    }
}

/// The ruleset of what goes out where it is not filtered.
pub(super) fn unfiltered() -> Arc<Ruleset> {
    Arc::new(Ruleset {
        endpoint: String::new(),
        direction: Direction::Egress,
        sets: Vec::new(),
        rules: Vec::new(),
        default: Action::Allow,
        options: Options::default(),
    })
}

impl InForce {
    /// The generation in force in a slot; `None` where no link is pinned.
    pub(super) fn of(slot: Slot) -> Result<Option<Self>, Error> {
        let Some((link, info)) = slot.link()? else {
            return Ok(None);
        };
        let Decides { program, trial } = Decides::of(&slot, info.program)?;
        let Some(program) = program else {
            return Ok(None);
        };
        let folder = slot.generation(program);
        let record = Record::read(&folder.join(RECORD))?;
        let egress = match record.head.egress {
            Some(_) => Some(Record::read(&folder.join(EGRESS).join(RECORD))?),
            None => None,
        };
        let given_up = given_up(&slot, program, trial.as_ref())?;
        Ok(Some(Self {
            slot,
            link,
            ifindex: info.ifindex,
            attached: info.program,
            program,
            trial,
            given_up,
            record,
            egress,
        }))
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.slot.generation(self.program)
    }

    /// What it takes to put another generation in its place.
    pub(super) fn replaced(&self) -> Replaced<'_> {
        Replaced {
            slot: &self.slot,
            link: self.link.as_fd(),
            program: self.program,
            egress: self.record.head.egress,
        }
    }

    pub(super) fn flows(&self) -> Result<Option<flows::Tables>, Error> {
        flows::Tables::open(&self.folder(), self.record.head.flow_seed)
    }

    pub(super) fn described(&self) -> Result<Described, Error> {
        self.record.described(&self.folder().join(RECORD))
    }

    /// What was in force before the last change, where that is known.
    pub(super) fn previous(&self) -> Result<Option<Previous>, Error> {
        let path = self.folder().join(PREVIOUS);
        if !pins::is_there(&path)? {
            return Ok(None);
        }
        let record = Record::read(&path)?;
        let egress = match record.head.egress {
            Some(_) => Some(Record::read(&self.folder().join(EGRESS).join(PREVIOUS))?),
            None => None,
        };
        Ok(Some(Previous {
            generation: record.head.generation,
            described: record.described(&path)?,
            ingress: record.ruleset,
            egress: egress.map(|record| record.ruleset),
            settings: record.head.settings,
        }))
    }

    fn predecessor(&self) -> Option<PathBuf> {
        let program = self.record.head.predecessor?;
        Some(self.slot.generation(program))
    }

    pub(super) fn ingress(&self) -> Side {
        Side {
            folder: self.folder(),
            ruleset: Arc::clone(&self.record.ruleset),
            filters: true,
            predecessor: self.predecessor(),
            given_up: self.given_up(Path::new("")),
        }
    }

    /// What was given up, in the folder of this name in that of a generation.
    fn given_up(&self, side: &Path) -> Option<GivenUp> {
        let folder = self.slot.generation(self.given_up?).join(side);
        Some(GivenUp { folder })
    }

    /// What goes out, where it is filtered, or was.
    pub(super) fn egress_side(&self) -> Result<Option<Side>, Error> {
        let folder = self.folder().join(EGRESS);
        let record = self.egress.as_ref();
        let given_up = self.given_up(Path::new(EGRESS));
        let was_there = match &given_up {
            Some(given_up) => pins::is_there(&given_up.folder)?,
            None => false,
        };
        if record.is_none() && !was_there && !pins::is_there(&folder)? {
            return Ok(None);
        }
        Ok(Some(Side {
            folder,
            ruleset: record.map_or_else(unfiltered, |record| Arc::clone(&record.ruleset)),
            filters: record.is_some(),
            predecessor: self.predecessor().map(|folder| folder.join(EGRESS)),
            given_up,
        }))
    }

    /// Finishes a change that was cut short, or a trial that is over: the link gets its
    /// name, what goes out follows what comes in, what was counted before is carried over,
    /// and all else is removed. Of a trial that runs nothing is changed. Needs the
    /// exclusive lock.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.slot.settle_link()?;
        let trial = self.trial.as_ref().map(Trial::state);
        if matches!(trial, Some(TrialState::Runs(_))) {
            return Ok(());
        }
        egress::settle(
            &self.slot,
            self.ifindex,
            &self.folder(),
            self.record.head.egress,
        )?;
        self.end_trial()?;
        if trial.is_some() || self.given_up.is_some() {
            // The other's last packets are to be counted.
            sys::wait_for_readers().map_err(|error| {
                Error::io("what was given up, or kept, can't be finished yet", &error)
            })?;
        }
        self.settle_totals()?;
        if let Some(predecessor) = self.predecessor() {
            keep_previous(&predecessor, &self.folder())?;
        }
        forget_before(&self.folder())?;
        self.slot.remove_generations_except(self.program)?;
        self.given_up = None;
        Ok(())
    }

    /// Keeps what this one has carried in the folder of its successor: until that is in force
    /// for good, what it counts may have to be added to this, and more than once.
    pub(super) fn keep_totals(&self, folder: &Path) -> Result<(), Error> {
        let keep = |from: &Path, ruleset: &Ruleset, folder: &Path| {
            let totals = counters::read_carried(from, ruleset.rules.len())?;
            pins::create(folder)?;
            let path = folder.join(BEFORE);
            counters::create_carried(&path, u32::try_from(totals.len()).unwrap_or(u32::MAX))?;
            counters::write_carried(&path, &totals)
        };
        let old = self.folder();
        keep(&old.join(CARRIED), &self.record.ruleset, folder)?;
        let carried = old.join(EGRESS).join(CARRIED);
        if pins::is_there(&carried)? {
            let egress = self.egress.as_ref();
            let ruleset = egress.map_or_else(unfiltered, |record| Arc::clone(&record.ruleset));
            keep(&carried, &ruleset, &folder.join(EGRESS))?;
        }
        Ok(())
    }

    /// Puts the generation's own program in the place of the trial's.
    fn end_trial(&mut self) -> Result<(), Error> {
        if self.attached == self.program {
            return Ok(());
        }
        let failed = |error| Error::io("cannot finish a trial that is over", &error);
        let program = sys::get(&self.folder().join(PROGRAM)).map_err(failed)?;
        sys::link_update(self.link.as_fd(), program.as_fd()).map_err(failed)?;
        self.attached = self.program;
        self.trial = None;
        Ok(())
    }

    /// Takes over what the predecessor counted, where that was not done yet.
    pub(super) fn settle_totals(&self) -> Result<(), Error> {
        self.ingress().settle()?;
        self.egress_side()?.map_or(Ok(()), |egress| egress.settle())
    }
}

/// The generation that was to follow the one with this program and is not in force, where
/// it is there: its record says so, which is pinned last.
pub(super) fn given_up(
    slot: &Slot,
    program: u32,
    trial: Option<&Trial>,
) -> Result<Option<u32>, Error> {
    if let Some(trial) = trial {
        let (tried, _) = trial.programs();
        return Ok((tried != program).then_some(tried));
    }
    for other in slot.generations()? {
        let record = slot.generation(other).join(RECORD);
        if other != program
            && pins::is_there(&record)?
            && Head::read(&record)?.predecessor == Some(program)
        {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// A generation that is in force for good needs no more what the one before had carried.
pub(super) fn forget_before(folder: &Path) -> Result<(), Error> {
    pins::remove_file(&folder.join(BEFORE))?;
    pins::remove_file(&folder.join(EGRESS).join(BEFORE))
}

/// Keeps what the generation in one folder was beside that of its successor, for who wants
/// it back.
pub(super) fn keep_previous(old: &Path, new: &Path) -> Result<(), Error> {
    for side in [Path::new(""), Path::new(EGRESS)] {
        let from = old.join(side).join(RECORD);
        let path = new.join(side).join(PREVIOUS);
        if !pins::is_there(&from)? || pins::is_there(&path)? {
            continue;
        }
        path.parent().map_or(Ok(()), pins::create)?;
        sys::get(&from)
            .and_then(|record| sys::pin(record.as_fd(), &path))
            .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))?;
    }
    Ok(())
}

/// A filter whose place another one takes, as far as that concerns the links.
pub(super) struct Replaced<'a> {
    pub(super) slot: &'a Slot,
    pub(super) link: BorrowedFd<'a>,
    /// The id of its program.
    pub(super) program: u32,
    /// The id of the program of what goes out, where that is filtered.
    pub(super) egress: Option<u32>,
}

/// A filter that is in force, and whose record nobody here can read. What it enforces is
/// not known, but it is known to filter.
pub(super) struct Unread {
    slot: Slot,
    link: OwnedFd,
    program: u32,
    egress: Option<u32>,
}

impl Unread {
    /// The one on `interface`, which is told by its program: what the record says of the
    /// network namespace is not to be had.
    pub(super) fn on(root: &Path, interface: &Interface) -> Result<Option<Self>, Error> {
        let Some(attached) = interface.xdp else {
            return Ok(None);
        };
        for slot in Slot::all(root)? {
            if let Some((link, info)) = slot.link()?
                && info.ifindex == interface.index
                && info.program == attached.program
            {
                let egress = egress::program(&slot, interface.index)?;
                return Ok(Some(Self {
                    slot,
                    link,
                    program: info.program,
                    egress,
                }));
            }
        }
        Ok(None)
    }

    pub(super) const fn program(&self) -> u32 {
        self.program
    }

    pub(super) fn replaced(&self) -> Replaced<'_> {
        Replaced {
            slot: &self.slot,
            link: self.link.as_fd(),
            program: self.program,
            egress: self.egress,
        }
    }
}

/// The records of a generation that is being made.
pub(super) struct Records {
    pub(super) ingress: NewRecord,
    pub(super) egress: Option<NewRecord>,
}

impl Records {
    pub(super) fn of(policies: Policies<'_>, namespace: u64, ifindex: u32) -> Result<Self, Error> {
        let of = |side: Compiled<'_>, described: &Described| {
            NewRecord::of(side.ruleset, described, namespace, ifindex)
        };
        // What it was made of is said once.
        let nothing = Described::default();
        Ok(Self {
            ingress: of(policies.ingress, policies.described)?,
            egress: policies
                .egress
                .map(|egress| of(egress, &nothing))
                .transpose()?,
        })
    }

    /// Adds what is known once the programs are loaded.
    pub(super) fn complete(
        &mut self,
        pair: &Pair,
        policies: Policies<'_>,
        settings: Settings,
        before: Option<&InForce>,
    ) -> Result<(), Error> {
        let head = &mut self.ingress.head;
        head.settings = Some(settings);
        head.memory = pair.memory();
        head.flow_seed = pair.flows.as_ref().map(flows::Tables::seed);
        head.program = Some(pair.ingress.program_size()?);
        head.combination = Some(policies.ingress.image.combination());
        if let Some(before) = before {
            head.generation = before.record.head.generation + 1;
            head.predecessor = Some(before.program);
        }
        let of_egress = (&mut self.egress, &pair.egress, policies.egress);
        if let (Some(record), Some(loaded), Some(compiled)) = of_egress {
            head.egress = Some(loaded.program_id()?);
            record.head.program = Some(loaded.program_size()?);
            record.head.combination = Some(compiled.image.combination());
            record.head.generation = head.generation;
        }
        Ok(())
    }
}
