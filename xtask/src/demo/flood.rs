//! The packets of the flood, each with what must become of it.

use tests::lab::Sent;
use tests::packet::{Ethernet, Extension, Ipv4, Ipv6, Packet, Tcp, Udp, ethertype};

use super::stats::Stats;

/// What the policy makes of a packet.
#[derive(Clone, Copy)]
enum Fate {
    /// Denied by the rule at this index.
    Rule(usize),
    /// Dropped: a later fragment, whose ports nobody can see.
    Fragment,
    /// Passes.
    Pass,
}

/// By the policy's rule on TCP.
const TCP: Fate = Fate::Rule(0);
/// By the policy's rule on UDP.
const UDP: Fate = Fate::Rule(1);

/// The frames and their fates.
pub(super) struct Mix {
    frames: Vec<Vec<u8>>,
    fates: Vec<Fate>,
}

impl Mix {
    pub(super) fn new() -> Self {
        let mut mix = Self {
            frames: Vec::new(),
            fates: Vec::new(),
        };
        // Node ports: an everyday one, the last, and one in the middle.
        for port in [30080, 32767, 31000] {
            mix.add(TCP, &[], &Ipv4::default().carry(&Tcp::to(port)));
            mix.add(UDP, &[], &Ipv4::default().carry(&Udp::to(port)));
        }
        // The ports after one word of IPv4 options, and after the most.
        for length in [4, 40] {
            let ip = Ipv4 {
                options: vec![1; length],
                ..Ipv4::default()
            };
            mix.add(TCP, &[], &ip.carry(&Tcp::to(30080)));
        }
        // Behind one and two VLAN tags.
        let (inner, outer) = (ethertype::VLAN, ethertype::SERVICE_VLAN);
        let packet = Ipv4::default().carry(&Udp::to(30080));
        mix.add(UDP, &[inner], &packet);
        let packet = Ipv4::default().carry(&Tcp::to(32767));
        mix.add(TCP, &[outer, inner], &packet);
        // The first fragment shows its ports, the second does not.
        let packet = Ipv4::fragment(0, true).carry(&Udp::to(31000));
        mix.add(UDP, &[], &packet);
        let packet = Ipv4::fragment(2, false).carry(&Udp::to(31000));
        mix.add(Fate::Fragment, &[], &packet);
        // IPv6, and IPv6 behind a hop-by-hop header.
        mix.add(TCP, &[], &Ipv6::default().carry(&Tcp::to(30080)));
        mix.add(UDP, &[], &Ipv6::default().carry(&Udp::to(32767)));
        let ip = Ipv6::with([Extension::hop_by_hop()]);
        mix.add(TCP, &[], &ip.carry(&Tcp::to(30000)));
        // The ports on either side of the range, and one far from it.
        for port in [29999, 32768, 8080] {
            mix.add(Fate::Pass, &[], &Ipv4::default().carry(&Udp::to(port)));
        }
        mix
    }

    fn add(&mut self, fate: Fate, tags: &[u16], packet: &Packet) {
        let ethernet = Ethernet {
            // What a network card would not send shorter.
            pad_to: 60,
            ..Ethernet::default()
        };
        self.frames.push(ethernet.tagged(tags).carry(packet));
        self.fates.push(fate);
    }

    pub(super) fn kinds(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }

    /// What the counters must say after `sent`.
    pub(super) fn expected(&self, sent: &Sent) -> Stats {
        let mut stats = Stats::default();
        for (index, fate) in self.fates.iter().enumerate() {
            let packets = sent.of(index);
            match fate {
                Fate::Rule(rule) => stats.rules[*rule] += packets,
                Fate::Fragment => stats.fragment += packets,
                Fate::Pass => stats.passed += packets,
            }
        }
        stats.dropped = stats.rules.iter().sum::<u64>() + stats.fragment;
        stats
    }
}
