//! Text → tree, every node with its span.
//!
//! The subset of YAML that policies need: mappings with text keys, sequences,
//! scalars. What could make a document mean something else than it shows
//! (anchors, merge keys, foreign tags, duplicate keys) is an error, and so is
//! what could exhaust memory. JSON is read as the YAML it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};

use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::source::{MAX_BYTES, Source, Span};

/// How deep collections may be nested. Policies need about 8.
pub const MAX_DEPTH: usize = 64;

/// How many values a file may have. A million-line list fits.
pub const MAX_NODES: usize = 4_000_000;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'t> {
    /// The bytes it was written in; quotes belong to it.
    pub span: Span,
    /// The value.
    pub value: Value<'t>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'t> {
    /// A single value.
    Scalar(Scalar<'t>),
    /// A list.
    Sequence(Vec<Node<'t>>),
    /// Fields, in the order they were written in, each once.
    Mapping(Vec<Entry<'t>>),
    /// Something that was reported already. Readers pass over it silently.
    Invalid,
}

/// One field of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'t> {
    /// The key.
    pub key: Cow<'t, str>,
    /// The key's place.
    pub key_span: Span,
    /// The value.
    pub value: Node<'t>,
}

/// A scalar as it was written: what type it is depends on the field it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar<'t> {
    /// The text, escapes and line folding resolved.
    pub text: Cow<'t, str>,
    /// Whether it was plain, so that `true` and `1` mean more than their text.
    pub plain: bool,
}

impl Scalar<'_> {
    /// Whether nothing was written, or YAML's null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node<'_> {
    /// Whether nothing was written, or YAML's null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// What it is, for "found …".
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(scalar) if !scalar.plain => "quoted text",
            Value::Scalar(scalar) if matches!(&*scalar.text, "true" | "false") => "a boolean",
            Value::Scalar(scalar) if scalar.text.parse::<f64>().is_ok() => "a number",
            Value::Scalar(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Invalid => "something invalid",
        }
    }
}

/// Reads all documents of a source. Of a broken document nothing is returned;
/// the ones after it are read all the same, so that their errors show as well.
pub(super) fn parse<'t>(file: u32, source: &'t Source, reporter: &mut Reporter) -> Vec<Node<'t>> {
    parse_bounded(file, source, MAX_NODES, reporter)
}

fn parse_bounded<'t>(
    file: u32,
    source: &'t Source,
    max_nodes: usize,
    reporter: &mut Reporter,
) -> Vec<Node<'t>> {
    if source.text().len() as u64 > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        reporter.report(
            Span::start_of(file),
            Diagnostic::error(Code::YamlLimit, message).help("split it into several files"),
        );
        return Vec::new();
    }
    let options = granit_parser::options! {
        emit_comments: false,
        // Reported as what they are, not as syntax errors.
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
    };
    let mut reader = Reader {
        file,
        text: source.text(),
        nodes_left: max_nodes,
        documents: Vec::new(),
        open: Vec::new(),
        reporter,
    };
    let mut parser = Parser::new_from_str_with_options(source.text(), options);
    loop {
        let outcome = match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => reader.event(event, span),
            Some(Err(error)) => {
                reader.syntax_error(&error);
                Err(Broken)
            }
        };
        if outcome.is_err() {
            reader.open.clear();
            match parser.proceed_next_document() {
                Ok(true) if reader.nodes_left > 0 => {}
                // An error here is of the text that recovery looked at, and that
                // text is part of the document reported on already.
                _ => break,
            }
        }
    }
    reader.documents
}

/// The document can't be read on; why is reported.
struct Broken;

/// A collection whose end has not been seen yet.
struct Open<'t> {
    start: u32,
    content: Content<'t>,
}

enum Content<'t> {
    Sequence(Vec<Node<'t>>),
    Mapping {
        entries: Vec<Entry<'t>>,
        seen: HashMap<Cow<'t, str>, Span>,
        /// The key whose value comes next; `None` in it was reported already.
        key: Option<(Option<Cow<'t, str>>, Span)>,
    },
}

struct Reader<'t, 'r, 's> {
    file: u32,
    text: &'t str,
    nodes_left: usize,
    documents: Vec<Node<'t>>,
    open: Vec<Open<'t>>,
    reporter: &'r mut Reporter<'s>,
}

impl<'t> Reader<'t, '_, '_> {
    fn event(&mut self, event: Event<'t>, span: granit_parser::Span) -> Result<(), Broken> {
        let place = self.span(span);
        let tag_place = span.tag_span().map_or(place, |span| self.span(span));
        match event {
            Event::Scalar(text, style, _, tag) => {
                let value = if self.tag_fits(tag.as_deref(), tag_place, &SCALAR_TAGS) {
                    let text_tag = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                    let plain = style == ScalarStyle::Plain && !text_tag;
                    Value::Scalar(Scalar { text, plain })
                } else {
                    Value::Invalid
                };
                self.node(Node { span: place, value })
            }
            Event::Anchor(..) => {
                self.alias(place, "an anchor");
                Ok(())
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.alias(place, "an alias");
                self.node(Node {
                    span: place,
                    value: Value::Invalid,
                })
            }
            Event::SequenceStart(_, _, tag) => {
                self.tag_fits(tag.as_deref(), tag_place, &["seq"]);
                self.begin(place, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(_, _, tag) => {
                self.tag_fits(tag.as_deref(), tag_place, &["map"]);
                let content = Content::Mapping {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                };
                self.begin(place, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(place),
            // Of streams and documents only what is in them counts. `Event` may
            // grow, by things that have to be asked for.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, place: Span, content: Content<'t>) -> Result<(), Broken> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("collections are nested more than {MAX_DEPTH} levels deep");
            let diagnostic = Diagnostic::error(Code::YamlLimit, message)
                .help("no policy needs that; check that it is the right file");
            return self.fatal(place, diagnostic);
        }
        if let Some(Open {
            content: Content::Mapping { key: None, .. },
            ..
        }) = self.open.last()
        {
            let diagnostic = Diagnostic::error(Code::WrongType, "a field's name must be text")
                .label("a collection used as a name")
                .help("if this is a value in braces or brackets, put quotes around it");
            return self.fatal(place, diagnostic);
        }
        self.open.push(Open {
            start: place.start,
            content,
        });
        Ok(())
    }

    fn end(&mut self, place: Span) -> Result<(), Broken> {
        let Some(Open { start, content }) = self.open.pop() else {
            return Ok(());
        };
        // A block collection is only known to have ended where the next thing
        // begins.
        let written = self.text.get(start as usize..place.end as usize);
        let length = written.map_or(0, |text| text.trim_end().len());
        let value = match content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, .. } => Value::Mapping(entries),
        };
        self.node(Node {
            span: Span {
                file: self.file,
                start,
                end: start + to_u32(length),
            },
            value,
        })
    }

    /// Puts a finished node where it belongs: a document, a list, or in a
    /// mapping first as the key and then as its value.
    fn node(&mut self, node: Node<'t>) -> Result<(), Broken> {
        let Some(nodes_left) = self.nodes_left.checked_sub(1) else {
            let message = format!("the file has more than {MAX_NODES} values");
            let diagnostic =
                Diagnostic::error(Code::YamlLimit, message).help("split it into several files");
            return self.fatal(node.span, diagnostic);
        };
        self.nodes_left = nodes_left;
        let reporter = &mut *self.reporter;
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, seen, key }) => match key.take() {
                None => *key = Some(to_key(node, reporter)),
                Some((None, _)) => {}
                Some((Some(name), key_span)) => {
                    if let Some(&first) = seen.get(&name) {
                        let diagnostic = Diagnostic::error(
                            Code::DuplicateKey,
                            format!("{} stands twice in one mapping", quote(&name)),
                        )
                        .label("the second one")
                        .related(reporter.place(first), "the first one")
                        .help(
                            "YAML would silently drop one of them; \
                             keep one, or start a new list item with `- ` if two were meant",
                        );
                        reporter.report(key_span, diagnostic);
                    } else {
                        seen.insert(name.clone(), key_span);
                        entries.push(Entry {
                            key: name,
                            key_span,
                            value: node,
                        });
                    }
                }
            },
        }
        Ok(())
    }

    /// Whether an explicit tag says what the field's type says anyway.
    fn tag_fits(&mut self, tag: Option<&Tag>, place: Span, fitting: &[&str]) -> bool {
        let Some(tag) = tag else { return true };
        if tag
            .core_suffix()
            .is_some_and(|name| fitting.contains(&name))
        {
            return true;
        }
        let diagnostic = Diagnostic::error(
            Code::YamlTag,
            format!(
                "the YAML tag {} is not allowed here",
                quote(&tag.original())
            ),
        )
        .label("a word that begins with `!` is a tag")
        .help("if it belongs to the value, put the whole value in quotes; else remove it");
        self.reporter.report(place, diagnostic);
        false
    }

    fn alias(&mut self, place: Span, what: &str) {
        let diagnostic =
            Diagnostic::error(Code::YamlAlias, "YAML anchors and aliases are not allowed")
                .label(what)
                .help(
                    "write the value out where it is used; \
                 if the `&` or `*` belongs to the value, put the value in quotes",
                );
        self.reporter.report(place, diagnostic);
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let start = error.marker().byte_offset().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        let place = Span {
            file: self.file,
            start: to_u32(start),
            end: to_u32(start + rest.chars().next().map_or(0, char::len_utf8)),
        };
        let diagnostic = match error.kind() {
            ErrorKind::RecursionLimitExceeded => Diagnostic::error(
                Code::YamlLimit,
                format!("collections are nested more than {MAX_DEPTH} levels deep"),
            )
            .help("no policy needs that; check that it is the right file"),
            kind => Diagnostic::error(Code::YamlSyntax, format!("not valid YAML: {kind}"))
                .help(syntax_help(kind)),
        };
        self.reporter.report(place, diagnostic);
    }

    fn fatal(&mut self, place: Span, diagnostic: Diagnostic) -> Result<(), Broken> {
        self.reporter.report(place, diagnostic);
        Err(Broken)
    }

    fn span(&self, span: granit_parser::Span) -> Span {
        let bytes = span.byte_range().unwrap_or_default();
        Span {
            file: self.file,
            start: to_u32(bytes.start),
            end: to_u32(bytes.end.max(bytes.start)),
        }
    }
}

/// The tags that say no more of a scalar than its field's type does.
const SCALAR_TAGS: [&str; 5] = ["str", "int", "float", "bool", "null"];

fn to_key<'t>(node: Node<'t>, reporter: &mut Reporter) -> (Option<Cow<'t, str>>, Span) {
    let name = match node.value {
        Value::Scalar(scalar) if scalar.plain && scalar.text == "<<" => {
            let diagnostic = Diagnostic::error(Code::YamlAlias, "YAML merge keys are not allowed")
                .label("merges another mapping into this one")
                .help("write the fields out where they are used");
            reporter.report(node.span, diagnostic);
            None
        }
        Value::Scalar(scalar) => Some(scalar.text),
        // Only aliases and foreign tags get here, and those are reported.
        _ => None,
    };
    (name, node.span)
}

/// What most often leads to a syntax error.
fn syntax_help(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => "indent with spaces: YAML does not allow tabs there",
        ErrorKind::MissingAnchorOrAliasName => {
            "a value that begins with `*` or `&` must be in quotes: \"*\""
        }
        ErrorKind::UnclosedQuotedScalar => "close the quotes",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::MismatchedFlowCollectionEnd { .. }
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence => "close each bracket and brace that was opened",
        ErrorKind::UnexpectedCharacter { .. } => {
            "a value that begins with a special character must be in quotes"
        }
        _ => {
            "the mistake may be in the line before: check that fields of one level have the \
             same indentation, that a space follows each `:` and `-`, and that values with \
             special characters are in quotes"
        }
    }
}

/// The place of a part of a scalar's text in the source, as far as quotes,
/// escapes and folded lines let it be told.
pub(super) fn locate(source: &Source, span: Span, text: &str, part: Range<usize>) -> Span {
    let (start, end) = (span.start as usize, span.end as usize);
    let Some(written) = source.text().get(start..end) else {
        return span;
    };
    let offsets = Offsets::new(written, text);
    let first = offsets.of(part.start);
    let last = offsets.of(part.end).max(first);
    Span {
        file: span.file,
        start: to_u32(start + first),
        end: to_u32(start + last),
    }
}

/// Walks a scalar as written beside its text.
struct Offsets<'a> {
    written: &'a str,
    text: &'a str,
    /// How many bytes of quotes come before the text.
    quotes: usize,
    escapes: bool,
}

impl<'a> Offsets<'a> {
    fn new(written: &'a str, text: &'a str) -> Self {
        // The span of a block scalar begins with its text, which may begin with
        // quotes of its own.
        let quoted = |quote: char, escaped: &str| {
            written
                .strip_prefix(quote)
                .is_some_and(|inner| !text.starts_with(quote) || inner.starts_with(escaped))
        };
        let escapes = quoted('"', "\\\"");
        Self {
            written,
            text,
            quotes: usize::from(escapes || quoted('\'', "''")),
            escapes,
        }
    }

    /// Where byte `offset` of the text was written.
    fn of(&self, offset: usize) -> usize {
        let mut at = self.quotes;
        for (_, wanted) in self.text.char_indices().take_while(|&(i, _)| i < offset) {
            at = self.after(at, wanted);
        }
        // Where the wanted character comes after a line break or an extra quote,
        // its own place is meant and not the end of the one before.
        match self.text.get(offset..).and_then(|rest| rest.chars().next()) {
            Some(wanted) => self.find(at, wanted).0,
            None => at.min(self.written.len()),
        }
    }

    /// The offset behind the next `wanted`.
    fn after(&self, at: usize, wanted: char) -> usize {
        self.find(at, wanted).1
    }

    /// Where the next `wanted` begins and ends.
    fn find(&self, mut at: usize, wanted: char) -> (usize, usize) {
        while let Some(found) = self.written.get(at..).and_then(|rest| rest.chars().next()) {
            let length = self.length(at, found);
            if found == wanted || (wanted.is_whitespace() && found.is_whitespace()) {
                return (at, at + found.len_utf8());
            }
            if found == '\\' && self.escapes {
                return (at, at + length);
            }
            at += length;
        }
        (self.written.len(), self.written.len())
    }

    fn length(&self, at: usize, found: char) -> usize {
        if found != '\\' || !self.escapes {
            return found.len_utf8();
        }
        match self.written[at + 1..].chars().next() {
            Some('x') => 4,
            Some('u') => 6,
            Some('U') => 10,
            Some(escaped) => 1 + escaped.len_utf8(),
            None => 1,
        }
    }
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::source::Position;
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let sources = [Source::new("t", text)];
        let mut reporter = Reporter::new(&sources);
        let documents = parse(0, &sources[0], &mut reporter);
        let shown = documents.iter().map(|node| show(node, sources[0].text()));
        let diagnostics = reporter.finish();
        let errors = diagnostics.iter().map(|diagnostic| {
            let place = diagnostic.place.as_ref().expect("a place");
            let (start, end) = (place.span.start as usize, place.span.end as usize);
            let Position { line, column } = place.start;
            format!(
                "{line}:{column} {} {:?}",
                diagnostic.code,
                &sources[0].text()[start..end]
            )
        });
        (shown.collect(), errors.collect())
    }

    /// A node and what it was written as.
    fn show(node: &Node<'_>, text: &str) -> String {
        let written = &text[node.span.start as usize..node.span.end as usize];
        match &node.value {
            Value::Scalar(scalar) if scalar.plain => format!("{}<{written}>", scalar.text),
            Value::Scalar(scalar) => format!("{:?}<{written}>", scalar.text),
            Value::Sequence(items) => {
                let items: Vec<_> = items.iter().map(|item| show(item, text)).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|entry| {
                    let (start, end) = (entry.key_span.start, entry.key_span.end);
                    let key = &text[start as usize..end as usize];
                    format!("{}<{key}>: {}", entry.key, show(&entry.value, text))
                });
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            Value::Invalid => "invalid".to_owned(),
        }
    }

    #[test]
    fn every_node_has_its_place() {
        for (text, expected) in [
            ("a: 1", "{a<a>: 1<1>}"),
            ("\u{feff}a: é # note", "{a<a>: é<é>}"),
            (
                "- a\n- 'b''c'\n- \"d\\n\"\n",
                "[a<a> \"b'c\"<'b''c'> \"d\\n\"<\"d\\n\">]",
            ),
            ("{\"a\":[1,{}]}", "{a<\"a\">: [1<1> {}]}"),
            ("a: !!str 1\nb: !!int 2", "{a<a>: \"1\"<1>, b<b>: 2<2>}"),
            ("a: >-\n  b\n  c\n", "{a<a>: \"b c\"<b\n  c\n>}"),
        ] {
            assert_eq!(read(text), (vec![expected.to_owned()], vec![]), "{text}");
        }
        assert_eq!(read("a: ~\n---\n---\nnull\n").0.len(), 3);
        assert_eq!(read("").0.len(), 0);
    }

    #[test]
    fn refuses_what_could_mislead() {
        for (text, expected) in [
            ("a: &x 1", vec!["1:4 yaml-alias \"&x\""]),
            ("a: *x", vec!["1:4 yaml-alias \"*x\""]),
            (
                "a: &x 1\nb: *x",
                vec!["1:4 yaml-alias \"&x\"", "2:4 yaml-alias \"*x\""],
            ),
            ("*x : 1", vec!["1:1 yaml-alias \"*x\""]),
            ("a: &x [1]", vec!["1:4 yaml-alias \"&x\""]),
            ("<<: {a: 1}", vec!["1:1 yaml-alias \"<<\""]),
            ("a: !x 1", vec!["1:4 yaml-tag \"!x\""]),
            ("a: !!binary aGk=", vec!["1:4 yaml-tag \"!!binary\""]),
            ("a: !!map [1]", vec!["1:4 yaml-tag \"!!map\""]),
            ("!!set {a}", vec!["1:1 yaml-tag \"!!set\""]),
            ("a: 1\nb: 2\na: 3", vec!["3:1 duplicate-key \"a\""]),
            ("{a: 1, \"a\": 2}", vec!["1:8 duplicate-key \"\\\"a\\\"\""]),
            ("[a]: 1", vec!["1:1 wrong-type \"[\""]),
            ("a: [1", vec!["1:4 yaml-syntax \"[\""]),
            ("a:\n\tb: 1", vec!["2:2 yaml-syntax \"b\""]),
            ("a: 'b", vec!["1:4 yaml-syntax \"'\""]),
            ("a: b: c", vec!["1:5 yaml-syntax \":\""]),
        ] {
            let (_, errors) = read(text);
            assert_eq!(errors, expected, "{text}");
        }
        // The quoted ones are text.
        assert_eq!(read("\"<<\": 1\nb: '*x'\nc: '!x'").1, Vec::<String>::new());
    }

    #[test]
    fn goes_on_behind_a_broken_document() {
        let (documents, errors) = read("a: [\n---\nb: 1\n---\nc: 'x\n---\nd: 2\n");
        assert_eq!(documents[0], "{b<b>: 1<1>}");
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn bounds_what_it_builds() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&nested(MAX_DEPTH)).1, Vec::<String>::new());
        assert_eq!(read(&nested(MAX_DEPTH + 1)).1, ["1:65 yaml-limit \"[\""]);
        assert_eq!(read(&nested(100_000)).1.len(), 1);
        assert_eq!(read(&"- ".repeat(100_000)).1.len(), 1);
    }

    #[test]
    fn bounds_the_number_of_values() {
        let sources = [Source::new("t", "[1, 2]\n---\n[3, 4]\n---\n5\n")];
        for (max_nodes, documents, errors) in [(7, 3, 0), (6, 2, 1), (5, 1, 1), (2, 0, 1)] {
            let mut reporter = Reporter::new(&sources);
            let found = parse_bounded(0, &sources[0], max_nodes, &mut reporter);
            let outcome = (found.len(), reporter.errors());
            assert_eq!(outcome, (documents, errors), "{max_nodes}");
        }
    }

    /// The part of the source that a part of a scalar's text was written as.
    fn located(written: &str, part: Range<usize>) -> String {
        let sources = [Source::new("t", written)];
        let mut reporter = Reporter::new(&sources);
        let node = parse(0, &sources[0], &mut reporter).remove(0);
        let Value::Scalar(scalar) = node.value else {
            panic!("{written} is no scalar");
        };
        let span = locate(&sources[0], node.span, &scalar.text, part);
        written[span.start as usize..span.end as usize].to_owned()
    }

    #[test]
    fn finds_parts_of_scalars() {
        for (written, part, expected) in [
            ("abc", 1..2, "b"),
            ("abc", 3..3, ""),
            ("'abc'", 1..2, "b"),
            ("'a''b''c'", 4..5, "c"),
            ("\"a\\\"bc\"", 2..3, "b"),
            ("\"a\\u00e9bc\"", 3..4, "b"),
            ("\"\\x61bc\"", 1..2, "b"),
            ("\"é→b\"", 5..6, "b"),
            (">-\n  a\n  b\n", 2..3, "b"),
            ("|\n  a\n   b\n", 3..4, "b"),
            ("|\n  \"a\" b\n", 4..5, "b"),
            ("'''a'", 1..2, "a"),
            ("\"\\\"a\"", 1..2, "a"),
            ("'a\n\n  b'", 2..3, "b"),
            ("plain and\n  folded", 10..16, "folded"),
        ] {
            assert_eq!(located(written, part), expected, "{written}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any_yaml()) {
            let sources = [Source::new("t", text.as_str())];
            let mut reporter = Reporter::new(&sources);
            for node in parse(0, &sources[0], &mut reporter) {
                within(&node, sources[0].text());
            }
        }
    }

    /// Text that is more often almost YAML than chance would have it.
    fn any_yaml() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec![
            "a",
            ": ",
            "- ",
            "\n",
            "  ",
            "\t",
            "[",
            "]",
            "{",
            "}",
            ",",
            "'",
            "\"",
            "&x ",
            "*x",
            "!t ",
            "<<",
            "---\n",
            "...\n",
            "|\n",
            ">-\n",
            "#",
            "\\",
            "é",
            "\u{feff}",
            "\r\n",
            "~",
            "%YAML 1.2\n",
            "? ",
            "\0",
            "\\x4",
        ]);
        let tokens = prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat());
        prop_oneof![tokens, "\\PC{0,60}"]
    }

    /// Every span lies in the text and on characters.
    fn within(node: &Node<'_>, text: &str) {
        assert!(
            text.get(node.span.start as usize..node.span.end as usize)
                .is_some()
        );
        match &node.value {
            Value::Sequence(items) => items.iter().for_each(|item| within(item, text)),
            Value::Mapping(entries) => entries.iter().for_each(|entry| within(&entry.value, text)),
            Value::Scalar(scalar) => {
                let sources = [Source::new("t", text)];
                for at in 0..=scalar.text.len() {
                    let span = locate(&sources[0], node.span, &scalar.text, at..at);
                    assert!(text.get(span.start as usize..span.end as usize).is_some());
                }
            }
            Value::Invalid => {}
        }
    }
}
