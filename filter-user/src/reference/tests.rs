//! Frames written out byte by byte, so that nothing but the standards stands
//! between a test and what it means.

mod conversation;
mod rules;

use filter_common::verdict::{Reason, Verdict};

use super::evaluate;
use crate::ruleset::{
    Action, Direction, Essentials, Family, Fragments, Match, Options, PortRange, Rule, RuleId,
    Ruleset, Stage, Switch,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

// ---- rulesets

fn rule(action: Action, stage: Stage, matches: Match) -> Rule {
    Rule {
        id: RuleId {
            stage,
            policy: "p".into(),
            direction: Direction::Ingress,
            index: Some(0),
        },
        tier: None,
        action,
        staged: false,
        matches: vec![matches],
        source: None,
    }
}

fn deny(matches: Match) -> Rule {
    rule(Action::Deny, Stage::Normal, matches)
}

fn allow(matches: Match) -> Rule {
    rule(Action::Allow, Stage::Normal, matches)
}

fn failsafe(matches: Match) -> Rule {
    rule(Action::Allow, Stage::Failsafe, matches)
}

fn ports(protocol: u8, ranges: &[(u16, u16)]) -> Match {
    Match {
        protocol: Some(protocol),
        dst_ports: ranges
            .iter()
            .map(|&(first, last)| PortRange { first, last })
            .collect(),
        ..Match::default()
    }
}

fn protocol(number: u8) -> Match {
    ports(number, &[])
}

fn from(net: &str) -> Match {
    Match {
        src: vec![net.parse().unwrap()].into(),
        ..Match::default()
    }
}

fn ruleset(default: Action, rules: &[Rule]) -> Ruleset {
    Ruleset {
        endpoint: "eth0".to_owned(),
        direction: Direction::Ingress,
        sets: Vec::new(),
        rules: rules.to_vec(),
        default,
        options: Options::default(),
    }
}

fn with(mut ruleset: Ruleset, change: impl FnOnce(&mut Options)) -> Ruleset {
    change(&mut ruleset.options);
    ruleset
}

// ---- frames

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet from 10.1.2.3 to 192.0.2.10.
fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 1, 2, 3, 192, 0, 2, 10]);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

/// An IPv6 packet from `::ffff:10.1.2.3` to `2001:db8::10`.
fn v6(next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn l4(port: u16, length: usize) -> Vec<u8> {
    let mut header = vec![0xab, 0xcd];
    header.extend(port.to_be_bytes());
    header.resize(length, 0);
    header
}

fn tcp(port: u16) -> Vec<u8> {
    l4(port, 20)
}

fn udp(port: u16) -> Vec<u8> {
    l4(port, 8)
}

fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 0, 0, 0]
}

/// An extension header of 8 bytes.
fn extension(next: u8) -> Vec<u8> {
    vec![next, 0, 0, 0, 0, 0, 0, 0]
}

fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0, 1]);
    header
}

/// The decision, short: verdict, reason, rule.
fn decide(ruleset: &Ruleset, frame: &[u8]) -> (Verdict, Reason, Option<u32>) {
    let decision = evaluate(ruleset, frame);
    (decision.verdict, decision.reason, decision.rule)
}

#[track_caller]
fn drops(ruleset: &Ruleset, frame: &[u8], reason: Reason) {
    assert_eq!(decide(ruleset, frame), (Verdict::Drop, reason, None));
}

#[track_caller]
fn passes(ruleset: &Ruleset, frame: &[u8], reason: Reason) {
    assert_eq!(decide(ruleset, frame), (Verdict::Pass, reason, None));
}

#[track_caller]
fn denied_by(ruleset: &Ruleset, frame: &[u8], rule: u32) {
    assert_eq!(
        decide(ruleset, frame),
        (Verdict::Drop, Reason::PolicyDeny, Some(rule))
    );
}

#[track_caller]
fn allowed_by(ruleset: &Ruleset, frame: &[u8], reason: Reason, rule: u32) {
    assert_eq!(decide(ruleset, frame), (Verdict::Pass, reason, Some(rule)));
}

/// Allows by default, denies tcp 80.
fn web() -> Ruleset {
    ruleset(Action::Allow, &[deny(ports(TCP, &[(80, 80)]))])
}

fn closed() -> Ruleset {
    ruleset(Action::Deny, &[])
}

fn open() -> Ruleset {
    ruleset(Action::Allow, &[])
}

// ---- rules

#[test]
fn the_first_match_decides() {
    let rules = ruleset(
        Action::Deny,
        &[
            deny(ports(UDP, &[])),
            allow(ports(TCP, &[(80, 80)])),
            deny(ports(TCP, &[(80, 80)])),
            deny(protocol(TCP)),
        ],
    );
    allowed_by(&rules, &v4(TCP, 0, &tcp(80)), Reason::PolicyAllow, 1);
    denied_by(&rules, &v4(TCP, 0, &tcp(81)), 3);
    denied_by(&rules, &v6(UDP, 64, &udp(80)), 0);
    drops(&rules, &v4(47, 0, &[]), Reason::DefaultDeny);
}

#[test]
fn both_ends_of_a_range_belong_to_it() {
    let rules = ruleset(
        Action::Allow,
        &[deny(ports(TCP, &[(0, 0), (30000, 32767), (65535, 65535)]))],
    );
    for port in [0, 30000, 32767, 65535] {
        denied_by(&rules, &v4(TCP, 0, &tcp(port)), 0);
    }
    for port in [1, 29999, 32768, 65534] {
        passes(&rules, &v4(TCP, 0, &tcp(port)), Reason::DefaultAllow);
    }
}

#[test]
fn the_source_port_is_never_matched() {
    // `l4` gives every header the source port 0xabcd.
    let rules = ruleset(Action::Allow, &[deny(ports(TCP, &[(0xabcd, 0xabcd)]))]);
    passes(&rules, &v4(TCP, 0, &tcp(80)), Reason::DefaultAllow);
}

#[test]
fn prefixes_of_every_length() {
    let frame = v4(TCP, 0, &tcp(80));
    let address = u32::from_be_bytes([10, 1, 2, 3]);
    for length in 0..=32_u8 {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let inside = format!("{}/{length}", std::net::Ipv4Addr::from(address & mask));
        denied_by(&ruleset(Action::Allow, &[deny(from(&inside))]), &frame, 0);
        if length > 0 {
            // The neighbour of the same length.
            let other = (address & mask) ^ 1_u32 << (32 - u32::from(length));
            let outside = format!("{}/{length}", std::net::Ipv4Addr::from(other));
            let rules = ruleset(Action::Allow, &[deny(from(&outside))]);
            passes(&rules, &frame, Reason::DefaultAllow);
        }
    }
    let frame = v6(TCP, 64, &tcp(80));
    let address = 0xffff_0a01_0203_u128;
    for length in 0..=128_u8 {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let inside = format!("{}/{length}", std::net::Ipv6Addr::from(address & mask));
        denied_by(&ruleset(Action::Allow, &[deny(from(&inside))]), &frame, 0);
        if length > 0 {
            let other = (address & mask) ^ 1_u128 << (128 - u32::from(length));
            let outside = format!("{}/{length}", std::net::Ipv6Addr::from(other));
            let rules = ruleset(Action::Allow, &[deny(from(&outside))]);
            passes(&rules, &frame, Reason::DefaultAllow);
        }
    }
}

#[test]
fn families_are_apart() {
    let (four, six) = (v4(TCP, 0, &tcp(80)), v6(TCP, 64, &tcp(80)));
    let of = |family| Match {
        family: Some(family),
        ..Match::default()
    };
    let rules = ruleset(Action::Allow, &[deny(of(Family::V6)), deny(of(Family::V4))]);
    denied_by(&rules, &four, 1);
    denied_by(&rules, &six, 0);
    // The IPv4-mapped source of `six` is no IPv4 address.
    for net in ["0.0.0.0/0", "10.1.2.3/32"] {
        let rules = ruleset(Action::Allow, &[deny(from(net))]);
        denied_by(&rules, &four, 0);
        passes(&rules, &six, Reason::DefaultAllow);
    }
    for net in ["::/0", "::ffff:10.1.2.3/128"] {
        let rules = ruleset(Action::Allow, &[deny(from(net))]);
        passes(&rules, &four, Reason::DefaultAllow);
        denied_by(&rules, &six, 0);
    }
    // Neither family nor nets: both.
    let rules = ruleset(Action::Allow, &[deny(Match::default())]);
    denied_by(&rules, &four, 0);
    denied_by(&rules, &six, 0);
}

#[test]
fn all_conditions_must_hold_and_one_of_a_list() {
    let mut matches = ports(TCP, &[(80, 80), (443, 443)]);
    matches.src.nets = vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()];
    matches.dst.nets = vec!["192.0.2.10/32".parse().unwrap()];
    let rules = ruleset(Action::Allow, &[deny(matches.clone())]);
    denied_by(&rules, &v4(TCP, 0, &tcp(80)), 0);
    denied_by(&rules, &v4(TCP, 0, &tcp(443)), 0);
    passes(&rules, &v4(TCP, 0, &tcp(81)), Reason::DefaultAllow);
    passes(&rules, &v4(UDP, 0, &udp(80)), Reason::DefaultAllow);
    // The source matches by ::/0, the destination doesn't.
    passes(&rules, &v6(TCP, 64, &tcp(80)), Reason::DefaultAllow);
    std::mem::swap(&mut matches.src, &mut matches.dst);
    let rules = ruleset(Action::Allow, &[deny(matches)]);
    passes(&rules, &v4(TCP, 0, &tcp(80)), Reason::DefaultAllow);
}

#[test]
fn a_reason_tells_the_stage() {
    let rules = ruleset(Action::Deny, &[failsafe(ports(TCP, &[(22, 22)]))]);
    allowed_by(&rules, &v4(TCP, 0, &tcp(22)), Reason::Failsafe, 0);
    let rules = ruleset(
        Action::Deny,
        &[rule(Action::Allow, Stage::PreDnat, protocol(TCP))],
    );
    allowed_by(&rules, &v4(TCP, 0, &tcp(22)), Reason::PolicyAllow, 0);
    let rules = ruleset(
        Action::Allow,
        &[rule(Action::Deny, Stage::PreDnat, protocol(TCP))],
    );
    denied_by(&rules, &v4(TCP, 0, &tcp(22)), 0);
}

#[test]
fn protocols_without_ports_match_by_number() {
    // GRE, ESP, IP in IP, no next header (IPv4: a number like any), unknown.
    for number in [47, 50, 4, 41, 59, 99, 255] {
        let rules = ruleset(
            Action::Deny,
            &[deny(ports(TCP, &[(0, 65535)])), allow(protocol(number))],
        );
        for frame in [v4(number, 0, &[]), v6(number, 64, &[])] {
            allowed_by(&rules, &frame, Reason::PolicyAllow, 1);
            drops(&closed(), &frame, Reason::DefaultDeny);
        }
    }
    // In IPv4 an authentication header is such a protocol.
    let rules = ruleset(Action::Allow, &[deny(protocol(51))]);
    denied_by(&rules, &v4(51, 0, &[TCP, 1, 0, 0]), 0);
}

#[test]
fn every_protocol_with_ports() {
    for (number, header) in [(TCP, 20), (UDP, 8), (132, 12), (136, 8)] {
        let rules = ruleset(Action::Allow, &[deny(ports(number, &[(80, 80)]))]);
        denied_by(&rules, &v4(number, 0, &l4(80, header)), 0);
        denied_by(&rules, &v6(number, 64, &l4(80, header)), 0);
        passes(
            &rules,
            &v4(number, 0, &l4(81, header)),
            Reason::DefaultAllow,
        );
        // One byte of the header is not there.
        let short = v4(number, 0, &l4(80, header - 1));
        drops(&rules, &short, Reason::UnreadableL4);
        drops(
            &rules,
            &v6(number, 64, &l4(81, header - 1)),
            Reason::UnreadableL4,
        );
        passes(&open(), &short, Reason::DefaultAllow);
    }
}

// ---- what can't be read

#[test]
fn an_unreadable_packet_is_judged_by_l3_alone() {
    let short = v4(TCP, 0, &tcp(80)[..19]);
    // A rule without L4 conditions before the one that can't be decided.
    let rules = ruleset(
        Action::Allow,
        &[
            deny(from("10.9.0.0/16")),
            allow(from("10.1.0.0/16")),
            deny(ports(TCP, &[(80, 80)])),
        ],
    );
    allowed_by(&rules, &short, Reason::PolicyAllow, 1);
    // The undecidable one is of another address, or protocol: skipped.
    let mut elsewhere = ports(TCP, &[(80, 80)]);
    elsewhere.src.nets = vec!["10.9.0.0/16".parse().unwrap()];
    let rules = ruleset(
        Action::Allow,
        &[deny(elsewhere), deny(ports(UDP, &[(80, 80)]))],
    );
    passes(&rules, &short, Reason::DefaultAllow);
    // It can't be decided even where it would allow, and where it comes
    // before a rule that could be.
    let rules = ruleset(
        Action::Allow,
        &[allow(ports(TCP, &[(443, 443)])), allow(protocol(TCP))],
    );
    drops(&rules, &short, Reason::UnreadableL4);
    // Nothing left: the default.
    let rules = ruleset(Action::Deny, &[allow(ports(UDP, &[(80, 80)]))]);
    drops(&rules, &short, Reason::DefaultDeny);
}

#[test]
fn a_failsafe_opens_only_what_shows_its_port() {
    let rules = ruleset(
        Action::Allow,
        &[failsafe(ports(TCP, &[(22, 22)])), deny(protocol(TCP))],
    );
    denied_by(&rules, &v4(TCP, 0, &tcp(22)[..19]), 1);
    denied_by(&rules, &v4(TCP, 5, &tcp(22)), 1);
    // Protocol unknown: the failsafe is passed over, the deny is undecidable.
    let hidden = v6(0, 64, &[TCP]);
    drops(&rules, &hidden, Reason::UnreadableL4);
    let rules = ruleset(Action::Allow, &[failsafe(protocol(TCP))]);
    passes(&rules, &hidden, Reason::DefaultAllow);
}

#[test]
fn bytes_beyond_the_total_length_are_padding() {
    let mut frame = v4(TCP, 0, &tcp(80)[..10]);
    // Ethernet padding that looks like the rest of the header.
    frame.extend([0; 36]);
    drops(&web(), &frame, Reason::UnreadableL4);
    let mut frame = v6(TCP, 64, &tcp(80)[..10]);
    frame.extend([0; 36]);
    drops(&web(), &frame, Reason::UnreadableL4);
    // Harmless padding.
    let mut frame = v4(UDP, 0, &udp(80));
    frame.resize(60, 0xff);
    passes(&web(), &frame, Reason::DefaultAllow);
}

// ---- fragments

#[test]
fn later_fragments() {
    // Bytes that look like a header to port 81, or 80.
    for port in [80, 81] {
        let later = v4(TCP, 100, &tcp(port));
        drops(&web(), &later, Reason::Fragment);
        let l3_only = with(web(), |options| options.fragments = Fragments::L3Only);
        passes(&l3_only, &later, Reason::DefaultAllow);
        let later = v6(
            44,
            64,
            &[fragment_header(TCP, 100, true), tcp(port)].concat(),
        );
        drops(&web(), &later, Reason::Fragment);
        passes(&l3_only, &later, Reason::DefaultAllow);
    }
    // `l3-only` is about fragments alone.
    let l3_only = with(web(), |options| options.fragments = Fragments::L3Only);
    drops(&l3_only, &v4(TCP, 0, &tcp(80)[..4]), Reason::UnreadableL4);
    // A rule of another protocol doesn't matter, one of addresses decides.
    passes(&web(), &v4(UDP, 100, &[]), Reason::DefaultAllow);
    let rules = ruleset(Action::Allow, &[deny(from("10.1.2.0/24"))]);
    denied_by(&rules, &v4(TCP, 100, &[]), 0);
    let rules = ruleset(Action::Allow, &[deny(protocol(TCP))]);
    denied_by(&rules, &v4(TCP, 100, &[]), 0);
    // The last fragment, and "don't fragment" set.
    drops(&web(), &v4(TCP, 0x1fff, &[]), Reason::Fragment);
    drops(&web(), &v4(TCP, 0x4064, &[]), Reason::Fragment);
    // Default deny has no essentials in what can't be read.
    drops(&closed(), &v4(UDP, 100, &udp(68)), Reason::DefaultDeny);
}

#[test]
fn first_fragments() {
    const MORE: u16 = 0x2000;
    denied_by(&web(), &v4(TCP, MORE, &tcp(80)), 0);
    passes(&web(), &v4(TCP, MORE, &tcp(81)), Reason::DefaultAllow);
    let first = |payload: &[u8]| v6(44, 64, &[&fragment_header(TCP, 0, true), payload].concat());
    denied_by(&web(), &first(&tcp(80)), 0);
    // RFC 1858: one without its whole header is dropped, whatever the rules.
    for (number, header) in [(TCP, 20), (UDP, 8), (1, 8), (58, 8), (132, 12), (136, 8)] {
        let short = l4(81, header - 1);
        drops(&open(), &v4(number, MORE, &short), Reason::TinyFragment);
        passes(
            &open(),
            &v4(number, MORE, &l4(81, header)),
            Reason::DefaultAllow,
        );
        let header = [fragment_header(number, 0, true), short].concat();
        drops(&open(), &v6(44, 64, &header), Reason::TinyFragment);
    }
    // A protocol without a header that matters has none to be cut.
    passes(&open(), &v4(47, MORE, &[]), Reason::DefaultAllow);
}

#[test]
fn tcp_at_offset_one_is_dropped() {
    // RFC 3128: it would overwrite the flags.
    for fragment in [1, 0x2001, 0x4001] {
        drops(&open(), &v4(TCP, fragment, &tcp(81)), Reason::TinyFragment);
    }
    let at = |offset, next| v6(44, 64, &fragment_header(next, offset, false));
    drops(&open(), &at(1, TCP), Reason::TinyFragment);
    passes(&open(), &at(2, TCP), Reason::DefaultAllow);
    passes(&open(), &at(1, UDP), Reason::DefaultAllow);
    passes(&open(), &v4(UDP, 1, &[]), Reason::DefaultAllow);
}

#[test]
fn atomic_fragments_are_whole_packets() {
    // RFC 6946. A reserved bit set changes nothing.
    let atomic = |reserved: u8, payload: &[u8]| {
        let mut header = fragment_header(TCP, 0, false);
        header[3] |= reserved;
        v6(44, 64, &[&header, payload].concat())
    };
    for reserved in [0, 2, 4, 6] {
        denied_by(&web(), &atomic(reserved, &tcp(80)), 0);
        passes(&web(), &atomic(reserved, &tcp(81)), Reason::DefaultAllow);
    }
    // Short: unreadable, not tiny.
    drops(&web(), &atomic(0, &tcp(81)[..8]), Reason::UnreadableL4);
}

// ---- IPv4

#[test]
fn malformed_ipv4() {
    let good = v4(TCP, 0, &tcp(81));
    let wrong = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    passes(&open(), &good, Reason::DefaultAllow);
    for (at, byte) in [
        // IHL 4 and 0; versions 6 and 0.
        (14, 0x44),
        (14, 0x40),
        (14, 0x65),
        (14, 0x05),
        // Total lengths of 19, 41 (one too many) and 0x0128.
        (17, 19),
        (17, 41),
        (16, 1),
        // IHL 15: 60 bytes, more than the total length.
        (14, 0x4f),
    ] {
        drops(&open(), &wrong(at, byte), Reason::Malformed);
    }
    // A total length of the header alone is legal.
    passes(&open(), &wrong(17, 20), Reason::DefaultAllow);
    drops(&web(), &wrong(17, 20), Reason::UnreadableL4);
}

#[test]
fn options_are_skipped() {
    for words in 1..=10_u8 {
        let mut frame = v4(TCP, 0, &[]);
        frame[14] = 0x45 + words;
        frame[17] = 20 + words * 4 + 20;
        // Options that look like a header to port 81.
        let options: Vec<u8> = tcp(81)
            .into_iter()
            .cycle()
            .take(usize::from(words) * 4)
            .collect();
        frame.extend(options);
        frame.extend(tcp(80));
        denied_by(&web(), &frame, 0);
    }
}

#[test]
fn every_cut_is_answered() {
    // Never a panic, and never a pass that the whole packet wouldn't get
    // from a rule that reads ports.
    let mut tagged = vec![0; 12];
    tagged.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
    tagged.extend(&v4(TCP, 0, &tcp(80))[12..]);
    let chain = [
        extension(43),
        vec![44, 0, 4, 0, 0, 0, 0, 0],
        fragment_header(51, 0, true),
        vec![TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        tcp(80),
    ];
    let six = v6(0, 64, &chain.concat());
    for frame in [v4(TCP, 0, &tcp(80)), v6(TCP, 64, &tcp(80)), tagged, six] {
        denied_by(&web(), &frame, 0);
        for length in 0..frame.len() {
            let cut = evaluate(&web(), &frame[..length]);
            assert_eq!(cut.verdict, Verdict::Drop, "{length} bytes");
            assert_eq!(cut.reason, Reason::Malformed, "{length} bytes");
        }
    }
}

// ---- IPv6

#[test]
fn malformed_ipv6() {
    let good = v6(TCP, 64, &tcp(81));
    passes(&open(), &good, Reason::DefaultAllow);
    for (at, byte) in [(14, 0x40), (14, 0x70), (19, 21), (18, 1)] {
        let mut frame = good.clone();
        frame[at] = byte;
        drops(&open(), &frame, Reason::Malformed);
    }
    // A jumbogram's payload length (RFC 2675) is 0: nothing to read.
    let mut frame = good;
    frame[19] = 0;
    drops(&web(), &frame, Reason::UnreadableL4);
}

#[test]
fn the_chain_is_walked_in_the_units_of_each_header() {
    let routing = |next: u8| {
        vec![next, 2, 4, 0]
            .into_iter()
            .chain([0; 20])
            .collect::<Vec<_>>()
    };
    let authentication = |next: u8| {
        vec![next, 4, 0, 0]
            .into_iter()
            .chain([0; 20])
            .collect::<Vec<_>>()
    };
    // The reserved byte of a fragment header is no length.
    let mut atomic = fragment_header(135, 0, false);
    atomic[1] = 7;
    let chain = [
        extension(60),
        extension(43),
        routing(51),
        authentication(44),
        atomic,
        extension(TCP),
    ]
    .concat();
    denied_by(&web(), &v6(0, 64, &[chain.clone(), tcp(80)].concat()), 0);
    let frame = v6(0, 64, &[chain, tcp(81)].concat());
    passes(&web(), &frame, Reason::DefaultAllow);
    // 2,048 bytes in one header.
    let mut long = vec![TCP, 255];
    long.resize(2048, 0);
    denied_by(&web(), &v6(60, 64, &[long, tcp(80)].concat()), 0);
}

#[test]
fn eight_extension_headers_and_no_more() {
    let chain = |count: usize| [extension(60).repeat(count - 1), extension(TCP), tcp(80)].concat();
    denied_by(&web(), &v6(60, 64, &chain(8)), 0);
    drops(&open(), &v6(60, 64, &chain(9)), Reason::Ipv6Extension);
    // The ninth is refused for being there, not read.
    let ninth = extension(60).repeat(8);
    drops(&open(), &v6(60, 64, &ninth), Reason::Ipv6Extension);
}

#[test]
fn routing_type_0_is_dropped() {
    // RFC 5095, as soon as its byte shows.
    drops(&open(), &v6(43, 64, &[TCP, 200, 0]), Reason::Ipv6Extension);
    drops(&open(), &v6(43, 64, &extension(TCP)), Reason::Ipv6Extension);
    // Type 2, cut: hidden. Type byte not there: hidden.
    drops(&web(), &v6(43, 64, &[TCP, 0, 2]), Reason::UnreadableL4);
    drops(&web(), &v6(43, 64, &[TCP, 0]), Reason::UnreadableL4);
    passes(&open(), &v6(43, 64, &[TCP, 0]), Reason::DefaultAllow);
}

#[test]
fn two_fragment_headers_are_dropped() {
    let atomic = fragment_header(44, 0, false);
    let twice = [atomic, fragment_header(TCP, 0, false), tcp(81)].concat();
    drops(&open(), &v6(44, 64, &twice), Reason::Ipv6Extension);
    // Also where the second is not there, or in a part that isn't this one.
    let first = fragment_header(44, 0, true);
    drops(&open(), &v6(44, 64, &first), Reason::Ipv6Extension);
    let later = fragment_header(44, 9, false);
    drops(&open(), &v6(44, 64, &later), Reason::Ipv6Extension);
}

#[test]
fn a_first_fragment_holds_the_whole_chain() {
    // RFC 7112.
    let first = [fragment_header(60, 0, true), vec![TCP, 1, 0, 0]].concat();
    drops(&open(), &v6(44, 64, &first), Reason::Ipv6Extension);
    // The same in an atomic fragment, or before the fragment header: hidden.
    let atomic = [fragment_header(60, 0, false), vec![TCP, 1, 0, 0]].concat();
    drops(&web(), &v6(44, 64, &atomic), Reason::UnreadableL4);
    passes(&open(), &v6(44, 64, &atomic), Reason::DefaultAllow);
    drops(&web(), &v6(44, 64, &[TCP, 0, 0]), Reason::UnreadableL4);
}

#[test]
fn a_hidden_protocol_makes_every_protocol_condition_undecidable() {
    // Cut in the chain, and a later fragment that begins with more of it.
    let cut = v6(60, 64, &[TCP, 9]);
    let later = v6(44, 64, &fragment_header(60, 5, false));
    for (frame, reason) in [(&cut, Reason::UnreadableL4), (&later, Reason::Fragment)] {
        for number in [1, TCP, 60, 99] {
            let rules = ruleset(Action::Allow, &[allow(protocol(number))]);
            drops(&rules, frame, reason);
        }
        let mut elsewhere = protocol(TCP);
        elsewhere.family = Some(Family::V4);
        let rules = ruleset(Action::Allow, &[deny(elsewhere), deny(from("::/0"))]);
        denied_by(&rules, frame, 1);
        passes(&open(), frame, Reason::DefaultAllow);
        drops(&closed(), frame, Reason::DefaultDeny);
    }
    let rules = ruleset(Action::Allow, &[deny(protocol(TCP))]);
    let l3_only = with(rules, |options| options.fragments = Fragments::L3Only);
    passes(&l3_only, &later, Reason::DefaultAllow);
    drops(&l3_only, &cut, Reason::UnreadableL4);
}

#[test]
fn no_next_header_ends_the_packet() {
    // RFC 8200, section 4.7: what follows is ignored.
    let rules = ruleset(
        Action::Allow,
        &[deny(ports(TCP, &[(0, 65535)])), deny(protocol(59))],
    );
    denied_by(&rules, &v6(59, 64, &tcp(80)), 1);
}

// ---- link layer

#[test]
fn two_vlan_tags_are_looked_through() {
    let inner = &v4(TCP, 0, &tcp(80))[12..];
    let tagged = |tags: &[u16]| {
        let tags = tags
            .iter()
            .flat_map(|tag| [tag.to_be_bytes(), [0, 1]].concat());
        vec![0; 12]
            .into_iter()
            .chain(tags)
            .chain(inner.iter().copied())
            .collect::<Vec<_>>()
    };
    for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x9100]] {
        denied_by(&web(), &tagged(tags), 0);
    }
    drops(
        &open(),
        &tagged(&[0x88a8, 0x8100, 0x8100]),
        Reason::VlanDepth,
    );
    drops(&open(), &tagged(&[0x8100; 3])[..22], Reason::VlanDepth);
    drops(&open(), &tagged(&[0x8100; 2])[..21], Reason::Malformed);
    drops(&open(), &[0; 13], Reason::Malformed);
    drops(&open(), &[], Reason::Malformed);
}

#[test]
fn not_ip() {
    let non_ip = with(closed(), |options| options.non_ip = Switch::Drop);
    for frame in [
        ethernet(0x88cc, &[]),
        // Undefined types, and 802.3 with STP or nothing in it.
        ethernet(1501, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
        ethernet(1535, &[6, 6, 3]),
        ethernet(0, &[0x42, 0x42, 3]),
        ethernet(38, &[]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 8]),
        // SNAP of another organisation, or type.
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0xc, 8, 0]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 6]),
        // PPPoE discovery, LCP, and MPLS around something else.
        ethernet(0x8863, &[0x11, 9]),
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0xc0, 0x21]),
        ethernet(0x8847, &[0, 1, 1, 64, 0]),
    ] {
        passes(&closed(), &frame, Reason::NotIp);
        drops(&non_ip, &frame, Reason::NotIp);
    }
}

#[test]
fn wrapped_ip() {
    let mut labels = [0, 1, 0, 64].repeat(7);
    labels.extend([0, 1, 1, 64]);
    let eight = [labels.clone(), vec![0x45]].concat();
    let nine = [vec![0, 1, 0, 64], labels, vec![0]].concat();
    for frame in [
        ethernet(1500, &[6, 6, 3]),
        ethernet(38, &[0x42, 6]),
        ethernet(38, &[6, 0x42]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0xf8, 0x86, 0xdd]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0x64]),
        ethernet(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0x48]),
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0, 0x21]),
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0, 0x57]),
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0x21]),
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 2, 0x81]),
        // Too short to tell.
        ethernet(0x8864, &[0x11, 0, 0, 1, 0, 2, 0]),
        ethernet(0x8864, &[]),
        ethernet(0x8847, &[0, 1, 1]),
        ethernet(0x8847, &[0, 1, 1, 64]),
        ethernet(0x8848, &[0, 1, 1, 64, 0x6f]),
        ethernet(0x8847, &eight),
        ethernet(0x8847, &nine),
    ] {
        drops(&open(), &frame, Reason::Encapsulated);
        let lenient = |non_ip| {
            with(open(), |options| {
                options.encapsulated_ip = Switch::Pass;
                options.non_ip = non_ip;
            })
        };
        passes(&lenient(Switch::Pass), &frame, Reason::NotIp);
        drops(&lenient(Switch::Drop), &frame, Reason::NotIp);
    }
    let mut eight_of_else = eight;
    *eight_of_else.last_mut().unwrap() = 0x10;
    passes(&open(), &ethernet(0x8847, &eight_of_else), Reason::NotIp);
}

#[test]
fn arp() {
    let arp = ethernet(0x0806, &[]);
    let drop_non_ip = |ruleset| with(ruleset, |options| options.non_ip = Switch::Drop);
    let bare = |ruleset| with(ruleset, |options| options.essentials = Essentials::NONE);
    passes(&open(), &arp, Reason::NotIp);
    passes(&closed(), &arp, Reason::Essential);
    passes(&drop_non_ip(open()), &arp, Reason::Essential);
    passes(&drop_non_ip(closed()), &arp, Reason::Essential);
    passes(&bare(open()), &arp, Reason::NotIp);
    passes(&bare(closed()), &arp, Reason::NotIp);
    drops(&bare(drop_non_ip(closed())), &arp, Reason::NotIp);
}

// ---- essentials

#[test]
fn essentials_pass_under_default_deny() {
    let bare = with(closed(), |options| options.essentials = Essentials::NONE);
    let explicit = ruleset(Action::Deny, &[deny(Match::default())]);
    let mut frames = vec![
        v4(1, 0, &icmp(3, 4)),
        v4(2, 0, &[]),
        v4(2, 0x2000, &[0x16]),
        v4(2, 9, &[]),
        v4(UDP, 0, &udp(68)),
        v6(UDP, 64, &udp(546)),
    ];
    // Neighbour discovery comes from the link; MLD and errors need not show it.
    frames.extend((133..=137).map(|kind| v6(ICMPV6, 255, &icmp(kind, 0))));
    for kind in [1, 2, 3, 4, 130, 131, 132, 143] {
        frames.push(v6(ICMPV6, 1, &icmp(kind, 0)));
    }
    // Behind hop-by-hop options, as MLD is (RFC 2710).
    frames.push(v6(0, 1, &[extension(ICMPV6), icmp(143, 0)].concat()));
    for frame in &frames {
        passes(&closed(), frame, Reason::Essential);
        drops(&bare, frame, Reason::DefaultDeny);
        denied_by(&explicit, frame, 0);
        passes(&open(), frame, Reason::DefaultAllow);
    }
}

#[test]
fn nothing_but_essentials_passes_under_default_deny() {
    let mut frames = vec![
        v4(1, 0, &icmp(3, 3)),
        v4(1, 0, &icmp(8, 0)),
        v4(1, 0, &icmp(3, 4)[..7]),
        // The other family's.
        v4(ICMPV6, 0, &icmp(135, 0)),
        v6(1, 64, &icmp(3, 4)),
        v6(2, 64, &[]),
        v4(UDP, 0, &udp(546)),
        v6(UDP, 64, &udp(68)),
        v4(TCP, 0, &tcp(68)),
        v6(TCP, 64, &tcp(546)),
        v4(UDP, 0, &udp(67)),
        v6(UDP, 64, &udp(547)),
        v6(ICMPV6, 255, &icmp(135, 0)[..7]),
        v6(ICMPV6, 64, &icmp(0, 0)),
        v6(ICMPV6, 64, &icmp(5, 0)),
        v6(ICMPV6, 64, &icmp(128, 0)),
        v6(ICMPV6, 64, &icmp(129, 0)),
        v6(ICMPV6, 255, &icmp(138, 0)),
        v6(ICMPV6, 255, &icmp(142, 0)),
        v6(ICMPV6, 255, &icmp(144, 0)),
    ];
    for hop_limit in [0, 1, 254] {
        frames.extend((133..=137).map(|kind| v6(ICMPV6, hop_limit, &icmp(kind, 0))));
    }
    for frame in frames {
        let decision = evaluate(&closed(), &frame);
        assert_eq!(decision.verdict, Verdict::Drop, "{frame:02x?}");
        assert_eq!(decision.rule, None);
    }
}
