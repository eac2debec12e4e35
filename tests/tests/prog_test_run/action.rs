//! Allow and deny, and the stage that a rule belongs to.

use filter_user::ruleset::{Action, Match, Stage};
use tests::packet::{Tcp, Udp};

use crate::rules::{allow, deny, in_stage, protocol, ruleset};
use crate::{Filter, v4, v6};

#[test]
fn an_allow_rule_passes_under_default_deny() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, [allow(Match::default())])) else {
        return;
    };
    filter.allowed_by(0, &v4(&Tcp::to(80)));
    filter.allowed_by(0, &v6(&Udp::to(53)));
}

#[test]
fn a_deny_rule_drops_under_default_allow() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(Match::default())])) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v6(&Udp::to(53)));
}

#[test]
fn every_stage_counts_for_its_own_rule() {
    let stages = [Stage::Untracked, Stage::PreDnat, Stage::Normal];
    let rules = stages
        .into_iter()
        .zip([6, 17, 132])
        .map(|(stage, number)| in_stage(stage, deny(protocol(number))));
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(1, &v4(&Udp::to(80)));
    filter.denied_by(2, &v4(&tests::packet::Sctp::to(80)));
}

#[test]
fn counts_add_up() {
    let rules = [deny(protocol(6)), allow(protocol(17))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let (tcp, udp) = (v4(&Tcp::to(80)), v6(&Udp::to(80)));
    for _ in 0..10 {
        filter.denied_by(0, &tcp);
    }
    filter.allowed_by(1, &udp);
    let stats = filter.0.stats().unwrap();
    let counts: Vec<_> = stats
        .of_rules
        .iter()
        .map(|count| (count.packets, count.bytes))
        .collect();
    assert_eq!(counts, [(10, 10 * tcp.len() as u64), (1, udp.len() as u64)]);
}
