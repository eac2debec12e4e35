//! `source.ports`.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::{Ipv4, Payload, Raw, Sctp, Tcp, Udp};

use crate::rules::{deny, ports, protocol, ranges, ruleset};
use crate::{Filter, plain, v4, v6};

type FromPort = fn(u16) -> Box<dyn Payload>;

const PROTOCOLS: [(u8, FromPort); 4] = [
    (6, |sport| Box::new(tcp(sport, 80))),
    (17, |sport| {
        Box::new(Udp {
            sport,
            ..Udp::to(80)
        })
    }),
    (132, |sport| {
        Box::new(Sctp {
            sport,
            ..Sctp::to(80)
        })
    }),
    (136, |sport| {
        Box::new(Udp {
            sport,
            ..Udp::lite_to(80)
        })
    }),
];

fn tcp(sport: u16, dport: u16) -> Tcp {
    Tcp {
        sport,
        ..Tcp::to(dport)
    }
}

fn from_ports(number: u8, list: &[(u16, u16)]) -> Match {
    Match {
        src_ports: ranges(list),
        ..protocol(number)
    }
}

#[test]
fn both_ends_of_a_range_belong_to_it() {
    for (number, from) in PROTOCOLS {
        let rules = [deny(from_ports(number, &[(1024, 2047)]))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        for port in [1024, 1025, 2046, 2047] {
            filter.denied_by(0, &v4(&*from(port)));
            filter.denied_by(0, &v6(&*from(port)));
        }
        for port in [0, 80, 1023, 2048, 65535] {
            filter.passes(Reason::DefaultAllow, &v4(&*from(port)));
            filter.passes(Reason::DefaultAllow, &v6(&*from(port)));
        }
    }
}

#[test]
fn one_port_the_first_and_the_last() {
    for port in [0_u16, 1, 255, 256, 65534, 65535] {
        let rules = [deny(from_ports(6, &[(port, port)]))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.denied_by(0, &v4(&tcp(port, 80)));
        for other in [port.wrapping_add(1), port.wrapping_sub(1)] {
            filter.passes(Reason::DefaultAllow, &v4(&tcp(other, 80)));
        }
        // The port, on the other side.
        filter.passes(Reason::DefaultAllow, &v4(&tcp(80, port)));
    }
}

#[test]
fn together_with_destination_ports() {
    let both = Match {
        src_ports: ranges(&[(53, 53), (5353, 5353)]),
        ..ports(6, &[(1000, 2000)])
    };
    let rules = [deny(both), deny(ports(6, &[(1500, 1500)]))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for sport in [53, 5353] {
        for dport in [1000, 1500, 2000] {
            filter.denied_by(0, &v4(&tcp(sport, dport)));
        }
        for dport in [999, 2001] {
            filter.passes(Reason::DefaultAllow, &v4(&tcp(sport, dport)));
        }
    }
    filter.denied_by(1, &v4(&tcp(54, 1500)));
    filter.passes(Reason::DefaultAllow, &v4(&tcp(54, 1000)));
    filter.passes(Reason::DefaultAllow, &v4(&tcp(1000, 53)));
}

#[test]
fn without_a_header_it_cannot_be_told() {
    let rules = [deny(from_ports(6, &[(53, 53)]))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for length in [0, 2, 19] {
        filter.drops(Reason::UnreadableL4, &v4(&Raw::new(6, &[0; 19][..length])));
    }
    let later = Ipv4::fragment(64, false).carry(&tcp(53, 80));
    filter.drops(Reason::Fragment, &plain(&later));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(17, &[])));
}

/// Ports that contradict each other leave one class of all ports, in which no
/// port is asked for.
#[test]
fn no_port_at_all() {
    let none = Match {
        not_src_ports: ranges(&[(0, 0)]),
        ..from_ports(6, &[(0, 0)])
    };
    let rules = [deny(none), deny(ports(6, &[(80, 80)]))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for sport in [0, 1, 80] {
        filter.denied_by(1, &v4(&tcp(sport, 80)));
        filter.passes(Reason::DefaultAllow, &v4(&tcp(sport, 0)));
    }
}
