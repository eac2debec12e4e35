//! The classifier alone, in memory: `BPF_PROG_TEST_RUN` behind the shim.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use filter_user::bench::{self, Cost, Effort, Flow, Frames, Random, Report, Source};
use filter_user::compile::Image;
use filter_user::datapath::TestBench;
use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::xdp_filter::{Features, XdpFilter};
use crate::{Plan, blocklist, policy, progress};

/// What the tables of a ruleset may take.
pub(crate) const MEMORY: u64 = 512 << 20;

fn effort(plan: &Plan) -> Effort {
    Effort {
        rounds: plan.rounds(),
        ..Effort::default()
    }
}

/// A row of a table: the ruleset, and what was measured or why not.
fn row(name: &str, size: usize, plan: &Plan, file: &Path) -> Value {
    let ruleset = plan.in_time().and_then(|()| policy::ruleset(file));
    let measured = ruleset.and_then(|ruleset| {
        let source = Source::Random {
            flows: bench::enough_flows(bench::prefixes(&ruleset)),
            seed: 1,
        };
        Ok(bench::measure(&ruleset, MEMORY, &source, effort(plan))?)
    });
    match measured {
        Ok(report) => {
            say(name, &report);
            json!({ "name": name, "size": size, "measured": report })
        }
        Err(error) => {
            progress(&format!("{name}: {error:#}"));
            json!({ "name": name, "size": size, "failed": format!("{error:#}") })
        }
    }
}

fn say(name: &str, report: &Report) {
    progress(&format!(
        "{name}: warm +{:.1} ns, random +{:.1} ns, {} KiB, compile {:.0} ms, load {:.0} ms",
        report.warm.over_floor.median,
        report.random.over_floor.median,
        report.memory.maps_bytes >> 10,
        report.compile_ms,
        report.load_ms
    ));
}

/// Sources in a list, from one to a million, of both IP versions; and real ones.
pub(crate) fn blocklists(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let sizes: &[usize] = if plan.quick {
        &[1, 1_000, 100_000]
    } else {
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]
    };
    let mut rows = Vec::new();
    for (version, v6) in [("IPv4", false), ("IPv6", true)] {
        for &size in sizes {
            let nets = blocklist::random(size, v6, 1);
            let file = policy::blocklist(folder.path(), "list", &nets, "Allow")?;
            let mut row = row(&format!("{version} {size}"), size, plan, &file);
            row["version"] = json!(version);
            rows.push(row);
        }
    }
    let mut real = Vec::new();
    for (version, v6) in [("IPv4", false), ("IPv6", true)] {
        let file = geoip(folder.path(), v6);
        match file {
            Ok((file, size)) => {
                let name = format!("tor-geoipdb {version}, a rule a country");
                let mut row = row(&name, size, plan, &file);
                row["version"] = json!(version);
                real.push(row);
            }
            Err(error) => real.push(json!({
                "name": format!("tor-geoipdb {version}"),
                "failed": format!("{error:#}"),
            })),
        }
    }
    Ok(json!({ "random": rows, "real": real }))
}

/// A rule a country, every other one denied: the classes of half the world
/// lie beside each other.
fn geoip(folder: &Path, v6: bool) -> Result<(std::path::PathBuf, usize)> {
    use std::fmt::Write as _;

    let countries = blocklist::countries(v6)?;
    let mut documents = String::new();
    let mut rules = String::new();
    let mut size = 0;
    let named = countries
        .iter()
        .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    for (index, (country, nets)) in named.enumerate() {
        let name = country.to_lowercase();
        size += nets.len();
        let list = blocklist::lines(nets, IpNet::to_string);
        std::fs::write(folder.join(format!("{name}.txt")), list)?;
        write!(
            documents,
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: {name}\n  \
             labels:\n    country: {name}\n  annotations:\n    nodewall.io/nets-from: {name}.txt\n---\n"
        )?;
        let action = if index % 2 == 0 { "Deny" } else { "Allow" };
        write!(
            rules,
            "  - action: {action}\n    source:\n      selector: country == '{name}'\n"
        )?;
    }
    let file = folder.join("geoip.yaml");
    std::fs::write(
        &file,
        format!(
            "{documents}apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  \
             name: countries\nspec:\n  selector: all()\n  preDNAT: true\n  applyOnForward: true\n  \
             types: [Ingress]\n  ingress:\n{rules}"
        ),
    )?;
    Ok((file, size))
}

/// Five-tuple rules with the structure of `ClassBench`.
pub(crate) fn acls(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let wanted: &[(&str, usize)] = if plan.quick {
        &[("acl", 1_000)]
    } else {
        &[
            ("acl", 1_000),
            ("acl", 10_000),
            ("acl", 100_000),
            ("fw", 1_000),
            ("fw", 10_000),
            ("ipc", 1_000),
            ("ipc", 10_000),
            ("ipc", 100_000),
        ]
    };
    let mut rows = Vec::new();
    for &(flavour, size) in wanted {
        let name = format!("{flavour} {size}");
        let file = folder.path().join(format!("{flavour}.yaml"));
        let made = crate::tools::synthetic(flavour, size, 1)
            .and_then(|text| std::fs::write(&file, text).context("cannot write a policy"));
        let mut row = match made {
            Ok(()) => row(&name, size, plan, &file),
            Err(error) => json!({ "name": name, "size": size, "failed": format!("{error:#}") }),
        };
        row["flavour"] = json!(flavour);
        rows.push(row);
    }
    Ok(json!(rows))
}

/// nodewall beside xdp-filter: the same frames, the same answers, in turns. It
/// knows no networks, only addresses, 10,000 at most.
pub(crate) fn side_by_side(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let sizes: &[usize] = if plan.quick {
        &[1, 1_000]
    } else {
        &[1, 10, 100, 1_000, 10_000]
    };
    let mut rows = Vec::new();
    for (version, v6) in [("IPv4", false), ("IPv6", true)] {
        for &size in sizes {
            let mut row = match beside_xdp_filter(plan, folder.path(), size, v6) {
                Ok(row) => row,
                Err(error) => json!({ "failed": format!("{error:#}") }),
            };
            row["version"] = json!(version);
            row["size"] = json!(size);
            rows.push(row);
        }
    }
    Ok(json!(rows))
}

/// Half of the flows come from an address that is blocked, half from none.
fn flows_for(nets: &[IpNet], addresses: &[IpAddr], v6: bool, count: usize) -> Vec<Flow> {
    let mut random = Random::new(2);
    let dst = if v6 {
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
    } else {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))
    };
    // From other networks of the same kind.
    let pool = blocklist::addresses(&blocklist::random(20_000, v6, 3), 3);
    let lengths: BTreeSet<u8> = nets.iter().map(IpNet::prefix_len).collect();
    let known: HashSet<IpNet> = nets.iter().copied().collect();
    let blocked = |address: IpAddr| {
        let net = |length: &u8| IpNet::new(address, *length).map(|net| net.trunc());
        lengths
            .iter()
            .any(|length| net(length).is_ok_and(|net| known.contains(&net)))
    };
    (0..count)
        .map(|index| {
            let hit = random.pick(addresses).copied().filter(|_| index % 2 == 0);
            let src = hit.unwrap_or_else(|| {
                loop {
                    // As near to the networks as any: in their part of the space.
                    let address = random.pick(&pool).copied().unwrap_or(dst);
                    if !blocked(address) {
                        break address;
                    }
                }
            });
            Flow {
                src,
                dst,
                proto: if random.one_in(2) { 6 } else { 17 },
                sport: u16::try_from(1_024 + random.below(60_000)).unwrap_or(1_024),
                dport: u16::try_from(30_000 + random.below(2_768)).unwrap_or(30_000),
            }
        })
        .collect()
}

fn beside_xdp_filter(plan: &Plan, folder: &Path, size: usize, v6: bool) -> Result<Value> {
    plan.in_time()?;
    let nets = blocklist::random(size, v6, 1);
    let addresses = blocklist::addresses(&nets, 1);
    let flows = flows_for(&nets, &addresses, v6, 1 << 17);
    let packets = flows.len() as u64;
    let hits = packets / 2;

    let file = policy::blocklist(folder, "list", &nets, "Allow")?;
    let ruleset = policy::ruleset(&file)?;
    let image = Image::compile(&ruleset, MEMORY)?;
    let mut ours = TestBench::load(&ruleset, &image)?;
    let all = XdpFilter::load(Features::All, &addresses)?;
    let addresses_only = XdpFilter::load(Features::Addresses, &addresses)?;

    let count = u32::try_from(flows.len())?;
    let mut corpus = bench::corpus_of_flows(flows.into_iter(), count, v6)?;
    // Each must count exactly the blocked packets as dropped, before.
    let before = dropped(&ours)?;
    corpus.run(ours.target()?)?;
    let by_ours = dropped(&ours)? - before;
    let mut proofs = vec![by_ours];
    for peer in [&all, &addresses_only] {
        let before = peer.dropped()?;
        corpus.run(peer.target())?;
        proofs.push(peer.dropped()? - before);
    }
    anyhow::ensure!(
        proofs.iter().all(|dropped| *dropped == hits),
        "of {packets} packets {hits} are blocked, and dropped were: {proofs:?}"
    );

    let targets = [ours.target()?, all.target(), addresses_only.target()];
    let single = Frames::Single { packets: 200_000 };
    let warm = bench::compare(&mut corpus, &targets, single, plan.rounds())?;
    let random = bench::compare(&mut corpus, &targets, Frames::All, plan.rounds())?;
    let cost = |warm: Cost, random: Cost| json!({ "warm": warm, "random": random });
    progress(&format!(
        "{size} sources{}: nodewall +{:.1} / +{:.1} ns, xdp-filter +{:.1} / +{:.1} ns, with \
         addresses alone +{:.1} / +{:.1} ns",
        if v6 { " (IPv6)" } else { "" },
        warm[0].over_floor.median,
        random[0].over_floor.median,
        warm[1].over_floor.median,
        random[1].over_floor.median,
        warm[2].over_floor.median,
        random[2].over_floor.median,
    ));
    Ok(json!({
        "packets": packets,
        "dropped_by_each": hits,
        "nodewall": cost(warm[0], random[0]),
        "xdp-filter": cost(warm[1], random[1]),
        "xdp-filter, addresses alone": cost(warm[2], random[2]),
    }))
}

/// Packets that nodewall has dropped.
pub(crate) fn dropped(bench: &TestBench) -> Result<u64> {
    use filter_common::verdict::Verdict;

    let stats = bench.stats()?;
    let drops = stats
        .reasons
        .iter()
        .filter(|(_, verdict, _)| *verdict == Verdict::Drop);
    Ok(drops.map(|(_, _, count)| count.packets).sum())
}
