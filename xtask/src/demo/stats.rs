//! What nodewall counted, read from its JSON.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The policy whose rules are of interest.
const POLICY: &str = "deny-kube-node-port-services";

/// Packets, by what decided about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// By the policy's two rules.
    pub(super) rules: [u64; 2],
    /// Fragments that hide their ports.
    pub(super) fragment: u64,
    /// All that was dropped.
    pub(super) dropped: u64,
    /// All that no rule decided and the default let pass.
    pub(super) passed: u64,
}

impl Stats {
    /// From what `nodewall stats -o json` prints.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text).context("nodewall stats printed no JSON")?;
        let interface = &all["interfaces"][0];
        let mut stats = Self::default();
        for rule in list(&interface["rules"])? {
            // The failsafe ports' rules are not the policy's.
            if rule["policy"] != POLICY {
                continue;
            }
            let index = usize::try_from(number(&rule["rule"])?)?;
            let slot = stats.rules.get_mut(index);
            *slot.context("a rule that the policy doesn't have")? = number(&rule["packets"])?;
        }
        for reason in list(&interface["reasons"])? {
            let packets = number(&reason["packets"])?;
            if reason["verdict"] == "drop" {
                stats.dropped += packets;
            }
            match reason["reason"].as_str() {
                Some("fragment") => stats.fragment += packets,
                Some("default_allow") => stats.passed += packets,
                _ => {}
            }
        }
        Ok(stats)
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            rules: [
                self.rules[0] - before.rules[0],
                self.rules[1] - before.rules[1],
            ],
            fragment: self.fragment - before.fragment,
            dropped: self.dropped - before.dropped,
            passed: self.passed - before.passed,
        }
    }

    /// Whether each number is at least the expected one.
    pub(super) fn reaches(&self, expected: &Self) -> bool {
        self.rules[0] >= expected.rules[0]
            && self.rules[1] >= expected.rules[1]
            && self.fragment >= expected.fragment
            && self.passed >= expected.passed
    }
}

/// The mode, from what `nodewall status -o json` prints.
pub(super) fn mode(text: &str) -> Result<String> {
    let all: Value = serde_json::from_str(text).context("nodewall status printed no JSON")?;
    let mode = all["interfaces"][0]["mode"].as_str();
    Ok(mode.context("nodewall status names no mode")?.to_owned())
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("nodewall stats printed no list")
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().context("nodewall stats printed no integer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_rule_and_reason() {
        let text = r#"{"schema":1,"interfaces":[{"interface":"node0",
            "rules":[{"policy":"failsafe","rule":4,"packets":99,"bytes":1},
                     {"policy":"deny-kube-node-port-services","rule":0,"packets":7,"bytes":1},
                     {"policy":"deny-kube-node-port-services","rule":1,"packets":5,"bytes":1}],
            "reasons":[{"reason":"policy_deny","verdict":"drop","packets":12,"bytes":1},
                       {"reason":"fragment","verdict":"drop","packets":2,"bytes":1},
                       {"reason":"default_allow","verdict":"pass","packets":9,"bytes":1}]}]}"#;
        let stats = Stats::parse(text).unwrap();
        let expected = Stats {
            rules: [7, 5],
            fragment: 2,
            dropped: 14,
            passed: 9,
        };
        assert_eq!(stats, expected);
        assert_eq!(stats.since(&expected), Stats::default());
    }
}
