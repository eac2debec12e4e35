//! Cuts nodewall's verbs short at every one of their system calls. `cargo xtask crash` runs it.

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tests::crash::{Choice, Verb, sweep};
use tests::lab::Lab;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it must be. Arguments: how many stages at a time, then the verbs; none
/// for all.
fn run() -> Result<bool> {
    let mut arguments = env::args().skip(1);
    let jobs = arguments.next().map_or(Ok(2), |jobs| jobs.parse());
    let jobs: usize = jobs.context("the first argument is how many at a time")?;
    let mut verbs = Vec::new();
    for name in arguments {
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.name() == name) else {
            let names = Verb::ALL.map(Verb::name).join(", ");
            bail!("there is no verb {name:?}; there are {names}");
        };
        verbs.push(verb);
    }
    if verbs.is_empty() {
        verbs.extend(Verb::ALL);
    }
    // What a run that was killed has left; another one may be at it.
    Lab::sweep().ok();
    let began = Instant::now();
    let mut lines = Vec::new();
    let mut failed = false;
    for verb in verbs {
        let summary = sweep(verb, Choice::All, jobs.max(1), &|line| println!("{line}"))?;
        failed |= !summary.failures.is_empty();
        lines.push(format!("{:12} {summary}", verb.name()));
        println!("{}", lines.last().map_or("", |line| line));
    }
    println!("\nall in {:.0?}:", began.elapsed());
    for line in lines {
        println!("{line}");
    }
    Ok(!failed)
}
