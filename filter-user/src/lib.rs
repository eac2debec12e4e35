//! nodewall's user-space side: from policy documents to a program in the
//! kernel, and back from its counters to the terminal.
//!
//! Data flows one way: documents → model → [`ruleset`] → [image](compile) →
//! generation ([`datapath`]).

pub mod bench;
mod bytes;
pub mod cli;
pub mod compile;
pub mod conversation;
pub mod daemon;
pub mod datapath;
pub mod decision;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod lint;
mod ours;
pub mod packet_text;
pub mod policy;
mod privileges;
pub mod reference;
pub mod ruleset;
pub mod telemetry;
mod worker;
