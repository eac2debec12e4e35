//! Whether somebody wants an end: Ctrl-C, or a signal that asks for one.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::Failure;

/// From now on these signals end nothing, but are seen here: what is open can be closed
/// first.
pub(super) struct Ended(SignalFd);

/// Ctrl-C, and what a service manager sends.
pub(super) const ASKED: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

impl Ended {
    /// Begins to look for these.
    pub(super) fn by(signals: impl IntoIterator<Item = Signal>) -> Result<Self, Failure> {
        let failed =
            |error: Errno| Failure::failed(format_args!("cannot wait for signals: {error}"));
        let signals: SigSet = signals.into_iter().collect();
        signals.thread_block().map_err(failed)?;
        let signals =
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        signals.map(Self).map_err(failed)
    }

    /// Whether such a signal came.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Ended {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
