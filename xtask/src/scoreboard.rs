//! The scoreboard: brings the filters, builds nodewall and the bin `scoreboard` of the tests
//! crate, which does the work.

use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::Step;
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
    let nodewall = build::nodewall(place, false, false)?;
    let step = Step::begin("scoreboard", "building what sends the packets");
    run::status(
        place
            .cargo()
            .args(["build", "--quiet", "--package", "tests"])
            .args(["--features", "bpf", "--bin", "scoreboard"])
            .env(
                "NODEWALL_BPF_OBJECT",
                place.target.join("bpf/nodewall.bpf.o"),
            ),
    )?;
    step.done();
    run::status(
        Command::new(place.target.join("debug/scoreboard"))
            .arg(place.root.join("docs/scoreboard.md"))
            .env("NODEWALL_BIN", nodewall),
    )
}
