//! Reports of packets: into a ring buffer, within a budget. What is beyond the
//! budget, or finds the ring full, is counted and not reported.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
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
use filter_common::abi::{NONE, at};
use filter_common::classify::Outcome;
use filter_common::event::{BUDGETS, Budget, Event, HEADER, Kind, OF_DROPS, OF_RULES, Rate};
use filter_common::verdict::Verdict;

use crate::hook::Hook;
use crate::image::{constant, opaque};

/// The loader sets the size: a page where nothing is reported.
#[cfg(not(feature = "trace"))]
#[btf_map]
static EVENTS: RingBuf<Event, 4096> = RingBuf::new();
#[cfg(feature = "trace")]
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[cfg(not(feature = "trace"))]
#[btf_map]
static BUDGET: PerCpuArray<Budget, { BUDGETS as usize }> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(BUDGETS, 0);

/// For the ring: nobody is to be woken. Its reader comes by the clock, since an
/// interrupt for its sake would cost more than many packets.
const NO_WAKEUP: u64 = 1;

/// Reports that `rule` met the packet, of which `outcome` was decided.
#[inline(always)]
pub(crate) fn report<H: Hook>(hook: &H, rule: u32, outcome: Outcome, length: u64) {
    if let Some(budget) = take(OF_RULES, Rate::RULES) {
        write(hook, budget, Kind::Log, rule, outcome, length);
    }
}

/// Reports the packet, if it is dropped by this outcome.
#[inline(always)]
pub(crate) fn sample<H: Hook>(hook: &H, outcome: Outcome, length: u64) {
    let rate = Rate {
        events: constant::<{ at::SAMPLING }, { at::EVENTS }, 0>(),
        jiffies: constant::<{ at::SAMPLING }, { at::JIFFIES }, 0>(),
    };
    // By itself, and what comes behind hidden from the compiler: it would ask first
    // whether the packet is dropped, and leave a jump that can't be foreseen where
    // the verifier has deleted all else (6 ns of random traffic).
    if rate.events == 0 || opaque(outcome.drops()) == 0 {
        return;
    }
    if let Some(budget) = take(OF_DROPS, rate) {
        let rule = outcome.rule().unwrap_or(NONE);
        write(hook, budget, Kind::Drop, rule, outcome, length);
    }
}

/// This CPU's budget, if it has room for one more.
#[inline(always)]
fn take<'a>(kind: u32, rate: Rate) -> Option<&'a mut Budget> {
    let budget = BUDGET.get_ptr_mut(kind)?;
    // SAFETY: the pointer is to this CPU's copy of the element, and the programs
    // of a hook are not preempted by another one on the same CPU.
    let budget = unsafe { &mut *budget };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_jiffies64() };
    budget.take(now, rate).then_some(budget)
}

/// Puts an event into the ring.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cast is at most the length of a header"
)]
fn write<H: Hook>(
    hook: &H,
    budget: &mut Budget,
    kind: Kind,
    rule: u32,
    outcome: Outcome,
    length: u64,
) {
    #[cfg(not(feature = "trace"))]
    let entry = EVENTS.reserve(0);
    #[cfg(feature = "trace")]
    let entry = EVENTS.reserve::<Event>(0);
    let Some(mut entry) = entry else {
        budget.ring_full += 1;
        return;
    };
    let lost = budget.lost();
    let stands_for = lost.wrapping_sub(budget.lost_then).wrapping_add(1);
    budget.lost_then = lost;
    let event = entry.as_mut_ptr();
    let captured = length.min(HEADER as u64);
    // SAFETY: the entry has room for an event, which is written field by field:
    // all but the bytes of the header beyond the captured ones. The helper writes
    // exactly the bytes asked for into the entry, or fails.
    unsafe {
        (&raw mut (*event).time).write(bpf_ktime_get_boot_ns());
        (&raw mut (*event).ifindex).write(hook.interface());
        (&raw mut (*event).length).write(u32::try_from(length).unwrap_or(u32::MAX));
        (&raw mut (*event).rule).write(rule);
        (&raw mut (*event).decided_by).write(outcome.rule().unwrap_or(NONE));
        (&raw mut (*event).kind).write(kind as u8);
        (&raw mut (*event).reason).write(outcome.reason() as u8);
        (&raw mut (*event).verdict).write(u8::from(outcome.verdict() == Verdict::Drop));
        (&raw mut (*event).unused).write([0; 3]);
        (&raw mut (*event).stands_for).write(stands_for);
        let header = (&raw mut (*event).header).cast();
        // The same number, from 1 to 128 also in the eyes of the verifier. No
        // frame is empty; of one the helper would have too little.
        let bytes = ((captured as u32).wrapping_sub(1) & (HEADER as u32 - 1)) + 1;
        let failed = hook.load(0, header, bytes);
        let captured = if failed == 0 { captured as u16 } else { 0 };
        (&raw mut (*event).captured).write(captured);
    }
    entry.submit(NO_WAKEUP);
}
