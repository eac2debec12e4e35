//! Every test there is, in one run of `cargo test`.

use anyhow::Result;
use nix::unistd::geteuid;

use crate::place::Place;
use crate::say::note;
use crate::{build, run, setup};

/// All features that there are: `otlp` brings `bpf` with it, and adds to a binary what it
/// does nothing with unless told to.
pub(crate) const FEATURES: [&str; 2] = ["--features", "filter-user/bpf,tests/otlp"];

/// Runs the tests; `arguments` go to the test programs.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    if geteuid().is_root() {
        setup::for_tests(place)?;
    } else {
        note("not root: the tests that load the program into the kernel skip themselves");
    }
    let object = build::object(place, false)?;
    note("building and running every test (cold: about 10 minutes)");
    run::status(
        place
            .cargo()
            .args(["test", "--workspace"])
            .args(FEATURES)
            .arg("--")
            .args(arguments)
            .env("NODEWALL_BPF_OBJECT", object)
            // Built by the same run, with the object in it.
            .env("NODEWALL_BIN", place.target.join("debug/nodewall")),
    )
}
