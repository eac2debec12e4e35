//! `notPorts`, of both sides.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::{Raw, Tcp, Udp};

use crate::rules::{deny, ports, protocol, ranges, ruleset};
use crate::{Filter, v4, v6};

fn tcp(sport: u16, dport: u16) -> Tcp {
    Tcp {
        sport,
        ..Tcp::to(dport)
    }
}

#[test]
fn every_destination_port_but_some() {
    let but = Match {
        not_dst_ports: ranges(&[(80, 80), (30000, 32767)]),
        ..protocol(6)
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(but)])) else {
        return;
    };
    for port in [0, 79, 81, 29999, 32768, 65535] {
        filter.denied_by(0, &v4(&tcp(80, port)));
        filter.denied_by(0, &v6(&tcp(80, port)));
    }
    for port in [80, 30000, 32767] {
        filter.passes(Reason::DefaultAllow, &v4(&tcp(1, port)));
        filter.passes(Reason::DefaultAllow, &v6(&tcp(1, port)));
    }
    // Ports of another protocol.
    filter.passes(Reason::DefaultAllow, &v4(&Udp::to(81)));
}

#[test]
fn every_source_port_but_some() {
    let but = Match {
        not_src_ports: ranges(&[(0, 1023), (65535, 65535)]),
        ..protocol(6)
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(but)])) else {
        return;
    };
    for port in [1024, 65534] {
        filter.denied_by(0, &v4(&tcp(port, 0)));
    }
    for port in [0, 1023, 65535] {
        filter.passes(Reason::DefaultAllow, &v4(&tcp(port, 2000)));
    }
}

#[test]
fn an_exception_from_ports() {
    let most = Match {
        not_dst_ports: ranges(&[(22, 22)]),
        not_src_ports: ranges(&[(53, 53)]),
        ..ports(6, &[(1, 1023)])
    };
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(most)])) else {
        return;
    };
    for port in [1, 21, 23, 1023] {
        filter.denied_by(0, &v4(&tcp(52, port)));
        filter.passes(Reason::DefaultAllow, &v4(&tcp(53, port)));
    }
    for port in [0, 22, 1024] {
        filter.passes(Reason::DefaultAllow, &v4(&tcp(52, port)));
    }
}

#[test]
fn without_a_header_it_cannot_be_told() {
    for (not_src_ports, not_dst_ports) in
        [(ranges(&[(80, 80)]), vec![]), (vec![], ranges(&[(80, 80)]))]
    {
        let but = Match {
            not_src_ports,
            not_dst_ports,
            ..protocol(6)
        };
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(but)])) else {
            return;
        };
        filter.drops(Reason::UnreadableL4, &v4(&Raw::new(6, &[0; 19])));
        filter.passes(Reason::DefaultAllow, &v4(&Raw::new(17, &[])));
    }
}
