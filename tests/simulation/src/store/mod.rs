//! An object store in memory that fails as clouds do, by a seed.
//!
//! Without faults it keeps what S3 promises: a read sees the last write that was answered, listings are in the order of keys and go by
//! pages, of several creates of one key one succeeds, an ETag tells versions apart. What happens to a request is drawn when it is sent. A
//! write is carried out by the store, not by its sender: who gives up or dies changes nothing, or ends it before it began, by chance.

pub mod faults;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_store::clock::TakenAt;
use afterglow_store::commit::{Commit, Reason};
use afterglow_store::paths::{BlockKey, BlockName, BlockRef, TenantId};
use afterglow_store::testing::commits;
use afterglow_store::testing::faults::refusal;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Extensions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use self::faults::{Answer, BROWN_OUT, Fate, Faults};
use crate::met::Met;
use crate::world::{Chance, World};

/// What some stores, and proxies before them, send behind the status 200.
const ERROR_BODY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>We encountered an internal \
    error. Please try again.</Message></Error>";

/// The keys of a page of a listing: few, so that small runs have several pages.
const PAGE_KEYS: usize = 16;

/// The store as one of its users sees it; cheap to clone.
#[derive(Clone, Debug)]
pub struct SimStore {
    shared: Arc<Shared>,
    /// Who asks, for the trace.
    user: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    world: World,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<Path, Object>,
    /// Every key that was ever written.
    written: BTreeSet<Path>,
    version: u64,
    faults: Faults,
    /// When requests last stopped failing.
    calm_since: Option<Instant>,
    chance: Chance,
    /// Until when most requests fail.
    browned_out: Option<Instant>,
    requests: u64,
    /// The number of the last commit that landed.
    committed: u64,
    /// The commits that landed since somebody asked.
    landed: Vec<Landed>,
}

/// A commit as it landed, for whoever looks over everybody's shoulder.
#[derive(Clone, Debug)]
pub struct Landed {
    /// Its number.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// What it says.
    pub commit: Commit,
    /// Where it is one of retention, the blocks that it removes and adds.
    pub blocks: BTreeMap<BlockName, Bytes>,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    modified: SystemTime,
    version: u64,
}

/// How long what failed is felt: a request stalls for half a minute, and who waits for it may sleep meanwhile.
const AFTERMATH: Duration = Duration::from_secs(60);

/// A write that the store has taken.
#[derive(Clone, Debug)]
enum Write {
    Put { key: Path, bytes: Bytes, mode: PutMode },
    Delete { key: Path },
}

impl SimStore {
    /// Makes an empty store in good order.
    pub fn new(world: &World) -> Self {
        Self::named(world, "store")
    }

    /// Makes another, with a chance of its own.
    pub fn named(world: &World, name: &str) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            written: BTreeSet::new(),
            version: 0,
            faults: Faults::none(),
            calm_since: None,
            chance: world.chance(name),
            browned_out: None,
            requests: 0,
            committed: 0,
            landed: Vec::new(),
        };
        Self { shared: Arc::new(Shared { world: world.clone(), state: Mutex::new(state) }), user: "world".into() }
    }

    /// Returns the same store for another user.
    pub fn of(&self, user: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), user: user.into() }
    }

    /// Sets how requests fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        if state.faults != Faults::none() {
            state.calm_since = Some(Instant::now());
        }
        state.faults = faults;
        state.browned_out = None;
    }

    /// Returns whether requests may fail just now, or could when they were made that are answered now.
    pub fn may_fail(&self) -> bool {
        let state = self.state();
        state.faults != Faults::none() || state.calm_since.is_some_and(|since| since.elapsed() < AFTERMATH)
    }

    /// Returns whether this object was durable at some time up to now, without asking the store as its users do.
    pub fn was_written(&self, key: &Path) -> bool {
        self.state().written.contains(key)
    }

    /// Returns the commits that landed since this was asked before, by number, each once, as the store had them first.
    pub fn landed(&self) -> Vec<Landed> {
        std::mem::take(&mut self.state().landed)
    }

    /// Returns whether anything was found damaged, rightly or not.
    pub fn has_quarantined(&self) -> bool {
        let tenant = TenantId::anonymous();
        self.state().objects.keys().any(|key| tenant.parse_quarantine(key).is_some())
    }

    /// Returns how many objects there are.
    pub fn objects(&self) -> usize {
        self.state().objects.len()
    }

    /// Returns how many requests were made.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nothing panics while it holds the lock")
    }

    /// Draws what happens to a request, and notes it.
    fn draw(&self, what: &str, key: &dyn fmt::Display, is_write: bool, is_create: bool) -> Fate {
        let mut state = self.state();
        let State { faults, chance, browned_out, requests, .. } = &mut *state;
        *requests += 1;
        let now = Instant::now();
        if browned_out.is_none_or(|until| until <= now) {
            *browned_out = chance.is(faults.brown_out).then(|| now + BROWN_OUT);
        }
        let meets = |met| self.shared.world.meets(met);
        let fate = Fate::draw(faults, chance, is_write, is_create, browned_out.is_some(), meets);
        self.shared.world.note(format_args!("{} {what} {key}: {}", self.user, Told(&fate)));
        fate
    }

    /// Does a write when its time comes, whether its sender waits or not, and answers.
    async fn write(&self, fate: Fate, write: Write) -> Result<PutResult> {
        let (answer, answered) = oneshot::channel();
        let store = self.clone();
        tokio::spawn(async move {
            let mut truth = None;
            if let Some(after) = fate.done_after {
                sleep(after).await;
                if answer.is_closed() {
                    // Where nobody waits, the rest of the request may never have been sent.
                    let Some(after) = fate.orphaned_after else { return };
                    if !after.is_zero() {
                        store.shared.world.meets(Met::Orphan);
                    }
                    sleep(after).await;
                }
                truth = Some(store.apply(&write));
                if fate.is_forgotten {
                    drop(store.apply(&Write::Delete { key: write.key().clone() }));
                }
            }
            sleep(fate.answer_after).await;
            let heard = match (fate.answer, truth) {
                (Answer::Truth, Some(truth)) => Some(truth),
                (Answer::Success, _) => Some(Ok(written(0))),
                (told, _) => store.told(told, write.key()).map(Err),
            };
            let Some(again) = fate.again_after else {
                match heard {
                    Some(heard) => drop(answer.send(heard)),
                    // Waits as long as its sender does.
                    None => std::future::pending().await,
                }
                return;
            };
            heard.map(|heard| answer.send(heard));
            sleep(again).await;
            drop(store.apply(&write));
        });
        match answered.await {
            Ok(heard) => heard,
            Err(_) => std::future::pending().await,
        }
    }

    /// Does a write now.
    fn apply(&self, write: &Write) -> Result<PutResult> {
        let now = self.shared.world.now();
        let mut state = self.state();
        let result = match write {
            Write::Put { key, bytes, mode } => {
                let there = state.objects.get(key).map(|object| object.version);
                let refused = match mode {
                    PutMode::Overwrite => None,
                    PutMode::Create => there.map(|_| refusal(409, key)),
                    PutMode::Update(expected) => {
                        let is_expected = there.is_some_and(|version| expected.e_tag == Some(e_tag(version)));
                        (!is_expected).then(|| refusal(412, key))
                    }
                };
                match refused {
                    Some(error) => Err(error),
                    None => {
                        state.version += 1;
                        let version = state.version;
                        state.objects.insert(key.clone(), Object { bytes: bytes.clone(), modified: now, version });
                        state.written.insert(key.clone());
                        state.note_commit(key, bytes, now);
                        let mut written = written(version);
                        let since = now.duration_since(UNIX_EPOCH).expect("the run begins long after 1970");
                        written.extensions.insert(TakenAt(since.as_millis() as u64));
                        Ok(written)
                    }
                }
            }
            Write::Delete { key } => {
                state.objects.remove(key);
                Ok(written(0))
            }
        };
        drop(state);
        let outcome = if result.is_ok() { "done" } else { "refused" };
        self.shared.world.note(format_args!("{} {} {outcome}", self.user, write.key()));
        result
    }

    /// Returns the error that an answer is; none where there is no answer.
    fn told(&self, answer: Answer, key: &Path) -> Option<object_store::Error> {
        match answer {
            Answer::Status(status) => Some(refusal(status, key)),
            Answer::Broken => Some(broken(HttpErrorKind::Interrupted, "connection reset")),
            Answer::Unreachable => Some(broken(HttpErrorKind::Connect, "connection refused")),
            // What the client makes of it: a write has no ETag, a range is not partial, a listing or a list of what was deleted is none.
            Answer::ErrorBody => Some(object_store::Error::Generic {
                store: "simulated",
                source: "the answer is an error document".into(),
            }),
            // A truth that never came to be is an answer that never comes.
            Answer::Truth | Answer::Success | Answer::Never => None,
        }
    }

    /// Waits until a request that changes nothing is done, or fails.
    async fn wait(&self, fate: &Fate, key: &Path) -> Result<()> {
        let Some(after) = fate.done_after else {
            sleep(fate.answer_after).await;
            return match self.told(fate.answer, key) {
                Some(error) => Err(error),
                None => std::future::pending().await,
            };
        };
        sleep(after).await;
        Ok(())
    }

    /// Draws whether and how a body is damaged on its way.
    fn damage(&self, whole: &Bytes, range: &Range<u64>) -> Option<Vec<Result<Bytes>>> {
        let mut state = self.state();
        let State { faults, chance, .. } = &mut *state;
        let body = whole.slice(range.start as usize..range.end as usize);
        if body.is_empty() || !chance.is(faults.damage) {
            return None;
        }
        self.shared.world.meets(Met::Damages);
        let at = chance.number(0..body.len() as u64) as usize;
        Some(match chance.number(0..3) {
            0 => vec![Ok(body.slice(..at)), Err(broken(HttpErrorKind::Interrupted, "connection reset"))],
            // A range that is shifted: as many bytes, of another place.
            1 if range.end < whole.len() as u64 => {
                vec![Ok(whole.slice(range.start as usize + 1..range.end as usize + 1))]
            }
            _ => {
                let mut wrong = body.to_vec();
                wrong[at] ^= 1 << chance.number(0..8);
                vec![Ok(wrong.into())]
            }
        })
    }
}

fn e_tag(version: u64) -> String {
    format!("\"{version:x}\"")
}

fn written(version: u64) -> PutResult {
    PutResult { e_tag: Some(e_tag(version)), version: None, extensions: Extensions::default() }
}

fn broken(kind: HttpErrorKind, what: &'static str) -> object_store::Error {
    let source = HttpError::new(kind, std::io::Error::other(what));
    object_store::Error::Generic { store: "simulated", source: source.into() }
}

fn meta(key: &Path, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: key.clone(),
        last_modified: object.modified.into(),
        size: object.bytes.len() as u64,
        e_tag: Some(e_tag(object.version)),
        version: None,
    }
}

/// Returns the answer to who asks for a whole object.
fn got(key: &Path, object: &Object, body: Vec<Result<Bytes>>) -> GetResult {
    let meta = meta(key, object);
    GetResult {
        payload: GetResultPayload::Stream(futures::stream::iter(body).boxed()),
        range: 0..meta.size,
        meta,
        attributes: Attributes::default(),
        extensions: Extensions::default(),
    }
}

impl State {
    /// Keeps what landed, where it is the next commit. What lands under a number that was taken before is seen by nobody.
    fn note_commit(&mut self, key: &Path, object: &Bytes, now: SystemTime) {
        let tenant = TenantId::anonymous();
        let Some(number) = tenant.parse_commit(key).filter(|number| *number == self.committed + 1) else { return };
        let commit = commits::decode(key, object).expect("processes write commits that can be read");
        self.committed = number;
        let mut blocks = BTreeMap::new();
        if commit.reason == Reason::Retention {
            let added = commit.adds.iter().map(|entry| entry.name);
            let removed = commit.removes.iter().filter_map(|removed| match removed {
                BlockRef::Block(name) => Some(*name),
                BlockRef::Segment(_) => None,
            });
            for name in added.chain(removed) {
                let key = BlockKey { tenant: tenant.clone(), name }.path();
                blocks.extend(self.objects.get(&key).map(|object| (name, object.bytes.clone())));
            }
        }
        let at_millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.landed.push(Landed { number, at_millis, commit, blocks });
    }
}

impl Write {
    fn key(&self) -> &Path {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A fate as the trace tells it.
struct Told<'a>(&'a Fate);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.done_after {
            Some(after) => write!(f, "after {} us", after.as_micros())?,
            None => f.write_str("not done")?,
        }
        if let Some(again) = self.0.again_after {
            write!(f, ", again after {} ms", again.as_millis())?;
        }
        if self.0.answer != Answer::Truth {
            write!(f, ", answer {:?}", self.0.answer)?;
        }
        Ok(())
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store of {}", self.user)
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_create = options.mode != PutMode::Overwrite;
        let what = if is_create { "create" } else { "put" };
        let mut mode = options.mode;
        let fate = self.draw(what, location, true, is_create);
        let ignores = {
            let mut state = self.state();
            let State { objects, faults, chance, .. } = &mut *state;
            let ignores = is_create && chance.is(faults.ignore_condition);
            if ignores && objects.contains_key(location) {
                self.shared.world.meets(Met::IgnoresCondition);
            }
            ignores
        };
        if ignores {
            mode = PutMode::Overwrite;
        }
        self.write(fate, Write::Put { key: location.clone(), bytes: payload.into(), mode }).await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotImplemented { operation: "multipart".to_owned(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        let fate = self.draw(what, location, false, false);
        if fate.answer == Answer::ErrorBody && !options.head && options.range.is_none() && self.state().chance.is(0.5) {
            // Where the proxy made up an ETag as well, the document is the object for all that the client can tell, also where there is none.
            sleep(fate.answer_after).await;
            let bytes = Bytes::from_static(ERROR_BODY.as_bytes());
            let modified = self.shared.world.now();
            return Ok(got(location, &Object { bytes: bytes.clone(), modified, version: 0 }, vec![Ok(bytes)]));
        }
        self.wait(&fate, location).await?;
        let object = self.state().objects.get(location).cloned();
        sleep(fate.answer_after).await;
        let Some(object) = object else {
            if self.was_written(location) {
                self.shared.world.meets(Met::Gone);
            }
            return Err(refusal(404, location));
        };
        let meta = meta(location, &object);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| object_store::Error::Generic { store: "simulated", source: error.into() })?,
        };
        let body = if options.head {
            Vec::new()
        } else {
            let whole = || vec![Ok(object.bytes.slice(range.start as usize..range.end as usize))];
            self.damage(&object.bytes, &range).unwrap_or_else(whole)
        };
        Ok(GetResult { range, ..got(location, &object, body) })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let key = location?;
                let mut fate = store.draw("delete", &key, true, false);
                let (is_odd, is_late) = {
                    let mut state = store.state();
                    let State { faults, chance, .. } = &mut *state;
                    (chance.is(faults.odd_delete), chance.is(0.5))
                };
                if is_odd {
                    store.shared.world.meets(Met::OddDelete);
                }
                if is_odd && !is_late {
                    fate.answer = Answer::Status(500);
                }
                if is_odd && is_late && fate.answer == Answer::Truth {
                    // Acknowledged at once, done later.
                    let (late, key) = (store.clone(), key.clone());
                    let after = faults::TWICE_MAX;
                    tokio::spawn(async move {
                        sleep(after).await;
                        drop(late.apply(&Write::Delete { key }));
                    });
                    sleep(fate.answer_after).await;
                } else {
                    store.write(fate, Write::Delete { key: key.clone() }).await?;
                }
                Ok(key)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        listing::list(self.clone(), prefix.cloned(), None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        listing::list(self.clone(), prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        listing::folder(self, prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(object_store::Error::NotImplemented { operation: "copy".to_owned(), implementer: self.to_string() })
    }
}

#[cfg(test)]
mod tests;
