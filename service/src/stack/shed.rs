//! Refuses requests beyond what the server works on at once, and those that come after it began to drain.
//!
//! A request counts until its answer begins. A stream is therefore not counted for its life: streams are bounded by
//! connections and streams a connection, and what they carry by the budget of whoever reads them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;

use super::Closing;
use crate::Failure;

/// How many requests may be worked on at once.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    max: usize,
}

/// Whoever is refused comes back after one to three seconds, not all at once.
const DELAY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

// === impl Room ===

impl Room {
    pub(super) fn new(max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), max }
    }
}

pub(super) async fn layer(State(room): State<Room>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Closing>().is_some_and(Closing::is_draining) {
        return Failure::shutting_down().respond_to(request.headers());
    }
    let Ok(_place) = room.places.try_acquire() else {
        let message = format!("server works on {} requests already (--limits.max-requests)", room.max);
        return Failure::exhausted(message, rand::random_range(DELAY)).respond_to(request.headers());
    };
    next.run(request).await
}
