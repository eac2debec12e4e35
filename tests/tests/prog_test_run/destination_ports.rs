//! `destination.ports`.

use filter_common::verdict::Reason;
use filter_user::ruleset::Action;
use tests::packet::{Ipv4, Payload, Raw, Sctp, Tcp, Udp};

use crate::rules::{deny, ports, ruleset};
use crate::{Filter, plain, v4, v6};

type ToPort = fn(u16) -> Box<dyn Payload>;

const PROTOCOLS: [(u8, ToPort); 4] = [
    (6, |port| Box::new(Tcp::to(port))),
    (17, |port| Box::new(Udp::to(port))),
    (132, |port| Box::new(Sctp::to(port))),
    (136, |port| Box::new(Udp::lite_to(port))),
];

#[test]
fn both_ends_of_a_range_belong_to_it() {
    for (number, to) in PROTOCOLS {
        let rules = [deny(ports(number, &[(30000, 32767)]))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        for port in [30000, 30001, 31000, 32766, 32767] {
            filter.denied_by(0, &v4(&*to(port)));
            filter.denied_by(0, &v6(&*to(port)));
        }
        for port in [0, 29999, 32768, 65535] {
            filter.passes(Reason::DefaultAllow, &v4(&*to(port)));
            filter.passes(Reason::DefaultAllow, &v6(&*to(port)));
        }
    }
}

#[test]
fn one_port_the_first_and_the_last() {
    for port in [0, 1, 80, 255, 256, 65534, 65535] {
        let rules = [deny(ports(6, &[(port, port)]))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.denied_by(0, &v4(&Tcp::to(port)));
        filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(port.wrapping_add(1))));
        filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(port.wrapping_sub(1))));
        // Not the bytes in the other order.
        if port.swap_bytes() != port {
            filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(port.swap_bytes())));
        }
    }
}

#[test]
fn any_of_a_list() {
    let listed = [(22, 22), (80, 81), (8000, 8999)];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(ports(6, &listed))])) else {
        return;
    };
    for port in [22, 80, 81, 8000, 8999] {
        filter.denied_by(0, &v4(&Tcp::to(port)));
    }
    for port in [21, 23, 79, 82, 7999, 9000] {
        filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(port)));
    }
}

#[test]
fn overlapping_ranges_of_several_rules() {
    let rules = [
        deny(ports(6, &[(100, 200)])),
        deny(ports(6, &[(150, 300)])),
        deny(ports(17, &[(150, 300)])),
        deny(ports(6, &[(0, 65535)])),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for (port, rule) in [
        (99, 3),
        (100, 0),
        (150, 0),
        (200, 0),
        (201, 1),
        (300, 1),
        (301, 3),
    ] {
        filter.denied_by(rule, &v4(&Tcp::to(port)));
    }
    filter.denied_by(2, &v4(&Udp::to(200)));
    filter.passes(Reason::DefaultAllow, &v4(&Udp::to(149)));
}

#[test]
fn all_ports_still_need_a_port() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(ports(6, &[(0, 65535)]))]))
    else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(0)));
    filter.drops(Reason::UnreadableL4, &v4(&Raw::new(6, &[0; 19])));
    filter.passes(Reason::DefaultAllow, &v4(&Udp::to(80)));
}

#[test]
fn the_source_port_is_not_asked() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(ports(6, &[(80, 80)]))]))
    else {
        return;
    };
    let answer = Tcp {
        sport: 80,
        ..Tcp::to(51515)
    };
    filter.passes(Reason::DefaultAllow, &v4(&answer));
    filter.denied_by(0, &v4(&Tcp::to(80)));
}

#[test]
fn behind_options_of_every_length() {
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(ports(6, &[(80, 80)]))]))
    else {
        return;
    };
    for words in 0..=10 {
        let packet = Ipv4 {
            // What would be port 80 to whoever doesn't skip them.
            options: [0, 80].repeat(words * 2),
            ..Ipv4::default()
        };
        filter.denied_by(0, &plain(&packet.carry(&Tcp::to(80))));
        filter.passes(Reason::DefaultAllow, &plain(&packet.carry(&Tcp::to(443))));
    }
}
