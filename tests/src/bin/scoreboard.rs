//! Sends the scoreboard's packets to every filter and writes the document.
//! `cargo xtask scoreboard` builds and runs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use nix::sys::utsname::uname;
use tests::scoreboard::{Column, Hook, Mark, Peer, cases, control, document, run};

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scoreboard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<()> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("usage: scoreboard FILE")?;
    let cases = cases();
    for hook in Hook::ALL {
        control(hook, &cases)?;
    }
    eprintln!("scoreboard: without a filter all passes, and with a closed one nothing");
    let mut columns = Vec::new();
    for peer in Peer::ALL {
        let outcomes = run(peer, &cases)?;
        let marks = outcomes.iter().zip(&cases);
        let right = marks.filter(|(outcome, case)| outcome.mark(case.must_pass()) == Mark::Right);
        eprintln!("scoreboard: {}: {} right", peer.name(), right.count());
        columns.push(Column {
            peer,
            version: version(peer)?,
            outcomes,
        });
    }
    let kernel = uname()?;
    let text = document(&kernel.release().to_string_lossy(), &columns);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("scoreboard: wrote {}", file.display());
    Ok(())
}

/// Of the package, or our own.
fn version(peer: Peer) -> Result<String> {
    let package = match peer {
        Peer::XdpFilter => "xdp-tools",
        Peer::NftIngress | Peer::NftHardened | Peer::NftPrerouting => "nftables",
        Peer::Iptables => "iptables",
        Peer::Nodewall | Peer::Nothing(_) | Peer::Everything(_) => {
            return Ok(env!("CARGO_PKG_VERSION").to_owned());
        }
    };
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Version}", package])
        .output()
        .context("cannot run dpkg-query")?;
    if !output.status.success() {
        bail!("{package} is no package of Debian's here");
    }
    Ok(format!("{package} {}", String::from_utf8(output.stdout)?))
}
