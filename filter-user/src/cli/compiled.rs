//! From files and flags to compiled rulesets: what every verb that takes
//! policies does first.

use std::path::PathBuf;

use super::args::{EndpointFlags, Files, Global, OptionFlags};
use super::error::Failure;
use super::output::Color;
use crate::compile::Image;
use crate::policy::{
    self, Checked, Endpoint, FailsafeList, Labels, Model, SelectOptions, Source, diagnostic,
};
use crate::ruleset::Ruleset;

/// What the command line asks for.
pub(super) struct Request<'a> {
    pub(super) filenames: &'a [PathBuf],
    pub(super) recursive: bool,
    pub(super) endpoint: &'a EndpointFlags,
    pub(super) options: &'a OptionFlags,
    pub(super) color: Color,
}

impl<'a> Request<'a> {
    /// What these flags ask for.
    pub(super) fn new(
        files: &'a Files,
        endpoint: &'a EndpointFlags,
        options: &'a OptionFlags,
        global: &Global,
    ) -> Self {
        Self {
            filenames: &files.filenames,
            recursive: files.recursive,
            endpoint,
            options,
            color: global.color,
        }
    }

    /// Prints diagnostics to stderr.
    pub(super) fn show(&self, diagnostics: &[policy::Diagnostic], sources: &[Source]) {
        eprint!(
            "{}",
            diagnostic::render(diagnostics, sources, self.color.on_stderr())
        );
    }
}

/// One endpoint's policies, compiled.
pub(super) struct Target {
    pub(super) interface: String,
    pub(super) ruleset: Ruleset,
    pub(super) image: Image,
}

/// Reads and checks the files.
pub(super) fn check(request: &Request<'_>) -> Result<(Vec<Source>, Checked), Failure> {
    let sources = policy::load(request.filenames, request.recursive).map_err(Failure::failed)?;
    let checked = policy::check(&sources);
    Ok((sources, checked))
}

/// Compiles for every endpoint that the files and flags name; shows every
/// diagnostic.
pub(super) fn all_targets(request: &Request<'_>) -> Result<Vec<Target>, Failure> {
    let (sources, model) = valid(request)?;
    targets(request, &sources, &model)
}

/// Compiles for the one endpoint that the files and flags name.
pub(super) fn one_target(request: &Request<'_>) -> Result<Target, Failure> {
    let (sources, model) = valid(request)?;
    let endpoint = policy::only_endpoint(endpoints(request, &model)?).map_err(Failure::failed)?;
    target(request, &sources, &model, &endpoint)
}

/// Compiles for every endpoint that the model and the flags name.
pub(super) fn targets(
    request: &Request<'_>,
    sources: &[Source],
    model: &Model,
) -> Result<Vec<Target>, Failure> {
    let endpoints = endpoints(request, model)?;
    let targets = endpoints
        .iter()
        .map(|endpoint| target(request, sources, model, endpoint))
        .collect::<Result<_, _>>()?;
    request.show(&policy::unselected(model, &endpoints), sources);
    Ok(targets)
}

fn valid(request: &Request<'_>) -> Result<(Vec<Source>, Model), Failure> {
    let (sources, checked) = check(request)?;
    request.show(&checked.diagnostics, &sources);
    let model = checked.model.ok_or(Failure::Reported)?;
    Ok((sources, model))
}

fn endpoints(request: &Request<'_>, model: &Model) -> Result<Vec<Endpoint>, Failure> {
    let labels: Labels = request.endpoint.labels.iter().cloned().collect();
    policy::endpoints_for(model, &request.endpoint.interface, &labels).map_err(Failure::failed)
}

fn target(
    request: &Request<'_>,
    sources: &[Source],
    model: &Model,
    endpoint: &Endpoint,
) -> Result<Target, Failure> {
    let failsafe: FailsafeList = match &request.options.failsafe_inbound {
        None => FailsafeList::default(),
        Some(list) => list
            .parse()
            .map_err(|error| Failure::Usage(format!("--failsafe-inbound: {error}")))?,
    };
    let options = SelectOptions {
        failsafe,
        options: request.options.options(),
    };
    let selected = policy::select(model, endpoint, &options);
    request.show(&selected.warnings, sources);
    if selected.selected_policies.is_empty() && !model.policies().is_empty() {
        request.show(
            &policy::unselected(model, std::slice::from_ref(endpoint)),
            sources,
        );
        return Err(Failure::failed(format_args!(
            "no policy selects the endpoint {:?}; nothing was changed. Give the endpoint the labels \
             that the policies select (--label KEY=VALUE, or in its document).",
            endpoint.name
        )));
    }
    let image = Image::compile(&selected.ruleset, request.options.max_memory)
        .map_err(|error| Failure::failed(format_args!("endpoint {:?}: {error}", endpoint.name)))?;
    Ok(Target {
        interface: endpoint.interface.clone(),
        ruleset: selected.ruleset,
        image,
    })
}
