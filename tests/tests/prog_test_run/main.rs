//! The loaded program, matcher by matcher: `BPF_PROG_TEST_RUN` decides one
//! packet, and the verdict, the reason, the rule and every counter must be
//! right. One file a matcher.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "../common/counted.rs"]
mod counted;
#[path = "../common/rules.rs"]
mod rules;

mod action;
mod alternatives;
mod corpus;
mod default_action;
mod destination_nets;
mod destination_ports;
mod egress;
mod essentials;
mod established;
mod event_filter;
mod failsafe;
mod first_match;
mod fragments;
mod icmp;
mod ip_version;
mod ipv6_extensions;
mod log;
mod many_rules;
mod nets;
mod non_ip;
mod not_icmp;
mod not_nets;
mod not_ports;
mod not_protocol;
mod protocol;
mod sampling;
mod sets;
mod source_nets;
mod source_ports;
mod staged;
mod taken;
mod tiers;
mod vlan;

use std::net::IpAddr;

use filter_common::verdict::{Essential, Reason, Verdict};
use filter_user::compile::Image;
use filter_user::datapath::{Count, TestBench};
use filter_user::decision::{Decision, Judgement};
use filter_user::ruleset::Ruleset;
use tests::packet::{Ethernet, Extension, Ipv4, Ipv6, Packet, Payload};

const BUDGET: u64 = 64 << 20;

/// A program in the kernel with a ruleset, attached to nothing.
struct Filter(TestBench);

impl Filter {
    /// Loads the program; `None`, loudly, where that isn't allowed.
    fn load(ruleset: &Ruleset) -> Option<Self> {
        if !tests::require::root_and_bpf() {
            return None;
        }
        let image = Image::compile(ruleset, BUDGET).unwrap();
        Some(Self(TestBench::load(ruleset, &image).unwrap()))
    }

    /// The frame gets this answer and is counted once, there and nowhere else.
    #[track_caller]
    fn expect(&mut self, frame: &[u8], wanted: Decision) {
        self.expect_noting(&[], frame, wanted);
    }

    /// The same, and these rules note it.
    #[track_caller]
    fn expect_noting(&mut self, noted: &[u32], frame: &[u8], decision: Decision) {
        let before = self.0.stats().unwrap();
        let found = self.0.judge(frame).unwrap();
        let wanted = Judgement {
            decision,
            // What kind it is, `essentials.rs` asks.
            essential: found.essential,
            noted: noted.to_vec(),
        };
        let is_essential = decision.reason == Reason::Essential;
        assert_eq!(found.essential.is_some(), is_essential, "{frame:02x?}");
        let after = self.0.stats().unwrap();
        assert_eq!(found, wanted, "of {frame:02x?}");
        counted::once(&before, &after, &found, frame);
    }

    /// Dropped by a deny rule.
    #[track_caller]
    fn denied_by(&mut self, rule: u32, frame: &[u8]) {
        self.expect(frame, denied_by(rule));
    }

    /// Passed by an allow rule.
    #[track_caller]
    fn allowed_by(&mut self, rule: u32, frame: &[u8]) {
        self.expect(frame, allowed_by(rule));
    }

    /// What each kind of essentials has counted.
    fn essentials(&self) -> Vec<(Essential, Count)> {
        self.0.stats().unwrap().essentials
    }

    /// Dropped for this reason, by no rule.
    #[track_caller]
    fn drops(&mut self, reason: Reason, frame: &[u8]) {
        self.expect(frame, drops(reason));
    }

    /// Passed for this reason, by no rule.
    #[track_caller]
    fn passes(&mut self, reason: Reason, frame: &[u8]) {
        self.expect(frame, passes(reason));
    }
}

fn denied_by(rule: u32) -> Decision {
    decision(Verdict::Drop, Reason::PolicyDeny, Some(rule))
}

fn allowed_by(rule: u32) -> Decision {
    decision(Verdict::Pass, Reason::PolicyAllow, Some(rule))
}

const fn drops(reason: Reason) -> Decision {
    decision(Verdict::Drop, reason, None)
}

fn passes(reason: Reason) -> Decision {
    decision(Verdict::Pass, reason, None)
}

const fn decision(verdict: Verdict, reason: Reason, rule: Option<u32>) -> Decision {
    Decision {
        verdict,
        reason,
        rule,
    }
}

/// `packet` in a frame without tags.
fn plain(packet: &Packet) -> Vec<u8> {
    Ethernet::default().carry(packet)
}

/// A payload over IPv4.
fn v4(payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv4::default().carry(payload))
}

/// A payload over IPv6.
fn v6(payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv6::default().carry(payload))
}

/// A payload over IPv6, behind extension headers.
fn v6_with(extensions: impl Into<Vec<Extension>>, payload: &dyn Payload) -> Vec<u8> {
    plain(&Ipv6::with(extensions).carry(payload))
}

/// A payload between these addresses, which are of one family.
fn between(src: &str, dst: &str, payload: &dyn Payload) -> Vec<u8> {
    let packet = match (src.parse().unwrap(), dst.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4 {
            src,
            dst,
            ..Ipv4::default()
        }
        .carry(payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6 {
            src,
            dst,
            ..Ipv6::default()
        }
        .carry(payload),
        mixed => panic!("addresses of two families: {mixed:?}"),
    };
    plain(&packet)
}
