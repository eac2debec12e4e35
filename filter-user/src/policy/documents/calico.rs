//! Calico's documents, v1 and v3, as their author wrote them.

use crate::policy::diagnostic::Reporter;
use crate::policy::schema::{self, Field, Neutral, Object, Path, Spanned, Table, Text, Texts};
use crate::policy::source::Span;
use crate::policy::yaml::{Entry, Node};

use super::NAME_HELP;

/// The format a document is written in; they differ in case and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::policy) enum Dialect {
    V1,
    V3,
}

/// Which of the kinds of policy a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::policy) enum PolicyKind {
    /// v1 `policy`.
    V1,
    /// `GlobalNetworkPolicy`.
    Global,
    /// `NetworkPolicy`.
    Namespaced,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobal,
    /// `StagedNetworkPolicy`.
    StagedNamespaced,
}

impl PolicyKind {
    pub(in crate::policy) const fn dialect(self) -> Dialect {
        match self {
            Self::V1 => Dialect::V1,
            _ => Dialect::V3,
        }
    }

    pub(in crate::policy) const fn is_namespaced(self) -> bool {
        matches!(self, Self::Namespaced | Self::StagedNamespaced)
    }

    pub(in crate::policy) const fn is_staged(self) -> bool {
        matches!(self, Self::StagedGlobal | Self::StagedNamespaced)
    }
}

/// A policy.
#[derive(Debug)]
pub(in crate::policy) struct PolicyDocument<'t> {
    pub(in crate::policy) kind: PolicyKind,
    /// The path of the document in its file: empty, or a list's index.
    pub(in crate::policy) path: String,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) namespace: Option<Text<'t>>,
    pub(in crate::policy) tier: Option<Text<'t>>,
    pub(in crate::policy) order: Option<Spanned<f64>>,
    pub(in crate::policy) selector: Option<Text<'t>>,
    pub(in crate::policy) namespace_selector: Option<Text<'t>>,
    pub(in crate::policy) service_account_selector: Option<Text<'t>>,
    pub(in crate::policy) types: Texts<'t>,
    pub(in crate::policy) do_not_track: Option<Spanned<bool>>,
    pub(in crate::policy) pre_dnat: Option<Spanned<bool>>,
    pub(in crate::policy) apply_on_forward: Option<Spanned<bool>>,
    pub(in crate::policy) performance_hints: Texts<'t>,
    pub(in crate::policy) ingress: RulesDocument<'t>,
    pub(in crate::policy) egress: RulesDocument<'t>,
}

/// A list of rules.
#[derive(Debug, Default)]
pub(in crate::policy) struct RulesDocument<'t> {
    /// Where the list stands; `None` if it doesn't.
    pub(in crate::policy) key_span: Option<Span>,
    /// How many were written, those that could not be read among them.
    pub(in crate::policy) written: usize,
    pub(in crate::policy) rules: Vec<RuleDocument<'t>>,
}

/// One rule. A rule that could not be read leaves an error and is not here.
#[derive(Debug)]
pub(in crate::policy) struct RuleDocument<'t> {
    pub(in crate::policy) start: Span,
    /// The index in the list as it was written.
    pub(in crate::policy) index: usize,
    pub(in crate::policy) action: Option<Text<'t>>,
    pub(in crate::policy) ip_version: Option<Text<'t>>,
    pub(in crate::policy) protocol: Option<Text<'t>>,
    pub(in crate::policy) not_protocol: Option<Text<'t>>,
    pub(in crate::policy) icmp: Option<IcmpDocument<'t>>,
    pub(in crate::policy) not_icmp: Option<IcmpDocument<'t>>,
    pub(in crate::policy) source: PeerDocument<'t>,
    pub(in crate::policy) destination: PeerDocument<'t>,
}

/// An ICMP type and code.
#[derive(Debug)]
pub(in crate::policy) struct IcmpDocument<'t> {
    pub(in crate::policy) key_span: Span,
    pub(in crate::policy) kind: Option<Text<'t>>,
    pub(in crate::policy) code: Option<Text<'t>>,
}

/// One side of a rule.
#[derive(Debug, Default)]
pub(in crate::policy) struct PeerDocument<'t> {
    /// v1 alone.
    pub(in crate::policy) net: Option<Text<'t>>,
    /// v1 alone.
    pub(in crate::policy) not_net: Option<Text<'t>>,
    pub(in crate::policy) nets: Texts<'t>,
    pub(in crate::policy) not_nets: Texts<'t>,
    pub(in crate::policy) ports: Texts<'t>,
    pub(in crate::policy) not_ports: Texts<'t>,
    pub(in crate::policy) selector: Option<Text<'t>>,
    pub(in crate::policy) not_selector: Option<Text<'t>>,
    /// v3 alone.
    pub(in crate::policy) namespace_selector: Option<Text<'t>>,
    /// v1 alone.
    pub(in crate::policy) tag: Option<Text<'t>>,
    /// v1 alone.
    pub(in crate::policy) not_tag: Option<Text<'t>>,
}

/// A host endpoint.
#[derive(Debug)]
pub(in crate::policy) struct HostEndpointDocument<'t> {
    pub(in crate::policy) dialect: Dialect,
    /// As in [`PolicyDocument`].
    pub(in crate::policy) path: String,
    pub(in crate::policy) start: Span,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) node: Option<Text<'t>>,
    pub(in crate::policy) interface: Option<Text<'t>>,
    pub(in crate::policy) expected_ips: Texts<'t>,
    pub(in crate::policy) labels: Vec<(Text<'t>, Text<'t>)>,
    pub(in crate::policy) profiles: Texts<'t>,
    pub(in crate::policy) ports: Vec<NamedPortDocument<'t>>,
}

/// A port that an endpoint has a name for.
#[derive(Debug)]
pub(in crate::policy) struct NamedPortDocument<'t> {
    pub(in crate::policy) index: usize,
    pub(in crate::policy) name: Option<Text<'t>>,
    pub(in crate::policy) protocol: Option<Text<'t>>,
    pub(in crate::policy) port: Option<Text<'t>>,
}

/// A profile.
#[derive(Debug)]
pub(in crate::policy) struct ProfileDocument<'t> {
    pub(in crate::policy) dialect: Dialect,
    /// As in [`PolicyDocument`].
    pub(in crate::policy) path: String,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) labels: Vec<(Text<'t>, Text<'t>)>,
    pub(in crate::policy) tags: Texts<'t>,
    pub(in crate::policy) ingress: RulesDocument<'t>,
    pub(in crate::policy) egress: RulesDocument<'t>,
}

/// A tier.
#[derive(Debug)]
pub(in crate::policy) struct TierDocument<'t> {
    /// As in [`PolicyDocument`].
    pub(in crate::policy) path: String,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) order: Option<Spanned<f64>>,
    pub(in crate::policy) default_action: Option<Text<'t>>,
}

macro_rules! object {
    ($name:ident, $object:literal, $metadata:ident, $spec:ident) => {
        static $name: Table = Table {
            object: $object,
            fields: &[
                Field::read("apiVersion"),
                Field::read("kind"),
                Field::object("metadata", &$metadata),
                Field::object("spec", &$spec),
                Field::recorded("status"),
            ],
        };
    };
}

const CLUSTER_WIDE: Field = Field::elsewhere(
    "namespace",
    "remove the line: objects of this kind are cluster-wide",
);
const NAMESPACE: Field = Field::read("namespace");
const LABELS: Field = Field::read("labels");
// The labels of a policy are for whoever lists policies; those of an endpoint
// and of a set are what selectors match.
const NOTED_LABELS: Field = Field::note("labels");
const NOTES: Field = Field::note("annotations");

// --- Policies

object!(V1_POLICY, "a v1 policy", V1_POLICY_METADATA, V1_POLICY_SPEC);

static V1_POLICY_METADATA: Table = Table {
    object: "the metadata of a v1 policy",
    fields: &[
        Field::read("name"),
        Field::read("tier"),
        NOTES,
        Field::recorded("resourceVersion"),
    ],
};

static V1_POLICY_SPEC: Table = Table {
    object: "the spec of a v1 policy",
    fields: &[
        Field::read("order"),
        Field::read("selector"),
        Field::read("types"),
        Field::read("doNotTrack"),
        Field::read("preDNAT"),
        Field::object("ingress", &V1_RULE),
        Field::object("egress", &V1_RULE),
        Field::elsewhere(
            "applyOnForward",
            "remove the line: in v1, `preDNAT` acts on forwarded packets by itself",
        ),
        Field::elsewhere("tier", "in v1, `tier` is a field of `metadata`"),
    ],
};

object!(
    GLOBAL_POLICY,
    "a GlobalNetworkPolicy",
    GLOBAL_POLICY_METADATA,
    GLOBAL_POLICY_SPEC
);
cluster_metadata!(
    GLOBAL_POLICY_METADATA,
    "the metadata of a GlobalNetworkPolicy",
    CLUSTER_WIDE,
    NOTED_LABELS,
    NOTES
);

macro_rules! policy_spec {
    ($name:ident, $object:literal, [$($more:expr),* $(,)?]) => {
        static $name: Table = Table {
            object: $object,
            fields: &[
                Field::read("tier"),
                Field::read("order"),
                Field::read("selector"),
                Field::read("serviceAccountSelector"),
                Field::read("types"),
                Field::object("ingress", &V3_RULE),
                Field::object("egress", &V3_RULE),
                Field::read("performanceHints"),
                $($more),*
            ],
        };
    };
}

const STAGED_ACTION: Field = Field::later(
    "stagedAction",
    Neutral::Text("Set"),
    "only the staging of a new or changed policy is counted",
    "leave it out: what enforced policies do without another shows if that one is left out of the \
     files",
);

policy_spec!(
    GLOBAL_POLICY_SPEC,
    "the spec of a GlobalNetworkPolicy",
    [
        Field::read("namespaceSelector"),
        Field::read("doNotTrack"),
        Field::read("preDNAT"),
        Field::read("applyOnForward"),
    ]
);

object!(
    STAGED_GLOBAL_POLICY,
    "a StagedGlobalNetworkPolicy",
    GLOBAL_POLICY_METADATA,
    STAGED_GLOBAL_POLICY_SPEC
);
policy_spec!(
    STAGED_GLOBAL_POLICY_SPEC,
    "the spec of a StagedGlobalNetworkPolicy",
    [
        Field::read("namespaceSelector"),
        Field::read("doNotTrack"),
        Field::read("preDNAT"),
        Field::read("applyOnForward"),
        STAGED_ACTION,
    ]
);

const ONLY_GLOBAL: &str = "only a GlobalNetworkPolicy has this field";

object!(
    NAMESPACED_POLICY,
    "a NetworkPolicy",
    NAMESPACED_POLICY_METADATA,
    NAMESPACED_POLICY_SPEC
);
cluster_metadata!(
    NAMESPACED_POLICY_METADATA,
    "the metadata of a NetworkPolicy",
    NAMESPACE,
    NOTED_LABELS,
    NOTES
);
policy_spec!(
    NAMESPACED_POLICY_SPEC,
    "the spec of a NetworkPolicy",
    [
        Field::elsewhere("namespaceSelector", ONLY_GLOBAL),
        Field::elsewhere("doNotTrack", ONLY_GLOBAL),
        Field::elsewhere("preDNAT", ONLY_GLOBAL),
        Field::elsewhere("applyOnForward", ONLY_GLOBAL),
    ]
);

object!(
    STAGED_NAMESPACED_POLICY,
    "a StagedNetworkPolicy",
    NAMESPACED_POLICY_METADATA,
    STAGED_NAMESPACED_POLICY_SPEC
);
policy_spec!(
    STAGED_NAMESPACED_POLICY_SPEC,
    "the spec of a StagedNetworkPolicy",
    [
        Field::elsewhere("namespaceSelector", ONLY_GLOBAL),
        Field::elsewhere("doNotTrack", ONLY_GLOBAL),
        Field::elsewhere("preDNAT", ONLY_GLOBAL),
        Field::elsewhere("applyOnForward", ONLY_GLOBAL),
        STAGED_ACTION,
    ]
);

// --- Rules

static V1_RULE: Table = Table {
    object: "a v1 rule",
    fields: &[
        Field::read("action"),
        Field::read("ipVersion"),
        Field::read("protocol"),
        Field::read("notProtocol"),
        Field::object("icmp", &ICMP),
        Field::object("notICMP", &ICMP),
        // First, as lost lines mostly belong there.
        Field::object("destination", &V1_PEER),
        Field::object("source", &V1_PEER),
    ],
};

static V3_RULE: Table = Table {
    object: "a rule",
    fields: &[
        Field::read("action"),
        Field::read("ipVersion"),
        Field::read("protocol"),
        Field::read("notProtocol"),
        Field::object("icmp", &ICMP),
        Field::object("notICMP", &ICMP),
        Field::object("destination", &V3_PEER),
        Field::object("source", &V3_PEER),
        Field::read("metadata"),
        Field::later(
            "http",
            Neutral::None,
            "HTTP can't be read at the network interface",
            "enforce it in a proxy, and keep it out of the files for this host",
        ),
    ],
};

static RULE_METADATA: Table = Table {
    object: "the metadata of a rule",
    fields: &[Field::note("annotations")],
};

static ICMP: Table = Table {
    object: "an ICMP condition",
    fields: &[Field::read("type"), Field::read("code")],
};

static V1_PEER: Table = Table {
    object: "one side of a v1 rule",
    fields: &[
        Field::read("net"),
        Field::read("notNet"),
        Field::read("nets"),
        Field::read("notNets"),
        Field::read("ports"),
        Field::read("notPorts"),
        Field::read("selector"),
        Field::read("notSelector"),
        Field::read("tag"),
        Field::read("notTag"),
    ],
};

static V3_PEER: Table = Table {
    object: "one side of a rule",
    fields: &[
        Field::read("nets"),
        Field::read("notNets"),
        Field::read("ports"),
        Field::read("notPorts"),
        Field::read("selector"),
        Field::read("notSelector"),
        Field::read("namespaceSelector"),
        Field::later(
            "serviceAccounts",
            Neutral::Empty,
            "only the cluster knows which addresses have a service account",
            "list the addresses in `nets`, or give a GlobalNetworkSet the labels for a `selector`",
        ),
        Field::later(
            "services",
            Neutral::Empty,
            "only the cluster knows the addresses of a service",
            "list the addresses in `nets`, or give a GlobalNetworkSet the labels for a `selector`",
        ),
    ],
};

// --- Host endpoints

object!(
    V1_ENDPOINT,
    "a v1 hostEndpoint",
    V1_ENDPOINT_METADATA,
    V1_ENDPOINT_SPEC
);

static V1_ENDPOINT_METADATA: Table = Table {
    object: "the metadata of a v1 hostEndpoint",
    fields: &[
        Field::read("name"),
        Field::read("node"),
        LABELS,
        NOTES,
        Field::recorded("resourceVersion"),
    ],
};

static V1_ENDPOINT_SPEC: Table = Table {
    object: "the spec of a v1 hostEndpoint",
    fields: &[
        Field::read("interfaceName"),
        Field::read("expectedIPs"),
        Field::read("profiles"),
        Field::object("ports", &NAMED_PORT),
        Field::elsewhere("node", "in v1, `node` is a field of `metadata`"),
    ],
};

object!(
    V3_ENDPOINT,
    "a HostEndpoint",
    V3_ENDPOINT_METADATA,
    V3_ENDPOINT_SPEC
);
cluster_metadata!(
    V3_ENDPOINT_METADATA,
    "the metadata of a HostEndpoint",
    CLUSTER_WIDE,
    LABELS,
    NOTES
);

static V3_ENDPOINT_SPEC: Table = Table {
    object: "the spec of a HostEndpoint",
    fields: &[
        Field::read("node"),
        Field::read("interfaceName"),
        Field::read("expectedIPs"),
        Field::read("profiles"),
        Field::object("ports", &NAMED_PORT),
    ],
};

static NAMED_PORT: Table = Table {
    object: "a named port",
    fields: &[
        Field::read("name"),
        Field::read("protocol"),
        Field::read("port"),
    ],
};

// --- Profiles, tiers

object!(
    V1_PROFILE,
    "a v1 profile",
    V1_PROFILE_METADATA,
    V1_PROFILE_SPEC
);

static V1_PROFILE_METADATA: Table = Table {
    object: "the metadata of a v1 profile",
    fields: &[
        Field::read("name"),
        LABELS,
        Field::read("tags"),
        NOTES,
        Field::recorded("resourceVersion"),
    ],
};

static V1_PROFILE_SPEC: Table = Table {
    object: "the spec of a v1 profile",
    fields: &[
        Field::object("ingress", &V1_RULE),
        Field::object("egress", &V1_RULE),
        Field::elsewhere("tags", "in v1, `tags` is a field of `metadata`"),
    ],
};

object!(
    V3_PROFILE,
    "a Profile",
    V3_PROFILE_METADATA,
    V3_PROFILE_SPEC
);
cluster_metadata!(
    V3_PROFILE_METADATA,
    "the metadata of a Profile",
    CLUSTER_WIDE,
    NOTED_LABELS,
    NOTES
);

static V3_PROFILE_SPEC: Table = Table {
    object: "the spec of a Profile",
    fields: &[
        Field::object("ingress", &V3_RULE),
        Field::object("egress", &V3_RULE),
        Field::read("labelsToApply"),
    ],
};

object!(TIER, "a Tier", TIER_METADATA, TIER_SPEC);
cluster_metadata!(
    TIER_METADATA,
    "the metadata of a Tier",
    CLUSTER_WIDE,
    NOTED_LABELS,
    NOTES
);

static TIER_SPEC: Table = Table {
    object: "the spec of a Tier",
    fields: &[Field::read("order"), Field::read("defaultAction")],
};

/// What a policy may hold.
pub(in crate::policy) fn policy_table(kind: PolicyKind) -> &'static Table {
    match kind {
        PolicyKind::V1 => &V1_POLICY,
        PolicyKind::Global => &GLOBAL_POLICY,
        PolicyKind::StagedGlobal => &STAGED_GLOBAL_POLICY,
        PolicyKind::Namespaced => &NAMESPACED_POLICY,
        PolicyKind::StagedNamespaced => &STAGED_NAMESPACED_POLICY,
    }
}

/// What a host endpoint may hold.
pub(in crate::policy) fn endpoint_table(dialect: Dialect) -> &'static Table {
    match dialect {
        Dialect::V1 => &V1_ENDPOINT,
        Dialect::V3 => &V3_ENDPOINT,
    }
}

/// What a profile may hold.
pub(in crate::policy) fn profile_table(dialect: Dialect) -> &'static Table {
    match dialect {
        Dialect::V1 => &V1_PROFILE,
        Dialect::V3 => &V3_PROFILE,
    }
}

/// What a tier may hold.
pub(in crate::policy) static TIER_TABLE: &Table = &TIER;

/// The parts that every object has.
struct Parts<'n, 't> {
    metadata: Option<&'n Entry<'t>>,
    spec: Option<&'n Entry<'t>>,
}

/// Opens an object; reads nothing yet.
fn open<'p, 'n, 't>(
    node: &'n Node<'t>,
    table: &'static Table,
    spec_help: Option<&str>,
    path: Path<'p>,
    reporter: &mut Reporter<'_>,
) -> Option<(Object<'p, 'n, 't>, Parts<'n, 't>)> {
    let object = Object::open(node, table, path, reporter)?;
    let metadata = object.require("metadata", NAME_HELP, reporter);
    let spec = match spec_help {
        Some(help) => object.require("spec", help, reporter),
        None => object.get("spec", reporter),
    };
    Some((object, Parts { metadata, spec }))
}

const RULES_HELP: &str = "without it a policy decides nothing: add `spec:` with its rules";
const INTERFACE_HELP: &str =
    "name the interface that the endpoint stands for: `spec: {interfaceName: eth0}`";

/// Reads a policy.
pub(super) fn policy<'t>(
    node: &Node<'t>,
    kind: PolicyKind,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<PolicyDocument<'t>> {
    let (table, metadata_table, spec_table) = match kind {
        PolicyKind::V1 => (&V1_POLICY, &V1_POLICY_METADATA, &V1_POLICY_SPEC),
        PolicyKind::Global => (&GLOBAL_POLICY, &GLOBAL_POLICY_METADATA, &GLOBAL_POLICY_SPEC),
        PolicyKind::StagedGlobal => (
            &STAGED_GLOBAL_POLICY,
            &GLOBAL_POLICY_METADATA,
            &STAGED_GLOBAL_POLICY_SPEC,
        ),
        PolicyKind::Namespaced => (
            &NAMESPACED_POLICY,
            &NAMESPACED_POLICY_METADATA,
            &NAMESPACED_POLICY_SPEC,
        ),
        PolicyKind::StagedNamespaced => (
            &STAGED_NAMESPACED_POLICY,
            &NAMESPACED_POLICY_METADATA,
            &STAGED_NAMESPACED_POLICY_SPEC,
        ),
    };
    let (object, parts) = open(node, table, Some(RULES_HELP), path, reporter)?;
    let metadata = parts.metadata.and_then(|entry| {
        Object::open(
            &entry.value,
            metadata_table,
            object.path("metadata"),
            reporter,
        )
    });
    let metadata = metadata.as_ref();
    let name = metadata.and_then(|metadata| metadata.require_text("name", NAME_HELP, reporter));
    let namespace = metadata
        .filter(|_| kind.is_namespaced())
        .and_then(|metadata| metadata.text("namespace", reporter));
    let spec = Object::open(
        &parts.spec?.value,
        spec_table,
        object.path("spec"),
        reporter,
    )?;
    let global = !kind.is_namespaced();
    let v3 = kind.dialect() == Dialect::V3;
    let flag = |there: bool, name: &'static str, reporter: &mut Reporter<'_>| {
        there.then(|| spec.boolean(name, reporter)).flatten()
    };
    let selector = |there: bool, name: &'static str, reporter: &mut Reporter<'_>| {
        there.then(|| spec.text(name, reporter)).flatten()
    };
    Some(PolicyDocument {
        kind,
        path: path.to_string(),
        namespace,
        tier: if v3 {
            spec.text("tier", reporter)
        } else {
            metadata.and_then(|metadata| metadata.text("tier", reporter))
        },
        order: spec.number("order", reporter),
        selector: selector(true, "selector", reporter),
        namespace_selector: selector(v3 && global, "namespaceSelector", reporter),
        service_account_selector: selector(v3, "serviceAccountSelector", reporter),
        types: spec.texts("types", reporter),
        do_not_track: flag(global, "doNotTrack", reporter),
        pre_dnat: flag(global, "preDNAT", reporter),
        apply_on_forward: flag(v3 && global, "applyOnForward", reporter),
        performance_hints: if v3 {
            spec.texts("performanceHints", reporter)
        } else {
            Texts::default()
        },
        ingress: rules(&spec, "ingress", kind.dialect(), reporter),
        egress: rules(&spec, "egress", kind.dialect(), reporter),
        name: name?,
    })
}

fn rules<'t>(
    spec: &Object<'_, '_, 't>,
    field: &'static str,
    dialect: Dialect,
    reporter: &mut Reporter<'_>,
) -> RulesDocument<'t> {
    let Some(entry) = spec.get(field, reporter) else {
        return RulesDocument::default();
    };
    let path = spec.path(field);
    let items = schema::sequence(&entry.value, &path, reporter).unwrap_or_default();
    RulesDocument {
        key_span: Some(entry.key_span),
        written: items.len(),
        rules: items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| rule(item, dialect, index, path.index(index), reporter))
            .collect(),
    }
}

fn rule<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    index: usize,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<RuleDocument<'t>> {
    let table = match dialect {
        Dialect::V1 => &V1_RULE,
        Dialect::V3 => &V3_RULE,
    };
    let action_help = match dialect {
        Dialect::V1 => "say what the rule does: `action: allow` or `action: deny`",
        Dialect::V3 => "say what the rule does: `action: Allow` or `action: Deny`",
    };
    let object = Object::open(node, table, path, reporter)?;
    if dialect == Dialect::V3
        && let Some(metadata) = object.get("metadata", reporter)
    {
        // Only opened for its fields to be checked: annotations are notes.
        let path = object.path("metadata");
        let _ = Object::open(&metadata.value, &RULE_METADATA, path, reporter);
    }
    Some(RuleDocument {
        start: object.start(),
        index,
        action: object.require_text("action", action_help, reporter),
        ip_version: object.text("ipVersion", reporter),
        protocol: object.text("protocol", reporter),
        not_protocol: object.text("notProtocol", reporter),
        icmp: icmp(&object, "icmp", reporter),
        not_icmp: icmp(&object, "notICMP", reporter),
        source: peer(&object, "source", dialect, reporter),
        destination: peer(&object, "destination", dialect, reporter),
    })
}

fn icmp<'t>(
    rule: &Object<'_, '_, 't>,
    field: &'static str,
    reporter: &mut Reporter<'_>,
) -> Option<IcmpDocument<'t>> {
    let entry = rule.get(field, reporter)?;
    let object = Object::open(&entry.value, &ICMP, rule.path(field), reporter)?;
    Some(IcmpDocument {
        key_span: entry.key_span,
        kind: object.text("type", reporter),
        code: object.text("code", reporter),
    })
}

fn peer<'t>(
    rule: &Object<'_, '_, 't>,
    field: &'static str,
    dialect: Dialect,
    reporter: &mut Reporter<'_>,
) -> PeerDocument<'t> {
    let table = match dialect {
        Dialect::V1 => &V1_PEER,
        Dialect::V3 => &V3_PEER,
    };
    let Some(object) = rule
        .get(field, reporter)
        .and_then(|entry| Object::open(&entry.value, table, rule.path(field), reporter))
    else {
        return PeerDocument::default();
    };
    let only = |of: Dialect, name: &'static str, reporter: &mut Reporter<'_>| {
        (of == dialect)
            .then(|| object.text(name, reporter))
            .flatten()
    };
    PeerDocument {
        net: only(Dialect::V1, "net", reporter),
        not_net: only(Dialect::V1, "notNet", reporter),
        nets: object.texts("nets", reporter),
        not_nets: object.texts("notNets", reporter),
        ports: object.texts("ports", reporter),
        not_ports: object.texts("notPorts", reporter),
        selector: object.text("selector", reporter),
        not_selector: object.text("notSelector", reporter),
        namespace_selector: only(Dialect::V3, "namespaceSelector", reporter),
        tag: only(Dialect::V1, "tag", reporter),
        not_tag: only(Dialect::V1, "notTag", reporter),
    }
}

/// Reads a host endpoint.
pub(super) fn host_endpoint<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<HostEndpointDocument<'t>> {
    let (table, metadata_table, spec_table) = match dialect {
        Dialect::V1 => (&V1_ENDPOINT, &V1_ENDPOINT_METADATA, &V1_ENDPOINT_SPEC),
        Dialect::V3 => (&V3_ENDPOINT, &V3_ENDPOINT_METADATA, &V3_ENDPOINT_SPEC),
    };
    let (object, parts) = open(node, table, Some(INTERFACE_HELP), path, reporter)?;
    let metadata = parts.metadata.and_then(|entry| {
        Object::open(
            &entry.value,
            metadata_table,
            object.path("metadata"),
            reporter,
        )
    });
    let metadata = metadata.as_ref();
    let name = metadata.and_then(|metadata| metadata.require_text("name", NAME_HELP, reporter));
    let labels = metadata
        .map(|metadata| metadata.text_map("labels", reporter))
        .unwrap_or_default();
    let spec = Object::open(
        &parts.spec?.value,
        spec_table,
        object.path("spec"),
        reporter,
    )?;
    let node = match dialect {
        Dialect::V1 => metadata.and_then(|metadata| metadata.text("node", reporter)),
        Dialect::V3 => spec.require_text("node", "name the host that has the interface", reporter),
    };
    Some(HostEndpointDocument {
        dialect,
        path: path.to_string(),
        start: spec.start(),
        node,
        interface: spec.text("interfaceName", reporter),
        expected_ips: spec.texts("expectedIPs", reporter),
        labels,
        profiles: spec.texts("profiles", reporter),
        ports: named_ports(&spec, reporter),
        name: name?,
    })
}

fn named_ports<'t>(
    spec: &Object<'_, '_, 't>,
    reporter: &mut Reporter<'_>,
) -> Vec<NamedPortDocument<'t>> {
    let Some(entry) = spec.get("ports", reporter) else {
        return Vec::new();
    };
    let path = spec.path("ports");
    let items = schema::sequence(&entry.value, &path, reporter).unwrap_or_default();
    let mut ports = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Some(object) = Object::open(item, &NAMED_PORT, path.index(index), reporter) else {
            continue;
        };
        ports.push(NamedPortDocument {
            index,
            name: object.require_text("name", "rules refer to the port by it", reporter),
            protocol: object.require_text("protocol", "say which protocol's port it is", reporter),
            port: object.require_text("port", "write the port's number", reporter),
        });
    }
    ports
}

/// Reads a profile.
pub(super) fn profile<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<ProfileDocument<'t>> {
    let (table, metadata_table, spec_table) = match dialect {
        Dialect::V1 => (&V1_PROFILE, &V1_PROFILE_METADATA, &V1_PROFILE_SPEC),
        Dialect::V3 => (&V3_PROFILE, &V3_PROFILE_METADATA, &V3_PROFILE_SPEC),
    };
    // A v1 profile may be there for its tags and labels alone.
    let (object, parts) = open(node, table, None, path, reporter)?;
    let metadata = parts.metadata.and_then(|entry| {
        Object::open(
            &entry.value,
            metadata_table,
            object.path("metadata"),
            reporter,
        )
    });
    let metadata = metadata.as_ref();
    let name = metadata.and_then(|metadata| metadata.require_text("name", NAME_HELP, reporter));
    let v1 = metadata.filter(|_| dialect == Dialect::V1);
    let tags = v1.map(|metadata| metadata.texts("tags", reporter));
    let spec = parts
        .spec
        .and_then(|entry| Object::open(&entry.value, spec_table, object.path("spec"), reporter));
    let labels = match (dialect, &spec) {
        (Dialect::V1, _) => v1.map(|metadata| metadata.text_map("labels", reporter)),
        (Dialect::V3, spec) => spec
            .as_ref()
            .map(|spec| spec.text_map("labelsToApply", reporter)),
    };
    let mut list = |field| {
        spec.as_ref()
            .map(|spec| rules(spec, field, dialect, reporter))
            .unwrap_or_default()
    };
    let (ingress, egress) = (list("ingress"), list("egress"));
    Some(ProfileDocument {
        dialect,
        path: path.to_string(),
        labels: labels.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        ingress,
        egress,
        name: name?,
    })
}

/// Reads a tier.
pub(super) fn tier<'t>(
    node: &Node<'t>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<TierDocument<'t>> {
    let (object, parts) = open(node, &TIER, None, path, reporter)?;
    let metadata = parts.metadata.and_then(|entry| {
        Object::open(
            &entry.value,
            &TIER_METADATA,
            object.path("metadata"),
            reporter,
        )
    });
    let name = metadata.and_then(|metadata| metadata.require_text("name", NAME_HELP, reporter));
    let spec = parts
        .spec
        .and_then(|entry| Object::open(&entry.value, &TIER_SPEC, object.path("spec"), reporter));
    let spec = spec.as_ref();
    Some(TierDocument {
        path: path.to_string(),
        order: spec.and_then(|spec| spec.number("order", reporter)),
        default_action: spec.and_then(|spec| spec.text("defaultAction", reporter)),
        name: name?,
    })
}
