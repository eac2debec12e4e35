//! Random rulesets, in all the words that they have, and packets that aim at
//! them.

#[path = "recipe.rs"]
mod recipe;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::verdict::Essential;
use filter_user::ruleset::{
    Action, Addresses, Direction, Essentials, Family, Fragments, Icmp, Match, NetSet, Options,
    PortRange, Rule, RuleId, Ruleset, Stage, Switch,
};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

#[allow(
    unused_imports,
    reason = "each of the test programs that include this file uses a part of it"
)]
pub(crate) use recipe::{Frame, Recipe, recipe};

/// Rules that one packet may meet without being decided by them.
const MAX_NOTED: usize = 32;

/// A ruleset of up to `rules` rules.
pub(crate) fn ruleset(rules: usize) -> impl Strategy<Value = Ruleset> {
    (
        prop::collection::vec(set(), 0..5),
        prop::collection::vec(rule(), 0..=rules),
        prop::bool::ANY,
        options(),
    )
        .prop_map(|(sets, mut rules, deny, options)| {
            order(&mut rules);
            for rule in &mut rules {
                for matches in &mut rule.matches {
                    refer(&mut matches.src, sets.len());
                    refer(&mut matches.dst, sets.len());
                }
            }
            Ruleset {
                endpoint: "random".to_owned(),
                direction: Direction::Ingress,
                sets,
                rules,
                default: if deny { Action::Deny } else { Action::Allow },
                options,
            }
        })
}

/// Stages come in their order, failsafes first; in each the tiers in theirs,
/// and what is of no tier last. Each rule becomes one of its own.
pub(crate) fn order(rules: &mut Vec<Rule>) {
    rules.sort_by_key(|rule| {
        let tier = rule.tier.clone();
        (rule.id.stage, tier.is_none(), tier)
    });
    let mut noted = 0;
    rules.retain(|rule| {
        noted += usize::from(rule.staged || !rule.action.is_final());
        noted <= MAX_NOTED
    });
    for (index, rule) in (0..).zip(rules) {
        match &mut rule.id.index {
            Some(place) => *place = index,
            None => rule.id.policy = format!("end {index}").into(),
        }
    }
}

/// Makes the sets that are asked for some that there are.
fn refer(addresses: &mut Addresses, sets: usize) {
    for list in [&mut addresses.sets, &mut addresses.not_sets] {
        if sets == 0 {
            list.clear();
        }
        for set in list {
            *set %= u32::try_from(sets).unwrap();
        }
    }
}

fn options() -> impl Strategy<Value = Options> {
    let switch = || select(vec![Switch::Pass, Switch::Drop]);
    let fragments = select(vec![Fragments::Drop, Fragments::L3Only]);
    // Kinds by their bits; all and none more often.
    let some = any::<u8>().prop_map(|bits| {
        let kinds = Essential::ALL
            .iter()
            .filter(|kind| bits >> **kind as u8 & 1 != 0);
        kinds.fold(Essentials::NONE, |kinds, kind| kinds.with(*kind))
    });
    let essentials = prop_oneof![
        2 => Just(Essentials::ALL),
        1 => Just(Essentials::NONE),
        1 => some,
    ];
    (fragments, switch(), switch(), essentials).prop_map(
        |(fragments, non_ip, encapsulated_ip, essentials)| Options {
            fragments,
            non_ip,
            encapsulated_ip,
            essentials,
        },
    )
}

/// Networks of both families; every fourth set is empty.
fn set() -> impl Strategy<Value = NetSet> {
    let net = || prop_oneof![net(Family::V4), net(Family::V6)];
    prop_oneof![
        1 => Just(vec![]),
        3 => prop::collection::vec(net(), 1..5),
    ]
    .prop_map(|nets: Vec<_>| NetSet {
        name: "random".to_owned(),
        nets: nets.into(),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let place = prop_oneof![
        2 => Just((Stage::Failsafe, None)),
        2 => Just((Stage::Untracked, Some("a"))),
        3 => select(vec!["a", "b"]).prop_map(|tier| (Stage::PreDnat, Some(tier))),
        8 => select(vec!["a", "b", "c"]).prop_map(|tier| (Stage::Normal, Some(tier))),
        2 => Just((Stage::Normal, None)),
    ];
    let action = prop_oneof![
        4 => select(vec![Action::Allow, Action::Deny]),
        1 => Just(Action::Log),
        1 => Just(Action::Pass),
    ];
    // What stands at the end of a tier.
    let end = prop::bool::weighted(0.1);
    let staged = prop::bool::weighted(0.2);
    let alternatives = prop_oneof![
        14 => prop::collection::vec(matches(), 1),
        4 => prop::collection::vec(matches(), 2..4),
        1 => Just(vec![]),
    ];
    (place, action, end, staged, alternatives).prop_map(
        |((stage, tier), action, end, staged, mut matches)| {
            let failsafe = stage == Stage::Failsafe;
            let end = end && !failsafe && action.is_final();
            if end {
                matches.iter_mut().for_each(leave_l3);
            }
            Rule {
                id: RuleId {
                    stage,
                    policy: "p".into(),
                    direction: Direction::Ingress,
                    index: if end { None } else { Some(0) },
                },
                tier: tier.map(Into::into),
                action: if failsafe { Action::Allow } else { action },
                staged: staged && !failsafe,
                matches,
                source: None,
            }
        },
    )
}

/// The conditions that can be told of every packet.
fn leave_l3(matches: &mut Match) {
    *matches = Match {
        family: matches.family,
        src: std::mem::take(&mut matches.src),
        dst: std::mem::take(&mut matches.dst),
        ..Match::default()
    };
}

fn matches() -> impl Strategy<Value = Match> {
    let protocol = prop_oneof![
        3 => Just(None),
        6 => select(vec![6, 17]).prop_map(Some),
        3 => select(vec![1, 58]).prop_map(Some),
        3 => select(vec![132, 136, 47, 50, 51, 2, 0, 44, 59]).prop_map(Some),
        1 => any::<u8>().prop_map(Some),
    ];
    let not_protocol = prop_oneof![
        5 => Just(None),
        1 => select(vec![6, 17, 1, 58, 0, 44, 50, 59]).prop_map(Some),
    ];
    (
        select(vec![None, None, None, Some(Family::V4), Some(Family::V6)]),
        (protocol, not_protocol),
        (icmp(), icmp()),
        (ports(), ports(), ports(), ports()),
        select(vec![
            &[Family::V4][..],
            &[Family::V6],
            &[Family::V4, Family::V6],
        ]),
        (addresses(), addresses()),
    )
        .prop_map(
            |(
                family,
                (protocol, not_protocol),
                (icmp, not_icmp),
                (src_ports, not_src_ports, dst_ports, not_dst_ports),
                families,
                (mut src, mut dst),
            )| {
                let only = |side: &mut Addresses| {
                    for nets in [&mut side.nets, &mut side.not_nets] {
                        nets.retain(|net| families.contains(&family_of(*net)));
                    }
                };
                only(&mut src);
                only(&mut dst);
                let has_ports = matches!(protocol, Some(6 | 17 | 132 | 136));
                let is_icmp = matches!(protocol, Some(1 | 58));
                let if_ports = |ports| if has_ports { ports } else { Vec::new() };
                Match {
                    family,
                    protocol,
                    not_protocol,
                    icmp: icmp.filter(|_| is_icmp),
                    not_icmp: not_icmp.filter(|_| is_icmp),
                    src,
                    dst,
                    src_ports: if_ports(src_ports),
                    not_src_ports: if_ports(not_src_ports),
                    dst_ports: if_ports(dst_ports),
                    not_dst_ports: if_ports(not_dst_ports),
                }
            },
        )
}

fn family_of(net: IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// Mostly nothing.
fn icmp() -> impl Strategy<Value = Option<Icmp>> {
    let kind = prop_oneof![4 => select(vec![0, 3, 8, 128, 135, 255]), 1 => any::<u8>()];
    let code = prop_oneof![
        2 => Just(None),
        2 => select(vec![0, 1, 4, 255]).prop_map(Some),
        1 => any::<u8>().prop_map(Some),
    ];
    let some = (kind, code).prop_map(|(kind, code)| Some(Icmp { kind, code }));
    prop_oneof![1 => Just(None), 1 => some]
}

/// Mostly nothing.
fn addresses() -> impl Strategy<Value = Addresses> {
    let net = || prop_oneof![net(Family::V4), net(Family::V6)];
    let nets = || prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(net(), 1..4)];
    let not_nets = prop_oneof![5 => Just(vec![]), 1 => prop::collection::vec(net(), 1..3)];
    let sets = || prop_oneof![6 => Just(vec![]), 1 => prop::collection::vec(0..4_u32, 1..3)];
    (nets(), not_nets, sets(), sets()).prop_map(|(nets, not_nets, sets, not_sets)| Addresses {
        nets,
        not_nets,
        sets,
        not_sets,
    })
}

/// Few addresses and all prefix lengths: so that networks nest and touch.
fn net(family: Family) -> BoxedStrategy<IpNet> {
    let v4 = || {
        prop_oneof![
            3 => select(vec![0, 0x0a01_0203, 0x0a01_0200, 0xc000_024d, u32::MAX]),
            1 => any::<u32>(),
        ]
    };
    let v6 = || {
        prop_oneof![
            3 => select(vec![0, 0x2001_0db8 << 96 | 7, 0x2001_0db8 << 96, 0xffff_0a01_0203, u128::MAX]),
            1 => any::<u128>(),
        ]
    };
    match family {
        Family::V4 => (v4(), 0..=32_u8)
            .prop_map(|(bits, length)| {
                let net = IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length);
                net.map_or_else(|error| panic!("{error}"), |net| net.trunc())
            })
            .boxed(),
        Family::V6 => (v6(), 0..=128_u8)
            .prop_map(|(bits, length)| {
                let net = IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), length);
                net.map_or_else(|error| panic!("{error}"), |net| net.trunc())
            })
            .boxed(),
    }
}

/// Mostly nothing.
fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let port = || {
        prop_oneof![
            2 => select(vec![0, 1, 80, 255, 256, 30000, 32767, 32768, u16::MAX]),
            1 => any::<u16>(),
        ]
    };
    let range = (port(), port()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    });
    prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(range, 1..3)]
}
