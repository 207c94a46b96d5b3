//! `afterglow-querier`: the read tier as a program of its own.

use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_querier::Settings;
use afterglow_service::config;
use tikv_jemallocator::Jemalloc;

/// A merge allocates on one thread what others free, which jemalloc bears without growing.
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
    match runtime.block_on(afterglow_querier::run(settings, REVISION, Some(Arc::new(SelfProfiles)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
