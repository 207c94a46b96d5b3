//! How many questions of one tenant are answered at once, so that one that asks much leaves room for the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterglow_service::Failure;
use afterglow_service::throttle::{Bounds, Throttle};
use afterglow_store::paths::TenantId;

/// Who is refused comes back after one to three seconds, not all at once.
const DELAY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

/// The lines of the log about tenants that ask too much: metrics name none.
const LINES: Bounds = Bounds { interval: Duration::from_secs(10), lines: 1, subjects: 20 };

/// The setting, as refusals and the log name it.
const SETTING: &str = "--tenant.max-queries";

/// The questions under way by tenant; a tenant without any is not in it, so that there are no more than questions.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// 0 for no bound.
    max: usize,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
    lines: Arc<Throttle<TenantId>>,
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
        Self { max, taken: Arc::default(), lines: Arc::new(Throttle::new(LINES)) }
    }

    /// Takes a place of the tenant; nothing where there is no bound.
    ///
    /// # Errors
    /// [`Kind::Limited`](afterglow_service::Kind::Limited) with a delay. The log says so now and then.
    pub(super) fn take(&self, tenant: &TenantId) -> Result<Option<Place>, Failure> {
        if self.max == 0 {
            return Ok(None);
        }
        let mut taken = lock(&self.taken);
        let count = taken.get(tenant).copied().unwrap_or_default();
        if count >= self.max {
            drop(taken);
            if let Some(left_out) = self.lines.line_about(tenant.clone()) {
                tracing::warn!(
                    %tenant,
                    questions = count,
                    setting = SETTING,
                    left_out,
                    "a tenant asks more at once than it may, and is told to wait"
                );
            }
            let message = format!("tenant {tenant} asks {count} questions already ({SETTING})");
            return Err(Failure::limited(message, rand::random_range(DELAY)));
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
        assert_eq!(failure.kind(), afterglow_service::Kind::Limited);
        assert!(failure.retry_after().is_some());
        let other = places.take(&b).expect("its own");
        drop(first);
        let third = places.take(&a).expect("one is free again");
        drop((second, third, other));
        assert!(lock(&places.taken).is_empty());
        assert!(Places::new(0).take(&a).expect("no bound").is_none());
    }
}
