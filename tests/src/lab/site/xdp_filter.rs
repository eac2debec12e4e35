//! xdp-filter of Debian's xdp-tools in nodewall's place, as closed as it can be made.
//!
//! It knows neither directions nor connections: what answers the node must be let in
//! by its source port, which anybody may use. It has no word for ARP, neighbour
//! discovery and ICMP, which a "deny" of its drops; so the neighbours here know each
//! other by heart. Nor has it ranges: each port is one of its own.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::servers::Background;
use super::{Family, Machine, Site};

/// xdp-filter on the node's interface, until this is dropped.
#[derive(Debug)]
pub struct XdpFilter<'a> {
    site: &'a Site,
    // Its maps and programs are pinned where only this sees them.
    _pins: Background,
}

impl<'a> XdpFilter<'a> {
    /// Puts it on the node: what is for one of the ports `open` and what is from one
    /// of `answers` comes in, over TCP and UDP, and all from `friends`, and nothing
    /// else.
    pub fn start(site: &'a Site, open: &[u16], answers: &[u16], friends: &[&str]) -> Result<Self> {
        know_by_heart(site)?;
        let interface = Machine::Node.interface();
        // A bpffs of its own, which this process keeps: all of it goes with that.
        let mut script = format!(
            "set -e; mount -t bpf bpf /sys/fs/bpf; \
             xdp-filter load --policy deny --features tcp,udp,ipv4 --mode native {interface}\n"
        );
        for (mode, ports) in [("dst", open), ("src", answers)] {
            for port in ports {
                writeln!(
                    script,
                    "xdp-filter port {port} --mode {mode} --proto tcp,udp"
                )?;
            }
        }
        for address in friends {
            writeln!(script, "xdp-filter ip {address} --mode src")?;
        }
        script.push_str("echo ready; exec sleep 3600");
        let mut filter = Background::start(
            site,
            Machine::Node,
            "unshare",
            &["--mount", "sh", "-c", &script],
        )?;
        let began = Instant::now();
        while !filter.said().contains("ready") {
            filter.check()?;
            if began.elapsed() > Duration::from_secs(30) {
                bail!("xdp-filter is not ready: {}", filter.said());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self {
            site,
            _pins: filter,
        })
    }
}

impl Drop for XdpFilter<'_> {
    fn drop(&mut self) {
        let off = ["link", "set", Machine::Node.interface(), "xdp", "off"];
        if let Err(error) = self.site.ip(Machine::Node, &off) {
            eprintln!("cannot take xdp-filter off: {error:#}");
        }
    }
}

/// All on the LAN know each other's Ethernet addresses, and need not ask.
fn know_by_heart(site: &Site) -> Result<()> {
    let lan = [Machine::Node, Machine::Router, Machine::Client];
    for machine in lan {
        for other in lan.into_iter().filter(|other| *other != machine) {
            for family in Family::BOTH {
                let (address, mac) = (other.ip(family).to_string(), super::mac_text(other.mac()));
                let interface = machine.interface();
                let entry = [
                    "neigh",
                    "replace",
                    &address,
                    "lladdr",
                    &mac,
                    "dev",
                    interface,
                    "nud",
                    "permanent",
                ];
                site.ip(machine, &entry)?;
            }
        }
    }
    Ok(())
}
