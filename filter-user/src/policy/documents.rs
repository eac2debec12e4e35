//! Tree → documents: which kind each is, and its fields as they were written.
//!
//! The tables here say of every field of the formats whether this version
//! reads it. A further field or kind is a further line, and a place for it in
//! the structures below.

/// The metadata of what a cluster keeps; whether it has a namespace is told.
macro_rules! cluster_metadata {
    ($name:ident, $object:literal, $namespace:expr) => {
        cluster_metadata!(
            $name,
            $object,
            $namespace,
            Field::note("labels"),
            Field::note("annotations")
        );
    };
    ($name:ident, $object:literal, $namespace:expr, $labels:expr, $annotations:expr) => {
        static $name: Table = Table {
            object: $object,
            fields: &[
                Field::read("name"),
                $namespace,
                $labels,
                $annotations,
                Field::recorded("creationTimestamp"),
                Field::recorded("deletionGracePeriodSeconds"),
                Field::recorded("deletionTimestamp"),
                Field::recorded("finalizers"),
                Field::recorded("generateName"),
                Field::recorded("generation"),
                Field::recorded("managedFields"),
                Field::recorded("ownerReferences"),
                Field::recorded("resourceVersion"),
                Field::recorded("selfLink"),
                Field::recorded("uid"),
            ],
        };
    };
}

pub(super) mod ingress_node_firewall;
pub(super) mod kubernetes;
pub(super) mod network_set;

use self::ingress_node_firewall::IngressNodeFirewallDocument;
use self::kubernetes::KubernetesDocument;
use self::network_set::NetworkSetDocument;
use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::schema::{
    self, Field, Neutral, Object, Path, Spanned, Table, Text, Texts, list, nearest, not_enforced,
};
use super::source::Span;
use super::yaml::{Node, Value};

/// The format a document is written in; they differ in case and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dialect {
    V1,
    V3,
}

/// A document as its author wrote it.
#[derive(Debug)]
pub(super) enum Document<'t> {
    Policy(PolicyDocument<'t>),
    HostEndpoint(HostEndpointDocument<'t>),
    IngressNodeFirewall(IngressNodeFirewallDocument<'t>),
    Kubernetes(KubernetesDocument<'t>),
    NetworkSet(NetworkSetDocument<'t>),
}

/// A v1 `policy` or a v3 `GlobalNetworkPolicy`.
#[derive(Debug)]
pub(super) struct PolicyDocument<'t> {
    pub(super) dialect: Dialect,
    /// The path of the document in its file: empty, or a list's index.
    pub(super) path: String,
    pub(super) name: Text<'t>,
    pub(super) order: Option<Spanned<f64>>,
    pub(super) selector: Option<Text<'t>>,
    pub(super) types: Texts<'t>,
    pub(super) pre_dnat: Option<Spanned<bool>>,
    pub(super) apply_on_forward: Option<Spanned<bool>>,
    pub(super) ingress: Vec<RuleDocument<'t>>,
    /// Where the ingress list stands.
    pub(super) ingress_span: Option<Span>,
    /// Where egress rules stand, if there are any.
    pub(super) egress_span: Option<Span>,
}

/// One rule. A rule that could not be read leaves an error and is not here.
#[derive(Debug)]
pub(super) struct RuleDocument<'t> {
    pub(super) start: Span,
    /// The index in the list as it was written.
    pub(super) index: usize,
    pub(super) action: Option<Text<'t>>,
    pub(super) ip_version: Option<Text<'t>>,
    pub(super) protocol: Option<Text<'t>>,
    pub(super) source: PeerDocument<'t>,
    pub(super) destination: PeerDocument<'t>,
}

/// One side of a rule.
#[derive(Debug, Default)]
pub(super) struct PeerDocument<'t> {
    pub(super) nets: Texts<'t>,
    pub(super) ports: Texts<'t>,
}

/// A v1 `hostEndpoint` or a v3 `HostEndpoint`.
#[derive(Debug)]
pub(super) struct HostEndpointDocument<'t> {
    pub(super) dialect: Dialect,
    /// As in [`PolicyDocument`].
    pub(super) path: String,
    pub(super) name: Text<'t>,
    pub(super) node: Option<Text<'t>>,
    pub(super) interface: Option<Text<'t>>,
    pub(super) labels: Vec<(Text<'t>, Text<'t>)>,
    pub(super) profiles: Texts<'t>,
}

/// An `apiVersion` and `kind` that is known.
struct Known {
    api_version: &'static str,
    kind: &'static str,
    read: Read,
}

enum Read {
    Policy(Dialect),
    HostEndpoint(Dialect),
    IngressNodeFirewall,
    Kubernetes,
    NetworkSet { namespaced: bool },
    List,
    Later,
}

const V1: &str = "v1";
const V3: &str = "projectcalico.org/v3";
const CRD: &str = "crd.projectcalico.org/v1";
const INF: &str = "ingressnodefirewall.openshift.io/v1alpha1";
const K8S: &str = "networking.k8s.io/v1";

const fn kind(api_version: &'static str, kind: &'static str, read: Read) -> Known {
    Known {
        api_version,
        kind,
        read,
    }
}

const GLOBAL_SET: Read = Read::NetworkSet { namespaced: false };
const NAMESPACED_SET: Read = Read::NetworkSet { namespaced: true };

const KINDS: &[Known] = &[
    kind(V1, "policy", Read::Policy(Dialect::V1)),
    kind(V1, "hostEndpoint", Read::HostEndpoint(Dialect::V1)),
    kind(V1, "profile", Read::Later),
    kind(V1, "List", Read::List),
    kind(V1, "policyList", Read::List),
    kind(V1, "hostEndpointList", Read::List),
    kind(V3, "GlobalNetworkPolicy", Read::Policy(Dialect::V3)),
    kind(V3, "HostEndpoint", Read::HostEndpoint(Dialect::V3)),
    kind(V3, "NetworkPolicy", Read::Later),
    kind(V3, "GlobalNetworkSet", GLOBAL_SET),
    kind(V3, "NetworkSet", NAMESPACED_SET),
    kind(V3, "GlobalNetworkSetList", Read::List),
    kind(V3, "NetworkSetList", Read::List),
    kind(V3, "Tier", Read::Later),
    kind(V3, "Profile", Read::Later),
    kind(V3, "StagedGlobalNetworkPolicy", Read::Later),
    kind(V3, "StagedNetworkPolicy", Read::Later),
    kind(V3, "StagedKubernetesNetworkPolicy", Read::Later),
    kind(V3, "GlobalNetworkPolicyList", Read::List),
    kind(V3, "HostEndpointList", Read::List),
    kind(CRD, "GlobalNetworkPolicy", Read::Policy(Dialect::V3)),
    kind(CRD, "HostEndpoint", Read::HostEndpoint(Dialect::V3)),
    kind(CRD, "NetworkPolicy", Read::Later),
    kind(CRD, "GlobalNetworkSet", GLOBAL_SET),
    kind(CRD, "NetworkSet", NAMESPACED_SET),
    kind(CRD, "GlobalNetworkSetList", Read::List),
    kind(CRD, "NetworkSetList", Read::List),
    kind(CRD, "Tier", Read::Later),
    kind(CRD, "StagedGlobalNetworkPolicy", Read::Later),
    kind(CRD, "StagedNetworkPolicy", Read::Later),
    kind(CRD, "StagedKubernetesNetworkPolicy", Read::Later),
    kind(CRD, "GlobalNetworkPolicyList", Read::List),
    kind(CRD, "HostEndpointList", Read::List),
    kind(INF, "IngressNodeFirewall", Read::IngressNodeFirewall),
    kind(INF, "IngressNodeFirewallList", Read::List),
    kind(K8S, "NetworkPolicy", Read::Kubernetes),
    kind(K8S, "NetworkPolicyList", Read::List),
];

const ENFORCED_KINDS: &str = "this version enforces `policy` and `hostEndpoint` (apiVersion `v1`), \
     `GlobalNetworkPolicy`, `HostEndpoint`, `GlobalNetworkSet` and `NetworkSet` (apiVersion \
     `projectcalico.org/v3`), \
     `IngressNodeFirewall` (apiVersion `ingressnodefirewall.openshift.io/v1alpha1`), and \
     `NetworkPolicy` (apiVersion `networking.k8s.io/v1`)";

static HEAD: Table = Table {
    object: "a document",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::read("metadata"),
        Field::read("spec"),
    ],
};

static LIST: Table = Table {
    object: "a list of documents",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::note("metadata"),
        Field::read("items"),
    ],
};

const RECORDED: &str = "recorded by the cluster, and without meaning here";
const REMOVE_RECORDED: &str = "remove the line: it was added when the object was exported";

/// What a cluster adds to objects that are read back from it.
macro_rules! recorded {
    ($name:literal) => {
        Field::later($name, Neutral::None, RECORDED, REMOVE_RECORDED)
    };
}

const NO_TIERS: &str = "this version has no tiers but `default`";
const REMOVE_TIER: &str = "remove the tier, and order the policies by `order` alone";

static V1_POLICY: Table = Table {
    object: "a v1 policy",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &V1_POLICY_METADATA),
        Field::object("spec", &V1_POLICY_SPEC),
    ],
};

static V1_POLICY_METADATA: Table = Table {
    object: "the metadata of a v1 policy",
    fields: &[
        Field::read("name"),
        Field::note("annotations"),
        Field::later("tier", Neutral::Text("default"), NO_TIERS, REMOVE_TIER),
        recorded!("resourceVersion"),
    ],
};

static V1_POLICY_SPEC: Table = Table {
    object: "the spec of a v1 policy",
    fields: &[
        Field::read("order"),
        Field::read("selector"),
        Field::read("types"),
        UNTRACKED,
        Field::read("preDNAT"),
        Field::object("ingress", &V1_RULE),
        Field::read("egress"),
        Field::elsewhere(
            "applyOnForward",
            "remove the line: in v1, `preDNAT` acts on forwarded packets by itself",
        ),
    ],
};

static V3_POLICY: Table = Table {
    object: "a GlobalNetworkPolicy",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &V3_POLICY_METADATA),
        Field::object("spec", &V3_POLICY_SPEC),
        recorded!("status"),
    ],
};

macro_rules! v3_metadata {
    ($name:ident, $object:literal, $labels:expr) => {
        static $name: Table = Table {
            object: $object,
            fields: &[
                Field::read("name"),
                $labels,
                Field::note("annotations"),
                Field::elsewhere(
                    "namespace",
                    "remove the line: objects of this kind are cluster-wide",
                ),
                Field::elsewhere(
                    "node",
                    "in v3, `node` is a field of a HostEndpoint's `spec`",
                ),
                recorded!("creationTimestamp"),
                recorded!("resourceVersion"),
                recorded!("uid"),
                recorded!("generation"),
                recorded!("selfLink"),
                recorded!("managedFields"),
                recorded!("ownerReferences"),
                recorded!("finalizers"),
            ],
        };
    };
}

// The labels of a policy are for whoever lists policies; those of an endpoint
// are what selectors match.
v3_metadata!(
    V3_POLICY_METADATA,
    "the metadata of a GlobalNetworkPolicy",
    Field::note("labels")
);
v3_metadata!(
    V3_ENDPOINT_METADATA,
    "the metadata of a HostEndpoint",
    Field::read("labels")
);

static V3_POLICY_SPEC: Table = Table {
    object: "the spec of a GlobalNetworkPolicy",
    fields: &[
        Field::read("order"),
        Field::read("selector"),
        Field::read("types"),
        Field::read("preDNAT"),
        Field::read("applyOnForward"),
        Field::object("ingress", &V3_RULE),
        Field::read("egress"),
        UNTRACKED,
        Field::later("tier", Neutral::Text("default"), NO_TIERS, REMOVE_TIER),
        Field::later(
            "namespaceSelector",
            Neutral::Empty,
            "selects pods by namespace, and this version has host endpoints only",
            "take the policy out of the files for this host: it selects no host endpoint",
        ),
        Field::later(
            "serviceAccountSelector",
            Neutral::Empty,
            "selects pods by service account, and this version has host endpoints only",
            "take the policy out of the files for this host: it selects no host endpoint",
        ),
        Field::later(
            "performanceHints",
            Neutral::Empty,
            "not known to this version",
            "remove the field: it changes no verdict",
        ),
    ],
};

const UNTRACKED: Field = Field::later(
    "doNotTrack",
    Neutral::False,
    "this version has no untracked stage",
    "use `preDNAT: true` if the policy only has ingress rules",
);

// The conditions that rules of both formats have and this version hasn't. The
// advice must keep the rule's meaning: an earlier rule for what is excluded
// would not, as its action is final.
const NO_NEGATIONS: &str = "this version can't negate conditions";
const NO_ICMP: &str = "this version can't match ICMP types and codes";
const WHOLE_ICMP: &str = "without this field the rule would be about all of ICMP";
const NOT_PROTOCOL: Field = Field::later(
    "notProtocol",
    Neutral::None,
    NO_NEGATIONS,
    "write one rule for each protocol that is meant",
);
const ICMP: Field = Field::later("icmp", Neutral::None, NO_ICMP, WHOLE_ICMP);
const NOT_ICMP: Field = Field::later("notICMP", Neutral::None, NO_ICMP, WHOLE_ICMP);

static V1_RULE: Table = Table {
    object: "a v1 rule",
    fields: &[
        Field::read("action"),
        Field::read("ipVersion"),
        Field::read("protocol"),
        Field::object("source", &V1_SOURCE),
        Field::object("destination", &V1_DESTINATION),
        NOT_PROTOCOL,
        ICMP,
        NOT_ICMP,
    ],
};

static V3_RULE: Table = Table {
    object: "a rule",
    fields: &[
        Field::read("action"),
        Field::read("ipVersion"),
        Field::read("protocol"),
        Field::object("source", &V3_SOURCE),
        Field::object("destination", &V3_DESTINATION),
        Field::read("metadata"),
        NOT_PROTOCOL,
        ICMP,
        NOT_ICMP,
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

const USE_NETS: &str = "write `nets: [cidr]`";
const NO_SETS: &str = "this version can't look addresses up by label";
const LIST_NETS: &str = "list the addresses in `nets`";
const OTHER_NETS: &str = "list the networks that are meant in `nets`";

macro_rules! peer {
    ($name:ident, $object:literal, $ports:expr, [$($more:expr),* $(,)?]) => {
        static $name: Table = Table {
            object: $object,
            fields: &[
                Field::read("nets"),
                $ports,
                Field::later("notNets", Neutral::Empty, NO_NEGATIONS, OTHER_NETS),
                Field::later(
                    "notPorts",
                    Neutral::Empty,
                    NO_NEGATIONS,
                    "list the other ports in `ports`, such as `1:79` and `81:65535`",
                ),
                Field::later("selector", Neutral::Empty, NO_SETS, LIST_NETS),
                Field::later("notSelector", Neutral::Empty, NO_SETS, LIST_NETS),
                $($more),*
            ],
        };
    };
}

const SOURCE_PORTS: Field = Field::later(
    "ports",
    Neutral::Empty,
    "this version can't match source ports",
    "match `destination.ports` if those were meant",
);
const V1_NET: Field = Field::later(
    "net",
    Neutral::None,
    "deprecated in v1, and not read",
    USE_NETS,
);
const V1_NOT_NET: Field = Field::later("notNet", Neutral::None, NO_NEGATIONS, OTHER_NETS);
const V1_TAG: Field = Field::later("tag", Neutral::Empty, NO_SETS, LIST_NETS);
const V1_NOT_TAG: Field = Field::later("notTag", Neutral::Empty, NO_SETS, LIST_NETS);
const V3_NAMESPACES: Field = Field::later("namespaceSelector", Neutral::Empty, NO_SETS, LIST_NETS);
const V3_ACCOUNTS: Field = Field::later("serviceAccounts", Neutral::None, NO_SETS, LIST_NETS);
const V3_SERVICES: Field = Field::later("services", Neutral::None, NO_SETS, LIST_NETS);

peer!(
    V1_SOURCE,
    "the source of a v1 rule",
    SOURCE_PORTS,
    [V1_NET, V1_NOT_NET, V1_TAG, V1_NOT_TAG]
);
peer!(
    V1_DESTINATION,
    "the destination of a v1 rule",
    Field::read("ports"),
    [V1_NET, V1_NOT_NET, V1_TAG, V1_NOT_TAG]
);
peer!(
    V3_SOURCE,
    "the source of a rule",
    SOURCE_PORTS,
    [V3_NAMESPACES, V3_ACCOUNTS, V3_SERVICES]
);
peer!(
    V3_DESTINATION,
    "the destination of a rule",
    Field::read("ports"),
    [V3_NAMESPACES, V3_ACCOUNTS, V3_SERVICES]
);

static V1_ENDPOINT: Table = Table {
    object: "a v1 hostEndpoint",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &V1_ENDPOINT_METADATA),
        Field::object("spec", &V1_ENDPOINT_SPEC),
    ],
};

static V1_ENDPOINT_METADATA: Table = Table {
    object: "the metadata of a v1 hostEndpoint",
    fields: &[
        Field::read("name"),
        Field::read("node"),
        Field::read("labels"),
        Field::note("annotations"),
        recorded!("resourceVersion"),
    ],
};

static V3_ENDPOINT: Table = Table {
    object: "a HostEndpoint",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &V3_ENDPOINT_METADATA),
        Field::object("spec", &V3_ENDPOINT_SPEC),
        recorded!("status"),
    ],
};

const EXPECTED_IPS: Field = Field::later(
    "expectedIPs",
    Neutral::Empty,
    "this version finds interfaces by name only",
    "name the interface with `interfaceName`",
);
const NAMED_PORTS: Field = Field::later(
    "ports",
    Neutral::Empty,
    "this version has no named ports",
    "write port numbers in the rules",
);

static V1_ENDPOINT_SPEC: Table = Table {
    object: "the spec of a v1 hostEndpoint",
    fields: &[
        Field::read("interfaceName"),
        Field::read("profiles"),
        EXPECTED_IPS,
        NAMED_PORTS,
        Field::elsewhere("node", "in v1, `node` is a field of `metadata`"),
    ],
};

static V3_ENDPOINT_SPEC: Table = Table {
    object: "the spec of a HostEndpoint",
    fields: &[
        Field::read("node"),
        Field::read("interfaceName"),
        Field::read("profiles"),
        EXPECTED_IPS,
        NAMED_PORTS,
    ],
};

/// Reads one YAML document: an object, a list of objects, or nothing.
pub(super) fn read<'t>(root: &Node<'t>, reporter: &mut Reporter<'_>) -> Vec<Document<'t>> {
    let mut documents = Vec::new();
    if !root.is_null() {
        read_into(&mut documents, root, Path::ROOT, reporter);
    }
    documents
}

fn read_into<'t>(
    documents: &mut Vec<Document<'t>>,
    node: &Node<'t>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    if let Value::Sequence(items) = &node.value {
        for (index, item) in items.iter().enumerate() {
            read_into(documents, item, path.index(index), reporter);
        }
        return;
    }
    let Some(kind) = find_kind(node, path, reporter) else {
        return;
    };
    match kind.read {
        Read::Policy(dialect) => {
            documents.extend(policy(node, dialect, path, reporter).map(Document::Policy));
        }
        Read::HostEndpoint(dialect) => {
            let document = host_endpoint(node, dialect, path, reporter);
            documents.extend(document.map(Document::HostEndpoint));
        }
        Read::IngressNodeFirewall => {
            let document = ingress_node_firewall::read(node, path, reporter);
            documents.extend(document.map(Document::IngressNodeFirewall));
        }
        Read::NetworkSet { namespaced } => {
            let document = network_set::read(node, namespaced, path, reporter);
            documents.extend(document.map(Document::NetworkSet));
        }
        Read::Kubernetes => {
            let document = kubernetes::read(node, path, reporter);
            documents.extend(document.map(Document::Kubernetes));
        }
        Read::List => {
            let Some(list) = Object::open(node, &LIST, path, reporter) else {
                return;
            };
            let Some(items) = list.require("items", "list the documents below it", reporter) else {
                return;
            };
            let path = list.path("items");
            let items = schema::sequence(&items.value, &path, reporter).unwrap_or_default();
            for (index, item) in items.iter().enumerate() {
                read_into(documents, item, path.index(index), reporter);
            }
        }
        Read::Later => {}
    }
}

/// Tells by `apiVersion` and `kind` what a document is.
fn find_kind(
    node: &Node<'_>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<&'static Known> {
    let head = Object::head(node, &HEAD, path, reporter)?;
    let version_help = "write `apiVersion: v1` for Calico v1, \
                        `apiVersion: projectcalico.org/v3` for Calico v3";
    let version = head.require_text("apiVersion", version_help, reporter);
    let kind = head.require_text("kind", ENFORCED_KINDS, reporter);
    let (version, kind) = (version?, kind?);
    let (version_text, kind_text) = (&*version.value.text, &*kind.value.text);
    let of_version = || {
        KINDS
            .iter()
            .filter(|known| known.api_version == version_text)
    };
    if let Some(known) = of_version().find(|known| known.kind == kind_text) {
        if matches!(known.read, Read::Later) {
            let what = format!("kind {}", quote(kind_text));
            let instead = format!("take the document out of these files; {ENFORCED_KINDS}");
            let diagnostic = not_enforced(&what, "not enforced by this version", &instead);
            reporter.report(kind.span, diagnostic.field(head.path("kind")));
        }
        return Some(known);
    }

    let versions: Vec<_> = KINDS
        .iter()
        .filter(|known| known.kind == kind_text)
        .map(|known| known.api_version)
        .collect();
    let version_known = of_version().next().is_some();
    let help = match nearest(kind_text, of_version().map(|known| known.kind)) {
        Some(near) => format!("did you mean `kind: {near}`?"),
        None if !versions.is_empty() => {
            format!(
                "documents of this kind have the apiVersion {}",
                list(versions.into_iter())
            )
        }
        None => ENFORCED_KINDS.to_owned(),
    };
    let (span, field, message) = if version_known {
        let message = format!(
            "{} is no kind of apiVersion {}",
            quote(kind_text),
            quote(version_text)
        );
        (kind.span, "kind", message)
    } else {
        let message = format!("{} is no apiVersion of a policy", quote(version_text));
        (version.span, "apiVersion", message)
    };
    reporter.report(
        span,
        Diagnostic::error(Code::UnknownKind, message)
            .field(head.path(field))
            .label("not known")
            .help(help),
    );
    None
}

const NAME_HELP: &str = "give the object a name of its own: `metadata: {name: some-name}`";

fn policy<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<PolicyDocument<'t>> {
    let (table, metadata_table, spec_table) = match dialect {
        Dialect::V1 => (&V1_POLICY, &V1_POLICY_METADATA, &V1_POLICY_SPEC),
        Dialect::V3 => (&V3_POLICY, &V3_POLICY_METADATA, &V3_POLICY_SPEC),
    };
    let object = Object::open(node, table, path, reporter)?;

    let name = object
        .require("metadata", NAME_HELP, reporter)
        .and_then(|entry| {
            let path = object.path("metadata");
            Object::open(&entry.value, metadata_table, path, reporter)?
                .require_text("name", NAME_HELP, reporter)
        });

    let spec_help = "without it a policy decides nothing: add `spec:` with its rules";
    let spec_entry = object.require("spec", spec_help, reporter)?;
    let spec = Object::open(&spec_entry.value, spec_table, object.path("spec"), reporter)?;
    let ingress = spec.get("ingress", reporter);
    let egress = spec.get("egress", reporter).filter(|entry| {
        let rules = schema::sequence(&entry.value, &spec.path("egress"), reporter);
        rules.is_some_and(|rules| !rules.is_empty())
    });
    Some(PolicyDocument {
        dialect,
        path: path.to_string(),
        order: spec.number("order", reporter),
        selector: spec.text("selector", reporter),
        types: spec.texts("types", reporter),
        pre_dnat: spec.boolean("preDNAT", reporter),
        apply_on_forward: match dialect {
            Dialect::V1 => None,
            Dialect::V3 => spec.boolean("applyOnForward", reporter),
        },
        ingress: ingress
            .map(|entry| rules(&entry.value, dialect, spec.path("ingress"), reporter))
            .unwrap_or_default(),
        ingress_span: ingress.map(|entry| entry.key_span),
        egress_span: egress.map(|entry| entry.key_span),
        name: name?,
    })
}

fn rules<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Vec<RuleDocument<'t>> {
    schema::sequence(node, &path, reporter)
        .unwrap_or_default()
        .iter()
        .enumerate()
        .filter_map(|(index, item)| rule(item, dialect, index, path.index(index), reporter))
        .collect()
}

fn rule<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    index: usize,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<RuleDocument<'t>> {
    let (table, source_table, destination_table) = match dialect {
        Dialect::V1 => (&V1_RULE, &V1_SOURCE, &V1_DESTINATION),
        Dialect::V3 => (&V3_RULE, &V3_SOURCE, &V3_DESTINATION),
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
        let _ = Object::open(
            &metadata.value,
            &RULE_METADATA,
            object.path("metadata"),
            reporter,
        );
    }
    let source = object.get("source", reporter).and_then(|entry| {
        Object::open(&entry.value, source_table, object.path("source"), reporter)
    });
    let destination = object.get("destination", reporter).and_then(|entry| {
        Object::open(
            &entry.value,
            destination_table,
            object.path("destination"),
            reporter,
        )
    });
    Some(RuleDocument {
        start: object.start(),
        index,
        action: object.require_text("action", action_help, reporter),
        ip_version: object.text("ipVersion", reporter),
        protocol: object.text("protocol", reporter),
        source: source.map_or_else(PeerDocument::default, |source| PeerDocument {
            nets: source.texts("nets", reporter),
            ports: Texts::default(),
        }),
        destination: destination.map_or_else(PeerDocument::default, |destination| PeerDocument {
            nets: destination.texts("nets", reporter),
            ports: destination.texts("ports", reporter),
        }),
    })
}

fn host_endpoint<'t>(
    node: &Node<'t>,
    dialect: Dialect,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<HostEndpointDocument<'t>> {
    let (table, metadata_table, spec_table) = match dialect {
        Dialect::V1 => (&V1_ENDPOINT, &V1_ENDPOINT_METADATA, &V1_ENDPOINT_SPEC),
        Dialect::V3 => (&V3_ENDPOINT, &V3_ENDPOINT_METADATA, &V3_ENDPOINT_SPEC),
    };
    let object = Object::open(node, table, path, reporter)?;

    let metadata = object
        .require("metadata", NAME_HELP, reporter)
        .and_then(|entry| {
            Object::open(
                &entry.value,
                metadata_table,
                object.path("metadata"),
                reporter,
            )
        });
    let name = metadata
        .as_ref()
        .and_then(|metadata| metadata.require_text("name", NAME_HELP, reporter));
    let labels = metadata
        .as_ref()
        .map(|metadata| metadata.text_map("labels", reporter))
        .unwrap_or_default();

    let spec_help =
        "name the interface that the endpoint stands for: `spec: {interfaceName: eth0}`";
    let spec_entry = object.require("spec", spec_help, reporter)?;
    let spec = Object::open(&spec_entry.value, spec_table, object.path("spec"), reporter)?;
    let node = match dialect {
        Dialect::V1 => metadata.and_then(|metadata| metadata.text("node", reporter)),
        Dialect::V3 => spec.require_text("node", "name the host that has the interface", reporter),
    };
    let interface_help = "name the interface that the endpoint stands for: `interfaceName: eth0`";
    Some(HostEndpointDocument {
        dialect,
        path: path.to_string(),
        node,
        interface: spec.require_text("interfaceName", interface_help, reporter),
        labels,
        profiles: spec.texts("profiles", reporter),
        name: name?,
    })
}
