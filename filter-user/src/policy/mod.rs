//! Policy documents → model → ruleset.
//!
//! Data flows one way: [`source`] (text) → [`yaml`] (tree with places) →
//! documents (fields as written) → [`model`] (validated) → [`mod@select`]
//! (ruleset of one endpoint). Nothing of a document is ignored: what this
//! version can't honour is an error with its place, and all errors are
//! collected. No aya, no unsafe.

pub mod diagnostic;
mod documents;
pub mod endpoints;
pub mod failsafe;
pub mod json_schema;
mod label_selector;
pub mod list;
mod lower;
pub mod model;
pub mod print;
mod schema;
pub mod select;
pub mod selector;
pub mod source;
mod validate;
mod values;
pub mod yaml;

pub use diagnostic::{Code, Diagnostic, Severity};
pub use endpoints::{Endpoint, EndpointError, Host, endpoints_for, only_endpoint};
pub use failsafe::FailsafeList;
pub use model::{DEFAULT_ALLOW, DEFAULT_TIER, Model, Policy};
pub use select::{Failsafe, PROFILE_PREFIX, SelectOptions, Selected, select, unselected};
pub use selector::Labels;
pub use source::{LoadError, Source, Span, load};

use diagnostic::Reporter;

/// The outcome of a check.
#[derive(Debug)]
pub struct Checked {
    /// The policies and endpoints; `None` if there were errors.
    pub model: Option<Model>,
    /// Errors and warnings, in the order of the sources and their lines.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and validates all documents of the sources.
#[must_use]
pub fn check(sources: &[Source]) -> Checked {
    let mut reporter = Reporter::new(sources);
    let mut documents = Vec::new();
    for (file, source) in (0..).zip(sources) {
        let Some(what) = source.what_is_open() else {
            continue;
        };
        reporter.report(
            Span::start_of(file),
            Diagnostic::warning(
                Code::OpenToOthers,
                format!("everybody on this machine may change what is filtered: {what}"),
            )
            .help("take that away: `chmod o-w` it"),
        );
    }
    let documents_of = |(_, source): &(u32, &Source)| !source.is_list();
    for (file, source) in (0..).zip(sources).filter(documents_of) {
        let errors_before = reporter.errors();
        let documents_before = documents.len();
        for root in yaml::parse(file, source, &mut reporter) {
            list::refuse_misplaced(&root, &mut reporter);
            documents.extend(documents::read(&root, &mut reporter));
        }
        if documents.len() == documents_before && reporter.errors() == errors_before {
            reporter.report(
                Span::start_of(file),
                Diagnostic::warning(Code::EmptyFile, "the file holds no document")
                    .help("check that it is the right file, and that it was saved"),
            );
        }
    }
    let model = model::validate(&documents, &mut list::Lists::new(sources), &mut reporter);
    Checked {
        model: (reporter.errors() == 0).then_some(model),
        diagnostics: reporter.finish(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of policies in disorder: most of it wrong, some of it deeply.
    fn any_documents() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "name",
            "labels",
            "spec",
            "order",
            "selector",
            "preDNAT",
            "ingress",
            "egress",
            "action",
            "protocol",
            "ipVersion",
            "source",
            "destination",
            "nets",
            "ports",
            "notNets",
            "interfaceName",
            "node",
            "profiles",
            "types",
            "items",
            "applyOnForward",
            "doNotTrack",
            "tier",
            "defaultAction",
            "stagedAction",
            "performanceHints",
            "namespace",
            "namespaceSelector",
            "serviceAccountSelector",
            "notSelector",
            "notProtocol",
            "notICMP",
            "type",
            "code",
            "notPorts",
            "net",
            "notNet",
            "tag",
            "tags",
            "http",
            "services",
            "expectedIPs",
            "labelsToApply",
            "sourceCIDRs",
            "rules",
            "interfaces",
            "nodeSelector",
            "protocolConfig",
            "icmp",
            "icmpType",
            "podSelector",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "from",
            "to",
            "ipBlock",
            "cidr",
            "except",
            "port",
            "endPort",
            "annotations",
            "nodewall.io/nets-from",
            "x",
        ]);
        let value = prop::sample::select(vec![
            "",
            "v1",
            "policy",
            "hostEndpoint",
            "projectcalico.org/v3",
            "GlobalNetworkPolicy",
            "HostEndpoint",
            "GlobalNetworkSet",
            "StagedGlobalNetworkPolicy",
            "Profile",
            "Tier",
            "Pass",
            "global()",
            "[web]",
            "default.p",
            "[{type: 8, code: 0}]",
            "[{action: Log}, {action: pass, protocol: 132}]",
            "[{name: web, protocol: TCP, port: 80}]",
            "['2001:db8::1', 192.0.2.1]",
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "List",
            "In",
            "DoesNotExist",
            "a'b",
            "ICMP",
            "10.1.0.0/16",
            "80-100",
            "[lo, eth0]",
            "[{}]",
            "[{ipBlock: {cidr: 10.0.0.0/8, except: ['::/0', 10.0.0.0/9]}}, {podSelector: {}}]",
            "[{port: 80, endPort: 79}, {port: http}, {protocol: UDP}]",
            "[{order: 1, action: Deny}, {order: 1, protocolConfig: {protocol: ICMP}}]",
            "5",
            "true",
            "tcp",
            "TCP",
            "allow",
            "Deny",
            "[10.0.0.0/8]",
            "[10.0.0.1/8, '::1']",
            "[80, '1:2', 9:1]",
            "has(x) &&",
            "all()",
            "[]",
            "{}",
            "~",
            "'*'",
            "[ingress]",
            "\"\\u00e9",
            "&a 1",
            "*a",
            "!t",
        ]);
        let line = (0usize..4, any::<bool>(), key, value).prop_map(|(depth, item, key, value)| {
            let dash = if item { "- " } else { "" };
            format!("{}{dash}{key}: {value}\n", "  ".repeat(depth))
        });
        let head = prop::sample::select(vec![
            "",
            "apiVersion: v1\nkind: policy\nmetadata: {name: p}\nspec:\n",
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: p}\nspec:\n",
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n",
            "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: kube-admin}\nspec:\n",
            "apiVersion: crd.projectcalico.org/v1\nkind: StagedGlobalNetworkPolicy\n\
             metadata: {name: p}\nspec:\n ingress:\n - action: Allow\n",
            "apiVersion: v1\nkind: profile\nspec: {}\nmetadata:\n name: p\n",
            "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nspec: {}\nmetadata:\n  name: p\n",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n",
            "apiVersion: ingressnodefirewall.openshift.io/v1alpha1\nkind: IngressNodeFirewall\n\
             metadata: {name: p}\nspec:\n",
        ]);
        (head, prop::collection::vec(line, 0..12))
            .prop_map(|(head, lines)| head.to_owned() + &lines.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_checked_and_explained(
            text in prop_oneof![any_documents(), "\\PC{0,80}"],
            second in any_documents(),
        ) {
            let sources = [Source::new("a", text), Source::new("b", second)];
            let checked = check(&sources);
            let errors = checked
                .diagnostics
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error);
            prop_assert_eq!(checked.model.is_none(), errors);
            let rendered = diagnostic::render(&checked.diagnostics, &sources, true);
            prop_assert_eq!(rendered.is_empty(), checked.diagnostics.is_empty());
        }
    }

    #[test]
    fn a_flood_of_errors_is_counted() {
        let nets = "10.0.0.1/8, ".repeat(5_000);
        let text = format!(
            "apiVersion: v1\nkind: policy\nmetadata: {{name: p}}\n\
             spec: {{ingress: [{{action: deny, source: {{nets: [{nets}]}}}}]}}\n"
        );
        let diagnostics = check(&[Source::new("a", text)]).diagnostics;
        assert_eq!(diagnostics.len(), diagnostic::MAX_KEPT + 1);
        let last = diagnostics.last().expect("one");
        assert_eq!(
            (last.code, &*last.message),
            (Code::MoreErrors, "4000 more findings are not shown")
        );
    }
}
