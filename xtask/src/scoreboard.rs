//! The scoreboard: brings the filters, builds nodewall and the bin `scoreboard` of the tests
//! crate, which does the work.

use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::place::Place;
use crate::{build, run, setup};

pub(crate) fn run(place: &Place) -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "the scoreboard loads BPF programs and makes network namespaces, which needs root. \
             Run `sudo -E cargo xtask scoreboard`"
        );
    }
    setup::for_lab()?;
    setup::for_scoreboard()?;
    let [nodewall, scoreboard] = build::tester(place, "scoreboard", false)?;
    run::status(
        Command::new(scoreboard)
            .arg(place.root.join("docs/scoreboard.md"))
            .env("NODEWALL_BIN", nodewall),
    )
}
