//! Verbs that are cut short at every system call: builds everything, and lets the bin
//! `crash` of the tests crate do the work.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::{build, run, setup};

/// `cargo xtask crash`.
#[derive(Args)]
pub(crate) struct Options {
    /// So many at a time, each on machines of its own
    #[arg(long, value_name = "N", default_value_t = 3)]
    jobs: usize,
    /// Some verbs alone; a wrong name tells which there are
    verbs: Vec<String>,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if !geteuid().is_root() {
        bail!("what is cut short loads BPF programs and attaches them, which needs root");
    }
    setup::for_lab()?;
    let [nodewall, crash] = build::tester(place, "crash", true)?;
    run::status(
        Command::new(crash)
            .arg(options.jobs.to_string())
            .args(&options.verbs)
            .env("NODEWALL_BIN", nodewall),
    )
}
