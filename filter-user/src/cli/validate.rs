//! `nodewall validate`.

use std::io::{Write as _, stdout};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::{EndpointFlags, Files, Global, OptionFlags};
use super::compiled::{self, Request};
use super::error::Failure;
use super::output::{grouped, size};
use crate::policy::Severity;

/// Check policy files, offline
///
/// Every mistake is shown at once, with its place. Nothing is loaded and no
/// privileges are needed. Exit code 1 where there are errors.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall validate -f policy.yaml
  nodewall validate -R -f /etc/nodewall/policies.d
  nodewall validate -v -f policy.yaml --interface eth0 --label ibm.role=worker_public")]
pub(super) struct Validate {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    endpoint: EndpointFlags,

    #[command(flatten)]
    options: OptionFlags,

    /// Show the rules of each endpoint, in the order they are tried
    #[arg(short, long)]
    verbose: bool,

    /// Output format of what was found
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document, for editors
    Json,
}

impl Validate {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let request = Request::new(&self.files, &self.endpoint, &self.options, global);
        let (sources, checked) = compiled::check(&request)?;
        let errors = checked
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        match self.output {
            Format::Json => writeln!(
                stdout(),
                "{:#}",
                json!({"schema": 1, "valid": checked.model.is_some(), "diagnostics": checked.diagnostics})
            )?,
            Format::Text => request.show(&checked.diagnostics, &sources),
        }
        let Some(model) = checked.model else {
            if self.output == Format::Text {
                eprintln!("{errors} error{}", if errors == 1 { "" } else { "s" });
            }
            return Err(Failure::Reported);
        };
        let named = !self.endpoint.interface.is_empty() || !self.endpoint.labels.is_empty();
        let targets = if named || !model.endpoints().is_empty() {
            compiled::targets(&request, &sources, &model)?
        } else {
            Vec::new()
        };
        if self.output == Format::Text {
            let mut out = stdout().lock();
            for target in targets.iter().filter(|_| self.verbose) {
                writeln!(
                    out,
                    "endpoint {}: {} rules, tables of {}",
                    target.ruleset.endpoint,
                    target.ruleset.rules.len(),
                    size(target.image.memory())
                )?;
                for rule in &target.ruleset.rules {
                    writeln!(
                        out,
                        "  {} {} {}: {} {}",
                        rule.id.stage.name(),
                        rule.id.policy,
                        rule.id.index,
                        rule.action.name(),
                        rule.matches
                    )?;
                }
                writeln!(out, "  default: {}", target.ruleset.default.name())?;
            }
            let count = |number: usize, one: &str, many: &str| {
                format!(
                    "{} {}",
                    grouped(number as u64),
                    if number == 1 { one } else { many }
                )
            };
            writeln!(
                out,
                "valid: {}, {}",
                count(model.policies().len(), "policy", "policies"),
                count(model.endpoints().len(), "host endpoint", "host endpoints")
            )?;
        }
        Ok(())
    }
}
