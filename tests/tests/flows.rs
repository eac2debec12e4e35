//! What a node begins is answered, whatever else happens: many at a time, over changes
//! of the policy, under floods.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::lab::Limit;
use tests::lab::site::{
    Family, Load, MANY, Machine, Offload, Outcome, Policies, Site, Worker, iperf3,
};
use tests::packet::{Ethernet, Ipv4, Ipv6, Packet, Tcp, Udp};
use tests::require;

/// Many clients on the node, each with a UDP port of its own, and all with the same
/// server at the neighbour.
struct Many {
    family: Family,
    clients: u16,
}

impl Many {
    const FIRST: u16 = 10_000;

    fn ports(&self) -> std::ops::Range<u16> {
        Self::FIRST..Self::FIRST + self.clients
    }

    /// All ask; returns how many answers came through.
    fn ask(&self, site: &Site) -> u64 {
        let frames = self.frames(Machine::Node, Machine::Client, |port| (port, MANY));
        exchange(site, Machine::Node, &frames)
    }

    /// All are answered once more, without having asked; returns how many answers
    /// came through.
    fn answer(&self, site: &Site) -> u64 {
        let frames = self.frames(Machine::Client, Machine::Node, |port| (MANY, port));
        exchange(site, Machine::Client, &frames)
    }

    fn frames(
        &self,
        from: Machine,
        to: Machine,
        ports: impl Fn(u16) -> (u16, u16),
    ) -> Vec<Vec<u8>> {
        let ethernet = Ethernet {
            src: from.mac(),
            dst: to.mac(),
            ..Ethernet::default()
        };
        self.ports()
            .map(|port| {
                let (sport, dport) = ports(port);
                let datagram = Udp {
                    sport,
                    ..Udp::to(dport)
                };
                let (src, dst) = (from.ip(self.family), to.ip(self.family));
                ethernet.carry(&packet(src, dst, &datagram))
            })
            .collect()
    }
}

/// Sends the frames, no faster than they are answered; returns how many are.
fn exchange(site: &Site, from: Machine, frames: &[Vec<u8>]) -> u64 {
    /// Fewer than a veth's ring holds, which drops what is too much on some kernels.
    const CHUNK: usize = 200;
    let before = site.answers().unwrap();
    let (mut due, mut answered) = (before, before);
    for chunk in frames.chunks(CHUNK) {
        let limit = Limit::count(chunk.len() as u64);
        site.send(from, chunk, &limit).unwrap();
        due += chunk.len() as u64;
        let mut last = Instant::now();
        while answered < due && last.elapsed() < Duration::from_millis(300) {
            let now = site.answers().unwrap();
            if now > answered {
                (answered, last) = (now, Instant::now());
            }
        }
    }
    answered - before
}

fn packet(src: IpAddr, dst: IpAddr, payload: &dyn tests::packet::Payload) -> Packet {
    match (src, dst) {
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
        _ => unreachable!("{src} and {dst} are of one family"),
    }
}

fn closed(policies: Policies) -> Worker {
    let worker = Worker::new(Offload::Segments).unwrap();
    worker.close(policies, &[]);
    worker
}

/// Flows in the table, by the command.
fn count(worker: &Worker, arguments: &[&str]) -> u64 {
    let said = worker.done(&[&["flows", "--count"], arguments].concat());
    // In the table format each interface has its line, and the number ends it.
    said.split_whitespace()
        .filter_map(|word| word.replace(',', "").parse::<u64>().ok())
        .sum()
}

#[test]
fn both_directions_are_named_where_they_are_told_apart() {
    if !require::root_and_bpf() {
        return;
    }
    let worker = closed(Policies::Outbound);
    let counters = worker.json(&["stats"]);
    let directions: BTreeSet<&str> = counters["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|interface| interface["direction"].as_str())
        .collect();
    assert_eq!(directions, ["egress", "ingress"].into(), "{counters}");
    let status = worker.json(&["status"]);
    let interface = &status["interfaces"][0];
    for part in ["egress", "flows"] {
        assert!(interface[part].is_object(), "no {part}: {status}");
    }
}

/// Bulk, each way, under default deny.
#[test]
fn data_moves_both_ways_under_default_deny() {
    if !require::root_and_bpf() {
        return;
    }
    for offload in [Offload::None, Offload::Segments] {
        let worker = Worker::new(offload).unwrap();
        worker.close(Policies::Outbound, &[]);
        for family in Family::BOTH {
            for load in [Load::Up, Load::Down, Load::UdpUp, Load::UdpDown] {
                for (machine, port) in [(Machine::Far, 5201), (Machine::Client, 5207)] {
                    let to = machine.ip(family);
                    let outcome = iperf3(worker.site(), Machine::Node, to, port, load).unwrap();
                    assert_eq!(outcome, Outcome::Worked, "{offload:?} {load:?} {to}");
                }
            }
        }
    }
}

/// A hundred thousand flows at a time: each is answered, and all are remembered, so
/// that each can be answered again.
#[test]
fn a_hundred_thousand_flows_are_answered() {
    const EACH: u16 = 50_000;
    if !require::root_and_bpf() {
        return;
    }
    let worker = closed(Policies::Outbound);
    let site = worker.site();
    let all = Family::BOTH.map(|family| Many {
        family,
        clients: EACH,
    });
    let nobody = Many {
        family: Family::V4,
        clients: 1_000,
    };
    assert_eq!(nobody.answer(site), 0, "answers that nobody asked for");
    for many in &all {
        assert_eq!(many.ask(site), u64::from(EACH), "{} answered", many.family);
    }
    let flows = count(&worker, &["--begun", "egress", "--proto", "udp"]);
    assert!(flows >= 2 * u64::from(EACH), "{flows} flows");
    for many in &all {
        let again = many.answer(site);
        assert_eq!(again, u64::from(EACH), "{} answered again", many.family);
    }
    // What is forgotten is not answered any more.
    worker.done(&["flows", "--flush"]);
    assert_eq!(count(&worker, &[]), 0);
    for family in Family::BOTH {
        let clients = 1_000;
        let some = Many { family, clients };
        assert_eq!(some.answer(site), 0, "{family} answered after all");
    }
}

/// A connection that is silent for long outlives changes of the policy; no process
/// has anything to do with it.
#[test]
fn an_idle_connection_outlives_changes_of_the_policy() {
    if !require::root_and_bpf() {
        return;
    }
    let worker = closed(Policies::Outbound);
    let mut streams: Vec<TcpStream> = Family::BOTH
        .iter()
        .map(|family| {
            let to = SocketAddr::new(Machine::Far.ip(*family), 22);
            let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
            let stream = worker.site().in_ns(Machine::Node, connect).unwrap();
            let stream = stream.unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            stream
        })
        .collect();
    for policies in [Policies::Provider, Policies::Outbound, Policies::Provider] {
        thread::sleep(Duration::from_secs(3));
        assert_eq!(worker.processes(), 0, "nodewall has no daemon");
        worker.close(policies, &[]);
        for stream in &mut streams {
            let mut echo = [0; 4];
            stream.write_all(b"key\n").unwrap();
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"key\n");
        }
    }
    let established = count(&worker, &["--proto", "tcp", "--state", "established"]);
    assert_eq!(established, 2);
}

/// The policy changes under load, again and again: no connection is lost, none is
/// stalled.
#[test]
fn changes_of_the_policy_disturb_no_connection() {
    if !require::root_and_bpf() {
        return;
    }
    let worker = closed(Policies::Outbound);
    let loads: Vec<_> = [("5201", None), ("5202", Some("-R"))]
        .into_iter()
        .map(|(port, reverse)| {
            let far = Machine::Far.v4().to_string();
            let mut command = worker.site().command(Machine::Node, "iperf3");
            command
                .args(["--json", "-c", &far, "-p", port, "-t", "12", "-b", "200M"])
                .args(reverse)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    let (began, mut changes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(9) {
        let policies = [Policies::Provider, Policies::Outbound][changes % 2];
        worker.close(policies, &[]);
        changes += 1;
    }
    println!("{changes} changes of the policy");
    for load in loads {
        let output = load.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{report}");
        assert!(report["error"].is_null(), "{report}");
        for second in report["intervals"].as_array().unwrap() {
            let moved = second["sum"]["bytes"].as_u64().unwrap();
            assert!(moved > 0, "a second without data: {second}");
        }
    }
    // A busy machine makes fewer.
    assert!(changes >= 5, "only {changes}");
}

/// What a pod sends is masqueraded behind egress and in front of ingress: the flow is
/// the node's own. And a node port leads to the pod.
#[test]
fn a_pod_is_masqueraded_and_reached_by_its_node_port() {
    if !require::root_and_bpf() {
        return;
    }
    let worker = closed(Policies::Provider);
    for family in Family::BOTH {
        let page = |from: Machine, to: IpAddr, port: u16| {
            let url = format!("http://{}/", SocketAddr::new(to, port));
            let mut curl = worker.site().command(from, "curl");
            let output = curl
                .args(["-sS", "--noproxy", "*", "--max-time", "5", &url])
                .output()
                .unwrap();
            assert!(output.status.success(), "{url}: {output:?}");
        };
        page(Machine::Pod, Machine::Far.ip(family), 80);
        page(Machine::Far, Machine::Node.ip(family), 30080);
        let flows = worker.json(&["flows"]).to_string();
        assert!(
            flows.contains(&Machine::Node.ip(family).to_string()),
            "{flows}"
        );
        assert!(
            !flows.contains(&Machine::Pod.ip(family).to_string()),
            "{flows}"
        );
    }
}

/// A policy whose node ports need flows to answer: the hard case of a flood, since
/// each of its packets begins one.
const ANSWERS_NEED_FLOWS: &str = "\
apiVersion: v1
kind: policy
metadata:
  name: many-alone
spec:
  order: 100
  selector: ibm.role == 'worker_public'
  types:
  - egress
  egress:
  - action: allow
    protocol: udp
    destination:
      ports:
      - 9001
  - action: deny
    protocol: tcp
  - action: deny
    protocol: udp
";

/// A flood at open ports, from sources that it makes up, pushes nothing out that the
/// node began: neither where the answers to the flood pass by rules, nor where each
/// packet of it begins a flow.
#[test]
fn a_flood_at_open_ports_pushes_no_flow_of_the_nodes_out() {
    const FLOWS: u16 = 1_000;
    /// More than a table holds.
    const SOURCES: u32 = 200_000;
    const PACKETS: u64 = 1_000_000;
    if !require::root_and_bpf() {
        return;
    }
    for (name, more) in [
        ("answers by rules", &[][..]),
        (
            "answers by flows",
            &[("many-alone.yaml", ANSWERS_NEED_FLOWS)],
        ),
    ] {
        let worker = Worker::new(Offload::None).unwrap();
        worker.close(Policies::Provider, more);
        let site = worker.site();
        let all = Family::BOTH.map(|family| Many {
            family,
            clients: FLOWS,
        });
        for many in &all {
            assert_eq!(many.ask(site), u64::from(FLOWS), "{name}: {}", many.family);
        }
        let limit = Limit {
            packets: PACKETS,
            time: Duration::from_secs(30),
            stop: None,
        };
        let syns = flood(SOURCES, &Tcp::to(30443));
        let datagrams = flood(SOURCES, &Udp::to(30500));
        for frames in [syns, datagrams] {
            let sent = site.send(Machine::Client, &frames, &limit).unwrap();
            println!("{name}: {} at {:.0}/s", sent.packets, sent.per_second());
            assert!(sent.packets > 2 * u64::from(SOURCES), "too slow a flood");
        }
        println!(
            "{name}: {} flows begun outside",
            count(&worker, &["--begun", "ingress"])
        );
        for many in &all {
            let answered = many.answer(site);
            assert_eq!(answered, u64::from(FLOWS), "{name}: {}", many.family);
        }
    }
}

/// A frame from each of so many sources that do not exist.
fn flood(sources: u32, payload: &dyn tests::packet::Payload) -> Vec<Vec<u8>> {
    let ethernet = Machine::Client.ethernet_to_node();
    (0..sources)
        .map(|number| {
            // 18 bits, in no order, below 198.16.0.0, where the networks for
            // benchmarks are.
            let src = Ipv4Addr::from(0xc610_0000 | number.reverse_bits() >> 14);
            let ip = Ipv4 {
                src,
                dst: Machine::Node.v4(),
                ..Ipv4::default()
            };
            ethernet.carry(&ip.carry(payload))
        })
        .collect()
}
