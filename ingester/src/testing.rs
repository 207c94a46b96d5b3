//! What the tests of this crate build on: an ingester over a store in memory that fails as it is told.

use std::sync::Arc;

use afterglow_profile::encode::encode;
use afterglow_profile::model::{Layout, Profile, Samples, ValueType};
use afterglow_service::listen::Drain;
use afterglow_service::{Health, Metrics, Program};
use afterglow_store::clock::SeededRandom;
use afterglow_store::paths::TenantId;
use afterglow_store::testing::faults::Faulty;
use afterglow_store::testing::time::PausedClock;
use afterglow_store::watch::Need;
use afterglow_store::{Store, StoreOptions, put};
use bytes::Bytes;
use clap::Parser;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::ingest::{Accepted, Ingest, Names, Protocol, Refused, Request};
use crate::pool::Pool;

/// An ingester that runs until it is dropped. With one thread it has one lane, so that what goes into one PUT is
/// certain.
pub(crate) struct Harness {
    pub(crate) ingest: Ingest,
    pub(crate) store: Faulty,
    pub(crate) clock: Arc<PausedClock>,
    pub(crate) health: Health,
    /// Keeps `health` told; for who spawns it.
    pub(crate) watch: Option<BoxFuture<'static, std::convert::Infallible>>,
    run: JoinHandle<()>,
}

impl Harness {
    /// Starts one with these arguments. A PUT is tried once.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::of_threads(1, arguments)
    }

    /// Starts one whose pool has this many threads.
    pub(crate) fn of_threads(threads: usize, arguments: &[&str]) -> Self {
        let arguments = [&["afterglow-ingester", "--storage=memory://"], arguments].concat();
        let settings = Settings::try_parse_from(arguments).expect("arguments of the test");
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let clock = Arc::new(PausedClock::new());
        // The store has a clock of its own, which is right.
        faulty.tells_time_of(Arc::new(PausedClock::new()));
        let options = StoreOptions {
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            put: Some(put::Policy::local()),
            ..StoreOptions::default()
        };
        let store = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options);
        let metrics = Metrics::new(Program::new("test"));
        let (limits, retention) = (&settings.server.limits, settings.maintenance.retention.policy());
        let ingester = crate::assemble(&settings.ingester, limits, retention, store, Pool::new(threads), &metrics);
        let ingest = ingester.ingest.clone();
        let health = Health::new();
        let watch = Some(ingester.watch(Need::Answers, health.part("storage")).boxed());
        let run = tokio::spawn(async move {
            let never = CancellationToken::new();
            let drain = Drain { delay: std::time::Duration::ZERO, timeout: std::time::Duration::MAX };
            ingester.run(never, &drain).await;
        });
        Self { ingest, store: faulty, clock, health, watch, run }
    }

    /// Returns a request as a sender makes it, with an id or (empty) without.
    pub(crate) async fn request(&self, id: impl Into<String>, body: impl Into<Bytes>) -> Request {
        let body = body.into();
        Request {
            protocol: Protocol::Grpc,
            tenant: TenantId::anonymous(),
            names: Names {
                id: id.into(),
                profile_type: "cpu".to_owned(),
                labels: vec![("service".to_owned(), "api".to_owned())],
            },
            time_nanos: None,
            duration_nanos: None,
            permit: self.ingest.budget().acquire(body.len() as u64).await.expect("the budget has room"),
            body,
            deadline: None,
            turn: None,
            ticket: None,
            trace: None,
        }
    }

    /// Pushes a profile.
    pub(crate) async fn push(&self, id: impl Into<String>, body: impl Into<Bytes>) -> Result<Accepted, Refused> {
        self.ingest.push(self.request(id, body).await).await
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Returns the bytes of a small profile of type cpu, one for each `n`.
pub(crate) fn pprof(n: i64) -> Vec<u8> {
    let profile = Profile {
        sample_types: vec![ValueType { kind: 1, unit: 2, shape: 0 }],
        samples: Samples {
            location_ends: vec![0],
            values: vec![n],
            label_ends: vec![0],
            shapes: vec![0],
            ..Samples::default()
        },
        strings: vec![b"", b"cpu", b"nanoseconds"],
        time_nanos: 1_700_000_000_000_000_000 + n,
        duration_nanos: 10_000_000_000,
        layout: Layout::default(),
        ..Profile::default()
    };
    encode(&profile)
}

/// Returns an id, one for each `n`.
pub(crate) fn id(n: u128) -> String {
    ulid::Ulid::from_parts(1_700_000_000_000, n).to_string()
}
