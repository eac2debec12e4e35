//! `icmp`: type, with and without a code.

use filter_common::verdict::Reason;
use filter_user::ruleset::{self, Action, Match};
use tests::packet::{Icmp, Icmpv6, Ipv4, Raw, Tcp};

use crate::rules::{deny, protocol, ruleset};
use crate::{Filter, plain, v4, v6};

/// Of ICMP (1) or `ICMPv6` (58).
fn is(number: u8, kind: u8, code: Option<u8>) -> Match {
    Match {
        icmp: Some(ruleset::Icmp { kind, code }),
        ..protocol(number)
    }
}

#[test]
fn a_type_with_every_code() {
    for kind in [0, 3, 8, 254, 255] {
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(is(1, kind, None))]))
        else {
            return;
        };
        for code in [0, 1, 4, 255] {
            filter.denied_by(0, &v4(&Icmp::new(kind, code)));
            for other in [kind.wrapping_sub(1), kind.wrapping_add(1)] {
                filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(other, code)));
            }
        }
    }
}

#[test]
fn a_type_with_one_code() {
    for (kind, code) in [(0, 0), (3, 4), (8, 0), (255, 255)] {
        let rules = [deny(is(1, kind, Some(code)))];
        let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
            return;
        };
        filter.denied_by(0, &v4(&Icmp::new(kind, code)));
        for other in [code.wrapping_sub(1), code.wrapping_add(1)] {
            filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(kind, other)));
        }
        for other in [kind.wrapping_sub(1), kind.wrapping_add(1)] {
            filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(other, code)));
        }
    }
}

/// What others confuse: 0 is a type and a code, and neither is "unset".
#[test]
fn code_0_is_not_no_code() {
    let rules = [
        deny(is(1, 0, Some(0))),
        deny(is(1, 3, None)),
        deny(is(1, 8, Some(0))),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v4(&Icmp::new(0, 0)));
    filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(0, 1)));
    filter.denied_by(1, &v4(&Icmp::new(3, 0)));
    filter.denied_by(1, &v4(&Icmp::new(3, 1)));
    filter.denied_by(2, &v4(&Icmp::new(8, 0)));
    filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(8, 1)));
}

#[test]
fn of_its_own_protocol_alone() {
    let rules = [deny(is(58, 128, None)), deny(is(1, 8, None))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.denied_by(0, &v6(&Icmpv6::new(128, 7)));
    filter.passes(Reason::DefaultAllow, &v6(&Icmpv6::new(8, 0)));
    filter.denied_by(1, &v4(&Icmp::new(8, 7)));
    filter.passes(Reason::DefaultAllow, &v4(&Icmp::new(128, 0)));
    // Ports that look like the type.
    filter.passes(Reason::DefaultAllow, &v4(&Tcp::to(0x0800)));
}

#[test]
fn without_a_header_it_cannot_be_told() {
    let rules = [deny(is(1, 8, None))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    for length in [0, 1, 2, 7] {
        let short = Raw::new(1, &[8, 0, 0, 0, 0, 0, 0][..length]);
        filter.drops(Reason::UnreadableL4, &v4(&short));
    }
    let later = Ipv4::fragment(64, false).carry(&Icmp::new(8, 0));
    filter.drops(Reason::Fragment, &plain(&later));
    filter.passes(Reason::DefaultAllow, &v4(&Raw::new(17, &[8, 0])));
}
