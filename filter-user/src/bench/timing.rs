//! Programs against each other and the empty one, on one corpus.

use serde::Serialize;

use crate::datapath::{Corpus, Error, Target};

/// What was measured several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// The median.
    pub median: f64,
    /// A quarter of the measurements is below.
    pub low: f64,
    /// A quarter is above.
    pub high: f64,
}

impl Timing {
    /// Of these measurements.
    #[must_use]
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |part: usize| {
            let last = all.len().saturating_sub(1);
            all.get((last * part + 2) / 4).copied().unwrap_or(0.0)
        };
        Self {
            median: at(2),
            low: at(1),
            high: at(3),
        }
    }
}

/// How long a program takes a packet, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// The empty program behind the same shim.
    pub floor: Timing,
    /// The program.
    pub total: Timing,
    /// What the program took over the empty one right before it.
    pub over_floor: Timing,
}

/// Which frames of a corpus a measurement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// All of them.
    All,
    /// Single ones, spread over the corpus: each alone, a packet after the
    /// other.
    Single {
        /// How many packets of each.
        packets: u32,
    },
}

/// Packets of a run at least.
const LEAST_PACKETS: u32 = 1 << 16;

/// Measures each target against the empty program, in turns: `rounds` rounds,
/// in each of which each runs once.
pub fn compare(
    corpus: &mut Corpus,
    targets: &[Target<'_>],
    frames: Frames,
    rounds: u32,
) -> Result<Vec<Cost>, Error> {
    let mut times = vec![[const { Vec::new() }; 3]; targets.len()];
    for round in 0..=rounds {
        let (range, packets) = match frames {
            // A few would be over before the clock is read.
            Frames::All => {
                let length = corpus.len().max(1);
                (0..corpus.len(), length * LEAST_PACKETS.div_ceil(length))
            }
            Frames::Single { packets } => {
                let spread = u64::from(corpus.len()) * u64::from(round) / (u64::from(rounds) + 1);
                let one = u32::try_from(spread).unwrap_or(0);
                (one..one + 1, packets)
            }
        };
        // Kernels take turns too: who is first meets what others left behind.
        for (target, times) in targets.iter().zip(&mut times) {
            let mut run = |target| {
                let took = corpus.run_some(target, range.clone(), packets)?;
                Ok::<_, Error>(took.ns_per_packet())
            };
            let floor = run(target.floor())?;
            let total = run(*target)?;
            // The first round warms up.
            if round > 0 {
                times[0].push(floor);
                times[1].push(total);
                times[2].push(total - floor);
            }
        }
    }
    let costs = times.into_iter().map(|[floor, total, over_floor]| Cost {
        floor: Timing::of(floor),
        total: Timing::of(total),
        over_floor: Timing::of(over_floor),
    });
    Ok(costs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quarters() {
        let timing = Timing::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(
            timing,
            Timing {
                median: 3.0,
                low: 2.0,
                high: 4.0
            }
        );
        let timing = Timing {
            median: 7.0,
            low: 7.0,
            high: 7.0,
        };
        assert_eq!(Timing::of(vec![7.0]), timing);
        assert_eq!(Timing::of(Vec::new()), Timing::default());
    }
}
