//! What no rule decides.

use filter_common::verdict::Reason;
use filter_user::ruleset::Action;
use tests::packet::{Raw, Sctp, Tcp, Udp};

use crate::rules::{allow, deny, ports, ruleset};
use crate::{Filter, v4, v6};

#[test]
fn nothing_but_a_default() {
    for (default, passes) in [(Action::Allow, true), (Action::Deny, false)] {
        let Some(mut filter) = Filter::load(&ruleset(default, [])) else {
            return;
        };
        for frame in [
            v4(&Tcp::to(80)),
            v6(&Tcp::to(80)),
            v4(&Udp::to(53)),
            v6(&Sctp::to(53)),
            v4(&Raw::new(99, &[])),
        ] {
            if passes {
                filter.passes(Reason::DefaultAllow, &frame);
            } else {
                filter.drops(Reason::DefaultDeny, &frame);
            }
        }
    }
}

#[test]
fn the_default_is_for_what_rules_leave() {
    let rules = [deny(ports(6, &[(80, 80)]))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Tcp::to(80)));
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(81)));

    let rules = [allow(ports(6, &[(80, 80)]))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
        return;
    };
    filter.allowed_by(0, &v4(&Tcp::to(80)));
    filter.drops(Reason::DefaultDeny, &v4(&Tcp::to(81)));
}
