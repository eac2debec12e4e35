//! `nodewall convert`.

use std::io::{Write as _, stdout};

use clap::{Args, ValueEnum};

use super::args::{EndpointFlags, Files, Global, WarningFlags};
use super::compiled::{self, errors};
use super::error::Failure;
use super::output::{count, message, note};
use crate::policy::print::{self, PrintOptions};
use crate::policy::{self, Host, Labels, diagnostic};

/// Turn policies of any format into Calico v3, on stdout
///
/// What comes out decides every packet as what went in. Comments are lost, and
/// so is what nodewall doesn't read, such as annotations. Warnings say what v3
/// says in other words; what it can't say is an error, and nothing is printed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall convert -f calico-v1.yaml > calico-v3.yaml
  nodewall convert -f ingress-node-firewall.yaml --node worker-1 -o json
  nodewall convert -R -f policies.d | nodewall diff -f - --interface eth0")]
pub(super) struct Convert {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    endpoint: EndpointFlags,

    #[command(flatten)]
    warnings: WarningFlags,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "yaml")]
    output: YamlOrJson,
}

/// YAML or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum YamlOrJson {
    /// A stream of documents
    Yaml,
    /// One list
    Json,
}

impl Convert {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let show = |found: &[policy::Diagnostic], sources: &[policy::Source]| {
            message(&diagnostic::render(
                found,
                sources,
                global.color.on_stderr(),
            ));
        };
        let filenames = &self.files.filenames;
        let sources = policy::load(filenames, self.files.recursive).map_err(Failure::failed)?;
        let checked = policy::check(&sources);
        show(&checked.diagnostics, &sources);
        let Some(model) = checked.model else {
            let errors = count(errors(&checked.diagnostics), "error", "errors");
            return Err(Failure::failed(format_args!(
                "the policy files have {errors}, shown above"
            )));
        };
        let labels: Labels = self.endpoint.labels.iter().cloned().collect();
        let host = Host {
            node: self.endpoint.node.clone(),
            ..Host::default()
        };
        // Without any endpoint the policies stand for themselves.
        let named = &self.endpoint.interface;
        let endpoints = if model.endpoints().is_empty() || !named.is_empty() {
            match policy::endpoints_for(&model, named, &labels, &host) {
                Ok(endpoints) if model.endpoints().is_empty() => endpoints,
                Ok(_) | Err(policy::EndpointError::None) => Vec::new(),
                Err(error) => return Err(Failure::failed(error)),
            }
        } else {
            Vec::new()
        };
        let printed = print::print(
            &model,
            &PrintOptions {
                node: self.endpoint.node.as_deref(),
                endpoints: &endpoints,
                in_force_on: None,
            },
        );
        show(&printed.diagnostics, &sources);
        if errors(&printed.diagnostics) > 0 {
            return Err(Failure::failed(
                "not all of it can be said in Calico v3, as shown above; nothing was printed",
            ));
        }
        compiled::deny_warnings(self.warnings, &printed.diagnostics)?;
        let node_missing = (model.endpoints().iter()).any(|endpoint| endpoint.node().is_none())
            || !endpoints.is_empty();
        if self.endpoint.node.is_none() && node_missing {
            note(
                global.color,
                "v3 endpoints need a node, and some of these have none: they get `this-node`. \
                 --node NAME gives them another",
            );
        }
        let values = printed.complete();
        match self.output {
            YamlOrJson::Yaml => stdout().write_all(print::to_yaml(&values).as_bytes())?,
            YamlOrJson::Json => writeln!(stdout(), "{:#}", print::to_list(&values))?,
        }
        Ok(())
    }
}
