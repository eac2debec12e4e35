//! A thread that does what it is given, one thing after the other, with the privileges that
//! whoever began it had then.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

type Job = Box<dyn FnOnce() + Send>;

/// The thread; it ends when nobody can give it anything any more.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Begins it. The name, of 15 bytes at most, is seen in `ps -L`.
    pub(crate) fn begin(name: &str) -> io::Result<Self> {
        let (jobs, given) = channel::<Job>();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || given.into_iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// What `work` gives, done there. Blocks until it is done, and panics where it does.
    pub(crate) fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (give, given) = channel();
        let job = move || {
            // It has this value to itself, and what it shares has locks of its own.
            let done = catch_unwind(AssertUnwindSafe(work));
            // Who asked may have gone.
            let _ = give.send(done);
        };
        self.jobs
            .send(Box::new(job))
            .expect("the thread lives as long as it may be given something");
        match given.recv().expect("each job gives what came of it") {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_callers_and_it_goes_on() {
        let worker = Worker::begin("works").expect("a thread");
        let caller = thread::current().id();
        let there = worker.call(|| thread::current().id());
        assert_ne!(there, caller);
        let again = worker.clone();
        let panicked = thread::spawn(move || again.call(|| panic!("a bug")));
        let panic = panicked.join().expect_err("it panicked");
        assert_eq!(panic.downcast_ref(), Some(&"a bug"));
        assert_eq!(worker.call(|| thread::current().id()), there);
    }
}
