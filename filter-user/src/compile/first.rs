//! Which line of a list is the first, for each class of L4 headers and source
//! ports: of lines that allow or deny, the first one decides.
//!
//! The list is walked once, for all classes together: a line concerns those in
//! which its condition holds and that no line before it has taken. A list of
//! hundreds of lines asks a few dozen different things, and what is asked again
//! is asked in vain.

use super::bits::Bits;
use super::classes::Classes;
use super::lines::Condition;

/// Of no line. Keys are less.
pub(super) const NO_KEY: u32 = u32::MAX;
/// In a [state](Walk::states): all classes of source ports have this key.
const SAME: u32 = 1 << 31;

/// In what classes a condition holds.
#[derive(Debug)]
struct Holds {
    /// L4 classes; of the source port, apart.
    matching: Bits,
    /// L4 classes in which it can't be decided.
    undecidable: Bits,
    /// Classes of source ports; `None` where it does not ask for any.
    sports: Option<Vec<u32>>,
}

/// What each condition means to each class, and room for a walk along a list.
#[derive(Debug)]
pub(super) struct Walk {
    conditions: Vec<Holds>,
    sports: usize,
    /// The number of this walk, and of each condition that of the last one in
    /// which it was asked.
    turn: u32,
    asked: Vec<u32>,
    /// L4 classes that lines may still take.
    open: Bits,
    /// Of each L4 class: [`SAME`] with the key, or the number of a row.
    states: Vec<u32>,
    /// Rows of keys, one a class of source ports.
    rows: Vec<u32>,
    /// Of the states that the present line has met, what they become.
    next: Vec<(u32, u32)>,
}

/// The first line's key for an L4 class.
#[derive(Clone, Copy, Debug)]
pub(super) enum First<'w> {
    /// Whatever the source port.
    Same(u32),
    /// One a class of source ports; those of a number are the same.
    BySourcePort(u32, &'w [u32]),
}

impl Walk {
    /// Asks each condition in each class.
    pub(super) fn of(classes: &Classes<'_>) -> Self {
        let count = classes.l4.classes.len();
        let ports = &classes.source_ports.classes;
        let mut conditions: Vec<Holds> = classes
            .lines
            .conditions
            .iter()
            .enumerate()
            .map(|(number, asked)| Holds {
                matching: Bits::empty(count),
                undecidable: Bits::empty(count),
                sports: asks_source_port(asked).then(|| {
                    let holding = (0..).zip(ports).filter(|(_, set)| set.contains(number));
                    holding.map(|(class, _)| class).collect()
                }),
            })
            .collect();
        for (l4, class) in classes.l4.classes.iter().enumerate() {
            for number in class.matching.iter() {
                conditions[number].matching.insert(l4);
            }
            for number in class.undecidable.iter() {
                conditions[number].undecidable.insert(l4);
            }
        }
        Self {
            asked: vec![0; conditions.len()],
            conditions,
            sports: ports.len(),
            turn: 0,
            open: Bits::empty(count),
            states: vec![SAME | NO_KEY; count],
            rows: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Walks along a list. `lines` has of each line the condition and a key, in
    /// order; lines of one rule have the same key. A key is less than 2^30; the
    /// key of what is found is its double, and one more where that line can't be
    /// decided.
    pub(super) fn along(&mut self, lines: impl Iterator<Item = (usize, u32)>) {
        self.turn += 1;
        self.open.fill(self.states.len());
        self.states.fill(SAME | NO_KEY);
        self.rows.clear();
        // Those of the present rule that can't be decided somewhere: a later line
        // of the rule may match there.
        let mut doubtful: Vec<usize> = Vec::new();
        let mut rule = NO_KEY;
        for (condition, key) in lines {
            if key != rule {
                self.doubt(&mut doubtful, rule);
                if self.open.is_empty() {
                    return;
                }
                rule = key;
            }
            if std::mem::replace(&mut self.asked[condition], self.turn) == self.turn {
                continue;
            }
            self.take(condition, false, key << 1);
            if self.conditions[condition].undecidable.meets(&self.open) {
                doubtful.push(condition);
            }
        }
        self.doubt(&mut doubtful, rule);
    }

    fn doubt(&mut self, conditions: &mut Vec<usize>, key: u32) {
        for condition in conditions.drain(..) {
            self.take(condition, true, key << 1 | 1);
        }
    }

    /// Gives the classes of a condition the key, so far as no line has them.
    fn take(&mut self, condition: usize, undecidable: bool, key: u32) {
        let Self {
            conditions,
            sports: count,
            open,
            states,
            rows,
            next,
            ..
        } = self;
        let holds = &conditions[condition];
        let (classes, sports) = if undecidable {
            (&holds.undecidable, None)
        } else {
            (&holds.matching, holds.sports.as_deref())
        };
        next.clear();
        for l4 in classes.in_both(open) {
            let state = states[l4];
            let known = next.iter().find(|(known, _)| *known == state);
            states[l4] = if let Some(&(_, after)) = known {
                after
            } else {
                let after = match sports {
                    None if state == SAME | NO_KEY => SAME | key,
                    Some([]) => state,
                    _ => {
                        let row = copy_row(rows, *count, state);
                        let taken = &mut rows[row * *count..];
                        match sports {
                            Some(sports) => {
                                for &sport in sports {
                                    let taken = &mut taken[sport as usize];
                                    *taken = (*taken).min(key);
                                }
                            }
                            None => taken
                                .iter_mut()
                                .for_each(|taken| *taken = (*taken).min(key)),
                        }
                        row as u32
                    }
                };
                next.push((state, after));
                after
            };
        }
        if sports.is_none() {
            open.remove(classes);
        }
    }

    /// What was found, for each L4 class in turn.
    pub(super) fn found(&self) -> impl Iterator<Item = First<'_>> {
        self.states.iter().map(|&state| self.first(state))
    }

    fn first(&self, state: u32) -> First<'_> {
        if state & SAME != 0 {
            let key = state & !SAME;
            First::Same(if key == (NO_KEY & !SAME) { NO_KEY } else { key })
        } else {
            let row = &self.rows[state as usize * self.sports..][..self.sports];
            First::BySourcePort(state, row)
        }
    }
}

/// Adds a row that begins as this state is; its number.
fn copy_row(rows: &mut Vec<u32>, count: usize, state: u32) -> usize {
    let row = rows.len() / count;
    if state & SAME == 0 {
        let start = state as usize * count;
        rows.extend_from_within(start..start + count);
    } else {
        // A state that is open and the same everywhere has no line yet.
        rows.resize(rows.len() + count, NO_KEY);
    }
    row
}

fn asks_source_port(asked: &Condition<'_>) -> bool {
    !asked.src_ports.is_empty() || !asked.not_src_ports.is_empty()
}
