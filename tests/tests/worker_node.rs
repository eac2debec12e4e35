//! A whole day of a worker node, compressed into a minute: everybody who has to do
//! with it, attackers too, under the default policies of its provider.
#![cfg(feature = "bpf")]

use tests::lab::site::{Expect, Offload, Plan, Report, Site, day, mix};
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
    let mut clients = mix::everybody();
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
