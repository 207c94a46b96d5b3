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
pub(crate) enum Scope {
    /// All keys.
    All,
    /// Keys whose name says this time, in milliseconds, or later.
    From(u64),
}

/// What a listing found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The segments, by their order.
    pub(crate) segments: Vec<(SegmentName, Location)>,
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

    /// Plans a listing for a reader who knows these many segments, has seen this newest name, and may wait for one by its token. What was
    /// removed is listed until it is collected, so there may be more keys than segments.
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
        let keys = known.max(self.full_keys);
        let pages = (self.full_keys / PAGE_KEYS) as u32;
        let full_due = full_began + self.full_list_age_max.max(PAUSE_PER_PAGE * pages);
        let from = offset(began, newest, self.late_max);
        let is_before = token.is_some_and(|token| token.millis() < from);
        if self.is_stale || keys < PAGE_KEYS || now >= full_due || is_before { Scope::All } else { Scope::From(from) }
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
pub(crate) async fn list(objects: &dyn ObjectStore, tenant: &TenantId, scope: Scope) -> object_store::Result<Found> {
    let folder = tenant.segments();
    let mut listed: Vec<ObjectMeta> = Vec::new();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let after = resume(tenant, scope, &mut listed);
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

/// Returns the key after which to go on. Where a store lists in order, what came before a failure need not be listed again.
fn resume(tenant: &TenantId, scope: Scope, listed: &mut Vec<ObjectMeta>) -> Option<Path> {
    if !listed.is_sorted_by(|a, b| a.location < b.location) {
        listed.clear();
    }
    match (listed.last(), scope) {
        (Some(last), _) => Some(last.location.clone()),
        (None, Scope::From(millis)) => Some(tenant.segments_from(millis)),
        (None, Scope::All) => None,
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
            Ok(key) => {
                found.segments.push((key.name, Location { path: meta.location, bytes: meta.size, by_id: false }))
            }
            Err(_) => drop(strangers.insert(meta.location)),
        }
    }
    found.segments.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.segments.dedup_by(|(a, _), (b, _)| a == b);
    found.strangers = strangers.into_iter().collect();
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;
    use crate::testing::faults::{Faulty, Operation, Trouble};

    const SECOND: Duration = Duration::from_secs(1);

    fn name(millis: u64) -> SegmentName {
        SegmentName::new(millis, &"w".parse().expect("valid"), millis)
    }

    fn key(millis: u64) -> SegmentKey {
        SegmentKey { tenant: TenantId::anonymous(), name: name(millis) }
    }

    /// A lister that has listed all of many keys at the given wall time.
    fn lister(began_millis: u64, keys: usize) -> (Lister, Instant) {
        let now = Instant::now();
        let mut lister = Lister::new(&Options::default());
        lister.done(Scope::All, now, began_millis, keys);
        (lister, now)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_listing_and_one_of_few_keys_are_of_all() {
        let lister_new = Lister::new(&Options::default());
        assert_eq!(lister_new.plan(Instant::now(), 5_000, Some(&name(1)), None), Scope::All);
        let (lister, now) = lister(1_000_000, 999);
        assert_eq!(lister.plan(now, 999, Some(&name(1_000_000)), None), Scope::All);
        assert_eq!(lister.plan(now, 0, None, None), Scope::All);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_of_the_newest_reaches_back_before_all_that_may_be_new() {
        let (lister, now) = lister(1_000_000, 5_000);
        assert_eq!(lister.plan(now, 5_000, Some(&name(999_000)), None), Scope::From(999_000 - 65_000));
        // A name ahead of the reader's clock does not hide what is written now.
        assert_eq!(lister.plan(now, 5_000, Some(&name(2_000_000)), None), Scope::From(1_000_000 - 65_000));
    }

    #[tokio::test(start_paused = true)]
    async fn all_keys_are_listed_now_and_then_and_never_for_more_than_the_newest_cost() {
        let newest = name(1_000_000);
        for (keys, pause) in [(5_000, 15), (15_000, 15), (100_000, 100)] {
            let (lister, began) = lister(1_000_000, keys);
            assert_ne!(lister.plan(began + (pause - 1) * SECOND, keys, Some(&newest), None), Scope::All, "{keys}");
            assert_eq!(lister.plan(began + pause * SECOND, keys, Some(&newest), None), Scope::All, "{keys}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_or_asked_for_by_an_old_token_brings_a_listing_of_all() {
        let (mut lister, now) = lister(1_000_000, 5_000);
        let plan = |lister: &Lister, token: u64| lister.plan(now, 5_000, Some(&name(1_000_000)), Some(&name(token)));
        assert_eq!(plan(&lister, 935_000), Scope::From(935_000));
        assert_eq!(plan(&lister, 934_999), Scope::All);
        lister.is_stale();
        assert_eq!(plan(&lister, 935_000), Scope::All);
        lister.done(Scope::From(1), now, 1_000_000, 5_000);
        assert_eq!(plan(&lister, 935_000), Scope::All, "only a listing of all shows what is gone");
        lister.done(Scope::All, now, 1_000_000, 5_000);
        assert_eq!(plan(&lister, 935_000), Scope::From(935_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_behind_is_allowed_for_once_it_was_noticed() {
        let newest = name(1_000_000);
        let (mut lister, now) = lister(1_000_000, 5_000);
        let plan = |lister: &Lister| lister.plan(now, 5_000, Some(&newest), None);
        lister.learn(Some(&newest), [name(990_000), name(935_000)].iter());
        assert_eq!(plan(&lister), Scope::From(935_000), "all of these would have been found");
        lister.learn(Some(&newest), [name(990_000), name(900_000), name(910_000)].iter());
        assert_eq!(plan(&lister), Scope::From(900_000));
        lister.learn(Some(&newest), [name(5)].iter());
        assert_eq!(plan(&lister), Scope::From(1_000_000 - 15 * 60 * 1_000), "within reason");
    }

    async fn store(millis: impl IntoIterator<Item = u64>) -> Faulty {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        for millis in millis {
            faulty.inner().put(&key(millis).path(), PutPayload::from_static(b"four")).await.expect("memory works");
        }
        faulty
    }

    fn millis(found: &Found) -> Vec<u64> {
        found.segments.iter().map(|(name, _)| name.millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn segments_are_found_with_their_sizes_and_strangers_apart() {
        let faulty = store([3, 1, 2]).await;
        let tenant = TenantId::anonymous();
        for stranger in ["readme.txt", "sub/0000000000001-w-0000000000000001.agb"] {
            let path = Path::from_iter(tenant.segments().parts().chain(Path::from(stranger).parts()));
            faulty.inner().put(&path, PutPayload::new()).await.expect("memory works");
        }
        let found = list(&faulty, &tenant, Scope::All).await.expect("memory works");
        assert_eq!((millis(&found), found.strangers.len()), (vec![1, 2, 3], 2));
        assert!(
            found
                .segments
                .iter()
                .all(|(name, location)| location.bytes == 4 && location.path == key(name.millis()).path())
        );
        let found = list(&faulty, &tenant, Scope::From(2)).await.expect("memory works");
        assert_eq!(millis(&found), [2, 3]);
        let other = "other".parse().expect("valid");
        assert_eq!(millis(&list(&faulty, &other, Scope::All).await.expect("memory works")), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_breaks_is_continued_where_it_broke() {
        let faulty = store(0..10).await;
        faulty.script(Operation::List, [Trouble::CutBody(4), Trouble::Refuse(503), Trouble::CutBody(0)]);
        let found = list(&faulty, &TenantId::anonymous(), Scope::All).await.expect("the fourth attempt works");
        assert_eq!(millis(&found), Vec::from_iter(0..10));
        let asked = faulty.keys(Operation::List);
        assert_eq!(asked[1..], [key(3).path(), key(3).path(), key(3).path()]);
        faulty.script(Operation::List, [Trouble::CutBody(0)]);
        let found = list(&faulty, &TenantId::anonymous(), Scope::From(6)).await.expect("the second attempt works");
        assert_eq!(millis(&found), [6, 7, 8, 9], "where nothing was listed the offset stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_is_given_up_after_four_attempts_or_at_once() {
        let faulty = store([]).await;
        faulty.always(Operation::List, Trouble::Stall);
        let began = Instant::now();
        let error = list(&faulty, &TenantId::anonymous(), Scope::All).await.expect_err("nobody answers");
        assert!(error.to_string().contains("no answer within 5s"), "{error}");
        assert_eq!((faulty.count(Operation::List), began.elapsed().as_millis()), (4, 20_350));
        faulty.always(Operation::List, Trouble::Refuse(403));
        list(&faulty, &TenantId::anonymous(), Scope::All).await.expect_err("the store refuses");
        assert_eq!(faulty.count(Operation::List), 5);
    }

    /// A file system lists in any order: what was listed before a failure says nothing about what is left.
    #[tokio::test(start_paused = true)]
    async fn an_unsorted_listing_that_breaks_begins_anew() {
        let tenant = TenantId::anonymous();
        let mut listed = Vec::new();
        list_once(&store([1, 2, 3]).await, &tenant.segments(), None, &mut listed).await.expect("memory works");
        assert_eq!(resume(&tenant, Scope::All, &mut listed), Some(key(3).path()));
        listed.swap(0, 1);
        assert_eq!(resume(&tenant, Scope::From(2), &mut listed), Some(tenant.segments_from(2)));
        assert!(listed.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_two_pages_name_counts_once() {
        let tenant = TenantId::anonymous();
        let mut listed = Vec::new();
        list_once(&store([1, 2]).await, &tenant.segments(), None, &mut listed).await.expect("memory works");
        listed.extend(listed.clone());
        listed.reverse();
        assert_eq!(millis(&sort(&tenant, listed)), [1, 2]);
    }
}
