//! From files and flags to compiled rulesets: what every verb that takes
//! policies does first.

use std::path::PathBuf;

use super::args::{EndpointFlags, Files, Global, OptionFlags};
use super::error::Failure;
use super::output::{Color, count, message};
use crate::compile::Image;
use crate::policy::{
    self, Checked, Diagnostic, Endpoint, FailsafeList, Labels, Model, SelectOptions, Severity,
    Source, diagnostic,
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
    pub(super) fn show(&self, diagnostics: &[Diagnostic], sources: &[Source]) {
        message(&diagnostic::render(
            diagnostics,
            sources,
            self.color.on_stderr(),
        ));
    }
}

/// One endpoint's policies, compiled.
pub(super) struct Target {
    pub(super) interface: String,
    /// The policies that select it, also those without rules.
    pub(super) policies: Vec<String>,
    pub(super) ruleset: Ruleset,
    pub(super) image: Image,
    /// Why nothing would be filtered there: no policy selects it.
    pub(super) idle: Option<String>,
}

/// Reads and checks the files.
pub(super) fn check(request: &Request<'_>) -> Result<(Vec<Source>, Checked), Failure> {
    let sources = policy::load(request.filenames, request.recursive).map_err(Failure::failed)?;
    let checked = policy::check(&sources);
    Ok((sources, checked))
}

/// The number of errors among diagnostics.
pub(super) fn errors(diagnostics: &[Diagnostic]) -> u64 {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .count() as u64
}

/// Compiles for every endpoint that the files and flags name; shows every
/// diagnostic.
pub(super) fn all_targets(request: &Request<'_>) -> Result<Vec<Target>, Failure> {
    let (sources, model) = valid(request)?;
    let endpoints = endpoints(request, &model)?;
    busy_targets(request, &sources, &model, &endpoints)
}

/// Compiles for the one endpoint that the files and flags name.
pub(super) fn one_target(request: &Request<'_>) -> Result<Target, Failure> {
    let (sources, model) = valid(request)?;
    let endpoint = policy::only_endpoint(endpoints(request, &model)?).map_err(Failure::failed)?;
    let mut targets = busy_targets(request, &sources, &model, &[endpoint])?;
    Ok(targets.remove(0))
}

fn valid(request: &Request<'_>) -> Result<(Vec<Source>, Model), Failure> {
    let (sources, checked) = check(request)?;
    request.show(&checked.diagnostics, &sources);
    let model = checked.model.ok_or_else(|| {
        let errors = count(errors(&checked.diagnostics), "error", "errors");
        Failure::failed(format_args!("the policy files have {errors}, shown above"))
    })?;
    Ok((sources, model))
}

/// The endpoints that the files and the flags name.
pub(super) fn endpoints(request: &Request<'_>, model: &Model) -> Result<Vec<Endpoint>, Failure> {
    let labels: Labels = request.endpoint.labels.iter().cloned().collect();
    policy::endpoints_for(model, &request.endpoint.interface, &labels).map_err(Failure::failed)
}

/// Compiles for these endpoints, each of which must be selected by a policy.
fn busy_targets(
    request: &Request<'_>,
    sources: &[Source],
    model: &Model,
    endpoints: &[Endpoint],
) -> Result<Vec<Target>, Failure> {
    let mut warnings = Vec::new();
    let targets = targets(request, model, endpoints, &mut warnings);
    request.show(&warnings, sources);
    let targets = targets?;
    match targets.iter().find_map(|target| target.idle.as_ref()) {
        Some(idle) => Err(Failure::failed(idle)),
        None => Ok(targets),
    }
}

/// Compiles for these endpoints; what is probably not intended goes to
/// `warnings`.
pub(super) fn targets(
    request: &Request<'_>,
    model: &Model,
    endpoints: &[Endpoint],
    warnings: &mut Vec<Diagnostic>,
) -> Result<Vec<Target>, Failure> {
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
    let mut targets = Vec::new();
    for endpoint in endpoints {
        let selected = policy::select(model, endpoint, &options);
        warnings.extend(selected.warnings);
        let idle = selected
            .selected_policies
            .is_empty()
            .then(|| idle(model, endpoint))
            .flatten();
        let image =
            Image::compile(&selected.ruleset, request.options.max_memory).map_err(|error| {
                Failure::failed(format_args!("endpoint {:?}: {error}", endpoint.name))
            })?;
        targets.push(Target {
            interface: endpoint.interface.clone(),
            policies: selected
                .selected_policies
                .iter()
                .map(ToString::to_string)
                .collect(),
            ruleset: selected.ruleset,
            image,
            idle,
        });
    }
    warnings.extend(policy::unselected(model, endpoints));
    Ok(targets)
}

/// What is wrong with an endpoint that no policy selects. Nothing is, where
/// there are no policies and its document asks for default deny.
fn idle(model: &Model, endpoint: &Endpoint) -> Option<String> {
    let name = &endpoint.name;
    if !model.policies().is_empty() {
        return Some(format!(
            "no policy selects the endpoint {name:?}. Give the endpoint the labels that the policies \
             select (--label KEY=VALUE, or in its document)."
        ));
    }
    endpoint.default_allow.then(|| {
        format!(
            "the files hold no policy, so nothing would be filtered on the endpoint {name:?}. Name \
             the policy's file with -f; `nodewall detach` takes a filter off."
        )
    })
}
