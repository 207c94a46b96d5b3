//! `/debug/pprof/`: profiles of the server itself, for `go tool pprof http://…/debug/pprof/profile?seconds=10`.
//!
//! How a profile is taken is not known here: the program hands in [`Profiles`], whoever implements it. Without it, or
//! where the program was built without the means, the answer says so.

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
    /// Takes a CPU profile over `window` and gives the pprof, gzip'd. [`Kind::Exhausted`](crate::Kind::Exhausted) when
    /// one is being taken already, [`Kind::Unimplemented`](crate::Kind::Unimplemented) where there is no means to.
    fn cpu(&self, window: Duration) -> BoxFuture<'static, Result<Bytes, Failure>>;

    /// Takes a heap profile and gives the pprof, gzip'd. Fails as [`Profiles::cpu`] does.
    fn heap(&self) -> BoxFuture<'static, Result<Bytes, Failure>>;

    /// Returns how many bytes the program has allocated and not freed; 0 where the allocator does not say.
    fn allocated_bytes(&self) -> u64;
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::FutureExt as _;
    use http::{Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::testing::PROGRAM;

    /// Says how long it was asked to profile, and refuses the heap.
    struct Fake;

    impl Profiles for Fake {
        fn cpu(&self, window: Duration) -> BoxFuture<'static, Result<Bytes, Failure>> {
            std::future::ready(Ok(Bytes::from(format!("{window:?}")))).boxed()
        }

        fn heap(&self) -> BoxFuture<'static, Result<Bytes, Failure>> {
            std::future::ready(Err(Failure::exhausted("a profile is being taken", Duration::from_secs(7)))).boxed()
        }

        fn allocated_bytes(&self) -> u64 {
            0
        }
    }

    async fn get(profiles: Option<Arc<dyn Profiles>>, path: &str) -> (u16, Option<String>, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router(PROGRAM, profiles).oneshot(request).await.expect("never fails");
        let name =
            response.headers().get(header::CONTENT_DISPOSITION).map(|name| name.to_str().expect("ASCII").to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, name, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// Goal: the URL that `go tool pprof` asks for gives a file, and a window that is none is refused before anybody
    /// profiles.
    #[tokio::test]
    async fn profiles_of_the_program() {
        let fake: Arc<dyn Profiles> = Arc::new(Fake);
        for (query, window) in [("?seconds=10", "10s"), ("?seconds=0.5", "500ms"), ("", "30s")] {
            let (status, name, body) = get(Some(Arc::clone(&fake)), &format!("/debug/pprof/profile{query}")).await;
            assert_eq!((status, body.as_str()), (200, window), "{query}");
            assert_eq!(name.as_deref(), Some("attachment; filename=\"profile.pb.gz\""));
        }
        for query in ["?seconds=0", "?seconds=-1", "?seconds=NaN", "?seconds=601", "?seconds=soon"] {
            assert_eq!(get(Some(Arc::clone(&fake)), &format!("/debug/pprof/profile{query}")).await.0, 400, "{query}");
        }
        assert_eq!(get(Some(fake), "/debug/pprof/heap").await.0, 429);
    }

    #[tokio::test]
    async fn without_a_profiler_it_says_so() {
        for path in ["/debug/pprof/profile", "/debug/pprof/heap"] {
            let (status, _, body) = get(None, path).await;
            assert_eq!(status, 501);
            assert!(body.contains("this program was built without a profiler of itself"), "{body}");
        }
        for path in ["/debug/pprof", "/debug/pprof/"] {
            let (status, _, body) = get(None, path).await;
            assert!(status == 200 && body.contains("afterglow-test 1.2.3"), "{body}");
        }
    }
}
