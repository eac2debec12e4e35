//! What stands before a program that is measured or tested: the shim puts the
//! next frame of a corpus into the packet and tail-calls that program, which
//! is not changed for it. Beside it the empty program, which is the floor,
//! and the one that sends live frames.
//!
//! A packet of `BPF_PROG_TEST_RUN` keeps its bytes from run to run, so what the
//! shim writes is all that differs.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::inline_always,
    reason = "a BPF function call costs 8 ns and hides the packet's bounds from the verifier"
)]
#![expect(unsafe_code, reason = "packet pointers, map values and helpers")]
// Entry points are found by their section, from outside the crate.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the xdp macro makes undocumented public wrappers"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the xdp macro's calling convention"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "lengths of frames and small constants"
)]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_store_bytes,
};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use filter_common::bench::{CASE_BYTES, Case, LINE_WORDS, Line, MAX_LINES, Walk, place};

/// `BPF_F_MMAPABLE`: millions of frames are a copy, not a system call each.
const MAPPED: usize = 1 << 10;

/// The frames that differ in their first bytes alone.
#[btf_map]
static LINES: Array<Line, 1, MAPPED> = Array::new();

/// The frames of any length.
#[btf_map]
static CASES: Array<Case, 1, MAPPED> = Array::new();

#[btf_map]
static WALK: Array<Walk, 1, MAPPED> = Array::new();

/// The program behind the shim. Two, since one with fragments can't be called
/// from one without, nor stand in a map with it.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NEXT_FRAGS: ProgramArray<1> = ProgramArray::new();

/// Words of 8 bytes that a flow's header takes. Set before loading.
#[unsafe(no_mangle)]
static HEADER_WORDS: u32 = 0;

#[inline(always)]
fn header_words() -> u32 {
    // SAFETY: a static is readable. Volatile, since the loader overwrites the
    // value that the compiler sees.
    unsafe { (&raw const HEADER_WORDS).read_volatile() }
}

/// The number of the next frame.
#[inline(always)]
fn step() -> Option<u32> {
    let walk = WALK.get_ptr_mut(0)?;
    // SAFETY: the element is there as long as the map is, and one run at a
    // time uses it: its owner makes the runs.
    let walk = unsafe { &mut *walk };
    let here = walk.next;
    let mut next = here.wrapping_add(walk.stride);
    if next >= walk.end {
        next = next.wrapping_sub(walk.length);
    }
    walk.next = next;
    Some(here)
}

#[inline(always)]
fn miss() -> u32 {
    if let Some(walk) = WALK.get_ptr_mut(0) {
        // SAFETY: as in `step`.
        unsafe { (*walk).missed += 1 };
    }
    XDP_ABORTED
}

/// Writes the next flow's header over the packet's.
#[inline(always)]
fn put_flow(ctx: &XdpContext) -> Option<()> {
    let words = header_words();
    let lines = if words > LINE_WORDS as u32 {
        MAX_LINES
    } else {
        1
    };
    let first = step()?.wrapping_mul(lines);
    let packet = ctx.data();
    put_words(ctx, packet, LINES.get(first)?, 0, words)?;
    if lines > 1 {
        let second = LINES.get(first.wrapping_add(1))?;
        let rest = words - LINE_WORDS as u32;
        put_words(ctx, packet, second, LINE_WORDS, rest)?;
    }
    Some(())
}

#[inline(always)]
fn put_words(ctx: &XdpContext, packet: usize, line: &Line, at: usize, words: u32) -> Option<()> {
    // Unrolled by the compiler; what is behind `words`, a constant when the
    // program is verified, is deleted.
    for index in 0..LINE_WORDS {
        if index as u32 >= words {
            break;
        }
        let place = packet + place(at + index);
        if place + 8 > ctx.data_end() {
            return None;
        }
        // SAFETY: 8 bytes from here on are the packet's, as just compared.
        unsafe { (place as *mut u64).write_unaligned(line.0[index]) };
    }
    Some(())
}

/// Makes the packet the next case.
#[inline(always)]
fn put_case(ctx: &XdpContext) -> Option<()> {
    let case = CASES.get(step()?)?;
    let context = ctx.as_ptr();
    // SAFETY: the context is the one this program was called with.
    let present = unsafe { bpf_xdp_get_buff_len(context.cast()) } as u32;
    if case.length != present {
        let change = case.length.wrapping_sub(present) as i32;
        // SAFETY: as above; no pointer into the packet is held.
        if unsafe { bpf_xdp_adjust_tail(context.cast(), change) } != 0 {
            return None;
        }
    }
    // From 1 to `CASE_BYTES` also in the eyes of a verifier that learns nothing of a
    // comparison with 0 (before Linux 6.8).
    const { assert!(CASE_BYTES < 512) };
    let last = case.captured.wrapping_sub(1) & 511;
    if last >= CASE_BYTES as u32 {
        return None;
    }
    // SAFETY: as above; the map's element holds this many bytes.
    let failed = unsafe {
        bpf_xdp_store_bytes(
            context.cast(),
            0,
            case.bytes.as_ptr().cast_mut().cast(),
            last + 1,
        )
    };
    (failed == 0).then_some(())
}

macro_rules! shim {
    ($ctx:ident, $put:ident, $next:ident) => {{
        if $put(&$ctx).is_some() {
            // SAFETY: the context is the one this program was called with;
            // nothing is to be dropped.
            unsafe { $next.tail_call(&$ctx, 0) };
        }
        miss()
    }};
}

#[xdp]
pub fn flows(ctx: XdpContext) -> u32 {
    shim!(ctx, put_flow, NEXT)
}

#[xdp(frags)]
pub fn flows_frags(ctx: XdpContext) -> u32 {
    shim!(ctx, put_flow, NEXT_FRAGS)
}

#[xdp]
pub fn cases(ctx: XdpContext) -> u32 {
    shim!(ctx, put_case, NEXT)
}

#[xdp(frags)]
pub fn cases_frags(ctx: XdpContext) -> u32 {
    shim!(ctx, put_case, NEXT_FRAGS)
}

#[xdp]
pub fn empty(_: XdpContext) -> u32 {
    XDP_DROP
}

#[xdp(frags)]
pub fn empty_frags(_: XdpContext) -> u32 {
    XDP_DROP
}

#[xdp(frags)]
pub fn pass_frags(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Sends live frames to an interface; behind the shim, a corpus of them.
#[xdp]
pub fn send(_: XdpContext) -> u32 {
    let Some(walk) = WALK.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the element is there as long as the map is; the helper takes no
    // pointer.
    unsafe { bpf_redirect((*walk).send_to, 0) as u32 }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a program that could come here.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
