//! Kubernetes `NetworkPolicy`s → model.

use std::sync::Arc;

use super::cidr;
use crate::policy::diagnostic::{Code, Diagnostic, Reporter, quote};
use crate::policy::documents::kubernetes::{
    BlockDocument, KubernetesDocument, PeerDocument, PortDocument, RuleDocument, RulesDocument,
};
use crate::policy::model::{
    Criteria, DEFAULT_TIER, Kind, Peer, Policy, Port, Rule, Selects, Types,
};
use crate::policy::schema::{Path, Text};
use crate::policy::source::Span;
use crate::policy::values;
use crate::ruleset::{Action, PortRange, SourceLine, Stage};

/// Where these policies stand among those of the tier, as Calico has it.
const ORDER: f64 = 1000.0;

/// The protocols with their numbers; the first is meant where none is named.
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

/// Validates a policy. What is illegal is reported.
pub(in crate::policy) fn validate(
    document: &KubernetesDocument<'_>,
    reporter: &mut Reporter<'_>,
) -> Policy {
    let root = super::root(&document.path);
    let metadata = root.field("metadata");
    super::cluster_name(&document.name, &metadata.field("name"), reporter);
    let namespace = match &document.namespace {
        None => super::DEFAULT_NAMESPACE,
        Some(text) => {
            super::namespace(text, &metadata.field("namespace"), reporter);
            &text.value.text
        }
    };
    let spec = root.field("spec");
    let types = types(document, &spec.field("policyTypes"), reporter);
    let directions = [
        ("ingress", "Ingress", &document.ingress, types.ingress),
        ("egress", "Egress", &document.egress, types.egress),
    ];
    for (field, name, rules, in_force) in directions {
        if let (Some(span), false, false) = (rules.key_span, rules.rules.is_empty(), in_force) {
            let diagnostic = Diagnostic::warning(
                Code::NoEffect,
                format!("the {field} rules are not in force"),
            )
            .field(spec.field(field))
            .label(format!("`policyTypes` does not have `{name}`"))
            .help(format!(
                "add `{name}` to `policyTypes`, or remove the rules"
            ));
            reporter.report(span, diagnostic);
        }
    }
    let rules = |list: &RulesDocument<'_>, direction, reporter: &mut Reporter<'_>| {
        let path = spec.field(match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        });
        let rules = list.rules.iter();
        let rules: Vec<_> = rules
            .map(|document| rule(document, direction, &path.index(document.index), reporter))
            .collect();
        rules
    };
    let ingress = rules(&document.ingress, Direction::Ingress, reporter);
    let egress = rules(&document.egress, Direction::Egress, reporter);
    Policy {
        kind: Kind::KubernetesNetworkPolicy,
        name: Arc::from(format!("{namespace}/{}", document.name.value.text)),
        tier: DEFAULT_TIER.into(),
        stage: Stage::Normal,
        staged: false,
        order: Some(ORDER),
        selects: Selects {
            labels: document.pods.to_selector(),
            namespace: Some(namespace.to_owned()),
            interfaces: Vec::new(),
        },
        apply_on_forward: false,
        types,
        // Rules of a direction that the policy has no word in decide nothing.
        ingress: if types.ingress { ingress } else { Vec::new() },
        egress: if types.egress { egress } else { Vec::new() },
        place: reporter.place(document.name.span),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// Ingress, unless the policy says otherwise; egress too if it has such rules.
fn types(document: &KubernetesDocument<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Types {
    let names = ["Ingress", "Egress"];
    let mut both = false;
    for (index, text) in &document.types.items {
        let found = &*text.value.text;
        if !names.contains(&found) {
            // What was meant isn't known, so no list is called idle.
            both = true;
            let help = match names.iter().find(|name| name.eq_ignore_ascii_case(found)) {
                Some(near) => format!("write `{near}`: this format is strict about case"),
                None => "the types are `Ingress` and `Egress`".into(),
            };
            let path = path.index(*index);
            super::invalid_value(text, "not a type of policy", &help, &path, reporter);
        }
    }
    if document.types.items.is_empty() {
        return Types {
            ingress: true,
            egress: !document.egress.rules.is_empty(),
        };
    }
    let has = |name: &str| {
        let mut items = document.types.items.iter();
        items.any(|(_, text)| text.value.text == name)
    };
    Types {
        ingress: both || has("Ingress"),
        egress: both || has("Egress"),
    }
}

fn rule(
    document: &RuleDocument<'_>,
    direction: Direction,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Rule {
    let peers_path = path.field(match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    });
    let mut sides = Vec::new();
    for peer_document in &document.peers {
        let path = peers_path.index(peer_document.index);
        sides.extend(peer(peer_document, direction, &path, reporter));
    }
    if document.peers.is_empty() {
        sides.push(Peer::default());
    }
    let ports = all_ports(&document.ports, &path.field("ports"), reporter);
    let mut criteria = Vec::with_capacity(sides.len() * ports.len());
    for side in sides {
        for (protocol, ports) in &ports {
            let mut one = Criteria {
                protocol: *protocol,
                ..Criteria::default()
            };
            match direction {
                Direction::Ingress => one.src = side.clone(),
                Direction::Egress => one.dst = side.clone(),
            }
            one.dst.ports.clone_from(ports);
            criteria.push(one);
        }
    }
    let place = reporter.place(document.start);
    Rule {
        action: Action::Allow,
        criteria,
        order: None,
        source: SourceLine {
            file: place.file,
            line: place.start.line,
            column: place.start.column,
        },
    }
}

/// The addresses of a peer. `None`: none are known, so it matches nothing; or
/// it is illegal.
fn peer(
    document: &PeerDocument<'_>,
    direction: Direction,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Peer> {
    let nets = document
        .block
        .as_ref()
        .and_then(|block| addresses(block, &path.field("ipBlock"), reporter));
    match (document.block_span, document.selector_span) {
        (None, None) => {
            let diagnostic = Diagnostic::error(Code::MissingField, "a peer needs `ipBlock`")
                .field(path)
                .label("names nobody")
                .help(format!(
                    "name a network (`ipBlock: {{cidr: 192.0.2.0/24}}`), or remove `{}` to allow \
                     everybody",
                    match direction {
                        Direction::Ingress => "from",
                        Direction::Egress => "to",
                    }
                ));
            reporter.report(document.start, diagnostic);
            None
        }
        (Some(block), Some(span)) => {
            let diagnostic = Diagnostic::error(
                Code::InvalidValue,
                "`ipBlock` can't be combined with selectors",
            )
            .field(path)
            .label("a peer has either")
            .related(reporter.place(block), "the other one")
            .help("make two peers of it: a `-` before each");
            reporter.report(span, diagnostic);
            None
        }
        (None, Some(_)) => {
            let diagnostic = Diagnostic::warning(
                Code::UnresolvablePeer,
                "the addresses of this peer can't be resolved without a cluster",
            )
            .field(path)
            .label("matches nothing here")
            .help(
                "packets of these pods are not allowed by it; name their network with `ipBlock` \
                 if they should be",
            );
            reporter.report(document.start, diagnostic);
            None
        }
        (Some(_), None) => nets,
    }
}

fn addresses(
    block: &BlockDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Peer> {
    let outer_text = block.cidr.as_ref()?;
    let outer = net(outer_text, &path.field("cidr"), reporter);
    let except_path = path.field("except");
    let mut not_nets = Vec::with_capacity(block.except.items.len());
    for (index, text) in &block.except.items {
        let path = except_path.index(*index);
        let Some(inner) = net(text, &path, reporter) else {
            continue;
        };
        if let Some(outer) = outer.filter(|outer| !outer.contains(&inner) || *outer == inner) {
            let label = if outer == inner {
                "nothing would be left"
            } else {
                "outside of it"
            };
            let message = format!("`{inner}` is not a part of the cidr `{outer}`");
            let diagnostic = Diagnostic::error(Code::InvalidValue, message)
                .field(path)
                .label(label)
                .related(reporter.place(outer_text.span), "the cidr")
                .help("except what lies inside of `cidr`, and is smaller");
            reporter.report(text.span, diagnostic);
        }
        not_nets.push(inner);
    }
    Some(Peer {
        nets: vec![outer?],
        not_nets,
        ..Peer::default()
    })
}

/// A CIDR. A cluster takes one with bits behind its prefix and warns, and so
/// is done here.
fn net(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<ipnet::IpNet> {
    let found = cidr::parse(&text.value.text);
    let (net, host_bits) = super::refused(found, text.span, path, reporter)?;
    if host_bits {
        let message = format!("{} has bits set behind its prefix", quote(&text.value.text));
        let diagnostic = Diagnostic::warning(Code::HostBits, message)
            .field(path)
            .label(format!("is read as `{net}`"))
            .help(format!(
                "write `{net}` for the whole network, or a longer prefix for less"
            ));
        reporter.report(text.span, diagnostic);
    }
    Some(net)
}

/// Protocols, each once, with their ports, where none are all. Without any
/// entry: all protocols.
fn all_ports(
    documents: &[PortDocument<'_>],
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Vec<(Option<u8>, Vec<Port>)> {
    if documents.is_empty() {
        return vec![(None, Vec::new())];
    }
    let mut protocols: Vec<(u8, Vec<Port>, bool)> = Vec::new();
    for document in documents {
        let path = path.index(document.index);
        let number = protocol(
            document.protocol.as_ref(),
            &path.field("protocol"),
            reporter,
        );
        let port = port(document, &path, reporter);
        let (Some(number), Ok(port)) = (number, port) else {
            continue;
        };
        let at = protocols.iter().position(|&(known, ..)| known == number);
        let at = at.unwrap_or_else(|| {
            protocols.push((number, Vec::new(), false));
            protocols.len() - 1
        });
        let (_, ports, all) = &mut protocols[at];
        match port {
            Some(port) => ports.push(port),
            None => *all = true,
        }
    }
    let lists = protocols.into_iter();
    let lists = lists.map(|(number, ports, all)| {
        let ports = if all { Vec::new() } else { ports };
        (Some(number), ports)
    });
    lists.collect()
}

fn protocol(text: Option<&Text<'_>>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<u8> {
    let Some(text) = text else {
        return Some(PROTOCOLS[0].1);
    };
    let found = &*text.value.text;
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == found) {
        return Some(*number);
    }
    let near = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(found));
    let help = match near {
        Some((near, _)) => format!("write `{near}`: this format is strict about case"),
        None => "the protocols are `TCP`, `UDP` and `SCTP`".into(),
    };
    super::invalid_value(text, "not a protocol with ports", &help, path, reporter);
    None
}

/// The ports of an entry; `None` within are all. An error is reported.
fn port(
    document: &PortDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Result<Option<Port>, ()> {
    let end_path = path.field("endPort");
    let needs_port = |span: Span, label: &str, reporter: &mut Reporter<'_>| {
        let diagnostic = Diagnostic::error(Code::InvalidPort, "`endPort` needs a `port` by number")
            .field(end_path)
            .label(label)
            .help("write the first port of the range as a number in `port`");
        reporter.report(span, diagnostic);
        Err(())
    };
    let Some(text) = &document.port else {
        return match &document.end_port {
            Some(end) => needs_port(end.span, "the end of no range", reporter),
            None => Ok(None),
        };
    };
    let path = path.field("port");
    let number_help = "ports are numbers from 1 to 65535, or names";
    if !text.value.plain || values::decimal(&text.value.text).is_none() {
        name(text, &path, reporter)?;
        return match &document.end_port {
            Some(_) => needs_port(text.span, "a range can't begin with a name", reporter),
            None => Ok(Some(Port::Named(text.value.text.clone().into_owned()))),
        };
    }
    let number = |text: &Text<'_>, help: &str, path: &Path<'_>, reporter: &mut Reporter<'_>| {
        let number = super::number(text, 1, 65535, help, path, reporter).ok_or(())?;
        u16::try_from(number).map_err(|_| ())
    };
    let first = number(text, number_help, &path, reporter)?;
    let last = match &document.end_port {
        None => first,
        Some(end) => {
            let last = number(
                end,
                "ports are numbers from 1 to 65535",
                &end_path,
                reporter,
            )?;
            if last < first {
                let message = format!("the range from {first} to {last} ends before it begins");
                let diagnostic = Diagnostic::error(Code::InvalidPort, message)
                    .field(end_path)
                    .label("no port is in this range")
                    .related(reporter.place(text.span), "its first port")
                    .help("`endPort` is the last port, and not below `port`");
                reporter.report(end.span, diagnostic);
                return Err(());
            }
            last
        }
    };
    Ok(Some(Port::Range(PortRange { first, last })))
}

/// A port's name: up to 15 lower-case letters, digits and single hyphens, with
/// a letter among them.
fn name(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Result<(), ()> {
    let name = &*text.value.text;
    let valid = name.len() <= 15
        && values::is_dns_label(name)
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase());
    if valid {
        return Ok(());
    }
    let help = if !text.value.plain && values::decimal(name).is_some() {
        format!("write the number without quotes: `{name}`")
    } else {
        "write a number from 1 to 65535, or a name of up to 15 of the characters a-z, 0-9 and `-`, \
         with a letter"
            .into()
    };
    let message = format!("{} is neither a port nor the name of one", quote(name));
    reporter.report(
        text.span,
        Diagnostic::error(Code::InvalidPort, message)
            .field(path)
            .label("not a port")
            .help(help),
    );
    Err(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Checked, Source, check};

    fn checked(spec: &str) -> Checked {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: \
             {{{spec}}}\n"
        );
        check(&[Source::new("t", text)])
    }

    fn policy(spec: &str) -> Policy {
        let checked = checked(spec);
        assert_eq!(checked.diagnostics, [], "{spec}");
        let model = checked.model.expect("no errors");
        let [policy] = model.policies() else {
            panic!("one policy")
        };
        policy.clone()
    }

    fn net(text: &str) -> ipnet::IpNet {
        text.parse().expect("a network")
    }

    fn range(first: u16, last: u16) -> Port {
        Port::Range(PortRange { first, last })
    }

    #[test]
    fn who_it_is_and_what_it_selects() {
        let policy = policy(
            "podSelector: {matchLabels: {role: edge}, matchExpressions: [{key: x, operator: \
             DoesNotExist}]}",
        );
        assert_eq!(policy.kind(), Kind::KubernetesNetworkPolicy);
        assert_eq!(
            (&**policy.name(), &**policy.tier()),
            ("default/p", DEFAULT_TIER)
        );
        assert_eq!((policy.stage(), policy.staged()), (Stage::Normal, false));
        assert_eq!(policy.order(), Some(1000.0));
        assert!(!policy.apply_on_forward());
        let selects = policy.selects();
        assert_eq!(selects.labels.to_string(), "role == 'edge' && !has(x)");
        assert_eq!(selects.namespace.as_deref(), Some("default"));
        assert!(selects.interfaces.is_empty());
    }

    #[test]
    fn types_have_their_defaults() {
        for (spec, ingress, egress) in [
            ("", true, false),
            (", policyTypes: []", true, false),
            (", egress: []", true, false),
            (", egress: [{}]", true, true),
            (", policyTypes: [Ingress]", true, false),
            (", policyTypes: [Egress], egress: [{}]", false, true),
            (", policyTypes: [Ingress, Egress]", true, true),
            (", policyTypes: [Ingress], egress: []", true, false),
        ] {
            let policy = policy(&format!("podSelector: {{}}{spec}"));
            assert_eq!(policy.types(), Types { ingress, egress }, "{spec}");
        }
        let idle = checked("podSelector: {}, policyTypes: [Ingress], egress: [{}]");
        assert_eq!(idle.diagnostics.len(), 1);
        assert_eq!(
            idle.diagnostics[0].message,
            "the egress rules are not in force"
        );
        let model = idle.model.expect("a warning only");
        assert!(model.policies()[0].egress().is_empty());
    }

    #[test]
    fn rules_arrive_exactly() {
        let side = |nets: &[&str], not_nets: &[&str], ports: Vec<Port>| Peer {
            nets: nets.iter().map(|text| net(text)).collect(),
            not_nets: not_nets.iter().map(|text| net(text)).collect(),
            ports,
            ..Peer::default()
        };
        let to = |protocol, ports| Criteria {
            protocol,
            dst: side(&[], &[], ports),
            ..Criteria::default()
        };
        let from = |nets: &[&str], not_nets: &[&str], criteria: Criteria| Criteria {
            src: side(nets, not_nets, Vec::new()),
            ..criteria
        };
        for (rule, expected) in [
            ("", vec![Criteria::default()]),
            ("from: [], ports: []", vec![Criteria::default()]),
            (
                "ports: [{port: 80}]",
                vec![to(Some(6), vec![range(80, 80)])],
            ),
            ("ports: [{}]", vec![to(Some(6), vec![])]),
            // All ports of a protocol, and one of them, are all of them.
            (
                "ports: [{protocol: UDP, port: 53}, {protocol: UDP}]",
                vec![to(Some(17), vec![])],
            ),
            (
                "ports: [{protocol: TCP, port: 80, endPort: 80}, {protocol: SCTP, port: 1, \
                 endPort: 65535}, {port: http-alt}]",
                vec![
                    to(Some(6), vec![range(80, 80), Port::Named("http-alt".into())]),
                    to(Some(132), vec![range(1, 65535)]),
                ],
            ),
            (
                "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.3.4/32]}}, \
                 {ipBlock: {cidr: '::/0', except: []}}], ports: [{port: 80}, {protocol: UDP}]",
                vec![
                    from(
                        &["10.0.0.0/8"],
                        &["10.1.0.0/16", "10.2.3.4/32"],
                        to(Some(6), vec![range(80, 80)]),
                    ),
                    from(
                        &["10.0.0.0/8"],
                        &["10.1.0.0/16", "10.2.3.4/32"],
                        to(Some(17), vec![]),
                    ),
                    from(&["::/0"], &[], to(Some(6), vec![range(80, 80)])),
                    from(&["::/0"], &[], to(Some(17), vec![])),
                ],
            ),
        ] {
            let policy = policy(&format!("podSelector: {{}}, ingress: [{{{rule}}}]"));
            let [found] = policy.ingress() else {
                panic!("one rule")
            };
            assert_eq!((found.action, found.order), (Action::Allow, None));
            assert_eq!(found.criteria, expected, "{rule}");
        }
        let policy = policy(
            "podSelector: {}, egress: [{}, {to: [{ipBlock: {cidr: 192.0.2.0/24, except: \
             [192.0.2.128/25]}}], ports: [{protocol: UDP, port: 53}]}]",
        );
        let expected = Criteria {
            protocol: Some(17),
            dst: side(&["192.0.2.0/24"], &["192.0.2.128/25"], vec![range(53, 53)]),
            ..Criteria::default()
        };
        assert!(policy.ingress().is_empty());
        assert_eq!(policy.egress()[0].criteria, [Criteria::default()]);
        assert_eq!(policy.egress()[1].criteria, [expected]);
    }

    /// What can't be resolved is never "all".
    #[test]
    fn unresolvable_peers_match_nothing() {
        for peer in [
            "podSelector: {}",
            "namespaceSelector: {}",
            "podSelector: {matchLabels: {a: b}}, namespaceSelector: {}",
        ] {
            let checked = checked(&format!(
                "podSelector: {{}}, ingress: [{{from: [{{{peer}}}]}}, {{from: [{{{peer}}}, \
                 {{ipBlock: {{cidr: 192.0.2.0/24}}}}]}}], egress: [{{to: [{{{peer}}}]}}]"
            ));
            assert_eq!(checked.diagnostics.len(), 3, "{peer}");
            for diagnostic in &checked.diagnostics {
                assert_eq!(diagnostic.code, Code::UnresolvablePeer);
                assert_eq!(
                    diagnostic.message,
                    "the addresses of this peer can't be resolved without a cluster"
                );
            }
            let model = checked.model.expect("warnings only");
            let policy = &model.policies()[0];
            assert_eq!(policy.ingress()[0].criteria, []);
            assert_eq!(policy.ingress()[1].criteria.len(), 1);
            assert_eq!(
                policy.ingress()[1].criteria[0].src.nets,
                [net("192.0.2.0/24")]
            );
            assert_eq!(policy.egress()[0].criteria, []);
        }
    }
}
