//! `nodewall validate`.

use std::io::{Write, stdout};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::args::{EndpointFlags, Files, Global, OptionFlags, WarningFlags};
use super::compiled::{self, Request, Target};
use super::error::Failure;
use super::output::{count, index_of, note, say, size};
use crate::compile::Image;
use crate::lint;
use crate::policy::diagnostic::Code;
use crate::policy::{Diagnostic, Model, Source};
use crate::ruleset::{Direction, Ruleset};

/// Check policy files, offline
///
/// Every mistake is shown at once, with its place. Where there are endpoints, in
/// the files or by --interface, their rules are compiled as well. Nothing is
/// loaded and no privileges are needed. Exit code 1 where there are errors.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall validate -f policy.yaml
  nodewall validate -R -f /etc/nodewall/policies.d
  nodewall validate -v -f policy.yaml --interface eth0 --label role=worker")]
pub(super) struct Validate {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    endpoint: EndpointFlags,

    /// Show the rules of each endpoint, in the order they are tried, and how long
    /// each step took
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    warnings: WarningFlags,

    /// Output format of what was found
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Format,

    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    options: OptionFlags,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document, for editors
    Json,
}

/// What there is to say.
#[derive(Default)]
struct Report {
    diagnostics: Vec<Diagnostic>,
    model: Option<Model>,
    targets: Vec<Target>,
    /// What keeps the rules from being put in force, beside the diagnostics.
    failure: Option<Failure>,
    /// Whether there are warnings, and they count as errors.
    denied: bool,
    /// Why the endpoints in the files were not looked at.
    passed_over: Option<String>,
}

impl Validate {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let request = Request::new(&self.files, &self.endpoint, &self.options, global);
        let (sources, checked) = compiled::check(&request)?;
        let mut report = Report {
            diagnostics: checked.diagnostics,
            ..Report::default()
        };
        if let Some(model) = checked.model {
            report.diagnostics.extend(lint::of_model(&model));
            self.look_at_endpoints(&request, &sources, &model, &mut report);
            report.model = Some(model);
        }
        let denied = compiled::deny_warnings(self.warnings, &report.diagnostics);
        report.denied = denied.is_err();
        match self.output {
            Format::Json => writeln!(stdout(), "{:#}", json(&report))?,
            Format::Text => request.show(&report.diagnostics, &sources),
        }
        if let Some(why) = &report.passed_over {
            note(
                global.color,
                format_args!("the files alone were checked, not what they come to: {why}"),
            );
        }
        if let Some(failure) = report.failure {
            return Err(failure);
        }
        let Some(model) = &report.model else {
            if self.output == Format::Text {
                let errors = compiled::errors(&report.diagnostics);
                say(count(errors, "error", "errors"));
            }
            return Err(Failure::Reported);
        };
        denied?;
        if self.output == Format::Text {
            let mut out = stdout().lock();
            if self.verbose {
                for target in &report.targets {
                    show(&mut out, target)?;
                }
                writeln!(out, "{}", request.times)?;
            }
            writeln!(
                out,
                "valid: {}, {}",
                count(model.policies().len() as u64, "policy", "policies"),
                count(
                    model.endpoints().len() as u64,
                    "host endpoint",
                    "host endpoints"
                )
            )?;
        }
        Ok(())
    }

    /// Compiles for the endpoints. Those that the command line names must
    /// come to something; files that hold others may be for other hosts.
    fn look_at_endpoints(
        &self,
        request: &Request<'_>,
        sources: &[Source],
        model: &Model,
        report: &mut Report,
    ) {
        let named = !self.endpoint.interface.is_empty() || !self.endpoint.labels.is_empty();
        if !named && model.endpoints().is_empty() {
            return;
        }
        let endpoints = match compiled::endpoints(request, model) {
            Ok(endpoints) => endpoints,
            Err(Failure::Failed(why)) if !named => {
                report.passed_over = Some(why);
                return;
            }
            Err(failure) => {
                report.failure = Some(failure);
                return;
            }
        };
        match compiled::targets(request, sources, model, &endpoints, &mut report.diagnostics) {
            Ok(targets) => {
                for target in targets.iter().filter(|_| !named) {
                    report.diagnostics.extend(target.idle.as_ref().map(|idle| {
                        Diagnostic::warning(Code::EndpointWithoutPolicy, idle.as_str())
                    }));
                }
                report.failure = targets
                    .iter()
                    .filter(|_| named)
                    .find_map(|target| target.idle.as_ref())
                    .map(Failure::failed);
                report.targets = targets;
            }
            Err(failure) => report.failure = Some(failure),
        }
    }
}

fn show(out: &mut impl Write, target: &Target) -> Result<(), Failure> {
    show_rules(out, &target.ruleset, &target.image)?;
    match target.egress_in_force(true) {
        Some(egress) => show_rules(out, egress.ruleset, egress.image),
        None => Ok(writeln!(out, "  egress: everything passes")?),
    }
}

fn show_rules(out: &mut impl Write, ruleset: &Ruleset, image: &Image) -> Result<(), Failure> {
    let egress = match ruleset.direction {
        Direction::Ingress => "",
        Direction::Egress => ", egress",
    };
    writeln!(
        out,
        "endpoint {}{egress}: {} rules, tables of {}",
        ruleset.endpoint,
        ruleset.rules.len(),
        size(image.memory())
    )?;
    let combination = image.combination();
    writeln!(out, "  combined: {combination}: {}", combination.why())?;
    for rule in &ruleset.rules {
        writeln!(
            out,
            "  {} {} {}: {} {}",
            rule.id.stage.name(),
            rule.id.policy,
            index_of(rule),
            rule.action.name(),
            ruleset.words(rule)
        )?;
    }
    writeln!(out, "  default: {}", ruleset.default.name())?;
    Ok(())
}

fn json(report: &Report) -> Value {
    let endpoints: Vec<Value> = report
        .targets
        .iter()
        .map(|target| {
            json!({
                "endpoint": target.ruleset.endpoint,
                "interface": target.interface,
                "policies": target.policies,
                "rules": target.ruleset.rules.len(),
                "default": target.ruleset.default.name(),
                "combination": target.image.combination(),
                "memory": {"maps_bytes": target.image.memory()},
                "egress": target.egress_in_force(true).map(|egress| json!({
                    "rules": egress.ruleset.rules.len(),
                    "default": egress.ruleset.default.name(),
                    "combination": egress.image.combination(),
                    "memory": {"maps_bytes": egress.image.memory()},
                })),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "valid": report.model.is_some() && report.failure.is_none() && !report.denied,
        "diagnostics": report.diagnostics,
        "endpoints": endpoints,
    })
}
