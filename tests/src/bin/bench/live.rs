//! Live frames over veth pairs: nodewall and the empty program in native mode,
//! and the filters of the kernel's stack, each on a pair of its own, in turns.
//!
//! One thread sends and receives: what a packet takes is the sender, the pair
//! and the filter. So the empty program stands in the same loop.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use filter_common::verdict::Reason;
use filter_user::bench::{self, Flow, Random, Timing};
use filter_user::compile::Image;
use filter_user::datapath::{Corpus, Shape, Stats, Target, TestBench, Took};
use filter_user::ruleset::Ruleset;
use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::classifier::MEMORY;
use crate::netns::{ADDRESS, Lane, Netns};
use crate::tools::feed;
use crate::{Plan, blocklist, policy, progress, tools};

/// What a run should take, in ns.
const RUN: f64 = 150e6;
/// Packets of a run at least, and at most.
const LEAST: u32 = 20_000;
const MOST: u32 = 600_000;

/// Runs until one loses no frame.
const TRIES: u32 = 10;

/// Frames of somebody else that a run may see.
const STRAY: u64 = 16;

/// A filter on the receiving end of a pair.
struct Peer {
    name: String,
    kind: Kind,
    lane: Lane,
    /// Packets that a run has.
    packets: u32,
    times: Vec<f64>,
    /// What is wrong with it: it takes no further part.
    failed: Option<String>,
}

enum Kind {
    /// An XDP program, held by its link.
    Empty {
        _link: OwnedFd,
    },
    Nodewall {
        _link: OwnedFd,
        bench: Box<TestBench>,
    },
    Nft,
    Iptables,
}

impl Peer {
    /// Packets that it says it has seen.
    fn counted(&self) -> Result<u64> {
        match &self.kind {
            Kind::Empty { .. } => self.lane.xdp_drops(),
            Kind::Nodewall { bench, .. } => {
                let stats = bench.stats()?;
                Ok(stats
                    .reasons
                    .iter()
                    .map(|(_, _, count)| count.packets)
                    .sum())
            }
            Kind::Nft => {
                let text = self
                    .lane
                    .run("nft", &["list", "chain", "netdev", "t", "c"])?;
                Ok(sum_behind(&text, "counter packets "))
            }
            Kind::Iptables => {
                let text = self
                    .lane
                    .run("iptables", &["-t", "raw", "-vnxL", "PREROUTING"])?;
                let rules = text.lines().skip(2);
                Ok(rules
                    .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
                    .sum())
            }
        }
    }

    /// Sends frames to it, and makes sure that it has seen each.
    ///
    /// Where others want the CPU the kernel may not come to receive before more
    /// is sent than a pair holds: such a run is made again.
    fn run(&mut self, corpus: &mut Corpus, packets: u32) -> Result<f64> {
        let mut counted = 0;
        for _ in 0..TRIES {
            let before = self.counted()?;
            let ns = send(corpus, &self.lane, packets)?;
            counted = self.counted()? - before;
            // The stack itself may say something on a new link.
            if (0..=STRAY).contains(&counted.wrapping_sub(packets.into())) {
                return Ok(ns);
            }
        }
        bail!(
            "{}: of {packets} frames it counted {counted}; {TRIES} runs lost some, try again on a \
             machine that is idle",
            self.name
        )
    }
}

impl Peer {
    /// A run, unless it has failed before; where it fails, the others go on.
    fn takes_part(&mut self, corpus: &mut Corpus, packets: u32) -> Option<f64> {
        if self.failed.is_some() {
            return None;
        }
        match self.run(corpus, packets) {
            Ok(ns) => Some(ns),
            Err(error) => {
                self.failed = Some(format!("{error:#}"));
                None
            }
        }
    }
}

/// Sends frames over a pair: the time of all that took part, a packet. What
/// the clock says would be others' time too, on a machine that is not idle.
fn send(corpus: &mut Corpus, lane: &Lane, packets: u32) -> Result<f64> {
    let before = tools::softirq_ns();
    let took = corpus.send(&lane.sends, packets)?;
    let others = tools::softirq_ns().saturating_sub(before);
    let others = Took {
        packets,
        time: Duration::from_nanos(others),
    };
    Ok(took.ns_per_packet() + others.ns_per_packet())
}

/// The sum of the numbers behind each occurrence of a text.
fn sum_behind(text: &str, what: &str) -> u64 {
    text.split(what)
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Both tables of live frames.
pub(crate) fn measure(plan: &Plan) -> Result<Value> {
    let sender = Netns::new()?;
    sender.enter(|| {
        // What fails in one is no reason to lose the other.
        let said = |part: Result<Value>| {
            part.unwrap_or_else(|error| {
                progress(&format!("{error:#}"));
                json!({ "failed": format!("{error:#}") })
            })
        };
        // Rates last: on a busy machine they take long, since what loses frames
        // is run again.
        let peers = said(peers(plan, &sender));
        Ok(json!({ "peers": peers, "rates": said(rates(plan, &sender)) }))
    })
}

// Rates of ten rules.

pub(crate) fn ten_rules(folder: &Path, action: &str) -> Result<Ruleset> {
    let mut rules: Vec<String> = (0..9)
        .map(|index| {
            format!(
                "action: Deny\nprotocol: TCP\nsource:\n  nets: [198.51.{index}.0/24]\ndestination:\n  \
                 ports: [{}]",
                8_000 + index
            )
        })
        .collect();
    // What the frames meet: the last of ten.
    rules.push(format!(
        "action: {action}\nprotocol: UDP\ndestination:\n  ports: ['30000:32767']"
    ));
    let file = policy::rules(folder, "ten", &rules)?;
    policy::ruleset(&file)
}

/// Frames per second that are dropped, and that pass on to the stack, against
/// the empty program that does the same.
fn rates(plan: &Plan, sender: &Netns) -> Result<Value> {
    let folder = TempDir::new()?;
    let sizes: &[usize] = if plan.quick {
        &[60, 1_500]
    } else {
        &[60, 128, 256, 512, 1_024, 1_500]
    };
    let mut rows = Vec::new();
    for (verdict, action) in [("dropped", "Deny"), ("passed", "Allow")] {
        let ruleset = ten_rules(folder.path(), action)?;
        let image = Image::compile(&ruleset, MEMORY)?;
        for &size in sizes {
            let mut row = match rate(plan, sender, &ruleset, &image, verdict, size) {
                Ok(row) => row,
                Err(error) => {
                    progress(&format!("{size} bytes {verdict}: {error:#}"));
                    json!({ "failed": format!("{error:#}") })
                }
            };
            row["bytes"] = json!(size);
            row["verdict"] = json!(verdict);
            rows.push(row);
        }
    }
    Ok(json!(rows))
}

/// Frames of one size.
fn rate(
    plan: &Plan,
    sender: &Netns,
    ruleset: &Ruleset,
    image: &Image,
    verdict: &str,
    size: usize,
) -> Result<Value> {
    plan.in_time()?;
    let mut corpus = corpus(&plain_flows(4_096), size)?;
    let mut ours = Box::new(TestBench::load(ruleset, image)?);
    let lanes = [Lane::new(sender, false)?, Lane::new(sender, false)?];
    let empty = if verdict == "passed" {
        Target::PASS
    } else {
        Target::EMPTY
    };
    let links = [
        attach(&lanes[0], &mut corpus, empty)?,
        attach(&lanes[1], &mut corpus, ours.target()?)?,
    ];
    let packets = if plan.quick { 100_000 } else { 200_000 };
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=plan.rounds() {
        let mut took = [0.0; 2];
        let mut tries = 0;
        loop {
            let before = [lanes[0].xdp_drops()?, seen(&ours.stats()?, verdict)];
            // Who is first takes turns too.
            for turn in 0..2_usize {
                let who = (turn + round as usize) % 2;
                took[who] = send(&mut corpus, &lanes[who], packets)?;
            }
            let counted = seen(&ours.stats()?, verdict) - before[1];
            let mut whole = counted == u64::from(packets);
            if verdict == "dropped" {
                whole &= lanes[0].xdp_drops()? - before[0] == u64::from(packets);
            }
            if whole {
                break;
            }
            tries += 1;
            ensure!(
                tries < TRIES,
                "of {packets} frames nodewall counted {counted} as {verdict}; try again on a \
                 machine that is idle"
            );
        }
        if round > 0 {
            times[0].push(1e9 / took[0]);
            times[1].push(1e9 / took[1]);
            times[2].push(took[0] / took[1]);
        }
    }
    drop(links);
    let [empty, ours, ratio] = times.map(Timing::of);
    progress(&format!(
        "{size} bytes {verdict}: {:.2} of {:.2} million a second, {:.1} %",
        ours.median / 1e6,
        empty.median / 1e6,
        ratio.median * 100.0
    ));
    Ok(json!({ "empty_pps": empty, "nodewall_pps": ours, "ratio": ratio }))
}

/// Packets that its rules treated so: what the stack sends of its own accord
/// no rule decides.
fn seen(stats: &Stats, verdict: &str) -> u64 {
    let wanted = if verdict == "passed" {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    };
    let of = stats
        .reasons
        .iter()
        .filter(|(given, _, _)| *given == wanted);
    of.map(|(_, _, count)| count.packets).sum()
}

/// UDP to a node port from anywhere.
pub(crate) fn plain_flows(count: usize) -> Vec<Flow> {
    let mut random = Random::new(5);
    (0..count)
        .map(|_| Flow {
            src: std::net::Ipv4Addr::from_bits(
                u32::try_from(random.below(1 << 24)).unwrap_or(0) | 11 << 24,
            )
            .into(),
            dst: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
            proto: 17,
            sport: 40_000,
            dport: 30_000 + u16::try_from(random.below(2_768)).unwrap_or(0),
        })
        .collect()
}

fn corpus(flows: &[Flow], length: usize) -> Result<Corpus> {
    let shape = Shape::Flows {
        header: bench::V4_HEADER,
        frame: length,
    };
    let mut corpus = Corpus::new(shape, u32::try_from(flows.len())?)?;
    let mut frame = vec![0; length];
    for flow in flows {
        flow.write(&mut frame);
        corpus.push(&frame)?;
    }
    Ok(corpus)
}

fn attach(lane: &Lane, corpus: &mut Corpus, target: Target<'_>) -> Result<OwnedFd> {
    lane.namespace
        .enter(|| Ok(corpus.attach(target, &lane.receives)?))
}

// Peers.

/// What a set of rules is for each filter.
struct Rules {
    name: String,
    /// Frames: half of them meet a rule, the others none.
    flows: Vec<Flow>,
    nodewall: Ruleset,
    nft: Option<String>,
    iptables: Option<(String, String)>,
}

fn peers(plan: &Plan, sender: &Netns) -> Result<Value> {
    let folder = TempDir::new()?;
    let mut groups = Vec::new();
    for rules in all_rules(plan, folder.path())? {
        let name = rules.name.clone();
        let group = group(plan, sender, &rules);
        groups.push(match group {
            Ok(rows) => json!({ "rules": name, "rows": rows }),
            Err(error) => {
                progress(&format!("{name}: {error:#}"));
                json!({ "rules": name, "failed": format!("{error:#}") })
            }
        });
    }
    Ok(json!(groups))
}

/// The filters with the same rules and the same frames, in turns.
fn group(plan: &Plan, sender: &Netns, rules: &Rules) -> Result<Value> {
    plan.in_time()?;
    let mut corpus = corpus(&rules.flows, bench::V4_FRAME)?;
    let mut missing = Vec::new();
    let mut peers = Vec::new();
    let lane = |gro: bool| Lane::new(sender, gro);
    let peer = |name: &str, kind: Kind, lane: Lane| Peer {
        name: name.to_owned(),
        kind,
        lane,
        packets: LEAST,
        times: Vec::new(),
        failed: None,
    };

    let here = lane(false)?;
    let link = attach(&here, &mut corpus, Target::EMPTY)?;
    peers.push(peer("empty XDP program", Kind::Empty { _link: link }, here));
    let image = Image::compile(&rules.nodewall, MEMORY)?;
    let mut bench = Box::new(TestBench::load(&rules.nodewall, &image)?);
    let here = lane(false)?;
    let link = attach(&here, &mut corpus, bench.target()?)?;
    peers.push(peer(
        "nodewall",
        Kind::Nodewall { _link: link, bench },
        here,
    ));
    // What the kernel's stack takes to come to a filter at all.
    let nothing = "";
    let nft = [
        ("nftables, drop everything", Some(nothing)),
        ("nftables", rules.nft.as_deref()),
    ];
    for (name, body) in nft {
        let Some(body) = body else { continue };
        let here = lane(true)?;
        let text = nft_table(&here.receives, body);
        match feed(limited(&here, "nft").args(["-f", "-"]), &text) {
            Ok(_) => peers.push(peer(name, Kind::Nft, here)),
            Err(error) => missing.push(json!({ "name": name, "failed": format!("{error:#}") })),
        }
    }
    if let Some((sets, table)) = &rules.iptables {
        let here = lane(true)?;
        let set_up = || -> Result<()> {
            if !sets.is_empty() {
                feed(limited(&here, "ipset").arg("restore"), sets)?;
            }
            feed(&mut limited(&here, "iptables-restore"), table)?;
            Ok(())
        };
        let name = if sets.is_empty() {
            "iptables"
        } else {
            "iptables and ipset"
        };
        match set_up() {
            Ok(()) => peers.push(peer(name, Kind::Iptables, here)),
            Err(error) => missing.push(json!({ "name": name, "failed": format!("{error:#}") })),
        }
    }

    // How many packets a run takes, found with a few.
    for peer in &mut peers {
        if let Some(ns) = peer.takes_part(&mut corpus, 5_000) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped"
            )]
            let packets = (RUN / ns).clamp(LEAST.into(), MOST.into()) as u32;
            peer.packets = packets;
        }
    }
    let rounds = if plan.quick { 3 } else { 9 };
    for round in 0..=rounds {
        for peer in &mut peers {
            let packets = peer.packets;
            if let Some(ns) = peer.takes_part(&mut corpus, packets)
                && round > 0
            {
                peer.times.push(ns);
            }
        }
        if let Some(error) = &peers[0].failed {
            bail!("{error}");
        }
    }
    let mut rows = Vec::new();
    let mut said = Vec::new();
    let empty = peers[0].times.clone();
    for peer in peers {
        if let Some(error) = peer.failed {
            missing.push(json!({ "name": peer.name, "failed": error }));
            continue;
        }
        let over = peer
            .times
            .iter()
            .zip(&empty)
            .map(|(ns, empty)| ns - empty)
            .collect();
        let (total, over) = (Timing::of(peer.times), Timing::of(over));
        said.push(format!("{} {:.0} ns", peer.name, total.median));
        rows.push(json!({
            "name": peer.name,
            "total_ns": total,
            "over_empty_ns": over,
            "packets_a_run": peer.packets,
        }));
    }
    said.extend(
        missing
            .iter()
            .map(|peer| format!("{} failed: {}", peer["name"], peer["failed"])),
    );
    rows.extend(missing);
    progress(&format!("{}: {}", rules.name, said.join(", ")));
    Ok(json!(rows))
}

/// A command in the lane's namespace that takes a minute at most.
fn limited(lane: &Lane, program: &str) -> Command {
    let mut command = lane.namespace.command("timeout");
    command.args(["60", program]);
    command
}

/// A table with these sets and rules; what they leave is dropped and counted.
fn nft_table(interface: &str, body: &str) -> String {
    let (sets, rules) = body.split_once("\n===\n").unwrap_or(("", body));
    format!(
        "table netdev t {{\n{sets}\nchain c {{ type filter hook ingress device \"{interface}\" \
         priority 0; policy accept;\n{rules}\ncounter drop\n}}\n}}\n"
    )
}

fn all_rules(plan: &Plan, folder: &Path) -> Result<Vec<Rules>> {
    let mut all = Vec::new();
    let linear: &[usize] = if plan.quick {
        &[100]
    } else {
        &[10, 100, 1_000]
    };
    for &size in linear {
        all.push(networks_in_rules(folder, size)?);
    }
    let sets: &[usize] = if plan.quick {
        &[1_000]
    } else {
        &[1_000, 10_000, 100_000]
    };
    for &size in sets {
        all.push(networks_in_a_set(folder, size)?);
    }
    let concatenated: &[usize] = if plan.quick { &[100] } else { &[100, 1_000] };
    for &size in concatenated {
        all.push(tuples(folder, size)?);
    }
    Ok(all)
}

/// Networks that do not overlap: an interval set takes no others.
fn apart(size: usize) -> Vec<IpNet> {
    IpNet::aggregate(&blocklist::random(size, false, 1))
}

/// Half of the flows from these networks, half from elsewhere.
fn flows_from(nets: &[IpNet], count: usize) -> Vec<Flow> {
    let mut random = Random::new(3);
    let known = blocklist::addresses(nets, 2);
    plain_flows(count)
        .into_iter()
        .enumerate()
        .map(|(index, flow)| match random.pick(&known) {
            Some(&src) if index % 2 == 0 => Flow { src, ..flow },
            _ => flow,
        })
        .collect()
}

fn networks_in_rules(folder: &Path, size: usize) -> Result<Rules> {
    let nets = apart(size);
    let rules: Vec<String> = nets
        .iter()
        .map(|net| format!("action: Deny\nsource:\n  nets: [{net}]"))
        .chain(["action: Deny".to_owned()])
        .collect();
    let file = policy::rules(folder, "linear", &rules)?;
    let nft = blocklist::lines(&nets, |net| format!("ip saddr {net} counter drop"));
    let iptables = blocklist::lines(&nets, |net| format!("-A PREROUTING -s {net} -j DROP"));
    Ok(Rules {
        name: format!("{} rules, a network each", nets.len()),
        flows: flows_from(&nets, 1 << 14),
        nodewall: policy::ruleset(&file)?,
        nft: Some(nft),
        iptables: Some((String::new(), iptables_table(&iptables))),
    })
}

/// What the rules leave is dropped too, and counted.
fn iptables_table(rules: &str) -> String {
    format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}-A PREROUTING -d {ADDRESS} -j \
         DROP\nCOMMIT\n"
    )
}

fn networks_in_a_set(folder: &Path, size: usize) -> Result<Rules> {
    let nets = apart(size);
    let file = policy::blocklist(folder, "set", &nets, "Deny")?;
    let list: Vec<String> = nets.iter().map(ToString::to_string).collect();
    let nft = format!(
        "set s {{ type ipv4_addr; flags interval; elements = {{ {} }} }}\n===\nip saddr @s counter \
         drop",
        list.join(", ")
    );
    let mut sets = format!(
        "create s hash:net family inet hashsize {} maxelem {}\n",
        size.next_power_of_two(),
        size * 2
    );
    for net in &list {
        sets.push_str("add s ");
        sets.push_str(net);
        sets.push('\n');
    }
    Ok(Rules {
        name: format!("a set of {} networks", nets.len()),
        flows: flows_from(&nets, 1 << 18),
        nodewall: policy::ruleset(&file)?,
        nft: Some(nft),
        iptables: Some((
            sets,
            iptables_table("-A PREROUTING -m set --match-set s src -j DROP\n"),
        )),
    })
}

/// Source network, destination network, destination port: what nftables has
/// concatenated sets for.
fn tuples(folder: &Path, size: usize) -> Result<Rules> {
    let mut random = Random::new(9);
    let sources = apart(size);
    let mut rules = Vec::new();
    let mut elements = Vec::new();
    let mut flows = plain_flows(1 << 16);
    let mut tuples = Vec::new();
    for source in &sources {
        let port = u16::try_from(1_024 + random.below(30_000)).unwrap_or(80);
        let high: IpNet = format!("192.0.2.0/{}", 24 + random.below(9)).parse()?;
        let destination = IpNet::new(ADDRESS.parse()?, high.prefix_len())?.trunc();
        rules.push(format!(
            "action: Deny\nprotocol: UDP\nsource:\n  nets: [{source}]\ndestination:\n  nets: \
             [{destination}]\n  ports: [{port}]"
        ));
        elements.push(format!("{source} . {destination} . {port}"));
        tuples.push((*source, port));
    }
    rules.push("action: Deny".to_owned());
    for flow in flows.iter_mut().step_by(2) {
        let Some((source, port)) = random.pick(&tuples) else {
            bail!("no rules");
        };
        flow.src = blocklist::addresses(&[*source], random.bits())
            .pop()
            .context("an address in a network")?;
        flow.dport = *port;
    }
    let file = policy::rules(folder, "tuples", &rules)?;
    let nft = format!(
        "set s {{ type ipv4_addr . ipv4_addr . inet_service; flags interval; elements = {{ {} }} \
         }}\n===\nip saddr . ip daddr . udp dport @s counter drop",
        elements.join(", ")
    );
    Ok(Rules {
        name: format!("{} rules of two networks and a port", sources.len()),
        flows,
        nodewall: policy::ruleset(&file)?,
        nft: Some(nft),
        iptables: None,
    })
}
