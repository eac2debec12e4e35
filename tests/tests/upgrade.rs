//! A node whose nodewall is exchanged while it filters. Here both builds are this one;
//! `cargo xtask upgrade` lets an earlier commit's be the older one.
#![cfg(all(feature = "bpf", target_arch = "x86_64"))]

use tests::lab::program;
use tests::require;
use tests::upgrade::upgrade;

#[test]
fn what_follows_another_build_lets_nothing_through_and_forgets_nothing() {
    if !require::root_and_bpf() {
        return;
    }
    let denied = upgrade(&program(), &program(), |line| println!("{line}")).unwrap();
    assert!(denied > 100, "{denied}");
}
