//! What return traffic costs: packets that the rules drop, with flows asked about each
//! and without.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use filter_user::bench::Timing;
use filter_user::bench::{self, Flow, V4_FRAME};
use filter_user::compile::Image;
use filter_user::datapath::{Compiled, DEFAULT_MAX_FLOWS, TestBench, TestPair};
use filter_user::ruleset::{Action, Direction, Ruleset};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::classifier::{MEMORY, dropped};
use crate::{Plan, live, progress};

/// Flows that are known while packets of none of them come.
const KNOWN: usize = 50_000;
/// Packets of flows that are known.
const ANSWERS: usize = 1 << 14;

/// The same ten rules that drop everything, in turns: without flows, with a table in
/// which the packets are not, and with one in which they are.
pub(crate) fn measure(plan: &Plan) -> Result<Value> {
    plan.in_time()?;
    let folder = TempDir::new()?;
    let ingress = live::ten_rules(folder.path(), "Deny")?;
    let egress = Ruleset {
        direction: Direction::Egress,
        rules: Vec::new(),
        default: Action::Allow,
        ..ingress.clone()
    };
    let images = [
        Image::compile(&ingress, MEMORY)?,
        Image::compile(&egress, MEMORY)?,
    ];
    let pair = || {
        let side = |ruleset, image| Compiled { ruleset, image };
        let (ingress, egress) = (side(&ingress, &images[0]), side(&egress, &images[1]));
        TestPair::load(ingress, egress, DEFAULT_MAX_FLOWS)
    };
    let flows = live::plain_flows(1 << 16);
    let count = u32::try_from(flows.len())?;
    let mut off = TestBench::load(&ingress, &images[0])?;
    let mut miss = pair()?;
    begin(&mut miss, (0..KNOWN).map(elsewhere))?;
    let answered = &flows[..ANSWERS];
    let mut hit = pair()?;
    begin(&mut hit, answered.iter().map(reversed))?;
    let answers = u32::try_from(ANSWERS)?;
    let mut all = bench::corpus_of_flows(flows.iter().copied(), count, false)?;
    let mut known = bench::corpus_of_flows(answered.iter().copied(), answers, false)?;

    let packets = if plan.quick { 500_000 } else { 2_000_000 };
    let before = [
        dropped(&off)?,
        dropped(miss.ingress())?,
        dropped(hit.ingress())?,
    ];
    let mut times = [const { Vec::new() }; 5];
    let rounds = plan.rounds();
    for round in 0..=rounds {
        // Forth and back: what drifts does so for all.
        let mut took = [0.0; 3];
        for who in [0, 1, 2, 2, 1, 0] {
            let ran = match who {
                0 => all.run_some(off.target()?, 0..count, packets)?,
                1 => all.run_some(miss.ingress().target()?, 0..count, packets)?,
                _ => known.run_some(hit.ingress().target()?, 0..answers, packets)?,
            };
            took[who] += ran.ns_per_packet() / 2.0;
        }
        if round > 0 {
            let [off, miss, hit] = took;
            let values = [off, miss, hit, miss - off, hit - off];
            for (times, value) in times.iter_mut().zip(values) {
                times.push(value);
            }
        }
    }
    let run = 2 * u64::from(packets) * u64::from(rounds + 1);
    let by = [
        dropped(&off)? - before[0],
        dropped(miss.ingress())? - before[1],
        dropped(hit.ingress())? - before[2],
    ];
    ensure!(
        by == [run, run, 0],
        "of {run} packets each dropped were {by:?}"
    );
    let [off, miss, hit, over_miss, over_hit] = times.map(Timing::of);
    progress(&format!(
        "without flows {:.1} ns; of no flow +{:.1} ns; of a known one +{:.1} ns",
        off.median, over_miss.median, over_hit.median
    ));
    Ok(json!({
        "off_ns": off,
        "miss_ns": miss,
        "hit_ns": hit,
        "over_miss_ns": over_miss,
        "over_hit_ns": over_hit,
        "known": KNOWN,
        "answered": ANSWERS,
        "packets": run,
    }))
}

/// Has the host begin flows.
fn begin(pair: &mut TestPair, flows: impl Iterator<Item = Flow>) -> Result<()> {
    let mut frame = vec![0; V4_FRAME];
    for flow in flows {
        flow.write(&mut frame);
        pair.judge(Direction::Egress, &frame)?;
    }
    Ok(())
}

fn reversed(flow: &Flow) -> Flow {
    Flow {
        src: flow.dst,
        dst: flow.src,
        sport: flow.dport,
        dport: flow.sport,
        ..*flow
    }
}

/// A flow that no measured packet is of.
fn elsewhere(index: usize) -> Flow {
    let bits = u32::try_from(index).unwrap_or_default();
    Flow {
        src: Ipv4Addr::new(192, 0, 2, 1).into(),
        dst: IpAddr::V4(Ipv4Addr::from_bits(203 << 24 | bits)),
        proto: 17,
        sport: 50_000,
        dport: 53,
    }
}
