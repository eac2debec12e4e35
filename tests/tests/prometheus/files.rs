//! What `deploy` has: rules, their tests, and the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The files of rules, as Prometheus is to load them.
pub(crate) const RULES: [&str; 2] = ["recording.rules.yaml", "alerts.rules.yaml"];
/// The files of their tests.
pub(crate) const TESTS: [&str; 2] = ["recording_test.yaml", "alerts_test.yaml"];

/// The folder `deploy`.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(path: &str) -> String {
    let path = folder().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(file: &str) -> Value {
    let text = read(&format!("prometheus/{file}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An alert.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) severity: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) runbook: String,
}

/// All rules there are.
pub(crate) struct Rules {
    /// The expression of each recorded series.
    pub(crate) recorded: BTreeMap<String, String>,
    pub(crate) alerts: Vec<Alert>,
}

impl Rules {
    pub(crate) fn read() -> Self {
        let mut rules = Self {
            recorded: BTreeMap::new(),
            alerts: Vec::new(),
        };
        for file in RULES {
            let file = yaml(file);
            let groups = list(&file["groups"]).iter();
            for rule in groups.flat_map(|group| list(&group["rules"])) {
                let expression = text(&rule["expr"]);
                if rule["record"].is_string() {
                    rules.recorded.insert(text(&rule["record"]), expression);
                } else {
                    let annotations = &rule["annotations"];
                    rules.alerts.push(Alert {
                        name: text(&rule["alert"]),
                        expression,
                        severity: text(&rule["labels"]["severity"]),
                        summary: text(&annotations["summary"]),
                        description: text(&annotations["description"]),
                        runbook: text(&annotations["runbook_url"]),
                    });
                }
            }
        }
        assert!(!rules.alerts.is_empty() && !rules.recorded.is_empty());
        rules
    }
}

/// What the unit tests expect.
pub(crate) struct Tests {
    /// Of alerts, at a time.
    pub(crate) alerts: Vec<Value>,
    /// Of expressions: each with how many samples are to come of it.
    pub(crate) expressions: Vec<(String, usize)>,
}

pub(crate) fn tests() -> Tests {
    let mut tests = Tests {
        alerts: Vec::new(),
        expressions: Vec::new(),
    };
    for file in TESTS {
        let file = yaml(file);
        for test in list(&file["tests"]) {
            tests
                .alerts
                .extend_from_slice(list(&test["alert_rule_test"]));
            let expressions = list(&test["promql_expr_test"]).iter();
            tests.expressions.extend(
                expressions.map(|test| (text(&test["expr"]), list(&test["exp_samples"]).len())),
            );
        }
    }
    tests
}

/// The dashboard.
pub(crate) struct Dashboard {
    pub(crate) json: Value,
    pub(crate) panels: Vec<Value>,
}

impl Dashboard {
    pub(crate) fn read() -> Self {
        let json: Value = serde_json::from_str(&read("grafana/nodewall.json")).unwrap();
        let panels = list(&json["panels"]).to_vec();
        assert!(!panels.is_empty());
        Self { json, panels }
    }

    /// All that it asks, each with where: panels, annotations, and what its variables can
    /// be.
    pub(crate) fn expressions(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for panel in &self.panels {
            for target in list(&panel["targets"]) {
                all.push((text(&panel["title"]), text(&target["expr"])));
            }
        }
        for annotation in list(&self.json["annotations"]["list"]) {
            if annotation["builtIn"].is_null() {
                all.push((text(&annotation["name"]), text(&annotation["expr"])));
            }
        }
        for variable in list(&self.json["templating"]["list"]) {
            if variable["type"] == "query" {
                // `label_values(SERIES, LABEL)`
                let query = text(&variable["query"]["query"]);
                let inner = query.strip_prefix("label_values(").unwrap();
                let inner = inner.strip_suffix(')').unwrap();
                let (series, label) = inner.rsplit_once(", ").unwrap();
                all.push((query.clone(), format!("count by ({label}) ({series})")));
            }
        }
        all
    }
}

/// The names of nodewall's metrics, and of recorded series, in an expression.
pub(crate) fn names(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // What stands in quotes is a value.
    for outside in expression.split('"').step_by(2) {
        let words = outside.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
        names.extend(
            words
                .filter(|word| word.contains("nodewall_"))
                .map(str::to_owned),
        );
    }
    names
}
