//! Which packets two rulesets treat differently: the classes of both together
//! are all the kinds of packets that there are.

use std::collections::BTreeSet;
use std::ops::Range;

use filter_common::verdict::Essential;

use super::analysis::join;
use super::class::Cell;
use super::classes::{Cells, Classes};
use super::decide::{self, End};
use super::{CompileError, examples};
use crate::decision::Decision;
use crate::packet_text::{Fields, PacketText};
use crate::reference;
use crate::ruleset::{Essentials, Family, Ruleset};

/// Packets that two rulesets treat differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the first one does with the example.
    pub before: Decision,
    /// What the second one does with it.
    pub after: Decision,
    /// One of the packets.
    pub example: PacketText,
}

/// The IP packets that pass under one of two rulesets and not under the other:
/// one example for each two rules that decide differently, and each kind of
/// essentials that one of them lets through.
///
/// Other frames, and packets that the state of something decides (flows,
/// fragments that came before), are none of them.
pub fn differences(before: &Ruleset, after: &Ruleset) -> Result<Vec<Difference>, CompileError> {
    let both = joint(before, after);
    let sides = [
        Side {
            ruleset: before,
            rules: 0..before.rules.len(),
        },
        Side {
            ruleset: after,
            rules: before.rules.len()..both.rules.len(),
        },
    ];
    let classes = Classes::with(&both, |rule| {
        let side = sides.iter().find(|side| side.rules.contains(&rule));
        side.unwrap_or(&sides[0]).ruleset.options.fragments
    });
    let pairs = join(&classes)?;
    let headers = [Family::V4, Family::V6].map(|family| examples::headers(&classes, &both, family));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (family, headers) in [Family::V4, Family::V6].into_iter().zip(&headers) {
        let family_classes = &classes.families[family as usize];
        let sources = examples::addresses(family, &family_classes.src, [203, 0, 113, 7]);
        let destinations = examples::addresses(family, &family_classes.dst, [192, 0, 2, 10]);
        let hosts = sources
            .iter()
            .flat_map(|src| destinations.iter().map(move |dst| (src, dst)));
        let pairs = &pairs[family as usize];
        let cells = Cells::of(&classes, pairs);
        for (&pair, (src, dst)) in pairs.table().iter().zip(hosts) {
            for (l4, headers) in headers.iter().enumerate() {
                let cell = cells.cell(pair, l4);
                let fates = sides.each_ref().map(|side| side.fate(&classes, cell));
                let denied = fates.each_ref().map(|fate| fate.denied);
                if denied[0] == denied[1] && !fates.iter().any(|fate| fate.spares.is_some()) {
                    continue;
                }
                for (kind, header) in headers {
                    let spared = fates.each_ref().map(|fate| fate.lets_through(*kind));
                    if (denied[0] && !spared[0]) == (denied[1] && !spared[1]) {
                        continue;
                    }
                    let kind = kind.filter(|_| spared.contains(&true));
                    if !seen.insert((fates.each_ref().map(|fate| fate.end), kind)) {
                        continue;
                    }
                    let example = PacketText::new(Fields {
                        src: *src,
                        dst: *dst,
                        ..*header
                    });
                    let frame = example.frame();
                    found.push(Difference {
                        before: reference::evaluate(before, &frame),
                        after: reference::evaluate(after, &frame),
                        example,
                    });
                }
            }
        }
    }
    // What shows its ports tells more.
    found.sort_by_key(|difference| !difference.example.is_whole());
    Ok(found)
}

/// One of two rulesets that are compared.
struct Side<'r> {
    ruleset: &'r Ruleset,
    /// Its rules among those of both.
    rules: Range<usize>,
}

impl Side<'_> {
    fn fate(&self, classes: &Classes<'_>, cell: Cell<'_>) -> SideFate {
        let lines = &classes.lines;
        let end = decide::fate(lines, self.rules.clone(), cell, false).end;
        let by_default = decide::denies_by_default(self.ruleset, lines.rules, end);
        SideFate {
            end,
            denied: decide::denies(self.ruleset, lines.rules, end),
            spares: by_default.then_some(self.ruleset.options.essentials),
        }
    }
}

/// What a ruleset does with the packets of a cell.
struct SideFate {
    end: End,
    denied: bool,
    /// Where a default denies: essentials that pass all the same.
    spares: Option<Essentials>,
}

impl SideFate {
    /// Whether packets of this kind pass though the others of their cell are
    /// denied.
    fn lets_through(&self, kind: Option<Essential>) -> bool {
        match (self.spares, kind) {
            (Some(spared), Some(kind)) => spared.has(kind),
            _ => false,
        }
    }
}

/// Both rulesets as one, so that its classes are fine enough for both.
fn joint(before: &Ruleset, after: &Ruleset) -> Ruleset {
    let mut both = before.clone();
    let offset = both.sets.len() as u32;
    both.sets.extend(after.sets.iter().cloned());
    both.rules
        .extend(after.rules.iter().cloned().map(|mut rule| {
            for asked in &mut rule.matches {
                for side in [&mut asked.src, &mut asked.dst] {
                    for set in side.sets.iter_mut().chain(&mut side.not_sets) {
                        *set += offset;
                    }
                }
            }
            rule
        }));
    both
}

#[cfg(test)]
mod tests {
    use filter_common::wire::l4;

    use super::super::analysis::tests::{from, ruleset, tcp};
    use super::*;
    use crate::ruleset::{Action, Fragments, Icmp, Match};

    #[test]
    fn differences_have_an_example_each() {
        let before = ruleset(Action::Allow, vec![(Action::Deny, tcp(&[(30000, 32767)]))]);
        let mut after = ruleset(
            Action::Allow,
            vec![
                (
                    Action::Allow,
                    from("198.51.100.0/24", tcp(&[(30000, 30009)])),
                ),
                (Action::Deny, tcp(&[(30000, 32768)])),
            ],
        );
        let found = differences(&before, &after).expect("small");
        let shown: Vec<_> = found
            .iter()
            .map(|found| {
                let verdicts = (found.before.verdict.name(), found.after.verdict.name());
                (found.example.to_string(), verdicts)
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "tcp 203.0.113.7:51515 > 192.0.2.10:32768".to_owned(),
                    ("pass", "drop")
                ),
                (
                    "tcp 198.51.100.7:51515 > 192.0.2.10:30000".to_owned(),
                    ("drop", "pass")
                ),
            ]
        );
        after.clone_from(&before);
        assert_eq!(differences(&before, &after), Ok(Vec::new()));
        after.default = Action::Deny;
        let found = differences(&before, &after).expect("small");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].example.to_string(),
            "tcp 203.0.113.7:51515 > 192.0.2.10:443"
        );
    }

    /// What is shown of two rulesets' differences: the packet, its reason before
    /// and after.
    fn shown(before: &Ruleset, after: &Ruleset) -> Vec<(String, [&'static str; 2])> {
        let found = differences(before, after).expect("small");
        let shown = found.iter().map(|found| {
            let reasons = [found.before.reason.name(), found.after.reason.name()];
            (found.example.to_string(), reasons)
        });
        shown.collect()
    }

    #[test]
    fn essentials_are_differences_too() {
        let icmpv6 = Match {
            family: Some(Family::V6),
            protocol: Some(l4::ICMPV6),
            ..Match::default()
        };
        let closed = ruleset(Action::Deny, vec![]);
        let harsh = ruleset(Action::Deny, vec![(Action::Deny, icmpv6.clone())]);
        assert_eq!(
            shown(&closed, &harsh),
            [135, 130, 1].map(|kind| (
                format!("icmpv6 2001:db8::7 > 2001:db8::a type {kind} code 0"),
                ["essential", "policy_deny"]
            ))
        );
        // Of a class of essentials, those that came from afar are none.
        let discovery = Match {
            icmp: Some(Icmp {
                kind: 135,
                code: Some(0),
            }),
            ..icmpv6
        };
        let open = ruleset(Action::Deny, vec![(Action::Allow, discovery)]);
        assert_eq!(
            shown(&closed, &open),
            [(
                "icmpv6 2001:db8::7 > 2001:db8::a type 135 code 0 hoplimit 64".to_owned(),
                ["default_deny", "policy_allow"]
            )]
        );
        // A kind that the options name no more.
        let mut fewer = closed.clone();
        fewer.options.essentials = Essentials::NONE.with(Essential::Igmp);
        let names: Vec<String> = shown(&closed, &fewer)
            .into_iter()
            .map(|(packet, reasons)| {
                assert_eq!(reasons, ["essential", "default_deny"], "{packet}");
                packet
            })
            .collect();
        assert_eq!(
            names,
            [
                "icmp 203.0.113.7 > 192.0.2.10 type 3 code 4",
                "udp 203.0.113.7:51515 > 192.0.2.10:68",
                "icmpv6 2001:db8::7 > 2001:db8::a type 135 code 0",
                "icmpv6 2001:db8::7 > 2001:db8::a type 130 code 0",
                "icmpv6 2001:db8::7 > 2001:db8::a type 1 code 0",
                "udp [2001:db8::7]:51515 > [2001:db8::a]:546",
            ]
        );
    }

    #[test]
    fn what_shows_no_header_may_differ_alone() {
        let all_ports = |kind| ruleset(Action::Deny, vec![(Action::Allow, kind)]);
        let (ports, protocol) = (all_ports(tcp(&[(0, u16::MAX)])), all_ports(tcp(&[])));
        assert_eq!(
            shown(&ports, &protocol),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 frag".to_owned(),
                ["fragment", "policy_allow"]
            ),]
        );
        // Where later fragments don't wait for ports, what is cut short does.
        let l3_only = |mut ruleset: Ruleset| {
            ruleset.options.fragments = Fragments::L3Only;
            ruleset
        };
        let open = |matches| l3_only(ruleset(Action::Allow, vec![(Action::Allow, matches)]));
        assert_eq!(
            shown(&open(tcp(&[(0, u16::MAX)])), &open(tcp(&[]))),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 cut".to_owned(),
                ["unreadable_l4", "policy_allow"]
            ),]
        );
        assert_eq!(
            shown(&open(tcp(&[])), &open(Match::default())),
            [(
                "hidden 2001:db8::7 > 2001:db8::a".to_owned(),
                ["unreadable_l4", "policy_allow"]
            ),]
        );
        // The options alone.
        let web = ruleset(Action::Allow, vec![(Action::Deny, tcp(&[(80, 80)]))]);
        assert_eq!(
            shown(&web, &l3_only(web.clone())),
            [(
                "tcp 203.0.113.7 > 192.0.2.10 frag".to_owned(),
                ["fragment", "default_allow"]
            ),]
        );
    }
}
