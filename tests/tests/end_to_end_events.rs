//! Reports of packets, from a real kernel to `nodewall observe`: each is of
//! the right packet and rule, and each that is missing is counted.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use aya::maps::{Array, Map, MapData};
use filter_common::event::filter::Filter;
use serde_json::Value;
use tests::lab::{self, Limit, Side};
use tests::packet::{Ethernet, Ipv4, Ipv6, Tcp, Udp, ethertype};
use tests::require;

const INTERFACE: &str = Side::Node.interface();

/// The node, and what these tests do on it.
struct Node(lab::Node);

impl Deref for Node {
    type Target = lab::Node;

    fn deref(&self) -> &lab::Node {
        &self.0
    }
}

impl Node {
    fn new() -> Self {
        Self(lab::Node::new().unwrap())
    }

    /// Puts a policy with these ingress rules in force.
    fn apply(&self, name: &str, rules: &[&str]) {
        self.apply_with(name, rules, &[]);
    }

    fn apply_with(&self, name: &str, rules: &[&str], more: &[&str]) {
        let path = self.files().join("policy.yaml");
        let rules = rules.join("\n  - ");
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
             {name}}}\nspec:\n  ingress:\n  - {rules}\n"
        );
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let apply = ["apply", "-f", path, "--interface", INTERFACE];
        self.done(&[&apply, more].concat());
    }

    /// What waits to be read: the events, and how many were lost.
    fn observe(&self, more: &[&str]) -> (Vec<Value>, u64) {
        let text = self.done(&[&["observe", "-o", "jsonl"], more].concat());
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let lost = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
        let events = lines.into_iter().filter(is_event);
        (events.collect(), lost)
    }

    fn follow(&self, more: &[&str]) -> Follower {
        let child = self
            .command(&[&["observe", "-f", "-o", "jsonl"], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let follower = Follower::of(child);
        self.is_read(&follower);
        follower
    }

    /// Waits until it holds the interface's folder, which it locks. To try
    /// with another reader might be what keeps it away.
    fn is_read(&self, follower: &Follower) {
        let files = format!("/proc/{}/fd", follower.child.id());
        let folder = self.pins().join(INTERFACE);
        let holds = || {
            let mut files = fs::read_dir(&files).unwrap().flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|target| target == folder))
        };
        settle(holds);
        assert!(holds(), "{} is not read", folder.display());
    }

    /// Whether the generation in force asks which packets are wanted.
    fn asks(&self) -> bool {
        let folders = fs::read_dir(self.pins().join(INTERFACE)).unwrap();
        let mut filters = folders.map(|entry| entry.unwrap().path().join("filter"));
        let path = filters.find(|path| path.exists()).unwrap();
        let map = Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap();
        let words: Array<_, [u64; size_of::<Filter>() / 8]> = map.try_into().unwrap();
        let filter: Filter = bytemuck::cast(words.get(&0, 0).unwrap());
        Filter::asks(filter.head)
    }

    fn send(&self, frames: &[Vec<u8>], count: u64) {
        self.lab()
            .send(Side::Client, frames, &Limit::count(count))
            .unwrap();
    }

    /// Packets that were dropped.
    fn dropped(&self) -> u64 {
        self.total("dropped")
    }
}

/// Whether a line is about a packet, and not of losses alone.
fn is_event(line: &Value) -> bool {
    line["time"].is_string()
}

/// `observe -f` that runs.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    /// Takes what it says as it comes: a full pipe would hold it up.
    fn of(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let line = serde_json::from_str(&line.unwrap()).unwrap();
                // A test that has ended listens no more.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Its next event; what it says of losses goes by.
    fn next(&self) -> Value {
        loop {
            let value = self.lines.recv().expect("it goes on");
            if is_event(&value) {
                return value;
            }
        }
    }
}

impl Follower {
    /// Ends it; gives how many events it has told, and how many were lost.
    fn rest(mut self) -> (u64, u64) {
        self.child.kill().unwrap();
        let (mut events, mut lost) = (0, 0);
        for value in &self.lines {
            lost += value["lost"].as_u64().unwrap();
            events += u64::from(is_event(&value));
        }
        (events, lost)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

/// UDP to a port, IPv4.
fn udp(port: u16) -> Vec<u8> {
    Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(port)))
}

/// TCP to a port, IPv6 in a VLAN.
fn tcp6(port: u16) -> Vec<u8> {
    Ethernet::default()
        .tagged(&[ethertype::VLAN])
        .carry(&Ipv6::default().carry(&Tcp::to(port)))
}

const ALLOW: &str = "{action: Allow}";

#[test]
fn each_logged_packet_is_told_once_and_of_the_right_rules() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(
        "two-logs",
        &[
            "{action: Log, protocol: UDP}",
            "{action: Log, destination: {nets: [0.0.0.0/0]}}",
            "{action: Deny, protocol: UDP, destination: {ports: [9]}}",
            "{action: Log, protocol: TCP}",
            ALLOW,
        ],
    );
    let frames = [udp(9), udp(10), tcp6(11)];
    node.send(&frames, 30);
    settle(|| node.rule("two-logs", 3) >= 10);
    let (events, lost) = node.observe(&[]);
    assert_eq!(lost, 0);
    // A packet that two rules log is told twice, in their order.
    let mut found: Vec<(u64, u64, String, u64, String, String)> = events
        .iter()
        .map(|event| {
            assert_eq!(event["policy"], "two-logs", "{event}");
            assert_eq!(event["interface"], INTERFACE);
            assert_eq!(event["direction"], "ingress");
            assert_eq!(event["tier"], "default");
            assert!(event["node"].is_string() && event["l4"]["sport"].is_u64());
            (
                event["l4"]["dport"].as_u64().unwrap(),
                event["rule"].as_u64().unwrap(),
                event["verdict"].as_str().unwrap().to_owned(),
                event["decided_by"]["rule"].as_u64().unwrap(),
                event["ip"]["src"].as_str().unwrap().to_owned(),
                event["ip"]["dst"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    found.sort();
    let (v4, v6) = (Ipv4::default(), Ipv6::default());
    let (v4, v6) = (
        (v4.src.to_string(), v4.dst.to_string()),
        (v6.src.to_string(), v6.dst.to_string()),
    );
    let mut expected = Vec::new();
    for (port, rule, verdict, by, (src, dst)) in [
        (9, 0, "drop", 2, &v4),
        (9, 1, "drop", 2, &v4),
        (10, 0, "pass", 4, &v4),
        (10, 1, "pass", 4, &v4),
        (11, 3, "pass", 4, &v6),
    ] {
        let row = (port, rule, verdict.to_owned(), by, src.clone(), dst.clone());
        expected.extend(std::iter::repeat_n(row, 10));
    }
    assert_eq!(found, expected);
    assert_eq!(node.observe(&[]).0, Vec::<Value>::new());

    // Each filter leaves the others out.
    for (filter, count) in [
        (&["--rule", "3"][..], 1),
        (&["--policy", "two-logs"], 5),
        (&["--policy", "other"], 0),
        (&["--src", &v6.0], 1),
        (&["--dst", "2001:db8::/32"], 1),
        (&["--proto", "udp", "--port", "9"], 2),
        (&["--reason", "policy_deny"], 2),
        (&["--interface", INTERFACE], 5),
        (&["--count", "2"], 2),
    ] {
        let before = node.rule("two-logs", 3);
        node.send(&frames, 3);
        settle(|| node.rule("two-logs", 3) > before);
        assert_eq!(node.observe(filter).0.len(), count, "{filter:?}");
    }
    assert!(
        node.fails(3, &["observe", "--interface", "no-such"])
            .contains("no-such")
    );
}

#[test]
fn a_flood_loses_events_and_each_loss_is_counted() {
    const FLOOD: u64 = 50_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("flood", &["{action: Log, protocol: UDP}", ALLOW]);
    node.send(&[udp(9)], FLOOD);
    settle(|| node.rule("flood", 0) == FLOOD);
    // Counted while nobody reads.
    assert_eq!(node.rule("flood", 0), FLOOD);
    let lost = node.json(&["status"])["interfaces"][0]["events_lost"]
        .as_u64()
        .unwrap();
    assert!(lost > 0);
    let (events, told) = node.observe(&[]);
    assert_eq!(told, lost);
    assert_eq!(events.len() as u64 + lost, FLOOD);
}

#[test]
fn a_reader_follows_the_policy_and_keeps_others_away() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let log = "{action: Log, protocol: UDP}";
    node.apply("first", &[log, ALLOW]);
    let follower = node.follow(&[]);
    assert!(node.fails(1, &["observe"]).contains("another"));
    for round in 0..5_u16 {
        // The old ring is read to its end, by the old names, even if the
        // policy changes at once.
        node.send(&[udp(100 + round)], 1);
        node.apply(&format!("round-{round}"), &[ALLOW, log, log]);
        node.apply(&format!("second-{round}"), &[log, ALLOW]);
        let event = follower.next();
        assert_eq!(event["l4"]["dport"], 100 + round, "{event}");
        let policy = match round {
            0 => "first".to_owned(),
            _ => format!("second-{}", round - 1),
        };
        assert_eq!(event["policy"], policy, "{event}");
        // So that it has seen the last change before the next packet.
        thread::sleep(Duration::from_millis(500));
    }
    // A filter that was taken off and came again is read, and by one.
    node.done(&["detach", "--interface", INTERFACE]);
    thread::sleep(Duration::from_millis(500));
    node.apply("again", &[log, ALLOW]);
    node.is_read(&follower);
    node.send(&[udp(200)], 1);
    assert_eq!(follower.next()["policy"], "again");
    assert!(node.fails(1, &["observe"]).contains("another"));
}

#[test]
fn a_generation_without_a_ring_is_named() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("old", &["{action: Log, protocol: UDP}", ALLOW]);
    for entry in fs::read_dir(node.pins().join(INTERFACE)).unwrap() {
        let folder = entry.unwrap().path();
        for pin in ["events", "budget", "filter"] {
            fs::remove_file(folder.join(pin)).ok();
        }
    }
    let said = node.fails(1, &["observe"]);
    assert!(said.contains(INTERFACE) && said.contains("apply"), "{said}");
    // All else goes on.
    assert_eq!(node.json(&["status"])["interfaces"][0]["events_lost"], 0);
    assert_eq!(node.rule("old", 0), 0);
}

/// Every dropped packet is reported, or counted as not; over swaps too.
#[test]
fn a_flood_of_drops_is_sampled_and_each_loss_is_counted() {
    const FLOOD: u64 = 30_000;
    const A_SECOND: u64 = 50;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let deny = "{action: Deny, protocol: UDP}";
    let sampling = ["--sample-drops", "50"];
    node.apply_with("dropping", &[deny, ALLOW], &sampling);
    let began = Instant::now();
    node.send(&[udp(9), tcp6(11)], FLOOD);
    settle(|| node.rule("dropping", 0) == FLOOD / 2);
    let seconds = began.elapsed().as_secs() + 1;
    let told = node.json(&["status"])["interfaces"][0]["events_lost"].clone();
    let (events, lost) = node.observe(&[]);
    assert_eq!(told, lost);
    assert_eq!(events.len() as u64 + lost, FLOOD / 2);
    let cpus = thread::available_parallelism().unwrap().get() as u64;
    // A window may begin where another second ends.
    assert!(!events.is_empty() && events.len() as u64 <= (seconds + 1) * cpus * A_SECOND);
    let mut stand_for = 0;
    for event in &events {
        stand_for += event["sampled_1_in"].as_u64().unwrap();
        for (field, value) in [
            ("verdict", "drop"),
            ("reason", "policy_deny"),
            ("policy", "dropping"),
            ("action", "deny"),
            ("tier", "default"),
            ("direction", "ingress"),
        ] {
            assert_eq!(event[field], value, "{event}");
        }
        assert_eq!(
            (&event["rule"], &event["l4"]["dport"]),
            (&0.into(), &9.into())
        );
    }
    assert!((events.len() as u64..=FLOOD / 2).contains(&stand_for));

    // In words, and chosen; what no rule dropped has none.
    node.apply_with("other", &[deny, ALLOW], &["--sample-drops", "10000"]);
    let mut fragment = udp(9);
    fragment.truncate(14 + 20 + 3);
    let frames = [udp(9), fragment];
    for (filter, wanted) in [
        (&["--policy", "other"][..], "policy_deny other 0 (1 in 1)"),
        (&["--reason", "policy_deny", "--rule", "0"], "other 0"),
        (&["--proto", "udp", "--port", "9"], "policy_deny"),
        (&["--reason", "malformed"], "malformed (1 in 1)"),
    ] {
        let before = node.dropped();
        node.send(&frames, 2);
        settle(|| node.dropped() == before + 2);
        let text = node.done(&[&["observe"], filter].concat());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{filter:?}: {text}");
        assert!(
            lines[0].contains(wanted) && lines[0].contains(" drop "),
            "{text}"
        );
    }
    // Not asked for again, it ends.
    node.apply("off", &[deny, ALLOW]);
    node.send(&[udp(9)], 1);
    settle(|| node.rule("off", 0) == 1);
    assert!(node.fails(1, &["observe"]).contains("--sample-drops"));
}

#[test]
fn swaps_under_a_flood_lose_no_drop_unseen() {
    const FLOOD: u64 = 40_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let deny = "{action: Deny, protocol: UDP}";
    let sampling = ["--sample-drops", "200"];
    node.apply_with("swapped", &[deny, ALLOW], &sampling);
    let child = node
        .command(&["observe", "-f", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reader = Follower::of(child);
    node.is_read(&reader);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                node.send(&[udp(9)], FLOOD / 8);
                thread::sleep(Duration::from_millis(150));
            }
        });
        for _ in 0..4 {
            // A reader looks ten times a second.
            thread::sleep(Duration::from_millis(300));
            node.apply_with("swapped", &[deny, ALLOW], &sampling);
        }
    });
    settle(|| node.rule("swapped", 0) == FLOOD);
    // Time for the reader to come twice more.
    thread::sleep(Duration::from_secs(1));
    let (events, lost) = reader.rest();
    assert!(events > 0 && lost > 0);
    assert_eq!(events + lost, FLOOD);
}

/// What is asked for is not drowned by what isn't, and nobody's filter outlives him.
#[test]
fn a_reader_gets_all_that_he_asks_for_out_of_a_flood() {
    const FLOOD: u64 = 50_000;
    const WANTED: u64 = 20;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let deny = "{action: Deny, protocol: UDP}";
    let sampling = ["--sample-drops", "50"];
    node.apply_with("drowned", &[deny, ALLOW], &sampling);
    let rare = Ipv4Addr::new(198, 51, 100, 77);
    let wanted = Ethernet::default().carry(&Ipv4::from(rare).carry(&Udp::to(9)));
    let flood = || {
        let before = node.dropped();
        for _ in 0..WANTED {
            node.send(&[udp(9), udp(10)], FLOOD / WANTED);
            node.send(std::slice::from_ref(&wanted), 1);
            // Of the wanted ones the budget takes one in 20 ms.
            thread::sleep(Duration::from_millis(50));
        }
        settle(|| node.dropped() == before + FLOOD + WANTED);
        assert_eq!(node.dropped(), before + FLOOD + WANTED);
        // Time for the reader to come twice more.
        thread::sleep(Duration::from_millis(500));
    };
    let rare = rare.to_string();

    let reader = node.follow(&["--src", &rare]);
    settle(|| node.asks());
    assert!(node.asks());
    flood();
    // A new generation is asked as well.
    node.apply_with("again", &[deny, ALLOW], &sampling);
    settle(|| node.asks());
    assert!(node.asks());
    flood();
    assert_eq!(reader.rest(), (2 * WANTED, 0));

    // The reader was killed; the next one asks for everything, and is drowned.
    assert!(node.asks());
    let reader = node.follow(&[]);
    settle(|| !node.asks());
    assert!(!node.asks());
    flood();
    let (events, lost) = reader.rest();
    assert_eq!(events + lost, FLOOD + WANTED);
    assert!(lost > FLOOD / 2, "{lost}");

    // One that ends takes its filter along.
    let mut reader = node.follow(&["--src", &rare, "--count", "1"]);
    settle(|| node.asks());
    assert!(node.asks());
    node.send(&[wanted], 1);
    assert_eq!(reader.next()["ip"]["src"], rare);
    assert!(reader.child.wait().unwrap().success());
    assert!(!node.asks());
}
