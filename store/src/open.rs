//! Opens the store that a URL names, and puts the wrappers around it in their order.
//!
//! ```text
//! asked ─▶ Patient (reads again what failed or is slow) ─▶ Metered (counts each attempt) ─▶ PrefixStore ─▶ S3 | GCS | Azure | folder | memory
//! ```
//!
//! Above this module the kinds of store are alike. The cloud clients are built with their own retries off: whoever asks owns the
//! deadline, `put` for writes and `patient` for reads.

mod environment;
mod http;
mod local;
mod s3;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

pub use self::environment::Environment;
pub(crate) use self::http::StatusError;
pub(crate) use self::s3::{is_aws, load_chain};

use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::commit::Boundaries;
use crate::error::Error;
use crate::location::StorageUrl;
use crate::metrics::{Metered, Metrics};
use crate::paths::WriterId;
use crate::patient::{self, Patient};
use crate::put;

/// How long a connection may take to come to be: several would fit into one attempt of a put.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a connection may be silent while something is read from it.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a store is built from besides its URL.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The variables of the provider: account, region, endpoint and keys.
    pub environment: Environment,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// What draws names and delays.
    pub random: Arc<dyn Random>,
    /// What counts.
    pub metrics: Metrics,
    /// How segments are put; by default as suits the kind of store.
    pub put: Option<put::Policy>,
    /// How reads are retried, and hedged.
    pub read: patient::Policy,
    /// What is known of the boundaries of tenants: that of another store over the same bucket, where this process has one.
    pub boundaries: Boundaries,
}

impl Default for StoreOptions {
    /// Takes the environment, clock and chance of the process, and metrics that nobody sees.
    fn default() -> Self {
        Self {
            environment: Environment::of_process(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: Metrics::default(),
            put: None,
            read: patient::Policy::default(),
            boundaries: Boundaries::default(),
        }
    }
}

/// An open store: cheap to clone, each clone the same store and the same writer.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// What it is called towards people.
    pub(crate) name: String,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: Metrics,
    pub(crate) writer: WriterId,
    pub(crate) pace: put::Pace,
    /// The latest time in the name of a segment of this writer.
    pub(crate) last_millis: AtomicU64,
    pub(crate) boundaries: Boundaries,
}

/// Opens the store at `url`; a local folder is made if need be.
///
/// The account, the region and the keys of a bucket come from the usual variables of its provider. No object is asked for yet:
/// [`Store::probe`] finds out whether the store works.
///
/// # Errors
/// [`Error::Environment`] where a variable is wrong, [`Error::Open`] where the folder cannot be made or the environment does not suffice.
pub async fn open(url: &StorageUrl, options: StoreOptions) -> Result<Store, Error> {
    if let Some(error) = error_of_environment(url, &options.environment) {
        return Err(error);
    }
    let failed = |source: object_store::Error| Error::Open { url: url.to_string(), source: source.into() };
    let (objects, prefix): (Arc<dyn ObjectStore>, _) = match url {
        StorageUrl::File { folder } => {
            let to_open = folder.clone();
            let opened = tokio::task::spawn_blocking(move || local::open(&to_open))
                .await
                .expect("opening a folder does not panic");
            let opened = opened.map_err(|source| Error::Open { url: url.to_string(), source: source.into() })?;
            // It looks at every name in the folder, for which nobody need wait.
            let to_sweep = folder.clone();
            tokio::task::spawn_blocking(move || local::sweep_now(&to_sweep));
            (Arc::new(opened), Path::ROOT)
        }
        StorageUrl::S3 { bucket, prefix } => {
            let wrong = |problem| Error::Environment { url: url.to_string(), problem };
            let builder = s3::builder(bucket, &options.environment).await.map_err(wrong)?;
            let builder = builder.with_retry(no_retries()).with_http_connector(http::Connector::default());
            (Arc::new(builder.build().map_err(failed)?), prefix.clone())
        }
        StorageUrl::Gcs { bucket, prefix } => {
            let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client_options());
            for (name, value) in options.environment.with_prefix("GOOGLE_") {
                if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(bucket).with_retry(no_retries());
            (Arc::new(builder.with_http_connector(http::Connector::default()).build().map_err(failed)?), prefix.clone())
        }
        StorageUrl::Azure { container, prefix } => {
            let mut builder = MicrosoftAzureBuilder::new().with_client_options(client_options());
            for (name, value) in options.environment.with_prefix("AZURE_") {
                if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_container_name(container).with_retry(no_retries());
            (Arc::new(builder.with_http_connector(http::Connector::default()).build().map_err(failed)?), prefix.clone())
        }
        StorageUrl::Memory { name } => (memory(name), Path::ROOT),
    };
    let put = match url {
        StorageUrl::File { .. } => put::Policy::local(),
        _ => put::Policy::default(),
    };
    let hedging = match url {
        // Neither a disk nor memory answers sooner for being asked twice.
        StorageUrl::File { .. } | StorageUrl::Memory { .. } => None,
        _ => options.read.hedging.clone(),
    };
    let read = patient::Policy { hedging, ..options.read };
    let objects: Arc<dyn ObjectStore> =
        if prefix.is_root() { objects } else { Arc::new(PrefixStore::new(objects, prefix)) };
    Ok(Store::new(objects, url.to_string(), StoreOptions { put: options.put.or(Some(put)), read, ..options }))
}

/// Returns why an environment is refused, which the clients would panic at.
pub(crate) fn error_of_environment(url: &StorageUrl, environment: &Environment) -> Option<Error> {
    let problems = environment.problems(url);
    (!problems.is_empty()).then(|| Error::Environment { url: url.to_string(), problem: problems.join("; ") })
}

/// Stores in memory that have a name live as long as the process: whoever opens one by its name finds the same data.
fn memory(name: &str) -> Arc<dyn ObjectStore> {
    static NAMED: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    if name.is_empty() {
        return Arc::new(InMemory::new());
    }
    Arc::clone(NAMED.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default()) as _
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Options of every HTTP client. There is no time-out of a whole request here: each caller has its own. The one on a silent
/// connection ends the long streams that have none.
fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_read_timeout(SILENCE_TIMEOUT)
}

// === impl Store ===

impl Store {
    /// Makes a store of any other kind: tests and simulations bring their own, which must keep what `testing::conformance` asks.
    pub fn new(objects: Arc<dyn ObjectStore>, name: String, options: StoreOptions) -> Self {
        let StoreOptions { environment: _, clock, random, metrics, put, read, boundaries } = options;
        let metered = Metered::new(objects, metrics.clone());
        let objects = Arc::new(Patient::new(metered, read, Arc::clone(&random), metrics.clone()));
        let writer = WriterId::draw(&*random);
        let pace = put::Pace::new(put.unwrap_or_default());
        Self {
            inner: Arc::new(Inner {
                name,
                objects,
                clock,
                random,
                metrics,
                writer,
                pace,
                last_millis: AtomicU64::new(0),
                boundaries,
            }),
        }
    }

    /// Returns the objects, counted, under the prefix of the URL; reads are made again where that may help.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.objects)
    }

    /// Returns what the store is called towards people: its URL.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Returns the source of chance.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.inner.random
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Returns what is known of the boundaries of tenants.
    pub fn boundaries(&self) -> &Boundaries {
        &self.inner.boundaries
    }

    /// Returns the name under which this store writes segments.
    pub fn writer(&self) -> &WriterId {
        &self.inner.writer
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("name", &self.inner.name)
            .field("writer", &self.inner.writer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
