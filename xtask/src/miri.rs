//! filter-common under Miri: the source that the kernel's program is made of reads nothing
//! beside a frame, and does nothing that is undefined.

use std::process::Command;

use anyhow::Result;

use crate::place::Place;
use crate::say::Step;
use crate::{run, setup};

/// Runs filter-common's tests in Miri; `arguments` go to the test program.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    setup::miri()?;
    let step = Step::begin("Miri", "running filter-common's tests, each step watched");
    run::status(
        Command::new("rustup")
            .args(["run", "nightly", "cargo", "miri", "test"])
            .args(["--package", "filter-common", "--target-dir"])
            .arg(place.target.join("miri"))
            .arg("--")
            .args(arguments)
            .current_dir(&place.root)
            .env(
                "MIRIFLAGS",
                "-Zmiri-strict-provenance -Zmiri-symbolic-alignment-check",
            )
            // What xtask itself was started with means the pinned toolchain.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .env_remove("RUSTC"),
    )?;
    step.done();
    Ok(())
}
