//! `nodewall get`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::args::Global;
use super::error::Failure;
use super::output::{Color, columns, fit, grouped, index_of, terminal_size, time, warning};
use crate::datapath::{Count, Described, DescribedDocument, Mode, Stats, Status};
use crate::policy::print;
use crate::ruleset::{Direction, Rule, Ruleset};
use crate::telemetry::document;

/// Read back what is in force
///
/// Everything comes from the pinned state: no process and no file is needed.
/// As YAML or JSON, policies come with all that they need, and go back into
/// `nodewall apply -f -` unchanged.
/// Exit code 3 where nothing is attached.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall get policies
  nodewall get rules --interface eth0 -o wide
  nodewall get policies -o yaml > in-force.yaml
  nodewall get policies -o yaml | nodewall apply -f - --dry-run")]
pub(super) struct Get {
    /// What to read
    #[arg(value_enum)]
    what: What,

    /// These alone: names of policies, endpoints or sets; of rules, their
    /// policies
    names: Vec<String>,

    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    output: Format,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The policies, in evaluation order
    #[value(alias = "policy")]
    Policies,
    /// The flat list of rules
    #[value(alias = "rule")]
    Rules,
    /// The host endpoints
    #[value(alias = "endpoint")]
    Endpoints,
    /// The network sets
    #[value(alias = "set")]
    Sets,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// All there is, in as many columns as it takes
    Wide,
    /// One JSON document
    Json,
    /// A stream of YAML documents
    Yaml,
}

/// What is in force on an interface, in each direction that is filtered.
fn sides(status: &Status) -> impl Iterator<Item = (&Ruleset, &Stats)> {
    status.totals().map(|stats| (&*stats.ruleset, stats))
}

impl Get {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let mut all = global.datapath()?.status_described()?;
        if let Some(interface) = &self.interface {
            all.retain(|status| status.interface == *interface);
        }
        if all.is_empty() {
            let on = self
                .interface
                .as_ref()
                .map_or_else(String::new, |name| format!(" to {name}"));
            return Err(Failure::NotAttached(format!(
                "nothing is attached{on}. `nodewall apply -f POLICY --interface IF` attaches a filter."
            )));
        }
        self.check_names(&all)?;
        let text = match (self.output, self.what) {
            (Format::Table | Format::Wide, _) => self.tables(&all),
            (Format::Json, What::Rules) => format!("{:#}\n", self.rules(&all)),
            (Format::Yaml, What::Rules) => print::to_yaml(&[self.rules(&all)]),
            (format, _) => {
                let documents = self.documents(&all, global.color)?;
                if format == Format::Yaml {
                    print::to_yaml(&documents)
                } else {
                    format!("{:#}\n", print::to_list(&documents))
                }
            }
        };
        stdout().write_all(text.as_bytes())?;
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    /// Each name must be one of something.
    fn check_names(&self, all: &[Status]) -> Result<(), Failure> {
        let mut known: Vec<&str> = all
            .iter()
            .flat_map(|status| match self.what {
                What::Policies => policies(status),
                What::Rules => {
                    let rules = sides(status).flat_map(|(ruleset, _)| &ruleset.rules);
                    rules.map(|rule| &*rule.id.policy).collect()
                }
                What::Endpoints => names_of(status, &["HostEndpoint"]),
                What::Sets => names_of(status, &["GlobalNetworkSet", "NetworkSet"]),
            })
            .collect();
        known.sort_unstable();
        known.dedup();
        match self
            .names
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(Failure::failed(format_args!(
                "{name:?} is not in force; there {}",
                match known.as_slice() {
                    [] => "are none".to_owned(),
                    [one] => format!("is {one}"),
                    several => format!("are {}", several.join(", ")),
                }
            ))),
        }
    }

    /// The documents in force, those of several interfaces together.
    fn documents(&self, all: &[Status], color: Color) -> Result<Vec<Value>, Failure> {
        for status in all {
            for unsaid in &status.described.unsaid {
                warning(color, format_args!("{}: {unsaid}", status.interface));
            }
        }
        let parts = all.iter();
        let parts = parts.map(|status| (status.interface.as_str(), &status.described));
        gather(parts, |document| {
            let kind = text_of(&document.value, "kind");
            let rank = rank(kind);
            let named = self.names.is_empty() || self.wants(&shown_name(document));
            match self.what {
                What::Policies => named && (self.names.is_empty() || rank == POLICY),
                What::Endpoints => named && kind == "HostEndpoint",
                What::Sets => named && rank == SET,
                What::Rules => false,
            }
        })
    }

    fn rules(&self, all: &[Status]) -> Value {
        document::value(&document::rules(all, |policy| self.wants(policy)))
    }

    fn tables(&self, all: &[Status]) -> String {
        let wide = self.output == Format::Wide;
        let width = terminal_size().0.max(80);
        let mut text = String::new();
        for (place, status) in all.iter().enumerate() {
            if all.len() > 1 {
                let gap = if place > 0 { "\n" } else { "" };
                let _ = writeln!(text, "{gap}{}:", status.interface);
            }
            text += &match self.what {
                What::Policies => self.policy_table(status, wide),
                What::Rules => sides(status)
                    .map(|side| self.rule_table(side, wide))
                    .collect(),
                What::Endpoints => self.endpoint_table(status, wide),
                What::Sets => self.set_table(status, wide),
            };
        }
        if wide {
            return text;
        }
        let lines: Vec<String> = text.lines().map(|line| fit(line, width) + "\n").collect();
        lines.concat()
    }

    fn policy_table(&self, status: &Status, wide: bool) -> String {
        let mut headings = vec!["POLICY", "TIER", "STAGE", ">ORDER", ">RULES", ">PACKETS"];
        if wide {
            headings.extend([">BYTES", "KIND", "SELECTOR"]);
        }
        let mut rows = Vec::new();
        for name in policies(status).into_iter().filter(|name| self.wants(name)) {
            let of = |rule: &(&Rule, Count)| *rule.0.id.policy == *name && !rule.0.is_default();
            let rules = status.totals().flat_map(Stats::rules);
            let rules: Vec<(&Rule, Count)> = rules.filter(of).collect();
            let total = rules
                .iter()
                .fold(Count::default(), |sum, (_, count)| sum + *count);
            let mut documents = status.described.documents.iter();
            let document = documents.find(|one| one.policy.as_deref() == Some(name));
            let spec = document.map_or(&Value::Null, |document| &document.value["spec"]);
            let first = rules.first().map(|(rule, _)| rule);
            let tier = first
                .and_then(|rule| rule.tier.as_deref())
                .or_else(|| spec["tier"].as_str())
                .unwrap_or("default");
            let stage = if spec["doNotTrack"] == true {
                "untracked"
            } else if spec["preDNAT"] == true {
                "preDNAT"
            } else {
                "normal"
            };
            let stage = first.map_or(stage, |rule| rule.id.stage.name());
            let mut row = vec![
                if wide { name.to_owned() } else { fit(name, 34) },
                if wide { tier.to_owned() } else { fit(tier, 12) },
                stage.to_owned(),
                match &spec["order"] {
                    Value::Null => "-".to_owned(),
                    order => order.to_string(),
                },
                rules.len().to_string(),
                grouped(total.packets),
            ];
            if wide {
                row.push(grouped(total.bytes));
                row.push(
                    document
                        .map_or("-", |one| text_of(&one.value, "kind"))
                        .to_owned(),
                );
                row.push(spec["selector"].as_str().unwrap_or("-").to_owned());
            }
            rows.push(row);
        }
        columns(&headings, &rows)
    }

    fn rule_table(&self, (ruleset, stats): (&Ruleset, &Stats), wide: bool) -> String {
        let mut headings = vec!["STAGE", "POLICY", ">RULE", "ACTION", ">PACKETS"];
        if wide {
            headings = vec![
                "STAGE", "TIER", "POLICY", ">RULE", "ACTION", ">PACKETS", ">BYTES", "SOURCE",
            ];
        }
        headings.push("MATCH");
        let mut rows = Vec::new();
        for (rule, count) in stats.rules() {
            if !self.wants(&rule.id.policy) {
                continue;
            }
            let action = if rule.staged {
                format!("({})", rule.action.name())
            } else {
                rule.action.name().to_owned()
            };
            let stage = rule.id.stage.name().to_owned();
            let mut row = if wide {
                let source = rule.source.as_ref();
                vec![
                    stage,
                    rule.tier.as_deref().unwrap_or("-").to_owned(),
                    rule.id.policy.to_string(),
                    index_of(rule),
                    action,
                    grouped(count.packets),
                    grouped(count.bytes),
                    source.map_or_else(|| "-".to_owned(), ToString::to_string),
                ]
            } else {
                vec![
                    stage,
                    fit(&rule.id.policy, 24),
                    index_of(rule),
                    action,
                    grouped(count.packets),
                ]
            };
            row.push(ruleset.words(rule));
            rows.push(row);
        }
        let egress = match ruleset.direction {
            Direction::Ingress => "",
            Direction::Egress => "\negress:\n",
        };
        let table = columns(&headings, &rows);
        let default = ruleset.default.name();
        format!("{egress}{table}default: {default}\n")
    }

    fn endpoint_table(&self, status: &Status, wide: bool) -> String {
        let mut headings = vec!["ENDPOINT", "INTERFACE", "MODE", "DEFAULT", ">POLICIES"];
        if wide {
            headings.extend([
                "SINCE",
                "LABELS",
                "PROFILES",
                "FAILSAFE INBOUND",
                "FRAGMENTS",
                "ESSENTIALS",
            ]);
        }
        headings.extend((!wide).then_some("LABELS"));
        let mut rows = Vec::new();
        let documents = status.described.documents.iter();
        let endpoints = documents.filter(|one| text_of(&one.value, "kind") == "HostEndpoint");
        for document in endpoints.filter(|one| self.wants(&shown_name(one))) {
            let labels = document.value["metadata"]["labels"].as_object();
            let labels: Vec<String> = labels
                .into_iter()
                .flat_map(Map::iter)
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            let labels = if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join(",")
            };
            let mut row = vec![
                shown_name(document),
                status.interface.clone(),
                status.mode.map_or("unknown", Mode::name).to_owned(),
                status.ruleset.default.name().to_owned(),
                policies(status).len().to_string(),
            ];
            if wide {
                let options = &status.ruleset.options;
                let profiles: Vec<&str> = document.value["spec"]["profiles"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                row.extend([
                    time(status.since),
                    labels,
                    if profiles.is_empty() {
                        "-".to_owned()
                    } else {
                        profiles.join(",")
                    },
                    status.described.failsafe[0].clone(),
                    json!(options.fragments).as_str().unwrap_or("-").to_owned(),
                    options.essentials.to_string(),
                ]);
            } else {
                row.push(labels);
            }
            rows.push(row);
        }
        columns(&headings, &rows)
    }

    fn set_table(&self, status: &Status, wide: bool) -> String {
        let mut headings = vec!["SET", ">NETWORKS", "LABELS"];
        if wide {
            headings.push("FIRST");
        }
        let mut rows = Vec::new();
        let documents = status.described.documents.iter();
        let sets = documents.filter(|one| rank(text_of(&one.value, "kind")) == SET);
        for document in sets.filter(|one| self.wants(&shown_name(one))) {
            let labels = document.value["metadata"]["labels"].as_object();
            let labels: Vec<String> = labels
                .into_iter()
                .flat_map(Map::iter)
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            let mut row = vec![
                shown_name(document),
                grouped(document.nets.len() as u64),
                if labels.is_empty() {
                    "-".to_owned()
                } else {
                    labels.join(",")
                },
            ];
            if wide {
                let first = document.nets.iter().take(4).map(ToString::to_string);
                row.push(first.collect::<Vec<_>>().join(" "));
            }
            rows.push(row);
        }
        columns(&headings, &rows)
    }
}

/// Where sets and policies stand among documents.
/// The documents that interfaces are filtered by, those that are wanted, each once: what
/// others need comes first, and policies come in evaluation order.
pub(super) fn gather<'d>(
    parts: impl Iterator<Item = (&'d str, &'d Described)>,
    wanted: impl Fn(&DescribedDocument) -> bool,
) -> Result<Vec<Value>, Failure> {
    let mut by_name: BTreeMap<(usize, String), &DescribedDocument> = BTreeMap::new();
    let mut order = Vec::new();
    for (interface, described) in parts {
        if !described.unsaid.is_empty() {
            return Err(Failure::failed(format_args!(
                "not all that is in force on {interface} can be said in Calico v3; `nodewall get \
                 rules` shows all of it"
            )));
        }
        if described.documents.is_empty() {
            return Err(Failure::failed(format_args!(
                "what is in force on {interface} was put there without its documents, by an older \
                 nodewall or a program; `nodewall get rules` shows what it came down to"
            )));
        }
        for document in described.documents.iter().filter(|one| wanted(one)) {
            let kind = text_of(&document.value, "kind");
            let key = (rank(kind), format!("{kind} {}", shown_name(document)));
            match by_name.get(&key) {
                None => {
                    by_name.insert(key.clone(), document);
                    order.push(key);
                }
                Some(known) if *known == document => {}
                Some(_) => {
                    return Err(Failure::failed(format_args!(
                        "the interfaces hold different documents under one name ({}); read \
                         them one by one, with --interface",
                        key.1
                    )));
                }
            }
        }
    }
    order.sort_by_key(|(rank, _)| *rank);
    Ok(order
        .iter()
        .filter_map(|key| by_name.get(key))
        .map(|document| print::with_nets(document.value.clone(), &document.nets))
        .collect())
}

const SET: usize = 1;
const POLICY: usize = 4;

fn rank(kind: &str) -> usize {
    match kind {
        "Tier" => 0,
        "GlobalNetworkSet" | "NetworkSet" => SET,
        "Profile" => 2,
        "HostEndpoint" => 3,
        _ => POLICY,
    }
}

fn text_of<'a>(document: &'a Value, field: &str) -> &'a str {
    document[field].as_str().unwrap_or_default()
}

/// The name of a document as it is asked for: of a policy, as rules have it.
fn shown_name(document: &DescribedDocument) -> String {
    if let Some(policy) = &document.policy {
        return policy.clone();
    }
    let metadata = &document.value["metadata"];
    let name = text_of(metadata, "name");
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn names_of<'a>(status: &'a Status, kinds: &[&str]) -> Vec<&'a str> {
    let documents = status.described.documents.iter();
    documents
        .filter(|one| kinds.contains(&text_of(&one.value, "kind")))
        .map(|one| text_of(&one.value["metadata"], "name"))
        .collect()
}

/// The policies in force, in evaluation order.
fn policies(status: &Status) -> Vec<&str> {
    let policies = status.described.policies.iter();
    policies.map(String::as_str).collect()
}
