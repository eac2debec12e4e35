//! What a test needs of the machine. A test that can't run says so, and where
//! `CI=true` it fails: it must never pass without having looked.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{env, fs};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Whether this process may load and run BPF programs. Where it may not, says
/// that the running test is skipped, and panics if `CI=true`.
///
/// # Panics
///
/// Where the test would be skipped in CI.
#[must_use]
pub fn root_and_bpf() -> bool {
    let effective = effective_capabilities();
    let has = |capability: u32| effective >> capability & 1 == 1;
    if has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_NET_ADMIN) {
        return true;
    }
    let thread = std::thread::current();
    let message = format!(
        "SKIPPED: {} because it loads a BPF program, which needs root (or CAP_BPF and CAP_NET_ADMIN)",
        thread.name().unwrap_or("a test"),
    );
    // Not `eprintln!`, which the test harness captures and throws away. Where
    // stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "\n!!! {message}");
    fail_in_ci(&message, env::var("CI").ok().as_deref());
    false
}

/// Whether the running kernel has TCX. A test that is about its links alone has nothing
/// to ask where it hasn't.
#[must_use]
pub fn has_tcx() -> bool {
    linux() >= (6, 6)
}

/// The first two numbers of the running kernel's release.
///
/// # Panics
///
/// Where it has none.
#[must_use]
pub fn linux() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    let both = number().zip(number());
    both.unwrap_or_else(|| panic!("the kernel calls itself {release:?}"))
}

/// Where a program is, that the set-up brings into the target folder where it isn't on `PATH`;
/// `None`, said loudly, where it is neither there nor here.
///
/// # Panics
///
/// Where it is not there, with `CI=true`.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin");
    let found = std::iter::once(tools)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let message = format!("SKIPPED: there is no {name} on this machine");
        eprintln!("{message}");
        fail_in_ci(&message, env::var("CI").ok().as_deref());
    }
    found
}

fn fail_in_ci(message: &str, ci: Option<&str>) {
    assert!(ci != Some("true"), "{message}; with CI=true nothing may be");
}

/// The effective capabilities, bit by bit; none where they can't be read.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_no_failure_outside_ci() {
        fail_in_ci("SKIPPED: this", None);
        fail_in_ci("SKIPPED: this", Some("false"));
    }

    #[test]
    #[should_panic(expected = "SKIPPED: this; with CI=true nothing may be")]
    fn a_skip_in_ci_is_a_failure() {
        fail_in_ci("SKIPPED: this", Some("true"));
    }
}
