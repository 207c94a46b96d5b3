//! The wrapper that reads again what failed in passing, and beside it what is slow.
//!
//! A read changes nothing, so the only questions are how often and how long: each attempt has a time-out that grows with what is
//! asked for, all share a deadline, and pauses are drawn by chance. A body of bounded length is read whole within its attempt, so
//! that a connection that breaks in the middle is an attempt that failed. A read of unbounded length is retried until its
//! head has come. Where questions wait for reads, an attempt that takes longer than nearly all of its size is made a second time
//! beside itself ([`hedges`]): the first answer counts, and the other read is dropped.
//!
//! Writes pass through unchanged: `put` and the commits know what a repeated write means, this module does not. Nor are deletions made
//! twice: the second may meet what was written since under the same key, and nobody waits for them. Listings pass through as well:
//! who lists knows what it has seen (see `catalog`), and each page of a listing costs what ten reads do.

mod hedges;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use tokio::time::{Instant, sleep, timeout_at};

pub use hedges::Hedging;

use crate::clock::Random;
use crate::fault::Fault;
use crate::metrics::Metrics;
use hedges::Hedges;

/// The longest body that is read whole within its attempt; longer ones stream.
const WHOLE_BYTES_MAX: u64 = 32 << 20;
/// The pause after a failed attempt; doubled for each one before it, and shortened by chance to spread the callers.
const BACKOFF: Duration = Duration::from_millis(50);

/// How reads are retried.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many attempts there are at most.
    pub attempts_max: u32,
    /// How long an attempt may take, the time for its body apart.
    pub attempt_timeout: Duration,
    /// The slowest transfer of a body that is waited for, in bytes a second.
    pub bytes_per_second_min: u64,
    /// How long all attempts may take together.
    pub timeout: Duration,
    /// How reads that are slow are made a second time beside themselves; none for never.
    pub hedging: Option<Hedging>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 4,
            attempt_timeout: Duration::from_secs(3),
            bytes_per_second_min: 4 << 20,
            timeout: Duration::from_secs(15),
            // Worth its requests where somebody waits for the answer: the querier asks for it.
            hedging: None,
        }
    }
}

/// Says that a read took too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {after:?}")]
pub(crate) struct NoAnswer {
    pub(crate) after: Duration,
}

/// Reads the store within again where that may help.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    inner: S,
    policy: Policy,
    hedges: Option<Hedges>,
    random: Arc<dyn Random>,
    metrics: Metrics,
}

impl<S: ObjectStore> Patient<S> {
    pub(crate) fn new(inner: S, policy: Policy, random: Arc<dyn Random>, metrics: Metrics) -> Self {
        let hedges = policy.hedging.clone().map(Hedges::new);
        Self { inner, policy, hedges, random, metrics }
    }

    /// Makes an attempt, and a second one beside it where it takes longer than nearly all of its size. The answer that comes first counts;
    /// returning drops the other read. One that fails in passing is no answer while the other may still be one.
    async fn attempt(
        &self,
        location: &Path,
        options: GetOptions,
        whole: Option<u64>,
    ) -> object_store::Result<GetResult> {
        let Some(hedges) = self.hedges.as_ref().zip(whole).and_then(|(hedges, bytes)| hedges.of_size(bytes)) else {
            return self.ask(location, options, whole).await;
        };
        let mut first = pin!(hedges.timed(self.ask(location, options.clone(), whole)));
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = sleep(hedges.delay()) => {}
        }
        if !hedges.spend() {
            self.metrics.read_hedge_refusals.inc();
            return first.await;
        }
        self.metrics.read_hedges.inc();
        let mut second = pin!(hedges.timed(self.ask(location, options, whole)));
        let is_answer = |answer: &object_store::Result<GetResult>| {
            answer.as_ref().err().is_none_or(|error| !Fault::of(error).is_passing())
        };
        tokio::select! {
            biased;
            answer = &mut first => if is_answer(&answer) { return answer },
            answer = &mut second => {
                if is_answer(&answer) {
                    self.metrics.read_hedges_won.inc();
                    return answer;
                }
                return first.await;
            }
        }
        let answer = second.await;
        if is_answer(&answer) {
            self.metrics.read_hedges_won.inc();
        }
        answer
    }

    /// Makes one request, and reads its body where that is bounded.
    async fn ask(&self, location: &Path, options: GetOptions, whole: Option<u64>) -> object_store::Result<GetResult> {
        let mut result = self.inner.get_opts(location, options).await?;
        if whole.is_some()
            && let GetResultPayload::Stream(mut body) = result.payload
        {
            let mut chunks = Vec::new();
            while let Some(chunk) = body.next().await {
                chunks.push(Ok(chunk?));
            }
            result.payload = GetResultPayload::Stream(futures::stream::iter(chunks).boxed());
        }
        Ok(result)
    }
}

/// Returns how many bytes a read asks for, where that is known beforehand and little enough to be held.
fn whole_bytes(options: &GetOptions) -> Option<u64> {
    let bytes = match &options.range {
        _ if options.head => 0,
        Some(GetRange::Bounded(range)) => range.end.saturating_sub(range.start),
        Some(GetRange::Suffix(bytes)) => *bytes,
        Some(GetRange::Offset(_)) | None => return None,
    };
    (bytes <= WHOLE_BYTES_MAX).then_some(bytes)
}

impl<S: fmt::Display> fmt::Display for Patient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Patient<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let whole = whole_bytes(&options);
        let transfer = Duration::from_secs_f64(whole.unwrap_or(0) as f64 / self.policy.bytes_per_second_min as f64);
        let deadline = Instant::now() + self.policy.timeout + transfer;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let began = Instant::now();
            let until = deadline.min(began + self.policy.attempt_timeout + transfer);
            let result = timeout_at(until, self.attempt(location, options.clone(), whole)).await.unwrap_or_else(|_| {
                let source = NoAnswer { after: began.elapsed() };
                Err(object_store::Error::Generic { store: "read", source: source.into() })
            });
            let pause = BACKOFF * 2u32.pow(attempts - 1);
            let pause = pause.mul_f64(0.5 + self.random.next_unit() / 2.0);
            match result {
                Err(error)
                    if Fault::of(&error).is_passing()
                        && attempts < self.policy.attempts_max
                        && Instant::now() + pause < deadline =>
                {
                    tracing::debug!(key = %location, attempt = attempts, %error, "attempt to read failed");
                    self.metrics.read_retries.inc();
                    sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
