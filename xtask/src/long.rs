//! The runs that take longer than CI has: programs of the tests crate, built optimised.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::note;
use crate::{build, run, setup};

/// `cargo xtask prove`.
#[derive(Args)]
pub(crate) struct Prove {
    /// Packets that the kernel decides
    #[arg(long, value_name = "N", default_value = "1e9", value_parser = number)]
    cases: u64,
    /// Where random numbers begin; one that no run had, unless told
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Stop after so many minutes, whatever was done
    #[arg(long, value_name = "MINUTES")]
    time: Option<u64>,
}

/// `cargo xtask soak`.
#[derive(Args)]
pub(crate) struct Soak {
    /// Policy changes
    #[arg(long, value_name = "N", default_value = "10000", value_parser = number)]
    changes: u64,
    /// Packets at least
    #[arg(long, value_name = "N", default_value = "1e8", value_parser = number)]
    packets: u64,
}

/// `cargo xtask mutate`.
#[derive(Args)]
pub(crate) struct Mutate {
    /// The package whose sources are changed; its own tests alone are run
    #[arg(long, value_name = "NAME", default_value = "filter-common")]
    package: String,
    /// Only these files
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,
}

/// A whole number, also as `2e7`.
fn number(text: &str) -> Result<u64> {
    let (digits, zeros) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let number = zeros
        .parse()
        .ok()
        .and_then(|zeros| 10_u64.checked_pow(zeros))
        .zip(digits.replace('_', "").parse().ok())
        .and_then(|(unit, digits): (u64, u64)| digits.checked_mul(unit));
    match number {
        Some(number) if number > 0 => Ok(number),
        _ => bail!("a number as 20000 or 1e9"),
    }
}

pub(crate) fn prove(place: &Place, options: &Prove) -> Result<()> {
    let [_, prove] = built(place, "prove")?;
    let mut command = Command::new(prove);
    command.arg(options.cases.to_string());
    command.arg(
        options
            .seed
            .map_or_else(|| "-".to_owned(), |seed| seed.to_string()),
    );
    command.args(options.time.map(|minutes| minutes.to_string()));
    run::status(command.current_dir(&place.root))
}

pub(crate) fn soak(place: &Place, options: &Soak) -> Result<()> {
    setup::for_lab()?;
    let [nodewall, soak] = built(place, "soak")?;
    let mut command = Command::new(soak);
    command
        .arg(options.changes.to_string())
        .arg(options.packets.to_string())
        .env("NODEWALL_BIN", nodewall);
    run::status(command.current_dir(&place.root))
}

/// Builds nodewall and a program of the tests; returns where both are.
fn built(place: &Place, name: &str) -> Result<[PathBuf; 2]> {
    ensure!(
        geteuid().is_root(),
        "this loads BPF programs, which needs root. Run `sudo -E cargo xtask {name}`"
    );
    build::tester(place, name, true)
}

pub(crate) fn mutate(place: &Place, options: &Mutate) -> Result<()> {
    let mut there = place.cargo();
    if run::output(there.args(["mutants", "--version"])).is_err() {
        bail!("cargo-mutants is not here: `cargo install --locked cargo-mutants` brings it");
    }
    note("changing the sources one by one, in a copy of them");
    let mut command = place.cargo();
    command
        .args(["mutants", "--package", &options.package, "--output"])
        .arg(&place.target)
        .args(options.file.iter().flat_map(|file| ["--file", file]));
    run::status(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_powers() {
        for (text, expected) in [
            ("20000", 20_000),
            ("1e9", 1_000_000_000),
            ("2E7", 20_000_000),
        ] {
            assert_eq!(number(text).ok(), Some(expected), "{text}");
        }
        for text in ["", "0", "1e", "e9", "1e20", "-1", "1.5e3"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
