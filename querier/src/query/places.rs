//! How many questions of one tenant are answered at once, so that one that asks much leaves room for the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterglow_service::Failure;
use afterglow_store::paths::TenantId;

/// Who is refused comes back after one to three seconds, not all at once.
const DELAY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

/// The questions under way by tenant; a tenant without any is not in it, so that there are no more than questions.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// 0 for no bound.
    max: usize,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

/// A question under way; its place is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    tenant: TenantId,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

// === impl Places ===

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// Takes a place of the tenant; nothing where there is no bound.
    pub(super) fn take(&self, tenant: &TenantId) -> Result<Option<Place>, Failure> {
        if self.max == 0 {
            return Ok(None);
        }
        let mut taken = lock(&self.taken);
        let count = taken.get(tenant).copied().unwrap_or_default();
        if count >= self.max {
            let message = format!("tenant {tenant} asks {count} questions already (--tenant.max-queries)");
            return Err(Failure::exhausted(message, rand::random_range(DELAY)));
        }
        taken.insert(tenant.clone(), count + 1);
        Ok(Some(Place { tenant: tenant.clone(), taken: Arc::clone(&self.taken) }))
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = lock(&self.taken).entry(self.tenant.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Each change is one step, so a panic elsewhere leaves the counts right.
fn lock(taken: &Mutex<HashMap<TenantId, usize>>) -> MutexGuard<'_, HashMap<TenantId, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_places_and_nothing_is_left_of_them() {
        let places = Places::new(2);
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|name| name.parse().expect("a tenant"));
        let first = places.take(&a).expect("a place");
        let second = places.take(&a).expect("a place");
        let failure = places.take(&a).expect_err("both are taken");
        assert_eq!(failure.message(), "tenant a asks 2 questions already (--tenant.max-queries)");
        assert!(failure.retry_after().is_some());
        let other = places.take(&b).expect("its own");
        drop(first);
        let third = places.take(&a).expect("one is free again");
        drop((second, third, other));
        assert!(lock(&places.taken).is_empty());
        assert!(Places::new(0).take(&a).expect("no bound").is_none());
    }
}
