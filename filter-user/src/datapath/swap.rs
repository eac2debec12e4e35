//! How long it takes until a program is in force: measured on a veth pair in
//! a network namespace that goes away with the thread that made it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;

use super::corpus::{Corpus, Target};
use super::error::Error;
use super::{interface, sys};

const NAMES: [&str; 2] = ["nwbench0", "nwbench1"];

impl Corpus {
    /// Times swaps of the empty program for `target` on a link, in native mode
    /// on an interface that nobody else sees. Both take fragments, or neither.
    pub fn time_swaps(&mut self, target: Target<'_>, swaps: u32) -> Result<Vec<Duration>, Error> {
        let empty = self.empty(target.floor())?;
        let Some(program) = target.program else {
            return Err(Error::Failed(
                "the empty program is in force already".to_owned(),
            ));
        };
        // The namespace is this thread's alone: no name, no trace.
        std::thread::scope(|scope| {
            scope
                .spawn(|| time(empty.as_fd(), program, swaps))
                .join()
                .unwrap_or_else(|_| Err(Error::Failed("the swapping thread panicked".to_owned())))
        })
    }
}

fn time(
    empty: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    swaps: u32,
) -> Result<Vec<Duration>, Error> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| Error::io("cannot make a network namespace", &error.into()))?;
    interface::ask("the measured interfaces", async |handle| {
        handle
            .link()
            .add(LinkVeth::new(NAMES[0], NAMES[1]).build())
            .execute()
            .await
    })?;
    let index = interface::by_name(NAMES[0])?.index;
    let failed = |error: &std::io::Error| Error::io("cannot swap a program", error);
    let link = sys::link_create(empty, index, sys::XDP_DRV_MODE).map_err(|error| failed(&error))?;
    let mut times = Vec::new();
    for _ in 0..swaps {
        let began = Instant::now();
        sys::link_update(link.as_fd(), program).map_err(|error| failed(&error))?;
        times.push(began.elapsed());
        sys::link_update(link.as_fd(), empty).map_err(|error| failed(&error))?;
    }
    Ok(times)
}
