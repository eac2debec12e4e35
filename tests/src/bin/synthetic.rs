//! Prints a synthetic ruleset as a Calico policy:
//! `cargo run -p tests --bin synthetic -- acl 10000 --seed 1 --family both`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use tests::synthetic::{self, Families, Flavour};

const USAGE: &str = "synthetic acl|fw|ipc RULES [--seed N] [--family v4|v6|both]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("synthetic: {error}\nusage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("what is wanted?");
    let flavour: Flavour = next()?.parse()?;
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text:?}: {error}"))
    };
    let count = usize::try_from(number(&next()?)?).map_err(|error| error.to_string())?;
    let (mut seed, mut families) = (1, Families::V4);
    while let Some(option) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--seed" => seed = number(&value)?,
            "--family" => families = value.parse()?,
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    let rules = synthetic::rules(flavour, families, count, seed);
    let [sources, destinations, pairs] = synthetic::different(&rules);
    eprintln!(
        "{} rules: {sources} different sources, {destinations} destinations, {pairs} pairs",
        rules.len()
    );
    match io::stdout().write_all(synthetic::policy(&rules).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
