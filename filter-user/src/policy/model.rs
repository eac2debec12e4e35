//! Documents → model: validated policies and endpoints in one vocabulary,
//! whichever format they came in.
//!
//! What is here has been checked, and only the functions of this module make
//! it, so a model cannot hold an illegal rule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::diagnostic::{Code, Diagnostic, Place, Reporter, quote};
use super::documents::{
    Dialect, Document, HostEndpointDocument, PeerDocument, PolicyDocument, RuleDocument,
};
use super::list::Lists;
use super::schema::{Path, Text, Texts, not_enforced};
use super::selector::{Labels, Selector, is_label};
use super::source::Span;
use super::validate;
use super::values::{self, NamedProtocol, Refusal, family_name};
use super::yaml;
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
    /// Its networks, canonical.
    pub nets: Vec<IpNet>,
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
    let mut firewalls = Vec::new();
    for document in documents {
        match document {
            Document::Policy(document) => model.policies.extend(policy(document, reporter)),
            Document::HostEndpoint(document) => {
                model.endpoints.extend(host_endpoint(document, reporter));
            }
            Document::NetworkSet(document) => {
                let set = validate::network_set::validate(document, lists, reporter);
                model.sets.push(set);
            }
            Document::Kubernetes(document) => {
                let policy = validate::kubernetes::validate(document, reporter);
                model.policies.push(policy);
            }
            Document::IngressNodeFirewall(document) => firewalls.push(document),
        }
    }
    let firewalls = validate::ingress_node_firewall::validate(&firewalls, reporter);
    model.policies.extend(firewalls);
    refuse_duplicates(&model, reporter);
    model.tiers.push(Tier {
        name: DEFAULT_TIER.into(),
        order: Some(1_000_000.0),
        default_pass: false,
        place: None,
    });
    model.sort();
    model
}

/// Two policies with one name would share their counters, and two endpoints
/// with one interface would leave open which one applies.
fn refuse_duplicates(model: &Model, reporter: &mut Reporter<'_>) {
    let mut policies: BTreeMap<&str, &Place> = BTreeMap::new();
    for policy in &model.policies {
        if let Some(first) = policies.insert(&policy.name, &policy.place) {
            let what = format!("two policies have the name {}", quote(&policy.name));
            let help = "give one of them another name, or remove it if it is the same policy";
            duplicate(&what, help, &policy.place, first, reporter);
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
        } else if let Some(first) = interfaces.insert((node, &endpoint.interface), &endpoint.place)
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

fn duplicate(what: &str, help: &str, second: &Place, first: &Place, reporter: &mut Reporter<'_>) {
    reporter.report(
        second.span,
        Diagnostic::error(Code::Duplicate, what)
            .field("metadata.name")
            .label("the second one")
            .related(first.clone(), "the first one")
            .help(help),
    );
}

const MAX_V3_SELECTOR: usize = 1_024;
const MAX_V3_RULES: usize = 1_024;
const MAX_V3_NETS: usize = 256;
const MAX_V3_PORTS: usize = 50;

fn policy(document: &PolicyDocument<'_>, reporter: &mut Reporter<'_>) -> Option<Policy> {
    let root = root(&document.path);
    let spec = root.field("spec");
    let metadata = root.field("metadata");
    policy_name(document, &metadata.field("name"), reporter);

    let pre_dnat = document.pre_dnat.as_ref().is_some_and(|flag| flag.value);
    direction(document, pre_dnat, &spec, reporter);
    apply_on_forward(document, pre_dnat, &spec, reporter);
    let selector = match &document.selector {
        None => Some(Selector::ALL),
        Some(text) => {
            let path = spec.field("selector");
            if document.dialect == Dialect::V3 {
                let length = text.value.text.chars().count();
                let limit = Limit::new(MAX_V3_SELECTOR, "characters", "a selector");
                limit.check(length, text.span, &path, reporter);
            }
            selector(text, &path, reporter)
        }
    };

    let rules_path = spec.field("ingress");
    if let (Dialect::V3, Some(span)) = (document.dialect, document.ingress_span) {
        let limit = Limit::new(MAX_V3_RULES, "rules", "a list of rules");
        limit.check(document.ingress.len(), span, &rules_path, reporter);
    }
    let mut ingress = Vec::with_capacity(document.ingress.len());
    for rule_document in &document.ingress {
        let path = rules_path.index(rule_document.index);
        ingress.extend(rule(rule_document, document.dialect, &path, reporter));
    }
    Some(Policy {
        kind: match document.dialect {
            Dialect::V1 => Kind::V1Policy,
            Dialect::V3 => Kind::GlobalNetworkPolicy,
        },
        name: Arc::from(&*document.name.value.text),
        tier: DEFAULT_TIER.into(),
        stage: if pre_dnat {
            Stage::PreDnat
        } else {
            Stage::Normal
        },
        staged: false,
        // -0 and 0 are one order.
        order: document.order.as_ref().map(|order| order.value + 0.0),
        selects: Selects {
            labels: selector?,
            namespace: None,
            interfaces: Vec::new(),
        },
        apply_on_forward: pre_dnat,
        types: Types {
            ingress: true,
            egress: false,
        },
        ingress,
        egress: Vec::new(),
        place: reporter.place(document.name.span),
    })
}

fn root(path: &str) -> Path<'_> {
    match path {
        "" => Path::ROOT,
        list_index => Path::ROOT.field(list_index),
    }
}

fn policy_name(document: &PolicyDocument<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    let name = &document.name;
    match document.dialect {
        Dialect::V1 => v1_name(name, path, reporter),
        Dialect::V3 => match name.value.text.split_once('.') {
            None => dns_label(name, &name.value.text, path, reporter),
            Some(("default", rest)) => dns_label(name, rest, path, reporter),
            Some((tier, _)) => reporter.report(
                name.span,
                not_enforced(
                    &format!("the tier {} in a policy's name", quote(tier)),
                    "this version has no tiers but `default`",
                    "use a name without a dot, and order the policies by `order` alone",
                )
                .field(path),
            ),
        },
    }
}

fn v1_name(name: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if !values::is_v1_name(&name.value.text) {
        let help = "v1 names have 1 to 128 of the characters a-z, A-Z, 0-9, `_`, `.`, `/` and `-`";
        invalid_name(name, help, path, reporter);
    }
}

fn dns_label(name: &Text<'_>, label: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if !values::is_dns_label(label) {
        let help = "v3 names have 1 to 63 of the characters a-z, 0-9 and `-`, and begin and end \
                    with a letter or digit";
        invalid_name(name, help, path, reporter);
    }
}

fn invalid_name(name: &Text<'_>, help: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    let message = format!("{} can't be a name", quote(&name.value.text));
    reporter.report(
        name.span,
        Diagnostic::error(Code::InvalidName, message)
            .field(path)
            .label("not a valid name")
            .help(help),
    );
}

/// Refuses everything that asks for egress, with the better reason of the two
/// that there may be.
fn direction(
    document: &PolicyDocument<'_>,
    pre_dnat: bool,
    spec: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let (ingress, egress) = match document.dialect {
        Dialect::V1 => ("ingress", "egress"),
        Dialect::V3 => ("Ingress", "Egress"),
    };
    let refuse = |span, path: &Path<'_>, reporter: &mut Reporter<'_>| {
        let diagnostic = if pre_dnat {
            Diagnostic::error(Code::PreDnat, "a `preDNAT` policy can't have egress")
                .label("`preDNAT` acts on packets that come in")
                .help("put what concerns egress into a policy of its own, without `preDNAT`")
        } else {
            not_enforced(
                "egress",
                "this version filters only what comes in",
                "remove the egress part, or keep the policy out of the files for this host",
            )
        };
        reporter.report(span, diagnostic.field(path));
    };
    let types_path = spec.field("types");
    for (index, text) in &document.types.items {
        let path = types_path.index(*index);
        let found = &*text.value.text;
        if found == egress {
            refuse(text.span, &path, reporter);
        } else if found != ingress {
            let near = [ingress, egress]
                .into_iter()
                .find(|name| name.eq_ignore_ascii_case(found));
            let help = match near {
                Some(near) => format!("write `{near}`: this format is strict about case"),
                None => format!("the types are `{ingress}` and `{egress}`"),
            };
            invalid_value(text, "not a type of policy", &help, &path, reporter);
        }
    }
    if let Some(span) = document.egress_span {
        refuse(span, &spec.field("egress"), reporter);
    }
}

fn apply_on_forward(
    document: &PolicyDocument<'_>,
    pre_dnat: bool,
    spec: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    if document.dialect == Dialect::V1 {
        return;
    }
    let path = spec.field("applyOnForward");
    match (&document.apply_on_forward, &document.pre_dnat) {
        (None, Some(flag)) if pre_dnat => reporter.report(
            flag.span,
            Diagnostic::error(
                Code::PreDnat,
                "`preDNAT: true` needs `applyOnForward: true`",
            )
            .field(path)
            .label("acts on forwarded packets too")
            .help("add the line `applyOnForward: true` beside it"),
        ),
        (Some(flag), Some(_)) if pre_dnat && !flag.value => reporter.report(
            flag.span,
            Diagnostic::error(
                Code::PreDnat,
                "`preDNAT: true` needs `applyOnForward: true`",
            )
            .field(path)
            .label("must be true")
            .help("a `preDNAT` policy acts on forwarded packets too: write `true` here"),
        ),
        (Some(flag), _) if !pre_dnat && flag.value => reporter.report(
            flag.span,
            not_enforced(
                "`applyOnForward: true` without `preDNAT`",
                "this version can't tell forwarded packets from the host's own",
                "remove the line to filter all packets that come in, forwarded or not",
            )
            .field(path),
        ),
        _ => {}
    }
}

fn selector(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<Selector> {
    match Selector::parse(&text.value.text) {
        Ok(selector) => Some(selector),
        Err(error) => {
            let source = reporter.source(text.span);
            let span = yaml::locate(source, text.span, &text.value.text, error.at);
            let mut diagnostic =
                Diagnostic::error(Code::InvalidSelector, "the selector is not valid")
                    .field(path)
                    .label(error.message);
            diagnostic.help = error.help.map(Into::into);
            reporter.report(span, diagnostic);
            None
        }
    }
}

fn rule(
    document: &RuleDocument<'_>,
    dialect: Dialect,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Rule> {
    let errors_before = reporter.errors();
    let action = action(document, dialect, path, reporter);
    let ip_version = ip_version(document, path, reporter);
    let protocol = document.protocol.as_ref().and_then(|text| {
        let path = path.field("protocol");
        refused(
            values::protocol(&text.value.text, dialect),
            text.span,
            &path,
            reporter,
        )
    });
    protocol_family(document, protocol, ip_version, path, reporter);

    let source = path.field("source");
    let destination = path.field("destination");
    let mut families = Families {
        ip_version: ip_version.map(|family| (family, "`ipVersion` says so")),
        first_net: None,
        reported: false,
    };
    let src_nets = nets(&document.source, dialect, &source, &mut families, reporter);
    let dst_nets = nets(
        &document.destination,
        dialect,
        &destination,
        &mut families,
        reporter,
    );
    icmp_nets(document, protocol, &families, path, reporter);

    let ports_path = destination.field("ports");
    let ports_written = &document.destination.ports;
    if let (Dialect::V3, Some(span)) = (dialect, ports_written.key_span) {
        let limit = Limit::new(MAX_V3_PORTS, "ports", "a list of ports");
        limit.check(ports_written.items.len(), span, &ports_path, reporter);
    }
    let mut dst_ports = Vec::with_capacity(ports_written.items.len());
    for (index, text) in &ports_written.items {
        let path = ports_path.index(*index);
        dst_ports.extend(refused(
            values::ports(&text.value.text),
            text.span,
            &path,
            reporter,
        ));
    }
    ports_need_protocol(
        document,
        protocol,
        ports_written,
        dialect,
        &ports_path,
        reporter,
    );

    if reporter.errors() > errors_before {
        return None;
    }
    let place = reporter.place(document.start);
    Some(Rule {
        action: action?,
        criteria: vec![Criteria {
            family: ip_version,
            protocol: protocol.map(|protocol| protocol.number),
            src: Peer {
                nets: src_nets,
                ..Peer::default()
            },
            dst: Peer {
                nets: dst_nets,
                ports: dst_ports.into_iter().map(Port::Range).collect(),
                ..Peer::default()
            },
            ..Criteria::default()
        }],
        order: None,
        source: SourceLine {
            file: place.file,
            line: place.start.line,
            column: place.start.column,
        },
    })
}

fn action(
    document: &RuleDocument<'_>,
    dialect: Dialect,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Action> {
    let text = document.action.as_ref()?;
    let found = &*text.value.text;
    let path = path.field("action");
    let names = match dialect {
        Dialect::V1 => ["allow", "deny", "log", "pass"],
        Dialect::V3 => ["Allow", "Deny", "Log", "Pass"],
    };
    match names.iter().position(|&name| name == found) {
        Some(0) => Some(Action::Allow),
        Some(1) => Some(Action::Deny),
        Some(_) => {
            let diagnostic = not_enforced(
                &format!("the action {}", quote(found)),
                "this version knows allow and deny",
                "remove the rule, or write it as one that allows or denies",
            );
            reporter.report(text.span, diagnostic.field(path));
            None
        }
        None => {
            let near = names
                .into_iter()
                .find(|name| name.eq_ignore_ascii_case(found));
            let help = match near {
                Some(near) => format!("write `{near}`: this format is strict about case"),
                None => format!("write `{}` or `{}`", names[0], names[1]),
            };
            invalid_value(text, "not an action", &help, &path, reporter);
            None
        }
    }
}

fn ip_version(
    document: &RuleDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Family> {
    let text = document.ip_version.as_ref()?;
    match (&*text.value.text, text.value.plain) {
        ("4", true) => Some(Family::V4),
        ("6", true) => Some(Family::V6),
        (_, plain) => {
            let (label, help) = if plain {
                (
                    "not an IP version",
                    "write `4` or `6`, or remove the line to match both",
                )
            } else {
                (
                    "text, where a number belongs",
                    "write `4` or `6` without quotes, or remove the line to match both",
                )
            };
            invalid_value(text, label, help, &path.field("ipVersion"), reporter);
            None
        }
    }
}

/// ICMP exists once for each IP version.
fn protocol_family(
    document: &RuleDocument<'_>,
    protocol: Option<NamedProtocol>,
    ip_version: Option<Family>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let (Some(text), Some(family), Some(asked)) = (
        &document.protocol,
        protocol.and_then(|protocol| protocol.family),
        ip_version,
    ) else {
        return;
    };
    if family != asked {
        let name = &text.value.text;
        let message = format!(
            "{} belongs to {}, and the rule is for {} only",
            quote(name),
            family_name(family),
            family_name(asked)
        );
        reporter.report(
            text.span,
            Diagnostic::error(Code::MixedFamilies, message)
                .field(path.field("protocol"))
                .label(format!("`ipVersion` says {}", family_name(asked)))
                .help("remove `ipVersion`, or write the ICMP of that IP version"),
        );
    }
}

/// What is known of a rule's IP version so far.
struct Families {
    ip_version: Option<(Family, &'static str)>,
    first_net: Option<(IpNet, Span)>,
    /// One report is enough: a list of IPv6 networks behind one of IPv4 is one
    /// mistake.
    reported: bool,
}

impl Families {
    fn agree(&mut self, net: IpNet, span: Span, path: &Path<'_>, reporter: &mut Reporter<'_>) {
        let found = values::family(&net);
        if let Some((asked, _)) = self.ip_version {
            if found != asked && !self.reported {
                self.reported = true;
                let message = format!(
                    "the rule is for {}, and `{net}` is {}",
                    family_name(asked),
                    family_name(found)
                );
                let diagnostic = Diagnostic::error(Code::MixedFamilies, message)
                    .field(path)
                    .label(format!("`ipVersion` says {}", family_name(asked)))
                    .help("remove `ipVersion`, or the networks of the other IP version");
                reporter.report(span, diagnostic);
            }
            return;
        }
        let Some((first, first_span)) = self.first_net else {
            self.first_net = Some((net, span));
            return;
        };
        if values::family(&first) != found && !self.reported {
            self.reported = true;
            let diagnostic = Diagnostic::error(
                Code::MixedFamilies,
                "a rule can't have IPv4 and IPv6 networks at once",
            )
            .field(path)
            .label(format!("this is {}", family_name(found)))
            .related(
                reporter.place(first_span),
                format!("this is {}", family_name(values::family(&first))),
            )
            .help("write two rules, one for each IP version");
            reporter.report(span, diagnostic);
        }
    }
}

fn nets(
    peer: &PeerDocument<'_>,
    dialect: Dialect,
    path: &Path<'_>,
    families: &mut Families,
    reporter: &mut Reporter<'_>,
) -> Vec<IpNet> {
    let path = path.field("nets");
    if let (Dialect::V3, Some(span)) = (dialect, peer.nets.key_span) {
        let limit = Limit::new(MAX_V3_NETS, "networks", "a list of networks");
        limit.check(peer.nets.items.len(), span, &path, reporter);
    }
    let mut nets = Vec::with_capacity(peer.nets.items.len());
    for (index, text) in &peer.nets.items {
        let path = path.index(*index);
        let net = refused(values::net(&text.value.text), text.span, &path, reporter);
        if let Some(net) = net {
            families.agree(net, text.span, &path, reporter);
            nets.push(net);
        }
    }
    nets
}

/// `protocol: icmp` with IPv6 networks is legal, matches next to nothing, and
/// was surely meant as `icmpv6`.
fn icmp_nets(
    document: &RuleDocument<'_>,
    protocol: Option<NamedProtocol>,
    families: &Families,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let (Some(text), Some(family), Some((net, net_span))) = (
        &document.protocol,
        protocol.and_then(|protocol| protocol.family),
        families.first_net,
    ) else {
        return;
    };
    if family != values::family(&net) {
        let message = format!(
            "{} belongs to {}, and the rule's networks are {}",
            quote(&text.value.text),
            family_name(family),
            family_name(values::family(&net))
        );
        reporter.report(
            text.span,
            Diagnostic::warning(Code::IcmpFamily, message)
                .field(path.field("protocol"))
                .label("matches none of the packets that were probably meant")
                .related(
                    reporter.place(net_span),
                    "a network of the other IP version",
                )
                .help("write the ICMP of the networks' IP version"),
        );
    }
}

fn ports_need_protocol(
    document: &RuleDocument<'_>,
    protocol: Option<NamedProtocol>,
    ports: &Texts<'_>,
    dialect: Dialect,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let Some(span) = ports.key_span.filter(|_| !ports.items.is_empty()) else {
        return;
    };
    let with_ports = match dialect {
        Dialect::V1 => "`tcp`, `udp` or `sctp`",
        Dialect::V3 => "`TCP`, `UDP` or `SCTP`",
    };
    let (message, help) = match (&document.protocol, protocol) {
        (None, _) => (
            "a rule with ports needs a protocol".to_owned(),
            format!("add `protocol:` with {with_ports} to the rule; one rule for each protocol"),
        ),
        (Some(text), Some(protocol)) if !protocol.has_ports() => (
            format!("the protocol {} has no ports", quote(&text.value.text)),
            format!("ports go with {with_ports}; remove the ports, or change the protocol"),
        ),
        // Fine, or a protocol that was reported already.
        _ => return,
    };
    let mut diagnostic = Diagnostic::error(Code::PortsNeedProtocol, message)
        .field(path)
        .label("which protocol's ports?")
        .help(help);
    if let Some(text) = &document.protocol {
        diagnostic = diagnostic
            .label("these can't be matched")
            .related(reporter.place(text.span), "the protocol");
    }
    reporter.report(span, diagnostic);
}

fn host_endpoint(
    document: &HostEndpointDocument<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<HostEndpoint> {
    let root = root(&document.path);
    let metadata = root.field("metadata");
    let spec = root.field("spec");
    let name_path = metadata.field("name");
    let name = &document.name;
    match document.dialect {
        Dialect::V1 => v1_name(name, &name_path, reporter),
        Dialect::V3 if !values::is_dns_name(&name.value.text) => {
            let help = "names of v3 host endpoints have the characters a-z, 0-9, `-` and `.`, \
                        and begin and end with a letter or digit";
            invalid_name(name, help, &name_path, reporter);
        }
        Dialect::V3 => {}
    }

    let labels_path = metadata.field("labels");
    for (key, _) in &document.labels {
        if !is_label(&key.value.text) {
            let help = "names of labels have 1 to 512 of the characters a-z, A-Z, 0-9, `_`, `.`, \
                        `/` and `-`: selectors can't name others";
            invalid_name(key, help, &labels_path.field(&key.value.text), reporter);
        }
    }
    let profiles_path = spec.field("profiles");
    for (index, profile) in &document.profiles.items {
        if profile.value.text != DEFAULT_ALLOW {
            let diagnostic = not_enforced(
                &format!("the profile {}", quote(&profile.value.text)),
                "this version has no profiles of its own",
                &format!(
                    "use `[]` to deny, or `[{DEFAULT_ALLOW}]` to allow, what no policy decides"
                ),
            );
            reporter.report(profile.span, diagnostic.field(profiles_path.index(*index)));
        }
    }
    let interface = interface(document, &spec.field("interfaceName"), reporter);
    let text_of = |text: &Text<'_>| text.value.text.clone().into_owned();
    Some(HostEndpoint {
        name: text_of(name),
        node: document.node.as_ref().map(text_of),
        interface: Some(interface?),
        expected_ips: Vec::new(),
        labels: document
            .labels
            .iter()
            .map(|(key, value)| (text_of(key), text_of(value)))
            .collect(),
        profiles: document
            .profiles
            .items
            .iter()
            .map(|(_, name)| text_of(name))
            .collect(),
        ports: Vec::new(),
        place: reporter.place(name.span),
    })
}

fn interface(
    document: &HostEndpointDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Interface> {
    let text = document.interface.as_ref()?;
    let name = &*text.value.text;
    match (name, document.dialect) {
        ("*", Dialect::V3) => return Some(Interface::All),
        ("*", Dialect::V1) => {
            let help = "v1 has no `*`: name the interface, or write a v3 HostEndpoint";
            invalid_value(text, "not an interface", help, path, reporter);
        }
        _ if values::is_interface_name(name) => return Some(Interface::Named(name.to_owned())),
        _ => {
            let help = "interfaces have names of 1 to 15 of the characters a-z, A-Z, 0-9, `_`, \
                        `.` and `-`, as `ip link` shows them";
            invalid_value(text, "not an interface", help, path, reporter);
        }
    }
    None
}

fn invalid_value(
    text: &Text<'_>,
    label: &str,
    help: &str,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let message = format!(
        "{} is not valid for {}",
        quote(&text.value.text),
        quote(&path.to_string())
    );
    reporter.report(
        text.span,
        Diagnostic::error(Code::InvalidValue, message)
            .field(path)
            .label(label)
            .help(help),
    );
}

/// Reports a refusal, and gives back what is left.
fn refused<T>(
    result: Result<T, Refusal>,
    span: Span,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(refusal) => {
            reporter.report(
                span,
                Diagnostic::error(refusal.code, refusal.message)
                    .field(path)
                    .label(refusal.label)
                    .help(refusal.help),
            );
            None
        }
    }
}

/// How many members a format allows.
struct Limit {
    most: usize,
    of: &'static str,
    object: &'static str,
}

impl Limit {
    const fn new(most: usize, of: &'static str, object: &'static str) -> Self {
        Self { most, of, object }
    }

    fn check(&self, found: usize, span: Span, path: &Path<'_>, reporter: &mut Reporter<'_>) {
        let Self { most, of, object } = self;
        if found > *most {
            let message = format!("{object} in v3 has at most {most} {of}, and this has {found}");
            reporter.report(
                span,
                Diagnostic::error(Code::TooMany, message)
                    .field(path)
                    .label(format!("{found} {of}"))
                    .help("split it over several rules or policies"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, check};
    use super::*;

    /// Checks a v1 or v3 policy with this text as its spec, in flow form.
    fn errors(dialect: Dialect, spec: &str) -> Vec<String> {
        let head = match dialect {
            Dialect::V1 => "apiVersion: v1\nkind: policy\n",
            Dialect::V3 => "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n",
        };
        let text = format!("{head}metadata: {{name: p}}\nspec:\n{spec}");
        let checked = check(&[Source::new("t", text)]);
        assert_eq!(checked.model.is_none(), !checked.diagnostics.is_empty());
        let diagnostics = checked.diagnostics.iter();
        let places = diagnostics.map(|diagnostic| {
            let place = diagnostic.place.as_ref().expect("a place");
            // Lines of the spec, not of the whole.
            let (line, column) = (place.start.line - 4, place.start.column);
            let field = diagnostic.field.as_deref().unwrap_or_default();
            format!("{line}:{column} {} {field}", diagnostic.code)
        });
        places.collect()
    }

    fn rule_errors(dialect: Dialect, rule: &str) -> Vec<String> {
        errors(dialect, &format!(" ingress:\n - {rule}\n"))
    }

    const OK: &[&str] = &[];

    #[test]
    fn rules_that_are_legal_in_v1() {
        for rule in [
            "{action: allow}",
            "{action: deny, protocol: tcp, destination: {ports: [1, '65535', 30000:32767]}}",
            "{action: deny, protocol: sctp, destination: {ports: [1]}}",
            "{action: deny, protocol: 132, destination: {ports: [1]}}",
            "{action: deny, protocol: icmp, destination: {ports: []}}",
            "{action: deny, protocol: udplite}",
            "{action: deny, protocol: icmp}",
            "{action: deny, protocol: icmp, ipVersion: 4}",
            "{action: deny, protocol: icmpv6, ipVersion: 6}",
            // A number names no IP version.
            "{action: deny, protocol: 1, ipVersion: 6}",
            "{action: deny, source: {nets: []}, destination: {}}",
            "{action: deny, ipVersion: 6, source: {nets: ['::/0', '::1']}}",
            "{action: deny, source: {nets: [10.0.0.1]}, destination: {nets: [0.0.0.0/0]}}",
            // Written with the value that they have anyway.
            "{action: deny, source: {notNets: [], selector: '', ports: []}}",
        ] {
            assert_eq!(rule_errors(Dialect::V1, rule), OK, "{rule}");
        }
    }

    #[test]
    fn rules_that_are_illegal() {
        let (v1, v3) = (Dialect::V1, Dialect::V3);
        for (dialect, rule, expected) in [
            (v1, "{}", "2:4 missing-field spec.ingress[0].action"),
            (
                v1,
                "{action: Allow}",
                "2:13 invalid-value spec.ingress[0].action",
            ),
            (
                v3,
                "{action: allow}",
                "2:13 invalid-value spec.ingress[0].action",
            ),
            (
                v1,
                "{action: log}",
                "2:13 not-enforced spec.ingress[0].action",
            ),
            (
                v3,
                "{action: Pass}",
                "2:13 not-enforced spec.ingress[0].action",
            ),
            (
                v1,
                "{action: deny, ipVersion: 5}",
                "2:30 invalid-value spec.ingress[0].ipVersion",
            ),
            (
                v1,
                "{action: deny, protocol: UDP}",
                "2:29 invalid-value spec.ingress[0].protocol",
            ),
            (
                v3,
                "{action: Deny, protocol: udp}",
                "2:29 invalid-value spec.ingress[0].protocol",
            ),
            (
                v3,
                "{action: Deny, protocol: ICMP, ipVersion: 6}",
                "2:29 mixed-families spec.ingress[0].protocol",
            ),
            (
                v3,
                "{action: Deny, protocol: ICMPv6, ipVersion: 4}",
                "2:29 mixed-families spec.ingress[0].protocol",
            ),
            (
                v1,
                "{action: deny, source: {nets: [10.1.0.0/8]}}",
                "2:35 host-bits spec.ingress[0].source.nets[0]",
            ),
            (
                v3,
                "{action: Deny, destination: {nets: ['::', '::1/64']}}",
                "2:46 host-bits spec.ingress[0].destination.nets[1]",
            ),
            (
                v1,
                "{action: deny, source: {nets: [10.0.0.0/8]}, destination: {nets: ['::1']}}",
                "2:70 mixed-families spec.ingress[0].destination.nets[0]",
            ),
            (
                v1,
                "{action: deny, ipVersion: 4, source: {nets: ['::1', '::2']}}",
                "2:49 mixed-families spec.ingress[0].source.nets[0]",
            ),
            (
                v1,
                "{action: deny, destination: {ports: [80]}}",
                "2:33 ports-need-protocol spec.ingress[0].destination.ports",
            ),
            (
                v3,
                "{action: Deny, protocol: UDPLite, destination: {ports: [80]}}",
                "2:52 ports-need-protocol spec.ingress[0].destination.ports",
            ),
            (
                v1,
                "{action: deny, protocol: 47, destination: {ports: [80]}}",
                "2:47 ports-need-protocol spec.ingress[0].destination.ports",
            ),
            (
                v1,
                "{action: deny, protocol: tcp, destination: {ports: [1, 90:80]}}",
                "2:59 invalid-port spec.ingress[0].destination.ports[1]",
            ),
            (
                v3,
                "{action: Deny, protocol: TCP, destination: {ports: [http]}}",
                "2:56 not-enforced spec.ingress[0].destination.ports[0]",
            ),
            (
                v3,
                "{action: Deny, protocol: TCP, source: {ports: [1]}}",
                "2:43 not-enforced spec.ingress[0].source.ports",
            ),
            (
                v1,
                "{action: deny, source: {net: 10.0.0.0/8}}",
                "2:28 not-enforced spec.ingress[0].source.net",
            ),
            (
                v3,
                "{action: Deny, source: {net: 10.0.0.0/8}}",
                "2:28 unknown-field spec.ingress[0].source.net",
            ),
            (
                v1,
                "{action: deny, metadata: {}}",
                "2:19 unknown-field spec.ingress[0].metadata",
            ),
            (
                v3,
                "{action: Deny, metadata: {labels: {}}}",
                "2:30 unknown-field spec.ingress[0].metadata.labels",
            ),
        ] {
            assert_eq!(rule_errors(dialect, rule), [expected], "{rule}");
        }
    }

    #[test]
    fn the_rest_of_a_policy() {
        let (v1, v3) = (Dialect::V1, Dialect::V3);
        for (dialect, spec, expected) in [
            (v1, " order: -1.5e3\n", OK),
            (v1, " order: .5\n", OK),
            (v1, " order: +0.5\n", OK),
            (v1, " order: 010\n", &["1:9 wrong-type spec.order"]),
            (v1, " order: '5'\n", &["1:9 wrong-type spec.order"]),
            (v1, " order: .inf\n", &["1:9 wrong-type spec.order"]),
            (v1, " order: nan\n", &["1:9 wrong-type spec.order"]),
            (v1, " order: 1e999\n", &["1:9 wrong-type spec.order"]),
            (v1, " types: [ingress]\n", OK),
            (v1, " types: []\n", OK),
            (
                v1,
                " types: [egress]\n",
                &["1:10 not-enforced spec.types[0]"],
            ),
            (v3, " types: [Ingress]\n egress: []\n", OK),
            (
                v3,
                " egress: [{action: Allow}]\n",
                &["1:2 not-enforced spec.egress"],
            ),
            (v1, " egress: 5\n", &["1:10 wrong-type spec.egress"]),
            (
                v1,
                " preDNAT: true\n egress: [{action: allow}]\n",
                &["2:2 pre-dnat spec.egress"],
            ),
            (v3, " preDNAT: false\n applyOnForward: false\n", OK),
            (v3, " preDNAT: true\n applyOnForward: true\n", OK),
            (
                v3,
                " preDNAT: true\n",
                &["1:11 pre-dnat spec.applyOnForward"],
            ),
            (
                v3,
                " applyOnForward: true\n",
                &["1:18 not-enforced spec.applyOnForward"],
            ),
            (v1, " preDNAT: yes\n", &["1:11 wrong-type spec.preDNAT"]),
            (v1, " preDNAT: 'true'\n", &["1:11 wrong-type spec.preDNAT"]),
            (v1, " doNotTrack: false\n", OK),
            (
                v1,
                " doNotTrack: true\n",
                &["1:2 not-enforced spec.doNotTrack"],
            ),
            (v3, " tier: default\n", OK),
            (v3, " tier: x\n", &["1:2 not-enforced spec.tier"]),
            (v1, " tier: default\n", &["1:2 unknown-field spec.tier"]),
            (
                v1,
                " selector: has(\n",
                &["1:16 invalid-selector spec.selector"],
            ),
            (
                v1,
                " selector: \"a == b\"\n",
                &["1:18 invalid-selector spec.selector"],
            ),
        ] {
            assert_eq!(errors(dialect, spec), expected, "{spec}");
        }
    }

    #[test]
    fn limits_hold_exactly_and_in_v3_only() {
        let nets = |count: usize| {
            let nets: Vec<_> = (0..count)
                .map(|i| format!("10.0.{}.{}", i / 256, i % 256))
                .collect();
            format!("source: {{nets: [{}]}}", nets.join(", "))
        };
        let ports = |count: usize| {
            let ports: Vec<_> = (1..=count).map(|port| port.to_string()).collect();
            format!("destination: {{ports: [{}]}}", ports.join(", "))
        };
        let rule = |dialect, conditions: &str| match dialect {
            Dialect::V1 => rule_errors(
                dialect,
                &format!("{{action: deny, protocol: tcp, {conditions}}}"),
            ),
            Dialect::V3 => rule_errors(
                dialect,
                &format!("{{action: Deny, protocol: TCP, {conditions}}}"),
            ),
        };
        let rules = |dialect, count| {
            let action = if dialect == Dialect::V1 {
                "allow"
            } else {
                "Allow"
            };
            errors(
                dialect,
                &format!(
                    " ingress:\n{}",
                    format!(" - action: {action}\n").repeat(count)
                ),
            )
        };
        let selector = |dialect, length: usize| {
            errors(
                dialect,
                &format!(" selector: has({})\n", vec!["a"; length - 5].join("")),
            )
        };
        assert_eq!(rule(Dialect::V3, &nets(256)), OK);
        assert_eq!(rule(Dialect::V3, &nets(257)).len(), 1);
        assert_eq!(rule(Dialect::V1, &nets(257)), OK);
        assert_eq!(rule(Dialect::V3, &ports(50)), OK);
        assert_eq!(rule(Dialect::V3, &ports(51)).len(), 1);
        assert_eq!(rule(Dialect::V1, &ports(51)), OK);
        assert_eq!(rules(Dialect::V3, 1_024), OK);
        assert_eq!(rules(Dialect::V3, 1_025).len(), 1);
        assert_eq!(rules(Dialect::V1, 1_025), OK);
        let spaces = |length: usize| format!(" selector: '{}'\n", " ".repeat(length));
        assert_eq!(errors(Dialect::V3, &spaces(1_024)), OK);
        assert_eq!(errors(Dialect::V3, &spaces(1_025)).len(), 1);
        assert_eq!(errors(Dialect::V1, &spaces(1_025)), OK);
        assert_eq!(selector(Dialect::V1, 512 + 5), OK);
    }

    #[test]
    fn policies_come_in_evaluation_order() {
        let policy = |name: &str, spec: &str| {
            format!(
                "- {{apiVersion: v1, kind: policy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
            )
        };
        let text = [
            policy("last", ""),
            policy("c", "order: 10"),
            policy("b", "order: 10.5"),
            policy("a2", "order: -0.0"),
            policy("a1", "order: 0"),
            policy("Last", ""),
            policy("z", "order: 99, preDNAT: true"),
            policy("neg", "order: -5"),
        ]
        .concat();
        let model = check(&[Source::new("t", text)]).model.expect("valid");
        let names: Vec<_> = model
            .policies()
            .iter()
            .map(|policy| &**policy.name())
            .collect();
        assert_eq!(names, ["z", "neg", "a1", "a2", "c", "b", "Last", "last"]);
    }
}
