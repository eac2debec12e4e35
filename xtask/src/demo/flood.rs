//! The packets of the flood, each with what must become of it.

use tests::lab::Sent;
use tests::lab::frame::Segment::{Tcp, Udp, UdpRest};
use tests::lab::frame::{tagged, v4, v6};

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
    kinds: usize,
}

/// How many sources each kind of packet comes from.
const SOURCES: u8 = 8;

impl Mix {
    pub(super) fn new() -> Self {
        let mut mix = Self {
            frames: Vec::new(),
            fates: Vec::new(),
            kinds: 0,
        };
        // Node ports: an everyday one, the last, and one in the middle.
        for port in [30080, 32767, 31000] {
            mix.add(TCP, |source| v4(source, &[], 0, Tcp(port)));
            mix.add(UDP, |source| v4(source, &[], 0, Udp(port)));
        }
        // The ports after one word of IPv4 options, and after the most.
        mix.add(TCP, |source| v4(source, &[1; 4], 0, Tcp(30080)));
        mix.add(TCP, |source| v4(source, &[1; 40], 0, Tcp(30080)));
        // Behind one and two VLAN tags.
        mix.add(UDP, |source| {
            tagged(&[0x8100], &v4(source, &[], 0, Udp(30080)))
        });
        mix.add(TCP, |source| {
            tagged(&[0x88a8, 0x8100], &v4(source, &[], 0, Tcp(32767)))
        });
        // The first fragment shows its ports, the second does not.
        mix.add(UDP, |source| v4(source, &[], 0x2000, Udp(31000)));
        mix.add(Fate::Fragment, |source| v4(source, &[], 0x0005, UdpRest));
        // IPv6, and IPv6 behind a hop-by-hop header.
        mix.add(TCP, |source| v6(source, false, Tcp(30080)));
        mix.add(UDP, |source| v6(source, false, Udp(32767)));
        mix.add(TCP, |source| v6(source, true, Tcp(30000)));
        // The ports on either side of the range, and one far from it.
        for port in [29999, 32768, 8080] {
            mix.add(Fate::Pass, |source| v4(source, &[], 0, Udp(port)));
        }
        mix
    }

    fn add(&mut self, fate: Fate, make: impl Fn(u8) -> Vec<u8>) {
        self.kinds += 1;
        for source in 0..SOURCES {
            self.frames.push(make(source));
            self.fates.push(fate);
        }
    }

    pub(super) fn kinds(&self) -> usize {
        self.kinds
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
