//! How much each tenant may send to this ingester a second, in profiles and in bytes as sent.
//!
//! Each tenant runs up a debt of time: a profile costs the time in which the rate would have let it through, and time pays it off. Who owes
//! more than [`BURST`] is refused, and told when it no longer will. So a rate holds in the long run, agents that send in bunches are let
//! be, and a profile that alone is worth minutes passes and is paid for afterwards, where a bucket of a fixed size would never take it.
//!
//! The rates are those of one ingester: behind a load balancer a tenant gets as many times as much as there are. Who owes nothing is
//! forgotten, so that memory is bounded by the tenants that send just now, and those by [`TENANTS_MAX`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use afterglow_service::Failure;
use afterglow_service::config::ByteSize;
use afterglow_service::throttle::{Bounds, Throttle};
use afterglow_store::paths::TenantId;
use tokio::time::Instant;

/// How much a tenant may owe and still send: agents scrape every 15 seconds or so, most of them at once.
const BURST: Duration = Duration::from_secs(10);

/// How many tenants may owe something at once: some megabytes of names. Beyond, those that are new have to wait.
const TENANTS_MAX: usize = 10_000;

/// How long a new tenant waits then: by that time those that stopped owe nothing.
const TENANTS_DELAY: Duration = Duration::from_secs(10);

/// The least that a sender is asked to wait: less is not worth a round trip.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// The lines of the log about tenants that send too much: metrics name none.
const LINES: Bounds = Bounds { interval: Duration::from_secs(10), lines: 1, subjects: 20 };

/// The settings, as refusals and the log name them.
const PROFILES: &str = "--tenant.max-profiles-per-second";
const BYTES: &str = "--tenant.max-bytes-per-second";

/// The rates of a tenant; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Profiles a second.
    pub(crate) profiles: u32,
    /// Bytes a second, as sent.
    pub(crate) bytes: ByteSize,
}

/// What the tenants owe.
#[derive(Debug)]
pub(crate) struct Quota {
    rates: Rates,
    debts: Mutex<HashMap<TenantId, Debt>>,
    lines: Throttle<TenantId>,
}

/// When a tenant will have paid.
#[derive(Clone, Copy, Debug)]
struct Debt {
    profiles: Instant,
    bytes: Instant,
}

// === impl Quota ===

impl Quota {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, debts: Mutex::default(), lines: Throttle::new(LINES) }
    }

    /// Charges a profile of `bytes` to a tenant.
    ///
    /// # Errors
    /// [`Kind::Limited`](afterglow_service::Kind::Limited) with the time to wait, where the tenant owes too much; then nothing is
    /// charged. The log says so now and then. [`Kind::Exhausted`](afterglow_service::Kind::Exhausted) where too many tenants owe something.
    pub(crate) fn charge(&self, tenant: &TenantId, bytes: u64, now: Instant) -> Result<(), Failure> {
        if self.rates.profiles == 0 && self.rates.bytes == ByteSize(0) {
            return Ok(());
        }
        // Each entry is whole whenever the lock is free.
        let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.len() >= TENANTS_MAX && !debts.contains_key(tenant) {
            debts.retain(|_, debt| debt.profiles > now || debt.bytes > now);
            if debts.len() >= TENANTS_MAX {
                let message = format!("more than {TENANTS_MAX} tenants send at once");
                return Err(Failure::exhausted(message, TENANTS_DELAY));
            }
        }
        let debt = debts.get(tenant).copied().unwrap_or(Debt { profiles: now, bytes: now });
        let Rates { profiles, bytes: bytes_rate } = self.rates;
        within(debt.profiles, now)
            .map_err(|delay| self.refuse(tenant, &format!("{profiles} profiles a second"), PROFILES, delay))?;
        within(debt.bytes, now)
            .map_err(|delay| self.refuse(tenant, &format!("{bytes_rate} a second"), BYTES, delay))?;
        let debt = Debt {
            profiles: debt.profiles.max(now) + cost(1, profiles.into()),
            bytes: debt.bytes.max(now) + cost(bytes, bytes_rate.bytes()),
        };
        debts.insert(tenant.clone(), debt);
        Ok(())
    }

    fn refuse(&self, tenant: &TenantId, rate: &str, setting: &'static str, delay: Duration) -> Failure {
        if let Some(left_out) = self.lines.line_about(tenant.clone()) {
            tracing::warn!(%tenant, rate, setting, left_out, "a tenant sends more than it may, and is told to wait");
        }
        Failure::limited(format!("tenant {tenant} sends more to this ingester than {rate} ({setting})"), delay)
    }
}

/// Returns how long it takes until a debt that is paid at `paid` is no more than the burst, where it is.
fn within(paid: Instant, now: Instant) -> Result<(), Duration> {
    match paid.saturating_duration_since(now).checked_sub(BURST) {
        Some(over) if !over.is_zero() => Err(over.max(DELAY_MIN)),
        _ => Ok(()),
    }
}

/// Returns the time in which a rate lets `units` through; none without a rate.
fn cost(units: u64, rate: u64) -> Duration {
    if rate == 0 { Duration::ZERO } else { Duration::from_secs_f64(units as f64 / rate as f64) }
}

#[cfg(test)]
mod tests {
    use afterglow_service::Kind;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    fn quota(profiles: u32, bytes: u64) -> Quota {
        Quota::new(Rates { profiles, bytes: ByteSize(bytes) })
    }

    /// Goal: over a minute a tenant that never stops gets its rate and its burst, and whoever waits as told is let in.
    #[test]
    fn the_rate_holds_in_the_long_run() {
        let (quota, a, start) = (quota(5, 0), tenant("a"), Instant::now());
        let (mut taken, mut now, end) = (0, start, start + Duration::from_secs(60));
        while now < end {
            match quota.charge(&a, 1000, now) {
                Ok(()) => taken += 1,
                Err(failure) => {
                    assert_eq!(failure.kind(), Kind::Limited);
                    now += failure.retry_after().expect("a delay");
                }
            }
        }
        assert!((60 * 5..=70 * 5 + 2).contains(&taken), "{taken}");
    }

    /// Goal: one that is worth more than the burst passes and is paid for, to the second.
    #[test]
    fn a_large_profile_passes_and_is_paid_for() {
        let (quota, a, now) = (quota(0, 1 << 10), tenant("a"), Instant::now());
        quota.charge(&a, 60 << 10, now).expect("nothing is owed");
        let failure = quota.charge(&a, 1, now).expect_err("a minute is owed");
        assert_eq!(failure.retry_after(), Some(Duration::from_secs(50)));
        assert_eq!(
            failure.message(),
            "tenant a sends more to this ingester than 1 KiB a second (--tenant.max-bytes-per-second)"
        );
        quota.charge(&tenant("b"), 1, now).expect("another owes nothing");
        assert!(quota.charge(&a, 1, now + Duration::from_millis(49_500)).is_err());
        quota.charge(&a, 1, now + Duration::from_secs(50)).expect("it is paid");
    }

    #[test]
    fn without_rates_nothing_is_kept() {
        let quota = quota(0, 0);
        (0..1000).for_each(|_| quota.charge(&tenant("a"), u64::MAX, Instant::now()).expect("no limit"));
        assert!(quota.debts.lock().expect("not poisoned").is_empty());
    }

    /// Goal: memory is bounded whatever tenants are named, and those that paid make room.
    #[test]
    fn tenants_are_bounded() {
        let (quota, now) = (quota(1, 0), Instant::now());
        let refused =
            (0..TENANTS_MAX + 100).filter(|n| quota.charge(&tenant(&format!("t{n}")), 1, now).is_err()).count();
        assert_eq!((refused, quota.debts.lock().expect("not poisoned").len()), (100, TENANTS_MAX));
        quota.charge(&tenant("late"), 1, now + Duration::from_secs(2)).expect("all have paid");
        assert_eq!(quota.debts.lock().expect("not poisoned").len(), 1);
    }
}
