//! Rulesets in few words.
#![allow(
    dead_code,
    reason = "each of the test programs that include this file uses a part of it"
)]

use filter_user::ruleset::{
    Action, Direction, Family, Match, Options, PortRange, Rule, RuleId, Ruleset, Stage,
};
use ipnet::IpNet;

/// These rules, in this order, for an endpoint.
pub(crate) fn ruleset(default: Action, rules: impl IntoIterator<Item = Rule>) -> Ruleset {
    let rules = (0..)
        .zip(rules)
        .map(|(index, mut rule)| {
            // The end of a tier keeps to be one.
            if let Some(place) = &mut rule.id.index {
                *place = index;
            }
            rule
        })
        .collect();
    Ruleset {
        endpoint: "eth0".to_owned(),
        direction: Direction::Ingress,
        sets: Vec::new(),
        rules,
        default,
        options: Options::default(),
    }
}

fn rule(stage: Stage, action: Action, matches: Match) -> Rule {
    Rule {
        id: RuleId {
            stage,
            policy: "test".into(),
            direction: Direction::Ingress,
            // Its place in the ruleset, once it has one.
            index: Some(0),
        },
        tier: None,
        action,
        staged: false,
        matches: vec![matches],
        source: None,
    }
}

/// A deny rule of the normal stage.
pub(crate) fn deny(matches: Match) -> Rule {
    rule(Stage::Normal, Action::Deny, matches)
}

/// An allow rule of the normal stage.
pub(crate) fn allow(matches: Match) -> Rule {
    rule(Stage::Normal, Action::Allow, matches)
}

/// A failsafe.
pub(crate) fn failsafe(matches: Match) -> Rule {
    rule(Stage::Failsafe, Action::Allow, matches)
}

/// A rule that logs, of the normal stage.
pub(crate) fn log(matches: Match) -> Rule {
    rule(Stage::Normal, Action::Log, matches)
}

/// A rule that passes on to the next tier, of the normal stage.
pub(crate) fn pass_on(matches: Match) -> Rule {
    rule(Stage::Normal, Action::Pass, matches)
}

/// What happens at the end of a tier of the normal stage.
pub(crate) fn end(action: Action) -> Rule {
    let mut rule = rule(Stage::Normal, action, Match::default());
    rule.id.index = None;
    rule.id.policy = "end".into();
    rule
}

/// The rule, in a tier.
pub(crate) fn in_tier(tier: &str, mut rule: Rule) -> Rule {
    rule.tier = Some(tier.into());
    rule
}

/// The rule, only counted.
pub(crate) fn staged(mut rule: Rule) -> Rule {
    rule.staged = true;
    rule
}

/// The rule, where one of these matches.
pub(crate) fn any_of(alternatives: impl Into<Vec<Match>>, mut rule: Rule) -> Rule {
    rule.matches = alternatives.into();
    rule
}

/// The rule, in another stage.
pub(crate) fn in_stage(stage: Stage, mut rule: Rule) -> Rule {
    rule.id.stage = stage;
    rule
}

/// A protocol.
pub(crate) fn protocol(number: u8) -> Match {
    Match {
        protocol: Some(number),
        ..Match::default()
    }
}

/// Destination ports of a protocol, both ends included.
pub(crate) fn ports(number: u8, ranges: &[(u16, u16)]) -> Match {
    Match {
        dst_ports: self::ranges(ranges),
        ..protocol(number)
    }
}

/// A family.
pub(crate) fn family(family: Family) -> Match {
    Match {
        family: Some(family),
        ..Match::default()
    }
}

/// Sources.
pub(crate) fn from(nets: &[&str]) -> Match {
    Match {
        src: parse(nets).into(),
        ..Match::default()
    }
}

/// Destinations.
pub(crate) fn to(nets: &[&str]) -> Match {
    Match {
        dst: parse(nets).into(),
        ..Match::default()
    }
}

/// Port ranges, both ends included.
pub(crate) fn ranges(ranges: &[(u16, u16)]) -> Vec<PortRange> {
    ranges
        .iter()
        .map(|&(first, last)| PortRange { first, last })
        .collect()
}

/// Networks.
pub(crate) fn parse(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}
