//! System calls by name, and the errors that they may fail with.

use nix::errno::Errno;
use nix::libc;

use super::trace::Call;

/// Commands of bpf(2), which are its first argument.
pub(super) const BPF_MAP_CREATE: u64 = 0;
pub(super) const BPF_PROG_LOAD: u64 = 5;

/// What bpf(2)'s commands are called in `linux/bpf.h`, as far as nodewall gives them.
const BPF: [(u64, &str); 14] = [
    (BPF_MAP_CREATE, "MAP_CREATE"),
    (1, "MAP_LOOKUP_ELEM"),
    (2, "MAP_UPDATE_ELEM"),
    (4, "MAP_GET_NEXT_KEY"),
    (BPF_PROG_LOAD, "PROG_LOAD"),
    (6, "OBJ_PIN"),
    (7, "OBJ_GET"),
    (15, "OBJ_GET_INFO_BY_FD"),
    (18, "BTF_LOAD"),
    (22, "MAP_FREEZE"),
    (24, "MAP_LOOKUP_BATCH"),
    (26, "MAP_UPDATE_BATCH"),
    (28, "LINK_CREATE"),
    (29, "LINK_UPDATE"),
];

/// Those that only ask: look-ups, ids, names, sizes.
const BPF_ASKS: [u64; 15] = [1, 4, 7, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 30, 31];

/// What a call is to a person who reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// bpf(2).
    Bpf,
    /// A name comes, goes or changes in a folder.
    Name,
    /// Netlink and other sockets.
    Socket,
    /// Memory and threads, of the process itself.
    Process,
    /// All else that may fail.
    File,
    /// What is not made to fail: it can't, or means nothing where it does.
    Other,
}

struct Known {
    number: libc::c_long,
    name: &'static str,
    kind: Kind,
    errors: &'static [Errno],
}

const fn known(
    number: libc::c_long,
    name: &'static str,
    kind: Kind,
    errors: &'static [Errno],
) -> Known {
    Known {
        number,
        name,
        kind,
        errors,
    }
}

use Errno::{EBUSY, ENOMEM, ENOSPC, EPERM};

/// All four for bpf(2); of the others those that the kernel gives there.
const KNOWN: [Known; 59] = [
    known(
        libc::SYS_bpf,
        "bpf",
        Kind::Bpf,
        &[ENOMEM, ENOSPC, EPERM, EBUSY],
    ),
    known(
        libc::SYS_mkdir,
        "mkdir",
        Kind::Name,
        &[ENOMEM, ENOSPC, EPERM],
    ),
    known(
        libc::SYS_rename,
        "rename",
        Kind::Name,
        &[ENOMEM, ENOSPC, EPERM, EBUSY],
    ),
    known(
        libc::SYS_unlink,
        "unlink",
        Kind::Name,
        &[ENOMEM, EPERM, EBUSY],
    ),
    known(
        libc::SYS_unlinkat,
        "unlinkat",
        Kind::Name,
        &[ENOMEM, EPERM, EBUSY],
    ),
    known(
        libc::SYS_rmdir,
        "rmdir",
        Kind::Name,
        &[ENOMEM, EPERM, EBUSY],
    ),
    known(
        libc::SYS_mount,
        "mount",
        Kind::Name,
        &[ENOMEM, EPERM, EBUSY],
    ),
    known(libc::SYS_socket, "socket", Kind::Socket, &[ENOMEM, EPERM]),
    known(libc::SYS_bind, "bind", Kind::Socket, &[ENOMEM, EPERM]),
    known(
        libc::SYS_setsockopt,
        "setsockopt",
        Kind::Socket,
        &[ENOMEM, EPERM],
    ),
    known(libc::SYS_sendto, "sendto", Kind::Socket, &[ENOMEM, EPERM]),
    known(libc::SYS_sendmsg, "sendmsg", Kind::Socket, &[ENOMEM, EPERM]),
    known(libc::SYS_recvfrom, "recvfrom", Kind::Socket, &[ENOMEM]),
    known(libc::SYS_recvmsg, "recvmsg", Kind::Socket, &[ENOMEM]),
    known(libc::SYS_mmap, "mmap", Kind::Process, &[ENOMEM, EPERM]),
    known(libc::SYS_mprotect, "mprotect", Kind::Process, &[ENOMEM]),
    known(libc::SYS_mremap, "mremap", Kind::Process, &[ENOMEM]),
    known(libc::SYS_clone3, "clone3", Kind::Process, &[ENOMEM, EPERM]),
    known(
        libc::SYS_epoll_create1,
        "epoll_create1",
        Kind::Process,
        &[ENOMEM],
    ),
    known(
        libc::SYS_epoll_ctl,
        "epoll_ctl",
        Kind::Process,
        &[ENOMEM, ENOSPC],
    ),
    known(libc::SYS_eventfd2, "eventfd2", Kind::Process, &[ENOMEM]),
    known(
        libc::SYS_inotify_init1,
        "inotify_init1",
        Kind::File,
        &[ENOMEM],
    ),
    known(
        libc::SYS_inotify_add_watch,
        "inotify_add_watch",
        Kind::File,
        &[ENOMEM, ENOSPC],
    ),
    known(
        libc::SYS_openat,
        "openat",
        Kind::File,
        &[ENOMEM, EPERM, ENOSPC],
    ),
    // Of a file alone: a counter, a pipe and a socket have no space to run out of.
    known(libc::SYS_write, "write", Kind::File, &[ENOSPC]),
    known(libc::SYS_fsync, "fsync", Kind::File, &[ENOSPC]),
    known(libc::SYS_ftruncate, "ftruncate", Kind::File, &[EPERM]),
    known(libc::SYS_flock, "flock", Kind::File, &[ENOMEM]),
    known(libc::SYS_membarrier, "membarrier", Kind::File, &[EPERM]),
    known(libc::SYS_statx, "statx", Kind::File, &[ENOMEM, EPERM]),
    known(libc::SYS_statfs, "statfs", Kind::File, &[ENOMEM, EPERM]),
    known(libc::SYS_getdents64, "getdents64", Kind::File, &[ENOMEM]),
    known(libc::SYS_read, "read", Kind::File, &[ENOMEM]),
    known(libc::SYS_readlink, "readlink", Kind::File, &[ENOMEM]),
    known(libc::SYS_access, "access", Kind::Other, &[]),
    known(libc::SYS_arch_prctl, "arch_prctl", Kind::Other, &[]),
    known(libc::SYS_brk, "brk", Kind::Other, &[]),
    known(libc::SYS_close, "close", Kind::Other, &[]),
    known(libc::SYS_connect, "connect", Kind::Other, &[]),
    known(libc::SYS_epoll_wait, "epoll_wait", Kind::Other, &[]),
    known(libc::SYS_exit, "exit", Kind::Other, &[]),
    known(libc::SYS_exit_group, "exit_group", Kind::Other, &[]),
    known(libc::SYS_fcntl, "fcntl", Kind::Other, &[]),
    known(libc::SYS_fstat, "fstat", Kind::Other, &[]),
    known(libc::SYS_futex, "futex", Kind::Other, &[]),
    known(libc::SYS_getrandom, "getrandom", Kind::Other, &[]),
    known(libc::SYS_getsockname, "getsockname", Kind::Other, &[]),
    known(libc::SYS_gettid, "gettid", Kind::Other, &[]),
    known(libc::SYS_ioctl, "ioctl", Kind::Other, &[]),
    known(libc::SYS_lseek, "lseek", Kind::Other, &[]),
    known(libc::SYS_madvise, "madvise", Kind::Other, &[]),
    known(libc::SYS_munmap, "munmap", Kind::Other, &[]),
    known(libc::SYS_poll, "poll", Kind::Other, &[]),
    known(libc::SYS_pread64, "pread64", Kind::Other, &[]),
    known(libc::SYS_prlimit64, "prlimit64", Kind::Other, &[]),
    known(libc::SYS_rseq, "rseq", Kind::Other, &[]),
    known(libc::SYS_rt_sigaction, "rt_sigaction", Kind::Other, &[]),
    known(libc::SYS_rt_sigprocmask, "rt_sigprocmask", Kind::Other, &[]),
    known(libc::SYS_sigaltstack, "sigaltstack", Kind::Other, &[]),
];

fn of(call: &Call) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.number == call.number)
}

/// What it is called.
pub(super) fn name(call: &Call) -> String {
    match of(call) {
        Some(known) if known.kind == Kind::Bpf => {
            let command = BPF.iter().find(|(command, _)| *command == call.argument);
            match command {
                Some((_, command)) => format!("bpf({command})"),
                None => format!("bpf({})", call.argument),
            }
        }
        Some(known) => known.name.to_owned(),
        None => format!("system call {}", call.number),
    }
}

/// What it is about.
pub(super) fn kind(call: &Call) -> Kind {
    of(call).map_or(Kind::Other, |known| known.kind)
}

/// Whether what others see may be another thing after it: the kernel's state or a name. From
/// one such call to the next it makes no difference where a process is killed.
pub(super) fn changes(call: &Call) -> bool {
    match kind(call) {
        Kind::Bpf => !BPF_ASKS.contains(&call.argument),
        Kind::Name => true,
        Kind::Socket => [libc::SYS_sendto, libc::SYS_sendmsg].contains(&call.number),
        Kind::Process | Kind::File | Kind::Other => false,
    }
}

/// What it may fail with.
pub(super) fn errors(call: &Call) -> &'static [Errno] {
    if call.number == libc::SYS_write && !call.to_file {
        return &[];
    }
    of(call).map_or(&[], |known| known.errors)
}
