//! The classifier alone, in memory: `BPF_PROG_TEST_RUN` behind the shim.

use std::collections::{BTreeSet, HashSet};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Error, Result};
use filter_user::bench::{self, Cost, Flow, Frames, Random};
use filter_user::compile::Image;
use filter_user::datapath::TestBench;
use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::synthetic::{self, Families};

use crate::row::Row;
use crate::xdp_filter::{Features, XdpFilter};
use crate::{Plan, blocklist, policy, progress};

/// What the tables of a ruleset may take.
pub(crate) const MEMORY: u64 = 512 << 20;

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
            let mut row = Row::file(file).measure(&format!("{version} {size}"), plan);
            row["version"] = json!(version);
            row["size"] = json!(size);
            rows.push(row);
        }
    }
    let mut real = Vec::new();
    for (version, v6) in [("IPv4", false), ("IPv6", true)] {
        let file = geoip(folder.path(), v6);
        match file {
            Ok((file, size)) => {
                let name = format!("tor-geoipdb {version}, a rule a country");
                let mut row = Row::file(file).measure(&name, plan);
                row["version"] = json!(version);
                row["size"] = json!(size);
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

/// As many counters as rules, each with a network of its own; and the policy
/// that blocks the node ports of a cluster.
pub(crate) fn rules(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let sizes: &[usize] = if plan.quick {
        &[1, 1_000, 100_000]
    } else {
        &[1, 10, 100, 1_000, 100_000, 1_000_000]
    };
    let mut rows = Vec::new();
    for &size in sizes {
        let mut row = Row::rules(size).measure(&format!("{size} rules, a network each"), plan);
        row["size"] = json!(size);
        rows.push(row);
    }
    let file = folder.path().join("node-ports.yaml");
    std::fs::write(&file, NODE_PORTS)?;
    let mut row = Row::file(file).measure("the example that blocks node ports", plan);
    row["size"] = json!(2);
    rows.push(row);
    Ok(json!(rows))
}

const NODE_PORTS: &str = include_str!("../../../../examples/deny-kube-node-port-services.yaml");

/// Five-tuple rules with the structure of `ClassBench`.
pub(crate) fn acls(plan: &Plan) -> Result<Value> {
    let folder = TempDir::new()?;
    let v4 = Families::V4;
    let wanted: &[(&str, Families, usize)] = if plan.quick {
        &[("acl", v4, 1_000), ("acl", Families::Both, 1_000)]
    } else {
        &[
            ("acl", v4, 1_000),
            ("acl", v4, 10_000),
            ("fw", v4, 1_000),
            ("fw", v4, 10_000),
            ("ipc", v4, 1_000),
            ("ipc", v4, 10_000),
            ("acl", Families::Both, 1_000),
            ("acl", Families::Both, 10_000),
            // What may be left out comes last.
            ("acl", v4, 100_000),
            ("ipc", v4, 100_000),
            ("fw", v4, 100_000),
        ]
    };
    let mut rows = Vec::new();
    for &(flavour, families, size) in wanted {
        let (name, kind) = match families {
            Families::V4 => (format!("{flavour} {size}"), flavour.to_owned()),
            _ => (
                format!("{flavour} {size}, half of it IPv6"),
                format!("{flavour}, half of it IPv6"),
            ),
        };
        let file = folder.path().join(format!("{flavour}.yaml"));
        let rules = synthetic::rules(flavour.parse().map_err(Error::msg)?, families, size, 1);
        std::fs::write(&file, synthetic::policy(&rules)).context("cannot write a policy")?;
        let mut row = Row::file(file).measure(&name, plan);
        row["flavour"] = json!(kind);
        row["size"] = json!(size);
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
    // One that does not load is no reason to lose the other.
    let mut missing = Vec::new();
    let mut peers = Vec::new();
    for (name, features) in PEERS {
        match XdpFilter::load(features, &addresses) {
            Ok(peer) => peers.push((name, peer)),
            Err(error) => missing.push(format!("{name}: {error:#}")),
        }
    }

    let count = u32::try_from(flows.len())?;
    let mut corpus = bench::corpus_of_flows(flows.into_iter(), count, v6)?;
    // Each must count exactly the blocked packets as dropped, before.
    let before = dropped(&ours)?;
    corpus.run(ours.target()?)?;
    let by_ours = dropped(&ours)? - before;
    anyhow::ensure!(
        by_ours == hits,
        "of {packets} packets {hits} are blocked, and nodewall dropped {by_ours}"
    );
    let mut proven = Vec::new();
    for (name, peer) in peers {
        let before = peer.dropped()?;
        corpus.run(peer.target())?;
        let by_peer = peer.dropped()? - before;
        if by_peer == hits {
            proven.push((name, peer));
        } else {
            missing.push(format!(
                "{name} dropped {by_peer} packets, and {hits} of {packets} are blocked"
            ));
        }
    }

    let mut targets = vec![ours.target()?];
    targets.extend(proven.iter().map(|(_, peer)| peer.target()));
    let single = Frames::Single { packets: 200_000 };
    let warm = bench::compare(&mut corpus, &targets, single, plan.rounds())?;
    let random = bench::compare(&mut corpus, &targets, Frames::All, plan.rounds())?;
    let names = iter::once("nodewall").chain(proven.iter().map(|(name, _)| *name));
    let mut row = json!({ "packets": packets, "dropped_by_each": hits, "missing": missing });
    let mut said = Vec::new();
    for (name, (warm, random)) in names.zip(warm.iter().zip(&random)) {
        let cost = |cost: &Cost| cost.over_floor.median;
        said.push(format!(
            "{name} +{:.1} / +{:.1} ns",
            cost(warm),
            cost(random)
        ));
        row[name] = json!({ "warm": warm, "random": random });
    }
    said.extend(missing);
    progress(&format!(
        "{size} sources{}: {}",
        if v6 { " (IPv6)" } else { "" },
        said.join(", ")
    ));
    Ok(row)
}

/// xdp-filter in its forms.
const PEERS: [(&str, Features); 2] = [
    ("xdp-filter", Features::All),
    ("xdp-filter, addresses alone", Features::Addresses),
];

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
