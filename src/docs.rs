//! docs/configuration.md is made from the commands themselves; this shows that it is current, or renews it (`make docs`).

use std::path::Path;

use afterglow_service::config::reference;
use clap::CommandFactory as _;

#[test]
#[expect(clippy::disallowed_methods, reason = "whether to renew is no setting of the program")]
fn the_reference_of_settings_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let want = reference([
        super::Program::command(),
        afterglow_ingester::Settings::command(),
        afterglow_querier::Settings::command(),
        afterglow_agent::program::Settings::command(),
    ]);
    if std::env::var_os("AFTERGLOW_RENEW").is_some() {
        std::fs::write(&path, &want).expect("docs/configuration.md can be written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == want, "docs/configuration.md is not current: run `make docs` and read the diff");
}
