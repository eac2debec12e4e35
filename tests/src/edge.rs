//! The packets that decide whether a filter is a filter, as data: each with
//! the policy it meets and the answer that it must get.
//!
//! Every evaluator is held against this table. It says what the standards and
//! the semantics of policies demand, so when an evaluator disagrees, the
//! evaluator is wrong. Names and reasons are the interface's, as text: the
//! table depends on nothing of the filter.

mod exchange;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::{
    Arp, Ethernet, Extension, Icmp, Icmpv6, Ipv4, Ipv6, Packet, Payload, Raw, Sctp, Tcp, Udp,
    ethertype, internet_checksum, llc, mpls, pppoe, protocol, snap,
};

pub use exchange::{Before, Exchange, Going, Rules, exchanges};

/// The rulesets that the rows meet. What they hold is written here in words;
/// whoever runs the table builds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// The seed's: denies (0) tcp 30000-32767, (1) udp 30000-32767, and (2)
    /// tcp 80. Allows by default. Stage preDNAT.
    NodePorts,
    /// As [`Self::NodePorts`], with fragments judged by L3 alone.
    NodePortsL3Fragments,
    /// Denies by source alone: (0) 203.0.113.0/24, (1) `2001:db8:f::/48`.
    /// Allows by default.
    Blocklist,
    /// (0) allows 203.0.113.0/24 and (1) `2001:db8:f::/48`, (2) denies all
    /// ports of tcp. Allows by default.
    Trusted,
    /// (0) allows tcp 80. Denies by default.
    WebOnly,
    /// As [`Self::WebOnly`], without essentials and without what isn't IP.
    WebOnlyBare,
    /// No rules. Allows by default, but drops what isn't IP.
    IpOnly,
    /// No rules. Allows by default, and passes wrapped IP.
    Lenient,
    /// No rules. Passes wrapped IP like what isn't IP, and drops that.
    LenientIpOnly,
    /// Denies by protocol number: (0) 4, (1) 41, (2) 47, (3) 50, (4) 51,
    /// (5) 59, (6) 99; and (7) udp 4789. Allows by default.
    Tunnels,
    /// The failsafes (0) tcp 22 and (1) udp 68, then (2) denies everything.
    /// Allows by default.
    Failsafe,
    /// (0) denies ICMPv6. Denies by default.
    NoIcmpv6,
    /// (0) denies 0.0.0.0/0. Allows by default.
    NoIpv4,
    /// (0) denies `::ffff:203.0.113.0/120`. Allows by default.
    NoMapped,
    /// Denies destinations: (0) 255.255.255.255, (1) 224.0.0.0/4, (2)
    /// `ff00::/8`. Allows by default.
    NoMulticast,
    /// (0) denies tcp 0. Allows by default.
    NoPortZero,
    /// Denies (0) ICMP type 0 code 0, (1) ICMP type 3 with any code, (2)
    /// `ICMPv6` type 128 code 0, (3) ICMP of any type but 8 and any code.
    /// Allows by default.
    IcmpTypes,
    /// (0) allows udp from port 53, (1) tcp to any port but 22. Denies by
    /// default.
    ByExclusion,
    /// (0) denies any protocol but TCP. Allows by default.
    OnlyTcp,
    /// The tier a: (0) passes tcp on, (1) allows udp 53, (2) denies at its end.
    /// The tier b: (3) denies tcp 80. Allows by default.
    Tiers,
    /// (0) denies tcp 80 to the set of 192.0.2.10 and `2001:db8::10`, the
    /// node's own addresses, (1) at its end denies what goes there, and (2)
    /// denies tcp 443 wherever it goes. Allows by default.
    OwnAddresses,
    /// (0) logs tcp 80, (1) would deny (staged) everything from
    /// 203.0.113.0/24, (2) logs everything, (3) denies tcp 80. Allows by
    /// default.
    LogAndStaged,
}

impl Policy {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NodePorts,
        Self::NodePortsL3Fragments,
        Self::Blocklist,
        Self::Trusted,
        Self::WebOnly,
        Self::WebOnlyBare,
        Self::IpOnly,
        Self::Lenient,
        Self::LenientIpOnly,
        Self::Tunnels,
        Self::Failsafe,
        Self::NoIcmpv6,
        Self::NoIpv4,
        Self::NoMapped,
        Self::NoMulticast,
        Self::NoPortZero,
        Self::IcmpTypes,
        Self::ByExclusion,
        Self::OnlyTcp,
        Self::Tiers,
        Self::OwnAddresses,
        Self::LogAndStaged,
    ];
}

/// One packet, one policy, one right answer.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is, unique in the table.
    pub name: String,
    /// Which standard, or which of the project's rules, demands the answer.
    pub source: &'static str,
    /// The frame, from the Ethernet header on.
    pub frame: Vec<u8>,
    /// The ruleset that it meets.
    pub policy: Policy,
    /// `pass` or `drop`.
    pub verdict: &'static str,
    /// The reason's name.
    pub reason: &'static str,
    /// The index of the rule that decides, if one does.
    pub rule: Option<u32>,
    /// The indices of the rules that are counted beside the verdict.
    pub noted: Vec<u32>,
}

/// The table.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut table = Table::default();
    baseline(&mut table);
    port_ranges(&mut table);
    malformed(&mut table);
    ipv4_options(&mut table);
    ipv4_fragments(&mut table);
    ipv6_chain(&mut table);
    ipv6_fragments(&mut table);
    cut_packets(&mut table);
    vlan_tags(&mut table);
    not_ip(&mut table);
    wrapped_ip(&mut table);
    essentials(&mut table);
    failsafes(&mut table);
    tunnels(&mut table);
    addresses(&mut table);
    any_address(&mut table);
    odd_fields(&mut table);
    large_frames(&mut table);
    icmp_types(&mut table);
    exclusions(&mut table);
    tiers(&mut table);
    own_addresses(&mut table);
    noted(&mut table);
    table.rows
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    source: &'static str,
    policy: Option<Policy>,
}

impl Table {
    /// What the rows that follow are about.
    fn section(&mut self, source: &'static str, policy: Policy) {
        self.source = source;
        self.policy = Some(policy);
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        frame: impl Into<Vec<u8>>,
        (verdict, reason, rule): (&'static str, &'static str, Option<u32>),
    ) {
        self.rows.push(Row {
            name: name.into(),
            source: self.source,
            frame: frame.into(),
            policy: self.policy.unwrap_or(Policy::NodePorts),
            verdict,
            reason,
            rule,
            noted: Vec::new(),
        });
    }

    /// The row that was added last is noted by these rules.
    fn noting(&mut self, noted: &[u32]) {
        if let Some(row) = self.rows.last_mut() {
            row.noted = noted.to_vec();
        }
    }

    /// Dropped by no rule.
    fn drops(&mut self, name: impl Into<String>, frame: impl Into<Vec<u8>>, reason: &'static str) {
        self.push(name, frame, ("drop", reason, None));
    }

    /// Passed by no rule.
    fn passes(&mut self, name: impl Into<String>, frame: impl Into<Vec<u8>>, reason: &'static str) {
        self.push(name, frame, ("pass", reason, None));
    }

    /// Dropped by a deny rule.
    fn denied(&mut self, name: impl Into<String>, frame: impl Into<Vec<u8>>, rule: u32) {
        self.push(name, frame, ("drop", "policy_deny", Some(rule)));
    }

    /// Passed by an allow rule.
    fn allowed(&mut self, name: impl Into<String>, frame: impl Into<Vec<u8>>, rule: u32) {
        self.push(name, frame, ("pass", "policy_allow", Some(rule)));
    }
}

/// `packet` in a frame without tags.
fn plain(packet: &Packet) -> Vec<u8> {
    Ethernet::default().carry(packet)
}

fn tagged(tags: &[u16], packet: &Packet) -> Vec<u8> {
    Ethernet::default().tagged(tags).carry(packet)
}

fn v4(payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv4::default().carry(payload))
}

fn v6(payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv6::default().carry(payload))
}

fn v6_with(extensions: impl Into<Vec<Extension>>, payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv6::with(extensions).carry(payload))
}

/// 40 bytes that look like headers to tcp 443 wherever one looks.
fn decoy() -> Vec<u8> {
    [0x01, 0xbb].repeat(20)
}

fn baseline(t: &mut Table) {
    t.section(
        "deny decides, what nothing matches passes",
        Policy::NodePorts,
    );
    t.denied("tcp 80 over IPv4", v4(&Tcp::to(80)), 2);
    t.denied("tcp 80 over IPv6", v6(&Tcp::to(80)), 2);
    t.denied("udp 30080 over IPv4", v4(&Udp::to(30080)), 1);
    t.denied("udp 30080 over IPv6", v6(&Udp::to(30080)), 1);
    t.passes("tcp 443 over IPv4", v4(&Tcp::to(443)), "default_allow");
    t.passes("tcp 443 over IPv6", v6(&Tcp::to(443)), "default_allow");
    t.passes("udp 80 is not tcp 80", v4(&Udp::to(80)), "default_allow");
    t.passes("sctp 80 is not tcp 80", v4(&Sctp::to(80)), "default_allow");
    t.passes(
        "udplite 30080 is not udp",
        v4(&Udp::lite_to(30080)),
        "default_allow",
    );
    let from = Tcp {
        sport: 30080,
        ..Tcp::to(51515)
    };
    t.passes("the answer of a node port", v4(&from), "default_allow");
    t.section("never by source port alone", Policy::WebOnly);
    t.allowed("tcp 80 is let in", v4(&Tcp::to(80)), 0);
    t.allowed("tcp 80 is let in over IPv6", v6(&Tcp::to(80)), 0);
    let bypass = Tcp {
        sport: 80,
        ..Tcp::to(22)
    };
    t.drops("source port 80 is no way in", v4(&bypass), "default_deny");
    let bypass = Udp {
        sport: 53,
        ..Udp::to(5000)
    };
    t.drops("source port 53 is no way in", v4(&bypass), "default_deny");
}

fn port_ranges(t: &mut Table) {
    t.section("both ends of a port range belong to it", Policy::NodePorts);
    for port in [30000, 30001, 32766, 32767] {
        t.denied(format!("tcp {port} over IPv4"), v4(&Tcp::to(port)), 0);
        t.denied(format!("tcp {port} over IPv6"), v6(&Tcp::to(port)), 0);
        t.denied(format!("udp {port} over IPv4"), v4(&Udp::to(port)), 1);
        t.denied(format!("udp {port} over IPv6"), v6(&Udp::to(port)), 1);
    }
    for port in [0, 79, 81, 29999, 32768, 65535] {
        t.passes(
            format!("tcp {port} over IPv4"),
            v4(&Tcp::to(port)),
            "default_allow",
        );
        t.passes(
            format!("udp {port} over IPv6"),
            v6(&Udp::to(port)),
            "default_allow",
        );
    }
}

fn malformed(t: &mut Table) {
    let tcp = Tcp::to(443);
    t.section("RFC 791, section 3.1", Policy::NodePorts);
    for ihl in 0..5 {
        let packet = Ipv4 {
            ihl: Some(ihl),
            ..Ipv4::default()
        };
        t.drops(
            format!("IHL {ihl}"),
            plain(&packet.carry(&tcp)),
            "malformed",
        );
    }
    for version in [0, 5, 6, 15] {
        let packet = Ipv4 {
            version,
            ..Ipv4::default()
        };
        let name = format!("version {version} behind IPv4's Ethertype");
        t.drops(name, plain(&packet.carry(&tcp)), "malformed");
    }
    for (name, ihl, total) in [
        ("total length 0", None, 0),
        ("total length 19", None, 19),
        ("total length below the IHL's", Some(6), 23),
        ("the IHL's length is beyond the total length", Some(15), 40),
        ("total length one beyond the frame", None, 41),
        ("total length far beyond the frame", None, 65535),
    ] {
        let packet = Ipv4 {
            ihl,
            total_length: Some(total),
            ..Ipv4::default()
        };
        t.drops(name, plain(&packet.carry(&tcp)), "malformed");
    }
    let packet = Ipv4::default().carry(&tcp).cut(19);
    t.drops("19 bytes of IPv4", plain(&packet), "malformed");
    t.drops(
        "IPv4's Ethertype and nothing",
        plain(&packet.cut(0)),
        "malformed",
    );

    t.section("RFC 8200, section 3", Policy::NodePorts);
    for version in [0, 4, 7] {
        let packet = Ipv6 {
            version,
            ..Ipv6::default()
        };
        let name = format!("version {version} behind IPv6's Ethertype");
        t.drops(name, plain(&packet.carry(&tcp)), "malformed");
    }
    let packet = Ipv6 {
        payload_length: Some(21),
        ..Ipv6::default()
    };
    let name = "payload length one beyond the frame";
    t.drops(name, plain(&packet.carry(&tcp)), "malformed");
    let packet = Ipv6::default().carry(&tcp).cut(39);
    t.drops("39 bytes of IPv6", plain(&packet), "malformed");
    let packet = Ipv6 {
        payload_length: Some(0),
        ..Ipv6::default()
    };
    let name = "payload length 0, as a jumbogram's (RFC 2675)";
    t.drops(name, plain(&packet.carry(&tcp)), "unreadable_l4");

    t.section("a frame that ends in its Ethernet header", Policy::Lenient);
    t.drops("an empty frame", [], "malformed");
    t.drops("13 bytes", [0; 13], "malformed");

    t.section("padding is not the packet", Policy::NodePorts);
    let padded = Ethernet {
        pad_to: 60,
        padding: 0xff,
        ..Ethernet::default()
    };
    let packet = Ipv4::default().carry(&Udp::to(30080));
    t.denied("a padded frame", padded.carry(&packet), 1);
    let packet = Ipv4 {
        total_length: Some(30),
        ..Ipv4::default()
    };
    let name = "a TCP header beyond the total length";
    t.drops(name, plain(&packet.carry(&tcp)), "unreadable_l4");
    let packet = Ipv6 {
        payload_length: Some(10),
        ..Ipv6::default()
    };
    let name = "a TCP header beyond the payload length";
    t.drops(name, plain(&packet.carry(&tcp)), "unreadable_l4");
    // Nothing asks for ICMP's header.
    let packet = Ipv4 {
        total_length: Some(20),
        ..Ipv4::default()
    };
    let name = "ICMP without a header, and no rule about ICMP";
    t.passes(
        name,
        plain(&packet.carry(&Icmp::new(8, 0))),
        "default_allow",
    );
}

fn ipv4_options(t: &mut Table) {
    t.section("IPv4 options: L4 at IHL×4", Policy::NodePorts);
    for words in 1..=10_u8 {
        let packet = Ipv4 {
            options: decoy()[..usize::from(words) * 4].to_vec(),
            ..Ipv4::default()
        };
        let name = format!("tcp 80 behind {words} words of options");
        t.denied(name, plain(&packet.carry(&Tcp::to(80))), 2);
    }
    let packet = Ipv4 {
        // The options' first word looks like a header to tcp 80.
        options: [0, 80].repeat(2),
        ..Ipv4::default()
    };
    let name = "options that look like tcp 80 before tcp 443";
    t.passes(name, plain(&packet.carry(&Tcp::to(443))), "default_allow");
}

fn ipv4_fragments(t: &mut Table) {
    let to = Tcp::to;
    // A fragment of a datagram that is not all there.
    let part = |payload: &dyn Payload, offset: u16, bytes: std::ops::Range<usize>| {
        let packet = Ipv4 {
            payload: bytes,
            ..Ipv4::fragment(offset, true)
        };
        plain(&packet.carry(payload))
    };
    let later = |payload: &dyn Payload| plain(&Ipv4::fragment(64, false).carry(payload));
    let long = |port| Tcp {
        rest: vec![0; 64],
        ..to(port)
    };

    t.section(
        "first fragment, full L4 header: evaluate",
        Policy::NodePorts,
    );
    t.denied("first fragment of tcp 80", part(&long(80), 0, 0..40), 2);
    t.denied(
        "first fragment with just the header",
        part(&to(80), 0, 0..20),
        2,
    );
    t.denied(
        "first fragment of udp 30080",
        part(&Udp::to(30080), 0, 0..8),
        1,
    );
    let name = "first fragment of tcp 443";
    t.passes(name, part(&long(443), 0, 0..40), "default_allow");
    let whole = Ipv4 {
        dont_fragment: true,
        ..Ipv4::default()
    };
    t.denied("\"don't fragment\" alone", plain(&whole.carry(&to(80))), 2);

    t.section("RFC 1858: tiny first fragments", Policy::NodePorts);
    for length in [0, 8, 16, 19] {
        let name = format!("first fragment with {length} bytes of TCP");
        t.drops(name, part(&to(443), 0, 0..length), "tiny_fragment");
    }
    let name = "first fragment with 4 bytes of UDP";
    t.drops(name, part(&Udp::to(443), 0, 0..4), "tiny_fragment");
    let name = "first fragment with 8 bytes of SCTP";
    t.drops(name, part(&Sctp::to(443), 0, 0..8), "tiny_fragment");
    let name = "first fragment with 4 bytes of ICMP";
    t.drops(name, part(&Icmp::new(8, 0), 0, 0..4), "tiny_fragment");
    t.section("RFC 3128: TCP at offset 1", Policy::Lenient);
    t.drops("TCP at offset 1", part(&to(443), 1, 8..20), "tiny_fragment");
    let last = Ipv4::fragment(1, false).carry(&long(443));
    t.drops(
        "TCP at offset 1, the last one",
        plain(&last),
        "tiny_fragment",
    );
    t.passes(
        "UDP at offset 1, no rules",
        part(&Udp::to(1), 1, 8..16),
        "default_allow",
    );

    t.section(
        "a later fragment that an L4 rule could match",
        Policy::NodePorts,
    );
    t.drops("a later fragment of TCP", later(&to(443)), "fragment");
    let name = "a later fragment whose data looks like tcp 80";
    t.drops(name, later(&to(80)), "fragment");
    t.drops("a later fragment of UDP", later(&Udp::to(443)), "fragment");
    t.drops(
        "an empty last fragment",
        part(&to(443), 64, 0..0),
        "fragment",
    );
    t.drops("UDP at offset 1", part(&Udp::to(443), 1, 8..16), "fragment");
    // RFC 1858's overlap: at offset 2 it would rewrite ports no more.
    t.drops(
        "TCP that overlaps at offset 2",
        part(&to(80), 2, 16..20),
        "fragment",
    );
    t.passes(
        "a later fragment of ICMP",
        later(&Icmp::new(8, 0)),
        "default_allow",
    );
    t.passes(
        "a later fragment of SCTP",
        later(&Sctp::to(80)),
        "default_allow",
    );
    let gre = Raw::new(protocol::GRE, &decoy());
    t.passes("a later fragment of GRE", later(&gre), "default_allow");

    t.section("fragments: l3-only", Policy::NodePortsL3Fragments);
    t.passes(
        "l3-only: a later fragment of TCP",
        later(&to(443)),
        "default_allow",
    );
    t.passes(
        "l3-only: a later fragment of UDP",
        later(&Udp::to(30080)),
        "default_allow",
    );
    t.denied("l3-only: a whole packet", v4(&to(80)), 2);
    t.denied("l3-only: a first fragment", part(&long(80), 0, 0..40), 2);
    let name = "l3-only: a tiny first fragment";
    t.drops(name, part(&to(443), 0, 0..8), "tiny_fragment");
    let name = "l3-only: TCP at offset 1";
    t.drops(name, part(&to(443), 1, 8..20), "tiny_fragment");
    let short = Ipv4 {
        payload: 0..8,
        ..Ipv4::default()
    };
    let name = "l3-only: a short header in a whole packet";
    t.drops(name, plain(&short.carry(&to(443))), "unreadable_l4");

    t.section("an L3-only rule decides a fragment", Policy::Blocklist);
    t.denied("a later fragment from a denied source", later(&to(443)), 0);
    let packet = Ipv4 {
        src: Ipv4Addr::new(198, 51, 100, 7),
        ..Ipv4::fragment(64, false)
    };
    let name = "a later fragment from elsewhere";
    t.passes(name, plain(&packet.carry(&to(443))), "default_allow");
    t.section(
        "the first rule in order decides a fragment",
        Policy::Trusted,
    );
    t.allowed("a later fragment from a trusted source", later(&to(443)), 0);
    let name = "a later fragment from an untrusted source";
    t.drops(name, plain(&packet.carry(&to(443))), "fragment");
    t.section("the default decides a fragment", Policy::WebOnly);
    let name = "a later fragment that tcp 80 could be";
    t.drops(name, later(&to(443)), "fragment");
    let name = "a later fragment of what nothing allows";
    t.drops(name, later(&Udp::to(68)), "default_deny");
}

fn ipv6_chain(t: &mut Table) {
    let headers = || {
        vec![
            ("hop-by-hop options", Extension::hop_by_hop()),
            ("destination options", Extension::destination()),
            ("a routing header of type 2", Extension::routing(2)),
            ("a routing header of type 4", Extension::routing(4)),
            ("an authentication header", Extension::authentication(3)),
            (
                "an authentication header of odd length",
                Extension::authentication(4),
            ),
            ("a mobility header", Extension::mobility()),
            ("an atomic fragment header", Extension::fragment(0, false)),
            (
                "destination options of 2048 bytes",
                Extension::units(protocol::DESTINATION, 256),
            ),
        ]
    };
    t.section("RFC 8200, section 4: extension headers", Policy::NodePorts);
    for (name, header) in headers() {
        let denied = v6_with([header.clone()], &Tcp::to(80));
        t.denied(format!("tcp 80 behind {name}"), denied, 2);
        let passed = v6_with([header], &Tcp::to(443));
        t.passes(format!("tcp 443 behind {name}"), passed, "default_allow");
    }
    let all = [
        Extension::hop_by_hop(),
        Extension::destination(),
        Extension::routing(4),
        Extension::fragment(0, false),
        Extension::authentication(3),
        Extension::destination(),
        Extension::mobility(),
    ];
    t.denied(
        "tcp 80 behind every extension header",
        v6_with(all, &Tcp::to(80)),
        2,
    );
    // RFC 8200 wants it first; where it stands elsewhere, it hides nothing.
    let late = [Extension::destination(), Extension::hop_by_hop()];
    t.denied(
        "hop-by-hop options that are not first",
        v6_with(late, &Tcp::to(80)),
        2,
    );
    let mut atomic = Extension::fragment(0, false);
    // Reserved, and no length: a fragment header is 8 bytes.
    atomic.rest[0] = 3;
    t.denied(
        "a fragment header's reserved byte",
        v6_with([atomic], &Tcp::to(80)),
        2,
    );
    let mut atomic = Extension::fragment(0, false);
    atomic.rest[2] |= 0b110;
    t.denied(
        "a fragment header's reserved bits",
        v6_with([atomic], &Tcp::to(80)),
        2,
    );

    t.section(
        "at least 8 extension headers, beyond: drop",
        Policy::NodePorts,
    );
    let chain = |count| vec![Extension::destination(); count];
    t.denied("8 extension headers", v6_with(chain(8), &Tcp::to(80)), 2);
    let name = "9 extension headers";
    t.drops(name, v6_with(chain(9), &Tcp::to(443)), "ipv6_extension");
    let none = Raw::new(protocol::DESTINATION, &[]);
    let name = "a ninth extension header that is not there";
    t.drops(name, v6_with(chain(8), &none), "ipv6_extension");
    t.drops(
        "40 extension headers",
        v6_with(chain(40), &Tcp::to(443)),
        "ipv6_extension",
    );

    t.section("RFC 5095: routing type 0", Policy::Lenient);
    let routed = |headers: Vec<Extension>| v6_with(headers, &Tcp::to(443));
    let zero = || Extension::routing(0);
    t.drops("routing type 0", routed(vec![zero()]), "ipv6_extension");
    let hidden = vec![Extension::destination(), Extension::routing(4), zero()];
    t.drops(
        "routing type 0 behind others",
        routed(hidden),
        "ipv6_extension",
    );
    let cut = vec![zero().claims(200)];
    t.drops(
        "routing type 0 that is not all there",
        routed(cut),
        "ipv6_extension",
    );

    t.section(
        "a chain that can't be read hides the protocol",
        Policy::NodePorts,
    );
    let beyond = |header: Extension| v6_with([header.claims(200)], &Tcp::to(443));
    let name = "options that run past the payload";
    t.drops(name, beyond(Extension::destination()), "unreadable_l4");
    let name = "a routing header that runs past the payload";
    t.drops(name, beyond(Extension::routing(4)), "unreadable_l4");
    let name = "an authentication header that runs past the payload";
    t.drops(name, beyond(Extension::authentication(3)), "unreadable_l4");
    for length in [0, 1, 2, 7] {
        let cut = Raw::new(
            protocol::DESTINATION,
            &[protocol::TCP, 0, 1, 4, 0, 0, 0][..length],
        );
        let name = format!("{length} bytes of destination options");
        t.drops(name, v6(&cut), "unreadable_l4");
    }
    let packet = Ipv6 {
        payload_length: Some(4),
        ..Ipv6::with([Extension::destination()])
    };
    let name = "options that run into the padding";
    t.drops(name, plain(&packet.carry(&Tcp::to(443))), "unreadable_l4");
    t.section(
        "an L3-only rule decides a hidden protocol",
        Policy::Blocklist,
    );
    let hidden = || v6_with([Extension::destination().claims(200)], &Tcp::to(443));
    t.denied("a hidden protocol from a denied source", hidden(), 1);
    t.section(
        "a hidden protocol makes the protocol an L4 matter",
        Policy::Tunnels,
    );
    t.drops(
        "a hidden protocol and a rule about GRE",
        hidden(),
        "unreadable_l4",
    );
    t.section("no rule asks for what is hidden", Policy::Lenient);
    t.passes("a hidden protocol and no rules", hidden(), "default_allow");

    t.section("RFC 8200, section 4.7: no next header", Policy::NodePorts);
    let none = Raw::new(protocol::NO_NEXT, &decoy());
    t.passes("no next header", v6(&none), "default_allow");
    let name = "no next header behind options";
    t.passes(
        name,
        v6_with([Extension::destination()], &none),
        "default_allow",
    );
}

fn ipv6_fragments(t: &mut Table) {
    let fragment = Extension::fragment;
    let first = |length: usize, payload: &dyn Payload| {
        let packet = Ipv6 {
            payload: 0..length,
            ..Ipv6::with([fragment(0, true)])
        };
        plain(&packet.carry(payload))
    };
    let later = |payload: &dyn Payload| v6_with([fragment(64, false)], payload);
    let long = |port| Tcp {
        rest: vec![0; 64],
        ..Tcp::to(port)
    };

    t.section(
        "first fragment, full L4 header: evaluate",
        Policy::NodePorts,
    );
    t.denied("first IPv6 fragment of tcp 80", first(40, &long(80)), 2);
    t.passes(
        "first IPv6 fragment of tcp 443",
        first(40, &long(443)),
        "default_allow",
    );
    let chain = [
        fragment(0, true),
        Extension::authentication(3),
        Extension::destination(),
    ];
    t.denied(
        "first IPv6 fragment, more of the chain",
        v6_with(chain, &long(80)),
        2,
    );
    t.section("RFC 6946: atomic fragments", Policy::NodePorts);
    let atomic = |payload: &dyn Payload| v6_with([fragment(0, false)], payload);
    t.denied(
        "an atomic fragment of udp 30080",
        atomic(&Udp::to(30080)),
        1,
    );
    t.passes(
        "an atomic fragment of udp 53",
        atomic(&Udp::to(53)),
        "default_allow",
    );
    let short = Raw::new(protocol::TCP, &[0; 8]);
    t.drops(
        "an atomic fragment with a short header",
        atomic(&short),
        "unreadable_l4",
    );

    t.section(
        "RFC 7112: the first fragment has the whole chain",
        Policy::Lenient,
    );
    for length in [0, 8, 19] {
        let name = format!("first IPv6 fragment with {length} bytes of TCP");
        t.drops(name, first(length, &Tcp::to(443)), "tiny_fragment");
    }
    let name = "first IPv6 fragment with 4 bytes of ICMPv6";
    t.drops(name, first(4, &Icmpv6::new(128, 0)), "tiny_fragment");
    let cut = Raw::new(protocol::DESTINATION, &[protocol::TCP, 1, 1, 4, 0, 0, 0, 0]);
    let name = "first IPv6 fragment with half an extension header";
    t.drops(name, first(8, &cut), "ipv6_extension");
    let name = "first IPv6 fragment without the next extension header";
    t.drops(name, first(0, &cut), "ipv6_extension");
    t.section("two fragment headers", Policy::Lenient);
    let two = [fragment(0, false), fragment(0, false)];
    t.drops(
        "two atomic fragment headers",
        v6_with(two, &Tcp::to(443)),
        "ipv6_extension",
    );
    let two = [fragment(0, true), fragment(64, false)];
    t.drops(
        "a fragment in a fragment",
        v6_with(two, &Tcp::to(443)),
        "ipv6_extension",
    );
    let two = [
        fragment(0, false),
        Extension::destination(),
        fragment(64, false),
    ];
    t.drops(
        "two fragment headers apart",
        v6_with(two, &Tcp::to(443)),
        "ipv6_extension",
    );
    let two = [fragment(64, false), fragment(0, false)];
    t.drops(
        "a later fragment of a fragment",
        v6_with(two, &Tcp::to(443)),
        "ipv6_extension",
    );

    t.section("RFC 3128 over IPv6: TCP at offset 1", Policy::Lenient);
    let one = || v6_with([fragment(1, true)], &Tcp::to(443));
    t.drops("TCP at offset 1 over IPv6", one(), "tiny_fragment");

    t.section(
        "a later fragment that an L4 rule could match",
        Policy::NodePorts,
    );
    t.drops(
        "a later IPv6 fragment of TCP",
        later(&Tcp::to(443)),
        "fragment",
    );
    t.drops(
        "a later IPv6 fragment of UDP",
        later(&Udp::to(443)),
        "fragment",
    );
    let name = "a later IPv6 fragment whose data looks like tcp 80";
    t.drops(name, later(&Tcp::to(80)), "fragment");
    t.passes(
        "a later IPv6 fragment of ICMPv6",
        later(&Icmpv6::new(128, 0)),
        "default_allow",
    );
    let behind = [Extension::hop_by_hop(), fragment(64, true)];
    let name = "a later IPv6 fragment behind options";
    t.drops(name, v6_with(behind, &Tcp::to(443)), "fragment");
    let hides = Raw::new(protocol::DESTINATION, &[0; 16]);
    t.drops(
        "a later IPv6 fragment that hides its protocol",
        later(&hides),
        "fragment",
    );
    t.section("fragments: l3-only", Policy::NodePortsL3Fragments);
    t.passes(
        "l3-only: a later IPv6 fragment",
        later(&Tcp::to(80)),
        "default_allow",
    );
    let name = "l3-only: a later IPv6 fragment that hides its protocol";
    t.passes(name, later(&hides), "default_allow");
    t.section("an L3-only rule decides a fragment", Policy::Blocklist);
    t.denied(
        "a later IPv6 fragment from a denied source",
        later(&Tcp::to(443)),
        1,
    );
    t.section(
        "the first rule in order decides a fragment",
        Policy::Trusted,
    );
    t.allowed(
        "a later IPv6 fragment from a trusted source",
        later(&hides),
        1,
    );
}

fn cut_packets(t: &mut Table) {
    t.section("truncated at every byte", Policy::NodePorts);
    let frames = [
        ("tcp 80 over IPv4", v4(&Tcp::to(80))),
        (
            "tcp 80 over IPv6 behind extension headers",
            v6_with(
                [Extension::hop_by_hop(), Extension::authentication(3)],
                &Tcp::to(80),
            ),
        ),
        (
            "udp 30080 behind two tags",
            tagged(
                &[ethertype::SERVICE_VLAN, ethertype::VLAN],
                &Ipv4::default().carry(&Udp::to(30080)),
            ),
        ),
    ];
    for (name, frame) in frames {
        for length in 14..frame.len() {
            t.drops(
                format!("{name}, {length} bytes of it"),
                &frame[..length],
                "malformed",
            );
        }
    }
    t.section("an L4 header cut at every byte", Policy::NodePorts);
    for length in 0..20 {
        let packet = Ipv4 {
            payload: 0..length,
            ..Ipv4::default()
        };
        let frame = plain(&packet.carry(&Tcp::to(443)));
        t.drops(
            format!("{length} bytes of TCP over IPv4"),
            frame,
            "unreadable_l4",
        );
        let packet = Ipv6 {
            payload: 0..length,
            ..Ipv6::default()
        };
        let frame = plain(&packet.carry(&Tcp::to(443)));
        t.drops(
            format!("{length} bytes of TCP over IPv6"),
            frame,
            "unreadable_l4",
        );
    }
    for length in 0..8 {
        let packet = Ipv4 {
            payload: 0..length,
            ..Ipv4::default()
        };
        let frame = plain(&packet.carry(&Udp::to(443)));
        t.drops(
            format!("{length} bytes of UDP over IPv4"),
            frame,
            "unreadable_l4",
        );
    }
}

fn vlan_tags(t: &mut Table) {
    use ethertype::{OLD_SERVICE_VLAN, SERVICE_VLAN, VLAN};
    let four = |port| Ipv4::default().carry(&Tcp::to(port));
    let six = |port| Ipv6::default().carry(&Tcp::to(port));
    t.section("IEEE 802.1Q, 802.1ad: up to two tags", Policy::NodePorts);
    for tags in [
        &[VLAN][..],
        &[SERVICE_VLAN],
        &[OLD_SERVICE_VLAN],
        &[SERVICE_VLAN, VLAN],
        &[VLAN, VLAN],
        &[OLD_SERVICE_VLAN, OLD_SERVICE_VLAN],
    ] {
        let name = format!("{tags:04x?}");
        t.denied(
            format!("tcp 80 over IPv4 behind {name}"),
            tagged(tags, &four(80)),
            2,
        );
        t.denied(
            format!("tcp 30080 over IPv6 behind {name}"),
            tagged(tags, &six(30080)),
            0,
        );
        let frame = tagged(tags, &four(443));
        t.passes(
            format!("tcp 443 over IPv4 behind {name}"),
            frame,
            "default_allow",
        );
    }
    let priority = Ethernet {
        // Priority 7, drop-eligible, VLAN 0.
        tags: vec![(VLAN, 0xf000)],
        ..Ethernet::default()
    };
    t.denied("a priority tag", priority.carry(&four(80)), 2);
    let later = Ipv4::fragment(64, false).carry(&Tcp::to(443));
    t.drops(
        "a later fragment behind two tags",
        tagged(&[SERVICE_VLAN, VLAN], &later),
        "fragment",
    );
    t.section("deeper: drop", Policy::Lenient);
    for count in [3, 4, 16] {
        let frame = tagged(&vec![VLAN; count], &four(443));
        t.drops(format!("{count} tags"), frame, "vlan_depth");
    }
    let three = [SERVICE_VLAN, VLAN, OLD_SERVICE_VLAN];
    t.drops(
        "three tags of three kinds",
        tagged(&three, &four(443)),
        "vlan_depth",
    );
    let lldp = Packet::new(ethertype::LLDP, &[]);
    t.drops(
        "three tags around LLDP",
        tagged(&three, &lldp),
        "vlan_depth",
    );
    t.section("a frame that ends in its tags", Policy::Lenient);
    for (count, length) in [(1, 14), (1, 16), (1, 17), (2, 18), (2, 20), (2, 21)] {
        let frame = tagged(&vec![VLAN; count], &four(443));
        let name = format!("{count} tags, {length} bytes");
        t.drops(name, &frame[..length], "malformed");
    }
}

fn not_ip(t: &mut Table) {
    let arp = || {
        plain(
            &Arp {
                sender: Ipv4Addr::new(203, 0, 113, 7),
                target: Ipv4Addr::new(192, 0, 2, 10),
            }
            .packet(),
        )
    };
    let discovery = || Packet::new(ethertype::PPPOE_DISCOVERY, &[0x11, 9, 0, 0, 0, 0]);
    let frames = || {
        vec![
            ("LLDP", plain(&Packet::new(ethertype::LLDP, &[2, 7, 4]))),
            (
                "LLDP behind a tag",
                tagged(&[ethertype::VLAN], &Packet::new(ethertype::LLDP, &[2])),
            ),
            ("STP", plain(&llc(0x42, 0x42, &[0; 35]))),
            (
                "an 802.3 frame with nothing in it",
                plain(&llc(0, 0, &[]).cut(0)),
            ),
            (
                "SNAP around ARP",
                plain(&snap([0; 3], &Packet::new(ethertype::ARP, &[0; 28]))),
            ),
            (
                "SNAP of another organisation",
                plain(&snap([0, 0, 0xc], &Packet::new(0x2000, &[0; 20]))),
            ),
            (
                "an undefined type, 1501",
                plain(&Packet::new(1501, &[6, 6, 3])),
            ),
            (
                "an undefined type, 1535",
                plain(&Packet::new(1535, &[6, 6, 3])),
            ),
            ("PPPoE discovery", plain(&discovery())),
            (
                "PPPoE session: LCP",
                plain(&pppoe(0xc021, false, &[9, 1, 0, 8])),
            ),
            (
                "MPLS around an Ethernet frame",
                plain(&mpls(&[16], &[0, 0, 0, 0])),
            ),
            (
                "an Ethernet header with an unknown type",
                plain(&Packet::new(0x88b5, &[])),
            ),
        ]
    };
    t.section("what isn't IP passes by default", Policy::NodePorts);
    for (name, frame) in frames() {
        t.passes(name, frame, "not_ip");
    }
    t.passes("ARP", arp(), "not_ip");
    t.section("… under default deny as well", Policy::WebOnly);
    for (name, frame) in frames() {
        t.passes(format!("default deny: {name}"), frame, "not_ip");
    }
    t.passes("default deny: ARP", arp(), "essential");
    t.section("… unless it is switched off", Policy::IpOnly);
    for (name, frame) in frames() {
        t.drops(format!("IP only: {name}"), frame, "not_ip");
    }
    t.passes("IP only: ARP", arp(), "essential");
    t.section("without essentials ARP is one of them", Policy::WebOnlyBare);
    t.drops("no essentials: ARP", arp(), "not_ip");
}

fn wrapped_ip(t: &mut Table) {
    let four = Ipv4::default().carry(&Tcp::to(80));
    let six = Ipv6::default().carry(&Tcp::to(80));
    let vlan = Packet::new(ethertype::VLAN, &[0, 100, 8, 0, 0x45]);
    let upstream = Packet {
        ethertype: ethertype::MPLS_UPSTREAM,
        ..mpls(&[16], &four.bytes)
    };
    let frames = vec![
        ("LLC of IP (06)", plain(&llc(0x06, 0x06, &four.bytes))),
        ("LLC to IP (06)", plain(&llc(0x06, 0x42, &four.bytes))),
        ("LLC from IP (06)", plain(&llc(0x42, 0x06, &four.bytes))),
        ("SNAP around IPv4", plain(&snap([0; 3], &four))),
        ("SNAP around IPv6", plain(&snap([0; 3], &six))),
        (
            "SNAP (00-00-F8) around IPv4",
            plain(&snap([0, 0, 0xf8], &four)),
        ),
        ("SNAP around a VLAN tag", plain(&snap([0; 3], &vlan))),
        (
            "SNAP around PPPoE",
            plain(&snap([0; 3], &pppoe(0x21, false, &four.bytes))),
        ),
        (
            "SNAP around MPLS",
            plain(&snap([0; 3], &mpls(&[16], &four.bytes))),
        ),
        (
            "SNAP around IPv4 behind a tag",
            tagged(&[ethertype::VLAN], &snap([0; 3], &four)),
        ),
        (
            "PPPoE around IPv4",
            plain(&pppoe(0x0021, false, &four.bytes)),
        ),
        (
            "PPPoE around IPv6",
            plain(&pppoe(0x0057, false, &six.bytes)),
        ),
        (
            "PPPoE around IPv4, short protocol",
            plain(&pppoe(0x21, true, &four.bytes)),
        ),
        (
            "PPPoE around IPv6, short protocol",
            plain(&pppoe(0x57, true, &six.bytes)),
        ),
        ("PPPoE around MPLS", plain(&pppoe(0x0281, false, &[0; 8]))),
        (
            "PPPoE around MPLS multicast",
            plain(&pppoe(0x0283, false, &[0; 8])),
        ),
        (
            "PPPoE behind two tags",
            tagged(&[0x88a8, 0x8100], &pppoe(0x21, false, &four.bytes)),
        ),
        (
            "PPPoE too short to tell",
            plain(&pppoe(0x21, false, &[]).cut(7)),
        ),
        (
            "PPPoE without its header",
            plain(&pppoe(0x21, false, &[]).cut(3)),
        ),
        ("MPLS around IPv4", plain(&mpls(&[16], &four.bytes))),
        ("MPLS around IPv6", plain(&mpls(&[16], &six.bytes))),
        ("MPLS, upstream label", plain(&upstream)),
        ("MPLS, 8 labels", plain(&mpls(&[16; 8], &four.bytes))),
        ("MPLS, 9 labels", plain(&mpls(&[16; 9], &[0; 8]))),
        ("MPLS without an end", plain(&mpls(&[16; 3], &[]).cut(8))),
        ("MPLS with nothing behind", plain(&mpls(&[16], &[]))),
        ("MPLS cut in a label", plain(&mpls(&[16], &[]).cut(3))),
    ];
    t.section(
        "IP that is wrapped is dropped by default",
        Policy::Blocklist,
    );
    for (name, frame) in &frames {
        t.drops(*name, &frame[..], "encapsulated");
    }
    t.section("… and passes where that is switched on", Policy::Lenient);
    for (name, frame) in &frames {
        t.passes(format!("wrapped IP passes: {name}"), &frame[..], "not_ip");
    }
    t.section("… as what isn't IP", Policy::LenientIpOnly);
    for (name, frame) in &frames {
        t.drops(
            format!("wrapped IP is not IP: {name}"),
            &frame[..],
            "not_ip",
        );
    }
}

fn essentials(t: &mut Table) {
    let nd = |kind: u8, hop_limit: u8| {
        let packet = Ipv6 {
            hop_limit,
            ..Ipv6::default()
        };
        plain(&packet.carry(&Icmpv6::new(kind, 0)))
    };
    t.section(
        "RFC 4861: neighbour discovery has hop limit 255",
        Policy::WebOnly,
    );
    for kind in 133..=137 {
        t.passes(
            format!("neighbour discovery {kind}"),
            nd(kind, 255),
            "essential",
        );
        let name = format!("neighbour discovery {kind} from afar");
        t.drops(name, nd(kind, 254), "default_deny");
    }
    for kind in [128, 129, 138, 142] {
        t.drops(format!("ICMPv6 {kind}"), nd(kind, 255), "default_deny");
    }
    t.section("RFC 2710, RFC 3810: multicast listeners", Policy::WebOnly);
    for kind in [130, 131, 132, 143] {
        let packet = Ipv6 {
            hop_limit: 1,
            ..Ipv6::with([Extension::hop_by_hop()])
        };
        let frame = plain(&packet.carry(&Icmpv6::new(kind, 0)));
        t.passes(format!("MLD {kind}"), frame, "essential");
    }
    t.section("RFC 4890: ICMPv6 errors", Policy::WebOnly);
    for kind in 1..=4 {
        t.passes(format!("ICMPv6 error {kind}"), nd(kind, 64), "essential");
    }
    t.drops("ICMPv6 0", nd(0, 64), "default_deny");
    t.drops("ICMPv6 5", nd(5, 64), "default_deny");
    t.section("RFC 1191: path MTU", Policy::WebOnly);
    t.passes("fragmentation needed", v4(&Icmp::new(3, 4)), "essential");
    t.drops("port unreachable", v4(&Icmp::new(3, 3)), "default_deny");
    t.drops(
        "echo reply, type and code 0",
        v4(&Icmp::new(0, 0)),
        "default_deny",
    );
    t.drops("echo request", v4(&Icmp::new(8, 0)), "default_deny");
    t.drops(
        "ICMP cut",
        v4(&Raw::new(protocol::ICMP, &[3, 4, 0, 0])),
        "default_deny",
    );
    t.drops("ICMPv6 in IPv4", v4(&Icmpv6::new(2, 0)), "default_deny");
    t.drops("ICMP in IPv6", v6(&Icmp::new(3, 4)), "default_deny");
    t.section("RFC 3376: group membership", Policy::WebOnly);
    let igmp = Raw::new(protocol::IGMP, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]);
    t.passes("IGMP", v4(&igmp), "essential");
    let name = "IGMP with the router alert option";
    let alert = Ipv4 {
        options: vec![0x94, 4, 0, 0],
        ..Ipv4::default()
    };
    t.passes(name, plain(&alert.carry(&igmp)), "essential");
    let later = Ipv4::fragment(64, false).carry(&igmp);
    t.passes("a later fragment of IGMP", plain(&later), "essential");
    t.drops("IGMP's number in IPv6", v6(&igmp), "default_deny");
    t.section("RFC 2131, RFC 8415: DHCP", Policy::WebOnly);
    t.passes("DHCP to the client", v4(&Udp::to(68)), "essential");
    t.passes("DHCPv6 to the client", v6(&Udp::to(546)), "essential");
    t.drops("DHCP to the server", v4(&Udp::to(67)), "default_deny");
    t.drops("DHCPv6 to the server", v6(&Udp::to(547)), "default_deny");
    t.drops("DHCP's port over IPv6", v6(&Udp::to(68)), "default_deny");
    t.drops("DHCPv6's port over IPv4", v4(&Udp::to(546)), "default_deny");
    t.drops("DHCP's port of TCP", v4(&Tcp::to(68)), "default_deny");
    t.section("an explicit deny decides before them", Policy::NoIcmpv6);
    t.denied("neighbour discovery, denied", nd(135, 255), 0);
    t.denied("packet too big, denied", nd(2, 64), 0);
    t.passes("DHCPv6 beside it", v6(&Udp::to(546)), "essential");
    t.section("they can be switched off", Policy::WebOnlyBare);
    t.drops(
        "no essentials: neighbour discovery",
        nd(135, 255),
        "default_deny",
    );
    t.drops("no essentials: DHCP", v4(&Udp::to(68)), "default_deny");
    t.drops("no essentials: IGMP", v4(&igmp), "default_deny");
    t.section(
        "under default allow they are nothing special",
        Policy::NodePorts,
    );
    t.passes(
        "default allow: neighbour discovery",
        nd(135, 1),
        "default_allow",
    );
    t.passes(
        "default allow: echo request",
        v4(&Icmp::new(8, 0)),
        "default_allow",
    );
}

fn failsafes(t: &mut Table) {
    let later = |payload: &dyn Payload| plain(&Ipv4::fragment(64, false).carry(payload));
    t.section("failsafe ports come first", Policy::Failsafe);
    t.push(
        "failsafe ssh",
        v4(&Tcp::to(22)),
        ("pass", "failsafe", Some(0)),
    );
    t.push(
        "failsafe ssh over IPv6",
        v6(&Tcp::to(22)),
        ("pass", "failsafe", Some(0)),
    );
    t.push(
        "failsafe DHCP",
        v4(&Udp::to(68)),
        ("pass", "failsafe", Some(1)),
    );
    t.denied("udp 22 is no failsafe", v4(&Udp::to(22)), 2);
    t.denied("tcp 23 is no failsafe", v4(&Tcp::to(23)), 2);
    t.section(
        "a failsafe never matches what doesn't show its port",
        Policy::Failsafe,
    );
    t.denied("a later fragment of TCP, deny all", later(&Tcp::to(22)), 2);
    let short = Raw::new(protocol::TCP, &[0xc9, 0x3b, 0, 22]);
    t.denied("a short header to ssh", v4(&short), 2);
    t.denied("a short header to ssh over IPv6", v6(&short), 2);
    let hidden = v6_with([Extension::destination().claims(200)], &Tcp::to(22));
    t.denied("a hidden protocol, deny all", hidden, 2);
}

fn tunnels(t: &mut Table) {
    let inner = Ipv4::default().carry(&Tcp::to(80)).bytes;
    let gre = [&[0, 0, 8, 0], &inner[..]].concat();
    let vxlan = Udp {
        data: [&[8, 0, 0, 0, 0, 0, 1, 0], &[0; 12][..], &[8, 0], &inner[..]].concat(),
        ..Udp::to(4789)
    };
    let frames = [
        ("IP in IP", Raw::new(protocol::IPIP, &inner), 0),
        ("IPv6 in IP", Raw::new(protocol::IPV6, &inner), 1),
        ("GRE", Raw::new(protocol::GRE, &gre), 2),
        ("ESP", Raw::new(protocol::ESP, &[0; 32]), 3),
        (
            "no next header in IPv4",
            Raw::new(protocol::NO_NEXT, &[]),
            5,
        ),
        ("an unknown protocol", Raw::new(99, &decoy()), 6),
    ];
    t.section("by protocol number only", Policy::Tunnels);
    for (name, payload, rule) in &frames {
        t.denied(format!("{name} over IPv4, denied"), v4(payload), *rule);
        t.denied(format!("{name} over IPv6, denied"), v6(payload), *rule);
    }
    let ah = Raw::new(protocol::AH, &[protocol::TCP, 4, 0, 0]);
    t.denied("AH over IPv4, denied", v4(&ah), 4);
    let later = plain(&Ipv4::fragment(64, false).carry(&frames[2].1));
    t.denied("a later fragment of GRE, denied", later, 2);
    t.denied("VXLAN, by the outer port", v4(&vxlan), 7);
    t.section("the inner packet is not inspected", Policy::NodePorts);
    for (name, payload, _) in &frames {
        t.passes(
            format!("{name} around tcp 80"),
            v4(payload),
            "default_allow",
        );
    }
    t.passes("VXLAN around tcp 80", v4(&vxlan), "default_allow");
    t.section("no protocol is waved through", Policy::WebOnly);
    for (name, payload, _) in &frames {
        t.drops(
            format!("default deny: {name} over IPv4"),
            v4(payload),
            "default_deny",
        );
        t.drops(
            format!("default deny: {name} over IPv6"),
            v6(payload),
            "default_deny",
        );
    }
    t.drops("default deny: AH over IPv4", v4(&ah), "default_deny");
    let number = Raw::new(protocol::HOP_BY_HOP, &decoy());
    t.drops(
        "default deny: protocol 0 over IPv4",
        v4(&number),
        "default_deny",
    );
    t.drops("default deny: VXLAN", v4(&vxlan), "default_deny");
}

fn addresses(t: &mut Table) {
    let mapped = || {
        let src = Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped();
        plain(&Ipv6::from(src).carry(&Tcp::to(443)))
    };
    let from = |last: u32| {
        let src = Ipv4Addr::from(0xcb00_7100 + last);
        plain(&Ipv4::from(src).carry(&Tcp::to(443)))
    };
    t.section("a prefix's first and last address", Policy::Blocklist);
    t.denied("203.0.113.0", from(0), 0);
    t.denied("203.0.113.255", from(255), 0);
    t.passes("203.0.114.0", from(256), "default_allow");
    let before = Ipv4::from(Ipv4Addr::new(203, 0, 112, 255)).carry(&Tcp::to(443));
    t.passes("203.0.112.255", plain(&before), "default_allow");
    for (text, inside) in [
        ("2001:db8:f::", true),
        ("2001:db8:f:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:db8:10::", false),
        ("2001:db8:e:ffff:ffff:ffff:ffff:ffff", false),
    ] {
        let src = text.parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let frame = plain(&Ipv6::from(src).carry(&Tcp::to(443)));
        if inside {
            t.denied(text, frame, 1);
        } else {
            t.passes(text, frame, "default_allow");
        }
    }
    t.section(
        "an IPv4-mapped address is an IPv6 address",
        Policy::Blocklist,
    );
    t.passes(
        "mapped: its IPv4 prefix is denied",
        mapped(),
        "default_allow",
    );
    t.section("an IPv4-mapped address is an IPv6 address", Policy::NoIpv4);
    t.passes("mapped: all of IPv4 is denied", mapped(), "default_allow");
    t.denied("IPv4: all of IPv4 is denied", from(7), 0);
    t.passes(
        "IPv6: all of IPv4 is denied",
        v6(&Tcp::to(443)),
        "default_allow",
    );
    t.section(
        "an IPv4-mapped address is an IPv6 address",
        Policy::NoMapped,
    );
    t.denied("mapped: its IPv6 prefix is denied", mapped(), 0);
    t.passes(
        "IPv4: its mapped prefix is denied",
        from(7),
        "default_allow",
    );
    t.section("broadcast and multicast are evaluated", Policy::NoMulticast);
    let to = |dst: [u8; 4]| {
        let packet = Ipv4 {
            dst: dst.into(),
            ..Ipv4::default()
        };
        plain(&packet.carry(&Udp::to(5353)))
    };
    t.denied("to 255.255.255.255", to([255; 4]), 0);
    t.denied("to 224.0.0.251", to([224, 0, 0, 251]), 1);
    t.denied("to 239.255.255.255", to([239, 255, 255, 255]), 1);
    t.passes(
        "to 223.255.255.255",
        to([223, 255, 255, 255]),
        "default_allow",
    );
    t.passes("to 240.0.0.0", to([240, 0, 0, 0]), "default_allow");
    let packet = Ipv6 {
        dst: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
        ..Ipv6::default()
    };
    t.denied("to ff02::fb", plain(&packet.carry(&Udp::to(5353))), 2);
}

fn any_address(t: &mut Table) {
    t.section(
        "a rule without addresses is for all addresses",
        Policy::NodePorts,
    );
    for (dst, mac) in [
        ([255; 4], [0xff; 6]),
        ([224, 0, 0, 251], [1, 0, 0x5e, 0, 0, 0xfb]),
    ] {
        let dst = Ipv4Addr::from(dst);
        let ethernet = Ethernet {
            dst: mac,
            ..Ethernet::default()
        };
        let packet = Ipv4 {
            dst,
            ..Ipv4::default()
        };
        let frame = ethernet.carry(&packet.carry(&Udp::to(30080)));
        t.denied(format!("udp 30080 to {dst}"), frame, 1);
    }
    let ethernet = Ethernet {
        dst: [0x33, 0x33, 0, 0, 0, 1],
        ..Ethernet::default()
    };
    let packet = Ipv6 {
        dst: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        ..Ipv6::default()
    };
    let frame = ethernet.carry(&packet.carry(&Udp::to(30080)));
    t.denied("udp 30080 to ff02::1", frame, 1);
    let mapped = Ipv6::from(Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped());
    let frame = plain(&mapped.carry(&Tcp::to(80)));
    t.denied("tcp 80 from an IPv4-mapped address", frame, 2);
}

fn odd_fields(t: &mut Table) {
    t.section("checksums are ignored", Policy::NodePorts);
    let wrong = Tcp {
        checksum: Some(0xdead),
        ..Tcp::to(80)
    };
    t.denied("tcp 80, wrong TCP checksum", v4(&wrong), 2);
    let packet = Ipv4 {
        checksum: Some(0xdead),
        ..Ipv4::default()
    };
    t.denied(
        "tcp 80, wrong IPv4 checksum",
        plain(&packet.carry(&Tcp::to(80))),
        2,
    );
    let wrong = Udp {
        checksum: Some(0),
        ..Udp::to(30080)
    };
    t.denied("udp 30080, no checksum", v6(&wrong), 1);
    t.section("odd TCP flags and lengths don't matter", Policy::NodePorts);
    for flags in [0, Tcp::SYN | Tcp::FIN, Tcp::RST, Tcp::ACK, 0xff] {
        let odd = Tcp {
            flags,
            ..Tcp::to(80)
        };
        t.denied(format!("tcp 80, flags {flags:#04x}"), v4(&odd), 2);
    }
    for data_offset in [0, 4, 15] {
        let odd = Tcp {
            data_offset,
            ..Tcp::to(80)
        };
        t.denied(format!("tcp 80, data offset {data_offset}"), v4(&odd), 2);
    }
    for length in [0, 7, 65535] {
        let odd = Udp {
            length: Some(length),
            ..Udp::to(30080)
        };
        t.denied(format!("udp 30080, length field {length}"), v4(&odd), 1);
    }
    // RFC 3514: the evil bit, which is reserved, decides nothing.
    let mut evil = Ipv4::default().carry(&Tcp::to(80));
    evil.bytes[6] |= 0x80;
    evil.bytes[10..12].fill(0);
    let checksum = internet_checksum(&[&evil.bytes[..20]]);
    evil.bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    t.denied("tcp 80, the reserved flag", plain(&evil), 2);
    let odd = Ipv4 {
        ttl: 0,
        ..Ipv4::default()
    };
    t.denied("tcp 80, time to live 0", plain(&odd.carry(&Tcp::to(80))), 2);
    t.section("port 0 is a port", Policy::NoPortZero);
    t.denied("tcp 0", v4(&Tcp::to(0)), 0);
    t.denied("tcp 0 over IPv6", v6(&Tcp::to(0)), 0);
    t.passes("tcp 1", v4(&Tcp::to(1)), "default_allow");
    t.passes("udp 0", v4(&Udp::to(0)), "default_allow");
}

fn large_frames(t: &mut Table) {
    t.section("jumbo and multi-buffer frames", Policy::NodePorts);
    let large = |port, frame: usize| Tcp {
        rest: vec![0x5a; frame - 14 - 20 - 20],
        ..Tcp::to(port)
    };
    for length in [3600, 9014, 65535] {
        t.denied(
            format!("tcp 80 in {length} bytes"),
            v4(&large(80, length)),
            2,
        );
        let frame = v4(&large(443, length));
        t.passes(format!("tcp 443 in {length} bytes"), frame, "default_allow");
    }
    // The L4 header is where no linear buffer reaches.
    let deep = || vec![Extension::units(protocol::DESTINATION, 256); 8];
    t.denied(
        "tcp 80 behind 16 KiB of options",
        v6_with(deep(), &Tcp::to(80)),
        2,
    );
    let frame = v6_with(deep(), &Tcp::to(443));
    t.passes("tcp 443 behind 16 KiB of options", frame, "default_allow");
    let short = Raw::new(protocol::TCP, &[0; 19]);
    let name = "a short header behind 16 KiB of options";
    t.drops(name, v6_with(deep(), &short), "unreadable_l4");
    // Around the end of a page's linear part.
    for units in [120, 200, 230, 250] {
        let chain = vec![Extension::units(protocol::DESTINATION, units); 2];
        let frame = v6_with(chain, &Tcp::to(80));
        t.denied(
            format!("tcp 80 behind twice {units} units of options"),
            frame,
            2,
        );
    }
}

fn icmp_types(t: &mut Table) {
    t.section("ICMP type and code 0 are not \"unset\"", Policy::IcmpTypes);
    t.denied("echo reply, 0/0", v4(&Icmp::new(0, 0)), 0);
    // The third rule excludes type 8 alone.
    t.denied("echo reply with code 1", v4(&Icmp::new(0, 1)), 3);
    for code in [0, 1, 4, 255] {
        let name = format!("unreachable, code {code}, by the type");
        t.denied(name, v4(&Icmp::new(3, code)), 1);
        let name = format!("echo request, code {code}, the excluded type");
        t.passes(name, v4(&Icmp::new(8, code)), "default_allow");
    }
    t.denied("type 7, beside the excluded one", v4(&Icmp::new(7, 0)), 3);
    t.denied("type 9, beside the excluded one", v4(&Icmp::new(9, 0)), 3);
    let (ping, odd) = (Icmpv6::new(128, 0), Icmpv6::new(128, 1));
    t.denied("ICMPv6 echo request", v6(&ping), 2);
    t.passes("ICMPv6 echo request, code 1", v6(&odd), "default_allow");
    let name = "ICMPv6 of a type that only ICMP is denied";
    t.passes(name, v6(&Icmpv6::new(0, 0)), "default_allow");
    let name = "tcp 0 is not ICMP type 0";
    t.passes(name, v4(&Tcp::to(0)), "default_allow");
    let short = Raw::new(protocol::ICMP, &[0, 0, 0, 0]);
    t.drops("ICMP 0/0 cut", v4(&short), "unreadable_l4");
    let later = Ipv4::fragment(64, false).carry(&Icmp::new(0, 0));
    t.drops("a later fragment of ICMP 0/0", plain(&later), "fragment");
}

fn exclusions(t: &mut Table) {
    let udp = |sport: u16| Udp {
        sport,
        ..Udp::to(5000)
    };
    t.section(
        "source ports, where a rule asks for them",
        Policy::ByExclusion,
    );
    t.allowed("udp from port 53", v4(&udp(53)), 0);
    t.allowed("udp from port 53 over IPv6", v6(&udp(53)), 0);
    t.drops("udp from port 52", v4(&udp(52)), "default_deny");
    t.drops("udp from port 54", v4(&udp(54)), "default_deny");
    let name = "udp to port 53, which is asked of the source";
    t.drops(name, v4(&Udp::to(53)), "default_deny");
    t.section("ports that a rule excludes", Policy::ByExclusion);
    for port in [0, 21, 23, 65535] {
        t.allowed(format!("tcp {port}, not excluded"), v4(&Tcp::to(port)), 1);
    }
    t.drops("tcp 22, excluded", v4(&Tcp::to(22)), "default_deny");
    let short = Raw::new(protocol::TCP, &[0xc9, 0x3b, 0, 23]);
    let name = "a short header to a port that is not excluded";
    t.drops(name, v4(&short), "unreadable_l4");
    let later = |payload: &dyn Payload| plain(&Ipv4::fragment(64, false).carry(payload));
    let name = "a later fragment of udp from port 53";
    t.drops(name, later(&udp(53)), "fragment");
    let name = "a later fragment of tcp to a port that is not excluded";
    t.drops(name, later(&Tcp::to(23)), "fragment");

    t.section("any protocol but one", Policy::OnlyTcp);
    t.passes("tcp is the one", v4(&Tcp::to(80)), "default_allow");
    let cut = Raw::new(protocol::TCP, &[]);
    t.passes("tcp without a header is tcp", v4(&cut), "default_allow");
    t.passes(
        "a later fragment of tcp",
        later(&Tcp::to(80)),
        "default_allow",
    );
    t.denied("udp is not the one", v4(&Udp::to(80)), 0);
    t.denied("a later fragment of udp", later(&Udp::to(80)), 0);
    t.denied("ESP is not the one", v6(&Raw::new(protocol::ESP, &[])), 0);
    let hidden = v6_with([Extension::destination().claims(200)], &Tcp::to(80));
    let name = "a protocol that a cut chain hides is not another";
    t.drops(name, hidden, "unreadable_l4");
}

fn tiers(t: &mut Table) {
    t.section("a Pass goes on with the next tier", Policy::Tiers);
    t.denied("passed on, then denied", v4(&Tcp::to(80)), 3);
    t.noting(&[0]);
    t.passes("passed on, then nothing", v6(&Tcp::to(81)), "default_allow");
    t.noting(&[0]);
    t.allowed("allowed in the first tier", v4(&Udp::to(53)), 1);
    t.section(
        "a tier ends with a deny that is nobody's rule",
        Policy::Tiers,
    );
    t.drops("at the end of its tier", v4(&Udp::to(54)), "default_deny");
    t.drops(
        "GRE, at the end",
        v4(&Raw::new(protocol::GRE, &[])),
        "default_deny",
    );
    t.section("there, too, essentials pass", Policy::Tiers);
    t.passes("DHCP, at the end of a tier", v4(&Udp::to(68)), "essential");
    let neighbour = Ipv6 {
        hop_limit: 255,
        ..Ipv6::default()
    };
    let name = "neighbour discovery, at the end of a tier";
    t.passes(
        name,
        plain(&neighbour.carry(&Icmpv6::new(135, 0))),
        "essential",
    );
    let arp = Arp {
        sender: Ipv4Addr::new(203, 0, 113, 7),
        target: Ipv4Addr::new(192, 0, 2, 10),
    };
    t.passes(
        "ARP, where a tier denies at its end",
        plain(&arp.packet()),
        "essential",
    );
}

/// `applyOnForward`: what is not for the node itself is told by its
/// destination.
fn own_addresses(t: &mut Table) {
    let to = |last: u8, payload: &dyn Payload| {
        let packet = Ipv4 {
            dst: Ipv4Addr::new(192, 0, 2, last),
            ..Ipv4::default()
        };
        plain(&packet.carry(payload))
    };
    let to_v6 = |last: u16, payload: &dyn Payload| {
        let packet = Ipv6 {
            dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last),
            ..Ipv6::default()
        };
        plain(&packet.carry(payload))
    };
    t.section("rules for the node itself", Policy::OwnAddresses);
    t.denied("tcp 80 to the node", to(10, &Tcp::to(80)), 0);
    t.denied("tcp 80 to the node over IPv6", to_v6(0x10, &Tcp::to(80)), 0);
    let name = "tcp 443 to the node, at the end";
    t.drops(name, to(10, &Tcp::to(443)), "default_deny");
    t.section("what is forwarded meets the others", Policy::OwnAddresses);
    for (name, frame) in [
        ("tcp 80 to the address before", to(9, &Tcp::to(80))),
        ("tcp 80 to the address behind", to(11, &Tcp::to(80))),
        ("tcp 80 to one before over IPv6", to_v6(0xf, &Tcp::to(80))),
        ("tcp 80 to one behind over IPv6", to_v6(0x11, &Tcp::to(80))),
    ] {
        t.passes(name, frame, "default_allow");
    }
    t.denied("tcp 443, forwarded", to(11, &Tcp::to(443)), 2);
    let short = Raw::new(protocol::TCP, &[0; 4]);
    t.drops(
        "a short header to the node",
        to(10, &short),
        "unreadable_l4",
    );
    t.drops("a short header, forwarded", to(11, &short), "unreadable_l4");
    t.drops(
        "ESP to the node",
        to(10, &Raw::new(protocol::ESP, &[])),
        "default_deny",
    );
    t.passes(
        "ESP, forwarded",
        to(11, &Raw::new(protocol::ESP, &[])),
        "default_allow",
    );
}

fn noted(t: &mut Table) {
    let from = |first: u8, payload: &dyn Payload| {
        let packet = Ipv4::from(Ipv4Addr::new(first, 0, 113, 7));
        plain(&packet.carry(payload))
    };
    t.section(
        "a Log goes on, a staged rule changes nothing",
        Policy::LogAndStaged,
    );
    t.denied(
        "logged, would be denied, logged, denied",
        from(203, &Tcp::to(80)),
        3,
    );
    t.noting(&[0, 1, 2]);
    t.denied("logged twice, denied", from(204, &Tcp::to(80)), 3);
    t.noting(&[0, 2]);
    t.passes(
        "would be denied, logged",
        from(203, &Tcp::to(81)),
        "default_allow",
    );
    t.noting(&[1, 2]);
    t.section(
        "a Log that can't be told is passed over",
        Policy::LogAndStaged,
    );
    let short = Raw::new(protocol::TCP, &[0; 4]);
    t.drops(
        "a short header, logged all the same",
        from(204, &short),
        "unreadable_l4",
    );
    t.noting(&[2]);
    let later = Ipv4::fragment(64, false).carry(&Tcp::to(80));
    t.drops(
        "a later fragment, would be denied",
        plain(&later),
        "fragment",
    );
    t.noting(&[1, 2]);
    t.section("what is malformed meets no rule", Policy::LogAndStaged);
    let packet = Ipv4 {
        ihl: Some(4),
        ..Ipv4::default()
    };
    let frame = plain(&packet.carry(&Tcp::to(80)));
    t.drops("malformed, and not logged", frame, "malformed");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_policy_is_met() {
        let rows = rows();
        assert!(rows.len() >= 80);
        let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
        let mut seen = HashSet::new();
        let twice: Vec<_> = rows
            .iter()
            .filter(|row| !seen.insert(&row.name))
            .map(|row| &row.name)
            .collect();
        assert!(names.len() == rows.len(), "twice: {twice:?}");
        let met: HashSet<_> = rows.iter().map(|row| row.policy).collect();
        assert_eq!(met.len(), Policy::ALL.len());
    }

    #[test]
    fn a_rule_decides_exactly_where_a_reason_says_so() {
        for row in rows() {
            let by_rule = ["policy_deny", "policy_allow", "failsafe"].contains(&row.reason);
            assert_eq!(row.rule.is_some(), by_rule, "{}", row.name);
        }
    }
}
