//! The targets of `fuzz/`, two at a time.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::place::Place;
use crate::say::{Step, note};
use crate::{run, setup};

/// `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// For how long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Those alone; otherwise all
    targets: Vec<String>,
}

/// How many run at a time.
const AT_A_TIME: usize = 2;
/// Bytes of an input at most: larger ones find no more, and take longer.
const LONGEST: u32 = 8_192;

/// What a target came to.
enum Ended {
    /// Executions, and places in the code that were reached.
    Well { last: String },
    /// An input that is too much.
    Found { report: String, input: PathBuf },
}

/// Runs the targets.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    let folder = place.root.join("fuzz");
    let all = targets(&folder)?;
    let chosen = if options.targets.is_empty() {
        all
    } else {
        if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
            bail!(
                "there is no target {unknown:?}; there are {}",
                all.join(", ")
            );
        }
        options.targets.clone()
    };
    let cargo_fuzz = setup::cargo_fuzz(place)?;
    let built = place.target.join("fuzz");
    let step = Step::begin("fuzz", "building the targets (cold: about 3 minutes)");
    run::status(&mut cargo(&cargo_fuzz, place, &built, &["build"]))?;
    step.done();

    let left = Mutex::new(chosen.iter().cloned().collect::<VecDeque<_>>());
    let found = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let next = left.lock().map_or(None, |mut left| left.pop_front());
            let Some(name) = next else {
                return Ok(());
            };
            match one(place, &cargo_fuzz, &built, &name, options.seconds)? {
                Ended::Well { last } => note(&format!("{name}: {last}")),
                Ended::Found { report, input } => {
                    eprintln!("{report}");
                    note(&format!(
                        "{name}: FOUND an input that is too much, kept as {}. `cargo test -p \
                         filter-user fuzzing` replays it; mend it, and commit it with that.",
                        input.display()
                    ));
                    if let Ok(mut found) = found.lock() {
                        found.push(name);
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let found = found.into_inner().unwrap_or_default();
    if found.is_empty() {
        return Ok(());
    }
    bail!("inputs that are too much: {}", found.join(", "))
}

/// The names of the targets: those that there are files for.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets")).context("there are no fuzz targets")? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// cargo-fuzz on the nightly toolchain, which it needs.
///
/// Without a sanitizer: the code that is fuzzed has no `unsafe` but the packet cursor's, which
/// Miri runs, and all is built in half the time and runs twice as often.
fn cargo(cargo_fuzz: &Path, place: &Place, built: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", "nightly"])
        .arg(cargo_fuzz)
        .arg("fuzz")
        .args(arguments)
        // The whole of filter-user in one unit keeps one processor busy for minutes.
        .args([
            "--sanitizer",
            "none",
            "--codegen-units",
            "16",
            "--target-dir",
        ])
        .arg(built)
        .current_dir(&place.root)
        // Of the pinned toolchain's cargo, which runs this.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO_TARGET_DIR");
    cargo
}

/// Runs one target: from the committed seeds, into a corpus of this machine's own.
fn one(place: &Place, cargo_fuzz: &Path, built: &Path, name: &str, seconds: u32) -> Result<Ended> {
    let own = built.join("corpus").join(name);
    let crashes = place.root.join("fuzz/crashes").join(name);
    for folder in [&own, &crashes] {
        fs::create_dir_all(folder)?;
    }
    let before = inputs(&crashes)?;
    let log = built.join(format!("{name}.log"));
    let seeds = place.root.join("fuzz/corpus").join(name);
    let mut cargo = cargo(cargo_fuzz, place, built, &["run", name]);
    cargo
        .args([&own, &seeds])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        // An input that takes longer is one that is too much.
        .args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .stdin(std::process::Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?);
    let status = cargo.status().context("cannot run cargo-fuzz")?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        // Empty folders are none of git's.
        let _ = fs::remove_dir(&crashes);
        return Ok(Ended::Well { last: last(&said) });
    }
    let mut new = inputs(&crashes)?;
    new.retain(|input| !before.contains(input));
    let Some(input) = new.pop() else {
        bail!("{name} failed without an input ({status}):\n{said}");
    };
    let report: Vec<&str> = said.lines().rev().take(40).collect();
    Ok(Ended::Found {
        report: report.into_iter().rev().collect::<Vec<_>>().join("\n"),
        input,
    })
}

fn inputs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// What libFuzzer says at its end: executions, and code that was reached.
fn last(said: &str) -> String {
    let number = |line: &str| {
        line.rsplit(':')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let mut lines = said.lines();
    let executed = lines.find(|line| line.starts_with("stat::number_of_executed_units"));
    let reached = said
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: "))
        .and_then(|(_, rest)| rest.split_whitespace().next());
    format!(
        "{} executions, {} places reached, nothing found",
        executed.map_or("no".to_owned(), number),
        reached.unwrap_or("no")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let said = "#2\tINITED cov: 10 ft: 11 corp: 1/1b\n#900\tDONE   cov: 1234 ft: 2 corp: 3/4Kb\n\
                    stat::number_of_executed_units: 900\nstat::peak_rss_mb: 40\n";
        assert_eq!(
            last(said),
            "900 executions, 1234 places reached, nothing found"
        );
    }

    #[test]
    fn every_target_has_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let names = targets(&folder).expect("targets");
        assert!(names.len() >= 7, "{names:?}");
        for name in names {
            let seeds = inputs(&folder.join("corpus").join(&name)).expect("a folder of seeds");
            assert!(seeds.len() > 2, "{name}");
        }
    }
}
