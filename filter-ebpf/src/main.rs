//! nodewall's kernel programs: thin entry points around `filter-common`.
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
    clippy::needless_pass_by_value,
    reason = "the macros make undocumented public wrappers, and pass contexts by value"
)]

mod counters;
mod events;
mod flows;
mod frame;
mod hook;
mod image;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_md};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use filter_common::abi::switches;
use filter_common::classify::{Outcome, decide_any, decide_plain};
use filter_common::flow::{self, Direction, Event, Flows as _, Step};
use filter_common::parse::{Key, Place, Sight, plain};
use filter_common::wire::l4::Shape;

use frame::Frame;
use hook::Hook;
use image::{Image, Other};

/// The functions of a hook that are not on the way of most packets.
///
/// Each is apart, so that what it takes is not in the way of plain frames, and
/// global, so that the verifier walks it by itself: it knows nothing of the
/// result, and walks what comes behind once, or not at all where it is not called.
/// Here they are by the type of the context, which the kernel asks of a global
/// function.
trait Apart: Hook + Sized {
    /// The direction that its packets go in.
    const DIRECTION: Direction;

    /// Decides about a frame that is not plain.
    fn any<const SMALL: bool>(&self) -> u64;

    /// Asks flows about a packet that the rules drop: 1 where it passes.
    fn dropped(&self, asks: u64) -> u64;

    /// Tells flows of a packet that the rules let pass: 0, or else where that failed.
    fn passed<const SMALL: bool>(&self, fills: u64) -> u64;
}

macro_rules! apart {
    ($hook:ident, $context:ty, $field:ident $(. $inner:ident)?, $direction:ident:
     $any:ident, $any_small:ident, $dropped:ident, $passed:ident, $passed_small:ident) => {
        /// # Safety
        ///
        /// `ctx` is the context that the program was called with.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $any(ctx: *mut $context) -> u64 {
            any::<$hook, false>(&$hook::new(ctx))
        }

        /// # Safety
        ///
        /// Likewise.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $any_small(ctx: *mut $context) -> u64 {
            any::<$hook, true>(&$hook::new(ctx))
        }

        /// # Safety
        ///
        /// Likewise.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $dropped(ctx: *mut $context, asks: u64) -> u64 {
            dropped(&$hook::new(ctx), asks)
        }

        /// # Safety
        ///
        /// Likewise.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $passed(ctx: *mut $context, fills: u64) -> u64 {
            passed::<$hook, false>(&$hook::new(ctx), fills)
        }

        /// # Safety
        ///
        /// Likewise.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $passed_small(ctx: *mut $context, fills: u64) -> u64 {
            passed::<$hook, true>(&$hook::new(ctx), fills)
        }

        impl Apart for $hook {
            const DIRECTION: Direction = Direction::$direction;

            #[inline(always)]
            fn any<const SMALL: bool>(&self) -> u64 {
                let ctx = self.$field $(.$inner)?;
                // SAFETY: the context is the one this program was called with.
                unsafe { if SMALL { $any_small(ctx) } else { $any(ctx) } }
            }

            #[inline(always)]
            fn dropped(&self, asks: u64) -> u64 {
                // SAFETY: the context is the one this program was called with.
                unsafe { $dropped(self.$field $(.$inner)?, asks) }
            }

            #[inline(always)]
            fn passed<const SMALL: bool>(&self, fills: u64) -> u64 {
                let ctx = self.$field $(.$inner)?;
                // SAFETY: the context is the one this program was called with.
                unsafe {
                    if SMALL { $passed_small(ctx, fills) } else { $passed(ctx, fills) }
                }
            }
        }
    };
}

apart!(XdpContext, xdp_md, ctx, Ingress:
    nodewall_any, nodewall_any_small,
    nodewall_dropped, nodewall_passed, nodewall_passed_small);
apart!(TcContext, __sk_buff, skb.skb, Egress:
    nodewall_any_egress, nodewall_any_egress_small,
    nodewall_dropped_egress, nodewall_passed_egress, nodewall_passed_egress_small);

#[inline(always)]
fn any<H: Hook, const SMALL: bool>(hook: &H) -> u64 {
    decide_any(&Frame::new(hook), &Image::<SMALL>::open(), |key, place| {
        if flows::Tables.switches() != 0 {
            frame::keep(&Sight::new(key, place));
        }
    })
    .packed()
}

/// What [`Apart::dropped`] is asked: whether flows are consulted.
const CONSULTS: u64 = 1;
/// And whether a later fragment follows the first one.
const FOLLOWS: u64 = 1 << 1;

#[inline(always)]
fn dropped<H: Apart>(hook: &H, asks: u64) -> u64 {
    let frame = Frame::new(hook);
    let seen = seen(&frame);
    let (consults, follows) = (asks & CONSULTS != 0, asks & FOLLOWS != 0);
    let flows = flows::Tables;
    // Nothing is asked of what comes from elsewhere where it can be known here.
    let consults = flows.switches() & switches::CONSULT != 0
        && (flows.switches() & switches::FRAGMENTS == 0 || consults);
    flow::settle_dropped(&frame, &seen, consults, follows, &flows, H::DIRECTION).into()
}

#[inline(always)]
fn passed<H: Apart, const SMALL: bool>(hook: &H, fills: u64) -> u64 {
    let frame = Frame::new(hook);
    let seen = seen(&frame);
    let other = Other::<SMALL>::open();
    let flows = flows::Tables;
    let fills = flows.switches() & switches::FILL != 0
        && (flows.switches() & switches::FRAGMENTS == 0 || fills != 0);
    flow::settle_passed(&frame, &seen, fills, &other, &flows, H::DIRECTION);
    0
}

/// What was read of a packet: again, where it is plain; else `any` has put it down.
/// Taken up from there in either case, so that the verifier knows nothing of it and
/// walks what follows once.
#[inline(always)]
fn seen<H: Hook>(frame: &Frame<'_, H>) -> (Key, Place) {
    let shape = |proto| Some(Shape::of(proto));
    if let Some((key, place)) = plain::with_place(frame, shape) {
        frame::keep(&Sight::new(&key, &place));
    }
    frame::kept().seen()
}

/// Decides and counts each packet that an interface receives.
#[xdp(frags)]
#[inline(always)]
pub fn nodewall_ingress(ctx: XdpContext) -> u32 {
    ingress::<false>(&ctx)
}

/// The same over small images (see [`filter_common::abi::Layout::is_small`]).
#[xdp(frags)]
#[inline(always)]
pub fn nodewall_ingress_small(ctx: XdpContext) -> u32 {
    ingress::<true>(&ctx)
}

/// Decides and counts each packet that the host sends.
#[classifier]
#[inline(always)]
pub fn nodewall_egress(ctx: TcContext) -> i32 {
    egress::<false>(&ctx)
}

/// The same over small images.
#[classifier]
#[inline(always)]
pub fn nodewall_egress_small(ctx: TcContext) -> i32 {
    egress::<true>(&ctx)
}

#[inline(always)]
fn ingress<const SMALL: bool>(ctx: &XdpContext) -> u32 {
    let drops = drops::<XdpContext, SMALL>(ctx);
    // No jump: in traffic of both kinds it could not be foreseen.
    const { assert!(XDP_DROP + 1 == XDP_PASS) };
    XDP_PASS - drops
}

#[inline(always)]
fn egress<const SMALL: bool>(ctx: &TcContext) -> i32 {
    // What passes goes on to the next program, or classifier, if there is one.
    const { assert!(TC_ACT_SHOT == 2 && TC_ACT_UNSPEC == -1) };
    TC_ACT_UNSPEC + 3 * drops::<TcContext, SMALL>(ctx).cast_signed()
}

/// Decides and counts a packet: 1 where it is to be dropped, else 0.
#[inline(always)]
fn drops<H: Apart, const SMALL: bool>(hook: &H) -> u32 {
    let frame = Frame::new(hook);
    let (outcome, length) = if let Some(outcome) = decide_plain(&frame, &Image::<SMALL>::open()) {
        (
            with_flows_plain::<H, SMALL>(&frame, outcome),
            hook.plain_length(),
        )
    } else {
        let outcome = Outcome::unpacked(hook.any::<SMALL>());
        (with_flows::<H, SMALL>(hook, outcome), hook.length())
    };
    let counted = counters::count(outcome, hook, length);
    #[cfg(feature = "trace")]
    aya_log_ebpf::debug!(
        hook,
        "{} bytes, reason {}, rule {}",
        length,
        outcome.reason() as u8,
        outcome.rule().unwrap_or(filter_common::abi::NONE)
    );
    if !counted {
        return 1;
    }
    events::sample(hook, outcome, length);
    outcome.drops()
}

/// The outcome for a plain frame, with what flows say.
#[inline(always)]
fn with_flows_plain<H: Apart, const SMALL: bool>(
    frame: &Frame<'_, H>,
    outcome: Outcome,
) -> Outcome {
    let flows = flows::Tables;
    // Each by itself: the verifier deletes what is switched off.
    if flow::consults(outcome, &flows) {
        // Here, and not apart, what a flood is made of.
        let is_known = match Step::of_plain(frame) {
            Some(step) => {
                let is_known = flow::answers(&step, &flows, H::DIRECTION);
                if is_known {
                    flows.count(Event::Hit, H::DIRECTION.opposite());
                }
                is_known
            }
            None => frame.hook().dropped(CONSULTS) == 1,
        };
        return if is_known {
            outcome.established()
        } else {
            outcome
        };
    }
    if flow::fills(outcome, &flows) && frame.hook().passed::<SMALL>(1) != 0 {
        return Outcome::BROKEN;
    }
    outcome
}

/// The outcome for any frame, with what flows say.
#[inline(always)]
fn with_flows<H: Apart, const SMALL: bool>(hook: &H, outcome: Outcome) -> Outcome {
    let flows = flows::Tables;
    let fragments = flows.switches() & switches::FRAGMENTS != 0;
    if outcome.drops() != 0 {
        let consults = flow::consults(outcome, &flows);
        if fragments || consults {
            let consults = if consults { CONSULTS } else { 0 };
            let follows = if flow::follows(outcome) { FOLLOWS } else { 0 };
            if hook.dropped(consults | follows) == 1 {
                return outcome.established();
            }
        }
        return outcome;
    }
    let fills = flow::fills(outcome, &flows);
    if (fragments || fills) && hook.passed::<SMALL>(fills.into()) != 0 {
        return Outcome::BROKEN;
    }
    outcome
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
