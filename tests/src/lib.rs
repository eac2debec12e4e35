//! nodewall's test lab: packets, what must happen to them, and machines to send
//! them between.
//!
//! Nothing in this library depends on the filter: what tests it must not share
//! its mistakes.

#[cfg(feature = "bpf")]
pub mod browser;
#[cfg(all(feature = "bpf", target_arch = "x86_64"))]
pub mod crash;
pub mod edge;
pub mod lab;
pub mod packet;
pub mod require;
#[cfg(feature = "bpf")]
pub mod scoreboard;
pub mod synthetic;
pub mod times;
#[cfg(all(feature = "bpf", target_arch = "x86_64"))]
pub mod upgrade;
