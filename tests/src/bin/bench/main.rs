//! The whole table of benchmarks: nodewall and the filters that Debian ships,
//! side by side, on this machine. `cargo xtask bench` builds and runs it.
//!
//! What is measured touches no interface of the machine: packets run in memory
//! (`BPF_PROG_TEST_RUN`), or over veth pairs in network namespaces that have no
//! name and end with this process, however that ends.

mod apply;
mod blocklist;
mod classifier;
mod live;
mod netns;
mod plot;
mod policy;
mod report;
mod tools;
mod xdp_filter;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How much is measured, and where it goes.
struct Plan {
    /// Fewer sizes and turns: for trying.
    quick: bool,
    /// The folder of the documents.
    out: PathBuf,
    /// The binary whose `apply` is timed.
    nodewall: PathBuf,
    /// Only these sections.
    only: Vec<String>,
    /// What has not begun by then is left out.
    until: Instant,
}

/// The whole run ends soon after it.
const TIME: Duration = Duration::from_mins(22);

impl Plan {
    fn of_arguments() -> Result<Self> {
        let mut plan = Self {
            quick: false,
            out: "docs".into(),
            nodewall: "nodewall".into(),
            only: Vec::new(),
            until: Instant::now() + TIME,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--quick" => plan.quick = true,
                "--out" => plan.out = value()?.into(),
                "--nodewall" => plan.nodewall = value()?.into(),
                "--only" => plan.only.extend(value()?.split(',').map(str::to_owned)),
                other => bail!("unknown argument {other:?}"),
            }
        }
        Ok(plan)
    }

    fn rounds(&self) -> u32 {
        if self.quick { 5 } else { 21 }
    }

    /// An error where there is no time left.
    fn in_time(&self) -> Result<()> {
        if Instant::now() > self.until {
            bail!(
                "left out: the machine was too busy to come to it in {} minutes",
                TIME.as_secs() / 60
            );
        }
        Ok(())
    }

    fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == section)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures; gives the raw numbers.
type Section = fn(&Plan) -> Result<Value>;

/// Sections, in their order: those that stress the machine most come last.
const SECTIONS: [(&str, Section); 5] = [
    ("blocklists", classifier::blocklists),
    ("acls", classifier::acls),
    ("side_by_side", classifier::side_by_side),
    ("apply", apply::measure),
    ("live", live::measure),
];

fn run() -> Result<()> {
    let plan = Plan::of_arguments()?;
    let began = Instant::now();
    let mut results = json!({
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "date": tools::today()?,
        "quick": plan.quick,
        "rounds": plan.rounds(),
        "machine": filter_user::bench::machine::Machine::this(),
        "tools": tools::versions(),
    });
    let mut failed = Vec::new();
    for (name, section) in SECTIONS {
        if !plan.wants(name) {
            continue;
        }
        eprintln!("bench: {name}");
        match section(&plan) {
            Ok(value) => results[name] = value,
            Err(error) => {
                eprintln!("bench: {name} failed: {error:#}");
                results[name] = json!({ "failed": format!("{error:#}") });
                failed.push(name);
            }
        }
    }
    results["seconds"] = json!(began.elapsed().as_secs());
    report::write(&results, &plan.out)?;
    if !failed.is_empty() {
        bail!("these sections failed: {}", failed.join(", "));
    }
    eprintln!("bench: done in {} s", began.elapsed().as_secs());
    Ok(())
}

/// Says how far it is.
fn progress(text: &str) {
    eprintln!("bench:   {text}");
}
