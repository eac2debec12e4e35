//! From files and flags to compiled rulesets: what every verb that takes
//! policies does first.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ipnet::IpNet;

use super::args::{EndpointFlags, Files, Global, NodeAddress, OptionFlags, WarningFlags};
use super::error::Failure;
use super::output::{Color, count, message, size};
use super::times::Times;
use crate::bytes::needed_and_allowed;
use crate::compile::{Analysis, CompileError, Image};
use crate::datapath::{self, Compiled, Described, DescribedDocument};
use crate::lint;
use crate::policy::print::{self, PrintOptions};
use crate::policy::{
    self, Checked, Diagnostic, Endpoint, Failsafe, Host, Labels, Model, SelectOptions, Selected,
    Severity, Source, diagnostic,
};
use crate::ruleset::{Direction, Rule, Ruleset, Stage};

/// What the command line asks for.
pub(super) struct Request<'a> {
    pub(super) filenames: &'a [PathBuf],
    pub(super) recursive: bool,
    pub(super) endpoint: &'a EndpointFlags,
    pub(super) options: &'a OptionFlags,
    pub(super) color: Color,
    /// Whether this host is asked for what the flags don't say: its name, its
    /// addresses.
    pub(super) live: bool,
    /// Whether what goes out is left alone.
    pub(super) ingress_only: bool,
    /// How long the steps take.
    pub(super) times: Rc<Times>,
    /// What came up, for who asks later.
    pub(super) found: Rc<Found>,
}

/// What comes up while policies are read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files.
    pub(super) sources: RefCell<Vec<PathBuf>>,
    /// The first error, with its place.
    pub(super) error: RefCell<Option<String>>,
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
            live: false,
            ingress_only: false,
            times: Rc::default(),
            found: Rc::default(),
        }
    }

    /// The same, with this host asked for what the flags don't say.
    pub(super) fn on_this_host(self) -> Self {
        Self { live: true, ..self }
    }

    /// Prints diagnostics to stderr.
    pub(super) fn show(&self, diagnostics: &[Diagnostic], sources: &[Source]) {
        let mut errors = diagnostics.iter();
        let error = errors.find(|found| found.severity == Severity::Error);
        if let Some(error) = error {
            let mut first = self.found.error.borrow_mut();
            first.get_or_insert_with(|| error.summary());
        }
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
    /// What goes out, where both directions were asked for.
    pub(super) egress: Option<(Ruleset, Image)>,
    /// Why nothing would be filtered there: no policy selects it.
    pub(super) idle: Option<String>,
    /// Whether a policy or profile has a word in what goes out.
    pub(super) speaks_of_egress: bool,
    /// What it is made of, where it is to be put in force.
    pub(super) described: Described,
}

impl Target {
    /// What goes out, where it is to be filtered: some rule asks for that, or what
    /// comes in needs to know it, if `flows` are remembered.
    pub(super) fn egress_in_force(&self, flows: bool) -> Option<Compiled<'_>> {
        let (ruleset, image) = self.egress.as_ref()?;
        let asked = ruleset.rules.iter().any(|rule| {
            rule.id.stage != Stage::Failsafe && !rule.is_default() && !is_default_profile(rule)
        });
        let needed =
            asked || ruleset.denies_statefully() || flows && self.ruleset.denies_statefully();
        needed.then_some(Compiled { ruleset, image })
    }
}

/// Whether a rule is that of the profile that allows everything.
fn is_default_profile(rule: &Rule) -> bool {
    let profile = rule.id.policy.strip_prefix(policy::PROFILE_PREFIX);
    profile == Some(policy::DEFAULT_ALLOW)
}

/// Which rules of an endpoint are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directions {
    /// Those of what comes in, and of what goes out.
    Both,
    /// Those of one direction.
    Only(Direction),
}

/// Reads and checks the files.
pub(super) fn check(request: &Request<'_>) -> Result<(Vec<Source>, Checked), Failure> {
    let load = || policy::load(request.filenames, request.recursive);
    let sources = request.times.of("read", load).map_err(Failure::failed)?;
    let checked = request.times.of("check", || policy::check(&sources));
    let names = sources.iter().map(|source| PathBuf::from(&**source.name()));
    *request.found.sources.borrow_mut() = names.collect();
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
pub(super) fn all_targets(
    request: &Request<'_>,
    denied: WarningFlags,
) -> Result<Vec<Target>, Failure> {
    let (sources, model) = valid(request)?;
    let endpoints = endpoints(request, &model)?;
    let mut warnings = lint::of_model(&model);
    let targets = targets(request, &sources, &model, &endpoints, &mut warnings);
    request.show(&warnings, &sources);
    let targets = busy(targets?)?;
    deny_warnings(denied, &warnings)?;
    Ok(targets)
}

/// The same without looking for what is odd.
pub(super) fn plain_targets(request: &Request<'_>) -> Result<Vec<Target>, Failure> {
    let (sources, model) = valid(request)?;
    let endpoints = endpoints(request, &model)?;
    let mut warnings = Vec::new();
    let targets = select(
        request,
        &model,
        &endpoints,
        Directions::Both,
        &mut warnings,
        &mut |_, _| {},
    );
    request.show(&warnings, &sources);
    busy(targets?)
}

/// Refuses warnings where that is asked for.
pub(super) fn deny_warnings(flags: WarningFlags, found: &[Diagnostic]) -> Result<(), Failure> {
    let warnings = found
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning)
        .count() as u64;
    if flags.deny_warnings && warnings > 0 {
        return Err(Failure::failed(format_args!(
            "{}, shown above, and --deny-warnings",
            count(warnings, "warning", "warnings")
        )));
    }
    Ok(())
}

/// Compiles for the one endpoint that the files and flags name.
pub(super) fn one_target(request: &Request<'_>, direction: Direction) -> Result<Target, Failure> {
    let (sources, model) = valid(request)?;
    let endpoint = policy::only_endpoint(endpoints(request, &model)?).map_err(Failure::failed)?;
    let endpoints = [endpoint];
    let mut warnings = Vec::new();
    let selected = select(
        request,
        &model,
        &endpoints,
        Directions::Only(direction),
        &mut warnings,
        &mut |_, _| {},
    );
    request.show(&warnings, &sources);
    Ok(busy(selected?)?.remove(0))
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
    let host = host(request)?;
    policy::endpoints_for(model, &request.endpoint.interface, &labels, &host)
        .map_err(Failure::failed)
}

fn host(request: &Request<'_>) -> Result<Host, Failure> {
    let interfaces = if request.live {
        datapath::addresses()?.interfaces
    } else {
        Vec::new()
    };
    Ok(Host {
        node: node(request),
        node_is_certain: request.endpoint.node.is_some(),
        interfaces,
    })
}

/// The node's name, as the flags have it, or this host.
fn node(request: &Request<'_>) -> Option<String> {
    let given = request.endpoint.node.clone();
    given.or_else(|| {
        let name = request.live.then(nix::unistd::gethostname)?.ok()?;
        name.into_string().ok()
    })
}

/// The addresses that are the node's own, where others are to be told from
/// them.
fn node_addresses(request: &Request<'_>, interface: &str) -> Result<Option<Vec<IpNet>>, Failure> {
    let given = &request.options.node_addresses;
    if given.contains(&NodeAddress::Any) {
        return Ok(None);
    }
    let ask = given.contains(&NodeAddress::Auto)
        || (given.is_empty() && request.live && datapath::forwards(interface));
    let mut nets = if ask {
        datapath::addresses()?.own
    } else {
        Vec::new()
    };
    nets.extend(given.iter().filter_map(|address| match address {
        NodeAddress::Net(net) => Some(*net),
        NodeAddress::Auto | NodeAddress::Any => None,
    }));
    Ok((!nets.is_empty()).then_some(nets))
}

fn failsafe(request: &Request<'_>) -> Result<Failsafe, Failure> {
    let mut failsafe = Failsafe::default();
    let options = request.options;
    for (flag, given, list) in [
        ("inbound", &options.failsafe_inbound, &mut failsafe.inbound),
        (
            "outbound",
            &options.failsafe_outbound,
            &mut failsafe.outbound,
        ),
    ] {
        if let Some(given) = given {
            *list = given
                .parse()
                .map_err(|error| Failure::Usage(format!("--failsafe-{flag}: {error}")))?;
        }
    }
    Ok(failsafe)
}

/// Each endpoint must be selected by a policy.
fn busy(targets: Vec<Target>) -> Result<Vec<Target>, Failure> {
    match targets.iter().find_map(|target| target.idle.as_ref()) {
        Some(idle) => Err(Failure::failed(idle)),
        None => Ok(targets),
    }
}

/// Compiles for these endpoints; what is probably not intended, in the rules
/// as well, goes to `warnings`.
pub(super) fn targets(
    request: &Request<'_>,
    sources: &[Source],
    model: &Model,
    endpoints: &[Endpoint],
    warnings: &mut Vec<Diagnostic>,
) -> Result<Vec<Target>, Failure> {
    let mut odd = Vec::new();
    let lint = &mut |analysis: &Analysis<'_>, endpoint: &Endpoint| {
        odd.extend(lint::of_ruleset(analysis, endpoint, sources));
    };
    let directions = if request.ingress_only {
        Directions::Only(Direction::Ingress)
    } else {
        Directions::Both
    };
    let targets = select(request, model, endpoints, directions, warnings, lint)?;
    warnings.append(&mut odd);
    // What is odd about a rule is so on every endpoint.
    let mut seen = HashSet::new();
    warnings.retain(|warning| seen.insert(warning.clone()));
    Ok(targets)
}

/// Compiles for these endpoints; what is probably not intended goes to
/// `warnings`. `lint` sees each ruleset in its classes, which are worked out
/// once for it and the tables.
fn select(
    request: &Request<'_>,
    model: &Model,
    endpoints: &[Endpoint],
    directions: Directions,
    warnings: &mut Vec<Diagnostic>,
    lint: &mut dyn FnMut(&Analysis<'_>, &Endpoint),
) -> Result<Vec<Target>, Failure> {
    let failsafe = failsafe(request)?;
    let mut targets = Vec::new();
    for endpoint in endpoints {
        let options = SelectOptions {
            failsafe: failsafe.clone(),
            options: request.options.options(),
            node_addresses: node_addresses(request, &endpoint.interface)?,
        };
        let mut budget = request.options.max_memory;
        let mut compile = |direction| {
            let selected = select_one(request, model, endpoint, direction, &options, warnings)?;
            let image = compile_one(request, endpoint, &selected.ruleset, budget, lint)?;
            budget = budget.saturating_sub(image.memory());
            Ok::<_, Failure>((selected, image))
        };
        let first = match directions {
            Directions::Both => Direction::Ingress,
            Directions::Only(direction) => direction,
        };
        let (selected, image) = compile(first)?;
        let egress = match directions {
            Directions::Both => Some(compile(Direction::Egress)?),
            Directions::Only(_) => None,
        };
        let mut names = selected.selected_policies;
        let of_egress = egress
            .iter()
            .flat_map(|(selected, _)| &selected.selected_policies);
        for name in of_egress {
            if !names.contains(name) {
                names.push(Arc::clone(name));
            }
        }
        let described = if request.live {
            let describe = || describe(request, model, endpoint, &options, &names);
            request.times.of("describe", describe)
        } else {
            Described::default()
        };
        let mut selecting = model.policies().iter();
        let is_selected = selecting.any(|policy| endpoint.is_selected_by(policy));
        targets.push(Target {
            interface: endpoint.interface.clone(),
            policies: names.iter().map(ToString::to_string).collect(),
            ruleset: selected.ruleset,
            image,
            egress: egress.map(|(selected, image)| (selected.ruleset, image)),
            idle: (!is_selected).then(|| idle(model, endpoint)).flatten(),
            speaks_of_egress: speaks_of_egress(model, endpoint),
            described,
        });
    }
    warnings.extend(policy::unselected(model, endpoints));
    Ok(targets)
}

/// The rules of an endpoint in a direction.
fn select_one(
    request: &Request<'_>,
    model: &Model,
    endpoint: &Endpoint,
    direction: Direction,
    options: &SelectOptions,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Selected, Failure> {
    let select = || policy::select(model, endpoint, direction, options);
    let mut selected = request.times.of("select", select);
    let refused = errors(&selected.warnings);
    warnings.append(&mut selected.warnings);
    if refused > 0 {
        return Err(Failure::failed(format_args!(
            "endpoint {:?}: not all of its rules can be enforced, as shown above",
            endpoint.name
        )));
    }
    Ok(selected)
}

/// Compiles them into at most so much memory.
fn compile_one(
    request: &Request<'_>,
    endpoint: &Endpoint,
    ruleset: &Ruleset,
    max_memory: u64,
    lint: &mut dyn FnMut(&Analysis<'_>, &Endpoint),
) -> Result<Image, Failure> {
    let times = &request.times;
    let refused = |error: CompileError| {
        Failure::failed(format_args!("endpoint {:?}: {error}", endpoint.name))
    };
    let analyse = || Analysis::of(ruleset);
    let analysis = times.of("compile", analyse).map_err(refused)?;
    let write = || analysis.image(max_memory, None);
    let image = times.of("compile", write).map_err(refused)?;
    if request.live {
        within_budget(&image, ruleset, max_memory).map_err(|failure| {
            Failure::failed(format_args!("endpoint {:?}: {failure}", endpoint.name))
        })?;
    }
    times.of("lint", || lint(&analysis, endpoint));
    Ok(image)
}

/// Whether a policy or profile of an endpoint has a word in what goes out.
fn speaks_of_egress(model: &Model, endpoint: &Endpoint) -> bool {
    let mut policies = model.policies().iter();
    let mut profiles = model.profiles().iter();
    policies
        .any(|policy| policy.types().egress && !policy.staged() && endpoint.is_selected_by(policy))
        || profiles.any(|profile| !profile.egress.is_empty() && endpoint.has_profile(profile))
}

/// The counters stand beside the tables, and take the more memory the more CPUs
/// this host has.
fn within_budget(image: &Image, ruleset: &Ruleset, max_memory: u64) -> Result<(), String> {
    let counters =
        datapath::counters_memory(image.counters()).map_err(|error| error.to_string())?;
    let tables = image.memory();
    if tables + counters <= max_memory {
        return Ok(());
    }
    let [all, allowed] = needed_and_allowed(tables + counters, max_memory);
    Err(format!(
        "the counters of {} rules take {} on this host's CPUs, beside tables of {}: {all}, more \
         than the budget of {allowed}; allow more with --max-memory, or merge rules that differ \
         only in their addresses",
        ruleset.rules.len(),
        size(counters),
        size(tables),
    ))
}

/// What is to be read back of what is in force.
fn describe(
    request: &Request<'_>,
    model: &Model,
    endpoint: &Endpoint,
    options: &SelectOptions,
    policies: &[Arc<str>],
) -> Described {
    let node = node(request);
    let printed = print::print(
        model,
        &PrintOptions {
            node: node.as_deref(),
            endpoints: &[],
            in_force_on: Some(endpoint),
        },
    );
    let unsaid = printed.diagnostics.iter();
    let unsaid = unsaid.filter(|found| found.severity == Severity::Error);
    Described {
        unsaid: unsaid.map(|found| found.message.clone()).collect(),
        documents: printed
            .documents
            .into_iter()
            .map(|document| DescribedDocument {
                policy: document.policy.map(|name| name.to_string()),
                value: document.value,
                nets: document.nets,
            })
            .collect(),
        policies: policies.iter().map(ToString::to_string).collect(),
        failsafe: [
            options.failsafe.inbound.to_string(),
            options.failsafe.outbound.to_string(),
        ],
        node_addresses: options.node_addresses.clone(),
    }
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
    let open = endpoint
        .profiles
        .iter()
        .any(|name| name == policy::DEFAULT_ALLOW);
    open.then(|| {
        format!(
            "the files hold no policy, so nothing would be filtered on the endpoint {name:?}. Name \
             the policy's file with -f; `nodewall detach` takes a filter off."
        )
    })
}
