//! What the kernel programs of a trial and their loader agree on: until when the new
//! policies decide, and which programs there are.
//!
//! A trial is over when the time says so, to the program itself: nobody has to be there.

use bytemuck::{Pod, Zeroable};

/// The place of the new policies' program, in [`Trial::programs`] and in the array that is
/// called through.
pub const NEW: u32 = 0;
/// That of the program from before.
pub const OLD: u32 = 1;

/// [`Trial::until`] of policies that are kept.
pub const KEPT: u64 = u64::MAX;
/// [`Trial::until`] of policies that were given up.
pub const GIVEN_UP: u64 = 0;

/// The element that both programs of a trial read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Trial {
    /// The new policies decide before this moment, those from before from then on:
    /// nanoseconds since boot, time asleep counts (`CLOCK_BOOTTIME`). The only word that
    /// is written while packets come.
    pub until: u64,
    /// Of what comes in and of what goes out: the kernel's ids of the new program and of
    /// that from before; 0 where there is none, and all passes.
    pub programs: [[u32; 2]; 2],
}

impl Trial {
    /// Which program decides at a moment.
    #[inline(always)]
    #[must_use]
    pub const fn decides(until: u64, now: u64) -> u32 {
        if now < until { NEW } else { OLD }
    }
}

const _: () = assert!(size_of::<Trial>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_policies_decide_until_their_time_is_over() {
        assert_eq!(Trial::decides(1_000, 999), NEW);
        assert_eq!(Trial::decides(1_000, 1_000), OLD);
        assert_eq!(Trial::decides(KEPT, u64::MAX - 1), NEW);
        assert_eq!(Trial::decides(GIVEN_UP, 0), OLD);
    }
}
