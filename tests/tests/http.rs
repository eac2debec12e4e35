//! The daemon's HTTP server over a real kernel: what it says is what the command line
//! says, and no counter goes backwards.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;
use tests::lab::{self, Daemon, Limit, Side};
use tests::packet::{Ethernet, Ipv4, Ipv6, Tcp, Udp};
use tests::require;

#[path = "../../filter-user/src/telemetry/openmetrics/strict.rs"]
mod strict;
#[path = "common/web.rs"]
mod web;

use strict::Name;
use web::{ADDRESS, Web};

const INTERFACE: &str = Side::Node.interface();
const DENY: &str = "{action: Deny, protocol: UDP, destination: {ports: [9]}}";
const LOG: &str = "{action: Log, protocol: TCP}";
const ALLOW: &str = "{action: Allow}";

/// A node whose policies a daemon keeps in force.
struct Node {
    node: lab::Node,
    daemon: Mutex<Option<Daemon>>,
}

impl Deref for Node {
    type Target = lab::Node;

    fn deref(&self) -> &lab::Node {
        &self.node
    }
}

impl Node {
    fn new(rules: &[&str], more: &[&str]) -> Self {
        let node = Self {
            node: lab::Node::new().unwrap(),
            daemon: Mutex::default(),
        };
        node.write(rules);
        node.start(more);
        node
    }

    /// Writes the policy, which the daemon then takes.
    fn write(&self, rules: &[&str]) {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: web}}\n\
             spec:\n  ingress:\n  - {}\n",
            rules.join("\n  - ")
        );
        let new = self.files().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.files().join("policy.yaml")).unwrap();
    }

    fn run(&self, more: &[&str]) -> Daemon {
        let path = |name: &str| self.files().join(name).to_str().unwrap().to_owned();
        let (policy, run, state) = (path("policy.yaml"), path("run"), path("state"));
        let arguments = [
            "-f",
            &policy,
            "--interface",
            INTERFACE,
            "--run-dir",
            &run,
            "--state-dir",
            &state,
        ];
        Daemon::start(self, &[&arguments, more].concat())
    }

    fn start(&self, more: &[&str]) {
        let daemon = self.run(more);
        settle(|| web::get(self.lab(), "/readyz").is_some_and(|answer| answer.status == 200));
        let ready = web::get(self.lab(), "/readyz");
        assert!(
            ready.is_some_and(|ready| ready.body == "ready\n"),
            "{}",
            daemon.said()
        );
        *self.daemon.lock().unwrap() = Some(daemon);
    }

    /// Ends the daemon as its supervisor would; says how long that took.
    fn stop(&self) -> Duration {
        let daemon = self.daemon.lock().unwrap().take().unwrap();
        let began = Instant::now();
        assert!(daemon.stop().success());
        began.elapsed()
    }

    fn get(&self, target: &str) -> web::Answer {
        web::get(self.lab(), target).unwrap()
    }

    fn connect(&self) -> Web {
        Web::connect(self.lab()).unwrap()
    }

    fn metrics(&self) -> BTreeMap<Name, u64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        strict::read(&answer.body)
    }

    fn generation(&self) -> u64 {
        let status = self.get("/v1/status").json();
        status["interfaces"][0]["generation"].as_u64().unwrap()
    }

    /// Changes the policy, and waits until it is in force.
    fn change(&self, rules: &[&str]) {
        let before = self.generation();
        self.write(rules);
        settle(|| self.generation() > before);
        assert!(self.generation() > before);
    }

    /// Sends, until it is told to stop.
    fn flood(&self, stop: &AtomicBool) {
        let frames = [udp(9), tcp6(11), udp(10)];
        let limit = Limit {
            packets: u64::MAX,
            time: Duration::from_mins(2),
            stop: Some(stop),
        };
        self.lab().send(Side::Client, &frames, &limit).unwrap();
    }

    fn send(&self, frames: &[Vec<u8>], count: u64) {
        self.lab()
            .send(Side::Client, frames, &Limit::count(count))
            .unwrap();
    }
}

fn udp(port: u16) -> Vec<u8> {
    Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(port)))
}

fn tcp6(port: u16) -> Vec<u8> {
    Ethernet::default().carry(&Ipv6::default().carry(&Tcp::to(port)))
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does something while packets come.
fn under_flood(node: &Node, action: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| node.flood(&stop));
        // Also where it panics, or the flood would go on.
        let _stop = Stop(&stop);
        action();
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The value of a series of this interface's ingress.
fn series(all: &BTreeMap<Name, u64>, name: &str, labels: &[(&str, &str)]) -> u64 {
    let here = [("interface", INTERFACE), ("direction", "ingress")];
    let labels = here.iter().chain(labels);
    let labels = labels.map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    let key = (name.to_owned(), labels.collect());
    *all.get(&key)
        .unwrap_or_else(|| panic!("no {key:?} in {all:#?}"))
}

#[test]
fn everything_answers_under_a_flood_and_says_what_the_command_line_says() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[DENY, LOG, ALLOW], &[]);
    let paths = [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/status",
        "/v1/stats",
        "/v1/rules",
        "/v1/policies",
        "/v1/top",
        "/v1/top?by=dport",
        "/v1/top?by=rule",
        "/v1/events?types=stats&n=1",
    ];
    under_flood(&node, || {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            for path in paths.iter().filter(|path| !path.starts_with("/v1/events")) {
                let began = Instant::now();
                assert_eq!(node.get(path).status, 200, "{path}");
                slowest = slowest.max(began.elapsed());
            }
            node.metrics();
        }
        let mut stream = node.connect();
        assert_eq!(stream.ask(paths[12], "*/*"), Some(200));
        let stats = stream.events().remove(0);
        assert!(
            stats["data"]["interfaces"][0]["dropped"]["packets"].as_u64() > Some(0),
            "{stats}"
        );
        println!("the slowest answer under the flood took {slowest:?}");
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    });
    // The sample is of what the flood was.
    settle(|| node.get("/v1/top").json()["packets"] != 0);
    let items = |by: &str| node.get(&format!("/v1/top?by={by}")).json()["items"].clone();
    assert_eq!(items("src")[0]["key"], Ipv4::default().src.to_string());
    assert_eq!(items("dport")[0]["key"], "udp/9");
    assert_eq!(items("rule")[0]["key"], "web 0");

    // In a quiet moment all say the same. A packet of the kernel's own may come between.
    let mut agreed = false;
    for _ in 0..20 {
        let stats = node.json(&["stats"]);
        let rules = node.json(&["get", "rules"]);
        let in_force = node.json(&["status"]);
        let said = ["/v1/stats", "/v1/rules", "/v1/status"].map(|path| node.get(path).json());
        let metrics = node.metrics();
        if node.json(&["stats"])["interfaces"] != stats["interfaces"] {
            continue;
        }
        agreed = true;
        assert_eq!(said[0]["interfaces"], stats["interfaces"]);
        assert_eq!(said[1], rules);
        assert_eq!(said[2]["interfaces"], in_force["interfaces"]);
        let of = |name: &str, labels: &[(&str, &str)]| series(&metrics, name, labels);
        let ingress = &stats["interfaces"][0];
        assert!(node.rule("web", 0) > 1_000, "{stats}");
        let mut compared = 0;
        for rule in ingress["rules"].as_array().unwrap() {
            let index = rule["rule"].as_u64().unwrap().to_string();
            let labels = [
                ("policy", rule["policy"].as_str().unwrap()),
                ("rule", &index),
                ("action", rule["action"].as_str().unwrap()),
            ];
            assert_eq!(of("nodewall_rule_packets_total", &labels), rule["packets"]);
            assert_eq!(of("nodewall_rule_bytes_total", &labels), rule["bytes"]);
            compared += 1;
        }
        let (mut packets, mut bytes) = (BTreeMap::new(), BTreeMap::new());
        for reason in ingress["reasons"].as_array().unwrap() {
            let verdict = reason["verdict"].as_str().unwrap();
            *packets.entry(verdict).or_insert(0) += reason["packets"].as_u64().unwrap();
            *bytes.entry(verdict).or_insert(0) += reason["bytes"].as_u64().unwrap();
            if verdict == "drop" {
                let labels = [("reason", reason["reason"].as_str().unwrap())];
                assert_eq!(
                    of("nodewall_dropped_packets_total", &labels),
                    reason["packets"]
                );
                assert_eq!(of("nodewall_dropped_bytes_total", &labels), reason["bytes"]);
                compared += 1;
            }
        }
        for verdict in ["pass", "drop"] {
            let labels = [("verdict", verdict)];
            assert_eq!(of("nodewall_packets_total", &labels), packets[verdict]);
            assert_eq!(of("nodewall_bytes_total", &labels), bytes[verdict]);
        }
        assert!(compared > 12, "{compared}");
        break;
    }
    assert!(agreed, "there never was a quiet moment");
}

#[test]
fn no_counter_goes_backwards_over_changes_and_a_restart() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[DENY, LOG, ALLOW], &[]);
    let ended = AtomicBool::new(false);
    under_flood(&node, || {
        thread::scope(|scope| {
            let watched = scope.spawn(|| watch(node.lab(), &ended));
            {
                let _ended = Stop(&ended);
                for rules in [
                    &[DENY, LOG, ALLOW, ALLOW][..],
                    &[DENY, LOG, ALLOW],
                    &[DENY, LOG, ALLOW, DENY],
                ] {
                    node.change(rules);
                    thread::sleep(Duration::from_millis(300));
                }
                assert!(node.stop() < Duration::from_secs(4));
                // Without it all goes on.
                thread::sleep(Duration::from_millis(500));
                node.start(&[]);
                for rules in [&[DENY, LOG][..], &[DENY], &[DENY, LOG, ALLOW]] {
                    node.change(rules);
                    thread::sleep(Duration::from_millis(300));
                }
            }
            let (scrapes, grown) = watched.join().unwrap();
            println!("{scrapes} scrapes, and {grown} dropped packets");
            assert!(scrapes > 50 && grown > 10_000, "{scrapes} {grown}");
        });
    });
    // The last word is the same as before the daemon began again.
    let reloads = |result: &str| {
        let labels = BTreeMap::from([("result".to_owned(), result.to_owned())]);
        node.metrics()[&("nodewall_policy_reloads_total".to_owned(), labels)]
    };
    assert_eq!((reloads("success"), reloads("failure")), (4, 0));
}

/// Scrapes, again and again, until the end: each counter of the kernel's is there and not
/// below what it was. Gives how often, and how many packets were dropped meanwhile.
fn watch(lab: &lab::Lab, ended: &AtomicBool) -> (u64, u64) {
    let mut before: BTreeMap<Name, u64> = BTreeMap::new();
    let (mut scrapes, mut first) = (0, None);
    while !ended.load(Ordering::Relaxed) {
        // Between two daemons there is nobody.
        let Some(answer) = web::get(lab, "/metrics") else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        assert_eq!(answer.status, 200, "{}", answer.body);
        let now = strict::read(&answer.body);
        for (name, old) in before.iter().filter(|(name, _)| stays(name)) {
            let new = now.get(name).unwrap_or_else(|| panic!("{name:?} is gone"));
            assert!(new >= old, "{name:?} was {old} and is {new}");
        }
        first.get_or_insert_with(|| dropped(&now));
        before = now;
        scrapes += 1;
    }
    (scrapes, dropped(&before) - first.unwrap())
}

/// Whether the kernel counts it, and it is not a rule's that is taken out.
fn stays((name, labels): &Name) -> bool {
    let mut counts = ["_packets_total", "_bytes_total"].iter();
    let rule = labels.get("rule");
    let counted = name == "nodewall_bytes_total" || counts.any(|end| name.ends_with(end));
    counted && rule.is_none_or(|rule| rule == "0")
}

fn dropped(all: &BTreeMap<Name, u64>) -> u64 {
    series(all, "nodewall_packets_total", &[("verdict", "drop")])
}

#[test]
fn both_forms_of_the_stream_tell_the_same_and_end_when_asked() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[DENY, LOG, ALLOW], &["--sample-drops", "1000"]);
    let mut sse = node.connect();
    let mut lines = node.connect();
    let target = "/v1/events?types=drop,log&n=300";
    assert_eq!(sse.ask(target, "text/event-stream"), Some(200));
    assert_eq!(lines.ask(target, "application/x-ndjson"), Some(200));
    let of_port = "/v1/events?types=drop,log,policy&port=11&proto=tcp&policy=web&n=40";
    let mut chosen = node.connect();
    assert_eq!(chosen.ask(of_port, "application/x-ndjson"), Some(200));
    under_flood(&node, || {
        let (sse, lines) = (sse.events(), lines.lines());
        assert_eq!((sse.len(), lines.len()), (300, 300));
        assert_eq!(sse, lines);
        let ids: Vec<u64> = lines
            .iter()
            .map(|line| line["id"].as_u64().unwrap())
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let kinds: BTreeSet<&str> = lines
            .iter()
            .map(|line| line["event"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, BTreeSet::from(["drop", "log"]));
        for line in &lines {
            let data = &line["data"];
            let (port, rule, verdict) = match line["event"].as_str() {
                Some("drop") => (9, 0, "drop"),
                _ => (11, 1, "pass"),
            };
            assert_eq!(
                (&data["l4"]["dport"], &data["rule"]),
                (&port.into(), &rule.into()),
                "{line}"
            );
            assert_eq!(data["verdict"], verdict, "{line}");
            assert_eq!(data["sampled_1_in"].is_u64(), verdict == "drop", "{line}");
        }
        node.change(&[DENY, LOG, ALLOW, ALLOW]);
        let chosen = chosen.lines();
        assert_eq!(chosen.len(), 40);
        for line in chosen.iter().filter(|line| line["event"] != "policy") {
            assert_eq!(
                (&line["event"], &line["data"]["l4"]["dport"]),
                (&"log".into(), &11.into())
            );
        }
    });
    // What is kept comes to who names what came before it.
    let mut late = node.connect();
    let target = "/v1/events?types=drop,log&last_id=0&n=50";
    assert_eq!(late.ask(target, "application/x-ndjson"), Some(200));
    let late = late.lines();
    assert_eq!(late.len(), 50);
    let first = late[0]["id"].as_u64().unwrap();
    assert!(first > 1, "{late:?}");
    let mut again = node.connect();
    let target = format!("/v1/events?types=drop,log&last_id={first}&n=49");
    assert_eq!(again.ask(&target, "text/event-stream"), Some(200));
    assert_eq!(again.events(), late[1..]);
}

#[test]
fn changes_and_failures_are_told_and_stay_to_be_read() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[DENY, ALLOW], &[]);
    node.send(&[udp(9)], 100);
    settle(|| node.rule("web", 0) == 100);
    let mut stream = node.connect();
    let target = "/v1/events?types=policy&n=2";
    assert_eq!(stream.ask(target, "application/x-ndjson"), Some(200));
    node.write(&["{action: Dny}"]);
    settle(|| web::get(node.lab(), "/readyz").unwrap().status == 503);
    let ready = node.get("/readyz");
    assert_eq!(
        (ready.status, ready.body.lines().count()),
        (503, 1),
        "{ready:?}"
    );
    let document = node.get("/v1/status").json();
    assert_eq!(document["ready"], false);
    assert!(
        document["daemon"]["last_error"]["message"].is_string(),
        "{document}"
    );
    assert_eq!(document["daemon"]["reloads"]["failure"], 1);
    let metrics = node.metrics();
    let plain = |name: &str| metrics[&(name.to_owned(), BTreeMap::new())];
    assert_eq!(
        (plain("nodewall_ready"), plain("nodewall_sample_drops")),
        (0, 100)
    );
    // What was in force before is, and counts on.
    let labels = [("policy", "web"), ("rule", "0"), ("action", "deny")];
    assert_eq!(
        series(&metrics, "nodewall_rule_packets_total", &labels),
        100
    );
    node.change(&[DENY, LOG, ALLOW]);
    settle(|| node.get("/readyz").status == 200);
    let told = stream.lines();
    let results: Vec<&Value> = told.iter().map(|line| &line["data"]["result"]).collect();
    assert_eq!(results, ["failure", "success"], "{told:?}");
    assert_eq!(told[1]["data"]["generations"][INTERFACE], 2);
    // The filter is taken off by somebody: the daemon says so, until it is there again.
    node.done(&["detach", "--interface", INTERFACE]);
    settle(|| node.get("/readyz").status == 200 && node.generation() == 1);
    assert_eq!(
        node.get("/readyz").body,
        "ready
"
    );
}

#[test]
fn the_limits_hold_and_nobody_holds_up_others() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[DENY, LOG, ALLOW], &["--sample-drops", "300"]);
    let mut deaf = node.connect();
    assert_eq!(deaf.ask("/v1/events", "*/*"), Some(200));
    let mut streams: Vec<Web> = (0..31).map(|_| node.connect()).collect();
    for stream in &mut streams {
        assert_eq!(
            stream.ask("/v1/events?n=1000", "application/x-ndjson"),
            Some(200)
        );
    }
    let refused = node.get("/v1/events");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("streams"), "{}", refused.body);
    under_flood(&node, || {
        let told: Vec<Vec<u64>> = thread::scope(|scope| {
            let reading: Vec<_> = streams
                .iter_mut()
                .map(|stream| {
                    scope.spawn(|| {
                        let lines = stream.lines();
                        lines
                            .iter()
                            .map(|line| line["id"].as_u64().unwrap())
                            .collect()
                    })
                })
                .collect();
            reading
                .into_iter()
                .map(|reading| reading.join().unwrap())
                .collect()
        });
        for ids in &told {
            assert_eq!(ids.len(), 1_000);
            assert!(
                ids.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "some are missing"
            );
        }
        let mut idle: Vec<Web> = Vec::new();
        let turned_away = (0..64).find_map(|_| {
            let mut web = node.connect();
            let status = web.ask("/healthz", "*/*").unwrap();
            if status == 503 {
                return web.body();
            }
            assert_eq!(web.body().as_deref(), Some("ok\n"));
            idle.push(web);
            None
        });
        assert!(turned_away.unwrap().contains("all 64 connections"));
        assert!(idle.len() > 20, "{}", idle.len());
        for web in &mut idle {
            assert_eq!(web.ask("/healthz", "*/*"), Some(200));
        }
        drop((idle, streams));
        settle(|| web::get(node.lab(), "/healthz").is_some_and(|answer| answer.status == 200));
        assert_eq!(node.get("/healthz").status, 200);
    });
    // A stream that is read ends well with the daemon, and soon; the filter stays.
    let mut stream = node.connect();
    assert_eq!(
        stream.ask("/v1/events?types=policy", "application/x-ndjson"),
        Some(200)
    );
    let took = node.stop();
    assert_eq!(stream.lines(), Vec::<Value>::new());
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(node.total("dropped") > 0);
    drop(deaf);
}

#[test]
fn where_it_listens_is_asked_for() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new(&[ALLOW], &[]);
    let refused = |more: &[&str]| {
        let mut daemon = node.run(more);
        let code = daemon.ends().code();
        // It is read by a thread of its own.
        settle(|| !daemon.said().is_empty());
        (code, daemon.said())
    };
    let (code, said) = refused(&["--listen", "0.0.0.0:9470"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--allow-remote"), "{said}");
    let (code, said) = refused(&["--listen", "nonsense"]);
    assert_eq!(code, Some(2), "{said}");
    // The port is another daemon's.
    let (code, said) = refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(ADDRESS) && said.contains("--listen"),
        "{said}"
    );
    node.stop();
    // Others may read, where they were let, by any name.
    let all = format!("{}:9469", Side::Node.v4());
    let daemon = node.run(&["--listen", &all, "--allow-remote"]);
    let from_client = || {
        let address = std::net::SocketAddr::new(Side::Node.v4().into(), 9469);
        let reached = node.lab().in_ns(Side::Client, || {
            use std::io::{Read as _, Write as _};
            let mut socket = std::net::TcpStream::connect(address).ok()?;
            let asked = "GET /healthz HTTP/1.1\r\nhost: node.example\r\nconnection: close\r\n\r\n";
            socket.write_all(asked.as_bytes()).ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).ok()?;
            Some(answer)
        });
        reached.unwrap()
    };
    let mut answer = None;
    settle(|| {
        answer = from_client();
        answer.is_some()
    });
    let said = daemon.said();
    let answer = answer.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
        "{answer}"
    );
    assert!(said.contains("whoever reaches"), "{said}");
}
