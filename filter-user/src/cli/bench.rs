//! `nodewall bench`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{EndpointFlags, Files, Global, OptionFlags, TableOrJson};
use super::capture::Capture;
use super::compiled::{Request, Target, one_target};
use super::error::Failure;
use super::output::{columns, count, grouped, note, size, time, warning};
use crate::bench::machine::Machine;
use crate::bench::{self, Cost, Effort, Report, Source, Timing};
use crate::ruleset::{Direction, Ruleset};

/// Most packets of a capture that are taken.
const MOST_FRAMES: usize = 1_000_000;

/// Measure what the policies cost on this machine; attaches nothing
///
/// The loaded kernel program decides packets in memory (`BPF_PROG_TEST_RUN`), in
/// turns with an empty program. Both stand behind the same shim, which puts the
/// next packet before them; what is over the empty program is nodewall's. One
/// flow again and again is `warm`; `random` are many, over all of the ruleset:
/// half of them made for its rules, the others beside them or anywhere.
///
/// No interface is touched: the swap is timed on one in a network namespace of
/// its own, which is gone afterwards.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall bench -f policies/ --interface eth0
  nodewall bench -f policy.yaml --interface eth0 --pcap traffic.pcap -o json")]
pub(super) struct Bench {
    #[command(flatten)]
    files: Files,

    /// Measure with the packets of a capture: pcap or pcapng of Ethernet frames,
    /// `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flows", "seed"])]
    pcap: Option<PathBuf>,

    /// Different random packets. Default: four times the prefixes, 65,536 to
    /// 1,000,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: Option<u32>,

    /// Other random packets, the same for the same number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Turns; the median of them counts
    #[arg(
        long,
        value_name = "N",
        default_value_t = 15,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    rounds: u32,

    #[command(flatten)]
    endpoint: EndpointFlags,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    output: TableOrJson,

    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    options: OptionFlags,
}

/// What was measured in one direction.
struct Measured {
    direction: Direction,
    interface: String,
    prepare_ms: f64,
    report: Report,
}

impl Bench {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let request = Request::new(&self.files, &self.endpoint, &self.options, global);
        let began = Instant::now();
        let ingress = one_target(&request, Direction::Ingress)?;
        let prepare_ms = bench::ms(began.elapsed());
        let frames = self.pcap.as_deref().map(frames).transpose()?;
        if cfg!(debug_assertions) {
            note(
                global.color,
                "this nodewall was built without optimisation: times to read and compile are not \
                 those of a release build",
            );
        }
        if !Machine::this().jit {
            warning(
                global.color,
                "the kernel interprets BPF programs (net.core.bpf_jit_enable is 0)",
            );
        }
        let egress = if ingress.speaks_of_egress {
            Some(one_target(&request, Direction::Egress)?)
        } else {
            None
        };
        let measured = self.measure(&ingress, Direction::Ingress, prepare_ms, frames.as_deref())?;
        drop(ingress);
        let egress = egress
            .map(|target| self.measure(&target, Direction::Egress, prepare_ms, frames.as_deref()))
            .transpose()?;
        let mut out = stdout().lock();
        match self.output {
            TableOrJson::Json => {
                let machine = Machine::this();
                writeln!(out, "{:#}", document(&measured, egress.as_ref(), &machine))?;
            }
            TableOrJson::Table => {
                write!(out, "{}", table(&measured))?;
                if let Some(egress) = &egress {
                    write!(out, "\n{}", table(egress))?;
                }
            }
        }
        Ok(())
    }

    fn measure(
        &self,
        target: &Target,
        direction: Direction,
        prepare_ms: f64,
        frames: Option<&[Vec<u8>]>,
    ) -> Result<Measured, Failure> {
        let source = match frames {
            Some(frames) => Source::Frames(frames),
            None => Source::Random {
                flows: self
                    .flows
                    .unwrap_or_else(|| bench::enough_flows(bench::prefixes(&target.ruleset))),
                seed: self.seed,
            },
        };
        let effort = Effort {
            rounds: self.rounds,
            ..Effort::default()
        };
        // The classifier is the same in both directions, and XDP's empty program the
        // floor of both.
        let ruleset = Ruleset {
            direction: Direction::Ingress,
            ..target.ruleset.clone()
        };
        let report = bench::measure(&ruleset, self.options.max_memory, &source, effort)?;
        Ok(Measured {
            direction,
            interface: target.interface.clone(),
            prepare_ms,
            report,
        })
    }
}

/// The frames of a capture that can be run.
fn frames(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut capture = Capture::open(path).map_err(Failure::failed)?;
    let mut frames = Vec::new();
    while frames.len() < MOST_FRAMES {
        let Some(frame) = capture.next_frame().map_err(Failure::failed)? else {
            break;
        };
        // The kernel runs none that is shorter, and none can arrive.
        if frame.bytes.len() >= 14 {
            frames.push(frame.bytes);
        }
    }
    if frames.is_empty() {
        return Err(Failure::failed(format_args!(
            "{} holds no packet to measure with",
            path.display()
        )));
    }
    Ok(frames)
}

/// `bench -o json`.
fn document(ingress: &Measured, egress: Option<&Measured>, machine: &Machine) -> Value {
    let mut document = json!({ "schema": 1 });
    let add = |document: &mut Value, more: Value| {
        if let (Value::Object(document), Value::Object(more)) = (document, more) {
            document.extend(more);
        }
    };
    add(&mut document, values(ingress));
    add(
        &mut document,
        json!({
            "egress": egress.map(values),
            "machine": machine,
            "time": time(SystemTime::now()),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    );
    document
}

fn values(measured: &Measured) -> Value {
    let report = &measured.report;
    json!({
        "interface": measured.interface,
        "direction": measured.direction,
        "floor_ns": tenth(report.warm.floor.median),
        "warm_ns": tenth(report.warm.total.median),
        "random_ns": tenth(report.random.total.median),
        "over_floor": {
            "warm_ns": tenth(report.warm.over_floor.median),
            "random_ns": tenth(report.random.over_floor.median),
        },
        "spread": { "warm": spread(&report.warm), "random": spread(&report.random) },
        "packets": report.packets,
        "rules": report.rules,
        "prefixes": report.prefixes,
        "combination": report.combination,
        "program": report.program,
        "memory": report.memory,
        "prepare_ms": tenth(measured.prepare_ms),
        "compile_ms": tenth(report.compile_ms),
        "load_ms": tenth(report.load_ms),
        "swap_ms": report.swap_ms.map(|swap| tenth(swap.median)),
        "no_swap": report.no_swap,
    })
}

/// Half of the measurements lie between the two.
fn spread(cost: &Cost) -> Value {
    #[derive(Serialize)]
    struct Half {
        low: f64,
        high: f64,
    }
    let half = |timing: Timing| Half {
        low: tenth(timing.low),
        high: tenth(timing.high),
    };
    json!({
        "floor_ns": half(cost.floor),
        "ns": half(cost.total),
        "over_floor_ns": half(cost.over_floor),
    })
}

/// To a tenth: what is beyond is noise.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn table(measured: &Measured) -> String {
    let report = &measured.report;
    let row = |name: &str, cost: &Cost| {
        vec![
            name.to_owned(),
            format!("{:.1}", cost.floor.median),
            format!("{:.1}", cost.total.median),
            format!("{:.1}", cost.over_floor.median),
            format!("{:.1} to {:.1}", cost.over_floor.low, cost.over_floor.high),
        ]
    };
    let mut text = columns(
        &[
            "NS A PACKET",
            ">EMPTY",
            ">NODEWALL",
            ">OVER",
            "HALF OF ALL TURNS",
        ],
        &[row("warm", &report.warm), row("random", &report.random)],
    );
    let packets = &report.packets;
    let kind = match packets.source {
        "capture" => "of the capture",
        _ => "random over the ruleset",
    };
    let swap = report.swap_ms.map_or_else(
        || "not measured".to_owned(),
        |swap| format!("{:.1} ms", swap.median),
    );
    let program = &report.program;
    let lines = [
        (
            "endpoint",
            format!(
                "{}, {}: {}, {}",
                measured.interface,
                match measured.direction {
                    Direction::Ingress => "ingress",
                    Direction::Egress => "egress, measured at XDP",
                },
                count(report.rules, "rule", "rules"),
                count(report.prefixes, "prefix", "prefixes")
            ),
        ),
        (
            "packets",
            format!(
                "{} {kind}: {:.0} % decided by a rule, {:.0} % dropped",
                grouped(packets.flows.into()),
                packets.by_rule * 100.0,
                packets.dropped * 100.0
            ),
        ),
        (
            "combined",
            format!("{}: {}", report.combination, report.combination.why()),
        ),
        (
            "program",
            format!(
                "{} instructions verified, {} left, {} of machine code",
                grouped(program.verified_instructions),
                grouped(program.xlated_bytes / 8),
                size(program.jited_bytes)
            ),
        ),
        (
            "memory",
            format!(
                "{} in maps, {} of them tables",
                size(report.memory.maps_bytes),
                size(report.memory.tables_bytes)
            ),
        ),
        (
            "times",
            format!(
                "files to tables {:.1} ms, compile alone {:.1} ms, load {:.1} ms, swap {swap}",
                measured.prepare_ms, report.compile_ms, report.load_ms
            ),
        ),
    ];
    text.push('\n');
    for (name, line) in lines {
        let _ = writeln!(text, "{name:<9} {line}");
    }
    if let Some(reason) = &report.no_swap {
        let _ = writeln!(text, "\nThe swap could not be measured: {reason}");
    }
    text
}
