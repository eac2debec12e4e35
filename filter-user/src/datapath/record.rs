//! What a generation enforces, written beside it in the kernel, so that
//! `status` and `stats` need nothing but the pins.

use std::fs;
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
use crate::ruleset::{Action, Direction, NetSet, Options, Rule, Ruleset};

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

/// What a record says of its generation, but for the rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
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
    /// The id of the program that filters what goes out, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) egress: Option<u32>,
    /// The secret of its tables of flows, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) flow_seed: Option<u64>,
    /// Bytes of the generation's maps.
    pub(super) memory: u64,
    /// The program as the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<ProgramSize>,
    /// How classes are combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) combination: Option<Combination>,
    /// What else it was asked to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<Settings>,
}

/// What every record's head says of who wrote it.
#[derive(Deserialize)]
struct Writer {
    /// [`abi::VERSION`] of the writer.
    abi: u32,
    /// The nodewall.
    version: String,
}

/// What a generation was asked to do beside deciding by its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Dropped packets that a CPU reports, in so many jiffies.
    pub(super) sampling: [u32; 2],
    /// Flows of each direction that are remembered.
    pub(super) max_flows: u32,
}

/// The record of one generation. What it was made of is read for itself
/// ([`Record::described`]): it is the larger half, and few ask for it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) head: Head,
    /// What is enforced.
    pub(super) ruleset: Arc<Ruleset>,
}

/// A [`Ruleset`] with short lists alone.
#[derive(Serialize)]
struct ShortRuleset<'r> {
    endpoint: &'r str,
    direction: Direction,
    sets: Vec<NetSet>,
    rules: &'r [Rule],
    default: Action,
    options: &'r Options,
}

impl<'r> ShortRuleset<'r> {
    fn of(ruleset: &'r Ruleset) -> Self {
        let Ruleset {
            endpoint,
            direction,
            sets,
            rules,
            default,
            options,
        } = ruleset;
        let sets = sets.iter().map(|set| NetSet {
            name: set.name.clone(),
            nets: short(&set.nets),
        });
        Self {
            endpoint,
            direction: *direction,
            sets: sets.collect(),
            rules,
            default: *default,
            options,
        }
    }
}

/// A [`Described`] with short lists alone.
#[derive(Serialize)]
struct ShortDescribed<'d> {
    documents: Vec<ShortDocument<'d>>,
    unsaid: &'d [String],
    policies: &'d [String],
    failsafe: &'d [String; 2],
    node_addresses: &'d Option<Vec<IpNet>>,
}

#[derive(Serialize)]
struct ShortDocument<'d> {
    policy: &'d Option<String>,
    value: &'d Value,
    nets: Arc<Vec<IpNet>>,
}

impl<'d> ShortDescribed<'d> {
    fn of(described: &'d Described) -> Self {
        let Described {
            documents,
            unsaid,
            policies,
            failsafe,
            node_addresses,
        } = described;
        let documents = documents.iter().map(|document| ShortDocument {
            policy: &document.policy,
            value: &document.value,
            nets: short(&document.nets),
        });
        Self {
            documents: documents.collect(),
            unsaid,
            policies,
            failsafe,
            node_addresses,
        }
    }
}

/// The list, where it is short enough to be kept as JSON.
fn short(nets: &Arc<Vec<IpNet>>) -> Arc<Vec<IpNet>> {
    if nets.len() > FEW_NETS {
        Arc::default()
    } else {
        Arc::clone(nets)
    }
}

/// What is said of a list before its networks: there are none here, they are in
/// the JSON.
const IN_JSON: u64 = 0;
/// They are those of the list with the number that follows.
const AS_BEFORE: u64 = u64::MAX;

/// Long lists in binary: a million networks as JSON would take half a second
/// to read. A set of a ruleset mostly has the networks of one document, and
/// they are here once. `before` are the lists that were written before these.
fn long_lists(before: &[&Arc<Vec<IpNet>>], lists: &[&Arc<Vec<IpNet>>]) -> Vec<u8> {
    let most: usize = lists.iter().map(|list| list.len()).max().unwrap_or(0);
    let mut bytes = Vec::with_capacity(most * 5 + lists.len() * 16);
    for (index, list) in lists.iter().enumerate() {
        let mut known = before.iter().chain(&lists[..index]);
        if list.len() <= FEW_NETS {
            bytes.extend(IN_JSON.to_le_bytes());
        } else if let Some(same) = known.position(|known| known == list) {
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

/// Puts the lists back, and adds all to `known`, those that came before. `None` if
/// they are not what was written.
fn put_lists<'l>(
    lists: impl Iterator<Item = &'l mut Arc<Vec<IpNet>>>,
    known: &mut Vec<Arc<Vec<IpNet>>>,
    mut bytes: &[u8],
) -> Option<()> {
    for list in lists {
        match take_u64(&mut bytes)? {
            IN_JSON => {}
            AS_BEFORE => {
                let same = usize::try_from(take_u64(&mut bytes)?).ok()?;
                *list = Arc::clone(known.get(same)?);
            }
            length => *list = read_nets(length, &mut bytes)?.into(),
        }
        known.push(Arc::clone(list));
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

/// A record to be written.
pub(super) struct NewRecord {
    pub(super) head: Head,
    /// The rules in JSON, their long lists, what they were made of in JSON, its
    /// long lists.
    parts: [Vec<u8>; 4],
}

impl NewRecord {
    /// A record of now.
    pub(super) fn of(
        ruleset: &Ruleset,
        described: &Described,
        namespace: u64,
        ifindex: u32,
    ) -> Result<Self, Error> {
        let failed = |error: serde_json::Error| Error::aya("cannot write the record", &error);
        let sets: Vec<_> = ruleset.sets.iter().map(|set| &set.nets).collect();
        let documents = described.documents.iter();
        let documents: Vec<_> = documents.map(|document| &document.nets).collect();
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            head: Head {
                abi: abi::VERSION,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                generation: 1,
                predecessor: None,
                namespace,
                ifindex,
                since: since.as_secs(),
                egress: None,
                flow_seed: None,
                memory: 0,
                program: None,
                combination: None,
                settings: None,
            },
            parts: [
                serde_json::to_vec(&ShortRuleset::of(ruleset)).map_err(failed)?,
                long_lists(&[], &sets),
                serde_json::to_vec(&ShortDescribed::of(described)).map_err(failed)?,
                long_lists(&sets, &documents),
            ],
        })
    }

    /// Writes it into a map of its own, pinned at `path`: there it is whole, or not at all.
    pub(super) fn pin(&self, path: &Path) -> Result<(), Error> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::aya(
                format_args!("cannot write the record {}", path.display()),
                error,
            )
        };
        let head = serde_json::to_vec(&self.head).map_err(|error| failed(&error))?;
        let parts = || std::iter::once(&head).chain(&self.parts);
        let size = parts().map(|part| size_of::<u64>() + part.len()).sum();
        let chunks = u32::try_from(usize::div_ceil(size, CHUNK)).map_err(|error| failed(&error))?;
        let map: Array<MapData, [u8; CHUNK]> =
            Array::create(chunks, sys::MMAPABLE).map_err(|error| failed(&error))?;
        // In bpffs no name may have a dot.
        let unfinished = path.with_file_name("unfinished");
        map.pin(&unfinished).map_err(|error| failed(&error))?;

        let write = |map: BorrowedFd<'_>| {
            let mut mapping = sys::Mapping::new(map, size)?;
            let mut rest = mapping.bytes_mut();
            for part in parts() {
                let length = (part.len() as u64).to_le_bytes();
                for bytes in [&length[..], part] {
                    let place;
                    (place, rest) = rest.split_at_mut(bytes.len());
                    place.copy_from_slice(bytes);
                }
            }
            // No map is frozen while somebody could write to it.
            drop(mapping);
            sys::freeze(map)
        };
        let pinned = sys::get(&unfinished)
            .and_then(|map| write(map.as_fd()))
            .and_then(|()| fs::rename(&unfinished, path));
        pinned.map_err(|error| Error::io(format_args!("cannot write {}", path.display()), &error))
    }
}

impl Head {
    /// Reads it alone, of the record pinned at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let (mapping, size) = open(path)?;
        Self::parse(&mut &mapping.bytes()[..size]).map_err(|why| unreadable(path, &why))
    }

    fn parse(bytes: &mut &[u8]) -> Result<Self, Unreadable> {
        let head = take(bytes)?;
        // All else may have another form there.
        let writer: Writer = serde_json::from_slice(head)?;
        if writer.abi != abi::VERSION {
            return Err(Unreadable(format!(
                "nodewall {} wrote it, with version {} of the tables; here it is {}",
                writer.version,
                writer.abi,
                abi::VERSION
            )));
        }
        Ok(serde_json::from_slice(head)?)
    }

    /// When it was written.
    pub(super) fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.since)
    }
}

impl Record {
    /// Reads the record pinned at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let (mapping, size) = open(path)?;
        Self::parse(&mapping.bytes()[..size]).map_err(|why| unreadable(path, &why))
    }

    fn parse(mut bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = &mut bytes;
        let head = Head::parse(bytes)?;
        let mut ruleset: Ruleset = serde_json::from_slice(take(bytes)?)?;
        let lists = ruleset.sets.iter_mut().map(|set| &mut set.nets);
        put_lists(lists, &mut Vec::new(), take(bytes)?).ok_or_else(cut_short)?;
        if !ruleset.has_the_sets_of_its_rules() {
            return Err(Unreadable("a rule asks for a set that is not there".into()));
        }
        Ok(Self {
            head,
            ruleset: Arc::new(ruleset),
        })
    }

    /// Reads what the generation was made of from where the record was read.
    pub(super) fn described(&self, path: &Path) -> Result<Described, Error> {
        let (mapping, size) = open(path)?;
        self.parse_described(&mapping.bytes()[..size])
            .map_err(|why| unreadable(path, &why))
    }

    fn parse_described(&self, mut bytes: &[u8]) -> Result<Described, Unreadable> {
        let bytes = &mut bytes;
        // Before it, what was read already.
        for _ in 0..3 {
            take(bytes)?;
        }
        let mut described: Described = serde_json::from_slice(take(bytes)?)?;
        let documents = described.documents.iter_mut();
        let lists = documents.map(|document| &mut document.nets);
        let sets = self.ruleset.sets.iter();
        let mut known = sets.map(|set| Arc::clone(&set.nets)).collect();
        put_lists(lists, &mut known, take(bytes)?).ok_or_else(cut_short)?;
        Ok(described)
    }
}

/// A record's bytes as they are read, for `fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<(Arc<Ruleset>, Described), String> {
    let record = Record::parse(bytes).map_err(|why| why.0)?;
    let described = record.parse_described(bytes).map_err(|why| why.0)?;
    Ok((record.ruleset, described))
}

/// A record's bytes as they are written, likewise.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn to_bytes(ruleset: &Ruleset, described: &Described) -> Result<Vec<u8>, String> {
    let new = NewRecord::of(ruleset, described, 1, 2).map_err(|error| error.to_string())?;
    let head = serde_json::to_vec(&new.head).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    for part in std::iter::once(&head).chain(&new.parts) {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    Ok(bytes)
}

/// The elements of the map that a record is in, and how many bytes they are.
fn open(path: &Path) -> Result<(sys::Frozen, usize), Error> {
    let info = MapInfo::from_pin(path)
        .map_err(|error| Error::aya(format_args!("cannot read {}", path.display()), &error))?;
    if info.value_size() as usize != CHUNK {
        let why = Unreadable("the map has another shape".to_owned());
        return Err(unreadable(path, &why));
    }
    let size = info.max_entries() as usize * CHUNK;
    sys::get(path)
        .and_then(|map| sys::Frozen::new(map.as_fd(), size))
        .map(|mapping| (mapping, size))
        .map_err(|error| Error::io(format_args!("cannot read {}", path.display()), &error))
}

/// Why a record can't be read.
struct Unreadable(String);

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

fn cut_short() -> Unreadable {
    Unreadable("it is cut short".to_owned())
}

fn unreadable(path: &Path, Unreadable(why): &Unreadable) -> Error {
    Error::Failed(format!(
        "the record {} is not readable by this nodewall ({why}): it was written by another \
         version, or not by nodewall. The filter itself goes on as it is. `nodewall apply \
         --take-over`, or `run` with it, puts policies in its place without a gap; its totals \
         and flows are then lost. `nodewall detach` takes it off.",
        path.display()
    ))
}

/// The next part of a record.
fn take<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Unreadable> {
    let length = take_u64(bytes).and_then(|length| usize::try_from(length).ok());
    let (part, rest) = length
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(cut_short)?;
    *bytes = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let new = NewRecord::of(&ruleset, &described, 1, 2).expect("JSON");
        let [rules, sets, documents, lists] = &new.parts;
        // Each 200 IPv4 networks of 5 bytes, one of 17 or one more of 5, and the
        // lengths of lists and runs.
        for lists in [sets, lists] {
            assert!(lists.len() < 201 * 5 + 17 + 16 * 6, "{}", lists.len());
        }
        let mut read: Ruleset = serde_json::from_slice(rules).expect("JSON");
        assert_eq!(*read.sets[1].nets, []);
        assert_eq!(*read.sets[0].nets, few);

        let mut known = Vec::new();
        let mut put = |read: &mut Ruleset, bytes: &[u8]| {
            known.clear();
            put_lists(
                read.sets.iter_mut().map(|set| &mut set.nets),
                &mut known,
                bytes,
            )
        };
        for end in 0..sets.len() {
            assert!(put(&mut read, &sets[..end]).is_none(), "{end}");
        }
        put(&mut read, sets).expect("what was written");
        assert_eq!(read, ruleset);

        let mut read: Described = serde_json::from_slice(documents).expect("JSON");
        let nets = read.documents.iter_mut().map(|document| &mut document.nets);
        put_lists(nets, &mut known, lists).expect("what was written");
        assert_eq!(read, described);
        assert!(Arc::ptr_eq(&read.documents[1].nets, &known[1]));
    }

    #[test]
    fn a_rule_without_its_set_is_refused() {
        let (mut ruleset, described) = record(&[&nets(3, "::1/128")], &[]);
        let mut asked = crate::ruleset::Match::default();
        for (set, is_there) in [(0, true), (1, false), (u32::MAX, false)] {
            for (sets, not_sets) in [(vec![set], vec![]), (vec![], vec![set])] {
                asked.dst.sets = sets;
                asked.dst.not_sets = not_sets;
                ruleset.rules = vec![Rule {
                    matches: vec![asked.clone()],
                    id: crate::ruleset::RuleId {
                        stage: crate::ruleset::Stage::Normal,
                        policy: "p".into(),
                        direction: Direction::Ingress,
                        index: Some(0),
                    },
                    tier: None,
                    action: Action::Deny,
                    staged: false,
                    source: None,
                }];
                let bytes = to_bytes(&ruleset, &described).expect("JSON");
                assert_eq!(from_bytes(&bytes).is_ok(), is_there, "{asked:?}");
            }
        }
    }

    #[test]
    fn a_broken_list_is_no_list() {
        let (ruleset, described) = record(&[&nets(100, "::/0")], &[]);
        let new = NewRecord::of(&ruleset, &described, 1, 2).expect("JSON");
        for (at, byte) in [
            // How many there are; how many in the run; the prefix.
            (7, 0xff),
            (8, 0),
            (15, 0xff),
            (17, 33),
        ] {
            let mut broken = new.parts[1].clone();
            broken[at] = byte;
            let mut list = Arc::default();
            let put = put_lists(std::iter::once(&mut list), &mut Vec::new(), &broken);
            assert!(put.is_none(), "{at}");
        }
    }
}
