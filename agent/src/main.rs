//! `afterglow-agent`: scrapes pprof endpoints and pushes what they give.

use std::process::ExitCode;

use afterglow_agent::program::{self, Settings};
use afterglow_service::config;

/// What it is built from.
const REVISION: &str = afterglow_revision::revision!();

fn main() -> ExitCode {
    let settings = match config::load::<Settings>(REVISION) {
        Ok(settings) => settings,
        Err(exit) => return exit.report(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads to a process that just began");
    match runtime.block_on(program::run(settings, REVISION)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
