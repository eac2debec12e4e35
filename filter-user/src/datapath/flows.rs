//! The tables of flows: they outlive generations and processes, as each generation
//! takes over those of the one before.

use std::cmp::Reverse;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::MapData;

use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY};
use bytemuck::Pod;
use filter_common::flow::{
    self as common, Datagram, Event, FLOW_COUNTERS, Flow as InMap, State, Tuple,
};

use super::error::Error;
use super::loader::Prepared;
use super::{counters, host, sys};
use crate::ruleset::Direction;

/// Datagrams whose first fragment is remembered.
const MAX_DATAGRAMS: u32 = 8192;

/// Entries that are read, or written, in one call.
const BATCH: usize = 4096;

/// Each of the maps: its name in the object, and that of its pin.
const MAPS: [(&str, &str); 4] = [
    ("FLOWS_IN", "flows_in"),
    ("FLOWS_OUT", "flows_out"),
    ("FRAGMENTS", "fragments"),
    ("FLOW_COUNTS", "flow_counts"),
];

/// A flow: packets that were allowed in one direction, and for whose sake others
/// pass in the other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The direction of the packet that began it.
    pub begun: Direction,
    /// Where that packet came from.
    pub src: IpAddr,
    /// Where it went.
    pub dst: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// Source and destination port; the identifier of an ICMP echo, twice; zeros
    /// for protocols that have neither.
    pub numbers: [u16; 2],
    /// What it is in.
    pub state: State,
    /// Packets that went the way of the first one.
    pub forward: u64,
    /// Packets that came back.
    pub back: u64,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last one.
    pub idle: Duration,
    /// How long it is remembered, if no packet comes; `None` where it is over.
    pub left: Option<Duration>,
}

/// What is counted of the flows that begin in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTotals {
    /// Flows that can be remembered; 0 where none are.
    pub max_entries: u64,
    /// Entries in the table; those that are over are among them, until they are
    /// pushed out.
    pub entries: u64,
    /// Entries that were put into it.
    pub inserts: u64,
    /// Packets that passed for a flow's sake.
    pub hits: u64,
    /// Entries that had to go for others.
    pub evictions: u64,
    /// Flows for which there was no room.
    pub refused: u64,
    /// Later fragments that passed where the first one did.
    pub fragments: u64,
}

/// The maps, open.
#[derive(Debug)]
pub(super) struct Tables {
    /// In the order of [`MAPS`].
    maps: [OwnedFd; 4],
    /// Flows of each kind that there is room for.
    room: [u32; 2],
}

/// In [`Tables::maps`].
const COUNTS: usize = 3;

impl Tables {
    /// Those for so many flows that begin on the way in, and on the way out, with
    /// what the tables of the generation before know.
    pub(super) fn new(room: [u32; 2], before: Option<&Self>) -> Result<Self, Error> {
        let flows = |which: usize| match before {
            Some(before) if before.room[which] == room[which] => before.share(which),
            _ => {
                let map = create(
                    MAPS[which].0,
                    BPF_MAP_TYPE_LRU_HASH as u32,
                    [size_of::<Tuple>(), size_of::<InMap>()],
                    room[which],
                )?;
                if let Some(before) = before {
                    before.copy(which, map.as_fd(), room[which])?;
                }
                Ok(map)
            }
        };
        let rest = |which: usize, kind: u32, sizes, entries| match before {
            Some(before) => before.share(which),
            None => create(MAPS[which].0, kind, sizes, entries),
        };
        Ok(Self {
            maps: [
                flows(0)?,
                flows(1)?,
                rest(
                    2,
                    BPF_MAP_TYPE_LRU_HASH as u32,
                    [size_of::<Datagram>(), size_of::<u64>()],
                    MAX_DATAGRAMS,
                )?,
                rest(
                    COUNTS,
                    BPF_MAP_TYPE_PERCPU_ARRAY as u32,
                    [size_of::<u32>(), size_of::<u64>()],
                    FLOW_COUNTERS,
                )?,
            ],
            room,
        })
    }

    /// Those pinned below `folder`; `None` where that generation has none.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, Error> {
        let open = |(_, pin): (&str, &str)| {
            let path = folder.join(pin);
            sys::get(&path)
                .map_err(|error| Error::io(format_args!("cannot open {}", path.display()), &error))
        };
        if !folder.join(MAPS[0].1).exists() {
            return Ok(None);
        }
        let maps = [
            open(MAPS[0])?,
            open(MAPS[1])?,
            open(MAPS[2])?,
            open(MAPS[3])?,
        ];
        let room = |map: &OwnedFd| {
            sys::max_entries(map.as_fd())
                .map_err(|error| Error::io("cannot read what a table has room for", &error))
        };
        Ok(Some(Self {
            room: [room(&maps[0])?, room(&maps[1])?],
            maps,
        }))
    }

    fn share(&self, which: usize) -> Result<OwnedFd, Error> {
        self.maps[which]
            .try_clone()
            .map_err(|error| Error::io("cannot share a table of flows", &error))
    }

    /// Has a program use these maps.
    pub(super) fn give(&self, prepared: &mut Prepared<'_>) -> Result<(), Error> {
        for ((name, _), map) in MAPS.iter().zip(&self.maps) {
            prepared.share(name, map.as_fd())?;
        }
        Ok(())
    }

    /// Pins them below `folder`.
    pub(super) fn pin(&self, folder: &Path) -> Result<(), Error> {
        for ((_, pin), map) in MAPS.iter().zip(&self.maps) {
            let path = folder.join(pin);
            sys::pin(map.as_fd(), &path).map_err(|error| {
                Error::io(format_args!("cannot pin {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    /// Puts the flows of one kind into another map: those seen last, as far as there
    /// is room.
    fn copy(&self, which: usize, to: BorrowedFd<'_>, room: u32) -> Result<(), Error> {
        let mut flows = read::<Tuple, InMap>(self.maps[which].as_fd())?;
        flows.sort_by_key(|(_, flow)| Reverse(flow.seen));
        flows.truncate(room as usize);
        // The last one that is put in is the last one to be pushed out.
        flows.reverse();
        let (keys, values): (Vec<Tuple>, Vec<InMap>) = flows.into_iter().unzip();
        let (keys, values) = (keys.chunks(BATCH), values.chunks(BATCH));
        for (keys, values) in keys.zip(values) {
            sys::update_batch(
                to,
                bytemuck::cast_slice(keys),
                bytemuck::cast_slice(values),
                keys.len(),
            )
            .map_err(|error| Error::io("cannot take the flows over", &error))?;
        }
        Ok(())
    }

    /// The entries of both tables.
    pub(super) fn flows(&self) -> Result<Vec<Flow>, Error> {
        let clock = Clock::now();
        let mut all = Vec::new();
        for (which, begun) in [(0, Direction::Ingress), (1, Direction::Egress)] {
            let flows = read::<Tuple, InMap>(self.maps[which].as_fd())?;
            all.extend(
                flows
                    .iter()
                    .filter_map(|(tuple, flow)| clock.flow(begun, tuple, flow)),
            );
        }
        all.sort_by(|a, b| order(a).cmp(&order(b)));
        Ok(all)
    }

    /// Takes out the flows that `gone` says; how many those were.
    pub(super) fn remove(&self, gone: impl Fn(&Flow) -> bool) -> Result<u64, Error> {
        let clock = Clock::now();
        let mut removed = 0;
        for (which, begun) in [(0, Direction::Ingress), (1, Direction::Egress)] {
            let map = self.maps[which].as_fd();
            let mut here = 0;
            for (tuple, flow) in read::<Tuple, InMap>(map)? {
                let is_gone = clock
                    .flow(begun, &tuple, &flow)
                    .is_none_or(|flow| gone(&flow));
                // It may have been pushed out meanwhile.
                if is_gone && sys::delete(map, bytemuck::bytes_of(&tuple)).is_ok() {
                    here += 1;
                }
            }
            self.add_removed(begun, here)?;
            removed += here;
        }
        Ok(removed)
    }

    /// Only user space counts what it takes out.
    fn add_removed(&self, begun: Direction, more: u64) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("cannot count the removed flows", &error);
        let place = Event::Removed.place(of(begun));
        let mut of_cpus = counters::read_words(self.maps[COUNTS].as_fd(), FLOW_COUNTERS)?
            .into_iter()
            .nth(place as usize)
            .unwrap_or_default();
        if let Some(first) = of_cpus.first_mut() {
            *first += more;
        }
        sys::update(
            self.maps[COUNTS].as_fd(),
            place,
            bytemuck::cast_slice(&of_cpus),
        )
        .map_err(failed)
    }

    /// Lets all flows and fragments be so much older.
    pub(super) fn age(&self, by: Duration) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("cannot age the flows", &error);
        let second = u64::from(host::jiffies_per_second());
        let jiffies = by.as_secs() * second + u64::from(by.subsec_millis()) * second / 1000;
        for map in &self.maps[..2] {
            for (tuple, mut flow) in read::<Tuple, InMap>(map.as_fd())? {
                flow.seen = flow.seen.saturating_sub(jiffies);
                flow.began = flow.began.saturating_sub(jiffies);
                let (key, value) = (bytemuck::bytes_of(&tuple), bytemuck::bytes_of(&flow));
                sys::update_batch(map.as_fd(), key, value, 1).map_err(failed)?;
            }
        }
        for (datagram, seen) in read::<Datagram, u64>(self.maps[2].as_fd())? {
            let seen = seen.saturating_sub(jiffies);
            let (key, value) = (bytemuck::bytes_of(&datagram), bytemuck::bytes_of(&seen));
            sys::update_batch(self.maps[2].as_fd(), key, value, 1).map_err(failed)?;
        }
        Ok(())
    }

    /// What is counted, of the flows that begin on the way in and on the way out.
    pub(super) fn totals(&self) -> Result<[FlowTotals; 2], Error> {
        let counts: Vec<u64> = counters::read_words(self.maps[COUNTS].as_fd(), FLOW_COUNTERS)?
            .iter()
            .map(|of_cpus| of_cpus.iter().sum())
            .collect();
        let totals = |which: usize, begun: Direction| {
            let count = |event: Event| {
                let place = event.place(of(begun)) as usize;
                counts.get(place).copied().unwrap_or_default()
            };
            let entries = read::<Tuple, InMap>(self.maps[which].as_fd())?.len() as u64;
            let (inserts, removed) = (count(Event::Begun), count(Event::Removed));
            Ok(FlowTotals {
                // A table of one is one that is not used.
                max_entries: match self.room[which] {
                    1 => 0,
                    room => room.into(),
                },
                entries,
                inserts,
                hits: count(Event::Hit),
                evictions: inserts.saturating_sub(removed).saturating_sub(entries),
                refused: count(Event::Refused),
                fragments: count(Event::Fragment),
            })
        };
        Ok([
            totals(0, Direction::Ingress)?,
            totals(1, Direction::Egress)?,
        ])
    }

    /// Bytes that they take, as the kernel accounts them.
    pub(super) fn memory(&self) -> u64 {
        self.maps
            .iter()
            .map(|map| host::map_memory(map.as_fd()))
            .sum()
    }
}

/// As `filter-common` calls it.
const fn of(direction: Direction) -> common::Direction {
    match direction {
        Direction::Ingress => common::Direction::Ingress,
        Direction::Egress => common::Direction::Egress,
    }
}

fn order(flow: &Flow) -> (Direction, u8, IpAddr, IpAddr, [u16; 2]) {
    (flow.begun, flow.protocol, flow.dst, flow.src, flow.numbers)
}

fn create(name: &str, kind: u32, [key, value]: [usize; 2], entries: u32) -> Result<OwnedFd, Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::aya(format_args!("cannot create the BPF map {name}"), error)
    };
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let map = aya_obj::Map::new_from_params(kind, size(key), size(value), entries, 0);
    let map = MapData::create(map, name, None).map_err(|error| failed(&error))?;
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(&error))
}

/// All entries of a table. What comes or goes meanwhile may be missed.
fn read<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> Result<Vec<(K, V)>, Error> {
    let failed = |error: io::Error| Error::io("cannot read the table of flows", &error);
    let mut all = Vec::new();
    let mut keys = vec![K::zeroed(); BATCH];
    let mut values = vec![V::zeroed(); BATCH];
    let mut from = None;
    loop {
        let batch = sys::lookup_batch_hash(
            map,
            from,
            bytemuck::cast_slice_mut(&mut keys),
            bytemuck::cast_slice_mut(&mut values),
            BATCH,
        )
        .map_err(failed)?;
        all.extend(
            keys.iter()
                .copied()
                .zip(values.iter().copied())
                .take(batch.count),
        );
        from = batch.next;
        if from.is_none() {
            return Ok(all);
        }
    }
}

/// The time by which flows are told.
struct Clock {
    now: u64,
    second: u64,
}

impl Clock {
    fn now() -> Self {
        Self {
            now: host::jiffies(),
            second: host::jiffies_per_second().into(),
        }
    }

    /// `None` of what no nodewall of this version wrote.
    fn flow(&self, begun: Direction, tuple: &Tuple, flow: &InMap) -> Option<Flow> {
        let state = State::from_number(flow.state)?;
        let since = |jiffy: u64| self.duration(self.now.saturating_sub(jiffy));
        let idle = since(flow.seen);
        let timeout = Duration::from_secs(state.timeout(tuple.proto()).into());
        let [src, dst] = tuple.addresses();
        Some(Flow {
            begun,
            src,
            dst,
            protocol: tuple.proto(),
            numbers: tuple.both_numbers(),
            state,
            forward: flow.forward,
            back: flow.back,
            age: since(flow.began),
            idle,
            left: timeout.checked_sub(idle),
        })
    }

    fn duration(&self, jiffies: u64) -> Duration {
        Duration::from_millis(jiffies.saturating_mul(1000) / self.second.max(1))
    }
}
