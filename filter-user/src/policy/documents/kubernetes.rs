//! Kubernetes' `NetworkPolicy`, as its author wrote it.

use crate::policy::diagnostic::Reporter;
use crate::policy::label_selector::{self, LabelSelector};
use crate::policy::schema::{self, Field, Object, Path, Table, Text, Texts};
use crate::policy::source::Span;
use crate::policy::yaml::Node;

/// A Kubernetes `NetworkPolicy`.
#[derive(Debug)]
pub(in crate::policy) struct KubernetesDocument<'t> {
    /// The path of the document in its file: empty, or a list's index.
    pub(in crate::policy) path: String,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) namespace: Option<Text<'t>>,
    pub(in crate::policy) pods: LabelSelector,
    pub(in crate::policy) types: Texts<'t>,
    pub(in crate::policy) ingress: RulesDocument<'t>,
    pub(in crate::policy) egress: RulesDocument<'t>,
}

/// The rules of one direction.
#[derive(Debug, Default)]
pub(in crate::policy) struct RulesDocument<'t> {
    /// Where the list stands; `None` if it doesn't.
    pub(in crate::policy) key_span: Option<Span>,
    pub(in crate::policy) rules: Vec<RuleDocument<'t>>,
}

/// One rule.
#[derive(Debug)]
pub(in crate::policy) struct RuleDocument<'t> {
    /// The index in the list as it was written.
    pub(in crate::policy) index: usize,
    pub(in crate::policy) start: Span,
    /// From or to whom; empty: all.
    pub(in crate::policy) peers: Vec<PeerDocument<'t>>,
    pub(in crate::policy) ports: Vec<PortDocument<'t>>,
}

/// One peer.
#[derive(Debug)]
pub(in crate::policy) struct PeerDocument<'t> {
    pub(in crate::policy) index: usize,
    pub(in crate::policy) start: Span,
    /// Where `ipBlock` stands, and what was read of it.
    pub(in crate::policy) block_span: Option<Span>,
    pub(in crate::policy) block: Option<BlockDocument<'t>>,
    /// Where `podSelector` or `namespaceSelector` stands.
    pub(in crate::policy) selector_span: Option<Span>,
}

/// An `ipBlock`.
#[derive(Debug)]
pub(in crate::policy) struct BlockDocument<'t> {
    pub(in crate::policy) cidr: Option<Text<'t>>,
    pub(in crate::policy) except: Texts<'t>,
}

/// One entry of `ports`.
#[derive(Debug)]
pub(in crate::policy) struct PortDocument<'t> {
    pub(in crate::policy) index: usize,
    pub(in crate::policy) protocol: Option<Text<'t>>,
    pub(in crate::policy) port: Option<Text<'t>>,
    pub(in crate::policy) end_port: Option<Text<'t>>,
}

/// What an object of this kind may hold.
pub(in crate::policy) static TABLE: &Table = &POLICY;

static POLICY: Table = Table {
    object: "a NetworkPolicy",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &METADATA),
        Field::object("spec", &SPEC),
        Field::recorded("status"),
    ],
};

cluster_metadata!(
    METADATA,
    "the metadata of a NetworkPolicy",
    Field::read("namespace")
);

static SPEC: Table = Table {
    object: "the spec of a NetworkPolicy",
    fields: &[
        Field::read("podSelector"),
        Field::read("policyTypes"),
        Field::object("ingress", &INGRESS),
        Field::object("egress", &EGRESS),
    ],
};

static INGRESS: Table = Table {
    object: "an ingress rule",
    fields: &[
        Field::object("from", &PEER),
        Field::object("ports", &PORT),
        Field::elsewhere(
            "to",
            "ingress rules have `from`, and egress rules have `to`",
        ),
    ],
};

static EGRESS: Table = Table {
    object: "an egress rule",
    fields: &[
        Field::object("to", &PEER),
        Field::object("ports", &PORT),
        Field::elsewhere(
            "from",
            "ingress rules have `from`, and egress rules have `to`",
        ),
    ],
};

static PEER: Table = Table {
    object: "a peer",
    fields: &[
        Field::object("ipBlock", &BLOCK),
        Field::read("podSelector"),
        Field::read("namespaceSelector"),
    ],
};

static BLOCK: Table = Table {
    object: "an ipBlock",
    fields: &[Field::read("cidr"), Field::read("except")],
};

static PORT: Table = Table {
    object: "an entry of `ports`",
    fields: &[
        Field::read("protocol"),
        Field::read("port"),
        Field::read("endPort"),
    ],
};

/// Reads a Kubernetes `NetworkPolicy`.
pub(super) fn read<'t>(
    node: &Node<'t>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<KubernetesDocument<'t>> {
    let object = Object::open(node, &POLICY, path, reporter)?;
    let metadata = object
        .require("metadata", super::NAME_HELP, reporter)
        .and_then(|entry| Object::open(&entry.value, &METADATA, object.path("metadata"), reporter));
    let name = metadata
        .as_ref()
        .and_then(|metadata| metadata.require_text("name", super::NAME_HELP, reporter));

    let spec_help = "without it a policy decides nothing: add `spec:` with its rules";
    let spec_entry = object.require("spec", spec_help, reporter)?;
    let spec = Object::open(&spec_entry.value, &SPEC, object.path("spec"), reporter)?;
    let pods_help = "say what the policy is for; `podSelector: {}` is everything";
    let pods = spec
        .require("podSelector", pods_help, reporter)
        .and_then(|entry| label_selector::read(&entry.value, spec.path("podSelector"), reporter));
    Some(KubernetesDocument {
        path: path.to_string(),
        namespace: metadata.and_then(|metadata| metadata.text("namespace", reporter)),
        pods: pods.unwrap_or_default(),
        types: spec.texts("policyTypes", reporter),
        ingress: rules(&spec, "ingress", reporter),
        egress: rules(&spec, "egress", reporter),
        name: name?,
    })
}

fn rules<'t>(
    spec: &Object<'_, '_, 't>,
    field: &'static str,
    reporter: &mut Reporter<'_>,
) -> RulesDocument<'t> {
    let Some(entry) = spec.get(field, reporter) else {
        return RulesDocument::default();
    };
    let path = spec.path(field);
    let items = schema::sequence(&entry.value, &path, reporter).unwrap_or_default();
    RulesDocument {
        key_span: Some(entry.key_span),
        rules: items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| rule(item, field, index, &path, reporter))
            .collect(),
    }
}

fn rule<'t>(
    node: &Node<'t>,
    field: &'static str,
    index: usize,
    list: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<RuleDocument<'t>> {
    let (table, peers) = match field {
        "ingress" => (&INGRESS, "from"),
        _ => (&EGRESS, "to"),
    };
    let object = Object::open(node, table, list.index(index), reporter)?;
    Some(RuleDocument {
        index,
        start: object.start(),
        peers: items(&object, peers, reporter, peer),
        ports: items(&object, "ports", reporter, port),
    })
}

/// A field that holds a list of objects.
fn items<'t, T>(
    object: &Object<'_, '_, 't>,
    field: &'static str,
    reporter: &mut Reporter<'_>,
    read: impl Fn(&Node<'t>, usize, Path<'_>, &mut Reporter<'_>) -> Option<T>,
) -> Vec<T> {
    let Some(entry) = object.get(field, reporter) else {
        return Vec::new();
    };
    let path = object.path(field);
    let items = schema::sequence(&entry.value, &path, reporter).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| read(item, index, path.index(index), reporter))
        .collect()
}

fn peer<'t>(
    node: &Node<'t>,
    index: usize,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<PeerDocument<'t>> {
    let object = Object::open(node, &PEER, path, reporter)?;
    let mut selector_span = None;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(entry) = object.get(name, reporter) {
            // Only for its mistakes: it can't be resolved.
            let _ = label_selector::read(&entry.value, object.path(name), reporter);
            selector_span = selector_span.or(Some(entry.key_span));
        }
    }
    let entry = object.get("ipBlock", reporter);
    let block = entry.and_then(|entry| {
        let object = Object::open(&entry.value, &BLOCK, object.path("ipBlock"), reporter)?;
        let cidr_help = "name the network: `cidr: 192.0.2.0/24`";
        Some(BlockDocument {
            cidr: object.require_text("cidr", cidr_help, reporter),
            except: object.texts("except", reporter),
        })
    });
    Some(PeerDocument {
        index,
        start: object.start(),
        block_span: entry.map(|entry| entry.key_span),
        block,
        selector_span,
    })
}

fn port<'t>(
    node: &Node<'t>,
    index: usize,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<PortDocument<'t>> {
    let object = Object::open(node, &PORT, path, reporter)?;
    Some(PortDocument {
        index,
        protocol: object.text("protocol", reporter),
        port: object.text("port", reporter),
        end_port: object.text("endPort", reporter),
    })
}
