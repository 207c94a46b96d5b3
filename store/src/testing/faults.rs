//! A store that fails as it is told, in the ways that clouds do.
//!
//! [`Faulty`] stands around a store that works and takes a script for each operation: the next request of that kind meets the next
//! [`Trouble`]. What matters for writes is told apart exactly: whether the object was written, and what the caller got to hear.
//! Errors are built as the real clients build them, so that the code under test reads them by the same way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    coalesce_ranges,
};
use tokio::time::Instant;

use crate::clock::{Clock, TakenAt};
use crate::open::StatusError;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Write, whatever is there.
    Put,
    /// Write where nothing is.
    Create,
    /// Read an object or a part of it, or ask whether it exists.
    Get,
    /// List keys.
    List,
    /// Delete objects.
    Delete,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: it works.
    None,
    /// It is not done; the answer is this HTTP status.
    Refuse(u16),
    /// It is done; the answer is this HTTP status all the same.
    ApplyThenRefuse(u16),
    /// It is not done: no connection came to be.
    Unreachable,
    /// It is done, but the connection breaks before the answer.
    LoseAnswer,
    /// It is not done and there is never an answer.
    Stall,
    /// It is done, but there is never an answer.
    ApplyThenStall,
    /// There is never an answer; after this time it is done, whether anyone still waits or not.
    ApplyLater(Duration),
    /// It is done and answered after this time.
    Slow(Duration),
    /// It is done as if it carried no condition: an existing object is overwritten.
    IgnoreCondition,
    /// The body that is read ends after this many bytes.
    CutBody(usize),
    /// One bit of the body that is read is wrong: this one, counted from its start.
    FlipBit(usize),
    /// The client itself has a bug: it panics.
    Panic,
}

#[derive(Debug, Default)]
struct Script {
    next: HashMap<Operation, VecDeque<Trouble>>,
    always: HashMap<Operation, Trouble>,
    on_key: HashMap<String, Trouble>,
    requests: Vec<(Operation, Path)>,
    /// When each read began.
    begun: Vec<Instant>,
    bytes_in_ranges: u64,
    /// Whose time the answers tell, if they do.
    clock: Option<Arc<dyn Clock>>,
    /// When what was written since was, by this clock.
    taken: HashMap<Path, SystemTime>,
}

/// A store that fails as it is told; clones share the script and the record of requests.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

impl Faulty {
    /// Makes a store that does what `inner` does until it is told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// Appends what happens to the next requests of a kind; those after them work.
    pub fn script(&self, operation: Operation, troubles: impl IntoIterator<Item = Trouble>) {
        self.lock().next.entry(operation).or_default().extend(troubles);
    }

    /// Sets what happens to all requests of a kind that the script does not speak of.
    pub fn always(&self, operation: Operation, trouble: Trouble) {
        self.lock().always.insert(operation, trouble);
    }

    /// Sets what happens to all reads of an object.
    pub fn on_key(&self, key: &Path, trouble: Trouble) {
        self.lock().on_key.insert(key.to_string(), trouble);
    }

    /// Has the answers to writes tell the time of this clock, as clouds do, and objects that are written from now on have it.
    pub fn tells_time_of(&self, clock: Arc<dyn Clock>) {
        self.lock().clock = Some(clock);
    }

    /// Returns how many requests of a kind were made.
    pub fn count(&self, operation: Operation) -> usize {
        self.lock().requests.iter().filter(|(made, _)| *made == operation).count()
    }

    /// Returns the keys of the requests of a kind, in their order.
    pub fn keys(&self, operation: Operation) -> Vec<Path> {
        self.lock().requests.iter().filter(|(made, _)| *made == operation).map(|(_, key)| key.clone()).collect()
    }

    /// Returns when each read of an object began, in their order.
    pub fn begun(&self) -> Vec<Instant> {
        self.lock().begun.clone()
    }

    /// Returns how many bytes were asked for by several ranges at once, before those that lie close to each other are joined.
    pub fn bytes_in_ranges(&self) -> u64 {
        self.lock().bytes_in_ranges
    }

    /// Returns the store within, which never fails.
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics while it holds the lock")
    }

    fn next(&self, operation: Operation, key: &Path) -> Trouble {
        let mut script = self.lock();
        script.requests.push((operation, key.clone()));
        if operation == Operation::Get {
            script.begun.push(Instant::now());
        }
        if operation == Operation::Get
            && let Some(trouble) = script.on_key.get(key.as_ref())
        {
            return *trouble;
        }
        let next = script.next.get_mut(&operation).and_then(VecDeque::pop_front);
        let trouble = next.or_else(|| script.always.get(&operation).copied()).unwrap_or(Trouble::None);
        drop(script);
        assert!(trouble != Trouble::Panic, "scripted panic");
        trouble
    }
}

/// Makes the error of an answer with this HTTP status, as `object_store` and the client below it make it.
pub fn refusal(status: u16, key: &Path) -> object_store::Error {
    let code = http::StatusCode::from_u16(status).expect("a script names statuses that exist");
    let source =
        HttpError::new(HttpErrorKind::Unknown, StatusError { status: code, message: "scripted".to_owned() }).into();
    let path = key.to_string();
    match status {
        401 => object_store::Error::Unauthenticated { path, source },
        403 => object_store::Error::PermissionDenied { path, source },
        404 => object_store::Error::NotFound { path, source },
        409 => object_store::Error::AlreadyExists { path, source },
        412 => object_store::Error::Precondition { path, source },
        _ => object_store::Error::Generic { store: "faulty", source },
    }
}

fn broken(kind: HttpErrorKind, what: &'static str) -> object_store::Error {
    let source = HttpError::new(kind, std::io::Error::other(what));
    object_store::Error::Generic { store: "faulty", source: source.into() }
}

async fn never<T>() -> T {
    std::future::pending().await
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let operation = if options.mode == PutMode::Overwrite { Operation::Put } else { Operation::Create };
        let trouble = self.next(operation, location);
        let apply = async || {
            let mut written = self.inner.put_opts(location, payload.clone(), options.clone()).await?;
            let mut script = self.lock();
            if let Some(clock) = &script.clock {
                let (now, millis) = (clock.now(), clock.unix_millis());
                written.extensions.insert(TakenAt(millis));
                script.taken.insert(location.clone(), now);
            }
            Ok(written)
        };
        match trouble {
            Trouble::None | Trouble::CutBody(_) | Trouble::FlipBit(_) | Trouble::Panic => apply().await,
            Trouble::Refuse(status) => Err(refusal(status, location)),
            Trouble::ApplyThenRefuse(status) => apply().await.and(Err(refusal(status, location))),
            Trouble::Unreachable => Err(broken(HttpErrorKind::Connect, "connection refused")),
            Trouble::LoseAnswer => apply().await.and(Err(broken(HttpErrorKind::Interrupted, "connection reset"))),
            Trouble::Stall => never().await,
            Trouble::ApplyThenStall => {
                apply().await?;
                never().await
            }
            Trouble::ApplyLater(delay) => {
                let (inner, location) = (Arc::clone(&self.inner), location.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // Where it is to be created, it may be there by then: then nothing happens.
                    let _ = inner.put_opts(&location, payload, options).await;
                });
                never().await
            }
            Trouble::Slow(delay) => {
                tokio::time::sleep(delay).await;
                apply().await
            }
            Trouble::IgnoreCondition => {
                self.inner.put_opts(location, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let trouble = self.next(Operation::Get, location);
        match trouble {
            Trouble::Refuse(status) | Trouble::ApplyThenRefuse(status) => return Err(refusal(status, location)),
            Trouble::Unreachable => return Err(broken(HttpErrorKind::Connect, "connection refused")),
            Trouble::LoseAnswer => return Err(broken(HttpErrorKind::Interrupted, "connection reset")),
            Trouble::Stall | Trouble::ApplyThenStall | Trouble::ApplyLater(_) => return never().await,
            Trouble::Slow(delay) => tokio::time::sleep(delay).await,
            Trouble::None | Trouble::IgnoreCondition | Trouble::CutBody(_) | Trouble::FlipBit(_) | Trouble::Panic => {}
        }
        let result = self.inner.get_opts(location, options).await?;
        let (mut meta, range) = (result.meta.clone(), result.range.clone());
        if let Some(taken) = self.lock().taken.get(&meta.location) {
            meta.last_modified = (*taken).into();
        }
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let payload = match trouble {
            Trouble::CutBody(bytes) => {
                let body = result.bytes().await?;
                let start: Bytes = body.slice(..bytes.min(body.len()));
                let end = broken(HttpErrorKind::Interrupted, "connection reset");
                GetResultPayload::Stream(futures::stream::iter([Ok(start), Err(end)]).boxed())
            }
            Trouble::FlipBit(bit) => {
                let mut body = result.bytes().await?.to_vec();
                if let Some(byte) = body.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                GetResultPayload::Stream(futures::stream::iter([Ok(Bytes::from(body))]).boxed())
            }
            _ => result.payload,
        };
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.lock().bytes_in_ranges += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        let read = |range| self.get_range(location, range);
        coalesce_ranges(ranges, read, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let this = self.clone();
        let passed = locations.map(move |location| {
            let location = location?;
            match this.next(Operation::Delete, &location) {
                Trouble::Refuse(status) => Err(refusal(status, &location)),
                _ => Ok(location),
            }
        });
        self.inner.delete_stream(passed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let trouble = self.next(Operation::List, prefix.unwrap_or(&Path::ROOT));
        trouble_list(trouble, self.inner.list(prefix), prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let trouble = self.next(Operation::List, offset);
        trouble_list(trouble, self.inner.list_with_offset(prefix, offset), prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        match self.next(Operation::List, prefix.unwrap_or(&Path::ROOT)) {
            Trouble::Refuse(status) => Err(refusal(status, prefix.unwrap_or(&Path::ROOT))),
            Trouble::Stall => std::future::pending().await,
            _ => self.inner.list_with_delimiter(prefix).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Applies a trouble to a listing: `CutBody` ends it with an error after so many keys.
fn trouble_list(
    trouble: Trouble,
    list: BoxStream<'static, object_store::Result<ObjectMeta>>,
    prefix: Option<&Path>,
) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    match trouble {
        Trouble::Refuse(status) => {
            let error = refusal(status, prefix.unwrap_or(&Path::ROOT));
            futures::stream::iter([Err(error)]).boxed()
        }
        Trouble::Stall => futures::stream::pending().boxed(),
        Trouble::Slow(delay) => {
            futures::stream::once(tokio::time::sleep(delay)).flat_map(|()| futures::stream::empty()).chain(list).boxed()
        }
        Trouble::CutBody(keys) => {
            let end = broken(HttpErrorKind::Interrupted, "connection reset");
            list.take(keys).chain(futures::stream::iter([Err(end)])).boxed()
        }
        _ => list,
    }
}
