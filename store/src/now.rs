//! The time by the store's own clock, and how far the machine's is from it (docs/decisions/0009).

use object_store::{ObjectStoreExt, PutPayload};

use crate::compaction::Error;
use crate::{Store, paths};

/// What the clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// The time of the store, in milliseconds since 1970.
    pub(crate) millis: u64,
    /// How far the machine's clock is ahead of it at least, in milliseconds; negative where it is behind. The time that asking took does
    /// not count.
    pub(crate) ahead_millis: i64,
}

/// Asks the store what time it is: that of an object which it has just taken. Costs a PUT, a HEAD and a DELETE.
///
/// # Errors
/// Where the object could not be written, looked at or deleted.
pub(crate) async fn now(store: &Store) -> Result<Now, Error> {
    let objects = store.objects();
    let before = store.clock().unix_millis();
    let key = paths::probe(before, store.random().next_u64());
    let failed = |source: object_store::Error| Error::Write { key: key.clone(), source: source.into() };
    objects.put(&key, PutPayload::from_static(b"what time is it")).await.map_err(failed)?;
    let meta = objects.head(&key).await.map_err(failed)?;
    let after = store.clock().unix_millis();
    objects.delete(&key).await.map_err(failed)?;
    let millis = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    Ok(Now { millis, ahead_millis: ahead(before, millis, after) })
}

/// Returns how far the machine's clock is ahead, which said `before` and `after` while the store said `millis` in between.
fn ahead(before: u64, millis: u64, after: u64) -> i64 {
    let difference = |a: u64, b: u64| i64::try_from(a.saturating_sub(b)).unwrap_or(i64::MAX);
    if millis < before { difference(before, millis) } else { -difference(millis, after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asking_took_is_no_difference() {
        for (before, millis, after, expected) in [
            (10, 10, 10, 0),
            (10, 15, 20, 0),
            (10, 20, 20, 0),
            (10, 7, 12, 3),
            (10, 15, 12, -3),
            (u64::MAX, 0, 0, i64::MAX),
        ] {
            assert_eq!(ahead(before, millis, after), expected, "{before} {millis} {after}");
        }
    }
}
