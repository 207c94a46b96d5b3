//! `/debug/pprof/`: profiles of the server itself, for `go tool pprof http://…/debug/pprof/profile?seconds=10`.
//!
//! How a profile is taken is not known here: the program hands in [`Profiles`], whoever implements it. Without it, or where the
//! program was built without the means, the answer says so.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::http::{Query, file};
use crate::{Failure, Program};

/// Takes profiles of the running process.
pub trait Profiles: Send + Sync + 'static {
    /// Takes a CPU profile over `window` and gives the pprof, gzip'd. [`Kind::Exhausted`](crate::Kind::Exhausted) when one is being taken
    /// already, [`Kind::Unimplemented`](crate::Kind::Unimplemented) where there is no means to.
    fn cpu(&self, window: Duration) -> BoxFuture<'static, Result<Bytes, Failure>>;

    /// Takes a heap profile and gives the pprof, gzip'd. Fails as [`Profiles::cpu`] does.
    fn heap(&self) -> BoxFuture<'static, Result<Bytes, Failure>>;
}

/// How long a CPU profile is where the query does not say; `go tool pprof` says 30 itself.
const SECONDS_DEFAULT: f64 = 30.0;

/// A longer profile than this is a mistake in the query.
const SECONDS_MAX: f64 = 600.0;

#[derive(serde::Deserialize)]
struct Window {
    seconds: Option<f64>,
}

/// Builds the routes; without `profiles` they are there and answer that there are none.
pub(crate) fn router(program: Program, profiles: Option<Arc<dyn Profiles>>) -> Router {
    let cpu = profiles.clone();
    let heap = profiles;
    Router::new()
        .route("/debug/pprof", get(move || index(program)))
        .route("/debug/pprof/", get(move || index(program)))
        .route("/debug/pprof/profile", get(move |query| take_cpu(cpu, query)))
        .route("/debug/pprof/heap", get(move || take_heap(heap)))
}

async fn index(program: Program) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<title>{name}: profiles</title>\n<h1>{name} {version}</h1>\n<ul>\n\
         <li><a href=\"/debug/pprof/profile?seconds=10\">profile</a>: CPU over the next <code>seconds</code></li>\n\
         <li><a href=\"/debug/pprof/heap\">heap</a>: memory in use, by where it was allocated</li>\n</ul>\n",
        name = program.name,
        version = program.version,
    ))
}

async fn take_cpu(profiles: Option<Arc<dyn Profiles>>, Query(window): Query<Window>) -> Result<Response, Failure> {
    let seconds = window.seconds.unwrap_or(SECONDS_DEFAULT);
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err(Failure::invalid(format!("query parameters: seconds: {seconds} is not within 0..{SECONDS_MAX}")));
    }
    let pprof = profiles.ok_or_else(without)?.cpu(Duration::from_secs_f64(seconds)).await?;
    Ok(file("profile.pb.gz", pprof).into_response())
}

async fn take_heap(profiles: Option<Arc<dyn Profiles>>) -> Result<Response, Failure> {
    let pprof = profiles.ok_or_else(without)?.heap().await?;
    Ok(file("heap.pb.gz", pprof).into_response())
}

fn without() -> Failure {
    Failure::unimplemented("this program was built without a profiler of itself")
}
