//! What others do to the filter, by accident or not: the table of faults, a test a row.
//! Those of the daemon's own life are in `daemon.rs`, crashes in `crash.rs`.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use tests::lab::{self, Daemon, Limit, Side};
use tests::packet::{Ethernet, Ipv4, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
/// What the policy denies, both ways.
const PORT: u16 = 9_001;
/// How soon the daemon must notice.
const SOON: Duration = Duration::from_secs(1);
/// What a machine that does ten other things adds to that.
const BUSY: Duration = Duration::from_secs(2);

/// The node, and what these tests do on it.
struct Node {
    node: lab::Node,
    policy: PathBuf,
}

impl Deref for Node {
    type Target = lab::Node;

    fn deref(&self) -> &lab::Node {
        &self.node
    }
}

impl Node {
    fn new() -> Self {
        let node = lab::Node::new().unwrap();
        let policy = node.files().join("policy.yaml");
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
             faults}}\nspec:\n  ingress:\n  - {{action: Deny, protocol: UDP, destination: {{ports: \
             [{PORT}]}}}}\n  - {{action: Allow}}\n  egress:\n  - {{action: Deny, protocol: UDP, \
             destination: {{ports: [{PORT}]}}}}\n  - {{action: Allow}}\n"
        );
        fs::write(&policy, text).unwrap();
        Self { node, policy }
    }

    /// The arguments of a verb that puts the policy on an interface.
    fn put<'a>(&'a self, verb: &'a str, interface: &'a str) -> [&'a str; 5] {
        let policy = self.policy.to_str().unwrap();
        [verb, "-f", policy, "--interface", interface]
    }

    fn apply(&self) -> String {
        self.done(&self.put("apply", INTERFACE))
    }

    fn run_daemon(&self) -> Daemon {
        let daemon = Daemon::start(
            self,
            &[&self.put("run", INTERFACE)[1..], &["--no-http"]].concat(),
        );
        daemon.says("note: in force", 1);
        daemon
    }

    fn in_force(&self) -> Value {
        self.json(&["status"])["interfaces"][0].clone()
    }

    /// A pin of the interface's.
    fn pin(&self, name: &str) -> PathBuf {
        self.pins().join(INTERFACE).join(name)
    }

    /// Runs a command on the node.
    fn on_node(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.lab().command(Side::Node, program);
        command.args(arguments).output().unwrap()
    }

    fn bpftool(&self, arguments: &[&str]) {
        let output = self.on_node("bpftool", arguments);
        assert!(output.status.success(), "bpftool {arguments:?}: {output:?}");
    }

    /// Sends so many that the policy denies on the way in, and waits until they are counted.
    fn denies(&self, count: u64) {
        let before = self.rule("faults", 0);
        self.send(count);
        settle(|| self.rule("faults", 0) == before + count);
        assert_eq!(self.rule("faults", 0), before + count);
    }

    fn send(&self, count: u64) {
        let frame = Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(PORT)));
        self.lab()
            .send(Side::Client, &[frame], &Limit::count(count))
            .unwrap();
    }

    fn xdp(&self) -> Option<u32> {
        self.lab().xdp_program(Side::Node).unwrap()
    }

    fn tcx(&self) -> Vec<u32> {
        let query = || SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress);
        let (_, programs) = self.lab().in_ns(Side::Node, query).unwrap().unwrap();
        let ids = programs.iter().map(aya::programs::ProgramInfo::id);
        ids.collect()
    }
}

/// Waits until it is so, for a while; the caller asserts. How long that took.
fn settle(mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_forced_detach_is_noticed_and_undone() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let daemon = node.run_daemon();
    node.denies(5);
    for (round, link) in ["link", "egress", "link"].into_iter().enumerate() {
        let path = node.pin(link);
        node.bpftool(&["link", "detach", "pinned", path.to_str().unwrap()]);
        let is_whole = || node.xdp().is_some() && node.tcx().len() == 1;
        assert!(!is_whole(), "{link} is still attached");
        let began = Instant::now();
        daemon.says("not filtered: node0", round + 1);
        let noticed = began.elapsed();
        settle(is_whole);
        println!(
            "{link}: noticed after {noticed:?}, undone after {:?}",
            began.elapsed()
        );
        assert!(is_whole(), "{}", daemon.said());
        assert!(noticed < SOON + BUSY, "noticed after {noticed:?}");
        // It counts on from where it was.
        node.denies(5);
    }
    assert_eq!(node.rule("faults", 0), 20);
    assert_eq!(node.in_force()["mode"], "native");
    assert_eq!(node.in_force()["egress"]["hook"], "tcx");
}

/// Also where it is detached again at once, while the daemon still puts it back.
#[test]
fn what_is_detached_while_it_is_put_back_is_put_back() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let daemon = node.run_daemon();
    let is_whole = || node.xdp().is_some() && node.tcx().len() == 1;
    let mut longest = Duration::ZERO;
    for round in 0..12 {
        for link in ["link", "egress"] {
            let path = node.pin(link);
            node.bpftool(&["link", "detach", "pinned", path.to_str().unwrap()]);
            let began = Instant::now();
            // Without a pause, so that the next one comes as soon as it can.
            while !is_whole() {
                assert!(
                    began.elapsed() < SOON + BUSY,
                    "round {round}, {link}: {}",
                    daemon.said()
                );
            }
            longest = longest.max(began.elapsed());
        }
    }
    println!("undone after {longest:?} or sooner");
    daemon.says("filtered again: node0", 1);
    node.denies(5);
}

#[test]
fn a_pin_that_is_removed_is_put_back() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let daemon = node.run_daemon();
    for (round, link) in ["egress", "link"].into_iter().enumerate() {
        fs::remove_file(node.pin(link)).unwrap();
        daemon.says("not filtered: node0", round + 1);
        let is_whole = || node.pin(link).exists() && node.xdp().is_some() && node.tcx().len() == 1;
        settle(is_whole);
        assert!(is_whole(), "{link}: {}", daemon.said());
        node.denies(3);
    }
}

/// Without a daemon, `status` says what is so, and the next `apply` mends it.
#[test]
fn what_was_detached_is_shown_and_the_next_apply_mends_it() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    node.denies(4);
    let (link, egress) = (node.pin("link"), node.pin("egress"));
    node.bpftool(&["link", "detach", "pinned", egress.to_str().unwrap()]);
    assert_eq!(node.in_force()["egress"]["hook"], Value::Null);
    let text = node.done(&["status"]);
    assert!(text.contains("somebody took it off"), "{text}");
    node.apply();
    assert_eq!(node.in_force()["egress"]["hook"], "tcx");
    assert_eq!(node.tcx().len(), 1);

    node.bpftool(&["link", "detach", "pinned", link.to_str().unwrap()]);
    assert_eq!(node.in_force()["mode"], Value::Null);
    node.apply();
    assert_eq!(node.in_force()["mode"], "native");
    node.denies(4);
    assert_eq!(node.rule("faults", 0), 8);
}

#[test]
fn other_tools_cannot_take_the_filter_off_or_replace_it() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    let program = node.xdp().unwrap();
    let pinned = node.pin(&format!("{program}/program"));
    let pinned = pinned.to_str().unwrap();
    let tries: [(&str, &[&str]); 4] = [
        ("ip", &["link", "set", "dev", INTERFACE, "xdp", "off"]),
        ("ip", &["link", "set", "dev", INTERFACE, "xdpdrv", "off"]),
        ("bpftool", &["net", "detach", "xdp", "dev", INTERFACE]),
        (
            "bpftool",
            &[
                "net",
                "attach",
                "xdp",
                "pinned",
                pinned,
                "dev",
                INTERFACE,
                "overwrite",
            ],
        ),
    ];
    for (tool, arguments) in tries {
        let output = node.on_node(tool, arguments);
        assert!(!output.status.success(), "{tool} {arguments:?} was done");
        // The kernel's own words, and its number for that.
        let why = said(&output);
        assert!(
            why.contains("busy") || why.contains("replace active BPF XDP link"),
            "{output:?}"
        );
        assert_eq!(node.xdp(), Some(program));
    }
    node.denies(3);
}

/// A program that takes the place while nodewall's is away is named, and stays; when it goes,
/// the filter is back.
#[test]
fn a_foreign_program_is_named_and_never_detached() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    // Known to the kernel alone, not to nodewall's pins.
    let foreign = Foreign::of(&node);
    let pinned = foreign.0.to_str().unwrap();
    node.done(&["detach", "--all"]);
    settle(|| node.xdp().is_none());
    node.bpftool(&["net", "attach", "xdp", "pinned", pinned, "dev", INTERFACE]);
    let program = node.xdp().unwrap();

    let refused = node.fails(1, &node.put("apply", INTERFACE));
    assert!(refused.contains(&format!("id {program}")), "{refused}");
    node.done(&["detach", "--all"]);
    node.fails(3, &["detach", "--interface", INTERFACE]);
    assert_eq!(node.xdp(), Some(program));
    assert_eq!(node.tcx(), Vec::<u32>::new());
    assert!(!node.pins().exists());

    let arguments = node.put("run", INTERFACE);
    let mut daemon = Daemon::start(&node, &[&arguments[1..], &["--no-http"]].concat());
    assert_eq!(daemon.ends().code(), Some(1));
    let heard = daemon.said();
    assert!(heard.contains(&format!("id {program}")), "{heard}");
    assert_eq!(node.xdp(), Some(program));

    node.bpftool(&["net", "detach", "xdp", "dev", INTERFACE]);
    node.apply();
    node.denies(2);
}

/// A program that is pinned beside nodewall's pins.
struct Foreign(PathBuf);

impl Foreign {
    fn of(node: &Node) -> Self {
        let name = node.pins().file_name().unwrap().to_str().unwrap();
        let path = node.pins().with_file_name(format!("{name}-foreign"));
        let program = node.pin(&format!("{}/program", node.xdp().unwrap()));
        fs::hard_link(program, &path).unwrap();
        Self(path)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[test]
fn a_renamed_interface_stays_filtered_and_is_known_by_its_new_name() {
    const RENAMED: &str = "node0x";
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    node.denies(3);
    let (lab, program) = (node.lab(), node.xdp());
    let rename = |from: &str, to: &str| {
        lab.ip(Side::Node, &["link", "set", from, "down"]).unwrap();
        lab.ip(Side::Node, &["link", "set", from, "name", to])
            .unwrap();
        lab.ip(Side::Node, &["link", "set", to, "up"]).unwrap();
    };
    rename(INTERFACE, RENAMED);
    let shown = node.in_force();
    assert_eq!(shown["interface"], RENAMED);
    assert_eq!(shown["mode"], "native");
    assert_eq!(shown["program_id"].as_u64(), program.map(u64::from));
    node.denies(3);

    // A change finds it, and keeps its totals.
    node.done(&node.put("apply", RENAMED));
    assert_eq!(node.in_force()["generation"], 2);
    node.denies(3);
    assert_eq!(node.rule("faults", 0), 9);
    node.done(&["detach", "--interface", RENAMED]);
    assert!(!node.pins().exists());
    rename(RENAMED, INTERFACE);
    settle(|| node.xdp().is_none());
    assert_eq!(node.xdp(), None);
}

#[test]
fn a_moved_interface_stays_filtered() {
    if !require::root_and_bpf() {
        return;
    }
    let (node, other) = (Node::new(), lab::Lab::new().unwrap());
    node.apply();
    node.denies(3);
    // Into a namespace where its name is free.
    let [_, there] = other.names();
    other
        .ip(Side::Node, &["link", "delete", INTERFACE])
        .unwrap();
    let lab = node.lab();
    lab.ip(Side::Node, &["link", "set", INTERFACE, "netns", there])
        .unwrap();
    other
        .ip(Side::Node, &["link", "set", INTERFACE, "up"])
        .unwrap();
    assert!(other.xdp_program(Side::Node).unwrap().is_some());

    // The mode is not told from here, and all else is.
    let shown = node.in_force();
    assert_eq!(shown["interface"], INTERFACE);
    assert_eq!(shown["mode"], Value::Null);
    node.denies(3);
    assert_eq!(node.rule("faults", 0), 6);
    let refused = node.fails(1, &node.put("apply", INTERFACE));
    assert!(refused.contains("no interface"), "{refused}");

    node.done(&["detach", "--interface", INTERFACE]);
    assert!(!node.pins().exists());
    settle(|| other.xdp_program(Side::Node).unwrap().is_none());
    assert_eq!(other.xdp_program(Side::Node).unwrap(), None);
}

/// veth takes native XDP without fragments up to an MTU of 3,506; nodewall's takes fragments.
#[test]
fn a_raised_mtu_does_not_take_the_filter_off() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let lab = node.lab();
    let set_mtu = |mtu: &str| {
        for side in [Side::Client, Side::Node] {
            lab.ip(side, &["link", "set", side.interface(), "mtu", mtu])
                .unwrap();
        }
    };
    node.apply();
    set_mtu("9000");
    assert_eq!(node.in_force()["mode"], "native");
    node.denies(3);
    let jumbo = |port| {
        let bytes = vec![0; 8_000];
        let payload = Udp {
            data: bytes,
            ..Udp::to(port)
        };
        Ethernet::default().carry(&Ipv4::default().carry(&payload))
    };
    let before = node.rule("faults", 0);
    lab.send(Side::Client, &[jumbo(PORT)], &Limit::count(10))
        .unwrap();
    settle(|| node.rule("faults", 0) == before + 10);
    assert_eq!(node.rule("faults", 0), before + 10);

    // Nor does it refuse to be attached then.
    node.done(&["detach", "--all"]);
    settle(|| node.xdp().is_none());
    node.done(&[&node.put("apply", INTERFACE)[..], &["--mode", "native"]].concat());
    node.denies(3);
}

/// Where bpffs can't be seen, the filter is a foreign one: it is named, and stays.
#[test]
fn without_bpffs_nothing_is_taken_for_unfiltered() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    let program = node.xdp().unwrap();
    // In a mount namespace of its own.
    let bare = |arguments: &[&str]| {
        let unmount = "umount /sys/fs/bpf && exec \"$@\"";
        let under = ["unshare", "--mount", "sh", "-c", unmount, "sh"];
        let mut command = node.command_under(&under, node.pins(), arguments);
        command.output().unwrap()
    };
    let output = bare(&node.put("apply", INTERFACE));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said(&output).contains(&format!("id {program}")),
        "{output:?}"
    );
    let output = bare(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = format!(
        "{}{}",
        said(&output),
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(told.contains("/sys/fs/bpf"), "{told}");
    assert_eq!(node.xdp(), Some(program));
    node.denies(3);
}

/// bpffs is unmounted below a daemon, and with it goes all that was pinned. To mount it is not
/// the daemon's, which has given up what that takes.
#[test]
fn a_daemon_filters_again_when_bpffs_is_mounted_again() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let mount = "umount /sys/fs/bpf && mount -t bpf -o mode=0700 bpf /sys/fs/bpf && exec \"$@\"";
    let under = ["unshare", "--mount", "sh", "-c", mount, "sh"];
    let arguments = [&node.put("run", INTERFACE)[..], &["--no-http"]].concat();
    let command = node.command_under(&under, node.pins(), &arguments);
    let daemon = Daemon::of(command);
    daemon.says("note: in force", 1);
    let program = node.xdp();
    assert!(program.is_some());
    let pid = daemon.pid().to_string();
    let unmount = ["--mount", "-t", &pid, "umount", "-l", "/sys/fs/bpf"];
    let output = Command::new("nsenter").args(unmount).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    daemon.says("not filtered: node0", 1);
    daemon.says("`mount -t bpf bpf /sys/fs/bpf`", 1);
    assert_eq!(node.xdp(), None);
    let mount = [
        "--mount",
        "-t",
        &pid,
        "mount",
        "-t",
        "bpf",
        "-o",
        "mode=0700",
        "bpf",
        "/sys/fs/bpf",
    ];
    let output = Command::new("nsenter").args(mount).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let is_back = || node.xdp().is_some_and(|new| Some(new) != program);
    let took = settle(is_back);
    println!("filtered again after {took:?}");
    assert!(is_back(), "{}", daemon.said());
    assert!(daemon.stop().success());
}

#[test]
fn a_full_disk_does_not_stop_the_daemon() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let state = node.files().join("state");
    fs::create_dir(&state).unwrap();
    // Not a byte is free.
    let fill = format!(
        "mount -t tmpfs -o size=4k tmpfs {0} && head -c 4096 /dev/zero > {0}/full; exec \"$@\"",
        state.display()
    );
    let under = ["unshare", "--mount", "sh", "-c", &fill, "sh"];
    let arguments = [&node.put("run", INTERFACE)[..], &["--no-http"]].concat();
    let daemon = Daemon::of(node.command_under(&under, node.pins(), &arguments));
    daemon.says("note: in force", 1);
    daemon.says("the policies are not kept in", 1);
    let heard = daemon.said();
    assert!(
        heard.contains(state.to_str().unwrap()) && heard.contains("No space left"),
        "{heard}"
    );
    node.denies(3);
    assert!(daemon.stop().success());
    node.denies(3);
}

#[test]
fn two_changes_at_once_take_turns_or_are_refused() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    let both: Vec<_> = (0..2)
        .map(|_| {
            let mut command = node.command(&node.put("apply", INTERFACE));
            command.stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut generation = 1;
    for change in both {
        let output = change.wait_with_output().unwrap();
        if output.status.success() {
            generation += 1;
        } else {
            // On a busy machine the other one takes longer than anybody waits.
            assert!(said(&output).contains("another nodewall"), "{output:?}");
        }
    }
    assert!(generation > 1);
    assert_eq!(node.in_force()["generation"], generation);
    assert_eq!(
        fs::read_dir(node.pins().join(INTERFACE)).unwrap().count(),
        3
    );

    // One that does not end.
    let folder = File::open(node.pins()).unwrap();
    let held = Flock::lock(folder, FlockArg::LockExclusive).unwrap();
    let program = node.xdp();
    for arguments in [&node.put("apply", INTERFACE)[..], &["detach", "--all"]] {
        let refused = node.command(arguments);
        let refused = within(refused);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {refused:?}");
        let heard = said(&refused);
        assert!(
            heard.contains("another nodewall") && heard.contains("nothing was changed"),
            "{arguments:?}: {heard}"
        );
    }
    drop(held);
    assert_eq!(node.xdp(), program);
    assert_eq!(node.in_force()["generation"], generation);
    node.apply();
}

/// Runs what must not wait forever.
fn within(mut command: Command) -> Output {
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(20))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    });
    let output = child.wait_with_output().unwrap();
    done.send(()).ok();
    guard.join().unwrap();
    output
}

/// What is pinned where nodewall pins, and is not what it should be, is somebody's.
#[test]
fn pins_that_are_not_ours_are_refused_and_stay() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let create = |path: &Path| {
        let path = path.to_str().unwrap();
        node.bpftool(&[
            "map", "create", path, "type", "array", "key", "4", "value", "4", "entries", "1",
            "name", "foreign",
        ]);
    };
    // In the link's place, where nothing is in force.
    fs::create_dir_all(node.pins().join(INTERFACE)).unwrap();
    fs::set_permissions(node.pins(), fs::Permissions::from_mode(0o700)).unwrap();
    create(&node.pin("link"));
    let apply = node.put("apply", INTERFACE);
    for arguments in [
        &apply[..],
        &["detach", "--interface", INTERFACE],
        &["status"],
    ] {
        let heard = node.fails(1, arguments);
        let path = node.pin("link");
        assert!(
            heard.contains(path.to_str().unwrap()),
            "{arguments:?}: {heard}"
        );
        assert!(path.exists(), "{arguments:?} removed it");
        assert_eq!(node.xdp(), None);
    }
    fs::remove_file(node.pin("link")).unwrap();

    // In the record's place, of what is in force.
    node.apply();
    let program = node.xdp().unwrap();
    let record = node.pin(&format!("{program}/record"));
    fs::remove_file(&record).unwrap();
    create(&record);
    for arguments in [&apply[..], &["status"]] {
        let heard = node.fails(1, arguments);
        assert!(
            heard.contains(record.to_str().unwrap()),
            "{arguments:?}: {heard}"
        );
        assert!(record.exists(), "{arguments:?} removed it");
        assert_eq!(node.xdp(), Some(program));
    }
    // Who asks for it by name gets rid of it.
    node.done(&["detach", "--interface", INTERFACE]);
    assert!(!node.pins().exists());
    settle(|| node.xdp().is_none());
    assert_eq!(node.xdp(), None);
}

/// What goes out is to be left alone from now on, and its link can't be removed: the change is
/// made all the same, is said to be, and is finished by the next one.
#[test]
fn what_fails_after_the_change_is_made_does_not_undo_it() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    node.denies(3);
    // A name that something is mounted on can't be removed.
    let egress = node.pin("egress");
    let hold = format!("mount --bind {0} {0} && exec \"$@\"", egress.display());
    let under = ["unshare", "--mount", "sh", "-c", &hold, "sh"];
    let apply = [&node.put("apply", INTERFACE)[..], &["--ingress-only"]].concat();
    let output = node
        .command_under(&under, node.pins(), &apply)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said(&output).contains("the policy is in force"),
        "{output:?}"
    );
    assert!(egress.exists());
    assert_eq!(node.in_force()["generation"], 2);
    node.denies(3);
    assert_eq!(node.rule("faults", 0), 6);

    node.done(&apply);
    assert!(!egress.exists());
    settle(|| node.tcx().is_empty());
    assert_eq!(node.tcx(), Vec::<u32>::new());
    assert_eq!(node.rule("faults", 0), 6);
}

/// In bpffs anybody may make a folder with the name of ours, and pin in it what he likes.
#[test]
fn a_pin_folder_that_is_not_ours_alone_is_refused() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let apply = node.put("apply", INTERFACE);
    fs::create_dir(node.pins()).unwrap();
    for (owner, mode) in [(65_534, 0o700), (0, 0o755), (0, 0o730)] {
        chown(node.pins(), Some(owner), None).unwrap();
        fs::set_permissions(node.pins(), fs::Permissions::from_mode(mode)).unwrap();
        for arguments in [&apply[..], &["status"], &["detach", "--all"]] {
            let heard = node.fails(1, arguments);
            assert!(
                heard.contains(node.pins().to_str().unwrap()) && heard.contains("alone"),
                "{arguments:?}: {heard}"
            );
        }
        assert_eq!(node.xdp(), None);
        assert_eq!(fs::read_dir(node.pins()).unwrap().count(), 0);
    }
    chown(node.pins(), Some(0), None).unwrap();
    fs::set_permissions(node.pins(), fs::Permissions::from_mode(0o700)).unwrap();
    node.apply();
    let mode = fs::metadata(node.pin("link").parent().unwrap())
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
}

/// What decides can't be written any more, not by root either: tables, constants, the record.
#[test]
fn what_decides_is_frozen() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    let program = node.xdp().unwrap();
    let shown = node.on_node(
        "bpftool",
        &["-j", "prog", "show", "id", &program.to_string()],
    );
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut frozen = Vec::new();
    for id in shown["map_ids"].as_array().unwrap() {
        let id = id.to_string();
        let map = node.on_node("bpftool", &["-j", "map", "show", "id", &id]);
        let map: Value = serde_json::from_slice(&map.stdout).unwrap();
        let name = map["name"].as_str().unwrap_or_default().to_owned();
        if map["frozen"] == 1 {
            let size = map["bytes_value"].as_u64().unwrap();
            let zeros = vec!["0"; usize::try_from(size.min(64)).unwrap()];
            let update = [
                "map", "update", "id", &id, "key", "0", "0", "0", "0", "value",
            ];
            let output = node.on_node("bpftool", &[&update[..], &zeros].concat());
            assert!(!output.status.success(), "{name}: {output:?}");
            frozen.push(name);
        }
    }
    assert!(frozen.iter().any(|name| name == "IMAGE"), "{frozen:?}");
    let record = node.pin(&format!("{program}/record"));
    let record = record.to_str().unwrap();
    let map = node.on_node("bpftool", &["-j", "map", "show", "pinned", record]);
    let map: Value = serde_json::from_slice(&map.stdout).unwrap();
    assert_eq!(map["frozen"], 1, "{map}");
}

/// What another version has put there goes on, and is replaced where that is asked for: while
/// packets come that both deny, not one of which gets through.
#[test]
fn a_filter_that_cannot_be_read_is_taken_over_when_asked() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    let (program, egress) = (node.xdp().unwrap(), node.tcx());
    let record = node.pin(&format!("{program}/record"));
    fs::remove_file(&record).unwrap();
    let path = record.to_str().unwrap();
    node.bpftool(&[
        "map", "create", path, "type", "array", "key", "4", "value", "4", "entries", "1", "name",
        "older",
    ]);
    let apply = node.put("apply", INTERFACE);
    let refused = node.fails(1, &apply);
    assert!(
        refused.contains(path) && refused.contains("--take-over"),
        "{refused}"
    );
    let take_over = [&apply[..], &["--take-over"]].concat();
    let on_trial = [&take_over[..], &["--confirm", "30s"]].concat();
    assert!(node.fails(1, &on_trial).contains("without --confirm"));
    assert_eq!((node.xdp(), node.tcx()), (Some(program), egress.clone()));

    let frames = [Ethernet::default().carry(&Ipv4::default().carry(&Udp::to(PORT)))];
    let stop = AtomicBool::new(false);
    let limit = Limit {
        packets: u64::MAX,
        time: Duration::from_mins(1),
        stop: Some(&stop),
    };
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| node.lab().send(Side::Client, &frames, &limit));
        thread::sleep(Duration::from_millis(100));
        let output = node.run(&take_over);
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{output:?}");
        flood.join().unwrap().unwrap()
    });
    let dropped = || {
        let counter = node
            .lab()
            .driver_counter(Side::Node, "rx_queue_", "_xdp_drops");
        counter.unwrap()
    };
    settle(|| dropped() == sent.packets);
    assert_eq!(dropped(), sent.packets);
    assert_ne!(node.xdp(), Some(program));
    assert_ne!(node.tcx(), egress);
    assert_eq!(node.tcx().len(), 1);
    assert!(!record.exists());
    node.denies(3);
}

/// A map of another shape is never read: the kernel writes as much as its elements have.
#[test]
fn maps_of_another_shape_are_refused() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply();
    node.denies(3);
    let program = node.xdp().unwrap();
    let folder = node.pin(&program.to_string());
    let put = |name: &str, kind: &str, value: &str, entries: &str| {
        let path = folder.join(name);
        fs::remove_file(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        node.bpftool(&[
            "map", "create", &path, "type", kind, "key", "4", "value", value, "entries", entries,
            "name", "foreign",
        ]);
        path
    };
    // Kept aside, and put back.
    let aside = |name: &str| {
        let kept = folder.join(format!("{name}_kept"));
        fs::hard_link(folder.join(name), &kept).unwrap();
        kept
    };
    for (name, kind, value, entries) in [
        ("counters", "percpu_array", "4096", "64"),
        ("counters", "percpu_array", "16", "1"),
        ("counters", "array", "16", "64"),
        ("counters", "percpu_hash", "32", "64"),
        ("carried", "array", "16", "1"),
    ] {
        let kept = aside(name);
        let path = put(name, kind, value, entries);
        for verb in ["stats", "status"] {
            let heard = node.fails(1, &[verb]);
            assert!(heard.contains(&path), "{name} {kind} {value}: {heard}");
            assert!(heard.contains("another shape"), "{heard}");
        }
        fs::rename(kept, folder.join(name)).unwrap();
        assert_eq!(node.rule("faults", 0), 3);
    }
    // A map is no link, though its words could be taken for one.
    let link = node.pin("link");
    fs::rename(&link, node.pin("link_kept")).unwrap();
    let path = link.to_str().unwrap();
    node.bpftool(&[
        "map",
        "create",
        path,
        "type",
        "percpu_array",
        "key",
        "4",
        "value",
        "8",
        "entries",
        "1",
        "name",
        "foreign",
    ]);
    for arguments in [
        &["status"][..],
        &["detach", "--interface", INTERFACE],
        &node.put("apply", INTERFACE),
    ] {
        let heard = node.fails(1, arguments);
        assert!(
            heard.contains(path) && heard.contains("not a link"),
            "{heard}"
        );
    }
    fs::rename(node.pin("link_kept"), &link).unwrap();
    node.denies(3);
}

/// Policies that somebody else could have written are not put in force, whatever else is
/// wrong, and no daemon begins in a folder that others may write to.
#[test]
fn folders_that_others_may_write_to_are_not_believed() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let run = [&node.put("run", INTERFACE)[..], &["--no-http"]].concat();
    let daemon = node.run_daemon();
    assert!(daemon.stop().success());
    node.done(&["detach", "--all"]);
    let state = node.files().join("state");
    let last_good = state.join("last-good.yaml");
    let good = fs::read_to_string(&last_good).unwrap();
    fs::write(&node.policy, "no policy").unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // As it is, it is used.
    let mut daemon = Daemon::start(&node, &run[1..]);
    daemon.says("the last policies that were good", 1);
    assert!(daemon.stop().success());
    node.done(&["detach", "--all"]);

    for (path, open, closed) in [(&state, 0o777, 0o700), (&last_good, 0o666, 0o600)] {
        mode(path, open);
        daemon = Daemon::start(&node, &run[1..]);
        assert_eq!(daemon.ends().code(), Some(1), "{}", daemon.said());
        let heard = daemon.said();
        assert!(
            heard.contains("are not used") && heard.contains(path.to_str().unwrap()),
            "{heard}"
        );
        assert_eq!(node.xdp(), None);
        mode(path, closed);
    }
    chown(&last_good, Some(65_534), None).unwrap();
    daemon = Daemon::start(&node, &run[1..]);
    assert_eq!(daemon.ends().code(), Some(1), "{}", daemon.said());
    assert!(
        daemon.said().contains("belongs to user 65534"),
        "{}",
        daemon.said()
    );
    assert_eq!(node.xdp(), None);
    assert_eq!(fs::read_to_string(&last_good).unwrap(), good);

    let folder = node.files().join("run");
    mode(&folder, 0o777);
    daemon = Daemon::start(&node, &run[1..]);
    assert_eq!(daemon.ends().code(), Some(1));
    let heard = daemon.said();
    assert!(
        heard.contains("--run-dir") && heard.contains("alone"),
        "{heard}"
    );
    mode(&folder, 0o700);
}
