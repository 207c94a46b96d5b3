//! docs/configuration.md, and the list of known environment variables, are made from the commands themselves; this shows that they are
//! current, or renews them (`make docs`).

use std::path::Path;

use afterglow_service::config::{reference, variables};
use clap::CommandFactory as _;

fn programs() -> [clap::Command; 4] {
    [
        super::Program::command(),
        afterglow_ingester::Settings::command(),
        afterglow_querier::Settings::command(),
        afterglow_agent::program::Settings::command(),
    ]
}

/// Shows that the file says `want`, or makes it say so.
#[expect(clippy::disallowed_methods, reason = "whether to renew is no setting of the program")]
fn assert_current(file: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("AFTERGLOW_RENEW").is_some() {
        std::fs::write(&path, want).unwrap_or_else(|error| panic!("{file} cannot be written: {error}"));
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == want, "{file} is not current: run `make docs` and read the diff");
}

#[test]
fn the_reference_of_settings_is_current() {
    assert_current("docs/configuration.md", &reference(programs()));
}

/// Goal: whoever reads a manual page learns of each setting what it is called in the environment.
#[test]
fn manual_pages_name_the_variable_of_each_setting() {
    fn check(folder: &Path, name: &str, command: &clap::Command) -> usize {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let below: usize = inner.map(|inner| check(folder, &format!("{name}-{}", inner.get_name()), inner)).sum();
        let page = std::fs::read_to_string(folder.join(format!("{name}.1"))).expect("each command has a page");
        let own = command.clone().mut_subcommands(|inner| clap::Command::new(inner.get_name().to_owned()));
        let mut named = 0;
        for variable in variables([own]).lines() {
            assert!(page.contains(&format!("[env: {variable}]")), "{name}.1 does not name {variable}:\n{page}");
            named += 1;
        }
        below + named
    }
    let folder = tempfile::tempdir().expect("a folder");
    super::write_manual(folder.path()).expect("pages");
    let named = check(folder.path(), "afterglow", &super::Program::command());
    assert!(named > 300, "{named} settings");
}

#[test]
fn the_known_environment_variables_are_those_of_the_settings() {
    assert_current("service/src/config/variables.txt", &variables(programs()));
}
