//! The filter of what leaves an interface: a link at TCX, pinned like that of XDP, or
//! where the kernel has none a [classifier](super::clsact).

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use super::error::Error;
use super::interface::Interface;
use super::pins::{self, Slot};
use super::{EGRESS, PROGRAM, clsact, sys};

/// Where the program of what goes out is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressHook {
    /// At TCX, by a link (Linux 6.6 and newer).
    Tcx,
    /// At the `clsact` queueing discipline, by netlink.
    Clsact,
}

impl EgressHook {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What is attached in a slot.
enum Attached {
    Tcx {
        link: OwnedFd,
        program: u32,
        ifindex: u32,
    },
    Clsact,
    Nothing,
}

fn attached(slot: &Slot) -> Result<Attached, Error> {
    if let Some((link, info)) = slot.egress()? {
        return Ok(Attached::Tcx {
            link,
            program: info.program,
            ifindex: info.ifindex,
        });
    }
    Ok(if pins::is_there(&slot.clsact_path())? {
        Attached::Clsact
    } else {
        Attached::Nothing
    })
}

/// Where it is attached in this slot, if it is. Whether a classifier was taken off by
/// somebody is not asked.
pub(super) fn hook(slot: &Slot, ifindex: u32) -> Result<Option<EgressHook>, Error> {
    Ok(match attached(slot)? {
        Attached::Tcx { ifindex: here, .. } => (here == ifindex).then_some(EgressHook::Tcx),
        Attached::Clsact => Some(EgressHook::Clsact),
        Attached::Nothing => None,
    })
}

/// The id of the program that filters what leaves the slot's interface.
pub(super) fn program(slot: &Slot, ifindex: u32) -> Result<Option<u32>, Error> {
    match attached(slot)? {
        Attached::Tcx { program, .. } => Ok(Some(program)),
        Attached::Clsact => clsact::program(ifindex),
        Attached::Nothing => Ok(None),
    }
}

/// Puts a program in force, in the place of the one that is, if one is: where that is,
/// else at the wanted hook, else where the kernel can.
pub(super) fn put(
    interface: &Interface,
    slot: &Slot,
    wanted: Option<EgressHook>,
    program: BorrowedFd<'_>,
) -> Result<(), Error> {
    let failed = |error: &io::Error| {
        Error::io(
            format_args!(
                "cannot filter what leaves {}; nothing was changed",
                interface.name
            ),
            error,
        )
    };
    match attached(slot)? {
        Attached::Tcx { link, ifindex, .. } if ifindex == interface.index => {
            return sys::link_update(link.as_fd(), program).map_err(|error| failed(&error));
        }
        // Its interface is gone.
        Attached::Tcx { .. } => slot.remove_egress_link()?,
        Attached::Clsact => return put_clsact(slot, interface.index, program),
        Attached::Nothing => {}
    }
    attach(slot, interface.index, wanted, program).map_err(|error| match error {
        Refused::Kernel(error) => failed(&error),
        Refused::Other(error) => error,
    })
}

/// Why nothing could be attached.
enum Refused {
    /// The kernel refuses the link.
    Kernel(io::Error),
    Other(Error),
}

/// Attaches a program where none of ours is.
fn attach(
    slot: &Slot,
    ifindex: u32,
    wanted: Option<EgressHook>,
    program: BorrowedFd<'_>,
) -> Result<(), Refused> {
    if wanted != Some(EgressHook::Clsact) {
        match sys::link_create_egress(program, ifindex) {
            Ok(link) => return pin_link(slot, &link).map_err(Refused::Other),
            // A kernel before 6.6 doesn't know what is asked.
            Err(error) if wanted.is_none() && error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(Refused::Kernel(error)),
        }
    }
    put_clsact(slot, ifindex, program).map_err(Refused::Other)
}

fn pin_link(slot: &Slot, link: &OwnedFd) -> Result<(), Error> {
    let path = slot.egress_path();
    path.parent().map_or(Ok(()), pins::create)?;
    sys::pin(link.as_fd(), &path)
        .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))
}

fn put_clsact(slot: &Slot, ifindex: u32, program: BorrowedFd<'_>) -> Result<(), Error> {
    let path = slot.clsact_path();
    if pins::is_there(&path)? {
        return clsact::put(ifindex, program);
    }
    // The pin only says that the classifier is ours: any program of ours does. It comes
    // first, so that no classifier is left that nobody knows of where this is cut short.
    path.parent().map_or(Ok(()), pins::create)?;
    sys::pin(program, &path)
        .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))?;
    let put = clsact::put(ifindex, program);
    if put.is_err() {
        slot.remove_clsact_pin()?;
    }
    put
}

/// Brings what goes out in line with the generation in `folder`, which has this
/// program for it.
pub(super) fn settle(
    slot: &Slot,
    ifindex: u32,
    folder: &Path,
    program: Option<u32>,
) -> Result<(), Error> {
    let Some(wanted) = program else {
        return remove(slot, ifindex);
    };
    if ifindex == 0 {
        return Ok(());
    }
    let failed = |error: io::Error| {
        Error::io(
            "cannot finish a change of what goes out that was cut short",
            &error,
        )
    };
    let program = || sys::get(&folder.join(EGRESS).join(PROGRAM)).map_err(failed);
    let attached = match attached(slot)? {
        // Somebody has detached it.
        Attached::Tcx { ifindex: here, .. } if here != ifindex => {
            slot.remove_egress_link()?;
            Attached::Nothing
        }
        attached => attached,
    };
    match attached {
        Attached::Tcx { program, .. } if program == wanted => Ok(()),
        Attached::Tcx { link, .. } => {
            sys::link_update(link.as_fd(), program()?.as_fd()).map_err(failed)
        }
        Attached::Clsact if clsact::program(ifindex)? == Some(wanted) => Ok(()),
        Attached::Clsact => clsact::put(ifindex, program()?.as_fd()),
        Attached::Nothing => {
            attach(slot, ifindex, None, program()?.as_fd()).map_err(|error| match error {
                Refused::Kernel(error) => failed(error),
                Refused::Other(error) => error,
            })
        }
    }
}

/// Takes the filter of what leaves an interface off; its index is 0 where it is gone.
pub(super) fn remove(slot: &Slot, ifindex: u32) -> Result<(), Error> {
    if pins::is_there(&slot.clsact_path())? {
        if ifindex != 0 {
            clsact::remove(ifindex)?;
        }
        slot.remove_clsact_pin()?;
    }
    slot.remove_egress_link()
}
