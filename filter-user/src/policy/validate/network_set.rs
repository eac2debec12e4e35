//! `GlobalNetworkSet`s and `NetworkSet`s → model.

use crate::policy::diagnostic::Reporter;
use crate::policy::documents::network_set::NetworkSetDocument;
use crate::policy::list::{Lists, NETS_FROM};
use crate::policy::model::NetworkSet;
use crate::policy::schema::Text;
use crate::policy::selector::NAMESPACE;
use crate::policy::values;

/// What selectors see of the namespace of a set.
const NAMESPACE_LABELS: [&str; 3] = [
    NAMESPACE,
    "pcns.projectcalico.org/name",
    "pcns.kubernetes.io/metadata.name",
];

/// Validates a set, and draws what its list holds.
pub(in crate::policy) fn validate(
    document: &NetworkSetDocument<'_>,
    lists: &mut Lists<'_>,
    reporter: &mut Reporter<'_>,
) -> NetworkSet {
    let root = super::root(&document.path);
    let metadata = root.field("metadata");
    super::cluster_name(&document.name, &metadata.field("name"), reporter);
    let namespace = match &document.namespace {
        Some(text) => {
            super::namespace(text, &metadata.field("namespace"), reporter);
            Some(owned(text))
        }
        None => document
            .namespaced
            .then(|| super::DEFAULT_NAMESPACE.to_owned()),
    };
    let own = super::labels(&document.labels, &metadata.field("labels"), reporter);
    let of_namespace = namespace.iter().flat_map(|namespace| {
        let labels = NAMESPACE_LABELS.into_iter();
        labels.map(|label| (label.to_owned(), namespace.clone()))
    });
    let labels = own.into_iter().chain(of_namespace).collect();

    let spec = root.field("spec");
    let nets_path = spec.field("nets");
    let mut nets = Vec::with_capacity(document.nets.items.len());
    for (index, text) in &document.nets.items {
        let net = values::net(&text.value.text);
        nets.extend(super::refused(
            net,
            text.span,
            &nets_path.index(*index),
            reporter,
        ));
    }
    let mut shared = None;
    if let Some(from) = &document.nets_from {
        let annotations = metadata.field("annotations");
        let drawn = lists.nets(from, &annotations.field(NETS_FROM), reporter);
        let drawn = drawn.unwrap_or_default();
        if nets.is_empty() {
            shared = Some(drawn);
        } else {
            nets.extend_from_slice(&drawn);
        }
    }
    NetworkSet {
        name: owned(&document.name),
        namespace,
        labels,
        nets: shared.unwrap_or_else(|| nets.into()),
        place: reporter.place(document.name.span),
    }
}

fn owned(text: &Text<'_>) -> String {
    text.value.text.clone().into_owned()
}

#[cfg(test)]
mod tests {
    use crate::policy::{Source, check};

    fn checked(text: &str) -> crate::policy::Checked {
        check(&[
            Source::new("dir/p.yaml", text),
            Source::list("dir/l.txt", "192.0.2.7\n2001:db8::/32\n"),
        ])
    }

    #[test]
    fn all_of_it_arrives_in_the_model() {
        let text = "- apiVersion: projectcalico.org/v3\n  kind: GlobalNetworkSet\n  metadata: \
                    {name: a.b, labels: {x: y}, annotations: {other: '', nodewall.io/nets-from: \
                    l.txt}}\n  spec: {nets: [10.0.0.0/8, '::1', 10.0.0.0/8]}\n\
                    - apiVersion: crd.projectcalico.org/v1\n  kind: NetworkSet\n  metadata: \
                    {name: a.b, namespace: n}\n  spec: {}\n\
                    - apiVersion: projectcalico.org/v3\n  kind: NetworkSet\n  metadata: {name: \
                    c}\n  spec: {nets: []}\n";
        let checked = checked(text);
        assert_eq!(checked.diagnostics, []);
        let model = checked.model.expect("no errors");
        let sets = model.sets().iter().map(|set| {
            let nets: Vec<_> = set.nets.iter().map(ToString::to_string).collect();
            let labels = set
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            (
                &*set.name,
                set.namespace.as_deref(),
                labels.collect::<Vec<_>>().join(" "),
                nets.join(" "),
            )
        });
        let of = |namespace: &str| {
            format!(
                "pcns.kubernetes.io/metadata.name={namespace} \
                 pcns.projectcalico.org/name={namespace} projectcalico.org/namespace={namespace}"
            )
        };
        assert_eq!(
            sets.collect::<Vec<_>>(),
            [
                (
                    "a.b",
                    None,
                    "x=y".into(),
                    "10.0.0.0/8 ::1/128 10.0.0.0/8 192.0.2.7/32 2001:db8::/32".into()
                ),
                ("a.b", Some("n"), of("n"), String::new()),
                ("c", Some("default"), of("default"), String::new()),
            ]
        );
    }

    #[test]
    fn names_are_unique_within_a_namespace() {
        let set = |kind: &str, namespace: &str| {
            format!(
                "- apiVersion: projectcalico.org/v3\n  kind: {kind}\n  metadata: {{name: \
                 a{namespace}}}\n  spec: {{}}\n"
            )
        };
        let (of_all, of_n) = (
            set("GlobalNetworkSet", ""),
            set("NetworkSet", ", namespace: n"),
        );
        let of_default = set("NetworkSet", "");
        let errors = |texts: &[&String]| {
            let texts: String = texts.iter().map(|text| text.as_str()).collect();
            checked(&texts).diagnostics.len()
        };
        assert_eq!(errors(&[&of_all, &of_n, &of_default]), 0);
        assert_eq!(errors(&[&of_all, &of_n, &of_all]), 1);
        assert_eq!(errors(&[&of_n, &of_n]), 1);
        let named = set("NetworkSet", ", namespace: default");
        assert_eq!(errors(&[&of_default, &named]), 1);
    }
}
