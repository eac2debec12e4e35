//! The `nodewall` command: clap and an exit code.

use std::process::ExitCode;

use filter_user::cli::Cli;

fn main() -> ExitCode {
    match Cli::read() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
