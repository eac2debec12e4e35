//! `nodewall explain`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use clap::Args;
use serde_json::{Value, json};

use super::args::{EndpointFlags, Global, OptionFlags, TableOrJson};
use super::compiled::{Request, one_target};
use super::error::Failure;
use super::replay::{decided_by, stage_of};
use crate::compile::Image;
use crate::datapath::Datapath;
use crate::decision::Decision;
use crate::packet_text::PacketText;
use crate::reference;
use crate::ruleset::{Action, Options, Rule, Ruleset};

/// Say what happens to a packet, and why
///
/// The packet is judged twice, by the naive reference evaluator and by the
/// compiled tables; they must agree. Needs no privileges, but for --in-force.
#[derive(Args, Debug)]
#[command(after_help = "Packets:
  'tcp 203.0.113.7:51515 > 192.0.2.10:30080'
  'udp [2001:db8::7]:53 > [2001:db8::10]:32767'
  'icmp 203.0.113.7 > 192.0.2.10 type 8 code 0'
  'proto 47 203.0.113.7 > 192.0.2.10'
  'udp 203.0.113.7 > 192.0.2.10 frag'            a later fragment
  'tcp 203.0.113.7:1 > 192.0.2.10:80 vlan 10'

Example:
  nodewall explain -f policy.yaml --interface eth0 --label ibm.role=worker_public \\
      'tcp 203.0.113.7:51515 > 192.0.2.10:30080'")]
pub(super) struct Explain {
    /// Policy file or folder, `-` for standard input; may be repeated
    #[arg(
        short,
        long = "filename",
        value_name = "PATH",
        required_unless_present = "in_force"
    )]
    filenames: Vec<std::path::PathBuf>,

    /// Read the sub-folders of folders as well
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Ask the policy in force on an interface instead of files
    #[arg(long, conflicts_with = "filenames")]
    in_force: bool,

    #[command(flatten)]
    endpoint: EndpointFlags,

    #[command(flatten)]
    options: OptionFlags,

    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: TableOrJson,

    /// The packet
    packet: String,
}

impl Explain {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let packet: PacketText = self
            .packet
            .parse()
            .map_err(|error| Failure::Usage(format!("{error}")))?;
        let ruleset = if self.in_force {
            self.ruleset_in_force(global)?
        } else {
            let request = Request {
                filenames: &self.filenames,
                recursive: self.recursive,
                endpoint: &self.endpoint,
                options: &self.options,
                color: global.color,
            };
            one_target(&request)?.ruleset
        };
        let image = Image::compile(&ruleset, self.options.max_memory).map_err(Failure::failed)?;
        let frame = packet.frame();
        let decision = reference::evaluate(&ruleset, &frame);
        let compiled = image.classify(&frame);
        if decision != compiled {
            return Err(Failure::failed(format_args!(
                "internal: the reference evaluator says {decision:?} and the compiled tables say \
                 {compiled:?} of this packet. Please report it with the policy."
            )));
        }
        let others = also_matching(&ruleset, decision, &frame);
        match self.output {
            TableOrJson::Table => write!(stdout(), "{}", text(&ruleset, decision, &others))?,
            TableOrJson::Json => writeln!(stdout(), "{:#}", json(&ruleset, decision, &others))?,
        }
        Ok(())
    }

    fn ruleset_in_force(&self, global: &Global) -> Result<Ruleset, Failure> {
        let mut all = Datapath::open(&global.pin_root)?.status()?;
        if let [interface] = self.endpoint.interface.as_slice() {
            all.retain(|status| status.interface == *interface);
        }
        match all.len() {
            1 => Ok(all.remove(0).ruleset),
            0 => Err(Failure::NotAttached(
                "no such filter is in force; see `nodewall status`".to_owned(),
            )),
            _ => Err(Failure::Usage(
                "several interfaces are filtered: name one with --interface".to_owned(),
            )),
        }
    }
}

/// The rules after the one that decided that match the packet as well.
fn also_matching<'a>(ruleset: &'a Ruleset, decision: Decision, frame: &[u8]) -> Vec<&'a Rule> {
    let first = decision
        .rule
        .map_or(ruleset.rules.len(), |rule| rule as usize + 1);
    ruleset.rules[first..]
        .iter()
        .filter(|rule| {
            let alone = Ruleset {
                rules: vec![(*rule).clone()],
                endpoint: String::new(),
                direction: ruleset.direction,
                default: Action::Allow,
                options: Options::default(),
            };
            reference::evaluate(&alone, frame).rule.is_some()
        })
        .collect()
}

fn in_words(rule: &Rule) -> String {
    format!("{} {}", rule.action.name(), rule.matches)
}

fn text(ruleset: &Ruleset, decision: Decision, others: &[&Rule]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<9}{value}");
    };
    line("verdict", decision.verdict.name());
    line("reason", decision.reason.name());
    if let Some(stage) = stage_of(ruleset, decision) {
        line("stage", stage);
    }
    match decision
        .rule
        .and_then(|rule| ruleset.rules.get(rule as usize))
    {
        Some(rule) => {
            line("policy", &rule.id.policy);
            line("rule", &format!("{}: {}", rule.id.index, in_words(rule)));
            if let Some(source) = &rule.source {
                line("source", &source.to_string());
            }
        }
        None => line("rule", "none"),
    }
    if !others.is_empty() {
        text.push_str("would have matched after it:\n");
        for rule in others {
            let place = rule
                .source
                .as_ref()
                .map_or_else(String::new, |source| format!("  ({source})"));
            let _ = writeln!(
                text,
                "  {} {} {}: {}{place}",
                rule.id.stage.name(),
                rule.id.policy,
                rule.id.index,
                in_words(rule)
            );
        }
    }
    text
}

fn json(ruleset: &Ruleset, decision: Decision, others: &[&Rule]) -> Value {
    let describe = |rule: &Rule| {
        json!({
            "stage": rule.id.stage.name(),
            "policy": rule.id.policy,
            "rule": rule.id.index,
            "action": rule.action.name(),
            "source": rule.source,
        })
    };
    let (policy, rule) = decided_by(ruleset, decision);
    let source = decision
        .rule
        .and_then(|rule| ruleset.rules.get(rule as usize))
        .and_then(|rule| rule.source.as_ref());
    json!({
        "schema": 1,
        "verdict": decision.verdict.name(),
        "reason": decision.reason.name(),
        "stage": stage_of(ruleset, decision),
        "policy": policy,
        "rule": rule,
        "source": source,
        "also_matching": others.iter().map(|rule| describe(rule)).collect::<Vec<_>>(),
    })
}
