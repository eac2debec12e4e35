//! A whole day at the site, in a minute: all clients, in any order, several at a
//! time, again and again.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Client, Expect, Outcome, Site};

/// How the day goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often each client has its turn.
    pub rounds: usize,
    /// How many are at it at the same time.
    pub at_once: usize,
    /// The longest pause before a turn.
    pub pause: Duration,
    /// Orders and pauses come from this.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rounds: 3,
            at_once: 8,
            pause: Duration::from_millis(400),
            seed: 7,
        }
    }
}

/// What became of one client.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What was to become of it.
    pub expect: Expect,
    /// How often it got what it wanted.
    pub worked: usize,
    /// How often it did not.
    pub failed: usize,
    /// What it saw when it last failed.
    pub seen: Option<String>,
    /// Its longest turn.
    pub longest: Duration,
}

impl Row {
    /// Whether every turn ended as expected.
    #[must_use]
    pub const fn as_expected(&self) -> bool {
        match self.expect {
            Expect::Works => self.failed == 0,
            Expect::Refused => self.worked == 0,
        }
    }
}

/// What became of all clients.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each client, in their order.
    pub rows: Vec<Row>,
    /// How long it all took.
    pub time: Duration,
}

impl Report {
    /// Clients that some turn of which ended otherwise than expected.
    #[must_use]
    pub fn surprises(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| !row.as_expected()).collect()
    }

    /// Clients that some turn of which failed, whatever was expected.
    #[must_use]
    pub fn failures(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.failed > 0).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or(0).max("client".len());
        writeln!(
            f,
            "{:width$}  {:7}  {:>6}  {:>6}  {:>9}",
            "client", "expect", "worked", "failed", "longest"
        )?;
        for row in &self.rows {
            write!(
                f,
                "{:width$}  {:7}  {:>6}  {:>6}  {:>7.2} s",
                row.name,
                row.expect,
                row.worked,
                row.failed,
                row.longest.as_secs_f64()
            )?;
            if !row.as_expected() {
                f.write_str("  <-- not as expected")?;
            }
            writeln!(f)?;
            if let Some(seen) = &row.seen
                && !row.as_expected()
            {
                for line in seen.trim().lines().take(6) {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        write!(
            f,
            "{} clients, {} not as expected, in {:.1} s",
            self.rows.len(),
            self.surprises().len(),
            self.time.as_secs_f64()
        )
    }
}

/// Lets all clients at it. An error is the lab's; what the clients saw is in the
/// report.
pub fn day(site: &Site, clients: &[Client], plan: &Plan) -> Result<Report> {
    let rows: Vec<Mutex<Row>> = clients
        .iter()
        .map(|client| Mutex::new(blank(client)))
        .collect();
    let turns = turns(clients.len(), plan);
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let work = || -> Result<()> {
        while let Some(&(index, pause)) = turns.get(next.fetch_add(1, Ordering::Relaxed)) {
            thread::sleep(pause);
            let client = &clients[index];
            let (outcome, took) = client
                .run(site)
                .with_context(|| format!("the client \"{}\" cannot be run", client.name))?;
            let mut row = rows[index].lock().unwrap_or_else(PoisonError::into_inner);
            row.longest = row.longest.max(took);
            match outcome {
                Outcome::Worked => row.worked += 1,
                Outcome::Failed(seen) => {
                    row.failed += 1;
                    row.seen = Some(seen);
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.at_once.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(outcome) => outcome?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    Ok(Report {
        rows: rows
            .into_iter()
            .map(|row| row.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect(),
        time: began.elapsed(),
    })
}

fn blank(client: &Client) -> Row {
    Row {
        name: client.name.clone(),
        expect: client.expect,
        worked: 0,
        failed: 0,
        seen: None,
        longest: Duration::ZERO,
    }
}

/// Who has a turn, and the pause before it: each once in each round.
fn turns(clients: usize, plan: &Plan) -> Vec<(usize, Duration)> {
    let mut random = Random(plan.seed);
    let mut turns = Vec::with_capacity(clients * plan.rounds);
    for _ in 0..plan.rounds {
        let mut round: Vec<usize> = (0..clients).collect();
        for last in (1..clients).rev() {
            round.swap(last, random.below(last + 1));
        }
        for client in round {
            let thousandths = u32::try_from(random.below(1000)).unwrap_or(0);
            turns.push((client, plan.pause * thousandths / 1000));
        }
    }
    turns
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        usize::try_from(word % end as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_one_turn_in_each_round() {
        let plan = Plan::default();
        let turns = turns(50, &plan);
        for round in turns.chunks(50) {
            let mut who: Vec<usize> = round.iter().map(|(client, _)| *client).collect();
            assert!(!who.is_sorted());
            who.sort_unstable();
            assert_eq!(who, (0..50).collect::<Vec<_>>());
        }
        assert!(turns.iter().all(|(_, pause)| *pause < plan.pause));
    }
}
