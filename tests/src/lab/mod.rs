//! Two machines and the cable between them: network namespaces joined by a
//! veth pair, both ends in namespaces of their own, so that nothing ever
//! touches the machine's own interfaces.
//!
//! A [`Lab`] owns what it made and undoes it when it is dropped, also where
//! it was only half made. What a killed process left behind, [`Lab::sweep`]
//! removes.

#[cfg(feature = "bpf")]
mod daemon;
mod namespace;
#[cfg(feature = "bpf")]
mod node;
mod reach;
mod sender;
mod service;
#[cfg(feature = "bpf")]
pub mod site;

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

#[cfg(feature = "bpf")]
pub use daemon::Daemon;
#[cfg(feature = "bpf")]
pub use node::{Node, program};
pub use reach::Reach;
pub use sender::{Limit, Sent};
pub use service::{Service, Transport};
#[cfg(feature = "bpf")]
pub(crate) use {namespace::run, sender::open};

use namespace::{Namespace, ip};

/// One of the lab's two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where traffic comes from.
    Client,
    /// Where the services, and the filter, are.
    Node,
}

impl Side {
    /// The name of its interface. No machine's own interface is called this,
    /// so that a command that misses its namespace fails.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Client => "client0",
            Self::Node => "node0",
        }
    }

    /// Its Ethernet address.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Self::Client => [2, 0, 0, 0, 0, 0x01],
            Self::Node => [2, 0, 0, 0, 0, 0x10],
        }
    }

    /// Its IPv4 address.
    #[must_use]
    pub const fn v4(self) -> Ipv4Addr {
        match self {
            Self::Client => Ipv4Addr::new(192, 0, 2, 1),
            Self::Node => Ipv4Addr::new(192, 0, 2, 10),
        }
    }

    /// Its IPv6 address.
    #[must_use]
    pub const fn v6(self) -> Ipv6Addr {
        match self {
            Self::Client => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Self::Node => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10),
        }
    }

    /// Both of its addresses.
    #[must_use]
    pub const fn addresses(self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4()), IpAddr::V6(self.v6())]
    }
}

/// A client and a node, each in a namespace of its own.
#[derive(Debug)]
pub struct Lab {
    client: Namespace,
    node: Namespace,
}

impl Lab {
    /// Makes the namespaces and joins them. Needs root.
    pub fn new() -> Result<Self> {
        if !geteuid().is_root() {
            bail!("only root may make network namespaces");
        }
        let lab = Self {
            client: Namespace::new("client")?,
            node: Namespace::new("node")?,
        };
        lab.join()?;
        Ok(lab)
    }

    /// Joins the machines; again, where the cable was taken away.
    pub fn join(&self) -> Result<()> {
        let (client, node) = (Side::Client.interface(), Side::Node.interface());
        let namespace = self.namespace(Side::Node).name();
        self.ip(
            Side::Client,
            &[
                "link", "add", client, "type", "veth", "peer", "name", node, "netns", namespace,
            ],
        )?;
        for side in [Side::Client, Side::Node] {
            let interface = side.interface();
            let mac = side.mac().map(|byte| format!("{byte:02x}")).join(":");
            // Whole checksums and tags in every frame: a veth would leave
            // both to be done by a card that is not there.
            let mut ethtool = self.command(side, "ethtool");
            namespace::run(ethtool.args(["-K", interface, "tx", "off", "txvlan", "off"]))?;
            self.ip(side, &["link", "set", "lo", "up"])?;
            self.ip(side, &["link", "set", interface, "address", &mac, "up"])?;
            let (v4, v6) = (format!("{}/24", side.v4()), format!("{}/64", side.v6()));
            self.ip(side, &["address", "add", &v4, "dev", interface])?;
            self.ip(side, &["address", "add", &v6, "dev", interface, "nodad"])?;
            // With a queue, a full veth makes the sender wait; without one it
            // drops. The queue must hold what one socket's buffer can.
            let mut tc = self.command(side, "tc");
            namespace::run(tc.args([
                "qdisc", "replace", "dev", interface, "root", "pfifo", "limit", "10000",
            ]))?;
        }
        Ok(())
    }

    /// Runs `ip` with `arguments` on a side.
    pub fn ip(&self, side: Side, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", self.namespace(side).name()], arguments].concat())
    }

    /// Runs `action` in a thread that is in the side's network namespace.
    pub fn in_ns<T: Send>(&self, side: Side, action: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace(side).run_in(action)
    }

    /// A command that runs in the side's network namespace.
    pub fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        self.namespace(side).command(program)
    }

    /// A driver counter of the side's interface, summed over its queues:
    /// `("rx_queue_", "_xdp_drops")` names `rx_queue_0_xdp_drops` and the
    /// like.
    pub fn driver_counter(&self, side: Side, prefix: &str, suffix: &str) -> Result<u64> {
        let text = namespace::run(self.command(side, "ethtool").args(["-S", side.interface()]))?;
        let mut sum = None;
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(": ") else {
                continue;
            };
            if name.starts_with(prefix) && name.ends_with(suffix) {
                let value: u64 = value.trim().parse().context("ethtool printed no number")?;
                sum = Some(sum.unwrap_or(0) + value);
            }
        }
        sum.with_context(|| format!("the driver has no counter {prefix}…{suffix}"))
    }

    /// Packets that the side's interface took and did not hand to the other side: from
    /// Linux 6.16 on a veth whose other side is behind makes the sender wait, and before
    /// it drops them.
    #[cfg(feature = "bpf")]
    pub fn undelivered(&self, side: Side) -> Result<u64> {
        let text = self.ip(side, &["-j", "-s", "link", "show", "dev", side.interface()])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let dropped = links[0]["stats64"]["tx"]["dropped"].as_u64();
        dropped.context("ip says nothing of dropped packets")
    }

    /// The id of the XDP program on the side's interface, as `ip` says it.
    pub fn xdp_program(&self, side: Side) -> Result<Option<u32>> {
        let text = self.ip(side, &["link", "show", "dev", side.interface()])?;
        let mut words = text.split_whitespace();
        // `prog/xdp id 7 name …`
        if !words.any(|word| word == "prog/xdp") {
            return Ok(None);
        }
        let id = words.nth(1).context("ip names no program id")?;
        Ok(Some(id.parse().context("ip printed no number")?))
    }

    /// Names of both namespaces, as `ip netns` lists them.
    #[must_use]
    pub fn names(&self) -> [&str; 2] {
        [self.client.name(), self.node.name()]
    }

    /// Removes the namespaces of labs whose process is dead; returns their
    /// names.
    pub fn sweep() -> Result<Vec<String>> {
        namespace::sweep()
    }

    fn namespace(&self, side: Side) -> &Namespace {
        match side {
            Side::Client => &self.client,
            Side::Node => &self.node,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lab_answers_and_leaves_nothing() {
        if !crate::require::root_and_bpf() {
            return;
        }
        let lab = Lab::new().unwrap();
        let names = lab.names().map(str::to_owned);
        for transport in [Transport::Tcp, Transport::Udp] {
            let service = lab.serve(Side::Node, transport, 30080).unwrap();
            for address in Side::Node.addresses() {
                let to = SocketAddr::new(address, 30080);
                let reach = lab
                    .reach(Side::Client, transport, to, Duration::from_secs(5))
                    .unwrap();
                assert_eq!(reach, Reach::Answered, "{transport} {to}");
            }
            drop(service);
        }
        let frame: Vec<u8> = [Side::Node.mac(), Side::Client.mac()]
            .concat()
            .into_iter()
            // An EtherType for experiments: no stack answers.
            .chain([0x88, 0xb5])
            .chain([0; 46])
            .collect();
        let before = received(&lab);
        let sent = lab
            .send(Side::Client, &[frame], &Limit::count(20_000))
            .unwrap();
        assert_eq!(sent.packets, 20_000);
        assert!(received(&lab) - before >= 20_000);
        drop(lab);
        let left = ip(&["netns", "list"]).unwrap();
        for name in names {
            assert!(!left.contains(&name), "{name} is left");
        }
    }

    fn received(lab: &Lab) -> u64 {
        let text = lab
            .in_ns(Side::Node, || {
                std::fs::read_to_string("/proc/thread-self/net/dev")
            })
            .unwrap()
            .unwrap();
        let line = text.lines().find(|line| line.contains("node0:")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}
