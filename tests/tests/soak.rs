//! Policies that change under traffic: no packet is decided by a mixture of two, none is
//! lost, none is counted twice, and nothing is left behind. `cargo xtask soak` does more of
//! the same.
#![cfg(feature = "bpf")]

#[path = "common/soak.rs"]
mod soak;

use std::sync::{Mutex, PoisonError};

use soak::{Fault, Plan};
use tests::require;

/// One at a time: what the process holds is measured.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn each_packet_is_decided_by_the_old_policy_or_the_new_one() {
    const PACKETS: u64 = 2_000_000;
    if !require::root_and_bpf() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let report = soak::soak(&Plan {
        changes: 130,
        by_daemon: 20,
        packets: PACKETS,
        progress: |progress| println!("{progress}"),
        fault: None,
    });
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{report}");
    assert!(report.packets >= PACKETS);
    // They were looked for.
    let [programs, maps] = report.gone;
    assert!(programs >= 150 && maps >= 100, "{programs}, {maps}");
}

/// The soak must be able to fail.
#[test]
fn every_wrong_change_is_caught() {
    if !require::root_and_bpf() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for fault in Fault::ALL {
        let said = soak::catches(fault).unwrap_or_else(|error| panic!("{error:#}"));
        println!("caught by the swap soak: {fault:?}: {said}");
    }
}
