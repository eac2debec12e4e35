//! Prints a synthetic ruleset as a Calico policy:
//! `cargo run -p tests --bin synthetic -- acl 10000 --seed 1`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use tests::synthetic::{self, Flavour};

const USAGE: &str = "synthetic acl|fw|ipc RULES [--seed N]";

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flavour, count, seed) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        [flavour, count] => (*flavour, *count, "1"),
        [flavour, count, "--seed", seed] => (*flavour, *count, *seed),
        _ => return Err("what is wanted?".to_owned()),
    };
    let flavour: Flavour = flavour.parse()?;
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text:?}: {error}"))
    };
    let count = usize::try_from(number(count)?).map_err(|error| error.to_string())?;
    let rules = synthetic::rules(flavour, count, number(seed)?);
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
