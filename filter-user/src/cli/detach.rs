//! `nodewall detach`.

use clap::Args;

use super::args::Global;
use super::error::Failure;
use super::output::say;

/// Take the filter off interfaces
///
/// The interface passes everything from that moment on, and its counters are
/// gone. Where several are named, each is tried. Exit code 3 where an
/// interface that is named has no filter; --all where there is none is no error.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall detach --interface eth0
  nodewall detach --all")]
pub(super) struct Detach {
    /// Interface; may be repeated
    #[arg(
        long,
        value_name = "IF",
        value_delimiter = ',',
        required_unless_present = "all"
    )]
    interface: Vec<String>,

    /// Every interface that nodewall filters
    #[arg(long, conflicts_with = "interface")]
    all: bool,
}

impl Detach {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        let interfaces = if self.all {
            let all = datapath.interfaces()?;
            if all.is_empty() {
                datapath.tidy()?;
                say("nothing is attached");
            }
            all
        } else {
            self.interface.clone()
        };
        // One that fails is no reason to leave the others on.
        let mut failed: Option<Failure> = None;
        for interface in interfaces {
            match datapath.detach(&interface) {
                Ok(()) => say(format_args!("{interface}: detached")),
                Err(this) => {
                    if let Some(earlier) = failed.replace(this.into()) {
                        let _ = earlier.report(global.color);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
