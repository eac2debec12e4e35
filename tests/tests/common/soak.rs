//! Policies that change under traffic, and whose each packet is accounted for.
//!
//! Two policies take turns. What comes from one network to one port passes by the first
//! policy alone, what comes from another network to another port by the second alone, and
//! a third kind by both; all else is dropped by both. So two kinds of packets say which
//! policy decided them, whatever became of them, and networks of one policy with ports of
//! the other would let pass what neither does.
//!
//! Packets are numbered and go through one queue, in their order. So what comes out says
//! of every packet that went in, also of those that are dropped, what became of it: the
//! deciding policy changes once for each change, and at no other packet.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, fs, process, thread};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use filter_common::verdict::{Reason, Verdict};
use filter_user::compile::Image;
use filter_user::datapath::{Compiled, Count, Datapath, Described, Mode, Policies, loaded_map_ids};
use filter_user::policy::endpoints::Host;
use filter_user::policy::{
    Labels, SelectOptions, Source, check, endpoints_for, only_endpoint, select,
};
use filter_user::ruleset::{Direction, Ruleset};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType,
    SockaddrLike as _, bind, recv, sendmmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tests::lab::{Daemon, Node, Side};
use tests::packet::{Ethernet, Ipv4, Ipv6, Udp};

const INTERFACE: &str = Side::Node.interface();
const BUDGET: u64 = 64 << 20;

/// How much is done.
pub(crate) struct Plan {
    /// Changes by this process, one `Datapath::apply` each.
    pub(crate) changes: u32,
    /// And by a daemon whose file is exchanged.
    pub(crate) by_daemon: u32,
    /// Packets at least, spread over all changes.
    pub(crate) packets: u64,
    /// Is told how far it is, now and then.
    pub(crate) progress: fn(&Progress),
    /// What is done wrong, to see that it is found.
    pub(crate) fault: Option<Fault>,
}

/// How changes may be made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What is in force is taken away before the next comes (ingress-node-firewall purges,
    /// then adds).
    PurgeThenAdd,
    /// For a moment the networks are those of one policy and the ports those of the other.
    Mixture,
    /// The old policy goes on.
    Stale,
    /// The next policy comes, goes, and comes again.
    ToAndFro,
    /// Counters begin again (bpfilter#389).
    ForgetsCounts,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::PurgeThenAdd,
        Self::Mixture,
        Self::Stale,
        Self::ToAndFro,
        Self::ForgetsCounts,
    ];

    /// What must be said of it, one of these.
    const fn is_seen_as(self) -> &'static [&'static str] {
        const LET_THROUGH: &str = "which neither policy lets through";
        const BY_ANOTHER: &str = "was decided by the policy behind";
        match self {
            Self::PurgeThenAdd => &[LET_THROUGH],
            Self::Mixture => &[LET_THROUGH, BY_ANOTHER],
            Self::Stale | Self::ToAndFro => &[BY_ANOTHER],
            Self::ForgetsCounts => &["are counted of"],
        }
    }
}

/// Makes changes wrong, which must be found; returns the words in which it was.
pub(crate) fn catches(fault: Fault) -> Result<String> {
    let plan = Plan {
        changes: 8,
        by_daemon: 0,
        packets: 40_000,
        progress: |_| {},
        fault: Some(fault),
    };
    match soak(&plan) {
        Ok(_) => bail!("{fault:?} was not caught"),
        Err(error) => {
            let said = format!("{error:#}");
            let mut words = fault.is_seen_as().iter();
            ensure!(words.any(|words| said.contains(words)), "{fault:?}: {said}");
            Ok(said)
        }
    }
}

/// How far it is.
pub(crate) struct Progress {
    changes: u64,
    packets: u64,
    time: Duration,
    /// Of this process, in KiB.
    resident: u64,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) changes: u64,
    pub(crate) packets: u64,
    pub(crate) passed: u64,
    pub(crate) dropped: u64,
    pub(crate) time: Duration,
    /// Old programs and maps that were looked for in the kernel, and were gone.
    pub(crate) gone: [usize; 2],
    pub(crate) memory: Memory,
    /// Of the daemon, if there was one.
    pub(crate) of_daemon: Option<Memory>,
}

/// What a process held after the first changes, and after the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident, in KiB.
    pub(crate) resident: [u64; 2],
    pub(crate) descriptors: [usize; 2],
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} changes under {} packets in {} s: {} passed and {} were dropped, each by the old \
             policy or the new one, with one change-over a change; all are counted",
            self.changes,
            self.packets,
            self.time.as_secs(),
            self.passed,
            self.dropped,
        )?;
        let [programs, maps] = self.gone;
        writeln!(
            f,
            "{programs} old programs and {maps} old maps were looked for in the kernel, and none \
             is there"
        )?;
        let held = [
            ("this process", Some(self.memory)),
            ("the daemon", self.of_daemon),
        ];
        for (who, memory) in held {
            let Some(memory) = memory else { continue };
            let [resident, later] = memory.resident;
            let [descriptors, at_last] = memory.descriptors;
            writeln!(
                f,
                "{who}: {resident} KiB resident and {descriptors} open files after the first \
                 changes, {later} KiB and {at_last} after the last"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes, {} packets, {} KiB resident, after {} s",
            self.changes,
            self.packets,
            self.resident,
            self.time.as_secs()
        )
    }
}

/// One of the two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

impl Turn {
    /// That of the generation behind so many changes.
    const fn after(changes: u64) -> Self {
        if changes.is_multiple_of(2) {
            Self::First
        } else {
            Self::Second
        }
    }
}

const SOURCES: [(Ipv4Addr, Ipv6Addr); 3] = [
    (
        Ipv4Addr::new(198, 51, 100, 7),
        Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 7),
    ),
    (
        Ipv4Addr::new(203, 0, 113, 7),
        Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 7),
    ),
    (
        Ipv4Addr::new(192, 0, 2, 7),
        Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7),
    ),
];
const PORTS: [u16; 3] = [9001, 9002, 9003];

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Only(Turn),
    Never,
    Always,
}

/// Packets of each kind, in their order, each for IPv4 and then for IPv6: which source, to
/// which port. The last one is let through, so that those before it are settled.
const KINDS: [(Kind, usize, usize); 5] = [
    (Kind::Only(Turn::First), 0, 0),
    (Kind::Only(Turn::Second), 1, 1),
    (Kind::Never, 0, 1),
    (Kind::Never, 1, 0),
    (Kind::Always, 2, 2),
];
const ROUND: usize = KINDS.len() * 2;
/// Packets that are handed to the kernel in one call.
const BATCH: usize = ROUND * 6;
/// Packets that may be under way: what the receiver's buffer holds in any case.
const WINDOW: u64 = 12_000;
/// Packets a second at most: enough for thousands within a change, and others may work too.
const RATE: u64 = 150_000;
/// What nothing may take longer than on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const MARK: [u8; 8] = *b"soaking:";

/// The frame of a number, without it, and where in the frame it belongs.
fn frame(place: usize) -> (Vec<u8>, usize) {
    let (_, source, port) = KINDS[place / 2];
    let udp = Udp {
        data: [MARK, [0; 8]].concat(),
        ..Udp::to(PORTS[port])
    };
    // To somebody else, so that the node's stack lets it be.
    let ethernet = Ethernet {
        dst: [2, 0, 0, 0, 0, 0x99],
        ..Ethernet::default()
    };
    let (v4, v6) = SOURCES[source];
    let bytes = if place.is_multiple_of(2) {
        ethernet.carry(&Ipv4::from(v4).carry(&udp))
    } else {
        ethernet.carry(&Ipv6::from(v6).carry(&udp))
    };
    let at = bytes.len() - 8;
    (bytes, at)
}

/// The document of a policy; `ports` are those of the first rule.
fn document(turn: Turn, ports: Turn) -> String {
    let place = |turn| usize::from(turn == Turn::Second);
    let mut text = String::new();
    // Many networks in each other: other tables, other counters, and a larger program.
    if turn == Turn::Second {
        text.push_str(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: \
             others}\nspec:\n  order: 5\n  ingress:\n",
        );
        for length in (16..=128).step_by(4) {
            let net = Ipv6Addr::from_bits(
                0xfd00_0001_0002_0003_0004_0005_0006_0007 & (u128::MAX << (128 - length)),
            );
            let _ = writeln!(
                text,
                "  - {{action: {}, source: {{nets: [\"{net}/{length}\"]}}}}",
                if length % 8 == 0 { "Deny" } else { "Allow" }
            );
        }
        text.push_str("---\n");
    }
    text.push_str(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: \
         soak}\nspec:\n  order: 10\n  ingress:\n",
    );
    for (source, port) in [(place(turn), place(ports)), (2, 2)] {
        let (v4, v6) = SOURCES[source];
        for net in [format!("{v4}/32"), format!("{v6}/128")] {
            let _ = writeln!(
                text,
                "  - {{action: Allow, protocol: UDP, source: {{nets: [\"{net}\"]}}, destination: \
                 {{ports: [{}]}}}}",
                PORTS[port],
            );
        }
    }
    text.push_str("  - {action: Deny, protocol: UDP}\n");
    text
}

/// A document on its way into the kernel.
struct Policy {
    ruleset: Ruleset,
    image: Image,
}

impl Policy {
    fn new(text: &str) -> Result<Self> {
        let sources = [Source::new("soak.yaml", text)];
        let checked = check(&sources);
        let model = checked.model.with_context(|| {
            filter_user::policy::diagnostic::render(&checked.diagnostics, &sources, false)
        })?;
        let (names, labels) = ([INTERFACE.to_owned()], Labels::new());
        let endpoints = endpoints_for(&model, &names, &labels, &Host::default())?;
        let endpoint = only_endpoint(endpoints)?;
        let options = SelectOptions::default();
        let ruleset = select(&model, &endpoint, Direction::Ingress, &options).ruleset;
        let image = Image::compile(&ruleset, BUDGET)?;
        Ok(Self { ruleset, image })
    }

    fn apply(&self, datapath: &Datapath) -> Result<()> {
        let policies = Policies {
            ingress: Compiled {
                ruleset: &self.ruleset,
                image: &self.image,
            },
            egress: None,
            described: &Described::default(),
        };
        datapath.apply(INTERFACE, Mode::Native, policies)?;
        Ok(())
    }
}

/// What sender, receiver and those who change know of each other.
#[derive(Default)]
struct Course {
    /// Packets that are handed to the kernel, or just being.
    sent: AtomicU64,
    /// Packets that are settled: all below this number.
    settled: AtomicU64,
    /// Changes that have begun.
    begun: AtomicU64,
    /// From which packet on which change is complete.
    complete: Mutex<VecDeque<(u64, u64)>>,
    /// The receiver hears what passes.
    listens: AtomicBool,
    /// No more is to be sent.
    stop: AtomicBool,
    /// No more will be sent.
    quiet: AtomicBool,
    /// Nor is anything received any more.
    end: AtomicBool,
}

impl Course {
    fn waits(&self, what: &str, mut until: impl FnMut() -> bool) -> Result<()> {
        let began = Instant::now();
        while !until() {
            ensure!(
                !self.end.load(Ordering::SeqCst),
                "it was ended, waiting for {what}"
            );
            ensure!(began.elapsed() < PATIENCE, "waited in vain for {what}");
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// A change that is begun now; returns its number.
    fn begins(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// What is sent from now on must be decided by this change's policy; waits until some was.
    fn is_complete(&self, change: u64) -> Result<()> {
        let from = self.sent.load(Ordering::SeqCst);
        let mut complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        complete.push_back((from, change));
        drop(complete);
        let enough = from + ROUND as u64;
        self.waits("packets behind a change", || {
            self.settled.load(Ordering::SeqCst) >= enough
        })
    }
}

/// Ends what others wait for, also on an error.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

// ---- sending and receiving

fn packet_socket(interface: &str, protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .context("cannot open a packet socket")?;
    let address = getifaddrs()?
        .filter(|address| address.interface_name == interface)
        .find_map(|address| {
            let address = address.address?;
            let link: LinkAddr = *address.as_link_addr()?;
            (address.family() == Some(AddressFamily::Packet)).then_some(link)
        })
        .with_context(|| format!("there is no interface {interface}"))?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// Sends until it is to stop; returns how many.
fn send(course: &Course) -> Result<u64> {
    let socket = packet_socket(Side::Client.interface(), None)?;
    let mut frames: Vec<(Vec<u8>, usize)> = (0..BATCH).map(|place| frame(place % ROUND)).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, None);
    let nobody = [None; BATCH];
    course.waits("the receiver", || course.listens.load(Ordering::SeqCst))?;
    let mut next = 0;
    let began = Instant::now();
    while !course.stop.load(Ordering::SeqCst) {
        let due = began + Duration::from_micros(next * 1_000_000 / RATE);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        course.waits("what is under way", || {
            next - course.settled.load(Ordering::SeqCst) < WINDOW
        })?;
        for (number, (frame, at)) in (next..).zip(&mut frames) {
            frame[*at..].copy_from_slice(&number.to_be_bytes());
        }
        course.sent.store(next + BATCH as u64, Ordering::SeqCst);
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let slices: Vec<[IoSlice<'_>; 1]> = rest
                .iter()
                .map(|(frame, _)| [IoSlice::new(frame)])
                .collect();
            let taken = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                nobody,
                [],
                MsgFlags::empty(),
            )
            .map(Iterator::count);
            match taken {
                Ok(taken) => rest = &rest[taken..],
                Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::sleep(Duration::from_micros(50)),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        next += BATCH as u64;
    }
    Ok(next)
}

/// What became of all packets so far.
#[derive(Clone, Debug, Default)]
struct Settled {
    next: u64,
    passed: u64,
    /// Frame bytes of those that passed, and of those that did not.
    bytes: [u64; 2],
    decides: Option<Turn>,
    changes: u64,
    /// The last change that is known to be complete.
    complete: u64,
}

impl Settled {
    fn settle(&mut self, number: u64, passed: bool, course: &Course, sizes: &[u64]) -> Result<()> {
        let place = usize::try_from(number)? % ROUND;
        let (kind, ..) = KINDS[place / 2];
        let by = match (kind, passed) {
            (Kind::Never, true) => {
                bail!("packet {number} passed, which neither policy lets through")
            }
            (Kind::Always, false) => {
                bail!("packet {number} is lost, which both policies let through")
            }
            (Kind::Never, false) | (Kind::Always, true) => None,
            (Kind::Only(turn), true) => Some(turn),
            (Kind::Only(turn), false) => Some(Turn::after(u64::from(turn == Turn::First))),
        };
        self.passed += u64::from(passed);
        self.bytes[usize::from(!passed)] += sizes[place];
        self.next = number + 1;
        let Some(by) = by else { return Ok(()) };
        if self.decides.is_some_and(|before| before != by) {
            self.changes += 1;
        }
        self.decides = Some(by);
        let mut complete = course
            .complete
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some((_, change)) = complete.pop_front_if(|(from, _)| *from <= number) {
            self.complete = change;
        }
        drop(complete);
        // One that has begun may be seen, and one that is complete must be.
        let begun = course.begun.load(Ordering::SeqCst);
        ensure!(
            (self.complete..=begun).contains(&self.changes),
            "packet {number} was decided by the policy behind {} changes: {} were complete, and \
             {begun} had begun",
            self.changes,
            self.complete
        );
        Ok(())
    }
}

/// Receives what passes, until all is settled that was sent.
fn receive(course: &Course) -> Result<Settled> {
    let _end = Ends(&course.end);
    let _stop = Ends(&course.stop);
    let socket = packet_socket(INTERFACE, Some(SockProtocol::EthAll))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(256 << 20))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
    let frames: Vec<(Vec<u8>, usize)> = (0..ROUND).map(frame).collect();
    let sizes: Vec<u64> = frames.iter().map(|(frame, _)| frame.len() as u64).collect();
    course.listens.store(true, Ordering::SeqCst);
    let mut settled = Settled::default();
    let mut buffer = [0; 2048];
    let mut heard = Instant::now();
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let Some(number) = number_of(&buffer[..length]) else {
                    continue;
                };
                ensure!(
                    number >= settled.next,
                    "packet {number} came after {}",
                    settled.next
                );
                for dropped in settled.next..number {
                    settled.settle(dropped, false, course, &sizes)?;
                }
                settled.settle(number, true, course, &sizes)?;
                course.settled.store(settled.next, Ordering::SeqCst);
                heard = Instant::now();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let quiet = course.quiet.load(Ordering::SeqCst);
                let sent = course.sent.load(Ordering::SeqCst);
                if quiet && settled.next == sent {
                    return Ok(settled);
                }
                ensure!(
                    heard.elapsed() < PATIENCE,
                    "nothing passes any more: {} of {sent} packets are settled",
                    settled.next
                );
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

/// The number of a packet of ours.
fn number_of(frame: &[u8]) -> Option<u64> {
    let (rest, number) = frame.split_last_chunk()?;
    rest.ends_with(&MARK).then(|| u64::from_be_bytes(*number))
}

// ---- what is held

/// Resident memory in KiB, and open files, of a process.
fn held(process: u32) -> Result<(u64, usize)> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
        .context("the kernel says no VmRSS")?;
    Ok((
        resident,
        fs::read_dir(format!("/proc/{process}/fd"))?.count(),
    ))
}

/// What a process holds after each change.
struct Watch {
    process: u32,
    seen: Vec<(u64, usize)>,
}

impl Watch {
    fn new(process: u32) -> Self {
        Self {
            process,
            seen: Vec::new(),
        }
    }

    fn look(&mut self) -> Result<()> {
        self.seen.push(held(self.process)?);
        Ok(())
    }

    /// The least that it held of some changes after the first ones, and of the last: for a
    /// moment a change takes a third more.
    fn memory(&self) -> Result<Memory> {
        let end = self.seen.len();
        let lowest = |range: Range<usize>| {
            let of = || self.seen[range.clone()].iter();
            let (resident, descriptors) = (of().map(|seen| seen.0), of().map(|seen| seen.1));
            resident.min().zip(descriptors.min())
        };
        let first = lowest(WARM.min(end).saturating_sub(LOOKS)..WARM.min(end));
        let last = lowest(end.saturating_sub(LOOKS)..end);
        let (first, last) = first.zip(last).context("nothing was changed")?;
        let memory = Memory {
            resident: [first.0, last.0],
            descriptors: [first.1, last.1],
        };
        // What allocators keep for a thread.
        ensure!(
            last.0 <= first.0 + 8 * 1024 && last.1 <= first.1,
            "memory or open files grow: {memory:?}"
        );
        Ok(memory)
    }
}

/// The generations that were in force.
struct Past {
    pins: PathBuf,
    programs: Vec<u32>,
    maps: BTreeSet<u32>,
    /// What there is beside them in the folder of pins.
    beside: Option<BTreeSet<String>>,
}

/// The maps of every so manieth generation are noted: to ask for them takes a walk over
/// all programs of the machine.
const NOTED: u64 = 8;

impl Past {
    /// The program in force: there is one generation, and nothing else is pinned but what
    /// always is.
    fn in_force(&mut self) -> Result<u32> {
        let mut programs = Vec::new();
        let mut beside = BTreeSet::new();
        for entry in fs::read_dir(self.pins.join(INTERFACE))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match name.parse() {
                Ok(program) => programs.push(program),
                Err(_) => drop(beside.insert(name)),
            }
        }
        let [program] = programs[..] else {
            bail!("generations {programs:?} are pinned");
        };
        let before = self.beside.get_or_insert_with(|| beside.clone());
        ensure!(
            *before == beside,
            "{beside:?} are pinned, where {before:?} were"
        );
        Ok(program)
    }

    fn note(&mut self, change: u64) -> Result<()> {
        let program = self.in_force()?;
        self.programs.push(program);
        if change.is_multiple_of(NOTED) {
            self.maps.extend(maps_of(program)?);
        }
        Ok(())
    }

    /// Of all that was in force, the kernel has only what is; returns how much was looked for.
    fn is_gone(&mut self) -> Result<[usize; 2]> {
        let last = self.in_force()?;
        let kept: BTreeSet<u32> = maps_of(last)?.into_iter().collect();
        let programs: BTreeSet<u32> = self
            .programs
            .iter()
            .copied()
            .filter(|id| *id != last)
            .collect();
        let maps: BTreeSet<u32> = self.maps.difference(&kept).copied().collect();
        let mut left = Vec::new();
        // The kernel lets go of them a moment later.
        for _ in 0..100 {
            left.clear();
            let there = loaded_programs()
                .filter_map(Result::ok)
                .map(|info| info.id());
            left.extend(
                there
                    .filter(|id| programs.contains(id))
                    .map(|id| ("program", id)),
            );
            let there = loaded_map_ids()?;
            left.extend(maps.intersection(&there).map(|id| ("map", *id)));
            if left.is_empty() {
                return Ok([programs.len(), maps.len()]);
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("of generations that are gone the kernel still has {left:?}");
    }
}

fn maps_of(program: u32) -> Result<Vec<u32>> {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == program)
        .with_context(|| format!("there is no program {program}"))?;
    info.map_ids()?
        .context("this kernel tells no maps of programs")
}

// ---- changing

/// Changes the policy by this process.
struct Changer {
    datapath: Datapath,
    policies: [Policy; 2],
    mixture: Policy,
    fault: Option<Fault>,
}

impl Changer {
    fn new(pins: &Path, fault: Option<Fault>) -> Result<Self> {
        let policy = |turn| Policy::new(&document(turn, turn));
        let changer = Self {
            datapath: Datapath::open(pins)?,
            policies: [policy(Turn::First)?, policy(Turn::Second)?],
            mixture: Policy::new(&document(Turn::First, Turn::Second))?,
            fault,
        };
        // Of both programs that there are.
        let small = changer
            .policies
            .each_ref()
            .map(|policy| policy.image.layout().is_small());
        ensure!(small == [true, false], "small programs: {small:?}");
        Ok(changer)
    }

    fn change(&self, number: u64) -> Result<()> {
        let place = |turn| usize::from(turn == Turn::Second);
        let new = &self.policies[place(Turn::after(number))];
        let old = &self.policies[place(Turn::after(number + 1))];
        match self.fault {
            // Once is enough, and not at once.
            Some(Fault::PurgeThenAdd) if number == 5 => {
                self.datapath.detach(INTERFACE)?;
                thread::sleep(Duration::from_millis(20));
            }
            Some(Fault::Mixture) if number == 5 => self.mixture.apply(&self.datapath)?,
            Some(Fault::Stale) if number == 5 => return old.apply(&self.datapath),
            Some(Fault::ToAndFro) if number == 5 => {
                new.apply(&self.datapath)?;
                thread::sleep(Duration::from_millis(20));
                old.apply(&self.datapath)?;
                thread::sleep(Duration::from_millis(20));
            }
            _ => {}
        }
        new.apply(&self.datapath)
    }
}

/// Changes before memory is measured: allocators and caches have what they want by then.
const WARM: usize = 100;
/// Changes that it is measured after, each time.
const LOOKS: usize = 50;

/// Does all that; what is found wrong is the error.
pub(crate) fn soak(plan: &Plan) -> Result<Report> {
    let node = Node::new()?;
    let course = Course::default();
    let began = Instant::now();
    let all = thread::scope(|scope| {
        let changer = Changer::new(node.pins(), plan.fault)?;
        node.lab()
            .in_ns(Side::Node, || changer.policies[0].apply(&changer.datapath))??;
        let receiver = scope.spawn(|| node.lab().in_ns(Side::Node, || receive(&course))?);
        let sender = scope.spawn(|| {
            let _quiet = Ends(&course.quiet);
            node.lab().in_ns(Side::Client, || send(&course))?
        });
        let outcome = {
            // Also where it fails.
            let _stop = Ends(&course.stop);
            node.lab()
                .in_ns(Side::Node, || change(plan, &node, &course, &changer, began))?
        };
        let sent = sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let settled = receiver
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What the receiver found is why the others failed.
        Ok::<_, anyhow::Error>((settled?, sent?, outcome?))
    });
    let (settled, sent, (gone, memory, of_daemon)) = all?;
    let changes = u64::from(plan.changes + plan.by_daemon);
    ensure!(
        settled.changes == changes,
        "the deciding policy changed {} times by {changes} changes",
        settled.changes
    );
    ensure!(
        settled.next == sent,
        "{} of {sent} packets are settled",
        settled.next
    );
    node.lab()
        .in_ns(Side::Node, || counted(&node, &settled))??;
    Ok(Report {
        changes,
        packets: sent,
        passed: settled.passed,
        dropped: sent - settled.passed,
        time: began.elapsed(),
        gone,
        memory,
        of_daemon,
    })
}

type Changed = ([usize; 2], Memory, Option<Memory>);

fn change(
    plan: &Plan,
    node: &Node,
    course: &Course,
    changer: &Changer,
    began: Instant,
) -> Result<Changed> {
    let mut past = Past {
        pins: node.pins().to_owned(),
        programs: Vec::new(),
        maps: BTreeSet::new(),
        beside: None,
    };
    past.note(0)?;
    let mut of_us = Watch::new(process::id());
    let all = u64::from(plan.changes + plan.by_daemon);
    // Packets are spread over the changes.
    let pace = |change: u64| {
        let due = plan.packets / all * (change - 1);
        course.waits("packets before a change", || {
            course.sent.load(Ordering::SeqCst) >= due
        })
    };
    let tell = |change: u64| {
        if change.is_multiple_of(500) {
            let packets = course.settled.load(Ordering::SeqCst);
            let (resident, _) = held(process::id()).unwrap_or_default();
            (plan.progress)(&Progress {
                changes: change,
                packets,
                time: began.elapsed(),
                resident,
            });
        }
    };
    for _ in 0..plan.changes {
        let number = course.begins();
        pace(number)?;
        changer.change(number)?;
        course.is_complete(number)?;
        past.note(number)?;
        of_us.look()?;
        tell(number);
    }
    let memory = of_us.memory()?;

    let mut of_daemon = None;
    if plan.by_daemon > 0 {
        let folder = node.files().join("policies.d");
        fs::create_dir(&folder)?;
        let put = |number: u64| {
            let turn = Turn::after(number);
            let new = node.files().join("new");
            fs::write(&new, document(turn, turn))?;
            // As editors do: a new file in the place of the old one.
            fs::rename(new, folder.join("soak.yaml"))
        };
        put(u64::from(plan.changes))?;
        let arguments = ["--interface", INTERFACE, "--no-http", "-f"];
        let path = folder.to_str().context("a path in UTF-8")?;
        let daemon = Daemon::start(node, &[&arguments[..], &[path]].concat());
        daemon.says("in force", 1);
        // It looks after what goes out as well.
        past.beside = None;
        let mut watch = Watch::new(daemon.pid());
        for _ in 0..plan.by_daemon {
            let before = past.in_force()?;
            let number = course.begins();
            pace(number)?;
            put(number)?;
            // Until the change is finished, two generations are pinned.
            course.waits("the daemon", || {
                past.in_force().is_ok_and(|now| now != before)
            })?;
            course.is_complete(number)?;
            past.note(number)?;
            watch.look()?;
            tell(number);
        }
        of_daemon = Some(watch.memory()?);
        ensure!(
            daemon.stop().success(),
            "the daemon did not end as it should"
        );
    }
    course.waits("the last packets", || {
        course.sent.load(Ordering::SeqCst) >= plan.packets
    })?;
    if plan.fault == Some(Fault::ForgetsCounts) {
        // When nothing comes any more, so that it is the only thing wrong.
        course.stop.store(true, Ordering::SeqCst);
        let settled =
            || course.settled.load(Ordering::SeqCst) == course.sent.load(Ordering::SeqCst);
        course.waits("the sender", || {
            course.quiet.load(Ordering::SeqCst) && settled()
        })?;
        changer.datapath.detach(INTERFACE)?;
        changer.policies[0].apply(&changer.datapath)?;
    }
    Ok((past.is_gone()?, memory, of_daemon))
}

/// What is counted is what was sent: by rule and reason over all generations, and by the driver.
fn counted(node: &Node, settled: &Settled) -> Result<()> {
    let datapath = Datapath::open(node.pins())?;
    let stats = datapath.stats(Some(INTERFACE))?;
    let stats = stats.first().context("nothing is counted")?;
    let of = |reason, verdict| {
        let mut reasons = stats.reasons.iter();
        let its = reasons.find(|(its, given, _)| (*its, *given) == (reason, verdict));
        its.map(|(_, _, count)| *count).unwrap_or_default()
    };
    let dropped = settled.next - settled.passed;
    let expected = [
        (settled.passed, settled.bytes[0]),
        (dropped, settled.bytes[1]),
    ];
    let [passed, lost] = expected.map(|(packets, bytes)| Count { packets, bytes });
    let allowed = of(Reason::PolicyAllow, Verdict::Pass);
    ensure!(
        allowed == passed,
        "{allowed:?} are counted of {passed:?} that passed"
    );
    let denied = of(Reason::PolicyDeny, Verdict::Drop);
    ensure!(
        denied == lost,
        "{denied:?} are counted of {lost:?} that were dropped"
    );
    // A rule that both policies have goes on counting, wherever it stands.
    for index in [2, 3] {
        let mut rules = stats.rules();
        let rule =
            rules.find(|(rule, _)| &*rule.id.policy == "soak" && rule.id.index == Some(index));
        let (_, count) = rule.context("there is no such rule")?;
        let sent = settled.next / ROUND as u64;
        ensure!(
            count.packets == sent,
            "{} packets are counted of {sent} that both policies let through",
            count.packets
        );
    }
    let all = stats.total(Verdict::Drop).packets;
    let driver = node
        .lab()
        .driver_counter(Side::Node, "rx_queue_", "_xdp_drops")?;
    ensure!(
        driver == all,
        "the driver dropped {driver}, and nodewall {all}"
    );
    Ok(())
}
