//! Exact counters: one increment a packet, on this CPU's own copy.

#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::PerCpuArray};
use filter_common::abi::{Count, MAX_NOTES, NONE, NOTE_EVENT, REASON_COUNTERS, at, flags};
use filter_common::classify::{Outcome, Tables as _};
use filter_common::verdict::Reason;

use crate::events;
use crate::hook::Hook;
use crate::image::{Image, constant};

/// One a reason, then one a rule. The loader sets the number.
#[cfg(not(feature = "trace"))]
#[btf_map]
static COUNTERS: PerCpuArray<Count, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

/// Counts the packet, and the rules that it met beside its verdict. An outcome
/// without a counter is counted as broken, and is to become a drop: then false.
#[inline(always)]
pub(crate) fn count<H: Hook>(outcome: Outcome, hook: &H, length: u64) -> bool {
    // Nothing where no rule is noted: the verifier deletes it.
    if constant::<{ at::NOTES }, 0, 0>() != NONE
        && outcome.notes != NONE
        && count_notes(outcome, hook, length).is_none()
        || !add(outcome.counter(), hook, length)
    {
        add(Reason::Internal as u32, hook, length);
        return false;
    }
    true
}

/// `None` where a record is cut short, which no compiled image has.
#[inline(always)]
fn count_notes<H: Hook>(outcome: Outcome, hook: &H, length: u64) -> Option<()> {
    let image = Image::<true>::open();
    let count = image.word(outcome.notes)?;
    for index in 0..MAX_NOTES {
        if index >= count {
            break;
        }
        let note = image.word(outcome.notes.wrapping_add(1).wrapping_add(index))?;
        let rule = note & !NOTE_EVENT;
        add(REASON_COUNTERS.wrapping_add(rule), hook, length).then_some(())?;
        if constant::<{ at::FLAGS }, 0, 0>() & flags::REPORTS != 0 && note & NOTE_EVENT != 0 {
            events::report(hook, rule, outcome, length);
        }
    }
    Some(())
}

#[inline(always)]
fn add<H: Hook>(counter: u32, hook: &H, length: u64) -> bool {
    let Some(count) = COUNTERS.get_ptr_mut(counter) else {
        return false;
    };
    // SAFETY: the pointer is to this CPU's copy of the element, and the programs of
    // a hook are not preempted by another one on the same CPU.
    let count = unsafe { &mut *count };
    count.packets += hook.packets();
    count.bytes += length;
    true
}
