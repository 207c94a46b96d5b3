//! Where a program's settings come from: flags over environment over file over default.
//!
//! A program describes its settings once, as a clap parser whose long flags are the names everywhere:
//! `--limits.max-body` is also `AFTERGLOW_LIMITS_MAX_BODY` in the environment and `max-body` under `[limits]` in the
//! TOML file given by `--config`. [`load`] reads all of them, refuses what nobody knows, and reports everything that is
//! wrong at once, before a port opens.
//!
//! How: environment and file become defaults of the flags, each checked by its flag's own parser, and clap does the
//! rest. So a value means the same wherever it is written, and there is one description for parsing, `--help` and the
//! reference in the docs.
//!
//! A variable `AFTERGLOW_...` that no program knows is refused as an unknown key of the file is.
//!
//! This is the only place that reads environment variables of our own; those of others (AWS_*, OTEL_*, RUST_LOG) are
//! read where they are meant.

mod file;
mod layers;
mod name;
mod print;
mod reference;
mod value;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub(crate) use file::explain as explain_toml;
pub use file::toml_problem;
pub use name::with_environment_in_help;
pub use reference::{reference, variables};
pub use value::{ByteSize, Secret, mask_password, not_within, too_large};

use layers::Layers;

/// The flags about configuration itself, flattened into each program that has a file.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Source {
    /// Reads settings from this TOML file; flags and environment go over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints the settings in effect, with secrets masked, and exits
    #[arg(long)]
    pub print_config: bool,
    /// Checks the settings and exits: 0 when they are good, 78 when not
    #[arg(long)]
    pub check_config: bool,
}

/// A program's settings: a clap parser that can say what is wrong with the whole.
pub trait Settings: clap::Parser {
    /// Returns what is wrong with the settings beyond each single value, one sentence each; all of them are reported.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the settings in effect as a file, where the program's file is of a kind of its own. `flags` are those of the flags and the
    /// environment, as other programs show theirs.
    fn printed(&self, _flags: &str) -> Option<String> {
        None
    }
}

/// Why a program ends before it begins.
#[derive(Debug)]
pub enum Exit {
    /// Help or the version was asked for, or the command line is wrong.
    Usage(clap::Error),
    /// Several values on the command line are wrong, and nothing else; a sentence each.
    Values(Vec<String>),
    /// Settings are wrong; a sentence each.
    Bad(Vec<String>),
    /// The settings were only to be shown or checked.
    Shown(String),
}

/// The exit code for a wrong command line, as clap has it.
const CODE_USAGE: u8 = 2;

/// The exit code for bad configuration, EX_CONFIG of sysexits.h.
const CODE_BAD: u8 = 78;

// === impl Exit ===

impl Exit {
    /// Prints to the terminal what there is to say and returns the exit code: 0 for what was asked for, 2 for wrong
    /// usage, 78 for bad settings.
    pub fn report(self) -> ExitCode {
        let code = self.code();
        // Nobody is left to tell when the terminal is gone.
        let _ = match self {
            Self::Usage(error) => error.print(),
            Self::Bad(problems) | Self::Values(problems) => {
                let lines: String = problems.iter().map(|problem| format!("error: {problem}\n")).collect();
                std::io::stderr().write_all(lines.as_bytes())
            }
            Self::Shown(text) => std::io::stdout().write_all(text.as_bytes()),
        };
        ExitCode::from(code)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(CODE_USAGE),
            Self::Values(_) => CODE_USAGE,
            Self::Bad(_) => CODE_BAD,
            Self::Shown(_) => 0,
        }
    }
}

/// Reads the settings of this process from its arguments, its environment and its file. `--version` says the git revision that the program
/// is built from as well.
///
/// # Errors
/// An [`Exit`] for `main` to report and return.
pub fn load<C: Settings>(revision: &str) -> Result<C, Exit> {
    #[expect(clippy::disallowed_methods, reason = "this is the owner of our settings")]
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    resolve(revision, std::env::args_os().collect(), &environment)
}

/// Does what [`load`] does, with the arguments and the environment given.
fn resolve<C: Settings>(
    revision: &str,
    arguments: Vec<OsString>,
    environment: &BTreeMap<String, OsString>,
) -> Result<C, Exit> {
    // First what the command line alone says, without demanding what the file may hold: is it well-formed, which
    // command is meant, which file. Help is among the errors.
    let command = with_revision(with_environment_in_help(C::command()), revision);
    let (given, arguments, mut refused) = read_command_line(&command, arguments)?;

    let mut layers = Layers::new(&command, &given);
    layers.read(environment);
    let (command, mut problems) = layers.apply(command);
    if problems.is_empty() && !refused.is_empty() {
        let texts = || refused.iter().map(layers::first_line).collect();
        return Err(if refused.len() == 1 { Exit::Usage(refused.remove(0)) } else { Exit::Values(texts()) });
    }
    problems.splice(0..0, refused.iter().map(layers::first_line));

    // What is wrong so far stands aside with its default, so that the rest can be looked at, too.
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| {
        let settings = C::from_arg_matches(&matches)?;
        Ok((settings, matches))
    });
    match parsed {
        Ok((settings, matches)) => {
            problems.extend(settings.problems());
            if !problems.is_empty() {
                return Err(Exit::Bad(problems));
            }
            match print::wanted(&matches) {
                Some(print::Wanted::Print) => {
                    let flags = print::settings(&C::command(), &matches, &layers);
                    Err(Exit::Shown(settings.printed(&flags).unwrap_or(flags)))
                }
                Some(print::Wanted::Check) => Err(Exit::Shown("configuration is good\n".to_owned())),
                None => Ok(settings),
            }
        }
        // A setting that is missing because its value was refused is not missing.
        Err(_) if !problems.is_empty() => Err(Exit::Bad(problems)),
        Err(error) if error.kind() == ErrorKind::ValueValidation => Err(Exit::Bad(vec![layers::first_line(&error)])),
        Err(error) => Err(Exit::Usage(error)),
    }
}

/// Makes `-V` and `--version` say the revision behind the version, of each command that has one of its own.
fn with_revision(command: clap::Command, revision: &str) -> clap::Command {
    let command = command.mut_subcommands(|command| with_revision(command, revision));
    match command.get_version().map(|version| format!("{version} ({revision})")) {
        Some(version) => command.version(version),
        None => command,
    }
}

/// Reads the command line without demanding what may be written elsewhere. Values that their flags refuse stand aside, so that all of
/// them can be told; the arguments that are left are returned beside.
fn read_command_line(
    command: &clap::Command,
    mut arguments: Vec<OsString>,
) -> Result<(clap::ArgMatches, Vec<OsString>, Vec<clap::Error>), Exit> {
    let mut refused = Vec::new();
    loop {
        let error = match layers::lenient(command.clone()).try_get_matches_from(&arguments) {
            Ok(matches) => return Ok((matches, arguments, refused)),
            Err(error) => error,
        };
        if let Some(left) = without_refused(&arguments, &error) {
            arguments = left;
            refused.push(error);
            continue;
        }
        // Usage and help are those of the command as it is, which says what it requires.
        return Err(Exit::Usage(command.clone().try_get_matches_from(&arguments).err().unwrap_or(error)));
    }
}

/// Returns the arguments without the value that was refused, and without its flag; nothing where it is another kind of error.
fn without_refused(arguments: &[OsString], error: &clap::Error) -> Option<Vec<OsString>> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.as_str()),
        _ => None,
    };
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let flag = text(ContextKind::InvalidArg)?.split_whitespace().next().filter(|flag| flag.starts_with("--"))?;
    let value = text(ContextKind::InvalidValue)?;
    // One of several behind a comma may be meant.
    let holds = |given: &str| given == value || given.split(',').any(|one| one == value);
    let at = (1..arguments.len()).find_map(|at| {
        let argument = arguments[at].to_str()?;
        if argument == flag {
            return holds(arguments.get(at + 1)?.to_str()?).then_some(at..at + 2);
        }
        holds(argument.strip_prefix(flag)?.strip_prefix('=')?).then_some(at..at + 1)
    })?;
    let mut left = arguments.to_vec();
    left.drain(at);
    Some(left)
}

#[cfg(test)]
mod tests;
