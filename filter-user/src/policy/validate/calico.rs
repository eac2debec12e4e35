//! Calico's documents → model.

use std::sync::Arc;

use ipnet::IpNet;

use super::{DEFAULT_NAMESPACE, invalid_name, invalid_value, labels, number, refused, root};
use crate::policy::diagnostic::{Code, Diagnostic, Place, Reporter, quote};
use crate::policy::documents::calico::{
    Dialect, HostEndpointDocument, IcmpDocument, NamedPortDocument, PeerDocument, PolicyDocument,
    PolicyKind, ProfileDocument, RuleDocument, RulesDocument, TierDocument,
};
use crate::policy::model::{
    Criteria, DEFAULT_ALLOW, DEFAULT_TIER, HostEndpoint, Interface, Kind, NamedPort, Peer, Policy,
    Port, Profile, Rule, Selects, Tier, Types,
};
use crate::policy::schema::{Path, Spanned, Text, Texts, list};
use crate::policy::selector::{NAMESPACE, Selector, SelectorError};
use crate::policy::source::Span;
use crate::policy::values::{self, NamedProtocol, family_name};
use crate::policy::yaml;
use crate::ruleset::{Action, Family, Icmp, SourceLine, Stage};

const MAX_V3_SELECTOR: usize = 1_024;
const MAX_V3_RULES: usize = 1_024;
const MAX_V3_NETS: usize = 256;
const MAX_V3_PORTS: usize = 50;

/// Names that documents mention and that must exist, each with its place.
#[derive(Debug, Default)]
pub(in crate::policy) struct References {
    tiers: Vec<(String, Span, String)>,
    profiles: Vec<(String, Span, String)>,
}

impl References {
    /// Reports what is mentioned and isn't there.
    pub(in crate::policy) fn check(
        &self,
        tiers: &[Tier],
        profiles: &[Profile],
        reporter: &mut Reporter<'_>,
    ) {
        for (name, span, field) in &self.tiers {
            if !tiers.iter().any(|tier| *tier.name == **name) {
                let message = format!("there is no tier {}", quote(name));
                reporter.report(
                    *span,
                    Diagnostic::error(Code::UnknownReference, message)
                        .field(field)
                        .label("no document describes it")
                        .help(
                            "add its Tier document to the files: where its policies stand hangs \
                             on its order",
                        ),
                );
            }
        }
        for (name, span, field) in &self.profiles {
            let known = profiles.iter().any(|profile| *profile.name == **name);
            if !known && name != DEFAULT_ALLOW {
                let message = format!("there is no profile {}", quote(name));
                let help = format!(
                    "add its document to the files, or use `[]` to deny, `[{DEFAULT_ALLOW}]` to \
                     allow, what no policy decides"
                );
                reporter.report(
                    *span,
                    Diagnostic::error(Code::UnknownReference, message)
                        .field(field)
                        .label("no document describes it")
                        .help(help),
                );
            }
        }
    }
}

/// Validates a policy.
pub(in crate::policy) fn policy(
    document: &PolicyDocument<'_>,
    references: &mut References,
    reporter: &mut Reporter<'_>,
) -> Option<Policy> {
    let dialect = document.kind.dialect();
    let root = root(&document.path);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    let tier = tier_of(document, &metadata, &spec, references, reporter);
    let namespace = document
        .kind
        .is_namespaced()
        .then(|| match &document.namespace {
            None => DEFAULT_NAMESPACE.to_owned(),
            Some(text) => {
                super::namespace(text, &metadata.field("namespace"), reporter);
                text.value.text.clone().into_owned()
            }
        });

    let stage = stage(document, &spec, reporter);
    let types = types(document, stage, &spec, reporter);
    let is_set = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
    let apply_on_forward = match dialect {
        // These stages see every packet.
        Dialect::V1 => stage != Stage::Normal,
        Dialect::V3 => is_set(&document.apply_on_forward),
    };
    let labels = policy_selector(document, &spec, reporter);
    performance_hints(&document.performance_hints, &spec, reporter);

    let mut list = |rules_document: &RulesDocument<'_>, field: &'static str| {
        let path = spec.field(field);
        rules(
            rules_document,
            dialect,
            namespace.as_deref(),
            &path,
            reporter,
        )
    };
    let (ingress, egress) = (
        list(&document.ingress, "ingress"),
        list(&document.egress, "egress"),
    );
    let written = &document.name.value.text;
    let name = match &namespace {
        Some(namespace) => format!("{namespace}/{written}"),
        None => written.clone().into_owned(),
    };
    Some(Policy {
        kind: match document.kind {
            PolicyKind::V1 => Kind::V1Policy,
            PolicyKind::Global | PolicyKind::StagedGlobal => Kind::GlobalNetworkPolicy,
            PolicyKind::Namespaced | PolicyKind::StagedNamespaced => Kind::NetworkPolicy,
        },
        name: if document.kind.is_staged() {
            format!("staged:{name}").into()
        } else {
            name.into()
        },
        tier: tier.into(),
        stage,
        staged: document.kind.is_staged(),
        // -0 and 0 are one order.
        order: document.order.as_ref().map(|order| order.value + 0.0),
        selects: Selects {
            labels: labels?,
            namespace,
            interfaces: Vec::new(),
        },
        apply_on_forward,
        types,
        ingress,
        egress,
        place: reporter.place(document.name.span),
    })
}

/// They say how work can be spared, and nothing of packets; a misspelled one
/// is a mistake all the same.
fn performance_hints(hints: &Texts<'_>, spec: &Path<'_>, reporter: &mut Reporter<'_>) {
    const HINT: &str = "AssumeNeededOnEveryNode";
    let path = spec.field("performanceHints");
    for (index, text) in &hints.items {
        if text.value.text != HINT {
            let help = format!("there is only `{HINT}`, which changes nothing here");
            invalid_value(text, "not a hint", &help, &path.index(*index), reporter);
        }
    }
}

/// The tier of a policy, by its field and by its name, which must agree.
fn tier_of(
    document: &PolicyDocument<'_>,
    metadata: &Path<'_>,
    spec: &Path<'_>,
    references: &mut References,
    reporter: &mut Reporter<'_>,
) -> String {
    let name = &document.name;
    let name_path = metadata.field("name");
    let written = document.tier.as_ref();
    let tier = written.map_or(DEFAULT_TIER, |text| &text.value.text);
    if let Some(text) = written {
        let path = match document.kind.dialect() {
            Dialect::V1 => metadata.field("tier"),
            Dialect::V3 => spec.field("tier"),
        };
        references
            .tiers
            .push((tier.to_owned(), text.span, path.to_string()));
    }
    if document.kind.dialect() == Dialect::V1 {
        v1_name(name, &name_path, reporter);
        return tier.to_owned();
    }
    match name.value.text.split_once('.') {
        None => dns_label(name, &name.value.text, &name_path, reporter),
        Some((prefix, rest)) if prefix == tier => dns_label(name, rest, &name_path, reporter),
        Some((prefix, _)) => {
            let message = format!(
                "the name says the tier {}, and the policy is in {}",
                quote(prefix),
                quote(tier)
            );
            let mut diagnostic = Diagnostic::error(Code::InvalidName, message)
                .field(name_path)
                .label("what stands before the dot is the tier")
                .help(format!(
                    "write `tier: {prefix}` in its spec, or give it a name without a dot"
                ));
            if let Some(text) = written {
                diagnostic = diagnostic.related(reporter.place(text.span), "the tier");
            }
            reporter.report(name.span, diagnostic);
        }
    }
    tier.to_owned()
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

fn dns_name(name: &Text<'_>, objects: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if !values::is_dns_name(&name.value.text) {
        let help = format!(
            "names of {objects} have the characters a-z, 0-9, `-` and `.`, and begin and end with \
             a letter or digit"
        );
        invalid_name(name, &help, path, reporter);
    }
}

/// The stage, and what it asks of the other fields.
fn stage(document: &PolicyDocument<'_>, spec: &Path<'_>, reporter: &mut Reporter<'_>) -> Stage {
    let set = |flag: &Option<Spanned<bool>>| {
        flag.as_ref()
            .filter(|flag| flag.value)
            .map(|flag| flag.span)
    };
    let (stage, field, span) = match (set(&document.do_not_track), set(&document.pre_dnat)) {
        (Some(untracked), Some(pre_dnat)) => {
            let diagnostic = Diagnostic::error(
                Code::PreDnat,
                "a policy can't have `doNotTrack` and `preDNAT` at once",
            )
            .field(spec.field("preDNAT"))
            .label("a stage of its own")
            .related(reporter.place(untracked), "another stage")
            .help("write two policies, one for each stage");
            reporter.report(pre_dnat, diagnostic);
            (Stage::PreDnat, "preDNAT", pre_dnat)
        }
        (Some(span), None) => (Stage::Untracked, "doNotTrack", span),
        (None, Some(span)) => (Stage::PreDnat, "preDNAT", span),
        (None, None) => return Stage::Normal,
    };
    if document.kind.dialect() == Dialect::V1 {
        return stage;
    }
    let path = spec.field("applyOnForward");
    let message = format!("`{field}: true` needs `applyOnForward: true`");
    match &document.apply_on_forward {
        Some(flag) if flag.value => {}
        Some(flag) => reporter.report(
            flag.span,
            Diagnostic::error(Code::PreDnat, message)
                .field(path)
                .label("must be true")
                .help(format!(
                    "a `{field}` policy acts on forwarded packets too: write `true` here"
                )),
        ),
        None => reporter.report(
            span,
            Diagnostic::error(Code::PreDnat, message)
                .field(path)
                .label("acts on forwarded packets too")
                .help("add the line `applyOnForward: true` beside it"),
        ),
    }
    stage
}

/// The directions of a policy: those it says, or those it has rules for.
fn types(
    document: &PolicyDocument<'_>,
    stage: Stage,
    spec: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Types {
    let (ingress, egress) = match document.kind.dialect() {
        Dialect::V1 => ("ingress", "egress"),
        Dialect::V3 => ("Ingress", "Egress"),
    };
    let refuse = |span, path: &Path<'_>, reporter: &mut Reporter<'_>| {
        let diagnostic = Diagnostic::error(Code::PreDnat, "a `preDNAT` policy can't have egress")
            .field(path)
            .label("`preDNAT` acts on packets that come in")
            .help("put what concerns egress into a policy of its own, without `preDNAT`");
        reporter.report(span, diagnostic);
    };
    let there = |rules: &RulesDocument<'_>| rules.written > 0;
    let mut types = Types {
        ingress: there(&document.ingress) || !there(&document.egress),
        egress: there(&document.egress),
    };
    if document.types.key_span.is_some() && !document.types.items.is_empty() {
        types = Types {
            ingress: false,
            egress: false,
        };
    }
    let errors_before = reporter.errors();
    let types_path = spec.field("types");
    for (index, text) in &document.types.items {
        let path = types_path.index(*index);
        let found = &*text.value.text;
        if found == egress {
            types.egress = true;
            if stage == Stage::PreDnat {
                refuse(text.span, &path, reporter);
            }
        } else if found == ingress {
            types.ingress = true;
        } else {
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
    if let (Some(span), true, Stage::PreDnat) =
        (document.egress.key_span, there(&document.egress), stage)
    {
        refuse(span, &spec.field("egress"), reporter);
    }
    for (field, name, rules, in_force) in [
        ("ingress", ingress, &document.ingress, types.ingress),
        ("egress", egress, &document.egress, types.egress),
    ] {
        let said = reporter.errors() == errors_before;
        if let (Some(span), true, false, true) = (rules.key_span, there(rules), in_force, said) {
            let diagnostic = Diagnostic::warning(
                Code::NoEffect,
                format!("the {field} rules are not in force"),
            )
            .field(spec.field(field))
            .label(format!("`types` does not have `{name}`"))
            .help(format!("add `{name}` to `types`, or remove the rules"));
            reporter.report(span, diagnostic);
        }
    }
    types
}

/// Which endpoints a policy is for, by all of its selectors.
fn policy_selector(
    document: &PolicyDocument<'_>,
    spec: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Selector> {
    let mut labels = Selector::ALL;
    if let Some(text) = &document.selector {
        let path = spec.field("selector");
        if document.kind.dialect() == Dialect::V3 {
            let length = text.value.text.chars().count();
            let limit = Limit::new(MAX_V3_SELECTOR, "characters", "a selector");
            limit.check(length, text.span, &path, reporter);
        }
        labels = selector(text, Selector::parse, &path, reporter)?;
    }
    for (field, text, read) in [
        (
            "namespaceSelector",
            &document.namespace_selector,
            Selector::of_policy_namespaces as fn(&str) -> _,
        ),
        (
            "serviceAccountSelector",
            &document.service_account_selector,
            Selector::of_service_accounts,
        ),
    ] {
        if let Some(text) = text
            .as_ref()
            .filter(|text| !text.value.text.trim().is_empty())
        {
            labels = labels.and(selector(text, read, &spec.field(field), reporter)?);
        }
    }
    Some(labels)
}

fn selector(
    text: &Text<'_>,
    read: impl Fn(&str) -> Result<Selector, SelectorError>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Selector> {
    match read(&text.value.text) {
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

/// The rules of a list, in their order.
fn rules(
    document: &RulesDocument<'_>,
    dialect: Dialect,
    namespace: Option<&str>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Vec<Rule> {
    if let (Dialect::V3, Some(span)) = (dialect, document.key_span) {
        let limit = Limit::new(MAX_V3_RULES, "rules", "a list of rules");
        limit.check(document.written, span, path, reporter);
    }
    let mut rules = Vec::with_capacity(document.rules.len());
    for document in &document.rules {
        let path = path.index(document.index);
        rules.extend(rule(document, dialect, namespace, &path, reporter));
    }
    rules
}

fn rule(
    document: &RuleDocument<'_>,
    dialect: Dialect,
    namespace: Option<&str>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Rule> {
    let errors_before = reporter.errors();
    let action = action(document, dialect, path, reporter);
    let ip_version = ip_version(document, path, reporter);
    let mut named = |text: &Option<Text<'_>>, field: &'static str| {
        let text = text.as_ref()?;
        let found = values::protocol(&text.value.text, dialect);
        refused(found, text.span, &path.field(field), reporter)
    };
    let protocol = named(&document.protocol, "protocol");
    let not_protocol = named(&document.not_protocol, "notProtocol");
    protocol_family(document, protocol, ip_version, path, reporter);
    let icmp = icmp(
        document,
        "icmp",
        document.icmp.as_ref(),
        protocol,
        path,
        reporter,
    );
    let not_icmp = self::icmp(
        document,
        "notICMP",
        document.not_icmp.as_ref(),
        protocol,
        path,
        reporter,
    );

    let mut families = Families {
        ip_version: ip_version.map(|family| (family, "`ipVersion` says so")),
        first_net: None,
        reported: false,
    };
    let mut side = |peer: &PeerDocument<'_>, field: &'static str| {
        let context = Context {
            rule: document,
            dialect,
            namespace,
            protocol,
        };
        context.peer(peer, &path.field(field), &mut families, reporter)
    };
    let src = side(&document.source, "source");
    let dst = side(&document.destination, "destination");
    icmp_nets(document, protocol, &families, path, reporter);

    if reporter.errors() > errors_before {
        return None;
    }
    let place = reporter.place(document.start);
    Some(Rule {
        action: action?,
        criteria: vec![Criteria {
            family: ip_version,
            protocol: protocol.map(|protocol| protocol.number),
            not_protocol: not_protocol.map(|protocol| protocol.number),
            icmp,
            not_icmp,
            src,
            dst,
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
    const ACTIONS: [Action; 4] = [Action::Allow, Action::Deny, Action::Log, Action::Pass];
    let text = document.action.as_ref()?;
    let found = &*text.value.text;
    let names = match dialect {
        Dialect::V1 => ["allow", "deny", "log", "pass"],
        Dialect::V3 => ["Allow", "Deny", "Log", "Pass"],
    };
    let known = names.iter().position(|&name| name == found);
    if known.is_none() {
        let near = names
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(found));
        let help = match near {
            Some(near) => format!("write `{near}`: this format is strict about case"),
            None => format!("the actions are {}", list(names.into_iter())),
        };
        invalid_value(
            text,
            "not an action",
            &help,
            &path.field("action"),
            reporter,
        );
    }
    known.map(|index| ACTIONS[index])
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

/// An ICMP type and code. They go with a protocol that has such.
fn icmp(
    rule: &RuleDocument<'_>,
    field: &'static str,
    document: Option<&IcmpDocument<'_>>,
    protocol: Option<NamedProtocol>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Icmp> {
    let document = document?;
    let path = path.field(field);
    let is_icmp = protocol.is_some_and(|protocol| matches!(protocol.number, 1 | 58));
    // A protocol that could not be read was reported already.
    if !is_icmp && (protocol.is_some() || rule.protocol.is_none()) {
        let message = format!("`{field}` needs the protocol ICMP or ICMPv6");
        let mut diagnostic = Diagnostic::error(Code::IcmpNeedsProtocol, message)
            .field(path)
            .label("no other protocol has these types and codes")
            .help("add `protocol:` with the ICMP that is meant to the rule");
        if let Some(text) = &rule.protocol {
            diagnostic = diagnostic.related(reporter.place(text.span), "the protocol");
        }
        reporter.report(document.key_span, diagnostic);
    }
    let kind = document.kind.as_ref().and_then(|text| {
        let help = "ICMP types go from 0 to 254";
        number(text, 0, 254, help, &path.field("type"), reporter)
    });
    let code = document.code.as_ref().and_then(|text| {
        let help = "ICMP codes go from 0 to 255";
        number(text, 0, 255, help, &path.field("code"), reporter)
    });
    match (&document.kind, &document.code) {
        (None, Some(text)) => {
            let diagnostic = Diagnostic::error(Code::MissingField, "an ICMP code needs a type")
                .field(path.field("type"))
                .label("each type has codes of its own")
                .help("add `type:` beside it");
            reporter.report(text.span, diagnostic);
            None
        }
        (None, None) => {
            let message = format!("`{field}` has neither a type nor a code");
            let diagnostic = Diagnostic::error(Code::MissingField, message)
                .field(path)
                .label("nothing to match")
                .help("add `type:`, or remove the field to match all of ICMP");
            reporter.report(document.key_span, diagnostic);
            None
        }
        (Some(_), _) => Some(Icmp {
            kind: u8::try_from(kind?).ok()?,
            code: code.and_then(|code| u8::try_from(code).ok()),
        }),
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

/// What the sides of a rule have in common.
struct Context<'a, 't> {
    rule: &'a RuleDocument<'t>,
    dialect: Dialect,
    /// The namespace of the policy.
    namespace: Option<&'a str>,
    protocol: Option<NamedProtocol>,
}

impl Context<'_, '_> {
    fn peer(
        &self,
        peer: &PeerDocument<'_>,
        path: &Path<'_>,
        families: &mut Families,
        reporter: &mut Reporter<'_>,
    ) -> Peer {
        let mut nets = |one: (&'static str, &Option<Text<'_>>),
                        several: (&'static str, &Texts<'_>),
                        reporter: &mut Reporter<'_>| {
            let mut nets = self.nets(several.1, &path.field(several.0), families, reporter);
            if let (field, Some(text)) = one {
                let path = path.field(field);
                if let Some(other) = peer.nets.key_span.or(peer.not_nets.key_span) {
                    let message = format!("`{field}` can't stand beside `nets` or `notNets`");
                    let diagnostic = Diagnostic::error(Code::InvalidValue, message)
                        .field(path)
                        .label("the older way to write it")
                        .related(reporter.place(other), "the newer way")
                        .help("move it into the list");
                    reporter.report(text.span, diagnostic);
                }
                let net = refused(values::net(&text.value.text), text.span, &path, reporter);
                if let Some(net) = net {
                    families.agree(net, text.span, &path, reporter);
                    nets.push(net);
                }
            }
            nets
        };
        let positive = nets(("net", &peer.net), ("nets", &peer.nets), reporter);
        let negative = nets(
            ("notNet", &peer.not_net),
            ("notNets", &peer.not_nets),
            reporter,
        );
        if self.dialect == Dialect::V3 {
            for (index, text) in &peer.not_nets.items {
                if values::net(&text.value.text).is_ok_and(|net| net.prefix_len() == 0) {
                    let help = "it excludes every address: remove it, and the rule if nothing is \
                                left of it";
                    let path = path.field("notNets");
                    invalid_value(
                        text,
                        "nothing is outside of it",
                        help,
                        &path.index(*index),
                        reporter,
                    );
                }
            }
        }
        let tag = |text: &Option<Text<'_>>| {
            let text = text.as_ref().filter(|text| !text.value.text.is_empty());
            text.map(|text| text.value.text.clone().into_owned())
        };
        Peer {
            nets: positive,
            not_nets: negative,
            selector: self.selector(peer, path, reporter),
            not_selector: given(peer.not_selector.as_ref()).and_then(|text| {
                selector(text, Selector::parse, &path.field("notSelector"), reporter)
            }),
            tag: tag(&peer.tag),
            not_tag: tag(&peer.not_tag),
            ports: self.ports(&peer.ports, &path.field("ports"), reporter),
            not_ports: self.ports(&peer.not_ports, &path.field("notPorts"), reporter),
        }
    }

    /// The selector of a side, with the namespace folded in as Calico does.
    fn selector(
        &self,
        peer: &PeerDocument<'_>,
        path: &Path<'_>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Selector> {
        let own = given(peer.selector.as_ref());
        let namespaces = given(peer.namespace_selector.as_ref());
        let excluded = given(peer.not_selector.as_ref());
        // A `notSelector` alone keeps a rule within its namespace as well.
        if own.or(namespaces).is_none() && excluded.is_none_or(|_| self.namespace.is_none()) {
            return None;
        }
        let labels = match own {
            Some(text) => selector(text, Selector::parse, &path.field("selector"), reporter)?,
            None => Selector::ALL,
        };
        let Some(text) = namespaces else {
            return Some(match self.namespace {
                Some(namespace) => Selector::has_value(NAMESPACE, namespace).and(labels),
                None => labels,
            });
        };
        let path = path.field("namespaceSelector");
        let namespaces = selector(text, Selector::of_namespaces, &path, reporter)?;
        if let Some(unknown) = namespaces.unknown_namespace_label() {
            let diagnostic = Diagnostic::error(
                Code::NotEnforced,
                format!(
                    "the namespaces with the label {} can't be found without a cluster",
                    quote(unknown)
                ),
            )
            .field(path)
            .label("asks for labels of namespaces")
            .help(
                "nothing was applied; name the namespaces by `projectcalico.org/name` or \
                 `kubernetes.io/metadata.name`, or write `global()` or `all()`",
            );
            reporter.report(text.span, diagnostic);
            return None;
        }
        Some(namespaces.and(labels))
    }

    fn nets(
        &self,
        texts: &Texts<'_>,
        path: &Path<'_>,
        families: &mut Families,
        reporter: &mut Reporter<'_>,
    ) -> Vec<IpNet> {
        if let (Dialect::V3, Some(span)) = (self.dialect, texts.key_span) {
            let limit = Limit::new(MAX_V3_NETS, "networks", "a list of networks");
            limit.check(texts.items.len(), span, path, reporter);
        }
        let mut nets = Vec::with_capacity(texts.items.len());
        for (index, text) in &texts.items {
            let path = path.index(*index);
            let net = refused(values::net(&text.value.text), text.span, &path, reporter);
            if let Some(net) = net {
                families.agree(net, text.span, &path, reporter);
                nets.push(net);
            }
        }
        nets
    }

    fn ports(&self, texts: &Texts<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Vec<Port> {
        if let (Dialect::V3, Some(span)) = (self.dialect, texts.key_span) {
            let limit = Limit::new(MAX_V3_PORTS, "ports", "a list of ports");
            limit.check(texts.items.len(), span, path, reporter);
        }
        let mut ports = Vec::with_capacity(texts.items.len());
        for (index, text) in &texts.items {
            let port = values::port(&text.value.text);
            ports.extend(refused(port, text.span, &path.index(*index), reporter));
        }
        ports_need_protocol(
            self.rule,
            self.protocol,
            texts,
            self.dialect,
            path,
            reporter,
        );
        ports
    }
}

/// A text that is not empty.
fn given<'a, 't>(text: Option<&'a Text<'t>>) -> Option<&'a Text<'t>> {
    text.filter(|text| !text.value.text.trim().is_empty())
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

/// Validates a host endpoint.
pub(in crate::policy) fn host_endpoint(
    document: &HostEndpointDocument<'_>,
    references: &mut References,
    reporter: &mut Reporter<'_>,
) -> Option<HostEndpoint> {
    let root = root(&document.path);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    let name_path = metadata.field("name");
    let name = &document.name;
    match document.dialect {
        Dialect::V1 => v1_name(name, &name_path, reporter),
        Dialect::V3 => dns_name(name, "v3 host endpoints", &name_path, reporter),
    }
    let labels = labels(&document.labels, &metadata.field("labels"), reporter);
    let profiles_path = spec.field("profiles");
    for (index, profile) in &document.profiles.items {
        references.profiles.push((
            profile.value.text.clone().into_owned(),
            profile.span,
            profiles_path.index(*index).to_string(),
        ));
    }
    if let Some(text) = document
        .node
        .as_ref()
        .filter(|text| text.value.text.is_empty())
    {
        let path = match document.dialect {
            Dialect::V1 => metadata.field("node"),
            Dialect::V3 => spec.field("node"),
        };
        let help = "write the name of the host that has the interface, as `hostname` prints it";
        invalid_value(text, "no name", help, &path, reporter);
    }
    let ips_path = spec.field("expectedIPs");
    let mut expected_ips = Vec::new();
    for (index, text) in &document.expected_ips.items {
        match text.value.text.parse() {
            Ok(address) => expected_ips.push(address),
            Err(_) => invalid_value(
                text,
                "not an address",
                "write the addresses of the interface, without a prefix length",
                &ips_path.index(*index),
                reporter,
            ),
        }
    }
    if document.interface.is_none() && document.expected_ips.items.is_empty() {
        let diagnostic = Diagnostic::error(
            Code::MissingField,
            "a host endpoint needs the field `interfaceName` or `expectedIPs`",
        )
        .field(spec.field("interfaceName"))
        .label("nothing says which interface it stands for")
        .help("name the interface that the endpoint stands for: `interfaceName: eth0`");
        reporter.report(document.start, diagnostic);
    }
    let ports_path = spec.field("ports");
    let mut ports: Vec<NamedPort> = Vec::new();
    for port_document in &document.ports {
        let path = ports_path.index(port_document.index);
        let Some(port) = named_port(port_document, document.dialect, &path, reporter) else {
            continue;
        };
        let same = |other: &NamedPort| (&other.name, other.protocol) == (&port.name, port.protocol);
        if let (true, Some(text)) = (ports.iter().any(same), &port_document.name) {
            let message = format!(
                "the endpoint has two ports of the name {}",
                quote(&port.name)
            );
            let diagnostic = Diagnostic::error(Code::Duplicate, message)
                .field(path.field("name"))
                .label("the second one of that protocol")
                .help("give it another name, or remove it");
            reporter.report(text.span, diagnostic);
        }
        ports.push(port);
    }
    let interface = match document.interface {
        Some(_) => Some(interface(document, &spec.field("interfaceName"), reporter)?),
        None => None,
    };
    let text_of = |text: &Text<'_>| text.value.text.clone().into_owned();
    Some(HostEndpoint {
        name: text_of(name),
        node: document.node.as_ref().map(text_of),
        interface,
        expected_ips,
        labels,
        profiles: document
            .profiles
            .items
            .iter()
            .map(|(_, profile)| text_of(profile))
            .collect(),
        ports,
        place: reporter.place(name.span),
    })
}

fn named_port(
    document: &NamedPortDocument<'_>,
    dialect: Dialect,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<NamedPort> {
    let (name, protocol, port) = (
        document.name.as_ref()?,
        document.protocol.as_ref()?,
        document.port.as_ref()?,
    );
    if !values::is_port_name(&name.value.text) {
        let help = "names of ports have 1 to 128 of the characters a-z, A-Z, 0-9, `_`, `.` and \
                    `-`, and are no numbers";
        invalid_name(name, help, &path.field("name"), reporter);
    }
    let protocol_path = path.field("protocol");
    let found = refused(
        values::protocol(&protocol.value.text, dialect),
        protocol.span,
        &protocol_path,
        reporter,
    );
    if found.is_some_and(|found| !found.has_ports()) {
        let help = "TCP, UDP and SCTP have ports";
        invalid_value(protocol, "has no ports", help, &protocol_path, reporter);
    }
    let help = "ports are numbers from 1 to 65535";
    let port = number(port, 1, 65_535, help, &path.field("port"), reporter)?;
    Some(NamedPort {
        name: name.value.text.clone().into_owned(),
        protocol: found?.number,
        port: u16::try_from(port).ok()?,
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

/// Validates a profile. The one that is built in says what it says anyway.
pub(in crate::policy) fn profile(
    document: &ProfileDocument<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Profile> {
    let root = root(&document.path);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    let name = &document.name;
    let name_path = metadata.field("name");
    match document.dialect {
        Dialect::V1 => v1_name(name, &name_path, reporter),
        Dialect::V3 => dns_name(name, "profiles", &name_path, reporter),
    }
    for (field, list) in [("ingress", &document.ingress), ("egress", &document.egress)] {
        let path = spec.field(field);
        for rule in &list.rules {
            if let Some(text) = &rule.action
                && text.value.text.eq_ignore_ascii_case("pass")
            {
                let help = "nothing comes after the profiles: allow, deny or log";
                let path = path.index(rule.index);
                let path = path.field("action");
                invalid_value(text, "nowhere to pass to", help, &path, reporter);
            }
        }
    }
    let labels_path = match document.dialect {
        Dialect::V1 => metadata.field("labels"),
        Dialect::V3 => spec.field("labelsToApply"),
    };
    let labels = labels(&document.labels, &labels_path, reporter);
    let mut list = |rules_document: &RulesDocument<'_>, field: &'static str| {
        let path = spec.field(field);
        rules(rules_document, document.dialect, None, &path, reporter)
    };
    let ingress = list(&document.ingress, "ingress");
    let egress = list(&document.egress, "egress");
    if name.value.text == DEFAULT_ALLOW {
        let allows_all = |rules: &[Rule]| match rules {
            [only] => only.action == Action::Allow && only.criteria == [Criteria::default()],
            _ => false,
        };
        if !allows_all(&ingress) || !allows_all(&egress) {
            let message = format!(
                "{} is built in, and allows everything",
                quote(DEFAULT_ALLOW)
            );
            let diagnostic = Diagnostic::error(Code::Duplicate, message)
                .field(name_path)
                .label("can't say anything else")
                .help("give the profile another name");
            reporter.report(name.span, diagnostic);
        }
        return None;
    }
    Some(Profile {
        name: Arc::from(&*name.value.text),
        labels,
        tags: document
            .tags
            .items
            .iter()
            .map(|(_, tag)| tag.value.text.clone().into_owned())
            .collect(),
        ingress,
        egress,
        place: reporter.place(name.span),
    })
}

/// The tiers that are always there: order, and whether their end passes on.
const WELL_KNOWN: [(&str, f64, bool); 3] = [
    ("kube-admin", 1_000.0, true),
    (DEFAULT_TIER, 1_000_000.0, false),
    ("kube-baseline", 10_000_000.0, true),
];

/// The tiers of the documents and those that are always there.
pub(in crate::policy) fn tiers(
    documents: &[&TierDocument<'_>],
    reporter: &mut Reporter<'_>,
) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = WELL_KNOWN
        .into_iter()
        .map(|(name, order, default_pass)| Tier {
            name: name.into(),
            order: Some(order),
            default_pass,
            place: None,
        })
        .collect();
    for document in documents {
        let Some(tier) = tier(document, reporter) else {
            continue;
        };
        let Some(known) = tiers.iter_mut().find(|known| known.name == tier.name) else {
            tiers.push(tier);
            continue;
        };
        if let (Some(first), Some(second)) = (&known.place, &tier.place) {
            duplicate_tier(&tier.name, first, second, reporter);
        } else {
            let says = |there: bool, same: bool| !there || same;
            let same_order = says(document.order.is_some(), known.order == tier.order);
            let same_action = says(
                document.default_action.is_some(),
                known.default_pass == tier.default_pass,
            );
            if !same_order || !same_action {
                let order = known.order.unwrap_or_default();
                let action = if known.default_pass { "Pass" } else { "Deny" };
                let diagnostic = Diagnostic::error(
                    Code::Duplicate,
                    format!("the tier {} is built in, and otherwise", quote(&tier.name)),
                )
                .field(root(&document.path).field("metadata").field("name"))
                .label(format!(
                    "has the order {order} and the default action {action}"
                ))
                .help("leave out what it says otherwise, or use a tier of your own");
                reporter.report(document.name.span, diagnostic);
            }
            known.place = tier.place;
        }
    }
    tiers
}

fn duplicate_tier(name: &str, first: &Place, second: &Place, reporter: &mut Reporter<'_>) {
    let message = format!("two tiers have the name {}", quote(name));
    reporter.report(
        second.span,
        Diagnostic::error(Code::Duplicate, message)
            .field("metadata.name")
            .label("the second one")
            .related(first.clone(), "the first one")
            .help("give one of them another name, or remove it if it is the same tier"),
    );
}

fn tier(document: &TierDocument<'_>, reporter: &mut Reporter<'_>) -> Option<Tier> {
    let root = root(&document.path);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    let name = &document.name;
    dns_label(name, &name.value.text, &metadata.field("name"), reporter);
    let default_pass = match &document.default_action {
        None => false,
        Some(text) => match &*text.value.text {
            "Deny" => false,
            "Pass" => true,
            _ => {
                let help = "a tier ends with `Deny` or `Pass`";
                let path = spec.field("defaultAction");
                invalid_value(text, "not an end of a tier", help, &path, reporter);
                return None;
            }
        },
    };
    Some(Tier {
        name: Arc::from(&*name.value.text),
        order: document.order.as_ref().map(|order| order.value + 0.0),
        default_pass,
        place: Some(reporter.place(name.span)),
    })
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
    use super::*;
    use crate::policy::{Severity, Source, check};

    /// Checks a v1 or v3 policy with this text as its spec, in flow form.
    fn errors(dialect: Dialect, spec: &str) -> Vec<String> {
        let head = match dialect {
            Dialect::V1 => "apiVersion: v1\nkind: policy\n",
            Dialect::V3 => "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n",
        };
        let text = format!("{head}metadata: {{name: p}}\nspec:\n{spec}");
        let checked = check(&[Source::new("t", text)]);
        let refused = checked
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error);
        assert_eq!(checked.model.is_none(), refused);
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
                v3,
                "{action: Drop}",
                "2:13 invalid-value spec.ingress[0].action",
            ),
            (
                v3,
                "{action: Allow, http: {methods: [GET]}}",
                "2:20 not-enforced spec.ingress[0].http",
            ),
            (
                v3,
                "{action: Allow, source: {serviceAccounts: {names: [a]}}}",
                "2:29 not-enforced spec.ingress[0].source.serviceAccounts",
            ),
            (
                v3,
                "{action: Allow, destination: {services: {name: a}}}",
                "2:34 not-enforced spec.ingress[0].destination.services",
            ),
            (
                v3,
                "{action: Allow, source: {namespaceSelector: has(env)}}",
                "2:48 not-enforced spec.ingress[0].source.namespaceSelector",
            ),
            (
                v3,
                "{action: Allow, source: {notNets: [0.0.0.0/0]}}",
                "2:39 invalid-value spec.ingress[0].source.notNets[0]",
            ),
            (
                v1,
                "{action: allow, source: {net: 10.0.0.0/8, nets: [10.0.0.0/8]}}",
                "2:34 invalid-value spec.ingress[0].source.net",
            ),
            (
                v1,
                "{action: allow, icmp: {type: 8}}",
                "2:20 icmp-needs-protocol spec.ingress[0].icmp",
            ),
            (
                v3,
                "{action: Allow, protocol: TCP, notICMP: {type: 8}}",
                "2:35 icmp-needs-protocol spec.ingress[0].notICMP",
            ),
            (
                v3,
                "{action: Allow, protocol: ICMP, icmp: {type: 255}}",
                "2:49 invalid-value spec.ingress[0].icmp.type",
            ),
            (
                v3,
                "{action: Allow, protocol: ICMP, icmp: {type: 3, code: 256}}",
                "2:58 invalid-value spec.ingress[0].icmp.code",
            ),
            (
                v3,
                "{action: Allow, protocol: ICMP, icmp: {code: 0}}",
                "2:49 missing-field spec.ingress[0].icmp.type",
            ),
            (
                v3,
                "{action: Allow, protocol: ICMP, notICMP: {}}",
                "2:36 missing-field spec.ingress[0].notICMP",
            ),
            (
                v3,
                "{action: Allow, notProtocol: tcp}",
                "2:33 invalid-value spec.ingress[0].notProtocol",
            ),
            (
                v3,
                "{action: Deny, source: {notPorts: [80]}}",
                "2:28 ports-need-protocol spec.ingress[0].source.notPorts",
            ),
            (
                v3,
                "{action: Allow, source: {selector: 'a =='}}",
                "2:44 invalid-selector spec.ingress[0].source.selector",
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
            (v1, " types: [egress]\n", OK),
            (
                v1,
                " types: [egress]\n ingress: [{action: allow}]\n",
                &["2:2 no-effect spec.ingress"],
            ),
            (
                v3,
                " doNotTrack: true\n applyOnForward: true\n egress: [{action: Allow}]\n",
                OK,
            ),
            (
                v1,
                " preDNAT: true\n doNotTrack: true\n",
                &["1:11 pre-dnat spec.preDNAT"],
            ),
            (v3, " types: [Ingress]\n egress: []\n", OK),
            (v3, " egress: [{action: Allow}]\n", OK),
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
            (v3, " applyOnForward: true\n", OK),
            (v1, " preDNAT: yes\n", &["1:11 wrong-type spec.preDNAT"]),
            (v1, " preDNAT: 'true'\n", &["1:11 wrong-type spec.preDNAT"]),
            (v1, " doNotTrack: false\n", OK),
            (v1, " doNotTrack: true\n", OK),
            (
                v3,
                " doNotTrack: true\n",
                &["1:14 pre-dnat spec.applyOnForward"],
            ),
            (v3, " performanceHints: [AssumeNeededOnEveryNode]\n", OK),
            (v3, " performanceHints: []\n", OK),
            (
                v3,
                " performanceHints: [AssumeNeededOnEveryNode, x]\n",
                &["1:46 invalid-value spec.performanceHints[1]"],
            ),
            (
                v1,
                " performanceHints: []\n",
                &["1:2 unknown-field spec.performanceHints"],
            ),
            (v3, " namespaceSelector: all()\n", OK),
            (
                v3,
                " namespaceSelector: global()\n",
                &["1:21 invalid-selector spec.namespaceSelector"],
            ),
            (v3, " tier: default\n", OK),
            (v3, " tier: x\n", &["1:8 unknown-reference spec.tier"]),
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
