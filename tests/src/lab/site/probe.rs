//! Packets that nobody asked for, byte by byte, and whether they come through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::sender::Limit;
use super::{Family, Machine, Outcome, Site, nftables};
use crate::packet::{Ethernet, Ipv4, Ipv6, Packet, Payload};

/// How long a packet may be on its way, before it is sent once more.
const BRIEF: Duration = Duration::from_millis(250);

/// The source of the probe of this number: nobody else's.
pub(super) fn source(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, number.into()).into(),
    }
}

/// A packet from this source to the node.
pub(super) fn packet(source: IpAddr, payload: &dyn Payload) -> Packet {
    match source {
        IpAddr::V4(src) => Ipv4 {
            src,
            dst: Machine::Node.v4(),
            ..Ipv4::default()
        }
        .carry(payload),
        IpAddr::V6(src) => Ipv6 {
            src,
            dst: Machine::Node.v6(),
            ..Ipv6::default()
        }
        .carry(payload),
    }
}

/// Sends a packet to the node, from its own unique source; it works if the node's
/// stack sees it.
pub(super) fn send(site: &Site, from: Machine, source: IpAddr, packet: &Packet) -> Result<Outcome> {
    let frame = from.ethernet_to_node().carry(packet);
    until_heard(site, Machine::Node, source, || {
        site.send(from, std::slice::from_ref(&frame), &Limit::count(1))?;
        Ok(())
    })
}

/// Sends a packet to a group; it works if the neighbour `to` sees it.
pub(super) fn send_to_group(
    site: &Site,
    from: Machine,
    to: Machine,
    group: IpAddr,
    payload: &dyn Payload,
) -> Result<Outcome> {
    let (packet, mac) = match group {
        IpAddr::V4(dst) => {
            let [_, b, c, d] = dst.octets();
            let packet = Ipv4 {
                src: from.v4(),
                dst,
                ttl: 255,
                ..Ipv4::default()
            };
            (packet.carry(payload), [1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(dst) => {
            let [.., a, b, c, d] = dst.octets();
            let packet = Ipv6 {
                src: from.v6(),
                dst,
                hop_limit: 255,
                ..Ipv6::default()
            };
            (packet.carry(payload), [0x33, 0x33, a, b, c, d])
        }
    };
    let ethernet = Ethernet {
        src: from.mac(),
        dst: mac,
        ..Ethernet::default()
    };
    let frame = ethernet.carry(&packet);
    until_heard(site, to, group, || {
        site.send(from, std::slice::from_ref(&frame), &Limit::count(1))?;
        Ok(())
    })
}

/// Does `action`, up to three times, until `machine` hears something from this
/// address, or to it where it is a group's.
pub(super) fn until_heard(
    site: &Site,
    machine: Machine,
    address: IpAddr,
    action: impl Fn() -> Result<()>,
) -> Result<Outcome> {
    let before = nftables::heard(site, machine, address)?;
    for _ in 0..3 {
        action()?;
        let sent = Instant::now();
        while sent.elapsed() < BRIEF {
            if nftables::heard(site, machine, address)? > before {
                return Ok(Outcome::Worked);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(Outcome::Failed(format!(
        "nothing of {address} came to {machine}"
    )))
}
