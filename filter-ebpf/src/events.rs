//! Reports of packets: into a ring buffer, within a budget. What is beyond the
//! budget, or finds the ring full, is counted and not reported.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::{TcContext, XdpContext};
#[cfg(not(feature = "trace"))]
use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
#[cfg(feature = "trace")]
use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use filter_common::abi::{NONE, at};
use filter_common::classify::Outcome;
use filter_common::event::filter::Filter;
use filter_common::event::{BUDGETS, Budget, Event, HEADER, Kind, OF_DROPS, OF_RULES, Rate};
use filter_common::verdict::Verdict;

use crate::frame::Frame;
use crate::hook::Hook;
use crate::image::{constant, opaque, value};

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

/// Which packets a reader asks for.
#[cfg(not(feature = "trace"))]
#[btf_map]
static FILTER: Array<Filter, 1> = Array::new();
#[cfg(feature = "trace")]
#[map]
static FILTER: Array<Filter> = Array::with_max_entries(1, 0);

/// For the ring: nobody is to be woken. Its reader comes by the clock, since an
/// interrupt for its sake would cost more than many packets.
const NO_WAKEUP: u64 = 1;

/// Reports that `rule` met the packet, of which `outcome` was decided.
#[inline(always)]
pub(crate) fn report<H: Hook>(hook: &H, rule: u32, outcome: Outcome, length: u64) {
    hook.report(packed(rule, outcome), length);
}

/// Reports that a rule met a packet. In a function of its own: rules are noted in a loop,
/// and the verifier would walk all of this for each of them, and for each way through it.
/// `what`: see [`packed`].
///
/// # Safety
///
/// `ctx` is the context that the program was called with.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_report(ctx: *mut xdp_md, what: u64, length: u64) -> u64 {
    report_one(&XdpContext::new(ctx), what, length)
}

/// The same on the way out.
///
/// # Safety
///
/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_report_egress(
    ctx: *mut __sk_buff,
    what: u64,
    length: u64,
) -> u64 {
    report_one(&TcContext::new(ctx), what, length)
}

#[inline(always)]
fn report_one<H: Hook>(hook: &H, what: u64, length: u64) -> u64 {
    let (rule, outcome) = unpacked(what);
    let filter = filter();
    if is_wanted(hook, rule, outcome, filter)
        && let Some(budget) = take(OF_RULES, Rate::RULES, filter)
    {
        write(hook, budget, Kind::Log, rule, outcome, length);
    }
    0
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
    let rule = outcome.rule().unwrap_or(NONE);
    let filter = filter();
    if !is_wanted(hook, rule, outcome, filter) {
        return;
    }
    if let Some(budget) = take(OF_DROPS, rate, filter) {
        write(hook, budget, Kind::Drop, rule, outcome, length);
    }
}

/// The head of the filter that is in force.
#[inline(always)]
fn filter() -> u64 {
    let filter: *const Filter = value(&raw const FILTER);
    // SAFETY: the map's one value is a filter. Volatile: a reader changes it meanwhile.
    unsafe { (&raw const (*filter).head).read_volatile() }
}

/// Whether a reader asks for the packet, before it takes from the budget. Where it
/// asks for everything, as mostly, this is one comparison.
#[inline(always)]
fn is_wanted<H: Hook>(hook: &H, rule: u32, outcome: Outcome, filter: u64) -> bool {
    if !Filter::asks(filter) {
        return true;
    }
    hook.is_wanted(packed(rule, outcome)) != 0
}

/// What is reported, in one word: the word of the outcome, and the rule that reports it.
#[inline(always)]
fn packed(rule: u32, outcome: Outcome) -> u64 {
    outcome.packed() & u64::from(u32::MAX) | u64::from(rule) << u32::BITS
}

#[inline(always)]
fn unpacked(what: u64) -> (u32, Outcome) {
    let outcome = Outcome::unpacked(what & u64::from(u32::MAX));
    ((what >> u32::BITS) as u32, outcome)
}

/// Whether a reader asks for a packet: global, so that the verifier walks it by itself,
/// and not at all where nothing is reported; it reads the frame again, since the key is
/// gone where packets are reported. `what`: see [`packed`].
///
/// # Safety
///
/// `ctx` is the context that the program was called with.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_wanted(ctx: *mut xdp_md, what: u64) -> u64 {
    wanted(&XdpContext::new(ctx), what)
}

/// The same on the way out.
///
/// # Safety
///
/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_wanted_egress(ctx: *mut __sk_buff, what: u64) -> u64 {
    wanted(&TcContext::new(ctx), what)
}

#[inline(always)]
fn wanted<H: Hook>(hook: &H, what: u64) -> u64 {
    let filter: *const Filter = value(&raw const FILTER);
    // SAFETY: the map's one value is a filter, and its criteria don't change while a
    // program runs that has seen that they are asked (see [`Filter`]).
    let criteria = unsafe { &(*filter).criteria };
    let (rule, outcome) = unpacked(what);
    // What was decided first: it costs less.
    (criteria.wants_decision(rule, outcome.reason()) && criteria.wants_packet(&Frame::new(hook)))
        .into()
}

/// This CPU's budget, if it has room for one more.
#[inline(always)]
fn take<'a>(kind: u32, rate: Rate, filter: u64) -> Option<&'a mut Budget> {
    let budget = BUDGET.get_ptr_mut(kind)?;
    // SAFETY: the pointer is to this CPU's copy of the element, and the programs
    // of a hook are not preempted by another one on the same CPU.
    let budget = unsafe { &mut *budget };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_jiffies64() };
    budget.take(now, rate, filter).then_some(budget)
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
