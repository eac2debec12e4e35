//! `notNets`, of both sides.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Addresses, Match};
use tests::packet::{Ipv4, Tcp};

use crate::rules::{deny, parse, ruleset};
use crate::{Filter, between, plain};

fn but(nets: &[&str], not_nets: &[&str]) -> Addresses {
    Addresses {
        nets: parse(nets),
        not_nets: parse(not_nets),
        ..Addresses::default()
    }
}

fn src(src: Addresses) -> Match {
    Match {
        src,
        ..Match::default()
    }
}

fn dst(dst: Addresses) -> Match {
    Match {
        dst,
        ..Match::default()
    }
}

fn from(address: &str) -> Vec<u8> {
    between(address, "100.64.0.1", &Tcp::to(80))
}

fn from_v6(address: &str) -> Vec<u8> {
    between(address, "fe80::1", &Tcp::to(80))
}

#[test]
fn everywhere_but_here() {
    let rules = [deny(src(but(&[], &["10.0.0.0/8", "192.0.2.7/32"])))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8"] {
        filter.denied_by(0, &from(outside));
    }
    for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7"] {
        filter.passes(Reason::DefaultAllow, &from(inside));
        // It is not the destination that is asked.
        filter.denied_by(0, &between("100.64.0.1", inside, &Tcp::to(80)));
    }
    // No IPv6 address is in a network of IPv4.
    filter.denied_by(0, &from_v6("::ffff:10.0.0.1"));
}

#[test]
fn of_the_destination() {
    let rules = [deny(dst(but(&[], &["2001:db8::/32"])))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let to = |address: &str| between("fe80::1", address, &Tcp::to(80));
    filter.denied_by(0, &to("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"));
    filter.passes(Reason::DefaultAllow, &to("2001:db8::"));
    filter.passes(
        Reason::DefaultAllow,
        &to("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    );
    filter.denied_by(0, &to("2001:db9::"));
    filter.denied_by(0, &from_v6("2001:db8::"));
    filter.denied_by(0, &from("192.0.2.1"));
}

#[test]
fn an_exception_from_a_network() {
    let rules = [
        deny(src(but(&["10.0.0.0/8"], &["10.1.0.0/16"]))),
        deny(src(but(&["10.1.2.0/24"], &[]))),
        // Nothing is left of it.
        deny(src(but(&["10.1.3.0/24"], &["10.1.0.0/16"]))),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &from("10.0.255.255"));
    filter.passes(Reason::DefaultAllow, &from("10.1.0.0"));
    filter.denied_by(1, &from("10.1.2.3"));
    filter.passes(Reason::DefaultAllow, &from("10.1.3.0"));
    filter.passes(Reason::DefaultAllow, &from("10.1.255.255"));
    filter.denied_by(0, &from("10.2.0.0"));
    filter.passes(Reason::DefaultAllow, &from("11.0.0.0"));
}

#[test]
fn nowhere_at_all() {
    let rules = [deny(src(but(&[], &["0.0.0.0/0"])))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &from("0.0.0.0"));
    filter.passes(Reason::DefaultAllow, &from("255.255.255.255"));
    filter.denied_by(0, &from_v6("::"));
}

#[test]
fn it_can_be_told_of_every_fragment() {
    let rules = [deny(src(but(&[], &["10.0.0.0/8"])))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let later = |src: [u8; 4]| {
        let packet = Ipv4 {
            src: src.into(),
            ..Ipv4::fragment(64, false)
        };
        plain(&packet.carry(&Tcp::to(80)))
    };
    filter.passes(Reason::DefaultAllow, &later([10, 1, 2, 3]));
    filter.denied_by(0, &later([11, 1, 2, 3]));
}
