//! `nodewall replay`: whoever decides, each packet of a capture gets the same answer.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use serde_json::Value;
use tests::lab::program;
use tests::packet::{Ethernet, Ipv4, Ipv6, Udp};
use tests::{edge, require};

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: probe}
spec:
  ingress:
  - {action: Deny, protocol: UDP, destination: {ports: ['30000:32767']}}
  - {action: Deny, protocol: TCP, destination: {ports: [80]}}
  - {action: Allow}
  egress:
  - {action: Deny, protocol: UDP, destination: {ports: ['30000:32767']}}
  - {action: Allow}
";

/// As long as a NIC with jumbo frames receives, and as what a kernel or a NIC has put together
/// of many packets before somebody captured it; the lengths about a page's end between them.
fn long() -> Vec<Vec<u8>> {
    let of = |port, length| {
        let data = vec![0; length];
        let packet = Udp {
            data,
            ..Udp::to(port)
        };
        [
            Ethernet::default().carry(&Ipv4::default().carry(&packet)),
            Ethernet::default().carry(&Ipv6::default().carry(&packet)),
        ]
    };
    let lengths = (3_300..4_200).step_by(60).chain([8_950, 16_000, 65_400]);
    lengths
        .flat_map(|length| [of(30_080, length), of(53, length)])
        .flatten()
        .collect()
}

fn write(path: &Path, frames: &[Vec<u8>]) {
    let header = PcapHeader {
        snaplen: 1 << 18,
        ..PcapHeader::default()
    };
    let mut capture = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for frame in frames {
        let length = frame.len().try_into().unwrap();
        let packet = PcapPacket::new(Duration::ZERO, length, frame);
        capture.write_packet(&packet).unwrap();
    }
}

fn replay(folder: &Path, direction: &str, engine: &str) -> Output {
    let output = Command::new(program())
        .args(["replay", "--interface", "eth0", "-o", "jsonl"])
        .args(["--direction", direction, "--engine", engine])
        .arg("-f")
        .arg(folder.join("policy.yaml"))
        .arg("--pcap")
        .arg(folder.join("all.pcap"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{direction}, {engine}: {stderr}");
    output
}

#[test]
fn whoever_decides_the_answers_are_the_same() {
    if !require::root_and_bpf() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let mut frames: Vec<_> = edge::rows().into_iter().map(|row| row.frame).collect();
    let odd = frames.len();
    frames.extend(long());
    write(&folder.path().join("all.pcap"), &frames);

    for direction in ["ingress", "egress"] {
        let [kernel, host, reference] =
            ["kernel", "host", "reference"].map(|engine| replay(folder.path(), direction, engine));
        let lines = |output: &Output| -> Vec<Value> {
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            let lines = text.lines();
            lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let right = lines(&reference);
        assert_eq!(right.len(), frames.len());
        for (number, right) in right[odd..].iter().enumerate() {
            let verdict = if number % 4 < 2 { "drop" } else { "pass" };
            assert_eq!(right["verdict"], verdict, "{direction}: {right}");
        }
        for other in [&kernel, &host] {
            for (other, right) in lines(other).iter().zip(&right) {
                assert_eq!(other, right, "{direction}");
            }
            assert_eq!(lines(other).len(), right.len());
        }
        // Who was asked in the kernel's place is told.
        let told = |output: &Output| {
            String::from_utf8_lossy(&output.stderr).contains("the classifier on the host decided")
        };
        assert!(told(&kernel), "{direction}");
        assert!(!told(&host) && !told(&reference), "{direction}");
    }
}
