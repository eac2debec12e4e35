//! The parameters of a request: each known, at most once, and of its type.

use std::borrow::Cow;
use std::fmt::Display;

use super::answer::Refused;

/// The parameters of a request, of which each is taken once. What nobody takes is not
/// known: see [`Query::end`].
#[derive(Debug)]
pub(super) struct Query<'a> {
    left: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    known: Vec<&'static str>,
}

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`.
    pub(super) fn read(text: Option<&'a str>) -> Result<Self, Refused> {
        let mut left: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let parts = text.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if left.iter().any(|(other, _)| *other == name) {
                return Err(Refused::bad(format_args!(
                    "the parameter {name:?} is there twice; give it once"
                )));
            }
            left.push((name, value));
        }
        Ok(Self {
            left,
            known: Vec::new(),
        })
    }

    /// The value of a parameter as text.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        self.known.push(name);
        let place = self.left.iter().position(|(other, _)| *other == name)?;
        Some(self.left.swap_remove(place).1)
    }

    /// The value of a parameter; where it can't be read, the error says what would be
    /// a value.
    pub(super) fn value<T, E: Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        read(&text).map(Some).map_err(|allowed| {
            Refused::bad(format_args!(
                "the parameter {name} can't be {text:?}: {allowed}"
            ))
        })
    }

    /// The parameters as they were read.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let pairs = self.left.iter();
        pairs
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    /// Refuses what nobody has taken.
    pub(super) fn end(self, path: &str) -> Result<(), Refused> {
        let Some((name, _)) = self.left.first() else {
            return Ok(());
        };
        let known = match self.known.as_slice() {
            [] => "takes none".to_owned(),
            [one] => format!("takes {one} alone"),
            several => format!("takes {}", several.join(", ")),
        };
        Err(Refused::bad(format_args!(
            "there is no parameter {name:?}: {path} {known}"
        )))
    }
}

/// A number from 1 to `most`.
pub(super) fn number(most: u64) -> impl FnOnce(&str) -> Result<u64, String> {
    move |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| digits && (1..=most).contains(number))
            .ok_or_else(|| format!("it is a number from 1 to {most}"))
    }
}

/// One of some words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("it is one of {}", words.join(", "))
        })
    }
}

/// `%20` and `+` as what they stand for.
fn decoded(text: &str) -> Result<Cow<'_, str>, Refused> {
    if !text.contains(['%', '+']) {
        return Ok(text.into());
    }
    let wrong = || {
        Refused::bad(format_args!(
            "the query has {text:?}, which is no percent-encoded UTF-8"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let byte;
        (byte, rest) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = digit(*high).zip(digit(*low)).ok_or_else(wrong)?;
                (u8::try_from(high << 4 | low).map_err(|_| wrong())?, behind)
            }
            (b'%', _) => return Err(wrong()),
            (b'+', behind) => (b' ', behind),
            (plain, behind) => (*plain, behind),
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map(Cow::from).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
        result.expect_err("it is refused").message().to_owned()
    }

    #[test]
    fn values_are_decoded() {
        let mut query =
            Query::read(Some("src=2001%3adb8::%2F32&policy=a+b%26&x")).expect("a query");
        assert_eq!(query.text("src").as_deref(), Some("2001:db8::/32"));
        assert_eq!(query.text("policy").as_deref(), Some("a b&"));
        assert_eq!(query.text("x").as_deref(), Some(""));
        assert_eq!(query.text("src"), None);
        query.end("/").expect("nothing is left");
        Query::read(None)
            .and_then(|none| none.end("/"))
            .expect("none");
        Query::read(Some("&&"))
            .and_then(|none| none.end("/"))
            .expect("none");
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for wrong in ["a=%", "a=%2", "a=%zz", "a=%+1", "a=%ff", "%c3=1"] {
            let said = refusal(Query::read(Some(wrong)));
            assert!(said.contains("percent-encoded"), "{wrong}: {said}");
        }
        let twice = refusal(Query::read(Some("n=1&by=src&%6e=2")));
        assert!(twice.contains(r#""n" is there twice"#), "{twice}");
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let mut query = Query::read(Some("n=7&limit=1")).expect("a query");
        assert_eq!(query.value("n", number(1000)).expect("a number"), Some(7));
        assert_eq!(query.text("by"), None);
        let said = refusal(query.end("/v1/top"));
        assert_eq!(
            said,
            r#"there is no parameter "limit": /v1/top takes n, by"#
        );
        let query = Query::read(Some("a\"%0a=1")).expect("a query");
        let said = refusal(query.end("/healthz"));
        assert_eq!(
            said,
            r#"there is no parameter "a\"\n": /healthz takes none"#
        );
    }

    #[test]
    fn values_have_a_range() {
        for wrong in [
            "",
            "0",
            "1001",
            "-1",
            "+1",
            "1.0",
            "x",
            "18446744073709551616",
        ] {
            let mut query = Query {
                left: vec![("n".into(), wrong.into())],
                known: Vec::new(),
            };
            let said = refusal(query.value("n", number(1000)));
            assert!(said.contains("from 1 to 1000"), "{wrong}: {said}");
        }
        let words = [("src", 1), ("dport", 2)];
        assert_eq!(one_of(&words)("dport"), Ok(2));
        assert_eq!(
            one_of(&words)("SRC"),
            Err("it is one of src, dport".to_owned())
        );
    }
}
