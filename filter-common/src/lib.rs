//! nodewall's packet parser and classifier, one source for both sides: the
//! kernel program compiles it for BPF, the loader for the host.
//!
//! No allocation, no aya, no policy knowledge. A frame becomes a
//! [key](parse::Key), the key is [classified](classify::classify) over
//! [`classify::Tables`], the result is a [`verdict::Verdict`] with its
//! [`verdict::Reason`] and rule.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a BPF function call costs 8 ns and hides the packet's bounds from the verifier"
)]

pub mod abi;
pub mod bench;
pub mod classify;
pub mod event;
pub mod flow;
#[expect(
    unsafe_code,
    reason = "the verifier wants the pointers that a slice hides"
)]
pub mod packet;
pub mod parse;
pub mod trial;
pub mod verdict;
pub mod wire;
