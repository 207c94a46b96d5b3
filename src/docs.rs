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

#[test]
fn the_known_environment_variables_are_those_of_the_settings() {
    assert_current("service/src/config/variables.txt", &variables(programs()));
}
