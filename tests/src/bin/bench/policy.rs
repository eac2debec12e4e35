//! Policy files, as a user would write them, and what comes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use filter_user::policy::{self, Failsafe, Host, Labels, SelectOptions, Severity};
use filter_user::ruleset::{Action, Direction, Match, Options, Rule, RuleId, Ruleset, Stage};
use ipnet::IpNet;

use crate::blocklist;

/// The interface that the policies are for.
pub(crate) const INTERFACE: &str = "eth0";

/// What one endpoint's rules are, by the same way as `nodewall apply`.
pub(crate) fn ruleset(file: &Path) -> Result<Ruleset> {
    ruleset_with(file, &SelectOptions::default())
}

/// Rules of policies alone: no port stays open beside them.
pub(crate) fn bare() -> SelectOptions {
    SelectOptions {
        failsafe: Failsafe::NONE,
        ..SelectOptions::default()
    }
}

/// The same with other options.
pub(crate) fn ruleset_with(file: &Path, options: &SelectOptions) -> Result<Ruleset> {
    let sources = policy::load(&[file.to_owned()], false)?;
    let checked = policy::check(&sources);
    let first = checked
        .diagnostics
        .iter()
        .find(|found| found.severity == Severity::Error);
    let Some(model) = checked.model else {
        bail!(
            "{}: {:?}",
            file.display(),
            first.map(|first| &first.message)
        );
    };
    let host = Host {
        node: None,
        node_is_certain: false,
        interfaces: Vec::new(),
    };
    // The example's policy asks for it, and all others for nothing.
    let labels = Labels::from([("ibm.role".to_owned(), "worker_public".to_owned())]);
    let endpoints = policy::endpoints_for(&model, &[INTERFACE.to_owned()], &labels, &host)?;
    let endpoint = policy::only_endpoint(endpoints)?;
    Ok(policy::select(&model, &endpoint, Direction::Ingress, options).ruleset)
}

/// So many rules, each of which denies a network: so many counters. (A policy
/// of Calico's has 1,024 at most; here is one that has all.)
pub(crate) fn networks(count: usize) -> Ruleset {
    let rule = |(index, net): (u32, IpNet)| Rule {
        id: RuleId {
            stage: Stage::PreDnat,
            policy: "networks".into(),
            direction: Direction::Ingress,
            index: Some(index),
        },
        tier: None,
        action: Action::Deny,
        staged: false,
        matches: vec![Match {
            src: vec![net].into(),
            ..Match::default()
        }],
        source: None,
    };
    Ruleset {
        endpoint: INTERFACE.to_owned(),
        direction: Direction::Ingress,
        sets: Vec::new(),
        rules: (0..)
            .zip(blocklist::random(count, false, 1))
            .map(rule)
            .collect(),
        default: Action::Allow,
        options: Options::default(),
    }
}

/// A policy that denies sources in a list file; the rest is for `rest`.
pub(crate) fn blocklist(folder: &Path, name: &str, nets: &[IpNet], rest: &str) -> Result<PathBuf> {
    let list = blocklist::lines(nets, IpNet::to_string);
    fs::write(folder.join(format!("{name}.txt")), list)?;
    let file = folder.join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: blocked
  labels:
    role: blocked
  annotations:
    nodewall.io/nets-from: {name}.txt
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: block
spec:
  selector: all()
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - action: Deny
    source:
      selector: role == 'blocked'
  - action: {rest}
"
    );
    fs::write(&file, text).context("cannot write a policy")?;
    Ok(file)
}

/// A policy of these rules, each the lines below its `- action`.
pub(crate) fn rules(folder: &Path, name: &str, rules: &[String]) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.yaml"));
    let mut text = String::from(
        "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: rules
spec:
  selector: all()
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
",
    );
    for rule in rules {
        text.push_str("  - ");
        text.push_str(&rule.trim_end().replace('\n', "\n    "));
        text.push('\n');
    }
    fs::write(&file, text).context("cannot write a policy")?;
    Ok(file)
}
