//! Where packets come from: a driver (XDP), or the host's own stack (TC).

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};

/// The context that a program is called with.
pub(crate) trait Hook {
    /// Where the bytes begin that can be read directly.
    fn data(&self) -> usize;

    /// Where they end.
    fn data_end(&self) -> usize;

    /// Bytes of the whole frame.
    fn length(&self) -> u64;

    /// The same of a [plain](filter_common::parse::plain) frame.
    fn plain_length(&self) -> u64;

    /// Whether it has this many bytes, asked of a frame whose headers can be read
    /// directly.
    fn is_as_long(&self, length: usize) -> bool;

    /// Packets on the wire that the frame becomes.
    fn packets(&self) -> u64;

    /// The interface's index.
    fn interface(&self) -> u32;

    /// Copies bytes of the frame. Other than 0 where it doesn't have them.
    ///
    /// # Safety
    ///
    /// `to` has room for `bytes` bytes.
    unsafe fn load(&self, offset: u32, to: *mut c_void, bytes: u32) -> i64;

    /// A step along an extension chain, in a function of its own (see
    /// [`filter_common::packet::Packet::extension`]).
    fn extension(&self, walk: u64, end: u64) -> u64;

    /// Whether a reader of events asks for the packet, in a function of its own; not 0
    /// where it does (see [`crate::events`]).
    fn is_wanted(&self, what: u64) -> u64;

    /// Reports that a rule met the packet, in a function of its own, likewise.
    fn report(&self, what: u64, length: u64);
}

/// Bytes of the longest frame of IEEE 802.3 without FCS, with a tag.
const STANDARD_FRAME: usize = 1_518;

impl Hook for XdpContext {
    #[inline(always)]
    fn data(&self) -> usize {
        Self::data(self)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        Self::data_end(self)
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.as_ptr().cast()) }
    }

    /// A plain frame's IP packet lies in the first buffer. A helper is asked only
    /// where there may be another one behind it: none of the drivers known splits a
    /// standard frame, and a call costs 8 ns (AMD EPYC with safe returns, Linux 6.18).
    #[inline(always)]
    fn plain_length(&self) -> u64 {
        let linear = self.data_end() - self.data();
        if linear <= STANDARD_FRAME {
            linear as u64
        } else {
            Hook::length(self)
        }
    }

    #[inline(always)]
    fn is_as_long(&self, length: usize) -> bool {
        length <= self.data_end() - self.data()
    }

    #[inline(always)]
    fn packets(&self) -> u64 {
        1
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one this program was called with.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is the one this program was called with; the caller
        // promises the rest. The helper refuses what lies beyond the frame.
        unsafe { bpf_xdp_load_bytes(self.as_ptr().cast(), offset, to, bytes) }
    }

    #[inline(always)]
    fn extension(&self, walk: u64, end: u64) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::frame::nodewall_extension(self.ctx, walk, end) }
    }

    #[inline(always)]
    fn is_wanted(&self, what: u64) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::events::nodewall_wanted(self.ctx, what) }
    }

    #[inline(always)]
    fn report(&self, what: u64, length: u64) {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::events::nodewall_report(self.ctx, what, length) };
    }
}

impl Hook for TcContext {
    #[inline(always)]
    fn data(&self) -> usize {
        Self::data(self)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        Self::data_end(self)
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        self.len().into()
    }

    #[inline(always)]
    fn plain_length(&self) -> u64 {
        self.len().into()
    }

    /// The payload mostly lies elsewhere, and nobody asks what is in it.
    #[inline(always)]
    fn is_as_long(&self, length: usize) -> bool {
        length <= self.len() as usize
    }

    /// What the stack hands over in one piece, the interface may cut into many.
    #[inline(always)]
    fn packets(&self) -> u64 {
        // SAFETY: the context is the one this program was called with.
        let segments = unsafe { (*self.skb.skb).gso_segs };
        u64::from(segments) + u64::from(segments == 0)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one this program was called with.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is the one this program was called with; the caller
        // promises the rest. The helper refuses what lies beyond the frame.
        unsafe { bpf_skb_load_bytes(self.as_ptr().cast(), offset, to, bytes) }
    }

    #[inline(always)]
    fn extension(&self, walk: u64, end: u64) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::frame::nodewall_extension_egress(self.skb.skb, walk, end) }
    }

    #[inline(always)]
    fn is_wanted(&self, what: u64) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::events::nodewall_wanted_egress(self.skb.skb, what) }
    }

    #[inline(always)]
    fn report(&self, what: u64, length: u64) {
        // SAFETY: the context is the one this program was called with.
        unsafe { crate::events::nodewall_report_egress(self.skb.skb, what, length) };
    }
}
