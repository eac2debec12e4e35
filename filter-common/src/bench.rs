//! What the bench's kernel programs and their loader agree on: the frames
//! that are put before the program that is measured, and the walk over them.

use bytemuck::{Pod, Zeroable};

/// Words of 8 bytes in a line: a cache line.
pub const LINE_WORDS: usize = 8;
/// Lines that a flow takes at most.
pub const MAX_LINES: u32 = 2;

/// A part of the first bytes of a frame. A flow is one line, or two where its
/// header is longer; the frames of a corpus of flows differ in nothing else.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Line(pub [u64; LINE_WORDS]);

/// Where a flow's word stands in the frame: as the fields do, so that none that a
/// program reads lies across two words. The processor forwards what was just
/// written only from one store, and a real packet was written long before.
#[inline(always)]
#[must_use]
pub const fn place(word: usize) -> usize {
    match word {
        0 => 0,
        // The end of the Ethernet header; two bytes are written twice.
        1 => 6,
        _ => 14 + (word - 2) * 8,
    }
}

/// Words that it takes to write so many bytes, two at least.
#[must_use]
pub const fn words(bytes: usize) -> usize {
    2 + bytes.saturating_sub(14).div_ceil(8)
}

/// Bytes of a frame that a [`Case`] holds; what is behind them is zero.
pub const CASE_BYTES: usize = 504;

/// A frame of any length.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Case {
    /// Bytes of the frame.
    pub length: u32,
    /// Those of [`Self::bytes`] that are the frame's.
    pub captured: u32,
    /// Its first bytes.
    pub bytes: [u8; CASE_BYTES],
}

/// Which frame is next. The loader sets it before a run, the shim moves it on.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Walk {
    /// The next frame.
    pub next: u32,
    /// How far it is to the one after it; less than [`Self::length`].
    pub stride: u32,
    /// The frame behind the last one.
    pub end: u32,
    /// The number of frames, from the first to the last.
    pub length: u32,
    /// Frames that could not be put into the packet, or for which no program
    /// was there.
    pub missed: u64,
    /// The interface that live frames are sent to.
    pub send_to: u32,
    /// Nothing.
    pub unused: u32,
}

const _: () = {
    assert!(size_of::<Line>() == 64);
    assert!(size_of::<Case>() == 512);
    assert!(size_of::<Walk>() == 32);
    assert!(place(words(54)) == 54);
};
