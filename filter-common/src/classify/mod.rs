//! Key → outcome, over tables whose cost does not depend on the number of
//! rules: each dimension of the packet is mapped to its equivalence class,
//! and the classes to the decision.

pub mod parts;
mod trie;

use crate::abi::{
    DECIDE_ALLOW, DECIDE_DEFAULT_ALLOW, DECIDE_DEFAULT_DENY, DECIDE_DENY, DECIDE_FAILSAFE,
    DECIDE_UNDECIDABLE, DECISION_KIND, FamilyLayout, LEVELS_PORT, LEVELS_V4, LEVELS_V6, Line, NONE,
    NOTED, REASON_COUNTERS, Root, flags, reason_counter,
};
use crate::packet::Packet;
use crate::parse::{Address, Family, Key, L4, NoKey, parse};
use crate::verdict::{Reason, Verdict};
use crate::wire::l4;

/// The compiled tables: maps on the kernel's side, bytes on the host's.
pub trait Tables {
    /// The word at `index`; `None` beyond the end, which no compiled image
    /// asks for.
    fn word(&self, index: u32) -> Option<u32>;

    /// The line with this number; `None` likewise.
    fn line(&self, number: u32) -> Option<&Line>;

    /// Where the tables of `family` are.
    fn family(&self, family: Family) -> FamilyLayout;

    /// [`crate::abi::Layout::protocols`].
    fn protocols(&self) -> u32;

    /// [`crate::abi::Layout::decisions`].
    fn decisions(&self) -> u32;

    /// [`crate::abi::Layout::l4_classes`].
    fn l4_classes(&self) -> u32;

    /// [`crate::abi::Layout::source_ports`].
    fn source_ports(&self) -> Root;

    /// [`crate::abi::Layout::joint`].
    fn joint(&self) -> u32;

    /// [`crate::abi::Layout::source_port_classes`].
    fn source_port_classes(&self) -> u32;

    /// [`crate::abi::Layout::notes`].
    fn notes(&self) -> u32;

    /// [`crate::abi::Layout::flags`].
    fn flags(&self) -> u32;
}

/// What was decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happens to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The index of the rule that decided; [`NONE`] where none did.
    pub rule: u32,
    /// The word with the number of noted rules, behind which they stand;
    /// [`NONE`] where there are none.
    pub notes: u32,
}

impl Outcome {
    /// A look-up that must succeed didn't.
    pub const BROKEN: Self = Self::drop(Reason::Internal);

    #[inline(always)]
    const fn by_rule(verdict: Verdict, reason: Reason, rule: u32) -> Self {
        Self {
            verdict,
            reason,
            rule,
            notes: NONE,
        }
    }

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self::by_rule(Verdict::Pass, reason, NONE)
    }

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self::by_rule(Verdict::Drop, reason, NONE)
    }

    /// The counter that counts this packet.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        if self.rule == NONE {
            reason_counter(self.reason, self.verdict)
        } else {
            REASON_COUNTERS + self.rule
        }
    }
}

/// Decides the fate of a frame.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Outcome {
    match parse(packet) {
        Ok(key) => decide_key(&key, tables).unwrap_or(Outcome::BROKEN),
        Err(no_key) => without_key(no_key, tables.flags()),
    }
}

/// What happens to a packet that rules speak about. `None` where a table is
/// too short.
#[inline(always)]
fn decide_key<T: Tables>(key: &Key, tables: &T) -> Option<Outcome> {
    let decision = classify(key, tables)?;
    if tables.notes() == NONE || decision & NOTED == 0 {
        return Some(outcome(key, decision, tables.flags()));
    }
    let record = tables.notes().wrapping_add(decision & !NOTED);
    let mut outcome = outcome(key, tables.word(record)?, tables.flags());
    outcome.notes = record.wrapping_add(1);
    Some(outcome)
}

/// The word of the decision table for `key`. `None` where a table is too
/// short.
#[inline(always)]
pub fn classify<T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    let l4 = whole_l4_class(key, tables)?;
    // Apart, so that the verifier knows the tables of each and deletes what it
    // has none of.
    match key.family {
        Family::V4 => combine::<LEVELS_V4, T>(key, l4, tables.family(Family::V4), tables),
        Family::V6 => combine::<LEVELS_V6, T>(key, l4, tables.family(Family::V6), tables),
    }
}

/// The decision for the addresses of a key and an L4 class.
#[inline(always)]
fn combine<const LEVELS: usize, T: Tables>(
    key: &Key,
    l4: u32,
    family: FamilyLayout,
    tables: &T,
) -> Option<u32> {
    let src = trie::class::<LEVELS, T>(key.src, family.src, tables)?;
    let dst = trie::class::<LEVELS, T>(key.dst, family.dst, tables)?;
    if tables.flags() & flags::PARTS != 0 {
        let sport = if tables.flags() & flags::SOURCE_PORTS == 0 {
            0
        } else {
            sport_class(key, tables)?
        };
        let l4 = parts::L4Classes { l4, sport };
        return parts::decision(src, dst, l4, family.parts, tables);
    }
    let pair = if family.pairs == NONE {
        src.wrapping_add(dst).wrapping_add(family.pair_offset)
    } else {
        let row = src.wrapping_mul(family.dst_classes);
        tables.word(family.pairs.wrapping_add(row).wrapping_add(dst))?
    };
    let row = pair.wrapping_mul(tables.l4_classes());
    tables.word(tables.decisions().wrapping_add(row).wrapping_add(l4))
}

/// The class of the L4 header, source port and all.
#[inline(always)]
fn whole_l4_class<T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    // Where the header was not read, the entry is the class.
    let root = Root {
        table: NONE,
        entry: tables.word(tables.protocols().wrapping_add(key.fields.row()))?,
    };
    let selector = Address::port(key.fields.selector());
    let l4 = trie::class::<LEVELS_PORT, T>(selector, root, tables)?;
    if tables.joint() == NONE {
        return Some(l4);
    }
    let class = sport_class(key, tables)?;
    tables.word(
        tables
            .joint()
            .wrapping_add(l4.wrapping_mul(tables.source_port_classes()))
            .wrapping_add(class),
    )
}

#[inline(always)]
fn sport_class<T: Tables>(key: &Key, tables: &T) -> Option<u32> {
    let sport = Address::port(key.fields.sport());
    trie::class::<LEVELS_PORT, T>(sport, tables.source_ports(), tables)
}

#[inline(always)]
fn outcome(key: &Key, decision: u32, flags: u32) -> Outcome {
    let rule = decision & !DECISION_KIND;
    match decision & DECISION_KIND {
        DECIDE_DENY => Outcome::by_rule(Verdict::Drop, Reason::PolicyDeny, rule),
        DECIDE_ALLOW => Outcome::by_rule(Verdict::Pass, Reason::PolicyAllow, rule),
        DECIDE_FAILSAFE => Outcome::by_rule(Verdict::Pass, Reason::Failsafe, rule),
        DECIDE_UNDECIDABLE => Outcome::drop(match key.fields.l4() {
            L4::LaterFragment => Reason::Fragment,
            L4::Unreadable => Reason::UnreadableL4,
            // The compiler gives no such decision to a header that was read.
            L4::Read => Reason::Internal,
        }),
        DECIDE_DEFAULT_ALLOW => Outcome::pass(Reason::DefaultAllow),
        // Where nothing is denied by default the verifier deletes this.
        DECIDE_DEFAULT_DENY if flags & flags::DEFAULT_DENY != 0 => {
            if flags & flags::ESSENTIALS != 0 && is_essential(key) {
                Outcome::pass(Reason::Essential)
            } else {
                Outcome::drop(Reason::DefaultDeny)
            }
        }
        _ => Outcome::drop(Reason::Internal),
    }
}

/// ICMP type 3, code 4 (RFC 1191).
const FRAGMENTATION_NEEDED: u16 = 0x0304;
/// The port that DHCP clients listen on (RFC 2131).
const DHCP_CLIENT: u16 = 68;
/// The port that DHCPv6 clients listen on (RFC 8415).
const DHCPV6_CLIENT: u16 = 546;

/// What default deny must not break: neighbour discovery (RFC 4861, with hop
/// limit 255 only), MLD (RFC 2710, 3810), path-MTU discovery and the errors
/// of RFC 4890 4.3.1, IGMP, and the answers of DHCP and DHCPv6 servers.
#[inline(always)]
fn is_essential(key: &Key) -> bool {
    // Only the unknown protocol does not fit, and it is none of these.
    let Ok(proto) = u8::try_from(key.fields.proto()) else {
        return false;
    };
    // By its number alone: a later fragment of it as well.
    if key.family == Family::V4 && proto == l4::IGMP {
        return true;
    }
    if key.fields.l4() != L4::Read {
        return false;
    }
    match (key.family, proto) {
        (Family::V4, l4::ICMP) => key.fields.selector() == FRAGMENTATION_NEEDED,
        (Family::V4, l4::UDP) => key.fields.selector() == DHCP_CLIENT,
        (Family::V6, l4::UDP) => key.fields.selector() == DHCPV6_CLIENT,
        (Family::V6, l4::ICMPV6) => match key.fields.selector() >> 8 {
            1..=4 | 130..=132 | 143 => true,
            133..=137 => key.fields.hop_limit() == 255,
            _ => false,
        },
        _ => false,
    }
}

#[inline(always)]
fn without_key(no_key: NoKey, flags: u32) -> Outcome {
    let essentials = flags & flags::ESSENTIALS != 0;
    match no_key {
        NoKey::Malformed => Outcome::drop(Reason::Malformed),
        NoKey::TinyFragment => Outcome::drop(Reason::TinyFragment),
        NoKey::Ipv6Extension => Outcome::drop(Reason::Ipv6Extension),
        NoKey::VlanDepth => Outcome::drop(Reason::VlanDepth),
        NoKey::Internal => Outcome::drop(Reason::Internal),
        NoKey::Encapsulated if flags & flags::PASS_ENCAPSULATED == 0 => {
            Outcome::drop(Reason::Encapsulated)
        }
        NoKey::Arp if essentials && flags & (flags::DEFAULT_DENY | flags::DROP_NON_IP) != 0 => {
            Outcome::pass(Reason::Essential)
        }
        NoKey::Encapsulated | NoKey::Arp | NoKey::NotIp if flags & flags::DROP_NON_IP != 0 => {
            Outcome::drop(Reason::NotIp)
        }
        NoKey::Encapsulated | NoKey::Arp | NoKey::NotIp => Outcome::pass(Reason::NotIp),
    }
}
