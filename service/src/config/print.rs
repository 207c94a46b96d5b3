//! `--print-config`: the settings in effect as a file that gives the same settings, but for secrets, which are masked.

use std::any::TypeId;
use std::fmt::Write as _;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::layers::{Layers, Origin};
use super::name;
use super::value::{Secret, mask_password};

/// What is wanted of the settings instead of starting with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Print,
    Check,
}

/// Returns what the command that runs was asked for.
pub(super) fn wanted(matches: &ArgMatches) -> Option<Wanted> {
    let flag = |id: &str| matches.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(false);
    if flag("print_config") {
        Some(Wanted::Print)
    } else if flag("check_config") {
        Some(Wanted::Check)
    } else {
        matches.subcommand().and_then(|(_, inner)| wanted(inner))
    }
}

/// Writes the settings of the command that runs: plain keys, then a table for each prefix.
pub(super) fn settings(command: &Command, matches: &ArgMatches, layers: &Layers) -> String {
    let (mut command, mut matches) = (command, matches);
    let mut text = String::new();
    let mut tables: Vec<(&str, String)> = Vec::new();
    let mut names = layers.path().iter();
    loop {
        for arg in command.get_arguments() {
            let Some(key) = name::key(arg).filter(|key| *key != "config") else { continue };
            let (table, name) = key.split_once('.').map_or(("", key), |(table, name)| (table, name));
            let line = line(name, key, arg, matches, layers);
            if table.is_empty() {
                text.push_str(&line);
            } else if let Some((_, lines)) = tables.iter_mut().find(|(known, _)| *known == table) {
                lines.push_str(&line);
            } else {
                tables.push((table, line));
            }
        }
        let Some(name) = names.next() else { break };
        let Some((inner, subcommand)) = matches.subcommand_matches(name).zip(command.find_subcommand(name)) else {
            break;
        };
        (matches, command) = (inner, subcommand);
    }
    for (table, lines) in tables {
        // Writing to a string does not fail.
        let _ = write!(text, "\n[{table}]\n{lines}");
    }
    text
}

fn line(name: &str, key: &str, arg: &Arg, matches: &ArgMatches, layers: &Layers) -> String {
    let id = arg.get_id().as_str();
    let Some(values) = matches.get_raw(id) else {
        return format!("# {name} is not set\n");
    };
    let is_secret = arg.get_value_parser().type_id() == TypeId::of::<Secret>();
    let mut values = values.map(|value| {
        let value = value.to_string_lossy();
        if is_secret { literal(Secret::MASK) } else { literal(&mask_password(&value)) }
    });
    let value = if name::is_list(arg) {
        format!("[{}]", values.collect::<Vec<_>>().join(", "))
    } else {
        values.next_back().unwrap_or_default()
    };
    let origin = match (matches.value_source(id), layers.origin(key)) {
        (Some(ValueSource::CommandLine), _) => "flag",
        (_, Some(Origin::Environment)) => "environment",
        (_, Some(Origin::File)) => "file",
        _ => "default",
    };
    format!("{name} = {value} # {origin}\n")
}

/// Writes a value as TOML: numbers and switches bare, all else as a string.
fn literal(value: &str) -> String {
    if value.parse::<i64>().is_ok() || matches!(value, "true" | "false") {
        value.to_owned()
    } else {
        toml::Value::String(value.to_owned()).to_string()
    }
}
