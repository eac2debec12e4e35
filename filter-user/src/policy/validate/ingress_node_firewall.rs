//! `IngressNodeFirewall`s → model.
//!
//! A rule of the model is one of `ingress[i].rules[j]`, in the order of the
//! document, and keeps its `order`: which network a packet is judged by, and
//! which object's rules come first there, is known only when all those for an
//! endpoint are together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::cidr;
use crate::policy::diagnostic::{Code, Diagnostic, Reporter, quote};
use crate::policy::documents::ingress_node_firewall::{
    IngressDocument, IngressNodeFirewallDocument, MemberDocument, RuleDocument,
};
use crate::policy::lower::ingress_node_firewall::TIER;
use crate::policy::model::{Criteria, Kind, Peer, Policy, Port, Rule, Selects, Types};
use crate::policy::schema::{Path, Text, nearest};
use crate::policy::source::Span;
use crate::policy::values::{self, family, family_name};
use crate::ruleset::{Action, Family, Icmp, PortRange, SourceLine, Stage};

/// How many rules one item may have.
const MAX_RULES: usize = 100;

/// A protocol as this format calls it.
struct Protocol {
    name: &'static str,
    /// The field with its settings.
    member: &'static str,
    number: u8,
    /// The IP version that it belongs to.
    family: Option<Family>,
}

const fn protocol(
    name: &'static str,
    member: &'static str,
    number: u8,
    family: Option<Family>,
) -> Protocol {
    Protocol {
        name,
        member,
        number,
        family,
    }
}

const PROTOCOLS: [Protocol; 5] = [
    protocol("TCP", "tcp", 6, None),
    protocol("UDP", "udp", 17, None),
    protocol("SCTP", "sctp", 132, None),
    protocol("ICMP", "icmp", 1, Some(Family::V4)),
    protocol("ICMPv6", "icmpv6", 58, Some(Family::V6)),
];

/// Validates the objects of this kind, all together, since an order must be
/// unique over them.
pub(in crate::policy) fn validate(
    documents: &[&IngressNodeFirewallDocument<'_>],
    reporter: &mut Reporter<'_>,
) -> Vec<Policy> {
    let mut orders = Orders::new(documents);
    let policies = documents.iter().enumerate();
    policies
        .map(|(index, document)| firewall(document, index, &mut orders, reporter))
        .collect()
}

fn firewall(
    document: &IngressNodeFirewallDocument<'_>,
    this: usize,
    orders: &mut Orders<'_, '_>,
    reporter: &mut Reporter<'_>,
) -> Policy {
    let root = super::root(&document.path);
    super::cluster_name(
        &document.name,
        &root.field("metadata").field("name"),
        reporter,
    );
    let spec = root.field("spec");
    interfaces(document, &spec.field("interfaces"), reporter);
    let ingress_path = spec.field("ingress");
    if let (Some(span), true) = (document.ingress_span, document.ingress.is_empty()) {
        let help = "list what is filtered: items with `sourceCIDRs` and `rules`";
        empty(
            span,
            "`ingress` is an empty list",
            help,
            &ingress_path,
            reporter,
        );
    }
    let mut rules = Vec::new();
    for item in &document.ingress {
        let path = ingress_path.index(item.index);
        let nets = nets(item, &path.field("sourceCIDRs"), reporter);
        let rules_path = path.field("rules");
        if let Some(span) = item.rules_span {
            if item.rules.is_empty() {
                let help =
                    "write a rule with `action: Allow` to let pass all that comes from there";
                empty(
                    span,
                    "`rules` is an empty list",
                    help,
                    &rules_path,
                    reporter,
                );
            } else if item.rules.len() > MAX_RULES {
                let found = item.rules.len();
                let message =
                    format!("an item has at most {MAX_RULES} rules, and this has {found}");
                let diagnostic = Diagnostic::error(Code::TooMany, message)
                    .field(rules_path)
                    .label(format!("{found} rules"))
                    .help("write ranges of ports where several rules differ in their port only");
                reporter.report(span, diagnostic);
            }
        }
        let mut taken = Vec::with_capacity(item.rules.len());
        for document in &item.rules {
            let path = rules_path.index(document.index);
            let (rule, order) = rule(document, &nets, &path, reporter);
            let text = document.order.as_ref();
            taken.extend(order.zip(text).map(|(number, text)| Order {
                number,
                span: text.span,
                rule: document.index,
            }));
            rules.extend(rule);
        }
        orders.claim(this, taken, &nets, &rules_path, reporter);
    }
    let texts = document.interfaces.items.iter();
    let mut interfaces: Vec<String> = Vec::new();
    for name in texts.map(|(_, text)| text.value.text.clone().into_owned()) {
        if !interfaces.contains(&name) {
            interfaces.push(name);
        }
    }
    Policy {
        kind: Kind::IngressNodeFirewall,
        name: Arc::from(&*document.name.value.text),
        tier: TIER.into(),
        stage: Stage::Untracked,
        staged: false,
        order: None,
        selects: Selects {
            labels: document.nodes.to_selector(),
            namespace: None,
            interfaces,
        },
        apply_on_forward: true,
        types: Types {
            ingress: true,
            egress: false,
        },
        ingress: rules,
        egress: Vec::new(),
        place: reporter.place(document.name.span),
    }
}

fn empty(span: Span, message: &str, help: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    reporter.report(
        span,
        Diagnostic::error(Code::MissingField, message)
            .field(path)
            .label("needs at least one item")
            .help(help),
    );
}

fn interfaces(
    document: &IngressNodeFirewallDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let list = &document.interfaces;
    if let (Some(span), true) = (list.key_span, list.items.is_empty()) {
        let help = "name the interfaces to filter: `interfaces: [eth0]`";
        empty(span, "`interfaces` is an empty list", help, path, reporter);
    }
    for (index, text) in &list.items {
        let path = path.index(*index);
        let name = &*text.value.text;
        if name == "lo" {
            let help = "remove it: what the host sends to itself is not filtered";
            super::invalid_value(text, "the loopback interface", help, &path, reporter);
        } else if !values::is_interface_name(name) {
            let help = "interfaces have names of 1 to 15 of the characters a-z, A-Z, 0-9, `_`, \
                        `.` and `-`, as `ip link` shows them";
            super::invalid_value(text, "not an interface", help, &path, reporter);
        }
    }
}

/// The networks of an item, each once, without the bits behind their prefixes.
fn nets(
    item: &IngressDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Vec<(IpNet, Span)> {
    let list = &item.source_cidrs;
    if let (Some(span), true) = (list.key_span, list.items.is_empty()) {
        let help = "name the networks that the rules are for: `sourceCIDRs: [0.0.0.0/0]`";
        empty(span, "`sourceCIDRs` is an empty list", help, path, reporter);
    }
    let mut seen = BTreeSet::new();
    let mut nets = Vec::with_capacity(list.items.len());
    for (index, text) in &list.items {
        let path = path.index(*index);
        let net = cidr::parse(&text.value.text);
        if let Some((net, _)) = super::refused(net, text.span, &path, reporter)
            && seen.insert(net)
        {
            nets.push((net, text.span));
        }
    }
    nets
}

/// The rule, if it is legal, and its order, if that is.
fn rule(
    document: &RuleDocument<'_>,
    nets: &[(IpNet, Span)],
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> (Option<Rule>, Option<u32>) {
    let errors_before = reporter.errors();
    let order = document.order.as_ref().and_then(|text| {
        let help = "orders are whole numbers from 1 up; lower ones come first";
        super::number(text, 1, u32::MAX, help, &path.field("order"), reporter)
    });
    let action = document
        .action
        .as_ref()
        .and_then(|text| action(text, &path.field("action"), reporter));
    let config = path.field("protocolConfig");
    let criteria = protocol_config(document, &config, reporter);
    let (Some(action), Some((asked, criteria)), true) =
        (action, criteria, reporter.errors() == errors_before)
    else {
        return (None, order);
    };
    let place = reporter.place(document.start);
    let of_family = |wanted: Family| -> Option<Criteria> {
        let nets: Vec<_> = nets
            .iter()
            .map(|&(net, _)| net)
            .filter(|net| family(net) == wanted)
            .collect();
        // ICMP of the other IP version matches none of these; but that a packet
        // is judged by one of these networks, and not by a shorter one, stays.
        (!nets.is_empty()).then(|| Criteria {
            family: asked.and_then(|asked| asked.family),
            src: Peer {
                nets,
                ..Peer::default()
            },
            ..criteria.clone()
        })
    };
    let criteria = [Family::V4, Family::V6].into_iter().filter_map(of_family);
    let criteria: Vec<_> = criteria.collect();
    if let (Some(text), Some(asked)) = (&document.protocol, asked) {
        wrong_icmp(text, asked, nets, &config.field("protocol"), reporter);
    }
    let rule = Rule {
        action,
        criteria,
        order,
        source: SourceLine {
            file: place.file,
            line: place.start.line,
            column: place.start.column,
        },
    };
    (Some(rule), order)
}

fn action(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<Action> {
    match &*text.value.text {
        "Allow" => Some(Action::Allow),
        "Deny" => Some(Action::Deny),
        found => {
            let names = ["Allow", "Deny"];
            let help = match names.iter().find(|name| name.eq_ignore_ascii_case(found)) {
                Some(near) => format!("write `{near}`: this format is strict about case"),
                None => "write `Allow` or `Deny`".into(),
            };
            super::invalid_value(text, "not an action", &help, path, reporter);
            None
        }
    }
}

/// What a rule asks for beside its networks; `None` if that is illegal.
fn protocol_config(
    document: &RuleDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<(Option<&'static Protocol>, Criteria)> {
    let text = document
        .protocol
        .as_ref()
        .filter(|text| !text.value.text.is_empty());
    let Some(text) = text else {
        if let Some(member) = document.members.first() {
            let asked = PROTOCOLS.iter().find(|known| known.member == member.name);
            let name = asked.map_or("", |known| known.name);
            let diagnostic = Diagnostic::error(
                Code::MissingField,
                format!("`{}` needs `protocol: {name}`", member.name),
            )
            .field(path.field("protocol"))
            .label("without a protocol, the rule is for all of them")
            .help(format!("add `protocol: {name}` beside it"));
            reporter.report(member.key_span, diagnostic);
            return None;
        }
        return Some((None, Criteria::default()));
    };
    let found = &*text.value.text;
    let Some(protocol) = PROTOCOLS.iter().find(|known| known.name == found) else {
        let names = || PROTOCOLS.iter().map(|known| known.name);
        let help = match nearest(found, names()) {
            Some(near) if near.eq_ignore_ascii_case(found) => {
                format!("write `{near}`: this format is strict about case")
            }
            _ => format!(
                "the protocols are {}; leave the field out for all",
                crate::policy::schema::list(names())
            ),
        };
        super::invalid_value(
            text,
            "not a protocol",
            &help,
            &path.field("protocol"),
            reporter,
        );
        return None;
    };
    let mut valid = true;
    for other in &document.members {
        if other.name != protocol.member {
            valid = false;
            let message = format!("`{}` does not go with the protocol {found}", other.name);
            let diagnostic = Diagnostic::error(Code::InvalidValue, message)
                .field(path.field(other.name))
                .label("belongs to another protocol")
                .related(reporter.place(text.span), "the protocol of the rule")
                .help(format!("remove it, or write `{}` instead", protocol.member));
            reporter.report(other.key_span, diagnostic);
        }
    }
    let member = document.members.iter().find(|m| m.name == protocol.member);
    let Some(member) = member else {
        if valid {
            let field = protocol.member;
            let (what, one, all) = match protocol.family {
                None => ("its ports", "{ports: 80}", "{ports: \"1-65535\"}"),
                Some(Family::V4) => ("its type and code", "{icmpType: 8, icmpCode: 0}", "{}"),
                Some(Family::V6) => ("its type and code", "{icmpType: 128, icmpCode: 0}", "{}"),
            };
            let help = format!("add `{field}: {one}`, or `{field}: {all}` for all of {found}");
            let diagnostic = Diagnostic::error(
                Code::MissingField,
                format!("the protocol {found} needs `{field}` with {what}"),
            )
            .field(path.field(field))
            .label(format!("`{field}` is missing"))
            .help(help);
            reporter.report(text.span, diagnostic);
        }
        return None;
    };
    let criteria = settings(member, &path.field(member.name), reporter)?;
    valid.then(|| {
        let criteria = Criteria {
            protocol: Some(protocol.number),
            ..criteria
        };
        (Some(protocol), criteria)
    })
}

fn settings(
    member: &MemberDocument<'_>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Criteria> {
    let mut criteria = Criteria::default();
    if !member.name.starts_with("icmp") {
        let text = member.ports.as_ref()?;
        let ports = ports(text, &path.field("ports"), reporter)?;
        criteria.dst.ports.push(Port::Range(ports));
        return Some(criteria);
    }
    let byte = |text: &Text<'_>, field: &'static str, reporter: &mut Reporter<'_>| {
        let help = "types and codes of ICMP are numbers from 0 to 255";
        let number = super::number(text, 0, 255, help, &path.field(field), reporter)?;
        u8::try_from(number).ok()
    };
    match (&member.icmp_type, &member.icmp_code) {
        (None, None) => {}
        (None, Some(code)) => {
            let diagnostic = Diagnostic::error(
                Code::MissingField,
                "`icmpCode` needs `icmpType`: a code has a meaning only within its type",
            )
            .field(path.field("icmpType"))
            .label("a code without a type")
            .help("add `icmpType:` beside it");
            reporter.report(code.span, diagnostic);
            return None;
        }
        (Some(kind), code) => {
            let kind = byte(kind, "icmpType", reporter);
            let code = code.as_ref().map(|code| byte(code, "icmpCode", reporter));
            let code = match code {
                Some(code) => Some(code?),
                None => None,
            };
            criteria.icmp = Some(Icmp { kind: kind?, code });
        }
    }
    Some(criteria)
}

/// `80`, or `"80-100"` with both ends in it.
fn ports(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<PortRange> {
    let written = &*text.value.text;
    let mut refuse = |message: String, label: &str, help: String| {
        reporter.report(
            text.span,
            Diagnostic::error(Code::InvalidPort, message)
                .field(path)
                .label(label)
                .help(help),
        );
        None
    };
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let numbers = (values::decimal(first), values::decimal(last));
    let (Some(first_port), Some(last_port)) = numbers else {
        let help = match written.split_once(':') {
            Some((first, last)) if values::decimal(first).is_some() => {
                format!("ranges are written with a hyphen here: `\"{first}-{last}\"`")
            }
            _ => "write one port (`80`) or a range with both its ends (`\"80-100\"`)".into(),
        };
        let message = format!("{} is not a port or a range of ports", quote(written));
        return refuse(message, "not a number or a range of numbers", help);
    };
    let port = |number: u32| u16::try_from(number).ok().filter(|&port| port != 0);
    let (Some(start), Some(end)) = (port(first_port), port(last_port)) else {
        let message = format!("{} is outside the ports 1 to 65535", quote(written));
        let help = "ports are numbers from 1 to 65535".into();
        return refuse(message, "not a port that a rule can name", help);
    };
    if written.contains('-') && start >= end {
        let message = format!("the range {} must begin below its end", quote(written));
        let help = if start == end {
            format!("write the one port: `{start}`")
        } else {
            format!("did you mean `\"{end}-{start}\"`?")
        };
        return refuse(message, "not a range", help);
    }
    Some(PortRange {
        first: start,
        last: end,
    })
}

/// ICMP exists once for each IP version. For networks of both a rule is about
/// half of them; with those of the other one alone it was surely meant
/// differently.
fn wrong_icmp(
    text: &Text<'_>,
    asked: &Protocol,
    nets: &[(IpNet, Span)],
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let Some(of) = asked.family else {
        return;
    };
    let Some((net, net_span)) = nets.first() else {
        return;
    };
    if nets.iter().any(|(net, _)| family(net) == of) {
        return;
    }
    let message = format!(
        "{} belongs to {}, and `{net}` is {}",
        asked.name,
        family_name(of),
        family_name(family(net))
    );
    reporter.report(
        text.span,
        Diagnostic::warning(Code::IcmpFamily, message)
            .field(path)
            .label("matches none of the packets that were probably meant")
            .related(
                reporter.place(*net_span),
                "a network of the other IP version",
            )
            .help("write the ICMP of the networks' IP version"),
    );
}

/// An order that a rule has.
#[derive(Clone, Copy)]
struct Order {
    number: u32,
    span: Span,
    /// The rule's index in its list.
    rule: usize,
}

/// Which orders are taken: rules that can meet at a packet must differ in it.
struct Orders<'d, 't> {
    documents: &'d [&'d IngressNodeFirewallDocument<'t>],
    /// The items so far, each with the index of its document.
    items: Vec<(usize, Vec<Order>)>,
    /// The items that have rules for a network.
    of_net: HashMap<IpNet, Vec<usize>>,
}

impl<'d, 't> Orders<'d, 't> {
    fn new(documents: &'d [&'d IngressNodeFirewallDocument<'t>]) -> Self {
        Self {
            documents,
            items: Vec::new(),
            of_net: HashMap::new(),
        }
    }

    /// Whether two objects can be in force on one interface of one node.
    fn meet(&self, one: usize, other: usize) -> bool {
        let (a, b) = (self.documents[one], self.documents[other]);
        let shared = |name: &str| {
            let mut others = b.interfaces.items.iter();
            others.any(|(_, text)| text.value.text == name)
        };
        let mut names = a.interfaces.items.iter();
        one == other
            || (!a.nodes.excludes(&b.nodes) && names.any(|(_, text)| shared(&text.value.text)))
    }

    /// Takes the orders of an item, and reports those that are taken. Items may
    /// share thousands of networks: of two items one is named.
    fn claim(
        &mut self,
        document: usize,
        orders: Vec<Order>,
        nets: &[(IpNet, Span)],
        path: &Path<'_>,
        reporter: &mut Reporter<'_>,
    ) {
        let this = self.items.len();
        if let Some((net, _)) = nets.first() {
            for (index, order) in orders.iter().enumerate() {
                report_taken(&orders[..index], *order, net, true, path, reporter);
            }
        }
        let mut compared = BTreeSet::new();
        for (net, _) in nets {
            let sharing = self.of_net.get(net);
            for &other in sharing.into_iter().flatten() {
                let (other_document, taken) = &self.items[other];
                if !compared.insert(other) || !self.meet(*other_document, document) {
                    continue;
                }
                for order in &orders {
                    let same = *other_document == document;
                    report_taken(taken, *order, net, same, path, reporter);
                }
            }
        }
        for (net, _) in nets {
            self.of_net.entry(*net).or_default().push(this);
        }
        self.items.push((document, orders));
    }
}

fn report_taken(
    taken: &[Order],
    claimed: Order,
    net: &IpNet,
    same_document: bool,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    let order = claimed.number;
    let Some(first) = taken.iter().find(|taken| taken.number == order) else {
        return;
    };
    let help = if same_document {
        "give one of them another order"
    } else {
        "give one of them another order; objects for the same interfaces of a node are merged, so \
         orders must differ over all of them"
    };
    let message = format!("two rules for `{net}` have the order {order}");
    let diagnostic = Diagnostic::error(Code::Duplicate, message)
        .field(path.index(claimed.rule).field("order"))
        .label("the second one")
        .related(reporter.place(first.span), "the first one")
        .help(help);
    reporter.report(claimed.span, diagnostic);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Model, Source, check};

    fn model(text: &str) -> Model {
        let checked = check(&[Source::new("t", text)]);
        assert_eq!(checked.diagnostics, []);
        checked.model.expect("no errors")
    }

    fn firewall(name: &str, spec: &str) -> String {
        format!(
            "- apiVersion: ingressnodefirewall.openshift.io/v1alpha1\n  kind: \
             IngressNodeFirewall\n  metadata: {{name: {name}}}\n  spec: {{{spec}}}\n"
        )
    }

    /// The one rule for 192.0.2.0/24 with this `protocolConfig`.
    fn rule(protocol: &str) -> Rule {
        let spec = format!(
            "interfaces: [eth0], ingress: [{{sourceCIDRs: [192.0.2.0/24], rules: [{{order: 1, \
             action: Deny, protocolConfig: {{{protocol}}}}}]}}]"
        );
        let model = model(&firewall("a", &spec));
        let [rule] = model.policies()[0].ingress() else {
            panic!("one rule")
        };
        assert_eq!(rule.action, Action::Deny);
        rule.clone()
    }

    #[test]
    fn all_of_it_arrives_in_the_model() {
        let spec = "interfaces: [eth0, eth1, eth0], nodeSelector: {matchLabels: {role: edge}}, \
                    ingress: [{sourceCIDRs: [10.1.2.3/8, '2001:db8::1/32', 10.0.0.0/8], rules: \
                    [{order: 4294967295, action: Allow}, {order: 1, action: Deny, \
                    protocolConfig: {protocol: ''}}]}, {sourceCIDRs: [0.0.0.0/0], rules: \
                    [{order: 1, action: Allow}]}]";
        let model = model(&firewall("a.b", spec));
        let [policy] = model.policies() else {
            panic!("one policy")
        };
        assert_eq!(policy.kind(), Kind::IngressNodeFirewall);
        assert_eq!((&**policy.name(), &**policy.tier()), ("a.b", TIER));
        assert_eq!(policy.stage(), Stage::Untracked);
        assert_eq!((policy.staged(), policy.order()), (false, None));
        assert!(policy.types().ingress && !policy.types().egress);
        assert!(policy.egress().is_empty());
        let selects = policy.selects();
        assert_eq!(selects.labels.to_string(), "role == 'edge'");
        assert_eq!(selects.namespace, None);
        assert_eq!(selects.interfaces, ["eth0", "eth1"]);
        let rules = policy.ingress().iter().map(|rule| {
            let nets = rule.criteria.iter().map(|criteria| {
                let nets = criteria.src.nets.iter().map(ToString::to_string);
                nets.collect::<Vec<_>>().join(" ")
            });
            let nets: Vec<_> = nets.collect();
            (rule.order, rule.action, nets.join(" | "))
        });
        let (of_first, all) = ("10.0.0.0/8 | 2001:db8::/32", "0.0.0.0/0");
        assert_eq!(
            rules.collect::<Vec<_>>(),
            [
                (Some(u32::MAX), Action::Allow, of_first.into()),
                (Some(1), Action::Deny, of_first.into()),
                (Some(1), Action::Allow, all.into()),
            ]
        );
        let place = &policy.ingress()[2].source;
        assert_eq!((place.line, &*place.file), (4, "t"));
    }

    #[test]
    fn protocols_arrive_exactly() {
        let nets = |criteria: Criteria| Criteria {
            src: Peer {
                nets: vec!["192.0.2.0/24".parse().expect("a network")],
                ..Peer::default()
            },
            ..criteria
        };
        let ports = |protocol, first, last| {
            nets(Criteria {
                protocol: Some(protocol),
                dst: Peer {
                    ports: vec![Port::Range(PortRange { first, last })],
                    ..Peer::default()
                },
                ..Criteria::default()
            })
        };
        let icmp = |icmp| {
            nets(Criteria {
                family: Some(Family::V4),
                protocol: Some(1),
                icmp,
                ..Criteria::default()
            })
        };
        let kind = |kind, code| Some(Icmp { kind, code });
        for (config, expected) in [
            ("", nets(Criteria::default())),
            ("protocol: ''", nets(Criteria::default())),
            ("protocol: TCP, tcp: {ports: 80}", ports(6, 80, 80)),
            ("protocol: TCP, tcp: {ports: '80'}", ports(6, 80, 80)),
            ("protocol: UDP, udp: {ports: 1-65535}", ports(17, 1, 65535)),
            (
                "protocol: SCTP, sctp: {ports: '80-100'}",
                ports(132, 80, 100),
            ),
            ("protocol: ICMP, icmp: {}", icmp(None)),
            ("protocol: ICMP, icmp: {icmpType: 0}", icmp(kind(0, None))),
            (
                "protocol: ICMP, icmp: {icmpType: 0, icmpCode: 0}",
                icmp(kind(0, Some(0))),
            ),
            (
                "protocol: ICMP, icmp: {icmpType: 255, icmpCode: 255}",
                icmp(kind(255, Some(255))),
            ),
        ] {
            assert_eq!(rule(config).criteria, [expected], "{config}");
        }
    }

    #[test]
    fn icmp_is_for_its_ip_version() {
        let checked = |nets: &str| {
            let spec = format!(
                "interfaces: [eth0], ingress: [{{sourceCIDRs: [{nets}], rules: [{{order: 1, \
                 action: Deny, protocolConfig: {{protocol: ICMPv6, icmpv6: {{icmpType: 128}}}}}}]}}]"
            );
            check(&[Source::new("t", firewall("a", &spec))])
        };
        let both = checked("10.0.0.0/8, '::/0'");
        assert_eq!(both.diagnostics, []);
        let model = both.model.expect("no errors");
        let criteria = &model.policies()[0].ingress()[0].criteria;
        assert_eq!(criteria.len(), 2);
        for one in criteria {
            assert_eq!((one.family, one.protocol), (Some(Family::V6), Some(58)));
        }
        let wrong = checked("10.0.0.0/8");
        assert!(wrong.model.is_some());
        assert_eq!(wrong.diagnostics.len(), 1);
        assert_eq!(wrong.diagnostics[0].code, Code::IcmpFamily);
        assert_eq!(
            wrong.diagnostics[0].message,
            "ICMPv6 belongs to IPv6, and `10.0.0.0/8` is IPv4"
        );
    }

    #[test]
    fn orders_are_unique_where_objects_meet() {
        let with = |name: &str, interfaces: &str, nodes: &str, nets: &str, order: u32| {
            let spec = format!(
                "interfaces: [{interfaces}], nodeSelector: {{matchLabels: {{{nodes}}}}}, ingress: \
                 [{{sourceCIDRs: [{nets}], rules: [{{order: {order}, action: Deny}}]}}]"
            );
            firewall(name, &spec)
        };
        let first = with("a", "eth0, eth1", "role: a", "10.0.0.0/8, 11.0.0.0/8", 1);
        for (second, errors) in [
            (with("b", "eth1", "role: a", "11.1.1.1/8, 10.0.0.0/8", 1), 1),
            // Both might select one node.
            (with("b", "eth1", "zone: b", "11.0.0.0/8", 1), 1),
            (with("b", "eth1", "", "11.0.0.0/8", 1), 1),
            (with("b", "eth1", "role: b", "11.0.0.0/8", 1), 0),
            (with("b", "eth2", "role: a", "11.0.0.0/8", 1), 0),
            (with("b", "eth1", "role: a", "11.0.0.0/9", 1), 0),
            (with("b", "eth1", "role: a", "11.0.0.0/8", 2), 0),
        ] {
            let text = format!("{first}{second}");
            let found = check(&[Source::new("t", text)]).diagnostics;
            assert_eq!(found.len(), errors, "{second}");
            for diagnostic in found {
                assert_eq!(diagnostic.code, Code::Duplicate);
                let related = diagnostic.related.expect("the first one");
                assert_eq!(related.place.start.line, 4);
                assert_eq!(diagnostic.place.expect("a place").start.line, 8);
            }
        }
    }

    #[test]
    fn a_hundred_rules_and_no_more() {
        let with = |count: u32| {
            let rules = (1..=count).map(|order| format!("{{order: {order}, action: Deny}}"));
            let rules: Vec<_> = rules.collect();
            let rules = rules.join(", ");
            let spec = format!(
                "interfaces: [eth0], ingress: [{{sourceCIDRs: ['::/0'], rules: [{rules}]}}]"
            );
            check(&[Source::new("t", firewall("a", &spec))]).diagnostics
        };
        assert_eq!(with(100), []);
        let found = with(101);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].message,
            "an item has at most 100 rules, and this has 101"
        );
    }
}
