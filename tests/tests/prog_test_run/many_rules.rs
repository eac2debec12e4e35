//! Exact counters of very many rules, on each CPU.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use filter_user::ruleset::{Action, Match};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tests::packet::{Ipv4, Tcp};

use crate::rules::{deny, ruleset};
use crate::{Filter, denied_by, plain};

const RULES: u32 = 100_000;

/// The address that only this rule matches.
fn address(rule: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + rule * 3)
}

/// The CPUs that this thread may run on.
fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let all = 0..CpuSet::count();
    all.filter(|&cpu| allowed.is_set(cpu).unwrap()).collect()
}

fn run_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
}

#[test]
fn the_first_the_middle_and_the_last_of_100_000() {
    let rules = (0..RULES).map(|rule| {
        let mut matches = Match::default();
        matches.src.nets.push(IpAddr::from(address(rule)).into());
        deny(matches)
    });
    let Some(Filter(mut filter)) = Filter::load(&ruleset(Action::Allow, rules)) else {
        return;
    };
    // Rule, packets on each CPU, bytes of each: all different.
    let wanted = [
        (0, 3, 60),
        (1, 1, 61),
        (RULES / 2, 5, 600),
        (RULES - 2, 2, 90),
        (RULES - 1, 4, 1_514),
    ];
    let before = filter.stats().unwrap();
    let cpus = cpus();
    for &cpu in &cpus {
        run_on(cpu);
        for (rule, packets, bytes) in wanted {
            let mut frame = plain(&Ipv4::from(address(rule)).carry(&Tcp::to(80)));
            frame.resize(bytes, 0);
            for _ in 0..packets {
                assert_eq!(filter.run(&frame).unwrap(), denied_by(rule));
            }
        }
    }

    let start = Instant::now();
    let stats = filter.stats().unwrap();
    println!("counters of {RULES} rules read in {:?}", start.elapsed());
    assert_eq!(stats.of_rules.len(), RULES as usize);
    let copies = cpus.len() as u64;
    for (index, count) in (0..).zip(&stats.of_rules) {
        let (_, packets, bytes) = wanted
            .into_iter()
            .find(|(rule, ..)| *rule == index)
            .unwrap_or_default();
        let counted = (count.packets, count.bytes);
        assert_eq!(
            counted,
            (packets * copies, packets * copies * bytes as u64),
            "rule {index}"
        );
    }
    let sum = |stats: &filter_user::datapath::Stats| -> u64 {
        stats.reasons.iter().map(|(.., count)| count.packets).sum()
    };
    assert_eq!(sum(&stats) - sum(&before), 15 * copies);
}
