//! What a setting is called in each place: flag, environment, file; and which one somebody may have meant.

use clap::{Arg, ArgAction, Command};

/// Flags that are about one start of the program, not about how it is set up. `--output` is a form to one command and a file to another.
const NOT_SETTINGS: [&str; 3] = ["print_config", "check_config", "output"];

/// Returns the long flag of a setting, which is its key in the file; nothing for what is no setting (help, positional
/// arguments).
pub(super) fn key(arg: &Arg) -> Option<&str> {
    let is_setting = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
        && !NOT_SETTINGS.contains(&arg.get_id().as_str());
    arg.get_long().filter(|_| is_setting)
}

/// Returns the name of a setting in the environment.
pub(super) fn environment(key: &str) -> String {
    let name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("AFTERGLOW_{name}")
}

/// Returns whether the setting is on or off rather than a value.
pub(super) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Returns whether the setting may have several values.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(|range| range.max_values() > 1)
}

/// Names the environment variable of each setting in its help, for whatever is made of a command besides `--help`, such as manual pages.
pub fn with_environment_in_help(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let Some(key) = key(&arg) else { return arg };
        let variable = format!("[env: {}]", environment(key));
        let with = |help: String| format!("{help} {variable}").trim_start().to_owned();
        let help = with(arg.get_help().map(ToString::to_string).unwrap_or_default());
        let long = arg.get_long_help().map(|help| with(help.to_string()));
        let arg = arg.help(help);
        match long {
            Some(long) => arg.long_help(long),
            None => arg,
        }
    });
    command.mut_subcommands(with_environment_in_help)
}

/// Returns which of `known` somebody may have meant by `name`: the one with the fewest wrong letters, if those are few.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters wrong is still a typing error; more is another word.
    let most = (name.chars().count() / 3).max(2);
    let near = known.into_iter().map(|candidate| (distance(name, candidate), candidate));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

/// Returns how many letters to insert, remove or replace to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_names_follow_from_flags() {
        assert_eq!(environment("limits.max-body"), "AFTERGLOW_LIMITS_MAX_BODY");
        assert_eq!(environment("storage"), "AFTERGLOW_STORAGE");
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["storage", "listen", "limits.max-body", "limits.max-streams"];
        assert_eq!(nearest("storag", known), Some("storage"));
        assert_eq!(nearest("limits.max-bdoy", known), Some("limits.max-body"));
        assert_eq!(nearest("limits.max_streams", known), Some("limits.max-streams"));
        assert_eq!(nearest("retention", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
