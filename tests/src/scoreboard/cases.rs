//! Which rows of the edge-case table are on the scoreboard, and why each matters.

use std::collections::HashMap;

use super::Policy;
use crate::edge::{self, Row};

/// A packet, and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is one of.
    pub group: &'static Group,
    /// The row of the edge-case table: its frame and the right answer.
    pub row: Row,
    /// The policy that it meets.
    pub policy: Policy,
}

impl Case {
    /// Whether it must get through.
    #[must_use]
    pub fn must_pass(&self) -> bool {
        self.row.verdict == "pass"
    }
}

/// Packets of one kind.
#[derive(Debug)]
pub struct Group {
    /// What they are.
    pub title: &'static str,
    /// What goes wrong where they are decided wrongly.
    pub why: &'static str,
    rows: &'static [&'static str],
}

/// All packets of the scoreboard, group by group.
///
/// # Panics
///
/// Where a name is no row's, or its row meets a policy that is not the scoreboard's.
#[must_use]
pub fn cases() -> Vec<Case> {
    let rows: HashMap<String, Row> = edge::rows()
        .into_iter()
        .map(|row| (row.name.clone(), row))
        .collect();
    let cases = GROUPS.iter().flat_map(|group| {
        group.rows.iter().map(|name| {
            let row = rows.get(*name);
            let row = row.unwrap_or_else(|| panic!("the edge-case table has no row {name:?}"));
            let policy = policy_of(row);
            Case {
                group,
                row: row.clone(),
                policy: policy.unwrap_or_else(|| panic!("{name:?} meets another policy")),
            }
        })
    });
    cases.collect()
}

/// Where the row's answer holds as well. What is dropped though there are no rules, for a
/// reason that comes before them, is dropped under any policy.
fn policy_of(row: &Row) -> Option<Policy> {
    match row.policy {
        edge::Policy::NodePorts => Some(Policy::NodePorts),
        edge::Policy::Lenient if row.verdict == "drop" => Some(Policy::NodePorts),
        edge::Policy::Blocklist if row.reason == "encapsulated" => Some(Policy::NodePorts),
        edge::Policy::Blocklist => Some(Policy::Blocklist),
        edge::Policy::WebOnly => Some(Policy::WebOnly),
        _ => None,
    }
}

static GROUPS: [Group; 17] = [
    Group {
        title: "What the policy says",
        why: "Whoever fails here does not filter at all.",
        rows: &[
            "tcp 80 over IPv4",
            "tcp 80 over IPv6",
            "udp 30080 over IPv4",
            "udp 30080 over IPv6",
            "tcp 443 over IPv4",
            "tcp 443 over IPv6",
            "udp 80 is not tcp 80",
            "sctp 80 is not tcp 80",
            "udplite 30080 is not udp",
            "the answer of a node port",
        ],
    },
    Group {
        title: "Ends of the range",
        why: "An end that is exclusive opens one port, and one too many closes another.",
        rows: &[
            "tcp 30000 over IPv4",
            "udp 30000 over IPv6",
            "tcp 32767 over IPv4",
            "udp 32767 over IPv6",
            "tcp 29999 over IPv4",
            "tcp 32768 over IPv4",
            "udp 32768 over IPv6",
            "tcp 0 over IPv4",
        ],
    },
    Group {
        title: "IP headers that lie",
        why: "Where filter and receiver find the L4 header at different places, the filter \
              decides another packet.",
        rows: &[
            "IHL 0",
            "IHL 4",
            "version 6 behind IPv4's Ethertype",
            "total length 19",
            "total length below the IHL's",
            "the IHL's length is beyond the total length",
            "total length one beyond the frame",
            "19 bytes of IPv4",
            "version 4 behind IPv6's Ethertype",
            "payload length one beyond the frame",
            "39 bytes of IPv6",
        ],
    },
    Group {
        title: "Padding, and L4 headers that are cut",
        why: "Padding must never be read as ports, and a port that is not there must not \
              pass for another one.",
        rows: &[
            "a padded frame",
            "a TCP header beyond the total length",
            "a TCP header beyond the payload length",
            "ICMP without a header, and no rule about ICMP",
            "0 bytes of TCP over IPv4",
            "3 bytes of UDP over IPv4",
            "19 bytes of TCP over IPv4",
            "8 bytes of TCP over IPv6",
        ],
    },
    Group {
        title: "IPv4 options",
        why: "They move the L4 header; a filter that expects it at byte 20 reads options as ports.",
        rows: &[
            "tcp 80 behind 1 words of options",
            "tcp 80 behind 10 words of options",
            "options that look like tcp 80 before tcp 443",
        ],
    },
    Group {
        title: "IPv4 fragments",
        why: "The first one may be too short to show its port, and a later one may write over it \
              at the receiver.",
        rows: &[
            "first fragment of tcp 80",
            "first fragment of tcp 443",
            "first fragment with 0 bytes of TCP",
            "first fragment with 8 bytes of TCP",
            "first fragment with 4 bytes of UDP",
            "TCP at offset 1",
            "a later fragment of TCP",
            "a later fragment of UDP",
            "TCP that overlaps at offset 2",
            "a later fragment of ICMP",
        ],
    },
    Group {
        title: "IPv6 fragments",
        why: "The same, with a chain of headers that may be cut before the port; and a packet of \
              one fragment is no fragment.",
        rows: &[
            "first IPv6 fragment of tcp 80",
            "first IPv6 fragment of tcp 443",
            "first IPv6 fragment, more of the chain",
            "first IPv6 fragment with 8 bytes of TCP",
            "first IPv6 fragment with half an extension header",
            "first IPv6 fragment without the next extension header",
            "two atomic fragment headers",
            "a fragment in a fragment",
            "TCP at offset 1 over IPv6",
            "a later IPv6 fragment of TCP",
            "a later IPv6 fragment behind options",
            "a later IPv6 fragment that hides its protocol",
            "an atomic fragment of udp 30080",
            "an atomic fragment of udp 53",
        ],
    },
    Group {
        title: "IPv6 extension headers",
        why: "Each kind that a filter does not walk, or walks by a wrong length, is a way around \
              it; so is a chain longer than it follows.",
        rows: &[
            "tcp 80 behind hop-by-hop options",
            "tcp 80 behind destination options",
            "tcp 80 behind a routing header of type 2",
            "tcp 80 behind a routing header of type 4",
            "tcp 80 behind an authentication header",
            "tcp 80 behind an authentication header of odd length",
            "tcp 443 behind an authentication header of odd length",
            "tcp 80 behind a mobility header",
            "tcp 80 behind an atomic fragment header",
            "tcp 80 behind every extension header",
            "hop-by-hop options that are not first",
            "a fragment header's reserved byte",
            "8 extension headers",
            "9 extension headers",
            "40 extension headers",
            "routing type 0",
            "routing type 0 behind others",
            "options that run past the payload",
            "an authentication header that runs past the payload",
            "no next header",
        ],
    },
    Group {
        title: "VLAN tags",
        why: "With the tag in the frame: a filter that stops there lets through whatever is \
              behind it.",
        rows: &[
            "tcp 80 over IPv4 behind [8100]",
            "tcp 80 over IPv4 behind [88a8]",
            "tcp 80 over IPv4 behind [9100]",
            "tcp 80 over IPv4 behind [88a8, 8100]",
            "tcp 30080 over IPv6 behind [8100, 8100]",
            "tcp 443 over IPv4 behind [8100]",
            "tcp 443 over IPv4 behind [88a8, 8100]",
            "a priority tag",
            "a later fragment behind two tags",
            "3 tags",
            "three tags of three kinds",
        ],
    },
    Group {
        title: "IP wrapped below IP",
        why: "A bridge, a router or a driver unwraps it behind the filter.",
        rows: &[
            "LLC of IP (06)",
            "SNAP around IPv4",
            "SNAP around IPv4 behind a tag",
            "PPPoE around IPv4",
            "PPPoE around IPv6, short protocol",
            "MPLS around IPv4",
        ],
    },
    Group {
        title: "Not IP",
        why: "Who drops it cuts the machine off from its neighbours and switches.",
        rows: &[
            "ARP",
            "LLDP",
            "STP",
            "PPPoE discovery",
            "an Ethernet header with an unknown type",
        ],
    },
    Group {
        title: "Tunnels and other protocols",
        why: "By the outer header alone: what looks like ports in them is none.",
        rows: &[
            "IP in IP around tcp 80",
            "GRE around tcp 80",
            "ESP around tcp 80",
            "an unknown protocol around tcp 80",
            "VXLAN around tcp 80",
        ],
    },
    Group {
        title: "Odd fields",
        why: "A receiver may take what a filter thinks too odd to look at.",
        rows: &[
            "tcp 80, wrong TCP checksum",
            "tcp 80, wrong IPv4 checksum",
            "udp 30080, no checksum",
            "tcp 80, flags 0x00",
            "tcp 80, flags 0x03",
            "tcp 80, flags 0xff",
            "tcp 80, data offset 0",
            "tcp 80, data offset 15",
            "udp 30080, length field 0",
            "tcp 80, the reserved flag",
            "tcp 80, time to live 0",
        ],
    },
    Group {
        title: "Groups, broadcast and odd addresses",
        why: "The policy names no addresses: it is for these too.",
        rows: &[
            "udp 30080 to 255.255.255.255",
            "udp 30080 to 224.0.0.251",
            "udp 30080 to ff02::1",
            "tcp 80 from an IPv4-mapped address",
        ],
    },
    Group {
        title: "Large frames",
        why: "Headers, or all of a jumbo frame, lie where a program that knows one buffer does \
              not reach.",
        rows: &[
            "tcp 80 in 3600 bytes",
            "tcp 80 in 9014 bytes",
            "tcp 443 in 9014 bytes",
            "tcp 80 behind destination options of 2048 bytes",
            "tcp 443 behind destination options of 2048 bytes",
            "tcp 80 behind twice 250 units of options",
        ],
    },
    Group {
        title: "Networks",
        why: "The first and the last address belong to a prefix, a fragment has addresses, and \
              IPv4-mapped IPv6 is no IPv4.",
        rows: &[
            "203.0.113.0",
            "203.0.113.255",
            "203.0.114.0",
            "203.0.112.255",
            "mapped: its IPv4 prefix is denied",
            "a later fragment from a denied source",
            "a later fragment from elsewhere",
        ],
    },
    Group {
        title: "Default deny",
        why: "ARP, neighbour discovery, path MTU and DHCP keep a closed machine reachable; \
              nothing else comes in beside what is allowed.",
        rows: &[
            "tcp 80 is let in",
            "tcp 80 is let in over IPv6",
            "source port 80 is no way in",
            "source port 53 is no way in",
            "default deny: ARP",
            "neighbour discovery 134",
            "neighbour discovery 135",
            "neighbour discovery 136",
            "neighbour discovery 135 from afar",
            "MLD 130",
            "ICMPv6 error 2",
            "fragmentation needed",
            "port unreachable",
            "echo reply, type and code 0",
            "ICMPv6 in IPv4",
            "ICMP in IPv6",
            "IGMP",
            "DHCP to the client",
            "DHCPv6 to the client",
            "DHCP to the server",
            "a later fragment that tcp 80 could be",
            "default deny: GRE over IPv4",
            "default deny: ESP over IPv6",
            "default deny: protocol 0 over IPv4",
        ],
    },
];
