//! What `tests/tests/upgrade.rs` does, by two builds: `upgrade OLDER NEWER`. `cargo xtask
//! upgrade` builds both and runs it.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tests::upgrade::upgrade;

fn main() -> Result<()> {
    let programs: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [older, newer] = &programs[..] else {
        bail!("upgrade OLDER NEWER");
    };
    let denied = upgrade(older, newer, |line| println!("{line}"))?;
    println!("{denied} packets were denied and counted, and none came through");
    Ok(())
}
