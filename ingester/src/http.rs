//! Profiles over HTTP: one file a dialect, each of which translates to [`ingest::Request`](crate::ingest::Request).

use axum::Router;
use axum::routing::post;

use crate::ingest::Ingest;

mod body;
mod profiles;

/// Builds the routes as a server mounts them.
pub(crate) fn routes(ingest: Ingest) -> Router {
    Router::new().route("/api/v1/profiles", post(profiles::push)).with_state(ingest)
}
