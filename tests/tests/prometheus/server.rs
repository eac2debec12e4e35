//! A Prometheus that scrapes the daemon, on its node.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::lab::{Node, Side};

use super::files::{self, folder};
use super::servers::{DAEMON, Process, get};

const PORT: u16 = 9090;

/// A Prometheus, with the rules of `deploy`.
pub(crate) struct Prometheus<'n> {
    node: &'n Node,
    _process: Process,
}

impl<'n> Prometheus<'n> {
    /// Starts one that scrapes the daemon each second, and remembers an hour in which one
    /// packet a second was dropped.
    pub(crate) fn start(node: &'n Node) -> Self {
        let home = node.files().join("prometheus");
        fs::create_dir(&home).unwrap();
        let rules = files::RULES.map(|file| folder().join("prometheus").join(file));
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}, {}]\n\
             scrape_configs:\n\
             - job_name: nodewall\n  static_configs:\n  - targets: [127.0.0.1:{DAEMON}]\n    \
             labels: {{instance: worker}}\n",
            rules[0].display(),
            rules[1].display()
        );
        let file = home.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let data = home.join("data");
        remember(&home, &data);
        let mut command = node.lab().command(Side::Node, "prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        let process = Process::new(node, "prometheus", &mut command);
        Self {
            node,
            _process: process.ready(node, PORT, "/-/ready"),
        }
    }

    fn ask(&self, path: &str) -> Value {
        let (status, body) = get(self.node, PORT, path, "application/json").unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"].clone()
    }

    /// What an expression comes to now: a list of series, each with its labels and value.
    pub(crate) fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        let data = self.ask(&path);
        let series = data["result"].as_array().unwrap().iter();
        series
            .map(|series| {
                let value = series["value"][1].as_str().unwrap().parse().unwrap();
                (series["metric"].clone(), value)
            })
            .collect()
    }

    /// All rules, as Prometheus has them.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let data = self.ask("/api/v1/rules");
        let groups = data["groups"].as_array().unwrap().iter();
        groups
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect()
    }

    /// The state of the alerts with this name: `pending` or `firing`; nothing where there
    /// are none.
    pub(crate) fn alert(&self, name: &str) -> Vec<String> {
        let all = self.query(&format!("ALERTS{{alertname=\"{name}\"}}"));
        all.iter()
            .map(|(labels, _)| labels["alertstate"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Puts an hour into a storage that is not there yet.
fn remember(home: &Path, data: &Path) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut text = "# TYPE nodewall_packets counter\n".to_owned();
    for direction in ["ingress", "egress"] {
        for minute in (9..=75).rev() {
            writeln!(
                text,
                "nodewall_packets_total{{job=\"nodewall\",instance=\"worker\",interface=\"{}\",\
                 direction=\"{direction}\",verdict=\"drop\"}} {} {}",
                Side::Node.interface(),
                (75 - minute) * 60,
                now - minute * 60
            )
            .unwrap();
        }
    }
    text += "# EOF\n";
    let file = home.join("history.txt");
    fs::write(&file, text).unwrap();
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, data])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool: {said}");
}
