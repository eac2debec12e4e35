//! The `nodewall` command: clap and an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use filter_user::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
