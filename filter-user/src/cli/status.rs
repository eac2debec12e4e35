//! `nodewall status`.

use std::io::{Write as _, stdout};

use clap::Args;
use filter_common::verdict::Verdict;
use serde_json::{Value, json};

use super::args::{Global, TableOrJson};
use super::error::Failure;
use super::output::{columns, fit, grouped, size, time};
use crate::datapath::{Count, Datapath, Mode, Stats, Status as InForce};

/// Show what is in force, per interface
///
/// Everything is read back from the pinned state: no process needs to run.
/// Exit code 3 where nothing is attached.
#[derive(Args, Debug)]
pub(super) struct Status {
    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: TableOrJson,
}

impl Status {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let mut all = Datapath::open(&global.pin_root)?.status()?;
        if let Some(interface) = &self.interface {
            all.retain(|status| status.interface == *interface);
        }
        if all.is_empty() {
            if self.output == TableOrJson::Json {
                writeln!(stdout(), "{:#}", json(&[]))?;
            }
            let on = self
                .interface
                .as_ref()
                .map_or_else(String::new, |name| format!(" to {name}"));
            return Err(Failure::NotAttached(format!(
                "nothing is attached{on}. `nodewall apply -f POLICY --interface IF` attaches a filter."
            )));
        }
        match self.output {
            TableOrJson::Json => writeln!(stdout(), "{:#}", json(&all))?,
            TableOrJson::Table => write!(stdout(), "{}", table(&all))?,
        }
        Ok(())
    }
}

/// Packets with this verdict.
pub(super) fn verdict_total(stats: &Stats, verdict: Verdict) -> Count {
    stats
        .reasons
        .iter()
        .filter(|(_, given, _)| *given == verdict)
        .fold(Count::default(), |sum, (_, _, count)| sum + *count)
}

fn table(all: &[InForce]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|status| {
            vec![
                fit(&status.interface, 15),
                status.mode.map_or("gone", Mode::name).to_owned(),
                status.generation.to_string(),
                status.ruleset.rules.len().to_string(),
                size(status.memory),
                grouped(verdict_total(&status.stats, Verdict::Pass).packets),
                grouped(verdict_total(&status.stats, Verdict::Drop).packets),
            ]
        })
        .collect();
    columns(
        &[
            "INTERFACE",
            "MODE",
            ">GENERATION",
            ">RULES",
            ">MEMORY",
            ">PASSED",
            ">DROPPED",
        ],
        &rows,
    )
}

fn json(all: &[InForce]) -> Value {
    let interfaces: Vec<Value> = all
        .iter()
        .map(|status| {
            let passed = verdict_total(&status.stats, Verdict::Pass);
            let dropped = verdict_total(&status.stats, Verdict::Drop);
            json!({
                "interface": status.interface,
                "mode": status.mode.map(Mode::name),
                "generation": status.generation,
                "program_id": status.program_id,
                "since": time(status.since),
                "endpoint": status.ruleset.endpoint,
                "default": status.ruleset.default.name(),
                "rules": status.ruleset.rules.len(),
                "memory": {"maps_bytes": status.memory},
                "passed": {"packets": passed.packets, "bytes": passed.bytes},
                "dropped": {"packets": dropped.packets, "bytes": dropped.bytes},
            })
        })
        .collect();
    json!({"schema": 1, "interfaces": interfaces})
}
