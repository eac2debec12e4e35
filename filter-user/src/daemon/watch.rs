//! Tells when files with policies change.
//!
//! Folders are watched, not files: editors put a new file in the place of the old one,
//! and mounted `ConfigMap`s a new folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Watches files and folders.
pub(super) struct Watch {
    given: Vec<PathBuf>,
    recursive: bool,
    /// Files elsewhere that were read too: the lists of sets.
    also: BTreeSet<PathBuf>,
    sender: mpsc::UnboundedSender<Vec<PathBuf>>,
    receiver: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    watcher: RecommendedWatcher,
    change: Option<Change>,
}

/// Something changes.
#[derive(Clone, Copy)]
struct Change {
    /// When it was last seen to.
    last: Instant,
    /// When it has waited for long enough.
    latest: Instant,
}

/// A change is one where nothing more comes for so long.
const QUIET: Duration = Duration::from_millis(100);
/// And at the latest after this.
const PATIENCE: Duration = Duration::from_secs(2);

impl Watch {
    pub(super) fn new(given: &[PathBuf], recursive: bool) -> Result<Self, String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let also = BTreeSet::new();
        let given: Vec<PathBuf> = given.iter().map(|path| absolute(path)).collect();
        Ok(Self {
            watcher: watcher(&sender, &given, recursive, &also)
                .map_err(|error| format!("cannot watch the policies for changes: {error}"))?,
            given,
            recursive,
            also,
            sender,
            receiver,
            change: None,
        })
    }

    /// Watches these files as well; and again what came anew since it was last done.
    pub(super) fn also(&mut self, files: &[PathBuf]) {
        self.also = files.iter().map(|path| absolute(path)).collect();
        // The old one tells until the new one does.
        if let Ok(watcher) = watcher(&self.sender, &self.given, self.recursive, &self.also) {
            self.watcher = watcher;
        }
    }

    /// Waits until something changed that matters, and rests. Whoever stops waiting, and
    /// begins again, misses nothing.
    pub(super) async fn changed(&mut self) {
        loop {
            let now = Instant::now();
            let quiet = match self.change {
                None => None,
                Some(change) if now >= change.latest => break,
                Some(change) => Some((change.last + QUIET).min(change.latest)),
            };
            let received = match quiet {
                None => self.receiver.recv().await,
                Some(quiet) => match timeout_at(quiet, self.receiver.recv()).await {
                    Ok(received) => received,
                    Err(_) => break,
                },
            };
            // The sender lives as long as this.
            let Some(paths) = received else {
                return std::future::pending().await;
            };
            if self.change.is_some() || self.matters(&paths) {
                let last = Instant::now();
                let latest = self.change.map_or(last + PATIENCE, |change| change.latest);
                self.change = Some(Change { last, latest });
            }
        }
        self.change = None;
    }

    fn matters(&self, paths: &[PathBuf]) -> bool {
        paths.iter().any(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A mounted ConfigMap changes by its link `..data`.
            name.starts_with("..")
                || self.also.contains(path)
                || self.given.iter().any(|given| path.starts_with(given))
        })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn watcher(
    sender: &mpsc::UnboundedSender<Vec<PathBuf>>,
    given: &[PathBuf],
    recursive: bool,
    also: &BTreeSet<PathBuf>,
) -> notify::Result<RecommendedWatcher> {
    let sender = sender.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => {
                // Where nobody listens any more, it is the end.
                let _ = sender.send(event.paths);
            }
            // Too many at once, perhaps: all may have changed.
            Err(error) => {
                let _ = sender.send(error.paths);
            }
        }
    })?;
    let mut folders = BTreeSet::new();
    for path in given {
        if path.is_dir() {
            let mode = if recursive {
                RecursiveMode::Recursive
            } else {
                RecursiveMode::NonRecursive
            };
            watcher.watch(path, mode)?;
        }
        // A folder may go and come again.
        folders.extend(path.parent());
    }
    folders.extend(also.iter().filter_map(|path| path.parent()));
    for folder in folders {
        let is_given = given.iter().any(|path| path == folder);
        if !is_given && folder.is_dir() {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
    }
    Ok(watcher)
}
