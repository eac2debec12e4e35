//! Policy files, as a user would write them, and what comes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use filter_user::policy::{self, Host, Labels, SelectOptions, Severity};
use filter_user::ruleset::{Direction, Ruleset};
use ipnet::IpNet;

use crate::blocklist;

/// The interface that the policies are for.
pub(crate) const INTERFACE: &str = "eth0";

/// What one endpoint's rules are, by the same way as `nodewall apply`.
pub(crate) fn ruleset(file: &Path) -> Result<Ruleset> {
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
    let endpoints =
        policy::endpoints_for(&model, &[INTERFACE.to_owned()], &Labels::default(), &host)?;
    let endpoint = policy::only_endpoint(endpoints)?;
    let options = SelectOptions::default();
    Ok(policy::select(&model, &endpoint, Direction::Ingress, &options).ruleset)
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
