//! The answer to "what happens to this packet", as every evaluator gives it:
//! the reference, the host classifier and the kernel program.

use filter_common::abi::{self, REASON_COUNTERS};
use filter_common::verdict::{Essential, Reason, Verdict};

/// A verdict with its reason and, where a rule decided, that rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What happens to the packet.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The index in [`crate::ruleset::Ruleset::rules`] of the rule that
    /// decided (`policy_allow`, `policy_deny`, `failsafe`), else `None`.
    pub rule: Option<u32>,
}

/// A decision, and what else was counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// What happens to the packet.
    pub decision: Decision,
    /// The kind of essentials that it is of, where the reason is `essential`.
    pub essential: Option<Essential>,
    /// The rules that it met and that are counted beside the verdict, by their
    /// index, in order: those that log or pass, and the staged ones that would
    /// have decided, logged or passed.
    pub noted: Vec<u32>,
}

impl Judgement {
    /// The counters that the program increments for such a packet, each once.
    pub fn counters(&self) -> impl Iterator<Item = u32> {
        let decision = &self.decision;
        let verdict = match (decision.rule, self.essential) {
            (Some(rule), _) => REASON_COUNTERS + rule,
            (None, Some(kind)) => abi::essential_counter(kind),
            (None, None) => abi::reason_counter(decision.reason, decision.verdict),
        };
        let noted = self.noted.iter().map(|rule| REASON_COUNTERS + rule);
        noted.chain(std::iter::once(verdict))
    }
}
