//! What it costs to report a sample of dropped packets, under a flood of them, and to be
//! asked for others than those of the flood.

use anyhow::{Result, ensure};
use filter_common::event::Rate;
use filter_user::bench::{self, Timing};
use filter_user::compile::Image;
use filter_user::datapath::{EventFilter, TestBench};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::classifier::{MEMORY, dropped};
use crate::{Plan, live, progress};

/// A second, a CPU, where a second has 250 jiffies.
const SAMPLE: u32 = 100;

/// The same ten rules that drop everything, without sampling, with it, and with a reader
/// who asks for an address that does not come, in turns.
pub(crate) fn measure(plan: &Plan) -> Result<Value> {
    plan.in_time()?;
    let folder = TempDir::new()?;
    let ruleset = live::ten_rules(folder.path(), "Deny")?;
    let image = Image::compile(&ruleset, MEMORY)?;
    let rate = Rate::per_second(SAMPLE, 250);
    let mut off = TestBench::load(&ruleset, &image)?;
    let mut on = TestBench::load_sampling(&ruleset, &image, rate)?;
    let mut asked = TestBench::load_sampling(&ruleset, &image, rate)?;
    asked.want(&EventFilter {
        src: Some("192.0.2.255/32".parse()?),
        ..EventFilter::default()
    })?;
    let flows = live::plain_flows(1 << 16);
    let count = u32::try_from(flows.len())?;
    let mut corpus = bench::corpus_of_flows(flows.into_iter(), count, false)?;

    let packets = if plan.quick { 500_000 } else { 2_000_000 };
    let before = [dropped(&off)?, dropped(&on)?, dropped(&asked)?];
    let mut times = [const { Vec::new() }; 5];
    let mut events = 0_u64;
    let mut lost = 0;
    let rounds = plan.rounds() * 2;
    for round in 0..=rounds {
        // There and back: what drifts does so for all.
        let mut took = [0.0; 3];
        for who in [0, 1, 2, 2, 1, 0] {
            let target = match who {
                0 => off.target()?,
                1 => on.target()?,
                _ => asked.target()?,
            };
            took[who] += corpus.run_some(target, 0..count, packets)?.ns_per_packet() / 2.0;
        }
        // As `observe` does: a ring that is full would cost less.
        let (reported, lost_so_far) = on.reported()?;
        events += reported.len() as u64;
        lost = lost_so_far;
        if round > 0 {
            times[0].push(took[0]);
            times[1].push(took[1]);
            times[2].push(took[1] - took[0]);
            times[3].push(took[2]);
            times[4].push(took[2] - took[0]);
        }
    }
    let all = 2 * u64::from(packets) * u64::from(rounds + 1);
    let by = [
        dropped(&off)? - before[0],
        dropped(&on)? - before[1],
        dropped(&asked)? - before[2],
    ];
    ensure!(
        by == [all, all, all],
        "of {all} packets each dropped were {by:?}"
    );
    ensure!(events > 0, "nothing was reported");
    let (unasked, lost_unasked) = asked.reported()?;
    ensure!(
        unasked.is_empty() && lost_unasked == 0,
        "what nobody asked for was reported or lost"
    );
    let [off, on, over, asked, over_asked] = times.map(Timing::of);
    progress(&format!(
        "off {:.1} ns, on {:.1} ns: +{:.1} ns; {events} reported; others asked for {:.1} ns: +{:.1} \
         ns",
        off.median, on.median, over.median, asked.median, over_asked.median
    ));
    Ok(json!({
        "a_second": SAMPLE,
        "off_ns": off,
        "on_ns": on,
        "over_ns": over,
        "asked_ns": asked,
        "over_asked_ns": over_asked,
        "packets": all,
        "reported": events,
        "lost": lost,
    }))
}
