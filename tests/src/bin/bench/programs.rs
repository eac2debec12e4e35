//! Specialisation: what a ruleset does not use costs nothing. The program of
//! each of some small rulesets, as the kernel has it, and what it takes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;
use tests::synthetic::{self, Families, Flavour};

use crate::row::Row;
use crate::{Plan, blocklist, policy};

/// From the least to the most that rulesets use.
pub(crate) fn measure(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let rows = policies(plan, folder.path())?
        .into_iter()
        .map(|(name, file)| Row::file(file).bare().measure(name, plan));
    Ok(rows.collect())
}

const DEFAULT_DENY: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: deny
spec:
  selector: all()
  types: [Ingress]
";

fn policies(plan: &Plan, folder: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let of = |name: &str, rule: &str| policy::rules(folder, name, &[rule.to_owned()]);
    let list = |name: &str, v6: bool| {
        policy::blocklist(folder, name, &blocklist::random(1_000, v6, 1), "Allow")
    };
    let put = |name: &str, policy: &str| -> Result<PathBuf> {
        let file = folder.join(name);
        fs::write(&file, policy)?;
        Ok(file)
    };
    let port = "protocol: TCP\ndestination:\n  ports: [23]";
    let mut all = vec![
        ("all is allowed", of("nothing", "action: Allow")?),
        ("default-deny alone", put("deny.yaml", DEFAULT_DENY)?),
        (
            "a port of IPv4",
            of("v4", &format!("action: Deny\nipVersion: 4\n{port}"))?,
        ),
        ("a port", of("port", &format!("action: Deny\n{port}"))?),
        ("1,000 IPv4 networks", list("list-v4", false)?),
        ("1,000 IPv6 networks", list("list-v6", true)?),
        (
            "a port and a source port",
            of(
                "sport",
                &format!("action: Deny\n{port}\nsource:\n  ports: [53]"),
            )?,
        ),
        (
            "an ICMP type",
            of("icmp", "action: Deny\nprotocol: ICMP\nicmp:\n  type: 8")?,
        ),
        (
            "both addresses (dense)",
            of(
                "both",
                "action: Deny\nsource:\n  nets: [198.51.100.0/24]\ndestination:\n  nets: \
                 [192.0.2.0/25]",
            )?,
        ),
    ];
    if !plan.quick {
        let rules = synthetic::rules(Flavour::Acl, Families::V4, 10_000, 1);
        let policy = synthetic::policy(&rules);
        all.push(("acl, 10,000 rules (parts)", put("acl.yaml", &policy)?));
    }
    Ok(all)
}
