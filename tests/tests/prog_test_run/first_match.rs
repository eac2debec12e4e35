//! The order of the rules: the first that matches decides.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match, Stage};
use tests::packet::{Raw, Tcp, Udp};

use crate::rules::{allow, deny, from, in_stage, ports, protocol, ruleset};
use crate::{Filter, between, v4, v6};

#[test]
fn the_first_of_two_decides() {
    let (web, all) = (|| ports(6, &[(80, 80)]), Match::default);
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, [allow(web()), deny(all())])) else {
        return;
    };
    filter.allowed_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(1, &v4(&Tcp::to(81)));

    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, [deny(all()), allow(web())])) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v4(&Tcp::to(81)));
}

#[test]
fn a_rule_that_repeats_another_never_decides() {
    let rules = [deny(protocol(6)), deny(protocol(6)), allow(protocol(6))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(0, &v6(&Tcp::to(443)));
}

#[test]
fn stages_in_their_order() {
    let rules = [
        in_stage(Stage::Untracked, allow(ports(6, &[(80, 80)]))),
        in_stage(Stage::PreDnat, deny(ports(6, &[(80, 90)]))),
        in_stage(Stage::Normal, allow(protocol(6))),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
        return;
    };
    filter.allowed_by(0, &v4(&Tcp::to(80)));
    filter.denied_by(1, &v4(&Tcp::to(90)));
    filter.allowed_by(2, &v4(&Tcp::to(91)));
    filter.drops(Reason::DefaultDeny, &v4(&Udp::to(91)));
}

#[test]
fn an_undecidable_rule_has_its_place_in_the_order() {
    let short = v4(&Raw::new(6, &[0; 10]));
    let elsewhere = between("198.51.100.1", "192.0.2.10", &Raw::new(6, &[0; 10]));
    let (trusted, web) = (|| from(&["203.0.113.0/24"]), || ports(6, &[(80, 80)]));

    let rules = [allow(trusted()), deny(web()), allow(protocol(6))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.allowed_by(0, &short);
    filter.drops(Reason::UnreadableL4, &elsewhere);

    let rules = [deny(web()), allow(trusted()), allow(protocol(6))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.drops(Reason::UnreadableL4, &short);
    filter.drops(Reason::UnreadableL4, &elsewhere);
}

#[test]
fn each_of_many_rules_is_found() {
    let rules = (0..1000_u16).map(|port| deny(ports(6, &[(port * 2, port * 2)])));
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for rule in [0, 1, 499, 500, 998, 999_u16] {
        filter.denied_by(rule.into(), &v4(&Tcp::to(rule * 2)));
        filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(rule * 2 + 1)));
    }
}
