//! The scoreboard: odd and evading packets from the edge-case table, sent over a real
//! veth pair to nodewall and to the filters that Debian ships, and what became of each.
//!
//! What must become of it says the table alone, never a filter.

mod cases;
mod document;
mod lane;
mod peer;

use anyhow::{Context as _, Result, bail};

pub use cases::{Case, Group, cases};
pub use document::{Column, document, listed};
pub use peer::{Hook, Peer, Policy};

use lane::Lane;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It came out behind the filter.
    Passed,
    /// It did, and the kernel's IP layer behind it counted it as no good.
    PassedThenRefused,
    /// The filter dropped it.
    Dropped,
    /// The kernel's IP layer dropped it, or kept it to put fragments together, before
    /// the filter's hook.
    Refused,
    /// It never comes to the filter's hook.
    NotSeen,
    /// The filter allows no frames of this size on the interface.
    TooLarge,
}

/// How a filter did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As required.
    Right,
    /// It let through what must be dropped.
    LetIn,
    /// It dropped what must pass.
    KeptOut,
    /// The kernel's IP layer decided instead.
    Stack,
    /// The packet is beyond the filter.
    NotApplicable,
}

impl Outcome {
    /// How good this is for a packet that must pass, or must be dropped.
    #[must_use]
    pub const fn mark(self, must_pass: bool) -> Mark {
        match (self, must_pass) {
            (Self::Passed | Self::PassedThenRefused, true) | (Self::Dropped, false) => Mark::Right,
            (Self::Passed, false) => Mark::LetIn,
            (Self::Dropped, true) => Mark::KeptOut,
            (Self::PassedThenRefused, false) | (Self::Refused, _) => Mark::Stack,
            (Self::NotSeen | Self::TooLarge, _) => Mark::NotApplicable,
        }
    }
}

/// The longest frame of Ethernet, without its checksum. Longer ones come last: they take
/// another MTU.
const USUAL: usize = 1514;

/// Sends each packet to a filter that has the packet's policy in force. Needs root.
pub fn run(peer: Peer, cases: &[Case]) -> Result<Vec<Outcome>> {
    let mut outcomes = vec![Outcome::NotSeen; cases.len()];
    for policy in Policy::ALL {
        let of_policy = cases.iter().enumerate();
        let mut of_policy = of_policy
            .filter(|(_, case)| case.policy == policy)
            .peekable();
        if of_policy.peek().is_none() {
            continue;
        }
        let lane = Lane::new(peer.hook())?;
        let _in_force = peer.put_in_force(&lane, policy)?;
        let judge = |case: &Case| {
            let outcome = lane.judge(&case.row.frame);
            outcome.with_context(|| format!("{}: {}", peer.name(), case.row.name))
        };
        let (usual, large): (Vec<_>, Vec<_>) =
            of_policy.partition(|(_, case)| case.row.frame.len() <= USUAL);
        for (index, case) in usual {
            outcomes[index] = judge(case)?;
        }
        for (index, case) in large {
            let taken = lane.take(case.row.frame.len());
            outcomes[index] = taken.map_or(Ok(Outcome::TooLarge), |()| judge(case))?;
        }
    }
    Ok(outcomes)
}

/// Whether the runner sees all that comes to a hook pass where there is no filter, and
/// dropped where one drops everything; an error where it does not. Needs root.
pub fn control(hook: Hook, cases: &[Case]) -> Result<()> {
    let open = run(Peer::Nothing(hook), cases)?;
    let closed = run(Peer::Everything(hook), cases)?;
    let mut seen = 0;
    for ((open, closed), case) in open.iter().zip(&closed).zip(cases) {
        match (open, closed) {
            (Outcome::Passed | Outcome::PassedThenRefused, Outcome::Dropped) => seen += 1,
            // xdp-filter, which drops everything here, allows no such frames.
            (Outcome::Passed | Outcome::PassedThenRefused, Outcome::TooLarge)
                if hook == Hook::Driver => {}
            // What does not come to the hook does so with either.
            (Outcome::Refused | Outcome::NotSeen, same) if open == same => {}
            _ => bail!(
                "{hook:?}: without a filter {} is {open:?}, and {closed:?} where everything is \
                 dropped",
                case.row.name
            ),
        }
    }
    // To prerouting comes only IP, without tags and errors.
    if seen * 2 < cases.len() || hook == Hook::Ingress && seen < cases.len() {
        bail!(
            "{hook:?}: only {seen} of {} packets came to it",
            cases.len()
        );
    }
    Ok(())
}
