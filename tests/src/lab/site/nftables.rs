//! What the machines themselves do with packets: the node masquerades its pod and
//! has a node port for it, and counts what came through to it.
//!
//! The counts are taken before the kernel's own connection tracking, reassembly and
//! sockets: exactly what a filter on the interface let through, and under any load.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::super::namespace::run;
use super::{Machine, Site};

/// Packets by their source, those to groups by their destination as well.
const COUNTS: &str = "\
table inet heard {
    set v4 { type ipv4_addr; size 65535; flags dynamic; counter; }
    set v6 { type ipv6_addr; size 65535; flags dynamic; counter; }
    counter answers {}
    chain before {
        type filter hook prerouting priority -450
        udp sport 9001 counter name answers drop
        ip daddr 224.0.0.0/4 update @v4 { ip daddr }
        ip6 daddr ff00::/8 update @v6 { ip6 daddr }
        ip saddr 203.0.113.0/24 update @v4 { ip saddr }
        ip6 saddr 2001:db8:bad::/64 update @v6 { ip6 saddr }
    }
}
";

/// A node's own: pods leave under its address, and a node port leads to one.
const NODE: &str = "\
table inet pods {
    chain in {
        type nat hook prerouting priority -100
        iifname node0 meta nfproto ipv4 tcp dport 30080 dnat ip to 10.244.0.2:8080
        iifname node0 meta nfproto ipv4 udp dport 30080 dnat ip to 10.244.0.2:8080
        iifname node0 meta nfproto ipv6 tcp dport 30080 dnat ip6 to [fd00:244::2]:8080
        iifname node0 meta nfproto ipv6 udp dport 30080 dnat ip6 to [fd00:244::2]:8080
    }
    chain out {
        type nat hook postrouting priority 100
        oifname node0 ip saddr 10.244.0.0/24 masquerade
        oifname node0 ip6 saddr fd00:244::/64 masquerade
    }
}
";

pub(super) fn install(site: &Site) -> Result<()> {
    let own = format!("{COUNTS}{NODE}");
    for (machine, rules) in [(Machine::Node, own.as_str()), (Machine::Client, COUNTS)] {
        let path = site.files().join(format!("{machine}.nft"));
        fs::write(&path, rules)?;
        run(site.command(machine, "nft").arg("-f").arg(&path))?;
    }
    Ok(())
}

/// How many packets a machine has heard from `address`, or to it where it is a
/// group's.
pub(super) fn heard(site: &Site, machine: Machine, address: IpAddr) -> Result<u64> {
    let set = if address.is_ipv4() { "v4" } else { "v6" };
    let text = run(site
        .command(machine, "nft")
        .args(["list", "set", "inet", "heard", set]))?;
    count(&text, &address.to_string())
}

/// How many datagrams came to the node from the port of the many.
pub(super) fn answers(site: &Site) -> Result<u64> {
    let text = run(site
        .command(Machine::Node, "nft")
        .args(["list", "counter", "inet", "heard", "answers"]))?;
    count(&text, "answers")
}

/// The packets in `203.0.113.9 counter packets 3 bytes 120`.
fn count(text: &str, address: &str) -> Result<u64> {
    let mut words = text
        .split(|letter: char| letter.is_whitespace() || letter == ',')
        .filter(|word| !word.is_empty());
    if !words.any(|word| word == address) {
        return Ok(0);
    }
    words
        .skip_while(|word| *word != "packets")
        .nth(1)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("nft says no number for {address}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_a_list() {
        let text = "elements = { 10.0.0.1 counter packets 3 bytes 120, 10.0.0.2 counter packets 7 \
                    bytes 9 }";
        assert_eq!(count(text, "10.0.0.2").unwrap(), 7);
        assert_eq!(count(text, "10.0.0.1").unwrap(), 3);
        assert_eq!(count(text, "10.0.0.9").unwrap(), 0);
    }
}
