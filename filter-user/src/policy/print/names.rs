//! Names that v3 allows, made of names that it doesn't.

use std::collections::HashSet;

use crate::policy::values;

/// How long a label of a name may be.
const LONGEST: usize = 63;

/// Hands out names, each once.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// Reserves a name that is legal already.
    pub(super) fn take(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// A legal name near to this one.
    pub(super) fn derive(&mut self, name: &str) -> String {
        let base = label(name);
        let mut found = base.clone();
        for number in 2.. {
            if !self.taken.contains(&found) {
                break;
            }
            let end = format!("-{number}");
            let start = &base[..base.len().min(LONGEST - end.len())];
            found = format!("{}{end}", start.trim_end_matches('-'));
        }
        self.taken.insert(found.clone());
        found
    }
}

/// The nearest DNS label.
pub(super) fn label(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let text: String = lower
        .chars()
        .map(|c| if legal(c) { c } else { '-' })
        .take(LONGEST)
        .collect();
    let text = text.trim_matches('-');
    let text = if text.is_empty() { "unnamed" } else { text };
    debug_assert!(values::is_dns_label(text));
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal_and_stay_apart() {
        let mut names = Names::default();
        names.take("a-b");
        assert_eq!(names.derive("A_b"), "a-b-2");
        assert_eq!(names.derive("a.b"), "a-b-3");
        assert_eq!(names.derive("/"), "unnamed");
        let long = "a".repeat(128);
        assert_eq!(names.derive(&long).len(), 63);
        assert_eq!(names.derive(&long).len(), 63);
    }
}
