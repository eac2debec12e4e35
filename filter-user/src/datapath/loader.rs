//! An object's maps and its program, brought into the kernel.
//!
//! aya-obj reads and links the object; the system calls are made here. aya's own
//! loader reads the kernel's BTF first, 5 MB of it, and asks the kernel for a
//! dozen features: half of what it takes to put ten rules in force, and
//! nothing of it is for a program that reads no structure of the kernel's.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya_obj::btf::BtfFeatures;
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PROG_ARRAY,
    BPF_MAP_TYPE_RINGBUF,
};
use aya_obj::programs::XdpAttachType;
use aya_obj::{EbpfSectionKind, Object, ProgramSection};

use super::error::Error;
use super::immediate;
use super::sys::{self, Kind, NewProgram, ProgramInfo};

/// All that BTF has: Linux 5.18 knows everything but 64-bit enumerations.
const BTF: BtfFeatures = BtfFeatures::new(true, true, true, true, true, true, true, false);

/// Bytes of the verifier's log: what it says of a program of this size, and most
/// that old kernels take.
const VERIFIER_LOG: usize = (1 << 24) - 1;

/// What is asked of an object before it goes into the kernel.
#[derive(Debug, Default)]
pub(super) struct Wanted<'w> {
    /// The number of elements of some maps; of a ring, its bytes.
    pub(super) entries: Vec<(&'w str, u32)>,
    /// The size of the elements of some maps.
    pub(super) values: Vec<(&'w str, usize)>,
    /// The bytes of constants that are read, and whether they must be there.
    pub(super) constants: Vec<(&'w str, &'w [u8], bool)>,
    /// The words of those that are immediates (see [`abi::PLACEHOLDER`]).
    pub(super) words: &'w [u32],
    /// The maps whose one element the program has the address of.
    pub(super) direct: &'w [&'w str],
}

/// An object whose maps are in the kernel, and its program not yet.
pub(super) struct Prepared<'w> {
    wanted: &'w Wanted<'w>,
    object: Object,
    btf: Option<OwnedFd>,
    maps: HashMap<String, Map>,
}

/// A program in the kernel.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

/// Reads the object, and creates its maps. The tables of `Wanted` are still to
/// be filled, before or while the program is loaded.
pub(super) fn prepare<'w>(object: &[u8], wanted: &'w Wanted<'w>) -> Result<Prepared<'w>, Error> {
    let mut object = Object::parse(object).map_err(broken)?;
    let constants = wanted.constants.iter();
    object
        .patch_map_data(
            constants
                .map(|&(name, bytes, needed)| (name, (bytes, needed)))
                .collect(),
        )
        .map_err(broken)?;
    if object.has_btf_relocations() {
        return Err(broken("it reads structures of the kernel's"));
    }
    // Without it the kernel says less of the program, and that is all.
    let btf = object.fixup_and_sanitize_btf(&BTF).map_err(broken)?;
    let btf = btf.and_then(|btf| sys::btf_load(&btf.to_bytes()).ok());

    let mut maps = HashMap::new();
    for (name, map) in &mut object.maps {
        let size = wanted.values.iter().find(|(wanted, _)| wanted == name);
        if let Some(&(_, size)) = size {
            map.set_value_size(u32::try_from(size).map_err(broken)?);
        }
        let entries = wanted.entries.iter().find(|(wanted, _)| wanted == name);
        if let Some(&(_, entries)) = entries {
            map.set_max_entries(entries);
        }
        let created = create(name, map, btf.as_ref().filter(|_| size.is_none()))?;
        maps.insert(name.clone(), created);
    }
    Ok(Prepared {
        wanted,
        object,
        btf,
        maps,
    })
}

fn create(name: &str, map: &mut aya_obj::Map, btf: Option<&OwnedFd>) -> Result<Map, Error> {
    let kind = map.map_type();
    if kind == BPF_MAP_TYPE_RINGBUF as u32 {
        let page = u32::try_from(sys::page_size()).unwrap_or(1);
        map.set_max_entries(map.max_entries().next_multiple_of(page));
        map.set_value_size(0);
    }
    // Types of another size than the map's the kernel would refuse.
    let definition = match (&*map, btf) {
        (aya_obj::Map::Btf(_), None) => aya_obj::Map::new_from_params(
            kind,
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags(),
        ),
        _ => map.clone(),
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::aya(format_args!("cannot create the BPF map {name}"), error)
    };
    let btf = btf.map(|btf| btf.as_fd());
    let created = MapData::create(definition, name, btf).map_err(|error| failed(&error))?;
    let fd = created.fd().as_fd();
    let filled = if map.data().is_empty() {
        Ok(())
    } else {
        sys::update(fd, 0, map.data())
    };
    filled
        .and_then(|()| match map.section_kind() {
            EbpfSectionKind::Rodata => sys::freeze(fd),
            _ => Ok(()),
        })
        .map_err(|error| Error::io(format_args!("cannot fill the BPF map {name}"), &error))?;
    Ok(match kind {
        kind if kind == BPF_MAP_TYPE_ARRAY as u32 => Map::Array(created),
        kind if kind == BPF_MAP_TYPE_PERCPU_ARRAY as u32 => Map::PerCpuArray(created),
        kind if kind == BPF_MAP_TYPE_RINGBUF as u32 => Map::RingBuf(created),
        kind if kind == BPF_MAP_TYPE_LRU_HASH as u32 => Map::LruHashMap(created),
        kind if kind == BPF_MAP_TYPE_PROG_ARRAY as u32 => Map::ProgramArray(created),
        _ => return Err(broken(format_args!("{name} is of a kind that is unknown"))),
    })
}

impl Prepared<'_> {
    /// The map with this name.
    pub(super) fn map(&self, name: &str) -> Option<&Map> {
        self.maps.get(name)
    }

    /// Puts a map that is in the kernel already in the place of the one with this
    /// name.
    pub(super) fn share(&mut self, name: &str, map: BorrowedFd<'_>) -> Result<(), Error> {
        let shared = map
            .try_clone_to_owned()
            .map_err(|error| Error::io(format_args!("cannot share the BPF map {name}"), &error))?;
        let shared = MapData::from_fd(shared)
            .map_err(|error| Error::aya(format_args!("cannot share the BPF map {name}"), &error))?;
        let place = self.maps.get_mut(name);
        let place = place.ok_or_else(|| broken(format_args!("it has no {name}")))?;
        match place {
            Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data)
            | Map::LruHashMap(data)
            | Map::ProgramArray(data) => *data = shared,
            _ => unreachable!("`create` makes no other"),
        }
        Ok(())
    }

    /// Has the program of this name verified; gives it with the maps.
    pub(super) fn load(mut self, name: &str) -> Result<(Program, HashMap<String, Map>), Error> {
        let object = &mut self.object;
        let texts = object.functions.keys().map(|(section, _)| *section);
        let texts = texts.collect();
        let maps = object.maps.clone();
        let descriptors = maps.iter().filter_map(|(name, definition)| {
            let fd = data(self.maps.get(name)?).fd().as_fd().as_raw_fd();
            Some((name.as_str(), fd, definition))
        });
        object.relocate_maps(descriptors, &texts).map_err(broken)?;
        object.relocate_calls(&texts).map_err(broken)?;

        let program = object
            .programs
            .get(name)
            .ok_or_else(|| broken(format_args!("it has no {name}")))?;
        let kind = match program.section {
            ProgramSection::Xdp {
                frags,
                attach_type: XdpAttachType::Interface,
            } => Kind::Xdp { frags },
            ProgramSection::SchedClassifier => Kind::Classifier,
            _ => return Err(broken(format_args!("{name} is of a kind that is unknown"))),
        };
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| broken(format_args!("{name} is empty")))?;
        let direct = self.wanted.direct.iter();
        let mut instructions = function.instructions.clone();
        for direct in direct.filter_map(|name| self.maps.get(*name)) {
            immediate::set_address(&mut instructions, data(direct).fd().as_fd());
        }
        immediate::set_words(&mut instructions, self.wanted.words)
            .map_err(|number| broken(format_args!("there is no constant {number}")))?;
        let functions = function.func_info.func_info_bytes();
        let lines = function.line_info.line_info_bytes();
        let new = NewProgram {
            name,
            license: &program.license,
            kind,
            instructions: &instructions,
            btf: self.btf.as_ref().map(|btf| btf.as_fd()),
            functions: (&functions, function.func_info_rec_size),
            lines: (&lines, function.line_info_rec_size),
        };
        match sys::program_load(&new, None) {
            Ok(program) => Ok((Program(program), self.maps)),
            Err(error) => Err(refused(&new, &error)),
        }
    }
}

impl Program {
    /// The program, for the kernel.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What the kernel says about it.
    pub(super) fn info(&self) -> Result<ProgramInfo, Error> {
        sys::program_info(self.fd())
            .map_err(|error| Error::io("cannot read back the loaded program", &error))
    }
}

/// What a map of any kind is made of.
pub(super) fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::LruHashMap(data)
        | Map::ProgramArray(data) => data,
        _ => unreachable!("`create` makes no other"),
    }
}

fn broken(why: impl Display) -> Error {
    Error::Failed(format!(
        "the embedded BPF object can't be used ({why}): this build is broken, please report it"
    ))
}

/// Why the kernel doesn't take the program, with the verifier's last words: it is
/// asked again for them.
fn refused(new: &NewProgram<'_>, error: &io::Error) -> Error {
    let mut log = vec![0; VERIFIER_LOG];
    // A kernel under less pressure may take it this time, but not for good.
    let _ = sys::program_load(new, Some(&mut log));
    let log = String::from_utf8_lossy(&log);
    // What is behind its end, the kernel may have written on the way.
    let log = log.split('\0').next().unwrap_or_default();
    let mut last: Vec<&str> = log
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(12)
        .collect();
    last.reverse();
    if last.is_empty() {
        return Error::io("cannot load the BPF program", error);
    }
    Error::Failed(format!(
        "this kernel refuses the BPF program ({error}); nothing was changed. nodewall needs \
         Linux 5.18 or newer. The verifier's last lines:\n  {}",
        last.join("\n  ")
    ))
}
