//! `OpenShift`'s `IngressNodeFirewall`, as its author wrote it.

use crate::policy::diagnostic::Reporter;
use crate::policy::label_selector::{self, LabelSelector};
use crate::policy::schema::{self, Field, Object, Path, Table, Text, Texts};
use crate::policy::source::Span;
use crate::policy::yaml::Node;

/// An `IngressNodeFirewall`.
#[derive(Debug)]
pub(in crate::policy) struct IngressNodeFirewallDocument<'t> {
    /// The path of the document in its file: empty, or a list's index.
    pub(in crate::policy) path: String,
    pub(in crate::policy) name: Text<'t>,
    pub(in crate::policy) nodes: LabelSelector,
    pub(in crate::policy) interfaces: Texts<'t>,
    pub(in crate::policy) ingress: Vec<IngressDocument<'t>>,
    /// Where the ingress list stands.
    pub(in crate::policy) ingress_span: Option<Span>,
}

/// The rules for some networks.
#[derive(Debug)]
pub(in crate::policy) struct IngressDocument<'t> {
    /// The index in the list as it was written.
    pub(in crate::policy) index: usize,
    pub(in crate::policy) source_cidrs: Texts<'t>,
    pub(in crate::policy) rules: Vec<RuleDocument<'t>>,
    /// Where the list of rules stands.
    pub(in crate::policy) rules_span: Option<Span>,
}

/// One rule.
#[derive(Debug)]
pub(in crate::policy) struct RuleDocument<'t> {
    pub(in crate::policy) index: usize,
    pub(in crate::policy) start: Span,
    pub(in crate::policy) order: Option<Text<'t>>,
    pub(in crate::policy) action: Option<Text<'t>>,
    pub(in crate::policy) protocol: Option<Text<'t>>,
    /// The settings of protocols; one is legal.
    pub(in crate::policy) members: Vec<MemberDocument<'t>>,
}

/// What a rule says of one protocol.
#[derive(Debug)]
pub(in crate::policy) struct MemberDocument<'t> {
    /// Its field: `tcp`.
    pub(in crate::policy) name: &'static str,
    pub(in crate::policy) key_span: Span,
    pub(in crate::policy) ports: Option<Text<'t>>,
    pub(in crate::policy) icmp_type: Option<Text<'t>>,
    pub(in crate::policy) icmp_code: Option<Text<'t>>,
}

/// What an object of this kind may hold.
pub(in crate::policy) static TABLE: &Table = &FIREWALL;

static FIREWALL: Table = Table {
    object: "an IngressNodeFirewall",
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
    "the metadata of an IngressNodeFirewall",
    Field::elsewhere(
        "namespace",
        "remove the line: objects of this kind are cluster-wide",
    )
);

static SPEC: Table = Table {
    object: "the spec of an IngressNodeFirewall",
    fields: &[
        Field::read("interfaces"),
        Field::read("nodeSelector"),
        Field::object("ingress", &INGRESS),
        Field::elsewhere(
            "egress",
            "an IngressNodeFirewall filters only what comes in",
        ),
    ],
};

static INGRESS: Table = Table {
    object: "an item of `ingress`",
    fields: &[Field::read("sourceCIDRs"), Field::object("rules", &RULE)],
};

static RULE: Table = Table {
    object: "a rule",
    fields: &[
        Field::read("order"),
        Field::object("protocolConfig", &PROTOCOL),
        Field::read("action"),
    ],
};

static PROTOCOL: Table = Table {
    object: "a `protocolConfig`",
    fields: &[
        Field::read("protocol"),
        Field::object("tcp", &PORTS),
        Field::object("udp", &PORTS),
        Field::object("sctp", &PORTS),
        Field::object("icmp", &ICMP),
        Field::object("icmpv6", &ICMP),
    ],
};

static PORTS: Table = Table {
    object: "the setting of a protocol with ports",
    fields: &[Field::read("ports")],
};

static ICMP: Table = Table {
    object: "the setting of ICMP",
    fields: &[Field::read("icmpType"), Field::read("icmpCode")],
};

/// Reads an `IngressNodeFirewall`.
pub(super) fn read<'t>(
    node: &Node<'t>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<IngressNodeFirewallDocument<'t>> {
    let object = Object::open(node, &FIREWALL, path, reporter)?;
    let name = object
        .require("metadata", super::NAME_HELP, reporter)
        .and_then(|entry| {
            let path = object.path("metadata");
            Object::open(&entry.value, &METADATA, path, reporter)?.require_text(
                "name",
                super::NAME_HELP,
                reporter,
            )
        });

    let spec_help = "without it there is nothing to filter: add `spec:` with interfaces and rules";
    let spec_entry = object.require("spec", spec_help, reporter)?;
    let spec = Object::open(&spec_entry.value, &SPEC, object.path("spec"), reporter)?;
    let nodes = match spec.get("nodeSelector", reporter) {
        Some(entry) => label_selector::read(&entry.value, spec.path("nodeSelector"), reporter),
        None => Some(LabelSelector::default()),
    };
    let interfaces_help = "name the interfaces to filter: `interfaces: [eth0]`";
    let ingress_help = "list what is filtered: `ingress:` with `sourceCIDRs` and `rules`";
    let ingress = spec.require("ingress", ingress_help, reporter);
    let ingress_path = spec.path("ingress");
    let items = ingress
        .and_then(|entry| schema::sequence(&entry.value, &ingress_path, reporter))
        .unwrap_or_default();
    Some(IngressNodeFirewallDocument {
        path: path.to_string(),
        nodes: nodes.unwrap_or_default(),
        interfaces: spec.require_texts("interfaces", interfaces_help, reporter),
        ingress: items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| ingress_item(item, index, &ingress_path, reporter))
            .collect(),
        ingress_span: ingress.map(|entry| entry.key_span),
        name: name?,
    })
}

fn ingress_item<'t>(
    node: &Node<'t>,
    index: usize,
    list: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<IngressDocument<'t>> {
    let object = Object::open(node, &INGRESS, list.index(index), reporter)?;
    let nets_help = "name the networks that the rules are for: `sourceCIDRs: [0.0.0.0/0]`";
    let rules_help = "write a rule with `action: Allow` to let pass all that comes from there";
    let rules = object.require("rules", rules_help, reporter);
    let rules_path = object.path("rules");
    let items = rules
        .and_then(|entry| schema::sequence(&entry.value, &rules_path, reporter))
        .unwrap_or_default();
    Some(IngressDocument {
        index,
        source_cidrs: object.require_texts("sourceCIDRs", nets_help, reporter),
        rules: items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| rule(item, index, &rules_path, reporter))
            .collect(),
        rules_span: rules.map(|entry| entry.key_span),
    })
}

fn rule<'t>(
    node: &Node<'t>,
    index: usize,
    list: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<RuleDocument<'t>> {
    let object = Object::open(node, &RULE, list.index(index), reporter)?;
    let config = object.get("protocolConfig", reporter).and_then(|entry| {
        Object::open(
            &entry.value,
            &PROTOCOL,
            object.path("protocolConfig"),
            reporter,
        )
    });
    let mut members = Vec::new();
    if let Some(config) = &config {
        for name in ["tcp", "udp", "sctp", "icmp", "icmpv6"] {
            members.extend(member(config, name, reporter));
        }
    }
    let order_help = "say where the rule stands among those for its networks: `order: 10`";
    let action_help = "say what the rule does: `action: Allow` or `action: Deny`";
    Some(RuleDocument {
        index,
        start: object.start(),
        order: object.require_text("order", order_help, reporter),
        action: object.require_text("action", action_help, reporter),
        protocol: config.and_then(|config| config.text("protocol", reporter)),
        members,
    })
}

fn member<'t>(
    config: &Object<'_, '_, 't>,
    name: &'static str,
    reporter: &mut Reporter<'_>,
) -> Option<MemberDocument<'t>> {
    let entry = config.get(name, reporter)?;
    let icmp = name.starts_with("icmp");
    let table = if icmp { &ICMP } else { &PORTS };
    let object = Object::open(&entry.value, table, config.path(name), reporter)?;
    let ports_help = "name a port or a range: `ports: 80` or `ports: \"80-100\"`";
    Some(MemberDocument {
        name,
        key_span: entry.key_span,
        ports: if icmp {
            None
        } else {
            object.require_text("ports", ports_help, reporter)
        },
        icmp_type: if icmp {
            object.text("icmpType", reporter)
        } else {
            None
        },
        icmp_code: if icmp {
            object.text("icmpCode", reporter)
        } else {
            None
        },
    })
}
