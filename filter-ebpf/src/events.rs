//! Reports of packets: into a ring buffer, within a budget. What is beyond the
//! budget, or finds the ring full, is counted and not reported.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
#[cfg(not(feature = "trace"))]
use aya_ebpf::{
    btf_maps::{PerCpuArray, RingBuf},
    macros::btf_map,
};
#[cfg(feature = "trace")]
use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use filter_common::classify::Outcome;
use filter_common::event::{Budget, EVENTS_PER_WINDOW, Event, HEADER, Kind, WINDOW_SHIFT};
use filter_common::verdict::Verdict;

/// The loader sets the size: a page where nothing is reported.
#[cfg(not(feature = "trace"))]
#[btf_map]
static EVENTS: RingBuf<Event, 4096> = RingBuf::new();
#[cfg(feature = "trace")]
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[cfg(not(feature = "trace"))]
#[btf_map]
static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// Reports that `rule` met the packet, of which `outcome` was decided.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cast is at most the length of a header"
)]
pub(crate) fn report(ctx: &XdpContext, rule: u32, outcome: Outcome, length: u64) {
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is to this CPU's copy of the element, and XDP
    // programs are not preempted by another one on the same CPU.
    let budget = unsafe { &mut *budget };
    // SAFETY: the helper takes nothing.
    let window = unsafe { bpf_jiffies64() } >> WINDOW_SHIFT;
    if budget.window != window {
        budget.window = window;
        budget.spent = 0;
    }
    if budget.spent >= EVENTS_PER_WINDOW {
        budget.over_budget += 1;
        return;
    }
    budget.spent += 1;

    #[cfg(not(feature = "trace"))]
    let entry = EVENTS.reserve(0);
    #[cfg(feature = "trace")]
    let entry = EVENTS.reserve::<Event>(0);
    let Some(mut entry) = entry else {
        budget.ring_full += 1;
        return;
    };
    let event = entry.as_mut_ptr();
    let captured = length.min(HEADER as u64);
    // SAFETY: the entry has room for an event, which is written field by field:
    // all but the bytes of the header beyond the captured ones. The context is
    // the one this program was called with; the helper writes exactly the
    // bytes asked for into the entry, or fails.
    unsafe {
        (&raw mut (*event).time).write(bpf_ktime_get_boot_ns());
        (&raw mut (*event).ifindex).write((*ctx.ctx).ingress_ifindex);
        (&raw mut (*event).length).write(u32::try_from(length).unwrap_or(u32::MAX));
        (&raw mut (*event).rule).write(rule);
        (&raw mut (*event).decided_by).write(outcome.rule);
        (&raw mut (*event).kind).write(Kind::Log as u8);
        (&raw mut (*event).reason).write(outcome.reason as u8);
        (&raw mut (*event).verdict).write(u8::from(outcome.verdict == Verdict::Drop));
        (&raw mut (*event).unused).write([0; 3]);
        let header = (&raw mut (*event).header).cast();
        // The same number, from 1 to 128 also in the eyes of the verifier. No
        // frame is empty; of one the helper would have too little.
        let bytes = ((captured as u32).wrapping_sub(1) & (HEADER as u32 - 1)) + 1;
        let failed = bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, header, bytes);
        let captured = if failed == 0 { captured as u16 } else { 0 };
        (&raw mut (*event).captured).write(captured);
    }
    entry.submit(0);
}
