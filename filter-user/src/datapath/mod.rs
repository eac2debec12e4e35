//! The kernel side of the loader: every aya call is below this module.
//!
//! The kernel is the database: what filters is what is pinned.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::compile::Image;
use crate::decision::Decision;
use crate::ruleset::{Rule, RuleId, Ruleset};
use filter_common::verdict::Reason;

/// Where links and maps are pinned unless told otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/nodewall";

/// What went wrong, and what to do. `Display` is one paragraph for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do this (exit code 4).
    #[error("{0}")]
    Privileges(String),
    /// No such attachment (exit code 3 in `status`).
    #[error("{0}")]
    NotAttached(String),
    /// Anything else (exit code 1).
    #[error("{0}")]
    Failed(String),
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver has it, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, behind the driver. Slower.
    Generic,
}

/// What `apply` did to an interface.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The mode in force: `Native` or `Generic`.
    pub mode: Mode,
    /// The generation now in force, from 1.
    pub generation: u64,
    /// The rules that were in force before; `None` where nothing was attached.
    pub before: Option<Vec<Rule>>,
}

/// Packets and bytes (frame length without FCS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The exact totals of one interface since it was first attached.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The interface.
    pub interface: String,
    /// The rules in force, in order, each with its total.
    pub rules: Vec<(Rule, Count)>,
    /// Rules no longer in force: their totals, summed per reason, are part of
    /// `reasons` alone.
    pub reasons: Vec<(Reason, Count)>,
}

/// What is in force on one interface.
#[derive(Clone, Debug)]
pub struct Status {
    /// The interface's present name.
    pub interface: String,
    /// `Native` or `Generic`; `None` where the link is pinned but its device is gone.
    pub mode: Option<Mode>,
    /// The generation in force.
    pub generation: u64,
    /// The kernel's id of the program in force.
    pub program_id: u32,
    /// When this generation was swapped in.
    pub since: SystemTime,
    /// The ruleset in force.
    pub ruleset: Ruleset,
    /// Bytes of its maps, as the kernel accounts them.
    pub memory: u64,
    /// Totals.
    pub stats: Stats,
}

/// The pinned state, opened for reading or changing.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
}

impl Datapath {
    /// Opens the pinned state at `root`; mounts bpffs where that is missing
    /// and allowed.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Loads `image`, swaps it in atomically and pins it. On an error nothing
    /// is changed.
    pub fn apply(
        &self,
        interface: &str,
        mode: Mode,
        ruleset: &Ruleset,
        image: &Image,
    ) -> Result<Applied, Error> {
        let _ = (&self.root, interface, mode, ruleset, image);
        Err(Error::Failed("not there yet".into()))
    }

    /// What is in force, per interface, by name. Empty where nothing is.
    pub fn status(&self) -> Result<Vec<Status>, Error> {
        Ok(vec![])
    }

    /// The totals, per interface, by name; of `interface` alone if named.
    pub fn stats(&self, interface: Option<&str>) -> Result<Vec<Stats>, Error> {
        let _ = interface;
        Ok(vec![])
    }

    /// Takes the filter off `interface`.
    pub fn detach(&self, interface: &str) -> Result<(), Error> {
        let _ = interface;
        Ok(())
    }
}

/// A loaded program that is attached to nothing: decides single frames
/// through `BPF_PROG_TEST_RUN`.
#[derive(Debug)]
pub struct TestBench {}

impl TestBench {
    /// Loads the program with this image.
    pub fn load(_ruleset: &Ruleset, _image: &Image) -> Result<Self, Error> {
        Err(Error::Failed("not there yet".into()))
    }

    /// Runs the program on one frame of at least 14 bytes.
    pub fn run(&mut self, _frame: &[u8]) -> Result<Decision, Error> {
        Err(Error::Failed("not there yet".into()))
    }

    /// The program's totals so far.
    pub fn stats(&self) -> Result<(Vec<(RuleId, Count)>, Vec<(Reason, Count)>), Error> {
        Ok((vec![], vec![]))
    }
}
