//! `nodewall replay`.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use filter_common::verdict::{Reason, Verdict};
use serde::Serialize;

use super::args::{DirectionFlag, EndpointFlags, Files, Global, OptionFlags};
use super::capture::Capture;
use super::compiled::{Request, Target, one_target};
use super::error::Failure;
use super::output::{count, grouped, say, warning};
use crate::compile::Image;
use crate::datapath::TestBench;
use crate::decision::Decision;
use crate::privileges::{self, Keep};
use crate::reference;
use crate::ruleset::{Direction, Ruleset, Stage};

/// Decide every packet of a capture; attaches nothing
///
/// The loaded kernel program decides (`BPF_PROG_TEST_RUN`), or the same
/// classifier on the host, or the naive reference evaluator. The summary goes
/// to standard error. The kernel runs no frame that ends within its Ethernet
/// header, and of what goes out none that ends within its IP header or is longer
/// than 3,456 bytes: the host's classifier decides those.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall replay -f policy.yaml --interface eth0 --pcap traffic.pcap
  tcpdump -i eth0 -w - | nodewall replay -f policy.yaml --interface eth0 \\
      --pcap - --engine host -o jsonl")]
pub(super) struct Replay {
    #[command(flatten)]
    files: Files,

    /// Capture: pcap or pcapng of Ethernet frames, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,

    /// Who decides
    #[arg(long, value_enum, default_value = "kernel")]
    engine: Engine,

    /// The direction that the packets are taken to have
    #[arg(long, value_enum, default_value = "ingress")]
    direction: DirectionFlag,

    /// Let the kernel program say on standard error what it does
    #[arg(long)]
    trace: bool,

    #[command(flatten)]
    endpoint: EndpointFlags,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Format,

    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    options: OptionFlags,
}

/// `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The loaded BPF program; needs privileges
    Kernel,
    /// The classifier that the program is made of, on the host
    Host,
    /// The naive evaluator that the others are checked against
    Reference,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line a packet, for people
    #[value(alias = "table")]
    Text,
    /// A JSON document a packet
    Jsonl,
}

/// One line of `-o jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    packet: u64,
    verdict: &'static str,
    reason: &'static str,
    stage: Option<&'static str>,
    policy: Option<&'a str>,
    rule: Option<u32>,
    direction: Direction,
}

/// Whoever decides.
enum Judge {
    Kernel(Box<TestBench>, Image),
    Host(Image),
    Reference,
}

impl Judge {
    fn decide(&mut self, ruleset: &Ruleset, frame: &[u8]) -> Result<Decision, Failure> {
        match self {
            Self::Kernel(_, image) if !TestBench::takes(ruleset.direction, frame) => {
                Ok(image.classify(frame))
            }
            Self::Kernel(bench, _) => Ok(bench.run(frame)?),
            Self::Host(image) => Ok(image.classify(frame)),
            Self::Reference => Ok(reference::evaluate(ruleset, frame)),
        }
    }
}

impl Replay {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        if self.trace && self.engine != Engine::Kernel {
            return Err(Failure::Usage(
                "--trace is the kernel program's: use it with --engine kernel".to_owned(),
            ));
        }
        let Target { ruleset, image, .. } = one_target(
            &Request::new(&self.files, &self.endpoint, &self.options, global),
            self.direction.direction(),
        )?;
        let mut capture = Capture::open(&self.pcap).map_err(Failure::failed)?;
        let mut judge = match self.engine {
            Engine::Reference => Judge::Reference,
            Engine::Host => Judge::Host(image),
            Engine::Kernel => {
                let load = if self.trace {
                    TestBench::load_traced
                } else {
                    TestBench::load
                };
                Judge::Kernel(Box::new(load(&ruleset, &image)?), image)
            }
        };

        // What is loaded is run by the one that has it.
        let keep = match self.engine {
            Engine::Kernel => Keep::Kernel,
            Engine::Host | Engine::Reference => Keep::Nothing,
        };
        privileges::give_up_all_but(keep)?;
        let mut out = BufWriter::new(stdout().lock());
        let mut totals = [0_u64; 2];
        let mut cut = 0_u64;
        let mut refused = 0_u64;
        let mut packet = 0;
        let ended = loop {
            let frame = match capture.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Failure::failed(error)),
            };
            let decision = match judge.decide(&ruleset, &frame.bytes) {
                Ok(decision) => decision,
                Err(error) => break Err(error.and(&format!("It was packet {}.", packet + 1))),
            };
            packet += 1;
            cut += u64::from(frame.cut);
            refused += u64::from(!TestBench::takes(ruleset.direction, &frame.bytes));
            totals[usize::from(decision.verdict == Verdict::Drop)] += 1;
            self.print(&mut out, packet, &ruleset, decision)?;
        };
        out.flush()?;
        if cut > 0 {
            warning(
                global.color,
                format_args!(
                    "{} cut at capture: what the headers promise is not there, so such packets may \
                     count as malformed. Capture whole packets (tcpdump -s 0).",
                    count(cut, "packet was", "packets were")
                ),
            );
        }
        if refused > 0 && self.engine == Engine::Kernel {
            warning(
                global.color,
                format_args!(
                    "{} too short or too long for the kernel to run outside of an interface; the \
                     classifier on the host decided",
                    count(refused, "frame is", "frames are")
                ),
            );
        }
        say(format_args!(
            "{}: {} passed, {} dropped",
            count(packet, "packet", "packets"),
            grouped(totals[0]),
            grouped(totals[1])
        ));
        ended
    }

    fn print(
        &self,
        out: &mut impl Write,
        packet: u64,
        ruleset: &Ruleset,
        decision: Decision,
    ) -> Result<(), Failure> {
        let (policy, rule) = decided_by(ruleset, decision);
        let line = Line {
            packet,
            verdict: decision.verdict.name(),
            reason: decision.reason.name(),
            stage: stage_of(ruleset, decision),
            policy,
            rule,
            direction: ruleset.direction,
        };
        match self.output {
            Format::Jsonl => {
                serde_json::to_writer(&mut *out, &line)?;
                writeln!(out)?;
            }
            Format::Text => {
                write!(out, "{packet:>7}  {:<4}  ", line.verdict)?;
                match (policy, rule) {
                    (Some(policy), Some(rule)) => writeln!(
                        out,
                        "{:<14}  {} {policy} {rule}",
                        line.reason,
                        line.stage.unwrap_or_default()
                    )?,
                    _ => writeln!(out, "{}", line.reason)?,
                }
            }
        }
        Ok(())
    }
}

/// The policy and the index in it of the rule that decided. A failsafe is no
/// policy's.
pub(super) fn decided_by(ruleset: &Ruleset, decision: Decision) -> (Option<&str>, Option<u32>) {
    match decision
        .rule
        .and_then(|rule| ruleset.rules.get(rule as usize))
    {
        Some(rule) if rule.id.stage != Stage::Failsafe => (Some(&rule.id.policy), rule.id.index),
        _ => (None, None),
    }
}

/// The stage that decided; `None` where the packet was judged before any.
pub(super) fn stage_of(ruleset: &Ruleset, decision: Decision) -> Option<&'static str> {
    if let Some(rule) = decision
        .rule
        .and_then(|rule| ruleset.rules.get(rule as usize))
    {
        return Some(rule.id.stage.name());
    }
    match decision.reason {
        Reason::DefaultAllow | Reason::DefaultDeny | Reason::Essential => {
            Some(Stage::Default.name())
        }
        _ => None,
    }
}
