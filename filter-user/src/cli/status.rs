//! `nodewall status`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use clap::Args;
use filter_common::verdict::Verdict;
use serde_json::Value;

use super::args::{Global, TableOrJson};
use super::error::Failure;
use super::output::{columns, fit, grouped, size, time};
use crate::daemon::state;
use crate::datapath::{EgressHook, Mode, Stats, Status as InForce, TrialState};
use crate::ruleset::Ruleset;
use crate::telemetry::document;

/// Show what is in force, per interface
///
/// Everything is read back from the pinned state: no process needs to run.
/// GEN counts the changes since the interface was attached; PASSED and DROPPED
/// are packets.
/// Exit code 3 where nothing is attached.
#[derive(Args, Debug)]
pub(super) struct Status {
    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    output: TableOrJson,
}

impl Status {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        let mut all = datapath.status()?;
        if let Some(interface) = &self.interface {
            all.retain(|status| status.interface == *interface);
        }
        if all.is_empty() {
            if self.output == TableOrJson::Json {
                writeln!(stdout(), "{:#}", document::status(&[]))?;
            }
            let on = self
                .interface
                .as_ref()
                .map_or_else(String::new, |name| format!(" to {name}"));
            if !datapath.sees_pins() {
                return Err(Failure::NotAttached(format!(
                    "nothing is attached{on} as far as can be seen from here: {} is in no BPF file \
                     system. Where one is mounted (`mount -t bpf bpf /sys/fs/bpf`), or from a process \
                     that sees it, what filters is shown.",
                    global.pin_root.display()
                )));
            }
            return Err(Failure::NotAttached(format!(
                "nothing is attached{on}. `nodewall apply -f POLICY --interface IF` attaches a filter."
            )));
        }
        let daemon = state::read(&global.run_dir, &global.pin_root);
        let daemon = daemon.map(|state| state.daemon);
        match self.output {
            TableOrJson::Json => {
                let mut document = document::status(&all);
                document["daemon"] = daemon.unwrap_or_default();
                writeln!(stdout(), "{document:#}")?;
            }
            TableOrJson::Table => {
                let daemon = daemon.as_ref().map(in_words).unwrap_or_default();
                write!(stdout(), "{}{daemon}", table(&all))?;
            }
        }
        Ok(())
    }
}

/// How a daemon fares, in a paragraph.
fn in_words(daemon: &Value) -> String {
    let of = |field: &str| daemon[field].as_str().unwrap_or("never").to_owned();
    let mut text = format!(
        "\nkept by process {} since {}; policies in force as of {}\n",
        daemon["pid"],
        of("started"),
        of("last_success")
    );
    if let Some(message) = daemon["last_error"]["message"].as_str() {
        let at = daemon["last_error"]["time"].as_str().unwrap_or_default();
        let _ = writeln!(text, "  NOT in force, read at {at}: {message}");
    }
    text
}

fn table(all: &[InForce]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .flat_map(|status| {
            let row = |mode: &str, ruleset: &Ruleset, stats: &Stats, first: bool| {
                let once = |text: String| if first { text } else { String::new() };
                vec![
                    once(fit(&status.interface, 15)),
                    mode.to_owned(),
                    once(status.generation.to_string()),
                    ruleset.rules.len().to_string(),
                    once(size(status.memory)),
                    grouped(stats.total(Verdict::Pass).packets),
                    grouped(stats.total(Verdict::Drop).packets),
                ]
            };
            let mode = status.mode.map_or("gone", Mode::name);
            let ingress = row(mode, &status.ruleset, &status.stats, true);
            let egress = status.egress.as_ref();
            let egress = egress.map(|egress| row("egress", &egress.ruleset, &egress.stats, false));
            std::iter::once(ingress).chain(egress)
        })
        .collect();
    let mut text = columns(
        &[
            "INTERFACE",
            "MODE",
            ">GEN",
            ">RULES",
            ">MEMORY",
            ">PASSED",
            ">DROPPED",
        ],
        &rows,
    );
    // What has no room in the columns.
    text.push('\n');
    for status in all {
        let _ = writeln!(
            text,
            "{}: program {} since {}; default {}",
            fit(&status.interface, 15),
            status.program_id,
            time(status.since),
            status.ruleset.default.name()
        );
        if let Some(combination) = status.combination {
            let _ = writeln!(text, "  combined: {combination}: {}", combination.why());
        }
        match &status.egress {
            Some(egress) => {
                let _ = writeln!(
                    text,
                    "  egress: program {} at {}; default {}",
                    egress.program_id,
                    egress
                        .hook
                        .map_or("no hook: somebody took it off", EgressHook::name),
                    egress.ruleset.default.name()
                );
            }
            None => text.push_str("  egress: not filtered\n"),
        }
        match status.trial {
            Some(TrialState::Runs(until)) => {
                let _ = writeln!(
                    text,
                    "  on trial until {}: `nodewall confirm` keeps it",
                    time(until)
                );
            }
            Some(TrialState::Over) => {
                text.push_str("  in force again: what was on trial was not confirmed\n");
            }
            Some(TrialState::Kept) | None => {}
        }
        for (begun, flows) in document::flows_of(status) {
            let _ = writeln!(
                text,
                "  flows begun on {begun}: {} of {}, {} packets passed",
                grouped(flows.entries),
                grouped(flows.max_entries),
                grouped(flows.hits)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use filter_common::verdict::Reason;

    use super::*;
    use crate::compile::Combination;
    use crate::datapath::{Count, EgressStatus, FlowTotals, ProgramSize};
    use crate::ruleset::{Action, Direction, Options};

    fn status(interface: &str, packets: u64) -> InForce {
        let count = Count {
            packets,
            bytes: packets * 64,
        };
        let ruleset = |direction| {
            Arc::new(Ruleset {
                endpoint: "worker-1".to_owned(),
                direction,
                sets: Vec::new(),
                rules: Vec::new(),
                default: Action::Allow,
                options: Options::default(),
            })
        };
        let stats = |direction| Stats {
            interface: interface.to_owned(),
            direction,
            ruleset: ruleset(direction),
            of_rules: Vec::new(),
            reasons: vec![
                (Reason::PolicyDeny, Verdict::Drop, count),
                (Reason::DefaultAllow, Verdict::Pass, count),
                (Reason::NotIp, Verdict::Pass, count),
            ],
            essentials: Vec::new(),
        };
        InForce {
            interface: interface.to_owned(),
            mode: Some(Mode::Generic),
            generation: 123,
            program_id: u32::MAX,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            ruleset: ruleset(Direction::Ingress),
            described: crate::datapath::Described::default(),
            memory: 1_023 << 20,
            combination: Some(Combination::OneDimension),
            program_size: Some(ProgramSize {
                verified_instructions: 20_000,
                xlated_bytes: 16_000,
                jited_bytes: 9_000,
            }),
            events_lost: 0,
            egress: Some(EgressStatus {
                hook: Some(EgressHook::Tcx),
                program_id: u32::MAX,
                ruleset: ruleset(Direction::Egress),
                program_size: None,
                combination: Some(Combination::OneDimension),
                stats: stats(Direction::Egress),
            }),
            egress_before: None,
            trial: None,
            flows: Some(
                [FlowTotals {
                    max_entries: 1 << 24,
                    entries: 1 << 24,
                    hits: 5_000_000_000,
                    ..FlowTotals::default()
                }; 2],
            ),
            stats: stats(Direction::Ingress),
        }
    }

    #[test]
    fn the_table_fits_80_columns() {
        let text = table(&[status("enp216s0f1np1.4", 5_000_000_000)]);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("10,000,000,000"), "{text}");
        assert!(text.contains("since 2023-11-14T22:13:20Z"), "{text}");
    }

    #[test]
    fn the_document_has_integers_and_a_time() {
        let document = document::status(&[status("eth0", 7)]);
        let interface = &document["interfaces"][0];
        assert_eq!(document["schema"], 1);
        assert_eq!(interface["passed"]["packets"], 14);
        assert_eq!(interface["dropped"]["bytes"], 7 * 64);
        assert_eq!(interface["since"], "2023-11-14T22:13:20Z");
        assert_eq!(interface["mode"], "generic");
        assert_eq!(interface["program"]["verified_instructions"], 20_000);
        assert_eq!(interface["program"]["jited_bytes"], 9_000);
    }
}
