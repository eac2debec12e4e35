//! Twenty million packets through the loaded program, and what each counter
//! counted of them against the host's answers.
//!
//! Each frame stands in a corpus and is run behind its shim through the
//! program as it is loaded; packets and bytes of every rule and reason must be
//! what the host says of the same frames. Where they are not, halves of the
//! corpus are run until one frame is left.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/random.rs"]
mod random;
#[path = "common/switch_over.rs"]
mod switch_over;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use filter_user::compile::{Combination, Image};
use filter_user::datapath::{Corpus, Count, Shape, TestBench};
use filter_user::decision::Judgement;
use filter_user::ruleset::{Action, Ruleset};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};

use random::{Recipe, recipe, ruleset};
use switch_over::Case;

const BUDGET: u64 = 64 << 20;
const MAX_RULES: usize = 40;
/// What is run in all.
const CASES: u64 = 20_000_000;
/// Random rulesets that share half of them, every third combined by parts; the
/// other half is for those at points of switching over.
const RULESETS: usize = 100;
/// Frames in the corpus at a time.
const CORPUS: u32 = 50_000;
/// Packets that aim at a ruleset; all others are these with other bytes.
const AIMED: usize = 1_500;

/// Numbers that look random (xorshift), in a tenth of the time of a good source.
struct Cheap(u64);

impl Cheap {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % end
    }
}

/// A loaded program and the corpus that it meets.
struct Kernel {
    bench: TestBench,
    corpus: Corpus,
    frames: Vec<Vec<u8>>,
    counters: usize,
}

impl Kernel {
    fn new(ruleset: &Ruleset, image: &Image, corpus: Corpus) -> Self {
        Self {
            bench: TestBench::load(ruleset, image).unwrap(),
            corpus,
            frames: Vec::new(),
            counters: image.counters() as usize,
        }
    }

    fn fill(&mut self, mut next: impl FnMut() -> Vec<u8>) {
        self.corpus.clear();
        self.frames.clear();
        while self.corpus.len() < self.corpus.capacity() {
            let frame = next();
            self.corpus.push(&frame).unwrap();
            self.frames.push(frame);
        }
    }

    /// The only frame in all that `host` says otherwise of, or the first one
    /// that a search by halves comes to. `None` where all sums agree.
    fn differs(&mut self, host: &dyn Fn(&[u8]) -> Judgement) -> Option<Vec<u8>> {
        let mut range = 0..self.corpus.len();
        if self.agrees(range.clone(), host) {
            return None;
        }
        while range.len() > 1 {
            let middle = range.start + (range.end - range.start) / 2;
            let first = range.start..middle;
            // What is wrong with the sum is wrong with that of a half.
            range = if self.agrees(first.clone(), host) {
                middle..range.end
            } else {
                first
            };
        }
        Some(self.frames[range.start as usize].clone())
    }

    fn agrees(&mut self, range: std::ops::Range<u32>, host: &dyn Fn(&[u8]) -> Judgement) -> bool {
        let mut expected = vec![Count::default(); self.counters];
        for frame in &self.frames[range.start as usize..range.end as usize] {
            let one = Count {
                packets: 1,
                bytes: frame.len() as u64,
            };
            for counter in host(frame).counters() {
                let count = &mut expected[counter as usize];
                *count = *count + one;
            }
        }
        let packets = range.end - range.start;
        let ran = self.bench.run_corpus(&mut self.corpus, range, packets);
        ran.unwrap().0 == expected
    }
}

/// Frames that aim at the ruleset, or are next to one that does: one to three
/// bytes of the headers are others.
fn next_to(aimed: &[Vec<u8>], cheap: &mut Cheap) -> Vec<u8> {
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

fn frames(ruleset: &Ruleset, recipes: &[Recipe]) -> Vec<Vec<u8>> {
    let frames = recipes.iter().map(|recipe| recipe.frame(ruleset).0);
    frames
        .filter(|frame| (TestBench::MIN_FRAME..=Corpus::CASE_BYTES).contains(&frame.len()))
        .collect()
}

fn drawn<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

fn corpus() -> Corpus {
    Corpus::new(Shape::Cases, CORPUS).unwrap()
}

/// A ruleset of those that share the cases, with its tables.
fn numbered(number: usize, edges: &[Case], runner: &mut TestRunner) -> (Ruleset, Image) {
    if let Some(case) = number.checked_sub(RULESETS).map(|edge| &edges[edge]) {
        let image = case
            .compile()
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        return (case.ruleset.clone(), image);
    }
    let mut ruleset = drawn(runner, &ruleset(MAX_RULES));
    let forced = (number % 3 == 2).then_some(Combination::Parts);
    if forced.is_some() {
        // They hold nothing that is counted beside a verdict.
        ruleset
            .rules
            .retain(|rule| !rule.staged && matches!(rule.action, Action::Allow | Action::Deny));
    }
    let image = Image::compile_as(&ruleset, BUDGET, forced).unwrap();
    (ruleset, image)
}

#[test]
fn twenty_million_packets_are_counted_as_the_host_says() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let edges: Vec<Case> = switch_over::quick()
        .into_iter()
        .chain(switch_over::slow())
        .collect();
    let all = RULESETS + edges.len();
    let next = AtomicUsize::new(0);
    let cases = AtomicU64::new(0);
    let distinct = AtomicU64::new(0);
    let work = || {
        let mut runner = TestRunner::new(Config::default());
        let recipes: Vec<Recipe> = (0..AIMED).map(|_| drawn(&mut runner, &recipe())).collect();
        let mut cheap = Cheap(drawn(&mut runner, &any::<u64>()) | 1);
        let mut again = Some(corpus());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= all {
                break;
            }
            let (ruleset, image) = numbered(number, &edges, &mut runner);
            let (sharing, aimed) = match number.checked_sub(RULESETS) {
                None => (RULESETS, frames(&ruleset, &recipes)),
                Some(edge) => (edges.len(), edges[edge].frames(AIMED)),
            };
            let corpus = again.take().unwrap_or_else(corpus);
            let mut kernel = Kernel::new(&ruleset, &image, corpus);
            let mut left = (CASES / 2).div_ceil(sharing as u64);
            while left > 0 {
                kernel.fill(|| next_to(&aimed, &mut cheap));
                if let Some(frame) = kernel.differs(&|frame| image.judge(frame)) {
                    let alone = kernel.bench.judge(&frame);
                    let name = number.checked_sub(RULESETS).map(|edge| &edges[edge].name);
                    panic!(
                        "host and kernel disagree about {:?}: {:?} and, alone, {alone:?}\n{}",
                        random::Frame(frame.clone()),
                        image.judge(&frame),
                        name.map_or_else(|| format!("{ruleset:#?}"), Clone::clone)
                    );
                }
                left = left.saturating_sub(CORPUS.into());
                cases.fetch_add(CORPUS.into(), Ordering::Relaxed);
            }
            let mut last = kernel.frames;
            last.sort_unstable();
            last.dedup();
            distinct.fetch_add(last.len() as u64, Ordering::Relaxed);
            again = Some(kernel.corpus);
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for worker in (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>() {
            worker.join().unwrap();
        }
    });
    let cases = cases.into_inner();
    assert!(cases >= CASES, "only {cases} cases");
    // Of the last corpus of each ruleset.
    let distinct = distinct.into_inner();
    assert!(
        distinct > all as u64 * u64::from(CORPUS) / 2,
        "{distinct} different frames"
    );
}

/// The search must find what is wrong, down to the frame.
#[test]
fn one_wrong_answer_is_found() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let config = Config::default();
    let rng = TestRng::from_seed(config.rng_algorithm, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let recipes: Vec<Recipe> = (0..300).map(|_| drawn(&mut runner, &recipe())).collect();
    let ruleset = drawn(&mut runner, &ruleset(MAX_RULES));
    let image = Image::compile(&ruleset, BUDGET).unwrap();
    let aimed = frames(&ruleset, &recipes);
    let mut kernel = Kernel::new(&ruleset, &image, corpus());
    let mut cheap = Cheap(7);
    kernel.fill(|| next_to(&aimed, &mut cheap));
    assert_eq!(kernel.differs(&|frame| image.judge(frame)), None);
    for place in [0, 1, 24_999, 25_000, 49_999] {
        let odd = kernel.frames[place].clone();
        // The first of its kind, if it is there more than once: a frame of
        // another length has another sum of bytes.
        let found = kernel.differs(&|frame| {
            let mut judgement = image.judge(frame);
            if *frame == *odd {
                judgement.decision.rule = None;
                judgement.decision.reason = filter_common::verdict::Reason::Internal;
            }
            judgement
        });
        assert_eq!(found, Some(odd));
    }
}
