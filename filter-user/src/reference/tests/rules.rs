//! What rules can ask, and how they follow each other: a test for each
//! sentence of the semantics.

use super::*;
use crate::decision::Judgement;
use crate::reference::judge;
use crate::ruleset::{Addresses, Essentials, Icmp, NetSet};

const ICMP: u8 = 1;
const SCTP: u8 = 132;

// ---- rules

fn index(mut rule: Rule, index: Option<u32>) -> Rule {
    rule.id.index = index;
    rule
}

fn log(matches: Match) -> Rule {
    rule(Action::Log, Stage::Normal, matches)
}

fn next_tier(matches: Match) -> Rule {
    rule(Action::Pass, Stage::Normal, matches)
}

/// The end of a tier.
fn end(action: Action) -> Rule {
    index(rule(action, Stage::Normal, Match::default()), None)
}

fn tier(name: &str, mut rule: Rule) -> Rule {
    rule.tier = Some(name.into());
    rule
}

fn staged(mut rule: Rule) -> Rule {
    rule.staged = true;
    rule
}

fn stage(stage: Stage, mut rule: Rule) -> Rule {
    rule.id.stage = stage;
    rule
}

fn any_of(mut rule: Rule, matches: &[Match]) -> Rule {
    rule.matches = matches.to_vec();
    rule
}

fn everything() -> Match {
    Match::default()
}

fn not_protocol(number: u8) -> Match {
    Match {
        not_protocol: Some(number),
        ..Match::default()
    }
}

fn ranges(list: &[(u16, u16)]) -> Vec<PortRange> {
    list.iter()
        .map(|&(first, last)| PortRange { first, last })
        .collect()
}

fn icmp_is(kind: u8, code: Option<u8>) -> Match {
    Match {
        icmp: Some(Icmp { kind, code }),
        ..protocol(ICMP)
    }
}

fn icmp_is_not(kind: u8, code: Option<u8>) -> Match {
    Match {
        not_icmp: Some(Icmp { kind, code }),
        ..protocol(ICMP)
    }
}

fn src(addresses: Addresses) -> Match {
    Match {
        src: addresses,
        ..Match::default()
    }
}

fn nets(list: &[&str]) -> Vec<ipnet::IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

/// Sets: one that `v4` comes from, one that it goes to, and an empty one.
fn with_sets(mut ruleset: Ruleset) -> Ruleset {
    for list in [&["10.1.0.0/16", "10.0.0.0/8"][..], &["192.0.2.10/32"], &[]] {
        ruleset.sets.push(NetSet {
            name: String::new(),
            nets: nets(list).into(),
        });
    }
    ruleset
}

/// A later fragment.
fn later(number: u8) -> Vec<u8> {
    v4(number, 100, &[0; 24])
}

/// An extension chain that is cut off before it says the protocol.
fn hidden() -> Vec<u8> {
    v6(0, 64, &[TCP])
}

#[track_caller]
fn judged(
    ruleset: &Ruleset,
    frame: &[u8],
    decision: (Verdict, Reason, Option<u32>),
    noted: &[u32],
) {
    let found = judge(ruleset, frame);
    assert_eq!(evaluate(ruleset, frame), found.decision);
    let Judgement {
        decision: found,
        essential,
        noted: also,
    } = found;
    assert_eq!((found.verdict, found.reason, found.rule), decision);
    assert_eq!(essential.is_some(), found.reason == Reason::Essential);
    assert_eq!(also, noted);
}

const fn denied(rule: u32) -> (Verdict, Reason, Option<u32>) {
    (Verdict::Drop, Reason::PolicyDeny, Some(rule))
}

const fn allowed(rule: u32) -> (Verdict, Reason, Option<u32>) {
    (Verdict::Pass, Reason::PolicyAllow, Some(rule))
}

const fn passed(reason: Reason) -> (Verdict, Reason, Option<u32>) {
    (Verdict::Pass, reason, None)
}

const fn dropped(reason: Reason) -> (Verdict, Reason, Option<u32>) {
    (Verdict::Drop, reason, None)
}

/// Whether `matches` matches the frame; it must be decidable.
#[track_caller]
fn holds(matches: &Match, frame: &[u8], wanted: bool) {
    let rules = with_sets(ruleset(Action::Allow, &[deny(matches.clone())]));
    let found = judge(&rules, frame).decision;
    let expected = if wanted {
        denied(0)
    } else {
        passed(Reason::DefaultAllow)
    };
    assert_eq!((found.verdict, found.reason, found.rule), expected);
}

/// Whether `matches` matches can't be told of the frame.
#[track_caller]
fn unknown(matches: &Match, frame: &[u8], reason: Reason) {
    drops(
        &with_sets(ruleset(Action::Allow, &[deny(matches.clone())])),
        frame,
        reason,
    );
}

// ---- conditions

#[test]
fn not_this_protocol() {
    let other = not_protocol(TCP);
    holds(&other, &v4(TCP, 0, &tcp(80)), false);
    holds(&other, &v6(TCP, 64, &tcp(80)), false);
    for number in [0, 1, 5, 7, UDP, 47, 255] {
        holds(&other, &v4(number, 0, &[0; 20]), true);
    }
    // The number is in the packet though its header isn't.
    holds(&other, &v4(TCP, 0, &[]), false);
    holds(&other, &later(TCP), false);
    holds(&other, &later(UDP), true);
}

#[test]
fn a_hidden_protocol_is_neither_one_nor_another() {
    unknown(&protocol(TCP), &hidden(), Reason::UnreadableL4);
    unknown(&not_protocol(TCP), &hidden(), Reason::UnreadableL4);
    let fragment = v6(44, 64, &fragment_header(60, 100, false));
    unknown(&not_protocol(TCP), &fragment, Reason::Fragment);
    // L3 conditions that fail make it a plain no.
    let mut elsewhere = not_protocol(TCP);
    elsewhere.src.nets = nets(&["2001:db8::/32"]);
    holds(&elsewhere, &hidden(), false);
}

#[test]
fn icmp_type_and_code() {
    let frame = |kind, code| v4(ICMP, 0, &icmp(kind, code));
    for (matches, negated) in [
        (icmp_is as fn(u8, Option<u8>) -> Match, false),
        (icmp_is_not, true),
    ] {
        for (kind, code) in [(8, 0), (8, 1), (7, 0), (9, 0), (0, 0)] {
            let yes = |holds: bool| holds != negated;
            holds(&matches(8, None), &frame(kind, code), yes(kind == 8));
            let both = (kind, code) == (8, 0);
            holds(&matches(8, Some(0)), &frame(kind, code), yes(both));
            let both = (kind, code) == (8, 1);
            holds(&matches(8, Some(1)), &frame(kind, code), yes(both));
            let both = (kind, code) == (0, 0);
            holds(&matches(0, Some(0)), &frame(kind, code), yes(both));
            holds(&matches(0, None), &frame(kind, code), yes(kind == 0));
        }
        // Not in the packet.
        unknown(&matches(8, None), &v4(ICMP, 0, &[8]), Reason::UnreadableL4);
        unknown(&matches(8, None), &later(ICMP), Reason::Fragment);
        // Another protocol has neither this type nor another.
        holds(&matches(8, None), &v4(TCP, 0, &tcp(80)), false);
        holds(&matches(8, None), &v6(ICMPV6, 64, &icmp(8, 0)), false);
    }
    let ping = Match {
        protocol: Some(ICMPV6),
        ..icmp_is(128, None)
    };
    holds(&ping, &v6(ICMPV6, 64, &icmp(128, 3)), true);
    holds(&ping, &v6(ICMPV6, 64, &icmp(129, 3)), false);
}

#[test]
fn source_ports() {
    // `l4` gives every header the source port 0xabcd.
    let from = |first, last| Match {
        src_ports: ranges(&[(first, last)]),
        ..protocol(TCP)
    };
    let frame = v4(TCP, 0, &tcp(80));
    for (first, last, inside) in [
        (0xabcd, 0xabcd, true),
        (0xabcd, 0xffff, true),
        (0, 0xabcd, true),
        (0, 0xabcc, false),
        (0xabce, 0xffff, false),
        (80, 80, false),
    ] {
        holds(&from(first, last), &frame, inside);
        let mut but = from(first, last);
        but.not_src_ports = std::mem::take(&mut but.src_ports);
        holds(&but, &frame, !inside);
        for condition in [&but, &from(first, last)] {
            unknown(condition, &v4(TCP, 0, &tcp(80)[..19]), Reason::UnreadableL4);
            unknown(condition, &later(TCP), Reason::Fragment);
            holds(condition, &v4(UDP, 0, &udp(80)), false);
        }
    }
    let mut both = from(0xabcd, 0xabcd);
    both.dst_ports = ranges(&[(80, 80)]);
    holds(&both, &frame, true);
    holds(&both, &v4(TCP, 0, &tcp(81)), false);
    both.src_ports = ranges(&[(1, 2)]);
    holds(&both, &frame, false);
}

#[test]
fn not_these_destination_ports() {
    let but = Match {
        not_dst_ports: ranges(&[(80, 90), (443, 443)]),
        ..protocol(SCTP)
    };
    for (port, outside) in [
        (79, true),
        (80, false),
        (90, false),
        (91, true),
        (443, false),
    ] {
        holds(&but, &v4(SCTP, 0, &l4(port, 12)), outside);
    }
    // Together with ports that it must have.
    let mut some = but;
    some.dst_ports = ranges(&[(85, 100)]);
    for (port, inside) in [
        (84, false),
        (85, false),
        (91, true),
        (100, true),
        (101, false),
    ] {
        holds(&some, &v4(SCTP, 0, &l4(port, 12)), inside);
    }
}

#[test]
fn not_in_these_networks() {
    let frame = v4(TCP, 0, &tcp(80));
    for (list, outside) in [
        (&["10.1.2.3/32"][..], false),
        (&["10.1.2.2/32", "10.1.2.4/32"], true),
        (&["10.1.2.2/32", "10.0.0.0/8"], false),
        // The other family's, and all of it.
        (&["::/0"], true),
        (&["0.0.0.0/0"], false),
    ] {
        let not_nets = nets(list);
        let matches = src(Addresses {
            not_nets: not_nets.clone(),
            ..Addresses::default()
        });
        holds(&matches, &frame, outside);
        let mut swapped = matches.clone();
        std::mem::swap(&mut swapped.src, &mut swapped.dst);
        // What it comes from is not what it goes to.
        holds(&swapped, &frame, list != ["0.0.0.0/0"]);
        // An exception from a network.
        let mut within = matches;
        within.src.nets = nets(&["10.1.0.0/16"]);
        holds(&within, &frame, outside);
        within.src.nets = nets(&["10.2.0.0/16"]);
        holds(&within, &frame, false);
    }
    // It can be told of every packet.
    let but = src(Addresses {
        not_nets: nets(&["10.0.0.0/8"]),
        ..Addresses::default()
    });
    holds(&but, &later(TCP), false);
    holds(&but, &hidden(), true);
}

#[test]
fn in_every_set_and_in_none_of_the_others() {
    let frame = v4(TCP, 0, &tcp(80));
    // 0 is of the source, 1 of the destination, 2 is empty.
    for (sets, not_sets, inside) in [
        (&[0][..], &[][..], true),
        (&[1], &[], false),
        (&[2], &[], false),
        (&[0, 0], &[], true),
        (&[0, 1], &[], false),
        (&[0, 2], &[], false),
        (&[], &[0], false),
        (&[], &[1], true),
        (&[], &[2], true),
        (&[], &[1, 0], false),
        (&[], &[1, 2], true),
        (&[0], &[1, 2], true),
        (&[0], &[0], false),
    ] {
        let asked = Addresses {
            sets: sets.to_vec(),
            not_sets: not_sets.to_vec(),
            ..Addresses::default()
        };
        holds(&src(asked.clone()), &frame, inside);
        // With networks as well, all of it must hold.
        for (list, within) in [(&["10.1.2.0/24"], true), (&["10.1.3.0/24"], false)] {
            let nets = nets(list);
            holds(
                &src(Addresses {
                    nets,
                    ..asked.clone()
                }),
                &frame,
                inside && within,
            );
        }
    }
    let to = |sets: &[u32]| Match {
        dst: Addresses {
            sets: sets.to_vec(),
            ..Addresses::default()
        },
        ..Match::default()
    };
    holds(&to(&[1]), &frame, true);
    holds(&to(&[0]), &frame, false);
}

#[test]
fn one_of_the_alternatives_must_match() {
    let frame = v4(TCP, 0, &tcp(80));
    let (web, dns, short) = (
        ports(TCP, &[(80, 80)]),
        ports(UDP, &[(53, 53)]),
        &frame[..40],
    );
    for (alternatives, matches) in [
        (&[][..], false),
        (std::slice::from_ref(&web), true),
        (std::slice::from_ref(&dns), false),
        (&[dns.clone(), web.clone()], true),
        (&[web.clone(), dns.clone()], true),
        (&[dns.clone(), dns.clone()], false),
    ] {
        let rules = ruleset(Action::Allow, &[any_of(deny(everything()), alternatives)]);
        let wanted = if matches {
            denied(0)
        } else {
            passed(Reason::DefaultAllow)
        };
        judged(&rules, &frame, wanted, &[]);
    }
    // One that matches is enough, one that can't be told is not a no.
    let mut short = short.to_vec();
    short[17] = 26;
    for (alternatives, wanted) in [
        (&[web.clone(), protocol(TCP)][..], denied(0)),
        (&[protocol(TCP), web.clone()], denied(0)),
        (&[dns.clone(), web.clone()], dropped(Reason::UnreadableL4)),
        (&[web, dns.clone()], dropped(Reason::UnreadableL4)),
        (&[dns.clone(), dns], passed(Reason::DefaultAllow)),
    ] {
        let rules = ruleset(Action::Allow, &[any_of(deny(everything()), alternatives)]);
        judged(&rules, &short, wanted, &[]);
    }
}

// ---- log

#[test]
fn a_log_is_noted_and_the_next_rule_follows() {
    let web = || ports(TCP, &[(80, 80)]);
    let rules = ruleset(
        Action::Allow,
        &[
            log(web()),
            log(protocol(TCP)),
            deny(web()),
            log(protocol(TCP)),
            log(protocol(UDP)),
        ],
    );
    judged(&rules, &v4(TCP, 0, &tcp(80)), denied(2), &[0, 1]);
    let open = passed(Reason::DefaultAllow);
    judged(&rules, &v4(TCP, 0, &tcp(81)), open, &[1, 3]);
    judged(&rules, &v4(UDP, 0, &udp(80)), open, &[4]);
    judged(&rules, &v4(47, 0, &[]), open, &[]);
}

#[test]
fn a_log_that_cannot_be_told_is_not_met() {
    let rules = ruleset(
        Action::Allow,
        &[
            log(ports(TCP, &[(80, 80)])),
            log(everything()),
            deny(protocol(TCP)),
        ],
    );
    judged(&rules, &later(TCP), denied(2), &[1]);
    judged(&rules, &v4(TCP, 0, &[]), denied(2), &[1]);
    // What was noted before a rule that can't be decided stays noted.
    judged(&rules, &hidden(), dropped(Reason::UnreadableL4), &[1]);
}

#[test]
fn a_log_makes_nothing_an_essential_or_a_default() {
    let igmp = v4(2, 0, &[]);
    let rules = ruleset(Action::Deny, &[log(everything())]);
    judged(&rules, &igmp, passed(Reason::Essential), &[0]);
    judged(&rules, &v4(47, 0, &[]), dropped(Reason::DefaultDeny), &[0]);
}

// ---- pass and tiers

#[test]
fn a_pass_leaves_its_tier() {
    let all = everything;
    let rules = ruleset(
        Action::Deny,
        &[
            tier("a", next_tier(protocol(TCP))),
            tier("a", deny(all())),
            tier("a", end(Action::Deny)),
            tier("b", log(all())),
            tier("b", next_tier(ports(TCP, &[(80, 80)]))),
            tier("b", deny(ports(TCP, &[(443, 443)]))),
            tier("b", end(Action::Deny)),
            allow(protocol(TCP)),
            end(Action::Deny),
        ],
    );
    judged(&rules, &v4(TCP, 0, &tcp(80)), allowed(7), &[0, 3, 4]);
    judged(&rules, &v4(TCP, 0, &tcp(443)), denied(5), &[0, 3]);
    judged(
        &rules,
        &v4(TCP, 0, &tcp(22)),
        dropped(Reason::DefaultDeny),
        &[0, 3],
    );
    judged(&rules, &v4(UDP, 0, &udp(80)), denied(1), &[]);
}

#[test]
fn a_pass_leaves_its_stage() {
    // The same tier in two stages is two.
    let rules = ruleset(
        Action::Allow,
        &[
            tier("a", stage(Stage::PreDnat, next_tier(everything()))),
            tier("a", stage(Stage::PreDnat, deny(everything()))),
            tier("a", deny(protocol(TCP))),
        ],
    );
    judged(&rules, &v4(TCP, 0, &tcp(80)), denied(2), &[0]);
    judged(
        &rules,
        &v4(UDP, 0, &udp(80)),
        passed(Reason::DefaultAllow),
        &[0],
    );
}

#[test]
fn a_pass_in_the_last_tier_goes_to_what_follows_all_tiers() {
    let rules = |default| {
        ruleset(
            default,
            &[
                tier("a", next_tier(everything())),
                tier("a", end(Action::Deny)),
            ],
        )
    };
    let frame = v4(TCP, 0, &tcp(80));
    judged(
        &rules(Action::Allow),
        &frame,
        passed(Reason::DefaultAllow),
        &[0],
    );
    judged(
        &rules(Action::Deny),
        &frame,
        dropped(Reason::DefaultDeny),
        &[0],
    );
}

#[test]
fn a_pass_that_cannot_be_told_drops() {
    let rules = ruleset(
        Action::Allow,
        &[
            tier("a", next_tier(ports(TCP, &[(80, 80)]))),
            tier("a", allow(everything())),
        ],
    );
    judged(&rules, &v4(TCP, 0, &[]), dropped(Reason::UnreadableL4), &[]);
    judged(&rules, &later(TCP), dropped(Reason::Fragment), &[]);
    judged(&rules, &later(UDP), allowed(1), &[]);
    let l3_only = with(rules, |options| options.fragments = Fragments::L3Only);
    judged(&l3_only, &later(TCP), allowed(1), &[]);
}

#[test]
fn the_end_of_a_tier_is_no_rule() {
    let igmp = v4(2, 0, &[]);
    let gre = v4(47, 0, &[]);
    let rules = ruleset(
        Action::Allow,
        &[tier("a", end(Action::Deny)), allow(everything())],
    );
    judged(&rules, &gre, dropped(Reason::DefaultDeny), &[]);
    judged(&rules, &igmp, passed(Reason::Essential), &[]);
    judged(&rules, &later(TCP), dropped(Reason::DefaultDeny), &[]);
    let bare = with(rules, |options| options.essentials = Essentials::NONE);
    judged(&bare, &igmp, dropped(Reason::DefaultDeny), &[]);
    // One that allows.
    let rules = ruleset(Action::Deny, &[end(Action::Allow), deny(everything())]);
    judged(&rules, &gre, passed(Reason::DefaultAllow), &[]);
    judged(&rules, &igmp, passed(Reason::DefaultAllow), &[]);
    // One with addresses (forwarded traffic meets another default).
    let mut here = end(Action::Deny);
    here.matches[0].dst.nets = nets(&["192.0.2.10/32"]);
    let rules = ruleset(Action::Allow, &[here, allow(protocol(UDP))]);
    judged(
        &rules,
        &v4(UDP, 0, &udp(1)),
        dropped(Reason::DefaultDeny),
        &[],
    );
    judged(&rules, &v6(UDP, 64, &udp(1)), allowed(1), &[]);
}

#[test]
fn arp_where_a_tier_denies_at_its_end() {
    let arp = ethernet(0x0806, &[]);
    let closed_tier = tier("a", end(Action::Deny));
    for (rule, reason) in [
        (closed_tier.clone(), Reason::Essential),
        (staged(closed_tier), Reason::NotIp),
        (end(Action::Allow), Reason::NotIp),
        (deny(everything()), Reason::NotIp),
    ] {
        judged(&ruleset(Action::Allow, &[rule]), &arp, passed(reason), &[]);
    }
}

// ---- staged

#[test]
fn a_staged_rule_is_noted_and_enforced_by_nobody() {
    let frame = v4(TCP, 0, &tcp(80));
    let open = passed(Reason::DefaultAllow);
    for action in [deny, allow, log, next_tier] {
        let rules = ruleset(Action::Allow, &[staged(action(protocol(TCP)))]);
        judged(&rules, &frame, open, &[0]);
        judged(&rules, &v4(UDP, 0, &udp(80)), open, &[]);
        let rules = ruleset(
            Action::Allow,
            &[staged(action(protocol(TCP))), deny(everything())],
        );
        judged(&rules, &frame, denied(1), &[0]);
    }
}

#[test]
fn a_staged_decision_ends_the_staged_walk_alone() {
    let frame = v4(TCP, 0, &tcp(80));
    for action in [deny, allow] {
        let rules = ruleset(
            Action::Allow,
            &[
                log(everything()),
                staged(log(everything())),
                staged(action(everything())),
                staged(deny(everything())),
                // It is met in the enforced walk still.
                log(everything()),
                allow(everything()),
            ],
        );
        judged(&rules, &frame, allowed(5), &[0, 1, 2, 4]);
    }
}

#[test]
fn an_enforced_decision_ends_the_staged_walk() {
    let rules = ruleset(
        Action::Allow,
        &[deny(protocol(TCP)), staged(deny(everything()))],
    );
    judged(&rules, &v4(TCP, 0, &tcp(80)), denied(0), &[]);
    judged(
        &rules,
        &v4(UDP, 0, &udp(80)),
        passed(Reason::DefaultAllow),
        &[1],
    );
    let rules = ruleset(
        Action::Allow,
        &[end(Action::Deny), staged(deny(everything()))],
    );
    judged(&rules, &v4(TCP, 0, &[]), dropped(Reason::DefaultDeny), &[]);
}

#[test]
fn what_cannot_be_told_ends_the_staged_walk() {
    let web = || ports(TCP, &[(80, 80)]);
    let short = v4(TCP, 0, &[]);
    // A staged one ends it, but enforces nothing.
    let rules = ruleset(
        Action::Allow,
        &[
            staged(deny(web())),
            staged(deny(everything())),
            allow(protocol(TCP)),
        ],
    );
    judged(&rules, &short, allowed(2), &[]);
    judged(&rules, &later(TCP), allowed(2), &[]);
    let l3_only = with(rules, |options| options.fragments = Fragments::L3Only);
    judged(&l3_only, &later(TCP), allowed(2), &[1]);
    // A staged log is passed over.
    let rules = ruleset(
        Action::Allow,
        &[staged(log(web())), staged(deny(everything()))],
    );
    judged(&rules, &short, passed(Reason::DefaultAllow), &[1]);
    // An enforced one ends both.
    let rules = ruleset(
        Action::Allow,
        &[
            staged(log(everything())),
            deny(web()),
            staged(deny(everything())),
        ],
    );
    judged(&rules, &short, dropped(Reason::UnreadableL4), &[0]);
}

#[test]
fn a_staged_pass_leaves_the_tier_in_the_staged_walk_alone() {
    let rules = ruleset(
        Action::Allow,
        &[
            tier("a", staged(next_tier(protocol(TCP)))),
            tier("a", staged(log(everything()))),
            tier("a", log(everything())),
            tier("a", next_tier(everything())),
            tier("b", staged(deny(everything()))),
            tier("b", deny(everything())),
        ],
    );
    judged(&rules, &v4(TCP, 0, &tcp(80)), denied(5), &[0, 2, 3, 4]);
    judged(&rules, &v4(UDP, 0, &udp(80)), denied(5), &[1, 2, 3, 4]);
}

#[test]
fn an_enforced_pass_leaves_the_tier_in_the_staged_walk_too() {
    let rules = ruleset(
        Action::Deny,
        &[
            tier("a", next_tier(everything())),
            tier("a", staged(deny(everything()))),
            tier("b", staged(allow(everything()))),
        ],
    );
    judged(
        &rules,
        &v4(47, 0, &[]),
        dropped(Reason::DefaultDeny),
        &[0, 2],
    );
}

#[test]
fn the_end_of_a_staged_tier_would_deny() {
    let rules = ruleset(
        Action::Allow,
        &[
            tier("a", staged(allow(protocol(UDP)))),
            tier("a", staged(end(Action::Deny))),
        ],
    );
    let open = passed(Reason::DefaultAllow);
    judged(&rules, &v4(UDP, 0, &udp(80)), open, &[0]);
    judged(&rules, &v4(TCP, 0, &tcp(80)), open, &[1]);
}

#[test]
fn frames_that_rules_do_not_speak_about_note_nothing() {
    let rules = ruleset(
        Action::Allow,
        &[log(everything()), staged(deny(everything()))],
    );
    for frame in [
        ethernet(0x88cc, &[]),
        ethernet(0x0806, &[]),
        ethernet(1500, &[6, 6, 3]),
        v4(TCP, 1, &tcp(80)),
        vec![],
    ] {
        assert_eq!(judge(&rules, &frame).noted, [] as [u32; 0]);
    }
}
