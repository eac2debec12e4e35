//! A node where nodes are: on a LAN with a client and a router, behind which is
//! the internet, and with a pod of its own behind it.
//!
//! ```text
//!   pod ── node ──┐ LAN           MTU 1280
//!                 ├─ router ─────────────── far
//!        client ──┘
//! ```
//!
//! Everything on it is real: the stacks are the kernel's, the servers and clients
//! programs of the distribution wherever there is one ([`programs`]), and the node
//! masquerades its pod and has a node port for it, by nftables. A [`Client`] is one
//! thing that somebody does there, with what must become of it; [`mix`] has those of
//! a worker node, and [`day`] lets them all at it.

mod clients;
mod day;
mod machine;
pub mod mix;
mod nftables;
mod probe;
mod programs;
mod servers;
mod sockets;
mod worker;
mod xdp_filter;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::namespace::{self, Namespace, ip};
use super::sender::{self, Limit, Sent};

pub use clients::{Client, Expect, Outcome};
pub use day::{Plan, Report, day};
pub use machine::{FAR_MTU, Family, LAN_PREFIX, MANAGEMENT, Machine};
pub use programs::{Load, iperf3};
pub use servers::MANY;
pub use worker::{Policies, Worker};
pub use xdp_filter::XdpFilter;

use servers::Servers;

/// What the node's interface leaves to be done by a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums are in every frame.
    None,
    /// Checksums and the cutting into segments: what leaves the node is seen in
    /// pieces of up to 64 KiB, without checksums.
    Segments,
}

/// The machines, and the servers on them. Undone when this is dropped.
#[derive(Debug)]
pub struct Site {
    // Stopped before the namespaces that they are in go away.
    servers: Option<Servers>,
    machines: [Namespace; Machine::ALL.len()],
    files: TempDir,
}

impl Site {
    /// Makes the machines, joins them, and starts the servers. Needs root.
    pub fn new(offload: Offload) -> Result<Self> {
        if !geteuid().is_root() {
            bail!("only root may make network namespaces");
        }
        let mut site = Self {
            servers: None,
            machines: [
                Namespace::new(Machine::Node.role())?,
                Namespace::new(Machine::Router.role())?,
                Namespace::new(Machine::Client.role())?,
                Namespace::new(Machine::Far.role())?,
                Namespace::new(Machine::Pod.role())?,
            ],
            files: TempDir::new()?,
        };
        site.settings()?;
        site.join(offload)?;
        site.route()?;
        nftables::install(&site)?;
        site.servers = Some(Servers::start(&site)?);
        Ok(site)
    }

    /// How the kernels of these machines behave, before there are interfaces.
    fn settings(&self) -> Result<()> {
        for machine in Machine::ALL {
            // Sources are forged here, and errors are many.
            let mut settings = vec![
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                // A port that a client insists on is free again at once.
                ("ipv4/tcp_max_tw_buckets", "0"),
            ];
            if matches!(machine, Machine::Node | Machine::Router) {
                settings.extend([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
            }
            for (name, value) in settings {
                self.set(machine, name, value)?;
            }
            self.ip(machine, &["link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn join(&self, offload: Offload) -> Result<()> {
        let router = Machine::Router;
        self.ip(
            router,
            &[
                // Unknown groups go everywhere, as on a plain switch.
                "link",
                "add",
                "lan0",
                "type",
                "bridge",
                "mcast_snooping",
                "0",
            ],
        )?;
        let lan = mac_text(machine::ROUTER_LAN_MAC);
        self.ip(router, &["link", "set", "lan0", "address", &lan, "up"])?;
        self.cable(Machine::Node, router, "lan-node", 1500, offload)?;
        self.cable(Machine::Client, router, "lan-client", 1500, Offload::None)?;
        for port in ["lan-node", "lan-client"] {
            self.ip(router, &["link", "set", port, "master", "lan0"])?;
        }
        self.cable(Machine::Far, router, "wan0", FAR_MTU, Offload::None)?;
        let wan = mac_text(machine::ROUTER_WAN_MAC);
        self.ip(router, &["link", "set", "wan0", "address", &wan])?;
        self.cable(Machine::Pod, Machine::Node, "cni0", 1500, Offload::None)
    }

    /// A pair between `machine`'s interface and `port` of `other`, whose MTU is the
    /// hop's.
    fn cable(
        &self,
        machine: Machine,
        other: Machine,
        port: &str,
        mtu: u16,
        offload: Offload,
    ) -> Result<()> {
        let interface = machine.interface();
        let namespace = self.namespace(other).name();
        self.ip(
            machine,
            &[
                "link", "add", interface, "type", "veth", "peer", "name", port, "netns", namespace,
            ],
        )?;
        let mac = mac_text(machine.mac());
        self.ip(machine, &["link", "set", interface, "address", &mac])?;
        self.ip(other, &["link", "set", port, "mtu", &mtu.to_string()])?;
        for (end, name, offload) in [(machine, interface, offload), (other, port, Offload::None)] {
            if offload == Offload::None {
                let mut ethtool = self.command(end, "ethtool");
                namespace::run(ethtool.args(["-K", name, "tx", "off", "txvlan", "off"]))?;
            }
            // With a queue, a full veth makes the sender wait.
            let mut tc = self.command(end, "tc");
            namespace::run(tc.args([
                "qdisc", "replace", "dev", name, "root", "pfifo", "limit", "10000",
            ]))?;
            self.ip(end, &["link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Addresses and routes.
    fn route(&self) -> Result<()> {
        for (machine, interface, v4, v6) in machine::ADDRESSES {
            self.ip(machine, &["address", "add", v4, "dev", interface])?;
            self.ip(machine, &["address", "add", v6, "dev", interface, "nodad"])?;
        }
        let management = format!("{MANAGEMENT}/24");
        self.ip(
            Machine::Far,
            &["address", "add", &management, "dev", "far0"],
        )?;
        let path = FAR_MTU.to_string();
        for (machine, via) in machine::GATEWAYS {
            let mut route = vec!["route", "add", "default", "via", via];
            if machine == Machine::Far {
                // Its card takes whole frames, as a server's does: those who send to
                // it learn of the small hop from the router.
                let mss = if via.contains(':') { "1440" } else { "1460" };
                route.extend(["mtu", &path, "advmss", mss]);
            }
            self.ip(machine, &route)?;
        }
        // The addresses that it gives itself, and no route of theirs.
        for (name, value) in [("accept_ra_defrtr", "0"), ("accept_ra", "2")] {
            self.set(Machine::Node, &format!("ipv6/conf/node0/{name}"), value)?;
        }
        Ok(())
    }

    /// Sets `/proc/sys/net/<name>` of a machine.
    fn set(&self, machine: Machine, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        self.in_ns(machine, || fs::write(&path, value))?
            .with_context(|| format!("cannot set {} of {machine}", path.display()))
    }

    /// Runs `ip` with `arguments` on a machine.
    pub fn ip(&self, machine: Machine, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", self.namespace(machine).name()], arguments].concat())
    }

    /// Runs `action` in a thread that is in the machine's network namespace.
    pub fn in_ns<T: Send>(&self, machine: Machine, action: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace(machine).run_in(action)
    }

    /// A command that runs in the machine's network namespace.
    pub fn command(&self, machine: Machine, program: impl AsRef<OsStr>) -> Command {
        self.namespace(machine).command(program)
    }

    /// Sends the frames, in order and over and over, from a machine's interface.
    pub fn send(&self, machine: Machine, frames: &[Vec<u8>], limit: &Limit<'_>) -> Result<Sent> {
        self.in_ns(machine, || sender::send(machine.interface(), frames, limit))?
    }

    /// How many datagrams from port [`MANY`] came through to the node. Nobody there
    /// wants them: they end where they are counted.
    pub fn answers(&self) -> Result<u64> {
        nftables::answers(self)
    }

    /// A folder for files.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    fn namespace(&self, machine: Machine) -> &Namespace {
        &self.machines[machine as usize]
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
