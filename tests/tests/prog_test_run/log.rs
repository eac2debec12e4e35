//! `Log`: noted, and the next rule follows.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Match};
use tests::packet::{Arp, Payload, Raw, Tcp, Udp};

use crate::rules::{allow, deny, log, ports, protocol, ruleset};
use crate::{Filter, allowed_by, denied_by, drops, passes, plain, v4, v6};

#[test]
fn the_next_rule_follows() {
    let web = || ports(6, &[(80, 80)]);
    let rules = [
        log(web()),
        log(protocol(6)),
        deny(web()),
        log(protocol(6)),
        allow(protocol(17)),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Deny, rules)) else {
        return;
    };
    for over in [v4 as fn(&dyn Payload) -> Vec<u8>, v6] {
        filter.expect_noting(&[0, 1], &over(&Tcp::to(80)), denied_by(2));
        let other = drops(Reason::DefaultDeny);
        filter.expect_noting(&[1, 3], &over(&Tcp::to(81)), other);
        filter.expect(&over(&Udp::to(80)), allowed_by(4));
        filter.expect(&over(&Raw::new(47, &[])), other);
    }
}

#[test]
fn it_changes_no_verdict() {
    for default in [Action::Allow, Action::Deny] {
        let Some(mut filter) = Filter::load(&ruleset(default, [log(Match::default())])) else {
            return;
        };
        let open = default == Action::Allow;
        let wanted = if open {
            passes(Reason::DefaultAllow)
        } else {
            drops(Reason::DefaultDeny)
        };
        filter.expect_noting(&[0], &v4(&Tcp::to(80)), wanted);
        let igmp = v4(&Raw::new(2, &[0; 8]));
        let wanted = if open {
            wanted
        } else {
            passes(Reason::Essential)
        };
        filter.expect_noting(&[0], &igmp, wanted);
        // No rule speaks about ARP.
        let arp = Arp {
            sender: [203, 0, 113, 7].into(),
            target: [192, 0, 2, 10].into(),
        };
        let reason = if open {
            Reason::NotIp
        } else {
            Reason::Essential
        };
        filter.passes(reason, &plain(&arp.packet()));
    }
}

#[test]
fn what_cannot_be_told_is_not_logged() {
    let rules = [
        log(ports(6, &[(80, 80)])),
        log(Match::default()),
        deny(protocol(6)),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    filter.expect_noting(&[1], &v4(&Raw::new(6, &[0; 19])), denied_by(2));
    filter.expect_noting(&[0, 1], &v4(&Tcp::to(80)), denied_by(2));
}

#[test]
fn what_was_logged_before_a_drop_stays_logged() {
    let rules = [
        log(protocol(6)),
        deny(ports(6, &[(80, 80)])),
        log(protocol(6)),
    ];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let short = v4(&Raw::new(6, &[0; 19]));
    filter.expect_noting(&[0], &short, drops(Reason::UnreadableL4));
    filter.expect_noting(&[0, 2], &v4(&Tcp::to(81)), passes(Reason::DefaultAllow));
}

/// As many as one packet may meet, and one more.
#[test]
fn thirty_two_at_once() {
    let logs = |count| (0..count).map(|_| log(protocol(6)));
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, logs(32))) else {
        return;
    };
    let all: Vec<u32> = (0..32).collect();
    filter.expect_noting(&all, &v4(&Tcp::to(80)), passes(Reason::DefaultAllow));
    filter.passes(Reason::DefaultAllow, &v4(&Udp::to(80)));
    let refused = filter_user::compile::Image::compile(&ruleset(Action::Allow, logs(33)), 64 << 20);
    let message = refused.err().map(|error| error.to_string());
    assert!(message.is_some_and(|message| message.contains("more than 32")));
}
