//! Kubernetes' label selectors, as the formats of clusters have them: all of
//! `matchLabels` and `matchExpressions` must hold, and an empty one selects
//! everything.

use std::fmt;

use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::schema::{self, Field, Object, Path, Table, Text, nearest};
use super::selector::Selector;
use super::values;
use super::yaml::Node;

/// A valid label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSelector(Vec<Requirement>);

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    label: String,
    is: Is,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    In(Vec<String>),
    NotIn(Vec<String>),
    There,
    NotThere,
}

static TABLE: Table = Table {
    object: "a label selector",
    fields: &[
        Field::read("matchLabels"),
        Field::object("matchExpressions", &EXPRESSION),
    ],
};

static EXPRESSION: Table = Table {
    object: "an expression of a label selector",
    fields: &[
        Field::read("key"),
        Field::read("operator"),
        Field::read("values"),
    ],
};

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

impl LabelSelector {
    /// The same in the language that all policies are selected by.
    pub(super) fn to_selector(&self) -> Selector {
        if self.0.is_empty() {
            return Selector::ALL;
        }
        let parts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        Selector::parse(&parts.join(" && ")).expect("labels and values have no quotes")
    }

    /// Whether no labels can be selected by both, as far as two requirements
    /// for one label say it.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        self.0.iter().any(|a| {
            let contradicts = |b: &Requirement| a.label == b.label && a.is.contradicts(&b.is);
            other.0.iter().any(contradicts)
        })
    }
}

impl Is {
    fn contradicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(a), Self::In(b)) => !a.iter().any(|value| b.contains(value)),
            (Self::In(a), Self::NotIn(b)) | (Self::NotIn(b), Self::In(a)) => {
                a.iter().all(|value| b.contains(value))
            }
            (Self::NotThere, Self::In(_) | Self::There)
            | (Self::In(_) | Self::There, Self::NotThere) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        let quoted = |values: &[String]| {
            let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
            values.join(", ")
        };
        match &self.is {
            Is::In(values) if values.len() == 1 => write!(f, "{label} == {}", quoted(values)),
            Is::NotIn(values) if values.len() == 1 => write!(f, "{label} != {}", quoted(values)),
            Is::In(values) => write!(f, "{label} in {{{}}}", quoted(values)),
            Is::NotIn(values) => write!(f, "{label} not in {{{}}}", quoted(values)),
            Is::There => write!(f, "has({label})"),
            Is::NotThere => write!(f, "!has({label})"),
        }
    }
}

/// Reads and validates a label selector. What is illegal is reported and left
/// out.
pub(super) fn read(
    node: &Node<'_>,
    path: Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<LabelSelector> {
    let object = Object::open(node, &TABLE, path, reporter)?;
    let mut requirements = Vec::new();
    let labels_path = object.path("matchLabels");
    for (key, found) in object.text_map("matchLabels", reporter) {
        let path = labels_path.field(&key.value.text);
        let valid = [label(&key, &path, reporter), value(&found, &path, reporter)];
        if valid == [true, true] {
            requirements.push(Requirement {
                label: key.value.text.into_owned(),
                is: Is::In(vec![found.value.text.into_owned()]),
            });
        }
    }
    if let Some(entry) = object.get("matchExpressions", reporter) {
        let path = object.path("matchExpressions");
        let items = schema::sequence(&entry.value, &path, reporter).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            requirements.extend(expression(item, path.index(index), reporter));
        }
    }
    Some(LabelSelector(requirements))
}

fn expression(node: &Node<'_>, path: Path<'_>, reporter: &mut Reporter<'_>) -> Option<Requirement> {
    let errors_before = reporter.errors();
    let object = Object::open(node, &EXPRESSION, path, reporter)?;
    let key_help = "name the label that the expression is about: `key: role`";
    let key = object.require_text("key", key_help, reporter);
    if let Some(key) = &key {
        label(key, &object.path("key"), reporter);
    }
    let operator_help = "say what the label must be: `operator: In`";
    let operator = object.require_text("operator", operator_help, reporter);
    let values = object.texts("values", reporter);
    let values_path = object.path("values");
    for (index, text) in &values.items {
        value(text, &values_path.index(*index), reporter);
    }
    let (key, operator) = (key?, operator?);
    let name = &*operator.value.text;
    let set = matches!(name, "In" | "NotIn");
    if !OPERATORS.contains(&name) {
        let near = nearest(name, OPERATORS.into_iter());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the operators are {}", schema::list(OPERATORS.into_iter())),
        };
        let message = format!("{} is no operator of a label selector", quote(name));
        let diagnostic = Diagnostic::error(Code::InvalidValue, message)
            .field(object.path("operator"))
            .label("not known")
            .help(help);
        reporter.report(operator.span, diagnostic);
    } else if set && values.items.is_empty() {
        let diagnostic = Diagnostic::error(
            Code::MissingField,
            format!("the operator `{name}` needs values"),
        )
        .field(values_path)
        .label("compares with nothing")
        .help("list the values: `values: [a, b]`");
        reporter.report(operator.span, diagnostic);
    } else if let (false, Some((_, first))) = (set, values.items.first()) {
        let diagnostic = Diagnostic::error(
            Code::InvalidValue,
            format!("the operator `{name}` takes no values"),
        )
        .field(values_path)
        .label("would not be looked at")
        .help("remove the values, or compare with `In` or `NotIn`");
        reporter.report(first.span, diagnostic);
    }
    if reporter.errors() > errors_before {
        return None;
    }
    let values = values.items.into_iter();
    let values = values.map(|(_, text)| text.value.text.into_owned());
    Some(Requirement {
        is: match name {
            "In" => Is::In(values.collect()),
            "NotIn" => Is::NotIn(values.collect()),
            "Exists" => Is::There,
            _ => Is::NotThere,
        },
        label: key.value.text.into_owned(),
    })
}

/// A label's name: up to 63 characters, behind a domain and a slash if need be.
fn label(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> bool {
    let name = &*text.value.text;
    let (domain, rest) = match name.split_once('/') {
        Some((domain, rest)) => (Some(domain), rest),
        None => (None, name),
    };
    if domain.is_none_or(values::is_dns_name) && !rest.is_empty() && is_label_text(rest) {
        return true;
    }
    let message = format!("{} can't be the name of a label", quote(name));
    reporter.report(
        text.span,
        Diagnostic::error(Code::InvalidName, message)
            .field(path)
            .label("not a valid name")
            .help(
                "names have 1 to 63 of the characters a-z, A-Z, 0-9, `_`, `.` and `-`, and may \
                 stand behind a domain and `/`",
            ),
    );
    false
}

fn value(text: &Text<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> bool {
    if is_label_text(&text.value.text) {
        return true;
    }
    let message = format!("{} can't be the value of a label", quote(&text.value.text));
    reporter.report(
        text.span,
        Diagnostic::error(Code::InvalidValue, message)
            .field(path)
            .label("no object can have it")
            .help(
                "values have up to 63 of the characters a-z, A-Z, 0-9, `_`, `.` and `-`, and \
                 begin and end with a letter or digit",
            ),
    );
    false
}

fn is_label_text(text: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && end(text.as_bytes().first())
        && end(text.as_bytes().last())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::yaml;
    use super::*;

    fn selector(text: &str) -> LabelSelector {
        let sources = [Source::new("t", text)];
        let mut reporter = Reporter::new(&sources);
        let roots = yaml::parse(0, &sources[0], &mut reporter);
        let found = read(&roots[0], Path::ROOT, &mut reporter).expect("a mapping");
        assert_eq!(reporter.finish(), [], "{text}");
        found
    }

    #[test]
    fn selects_what_kubernetes_selects() {
        for (text, expected) in [
            ("{}", "all()"),
            ("{matchLabels: {}, matchExpressions: []}", "all()"),
            ("matchLabels: {a.b/c: d, e: ''}", "a.b/c == 'd' && e == ''"),
            (
                "matchExpressions: [{key: a, operator: In, values: [b, c]}]",
                "a in {'b', 'c'}",
            ),
            (
                "matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]",
                "a not in {'b', 'c'}",
            ),
            (
                "matchExpressions: [{key: a, operator: NotIn, values: [b]}]",
                "a != 'b'",
            ),
            ("matchExpressions: [{key: a, operator: Exists}]", "has(a)"),
            (
                "{matchLabels: {in: has}, matchExpressions: [{key: all, operator: DoesNotExist, \
                 values: []}]}",
                "in == 'has' && !has(all)",
            ),
        ] {
            assert_eq!(selector(text).to_selector().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn some_exclude_each_other() {
        let expression = |operator: &str, values: &str| {
            selector(&format!(
                "matchExpressions: [{{key: a, operator: {operator}, values: [{values}]}}]"
            ))
        };
        let (b, b_or_c) = (expression("In", "b"), expression("In", "b, c"));
        let (d, not_b) = (expression("In", "d"), expression("NotIn", "b"));
        let (there, not_there) = (expression("Exists", ""), expression("DoesNotExist", ""));
        let other = selector("matchLabels: {x: d}");
        for (one, another, excluded) in [
            (&b, &b, false),
            (&b, &b_or_c, false),
            (&b, &d, true),
            (&b_or_c, &d, true),
            (&b, &not_b, true),
            (&b_or_c, &not_b, false),
            (&not_b, &d, false),
            (&there, &b, false),
            (&not_there, &b, true),
            (&not_there, &there, true),
            (&not_there, &not_b, false),
            (&b, &other, false),
            (&LabelSelector::default(), &b, false),
        ] {
            assert_eq!(one.excludes(another), excluded, "{one:?} {another:?}");
            assert_eq!(another.excludes(one), excluded, "{another:?} {one:?}");
        }
    }
}
