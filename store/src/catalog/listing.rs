//! Which keys to ask for, and asking for them.
//!
//! A listing of all keys is always right. It costs a request for each thousand keys, so while there are more than a page, most
//! listings ask only for the newest: for keys from [`offset`] on, which lies before everything that may have appeared since the
//! listing before. That rests on this: a segment whose PUT ended after a time L was named after L - 5 s (the longest a PUT is
//! given) by its writer's clock, and the names of a writer never go back. So it is found where the writer's clock is
//! behind the reader's, and behind the newest name, by no more than `late_max` - 5 s. A clock further behind, or a PUT that lands
//! after its writer gave up (which acknowledged nothing), shows in the next listing of all keys; [`Lister::learn`] then reaches
//! further back from there on. A token always finds its segment: where it is older than the offset, all keys are listed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::segment::Location;
use crate::fault::Fault;
use crate::paths::{SegmentKey, SegmentName, TenantId};
use crate::patient::NoAnswer;

/// The keys of one page. Below as many, a listing of all costs as much as one of the newest.
const PAGE_KEYS: usize = 1_000;
/// Each page of a listing of all keys puts the next one off by so much, so that these never cost more than listings of the newest.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(1);
/// The furthest that a listing of the newest reaches back, whatever was learned: clocks more than this apart are an error to mend.
const LATE_LEARNED_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a listing is begun or continued at most after failures.
const ATTEMPTS_MAX: u32 = 4;
/// The pause after a failure, doubled for each one before it.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a listing asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All keys.
    All,
    /// Keys whose name says this time, in milliseconds, or later.
    From(u64),
}

/// What a listing found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The segments, by their order.
    pub(super) segments: Vec<(SegmentName, Location)>,
    /// What lies among them and is none.
    pub(super) strangers: Vec<Path>,
}

/// Decides what to ask for.
#[derive(Debug)]
pub(super) struct Lister {
    late_max: Duration,
    full_list_age_max: Duration,
    /// When the last listing began, by the reader's wall clock in milliseconds; none before the first.
    began_millis: Option<u64>,
    /// When the last listing of all keys began.
    full_began: Option<Instant>,
    /// How many keys it found.
    full_keys: usize,
    /// Something that was listed is gone.
    is_stale: bool,
}

impl Lister {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            late_max: options.late_max,
            full_list_age_max: options.full_list_age_max,
            began_millis: None,
            full_began: None,
            full_keys: 0,
            is_stale: false,
        }
    }

    /// Plans a listing for a reader who knows these many segments, the newest among them, and may wait for one by its token.
    pub(super) fn plan(
        &self,
        now: Instant,
        known: usize,
        newest: Option<&SegmentName>,
        token: Option<&SegmentName>,
    ) -> Scope {
        let (Some(began), Some(full_began), Some(newest)) = (self.began_millis, self.full_began, newest) else {
            return Scope::All;
        };
        let pages = (self.full_keys / PAGE_KEYS) as u32;
        let full_due = full_began + self.full_list_age_max.max(PAUSE_PER_PAGE * pages);
        let from = offset(began, newest, self.late_max);
        let is_before = token.is_some_and(|token| token.millis() < from);
        if self.is_stale || known < PAGE_KEYS || now >= full_due || is_before { Scope::All } else { Scope::From(from) }
    }

    /// Notes that a listing is done that began at these times; what it found is held now.
    pub(super) fn done(&mut self, scope: Scope, began: Instant, began_millis: u64, keys: usize) {
        self.began_millis = Some(began_millis);
        if scope == Scope::All {
            self.full_began = Some(began);
            self.full_keys = keys;
            self.is_stale = false;
        }
    }

    /// Notes that an object that was listed is not there.
    pub(super) fn is_stale(&mut self) {
        self.is_stale = true;
    }

    /// Looks at what is new in a listing of all keys: had a listing of the newest found it? If not, the next ones shall.
    pub(super) fn learn<'a>(&mut self, newest: Option<&SegmentName>, new: impl Iterator<Item = &'a SegmentName>) {
        let (Some(began), Some(newest)) = (self.began_millis, newest) else { return };
        let from = offset(began, newest, self.late_max);
        let Some(missed) = new.filter(|name| name.millis() < from).min() else { return };
        let late = self.late_max + Duration::from_millis(from - missed.millis());
        self.late_max = late.min(LATE_LEARNED_MAX).max(self.late_max);
        tracing::warn!(
            segment = %missed,
            late_seconds = late.as_secs(),
            "a segment appeared long after the time in its name: a writer's clock is behind, or its write landed late"
        );
    }
}

/// Returns the time from which on a listing finds all that may be new, in milliseconds.
fn offset(began_millis: u64, newest: &SegmentName, late_max: Duration) -> u64 {
    began_millis.min(newest.millis()).saturating_sub(late_max.as_millis() as u64)
}

/// Lists the segments of a tenant. Costs a request for each thousand keys; what fails in passing is continued where it broke off.
pub(super) async fn list(objects: &dyn ObjectStore, tenant: &TenantId, scope: Scope) -> object_store::Result<Found> {
    let folder = tenant.segments();
    let mut listed: Vec<ObjectMeta> = Vec::new();
    let mut attempts = 0;
    loop {
        attempts += 1;
        // Where a store lists in order, what came before the failure need not be listed again.
        let is_sorted = listed.is_sorted_by(|a, b| a.location < b.location);
        let after = match listed.last() {
            Some(last) if is_sorted => Some(last.location.clone()),
            _ => {
                listed.clear();
                match scope {
                    Scope::All => None,
                    Scope::From(millis) => Some(tenant.segments_from(millis)),
                }
            }
        };
        match list_once(objects, &folder, after.as_ref(), &mut listed).await {
            Ok(()) => return Ok(sort(tenant, listed)),
            Err(error) if attempts < ATTEMPTS_MAX && Fault::of(&error).is_passing() => {
                tracing::debug!(%tenant, attempt = attempts, error = &error as &dyn std::error::Error, "attempt to list failed");
                sleep(BACKOFF * 2u32.pow(attempts - 1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn list_once(
    objects: &dyn ObjectStore,
    folder: &Path,
    after: Option<&Path>,
    listed: &mut Vec<ObjectMeta>,
) -> object_store::Result<()> {
    let mut list = match after {
        Some(after) => objects.list_with_offset(Some(folder), after),
        None => objects.list(Some(folder)),
    };
    while let Some(item) = timeout(PAGE_TIMEOUT, list.next()).await.map_err(|_| {
        let source = NoAnswer { after: PAGE_TIMEOUT };
        object_store::Error::Generic { store: "list", source: source.into() }
    })? {
        listed.push(item?);
    }
    Ok(())
}

/// Brings keys into their order, each once: file systems list in none, and a page may repeat what the one before had.
fn sort(tenant: &TenantId, listed: Vec<ObjectMeta>) -> Found {
    let mut found = Found::default();
    let mut strangers = BTreeSet::new();
    for meta in listed {
        match SegmentKey::parse(tenant, &meta.location) {
            Ok(key) => found.segments.push((key.name, Location { path: meta.location, bytes: meta.size })),
            Err(_) => drop(strangers.insert(meta.location)),
        }
    }
    found.segments.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.segments.dedup_by(|(a, _), (b, _)| a == b);
    found.strangers = strangers.into_iter().collect();
    found
}
