//! The ready policies of `examples/`, as an administrator takes them: applied by the
//! command in their heads, and tried with real sockets in both directions.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use tests::lab::{self, Limit, Reach, Side, Transport};
use tests::packet::{self, Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Raw};
use tests::require;

use Transport::{Tcp, Udp};

/// Whether what goes out is enforced, and the answers to it come in. Where not, egress
/// rules are left out (`--ingress-only`), and nothing is expected of them.
const EGRESS: bool = true;

/// For what must not be answered: the veth pair takes no time.
const BRIEF: Duration = Duration::from_millis(700);
/// For what must be answered, on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);

/// What is tried here; a new example must be too.
const TRIED: &[&str] = &[
    "blocklist.yaml",
    "deny-kube-node-port-services.yaml",
    "ingress-node-firewall.yaml",
    "kubernetes-network-policy.yaml",
    "kubernetes-node.yaml",
    "laptop.yaml",
    "million-blocklist",
    "node-ports-from-clients.yaml",
    "outbound/ap-south.yaml",
    "outbound/eu-central.yaml",
    "outbound/uk-south.yaml",
    "outbound/us-east.yaml",
    "outbound/us-south.yaml",
    "performance-lab.yaml",
    "worker-node",
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The command in the head of a file, without its line breaks.
fn command(text: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .map_while(|line| line.strip_prefix('#'))
        .skip_while(|line| !line.trim_start().starts_with("nodewall apply "));
    let mut command = String::new();
    loop {
        let line = lines.next()?.trim();
        let Some(continued) = line.strip_suffix('\\') else {
            return Some(command + line);
        };
        command += continued;
    }
}

/// A node that examples are applied on, and how its neighbour tries it.
struct Node(lab::Node);

impl Node {
    fn new() -> Self {
        Self(lab::Node::new().unwrap())
    }

    /// Applies an example by the command in its head, on the lab's interface.
    fn apply(&self, example: &str) {
        let copy = self.0.files().join("examples");
        let into = copy.join(example);
        fs::create_dir_all(into.parent().unwrap()).unwrap();
        let whole = examples().join(example);
        let mut said = None;
        let mut take = |from: &Path, to: &Path| {
            let text = fs::read_to_string(from).unwrap();
            if said.is_none() {
                said = command(&text);
            }
            // Interfaces that the documents name, not the command.
            let here = Side::Node.interface();
            let text = text
                .replace("interfaceName: eth1", &format!("interfaceName: {here}"))
                .replace("  - eth0\n", &format!("  - {here}\n"));
            fs::write(to, text).unwrap();
        };
        if whole.is_dir() {
            fs::create_dir_all(&into).unwrap();
            for entry in fs::read_dir(whole).unwrap() {
                let from = entry.unwrap().path();
                if from
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    take(&from, &into.join(from.file_name().unwrap()));
                }
            }
        } else {
            take(&whole, &into);
        }
        let list = "blocklist.txt";
        fs::copy(examples().join(list), copy.join(list)).unwrap();
        // The seed's policy has no head: it is as the seed prints it.
        let said = said.unwrap_or_else(|| {
            assert_eq!(example, "deny-kube-node-port-services.yaml");
            format!("nodewall apply -f {example} --interface eth0 --label ibm.role=worker_public")
        });
        let mut arguments = Vec::new();
        let mut words = said.trim_start_matches("nodewall ").split_whitespace();
        while let Some(word) = words.next() {
            arguments.push(word.to_owned());
            match word {
                "-f" => {
                    let path = words.next().unwrap();
                    assert_eq!(path, example);
                    arguments.push(copy.join(path).to_str().unwrap().to_owned());
                }
                "--interface" => {
                    words.next().unwrap();
                    arguments.push(Side::Node.interface().to_owned());
                }
                _ => {}
            }
        }
        if !EGRESS {
            arguments.push("--ingress-only".to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.0.done(&arguments);
    }

    fn ip(&self, side: Side, arguments: &[&str]) {
        self.0.lab().ip(side, arguments).unwrap();
    }

    /// Gives the neighbour another address, which the node finds it under and from
    /// which it speaks to the node from now on.
    fn speak_as(&self, address: &str) {
        let (client, node) = (Side::Client.interface(), Side::Node.interface());
        let of: IpAddr = address.parse().unwrap();
        let to = if of.is_ipv4() {
            Side::Node.v4().to_string()
        } else {
            Side::Node.v6().to_string()
        };
        let mut arguments = vec!["address", "replace", address, "dev", client];
        if of.is_ipv6() {
            arguments.push("nodad");
        }
        self.ip(Side::Client, &arguments);
        self.ip(
            Side::Client,
            &["route", "replace", &to, "dev", client, "src", address],
        );
        self.ip(Side::Node, &["route", "replace", address, "dev", node]);
    }

    /// The neighbour speaks from its own addresses again.
    fn speak_as_before(&self) {
        for to in Side::Node.addresses() {
            // Not there where it never spoke from another one.
            let _ = self
                .0
                .lab()
                .ip(Side::Client, &["route", "delete", &to.to_string()]);
        }
    }

    /// Tries services of one side from the other, all at the same time: each must answer, or
    /// be silent.
    fn tries(&self, from: Side, to: &[IpAddr], tries: &[(Transport, u16, bool)]) {
        let server = match from {
            Side::Client => Side::Node,
            Side::Node => Side::Client,
        };
        let lab = self.0.lab();
        let serve = |&(transport, port, _): &_| lab.serve(server, transport, port).unwrap();
        let _services: Vec<_> = tries.iter().map(serve).collect();
        let one = |transport, to: SocketAddr, answers| {
            let (patience, expected) = if answers {
                (PATIENT, Reach::Answered)
            } else {
                (BRIEF, Reach::TimedOut)
            };
            let reach = lab.reach(from, transport, to, patience).unwrap();
            assert_eq!(reach, expected, "from the {from:?}: {transport} {to}");
        };
        thread::scope(|scope| {
            for &(transport, port, answers) in tries {
                for &to in to {
                    scope.spawn(move || one(transport, SocketAddr::new(to, port), answers));
                }
            }
        });
    }

    /// The neighbour tries the node, at both of its addresses.
    fn comes_in(&self, tries: &[(Transport, u16, bool)]) {
        self.tries(Side::Client, &Side::Node.addresses(), tries);
    }

    /// The neighbour, under an address, tries the node.
    fn comes_in_from(&self, address: &str, tries: &[(Transport, u16, bool)]) {
        self.speak_as(address);
        let to = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(_) => Side::Node.v4().into(),
            IpAddr::V6(_) => Side::Node.v6().into(),
        };
        self.tries(Side::Client, &[to], tries);
    }

    /// The node tries its neighbour, at both of its addresses; and what is answered
    /// comes back.
    fn goes_out(&self, tries: &[(Transport, u16, bool)]) {
        if EGRESS {
            self.tries(Side::Node, &Side::Client.addresses(), tries);
        }
    }

    /// The node tries an address that the neighbour stands in for.
    fn goes_out_to(&self, address: &str, tries: &[(Transport, u16, bool)]) {
        if EGRESS {
            // Also what answers over UDP does so from there.
            self.speak_as(address);
            self.tries(Side::Node, &[address.parse().unwrap()], tries);
            self.speak_as_before();
        }
    }

    /// A frame from the neighbour is counted by this rule.
    fn is_counted(&self, policy: &str, rule: u64, frame: Vec<u8>) {
        let before = self.0.rule(policy, rule);
        let limit = Limit::count(1);
        self.0.lab().send(Side::Client, &[frame], &limit).unwrap();
        for _ in 0..20 {
            if self.0.rule(policy, rule) > before {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("rule {rule} of {policy} counted nothing");
    }
}

#[test]
fn every_example_is_tried() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "outbound" {
            let regions = fs::read_dir(path).unwrap();
            let names = regions.map(|region| region.unwrap().file_name());
            found.extend(names.map(|region| format!("{name}/{}", region.to_str().unwrap())));
        } else if name != "blocklist.txt" {
            found.insert(name);
        }
    }
    let tried: BTreeSet<String> = TRIED.iter().map(ToString::to_string).collect();
    assert_eq!(found, tried);
}

#[test]
fn blocklist() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("blocklist.yaml");
    node.comes_in(&[(Tcp, 443, true), (Udp, 30080, true)]);
    node.comes_in_from("198.51.100.66", &[(Tcp, 443, false), (Udp, 443, false)]);
    node.comes_in_from("198.51.100.67", &[(Tcp, 443, true)]);
    node.comes_in_from("203.0.113.7", &[(Tcp, 443, false), (Tcp, 22, true)]);
    node.comes_in_from("2001:db8:bad::7", &[(Tcp, 443, false)]);
    node.comes_in_from("2001:db8:bae::7", &[(Tcp, 443, true)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 443, true)]);
}

#[test]
fn node_port_block() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("deny-kube-node-port-services.yaml");
    node.comes_in(&[
        (Tcp, 29999, true),
        (Tcp, 30000, false),
        (Udp, 30000, false),
        (Tcp, 32767, false),
        (Udp, 32767, false),
        (Udp, 32768, true),
    ]);
    // The answers have a node port as their source, and any other as destination.
    node.goes_out(&[(Tcp, 30000, true), (Udp, 32767, true)]);
}

#[test]
fn ingress_node_firewall() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("ingress-node-firewall.yaml");
    node.comes_in(&[
        (Tcp, 9100, false),
        (Tcp, 9101, true),
        (Tcp, 10248, true),
        (Tcp, 10249, false),
        (Tcp, 10259, false),
        (Tcp, 10260, true),
        (Udp, 4789, false),
        (Udp, 4790, true),
    ]);
    node.comes_in_from("10.0.0.7", &[(Tcp, 9100, true), (Udp, 4789, true)]);
    node.comes_in_from("203.0.113.7", &[(Tcp, 443, false), (Udp, 443, false)]);
    node.comes_in_from("2001:db8:10::7", &[(Tcp, 10250, true)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 9100, true)]);
}

#[test]
fn kubernetes_network_policy() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("kubernetes-network-policy.yaml");
    let v4 = [Side::Node.v4().into()];
    node.tries(
        Side::Client,
        &v4,
        &[
            (Tcp, 9099, false),
            (Tcp, 9100, true),
            (Tcp, 9110, true),
            (Tcp, 9111, false),
            (Tcp, 443, false),
        ],
    );
    node.comes_in_from("198.51.100.63", &[(Tcp, 443, true), (Udp, 443, true)]);
    node.comes_in_from("198.51.100.64", &[(Tcp, 443, false)]);
    node.comes_in_from("2001:db8:51::7", &[(Tcp, 443, true)]);
    node.comes_in_from("2001:db8:52::7", &[(Tcp, 443, false), (Tcp, 22, true)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 80, true), (Udp, 53, true)]);
}

#[test]
fn worker_node() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("worker-node");
    node.comes_in(&[
        (Tcp, 29999, false),
        (Tcp, 30000, true),
        (Tcp, 32767, true),
        (Tcp, 32768, false),
        (Udp, 29999, false),
        (Udp, 30000, true),
        (Udp, 32767, true),
        (Udp, 32768, false),
        (Tcp, 52311, true),
        (Udp, 52311, true),
        (Tcp, 22, false),
        (Tcp, 10250, false),
    ]);
    node.comes_in_from("198.51.100.15", &[(Tcp, 22, true), (Tcp, 10250, true)]);
    node.comes_in_from("198.51.100.16", &[(Tcp, 22, false)]);
    node.speak_as_before();
    let plain = Ethernet::default();
    let ping = Ipv4::default().carry(&Icmp::new(8, 0));
    node.is_counted("allow-icmp", 0, plain.carry(&ping));
    let vrrp = Ipv4::default().carry(&Raw::new(112, &[0x31, 1, 100, 0]));
    node.is_counted("allow-vrrp", 0, plain.carry(&vrrp));
    node.goes_out(&[(Tcp, 443, true), (Udp, 53, true), (Tcp, 22, true)]);
}

#[test]
fn node_ports_from_clients() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("node-ports-from-clients.yaml");
    node.comes_in(&[
        (Tcp, 29999, true),
        (Tcp, 30000, false),
        (Udp, 30000, false),
        (Tcp, 32767, false),
        (Udp, 32768, true),
    ]);
    let all = [(Tcp, 30000, true), (Udp, 32767, true), (Tcp, 443, true)];
    node.comes_in_from("198.51.100.7", &all);
    node.comes_in_from("2001:db8:51::7", &all);
    node.comes_in_from("198.51.101.7", &[(Tcp, 30080, false)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 30000, true), (Udp, 30000, true)]);
}

/// What a region's nodes send their provider; and that nothing that comes in is
/// judged.
#[test]
fn outbound() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    for (region, masters, services) in [
        ("ap-south", &["168.1.97.67", "168.1.8.195"][..], &[][..]),
        (
            "eu-central",
            &["169.50.169.110", "169.50.56.174"],
            &["159.122.78.136", "169.50.25.125"],
        ),
        (
            "uk-south",
            &["159.122.242.78", "158.175.65.170"],
            &["169.50.196.143", "169.50.115.113"],
        ),
        (
            "us-east",
            &["169.60.73.142", "169.61.83.62"],
            &["169.47.204.128", "169.48.79.236"],
        ),
        (
            "us-south",
            &["169.46.7.238", "169.47.70.10", "169.60.128.2"],
            &["169.47.204.135", "169.46.186.113"],
        ),
    ] {
        node.apply(&format!("outbound/{region}.yaml"));
        node.comes_in(&[(Tcp, 443, true), (Udp, 30000, true)]);
        for master in masters {
            node.goes_out_to(
                master,
                &[
                    (Tcp, 443, true),
                    (Udp, 443, true),
                    (Tcp, 19999, false),
                    (Tcp, 20000, true),
                    (Udp, 32767, true),
                    (Tcp, 32768, false),
                    (Tcp, 9095, false),
                ],
            );
        }
        for service in services {
            node.goes_out_to(
                service,
                &[(Tcp, 443, true), (Tcp, 9095, true), (Udp, 9095, false)],
            );
        }
        node.goes_out(&[(Tcp, 443, false), (Udp, 443, false), (Udp, 53, true)]);
    }
}

#[test]
fn kubernetes_node() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("kubernetes-node.yaml");
    node.comes_in(&[
        (Tcp, 22, true),
        (Tcp, 6443, false),
        (Tcp, 10250, false),
        (Tcp, 2379, false),
        (Tcp, 30000, false),
        (Udp, 4789, false),
    ]);
    let control = [(Tcp, 6443, true), (Tcp, 10250, true), (Tcp, 30000, false)];
    node.comes_in_from("198.51.100.7", &control);
    node.comes_in_from("2001:db8:c0::7", &control);
    let other_node = [(Tcp, 6443, true), (Tcp, 10250, false), (Udp, 4789, true)];
    node.comes_in_from("198.51.100.64", &other_node);
    node.comes_in_from("2001:db8:c1::7", &other_node);
    let balancer = [
        (Tcp, 29999, false),
        (Tcp, 30000, true),
        (Udp, 32767, true),
        (Tcp, 32768, false),
    ];
    node.comes_in_from("203.0.113.15", &balancer);
    node.comes_in_from("2001:db8:1b::7", &balancer);
    node.comes_in_from("203.0.113.16", &[(Tcp, 30000, false)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 443, true), (Udp, 53, true), (Tcp, 10250, true)]);
}

#[test]
fn laptop() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("laptop.yaml");
    node.comes_in(&[
        (Tcp, 22, false),
        (Tcp, 8080, false),
        (Udp, 5353, false),
        (Udp, 1900, false),
    ]);
    let plain = Ethernet::default();
    let ping = Ipv4::default().carry(&Icmp::new(8, 0));
    node.is_counted("laptop", 0, plain.carry(&ping));
    let ping = Ipv6::default().carry(&Icmpv6::new(128, 0));
    node.is_counted("laptop", 1, plain.carry(&ping));
    let question = Ipv4 {
        dst: [224, 0, 0, 251].into(),
        ..Ipv4::default()
    };
    node.is_counted(
        "laptop",
        2,
        plain.carry(&question.carry(&packet::Udp::to(5353))),
    );
    node.goes_out(&[(Tcp, 443, true), (Udp, 53, true), (Udp, 30080, true)]);
}

#[test]
fn performance_lab() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    node.apply("performance-lab.yaml");
    node.comes_in(&[(Tcp, 22, true), (Tcp, 5201, false), (Udp, 5201, false)]);
    let lab = [
        (Tcp, 5200, false),
        (Tcp, 5201, true),
        (Udp, 5201, true),
        (Tcp, 5210, true),
        (Tcp, 5211, false),
        (Tcp, 12865, true),
    ];
    for address in ["198.18.0.7", "198.19.255.254", "2001:db8:1ab::7"] {
        node.comes_in_from(address, &lab);
        node.goes_out_to(address, &[lab[1], lab[2], lab[4]]);
    }
    node.comes_in_from("198.20.0.7", &[(Tcp, 5201, false)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 443, false), (Udp, 5201, false), (Udp, 53, true)]);
}

#[test]
fn million_blocklist() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new();
    let folder = node.0.files().join("examples");
    fs::create_dir_all(folder.join("million-blocklist")).unwrap();
    // By the command of its head.
    let text = examples().join("million-blocklist/million-blocklist.yaml");
    let text = fs::read_to_string(text).unwrap();
    let head: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix('#'))
        .skip_while(|line| !line.trim_start().starts_with("awk "))
        .take_while(|line| !line.is_empty())
        .collect();
    let made = Command::new("sh")
        .args(["-c", &head.join("\n")])
        .current_dir(&folder)
        .status();
    assert!(made.unwrap().success(), "{head:?}");
    let list = fs::read_to_string(folder.join("million-blocklist/blocklist.txt")).unwrap();
    assert_eq!(list.lines().count(), 1_000_000);

    node.apply("million-blocklist");
    node.comes_in(&[(Tcp, 443, true), (Udp, 443, true)]);
    // The second and the first line, and what is beside them.
    node.comes_in_from("84.245.42.12", &[(Tcp, 443, false), (Udp, 443, false)]);
    node.goes_out_to("84.245.42.12", &[(Tcp, 443, false)]);
    // A failsafe port lets the question in, and the untracked policy no answer out.
    node.comes_in_from("84.245.42.12", &[(Tcp, 22, !EGRESS)]);
    node.comes_in_from("84.245.42.11", &[(Tcp, 443, true)]);
    node.comes_in_from("2001:db8:41a8:3af1::7", &[(Tcp, 443, false)]);
    node.comes_in_from("2001:db8:41a8:3af2::7", &[(Tcp, 443, true)]);
    node.goes_out_to("84.245.42.11", &[(Tcp, 443, true)]);
    node.speak_as_before();
    node.goes_out(&[(Tcp, 443, true)]);
}
