//! Both directions of an endpoint on the host, with what they remember: the same
//! source as the kernel's programs, over maps of the standard library.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use filter_common::abi::switches;
use filter_common::classify::{self, Outcome};
use filter_common::flow::{
    self, Datagram, Direction as Way, Entry, Event, Field, Flow, Flows, Put, Tuple,
};
use filter_common::packet::Cursor;
use filter_common::parse::parse_with_place;

use crate::compile::Image;
use crate::decision::Judgement;
use crate::ruleset::{Direction, Fragments, Ruleset};

/// What the program of a direction does with flows (see [`switches`]), if any are
/// remembered. `other` are the rules of the other direction, where they are enforced.
#[must_use]
pub fn flow_switches(own: &Ruleset, other: Option<&Ruleset>, remembers: bool) -> u32 {
    let remembers = remembers && other.is_some();
    let on = [
        (remembers && own.denies_statefully(), switches::CONSULT),
        (
            remembers && other.is_some_and(Ruleset::denies_statefully),
            switches::FILL,
        ),
        (
            own.options.fragments == Fragments::Track,
            switches::FRAGMENTS,
        ),
    ];
    on.iter()
        .filter(|(on, _)| *on)
        .fold(0, |all, (_, switch)| all | switch)
}

/// Both directions of an endpoint.
#[derive(Debug)]
pub struct Conversation<'c> {
    images: [&'c Image; 2],
    switches: [u32; 2],
    tables: Tables,
}

/// What is remembered, without a bound.
#[derive(Debug, Default)]
struct Tables {
    /// In milliseconds, which stand for jiffies.
    now: Cell<u64>,
    flows: [RefCell<HashMap<Tuple, InTable>>; 2],
    fragments: RefCell<HashMap<Datagram, u64>>,
}

/// Milliseconds.
const SECOND: u64 = 1_000;

#[derive(Clone, Debug)]
struct InTable(Rc<[Cell<u64>; 5]>);

impl Entry for InTable {
    fn get(&self, field: Field) -> u64 {
        self.0[field as usize].get()
    }

    fn set(&self, field: Field, value: u64) {
        self.0[field as usize].set(value);
    }
}

const fn place(direction: Way) -> usize {
    match direction {
        Way::Ingress => 0,
        Way::Egress => 1,
    }
}

/// The tables, with what a direction does with them.
struct Open<'t> {
    tables: &'t Tables,
    switches: u32,
}

impl Flows for Open<'_> {
    type Entry = InTable;

    fn switches(&self) -> u32 {
        self.switches
    }

    fn second(&self) -> u64 {
        SECOND
    }

    fn now(&self) -> u64 {
        self.tables.now.get()
    }

    fn find(&self, begun: Way, tuple: &Tuple) -> Option<InTable> {
        let flows = self.tables.flows[place(begun)].borrow();
        flows.get(tuple).cloned()
    }

    fn insert(&self, begun: Way, tuple: &Tuple, flow: &Flow) -> Put {
        let words = [flow.seen, flow.began, flow.forward, flow.back, flow.state];
        let flow = InTable(Rc::new(words.map(Cell::new)));
        let mut flows = self.tables.flows[place(begun)].borrow_mut();
        flows.insert(*tuple, flow);
        Put::New
    }

    fn first_fragment(&self, datagram: &Datagram) -> Option<u64> {
        self.tables.fragments.borrow().get(datagram).copied()
    }

    fn remember(&self, datagram: &Datagram, now: u64) {
        self.tables.fragments.borrow_mut().insert(*datagram, now);
    }

    fn count(&self, _: Event, _: Way) {}
}

impl<'c> Conversation<'c> {
    /// Nothing is remembered yet. Each ruleset with its image.
    #[must_use]
    pub fn new(ingress: (&Ruleset, &'c Image), egress: (&Ruleset, &'c Image)) -> Self {
        Self {
            images: [ingress.1, egress.1],
            switches: [
                flow_switches(ingress.0, Some(egress.0), true),
                flow_switches(egress.0, Some(ingress.0), true),
            ],
            tables: Tables::default(),
        }
    }

    /// Decides a frame. `now` is the time since some beginning, to the millisecond,
    /// and never goes back.
    pub fn judge(&self, now: Duration, direction: Direction, frame: &[u8]) -> Judgement {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.tables.now.set(millis);
        let (way, own, other) = match direction {
            Direction::Ingress => (Way::Ingress, self.images[0], self.images[1]),
            Direction::Egress => (Way::Egress, self.images[1], self.images[0]),
        };
        let packet = Cursor::over(frame);
        let outcome = classify::decide(&packet, own);
        let outcome = match parse_with_place(&packet) {
            Ok(seen) => self.settle(&packet, &seen, outcome, other, way),
            Err(_) => outcome,
        };
        own.judgement(outcome)
    }

    fn settle(
        &self,
        packet: &Cursor<'_>,
        seen: &(filter_common::parse::Key, filter_common::parse::Place),
        outcome: Outcome,
        other: &Image,
        way: Way,
    ) -> Outcome {
        let open = Open {
            tables: &self.tables,
            switches: self.switches[place(way)],
        };
        flow::settle(packet, seen, outcome, other, &open, way)
    }

    /// What is remembered and not over: the direction that a flow began in, its tuple,
    /// and what is known of it.
    #[must_use]
    pub fn flows(&self, now: Duration) -> Vec<(Direction, Tuple, Flow)> {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut all = Vec::new();
        for (flows, begun) in self
            .tables
            .flows
            .iter()
            .zip([Direction::Ingress, Direction::Egress])
        {
            for (tuple, flow) in &*flows.borrow() {
                let [seen, began, forward, back, state] = flow.0.each_ref().map(Cell::get);
                let flow = Flow {
                    seen,
                    began,
                    forward,
                    back,
                    state,
                };
                if flow.is_live(tuple.proto(), now, SECOND) {
                    all.push((begun, *tuple, flow));
                }
            }
        }
        all.sort_by_key(|(begun, tuple, _)| (*begun, *tuple));
        all
    }
}
