//! Metrics that the daemon pushes, as a collector gets them: the same as `stats`, whether
//! the collector was there all the time or not, and nobody waits for one that hangs.
#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "otlp/receiver.rs"]
mod receiver;
#[path = "common/servers.rs"]
mod servers;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use receiver::{Labels, Received, Receiver};
use servers::{DAEMON, Process, get, settle, start, write};
use tests::lab::{Limit, Node, Side};
use tests::packet::{Ethernet, Ipv4, Tcp, Udp};
use tests::require;

const PORT: u16 = 4318;

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-node-ports}
spec:
  preDNAT: true
  applyOnForward: true
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: ['30000:32767']}}
  - {action: Deny, protocol: UDP, destination: {ports: ['30000:32767']}}
";

/// The daemon on a node, with these flags beside its policy.
fn daemon(node: &Node, flags: &[&str], environment: &[(&str, &str)]) -> Process {
    let policy = node.files().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let policy = policy.to_str().unwrap();
    let run = [
        "-f",
        policy,
        "--interface",
        Side::Node.interface(),
        "--node",
        "worker",
    ];
    start(node, &[&run, flags].concat(), environment)
}

fn flood(node: &Node) {
    let to = |frame: tests::packet::Packet| Ethernet::default().carry(&frame);
    let frames = [
        to(Ipv4::default().carry(&Tcp::to(30080))),
        to(Ipv4::default().carry(&Udp::to(31000))),
        to(Ipv4::default().carry(&Tcp::to(30443))),
    ];
    node.lab()
        .send(Side::Client, &frames, &Limit::count(30_000))
        .unwrap();
}

/// Dropped packets by interface, direction and reason, as `stats` has them.
fn stats(node: &Node) -> BTreeMap<Labels, i64> {
    let stats = node.json(&["stats"]);
    let mut dropped = BTreeMap::new();
    for of in stats["interfaces"].as_array().unwrap() {
        let reasons = of["reasons"].as_array().unwrap().iter();
        for reason in reasons.filter(|reason| reason["verdict"] == "drop") {
            let labels = ["interface", "direction", "reason"].map(|label| {
                let value = if label == "reason" {
                    &reason[label]
                } else {
                    &of[label]
                };
                (label.to_owned(), value.as_str().unwrap().to_owned())
            });
            dropped.insert(labels.into(), reason["packets"].as_i64().unwrap());
        }
    }
    dropped
}

fn dropped(received: &Received) -> BTreeMap<Labels, i64> {
    received.last("nodewall.dropped_packets")
}

/// Waits until what was pushed last is what `stats` has.
#[track_caller]
fn settle_on_stats(node: &Node, receiver: &Receiver) -> i64 {
    settle("the collector has what `stats` has", || {
        let now = stats(node);
        receiver.received(dropped) == now && stats(node) == now
    });
    receiver.received(dropped).values().sum()
}

/// A metric without labels, as a scraper gets it.
fn scraped(node: &Node, series: &str) -> u64 {
    let (status, text) = get(node, DAEMON, "/metrics", "*/*").unwrap();
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.trim().parse().unwrap()
}

const FAILURES: &str = "nodewall_otlp_pushes_total{result=\"failure\"}";
const SUCCESSES: &str = "nodewall_otlp_pushes_total{result=\"success\"}";

/// What every collector gets, whichever way it is spoken to.
fn is_whole(node: &Node, receiver: &Receiver) {
    let (_, text) = get(node, DAEMON, "/metrics", "*/*").unwrap();
    receiver.received(|received| {
        let resource = |key: &str| received.resource.get(key).map(String::as_str);
        assert_eq!(resource("service.name"), Some("nodewall"));
        assert!(resource("host.name").is_some_and(|name| !name.is_empty()));
        assert_eq!(resource("service.instance.id"), resource("host.name"));
        assert_eq!(resource("service.version"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(resource("team"), Some("net,ops"));

        // The names that Prometheus gives what it gets by OTLP are those that it scrapes.
        let translated: Vec<String> = received
            .counters
            .iter()
            .map(|(name, counts)| translated(name, &received.units[name], *counts))
            .collect();
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut families: Vec<String> = families
            .map(|family| {
                let (name, kind) = family.split_once(' ').unwrap();
                let end = if kind == "counter" { "_total" } else { "" };
                format!("{name}{end}")
            })
            .collect();
        // Who streams, HTTP alone knows.
        families.retain(|name| name != "nodewall_stream_clients");
        families.sort_unstable();
        let mut sorted = translated;
        sorted.sort_unstable();
        assert_eq!(sorted, families);

        // A counter never goes backwards, and begins where it was first seen.
        for ((name, labels), points) in &received.points {
            let counts = received.counters[name];
            for pair in points.windows(2) {
                assert!(pair[0].time < pair[1].time, "{name}{labels:?}: {pair:?}");
                if counts {
                    assert!(pair[0].value <= pair[1].value, "{name}{labels:?}: {pair:?}");
                    assert_eq!(pair[0].start, pair[1].start, "{name}{labels:?}");
                }
            }
            let first = points[0];
            if counts {
                assert!(
                    0 < first.start && first.start <= first.time,
                    "{name}: {first:?}"
                );
            } else {
                assert_eq!(first.start, 0, "{name}");
            }
        }
        let of_rules = received.last("nodewall.rule_packets");
        let of_rule = |rule: &str| {
            let labels = [("policy", "deny-node-ports"), ("rule", rule)];
            let is_it = |of: &Labels| labels.iter().all(|(label, value)| of[*label] == *value);
            let mut found = of_rules.iter().filter(|(labels, _)| is_it(labels));
            *found.next().unwrap().1
        };
        assert_eq!([of_rule("0"), of_rule("1")], [40_000, 20_000]);
    });
}

/// How OpenTelemetry says that names become Prometheus'.
fn translated(name: &str, unit: &str, counts: bool) -> String {
    let mut name = name.replace('.', "_");
    let unit = match unit {
        "By" => "bytes",
        "s" => "seconds",
        "" => "",
        other => panic!("{name} is in {other}"),
    };
    if !unit.is_empty() && !name.split('_').any(|word| word == unit) {
        name = format!("{name}_{unit}");
    }
    if counts {
        name += "_total";
    }
    name
}

/// Two floods, and between them a collector that is away.
fn talks(flags: &[&str], environment: &[(&str, &str)], begin: impl Fn(&Node) -> Receiver) {
    let node = Node::new().unwrap();
    let receiver = begin(&node);
    let _daemon = daemon(&node, flags, environment);
    flood(&node);
    assert!(settle_on_stats(&node, &receiver) >= 30_000);
    drop(receiver);

    settle("pushes fail", || scraped(&node, FAILURES) >= 2);
    flood(&node);
    let receiver = begin(&node);
    let total = settle_on_stats(&node, &receiver);
    assert!(total >= 60_000, "{total}");
    let before = receiver.received(|received| received.requests);
    settle("some more come", || {
        receiver.received(|received| received.requests) > before + 2
    });
    is_whole(&node, &receiver);
    assert!(scraped(&node, SUCCESSES) >= 4);
    let ready = get(&node, DAEMON, "/readyz", "*/*").unwrap();
    assert_eq!(ready.0, 200, "{}", ready.1);
}

const TEAM: (&str, &str) = ("OTEL_RESOURCE_ATTRIBUTES", "team=net%2Cops");

#[test]
fn a_collector_gets_what_stats_has_over_http() {
    if !require::root_and_bpf() {
        return;
    }
    let flags = [
        "--otlp-endpoint",
        "http://127.0.0.1:4318",
        "--otlp-interval",
        "1s",
    ];
    talks(&flags, &[TEAM], |node| Receiver::http(node, PORT, "200 OK"));
}

#[test]
fn a_collector_gets_what_stats_has_over_grpc() {
    if !require::root_and_bpf() {
        return;
    }
    let environment = [
        TEAM,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("NODEWALL_OTLP_INTERVAL", "1s"),
    ];
    talks(&[], &environment, |node| Receiver::grpc(node, PORT));
}

#[test]
fn nobody_waits_for_a_collector_that_hangs_or_refuses() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    // It takes connections, as its kernel does, and never answers.
    let deaf = node.lab().in_ns(Side::Node, || {
        std::net::TcpListener::bind(("127.0.0.1", PORT))
    });
    let deaf = deaf.unwrap().unwrap();
    let flags = [
        "--otlp-endpoint",
        "http://127.0.0.1:4318",
        "--otlp-interval",
        "1",
    ];
    let mut daemon = daemon(&node, &flags, &[]);
    settle("pushes fail", || scraped(&node, FAILURES) >= 3);
    flood(&node);
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(&node, DAEMON, "/readyz", "*/*").unwrap().0, 200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // A change of the policy is put in force meanwhile.
    let policy = node.files().join("policy.yaml");
    write(&policy, &POLICY.replace("32767", "32000"));
    settle("the change is in force", || {
        node.json(&["status"])["interfaces"][0]["generation"] == 2
    });
    drop(deaf);

    let refusing = Receiver::http(&node, PORT, "503 Service Unavailable");
    let before = scraped(&node, FAILURES);
    settle("pushes fail", || scraped(&node, FAILURES) >= before + 2);
    assert_eq!(scraped(&node, SUCCESSES), 0);
    drop(refusing);
    // A failure that goes on is told once.
    let log = daemon.log();
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(told("no answer within 1s"), 1, "{log}");
    assert_eq!(told("503 Service Unavailable"), 1, "{log}");

    let deaf = node.lab().in_ns(Side::Node, || {
        std::net::TcpListener::bind(("127.0.0.1", PORT))
    });
    let deaf = deaf.unwrap().unwrap();
    let began = Instant::now();
    assert!(daemon.terminate().success());
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    drop(deaf);
    // What filters goes on.
    assert_eq!(node.rule("deny-node-ports", 0), 20_000);
}
