//! What is wrong with the documents, said so that it can be put right: the
//! source line, the cause under a caret, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::source::{Position, Source, Span};

/// More errors than these are counted, but not kept: a broken list of a million
/// addresses is one mistake.
pub const MAX_KEPT: usize = 1_000;

/// Longer lines are named but not shown.
const MAX_SHOWN_LINE: usize = 16_000;

/// Longer pieces of input are cut when a message quotes them.
const MAX_QUOTED: usize = 60;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It works, and probably not as intended.
    Warning,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// The stable short name of a kind of diagnostic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as it is printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// The text is not YAML.
    YamlSyntax = "yaml-syntax",
    /// An anchor, alias or merge key.
    YamlAlias = "yaml-alias",
    /// A tag outside YAML's core schema.
    YamlTag = "yaml-tag",
    /// Too large, too deep, too many values.
    YamlLimit = "yaml-limit",
    /// A key that stands twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A file without any document.
    EmptyFile = "empty-file",
    /// A file that everybody may change.
    OpenToOthers = "open-to-others",
    /// A value of another type than its field has.
    WrongType = "wrong-type",
    /// A field that is written and has no value.
    EmptyValue = "empty-value",
    /// A list of networks that a set names and that can't be read.
    UnreadableList = "unreadable-list",
    /// A peer that only a cluster could tell the addresses of.
    UnresolvablePeer = "unresolvable-peer",
    /// A field that must be there and isn't.
    MissingField = "missing-field",
    /// A field that the format doesn't have.
    UnknownField = "unknown-field",
    /// Valid in its format, and not enforced by this version.
    NotEnforced = "not-enforced",
    /// A kind or `apiVersion` that is none of the formats.
    UnknownKind = "unknown-kind",
    /// A name outside its pattern.
    InvalidName = "invalid-name",
    /// A value that its field doesn't take.
    InvalidValue = "invalid-value",
    /// Neither an address nor a CIDR.
    InvalidNet = "invalid-net",
    /// A CIDR with bits set behind its prefix.
    HostBits = "host-bits",
    /// Neither a port nor a range of ports.
    InvalidPort = "invalid-port",
    /// Ports with a protocol that has none.
    PortsNeedProtocol = "ports-need-protocol",
    /// IPv4 and IPv6 in one rule.
    MixedFamilies = "mixed-families",
    /// ICMP of the one IP version with networks of the other.
    IcmpFamily = "icmp-family",
    /// ICMP types without a protocol that has them.
    IcmpNeedsProtocol = "icmp-needs-protocol",
    /// A tier or profile that no document describes.
    UnknownReference = "unknown-reference",
    /// A selector that can't be parsed.
    InvalidSelector = "invalid-selector",
    /// More members than the format allows.
    TooMany = "too-many",
    /// What `preDNAT` asks for or forbids.
    PreDnat = "pre-dnat",
    /// Two objects with one identity.
    Duplicate = "duplicate",
    /// A policy whose selector matches no endpoint.
    SelectsNothing = "selects-nothing",
    /// Something that is written and without any effect.
    NoEffect = "no-effect",
    /// An endpoint on which only failsafe ports would stay open.
    DeniesEverything = "denies-everything",
    /// A host endpoint that no policy applies to.
    EndpointWithoutPolicy = "endpoint-without-policy",
    /// A rule that no packet comes to: others before it decide.
    ShadowedRule = "shadowed-rule",
    /// More kinds of packets than are asked for rules without effect.
    NotAnalysed = "not-analysed",
    /// A rule that no packet can match.
    MatchesNothing = "matches-nothing",
    /// A set, or a selector of sets, without any network.
    EmptySet = "empty-set",
    /// A set that no rule asks for.
    UnusedSet = "unused-set",
    /// A range of ports that holds a part of the node ports.
    CutsNodePorts = "cuts-node-ports",
    /// A rule that allows all, in a policy that denies.
    AllowsAll = "allows-all",
    /// ARP, neighbour discovery, path-MTU discovery or DHCP would be cut off.
    CutsEssential = "cuts-essential",
    /// SSH would be cut off.
    CutsSsh = "cuts-ssh",
    /// The API server would be cut off.
    CutsApiServer = "cuts-api-server",
    /// A policy that its form in Calico v3 says in other words.
    Converted = "converted",
    /// More errors than are shown.
    MoreErrors = "more-errors",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A span with the file and the positions that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as it was named on the command line.
    pub file: Arc<str>,
    /// The bytes.
    pub span: Span,
    /// Where it begins.
    pub start: Position,
    /// Where it ends: the column after its last character.
    pub end: Position,
}

impl Place {
    /// Looks a span up in the sources it was made from.
    ///
    /// # Panics
    /// If the span belongs to other sources.
    #[must_use]
    pub fn new(sources: &[Source], span: Span) -> Self {
        let source = &sources[span.file as usize];
        Self {
            file: Arc::clone(source.name()),
            span,
            start: source.position(span.start),
            end: source.position(span.end),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.start.line, self.start.column)
    }
}

/// A second place that a diagnostic points to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub label: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one sentence without its place.
    pub message: String,
    /// Where. `None` where no document is to blame.
    pub place: Option<Place>,
    /// The field, as a path from the document's root: `spec.ingress[0].action`.
    pub field: Option<String>,
    /// The cause, in a few words for under the caret.
    pub label: Option<String>,
    /// Another place that belongs to it.
    pub related: Option<Related>,
    /// What to do.
    pub help: Option<String>,
}

/// A diagnostic as JSON. Positions count from 1; the end column is the one
/// after the last character.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    severity: Severity,
    code: Code,
    message: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    end_line: Option<u32>,
    end_column: Option<u32>,
    field: Option<&'a str>,
    help: Option<&'a str>,
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.place.as_ref();
        Json {
            severity: self.severity,
            code: self.code,
            message: &self.message,
            file: place.map(|place| &*place.file),
            line: place.map(|place| place.start.line),
            column: place.map(|place| place.start.column),
            end_line: place.map(|place| place.end.line),
            end_column: place.map(|place| place.end.column),
            field: self.field.as_deref(),
            help: self.help.as_deref(),
        }
        .serialize(serializer)
    }
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            field: None,
            label: None,
            related: None,
            help: None,
        }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message)
        }
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, about a field.
    #[must_use]
    pub fn field(mut self, field: impl fmt::Display) -> Self {
        self.field = Some(field.to_string());
        self
    }

    /// The same, with words for under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with a second place.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some(Related {
            place,
            label: label.into(),
        });
        self
    }

    /// It in a line: `policy.yaml:3:5: what is wrong`.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// The diagnostic as rustc would show it, ending in a line end. `sources`
    /// are those that were checked; without them only positions are shown.
    #[must_use]
    pub fn render(&self, sources: &[Source], colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(self.message.as_str())
            .id(self.code.name())
            .elements(None::<Origin<'_>>);
        if let Some(place) = &self.place {
            let label = self.label.as_deref();
            group = show(group, sources, place, AnnotationKind::Primary, label);
        }
        if let Some(Related { place, label }) = &self.related {
            let kind = AnnotationKind::Context;
            group = show(group, sources, place, kind, Some(label));
        }
        // Messages are not normalised by the renderer as titles and sources are.
        let help = self
            .help
            .as_deref()
            .map(annotate_snippets::normalize_untrusted_str);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = renderer.render(&[group]);
        text.push('\n');
        text
    }
}

/// Adds the source line of a place, with the label under it.
fn show<'a>(
    group: Group<'a>,
    sources: &'a [Source],
    place: &'a Place,
    kind: AnnotationKind,
    label: Option<&'a str>,
) -> Group<'a> {
    // Places outlive checks (a model keeps them), so the sources at hand may be
    // others, or none.
    let source = sources
        .get(place.span.file as usize)
        .filter(|source| *source.name() == place.file);
    let line = source.map(|source| (source, source.line_range(place.span.start)));
    match line {
        Some((source, line)) if line.len() <= MAX_SHOWN_LINE => {
            let range = on_one_line(place.span, &line);
            let text = &source.text()[line];
            let annotation = kind.span(range).label(
                label
                    .map(annotate_snippets::normalize_untrusted_str)
                    .map(Cow::Owned),
            );
            group.element(
                Snippet::source(text)
                    .path(&*place.file)
                    .line_start(place.start.line as usize)
                    .annotation(annotation),
            )
        }
        _ => {
            let group = group.element(
                Origin::path(&*place.file)
                    .line(place.start.line as usize)
                    .char_column(place.start.column as usize),
            );
            match label {
                Some(label) => group.element(
                    Level::NOTE.message(annotate_snippets::normalize_untrusted_str(label)),
                ),
                None => group,
            }
        }
    }
}

/// The part of a span on its first line, relative to that line's start.
fn on_one_line(span: Span, line: &Range<usize>) -> Range<usize> {
    let inside = |offset: u32| (offset as usize).clamp(line.start, line.end) - line.start;
    inside(span.start)..inside(span.end)
}

/// Renders all of them, with an empty line after each.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &[Source], colour: bool) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render(sources, colour) + "\n")
        .collect()
}

/// A piece of input as a message quotes it: in backticks, without control
/// characters (they could rewrite the terminal), and of bounded length.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for (count, character) in text.chars().enumerate() {
        if count == MAX_QUOTED {
            quoted.push('…');
            break;
        }
        if character.is_control() || is_invisible(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    quoted
}

/// Characters that make text look like other text: zero-width, and those that
/// turn the direction of what follows.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// Collects the diagnostics of one check.
#[derive(Debug)]
pub(super) struct Reporter<'s> {
    sources: &'s [Source],
    kept: Vec<Diagnostic>,
    errors: usize,
    dropped: usize,
}

impl<'s> Reporter<'s> {
    pub(super) fn new(sources: &'s [Source]) -> Self {
        Self {
            sources,
            kept: Vec::new(),
            errors: 0,
            dropped: 0,
        }
    }

    /// Records a finding at a span.
    pub(super) fn report(&mut self, span: Span, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        if self.is_full() {
            self.dropped += 1;
        } else {
            let place = self.place(span);
            self.kept.push(diagnostic.at(place));
        }
    }

    /// Whether further findings are only counted, so that their words need not
    /// be looked for.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_KEPT
    }

    /// How many errors there were so far.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn place(&self, span: Span) -> Place {
        Place::new(self.sources, span)
    }

    pub(super) fn source(&self, span: Span) -> &'s Source {
        &self.sources[span.file as usize]
    }

    /// The findings, in the order of files and lines.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.kept
            .sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| place.span));
        if self.dropped > 0 {
            let message = format!("{} more findings are not shown", self.dropped);
            let make = match self.errors {
                0 => Diagnostic::warning,
                _ => Diagnostic::error,
            };
            self.kept.push(
                make(Code::MoreErrors, message)
                    .help("put those above right first, then check again"),
            );
        }
        self.kept
    }
}
