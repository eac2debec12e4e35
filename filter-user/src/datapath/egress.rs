//! The filter of what leaves an interface: a link at TCX, pinned like that of XDP.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use super::error::Error;
use super::interface::Interface;
use super::pins::Slot;
use super::{EGRESS, PROGRAM, sys};

/// Where the program of what goes out is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressHook {
    /// At TCX, by a link (Linux 6.6 and newer).
    Tcx,
}

impl EgressHook {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
        }
    }
}

/// Where it is attached in this slot.
pub(super) const fn hook(_: &Slot) -> EgressHook {
    EgressHook::Tcx
}

/// Puts a program in force, in the place of the one that is, if one is.
pub(super) fn put(
    interface: &Interface,
    slot: &Slot,
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
    if let Some((link, info)) = slot.egress()? {
        if info.ifindex == interface.index {
            return sys::link_update(link.as_fd(), program).map_err(|error| failed(&error));
        }
        // Its interface is gone.
        slot.remove_egress()?;
    }
    let link = sys::link_create_egress(program, interface.index).map_err(|error| failed(&error))?;
    let path = slot.egress_path();
    path.parent()
        .map_or(Ok(()), super::pins::create)
        .and_then(|()| {
            sys::pin(link.as_fd(), &path)
                .map_err(|error| Error::io(format_args!("cannot pin {}", path.display()), &error))
        })
}

/// Brings what goes out in line with the generation in `folder`, which has this
/// program for it.
pub(super) fn settle(
    slot: &Slot,
    ifindex: u32,
    folder: &Path,
    program: Option<u32>,
) -> Result<(), Error> {
    let present = slot.egress()?;
    let Some(program) = program else {
        return slot.remove_egress();
    };
    if ifindex == 0
        || present
            .as_ref()
            .is_some_and(|(_, info)| info.program == program)
    {
        return Ok(());
    }
    let path = folder.join(EGRESS).join(PROGRAM);
    let failed = |error: io::Error| {
        Error::io(
            "cannot finish a change of what goes out that was cut short",
            &error,
        )
    };
    let program = sys::get(&path).map_err(failed)?;
    if let Some((link, _)) = present {
        return sys::link_update(link.as_fd(), program.as_fd()).map_err(failed);
    }
    let link = sys::link_create_egress(program.as_fd(), ifindex).map_err(failed)?;
    sys::pin(link.as_fd(), &slot.egress_path()).map_err(failed)
}
