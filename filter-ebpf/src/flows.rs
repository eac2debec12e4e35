//! The tables of flows, which outlive generations: the loader puts those that
//! are there in the place of these.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_jiffies64;
#[cfg(not(feature = "trace"))]
use aya_ebpf::{
    btf_maps::{LruHashMap, PerCpuArray},
    macros::btf_map,
};
#[cfg(feature = "trace")]
use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use filter_common::abi::at;
use filter_common::flow::{
    Datagram, Direction, Entry, Event, FLOW_COUNTERS, Field, Flow, Flows, Put, TableEntry, Tuple,
    table_key,
};

use crate::frame::own;
use crate::image::constant;

/// Flows that began on the way in. The loader sets the number.
#[cfg(not(feature = "trace"))]
#[btf_map]
static FLOWS_IN: LruHashMap<u64, TableEntry, 1> = LruHashMap::new();
#[cfg(feature = "trace")]
#[map]
static FLOWS_IN: LruHashMap<u64, TableEntry> = LruHashMap::with_max_entries(1, 0);

/// Flows that began on the way out, likewise.
#[cfg(not(feature = "trace"))]
#[btf_map]
static FLOWS_OUT: LruHashMap<u64, TableEntry, 1> = LruHashMap::new();
#[cfg(feature = "trace")]
#[map]
static FLOWS_OUT: LruHashMap<u64, TableEntry> = LruHashMap::with_max_entries(1, 0);

/// The jiffies in which the first fragments of datagrams passed, likewise.
#[cfg(not(feature = "trace"))]
#[btf_map]
static FRAGMENTS: LruHashMap<Datagram, u64, 1> = LruHashMap::new();
#[cfg(feature = "trace")]
#[map]
static FRAGMENTS: LruHashMap<Datagram, u64> = LruHashMap::with_max_entries(1, 0);

/// What is counted of flows: [`Event::place`].
#[cfg(not(feature = "trace"))]
#[btf_map]
static FLOW_COUNTS: PerCpuArray<u64, { FLOW_COUNTERS as usize }> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static FLOW_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(FLOW_COUNTERS, 0);

/// What is put into a table, per CPU: a function's stack has 512 bytes, with all that
/// called it.
#[cfg(not(feature = "trace"))]
#[btf_map]
static ENTRY: PerCpuArray<TableEntry, 1> = PerCpuArray::new();
#[cfg(feature = "trace")]
#[map]
static ENTRY: PerCpuArray<TableEntry> = PerCpuArray::with_max_entries(1, 0);

/// What stands for a tuple in the tables.
#[inline(always)]
fn key(tuple: &Tuple) -> u64 {
    let low = constant::<{ at::FLOWS }, { at::SEED }, 0>();
    let high = constant::<{ at::FLOWS }, { at::SEED_HIGH }, 0>();
    table_key(tuple, u64::from(high) << 32 | u64::from(low))
}

/// `-EEXIST` (include/uapi/asm-generic/errno-base.h).
const EXISTS: i32 = -17;

/// The kernel's tables.
pub(crate) struct Tables;

/// A flow in one of the maps.
#[derive(Clone, Copy)]
pub(crate) struct InMap(*mut u64);

impl Entry for InMap {
    #[inline(always)]
    fn get(&self, field: Field) -> u64 {
        // SAFETY: the pointer is to a value of the map, a flow, which stays readable
        // while the program runs. Others change it meanwhile; where the flow was pushed
        // out and its place taken by another, that one is what is seen.
        unsafe { self.0.add(field as usize).read_volatile() }
    }

    #[inline(always)]
    fn set(&self, field: Field, value: u64) {
        // SAFETY: likewise, and writable.
        unsafe { self.0.add(field as usize).write_volatile(value) }
    }
}

impl Flows for Tables {
    type Entry = InMap;

    #[inline(always)]
    fn switches(&self) -> u32 {
        constant::<{ at::FLOWS }, { at::SWITCHES }, 0>()
    }

    #[inline(always)]
    fn second(&self) -> u64 {
        constant::<{ at::FLOWS }, { at::SECOND }, 0>().into()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn find(&self, begun: Direction, tuple: &Tuple) -> Option<InMap> {
        let key = key(tuple);
        let entry = match begun {
            Direction::Ingress => FLOWS_IN.get_ptr_mut(key),
            Direction::Egress => FLOWS_OUT.get_ptr_mut(key),
        }?;
        // SAFETY: the pointer is to a value of the map, which stays readable while the
        // program runs. Others may change it meanwhile: what is then read is of no flow.
        let found = unsafe { (&raw const (*entry).tuple).read() };
        // SAFETY: likewise.
        let flow = unsafe { &raw mut (*entry).flow };
        (found == *tuple).then(|| InMap(flow.cast()))
    }

    #[inline(always)]
    fn insert(&self, begun: Direction, tuple: &Tuple, flow: &Flow) -> Put {
        let entry = own(ENTRY.get_ptr_mut(0));
        // SAFETY: the pointer is to this CPU's copy of the element, which nothing else
        // uses: the programs of a hook are not preempted by one another on a CPU, and
        // each has a map of its own.
        let entry = unsafe {
            (&raw mut (*entry).tuple).write(*tuple);
            (&raw mut (*entry).flow).write(*flow);
            &*entry
        };
        let key = key(tuple);
        let put = |flag: u32| match begun {
            Direction::Ingress => FLOWS_IN.insert(key, entry, flag.into()),
            Direction::Egress => FLOWS_OUT.insert(key, entry, flag.into()),
        };
        match put(BPF_NOEXIST) {
            Ok(()) => Put::New,
            // Another CPU was faster, or another tuple had the place.
            Err(EXISTS) if put(BPF_ANY).is_ok() => Put::There,
            Err(_) => Put::Refused,
        }
    }

    #[inline(always)]
    fn first_fragment(&self, datagram: &Datagram) -> Option<u64> {
        let seen = FRAGMENTS.get_ptr(datagram)?;
        // SAFETY: the pointer is to a value of the map, read at once.
        Some(unsafe { seen.read_volatile() })
    }

    #[inline(always)]
    fn remember(&self, datagram: &Datagram, now: u64) {
        // Where there is no room, the rest of the datagram is dropped, and counted.
        let _ = FRAGMENTS.insert(datagram, now, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn count(&self, event: Event, begun: Direction) {
        if let Some(count) = FLOW_COUNTS.get_ptr_mut(event.place(begun)) {
            // SAFETY: the pointer is to this CPU's copy of the element. Each element is
            // counted by the program of one direction alone, and the programs of a hook
            // are not preempted by one another on a CPU.
            unsafe { *count += 1 };
        }
    }
}
