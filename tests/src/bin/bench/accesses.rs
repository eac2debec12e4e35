//! What packets ask of the tables: the part of their cost that no faster code
//! takes away.

use std::cell::{Cell, RefCell};

use filter_common::abi::{LINE_WORDS, Line, RECORD_WORDS, Record, SLOT_WORDS, Slot};
use filter_common::classify::{self, Tables};
use filter_common::packet::Cursor;
use filter_user::compile::Image;
use filter_user::datapath::Corpus;
use serde_json::{Value, json};

/// An image that counts who looks where.
struct Watched<'a> {
    image: &'a Image,
    accesses: Cell<u64>,
    /// Of each line: whether some packet has looked at it.
    seen: RefCell<Vec<bool>>,
}

impl Watched<'_> {
    fn see(&self, line: u32) {
        self.accesses.set(self.accesses.get() + 1);
        if let Some(seen) = self.seen.borrow_mut().get_mut(line as usize) {
            *seen = true;
        }
    }
}

impl Tables for Watched<'_> {
    fn word(&self, index: u32) -> Option<u32> {
        self.see(index / u32::try_from(LINE_WORDS).ok()?);
        self.image.word(index)
    }

    fn line(&self, number: u32) -> Option<&Line> {
        self.see(number);
        self.image.line(number)
    }

    fn half(&self, index: u32) -> Option<u16> {
        self.see(index / u32::try_from(LINE_WORDS * 2).ok()?);
        self.image.half(index)
    }

    fn byte(&self, index: u32) -> Option<u8> {
        self.see(index / u32::try_from(size_of::<Line>()).ok()?);
        self.image.byte(index)
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.see(number / u32::try_from(LINE_WORDS / SLOT_WORDS).ok()?);
        self.image.slot(number)
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.see(number / u32::try_from(LINE_WORDS / RECORD_WORDS).ok()?);
        self.image.record(number)
    }

    fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32 {
        self.image.constant::<A, B, C>()
    }
}

/// Accesses a packet of the corpus makes, and the bytes of all cache lines
/// that its packets touch, by the program's source on the host.
pub(crate) fn of(image: &Image, corpus: &Corpus) -> Value {
    let watched = Watched {
        image,
        accesses: Cell::new(0),
        seen: RefCell::new(vec![false; image.lines().len()]),
    };
    let mut frame = Vec::new();
    for index in 0..corpus.len() {
        corpus.read(index, &mut frame);
        let _ = classify::decide(&Cursor::over(&frame), &watched);
    }
    let lines = watched.seen.borrow().iter().filter(|seen| **seen).count();
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    let accesses = watched.accesses.get() as f64 / f64::from(corpus.len().max(1));
    json!({
        "accesses_a_packet": accesses,
        "touched_bytes": lines * size_of::<Line>(),
    })
}
