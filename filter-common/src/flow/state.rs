//! What a flow is in, and for how long: the timeouts of the kernel's own
//! connection tracking (`net/netfilter/nf_conntrack_proto_*.c`, Linux 6.18).

use super::Direction;
use crate::wire::l4::{ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, UDP_LITE};

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $name:literal;)*) => {
        /// The state of a flow. The number is part of the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u64)]
        pub enum State {
            $($(#[$doc])* $variant = $value,)*
        }

        impl State {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in every output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The state with this number.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

states! {
    /// No TCP, and nothing came back yet.
    OneWay = 0, "one_way";
    /// No TCP, and packets go both ways.
    TwoWay = 1, "two_way";
    /// TCP that a SYN began.
    SynSent = 2, "syn_sent";
    /// The SYN was answered.
    SynAnswered = 3, "syn_answered";
    /// The handshake is over.
    Established = 4, "established";
    /// One side has said that it is done.
    Closing = 5, "closing";
    /// One side has broken it off.
    Reset = 6, "reset";
    /// TCP that was seen in the middle first, and nothing came back yet.
    Unanswered = 7, "unanswered";
}

/// Which way along a flow a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the one that began it.
    Forward,
    /// Back.
    Reply,
}

impl State {
    /// Seconds after its last packet until a flow is over.
    #[inline(always)]
    #[must_use]
    pub const fn timeout(self, proto: u8) -> u32 {
        match self {
            Self::SynSent | Self::Closing => 120,
            Self::SynAnswered => 60,
            Self::Established => 5 * 24 * 60 * 60,
            Self::Reset => 10,
            Self::Unanswered => 300,
            Self::OneWay => match proto {
                UDP | UDP_LITE | SCTP | ICMP | ICMPV6 => 30,
                _ => 600,
            },
            Self::TwoWay => match proto {
                UDP | UDP_LITE => 120,
                SCTP => 210,
                ICMP | ICMPV6 => 30,
                _ => 600,
            },
        }
    }

    /// Whether a flow in it that was seen last in the jiffy `seen` is still there.
    #[inline(always)]
    #[must_use]
    pub const fn lives(self, proto: u8, seen: u64, now: u64, second: u64) -> bool {
        now.saturating_sub(seen) <= self.timeout(proto) as u64 * second
    }

    /// The state that a packet begins a flow in; `None` where it can't begin
    /// one: an answer, or the end of what isn't known.
    #[inline(always)]
    #[must_use]
    pub const fn first(proto: u8, flags: u8) -> Option<Self> {
        if proto != TCP {
            return Some(Self::OneWay);
        }
        if flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK {
            None
        } else if flags & SYN != 0 {
            Some(Self::SynSent)
        } else if flags & FIN != 0 {
            Some(Self::Closing)
        } else {
            Some(Self::Unanswered)
        }
    }

    /// The state after a packet; `None` where the flow is not to see it at all.
    ///
    /// Sequence numbers are not followed. So a reset from the wire is believed
    /// until the host goes on, which knows better.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, proto: u8, flags: u8, way: Way, direction: Direction) -> Option<Self> {
        if matches!(self, Self::Reset) && matches!(direction, Direction::Ingress) {
            return None;
        }
        if proto != TCP {
            return Some(match (self, way) {
                (Self::OneWay, Way::Reply) => Self::TwoWay,
                _ => self,
            });
        }
        Some(if flags & RST != 0 {
            Self::Reset
        } else if matches!(self, Self::Reset) {
            match (flags & (SYN | ACK), way) {
                (SYN, Way::Forward) => Self::SynSent,
                _ => Self::Established,
            }
        } else if flags & SYN != 0 {
            match (self, way) {
                (Self::Closing, Way::Forward) if flags & ACK == 0 => Self::SynSent,
                (Self::SynSent, Way::Reply) => Self::SynAnswered,
                _ => self,
            }
        } else if flags & FIN != 0 {
            Self::Closing
        } else {
            match (self, way) {
                (Self::SynAnswered, Way::Forward) | (Self::Unanswered, Way::Reply) => {
                    Self::Established
                }
                _ => self,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for (number, state) in (0..).zip(State::ALL) {
            assert_eq!(*state as u64, number);
            assert_eq!(State::from_number(number), Some(*state));
        }
        assert_eq!(State::from_number(8), None);
    }

    #[test]
    fn a_connection_lives_and_ends() {
        use Direction::{Egress, Ingress};
        let mut state = State::first(TCP, SYN).expect("a SYN begins");
        for (flags, way, direction, then) in [
            (SYN, Way::Forward, Egress, State::SynSent),
            (SYN | ACK, Way::Reply, Ingress, State::SynAnswered),
            (ACK, Way::Forward, Egress, State::Established),
            (ACK, Way::Reply, Ingress, State::Established),
            // A reset from the wire that the host didn't believe.
            (RST, Way::Reply, Ingress, State::Reset),
            (ACK, Way::Forward, Egress, State::Established),
            (FIN | ACK, Way::Reply, Ingress, State::Closing),
            (ACK, Way::Forward, Egress, State::Closing),
            // The same ports again.
            (SYN, Way::Forward, Egress, State::SynSent),
            (RST | ACK, Way::Reply, Ingress, State::Reset),
        ] {
            state = state
                .after(TCP, flags, way, direction)
                .expect("the flow sees it");
            assert_eq!(state, then, "{flags:#x} {way:?}");
        }
        assert_eq!(state.after(TCP, ACK, Way::Reply, Ingress), None);
    }

    #[test]
    fn answers_begin_nothing() {
        for flags in [RST, RST | ACK, SYN | ACK, SYN | RST] {
            assert_eq!(State::first(TCP, flags), None);
        }
        assert_eq!(State::first(TCP, FIN | ACK), Some(State::Closing));
        assert_eq!(State::first(TCP, ACK), Some(State::Unanswered));
        assert_eq!(State::first(UDP, 0), Some(State::OneWay));
    }
}
