//! Documents → model: validated policies and endpoints in one vocabulary,
//! whichever format they came in.
//!
//! What is here has been checked, and only the functions of this module make
//! it, so a model cannot hold an illegal rule.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::diagnostic::{Code, Diagnostic, Place, Reporter, quote};
use super::documents::Document;
use super::list::Lists;
use super::selector::{Labels, Selector};
use super::validate::{self, calico};
use crate::ruleset::{Action, Family, Icmp, PortRange, SourceLine, Stage};

/// The profile that lets everything pass that no policy decides.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// The tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";

/// The policies and what they refer to, of a set of documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub(super) policies: Vec<Policy>,
    pub(super) tiers: Vec<Tier>,
    pub(super) profiles: Vec<Profile>,
    pub(super) endpoints: Vec<HostEndpoint>,
    pub(super) sets: Vec<NetworkSet>,
}

/// The kind of document that a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Calico v1 `policy`.
    V1Policy,
    /// Calico v3 `GlobalNetworkPolicy`, or its staged twin.
    GlobalNetworkPolicy,
    /// Calico v3 `NetworkPolicy`, or its staged twin.
    NetworkPolicy,
    /// `OpenShift` `IngressNodeFirewall`.
    IngressNodeFirewall,
    /// Kubernetes `NetworkPolicy`.
    KubernetesNetworkPolicy,
}

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(super) kind: Kind,
    pub(super) name: Arc<str>,
    pub(super) tier: Arc<str>,
    pub(super) stage: Stage,
    pub(super) staged: bool,
    pub(super) order: Option<f64>,
    pub(super) selects: Selects,
    pub(super) apply_on_forward: bool,
    pub(super) types: Types,
    pub(super) ingress: Vec<Rule>,
    pub(super) egress: Vec<Rule>,
    pub(super) place: Place,
}

/// Which endpoints a policy applies to: all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selects {
    /// What their labels must match.
    pub labels: Selector,
    /// The namespace they must be in.
    pub namespace: Option<String>,
    /// The interfaces they must stand for; empty: any.
    pub interfaces: Vec<String>,
}

/// The directions that a policy has a word in, with rules or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types {
    /// What comes in.
    pub ingress: bool,
    /// What goes out.
    pub egress: bool,
}

/// A rule of a policy or profile. Its index in the list is its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// When it applies: one of these must hold. Without any it never does.
    pub criteria: Vec<Criteria>,
    /// Its place among the rules for one network; only an
    /// `IngressNodeFirewall` has it.
    pub order: Option<u32>,
    /// Where it stands.
    pub source: SourceLine,
}

/// The conditions of a rule, all of which must hold. What [`Match`] says of a
/// field of the same name goes for it here.
///
/// [`Match`]: crate::ruleset::Match
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// The IP version.
    pub family: Option<Family>,
    /// The protocol's number.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// The ICMP type and code.
    pub icmp: Option<Icmp>,
    /// Any ICMP type and code but these.
    pub not_icmp: Option<Icmp>,
    /// Where it comes from.
    pub src: Peer,
    /// Where it goes.
    pub dst: Peer,
}

/// One side of a packet. An empty list, and what is `None`, is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// In one of these networks, canonical.
    pub nets: Vec<IpNet>,
    /// In none of these.
    pub not_nets: Vec<IpNet>,
    /// In a set, or an address of an endpoint, with these labels.
    pub selector: Option<Selector>,
    /// In none with these labels.
    pub not_selector: Option<Selector>,
    /// An address of an endpoint with a profile of this tag.
    pub tag: Option<String>,
    /// Of none with this tag.
    pub not_tag: Option<String>,
    /// The ports.
    pub ports: Vec<Port>,
    /// Not these ports.
    pub not_ports: Vec<Port>,
}

/// Ports as a rule names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// By number.
    Range(PortRange),
    /// By the name that an endpoint gives to one.
    Named(String),
}

/// A tier: a group of policies with an order and an end of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// Its order: lower first, none last.
    pub order: Option<f64>,
    /// Whether its end passes packets on, instead of denying them.
    pub default_pass: bool,
    /// Where its name stands; `None` for one that is always there.
    pub place: Option<Place>,
}

/// What decides where no policy selects an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: Arc<str>,
    /// Labels that its endpoints have as well.
    pub labels: Labels,
    /// Tags by which v1 rules refer to its endpoints.
    pub tags: Vec<String>,
    /// Its rules for what comes in.
    pub ingress: Vec<Rule>,
    /// Its rules for what goes out.
    pub egress: Vec<Rule>,
    /// Where its name stands.
    pub place: Place,
}

/// A host endpoint that a document describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    pub(super) name: String,
    pub(super) node: Option<String>,
    /// `None` where `expected_ips` says which it is.
    pub(super) interface: Option<Interface>,
    pub(super) expected_ips: Vec<IpAddr>,
    pub(super) labels: Labels,
    pub(super) profiles: Vec<String>,
    pub(super) ports: Vec<NamedPort>,
    pub(super) place: Place,
}

/// A port that an endpoint has a name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// The interfaces that an endpoint stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interface {
    /// One.
    Named(String),
    /// `*`: all that the host has.
    All,
}

/// Networks with labels, for the selectors of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// Its name.
    pub name: String,
    /// Its namespace, if it is a `NetworkSet`.
    pub namespace: Option<String>,
    /// What selectors see of it; those that the namespace brings among them.
    pub labels: Labels,
    /// Its networks, canonical; those of a list are shared with all that have it.
    pub nets: Arc<Vec<IpNet>>,
    /// Where its name stands.
    pub place: Place,
}

impl Model {
    /// The policies in evaluation order: by stage, tier, order and name.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The tiers that policies are in, by order and name.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The profiles, in the order of their documents.
    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The endpoints, in the order of their documents.
    #[must_use]
    pub fn endpoints(&self) -> &[HostEndpoint] {
        &self.endpoints
    }

    /// The sets, in the order of their documents.
    #[must_use]
    pub fn sets(&self) -> &[NetworkSet] {
        &self.sets
    }

    /// The tier of this name.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&Tier> {
        self.tiers.iter().find(|tier| *tier.name == *name)
    }

    /// The profile of this name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| *profile.name == *name)
    }
}

impl Policy {
    /// The kind of document it comes from.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name as it is shown and counted, unique in the model.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name of its tier.
    #[must_use]
    pub fn tier(&self) -> &Arc<str> {
        &self.tier
    }

    /// [`Stage::Untracked`], [`Stage::PreDnat`] or [`Stage::Normal`].
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether it is only counted.
    #[must_use]
    pub fn staged(&self) -> bool {
        self.staged
    }

    /// Its order: lower first, none last.
    #[must_use]
    pub fn order(&self) -> Option<f64> {
        self.order
    }

    /// Which endpoints it applies to.
    #[must_use]
    pub fn selects(&self) -> &Selects {
        &self.selects
    }

    /// Whether it applies to packets that are not for the host itself too.
    #[must_use]
    pub fn apply_on_forward(&self) -> bool {
        self.apply_on_forward
    }

    /// The directions it has a word in.
    #[must_use]
    pub fn types(&self) -> Types {
        self.types
    }

    /// Its ingress rules, first to last.
    #[must_use]
    pub fn ingress(&self) -> &[Rule] {
        &self.ingress
    }

    /// Its egress rules, first to last.
    #[must_use]
    pub fn egress(&self) -> &[Rule] {
        &self.egress
    }

    /// Where its name stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl HostEndpoint {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host it belongs to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The interfaces it stands for; `None` where its addresses say it.
    #[must_use]
    pub fn interface(&self) -> Option<&Interface> {
        self.interface.as_ref()
    }

    /// Its addresses.
    #[must_use]
    pub fn expected_ips(&self) -> &[IpAddr] {
        &self.expected_ips
    }

    /// What selectors see of it, but for the labels of its profiles.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The names of its profiles, first to last.
    #[must_use]
    pub fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// The ports it has names for.
    #[must_use]
    pub fn ports(&self) -> &[NamedPort] {
        &self.ports
    }

    /// Where its name stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Model {
    /// Brings tiers and policies into evaluation order.
    fn sort(&mut self) {
        let order = |order: Option<f64>| order.unwrap_or(f64::INFINITY);
        self.tiers.sort_by(|a, b| {
            order(a.order)
                .total_cmp(&order(b.order))
                .then_with(|| a.name.cmp(&b.name))
        });
        let tiers = &self.tiers;
        let place = |policy: &Policy| tiers.iter().position(|tier| tier.name == policy.tier);
        // An IngressNodeFirewall is a filter of its own, before the others.
        let foreign = |policy: &Policy| policy.kind != Kind::IngressNodeFirewall;
        self.policies.sort_by(|a, b| {
            a.stage
                .cmp(&b.stage)
                .then_with(|| foreign(a).cmp(&foreign(b)))
                .then_with(|| place(a).cmp(&place(b)))
                .then_with(|| order(a.order).total_cmp(&order(b.order)))
                .then_with(|| a.name.cmp(&b.name))
        });
    }
}

/// Validates documents. What is illegal is reported and left out, so the model
/// is only one of all the documents if there were no errors.
pub(super) fn validate(
    documents: &[Document<'_>],
    lists: &mut Lists<'_>,
    reporter: &mut Reporter<'_>,
) -> Model {
    let mut model = Model::default();
    let mut references = calico::References::default();
    let (mut firewalls, mut tiers) = (Vec::new(), Vec::new());
    for document in documents {
        match document {
            Document::Policy(document) => {
                let policy = calico::policy(document, &mut references, reporter);
                model.policies.extend(policy);
            }
            Document::HostEndpoint(document) => {
                let endpoint = calico::host_endpoint(document, &mut references, reporter);
                model.endpoints.extend(endpoint);
            }
            Document::Profile(document) => {
                model.profiles.extend(calico::profile(document, reporter));
            }
            Document::NetworkSet(document) => {
                let set = validate::network_set::validate(document, lists, reporter);
                model.sets.push(set);
            }
            Document::Tier(document) => tiers.push(document),
            Document::Kubernetes(document) => {
                let policy = validate::kubernetes::validate(document, reporter);
                model.policies.push(policy);
            }
            Document::IngressNodeFirewall(document) => firewalls.push(document),
        }
    }
    let firewalls = validate::ingress_node_firewall::validate(&firewalls, reporter);
    model.policies.extend(firewalls);
    model.tiers = calico::tiers(&tiers, reporter);
    references.check(&model.tiers, &model.profiles, reporter);
    refuse_duplicates(&model, reporter);
    model.sort();
    model
}

/// Two policies with one name would share their counters, and two endpoints
/// with one interface would leave open which one applies.
fn refuse_duplicates(model: &Model, reporter: &mut Reporter<'_>) {
    let mut policies: BTreeMap<Cow<'_, str>, &Place> = BTreeMap::new();
    for policy in &model.policies {
        if let Some(first) = policies.insert(without_default_tier(policy), &policy.place) {
            let what = format!("two policies have the name {}", quote(&policy.name));
            let help = "give one of them another name, or remove it if it is the same policy";
            duplicate(&what, help, &policy.place, first, reporter);
        }
    }
    let mut profiles: BTreeMap<&str, &Place> = BTreeMap::new();
    for profile in &model.profiles {
        if let Some(first) = profiles.insert(&profile.name, &profile.place) {
            let what = format!("two profiles have the name {}", quote(&profile.name));
            let help = "give one of them another name, or remove it if it is the same profile";
            duplicate(&what, help, &profile.place, first, reporter);
        }
    }
    let mut sets = BTreeMap::new();
    for set in &model.sets {
        if let Some(first) = sets.insert((&set.namespace, &set.name), &set.place) {
            let what = format!("two sets have the name {}", quote(&set.name));
            let help = "give one of them another name, or remove it if it is the same set";
            duplicate(&what, help, &set.place, first, reporter);
        }
    }
    let mut names = BTreeMap::new();
    let mut interfaces = BTreeMap::new();
    for endpoint in &model.endpoints {
        let node = &endpoint.node;
        if let Some(first) = names.insert((node, &endpoint.name), &endpoint.place) {
            let what = format!("two host endpoints have the name {}", quote(&endpoint.name));
            let help = "give one of them another name, or remove it if it is the same endpoint";
            duplicate(&what, help, &endpoint.place, first, reporter);
        } else if endpoint.interface.is_some()
            && let Some(first) = interfaces.insert((node, &endpoint.interface), &endpoint.place)
        {
            let interface = match &endpoint.interface {
                Some(Interface::Named(name)) => name,
                Some(Interface::All) | None => "*",
            };
            let what = format!(
                "two host endpoints stand for the interface {}",
                quote(interface)
            );
            let help = "merge them into one endpoint that has the labels of both";
            duplicate(&what, help, &endpoint.place, first, reporter);
        }
    }
}

/// The name of a policy. In the default tier it is the same with the tier and
/// without, wherever the tier stands in it: `staged:edge/default.web`.
fn without_default_tier(policy: &Policy) -> Cow<'_, str> {
    let tiered = &*policy.tier == DEFAULT_TIER;
    let (before, name) = match policy.kind {
        Kind::V1Policy | Kind::GlobalNetworkPolicy if policy.staged => {
            policy.name.split_at("staged:".len())
        }
        Kind::V1Policy | Kind::GlobalNetworkPolicy => ("", &*policy.name),
        Kind::NetworkPolicy => {
            let slash = policy.name.find('/').map_or(0, |slash| slash + 1);
            policy.name.split_at(slash)
        }
        // A dot says nothing of a tier there.
        Kind::IngressNodeFirewall | Kind::KubernetesNetworkPolicy => return (&*policy.name).into(),
    };
    match name.strip_prefix("default.") {
        Some(rest) if tiered => format!("{before}{rest}").into(),
        _ => (&*policy.name).into(),
    }
}

fn duplicate(what: &str, help: &str, one: &Place, other: &Place, reporter: &mut Reporter<'_>) {
    // Kinds are not validated in the order of their documents.
    let (first, second) = if one.span < other.span {
        (one, other)
    } else {
        (other, one)
    };
    reporter.report(
        second.span,
        Diagnostic::error(Code::Duplicate, what)
            .field("metadata.name")
            .label("the second one")
            .related(first.clone(), "the first one")
            .help(help),
    );
}
