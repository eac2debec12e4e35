//! `nodewall apply`.

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};

use clap::{Args, ValueEnum};

use super::args::{EndpointFlags, Files, Global, OptionFlags};
use super::compiled::{self, Request, Target};
use super::error::Failure;
use super::output::size;
use crate::datapath::{Datapath, Mode};
use crate::ruleset::{Action, Match, Rule, RuleId, Stage};

/// Put policies in force, atomically, and exit
///
/// Everything is checked and compiled first; on any error nothing changes. The
/// filter then works without any process, until `nodewall detach`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall apply -f policy.yaml --interface eth0 --label ibm.role=worker_public
  nodewall apply -R -f /etc/nodewall/policies.d           endpoints from the files
  nodewall apply -f policy.yaml --interface eth0 --dry-run")]
pub(super) struct Apply {
    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    endpoint: EndpointFlags,

    /// Where the program runs
    #[arg(long, value_enum, default_value = "auto", env = "NODEWALL_MODE")]
    mode: ModeFlag,

    /// Do everything but load and swap
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    options: OptionFlags,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    /// In the driver where it can, else in the network stack
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the network stack: any interface, at a lower rate
    Generic,
}

impl Apply {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let request = Request::new(&self.files, &self.endpoint, &self.options, global);
        let targets = compiled::all_targets(&request)?;
        let mut interfaces = Vec::new();
        for target in &targets {
            let interface = target.interface.as_str();
            if interfaces.contains(&interface) {
                return Err(Failure::failed(format_args!(
                    "two host endpoints are for interface {interface}; nothing was changed"
                )));
            }
            interfaces.push(interface);
        }
        if self.dry_run {
            for (target, interface) in targets.iter().zip(&interfaces) {
                writeln!(
                    stdout(),
                    "{interface}: {} rules, tables of {} (dry run: nothing was changed)",
                    target.ruleset.rules.len(),
                    size(target.image.memory())
                )?;
            }
            return Ok(());
        }

        let datapath = Datapath::open(&global.pin_root)?;
        let mode = match self.mode {
            ModeFlag::Auto => Mode::Auto,
            ModeFlag::Native => Mode::Native,
            ModeFlag::Generic => Mode::Generic,
        };
        for (done, (target, interface)) in targets.iter().zip(&interfaces).enumerate() {
            if let Err(error) = apply_one(&datapath, target, interface, mode) {
                if interfaces.len() > 1 {
                    eprintln!(
                        "changed: {}; not changed: {}",
                        if done == 0 {
                            "none".to_owned()
                        } else {
                            interfaces[..done].join(", ")
                        },
                        interfaces[done..].join(", ")
                    );
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

fn apply_one(
    datapath: &Datapath,
    target: &Target,
    interface: &str,
    mode: Mode,
) -> Result<(), Failure> {
    let applied = datapath.apply(interface, mode, &target.ruleset, &target.image)?;
    let mut out = stdout().lock();
    for (policy, change) in changes(applied.before.as_deref(), &target.ruleset.rules) {
        writeln!(out, "policy {policy}: {change}")?;
    }
    writeln!(
        out,
        "{interface}: generation {} in force, {} mode, {} rules, tables of {}",
        applied.generation,
        applied.mode.name(),
        target.ruleset.rules.len(),
        size(target.image.memory())
    )?;
    if applied.mode == Mode::Generic && mode == Mode::Auto {
        eprintln!(
            "warning: {interface} has no native XDP, so the filter runs in generic mode, behind the \
             driver: the verdicts are the same, the packet rate is lower"
        );
    }
    Ok(())
}

/// What became of each policy: its rules before and after, by name. Where a
/// rule was written is no part of it.
fn changes<'a>(before: Option<&'a [Rule]>, after: &'a [Rule]) -> BTreeMap<&'a str, &'static str> {
    fn of<'a>(rules: &'a [Rule], policy: &str) -> Vec<(&'a RuleId, Action, &'a Match)> {
        rules
            .iter()
            .filter(|rule| rule.id.stage != Stage::Failsafe && *rule.id.policy == *policy)
            .map(|rule| (&rule.id, rule.action, &rule.matches))
            .collect()
    }
    let before = before.unwrap_or_default();
    before
        .iter()
        .chain(after)
        .filter(|rule| rule.id.stage != Stage::Failsafe)
        .map(|rule| &*rule.id.policy)
        .map(|policy| {
            let (old, new) = (of(before, policy), of(after, policy));
            let change = if new.is_empty() {
                "removed"
            } else if old.is_empty() {
                "created"
            } else if old == new {
                "unchanged"
            } else {
                "configured"
            };
            (policy, change)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Direction;

    fn rule(policy: &str, protocol: u8) -> Rule {
        Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: policy.into(),
                direction: Direction::Ingress,
                index: 0,
            },
            action: Action::Deny,
            matches: Match {
                protocol: Some(protocol),
                ..Match::default()
            },
            source: None,
        }
    }

    #[test]
    fn each_policy_is_created_configured_unchanged_or_removed() {
        let before = [rule("same", 6), rule("other", 6), rule("gone", 6)];
        let after = [rule("same", 6), rule("other", 17), rule("new", 6)];
        let changes: Vec<_> = changes(Some(&before), &after).into_iter().collect();
        assert_eq!(
            changes,
            [
                ("gone", "removed"),
                ("new", "created"),
                ("other", "configured"),
                ("same", "unchanged")
            ]
        );
    }
}
