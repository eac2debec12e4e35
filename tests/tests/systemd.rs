//! The unit of `deploy/systemd`, under a real systemd: one that `systemd-nspawn` starts on a
//! copy of this machine, with the network of the lab's node. What it restricts, it restricts
//! here as well.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::lab::{Lab, Side, program};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
/// What `systemd-analyze security` may come to; lower is better.
const CEILING: f64 = 2.3;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/nodewall.service")
}

fn text(output: &Output) -> String {
    let all = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// The unit as it would be with the binary where it is: it must exist to be verified.
fn analysed(verb: &[&str], unit: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodewall.service");
    let here = program().canonicalize().unwrap();
    let unit = unit.replace("/usr/sbin/nodewall", here.to_str().unwrap());
    fs::write(&file, unit).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    let output = analyze.args(verb).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[test]
fn systemd_has_nothing_to_say_of_the_unit() {
    // Before 253 it doesn't know the type that is named behind `notify`.
    let said = analysed(
        &["verify", "--man=no"],
        &fs::read_to_string(unit()).unwrap(),
    );
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.ends_with("Failed to parse service type, ignoring: notify-reload"))
        .collect();
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn the_unit_is_restricted_as_far_as_it_says() {
    let level = |unit: &str| -> f64 {
        let said = analysed(&["security", "--offline=true", "--no-pager"], unit);
        let level = said
            .split("Overall exposure level for nodewall.service: ")
            .nth(1);
        level
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|level| level.parse().ok())
            .unwrap_or_else(|| panic!("no level in {said}"))
    };
    let whole = fs::read_to_string(unit()).unwrap();
    let restricted = level(&whole);
    assert!(
        restricted <= CEILING,
        "{restricted}, and {CEILING} is the ceiling"
    );
    // Without what restricts it, it is above.
    let bare: Vec<&str> = whole
        .lines()
        .filter(|line| {
            ![
                "Protect",
                "Restrict",
                "Private",
                "Capability",
                "SystemCall",
                "NoNew",
            ]
            .iter()
            .any(|with| line.starts_with(with))
        })
        .collect();
    let bare = level(&bare.join("\n"));
    assert!(bare > CEILING + 1.0, "{bare}");
}

/// A copy of this machine that is gone with the test, and a BPF file system of its own.
struct Machine {
    folder: tempfile::TempDir,
    lab: Lab,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            lab: Lab::new().unwrap(),
        };
        let at = |name| machine.at(name);
        mount("tmpfs", "tmpfs", machine.folder.path(), "mode=0755");
        for name in ["upper", "work", "root", "bpf"] {
            fs::create_dir(at(name)).unwrap();
        }
        mount("bpf", "bpf", &at("bpf"), "mode=0700");
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            at("upper").display(),
            at("work").display()
        );
        mount("overlay", "overlay", &at("root"), &layers);
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.at("root").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Starts a systemd whose only purpose is this script; returns what that printed.
    fn boot(&self, script: &str) -> String {
        self.write("probe.sh", &format!("exec >/probe.out 2>&1\n{script}"));
        self.write(
            "etc/systemd/system/probe.service",
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n\
             ExecStart=/bin/bash /probe.sh\n\
             ExecStopPost=/bin/systemctl --force --force poweroff\n",
        );
        let _ = fs::remove_file(self.at("root").join("etc/machine-id"));
        let nspawn = Command::new("timeout")
            .args([
                "--kill-after=5",
                "60",
                "systemd-nspawn",
                "--quiet",
                "--boot",
            ])
            .args([
                "--register=no",
                "--keep-unit",
                "--console=pipe",
                "--link-journal=no",
            ])
            .arg(format!("--machine=nodewall-test-{}", std::process::id()))
            .arg(format!("--directory={}", self.at("root").display()))
            .arg(format!("--bind={}:/sys/fs/bpf", self.at("bpf").display()))
            .arg(format!(
                "--network-namespace-path=/run/netns/{}",
                self.lab.names()[1]
            ))
            .args([
                "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN",
                "--system-call-filter=bpf",
            ])
            .arg("systemd.unit=probe.service")
            .output()
            .unwrap();
        fs::read_to_string(self.at("root").join("probe.out"))
            .unwrap_or_else(|_| panic!("the script did not run: {}", text(&nspawn)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for path in [
            self.at("root"),
            self.at("bpf"),
            self.folder.path().to_owned(),
        ] {
            // What was never mounted, and what is on top of others, first.
            let _ = Command::new("umount").arg("--lazy").arg(path).output();
        }
    }
}

fn mount(kind: &str, what: &str, at: &Path, options: &str) {
    let mut mount = Command::new("mount");
    let output = mount
        .args(["-t", kind, "-o", options, what])
        .arg(at)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// What stands behind the headline `== name`.
fn section<'t>(said: &'t str, name: &str) -> &'t str {
    let after = said.split(&format!("== {name}\n")).nth(1);
    let after = after.unwrap_or_else(|| panic!("no {name} in:\n{said}"));
    after.split("\n==").next().unwrap().trim()
}

#[test]
fn the_service_filters_reloads_restarts_and_leaves_the_filter() {
    if !require::root_and_bpf() {
        return;
    }
    let machine = Machine::new();
    fs::copy(program(), machine.at("root").join("usr/sbin/nodewall")).unwrap();
    let unit = fs::read_to_string(unit()).unwrap();
    machine.write("etc/systemd/system/nodewall.service", &unit);
    machine.write(
        "etc/systemd/system/nodewall.service.d/log.conf",
        "[Service]\nStandardError=append:/nodewall.log\nWatchdogSec=2\n",
    );
    machine.write(
        "etc/nodewall/nodewall.yaml",
        &format!("interface: [{INTERFACE}]\n"),
    );
    machine.write(
        "etc/nodewall/policies.d/one.yaml",
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: one}\n\
         spec:\n  ingress:\n  - {action: Deny, protocol: UDP, destination: {ports: [9001]}}\n",
    );
    let said = machine.boot(include_str!("systemd/service.sh"));

    let started = section(&said, "started");
    assert!(started.starts_with("active\nfiltering\n"), "{said}");
    assert!(
        started.contains("native    1") && started.ends_with("stats"),
        "{said}"
    );
    // CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, and nothing that could be had.
    let capabilities = section(&said, "capabilities");
    for line in [
        "CapInh:\t0000000000000000",
        "CapBnd:\t000000c000001000",
        // The thread that serves.
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(
            capabilities.contains(line),
            "{line} is not in {capabilities}"
        );
    }
    assert_eq!(
        section(&said, "threads"),
        "CapPrm:\t0000000000000000\nCapPrm:\t000000c000001000",
        "{said}"
    );
    let sandbox = section(&said, "sandbox");
    assert_eq!(
        sandbox.matches("Read-only file system").count(),
        3,
        "{sandbox}"
    );
    assert!(!sandbox.contains(".bash"), "{sandbox}");
    assert!(sandbox.ends_with("bpffs is writable"), "{sandbox}");
    assert!(section(&said, "changed").contains("native    2"), "{said}");
    assert!(section(&said, "applied").ends_with("code 0"), "{said}");
    // What another command applied is not what the files say.
    let restarted = section(&said, "restarted");
    assert!(
        restarted.starts_with("active") && restarted.contains("native    4"),
        "{said}"
    );
    assert_eq!(section(&said, "stopped"), "inactive\nfilters on", "{said}");
    assert_eq!(
        section(&said, "hung"),
        "active\nanother process\nfilters on",
        "{said}"
    );
}
