//! Where things are: the workspace, cargo, its target folder.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;

/// The workspace this program was built from, and the tools that built it.
pub(crate) struct Place {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// The workspace's target folder.
    pub(crate) target: PathBuf,
    /// Where the tools are that are missing on this machine.
    pub(crate) tools: PathBuf,
    /// The folder of the Rust toolchain in use.
    pub(crate) sysroot: PathBuf,
    cargo: OsString,
}

impl Place {
    pub(crate) fn find() -> Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask is a folder of the workspace")?
            .to_owned();
        // Cargo's configuration may name another target folder than ours.
        let metadata = run::output(
            Command::new(&cargo)
                .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
                .current_dir(&root),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("`cargo metadata` printed no JSON")?;
        let target: PathBuf = metadata["target_directory"]
            .as_str()
            .context("`cargo metadata` names no target_directory")?
            .into();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = run::output(
            Command::new(rustc)
                .args(["--print", "sysroot"])
                .current_dir(&root),
        )?
        .trim()
        .into();
        Ok(Self {
            root,
            tools: target.join("tools"),
            target,
            sysroot,
            cargo,
        })
    }

    /// The same tools, for another workspace and target folder.
    pub(crate) fn at(&self, root: PathBuf, target: PathBuf) -> Self {
        Self {
            root,
            target,
            sysroot: self.sysroot.clone(),
            cargo: self.cargo.clone(),
            tools: self.tools.clone(),
        }
    }

    /// Cargo, in the workspace, building into the same target folder.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        cargo
    }
}
