//! Documents as text.

use serde_json::Value;

/// A stream of YAML documents. What a reader of YAML 1.1 or 1.2 could take for
/// something else than text (`on`, `1:59`, `010`) stands in quotes.
pub(super) fn stream(documents: &[Value]) -> String {
    let mut text = String::new();
    for document in documents {
        let options = serde_saphyr::ser_options! {
            compact_list_indent: true,
            prefer_block_scalars: false,
        };
        text.push_str("---\n");
        // Of texts, numbers, lists and mappings by text there is nothing that
        // YAML couldn't say.
        serde_saphyr::to_fmt_writer_with_options(&mut text, document, options)
            .expect("JSON is YAML");
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_stay_texts() {
        let texts = [
            "on",
            "y",
            "No",
            "~",
            "null",
            "010",
            "1:59",
            "22:22",
            "0x1f",
            "1e3",
            ".5",
            "1_000",
            "2026-11-23",
            "",
            " a",
            "a: b",
            "#a",
            "*",
            "&a",
            "!t",
            "- a",
            "a\nb",
            "has(x)",
            "<<",
            "!all()",
            "a == 'b'",
            "::/0",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "\u{85}",
            "é",
            "=",
        ];
        let text =
            stream(&[json!({"texts": texts.as_slice(), "on": 5, "n": [{"a": 1}, {"b": [true]}]})]);
        let line = |found: &str| text.lines().any(|line| line.trim() == found);
        for bare in [
            "- on",
            "- y",
            "- No",
            "- 1:59",
            "- 22:22",
            "- 010",
            "on: 5",
            "- 2026-11-23",
        ] {
            assert!(!line(bare), "{bare} in\n{text}");
        }
        assert!(line("- has(x)"), "{text}");
    }
}
