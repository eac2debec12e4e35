//! Tests where the compiler changes its ways: numbers of classes, the limit of
//! dense tables, the memory budget, the kinds of packets that are asked. Each
//! image is compared with the reference around the place.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::combination::DENSE;
use super::*;
use crate::packet_text::{Fields, Header, PacketText};
use crate::reference;
use crate::ruleset::{Addresses, Direction, Match, Options, PortRange, RuleId, Stage};

const ENOUGH: u64 = 512 << 20;

fn ruleset(matches: impl IntoIterator<Item = Match>) -> Ruleset {
    let rule = |(index, matches): (u32, Match)| Rule {
        id: RuleId {
            stage: Stage::Normal,
            policy: "p".into(),
            direction: Direction::Ingress,
            index: Some(index),
        },
        tier: None,
        action: if index % 2 == 0 {
            Action::Deny
        } else {
            Action::Allow
        },
        staged: false,
        matches: vec![matches],
        source: None,
    };
    Ruleset {
        endpoint: "eth0".into(),
        direction: Direction::Ingress,
        sets: Vec::new(),
        rules: (0..).zip(matches).map(rule).collect(),
        default: Action::Allow,
        options: Options::default(),
    }
}

/// Hosts of 10.0.0.0/8, every other address.
fn host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | number << 1)
}

fn hosts(number: u32) -> Addresses {
    vec![IpNet::from(IpAddr::from(host(number)))].into()
}

fn src(number: u32) -> Match {
    Match {
        src: hosts(number),
        ..Match::default()
    }
}

fn dst(number: u32) -> Match {
    Match {
        dst: hosts(number),
        ..Match::default()
    }
}

fn both(src: u32, dst: u32) -> Match {
    Match {
        src: hosts(src),
        dst: hosts(dst),
        ..Match::default()
    }
}

fn tcp(dst_port: u16) -> Match {
    let port = PortRange {
        first: dst_port,
        last: dst_port,
    };
    Match {
        protocol: Some(6),
        dst_ports: vec![port],
        ..Match::default()
    }
}

fn from_port(src_port: u16, matches: Match) -> Match {
    let port = PortRange {
        first: src_port,
        last: src_port,
    };
    Match {
        src_ports: vec![port],
        ..matches
    }
}

/// The image decides as the reference does, from and to these hosts and ports,
/// and those beside them.
#[track_caller]
fn check(ruleset: &Ruleset, image: &Image, hosts: &[u32], ports: &[u16]) {
    let around = |number: u32| {
        [
            host(number),
            Ipv4Addr::from_bits(host(number).to_bits() + 1),
        ]
    };
    for src in hosts.iter().flat_map(|&number| around(number)) {
        for dst in hosts.iter().flat_map(|&number| around(number)) {
            for (protocol, selector) in [(1, 0x0800)]
                .into_iter()
                .chain(ports.iter().map(|&port| (6, port)))
            {
                for header in [Header::Whole, Header::LaterFragment] {
                    let packet = PacketText::new(Fields {
                        protocol: Some(protocol),
                        src: src.into(),
                        dst: dst.into(),
                        sport: selector,
                        selector,
                        header,
                        hop_limit: None,
                    });
                    let frame = packet.frame();
                    let expected = reference::evaluate(ruleset, &frame);
                    assert_eq!(image.classify(&frame), expected, "{packet}");
                }
            }
        }
    }
}

fn compiled(ruleset: &Ruleset, combination: Option<Combination>) -> Image {
    Image::compile_as(ruleset, ENOUGH, combination).expect("within the budget")
}

/// As many L4 classes, source ports apart: so many ports of TCP.
fn ports_for(classes: usize) -> RangeInclusive<u16> {
    let few = ruleset((1..=9).map(tcp));
    let beside = Classes::of(&few).l4.classes.len() - 9;
    1..=u16::try_from(classes - beside).expect("a port")
}

#[test]
fn numbers_of_address_classes() {
    for classes in [255, 256, 257] {
        // The first class is of all other addresses.
        let last = classes - 1;
        let sources = ruleset((1..=last).map(src));
        let pairs = ruleset((1..=last).map(|number| both(number, last + 1 - number)));
        for (ruleset, has_dst) in [(&sources, false), (&pairs, true)] {
            let cut = Classes::of(ruleset);
            assert_eq!(cut.families[0].src.count(), classes as usize);
            assert_eq!(cut.families[0].dst.count() > 1, has_dst);
            for combination in [None, Some(Combination::Parts)] {
                let image = compiled(ruleset, combination);
                check(ruleset, &image, &[0, 1, last - 1, last, last + 1], &[80]);
            }
        }
    }
    for classes in [65_535, 65_536, 65_537] {
        // The reference asks all of them.
        let last = classes - 1;
        let ruleset = ruleset((1..=last).map(src));
        assert_eq!(
            Classes::of(&ruleset).families[0].src.count(),
            classes as usize
        );
        for combination in [Combination::OneDimension, Combination::Parts] {
            let image = compiled(&ruleset, Some(combination));
            check(&ruleset, &image, &[last], &[]);
        }
    }
}

#[test]
fn numbers_of_l4_classes() {
    for classes in [255, 256, 257] {
        let ports = ports_for(classes);
        let last = *ports.end();
        let rules = ports.map(tcp).chain([both(1, 2), src(3)]);
        let ruleset = ruleset(rules);
        assert_eq!(Classes::of(&ruleset).l4.classes.len(), classes);
        for combination in [None, Some(Combination::Parts)] {
            let image = compiled(&ruleset, combination);
            check(&ruleset, &image, &[1, 2, 3], &[1, last, last + 1, 65_535]);
        }
    }
}

#[test]
fn numbers_of_source_port_classes() {
    // A block of a row has sixteen, and what is in a line's words is less than 256.
    for classes in [2, 15, 16, 17, 255, 256, 257] {
        let last = classes - 1;
        let rules = (1..=last)
            .map(|port| from_port(port, if port % 2 == 0 { tcp(port) } else { both(1, 2) }));
        let rules = rules.map(|matches| Match {
            protocol: Some(6),
            ..matches
        });
        let ruleset = ruleset(rules.chain([src(3), dst(1)]));
        let cut = Classes::of(&ruleset);
        assert_eq!(cut.source_ports.classes.len(), usize::from(classes));
        for combination in [Some(Combination::Dense), Some(Combination::Parts)] {
            let image = compiled(&ruleset, combination);
            check(
                &ruleset,
                &image,
                &[1, 2, 3],
                &[0, 1, last / 2, last, last + 1],
            );
        }
    }
}

#[test]
fn pairs_around_the_dense_limit() {
    // As many destinations as sources, and a source more or less.
    let side = 1_024;
    assert_eq!(u64::from(side) * u64::from(side), DENSE);
    for (sources, expected) in [
        (side - 1, Combination::Dense),
        (side, Combination::Dense),
        (side + 1, Combination::Parts),
    ] {
        let last = sources.max(side) - 1;
        let rules = (1..=last).map(|number| both(number.min(sources - 1), number.min(side - 1)));
        let ruleset = ruleset(rules);
        let cut = Classes::of(&ruleset);
        let pairs = u64::from(sources) * u64::from(side);
        assert_eq!(cut.families[0].pairs(), pairs);
        let image = compiled(&ruleset, None);
        assert_eq!(image.combination(), expected);
        check(&ruleset, &image, &[1, sources - 1, sources, side], &[80]);
    }
}

#[test]
fn decisions_around_the_dense_limit() {
    let l4 = 1_024;
    let ports = ports_for(l4);
    for (pair_classes, expected) in [
        (1_023, Combination::Dense),
        (1_024, Combination::Dense),
        (1_025, Combination::Parts),
    ] {
        // One class of pairs has no line of theirs; IPv6 has one more.
        let sources = pair_classes - 2;
        let rules = (1..=sources).map(|number| both(number, 1));
        let ruleset = ruleset(rules.chain(ports.clone().map(tcp)));
        let cut = Classes::of(&ruleset);
        assert_eq!(cut.l4.classes.len(), l4);
        let joined = cut.join(DENSE, u64::MAX).expect("few pairs");
        let count: usize = joined.iter().map(Pairs::count).sum();
        assert_eq!(count, pair_classes as usize);
        let image = compiled(&ruleset, None);
        assert_eq!(image.combination(), expected);
        let last = *ports.end();
        check(
            &ruleset,
            &image,
            &[1, sources, sources + 1],
            &[1, last, last + 1],
        );
    }
}

#[test]
fn source_ports_in_one_dimension_around_the_limit() {
    // Each source port is a class of its own with port 80.
    let rules = |sources: u32| {
        let ports = (1..=400).map(|port| from_port(port, tcp(80)));
        ruleset((1..=sources).map(src).chain(ports))
    };
    let columns = Classes::of(&rules(9)).whole_l4().classes.len() as u64;
    // One class beside those of the sources, and one of IPv6.
    let most = (DENSE / columns - 2) as u32;
    for (sources, expected) in [
        (most, Combination::OneDimension),
        (most + 1, Combination::Parts),
    ] {
        let ruleset = rules(sources);
        let image = compiled(&ruleset, None);
        assert_eq!(image.combination(), expected);
        check(&ruleset, &image, &[1, sources, sources + 1], &[80, 400]);
    }
}

#[test]
fn the_budget_to_a_line() {
    let rules = (1..=300)
        .map(|number| both(number, number / 2))
        .chain((1..=20).map(|port| from_port(port, tcp(port + 1))))
        .chain((1..=20).map(src))
        .chain((1..=20).map(dst));
    let ruleset = ruleset(rules);
    for combination in [Combination::Dense, Combination::Parts] {
        let image = compiled(&ruleset, Some(combination));
        let within = |budget| Image::compile_as(&ruleset, budget, Some(combination));
        assert!(within(image.memory()).is_ok_and(|same| same == image));
        let less = image.memory() - size_of::<Line>() as u64;
        let Err(CompileError::TooLarge { needed, budget }) = within(less) else {
            panic!("{combination} in {less} bytes");
        };
        assert_eq!(budget, less);
        assert!(needed > less && needed <= image.memory());
    }
    // What is too large as a table is combined by parts.
    let [dense, parts] =
        [Combination::Dense, Combination::Parts].map(|one| compiled(&ruleset, Some(one)));
    assert!(parts.memory() < dense.memory());
    for expected in [dense, parts] {
        let image = Image::compile(&ruleset, expected.memory());
        assert!(image.is_ok_and(|image| image == expected));
    }
}

#[test]
fn what_is_too_large_says_what_to_do() {
    let text = |needed, budget| CompileError::TooLarge { needed, budget }.to_string();
    assert_eq!(
        text(3 << 20, 1 << 20),
        "the tables of this ruleset take at least 3.0 MiB, more than the budget of 1.0 MiB; allow \
         more with --max-memory, or merge rules that differ only in their addresses"
    );
    let too_large = text(1 << 30, words::LARGEST);
    assert!(!too_large.contains("--max-memory"), "{too_large}");
    assert!(too_large.contains("512 MiB, so merge rules"), "{too_large}");
}

#[test]
fn kinds_of_packets_that_are_asked() {
    let most = analysis::MAX_KINDS;
    let l4 = 500;
    let ports = ports_for(l4);
    // One pair is of IPv6.
    let pairs = most / l4 as u64 - 1;
    let (sources, destinations) = (1_081, 37);
    assert_eq!(u64::from(sources * destinations), pairs - 2);
    for (sources, in_time) in [(sources, true), (sources + 1, false)] {
        let rules = (1..sources).map(|number| both(number, number.min(destinations - 1)));
        let ruleset = ruleset(rules.chain(ports.clone().map(tcp)));
        let analysis = Analysis::of(&ruleset).expect("few rules");
        let pairs = u64::from(sources * destinations) + 1;
        let kinds = pairs * l4 as u64;
        assert_eq!(kinds <= most, in_time);
        let expected = if in_time {
            Ok(())
        } else {
            Err(CompileError::TooManyKinds(kinds))
        };
        assert_eq!(analysis.asks_in_time(), expected);
    }
}
