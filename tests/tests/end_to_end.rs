//! The whole product, as an administrator uses it: the `nodewall` command in
//! a machine of its own, real services behind it, real clients before it.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use serde_json::Value;
use tests::lab::{self, Limit, Reach, Service, Side, Transport};
use tests::packet::{Ethernet, Extension, Ipv4, Ipv6, Tcp, Udp, ethertype};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
const LABEL: &str = "ibm.role=worker_public";
/// For what must not be answered: the veth pair takes no time.
const BRIEF: Duration = Duration::from_millis(700);
/// For what must be answered, on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);

/// The arguments that put a policy on the node's interface.
fn apply_to(file: &str) -> [&str; 7] {
    [
        "apply",
        "-f",
        file,
        "--interface",
        INTERFACE,
        "--label",
        LABEL,
    ]
}

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

    /// Runs `nodewall` under another command, which restricts it.
    fn run_under(&self, restriction: &[&str], pins: &Path, arguments: &[&str]) -> Output {
        let mut command = self.command_under(restriction, pins, arguments);
        command.output().unwrap()
    }

    /// Writes a policy file that denies these.
    fn policy(&self, name: &str, denied: &[(&str, &str)]) -> String {
        let mut text = format!(
            "apiVersion: v1\nkind: policy\nmetadata:\n  name: {name}\nspec:\n  preDNAT: true\n  \
             selector: ibm.role == 'worker_public'\n  ingress:\n"
        );
        for (protocol, ports) in denied {
            write!(
                text,
                "  - action: deny\n    protocol: {protocol}\n    destination:\n      ports:\n      \
                 - {ports}\n"
            )
            .unwrap();
        }
        let path = self.files().join(format!("{name}-{}.yaml", denied.len()));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The policy of the product's first page.
    fn node_ports(&self) -> String {
        self.policy(
            "node-ports",
            &[("tcp", "30000:32767"), ("udp", "30000:32767")],
        )
    }

    fn apply(&self, file: &str) -> String {
        self.done(&apply_to(file))
    }

    fn serve(&self, transport: Transport, port: u16) -> Service {
        self.lab().serve(Side::Node, transport, port).unwrap()
    }

    fn reach(&self, transport: Transport, to: IpAddr, port: u16, patience: Duration) -> Reach {
        let to = SocketAddr::new(to, port);
        self.lab()
            .reach(Side::Client, transport, to, patience)
            .unwrap()
    }

    fn answers(&self, transport: Transport, port: u16) {
        for to in Side::Node.addresses() {
            let reach = self.reach(transport, to, port, PATIENT);
            assert_eq!(reach, Reach::Answered, "{transport} {to} {port}");
        }
    }

    fn is_silent(&self, transport: Transport, port: u16) {
        for to in Side::Node.addresses() {
            let reach = self.reach(transport, to, port, BRIEF);
            assert_eq!(reach, Reach::TimedOut, "{transport} {to} {port}");
        }
    }

    /// All packets that were dropped.
    fn dropped(&self) -> u64 {
        self.total("dropped")
    }

    /// All packets that passed.
    fn passed(&self) -> u64 {
        self.total("passed")
    }

    /// All dropped packets by the driver's own count.
    fn driver_dropped(&self) -> u64 {
        self.lab()
            .driver_counter(Side::Node, "rx_queue_", "_xdp_drops")
            .unwrap()
    }

    /// The id of the XDP program on the interface.
    fn program(&self) -> Option<u32> {
        self.lab().xdp_program(Side::Node).unwrap()
    }

    fn pinned(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.pins()) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn apply_status_stats_and_detach() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.fails(3, &["status"]);
    node.fails(3, &["stats"]);

    let said = node.apply(&node.node_ports());
    assert!(said.contains("node-ports"), "{said}");
    let status = node.json(&["status"]);
    let interface = &status["interfaces"][0];
    assert_eq!(status["schema"], 1);
    assert_eq!(interface["interface"], INTERFACE);
    assert_eq!(interface["mode"], "native");
    assert_eq!(interface["generation"], 1);
    assert_eq!(
        interface["program_id"].as_u64(),
        node.program().map(u64::from)
    );

    // The same again is a new generation of the same rules.
    let said = node.apply(&node.node_ports());
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(node.json(&["status"])["interfaces"][0]["generation"], 2);

    // What is in force is what would be, until a port is left out.
    let diff = |file: &str| {
        let mut arguments = apply_to(file);
        arguments[0] = "diff";
        node.run(&arguments)
    };
    let same = diff(&node.node_ports());
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let other = diff(&node.policy(
        "node-ports",
        &[("tcp", "30000:32766"), ("udp", "30000:32767")],
    ));
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let said = String::from_utf8(other.stdout).unwrap();
    assert!(said.contains("let through, and wasn't: tcp"), "{said}");
    assert!(said.contains(":32767"), "{said}");
    assert_eq!(node.json(&["status"])["interfaces"][0]["generation"], 2);

    node.done(&["detach", "--interface", INTERFACE]);
    node.fails(3, &["status"]);
    // The kernel lets go of a link a moment after its pin is gone.
    settle(|| node.program().is_none());
    assert_eq!(node.program(), None);
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
}

#[test]
fn denied_ports_are_silent_and_others_answer() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let denied: Vec<(Transport, u16)> = [30000, 30080, 32767]
        .into_iter()
        .flat_map(|port| [(Transport::Tcp, port), (Transport::Udp, port)])
        .collect();
    let allowed = [
        (Transport::Tcp, 8080),
        (Transport::Tcp, 29999),
        (Transport::Udp, 32768),
    ];
    let _services: Vec<Service> = denied
        .iter()
        .chain(&allowed)
        .map(|(transport, port)| node.serve(*transport, *port))
        .collect();
    let all_answer = || {
        for (transport, port) in denied.iter().chain(&allowed) {
            node.answers(*transport, *port);
        }
    };

    all_answer();
    // `apply` exits, so from here on no process filters.
    node.apply(&node.node_ports());
    thread::scope(|scope| {
        for (transport, port) in &denied {
            let node = &node;
            scope.spawn(move || node.is_silent(*transport, *port));
        }
    });
    for (transport, port) in &allowed {
        node.answers(*transport, *port);
    }
    assert!(node.rule("node-ports", 0) >= 6);
    assert_eq!(node.rule("node-ports", 1), 6);

    node.done(&["detach", "--all"]);
    settle(|| node.program().is_none());
    all_answer();
}

#[test]
fn counters_are_exact_and_the_driver_agrees() {
    const TURNS: u64 = 10_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(&node.node_ports());
    let (v4, v6) = (Ipv4::default(), Ipv6::default());
    let options = Ipv4 {
        options: vec![1; 40],
        ..Ipv4::default()
    };
    let hop_by_hop = Ipv6::with([Extension::hop_by_hop()]);
    let plain = Ethernet::default();
    let tagged = Ethernet::default().tagged(&[ethertype::VLAN]);
    let twice = Ethernet::default().tagged(&[ethertype::SERVICE_VLAN, ethertype::VLAN]);
    let frames = [
        plain.carry(&v4.carry(&Tcp::to(30000))),
        plain.carry(&v4.carry(&Udp::to(32767))),
        plain.carry(&options.carry(&Udp::to(31000))),
        plain.carry(&hop_by_hop.carry(&Tcp::to(30080))),
        tagged.carry(&v4.carry(&Tcp::to(30080))),
        twice.carry(&v6.carry(&Udp::to(30080))),
        plain.carry(&v4.carry(&Udp::to(29999))),
        tagged.carry(&v4.carry(&Udp::to(32768))),
    ];
    // Before Linux 6.16 a veth drops what its other end is too slow for.
    let turns = if require::linux() < (6, 16) { 8 } else { TURNS };
    for _ in 0..TURNS / turns {
        let packets = turns * frames.len() as u64;
        let sent = node
            .lab()
            .send(Side::Client, &frames, &Limit::count(packets));
        assert_eq!(sent.unwrap().packets, packets);
        if turns < TURNS {
            thread::sleep(Duration::from_millis(2));
        }
    }
    settle(|| node.dropped() == 6 * TURNS);
    assert_eq!(node.rule("node-ports", 0), 3 * TURNS);
    assert_eq!(node.rule("node-ports", 1), 3 * TURNS);
    assert_eq!(node.dropped(), 6 * TURNS);
    assert_eq!(node.driver_dropped(), 6 * TURNS);
}

#[test]
fn a_swap_lets_nothing_through_and_loses_no_count() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    // Rule 1 of both denies udp 30080, by other ports.
    let policies = [
        node.policy(
            "node-ports",
            &[("tcp", "30000:32767"), ("udp", "30000:32767")],
        ),
        node.policy(
            "node-ports",
            &[
                ("tcp", "30000:30001"),
                ("udp", "30080:30080"),
                ("udp", "31000:31001"),
            ],
        ),
    ];
    let listener = node
        .lab()
        .in_ns(Side::Node, || UdpSocket::bind((Side::Node.v4(), 30080)))
        .unwrap()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    node.apply(&policies[0]);

    let frames = [Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(30080)))];
    let stop = AtomicBool::new(false);
    let limit = Limit {
        packets: u64::MAX,
        time: Duration::from_mins(10),
        stop: Some(&stop),
    };
    // What was not of this flood.
    let undelivered = || node.lab().undelivered(Side::Client).unwrap();
    let others = undelivered();
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| node.lab().send(Side::Client, &frames, &limit));
        // Also where an assertion below fails.
        let _ends = Raise(&stop);
        let mut before = 0;
        for swap in 1..=8 {
            node.apply(&policies[swap % 2]);
            let now = node.rule("node-ports", 1);
            assert!(now > before, "swap {swap}: {now} after {before}");
            before = now;
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap().unwrap()
    });
    let arrived = || {
        if require::linux() < (6, 16) {
            sent.packets - (undelivered() - others)
        } else {
            sent.packets
        }
    };
    settle(|| node.rule("node-ports", 1) == arrived());
    assert_eq!(node.rule("node-ports", 1), arrived());
    assert_eq!(node.driver_dropped(), arrived());
    assert_eq!(node.json(&["status"])["interfaces"][0]["generation"], 9);
    let through = listener.recv(&mut [0; 64]);
    assert!(through.is_err(), "a packet came through a swap");
}

/// The same of what goes out, at each hook that the kernel has.
#[test]
fn a_swap_lets_nothing_out() {
    if !require::root_and_bpf() {
        return;
    }
    nothing_goes_out_over_swaps("clsact");
    if require::has_tcx() {
        nothing_goes_out_over_swaps("tcx");
    }
}

fn nothing_goes_out_over_swaps(hook: &str) {
    let node = Node::new();
    let lab = node.lab();
    let files = [1, 2].map(|other| {
        let path = node.files().join(format!("{other}.yaml"));
        let text = format!(
            "apiVersion: v1\nkind: policy\nmetadata: {{name: out}}\nspec:\n  egress:\n  - {{action: \
             deny, protocol: udp, destination: {{ports: [{other}, 9999]}}}}\n  - {{action: allow}}\n"
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let apply = |swap: usize| {
        let file = files[swap % 2].as_str();
        let apply = ["apply", "-f", file, "--interface", INTERFACE];
        node.done(&[&apply[..], &["--egress-hook", hook]].concat());
    };
    let denied = || -> u64 {
        let stats = node.json(&["stats"]);
        let all = stats["interfaces"].as_array().unwrap();
        let egress = all.iter().find(|of| of["direction"] == "egress").unwrap();
        let rules = egress["rules"].as_array().unwrap();
        let of_first = |rule: &&Value| rule["policy"] == "out" && rule["rule"] == 0;
        let rule = rules.iter().find(of_first).unwrap();
        rule["packets"].as_u64().unwrap()
    };
    // Known, so that no packet waits for the answer to a question about it.
    let mac = Side::Client
        .mac()
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    let client = Side::Client.v4().to_string();
    let neighbour = [
        "neigh", "replace", &client, "lladdr", &mac, "dev", INTERFACE,
    ];
    lab.ip(Side::Node, &neighbour).unwrap();
    let to = (Side::Client.v4(), 9999);
    let listener = lab.in_ns(Side::Client, || UdpSocket::bind(to)).unwrap();
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();
    apply(0);

    let stop = AtomicBool::new(false);
    let flood = || {
        let socket = UdpSocket::bind((Side::Node.v4(), 0)).unwrap();
        let (began, mut sent) = (Instant::now(), 0_u64);
        while !stop.load(Ordering::Relaxed) && began.elapsed() < Duration::from_mins(10) {
            // The kernel does not tell a sender of UDP that its packet was dropped.
            socket.send_to(&[0; 32], to).unwrap();
            sent += 1;
        }
        sent
    };
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| lab.in_ns(Side::Node, flood).unwrap());
        // Also where an assertion below fails.
        let _ends = Raise(&stop);
        let mut before = 0;
        for swap in 1..=8 {
            apply(swap);
            let now = denied();
            assert!(now > before, "swap {swap}: {now} after {before}");
            before = now;
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    settle(|| denied() == sent);
    assert_eq!(denied(), sent, "at {hook}");
    let status = node.json(&["status"]);
    assert_eq!(status["interfaces"][0]["generation"], 9);
    assert_eq!(status["interfaces"][0]["egress"]["hook"], hook);
    let through = listener.recv(&mut [0; 64]);
    assert!(
        through.is_err(),
        "a packet went out through a swap at {hook}"
    );
}

#[test]
fn readers_do_not_stop_a_change() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = node.node_ports();
    node.apply(&policy);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    node.done(&["stats"]);
                }
            });
        }
        let _done = Raise(&done);
        for _ in 0..10 {
            node.apply(&policy);
        }
    });
    assert_eq!(node.json(&["status"])["interfaces"][0]["generation"], 11);
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = node.node_ports();
    // Another tool's program, as far as this pin folder knows.
    let foreign = node
        .pins()
        .with_file_name(format!("nodewall-test-{}-foreign", process::id()));
    let arguments = apply_to(&policy);
    let output = node.run_under(&[], &foreign, &arguments);
    let program = node.program();
    let said = node.fails(1, &arguments);
    let untouched = node.program() == program;
    fs::remove_dir_all(&foreign).unwrap();

    assert!(output.status.success(), "{output:?}");
    let id = program.unwrap();
    assert!(untouched, "program {id} is no longer there");
    assert!(said.contains(&id.to_string()), "{said}");
    // The kernel keeps 15 characters of a name.
    assert!(said.contains("nodewall_ingres"), "{said}");
    assert!(said.contains(INTERFACE), "{said}");
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = node.node_ports();
    let apply = |interface, mode| {
        let arguments = [
            "apply",
            "-f",
            &policy,
            "--interface",
            interface,
            "--label",
            LABEL,
        ];
        node.fails(1, &[&arguments[..], &["--mode", mode]].concat())
    };
    let said = apply("node9", "auto");
    assert!(said.contains("node9") && said.contains(INTERFACE), "{said}");
    let said = apply("lo", "native");
    assert!(said.contains("lo") && said.contains("native"), "{said}");
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());

    // Nor does it touch what is in force.
    node.apply(&policy);
    let program = node.program();
    let wrong = node.policy("wrong", &[("tcp", "32767:30000")]);
    node.fails(1, &apply_to(&wrong));
    assert_eq!(node.program(), program);
    assert_eq!(node.json(&["status"])["interfaces"][0]["generation"], 1);
}

#[test]
fn without_privileges_the_error_says_what_is_needed() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = node.node_ports();
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let apply = apply_to(&policy);
    let output = node.run_under(&powerless, node.pins(), &apply);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("CAP_BPF") && said.contains("CAP_NET_ADMIN"),
        "{said}"
    );
    assert_eq!(node.program(), None);
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());

    // What needs none works.
    let dry = [&apply[..], &["--dry-run"]].concat();
    let output = node.run_under(&powerless, node.pins(), &dry);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn without_bpffs_the_error_says_how_to_mount_it() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = node.node_ports();
    // A mount namespace of its own, where bpffs is gone, and no right to
    // mount another.
    let bare = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "umount /sys/fs/bpf 2>/dev/null; exec setpriv --bounding-set=-sys_admin \"$@\"",
        "sh",
    ];
    let apply = apply_to(&policy);
    let output = node.run_under(&bare, node.pins(), &apply);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
    assert_eq!(node.program(), None);

    // With that right, it mounts its own.
    let bare = [
        &bare[..4],
        &["umount /sys/fs/bpf 2>/dev/null; exec \"$@\"", "sh"],
    ]
    .concat();
    let output = node.run_under(&bare, node.pins(), &apply);
    assert!(output.status.success(), "{output:?}");
    // The mount went with its namespace, and with it the only pin.
    settle(|| node.program().is_none());
    assert_eq!(node.program(), None);

    // Another file system holds no pins.
    let output = node.run_under(&[], node.files(), &apply);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--pin-root"), "{said}");
}

/// Raises the flag when it goes out of scope.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for what is still on its way, two seconds at most.
fn settle(settled: impl Fn() -> bool) {
    for _ in 0..20 {
        if settled() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A normal policy is about the node itself; what the node forwards is for
/// policies that say so. The node's own addresses tell the two apart.
#[test]
fn forwarded_packets_are_told_apart_by_the_nodes_addresses() {
    const TURNS: u64 = 100;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = |name: &str, more: &str| -> String {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
             {name}}}\nspec:\n  {more}\n  ingress:\n  - {{action: Allow, protocol: TCP, \
             destination: {{ports: [22]}}}}\n"
        );
        let path = node.files().join(format!("{name}.yaml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = policy("own", "order: 1");
    let all = policy("all", "applyOnForward: true");
    let elsewhere = [198, 51, 100, 9];
    let frames = |dst: [u8; 4]| {
        let ip = Ipv4 {
            dst: dst.into(),
            ..Ipv4::default()
        };
        [Ethernet::default().carry(&ip.carry(&Udp::to(9)))]
    };
    // Dropped of the packets that are for the node, and of those that aren't.
    let dropped = || -> [u64; 2] {
        [Side::Node.v4().octets(), elsewhere].map(|dst| {
            let (before, received) = (node.dropped(), node.passed());
            let limit = Limit::count(TURNS);
            node.lab().send(Side::Client, &frames(dst), &limit).unwrap();
            let done = || node.dropped() - before + node.passed() - received >= TURNS;
            settle(done);
            node.dropped() - before
        })
    };
    let apply = |files: &[&str]| {
        let mut arguments = vec![
            "apply",
            "--interface",
            INTERFACE,
            "--failsafe-inbound",
            "none",
        ];
        for file in files {
            arguments.extend(["-f", file]);
        }
        node.done(&arguments);
    };
    let forward = |on: &str| {
        let setting = format!("/proc/sys/net/ipv4/conf/{INTERFACE}/forwarding");
        let written = node.lab().in_ns(Side::Node, || fs::write(setting, on));
        written.unwrap().unwrap();
    };

    // A node that forwards nothing has no packets but its own.
    forward("0");
    apply(&[&own]);
    assert_eq!(dropped(), [TURNS, TURNS]);
    forward("1");
    apply(&[&own]);
    assert_eq!(dropped(), [TURNS, 0]);
    apply(&[&own, &all]);
    assert_eq!(dropped(), [TURNS, TURNS]);
    // By hand, as on a machine that can't be asked.
    node.done(&[
        "apply",
        "-f",
        &own,
        "--interface",
        INTERFACE,
        "--node-address",
        "198.51.100.0/24",
    ]);
    assert_eq!(dropped(), [0, TURNS]);
}

/// Where what goes out is filtered unless told otherwise.
fn usual_hook() -> &'static str {
    if require::has_tcx() { "tcx" } else { "clsact" }
}

/// Both directions are in force together, and what goes out is left alone where
/// that is asked for.
#[test]
fn egress_is_enforced_unless_it_is_left_out() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let path = node.files().join("both.yaml");
    let text = "apiVersion: v1\nkind: policy\nmetadata: {name: both}\nspec:\n  ingress: [{action: \
                log}, {action: allow, protocol: tcp}]\n  egress: [{action: allow}]\n";
    fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let apply = ["apply", "-f", file, "--interface", INTERFACE];
    let said = node.done(&apply);
    assert!(said.contains("egress: "), "{said}");
    let status = node.json(&["status"]);
    let egress = &status["interfaces"][0]["egress"];
    assert_eq!(egress["hook"], usual_hook(), "{status:#}");
    assert!(egress["program_id"].as_u64() > Some(0), "{status:#}");
    node.done(&[&apply[..], &["--ingress-only"]].concat());
    let status = node.json(&["status"]);
    assert!(status["interfaces"][0]["egress"].is_null(), "{status:#}");

    // The Log rule counts what the next one decides.
    let service = node.serve(Transport::Tcp, 8081);
    node.answers(Transport::Tcp, 8081);
    drop(service);
    assert!(node.rule("both", 1) > 0);
    settle(|| node.rule("both", 0) >= node.rule("both", 1));
    assert!(node.rule("both", 0) >= node.rule("both", 1));
}

/// Before Linux 6.6 there is no TCX: the same by a classifier at clsact, over a change
/// and until it is taken off.
#[test]
fn what_goes_out_is_filtered_at_clsact_as_well() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let path = node.files().join("out.yaml");
    let text = "apiVersion: v1\nkind: policy\nmetadata: {name: out}\nspec:\n  egress:\n  - {action: \
                deny, protocol: tcp, destination: {ports: [9999]}}\n  - {action: allow}\n";
    fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let lab = node.lab();
    let services = [8081, 9999].map(|port| lab.serve(Side::Client, Transport::Tcp, port).unwrap());
    let reach = |port: u16, patience| {
        let to = SocketAddr::new(Side::Client.v4().into(), port);
        lab.reach(Side::Node, Transport::Tcp, to, patience).unwrap()
    };
    let classifiers = || {
        let mut tc = lab.command(Side::Node, "tc");
        let shown = tc.args(["filter", "show", "dev", INTERFACE, "egress"]);
        String::from_utf8(shown.output().unwrap().stdout).unwrap()
    };
    assert_eq!(reach(9999, PATIENT), Reach::Answered);
    let apply = ["apply", "-f", file, "--interface", INTERFACE];
    for hook in [&["--egress-hook", "clsact"][..], &[]] {
        node.done(&[&apply[..], hook].concat());
        let status = node.json(&["status"]);
        let egress = &status["interfaces"][0]["egress"];
        assert_eq!(egress["hook"], "clsact", "{status:#}");
        let shown = classifiers();
        assert_eq!(shown.matches("nodewall").count(), 2, "{shown}");
        let id = format!("id {} ", egress["program_id"]);
        assert!(shown.contains(&id), "{id}: {shown}");
        assert_eq!(reach(9999, BRIEF), Reach::TimedOut);
        assert_eq!(reach(8081, PATIENT), Reach::Answered);
    }
    node.done(&["detach", "--all"]);
    assert!(!classifiers().contains("nodewall"));
    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
    assert_eq!(reach(9999, PATIENT), Reach::Answered);

    // As a first change leaves it that ends before what comes in is filtered.
    node.done(&[&apply[..], &["--egress-hook", "clsact"]].concat());
    fs::remove_file(node.pins().join(INTERFACE).join("link")).unwrap();
    settle(|| node.program().is_none());
    assert_eq!(reach(9999, BRIEF), Reach::TimedOut);
    node.done(&apply);
    let status = node.json(&["status"]);
    assert_eq!(status["interfaces"][0]["egress"]["hook"], usual_hook());
    let is_classifier = classifiers().contains("nodewall");
    assert_eq!(is_classifier, !require::has_tcx());
    assert_eq!(reach(9999, BRIEF), Reach::TimedOut);
    drop(services);
}

/// What a Log rule matches is reported, with the right rule and headers; the
/// verdict is the next rule's, and what is not reported is counted as lost.
#[test]
fn log_rules_report_packets() {
    const FLOOD: u64 = 100_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let policy = |log: &str| -> String {
        let path = node.files().join("log.yaml");
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
             seen}}\nspec:\n  ingress:\n  - {{action: Log, protocol: {log}}}\n  - {{action: Deny, \
             protocol: UDP, destination: {{ports: [9]}}}}\n  - {{action: Allow}}\n"
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let observe = |more: &[&str]| -> Vec<Value> {
        let lines = node.done(&[&["observe", "-o", "jsonl"], more].concat());
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    node.fails(3, &["observe"]);
    let nothing = node.policy("plain", &[("tcp", "30000")]);
    node.apply(&nothing);
    assert!(
        node.fails(1, &["observe"])
            .contains("nothing in force reports packets")
    );

    node.done(&["apply", "-f", &policy("UDP"), "--interface", INTERFACE]);
    assert_eq!(observe(&[]), Vec::<Value>::new());
    let plain = Ethernet::default();
    let tagged = Ethernet::default().tagged(&[ethertype::VLAN]);
    let frames = [
        plain.carry(&Ipv4::default().carry(&Udp::to(9))),
        tagged.carry(&Ipv6::default().carry(&Udp::to(53))),
        plain.carry(&Ipv4::default().carry(&Tcp::to(9))),
    ];
    node.lab()
        .send(Side::Client, &frames, &Limit::count(3))
        .unwrap();
    settle(|| node.rule("seen", 0) == 2);
    assert_eq!((node.rule("seen", 0), node.rule("seen", 1)), (2, 1));
    let events = observe(&[]);
    assert_eq!(events.len(), 2, "{events:?}");
    for (event, verdict, port, version, by) in [
        (&events[0], "drop", 9, 4, 1),
        (&events[1], "pass", 53, 6, 2),
    ] {
        assert_eq!(event["verdict"], verdict, "{event}");
        assert_eq!(event["action"], "log");
        assert_eq!(
            (&event["policy"], &event["rule"]),
            (&"seen".into(), &0.into())
        );
        assert_eq!(event["decided_by"]["rule"], by);
        assert_eq!(event["l4"]["proto"], "udp");
        assert_eq!(event["l4"]["dport"], port);
        assert_eq!(event["ip"]["version"], version);
        assert_eq!(event["interface"], INTERFACE);
        assert!(event["length"].as_u64().unwrap() >= 42);
    }
    let source = Ipv4::default().src.to_string();
    assert_eq!(events[0]["ip"]["src"], source);

    // Each is given once, and filters leave the rest out.
    assert_eq!(observe(&[]).len(), 0);
    node.lab()
        .send(Side::Client, &frames, &Limit::count(3))
        .unwrap();
    settle(|| node.rule("seen", 0) == 4);
    assert_eq!(observe(&["--port", "53", "--proto", "udp"]).len(), 1);

    // A flood is a sample: what isn't reported is counted.
    node.lab()
        .send(Side::Client, &frames[..1], &Limit::count(FLOOD))
        .unwrap();
    settle(|| node.rule("seen", 0) == 4 + FLOOD);
    assert_eq!(node.rule("seen", 0), 4 + FLOOD);
    assert_eq!(node.rule("seen", 1), 2 + FLOOD);
    let events = observe(&[]);
    let lost: u64 = events
        .iter()
        .filter_map(|event| event["lost"].as_u64())
        .sum();
    let told = events
        .iter()
        .filter(|event| event["time"].is_string())
        .count() as u64;
    assert_eq!(told + lost, FLOOD);
    assert!(told >= 256 && lost > 0, "{told} told, {lost} lost");

    // An event keeps its rule over a change of the policy.
    thread::scope(|scope| {
        let following = scope.spawn(|| {
            node.done(&[
                "observe", "-f", "-o", "jsonl", "--proto", "tcp", "--count", "1",
            ])
        });
        thread::sleep(Duration::from_millis(500));
        node.done(&["apply", "-f", &policy("TCP"), "--interface", INTERFACE]);
        node.lab()
            .send(Side::Client, &frames, &Limit::count(3))
            .unwrap();
        let line = following.join().unwrap();
        // Before it stands what the old generation lost.
        let event: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
        assert_eq!(event["l4"]["dport"], 9, "{event}");
        assert!(event["l4"]["tcp_flags"].is_u64());
    });
}

/// What is in force, in each of the formats that there are, read back and
/// applied again, is the same.
#[test]
fn get_goes_back_into_apply() {
    if !require::root_and_bpf() {
        return;
    }
    let write = |node: &Node, name: &str, text: &str| {
        let path = node.files().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let node = Node::new();
    node.fails(3, &["get", "policies"]);
    node.apply(&node.node_ports());
    let calico = "\
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 5, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: blocked, labels: {role: blocked}}
spec: {nets: [203.0.113.0/24, 'fd00:9::/32']}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first.block}
spec:
  tier: first
  ingress:
  - {action: Log, source: {selector: role == 'blocked'}}
  - {action: Deny, source: {selector: role == 'blocked'}}
  - {action: Pass, protocol: ICMP, icmp: {type: 8}}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: later}
spec: {ingress: [{action: Deny, protocol: TCP, destination: {ports: [8080], notPorts: [9090]}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: serve}
spec:
  order: 10.5
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80, '8000:8099']}}
  - {action: Allow, notProtocol: 47, source: {notNets: [10.0.0.0/8]}}
";
    let firewall = format!(
        "apiVersion: ingressnodefirewall.openshift.io/v1alpha1
kind: IngressNodeFirewall
metadata: {{name: edge}}
spec:
  interfaces: [{INTERFACE}]
  ingress:
  - sourceCIDRs: [0.0.0.0/0]
    rules:
    - {{order: 1, protocolConfig: {{protocol: TCP, tcp: {{ports: 22}}}}, action: Deny}}
  - sourceCIDRs: [10.0.0.0/8]
    rules:
    - {{order: 1, action: Allow}}
"
    );
    let kubernetes = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80}]
";
    let mut last = String::new();
    for (name, text) in [
        ("calico", calico),
        ("firewall", firewall.as_str()),
        ("kubernetes", kubernetes),
    ] {
        let file = write(&node, &format!("{name}.yaml"), text);
        node.apply(&file);
        let before = node.json(&["get", "rules"]);
        let documents = node.done(&["get", "policies", "-o", "yaml"]);
        assert_ne!(documents, last);
        let back = write(&node, &format!("{name}-back.yaml"), &documents);
        let said = node.done(&["apply", "-f", &back]);
        if name != "firewall" {
            // Its rules are said in other words, and numbered as they come.
            for line in said.lines().filter(|line| line.starts_with("policy ")) {
                assert!(line.ends_with(": unchanged"), "{name}: {said}");
            }
            let matches = |document: &Value| -> Vec<Value> {
                let rules = document["rules"].as_array().unwrap();
                rules.iter().map(|rule| rule["matches"].clone()).collect()
            };
            let after = node.json(&["get", "rules"]);
            assert_eq!(matches(&before), matches(&after), "{name}");
        }
        let again = node.done(&["get", "policies", "-o", "yaml"]);
        assert_eq!(documents, again, "{name}");
        assert!(
            node.run(&["diff", "-f", &back, "--interface", INTERFACE])
                .status
                .success()
        );
        for what in ["policies", "rules", "endpoints", "sets"] {
            let table = node.done(&["get", what]);
            assert!(
                table.lines().all(|line| line.chars().count() <= 80),
                "{table}"
            );
            node.done(&["get", what, "-o", "wide"]);
        }
        last = documents;
    }
    let said = node.fails(1, &["get", "policies", "nothing"]);
    assert!(said.contains("shop/web"), "{said}");
}

/// A set of a million networks makes no difference to who reads the status.
#[test]
fn status_of_a_large_set_is_quick() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let mut list = String::new();
    for number in 0..1_000_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        writeln!(list, "{}.{a}.{b}.{}", 11 + (number & 1), c & 0xfe).unwrap();
    }
    fs::write(node.files().join("list.txt"), list).unwrap();
    let path = node.files().join("large.yaml");
    fs::write(
        &path,
        "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: large
  labels: {role: blocked}
  annotations: {nodewall.io/nets-from: list.txt}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: block}
spec:
  doNotTrack: true
  applyOnForward: true
  ingress: [{action: Deny, source: {selector: role == 'blocked'}}]
",
    )
    .unwrap();
    node.apply(path.to_str().unwrap());
    let start = std::time::Instant::now();
    node.done(&["status"]);
    let took = start.elapsed();
    println!("status: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(node.done(&["get", "sets"]).contains("large"));
}
