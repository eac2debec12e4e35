//! `notProtocol`.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::{Extension, Icmp, Ipv4, Payload, Raw, Tcp, Udp};

use crate::rules::{deny, ruleset};
use crate::{Filter, plain, v4, v6, v6_with};

fn all_but(number: u8) -> Match {
    Match {
        not_protocol: Some(number),
        ..Match::default()
    }
}

#[test]
fn every_protocol_but_one() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(all_but(6))])) else {
        return;
    };
    let others: [&dyn Payload; 5] = [
        &Udp::to(80),
        &Icmp::new(8, 0),
        &Raw::new(5, &[0; 20]),
        &Raw::new(7, &[0; 20]),
        &Raw::new(47, &[]),
    ];
    for other in others {
        filter.denied_by(0, &v4(other));
        filter.denied_by(0, &v6(other));
    }
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v6(&Tcp::to(80)));
}

#[test]
fn it_needs_no_l4_header() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(all_but(6))])) else {
        return;
    };
    let later = |payload: &dyn Payload| plain(&Ipv4::fragment(64, false).carry(payload));
    filter.denied_by(0, &v4(&Raw::new(17, &[])));
    filter.denied_by(0, &later(&Udp::to(80)));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(6, &[])));
    filter.passes(Reason::DefaultAllow, &later(&Tcp::to(80)));
}

#[test]
fn a_hidden_protocol_may_be_any() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(all_but(6))])) else {
        return;
    };
    for payload in [&Tcp::to(80) as &dyn Payload, &Udp::to(80)] {
        let hidden = v6_with([Extension::destination().claims(99)], payload);
        filter.drops(Reason::UnreadableL4, &hidden);
    }
}

#[test]
fn together_with_a_protocol() {
    let both = |protocol, not| Match {
        protocol: Some(protocol),
        ..all_but(not)
    };
    let rules = [deny(both(6, 6)), deny(both(17, 6))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(80)));
    filter.denied_by(1, &v4(&Udp::to(80)));
}
