//! The ways back from a change: keeping or giving up what is on trial, and what was in force
//! before the last one.

use std::sync::Arc;

use super::error::Error;
use super::in_force::Decides;
use super::interface::{self, Interface};
use super::pins::{self, Slot};
use super::record::{Described, Settings};
use super::trial::{Trial, TrialState};
use super::{Datapath, egress, not_attached};
use crate::ruleset::Ruleset;

/// What became of policies that were to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// They are.
    Kept,
    /// Their time was over.
    TooLate,
    /// Nothing was on trial.
    NothingOnTrial,
}

/// What became of policies that were to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// They are.
    Now,
    /// Their time was over before.
    AlreadyOver,
    /// Nothing was on trial.
    NothingOnTrial,
}

/// What was in force before the last change.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Its generation.
    pub generation: u64,
    /// What came in.
    pub ingress: Arc<Ruleset>,
    /// What went out, where that was filtered.
    pub egress: Option<Arc<Ruleset>>,
    /// What it was made of.
    pub described: Described,
    pub(super) settings: Option<Settings>,
}

impl Datapath {
    /// Keeps what is on trial on an interface.
    pub fn confirm(&self, interface: &str) -> Result<Confirmed, Error> {
        let _lock = pins::lock(&self.root, true)?;
        let interface = interface::by_name(interface)?;
        let over = self.clear_first_trial(&interface)?;
        let in_force = self.find(&interface, interface::namespace()?)?;
        let Some(mut in_force) = in_force else {
            return if over {
                Ok(Confirmed::TooLate)
            } else {
                Err(not_attached(&interface.name))
            };
        };
        let Some(trial) = &mut in_force.trial else {
            return Ok(Confirmed::NothingOnTrial);
        };
        let confirmed = match trial.state() {
            TrialState::Runs(_) => {
                trial.keep()?;
                Confirmed::Kept
            }
            TrialState::Kept => Confirmed::Kept,
            TrialState::Over => Confirmed::TooLate,
        };
        in_force.settle().map_err(Error::once_in_force)?;
        Ok(confirmed)
    }

    /// Ends a trial on an interface now: what was in force before is again.
    pub fn give_up(&self, interface: &str) -> Result<GivenUp, Error> {
        let _lock = pins::lock(&self.root, true)?;
        let interface = interface::by_name(interface)?;
        if self.clear_first_trial(&interface)? {
            return Ok(GivenUp::AlreadyOver);
        }
        let in_force = self.find(&interface, interface::namespace()?)?;
        let mut in_force = in_force.ok_or_else(|| not_attached(&interface.name))?;
        let Some(trial) = &mut in_force.trial else {
            return Ok(GivenUp::NothingOnTrial);
        };
        match trial.state() {
            TrialState::Runs(_) => {}
            TrialState::Kept => {
                in_force.settle()?;
                return Ok(GivenUp::NothingOnTrial);
            }
            TrialState::Over => {
                in_force.settle()?;
                return Ok(GivenUp::AlreadyOver);
            }
        }
        trial.give_up()?;
        let finish = || {
            if !self.clear_first_trial(&interface)?
                && let Some(mut again) = self.find(&interface, interface::namespace()?)?
            {
                again.settle()?;
            }
            Ok(GivenUp::Now)
        };
        finish().map_err(Error::once_in_force)
    }

    /// The interfaces with a trial that runs, or is over and not finished, by name.
    pub fn on_trial_now(&self) -> Result<Vec<String>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        let interfaces = interface::all()?;
        let mut names = Vec::new();
        for slot in Slot::all(&self.root)? {
            let Some((_, link)) = slot.link()? else {
                continue;
            };
            let here = interfaces.iter().find(|here| here.index == link.ifindex);
            if let Some(here) = here
                && Trial::of(&slot, link.program)?.is_some()
            {
                names.push(here.name.clone());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Finishes what trials that are over have left in the links.
    pub fn finish_trials(&self) -> Result<(), Error> {
        for name in self.on_trial_now()? {
            let _lock = pins::lock(&self.root, true)?;
            let interface = interface::by_name(&name)?;
            if !self.clear_first_trial(&interface)?
                && let Some(mut in_force) = self.find(&interface, interface::namespace()?)?
            {
                in_force.settle()?;
            }
        }
        Ok(())
    }

    /// What was in force on an interface before the last change, where it is known.
    pub fn previous(&self, interface: &str) -> Result<Option<Previous>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        let present = interface::by_name(interface)?;
        let in_force = self.find(&present, interface::namespace()?)?;
        let in_force = in_force.ok_or_else(|| not_attached(interface))?;
        in_force.previous()
    }

    /// Takes away what is left of a first trial that is over: before it nothing was in
    /// force. Whether there was one.
    pub(super) fn clear_first_trial(&self, interface: &Interface) -> Result<bool, Error> {
        for slot in Slot::all(&self.root)? {
            if let Some((_, link)) = slot.link()?
                && link.ifindex == interface.index
                && Decides::of(&slot, link.program)?.program.is_none()
            {
                egress::remove(&slot, interface.index)?;
                slot.remove()?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
