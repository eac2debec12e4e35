//! What this process may do. It gives up what it needs no more, for good: capabilities(7) are
//! a thread's own, and threads that it begins later have no more than it has then.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// To load programs, make maps and read them, attach, and ask netlink.
const KERNEL: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];
/// To read and write files of other users where root is asked to.
const FILES: [Capability; 2] = [
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_DAC_OVERRIDE,
];

/// What is kept, of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// What loading, attaching and reading take.
    Kernel,
    /// What other users' files take.
    Files,
    /// None.
    Nothing,
}

impl Keep {
    const fn capabilities(self) -> &'static [Capability] {
        match self {
            Self::Kernel => &KERNEL,
            Self::Files => &FILES,
            Self::Nothing => &[],
        }
    }
}

/// Why privileges are kept that should not be.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot give up privileges: {0}. Nothing was changed. Does a seccomp filter around nodewall \
     refuse capset(2) or prctl(2)?"
)]
pub(crate) struct Error(CapsError);

impl From<CapsError> for Error {
    fn from(error: CapsError) -> Self {
        Self(error)
    }
}

/// Gives up all capabilities of this thread but these, and whatever a program that is
/// executed might give: of that there is none.
pub(crate) fn give_up_all_but(keep: Keep) -> Result<(), Error> {
    let has = caps::read(None, CapSet::Permitted)?;
    let wanted = keep.capabilities().iter().copied();
    let kept: CapsHashSet = wanted.filter(|one| has.contains(one)).collect();
    // While it may: who has not CAP_SETPCAP can't. By it nothing comes back here, as
    // nothing is executed.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for one in caps::runtime::thread_all_supported() {
            if !kept.contains(&one) {
                caps::drop(None, CapSet::Bounding, one)?;
            }
        }
    }
    prctl::set_no_new_privs().map_err(|error| CapsError::from(error.desc()))?;
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// On threads of their own, as what is given up does not come back.
    #[test]
    fn only_what_is_kept_is_left() {
        for keep in [Keep::Kernel, Keep::Files, Keep::Nothing] {
            thread::spawn(move || {
                let had = caps::read(None, CapSet::Permitted).expect("it is told");
                give_up_all_but(keep).expect("giving up needs no privileges");
                let wanted = keep.capabilities().iter().copied();
                let wanted: CapsHashSet = wanted.filter(|one| had.contains(one)).collect();
                for set in [CapSet::Permitted, CapSet::Effective] {
                    let left = caps::read(None, set).expect("it is told");
                    assert_eq!(left, wanted, "{keep:?} {set:?}");
                }
                for set in [CapSet::Inheritable, CapSet::Ambient] {
                    assert!(caps::read(None, set).expect("it is told").is_empty());
                }
                assert_eq!(prctl::get_no_new_privs(), Ok(true));
                // And from there to less, but not back.
                give_up_all_but(Keep::Kernel).expect("less than none is none");
                let left = caps::read(None, CapSet::Permitted).expect("it is told");
                assert_eq!(left.is_empty(), keep != Keep::Kernel || wanted.is_empty());
            })
            .join()
            .expect("it is so");
        }
    }
}
