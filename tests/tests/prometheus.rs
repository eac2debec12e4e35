//! The files of `deploy` and the daemon's metrics, before a real Prometheus: what the
//! rules, alerts and the dashboard ask is there, and is what nodewall counts.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "prometheus/files.rs"]
mod files;
#[path = "prometheus/server.rs"]
mod server;
#[path = "common/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use files::{Alert, Dashboard, Rules, folder};
use serde_json::Value;
use server::Prometheus;
use servers::{DAEMON, get, settle, start, write};
use tests::lab::{Limit, Node, Side};
use tests::packet::{Ethernet, Ipv4, Payload, Tcp, Udp};
use tests::require;

/// Runs `promtool` in the folder of the rules.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(folder().join("prometheus"))
        .output()
        .expect("promtool is there: `cargo xtask setup` brings it");
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_has_nothing_against_the_files() {
    let rules = files::RULES;
    promtool(&[&["check", "rules", "--lint-fatal"], &rules[..]].concat());
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&[&["test", "rules"], &files::TESTS[..]].concat());
}

/// An alert that was never seen to fire may not, and one that was never seen not to
/// may be on all the time.
#[test]
fn every_rule_is_tested_both_ways() {
    let rules = Rules::read();
    let tests = files::tests();
    for Alert { name, .. } in &rules.alerts {
        let expected = |test: &&Value| test["alertname"] == **name;
        let (fires, quiet): (Vec<_>, Vec<_>) =
            tests.alerts.iter().filter(expected).partition(|test| {
                test["exp_alerts"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
            });
        assert!(!fires.is_empty(), "no unit test lets {name} fire");
        assert!(!quiet.is_empty(), "no unit test keeps {name} quiet");
    }
    for test in &tests.alerts {
        let name = test["alertname"].as_str().unwrap();
        let known = rules.alerts.iter().any(|alert| alert.name == name);
        assert!(known, "a unit test is about {name}, which is no alert");
    }
    for name in rules.recorded.keys() {
        let tested = tests
            .expressions
            .iter()
            .any(|(expression, samples)| files::names(expression).contains(name) && *samples > 0);
        assert!(tested, "no unit test has a value for {name}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let manual = std::fs::read_to_string(folder().join("../docs/manual.md")).unwrap();
    let rules = Rules::read();
    let mut seen = BTreeSet::new();
    for alert in &rules.alerts {
        let name = &alert.name;
        assert!(seen.insert(name), "{name} is there twice");
        let severities = ["critical", "warning", "info"];
        assert!(
            severities.contains(&&*alert.severity),
            "{name} has the severity {:?}",
            alert.severity
        );
        assert!(!alert.summary.is_empty(), "{name} has no summary");
        // What to do is something to type.
        let says = &alert.description;
        let verbs = ["`nodewall ", "`curl "];
        assert!(
            verbs.iter().any(|verb| says.contains(verb)),
            "{name}: {says}"
        );
        let (page, anchor) = alert.runbook.split_once('#').unwrap();
        assert!(page.ends_with("docs/manual.md"), "{name}: {page}");
        assert_eq!(anchor, name.to_lowercase());
        let section = manual.lines().any(|line| line == format!("### {name}"));
        assert!(section, "docs/manual.md has no section {name}");
        let row = format!("| [{name}](#{anchor}) | {} |", alert.severity);
        assert!(manual.contains(&row), "docs/manual.md has no row {row}");
    }
}

#[test]
fn panels_say_what_they_are() {
    let dashboard = Dashboard::read();
    assert_eq!(dashboard.json["uid"], "nodewall");
    let mut ids = BTreeSet::new();
    let mut below = 0;
    for panel in &dashboard.panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another's"
        );
        let place = &panel["gridPos"];
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|side| place[side].as_u64().unwrap());
        assert!(
            x + width <= 24 && y + height >= below,
            "{title} is out of place"
        );
        below = y;
        if panel["type"] == "row" {
            continue;
        }
        let said = panel["description"].as_str().unwrap_or_default();
        assert!(!said.is_empty(), "{title} has no description");
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some(), "{title} has no unit");
        let targets = panel["targets"].as_array().unwrap();
        for asked in [panel].into_iter().chain(targets) {
            assert_eq!(asked["datasource"]["uid"], "${datasource}", "{title}");
        }
        if panel["type"] == "timeseries" {
            for target in targets {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                assert!(
                    !legend.is_empty() && legend != "__auto",
                    "{title} has no legend"
                );
            }
        }
    }
}

/// In: nothing to node ports, else tcp 8080 and pings. Out: all but what goes to udp 9001.
/// Answers to what goes out would be dropped, so flows are remembered.
const POLICIES: &str = "\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: worker, labels: {role: worker}}
spec: {node: worker, interfaceName: node0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-node-ports}
spec:
  selector: role == 'worker'
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: ['30000:32767']}}
  - {action: Deny, protocol: UDP, destination: {ports: ['30000:32767']}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: services}
spec:
  selector: role == 'worker'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
  - {action: Allow, protocol: TCP, destination: {ports: [8081]}}
  - {action: Allow, protocol: ICMP}
  egress:
  - {action: Deny, protocol: UDP, destination: {ports: [9001]}}
  - {action: Allow}
";

/// A flood of what is dropped for several reasons and by several rules, among what passes.
fn flood(node: &Node) {
    let to_node =
        |payload: &dyn Payload| Ethernet::default().carry(&Ipv4::default().carry(payload));
    let strange = Ipv4 {
        version: 5,
        ..Ipv4::default()
    };
    let malformed = Ethernet::default().carry(&strange.carry(&Tcp::to(8080)));
    let inwards = [
        to_node(&Tcp::to(30080)),
        to_node(&Tcp::to(8080)),
        to_node(&Udp::to(31000)),
        to_node(&Udp::to(9)),
        to_node(&Tcp::to(30443)),
        malformed,
    ];
    let lab = node.lab();
    lab.send(Side::Client, &inwards, &Limit::count(120_000))
        .unwrap();
    // By a plain socket: a raw one is told of what is dropped, and would send it again.
    let outwards = || {
        let socket = UdpSocket::bind((Side::Node.v4(), 0)).unwrap();
        for port in [9001, 53].into_iter().cycle().take(2_000) {
            // Nobody is there.
            let _ = socket.send_to(b"question", (Side::Client.v4(), port));
        }
    };
    lab.in_ns(Side::Node, outwards).unwrap();
}

/// The metrics as the daemon tells them, read as strictly as OpenMetrics has it: the names
/// of all series.
fn strict_names(node: &Node) -> BTreeSet<String> {
    let accept = "application/openmetrics-text; version=1.0.0";
    let (status, text) = get(node, DAEMON, "/metrics", accept).unwrap();
    assert_eq!(status, 200);
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", STRICT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    let names = String::from_utf8(output.stdout).unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

const STRICT: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        print(sample.name)
";

/// What the variables of the dashboard stand for.
fn substituted(expression: &str) -> String {
    let variables = [
        ("$__rate_interval", "2m"),
        ("$__range", "5m"),
        ("$__interval", "10s"),
        ("$instance", "worker|nobody"),
        ("$interface", "node0|nothing"),
    ];
    let mut expression = expression.to_owned();
    for (variable, value) in variables {
        expression = expression.replace(variable, value);
    }
    assert!(
        !expression.contains('$'),
        "a variable is unknown: {expression}"
    );
    expression
}

/// Dropped packets by interface, direction and reason, as `stats` has them.
fn stats(node: &Node) -> BTreeMap<[String; 3], u64> {
    let stats = node.json(&["stats"]);
    let mut dropped = BTreeMap::new();
    for of in stats["interfaces"].as_array().unwrap() {
        let reasons = of["reasons"].as_array().unwrap().iter();
        for reason in reasons.filter(|reason| reason["verdict"] == "drop") {
            let key = [&of["interface"], &of["direction"], &reason["reason"]];
            let key = key.map(|part| part.as_str().unwrap().to_owned());
            dropped.insert(key, reason["packets"].as_u64().unwrap());
        }
    }
    dropped
}

#[test]
fn prometheus_gets_what_rules_and_dashboard_ask_for() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    let policies = node.files().join("policies.d");
    fs::create_dir(&policies).unwrap();
    let policy = policies.join("policy.yaml");
    fs::write(&policy, POLICIES).unwrap();
    let mut daemon = start(
        &node,
        &["-f", policies.to_str().unwrap(), "--node", "worker"],
        &[],
    );
    let prometheus = Prometheus::start(&node);
    let generation = || prometheus.query("nodewall_policy_generation");
    settle("the daemon is scraped", || generation().len() == 1);

    // It is scraped before, so that the flood is an increase.
    flood(&node);

    // A mistake, and a change that is none.
    write(&policy, &POLICIES.replace("Deny", "Dany"));
    let failed = "nodewall_policy_reloads_total{result=\"failure\"}";
    settle("a failure is counted", || {
        prometheus
            .query(failed)
            .iter()
            .any(|(_, failures)| *failures > 0.0)
    });
    settle("the alert sees it", || {
        prometheus.alert("NodewallReloadFailed") == ["pending"]
    });
    write(&policy, &POLICIES.replace("8081", "8082"));
    settle("the change is in force", || {
        generation().iter().any(|(_, generation)| *generation > 1.0)
    });
    settle("the alert sees that too", || {
        prometheus.alert("NodewallReloadFailed").is_empty()
            && prometheus.alert("NodewallNotReady").is_empty()
    });

    let exported = strict_names(&node);
    let rules = Rules::read();
    let dashboard = Dashboard::read();
    let alerts = rules.alerts.iter();
    let asked = alerts.map(|alert| (alert.name.clone(), alert.expression.clone()));
    let asked = asked.chain(rules.recorded.clone());
    for (place, expression) in asked.chain(dashboard.expressions()) {
        for name in files::names(&expression) {
            let known = exported.contains(&name) || rules.recorded.contains_key(&name);
            assert!(known, "{place}: nodewall exports no {name}");
        }
    }
    for (place, expression) in dashboard.expressions() {
        let expression = substituted(&expression);
        // A rate needs two scrapes.
        settle(&format!("{place} has data: {expression}"), || {
            !prometheus.query(&expression).is_empty()
        });
    }
    for name in rules.recorded.keys() {
        settle(&format!("{name} has data"), || {
            !prometheus.query(name).is_empty()
        });
    }

    // All rules were evaluated, and are those of the files.
    let evaluated = prometheus.rules();
    assert_eq!(evaluated.len(), rules.alerts.len() + rules.recorded.len());
    for rule in &evaluated {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert!(rule["lastError"].is_null(), "{rule:#}");
    }
    for name in [
        "NodewallDropSpike",
        "NodewallNodePortAttack",
        "NodewallMalformedPackets",
    ] {
        settle(&format!("{name} sees the flood"), || {
            prometheus
                .alert(name)
                .iter()
                .any(|state| state == "pending" || state == "firing")
        });
    }
    for name in [
        "NodewallInternalDrops",
        "NodewallInterfaceDetached",
        "NodewallDown",
        "NodewallNotReady",
    ] {
        assert!(prometheus.alert(name).is_empty(), "{name} is on");
    }

    // To the packet: where nothing came between two looks, what was scraped last is that.
    let mut before = stats(&node);
    settle("Prometheus has what `stats` has", || {
        let scraped = prometheus.query("nodewall_dropped_packets_total");
        let after = stats(&node);
        let quiet = std::mem::replace(&mut before, after) == before;
        let scraped: BTreeMap<[String; 3], u64> = scraped
            .into_iter()
            .map(|(labels, packets)| {
                let key = ["interface", "direction", "reason"];
                let key = key.map(|label| labels[label].as_str().unwrap().to_owned());
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a counter far below 2^53"
                )]
                (key, packets as u64)
            })
            .collect();
        quiet && scraped == before
    });
    // Of each six frames that came in three were to node ports, and one passed; of those
    // that went out one of two.
    let to_node_ports = "sum(nodewall_rule_packets_total{policy=\"deny-node-ports\"})";
    let share = prometheus.query(to_node_ports)[0].1;
    assert!((share - 60_000.0).abs() < 0.5, "{share}");
    let dropped = |direction: &str| -> u64 {
        let of = before.iter().filter(|(key, _)| key[1] == direction);
        of.map(|(_, packets)| packets).sum()
    };
    assert!(dropped("ingress") >= 100_000, "{before:?}");
    assert_eq!(dropped("egress"), 1_000, "{before:?}");

    assert!(daemon.terminate().success());
    settle("the alert misses the daemon", || {
        prometheus.alert("NodewallDown") == ["pending"]
    });
}
