//! `nodewall explain`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::sync::Arc;

use clap::Args;
use filter_common::verdict::Reason;
use serde_json::{Value, json};

use super::args::{DirectionFlag, EndpointFlags, Global, OptionFlags, TableOrJson};
use super::compiled::{Request, one_target};
use super::error::Failure;
use super::output::index_of;
use super::replay::{decided_by, stage_of};
use crate::compile::Image;
use crate::decision::Decision;
use crate::packet_text::PacketText;
use crate::policy::DEFAULT_TIER;
use crate::reference;
use crate::ruleset::{Action, Direction, Essentials, Options, Rule, Ruleset, Stage};

/// Say what happens to a packet, and why
///
/// The packet is judged twice, by the naive reference evaluator and by the
/// compiled tables; they must agree. Needs no privileges, but for --in-force.
#[derive(Args, Debug)]
#[command(after_help = "Packets:
  'tcp 203.0.113.7:51515 > 192.0.2.10:30080'
  'udp [2001:db8::7]:53 > [2001:db8::10]:32767'
  'icmp 203.0.113.7 > 192.0.2.10 type 8 code 0'
  'icmpv6 2001:db8::7 > 2001:db8::10 type 135 hoplimit 64'
  'proto 47 203.0.113.7 > 192.0.2.10'
  'udp 203.0.113.7 > 192.0.2.10 frag'            a later fragment
  'udp 203.0.113.7 > 192.0.2.10 cut'             its header is cut short
  'hidden 2001:db8::7 > 2001:db8::10'            an extension header is
  'tcp 203.0.113.7:1 > 192.0.2.10:80 vlan 10'

Example:
  nodewall explain -f policy.yaml --interface eth0 --label role=worker \\
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

    /// Ask the policy in force on an interface instead of files. Its own
    /// options hold, not those given here
    #[arg(long, conflicts_with_all = ["filenames", "recursive", "labels"])]
    in_force: bool,

    /// The direction that the packet is taken to have
    #[arg(long, value_enum, default_value = "ingress")]
    direction: DirectionFlag,

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

    /// The packet, in one argument: see below
    packet: String,

    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    options: OptionFlags,
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
                live: false,
                ingress_only: false,
                times: std::rc::Rc::default(),
                found: std::rc::Rc::default(),
            };
            Arc::new(one_target(&request, self.direction.direction())?.ruleset)
        };
        let image = Image::compile(&ruleset, self.options.max_memory).map_err(Failure::failed)?;
        let frame = packet.frame();
        let judgement = reference::judge(&ruleset, &frame);
        let compiled = image.judge(&frame);
        if judgement != compiled {
            return Err(Failure::failed(format_args!(
                "internal: the reference evaluator says {judgement:?} and the compiled tables say \
                 {compiled:?} of this packet. Please report it with the policy."
            )));
        }
        let decision = judgement.decision;
        let answer = Answer {
            ruleset: &ruleset,
            decision,
            end: end_of_tier(&ruleset, decision, &frame),
            noted: judgement
                .noted
                .iter()
                .filter_map(|rule| ruleset.rules.get(*rule as usize))
                .collect(),
            undecided: undecided(&ruleset, decision, &frame),
            others: also_matching(&ruleset, decision, &frame),
        };
        match self.output {
            TableOrJson::Table => write!(stdout(), "{}", answer.text())?,
            TableOrJson::Json => writeln!(stdout(), "{:#}", answer.json())?,
        }
        Ok(())
    }

    fn ruleset_in_force(&self, global: &Global) -> Result<Arc<Ruleset>, Failure> {
        let mut all = global.datapath()?.status()?;
        if let [interface] = self.endpoint.interface.as_slice() {
            all.retain(|status| status.interface == *interface);
        }
        match all.len() {
            1 => {
                let status = all.remove(0);
                match (self.direction.direction(), status.egress) {
                    (Direction::Ingress, _) => Ok(status.ruleset),
                    (Direction::Egress, Some(egress)) => Ok(egress.ruleset),
                    (Direction::Egress, None) => Err(Failure::NotAttached(format!(
                        "what leaves {} is not filtered: all of it passes",
                        status.interface
                    ))),
                }
            }
            0 => Err(Failure::NotAttached(
                "no filter is in force there, so there is nothing to ask. `nodewall status` lists \
                 what is in force; -f asks policy files."
                    .to_owned(),
            )),
            _ => Err(Failure::Usage(
                "several interfaces are filtered: name one with --interface".to_owned(),
            )),
        }
    }
}

/// What would happen to the packet if this were the only rule, and enforced.
fn alone(rule: &Rule, ruleset: &Ruleset, options: Options, frame: &[u8]) -> Decision {
    reference::evaluate(&only(rule, ruleset, options), frame)
}

fn only(rule: &Rule, ruleset: &Ruleset, options: Options) -> Ruleset {
    Ruleset {
        sets: ruleset.sets.clone(),
        rules: vec![Rule {
            action: match rule.action {
                // A packet that shows no ports may not be for a Log either way.
                Action::Log => Action::Log,
                _ => Action::Allow,
            },
            staged: false,
            ..rule.clone()
        }],
        endpoint: String::new(),
        direction: ruleset.direction,
        default: Action::Allow,
        options,
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
            let judged = reference::judge(&only(rule, ruleset, Options::default()), frame);
            !rule.is_default() && (judged.decision.rule.is_some() || !judged.noted.is_empty())
        })
        .collect()
}

/// The end of a tier that decided, where no rule and not the end of all did.
fn end_of_tier<'a>(ruleset: &'a Ruleset, decision: Decision, frame: &[u8]) -> Option<&'a Rule> {
    let by_default = matches!(
        decision.reason,
        Reason::DefaultDeny | Reason::DefaultAllow | Reason::Essential
    );
    let rules = (0..).zip(&ruleset.rules);
    rules
        .filter(|(_, rule)| by_default && rule.is_default() && !rule.staged)
        .find(|(index, rule)| {
            // What comes behind it would do the opposite.
            let so_far = Ruleset {
                rules: ruleset.rules[..=*index].to_vec(),
                default: match rule.action {
                    Action::Deny => Action::Allow,
                    _ => Action::Deny,
                },
                options: Options {
                    essentials: Essentials::NONE,
                    ..ruleset.options.clone()
                },
                ..ruleset.clone()
            };
            let reason = reference::evaluate(&so_far, frame).reason;
            match rule.action {
                Action::Deny => reason == Reason::DefaultDeny,
                _ => reason == Reason::DefaultAllow,
            }
        })
        .map(|(_, rule)| rule)
}

/// The first rule that may match a packet whose ports can't be read, where
/// that is why the packet is dropped.
fn undecided<'a>(ruleset: &'a Ruleset, decision: Decision, frame: &[u8]) -> Option<&'a Rule> {
    if !matches!(decision.reason, Reason::Fragment | Reason::UnreadableL4) {
        return None;
    }
    ruleset
        .rules
        .iter()
        .filter(|rule| !rule.staged)
        .find(|rule| alone(rule, ruleset, ruleset.options.clone(), frame).reason == decision.reason)
}

pub(super) fn in_words(ruleset: &Ruleset, rule: &Rule) -> String {
    let would = if rule.staged { "would " } else { "" };
    format!("{would}{} {}", rule.action.name(), ruleset.words(rule))
}

/// The tier of a rule, where it is not the one that all have.
fn tier_of(rule: &Rule) -> Option<&str> {
    rule.tier.as_deref().filter(|tier| *tier != DEFAULT_TIER)
}

/// Who a rule is and what it says; on a line of its own, where it stands.
pub(super) fn line_of(ruleset: &Ruleset, rule: &Rule) -> String {
    let who = match rule.id.stage {
        Stage::Failsafe => Stage::Failsafe.name().to_owned(),
        stage => {
            let tier = tier_of(rule).map_or_else(String::new, |tier| format!(" [{tier}]"));
            format!(
                "{}{tier} {} {}",
                stage.name(),
                rule.id.policy,
                index_of(rule)
            )
        }
    };
    let place = rule
        .source
        .as_ref()
        .map_or_else(String::new, |source| format!("\n    {source}"));
    format!("{who}: {}{place}", in_words(ruleset, rule))
}

fn describe(ruleset: &Ruleset, rule: &Rule) -> Value {
    let failsafe = rule.id.stage == Stage::Failsafe;
    json!({
        "stage": rule.id.stage.name(),
        "tier": rule.tier,
        "policy": (!failsafe).then_some(&rule.id.policy),
        "rule": rule.id.index.filter(|_| !failsafe),
        "action": rule.action.name(),
        "staged": rule.staged,
        "matches": ruleset.words(rule),
        "source": rule.source,
    })
}

/// What there is to say of a packet.
struct Answer<'a> {
    ruleset: &'a Ruleset,
    decision: Decision,
    /// The end of a tier that decided.
    end: Option<&'a Rule>,
    /// Rules that were met on the way, and counted.
    noted: Vec<&'a Rule>,
    undecided: Option<&'a Rule>,
    others: Vec<&'a Rule>,
}

impl Answer<'_> {
    fn rule(&self) -> Option<&Rule> {
        self.ruleset.rules.get(self.decision.rule? as usize)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<9}{value}");
        };
        line("verdict", self.decision.verdict.name());
        line("reason", self.decision.reason.name());
        if let Some(stage) = stage_of(self.ruleset, self.decision) {
            line("stage", stage);
        }
        match self.rule() {
            Some(rule) if rule.id.stage == Stage::Failsafe => {
                line("rule", &in_words(self.ruleset, rule));
            }
            Some(rule) => {
                if let Some(tier) = &rule.tier {
                    line("tier", tier);
                }
                line("policy", &rule.id.policy);
                line(
                    "rule",
                    &format!("{}: {}", index_of(rule), in_words(self.ruleset, rule)),
                );
            }
            None => {
                match self.end {
                    Some(end) if end.tier.is_some() => {
                        line("tier", &format!("{}, at its end", end.id.policy));
                    }
                    Some(_) => line("tier", "none: forwarded, and no policy is about that"),
                    None => {}
                }
                line("rule", "none");
            }
        }
        if let Some(source) = self.rule().and_then(|rule| rule.source.as_ref()) {
            line("source", &source.to_string());
        }
        if !self.noted.is_empty() {
            text.push_str("met on the way:\n");
            for rule in &self.noted {
                let _ = writeln!(text, "  {}", line_of(self.ruleset, rule));
            }
        }
        if let Some(rule) = self.undecided {
            text.push_str("dropped, as this rule may match it and its ports can't be read:\n");
            let _ = writeln!(text, "  {}", line_of(self.ruleset, rule));
        }
        if !self.others.is_empty() {
            text.push_str("would have matched after it:\n");
            for rule in &self.others {
                let _ = writeln!(text, "  {}", line_of(self.ruleset, rule));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let (policy, rule) = decided_by(self.ruleset, self.decision);
        json!({
            "schema": 1,
            "verdict": self.decision.verdict.name(),
            "reason": self.decision.reason.name(),
            "stage": stage_of(self.ruleset, self.decision),
            "tier": self.rule().or(self.end).and_then(|rule| rule.tier.as_deref()),
            "policy": policy,
            "rule": rule,
            "source": self.rule().and_then(|rule| rule.source.as_ref()),
            "noted": self.noted.iter().map(|rule| describe(self.ruleset, rule)).collect::<Vec<_>>(),
            "undecided": self.undecided.map(|rule| describe(self.ruleset, rule)),
            "also_matching": self.others.iter().map(|rule| describe(self.ruleset, rule)).collect::<Vec<_>>(),
        })
    }
}
