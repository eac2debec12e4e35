//! One function a kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::fit::{Asked, At, MAX_SELECTOR, Side};
use super::names::Names;
use super::{ANY_NODE, Document, FIREWALL, GENERATED, Printer, TAG, action_name, direction_name};
use crate::policy::DEFAULT_TIER;
use crate::policy::diagnostic::{Code, Diagnostic, quote};
use crate::policy::endpoints::{Endpoint, Origin, all_labels};
use crate::policy::lower::ingress_node_firewall;
use crate::policy::model::{
    Criteria, HostEndpoint, Interface, Kind, NamedPort, NetworkSet, Peer, Policy, Port, Rule,
};
use crate::policy::selector::{Labels, NAMESPACE, Selector};
use crate::policy::values::{self, family};
use crate::ruleset::{Action, Direction, Family, Icmp, Stage};

/// How many rules a list of v3 may have.
const MAX_RULES: usize = 1_024;

/// Policies of `IngressNodeFirewall`s that are one policy in v3, as they are
/// in force on the same endpoints.
struct Firewall<'m> {
    policies: Vec<&'m Policy>,
    name: String,
    /// Its endpoints: by the name of their document, and interface.
    endpoints: Vec<(String, String)>,
    /// The labels of nodes that are asked for beside, where no endpoint has
    /// them.
    nodes: Option<String>,
}

impl Firewall<'_> {
    /// The label that its endpoints have.
    fn label(&self) -> (String, String) {
        match &self.nodes {
            None => (FIREWALL.to_owned(), self.name.clone()),
            Some(_) => (format!("{FIREWALL}.{}", self.name), String::new()),
        }
    }

    /// What selects them.
    fn selector(&self) -> String {
        let (label, value) = self.label();
        match &self.nodes {
            None => format!("{label} == '{value}'"),
            Some(nodes) => canonical(&format!("({nodes}) && has({label})")),
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "made for it, and in it from here on"
)]
fn object(api_kind: &str, metadata: Map<String, Value>, spec: Map<String, Value>) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": api_kind,
        "metadata": metadata,
        "spec": spec,
    })
}

fn named(name: &str) -> Map<String, Value> {
    Map::from_iter([("name".to_owned(), json!(name))])
}

fn texts<T: ToString>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}

fn labels_of(labels: &Labels) -> Value {
    labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn order_value(order: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and far within its range"
    )]
    if order.fract() == 0.0 && order.abs() < 1e15 {
        json!(order as i64)
    } else {
        json!(order)
    }
}

impl<'m> Printer<'m> {
    /// All documents.
    pub(super) fn documents(&mut self) -> Vec<Document> {
        let policies = self.policies();
        let (firewalls, others): (Vec<&'m Policy>, Vec<&'m Policy>) = policies
            .iter()
            .partition(|policy| policy.kind() == Kind::IngressNodeFirewall);
        self.name_policies(&others);
        let firewalls = self.firewalls(&firewalls);
        // Sets that the policies need come to be when these are printed.
        let mut last = Vec::new();
        let alone = self.firewalls_are_alone();
        for firewall in &firewalls {
            last.push(self.firewall(firewall, alone));
        }
        for policy in &others {
            last.push(self.policy(policy));
        }
        let profiles = self.profiles();
        let endpoints = self.endpoints(&firewalls);
        let mut documents = self.tiers(&others, !firewalls.is_empty() && !alone);
        documents.extend(self.sets(&others));
        documents.extend(profiles);
        documents.extend(endpoints);
        documents.extend(last);
        documents
    }

    fn firewalls_are_alone(&self) -> bool {
        let mut all = self.model.policies().iter();
        all.all(|policy| policy.kind() == Kind::IngressNodeFirewall)
    }

    /// Finds a legal name for each policy, and keeps their order where that
    /// hangs on their names.
    fn name_policies(&mut self, policies: &[&'m Policy]) {
        let mut taken = Names::default();
        for policy in policies {
            if let Some(name) = self.legal_name(policy) {
                taken.take(&name);
            }
        }
        for policy in policies {
            let name = self.legal_name(policy).unwrap_or_else(|| {
                let written = self.written_name(policy);
                let name = taken.derive(written);
                if self.namespace(policy) != policy.selects().namespace.as_deref() {
                    let message = format!(
                        "{} becomes the GlobalNetworkPolicy {}: the endpoint is in no namespace \
                         of its own",
                        quote(written),
                        quote(&name)
                    );
                    self.warn(policy.place(), message, "");
                    return name;
                }
                let message = format!(
                    "the name {} is not legal in v3: the policy becomes {}, with counters of its \
                     own",
                    quote(written),
                    quote(&name)
                );
                self.warn(policy.place(), message, "");
                name
            });
            self.renamed.insert(Arc::clone(policy.name()), name);
        }
        let same = |a: &&Policy, b: &&Policy| {
            (a.stage(), a.tier(), a.order()) == (b.stage(), b.tier(), b.order())
        };
        for group in policies.chunk_by(same) {
            let sorted = group
                .windows(2)
                .all(|pair| self.shown(pair[0]) < self.shown(pair[1]));
            if sorted {
                continue;
            }
            let first = group[0];
            let orders: Vec<f64> = policies
                .iter()
                .filter(|policy| (policy.stage(), policy.tier()) == (first.stage(), first.tier()))
                .filter_map(|policy| policy.order())
                .collect();
            let (start, end) = if let Some(order) = first.order() {
                let next = orders.iter().copied().filter(|other| *other > order);
                (order, next.fold(order + 1.0, f64::min))
            } else {
                let last = orders.iter().copied().fold(0.0, f64::max);
                (last + 1.0, last + 2.0)
            };
            for (place, policy) in group.iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a handful of policies")]
                let order = start + (end - start) * place as f64 / group.len() as f64;
                self.orders.insert(Arc::clone(policy.name()), order);
                let message = format!(
                    "the policy {} gets the order {order}, as its new name would put it elsewhere",
                    quote(policy.name())
                );
                self.warn(policy.place(), message, "");
            }
        }
    }

    /// The namespace that a policy has in v3.
    fn namespace(&self, policy: &'m Policy) -> Option<&'m str> {
        let namespace = policy.selects().namespace.as_deref()?;
        (!self.in_several_namespaces()).then_some(namespace)
    }

    /// Whether an endpoint that no document describes is in several; or in one
    /// whose label would make a difference to other policies.
    fn in_several_namespaces(&self) -> bool {
        let policies = self.policies();
        let namespaces = policies
            .iter()
            .filter_map(|one| one.selects().namespace.as_ref());
        let namespaces: BTreeSet<&String> = namespaces.collect();
        let in_force = self.options.in_force_on;
        let in_force = in_force.filter(|here| here.origin == Origin::CommandLine);
        let implied: Vec<&Endpoint> = self.options.endpoints.iter().chain(in_force).collect();
        let Some(first) = namespaces.first() else {
            return false;
        };
        let differs = |here: &&Endpoint| {
            let mut labels = here.labels.clone();
            labels
                .entry(NAMESPACE.to_owned())
                .or_insert_with(|| (*first).clone());
            policies.iter().any(|policy| {
                let selector = &policy.selects().labels;
                selector.matches(&labels) != selector.matches(&here.labels)
            })
        };
        !implied.is_empty() && (namespaces.len() > 1 || implied.iter().any(differs))
    }

    /// The name as its document has it.
    fn written_name(&self, policy: &'m Policy) -> &'m str {
        let name = &**policy.name();
        let name = if policy.staged() {
            name.strip_prefix("staged:").unwrap_or(name)
        } else {
            name
        };
        match self.namespace(policy) {
            Some(namespace) => name
                .strip_prefix(namespace)
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or(name),
            None => name,
        }
    }

    /// The name, if it is one in v3.
    fn legal_name(&self, policy: &'m Policy) -> Option<String> {
        let name = self.written_name(policy);
        let tier = &**policy.tier();
        let legal = match name.split_once('.') {
            None => values::is_dns_label(name),
            Some((prefix, rest)) => prefix == tier && values::is_dns_label(rest),
        };
        legal.then(|| name.to_owned())
    }

    /// The name as the reader of the v3 document will show it.
    fn shown(&self, policy: &'m Policy) -> String {
        let name = self.renamed.get(policy.name()).map_or("", String::as_str);
        let name = match self.namespace(policy) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        if policy.staged() {
            format!("staged:{name}")
        } else {
            name
        }
    }

    fn tiers(&mut self, policies: &[&Policy], firewalls: bool) -> Vec<Document> {
        let used: BTreeSet<&str> = policies.iter().map(|policy| &**policy.tier()).collect();
        let mut documents = Vec::new();
        if firewalls {
            let orders = self.model.tiers().iter().filter_map(|tier| tier.order);
            let first = orders.fold(0.0, f64::min);
            let spec = Map::from_iter([("order".to_owned(), order_value(first - 1.0))]);
            documents.push(Document {
                kind: "Tier",
                policy: None,
                value: object("Tier", named(ingress_node_firewall::TIER), spec),
                nets: Arc::default(),
            });
        }
        for tier in self.model.tiers() {
            if tier.place.is_none()
                || (self.options.in_force_on.is_some() && !used.contains(&*tier.name))
            {
                continue;
            }
            let mut spec = Map::new();
            if let Some(order) = tier.order {
                spec.insert("order".into(), order_value(order));
            }
            let end = if tier.default_pass { "Pass" } else { "Deny" };
            spec.insert("defaultAction".into(), json!(end));
            documents.push(Document {
                kind: "Tier",
                policy: None,
                value: object("Tier", named(&tier.name), spec),
                nets: Arc::default(),
            });
        }
        documents
    }

    fn sets(&mut self, policies: &[&Policy]) -> Vec<Document> {
        let mut documents = Vec::new();
        let peers: Vec<&Peer> = policies
            .iter()
            .flat_map(|policy| policy.ingress().iter().chain(policy.egress()))
            .chain(self.profile_rules())
            .flat_map(|rule| &rule.criteria)
            .flat_map(|criteria| [&criteria.src, &criteria.dst])
            .collect();
        let selectors: Vec<_> = peers
            .iter()
            .flat_map(|peer| [&peer.selector, &peer.not_selector])
            .flatten()
            .collect();
        let asked_tags: Vec<&String> = peers
            .iter()
            .flat_map(|peer| [&peer.tag, &peer.not_tag])
            .flatten()
            .collect();
        let ports: Vec<&Port> = peers
            .iter()
            .flat_map(|peer| peer.ports.iter().chain(&peer.not_ports))
            .collect();
        let wanted = |labels: &Labels| {
            let mut selectors = selectors.iter();
            selectors.any(|selector| selector.matches(labels))
        };
        for set in self.model.sets() {
            if self.options.in_force_on.is_none() || wanted(&set.labels) {
                documents.push(network_set(set));
            }
        }
        if let Some(here) = self.options.in_force_on {
            // Other endpoints are here as addresses that selectors select; the
            // names that they give to ports are not.
            for other in self.model.endpoints() {
                let named = other.ports().iter().find(|named| {
                    let is =
                        |port: &&&Port| matches!(port, Port::Named(name) if *name == named.name);
                    ports.iter().any(|port| is(&port))
                });
                if let Some(named) = named
                    && !is_of(other, here)
                    && !other.expected_ips().is_empty()
                {
                    let message = format!(
                        "rules ask for the port {} of the endpoint {}, which is another one",
                        quote(&named.name),
                        quote(other.name())
                    );
                    let diagnostic = Diagnostic::error(Code::NotEnforced, message);
                    self.say(diagnostic.at(other.place().clone()));
                }
                let mut labels = all_labels(self.model, other);
                let profiles = other.profiles().iter();
                let tags: Vec<&String> = profiles
                    .filter_map(|name| self.model.profile(name))
                    .flat_map(|profile| &profile.tags)
                    .collect();
                let tagged = tags.iter().any(|tag| asked_tags.contains(tag));
                for tag in tags {
                    labels.insert(format!("{TAG}{tag}"), String::new());
                }
                let asked_for = tagged || wanted(&labels);
                if !is_of(other, here) && !other.expected_ips().is_empty() && asked_for {
                    let name = self.names.derive(&format!("endpoint-{}", other.name()));
                    let nets: Vec<IpNet> = other
                        .expected_ips()
                        .iter()
                        .map(|&ip| IpNet::from(ip))
                        .collect();
                    documents.push(global_set(&name, &labels, &nets.into()));
                }
            }
        }
        for (name, nets) in &self.sets {
            let labels = Labels::from([(GENERATED.to_owned(), name.clone())]);
            documents.push(global_set(name, &labels, &nets.clone().into()));
        }
        documents
    }

    fn profile_rules(&self) -> impl Iterator<Item = &'m Rule> + use<'_, 'm> {
        let all = self.model.profiles().iter();
        let used = all.filter(|profile| {
            self.options
                .in_force_on
                .is_none_or(|endpoint| endpoint.profiles.iter().any(|name| **name == *profile.name))
        });
        used.flat_map(|profile| profile.ingress.iter().chain(&profile.egress))
    }

    fn profiles(&mut self) -> Vec<Document> {
        let mut documents = Vec::new();
        for profile in &self.model.profiles {
            let here = self.options.in_force_on;
            if here.is_some_and(|here| here.profiles.iter().all(|name| **name != *profile.name)) {
                continue;
            }
            let mut spec = Map::new();
            for (direction, rules) in [
                (Direction::Ingress, &profile.ingress),
                (Direction::Egress, &profile.egress),
            ] {
                let rules = self.rules(&profile.name, direction, rules, None, None);
                spec.insert(direction_name(direction).into(), Value::Array(rules));
            }
            let mut labels = profile.labels.clone();
            for tag in &profile.tags {
                labels.insert(format!("{TAG}{tag}"), String::new());
            }
            if !labels.is_empty() {
                spec.insert("labelsToApply".into(), labels_of(&labels));
            }
            documents.push(Document {
                kind: "Profile",
                policy: None,
                value: object("Profile", named(&profile.name), spec),
                nets: Arc::default(),
            });
        }
        documents
    }

    fn endpoints(&mut self, firewalls: &[Firewall<'_>]) -> Vec<Document> {
        let label = |name: &str, interface: &str, labels: &mut Labels| {
            let of = |firewall: &&Firewall<'_>| {
                let mut endpoints = firewall.endpoints.iter();
                endpoints.any(|(found, on)| found == name && on == interface)
            };
            labels.extend(firewalls.iter().filter(of).map(Firewall::label));
        };
        let mut documents = Vec::new();
        let node = |own: Option<&str>| own.or(self.options.node).unwrap_or(ANY_NODE).to_owned();
        for endpoint in &self.model.endpoints {
            if self
                .options
                .in_force_on
                .is_some_and(|here| !is_of(endpoint, here))
            {
                continue;
            }
            let one = |name: &str, interface: Option<&str>, labels: &Labels| {
                host_endpoint(&HostEndpointParts {
                    name,
                    node: &node(endpoint.node()),
                    interface,
                    labels,
                    expected_ips: &endpoint.expected_ips,
                    profiles: &endpoint.profiles,
                    ports: &endpoint.ports,
                })
            };
            let mut labels = endpoint.labels().clone();
            let interface = match endpoint.interface() {
                Some(Interface::Named(name)) => {
                    label(endpoint.name(), name, &mut labels);
                    Some(name.as_str())
                }
                Some(Interface::All) => {
                    // Those that a firewall names stand on their own.
                    let split: BTreeSet<&String> = firewalls
                        .iter()
                        .flat_map(|firewall| &firewall.endpoints)
                        .filter(|(name, _)| name == endpoint.name())
                        .map(|(_, interface)| interface)
                        .collect();
                    for interface in split {
                        let mut labels = labels.clone();
                        label(endpoint.name(), interface, &mut labels);
                        let name = super::names::label(&format!("{}-{interface}", endpoint.name()));
                        documents.push(one(&name, Some(interface), &labels));
                    }
                    Some("*")
                }
                None => None,
            };
            documents.push(one(endpoint.name(), interface, &labels));
        }
        let in_force = self
            .options
            .in_force_on
            .filter(|here| here.origin == Origin::CommandLine);
        let mut taken = Names::default();
        for endpoint in self.options.endpoints.iter().chain(in_force) {
            let mut labels = endpoint.labels.clone();
            label(&endpoint.name, &endpoint.interface, &mut labels);
            if let (Some(namespace), false) =
                (self.only_namespace(), labels.contains_key(NAMESPACE))
            {
                labels.insert(NAMESPACE.to_owned(), namespace);
            }
            let name = if values::is_dns_name(&endpoint.name) {
                endpoint.name.clone()
            } else {
                taken.derive(&endpoint.name)
            };
            documents.push(host_endpoint(&HostEndpointParts {
                name: &name,
                node: &node(None),
                interface: Some(&endpoint.interface),
                labels: &labels,
                expected_ips: &endpoint.expected_ips,
                profiles: &endpoint.profiles,
                ports: &endpoint.ports,
            }));
        }
        documents
    }

    /// The namespace of namespaced policies, which an endpoint that no
    /// document describes is in.
    fn only_namespace(&self) -> Option<String> {
        if self.in_several_namespaces() {
            return None;
        }
        let policies = self.policies();
        let mut all = policies
            .iter()
            .filter_map(|policy| policy.selects().namespace.clone());
        all.next()
    }

    fn policy(&mut self, policy: &'m Policy) -> Document {
        let name = self.renamed.get(policy.name()).cloned().unwrap_or_default();
        let namespace = self.namespace(policy);
        let kind = match (&namespace, policy.staged()) {
            (None, false) => "GlobalNetworkPolicy",
            (None, true) => "StagedGlobalNetworkPolicy",
            (Some(_), false) => "NetworkPolicy",
            (Some(_), true) => "StagedNetworkPolicy",
        };
        let mut metadata = named(&name);
        if let Some(namespace) = namespace {
            metadata.insert("namespace".into(), json!(namespace));
        }
        let mut spec = Map::new();
        if **policy.tier() != *DEFAULT_TIER {
            spec.insert("tier".into(), json!(&**policy.tier()));
        }
        let order = self.orders.get(policy.name()).copied().or(policy.order());
        if let Some(order) = order {
            spec.insert("order".into(), order_value(order));
        }
        let mut labels = policy.selects().labels.clone();
        if let (None, Some(own)) = (&namespace, &policy.selects().namespace) {
            // As an endpoint that no document describes is selected.
            labels = Selector::has_or_lacks(NAMESPACE, own).and(labels);
        }
        let selector = labels.to_string();
        if selector.chars().count() > MAX_SELECTOR {
            let diagnostic = Diagnostic::error(
                Code::TooMany,
                "the selector is longer than the 1024 characters of v3",
            );
            self.say(diagnostic.at(policy.place().clone()));
        }
        spec.insert("selector".into(), json!(selector));
        let types = policy.types();
        let mut names = Vec::new();
        if types.ingress {
            names.push("Ingress");
        }
        if types.egress {
            names.push("Egress");
        }
        spec.insert("types".into(), json!(names));
        stage(&mut spec, policy.stage(), policy.apply_on_forward());
        for (direction, rules) in [
            (Direction::Ingress, policy.ingress()),
            (Direction::Egress, policy.egress()),
        ] {
            if !rules.is_empty() {
                let rules = self.rules(&name, direction, rules, namespace, Some(policy));
                spec.insert(direction_name(direction).into(), Value::Array(rules));
            }
        }
        Document {
            kind,
            policy: Some(Arc::clone(policy.name())),
            value: object(kind, metadata, spec),
            nets: Arc::default(),
        }
    }

    fn rules(
        &mut self,
        owner: &str,
        direction: Direction,
        rules: &[Rule],
        namespace: Option<&str>,
        policy: Option<&Policy>,
    ) -> Vec<Value> {
        let mut printed = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let at = At {
                owner,
                direction: direction_name(direction),
                index,
                namespace,
                policy,
                rule,
            };
            for asked in self.fit(&rule.criteria, &at) {
                printed.push(rule_value(rule.action, &asked));
            }
        }
        if let (Some(policy), true) = (policy, printed.len() > MAX_RULES) {
            let message = format!(
                "a policy of v3 has at most {MAX_RULES} rules a direction, and this has {}",
                printed.len()
            );
            let help = "split it into several policies with orders of their own";
            let diagnostic = Diagnostic::error(Code::TooMany, message).help(help);
            self.say(diagnostic.at(policy.place().clone()));
        }
        printed
    }

    /// Which `IngressNodeFirewall`s are in force together, and where.
    fn firewalls(&mut self, policies: &[&'m Policy]) -> Vec<Firewall<'m>> {
        if policies.is_empty() {
            return Vec::new();
        }
        let mut places: Vec<(String, String, Labels)> = Vec::new();
        for endpoint in &self.model.endpoints {
            let labels = all_labels(self.model, endpoint);
            match endpoint.interface() {
                Some(Interface::Named(name)) => {
                    places.push((endpoint.name().to_owned(), name.clone(), labels));
                }
                Some(Interface::All) => {
                    let own = |interface: &String| {
                        let wanted = Interface::Named(interface.clone());
                        let mut all = self.model.endpoints.iter();
                        all.any(|other| {
                            other.interface() == Some(&wanted) && other.node() == endpoint.node()
                        })
                    };
                    let named: BTreeSet<&String> = policies
                        .iter()
                        .flat_map(|policy| &policy.selects().interfaces)
                        .filter(|interface| !own(interface))
                        .collect();
                    for interface in named {
                        places.push((
                            endpoint.name().to_owned(),
                            interface.clone(),
                            labels.clone(),
                        ));
                    }
                }
                None => {
                    let diagnostic = Diagnostic::error(
                        Code::NotEnforced,
                        format!(
                            "the host endpoint {} names no interface, so it isn't known which \
                             IngressNodeFirewalls are for it",
                            quote(endpoint.name())
                        ),
                    );
                    let diagnostic = diagnostic
                        .at(endpoint.place().clone())
                        .help("add its `interfaceName`");
                    self.say(diagnostic);
                }
            }
        }
        let from_command_line = |here: &&Endpoint| here.origin == Origin::CommandLine;
        let in_force = self.options.in_force_on.filter(from_command_line);
        for endpoint in self.options.endpoints.iter().chain(in_force) {
            places.push((
                endpoint.name.clone(),
                endpoint.interface.clone(),
                endpoint.labels.clone(),
            ));
        }
        let mut groups: BTreeMap<Vec<usize>, Vec<(String, String)>> = BTreeMap::new();
        for (name, interface, labels) in places.clone() {
            let selecting: Vec<usize> = (0..)
                .zip(policies)
                .filter(|(_, policy)| {
                    let selects = policy.selects();
                    selects.interfaces.contains(&interface) && selects.labels.matches(&labels)
                })
                .map(|(index, _)| index)
                .collect();
            if !selecting.is_empty() {
                groups.entry(selecting).or_default().push((name, interface));
            }
        }
        let mut names = Names::default();
        for name in self.renamed.values() {
            names.take(name);
        }
        let mut firewalls = Vec::new();
        for (group, endpoints) in groups {
            let policies: Vec<&Policy> = group.iter().map(|index| policies[*index]).collect();
            let joined: Vec<&str> = policies.iter().map(|policy| &**policy.name()).collect();
            let name = names.derive(&joined.join("-and-"));
            if policies.len() > 1 || name != joined[0] {
                let message = format!(
                    "{} {} the policy {} on {}, and rules are numbered in the order that they are \
                     tried in",
                    joined
                        .iter()
                        .map(|name| quote(name))
                        .collect::<Vec<_>>()
                        .join(" and "),
                    if policies.len() > 1 {
                        "become"
                    } else {
                        "becomes"
                    },
                    quote(&name),
                    endpoints
                        .iter()
                        .map(|(_, interface)| quote(interface))
                        .collect::<Vec<_>>()
                        .join(", "),
                );
                self.warn(policies[0].place(), message, "");
            }
            firewalls.push(Firewall {
                policies,
                name,
                endpoints,
                nodes: None,
            });
        }
        // Those for other nodes stand for themselves.
        for policy in policies {
            let mut found = firewalls.iter();
            if found.any(|firewall| firewall.policies.contains(policy)) {
                continue;
            }
            let selects = policy.selects();
            let nodes = selects.labels.to_string();
            let message = format!(
                "{} selects no endpoint here ({nodes}), so it is not put together with others",
                quote(policy.name()),
            );
            let help = "give the endpoints their labels with --label KEY=VALUE, or in a document";
            self.warn(policy.place(), message, help);
            firewalls.push(Firewall {
                policies: vec![policy],
                name: names.derive(policy.name()),
                endpoints: places
                    .iter()
                    .filter(|(_, interface, _)| selects.interfaces.contains(interface))
                    .map(|(name, interface, _)| (name.clone(), interface.clone()))
                    .collect(),
                nodes: Some(nodes),
            });
        }
        firewalls
    }

    fn firewall(&mut self, firewall: &Firewall<'m>, alone: bool) -> Document {
        let lowered = ingress_node_firewall::lower(&firewall.policies, Direction::Ingress, alone);
        let rules: Vec<Rule> = lowered
            .into_iter()
            .map(|rule| Rule {
                action: rule.action,
                criteria: rule.matches.iter().map(criteria).collect(),
                order: None,
                source: rule.source.unwrap_or_else(unreachable_source),
            })
            .collect();
        let policy = firewall.policies[0];
        let renumbered = policy.ingress().len() != rules.len()
            || policy
                .ingress()
                .iter()
                .zip(&rules)
                .any(|(before, after)| before.source != after.source);
        if renumbered && firewall.policies.len() == 1 {
            let message = format!(
                "the rules of {} are numbered in the order that they are tried in, so their \
                 counters start anew",
                quote(policy.name())
            );
            self.warn(policy.place(), message, "");
        }
        let name = firewall.name.clone();
        let mut spec = Map::new();
        if !alone {
            spec.insert("tier".into(), json!(ingress_node_firewall::TIER));
        }
        spec.insert("selector".into(), json!(firewall.selector()));
        spec.insert("types".into(), json!(["Ingress"]));
        stage(&mut spec, Stage::Untracked, true);
        let rules = self.rules(
            &firewall.name,
            Direction::Ingress,
            &rules,
            None,
            Some(policy),
        );
        spec.insert("ingress".into(), Value::Array(rules));
        Document {
            kind: "GlobalNetworkPolicy",
            policy: Some(Arc::clone(policy.name())),
            value: object("GlobalNetworkPolicy", named(&name), spec),
            nets: Arc::default(),
        }
    }
}

fn unreachable_source() -> crate::ruleset::SourceLine {
    crate::ruleset::SourceLine {
        file: "".into(),
        line: 0,
        column: 0,
    }
}

/// Conditions on packets in the terms of policies; only those that
/// `IngressNodeFirewall`s come to.
fn criteria(lowered: &crate::ruleset::Match) -> Criteria {
    Criteria {
        family: lowered.family,
        protocol: lowered.protocol,
        icmp: lowered.icmp,
        src: Peer {
            nets: lowered.src.nets.clone(),
            not_nets: lowered.src.not_nets.clone(),
            ..Peer::default()
        },
        dst: Peer {
            ports: lowered.dst_ports.iter().copied().map(Port::Range).collect(),
            ..Peer::default()
        },
        ..Criteria::default()
    }
}

/// Whether a document describes this endpoint.
fn is_of(document: &HostEndpoint, endpoint: &Endpoint) -> bool {
    matches!(&endpoint.origin, Origin::Document(place) if place == document.place())
}

fn stage(spec: &mut Map<String, Value>, stage: Stage, apply_on_forward: bool) {
    match stage {
        Stage::Untracked => spec.insert("doNotTrack".into(), json!(true)),
        Stage::PreDnat => spec.insert("preDNAT".into(), json!(true)),
        Stage::Failsafe | Stage::Normal | Stage::Default => None,
    };
    if stage != Stage::Normal || apply_on_forward {
        spec.insert("applyOnForward".into(), json!(true));
    }
}

fn network_set(set: &NetworkSet) -> Document {
    let Some(namespace) = &set.namespace else {
        return global_set(&set.name, &set.labels, &set.nets);
    };
    // The others come with the namespace.
    let own = set
        .labels
        .iter()
        .filter(|(name, _)| **name != *NAMESPACE && !name.starts_with("pcns."));
    let own: Labels = own
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut document = global_set(&set.name, &own, &set.nets);
    document.kind = "NetworkSet";
    document.value["kind"] = json!("NetworkSet");
    document.value["metadata"]["namespace"] = json!(namespace);
    document
}

fn global_set(name: &str, labels: &Labels, nets: &Arc<Vec<IpNet>>) -> Document {
    let mut metadata = named(name);
    if !labels.is_empty() {
        metadata.insert("labels".into(), labels_of(labels));
    }
    let spec = Map::from_iter([("nets".to_owned(), json!([]))]);
    Document {
        kind: "GlobalNetworkSet",
        policy: None,
        value: object("GlobalNetworkSet", metadata, spec),
        nets: Arc::clone(nets),
    }
}

struct HostEndpointParts<'a> {
    name: &'a str,
    node: &'a str,
    interface: Option<&'a str>,
    labels: &'a Labels,
    expected_ips: &'a [std::net::IpAddr],
    profiles: &'a [String],
    ports: &'a [NamedPort],
}

fn host_endpoint(given: &HostEndpointParts<'_>) -> Document {
    let mut metadata = named(given.name);
    if !given.labels.is_empty() {
        metadata.insert("labels".into(), labels_of(given.labels));
    }
    let mut spec = Map::new();
    spec.insert("node".into(), json!(given.node));
    if let Some(interface) = given.interface {
        spec.insert("interfaceName".into(), json!(interface));
    }
    if !given.expected_ips.is_empty() {
        spec.insert("expectedIPs".into(), texts(given.expected_ips));
    }
    if !given.profiles.is_empty() {
        spec.insert("profiles".into(), json!(given.profiles));
    }
    if !given.ports.is_empty() {
        let ports = given.ports.iter().map(|port| {
            json!({
                "name": port.name,
                "protocol": protocol(port.protocol, false),
                "port": port.port,
            })
        });
        spec.insert("ports".into(), ports.collect());
    }
    Document {
        kind: "HostEndpoint",
        policy: None,
        value: object("HostEndpoint", metadata, spec),
        nets: Arc::default(),
    }
}

fn rule_value(action: Action, asked: &Asked) -> Value {
    let mut rule = Map::new();
    rule.insert("action".into(), json!(action_name(action)));
    let nets = [&asked.src, &asked.dst];
    let mut nets = nets
        .iter()
        .flat_map(|side| side.nets.iter().chain(&side.not_nets));
    let v6 = asked.family == Some(Family::V6) || nets.clone().any(|net| family(net) == Family::V6);
    let v4 = asked.family == Some(Family::V4) || nets.any(|net| family(net) == Family::V4);
    if let Some(family) = asked.family {
        let version = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        rule.insert("ipVersion".into(), json!(version));
    }
    // The names of ICMP stand for an IP version, and the numbers don't.
    let number = |asked: u8| (asked == 1 && v6) || (asked == 58 && v4);
    if let Some(asked) = asked.protocol {
        rule.insert("protocol".into(), protocol(asked, number(asked)));
    }
    if let Some(asked) = asked.not_protocol {
        rule.insert("notProtocol".into(), protocol(asked, number(asked)));
    }
    if let Some(icmp) = asked.icmp {
        rule.insert("icmp".into(), icmp_value(icmp));
    }
    if let Some(icmp) = asked.not_icmp {
        rule.insert("notICMP".into(), icmp_value(icmp));
    }
    for (field, side) in [("source", &asked.src), ("destination", &asked.dst)] {
        let side = side_value(side);
        if !side.is_empty() {
            rule.insert(field.into(), Value::Object(side));
        }
    }
    Value::Object(rule)
}

fn icmp_value(icmp: Icmp) -> Value {
    let mut value = Map::from_iter([("type".to_owned(), json!(icmp.kind))]);
    if let Some(code) = icmp.code {
        value.insert("code".into(), json!(code));
    }
    Value::Object(value)
}

fn protocol(number: u8, as_number: bool) -> Value {
    match number {
        1 if !as_number => json!("ICMP"),
        6 => json!("TCP"),
        17 => json!("UDP"),
        58 if !as_number => json!("ICMPv6"),
        132 => json!("SCTP"),
        136 => json!("UDPLite"),
        other => json!(other),
    }
}

/// A selector as it is printed when it is read again.
fn canonical(selector: &str) -> String {
    Selector::parse(selector).map_or_else(|_| selector.to_owned(), |read| read.to_string())
}

fn side_value(side: &Side) -> Map<String, Value> {
    let mut value = Map::new();
    for (field, selector) in [
        ("selector", &side.selector),
        ("namespaceSelector", &side.namespace_selector),
        ("notSelector", &side.not_selector),
    ] {
        if let Some(selector) = selector {
            let selector = if field == "namespaceSelector" {
                selector.clone()
            } else {
                canonical(selector)
            };
            value.insert(field.into(), json!(selector));
        }
    }
    for (field, nets) in [("nets", &side.nets), ("notNets", &side.not_nets)] {
        if !nets.is_empty() {
            value.insert(field.into(), texts(nets));
        }
    }
    for (field, ports) in [("ports", &side.ports), ("notPorts", &side.not_ports)] {
        if !ports.is_empty() {
            let ports = ports.iter().map(|port| match port {
                Port::Range(range) if range.first == range.last => json!(range.first),
                Port::Range(range) => json!(range.to_string()),
                Port::Named(name) => json!(name),
            });
            value.insert(field.into(), ports.collect());
        }
    }
    value
}
