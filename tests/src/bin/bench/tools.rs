//! Programs of the system.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Runs a command; what it prints, or what it says is wrong.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    // Documents say what was run, not where it lies.
    let names: Vec<&str> = words
        .iter()
        .map(|word| word.rsplit('/').next().unwrap_or(word))
        .collect();
    names.join(" ")
}

/// The same, with this text on its standard input.
pub(crate) fn feed(command: &mut Command, text: &str) -> Result<String> {
    use std::io::Write as _;

    let program = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut input = child.stdin.take().context("a child without input")?;
    // It may say why it stops to read.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{program} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `2026-11-23`, UTC.
pub(crate) fn today() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?
        .trim()
        .to_owned())
}

/// What the peers say of themselves; those that are missing are null.
pub(crate) fn versions() -> Value {
    let first_line = |program: &str, argument: &str| {
        let text = output(Command::new(program).arg(argument)).ok()?;
        Some(text.lines().next()?.trim().to_owned())
    };
    let package = |name: &str| {
        let text = output(Command::new("dpkg-query").args(["-W", "-f=${Version}", name])).ok()?;
        Some(text.trim().to_owned())
    };
    json!({
        "nft": first_line("nft", "--version"),
        "iptables": first_line("iptables", "--version"),
        "ipset": first_line("ipset", "--version"),
        "xdp-filter (libxdp1)": package("libxdp1"),
        "tor-geoipdb": package("tor-geoipdb"),
    })
}

/// Time that the kernel's own threads have spent on what was left to them, in
/// ns.
pub(crate) fn softirq_ns() -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|process| process.path())
        .filter(|path| {
            let name = fs::read_to_string(path.join("comm"));
            name.is_ok_and(|name| name.starts_with("ksoftirqd/"))
        })
        .filter_map(|path| {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}
