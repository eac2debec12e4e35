//! What is in force on an interface: one generation, both directions of it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::generation::{Compiled, Pair};
use super::interface::Interface;
use super::pins::Slot;
use super::record::{NewRecord, Record, Settings};
use super::{Count, Described, Policies, Stats, counters, egress, flows};
use crate::ruleset::{Action, Direction, Options, Ruleset};

/// One interface's generation in force.
pub(super) struct InForce {
    pub(super) slot: Slot,
    pub(super) link: OwnedFd,
    /// As the kernel says it: 0 where the device is gone.
    pub(super) ifindex: u32,
    pub(super) program: u32,
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

/// One direction of a generation that is, or was, in force.
pub(super) struct Side {
    folder: PathBuf,
    ruleset: Arc<Ruleset>,
    /// Whether its packets are filtered; else there are only those of before.
    filters: bool,
    /// The folder of the same direction in the generation before.
    predecessor: Option<PathBuf>,
}

impl Side {
    /// The side that is pinned in `folder`; `None` where there is none.
    fn at(folder: PathBuf) -> Result<Option<Self>, Error> {
        if !folder.exists() {
            return Ok(None);
        }
        let record = folder.join(RECORD);
        let ruleset = if record.exists() {
            Some(Record::read(&record)?.ruleset)
        } else {
            None
        };
        Ok(Some(Self {
            folder,
            filters: ruleset.is_some(),
            ruleset: ruleset.unwrap_or_else(unfiltered),
            predecessor: None,
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

    /// What is to be carried over from a predecessor that is still there.
    fn left_behind(&self) -> Result<Option<Vec<Count>>, Error> {
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
        if let Some(carried) = self.left_behind()? {
            counters::write_carried(&self.folder.join(CARRIED), &carried)?;
        }
        Ok(())
    }

    pub(super) fn stats(&self, interface: &str) -> Result<Stats, Error> {
        let totals = self.totals()?;
        Ok(counters::stats(interface, &self.ruleset, &totals))
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
        let folder = slot.generation(info.program);
        let record = Record::read(&folder.join(RECORD))?;
        let egress = match record.head.egress {
            Some(_) => Some(Record::read(&folder.join(EGRESS).join(RECORD))?),
            None => None,
        };
        Ok(Some(Self {
            slot,
            link,
            ifindex: info.ifindex,
            program: info.program,
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
        }
    }

    /// What goes out, where it is filtered, or was.
    pub(super) fn egress_side(&self) -> Option<Side> {
        let folder = self.folder().join(EGRESS);
        let record = self.egress.as_ref();
        (record.is_some() || folder.exists()).then(|| Side {
            folder,
            ruleset: record.map_or_else(unfiltered, |record| Arc::clone(&record.ruleset)),
            filters: record.is_some(),
            predecessor: self.predecessor().map(|folder| folder.join(EGRESS)),
        })
    }

    /// Finishes a change that was cut short: what goes out follows what comes in,
    /// the predecessor's totals are carried over, and every generation that is not
    /// in force is removed. Needs the exclusive lock.
    pub(super) fn settle(&self) -> Result<(), Error> {
        egress::settle(
            &self.slot,
            self.ifindex,
            &self.folder(),
            self.record.head.egress,
        )?;
        self.settle_totals()?;
        self.slot.remove_generations_except(self.program)
    }

    /// Takes over what the predecessor counted, where that was not done yet.
    pub(super) fn settle_totals(&self) -> Result<(), Error> {
        self.ingress().settle()?;
        self.egress_side().map_or(Ok(()), |egress| egress.settle())
    }
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
