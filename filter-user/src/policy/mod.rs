//! Policy documents → model → ruleset.
//!
//! Data flows one way: [`source`] (text) → [`yaml`] (tree with places) →
//! documents (fields as written) → [`model`] (validated) → [`select`]
//! (ruleset of one endpoint). Nothing of a document is ignored: what this
//! version can't honour is an error with its place, and all errors are
//! collected. No aya, no unsafe.

pub mod diagnostic;
mod documents;
pub mod failsafe;
pub mod model;
mod schema;
pub mod select;
pub mod selector;
pub mod source;
mod values;
pub mod yaml;

pub use diagnostic::{Code, Diagnostic, Severity};
pub use failsafe::FailsafeList;
pub use model::Model;
pub use select::{
    Endpoint, EndpointError, SelectOptions, Selected, endpoints_for, only_endpoint, select,
    unselected,
};
pub use selector::Labels;
pub use source::{LoadError, Source, load};

use diagnostic::Reporter;
use source::Span;

/// The outcome of a check.
#[derive(Debug)]
pub struct Checked {
    /// The policies and endpoints; `None` if there were errors.
    pub model: Option<Model>,
    /// Errors and warnings, in the order of the sources and their lines.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and validates all documents of the sources.
#[must_use]
pub fn check(sources: &[Source]) -> Checked {
    let mut reporter = Reporter::new(sources);
    let mut documents = Vec::new();
    for (file, source) in (0..).zip(sources) {
        let errors_before = reporter.errors();
        let documents_before = documents.len();
        for root in yaml::parse(file, source, &mut reporter) {
            documents.extend(documents::read(&root, &mut reporter));
        }
        if documents.len() == documents_before && reporter.errors() == errors_before {
            let start = Span {
                file,
                start: 0,
                end: 0,
            };
            reporter.report(
                start,
                Diagnostic::warning(Code::EmptyFile, "the file holds no document")
                    .help("check that it is the right file, and that it was saved"),
            );
        }
    }
    let model = model::validate(&documents, &mut reporter);
    Checked {
        model: (reporter.errors() == 0).then_some(model),
        diagnostics: reporter.finish(),
    }
}
