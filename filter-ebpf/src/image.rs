//! The compiled tables, as maps and load-time constants.

#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::Array, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::Array};
#[cfg(target_arch = "bpf")]
use filter_common::abi::PLACEHOLDER;
use filter_common::abi::{DECLARED_LINES, Line, Record, Slot, at};
use filter_common::classify::Tables;

/// `BPF_F_MMAPABLE`: the loader fills the tables by a copy of memory; and they
/// begin on a page of memory, so that no line crosses a cache line.
const MMAPABLE: u32 = 1 << 10;

/// The image, as one value. The loader gives it the image's size, and freezes
/// the map.
type Lines = [Line; DECLARED_LINES];
#[cfg(not(feature = "trace"))]
#[btf_map]
static IMAGE: Array<Lines, 1, { MMAPABLE as usize }> = Array::new();
// aya-log's `Global<u8>` has a type name that the kernel's BTF refuses
// (`MaybeUninit<u8>`), and without BTF only maps of the older form load.
#[cfg(feature = "trace")]
#[map]
static IMAGE: Array<Lines> = Array::with_max_entries(1, MMAPABLE);

/// The word of the constants at the sum of these places, in bytes: a
/// placeholder as an immediate.
///
/// Each in its own instruction, and not as statics that are read: the verifier
/// knows what it finds in those as well, but leaves the reading in.
#[inline(always)]
pub(crate) fn constant<const A: usize, const B: usize, const C: usize>() -> u32 {
    placed::<0, A, B, C>()
}

/// The same, of the constants at this place.
#[inline(always)]
fn placed<const PLACE: usize, const A: usize, const B: usize, const C: usize>() -> u32 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a register is set.
    unsafe {
        let word: u32;
        core::arch::asm!(
            "{0} = {1}",
            out(wreg) word,
            const PLACEHOLDER | (PLACE + A + B + C) as u32 / 4,
            options(nomem, nostack)
        );
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    0
}

/// The same number, of which the compiler knows nothing: it then compares and
/// uses one register, and the verifier sees that what is used was compared.
#[inline(always)]
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unused_mut, reason = "only the kernel's compiler has to be deceived")
)]
pub(crate) fn opaque(mut number: u32) -> u32 {
    // An instruction and not none: the kernel refuses line information in which
    // two lines begin at one instruction.
    #[cfg(target_arch = "bpf")]
    // SAFETY: a register is copied to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(wreg) number, options(nomem, nostack));
    }
    number
}

/// The one value of a map. The loader gives the program its address, in the place of
/// the map: nothing is looked up.
#[inline(always)]
pub(crate) fn value<M, V>(map: *const M) -> *const V {
    let value = map.cast::<V>();
    // The compiler must not think of the size of what it knows.
    #[cfg(target_arch = "bpf")]
    let value = {
        let mut value = value;
        // SAFETY: a register is copied to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
        }
        value
    };
    value
}

/// The image of the other direction, which flows ask. The loader puts the map of
/// the other direction's program in its place.
#[cfg(not(feature = "trace"))]
#[btf_map]
static OTHER: Array<Lines, 1, { MMAPABLE as usize }> = Array::new();
#[cfg(feature = "trace")]
#[map]
static OTHER: Array<Lines> = Array::with_max_entries(1, MMAPABLE);

/// The image of this program's own direction.
pub(crate) type Image<const SMALL: bool> = ImageAt<SMALL, 0>;
/// That of the other one.
pub(crate) type Other<const SMALL: bool> = ImageAt<SMALL, { at::OTHER }>;

/// An image of this program: its first line. `SMALL`: see [`Tables::SMALL`];
/// `PLACE`: where its constants are.
#[derive(Clone, Copy)]
pub(crate) struct ImageAt<const SMALL: bool, const PLACE: usize>(*const Line);

impl<const SMALL: bool, const PLACE: usize> ImageAt<SMALL, PLACE> {
    /// Finds it.
    #[inline(always)]
    pub(crate) fn open() -> Self {
        Self(if PLACE == 0 {
            value(&raw const IMAGE)
        } else {
            value(&raw const OTHER)
        })
    }

    /// The element at `index`, of a kind of which the image has `count`.
    #[inline(always)]
    fn element<E>(self, index: u32, count: u32) -> Option<*const E> {
        let index = opaque(index);
        if index >= count {
            return None;
        }
        let element = self.0.cast::<E>().wrapping_add(opaque(index) as usize);
        // Or it would be compared with null, where a reference is made of it.
        // SAFETY: it is in the image.
        unsafe { core::hint::assert_unchecked(!element.is_null()) };
        Some(element)
    }
}

impl<const SMALL: bool, const PLACE: usize> Tables for ImageAt<SMALL, PLACE> {
    const SMALL: bool = SMALL;

    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        let words = self.constant::<{ at::WORDS }, 0, 0>();
        // SAFETY: the image has this many words.
        self.element(index, words)
            .map(|word: *const u32| unsafe { word.read() })
    }

    #[inline(always)]
    fn half(&self, index: u32) -> Option<u16> {
        let halves = self.constant::<{ at::HALVES }, 0, 0>();
        // SAFETY: the image has this many half words.
        self.element(index, halves)
            .map(|half: *const u16| unsafe { half.read() })
    }

    #[inline(always)]
    fn byte(&self, index: u32) -> Option<u8> {
        let bytes = self.constant::<{ at::BYTES }, 0, 0>();
        // SAFETY: the image has this many bytes.
        self.element(index, bytes)
            .map(|byte: *const u8| unsafe { byte.read() })
    }

    #[inline(always)]
    fn line(&self, number: u32) -> Option<&Line> {
        let lines = self.constant::<{ at::LINES }, 0, 0>();
        // SAFETY: the image has this many lines, and nobody writes to it.
        self.element(number, lines)
            .map(|line: *const Line| unsafe { &*line })
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> Option<&Slot> {
        let slots = self.constant::<{ at::SLOTS }, 0, 0>();
        // SAFETY: the image has this many slots, and nobody writes to it.
        self.element(number, slots)
            .map(|slot: *const Slot| unsafe { &*slot })
    }

    #[inline(always)]
    fn record(&self, number: u32) -> Option<&Record> {
        let records = self.constant::<{ at::RECORDS }, 0, 0>();
        // SAFETY: the image has this many records, and nobody writes to it.
        self.element(number, records)
            .map(|record: *const Record| unsafe { &*record })
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    fn sign(&self, mut number: u64) -> u64 {
        // SAFETY: a register is shifted.
        unsafe {
            core::arch::asm!("{0} s>>= 63", inout(reg) number, options(pure, nomem, nostack));
        }
        number
    }

    #[inline(always)]
    fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32 {
        placed::<PLACE, A, B, C>()
    }
}
