//! What the kernel program and the loader must agree on.
//!
//! The image is one array of 32-bit words in the machine's byte order, held
//! in lines; [`Layout`] says where its tables begin. Word indices, not
//! bytes, everywhere.

use bytemuck::{Pod, Zeroable};

use crate::event::Rate;
use crate::verdict::{Essential, Reason, Verdict};

/// Changes with everything in this module. Pinned state of another version is
/// not read.
pub const VERSION: u32 = 7;

/// Words in a line: what a branch of a trie takes, and no cache line is crossed by.
pub const LINE_WORDS: usize = 16;
/// Sixteen words of the image that are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Line(pub [u32; LINE_WORDS]);

const LINE: u32 = 16;
const SLOTS_A_LINE: u32 = 4;
const RECORDS_A_LINE: u32 = 2;
const _: () = {
    assert!(LINE as usize == LINE_WORDS);
    assert!(SLOTS_A_LINE as usize * SLOT_WORDS == LINE_WORDS);
    assert!(RECORDS_A_LINE as usize * RECORD_WORDS == LINE_WORDS);
};

/// Lines that the kernel program's map is declared with. The loader makes the map
/// with those of the image: it is the map's one value, whose address the loader
/// can give to the program, and not that of an element.
pub const DECLARED_LINES: usize = 8_281_249;
/// Lines of the largest image: the verifier takes no offsets from 2^29 bytes on
/// (`BPF_MAX_VAR_OFF`).
pub const MAX_LINES: usize = (1 << 29) / size_of::<Line>() - 1;

/// Where a trie begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Root {
    /// First word of a table of [entries](POINTER) for the first bits; [`NONE`] where
    /// there is none.
    pub table: u32,
    /// Without such a table: the entry that all values have; with
    /// [`forms::DIRECT`], that of the lowest values, and each of the lines behind it is
    /// for as many more.
    pub entry: u32,
    /// Lines on the longest way, behind the table or the entry.
    pub levels: u32,
    /// Which [`forms`] there are among them.
    pub forms: u32,
    /// How lines are searched, of IPv4.
    pub lanes: Lanes,
    /// What the table reaches over, of IPv6.
    pub range: Range,
}

/// The addresses that a table has entries for. Addresses are their first 64 bits
/// here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Range {
    /// The lower half of the first one.
    pub base: u32,
    /// Its upper half.
    pub base_high: u32,
    /// Bits that an entry leaves.
    pub shift: u32,
    /// The number of the last entry, which all addresses have that no other is for.
    pub last: u32,
}

/// How the [lines](lanes) of one trie are searched. A lane holds the bits that the
/// table has not taken, and one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Lanes {
    /// Bits that the table, or the row of lines, leaves.
    pub shift: u32,
    /// Those bits.
    pub mask: u32,
    /// The lower half of a word in which the first bit of each lane is set.
    pub ones: u32,
    /// Its upper half.
    pub ones_high: u32,
    /// The number of a lane's last bit.
    pub last: u32,
    /// The number of the last lane's first bit.
    pub fold: u32,
}

impl Lanes {
    /// Those of a trie whose table takes this many of 32 bits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half by itself")]
    pub const fn behind(bits: u32) -> Self {
        let left = u32::BITS - bits;
        let count = Self::count(bits);
        let width = u64::BITS / count;
        let mut ones = 0_u64;
        let mut lane = 0;
        while lane < count {
            ones |= 1 << (lane * width);
            lane += 1;
        }
        Self {
            shift: left,
            mask: if left == u32::BITS {
                u32::MAX
            } else {
                (1 << left) - 1
            },
            ones: ones as u32,
            ones_high: (ones >> 32) as u32,
            last: width - 1,
            fold: (count - 1) * width,
        }
    }

    /// Lanes in a word behind a table of this many bits.
    #[must_use]
    pub const fn count(bits: u32) -> u32 {
        match bits {
            0 => 1,
            1..=11 => 2,
            12..=16 => 3,
            _ => 4,
        }
    }

    /// A word of these boundaries, one a lane; lanes without one are above all.
    #[must_use]
    pub fn word(self, boundaries: &[u32]) -> u64 {
        let width = self.last + 1;
        (0..u64::BITS / width)
            .map(|lane| {
                let boundary = boundaries.get(lane as usize);
                let above = 1 << self.last;
                boundary.map_or(above, |&boundary| u64::from(boundary)) << (lane * width)
            })
            .fold(0, |word, lane| word | lane)
    }
}

/// Lines of IPv4: boundaries in lanes, several in a word.
pub mod lanes {
    /// Words of 64 bits with the boundaries of a branch.
    pub const BRANCH_WORDS: usize = 3;
    /// Its first entry, behind them: that of values below all boundaries; each
    /// boundary that is not above a value leads one further.
    pub const BRANCH_ENTRIES: usize = BRANCH_WORDS * 2;
    /// Boundaries of a branch at most.
    pub const BRANCH_BOUNDARIES: usize = super::LINE_WORDS - BRANCH_ENTRIES - 1;
    /// Words of 64 bits with the boundaries of a pair.
    pub const PAIR_WORDS: usize = 7;
    /// Its entries, behind them: of values with an even number of boundaries that are
    /// not above them, and with an odd one.
    pub const PAIR_ENTRIES: usize = PAIR_WORDS * 2;
}

/// Lines of IPv6: boundaries of 64 bits.
pub mod trie {
    /// Boundaries of a branch, in order; unused ones have all bits set.
    pub const BRANCH_BOUNDARIES: usize = 5;
    /// Its first entry, behind them: that of values above all boundaries; each
    /// boundary above a value leads one further.
    pub const BRANCH_ENTRIES: usize = BRANCH_BOUNDARIES * 2;
    /// Boundaries of a pair, likewise.
    pub const PAIR_BOUNDARIES: usize = 7;
    /// Its entries, behind them: of values with an even number of boundaries above
    /// them, and with an odd one.
    pub const PAIR_ENTRIES: usize = PAIR_BOUNDARIES * 2;
}

impl Default for Root {
    /// All values are of class 0.
    fn default() -> Self {
        Self {
            table: NONE,
            entry: 0,
            levels: 0,
            forms: 0,
            lanes: Lanes::default(),
            range: Range::default(),
        }
    }
}

/// Where the classes of values of 16 bits are: in blocks of 256 for the lower byte.
/// Which block an upper byte has, 256 half words say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Table16 {
    /// The first element of the first block, counted in elements.
    pub blocks: u32,
    /// [Width](WIDTH_BYTE) of the elements.
    pub width: u32,
}

/// Elements of a byte.
pub const WIDTH_BYTE: u32 = 0;
/// Elements of half a word.
pub const WIDTH_HALF: u32 = 1;
/// Elements of a word.
pub const WIDTH_WORD: u32 = 2;

/// Where the tables of one IP version begin.
///
/// What address classes are numbered by depends on what they are looked up in:
/// the number is the distance to the row of the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FamilyLayout {
    /// Sources → class.
    pub src: Root,
    /// Destinations → class.
    pub dst: Root,
    /// First word of the table (source class + destination class) → pair
    /// class; [`NONE`] where at most one of the two has more than one class: then
    /// the sum of both is the pair class.
    pub pairs: u32,
    /// First word of the table (pair class + L4 class) →
    /// [decision](DECISION_COUNTER), or [`NOTED`] and the place of a record.
    pub decisions: u32,
    /// What stands for pairs and decisions where [`flags::PARTS`] is set.
    pub parts: PartsLayout,
}

/// Parts that ask for both addresses: narrow or wide sources, with narrow or
/// wide destinations.
pub const PARTS: usize = 4;
/// Words of a [`Record`].
pub const RECORD_WORDS: usize = 8;
/// What all parts ask of an address class, read together: of the part that asks for
/// this address only, where its [row](RECORD_ROW) is and its [values](RECORD_VALUES);
/// then, from [`RECORD_PARTS`] on, a word for each part that asks for both.
///
/// Of a source that word is the displacement of its row of slots, counted in slots
/// from the beginning of the image; of a destination the distance from there on. So
/// the sum is the pair's slot, whose owner is the displacement: no two sources
/// of a part have the same one. Addresses that no line of the part asks for
/// have a displacement that owns no slot, and a distance at which no row has one.
pub type Record = [u32; RECORD_WORDS];
/// Words of a [`Slot`].
pub const SLOT_WORDS: usize = 4;
/// What a part that asks for both addresses has for a pair of classes.
pub type Slot = [u32; SLOT_WORDS];
/// In a slot: the displacement of its source.
pub const SLOT_OWNER: usize = 0;
/// In a slot: the element, from [`PartsLayout::rows`] on, at which its row begins.
///
/// A row has an element for each L4 class: 0 where no line matches; else an odd
/// number, whose half is the place of the class's value in the list. The highest bit is
/// set where the line of that place can't be decided.
pub const SLOT_ROW: usize = 1;
/// In a slot: [`NO_LINE`], for elements that are even, and then the value for those
/// that are odd.
pub const SLOT_VALUES: usize = 2;
/// In a record: see [`SLOT_ROW`].
pub const RECORD_ROW: usize = 0;
/// In a record: see [`SLOT_VALUES`].
pub const RECORD_VALUES: usize = 1;
/// In a record: the first of [`PARTS`] words.
pub const RECORD_PARTS: usize = 3;
const _: () = assert!(RECORD_PARTS + PARTS <= RECORD_WORDS);
/// In the low 8 bits of a value: it is elsewhere. What is in the higher 24 bits is a
/// line, which source ports decide on: from there on, each sixteen classes of source
/// ports have a word, which is their value, or with this again the line of their
/// sixteen values.
pub const ELSEWHERE: u32 = 0x80;
/// Beside it: not source ports decide, but the place in the list. The bits that are
/// left are the list's first word, with the lowest three of it in front.
pub const IN_A_LIST: u32 = 0x40;
/// The value where no line matches: no other one is greater, but for those
/// that are [`ELSEWHERE`].
pub const NO_LINE: u32 = !ELSEWHERE;

/// The value that stands for those of a list.
#[must_use]
pub const fn list_at(word: u32) -> u32 {
    (word >> 3) << 8 | word & 7 | ELSEWHERE | IN_A_LIST
}

/// Where a list begins.
#[inline(always)]
#[must_use]
pub const fn list_of(value: u32) -> u32 {
    value >> 8 << 3 | value & 7
}

/// The combination by parts, of one IP version. A value is the
/// [decision](DECISION_COUNTER), rotated to the left by 8 bits so that the least is
/// the first in order; [`NO_LINE`] where no line matches; or says that it is
/// [`ELSEWHERE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PartsLayout {
    /// First [`Record`] of source classes, counted in records.
    pub src: u32,
    /// The same of destination classes.
    pub dst: u32,
    /// First word of the table of L4 classes → value, of the lines that ask for no
    /// address; [`NONE`] where there are none.
    pub any: u32,
    /// First element of the rows, which begin with one of zeros.
    pub rows: u32,
    /// [Width](WIDTH_BYTE) of the elements of rows.
    pub width: u32,
    /// Which parts have lines: [`used`].
    pub used: u32,
    /// The value that stands for the default: greater than those of rules.
    pub default: u32,
}

/// [`PartsLayout::used`].
pub mod used {
    /// The part that asks for sources only.
    pub const SRC: u32 = 1;
    /// The part that asks for destinations only.
    pub const DST: u32 = 1 << 1;
    /// The first of those that ask for both; the others are shifted by their number.
    pub const BOTH: u32 = 1 << 2;
}

impl Default for PartsLayout {
    fn default() -> Self {
        Self {
            src: NONE,
            dst: NONE,
            any: NONE,
            rows: NONE,
            width: WIDTH_BYTE,
            used: 0,
            default: NO_LINE,
        }
    }
}

/// Where everything is in the image, and the switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// How many the image has.
    pub lines: u32,
    /// Indexed by [`crate::parse::Family`].
    pub families: [FamilyLayout; 2],
    /// First word of the protocol table: [`PROTOCOL_WORDS`] for each of 256
    /// protocols and the unknown one. The first is where the blocks of its selectors
    /// are said, in half words; the second the class where the header is unreadable;
    /// the third where the packet is a later fragment; the fourth (see [`SHAPE`]) the
    /// header's [shape](crate::wire::l4::Shape).
    pub protocols: u32,
    /// Selectors → class.
    pub selectors: Table16,
    /// Source ports → class.
    pub source_ports: Table16,
    /// Where the blocks of source ports are said, in half words; [`NONE`] where all
    /// are of class 0.
    pub source_port_heads: u32,
    /// First word of the table (L4 class × `source_port_classes` + source port
    /// class) → joint L4 class, which then stands for the L4 class; [`NONE`]
    /// where there is none.
    pub joint: u32,
    /// Number of source port classes.
    pub source_port_classes: u32,
    /// Number of L4 classes, joint ones where there are such.
    pub l4_classes: u32,
    /// First word of the records of noted rules; [`NONE`] where there are
    /// none. A record is the decision, the number of noted rules (1 to
    /// [`MAX_NOTES`]), and each one's index, with [`NOTE_EVENT`] where it
    /// reports the packet.
    pub notes: u32,
    /// [`flags`].
    pub flags: u32,
}

impl Layout {
    /// Whether the program for small images can read this one. It takes less time
    /// to load than the other: the kernel goes over all of a program several times
    /// before what the constants switch off is gone.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.flags & flags::PARTS == 0
            && self.families.iter().all(|family| {
                [family.src, family.dst]
                    .iter()
                    .all(|root| root.levels as usize <= LEVELS_SMALL)
            })
    }
}

/// What the program is told of an image, a word at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ImageConstants {
    /// Of the image.
    pub layout: Layout,
    /// Words in the image.
    pub words: u32,
    /// Half words.
    pub halves: u32,
    /// Bytes.
    pub bytes: u32,
    /// What would be [`Slot`]s.
    pub slots: u32,
    /// What would be [`Record`]s.
    pub records: u32,
}

impl ImageConstants {
    /// Those of an image.
    #[must_use]
    pub const fn new(layout: &Layout) -> Self {
        let words = layout.lines * LINE;
        Self {
            layout: *layout,
            words,
            halves: words * 2,
            bytes: words * 4,
            slots: layout.lines * SLOTS_A_LINE,
            records: layout.lines * RECORDS_A_LINE,
        }
    }
}

/// What the program is told of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowConstants {
    /// [`switches`].
    pub switches: u32,
    /// Jiffies in a second.
    pub second: u32,
    /// The secret of the tables, its low half.
    pub seed: u32,
    /// The high half.
    pub seed_high: u32,
}

impl FlowConstants {
    /// Takes the secret of the tables.
    #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
    pub const fn set_seed(&mut self, seed: u64) {
        self.seed = seed as u32;
        self.seed_high = (seed >> u32::BITS) as u32;
    }
}

/// [`FlowConstants::switches`].
pub mod switches {
    /// What the rules drop may be return traffic of the other direction's flows.
    pub const CONSULT: u32 = 1;
    /// What the rules allow may begin a flow, whose return traffic the other
    /// direction's rules would drop.
    pub const FILL: u32 = 1 << 1;
    /// Later fragments pass where the first one did.
    pub const FRAGMENTS: u32 = 1 << 2;
}

/// All that the program is specialised with, a word at a time.
///
/// The object has each word as an immediate of 32 bits: [`PLACEHOLDER`], and in
/// its low bits the word's number in here. The loader puts the word in its place
/// before the verifier sees it, which deletes what the words switch off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Constants {
    /// The image of the program's own direction.
    pub own: ImageConstants,
    /// That of the other direction, where flows are [filled](switches::FILL).
    pub other: ImageConstants,
    /// How many dropped packets are reported.
    pub sampling: Rate,
    /// What is done with flows.
    pub flows: FlowConstants,
}

impl Constants {
    /// Those for one image alone: no state is kept.
    #[must_use]
    pub fn new(layout: &Layout, sampling: Rate) -> Self {
        Self {
            own: ImageConstants::new(layout),
            other: ImageConstants::default(),
            sampling,
            flows: FlowConstants::default(),
        }
    }

    /// All words, by their number.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(bytemuck::bytes_of(self))
    }
}

/// What an immediate that stands for a word of [`Constants`] begins with.
pub const PLACEHOLDER: u32 = 0x6e77 << 16;
/// The bits of it that are the word's number.
pub const PLACEHOLDER_NUMBER: u32 = 0xffff;

/// Where the words of [`Constants`] are, in bytes: the sum of some of these.
pub mod at {
    use core::mem::{offset_of, size_of};

    use super::{
        Constants, FamilyLayout, FlowConstants, ImageConstants, Lanes, Layout, PartsLayout, Range,
        Rate, Root, Table16,
    };

    macro_rules! places {
        ($($(#[$doc:meta])* $name:ident = $of:ident.$field:ident;)*) => {
            $($(#[$doc])* pub const $name: usize = offset_of!($of, $field);)*
        };
    }

    const LAYOUT: usize = offset_of!(ImageConstants, layout);
    const _: () = assert!(LAYOUT == 0);
    const _: () = assert!(offset_of!(Constants, own) == 0);

    places! {
        /// [`Constants::other`].
        OTHER = Constants.other;
        /// [`Constants::flows`].
        FLOWS = Constants.flows;
        /// Of flows.
        SWITCHES = FlowConstants.switches;
        /// Of flows.
        SECOND = FlowConstants.second;
        /// Of flows.
        SEED = FlowConstants.seed;
        /// Of flows.
        SEED_HIGH = FlowConstants.seed_high;

        /// [`Constants::sampling`].
        SAMPLING = Constants.sampling;
        /// In a rate.
        EVENTS = Rate.events;
        /// In a rate.
        JIFFIES = Rate.jiffies;

        /// [`ImageConstants::words`].
        WORDS = ImageConstants.words;
        /// [`ImageConstants::halves`].
        HALVES = ImageConstants.halves;
        /// [`ImageConstants::bytes`].
        BYTES = ImageConstants.bytes;
        /// [`ImageConstants::slots`].
        SLOTS = ImageConstants.slots;
        /// [`ImageConstants::records`].
        RECORDS = ImageConstants.records;

        /// [`Layout::lines`].
        LINES = Layout.lines;
        /// [`Layout::families`]: that of IPv4.
        V4 = Layout.families;
        /// [`Layout::protocols`].
        PROTOCOLS = Layout.protocols;
        /// [`Layout::selectors`], a table.
        SELECTORS = Layout.selectors;
        /// [`Layout::source_ports`], a table.
        SOURCE_PORTS = Layout.source_ports;
        /// [`Layout::source_port_heads`].
        SOURCE_PORT_HEADS = Layout.source_port_heads;
        /// [`Layout::joint`].
        JOINT = Layout.joint;
        /// [`Layout::source_port_classes`].
        SOURCE_PORT_CLASSES = Layout.source_port_classes;
        /// [`Layout::notes`].
        NOTES = Layout.notes;
        /// [`Layout::flags`].
        FLAGS = Layout.flags;

        /// In a family: a root.
        SRC = FamilyLayout.src;
        /// In a family: a root.
        DST = FamilyLayout.dst;
        /// In a family.
        PAIRS = FamilyLayout.pairs;
        /// In a family.
        DECISIONS = FamilyLayout.decisions;
        /// In a family: the parts.
        PARTS = FamilyLayout.parts;

        /// In the parts.
        SRC_RECORDS = PartsLayout.src;
        /// In the parts.
        DST_RECORDS = PartsLayout.dst;
        /// In the parts.
        ANY = PartsLayout.any;
        /// In the parts.
        ROWS = PartsLayout.rows;
        /// In the parts.
        ROW_WIDTH = PartsLayout.width;
        /// In the parts.
        USED = PartsLayout.used;
        /// In the parts.
        DEFAULT = PartsLayout.default;

        /// In a root.
        TABLE = Root.table;
        /// In a root.
        ENTRY = Root.entry;
        /// In a root.
        LEVELS = Root.levels;
        /// In a root.
        FORMS = Root.forms;

        /// In a root.
        LANES = Root.lanes;
        /// In a root.
        RANGE = Root.range;

        /// In a table.
        BLOCKS = Table16.blocks;
        /// In a table.
        WIDTH = Table16.width;
    }

    macro_rules! below {
        ($of:ident in $place:ident: $($name:ident = $field:ident;)*) => {
            $(
                /// In a root.
                pub const $name: usize = $place + offset_of!($of, $field);
            )*
        };
    }

    below! { Lanes in LANES:
        SHIFT = shift;
        MASK = mask;
        ONES = ones;
        ONES_HIGH = ones_high;
        LAST = last;
        FOLD = fold;
    }

    below! { Range in RANGE:
        BASE = base;
        BASE_HIGH = base_high;
        RANGE_SHIFT = shift;
        LAST_PLACE = last;
    }

    /// [`Layout::families`]: that of IPv6.
    pub const V6: usize = V4 + size_of::<FamilyLayout>();
}

/// No table.
pub const NONE: u32 = u32::MAX;

/// In an entry of a trie: it leads on, to a line; else it is a class.
///
/// A line has boundaries and, behind them, entries. A *branch* has an entry for
/// each way between two boundaries; a *pair* has two, which take turns.
pub const POINTER: u32 = 1 << 31;
/// The line is a pair, else a branch.
pub const PAIR: u32 = 1 << 30;
/// From here on, the low 64 bits of the value.
pub const LOW: u32 = 1 << 29;
/// The number of the line.
pub const PLACE: u32 = LOW - 1;
/// [`Root::forms`].
pub mod forms {
    /// Branches.
    pub const BRANCH: u32 = 1;
    /// Pairs.
    pub const PAIR: u32 = 1 << 1;
    /// Somewhere the low 64 bits of a value are asked for.
    pub const LOW: u32 = 1 << 2;
    /// All entries of the table lead on.
    pub const CERTAIN: u32 = 1 << 3;
    /// There is no table: the lines that its entries would lead to lie in a row.
    pub const DIRECT: u32 = 1 << 4;
}
/// Lines on the longest way through a trie of IPv4.
pub const LEVELS_V4: usize = 5;
/// Lines on the longest way through one of IPv6.
pub const LEVELS_V6: usize = 18;
/// Lines on the longest way that the program for
/// [small](Layout::is_small) images goes along.
pub const LEVELS_SMALL: usize = 3;
/// Words of a row of [`Layout::protocols`]: one for each [`crate::parse::L4`], and
/// the [`SHAPE`].
pub const PROTOCOL_WORDS: u32 = 4;
/// The word of the row that is the header's [shape](crate::wire::l4::Shape).
pub const SHAPE: u32 = 3;

/// [`Layout::flags`].
pub mod flags {
    /// The default is deny.
    pub const DEFAULT_DENY: u32 = 1;
    /// The packets go out, not in.
    pub const EGRESS: u32 = 1 << 1;
    /// Frames that are not IP are dropped.
    pub const DROP_NON_IP: u32 = 1 << 2;
    /// IP in a wrapper is treated as not IP.
    pub const PASS_ENCAPSULATED: u32 = 1 << 3;
    /// Some rule reports packets.
    pub const REPORTS: u32 = 1 << 4;
    /// The classes are combined by parts, not by pairs.
    pub const PARTS: u32 = 1 << 5;
    /// Source ports make a difference to parts.
    pub const SOURCE_PORTS: u32 = 1 << 6;
    /// Essentials of some kind pass under default deny: a bit for each kind.
    pub const ESSENTIALS: u32 = 0xff << ESSENTIAL_SHIFT;
    /// Where the bits of kinds begin.
    const ESSENTIAL_SHIFT: u32 = 8;

    /// Essentials of this kind pass.
    #[inline(always)]
    #[must_use]
    pub const fn essential(kind: super::Essential) -> u32 {
        1 << (ESSENTIAL_SHIFT + kind as u32)
    }
}

/// The part of a decision word that is the index of the packet's counter.
pub const DECISION_COUNTER: u32 = (1 << 24) - 1;
/// In a decision word: the packet is dropped. Else it passes.
pub const DECIDE_DROP: u32 = 1 << 24;
/// The rule is a failsafe.
pub const DECIDE_FAILSAFE: u32 = 1 << 25;
/// The decision is stateful: flows are asked about a packet that it drops, and
/// those that it lets pass may begin one.
pub const DECIDE_STATEFUL: u32 = 1 << 26;
/// The counter is not the packet's, and there is more to ask: with
/// [`DECIDE_DEFAULT`] whether it is an essential, if it is to be dropped; else
/// why its L4 header was not read, for a rule can't be decided without it.
///
/// It is above all that a decided rule's word has: of the words of one rule the parts
/// take the lowest (see [`Slot`]), and a rule that surely matches by one of its lines
/// is decided.
pub const DECIDE_ASK: u32 = 1 << 27;
/// No rule decides. Always with [`DECIDE_ASK`].
pub const DECIDE_DEFAULT: u32 = 1 << 28;
const _: () = assert!(DECIDE_ASK > DECIDE_DROP | DECIDE_FAILSAFE | DECIDE_STATEFUL);
/// In the decision table: the rest is the place of a record behind
/// [`Layout::notes`], which begins with the decision.
pub const NOTED: u32 = 1 << 31;
/// Beside the index of a noted rule: it reports the packet.
pub const NOTE_EVENT: u32 = 1 << 31;
/// Rules that can be counted for a packet beside its verdict.
pub const MAX_NOTES: u32 = 32;
/// The highest place of a record.
pub const MAX_RECORD: u32 = NOTED - 1;
/// Rules that a ruleset can have: their counters have an index in a decision.
pub const MAX_RULES: usize = (DECISION_COUNTER - REASON_COUNTERS) as usize;

/// Exact totals: packets, and bytes of the frame without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters before the first rule's: one a reason, one for frames that are not IP
/// and were dropped, and one for each kind of essentials.
///
/// A packet is counted once: by its rule where one decided, else by its
/// reason, and where that is that it is an essential, by its kind. A reason that rules
/// give (`policy_deny`, …) is the sum of its rules.
pub const REASON_COUNTERS: u32 = FIRST_ESSENTIAL + 8;
const NOT_IP_DROPPED: u32 = 16;
const FIRST_ESSENTIAL: u32 = 17;

/// The counter of packets that got this verdict for this reason.
#[inline(always)]
#[must_use]
pub const fn reason_counter(reason: Reason, verdict: Verdict) -> u32 {
    match (reason, verdict) {
        (Reason::NotIp, Verdict::Drop) => NOT_IP_DROPPED,
        _ => reason as u32,
    }
}

/// The counter of essentials of a kind.
#[inline(always)]
#[must_use]
pub const fn essential_counter(kind: Essential) -> u32 {
    FIRST_ESSENTIAL + kind as u32
}

/// What the first [`REASON_COUNTERS`] count, in the order of their indices, each
/// reason with each verdict once; those of essentials come behind.
pub fn reason_counters() -> impl Iterator<Item = (Reason, Verdict)> {
    Reason::ALL
        .iter()
        .map(|reason| (*reason, reason.usual_verdict()))
        .chain(core::iter::once((Reason::NotIp, Verdict::Drop)))
}

/// The kind of essentials that a counter is for.
#[must_use]
pub fn essential_of(counter: u32) -> Option<Essential> {
    let place = counter.checked_sub(FIRST_ESSENTIAL)?;
    Essential::ALL.get(place as usize).copied()
}

const _: () = {
    assert!(size_of::<PartsLayout>() == 28);
    assert!(size_of::<FamilyLayout>() == 148);
    assert!(size_of::<Layout>() == 344);
    assert!(size_of::<Line>() == 64);
    assert!(DECLARED_LINES <= MAX_LINES);
    assert!(size_of::<Count>() == 16);
    assert!(FIRST_ESSENTIAL as usize == Reason::ALL.len() + 1);
    assert!((REASON_COUNTERS - FIRST_ESSENTIAL) as usize == Essential::ALL.len());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_counters_are_where_they_say() {
        for (index, (reason, verdict)) in (0..).zip(reason_counters()) {
            assert_eq!(reason_counter(reason, verdict), index);
        }
        assert_eq!(reason_counters().count(), FIRST_ESSENTIAL as usize);
        for kind in Essential::ALL {
            assert_eq!(essential_of(essential_counter(*kind)), Some(*kind));
        }
        assert_eq!(essential_of(REASON_COUNTERS), None);
        assert_eq!(essential_of(NOT_IP_DROPPED), None);
    }

    #[test]
    fn small_is_what_the_small_program_can_read() {
        let most = u32::try_from(LEVELS_SMALL).expect("a small number");
        assert!(Layout::default().is_small());
        for family in 0..2 {
            let mut layout = Layout::default();
            layout.families[family].src.levels = most;
            layout.families[family].dst.levels = most;
            assert!(layout.is_small());
            layout.families[family].dst.levels += 1;
            assert!(!layout.is_small());
        }
        let parts = Layout {
            flags: flags::PARTS,
            ..Layout::default()
        };
        assert!(!parts.is_small());
    }
}
