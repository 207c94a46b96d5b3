//! What a thread of the pool does with one profile: inflate, decode, decide its type and time, add it to a segment.

use std::time::Duration;

use afterglow_profile::{Limits, Profile, ProfileType, compress, decode};
use afterglow_service::{Failure, time};
use afterglow_store::block::ProfileMeta;
use afterglow_store::paths::TenantId;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Checked, Options, profile_failure};
use crate::budget::Permit;
use crate::commit::{self, Ready};
use crate::recent::Claim;

/// What a profile takes while it is worked on, in multiples of its inflated bytes: the bytes themselves, the decoded
/// arrays, which are about twice as large (four bytes for a location that took one or two), and the columns they
/// become.
const WORK_RATIO: u64 = 4;

/// Which times of profiles are believed, as distances from the time of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeWindow {
    /// How old a profile may be; `None` for any age.
    pub(crate) past: Option<Duration>,
    /// How far in the future it may lie, for clocks that are wrong.
    pub(crate) future: Duration,
}

/// A profile on its way through the pool.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) tenant: TenantId,
    pub(super) claim: Claim,
    pub(super) checked: Checked,
    pub(super) time_nanos: Option<i64>,
    pub(super) duration_nanos: Option<i64>,
    pub(super) body: Bytes,
    pub(super) permit: Permit,
}

/// When a profile began and how long it took, and what looks wrong with that.
#[derive(Debug, PartialEq, Eq)]
struct When {
    time_nanos: i64,
    duration_nanos: i64,
    warnings: Vec<String>,
}

// === impl Work ===

impl Work {
    /// Does it, `now_nanos` being the time of arrival; returns what looks wrong with the profile. Its claim is resolved
    /// here when it is refused, otherwise later, by its flush.
    ///
    /// # Errors
    /// The profile is refused: the same that its claim was told.
    pub(super) fn run(
        self,
        options: &Options,
        now_nanos: i64,
        commit: &commit::Handle,
    ) -> Result<Vec<String>, Failure> {
        let Self { tenant, claim, checked, time_nanos, duration_nanos, body, mut permit } = self;
        let refuse = |claim: Claim, failure: Failure| {
            claim.resolve(Err(failure.clone()));
            Err(failure)
        };
        let raw = match compress::inflate(&body, &options.limits) {
            Ok(raw) => raw,
            Err(error) => return refuse(claim, profile_failure(&error)),
        };
        let profile = match decode::decode(&raw, &options.limits) {
            Ok(profile) => profile,
            Err(error) => return refuse(claim, profile_failure(&error)),
        };
        let when = When::of(&profile, time_nanos, duration_nanos, now_nanos);
        let profile_type = checked.profile_type.unwrap_or_else(|| ProfileType::detect(&profile));
        let kept = options.retention.age_of(&checked.labels, &profile_type);
        if let Err(failure) = options.time_window.check(when.time_nanos, now_nanos, kept) {
            return refuse(claim, failure);
        }
        let meta = ProfileMeta {
            id: claim.id(),
            profile_type,
            labels: checked.labels,
            time_nanos: when.time_nanos,
            duration_nanos: when.duration_nanos,
        };
        let body_bytes = body.len() as u64;
        // What a segment keeps of a profile is less than its bytes were.
        permit.shrink_to(body_bytes.max(raw.len() as u64));
        commit.add(&tenant, Ready { meta, claim, permit, body_bytes }, &raw, &profile);
        Ok(when.warnings)
    }
}

/// Returns what a body takes of the budget while it is worked on. What gzip says of the inflated size is no more than a
/// hint: when it lies, the number of threads and the limit of inflating bound the damage.
pub(super) fn work_bytes(body: &[u8], limits: &Limits) -> u64 {
    let sent = body.len() as u64;
    let inflated = match body {
        // RFC 1952, 2.3.1: the last four bytes of a member are the inflated size modulo 2^32.
        [0x1f, 0x8b, .., a, b, c, d] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => sent,
    };
    sent.saturating_add(inflated.clamp(sent, limits.inflated_bytes_max.max(sent)).saturating_mul(WORK_RATIO))
}

/// Returns the SHA-256 of a body's protobuf bytes.
pub(super) fn digest(body: &[u8], limits: &Limits) -> Result<[u8; 32], Failure> {
    let raw = compress::inflate(body, limits).map_err(|error| profile_failure(&error))?;
    Ok(Sha256::digest(&raw).into())
}

// === impl When ===

impl When {
    fn of(profile: &Profile<'_>, sent_time: Option<i64>, sent_duration: Option<i64>, now_nanos: i64) -> Self {
        let mut warnings = Vec::new();
        let mut positive = |name: &str, value: i64| {
            if value < 0 {
                warnings.push(format!("{name} {value} is negative and was not used"));
            }
            (value > 0).then_some(value)
        };
        let own_time = positive("time_nanos", profile.time_nanos);
        let own_duration = positive("duration_nanos", profile.duration_nanos);
        let sent_time = sent_time.and_then(|value| positive("time", value));
        let sent_duration = sent_duration.and_then(|value| positive("duration", value));
        let time_nanos = own_time.or(sent_time).unwrap_or_else(|| {
            warnings.push("neither the profile nor its sender says a time: that of its arrival was taken".to_owned());
            now_nanos
        });
        Self { time_nanos, duration_nanos: own_duration.or(sent_duration).unwrap_or(0), warnings }
    }
}

// === impl TimeWindow ===

impl TimeWindow {
    /// Checks the time of a profile that arrives now and that retention keeps for so long: what it would delete at once is not
    /// acknowledged.
    fn check(&self, time_nanos: i64, now_nanos: i64, kept: Option<Duration>) -> Result<(), Failure> {
        let nanos = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
        let (past, setting) = match kept.filter(|kept| self.past.is_none_or(|past| *kept < past)) {
            Some(kept) => (Some(kept), "--retention.max-age, --retention.rule"),
            None => (self.past, "--limits.max-age"),
        };
        let first = past.map_or(i64::MIN, |past| now_nanos.saturating_sub(nanos(past)));
        let last = now_nanos.saturating_add(nanos(self.future));
        if (first..=last).contains(&time_nanos) {
            return Ok(());
        }
        Err(Failure::invalid(format!(
            "profile time {} is outside [{}, {}]; check the clock of the host ({setting}, --limits.max-future)",
            time::format(time_nanos),
            time::format(first),
            time::format(last)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_795_559_000 * SECOND;

    fn profile(time_nanos: i64, duration_nanos: i64) -> Profile<'static> {
        Profile { time_nanos, duration_nanos, ..Profile::default() }
    }

    /// Goal: the pprof's own time wins over the sender's, and that over the arrival; what is negative is said and not
    /// used.
    #[test]
    fn the_profile_knows_its_time_best() {
        let when = |p: Profile<'_>, time, duration| {
            let when = When::of(&p, time, duration, NOW);
            (when.time_nanos, when.duration_nanos, when.warnings)
        };
        assert_eq!(when(profile(7, 8), Some(1), Some(2)), (7, 8, vec![]));
        assert_eq!(when(profile(0, 0), Some(1), Some(2)), (1, 2, vec![]));
        let arrival = "neither the profile nor its sender says a time: that of its arrival was taken";
        assert_eq!(when(profile(0, 0), None, None), (NOW, 0, vec![arrival.to_owned()]));
        let negative = |name| format!("{name} is negative and was not used");
        assert_eq!(when(profile(7, -5), None, None), (7, 0, vec![negative("duration_nanos -5")]));
        assert_eq!(when(profile(-7, 8), Some(9), None), (9, 8, vec![negative("time_nanos -7")]));
        let all = vec![negative("time -1"), negative("duration -2"), arrival.to_owned()];
        assert_eq!(when(profile(0, 0), Some(-1), Some(-2)), (NOW, 0, all));
    }

    #[test]
    fn the_window_is_inclusive_and_said() {
        let day = Duration::from_secs(24 * 3600);
        let window = TimeWindow { past: Some(day), future: day };
        let day = 24 * 3600 * SECOND;
        for good in [NOW - day, NOW, NOW + day] {
            assert_eq!(window.check(good, NOW, None), Ok(()));
        }
        for bad in [i64::MIN, NOW - day - 1, NOW + day + 1, i64::MAX] {
            window.check(bad, NOW, None).expect_err("outside");
        }
        let failure = window.check(NOW - 2 * day, NOW, None).expect_err("outside");
        assert_eq!(
            failure.message(),
            "profile time 2026-11-22T22:23:20Z is outside [2026-11-23T22:23:20Z, 2026-11-25T22:23:20Z]; check the clock of the host (--limits.max-age, --limits.max-future)"
        );
        assert_eq!(TimeWindow { past: None, ..window }.check(1, NOW, None), Ok(()));
    }

    /// Goal: what retention would delete is refused, by the shorter of the two ages, and the setting that it is about is named.
    #[test]
    fn nothing_is_taken_that_retention_deletes() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        let day = 24 * 3600 * SECOND;
        let window = TimeWindow { past: Some(days(30)), future: days(1) };
        let for_ever = TimeWindow { past: None, ..window.clone() };
        for (window, kept, first, setting) in [
            (&window, Some(days(7)), 7, "(--retention.max-age, --retention.rule, "),
            (&window, Some(days(90)), 30, "(--limits.max-age, "),
            (&window, None, 30, "(--limits.max-age, "),
            (&for_ever, Some(days(7)), 7, "(--retention.max-age, --retention.rule, "),
        ] {
            assert_eq!(window.check(NOW - first * day, NOW, kept), Ok(()), "{kept:?}");
            let failure = window.check(NOW - first * day - 1, NOW, kept).expect_err("too old");
            assert!(failure.message().contains(setting), "{failure:?}");
        }
    }

    /// Goal: the hint of gzip is believed between the length of the body and the limit of inflating.
    #[test]
    fn work_is_paid_for_by_the_inflated_size() {
        let limits = Limits { inflated_bytes_max: 1_000, ..Limits::default() };
        let gzip = |size: u32| [&[0x1f, 0x8b, 8, 0, 0, 0][..], &size.to_le_bytes()].concat();
        assert_eq!(work_bytes(&[0x0a; 10], &limits), 10 + 10 * WORK_RATIO);
        assert_eq!(work_bytes(&gzip(500), &limits), 10 + 500 * WORK_RATIO);
        assert_eq!(work_bytes(&gzip(3), &limits), 10 + 10 * WORK_RATIO);
        assert_eq!(work_bytes(&gzip(u32::MAX), &limits), 10 + 1_000 * WORK_RATIO);
        assert_eq!(work_bytes(&[], &limits), 0);
    }
}
