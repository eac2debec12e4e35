//! `nodewall observe -w`: what tshark reads is what was dropped, and what can't be
//! written is said.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Limit, Node, Side};
use tests::packet::{Ethernet, Ipv4, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();

/// UDP to a port.
fn udp(port: u16) -> Vec<u8> {
    Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(port)))
}

/// Drops UDP to port 9 that comes in, and to port 7 that goes out.
fn node(sampled: &str) -> Node {
    let node = Node::new().unwrap();
    let path = node.files().join("policy.yaml");
    let text = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: \
                both-ways}\nspec:\n  types: [Ingress, Egress]\n  ingress:\n  - {action: Deny, \
                protocol: UDP, destination: {ports: [9]}}\n  - {action: Log, protocol: UDP, \
                destination: {ports: [10]}}\n  - {action: Allow}\n  egress:\n  - {action: Allow, \
                protocol: TCP}\n  - {action: Deny, protocol: UDP, destination: {ports: [7]}}\n  \
                - {action: Allow}\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    node.done(&[
        "apply",
        "-f",
        path,
        "--interface",
        INTERFACE,
        "--sample-drops",
        sampled,
    ]);
    node
}

/// Sends so many to the node, some at a time: what is reported is spread over a second.
fn send(node: &Node, port: u16, count: u64) {
    const AT_A_TIME: usize = 100;
    for begun in (0..count).step_by(AT_A_TIME) {
        let limit = Limit::count((count - begun).min(AT_A_TIME as u64));
        let sent = node.lab().send(Side::Client, &[udp(port)], &limit);
        sent.unwrap();
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends so many from the node. By its own stack: who sends frames is told when one is
/// dropped.
fn send_out(node: &Node, port: u16, count: u64) {
    let send = || {
        let socket = UdpSocket::bind((Side::Node.v4(), 0)).unwrap();
        for _ in 0..count {
            socket.send_to(b"out", (Side::Client.v4(), port)).unwrap();
        }
    };
    node.lab().in_ns(Side::Node, send).unwrap();
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

/// The fields of each packet, as tshark reads them; it has nothing to complain of.
fn tshark(input: &[u8], fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-r", "-", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tshark runs: `cargo xtask setup` brings it");
    let mut stdin = child.stdin.take().unwrap();
    let output: Output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut complaints = stderr
        .lines()
        .filter(|line| !line.starts_with("Running as user"));
    assert_eq!(complaints.next(), None, "{stderr}");
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

fn packets(path: &Path) -> usize {
    tshark(&fs::read(path).unwrap(), &["frame.number"]).len()
}

#[test]
fn tshark_reads_drops_of_both_directions() {
    if !require::root_and_bpf() {
        return;
    }
    let node = node("10000");
    let path = node.files().join("drops.pcapng");
    fs::write(&path, "something else, which goes").unwrap();
    send(&node, 9, 3);
    send_out(&node, 7, 2);
    send(&node, 10, 1);
    let dropped = |node: &Node| {
        let status = node.json(&["status"]);
        let of = &status["interfaces"][0];
        (
            of["dropped"]["packets"].as_u64(),
            of["egress"]["dropped"]["packets"].as_u64(),
            node.rule("both-ways", 1),
        )
    };
    let all = (Some(3), Some(2), 1);
    settle(|| dropped(&node) == all);
    assert_eq!(dropped(&node), all);
    let output = node.run(&["observe", "-w", path.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("6 packets written, 0 reports were lost"),
        "{said}"
    );

    let mut found = tshark(
        &fs::read(&path).unwrap(),
        &[
            "udp.dstport",
            "frame.interface_name",
            "frame.interface_description",
            "frame.packet_flags_direction",
            "frame.verdict.ebpf_xdp",
            "frame.verdict.ebpf_tc",
            "frame.comment",
            "frame.len",
            "frame.drop_count",
            "ip.src",
        ],
    );
    found.sort();
    found.dedup();
    let (length, src) = (udp(9).len().to_string(), Ipv4::default().src.to_string());
    let (out_length, out_src) = ((14 + 20 + 8 + 3).to_string(), Side::Node.v4().to_string());
    let row = |port: &str, way: &str, flags: &str, xdp: &str, tc: &str, comment: &str| {
        let (way, length, src) = match way {
            "in" => ("ingress, nodewall XDP", &length, &src),
            _ => ("egress, nodewall TC", &out_length, &out_src),
        };
        [
            port, INTERFACE, way, flags, xdp, tc, comment, length, "", src,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let logged = "pass policy_allow both-ways rule 2 (normal), reported by both-ways rule 1 \
                  (normal)";
    assert_eq!(
        found,
        [
            row("10", "in", "0x00000001", "2", "", logged),
            row(
                "7",
                "out",
                "0x00000002",
                "",
                "2",
                "drop policy_deny both-ways rule 1 (normal), 1 in 1",
            ),
            row(
                "9",
                "in",
                "0x00000001",
                "1",
                "",
                "drop policy_deny both-ways rule 0 (normal), 1 in 1",
            ),
        ]
    );
    // The same on stdout, of the chosen ones.
    send(&node, 9, 4);
    send(&node, 10, 4);
    settle(|| dropped(&node) == (Some(7), Some(2), 5));
    let output = node.run(&["observe", "-w", "-", "--port", "9"]);
    assert!(output.status.success());
    assert_eq!(tshark(&output.stdout, &["udp.dstport"]), vec![["9"]; 4]);
}

/// What tshark says was lost between packets, and what the end says of all, is what the
/// counters have and the capture has not.
#[test]
fn what_is_missing_is_told() {
    const FLOOD: u64 = 20_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = node("1000");
    let path = node.files().join("flood.pcapng");
    // Over some seconds, so that there are packets behind losses.
    let child = node
        .command(&["observe", "-f", "-w", path.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    settle(|| path.exists());
    // Read while it is written: a beginning without packets can be read too.
    assert_eq!(packets(&path), 0);
    send(&node, 9, FLOOD);
    settle(|| node.total("dropped") == FLOOD);
    thread::sleep(Duration::from_millis(500));
    let so_far = packets(&path);
    assert!(so_far > 20, "{so_far} packets");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Ctrl-C is its end");
    let said = String::from_utf8(output.stderr).unwrap();
    let numbers: Vec<u64> = said
        .rsplit(": ")
        .next()
        .unwrap()
        .split_whitespace()
        .filter_map(|word| word.replace(',', "").parse().ok())
        .collect();
    let [written, lost] = numbers[..] else {
        panic!("{said}")
    };
    assert_eq!(written + lost, FLOOD, "{said}");
    let found = tshark(
        &fs::read(&path).unwrap(),
        &["frame.drop_count", "frame.comment"],
    );
    assert_eq!(found.len() as u64, written);
    let between: u64 = found
        .iter()
        .filter_map(|row| row[0].parse::<u64>().ok())
        .sum();
    assert!(between > 0 && between <= lost, "{between} of {lost}");
    assert!(
        found
            .iter()
            .all(|row| row[1].starts_with("drop policy_deny both-ways rule 0"))
    );
}

#[test]
fn what_cannot_be_written_is_said() {
    if !require::root_and_bpf() {
        return;
    }
    let node = node("10000");
    let write = |path: &str| node.fails(1, &["observe", "-w", path]);
    let said = write("/no/such/folder/x.pcapng");
    assert!(
        said.contains("/no/such/folder/x.pcapng: No such file"),
        "{said}"
    );
    let said = write("/dev/full");
    assert!(said.contains("No space left on device"), "{said}");
    let said = node.fails(2, &["observe", "-w", "x", "-o", "jsonl"]);
    assert!(said.contains("cannot be used with"), "{said}");

    // A disk that becomes full tears nothing.
    let disk = Small::mount(node.files().join("small"));
    let path = disk.0.join("x.pcapng");
    send(&node, 9, 2_000);
    settle(|| node.total("dropped") == 2_000);
    let said = write(path.to_str().unwrap());
    assert!(said.contains("No space left on device"), "{said}");
    let found = packets(&path);
    assert!(found > 50, "{found}");
    assert!(
        said.contains(&format!("It has {found} packets; they can be read")),
        "{said}"
    );
}

/// A disk of 32 KiB.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32k", "tmpfs"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}
