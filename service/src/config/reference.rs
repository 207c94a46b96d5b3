//! docs/configuration.md: every setting of every program, written from the same description that parses them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::{Arg, Command};

use super::name;

/// What precedes the tables.
const HEAD: &str = "\
# Configuration

<!-- Generated from the programs' own flags; the test that checks it says how to renew it. -->

A setting has one name: `--limits.max-body` on the command line is `AFTERGLOW_LIMITS_MAX_BODY` in the environment
and `max-body` under `[limits]` in the TOML file given by `--config`. Flags go over the environment, the environment
over the file, the file over the default. What nobody knows is refused, a variable `AFTERGLOW_...` as well as a key of the
file (those of another program are let be, and those that Kubernetes sets for a service of this name). All names and
values that cannot be read are reported at once, and where all can be read, all that cannot work; the exit code is then
78, or 2 where only the command line is wrong. `--print-config` shows the settings in effect, and where each comes from.

Sizes are bytes or carry a unit (`32MiB`, `64kB`), durations as well (`250ms`, `10s`, `20m`). Lists are written
`[\"a\", \"b\"]` in the file and as a repeated flag. Storage credentials come from the variables of their provider
(`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL_S3` ...), traces from OpenTelemetry's
(`OTEL_EXPORTER_OTLP_ENDPOINT`, to which traces go over gRPC and nothing else, with `https://` over TLS, `OTEL_EXPORTER_OTLP_CERTIFICATE` for
the authorities of that, `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, `OTEL_EXPORTER_OTLP_CLIENT_KEY`, `OTEL_SERVICE_NAME` ...), `RUST_LOG` goes over `--log-level`, and `NO_COLOR` takes the
colour from the logs.
";

/// Writes the reference of `programs`, each by its own name; of subcommands those that have settings, one section each.
pub fn reference(programs: impl IntoIterator<Item = Command>) -> String {
    let mut text = HEAD.to_owned();
    for program in programs {
        let name = program.get_name().to_owned();
        section(&mut text, &name, &program);
    }
    text
}

/// Returns the environment variables of all settings of `programs`, sorted, a line each.
pub fn variables(programs: impl IntoIterator<Item = Command>) -> String {
    fn collect(command: &Command, found: &mut BTreeSet<String>) {
        found.extend(command.get_arguments().filter_map(name::key).map(name::environment));
        command.get_subcommands().for_each(|subcommand| collect(subcommand, found));
    }
    let mut found = BTreeSet::new();
    programs.into_iter().for_each(|program| collect(&program, &mut found));
    found.into_iter().map(|variable| variable + "\n").collect()
}

fn section(text: &mut String, title: &str, command: &Command) {
    let settings: Vec<(&str, &Arg)> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| name::key(arg).map(|key| (key, arg)))
        .collect();
    if !settings.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {title}\n\n");
        if let Some(about) = command.get_about() {
            let _ = write!(text, "{about}.\n\n");
        }
        text.push_str("| flag | environment | default | meaning |\n|---|---|---|---|\n");
        for (key, arg) in settings {
            let flag = match value_name(arg) {
                Some(value) => format!("--{key} {value}"),
                None => format!("--{key}"),
            };
            let variable = name::environment(key);
            let _ = writeln!(text, "| `{flag}` | `{variable}` | {} | {} |", default(arg), meaning(arg));
        }
    }
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        section(text, &format!("{title} {}", subcommand.get_name()), subcommand);
    }
}

fn value_name(arg: &Arg) -> Option<String> {
    if name::is_switch(arg) {
        return None;
    }
    let names = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    Some(names.unwrap_or_else(|| arg.get_id().as_str().to_ascii_uppercase()))
}

fn default(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    match (values.as_slice(), arg.is_required_set()) {
        ([], true) => "required".to_owned(),
        ([], false) if name::is_switch(arg) => "`false`".to_owned(),
        (values, _) => values.join(", "),
    }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let possible =
        if possible.is_empty() || name::is_switch(arg) { String::new() } else { format!(" ({})", possible.join(", ")) };
    // A bar would end the cell.
    format!("{help}{possible}").replace('|', "\\|").replace('\n', " ")
}
