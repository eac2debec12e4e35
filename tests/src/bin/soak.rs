//! The long run of `tests/tests/soak.rs`: `soak CHANGES PACKETS`. `cargo xtask soak` builds
//! and runs it.

#[path = "../../tests/common/soak.rs"]
mod soak;

use std::env;

use anyhow::{Context as _, Result, ensure};

use soak::{Fault, Plan};

fn main() -> Result<()> {
    let mut numbers = env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = || {
        numbers
            .next()
            .context("soak CHANGES PACKETS")?
            .context("a number")
    };
    let (changes, packets) = (u32::try_from(next()?)?, next()?);
    for fault in Fault::ALL {
        println!("caught: {fault:?}: {}", soak::catches(fault)?);
    }
    // Every tenth is a daemon's.
    let by_daemon = changes / 10;
    let report = soak::soak(&Plan {
        changes: changes - by_daemon,
        by_daemon,
        packets,
        progress: |progress| eprintln!("{progress}"),
        fault: None,
    })?;
    print!("{report}");
    let [programs, maps] = report.gone;
    ensure!(
        programs > 0 && maps > 0 && report.packets >= packets,
        "too little was done"
    );
    Ok(())
}
