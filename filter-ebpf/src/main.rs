//! nodewall's kernel program: thin entry points around `filter-common`.
//!
//! On the host it compiles to an empty program, so that `cargo check` and
//! clippy read it like everything else.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Stable asm! does not know BPF; the object is built with unstable features
// allowed, for `-Zbuild-std`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
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

mod counters;
mod events;
mod frame;
mod image;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use filter_common::classify::{Outcome, decide_any, decide_plain};

use frame::Frame;
use image::Image;

/// Decides about a frame that is not plain.
///
/// Apart, so that what it takes is not in the way of plain frames, and global,
/// so that the verifier walks it by itself: it knows nothing of the result, and
/// walks what comes behind once.
///
/// # Safety
///
/// `ctx` is the context that the program was called with.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_any(ctx: *mut xdp_md) -> u64 {
    any::<false>(ctx)
}

/// The same over a small image.
///
/// # Safety
///
/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn nodewall_any_small(ctx: *mut xdp_md) -> u64 {
    any::<true>(ctx)
}

#[inline(always)]
fn any<const SMALL: bool>(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    decide_any(&Frame::new(&ctx), &Image::<SMALL>::open()).packed()
}

/// Decides and counts each packet that an interface receives.
#[xdp(frags)]
#[inline(always)]
pub fn nodewall_ingress(ctx: XdpContext) -> u32 {
    ingress::<false>(ctx)
}

/// The same over a small image (see [`filter_common::abi::Layout::is_small`]).
#[xdp(frags)]
#[inline(always)]
pub fn nodewall_ingress_small(ctx: XdpContext) -> u32 {
    ingress::<true>(ctx)
}

#[inline(always)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the xdp macro's calling convention"
)]
fn ingress<const SMALL: bool>(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let (outcome, length) = if let Some(outcome) = decide_plain(&frame, &Image::<SMALL>::open()) {
        (outcome, frame.plain_length())
    } else {
        // SAFETY: the context is the one this program was called with.
        let packed = unsafe {
            if SMALL {
                nodewall_any_small(ctx.ctx)
            } else {
                nodewall_any(ctx.ctx)
            }
        };
        (Outcome::unpacked(packed), frame.length())
    };
    let counted = counters::count(outcome, &frame, length);
    #[cfg(feature = "trace")]
    aya_log_ebpf::debug!(
        &ctx,
        "{} bytes, reason {}, rule {}",
        length,
        outcome.reason() as u8,
        outcome.rule().unwrap_or(filter_common::abi::NONE)
    );
    if !counted {
        return XDP_DROP;
    }
    events::sample(&frame, outcome, length);
    // No jump: in traffic of both kinds it could not be foreseen.
    const { assert!(XDP_DROP + 1 == XDP_PASS) };
    XDP_PASS - outcome.drops()
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a program that could come here.
    loop {}
}

/// The helpers in use (`bpf_xdp_load_bytes` among them) ask for no more than
/// a compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
