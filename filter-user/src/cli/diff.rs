//! `nodewall diff`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use filter_common::verdict::Verdict;
use serde_json::{Value, json};

use super::args::{EndpointFlags, Files, Global, OptionFlags, TableOrJson};
use super::compiled::{self, Request};
use super::error::Failure;
use super::explain::{in_words, line_of};
use super::output::index_of;
use crate::compile::{Difference, differences};
use crate::decision::Decision;
use crate::ruleset::{Action, Direction, NetSet, Rule, RuleId, Ruleset};

/// Say what apply would change
///
/// Compares the policies with what is in force: which rules are added, removed
/// and changed, and which packets would then be treated differently, each kind
/// with an example. That is computed on the compiled classes, and so complete.
/// Exit code 0 where nothing would change, 1 where something would, more on
/// errors.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall diff -f policy.yaml --interface eth0 --label ibm.role=worker_public
  nodewall diff -f new.yaml --from old.yaml --interface eth0      (two files)")]
pub(super) struct Diff {
    #[command(flatten)]
    files: Files,

    /// Compare with these files or folders, and not with what is in force. Needs
    /// no privileges
    #[arg(long, value_name = "PATH", num_args = 1..)]
    from: Vec<PathBuf>,

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

impl Diff {
    /// Runs the verb; its exit codes are its own.
    pub(super) fn run(&self, global: &Global) -> ExitCode {
        match self.compare(global) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            // 1 means that something would change.
            Err(Failure::Failed(message)) => Failure::Usage(message).report(global.color),
            Err(Failure::Reported) => ExitCode::from(2),
            Err(failure) => failure.report(global.color),
        }
    }

    /// Whether nothing would change.
    fn compare(&self, global: &Global) -> Result<bool, Failure> {
        let request = Request::new(&self.files, &self.endpoint, &self.options, global);
        let (before, after) = if self.from.is_empty() {
            let after = compiled::plain_targets(&request.on_this_host())?;
            let in_force = global.datapath()?.status()?;
            let mut before = Before::new();
            for status in in_force {
                let egress = status.egress.map(|egress| egress.ruleset);
                add(&mut before, &status.interface, Some(status.ruleset));
                add(&mut before, &status.interface, egress);
            }
            (before, after)
        } else {
            let after = compiled::plain_targets(&request)?;
            let before = compiled::plain_targets(&Request {
                filenames: &self.from,
                ..request
            })?;
            let mut all = Before::new();
            for target in before {
                let egress = target.egress_in_force(true);
                let egress = egress.map(|egress| Arc::new(egress.ruleset.clone()));
                add(&mut all, &target.interface, Some(Arc::new(target.ruleset)));
                add(&mut all, &target.interface, egress);
            }
            (all, after)
        };
        let mut changes = Vec::new();
        for target in &after {
            let interface = &target.interface;
            let was = |direction| before.get(&(interface.clone(), direction));
            let ingress = was(Direction::Ingress);
            changes.push(Changes::between(
                ingress.map(|one| &**one),
                interface,
                &target.ruleset,
            )?);
            // What goes out is filtered where a rule, or return traffic, asks for it.
            let (was, is) = (was(Direction::Egress), target.egress_in_force(true));
            if was.is_some() || is.is_some() {
                let is = is.map(|egress| egress.ruleset.clone());
                let is = is.unwrap_or_else(|| everything(&target.ruleset));
                changes.push(Changes::between(was.map(|one| &**one), interface, &is)?);
            }
        }
        match self.output {
            TableOrJson::Table => {
                for change in &changes {
                    write!(stdout(), "{}", change.text())?;
                }
            }
            TableOrJson::Json => {
                let interfaces: Vec<Value> = changes.iter().map(Changes::json).collect();
                writeln!(
                    stdout(),
                    "{:#}",
                    json!({"schema": 1, "interfaces": interfaces})
                )?;
            }
        }
        Ok(changes.iter().all(Changes::is_empty))
    }
}

/// The rulesets before, by interface and direction.
type Before = BTreeMap<(String, Direction), Arc<Ruleset>>;

fn add(before: &mut Before, interface: &str, ruleset: Option<Arc<Ruleset>>) {
    if let Some(ruleset) = ruleset {
        before.insert((interface.to_owned(), ruleset.direction), ruleset);
    }
}

/// What is in force on what goes out where nothing is filtered.
fn everything(ingress: &Ruleset) -> Ruleset {
    Ruleset {
        direction: Direction::Egress,
        sets: Vec::new(),
        rules: Vec::new(),
        default: Action::Allow,
        ..ingress.clone()
    }
}

/// What changes on an interface, in one direction.
struct Changes {
    interface: String,
    /// Whether something is in force.
    was: bool,
    before: Ruleset,
    after: Ruleset,
    /// Rules by identity, with what is there before and after.
    rules: Vec<(Option<Rule>, Option<Rule>)>,
    order: bool,
    traffic: Vec<Difference>,
}

impl Changes {
    fn between(was: Option<&Ruleset>, interface: &str, after: &Ruleset) -> Result<Self, Failure> {
        // Without a filter all packets pass.
        let before = was.cloned().unwrap_or_else(|| Ruleset {
            sets: Vec::new(),
            rules: Vec::new(),
            default: Action::Allow,
            ..after.clone()
        });
        let traffic = differences(&before, after).map_err(Failure::failed)?;
        let (old, new) = (contents(&before), contents(after));
        let ids: BTreeSet<&RuleId> = old.keys().chain(new.keys()).collect();
        let find = |ruleset: &Ruleset, id: &RuleId| {
            ruleset.rules.iter().find(|rule| rule.id == *id).cloned()
        };
        let rules = ids
            .into_iter()
            .filter(|id| old.get(id) != new.get(id))
            .map(|id| (find(&before, id), find(after, id)))
            .collect();
        // The order of the rules that stay.
        let kept = |ruleset: &Ruleset, other: &BTreeMap<RuleId, _>| -> Vec<RuleId> {
            let ids = ruleset.rules.iter().map(|rule| rule.id.clone());
            ids.filter(|id| other.contains_key(id)).collect()
        };
        Ok(Self {
            interface: interface.to_owned(),
            was: was.is_some(),
            order: kept(&before, &new) != kept(after, &old),
            rules,
            traffic,
            before,
            after: after.clone(),
        })
    }

    fn is_empty(&self) -> bool {
        self.was
            && self.rules.is_empty()
            && !self.order
            && self.traffic.is_empty()
            && self.settings().is_empty()
    }

    /// What changes beside the rules.
    fn settings(&self) -> Vec<String> {
        let (old, new) = (&self.before, &self.after);
        let words = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let mut changes = Vec::new();
        let mut compare = |name: &str, old: Value, new: Value| {
            if old != new {
                changes.push(format!("{name}: {} -> {}", words(old), words(new)));
            }
        };
        compare(
            "default",
            old.default.name().into(),
            new.default.name().into(),
        );
        let (old, new) = (json!(old.options), json!(new.options));
        for (name, old) in old.as_object().into_iter().flatten() {
            compare(name, old.clone(), new[name].clone());
        }
        changes
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // What goes out may not be asked for at all: it is said where it changes.
        if self.is_empty() && self.after.direction == Direction::Egress {
            return text;
        }
        let egress = match self.after.direction {
            Direction::Ingress => "",
            Direction::Egress => ", egress",
        };
        let _ = writeln!(text, "{}{egress}:", self.interface);
        if self.is_empty() {
            text.push_str("  nothing changes\n");
            return text;
        }
        if !self.was {
            text.push_str("  nothing is in force there: all packets pass\n");
        }
        for change in self.settings() {
            let _ = writeln!(text, "  {change}");
        }
        if self.order {
            text.push_str("  rules that stay come in another order\n");
        }
        for (old, new) in &self.rules {
            if let Some(old) = old {
                let _ = writeln!(text, "  - {}", short(&self.before, old));
            }
            if let Some(new) = new {
                let _ = writeln!(text, "  + {}", short(&self.after, new));
            }
        }
        if self.traffic.is_empty() {
            text.push_str("  no IP packet is treated differently\n");
        }
        for difference in &self.traffic {
            let verb = match difference.after.verdict {
                Verdict::Drop => "dropped",
                Verdict::Pass => "let through",
            };
            let _ = writeln!(text, "  {verb}, and wasn't: {}", difference.example);
            let _ = writeln!(text, "    now: {}", who(&self.after, difference.after));
            let _ = writeln!(text, "    was: {}", who(&self.before, difference.before));
        }
        text
    }

    fn json(&self) -> Value {
        let rule = |ruleset: &Ruleset, rule: &Option<Rule>| {
            rule.as_ref().map(|rule| {
                json!({
                    "stage": rule.id.stage.name(),
                    "tier": rule.tier,
                    "policy": rule.id.policy,
                    "rule": rule.id.index,
                    "action": rule.action.name(),
                    "staged": rule.staged,
                    "matches": ruleset.words(rule),
                    "source": rule.source,
                })
            })
        };
        let decision = |ruleset: &Ruleset, decision: Decision| {
            let by = decision
                .rule
                .and_then(|rule| ruleset.rules.get(rule as usize));
            json!({
                "verdict": decision.verdict.name(),
                "reason": decision.reason.name(),
                "policy": by.map(|rule| &rule.id.policy),
                "rule": by.and_then(|rule| rule.id.index),
            })
        };
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|(old, new)| {
                json!({"before": rule(&self.before, old), "after": rule(&self.after, new)})
            })
            .collect();
        let traffic: Vec<Value> = self
            .traffic
            .iter()
            .map(|difference| {
                json!({
                    "example": difference.example.to_string(),
                    "before": decision(&self.before, difference.before),
                    "after": decision(&self.after, difference.after),
                })
            })
            .collect();
        json!({
            "interface": self.interface,
            "direction": self.after.direction,
            "in_force": self.was,
            "same": self.is_empty(),
            "settings": self.settings(),
            "reordered": self.order,
            "rules": rules,
            "traffic": traffic,
        })
    }
}

/// A rule in one line.
fn short(ruleset: &Ruleset, rule: &Rule) -> String {
    let line = line_of(ruleset, rule);
    line.lines().next().unwrap_or_default().to_owned()
}

/// What decides, in words.
fn who(ruleset: &Ruleset, decision: Decision) -> String {
    let rule = decision
        .rule
        .and_then(|rule| ruleset.rules.get(rule as usize));
    match rule {
        Some(rule) => format!(
            "{}, by {} {}: {}",
            decision.reason.name(),
            rule.id.policy,
            index_of(rule),
            in_words(ruleset, rule)
        ),
        None => decision.reason.name().to_owned(),
    }
}

/// What the rules say, by identity.
fn contents(ruleset: &Ruleset) -> BTreeMap<RuleId, (Rule, Vec<&NetSet>)> {
    let rules = ruleset.rules.iter();
    rules
        .map(|rule| (rule.id.clone(), rule_content(ruleset, rule)))
        .collect()
}

/// Whether two rules say the same: see [`rule_content`].
pub(super) fn same_content(
    (before, old): (&Ruleset, &Rule),
    (after, new): (&Ruleset, &Rule),
) -> bool {
    let has_sets = |rule: &Rule| {
        let mut sides = rule
            .matches
            .iter()
            .flat_map(|asked| [&asked.src, &asked.dst]);
        sides.any(|side| !side.sets.is_empty() || !side.not_sets.is_empty())
    };
    if has_sets(old) || has_sets(new) {
        return rule_content(before, old) == rule_content(after, new);
    }
    // There may be a million, so without copies.
    let Rule {
        id,
        tier,
        action,
        staged,
        matches,
        source: _,
    } = old;
    (id, tier, action, staged, matches)
        == (&new.id, &new.tier, &new.action, &new.staged, &new.matches)
}

/// What a rule says: with the content of its sets and not their numbers, and
/// without its place.
fn rule_content<'r>(ruleset: &'r Ruleset, rule: &Rule) -> (Rule, Vec<&'r NetSet>) {
    let mut rule = rule.clone();
    rule.source = None;
    let mut sets = Vec::new();
    for asked in &mut rule.matches {
        for side in [&mut asked.src, &mut asked.dst] {
            for set in side.sets.iter_mut().chain(&mut side.not_sets) {
                sets.extend(ruleset.sets.get(*set as usize));
                *set = 0;
            }
        }
    }
    (rule, sets)
}
