//! The tests against the kernel, on other kernels than this machine's: Debian's, in QEMU.

mod guest;
mod package;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use guest::{Ended, Program};
use package::Kernel;

use crate::place::Place;
use crate::say::{Step, note, seconds};
use crate::{build, run, setup};

/// `cargo xtask kernels`.
#[derive(Args)]
pub(crate) struct Options {
    /// A series of kernels that apt has
    #[arg(long = "kernel", value_name = "SERIES", default_values = SERIES)]
    kernels: Vec<String>,
    /// Load, edge table, swap, trials alone
    #[arg(long)]
    quick: bool,
}

/// Those that Debian 12 has: the oldest one is the one that it boots.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// A test program that runs on the other kernels.
struct Tried {
    name: &'static str,
    /// Given to it where all is run.
    all: &'static [&'static str],
    /// Given to it where little time is; `None` where it is left out then.
    quick: Option<&'static [&'static str]>,
}

/// Of the tests those that ask something of the kernel, and not only of the host. Not
/// here: what takes a browser, Prometheus or servers of the distribution (`dashboard`,
/// `prometheus`, `otlp`, `http`, `top`, `worker_node`, `examples`), which ask the same
/// of the kernel; what measures (`bench`); and what asks the host alone.
const TRIED: [Tried; 11] = [
    // All odd packets, both directions, with what is remembered.
    Tried {
        name: "edge",
        all: &["the_kernel"],
        quick: Some(&["the_kernel"]),
    },
    // Programs of every size are taken, and what the verifier walks.
    Tried {
        name: "verifier",
        all: &[],
        quick: Some(&[]),
    },
    // Each matcher, counter and event.
    Tried {
        name: "prog_test_run",
        all: &[],
        quick: None,
    },
    // Real packets over a real interface; swap; every way to attach.
    Tried {
        name: "end_to_end",
        all: &[],
        quick: Some(&[
            "a_swap",
            "apply_status",
            "clsact",
            "driver_agrees",
            "egress",
        ]),
    },
    Tried {
        name: "end_to_end_flows",
        all: &[],
        quick: Some(&["cut_short", "comes_again"]),
    },
    // Tail calls, the time since boot, both ways to attach what goes out. The others have
    // times that emulated processors are too slow for.
    Tried {
        name: "trial",
        all: &["given_up", "first_policies", "undone"],
        quick: Some(&["given_up", "first_policies"]),
    },
    Tried {
        name: "end_to_end_events",
        all: &[],
        quick: None,
    },
    Tried {
        name: "daemon",
        all: &[],
        quick: None,
    },
    Tried {
        name: "three_way",
        all: &[],
        quick: None,
    },
    Tried {
        name: "talk",
        all: &[],
        quick: None,
    },
    Tried {
        name: "in_kernel",
        all: &[],
        quick: None,
    },
];

/// For how long a kernel may take.
const PATIENCE: Duration = Duration::from_mins(40);

/// Runs the tests on other kernels.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the machines with other kernels are x86-64, as the programs that run there are");
    }
    if !geteuid().is_root() {
        bail!("only root may have apt bring kernels. Run `sudo -E cargo xtask kernels`");
    }
    setup::for_lab()?;
    setup::for_kernels()?;
    let object = build::object(place, false)?;
    let tried: Vec<&Tried> = TRIED
        .iter()
        .filter(|tried| !options.quick || tried.quick.is_some())
        .collect();
    let step = Step::begin("tests", "building those that run on other kernels");
    let executables = executables(place, &object, &tried)?;
    step.done();
    let programs: Vec<Program<'_>> = tried
        .iter()
        .map(|tried| {
            let file = executables.get(tried.name);
            Ok(Program {
                name: tried.name,
                file: file.with_context(|| format!("cargo built no test {}", tried.name))?,
                arguments: tried.quick.filter(|_| options.quick).unwrap_or(tried.all),
            })
        })
        .collect::<Result<_>>()?;
    let mut kernels = Vec::new();
    for series in &options.kernels {
        match Kernel::bring(place, series)? {
            Some(kernel) => kernels.push(kernel),
            None => missing(series)?,
        }
    }
    // Side by side: each takes one processor.
    let failed = thread::scope(|scope| {
        let started: Vec<_> = kernels
            .iter()
            .map(|kernel| scope.spawn(|| on(place, kernel, &programs)))
            .collect();
        let ended = started.into_iter().map(|kernel| {
            let ended = kernel.join();
            ended.unwrap_or_else(|panic| resume_unwind(panic))
        });
        // The last one is waited for, whatever becomes of the first.
        ended.collect::<Vec<_>>()
    });
    let failed: Vec<Vec<String>> = failed.into_iter().collect::<Result<_>>()?;
    let failed = failed.concat();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on other kernels: {}", failed.join(", "))
}

/// A kernel that is not to be had; in CI that is a failure.
fn missing(series: &str) -> Result<()> {
    let text = format!(
        "no source of apt on this machine has a linux-image-{series}.*-cloud-amd64 (Debian 12 has \
         6.1, its security suite 6.12 as well)"
    );
    if env::var("CI").is_ok_and(|value| value == "true") {
        bail!("{text}; with CI=true it must be tried");
    }
    note(&format!("SKIPPED: Linux {series}, since {text}"));
    Ok(())
}

/// Builds the tests, and the binary that they run. With the features and the crates of
/// [`crate::test`], so that nothing is built twice.
fn executables(place: &Place, object: &Path, tried: &[&Tried]) -> Result<HashMap<String, PathBuf>> {
    let cargo = |verb: &[&str]| {
        let mut cargo = place.cargo();
        cargo
            .args(verb)
            .args(["--quiet", "--workspace"])
            .args(crate::test::FEATURES)
            .env("NODEWALL_BPF_OBJECT", object);
        cargo
    };
    run::status(&mut cargo(&["build", "--bin", "nodewall"]))?;
    let mut tests = cargo(&["test", "--no-run", "--message-format=json"]);
    for tried in tried {
        tests.args(["--test", tried.name]);
    }
    let mut executables = HashMap::new();
    for line in run::output(&mut tests)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let name = message["target"]["name"].as_str();
        let executable = message["executable"].as_str();
        if let (Some(name), Some(executable)) = (name, executable)
            && message["target"]["kind"] == serde_json::json!(["test"])
        {
            executables.insert(name.to_owned(), PathBuf::from(executable));
        }
    }
    Ok(executables)
}

/// Runs the programs on a kernel; says which of them failed.
fn on(place: &Place, kernel: &Kernel, programs: &[Program<'_>]) -> Result<Vec<String>> {
    let name = format!("Linux {}", kernel.release);
    let began = Instant::now();
    let folder = place.target.join("kernels");
    let file = |end: &str| folder.join(format!("{}.{end}", kernel.release));
    let (archive, log) = (file("cpio"), file("log"));
    let nodewall = place.target.join("debug/nodewall");
    let examples = [place.root.join("examples")];
    guest::pack(kernel, &nodewall, programs, &examples, &archive)?;
    note(&format!(
        "{name}: starting; what it says is in {}",
        log.display()
    ));
    let booted = guest::boot(kernel, &archive, &log, PATIENCE);
    fs::remove_file(&archive)?;
    booted?;
    let said = fs::read(&log)?;
    let ended = guest::read(&String::from_utf8_lossy(&said)).context(name.clone())?;
    let mut failed = Vec::new();
    for Ended {
        name: test,
        status,
        seconds,
        output,
    } in &ended
    {
        let passed = passed(output);
        // A filter that fits nothing asks nothing.
        let is_good = *status == 0 && passed > 0;
        let word = if is_good { "passed" } else { "FAILED" };
        note(&format!(
            "{name}: {test}: {word}, {passed} tests in {seconds} s"
        ));
        if !is_good {
            eprintln!("{output}");
            failed.push(format!("{test} on {name}"));
        }
    }
    if ended.len() != programs.len() {
        bail!("{name} ran {} of {} tests", ended.len(), programs.len());
    }
    note(&format!("{name}: done in {}", seconds(began.elapsed())));
    Ok(failed)
}

/// How many tests a program says that it passed.
fn passed(output: &str) -> u32 {
    let result = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "));
    let counts = result.flat_map(|line| line.split(['.', ';']));
    counts
        .filter_map(|count| count.trim().strip_suffix(" passed")?.parse::<u32>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted() {
        let output = "running 3 tests\n...\n\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 \
                      measured; 8 filtered out; finished in 1.02s\n";
        assert_eq!(passed(output), 3);
        assert_eq!(passed("test result: FAILED. 2 passed; 1 failed"), 2);
        assert_eq!(passed("1 passed"), 0);
    }
}
