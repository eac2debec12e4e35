//! The site's node, with nodewall on it.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use serde_json::Value;

use super::super::node::program;
use super::{Machine, Offload, Site};

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

impl Drop for Worker {
    fn drop(&mut self) {
        // Not there where nothing was applied.
        let _ = fs::remove_dir_all(&self.pins);
    }
}
