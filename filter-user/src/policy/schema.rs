//! How documents are read: a table says which fields an object has and what
//! becomes of each, so that none can be passed over in silence.

use std::fmt;

use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::source::Span;
use super::yaml::{Entry, Node, Scalar, Value};

/// The fields of one kind of object.
#[derive(Debug)]
pub(super) struct Table {
    /// The object, for "a v1 policy has no field …".
    pub(super) object: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field that an object may have.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) using: Use,
}

/// What becomes of a field.
#[derive(Debug)]
pub(super) enum Use {
    /// The object has no such field, but people expect it to; says where it
    /// belongs.
    Elsewhere(&'static str),
    /// It is read. If it holds an object, its table is here as well, so that
    /// a field that lost its indentation can be put back by the message.
    Read(Option<&'static Table>),
    /// A mapping that its author's other tools read, and that decides nothing.
    Note,
    /// What a cluster writes into objects that are read back from it. It says
    /// nothing of what the object asks for, whatever it holds.
    Recorded,
    /// It is valid, and this version doesn't enforce it: an error, unless it is
    /// written with the value that it has anyway.
    Later {
        neutral: Neutral,
        /// What is missing, for under the caret.
        why: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
}

/// The value with which a field means the same as if it weren't there.
#[derive(Debug)]
pub(super) enum Neutral {
    /// There is none.
    None,
    /// An empty list, mapping or text.
    Empty,
    Text(&'static str),
}

impl Field {
    pub(super) const fn read(name: &'static str) -> Self {
        Self {
            name,
            using: Use::Read(None),
        }
    }

    pub(super) const fn object(name: &'static str, table: &'static Table) -> Self {
        Self {
            name,
            using: Use::Read(Some(table)),
        }
    }

    pub(super) const fn note(name: &'static str) -> Self {
        Self {
            name,
            using: Use::Note,
        }
    }

    pub(super) const fn recorded(name: &'static str) -> Self {
        Self {
            name,
            using: Use::Recorded,
        }
    }

    pub(super) const fn elsewhere(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            using: Use::Elsewhere(help),
        }
    }

    pub(super) const fn later(
        name: &'static str,
        neutral: Neutral,
        why: &'static str,
        instead: &'static str,
    ) -> Self {
        Self {
            name,
            using: Use::Later {
                neutral,
                why,
                instead,
            },
        }
    }
}

impl Neutral {
    fn holds(&self, node: &Node<'_>) -> bool {
        match (self, &node.value) {
            (Self::Empty, Value::Scalar(scalar)) => !scalar.plain && scalar.text.is_empty(),
            (Self::Empty, Value::Sequence(items)) => items.is_empty(),
            (Self::Empty, Value::Mapping(entries)) => entries.is_empty(),
            (Self::Text(text), Value::Scalar(scalar)) => scalar.text == *text,
            _ => false,
        }
    }
}

/// The way from a document's root to a value: `spec.ingress[0].action`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Self = Self {
        parent: None,
        step: Step::Root,
    };

    pub(super) const fn field(&'p self, name: &'p str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    pub(super) const fn index(&'p self, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Index(index),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below_root = match self.parent {
            Some(parent) => {
                parent.fmt(f)?;
                !matches!(parent.step, Step::Root)
            }
            None => false,
        };
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if below_root => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A scalar with its place.
pub(super) type Text<'t> = Spanned<Scalar<'t>>;

/// An object whose fields are held against a table.
#[derive(Debug)]
pub(super) struct Object<'p, 'n, 't> {
    span: Span,
    table: &'static Table,
    entries: &'n [Entry<'t>],
    path: Path<'p>,
}

impl<'p, 'n, 't> Object<'p, 'n, 't> {
    /// Opens a mapping, and reports every field that will not be read. `None`
    /// if it is no mapping at all.
    pub(super) fn open(
        node: &'n Node<'t>,
        table: &'static Table,
        path: Path<'p>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Self> {
        let object = Self::head(node, table, path, reporter)?;
        for entry in object.entries {
            check_field(entry, table, &path, reporter);
        }
        Some(object)
    }

    /// Opens a mapping of which only some fields are looked at, to learn what
    /// it is.
    pub(super) fn head(
        node: &'n Node<'t>,
        table: &'static Table,
        path: Path<'p>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            wrong_type(node, "a mapping (`field: value` lines)", &path, reporter);
            return None;
        };
        Some(Self {
            span: node.span,
            table,
            entries,
            path,
        })
    }

    /// The path of one of its fields.
    pub(super) fn path<'a>(&'a self, name: &'a str) -> Path<'a> {
        self.path.field(name)
    }

    /// A field that is there. One without a value is reported and counts as
    /// not there.
    pub(super) fn get(
        &self,
        name: &'static str,
        reporter: &mut Reporter<'_>,
    ) -> Option<&'n Entry<'t>> {
        debug_assert!(
            self.table
                .find(name)
                .is_some_and(|field| matches!(field.using, Use::Read(_))),
            "{name} is read, so the table must say so"
        );
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        if !entry.value.is_null() {
            return Some(entry);
        }
        reporter.report(
            entry.key_span,
            Diagnostic::error(Code::EmptyValue, format!("`{name}` has no value"))
                .field(self.path(name))
                .label("nothing belongs to this field")
                .help(
                    "write its value behind the colon, or indented below it; \
                     remove the line if it is not needed",
                ),
        );
        None
    }

    /// A field that must be there.
    pub(super) fn require(
        &self,
        name: &'static str,
        help: &str,
        reporter: &mut Reporter<'_>,
    ) -> Option<&'n Entry<'t>> {
        if !self.entries.iter().any(|entry| entry.key == name) {
            reporter.report(
                self.start(),
                Diagnostic::error(
                    Code::MissingField,
                    format!("{} needs the field `{name}`", self.table.object),
                )
                .field(self.path(name))
                .label(format!("`{name}` is missing here"))
                .help(help),
            );
        }
        self.get(name, reporter)
    }

    /// A field that holds a single value.
    pub(super) fn text(&self, name: &'static str, reporter: &mut Reporter<'_>) -> Option<Text<'t>> {
        let entry = self.get(name, reporter)?;
        text(&entry.value, &self.path(name), reporter)
    }

    /// A field that must be there and holds a single value.
    pub(super) fn require_text(
        &self,
        name: &'static str,
        help: &str,
        reporter: &mut Reporter<'_>,
    ) -> Option<Text<'t>> {
        let entry = self.require(name, help, reporter)?;
        text(&entry.value, &self.path(name), reporter)
    }

    /// A field that holds `true` or `false`.
    pub(super) fn boolean(
        &self,
        name: &'static str,
        reporter: &mut Reporter<'_>,
    ) -> Option<Spanned<bool>> {
        let entry = self.get(name, reporter)?;
        boolean(&entry.value, &self.path(name), reporter)
    }

    /// A field that holds a number.
    pub(super) fn number(
        &self,
        name: &'static str,
        reporter: &mut Reporter<'_>,
    ) -> Option<Spanned<f64>> {
        let entry = self.get(name, reporter)?;
        number(&entry.value, &self.path(name), reporter)
    }

    /// A field that holds a list of single values.
    pub(super) fn texts(&self, name: &'static str, reporter: &mut Reporter<'_>) -> Texts<'t> {
        match self.get(name, reporter) {
            Some(entry) => self.texts_in(entry, name, reporter),
            None => Texts::default(),
        }
    }

    /// A field that must be there and holds a list of single values.
    pub(super) fn require_texts(
        &self,
        name: &'static str,
        help: &str,
        reporter: &mut Reporter<'_>,
    ) -> Texts<'t> {
        match self.require(name, help, reporter) {
            Some(entry) => self.texts_in(entry, name, reporter),
            None => Texts::default(),
        }
    }

    fn texts_in(
        &self,
        entry: &Entry<'t>,
        name: &'static str,
        reporter: &mut Reporter<'_>,
    ) -> Texts<'t> {
        let path = self.path(name);
        let items = sequence(&entry.value, &path, reporter);
        Texts {
            key_span: Some(entry.key_span),
            items: items
                .unwrap_or_default()
                .iter()
                .enumerate()
                .filter_map(|(index, item)| {
                    Some((index, text(item, &path.index(index), reporter)?))
                })
                .collect(),
        }
    }

    /// A field that holds texts by name: labels.
    pub(super) fn text_map(
        &self,
        name: &'static str,
        reporter: &mut Reporter<'_>,
    ) -> Vec<(Text<'t>, Text<'t>)> {
        self.get(name, reporter)
            .map(|entry| text_map(&entry.value, &self.path(name), reporter))
            .unwrap_or_default()
    }

    /// Where the object begins: its first field, or its opening brace.
    pub(super) fn start(&self) -> Span {
        match self.entries.first() {
            Some(first) => first.key_span,
            None => self.span,
        }
    }
}

/// A list of single values, with the index that each was written at.
#[derive(Debug, Default)]
pub(super) struct Texts<'t> {
    /// Where the list's field stands; `None` if it doesn't.
    pub(super) key_span: Option<Span>,
    pub(super) items: Vec<(usize, Text<'t>)>,
}

impl Table {
    fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether a field can be written here without an error.
    fn accepts(&self, name: &str) -> bool {
        let using = self.find(name).map(|field| &field.using);
        matches!(using, Some(Use::Read(_) | Use::Note))
    }
}

fn check_field(
    entry: &Entry<'_>,
    table: &'static Table,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) {
    match table.find(&entry.key).map(|field| &field.using) {
        Some(Use::Read(_) | Use::Recorded) => {}
        Some(Use::Note) => {
            if !entry.value.is_null() {
                text_map(&entry.value, &path.field(&entry.key), reporter);
            }
        }
        Some(Use::Later {
            neutral,
            why,
            instead,
        }) => {
            if !neutral.holds(&entry.value) {
                let path = path.field(&entry.key);
                let diagnostic = not_enforced(&quote(&entry.key), why, instead).field(path);
                reporter.report(entry.key_span, diagnostic);
            }
        }
        Some(Use::Elsewhere(help)) => unknown_field(entry, table, path, *help, reporter),
        None => {
            let help = if reporter.is_full() {
                String::new()
            } else {
                unknown_field_help(&entry.key, table)
            };
            unknown_field(entry, table, path, help, reporter);
        }
    }
}

fn unknown_field(
    entry: &Entry<'_>,
    table: &'static Table,
    path: &Path<'_>,
    help: impl Into<String>,
    reporter: &mut Reporter<'_>,
) {
    let message = format!("{} has no field {}", table.object, quote(&entry.key));
    reporter.report(
        entry.key_span,
        Diagnostic::error(Code::UnknownField, message)
            .field(path.field(&entry.key))
            .label("unknown field")
            .help(help),
    );
}

/// Something that is valid, and that this version can't honour.
pub(super) fn not_enforced(what: &str, why: &str, instead: &str) -> Diagnostic {
    Diagnostic::error(
        Code::NotEnforced,
        format!("{what} is valid, but this version of nodewall does not enforce it"),
    )
    .label(why)
    .help(format!("nothing was applied; {instead}"))
}

fn unknown_field_help(name: &str, table: &'static Table) -> String {
    let names = table.fields.iter().map(|field| field.name);
    // The nearest name is the better guess for a slip of the pen, the field of
    // an object below for a line that lost its indentation.
    let below = (1..=DEEPEST).find_map(|depth| owner_below(name, table, depth));
    match (below, nearest(name, names.clone())) {
        (Some(owner), _) => format!(
            "`{name}` is a field of `{owner}`: indent it, so that it stands below `{}:`",
            owner.rsplit('.').next().unwrap_or(&owner)
        ),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!(
            "its fields are {}; a field on the wrong indentation belongs to the wrong object",
            list(names.filter(|name| table.accepts(name)))
        ),
    }
}

/// How deep objects lie in each other: `spec`, `ingress`, `source`.
const DEEPEST: usize = 3;

/// The object `depth` levels below that would have a field of this name.
fn owner_below(name: &str, table: &'static Table, depth: usize) -> Option<String> {
    table.fields.iter().find_map(|field| {
        let Use::Read(Some(child)) = field.using else {
            return None;
        };
        if depth == 1 {
            return child.accepts(name).then(|| field.name.to_owned());
        }
        let owner = owner_below(name, child, depth - 1)?;
        Some(format!("{}.{owner}", field.name))
    })
}

/// Names as a sentence lists them.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The name that was probably meant: the one with the fewest mistakes, if
/// those are few for its length.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Far longer than any known name, and the distance below is quadratic.
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| {
            (
                mistakes(&name.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|&(count, candidate)| count <= candidate.len().div_ceil(4).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be added, removed, replaced, or swapped with
/// their neighbour to turn one word into the other.
fn mistakes(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

/// Reports a value of the wrong type. Null is "no value" for whoever reads it.
fn wrong_type(node: &Node<'_>, wanted: &str, path: &Path<'_>, reporter: &mut Reporter<'_>) {
    if matches!(node.value, Value::Invalid) {
        return;
    }
    let path = path.to_string();
    let diagnostic = if path.is_empty() {
        Diagnostic::error(Code::WrongType, format!("a document must be {wanted}"))
    } else {
        Diagnostic::error(
            Code::WrongType,
            format!("{} must be {wanted}", quote(&path)),
        )
        .field(path)
    };
    reporter.report(
        node.span,
        diagnostic.label(format!("found {}", node.describe())),
    );
}

// The readers of values. Each reports a value of another type and says `None`.

fn text<'t>(node: &Node<'t>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<Text<'t>> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => Some(Spanned {
            value: scalar.clone(),
            span: node.span,
        }),
        _ => {
            wrong_type(node, "a single value", path, reporter);
            None
        }
    }
}

/// YAML 1.2's booleans. `yes` and `on` were some in YAML 1.1 and are text now,
/// so they are refused and not guessed at.
fn to_bool(scalar: &Scalar<'_>) -> Option<bool> {
    match (&*scalar.text, scalar.plain) {
        ("true" | "True" | "TRUE", true) => Some(true),
        ("false" | "False" | "FALSE", true) => Some(false),
        _ => None,
    }
}

/// A finite number. `parse` also takes words such as `inf`, and numbers with a
/// leading zero, which YAML 1.1 reads as octal.
fn to_number(scalar: &Scalar<'_>) -> Option<f64> {
    let unsigned = scalar.text.trim_start_matches(['+', '-']);
    let mut characters = unsigned.chars();
    let (first, second) = (characters.next()?, characters.next());
    let octal = first == '0' && second.is_some_and(|c| c.is_ascii_digit());
    let numeric = first.is_ascii_digit() || first == '.';
    if !scalar.plain || octal || !numeric {
        return None;
    }
    scalar
        .text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

fn boolean(node: &Node<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<Spanned<bool>> {
    let value = match &node.value {
        Value::Scalar(scalar) => to_bool(scalar),
        _ => None,
    };
    if value.is_none() {
        wrong_type(node, "`true` or `false` (without quotes)", path, reporter);
    }
    value.map(|value| Spanned {
        value,
        span: node.span,
    })
}

fn number(node: &Node<'_>, path: &Path<'_>, reporter: &mut Reporter<'_>) -> Option<Spanned<f64>> {
    let value = match &node.value {
        Value::Scalar(scalar) => to_number(scalar),
        _ => None,
    };
    if value.is_none() {
        wrong_type(node, "a number (without quotes)", path, reporter);
    }
    value.map(|value| Spanned {
        value,
        span: node.span,
    })
}

pub(super) fn sequence<'n, 't>(
    node: &'n Node<'t>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<&'n [Node<'t>]> {
    if let Value::Sequence(items) = &node.value {
        return Some(items);
    }
    let wanted = "a list (`- item` lines, or [item, item])";
    wrong_type(node, wanted, path, reporter);
    None
}

/// A mapping from text to text: labels, annotations.
fn text_map<'t>(
    node: &Node<'t>,
    path: &Path<'_>,
    reporter: &mut Reporter<'_>,
) -> Vec<(Text<'t>, Text<'t>)> {
    let Value::Mapping(entries) = &node.value else {
        wrong_type(node, "a mapping (`name: value` lines)", path, reporter);
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for entry in entries {
        if let Some(value) = text(&entry.value, &path.field(&entry.key), reporter) {
            let key = Spanned {
                value: Scalar {
                    text: entry.key.clone(),
                    plain: false,
                },
                span: entry.key_span,
            };
            pairs.push((key, value));
        }
    }
    pairs
}
