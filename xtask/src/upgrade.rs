//! An earlier commit's build on a node, and this one after it: builds both, and lets the bin
//! `upgrade` of the tests crate do the work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::note;
use crate::{build, run, setup};

/// Nothing was released yet: the last commit whose BPF programs and folders of pins are
/// others than today's.
const EARLIER: &str = "0d118e0";

/// `cargo xtask upgrade`.
#[derive(Args)]
pub(crate) struct Options {
    /// The earlier build: a commit or a tag
    #[arg(long, value_name = "REV", default_value = EARLIER)]
    from: String,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "both builds load BPF programs and attach them, which needs root. Run `sudo -E cargo \
             xtask upgrade`"
        );
    }
    setup::for_lab()?;
    let commit = commit(place, &options.from)?;
    let folder = place.target.join("upgrade").join(&commit);
    let sources = folder.join("sources");
    unpack(place, &commit, &sources)?;
    note(&format!("the older build is of commit {commit}"));
    let older = built(place, &sources, &folder.join("built"))?;
    let [newer, upgrade] = build::tester(place, "upgrade", false)?;
    run::status(
        Command::new(upgrade)
            .args([older, newer.clone()])
            .env("NODEWALL_BIN", newer),
    )
}

/// Builds a commit as it builds itself, with the tools that are here already.
fn built(place: &Place, sources: &Path, target: &Path) -> Result<PathBuf> {
    setup::for_build(place)?;
    fs::create_dir_all(target)?;
    let tools = target.join("tools");
    if !tools.exists() {
        symlink(&place.tools, &tools)?;
    }
    let there = place.at(sources.to_owned(), target.to_owned());
    run::status(there.cargo().args(["xtask", "build"]))?;
    Ok(target.join("debug/nodewall"))
}

fn git(place: &Place) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(&place.root);
    git
}

/// The whole name of a commit.
fn commit(place: &Place, revision: &str) -> Result<String> {
    let mut asked = git(place);
    asked.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
    asked.arg(format!("{revision}^{{commit}}"));
    let commit = run::output(&mut asked).with_context(|| {
        format!(
            "there is no commit {revision} here; a shallow clone has few: `git fetch --unshallow`"
        )
    })?;
    Ok(commit.trim().to_owned())
}

/// The files of a commit, once.
fn unpack(place: &Place, commit: &str, sources: &Path) -> Result<()> {
    if sources.exists() {
        return Ok(());
    }
    let half: PathBuf = sources.with_extension("half");
    let _ = fs::remove_dir_all(&half);
    fs::create_dir_all(&half)?;
    let packed = half.with_extension("tar");
    let mut archive = git(place);
    archive.args(["archive", "--format=tar", "--output"]);
    run::status(archive.arg(&packed).arg(commit))?;
    let mut tar = Command::new("tar");
    run::status(tar.arg("-xf").arg(&packed).arg("-C").arg(&half))?;
    fs::remove_file(&packed)?;
    fs::rename(&half, sources).with_context(|| format!("cannot make {}", sources.display()))
}
