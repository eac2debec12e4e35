//! Mistakes that somebody might make about return traffic: the host's own evaluation,
//! over tables, packets and rules that are seen through a wrong glass.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use filter_common::abi::switches;
use filter_common::classify::{self, Outcome};
use filter_common::flow::{
    self, Datagram, Direction as Way, Entry, Event, Field, Flow, Flows, Put, State, Step, Tuple,
};
use filter_common::packet::Cursor;
use filter_common::parse::{Key, L4, Place, parse_with_place};
use filter_common::verdict::{Reason, Verdict};
use filter_user::compile::Image;
use filter_user::conversation::flow_switches;
use filter_user::decision::{Decision, Judgement};
use filter_user::ruleset::{Action, Direction, Fragments, Match, Ruleset, Stage};

/// What somebody gets wrong: each field is a glass that something is seen through.
pub(crate) struct Mistake {
    /// What flows take the packet's own rules for.
    own: Option<fn(&mut Ruleset)>,
    /// What they take those of the other direction for.
    other: Option<fn(&mut Ruleset)>,
    /// What they take a frame for that passes by the rules, or is dropped.
    frame: fn(&mut Vec<u8>, Verdict),
    /// Whether they are asked about it at all.
    asked: fn(Outcome, &Key) -> bool,
    /// Where a flow is looked for that began in a direction.
    key: fn(&Seeing, Way, Tuple) -> Option<(Way, Tuple)>,
    /// Seconds that a flow lives.
    timeout: fn(&Seeing, State, u8) -> u64,
    /// What is done with a live flow that is found, before all else.
    found: fn(&Seeing, State, &Words, u64),
    /// What its state is taken for.
    state: fn(&Seeing, State) -> State,
    /// What is written in a field of it, in the place of what is there.
    set: fn(&Seeing, Field, [u64; 2]) -> u64,
    /// The state that one begins in.
    begin: fn(State) -> Option<State>,
    /// Which datagram a fragment is taken to be of.
    datagram: fn(Datagram) -> Datagram,
    /// When the first one passed; what is remembered can be changed.
    first: fn(&mut u64, u64) -> u64,
    /// Whether a first one that passes is remembered; the rules' word is given.
    remember: fn(Outcome) -> bool,
    /// Whether those that are dropped are.
    dropped_firsts: bool,
    /// What is made of the judgement by the rules where a flow lets the packet pass.
    established: fn(Judgement) -> Judgement,
}

type Words = [Cell<u64>; 5];

/// No mistake.
pub(crate) const RIGHT: Mistake = Mistake {
    own: None,
    other: None,
    frame: |_, _| {},
    asked: |_, _| true,
    key: |_, begun, tuple| Some((begun, tuple)),
    timeout: |_, state, proto| right_timeout(state, proto),
    found: |_, _, _, _| {},
    state: |_, state| state,
    set: |_, _, [_, new]| new,
    begin: Some,
    datagram: |datagram| datagram,
    first: |seen, _| *seen,
    remember: |_| true,
    dropped_firsts: false,
    established: |by_rules| Judgement {
        essential: None,
        decision: ESTABLISHED,
        noted: by_rules.noted,
    },
};

const ESTABLISHED: Decision = Decision {
    verdict: Verdict::Pass,
    reason: Reason::Established,
    rule: None,
};

/// A packet, while a flow is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Seeing {
    direction: Way,
    /// The direction that the flow began in.
    begun: Way,
    /// Of TCP.
    flags: u8,
    /// Whether it is an ICMP error, about another packet.
    is_error: bool,
}

impl Seeing {
    fn is_reply(self) -> bool {
        !self.is_error && self.begun != self.direction
    }

    fn is_forward(self) -> bool {
        !self.is_error && self.begun == self.direction
    }
}

const fn right_timeout(state: State, proto: u8) -> u64 {
    state.timeout(proto) as u64
}

// ---- the mistakes

/// Flows are found by what is made of their tuple. A constant's function takes no other
/// one, hence a macro.
macro_rules! keyed {
    ($key:expr) => {
        Mistake {
            key: |_, begun, tuple| {
                let key: fn(Tuple) -> Tuple = $key;
                Some((begun, key(tuple)))
            },
            ..RIGHT
        }
    };
}

/// The state lives for so many seconds.
macro_rules! lives {
    ($state:ident, $proto:pat, $seconds:expr) => {
        Mistake {
            timeout: |_, state, proto| match (state, proto) {
                (State::$state, $proto) => $seconds,
                _ => right_timeout(state, proto),
            },
            ..RIGHT
        }
    };
}

/// What is written into the field.
macro_rules! sets {
    ($field:ident, $set:expr) => {
        Mistake {
            set: |seeing, field, words| {
                let set: fn(&Seeing, [u64; 2]) -> u64 = $set;
                if field == Field::$field {
                    set(seeing, words)
                } else {
                    words[1]
                }
            },
            ..RIGHT
        }
    };
}

/// What a frame is taken for, if the rules say so.
macro_rules! framed {
    ($verdict:ident, $change:expr) => {
        Mistake {
            frame: |frame, verdict| {
                let change: fn(&mut Vec<u8>) -> Option<()> = $change;
                if verdict == Verdict::$verdict {
                    change(frame);
                }
            },
            ..RIGHT
        }
    };
}

/// Which datagram it is.
macro_rules! fragment_of {
    ($change:expr) => {
        Mistake {
            datagram: |mut datagram| {
                let change: fn(&mut Datagram) = $change;
                change(&mut datagram);
                datagram
            },
            ..RIGHT
        }
    };
}

/// What this direction's rules are taken for.
macro_rules! own {
    ($change:expr) => {
        Mistake {
            own: Some($change),
            ..RIGHT
        }
    };
}

/// What the other direction's rules are taken for.
macro_rules! other {
    ($change:expr) => {
        Mistake {
            other: Some($change),
            ..RIGHT
        }
    };
}

/// The state that a live flow is put into before all else.
macro_rules! found {
    ($state:expr) => {
        Mistake {
            found: |seeing, state, words, _| {
                let change: fn(&Seeing, State) -> Option<State> = $state;
                if let Some(state) = change(seeing, state) {
                    words[Field::State as usize].set(state as u64);
                }
            },
            ..RIGHT
        }
    };
}

/// What would begin in this state begins in another one, or not at all.
macro_rules! begins {
    ($state:ident, $other:expr) => {
        Mistake {
            begin: |state| match state {
                State::$state => $other,
                _ => Some(state),
            },
            ..RIGHT
        }
    };
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

const NOWHERE: filter_common::parse::Address = filter_common::parse::Address { high: 0, low: 0 };

/// Each must be caught.
pub(crate) fn all() -> impl Iterator<Item = &'static (&'static str, Mistake)> {
    [TUPLES, TIMES, STATES, ERRORS, FRAGMENTS, RULES]
        .into_iter()
        .flatten()
}

const TUPLES: &[(&str, Mistake)] = &[
    (
        "an answer has the same tuple as what it answers",
        Mistake {
            key: |seeing, begun, tuple| {
                let turned = seeing.is_reply().then(|| tuple.reversed());
                Some((begun, turned.unwrap_or(tuple)))
            },
            ..RIGHT
        },
    ),
    (
        "an answer has the ports swapped, and not the addresses",
        Mistake {
            key: |seeing, begun, mut tuple| {
                if seeing.is_reply() {
                    std::mem::swap(&mut tuple.src, &mut tuple.dst);
                }
                Some((begun, tuple))
            },
            ..RIGHT
        },
    ),
    (
        "an answer has the addresses swapped, and not the ports",
        Mistake {
            key: |seeing, begun, mut tuple| {
                if seeing.is_reply() {
                    tuple.numbers = tuple.numbers.rotate_left(16);
                }
                Some((begun, tuple))
            },
            ..RIGHT
        },
    ),
    ("ports are ignored", keyed!(|tuple| ported(tuple, 0))),
    (
        "an answer is told by its source port",
        keyed!(|tuple| ported(tuple, tuple.numbers & 0xffff)),
    ),
    (
        "an answer is told by its destination port",
        keyed!(|tuple| ported(tuple, tuple.numbers >> 16)),
    ),
    (
        "the protocol is ignored",
        keyed!(|tuple| Tuple {
            kind: tuple.kind & !0xff,
            ..tuple
        }),
    ),
    (
        "the IP version is ignored",
        keyed!(|tuple| Tuple {
            kind: tuple.kind & 0xff,
            ..tuple
        }),
    ),
    (
        "who began it does not matter",
        keyed!(|tuple| Tuple {
            src: NOWHERE,
            ..tuple
        }),
    ),
    (
        "to whom it was does not matter",
        keyed!(|tuple| Tuple {
            dst: NOWHERE,
            ..tuple
        }),
    ),
    (
        "the second half of an IPv6 address is ignored",
        keyed!(|mut tuple| {
            tuple.src.low = 0;
            tuple.dst.low = 0;
            tuple
        }),
    ),
    (
        "the identifier of an echo is ignored",
        keyed!(|tuple| Tuple {
            numbers: if matches!(tuple.proto(), 1 | 58) {
                0
            } else {
                tuple.numbers
            },
            ..tuple
        }),
    ),
    (
        "UDP-Lite has no ports",
        keyed!(|tuple| without_ports(tuple, UDP_LITE)),
    ),
    (
        "SCTP has no ports",
        keyed!(|tuple| without_ports(tuple, SCTP)),
    ),
    (
        "the flows of both directions are in one table",
        Mistake {
            key: |_, _, tuple| Some((Way::Ingress, tuple)),
            ..RIGHT
        },
    ),
    (
        "an answer belongs to a flow of its own direction",
        Mistake {
            key: |seeing, begun, tuple| {
                let turned = seeing.is_reply().then(|| begun.opposite());
                Some((turned.unwrap_or(begun), tuple))
            },
            ..RIGHT
        },
    ),
    (
        "flows that began inside are the only ones",
        Mistake {
            key: |_, begun, tuple| (begun == Way::Egress).then_some((begun, tuple)),
            ..RIGHT
        },
    ),
];

const TIMES: &[(&str, Mistake)] = &[
    (
        "no flow is ever over",
        Mistake {
            timeout: |_, _, _| FOR_EVER,
            ..RIGHT
        },
    ),
    (
        "each lives a second longer",
        Mistake {
            timeout: |_, state, proto| right_timeout(state, proto) + 1,
            ..RIGHT
        },
    ),
    (
        "each lives a second less",
        Mistake {
            timeout: |_, state, proto| right_timeout(state, proto) - 1,
            ..RIGHT
        },
    ),
    (
        "UDP of one way lives as that of two",
        lives!(OneWay, UDP, 120),
    ),
    (
        "UDP of two ways lives as that of one",
        lives!(TwoWay, UDP, 30),
    ),
    (
        "UDP-Lite of one way is another protocol",
        lives!(OneWay, UDP_LITE, 600),
    ),
    (
        "UDP-Lite of two ways is another protocol",
        lives!(TwoWay, UDP_LITE, 600),
    ),
    ("SCTP of two ways lives as UDP", lives!(TwoWay, SCTP, 120)),
    (
        "SCTP of one way is another protocol",
        lives!(OneWay, SCTP, 600),
    ),
    (
        "ICMP of one way is another protocol",
        lives!(OneWay, 1 | 58, 600),
    ),
    ("ICMP of two ways lives as UDP", lives!(TwoWay, 1 | 58, 120)),
    (
        "other protocols live as UDP",
        lives!(OneWay, 47 | 50 | 253, 30),
    ),
    (
        "others of two ways live as UDP",
        lives!(TwoWay, 47 | 50 | 253, 120),
    ),
    (
        "a SYN lives as one that was answered",
        lives!(SynSent, _, 60),
    ),
    (
        "an answered SYN lives as one that was not",
        lives!(SynAnswered, _, 120),
    ),
    (
        "what is established lives as what closes",
        lives!(Established, _, 120),
    ),
    (
        "what closes lives as what is established",
        lives!(Closing, _, FOR_EVER),
    ),
    ("a reset lives as what closes", lives!(Reset, _, 120)),
    ("a reset is over at once", lives!(Reset, _, 0)),
    (
        "a pick-up lives as what is established",
        lives!(Unanswered, _, FOR_EVER),
    ),
    ("a pick-up lives as a SYN", lives!(Unanswered, _, 120)),
    (
        "a reply does not keep a flow alive",
        sets!(Seen, |seeing, [old, new]| if seeing.is_reply() {
            old
        } else {
            new
        }),
    ),
    (
        "what goes forward does not keep a flow alive",
        sets!(Seen, |seeing, [old, new]| if seeing.is_forward() {
            old
        } else {
            new
        }),
    ),
];

/// Longer than any talk.
const FOR_EVER: u64 = 100 * 365 * 24 * 60 * 60;

const STATES: &[(&str, Mistake)] = &[
    (
        "a reset is believed for good",
        Mistake {
            set: |_, field, [old, new]| match field {
                Field::State if old == State::Reset as u64 => old,
                _ => new,
            },
            ..RIGHT
        },
    ),
    (
        "a reset is never believed",
        sets!(State, |_, [old, new]| if new == State::Reset as u64 {
            old
        } else {
            new
        }),
    ),
    (
        "a reset is believed from inside alone",
        sets!(State, |seeing, [old, new]| {
            if new == State::Reset as u64 && seeing.direction == Way::Ingress {
                old
            } else {
                new
            }
        }),
    ),
    (
        "after a reset the wire keeps a flow alive",
        Mistake {
            state: |seeing, state| match (state, seeing.direction) {
                (State::Reset, Way::Ingress) => State::Established,
                _ => state,
            },
            ..RIGHT
        },
    ),
    (
        "after a reset nothing from the wire passes",
        Mistake {
            key: |_, begun, tuple| Some((begun, tuple)),
            timeout: |seeing, state, proto| match (state, seeing.direction) {
                (State::Reset, Way::Ingress) => 0,
                _ => right_timeout(state, proto),
            },
            ..RIGHT
        },
    ),
    (
        "after a reset a SYN is as good as what goes on",
        sets!(State, |_, [old, new]| {
            let again = old == State::Reset as u64 && new == State::SynSent as u64;
            if again {
                State::Established as u64
            } else {
                new
            }
        }),
    ),
    (
        "two ways are never seen",
        sets!(State, |_, [old, new]| if new == State::TwoWay as u64 {
            old
        } else {
            new
        }),
    ),
    (
        "two packets of one way are two ways",
        found!(|seeing, state| {
            (seeing.is_forward() && state == State::OneWay).then_some(State::TwoWay)
        }),
    ),
    (
        "any answer answers a SYN",
        found!(|seeing, state| {
            (seeing.is_reply() && state == State::SynSent).then_some(State::SynAnswered)
        }),
    ),
    (
        "a SYN that meets a SYN is no answer",
        sets!(State, |seeing, [old, new]| {
            if new == State::SynAnswered as u64 && seeing.flags & ACK == 0 {
                old
            } else {
                new
            }
        }),
    ),
    (
        "a handshake is over when it is answered",
        sets!(State, |_, [_, new]| {
            let answered = new == State::SynAnswered as u64;
            if answered {
                State::Established as u64
            } else {
                new
            }
        }),
    ),
    (
        "a handshake is never over",
        sets!(State, |_, [old, new]| {
            let over = old == State::SynAnswered as u64 && new == State::Established as u64;
            if over { old } else { new }
        }),
    ),
    (
        "a pick-up is never answered",
        sets!(State, |_, [old, new]| {
            let over = old == State::Unanswered as u64 && new == State::Established as u64;
            if over { old } else { new }
        }),
    ),
    (
        "a FIN is not seen",
        sets!(State, |_, [old, new]| if new == State::Closing as u64 {
            old
        } else {
            new
        }),
    ),
    (
        "a FIN is seen from inside alone",
        sets!(State, |seeing, [old, new]| {
            let from_wire = seeing.direction == Way::Ingress;
            if new == State::Closing as u64 && from_wire {
                old
            } else {
                new
            }
        }),
    ),
    (
        "after a FIN nothing begins again",
        sets!(State, |_, [old, new]| {
            let again = old == State::Closing as u64 && new == State::SynSent as u64;
            if again { old } else { new }
        }),
    ),
    (
        "after a FIN whatever goes forward begins again",
        found!(|seeing, state| {
            let again = seeing.is_forward() && seeing.flags == ACK && state == State::Closing;
            again.then_some(State::Established)
        }),
    ),
    (
        "a SYN+ACK begins a flow",
        framed!(Pass, |frame| change_flags(frame, SYN | ACK, SYN)),
    ),
    (
        "a RST begins a flow",
        framed!(Pass, |frame| change_flags(frame, RST, ACK)),
    ),
    (
        "what is in the middle begins nothing",
        begins!(Unanswered, None),
    ),
    (
        "what is in the middle is established",
        begins!(Unanswered, Some(State::Established)),
    ),
    (
        "a FIN begins as what is in the middle",
        begins!(Closing, Some(State::Unanswered)),
    ),
    (
        "what goes to everybody begins a flow",
        framed!(Pass, |frame| {
            let (first, everybody) = if is_ipv6(frame)? {
                (38, 0xff)
            } else {
                (30, 0xe0)
            };
            let octet = frame.get_mut(first)?;
            if *octet & 0xf0 == everybody & 0xf0 {
                *octet ^= 0x80;
            }
            Some(())
        }),
    ),
    (
        "a broadcast begins a flow",
        framed!(Pass, |frame| {
            let everybody = !is_ipv6(frame)? && frame.get(30..34)? == [0xff; 4];
            frame[33] ^= u8::from(everybody);
            Some(())
        }),
    ),
    (
        "an echo reply goes forward",
        framed!(Pass, |frame| change_type(frame, [0, 129], [8, 128])),
    ),
    (
        "an echo request comes back",
        framed!(Drop, |frame| change_type(frame, [8, 128], [0, 129])),
    ),
    (
        "any ICMP goes forward",
        framed!(Pass, |frame| change_type(frame, [13, 3], [8, 8])),
    ),
    (
        "what comes back is counted as going forward",
        Mistake {
            set: |_, field, [old, new]| if field == Field::Back { old } else { new },
            ..RIGHT
        },
    ),
];

const ERRORS: &[(&str, Mistake)] = &[
    (
        "an error may go to somebody else",
        framed!(Drop, |frame| {
            let about = embedded(frame)?;
            let (dst, src, length) = if is_ipv6(frame)? {
                (38, 8, 16)
            } else {
                (30, 12, 4)
            };
            let src = frame.get(about + src..about + src + length)?.to_vec();
            frame[dst..dst + length].copy_from_slice(&src);
            Some(())
        }),
    ),
    (
        "an error keeps its flow alive",
        Mistake {
            found: |seeing, _, words, now| {
                if seeing.is_error {
                    words[Field::Seen as usize].set(now);
                }
            },
            ..RIGHT
        },
    ),
    (
        "an error is a packet that comes back",
        Mistake {
            found: |seeing, _, words, _| {
                let back = &words[Field::Back as usize];
                back.set(back.get() + u64::from(seeing.is_error));
            },
            ..RIGHT
        },
    ),
    (
        "an error resets its flow",
        found!(|seeing, _| seeing.is_error.then_some(State::Reset)),
    ),
    (
        "an error about a flow that is over passes",
        Mistake {
            timeout: |seeing, state, proto| {
                if seeing.is_error {
                    FOR_EVER
                } else {
                    right_timeout(state, proto)
                }
            },
            ..RIGHT
        },
    ),
    (
        "no error passes",
        Mistake {
            key: |seeing, begun, tuple| (!seeing.is_error).then_some((begun, tuple)),
            ..RIGHT
        },
    ),
    (
        "an error is about what went forward",
        Mistake {
            key: |seeing, begun, tuple| {
                (!seeing.is_error || begun != seeing.direction).then_some((begun, tuple))
            },
            ..RIGHT
        },
    ),
    (
        "an error is about what came back",
        Mistake {
            key: |seeing, begun, tuple| {
                (!seeing.is_error || begun == seeing.direction).then_some((begun, tuple))
            },
            ..RIGHT
        },
    ),
    (
        "an error may be about a later fragment",
        framed!(Drop, |frame| {
            let about = embedded(frame)?;
            if !is_ipv6(frame)? {
                frame.get_mut(about + 6..about + 8)?.fill(0);
            }
            Some(())
        }),
    ),
    (
        "seven bytes of what an error is about are enough",
        framed!(Drop, |frame| {
            embedded(frame)?;
            let length = if is_ipv6(frame)? { 18 } else { 16 };
            frame[length + 1] += 1;
            frame.push(0);
            Some(())
        }),
    ),
    (
        "extension headers of what an error is about are skipped",
        framed!(Drop, |frame| {
            let about = embedded(frame)?;
            if is_ipv6(frame)? && matches!(frame.get(about + 6)?, 44 | 60) {
                frame[about + 6] = *frame.get(about + 40)?;
                frame.drain(about + 40..about + 48);
                frame[19] -= 8;
            }
            Some(())
        }),
    ),
    (
        "what an error is about may be of the other IP version",
        framed!(Drop, |frame| {
            let about = embedded(frame)?;
            let version = if is_ipv6(frame)? { 0x60 } else { 0x40 };
            let byte = frame.get_mut(about)?;
            *byte = *byte & 0x0f | version;
            Some(())
        }),
    ),
    (
        "a redirect is an error",
        framed!(Drop, |frame| change_type(frame, [5, 255], [3, 255])),
    ),
    (
        "a source quench is an error",
        framed!(Drop, |frame| change_type(frame, [4, 255], [3, 255])),
    ),
    (
        "all that carries a packet is an error",
        framed!(Drop, |frame| { change_type(frame, [13, 130], [3, 1]) }),
    ),
    (
        "time exceeded is no error",
        framed!(Drop, |frame| change_type(frame, [11, 3], [13, 130])),
    ),
    (
        "a parameter problem is no error",
        framed!(Drop, |frame| { change_type(frame, [12, 4], [13, 130]) }),
    ),
];

const FRAGMENTS: &[(&str, Mistake)] = &[
    (
        "fragments: the identification is ignored",
        fragment_of!(|of| of.identification = 0),
    ),
    (
        "fragments: it has 16 bits",
        fragment_of!(|of| of.identification &= 0xffff),
    ),
    (
        "fragments: the protocol is ignored",
        fragment_of!(|of| of.kind &= !0xff),
    ),
    (
        "fragments: the direction is ignored",
        fragment_of!(|of| of.kind &= 0xffff),
    ),
    (
        "fragments: the source is ignored",
        fragment_of!(|of| of.src = NOWHERE),
    ),
    (
        "fragments: the destination is ignored",
        fragment_of!(|of| of.dst = NOWHERE),
    ),
    (
        "fragments: the first one is remembered for good",
        Mistake {
            first: |_, now| now,
            ..RIGHT
        },
    ),
    (
        "fragments: it is remembered a second longer",
        Mistake {
            first: |seen, _| *seen + SECOND,
            ..RIGHT
        },
    ),
    (
        "fragments: it is remembered a second less",
        Mistake {
            first: |seen, _| *seen - SECOND,
            ..RIGHT
        },
    ),
    (
        "fragments: later ones keep it alive",
        Mistake {
            first: |seen, now| {
                if now - *seen <= 10 * SECOND {
                    *seen = now;
                }
                *seen
            },
            ..RIGHT
        },
    ),
    (
        "fragments: one that is dropped is remembered",
        Mistake {
            dropped_firsts: true,
            ..RIGHT
        },
    ),
    (
        "fragments: one that a flow lets pass is not remembered",
        Mistake {
            remember: |by_rules| by_rules.verdict() == Verdict::Pass,
            ..RIGHT
        },
    ),
    (
        "fragments: one that untracked rules let pass is not remembered",
        Mistake {
            remember: |by_rules| by_rules.passes_statefully() || by_rules.drops_statefully(),
            ..RIGHT
        },
    ),
    (
        "fragments: what rules drop that need no header stays dropped",
        Mistake {
            asked: |by_rules, key| key.fields.l4() == L4::Read || !by_rules.drops_statefully(),
            ..RIGHT
        },
    ),
    (
        "fragments: what only the header could decide stays dropped",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::Fragment,
            ..RIGHT
        },
    ),
    (
        "fragments: they are tracked by whoever drops them",
        own!(|rules| {
            if rules.options.fragments == Fragments::Drop {
                rules.options.fragments = Fragments::Track;
            }
        }),
    ),
];

const RULES: &[(&str, Mistake)] = &[
    (
        "what untracked rules drop passes",
        own!(|rules| track(rules, Action::Deny)),
    ),
    (
        "what untracked rules allow begins a flow",
        own!(|rules| track(rules, Action::Allow)),
    ),
    (
        "what the default drops does not pass",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::DefaultDeny,
            ..RIGHT
        },
    ),
    (
        "what a rule drops does not pass",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::PolicyDeny,
            ..RIGHT
        },
    ),
    (
        "what the default allows begins nothing",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::DefaultAllow,
            ..RIGHT
        },
    ),
    (
        "what a rule allows begins nothing",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::PolicyAllow,
            ..RIGHT
        },
    ),
    (
        "a failsafe begins nothing",
        Mistake {
            asked: |by_rules, _| by_rules.reason() != Reason::Failsafe,
            ..RIGHT
        },
    ),
    (
        "a flow is kept where the answer is allowed",
        other!(|rules| {
            rules.rules.clear();
            rules.default = Action::Deny;
        }),
    ),
    (
        "a flow is kept where untracked rules drop the answer",
        other!(|rules| {
            track(rules, Action::Deny);
        }),
    ),
    (
        "none is kept where the default drops the answer",
        other!(|rules| {
            rules.default = Action::Allow;
        }),
    ),
    (
        "none is kept where a rule drops the answer",
        other!(|rules| {
            rules.rules.retain(|rule| rule.action != Action::Deny);
        }),
    ),
    (
        "the rules are asked about an answer with the same ports",
        other!(|rules| {
            each_match(rules, |matches| {
                std::mem::swap(&mut matches.src_ports, &mut matches.dst_ports);
                std::mem::swap(&mut matches.not_src_ports, &mut matches.not_dst_ports);
            });
        }),
    ),
    (
        "the rules are asked about an answer with the same addresses",
        other!(|rules| {
            each_match(rules, |matches| {
                std::mem::swap(&mut matches.src, &mut matches.dst);
            });
        }),
    ),
    (
        "the rules are asked about an echo request as its own answer",
        other!(|rules| {
            each_match(rules, |matches| {
                for icmp in [&mut matches.icmp, &mut matches.not_icmp]
                    .into_iter()
                    .flatten()
                {
                    icmp.kind = match icmp.kind {
                        0 => 8,
                        8 => 0,
                        128 => 129,
                        129 => 128,
                        other => other,
                    };
                }
            });
        }),
    ),
    (
        "staged rules drop the answer",
        other!(|rules| {
            for rule in &mut rules.rules {
                rule.staged = false;
            }
        }),
    ),
    (
        "the rule that would drop it counts it",
        Mistake {
            established: |by_rules| Judgement {
                essential: None,
                decision: Decision {
                    rule: by_rules.decision.rule,
                    ..ESTABLISHED
                },
                ..by_rules
            },
            ..RIGHT
        },
    ),
    (
        "what is noted beside is forgotten",
        Mistake {
            established: |_| Judgement {
                essential: None,
                decision: ESTABLISHED,
                noted: Vec::new(),
            },
            ..RIGHT
        },
    ),
    (
        "it passes for the default's sake",
        Mistake {
            established: |by_rules| Judgement {
                essential: None,
                decision: Decision {
                    reason: Reason::DefaultAllow,
                    ..ESTABLISHED
                },
                ..by_rules
            },
            ..RIGHT
        },
    ),
];

/// The tuple with these numbers, if its protocol has ports.
fn ported(tuple: Tuple, numbers: u32) -> Tuple {
    match tuple.proto() {
        TCP | UDP | UDP_LITE | SCTP => Tuple { numbers, ..tuple },
        _ => tuple,
    }
}

fn without_ports(tuple: Tuple, proto: u8) -> Tuple {
    if tuple.proto() == proto {
        ported(tuple, 0)
    } else {
        tuple
    }
}

/// Untracked rules with this action are taken for others.
fn track(rules: &mut Ruleset, action: Action) {
    for rule in &mut rules.rules {
        if rule.id.stage == Stage::Untracked && rule.action == action {
            rule.id.stage = Stage::PreDnat;
        }
    }
}

fn each_match(rules: &mut Ruleset, change: impl Fn(&mut Match)) {
    for rule in &mut rules.rules {
        rule.matches.iter_mut().for_each(&change);
    }
}

/// Whether it is IPv6, and not IPv4; `None` of anything else.
fn is_ipv6(frame: &[u8]) -> Option<bool> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(false),
        [0x86, 0xdd] => Some(true),
        _ => None,
    }
}

/// Where the L4 header is, behind one extension header at most, if it is of one of
/// these protocols.
fn l4(frame: &[u8], protocols: &[u8]) -> Option<usize> {
    let (proto, at) = if !is_ipv6(frame)? {
        (*frame.get(23)?, 14 + usize::from(frame.get(14)? & 0x0f) * 4)
    } else if matches!(frame.get(20)?, 44 | 60) {
        (*frame.get(54)?, 62)
    } else {
        (frame[20], 54)
    };
    protocols.contains(&proto).then_some(at)
}

/// TCP with all of the `old` flags has the `new` ones in their place.
fn change_flags(frame: &mut [u8], old: u8, new: u8) -> Option<()> {
    let at = l4(frame, &[TCP])?;
    let flags = frame.get_mut(at + 13)?;
    if *flags & old == old {
        *flags = *flags & !old | new;
    }
    Some(())
}

/// ICMP of a type has another one; IPv4's and IPv6's.
fn change_type(frame: &mut [u8], old: [u8; 2], new: [u8; 2]) -> Option<()> {
    let version = usize::from(is_ipv6(frame)?);
    let at = l4(frame, &[[1], [58]][version])?;
    let kind = frame.get_mut(at)?;
    if *kind == old[version] {
        *kind = new[version];
    }
    Some(())
}

/// Where the packet begins that an ICMP error is about, in a frame without oddities.
fn embedded(frame: &[u8]) -> Option<usize> {
    let version = usize::from(is_ipv6(frame)?);
    let at = l4(frame, &[[1], [58]][version])?;
    let kind = *frame.get(at)?;
    let is_error = [&[3, 11, 12][..], &[1, 2, 3, 4]][version].contains(&kind);
    // All that a talk has of these is as long as its first length byte says.
    (is_error && frame.len() < 256).then_some(at + 8)
}

// ---- the evaluation

/// Milliseconds.
const SECOND: u64 = 1_000;
/// Nothing is ever before the beginning of time.
const BEGINNING: u64 = 1 << 50;

/// Both directions of an endpoint, as [`filter_user::conversation`] has them, with a
/// mistake.
pub(crate) struct Wrong<'m> {
    mistake: &'m Mistake,
    /// The rules, of ingress and egress.
    images: [Rc<Image>; 2],
    /// What flows take them for.
    own: [Rc<Image>; 2],
    /// What those of the other direction take them for.
    other: [Rc<Image>; 2],
    switches: [u32; 2],
    tables: Tables,
}

#[derive(Default)]
struct Tables {
    now: Cell<u64>,
    flows: RefCell<HashMap<(usize, Tuple), InTable>>,
    fragments: RefCell<HashMap<Datagram, u64>>,
}

#[derive(Clone)]
struct InTable {
    begun: Way,
    tuple: Tuple,
    words: Rc<Words>,
}

impl InTable {
    fn word(&self, field: Field) -> u64 {
        self.words[field as usize].get()
    }

    fn live_state(&self, mistake: &Mistake, seeing: Seeing, now: u64) -> Option<State> {
        let state = State::from_number(self.word(Field::State))?;
        let timeout = (mistake.timeout)(&seeing, state, self.tuple.proto());
        (now - self.word(Field::Seen) <= timeout * SECOND).then_some(state)
    }
}

/// A flow, as the mistaken see it.
struct Seen<'m> {
    mistake: &'m Mistake,
    flow: InTable,
    seeing: Seeing,
}

impl Seen<'_> {
    fn taken_for(&self) -> Option<(State, State)> {
        let state = State::from_number(self.flow.word(Field::State))?;
        Some((state, (self.mistake.state)(&self.seeing, state)))
    }
}

impl Entry for Seen<'_> {
    fn get(&self, field: Field) -> u64 {
        let word = self.flow.word(field);
        match (field, self.taken_for()) {
            (Field::State, Some((_, taken))) => taken as u64,
            // So that it is over when the mistaken say so, and not when those do that
            // ask here.
            (Field::Seen, Some((state, taken))) => {
                let proto = self.flow.tuple.proto();
                let lives = (self.mistake.timeout)(&self.seeing, state, proto);
                word + lives * SECOND - right_timeout(taken, proto) * SECOND
            }
            _ => word,
        }
    }

    fn set(&self, field: Field, value: u64) {
        let word = &self.flow.words[field as usize];
        word.set((self.mistake.set)(&self.seeing, field, [word.get(), value]));
    }
}

const fn place(direction: Way) -> usize {
    match direction {
        Way::Ingress => 0,
        Way::Egress => 1,
    }
}

/// The tables, while a packet is decided.
struct Open<'w> {
    mistake: &'w Mistake,
    tables: &'w Tables,
    switches: u32,
    by_rules: Outcome,
    /// Of no flow yet.
    seeing: Seeing,
}

impl Open<'_> {
    fn seeing(&self, begun: Way) -> Seeing {
        Seeing {
            begun,
            ..self.seeing
        }
    }
}

impl<'w> Flows for Open<'w> {
    type Entry = Seen<'w>;

    fn switches(&self) -> u32 {
        self.switches
    }

    fn second(&self) -> u64 {
        SECOND
    }

    fn now(&self) -> u64 {
        self.tables.now.get()
    }

    fn find(&self, begun: Way, tuple: &Tuple) -> Option<Seen<'w>> {
        let seeing = self.seeing(begun);
        let (table, key) = (self.mistake.key)(&seeing, begun, *tuple)?;
        let flow = self
            .tables
            .flows
            .borrow()
            .get(&(place(table), key))?
            .clone();
        if let Some(state) = flow.live_state(self.mistake, seeing, self.now()) {
            (self.mistake.found)(&seeing, state, &flow.words, self.now());
        }
        Some(Seen {
            mistake: self.mistake,
            flow,
            seeing,
        })
    }

    fn insert(&self, begun: Way, tuple: &Tuple, flow: &Flow) -> Put {
        let key = (self.mistake.key)(&self.seeing(begun), begun, *tuple);
        let state = State::from_number(flow.state).and_then(self.mistake.begin);
        let (Some((table, key)), Some(state)) = (key, state) else {
            return Put::Refused;
        };
        let words = [flow.seen, flow.began, flow.forward, flow.back, state as u64];
        let flow = InTable {
            begun,
            tuple: *tuple,
            words: Rc::new(words.map(Cell::new)),
        };
        self.tables
            .flows
            .borrow_mut()
            .insert((place(table), key), flow);
        Put::New
    }

    fn first_fragment(&self, datagram: &Datagram) -> Option<u64> {
        let mut fragments = self.tables.fragments.borrow_mut();
        let seen = fragments.get_mut(&(self.mistake.datagram)(*datagram))?;
        Some((self.mistake.first)(seen, self.now()))
    }

    fn remember(&self, datagram: &Datagram, now: u64) {
        if (self.mistake.remember)(self.by_rules) {
            let mut fragments = self.tables.fragments.borrow_mut();
            fragments.insert((self.mistake.datagram)(*datagram), now);
        }
    }

    fn count(&self, _: Event, _: Way) {}
}

impl<'m> Wrong<'m> {
    /// Nothing is remembered yet. `compile` makes images of what rules are taken for.
    pub(crate) fn new(
        mistake: &'m Mistake,
        rulesets: [&Ruleset; 2],
        images: &[Rc<Image>; 2],
        compile: impl Fn(&Ruleset) -> Image,
    ) -> Self {
        let taken = |change: Option<fn(&mut Ruleset)>| {
            [0, 1].map(|which| {
                let Some(change) = change else {
                    return (rulesets[which].clone(), Rc::clone(&images[which]));
                };
                let mut ruleset = rulesets[which].clone();
                change(&mut ruleset);
                let image = Rc::new(compile(&ruleset));
                (ruleset, image)
            })
        };
        let (own, other) = (taken(mistake.own), taken(mistake.other));
        Self {
            mistake,
            images: images.clone(),
            switches: [0, 1]
                .map(|which| flow_switches(&own[which].0, Some(&other[1 - which].0), true)),
            own: own.map(|(_, image)| image),
            other: other.map(|(_, image)| image),
            tables: Tables::default(),
        }
    }

    /// See [`filter_user::conversation::Conversation::judge`].
    pub(crate) fn judge(&self, now: Duration, direction: Direction, frame: &[u8]) -> Judgement {
        self.tables.now.set(moment(now));
        let way = match direction {
            Direction::Ingress => Way::Ingress,
            Direction::Egress => Way::Egress,
        };
        let which = place(way);
        let by_rules = self.images[which].judge(frame);
        let outcome = classify::decide(&Cursor::over(frame), &*self.own[which]);
        let mut taken = frame.to_vec();
        (self.mistake.frame)(&mut taken, outcome.verdict());
        let packet = Cursor::over(&taken);
        let Ok(seen) = parse_with_place(&packet) else {
            return by_rules;
        };
        if !(self.mistake.asked)(outcome, &seen.0) {
            return by_rules;
        }
        let settled = self.settle(&packet, &seen, outcome, way);
        if settled.reason() == Reason::Established {
            (self.mistake.established)(by_rules)
        } else {
            by_rules
        }
    }

    fn settle(
        &self,
        packet: &Cursor<'_>,
        seen: &(Key, Place),
        by_rules: Outcome,
        way: Way,
    ) -> Outcome {
        let (key, place_of) = seen;
        let step = Step::of(packet, key, place_of);
        let mut open = Open {
            mistake: self.mistake,
            tables: &self.tables,
            switches: self.switches[place(way)],
            by_rules,
            seeing: Seeing {
                direction: way,
                begun: way,
                flags: step.map_or(0, |step| step.flags),
                is_error: step.is_none() && Step::embedded(packet, key, place_of).is_some(),
            },
        };
        let other = &*self.other[place(way.opposite())];
        let outcome = flow::settle(packet, seen, by_rules, other, &open, way);
        if self.mistake.dropped_firsts && outcome.verdict() == Verdict::Drop {
            open.switches &= switches::FRAGMENTS;
            flow::settle(packet, seen, outcome.established(), other, &open, way);
        }
        outcome
    }

    /// What is remembered and not over.
    pub(crate) fn flows(&self, now: Duration) -> Vec<(Direction, Tuple, Flow)> {
        let now = moment(now);
        let flows = self.tables.flows.borrow();
        let live = flows.values().filter(|flow| {
            let seeing = Seeing {
                direction: flow.begun,
                begun: flow.begun,
                flags: 0,
                is_error: false,
            };
            flow.live_state(self.mistake, seeing, now).is_some()
        });
        live.map(|flow| {
            let [seen, began, forward, back, state] = flow.words.each_ref().map(Cell::get);
            let direction = match flow.begun {
                Way::Ingress => Direction::Ingress,
                Way::Egress => Direction::Egress,
            };
            let known = Flow {
                seen,
                began,
                forward,
                back,
                state,
            };
            (direction, flow.tuple, known)
        })
        .collect()
    }
}

fn moment(now: Duration) -> u64 {
    BEGINNING + u64::try_from(now.as_millis()).unwrap()
}
