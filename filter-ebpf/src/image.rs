//! The compiled tables, as maps and load-time constants.

#[cfg(not(feature = "trace"))]
use aya_ebpf::{btf_maps::Array, macros::btf_map};
#[cfg(feature = "trace")]
use aya_ebpf::{macros::map, maps::Array};
use filter_common::abi::{
    DECLARED_LINES, FamilyLayout, HashLayout, LINE_WORDS, Layout, Line, PARTS, PartsLayout, Root,
};
use filter_common::classify::Tables;
use filter_common::parse::Family;

/// `BPF_F_MMAPABLE`: the loader fills the tables by a copy of memory; and they
/// begin on a page of memory, so that no line crosses a cache line.
const MMAPABLE: u32 = 1 << 10;

/// The image, as one value. The loader gives it the image's size, and freezes
/// the map.
type Lines = [Line; DECLARED_LINES];
#[cfg(not(feature = "trace"))]
#[btf_map]
static IMAGE: Array<Lines, 1, { MMAPABLE as usize }> = Array::new();
// aya-log's `Global<u8>` has a type name that the kernel's BTF refuses
// (`MaybeUninit<u8>`), and without BTF only maps of the older form load.
#[cfg(feature = "trace")]
#[map]
static IMAGE: Array<Lines> = Array::with_max_entries(1, MMAPABLE);

const LINE: u32 = 16;
const _: () = assert!(LINE as usize == LINE_WORDS);

const NOWHERE: Root = Root { table: 0, entry: 0 };

/// Set before loading; the verifier knows the values and deletes what they
/// switch off.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout {
    lines: 0,
    families: [FamilyLayout {
        src: NOWHERE,
        dst: NOWHERE,
        pairs: 0,
        dst_classes: 0,
        pair_offset: 0,
        parts: PartsLayout {
            src: 0,
            dst: 0,
            by_src: 0,
            by_dst: 0,
            both: [HashLayout { table: 0, mask: 0 }; PARTS],
            default: 0,
        },
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

/// The same number, of which the compiler knows nothing: it then compares and
/// uses one register, and the verifier sees that what is used was compared.
#[inline(always)]
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unused_mut, reason = "only the kernel's compiler has to be deceived")
)]
fn opaque(mut number: usize) -> usize {
    // An instruction and not none: the kernel refuses line information in which
    // two lines begin at one instruction.
    #[cfg(target_arch = "bpf")]
    // SAFETY: a register is copied to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack));
    }
    number
}

/// The one image of this program: its first line.
#[derive(Clone, Copy)]
pub(crate) struct Image(*const Line);

impl Image {
    /// Finds it. There is always one.
    #[inline(always)]
    pub(crate) fn open() -> Option<Self> {
        IMAGE.get_ptr(0).map(|lines| Self(lines.cast()))
    }

    /// [`Layout::notes`].
    #[inline(always)]
    pub(crate) fn notes() -> u32 {
        constant!(notes)
    }

    /// [`Layout::flags`].
    #[inline(always)]
    pub(crate) fn flags() -> u32 {
        constant!(flags)
    }
}

impl Tables for Image {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        let index = opaque(index as usize);
        if index >= (constant!(lines) * LINE) as usize {
            return None;
        }
        // SAFETY: the image has this many words.
        Some(unsafe { self.0.cast::<u32>().add(opaque(index)).read() })
    }

    #[inline(always)]
    fn line(&self, number: u32) -> Option<&Line> {
        let number = opaque(number as usize);
        if number >= constant!(lines) as usize {
            return None;
        }
        // SAFETY: the image has this many lines, and nobody writes to it.
        Some(unsafe { &*self.0.add(opaque(number)) })
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
        Self::notes()
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        Self::flags()
    }
}
