//! What is remembered of a conversation, in the words of all three who remember it, and the
//! programs as one of them.

use std::net::IpAddr;
use std::time::Duration;

use filter_common::flow::{self, Tuple};
use filter_user::reference::{Conversation, State};
use filter_user::ruleset::Direction;

#[cfg(feature = "bpf")]
pub(crate) use kernel::Loaded;

/// A flow, as all three have it; the time since it was seen is left out.
pub(crate) type Known = (Direction, [IpAddr; 2], u8, [u16; 2], &'static str, u64, u64);

pub(crate) fn known_to_reference(conversation: &Conversation<'_>, now: Duration) -> Vec<Known> {
    let flows = conversation.flows(now);
    let flows = flows.iter().map(|flow| {
        let state = match flow.state {
            State::SynSent => "syn_sent",
            State::SynAnswered => "syn_answered",
            State::Established => "established",
            State::Closing => "closing",
            State::Reset => "reset",
            State::Unanswered => "unanswered",
            State::OneWay => "one_way",
            State::TwoWay => "two_way",
        };
        let ends = [flow.src, flow.dst];
        let counts = (flow.forward, flow.back);
        (
            flow.begun,
            ends,
            flow.protocol,
            flow.numbers,
            state,
            counts.0,
            counts.1,
        )
    });
    sorted(flows.collect())
}

pub(crate) fn known_to_host(flows: Vec<(Direction, Tuple, flow::Flow)>) -> Vec<Known> {
    let flows = flows.into_iter().map(|(begun, tuple, flow)| {
        let state = flow::State::from_number(flow.state).unwrap().name();
        let (ends, numbers) = (tuple.addresses(), tuple.both_numbers());
        (
            begun,
            ends,
            tuple.proto(),
            numbers,
            state,
            flow.forward,
            flow.back,
        )
    });
    sorted(flows.collect())
}

fn sorted(mut flows: Vec<Known>) -> Vec<Known> {
    flows.sort_unstable();
    flows
}

/// Whether something ends within the next second.
pub(crate) fn unclear(
    reference: &Conversation<'_>,
    now: Duration,
    direction: Direction,
    frame: &[u8],
) -> bool {
    let later = now + Duration::from_secs(1);
    let judged = |now| reference.clone().judge(now, direction, frame);
    known_to_reference(reference, now) != known_to_reference(reference, later)
        || judged(now) != judged(later)
}

#[cfg(feature = "bpf")]
mod kernel {
    use std::time::Instant;

    use filter_user::datapath::{Compiled, TestPair};

    use super::{Duration, Known, sorted};

    /// The programs, and how the talk's time is told to them.
    pub(crate) struct Loaded {
        pub(crate) pair: TestPair,
        began: Instant,
        aged: Duration,
    }

    impl Loaded {
        pub(crate) fn new(ingress: Compiled<'_>, egress: Compiled<'_>) -> Result<Self, String> {
            let pair = TestPair::load(ingress, egress, 1_024);
            pair.map(Self::of).map_err(|error| error.to_string())
        }

        pub(crate) fn of(pair: TestPair) -> Self {
            Self {
                pair,
                began: Instant::now(),
                aged: Duration::ZERO,
            }
        }

        /// What is remembered is as old as it would be at `now`.
        pub(crate) fn advance(&mut self, now: Duration) {
            let by = now.saturating_sub(self.began.elapsed() + self.aged);
            if by >= Duration::from_millis(100) {
                self.pair.age(by).unwrap();
                self.aged += by;
            }
        }

        pub(crate) fn known(&self) -> Vec<Known> {
            let flows = self.pair.flows().unwrap().into_iter();
            let live = flows.filter(|flow| flow.left.is_some());
            let known = live.map(|flow| {
                let ends = [flow.src, flow.dst];
                let state = flow.state.name();
                (
                    flow.begun,
                    ends,
                    flow.protocol,
                    flow.numbers,
                    state,
                    flow.forward,
                    flow.back,
                )
            });
            sorted(known.collect())
        }
    }
}
