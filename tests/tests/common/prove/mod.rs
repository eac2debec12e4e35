//! Very many packets, and three independent answers to them: the reference's, the host's, and
//! the loaded program's. It goes in rounds of a ruleset each, which one seed decides:
//!
//! - random rulesets, combined as the compiler wants or by parts; random documents of every
//!   kind; rulesets at points where the compiler switches over. In each round the kernel meets
//!   packets that aim at the ruleset, and such as differ from them in one to three bytes;
//!   what it counts is compared with the host's judgements, and every so manieth packet's
//!   judgement with the reference's;
//! - what goes out by a call for each packet, and each verdict is compared;
//! - in some rounds all that is at the edges of the ruleset ([`sweep`]), reference included;
//! - in some a conversation, with what is remembered of it.
//!
//! The first disagreement ends it, is shrunk, and kept.

pub(crate) mod example;
pub(crate) mod kernel;
pub(crate) mod sweep;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filter_user::compile::{Combination, Image};
use filter_user::datapath::Corpus;
use filter_user::reference;
use filter_user::ruleset::{Action, Direction, Ruleset};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::documents::generate::{self, Tape};
use crate::documents::{lower, write};
use crate::random::{self, Recipe, recipe};
use crate::switch_over::{self, Case};
use crate::talk::talk;

use example::{Example, Failure};
use kernel::{CORPUS, Kernel, corpus};

const BUDGET: u64 = 64 << 20;
const MAX_RULES: usize = 40;
/// Rounds of random rulesets and documents before those at points of switching over.
const RANDOM: u64 = 100;
/// What such a round's program meets.
const CASES: u64 = 100_000;
/// What goes out takes a call a packet.
const OUTWARD: u64 = 20_000;
/// Rounds at points of switching over are many.
const AT_EDGES: u64 = 30_000;
/// Packets that aim at a ruleset; all others are these with other bytes.
const AIMED: usize = 1_500;
/// Of so many packets that the host is asked about, one goes to the reference.
const REFERENCE: usize = 64;
/// Rounds with a sweep, with a conversation.
const SWEEPS: u64 = 12;
const TALKS: u64 = 4;
/// How long a failure is shrunk.
const SHRINK: Duration = Duration::from_mins(3);

/// How much is compared.
pub(crate) struct Plan<'a> {
    /// Packets in the kernel at least.
    pub(crate) cases: u64,
    pub(crate) seed: u64,
    pub(crate) until: Option<Instant>,
    /// Where a failure is kept.
    pub(crate) folder: &'a Path,
}

/// What was compared.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) rounds: AtomicU64,
    /// Packets in the kernel, of all kinds.
    pub(crate) kernel: AtomicU64,
    /// Of these, what went out, what was in conversations, and what was at the edges.
    pub(crate) outward: AtomicU64,
    pub(crate) talks: AtomicU64,
    pub(crate) swept: AtomicU64,
    /// Packets that the reference was asked about.
    pub(crate) reference: AtomicU64,
    /// Rounds whose ruleset was made of documents.
    pub(crate) documents: AtomicU64,
    /// Packets of each round's last corpus, and those of them that differ.
    pub(crate) looked_at: AtomicU64,
    pub(crate) distinct: AtomicU64,
}

impl Done {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn summary(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let share = of(&self.distinct) * 100 / of(&self.looked_at).max(1);
        format!(
            "{} packets in the kernel by {} rulesets ({} of them documents); {} went out, {} were \
             in conversations, {} at edges; {} were put to the reference; {share} % are distinct",
            of(&self.kernel),
            of(&self.rounds),
            of(&self.documents),
            of(&self.outward),
            of(&self.talks),
            of(&self.swept),
            of(&self.reference),
        )
    }
}

/// Numbers that look random (xorshift), in a tenth of the time of a good source.
pub(crate) struct Cheap(pub(crate) u64);

impl Cheap {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % end
    }
}

/// A frame that aims at the ruleset, or is next to one that does: one to three bytes of
/// the headers are others.
pub(crate) fn next_to(aimed: &[Vec<u8>], cheap: &mut Cheap) -> Vec<u8> {
    let mut frame = aimed[cheap.below(aimed.len())].clone();
    for _ in 0..cheap.below(4) {
        let place = cheap.below(frame.len().min(80));
        frame[place] = match cheap.below(3) {
            0 => frame[place].wrapping_add(1),
            1 => frame[place].wrapping_sub(1),
            _ => u8::try_from(cheap.below(256)).unwrap(),
        };
    }
    frame
}

pub(crate) fn drawn<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

/// What this seed and number make of strategies.
pub(crate) fn runner(seed: u64, number: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), rng)
}

/// A round's ruleset, and the packets that aim at it.
struct Round {
    ruleset: Ruleset,
    forced: Option<Combination>,
    image: Image,
    aimed: Vec<Vec<u8>>,
    cases: u64,
    is_of_documents: bool,
}

/// What all rounds draw from.
pub(crate) struct Sources {
    recipes: Vec<Recipe>,
    edges: Vec<Case>,
}

impl Sources {
    pub(crate) fn new(seed: u64) -> Self {
        let mut runner = runner(seed, u64::MAX);
        Self {
            recipes: (0..AIMED).map(|_| drawn(&mut runner, &recipe())).collect(),
            edges: switch_over::quick()
                .into_iter()
                .chain(switch_over::slow())
                .collect(),
        }
    }

    /// Rounds until each source has been drawn from.
    pub(crate) fn rounds(&self) -> u64 {
        RANDOM + self.edges.len() as u64
    }

    fn aimed(&self, ruleset: &Ruleset) -> Vec<Vec<u8>> {
        self.recipes
            .iter()
            .map(|recipe| recipe.frame(ruleset).0)
            .collect()
    }

    fn round(&self, number: u64, runner: &mut TestRunner) -> Result<Round, String> {
        let number = number % self.rounds();
        if let Some(edge) = number.checked_sub(RANDOM) {
            let case = &self.edges[usize::try_from(edge).unwrap()];
            return Ok(Round {
                ruleset: case.ruleset.clone(),
                forced: case.forced,
                image: case
                    .compile()
                    .map_err(|error| format!("{}: {error}", case.name))?,
                aimed: case.frames(AIMED),
                cases: AT_EDGES,
                is_of_documents: false,
            });
        }
        let is_of_documents = number % 5 >= 3;
        let (mut ruleset, mut aimed) = if is_of_documents {
            of_documents(runner)?
        } else {
            (drawn(runner, &random::ruleset(MAX_RULES)), Vec::new())
        };
        if !is_of_documents && number % 10 == 5 {
            turn_round(&mut ruleset);
        }
        let forced = (number % 5 == 2).then_some(Combination::Parts);
        if forced.is_some() {
            // They hold nothing that is counted beside a verdict.
            ruleset
                .rules
                .retain(|rule| !rule.staged && matches!(rule.action, Action::Allow | Action::Deny));
        }
        let image = Image::compile_as(&ruleset, BUDGET, forced);
        let image = image.map_err(|error| error.to_string())?;
        aimed.extend(self.aimed(&ruleset));
        let cases = match ruleset.direction {
            Direction::Ingress => CASES,
            Direction::Egress => OUTWARD,
        };
        Ok(Round {
            ruleset,
            forced,
            image,
            aimed,
            cases,
            is_of_documents,
        })
    }
}

/// Rules about what goes out.
fn turn_round(ruleset: &mut Ruleset) {
    ruleset.direction = Direction::Egress;
    for rule in &mut ruleset.rules {
        rule.id.direction = Direction::Egress;
    }
}

/// Random documents as the filter reads them, and packets that aim at them.
fn of_documents(runner: &mut TestRunner) -> Result<(Ruleset, Vec<Vec<u8>>), String> {
    let numbers = |count| prop::collection::vec(any::<u16>(), count);
    let case = drawn(runner, &numbers(1_200));
    let case = generate::case(&mut Tape::new(&case));
    let packets = drawn(runner, &prop::collection::vec(numbers(12), 600));
    let packets = packets
        .iter()
        .map(|tape| generate::packet(&mut Tape::new(tape)));
    let frames = packets.map(|packet| write::frame(&packet)).collect();
    Ok((lower::ruleset(&case)?, frames))
}

/// What was found wrong.
pub(crate) struct Found {
    /// In words.
    pub(crate) what: String,
    /// Shrunk, and where it is kept.
    pub(crate) example: Example,
    pub(crate) kept: Result<PathBuf, String>,
}

/// Compares until that many cases are done.
pub(crate) fn prove(
    plan: &Plan<'_>,
    done: &Done,
    tell: impl Fn(&Done) + Sync,
) -> Result<(), Box<Found>> {
    let sources = Sources::new(plan.seed);
    let next = AtomicU64::new(0);
    let failure = Mutex::new(None);
    let work = || {
        let mut corpus = corpus();
        loop {
            let enough = done.kernel.load(Ordering::Relaxed) >= plan.cases;
            let late = plan.until.is_some_and(|until| Instant::now() >= until);
            if enough || late || failure.lock().unwrap().is_some() {
                return;
            }
            let number = next.fetch_add(1, Ordering::Relaxed);
            if let Err(found) = sources.compare(plan.seed, number, &mut corpus, done) {
                failure.lock().unwrap().get_or_insert(found);
                return;
            }
            Done::add(&done.rounds, 1);
            tell(done);
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for worker in (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>() {
            worker.join().unwrap();
        }
    });
    let Some((what, example)) = failure.into_inner().unwrap() else {
        return Ok(());
    };
    let example = example.shrunk(Instant::now() + SHRINK, |example| {
        matches!(example.compare(&mut 0), Err(Failure::Differs(_)))
    });
    Err(Box::new(Found {
        kept: example.keep(plan.folder, &what),
        what,
        example,
    }))
}

/// Compares all again that is kept, with the answers that were said to be right; returns for
/// how many packets.
pub(crate) fn replay(folder: &Path) -> Result<u64, String> {
    let mut cases = 0;
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let failed = |error: &dyn Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let (example, expected) = Example::read(&text).map_err(|error| failed(&error))?;
        let answers = example
            .compare(&mut cases)
            .map_err(|error| failed(&error))?;
        if answers != expected {
            return Err(failed(&format_args!("{answers:?} and not {expected:?}")));
        }
    }
    Ok(cases)
}

type Wrong = (String, Example);

impl Sources {
    fn compare(
        &self,
        seed: u64,
        number: u64,
        corpus: &mut Corpus,
        done: &Done,
    ) -> Result<(), Wrong> {
        let mut runner = runner(seed, number);
        if number.is_multiple_of(TALKS) {
            let example = Example::of_talk(&drawn(&mut runner, &talk()));
            let mut steps = 0;
            if let Err(failure) = example.compare(&mut steps) {
                return Err((format!("seed {seed}, talk {number}: {failure}"), example));
            }
            done.kernel.fetch_add(steps, Ordering::Relaxed);
            done.talks.fetch_add(steps, Ordering::Relaxed);
        }
        let round = self.round(number, &mut runner);
        let round = round.unwrap_or_else(|error| panic!("seed {seed}, round {number}: {error}"));
        let Round {
            ruleset,
            forced,
            image,
            mut aimed,
            cases,
            is_of_documents,
        } = round;
        Done::add(&done.documents, usize::from(is_of_documents));
        let wrong = |what: &str, frame: Vec<u8>| {
            (
                format!("seed {seed}, round {number}: {what}"),
                Example::of(ruleset.clone(), forced, frame),
            )
        };
        let by_reference = |frames: &[Vec<u8>], step: usize| {
            for frame in frames.iter().step_by(step) {
                if reference::judge(&ruleset, frame) != image.judge(frame) {
                    return Err(wrong("reference and host disagree", frame.clone()));
                }
            }
            Done::add(&done.reference, frames.len().div_ceil(step));
            Ok(())
        };
        let outward = ruleset.direction == Direction::Egress;
        let takes = |frame: &Vec<u8>| Kernel::takes(ruleset.direction, frame);
        let mut kernel = Kernel::new(&ruleset, &image, corpus);
        let run = |kernel: &mut Kernel<'_>| {
            if let Some(frame) = kernel.differs(&|frame| image.judge(frame)) {
                return Err(wrong("host and kernel disagree", frame));
            }
            Done::add(&done.kernel, kernel.frames.len());
            Done::add(&done.outward, usize::from(outward) * kernel.frames.len());
            Ok(())
        };
        if number % self.rounds() < RANDOM && number.is_multiple_of(SWEEPS) {
            let turn = usize::try_from(number / SWEEPS).unwrap();
            let frames = sweep::sweep(&ruleset, turn);
            by_reference(&frames, 1)?;
            let frames: Vec<_> = frames.into_iter().filter(takes).collect();
            for frames in frames.chunks(CORPUS as usize) {
                kernel.fill(frames.iter().cloned());
                run(&mut kernel)?;
                Done::add(&done.swept, frames.len());
            }
        }
        // The reference asks rule after rule.
        let step = REFERENCE * (1 + ruleset.rules.len() / 100);
        by_reference(&aimed, step.div_ceil(8))?;
        aimed.retain(takes);
        let mut cheap = Cheap(drawn(&mut runner, &any::<u64>()) | 1);
        let mut left = cases;
        while left > 0 {
            let some = left.min(CORPUS.into());
            let frames = (0..some * 2).map(|_| next_to(&aimed, &mut cheap));
            kernel.fill(frames.filter(takes).take(usize::try_from(some).unwrap()));
            run(&mut kernel)?;
            by_reference(&kernel.frames, step)?;
            left -= some;
        }
        let mut last = kernel.frames;
        Done::add(&done.looked_at, last.len());
        last.sort_unstable();
        last.dedup();
        Done::add(&done.distinct, last.len());
        Ok(())
    }
}
