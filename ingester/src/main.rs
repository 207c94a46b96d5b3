//! `afterglow-ingester`: the write tier as a program of its own.

use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_ingester::Settings;
use afterglow_service::config;
use tikv_jemallocator::Jemalloc;

/// Profiles are allocated on one thread and freed on another, which jemalloc bears without growing.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What it is built from.
const REVISION: &str = afterglow_revision::revision!();

fn main() -> ExitCode {
    let settings = match config::load::<Settings>(REVISION) {
        Ok(settings) => settings,
        Err(exit) => return exit.report(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads to a process that just began");
    match runtime.block_on(afterglow_ingester::run(settings, REVISION, Some(Arc::new(SelfProfiles)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
