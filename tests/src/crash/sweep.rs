//! One verb, cut short at one place after the other.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::calls::{self, Kind};
use super::stage::{InForce, Observed, Policy, Stage, succeed};
use super::trace::{Call, End, Fault, Injection, Traced, trace};

/// What is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `apply` where nothing is in force.
    First,
    /// `apply` of another policy.
    Over,
    /// `apply` of the same policy.
    Again,
    /// `apply --confirm` of another policy.
    Try,
    /// `confirm` of that.
    Confirm,
    /// `rollback` of that.
    GiveUp,
    /// `rollback` where nothing is on trial.
    Undo,
    /// `detach`.
    Detach,
    /// `run` where nothing is in force, until it is ready.
    Start,
    /// `run` with another policy, until it is ready.
    StartOver,
}

impl Verb {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::First,
        Self::Over,
        Self::Again,
        Self::Try,
        Self::Confirm,
        Self::GiveUp,
        Self::Undo,
        Self::Detach,
        Self::Start,
        Self::StartOver,
    ];

    /// What a person calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "apply-first",
            Self::Over => "apply-over",
            Self::Again => "apply-again",
            Self::Try => "apply-confirm",
            Self::Confirm => "confirm",
            Self::GiveUp => "rollback-trial",
            Self::Undo => "rollback",
            Self::Detach => "detach",
            Self::Start => "run-first",
            Self::StartOver => "run-over",
        }
    }

    /// What must be in force before it, and what after it.
    const fn change(self, now: Option<Policy>) -> (Option<Policy>, Option<Policy>) {
        let old = match now {
            Some(policy) => policy,
            None => Policy::A,
        };
        match self {
            Self::First | Self::Start => (None, Some(old)),
            Self::Over | Self::StartOver | Self::Try | Self::Undo => (Some(old), Some(old.other())),
            Self::Again => (Some(old), Some(old)),
            // The other one is on trial when it begins.
            Self::Confirm => (Some(old.other()), Some(old.other())),
            Self::GiveUp => (Some(old.other()), Some(old)),
            Self::Detach => (Some(old), None),
        }
    }

    /// The command that brings this in force, and where a daemon says that it is ready.
    fn command(
        self,
        stage: &Stage,
        new: Option<Policy>,
    ) -> Result<(Command, Option<UnixDatagram>)> {
        Ok(match (self, new) {
            (Self::Start | Self::StartOver, Some(new)) => (stage.run(new)?, Some(stage.hear()?)),
            (Self::Try, Some(new)) => (stage.try_out(new), None),
            (Self::Confirm, _) => (stage.nodewall(&["confirm"]), None),
            (Self::GiveUp | Self::Undo, _) => (stage.nodewall(&["rollback"]), None),
            (_, Some(new)) => (stage.apply(new), None),
            (_, None) => (stage.detach_all(), None),
        })
    }

    /// The command that must finish what this one left: the same, but where there is
    /// nothing any more that it could be about.
    fn next(self, stage: &Stage, new: Option<Policy>) -> Result<(Command, Option<UnixDatagram>)> {
        match (self, new) {
            // What is on trial still comes first.
            (Self::Confirm | Self::GiveUp, Some(new)) => {
                stage.end_trial()?;
                Ok((stage.apply(new), None))
            }
            (Self::Undo, Some(new)) => {
                stage.end_trial()?;
                // The next turn goes back to this one.
                succeed(&mut stage.apply(new.other()), None)?;
                Ok((stage.apply(new), None))
            }
            (Self::Try, _) => {
                stage.end_trial()?;
                self.command(stage, new)
            }
            _ => self.command(stage, new),
        }
    }
}

/// What was in force after a verb was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// What was before, in both directions.
    Old,
    /// What goes out is decided by the new one already, or by none any more, and what comes in
    /// by the old one: the last step was not done. Each direction has a whole policy.
    Between,
    /// What was to be, in both directions.
    New,
}

/// What one verb does where nothing happens to it.
#[derive(Debug)]
pub struct Rehearsal {
    /// Its calls.
    pub calls: Vec<Call>,
    pins: BTreeSet<String>,
    kept: BTreeSet<String>,
}

/// Lets the verb come to its end twice, for threads wait for each other once more or once less.
pub fn rehearse(stage: &mut Stage, verb: Verb) -> Result<Rehearsal> {
    let mut calls: Vec<Call> = Vec::new();
    let mut known = HashSet::new();
    let mut last = None;
    for _ in 0..2 {
        let (old, new) = prepare(stage, verb)?;
        let traced = traced(stage, verb, new, None)?;
        ensure!(
            matches!(traced.end, End::Exited(0) | End::Ready),
            "{} ended with {:?}: {}",
            verb.name(),
            traced.end,
            traced.stderr
        );
        calls.extend(
            traced
                .calls
                .into_iter()
                .filter(|call| known.insert(call.place.clone())),
        );
        if old.is_none() || new.is_none() {
            stage.forget_totals();
        }
        let observed = stage.observe()?;
        ensure!(
            observed.in_force == InForce::both(new),
            "{}: {observed:?}",
            verb.name()
        );
        last = Some(observed);
    }
    let Some(Observed { pins, .. }) = last else {
        bail!("there was no rehearsal");
    };
    Ok(Rehearsal {
        calls,
        pins,
        kept: stage.kept()?,
    })
}

/// Brings in force what must be before a verb; says what is then, and what is to be.
fn prepare(stage: &mut Stage, verb: Verb) -> Result<(Option<Policy>, Option<Policy>)> {
    let now = stage.in_force();
    let (old, new) = verb.change(now);
    if matches!(verb, Verb::Try | Verb::Confirm | Verb::GiveUp | Verb::Undo) {
        stage.end_trial()?;
        let last = now.is_none();
        if last {
            // So that each has one before it to go back to.
            for policy in [Policy::B, Policy::A] {
                succeed(&mut stage.apply(policy), None)?;
            }
            stage.forget_totals();
        }
        if matches!(verb, Verb::Confirm | Verb::GiveUp) {
            let tried = old.unwrap_or(Policy::B);
            succeed(&mut stage.try_out(tried), None)?;
        }
    } else if now != old {
        let mut command = match old {
            Some(policy) => stage.apply(policy),
            None => stage.detach_all(),
        };
        succeed(&mut command, None)?;
        stage.forget_totals();
    }
    stage.now(old);
    Ok((old, new))
}

fn traced(
    stage: &mut Stage,
    verb: Verb,
    new: Option<Policy>,
    injection: Option<&Injection>,
) -> Result<Traced> {
    let (command, ready) = verb.command(stage, new)?;
    let files = stage.node().files();
    let traced = trace(
        &command,
        &Stage::program()?,
        injection,
        ready.as_ref(),
        files,
    )?;
    stage.now(new);
    Ok(traced)
}

/// Cuts a verb short at one place. `None` where it did not come there this time. `meddle` is
/// called after that: it must be noticed whatever it does.
///
/// Where all that is pinned and attached is as it was before the verb, or as it is after it,
/// the next command does what it did in the rehearsal, and is given only `always`.
pub fn turn(
    stage: &mut Stage,
    verb: Verb,
    rehearsal: &Rehearsal,
    injection: &Injection,
    always: bool,
    meddle: &dyn Fn(&Stage),
) -> Result<Option<Outcome>> {
    let (old, new) = prepare(stage, verb)?;
    let before = stage.world()?;
    let traced = traced(stage, verb, new, Some(injection))?;
    meddle(stage);
    let cut = stage.observe()?;
    let outcome = if cut.in_force == InForce::both(old) && old != new {
        Outcome::Old
    } else if cut.in_force == InForce::both(new) {
        Outcome::New
    } else if cut.in_force.ingress == old && cut.in_force.egress == new {
        Outcome::Between
    } else {
        bail!(
            "in force is {:?}: neither {old:?} nor {new:?}",
            cut.in_force
        );
    };
    if let Some(hit) = &traced.hit {
        end_is_told(verb, injection.fault, hit, &traced, outcome, old == new)?;
    }

    let changed = match outcome {
        Outcome::Old => cut.world != before,
        Outcome::Between => true,
        Outcome::New => cut.pins != rehearsal.pins || stage.kept()? != rehearsal.kept,
    };
    if !changed && !always {
        stage.now(if outcome == Outcome::Old { old } else { new });
        stage.all_gone(&traced.made)?;
        return Ok(traced.hit.map(|_| outcome));
    }

    // Once more, and it is as if nothing had happened.
    if cut.in_force.ingress.is_none() {
        stage.forget_totals();
    }
    let (mut command, ready) = verb.next(stage, new)?;
    succeed(&mut command, ready.as_ref())?;
    if new.is_none() {
        stage.forget_totals();
    }
    let observed = stage.observe()?;
    ensure!(
        observed.in_force == InForce::both(new),
        "the next command left {:?} in force",
        observed.in_force
    );
    let mut pins = rehearsal.pins.clone();
    // It was not the first any more, and one can go back to what was there. A daemon leaves it
    // there where it is the same; what it fell back to, the last good one, is another.
    let is_second = match verb {
        Verb::First => true,
        Verb::Start => observed.pins != pins,
        _ => false,
    };
    if is_second && cut.in_force.ingress.is_some() {
        pins.extend(["N/previous/", "N/egress/previous/"].map(str::to_owned));
    }
    let but = |some: &BTreeSet<String>, others| -> Vec<String> {
        some.difference(others).cloned().collect()
    };
    ensure!(
        observed.pins == pins,
        "after the next command, too many pins: {:?}, too few: {:?}",
        but(&observed.pins, &pins),
        but(&pins, &observed.pins)
    );
    let kept = stage.kept()?;
    ensure!(
        kept == rehearsal.kept,
        "the daemon keeps {kept:?} and not {:?}",
        rehearsal.kept
    );
    if new.is_none() {
        ensure!(
            !stage.node().pins().exists(),
            "the pin folder is left after detach"
        );
    }
    stage.all_gone(&traced.made)?;
    Ok(traced.hit.map(|_| outcome))
}

/// A process that was not killed says what became of its verb.
fn end_is_told(
    verb: Verb,
    fault: Fault,
    hit: &Call,
    traced: &Traced,
    outcome: Outcome,
    nothing_new: bool,
) -> Result<()> {
    let said = traced.stderr.trim_end();
    let is_daemon = matches!(verb, Verb::Start | Verb::StartOver);
    match (traced.end, fault) {
        (End::Hung, _) => bail!("it hung, and said: {said}"),
        (End::Killed(_), Fault::Kill) => Ok(()),
        // It goes on without what was refused, and says so; or was ready as it was killed.
        (End::Ready, _) if is_daemon => Ok(()),
        (End::Exited(0), Fault::Error(_)) => {
            ensure!(
                outcome == Outcome::New,
                "it says that all is done, and {outcome:?} is in force"
            );
            Ok(())
        }
        // Without memory and threads for itself there may be no way but this.
        (End::Killed(_) | End::Exited(101), Fault::Error(_))
            if calls::kind(hit) == Kind::Process =>
        {
            Ok(())
        }
        (End::Exited(101), _) => bail!("it panicked: {said}"),
        (End::Exited(_), Fault::Error(_)) => {
            // Where stderr itself fails, nobody can be told. Before the program begins it is
            // the C library that says so.
            let begins = said.starts_with("cannot allocate TLS");
            ensure!(
                said.contains("error") || begins || calls::name(hit) == "write",
                "it failed without a word: {said:?}"
            );
            ensure!(
                outcome != Outcome::New
                    || nothing_new
                    || said.contains("in force")
                    || is_daemon
                    || verb == Verb::Detach,
                "it failed, and the new policy is in force, but it said: {said}"
            );
            ensure!(
                outcome != Outcome::Between || verb == Verb::Detach,
                "it failed between both directions, and undid nothing: {said}"
            );
            Ok(())
        }
        (end, _) => bail!("it ended with {end:?}: {said}"),
    }
}

/// Which calls something happens to.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// A kill at each, and each error that makes sense there.
    All,
    /// A kill at each that changes the kernel's state or a name ([`calls::changes`]), and of
    /// all else, errors too, one in so many.
    Sample(usize),
}

impl Choice {
    /// What happens; in a sample what matters most first.
    #[must_use]
    pub fn of(self, calls: &[Call]) -> Vec<Injection> {
        let injection = |call: &Call, fault| Injection {
            call: call.clone(),
            fault,
        };
        let (first, then): (Vec<&Call>, Vec<&Call>) =
            calls.iter().partition(|call| calls::changes(call));
        let kill = |call: &&Call| injection(call, Fault::Kill);
        let errors = |call: &&Call| {
            let call = (*call).clone();
            calls::errors(&call).iter().map(move |errno| Injection {
                call: call.clone(),
                fault: Fault::Error(*errno),
            })
        };
        let must: Vec<Injection> = first.iter().map(kill).collect();
        let rest = first
            .iter()
            .flat_map(errors)
            .chain(then.iter().map(kill))
            .chain(then.iter().flat_map(errors));
        match self {
            // What a sample meets least comes first.
            Self::All => {
                let mut all: Vec<Injection> = must.into_iter().chain(rest).collect();
                all.reverse();
                all
            }
            Self::Sample(every) => must.into_iter().chain(rest.step_by(every)).collect(),
        }
    }
}

/// What came of a verb.
#[derive(Debug, Default)]
pub struct Summary {
    /// Faults that happened, by their kind.
    pub injected: BTreeMap<String, usize>,
    /// Places that it did not come to.
    pub missed: usize,
    /// What was in force then.
    pub outcomes: BTreeMap<Outcome, usize>,
    /// What was not as it must be.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injected: usize = self.injected.values().sum();
        write!(f, "{injected} injections in {:.0?} (", self.took)?;
        for (number, (fault, count)) in self.injected.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{fault} {count}")?;
        }
        write!(f, "; not reached {})", self.missed)?;
        for (outcome, count) in &self.outcomes {
            let name = format!("{outcome:?}").to_lowercase();
            write!(f, ", {name} {count}")?;
        }
        write!(f, ", failures {}", self.failures.len())
    }
}

/// Of the turns that changed nothing, how few are followed by the next command all the same.
const ALWAYS: usize = 20;
/// More is the same again.
const MOST_FAILURES: usize = 40;

/// Cuts a verb short at many places, on so many stages at a time; `tell` hears of what goes
/// on.
pub fn sweep(
    verb: Verb,
    choice: Choice,
    jobs: usize,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Summary> {
    let began = Instant::now();
    let rehearsal = rehearse(&mut Stage::new()?, verb)?;
    let injections = choice.of(&rehearsal.calls);
    tell(&format!(
        "{}: {} system calls, {} injections",
        verb.name(),
        rehearsal.calls.len(),
        injections.len()
    ));
    let next = AtomicUsize::new(0);
    let summary = Mutex::new(Summary::default());
    let work = || -> Result<()> {
        let mut stage = Stage::new()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(injection) = injections.get(number) else {
                return Ok(());
            };
            let always = number.is_multiple_of(ALWAYS);
            let outcome = turn(&mut stage, verb, &rehearsal, injection, always, &|_| {});
            let mut summary = summary
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if matches!(outcome, Ok(None)) {
                summary.missed += 1;
            } else {
                let fault = injection.fault.to_string();
                *summary.injected.entry(fault).or_default() += 1;
            }
            match outcome {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    *summary.outcomes.entry(outcome).or_default() += 1;
                }
                Err(error) => {
                    let failure = format!(
                        "{}: {} at {}: {error:#}",
                        verb.name(),
                        injection.fault,
                        injection.call
                    );
                    tell(&failure);
                    summary.failures.push(failure);
                    if summary.failures.len() >= MOST_FAILURES {
                        return Ok(());
                    }
                    // Whatever state that one is in.
                    stage = Stage::new()?;
                }
            }
            if number.is_multiple_of(100) && number > 0 {
                tell(&format!(
                    "{}: {number} of {} after {:.0?}",
                    verb.name(),
                    injections.len(),
                    began.elapsed()
                ));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let mut summary = summary
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.took = began.elapsed();
    Ok(summary)
}
