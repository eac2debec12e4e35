//! What it takes to put policies in force: the flags of `apply` and `run`, and what
//! they mean.

use std::rc::Rc;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

use super::args::{EndpointFlags, Files, FlowFlags, Global, OptionFlags, WarningFlags};
use super::compiled::{self, Found, Request, Target};
use super::error::Failure;
use super::lockout;
use super::output::warning;
use super::times::Times;
use crate::datapath::{self, Applied, Compiled, Datapath, EgressHook, Mode, Policies};

/// How policies are put in force.
#[derive(Args, Clone, Debug)]
pub(super) struct PutFlags {
    #[command(flatten)]
    pub(super) endpoint: EndpointFlags,

    /// Where the program runs
    #[arg(long, value_enum, default_value = "auto", env = "NODEWALL_MODE")]
    mode: ModeFlag,

    #[command(flatten)]
    warnings: WarningFlags,

    /// Leave what goes out alone: no rule of it is enforced, and nothing of it is
    /// remembered, so that return traffic needs rules of its own
    #[arg(long, env = "NODEWALL_INGRESS_ONLY", value_parser = FalseyValueParser::new())]
    ingress_only: bool,

    /// Where what goes out is filtered, unless it is already
    #[arg(
        long,
        value_enum,
        value_name = "HOOK",
        default_value = "auto",
        env = "NODEWALL_EGRESS_HOOK"
    )]
    egress_hook: HookFlag,

    #[command(flatten)]
    flows: FlowFlags,

    #[command(flatten)]
    options: OptionFlags,
}

/// More would be no sample: the ring that keeps them for a reader, who comes ten
/// times a second, has room for 1,489.
pub(super) const MOST_SAMPLES: i64 = 10_000;

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    /// In the driver where it can, else in the network stack
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the network stack: any interface, at a lower rate
    Generic,
}

/// `--egress-hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HookFlag {
    /// At TCX where the kernel has it, else at clsact
    Auto,
    /// By a link at TCX (Linux 6.6 and newer)
    Tcx,
    /// By a classifier at clsact
    Clsact,
}

impl PutFlags {
    /// The same for documents that name their endpoints.
    pub(super) fn by_documents(mut self) -> Self {
        self.endpoint.interface.clear();
        self.endpoint.labels.clear();
        self
    }
}

/// What is to be put in force.
#[derive(Clone, Copy)]
pub(super) struct Put<'a> {
    pub(super) flags: &'a PutFlags,
    pub(super) files: &'a Files,
    /// Dropped packets that are reported, a second and CPU.
    pub(super) sample_drops: u32,
    pub(super) global: &'a Global,
}

impl Put<'_> {
    /// Compiles for every endpoint that files and flags name.
    pub(super) fn targets(
        &self,
        times: &Rc<Times>,
        found: &Rc<Found>,
    ) -> Result<Vec<Target>, Failure> {
        let flags = self.flags;
        let request = Request::new(self.files, &flags.endpoint, &flags.options, self.global);
        let request = Request {
            times: Rc::clone(times),
            found: Rc::clone(found),
            ingress_only: flags.ingress_only,
            ..request.on_this_host()
        };
        compiled::all_targets(&request, flags.warnings)
    }

    /// Whether just this is in force already.
    pub(super) fn is_in_force(&self, datapath: &Datapath, target: &Target) -> bool {
        // What can't be told is done again.
        let policies = self.policies(target);
        let found = datapath.is_in_force(&target.interface, self.mode(), policies);
        matches!(found, Ok(true))
    }

    /// Warns of connections that these policies would cut off; where warnings are errors,
    /// that is one.
    pub(super) fn warn_of_lockout(&self, targets: &[Target]) -> Result<(), Failure> {
        let remembers = self.max_flows() > 0;
        let warned = lockout::warn(self.global.color, targets, remembers);
        if warned > 0 && self.flags.warnings.deny_warnings {
            return Err(Failure::failed(
                "somebody would be locked out, and warnings are errors here. Nothing was changed.",
            ));
        }
        Ok(())
    }

    /// Where they are put.
    pub(super) fn datapath(&self) -> Result<Datapath, Failure> {
        Ok(Datapath::open(&self.global.pin_root)?
            .sampling_drops(self.sample_drops)
            .remembering(self.max_flows())
            .egress_at(match self.flags.egress_hook {
                HookFlag::Auto => None,
                HookFlag::Tcx => Some(EgressHook::Tcx),
                HookFlag::Clsact => Some(EgressHook::Clsact),
            }))
    }

    fn max_flows(&self) -> u32 {
        if self.flags.ingress_only {
            0
        } else {
            self.flags.flows.max_flows
        }
    }

    /// What is to be in force on what goes out.
    pub(super) fn egress<'t>(&self, target: &'t Target) -> Option<Compiled<'t>> {
        target.egress_in_force(self.max_flows() > 0)
    }

    /// Puts one endpoint's policies in force.
    pub(super) fn apply(
        &self,
        datapath: &Datapath,
        target: &Target,
    ) -> Result<Applied, datapath::Error> {
        let mode = self.mode();
        let applied = datapath.apply(&target.interface, mode, self.policies(target))?;
        if applied.mode == Mode::Generic && mode == Mode::Auto {
            warning(
                self.global.color,
                format_args!(
                    "{} has no native XDP, so the filter runs in generic mode, behind the driver: \
                     the verdicts are the same, the packet rate is lower",
                    target.interface
                ),
            );
        }
        Ok(applied)
    }

    const fn mode(&self) -> Mode {
        match self.flags.mode {
            ModeFlag::Auto => Mode::Auto,
            ModeFlag::Native => Mode::Native,
            ModeFlag::Generic => Mode::Generic,
        }
    }

    fn policies<'t>(&self, target: &'t Target) -> Policies<'t> {
        Policies {
            ingress: Compiled {
                ruleset: &target.ruleset,
                image: &target.image,
            },
            egress: self.egress(target),
            described: &target.described,
        }
    }
}
