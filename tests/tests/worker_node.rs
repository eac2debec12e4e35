//! A whole day of a worker node, compressed into a minute: everybody who has to do
//! with it, attackers too, under the default policies of its provider.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use tests::lab::site::{
    Expect, MANAGEMENT, Offload, Plan, Policies, Report, Site, Worker, XdpFilter, day, mix,
};
use tests::require;

/// Fails where a client's turn ended otherwise than expected.
fn went_as_expected(report: &Report) {
    println!("{report}");
    let surprises: Vec<&str> = report
        .surprises()
        .iter()
        .map(|row| row.name.as_str())
        .collect();
    assert!(surprises.is_empty(), "not as expected: {surprises:#?}");
}

/// Without a filter everybody gets what they want, those too who should not: so a
/// client that fails behind a filter fails by the filter.
#[test]
fn without_a_filter_everybody_gets_through() {
    if !require::root_and_bpf() {
        return;
    }
    let mut clients = mix::everybody(Policies::Provider);
    for client in &mut clients {
        client.expect = Expect::Works;
    }
    let plan = Plan {
        rounds: 1,
        ..Plan::default()
    };
    for offload in [Offload::None, Offload::Segments] {
        let site = Site::new(offload).unwrap();
        went_as_expected(&day(&site, &clients, &plan).unwrap());
    }
}

/// Default deny: all that goes out works, and what answers it; node ports are open,
/// SSH and all else is closed, and nobody gets in by claiming to be an answer.
#[test]
fn behind_nodewall_everybody_gets_what_they_should() {
    if !require::root_and_bpf() {
        return;
    }
    for (offload, rounds) in [(Offload::None, 4), (Offload::Segments, 1)] {
        closed_but_for(Policies::Provider, offload, rounds);
    }
}

/// The node that opens nothing to anybody, where no rule lets ICMP's errors or
/// anything else in: all that goes out works all the same.
#[test]
fn with_nothing_open_all_that_goes_out_works() {
    if !require::root_and_bpf() {
        return;
    }
    closed_but_for(Policies::Outbound, Offload::Segments, 1);
}

fn closed_but_for(policies: Policies, offload: Offload, rounds: usize) {
    let worker = Worker::new(offload).unwrap();
    worker.close(policies, &[("no-mail.yaml", mix::NO_MAIL)]);
    let plan = Plan {
        rounds,
        ..Plan::default()
    };
    let report = day(worker.site(), &mix::everybody(policies), &plan).unwrap();
    println!("{}", worker.done(&["stats"]));
    went_as_expected(&report);
}

/// xdp-filter can't be made the filter of such a node: closed, it cuts the node off;
/// with what lets the answers in, it lets attackers in.
#[test]
fn xdp_filter_cuts_the_node_off_or_lets_attackers_in() {
    /// What the provider's policies open and somebody uses.
    const OPEN: [u16; 6] = [30080, 30201, 30202, 30443, 30500, 52311];
    /// Where the node's own questions go.
    const ANSWERS: [u16; 7] = [22, 53, 80, 123, 443, 500, 4500];
    if !require::root_and_bpf() {
        return;
    }
    let clients = mix::everybody(Policies::Provider);
    // Most of them only wait.
    let plan = Plan {
        rounds: 1,
        at_once: 24,
        ..Plan::default()
    };
    let site = Site::new(Offload::None).unwrap();
    let with = |answers: &[u16]| {
        let _filter = XdpFilter::start(&site, &OPEN, answers, &[MANAGEMENT]).unwrap();
        let report = day(&site, &clients, &plan).unwrap();
        let surprises: Vec<String> = report
            .surprises()
            .iter()
            .map(|row| format!("{}: {}", row.expect, row.name))
            .collect();
        println!("answers from {answers:?}: not as expected are {surprises:#?}");
        move |expect: Expect, name: &str| {
            let [v4, v6] = ["v4", "v6"].map(|family| format!("{expect}: {name} {family}"));
            surprises.contains(&v4) && surprises.contains(&v6)
        }
    };

    let closed = with(&[]);
    for cut_off in [
        "http out",
        "dns out",
        "ntp-like udp out",
        "ssh-like out, idle for long",
        "ping out",
        "dhcp",
        "neighbours anew",
        "http out of a pod",
    ] {
        assert!(closed(Expect::Works, cut_off), "{cut_off} works");
    }
    let open = with(&ANSWERS);
    for let_in in [
        "closed port in, from port 443",
        "closed port in, udp from port 53",
        "syn, ack that nobody asked for",
        "udp as if from a resolver",
    ] {
        assert!(!closed(Expect::Refused, let_in), "{let_in} gets in at once");
        assert!(open(Expect::Refused, let_in), "{let_in} is kept out");
    }
    for cut_off in ["ping out", "dhcp", "path mtu by udp", "iperf3 download"] {
        assert!(open(Expect::Works, cut_off), "{cut_off} works");
    }
    assert!(!open(Expect::Works, "http out"), "answers are kept out");
}
