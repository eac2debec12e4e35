//! The configuration file: flags that neither the command line nor the environment
//! has.
//!
//! A key is the name of a flag that has a variable in the environment too, of whatever
//! verb; it holds for all verbs that have it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use serde::Deserialize;

use super::error::Failure;

/// Read where no other is named, if it is there.
pub(super) const DEFAULT: &str = "/etc/nodewall/nodewall.yaml";
/// The flag that names another.
const FLAG: &str = "--config";
/// The variable that does.
pub(super) const ENVIRONMENT: &str = "NODEWALL_CONFIG";

/// What a file says.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    values: BTreeMap<String, Values>,
}

/// What a flag is given.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    Several(Vec<Scalar>),
    One(Scalar),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(is) => is.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Values {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::Several(several) => several.iter().map(Scalar::text).collect(),
            Self::One(one) => vec![one.text()],
        }
    }
}

/// Reads the file that is named; where none is, the usual one, if it is there.
pub(super) fn read() -> Result<Option<Config>, Failure> {
    let named = named(env::args_os()).or_else(|| env::var_os(ENVIRONMENT));
    let named = named.filter(|name| !name.is_empty());
    let path = PathBuf::from(named.clone().unwrap_or_else(|| DEFAULT.into()));
    match fs::read_to_string(&path) {
        Ok(text) => Config::parse(&path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(Failure::Usage(format!(
            "cannot read the configuration file {}: {error}",
            path.display()
        ))),
    }
}

/// The file that the arguments name: what it says is needed before they are read.
fn named(arguments: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            continue;
        };
        if text == "--" {
            return None;
        }
        if text == FLAG {
            return arguments.next();
        }
        if let Some(path) = text
            .strip_prefix(FLAG)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(path.into());
        }
    }
    None
}

impl Config {
    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let values: Option<BTreeMap<String, Values>> = match text.trim() {
            "" => None,
            _ => serde_saphyr::from_str(text).map_err(|error| {
                Failure::Usage(format!(
                    "{}: not a list of flags with their values, such as `listen: \
                     127.0.0.1:9469`: {error}",
                    path.display()
                ))
            })?,
        };
        Ok(Self {
            path: path.to_owned(),
            values: values.unwrap_or_default(),
        })
    }

    /// Makes defaults of it. A key must be a flag of some verb.
    pub(super) fn give(&self, command: Command) -> Result<Command, Failure> {
        let mut flags: Vec<String> = longs(&command).collect();
        flags.extend(command.get_subcommands().flat_map(longs));
        for key in self.values.keys() {
            if !flags.contains(key) {
                return Err(Failure::Usage(format!(
                    "{}: {key:?} is no flag that a file can set; keys are the names, without \
                     dashes, of those flags that have a variable in the environment, as in \
                     `sample-drops: 100`",
                    self.path.display()
                )));
            }
        }
        let give = |argument: Arg| {
            let values = key(&argument).and_then(|key| self.values.get(key));
            match values {
                Some(values) => argument.default_values(values.texts()),
                None => argument,
            }
        };
        Ok(command
            .mut_args(give)
            .mut_subcommands(|verb| verb.mut_args(give)))
    }
}

/// The flags of a verb that a file may have.
fn longs(command: &Command) -> impl Iterator<Item = String> {
    let keys = command.get_arguments().filter_map(key);
    keys.map(str::to_owned)
}

/// The key of a flag: where it has a variable in the environment, too, but for the one
/// that names the file.
fn key(argument: &Arg) -> Option<&str> {
    let variable = argument.get_env()?;
    argument.get_long().filter(|_| variable != ENVIRONMENT)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn config(text: &str) -> Result<Config, Failure> {
        Config::parse(Path::new("nodewall.yaml"), text)
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let text = "pin-root: /sys/fs/bpf/mine\nsample-drops: 7\ninterface: [eth0, eth1]\n\
                    ingress-only: true\n";
        let command = config(text).unwrap().give(Cli::command()).unwrap();
        let line = ["nodewall", "run", "--sample-drops", "9"];
        let matches = command.try_get_matches_from(line).unwrap();
        let (_, run) = matches.subcommand().unwrap();
        assert_eq!(run.get_one::<u32>("sample_drops"), Some(&9));
        let root = run.get_one::<PathBuf>("pin_root").unwrap();
        assert_eq!(root, Path::new("/sys/fs/bpf/mine"));
        let interfaces = run.get_many::<String>("interface").unwrap();
        assert_eq!(interfaces.collect::<Vec<_>>(), ["eth0", "eth1"]);
        assert!(run.get_flag("ingress_only"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        // The second is one that no file should say.
        for key in ["sample-drop", "dry-run"] {
            let given = config(&format!("{key}: 7")).unwrap().give(Cli::command());
            let failure = given.unwrap_err();
            assert!(failure.message().unwrap().contains(&format!("{key:?}")));
        }
        assert!(config("- x").is_err() && config("listen: {a: b}").is_err());
        assert!(config("").unwrap().give(Cli::command()).is_ok());
        assert!(config("# nothing\n").unwrap().give(Cli::command()).is_ok());
    }

    #[test]
    fn the_flag_is_found_wherever_it_stands() {
        let named = |line: &str| named(line.split(' ').map(OsString::from));
        assert_eq!(named("nodewall run --config a.yaml"), Some("a.yaml".into()));
        assert_eq!(named("nodewall --config=b.yaml run"), Some("b.yaml".into()));
        assert_eq!(named("nodewall run -- --config c.yaml"), None);
        assert_eq!(named("nodewall run"), None);
    }
}
