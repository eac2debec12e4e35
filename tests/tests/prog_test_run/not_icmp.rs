//! `notICMP`.

use filter_common::verdict::Reason;
use filter_user::ruleset::{self, Action, Match};
use tests::packet::{Icmp, Icmpv6, Ipv4, Raw, Tcp};

use crate::rules::{deny, protocol, ruleset};
use crate::{Filter, plain, v4, v6};

fn icmp(kind: u8, code: Option<u8>) -> ruleset::Icmp {
    ruleset::Icmp { kind, code }
}

fn is_not(kind: u8, code: Option<u8>) -> Match {
    Match {
        not_icmp: Some(icmp(kind, code)),
        ..protocol(1)
    }
}

#[test]
fn every_type_but_one() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(is_not(8, None))])) else {
        return;
    };
    for kind in [0, 7, 9, 255] {
        filter.denied_by(0, &v4(&Icmp::new(kind, 0)));
    }
    for code in [0, 1, 255] {
        filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(8, code)));
    }
}

#[test]
fn every_code_but_one() {
    for code in [0, 4, 255] {
        let rules = [deny(is_not(3, Some(code)))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(3, code)));
        for other in [code.wrapping_sub(1), code.wrapping_add(1)] {
            filter.denied_by(0, &v4(&Icmp::new(3, other)));
        }
        filter.denied_by(0, &v4(&Icmp::new(2, code)));
        filter.denied_by(0, &v4(&Icmp::new(4, code)));
    }
}

#[test]
fn an_exception_from_a_type() {
    let matches = Match {
        icmp: Some(icmp(3, None)),
        ..is_not(3, Some(4))
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(matches)])) else {
        return;
    };
    filter.denied_by(0, &v4(&Icmp::new(3, 3)));
    filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(3, 4)));
    filter.denied_by(0, &v4(&Icmp::new(3, 5)));
    filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(4, 3)));
}

#[test]
fn other_protocols_are_not_meant() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(is_not(8, None))])) else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v6(&Icmpv6::new(3, 0)));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(47, &[])));
}

#[test]
fn without_a_header_it_cannot_be_told() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(is_not(8, None))])) else {
        return;
    };
    filter.drops(Reason::UnreadableL4, &v4(&Raw::new(1, &[8, 0])));
    filter.drops(Reason::UnreadableL4, &v4(&Raw::new(1, &[0, 0])));
    let later = Ipv4::fragment(64, false).carry(&Icmp::new(0, 0));
    filter.drops(Reason::Fragment, &plain(&later));
}
