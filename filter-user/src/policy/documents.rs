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

pub(super) mod calico;
pub(super) mod ingress_node_firewall;
pub(super) mod kubernetes;
pub(super) mod network_set;

use self::calico::{
    Dialect, HostEndpointDocument, PolicyDocument, PolicyKind, ProfileDocument, TierDocument,
};
use self::ingress_node_firewall::IngressNodeFirewallDocument;
use self::kubernetes::KubernetesDocument;
use self::network_set::NetworkSetDocument;
use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::schema::{self, Field, Object, Path, Table, list, nearest, not_enforced};
use super::yaml::{Node, Value};

/// A document as its author wrote it.
#[derive(Debug)]
pub(super) enum Document<'t> {
    Policy(Box<PolicyDocument<'t>>),
    HostEndpoint(HostEndpointDocument<'t>),
    Profile(ProfileDocument<'t>),
    NetworkSet(NetworkSetDocument<'t>),
    Tier(TierDocument<'t>),
    IngressNodeFirewall(IngressNodeFirewallDocument<'t>),
    Kubernetes(KubernetesDocument<'t>),
}

/// An `apiVersion` and `kind` that is known.
struct Known {
    api_version: &'static str,
    kind: &'static str,
    read: Read,
}

enum Read {
    Policy(PolicyKind),
    HostEndpoint(Dialect),
    Profile(Dialect),
    /// Whether it is namespaced.
    NetworkSet(bool),
    Tier,
    IngressNodeFirewall,
    Kubernetes,
    List,
    /// Known, and decides nothing that could be enforced here.
    Refused(&'static str),
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

const STAGED_KUBERNETES: &str = "write it as a StagedNetworkPolicy to have it counted";

const KINDS: &[Known] = &[
    kind(V1, "policy", Read::Policy(PolicyKind::V1)),
    kind(V1, "hostEndpoint", Read::HostEndpoint(Dialect::V1)),
    kind(V1, "profile", Read::Profile(Dialect::V1)),
    kind(V1, "List", Read::List),
    kind(V1, "policyList", Read::List),
    kind(V1, "hostEndpointList", Read::List),
    kind(V1, "profileList", Read::List),
    kind(V3, "GlobalNetworkPolicy", Read::Policy(PolicyKind::Global)),
    kind(V3, "NetworkPolicy", Read::Policy(PolicyKind::Namespaced)),
    kind(
        V3,
        "StagedGlobalNetworkPolicy",
        Read::Policy(PolicyKind::StagedGlobal),
    ),
    kind(
        V3,
        "StagedNetworkPolicy",
        Read::Policy(PolicyKind::StagedNamespaced),
    ),
    kind(V3, "HostEndpoint", Read::HostEndpoint(Dialect::V3)),
    kind(V3, "GlobalNetworkSet", Read::NetworkSet(false)),
    kind(V3, "NetworkSet", Read::NetworkSet(true)),
    kind(V3, "Tier", Read::Tier),
    kind(V3, "Profile", Read::Profile(Dialect::V3)),
    kind(
        V3,
        "StagedKubernetesNetworkPolicy",
        Read::Refused(STAGED_KUBERNETES),
    ),
    kind(V3, "GlobalNetworkPolicyList", Read::List),
    kind(V3, "NetworkPolicyList", Read::List),
    kind(V3, "StagedGlobalNetworkPolicyList", Read::List),
    kind(V3, "StagedNetworkPolicyList", Read::List),
    kind(V3, "HostEndpointList", Read::List),
    kind(V3, "GlobalNetworkSetList", Read::List),
    kind(V3, "NetworkSetList", Read::List),
    kind(V3, "TierList", Read::List),
    kind(V3, "ProfileList", Read::List),
    kind(CRD, "GlobalNetworkPolicy", Read::Policy(PolicyKind::Global)),
    kind(CRD, "NetworkPolicy", Read::Policy(PolicyKind::Namespaced)),
    kind(
        CRD,
        "StagedGlobalNetworkPolicy",
        Read::Policy(PolicyKind::StagedGlobal),
    ),
    kind(
        CRD,
        "StagedNetworkPolicy",
        Read::Policy(PolicyKind::StagedNamespaced),
    ),
    kind(CRD, "HostEndpoint", Read::HostEndpoint(Dialect::V3)),
    kind(CRD, "GlobalNetworkSet", Read::NetworkSet(false)),
    kind(CRD, "NetworkSet", Read::NetworkSet(true)),
    kind(CRD, "Tier", Read::Tier),
    kind(
        CRD,
        "StagedKubernetesNetworkPolicy",
        Read::Refused(STAGED_KUBERNETES),
    ),
    kind(CRD, "GlobalNetworkPolicyList", Read::List),
    kind(CRD, "NetworkPolicyList", Read::List),
    kind(CRD, "StagedGlobalNetworkPolicyList", Read::List),
    kind(CRD, "StagedNetworkPolicyList", Read::List),
    kind(CRD, "HostEndpointList", Read::List),
    kind(CRD, "GlobalNetworkSetList", Read::List),
    kind(CRD, "NetworkSetList", Read::List),
    kind(CRD, "TierList", Read::List),
    kind(INF, "IngressNodeFirewall", Read::IngressNodeFirewall),
    kind(INF, "IngressNodeFirewallList", Read::List),
    kind(K8S, "NetworkPolicy", Read::Kubernetes),
    kind(K8S, "NetworkPolicyList", Read::List),
];

const ENFORCED_KINDS: &str = "this version enforces Calico's `policy`, `hostEndpoint` and \
     `profile` (apiVersion `v1`) and `GlobalNetworkPolicy`, `NetworkPolicy`, their staged twins, \
     `HostEndpoint`, `GlobalNetworkSet`, `NetworkSet`, `Tier` and `Profile` (apiVersion \
     `projectcalico.org/v3`), `IngressNodeFirewall` (apiVersion \
     `ingressnodefirewall.openshift.io/v1alpha1`), and `NetworkPolicy` (apiVersion \
     `networking.k8s.io/v1`)";

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

/// The `apiVersion` and kind of every document that is read, with what it may
/// hold.
pub(super) fn tables() -> impl Iterator<Item = (&'static str, &'static str, &'static Table)> {
    KINDS.iter().filter_map(|known| {
        let table = match known.read {
            Read::Policy(kind) => calico::policy_table(kind),
            Read::HostEndpoint(dialect) => calico::endpoint_table(dialect),
            Read::Profile(dialect) => calico::profile_table(dialect),
            Read::NetworkSet(namespaced) => network_set::table(namespaced),
            Read::Tier => calico::TIER_TABLE,
            Read::IngressNodeFirewall => ingress_node_firewall::TABLE,
            Read::Kubernetes => kubernetes::TABLE,
            Read::List | Read::Refused(_) => return None,
        };
        Some((known.api_version, known.kind, table))
    })
}

/// The `apiVersion` and kind of every list of documents.
pub(super) fn lists() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lists = KINDS
        .iter()
        .filter(|known| matches!(known.read, Read::List));
    lists.map(|known| (known.api_version, known.kind))
}

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
        Read::Policy(kind) => {
            let document = calico::policy(node, kind, path, reporter);
            documents.extend(document.map(Box::new).map(Document::Policy));
        }
        Read::HostEndpoint(dialect) => {
            let document = calico::host_endpoint(node, dialect, path, reporter);
            documents.extend(document.map(Document::HostEndpoint));
        }
        Read::Profile(dialect) => {
            let document = calico::profile(node, dialect, path, reporter);
            documents.extend(document.map(Document::Profile));
        }
        Read::NetworkSet(namespaced) => {
            let document = network_set::read(node, namespaced, path, reporter);
            documents.extend(document.map(Document::NetworkSet));
        }
        Read::Tier => {
            let document = calico::tier(node, path, reporter);
            documents.extend(document.map(Document::Tier));
        }
        Read::IngressNodeFirewall => {
            let document = ingress_node_firewall::read(node, path, reporter);
            documents.extend(document.map(Document::IngressNodeFirewall));
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
        Read::Refused(_) => {}
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
        if let Read::Refused(instead) = known.read {
            let what = format!("kind {}", quote(kind_text));
            let diagnostic = not_enforced(&what, "not enforced by this version", instead);
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
