//! One packet over a veth pair, and what became of it.
//!
//! Nothing else is on the wire: the client has no addresses and sends nothing of its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Hook, Outcome};
use crate::lab::{Lab, Side, open, run};

/// How long a packet may take that takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sent behind a packet: where it has arrived, the packet has as well. Its Ethertype is for
/// experiments, so no filter here has a rule for it.
const MARKER: [u8; 60] = {
    let mut frame = [0; 60];
    [frame[0], frame[5]] = [2, 0x10];
    [frame[6], frame[11]] = [2, 1];
    [frame[12], frame[13]] = [0x88, 0xb6];
    frame
};

/// Of Ethernet.
const HEADER: usize = 14;

/// Counts what comes to the hook of a driver's ingress, and what is left behind the filter.
const INGRESS: &str = "\
table netdev gauge {
    counter sent {}
    counter seen {}
    counter passed {}
    chain before {
        type filter hook ingress device node0 priority -1
        meta protocol != 0x88b6 counter name sent
        meta protocol != 0x88b6 counter name seen
    }
    chain behind {
        type filter hook ingress device node0 priority 1
        meta protocol != 0x88b6 counter name passed
    }
}
";
/// The same of prerouting: before fragments are put together (-400), right before the
/// filter (-300), and right behind it. The last chain is why they are put together, as on
/// any machine that tracks connections.
const PREROUTING: &str = "\
table inet gauge {
    counter sent {}
    counter seen {}
    counter passed {}
    chain first {
        type filter hook prerouting priority -450
        iifname node0 counter name sent
    }
    chain before {
        type filter hook prerouting priority -301
        iifname node0 counter name seen
    }
    chain behind {
        type filter hook prerouting priority -299
        iifname node0 counter name passed
    }
    chain tracking {
        type filter hook input priority 0
        ct state invalid counter
    }
}
";

/// A client that sends, and a node whose filter is measured.
#[derive(Debug)]
pub(super) struct Lane {
    lab: Lab,
    hook: Hook,
    sender: OwnedFd,
    /// Receives what the node's driver, and an XDP program there, let through.
    tap: OwnedFd,
    /// What the node's IP layers count: `snmp`, `netstat`, `snmp6`.
    counts: [File; 3],
    /// The gauge, as it was read last: nothing but this lane's own packets moves it.
    read: Cell<[u64; 3]>,
    files: TempDir,
}

impl Lane {
    /// A lane without a filter.
    pub(super) fn new(hook: Hook) -> Result<Self> {
        let lab = Lab::new()?;
        let client = Side::Client.interface();
        lab.ip(Side::Client, &["address", "flush", "dev", client])?;
        lab.in_ns(Side::Client, || {
            fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")
        })??;
        let tap = lab.in_ns(Side::Node, || {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
        })??;
        let sender = lab.in_ns(Side::Client, || open(client))??;
        // A file of these stays that of the namespace in which it was opened.
        let counts = lab.in_ns(Side::Node, || {
            let open = |name| File::open(format!("/proc/thread-self/net/{name}"));
            Ok::<_, io::Error>([open("snmp")?, open("netstat")?, open("snmp6")?])
        })??;
        forget_fragments(&lab, &["ipv4/ipfrag_time", "ipv6/ip6frag_time"])?;
        let lane = Self {
            lab,
            hook,
            sender,
            tap,
            counts,
            read: Cell::default(),
            files: TempDir::new()?,
        };
        let gauge = match hook {
            Hook::Driver => return Ok(lane),
            Hook::Ingress => INGRESS,
            Hook::Prerouting => PREROUTING,
        };
        let file = lane.files().join("gauge.nft");
        fs::write(&file, gauge)?;
        run(lane.lab.command(Side::Node, "nft").arg("-f").arg(&file))?;
        if hook == Hook::Prerouting {
            // There once connections are tracked.
            forget_fragments(&lane.lab, &["netfilter/nf_conntrack_frag6_timeout"])?;
        }
        Ok(lane)
    }

    pub(super) const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A folder that is gone with it.
    pub(super) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Makes both ends take frames of this length; an error where an XDP program stands
    /// against it.
    pub(super) fn take(&self, length: usize) -> Result<()> {
        let mtu = (length - HEADER).to_string();
        for side in [Side::Client, Side::Node] {
            let interface = side.interface();
            self.lab
                .ip(side, &["link", "set", interface, "mtu", &mtu])?;
        }
        Ok(())
    }

    /// Sends a frame; what became of it.
    pub(super) fn judge(&self, frame: &[u8]) -> Result<Outcome> {
        while self.received()?.is_some() {}
        let refused = self.refused()?;
        let came_out = match self.hook {
            Hook::Driver => self.by_driver(frame)?,
            Hook::Ingress | Hook::Prerouting => self.by_gauge(frame)?,
        };
        let refused = self.refused()? > refused;
        Ok(match came_out {
            Found::Behind if refused => Outcome::PassedThenRefused,
            Found::Behind => Outcome::Passed,
            Found::Dropped => Outcome::Dropped,
            Found::NeverBefore if refused => Outcome::Refused,
            Found::NeverBefore => Outcome::NotSeen,
            Found::Kept => Outcome::Refused,
        })
    }

    /// XDP: what passes is seen by a packet socket, unchanged, and what is dropped is
    /// counted by the driver. It must be one of both.
    fn by_driver(&self, frame: &[u8]) -> Result<Found> {
        let drops = || {
            self.lab
                .driver_counter(Side::Node, "rx_queue_", "_xdp_drops")
        };
        let before = drops()?;
        self.send(frame)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.wait_for(frame, Duration::from_millis(5))? {
                if drops()? != before {
                    bail!("the driver counts as dropped what came through");
                }
                // The socket has it first, then the IP layer.
                thread::sleep(Duration::from_millis(5));
                return Ok(Found::Behind);
            }
            if drops()? > before {
                return Ok(Found::Dropped);
            }
        }
        bail!("it was neither seen behind the driver nor counted as dropped");
    }

    /// nftables, iptables: counters before and behind the filter's chains.
    fn by_gauge(&self, frame: &[u8]) -> Result<Found> {
        let before = self.read.get();
        self.send(frame)?;
        self.send(&MARKER)?;
        if !self.wait_for(&MARKER, PATIENCE)? {
            bail!("the marker behind it did not arrive");
        }
        let mut moved = [0; 3];
        // Another CPU may have had the marker, and be ahead.
        for _ in 0..3 {
            let now = self.gauge()?;
            moved = [0, 1, 2].map(|index| now[index] - before[index]);
            self.read.set(now);
            if moved[0] > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(match moved {
            [0, 0, 0] => Found::NeverBefore,
            [1, 0, 0] => {
                // Else the next packet may meet it: with a timeout of 0 it goes at the next
                // tick, which comes after 10 ms at the latest.
                thread::sleep(Duration::from_millis(20));
                Found::Kept
            }
            [1, 1, 0] => Found::Dropped,
            [1, 1, 1] => Found::Behind,
            _ => bail!("one packet is counted as {moved:?}"),
        })
    }

    /// Packets that were sent, came to the filter, and came out behind it.
    fn gauge(&self) -> Result<[u64; 3]> {
        let mut nft = self.lab.command(Side::Node, "nft");
        let text = run(nft.args(["-j", "list", "counters"]))?;
        let list: Value = serde_json::from_str(&text).context("nft -j: no JSON")?;
        let count = |name: &str| {
            let mut objects = list["nftables"].as_array()?.iter();
            let counter = objects.find(|object| object["counter"]["name"] == name)?;
            counter["counter"]["packets"].as_u64()
        };
        let read = |name| count(name).with_context(|| format!("no counter {name:?}"));
        Ok([read("sent")?, read("seen")?, read("passed")?])
    }

    /// Whether this frame is received within `time`.
    fn wait_for(&self, frame: &[u8], time: Duration) -> Result<bool> {
        let began = Instant::now();
        loop {
            while let Some(received) = self.received()? {
                if same(frame, &received) {
                    return Ok(true);
                }
            }
            if began.elapsed() > time {
                return Ok(false);
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next frame that the tap has, sent ones too.
    fn received(&self) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 16 << 10];
        match recvfrom::<LinkAddr>(self.tap.as_raw_fd(), &mut buffer) {
            Ok((length, _)) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).context("cannot receive"),
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.sender.as_raw_fd(), frame, MsgFlags::empty());
        sent.map(drop).context("cannot send")
    }

    /// Packets that the node's IP layer has found no good.
    fn refused(&self) -> Result<u64> {
        let mut texts = [const { String::new() }; 3];
        for (mut file, text) in self.counts.iter().zip(&mut texts) {
            file.rewind()?;
            file.read_to_string(text)?;
        }
        let [snmp, netstat, snmp6] = &texts;
        Ok(refused(snmp, netstat, snmp6))
    }
}

/// What waits for its other fragments is forgotten at the next tick, and does not meet
/// those of the next packet.
fn forget_fragments(lab: &Lab, timeouts: &[&str]) -> Result<()> {
    lab.in_ns(Side::Node, || {
        for name in timeouts {
            fs::write(format!("/proc/sys/net/{name}"), "0").with_context(|| (*name).to_owned())?;
        }
        Ok(())
    })?
}

/// Where a packet was last seen.
enum Found {
    /// Nowhere.
    NeverBefore,
    /// Before fragments are put together.
    Kept,
    /// Before the filter.
    Dropped,
    /// Behind the filter.
    Behind,
}

/// Whether this frame was received. The kernel takes the outermost VLAN tag out of a frame
/// before it gives it to a socket.
fn same(sent: &[u8], received: &[u8]) -> bool {
    let untagged =
        || sent.len() >= 16 && sent[..12] == received[..12] && sent[16..] == received[12..];
    sent == received || received.len() >= 12 && untagged()
}

/// The sum of what is counted by the IP layers as an error in a packet itself.
fn refused(snmp: &str, netstat: &str, snmp6: &str) -> u64 {
    /// Of `/proc/net/snmp` and `netstat`, which have a line of names before each of numbers.
    const V4: [&str; 5] = [
        "InHdrErrors",
        "InAddrErrors",
        "InDiscards",
        "InTruncatedPkts",
        "InCsumErrors",
    ];
    const V6: [&str; 4] = [
        "Ip6InHdrErrors",
        "Ip6InAddrErrors",
        "Ip6InDiscards",
        "Ip6InTruncatedPkts",
    ];
    let lines: Vec<&str> = snmp.lines().chain(netstat.lines()).collect();
    let v4 = lines.chunks(2).filter_map(|pair| match pair {
        [heads, numbers] if heads.starts_with("Ip:") || heads.starts_with("IpExt:") => {
            let named = heads.split_whitespace().zip(numbers.split_whitespace());
            let wanted = named.filter(|(name, _)| V4.contains(name));
            Some(
                wanted
                    .filter_map(|(_, number)| number.parse::<u64>().ok())
                    .sum::<u64>(),
            )
        }
        _ => None,
    });
    let v6 = snmp6.lines().filter_map(|line| {
        let (name, number) = line.split_once(char::is_whitespace)?;
        let wanted = V6.contains(&name);
        wanted.then(|| number.trim().parse::<u64>().ok())?
    });
    v4.sum::<u64>() + v6.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_ip_layers_are_summed() {
        let snmp = "Ip: Forwarding InReceives InHdrErrors InDiscards\nIp: 1 900 2 3\n\
                    Icmp: InMsgs InCsumErrors\nIcmp: 5 50\n";
        let netstat = "TcpExt: InCsumErrors\nTcpExt: 70\n\
                       IpExt: InTruncatedPkts InCsumErrors\nIpExt: 10 20\n";
        let snmp6 = "Ip6InReceives   \t900\nIp6InHdrErrors \t100\nUdp6InErrors\t7\n";
        assert_eq!(refused(snmp, netstat, snmp6), 2 + 3 + 10 + 20 + 100);
    }

    #[test]
    fn a_frame_is_the_same_without_its_outermost_tag() {
        let tagged = [&[2; 12][..], &[0x81, 0, 0, 7], &[8, 0, 1, 2]].concat();
        let untagged = [&[2; 12][..], &[8, 0, 1, 2]].concat();
        assert!(same(&tagged, &tagged));
        assert!(same(&tagged, &untagged));
        assert!(!same(&untagged, &tagged));
        assert!(!same(&tagged, &untagged[..15]));
        assert!(!same(&tagged, &[]));
    }
}
