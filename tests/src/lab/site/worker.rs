//! The site's node, with nodewall on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::program;
use super::{Machine, Offload, Site};

/// What the node is closed but for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    /// All that the provider's default policies open.
    Provider,
    /// What goes out: of the provider's policies, that alone.
    Outbound,
}

/// A site whose node runs nodewall, with a pin folder of its own, which is gone
/// when this is.
#[derive(Debug)]
pub struct Worker {
    site: Site,
    pins: PathBuf,
}

#[expect(
    clippy::must_use_candidate,
    reason = "what nodewall does may be all that a test wants of it"
)]
impl Worker {
    /// Makes the site. Needs root.
    pub fn new(offload: Offload) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pins = format!("/sys/fs/bpf/nodewall-site-{}-{counter}", process::id());
        Ok(Self {
            site: Site::new(offload)?,
            pins: pins.into(),
        })
    }

    /// The machines.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// Puts the example of a worker node in force, as it says that it is to be done,
    /// and beside it these policies.
    ///
    /// # Panics
    ///
    /// Where that fails.
    pub fn close(&self, policies: Policies, more: &[(&str, &str)]) -> String {
        let folder = self.site.files().join(format!("{policies:?}"));
        write_example(&folder, policies, more).expect("the example is there");
        self.done(&[
            "apply",
            "-f",
            folder.to_str().expect("UTF-8"),
            "--node",
            NODE,
            "--failsafe-inbound",
            "udp:68,udp:546",
            "--fragments",
            "track",
        ])
    }

    /// How many processes of nodewall's there are for this node. There is no daemon.
    pub fn processes(&self) -> usize {
        let Ok(entries) = fs::read_dir("/proc") else {
            return 0;
        };
        let pins = self.pins.to_string_lossy();
        let environments = entries
            .flatten()
            .filter(|entry| {
                fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "nodewall\n")
            })
            .filter_map(|entry| fs::read(entry.path().join("environ")).ok());
        environments
            .filter(|environment| String::from_utf8_lossy(environment).contains(&*pins))
            .count()
    }

    /// The command `nodewall` with these arguments, on the node.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.site.command(Machine::Node, program());
        command
            .args(arguments)
            .env("NODEWALL_PIN_ROOT", &self.pins)
            .env_remove("NODEWALL_INTERFACE");
        command
    }

    /// Runs `nodewall`.
    ///
    /// # Panics
    ///
    /// Where there is no such program.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("nodewall runs")
    }

    /// Runs `nodewall`, which must succeed; returns its stdout.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nodewall {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs `nodewall` with JSON as its output, which must succeed.
    ///
    /// # Panics
    ///
    /// Where it fails, or that is no JSON.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The node that the example is about.
const NODE: &str = "worker-1";

/// Writes the example's policies, for the site's interface, into a folder.
fn write_example(folder: &Path, policies: Policies, more: &[(&str, &str)]) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/worker-node");
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(&example)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let outbound = ["host-endpoint.yaml", "allow-all-outbound.yaml"];
        if policies == Policies::Outbound && !outbound.iter().any(|file| name == *file) {
            continue;
        }
        let text: String = fs::read_to_string(&path)?
            .lines()
            .map(|line| match line.trim_start().split_once(": ") {
                Some(("interfaceName", _)) => "  interfaceName: node0\n".to_owned(),
                Some(("node", _)) => format!("  node: {NODE}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        fs::write(folder.join(name), text)?;
    }
    for (name, text) in more {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Not there where nothing was applied.
        let _ = fs::remove_dir_all(&self.pins);
    }
}
