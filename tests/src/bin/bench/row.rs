//! One ruleset measured, in a process of its own: what takes too long or too
//! much memory is ended and loses nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use filter_user::bench::{self, Effort, Source};
use filter_user::compile::Image;
use filter_user::policy::SelectOptions;
use filter_user::ruleset::Ruleset;
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};

use crate::classifier::MEMORY;
use crate::{Plan, accesses, policy, progress};

/// What makes this program measure one ruleset.
pub(crate) const FLAG: &str = "--row";

/// One ruleset gets no more.
const TIME: Duration = Duration::from_mins(2);
/// Address space: a machine that swaps measures nothing.
const SPACE: u64 = 12 << 30;
/// A number behind it instead of a file: so many rules with a network each.
const RULES: &str = "rules:";

/// What is measured.
pub(crate) struct Row {
    /// A policy's file, or [`rules`].
    pub(crate) of: PathBuf,
    /// Without the ports that stay open whatever the policies say.
    pub(crate) bare: bool,
}

impl Row {
    pub(crate) fn file(of: impl Into<PathBuf>) -> Self {
        Self {
            of: of.into(),
            bare: false,
        }
    }

    /// The same without failsafe ports.
    pub(crate) fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// So many rules, a network each.
    pub(crate) fn rules(count: usize) -> Self {
        Self::file(format!("{RULES}{count}")).bare()
    }

    /// A row of a table: its name, and what was measured or why not.
    pub(crate) fn measure(&self, name: &str, plan: &Plan) -> Value {
        match self.measured(plan) {
            Ok(measured) => {
                say(name, &measured);
                json!({ "name": name, "measured": measured })
            }
            Err(error) => {
                progress(&format!("{name}: {error:#}"));
                json!({ "name": name, "failed": format!("{error:#}") })
            }
        }
    }

    fn measured(&self, plan: &Plan) -> Result<Value> {
        plan.in_time()?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .arg(&self.of)
            .arg(plan.rounds().to_string())
            .arg(self.bare.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run the process that measures")?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > TIME {
                child.kill()?;
                child.wait()?;
                bail!("left out: not done in {} s", TIME.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Both fit in a pipe.
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim_end().lines().last().unwrap_or("it said nothing");
            bail!("{}", last.trim_start_matches("bench: "));
        }
        serde_json::from_slice(&output.stdout).context("what was measured can't be read")
    }
}

fn say(name: &str, measured: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let over = |traffic: &str| number(&measured[traffic]["over_floor"]["median"]);
    progress(&format!(
        "{name}: warm +{:.1} ns, random +{:.1} ns, {} KiB, compile {:.0} ms, load {:.0} ms",
        over("warm"),
        over("random"),
        measured["memory"]["maps_bytes"].as_u64().unwrap_or(0) >> 10,
        number(&measured["compile_ms"]),
        number(&measured["load_ms"]),
    ));
}

/// The other process: measures and prints.
pub(crate) fn child(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || arguments.next().context("an argument is missing");
    let (of, rounds, bare): (String, u32, bool) = (next()?, next()?.parse()?, next()?.parse()?);
    setrlimit(Resource::RLIMIT_AS, SPACE, SPACE).context("cannot limit the memory")?;
    let ruleset = if let Some(count) = of.strip_prefix(RULES) {
        policy::networks(count.parse()?)
    } else {
        let options = if bare {
            policy::bare()
        } else {
            SelectOptions::default()
        };
        policy::ruleset_with(of.as_ref(), &options)?
    };
    println!("{}", measure(&ruleset, rounds)?);
    Ok(())
}

fn measure(ruleset: &Ruleset, rounds: u32) -> Result<Value> {
    let effort = Effort {
        rounds,
        ..Effort::default()
    };
    let flows = bench::enough_flows(bench::prefixes(ruleset));
    let source = Source::Random { flows, seed: 1 };
    let report = bench::measure(ruleset, MEMORY, &source, effort)?;
    // Before the image is compiled again.
    let peak = peak_bytes();
    let image = Image::compile(ruleset, MEMORY)?;
    let corpus = bench::random_corpus(ruleset, flows, 1)?;
    let mut measured = serde_json::to_value(report)?;
    measured["tables"] = accesses::of(&image, &corpus);
    measured["peak_bytes"] = json!(peak);
    Ok(measured)
}

/// The most memory that this process has had, the corpus included.
fn peak_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}
