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
use super::observe::Observer;
use crate::metrics::register_reading;
use crate::{Failure, Metrics};

/// How many requests may be worked on at once.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    max: usize,
    observer: Arc<Observer>,
}

/// Whoever is refused comes back after one to three seconds, not all at once.
const DELAY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

// === impl Room ===

impl Room {
    /// Makes room for `max` requests, and shows how many take it.
    pub(super) fn new(max: usize, observer: Arc<Observer>, metrics: &Metrics) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max));
        let free = Arc::clone(&places);
        metrics.register(|registry| {
            let help = "Requests that are worked on: their answers have not begun";
            let read = move || max - free.available_permits();
            register_reading(registry, "afterglow_server_requests_admitted", help, read);
            let help = "Requests that are worked on at once; beyond, they are refused (--limits.max-requests)";
            register_reading(registry, "afterglow_server_requests_limit", help, move || max);
        });
        Self { places, max, observer }
    }
}

pub(super) async fn layer(State(room): State<Room>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Closing>().is_some_and(Closing::is_draining) {
        return Failure::shutting_down().respond_to(request.headers());
    }
    let Ok(_place) = room.places.try_acquire() else {
        room.observer.shed(&request, room.max);
        let message = format!("server works on {} requests already (--limits.max-requests)", room.max);
        return Failure::exhausted(message, rand::random_range(DELAY)).respond_to(request.headers());
    };
    next.run(request).await
}
