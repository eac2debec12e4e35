//! JSON Schemas (draft 2020-12) of the documents, for editors.
//!
//! Which fields an object has comes from the tables that the reader of
//! documents uses; what a field may hold is said here. A schema knows less
//! than `nodewall validate`: it looks at one value at a time.

use serde_json::{Map, Value, json};

use super::documents::{lists, tables};
use super::schema::{Field, Neutral, Table, Use};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The kinds that there is a schema of, each once.
#[must_use]
pub fn kinds() -> Vec<&'static str> {
    let mut kinds: Vec<&str> = Vec::new();
    for (_, kind, _) in tables() {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// The schema of all documents, or of those of one kind.
#[must_use]
pub fn schema(kind: Option<&str>) -> Value {
    let mut definitions = Map::new();
    let mut choices = Vec::new();
    for (api_version, name, table) in tables() {
        if kind.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let key = format!("{api_version}.{name}").replace('/', ".");
        choices.push(json!({"$ref": format!("#/$defs/{key}")}));
        definitions.insert(key, document(api_version, name, table));
    }
    let mut schema = Map::new();
    schema.insert("$schema".into(), json!(DRAFT));
    schema.insert(
        "title".into(),
        match kind {
            Some(kind) => json!(format!("{kind}, as nodewall reads it")),
            None => json!("Policies, as nodewall reads them"),
        },
    );
    if kind.is_some() {
        schema.insert("oneOf".into(), Value::Array(choices));
    } else {
        let (versions, names): (Vec<&str>, Vec<&str>) = lists().unzip();
        definitions.insert(
            "list".into(),
            json!({
                "description": "A list of documents.",
                "type": "object",
                "properties": {
                    "apiVersion": {"enum": unique(versions)},
                    "kind": {"enum": unique(names)},
                    "metadata": {},
                    "items": {"type": "array", "items": {"$ref": "#/$defs/document"}},
                },
                "required": ["apiVersion", "kind", "items"],
                "additionalProperties": false,
            }),
        );
        choices.push(json!({"$ref": "#/$defs/list"}));
        definitions.insert("document".into(), json!({"oneOf": choices}));
        schema.insert(
            "oneOf".into(),
            json!([
                {"$ref": "#/$defs/document"},
                {"type": "array", "items": {"$ref": "#/$defs/document"}},
            ]),
        );
    }
    schema.insert("$defs".into(), Value::Object(definitions));
    Value::Object(schema)
}

fn unique(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.sort_unstable();
    names.dedup();
    names
}

/// The formats differ in case, patterns and limits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V1,
    V3,
    Cluster,
}

fn document(api_version: &str, kind: &str, table: &'static Table) -> Value {
    let format = match api_version {
        "v1" => Format::V1,
        version if version.contains("projectcalico.org") => Format::V3,
        _ => Format::Cluster,
    };
    let mut schema = object(format, table);
    schema["title"] = json!(kind);
    schema["properties"]["apiVersion"] = json!({"const": api_version});
    schema["properties"]["kind"] = json!({"const": kind});
    schema
}

/// An object by its table.
fn object(format: Format, table: &'static Table) -> Value {
    let mut properties = Map::new();
    for field in table.fields {
        properties.insert(field.name.to_owned(), property(format, table, field));
    }
    let mut schema = json!({
        "type": "object",
        "description": format!("This is {}.", table.object),
        "properties": properties,
        "additionalProperties": false,
    });
    let required = required(format, table);
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The fields that must be there.
fn required(format: Format, table: &Table) -> Vec<&'static str> {
    let has = |name: &str| table.fields.iter().any(|field| field.name == name);
    let mut required = Vec::new();
    if has("apiVersion") {
        required.extend(["apiVersion", "kind", "metadata"]);
    }
    for (name, when) in [
        (
            "name",
            table.object.starts_with("the metadata of ") || table.object == "a named port",
        ),
        ("action", true),
        ("cidr", true),
        ("interfaces", true),
        ("sourceCIDRs", true),
        ("rules", true),
        ("node", format == Format::V3),
        ("key", true),
        ("operator", true),
        ("type", table.object == "an ICMP condition"),
    ] {
        if when && has(name) {
            required.push(name);
        }
    }
    required
}

fn property(format: Format, table: &'static Table, field: &Field) -> Value {
    match &field.using {
        Use::Read(Some(child)) => {
            let schema = object(format, child);
            if is_list(table, field.name) {
                let mut list = json!({"type": "array", "items": schema});
                let most = match (format, field.name) {
                    (Format::V3, "ingress" | "egress") => Some(1_024),
                    (Format::Cluster, "rules") => Some(100),
                    _ => None,
                };
                if let Some(most) = most {
                    list["maxItems"] = json!(most);
                }
                list
            } else {
                schema
            }
        }
        Use::Read(None) => leaf(format, table, field.name),
        Use::Note => json!({
            "description": "For people and other tools; decides nothing.",
            "type": ["object", "null"],
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }),
        Use::Recorded => json!({
            "description": "Recorded by a cluster; nodewall passes it over.",
        }),
        Use::Later {
            neutral,
            why,
            instead,
        } => {
            let mut schema = match neutral {
                Neutral::None => json!({"not": {}}),
                Neutral::Empty => json!({"enum": ["", [], {}]}),
                Neutral::Text(text) => json!({"const": text}),
            };
            schema["description"] = json!(format!("Not enforced: {why}; {instead}."));
            schema
        }
        Use::Elsewhere(help) => json!({
            "not": {},
            "description": format!("There is no such field: {help}."),
        }),
    }
}

/// Whether a field with a table holds a list of such objects.
fn is_list(table: &Table, name: &str) -> bool {
    match name {
        "ingress" | "egress" | "rules" | "from" | "to" | "matchExpressions" => true,
        "ports" => table.object != "a `protocolConfig`",
        _ => false,
    }
}

fn text(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn pattern(description: &str, pattern: &str) -> Value {
    json!({"description": description, "type": "string", "pattern": pattern})
}

fn list(description: &str, items: &Value) -> Value {
    json!({"description": description, "type": "array", "items": items})
}

fn choice(description: &str, names: &[&str]) -> Value {
    json!({"description": description, "enum": names})
}

/// A whole number, also in quotes.
fn whole(description: &str, least: u32, most: u32) -> Value {
    json!({
        "description": description,
        "anyOf": [
            {"type": "integer", "minimum": least, "maximum": most},
            {"type": "string", "pattern": "^[0-9]{1,10}$"},
        ],
    })
}

const SELECTOR: &str = "A selector: `role == 'x'`, `has(a) && !(b in {'c', 'd'})`, `all()`. Empty \
                        selects everything.";

/// What a field without a table may hold.
fn leaf(format: Format, table: &Table, name: &str) -> Value {
    let (v1, v3) = (format == Format::V1, format == Format::V3);
    let net = || {
        pattern(
            "An address or a CIDR.",
            r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9]{1,3})?$",
        )
    };
    let nets = |description: &str| {
        let mut schema = list(description, &net());
        if v3 && table.object != "the spec of a set" {
            schema["maxItems"] = json!(256);
        }
        schema
    };
    let protocol = |description: &str| {
        let names: &[&str] = if v1 {
            &["tcp", "udp", "icmp", "icmpv6", "sctp", "udplite"]
        } else {
            &["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"]
        };
        json!({
            "description": description,
            "anyOf": [
                {"enum": names},
                {"type": "integer", "minimum": 1, "maximum": 255},
                {"type": "string", "pattern": "^[0-9]{1,3}$"},
            ],
        })
    };
    let ports = |description: &str| {
        let port = json!({
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65_535},
                {
                    "type": "string",
                    "pattern": "^([0-9]{1,5}(:[0-9]{1,5})?|[a-zA-Z0-9_.-]{1,128})$",
                },
            ],
        });
        let mut schema = list(description, &port);
        if v3 {
            schema["maxItems"] = json!(50);
        }
        schema
    };
    let labels = |description: &str| {
        json!({
            "description": description,
            "type": ["object", "null"],
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        })
    };
    match (table.object, name) {
        ("a named port", "name") => pattern("The name that rules use.", "^[a-zA-Z0-9_.-]{1,128}$"),
        (_, "name") if v1 => pattern("Its name.", "^[a-zA-Z0-9_./-]{1,128}$"),
        (_, "name") => json!({
            "description": "Its name.",
            "type": ["string", "integer"],
            "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        }),
        (_, "namespace") => text("The namespace; `default` where it is not said."),
        (_, "node") => text("The host that has the interface."),
        (_, "labels" | "labelsToApply") => labels("What selectors see of it."),
        (_, "annotations") => labels(
            "Notes, but for `nodewall.io/nets-from`: the path of a file with more networks, one a \
             line.",
        ),
        (_, "tags") => list(
            "Names by which v1 rules refer to its endpoints.",
            &text("A tag."),
        ),
        (_, "tier") => text("The tier; `default` where it is not said."),
        ("a rule", "order") => whole("Its place among the rules for a network.", 1, u32::MAX),
        (_, "order") => json!({
            "description": "Lower orders are evaluated first; none is last.",
            "type": "number",
        }),
        (_, "defaultAction") => choice("What happens at the end of the tier.", &["Deny", "Pass"]),
        (_, "selector" | "notSelector" | "serviceAccountSelector") => {
            let mut schema = text(SELECTOR);
            if v3 {
                schema["maxLength"] = json!(1_024);
            }
            schema
        }
        ("a peer", "namespaceSelector") | (_, "podSelector" | "nodeSelector") => json!({
            "description": "A label selector; empty selects everything.",
            "type": ["object", "null"],
        }),
        (_, "namespaceSelector") => text(
            "A selector of namespaces: `all()`, `global()`, \
                                          `projectcalico.org/name == 'x'`.",
        ),
        (_, "types") => {
            let names: &[&str] = if v1 {
                &["ingress", "egress"]
            } else {
                &["Ingress", "Egress"]
            };
            list(
                "The directions that it has a word in.",
                &json!({"enum": names}),
            )
        }
        (_, "policyTypes") => list(
            "The directions that it has a word in.",
            &json!({"enum": ["Ingress", "Egress"]}),
        ),
        (_, "doNotTrack") => json!({
            "description": "Evaluate it first, without connection tracking.",
            "type": "boolean",
        }),
        (_, "preDNAT") => json!({
            "description": "Evaluate it before DNAT: node ports are still their own.",
            "type": "boolean",
        }),
        (_, "applyOnForward") => json!({
            "description": "Also for packets that are forwarded.",
            "type": "boolean",
        }),
        (_, "performanceHints") => list("Decide nothing.", &text("A hint.")),
        (_, "action") if format == Format::Cluster => choice("What it does.", &["Allow", "Deny"]),
        (_, "action") if v1 => choice("What it does.", &["allow", "deny", "log", "pass"]),
        (_, "action") => choice("What it does.", &["Allow", "Deny", "Log", "Pass"]),
        (_, "ipVersion") => json!({
            "description": "The IP version.",
            "enum": [4, 6, "4", "6"],
        }),
        ("a `protocolConfig`", "protocol") => choice(
            "The protocol; any, where it is not said.",
            &["TCP", "UDP", "SCTP", "ICMP", "ICMPv6", ""],
        ),
        (_, "protocol") if format == Format::Cluster => choice(
            "The protocol; TCP, where it is not said.",
            &["TCP", "UDP", "SCTP"],
        ),
        (_, "protocol") => protocol("The protocol, by name or number."),
        (_, "notProtocol") => protocol("Any protocol but this."),
        (_, "type") => whole("The ICMP type.", 0, 254),
        (_, "code" | "icmpCode") => whole("The ICMP code.", 0, 255),
        (_, "icmpType") => whole("The ICMP type.", 0, 255),
        (_, "net" | "notNet" | "cidr") => net(),
        (_, "nets") => nets("In one of these networks."),
        (_, "notNets") => nets("In none of these networks."),
        (_, "except") => list("Not these parts of it.", &net()),
        (_, "sourceCIDRs") => {
            let mut schema = list("The networks that the rules are for.", &net());
            schema["minItems"] = json!(1);
            schema
        }
        (_, "expectedIPs") => list("Its addresses.", &net()),
        ("the setting of a protocol with ports", "ports") => json!({
            "description": "A port, or a range `first-last`.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65_535},
                {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"},
            ],
        }),
        (_, "ports") => ports("One of these ports: a number, a range `first:last`, or a name."),
        (_, "notPorts") => ports("None of these ports."),
        (_, "port") => json!({
            "description": "The port.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65_535},
                {"type": "string"},
            ],
        }),
        (_, "endPort") => whole(
            "The last port of a range that begins with `port`.",
            1,
            65_535,
        ),
        (_, "tag" | "notTag") => text("The tag of a profile."),
        (_, "interfaceName") => pattern(
            "The interface; `*` stands for all.",
            r"^(\*|[a-zA-Z0-9_.-]{1,15})$",
        ),
        (_, "interfaces") => {
            let one = pattern("An interface.", "^[a-zA-Z0-9_.-]{1,15}$");
            let mut schema = list("The interfaces to filter.", &one);
            schema["minItems"] = json!(1);
            schema
        }
        (_, "profiles") => list(
            "What decides where no policy does; `projectcalico-default-allow` allows all.",
            &text("A profile's name."),
        ),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that the reader knows and that isn't described here would be
    /// one that editors say nothing about.
    #[test]
    fn every_field_says_something() {
        fn look(format: Format, table: &'static Table, nothing: &mut Vec<String>) {
            for field in table.fields {
                match field.using {
                    Use::Read(Some(child)) => look(format, child, nothing),
                    Use::Read(None) => {
                        let head = ["apiVersion", "kind", "metadata"].contains(&field.name);
                        if !head && leaf(format, table, field.name) == json!({}) {
                            nothing.push(format!("{}: {}", table.object, field.name));
                        }
                    }
                    _ => {}
                }
            }
        }
        let mut nothing = Vec::new();
        for (version, _, table) in tables() {
            let format = if version == "v1" {
                Format::V1
            } else {
                Format::V3
            };
            look(format, table, &mut nothing);
        }
        assert_eq!(nothing, [] as [&str; 0]);
    }
}
