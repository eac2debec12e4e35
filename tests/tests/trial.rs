//! Policies on trial: `apply --confirm`, `confirm` and `rollback`, on a real interface.
//!
//! The way back is the kernel's. So what these tests ask of it, they ask while no
//! nodewall runs: what the driver counts, and what a service hears.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;
use tests::lab::{self, Daemon, Limit, Reach, Side, Transport};
use tests::packet::{Ethernet, Ipv4, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
/// Which of these is denied tells which policy decides.
const OLD: u16 = 30_001;
const NEW: u16 = 30_002;
/// What nobody answers, and what somebody does on a busy machine.
const BRIEF: Duration = Duration::from_millis(700);
const PATIENT: Duration = Duration::from_secs(10);

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

    /// A policy that denies UDP from and to a port, in both directions.
    fn policy(&self, name: &str, port: u16) -> String {
        let path = self.files().join(format!("{name}.yaml"));
        fs::write(&path, deny(name, port)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn apply(&self, file: &str, more: &[&str]) -> String {
        let arguments = ["apply", "-f", file, "--interface", INTERFACE];
        self.done(&[&arguments, more].concat())
    }

    fn frame(port: u16) -> Vec<u8> {
        Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(port)))
    }

    /// How many of so many packets to a port the driver drops: the kernel's own word, for
    /// which no nodewall runs.
    fn drops(&self, port: u16) -> u64 {
        let before = self.driver_dropped();
        let limit = Limit::count(50);
        let frames = [Self::frame(port)];
        self.lab().send(Side::Client, &frames, &limit).unwrap();
        // What was sent before is received before.
        self.lab()
            .in_ns(Side::Client, || thread::sleep(Duration::from_millis(100)))
            .unwrap();
        self.driver_dropped() - before
    }

    /// The policy that decides, as packets tell it, both of them coming and going.
    fn decides(&self) -> Option<u16> {
        let decided = match [self.drops(OLD), self.drops(NEW)] {
            [50, 0] => Some(OLD),
            [0, 50] => Some(NEW),
            [0, 0] => None,
            mixture => panic!("{mixture:?} of 50 packets each were dropped"),
        };
        let goes_out = [OLD, NEW].map(|port| self.answers_come_out(port));
        let expected = [OLD, NEW].map(|port| decided != Some(port));
        assert_eq!(
            goes_out, expected,
            "what goes out, where {decided:?} decides"
        );
        decided
    }

    /// Whether a packet from a port leaves the node.
    fn answers_come_out(&self, port: u16) -> bool {
        let listener = self.lab().in_ns(Side::Client, || {
            let socket = std::net::UdpSocket::bind((Side::Client.v4(), 0)).unwrap();
            socket.set_read_timeout(Some(BRIEF)).unwrap();
            socket
        });
        let listener = listener.unwrap();
        let to = SocketAddr::from((Side::Client.v4(), listener.local_addr().unwrap().port()));
        // A port may be in use by a packet before, and denied sockets say so.
        let sent = self.lab().in_ns(Side::Node, || {
            let socket = std::net::UdpSocket::bind((Side::Node.v4(), port)).unwrap();
            socket.send_to(b"out", to)
        });
        drop(sent);
        listener.recv(&mut [0; 8]).is_ok()
    }

    fn driver_dropped(&self) -> u64 {
        self.lab()
            .driver_counter(Side::Node, "rx_queue_", "_xdp_drops")
            .unwrap()
    }

    fn status(&self) -> Value {
        self.json(&["status"])["interfaces"][0].clone()
    }

    /// Every total that must never go back.
    fn sums(&self) -> [u64; 2] {
        [self.total("passed"), self.total("dropped")]
    }

    fn pinned(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut folders = vec![self.pins().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                all.push(entry.path());
                if entry.path().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        all
    }

    /// Generations and trials that are pinned.
    fn folders(&self) -> usize {
        let of = self.pins().join(INTERFACE);
        let entries = fs::read_dir(of).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    }
}

fn deny(name: &str, port: u16) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  types: [Ingress, Egress]\n  ingress:\n  - {{action: Deny, protocol: UDP, \
         destination: {{ports: [{port}]}}}}\n  - {{action: Allow}}\n  egress:\n  - {{action: Deny, \
         protocol: UDP, source: {{ports: [{port}]}}}}\n  - {{action: Allow}}\n"
    )
}

fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_not_confirmed_ends_by_itself() {
    for hook in ["tcx", "clsact"] {
        if !require::root_and_bpf() {
            return;
        }
        let node = Node::new();
        let old = node.policy("old", OLD);
        let new = node.policy("new", NEW);
        node.apply(&old, &["--egress-hook", hook]);
        assert_eq!(node.decides(), Some(OLD));
        let before = node.sums();

        let began = Instant::now();
        let said = node.apply(&new, &["--confirm", "8s"]);
        assert!(said.contains("on trial until"), "{said}");
        assert_eq!(node.decides(), Some(NEW));
        assert!(began.elapsed() < Duration::from_secs(8), "too slow to tell");
        let status = node.status();
        assert_eq!(status["trial"]["state"], "runs");
        assert_eq!(status["generation"], 2);
        let during = node.sums();
        assert!(
            during[0] > before[0] && during[1] > before[1],
            "{before:?} {during:?}"
        );

        // Nobody is there when its time is over.
        thread::sleep(Duration::from_secs(9).saturating_sub(began.elapsed()));
        assert_eq!(node.decides(), Some(OLD));

        let status = node.status();
        assert_eq!(status["trial"]["state"], "over");
        assert_eq!(status["generation"], 1);
        assert_eq!(status["egress"]["hook"], hook);
        let after = node.sums();
        assert_eq!(after[1], node.driver_dropped());
        assert!(after[0] > during[0], "{during:?} {after:?}");
        assert_eq!(node.folders(), 3, "{:?}", node.pinned());

        // The next change finishes it, and begins.
        let said = node.fails(1, &["confirm"]);
        assert!(said.contains("too late"), "{said}");
        assert_eq!(node.status()["trial"], Value::Null);
        assert_eq!(node.folders(), 1, "{:?}", node.pinned());
        assert_eq!(node.sums()[1], node.driver_dropped());
        assert!(node.sums()[0] >= after[0]);
        assert_eq!(node.decides(), Some(OLD));
        node.done(&["detach", "--interface", INTERFACE]);
        assert_eq!(node.pinned(), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_is_confirmed_stays() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let old = node.policy("old", OLD);
    let new = node.policy("new", NEW);
    node.apply(&old, &[]);
    node.apply(&new, &["--confirm", "5s"]);
    // Meanwhile nothing else is changed.
    let said = node.fails(1, &["apply", "-f", &old, "--interface", INTERFACE]);
    assert!(said.contains("on trial until"), "{said}");
    let said = String::from_utf8(node.run(&["confirm"]).stderr).unwrap();
    assert!(said.contains("kept"), "{said}");
    thread::sleep(Duration::from_secs(5));
    assert_eq!(node.decides(), Some(NEW));
    assert_eq!(node.status()["trial"], Value::Null);
    assert_eq!(node.sums()[1], node.driver_dropped());
    assert_eq!(node.folders(), 1, "{:?}", node.pinned());
    let said = node.fails(1, &["confirm"]);
    assert!(said.contains("nothing is on trial"), "{said}");
}

#[test]
fn a_trial_is_given_up_at_once() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let old = node.policy("old", OLD);
    let new = node.policy("new", NEW);
    node.apply(&old, &[]);
    node.apply(&new, &["--confirm", "1h"]);
    assert_eq!(node.decides(), Some(NEW));
    let before = node.sums();
    let said = String::from_utf8(node.run(&["rollback"]).stderr).unwrap();
    assert!(said.contains("given up"), "{said}");
    assert_eq!(node.decides(), Some(OLD));
    assert_eq!(node.status()["trial"], Value::Null);
    assert_eq!(node.folders(), 1, "{:?}", node.pinned());
    let after = node.sums();
    assert!(
        after[0] > before[0] && after[1] > before[1],
        "{before:?} {after:?}"
    );
    assert_eq!(after[1], node.driver_dropped());
}

#[test]
fn the_first_policies_may_be_on_trial() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let new = node.policy("new", NEW);
    node.apply(&new, &["--confirm", "2s"]);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(node.decides(), None);
    node.fails(3, &["status"]);
    // What is left of it is in nobody's way.
    node.apply(&new, &[]);
    assert_eq!(node.decides(), Some(NEW));
    assert_eq!(node.folders(), 1, "{:?}", node.pinned());
    node.done(&["detach", "--interface", INTERFACE]);

    node.apply(&new, &["--confirm", "1h"]);
    assert_eq!(node.decides(), Some(NEW));
    node.done(&["rollback"]);
    assert_eq!(node.decides(), None);
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());

    node.apply(&new, &["--confirm", "1h"]);
    node.done(&["confirm"]);
    assert_eq!(node.decides(), Some(NEW));

    node.done(&["detach", "--all"]);
    node.apply(&new, &["--confirm", "2s"]);
    node.done(&["detach", "--interface", INTERFACE]);
    assert_eq!(node.decides(), None);
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
}

#[test]
fn the_last_apply_is_undone_and_done_again() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let old = node.policy("old", OLD);
    let new = node.policy("new", NEW);
    let said = node.fails(3, &["rollback"]);
    assert!(said.contains("nothing"), "{said}");
    node.apply(&old, &["--sample-drops", "7", "--max-flows", "1000"]);
    let said = node.fails(1, &["rollback"]);
    assert!(said.contains("nothing before it"), "{said}");
    let policies = node.done(&["get", "policies", "-o", "yaml"]);
    node.apply(&new, &["--ingress-only"]);
    node.done(&["rollback"]);
    assert_eq!(node.decides(), Some(OLD));
    assert_eq!(node.done(&["get", "policies", "-o", "yaml"]), policies);
    // As it was applied, too: the daemon's question is whether just this is in force.
    let same = node.json(&["status"]);
    assert_eq!(same["interfaces"][0]["generation"], 3);
    node.done(&["rollback"]);
    assert_eq!(node.drops(NEW), 50);
    assert_eq!(node.status()["egress"], Value::Null);
}

/// Each packet of a flood gets the old or the new verdict, also at the moment when the time
/// is over, and every one is counted.
#[test]
fn no_packet_is_lost_at_the_end_of_a_trial() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let old = node.policy("old", OLD);
    let new = node.policy("new", NEW);
    node.apply(&old, &[]);
    // Each policy drops one of them.
    let frames = [Node::frame(OLD), Node::frame(NEW)];
    let stop = AtomicBool::new(false);
    let limit = Limit {
        packets: u64::MAX,
        time: Duration::from_mins(1),
        stop: Some(&stop),
    };
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| node.lab().send(Side::Client, &frames, &limit));
        for _ in 0..3 {
            node.apply(&new, &["--confirm", "1s"]);
            let status = node.sums();
            thread::sleep(Duration::from_millis(1_500));
            let later = node.sums();
            assert!(later[1] > status[1], "{status:?} {later:?}");
            node.fails(1, &["confirm"]);
            let finished = node.sums();
            assert!(
                finished[0] >= later[0] && finished[1] >= later[1],
                "{later:?} {finished:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap().unwrap()
    });
    settle(|| node.sums()[1] == node.driver_dropped());
    let stats = node.json(&["stats"]);
    let reasons = stats["interfaces"][0]["reasons"]
        .as_array()
        .unwrap()
        .clone();
    let of = |name: &str| -> u64 {
        let found = reasons.iter().filter(|reason| reason["reason"] == name);
        found
            .map(|reason| reason["packets"].as_u64().unwrap())
            .sum()
    };
    // Neighbours are looked for meanwhile; nothing else comes.
    let (dropped, passed) = (of("policy_deny"), of("policy_allow"));
    assert_eq!(dropped, node.driver_dropped());
    assert!(dropped + passed >= sent.packets, "{stats}");
    assert!(dropped + passed <= sent.packets + 100, "{stats}");
    // In turns: what neither policy drops is as much as what one of them does.
    assert!(
        dropped.abs_diff(sent.packets / 2) < 1_000 + sent.packets / 100,
        "{stats}"
    );
}

#[test]
fn a_daemon_waits_for_the_end_of_a_trial() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let folder = node.files().join("policies.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("old.yaml"), deny("old", OLD)).unwrap();
    let arguments = [
        "-f",
        folder.to_str().unwrap(),
        "--interface",
        INTERFACE,
        "--no-http",
    ];
    let daemon = Daemon::start(&node, &arguments);
    daemon.says("in force", 1);
    let new = node.policy("new", NEW);
    node.apply(&new, &["--confirm", "10s"]);
    // Its files change meanwhile, and what is on trial stays.
    fs::write(
        folder.join("old.yaml"),
        deny("old", OLD).replace("name: old", "name: other"),
    )
    .unwrap();
    daemon.says("waiting for the end of a trial", 1);
    assert_eq!(node.status()["trial"]["state"], "runs");
    // It was not killed: but if it were, nothing would depend on it.
    daemon.kill();
    settle(|| node.status()["trial"]["state"] == "over");
    assert_eq!(node.decides(), Some(OLD));
    // Another one finishes it, and puts its own in force.
    let daemon = Daemon::start(&node, &arguments);
    settle(|| node.status()["trial"] == Value::Null);
    assert_eq!(node.status()["trial"], Value::Null);
    assert_eq!(node.decides(), Some(OLD));
    assert_eq!(node.rule("other", 0), 50);

    node.apply(&new, &["--confirm", "1s"]);
    daemon.says("was not confirmed in time", 1);
    settle(|| node.status()["trial"] == Value::Null);
    assert_eq!(node.status()["trial"], Value::Null);
    assert!(daemon.stop().success());
}

#[test]
fn wrong_times_are_refused() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let new = node.policy("new", NEW);
    for time in ["0s", "30", "-5s", "25h", "soon", ""] {
        let said = node.fails(
            2,
            &[
                "apply",
                "-f",
                &new,
                "--interface",
                INTERFACE,
                &format!("--confirm={time}"),
            ],
        );
        assert!(said.contains("--confirm"), "{said}");
    }
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
    let reach = node.lab().reach(
        Side::Client,
        Transport::Udp,
        SocketAddr::from((Side::Node.v4(), NEW)),
        PATIENT,
    );
    assert_eq!(reach.unwrap(), Reach::Refused);
}
