//! Verbs that are cut short at every system call: builds everything, and lets the bin
//! `crash` of the tests crate do the work.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::Step;
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
    let nodewall = build::nodewall(place, false, false)?;
    let step = Step::begin("crash", "building what cuts short (cold: about 2 minutes)");
    run::status(
        place
            .cargo()
            .args(["build", "--quiet", "--package", "tests"])
            .args(["--features", "bpf", "--bin", "crash"])
            .env(
                "NODEWALL_BPF_OBJECT",
                place.target.join("bpf/nodewall.bpf.o"),
            ),
    )?;
    step.done();
    run::status(
        Command::new(place.target.join("debug/crash"))
            .arg(options.jobs.to_string())
            .args(&options.verbs)
            .env("NODEWALL_BIN", nodewall),
    )
}
