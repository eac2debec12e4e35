//! The command line: what is asked, what is answered, and the exit code.
//!
//! One file a verb. Data goes to stdout, messages to stderr. Exit codes: 0
//! done, 1 failed or invalid, 2 usage, 3 nothing attached, 4 missing
//! privileges.

mod apply;
mod args;
mod bench;
pub(crate) mod capture;
mod compiled;
mod config;
mod convert;
mod detach;
mod diff;
mod ended;
mod error;
mod explain;
mod flows;
mod get;
mod lockout;
mod man;
mod observe;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod put;
mod recording;
mod replay;
mod run;
mod schema;
mod stats;
mod status;
mod times;
mod top;
mod trial;
mod validate;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use args::Global;
use error::Failure;
use output::Color;

use crate::privileges::{self, Keep};

/// Calico host-endpoint policies, enforced at XDP
///
/// nodewall compiles policy files into BPF tables, swaps them in atomically
/// and counts every packet. What it applies goes on filtering without any
/// process: the kernel is the database.
#[derive(Debug, Parser)]
#[command(
    name = "nodewall",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 failed or invalid; 2 usage; 3 nothing attached; 4 missing privileges."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Validate(validate::Validate),
    Apply(apply::Apply),
    Confirm(trial::Confirm),
    Rollback(trial::Rollback),
    Run(Box<run::Run>),
    Status(status::Status),
    Stats(stats::Stats),
    Top(top::Top),
    Observe(Box<observe::Observe>),
    Flows(Box<flows::Flows>),
    Detach(detach::Detach),
    Explain(Box<explain::Explain>),
    Diff(Box<diff::Diff>),
    Convert(Box<convert::Convert>),
    Get(get::Get),
    Schema(schema::Schema),
    Replay(Box<replay::Replay>),
    Bench(Box<bench::Bench>),
    Completions(Completions),
    Man(man::Man),
}

impl Verb {
    /// Whether it reads files and writes text, and has nothing to do with the kernel.
    const fn needs_no_kernel(&self) -> bool {
        matches!(
            self,
            Self::Validate(_)
                | Self::Convert(_)
                | Self::Schema(_)
                | Self::Completions(_)
                | Self::Man(_)
        )
    }
}

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nodewall completions bash > /etc/bash_completion.d/nodewall")]
struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    fn run(&self) -> Result<(), Failure> {
        // To memory first: the generator panics where a pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "nodewall", &mut script);
        io::stdout().write_all(&script)?;
        Ok(())
    }
}

impl Cli {
    /// Reads what is asked from the command line, the environment and the configuration
    /// file; where that is wrong, it is said, and the exit code returned.
    pub fn read() -> Result<Self, ExitCode> {
        let mut command = Self::command();
        match config::read() {
            Ok(Some(config)) => {
                command = config
                    .give(command)
                    .map_err(|failure| failure.report(Color::Auto))?;
            }
            Ok(None) => {}
            Err(failure) => return Err(failure.report(Color::Auto)),
        }
        // Exits where the arguments are wrong, as clap does.
        let matches = command.get_matches();
        Self::from_arg_matches(&matches).map_err(|error| {
            // Where it can't be written, the exit code says it.
            let _ = error.print();
            ExitCode::from(2)
        })
    }

    /// Does what is asked.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let global = &self.global;
        if self.verb.needs_no_kernel()
            && let Err(error) = privileges::give_up_all_but(Keep::Files)
        {
            return Failure::from(error).report(global.color);
        }
        let result = match &self.verb {
            Verb::Validate(verb) => verb.run(global),
            Verb::Apply(verb) => verb.run(global),
            Verb::Confirm(verb) => verb.run(global),
            Verb::Rollback(verb) => verb.run(global),
            Verb::Run(verb) => verb.run(global),
            Verb::Status(verb) => verb.run(global),
            Verb::Stats(verb) => verb.run(global),
            Verb::Top(verb) => verb.run(global),
            Verb::Observe(verb) => verb.run(global),
            Verb::Flows(verb) => verb.run(global),
            Verb::Detach(verb) => verb.run(global),
            Verb::Explain(verb) => verb.run(global),
            Verb::Diff(verb) => return verb.run(global),
            Verb::Replay(verb) => verb.run(global),
            Verb::Bench(verb) => verb.run(global),
            Verb::Convert(verb) => verb.run(global),
            Verb::Get(verb) => verb.run(global),
            Verb::Schema(verb) => verb.run(),
            Verb::Completions(verb) => verb.run(),
            Verb::Man(verb) => verb.run(Self::command()),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(global.color),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Where a terminal breaks an example it can't be copied.
    #[test]
    fn examples_fit_80_columns() {
        for verb in Cli::command().get_subcommands() {
            let examples = verb.get_after_help().map(ToString::to_string);
            for line in examples.unwrap_or_default().lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", verb.get_name());
            }
        }
    }
}
