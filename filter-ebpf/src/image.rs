//! The compiled tables, as maps and load-time constants.

#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::Array, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::Array};
use filter_common::abi::{FamilyLayout, LINE_WORDS, Layout, Line, PAGE_LINES, Page, Root};
use filter_common::classify::Tables;
use filter_common::parse::Family;

/// `BPF_F_MMAPABLE`: the loader fills the tables by a copy of memory; and they
/// begin on a page of memory, so that no line crosses a cache line.
const MMAPABLE: u32 = 1 << 10;

/// The image's words. The loader sets the number of pages, and freezes the
/// map. Not `BPF_F_RDONLY_PROG`: of a frozen map with that flag the verifier
/// wants to read words at constant offsets itself, and fails (`ENOTSUPP`) where
/// the map has more than one element.
#[cfg(not(feature = "trace"))]
#[btf_map]
static IMAGE: Array<Page, 1, { MMAPABLE as usize }> = Array::new();
// aya-log's `Global<u8>` has a type name that the kernel's BTF refuses
// (`MaybeUninit<u8>`), and without BTF only maps of the older form load.
#[cfg(feature = "trace")]
#[map]
static IMAGE: Array<Page> = Array::with_max_entries(1, MMAPABLE);

const LINE: u32 = 16;
const PAGE: u32 = 16;
const _: () = assert!(LINE as usize == LINE_WORDS && PAGE as usize == PAGE_LINES);

const NOWHERE: Root = Root { table: 0, entry: 0 };

/// Set before loading; the verifier knows the values and deletes what they
/// switch off.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout {
    families: [FamilyLayout {
        src: NOWHERE,
        dst: NOWHERE,
        pairs: 0,
        dst_classes: 0,
        pair_offset: 0,
    }; 2],
    protocols: 0,
    source_ports: NOWHERE,
    joint: 0,
    source_port_classes: 0,
    decisions: 0,
    l4_classes: 0,
    notes: 0,
    flags: 0,
};

macro_rules! constant {
    ($($field:tt)*) => {
        // SAFETY: the field of a static is readable. Volatile, since the
        // loader overwrites the value that the compiler sees.
        unsafe { (&raw const LAYOUT.$($field)*).read_volatile() }
    };
}

/// The one image of this program.
pub(crate) struct Image;

impl Tables for Image {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        let line = self.line(index / LINE)?;
        Some(line.0[index as usize % LINE_WORDS])
    }

    #[inline(always)]
    fn line(&self, number: u32) -> Option<&Line> {
        let page = IMAGE.get(number / PAGE)?;
        Some(&page.0[number as usize % PAGE_LINES])
    }

    #[inline(always)]
    fn family(&self, family: Family) -> FamilyLayout {
        match family {
            Family::V4 => constant!(families[0]),
            Family::V6 => constant!(families[1]),
        }
    }

    #[inline(always)]
    fn protocols(&self) -> u32 {
        constant!(protocols)
    }

    #[inline(always)]
    fn decisions(&self) -> u32 {
        constant!(decisions)
    }

    #[inline(always)]
    fn l4_classes(&self) -> u32 {
        constant!(l4_classes)
    }

    #[inline(always)]
    fn source_ports(&self) -> Root {
        constant!(source_ports)
    }

    #[inline(always)]
    fn joint(&self) -> u32 {
        constant!(joint)
    }

    #[inline(always)]
    fn source_port_classes(&self) -> u32 {
        constant!(source_port_classes)
    }

    #[inline(always)]
    fn notes(&self) -> u32 {
        constant!(notes)
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        constant!(flags)
    }
}
