//! `nodewall confirm` and `nodewall rollback`: keep, or undo, the last apply.

use std::io::{Write as _, stdout};

use clap::Args;

use super::args::Global;
use super::error::Failure;
use super::output::{note, say, warning};
use crate::compile::Image;
use crate::daemon::state;
use crate::datapath::{Compiled, Confirmed, GivenUp, Mode, Policies, Previous};

/// Keep what `apply --confirm` put in force
///
/// Exit code 1 where nothing is on trial, or its time was over: then the policies
/// from before are in force again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall apply -f policy.yaml --interface eth0 --confirm 30s
  nodewall confirm")]
pub(super) struct Confirm {
    #[command(flatten)]
    on: Interfaces,
}

/// Undo the last apply
///
/// What is on trial is given up, at once: the policies from before were never away.
/// Where nothing is, what was in force before the last `apply` is put in force again,
/// as a change of its own, so that another rollback undoes that one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall rollback
  nodewall rollback --interface eth0")]
pub(super) struct Rollback {
    #[command(flatten)]
    on: Interfaces,
}

#[derive(Args, Debug)]
struct Interfaces {
    /// Interface; may be repeated. Otherwise all with a trial; of `rollback`, where there
    /// is none, the one that is filtered
    #[arg(long, value_name = "IF", value_delimiter = ',')]
    interface: Vec<String>,
}

impl Confirm {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        let interfaces = self.on.named_or(|| datapath.on_trial_now())?;
        if interfaces.is_empty() {
            return Err(Failure::failed(
                "nothing is on trial, so there is nothing to confirm. `nodewall status` shows what is \
                 in force.",
            ));
        }
        each(&interfaces, global, |interface| {
            match datapath.confirm(interface)? {
                Confirmed::Kept => {
                    say(format_args!("{interface}: kept"));
                    Ok(())
                }
                Confirmed::TooLate => Err(Failure::failed(format_args!(
                    "{interface}: too late: the time was over, and what was in force before is again. \
                     Apply once more, with a longer time."
                ))),
                Confirmed::NothingOnTrial => Err(Failure::failed(format_args!(
                    "{interface}: nothing is on trial there, so there is nothing to confirm"
                ))),
            }
        })
    }
}

impl Rollback {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        let mut interfaces = self.on.named_or(|| datapath.on_trial_now())?;
        if interfaces.is_empty() {
            interfaces = datapath.interfaces()?;
            if let [_, _, ..] = &*interfaces {
                return Err(Failure::Usage(format!(
                    "nothing is on trial, and several interfaces are filtered; say which is meant \
                     with --interface: {}",
                    interfaces.join(", ")
                )));
            }
        }
        if interfaces.is_empty() {
            return Err(Failure::NotAttached(
                "nothing is attached, so there is nothing to undo".to_owned(),
            ));
        }
        if state::read(&global.run_dir, &global.pin_root).is_some() {
            warning(
                global.color,
                "a daemon keeps the policies of its files in force: change those too, or they come \
                 back with its next reading",
            );
        }
        each(&interfaces, global, |interface| {
            match datapath.give_up(interface)? {
                GivenUp::Now => {
                    say(format_args!(
                        "{interface}: given up; what was in force before is again"
                    ));
                    Ok(())
                }
                GivenUp::AlreadyOver => {
                    say(format_args!(
                        "{interface}: the time was over already; what was in force before is again"
                    ));
                    Ok(())
                }
                GivenUp::NothingOnTrial => undo(interface, global),
            }
        })
    }
}

impl Interfaces {
    fn named_or(
        &self,
        all: impl FnOnce() -> Result<Vec<String>, crate::datapath::Error>,
    ) -> Result<Vec<String>, Failure> {
        if self.interface.is_empty() {
            Ok(all()?)
        } else {
            Ok(self.interface.clone())
        }
    }
}

/// Does it on each interface: one that fails is no reason to leave out the others.
fn each(
    interfaces: &[String],
    global: &Global,
    what: impl Fn(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for interface in interfaces {
        if let Err(this) = what(interface)
            && let Some(earlier) = failed.replace(this)
        {
            let _ = earlier.report(global.color);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Puts in force again what was before the last change.
fn undo(interface: &str, global: &Global) -> Result<(), Failure> {
    let datapath = global.datapath()?;
    let Some(previous) = datapath.previous(interface)? else {
        return Err(Failure::failed(format_args!(
            "{interface}: this is the first that was put in force there, so there is nothing before \
             it to go back to. `nodewall detach --interface {interface}` takes the filter off."
        )));
    };
    let Previous {
        generation,
        ingress,
        egress,
        described,
        ..
    } = &previous;
    // They had room before.
    let compile = |ruleset| Image::compile(ruleset, u64::MAX).map_err(Failure::failed);
    let image = compile(ingress)?;
    let egress_image = egress.as_deref().map(compile).transpose()?;
    let policies = Policies {
        ingress: Compiled {
            ruleset: ingress,
            image: &image,
        },
        egress: egress
            .as_deref()
            .zip(egress_image.as_ref())
            .map(|(ruleset, image)| Compiled { ruleset, image }),
        described,
    };
    let applied = datapath
        .as_before(&previous)
        .apply(interface, Mode::Auto, policies)?;
    writeln!(
        stdout(),
        "{interface}: generation {} in force, with the policies of generation {generation}",
        applied.generation
    )
    .map_err(|error| Failure::from(error).though_done())?;
    note(
        global.color,
        format_args!("`nodewall rollback --interface {interface}` undoes this in turn"),
    );
    Ok(())
}
