//! `nodewall run`, from a real kernel: what is in force follows the files and the host,
//! goes on without the daemon, and nothing that is counted or reported is lost.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use tests::lab::{self, Daemon, Limit, Side};
use tests::packet::{Ethernet, Ipv4, Udp};
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
        let node = Self(lab::Node::new().unwrap());
        fs::create_dir(node.folder()).unwrap();
        node
    }

    /// Where the policies are.
    fn folder(&self) -> PathBuf {
        self.files().join("policies.d")
    }

    /// Writes a policy that denies UDP to a port.
    fn deny(&self, name: &str, port: u16) {
        self.write(name, &deny(name, port));
    }

    fn write(&self, name: &str, text: &str) {
        // As editors do: a new file in the place of the old one.
        let new = self.files().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder().join(format!("{name}.yaml"))).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder().join(format!("{name}.yaml"))).unwrap();
    }

    fn run(&self, more: &[&str]) -> Daemon {
        self.run_with(more, &[])
    }

    fn run_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let folder = self.folder();
        let folder = folder.to_str().unwrap();
        let arguments = ["-f", folder, "--interface", INTERFACE, "--no-http"];
        Daemon::start_with(self, &[&arguments, more].concat(), variables)
    }

    fn status(&self) -> Value {
        self.json(&["status"])
    }

    fn generation(&self) -> u64 {
        let status = self.status();
        status["interfaces"][0]["generation"].as_u64().unwrap()
    }

    fn send(&self, port: u16, count: u64) {
        let frame = Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(port)));
        self.lab()
            .send(Side::Client, &[frame], &Limit::count(count))
            .unwrap();
    }

    /// Sends so many that a rule is to drop, and waits until it has.
    fn drops(&self, policy: &str, port: u16, count: u64) {
        let before = self.rule(policy, 0);
        self.send(port, count);
        settle(|| self.rule(policy, 0) == before + count);
        assert_eq!(self.rule(policy, 0), before + count);
    }
}

/// Denies UDP to a port, and says nothing of the rest.
fn deny(name: &str, port: u16) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  order: {port}\n  ingress:\n  - {{action: Deny, protocol: UDP, destination: {{ports: \
         [{port}]}}}}\n"
    )
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

const IN_FORCE: &str = "note: in force";

#[test]
fn what_is_in_force_follows_the_files() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let daemon = node.run(&[]);
    daemon.says(IN_FORCE, 1);
    assert_eq!(node.generation(), 1);
    node.drops("first", 1_001, 10);

    // A file that comes is in force, and the totals go on.
    node.deny("second", 1_002);
    daemon.says("node0 generation 2", 1);
    node.drops("second", 1_002, 10);
    assert_eq!(node.rule("first", 0), 10);

    // One that is wrong changes nothing, and is said wherever somebody looks.
    node.write(
        "third",
        "apiVersion: projectcalico.org/v3\nkind: GlobalPolicy\n",
    );
    daemon.says("third.yaml", 1);
    settle(|| node.status()["daemon"]["last_error"].is_object());
    let status = node.status();
    let error = status["daemon"]["last_error"]["message"].as_str().unwrap();
    assert!(error.contains("third.yaml:2:"), "{error}");
    assert_eq!(status["daemon"]["reloads"]["failure"], 1, "{status:#}");
    let shown = node.done(&["status"]);
    assert!(shown.contains("NOT in force"), "{shown}");
    node.drops("second", 1_002, 10);
    assert_eq!(node.generation(), 2);

    // Mended, it is as if nothing had been.
    node.remove("third");
    settle(|| node.status()["daemon"]["last_error"].is_null());
    assert!(node.status()["daemon"]["last_error"].is_null());
    assert_eq!(node.generation(), 2);

    // Asked to read again what has not changed, it makes no generation of it.
    daemon.signal(Signal::SIGHUP);
    daemon.says("unchanged", 2);
    assert_eq!(node.generation(), 2);

    // A policy that goes is in force no more; its drops stay dropped ones.
    let before = node.total("dropped");
    node.remove("second");
    daemon.says("node0 generation 3", 1);
    assert_eq!(node.total("dropped"), before);
    // What no policy allows is dropped by the end of the tier.
    node.send(1_002, 5);
    node.drops("first", 1_001, 5);
    settle(|| node.total("dropped") == before + 10);
    assert_eq!(node.total("dropped"), before + 10);
    assert!(daemon.stop().success());
}

#[test]
fn lists_are_followed_too() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let list = node.files().join("list.txt");
    fs::write(&list, "198.51.100.0/24\n").unwrap();
    node.write(
        "listed",
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: bad\n  \
         labels: {list: bad}\n  annotations: {nodewall.io/nets-from: ../list.txt}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: listed}\n\
         spec:\n  ingress:\n  - {action: Deny, source: {selector: \"list == 'bad'\"}}\n",
    );
    let daemon = node.run(&[]);
    daemon.says("node0 generation 1", 1);
    node.send(7, 3);
    assert_eq!(node.rule("listed", 0), 0);
    fs::write(&list, format!("{}\n", Ipv4::default().src)).unwrap();
    daemon.says("node0 generation 2", 1);
    node.drops("listed", 7, 3);
}

#[test]
fn the_filter_outlives_the_daemon_unless_it_shall_not() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let daemon = node.run(&[]);
    daemon.says(IN_FORCE, 1);
    let refused = node.run(&[]);
    refused.says(&format!("(process {})", daemon.pid()), 1);
    let mut refused = refused;
    assert_eq!(refused.ends().code(), Some(1));

    // Killed, it leaves the filter, and its successor takes it over as it is.
    daemon.kill();
    node.drops("first", 1_001, 10);
    let status = node.status();
    assert!(status["daemon"].is_null(), "{status:#}");
    let daemon = node.run(&[]);
    daemon.says("unchanged", 1);
    assert_eq!(node.generation(), 1);
    assert_eq!(node.rule("first", 0), 10);
    assert!(daemon.stop().success());
    node.drops("first", 1_001, 10);

    let daemon = node.run(&["--detach-on-exit"]);
    daemon.says("unchanged", 1);
    assert!(daemon.stop().success());
    node.fails(3, &["status"]);
}

#[test]
fn a_device_that_comes_again_is_filtered_and_goes_on_counting() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let daemon = node.run(&[]);
    daemon.says(IN_FORCE, 1);
    node.drops("first", 1_001, 10);
    let passed = node.total("passed");

    let lab = node.lab();
    lab.ip(Side::Node, &["link", "delete", INTERFACE]).unwrap();
    thread::sleep(Duration::from_millis(300));
    let came = Instant::now();
    lab.join().unwrap();
    daemon.says("node0 generation 2", 1);
    println!("filtered again after {:?}", came.elapsed());
    node.drops("first", 1_001, 10);
    assert_eq!(node.rule("first", 0), 20);
    assert!(node.total("passed") >= passed);

    // An interface that is not there yet is waited for.
    drop(daemon);
    lab.ip(Side::Node, &["link", "delete", INTERFACE]).unwrap();
    let daemon = node.run(&[]);
    daemon.says("waiting for node0", 1);
    // That is told of once, however often it is looked.
    daemon.says("not filtered: node0", 1);
    thread::sleep(Duration::from_millis(2_500));
    let told = daemon.said().matches("not filtered").count();
    assert_eq!(told, 1, "{}", daemon.said());
    lab.join().unwrap();
    daemon.says("node0 generation 3", 1);
    node.drops("first", 1_001, 10);
    assert_eq!(node.rule("first", 0), 30);
}

#[test]
fn wrong_policies_at_the_start_leave_the_last_good_ones() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.write("bad", "kind: [\n");
    let mut daemon = node.run(&[]);
    assert_eq!(daemon.ends().code(), Some(1));
    assert!(daemon.said().contains("bad.yaml"), "{}", daemon.said());
    node.fails(3, &["status"]);

    node.deny("bad", 1_001);
    let daemon = node.run(&["--detach-on-exit"]);
    daemon.says(IN_FORCE, 1);
    assert!(daemon.stop().success());
    node.fails(3, &["status"]);

    // As after a new start of the host: nothing is in force.
    node.write("bad", "kind: [\n");
    let daemon = node.run(&[]);
    daemon.says("last policies that were good", 1);
    node.drops("bad", 1_001, 10);
    settle(|| node.status()["daemon"]["last_error"].is_object());
    assert!(node.status()["daemon"]["last_error"].is_object());
    node.deny("bad", 1_002);
    daemon.says("node0 generation 2", 1);
    node.drops("bad", 1_002, 10);
    settle(|| node.status()["daemon"]["last_error"].is_null());
    assert!(node.status()["daemon"]["last_error"].is_null());

    // Nor is a device that comes while they are wrong left open.
    node.write("bad", "kind: [\n");
    settle(|| node.status()["daemon"]["last_error"].is_object());
    let lab = node.lab();
    lab.ip(Side::Node, &["link", "delete", INTERFACE]).unwrap();
    thread::sleep(Duration::from_millis(300));
    lab.join().unwrap();
    daemon.says("node0 generation 3", 1);
    node.drops("bad", 1_002, 10);
    assert_eq!(node.rule("bad", 0), 30);
    assert!(node.status()["daemon"]["last_error"].is_object());

    // What is in force already stays so, also where another mode is asked for.
    drop(daemon);
    node.write("bad", "kind: [\n");
    let daemon = node.run(&[]);
    daemon.says("stays in force", 1);
    node.drops("bad", 1_002, 10);
    assert_eq!(node.generation(), 3);
    drop(daemon);
    node.deny("bad", 1_002);
    let daemon = node.run(&["--mode", "generic"]);
    daemon.says("can't be changed while it filters", 1);
    node.drops("bad", 1_002, 10);
    assert_eq!(node.generation(), 3);
}

#[test]
fn others_get_events_from_the_daemon() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let daemon = node.run(&["--sample-drops", "1000"]);
    daemon.says(IN_FORCE, 1);
    let follow = || {
        let mut child = node
            .command(&[
                "observe", "-f", "-o", "jsonl", "--port", "1001", "--count", "3",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    // Two at a time, each of whom gets all.
    let mut readers = [follow(), follow()];
    thread::sleep(Duration::from_secs(1));
    node.drops("first", 1_001, 3);
    for (child, lines) in &mut readers {
        let events: Vec<Value> = lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert_eq!(events.len(), 3);
        assert!(events.iter().all(|event| event["policy"] == "first"
            && event["l4"]["dport"] == 1_001
            && event["header"].is_null()));
        assert!(child.wait().unwrap().success());
    }
    // What was told before, to one who does not follow; and still not for good.
    for _ in 0..2 {
        let text = node.done(&["observe", "--port", "1001"]);
        assert_eq!(text.lines().count(), 3, "{text}");
    }
    // The rings are the reader's again when the daemon is gone.
    assert!(daemon.stop().success());
    node.drops("first", 1_001, 2);
    assert_eq!(node.done(&["observe", "--port", "1001"]).lines().count(), 2);
}

#[test]
fn who_supervises_is_told() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let path = node.files().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    // Other messages, pats of the watchdog among them, go by.
    let until = |wanted: &str| loop {
        let message = next();
        if message.contains(wanted) {
            return message;
        }
    };
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let mut daemon = node.run_with(&[], &variables);
    assert!(until("READY=1").contains("STATUS=filtering"));
    let began = Instant::now();
    for _ in 0..5 {
        until("WATCHDOG=1");
    }
    // Twice in its time, and no flood either.
    assert!(began.elapsed() > Duration::from_millis(250));
    daemon.signal(Signal::SIGHUP);
    assert!(until("RELOADING=1").contains("MONOTONIC_USEC="));
    until("READY=1");
    node.write("wrong", "kind: [\n");
    until("RELOADING=1");
    let ready = until("READY=1");
    assert!(
        ready.contains("STATUS=") && ready.contains("wrong.yaml"),
        "{ready}"
    );
    daemon.signal(Signal::SIGTERM);
    until("STOPPING=1");
    assert!(daemon.ends().success());
}

#[test]
fn who_could_not_be_told_is_told_later() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let path = node.files().join("notify");
    let daemon = node.run_with(&[], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    daemon.says("can't be told, and is told later", 1);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).unwrap();
    let message = String::from_utf8_lossy(&bytes[..length]);
    assert!(
        message.starts_with("READY=1\nSTATUS=filtering"),
        "{message}"
    );
    // Not each time that it looks, twice a second.
    thread::sleep(Duration::from_secs(3));
    socket.set_nonblocking(true).unwrap();
    let more = std::iter::from_fn(|| socket.recv(&mut bytes).ok()).count();
    assert!(more < 5, "{more} more messages");
    assert!(daemon.stop().success());
}

#[test]
fn flags_come_from_a_file_too() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let config = node.files().join("nodewall.yaml");
    let text = format!(
        "interface: {INTERFACE}\nfilename: [{}]\nno-http: true\nsample-drops: 0\n",
        node.folder().display()
    );
    fs::write(&config, text).unwrap();
    let variables = [("NODEWALL_CONFIG", config.to_str().unwrap())];
    let daemon = Daemon::start_with(&node, &[], &variables);
    daemon.says(IN_FORCE, 1);
    let status = node.status();
    assert_eq!(status["daemon"]["sample_drops"], 0, "{status:#}");
    node.drops("first", 1_001, 1);

    fs::write(&config, "sample-drop: 1\n").unwrap();
    let mut wrong = Daemon::start_with(&node, &[], &variables);
    assert_eq!(wrong.ends().code(), Some(2));
    assert!(wrong.said().contains("\"sample-drop\""), "{}", wrong.said());
}

/// A flood costs the daemon nothing to speak of: it reads a bounded sample, and counters
/// by the second.
#[test]
fn a_flood_does_not_keep_the_daemon_busy() {
    const FLOOD: u64 = 6_000_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let daemon = node.run(&[]);
    daemon.says(IN_FORCE, 1);
    let spent = || {
        let text = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<&str> = text
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        // User and system time, in clock ticks (proc_pid_stat(5)).
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        let hz = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        Duration::from_millis(ticks * 1_000 / u64::try_from(hz).unwrap())
    };
    let (began, before) = (Instant::now(), spent());
    node.send(1_001, FLOOD);
    let (took, cost) = (began.elapsed(), spent().saturating_sub(before));
    settle(|| node.rule("first", 0) == FLOOD);
    assert_eq!(node.rule("first", 0), FLOOD);
    let share = cost.as_secs_f64() / took.as_secs_f64();
    println!(
        "{FLOOD} drops in {took:?}: {:.1} % of a core",
        share * 100.0
    );
    assert!(share < 0.1, "{cost:?} of {took:?}");
}

/// What the threads of a process may do, by their names: their permitted capabilities, and
/// whether they could have more.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads: Vec<_> = tasks
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let value = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().trim_start_matches(':').trim().to_owned()
            };
            assert_eq!(value("NoNewPrivs"), "1", "{status}");
            assert_eq!(value("CapPrm"), value("CapEff"), "{status}");
            assert_eq!(value("CapBnd"), KERNEL, "{status}");
            (value("Name"), value("CapPrm"))
        })
        .collect();
    threads.sort();
    threads
}

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`, as /proc shows them.
const KERNEL: &str = "000000c000001000";
const NOTHING: &str = "0000000000000000";

#[test]
fn who_serves_may_do_nothing_and_who_filters_what_that_takes() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.deny("first", 1_001);
    let folder = node.folder();
    let listen = ["--listen", "127.0.0.1:9469"];
    let arguments = ["-f", folder.to_str().unwrap(), "--interface", INTERFACE];
    let daemon = Daemon::start(&node, &[&arguments[..], &listen].concat());
    daemon.says(IN_FORCE, 1);
    // Readings and answers begin threads.
    let scrape = || {
        let mut curl = node.lab().command(Side::Node, "curl");
        let output = curl.args(["-s", "http://127.0.0.1:9469/metrics"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    settle(|| scrape().contains("nodewall_rule_packets"));
    assert!(scrape().contains("nodewall_rule_packets"), "{}", scrape());
    // A change is made by the same threads as the first.
    node.deny("second", 1_002);
    daemon.says("node0 generation 2", 1);
    node.drops("second", 1_002, 3);
    let threads = threads(daemon.pid());
    let with = |capabilities: &str| {
        let these = threads.iter();
        these.filter(|(_, has)| has == capabilities).count()
    };
    // Changes, readings and events.
    assert_eq!(with(KERNEL), 3, "{threads:?}");
    for (name, capabilities) in &threads {
        let may = ["changes", "readings", "events"].contains(&name.as_str());
        assert_eq!(capabilities, if may { KERNEL } else { NOTHING }, "{name}");
    }
    assert_eq!(with(KERNEL) + with(NOTHING), threads.len(), "{threads:?}");
    // The first thread, and those that make answers.
    assert!(with(NOTHING) >= 2, "{threads:?}");
    assert!(daemon.stop().success());
}
