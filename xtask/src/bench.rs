//! The whole table of benchmarks: brings the peers, builds everything
//! optimised, and lets the bin `bench` of the tests crate do the work.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::{Step, note, seconds};
use crate::{build, run, setup};

/// `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer sizes and turns, to see that it works: two minutes, and numbers
    /// that are not to be trusted. Writes to target/benchmarks
    #[arg(long)]
    quick: bool,
    /// Some sections alone: blocklists, acls, `side_by_side`, apply, live.
    /// Writes to target/benchmarks
    #[arg(long, value_name = "SECTIONS", value_delimiter = ',')]
    only: Vec<String>,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "the benchmarks load BPF programs and make network namespaces, which needs root. Run \
             `sudo -E cargo xtask bench`, or measure your own policies with `sudo nodewall bench`"
        );
    }
    let began = Instant::now();
    setup::for_lab()?;
    setup::for_bench()?;
    let nodewall = build::nodewall(place, true, false)?;
    let step = Step::begin("bench", "building what measures (cold: about 2 minutes)");
    run::status(
        place
            .cargo()
            .args(["build", "--quiet", "--release", "--package", "tests"])
            .args(["--features", "bpf", "--bins"])
            .env(
                "NODEWALL_BPF_OBJECT",
                place.target.join("bpf/nodewall.bpf.o"),
            ),
    )?;
    step.done();
    // What is no whole run is no document.
    let whole = !options.quick && options.only.is_empty();
    let out = if whole {
        place.root.join("docs")
    } else {
        place.target.join("benchmarks")
    };
    let mut bench = std::process::Command::new(place.target.join("release/bench"));
    bench
        .current_dir(&place.root)
        .arg("--nodewall")
        .arg(nodewall)
        .arg("--out")
        .arg(&out);
    if options.quick {
        bench.arg("--quick");
    }
    if !options.only.is_empty() {
        bench.arg("--only").arg(options.only.join(","));
    }
    run::status(&mut bench)?;
    note(&format!(
        "wrote {} in {}",
        out.join("benchmarks.md").display(),
        seconds(began.elapsed())
    ));
    Ok(())
}
