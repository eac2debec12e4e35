//! Many packets in one system call: the shim of `filter-ebpf`'s bench object
//! puts one frame of a corpus after the other before a program that is not
//! changed for it.
//!
//! A program is timed against the empty one behind the same shim with the same
//! frames: what is between the two is the program's own.

use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Map, MapData};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use filter_common::bench::{self, CASE_BYTES, Case, LINE_WORDS, Line, Walk};
use nix::time::{ClockId, clock_gettime};

use super::error::Error;
use super::interface;
use super::sys::{self, Mapping};

/// The compiled bench programs of `filter-ebpf`.
#[cfg(feature = "bpf")]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/nodewall-bench.bpf.o"
)));
#[cfg(not(feature = "bpf"))]
static OBJECT: Option<&[u8]> = None;

const LINES: &str = "LINES";
const CASES: &str = "CASES";
const WALK: &str = "WALK";

/// Live frames that are sent at once; the kernel's own default.
const LIVE_BATCH: u32 = 64;

/// What the frames of a corpus have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All have `frame` bytes, and differ in the first `header` alone: what it
    /// takes to put one into the packet is almost nothing.
    Flows {
        /// At most [`Corpus::MAX_HEADER`].
        header: usize,
        /// At least 14, and at least `header` with what is behind its Ethernet
        /// header rounded up to 8.
        frame: usize,
    },
    /// Frames of any length from 14 bytes to [`Corpus::MAX_CASE`]. Beyond
    /// [`Corpus::CASE_BYTES`] they are zero.
    Cases,
}

/// A program to run.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub(super) program: Option<BorrowedFd<'a>>,
    pub(super) frags: bool,
    /// What the empty program returns, where it is that.
    passes: bool,
}

impl<'a> Target<'a> {
    /// The empty program (`XDP_DROP`): the floor.
    pub const EMPTY: Self = Self {
        program: None,
        frags: true,
        passes: false,
    };
    /// The empty program that lets everything pass (`XDP_PASS`).
    pub const PASS: Self = Self {
        program: None,
        frags: true,
        passes: true,
    };
    /// The same for programs that take no fragments.
    pub const EMPTY_LINEAR: Self = Self {
        program: None,
        frags: false,
        passes: false,
    };

    /// Any loaded XDP program; `frags`: whether it was loaded as one that takes
    /// packets in several buffers (`xdp.frags`).
    #[must_use]
    pub const fn program(program: BorrowedFd<'a>, frags: bool) -> Self {
        Self {
            program: Some(program),
            frags,
            passes: false,
        }
    }

    /// The empty program of the same kind.
    #[must_use]
    pub const fn floor(self) -> Self {
        if self.frags {
            Self::EMPTY
        } else {
            Self::EMPTY_LINEAR
        }
    }
}

/// How long a run took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Packets.
    pub packets: u32,
    /// Time of this thread on a CPU: what other threads took is not in it.
    pub time: Duration,
}

impl Took {
    /// Nanoseconds a packet.
    #[must_use]
    pub fn ns_per_packet(self) -> f64 {
        self.time.as_secs_f64() * 1e9 / f64::from(self.packets)
    }
}

/// Frames in a map of the kernel's, and the programs that put them before
/// another.
///
/// Packets are run in the order of the frames, again from the first after the
/// last; see [`Self::scatter`].
pub struct Corpus {
    shim: Ebpf,
    shape: Shape,
    frames: Mapping,
    walk: Mapping,
    /// What of the packet no frame changes.
    packet: Vec<u8>,
    capacity: u32,
    length: u32,
    stride: u32,
    /// Whether the empty program, without fragments and with, is behind the
    /// shim at present.
    empty: [bool; 2],
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Corpus")
            .field("shape", &self.shape)
            .field("length", &self.length)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Corpus {
    /// Longest header of [`Shape::Flows`].
    pub const MAX_HEADER: usize = 126;
    /// Bytes of a case that may differ from zero.
    pub const CASE_BYTES: usize = CASE_BYTES;
    /// Longest frame of [`Shape::Cases`]: what a linear packet holds.
    pub const MAX_CASE: usize = 3520;

    /// Room for `capacity` frames.
    pub fn new(shape: Shape, capacity: u32) -> Result<Self, Error> {
        let object = OBJECT.ok_or_else(|| {
            Error::Failed(
                "this nodewall was built without its BPF programs, so it can't run any. Build the \
                 whole with `cargo xtask build --release`."
                    .to_owned(),
            )
        })?;
        if capacity == 0 {
            return Err(Error::Failed("a corpus needs frames".to_owned()));
        }
        let (words, lines, cases, packet) = match shape {
            Shape::Cases => (0, 1, capacity, 14),
            Shape::Flows { header, frame } => {
                let words = bench::words(header);
                if header > Self::MAX_HEADER || frame < bench::place(words) {
                    return Err(Error::Failed(format!(
                        "frames of {frame} bytes with headers of {header} can't be run behind the \
                         shim"
                    )));
                }
                let lines = lines_of(header);
                let lines = u32::try_from(lines)
                    .ok()
                    .and_then(|lines| lines.checked_mul(capacity))
                    .ok_or_else(|| Error::Failed("a corpus can't be that large".to_owned()))?;
                (u32::try_from(words).unwrap_or(0), lines, 1, frame)
            }
        };
        let mut shim = EbpfLoader::new()
            .map_max_entries(LINES, lines)
            .map_max_entries(CASES, cases)
            .override_global("HEADER_WORDS", &words, true)
            .load(object)
            .map_err(|error| Error::aya("cannot create the maps of the bench", &error))?;
        let others = ["empty", "empty_frags", "pass_frags", "send"];
        for name in programs(shape).into_iter().chain(others) {
            xdp(&mut shim, name)?
                .load()
                .map_err(|error| Error::aya("cannot load the bench's programs", &error))?;
        }
        let (map, bytes) = match shape {
            Shape::Cases => (CASES, size_of::<Case>() * cases as usize),
            Shape::Flows { .. } => (LINES, size_of::<Line>() * lines as usize),
        };
        Ok(Self {
            frames: mapping(&shim, map, bytes)?,
            walk: mapping(&shim, WALK, size_of::<Walk>())?,
            shim,
            shape,
            packet: vec![0; packet],
            capacity,
            length: 0,
            stride: 1,
            empty: [false; 2],
        })
    }

    /// Puts a frame behind the last one. Where there is no room for it, or it
    /// does not fit the shape, that is an error.
    pub fn push(&mut self, frame: &[u8]) -> Result<(), Error> {
        if self.length == self.capacity {
            return Err(Error::Failed(format!(
                "the corpus has room for {} frames",
                self.capacity
            )));
        }
        let at = self.length as usize;
        match self.shape {
            Shape::Cases => {
                let beyond = frame.get(CASE_BYTES..).unwrap_or_default();
                if frame.len() < 14
                    || frame.len() > Self::MAX_CASE
                    || beyond.iter().any(|byte| *byte != 0)
                {
                    return Err(Error::Failed(format!(
                        "a frame of {} bytes can't be a case: from 14 to {} bytes, nothing but \
                         zeros beyond {CASE_BYTES}",
                        frame.len(),
                        Self::MAX_CASE
                    )));
                }
                let cases: &mut [Case] = bytemuck::cast_slice_mut(self.frames.bytes_mut());
                let case = &mut cases[at];
                let captured = frame.len().min(CASE_BYTES);
                case.bytes[..captured].copy_from_slice(&frame[..captured]);
                // Both fit, as compared above.
                case.length = u32::try_from(frame.len()).unwrap_or(0);
                case.captured = u32::try_from(captured).unwrap_or(0);
            }
            Shape::Flows {
                header,
                frame: length,
            } => {
                if frame.len() != length
                    || (at > 0 && frame[header..] != self.packet[header..length])
                {
                    return Err(Error::Failed(
                        "the frames of these flows differ in more than their headers".to_owned(),
                    ));
                }
                self.packet.copy_from_slice(frame);
                let stride = lines_of(header) * size_of::<Line>();
                let line = &mut self.frames.bytes_mut()[at * stride..][..stride];
                for (index, word) in (0..bench::words(header)).zip(line.as_chunks_mut().0) {
                    *word = frame_word(frame, index);
                }
            }
        }
        self.length += 1;
        // Of another length now.
        self.stride = 1;
        Ok(())
    }

    /// Reads a frame back into `frame`; makes it empty where there is none.
    pub fn read(&self, index: u32, frame: &mut Vec<u8>) {
        frame.clear();
        if index >= self.length {
            return;
        }
        let at = index as usize;
        match self.shape {
            Shape::Cases => {
                let cases: &[Case] = bytemuck::cast_slice(self.frames.bytes());
                let case = &cases[at];
                frame.extend(&case.bytes[..case.captured as usize]);
                frame.resize(case.length as usize, 0);
            }
            Shape::Flows { header, .. } => {
                let stride = lines_of(header) * size_of::<Line>();
                frame.extend(&self.packet);
                let line = &self.frames.bytes()[at * stride..][..stride];
                for (index, word) in (0..bench::words(header)).zip(line.as_chunks::<8>().0) {
                    frame[bench::place(index)..][..8].copy_from_slice(word);
                }
            }
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.length = 0;
        self.stride = 1;
    }

    /// The number of frames.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Room for frames.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Walks over the frames in an order that looks random, each once a round,
    /// so that no prefetcher helps. For frames that come in an order of their
    /// own, as those of a capture. Holds until a frame comes to them.
    pub fn scatter(&mut self, scatter: bool) {
        self.stride = 1;
        if !scatter || self.length < 3 {
            return;
        }
        // Near the golden ratio of the length, and without a common divisor.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of the length"
        )]
        let mut stride = (f64::from(self.length) * 0.618_033_988_749_895) as u32;
        while stride > 1 && divisor(stride, self.length) != 1 {
            stride -= 1;
        }
        self.stride = stride.max(1);
    }

    /// Runs all frames once.
    pub fn run(&mut self, target: Target<'_>) -> Result<Took, Error> {
        self.run_some(target, 0..self.length, self.length)
    }

    /// Runs `packets` packets of the frames of `range`, from its first on and
    /// round and round.
    pub fn run_some(
        &mut self,
        target: Target<'_>,
        range: Range<u32>,
        packets: u32,
    ) -> Result<Took, Error> {
        if range.is_empty() || range.end > self.length || packets == 0 {
            return Err(Error::Failed(
                "there are no such frames in this corpus".to_owned(),
            ));
        }
        self.put_behind(target)?;
        let length = range.end - range.start;
        let stride = if length == self.length {
            self.stride
        } else {
            1
        };
        self.set_walk(Walk {
            next: range.start,
            stride,
            end: range.end,
            length,
            ..Walk::default()
        });
        let [linear, frags] = programs(self.shape);
        let program = xdp(&mut self.shim, if target.frags { frags } else { linear })?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.packet);
        options.repeat = packets;
        let began = cpu_time()?;
        program
            .test_run(options)
            .map_err(|error| Error::aya("BPF_PROG_TEST_RUN failed", &error))?;
        let time = cpu_time()?.saturating_sub(began);
        self.none_missed(packets)?;
        Ok(Took { packets, time })
    }

    /// Makes `target` the program that the shim calls.
    fn put_behind(&mut self, target: Target<'_>) -> Result<(), Error> {
        let slot = usize::from(target.frags);
        let empty = target.program.is_none() && !target.passes;
        if empty && self.empty[slot] {
            return Ok(());
        }
        let map = if target.frags { "NEXT_FRAGS" } else { "NEXT" };
        let empty = self.empty(target)?;
        let program = target.program.unwrap_or(empty.as_fd());
        let map = map_data(&self.shim, map)?.fd().as_fd();
        sys::set_program(map, 0, program).map_err(|error| {
            Error::io(
                "cannot put the program behind the shim. It must be a loaded XDP program, \
                     with support for fragments or without as said",
                &error,
            )
        })?;
        self.empty[slot] = target.program.is_none() && !target.passes;
        Ok(())
    }

    /// The empty program that stands for `target` where it has none.
    pub(super) fn empty(&mut self, target: Target<'_>) -> Result<OwnedFd, Error> {
        self.descriptor(match target {
            Target { passes: true, .. } => "pass_frags",
            Target { frags: true, .. } => "empty_frags",
            Target { frags: false, .. } => "empty",
        })
    }

    fn descriptor(&mut self, name: &str) -> Result<OwnedFd, Error> {
        let descriptor = xdp(&mut self.shim, name)?
            .fd()
            .map_err(|error| Error::aya("cannot use the bench's programs", &error))?;
        descriptor
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::io("cannot use the bench's programs", &error))
    }

    /// Attaches `target` in native mode to an interface of the caller's network
    /// namespace, for as long as what is returned lives.
    pub fn attach(&mut self, target: Target<'_>, interface: &str) -> Result<OwnedFd, Error> {
        let index = interface::by_name(interface)?.index;
        let empty = self.empty(target)?;
        let program = target.program.unwrap_or(empty.as_fd());
        sys::link_create(program, index, sys::XDP_DRV_MODE)
            .map_err(|error| Error::io(format_args!("cannot attach to {interface}"), &error))
    }

    /// Sends `packets` live frames, round and round over the flows, out of an
    /// interface of the caller's network namespace. What receives them, on the
    /// other end of a veth pair, mostly does so in the same call, and the time
    /// is that of both; where there is much to do the kernel leaves some of it
    /// to its own threads (`ksoftirqd`), whose time is not in it.
    pub fn send(&mut self, interface: &str, packets: u32) -> Result<Took, Error> {
        let send_to = interface::by_name(interface)?.index;
        if self.length == 0 || self.shape == Shape::Cases {
            return Err(Error::Failed("there are no flows to send".to_owned()));
        }
        let send = self.descriptor("send")?;
        sys::set_program(map_data(&self.shim, "NEXT")?.fd().as_fd(), 0, send.as_fd())
            .map_err(|error| Error::io("cannot put the sender behind the shim", &error))?;
        self.empty[0] = false;
        self.set_walk(Walk {
            stride: self.stride,
            end: self.length,
            length: self.length,
            send_to,
            ..Walk::default()
        });
        let [flows, _] = programs(self.shape);
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.packet);
        options.repeat = packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(LIVE_BATCH);
        let began = cpu_time()?;
        xdp(&mut self.shim, flows)?
            .test_run(options)
            .map_err(|error| Error::aya("cannot send live frames", &error))?;
        let time = cpu_time()?.saturating_sub(began);
        self.none_missed(packets)?;
        Ok(Took { packets, time })
    }

    fn set_walk(&mut self, walk: Walk) {
        let place: &mut [Walk] = bytemuck::cast_slice_mut(self.walk.bytes_mut());
        place[0] = walk;
    }

    fn none_missed(&self, packets: u32) -> Result<(), Error> {
        let walk: &[Walk] = bytemuck::cast_slice(self.walk.bytes());
        match walk[0].missed {
            0 => Ok(()),
            missed => Err(Error::Failed(format!(
                "{missed} of {packets} frames could not be run behind the shim"
            ))),
        }
    }
}

/// Without fragments, and with them.
fn programs(shape: Shape) -> [&'static str; 2] {
    match shape {
        Shape::Flows { .. } => ["flows", "flows_frags"],
        Shape::Cases => ["cases", "cases_frags"],
    }
}

fn lines_of(header: usize) -> usize {
    bench::words(header).div_ceil(LINE_WORDS)
}

/// The bytes of a frame that a flow's word holds.
fn frame_word(frame: &[u8], index: usize) -> [u8; 8] {
    let mut word = [0; 8];
    word.copy_from_slice(&frame[bench::place(index)..][..8]);
    word
}

fn divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn cpu_time() -> Result<Duration, Error> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .map_err(|error| Error::Failed(format!("cannot read the clock: {error}")))
}

fn broken(name: &str) -> Error {
    Error::Failed(format!(
        "the embedded bench object has no {name}: this build is broken, please report it"
    ))
}

fn xdp<'a>(shim: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    shim.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| broken(name))
}

fn map_data<'a>(shim: &'a Ebpf, name: &str) -> Result<&'a MapData, Error> {
    match shim.map(name) {
        Some(Map::Array(map) | Map::ProgramArray(map)) => Ok(map),
        _ => Err(broken(name)),
    }
}

fn mapping(shim: &Ebpf, name: &str, bytes: usize) -> Result<Mapping, Error> {
    Mapping::new(map_data(shim, name)?.fd().as_fd(), bytes)
        .map_err(|error| Error::io(format_args!("cannot map {name} into memory"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divisor_is_common() {
        assert_eq!(divisor(12, 18), 6);
        assert_eq!(divisor(7, 1_000_000), 1);
    }

    #[test]
    fn a_header_takes_lines() {
        assert_eq!(lines_of(54), 1);
        assert_eq!(lines_of(62), 1);
        assert_eq!(lines_of(63), 2);
        assert_eq!(lines_of(74), 2);
        assert_eq!(lines_of(Corpus::MAX_HEADER), 2);
    }
}
