//! What the kernel program reports of a packet: a record in a ring buffer.

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
    /// The rule that reports it, by its index in the ruleset.
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
    /// The frame's first bytes, from the Ethernet header on.
    pub header: [u8; HEADER],
}

/// The budget of one CPU, and what did not fit in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Budget {
    /// The window that [`Self::spent`] is about: jiffies >> [`WINDOW_SHIFT`].
    pub window: u64,
    /// Events reported in it.
    pub spent: u64,
    /// Events that were beyond the budget, since the program was loaded.
    pub over_budget: u64,
    /// Events for which the ring had no room.
    pub ring_full: u64,
}

/// A window has 2^5 jiffies: 0.13 s at 250 Hz, 0.03 s at 1000 Hz.
pub const WINDOW_SHIFT: u32 = 5;
/// Events that a CPU may report in a window: 2,000 a second at 250 Hz. Beyond
/// it a packet costs a look-up of its CPU's budget, and no clock is read.
pub const EVENTS_PER_WINDOW: u64 = 256;
/// Bytes of the ring where rules report something: 1,560 events with the 8
/// bytes that the kernel puts before each.
pub const RING_BYTES: u32 = 256 << 10;

const _: () = {
    assert!(size_of::<Event>() == 160);
    assert!(size_of::<Budget>() == 32);
    assert!(RING_BYTES.is_power_of_two());
};
