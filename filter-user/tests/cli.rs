//! The command line: what it prints and its exit codes, without privileges.
//!
//! Rewrite the expectations with `TRYCMD=overwrite cargo test -p filter-user
//! --test cli`, then read every change.

#[path = "cli/captures.rs"]
mod captures;

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};

const EXAMPLE: [&str; 7] = [
    "-f",
    "../examples/deny-kube-node-port-services.yaml",
    "--interface",
    "eth0",
    "--label",
    "ibm.role=worker_public",
    "--color=never",
];

fn nodewall(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewall"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("NODEWALL_PIN_ROOT");
    command
}

/// Where a file has `...`, `apply` may warn of connections that this machine has just now.
#[test]
fn cli() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("tests/cli/*.trycmd");
}

/// The committed captures are those that `captures.rs` describes.
#[test]
fn captures_are_what_they_are_said_to_be() {
    let overwrite = std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite");
    for (name, bytes) in captures::all() {
        let path = format!("tests/cli/{name}");
        if overwrite {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{path} is another");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let capture = ["--pcap", "tests/cli/evasion.pcap", "--engine", "host"];
    for arguments in [
        vec!["--help"],
        vec!["completions", "zsh"],
        [&["validate", "-v"], &EXAMPLE[..]].concat(),
        [&["apply", "--dry-run"], &EXAMPLE[..]].concat(),
        [&["replay"], &EXAMPLE[..], &capture].concat(),
        [&["replay", "-o", "jsonl"], &EXAMPLE[..], &capture].concat(),
        [
            &["explain"],
            &EXAMPLE[..],
            &["tcp 203.0.113.7:1 > 192.0.2.10:80"],
        ]
        .concat(),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = nodewall(&arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// What can't be said doesn't change the exit code.
#[test]
fn messages_that_nobody_reads_are_no_error() {
    for (arguments, code) in [
        (vec!["validate", "-f", "tests/cli/bad.yaml"], 1),
        (vec!["status", "--pin-root", "relative"], 1),
        (vec!["stats", "--pin-root", "/no-such-folder/nodewall"], 3),
        (
            [
                &["replay"],
                &EXAMPLE[..],
                &["--pcap", "tests/cli/evasion.pcap", "--engine", "host"],
            ]
            .concat(),
            0,
        ),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = nodewall(&arguments)
            .stdout(Stdio::null())
            .stderr(writer)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// Output that can't be stored is an error.
#[test]
fn a_full_disk_is_an_error() {
    let full = File::create("/dev/full").unwrap();
    let output = nodewall(&[&["validate"], &EXAMPLE[..]].concat())
        .stdout(full)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the output"), "{said}");
}

/// Constant memory: a verdict is there before the capture has ended.
#[test]
fn replay_streams() {
    let capture = fs::read("tests/cli/evasion.pcap").unwrap();
    let (input, mut feed) = std::io::pipe().unwrap();
    let mut child = nodewall(
        &[
            &["replay"],
            &EXAMPLE[..],
            &["--pcap", "-", "--engine", "host", "-o", "jsonl"],
        ]
        .concat(),
    )
    .stdin(input)
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut out = child.stdout.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        feed.write_all(&capture[..24]).unwrap();
        // More than any buffer on the way holds.
        for _ in 0..2_000 {
            feed.write_all(&capture[24..]).unwrap();
        }
        feed
    });
    let mut first = [0; 13];
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{\"packet\":1,\"");
    let mut rest = String::new();
    let reader = std::thread::spawn(move || out.read_to_string(&mut rest).map(|_| rest));
    drop(writer.join().unwrap());
    let rest = reader.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(rest.lines().count(), 2_000 * captures::evasion().len());
}
