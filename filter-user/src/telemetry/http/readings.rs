//! Readings of what the kernel counts: one at a time, however many ask for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::answer::Refused;

/// Who can wait for a reading at a time. More than there are connections.
const WAITING: usize = 1 << 10;

/// Gives readings that began after they were asked for, shared by all who wait: the
/// kernel is asked twice for any number of readers, not once for each.
pub(super) struct Readings<T> {
    asked: mpsc::Sender<oneshot::Sender<Arc<T>>>,
    patience: Duration,
}

impl<T: Send + Sync + 'static> Readings<T> {
    /// Readings by `read`, which may take its time: it runs on a thread of its own. Who
    /// has waited for `patience` is told so.
    pub(super) fn new(read: impl Fn() -> T + Send + Sync + 'static, patience: Duration) -> Self {
        let (asked, asking) = mpsc::channel(WAITING);
        tokio::spawn(give(asking, Arc::new(read)));
        Self { asked, patience }
    }

    /// What is true now.
    pub(super) async fn now(&self) -> Result<Arc<T>, Refused> {
        let (give, given) = oneshot::channel();
        let busy = |_| {
            let message = "the counters can't be read at present: an earlier reading does not end";
            Refused::unavailable(message).again_after("5")
        };
        self.asked.try_send(give).map_err(busy)?;
        match timeout(self.patience, given).await {
            Ok(Ok(reading)) => Ok(reading),
            Ok(Err(_)) => {
                let message = "the counters can't be read: the reading was cut short by a bug";
                Err(Refused::unavailable(message).again_after("5"))
            }
            Err(_) => Err(Refused::unavailable(format_args!(
                "the counters could not be read within {} s; the machine may be overloaded, or \
                 another nodewall holds the lock of the pin folder",
                self.patience.as_secs_f64()
            ))
            .again_after("5")),
        }
    }
}

async fn give<T: Send + Sync + 'static>(
    mut asking: mpsc::Receiver<oneshot::Sender<Arc<T>>>,
    read: Arc<impl Fn() -> T + Send + Sync + 'static>,
) {
    let mut waiting = Vec::new();
    // Who asks while a reading runs gets the next one: this one may be older.
    while asking.recv_many(&mut waiting, WAITING).await > 0 {
        let read = Arc::clone(&read);
        let reading = spawn_blocking(move || read()).await.map(Arc::new);
        for asked in waiting.drain(..) {
            // Where it panicked they see that nothing comes. Who has gone needs nothing.
            if let Ok(reading) = &reading {
                asked.send(Arc::clone(reading)).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    /// Counts readings; each takes 50 ms.
    fn slow() -> (Arc<AtomicU64>, Readings<u64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let read = move || {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(50));
            number
        };
        (count, Readings::new(read, Duration::from_secs(5)))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn many_share_a_reading_that_began_after_they_asked() {
        let (count, readings) = slow();
        let readings = Arc::new(readings);
        let ask = |_| {
            let (readings, count) = (Arc::clone(&readings), Arc::clone(&count));
            tokio::spawn(async move {
                let begun = count.load(Ordering::SeqCst);
                let reading = readings.now().await.expect("a reading");
                assert!(*reading >= begun, "reading {reading} began before {begun}");
            })
        };
        let first: Vec<_> = (0..50).map(ask).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second: Vec<_> = (0..50).map(ask).collect();
        for asked in first.into_iter().chain(second) {
            asked.await.expect("it is given");
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_stuck_is_told_to_each_and_ends() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Mutex::new(ended);
        let read = move || ended.lock().is_ok_and(|ended| ended.recv().is_ok());
        let readings = Readings::new(read, Duration::from_millis(100));
        for _ in 0..2 {
            let refused = readings.now().await.expect_err("it is stuck");
            assert!(
                refused.message().contains("within 0.1 s"),
                "{}",
                refused.message()
            );
        }
        // What is given up is not read again: one is for all who came meanwhile.
        end.send(()).and_then(|()| end.send(())).expect("it waits");
        let waiting = readings.now();
        end.send(()).expect("it waits");
        assert!(*waiting.await.expect("a reading"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_panic_is_told_and_it_goes_on() {
        let count = AtomicU64::new(0);
        let read = move || assert!(count.fetch_add(1, Ordering::SeqCst) > 0, "a bug");
        let readings = Readings::new(read, Duration::from_secs(5));
        let refused = readings.now().await.expect_err("it panicked");
        assert!(refused.message().contains("a bug"), "{}", refused.message());
        readings.now().await.expect("it goes on");
    }
}
