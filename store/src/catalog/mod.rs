//! What can be found: the profiles of a tenant, as of a listing and of commits that are fresh enough.
//!
//! ```text
//! Catalog::view ─▶ refresh: one LIST for all who wait (listing) ─▶ then the commits ─▶ new segments opened (segment) ─▶ ids indexed
//!                  (dedupe), compared with those of compacted blocks (cover) ─▶ View
//! View::select ─▶ blocks by time, segments by time and series ─▶ their rows, from the cache or a GET each ─▶ Selection
//! ```
//!
//! Invariants. A view is what is live after a commit, and the segments listed before that no commit removed. So it holds all that was
//! acknowledged before its listing began (see [`listing`] for what that rests on), and a compaction changes it in one step. Each id counts
//! once: in the compacted block that has it, else in the earliest segment. A view never changes. What cannot be read is a
//! [`Problem`] that names it; the rest answers. What was collected since is none: the question is asked again, of a new view.
//!
//! Memory: a segment that is listed and not removed costs about 500 bytes, and 50 for each of its profiles and of its series, and
//! [`Options::segments_max`] bounds their number. A compacted block costs about 250 bytes, and a removed segment 24 for a day; their
//! profiles cost nothing until they are asked for. Opened blocks, with all that rows say, share [`Options::cache_bytes_max`] and are
//! opened again when asked for; what questions read of their samples shares [`Options::ranges_bytes_max`], and what
//! they decoded of it [`Options::decoded_bytes_max`]. Nothing happens unasked: a catalog that nobody asks makes no requests.

mod cover;
mod dedupe;
pub(crate) mod listing;
mod refresh;
mod segment;
mod stored;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use quick_cache::sync::Cache;

use self::refresh::Tenant;
use self::segment::{Blocks, Location};
pub use self::segment::{OpenBlock, Series};
pub use self::stored::{Holding, Level, Stored};
pub use self::view::{Match, Query, SegmentInfo, Selection, SeriesCount, Summary, View};
use crate::Store;
use crate::commit::{self, Commits};
use crate::paths::{BlockKey, SegmentKey, SegmentName, TenantId};
pub use crate::ranges::DiskOptions;

/// The tenants that are kept at once; one that was not asked about for long is listed and opened anew.
const TENANTS_MAX: usize = 1_000;

/// How a catalog behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How old the listing may be that an answer rests on. It also bounds how often a tenant is listed.
    pub list_age_max: Duration,
    /// How old the last listing of *all* keys may be while there are more of them than one page; a listing between asks for the newest.
    pub full_list_age_max: Duration,
    /// How long before the newest known key a listing of the newest begins: as long as a PUT may take and a writer's clock be behind.
    pub late_max: Duration,
    /// How many blocks are opened at once.
    pub opens_max: usize,
    /// The bytes that opened blocks may take, for all tenants together.
    pub cache_bytes_max: u64,
    /// The bytes that parts of blocks may take that were read to answer questions; 0 keeps none.
    pub ranges_bytes_max: u64,
    /// Where such parts are kept on disk as well, if they are.
    pub disk: Option<DiskOptions>,
    /// The bytes that symbol tables and sums may take that were decoded to answer questions; 0 keeps none.
    pub decoded_bytes_max: u64,
    /// The most segments a tenant may have; a view of more is refused.
    pub segments_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            list_age_max: Duration::from_millis(500),
            full_list_age_max: Duration::from_secs(15),
            // Five seconds of a PUT and a minute of a clock that is behind.
            late_max: Duration::from_secs(65),
            opens_max: 64,
            cache_bytes_max: 256 << 20,
            ranges_bytes_max: 0,
            disk: None,
            decoded_bytes_max: 0,
            segments_max: 1_000_000,
        }
    }
}

/// How recent a view must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Its listing began no longer ago than [`Options::list_age_max`].
    AtMostOld,
    /// It holds this segment, which an acknowledgement named, or the block that took its place, or its listing began after it was asked
    /// for: reads its own writes.
    AtLeast(SegmentName),
    /// Its listing began after it was asked for.
    Now,
}

/// Why there is no view.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The segments could not be listed; a retry may help.
    #[error("the segments of tenant {tenant} could not be listed")]
    List {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        source: Arc<object_store::Error>,
    },
    /// What compactions did could not be read; unless the commits are damaged, a retry may help.
    #[error("the commits of tenant {tenant} could not be read")]
    Commits {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        source: commit::Error,
    },
    /// There are too many segments to know them all.
    #[error(
        "tenant {tenant} has {segments} segments, more than the {max} a catalog takes: compaction is behind or off"
    )]
    TooManySegments {
        /// The tenant.
        tenant: TenantId,
        /// How many there are.
        segments: usize,
        /// How many are taken.
        max: usize,
    },
}

/// An object that could not be read, so that answers lack what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its key.
    pub key: Path,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// Finds profiles; cheap to clone, each clone the same catalog.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    blocks: Arc<Blocks>,
    options: Options,
    tenants: Cache<TenantId, Arc<Tenant>>,
}

impl Catalog {
    /// Makes a catalog of what `store` holds. Makes no request.
    pub fn new(store: Store, options: Options) -> Self {
        let metrics = store.metrics();
        let disk_bytes_max = options.disk.as_ref().map_or(0, |disk| disk.bytes_max);
        for (gauge, max) in [
            (&metrics.segments_max, options.segments_max as u64),
            (&metrics.blocks_bytes_max, options.cache_bytes_max),
            (&metrics.ranges_bytes_max, options.ranges_bytes_max),
            (&metrics.disk_bytes_max, disk_bytes_max),
            (&metrics.decoded_bytes_max, options.decoded_bytes_max),
        ] {
            gauge.set(i64::try_from(max).unwrap_or(i64::MAX));
        }
        let blocks = Arc::new(Blocks::new(store, &options));
        Self { inner: Arc::new(Inner { blocks, options, tenants: Cache::new(TENANTS_MAX) }) }
    }

    /// Returns a view of the tenant's profiles that is as fresh as asked.
    ///
    /// Costs nothing where the last view is fresh enough; else one LIST (see [`listing`]), the GETs of [`Commits::refresh`], one for each
    /// segment that is new, and a GET or two for each block whose ids may be those of such; shared by all who wait. Dropping the
    /// future keeps what was opened so far.
    ///
    /// # Errors
    /// [`Error::List`] and [`Error::Commits`] where the store does not answer, [`Error::TooManySegments`] over the limit.
    pub async fn view(&self, tenant: &TenantId, freshness: Freshness) -> Result<Arc<View>, Error> {
        self.tenant(tenant).view(&freshness).await
    }

    /// Returns the block of the tenant that lies at `path` and has so many bytes, whether or not any view has it; none where that is no such
    /// key, or it cannot be opened.
    pub async fn block(&self, tenant: &TenantId, path: &str, bytes: u64) -> Option<Arc<OpenBlock>> {
        let path = Path::parse(path).ok()?;
        let by_id = BlockKey::parse(tenant, &path).is_ok();
        if !by_id && SegmentKey::parse(tenant, &path).is_err() {
            return None;
        }
        self.inner.blocks.get(&Location { path, bytes, by_id }).await.ok()
    }

    /// Forgets what was read of the samples of a block that proved damaged: if that happened on the way here, the next question does not
    /// suffer from it.
    pub fn forget(&self, block: &Path) {
        self.inner.blocks.forget(block);
    }

    /// Returns the commits of the tenant, which share what they read with the views.
    pub fn commits(&self, tenant: &TenantId) -> Commits {
        self.tenant(tenant).commits().clone()
    }

    fn tenant(&self, tenant: &TenantId) -> Arc<Tenant> {
        let make = || Arc::new(Tenant::new(tenant.clone(), Arc::clone(&self.inner.blocks), self.inner.options.clone()));
        let Ok(tenant) = self.inner.tenants.get_or_insert_with(tenant, || Ok::<_, std::convert::Infallible>(make()));
        tenant
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
