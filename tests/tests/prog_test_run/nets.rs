//! What sources and destinations have in common: prefixes of every kind.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::Tcp;

use crate::rules::{allow, deny, ruleset};
use crate::{Filter, between};

/// The one of both addresses that a test is about.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Source,
    Destination,
}

impl Side {
    fn nets(self, nets: &[&str]) -> Match {
        match self {
            Self::Source => crate::rules::from(nets),
            Self::Destination => crate::rules::to(nets),
        }
    }

    /// A packet with this address on the side, and another on the other.
    fn frame(self, address: &str) -> Vec<u8> {
        let other = if address.contains(':') {
            "fe80::1"
        } else {
            "100.64.0.1"
        };
        match self {
            Self::Source => between(address, other, &Tcp::to(80)),
            Self::Destination => between(other, address, &Tcp::to(80)),
        }
    }

    /// The same, with the addresses on the wrong sides.
    fn swapped(self, address: &str) -> Vec<u8> {
        match self {
            Self::Source => Self::Destination.frame(address),
            Self::Destination => Self::Source.frame(address),
        }
    }
}

/// A net, addresses in it (its first and last among them), and addresses that
/// are not (its neighbours among them).
type Prefix = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PREFIXES: &[Prefix] = &[
    (
        "0.0.0.0/0",
        &["0.0.0.0", "255.255.255.255", "127.255.255.255", "128.0.0.0"],
        &["::", "::ffff:1.2.3.4", "ffff::"],
    ),
    (
        "128.0.0.0/1",
        &["128.0.0.0", "255.255.255.255"],
        &["127.255.255.255", "0.0.0.0", "8000::"],
    ),
    (
        "10.0.0.0/8",
        &["10.0.0.0", "10.255.255.255"],
        &["9.255.255.255", "11.0.0.0"],
    ),
    (
        "172.16.0.0/12",
        &["172.16.0.0", "172.31.255.255"],
        &["172.15.255.255", "172.32.0.0"],
    ),
    (
        "192.168.0.0/16",
        &["192.168.0.0", "192.168.255.255"],
        &["192.167.255.255", "192.169.0.0"],
    ),
    (
        "203.0.113.0/24",
        &["203.0.113.0", "203.0.113.1", "203.0.113.255"],
        &[
            "203.0.112.255",
            "203.0.114.0",
            "203.1.113.7",
            "::ffff:203.0.113.7",
        ],
    ),
    (
        "198.51.100.128/25",
        &["198.51.100.128", "198.51.100.255"],
        &["198.51.100.127", "198.51.101.0"],
    ),
    (
        "192.0.2.6/31",
        &["192.0.2.6", "192.0.2.7"],
        &["192.0.2.5", "192.0.2.8"],
    ),
    (
        "192.0.2.7/32",
        &["192.0.2.7"],
        &["192.0.2.6", "192.0.2.8", "192.0.3.7", "7.2.0.192"],
    ),
    ("0.0.0.0/32", &["0.0.0.0"], &["0.0.0.1", "255.255.255.255"]),
    (
        "255.255.255.255/32",
        &["255.255.255.255"],
        &["255.255.255.254", "0.0.0.0"],
    ),
    (
        "::/0",
        &[
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:1.2.3.4",
        ],
        &["0.0.0.0", "255.255.255.255"],
    ),
    (
        "2000::/3",
        &["2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::"],
    ),
    (
        "2001:db8::/32",
        &["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"],
    ),
    (
        "2001:db8:1:2::/64",
        &["2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff"],
        &["2001:db8:1:1:ffff:ffff:ffff:ffff", "2001:db8:1:3::"],
    ),
    (
        "2001:db8::fffe/127",
        &["2001:db8::fffe", "2001:db8::ffff"],
        &["2001:db8::fffd", "2001:db8::1:0"],
    ),
    (
        "2001:db8::7/128",
        &["2001:db8::7"],
        &["2001:db8::6", "2001:db8::8", "2001:db8:1::7"],
    ),
    (
        "::ffff:203.0.113.0/120",
        &["::ffff:203.0.113.0", "::ffff:203.0.113.255"],
        &["203.0.113.0", "::ffff:203.0.112.255", "::203.0.113.1"],
    ),
];

/// Each prefix alone, denied under default allow and allowed under default
/// deny.
pub(crate) fn every_prefix(side: Side) {
    for (net, inside, outside) in PREFIXES {
        let matches = || side.nets(&[net]);
        let Some(mut deny) = Filter::load(&ruleset(Action::Allow, [deny(matches())])) else {
            return;
        };
        let Some(mut allow) = Filter::load(&ruleset(Action::Deny, [allow(matches())])) else {
            return;
        };
        for address in *inside {
            deny.denied_by(0, &side.frame(address));
            allow.allowed_by(0, &side.frame(address));
        }
        for address in *outside {
            deny.passes(Reason::DefaultAllow, &side.frame(address));
            allow.drops(Reason::DefaultDeny, &side.frame(address));
        }
    }
}

/// A prefix is asked of its own side only.
pub(crate) fn only_its_side(side: Side) {
    let nets = side.nets(&["203.0.113.0/24", "2001:db8::/32"]);
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(nets)])) else {
        return;
    };
    for address in ["203.0.113.7", "2001:db8::7"] {
        filter.denied_by(0, &side.frame(address));
        filter.passes(Reason::DefaultAllow, &side.swapped(address));
    }
}

/// In a list one member must match.
pub(crate) fn any_of_a_list(side: Side) {
    let nets = side.nets(&["192.0.2.1/32", "203.0.113.0/24", "10.0.0.0/8"]);
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [deny(nets)])) else {
        return;
    };
    for address in ["192.0.2.1", "203.0.113.200", "10.9.8.7"] {
        filter.denied_by(0, &side.frame(address));
    }
    filter.passes(Reason::DefaultAllow, &side.frame("192.0.2.2"));
}

/// The order decides between nested prefixes, not their length.
pub(crate) fn nested_prefixes(side: Side) {
    let nets = [
        "10.1.2.3/32",
        "10.1.2.0/24",
        "10.1.0.0/16",
        "10.0.0.0/8",
        "0.0.0.0/0",
    ];
    let addresses = ["10.1.2.3", "10.1.2.4", "10.1.3.3", "10.2.2.3", "11.1.2.3"];
    let longest_first = nets.map(|net| deny(side.nets(&[net])));
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, longest_first.clone())) else {
        return;
    };
    for (rule, address) in (0..).zip(addresses) {
        filter.denied_by(rule, &side.frame(address));
    }
    let shortest_first = longest_first.into_iter().rev();
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, shortest_first)) else {
        return;
    };
    for address in addresses {
        filter.denied_by(0, &side.frame(address));
    }
}
