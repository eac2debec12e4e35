//! Reads what is in force and what it has counted, again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::in_force::{self, Decides, EGRESS, InForce};
use super::interface::{self, Interface};
use super::pins::{self, Slot};
use super::record::Record;
use super::trial::Trial;
use super::{Described, EgressStatus, Status, egress, events};

/// Reads the pinned state. What says what a generation is may be long, and is read
/// once for each; counters are read each time, in one call for all of a direction.
pub struct Meter {
    root: PathBuf,
    /// What was in force in each slot when it was last looked at.
    known: BTreeMap<String, Known>,
}

/// What a generation is. Nothing that is held open: what filters is what is pinned, and a
/// link would go on filtering after `detach` for as long as somebody looks on.
struct Known {
    attached: u32,
    program: u32,
    record: Record,
    egress: Option<Record>,
}

impl Meter {
    /// Reads what is pinned below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: BTreeMap::new(),
        }
    }

    /// What is in force, per interface, by name. Empty where nothing is.
    pub fn read(&mut self) -> Result<Vec<Status>, Error> {
        self.read_with(|_| Ok(Described::default()))
    }

    /// The same, with what it was made of.
    pub fn read_described(&mut self) -> Result<Vec<Status>, Error> {
        self.read_with(InForce::described)
    }

    fn read_with(
        &mut self,
        described: impl Fn(&InForce) -> Result<Described, Error>,
    ) -> Result<Vec<Status>, Error> {
        let _lock = pins::lock(&self.root, false)?;
        let slots = Slot::all(&self.root)?;
        if slots.is_empty() {
            self.known.clear();
            return Ok(Vec::new());
        }
        let namespace = interface::namespace()?;
        let interfaces = interface::all()?;
        let mut all = Vec::new();
        let mut known = std::mem::take(&mut self.known);
        for slot in slots {
            let name = slot.name.clone();
            let Some(in_force) = look(slot, known.remove(&name))? else {
                continue;
            };
            let interface = interfaces.iter().find(|interface| {
                in_force.record.head.namespace == namespace && interface.index == in_force.ifindex
            });
            let described = described(&in_force)?;
            all.push(status(&in_force, interface, described)?);
            let known = Known {
                attached: in_force.attached,
                program: in_force.program,
                record: in_force.record,
                egress: in_force.egress,
            };
            self.known.insert(name, known);
        }
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(all)
    }
}

/// What is in force in a slot: the same as before, if the link says so.
fn look(slot: Slot, known: Option<Known>) -> Result<Option<InForce>, Error> {
    if let Some(known) = known
        && let Some((link, info)) = slot.link()?
        && info.program == known.attached
    {
        let Decides { program, trial } = Decides::of(&slot, info.program)?;
        if program != Some(known.program) {
            return InForce::of(slot);
        }
        let given_up = in_force::given_up(&slot, known.program, trial.as_ref())?;
        return Ok(Some(InForce {
            slot,
            link,
            ifindex: info.ifindex,
            attached: known.attached,
            program: known.program,
            trial,
            given_up,
            record: known.record,
            egress: known.egress,
        }));
    }
    InForce::of(slot)
}

fn status(
    in_force: &InForce,
    interface: Option<&Interface>,
    described: Described,
) -> Result<Status, Error> {
    let name = interface.map_or(&in_force.slot.name, |interface| &interface.name);
    let head = &in_force.record.head;
    let folder = in_force.folder();
    let flows = in_force.flows()?;
    let of_egress = in_force.egress_side()?;
    let of_egress = of_egress.map(|side| side.stats(name)).transpose()?;
    let (egress, egress_before) = match (&in_force.egress, of_egress) {
        (Some(record), Some(stats)) => {
            let egress = EgressStatus {
                hook: egress::hook(&in_force.slot, in_force.ifindex)?,
                program_id: head.egress.unwrap_or_default(),
                ruleset: Arc::clone(&record.ruleset),
                program_size: record.head.program,
                combination: record.head.combination,
                stats,
            };
            (Some(egress), None)
        }
        (_, before) => (None, before),
    };
    Ok(Status {
        interface: name.clone(),
        mode: interface.and_then(|interface| interface.xdp?.mode),
        generation: head.generation,
        program_id: in_force.program,
        since: head.since(),
        memory: head.memory,
        program_size: head.program,
        combination: head.combination,
        events_lost: events::lost(&folder)? + events::lost(&folder.join(EGRESS))?,
        stats: in_force.ingress().stats(name)?,
        egress,
        egress_before,
        trial: in_force.trial.as_ref().map(Trial::state),
        flows: flows.map(|flows| flows.totals()).transpose()?,
        described,
        ruleset: Arc::clone(&in_force.record.ruleset),
    })
}
