//! Whether somebody wants an end: Ctrl-C, or a signal that asks for one.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::Failure;

/// From now on the signals that ask for an end end nothing, but are seen here: what
/// is open can be closed first.
pub(super) struct Ended(SignalFd);

impl Ended {
    /// Begins to look.
    pub(super) fn new() -> Result<Self, Failure> {
        let failed =
            |error: Errno| Failure::failed(format_args!("cannot wait for signals: {error}"));
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
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
