//! The daemon's folder, which one daemon has at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::ours;

/// The file that is locked, in the daemon's folder.
pub(super) const LOCK: &str = "run.lock";

/// Held for as long as the daemon runs.
pub(super) struct RunLock {
    folder: PathBuf,
    /// Locked until it is closed.
    _file: File,
}

impl RunLock {
    /// Makes the folder, and takes it.
    pub(super) fn take(folder: &Path) -> Result<Self, String> {
        let failed = |what: &str, error: &io::Error| {
            format!(
                "cannot {what} {}: {error}. Choose a folder of your own with --run-dir.",
                folder.display()
            )
        };
        // Who is not root is not told what goes over the wires.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed("create", &error))?;
        let found = fs::metadata(folder).map_err(|error| failed("read", &error))?;
        if let Some(why) = ours::doubt(&found, ours::WRITE) {
            return Err(format!(
                "{} is not this user's alone ({why}), so others could take the place of this daemon's \
                 files. Remove it, or choose a folder of your own with --run-dir.",
                folder.display()
            ));
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(|error| failed("open the lock in", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // It may be writing it just now.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = match holder {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                return Err(format!(
                    "another `nodewall run`{holder} has {}; end that one first, or give this one a \
                     folder of its own with --run-dir",
                    folder.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        let written = file.set_len(0).and_then(|()| {
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        });
        written.map_err(|error| failed("write to the lock in", &error))?;
        Ok(Self {
            folder: folder.to_owned(),
            _file: file,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}
