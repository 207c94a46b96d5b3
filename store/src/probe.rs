//! Finds out at start whether a store keeps the promises that everything here rests on.
//!
//! The one that small clones of S3 break in silence is the conditional write: they accept `If-None-Match: *` and overwrite. So the
//! probe creates one object twice under a key of its own; the second must fail. It also reads the object back, which finds
//! missing permissions and a wrong region before the first profile does, compares the clocks, and removes it. Costs two PUTs, a GET and a DELETE.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::{sleep, timeout};

use crate::clock::Skew;
use crate::error::Error;
use crate::fault::Fault;
use crate::patient::NoAnswer;
use crate::{Store, paths};

/// What the probe writes.
const CONTENT: &[u8] = b"afterglow was here: a start-up probe of conditional writes, safe to delete\n";
/// How long one request of the probe may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a probe begins anew, under another key, after a failure that may pass.
const TRIES_MAX: u32 = 3;
/// The pause before it does.
const PAUSE: Duration = Duration::from_millis(250);
/// From this difference between the clocks of machine and store on, the operator is told.
const SKEW_MILLIS_WARNED: u64 = 10_000;

const CREATE: &str = "create an object";
const CREATE_TWICE: &str = "create the object a second time";
const READ: &str = "read the object back";
const LIST: &str = "list objects";

/// What the probe found out besides that all is well.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// How far the machine's clock is ahead of the store's, in milliseconds; precise to a second.
    pub clock_ahead_millis: i64,
}

impl Store {
    /// Checks that objects can be created, read and deleted, and that of two creations the second fails.
    ///
    /// # Errors
    /// [`Error::ConditionalWrites`] where both succeed; [`Error::Clock`] where the clocks are too far apart; [`Error::Probe`] where a request fails, at last after three tries
    /// if it might pass.
    pub async fn probe(&self) -> Result<Probe, Error> {
        let mut tries = 1;
        loop {
            match self.probe_once().await {
                Err(error) if error.is_passing() && tries < TRIES_MAX => {
                    tracing::warn!(
                        storage = self.name(),
                        error = &error as &dyn std::error::Error,
                        "probe failed, trying again"
                    );
                    sleep(PAUSE * tries).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// Checks that objects can be listed, which is what a program that only reads needs. Costs one LIST.
    ///
    /// # Errors
    /// [`Error::Probe`] where the request fails.
    pub async fn probe_read(&self) -> Result<(), Error> {
        let objects = self.objects();
        self.in_time(LIST, objects.list_with_delimiter(None)).await.map(|_| ())
    }

    /// Checks what [`Store::probe`] does, in one try.
    ///
    /// # Errors
    /// As [`Store::probe`].
    pub async fn probe_once(&self) -> Result<Probe, Error> {
        let objects = self.objects();
        let path = paths::probe(self.clock().unix_millis(), self.random().next_u64());
        self.in_time(CREATE, create(&*objects, &path)).await?;
        let verdict = self.check(&*objects, &path).await;
        if let Err(error) = self.in_time("delete the object", objects.delete(&path)).await {
            // Not needed to take profiles in; whoever deletes by retention will hear of it again.
            tracing::warn!(storage = self.name(), key = %path, error = &error as &dyn std::error::Error, "probe object stays");
        }
        verdict
    }

    async fn check(&self, objects: &dyn ObjectStore, path: &Path) -> Result<Probe, Error> {
        match self.in_time(CREATE_TWICE, create(objects, path)).await {
            Ok(_) => return Err(Error::ConditionalWrites { url: self.name().to_owned() }),
            Err(Error::Probe { source: object_store::Error::AlreadyExists { .. }, .. }) => {}
            Err(error) => return Err(error),
        }
        let now = self.clock().unix_millis();
        let read = async {
            let found = objects.get(path).await?;
            let modified = found.meta.last_modified.timestamp_millis();
            Ok((found.bytes().await?, modified))
        };
        let (content, modified) = self.in_time(READ, read).await?;
        if content != CONTENT {
            let source =
                object_store::Error::Generic { store: "probe", source: "the content is not what was written".into() };
            return Err(self.failed(READ, source));
        }
        if let Some(skew) = Skew::of(now, u64::try_from(modified).unwrap_or(0)) {
            return Err(Error::Clock { url: self.name().to_owned(), skew });
        }
        let clock_ahead_millis = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(modified);
        if clock_ahead_millis.unsigned_abs() > SKEW_MILLIS_WARNED {
            tracing::warn!(
                storage = self.name(),
                clock_ahead_millis,
                "the clocks of this machine and of the store differ"
            );
        }
        Ok(Probe { clock_ahead_millis })
    }

    async fn in_time<T>(
        &self,
        step: &'static str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let result = timeout(REQUEST_TIMEOUT, request).await.unwrap_or_else(|_| {
            let source = NoAnswer { after: REQUEST_TIMEOUT };
            Err(object_store::Error::Generic { store: "probe", source: source.into() })
        });
        result.map_err(|source| self.failed(step, source))
    }

    fn failed(&self, step: &'static str, source: object_store::Error) -> Error {
        let advice = match Fault::of(&source) {
            Fault::NotFound => "create the bucket or correct its name (`afterglow bucket init` creates it)",
            Fault::Denied => "check the credentials and that they may list, read, write and delete under the prefix",
            Fault::Unreachable => "check the endpoint and the network",
            Fault::Refused => "check that the store knows conditional writes, and the region and endpoint",
            Fault::Conflict | Fault::Throttled | Fault::Ambiguous => "check that the store is up",
        };
        Error::Probe { url: self.name().to_owned(), step, advice, source }
    }
}

async fn create(objects: &dyn ObjectStore, path: &Path) -> object_store::Result<()> {
    let payload = PutPayload::from_bytes(Bytes::from_static(CONTENT));
    objects.put_opts(path, payload, PutOptions::from(PutMode::Create)).await.map(|_| ())
}

#[cfg(test)]
mod tests;
