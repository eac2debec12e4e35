//! What others wrote and nodewall is linked with: its licences, where it comes from, and
//! what of it is not wanted (`deny.toml`).

use anyhow::Result;

use crate::place::Place;
use crate::say::Step;
use crate::{run, setup};

/// Checks the dependencies; with `advisories` against the database of known
/// vulnerabilities as well, which is fetched by git.
pub(crate) fn run(place: &Place, advisories: bool) -> Result<()> {
    let cargo_deny = setup::cargo_deny(place)?;
    let step = Step::begin("dependencies", "checking licences, bans and sources");
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        run::status(
            std::process::Command::new(&cargo_deny)
                .args(["--locked", "--all-features", "--manifest-path"])
                .arg(place.root.join(manifest))
                .arg("--config")
                .arg(place.root.join("deny.toml"))
                .args(["check", "--hide-inclusion-graph"])
                .args(["licenses", "bans", "sources"])
                .args(advisories.then_some("advisories"))
                .current_dir(&place.root),
        )?;
    }
    step.done();
    Ok(())
}
