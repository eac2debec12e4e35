//! Who is at the site, and under which addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::Ethernet;

/// One of the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The worker node, whose interface is filtered.
    Node,
    /// Between the LAN and the internet; gives addresses out.
    Router,
    /// The node's neighbour on the LAN.
    Client,
    /// The internet: servers and attackers.
    Far,
    /// A pod of the node's.
    Pod,
}

/// One of the two internet protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The option that many programs have for it: `-4` or `-6`.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

/// The MTU of the router's link to the far end, which is smaller than all others.
pub const FAR_MTU: u16 = 1280;

/// The prefix of the addresses that the node gives itself, by the router's
/// advertisements. Its own one is nearer to all destinations here, so nothing is
/// sent from these.
pub const LAN_PREFIX: &str = "2001:db8:a::";

/// Another address of the far end: from here the node is managed.
pub const MANAGEMENT: &str = "198.51.100.7";

pub(super) const ROUTER_LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
pub(super) const ROUTER_WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

/// Machine, interface and addresses.
pub(super) const ADDRESSES: [(Machine, &str, &str, &str); 7] = [
    (Machine::Node, "node0", "192.0.2.10/24", "2001:db8::10/64"),
    (Machine::Node, "cni0", "10.244.0.1/24", "fd00:244::1/64"),
    (Machine::Client, "client0", "192.0.2.1/24", "2001:db8::1/64"),
    (Machine::Router, "lan0", "192.0.2.254/24", "2001:db8::fe/64"),
    (
        Machine::Router,
        "wan0",
        "198.51.100.254/24",
        "2001:db8:1::fe/64",
    ),
    (Machine::Far, "far0", "198.51.100.77/24", "2001:db8:1::7/64"),
    (Machine::Pod, "pod0", "10.244.0.2/24", "fd00:244::2/64"),
];

/// Where a machine's default routes lead.
pub(super) const GATEWAYS: [(Machine, &str); 8] = [
    (Machine::Node, "192.0.2.254"),
    (Machine::Node, "2001:db8::fe"),
    (Machine::Client, "192.0.2.254"),
    (Machine::Client, "2001:db8::fe"),
    (Machine::Far, "198.51.100.254"),
    (Machine::Far, "2001:db8:1::fe"),
    (Machine::Pod, "10.244.0.1"),
    (Machine::Pod, "fd00:244::1"),
];

impl Machine {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Node, Self::Router, Self::Client, Self::Far, Self::Pod];

    pub(super) const fn role(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Router => "router",
            Self::Client => "client",
            Self::Far => "far",
            Self::Pod => "pod",
        }
    }

    /// The name of its interface; the router's to the LAN. No machine's own
    /// interface is called this, so that a command that misses its namespace
    /// fails.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Node => "node0",
            Self::Router => "lan0",
            Self::Client => "client0",
            Self::Far => "far0",
            Self::Pod => "pod0",
        }
    }

    /// Its Ethernet address.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Self::Node => [2, 0, 0, 0, 0, 0x10],
            Self::Router => ROUTER_LAN_MAC,
            Self::Client => [2, 0, 0, 0, 0, 0x01],
            Self::Far => [2, 0, 0, 0, 0, 0x30],
            Self::Pod => [2, 0, 0, 0, 0, 0x40],
        }
    }

    /// Its address.
    #[must_use]
    pub const fn ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4()),
            Family::V6 => IpAddr::V6(self.v6()),
        }
    }

    /// Its IPv4 address.
    #[must_use]
    pub const fn v4(self) -> Ipv4Addr {
        match self {
            Self::Node => Ipv4Addr::new(192, 0, 2, 10),
            Self::Router => Ipv4Addr::new(192, 0, 2, 254),
            Self::Client => Ipv4Addr::new(192, 0, 2, 1),
            Self::Far => Ipv4Addr::new(198, 51, 100, 77),
            Self::Pod => Ipv4Addr::new(10, 244, 0, 2),
        }
    }

    /// Its IPv6 address.
    #[must_use]
    pub const fn v6(self) -> Ipv6Addr {
        match self {
            Self::Node => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10),
            Self::Router => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe),
            Self::Client => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Self::Far => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7),
            Self::Pod => Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 2),
        }
    }

    /// The Ethernet header of what it sends to the node, whichever way that is.
    #[must_use]
    pub fn ethernet_to_node(self) -> Ethernet {
        let dst = match self {
            Self::Far => ROUTER_WAN_MAC,
            _ => Self::Node.mac(),
        };
        Ethernet {
            dst,
            src: self.mac(),
            ..Ethernet::default()
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.role())
    }
}
