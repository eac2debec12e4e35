//! What a ruleset costs on this machine: nanoseconds a packet over the empty
//! program, memory, and how long it takes to be in force.
//!
//! Touches no interface: packets run through `BPF_PROG_TEST_RUN`, and what is
//! swapped is swapped in a network namespace of its own. The program's counters
//! are compared with the host's answers, packet by packet of the corpus, so
//! that a number can't come from work that was not done.

mod flow;
pub mod machine;
mod random;
mod timing;
mod traffic;

use std::time::{Duration, Instant};

use serde::Serialize;

pub use flow::{DESTINATION, Flow, SOURCE, V4_FRAME, V4_HEADER, V6_FRAME, V6_HEADER};
pub use random::Random;
pub use timing::{Cost, Frames, Timing, compare};
pub use traffic::Traffic;

use crate::compile::{Combination, Image};
use crate::datapath::{Corpus, Count, Error, ProgramSize, Shape, TestBench};
use crate::ruleset::{Ruleset, Stage};
use filter_common::verdict::Verdict;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Turns of the empty program and ours.
    pub rounds: u32,
    /// Packets of one flow in a turn.
    pub warm_packets: u32,
    /// Swaps.
    pub swaps: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 15,
            warm_packets: 200_000,
            swaps: 5,
        }
    }
}

/// What the packets of a corpus are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Packets {
    /// `random` over the ruleset, or `capture`.
    pub source: &'static str,
    /// Different packets.
    pub flows: u32,
    /// The part of them that a rule decides.
    pub by_rule: f64,
    /// The part of them that is dropped.
    pub dropped: f64,
}

/// The kernel's maps of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// As the kernel accounts them.
    pub maps_bytes: u64,
    /// The compiled tables.
    pub tables_bytes: u64,
}

/// What was measured of a ruleset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The packets.
    pub packets: Packets,
    /// One flow again and again: everything is in the caches.
    pub warm: Cost,
    /// All flows, one after the other.
    pub random: Cost,
    /// Rules, failsafe rules and ends of tiers among them.
    pub rules: u64,
    /// Networks that the rules name, each as often as one does.
    pub prefixes: u64,
    /// How classes are combined.
    pub combination: Combination,
    /// The program as the kernel has it.
    pub program: ProgramSize,
    /// Its maps.
    pub memory: Memory,
    /// From the ruleset to the tables.
    pub compile_ms: f64,
    /// From the tables to a program that could be attached.
    pub load_ms: f64,
    /// From there until it is in force; `None` where it could not be measured,
    /// for the reason in `no_swap`.
    pub swap_ms: Option<Timing>,
    /// Why `swap_ms` is missing.
    pub no_swap: Option<String>,
}

/// The frames to measure with: random ones, or somebody's.
pub enum Source<'a> {
    /// Random over the ruleset; this many, from this seed.
    Random {
        /// Different packets.
        flows: u32,
        /// The same seed makes the same packets.
        seed: u64,
    },
    /// These, of 14 bytes each at least.
    Frames(&'a [Vec<u8>]),
}

/// A number of random flows that walks over all of the ruleset's tables.
#[must_use]
pub fn enough_flows(prefixes: u64) -> u32 {
    let wanted = prefixes.saturating_mul(4).clamp(1 << 16, 1_000_000);
    u32::try_from(wanted).unwrap_or(1_000_000)
}

/// Measures a ruleset.
pub fn measure(
    ruleset: &Ruleset,
    max_memory: u64,
    source: &Source<'_>,
    effort: Effort,
) -> Result<Report, Error> {
    let began = Instant::now();
    let image =
        Image::compile(ruleset, max_memory).map_err(|error| Error::Failed(error.to_string()))?;
    let compile_ms = ms(began.elapsed());
    let began = Instant::now();
    let mut bench = TestBench::load(ruleset, &image)?;
    let load_ms = ms(began.elapsed());

    let mut corpus = match source {
        Source::Random { flows, seed } => random_corpus(ruleset, *flows, *seed)?,
        Source::Frames(frames) => corpus_of(frames)?,
    };
    let packets = prove(&image, &mut bench, &mut corpus, source)?;
    let target = bench.target()?;
    let single = Frames::Single {
        packets: effort.warm_packets,
    };
    let warm = compare(&mut corpus, &[target], single, effort.rounds)?[0];
    let random = compare(&mut corpus, &[target], Frames::All, effort.rounds)?[0];
    let (swap_ms, no_swap) = match corpus.time_swaps(target, effort.swaps) {
        Ok(times) => (Some(Timing::of(times.into_iter().map(ms).collect())), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Report {
        packets,
        warm,
        random,
        rules: ruleset.rules.len() as u64,
        prefixes: prefixes(ruleset),
        combination: image.combination(),
        program: bench.program_size()?,
        memory: Memory {
            maps_bytes: bench.memory(),
            tables_bytes: image.memory(),
        },
        compile_ms,
        load_ms,
        swap_ms,
        no_swap,
    })
}

/// Networks that the rules of the policies name.
#[must_use]
pub fn prefixes(ruleset: &Ruleset) -> u64 {
    let of_set = |set: &u32| {
        ruleset
            .sets
            .get(*set as usize)
            .map_or(0, |set| set.nets.len())
    };
    let rules = ruleset.rules.iter();
    rules
        .filter(|rule| rule.id.stage != Stage::Failsafe)
        .flat_map(|rule| &rule.matches)
        .flat_map(|asked| [&asked.src, &asked.dst])
        .map(|asked| {
            let sets = asked.sets.iter().chain(&asked.not_sets);
            asked.nets.len() + asked.not_nets.len() + sets.map(of_set).sum::<usize>()
        })
        .sum::<usize>() as u64
}

/// Random flows over the ruleset, in a corpus.
pub fn random_corpus(ruleset: &Ruleset, flows: u32, seed: u64) -> Result<Corpus, Error> {
    let mut traffic = Traffic::new(ruleset, seed);
    let v6 = traffic.has_v6();
    corpus_of_flows((0..flows).map(|_| traffic.flow()), flows, v6)
}

/// These flows in a corpus; `v6`: some of them may be IPv6.
pub fn corpus_of_flows(
    flows: impl Iterator<Item = Flow>,
    count: u32,
    v6: bool,
) -> Result<Corpus, Error> {
    let (header, frame) = if v6 {
        (V6_HEADER, V6_FRAME)
    } else {
        (V4_HEADER, V4_FRAME)
    };
    let mut corpus = Corpus::new(Shape::Flows { header, frame }, count)?;
    let mut bytes = vec![0; frame];
    for flow in flows {
        flow.write(&mut bytes);
        corpus.push(&bytes)?;
    }
    Ok(corpus)
}

/// Somebody's frames; what of them is too long to be run is cut off.
fn corpus_of(frames: &[Vec<u8>]) -> Result<Corpus, Error> {
    let count = u32::try_from(frames.len())
        .map_err(|_| Error::Failed("too many packets to measure with".to_owned()))?;
    let mut corpus = Corpus::new(Shape::Cases, count)?;
    for frame in frames {
        corpus.push(&runnable(frame))?;
    }
    corpus.scatter(true);
    Ok(corpus)
}

/// The frame with zeros for a payload that no filter reads.
fn runnable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame[..frame.len().min(Corpus::MAX_CASE)].to_vec();
    if let Some(payload) = frame.get_mut(Corpus::CASE_BYTES..) {
        payload.fill(0);
    }
    frame
}

/// Runs all of the corpus once: the program must count what the host's
/// classifier says.
fn prove(
    image: &Image,
    bench: &mut TestBench,
    corpus: &mut Corpus,
    source: &Source<'_>,
) -> Result<Packets, Error> {
    let mut expected = vec![Count::default(); image.counters() as usize];
    let (mut by_rule, mut dropped) = (0_u32, 0_u32);
    let mut frame = Vec::new();
    for index in 0..corpus.len() {
        corpus.read(index, &mut frame);
        let judgement = image.judge(&frame);
        by_rule += u32::from(judgement.decision.rule.is_some());
        dropped += u32::from(judgement.decision.verdict == Verdict::Drop);
        for counter in judgement.counters() {
            let count = &mut expected[counter as usize];
            count.packets += 1;
            count.bytes += frame.len() as u64;
        }
    }
    let flows = corpus.len();
    let (counted, _) = bench.run_corpus(corpus, 0..flows, flows)?;
    if let Some(counter) = (0..expected.len()).find(|&index| counted[index] != expected[index]) {
        return Err(Error::Failed(format!(
            "the program in the kernel counted other packets than the host's classifier: counter \
             {counter} has {:?} and not {:?}. This is a bug, please report it with the policy.",
            counted[counter], expected[counter]
        )));
    }
    let part = |count: u32| f64::from(count) / f64::from(flows.max(1));
    Ok(Packets {
        source: match source {
            Source::Random { .. } => "random",
            Source::Frames(_) => "capture",
        },
        flows,
        by_rule: part(by_rule),
        dropped: part(dropped),
    })
}

/// Milliseconds.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
