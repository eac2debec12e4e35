//! Mistakes that a compiler might make in its tables, or a classifier in
//! reading them: a look at the right tables through a wrong glass.

use filter_common::abi::{
    Constants, DECIDE_DROP, ELSEWHERE, FamilyLayout, IN_A_LIST, LOW, Lanes, Layout, Line, NO_LINE,
    NONE, POINTER, PROTOCOL_WORDS, RECORD_PARTS, RECORD_ROW, RECORD_VALUES, Record, Root, SHAPE,
    SLOT_OWNER, SLOT_ROW, SLOT_VALUES, Slot, WIDTH_BYTE, WIDTH_HALF, flags, forms, lanes, list_at,
    list_of, trie, used,
};
use filter_common::classify::{self, Tables};
use filter_common::event::Rate;
use filter_common::packet::Cursor;
use filter_common::wire::l4;
use filter_user::compile::Image;
use filter_user::decision::Decision;

/// What is wrong with the glass.
#[derive(Clone, Copy)]
pub(crate) enum Mistake {
    /// Nothing.
    None,
    /// With what the program is specialised with.
    Layout(fn(&mut Layout)),
    /// With a line: the words of a branch.
    Line(fn(&mut Line)),
    /// With the slot of a pair of address classes.
    Slot(fn(&mut Slot)),
    /// With the record of an address class.
    Record(fn(&mut Record)),
    /// With the index of a word.
    Index(fn(u32, &Layout) -> u32),
}

/// Each must be caught.
pub(crate) const ALL: &[(&str, Mistake)] = &[
    // The trie.
    (
        "IPv6: a boundary is one too high",
        Mistake::Line(|line| {
            for boundary in 0..trie::BRANCH_BOUNDARIES {
                line.0[boundary * 2] = line.0[boundary * 2].saturating_add(1);
            }
        }),
    ),
    (
        "IPv6: the last boundary of a branch is not asked",
        Mistake::Line(|line| {
            let last = trie::BRANCH_BOUNDARIES * 2 - 2;
            line.0[last..last + 2].fill(u32::MAX);
        }),
    ),
    (
        "IPv4: boundaries are one too high",
        Mistake::Layout(|layout| {
            lanes(layout, |lanes| lanes.mask &= !1);
        }),
    ),
    (
        "IPv4: an address is searched with a bit that the table has taken",
        Mistake::Layout(|layout| lanes(layout, |lanes| lanes.mask = lanes.mask << 1 | 1)),
    ),
    (
        "IPv4: the last lane of each word is not asked",
        Mistake::Layout(|layout| {
            lanes(layout, |lanes| {
                if lanes.fold >= 32 {
                    lanes.ones_high &= !(1 << (lanes.fold - 32));
                }
            });
        }),
    ),
    (
        "the two of a pair are swapped",
        Mistake::Line(|line| line.0.swap(lanes::PAIR_ENTRIES, lanes::PAIR_ENTRIES + 1)),
    ),
    (
        "pairs are taken for branches",
        Mistake::Layout(|layout| roots(layout, |root| root.forms &= !forms::PAIR)),
    ),
    (
        "branches are taken for pairs",
        Mistake::Layout(|layout| roots(layout, |root| root.forms &= !forms::BRANCH)),
    ),
    (
        "no address is searched to its low half",
        Mistake::Layout(|layout| roots(layout, |root| root.forms &= !forms::LOW)),
    ),
    (
        "each address is searched to its low half",
        Mistake::Line(|line| {
            for word in &mut line.0[trie::BRANCH_ENTRIES..] {
                if *word & POINTER != 0 {
                    *word |= LOW;
                }
            }
        }),
    ),
    (
        "the last level of the deepest way is forgotten",
        Mistake::Layout(|layout| {
            roots(layout, |root| root.levels = root.levels.saturating_sub(1));
        }),
    ),
    (
        "the low half of an IPv6 address is never come to",
        Mistake::Line(|line| {
            for word in &mut line.0[trie::BRANCH_ENTRIES..] {
                if *word & POINTER != 0 {
                    *word &= !LOW;
                }
            }
        }),
    ),
    (
        "the table of the first bits has only even places",
        Mistake::Index(|index, layout| {
            let [v4, v6] = &layout.families;
            let entries = [
                (v4.src, 1 << (32 - v4.src.lanes.shift)),
                (v4.dst, 1 << (32 - v4.dst.lanes.shift)),
                (v6.src, v6.src.range.last),
                (v6.dst, v6.dst.range.last),
            ];
            for (Root { table, .. }, count) in entries {
                if table != NONE && (table..table + count).contains(&index) {
                    return table + ((index - table) & !1);
                }
            }
            index
        }),
    ),
    (
        "IPv6: an entry of the table is for half of its addresses",
        Mistake::Layout(|layout| {
            for root in [&mut layout.families[1].src, &mut layout.families[1].dst] {
                root.range.shift = root.range.shift.saturating_sub(1);
            }
        }),
    ),
    (
        "IPv6: the table begins one address later",
        Mistake::Layout(|layout| {
            for root in [&mut layout.families[1].src, &mut layout.families[1].dst] {
                root.range.base += 1;
            }
        }),
    ),
    // Ports.
    (
        "the classes of ports are a byte each",
        Mistake::Layout(|layout| layout.selectors.width = WIDTH_BYTE),
    ),
    (
        "the classes of ports are half a word each",
        Mistake::Layout(|layout| layout.selectors.width = WIDTH_HALF),
    ),
    (
        "the classes of source ports are a byte each",
        Mistake::Layout(|layout| layout.source_ports.width = WIDTH_BYTE),
    ),
    (
        "TCP has the ports of UDP",
        Mistake::Index(|index, layout| {
            let row = |proto: u8| layout.protocols + u32::from(proto) * PROTOCOL_WORDS;
            if index == row(l4::TCP) {
                row(l4::UDP)
            } else {
                index
            }
        }),
    ),
    (
        "the header of a protocol is that of the next one",
        Mistake::Index(|index, layout| {
            let table = layout.protocols..layout.protocols + 256 * PROTOCOL_WORDS;
            let is_shape =
                table.contains(&index) && (index - table.start) % PROTOCOL_WORDS == SHAPE;
            if is_shape {
                index + PROTOCOL_WORDS
            } else {
                index
            }
        }),
    ),
    // The combinations.
    (
        "source and destination are swapped",
        Mistake::Layout(|layout| {
            families(layout, |family| {
                std::mem::swap(&mut family.src, &mut family.dst);
            });
        }),
    ),
    (
        "the table of pairs is one off",
        Mistake::Layout(|layout| {
            families(layout, |family| {
                if family.pairs != NONE {
                    family.pairs += 1;
                }
            });
        }),
    ),
    (
        "IPv6 has the decisions of IPv4",
        Mistake::Layout(|layout| layout.families[1].decisions = layout.families[0].decisions),
    ),
    (
        "source ports are not joined",
        Mistake::Layout(|layout| layout.joint = NONE),
    ),
    (
        "the rows of source ports are one short",
        Mistake::Layout(|layout| layout.source_port_classes -= 1),
    ),
    // The parts.
    (
        "parts: lines of any address are forgotten",
        Mistake::Layout(|layout| families(layout, |family| family.parts.any = NONE)),
    ),
    (
        "parts: the lists of sources are forgotten",
        Mistake::Layout(|layout| forget(layout, used::SRC)),
    ),
    (
        "parts: the lists of destinations are forgotten",
        Mistake::Layout(|layout| forget(layout, used::DST)),
    ),
    (
        "parts: narrow sources with narrow destinations are forgotten",
        Mistake::Layout(|layout| forget(layout, used::BOTH)),
    ),
    (
        "parts: narrow sources with wide destinations are forgotten",
        Mistake::Layout(|layout| forget(layout, used::BOTH << 1)),
    ),
    (
        "parts: wide sources with narrow destinations are forgotten",
        Mistake::Layout(|layout| forget(layout, used::BOTH << 2)),
    ),
    (
        "parts: wide sources with wide destinations are forgotten",
        Mistake::Layout(|layout| forget(layout, used::BOTH << 3)),
    ),
    (
        "parts: the second part is asked in the place of the third",
        Mistake::Record(|record| record[RECORD_PARTS + 2] = record[RECORD_PARTS + 1]),
    ),
    (
        "parts: displacements or distances are one too high",
        Mistake::Record(|record| record[RECORD_PARTS] = record[RECORD_PARTS].wrapping_add(1)),
    ),
    (
        "parts: a slot belongs to nobody",
        Mistake::Slot(|slot| slot[SLOT_OWNER] = NONE),
    ),
    (
        "parts: no value is taken for that of a line that matches",
        Mistake::Slot(|slot| slot.swap(SLOT_VALUES, SLOT_VALUES + 1)),
    ),
    (
        "parts: a list of several values begins one too late",
        Mistake::Slot(|slot| one_too_late(&mut slot[SLOT_VALUES + 1])),
    ),
    (
        "parts: a list of several values of one address begins one too late",
        Mistake::Record(|record| one_too_late(&mut record[RECORD_VALUES + 1])),
    ),
    (
        "parts: the value of an address is not asked",
        Mistake::Record(|record| record[RECORD_VALUES + 1] = NO_LINE),
    ),
    (
        "parts: rows of an address begin one too late",
        Mistake::Record(|record| record[RECORD_ROW] = record[RECORD_ROW].wrapping_add(1)),
    ),
    (
        "parts: rows of a pair begin one too late",
        Mistake::Slot(|slot| slot[SLOT_ROW] = slot[SLOT_ROW].wrapping_add(1)),
    ),
    (
        "parts: what stands behind a row of zeros is taken for it",
        Mistake::Layout(|layout| {
            let classes = layout.l4_classes;
            families(layout, |family| {
                family.parts.rows = family.parts.rows.wrapping_add(classes);
            });
        }),
    ),
    (
        "parts: the places of rows are a byte each",
        Mistake::Layout(|layout| families(layout, |family| family.parts.width = WIDTH_BYTE)),
    ),
    (
        "parts: the places of rows are half a word each",
        Mistake::Layout(|layout| families(layout, |family| family.parts.width = WIDTH_HALF)),
    ),
    (
        "parts: what no line decides is allowed",
        Mistake::Layout(|layout| {
            families(layout, |family| {
                family.parts.default &= !(DECIDE_DROP >> 24);
            });
        }),
    ),
    (
        "parts: source ports are not asked",
        Mistake::Layout(|layout| layout.flags &= !flags::SOURCE_PORTS),
    ),
];

fn families(layout: &mut Layout, change: impl FnMut(&mut FamilyLayout)) {
    layout.families.iter_mut().for_each(change);
}

fn one_too_late(value: &mut u32) {
    const A_LIST: u32 = ELSEWHERE | IN_A_LIST;
    if *value != NO_LINE && *value & A_LIST == A_LIST {
        *value = list_at(list_of(*value) + 1);
    }
}

fn forget(layout: &mut Layout, part: u32) {
    families(layout, |family| family.parts.used &= !part);
}

fn roots(layout: &mut Layout, change: impl Fn(&mut Root)) {
    families(layout, |family| {
        change(&mut family.src);
        change(&mut family.dst);
    });
}

fn lanes(layout: &mut Layout, change: impl Fn(&mut Lanes)) {
    let [v4, _] = &mut layout.families;
    change(&mut v4.src.lanes);
    change(&mut v4.dst.lanes);
}

/// The tables as they are seen.
pub(crate) struct Glass<'a> {
    image: &'a Image,
    mistake: Mistake,
    constants: Constants,
    lines: Vec<Line>,
    slots: Vec<Slot>,
    records: Vec<Record>,
}

impl<'a> Glass<'a> {
    pub(crate) fn new(image: &'a Image, mistake: Mistake) -> Self {
        let (mut layout, mut lines) = (*image.layout(), image.lines().to_vec());
        let mut slots: Vec<Slot> = bytemuck::cast_slice(&lines).to_vec();
        let mut records: Vec<Record> = bytemuck::cast_slice(&lines).to_vec();
        match mistake {
            Mistake::Line(change) => lines.iter_mut().for_each(change),
            Mistake::Layout(change) => change(&mut layout),
            Mistake::Slot(change) => slots.iter_mut().for_each(change),
            Mistake::Record(change) => records.iter_mut().for_each(change),
            Mistake::None | Mistake::Index(_) => {}
        }
        Self {
            image,
            mistake,
            constants: Constants::new(&layout, Rate::OFF),
            lines,
            slots,
            records,
        }
    }

    /// What a packet would come to.
    pub(crate) fn decide(&self, frame: &[u8]) -> Decision {
        classify::decide(&Cursor::over(frame), self).into()
    }
}

impl Tables for Glass<'_> {
    fn word(&self, index: u32) -> Option<u32> {
        self.image.word(match self.mistake {
            Mistake::Index(change) => change(index, &self.constants.own.layout),
            _ => index,
        })
    }

    fn half(&self, index: u32) -> Option<u16> {
        self.image.half(index)
    }

    fn byte(&self, index: u32) -> Option<u8> {
        self.image.byte(index)
    }

    fn line(&self, number: u32) -> Option<&Line> {
        self.lines.get(number as usize)
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(number as usize)
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)
    }

    fn constant<const A: usize, const B: usize, const C: usize>(&self) -> u32 {
        self.constants.words()[(A + B + C) / size_of::<u32>()]
    }
}
