//! The bpf(2) commands that aya 0.14 keeps to itself: loading a program and running
//! it once, link creation without a silent fall-back to netlink, swap of a pinned
//! link's program, link info, freezing a map, reading a map in one call, mapping
//! one into memory, the ids of maps.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya_obj::generated::bpf_insn;

// Commands, types and flags of include/uapi/linux/bpf.h.
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_BTF_LOAD: libc::c_int = 18;
const BPF_MAP_FREEZE: libc::c_int = 22;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
/// Maps whose elements are copies, one a CPU: hash, array, LRU hash, and storage of a cgroup.
const PER_CPU_MAP_TYPES: [u32; 4] = [5, 6, 10, 21];
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Attach in the network stack (`XDP_FLAGS_SKB_MODE` of `linux/if_link.h`).
pub(super) const XDP_SKB_MODE: u32 = 1 << 1;
/// Attach in the driver (`XDP_FLAGS_DRV_MODE`).
pub(super) const XDP_DRV_MODE: u32 = 1 << 2;

/// Calls bpf(2) with an attribute that begins with `attr`; the kernel takes
/// the bytes behind a shorter attribute as zero.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a repr(C) prefix of the kernel's union bpf_attr for
    // this command, and its size is passed along; every pointer in it is to
    // memory that outlives the call (see each caller).
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us alone; it
    // fits, as descriptors are ints.
    #[expect(clippy::cast_possible_truncation, reason = "file descriptors are ints")]
    unsafe {
        OwnedFd::from_raw_fd(fd as libc::c_int)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins an object at `path` on a bpffs.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens the object pinned at `path`.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        ..ObjAttr::default()
    };
    bpf(BPF_OBJ_GET, &mut attr).map(owned)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Open descriptors are never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// Keeps user space from writing the map from now on.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_MAP_FREEZE, &mut raw(map)).map(drop)
}

/// Attaches an XDP program to an interface by a link.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    create_link(program, ifindex, BPF_XDP, flags)
}

/// Attaches a classifier by a link to what leaves an interface (TCX, Linux 6.6 and
/// newer), before all others that are there: one that lets a packet pass may end
/// the walk.
pub(super) fn link_create_egress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    create_link(program, ifindex, BPF_TCX_EGRESS, BPF_F_BEFORE)
}

fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type,
        flags,
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

/// Swaps the program of a link, atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// What a link holds together.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkInfo {
    /// The program's id.
    pub(super) program: u32,
    /// The interface's index in its namespace; 0 when the device is gone.
    pub(super) ifindex: u32,
}

/// Reads what a link of ours holds together.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // struct bpf_link_info: the union begins 8-aligned.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        ifindex: u32,
        rest: u32,
    }
    const _: () = assert!(size_of::<Info>() == 24);
    // The kernel would as gladly tell of a map, whose words mean something else.
    if fd_info(link, "link_type:")?.is_none() {
        return Err(io::Error::other(
            "this pin is not a link; look who made it, and remove it by `rm`",
        ));
    }
    let mut info = Info::default();
    info_by_fd(link, &mut info)?;
    if info.kind != BPF_LINK_TYPE_XDP && info.kind != BPF_LINK_TYPE_TCX {
        return Err(io::Error::other(
            "this pin is not an XDP or TCX link; look who made it, and remove it by `rm`",
        ));
    }
    Ok(LinkInfo {
        program: info.program,
        ifindex: info.ifindex,
    })
}

/// The attribute of the commands that read or write many elements.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// What the kernel says of a descriptor under this name, which ends in a colon: what it
/// is made of has names of its own for links, maps and programs.
fn fd_info(fd: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    Ok(value.map(|value| value.trim().to_owned()))
}

/// What a map's elements are. What is pinned may be somebody else's map, and the kernel
/// writes as much as that one's elements have, whatever there is room for.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: u32,
    key: usize,
    value: usize,
    elements: usize,
}

impl Shape {
    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        // struct bpf_map_info begins with type, id, and the sizes of key and value.
        let mut info = [0_u32; 6];
        info_by_fd(map, &mut info)?;
        Ok(Self {
            kind: info[0],
            key: info[2] as usize,
            value: info[3] as usize,
            elements: info[4] as usize,
        })
    }

    fn is_per_cpu(self) -> bool {
        PER_CPU_MAP_TYPES.contains(&self.kind)
    }

    /// Bytes of an element as system calls and mappings have it.
    fn element(self) -> io::Result<usize> {
        let one = self.value.next_multiple_of(size_of::<u64>());
        if self.is_per_cpu() {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            Ok(one * cpus)
        } else {
            Ok(one)
        }
    }

    fn must(is_so: bool) -> io::Result<()> {
        if is_so {
            Ok(())
        } else {
            Err(io::Error::other(
                "the map there has another shape than nodewall's: it is another version's, or \
                 somebody else's",
            ))
        }
    }
}

/// Reads `values.len() / stride` elements, from the first on, of an array
/// map whose elements take `stride` words of 64 bits. One call for all.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    stride: usize,
    values: &mut [u64],
) -> io::Result<()> {
    let wanted = values.len() / stride;
    let shape = Shape::of(map)?;
    Shape::must(
        shape.element()? == stride * size_of::<u64>()
            && shape.key == size_of::<u32>()
            && shape.elements >= wanted,
    )?;
    let count = u32::try_from(wanted).map_err(io::Error::other)?;
    let mut keys = vec![0_u32; wanted];
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: raw(map),
        ..BatchAttr::default()
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => {}
        // The end of the map was reached, as it should be.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    if attr.count == count {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the kernel returned {} of {count} elements",
            attr.count
        )))
    }
}

/// Some elements of a hash map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// How many.
    pub(super) count: usize,
    /// Where the next ones are; `None` behind the last.
    pub(super) next: Option<u32>,
}

/// Reads up to `count` elements of a hash map into `keys` and `values`, which have
/// room for so many, from where a batch before this one ended.
pub(super) fn lookup_batch_hash(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    keys: &mut [u8],
    values: &mut [u8],
    count: usize,
) -> io::Result<Batch> {
    let shape = Shape::of(map)?;
    Shape::must(
        !shape.is_per_cpu()
            && shape.key * count <= keys.len()
            && shape.value * count <= values.len(),
    )?;
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: from
            .as_ref()
            .map_or(0, |from| std::ptr::from_ref(from) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(count).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..BatchAttr::default()
    };
    let more = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => return Err(error),
    };
    Ok(Batch {
        count: attr.count as usize,
        next: more.then_some(next),
    })
}

/// Writes `count` elements of a hash map.
pub(super) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> io::Result<()> {
    let shape = Shape::of(map)?;
    Shape::must(
        !shape.is_per_cpu()
            && shape.key * count == keys.len()
            && shape.value * count == values.len(),
    )?;
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..BatchAttr::default()
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Removes an element of a hash map.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    Shape::must(Shape::of(map)?.key == key.len())?;
    let mut attr = ElementAttr {
        map_fd: raw(map),
        key: key.as_ptr() as u64,
        ..ElementAttr::default()
    };
    bpf(BPF_MAP_DELETE_ELEM, &mut attr).map(drop)
}

/// How many elements a map has room for.
pub(super) fn max_entries(map: BorrowedFd<'_>) -> io::Result<u32> {
    let elements = Shape::of(map)?.elements;
    Ok(u32::try_from(elements).unwrap_or(u32::MAX))
}

/// The least id of a map above this one, where the kernel has such a map. Opens none.
pub(super) fn next_map_id(id: u32) -> io::Result<Option<u32>> {
    #[repr(C)]
    struct NextIdAttr {
        start_id: u32,
        next_id: u32,
    }
    let mut attr = NextIdAttr {
        start_id: id,
        next_id: 0,
    };
    match bpf(BPF_MAP_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until no CPU still runs a program that was swapped out before: XDP
/// runs in RCU read-side sections, and this command waits for all of them.
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier(2) takes three integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets one element of an array map; `value` must have the size of its elements,
/// rounded up to 8 bytes for each CPU where it has a copy on each.
pub(super) fn update(map: BorrowedFd<'_>, index: u32, value: &[u8]) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: raw(map),
        key: std::ptr::from_ref(&index) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// The attribute of the commands about one element.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a program into an array of programs.
pub(super) fn set_program(
    map: BorrowedFd<'_>,
    index: u32,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    update(map, index, &raw(program).to_ne_bytes())
}

/// Loads the types of a program and of maps.
pub(super) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        btf: u64,
        log_buf: u64,
        btf_size: u32,
        log_size: u32,
    }
    let mut attr = Attr {
        btf: btf.as_ptr() as u64,
        log_buf: 0,
        btf_size: length(btf)?,
        log_size: 0,
    };
    bpf(BPF_BTF_LOAD, &mut attr).map(owned)
}

/// Which hook a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// XDP; whether it takes packets in several buffers.
    Xdp { frags: bool },
    /// A classifier of TC.
    Classifier,
}

/// A program that is to be loaded.
#[derive(Debug)]
pub(super) struct NewProgram<'p> {
    pub(super) name: &'p str,
    pub(super) license: &'p CStr,
    pub(super) kind: Kind,
    pub(super) instructions: &'p [bpf_insn],
    pub(super) btf: Option<BorrowedFd<'p>>,
    /// What BTF says of its functions, and the size of a record.
    pub(super) functions: (&'p [u8], usize),
    /// What BTF says of its lines, likewise.
    pub(super) lines: (&'p [u8], usize),
}

/// Has a program verified and compiled; the verifier writes to `log` what it
/// thinks, as text that a zero ends.
pub(super) fn program_load(new: &NewProgram<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    const NAME: usize = 16;
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; NAME],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
    }
    let (prog_type, prog_flags, expected_attach_type) = match new.kind {
        Kind::Xdp { frags: true } => (BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, BPF_XDP),
        Kind::Xdp { frags: false } => (BPF_PROG_TYPE_XDP, 0, BPF_XDP),
        Kind::Classifier => (BPF_PROG_TYPE_SCHED_CLS, 0, 0),
    };
    let mut attr = Attr {
        prog_type,
        insn_cnt: u32::try_from(new.instructions.len()).map_err(io::Error::other)?,
        insns: new.instructions.as_ptr() as u64,
        license: new.license.as_ptr() as u64,
        prog_flags,
        expected_attach_type,
        ..Attr::default()
    };
    // What is longer is cut; a zero ends it.
    let name = attr.prog_name[..NAME - 1].iter_mut();
    name.zip(new.name.bytes()).for_each(|(to, from)| *to = from);
    if let Some(btf) = new.btf {
        attr.prog_btf_fd = raw(btf);
        (attr.func_info, attr.func_info_cnt, attr.func_info_rec_size) = records(new.functions)?;
        (attr.line_info, attr.line_info_cnt, attr.line_info_rec_size) = records(new.lines)?;
    }
    if let Some(log) = log {
        attr.log_level = 1;
        attr.log_size = length(log)?;
        attr.log_buf = log.as_mut_ptr() as u64;
    }
    loop {
        match bpf(BPF_PROG_LOAD, &mut attr) {
            // A signal came while it was verified.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            loaded => return loaded.map(owned),
        }
    }
}

/// Where records of a size are, how many, and the size.
fn records((bytes, size): (&[u8], usize)) -> io::Result<(u64, u32, u32)> {
    let count = length(bytes)? / u32::try_from(size.max(1)).map_err(io::Error::other)?;
    let size = u32::try_from(size).map_err(io::Error::other)?;
    Ok((bytes.as_ptr() as u64, count, size))
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

/// What the kernel says about a loaded program.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramInfo {
    /// Its id.
    pub(super) id: u32,
    /// Instructions that the verifier walked.
    pub(super) verified_instructions: u32,
    /// Bytes of the instructions that are left.
    pub(super) xlated_bytes: u32,
    /// Bytes of machine code; 0 without a JIT compiler.
    pub(super) jited_bytes: u32,
}

/// Reads what the kernel says about a program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // struct bpf_prog_info, as far as Linux 5.16 and newer have it.
    const WORDS: usize = 58;
    let mut info = [0_u32; WORDS];
    info_by_fd(program, &mut info)?;
    Ok(ProgramInfo {
        id: info[1],
        jited_bytes: info[4],
        xlated_bytes: info[5],
        verified_instructions: info[54],
    })
}

/// Reads what the kernel says about an object; what it has more than `info` it
/// leaves out.
fn info_by_fd<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = Attr {
        bpf_fd: raw(object),
        info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Runs a program on a frame, once; what it returned.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
    }
    let mut attr = Attr {
        prog_fd: raw(program),
        data_size_in: length(frame)?,
        data_in: frame.as_ptr() as u64,
        ..Attr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.retval)
}

/// Bytes of a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: sysconf(3) takes an integer and touches no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(1)
}

/// The flag of array maps that can be mapped into memory (`BPF_F_MMAPABLE`).
pub(super) const MMAPABLE: u32 = 1 << 10;

/// The elements of a frozen map with that flag, to be read. Nothing writes to
/// them any more.
#[derive(Debug)]
pub(super) struct Frozen(Mapping);

impl Frozen {
    /// Maps the first `bytes` bytes of the map's elements.
    pub(super) fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        if fd_info(map, "frozen:")?.as_deref() != Some("1") {
            return Err(io::Error::other(
                "somebody can still write to the map there",
            ));
        }
        Mapping::map(map, bytes, libc::PROT_READ).map(Self)
    }

    /// The elements.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The elements of a `BPF_F_MMAPABLE` array map, in this process's memory.
#[derive(Debug)]
pub(super) struct Mapping {
    start: std::ptr::NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone on this side; which thread
// uses it makes no difference.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `bytes` bytes of the map's elements.
    pub(super) fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(map, bytes, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn map(map: BorrowedFd<'_>, bytes: usize, protection: libc::c_int) -> io::Result<Self> {
        // Behind its elements a page has zeros, which would be taken for what is in them.
        let shape = Shape::of(map)?;
        let room = shape.element()?.checked_mul(shape.elements);
        Shape::must(room.is_some_and(|room| bytes <= room))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches
        // no memory that is in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start.cast())
            .ok_or_else(|| io::Error::other("the kernel mapped a map at address 0"))?;
        Ok(Self { start, bytes })
    }

    /// The elements. No program that writes to them may run meanwhile.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this many readable bytes until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Sets the first word, as those who read it meanwhile see it: all of it at once.
    pub(super) fn store_first(&self, word: u64) {
        assert!(self.bytes >= size_of::<u64>());
        // SAFETY: a mapping begins at a page, so the word is aligned; it is within the
        // mapping, which is writable, until that is dropped. Nothing else of this process
        // writes to it.
        let first = unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) };
        first.store(word, Ordering::SeqCst);
    }

    /// The elements, to be written. No program may use them meanwhile.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has this many writable bytes until it is
        // dropped, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and no borrow of it is
        // left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
