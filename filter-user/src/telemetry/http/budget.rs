//! The memory that answers take. That of many rules is long, and who asks for it and does
//! not read it has it kept.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::answer::Refused;

/// What is counted at a time.
const UNIT: usize = 1 << 10;
/// Answers that are made at a time: more would not be made sooner.
const MADE_AT_ONCE: usize = 2;

/// How much memory answers may take together until they are taken.
pub(super) struct Budget {
    turns: Semaphore,
    /// In units.
    left: Arc<Semaphore>,
    most: u32,
}

impl Budget {
    /// So many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let most = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self {
            turns: Semaphore::new(MADE_AT_ONCE),
            left: Arc::new(Semaphore::new(bytes / UNIT)),
            most,
        }
    }

    /// Waits until an answer may be made.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// Counts an answer as long as it is kept. One that is longer than all there is needs
    /// all of it.
    pub(super) fn keep(&self, text: Vec<u8>) -> Result<Bytes, Refused> {
        let units = u32::try_from(text.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.min(self.most);
        let place = Arc::clone(&self.left)
            .try_acquire_many_owned(units)
            .map_err(|_| {
                let message = "too many long answers wait for those who asked for them; try \
                               again in a few seconds, and ask for less (/v1/rules?interface=IF)";
                Refused::unavailable(message).again_after("5")
            })?;
        Ok(Bytes::from_owner(Counted {
            text,
            _place: place,
        }))
    }
}

/// An answer, and what it takes of the budget.
struct Counted {
    text: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_counted_until_it_is_taken() {
        let budget = Budget::new(10 * UNIT);
        let first = budget.keep(vec![0; 6 * UNIT]).expect("there is room");
        assert!(budget.keep(vec![0; 4 * UNIT + 1]).is_err());
        let second = budget.keep(vec![0; 4 * UNIT]).expect("there is room");
        assert!(budget.keep(vec![0; 1]).is_err());
        // A part that is not taken keeps all of it.
        let part = first.slice(6 * UNIT - 1..);
        drop((first, second));
        assert!(budget.keep(vec![0; 5 * UNIT]).is_err());
        drop(part);
        // What is longer than all has all.
        let all = budget
            .keep(vec![0; 11 * UNIT])
            .expect("nobody else has any");
        assert!(budget.keep(vec![0; 1]).is_err());
        drop(all);
        budget.keep(vec![0; 10 * UNIT]).expect("there is room");
    }
}
