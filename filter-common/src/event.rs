//! What the kernel program reports of a packet: a record in a ring buffer.

pub mod filter;

use bytemuck::{Pod, Zeroable};

/// Bytes of a frame that an event holds at most: Ethernet, two tags, IPv6 with
/// a chain of usual length, and the L4 header.
pub const HEADER: usize = 128;

/// Why a packet is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A Log rule matched it.
    Log = 1,
    /// It was dropped, and this is a sample of such.
    Drop = 2,
}

impl Kind {
    /// The kind that an event says it is of.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Log),
            2 => Some(Self::Drop),
            _ => None,
        }
    }
}

/// One reported packet. Numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot, suspension counted (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// The interface it arrived at.
    pub ifindex: u32,
    /// Bytes of the frame, without FCS.
    pub length: u32,
    /// The rule that reports it, by its index in the ruleset; of a dropped
    /// packet the same as [`Self::decided_by`].
    pub rule: u32,
    /// The rule that decided; [`crate::abi::NONE`] where none did.
    pub decided_by: u32,
    /// Bytes of [`Self::header`] that are the frame's.
    pub captured: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
    /// 0 pass, 1 drop.
    pub verdict: u8,
    /// Zero.
    pub unused: [u8; 3],
    /// Of a dropped packet: how many were dropped on its CPU since the one
    /// reported before it, itself included. All of them, and what is lost
    /// behind the last one, are the packets that were dropped. Where a
    /// [filter](filter::Filter) is set, all this is of the wanted ones alone.
    pub stands_for: u64,
    /// The frame's first bytes, from the Ethernet header on.
    pub header: [u8; HEADER],
}

/// The budget of one CPU for one [`Kind`], and what did not fit in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Budget {
    /// The jiffy of [`Self::debt`].
    pub then: u64,
    /// What the events reported so far have cost, and time has not paid off: an event
    /// costs [`Rate::jiffies`], a jiffy pays [`Rate::events`].
    pub debt: u64,
    /// Events that were beyond the budget, since the program was loaded.
    pub over_budget: u64,
    /// Events for which the ring had no room.
    pub ring_full: u64,
    /// What was lost when the last event was reported, or the filter was set.
    pub lost_then: u64,
    /// The [head](filter::Filter::head) of the filter that the last packet met.
    pub filter: u64,
}

impl Budget {
    /// Events that were not reported.
    #[inline(always)]
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.over_budget.wrapping_add(self.ring_full)
    }

    /// Whether an event in the jiffy `now` is within the budget; it is taken
    /// from it, or counted as beyond it. Under another filter than before, which has
    /// the head `filter`, all begins anew: what was spent and lost was of packets
    /// that others asked for.
    #[inline(always)]
    pub const fn take(&mut self, now: u64, rate: Rate, filter: u64) -> bool {
        if self.filter != filter {
            self.filter = filter;
            self.debt = 0;
            self.lost_then = self.lost();
        }
        let passed = now.wrapping_sub(self.then);
        self.then = now;
        // After so long any debt is paid, and no product is too large.
        let paid = match passed >> u32::BITS {
            0 => passed * rate.events as u64,
            _ => u64::MAX,
        };
        self.debt = self.debt.saturating_sub(paid);
        let within = self.debt <= rate.credit();
        if within {
            self.debt += rate.jiffies as u64;
        } else {
            self.over_budget += 1;
        }
        within
    }
}

/// How many events a CPU may report: `events` in `jiffies`, in the long run. Where fewer
/// came for a while, as many at once: few packets are all reported, and a flood gives a
/// bounded number. Beyond it a packet costs a look-up of its CPU's budget, and no
/// clock is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rate {
    /// Events; 0 where nothing of the kind is reported.
    pub events: u32,
    /// In so many jiffies.
    pub jiffies: u32,
}

impl Rate {
    /// Of what rules report: 2,000 a second at 250 Hz.
    pub const RULES: Self = Self {
        events: 256,
        jiffies: 32,
    };
    /// Nothing.
    pub const OFF: Self = Self {
        events: 0,
        jiffies: 0,
    };

    /// `events` a second where a second has `hz` jiffies.
    #[must_use]
    pub const fn per_second(events: u32, hz: u32) -> Self {
        if events == 0 || hz == 0 {
            return Self::OFF;
        }
        Self {
            events,
            jiffies: hz,
        }
    }

    /// The debt with which one more event is within the budget.
    #[inline(always)]
    const fn credit(self) -> u64 {
        (self.events as u64 - 1) * self.jiffies as u64
    }
}

/// Where the budget of what rules report is in the map of budgets.
pub const OF_RULES: u32 = 0;
/// Where the budget of dropped packets is.
pub const OF_DROPS: u32 = 1;
/// How many there are.
pub const BUDGETS: u32 = 2;
/// Bytes of the ring where something is reported: 1,489 events with the 8
/// bytes that the kernel puts before each.
pub const RING_BYTES: u32 = 256 << 10;

const _: () = {
    assert!(size_of::<Event>() == 168);
    assert!(size_of::<Budget>() == 48);
    assert!(RING_BYTES.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_a_second() {
        let rate = |events, jiffies| Rate { events, jiffies };
        assert_eq!(Rate::per_second(0, 250), Rate::OFF);
        assert_eq!(Rate::per_second(100, 250), rate(100, 250));
    }

    #[test]
    fn a_flood_gives_the_rate_and_few_packets_give_all() {
        let rate = Rate::per_second(100, 250);
        let mut budget = Budget::default();
        let mut second = |begin: u64, packets: u64| {
            let given = (begin..begin + 250).map(|now| {
                let given = (0..packets).filter(|_| budget.take(now, rate, 0));
                given.count()
            });
            given.sum::<usize>()
        };
        // At first what nobody has used, beside what each jiffy gives.
        assert_eq!(second(1_000, 10), 199);
        assert_eq!(second(1_250, 10), 100);
        // A pause of a tenth of a second gives ten.
        assert_eq!(second(1_525, 10), 110);
        // Never more than a second's worth, however long the pause was.
        assert_eq!(second(u64::MAX / 2, 1_000), 199);
        // Few at once, and then none for a while: all of them.
        budget = Budget::default();
        assert!((0..100).all(|_| budget.take(77, rate, 0)));
        assert!(!budget.take(77, rate, 0) && !budget.take(79, rate, 0));
        assert!(budget.take(80, rate, 0));
        assert_eq!(budget.lost(), 2);
    }

    #[test]
    fn another_filter_begins_anew() {
        let rate = Rate {
            events: 1,
            jiffies: 1_000,
        };
        let mut budget = Budget::default();
        assert!(budget.take(1_000, rate, 0) && !budget.take(1_000, rate, 0));
        assert_eq!((budget.lost(), budget.lost_then), (1, 0));
        // At once, and what was lost before is not told of what it asks for.
        assert!(budget.take(1_001, rate, 7) && !budget.take(1_001, rate, 7));
        assert_eq!((budget.lost(), budget.lost_then), (2, 1));
        assert!(budget.take(1_001, rate, 0));
        assert_eq!(budget.lost_then, 2);
    }
}
