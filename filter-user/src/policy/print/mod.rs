//! Model → Calico v3 documents, as JSON or YAML.
//!
//! Whatever format a policy came in, its v3 form decides the same. Where v3
//! can't say something in the same words (tags, the longest network first,
//! more networks than a list may have), it is said in others; what it can't
//! say at all is an error.

mod documents;
mod fit;
mod names;
mod nets;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use self::fit::At;
use self::names::Names;
use super::diagnostic::{Code, Diagnostic, Place, quote};
use super::endpoints::Endpoint;
use super::model::{Model, Policy};
use super::selector::{Labels, Selector};
use crate::ruleset::{Action, Direction};

/// The label of sets that are made here; its value is the set's name.
const GENERATED: &str = "nodewall.io/set";

/// What the labels begin with that stand for v1 tags.
const TAG: &str = "nodewall.io/tag.";

/// The label by which the policy that an `IngressNodeFirewall` becomes selects
/// its endpoints; its value is the policy's name.
const FIREWALL: &str = "nodewall.io/firewall";

/// The node of endpoints that name none.
const ANY_NODE: &str = "this-node";

/// The documents of a model.
#[derive(Debug, Default)]
pub struct Printed {
    /// The documents: tiers, sets, profiles, endpoints, and the policies in
    /// evaluation order.
    pub documents: Vec<Document>,
    /// What is said in other words, and (errors) what can't be said.
    pub diagnostics: Vec<Diagnostic>,
}

/// A v3 document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The kind.
    pub kind: &'static str,
    /// The policy it comes from, as the model has its name.
    pub policy: Option<Arc<str>>,
    /// The document, but for the networks of a set.
    pub value: Value,
    /// The networks of a set: there may be very many.
    pub nets: Arc<Vec<IpNet>>,
}

impl Document {
    /// The document as it is written.
    #[must_use]
    pub fn complete(&self) -> Value {
        with_nets(self.value.clone(), &self.nets)
    }
}

/// A document with the networks of its set in it.
#[must_use]
pub fn with_nets(mut document: Value, nets: &[IpNet]) -> Value {
    if !nets.is_empty() {
        document["spec"]["nets"] = nets.iter().map(ToString::to_string).collect();
    }
    document
}

impl Printed {
    /// The documents as they are written.
    #[must_use]
    pub fn complete(&self) -> Vec<Value> {
        self.documents.iter().map(Document::complete).collect()
    }
}

/// A stream of YAML documents.
#[must_use]
pub fn to_yaml(documents: &[Value]) -> String {
    yaml::stream(documents)
}

/// One JSON document that holds them all.
#[must_use]
pub fn to_list(documents: &[Value]) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": documents})
}

/// Which part of a model is printed.
#[derive(Clone, Debug, Default)]
pub struct PrintOptions<'a> {
    /// The node of endpoints that name none.
    pub node: Option<&'a str>,
    /// Endpoints that no document describes.
    pub endpoints: &'a [Endpoint],
    /// What is in force on this endpoint, alone.
    pub in_force_on: Option<&'a Endpoint>,
}

/// Prints a model.
#[must_use]
pub fn print(model: &Model, options: &PrintOptions<'_>) -> Printed {
    let mut printer = Printer::new(model, options);
    let mut documents = printer.documents();
    if !printer.sets.is_empty() {
        // Selectors must not select the sets that were made.
        let generated = std::mem::take(&mut printer.sets);
        printer = Printer::new(model, options);
        printer.guarded = true;
        documents = printer.documents();
        debug_assert_eq!(generated.len(), printer.sets.len());
    }
    Printed {
        documents,
        diagnostics: printer.diagnostics,
    }
}

/// Prints a model, piece by piece.
struct Printer<'m> {
    model: &'m Model,
    options: &'m PrintOptions<'m>,
    names: Names,
    /// The names that policies have in v3, by those that they had.
    renamed: BTreeMap<Arc<str>, String>,
    /// The orders of policies that are not as they were.
    orders: BTreeMap<Arc<str>, f64>,
    /// Sets that were made, with their names.
    sets: Vec<(String, Vec<IpNet>)>,
    /// Whether selectors must keep off them.
    guarded: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'m> Printer<'m> {
    fn new(model: &'m Model, options: &'m PrintOptions<'m>) -> Self {
        let mut names = Names::default();
        for set in model.sets() {
            names.take(&set.name);
        }
        Self {
            model,
            options,
            names,
            renamed: BTreeMap::new(),
            orders: BTreeMap::new(),
            sets: Vec::new(),
            guarded: false,
            diagnostics: Vec::new(),
        }
    }

    /// A set for networks that no list of v3 can hold. Gives its name.
    fn set(&mut self, nets: &[IpNet], what: &str, at: &At<'_>) -> String {
        let nets = nets::tidy(nets);
        if let Some((name, _)) = self.sets.iter().find(|(_, known)| *known == nets) {
            return name.clone();
        }
        let (owner, direction, index) = (at.owner, at.direction, at.index);
        let name = format!("{owner}-{direction}-{index}-{what}");
        let name = self.names.derive(&name);
        self.sets.push((name.clone(), nets));
        name
    }

    /// A selector of sets, so that it doesn't select those that are made here.
    fn guarded(&self, selector: &Selector) -> String {
        if self.keeps_off(selector) {
            format!("({selector}) && !has({GENERATED})")
        } else {
            selector.to_string()
        }
    }

    /// Whether a selector would select the sets that are made here.
    fn keeps_off(&self, selector: &Selector) -> bool {
        let made = Labels::from([(GENERATED.to_owned(), String::new())]);
        self.guarded && selector.matches(&made)
    }

    /// A rule's selector and its `namespaceSelector`.
    fn selector(
        &self,
        selector: &Selector,
        namespace: Option<&str>,
    ) -> (Option<String>, Option<String>) {
        match namespace {
            None => (Some(self.guarded(selector)), None),
            Some(own) => {
                let (labels, namespaces) = selector.split_namespaces(own);
                // Sets that are made here are in no namespace: `global()` selects
                // them, and so does what says which namespace it is not.
                let labels = if self.keeps_off(selector) {
                    format!("({labels}) && !has({GENERATED})")
                } else {
                    labels
                };
                (Some(labels), namespaces)
            }
        }
    }

    /// Reports what v3 can't say.
    fn cannot(&mut self, at: &At<'_>, code: Code, message: &str, help: &str) {
        let message = format!("rule {} {message}", self.rule_name(at));
        let mut diagnostic = Diagnostic::error(code, message).help(help);
        if let Some(policy) = at.policy {
            diagnostic = diagnostic.at(policy.place().clone());
        }
        self.say(diagnostic);
    }

    /// Reports what v3 says in other words.
    fn differs(&mut self, at: &At<'_>, message: &str) {
        let message = format!("rule {} {message}", self.rule_name(at));
        let mut diagnostic = Diagnostic::warning(Code::Converted, message);
        if let Some(policy) = at.policy {
            diagnostic = diagnostic.at(policy.place().clone());
        }
        self.say(diagnostic);
    }

    #[expect(clippy::unused_self, reason = "reads like the other messages")]
    fn rule_name(&self, at: &At<'_>) -> String {
        format!("{} of {} ({})", at.index, quote(at.owner), at.rule.source)
    }

    fn say(&mut self, diagnostic: Diagnostic) {
        // Printing goes twice over a model that needs sets.
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn warn(&mut self, place: &Place, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::warning(Code::Converted, message).at(place.clone());
        let diagnostic = if help.is_empty() {
            diagnostic
        } else {
            diagnostic.help(help)
        };
        self.say(diagnostic);
    }

    /// The policies that are printed, in evaluation order.
    fn policies(&self) -> Vec<&'m Policy> {
        let all = self.model.policies().iter();
        all.filter(|policy| {
            self.options
                .in_force_on
                .is_none_or(|endpoint| endpoint.is_selected_by(policy))
        })
        .collect()
    }
}

/// As v3 calls an action.
const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Log => "Log",
        Action::Pass => "Pass",
    }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
