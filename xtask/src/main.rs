//! `cargo xtask …`: what it takes to build, test and show nodewall, starting
//! from a machine that has rustup, a C compiler and nothing else.

mod build;
mod place;
mod run;
mod say;
mod setup;

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
    /// Bring the tools that are missing: rust-src, bpf-linker, ip, ethtool
    Setup,
    /// Build the BPF object and the `nodewall` binary that embeds it
    Build {
        /// Optimise the binary (the BPF object always is)
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let place = Place::find()?;
    match task {
        Task::Setup => setup::everything(&place),
        Task::Build { release } => {
            let binary = build::nodewall(&place, release)?;
            say::note(&format!("built {}", binary.display()));
            Ok(())
        }
    }
}
