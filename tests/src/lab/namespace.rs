//! One network namespace, by `ip netns`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{panic, thread};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

const FOLDER: &str = "/run/netns";
/// `nw-<pid>-<counter>-<role>`
const PREFIX: &str = "nw-";
/// The roles that a lab's machines have.
const ROLES: [&str; 5] = ["client", "node", "router", "far", "pod"];
/// Their interfaces: each is one end of a pair.
const INTERFACES: [&str; 4] = ["client0", "node0", "far0", "pod0"];

/// A network namespace that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn new(role: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // The first `ip netns add` of a machine mounts /run/netns; two at the
        // same time trip over each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{counter}-{role}", process::id());
        let _one = ONE_AT_A_TIME.lock();
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    pub(super) fn open(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Runs `action` in a thread that is in this namespace.
    pub(super) fn run_in<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = self.open()?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)
                    .context("cannot enter the network namespace")?;
                Ok(action())
            });
            match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => panic::resume_unwind(panic),
            }
        })
    }

    /// A command that runs in this namespace.
    ///
    /// Not by `ip netns exec`, which mounts a /sys without bpffs over the
    /// real one.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!(
                "cannot remove the network namespace {}: {error:#}",
                self.name
            );
        }
    }
}

/// Removes a namespace, its veth pairs first: a namespace goes away only when
/// the last socket in it does, and the interfaces with it.
fn remove(name: &str) -> Result<()> {
    for interface in INTERFACES {
        // One of them, or none where the lab was half made, is here.
        ip(&["-n", name, "link", "delete", interface]).ok();
    }
    ip(&["netns", "delete", name]).map(drop)
}

/// Removes the namespaces whose process is dead.
pub(super) fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return Ok(swept);
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if maker(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name)?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// The process that made the namespace of this name, if a lab made it.
fn maker(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let _: u32 = parts.next()?.parse().ok()?;
    ROLES.contains(&parts.next()?).then_some(pid)
}

/// Runs `ip`.
pub(super) fn ip(arguments: &[&str]) -> Result<String> {
    run(Command::new("ip").args(arguments))
}

/// Runs `command` and returns what it prints.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    use std::os::unix::process::CommandExt as _;
    // A process group of its own: Ctrl-C must not cut the clean-up short.
    let output = command
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_labs_own_namespaces_have_a_maker() {
        assert_eq!(maker("nw-12-0-node"), Some(12));
        for name in [
            "nw-12",
            "nw-x-0-node",
            "nw-12-0-other",
            "node",
            "cni-12-0-node",
        ] {
            assert_eq!(maker(name), None, "{name}");
        }
    }
}
