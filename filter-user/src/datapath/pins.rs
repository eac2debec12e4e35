//! The folder in bpffs that holds everything:
//!
//! ```text
//! <root>/<interface>/link             the XDP link: pinned, so it filters
//! <root>/<interface>/egress           the same of what goes out
//! <root>/<interface>/<program id>/    one generation: program, counters, carried,
//!                                     record; events; flows; egress/ with the same
//! <root>/<interface>/gone/            what is left of one whose removal was cut short
//! ```
//!
//! Which generation is in force is not written anywhere: it is the one whose
//! program the XDP link runs. So the swap of that program is the swap of everything:
//! what egress runs has been changed just before, and is brought in line where
//! that was cut short.

use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

use super::error::Error;
use super::sys::{self, LinkInfo};
use crate::ours;

/// How long anybody waits for a change to finish.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where bpffs is mounted on every Linux.
const BPFFS: &str = "/sys/fs/bpf";

/// Makes sure that `root` is a folder of ours in a bpffs.
pub(super) fn prepare(root: &Path) -> Result<(), Error> {
    mount_bpffs(root)?;
    create(root)
}

/// Makes sure that `root` is, or would be, in a bpffs.
pub(super) fn mount_bpffs(root: &Path) -> Result<(), Error> {
    if !is_in_bpffs(root)? {
        if !root.starts_with(BPFFS) {
            return Err(Error::Failed(format!(
                "{} is not in a BPF file system, so nothing can be pinned there: choose a folder \
                 below {BPFFS} with --pin-root, or mount one with `mount -t bpf bpf FOLDER`",
                root.display()
            )));
        }
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|error| {
            Error::io(
                format_args!(
                    "cannot mount the BPF file system at {BPFFS} (to do it by hand: `mount -t bpf bpf {BPFFS}`)"
                ),
                &error.into(),
            )
        })?;
    }
    Ok(())
}

/// Whether `root` is, or would be, in a bpffs for all that can be told.
pub(super) fn are_seen(root: &Path) -> bool {
    is_in_bpffs(root).unwrap_or(false)
}

/// Whether `root` is, or would be, in a bpffs. That it can't be told is not that it isn't: one
/// mounted over another would hide all that is pinned.
fn is_in_bpffs(root: &Path) -> Result<bool, Error> {
    let failed = |error: &io::Error| {
        Error::io(
            format_args!(
                "cannot tell whether {} is in a BPF file system; nothing was changed",
                root.display()
            ),
            error,
        )
    };
    for path in root.ancestors() {
        if path.try_exists().map_err(|error| failed(&error))? {
            let found = statfs(path).map_err(|error| failed(&error.into()))?;
            return Ok(found.filesystem_type() == BPF_FS_MAGIC);
        }
    }
    Ok(false)
}

/// Creates a folder that only its owner may enter; an existing one must be so.
pub(super) fn create(folder: &Path) -> Result<(), Error> {
    let failed =
        |error: &io::Error| Error::io(format_args!("cannot create {}", folder.display()), error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| failed(&error))
}

/// Removes the root where it holds nothing any more.
pub(super) fn tidy(root: &Path) {
    // Not empty, most of the time; then it stays.
    let _ = fs::remove_dir(root);
}

/// Holds the state still: `exclusive` for a change, shared for a reading that
/// must not see half of one. `None` where there is no state. What is given back holds
/// it until it is closed: to unlock it before is one more call that may fail.
pub(super) fn lock(root: &Path, exclusive: bool) -> Result<Option<File>, Error> {
    let file = match File::open(root) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            // Root may be kept out too, where it has given up to pass over permissions.
            if let Ok(found) = fs::metadata(root) {
                refuse_others(root, &found)?;
            }
            return Err(Error::io(
                format_args!("cannot open {}", root.display()),
                &error,
            ));
        }
    };
    let found = file
        .metadata()
        .map_err(|error| Error::io(format_args!("cannot read {}", root.display()), &error))?;
    refuse_others(root, &found)?;
    // Readers hold it for moments only; a change may take longer.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let locked = if exclusive {
            file.try_lock()
        } else {
            file.try_lock_shared()
        };
        match locked {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Failed(format!(
                    "another nodewall has been changing {} for {} seconds; nothing was changed. Try \
                     again when it is done.",
                    root.display(),
                    PATIENCE.as_secs()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(
                    format_args!("cannot lock {}", root.display()),
                    &error,
                ));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that somebody else may write to holds what he put there: bpffs is anybody's to
/// make folders in (mode 1777). Below one that is ours alone, all is.
fn refuse_others(root: &Path, found: &Metadata) -> Result<(), Error> {
    let Some(why) = ours::doubt(found, ours::ANY) else {
        return Ok(());
    };
    Err(Error::Failed(format!(
        "{path} is not this user's alone ({why}), so what is pinned there may be somebody else's; \
         nothing was read and nothing changed. Look who made it, then remove it or `chown {we} {path} && \
         chmod 0700 {path}`, or pin elsewhere with --pin-root.",
        path = root.display(),
        we = geteuid()
    )))
}

/// The folder of a generation that is being removed.
const GONE: &str = "gone";

/// The pins of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The interface's name when the filter was put on it.
    pub(super) name: String,
    folder: PathBuf,
}

impl Slot {
    /// The slot of `interface`, whether it is there or not.
    pub(super) fn named(root: &Path, interface: &str) -> Self {
        Self {
            name: interface.to_owned(),
            folder: root.join(interface),
        }
    }

    /// Every slot there is, by name.
    pub(super) fn all(root: &Path) -> Result<Vec<Self>, Error> {
        let failed =
            |error: io::Error| Error::io(format_args!("cannot read {}", root.display()), &error);
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut slots = Vec::new();
        for entry in entries {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                slots.push(Self::named(root, &name));
            }
        }
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// Where the link is pinned.
    pub(super) fn link_path(&self) -> PathBuf {
        self.folder.join("link")
    }

    /// Where the link of what goes out is pinned.
    pub(super) fn egress_path(&self) -> PathBuf {
        self.folder.join("egress")
    }

    /// Where a program is pinned if it is attached there without a link.
    pub(super) fn clsact_path(&self) -> PathBuf {
        self.folder.join("clsact")
    }

    /// The folder of the generation with this program.
    pub(super) fn generation(&self, program: u32) -> PathBuf {
        self.folder.join(program.to_string())
    }

    /// Where a link is pinned that is to be in the place of another. In bpffs no name may have
    /// a dot.
    fn new_link_path(&self) -> PathBuf {
        self.folder.join("new_link")
    }

    /// The link and what it holds; `None` where none is pinned. One that has not come to its
    /// place, where that was cut short, filters already.
    pub(super) fn link(&self) -> Result<Option<(OwnedFd, LinkInfo)>, Error> {
        match link(&self.new_link_path())? {
            None => link(&self.link_path()),
            new => Ok(new),
        }
    }

    /// Brings a link to its place, where that was cut short.
    pub(super) fn settle_link(&self) -> Result<(), Error> {
        match fs::rename(self.new_link_path(), self.link_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(
                format_args!("cannot rename {}", self.new_link_path().display()),
                &error,
            )),
            _ => Ok(()),
        }
    }

    /// The same of what goes out.
    pub(super) fn egress(&self) -> Result<Option<(OwnedFd, LinkInfo)>, Error> {
        link(&self.egress_path())
    }

    /// Removes the pins of one generation. It loses its name first: where this is cut short,
    /// nobody must take totals over from what is left.
    pub(super) fn remove_generation(&self, program: u32) -> Result<(), Error> {
        let (folder, gone) = (self.generation(program), self.folder.join(GONE));
        remove(&gone)?;
        match fs::rename(&folder, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(Error::io(
                    format_args!("cannot remove {}", folder.display()),
                    &error,
                ));
            }
            Ok(()) => {}
        }
        remove(&gone)
    }

    /// Removes the pins of all generations but one.
    pub(super) fn remove_generations_except(&self, program: u32) -> Result<(), Error> {
        remove(&self.folder.join(GONE))?;
        let mut generations = self.generations()?;
        generations.retain(|other| *other != program);
        generations
            .into_iter()
            .try_for_each(|other| self.remove_generation(other))
    }

    /// The programs of all generations that are pinned, trials among them.
    pub(super) fn generations(&self) -> Result<Vec<u32>, Error> {
        let failed = |error: io::Error| {
            Error::io(
                format_args!("cannot read {}", self.folder.display()),
                &error,
            )
        };
        let mut generations = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            generations.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(generations)
    }

    /// Removes everything, the links first: with its last pin gone, a program is off
    /// the interface. By the link of what comes in the slot is found, where this is cut
    /// short, so that it goes last.
    pub(super) fn remove(&self) -> Result<(), Error> {
        self.remove_egress_link()?;
        remove_file(&self.link_path())?;
        remove_file(&self.new_link_path())?;
        remove(&self.folder)
    }

    /// Removes the link of what goes out: with its last pin gone, the program is off
    /// the interface.
    pub(super) fn remove_egress_link(&self) -> Result<(), Error> {
        remove_file(&self.egress_path())
    }

    /// Pins the link that makes it filter; in the place of one whose device is gone.
    pub(super) fn pin_link(&self, link: BorrowedFd<'_>) -> Result<(), Error> {
        let (path, new) = (self.link_path(), self.new_link_path());
        let pin = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            sys::pin(link, &new)?;
            fs::rename(&new, &path)
        };
        pin().map_err(|error| {
            // It would go on filtering. Where it is not there, it was not pinned.
            let _ = fs::remove_file(&new);
            Error::io(
                format_args!("cannot pin {}; nothing was changed", path.display()),
                &error,
            )
        })
    }

    /// Removes the pin that says that a classifier is ours.
    pub(super) fn remove_clsact_pin(&self) -> Result<(), Error> {
        remove_file(&self.clsact_path())
    }
}

fn link(path: &Path) -> Result<Option<(OwnedFd, LinkInfo)>, Error> {
    let failed = |error: io::Error| {
        Error::io(
            format_args!("cannot read the pinned link {}", path.display()),
            &error,
        )
    };
    match sys::get(path) {
        Ok(link) => {
            let info = sys::link_info(link.as_fd()).map_err(failed)?;
            Ok(Some((link, info)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether something is there. That it can't be told is not that it isn't: totals would be
/// lost by that.
pub(super) fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists()
        .map_err(|error| Error::io(format_args!("cannot look for {}", path.display()), &error))
}

/// Removes a file, where it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(
            format_args!("cannot remove {}", path.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(
            format_args!("cannot remove {}", folder.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_not_taken_for_another_file_system() {
        assert!(!is_in_bpffs(Path::new("/proc/no/such/folder")).expect("it can be asked"));
        // No file system has names as long as this.
        let root = Path::new("/tmp").join("x".repeat(300));
        let error = mount_bpffs(&root).expect_err("it can't").to_string();
        assert!(error.contains("cannot tell"), "{error}");
        assert!(!are_seen(&root));
    }
}
