//! Model + endpoint → ruleset: which policies apply to an endpoint, in which
//! order, and what happens to the rest.

use std::fmt;
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, Place, quote};
use super::failsafe::FailsafeList;
use super::model::{Criteria, DEFAULT_ALLOW, HostEndpoint, Interface, Model, Policy, Port};
use super::selector::Labels;
use crate::ruleset::{Action, Direction, Match, Options, Rule, RuleId, Ruleset, Stage};

/// One interface to filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name: that of its document, or the interface's. Of an endpoint for
    /// all interfaces there is one for each, named `name/interface`.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// What selectors see of it.
    pub labels: Labels,
    /// Whether what no policy decides passes.
    pub default_allow: bool,
    /// Who says that there is such an endpoint.
    pub origin: Origin,
}

/// Where an endpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A document, at this place.
    Document(Place),
    /// The command line.
    CommandLine,
}

impl Endpoint {
    /// The endpoint that an interface is without a document: like Calico's
    /// automatic ones, it lets pass what no policy decides.
    #[must_use]
    pub fn from_command_line(interface: impl Into<String>, labels: Labels) -> Self {
        let interface = interface.into();
        Self {
            name: interface.clone(),
            interface,
            labels,
            default_allow: true,
            origin: Origin::CommandLine,
        }
    }

    fn from_document(document: &HostEndpoint, interface: &str) -> Self {
        let name = match document.interface() {
            Some(Interface::Named(_)) | None => document.name().to_owned(),
            Some(Interface::All) => format!("{}/{interface}", document.name()),
        };
        Self {
            name,
            interface: interface.to_owned(),
            labels: document.labels().clone(),
            default_allow: document
                .profiles()
                .iter()
                .any(|profile| profile == DEFAULT_ALLOW),
            origin: Origin::Document(document.place().clone()),
        }
    }
}

/// Why it isn't clear which endpoints are meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a document nor the command line has one.
    #[error(
        "there is no host endpoint to apply the policies to; add a HostEndpoint document, or name \
         an interface with --interface (and the labels that the policies select with --label)"
    )]
    None,
    /// Labels beside documents that have their own.
    #[error(
        "--label does not go together with a host endpoint in a file, which has its own labels; \
         add the labels to the document ({place}), or leave that file out"
    )]
    LabelsWithDocument {
        /// The first endpoint.
        place: String,
    },
    /// Labels without an endpoint that they would belong to.
    #[error("--label needs an endpoint; name its interface with --interface")]
    LabelsWithoutInterface,
    /// An interface that the documents don't have.
    #[error(
        "the files hold no host endpoint for the interface {interface}; they hold {known}; name \
         one of those, or add a HostEndpoint document for {interface}"
    )]
    NotInDocuments {
        /// The interface, in quotes.
        interface: String,
        /// The endpoints there are.
        known: String,
    },
    /// Endpoints of several hosts with the same interface.
    #[error(
        "the files hold several host endpoints for the interface {interface}: {places}; leave \
         those of other hosts out"
    )]
    Ambiguous {
        /// The interface, in quotes.
        interface: String,
        /// Where they are.
        places: String,
    },
    /// An endpoint for all interfaces, and none named.
    #[error(
        "the host endpoint {name} ({place}) stands for all interfaces; name the ones to filter \
         with --interface"
    )]
    NeedsInterfaces {
        /// The endpoint, in quotes.
        name: String,
        /// Where it is.
        place: String,
    },
    /// A name that no interface can have.
    #[error("{0} can't be the name of an interface; `ip link` shows those there are")]
    InvalidInterface(String),
    /// Several endpoints where one is evaluated.
    #[error("there are several host endpoints: {0}; name one with --interface")]
    Several(String),
}

/// The endpoints that documents and command line describe together.
///
/// Where the documents hold none, each interface named on the command line is
/// one. Where they hold some, the command line picks among them; naming none
/// picks all. One for all interfaces stands for those named that have none of
/// their own.
pub fn endpoints_for(
    model: &Model,
    interfaces: &[String],
    labels: &Labels,
) -> Result<Vec<Endpoint>, EndpointError> {
    for name in interfaces {
        let short = (1..=15).contains(&name.len());
        let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if !short || name.contains(bad) || matches!(&**name, "." | "..") {
            return Err(EndpointError::InvalidInterface(quote(name)));
        }
    }
    let documents = model.endpoints();
    if let (Some(first), false) = (documents.first(), labels.is_empty()) {
        return Err(EndpointError::LabelsWithDocument {
            place: first.place().to_string(),
        });
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    if interfaces.is_empty() {
        for document in documents {
            match document.interface() {
                Some(Interface::Named(name)) => {
                    pick(documents, name)?;
                    endpoints.push(Endpoint::from_document(document, name));
                }
                Some(Interface::All) | None => {
                    return Err(EndpointError::NeedsInterfaces {
                        name: quote(document.name()),
                        place: document.place().to_string(),
                    });
                }
            }
        }
    }
    for name in interfaces {
        if endpoints.iter().any(|endpoint| endpoint.interface == *name) {
            continue;
        }
        endpoints.push(if documents.is_empty() {
            Endpoint::from_command_line(name, labels.clone())
        } else {
            Endpoint::from_document(pick(documents, name)?, name)
        });
    }
    match (endpoints.is_empty(), labels.is_empty()) {
        (false, _) => Ok(endpoints),
        (true, true) => Err(EndpointError::None),
        (true, false) => Err(EndpointError::LabelsWithoutInterface),
    }
}

/// The document for an interface: its own, or one for all.
fn pick<'m>(
    documents: &'m [HostEndpoint],
    interface: &str,
) -> Result<&'m HostEndpoint, EndpointError> {
    let of = |wanted: Interface| -> Vec<&HostEndpoint> {
        documents
            .iter()
            .filter(|document| document.interface() == Some(&wanted))
            .collect()
    };
    let mut found = of(Interface::Named(interface.to_owned()));
    if found.is_empty() {
        found = of(Interface::All);
    }
    match found.as_slice() {
        [] => Err(EndpointError::NotInDocuments {
            interface: quote(interface),
            known: enumerate(documents.iter().map(|document| match document.interface() {
                Some(Interface::Named(name)) => quote(name),
                Some(Interface::All) | None => quote("*"),
            })),
        }),
        [one] => Ok(one),
        several => Err(EndpointError::Ambiguous {
            interface: quote(interface),
            places: enumerate(several.iter().map(|document| document.place().to_string())),
        }),
    }
}

/// The one endpoint that `explain`, `replay` and `bench` evaluate.
pub fn only_endpoint(endpoints: Vec<Endpoint>) -> Result<Endpoint, EndpointError> {
    match <[Endpoint; 1]>::try_from(endpoints) {
        Ok([one]) => Ok(one),
        Err(endpoints) if endpoints.is_empty() => Err(EndpointError::None),
        Err(endpoints) => Err(EndpointError::Several(enumerate(
            endpoints.iter().map(|endpoint| quote(&endpoint.interface)),
        ))),
    }
}

fn enumerate(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

/// What a ruleset has beside its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectOptions {
    /// The ports that stay open.
    pub failsafe: FailsafeList,
    /// How packets are treated that rules don't decide.
    pub options: Options,
}

/// What is in force on one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The rules.
    pub ruleset: Ruleset,
    /// The policies they come from, in evaluation order; also those without
    /// rules. Empty: no policy applies to this endpoint.
    pub selected_policies: Vec<Arc<str>>,
    /// What is probably not intended.
    pub warnings: Vec<Diagnostic>,
}

/// The name that failsafe rules have as their policy.
pub const FAILSAFE: &str = "failsafe";

/// Lowers the policies that select an endpoint into one ordered list of rules.
///
/// Of packets that no rule decides, those at an endpoint with normal policies
/// are denied; without, the endpoint's profile decides. (`preDNAT` policies
/// have no default.)
#[must_use]
pub fn select(model: &Model, endpoint: &Endpoint, options: &SelectOptions) -> Selected {
    let selected: Vec<&Policy> = model
        .policies()
        .iter()
        .filter(|policy| policy.selects().labels.matches(&endpoint.labels))
        .collect();
    let normal = selected
        .iter()
        .any(|policy| policy.stage() == Stage::Normal);
    let default = if endpoint.default_allow && !normal {
        Action::Allow
    } else {
        Action::Deny
    };

    let mut rules = failsafe_rules(&options.failsafe);
    for policy in &selected {
        let id = |index| rule_id(policy.stage(), policy.name(), index);
        rules.extend(policy.ingress().iter().zip(0..).map(|(rule, index)| Rule {
            id: id(index),
            tier: Some(Arc::clone(policy.tier())),
            action: rule.action,
            staged: false,
            matches: rule.criteria.iter().map(lower).collect(),
            source: Some(rule.source.clone()),
        }));
    }

    let opens = rules
        .iter()
        .any(|rule| rule.action == Action::Allow && rule.id.stage != Stage::Failsafe);
    let mut warnings = Vec::new();
    if default == Action::Deny && !opens {
        warnings.extend(denies_everything(endpoint, normal, &options.failsafe));
    }
    Selected {
        ruleset: Ruleset {
            endpoint: endpoint.name.clone(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules,
            default,
            options: options.options.clone(),
        },
        selected_policies: selected
            .iter()
            .map(|policy| Arc::clone(policy.name()))
            .collect(),
        warnings,
    }
}

fn lower(criteria: &Criteria) -> Match {
    Match {
        family: criteria.family,
        protocol: criteria.protocol,
        src: criteria.src.nets.clone().into(),
        dst: criteria.dst.nets.clone().into(),
        dst_ports: criteria
            .dst
            .ports
            .iter()
            .filter_map(|port| match port {
                Port::Range(range) => Some(*range),
                Port::Named(_) => None,
            })
            .collect(),
        ..Match::default()
    }
}

fn failsafe_rules(list: &FailsafeList) -> Vec<Rule> {
    let policy = Arc::from(FAILSAFE);
    let ports = list.ports().iter().zip(0..);
    ports
        .map(|(port, index)| Rule {
            id: rule_id(Stage::Failsafe, &policy, index),
            tier: None,
            action: Action::Allow,
            staged: false,
            matches: vec![port.to_match()],
            source: None,
        })
        .collect()
}

fn rule_id(stage: Stage, policy: &Arc<str>, index: u32) -> RuleId {
    RuleId {
        stage,
        policy: Arc::clone(policy),
        direction: Direction::Ingress,
        index: Some(index),
    }
}

/// Calico's default for host endpoints is to deny, which surprises those who
/// come from its automatic ones.
fn denies_everything(
    endpoint: &Endpoint,
    normal: bool,
    failsafe: &FailsafeList,
) -> Option<Diagnostic> {
    let Origin::Document(place) = &endpoint.origin else {
        // Only policies that its author wrote for it can have denied it all.
        return None;
    };
    let rest = if failsafe.ports().is_empty() {
        String::new()
    } else {
        format!(" but the failsafe ports ({failsafe})")
    };
    let message = format!(
        "the host endpoint {} would deny everything{rest}",
        quote(&endpoint.name)
    );
    let (label, help) = if normal {
        (
            "no rule allows anything here, and normal policies deny the rest",
            "add a policy that allows what this host serves",
        )
    } else {
        (
            "has no profile, so what no policy decides is denied",
            "add `profiles: [projectcalico-default-allow]` to its spec to let the rest pass, or a \
             policy that allows what this host serves",
        )
    };
    Some(
        Diagnostic::warning(Code::DeniesEverything, message)
            .at(place.clone())
            .label(label)
            .help(help),
    )
}

/// A warning for each policy that applies to none of the endpoints.
#[must_use]
pub fn unselected(model: &Model, endpoints: &[Endpoint]) -> Vec<Diagnostic> {
    let idle = model.policies().iter().filter(|policy| {
        let selects = |endpoint: &Endpoint| policy.selects().labels.matches(&endpoint.labels);
        !endpoints.iter().any(selects)
    });
    idle.map(|policy| {
        Diagnostic::warning(
            Code::SelectsNothing,
            format!("the policy {} selects no endpoint", quote(policy.name())),
        )
        .at(policy.place().clone())
        .label(format!("selects {}", policy.selects().labels))
        .help(format!(
            "none of its rules would be in force; there is {}",
            enumerate(endpoints.iter().map(describe))
        ))
    })
    .collect()
}

fn describe(endpoint: &Endpoint) -> String {
    if endpoint.labels.is_empty() {
        return format!("{} without labels", quote(&endpoint.name));
    }
    let labels = endpoint.labels.iter();
    let labels = enumerate(labels.map(|(name, value)| format!("{name}={value}")));
    format!("{} with {}", quote(&endpoint.name), quote(&labels))
}

#[cfg(test)]
mod tests {
    use super::super::{Source, check};
    use super::*;

    fn model(text: &str) -> Model {
        let checked = check(&[Source::new("t", text)]);
        checked
            .model
            .unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
    }

    fn policy(name: &str, spec: &str) -> String {
        format!(
            "- {{apiVersion: v1, kind: policy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    }

    fn endpoint(name: &str, interface: &str, more: &str) -> String {
        format!(
            "- {{apiVersion: projectcalico.org/v3, kind: HostEndpoint, \
             metadata: {{name: {name}, labels: {{role: {name}}}}}, \
             spec: {{node: n, interfaceName: {interface}{more}}}}}\n"
        )
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn none() -> SelectOptions {
        SelectOptions {
            failsafe: FailsafeList::NONE,
            options: Options::default(),
        }
    }

    #[test]
    fn stages_come_in_calicos_order() {
        let model = model(
            &[
                policy(
                    "normal",
                    "order: 1, ingress: [{action: allow}, {action: deny}]",
                ),
                policy(
                    "early",
                    "order: 9, preDNAT: true, ingress: [{action: deny}]",
                ),
                policy("others", "selector: has(x), ingress: [{action: deny}]"),
            ]
            .concat(),
        );
        let endpoint = Endpoint::from_command_line("eth0", Labels::new());
        let selected = select(&model, &endpoint, &SelectOptions::default());
        let rules = &selected.ruleset.rules;
        let failsafe = FailsafeList::default().ports().len();
        assert!(rules[..failsafe].iter().all(|rule| {
            rule.id.stage == Stage::Failsafe
                && &*rule.id.policy == FAILSAFE
                && rule.action == Action::Allow
                && rule.source.is_none()
        }));
        let ids: Vec<_> = rules[failsafe..]
            .iter()
            .map(|rule| (rule.id.stage, &*rule.id.policy, rule.id.index))
            .collect();
        assert_eq!(
            ids,
            [
                (Stage::PreDnat, "early", Some(0)),
                (Stage::Normal, "normal", Some(0)),
                (Stage::Normal, "normal", Some(1)),
            ]
        );
        let names: Vec<_> = selected
            .selected_policies
            .iter()
            .map(|name| &**name)
            .collect();
        assert_eq!(names, ["early", "normal"]);
        assert_eq!(selected.ruleset.endpoint, "eth0");
        assert_eq!(selected.ruleset.direction, Direction::Ingress);
    }

    #[test]
    fn the_default_follows_stage_and_profile() {
        let pre_dnat = policy(
            "p",
            "preDNAT: true, ingress: [{action: allow, protocol: tcp}]",
        );
        let normal = policy("n", "ingress: [{action: allow, protocol: tcp}]");
        let empty = policy("e", "ingress: []");
        let elsewhere = policy("x", "selector: has(x), ingress: [{action: deny}]");
        for (policies, with_profile, without) in [
            (String::new(), Action::Allow, Action::Deny),
            (elsewhere, Action::Allow, Action::Deny),
            (pre_dnat.clone(), Action::Allow, Action::Deny),
            (normal.clone(), Action::Deny, Action::Deny),
            // A policy without rules selects all the same.
            (empty, Action::Deny, Action::Deny),
            (pre_dnat + &normal, Action::Deny, Action::Deny),
        ] {
            for (profile, expected) in [
                (", profiles: [projectcalico-default-allow]", with_profile),
                (", profiles: []", without),
                ("", without),
            ] {
                let text = format!("{}{policies}", endpoint("e", "eth0", profile));
                let model = model(&text);
                let endpoints = endpoints_for(&model, &[], &Labels::new()).expect("one");
                let selected = select(&model, &endpoints[0], &none());
                assert_eq!(selected.ruleset.default, expected, "{text}");
            }
        }
        let model = Model::default();
        let automatic = Endpoint::from_command_line("eth0", Labels::new());
        assert_eq!(
            select(&model, &automatic, &none()).ruleset.default,
            Action::Allow
        );
    }

    #[test]
    fn warns_where_nothing_would_pass() {
        let warnings = |policies: &str, profile: &str| {
            let model = model(&format!("{}{policies}", endpoint("e", "eth0", profile)));
            let endpoints = endpoints_for(&model, &[], &Labels::new()).expect("one");
            select(&model, &endpoints[0], &none()).warnings.len()
        };
        let profile = ", profiles: [projectcalico-default-allow]";
        assert_eq!(warnings("", ""), 1);
        assert_eq!(warnings("", profile), 0);
        assert_eq!(
            warnings(&policy("p", "ingress: [{action: deny}]"), profile),
            1
        );
        assert_eq!(warnings(&policy("p", "ingress: [{action: allow}]"), ""), 0);
        // From the command line somebody asked for just that.
        let model = model(&policy("p", "ingress: [{action: deny}]"));
        let endpoint = Endpoint::from_command_line("eth0", Labels::new());
        assert!(select(&model, &endpoint, &none()).warnings.is_empty());
    }

    #[test]
    fn names_policies_that_select_nothing() {
        let model = model(
            &[
                policy("a", "selector: role == 'x', ingress: []"),
                policy("b", "selector: role == 'y', ingress: []"),
                policy("c", "selector: role == 'z', ingress: []"),
            ]
            .concat(),
        );
        let on = |role| Endpoint::from_command_line("eth0", labels(&[("role", role)]));
        let found = unselected(&model, &[on("x"), on("z")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "the policy `b` selects no endpoint");
        assert_eq!(found[0].code, Code::SelectsNothing);
    }

    /// Which endpoints there are, as `name interface`, or the error.
    fn resolve(documents: &str, interfaces: &[&str], with: &Labels) -> Result<Vec<String>, String> {
        let model = if documents.is_empty() {
            Model::default()
        } else {
            model(documents)
        };
        let interfaces: Vec<_> = interfaces.iter().map(|&name| name.to_owned()).collect();
        endpoints_for(&model, &interfaces, with)
            .map(|endpoints| {
                let shown = endpoints
                    .iter()
                    .map(|e| format!("{} {}", e.name, e.interface));
                shown.collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_stands_for_missing_documents() {
        let role = labels(&[("role", "x")]);
        assert_eq!(
            resolve("", &["eth0", "eth1", "eth0"], &role),
            Ok(vec!["eth0 eth0".to_owned(), "eth1 eth1".to_owned()])
        );
        assert!(
            resolve("", &[], &Labels::new())
                .unwrap_err()
                .contains("--interface")
        );
        assert!(resolve("", &[], &role).unwrap_err().contains("--interface"));
        for bad in ["", "..", "a/b", "a b", "a234567890123456"] {
            assert!(
                resolve("", &[bad], &role)
                    .unwrap_err()
                    .contains("name of an interface")
            );
        }
    }

    #[test]
    fn the_command_line_picks_among_documents() {
        let two = endpoint("a", "eth0", "") + &endpoint("b", "eth1", "");
        let no_labels = Labels::new();
        let all = vec!["a eth0".to_owned(), "b eth1".to_owned()];
        assert_eq!(resolve(&two, &[], &no_labels), Ok(all));
        assert_eq!(
            resolve(&two, &["eth1"], &no_labels),
            Ok(vec!["b eth1".to_owned()])
        );
        let error = resolve(&two, &["eth2"], &no_labels).unwrap_err();
        assert!(error.contains("`eth0`, `eth1`"), "{error}");
        let error = resolve(&two, &["eth0"], &labels(&[("x", "y")])).unwrap_err();
        assert!(
            error.contains("--label") && error.contains("t:1:"),
            "{error}"
        );

        let for_all = endpoint("all", "'*'", "");
        assert!(
            resolve(&for_all, &[], &no_labels)
                .unwrap_err()
                .contains("--interface")
        );
        let both = for_all + &endpoint("b", "eth1", "");
        assert_eq!(
            resolve(&both, &["eth0", "eth1"], &no_labels),
            Ok(vec!["all/eth0 eth0".to_owned(), "b eth1".to_owned()])
        );

        let hosts =
            endpoint("a", "eth0", "") + &endpoint("b", "eth0", "").replace("node: n", "node: m");
        let error = resolve(&hosts, &["eth0"], &no_labels).unwrap_err();
        assert!(error.contains("several"), "{error}");
        assert!(
            resolve(&hosts, &[], &no_labels)
                .unwrap_err()
                .contains("several")
        );
    }

    #[test]
    fn one_endpoint_is_evaluated() {
        let on = |name: &str| Endpoint::from_command_line(name, Labels::new());
        assert_eq!(only_endpoint(vec![on("eth0")]), Ok(on("eth0")));
        assert_eq!(only_endpoint(vec![]), Err(EndpointError::None));
        let error = only_endpoint(vec![on("eth0"), on("eth1")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`eth0`, `eth1`"), "{error}");
    }
}
