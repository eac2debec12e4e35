//! Mistakes that an evaluator might make, by what it takes a ruleset and a
//! frame for.

use filter_common::verdict::Reason;
use filter_user::reference;
use filter_user::ruleset::{
    Action, Addresses, Direction, Essentials, Family, Icmp, Match, NetSet, Options, PortRange,
    Rule, RuleId, Ruleset, Stage,
};

/// A mistake that an evaluator might make: what it takes a ruleset and a frame
/// for.
pub(crate) type Mistake = fn(&mut Ruleset, &mut Vec<u8>);

/// Each must be caught.
pub(crate) fn all() -> impl Iterator<Item = &'static (&'static str, Mistake)> {
    [FRAMES, CONDITIONS, ORDER].into_iter().flatten()
}

const FRAMES: &[(&str, Mistake)] = &[
    ("the IHL is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 && frame[14] > 0x45 {
            frame[14] = 0x45;
        }
    }),
    ("the fragment offset is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            frame[20..22].fill(0);
        }
    }),
    ("\"more fragments\" is ignored", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            frame[20] &= !0x20;
        }
    }),
    ("a third VLAN tag is looked through", |_, frame| {
        let is_tag = |at: usize| {
            frame.get(at..at + 2).is_some_and(|tag| {
                [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]].contains(&[tag[0], tag[1]])
            })
        };
        if is_tag(12) && is_tag(16) && is_tag(20) {
            frame.drain(12..16);
        }
    }),
    ("padding is read as L4", |_, frame| {
        if is_ipv4(frame) && frame.len() >= 34 {
            let all = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
            frame[16..18].copy_from_slice(&all.to_be_bytes());
        }
    }),
    (
        "the hop limit of neighbour discovery is not asked for",
        |_, frame| {
            if frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.len() >= 54 {
                frame[21] = 255;
            }
        },
    ),
    (
        "an IPv4-mapped address is an IPv4 address",
        |ruleset, frame| {
            if frame.get(12..14) == Some(&[0x86, 0xdd])
                && frame.get(22..34) == Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
            {
                let is_v4 = |net: &ipnet::IpNet| matches!(net, ipnet::IpNet::V4(_));
                for rule in &mut ruleset.rules {
                    for matches in &mut rule.matches {
                        if matches.src.nets.iter().any(is_v4) {
                            matches.src.nets.clear();
                        }
                    }
                }
            }
        },
    ),
    ("options are forgotten", |ruleset, _| {
        ruleset.options = filter_user::ruleset::Options::default();
    }),
];

const CONDITIONS: &[(&str, Mistake)] = &[
    ("the end of a port range is exclusive", |ruleset, _| {
        each(ruleset, |matches| cut(&mut matches.dst_ports));
    }),
    (
        "the end of a source port range is exclusive",
        |ruleset, _| {
            each(ruleset, |matches| cut(&mut matches.src_ports));
        },
    ),
    ("source and destination ports are swapped", |ruleset, _| {
        each(ruleset, |matches| {
            std::mem::swap(&mut matches.src_ports, &mut matches.dst_ports);
        });
    }),
    ("ports that it must not have are ignored", |ruleset, _| {
        each(ruleset, |matches| matches.not_dst_ports.clear());
    }),
    (
        "source ports that it must not have are ignored",
        |ruleset, _| each(ruleset, |matches| matches.not_src_ports.clear()),
    ),
    ("source and destination are swapped", |ruleset, _| {
        each(ruleset, |matches| {
            std::mem::swap(&mut matches.src, &mut matches.dst);
        });
    }),
    ("a prefix is one bit short", |ruleset, _| {
        each(ruleset, |matches| {
            for net in &mut matches.src.nets {
                *net = net.supernet().unwrap_or(*net);
            }
        });
    }),
    (
        "networks that it must not be in are ignored",
        |ruleset, _| sides(ruleset, |side| side.not_nets.clear()),
    ),
    ("a family is forgotten", |ruleset, _| {
        each(ruleset, |matches| matches.family = None);
    }),
    ("a negated protocol is ignored", |ruleset, _| {
        each(ruleset, |matches| matches.not_protocol = None);
    }),
    (
        "a hidden protocol is not the negated one",
        |ruleset, frame| {
            if hides_its_protocol(frame) {
                each(ruleset, |matches| matches.not_protocol = None);
            }
        },
    ),
    ("the ICMP code is ignored", |ruleset, _| {
        each(ruleset, |matches| matches.icmp = matches.icmp.map(any_code));
    }),
    ("the negated ICMP code is ignored", |ruleset, _| {
        each(ruleset, |matches| {
            matches.not_icmp = matches.not_icmp.map(any_code);
        });
    }),
    ("ICMP code 0 is no code", |ruleset, _| {
        each(ruleset, |matches| {
            matches.icmp = matches.icmp.map(|icmp| match icmp.code {
                Some(0) => any_code(icmp),
                _ => icmp,
            });
        });
    }),
    ("ICMP type 0 is no type", |ruleset, _| {
        each(ruleset, |matches| {
            matches.icmp = matches.icmp.filter(|icmp| icmp.kind != 0);
        });
    }),
    ("a negated ICMP type is ignored", |ruleset, _| {
        each(ruleset, |matches| matches.not_icmp = None);
    }),
    ("the sets of both sides are swapped", |ruleset, _| {
        each(ruleset, |matches| {
            std::mem::swap(&mut matches.src.sets, &mut matches.dst.sets);
        });
    }),
    ("of several sets the first is enough", |ruleset, _| {
        sides(ruleset, |side| side.sets.truncate(1));
    }),
    ("sets that it must not be in are ignored", |ruleset, _| {
        sides(ruleset, |side| side.not_sets.clear());
    }),
    ("a set without networks is no condition", |ruleset, _| {
        let sets = ruleset.sets.clone();
        let some = |set: &u32| !sets[*set as usize].nets.is_empty();
        sides(ruleset, |side| side.sets.retain(some));
    }),
    ("of several alternatives the first counts", |ruleset, _| {
        for rule in &mut ruleset.rules {
            rule.matches.truncate(1);
        }
    }),
    ("all alternatives must match", |ruleset, frame| {
        let sets = ruleset.sets.clone();
        for rule in &mut ruleset.rules {
            let meets = |matches: &Match| meets(&sets, matches, frame);
            if rule.matches.len() > 1 && !rule.matches.iter().all(meets) {
                rule.matches.clear();
            }
        }
    }),
    (
        "a rule without alternatives always matches",
        |ruleset, _| {
            for rule in &mut ruleset.rules {
                if rule.matches.is_empty() {
                    rule.matches.push(Match::default());
                }
            }
        },
    ),
];

const ORDER: &[(&str, Mistake)] = &[
    ("IPv6 is forgotten", |ruleset, _| {
        for rule in &mut ruleset.rules {
            rule.matches
                .retain(|matches| matches.family != Some(Family::V6));
        }
    }),
    ("the last rule is missing", |ruleset, _| {
        ruleset.rules.pop();
    }),
    ("the last match decides", |ruleset, _| {
        ruleset.rules.reverse();
    }),
    ("failsafes are ordinary rules", |ruleset, _| {
        for rule in &mut ruleset.rules {
            if rule.id.stage == Stage::Failsafe {
                rule.id.stage = Stage::Normal;
            }
        }
    }),
    ("a log decides", |ruleset, _| {
        change(ruleset, Action::Log, |rule| rule.action = Action::Allow);
    }),
    ("a log is not noted", |ruleset, _| {
        change(ruleset, Action::Log, |rule| rule.matches.clear());
    }),
    ("a pass goes on with the next rule", |ruleset, _| {
        change(ruleset, Action::Pass, |rule| rule.action = Action::Log);
    }),
    ("a pass leaves the stage", |ruleset, _| {
        for rule in &mut ruleset.rules {
            rule.tier = None;
        }
    }),
    ("a pass allows", |ruleset, _| {
        change(ruleset, Action::Pass, |rule| rule.action = Action::Allow);
    }),
    ("a pass is not noted", |ruleset, _| {
        // The others of its tier are left out for it, as far as it matches.
        let rules = ruleset.rules.clone();
        for (index, pass) in rules.iter().enumerate() {
            if pass.action == Action::Pass && !pass.staged && pass.matches == [Match::default()] {
                for rule in &mut ruleset.rules[index..] {
                    if rule.same_tier(pass) {
                        rule.matches.clear();
                    }
                }
            }
        }
    }),
    ("staged rules are enforced", |ruleset, _| {
        for rule in &mut ruleset.rules {
            rule.staged = false;
        }
    }),
    ("staged rules are not counted", |ruleset, _| {
        staged(ruleset, |rule| rule.matches.clear());
    }),
    ("the staged walk goes on behind a decision", |ruleset, _| {
        staged(ruleset, |rule| {
            if rule.action.is_final() {
                rule.action = Action::Log;
            }
        });
    }),
    ("a staged pass goes on with the next rule", |ruleset, _| {
        staged(ruleset, |rule| {
            if rule.action == Action::Pass {
                rule.action = Action::Log;
            }
        });
    }),
    ("the end of a tier is a rule", |ruleset, _| {
        for rule in &mut ruleset.rules {
            rule.id.index.get_or_insert(0);
        }
    }),
    ("the end of a tier knows no essentials", |ruleset, _| {
        if ruleset.default == Action::Allow {
            ruleset.options.essentials = Essentials::NONE;
        }
    }),
    (
        "ARP is no essential where a tier denies at its end",
        |ruleset, frame| {
            if frame.get(12..14) == Some(&[8, 6]) && ruleset.default == Action::Allow {
                ruleset.options.essentials = Essentials::NONE;
            }
        },
    ),
];

fn each(ruleset: &mut Ruleset, change: impl FnMut(&mut Match)) {
    let rules = ruleset.rules.iter_mut();
    rules.flat_map(|rule| &mut rule.matches).for_each(change);
}

fn sides(ruleset: &mut Ruleset, mut change: impl FnMut(&mut Addresses)) {
    each(ruleset, |matches| {
        change(&mut matches.src);
        change(&mut matches.dst);
    });
}

/// Changes the enforced rules of an action.
fn change(ruleset: &mut Ruleset, action: Action, change: impl FnMut(&mut Rule)) {
    let rules = ruleset.rules.iter_mut();
    rules
        .filter(|rule| rule.action == action && !rule.staged)
        .for_each(change);
}

fn staged(ruleset: &mut Ruleset, change: impl FnMut(&mut Rule)) {
    let rules = ruleset.rules.iter_mut();
    rules.filter(|rule| rule.staged).for_each(change);
}

fn cut(ranges: &mut [PortRange]) {
    for range in ranges {
        range.last = range.last.saturating_sub(1).max(range.first);
    }
}

const fn any_code(icmp: Icmp) -> Icmp {
    Icmp { code: None, ..icmp }
}

/// What becomes of the frame where a rule with these conditions allows it and
/// all else is denied.
fn alone(sets: &[NetSet], matches: &Match, frame: &[u8]) -> Reason {
    let rule = Rule {
        id: RuleId {
            stage: Stage::Normal,
            policy: "alone".into(),
            direction: Direction::Ingress,
            index: Some(0),
        },
        tier: None,
        action: Action::Allow,
        staged: false,
        matches: vec![matches.clone()],
        source: None,
    };
    let ruleset = Ruleset {
        endpoint: String::new(),
        direction: Direction::Ingress,
        sets: sets.to_vec(),
        rules: vec![rule],
        default: Action::Deny,
        options: Options::default(),
    };
    reference::evaluate(&ruleset, frame).reason
}

fn meets(sets: &[NetSet], matches: &Match, frame: &[u8]) -> bool {
    alone(sets, matches, frame) == Reason::PolicyAllow
}

fn hides_its_protocol(frame: &[u8]) -> bool {
    // One that no other rule's walk would end at.
    let any = Match {
        not_protocol: Some(254),
        ..Match::default()
    };
    let reason = alone(&[], &any, frame);
    reason == Reason::UnreadableL4 || reason == Reason::Fragment
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}
