//! How long the steps of a verb take, for `-v`.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

/// The steps, in order; one that is done several times is there once.
#[derive(Debug, Default)]
pub(super) struct Times(RefCell<Vec<(&'static str, Duration)>>);

impl Times {
    /// Does the work of a step.
    pub(super) fn of<T>(&self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(step, start.elapsed());
        done
    }

    /// Adds to a step.
    pub(super) fn add(&self, step: &'static str, took: Duration) {
        let mut steps = self.0.borrow_mut();
        match steps.iter_mut().find(|(known, _)| *known == step) {
            Some((_, sum)) => *sum += took,
            None => steps.push((step, took)),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.0.borrow();
        f.write_str("took ")?;
        for (step, took) in steps.iter() {
            write!(f, "{step} {:.1}, ", took.as_secs_f64() * 1e3)?;
        }
        let all: Duration = steps.iter().map(|(_, took)| took).sum();
        write!(f, "together {:.1} ms", all.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_added_up_in_their_order() {
        let times = Times::default();
        assert_eq!(times.of("read", || 7), 7);
        let times = Times::default();
        for (step, ms) in [("read", 2), ("compile", 30), ("read", 1)] {
            times.add(step, Duration::from_millis(ms));
        }
        assert_eq!(
            times.to_string(),
            "took read 3.0, compile 30.0, together 33.0 ms"
        );
    }
}
