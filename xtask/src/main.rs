//! `cargo xtask …`: what it takes to build, test and show nodewall, starting
//! from a machine that has rustup, a C compiler and nothing else.

mod bench;
mod build;
mod crash;
mod demo;
mod deny;
mod fuzz;
mod kernels;
mod long;
mod miri;
mod package;
mod place;
mod reproduce;
mod run;
mod say;
mod scoreboard;
mod setup;
mod test;
mod upgrade;

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
    /// Let libFuzzer look for what breaks parsers, compiler and readers
    Fuzz(fuzz::Options),
    /// Run filter-common's tests in Miri (needs rustup's nightly)
    Miri {
        /// Given to the test program: filters, `--nocapture`, …
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Check the dependencies' licences and sources by cargo-deny
    Deny {
        /// Look for known vulnerabilities as well; fetches the database by git
        #[arg(long)]
        advisories: bool,
    },
    /// Build the BPF objects a second time elsewhere, and compare
    Reproduce,
    /// Cut nodewall's verbs short at every system call: SIGKILL, and errors where they make
    /// sense (needs root, takes an hour)
    Crash(crash::Options),
    /// Run the tests against the kernel on Debian's other kernels, in QEMU (needs root, apt)
    Kernels(kernels::Options),
    /// Build the Debian package, of an optimised binary unless told otherwise
    Package(package::Options),
    /// Compare reference, host and kernel for as many cases as wanted; the first
    /// disagreement is shrunk, and kept in tests/regressions (needs root)
    Prove(long::Prove),
    /// Change policies under traffic thousands of times, and account for each packet (needs
    /// root)
    Soak(long::Soak),
    /// Let this build follow an earlier commit's on a node, forth and back, while packets come
    /// (needs root, builds both)
    Upgrade(upgrade::Options),
    /// Change the sources here and there, and see which changes no test finds (needs
    /// cargo-mutants)
    Mutate(long::Mutate),
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
        Task::Package(options) => package::perform(&place, &options),
        Task::Test { arguments } => test::run(&place, &arguments),
        Task::Fuzz(options) => fuzz::run(&place, &options),
        Task::Miri { arguments } => miri::run(&place, &arguments),
        Task::Deny { advisories } => deny::run(&place, advisories),
        Task::Reproduce => reproduce::run(&place),
        Task::Kernels(options) => kernels::run(&place, &options),
        Task::Prove(options) => long::prove(&place, &options),
        Task::Soak(options) => long::soak(&place, &options),
        Task::Mutate(options) => long::mutate(&place, &options),
        Task::Bench(options) => bench::run(&place, &options),
        Task::Crash(options) => crash::run(&place, &options),
        Task::Scoreboard => scoreboard::run(&place),
        Task::Upgrade(options) => upgrade::run(&place, &options),
        Task::Demo(options) => demo::run(&place, &options),
    }
}
