//! Verbs that are cut short at any of their system calls, and what must be so then.
//!
//! A verb runs under [ptrace](trace). At one of its calls it is killed, or the call fails.
//! Then one policy must be in force, the old one or the new one; nodewall must say so too;
//! no packet that was counted may be forgotten; and the same verb once more must come to
//! just what it comes to where nothing happens, with nothing left behind.

mod calls;
mod stage;
mod sweep;
mod trace;

pub use calls::Kind;
pub(crate) use stage::succeed;
pub use stage::{InForce, Observed, Policy, Stage};
pub use sweep::{Choice, Outcome, Summary, Verb, rehearse, sweep, turn};
pub use trace::{Call, End, Fault, Injection, Made, Place, Traced};
