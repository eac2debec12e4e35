//! Documents → YAML, and packets → frames.

use std::fmt::Write as _;
use std::net::IpAddr;

use tests::packet::{Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Payload, Raw, Sctp, Tcp, Udp};

use super::model::{
    Action, Dialect, Documents, Endpoint, Entity, Expression, Firewall, FirewallProtocol,
    KubernetesPeer, KubernetesPolicy, KubernetesPort, KubernetesRule, LabelSelector, Labels,
    NetworkSet, Packet, Policy, Port, Profile, Protocol, Rule, Selector, Tier,
};

/// A value of YAML.
enum Yaml {
    /// As it is.
    Plain(String),
    /// In quotes.
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

use Yaml::{List, Map};

fn text(text: impl Into<String>) -> Yaml {
    Yaml::Text(text.into())
}

#[expect(clippy::needless_pass_by_value, reason = "mostly of temporaries")]
fn plain(value: impl ToString) -> Yaml {
    Yaml::Plain(value.to_string())
}

fn list<T>(items: impl IntoIterator<Item = T>, make: impl FnMut(T) -> Yaml) -> Yaml {
    List(items.into_iter().map(make).collect())
}

/// A map as it grows; what is `None` is left out.
#[derive(Default)]
struct Fields(Vec<(String, Yaml)>);

impl Fields {
    fn with(mut self, key: &str, value: impl Into<Option<Yaml>>) -> Self {
        self.0
            .extend(value.into().map(|value| (key.to_owned(), value)));
        self
    }

    fn map(self) -> Yaml {
        Map(self.0)
    }
}

fn fields() -> Fields {
    Fields::default()
}

impl Yaml {
    /// In block style.
    fn write(&self, out: &mut String, indent: usize) {
        let pad = "  ".repeat(indent);
        match self {
            Map(entries) => {
                for (key, value) in entries {
                    let _ = write!(out, "{pad}{key}:");
                    value.write_value(out, indent);
                }
            }
            List(items) => {
                for item in items {
                    if matches!(item, Map(entries) if entries.is_empty()) {
                        let _ = writeln!(out, "{pad}- {{}}");
                        continue;
                    }
                    let mut inner = String::new();
                    item.write(&mut inner, indent + 1);
                    // The first line begins with the dash.
                    let _ = write!(out, "{pad}- {}", inner.trim_start());
                }
            }
            scalar => {
                let _ = writeln!(out, "{pad}{}", scalar.flow());
            }
        }
    }

    fn write_value(&self, out: &mut String, indent: usize) {
        match self {
            Map(entries) if !entries.is_empty() => {
                out.push('\n');
                self.write(out, indent + 1);
            }
            List(items) if items.iter().any(|item| matches!(item, Map(_))) => {
                out.push('\n');
                self.write(out, indent);
            }
            other => {
                let _ = writeln!(out, " {}", other.flow());
            }
        }
    }

    /// In flow style.
    fn flow(&self) -> String {
        match self {
            Self::Plain(plain) => plain.clone(),
            Self::Text(text) => format!("{text:?}"),
            List(items) => {
                let items: Vec<_> = items.iter().map(Self::flow).collect();
                format!("[{}]", items.join(", "))
            }
            Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| format!("{key}: {}", value.flow()))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// All documents, in several texts.
pub(crate) fn texts(documents: &Documents) -> Vec<String> {
    let first = documents
        .policies
        .iter()
        .map(policy)
        .chain(documents.tiers.iter().map(tier));
    let second = documents
        .endpoints
        .iter()
        .map(endpoint)
        .chain(documents.sets.iter().map(set))
        .chain(documents.profiles.iter().map(profile));
    let third = documents
        .kubernetes
        .iter()
        .map(kubernetes)
        .chain(documents.firewalls.iter().map(firewall));
    [
        in_documents(first.collect()),
        // The same in one list: v1's way.
        in_list(second.collect()),
        in_documents(third.collect()),
    ]
    .into_iter()
    .filter(|text| !text.is_empty())
    .collect()
}

fn in_documents(all: Vec<Yaml>) -> String {
    let mut text = String::new();
    for document in all {
        text.push_str("---\n");
        document.write(&mut text, 0);
    }
    text
}

fn in_list(all: Vec<Yaml>) -> String {
    let mut text = String::new();
    List(all).write(&mut text, 0);
    text
}

fn labels(labels: &Labels) -> Option<Yaml> {
    let entries = labels.iter();
    let entries = entries.map(|(label, value)| (label.clone(), text(value)));
    (!labels.is_empty()).then(|| Map(entries.collect()))
}

fn head(dialect: Dialect, v1: &str, v3: &str) -> Fields {
    match dialect {
        Dialect::V1 => fields()
            .with("apiVersion", plain("v1"))
            .with("kind", plain(v1)),
        Dialect::V3 => fields()
            .with("apiVersion", plain("projectcalico.org/v3"))
            .with("kind", plain(v3)),
        Dialect::Crd => fields()
            .with("apiVersion", plain("crd.projectcalico.org/v1"))
            .with("kind", plain(v3)),
    }
}

// ---- Calico

fn policy(policy: &Policy) -> Yaml {
    let dialect = policy.dialect;
    let v1 = dialect == Dialect::V1;
    let kind = match (policy.namespace, policy.staged) {
        (Some(_), true) => "StagedNetworkPolicy",
        (Some(_), false) => "NetworkPolicy",
        (None, true) => "StagedGlobalNetworkPolicy",
        (None, false) => "GlobalNetworkPolicy",
    };
    let tier = policy.tier.map(text);
    let (v1_tier, v3_tier) = if v1 { (tier, None) } else { (None, tier) };
    let metadata = fields()
        .with("name", text(&policy.name))
        .with("namespace", policy.namespace.map(text))
        .with("tier", v1_tier);
    let types = policy.types.map(|(ingress, egress)| {
        let names = if v1 {
            ["ingress", "egress"]
        } else {
            ["Ingress", "Egress"]
        };
        let wanted = names.into_iter().zip([ingress, egress]);
        list(wanted.filter(|(_, wanted)| *wanted), |(name, _)| {
            plain(name)
        })
    });
    let flag = |set: bool| set.then(|| plain("true"));
    let some_rules = |rules: &[Rule]| (!rules.is_empty()).then(|| rule_list(rules, dialect));
    let forward = !v1 && policy.apply_on_forward;
    let spec = fields()
        .with("tier", v3_tier)
        .with("order", policy.order.map(plain))
        .with("selector", policy.selector.as_ref().map(selector))
        .with(
            "namespaceSelector",
            policy.namespace_selector.as_ref().map(selector),
        )
        .with("types", types)
        .with("doNotTrack", flag(policy.do_not_track))
        .with("preDNAT", flag(policy.pre_dnat))
        .with("applyOnForward", flag(forward))
        .with("ingress", some_rules(&policy.ingress))
        .with("egress", some_rules(&policy.egress));
    head(dialect, "policy", kind)
        .with("metadata", metadata.map())
        .with("spec", spec.map())
        .map()
}

fn rule_list(rules: &[Rule], dialect: Dialect) -> Yaml {
    list(rules, |rule| self::rule(rule, dialect))
}

fn rule(rule: &Rule, dialect: Dialect) -> Yaml {
    let action = match rule.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Log => "Log",
        Action::Pass => "Pass",
    };
    let action = match dialect {
        Dialect::V1 => action.to_lowercase(),
        _ => action.to_owned(),
    };
    let icmp = |(kind, code): (u8, Option<u8>)| {
        let fields = fields().with("type", plain(kind));
        fields.with("code", code.map(plain)).map()
    };
    fields()
        .with("action", plain(action))
        .with("ipVersion", rule.ip_version.map(plain))
        .with(
            "protocol",
            rule.protocol.map(|number| protocol(number, dialect)),
        )
        .with(
            "notProtocol",
            rule.not_protocol.map(|number| protocol(number, dialect)),
        )
        .with("icmp", rule.icmp.map(icmp))
        .with("notICMP", rule.not_icmp.map(icmp))
        .with("source", entity(&rule.source))
        .with("destination", entity(&rule.destination))
        .map()
}

fn protocol(protocol: Protocol, dialect: Dialect) -> Yaml {
    if !protocol.by_name {
        return plain(protocol.number);
    }
    let name = match protocol.number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDPLite",
        number => return plain(number),
    };
    match dialect {
        Dialect::V1 => plain(name.to_lowercase()),
        _ => plain(name),
    }
}

fn entity(entity: &Entity) -> Option<Yaml> {
    let nets = |nets: &[ipnet::IpNet]| (!nets.is_empty()).then(|| list(nets, text_of));
    let ports = |ports: &[Port]| (!ports.is_empty()).then(|| list(ports, |port| self::port(*port)));
    let fields = fields()
        .with("net", entity.net.as_ref().map(text_of))
        .with("notNet", entity.not_net.as_ref().map(text_of))
        .with("nets", nets(&entity.nets))
        .with("notNets", nets(&entity.not_nets))
        .with("selector", entity.selector.as_ref().map(selector))
        .with("notSelector", entity.not_selector.as_ref().map(selector))
        .with(
            "namespaceSelector",
            entity.namespace_selector.as_ref().map(selector),
        )
        .with("tag", entity.tag.map(text))
        .with("notTag", entity.not_tag.map(text))
        .with("ports", ports(&entity.ports))
        .with("notPorts", ports(&entity.not_ports));
    (!fields.0.is_empty()).then(|| fields.map())
}

#[expect(clippy::needless_pass_by_value, reason = "mostly of temporaries")]
fn text_of(value: impl ToString) -> Yaml {
    text(value.to_string())
}

fn port(port: Port) -> Yaml {
    match port {
        Port::One(port) => plain(port),
        Port::Range(first, last) => text(format!("{first}:{last}")),
        Port::Named(name) => text(name),
    }
}

fn selector(selector: &Selector) -> Yaml {
    text(expression(selector))
}

fn expression(selector: &Selector) -> String {
    let values = |values: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
        values.join(", ")
    };
    match selector {
        Selector::All => "all()".to_owned(),
        Selector::Global => "global()".to_owned(),
        Selector::Has(label) => format!("has({label})"),
        Selector::Is(label, value) => format!("{label} == '{value}'"),
        Selector::IsNot(label, value) => format!("{label} != '{value}'"),
        Selector::In(label, list) => format!("{label} in {{{}}}", values(list)),
        Selector::NotIn(label, list) => format!("{label} not in {{{}}}", values(list)),
        Selector::Contains(label, part) => format!("{label} contains '{part}'"),
        Selector::StartsWith(label, part) => format!("{label} starts with '{part}'"),
        Selector::EndsWith(label, part) => format!("{label} ends with '{part}'"),
        Selector::Not(inner) => format!("!({})", expression(inner)),
        Selector::And(left, right) => format!("({}) && ({})", expression(left), expression(right)),
        Selector::Or(left, right) => format!("({}) || ({})", expression(left), expression(right)),
    }
}

fn tier(tier: &Tier) -> Yaml {
    let action = tier
        .default_pass
        .map(|pass| plain(if pass { "Pass" } else { "Deny" }));
    let spec = fields()
        .with("order", tier.order.map(plain))
        .with("defaultAction", action);
    head(Dialect::V3, "", "Tier")
        .with("metadata", fields().with("name", text(tier.name)).map())
        .with("spec", spec.map())
        .map()
}

fn profile(profile: &Profile) -> Yaml {
    let dialect = profile.dialect;
    let tags = (!profile.tags.is_empty()).then(|| list(&profile.tags, |tag| text(*tag)));
    // v3 has the labels in its spec: they are those of the endpoints.
    let of_endpoints = labels(&profile.labels);
    let (v1_labels, v3_labels) = match dialect {
        Dialect::V1 => (of_endpoints, None),
        _ => (None, of_endpoints),
    };
    let metadata = fields()
        .with("name", text(profile.name))
        .with("labels", v1_labels)
        .with("tags", tags);
    let spec = fields()
        .with("labelsToApply", v3_labels)
        .with("ingress", rule_list(&profile.ingress, dialect))
        .with("egress", rule_list(&profile.egress, dialect));
    head(dialect, "profile", "Profile")
        .with("metadata", metadata.map())
        .with("spec", spec.map())
        .map()
}

fn endpoint(endpoint: &Endpoint) -> Yaml {
    let dialect = endpoint.dialect;
    let ports = list(&endpoint.ports, |(name, number, port)| {
        fields()
            .with("name", text(*name))
            .with("protocol", protocol(*number, dialect))
            .with("port", plain(port))
            .map()
    });
    let (in_metadata, in_spec) = match dialect {
        Dialect::V1 => (Some(text("n")), None),
        _ => (None, Some(text("n"))),
    };
    let metadata = fields()
        .with("name", text(&endpoint.name))
        .with("node", in_metadata)
        .with("labels", labels(&endpoint.labels));
    let ips = &endpoint.expected_ips;
    let spec = fields()
        .with("node", in_spec)
        .with("interfaceName", endpoint.interface.map(text))
        .with("expectedIPs", (!ips.is_empty()).then(|| list(ips, text_of)))
        .with("profiles", list(&endpoint.profiles, |name| text(*name)))
        .with("ports", (!endpoint.ports.is_empty()).then_some(ports));
    head(dialect, "hostEndpoint", "HostEndpoint")
        .with("metadata", metadata.map())
        .with("spec", spec.map())
        .map()
}

fn set(set: &NetworkSet) -> Yaml {
    let kind = if set.namespace.is_some() {
        "NetworkSet"
    } else {
        "GlobalNetworkSet"
    };
    let metadata = fields()
        .with("name", text(&set.name))
        .with("namespace", set.namespace.map(text))
        .with("labels", labels(&set.labels));
    let spec = fields().with("nets", list(&set.nets, text_of));
    head(Dialect::V3, "", kind)
        .with("metadata", metadata.map())
        .with("spec", spec.map())
        .map()
}

// ---- the other formats

fn label_selector(selector: &LabelSelector) -> Yaml {
    let expressions = list(&selector.expressions, |expression| {
        let (label, operator, values) = match expression {
            Expression::In(label, values) => (label, "In", Some(values)),
            Expression::NotIn(label, values) => (label, "NotIn", Some(values)),
            Expression::Exists(label) => (label, "Exists", None),
            Expression::DoesNotExist(label) => (label, "DoesNotExist", None),
        };
        fields()
            .with("key", text(*label))
            .with("operator", plain(operator))
            .with(
                "values",
                values.map(|values| list(values, |value| text(*value))),
            )
            .map()
    });
    let some = !selector.expressions.is_empty();
    fields()
        .with("matchLabels", labels(&selector.labels))
        .with("matchExpressions", some.then_some(expressions))
        .map()
}

fn firewall(firewall: &Firewall) -> Yaml {
    let rule = |rule: &super::model::FirewallRule| {
        let protocol = match rule.protocol {
            FirewallProtocol::Any => fields().with("protocol", text("")),
            FirewallProtocol::Ports(number, first, last) => {
                let (name, member) = match number {
                    6 => ("TCP", "tcp"),
                    17 => ("UDP", "udp"),
                    _ => ("SCTP", "sctp"),
                };
                let ports = if first == last {
                    plain(first)
                } else {
                    text(format!("{first}-{last}"))
                };
                fields()
                    .with("protocol", plain(name))
                    .with(member, fields().with("ports", ports).map())
            }
            FirewallProtocol::Icmp(number, icmp) => {
                let (name, member) = match number {
                    1 => ("ICMP", "icmp"),
                    _ => ("ICMPv6", "icmpv6"),
                };
                let icmp = icmp.map(|(kind, code)| {
                    let fields = fields().with("icmpType", plain(kind));
                    fields.with("icmpCode", code.map(plain)).map()
                });
                fields().with("protocol", plain(name)).with(member, icmp)
            }
        };
        fields()
            .with("order", plain(rule.order))
            .with("protocolConfig", protocol.map())
            .with("action", plain(if rule.allow { "Allow" } else { "Deny" }))
            .map()
    };
    let ingress = list(&firewall.ingress, |entry| {
        let cidrs = list(&entry.source_cidrs, |(address, length)| {
            text(format!("{address}/{length}"))
        });
        fields()
            .with("sourceCIDRs", cidrs)
            .with("rules", list(&entry.rules, rule))
            .map()
    });
    let spec = fields()
        .with("interfaces", list(&firewall.interfaces, |name| text(*name)))
        .with("nodeSelector", label_selector(&firewall.node_selector))
        .with("ingress", ingress);
    fields()
        .with(
            "apiVersion",
            plain("ingressnodefirewall.openshift.io/v1alpha1"),
        )
        .with("kind", plain("IngressNodeFirewall"))
        .with(
            "metadata",
            fields().with("name", text(&firewall.name)).map(),
        )
        .with("spec", spec.map())
        .map()
}

fn kubernetes(policy: &KubernetesPolicy) -> Yaml {
    let types = policy.types.map(|(_, egress)| {
        let mut names = vec!["Ingress"];
        names.extend(egress.then_some("Egress"));
        list(names, plain)
    });
    let rules = |rules: &[KubernetesRule], peers: &str| {
        let rules = list(rules, |rule| {
            let some = |list: Yaml| match &list {
                List(items) if items.is_empty() => None,
                _ => Some(list),
            };
            fields()
                .with(peers, some(list(&rule.peers, kubernetes_peer)))
                .with("ports", some(list(&rule.ports, kubernetes_port)))
                .map()
        });
        match &rules {
            List(items) if items.is_empty() => None,
            _ => Some(rules),
        }
    };
    let metadata = fields()
        .with("name", text(&policy.name))
        .with("namespace", policy.namespace.map(text));
    let spec = fields()
        .with("podSelector", label_selector(&policy.pod_selector))
        .with("policyTypes", types)
        .with("ingress", rules(&policy.ingress, "from"))
        .with("egress", rules(&policy.egress, "to"));
    fields()
        .with("apiVersion", plain("networking.k8s.io/v1"))
        .with("kind", plain("NetworkPolicy"))
        .with("metadata", metadata.map())
        .with("spec", spec.map())
        .map()
}

fn kubernetes_peer(peer: &KubernetesPeer) -> Yaml {
    match peer {
        KubernetesPeer::Block { cidr, except } => {
            let except = (!except.is_empty()).then(|| list(except, text_of));
            let block = fields().with("cidr", text_of(cidr)).with("except", except);
            fields().with("ipBlock", block.map()).map()
        }
        KubernetesPeer::Pods => fields().with("podSelector", fields().map()).map(),
    }
}

fn kubernetes_port(port: &KubernetesPort) -> Yaml {
    let protocol = port.protocol.map(|number| {
        plain(match number {
            6 => "TCP",
            17 => "UDP",
            _ => "SCTP",
        })
    });
    let (first, last) = match port.port {
        None => (None, None),
        Some(Port::One(port)) => (Some(plain(port)), None),
        Some(Port::Range(first, last)) => (Some(plain(first)), Some(plain(last))),
        Some(Port::Named(name)) => (Some(text(name)), None),
    };
    fields()
        .with("protocol", protocol)
        .with("port", first)
        .with("endPort", last)
        .map()
}

// ---- packets

/// The frame on the wire.
pub(crate) fn frame(packet: &Packet) -> Vec<u8> {
    let (sport, dport) = packet.l4;
    let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
    let payload: Box<dyn Payload> = match packet.proto {
        6 => Box::new(Tcp {
            sport,
            ..Tcp::to(dport)
        }),
        17 => Box::new(Udp {
            sport,
            ..Udp::to(dport)
        }),
        136 => Box::new(Udp {
            sport,
            ..Udp::lite_to(dport)
        }),
        132 => Box::new(Sctp {
            sport,
            ..Sctp::to(dport)
        }),
        1 => Box::new(Icmp::new(byte(sport), byte(dport))),
        58 => Box::new(Icmpv6::new(byte(sport), byte(dport))),
        number => Box::new(Raw::new(number, &[0x50; 24])),
    };
    let packet = match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4 {
            src,
            dst,
            ttl: packet.hop_limit,
            ..Ipv4::default()
        }
        .carry(&*payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6 {
            src,
            dst,
            hop_limit: packet.hop_limit,
            ..Ipv6::default()
        }
        .carry(&*payload),
        mixed => panic!("addresses of two families: {mixed:?}"),
    };
    Ethernet::default().carry(&packet)
}
