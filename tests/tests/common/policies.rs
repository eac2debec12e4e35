//! The rulesets that the edge-case table names.

use filter_user::ruleset::{
    Action, Addresses, Direction, Essentials, Fragments, Icmp, Match, NetSet, Ruleset, Stage,
    Switch,
};
use tests::edge::{Policy, Rules};

use crate::rules::{
    allow, deny, end, failsafe, from, in_stage, in_tier, log, parse, pass_on, ports, protocol,
    ranges, ruleset, staged, to,
};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The ruleset that this name stands for.
pub(crate) fn build(policy: Policy) -> Ruleset {
    let node_ports = || {
        let rules = [
            deny(ports(TCP, &[(30000, 32767)])),
            deny(ports(UDP, &[(30000, 32767)])),
            deny(ports(TCP, &[(80, 80)])),
        ];
        ruleset(
            Action::Allow,
            rules.map(|rule| in_stage(Stage::PreDnat, rule)),
        )
    };
    let web = || ruleset(Action::Deny, [allow(ports(TCP, &[(80, 80)]))]);
    let open = || ruleset(Action::Allow, []);
    let change = |mut ruleset: Ruleset, change: fn(&mut Ruleset)| {
        change(&mut ruleset);
        ruleset
    };
    match policy {
        Policy::NodePorts => node_ports(),
        Policy::NodePortsL3Fragments => change(node_ports(), |ruleset| {
            ruleset.options.fragments = Fragments::L3Only;
        }),
        Policy::Blocklist => ruleset(
            Action::Allow,
            [
                deny(from(&["203.0.113.0/24"])),
                deny(from(&["2001:db8:f::/48"])),
            ],
        ),
        Policy::Trusted => ruleset(
            Action::Allow,
            [
                allow(from(&["203.0.113.0/24"])),
                allow(from(&["2001:db8:f::/48"])),
                deny(ports(TCP, &[(0, u16::MAX)])),
            ],
        ),
        Policy::WebOnly => web(),
        Policy::WebOnlyBare => change(web(), |ruleset| {
            ruleset.options.essentials = Essentials::NONE;
            ruleset.options.non_ip = Switch::Drop;
        }),
        Policy::IpOnly => change(open(), |ruleset| ruleset.options.non_ip = Switch::Drop),
        Policy::Lenient => change(open(), |ruleset| {
            ruleset.options.encapsulated_ip = Switch::Pass;
        }),
        Policy::LenientIpOnly => change(open(), |ruleset| {
            ruleset.options.encapsulated_ip = Switch::Pass;
            ruleset.options.non_ip = Switch::Drop;
        }),
        Policy::Tunnels => {
            let numbers = [4, 41, 47, 50, 51, 59, 99];
            let tunnels = numbers.map(|number| deny(protocol(number)));
            let vxlan = deny(ports(UDP, &[(4789, 4789)]));
            ruleset(Action::Allow, tunnels.into_iter().chain([vxlan]))
        }
        Policy::Failsafe => ruleset(
            Action::Allow,
            [
                failsafe(ports(TCP, &[(22, 22)])),
                failsafe(ports(UDP, &[(68, 68)])),
                deny(Match::default()),
            ],
        ),
        Policy::NoIcmpv6 => ruleset(Action::Deny, [deny(protocol(ICMPV6))]),
        Policy::NoIpv4 => ruleset(Action::Allow, [deny(from(&["0.0.0.0/0"]))]),
        Policy::NoMapped => ruleset(Action::Allow, [deny(from(&["::ffff:203.0.113.0/120"]))]),
        Policy::NoMulticast => ruleset(
            Action::Allow,
            [
                deny(to(&["255.255.255.255/32"])),
                deny(to(&["224.0.0.0/4"])),
                deny(to(&["ff00::/8"])),
            ],
        ),
        Policy::NoPortZero => ruleset(Action::Allow, [deny(ports(TCP, &[(0, 0)]))]),
        Policy::IcmpTypes => {
            let icmp = |number, kind, code| Match {
                icmp: Some(Icmp { kind, code }),
                ..protocol(number)
            };
            let but = Match {
                not_icmp: Some(Icmp {
                    kind: 8,
                    code: None,
                }),
                ..protocol(ICMP)
            };
            ruleset(
                Action::Allow,
                [
                    deny(icmp(ICMP, 0, Some(0))),
                    deny(icmp(ICMP, 3, None)),
                    deny(icmp(ICMPV6, 128, Some(0))),
                    deny(but),
                ],
            )
        }
        Policy::ByExclusion => {
            let answers = Match {
                src_ports: ranges(&[(53, 53)]),
                ..protocol(UDP)
            };
            let but_ssh = Match {
                not_dst_ports: ranges(&[(22, 22)]),
                ..protocol(TCP)
            };
            ruleset(Action::Deny, [allow(answers), allow(but_ssh)])
        }
        Policy::OnlyTcp => {
            let others = Match {
                not_protocol: Some(TCP),
                ..Match::default()
            };
            ruleset(Action::Allow, [deny(others)])
        }
        Policy::Tiers => ruleset(
            Action::Allow,
            [
                in_tier("a", pass_on(protocol(TCP))),
                in_tier("a", allow(ports(UDP, &[(53, 53)]))),
                in_tier("a", end(Action::Deny)),
                in_tier("b", deny(ports(TCP, &[(80, 80)]))),
            ],
        ),
        Policy::OwnAddresses => own_addresses(),
        Policy::LogAndStaged => ruleset(
            Action::Allow,
            [
                log(ports(TCP, &[(80, 80)])),
                staged(deny(from(&["203.0.113.0/24"]))),
                log(Match::default()),
                deny(ports(TCP, &[(80, 80)])),
            ],
        ),
    }
}

fn own_addresses() -> Ruleset {
    let here = |matches: Match| Match {
        dst: Addresses {
            sets: vec![0],
            ..Addresses::default()
        },
        ..matches
    };
    let mut end = in_tier("a", end(Action::Deny));
    end.matches = vec![here(Match::default())];
    let mut ruleset = ruleset(
        Action::Allow,
        [
            in_tier("a", deny(here(ports(TCP, &[(80, 80)])))),
            end,
            in_tier("a", deny(ports(TCP, &[(443, 443)]))),
        ],
    );
    ruleset.sets = vec![NetSet {
        name: "this node's addresses".to_owned(),
        nets: parse(&["192.0.2.10/32", "2001:db8::10/128"]).into(),
    }];
    ruleset
}

/// The rulesets that this name stands for, of what comes in and what goes out.
pub(crate) fn build_both(rules: Rules) -> [Ruleset; 2] {
    let ssh = || ports(TCP, &[(22, 22)]);
    let open = || ruleset(Action::Allow, []);
    let (mut ingress, mut egress) = match rules {
        Rules::Outbound | Rules::OutboundTrack => (ruleset(Action::Deny, [allow(ssh())]), open()),
        Rules::ClosedBoth => (
            ruleset(Action::Deny, [failsafe(ssh())]),
            ruleset(Action::Deny, [allow(ports(UDP, &[(53, 53)]))]),
        ),
        Rules::NoUdp => (
            ruleset(
                Action::Allow,
                [
                    deny(protocol(UDP)),
                    log(Match::default()),
                    deny(protocol(ICMP)),
                    deny(protocol(ICMPV6)),
                ],
            ),
            open(),
        ),
        Rules::Untracked => (
            ruleset(
                Action::Allow,
                [UDP, TCP].map(|number| in_stage(Stage::Untracked, deny(protocol(number)))),
            ),
            open(),
        ),
        Rules::OpenAnswers => {
            let answers = Match {
                src_ports: ranges(&[(53, 53)]),
                ..protocol(UDP)
            };
            (ruleset(Action::Deny, [allow(answers)]), open())
        }
    };
    egress.direction = Direction::Egress;
    for rule in &mut egress.rules {
        rule.id.direction = Direction::Egress;
    }
    for ruleset in [&mut ingress, &mut egress] {
        ruleset.options.essentials = Essentials::NONE;
        if rules == Rules::OutboundTrack {
            ruleset.options.fragments = Fragments::Track;
        }
    }
    [ingress, egress]
}
