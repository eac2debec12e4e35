//! A loaded program and very many packets: what its counters counted of them all is compared,
//! and where that is wrong, halves are run until one packet is left.

use std::ops::Range;

use filter_user::compile::Image;
use filter_user::datapath::{Corpus, Count, Shape, TestBench};
use filter_user::decision::Judgement;
use filter_user::ruleset::{Direction, Ruleset};

/// Packets that are run at a time.
pub(crate) const CORPUS: u32 = 50_000;

pub(crate) fn corpus() -> Corpus {
    Corpus::new(Shape::Cases, CORPUS).unwrap()
}

/// Who says what is right.
pub(crate) type Right<'a> = &'a dyn Fn(&[u8]) -> Judgement;

pub(crate) struct Kernel<'c> {
    pub(crate) bench: TestBench,
    direction: Direction,
    /// What comes in stands in it, and is run without a call for each packet.
    corpus: &'c mut Corpus,
    pub(crate) frames: Vec<Vec<u8>>,
}

impl<'c> Kernel<'c> {
    pub(crate) fn new(ruleset: &Ruleset, image: &Image, corpus: &'c mut Corpus) -> Self {
        Self {
            bench: TestBench::load(ruleset, image).unwrap(),
            direction: ruleset.direction,
            corpus,
            frames: Vec::new(),
        }
    }

    /// Whether such a frame can be run at all, and stands in a corpus.
    pub(crate) fn takes(direction: Direction, frame: &[u8]) -> bool {
        TestBench::takes(direction, frame) && frame.len() <= Corpus::CASE_BYTES
    }

    /// Takes up to [`CORPUS`] frames in the place of those before.
    pub(crate) fn fill(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.corpus.clear();
        self.frames.clear();
        for frame in frames.into_iter().take(CORPUS as usize) {
            if self.direction == Direction::Ingress {
                self.corpus.push(&frame).unwrap();
            }
            self.frames.push(frame);
        }
    }

    /// A frame that the kernel says otherwise of: the only one in all, or the first one that
    /// a search by halves comes to. `None` where all is as it should be.
    pub(crate) fn differs(&mut self, right: Right<'_>) -> Option<Vec<u8>> {
        let mut range = 0..self.frames.len();
        if self.agrees(range.clone(), right) {
            return None;
        }
        while range.len() > 1 {
            let middle = range.start + range.len() / 2;
            let first = range.start..middle;
            // What is wrong with the sum is wrong with that of a half.
            range = if self.agrees(first.clone(), right) {
                middle..range.end
            } else {
                first
            };
        }
        Some(self.frames[range.start].clone())
    }

    fn agrees(&mut self, range: Range<usize>, right: Right<'_>) -> bool {
        let frames = &self.frames[range.clone()];
        let judgements: Vec<Judgement> = frames.iter().map(|frame| right(frame)).collect();
        let counted = match self.direction {
            Direction::Ingress => {
                let packets = u32::try_from(range.len()).unwrap();
                let (start, end) = (
                    range.start.try_into().unwrap(),
                    range.end.try_into().unwrap(),
                );
                let ran = self.bench.run_corpus(self.corpus, start..end, packets);
                ran.unwrap().0
            }
            Direction::Egress => {
                let frames = frames.iter().map(Vec::as_slice);
                let (verdicts, counted) = self.bench.run_each(frames).unwrap();
                let mut right = judgements
                    .iter()
                    .map(|judgement| judgement.decision.verdict);
                if verdicts
                    .into_iter()
                    .any(|verdict| Some(verdict) != right.next())
                {
                    return false;
                }
                counted
            }
        };
        let mut expected = vec![Count::default(); counted.len()];
        for (frame, judgement) in frames.iter().zip(&judgements) {
            let one = Count {
                packets: 1,
                bytes: frame.len() as u64,
            };
            for counter in judgement.counters() {
                // A program of other rules may have too few.
                let Some(count) = expected.get_mut(counter as usize) else {
                    return false;
                };
                *count = *count + one;
            }
        }
        counted == expected
    }
}
