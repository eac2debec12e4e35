//! `protocol`, by name and by number.

use filter_common::verdict::Reason;
use filter_user::ruleset::Action;
use tests::packet::{Icmp, Icmpv6, Payload, Raw, Sctp, Tcp, Udp};

use crate::rules::{deny, protocol, ruleset};
use crate::{Filter, v4, v6};

#[test]
fn every_named_protocol_and_no_other() {
    let payloads: [&dyn Payload; 6] = [
        &Tcp::to(80),
        &Udp::to(80),
        &Sctp::to(80),
        &Udp::lite_to(80),
        &Icmp::new(8, 0),
        &Icmpv6::new(128, 0),
    ];
    for denied in payloads {
        let rules = [deny(protocol(denied.protocol()))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        for payload in payloads {
            for frame in [v4(payload), v6(payload)] {
                if payload.protocol() == denied.protocol() {
                    filter.denied_by(0, &frame);
                } else {
                    filter.passes(Reason::DefaultAllow, &frame);
                }
            }
        }
    }
}

#[test]
fn numbers_match_without_a_header() {
    // One rule a number: GRE, ESP, no next header, the first and the last.
    let numbers = [47, 50, 59, 3, 255];
    let Some(mut filter) = Filter::load(&ruleset(
        Action::Allow,
        numbers.map(|number| deny(protocol(number))),
    )) else {
        return;
    };
    for (rule, number) in (0..).zip(numbers) {
        filter.denied_by(rule, &v4(&Raw::new(number, &[])));
        filter.denied_by(rule, &v6(&Raw::new(number, &[])));
    }
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(254, &[])));
    filter.passes(Reason::DefaultAllow, &v6(&Raw::new(48, &[])));
}

#[test]
fn a_rule_without_ports_needs_no_l4_header() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(protocol(6))])) else {
        return;
    };
    for length in [0, 4, 19] {
        filter.denied_by(0, &v4(&Raw::new(6, &[0; 19][..length])));
        filter.denied_by(0, &v6(&Raw::new(6, &[0; 19][..length])));
    }
}

#[test]
fn protocol_0_is_a_number_in_ipv4() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(protocol(0))])) else {
        return;
    };
    filter.denied_by(0, &v4(&Raw::new(0, &[])));
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(0)));
}
