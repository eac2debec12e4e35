//! A bounds-checked view of a frame: the one place of this crate with
//! `unsafe`, written so that the kernel's verifier accepts it.

use core::marker::PhantomData;

use crate::parse;

/// A frame that can be read at an offset, from the Ethernet header on.
pub trait Packet {
    /// The `N` bytes at `offset`, or `None` where the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `N` bytes, where they are at hand: `None` also where they
    /// would have to be fetched.
    fn front<const N: usize>(&self) -> Option<&[u8; N]>;

    /// Whether the first `length` bytes are at hand, likewise.
    fn has_front(&self, length: usize) -> bool;

    /// Whether the frame has at least `length` bytes.
    fn has(&self, length: usize) -> bool;

    /// One step of the walk along the extension chain of an IPv6 packet that ends
    /// at `end`. The kernel's frames make it in a function of its own, which the
    /// verifier walks once, and not once for each way that leads to a header.
    #[inline(always)]
    fn extension(&self, walk: u64, end: u64) -> u64
    where
        Self: Sized,
    {
        parse::extension(self, walk, end)
    }

    /// The same number. The kernel's frames put it down in memory and take it
    /// up again, so that the verifier knows nothing of it: it then walks the
    /// code behind once, and not once for every way that led here.
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number
    }
}

/// The contiguous bytes between two pointers.
///
/// Two pointers and not a slice: the verifier proves an access only if the
/// very pointer that was compared with the packet's end is the one that is
/// read, and a slice keeps its length apart from its pointer.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    start: *const u8,
    end: *const u8,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// A view of `frame`.
    #[must_use]
    pub fn over(frame: &'a [u8]) -> Self {
        let range = frame.as_ptr_range();
        Self {
            start: range.start,
            end: range.end,
            bytes: PhantomData,
        }
    }

    /// A view of the bytes from `start` up to `end`.
    ///
    /// # Safety
    ///
    /// All bytes from `start` up to, not including, `end` must be readable
    /// for `'a`, and `start <= end`.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn between(start: *const u8, end: *const u8) -> Self {
        Self {
            start,
            end,
            bytes: PhantomData,
        }
    }

    /// Bytes in the view.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> usize {
        self.end as usize - self.start as usize
    }
}

impl Packet for Cursor<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let from = self.start.wrapping_add(offset);
        // `from < start` can't happen in the kernel (offsets are far below a
        // page of address space from its top) but costs the host nothing.
        #[cfg(not(target_arch = "bpf"))]
        if offset > self.length() || self.length() - offset < N {
            return None;
        }
        if from.wrapping_add(N) > self.end {
            return None;
        }
        // SAFETY: `start + offset + N <= end`, and `between` was promised
        // that these bytes are readable. A `[u8; N]` has alignment 1.
        Some(unsafe { from.cast::<[u8; N]>().read() })
    }

    #[inline(always)]
    fn front<const N: usize>(&self) -> Option<&[u8; N]> {
        if self.start.wrapping_add(N) > self.end {
            return None;
        }
        // SAFETY: `start + N <= end`, and `between` was promised that these
        // bytes are readable. A `[u8; N]` has alignment 1.
        Some(unsafe { &*self.start.cast::<[u8; N]>() })
    }

    #[inline(always)]
    fn has_front(&self, length: usize) -> bool {
        length <= self.length()
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.has_front(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_inside_and_refuses_outside() {
        let frame = [1, 2, 3, 4];
        let cursor = Cursor::over(&frame);
        assert_eq!(cursor.read(0), Some([1, 2, 3, 4]));
        assert_eq!(cursor.read(3), Some([4]));
        assert_eq!(cursor.read::<1>(4), None);
        assert_eq!(cursor.read::<2>(3), None);
        assert_eq!(cursor.read::<0>(4), Some([]));
        assert_eq!(cursor.read::<1>(usize::MAX), None);
        assert_eq!(cursor.front(), Some(&frame));
        assert_eq!(cursor.front::<5>(), None);
        assert!(cursor.has(4));
        assert!(!cursor.has(5));
    }
}
