//! The frame as the kernel hands it over: a linear part, and behind it further
//! buffers where the frame is jumbo, or the host's own stack made it.

use core::array::from_fn;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::PerCpuArray};
use filter_common::packet::{Cursor, Packet};
use filter_common::parse::{Sight, extension};

use crate::hook::Hook;

/// Where [`Packet::forget`] puts a number down, per CPU.
#[cfg(not(feature = "trace"))]
#[btf_map]
static SCRATCH: PerCpuArray<usize, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static SCRATCH: PerCpuArray<usize> = PerCpuArray::with_max_entries(1, 0);

/// Where bytes are put that can't be read directly, per CPU: a function's stack has
/// 512 bytes, with all that called it.
type Loaded = [u64; 8];
#[cfg(not(feature = "trace"))]
#[btf_map]
static LOADED: PerCpuArray<Loaded, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static LOADED: PerCpuArray<Loaded> = PerCpuArray::with_max_entries(1, 0);

/// What was read of a packet last, per CPU.
#[cfg(not(feature = "trace"))]
#[btf_map]
static SIGHT: PerCpuArray<Sight, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static SIGHT: PerCpuArray<Sight> = PerCpuArray::with_max_entries(1, 0);

/// Puts down what was read of a packet.
#[inline(always)]
pub(crate) fn keep(sight: &Sight) {
    let place = own(SIGHT.get_ptr_mut(0));
    // SAFETY: as of [`Packet::forget`]. Volatile, or the compiler would forward it.
    unsafe { place.write_volatile(*sight) };
}

/// What was put down last.
#[inline(always)]
pub(crate) fn kept() -> Sight {
    let place = own(SIGHT.get_ptr_mut(0));
    // SAFETY: likewise.
    unsafe { place.read_volatile() }
}

/// This CPU's copy of the one element of a map, which was looked up.
///
/// That can't fail, and from Linux 6.14 on the verifier knows it. Before, it walks the way
/// on which it did: that ends here, and not where it meets the other one, since the
/// compiler uses registers there that have no value on this way.
#[inline(always)]
pub(crate) fn own<T>(found: Option<*mut T>) -> *mut T {
    match found {
        Some(element) => element,
        None => leave(),
    }
}

/// Ends the function, or the program. What it gives is of no function a result that lets
/// a packet pass.
#[inline(always)]
fn leave() -> ! {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a function of BPF may end anywhere; the kernel restores all that is its
    // caller's.
    unsafe {
        core::arch::asm!("r0 = -1", "exit", options(noreturn, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    unreachable!("the host only checks this crate");
}

/// One step of the walk along an extension chain (see [`Packet::extension`]):
/// global, so that the verifier walks it by itself and knows nothing of the result.
///
/// # Safety
///
/// `ctx` is the context that the program was called with.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_extension(ctx: *mut xdp_md, walk: u64, end: u64) -> u64 {
    extension(&Frame::new(&XdpContext::new(ctx)), walk, end)
}

/// The same on the way out.
///
/// # Safety
///
/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_extension_egress(
    ctx: *mut __sk_buff,
    walk: u64,
    end: u64,
) -> u64 {
    extension(&Frame::new(&TcContext::new(ctx)), walk, end)
}

/// A frame.
pub(crate) struct Frame<'a, H> {
    hook: &'a H,
    linear: Cursor<'a>,
}

impl<'a, H: Hook> Frame<'a, H> {
    #[inline(always)]
    pub(crate) fn new(hook: &'a H) -> Self {
        // SAFETY: the kernel promises that the bytes from `data` up to
        // `data_end` can be read while the program runs.
        let linear =
            unsafe { Cursor::between(hook.data() as *const u8, hook.data_end() as *const u8) };
        Self { hook, linear }
    }

    /// What the program was called with.
    #[inline(always)]
    pub(crate) const fn hook(&self) -> &'a H {
        self.hook
    }
}

impl<H: Hook> Packet for Frame<'_, H> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "N is the size of a header")]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Almost always all headers are in the linear part.
        self.linear.read(offset).or_else(|| {
            let offset = u32::try_from(offset).ok()?;
            const { assert!(N <= size_of::<Loaded>()) };
            let loaded = own(LOADED.get_ptr_mut(0));
            // SAFETY: the element has room for the `N` bytes asked for.
            let failed = unsafe { self.hook.load(offset, loaded.cast(), N as u32) };
            // On failure as well, lest the verifier sees a register without a value. Word by
            // word: each that is read so takes a place on the stack.
            let words: Loaded = from_fn(|index| {
                if index * size_of::<u64>() < N {
                    // SAFETY: the element has this word, and as of `forget`.
                    unsafe { loaded.cast::<u64>().add(index).read_volatile() }
                } else {
                    0
                }
            });
            // SAFETY: the words are at least `N` bytes.
            let bytes = unsafe { words.as_ptr().cast::<[u8; N]>().read() };
            (failed == 0).then_some(bytes)
        })
    }

    #[inline(always)]
    fn front<const N: usize>(&self) -> Option<&[u8; N]> {
        self.linear.front()
    }

    #[inline(always)]
    fn has_front(&self, length: usize) -> bool {
        self.hook.is_as_long(length)
    }

    #[inline(always)]
    fn extension(&self, walk: u64, end: u64) -> u64 {
        self.hook.extension(walk, end)
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        let place = own(SCRATCH.get_ptr_mut(0));
        // SAFETY: the pointer is to this CPU's copy of the element, which
        // nothing else uses: the programs of a hook are not preempted by one another
        // on a CPU, and each has a map of its own. Volatile, or the compiler would
        // forward the value.
        unsafe {
            place.write_volatile(number);
            place.read_volatile()
        }
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.linear.has(length) || length as u64 <= self.hook.length()
    }
}
