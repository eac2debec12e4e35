//! What a generation enforces, written beside it in the kernel, so that
//! `status` and `stats` need nothing but the pins.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aya::maps::{Array, MapData, MapInfo};
use filter_common::abi;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Error;
use super::generation::ProgramSize;
use super::sys;
use crate::compile::Combination;
use crate::ruleset::{NetSet, Ruleset};

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
    #[serde(default, skip_serializing_if = "is_empty")]
    pub nets: Arc<Vec<IpNet>>,
}

fn is_empty(nets: &Arc<Vec<IpNet>>) -> bool {
    nets.is_empty()
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
    /// The program as the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<ProgramSize>,
    /// How classes are combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) combination: Option<Combination>,
    /// What is enforced.
    pub(super) ruleset: Ruleset,
    /// What it was made of.
    #[serde(default)]
    pub(super) described: Described,
}

impl Record {
    /// The lists of networks that may be long, always in the same order.
    fn lists(&mut self) -> impl Iterator<Item = &mut Arc<Vec<IpNet>>> {
        let sets = self.ruleset.sets.iter_mut().map(|set| &mut set.nets);
        let documents = self.described.documents.iter_mut();
        sets.chain(documents.map(|document| &mut document.nets))
    }
}

/// What is said of a list before its networks: there are none here, they are in
/// the JSON.
const IN_JSON: u64 = 0;
/// They are those of the list with the number that follows.
const AS_BEFORE: u64 = u64::MAX;

/// Long lists in binary: a million networks as JSON would take half a second
/// to read. A set of a ruleset mostly has the networks of one document, and
/// they are here once.
fn long_lists(ruleset: &Ruleset, described: &Described) -> Vec<u8> {
    let sets = ruleset.sets.iter().map(|set| &set.nets);
    let documents = described.documents.iter().map(|document| &document.nets);
    let lists: Vec<&Arc<Vec<IpNet>>> = sets.chain(documents).collect();
    let most: usize = lists.iter().map(|list| list.len()).max().unwrap_or(0);
    let mut bytes = Vec::with_capacity(most * 5 + lists.len() * 16);
    for (index, list) in lists.iter().enumerate() {
        if list.len() <= FEW_NETS {
            bytes.extend(IN_JSON.to_le_bytes());
        } else if let Some(same) = lists[..index].iter().position(|before| before == list) {
            bytes.extend(AS_BEFORE.to_le_bytes());
            bytes.extend((same as u64).to_le_bytes());
        } else {
            bytes.extend((list.len() as u64).to_le_bytes());
            write_nets(list, &mut bytes);
        }
    }
    bytes
}

/// Runs of networks of one IP version: how many, then each with its prefix.
fn write_nets(nets: &[IpNet], bytes: &mut Vec<u8>) {
    for run in nets.chunk_by(|a, b| a.addr().is_ipv4() == b.addr().is_ipv4()) {
        bytes.extend((run.len() as u64).to_le_bytes());
        bytes.push(if run[0].addr().is_ipv4() { 4 } else { 6 });
        for net in run {
            match net {
                IpNet::V4(net) => {
                    let [a, b, c, d] = net.addr().octets();
                    bytes.extend([net.prefix_len(), a, b, c, d]);
                }
                IpNet::V6(net) => {
                    bytes.push(net.prefix_len());
                    bytes.extend(net.addr().octets());
                }
            }
        }
    }
}

/// Puts the lists back. `None` if that is not what was written.
fn put_lists(record: &mut Record, mut bytes: &[u8]) -> Option<()> {
    // Where each list ends up, for those that are as one before.
    let mut read: Vec<Option<Arc<Vec<IpNet>>>> = Vec::new();
    let mut copies = Vec::new();
    for index in 0..record.lists().count() {
        let nets = match take_u64(&mut bytes)? {
            IN_JSON => None,
            AS_BEFORE => {
                copies.push((index, usize::try_from(take_u64(&mut bytes)?).ok()?));
                None
            }
            length => Some(read_nets(length, &mut bytes)?.into()),
        };
        read.push(nets);
    }
    for (index, same) in copies {
        read[index] = Some(read.get(same)?.as_ref()?.clone());
    }
    for (list, nets) in record.lists().zip(read) {
        if let Some(nets) = nets {
            *list = nets;
        }
    }
    Some(())
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn read_nets(length: u64, bytes: &mut &[u8]) -> Option<Vec<IpNet>> {
    let length = usize::try_from(length).ok()?;
    // What a broken record says is not what there is.
    let mut nets = Vec::with_capacity(length.min(bytes.len() / 5));
    while nets.len() < length {
        let run = usize::try_from(take_u64(bytes)?).ok()?;
        let (&family, rest) = bytes.split_first()?;
        let size = if family == 4 { 5 } else { 17 };
        let (run, rest) = rest.split_at_checked(run.checked_mul(size)?)?;
        if family == 4 {
            for &[prefix, a, b, c, d] in run.as_chunks().0 {
                nets.push(Ipv4Net::new([a, b, c, d].into(), prefix).ok()?.into());
            }
        } else {
            for net in run.as_chunks::<17>().0 {
                let (&prefix, octets) = net.split_first()?;
                let octets = <[u8; 16]>::try_from(octets).ok()?;
                nets.push(Ipv6Net::new(octets.into(), prefix).ok()?.into());
            }
        }
        if run.is_empty() {
            return None;
        }
        *bytes = rest;
    }
    Some(nets)
}

/// The same without what [`long_lists`] holds.
fn without_long_lists(ruleset: &Ruleset, described: &Described) -> (Ruleset, Described) {
    let short = |nets: &Arc<Vec<IpNet>>| {
        if nets.len() > FEW_NETS {
            Arc::default()
        } else {
            Arc::clone(nets)
        }
    };
    let ruleset = Ruleset {
        endpoint: ruleset.endpoint.clone(),
        direction: ruleset.direction,
        sets: ruleset
            .sets
            .iter()
            .map(|set| NetSet {
                name: set.name.clone(),
                nets: short(&set.nets),
            })
            .collect(),
        rules: ruleset.rules.clone(),
        default: ruleset.default,
        options: ruleset.options.clone(),
    };
    let described = Described {
        documents: described
            .documents
            .iter()
            .map(|document| DescribedDocument {
                policy: document.policy.clone(),
                value: document.value.clone(),
                nets: short(&document.nets),
            })
            .collect(),
        unsaid: described.unsaid.clone(),
        policies: described.policies.clone(),
        failsafe: described.failsafe.clone(),
        node_addresses: described.node_addresses.clone(),
    };
    (ruleset, described)
}

/// A record to be written: the long lists apart from the rest.
pub(super) struct NewRecord {
    pub(super) record: Record,
    lists: Vec<u8>,
}

impl NewRecord {
    /// A record of now.
    pub(super) fn of(
        ruleset: &Ruleset,
        described: &Described,
        namespace: u64,
        ifindex: u32,
    ) -> Self {
        let lists = long_lists(ruleset, described);
        let (ruleset, described) = without_long_lists(ruleset, described);
        Self {
            record: Record::new(ruleset, described, namespace, ifindex),
            lists,
        }
    }

    /// Writes it into a map of its own, pinned at `path`.
    pub(super) fn pin(&self, path: &Path) -> Result<(), Error> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::aya(
                format_args!("cannot write the record {}", path.display()),
                error,
            )
        };
        let json = serde_json::to_vec(&self.record).map_err(|error| failed(&error))?;
        let length = (json.len() as u64).to_le_bytes();
        let parts = [&length[..], &json, &self.lists];
        let size = parts.iter().map(|part| part.len()).sum::<usize>();
        let chunks = u32::try_from(size.div_ceil(CHUNK)).map_err(|error| failed(&error))?;
        let map: Array<MapData, [u8; CHUNK]> =
            Array::create(chunks, sys::MMAPABLE).map_err(|error| failed(&error))?;
        map.pin(path).map_err(|error| failed(&error))?;

        let write = |map: BorrowedFd<'_>| {
            let mut mapping = sys::Mapping::new(map, size)?;
            let mut rest = mapping.bytes_mut();
            for part in parts {
                let place;
                (place, rest) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
            }
            // No map is frozen while somebody could write to it.
            drop(mapping);
            sys::freeze(map)
        };
        let pinned = sys::get(path).and_then(|map| write(map.as_fd()));
        pinned.map_err(|error| Error::io(format_args!("cannot write {}", path.display()), &error))
    }
}

impl Record {
    /// A record of now.
    fn new(ruleset: Ruleset, described: Described, namespace: u64, ifindex: u32) -> Self {
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
            program: None,
            combination: None,
            ruleset,
            described,
        }
    }

    /// When it was written.
    pub(super) fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.since)
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
        let map = sys::get(path).map_err(|error| io(&error))?;
        let size = info.max_entries() as usize * CHUNK;
        let mapping = sys::Frozen::new(map.as_fd(), size).map_err(|error| io(&error))?;
        let bytes = mapping.bytes();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Action, Direction, Options};

    fn nets(count: u8, odd: &str) -> Vec<IpNet> {
        let mut nets: Vec<IpNet> = (0..count)
            .map(|i| format!("10.0.{i}.0/24").parse().expect("a network"))
            .collect();
        nets.insert(usize::from(count / 2), odd.parse().expect("a network"));
        nets
    }

    fn record(sets: &[&[IpNet]], documents: &[&[IpNet]]) -> (Ruleset, Described) {
        let ruleset = Ruleset {
            endpoint: "eth0".into(),
            direction: Direction::Ingress,
            sets: sets
                .iter()
                .map(|nets| NetSet {
                    name: "selector x".into(),
                    nets: nets.to_vec().into(),
                })
                .collect(),
            rules: Vec::new(),
            default: Action::Allow,
            options: Options::default(),
        };
        let described = Described {
            documents: documents
                .iter()
                .map(|nets| DescribedDocument {
                    policy: None,
                    value: Value::Null,
                    nets: nets.to_vec().into(),
                })
                .collect(),
            ..Described::default()
        };
        (ruleset, described)
    }

    #[test]
    fn long_lists_come_back_and_are_kept_once() {
        let (few, long, other) = (
            nets(3, "::1/128"),
            nets(200, "2001:db8::/32"),
            nets(200, "0.0.0.0/0"),
        );
        let (ruleset, described) = record(&[&few, &long, &[]], &[&other, &long, &few]);
        let new = NewRecord::of(&ruleset, &described, 1, 2);
        // 400 IPv4 networks of 5 bytes, one of 17 and one more of 5, and the
        // lengths of lists and runs.
        assert!(
            new.lists.len() < 402 * 5 + 17 + 16 * 10,
            "{}",
            new.lists.len()
        );
        assert_eq!(*new.record.ruleset.sets[1].nets, []);
        assert_eq!(*new.record.ruleset.sets[0].nets, few);

        let mut read = new.record.clone();
        put_lists(&mut read, &new.lists).expect("what was written");
        assert_eq!(read.ruleset, ruleset);
        assert_eq!(read.described, described);
        // The chunks of the map reach behind it.
        let padded = [&new.lists[..], &[0; 100]].concat();
        assert!(put_lists(&mut read, &padded).is_some());
        for end in 0..new.lists.len() {
            assert!(put_lists(&mut read, &new.lists[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn a_broken_list_is_no_list() {
        let (ruleset, described) = record(&[&nets(100, "::/0")], &[]);
        let new = NewRecord::of(&ruleset, &described, 1, 2);
        for (at, byte) in [
            // How many there are; how many in the run; the prefix.
            (7, 0xff),
            (8, 0),
            (15, 0xff),
            (17, 33),
        ] {
            let mut broken = new.lists.clone();
            broken[at] = byte;
            let mut read = new.record.clone();
            assert!(put_lists(&mut read, &broken).is_none(), "{at}");
        }
    }
}
