//! Exact counters: one increment a packet, on this CPU's own copy.

#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::PerCpuArray};
use filter_common::abi::Count;
use filter_common::classify::Outcome;
use filter_common::verdict::{Reason, Verdict};

use crate::frame::Frame;

/// One a reason, then one a rule. The loader sets the number.
#[cfg(not(feature = "trace"))]
#[btf_map]
static COUNTERS: PerCpuArray<Count, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

/// Counts the packet; an outcome without a counter becomes a counted drop.
#[inline(always)]
pub(crate) fn count(outcome: Outcome, frame: &Frame<'_>) -> Verdict {
    if add(outcome.counter(), frame) {
        outcome.verdict
    } else {
        add(Reason::Internal as u32, frame);
        Verdict::Drop
    }
}

#[inline(always)]
fn add(counter: u32, frame: &Frame<'_>) -> bool {
    let Some(count) = COUNTERS.get_ptr_mut(counter) else {
        return false;
    };
    // SAFETY: the pointer is to this CPU's copy of the element, and XDP
    // programs are not preempted by another one on the same CPU.
    let count = unsafe { &mut *count };
    count.packets += 1;
    count.bytes += frame.length();
    true
}
