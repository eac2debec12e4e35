//! Failsafe ports: open whatever the policies say, and nothing else is.

use filter_common::verdict::{Reason, Verdict};
use filter_user::ruleset::{Action, Match, Ruleset};
use tests::packet::{Extension, Ipv4, Raw, Tcp, Udp};

use crate::rules::{deny, failsafe, from, ports, ruleset};
use crate::{Filter, between, decision, plain, v4, v6, v6_with};

/// ssh from anywhere, 6443 from one net, DHCP; all else is denied.
fn rules() -> Ruleset {
    let api = Match {
        src: from(&["203.0.113.0/24"]).src,
        ..ports(6, &[(6443, 6443)])
    };
    ruleset(
        Action::Deny,
        [
            failsafe(ports(6, &[(22, 22)])),
            failsafe(api),
            failsafe(ports(17, &[(68, 68)])),
            deny(Match::default()),
        ],
    )
}

#[test]
fn they_pass_with_a_reason_of_their_own() {
    let Some(mut filter) = Filter::load(&rules()) else {
        return;
    };
    let open = |rule| decision(Verdict::Pass, Reason::Failsafe, Some(rule));
    filter.expect(&v4(&Tcp::to(22)), open(0));
    filter.expect(&v6(&Tcp::to(22)), open(0));
    filter.expect(&v4(&Tcp::to(6443)), open(1));
    filter.expect(&v4(&Udp::to(68)), open(2));
}

#[test]
fn all_else_meets_the_rules() {
    let Some(mut filter) = Filter::load(&rules()) else {
        return;
    };
    for port in [21, 23, 68, 6442] {
        filter.denied_by(3, &v4(&Tcp::to(port)));
    }
    filter.denied_by(3, &v4(&Udp::to(22)));
    filter.denied_by(3, &between("198.51.100.7", "192.0.2.10", &Tcp::to(6443)));
    filter.denied_by(3, &v6(&Tcp::to(6443)));
}

#[test]
fn what_does_not_show_its_port_is_no_failsafe() {
    let Some(mut filter) = Filter::load(&rules()) else {
        return;
    };
    let ssh = Tcp::to(22);
    filter.denied_by(3, &v4(&Raw::new(6, &[0xc9, 0x3b, 0, 22])));
    filter.denied_by(3, &plain(&Ipv4::fragment(64, false).carry(&ssh)));
    filter.denied_by(3, &v6_with([Extension::fragment(64, true)], &ssh));
    filter.denied_by(3, &v6_with([Extension::destination().claims(99)], &ssh));
    filter.drops(
        Reason::TinyFragment,
        &plain(&Ipv4::fragment(1, true).carry(&ssh)),
    );
}
