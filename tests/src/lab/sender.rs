//! Frames onto the wire, just as they are, as fast as one thread can.

use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrLike as _, bind,
    sendmmsg, socket,
};

use super::{Lab, Side};

/// When to stop sending: whatever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    /// Packets.
    pub packets: u64,
    /// Time.
    pub time: Duration,
    /// Someone else's wish, looked at often.
    pub stop: Option<&'a AtomicBool>,
}

impl Limit<'_> {
    /// So many packets, in a minute at most.
    #[must_use]
    pub const fn count(packets: u64) -> Self {
        Self {
            packets,
            time: Duration::from_mins(1),
            stop: None,
        }
    }

    fn reached(&self, packets: u64, began: Instant) -> bool {
        packets >= self.packets
            || began.elapsed() >= self.time
            || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets that the interface took.
    pub packets: u64,
    /// How long that took.
    pub time: Duration,
    frames: usize,
}

impl Sent {
    /// How many of them were the frame at `index` of the list: the list is
    /// sent from its start again and again.
    #[must_use]
    pub const fn of(&self, index: usize) -> u64 {
        let (frames, index) = (self.frames as u64, index as u64);
        self.packets / frames + (index < self.packets % frames) as u64
    }

    /// Packets per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    pub fn per_second(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Frames handed to the kernel in one call.
const BATCH: usize = 64;

impl Lab {
    /// Sends the frames, in order and over and over, from a side's interface.
    pub fn send(&self, side: Side, frames: &[Vec<u8>], limit: &Limit<'_>) -> Result<Sent> {
        if frames.is_empty() {
            bail!("no frames to send");
        }
        self.in_ns(side, || send(side.interface(), frames, limit))?
    }
}

/// Sends from the interface of the namespace that this thread is in.
pub(super) fn send(interface: &str, frames: &[Vec<u8>], limit: &Limit<'_>) -> Result<Sent> {
    let socket = open(interface)?;

    // One turn through the list, repeated up to a whole number of batches.
    let turns = BATCH.div_ceil(frames.len());
    let slices: Vec<[IoSlice<'_>; 1]> = frames
        .iter()
        .cycle()
        .take(turns * frames.len())
        .map(|frame| [IoSlice::new(frame)])
        .collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, None);
    let nobody = [None; BATCH];

    let (mut packets, mut next) = (0, 0);
    let began = Instant::now();
    while !limit.reached(packets, began) {
        let left = usize::try_from(limit.packets - packets).unwrap_or(usize::MAX);
        let batch = &slices[next..slices.len().min(next + BATCH.min(left))];
        let taken = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            batch,
            nobody,
            [],
            MsgFlags::empty(),
        )
        .map(Iterator::count);
        match taken {
            Ok(taken) => {
                packets += taken as u64;
                next = (next + taken) % slices.len();
            }
            // The queue is full: wait for the receiver.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::sleep(Duration::from_micros(50)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(Sent {
        packets,
        time: began.elapsed(),
        frames: frames.len(),
    })
}

/// A socket that sends frames just as they are, from the interface of the namespace that
/// this thread is in.
pub(crate) fn open(interface: &str) -> Result<OwnedFd> {
    // No protocol: it receives nothing.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("cannot open a packet socket")?;
    bind(socket.as_raw_fd(), &address(interface)?)
        .with_context(|| format!("cannot send on {interface}"))?;
    Ok(socket)
}

/// The link-layer address of `interface`, with its index.
fn address(interface: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|address| address.interface_name == interface)
        .find_map(|address| {
            let address = address.address?;
            let link = address.as_link_addr()?;
            (address.family() == Some(AddressFamily::Packet)).then_some(*link)
        })
        .with_context(|| format!("there is no interface {interface}"))
}
