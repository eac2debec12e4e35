//! `nodewall man`: the manual pages, made of the same definitions as `--help`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write as _, stdout};
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use jiff::Timestamp;

use super::config;
use super::error::Failure;

/// Programs that only an administrator has a use for.
const SECTION: &str = "8";

/// Print a manual page, or write all of them
///
/// Without a verb it is the page of nodewall itself. The pages are dated by
/// `SOURCE_DATE_EPOCH` where that is set, and have no date otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall man apply | man -l -
  nodewall man --out /usr/local/share/man/man8")]
pub(super) struct Man {
    /// The page of this verb
    #[arg(conflicts_with = "out")]
    verb: Option<String>,

    /// Write all pages into this folder, which is made where it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    /// Runs the verb, on the command line that nodewall has.
    pub(super) fn run(&self, command: Command) -> Result<(), Failure> {
        // Help of help is no page.
        let mut command = command.disable_help_subcommand(true);
        command.build();
        if let Some(folder) = &self.out {
            return write_all(&command, folder).map_err(|error| {
                Failure::failed(format_args!("cannot write {}: {error}", folder.display()))
            });
        }
        let page = match &self.verb {
            None => page(&command, &command),
            Some(name) => match command.find_subcommand(name) {
                Some(verb) => page(verb, &command),
                None => {
                    return Err(Failure::Usage(format!(
                        "{name:?} is no verb; `nodewall --help` lists them"
                    )));
                }
            },
        };
        stdout().write_all(&page?)?;
        Ok(())
    }
}

fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let verbs = command.get_subcommands();
    for command_or_verb in std::iter::once(command).chain(verbs) {
        let file = folder.join(format!("{}.{SECTION}", name(command_or_verb)));
        fs::write(file, page(command_or_verb, command)?)?;
    }
    Ok(())
}

/// The page of `command`, which is `whole` or a verb of it.
fn page(command: &Command, whole: &Command) -> io::Result<Vec<u8>> {
    let page = Page::new(command.clone())
        .title(name(command).to_uppercase())
        .section(SECTION)
        .date(date())
        .source(format!("nodewall {}", env!("CARGO_PKG_VERSION")))
        .manual("nodewall");
    let mut bytes = Vec::new();
    page.render_title(&mut bytes)?;
    page.render_name_section(&mut bytes)?;
    page.render_synopsis_section(&mut bytes)?;
    page.render_description_section(&mut bytes)?;
    page.render_options_section(&mut bytes)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut bytes)?;
    }
    let mut roff = Roff::default();
    if !command.has_subcommands() {
        of_help(command, &mut roff);
    }
    exit_status(command, &mut roff);
    environment(command, &mut roff);
    files(command, &mut roff);
    see_also(command, whole, &mut roff);
    roff.to_writer(&mut bytes)?;
    Ok(bytes)
}

/// `nodewall`, `nodewall-apply`.
fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// The day that the sources are of: a page must not change with the clock.
fn date() -> String {
    let seconds = env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(String::new, |time| time.strftime("%F").to_string())
}

/// What help says at its end: titles, and lines that are shown as they are.
fn of_help(command: &Command, roff: &mut Roff) {
    let text = command.get_after_help().map(ToString::to_string);
    let mut literal = false;
    let mut end = |roff: &mut Roff, begins: bool| {
        if literal != begins {
            roff.control(if begins { "EX" } else { "EE" }, []);
            literal = begins;
        }
    };
    for line in text.unwrap_or_default().lines() {
        if line.starts_with(' ') {
            end(roff, true);
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        } else if let Some(title) = line.strip_suffix(':') {
            end(roff, false);
            roff.control("SH", [title.to_uppercase().as_str()]);
        } else if !line.is_empty() {
            end(roff, false);
            roff.text([roman(line)]);
        }
    }
    end(roff, false);
}

fn exit_status(command: &Command, roff: &mut Roff) {
    let codes: &[(&str, &str)] = if command.get_name() == "diff" {
        &[
            ("0", "Nothing would change."),
            ("1", "Something would."),
            (">1", "It can't be told, or the command line is wrong."),
        ]
    } else {
        &[
            ("0", "Done."),
            ("1", "It failed, or the policies are not valid."),
            (
                "2",
                "A flag, a packet or the configuration file can't be understood.",
            ),
            ("3", "Nothing is attached that could be shown or taken off."),
            ("4", "The process may not do this."),
        ]
    };
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in codes {
        item(roff, [bold(*code)], meaning);
    }
}

fn environment(command: &Command, roff: &mut Roff) {
    roff.control("SH", ["ENVIRONMENT"]);
    let mut variables = BTreeMap::new();
    for argument in arguments(command) {
        if let (Some(variable), Some(flag)) = (argument.get_env(), argument.get_long()) {
            variables.insert(variable.to_string_lossy(), flag);
        }
    }
    for (variable, flag) in variables {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([
            roman("As "),
            bold(format!("--{flag}")),
            roman(", which goes before it."),
        ]);
    }
    item(
        roff,
        [bold("NO_COLOR")],
        "Where it is set, messages have no colours.",
    );
}

/// Where things are unless told otherwise: the flags' own defaults.
fn files(command: &Command, roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    item(
        roff,
        [italic(config::DEFAULT)],
        "Flags, as \"name: value\": what neither the command line nor the environment says.",
    );
    let mut paths = BTreeMap::new();
    for argument in arguments(command) {
        for path in argument.get_default_values() {
            if Path::new(path).is_absolute()
                && let Some(help) = argument.get_help()
            {
                paths.insert(path.to_string_lossy().into_owned(), help.to_string());
            }
        }
    }
    for (path, help) in paths {
        item(roff, [italic(path)], &format!("{help}."));
    }
}

fn see_also(command: &Command, whole: &Command, roff: &mut Roff) {
    let mut pages: Vec<String> = if command.has_subcommands() {
        let verbs = whole.get_subcommands();
        verbs.map(|verb| name(verb).to_owned()).collect()
    } else {
        vec![name(whole).to_owned()]
    };
    pages.sort();
    let mut line = Vec::new();
    for page in pages {
        line.extend([bold(page), roman(format!("({SECTION}), "))]);
    }
    line.extend([
        bold("bpf"),
        roman("(2), "),
        bold("systemd.service"),
        roman("(5)"),
    ]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text(line);
}

/// Its own, and those of its verbs.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let verbs = command.get_subcommands();
    command
        .get_arguments()
        .chain(verbs.flat_map(Command::get_arguments))
}

fn item(roff: &mut Roff, head: impl Into<Vec<Inline>>, text: &str) {
    roff.control("TP", []);
    roff.text(head);
    roff.text([roman(text)]);
}
