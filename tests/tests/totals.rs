//! One flood, and everybody who counts it: the kernel's program, the driver, the command
//! line, the daemon's metrics by way of a real Prometheus, its stream, and its page in a
//! real browser. All must say the same, to the packet.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::browser::Browser;
use tests::lab::{Daemon, Limit, Node, Side};
use tests::packet::{Ethernet, Ipv4, Ipv6, Tcp, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
const DAEMON: &str = "127.0.0.1:9469";
const PROMETHEUS: &str = "127.0.0.1:9090";

/// Ends a process that is ours.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

fn curl(node: &Node, more: &[&str]) -> String {
    let mut curl = node.lab().command(Side::Node, "curl");
    let output = curl.args(["-sS", "-m", "20"]).args(more).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A real Prometheus that scrapes the daemon each second.
fn prometheus(node: &Node) -> Ours {
    let home = node.files().join("prometheus");
    fs::create_dir(&home).unwrap();
    let config = home.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: \
         nodewall\n  static_configs:\n  - targets: ['{DAEMON}']\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = node.lab().command(Side::Node, "prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            home.join("data").display()
        ))
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let prometheus = Ours(command.spawn().unwrap());
    let url = format!("http://{PROMETHEUS}/-/ready");
    settle(|| curl(node, &[&url]).contains("Ready"));
    assert!(curl(node, &[&url]).contains("Ready"));
    prometheus
}

/// What an expression comes to there.
fn query(node: &Node, expression: &str) -> Option<u64> {
    let url = format!("http://{PROMETHEUS}/api/v1/query");
    let asked = format!("query={expression}");
    let text = curl(node, &["-G", &url, "--data-urlencode", &asked]);
    let answer: Value = serde_json::from_str(&text).ok()?;
    let value = answer["data"]["result"][0]["value"][1].as_str()?;
    value.parse().ok()
}

/// What the stream tells: the packets that events stand for, those that were lost behind the
/// last of a CPU, and the dropped ones of the last totals.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    events: u64,
    lost: u64,
    dropped: u64,
}

fn listen(node: &Node) -> (Ours, thread::JoinHandle<Told>) {
    let url = format!("http://{DAEMON}/v1/events?types=drop,stats,lost");
    let mut curl = node.lab().command(Side::Node, "curl");
    curl.args(["-sSN", "-H", "accept: application/x-ndjson", &url]);
    let mut child = curl.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = thread::spawn(move || {
        let mut told = Told::default();
        for line in lines.map_while(Result::ok).filter(|line| !line.is_empty()) {
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let data = &message["data"];
            match message["event"].as_str().unwrap() {
                "drop" => told.events += 1,
                "lost" => {
                    assert_eq!(data["why"], "budget", "{data}");
                    told.lost += data["lost"].as_u64().unwrap();
                }
                "stats" => {
                    let of = |one: &Value| one["dropped"]["packets"].as_u64().unwrap();
                    told.dropped = data["interfaces"].as_array().unwrap().iter().map(of).sum();
                }
                other => panic!("{other}"),
            }
        }
        told
    });
    (Ours(child), told)
}

#[test]
fn everybody_counts_the_same() {
    const FLOOD: u64 = 3_000_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    let policy = node.files().join("policy.yaml");
    let text = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: \
                deny-node-ports}\nspec:\n  preDNAT: true\n  applyOnForward: true\n  ingress:\n  - \
                {action: Deny, protocol: TCP, destination: {ports: ['30000:32767']}}\n  - {action: \
                Deny, protocol: UDP, destination: {ports: ['30000:32767']}}\n";
    fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let daemon = Daemon::start(&node, &["-f", policy, "--interface", INTERFACE]);
    let ready = format!("http://{DAEMON}/readyz");
    settle(|| curl(&node, &[&ready]).starts_with("ready"));
    let driver = || {
        let lab = node.lab();
        lab.driver_counter(Side::Node, "rx_queue_", "_xdp_drops")
            .unwrap()
    };
    let before = driver();
    let _prometheus = prometheus(&node);
    let browser = Browser::start(node.lab(), Side::Node).unwrap();
    browser.open(&format!("http://{DAEMON}/")).unwrap();
    let (stream, told) = listen(&node);
    settle(|| curl(&node, &[&format!("http://{DAEMON}/metrics")]).contains("stream_clients 2"));

    // Dropped by both rules, of both IP versions, and something that passes.
    let frames = [
        Ethernet::default().carry(&Ipv4::default().carry(&Tcp::to(30_080))),
        Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(32_767))),
        Ethernet::default().carry(&Ipv6::default().carry(&Tcp::to(30_000))),
        Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(29_999))),
    ];
    let limit = Limit::count(FLOOD);
    let sent = node.lab().send(Side::Client, &frames, &limit).unwrap();
    assert_eq!(sent.packets, FLOOD);
    let dropped = FLOOD / 4 * 3;
    let rules = || [0, 1].map(|index| node.rule("deny-node-ports", index));
    settle(|| rules() == [FLOOD / 2, FLOOD / 4]);

    // `stats`, `status`, and the driver.
    assert_eq!(rules(), [FLOOD / 2, FLOOD / 4]);
    assert_eq!(node.total("dropped"), dropped);
    assert_eq!(driver() - before, dropped);

    // Prometheus, by verdict, by reason, and by rule.
    for (expression, expected) in [
        ("sum(nodewall_packets_total{verdict=\"drop\"})", dropped),
        (
            "sum(nodewall_dropped_packets_total{reason=\"policy_deny\"})",
            dropped,
        ),
        (
            "nodewall_rule_packets_total{policy=\"deny-node-ports\",rule=\"0\"}",
            FLOOD / 2,
        ),
        (
            "nodewall_rule_packets_total{policy=\"deny-node-ports\",rule=\"1\"}",
            FLOOD / 4,
        ),
    ] {
        settle(|| query(&node, expression) == Some(expected));
        assert_eq!(query(&node, expression), Some(expected), "{expression}");
    }
    // Bytes are those of the frames.
    let bytes: u64 = frames[..3]
        .iter()
        .map(|frame| frame.len() as u64 * FLOOD / 4)
        .sum();
    let expression = "sum(nodewall_dropped_bytes_total)";
    assert_eq!(query(&node, expression), Some(bytes));

    // The page.
    let shown = || {
        let script = "return document.getElementById('dropped-total').innerText";
        let text = browser.run(script).unwrap();
        text.as_str().unwrap().replace(',', "").parse::<u64>().ok()
    };
    settle(|| shown() == Some(dropped));
    assert_eq!(shown(), Some(dropped));

    // The stream: its totals, and its events with what was not reported.
    thread::sleep(Duration::from_millis(2_500));
    drop(stream);
    let told = told.join().unwrap();
    assert_eq!(told.dropped, dropped);
    assert!(told.events > 0, "{told:?}");
    assert_eq!(told.events + told.lost, dropped, "{told:?}");
    println!(
        "{dropped} dropped: {told:?}, {:.0} sent a second",
        sent.per_second()
    );

    // And what goes on when the daemon has gone is there when it is back.
    assert!(daemon.stop().success());
    node.lab()
        .send(Side::Client, &frames, &Limit::count(1_000))
        .unwrap();
    let _daemon = Daemon::start(&node, &["-f", policy, "--interface", INTERFACE]);
    let dropped = dropped + 750;
    settle(|| query(&node, "sum(nodewall_dropped_packets_total)") == Some(dropped));
    assert_eq!(
        query(&node, "sum(nodewall_dropped_packets_total)"),
        Some(dropped)
    );
    let resets = "max(resets(nodewall_dropped_packets_total[5m]))";
    assert_eq!(query(&node, resets), Some(0));
    settle(|| shown() == Some(dropped));
    assert_eq!(shown(), Some(dropped));
    assert_eq!(node.total("dropped"), dropped);
    assert_eq!(driver() - before, dropped);
}
