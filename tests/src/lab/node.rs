//! A lab whose node runs nodewall: the command, and what it leaves behind.

use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use super::{Lab, Side};

/// A lab whose node runs nodewall, with a pin folder and a folder for files of its
/// own, which are gone when it is.
#[derive(Debug)]
pub struct Node {
    lab: Lab,
    pins: PathBuf,
    files: TempDir,
    program: PathBuf,
}

#[expect(
    clippy::must_use_candidate,
    reason = "what nodewall does may be all that a test wants of it"
)]
impl Node {
    /// Makes the lab. Needs root.
    pub fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pins = format!("/sys/fs/bpf/nodewall-test-{}-{counter}", process::id());
        Ok(Self {
            lab: Lab::new()?,
            pins: pins.into(),
            files: TempDir::new()?,
            program: program(),
        })
    }

    /// From now on this is its nodewall, and not [`program`].
    pub fn install(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// The machines.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Where nodewall pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// A folder for the files of a test.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The command `nodewall` with these arguments, on the node.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], &self.pins, arguments)
    }

    /// The same under another command, which restricts it, and with another pin
    /// folder.
    #[must_use]
    pub fn command_under(&self, restriction: &[&str], pins: &Path, arguments: &[&str]) -> Command {
        let mut command = self.lab.command(Side::Node, "env");
        command
            .args(restriction)
            .arg(&self.program)
            .args(arguments)
            .env("NODEWALL_PIN_ROOT", pins)
            .env("NODEWALL_RUN_DIR", self.files().join("run"))
            .env("NODEWALL_STATE_DIR", self.files().join("state"))
            .env_remove("NODEWALL_CONFIG")
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

    /// Runs `nodewall`, which must exit with `code`; returns its stderr.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(
            output.status.code(),
            Some(code),
            "nodewall {arguments:?}: {stderr}"
        );
        stderr
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

    /// Packets of the rule at `index` of a policy.
    ///
    /// # Panics
    ///
    /// Where there is no such rule in force.
    #[must_use]
    pub fn rule(&self, policy: &str, index: u64) -> u64 {
        let stats = self.json(&["stats"]);
        let rules = stats["interfaces"][0]["rules"].as_array();
        let rule = rules
            .and_then(|rules| {
                let mut rules = rules.iter();
                rules.find(|rule| rule["policy"] == policy && rule["rule"] == index)
            })
            .unwrap_or_else(|| panic!("no rule {index} of {policy} in {stats}"));
        rule["packets"].as_u64().expect("a number of packets")
    }

    /// All packets that were `dropped`, or `passed`.
    ///
    /// # Panics
    ///
    /// Where nothing is in force.
    #[must_use]
    pub fn total(&self, verdict: &str) -> u64 {
        let status = self.json(&["status"]);
        let total = &status["interfaces"][0][verdict]["packets"];
        total.as_u64().expect("a number of packets")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not there where nothing was applied.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// `nodewall`, as `NODEWALL_BIN` names it or else beside the test.
#[must_use]
pub fn program() -> PathBuf {
    env::var_os("NODEWALL_BIN").map_or_else(
        || {
            let test = env::current_exe().unwrap_or_default();
            let folder = test.parent().and_then(Path::parent);
            folder.unwrap_or(Path::new("")).join("nodewall")
        },
        PathBuf::from,
    )
}
