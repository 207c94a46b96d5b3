//! Environment and file as defaults of the flags of the command that runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Id};

use super::file::{self, Entry, Given};
use super::{name, variables};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Environment,
    File,
}

/// Values for the flags of one command line: of the program, and of the subcommand that is meant, down to the last.
#[derive(Debug)]
pub(super) struct Layers {
    /// The names of the subcommands from the program to the one that runs.
    path: Vec<String>,
    /// The settings of all of them, by key.
    args: BTreeMap<String, Setting>,
    /// The file, where one is to be read: by its flag until the environment is known.
    file: Option<PathBuf>,
    has_file: bool,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Setting {
    /// How deep the command that has the flag is: 0 is the program itself.
    depth: usize,
    arg: Arg,
    on_command_line: bool,
    value: Option<(Origin, Vec<OsString>)>,
}

// === impl Layers ===

impl Layers {
    /// Looks at the command that `matches` mean.
    pub(super) fn new(command: &Command, matches: &ArgMatches) -> Self {
        let mut layers =
            Self { path: Vec::new(), args: BTreeMap::new(), file: None, has_file: false, problems: Vec::new() };
        let (mut command, mut matches) = (command, matches);
        loop {
            layers.add(command, matches);
            let Some((name, inner)) = matches.subcommand() else { break };
            let Some(subcommand) = command.find_subcommand(name) else { break };
            layers.path.push(name.to_owned());
            (command, matches) = (subcommand, inner);
        }
        layers
    }

    fn add(&mut self, command: &Command, matches: &ArgMatches) {
        let has = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
        // A program may have a `--config` of another kind; ours comes with its companions.
        if has("config") && has("print_config") {
            self.has_file = true;
            self.file = matches.get_one::<PathBuf>("config").cloned();
        }
        for arg in command.get_arguments() {
            if let Some(key) = name::key(arg) {
                let on_command_line = matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
                let setting = Setting { depth: self.path.len(), arg: arg.clone(), on_command_line, value: None };
                self.args.insert(key.to_owned(), setting);
            }
        }
    }

    /// Reads the environment and the file it or the command line names.
    pub(super) fn read(&mut self, environment: &BTreeMap<String, OsString>) {
        // Empty means unset, as for OpenTelemetry's variables: a deployment can blank what an image sets.
        let set = |key: &str| environment.get(&name::environment(key)).filter(|value| !value.is_empty());
        if self.has_file && self.file.is_none() {
            self.file = set("config").map(PathBuf::from);
        }
        if let Some(path) = self.file.clone() {
            match file::read(&path) {
                Ok(entries) => entries.into_iter().for_each(|entry| self.take(&path.display().to_string(), entry)),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        for (variable, value) in environment {
            let own = self.args.keys().map(String::as_str);
            self.problems.extend(variables::problem(variable, &value.to_string_lossy(), own));
        }
        for (key, setting) in &mut self.args {
            if let Some(value) = set(key) {
                setting.value = Some((Origin::Environment, vec![value.clone()]));
            }
        }
    }

    /// Takes one entry of the file, or notes what is wrong with it.
    fn take(&mut self, file: &str, entry: Entry) {
        let Entry { key, given } = entry;
        let known = self.args.keys().map(String::as_str).filter(|key| *key != "config");
        let Some(setting) = self.args.get(&key).filter(|_| key != "config") else {
            let hint = name::nearest(&key, known).map(|near| format!(", did you mean `{near}`?"));
            self.problems.push(format!("{file}: `{key}` is not a setting{}", hint.unwrap_or_default()));
            return;
        };
        let values = match given {
            Given::One(value) => vec![value],
            Given::Many(values) if name::is_list(&setting.arg) => values,
            Given::Many(_) => return self.problems.push(format!("{file}: `{key}` takes one value, not a list")),
            Given::Unusable => {
                return self.problems.push(format!("{file}: `{key}` is neither a value nor a list of values"));
            }
        };
        let setting = self.args.get_mut(&key).expect("looked up above");
        setting.value = Some((Origin::File, values.into_iter().map(OsString::from).collect()));
    }

    /// Returns the command with the values as its defaults, and what is wrong. A value that its flag refuses is left
    /// out.
    pub(super) fn apply(&mut self, mut command: Command) -> (Command, Vec<String>) {
        let file = self.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let mut problems = std::mem::take(&mut self.problems);
        for (key, setting) in &mut self.args {
            let Some((origin, values)) = &mut setting.value else { continue };
            if setting.on_command_line {
                setting.value = None;
                continue;
            }
            if name::is_switch(&setting.arg) {
                values.iter_mut().for_each(spell_switch);
            }
            let id = setting.arg.get_id().clone();
            let path = &self.path[..setting.depth];
            let place = match origin {
                Origin::Environment => name::environment(key),
                Origin::File => format!("{file}: `{key}`"),
            };
            let alone = mut_command(command.clone(), path, |command| with_default(command, &id, values));
            match refusal(alone, path) {
                None => command = mut_command(command, path, |command| with_default(command, &id, values)),
                Some(reason) => {
                    problems.push(format!("{place}: {reason}"));
                    setting.value = None;
                }
            }
        }
        (command, problems)
    }

    /// Returns the names of the subcommands that run.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    /// Returns where the value of a setting comes from, when not from the command line or its default.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.args.get(key)?.value.as_ref().map(|(origin, _)| *origin)
    }
}

/// Lets people write 1, yes and on for true in the environment.
fn spell_switch(value: &mut OsString) {
    let spelled = match value.to_string_lossy().to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" => "true",
        "0" | "no" | "off" => "false",
        _ => return,
    };
    *value = OsString::from(spelled);
}

/// Returns the command without its demands: nothing is required, so that it says what is wrong with what there is.
pub(super) fn lenient(command: Command) -> Command {
    let command = command.mut_args(|arg| arg.required(false));
    let groups: Vec<Id> = command.get_groups().map(|group| group.get_id().clone()).collect();
    let command = groups.into_iter().fold(command, |command, id| command.mut_group(id, |group| group.required(false)));
    command.mut_subcommands(lenient)
}

fn with_default(command: Command, id: &Id, values: &[OsString]) -> Command {
    command.mut_arg(id.as_str(), |arg| {
        let values: Vec<clap::builder::OsStr> = values.iter().cloned().map(Into::into).collect();
        arg.required(false).default_values(values)
    })
}

/// Changes the command at the end of `path`.
fn mut_command(command: Command, path: &[String], change: impl FnOnce(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [first, rest @ ..] => command.mut_subcommand(first, |command| mut_command(command, rest, change)),
    }
}

/// Returns why the command at the end of `path` refuses its defaults.
fn refusal(command: Command, path: &[String]) -> Option<String> {
    let mut alone = lenient(command);
    for name in path {
        alone = alone.find_subcommand(name)?.clone();
    }
    let alone = alone.no_binary_name(true).subcommand_required(false).arg_required_else_help(false);
    alone.try_get_matches_from(std::iter::empty::<OsString>()).err().map(|error| first_line(&error))
}

/// Returns what an error of clap says, without the hints that follow.
pub(super) fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}
