//! The filter's own way from the text of documents to a ruleset.

use filter_user::policy::endpoints::Host;
use filter_user::policy::{
    Failsafe, Labels, SelectOptions, Source, check, endpoints_for, only_endpoint, select,
};
use filter_user::ruleset::{Direction, Ruleset};

use super::model::{Case, INTERFACE};
use super::write;

/// What the filter makes of the documents.
pub(crate) fn ruleset(case: &Case) -> Result<Ruleset, String> {
    let texts = write::texts(&case.documents);
    let sources: Vec<Source> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| Source::new(format!("{index}.yaml"), text.as_str()))
        .collect();
    let checked = check(&sources);
    let Some(model) = checked.model else {
        let rendered =
            filter_user::policy::diagnostic::render(&checked.diagnostics, &sources, false);
        return Err(format!("refused: {rendered}"));
    };
    let labels = if case.documents.endpoints.is_empty() {
        case.labels.clone()
    } else {
        Labels::new()
    };
    let endpoints = endpoints_for(&model, &[INTERFACE.to_owned()], &labels, &Host::default())
        .map_err(|error| error.to_string())?;
    let endpoint = only_endpoint(endpoints).map_err(|error| error.to_string())?;
    let direction = if case.egress {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let options = SelectOptions {
        failsafe: if case.failsafe {
            Failsafe::default()
        } else {
            Failsafe::NONE
        },
        node_addresses: case.node.clone(),
        ..SelectOptions::default()
    };
    Ok(select(&model, &endpoint, direction, &options).ruleset)
}
