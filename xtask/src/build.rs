//! The BPF object and the binary that embeds it.
//!
//! The object is always built first, by cargo, which knows its sources: it
//! can never be older than they are. A rebuild happens only where they
//! changed, and the binary is linked anew only where the object's *bytes*
//! changed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::place::Place;
use crate::say::Step;
use crate::{run, setup};

const TARGET: &str = "bpfel-unknown-none";

/// The objects, which lie side by side.
pub(crate) const OBJECTS: [&str; 3] = [
    "nodewall.bpf.o",
    "nodewall-bench.bpf.o",
    "nodewall-trial.bpf.o",
];

/// Builds the object, then the binary; returns where the binary is.
pub(crate) fn nodewall(place: &Place, release: bool, trace: bool) -> Result<PathBuf> {
    let object = object(place, trace)?;
    let (profile, cold) = if release {
        ("release", "3 minutes")
    } else {
        ("debug", "a minute")
    };
    let step = Step::begin(
        "nodewall",
        &format!("building the {profile} binary (cold: about {cold})"),
    );
    let mut cargo = place.cargo();
    cargo
        .args(["build", "--quiet", "--package", "filter-user"])
        .args(["--features", "bpf"])
        .env("NODEWALL_BPF_OBJECT", object);
    if release {
        cargo.arg("--release");
    }
    run::status(&mut cargo)?;
    step.done();
    Ok(place.target.join(profile).join("nodewall"))
}

/// Builds `nodewall`, and a program of the tests crate that does the work of a task; returns
/// where both are.
pub(crate) fn tester(place: &Place, name: &str, release: bool) -> Result<[PathBuf; 2]> {
    let nodewall = nodewall(place, release, false)?;
    let step = Step::begin(name, "building what does the work (cold: about 2 minutes)");
    let mut cargo = place.cargo();
    cargo
        .args(["build", "--quiet", "--package", "tests"])
        .args(["--features", "by-hand", "--bin", name])
        .args(release.then_some("--release"))
        .env(
            "NODEWALL_BPF_OBJECT",
            place.target.join("bpf/nodewall.bpf.o"),
        );
    run::status(&mut cargo)?;
    step.done();
    let profile = if release { "release" } else { "debug" };
    let program = place.target.join(profile).join(name);
    Ok([nodewall, program])
}

/// Builds the BPF object, on wish one that logs what it does with each packet;
/// returns where it is.
pub(crate) fn object(place: &Place, trace: bool) -> Result<PathBuf> {
    let tools = setup::for_build(place)?;
    let folder = place.target.join("bpf");
    let step = Step::begin(
        "BPF object",
        "building the kernel side, with `core` (cold: about 40 s)",
    );
    run::status(
        place
            .cargo()
            .args(["build", "--quiet", "--package", "filter-ebpf"])
            .args(["--target", TARGET, "--profile", "bpf", "-Zbuild-std=core"])
            .arg("--target-dir")
            .arg(&folder)
            .args(trace.then_some("--features=trace"))
            // `-Z build-std` on a stable toolchain: for this child alone.
            .env("RUSTC_BOOTSTRAP", "1")
            // Wins over every other source of flags, so that a person's own
            // RUSTFLAGS, meant for the host, don't reach the BPF target.
            .env("CARGO_ENCODED_RUSTFLAGS", flags(place, &tools.bpf_linker))
            .env("LD_LIBRARY_PATH", libraries(place)?),
    )?;
    let built = folder.join(TARGET).join("bpf");
    let stable = folder.join("nodewall.bpf.o");
    copy_if_changed(&built.join("nodewall-ebpf"), &stable)?;
    // Beside it, where the build of the binary looks for it.
    for other in ["nodewall-bench", "nodewall-trial"] {
        copy_if_changed(&built.join(other), &folder.join(format!("{other}.bpf.o")))?;
    }
    step.done();
    Ok(stable)
}

/// Flags of the BPF target, separated as cargo wants them.
fn flags(place: &Place, linker: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut flags = OsString::new();
    let mut push = |flag: &dyn AsRef<std::ffi::OsStr>| {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push(flag);
    };
    push(&format!("-Clinker={}", linker.display()));
    push(&"-Clink-arg=--btf");
    // 32-bit arithmetic (Linux 5.1), and fields of packets in one read each and
    // not byte by byte: the machines that nodewall is built for do that at any
    // address.
    push(&"-Ctarget-cpu=v3");
    push(&"-Ctarget-feature=+allows-misaligned-mem-access");
    // The same bytes on every machine.
    for (path, name) in [
        (&place.root, "/nodewall"),
        (&home, "/cargo"),
        (&place.sysroot, "/rust"),
    ] {
        push(&format!("--remap-path-prefix={}={name}", path.display()));
    }
    flags
}

/// bpf-linker loads the libLLVM that rustc ships.
fn libraries(place: &Place) -> Result<OsString> {
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = [place.sysroot.join("lib")]
        .into_iter()
        .chain(env::split_paths(&others));
    env::join_paths(folders).context("LD_LIBRARY_PATH holds a path that it cannot hold")
}

/// Leaves the file, and its time, alone where it holds the same bytes: what
/// embeds it is then not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}
