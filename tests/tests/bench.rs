//! `nodewall bench`: what it says is there, adds up, and nothing is left.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use filter_user::bench::{Flow, corpus_of_flows};
use filter_user::compile::Image;
use filter_user::datapath::TestBench;
use filter_user::ruleset::{Action, Direction, Match, Options, Rule, RuleId, Ruleset, Stage};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tests::lab::program;
use tests::packet::{Ethernet, Ipv4, Ipv6, Tcp, Udp};
use tests::require;

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/deny-kube-node-port-services.yaml"
);

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(["bench", "--interface", "eth0", "--rounds", "3"])
        .args(["--label", "ibm.role=worker_public"])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn done(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = bench(arguments).args(["-o", "json"]).output().unwrap();
    serde_json::from_str(&done(&output)).unwrap()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// The fields of the interface, and the sums that must hold among them.
fn check(report: &Value) {
    let floor = number(&report["floor_ns"]);
    assert!(floor > 1.0, "{report:#}");
    for traffic in ["warm", "random"] {
        let total = number(&report[format!("{traffic}_ns")]);
        let over = number(&report["over_floor"][format!("{traffic}_ns")]);
        assert!(total > 1.0, "{report:#}");
        // No classifier takes nothing, even on a machine that others use.
        assert!(over > 0.0 && over < total, "{report:#}");
        let spread = &report["spread"][traffic];
        for (half, value) in [("ns", total), ("over_floor_ns", over)] {
            assert!(number(&spread[half]["low"]) <= value, "{report:#}");
            assert!(number(&spread[half]["high"]) >= value, "{report:#}");
        }
    }
    assert!(report["rules"].as_u64().unwrap() > 0);
    assert!(report["combination"].is_string(), "{report:#}");
    let memory = &report["memory"];
    let tables = memory["tables_bytes"].as_u64().unwrap();
    assert!(tables > 0 && memory["maps_bytes"].as_u64().unwrap() > tables);
    for field in ["verified_instructions", "xlated_bytes"] {
        assert!(report["program"][field].as_u64().unwrap() > 100);
    }
    for field in ["prepare_ms", "compile_ms", "load_ms"] {
        assert!(number(&report[field]) >= 0.0);
    }
    assert!(number(&report["load_ms"]) > 0.0);
    assert!(number(&report["swap_ms"]) > 0.0, "{}", report["no_swap"]);
    assert!(report["no_swap"].is_null());
}

#[test]
fn a_policy_is_measured_with_random_packets() {
    if !require::root_and_bpf() {
        return;
    }
    let report = json(&["-f", EXAMPLE, "--flows", "5000"]);
    assert_eq!(report["schema"], 1);
    check(&report);
    assert!(report["egress"].is_null());
    let packets = &report["packets"];
    assert_eq!(packets["source"], "random");
    assert_eq!(packets["flows"], 5000);
    // Half of them are made for its rules, which deny.
    assert!(number(&packets["dropped"]) > 0.3, "{packets}");
    assert!(number(&packets["dropped"]) < 0.9, "{packets}");
    assert!(report["machine"]["cpus"].as_u64().unwrap() > 0);
    assert!(!report["machine"]["kernel"].as_str().unwrap().is_empty());
    assert!(report["time"].as_str().unwrap().ends_with('Z'));

    // The same packets again, and others.
    let again = json(&["-f", EXAMPLE, "--flows", "5000"]);
    assert_eq!(again["packets"], *packets);
    let other = json(&["-f", EXAMPLE, "--flows", "5000", "--seed", "2"]);
    assert_ne!(other["packets"], *packets);
}

#[test]
fn both_directions_are_measured() {
    if !require::root_and_bpf() {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("both.yaml");
    fs::write(
        &file,
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: both\n\
         spec:\n  selector: all()\n  types: [Ingress, Egress]\n  ingress:\n  - action: Deny\n    \
         protocol: TCP\n    destination: {ports: [23]}\n  egress:\n  - action: Deny\n    \
         destination: {nets: ['2001:db8::/32', '2001:db9::/32']}\n  - action: Allow\n",
    )
    .unwrap();
    let report = json(&["-f", file.to_str().unwrap(), "--flows", "1000"]);
    check(&report);
    assert_eq!(report["direction"], "ingress");
    check(&report["egress"]);
    assert_eq!(report["egress"]["direction"], "egress");
    assert_eq!(report["egress"]["prefixes"], 2);
}

#[test]
fn the_packets_of_a_capture_are_measured() {
    if !require::root_and_bpf() {
        return;
    }
    let over = |packet| Ethernet::default().carry(&packet);
    let mut long = over(Ipv4::default().carry(&Tcp::to(80)));
    long.resize(9_000, 0x55);
    let frames = [
        over(Ipv4::default().carry(&Udp::to(30_080))),
        over(Ipv6::default().carry(&Tcp::to(80))),
        long,
        // No driver receives it.
        vec![0; 9],
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut capture = file.as_file();
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    capture.write_all(&word(0xa1b2_c3d4)).unwrap();
    capture.write_all(&[2, 0, 4, 0]).unwrap();
    for value in [0, 0, 65_535, 1] {
        capture.write_all(&word(value)).unwrap();
    }
    for frame in &frames {
        for value in [0, 0, frame.len(), frame.len()] {
            capture.write_all(&word(value)).unwrap();
        }
        capture.write_all(frame).unwrap();
    }
    let path = file.path().to_str().unwrap();
    let report = json(&["-f", EXAMPLE, "--pcap", path]);
    check(&report);
    let packets = &report["packets"];
    assert_eq!(packets["source"], "capture");
    assert_eq!(packets["flows"], 3);
    assert!(
        (number(&packets["dropped"]) - 1.0 / 3.0).abs() < 0.01,
        "{packets}"
    );
}

#[test]
fn people_get_a_table_and_nothing_is_left() {
    if !require::root_and_bpf() {
        return;
    }
    let text = done(&bench(&["-f", EXAMPLE, "--flows", "1000"]).output().unwrap());
    for part in [
        "NS A PACKET",
        "warm  ",
        "random  ",
        "1,000 random",
        "swap",
        " ms",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // It was in a namespace that nobody else sees.
    assert!(!fs::exists("/sys/class/net/nwbench0").unwrap());
}

/// In a network namespace that ends with the thread.
#[test]
fn live_frames_arrive_and_are_counted() {
    if !require::root_and_bpf() {
        return;
    }
    let live = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status().unwrap();
            assert!(status.success(), "{program} {arguments:?}");
        };
        let pair = [
            "link", "add", "sender", "type", "veth", "peer", "name", "receiver",
        ];
        run("ip", &pair);
        run("ip", &["link", "set", "sender", "up"]);
        run("ip", &["link", "set", "receiver", "up"]);

        let deny = Match {
            protocol: Some(17),
            ..Match::default()
        };
        let ruleset = Ruleset {
            endpoint: "receiver".to_owned(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules: vec![Rule {
                id: RuleId {
                    stage: Stage::Normal,
                    policy: "p".into(),
                    direction: Direction::Ingress,
                    index: Some(0),
                },
                tier: None,
                action: Action::Deny,
                staged: false,
                matches: vec![deny],
                source: None,
            }],
            default: Action::Allow,
            options: Options::default(),
        };
        let image = Image::compile(&ruleset, 1 << 20).unwrap();
        let mut bench = TestBench::load(&ruleset, &image).unwrap();
        let flows = (0..100_u8).map(|index| Flow {
            src: [10, 0, 0, index].into(),
            dst: [192, 0, 2, 1].into(),
            proto: if index % 4 == 0 { 6 } else { 17 },
            sport: 1,
            dport: 2,
        });
        let mut corpus = corpus_of_flows(flows, 100, false).unwrap();
        let link = corpus.attach(bench.target().unwrap(), "receiver").unwrap();
        let denied = |bench: &TestBench| bench.stats().unwrap().of_rules[0];
        for round in 1..=3 {
            // Few at a time: a pair holds 256 where the receiver has to wait.
            corpus.send("sender", 200).unwrap();
            let mut patience = 500;
            while denied(&bench).packets < round * 150 && patience > 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                patience -= 1;
            }
            assert_eq!(denied(&bench).packets, round * 150);
            assert_eq!(denied(&bench).bytes, round * 150 * 60);
        }
        drop(link);
        assert!(corpus.send("none", 1).is_err());
        assert!(corpus.attach(bench.target().unwrap(), "none").is_err());
    };
    std::thread::spawn(live).join().unwrap();
}

#[test]
fn what_may_not_be_measured_is_refused() {
    if !require::root_and_bpf() {
        return;
    }
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(bench(&[]).get_program())
        .args(["bench", "-f", EXAMPLE, "--interface", "eth0"])
        .args(["--label", "ibm.role=worker_public"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // 126: this user can't even reach the program.
    assert!(
        matches!(output.status.code(), Some(4 | 126 | 127)),
        "{said}"
    );
}
