//! `cargo xtask demo`: the seed's policy at work, with real services, real
//! connections and a flood, between two namespaces.
//!
//! It ends with a table of what was expected and what was seen. Whatever way
//! it ends, what it made is gone: everything is owned by guards, and a signal
//! only raises a flag that every wait looks at.

mod flood;
mod services;
mod stats;

use std::fs;
use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use signal_hook::consts::TERM_SIGNALS;
use terminal_size::{Height, terminal_size};
use tests::lab::{Lab, Limit, Side};

use crate::place::Place;
use crate::say::{Ink, ink, seconds};
use crate::{build, run, setup};

use flood::Mix;
use services::{Outcome, SERVICES};
use stats::Stats;

/// The policy that the product comes from.
const POLICY: &str = "examples/deny-kube-node-port-services.yaml";
const LABEL: &str = "ibm.role=worker_public";
const BPFFS: &str = "/sys/fs/bpf";
const PIN_PREFIX: &str = "nodewall-demo-";

/// What the person may choose.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the flood lasts
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// The person wants it to end.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "the demo makes network namespaces and loads an XDP program, which only root may: run it \
         as root (`sudo -E env PATH=\"$PATH\" cargo xtask demo`). It touches none of this \
         machine's own interfaces."
    );
    println!(
        "{}",
        ink(Ink::Bold, "nodewall demo: node ports closed by a policy")
    );
    step(1, "Build nodewall and its BPF object");
    setup::for_lab()?;
    let nodewall = build::nodewall(place, true, false)?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in TERM_SIGNALS {
        signal_hook::flag::register(*signal, Arc::clone(&stop))?;
    }
    sweep()?;
    let pins = Path::new(BPFFS).join(format!("{PIN_PREFIX}{}", process::id()));
    let mut names = Vec::new();
    let outcome = Demo::new(place, nodewall, pins.clone(), stop).and_then(|demo| {
        names = demo.lab.names().map(str::to_owned).to_vec();
        demo.perform(options)
    });
    let left = verify_gone(&pins, &names);
    match (&outcome, &left) {
        (_, Ok(())) => println!(
            "{}",
            ink(
                Ink::Dim,
                "Everything the demo made is gone: namespaces, interfaces, pins, processes."
            )
        ),
        (Err(_), Err(left)) => eprintln!("{left:#}"),
        (Ok(()), Err(_)) => {}
    }
    outcome.and(left)
}

/// Removes what demos that were killed left behind.
fn sweep() -> Result<()> {
    for name in Lab::sweep()? {
        println!("      removed {name}, left by a killed run");
    }
    let Ok(entries) = fs::read_dir(BPFFS) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PIN_PREFIX)
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            println!(
                "      removed {}, left by a killed run",
                entry.path().display()
            );
        }
    }
    Ok(())
}

fn verify_gone(pins: &Path, names: &[String]) -> Result<()> {
    ensure!(!pins.exists(), "{} is left behind", pins.display());
    let listed = run::output(Command::new("ip").args(["netns", "list"]))?;
    for name in names {
        ensure!(
            !listed.contains(name),
            "the network namespace {name} is left behind"
        );
    }
    Ok(())
}

fn step(number: u32, what: &str) {
    println!("{} {what}", ink(Ink::Cyan, &format!("[{number}/6]")));
}

fn detail(text: &str) {
    println!("      {text}");
}

/// What was made for the demo. Dropped in this order.
struct Demo {
    pins: Pins,
    services: Vec<tests::lab::Service>,
    lab: Lab,
    policy: PathBuf,
    stop: Arc<AtomicBool>,
}

/// The pinned state, removed on drop.
struct Pins {
    nodewall: PathBuf,
    folder: PathBuf,
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Removing its pin takes the program off the interface. After
        // `detach` nothing but the empty folder is here.
        if let Err(error) = fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

impl Demo {
    fn new(place: &Place, nodewall: PathBuf, pins: PathBuf, stop: Arc<AtomicBool>) -> Result<Self> {
        step(
            2,
            "Make two network namespaces with a veth pair, and start the services",
        );
        let lab = Lab::new()?;
        let mut demo = Self {
            pins: Pins {
                nodewall,
                folder: pins,
            },
            services: Vec::new(),
            lab,
            policy: place.root.join(POLICY),
            stop,
        };
        detail(&format!(
            "client  {:11} {:12}  {}",
            Side::Client.v4(),
            Side::Client.v6(),
            Side::Client.interface(),
        ));
        detail(&format!(
            "node    {:11} {:12}  {}, where the filter will be",
            Side::Node.v4(),
            Side::Node.v6(),
            Side::Node.interface(),
        ));
        for service in &SERVICES {
            let service = demo
                .lab
                .serve(Side::Node, service.transport, service.port)?;
            demo.services.push(service);
        }
        let list: Vec<String> = SERVICES.iter().map(ToString::to_string).collect();
        detail(&format!("services on the node: {}", list.join(", ")));
        Ok(demo)
    }

    fn perform(&self, options: &Options) -> Result<()> {
        self.look()?;
        step(
            3,
            "Try every service from the client, before there is a filter",
        );
        let before = services::try_all(&self.lab, Duration::from_secs(3))?;
        services::print(&before);

        self.look()?;
        step(4, "Apply the policy to the node's interface");
        let policy = self.policy.to_string_lossy().into_owned();
        let interface = Side::Node.interface();
        self.show(&[
            "apply",
            "-f",
            &policy,
            "--interface",
            interface,
            "--label",
            LABEL,
        ])?;
        let mode = stats::mode(&self.output(&["status", "-o", "json"])?)?;
        detail(&format!(
            "the XDP program is in {interface}'s driver ({mode} mode); no process is needed"
        ));

        self.look()?;
        step(5, "Try every service again");
        let after = services::try_all(&self.lab, Duration::from_secs(1))?;
        services::print(&after);

        self.look()?;
        let mix = Mix::new();
        step(
            6,
            &format!(
                "Flood the node for {} s with {} kinds of packets, and watch",
                options.seconds,
                mix.kinds()
            ),
        );
        let quiet = self.stats()?;
        let drops = self.driver_drops()?;
        let (sent, during) = self.flood(&mix, Duration::from_secs(options.seconds))?;
        self.look()?;
        let counted = self.settled(&mix.expected(&sent), &quiet)?;
        let drops = self.driver_drops()? - drops;
        let at_last = services::try_all(&self.lab, Duration::from_secs(1))?;

        self.look()?;
        self.show(&["detach", "--interface", interface])?;
        self.until_off()?;
        let detached = services::try_all(&self.lab, Duration::from_secs(3))?;

        let mut report = Report::default();
        report.reachability(&before, &after, &at_last, &detached);
        report.flood(&mix.expected(&sent), &counted);
        println!(
            "      {} packets in {}: {} packets/s",
            grouped(sent.packets),
            seconds(sent.time),
            grouped_rate(sent.per_second())
        );
        println!();
        report.check("tcp 8080 answered in the middle of the flood", during);
        report.check(
            "the program is in the driver (native mode)",
            mode == "native",
        );
        report.check(
            &format!("the driver counted the same drops: {}", grouped(drops)),
            drops == counted.dropped,
        );
        report.end()
    }

    /// Ends early where the person wants it.
    fn look(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// Runs `nodewall` in the node's namespace.
    fn nodewall(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.command(Side::Node, &self.pins.nodewall);
        command
            .args(arguments)
            .env("NODEWALL_PIN_ROOT", &self.pins.folder)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        run::output(&mut self.nodewall(arguments))
    }

    /// Runs `nodewall` before the person's eyes.
    fn show(&self, arguments: &[&str]) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let typed: Vec<&str> = arguments
            .iter()
            .map(|argument| {
                if argument.ends_with(POLICY) {
                    POLICY
                } else {
                    argument
                }
            })
            .collect();
        wrapped(&format!("$ nodewall {}", typed.join(" ")));
        let output = self
            .nodewall(arguments)
            // A process group of its own: Ctrl-C must not cut it short.
            .process_group(0)
            .output()
            .context("cannot run nsenter")?;
        for text in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(text).lines() {
                detail(line);
            }
        }
        if !output.status.success() {
            bail!("nodewall {} failed ({})", arguments[0], output.status);
        }
        Ok(())
    }

    /// Waits until no program is on the interface: the kernel lets go of a
    /// link a moment after its pin is gone.
    fn until_off(&self) -> Result<()> {
        for _ in 0..100 {
            if self.lab.xdp_program(Side::Node)?.is_none() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the program is still on the interface after `nodewall detach`")
    }

    fn stats(&self) -> Result<Stats> {
        Stats::parse(&self.output(&["stats", "-o", "json"])?)
    }

    /// The driver's own count of what XDP programs dropped.
    fn driver_drops(&self) -> Result<u64> {
        self.lab
            .driver_counter(Side::Node, "rx_queue_", "_xdp_drops")
    }

    /// Sends the mix while the counters run in the terminal; also says
    /// whether an allowed service answered in the middle of it.
    fn flood(&self, mix: &Mix, time: Duration) -> Result<(tests::lab::Sent, bool)> {
        if stdout().is_terminal() {
            // `stats -w` draws from the top of the screen: what is on it now
            // is moved up, where it can be scrolled back to.
            print!("{}", "\n".repeat(rows()));
        }
        let live = Live(
            self.nodewall(&["stats", "-w", "-o", "table"])
                .spawn()
                .context("cannot run nodewall stats")?,
        );
        let limit = Limit {
            packets: u64::MAX,
            time,
            stop: Some(&self.stop),
        };
        let outcome = thread::scope(|scope| {
            let during = scope.spawn(|| {
                thread::sleep(time / 2);
                services::answers(&self.lab, &SERVICES[4])
            });
            let sent = self.lab.send(Side::Client, mix.frames(), &limit)?;
            Ok((sent, during.join().unwrap_or(false)))
        });
        // So that the last picture shows the end of it.
        if !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1200));
        }
        drop(live);
        println!();
        outcome
    }

    /// The counters since `quiet`, as soon as they have what is expected, or
    /// after two seconds as they are.
    fn settled(&self, expected: &Stats, quiet: &Stats) -> Result<Stats> {
        for _ in 0..20 {
            let counted = self.stats()?.since(quiet);
            if counted.reaches(expected) {
                return Ok(counted);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(self.stats()?.since(quiet))
    }
}

/// `nodewall stats -w`, ended on drop.
struct Live(Child);

impl Drop for Live {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        self.0.wait().ok();
    }
}

/// What was expected and what was seen.
#[derive(Default)]
struct Report {
    failed: u32,
}

impl Report {
    fn reachability(
        &mut self,
        before: &[Outcome],
        after: &[Outcome],
        at_last: &[Outcome],
        detached: &[Outcome],
    ) {
        println!();
        println!(
            "      {}",
            ink(
                Ink::Bold,
                "service    before       with policy  after flood  detached"
            )
        );
        for (index, service) in SERVICES.iter().enumerate() {
            let good = before[index].all_answered()
                && detached[index].all_answered()
                && [&after[index], &at_last[index]].into_iter().all(|outcome| {
                    if service.denied {
                        outcome.none_answered()
                    } else {
                        outcome.all_answered()
                    }
                });
            println!(
                "      {:9}  {:11}  {:11}  {:11}  {:11}  {}",
                service.to_string(),
                before[index].to_string(),
                after[index].to_string(),
                at_last[index].to_string(),
                detached[index].to_string(),
                self.mark(good)
            );
        }
        println!();
    }

    fn flood(&mut self, sent: &Stats, counted: &Stats) {
        println!(
            "      {}",
            ink(
                Ink::Bold,
                &format!(
                    "{:38}{:>13}{:>13}",
                    "flood, by what decides", "sent", "counted"
                )
            )
        );
        let mut row = |what: &str, sent: u64, counted: u64, good: bool| {
            println!(
                "      {what:38}{:>13}{:>13}  {}",
                grouped(sent),
                grouped(counted),
                self.mark(good)
            );
        };
        for (what, sent, counted) in [
            (
                "rule 0 (deny tcp 30000:32767)",
                sent.rules[0],
                counted.rules[0],
            ),
            (
                "rule 1 (deny udp 30000:32767)",
                sent.rules[1],
                counted.rules[1],
            ),
            (
                "dropped: fragment without its ports",
                sent.fragment,
                counted.fragment,
            ),
        ] {
            row(what, sent, counted, sent == counted);
        }
        // The machines' own neighbour discovery and the like pass as well.
        row(
            "passed: no rule denies it",
            sent.passed,
            counted.passed,
            counted.passed >= sent.passed,
        );
    }

    fn check(&mut self, what: &str, good: bool) {
        let mark = self.mark(good);
        println!("      {mark}  {what}");
    }

    fn mark(&mut self, good: bool) -> String {
        if good {
            ink(Ink::Green, "ok")
        } else {
            self.failed += 1;
            ink(Ink::Red, "FAILED")
        }
    }

    fn end(self) -> Result<()> {
        println!();
        match self.failed {
            0 => {
                println!("{}", ink(Ink::Green, "Every expectation held."));
                Ok(())
            }
            1 => bail!("one expectation did not hold"),
            failed => bail!("{failed} expectations did not hold"),
        }
    }
}

/// Lines of the terminal.
fn rows() -> usize {
    terminal_size().map_or(24, |(_, Height(rows))| rows.into())
}

/// `1,234,567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate to look at"
)]
fn grouped_rate(rate: f64) -> String {
    grouped(rate as u64)
}

/// A long command, broken where a shell would let it be.
fn wrapped(command: &str) {
    let mut line = String::new();
    for word in command.split(' ') {
        if line.len() + word.len() > 70 {
            detail(&format!("{line} \\"));
            "   ".clone_into(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    detail(&line);
}
