//! `nodewall apply` as a user runs it: from the files to a policy in force, on
//! a veth pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::synthetic::{self, Families, Flavour};

use crate::netns::{Lane, Netns};
use crate::{Plan, blocklist, policy, progress, tools};

/// Where this process pins; removed with it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Applies policies of some sizes, for the first time and in another's place.
pub(crate) fn measure(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let ten: Vec<String> = (0..10)
        .map(|index| {
            format!(
                "action: Deny\nprotocol: TCP\nsource:\n  nets: [198.51.{index}.0/24]\ndestination:\n  \
                 ports: [{}]",
                8_000 + index
            )
        })
        .collect();
    let mut rows = Vec::new();
    let turns = if plan.quick { 2 } else { 5 };

    let one = policy::rules(folder, "ten", &ten)?;
    let two = policy::rules(folder, "nine", &ten[1..])?;
    rows.push(apply("10 rules", turns, plan, &one, &two));
    let mut files = Vec::new();
    for seed in [1, 2] {
        let rules = synthetic::rules(Flavour::Acl, Families::V4, 10_000, seed);
        let file = folder.join(format!("acl-{seed}.yaml"));
        fs::write(&file, synthetic::policy(&rules))?;
        files.push(file);
    }
    if let [one, two] = &files[..] {
        rows.push(apply("acl, 10000 rules", turns.min(3), plan, one, two));
    }
    let size = if plan.quick { 100_000 } else { 1_000_000 };
    for (version, v6) in [("IPv4", false), ("IPv6", true)] {
        let mut nets = blocklist::random(size, v6, 1);
        let one = policy::blocklist(folder, &format!("one-{v6}"), &nets, "Allow")?;
        // One network of all is another.
        let other = blocklist::random(1, v6, 99)[0];
        let middle = nets.len() / 2;
        nets[middle] = other;
        let two = policy::blocklist(folder, &format!("two-{v6}"), &nets, "Allow")?;
        rows.push(apply(
            &format!("{size} {version} networks"),
            turns.min(3),
            plan,
            &one,
            &two,
        ));
    }
    Ok(json!(rows))
}

/// Applies `one` to an interface without a filter, then `two` in its place;
/// several times.
fn apply(name: &str, turns: u32, plan: &Plan, one: &Path, two: &Path) -> Value {
    let measured = (0..turns)
        .map(|turn| apply_once(turn, plan, one, two))
        .collect();
    let all: Result<Vec<[Took; 2]>> = measured;
    match all {
        Ok(all) => {
            let median = |of: &dyn Fn(&[Took; 2]) -> f64| {
                let mut all: Vec<f64> = all.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let first = median(&|took| took[0].ms);
            let change = median(&|took| took[1].ms);
            let peak = all.iter().flatten().map(|took| took.peak_kib).max();
            progress(&format!(
                "apply {name}: {first:.0} ms, change {change:.0} ms, peak {} MiB",
                peak.unwrap_or(0) >> 10
            ));
            json!({
                "name": name,
                "first_ms": first,
                "change_ms": change,
                "peak_bytes": peak.map(|peak| peak << 10),
                "maps_bytes": all[0][1].maps,
            })
        }
        Err(error) => {
            progress(&format!("apply {name}: {error:#}"));
            json!({ "name": name, "failed": format!("{error:#}") })
        }
    }
}

struct Took {
    ms: f64,
    peak_kib: u64,
    maps: Option<u64>,
}

fn apply_once(turn: u32, plan: &Plan, one: &Path, two: &Path) -> Result<[Took; 2]> {
    plan.in_time()?;
    let sender = Netns::new()?;
    let lane = Lane::new(&sender, false)?;
    let pins = Pins(format!("/sys/fs/bpf/nodewall-bench-{}-apply-{turn}", process::id()).into());
    let run = |file: &Path| -> Result<Took> {
        let mut command = lane.namespace.command(&plan.nodewall.to_string_lossy());
        command
            .args(["apply", "--interface", &lane.receives, "--mode", "native"])
            .arg("--pin-root")
            .arg(&pins.0)
            .arg("-f")
            .arg(file);
        let (ms, peak_kib) = timed(&mut command)?;
        let status = tools::output(
            lane.namespace
                .command(&plan.nodewall.to_string_lossy())
                .args(["status", "-o", "json", "--pin-root"])
                .arg(&pins.0),
        )?;
        let status: Value = serde_json::from_str(&status)?;
        let maps = status["interfaces"][0]["memory"]["maps_bytes"].as_u64();
        Ok(Took { ms, peak_kib, maps })
    };
    Ok([run(one)?, run(two)?])
}

/// How long a command runs, and the most memory that it had.
fn timed(command: &mut Command) -> Result<(f64, u64)> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nodewall")?;
    // nsenter becomes the command: it is the same process.
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        thread::sleep(Duration::from_micros(500));
    };
    let ms = began.elapsed().as_secs_f64() * 1e3;
    if !ended.success() {
        let mut text = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            use std::io::Read as _;
            stderr.read_to_string(&mut text)?;
        }
        bail!("nodewall apply failed: {}", text.trim_end());
    }
    Ok((ms, peak))
}
