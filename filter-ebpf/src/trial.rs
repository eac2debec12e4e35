//! What a link runs while policies are on trial: it hands each packet to the new program
//! until the time is over, and to the one from before from then on.
//!
//! So the way back needs no process, no timer and no memory: nothing that could have died.
//! Both directions read one word, and change at one moment.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(clippy::inline_always, reason = "a BPF function call costs 8 ns")]
#![expect(unsafe_code, reason = "map values and helpers")]
// Entry points are found by their section, from outside the crate.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macros make undocumented public wrappers, and pass contexts by value"
)]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use filter_common::trial::Trial;

/// `BPF_F_MMAPABLE`: the loader ends a trial by one store.
const MAPPED: usize = 1 << 10;

#[btf_map]
static TRIAL: Array<Trial, 1, MAPPED> = Array::new();

/// The programs, by their places.
#[btf_map]
static NEXT: ProgramArray<2> = ProgramArray::new();

/// Goes on with the program that decides now. Comes back where there is none: true where
/// there should be one, so that the packet must not pass.
#[inline(always)]
fn go_on(ctx: &impl EbpfContext, direction: usize) -> bool {
    let Some(trial) = TRIAL.get_ptr(0) else {
        return true;
    };
    // SAFETY: the element is there as long as the map is. Volatile, since the loader writes
    // it meanwhile: an aligned word, whole at any time.
    let until = unsafe { (&raw const (*trial).until).read_volatile() };
    // SAFETY: the helper takes nothing.
    let place = Trial::decides(until, unsafe { bpf_ktime_get_boot_ns() });
    // SAFETY: the context is the one this program was called with; nothing is to be dropped.
    unsafe { NEXT.tail_call(ctx, place) };
    // SAFETY: as above; nobody writes these while packets come.
    let programs = unsafe { &(*trial).programs[direction] };
    match programs.get(place as usize) {
        Some(id) => *id != 0,
        None => true,
    }
}

#[xdp(frags)]
pub fn trial_ingress(ctx: XdpContext) -> u32 {
    if go_on(&ctx, 0) { XDP_DROP } else { XDP_PASS }
}

#[classifier]
pub fn trial_egress(ctx: TcContext) -> i32 {
    if go_on(&ctx, 1) {
        TC_ACT_SHOT
    } else {
        TC_ACT_UNSPEC
    }
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
