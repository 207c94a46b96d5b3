//! Scrapes pprof over HTTP from targets that serve it, each profile type on its own schedule, and hands what comes to a [`Client`].
//!
//! A [`Scraper`] has a task for each endpoint. They are spread over the interval, so targets and agent see an even load; a scrape that
//! takes longer than the interval skips the next. A profile has its id from the moment it is here, whatever becomes of the stream.
//! Memory is bounded: few bodies are read at a time, each up to a limit, and the client's queue drops the oldest.

mod config;
mod credentials;
mod metrics;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_proto::Timestamp;
use afterglow_proto::v1::Profile;
use afterglow_service::Metrics;
use bytes::{Bytes, BytesMut};
use reqwest::header::AUTHORIZATION;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use ulid::Ulid;

use self::config::Endpoint;
pub use self::config::File;
pub(crate) use self::config::{INTERVAL, TIMEOUT};
use self::credentials::Credentials;
use self::metrics::{Outcome, Scrapes, Uploads};
use self::targets::Targets;
use crate::upload::Client;

/// The largest body: as the ingester's limit.
const BODY_BYTES_MAX: usize = 32 << 20;

/// How many bodies are read at once. Waiting for a target to begin its answer, such as the seconds of a CPU profile, does not count.
const BODIES_MAX: usize = 8;

/// How much of a target's error goes into the log.
const ERROR_TEXT_BYTES_MAX: usize = 200;

/// How much of it is searched for the token that it may repeat: so much that a token which begins in the log ends in here.
const MASKED_TEXT_BYTES_MAX: usize = 8 << 10;

/// Why a scrape gave no profile.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("answered {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("the answer is over {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error(transparent)]
    NoToken(#[from] credentials::Error),
}

/// Scrapes all endpoints of a file.
#[derive(Debug)]
pub struct Scraper {
    endpoints: Vec<Endpoint>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    targets: Targets,
    client: Client,
    bodies: Semaphore,
    scrapes: Scrapes,
}

// === impl Scraper ===

impl Scraper {
    /// Plans what `file` says.
    ///
    /// # Errors
    /// All that is wrong with the file, one sentence each.
    pub fn new(file: &File, client: Client, metrics: &Metrics) -> Result<Self, Vec<String>> {
        let endpoints = file.plan()?;
        let targets = Targets::new(endpoints.iter().map(|endpoint| &endpoint.tls)).map_err(|problem| vec![problem])?;
        let scrapes = Scrapes::new(metrics);
        metrics.register(|registry| registry.register_collector(Box::new(Uploads(client.clone()))));
        let shared = Arc::new(Shared { targets, client, bodies: Semaphore::new(BODIES_MAX), scrapes });
        Ok(Self { endpoints, shared })
    }

    /// Scrapes until `stop` is cancelled; what is being scraped then is given up.
    pub async fn run(self, stop: CancellationToken) {
        tracing::info!(endpoints = self.endpoints.len(), "scraping");
        let mut tasks = JoinSet::new();
        for endpoint in self.endpoints {
            tasks.spawn(run_endpoint(endpoint, Arc::clone(&self.shared)));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }
}

/// Scrapes one endpoint for ever.
async fn run_endpoint(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut ticks = interval_at(Instant::now() + endpoint.offset, endpoint.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut was_well = None;
    loop {
        ticks.tick().await;
        let (target, profile_type) = (&endpoint.target, &endpoint.profile_type);
        let span = tracing::info_span!(
            target: "afterglow_spans",
            "scrape",
            otel.status_code = tracing::field::Empty,
            target,
            profile_type,
            bytes = tracing::field::Empty,
        );
        let result = scrape(&endpoint, &shared).instrument(span.clone()).await;
        if result.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        drop(span);
        shared.scrapes.count(match &result {
            Ok(()) => Outcome::Ok,
            Err(Error::Unreachable(_) | Error::Timeout(_)) => Outcome::Unreachable,
            Err(Error::Refused { .. }) => Outcome::Refused,
            Err(Error::TooLarge) => Outcome::TooLarge,
            Err(Error::NoToken(_)) => Outcome::NoToken,
        });
        // A line when things change; a target that stays away is not worth one each time.
        match (&result, was_well) {
            (Ok(()), Some(false)) => tracing::info!(target, profile_type, "scraping works again"),
            (Ok(()), _) => tracing::debug!(target, profile_type, "scraped"),
            (Err(error), Some(false)) => tracing::debug!(target, profile_type, %error, "cannot scrape"),
            (Err(error), _) => tracing::warn!(target, profile_type, %error, "cannot scrape"),
        }
        was_well = Some(result.is_ok());
    }
}

/// Scrapes once and hands the profile over.
async fn scrape(endpoint: &Endpoint, shared: &Shared) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "a profile is of the scraper's machine, and so is its time")]
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fetched = tokio::time::timeout(endpoint.timeout, fetch(endpoint, shared)).await;
    let pprof = fetched.map_err(|_| Error::Timeout(endpoint.timeout))??;
    tracing::Span::current().record("bytes", pprof.len());
    let profile = Profile {
        id: Ulid::generate().to_string(),
        r#type: endpoint.profile_type.clone(),
        labels: endpoint.labels.clone(),
        // For producers whose pprof has no time of its own.
        time: Some(Timestamp { seconds: time.as_secs() as i64, nanos: time.subsec_nanos() as i32 }),
        duration: None,
        pprof,
    };
    if let Err(error) = shared.client.try_push(profile) {
        tracing::warn!(target = endpoint.target, profile_type = endpoint.profile_type, %error, "dropped a profile");
    }
    Ok(())
}

/// Gets a body of limited size.
async fn fetch(endpoint: &Endpoint, shared: &Shared) -> Result<Bytes, Error> {
    let http = shared.targets.client(&endpoint.tls).await;
    let mut request = http.get(&endpoint.url);
    let credentials = match endpoint.credentials_file.clone() {
        Some(path) => {
            let read = tokio::task::spawn_blocking(move || Credentials::read(&path)).await;
            Some(read.expect("reading a file does not panic")?)
        }
        None => None,
    };
    if let Some(credentials) = &credentials {
        request = request.header(AUTHORIZATION, credentials.header());
    }
    let mut response = request.send().await.map_err(unreachable)?;
    let _body = shared.bodies.acquire().await.expect("the semaphore is never closed");
    let status = response.status();
    if response.content_length().is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(Error::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        // Masked as a whole: half a token at the end would not be found.
        let text = String::from_utf8_lossy(&body[..body.len().min(MASKED_TEXT_BYTES_MAX)]);
        let mut text = credentials.map_or_else(|| text.to_string(), |credentials| credentials.masked(&text));
        text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
        let text = text.trim().to_owned();
        return Err(Error::Refused { status: status.as_u16(), text });
    }
    Ok(body.freeze())
}

/// Keeps the innermost cause: reqwest's own text repeats the URL.
fn unreachable(error: reqwest::Error) -> Error {
    Error::Unreachable(crate::connect::innermost(&error))
}
