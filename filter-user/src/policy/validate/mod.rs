//! Documents → model, one file a format.

pub(super) mod calico;
mod cidr;
pub(super) mod ingress_node_firewall;
pub(super) mod kubernetes;
pub(super) mod network_set;

use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::schema::{Path, Text};
use super::selector::{Labels, is_label};
use super::source::Span;
use super::values::{self, Refusal, decimal};

/// The namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// The path of a document in its file.
fn root(path: &str) -> Path<'_> {
    match path {
        "" => Path::ROOT,
        list_index => Path::ROOT.field(list_index),
    }
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

/// The name of an object of a cluster.
fn cluster_name(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if !values::is_dns_name(&text.value.text) {
        let help = "names have up to 253 of the characters a-z, 0-9, `-` and `.`, and begin and \
                    end with a letter or digit";
        invalid_name(text, help, path, reporter);
    }
}

fn namespace(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if !values::is_dns_label(&text.value.text) {
        let help = "namespaces have names of 1 to 63 of the characters a-z, 0-9 and `-`, and \
                    begin and end with a letter or digit";
        invalid_name(text, help, path, reporter);
    }
}

fn invalid_name(text: &Text<'_>, help: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    let message = format!("{} can't be a name", quote(&text.value.text));
    reporter.report(
        text.span,
        Diagnostic::error(Code::InvalidName, message)
            .field(path)
            .label("not a valid name")
            .help(help),
    );
}

/// A whole number within bounds, written as one.
fn number(
    text: &Text<'_>,
    least: u32,
    most: u32,
    help: &str,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<u32> {
    let number = decimal(&text.value.text).filter(|number| (least..=most).contains(number));
    match number {
        Some(number) if text.value.plain => Some(number),
        Some(number) => {
            let help = format!("write `{number}` without quotes");
            invalid_value(text, "text, where a number belongs", &help, path, reporter);
            None
        }
        None => {
            invalid_value(text, "not such a number", help, path, reporter);
            None
        }
    }
}

/// The labels of an object, as selectors see them.
fn labels(texts: &[(Text<'_>, Text<'_>)], path: &Path<'_>, reporter: &mut Reporter<'_>) -> Labels {
    let mut labels = Labels::new();
    for (key, value) in texts {
        if !is_label(&key.value.text) {
            let help = "names of labels have 1 to 512 of the characters a-z, A-Z, 0-9, `_`, `.`, \
                        `/` and `-`: selectors can't name others";
            invalid_name(key, help, &path.field(&key.value.text), reporter);
        }
        labels.insert(
            key.value.text.clone().into_owned(),
            value.value.text.clone().into_owned(),
        );
    }
    labels
}

#[cfg(test)]
mod tests {
    use crate::policy::{Source, check};

    /// What a cluster writes into an object is in nobody's way.
    #[test]
    fn exported_objects_are_accepted() {
        let recorded = "creationTimestamp: \"2026-01-02T03:04:05Z\", deletionGracePeriodSeconds: \
                        30, deletionTimestamp: null, finalizers: [a/b], generateName: x-, \
                        generation: 3, managedFields: [{fieldsV1: {f:spec: {}}}], \
                        ownerReferences: [{kind: A, name: a}], resourceVersion: \"1\", selfLink: \
                        /a, uid: x, annotations: {a: b}, labels: {a: b}";
        for (version, kind, spec) in [
            (
                "ingressnodefirewall.openshift.io/v1alpha1",
                "IngressNodeFirewall",
                "interfaces: [eth0], ingress: [{sourceCIDRs: ['::/0'], rules: [{order: 1, action: \
                 Deny}]}]",
            ),
            ("networking.k8s.io/v1", "NetworkPolicy", "podSelector: {}"),
            ("projectcalico.org/v3", "GlobalNetworkSet", ""),
            ("crd.projectcalico.org/v1", "NetworkSet", "nets: []"),
        ] {
            let text = format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, {recorded}}}\nspec: \
                 {{{spec}}}\nstatus: {{syncStatus: Synchronized}}\n"
            );
            let checked = check(&[Source::new("t", text.as_str())]);
            assert_eq!(checked.diagnostics, [], "{kind}");
            let misspelt = text.replace("resourceVersion", "resourceversion");
            let checked = check(&[Source::new("t", misspelt)]);
            assert_eq!(
                checked.diagnostics[0].help.as_deref(),
                Some("did you mean `resourceVersion`?"),
                "{kind}"
            );
        }
    }
}
