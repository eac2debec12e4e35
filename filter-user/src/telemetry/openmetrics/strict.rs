//! A reader of OpenMetrics 1.0 that takes nothing on trust: what the standard forbids,
//! and what Prometheus would silently drop, panics.

use std::collections::{BTreeMap, BTreeSet};

/// A series: its name and labels.
pub(crate) type Name = (String, BTreeMap<String, String>);

/// What is known of a family while its lines come.
#[derive(Default)]
struct Family {
    name: String,
    kind: Option<String>,
    unit: Option<String>,
}

/// Every series with its value, of a whole text.
pub(crate) fn read(text: &str) -> BTreeMap<Name, u64> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut all = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = Family::default();
    for line in body.split_inclusive('\n') {
        let line = line.strip_suffix('\n').expect("a whole line");
        assert!(!line.is_empty(), "an empty line");
        assert!(!line.contains('\r'), "{line}");
        if let Some(meta) = line.strip_prefix("# ") {
            let mut parts = meta.splitn(3, ' ');
            let [what, name, value] = [(); 3].map(|()| parts.next().expect(line));
            if what == "HELP" {
                let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(
                    name.starts_with("nodewall_") && name.chars().all(is_name),
                    "{line}"
                );
                assert!(!name.ends_with("_total"), "{line}");
                assert!(
                    value.ends_with('.') && !value.contains(['\\', '"']),
                    "{line}"
                );
                assert!(
                    families.insert(name.to_owned()),
                    "a family is there twice: {line}"
                );
                family = Family {
                    name: name.to_owned(),
                    ..Family::default()
                };
                continue;
            }
            assert_eq!(family.name, name, "it belongs to another family: {line}");
            match what {
                "TYPE" => {
                    assert!(matches!(value, "counter" | "gauge"), "{line}");
                    assert!(family.kind.replace(value.to_owned()).is_none(), "{line}");
                }
                "UNIT" => {
                    assert!(family.kind.is_some(), "TYPE comes first: {line}");
                    assert!(name.ends_with(&format!("_{value}")), "{line}");
                    assert!(family.unit.replace(value.to_owned()).is_none(), "{line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let expected = match family.kind.as_deref().expect("TYPE comes first") {
            "counter" => format!("{}_total", family.name),
            _ => family.name.clone(),
        };
        assert_eq!(name, expected, "it belongs to another family: {line}");
        // What is in base units says so.
        for unit in ["bytes", "seconds"] {
            let named = family.name.ends_with(unit);
            assert_eq!(named, family.unit.as_deref() == Some(unit), "{line}");
        }
        let value = value.parse().unwrap_or_else(|_| panic!("no count: {line}"));
        assert!(
            all.insert((name, labels), value).is_none(),
            "a series is there twice: {line}"
        );
    }
    all
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> (String, BTreeMap<String, String>, &str) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").expect(line);
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(!label.is_empty() && label.chars().all(is_name), "{line}");
            let (value, behind) = unescaped(behind, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            let Some(next) = behind.strip_prefix(',') else {
                rest = behind.strip_prefix('}').expect(line);
                break;
            };
            rest = next;
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, value)
}

/// The value up to the next quote, and what is behind it.
fn unescaped<'l>(text: &'l str, line: &str) -> (String, &'l str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.push(match chars.next().expect(line).1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => panic!("no escape: {line}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no end of a value: {line}");
}
