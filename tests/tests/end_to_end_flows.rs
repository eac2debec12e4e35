//! Both directions and what is remembered of them, as an administrator sees it: the verb
//! `flows`, tables that are full, changes that are cut short, and what else there is on
//! an interface.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp};
use aya_obj::programs::XdpAttachType;
use serde_json::Value;
use tests::lab::{self, Limit, Reach, Side, Transport};
use tests::packet::{Ethernet, Icmp, Ipv4, Ipv6, Payload, Tcp, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();

/// Who talks. The node's stack knows nothing of these addresses, so that it says nothing
/// about what they say.
const HERE: [&str; 2] = ["198.51.100.10", "2001:db8:a::10"];
const THERE: [&str; 2] = ["203.0.113.7", "2001:db8:f::7"];

/// In: tcp 22 and udp 7000 alone. Out: all but what would answer udp 7000, and what goes
/// to udp 9001.
const CLOSED: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec:
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [22]}}
  - {action: Allow, protocol: UDP, destination: {ports: [7000]}}
  egress:
  - {action: Deny, protocol: UDP, source: {ports: [7000]}}
  - {action: Deny, protocol: UDP, destination: {ports: [9001]}}
  - {action: Allow}
";

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

    /// Writes a policy file.
    fn policy(&self, name: &str, text: &str) -> String {
        let path = self.files().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn apply_with(&self, text: &str, more: &[&str]) -> String {
        let file = self.policy("policy.yaml", text);
        self.done(&[&apply(&file)[..], more].concat())
    }

    fn apply(&self, text: &str) -> String {
        self.apply_with(text, &[])
    }

    /// Puts frames on the wire, from the node or to it.
    fn send(&self, from: Side, frames: &[Vec<u8>]) {
        let limit = Limit::count(frames.len() as u64);
        self.lab().send(from, frames, &limit).unwrap();
    }

    fn asks(&self, ports: impl IntoIterator<Item = u16>) {
        let frames: Vec<_> = ports.into_iter().map(|port| question(0, port)).collect();
        self.send(Side::Node, &frames);
    }

    fn interface_status(&self) -> Value {
        self.json(&["status"])["interfaces"][0].clone()
    }

    /// Something that is counted of the flows that begin in a direction.
    fn counted(&self, begun: &str, what: &str) -> u64 {
        let status = self.interface_status();
        let count = status["flows"][begun][what].as_u64();
        count.unwrap_or_else(|| panic!("no {what} of {begun} in {status:#}"))
    }

    fn hits(&self) -> u64 {
        self.counted("egress", "hits")
    }

    /// A frame that comes in passes for a flow's sake.
    #[track_caller]
    fn answered(&self, frame: &[u8]) {
        let before = self.hits();
        self.send(Side::Client, &[frame.to_vec()]);
        settle(|| self.hits() > before);
        assert_eq!(self.hits(), before + 1, "of {frame:02x?}");
    }

    /// A frame that comes in is dropped.
    #[track_caller]
    fn dropped(&self, frame: &[u8]) {
        let (before, hits) = (self.total("dropped"), self.hits());
        self.send(Side::Client, &[frame.to_vec()]);
        settle(|| self.total("dropped") > before);
        assert!(self.total("dropped") > before, "of {frame:02x?}");
        assert_eq!(self.hits(), hits, "of {frame:02x?}");
    }

    fn flows(&self, filter: &[&str]) -> Vec<Value> {
        let document = self.json(&[&["flows"], filter].concat());
        assert_eq!(document["schema"], 1);
        document["flows"].as_array().unwrap().clone()
    }

    fn count(&self, filter: &[&str]) -> u64 {
        let document = self.json(&[&["flows", "--count"], filter].concat());
        let of_interface = &document["interfaces"][0];
        assert_eq!(of_interface["interface"], INTERFACE);
        of_interface["flows"].as_u64().unwrap()
    }

    /// The folder of the generation in force.
    fn generation(&self) -> PathBuf {
        let program = self.interface_status()["program_id"].to_string();
        self.pins().join(INTERFACE).join(program)
    }

    /// Whether the client hears of a datagram that the node sends.
    fn gets_out(&self, port: u16) -> bool {
        let service = self.lab().serve(Side::Client, Transport::Udp, port);
        let to = SocketAddr::new(IpAddr::V4(Side::Client.v4()), port);
        let patience = Duration::from_millis(400);
        let reach = self.lab().reach(Side::Node, Transport::Udp, to, patience);
        drop(service);
        reach.unwrap() == Reach::Answered
    }
}

fn apply(file: &str) -> [&str; 9] {
    let none = "none";
    [
        "apply",
        "-f",
        file,
        "--interface",
        INTERFACE,
        "--failsafe-inbound",
        none,
        "--failsafe-outbound",
        none,
    ]
}

/// Waits until it is so, for a while; the caller asserts.
fn settle(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !is_so() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

fn between(src: &str, dst: &str, payload: &dyn Payload) -> Vec<u8> {
    let packet = match (src.parse().unwrap(), dst.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4 {
            src,
            dst,
            ..Ipv4::default()
        }
        .carry(payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6 {
            src,
            dst,
            ..Ipv6::default()
        }
        .carry(payload),
        mixed => panic!("addresses of two versions: {mixed:?}"),
    };
    Ethernet::default().carry(&packet)
}

fn udp(sport: u16, dport: u16) -> Udp {
    Udp {
        sport,
        ..Udp::to(dport)
    }
}

fn question(version: usize, port: u16) -> Vec<u8> {
    between(HERE[version], THERE[version], &udp(port, 53))
}

fn answer(version: usize, port: u16) -> Vec<u8> {
    between(THERE[version], HERE[version], &udp(53, port))
}

#[test]
fn flows_are_shown_counted_and_forgotten() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(CLOSED);
    assert_eq!(node.flows(&[]), Vec::<Value>::new());
    assert_eq!(node.count(&[]), 0);

    let syn = Tcp {
        sport: 40_000,
        ..Tcp::to(443)
    };
    let out = [
        question(0, 4_000),
        question(1, 4_000),
        between(HERE[0], THERE[0], &Icmp::new(8, 0)),
        between(HERE[0], THERE[0], &syn),
    ];
    node.send(Side::Node, &out);
    node.send(
        Side::Client,
        &[between(THERE[0], HERE[0], &udp(51_515, 7_000))],
    );
    settle(|| node.count(&[]) == 5);
    let flows = node.flows(&[]);
    assert_eq!(flows.len(), 5, "{flows:#?}");
    // What began outside comes first.
    let flow = &flows[0];
    assert_eq!(flow["begun"], "ingress", "{flow}");
    assert_eq!(flow["src"], THERE[0]);
    assert_eq!(flow["dport"], 7_000);
    let syn = &node.flows(&["--proto", "tcp"])[0];
    assert_eq!(syn["interface"], INTERFACE);
    assert_eq!(syn["begun"], "egress");
    assert_eq!(syn["proto"], "tcp");
    assert_eq!(
        (&syn["src"], &syn["dst"]),
        (&HERE[0].into(), &THERE[0].into())
    );
    assert_eq!(
        (&syn["sport"], &syn["dport"]),
        (&40_000.into(), &443.into())
    );
    assert_eq!(syn["state"], "syn_sent");
    assert_eq!(
        (&syn["forward_packets"], &syn["back_packets"]),
        (&1.into(), &0.into())
    );
    let left = syn["left_seconds"].as_u64().unwrap();
    assert!((90..=120).contains(&left), "{syn}");
    assert!(syn["idle_seconds"].as_u64() <= Some(30), "{syn}");

    let table = node.done(&["flows"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6, "{table}");
    for word in [
        "BEGUN", "PROTO", "FROM", "TO", "STATE", "IDLE", "LEFT", "BACK",
    ] {
        assert!(lines[0].contains(word), "{table}");
    }
    for word in [
        "198.51.100.10:40000",
        "[2001:db8:f::7]:53",
        "one_way",
        "icmp",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }

    for (filter, count) in [
        (&["--begun", "egress"][..], 4),
        (&["--begun", "ingress"], 1),
        (&["--src", HERE[0]], 3),
        (&["--src", "2001:db8:a::/48"], 1),
        (&["--src", "192.0.2.0/24"], 0),
        (&["--dst", "203.0.113.0/24"], 3),
        (&["--dst", HERE[0]], 1),
        (&["--proto", "udp"], 3),
        (&["--proto", "1"], 1),
        (&["--port", "53"], 2),
        (&["--port", "4000"], 2),
        (&["--port", "40000"], 1),
        (&["--state", "syn_sent"], 1),
        (&["--state", "one_way"], 4),
        (&["--state", "established"], 0),
        (
            &["--proto", "udp", "--begun", "egress", "--src", HERE[1]],
            1,
        ),
        (&["--interface", INTERFACE], 5),
        (&["--all"], 5),
    ] {
        assert_eq!(node.count(filter), count, "{filter:?}");
        assert_eq!(node.flows(filter).len() as u64, count, "{filter:?}");
    }
    assert_eq!(
        node.done(&["flows", "--count"]),
        format!("{INTERFACE}: 5 flows\n")
    );

    for version in [0, 1] {
        node.answered(&answer(version, 4_000));
        node.dropped(&answer(version, 4_001));
    }
    let two_ways = node.flows(&["--state", "two_way"]);
    assert_eq!(two_ways.len(), 2);
    assert!(
        two_ways.iter().all(|flow| flow["back_packets"] == 1),
        "{two_ways:?}"
    );

    // What is forgotten is not answered, until it is asked again.
    let said = node.done(&["flows", "--flush", "--port", "53", "--src", HERE[0]]);
    assert_eq!(said, format!("{INTERFACE}: 1 flow forgotten\n"));
    node.dropped(&answer(0, 4_000));
    node.answered(&answer(1, 4_000));
    assert_eq!(node.count(&[]), 4);
    node.asks([4_000]);
    node.answered(&answer(0, 4_000));

    let gone = node.json(&["flows", "--flush"]);
    assert_eq!(gone["interfaces"][0]["forgotten"], 5, "{gone}");
    assert_eq!(node.count(&["--all"]), 0);
    for version in [0, 1] {
        node.dropped(&answer(version, 4_000));
    }
    node.asks([4_000]);
    node.answered(&answer(0, 4_000));
    // What was taken out was not pushed out.
    assert_eq!(node.counted("egress", "evictions"), 0);
    assert_eq!(node.counted("egress", "inserts"), 6);
}

#[test]
fn flows_that_are_over_are_shown_when_asked_for() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(CLOSED);
    let tcp = |flags| Tcp {
        sport: 40_000,
        flags,
        ..Tcp::to(443)
    };
    for flags in [Tcp::SYN, Tcp::RST] {
        node.send(Side::Node, &[between(HERE[0], THERE[0], &tcp(flags))]);
    }
    settle(|| node.count(&["--state", "reset"]) == 1);
    // A reset is remembered for ten seconds.
    thread::sleep(Duration::from_millis(10_500));
    assert_eq!(node.count(&[]), 0);
    let all = node.flows(&["--all"]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0]["left_seconds"].is_null(), "{all:?}");
    let table = node.done(&["flows", "--all"]);
    assert!(table.contains("over"), "{table}");
    assert!(!node.done(&["flows"]).contains("over"));
    node.done(&["flows", "--flush", "--all"]);
    assert_eq!(node.count(&["--all"]), 0);
}

#[test]
fn what_cannot_be_shown_says_why() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let said = node.fails(3, &["flows"]);
    assert!(said.contains("nothing is attached"), "{said}");
    node.fails(3, &["flows", "--flush"]);
    for arguments in [
        &["--begun", "outside"][..],
        &["--src", "somewhere"],
        &["--dst", "203.0.113.0/33"],
        &["--proto", "none-such"],
        &["--port", "65536"],
        &["--state", "open"],
        &["--count", "--flush"],
        &["-o", "yaml"],
        &["--no-such"],
    ] {
        node.fails(2, &[&["flows"], arguments].concat());
    }
    let said = node.fails(2, &["flows", "--state", "open"]);
    assert!(
        said.contains("syn_sent") && said.contains("two_way"),
        "{said}"
    );
    node.apply(CLOSED);
    let said = node.fails(3, &["flows", "--interface", "lo"]);
    assert!(said.contains("lo"), "{said}");
    let file = node.policy("policy.yaml", CLOSED);
    let too_many = [&apply(&file)[..], &["--max-flows", "16777217"]].concat();
    node.fails(2, &too_many);
}

#[test]
fn the_newest_flows_outlive_a_change_of_the_room() {
    const OLD: std::ops::Range<u16> = 10_000..10_500;
    const NEW: std::ops::Range<u16> = 20_000..20_200;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply_with(CLOSED, &["--max-flows", "4096"]);
    assert_eq!(node.counted("egress", "max_entries"), 4_096);
    node.asks(OLD);
    thread::sleep(Duration::from_millis(100));
    node.asks(NEW);
    settle(|| node.count(&[]) == 700);
    assert_eq!(node.count(&[]), 700);

    // The same room, and another one: nothing is lost.
    for room in ["4096", "8192"] {
        node.apply_with(CLOSED, &["--max-flows", room]);
        assert_eq!(node.count(&[]), 700, "{room}");
        assert_eq!(node.counted("egress", "max_entries").to_string(), room);
    }
    node.answered(&answer(0, OLD.start));
    node.answered(&answer(0, NEW.start));

    // Room for the new ones alone, and some more.
    node.apply_with(CLOSED, &["--max-flows", "400"]);
    assert_eq!(node.counted("egress", "max_entries"), 400);
    let ports: Vec<u64> = node
        .flows(&[])
        .iter()
        .map(|flow| flow["sport"].as_u64().unwrap())
        .collect();
    assert!(ports.len() <= 400, "{}", ports.len());
    let newest = ports.iter().filter(|port| **port >= NEW.start.into());
    assert_eq!(newest.count(), NEW.len(), "of {}", ports.len());
    node.answered(&answer(0, NEW.start));
    node.answered(&answer(0, NEW.end - 1));
}

#[test]
fn where_none_are_remembered_none_are_kept() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    for more in [&["--max-flows", "0"][..], &["--ingress-only"]] {
        node.apply(CLOSED);
        node.asks([4_000]);
        node.answered(&answer(0, 4_000));
        node.apply_with(CLOSED, more);
        let before = node.total("dropped");
        node.asks([4_000]);
        node.send(Side::Client, &[answer(0, 4_000)]);
        settle(|| node.total("dropped") > before);
        assert!(node.total("dropped") > before, "{more:?}");
        let status = node.interface_status();
        assert_eq!(
            status["flows"],
            serde_json::json!({}),
            "{more:?}: {status:#}"
        );
        assert!(
            node.done(&["flows"]).contains("no flow is remembered"),
            "{more:?}"
        );
        assert_eq!(node.flows(&[]), Vec::<Value>::new());
        assert!(node.json(&["flows", "--count"])["interfaces"][0]["flows"].is_null());
        assert_eq!(
            node.done(&["flows", "--flush"]),
            format!("{INTERFACE}: 0 flows forgotten\n")
        );
    }
    // What was forgotten is not there again.
    node.apply(CLOSED);
    node.dropped(&answer(0, 4_000));
}

#[test]
fn a_full_table_forgets_and_says_so() {
    const ROOM: u64 = 128;
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply_with(CLOSED, &["--max-flows", "128"]);
    node.asks(10_000..11_000);
    settle(|| node.counted("egress", "inserts") == 1_000);
    let count = |begun: &str| {
        ["inserts", "entries", "evictions", "refused"].map(|what| node.counted(begun, what))
    };
    let [inserts, entries, evictions, refused] = count("egress");
    assert_eq!((inserts, refused), (1_000, 0));
    assert!((ROOM / 2..=ROOM).contains(&entries), "{entries}");
    assert_eq!(evictions, inserts - entries);
    node.answered(&answer(0, 10_999));
    node.dropped(&answer(0, 10_000));

    // As many from outside, and more, push none of these out.
    let outbound = count("egress");
    let frames: Vec<_> = (1..=5_000)
        .map(|sport| between(THERE[0], HERE[0], &udp(sport, 7_000)))
        .collect();
    node.send(Side::Client, &frames);
    settle(|| node.counted("ingress", "inserts") == 5_000);
    let [inserts, entries, evictions, _] = count("ingress");
    assert_eq!(inserts, 5_000);
    assert!(entries <= ROOM, "{entries}");
    assert_eq!(evictions, inserts - entries);
    assert_eq!(count("egress"), outbound);
    node.answered(&answer(0, 10_999));
}

#[test]
fn detach_takes_both_directions_off() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    assert!(node.gets_out(9_001));
    node.apply(CLOSED);
    assert!(!node.gets_out(9_001));
    assert!(node.gets_out(9_002));
    let slot = node.pins().join(INTERFACE);
    let egress = if require::has_tcx() {
        "egress"
    } else {
        "clsact"
    };
    assert!(slot.join(egress).exists() && slot.join("link").exists());
    node.done(&["detach", "--interface", INTERFACE]);
    assert!(!node.pins().exists(), "{:?}", listed(node.pins()));
    settle(|| egress_programs(&node).is_empty());
    assert_eq!(egress_programs(&node), Vec::<u32>::new());
    settle(|| node.gets_out(9_001));
    assert!(node.gets_out(9_001));
    node.fails(3, &["flows"]);
}

/// The programs that decide what goes out of the interface: at TCX, or where there is
/// none as filters of clsact.
fn egress_programs(node: &Node) -> Vec<u32> {
    if !require::has_tcx() {
        let mut tc = node.lab().command(Side::Node, "tc");
        let shown = tc.args(["filter", "show", "dev", INTERFACE, "egress"]);
        let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
        // `… direct-action not_in_hw id 7 name …`
        let ids = shown.split(" id ").skip(1);
        return ids
            .map(|id| id.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
    }
    let query = || SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress);
    let (_, programs) = node.lab().in_ns(Side::Node, query).unwrap().unwrap();
    programs
        .iter()
        .map(aya::programs::ProgramInfo::id)
        .collect()
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Denies these ports of UDP, on the way out and on the way in.
fn denying(port: u16) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
         denying}}\nspec:\n  ingress:\n  - {{action: Deny, protocol: UDP, destination: {{ports: \
         [{port}]}}}}\n  - {{action: Allow}}\n  egress:\n  - {{action: Deny, protocol: UDP, \
         destination: {{ports: [{port}]}}}}\n  - {{action: Allow}}\n"
    )
}

/// Names for all that is pinned below a folder, below another one.
fn link_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in listed(from) {
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            link_all(&path, &to);
        } else {
            fs::hard_link(&path, &to).unwrap();
        }
    }
}

/// Names of pins that are kept while a test changes what they are of.
struct Kept(PathBuf);

impl Kept {
    fn new(node: &Node) -> Self {
        let name = node.pins().file_name().unwrap().to_str().unwrap();
        let folder = node.pins().with_file_name(format!("{name}-kept"));
        link_all(&node.pins().join(INTERFACE), &folder);
        Self(folder)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A change of the policy stops when what goes out is of the new generation already, and
/// what comes in is not. From the one that is in force the next change goes on, even one
/// that fails; and what is in force then is of one generation.
#[test]
fn a_change_that_was_cut_short_is_finished() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(&denying(9_001));
    let old = node.generation();
    let kept = Kept::new(&node);
    node.apply(&denying(9_002));
    let new = node.generation();
    assert_ne!(old, new);

    // Back to the moment before the last step.
    let program = old.file_name().unwrap();
    link_all(&kept.0.join(program), &old);
    run_in_link(&node, &old.join("program"));
    let of_old = |status: &Value| status["generation"] == 1;
    assert!(of_old(&node.interface_status()));
    assert!(node.gets_out(9_001) && !node.gets_out(9_002));

    // A change that is refused: what goes out follows what comes in.
    let file = node.policy("policy.yaml", &denying(9_003));
    let other_mode = [&apply(&file)[..], &["--mode", "generic"]].concat();
    node.fails(1, &other_mode);
    let status = node.interface_status();
    assert!(of_old(&status), "{status:#}");
    assert_eq!(
        egress_programs(&node),
        [u32::try_from(status["egress"]["program_id"].as_u64().unwrap()).unwrap()]
    );
    assert!(!node.gets_out(9_001) && node.gets_out(9_002));
    assert!(!new.exists(), "{:?}", listed(&node.pins().join(INTERFACE)));

    // And one that is not.
    node.apply(&denying(9_003));
    let status = node.interface_status();
    assert_eq!(status["generation"], 2);
    assert_eq!(
        egress_programs(&node),
        [u32::try_from(status["egress"]["program_id"].as_u64().unwrap()).unwrap()]
    );
    assert!(node.gets_out(9_001) && node.gets_out(9_002) && !node.gets_out(9_003));
    // The links and the one generation.
    assert_eq!(listed(&node.pins().join(INTERFACE)).len(), 3);
}

/// Puts a pinned program into the pinned XDP link.
fn run_in_link(node: &Node, program: &Path) {
    let link = PinnedLink::from_pin(node.pins().join(INTERFACE).join("link")).unwrap();
    let link = XdpLink::try_from(FdLink::from(link)).unwrap();
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface).unwrap();
    program.attach_to_link(link).unwrap();
}

/// The same, straight into the next change: the totals go on, and no flow is lost.
#[test]
fn the_next_change_finishes_one_that_was_cut_short() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(CLOSED);
    node.asks([4_000]);
    node.answered(&answer(0, 4_000));
    let old = node.generation();
    let kept = Kept::new(&node);
    node.apply(&denying(9_002));
    link_all(&kept.0.join(old.file_name().unwrap()), &old);
    run_in_link(&node, &old.join("program"));
    // Ingress is closed, and what the node begins is tracked by the old rules' egress
    // alone, whose answer they allow: nothing new is known.
    node.answered(&answer(0, 4_000));
    node.apply(CLOSED);
    assert!(!node.gets_out(9_001));
    node.answered(&answer(0, 4_000));
    node.asks([4_001]);
    node.answered(&answer(0, 4_001));
    assert_eq!(node.interface_status()["generation"], 2);
}

/// What goes out is to be left alone from now on, and its link is still there.
#[test]
fn a_link_that_was_to_go_goes_with_the_next_change() {
    if !require::root_and_bpf() || !require::has_tcx() {
        return;
    }
    let node = Node::new();
    let policy = denying(9_001);
    node.apply(&policy);
    let kept = Kept::new(&node);
    node.apply_with(&policy, &["--ingress-only"]);
    let link = node.pins().join(INTERFACE).join("egress");
    assert!(!link.exists());
    fs::hard_link(kept.0.join("egress"), &link).unwrap();
    drop(kept);
    assert!(!node.gets_out(9_001));
    node.apply_with(&policy, &["--ingress-only"]);
    assert!(!link.exists());
    settle(|| node.gets_out(9_001));
    assert!(node.gets_out(9_001));
    assert_eq!(egress_programs(&node), Vec::<u32>::new());
}

/// The first change stops before anything comes in through a filter, or the last one
/// before what goes out is let go.
#[test]
fn an_egress_link_alone_is_cleared_away() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let alone = || {
        node.apply(CLOSED);
        fs::remove_file(node.pins().join(INTERFACE).join("link")).unwrap();
        settle(|| node.lab().xdp_program(Side::Node).unwrap().is_none());
        assert!(!node.gets_out(9_001));
    };
    alone();
    node.apply(&denying(9_002));
    assert!(node.gets_out(9_001) && !node.gets_out(9_002));
    assert_eq!(egress_programs(&node).len(), 1);

    alone();
    node.done(&["detach", "--interface", INTERFACE]);
    settle(|| egress_programs(&node).is_empty());
    assert_eq!(egress_programs(&node), Vec::<u32>::new());
    assert!(!node.pins().exists());
}

#[test]
fn an_interface_that_comes_again_is_filtered_again() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply(CLOSED);
    node.asks([4_000]);
    node.answered(&answer(0, 4_000));
    node.lab()
        .ip(Side::Node, &["link", "delete", INTERFACE])
        .unwrap();
    let [_, namespace] = node.lab().names();
    let peer = Side::Client.interface();
    let pair = [
        "type", "veth", "peer", "name", INTERFACE, "netns", namespace,
    ];
    let add = [&["link", "add", peer], &pair[..]].concat();
    node.lab().ip(Side::Client, &add).unwrap();
    for side in [Side::Client, Side::Node] {
        let interface = side.interface();
        node.lab()
            .ip(side, &["link", "set", interface, "up"])
            .unwrap();
        let address = format!("{}/24", side.v4());
        let add = ["address", "add", &address, "dev", interface];
        node.lab().ip(side, &add).unwrap();
    }
    settle(|| node.gets_out(9_001));
    assert!(node.gets_out(9_001), "the new interface is not filtered");

    node.apply(CLOSED);
    let status = node.interface_status();
    // Its totals go on, and with them its generations; its flows don't.
    assert_eq!(status["generation"], 2, "{status:#}");
    assert!(!node.gets_out(9_001));
    assert_eq!(egress_programs(&node).len(), 1);
    assert_eq!(node.count(&["--proto", "udp", "--port", "4000"]), 0);
    node.dropped(&answer(0, 4_000));
    node.asks([4_000]);
    node.answered(&answer(0, 4_000));
}

/// Another tool's program at TCX stays, and both are asked.
#[test]
fn a_foreign_egress_program_is_left_alone() {
    if !require::root_and_bpf() || !require::has_tcx() {
        return;
    }
    let node = Node::new();
    // It is nodewall's own, as far as the kernel knows: pinned elsewhere, and without
    // the link of what comes in.
    let name = node.pins().file_name().unwrap().to_str().unwrap();
    let foreign = node.pins().with_file_name(format!("{name}-foreign"));
    let file = node.policy("foreign.yaml", &denying(9_002));
    let mut command = node.command_under(&[], &foreign, &apply(&file));
    let output = command.output().unwrap();
    let remove = Kept(foreign.clone());
    assert!(output.status.success(), "{output:?}");
    fs::remove_file(foreign.join(INTERFACE).join("link")).unwrap();
    settle(|| node.lab().xdp_program(Side::Node).unwrap().is_none());
    let theirs = egress_programs(&node);
    assert_eq!(theirs.len(), 1);

    for _ in 0..2 {
        node.apply(CLOSED);
        let programs = egress_programs(&node);
        assert_eq!(programs.len(), 2, "{programs:?}");
        assert!(programs.contains(&theirs[0]), "{programs:?}");
        assert!(!node.gets_out(9_001) && !node.gets_out(9_002));
        assert!(node.gets_out(9_003));
    }
    node.apply_with(CLOSED, &["--ingress-only"]);
    settle(|| egress_programs(&node).len() == 1);
    assert_eq!(egress_programs(&node), theirs);
    node.apply(CLOSED);
    node.done(&["detach", "--all"]);
    settle(|| egress_programs(&node).len() == 1);
    assert_eq!(egress_programs(&node), theirs);
    // What comes in may be filtered a moment longer.
    settle(|| node.gets_out(9_001));
    assert!(node.gets_out(9_001) && !node.gets_out(9_002));
    drop(remove);
}

#[test]
fn what_is_dropped_on_the_way_out_is_reported() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply_with(CLOSED, &["--sample-drops", "100"]);
    // By a socket: one that sends frames tries again what is dropped.
    assert!(!node.gets_out(9_001));
    let text = node.done(&["observe", "-o", "jsonl", "--port", "9001"]);
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["time"].is_string())
        .collect();
    let [event] = &events[..] else {
        panic!("{text}");
    };
    assert_eq!(event["direction"], "egress", "{event}");
    assert_eq!(event["verdict"], "drop");
    assert_eq!(event["reason"], "policy_deny");
    assert_eq!(event["decided_by"]["rule"], 1, "{event}");
    assert_eq!(event["interface"], INTERFACE);
    assert_eq!(event["ip"]["src"], Side::Node.v4().to_string());
    assert_eq!(event["ip"]["dst"], Side::Client.v4().to_string());
    assert_eq!(event["l4"]["proto"], "udp");

    // What comes in is told as before, by the same reader.
    node.send(Side::Client, &[answer(0, 4_005)]);
    settle(|| node.total("dropped") > 0);
    let text = node.done(&["observe", "-o", "jsonl", "--port", "4005"]);
    let event: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(event["direction"], "ingress", "{event}");
}
