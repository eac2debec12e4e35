//! The frame as XDP hands it over: a linear part, and behind it further
//! buffers where the frame is jumbo.

use core::array::from_fn;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::PerCpuArray};
use filter_common::packet::{Cursor, Packet};
use filter_common::parse::extension;

/// Where [`Packet::forget`] puts a number down, per CPU.
#[cfg(not(feature = "trace"))]
#[btf_map]
static SCRATCH: PerCpuArray<usize, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static SCRATCH: PerCpuArray<usize> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of the longest frame of IEEE 802.3 without FCS, with a tag.
const STANDARD_FRAME: usize = 1_518;

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

/// A received frame.
pub(crate) struct Frame<'a> {
    ctx: &'a XdpContext,
    linear: Cursor<'a>,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: the kernel promises that the bytes from `data` up to
        // `data_end` can be read while the program runs.
        let linear =
            unsafe { Cursor::between(ctx.data() as *const u8, ctx.data_end() as *const u8) };
        Self { ctx, linear }
    }

    /// What the program was called with.
    #[inline(always)]
    pub(crate) const fn context(&self) -> &'a XdpContext {
        self.ctx
    }

    /// The same of a [plain](filter_common::parse::plain) frame, whose IP packet lies
    /// in the first buffer. A helper is asked only where there may be another one
    /// behind it: none of the drivers known splits a standard frame, and a call
    /// costs 8 ns (AMD EPYC with safe returns, Linux 6.18).
    #[inline(always)]
    pub(crate) fn plain_length(&self) -> u64 {
        let linear = self.linear.length();
        if linear <= STANDARD_FRAME {
            linear as u64
        } else {
            self.length()
        }
    }

    /// Bytes of the whole frame, all its buffers included.
    #[inline(always)]
    pub(crate) fn length(&self) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "N is the size of a header")]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Almost always all headers are in the linear part.
        self.linear.read(offset).or_else(|| {
            let offset = u32::try_from(offset).ok()?;
            let mut bytes = [0_u8; N];
            // SAFETY: the context is the one this program was called with, and
            // `bytes` has room for the `N` bytes asked for. The helper
            // refuses what lies beyond the frame.
            let failed = unsafe {
                bpf_xdp_load_bytes(
                    self.ctx.as_ptr().cast(),
                    offset,
                    bytes.as_mut_ptr().cast(),
                    N as u32,
                )
            };
            // Byte by byte: the compiler reads several at once from packets,
            // where the machine can do that anywhere, but the verifier wants
            // reads of the stack to be aligned. On failure as well, lest it
            // sees a register without a value.
            let first = bytes.as_ptr();
            // SAFETY: `bytes` has `N` bytes.
            let bytes = from_fn(|index| unsafe { first.add(index).read_volatile() });
            (failed == 0).then_some(bytes)
        })
    }

    #[inline(always)]
    fn front<const N: usize>(&self) -> Option<&[u8; N]> {
        self.linear.front()
    }

    #[inline(always)]
    fn has_front(&self, length: usize) -> bool {
        self.linear.has_front(length)
    }

    #[inline(always)]
    fn extension(&self, walk: u64, end: u64) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { nodewall_extension(self.ctx.ctx, walk, end) }
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        let Some(place) = SCRATCH.get_ptr_mut(0) else {
            return number;
        };
        // SAFETY: the pointer is to this CPU's copy of the element, which
        // nothing else uses: XDP programs are not preempted by one another on
        // a CPU. Volatile, or the compiler would forward the value.
        unsafe {
            place.write_volatile(number);
            place.read_volatile()
        }
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.linear.has(length) || length as u64 <= self.length()
    }
}
