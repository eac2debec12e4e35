//! The programs without an interface: `BPF_PROG_TEST_RUN`.

use std::ops::Range;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use aya_log::EbpfLogger;
use filter_common::abi::{self, REASON_COUNTERS};
use filter_common::event::{Event, Rate};
use filter_common::verdict::{Reason, Verdict};

use super::corpus::{Corpus, Target, Took};
use super::error::Error;
use super::event_filter::{EventFilter, ask};
use super::flows::{self, Flow, FlowTotals};
use super::generation::{Compiled, Generation, Loading, Pair, ProgramSize, StderrLog, Trace};
use super::{Count, Stats, counters, events, sys};
use crate::compile::Image;
use crate::decision::{Decision, Judgement};
use crate::ruleset::{Direction, Ruleset};

// enum xdp_action of include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
// TC_ACT_… of include/uapi/linux/pkt_cls.h.
const TC_UNSPEC: u32 = u32::MAX;
const TC_SHOT: u32 = 2;

/// The loaded programs of both directions, attached to nothing, with what they
/// remember: decide frame after frame.
pub struct TestPair {
    ingress: TestBench,
    egress: TestBench,
    flows: Option<flows::Tables>,
}

impl TestPair {
    /// Loads the programs, which remember up to `max_flows` flows of each direction.
    pub fn load(
        ingress: Compiled<'_>,
        egress: Compiled<'_>,
        max_flows: u32,
    ) -> Result<Self, Error> {
        Self::load_sampling(ingress, egress, max_flows, Rate::OFF)
    }

    /// Like [`Self::load`]; the programs report dropped packets at this rate.
    pub fn load_sampling(
        ingress: Compiled<'_>,
        egress: Compiled<'_>,
        max_flows: u32,
        sampling: Rate,
    ) -> Result<Self, Error> {
        let loading = Loading {
            sampling,
            max_flows,
            ..Loading::PLAIN
        };
        let Pair {
            ingress: loaded_in,
            egress: loaded_out,
            flows,
        } = Pair::load(ingress, Some(egress), loading, None)?;
        let loaded_out = loaded_out
            .ok_or_else(|| Error::Failed("there is no program for what goes out".to_owned()))?;
        Ok(Self {
            ingress: TestBench::of(loaded_in, ingress, None),
            egress: TestBench::of(loaded_out, egress, None),
            flows,
        })
    }

    /// Runs the program of a direction on one frame (see [`TestBench::judge`]).
    pub fn judge(&mut self, direction: Direction, frame: &[u8]) -> Result<Judgement, Error> {
        match direction {
            Direction::Ingress => self.ingress.judge(frame),
            Direction::Egress => self.egress.judge(frame),
        }
    }

    /// The program of what comes in, by itself.
    pub fn ingress(&mut self) -> &mut TestBench {
        &mut self.ingress
    }

    /// The loaded programs as the kernel has them: that of what comes in, and that of
    /// what goes out.
    pub fn program_sizes(&self) -> Result<[ProgramSize; 2], Error> {
        Ok([
            self.ingress.generation.program_size()?,
            self.egress.generation.program_size()?,
        ])
    }

    /// What is remembered; what is over may be among it.
    pub fn flows(&self) -> Result<Vec<Flow>, Error> {
        self.flows
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), flows::Tables::flows)
    }

    /// What is counted of flows that began on the way in, and on the way out.
    pub fn flow_totals(&self) -> Result<[FlowTotals; 2], Error> {
        self.flows
            .as_ref()
            .map_or_else(|| Ok(Default::default()), flows::Tables::totals)
    }

    /// Lets time pass for all that is remembered.
    pub fn age(&self, by: Duration) -> Result<(), Error> {
        self.flows.as_ref().map_or(Ok(()), |flows| flows.age(by))
    }
}

/// A loaded program that is attached to nothing: decides single frames
/// through `BPF_PROG_TEST_RUN`.
pub struct TestBench {
    generation: Generation,
    ruleset: Ruleset,
    totals: Vec<Count>,
    trace: Option<EbpfLogger<StderrLog>>,
}

impl TestBench {
    /// Whether the kernel runs such a frame at all (Linux 6.18). `bpf_prog_test_run_xdp` wants
    /// an Ethernet header; `bpf_prog_test_run_skb` a whole header of IP too, and all in one
    /// page, of which it keeps up to 640 bytes, by the length of the machine's cache lines.
    #[must_use]
    pub fn takes(direction: Direction, frame: &[u8]) -> bool {
        const ETHERNET: usize = 14;
        let lengths = match (direction, frame.get(12..ETHERNET)) {
            (Direction::Ingress, _) => ETHERNET..=usize::MAX,
            (Direction::Egress, Some([0x08, 0x00])) => ETHERNET + 20..=3_456,
            (Direction::Egress, Some([0x86, 0xdd])) => ETHERNET + 40..=3_456,
            (Direction::Egress, _) => ETHERNET..=3_456,
        };
        lengths.contains(&frame.len())
    }

    /// Loads the program with this image.
    pub fn load(ruleset: &Ruleset, image: &Image) -> Result<Self, Error> {
        Self::load_sampling(ruleset, image, Rate::OFF)
    }

    /// Like [`Self::load`]; the program reports dropped packets at this rate.
    pub fn load_sampling(ruleset: &Ruleset, image: &Image, sampling: Rate) -> Result<Self, Error> {
        let loading = Loading {
            sampling,
            ..Loading::PLAIN
        };
        let compiled = Compiled { ruleset, image };
        Generation::load(compiled, loading).map(|loaded| Self::of(loaded, compiled, None))
    }

    /// Like [`Self::load`]; the program writes a line to stderr for each
    /// packet, as it sees it.
    pub fn load_traced(ruleset: &Ruleset, image: &Image) -> Result<Self, Error> {
        let loading = Loading {
            trace: Trace::On,
            ..Loading::PLAIN
        };
        let compiled = Compiled { ruleset, image };
        let loaded = Generation::load(compiled, loading)?;
        let trace = loaded.logger()?;
        Ok(Self::of(loaded, compiled, Some(trace)))
    }

    fn of(
        generation: Generation,
        compiled: Compiled<'_>,
        trace: Option<EbpfLogger<StderrLog>>,
    ) -> Self {
        Self {
            generation,
            ruleset: compiled.ruleset.clone(),
            totals: vec![Count::default(); compiled.image.counters() as usize],
            trace,
        }
    }

    /// Runs the program on one frame, which the kernel must [take](Self::takes), and
    /// gives the decision alone.
    pub fn run(&mut self, frame: &[u8]) -> Result<Decision, Error> {
        self.judge(frame).map(|judgement| judgement.decision)
    }

    /// Runs the program on one frame, which the kernel must [take](Self::takes).
    ///
    /// The judgement is read from the counters, so that a packet which does not
    /// have exactly one verdict's counter, or is counted twice by any, or
    /// without its bytes, is an error.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Judgement, Error> {
        let action = sys::test_run(self.generation.program(), frame)
            .map_err(|error| Error::io("BPF_PROG_TEST_RUN failed", &error))?;

        if let Some(trace) = &mut self.trace {
            trace.flush();
        }
        let totals = self.read()?;
        let one = Count {
            packets: 1,
            bytes: frame.len() as u64,
        };
        let mut verdicts = Vec::new();
        let mut noted = Vec::new();
        for (index, (new, old)) in (0..).zip(totals.iter().zip(&self.totals)) {
            if new == old {
                continue;
            }
            let count = *new - *old;
            if count != one {
                return Err(Error::Failed(format!(
                    "counter {index} counted a frame of {} bytes as {count:?}",
                    frame.len()
                )));
            }
            match self.rule(index) {
                Some((rule, true)) => noted.push(rule),
                _ => verdicts.push(index),
            }
        }
        let [verdict] = verdicts[..] else {
            return Err(Error::Failed(format!(
                "a frame of {} bytes has not one verdict: counters {verdicts:?} counted it",
                frame.len()
            )));
        };
        self.totals = totals;
        Ok(Judgement {
            decision: self.decision(action, verdict)?,
            essential: abi::essential_of(verdict),
            noted,
        })
    }

    /// What the program has reported since the last call, and how many reports
    /// it has lost since it was loaded.
    pub fn reported(&mut self) -> Result<(Vec<Event>, u64), Error> {
        let mut ring = self.generation.events()?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(events::read(&item)?);
        }
        Ok((events, events::sum_lost(&self.generation.budgets()?)?))
    }

    /// Asks the program for these events alone from now on.
    pub fn want(&mut self, filter: &EventFilter) -> Result<(), Error> {
        let criteria = filter.criteria(&self.ruleset);
        ask([(&mut self.generation.asked()?, criteria)])
    }

    /// The loaded program, to be run behind the shim of a [`Corpus`].
    pub fn target(&mut self) -> Result<Target<'_>, Error> {
        Ok(Target::program(self.generation.program(), true))
    }

    /// The loaded program as the kernel has it.
    pub fn program_size(&mut self) -> Result<ProgramSize, Error> {
        self.generation.program_size()
    }

    /// Bytes of all its maps, as the kernel accounts them.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.generation.memory()
    }

    /// Runs `packets` packets of the frames of `range`, round and round, and
    /// gives what each counter counted of them: first the reasons, then the
    /// rules, like the [counters of an image](crate::compile::Image::counters).
    pub fn run_corpus(
        &mut self,
        corpus: &mut Corpus,
        range: Range<u32>,
        packets: u32,
    ) -> Result<(Vec<Count>, Took), Error> {
        let before = self.read()?;
        let took = corpus.run_some(self.target()?, range, packets)?;
        self.totals = self.read()?;
        let new = self.totals.iter().zip(&before);
        Ok((new.map(|(new, old)| *new - *old).collect(), took))
    }

    /// Runs frame after frame by a call each, in either direction; gives each verdict, and
    /// what each counter counted of them all.
    pub fn run_each<'f>(
        &mut self,
        frames: impl IntoIterator<Item = &'f [u8]>,
    ) -> Result<(Vec<Verdict>, Vec<Count>), Error> {
        let before = self.read()?;
        let mut verdicts = Vec::new();
        for frame in frames {
            let action = sys::test_run(self.generation.program(), frame)
                .map_err(|error| Error::io("BPF_PROG_TEST_RUN failed", &error))?;
            verdicts.push(self.verdict(action)?);
        }
        self.totals = self.read()?;
        let new = self.totals.iter().zip(&before);
        Ok((verdicts, new.map(|(new, old)| *new - *old).collect()))
    }

    /// The rule that a counter is for, and whether it is counted beside the
    /// verdict.
    fn rule(&self, counter: u32) -> Option<(u32, bool)> {
        let index = counter.checked_sub(REASON_COUNTERS)?;
        let rule = self.ruleset.rules.get(index as usize)?;
        Some((index, rule.reason().is_none()))
    }

    fn verdict(&self, action: u32) -> Result<Verdict, Error> {
        match (self.generation.direction(), action) {
            (Direction::Ingress, XDP_PASS) | (Direction::Egress, TC_UNSPEC) => Ok(Verdict::Pass),
            (Direction::Ingress, XDP_DROP) | (Direction::Egress, TC_SHOT) => Ok(Verdict::Drop),
            (_, other) => Err(Error::Failed(format!(
                "the program returned action {other}"
            ))),
        }
    }

    fn decision(&self, action: u32, counter: u32) -> Result<Decision, Error> {
        let verdict = self.verdict(action)?;
        let rule = counter.checked_sub(REASON_COUNTERS);
        let reason = match rule {
            Some(rule) => self
                .ruleset
                .rules
                .get(rule as usize)
                .and_then(crate::ruleset::Rule::reason),
            None if abi::essential_of(counter).is_some() => Some(Reason::Essential),
            None => abi::reason_counters()
                .nth(counter as usize)
                .map(|(reason, _)| reason),
        };
        let reason = reason.ok_or_else(|| {
            Error::Failed(format!(
                "the program used counter {counter}, which has no meaning"
            ))
        })?;
        Ok(Decision {
            verdict,
            reason,
            rule,
        })
    }

    /// The program's totals so far.
    pub fn stats(&self) -> Result<Stats, Error> {
        let ruleset = Arc::new(self.ruleset.clone());
        Ok(counters::stats("", &ruleset, &self.read()?))
    }

    fn read(&self) -> Result<Vec<Count>, Error> {
        let failed = |error: &std::io::Error| Error::io("cannot read the counters", error);
        let map = self.generation.counters()?.fd().as_fd();
        counters::read(map, self.totals.len(), failed)
    }
}
