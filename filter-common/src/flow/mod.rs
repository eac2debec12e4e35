//! Return traffic: what is remembered of packets that were allowed, and which
//! others pass for their sake.
//!
//! Nothing is remembered that the rules would allow anyway: a packet is tracked
//! only where the other direction's rules would drop its answer, and flows are
//! asked only about what the rules drop. So a flood at an allowed port leaves no
//! trace, and a packet that is allowed, while no rule restricts the other
//! direction, pays nothing.
//!
//! A flow is found by the exact tuple, of the packet that began it or of its
//! reverse. Those that began on the way out and those that began on the way in
//! are kept apart, so that neither can push out the other.

mod state;
mod step;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

pub use state::{State, Way};
pub use step::{Role, Step};

use crate::abi::switches;
use crate::classify::{self, Outcome, Tables};
use crate::packet::Packet;
use crate::parse::{Address, Key, L4, Place};
use crate::verdict::Reason;

/// Which way a packet crosses the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the wire to the host.
    Ingress,
    /// From the host to the wire.
    Egress,
}

impl Direction {
    /// The other one.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// Who talks to whom: the key of a flow. Numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Tuple {
    /// From.
    pub src: Address,
    /// To.
    pub dst: Address,
    /// Source port << 16 | destination port; of an ICMP echo its identifier,
    /// twice; 0 where the protocol has neither.
    pub numbers: u32,
    /// Protocol, and from bit 8 on the [IP version as an index](crate::parse::Family).
    pub kind: u32,
}

impl Tuple {
    /// That of the packets that come back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            numbers: self.numbers.rotate_left(16),
            kind: self.kind,
        }
    }

    /// Source and destination as addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.src, self.dst].map(|address| {
            let [a, b, c, d, ..] = address.high.to_be_bytes();
            if self.is_ipv4() {
                Ipv4Addr::new(a, b, c, d).into()
            } else {
                let bits = u128::from(address.high) << 64 | u128::from(address.low);
                Ipv6Addr::from_bits(bits).into()
            }
        })
    }

    /// The two numbers.
    #[must_use]
    pub const fn both_numbers(&self) -> [u16; 2] {
        let [a, b, c, d] = self.numbers.to_be_bytes();
        [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
    }

    #[inline(always)]
    const fn is_ipv4(&self) -> bool {
        self.kind >> 8 == 0
    }

    /// The protocol.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the rest is the version")]
    pub const fn proto(&self) -> u8 {
        self.kind as u8
    }

    /// Whether it goes to IPv4's multicast or broadcast, or to IPv6's multicast:
    /// nobody answers from there.
    #[inline(always)]
    const fn is_to_many(&self) -> bool {
        let first = self.dst.high >> 56;
        if self.is_ipv4() {
            first & 0xf0 == 0xe0 || self.dst.high >> 32 == 0xffff_ffff
        } else {
            first == 0xff
        }
    }
}

/// What stands for a tuple in a table: 8 bytes, as the kernel hashes all bytes of a key
/// once more, and 40 would take it 20 ns (AMD EPYC, Linux 6.18). The tuple itself is in
/// the entry, and compared.
///
/// `seed` is a secret of the table's, so that nobody can tell which tuples meet. Where
/// two do all the same, the later one takes the place.
#[inline(always)]
#[must_use]
pub const fn table_key(tuple: &Tuple, seed: u64) -> u64 {
    let rest = (tuple.numbers as u64) << 32 | tuple.kind as u64;
    let key = if tuple.is_ipv4() {
        // Both addresses in one word.
        mixed(seed, tuple.src.high | tuple.dst.high >> 32)
    } else {
        let key = mixed(mixed(seed, tuple.src.high), tuple.src.low);
        mixed(mixed(key, tuple.dst.high), tuple.dst.low)
    };
    mixed(key, rest)
}

/// One round: the multiplier is that of `SplitMix64` (Steele, Lea, Flood 2014).
#[inline(always)]
const fn mixed(key: u64, word: u64) -> u64 {
    let product = (key ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    product ^ product >> 29
}

/// An entry of a table of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TableEntry {
    /// Whose it is.
    pub tuple: Tuple,
    /// What is known.
    pub flow: Flow,
}

/// What is known of a flow. Numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// The jiffy of the last packet.
    pub seen: u64,
    /// That of the first one.
    pub began: u64,
    /// Packets that went forward.
    pub forward: u64,
    /// Packets that came back.
    pub back: u64,
    /// [`State`].
    pub state: u64,
}

/// A field of a [`Flow`], by its place in words of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// [`Flow::seen`].
    Seen = 0,
    /// [`Flow::began`].
    Began = 1,
    /// [`Flow::forward`].
    Forward = 2,
    /// [`Flow::back`].
    Back = 3,
    /// [`Flow::state`].
    State = 4,
}

impl Flow {
    #[inline(always)]
    const fn begin(state: State, now: u64) -> Self {
        Self {
            seen: now,
            began: now,
            forward: 1,
            back: 0,
            state: state as u64,
        }
    }

    /// Whether it lives: it was seen no longer ago than its state allows.
    #[must_use]
    pub fn is_live(&self, proto: u8, now: u64, second: u64) -> bool {
        State::from_number(self.state)
            .is_some_and(|state| state.lives(proto, self.seen, now, second))
    }
}

/// A flow in a map that several CPUs use at once: each field is read and written by
/// itself. Where several CPUs carry one flow in the same direction at the same time, a
/// packet may not be counted.
pub trait Entry {
    /// Reads a field.
    fn get(&self, field: Field) -> u64;

    /// Writes a field.
    fn set(&self, field: Field, value: u64);
}

/// Makes another flow of the same tuple of it.
#[inline(always)]
fn begin_again<E: Entry>(entry: &E, state: State, now: u64) {
    let flow = Flow::begin(state, now);
    entry.set(Field::Seen, flow.seen);
    entry.set(Field::Began, flow.began);
    entry.set(Field::Forward, flow.forward);
    entry.set(Field::Back, flow.back);
    entry.set(Field::State, flow.state);
}

/// Its state, while it lives.
#[inline(always)]
fn live_state<E: Entry>(entry: &E, proto: u8, now: u64, second: u64) -> Option<State> {
    let state = State::from_number(entry.get(Field::State))?;
    state
        .lives(proto, entry.get(Field::Seen), now, second)
        .then_some(state)
}

/// A packet of the flow was seen.
#[inline(always)]
fn see<E: Entry>(entry: &E, state: State, step: &Step, way: Way, direction: Direction, now: u64) {
    let Some(next) = state.after(step.tuple.proto(), step.flags, way, direction) else {
        return;
    };
    if next as u64 != state as u64 {
        entry.set(Field::State, next as u64);
    }
    entry.set(Field::Seen, now);
    let count = match way {
        Way::Forward => Field::Forward,
        Way::Reply => Field::Back,
    };
    entry.set(count, entry.get(count).wrapping_add(1));
}

/// Which datagram a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Datagram {
    /// From.
    pub src: Address,
    /// To.
    pub dst: Address,
    /// The number that its fragments have.
    pub identification: u32,
    /// As [`Tuple::kind`], and from bit 16 on 1 on the way out.
    pub kind: u32,
}

/// Seconds for which the rest of a datagram may follow its first fragment.
pub const FRAGMENTS_TIMEOUT: u64 = 10;

/// What is counted of flows. The number is the place of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// A flow was begun.
    Begun = 0,
    /// A packet passed as part of a flow, or about one.
    Hit = 1,
    /// A flow could not be put into the table.
    Refused = 2,
    /// A later fragment passed where the first one did.
    Fragment = 3,
    /// A flow was taken out by user space, which alone counts it.
    Removed = 4,
}

/// Counters of [`Event`]s: those of flows that began on the way in, then those of
/// the others.
pub const FLOW_COUNTERS: u32 = 16;

impl Event {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Begun,
        Self::Hit,
        Self::Refused,
        Self::Fragment,
        Self::Removed,
    ];

    /// The place of its counter, for the flows that began in this direction.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, begun: Direction) -> u32 {
        self as u32
            + match begun {
                Direction::Ingress => 0,
                Direction::Egress => FLOW_COUNTERS / 2,
            }
    }
}

/// What became of a flow that was to be put into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in it.
    New,
    /// It is in it, in the place of one that had the same key.
    There,
    /// There was no room.
    Refused,
}

/// The tables of flows: maps on the kernel's side.
pub trait Flows {
    /// A flow in them.
    type Entry: Entry;

    /// [`switches`] of the direction that packets are decided in.
    fn switches(&self) -> u32;

    /// Jiffies in a second.
    fn second(&self) -> u64;

    /// The present jiffy.
    fn now(&self) -> u64;

    /// The flow that a packet with this tuple began in this direction.
    fn find(&self, begun: Direction, tuple: &Tuple) -> Option<Self::Entry>;

    /// Puts one into the table, which has none with this tuple.
    fn insert(&self, begun: Direction, tuple: &Tuple, flow: &Flow) -> Put;

    /// The jiffy in which the datagram's first fragment passed.
    fn first_fragment(&self, datagram: &Datagram) -> Option<u64>;

    /// The datagram's first fragment passes now.
    fn remember(&self, datagram: &Datagram, now: u64);

    /// One more of these, of flows that began in this direction.
    fn count(&self, event: Event, begun: Direction);
}

/// What becomes of a packet that the rules of `direction` have decided, when flows
/// are asked; `other` are the rules of the other direction.
#[inline(always)]
pub fn settle<P: Packet, T: Tables, F: Flows>(
    packet: &P,
    seen: &(Key, Place),
    outcome: Outcome,
    other: &T,
    flows: &F,
    direction: Direction,
) -> Outcome {
    if outcome.drops() == 0 {
        settle_passed(packet, seen, fills(outcome, flows), other, flows, direction);
        return outcome;
    }
    let (asks, follows) = (consults(outcome, flows), follows(outcome));
    if settle_dropped(packet, seen, asks, follows, flows, direction) {
        outcome.established()
    } else {
        outcome
    }
}

/// Whether flows are asked about a packet that the rules drop.
#[inline(always)]
pub fn consults<F: Flows>(outcome: Outcome, flows: &F) -> bool {
    flows.switches() & switches::CONSULT != 0 && outcome.drops_statefully()
}

/// Whether a packet that the rules let pass may begin a flow.
#[inline(always)]
pub fn fills<F: Flows>(outcome: Outcome, flows: &F) -> bool {
    flows.switches() & switches::FILL != 0 && outcome.passes_statefully()
}

/// Whether a dropped later fragment passes where the first one did: where only the
/// header could decide, or what drops it would not have dropped the first one.
#[inline(always)]
#[must_use]
pub fn follows(outcome: Outcome) -> bool {
    outcome.drops_statefully()
        || outcome.drops() != 0 && outcome.reason() as u8 == Reason::Fragment as u8
}

/// Whether a packet that the rules drop passes all the same. What is asked of the
/// outcome is asked before: see [`consults`] and [`follows`].
#[inline(always)]
pub fn settle_dropped<P: Packet, F: Flows>(
    packet: &P,
    (key, place): &(Key, Place),
    consults: bool,
    follows: bool,
    flows: &F,
    direction: Direction,
) -> bool {
    let mut is_known = false;
    if consults {
        is_known = match Step::of(packet, key, place) {
            Some(step) => answers(&step, flows, direction),
            None => is_about_flow(packet, key, place, flows, direction),
        };
        if is_known {
            flows.count(Event::Hit, direction.opposite());
        }
    }
    if !is_fragment(place, flows) {
        return is_known;
    }
    if step::is_first(key) {
        if is_known {
            remember(packet, key, place, flows, direction);
        }
        return is_known;
    }
    if !follows || is_known {
        return is_known;
    }
    let Some(datagram) = step::datagram(packet, key, place, direction) else {
        return false;
    };
    let Some(first) = flows.first_fragment(&datagram) else {
        return false;
    };
    let in_time = flows.now().saturating_sub(first) <= FRAGMENTS_TIMEOUT * flows.second();
    if in_time {
        flows.count(Event::Fragment, direction);
    }
    in_time
}

/// Remembers a packet that the rules let pass, where the other direction's rules would
/// drop its answer (if it [may begin a flow](fills)); and where fragments may follow it.
#[inline(always)]
pub fn settle_passed<P: Packet, T: Tables, F: Flows>(
    packet: &P,
    (key, place): &(Key, Place),
    fills: bool,
    other: &T,
    flows: &F,
    direction: Direction,
) {
    // The rules first, and what flows ask of the packet then: the verifier walks the
    // rules once for each way that leads to them.
    if fills
        && key.fields.l4() as u8 == L4::Read as u8
        && classify::drops_statefully(&key.reversed(), other)
        && let Some(step) = &Step::of(packet, key, place)
        && step.role != Role::Reply
    {
        follow(step, flows, direction);
    }
    if is_fragment(place, flows) && step::is_first(key) {
        remember(packet, key, place, flows, direction);
    }
}

/// Remembers the first fragment of a datagram.
#[inline(always)]
fn remember<P: Packet, F: Flows>(
    packet: &P,
    key: &Key,
    place: &Place,
    flows: &F,
    direction: Direction,
) {
    if let Some(datagram) = step::datagram(packet, key, place, direction) {
        flows.remember(&datagram, flows.now());
    }
}

/// Whether the first fragment of the packet's datagram matters.
#[inline(always)]
fn is_fragment<F: Flows>(place: &Place, flows: &F) -> bool {
    flows.switches() & switches::FRAGMENTS != 0 && place.identification != 0
}

/// Whether a packet comes back along a flow that began in the other direction,
/// which then has seen it.
#[inline(always)]
pub fn answers<F: Flows>(step: &Step, flows: &F, direction: Direction) -> bool {
    if step.role == Role::Request {
        return false;
    }
    let Some(flow) = flows.find(direction.opposite(), &step.tuple.reversed()) else {
        return false;
    };
    let now = flows.now();
    let Some(state) = live_state(&flow, step.tuple.proto(), now, flows.second()) else {
        return false;
    };
    see(&flow, state, step, Way::Reply, direction, now);
    true
}

/// Whether an ICMP error is about a packet of a flow.
#[inline(always)]
fn is_about_flow<P: Packet, F: Flows>(
    packet: &P,
    key: &Key,
    place: &Place,
    flows: &F,
    direction: Direction,
) -> bool {
    let Some(step) = Step::embedded(packet, key, place) else {
        return false;
    };
    // It went the other way: forward along a flow of that direction, or back
    // along one of this.
    let went = direction.opposite();
    let forward = step.role != Role::Reply && is_live(&step.tuple, went, flows);
    forward || step.role != Role::Request && is_live(&step.tuple.reversed(), direction, flows)
}

#[inline(always)]
fn is_live<F: Flows>(tuple: &Tuple, begun: Direction, flows: &F) -> bool {
    let Some(flow) = flows.find(begun, tuple) else {
        return false;
    };
    live_state(&flow, tuple.proto(), flows.now(), flows.second()).is_some()
}

/// Remembers a packet that goes forward.
#[inline(always)]
fn follow<F: Flows>(step: &Step, flows: &F, direction: Direction) {
    let proto = step.tuple.proto();
    let now = flows.now();
    let found = flows.find(direction, &step.tuple);
    if let Some(flow) = &found
        && let Some(state) = live_state(flow, proto, now, flows.second())
    {
        see(flow, state, step, Way::Forward, direction, now);
        return;
    }
    if step.tuple.is_to_many() {
        return;
    }
    let Some(first) = State::first(proto, step.flags) else {
        return;
    };
    if let Some(flow) = &found {
        begin_again(flow, first, now);
        return;
    }
    match flows.insert(direction, &step.tuple, &Flow::begin(first, now)) {
        Put::New => flows.count(Event::Begun, direction),
        Put::There => {}
        Put::Refused => flows.count(Event::Refused, direction),
    }
}

const _: () = {
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Flow>() == 40);
    assert!(size_of::<Datagram>() == 40);
    assert!(Event::ALL.len() <= FLOW_COUNTERS as usize / 2);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_they_say() {
        let flow = Flow {
            seen: 10,
            began: 11,
            forward: 12,
            back: 13,
            state: 14,
        };
        let words: &[u64] = bytemuck::cast_slice(bytemuck::bytes_of(&flow));
        assert_eq!(words[Field::Seen as usize], flow.seen);
        assert_eq!(words[Field::Began as usize], flow.began);
        assert_eq!(words[Field::Forward as usize], flow.forward);
        assert_eq!(words[Field::Back as usize], flow.back);
        assert_eq!(words[Field::State as usize], flow.state);
    }

    #[test]
    fn tuples_have_keys_of_their_own() {
        let address = |high, low| Address { high, low };
        let mut keys = [0; 600];
        let mut next = 0;
        for kind in [0x11, 6, 0x111] {
            for number in 0..200 {
                let tuple = Tuple {
                    src: address((0x0a00_0000 + number) << 32, 0),
                    dst: address(0x0a00_0001 << 32, 0),
                    numbers: 53,
                    kind,
                };
                keys[next] = table_key(&tuple, 7);
                next += 1;
                assert_ne!(table_key(&tuple, 7), table_key(&tuple, 8));
                assert_ne!(table_key(&tuple, 7), table_key(&tuple.reversed(), 7));
            }
        }
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_tuple_reversed_twice_is_the_same() {
        let address = |high, low| Address { high, low };
        let tuple = Tuple {
            src: address(1, 2),
            dst: address(3, 4),
            numbers: 0x0035_0fa0,
            kind: 17,
        };
        assert_eq!(tuple.both_numbers(), [53, 4_000]);
        assert_eq!(tuple.reversed().both_numbers(), [4_000, 53]);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
