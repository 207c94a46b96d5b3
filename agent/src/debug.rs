//! Profiles of a server itself, for its `/debug/pprof/`: what [`profiler`] takes, in the form that `afterglow-service` asks for.

use std::sync::Once;
use std::time::Duration;

use afterglow_service::debug::Profiles;
use afterglow_service::{Failure, Kind};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tikv_jemalloc_ctl::{background_thread, epoch, stats};

use crate::profiler::{self, Error};

/// Takes profiles of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfProfiles;

impl Profiles for SelfProfiles {
    fn cpu(&self, window: Duration) -> BoxFuture<'static, Result<Bytes, Failure>> {
        give_memory_back();
        async move { profiler::cpu_profile(window).await.map(Bytes::from).map_err(failure) }.boxed()
    }

    fn heap(&self) -> BoxFuture<'static, Result<Bytes, Failure>> {
        give_memory_back();
        async { profiler::heap_profile().await.map(Bytes::from).map_err(failure) }.boxed()
    }

    fn allocated_bytes(&self) -> u64 {
        // The numbers are those of when the epoch last advanced.
        let read = || epoch::advance().and_then(|_| stats::allocated::read());
        read().map_or(0, |bytes| bytes as u64)
    }
}

/// Lets jemalloc return what is freed by its own threads. Otherwise it does so while the thread that freed it allocates, and the one that
/// takes profiles sleeps until somebody asks for the next.
fn give_memory_back() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if profiler::heap_available()
            && let Err(error) = background_thread::write(true)
        {
            tracing::debug!(%error, "memory is given back later");
        }
    });
}

fn failure(error: Error) -> Failure {
    match &error {
        Error::HeapUnavailable => Failure::new(Kind::Unimplemented, error.to_string()),
        Error::Frequency { .. } => Failure::invalid(error.to_string()),
        Error::Cpu(_) | Error::Heap(_) | Error::Target(_) => Failure::internal(error),
    }
}
