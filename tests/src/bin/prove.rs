//! The long run of `tests/tests/in_kernel.rs`: `prove CASES SEED|- [MINUTES]`. `cargo xtask
//! prove` builds and runs it, in the workspace's folder.
#![expect(
    clippy::unwrap_used,
    reason = "it shares the helpers of tests, which may panic"
)]

#[path = "../../tests/documents/mod.rs"]
mod documents;
#[path = "../../tests/common/known.rs"]
mod known;
#[path = "../../tests/common/prove/mod.rs"]
mod prove;
#[path = "../../tests/common/random.rs"]
mod random;
#[path = "../../tests/common/switch_over.rs"]
mod switch_over;
#[path = "../../tests/common/talk.rs"]
mod talk;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use prove::{Done, Plan};

fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let cases = arguments
        .next()
        .context("prove CASES SEED|- [MINUTES]")?
        .parse()?;
    let seed = match arguments.next().as_deref() {
        None | Some("-") => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        Some(seed) => seed.parse()?,
    };
    let began = Instant::now();
    let until = match arguments.next() {
        Some(minutes) => Some(began + Duration::from_mins(minutes.parse()?)),
        None => None,
    };
    let plan = Plan {
        cases,
        seed,
        until,
        folder: Path::new("tests/regressions"),
    };
    let again = prove::replay(plan.folder).map_err(anyhow::Error::msg)?;
    println!("{again} packets of regressions are right; seed {seed}");
    let done = Done::default();
    let told = Mutex::new(Instant::now());
    let proved = prove::prove(&plan, &done, |done| {
        let mut told = told.lock().unwrap();
        if told.elapsed() >= Duration::from_secs(10) {
            *told = Instant::now();
            let rate = done.kernel.load(Ordering::Relaxed) / began.elapsed().as_secs().max(1);
            eprintln!(
                "{} s, {rate} packets a second: {}",
                began.elapsed().as_secs(),
                done.summary()
            );
        }
    });
    println!("{}", done.summary());
    let Err(found) = proved else {
        println!("no disagreement, in {} s", began.elapsed().as_secs());
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}\nthe least of it: {:#?}", found.what, found.example);
    match found.kept {
        Ok(path) => println!(
            "kept as {}: add it to the repository with what repairs it",
            path.display()
        ),
        Err(error) => println!("it could not be kept: {error}"),
    }
    Ok(ExitCode::FAILURE)
}
