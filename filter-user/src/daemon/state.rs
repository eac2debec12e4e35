//! How a daemon fares, for `nodewall status`: a file in its folder, which counts for as
//! long as the daemon holds the folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lock::LOCK;
use crate::telemetry::live::Live;

const FILE: &str = "state.json";

/// What a daemon says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whose filters it keeps.
    pin_root: PathBuf,
    /// As in `/v1/status`.
    pub(crate) daemon: Value,
}

/// Writes how the daemon fares.
pub(super) fn write(folder: &Path, pin_root: &Path, live: &Live) -> io::Result<()> {
    let state = State {
        pin_root: pin_root.to_owned(),
        daemon: live.daemon(0),
    };
    let new = folder.join("state.json.new");
    fs::write(&new, serde_json::to_vec(&state)?)?;
    fs::rename(new, folder.join(FILE))
}

/// How the daemon fares that keeps these filters; `None` where there is none, or it
/// can't be told.
pub(crate) fn read(folder: &Path, pin_root: &Path) -> Option<State> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    let locked = lock.try_lock_shared();
    // Where nobody holds it, what is there was left behind.
    if !matches!(locked, Err(TryLockError::WouldBlock)) {
        return None;
    }
    let state: State = serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()?;
    (state.pin_root == pin_root).then_some(state)
}
