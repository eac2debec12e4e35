//! The whole table of benchmarks: nodewall and the filters that Debian ships,
//! side by side, on this machine. `cargo xtask bench` builds and runs it.
//!
//! What is measured touches no interface of the machine: packets run in memory
//! (`BPF_PROG_TEST_RUN`), or over veth pairs in network namespaces that have no
//! name and end with this process, however that ends.

mod accesses;
mod apply;
mod blocklist;
mod classifier;
mod clock;
mod flows;
mod goals;
mod live;
mod netns;
mod plot;
mod policy;
mod programs;
mod report;
mod row;
mod sampling;
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
    /// Nothing is measured: the numbers of the last run are written again.
    render: bool,
}

/// The whole run ends soon after it.
const TIME: Duration = Duration::from_mins(21);

impl Plan {
    fn of_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self {
            quick: false,
            out: "docs".into(),
            nodewall: "nodewall".into(),
            only: Vec::new(),
            until: Instant::now() + TIME,
            render: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--quick" => plan.quick = true,
                "--render" => plan.render = true,
                "--out" => plan.out = value()?.into(),
                "--nodewall" => plan.nodewall = value()?.into(),
                "--only" => plan.only.extend(value()?.split(',').map(str::to_owned)),
                other => bail!("unknown argument {other:?}"),
            }
        }
        for wanted in &plan.only {
            if !SECTIONS.iter().any(|section| section.name == wanted) {
                let names: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
                bail!(
                    "there is no section {wanted:?}; there are {}",
                    names.join(", ")
                );
            }
        }
        Ok(plan)
    }

    fn rounds(&self) -> u32 {
        if self.quick { 5 } else { 15 }
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

    fn wants(&self, section: &Section) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == section.name)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let done = if arguments.next_if(|first| first == row::FLAG).is_some() {
        row::child(arguments)
    } else {
        Plan::of_arguments(arguments).and_then(|plan| run(&plan))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A part of the run.
struct Section {
    name: &'static str,
    /// About how long it takes, in s: whole, and in the quick form.
    seconds: [u64; 2],
    /// Measures; gives the raw numbers.
    measure: fn(&Plan) -> Result<Value>,
}

/// Sections, in their order: those that stress the machine most come last.
const SECTIONS: [Section; 9] = [
    Section {
        name: "blocklists",
        seconds: [170, 12],
        measure: classifier::blocklists,
    },
    Section {
        name: "rules",
        seconds: [60, 6],
        measure: classifier::rules,
    },
    Section {
        name: "acls",
        seconds: [180, 10],
        measure: classifier::acls,
    },
    Section {
        name: "programs",
        seconds: [25, 10],
        measure: programs::measure,
    },
    Section {
        name: "sampling",
        seconds: [10, 3],
        measure: sampling::measure,
    },
    Section {
        name: "flows",
        seconds: [25, 8],
        measure: flows::measure,
    },
    Section {
        name: "side_by_side",
        seconds: [50, 10],
        measure: classifier::side_by_side,
    },
    Section {
        name: "apply",
        seconds: [90, 15],
        measure: apply::measure,
    },
    Section {
        name: "live",
        seconds: [300, 30],
        measure: live::measure,
    },
];

fn run(plan: &Plan) -> Result<()> {
    if plan.render {
        let results = report::last(&plan.out)?;
        return report::write(&results, &plan.out);
    }
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
    let wanted: Vec<&Section> = SECTIONS
        .iter()
        .filter(|section| plan.wants(section))
        .collect();
    for (index, section) in wanted.iter().enumerate() {
        let of = |section: &Section| section.seconds[usize::from(plan.quick)];
        let behind = wanted[index + 1..].iter().map(|section| of(section)).sum();
        clock::section(section.name, of(section), behind);
        results[section.name] = match (section.measure)(plan) {
            Ok(value) => value,
            Err(error) => {
                progress(&format!("{} failed: {error:#}", section.name));
                failed.push(section.name);
                json!({ "failed": format!("{error:#}") })
            }
        };
    }
    results["seconds"] = json!(began.elapsed().as_secs());
    report::write(&results, &plan.out)?;
    if !failed.is_empty() {
        bail!(
            "these sections failed: {}; all others are in {}",
            failed.join(", "),
            plan.out.join("benchmarks.md").display()
        );
    }
    progress("done");
    Ok(())
}

/// Says what came out, how far the run is, and how long it goes on.
fn progress(text: &str) {
    eprintln!("bench: {}  {text}", clock::now());
}
