//! `cargo xtask …`: what it takes to build, test and show nodewall, starting
//! from a machine that has rustup, a C compiler and nothing else.

mod bench;
mod build;
mod demo;
mod place;
mod run;
mod say;
mod scoreboard;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::place::Place;

/// nodewall's developer tasks
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring what is missing: rust-src, bpf-linker, ip, ethtool, and the programs that
    /// talk to the tests' worker node
    Setup,
    /// Build the BPF object and the `nodewall` binary that embeds it
    Build {
        /// Optimise the binary (the BPF object always is)
        #[arg(long)]
        release: bool,
        /// Let the BPF program log what it does with each packet; for debugging
        #[arg(long)]
        trace: bool,
        /// Build the object alone, and print its path for `NODEWALL_BPF_OBJECT`
        #[arg(long, conflicts_with = "release")]
        object: bool,
    },
    /// Show the filter at work, with real services and a flood (needs root)
    Demo(demo::Options),
    /// Measure nodewall and the filters that Debian ships, side by side; writes
    /// docs/benchmarks.md (needs root, takes 20 minutes)
    Bench(bench::Options),
    /// Send odd and evading packets to nodewall and to the filters that Debian ships; writes
    /// docs/scoreboard.md (needs root, takes two minutes)
    Scoreboard,
    /// Run every test; those against the kernel need root
    Test {
        /// Given to the test programs: filters, `--nocapture`, …
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::failure(&error);
            if error.is::<demo::Interrupted>() {
                return ExitCode::from(130);
            }
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let place = Place::find()?;
    match task {
        Task::Setup => setup::everything(&place),
        Task::Build {
            object: true,
            trace,
            ..
        } => {
            println!("{}", build::object(&place, trace)?.display());
            Ok(())
        }
        Task::Build { release, trace, .. } => {
            let binary = build::nodewall(&place, release, trace)?;
            say::note(&format!("built {}", binary.display()));
            Ok(())
        }
        Task::Test { arguments } => test::run(&place, &arguments),
        Task::Bench(options) => bench::run(&place, &options),
        Task::Scoreboard => scoreboard::run(&place),
        Task::Demo(options) => demo::run(&place, &options),
    }
}
