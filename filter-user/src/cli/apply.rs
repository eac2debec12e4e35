//! `nodewall apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Write as _, stdout};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, value_parser};
use jiff::SignedDuration;
use nix::net::if_::if_nametoindex;

use super::args::{Files, Global};
use super::compiled::Target;
use super::diff::same_content;
use super::error::Failure;
use super::output::{note, size, time};
use super::put::{MOST_SAMPLES, Put, PutFlags};
use super::times::Times;
use crate::datapath::{self, Applied, Compiled, Datapath};
use crate::policy::PROFILE_PREFIX;
use crate::privileges::{self, Keep};
use crate::ruleset::{Rule, Ruleset, Stage};

const SHORTEST_TRIAL: Duration = Duration::from_secs(1);
const LONGEST_TRIAL: Duration = Duration::from_hours(24);

/// Put policies in force, atomically, and exit
///
/// Everything is checked and compiled first; on any error nothing changes. The
/// filter then works without any process, until `nodewall detach`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall apply -f policy.yaml --interface eth0 --label ibm.role=worker_public
  nodewall apply -R -f /etc/nodewall/policies.d       (with host endpoints)
  nodewall apply -f policy.yaml --interface eth0 --dry-run
  nodewall apply -f policy.yaml --interface eth0 --confirm 30s")]
pub(super) struct Apply {
    #[command(flatten)]
    files: Files,

    /// Say what would be done, and change nothing. Needs no privileges, but
    /// to compare with what is in force
    #[arg(long)]
    dry_run: bool,

    /// Put them on trial: after this time (30s, 5m) the kernel goes back to what was in
    /// force before, by itself, unless `nodewall confirm` was said
    #[arg(long, value_name = "TIME", value_parser = trial_time, conflicts_with = "dry_run")]
    confirm: Option<Duration>,

    /// Show how long each step took
    #[arg(short, long)]
    verbose: bool,

    /// Report up to this many dropped packets a second and CPU, which
    /// `nodewall observe` shows; 0 reports none and costs nothing
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        env = "NODEWALL_SAMPLE_DROPS",
        value_parser = value_parser!(u32).range(..=MOST_SAMPLES)
    )]
    sample_drops: u32,

    #[command(flatten)]
    put: PutFlags,
}

impl Apply {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let times = Rc::default();
        let put = Put {
            flags: &self.put,
            files: &self.files,
            sample_drops: self.sample_drops,
            global,
        };
        let targets = self
            .targets(&put, &times)
            .map_err(|failure| failure.and("Nothing was changed."))?;
        put.warn_of_lockout(&targets)?;
        let mut datapath = put.datapath()?.on_trial(self.confirm);
        if !self.dry_run {
            datapath.mount()?;
            datapath = datapath.knowing_names();
        }
        // All is read, and asked for, that takes more.
        privileges::give_up_all_but(Keep::Kernel)?;
        if self.dry_run {
            dry_run(&put, &datapath, &targets)?;
        } else {
            apply(&put, &datapath, &targets, &times)?;
        }
        if self.verbose {
            writeln!(stdout(), "{times}")?;
        }
        Ok(())
    }

    /// Compiles for every endpoint, and finds what can be found before any
    /// interface is changed.
    fn targets(&self, put: &Put<'_>, times: &Rc<Times>) -> Result<Vec<Target>, Failure> {
        let targets = put.targets(times, &Rc::default())?;
        // One interface that is missing is the datapath's to explain.
        if targets.len() > 1 && !self.dry_run {
            for interface in targets.iter().map(|target| target.interface.as_str()) {
                if_nametoindex(interface).map_err(|error| {
                    Failure::failed(format_args!(
                        "interface {interface:?}: {}. `ip link` shows the interfaces of this \
                         network namespace.",
                        error.desc()
                    ))
                })?;
            }
        }
        Ok(targets)
    }
}

fn apply(
    put: &Put<'_>,
    datapath: &Datapath,
    targets: &[Target],
    times: &Times,
) -> Result<(), Failure> {
    // Whether somebody reads the answers doesn't change what is done.
    let mut printed = Ok(());
    for (done, target) in targets.iter().enumerate() {
        let applied = match put.apply(datapath, target) {
            Ok(applied) => applied,
            Err(error) if targets.len() == 1 => return Err(error.into()),
            Err(error) => {
                let (changed, rest) = targets.split_at(done);
                return Err(Failure::from(error).and(&format!(
                    "All in all, changed: {}; not changed: {}.",
                    names(changed),
                    names(rest)
                )));
            }
        };
        times.add("load", applied.spent.load);
        times.add("swap", applied.spent.swap);
        times.add("carry", applied.spent.carry);
        if printed.is_ok() {
            printed = print(target, put.egress(target), &applied);
        }
    }
    printed.map_err(Failure::though_done)
}

fn names(targets: &[Target]) -> String {
    let names: Vec<&str> = targets
        .iter()
        .map(|target| target.interface.as_str())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn print(target: &Target, egress: Option<Compiled<'_>>, applied: &Applied) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let before = Rulesets {
        ingress: applied.before.as_deref(),
        egress: applied.egress_before.as_deref(),
    };
    let after = Rulesets {
        ingress: Some(&target.ruleset),
        egress: egress.map(|egress| egress.ruleset),
    };
    for (policy, change) in changes(before, after, &target.policies) {
        writeln!(out, "policy {policy}: {change}")?;
    }
    writeln!(
        out,
        "{}: generation {} in force, {} mode, {} rules, tables of {}",
        target.interface,
        applied.generation,
        applied.mode.name(),
        target.ruleset.rules.len(),
        size(target.image.memory())
    )?;
    if let Some(egress) = egress {
        writeln!(
            out,
            "{}: egress: {} rules, tables of {}",
            target.interface,
            egress.ruleset.rules.len(),
            size(egress.image.memory())
        )?;
    }
    if let Some(until) = applied.until {
        writeln!(
            out,
            "{}: on trial until {}: `nodewall confirm` keeps it, else the kernel goes back to {}",
            target.interface,
            time(until),
            match applied.before {
                Some(_) => "the policies from before",
                None => "no filter",
            }
        )?;
    }
    Ok(())
}

/// A time that something may be on trial.
fn trial_time(text: &str) -> Result<Duration, String> {
    let time = text
        .parse::<SignedDuration>()
        .map_err(|error| error.to_string())?;
    let time = Duration::try_from(time).map_err(|_| "a time lies ahead".to_owned())?;
    if (SHORTEST_TRIAL..=LONGEST_TRIAL).contains(&time) {
        Ok(time)
    } else {
        Err("from 1s to 24h".to_owned())
    }
}

fn dry_run(put: &Put<'_>, datapath: &Datapath, targets: &[Target]) -> Result<(), Failure> {
    let color = put.global.color;
    let in_force = match datapath.status() {
        Ok(in_force) => Some(in_force),
        Err(datapath::Error::Privileges(_)) => {
            note(
                color,
                "not compared with what is in force now, which only root may read",
            );
            None
        }
        Err(error) => {
            note(
                color,
                format_args!("not compared with what is in force now: {error}"),
            );
            None
        }
    };
    let mut out = stdout().lock();
    for target in targets {
        let egress = put.egress(target);
        let after = Rulesets {
            ingress: Some(&target.ruleset),
            egress: egress.map(|egress| egress.ruleset),
        };
        let before = in_force.as_ref().map(|all| {
            let here = all.iter();
            let mut here = here.filter(|status| status.interface == target.interface);
            here.next()
                .map_or_else(Rulesets::default, |status| Rulesets {
                    ingress: Some(&status.ruleset),
                    egress: status.egress.as_ref().map(|egress| &*egress.ruleset),
                })
        });
        match before {
            Some(before) => {
                for (policy, change) in changes(before, after, &target.policies) {
                    let would_be = if change == Change::Unchanged {
                        "would be left"
                    } else {
                        "would be"
                    };
                    writeln!(out, "policy {policy}: {would_be} {change}")?;
                }
            }
            None => {
                for policy in &target.policies {
                    writeln!(out, "policy {policy}: would be in force")?;
                }
            }
        }
        writeln!(
            out,
            "{}: {} rules, tables of {} (dry run: nothing was changed)",
            target.interface,
            target.ruleset.rules.len(),
            size(target.image.memory())
        )?;
        if let Some(egress) = egress {
            writeln!(
                out,
                "{}: egress: {} rules, tables of {} (likewise)",
                target.interface,
                egress.ruleset.rules.len(),
                size(egress.image.memory())
            )?;
        }
    }
    Ok(())
}

/// What is, or is to be, in force on an interface.
#[derive(Clone, Copy, Default)]
struct Rulesets<'a> {
    ingress: Option<&'a Ruleset>,
    egress: Option<&'a Ruleset>,
}

impl<'a> Rulesets<'a> {
    fn all(self) -> impl Iterator<Item = &'a Ruleset> {
        self.ingress.into_iter().chain(self.egress)
    }
}

/// What becomes of a policy on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Created,
    Configured,
    Unchanged,
    Removed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        })
    }
}

/// What becomes of each policy: its rules before and after, by name. Where a
/// rule was written is no part of it. A policy without rules is among
/// `selected` alone, so it is new each time.
fn changes<'a>(
    before: Rulesets<'a>,
    after: Rulesets<'a>,
    selected: &'a [String],
) -> BTreeMap<&'a str, Change> {
    let (old, new) = (of_policies(before), of_policies(after));
    let known: BTreeSet<&str> = selected.iter().map(String::as_str).collect();
    let policies = old.keys().copied().chain(known.iter().copied());
    policies
        .map(|policy| {
            let change = match (old.get(policy), new.get(policy)) {
                _ if !known.contains(policy) => Change::Removed,
                (Some(old), Some(new)) => {
                    let same = old.len() == new.len()
                        && old
                            .iter()
                            .zip(new)
                            .all(|(old, new)| same_content(*old, *new));
                    if same {
                        Change::Unchanged
                    } else {
                        Change::Configured
                    }
                }
                (Some(_), None) => Change::Configured,
                (None, _) => Change::Created,
            };
            (policy, change)
        })
        .collect()
}

/// Whether a policy's document has this rule.
fn of_a_policy(rule: &Rule) -> bool {
    rule.id.stage != Stage::Failsafe
        && !rule.is_default()
        && !rule.id.policy.starts_with(PROFILE_PREFIX)
}

/// The rules of each policy, in order, each with its ruleset.
fn of_policies(rulesets: Rulesets<'_>) -> BTreeMap<&str, Vec<(&Ruleset, &Rule)>> {
    let mut policies: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for ruleset in rulesets.all() {
        for rule in ruleset.rules.iter().filter(|rule| of_a_policy(rule)) {
            let rules = policies.entry(&*rule.id.policy).or_default();
            rules.push((ruleset, rule));
        }
    }
    policies
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ruleset::{Action, Direction, Match, NetSet, Options, RuleId};

    fn rule(policy: &str, protocol: u8) -> Rule {
        Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: policy.into(),
                direction: Direction::Ingress,
                index: Some(0),
            },
            tier: None,
            action: Action::Deny,
            staged: false,
            matches: vec![Match {
                protocol: Some(protocol),
                ..Match::default()
            }],
            source: None,
        }
    }

    #[test]
    fn each_policy_is_created_configured_unchanged_or_removed() {
        let ruleset = |sets: &[&str], rules: &[Rule]| Ruleset {
            endpoint: "eth0".into(),
            direction: Direction::Ingress,
            sets: sets
                .iter()
                .map(|net| NetSet {
                    name: "selector x".into(),
                    nets: Arc::new(vec![net.parse().expect("a network")]),
                })
                .collect(),
            rules: rules.to_vec(),
            default: Action::Deny,
            options: Options::default(),
        };
        let from_set = |policy: &str, set: u32| {
            let mut rule = rule(policy, 6);
            rule.matches[0].src.sets = vec![set];
            rule
        };
        // The number of a set may change, and its content is what counts.
        let before = ruleset(
            &["10.0.0.0/8", "192.0.2.0/24"],
            &[
                rule("same", 6),
                rule("other", 6),
                rule("gone", 6),
                from_set("same-set", 1),
                from_set("other-set", 0),
            ],
        );
        let after = ruleset(
            &["192.0.2.0/24"],
            &[
                rule("same", 6),
                rule("other", 17),
                rule("new", 6),
                from_set("same-set", 0),
                from_set("other-set", 0),
            ],
        );
        let selected =
            ["same", "other", "new", "no-rules", "same-set", "other-set"].map(str::to_owned);
        let of = |ingress| Rulesets {
            ingress: Some(ingress),
            egress: None,
        };
        let changes: Vec<_> = changes(of(&before), of(&after), &selected)
            .into_iter()
            .collect();
        assert_eq!(
            changes,
            [
                ("gone", Change::Removed),
                ("new", Change::Created),
                ("no-rules", Change::Created),
                ("other", Change::Configured),
                ("other-set", Change::Configured),
                ("same", Change::Unchanged),
                ("same-set", Change::Unchanged),
            ]
        );
    }
}
