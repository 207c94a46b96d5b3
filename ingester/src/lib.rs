//! The write tier: takes profiles, commits them in groups, and acknowledges what is durable.
//!
//! ```text
//! grpc, http ─▶ ingest (names, ids, limits) ─▶ pool (inflate, decode, intern) ─▶ commit (one PUT for many) ─▶ the answers
//!      └─────────── budget: every byte on this way is paid for ───────────┘          └─▶ recent: ids a retry may bring
//! ```
//!
//! A program gives [`build`] its [`Config`], an open store and its metrics, mounts [`Ingester::grpc`] and
//! [`Ingester::routes`] on its server, and keeps [`Ingester::run`] going beside it. [`run`] is all of that as a program
//! of its own.
//!
//! Nothing here is kept on disk, and nothing is known of other ingesters: what they share is in the bucket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use afterglow_service::Metrics;
use afterglow_service::health::Part;
use afterglow_service::listen::{Admission, Drain, Limits};
use afterglow_store::Store;
use afterglow_store::retention::Policy;
use afterglow_store::watch::Need;
use axum::Router;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

mod budget;
mod commit;
pub mod config;
mod grpc;
mod http;
mod ingest;
pub mod maintenance;
mod pool;
pub mod program;
mod recent;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use grpc::PUSH_PROFILE;
pub use program::{Settings, run};

use budget::Budget;
use commit::Committer;
use ingest::Ingest;
use pool::Pool;
use recent::Recent;

/// An ingester that is put together and waits to be run.
#[derive(Debug)]
pub struct Ingester {
    ingest: Ingest,
    committer: Committer,
    message_bytes_max: usize,
}

/// How the drain of an ingester ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Profiles that had no outcome in time; their senders are told so.
    pub left: usize,
}

/// Builds an ingester over `store`, whose clock and chance it shares; `server` are the limits of the server that will
/// mount it, `retention` is what the bucket's maintenance keeps. Call it once for a registry of metrics.
pub fn build(config: &Config, server: &Limits, retention: Policy, store: Store, metrics: &Metrics) -> Ingester {
    assemble(config, server, retention, store, Pool::of_cores(), metrics)
}

/// Builds an ingester as [`build`] does whose work is done by whoever polls it, on no thread of its own: for simulations on one
/// thread, where a seed decides what happens when.
#[cfg(feature = "testing")]
pub fn build_without_threads(
    config: &Config,
    server: &Limits,
    retention: Policy,
    store: Store,
    metrics: &Metrics,
) -> Ingester {
    assemble(config, server, retention, store, Pool::here(), metrics)
}

fn assemble(
    config: &Config,
    server: &Limits,
    retention: Policy,
    store: Store,
    pool: Pool,
    metrics: &Metrics,
) -> Ingester {
    let (clock, random) = (Arc::clone(store.clock()), Arc::clone(store.random()));
    let budget = Budget::new(config.memory_budget().bytes(), Arc::clone(&random));
    let (ingest_metrics, commit_metrics) = metrics.register(|registry| {
        budget.register(registry);
        pool.register(registry);
        (ingest::Metrics::new(registry), commit::Metrics::new(registry))
    });
    let (committer, commit) =
        Committer::new(config.commit_options(), store, pool.clone(), Arc::clone(&random), commit_metrics);
    let recent = Recent::new(config.remembered_ids);
    let parts = ingest::Parts { budget, pool, commit, recent, clock, random, metrics: ingest_metrics };
    let options = ingest::Options {
        limits: config.limits.of_profiles(server.body_bytes_max),
        time_window: config.limits.time_window(),
        stall_timeout: server.stall_timeout,
        retention,
        rates: config.tenants.rates(),
        flush_interval: config.flush_interval,
    };
    let ingest = Ingest::new(parts, options);
    Ingester { ingest, committer, message_bytes_max: server.message_bytes_max() }
}

// === impl Ingester ===

impl Ingester {
    /// Returns the gRPC service `afterglow.v1.IngestService`.
    pub fn grpc(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + Sync
    + use<> {
        grpc::service(self.ingest.clone(), self.message_bytes_max)
    }

    /// Returns what lets calls of [`PUSH_PROFILE`] in by their heads alone: give it to the server beside the service.
    pub fn admission(&self) -> Arc<dyn Admission> {
        Arc::new(grpc::Heads::new(self.ingest.clone()))
    }

    /// Returns the HTTP routes.
    pub fn routes(&self) -> Router {
        http::routes(self.ingest.clone())
    }

    /// Keeps `part` told whether the store takes profiles: not ready after three flushes in a row that failed, or three checks of a
    /// store to which nothing is written; ready again by itself. `need` says what the server needs beside writing. Poll it beside
    /// [`Ingester::run`].
    pub fn watch(&self, need: Need, part: Part) -> impl Future<Output = Infallible> + Send + use<> {
        self.committer.watch(need, part)
    }

    /// Flushes until `stop` is cancelled and the delay of `drain` has passed, as for the server beside it; then refuses
    /// what comes, flushes what is there at once, and returns when everything under way is answered or the time of
    /// `drain` is over.
    pub async fn run(self, stop: CancellationToken, drain: &Drain) -> Drained {
        let Self { ingest, committer, .. } = self;
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(drain.delay).await;
            drained_within(&ingest, drain.cut_after().saturating_sub(drain.delay)).await
        };
        tokio::select! {
            biased;
            drained = drained => drained,
            never = committer.run() => match never {},
        }
    }
}

async fn drained_within(ingest: &Ingest, most: Duration) -> Drained {
    let left = match tokio::time::timeout(most, ingest.drain()).await {
        Ok(()) => 0,
        Err(_) => ingest.in_flight(),
    };
    if left == 0 {
        tracing::info!("all profiles are answered");
    } else {
        tracing::warn!(profiles = left, timeout = ?most, "profiles had no outcome in time");
    }
    Drained { left }
}
