//! The read tier: finds, fetches and merges profiles, and answers the same over gRPC and HTTP.
//!
//! A question goes through three steps. `grpc` or `http` reads it and the tenant; `query` answers it, one file a question, over
//! the store's catalog and blocks; the answer leaves as protobuf, JSON or a file. Nothing is kept here but what the catalog caches:
//! any number of queriers over one bucket answer alike, and none of them writes. Of heavy merges they do shares for each other (`siblings`).
//!
//! A program gives [`build`] its [`Config`], an open store and its metrics, and mounts [`Querier::grpc`], [`Querier::routes`] and [`Querier::pages`] on its
//! server. [`run`] is all of that as a program of its own.

pub mod config;
mod grpc;
mod http;
pub mod program;
mod query;
mod siblings;
mod window;

use std::sync::Arc;

use afterglow_service::Metrics;
use afterglow_store::Store;
use afterglow_store::catalog::Catalog;
use afterglow_store::retention::{Policy, Published};
use axum::Router;

pub use config::Config;
pub use grpc::{ANSWER_BYTES_MAX, Queries, Service, Shares};
pub use program::{Settings, run};
pub use siblings::{BadNames, SiblingNames};

use query::Engine;
use siblings::Siblings;

/// A querier that is put together. It has no work of its own in the background: nothing to run, nothing to drain.
#[derive(Clone, Debug)]
pub struct Querier {
    engine: Engine,
}

/// Builds a querier over `store`, whose clock it shares. Asks nothing of the store yet. Call it once for a registry of metrics.
pub fn build(config: &Config, store: Store, metrics: &Metrics) -> Querier {
    let clock = Arc::clone(store.clock());
    let published = Published::new(store.clone());
    let catalog = Catalog::new(store, config.catalog_options());
    let siblings = Siblings::new(config.siblings.clone(), config.siblings_token.as_ref(), config.siblings_tls());
    let metrics = metrics.register(query::Metrics::new);
    Querier { engine: Engine::new(catalog, published, clock, config.limits(), siblings, metrics) }
}

// === impl Querier ===

impl Querier {
    /// Makes answers about what is stored say how long it is kept, in a process that deletes what is older, besides what others say who do. What
    /// was said first stays.
    pub fn set_retention(&self, policy: Policy) {
        self.engine.set_retention(policy);
    }

    /// Returns the gRPC service `afterglow.v1.QueryService`.
    pub fn grpc(&self) -> Service {
        grpc::service(self.engine.clone())
    }

    /// Returns the gRPC service `afterglow.v1.SiblingService`, for other queriers.
    pub fn shares(&self) -> Shares {
        grpc::shares(self.engine.clone())
    }

    /// Returns the HTTP routes of questions: the GETs under `/api/v1`, and what Grafana asks under `/querier.v1.QuerierService`.
    pub fn routes(&self) -> Router {
        http::router(self.engine.clone()).merge(http::pyroscope(self.engine.clone()))
    }

    /// Returns the routes of the web UI, `/` among them. There are no profiles in it: it asks as anybody does.
    pub fn pages(&self) -> Router {
        http::pages()
    }
}
