//! Which packets a reader asks for: what is asked in the kernel, before a packet takes
//! from the budget, so that what nobody wants drowns nothing.
//!
//! It is a superset: of a packet that does not show what is asked for (a protocol
//! behind a chain of extension headers, say), the reader is told, and judges for itself.
//! So this reads headers as far as they go, also those of packets that are dropped
//! because a header contradicts the frame, and takes nothing for unwanted but what surely
//! is. The reader has the first [`HEADER`](super::HEADER) bytes and reads no more.

use bytemuck::{Pod, Zeroable};

use crate::packet::Packet;
use crate::parse::{Address, Family};
use crate::verdict::Reason;
use crate::wire::ip::{v4, v6};
use crate::wire::{be16, ethernet, l4};

/// [`Criteria::asked`].
pub mod asked {
    /// The reason is one of [`super::Criteria::reasons`].
    pub const REASONS: u32 = 1;
    /// The rule that reports the packet is one of [`super::Criteria::rules`].
    pub const RULES: u32 = 1 << 1;
    /// The protocol is [`super::Criteria::proto`].
    pub const PROTO: u32 = 1 << 2;
    /// The source or destination port is [`super::Criteria::port`].
    pub const PORT: u32 = 1 << 3;
    /// The source is in [`super::Criteria::src`], which is of IPv4.
    pub const SRC_V4: u32 = 1 << 4;
    /// The same, which is of IPv6.
    pub const SRC_V6: u32 = 1 << 5;
    /// The destination is in [`super::Criteria::dst`], which is of IPv4.
    pub const DST_V4: u32 = 1 << 6;
    /// The same, which is of IPv6.
    pub const DST_V6: u32 = 1 << 7;
    /// What the packet itself has to say.
    pub const HEADERS: u32 = PROTO | PORT | SRC_V4 | SRC_V6 | DST_V4 | DST_V6;
}

/// A network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Net {
    /// Its first address.
    pub address: Address,
    /// The bits that are the same in all of its addresses.
    pub mask: Address,
}

impl Net {
    #[inline(always)]
    const fn has(&self, address: Address) -> bool {
        (address.high ^ self.address.high) & self.mask.high
            | (address.low ^ self.address.low) & self.mask.low
            == 0
    }
}

/// What is asked of a packet; all of it must hold. Of the fields, those count alone
/// that [`Self::asked`] names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Criteria {
    /// What is asked ([`asked`]); 0 where every packet is wanted.
    pub asked: u32,
    /// A bit for each wanted [`Reason`], by its number.
    pub reasons: u32,
    /// The first wanted rule, by its index in the ruleset.
    pub first_rule: u32,
    /// How many from there on are wanted.
    pub rules: u32,
    /// Protocol.
    pub proto: u8,
    /// Zero.
    pub unused: u8,
    /// Source or destination port.
    pub port: u16,
    /// Zero.
    pub unused_too: u32,
    /// Source network.
    pub src: Net,
    /// Destination network.
    pub dst: Net,
}

impl Criteria {
    /// Whether a packet is wanted that `rule` reports ([`crate::abi::NONE`]: none does) and
    /// that has this reason, as far as these say.
    #[inline(always)]
    #[must_use]
    pub const fn wants_decision(&self, rule: u32, reason: Reason) -> bool {
        let reason = self.reasons >> (reason as u32) & 1 != 0;
        let rule = rule.wrapping_sub(self.first_rule) < self.rules;
        (self.asked & asked::REASONS == 0 || reason) && (self.asked & asked::RULES == 0 || rule)
    }

    /// Whether a packet is wanted, as far as its headers say.
    #[inline(always)]
    #[must_use]
    pub fn wants_packet<P: Packet>(&self, packet: &P) -> bool {
        if self.asked & asked::HEADERS == 0 {
            return true;
        }
        let Some(mut ethertype) = packet.read(ethernet::ETHERTYPE).map(be16) else {
            return false;
        };
        let mut offset = ethernet::HEADER;
        // One more than rules look through: such a frame is dropped, and reported.
        for _ in 0..=ethernet::MAX_TAGS {
            if !ethernet::is_tag(ethertype) {
                break;
            }
            let Some([_, _, high, low]) = packet.read::<{ ethernet::TAG }>(offset) else {
                return false;
            };
            ethertype = be16([high, low]);
            offset += ethernet::TAG;
        }
        // Bounded, for the verifier.
        let offset = packet.forget(offset) & MAX_LINK_HEADER;
        match ethertype {
            ethernet::IPV4 | ethernet::IPV6 => self.wants_ip(packet, offset),
            // A reader may see what is behind it.
            ethernet::MACSEC => true,
            tag => ethernet::is_tag(tag),
        }
    }

    /// By the version that the header says, whatever the Ethertype does.
    #[inline(always)]
    fn wants_ip<P: Packet>(&self, packet: &P, offset: usize) -> bool {
        match packet.read(offset) {
            Some([first]) if first >> 4 == 4 => self.wants_v4(packet, offset),
            Some([first]) if first >> 4 == 6 => self.wants_v6(packet, offset),
            _ => false,
        }
    }

    #[inline(always)]
    fn wants_v4<P: Packet>(&self, packet: &P, offset: usize) -> bool {
        let Some(header) = packet.read::<{ v4::HEADER }>(offset) else {
            return false;
        };
        let address = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            Address {
                high: u64::from(u32::from_be_bytes(bytes)) << 32,
                low: 0,
            }
        };
        if !self.wants_addresses(Family::V4, address(v4::SOURCE), address(v4::DESTINATION)) {
            return false;
        }
        let proto = header[v4::PROTOCOL];
        // A reader may look through this one in IPv4 as well.
        if proto == v6::AUTHENTICATION {
            return true;
        }
        let fragment = be16([header[v4::FRAGMENT], header[v4::FRAGMENT + 1]]);
        let at = offset + usize::from(header[v4::VERSION_IHL] & 0x0f) * 4;
        let at = (fragment & v4::FRAGMENT_OFFSET == 0).then_some(at);
        self.wants_proto(proto) && self.wants_ports(packet, proto, at)
    }

    #[inline(always)]
    fn wants_v6<P: Packet>(&self, packet: &P, offset: usize) -> bool {
        let Some(header) = packet.read::<{ v6::HEADER }>(offset) else {
            return false;
        };
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let address = |at: usize| Address {
            high: half(at),
            low: half(at + 8),
        };
        if !self.wants_addresses(Family::V6, address(v6::SOURCE), address(v6::DESTINATION)) {
            return false;
        }
        let next = header[v6::NEXT_HEADER];
        let at = offset + v6::HEADER;
        if next != v6::FRAGMENT {
            // Chains are walked by the reader.
            return v6::is_extension(next)
                || self.wants_proto(next) && self.wants_ports(packet, next, Some(at));
        }
        // But not those that fragments begin with: there are floods of them.
        let Some([proto, _, high, low]) = packet.read(at) else {
            return true;
        };
        if v6::is_extension(proto) {
            return true;
        }
        let is_first = be16([high, low]) >> 3 == 0;
        let at = is_first.then_some(at + v6::FRAGMENT_HEADER);
        // Where the packet's length leaves the header out, its number is all there is.
        (self.wants_proto(proto) || self.wants_proto(v6::FRAGMENT))
            && self.wants_ports(packet, proto, at)
    }

    #[inline(always)]
    fn wants_addresses(&self, family: Family, src: Address, dst: Address) -> bool {
        let (asks_src, asks_dst, others) = match family {
            Family::V4 => (asked::SRC_V4, asked::DST_V4, asked::SRC_V6 | asked::DST_V6),
            Family::V6 => (asked::SRC_V6, asked::DST_V6, asked::SRC_V4 | asked::DST_V4),
        };
        self.asked & others == 0
            && (self.asked & asks_src == 0 || self.src.has(src))
            && (self.asked & asks_dst == 0 || self.dst.has(dst))
    }

    #[inline(always)]
    const fn wants_proto(&self, proto: u8) -> bool {
        self.asked & asked::PROTO == 0 || proto == self.proto
    }

    /// The L4 header is at `at`; it is elsewhere where that is `None`.
    #[inline(always)]
    fn wants_ports<P: Packet>(&self, packet: &P, proto: u8, at: Option<usize>) -> bool {
        if self.asked & asked::PORT == 0 {
            return true;
        }
        let Some(at) = at.filter(|_| l4::has_ports(proto)) else {
            return false;
        };
        packet
            .read(at)
            .is_some_and(|[a, b, c, d]| be16([a, b]) == self.port || be16([c, d]) == self.port)
    }
}

/// Bits of the offset at which IP begins.
const MAX_LINK_HEADER: usize = 0x1f;
const _: () =
    assert!(ethernet::HEADER + (ethernet::MAX_TAGS + 1) * ethernet::TAG <= MAX_LINK_HEADER);

/// The criteria that are in force, as the program has them.
///
/// User space changes the criteria while nothing is asked, and between two waits until no
/// program runs that began before; so a program that has seen that something is asked
/// reads criteria that are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Filter {
    /// The lower half: [`Criteria::asked`] of the criteria, or 0 where every packet is
    /// wanted. The upper half: a number that changes with each filter.
    pub head: u64,
    /// What is asked.
    pub criteria: Criteria,
}

impl Filter {
    /// Whether a filter with this head asks for anything.
    #[inline(always)]
    #[must_use]
    pub const fn asks(head: u64) -> bool {
        head << u32::BITS != 0
    }

    /// The next filter, which asks for everything and has these criteria to come.
    #[must_use]
    pub const fn next(&self, criteria: Criteria) -> Self {
        Self {
            head: ((self.head >> u32::BITS).wrapping_add(1)) << u32::BITS,
            criteria,
        }
    }

    /// The next filter, which asks for what its criteria ask.
    #[must_use]
    pub fn armed(&self) -> Self {
        let mut armed = self.next(self.criteria);
        armed.head |= u64::from(armed.criteria.asked);
        armed
    }
}

const _: () = {
    assert!(size_of::<Criteria>() == 88);
    assert!(size_of::<Filter>() == 96);
    assert!(Reason::ALL.len() <= u32::BITS as usize);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NONE;
    use crate::packet::Cursor;

    const V4: usize = ethernet::HEADER;
    const V6: usize = ethernet::HEADER;

    /// UDP 4000 > 53 from 192.0.2.1 to 198.51.100.2.
    fn udp_v4() -> [u8; 42] {
        let mut frame = [0; 42];
        frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        frame[V4] = 0x45;
        frame[V4 + v4::TOTAL_LENGTH + 1] = 28;
        frame[V4 + v4::PROTOCOL] = l4::UDP;
        frame[V4 + v4::SOURCE..][..4].copy_from_slice(&[192, 0, 2, 1]);
        frame[V4 + v4::DESTINATION..][..4].copy_from_slice(&[198, 51, 100, 2]);
        frame[V4 + v4::HEADER..][..4].copy_from_slice(&[0x0f, 0xa0, 0, 53]);
        frame
    }

    /// TCP 4000 > 443 from `2001:db8::1` to `2001:db8:1::2`, behind a fragment header with
    /// this offset (in units of 8 bytes).
    fn fragment_v6(offset: u16) -> [u8; 82] {
        let mut frame = [0; 82];
        frame[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
        frame[V6] = 0x60;
        frame[V6 + v6::PAYLOAD_LENGTH + 1] = 28;
        frame[V6 + v6::NEXT_HEADER] = v6::FRAGMENT;
        frame[V6 + v6::SOURCE..][..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        frame[V6 + v6::SOURCE + 15] = 1;
        frame[V6 + v6::DESTINATION..][..6].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 1]);
        frame[V6 + v6::DESTINATION + 15] = 2;
        let at = V6 + v6::HEADER;
        frame[at] = l4::TCP;
        let field = offset << 3 | v6::MORE_FRAGMENTS;
        frame[at + v6::FRAGMENT_FIELD..][..2].copy_from_slice(&field.to_be_bytes());
        frame[at + v6::FRAGMENT_HEADER..][..4].copy_from_slice(&[0x0f, 0xa0, 1, 0xbb]);
        frame
    }

    fn wants(criteria: &Criteria, frame: &[u8]) -> bool {
        criteria.wants_packet(&Cursor::over(frame))
    }

    fn proto(number: u8) -> Criteria {
        Criteria {
            asked: asked::PROTO,
            proto: number,
            ..Criteria::default()
        }
    }

    fn port(number: u16) -> Criteria {
        Criteria {
            asked: asked::PORT,
            port: number,
            ..Criteria::default()
        }
    }

    /// An IPv4 network of `bits`.
    fn net4(address: [u8; 4], bits: u32) -> Net {
        Net {
            address: Address {
                high: u64::from(u32::from_be_bytes(address)) << 32,
                low: 0,
            },
            mask: Address {
                high: u64::MAX << (u64::BITS - bits),
                low: 0,
            },
        }
    }

    /// The host that has these parts behind `2001:db8`.
    fn host6(third: u64, last: u64) -> Net {
        Net {
            address: Address {
                high: 0x2001_0db8_0000_0000 | third << 16,
                low: last,
            },
            mask: Address {
                high: u64::MAX,
                low: u64::MAX,
            },
        }
    }

    #[test]
    fn nothing_asked_is_everything() {
        let none = Criteria::default();
        for reason in Reason::ALL {
            assert!(none.wants_decision(NONE, *reason) && none.wants_decision(7, *reason));
        }
        assert!(wants(&none, &udp_v4()) && wants(&none, &[]));
    }

    #[test]
    fn reasons_are_a_set() {
        let some = Criteria {
            asked: asked::REASONS,
            reasons: 1 << Reason::Malformed as u32 | 1 << Reason::NotIp as u32,
            ..Criteria::default()
        };
        for reason in Reason::ALL {
            let wanted = matches!(reason, Reason::Malformed | Reason::NotIp);
            assert_eq!(some.wants_decision(NONE, *reason), wanted, "{reason:?}");
        }
    }

    #[test]
    fn rules_are_a_range() {
        let range = |first_rule, rules| Criteria {
            asked: asked::RULES,
            first_rule,
            rules,
            ..Criteria::default()
        };
        let wanted = |of: &Criteria, rule| of.wants_decision(rule, Reason::PolicyDeny);
        let some = range(3, 2);
        let found = [0, 2, 3, 4, 5, NONE].map(|rule| wanted(&some, rule));
        assert_eq!(found, [false, false, true, true, false, false]);
        assert!(wanted(&range(0, 1), 0) && !wanted(&range(0, 1), NONE));
        // Of a policy that has no rule here.
        assert!(!wanted(&range(0, 0), 0));
    }

    #[test]
    fn each_field_is_asked_of_ipv4() {
        let frame = udp_v4();
        for (criteria, wanted) in [
            (proto(l4::UDP), true),
            (proto(l4::TCP), false),
            (port(53), true),
            (port(4000), true),
            (port(54), false),
            (port(0), false),
        ] {
            assert_eq!(wants(&criteria, &frame), wanted, "{criteria:?}");
        }
        for (net, of_src, of_dst) in [
            (net4([192, 0, 2, 1], 32), true, false),
            (net4([192, 0, 2, 0], 24), true, false),
            (net4([192, 0, 2, 2], 32), false, false),
            (net4([198, 51, 100, 2], 32), false, true),
            (net4([198, 51, 100, 4], 30), false, false),
        ] {
            let src = Criteria {
                asked: asked::SRC_V4,
                src: net,
                ..Criteria::default()
            };
            let dst = Criteria {
                asked: asked::DST_V4,
                dst: net,
                ..Criteria::default()
            };
            let found = [wants(&src, &frame), wants(&dst, &frame)];
            assert_eq!(found, [of_src, of_dst], "{net:?}");
        }
        // All of IPv6 is not this.
        for asked in [asked::SRC_V6, asked::DST_V6] {
            let other = Criteria {
                asked,
                ..Criteria::default()
            };
            assert!(!wants(&other, &frame) && wants(&other, &fragment_v6(0)));
        }
    }

    #[test]
    fn each_field_is_asked_of_ipv6() {
        let [first, later] = [0, 1].map(fragment_v6);
        for (criteria, of_first, of_later) in [
            (proto(l4::TCP), true, true),
            (proto(l4::UDP), false, false),
            (proto(v6::FRAGMENT), true, true),
            (port(443), true, false),
            (port(4000), true, false),
            (port(80), false, false),
        ] {
            let found = [&first, &later].map(|frame| wants(&criteria, frame));
            assert_eq!(found, [of_first, of_later], "{criteria:?}");
        }
        for (net, of_src, of_dst) in [
            (host6(0, 1), true, false),
            (host6(1, 2), false, true),
            // One half alone is not enough.
            (host6(0, 2), false, false),
            (host6(1, 1), false, false),
        ] {
            let src = Criteria {
                asked: asked::SRC_V6,
                src: net,
                ..Criteria::default()
            };
            let dst = Criteria {
                asked: asked::DST_V6,
                dst: net,
                ..Criteria::default()
            };
            let found = [wants(&src, &first), wants(&dst, &first)];
            assert_eq!(found, [of_src, of_dst], "{net:?}");
        }
    }

    #[test]
    fn all_that_is_asked_must_hold() {
        let both = Criteria {
            asked: asked::SRC_V4 | asked::PORT | asked::PROTO,
            src: net4([192, 0, 2, 1], 32),
            port: 53,
            proto: l4::UDP,
            ..Criteria::default()
        };
        assert!(wants(&both, &udp_v4()));
        for wrong in [
            Criteria { port: 54, ..both },
            Criteria {
                proto: l4::TCP,
                ..both
            },
            Criteria {
                src: net4([192, 0, 2, 3], 32),
                ..both
            },
        ] {
            assert!(!wants(&wrong, &udp_v4()), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_shown_is_told_or_is_not_there() {
        // Extension headers, and IPv4's one.
        let mut chain = fragment_v6(0);
        chain[V6 + v6::NEXT_HEADER] = v6::HOP_BY_HOP;
        let mut behind = fragment_v6(0);
        behind[V6 + v6::HEADER] = v6::DESTINATION_OPTIONS;
        let mut authentic = udp_v4();
        authentic[V4 + v4::PROTOCOL] = v6::AUTHENTICATION;
        for frame in [&chain[..], &behind, &authentic] {
            assert!(wants(&proto(l4::SCTP), frame) && wants(&port(9), frame));
        }
        // But not an address that it hasn't.
        let src = Criteria {
            asked: asked::SRC_V6 | asked::PROTO,
            src: host6(0, 9),
            ..Criteria::default()
        };
        assert!(!wants(&src, &chain) && !wants(&src, &behind));

        // Tags: three are looked through, and what is behind more of them is told.
        let tagged = |tags: usize| {
            let mut frame = [0; 100];
            let plain = udp_v4();
            frame[..12].copy_from_slice(&plain[..12]);
            for tag in 0..tags {
                frame[12 + 4 * tag..][..2].copy_from_slice(&[0x81, 0]);
            }
            frame[12 + 4 * tags..][..30].copy_from_slice(&plain[12..]);
            frame
        };
        for tags in 0..=3 {
            assert!(wants(&port(53), &tagged(tags)) && !wants(&port(9), &tagged(tags)));
        }
        assert!(wants(&port(9), &tagged(4)));
        let mut secured = udp_v4();
        secured[12..14].copy_from_slice(&ethernet::MACSEC.to_be_bytes());
        assert!(wants(&port(9), &secured));

        // What is not IP, or cut off, has none of it.
        let mut arp = udp_v4();
        arp[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
        assert!(!wants(&port(53), &arp));
        let frame = udp_v4();
        let ports = V4 + v4::HEADER + 4;
        for length in 0..frame.len() {
            let cut = &frame[..length];
            assert_eq!(wants(&port(53), cut), length >= ports, "{length}");
            assert_eq!(wants(&proto(l4::UDP), cut), length >= ports - 4, "{length}");
        }
        // A length that contradicts the frame hides no address.
        let mut malformed = frame;
        malformed[V4 + v4::TOTAL_LENGTH] = 0xff;
        assert!(wants(&port(53), &malformed) && !wants(&port(9), &malformed));
    }

    #[test]
    fn ports_are_where_the_header_is() {
        // Behind options.
        let mut frame = [0; 46];
        frame[..34].copy_from_slice(&udp_v4()[..34]);
        frame[V4] = 0x46;
        frame[38..42].copy_from_slice(&[0, 1, 0, 2]);
        assert!(wants(&port(1), &frame) && wants(&port(2), &frame));
        assert!(!wants(&port(53), &frame));
        // In no later fragment, and in no protocol without.
        let mut later = udp_v4();
        later[V4 + v4::FRAGMENT + 1] = 1;
        assert!(!wants(&port(53), &later) && wants(&proto(l4::UDP), &later));
        let mut ping = udp_v4();
        ping[V4 + v4::PROTOCOL] = l4::ICMP;
        assert!(!wants(&port(53), &ping));
    }

    #[test]
    fn each_filter_has_a_head_of_its_own() {
        let none = Filter::default();
        assert!(!Filter::asks(none.head));
        let coming = none.next(port(53));
        assert!(!Filter::asks(coming.head) && coming.head != none.head);
        let armed = coming.armed();
        assert!(Filter::asks(armed.head) && armed.head != coming.head);
        assert_eq!(armed.criteria, port(53));
        let gone = armed.next(armed.criteria);
        assert!(!Filter::asks(gone.head) && gone.head != coming.head);
        assert_eq!(gone.criteria, armed.criteria);
    }
}
