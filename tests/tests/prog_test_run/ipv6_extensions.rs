//! The IPv6 extension chain.

use filter_common::verdict::Reason;
use filter_user::ruleset::Action;
use tests::packet::protocol::{DESTINATION, NO_NEXT};
use tests::packet::{Extension, Payload, Raw, Tcp};

use crate::rules::{deny, ports, protocol, ruleset};
use crate::{Filter, v6, v6_with};

fn load() -> Option<Filter> {
    Filter::load(&ruleset(Action::Allow, [deny(ports(6, &[(80, 80)]))]))
}

#[test]
fn every_header_is_walked_in_its_units() {
    let Some(mut filter) = load() else {
        return;
    };
    let mut headers = vec![
        Extension::hop_by_hop(),
        Extension::destination(),
        Extension::routing(2),
        Extension::routing(4),
        Extension::mobility(),
        Extension::fragment(0, false),
        Extension::units(DESTINATION, 256),
    ];
    headers.extend((0..8).map(Extension::authentication));
    for header in headers {
        filter.denied_by(0, &v6_with([header.clone()], &Tcp::to(80)));
        filter.passes(Reason::DefaultAllow, &v6_with([header], &Tcp::to(443)));
    }
}

#[test]
fn eight_headers_and_no_more() {
    let Some(mut filter) = load() else {
        return;
    };
    for count in 0..=8 {
        let chain = vec![Extension::destination(); count];
        filter.denied_by(0, &v6_with(chain.clone(), &Tcp::to(80)));
        filter.passes(Reason::DefaultAllow, &v6_with(chain, &Tcp::to(443)));
    }
    for count in [9, 10, 100] {
        let chain = vec![Extension::destination(); count];
        filter.drops(Reason::Ipv6Extension, &v6_with(chain, &Tcp::to(443)));
    }
}

#[test]
fn a_chain_beyond_the_first_page() {
    let Some(mut filter) = load() else {
        return;
    };
    for count in 1..=8 {
        let chain = vec![Extension::units(DESTINATION, 256); count];
        filter.denied_by(0, &v6_with(chain.clone(), &Tcp::to(80)));
        filter.passes(Reason::DefaultAllow, &v6_with(chain.clone(), &Tcp::to(443)));
        let short = Raw::new(6, &[0; 19]);
        filter.drops(Reason::UnreadableL4, &v6_with(chain, &short));
    }
}

#[test]
fn routing_type_0_is_dropped() {
    let Some(mut filter) = load() else {
        return;
    };
    let tcp = &Tcp::to(443);
    filter.drops(
        Reason::Ipv6Extension,
        &v6_with([Extension::routing(0)], tcp),
    );
    let cut = Extension::routing(0).claims(255);
    filter.drops(Reason::Ipv6Extension, &v6_with([cut], tcp));
    let behind = [Extension::hop_by_hop(), Extension::routing(0)];
    filter.drops(Reason::Ipv6Extension, &v6_with(behind, tcp));
}

#[test]
fn fragment_headers() {
    let Some(mut filter) = load() else {
        return;
    };
    let tcp = &Tcp::to(443);
    let two = [Extension::fragment(0, false), Extension::fragment(0, false)];
    filter.drops(Reason::Ipv6Extension, &v6_with(two, tcp));
    let behind = [
        Extension::fragment(64, false),
        Extension::fragment(0, false),
    ];
    filter.drops(Reason::Ipv6Extension, &v6_with(behind, tcp));
    // RFC 7112: the chain goes on in another fragment.
    let cut = [
        Extension::fragment(0, true),
        Extension::destination().claims(99),
    ];
    filter.drops(Reason::Ipv6Extension, &v6_with(cut, tcp));
}

#[test]
fn a_cut_chain_hides_the_protocol() {
    let cut = |payload: &dyn Payload| v6_with([Extension::destination().claims(99)], payload);
    let Some(mut filter) = load() else {
        return;
    };
    filter.drops(Reason::UnreadableL4, &cut(&Tcp::to(443)));
    // No rule asks for a protocol.
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, [])) else {
        return;
    };
    filter.passes(Reason::DefaultAllow, &cut(&Tcp::to(443)));
}

#[test]
fn no_next_header_ends_the_packet() {
    let rules = [deny(ports(6, &[(0, 65535)])), deny(protocol(NO_NEXT))];
    let Some(mut filter) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    let rest = Raw::new(NO_NEXT, &[0, 80].repeat(20));
    filter.denied_by(1, &v6(&rest));
    filter.denied_by(1, &v6_with([Extension::hop_by_hop()], &rest));
}
