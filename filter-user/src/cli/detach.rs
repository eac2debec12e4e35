//! `nodewall detach`.

use clap::Args;

use super::args::Global;
use super::error::Failure;
use crate::datapath::Datapath;

/// Take the filter off interfaces
///
/// The interface passes everything from that moment on, and its counters are gone.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall detach --interface eth0
  nodewall detach --all")]
pub(super) struct Detach {
    /// Interface; may be repeated
    #[arg(long, value_name = "IF", required_unless_present = "all")]
    interface: Vec<String>,

    /// Every interface that nodewall filters
    #[arg(long, conflicts_with = "interface")]
    all: bool,
}

impl Detach {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = Datapath::open(&global.pin_root)?;
        let interfaces = if self.all {
            let all = datapath.interfaces()?;
            if all.is_empty() {
                eprintln!("nothing is attached");
            }
            all
        } else {
            self.interface.clone()
        };
        for interface in interfaces {
            datapath.detach(&interface)?;
            eprintln!("{interface}: detached");
        }
        Ok(())
    }
}
