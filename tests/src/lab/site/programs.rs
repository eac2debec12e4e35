//! Clients that are the distribution's own programs.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::servers::{Background, NAME, NAME_V4, PAGE};
use super::{FAR_MTU, Family, LAN_PREFIX, Machine, Outcome, Site};

/// Runs a program on a machine, for so many seconds at most.
fn run(
    site: &Site,
    machine: Machine,
    seconds: u32,
    program: &str,
    arguments: &[&str],
) -> Result<Output> {
    let output = site
        .command(machine, "timeout")
        .args(["--kill-after=1", &seconds.to_string(), program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    // `timeout` could not run it, or found none.
    if matches!(output.status.code(), Some(125..=127)) {
        bail!("cannot run {program}: {}", said(&output));
    }
    Ok(output)
}

/// All that a program said.
fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    let [out, err] = streams.map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    format!("{}\n{out}\n{err}", output.status).trim().to_owned()
}

/// It worked if it ended well and said this.
fn says(output: &Output, word: &str) -> Outcome {
    let worked = output.status.success() && String::from_utf8_lossy(&output.stdout).contains(word);
    Outcome::when(worked, || said(output))
}

/// Reads a page, with more options where there are some.
pub(super) fn curl(
    site: &Site,
    from: Machine,
    options: &[&str],
    to: IpAddr,
    port: u16,
) -> Result<Outcome> {
    let url = format!("http://{}/", SocketAddr::new(to, port));
    let plain = ["--silent", "--show-error", "--noproxy", "*"];
    let patience = ["--connect-timeout", "2", "--max-time", "10"];
    let arguments = [&plain[..], &patience, options, &[&url]].concat();
    let mut output = run(site, from, 15, "curl", &arguments)?;
    // Its port may be in use by the client of the other IP version, for a moment.
    for _ in 0..20 {
        if output.status.code() != Some(PORT_IN_USE) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        output = run(site, from, 15, "curl", &arguments)?;
    }
    Ok(says(&output, PAGE.trim()))
}

/// What curl exits with where it can't have the port that it is to come from.
const PORT_IN_USE: i32 = 45;

/// Asks the resolver at the far end.
pub(super) fn dig(site: &Site, from: Machine, family: Family, how: Dns) -> Result<Outcome> {
    let server = format!("@{}", Machine::Far.ip(family));
    let (record, transport, answer) = match how {
        Dns::Udp => ("A", "+notcp", NAME_V4),
        Dns::Tcp => ("A", "+tcp", NAME_V4),
        Dns::Fragments => ("TXT", "+notcp", "xxxxxxxx"),
    };
    let arguments = [
        server.as_str(),
        NAME,
        record,
        transport,
        "+short",
        "+tries=2",
        "+time=2",
        "+ignore",
        "+bufsize=4096",
    ];
    let output = run(site, from, 8, "dig", &arguments)?;
    Ok(says(&output, answer))
}

/// How a resolver is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dns {
    Udp,
    Tcp,
    /// Over UDP, for more than one frame holds.
    Fragments,
}

/// Two pings; both must be answered.
pub(super) fn ping(site: &Site, from: Machine, to: IpAddr, bytes: u16) -> Result<Outcome> {
    let (bytes, to) = (bytes.to_string(), to.to_string());
    let arguments = ["-n", "-c", "2", "-i", "0.2", "-W", "2", "-s", &bytes, &to];
    let output = run(site, from, 10, "ping", &arguments)?;
    Ok(says(&output, " 0% packet loss"))
}

/// The way to the far end: the router says "time exceeded", the host "port
/// unreachable".
pub(super) fn traceroute(site: &Site, from: Machine, family: Family) -> Result<Outcome> {
    let far = Machine::Far.ip(family).to_string();
    let router = Machine::Router.ip(family).to_string();
    let options = [family.option(), "-n", "-q", "1", "-w", "2", "-m", "4"];
    let output = run(
        site,
        from,
        15,
        "traceroute",
        &[&options[..], &[&far]].concat(),
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The first line is about the last hop, and names it too.
    let hops: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let whole = hops.contains(&router.as_str()) && hops.last() == Some(&far.as_str());
    Ok(Outcome::when(whole, || said(&output)))
}

/// The small hop, found by datagrams that may not be fragmented.
pub(super) fn udp_path_mtu(site: &Site, family: Family) -> Result<Outcome> {
    let far = Machine::Far.ip(family).to_string();
    let options = [
        family.option(),
        "-n",
        "--mtu",
        "-q",
        "1",
        "-w",
        "2",
        "-m",
        "4",
    ];
    let options = [&options[..], &[&far, "1500"]].concat();
    let output = run(site, Machine::Node, 15, "traceroute", &options)?;
    Ok(says(&output, &format!("F={FAR_MTU}")))
}

/// A page of megabytes to the far end: its segments are whole frames until the
/// router says what the next hop takes.
pub(super) fn tcp_path_mtu(site: &Site, family: Family, port: u16) -> Result<Outcome> {
    let far = Machine::Far.ip(family).to_string();
    let option = family.option();
    let ip = |arguments: &[&str]| site.ip(Machine::Node, &[&[option], arguments].concat());
    ip(&["route", "flush", "cache"])?;
    let outcome = iperf3(site, Machine::Node, Machine::Far.ip(family), port, Load::Up)?;
    if outcome != Outcome::Worked {
        return Ok(outcome);
    }
    let route = ip(&["route", "get", &far])?;
    let learned = route.contains(&format!("mtu {FAR_MTU}"));
    Ok(Outcome::when(learned, || route))
}

/// What iperf3 is to move.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// To the server.
    Up,
    /// From the server.
    Down,
    /// Datagrams to the server.
    UdpUp,
    /// Datagrams from the server.
    UdpDown,
}

/// Moves a few megabytes.
pub fn iperf3(site: &Site, from: Machine, to: IpAddr, port: u16, load: Load) -> Result<Outcome> {
    let (to, port) = (to.to_string(), port.to_string());
    let mut arguments = vec![
        "--json",
        "--connect-timeout",
        "2000",
        "-c",
        &to,
        "-p",
        &port,
    ];
    arguments.extend(match load {
        Load::Up => ["-n", "8M"].as_slice(),
        Load::Down => &["-n", "8M", "-R"],
        // Datagrams that no hop is too small for.
        Load::UdpUp => &["-u", "-b", "20M", "-t", "1", "-l", "1200"],
        Load::UdpDown => &["-u", "-b", "20M", "-t", "1", "-l", "1200", "-R"],
    });
    let output = run(site, from, 20, "iperf3", &arguments)?;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let end = &report["end"];
    let worked = match load {
        // What the last report has; the rest may be on its way.
        Load::Up | Load::Down => end["sum_received"]["bytes"].as_u64() >= Some(1_000_000),
        // A busy machine loses some.
        Load::UdpUp | Load::UdpDown => end["sum"]["lost_percent"]
            .as_f64()
            .is_some_and(|lost| lost < 50.0),
    };
    Ok(Outcome::when(output.status.success() && worked, || {
        format!("{} {end} {}", report["error"], output.status)
    }))
}

/// Asks the router for an address, as a node does that has none.
pub(super) fn dhcp(site: &Site, family: Family) -> Result<Outcome> {
    let folder = tempfile::tempdir_in(site.files())?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (settings, leases, pid) = (file("conf"), file("leases"), file("pid"));
    fs::write(
        &settings,
        "timeout 6;\ninitial-interval 1;\nselect-timeout 0;\ninitial-delay 0;\n",
    )?;
    let (lease, address) = match family {
        Family::V4 => ("fixed-address 192.0.2.1", "lease {"),
        Family::V6 => ("iaaddr 2001:db8::1", "lease6 {"),
    };
    let mut client = Background::start(
        site,
        Machine::Node,
        "dhclient",
        &[
            family.option(),
            "-1",
            "-d",
            "-cf",
            &settings,
            "-lf",
            &leases,
            "-pf",
            &pid,
            // No script of the machine's: nothing there changes.
            "-sf",
            "/bin/true",
            Machine::Node.interface(),
        ],
    )?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        let text = fs::read_to_string(&leases).unwrap_or_default();
        if text.contains(lease) && text.contains(address) {
            return Ok(Outcome::Worked);
        }
        if client.check().is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Outcome::Failed(client.said()))
}

/// The node gives itself an address, once more, by what the router says to its
/// solicitation.
pub(super) fn slaac(site: &Site) -> Result<Outcome> {
    let interface = Machine::Node.interface();
    let addresses = || {
        let show = ["-6", "address", "show", "dev", interface, "dynamic"];
        site.ip(Machine::Node, &show)
    };
    let own = |text: &str| {
        let mut words = text.split_whitespace();
        words
            .find(|word| word.starts_with(LAN_PREFIX))
            .map(str::to_owned)
    };
    if let Some(address) = own(&addresses()?) {
        site.ip(
            Machine::Node,
            &["address", "delete", &address, "dev", interface],
        )?;
    }
    let arguments = ["--single", "--retry", "3", "--wait", "1000", interface];
    let output = run(site, Machine::Node, 8, "rdisc6", &arguments)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if own(&addresses()?).is_some() {
            return Ok(Outcome::Worked);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Outcome::Failed(said(&output)))
}

/// The node has to ask who its router is before it reaches the far end.
pub(super) fn neighbours_anew(site: &Site, family: Family) -> Result<Outcome> {
    let router = Machine::Router.ip(family).to_string();
    let interface = Machine::Node.interface();
    site.ip(
        Machine::Node,
        &["neigh", "flush", "to", &router, "dev", interface],
    )?;
    ping(site, Machine::Node, Machine::Far.ip(family), 56)
}
