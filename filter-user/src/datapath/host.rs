//! What the kernel says about this host: its interfaces' addresses, and
//! whether it forwards.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use nix::time::{ClockId, clock_getres, clock_gettime};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use super::error::Error;
use super::interface;

/// The addresses of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Each interface with its addresses.
    pub interfaces: Vec<(String, Vec<IpAddr>)>,
    /// Where packets to this host go: its addresses, its networks' broadcast
    /// addresses, and all of multicast, which is not forwarded without a
    /// routing daemon of its own.
    pub own: Vec<IpNet>,
}

/// How many jiffies a second has: the kernel's `CONFIG_HZ`.
pub(super) fn jiffies_per_second() -> u32 {
    // The coarse clock goes on with the jiffies, and says so.
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .map(|tick| Duration::from(tick).as_nanos())
        .filter(|tick| *tick > 0)
        .and_then(|tick| u32::try_from(1_000_000_000 / tick).ok())
        .unwrap_or(FEWEST_JIFFIES)
}

/// The present jiffy, as programs read it.
pub(super) fn jiffies() -> u64 {
    let told = std::fs::File::open("/proc/timer_list")
        .ok()
        .and_then(|file| {
            BufReader::new(file)
                .lines()
                .map_while(Result::ok)
                .find_map(|line| line.strip_prefix("jiffies: ")?.trim().parse().ok())
        });
    // They begin 300 seconds before 32 bits of them are full (`INITIAL_JIFFIES`
    // of include/linux/jiffies.h), and go on with this clock.
    told.unwrap_or_else(|| {
        let second = u64::from(jiffies_per_second());
        let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let begin = (1_u64 << u32::BITS) - 300 * second;
        begin + since.as_secs() * second + u64::from(since.subsec_millis()) * second / 1000
    })
}

/// Bytes of a map: bpffs and bpf(2) don't say, its fdinfo does.
pub(super) fn map_memory(map: BorrowedFd<'_>) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Jiffies a second where the kernel has fewest.
const FEWEST_JIFFIES: u32 = 100;

/// Reads the addresses of the caller's network namespace.
pub fn addresses() -> Result<HostAddresses, Error> {
    let messages = interface::ask("the host's addresses", async |handle| {
        handle
            .address()
            .get()
            .execute()
            .try_collect::<Vec<_>>()
            .await
    })?;
    let mut host = HostAddresses {
        own: [
            IpNet::new_assert(IpAddr::from([224, 0, 0, 0]), 4),
            IpNet::new_assert(IpAddr::from([255, 255, 255, 255]), 32),
            IpNet::new_assert(IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
        ]
        .into(),
        ..HostAddresses::default()
    };
    for interface in interface::all()? {
        let mut addresses = Vec::new();
        let of = |message: &&AddressMessage| message.header.index == interface.index;
        for message in messages.iter().filter(of) {
            let (address, broadcast) = addresses_of(message);
            addresses.extend(address);
            host.own
                .extend(address.into_iter().chain(broadcast).map(IpNet::from));
        }
        host.interfaces.push((interface.name, addresses));
    }
    host.own.sort_unstable();
    host.own.dedup();
    Ok(host)
}

/// The address and the broadcast address that a message tells of.
fn addresses_of(message: &AddressMessage) -> (Option<IpAddr>, Option<IpAddr>) {
    let (mut address, mut local, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => address = Some(*found),
            // On a point-to-point link the other is the peer's.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Broadcast(found) => broadcast = Some(IpAddr::V4(*found)),
            _ => {}
        }
    }
    (local.or(address), broadcast)
}

/// Whether this host forwards packets that come in on an interface. Where it
/// can't be told, it may.
#[must_use]
pub fn forwards(interface: &str) -> bool {
    ["ipv4", "ipv6"].iter().any(|version| {
        let path = format!("/proc/sys/net/{version}/conf/{interface}/forwarding");
        match std::fs::read_to_string(path) {
            Ok(text) => text.trim() != "0",
            // Without IPv6, or without the interface, there is nothing to forward.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    })
}
