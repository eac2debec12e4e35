//! The whole table of benchmarks: brings the peers, builds everything
//! optimised, and lets the bin `bench` of the tests crate do the work.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::{note, seconds};
use crate::{build, run, setup};

/// `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer sizes and turns, to see that it works: two minutes after the build, and numbers
    /// that are not to be trusted. Writes to target/benchmarks
    #[arg(long)]
    quick: bool,
    /// Some sections alone. Writes to target/benchmarks
    #[arg(
        long,
        value_name = "SECTION",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(SECTIONS)
    )]
    only: Vec<String>,

    /// Measure nothing: write docs/benchmarks.md again from the numbers of the
    /// last whole run, with what docs/benchmarks/evidence.md says
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    render: bool,
}

/// As the bin `bench` of the tests crate names them.
const SECTIONS: [&str; 9] = [
    "blocklists",
    "rules",
    "acls",
    "programs",
    "sampling",
    "flows",
    "side_by_side",
    "apply",
    "live",
];

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if !geteuid().is_root() && !options.render {
        bail!(
            "the benchmarks load BPF programs and make network namespaces, which needs root. Run \
             `sudo -E cargo xtask bench`, or measure your own policies with `sudo nodewall bench`"
        );
    }
    let began = Instant::now();
    if !options.render {
        setup::for_lab()?;
        setup::for_bench()?;
    }
    let [nodewall, bench] = build::tester(place, "bench", true)?;
    // What is no whole run is no document.
    let whole = !options.quick && options.only.is_empty();
    let out = if whole {
        place.root.join("docs")
    } else {
        place.target.join("benchmarks")
    };
    let mut bench = std::process::Command::new(bench);
    bench
        .current_dir(&place.root)
        .arg("--nodewall")
        .arg(nodewall)
        .arg("--out")
        .arg(&out);
    if options.quick {
        bench.arg("--quick");
    }
    if options.render {
        bench.arg("--render");
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
