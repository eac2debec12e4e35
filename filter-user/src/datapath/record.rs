//! What a generation enforces, written beside it in the kernel, so that
//! `status` and `stats` need nothing but the pins.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aya::maps::{Array, Map, MapData, MapInfo};
use filter_common::abi;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::AsFd as _;

use super::error::Error;
use super::sys;
use crate::ruleset::Ruleset;

/// Bytes of an element of the map that holds the record.
const CHUNK: usize = 4096;

/// A list of more networks than this is not kept as JSON.
const FEW_NETS: usize = 64;

/// What a generation was made of, as those who made it want to read it back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The documents, as Calico v3 has them.
    pub documents: Vec<DescribedDocument>,
    /// What they can't say, if there is such a thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaid: Vec<String>,
    /// The policies that select the endpoint, in evaluation order.
    pub policies: Vec<String>,
    /// The ports that stay open, inbound and outbound, as flags take them.
    pub failsafe: [String; 2],
    /// The node's own addresses, where forwarded packets are told by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_addresses: Option<Vec<IpNet>>,
}

/// A document of what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DescribedDocument {
    /// The policy that it is, as rules have its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The document, but for the networks of a set.
    pub value: Value,
    /// The networks of a set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<IpNet>,
}

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
    /// What it was made of.
    #[serde(default)]
    pub(super) described: Described,
}

impl Record {
    /// The lists of networks that may be long, always in the same order.
    fn lists(&mut self) -> impl Iterator<Item = &mut Vec<IpNet>> {
        let sets = self.ruleset.sets.iter_mut().map(|set| &mut set.nets);
        let documents = self.described.documents.iter_mut();
        sets.chain(documents.map(|document| &mut document.nets))
    }
}

/// Writes long lists down in binary: a million networks as JSON would take
/// half a second to read. Before each list is how long it is; 0: it is not
/// here, but in the JSON.
fn take_lists(record: &mut Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    for list in record.lists() {
        let nets = if list.len() > FEW_NETS {
            std::mem::take(list)
        } else {
            Vec::new()
        };
        bytes.extend((nets.len() as u64).to_le_bytes());
        for net in nets {
            bytes.push(net.prefix_len());
            match net.addr() {
                IpAddr::V4(address) => {
                    bytes.push(4);
                    bytes.extend(address.octets());
                }
                IpAddr::V6(address) => {
                    bytes.push(6);
                    bytes.extend(address.octets());
                }
            }
        }
    }
    bytes
}

/// Puts the lists back. `None` if that is not what was written.
fn put_lists(record: &mut Record, mut bytes: &[u8]) -> Option<()> {
    for list in record.lists() {
        let (length, rest) = bytes.split_first_chunk()?;
        bytes = rest;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        list.reserve(length.min(bytes.len() / 6));
        for _ in 0..length {
            let ([prefix, family], rest) = bytes.split_first_chunk()?;
            let address: IpAddr;
            (address, bytes) = if *family == 4 {
                let (octets, rest) = rest.split_first_chunk::<4>()?;
                ((*octets).into(), rest)
            } else {
                let (octets, rest) = rest.split_first_chunk::<16>()?;
                ((*octets).into(), rest)
            };
            list.push(IpNet::new(address, *prefix).ok()?);
        }
    }
    Some(())
}

impl Record {
    /// A record of now.
    pub(super) fn new(
        ruleset: Ruleset,
        described: Described,
        namespace: u64,
        ifindex: u32,
    ) -> Self {
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
            described,
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
        let mut short = self.clone();
        let lists = take_lists(&mut short);
        let json = serde_json::to_vec(&short).map_err(|error| failed(&error))?;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.extend(lists);
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
        let (json, lists) = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| json.split_at_checked(length))
            .ok_or_else(|| unreadable(&"its length is wrong"))?;
        let mut record: Self = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        if record.abi != abi::VERSION {
            return Err(unreadable(&format_args!(
                "version {} of the tables, here {}",
                record.abi,
                abi::VERSION
            )));
        }
        put_lists(&mut record, lists).ok_or_else(|| unreadable(&"its sets are cut short"))?;
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
