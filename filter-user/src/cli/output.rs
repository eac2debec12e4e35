//! How things look: terminal or not, messages, times, numbers, columns.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;

pub(super) use crate::bytes::{grouped, size};
use crate::ruleset::Rule;
pub(super) use crate::telemetry::time;

/// Colour in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether messages on stderr are coloured.
    #[must_use]
    pub(super) fn on_stderr(self) -> bool {
        self.on_screen() && (self == Self::Always || std::io::stderr().is_terminal())
    }

    /// Whether a terminal is coloured.
    #[must_use]
    pub(super) fn on_screen(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// Writes to stderr as it is. Where nobody can read it, nothing is lost that
/// the exit code doesn't say: `eprint!` would panic.
pub(super) fn message(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes a line to stderr.
pub(super) fn say(line: impl Display) {
    message(&format!("{line}\n"));
}

/// Writes an error to stderr.
pub(super) fn error(color: Color, text: impl Display) {
    labelled(color, "1;91", "error", text);
}

/// Writes a warning to stderr.
pub(super) fn warning(color: Color, text: impl Display) {
    labelled(color, "1;33", "warning", text);
}

/// Writes a note to stderr.
pub(super) fn note(color: Color, text: impl Display) {
    labelled(color, "1;92", "note", text);
}

fn labelled(color: Color, style: &str, label: &str, text: impl Display) {
    if color.on_stderr() {
        say(format_args!("\x1b[{style}m{label}\x1b[0m: {text}"));
    } else {
        say(format_args!("{label}: {text}"));
    }
}

/// The index of a rule in its policy; what has none is a default.
#[must_use]
pub(super) fn index_of(rule: &Rule) -> String {
    rule.id
        .index
        .map_or_else(|| "default".to_owned(), |index| index.to_string())
}

/// `1 policy`, `2 policies`.
#[must_use]
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// Columns and rows of the terminal on stdout; 80 × 24 where that is unknown.
#[must_use]
pub(super) fn terminal_size() -> (usize, usize) {
    terminal_size::terminal_size_of(std::io::stdout()).map_or((80, 24), |(columns, rows)| {
        (usize::from(columns.0), usize::from(rows.0))
    })
}

/// Cuts a text to `width` characters, its end replaced by `…`.
#[must_use]
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(std::iter::once('…')).collect()
}

/// Lines of aligned columns, two blanks between them. A column is aligned to
/// the right where its heading begins with `>`.
#[must_use]
pub(super) fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = headings
        .iter()
        .map(|heading| heading.starts_with('>'))
        .collect();
    let heading_row: Vec<String> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>').to_owned())
        .collect();
    let all = || std::iter::once(&heading_row).chain(rows);
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            all()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all() {
        // A row may have more cells than there are headings.
        let cells: Vec<String> = row
            .iter()
            .zip(widths.iter().zip(&right))
            .map(|(cell, (&width, &right))| {
                if right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["a".to_owned(), "10".to_owned()],
            vec!["bcd".to_owned(), "7".to_owned()],
        ];
        assert_eq!(columns(&["X", ">N"], &rows), "X     N\na    10\nbcd   7\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abcde…");
    }
}
