//! What a generation enforces, written beside it in the kernel, so that
//! `status` and `stats` need nothing but the pins.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aya::maps::{Array, Map, MapData, MapInfo};
use filter_common::abi;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;

use super::error::Error;
use super::sys;
use crate::ruleset::Ruleset;

/// Bytes of an element of the map that holds the record.
const CHUNK: usize = 4096;

/// The record of one generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`abi::VERSION`] of the writer.
    pub(super) abi: u32,
    /// The nodewall that wrote it.
    pub(super) version: String,
    /// Its number on this interface, from 1.
    pub(super) generation: u64,
    /// The program id of the generation before it.
    pub(super) predecessor: Option<u32>,
    /// The network namespace in which `ifindex` means something.
    pub(super) namespace: u64,
    /// The interface.
    pub(super) ifindex: u32,
    /// Seconds since the epoch.
    since: u64,
    /// Bytes of the generation's maps.
    pub(super) memory: u64,
    /// What is enforced.
    pub(super) ruleset: Ruleset,
}

impl Record {
    /// A record of now.
    pub(super) fn new(ruleset: Ruleset, namespace: u64, ifindex: u32) -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            abi: abi::VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: 1,
            predecessor: None,
            namespace,
            ifindex,
            since: since.as_secs(),
            memory: 0,
            ruleset,
        }
    }

    /// When it was written.
    pub(super) fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.since)
    }

    /// Writes it into a map of its own, pinned at `path`.
    pub(super) fn pin(&self, path: &Path) -> Result<(), Error> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::aya(
                format_args!("cannot write the record {}", path.display()),
                error,
            )
        };
        let json = serde_json::to_vec(self).map_err(|error| failed(&error))?;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);

        let chunks = u32::try_from(bytes.len() / CHUNK).map_err(|error| failed(&error))?;
        let mut map: Array<MapData, [u8; CHUNK]> =
            Array::create(chunks, 0).map_err(|error| failed(&error))?;
        for (index, chunk) in (0..).zip(bytes.as_chunks::<CHUNK>().0) {
            map.set(index, chunk, 0).map_err(|error| failed(&error))?;
        }
        map.pin(path).map_err(|error| failed(&error))?;
        let pinned = sys::get(path).and_then(|map| sys::freeze(map.as_fd()));
        pinned.map_err(|error| Error::io(format_args!("cannot freeze {}", path.display()), &error))
    }

    /// Reads the record pinned at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::Failed(format!(
                "the record {} is not readable by this nodewall ({why}): it was written by another \
                 version, or not by nodewall. The filter itself goes on. Replace it by `nodewall \
                 detach` and `nodewall apply`.",
                path.display()
            ))
        };
        let io = |error: &std::io::Error| {
            Error::io(format_args!("cannot read {}", path.display()), error)
        };
        let info = MapInfo::from_pin(path)
            .map_err(|error| Error::aya(format_args!("cannot read {}", path.display()), &error))?;
        if info.value_size() as usize != CHUNK {
            return Err(unreadable(&"the map has another shape"));
        }
        let mut words = vec![0_u64; info.max_entries() as usize * CHUNK / 8];
        let map = sys::get(path).map_err(|error| io(&error))?;
        sys::lookup_batch(map.as_fd(), CHUNK / 8, &mut words).map_err(|error| io(&error))?;

        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let (length, json) = bytes
            .split_first_chunk()
            .ok_or_else(|| unreadable(&"it is empty"))?;
        let json = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| json.get(..length))
            .ok_or_else(|| unreadable(&"its length is wrong"))?;
        let record: Self = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        if record.abi != abi::VERSION {
            return Err(unreadable(&format_args!(
                "version {} of the tables, here {}",
                record.abi,
                abi::VERSION
            )));
        }
        Ok(record)
    }
}

/// Opens an array map pinned at `path`.
pub(super) fn open_array<V: aya::Pod>(path: &Path) -> Result<Array<MapData, V>, Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::aya(format_args!("cannot open {}", path.display()), error)
    };
    let data = MapData::from_pin(path).map_err(|error| failed(&error))?;
    let map = Map::from_map_data(data).map_err(|error| failed(&error))?;
    Array::try_from(map).map_err(|error| failed(&error))
}
