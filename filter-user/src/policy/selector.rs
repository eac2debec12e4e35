//! Calico's label selectors: parser, evaluator, printer.
//!
//! ```text
//! expr := and ("||" and)*        and := op ("&&" op)*        op := "!"* prim
//! prim := "(" expr ")" | "has(" L ")" | "all()"
//!       | L ("==" | "!=" | "contains" | "starts with" | "ends with") STR
//!       | L ("in" | "not in") "{" [STR ("," STR)*] "}"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The labels of an endpoint.
pub type Labels = BTreeMap<String, String>;

/// The label that has the namespace of what is in one.
pub const NAMESPACE: &str = "projectcalico.org/namespace";

/// What the labels of a namespace begin with where they stand at what is in it.
const NAMESPACE_LABELS: &str = "pcns.";

/// How deep parentheses may be nested.
const MAX_DEPTH: usize = 64;

/// How long a label's name may be.
const MAX_LABEL: usize = 512;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Expr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    All,
    Has(String),
    Compare {
        label: String,
        how: Comparison,
        value: String,
    },
    In {
        label: String,
        negated: bool,
        values: Vec<String>,
    },
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    /// The bytes of the selector that are wrong; empty at its end.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<&'static str>,
}

impl Selector {
    /// The selector that every endpoint matches.
    pub const ALL: Self = Self(Expr::All);

    /// Parses a selector. An empty one selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(Self::ALL);
        }
        let expr = parser.or()?;
        if parser.rest().is_empty() {
            Ok(Self(expr))
        } else {
            Err(parser.unexpected("expected `&&`, `||` or the end of the selector"))
        }
    }

    /// The selector of what has this value for a label.
    #[must_use]
    pub fn has_value(label: &str, value: &str) -> Self {
        Self(Expr::Compare {
            label: label.to_owned(),
            how: Comparison::Equal,
            value: value.to_owned(),
        })
    }

    /// The selector of what has this value for a label, or no such label.
    #[must_use]
    pub fn has_or_lacks(label: &str, value: &str) -> Self {
        let lacks = Expr::Has(label.to_owned()).negate();
        Self(Expr::Or(vec![lacks, Self::has_value(label, value).0]))
    }

    /// What both select.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Expr::All, only) | (only, Expr::All) => Self(only),
            (Expr::And(mut parts), Expr::And(more)) => {
                parts.extend(more);
                Self(Expr::And(parts))
            }
            (Expr::And(mut parts), last) => {
                parts.push(last);
                Self(Expr::And(parts))
            }
            (first, Expr::And(mut parts)) => {
                parts.insert(0, first);
                Self(Expr::And(parts))
            }
            (first, last) => Self(Expr::And(vec![first, last])),
        }
    }

    /// Parses a selector of namespaces: what is in them carries their labels
    /// with the prefix `pcns.`. `global()` selects what is in none.
    pub fn of_namespaces(text: &str) -> Result<Self, SelectorError> {
        if text.split_whitespace().collect::<String>() == "global()" {
            return Ok(Self(Expr::Has(NAMESPACE.to_owned()).negate()));
        }
        Self::of_policy_namespaces(text)
    }

    /// The same for a policy, which has no `global()`.
    pub fn of_policy_namespaces(text: &str) -> Result<Self, SelectorError> {
        Ok(Self(
            Self::parse(text)?.0.prefixed(NAMESPACE_LABELS, NAMESPACE),
        ))
    }

    /// Parses a selector of service accounts: what runs under them carries
    /// their labels with the prefix `pcsa.`.
    pub fn of_service_accounts(text: &str) -> Result<Self, SelectorError> {
        let parsed = Self::parse(text)?;
        Ok(Self(
            parsed
                .0
                .prefixed("pcsa.", "projectcalico.org/serviceaccount"),
        ))
    }

    /// Takes apart what a rule of a policy in the namespace `own` asks for: its
    /// `selector` and, where that is not about `own`, its `namespaceSelector`.
    #[must_use]
    pub(super) fn split_namespaces(&self, own: &str) -> (String, Option<String>) {
        let parts = match &self.0 {
            Expr::And(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let is_own = |part: &Expr| *part == Self::has_value(NAMESPACE, own).0;
        let any = Expr::Has(NAMESPACE.to_owned());
        let (mut labels, mut namespaces) = (Vec::new(), Vec::new());
        for (place, part) in parts.iter().enumerate() {
            if place == 0 && is_own(part) {
                continue;
            }
            let mut asked = part.labels().into_iter();
            if *part == any {
                namespaces.push(Expr::All);
            } else if asked.len() > 0 && asked.all(|label| label.starts_with(NAMESPACE_LABELS)) {
                namespaces.push(part.clone().without_prefix());
            } else {
                labels.push(part.clone());
            }
        }
        let text = |parts: Vec<Expr>| {
            if parts.is_empty() {
                Expr::All.to_string()
            } else {
                single_or(parts, Expr::And).to_string()
            }
        };
        if namespaces.is_empty() {
            let global = any.negate();
            if labels.first() == Some(&global) {
                labels.remove(0);
                return (text(labels), Some("global()".to_owned()));
            }
            return (text(labels), None);
        }
        (text(labels), Some(text(namespaces)))
    }

    /// A label of namespaces that it asks for and that only a cluster knows:
    /// any but their names.
    #[must_use]
    pub fn unknown_namespace_label(&self) -> Option<&str> {
        self.0
            .labels()
            .into_iter()
            .filter_map(|label| label.strip_prefix(NAMESPACE_LABELS))
            .find(|label| {
                !["projectcalico.org/name", "kubernetes.io/metadata.name"].contains(label)
            })
    }

    /// Whether it selects something with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.matches(labels)
    }
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl Expr {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Has(label) => labels.contains_key(label),
            Self::Compare { label, how, value } => {
                let found = labels.get(label);
                match how {
                    Comparison::Equal => found == Some(value),
                    Comparison::NotEqual => found != Some(value),
                    Comparison::Contains => found.is_some_and(|found| found.contains(value)),
                    Comparison::StartsWith => found.is_some_and(|found| found.starts_with(value)),
                    Comparison::EndsWith => found.is_some_and(|found| found.ends_with(value)),
                }
            }
            Self::In {
                label,
                negated,
                values,
            } => {
                labels
                    .get(label)
                    .is_some_and(|found| values.contains(found))
                    != *negated
            }
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    /// The same about labels with a prefix; everything is what has `all`.
    fn prefixed(self, prefix: &str, all: &str) -> Self {
        let each = |parts: Vec<Self>| {
            let parts = parts.into_iter();
            parts.map(|part| part.prefixed(prefix, all)).collect()
        };
        match self {
            Self::All => Self::Has(all.to_owned()),
            Self::Has(label) => Self::Has(format!("{prefix}{label}")),
            Self::Compare { label, how, value } => Self::Compare {
                label: format!("{prefix}{label}"),
                how,
                value,
            },
            Self::In {
                label,
                negated,
                values,
            } => Self::In {
                label: format!("{prefix}{label}"),
                negated,
                values,
            },
            Self::Not(inner) => Self::Not(Box::new(inner.prefixed(prefix, all))),
            Self::And(parts) => Self::And(each(parts)),
            Self::Or(parts) => Self::Or(each(parts)),
        }
    }

    /// The same about labels without the prefix of namespaces.
    fn without_prefix(self) -> Self {
        let bare = |label: String| match label.strip_prefix(NAMESPACE_LABELS) {
            Some(bare) => bare.to_owned(),
            None => label,
        };
        let each = |parts: Vec<Self>| parts.into_iter().map(Self::without_prefix).collect();
        match self {
            Self::All => Self::All,
            Self::Has(label) => Self::Has(bare(label)),
            Self::Compare { label, how, value } => Self::Compare {
                label: bare(label),
                how,
                value,
            },
            Self::In {
                label,
                negated,
                values,
            } => Self::In {
                label: bare(label),
                negated,
                values,
            },
            Self::Not(inner) => Self::Not(Box::new(inner.without_prefix())),
            Self::And(parts) => Self::And(each(parts)),
            Self::Or(parts) => Self::Or(each(parts)),
        }
    }

    /// The labels that it asks for.
    fn labels(&self) -> Vec<&str> {
        match self {
            Self::All => Vec::new(),
            Self::Has(label) | Self::Compare { label, .. } | Self::In { label, .. } => vec![label],
            Self::Not(inner) => inner.labels(),
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::labels).collect(),
        }
    }

    fn negate(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

impl Comparison {
    const fn name(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Compare { label, how, value } => {
                write!(f, "{label} {} {}", how.name(), Quoted(value))
            }
            Self::In {
                label,
                negated,
                values,
            } => {
                let operator = if *negated { "not in" } else { "in" };
                let values: Vec<_> = values.iter().map(|v| Quoted(v).to_string()).collect();
                write!(f, "{label} {operator} {{{}}}", values.join(", "))
            }
            Self::Not(inner) => write!(f, "!{}", Operand(inner)),
            Self::And(parts) => join(f, parts, " && "),
            Self::Or(parts) => join(f, parts, " || "),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expr], separator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{}", Operand(part))?;
    }
    Ok(())
}

/// An expression inside another. Parentheses also where precedence would do
/// without them: few people know it by heart.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::And(_) | Expr::Or(_) => write!(f, "({})", self.0),
            other => other.fmt(f),
        }
    }
}

/// A string in the quotes that it doesn't contain. Strings have no escapes, so
/// one that was parsed never contains both.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn or(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.eat("||") {
            parts.push(self.and()?);
        }
        Ok(single_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.not()?];
        while self.eat("&&") {
            parts.push(self.not()?);
        }
        Ok(single_or(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, SelectorError> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let inner = self.primary()?;
        Ok(if negated { inner.negate() } else { inner })
    }

    fn primary(&mut self) -> Result<Expr, SelectorError> {
        let start = self.at;
        if self.eat("(") {
            return self.parenthesised(start);
        }
        if self.eat("has(") {
            let label = self.label()?;
            self.expect(")", "`has(` needs one label and a `)`")?;
            return Ok(Expr::Has(label));
        }
        if self.eat("all(") {
            self.expect(")", "`all()` takes nothing between its parentheses")?;
            return Ok(Expr::All);
        }
        if self.eat("global(") {
            return Err(SelectorError {
                at: start..start + "global".len(),
                message: "`global()` is only valid as a rule's `namespaceSelector`".into(),
                help: Some("write `all()` to select every endpoint"),
            });
        }
        let label = self.label()?;
        self.operation(label)
    }

    fn parenthesised(&mut self, start: usize) -> Result<Expr, SelectorError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SelectorError {
                at: start..start + 1,
                message: format!("parentheses are nested more than {MAX_DEPTH} levels deep"),
                help: None,
            });
        }
        let inner = self.or()?;
        self.expect(")", "expected `&&`, `||` or the closing `)`")?;
        self.depth -= 1;
        Ok(inner)
    }

    fn operation(&mut self, label: String) -> Result<Expr, SelectorError> {
        if self.eat("==") {
            return self.compare(label, Comparison::Equal);
        }
        if self.eat("!=") {
            return self.compare(label, Comparison::NotEqual);
        }
        let start = self.at;
        let word = self.word();
        match word {
            "contains" => self.compare(label, Comparison::Contains),
            "starts" if self.next_word_is("with") => self.compare(label, Comparison::StartsWith),
            "ends" if self.next_word_is("with") => self.compare(label, Comparison::EndsWith),
            "in" => self.set(label, false),
            "notin" => self.set(label, true),
            "not" if self.next_word_is("in") => self.set(label, true),
            _ => {
                self.at = start;
                Err(self.no_operator(word.len()))
            }
        }
    }

    fn no_operator(&self, word: usize) -> SelectorError {
        let help = match self.rest().as_bytes().first() {
            Some(b'=') => "compare with `==`",
            Some(b'(') => "the functions of selectors are `has(label)` and `all()`",
            None | Some(b'&' | b'|' | b')') => {
                "compare it, as in `label == 'value'`, or ask for it with `has(label)`"
            }
            _ => {
                "the operators are `==`, `!=`, `in`, `not in`, `contains`, `starts with` and \
                 `ends with`"
            }
        };
        let mut error = self.unexpected("expected an operator after the label");
        if word > 0 {
            error.at = self.at..self.at + word;
        }
        error.help = Some(help);
        error
    }

    fn compare(&mut self, label: String, how: Comparison) -> Result<Expr, SelectorError> {
        let value = self.string()?;
        Ok(Expr::Compare { label, how, value })
    }

    fn set(&mut self, label: String, negated: bool) -> Result<Expr, SelectorError> {
        self.expect("{", "expected a set of values in braces")
            .map_err(|error| SelectorError {
                help: Some("write a set as `{'a', 'b'}`"),
                ..error
            })?;
        let mut values = Vec::new();
        while !self.eat("}") {
            values.push(self.string()?);
            if !self.eat(",") {
                self.expect("}", "expected `,` or the closing `}`")?;
                break;
            }
        }
        Ok(Expr::In {
            label,
            negated,
            values,
        })
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        let Some(quote @ ('"' | '\'')) = self.rest().chars().next() else {
            let mut error = self.unexpected("expected a value in quotes");
            error.at.end = error.at.end.max(start + label_length(self.rest()));
            error.help = Some("put values in quotes: `'value'` or `\"value\"`");
            return Err(error);
        };
        let content = &self.text[start + 1..];
        let Some(length) = content.find(quote) else {
            return Err(SelectorError {
                at: start..start + 1,
                message: "these quotes are not closed".into(),
                help: Some("a value can't contain the quotes that it stands in"),
            });
        };
        self.at = start + 1 + length + 1;
        self.skip_space();
        Ok(content[..length].to_owned())
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        let length = label_length(self.rest());
        if length == 0 {
            let mut error = self.unexpected("expected a label");
            if self.rest().starts_with(['"', '\'']) {
                error.help = Some("names of labels stand without quotes");
            }
            return Err(error);
        }
        if length > MAX_LABEL {
            return Err(SelectorError {
                at: start..start + length,
                message: format!("a label's name has at most {MAX_LABEL} characters"),
                help: None,
            });
        }
        self.at += length;
        self.skip_space();
        Ok(self.text[start..start + length].to_owned())
    }

    /// The letters that come next, if they are a word of their own.
    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        self.at += length;
        self.skip_space();
        &rest[..length]
    }

    fn next_word_is(&mut self, wanted: &str) -> bool {
        self.word() == wanted
    }

    /// Goes past `token` and the space behind it, if it comes next.
    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.skip_space();
        }
        found
    }

    fn expect(&mut self, token: &str, message: &str) -> Result<(), SelectorError> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.unexpected(message))
        }
    }

    fn unexpected(&self, message: &str) -> SelectorError {
        let rest = self.rest();
        let length = rest.chars().next().map_or(0, char::len_utf8);
        let help = match rest.as_bytes() {
            [b'&', ..] => Some("and is written `&&`"),
            [b'|', ..] => Some("or is written `||`"),
            _ if rest.starts_with("and ") => Some("and is written `&&`"),
            _ if rest.starts_with("or ") => Some("or is written `||`"),
            _ => None,
        };
        let message = if rest.is_empty() {
            format!("{message}, but the selector ends here")
        } else {
            message.to_owned()
        };
        SelectorError {
            at: self.at..self.at + length,
            message,
            help,
        }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }
}

fn single_or(mut parts: Vec<Expr>, combine: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.remove(0),
        _ => combine(parts),
    }
}

/// How many bytes at the start of `text` can be a label's name.
fn label_length(text: &str) -> usize {
    text.bytes().take_while(|&byte| is_label_byte(byte)).count()
}

const fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}

/// Whether a text can be a label's name.
#[must_use]
pub fn is_label(name: &str) -> bool {
    (1..=MAX_LABEL).contains(&name.len()) && label_length(name) == name.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn namespaces_are_asked_for_by_prefixed_labels() {
        for (text, expected, unknown) in [
            ("global()", "!has(projectcalico.org/namespace)", None),
            (" global( ) ", "!has(projectcalico.org/namespace)", None),
            ("all()", "has(projectcalico.org/namespace)", None),
            (
                "projectcalico.org/name == 'a' || kubernetes.io/metadata.name in {'b'}",
                "pcns.projectcalico.org/name == 'a' || pcns.kubernetes.io/metadata.name in {'b'}",
                None,
            ),
            ("!has(env)", "!has(pcns.env)", Some("env")),
        ] {
            let selector = Selector::of_namespaces(text).expect(text);
            assert_eq!(selector.to_string(), expected);
            assert_eq!(selector.unknown_namespace_label(), unknown);
            assert_eq!(Selector::parse(expected), Ok(selector));
        }
        assert!(Selector::of_namespaces("global() && has(a)").is_err());
        let accounts = Selector::of_service_accounts("role == 'x' && all()").expect("valid");
        assert_eq!(
            accounts.to_string(),
            "pcsa.role == 'x' && has(projectcalico.org/serviceaccount)"
        );
        let both = Selector::ALL
            .and(Selector::has_value("a", "b"))
            .and(accounts);
        assert_eq!(
            both.to_string(),
            "a == 'b' && pcsa.role == 'x' && has(projectcalico.org/serviceaccount)"
        );
        assert_eq!(Selector::parse(&both.to_string()), Ok(both));
    }

    #[test]
    fn namespaces_are_split_off_again() {
        for (selector, namespaces) in [
            ("a == 'b'", None),
            ("all()", None),
            ("all()", Some("all()")),
            ("has(x) && !has(y)", Some("global()")),
            ("has(x) || has(y)", Some("projectcalico.org/name == 'z'")),
            ("has(x)", Some("!has(env) && has(b)")),
        ] {
            let labels = Selector::parse(selector).expect("valid");
            let folded = match namespaces {
                None => Selector::has_value(NAMESPACE, "own"),
                Some(text) => Selector::of_namespaces(text).expect("valid"),
            };
            let folded = folded.and(labels);
            let split = folded.split_namespaces("own");
            assert_eq!(split, (selector.to_owned(), namespaces.map(str::to_owned)));
        }
    }

    #[test]
    fn matches_as_calico_does() {
        let worker = labels(&[("ibm.role", "worker_public"), ("env", "prod"), ("has", "x")]);
        for (text, expected) in [
            ("", true),
            ("   ", true),
            ("all()", true),
            ("all( )", true),
            ("!all()", false),
            ("ibm.role in { 'worker_public', 'master_public' }", true),
            ("ibm.role in {\"worker_public\"}", true),
            ("ibm.role in {'master_public'}", false),
            ("ibm.role in {}", false),
            ("ibm.role not in {}", true),
            ("ibm.role in {'worker_public',}", true),
            ("ibm.role not in {'master_public'}", true),
            ("ibm.role notin {'master_public'}", true),
            ("ibm.role not   in{'worker_public'}", false),
            ("ibm.role in{'worker_public'}", true),
            ("env == 'prod'", true),
            ("env=='prod'", true),
            ("env == 'Prod'", false),
            ("env != 'prod'", false),
            // An absent label differs from everything and is in no set.
            ("absent == ''", false),
            ("absent != 'x'", true),
            ("absent not in {'x'}", true),
            ("absent in {'x'}", false),
            ("absent contains ''", false),
            ("absent starts with ''", false),
            ("absent ends with ''", false),
            ("has(env)", true),
            ("has( env )", true),
            ("has(absent)", false),
            ("!has(absent)", true),
            ("!!has(env)", true),
            ("! ! !has(env)", false),
            ("has == 'x'", true),
            ("env contains 'ro'", true),
            ("env contains 'or'", false),
            ("env starts with 'pr'", true),
            ("env starts  with 'od'", false),
            ("env ends with 'od'", true),
            ("env ends with 'pr'", false),
            // && binds closer than ||.
            ("env == 'prod' || env == 'x' && has(absent)", true),
            ("(env == 'prod' || env == 'x') && has(absent)", false),
            ("!(env == 'x') && has(env)", true),
            ("in in {'x'}", false),
            ("projectcalico.org/kind-x_Y.z != \"it's\"", true),
        ] {
            let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&worker), expected, "{text}");
        }
    }

    #[test]
    fn refuses_with_a_position() {
        for (text, at, message) in [
            ("env", 3..3, "expected an operator"),
            ("env = 'x'", 4..5, "expected an operator"),
            ("env is 'x'", 4..6, "expected an operator"),
            ("env starts 'x'", 4..10, "expected an operator"),
            ("env not 'x'", 4..7, "expected an operator"),
            ("env == prod", 7..11, "in quotes"),
            ("env == 'prod", 7..8, "not closed"),
            ("env == ", 7..7, "ends here"),
            ("'env' == 'x'", 0..1, "expected a label"),
            ("env in 'x'", 7..8, "braces"),
            ("env in {'x'", 11..11, "closing `}`"),
            ("env in {'x' 'y'}", 12..13, "closing `}`"),
            ("env in {,}", 8..9, "in quotes"),
            ("env == 'a' & env == 'b'", 11..12, "expected `&&`"),
            ("env == 'a' and env == 'b'", 11..12, "expected `&&`"),
            ("env == 'a' && ", 14..14, "ends here"),
            ("(env == 'a'", 11..11, "closing `)`"),
            ("env == 'a')", 10..11, "end of the selector"),
            ("()", 1..2, "expected a label"),
            ("has()", 4..5, "expected a label"),
            ("has(a b)", 6..7, "`has(`"),
            ("has (a)", 4..5, "expected an operator"),
            ("all(x)", 4..5, "`all()`"),
            ("global()", 0..6, "namespaceSelector"),
            ("has(a) && global()", 10..16, "namespaceSelector"),
            ("é == 'x'", 0..2, "expected a label"),
            ("!", 1..1, "ends here"),
        ] {
            let error = Selector::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn bounds_what_it_reads() {
        let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
        assert!(Selector::parse(&nested(MAX_DEPTH)).is_ok());
        let error = Selector::parse(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert_eq!(error.at, MAX_DEPTH..MAX_DEPTH + 1);
        assert!(Selector::parse(&nested(1_000_000)).is_err());
        // Negations and side by side parentheses are not depth.
        assert!(Selector::parse(&format!("{}all()", "!".repeat(100_000))).is_ok());
        assert!(Selector::parse(&vec!["(all())"; 1_000].join("&&")).is_ok());
        let label = |length: usize| format!("has({})", "a".repeat(length));
        assert!(Selector::parse(&label(512)).is_ok());
        assert!(Selector::parse(&label(513)).is_err());
    }

    fn any_string() -> impl Strategy<Value = String> {
        prop_oneof!["[^']{0,6}", "[^\"]{0,6}"]
    }

    fn any_expr() -> impl Strategy<Value = Expr> {
        let label = "[A-Za-z0-9_./-]{1,8}";
        let comparison = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Contains),
            Just(Comparison::StartsWith),
            Just(Comparison::EndsWith),
        ];
        let leaf = prop_oneof![
            Just(Expr::All),
            label.prop_map(Expr::Has),
            (label, comparison, any_string()).prop_map(|(label, how, value)| Expr::Compare {
                label,
                how,
                value
            }),
            (
                label,
                any::<bool>(),
                prop::collection::vec(any_string(), 0..4)
            )
                .prop_map(|(label, negated, values)| Expr::In {
                    label,
                    negated,
                    values
                }),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(Expr::negate),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
                prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(expr in any_expr()) {
            let selector = Selector(expr);
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn any_text_is_parsed_or_refused_inside_it(text in "\\PC{0,40}") {
            if let Err(error) = Selector::parse(&text) {
                prop_assert!(text.get(error.at).is_some());
            }
        }

        #[test]
        fn any_tokens_are_parsed_or_refused_inside_them(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "a", " ", "==", "!=", "!", "(", ")", "{", "}", ",", "'x'", "\"y\"", "in",
                    "not", "has(", "all()", "&&", "||", "starts", "with", "global()", "'",
                ]),
                0..12,
            )
        ) {
            let text = tokens.concat();
            match Selector::parse(&text) {
                Ok(selector) => {
                    let again = Selector::parse(&selector.to_string());
                    prop_assert_eq!(again, Ok(selector));
                }
                Err(error) => prop_assert!(text.get(error.at).is_some()),
            }
        }
    }
}
