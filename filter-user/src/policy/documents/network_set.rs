//! Calico's `GlobalNetworkSet` and `NetworkSet`, as their author wrote them.

use crate::policy::diagnostic::Reporter;
use crate::policy::list::NETS_FROM;
use crate::policy::schema::{Field, Object, Path, Table, Text, Texts};
use crate::policy::yaml::Node;

/// A `GlobalNetworkSet` or a `NetworkSet`.
#[derive(Debug)]
pub(in crate::policy) struct NetworkSetDocument<'t> {
    /// The path of the document in its file: empty, or a list's index.
    pub(in crate::policy) path: String,
    /// Whether it is a `NetworkSet`.
    pub(in crate::policy) namespaced: bool,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) namespace: Option<Text<'t>>,
    pub(in crate::policy) labels: Vec<(Text<'t>, Text<'t>)>,
    /// The file that holds networks of it as well.
    pub(in crate::policy) nets_from: Option<Text<'t>>,
    pub(in crate::policy) nets: Texts<'t>,
}

static GLOBAL: Table = Table {
    object: "a GlobalNetworkSet",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &GLOBAL_METADATA),
        Field::object("spec", &SPEC),
        Field::recorded("status"),
    ],
};

static NAMESPACED: Table = Table {
    object: "a NetworkSet",
    fields: &[
        Field::read("apiVersion"),
        Field::read("kind"),
        Field::object("metadata", &NAMESPACED_METADATA),
        Field::object("spec", &SPEC),
        Field::recorded("status"),
    ],
};

cluster_metadata!(
    GLOBAL_METADATA,
    "the metadata of a GlobalNetworkSet",
    Field::elsewhere(
        "namespace",
        "remove the line: objects of this kind are cluster-wide",
    ),
    Field::read("labels"),
    Field::read("annotations")
);

cluster_metadata!(
    NAMESPACED_METADATA,
    "the metadata of a NetworkSet",
    Field::read("namespace"),
    Field::read("labels"),
    Field::read("annotations")
);

static SPEC: Table = Table {
    object: "the spec of a set",
    fields: &[Field::read("nets")],
};

/// What a set may hold.
pub(in crate::policy) fn table(namespaced: bool) -> &'static Table {
    if namespaced { &NAMESPACED } else { &GLOBAL }
}

/// Reads a set.
pub(super) fn read<'t>(
    node: &Node<'t>,
    namespaced: bool,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<NetworkSetDocument<'t>> {
    let (table, metadata_table) = if namespaced {
        (&NAMESPACED, &NAMESPACED_METADATA)
    } else {
        (&GLOBAL, &GLOBAL_METADATA)
    };
    let object = Object::open(node, table, path, reporter)?;
    let metadata_entry = object.require("metadata", super::NAME_HELP, reporter)?;
    let metadata = Object::open(
        &metadata_entry.value,
        metadata_table,
        object.path("metadata"),
        reporter,
    )?;
    let name = metadata.require_text("name", super::NAME_HELP, reporter);
    let namespace = if namespaced {
        metadata.text("namespace", reporter)
    } else {
        None
    };
    let labels = metadata.text_map("labels", reporter);
    let annotations = metadata.text_map("annotations", reporter).into_iter();
    let nets_from = annotations
        .filter(|(key, _)| key.value.text == NETS_FROM)
        .map(|(_, value)| value)
        .next();
    let spec = if nets_from.is_some() {
        object.get("spec", reporter)
    } else {
        let help = "without it the set is empty: add `spec: {nets: [cidr]}`";
        object.require("spec", help, reporter)
    };
    let nets = spec
        .and_then(|entry| Object::open(&entry.value, &SPEC, object.path("spec"), reporter))
        .map(|spec| spec.texts("nets", reporter));
    Some(NetworkSetDocument {
        path: path.to_string(),
        namespaced,
        name: name?,
        namespace,
        labels,
        nets_from,
        nets: nets.unwrap_or_default(),
    })
}
