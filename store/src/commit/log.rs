//! A register of numbered entries, each created once and by one: it knows nothing of what they say.
//!
//! An entry is created only where none is, by the store's own condition. The answer to that may be lost, or wrong (a 409 that wrote
//! nothing, a 412 that our own first attempt brought about), so every entry carries a nonce, and after anything but a plain success the
//! entry is read back: it is ours, or another's, or not there. An attempt that nobody waits for any more may land later, but only
//! with the same nonce and bytes, and only where nothing is. So there are three ends, and *unknown* is one of them.
//! The retries of `object_store` itself are off; those here share a deadline.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, PutOptions, PutPayload};
use tokio::time::{Instant, sleep, timeout_at};

#[cfg(any(test, feature = "testing"))]
use super::sealed::unseal;
use super::sealed::{Kind, fetch, seal};
use super::{Cause, Error};
use crate::Store;
use crate::block::varint::Damage;
use crate::clock::Random;
use crate::fault::Fault;
use crate::paths::TenantId;

/// How often an entry is tried to be created.
const ATTEMPTS_MAX: u32 = 5;
/// How long an attempt may take. No profile waits for it, so there is time for a store that is slow.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all attempts may take together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed attempt; doubled for each one before it, and shortened by chance to spread the callers.
const BACKOFF: Duration = Duration::from_millis(100);
const NONCE_BYTES: usize = 16;

/// What tells one maker's entry from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce(u128);

impl Nonce {
    pub(crate) fn draw(random: &dyn Random) -> Self {
        Self(u128::from(random.next_u64()) << 64 | u128::from(random.next_u64()))
    }
}

/// An entry as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) nonce: Nonce,
    pub(crate) payload: Bytes,
    /// When the store took it, in milliseconds since 1970 by its clock.
    pub(crate) at_millis: u64,
}

/// How an attempt to make an entry ended.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is there, and ours.
    Committed,
    /// Another's is there.
    Rejected,
    /// It may be there, now or later.
    Unknown(Cause),
    /// It is not there and will not be.
    Failed(Cause),
}

/// The entries of a tenant.
#[derive(Debug)]
pub(crate) struct Log {
    store: Store,
    tenant: TenantId,
}

impl Log {
    pub(crate) fn new(store: Store, tenant: TenantId) -> Self {
        Self { store, tenant }
    }

    /// Makes entry `number`, which must be the one after the last. Costs one PUT, and a GET for each attempt that did not succeed.
    pub(crate) async fn append(&self, number: u64, nonce: Nonce, payload: &[u8]) -> Appended {
        let key = self.tenant.commit(number);
        let mut body = nonce.0.to_le_bytes().to_vec();
        body.extend_from_slice(payload);
        let sealed = seal(Kind::Commit, &body);
        let deadline = Instant::now() + TIMEOUT;
        let mut may_have_written = false;
        for attempt in 1.. {
            let began = Instant::now();
            let until = deadline.min(began + ATTEMPT_TIMEOUT);
            let payload = PutPayload::from_bytes(sealed.clone());
            let objects = self.store.objects();
            let create = objects.put_opts(&key, payload, PutOptions::from(PutMode::Create));
            let (fault, cause) = match timeout_at(until, create).await {
                Ok(Ok(_)) => return Appended::Committed,
                Ok(Err(error)) => (Fault::of(&error), Cause::Store(error)),
                Err(_) => (Fault::Ambiguous, Cause::NoAnswer { after: began.elapsed() }),
            };
            tracing::debug!(%key, attempt, ?fault, error = ?cause, "attempt to make an entry failed");
            may_have_written |= fault.may_have_written();
            // The plainest question, and the only one whose answer says whose it is.
            match timeout_at(deadline, self.read(number)).await {
                Ok(Ok(Some(found))) if found.nonce == nonce => return Appended::Committed,
                Ok(Ok(Some(_))) => return Appended::Rejected,
                Ok(Ok(None)) => {}
                // A conflict that cannot be looked into may be with an attempt of our own.
                Ok(Err(_)) | Err(_) => may_have_written |= fault == Fault::Conflict,
            }
            let pause = BACKOFF * 2u32.pow(attempt - 1);
            let pause = pause.mul_f64(0.5 + self.store.random().next_unit() / 2.0);
            let may_help = fault.is_passing() || fault == Fault::Conflict;
            if !may_help || attempt == ATTEMPTS_MAX || Instant::now() + pause >= deadline {
                return if may_have_written { Appended::Unknown(cause) } else { Appended::Failed(cause) };
            }
            sleep(pause).await;
        }
        unreachable!("the last attempt returns")
    }

    /// Reads entry `number`; none where there is none. Costs one GET.
    pub(crate) async fn read(&self, number: u64) -> Result<Option<Entry>, Error> {
        let key = self.tenant.commit(number);
        let Some(found) = fetch(&*self.store.objects(), Kind::Commit, &key).await? else { return Ok(None) };
        let (nonce, payload) = split(&key, &found.body)?;
        Ok(Some(Entry { nonce, payload, at_millis: found.at_millis }))
    }
}

/// Returns what the object of an entry holds besides its nonce.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn payload_of(key: &Path, object: &Bytes) -> Result<Bytes, Error> {
    split(key, &unseal(Kind::Commit, key, object)?).map(|(_, payload)| payload)
}

fn split(key: &Path, body: &Bytes) -> Result<(Nonce, Bytes), Error> {
    let nonce = body.first_chunk::<NONCE_BYTES>();
    let nonce = nonce.ok_or_else(|| Error::damaged(key, Damage("ends too early")))?;
    Ok((Nonce(u128::from_le_bytes(*nonce)), body.slice(NONCE_BYTES..)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::StoreOptions;
    use crate::clock::SeededRandom;
    use crate::testing::faults::{Faulty, Operation, Trouble};

    use Trouble::{ApplyLater, ApplyThenRefuse, ApplyThenStall, LoseAnswer, None as Works, Refuse, Stall, Unreachable};

    const OURS: Nonce = Nonce(1);
    const OTHERS: Nonce = Nonce(2);

    fn log(faulty: &Faulty) -> Log {
        let options = StoreOptions { random: Arc::new(SeededRandom::new(1)), ..StoreOptions::default() };
        Log::new(Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options), TenantId::anonymous())
    }

    async fn payload(log: &Log) -> Option<Bytes> {
        log.read(1).await.expect("memory works").map(|entry| entry.payload)
    }

    /// What is told, what lies in the store, and how many creates and reads it took.
    async fn append(faulty: &Faulty) -> (&'static str, bool, usize, usize) {
        let log = log(faulty);
        let before = (faulty.count(Operation::Create), faulty.count(Operation::Get));
        let told = match log.append(1, OURS, b"ours").await {
            Appended::Committed => "committed",
            Appended::Rejected => "rejected",
            Appended::Unknown(_) => "unknown",
            Appended::Failed(_) => "failed",
        };
        let made = (faulty.count(Operation::Create) - before.0, faulty.count(Operation::Get) - before.1);
        let stored = faulty.inner().head(&TenantId::anonymous().commit(1)).await.is_ok();
        (told, stored, made.0, made.1)
    }

    /// Each way in which the answer to a create misleads, and what is told in the end.
    #[tokio::test(start_paused = true)]
    async fn every_outcome_is_told_exactly() {
        for (name, troubles, others, expected) in [
            ("a plain success", vec![], false, ("committed", true, 1, 0)),
            ("a plain loss", vec![], true, ("rejected", true, 1, 1)),
            ("no answer to a write that was done", vec![ApplyThenStall], false, ("committed", true, 1, 1)),
            ("a 500 to a write that was done", vec![ApplyThenRefuse(500)], false, ("committed", true, 1, 1)),
            ("a connection that breaks after it was done", vec![LoseAnswer], false, ("committed", true, 1, 1)),
            ("a 409 that wrote nothing", vec![Refuse(409)], false, ("committed", true, 2, 1)),
            ("a 412 to our own write", vec![ApplyThenRefuse(412)], false, ("committed", true, 1, 1)),
            ("a 412 to our own write, after a time-out", vec![ApplyThenStall], false, ("committed", true, 1, 1)),
            ("a 412 because of another's", vec![Refuse(412)], true, ("rejected", true, 1, 1)),
            ("a 500 beside another's", vec![Refuse(500)], true, ("rejected", true, 1, 1)),
            ("a 404: no bucket", vec![Refuse(404)], false, ("failed", false, 1, 1)),
            ("a 403", vec![Refuse(403)], false, ("failed", false, 1, 1)),
            ("503 once", vec![Refuse(503)], false, ("committed", true, 2, 1)),
            ("unreachable once", vec![Unreachable, Works], false, ("committed", true, 2, 1)),
            ("unreachable always", vec![Unreachable; 5], false, ("failed", false, 5, 5)),
            ("409 always, with nothing there", vec![Refuse(409); 5], false, ("failed", false, 5, 5)),
            ("500 always, with nothing there", vec![Refuse(500); 5], false, ("unknown", false, 5, 5)),
            ("never an answer, and nothing done", vec![Stall; 5], false, ("unknown", false, 5, 5)),
        ] {
            let faulty = Faulty::new(Arc::new(InMemory::new()));
            if others {
                assert!(matches!(log(&faulty).append(1, OTHERS, b"theirs").await, Appended::Committed));
            }
            faulty.script(Operation::Create, troubles);
            assert_eq!(append(&faulty).await, expected, "{name}");
            let ours = payload(&log(&faulty)).await.is_some_and(|payload| payload == "ours");
            assert_eq!(ours, expected.0 == "committed", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_looked_into_is_unknown() {
        for (trouble, expected) in
            [(ApplyThenRefuse(500), "unknown"), (ApplyThenRefuse(409), "unknown"), (Refuse(403), "failed")]
        {
            let faulty = Faulty::new(Arc::new(InMemory::new()));
            faulty.always(Operation::Create, trouble);
            faulty.always(Operation::Get, Refuse(500));
            assert_eq!(append(&faulty).await.0, expected, "{trouble:?}");
        }
    }

    /// Whoever was told "unknown" may find the entry there later, and it is whole.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_lands_late_is_ours_or_nothing() {
        for others in [false, true] {
            let faulty = Faulty::new(Arc::new(InMemory::new()));
            faulty.script(Operation::Create, vec![ApplyLater(Duration::from_secs(300)); 5]);
            assert_eq!(append(&faulty).await.0, "unknown");
            if others {
                assert!(matches!(log(&faulty).append(1, OTHERS, b"theirs").await, Appended::Committed));
            }
            sleep(Duration::from_secs(400)).await;
            let expected = if others { "theirs" } else { "ours" };
            assert_eq!(payload(&log(&faulty)).await.expect("it landed"), expected);
        }
    }
}
