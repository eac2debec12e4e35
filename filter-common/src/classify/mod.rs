//! Key → outcome, over tables whose cost does not depend on the number of
//! rules: each dimension of the packet is mapped to its equivalence class,
//! and the classes to the decision.

mod lanes;
mod parts;
mod trie;

use crate::abi::{
    DECIDE_ASK, DECIDE_DEFAULT, DECIDE_DROP, DECIDE_FAILSAFE, DECIDE_STATEFUL, DECISION_COUNTER,
    Line, NONE, NOTED, PROTOCOL_WORDS, REASON_COUNTERS, Record, SHAPE, Slot, WIDTH_BYTE,
    WIDTH_HALF, at, essential_counter, essential_of, flags, reason_counter,
};
use crate::packet::Packet;
use crate::parse::{Family, Key, L4, NoKey, Place, parse_with_place, plain};
use crate::verdict::{Essential, Reason, Verdict};
use crate::wire::l4::{self, Shape};

/// The compiled tables: maps on the kernel's side, bytes on the host's.
pub trait Tables {
    /// Whether the image is known to be [small](crate::abi::Layout::is_small): what
    /// only others need is then not compiled.
    const SMALL: bool = false;

    /// The word at `index`; `None` beyond the end, which no compiled image
    /// asks for.
    fn word(&self, index: u32) -> Option<u32>;

    /// The half word at `index`, counted in half words; `None` likewise.
    fn half(&self, index: u32) -> Option<u16>;

    /// The byte at `index`; `None` likewise.
    fn byte(&self, index: u32) -> Option<u8>;

    /// The line with this number; `None` likewise.
    fn line(&self, number: u32) -> Option<&Line>;

    /// The slot with this number; `None` likewise.
    fn slot(&self, number: u32) -> Option<&Slot>;

    /// The record with this number; `None` likewise.
    fn record(&self, number: u32) -> Option<&Record>;

    /// All bits where the number, taken with its sign, is less than 0, else none. The
    /// compiler must not see how: it would make a jump of arithmetic that does
    /// what a comparison does, and no jump is foretold that depends on the packet.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "bits are moved"
    )]
    fn sign(&self, number: u64) -> u64 {
        (number as i64 >> 63) as u64
    }

    /// The word of [`crate::abi::Constants`] at the sum of these places, in
    /// bytes (see [`at`]). It is asked for where it is needed, each time: nothing
    /// then has to be kept for later.
    fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32;
}

/// Whether a flag is set, of those that the verifier knows.
#[inline(always)]
fn is_set<T: Tables>(flag: u32, tables: &T) -> bool {
    tables.constant::<{ at::FLAGS }, 0, 0>() & flag != 0
}

/// What was decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A decision that asks nothing more.
    word: u32,
    /// The word with the number of noted rules, behind which they stand;
    /// [`NONE`] where there are none.
    pub notes: u32,
}

impl Outcome {
    /// A look-up that must succeed didn't.
    pub const BROKEN: Self = Self::drop(Reason::Internal);

    #[inline(always)]
    const fn of(word: u32) -> Self {
        Self { word, notes: NONE }
    }

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self::of(reason_counter(reason, Verdict::Pass))
    }

    #[inline(always)]
    const fn essential(kind: Essential) -> Self {
        Self::of(essential_counter(kind))
    }

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self::of(reason_counter(reason, Verdict::Drop) | DECIDE_DROP)
    }

    /// The same, which is stateful where the decision is that it comes from.
    #[inline(always)]
    const fn stateful_as(self, decision: u32) -> Self {
        Self {
            word: self.word | decision & DECIDE_STATEFUL,
            ..self
        }
    }

    /// Whether the packet passes, and may begin a flow.
    #[inline(always)]
    #[must_use]
    pub const fn passes_statefully(self) -> bool {
        self.word & (DECIDE_STATEFUL | DECIDE_DROP) == DECIDE_STATEFUL
    }

    /// Whether the packet is dropped, if no flow lets it pass.
    #[inline(always)]
    #[must_use]
    pub const fn drops_statefully(self) -> bool {
        self.word & (DECIDE_STATEFUL | DECIDE_DROP) == DECIDE_STATEFUL | DECIDE_DROP
    }

    /// The packet passes as part of a flow; what is noted beside the verdict stays.
    #[inline(always)]
    #[must_use]
    pub const fn established(self) -> Self {
        Self {
            word: reason_counter(Reason::Established, Verdict::Pass),
            ..self
        }
    }

    /// Both words in one, for a function that returns no more.
    #[inline(always)]
    #[must_use]
    pub const fn packed(self) -> u64 {
        self.word as u64 | (self.notes as u64) << 32
    }

    /// The outcome that was [packed](Self::packed).
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each takes its own bits of the word"
    )]
    pub const fn unpacked(packed: u64) -> Self {
        Self {
            word: packed as u32,
            notes: (packed >> 32) as u32,
        }
    }

    /// What happens to the packet.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        if self.word & DECIDE_DROP == 0 {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    }

    /// 1 where the packet is dropped, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> u32 {
        (self.word & DECIDE_DROP) / DECIDE_DROP
    }

    /// The kind of essentials that the packet is of, where that decided.
    #[must_use]
    pub fn essential_kind(self) -> Option<Essential> {
        essential_of(self.counter())
    }

    /// The counter that counts the packet.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.word & DECISION_COUNTER
    }

    /// The index of the rule that decided, if one did.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> Option<u32> {
        self.counter().checked_sub(REASON_COUNTERS)
    }

    /// Why.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "compared with a small number"
    )]
    pub const fn reason(self) -> Reason {
        let counter = self.counter();
        if counter >= REASON_COUNTERS {
            return match (self.verdict(), self.word & DECIDE_FAILSAFE) {
                (Verdict::Drop, _) => Reason::PolicyDeny,
                (Verdict::Pass, 0) => Reason::PolicyAllow,
                (Verdict::Pass, _) => Reason::Failsafe,
            };
        }
        match Reason::from_number(counter as u8) {
            Some(reason) => reason,
            // The others are of no reason's own.
            None if self.verdict() as u8 == Verdict::Drop as u8 => Reason::NotIp,
            None => Reason::Essential,
        }
    }
}

/// Decides the fate of a frame.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Outcome {
    decide_plain(packet, tables).unwrap_or_else(|| decide_any(packet, tables, |_, _| {}))
}

/// Decides the fate of a plain frame, in which most packets come (see
/// [`plain`]). `None` where it is no such frame, or a table is too short.
#[inline(always)]
pub fn decide_plain<P: Packet, T: Tables>(packet: &P, tables: &T) -> Option<Outcome> {
    let shape = |proto: u8| {
        let row = u32::from(proto).wrapping_mul(PROTOCOL_WORDS);
        let protocols = tables.constant::<{ at::PROTOCOLS }, 0, 0>();
        let word = tables.word(protocols.wrapping_add(row).wrapping_add(SHAPE))?;
        Some(Shape(word))
    };
    // One call a version: each is then a way of its own through the program.
    match plain::family(packet)? {
        Family::V4 => decide_key::<true, T>(&plain::ipv4(packet, shape)?, tables),
        Family::V6 => decide_key::<true, T>(&plain::ipv6(packet, shape)?, tables),
    }
}

/// Decides the fate of any frame, a plain one as well. `see` is told what was read
/// of it.
#[inline(always)]
pub fn decide_any<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    see: impl FnOnce(&Key, &Place),
) -> Outcome {
    match parse_with_place(packet) {
        Ok((key, place)) => {
            see(&key, &place);
            decide_key::<false, T>(&key, tables).unwrap_or(Outcome::BROKEN)
        }
        Err(no_key) => without_key(no_key, tables),
    }
}

/// Whether the rules drop a packet, though it may pass as part of a flow. What
/// can't be told is no such packet.
#[inline(always)]
pub fn drops_statefully<T: Tables>(key: &Key, tables: &T) -> bool {
    decide_key::<true, T>(key, tables).is_some_and(Outcome::drops_statefully)
}

/// What happens to a packet that rules speak about. `None` where a table is
/// too short.
#[inline(always)]
fn decide_key<const PLAIN: bool, T: Tables>(key: &Key, tables: &T) -> Option<Outcome> {
    let decision = decision::<PLAIN, T>(key, tables)?;
    let notes = tables.constant::<{ at::NOTES }, 0, 0>();
    if notes == NONE || decision & NOTED == 0 {
        return Some(settle(key, decision, tables));
    }
    let record = notes.wrapping_add(decision & !NOTED);
    let mut outcome = settle(key, tables.word(record)?, tables);
    outcome.notes = record.wrapping_add(1);
    Some(outcome)
}

/// The word of the decision table for `key`. `None` where a table is too
/// short.
#[inline(always)]
pub fn classify<T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    decision::<false, T>(key, tables)
}

#[inline(always)]
fn decision<const PLAIN: bool, T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    let l4 = l4_class::<PLAIN, T>(key, tables)?;
    let l4 = with_source_port(l4, key, tables)?;
    // Apart, so that the verifier knows the tables of each and deletes what it
    // has none of.
    match key.family {
        Family::V4 => {
            let src = lanes::class::<{ at::V4 }, { at::SRC }, T>(key.src, tables)?;
            let dst = lanes::class::<{ at::V4 }, { at::DST }, T>(key.dst, tables)?;
            combine::<{ at::V4 }, PLAIN, T>(src, dst, l4, key, tables)
        }
        Family::V6 => {
            let src = trie::class::<{ at::V6 }, { at::SRC }, T>(key.src, tables)?;
            let dst = trie::class::<{ at::V6 }, { at::DST }, T>(key.dst, tables)?;
            combine::<{ at::V6 }, PLAIN, T>(src, dst, l4, key, tables)
        }
    }
}

/// The decision for classes of addresses and of an L4 header.
#[inline(always)]
fn combine<const FAMILY: usize, const PLAIN: bool, T: Tables>(
    src: u32,
    dst: u32,
    l4: u32,
    key: &Key,
    tables: &T,
) -> Option<u32> {
    if !T::SMALL && is_set(flags::PARTS, tables) {
        let sport = if is_set(flags::SOURCE_PORTS, tables) {
            sport_class(key, tables)?
        } else {
            0
        };
        let l4 = parts::L4Classes { l4, sport };
        return parts::decision::<FAMILY, PLAIN, T>(src, dst, l4, tables);
    }
    let pairs = tables.constant::<FAMILY, { at::PAIRS }, 0>();
    let mut pair = src.wrapping_add(dst);
    if pairs != NONE {
        pair = tables.word(pairs.wrapping_add(pair))?;
    }
    let decisions = tables.constant::<FAMILY, { at::DECISIONS }, 0>();
    tables.word(decisions.wrapping_add(pair).wrapping_add(l4))
}

/// The class of an L4 header, its source port apart. `PLAIN`: it was read.
#[inline(always)]
fn l4_class<const PLAIN: bool, T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    let protocols = tables.constant::<{ at::PROTOCOLS }, 0, 0>();
    let entry = tables.word(protocols.wrapping_add(key.fields.row()))?;
    if !PLAIN && key.fields.l4() != L4::Read {
        return Some(entry);
    }
    class16::<{ at::SELECTORS }, T>(entry, key.fields.selector(), tables)
}

/// The class of a value of 16 bits (see [`crate::abi::Table16`]); `heads` is where
/// its blocks are said.
#[inline(always)]
fn class16<const TABLE: usize, T: Tables>(heads: u32, value: u16, tables: &T) -> Option<u32> {
    let [upper, lower] = value.to_be_bytes();
    let block = tables.half(heads.wrapping_add(upper.into()))?;
    let blocks = tables.constant::<TABLE, { at::BLOCKS }, 0>();
    let index = blocks.wrapping_add(u32::from(block) << 8 | u32::from(lower));
    let width = tables.constant::<TABLE, { at::WIDTH }, 0>();
    element(index, width, tables)
}

/// The element of this width at an index, counted in such.
#[inline(always)]
fn element<T: Tables>(index: u32, width: u32, tables: &T) -> Option<u32> {
    match width {
        WIDTH_BYTE => tables.byte(index).map(u32::from),
        WIDTH_HALF => tables.half(index).map(u32::from),
        _ => tables.word(index),
    }
}

/// The class of the L4 header with its source port, where the two are joined.
#[inline(always)]
fn with_source_port<T: Tables>(l4: u32, key: &Key, tables: &T) -> Option<u32> {
    let joint = tables.constant::<{ at::JOINT }, 0, 0>();
    if joint == NONE {
        return Some(l4);
    }
    let class = sport_class(key, tables)?;
    let row = l4.wrapping_mul(tables.constant::<{ at::SOURCE_PORT_CLASSES }, 0, 0>());
    tables.word(joint.wrapping_add(row).wrapping_add(class))
}

#[inline(always)]
fn sport_class<T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    let heads = tables.constant::<{ at::SOURCE_PORT_HEADS }, 0, 0>();
    if heads == NONE {
        return Some(0);
    }
    class16::<{ at::SOURCE_PORTS }, T>(heads, key.fields.sport(), tables)
}

/// The outcome of a decision, which may depend on more than classes say.
#[inline(always)]
fn settle<T: Tables>(key: &Key, decision: u32, tables: &T) -> Outcome {
    if decision & DECIDE_ASK == 0 {
        return Outcome::of(decision);
    }
    if decision & DECIDE_DEFAULT != 0 {
        return if decision & DECIDE_DROP == 0 {
            Outcome::pass(Reason::DefaultAllow).stateful_as(decision)
        } else if is_set(flags::ESSENTIALS, tables)
            && let Some(kind) = essential(key, is_set(flags::EGRESS, tables))
            && is_set(flags::essential(kind), tables)
        {
            Outcome::essential(kind)
        } else {
            Outcome::drop(Reason::DefaultDeny).stateful_as(decision)
        };
    }
    Outcome::drop(match key.fields.l4() {
        L4::LaterFragment => Reason::Fragment,
        L4::Unreadable => Reason::UnreadableL4,
        // The compiler gives no such decision to a header that was read.
        L4::Read => Reason::Internal,
    })
}

/// ICMP type 3, code 4 (RFC 1191).
const FRAGMENTATION_NEEDED: u16 = 0x0304;
/// The ports of DHCP (RFC 2131) and `DHCPv6` (RFC 8415) that clients listen on.
const CLIENTS: [u16; 2] = [68, 546];
/// Those that servers listen on.
const SERVERS: [u16; 2] = [67, 547];

/// The kind of essentials that a packet is of, if it is one: what default deny must not
/// break.
#[inline(always)]
fn essential(key: &Key, egress: bool) -> Option<Essential> {
    // Only the unknown protocol does not fit, and it is none of these.
    let proto = u8::try_from(key.fields.proto()).ok()?;
    // By its number alone: a later fragment of it as well.
    if key.family == Family::V4 && proto == l4::IGMP {
        return Some(Essential::Igmp);
    }
    if key.fields.l4() != L4::Read {
        return None;
    }
    let selector = key.fields.selector();
    let [dhcp, dhcpv6] = if egress { SERVERS } else { CLIENTS };
    match (key.family, proto) {
        (Family::V4, l4::ICMP) if selector == FRAGMENTATION_NEEDED => Some(Essential::PathMtu),
        (Family::V4, l4::UDP) if selector == dhcp => Some(Essential::Dhcp),
        (Family::V6, l4::UDP) if selector == dhcpv6 => Some(Essential::Dhcpv6),
        (Family::V6, l4::ICMPV6) => match selector >> 8 {
            1..=4 => Some(Essential::Icmpv6Errors),
            130..=132 | 143 => Some(Essential::Mld),
            133..=137 if key.fields.hop_limit() == 255 => Some(Essential::NeighbourDiscovery),
            _ => None,
        },
        _ => None,
    }
}

#[inline(always)]
fn without_key<T: Tables>(no_key: NoKey, tables: &T) -> Outcome {
    let is_set = |flag: u32| is_set(flag, tables);
    match no_key {
        NoKey::Malformed => Outcome::drop(Reason::Malformed),
        NoKey::TinyFragment => Outcome::drop(Reason::TinyFragment),
        NoKey::Ipv6Extension => Outcome::drop(Reason::Ipv6Extension),
        NoKey::VlanDepth => Outcome::drop(Reason::VlanDepth),
        NoKey::Internal => Outcome::drop(Reason::Internal),
        NoKey::Encapsulated if !is_set(flags::PASS_ENCAPSULATED) => {
            Outcome::drop(Reason::Encapsulated)
        }
        NoKey::Arp
            if is_set(flags::essential(Essential::Arp))
                && is_set(flags::DEFAULT_DENY | flags::DROP_NON_IP) =>
        {
            Outcome::essential(Essential::Arp)
        }
        NoKey::Encapsulated | NoKey::Arp | NoKey::NotIp if is_set(flags::DROP_NON_IP) => {
            Outcome::drop(Reason::NotIp)
        }
        NoKey::Encapsulated | NoKey::Arp | NoKey::NotIp => Outcome::pass(Reason::NotIp),
    }
}
