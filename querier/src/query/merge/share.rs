//! Shares: a merge that is heavy is cut into parts that follow each other, and siblings do all but the first.
//!
//! The one who answers decides what is read, down to the rows, so that each profile counts once whoever reads it. A share comes back as a
//! merged profile and is merged as one more, in the order of the shares, which gives what one querier alone gives. What a sibling does
//! not do (it died, has no room, is of another version, or would have to say more than a profile can) another does, and else the one who
//! answers, who also does what takes a sibling much longer than it took here ([`patience`]). A share is never shared again, for it is
//! asked for by a call of its own that only merges.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afterglow_profile::{Profile, decode, encode};
use afterglow_proto::v1;
use afterglow_proto::v1::sibling_service_client::SiblingServiceClient;
use afterglow_service::telemetry::Propagate;
use afterglow_store::block::SampleTypes;
use afterglow_store::paths::TenantId;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tracing::Instrument as _;

use super::super::budget::Admitted;
use super::super::{Engine, Error, Limits};
use super::gather::{self, Read};
use super::plan::{self, Part, Plan};
use crate::siblings::Sibling;

/// The largest share as a profile: what is larger is merged where it is needed.
pub(crate) const SHARE_BYTES_MAX: usize = 64 << 20;

/// The largest request for one: a row takes a byte or two, and a merge has a million of them. Its parts are decoded one by one, and each byte
/// may take four then.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;

/// How much memory a share takes for each byte until it is merged: as it came, and decoded.
const BYTES_PER_SHARE_BYTE: u64 = 4;

/// How many blocks are opened at once for a share.
const OPENS_MAX: usize = 16;

/// How many siblings are asked for a share before it is done here.
const ATTEMPTS_MAX: usize = 2;

/// The part of the time of an answer that a sibling may take for a share at least, however fast this one was.
const PATIENCE_PART: u32 = 3;

/// How many times as long as this one a sibling may take for a share of the same weight.
const SLOWER_MAX: u32 = 3;

/// How many times as long as the first share one more is reckoned to take here.
const REDO_FACTOR: u32 = 2;

/// A share that a sibling does.
pub(super) struct Share {
    pub(super) parts: Vec<Part>,
    siblings: Arc<[Sibling]>,
    /// Which of them is asked.
    asked: Arc<AtomicUsize>,
    call: AbortOnDropHandle<Option<Done>>,
}

/// A share that is done.
#[derive(Debug)]
pub(super) struct Done {
    profile: Bytes,
    /// The sample type that it was made of, where that is one.
    pub(super) sample_type: Option<usize>,
    _admitted: Admitted,
}

/// Cuts a plan into shares, and asks siblings for all but the first, which comes first.
pub(super) async fn share_out(
    engine: &Engine,
    tenant: &TenantId,
    plan: &Plan,
    types: SampleTypes,
) -> (Vec<Part>, Vec<Share>) {
    let limits = &engine.0.limits;
    let siblings = if plan.work > limits.share_above_bytes { engine.0.siblings.up().await } else { Vec::new() };
    let weights: Vec<u64> = plan.parts.iter().map(|part| part.work).collect();
    let mut shares = cut(&weights, siblings.len() + 1).into_iter().map(|range| plan.parts[range].to_vec());
    let here = shares.next().unwrap_or_default();
    let ask = |(number, parts): (usize, Vec<Part>)| {
        let estimate = plan.estimate / (siblings.len() as u64 + 1);
        let request = request(&parts, types, estimate);
        let siblings: Arc<[Sibling]> = (0..siblings.len().min(ATTEMPTS_MAX))
            .map(|attempt| siblings[(number + attempt) % siblings.len()].clone())
            .collect();
        let asked = Arc::<AtomicUsize>::default();
        let call = ask(engine.clone(), tenant.clone(), Arc::clone(&siblings), Arc::clone(&asked), (request, types));
        Share { parts, siblings, asked, call: AbortOnDropHandle::new(tokio::spawn(call.in_current_span())) }
    };
    let shares = shares.enumerate().map(ask).collect();
    (here, shares)
}

/// Cuts what has these weights into at most so many runs that follow each other, of about the same weight; none is empty.
fn cut(weights: &[u64], shares: usize) -> Vec<Range<usize>> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let (mut cut, mut start, mut before) = (Vec::new(), 0, 0u128);
    for (place, &weight) in weights.iter().enumerate() {
        // Which share the middle of it lies in.
        let share = (2 * before + u128::from(weight)) * shares as u128 / (2 * total.max(1));
        if place > start && share as usize > cut.len() && cut.len() + 1 < shares {
            cut.push(start..place);
            start = place;
        }
        before += u128::from(weight);
    }
    if start < weights.len() {
        cut.push(start..weights.len());
    }
    cut
}

fn request(parts: &[Part], types: SampleTypes, estimate_bytes: u64) -> v1::MergeShareRequest {
    let mut encoded = Vec::new();
    for part in parts {
        let mut last = 0;
        let steps = part.rows.iter().map(|&row| {
            let step = row - std::mem::replace(&mut last, row);
            u32::try_from(step).expect("a block has fewer rows than 2^32")
        });
        let part = v1::SharePart {
            path: part.block.path().to_string(),
            bytes: part.block.size(),
            dataset: u32::try_from(part.dataset).expect("a block has fewer datasets than 2^32"),
            row_steps: steps.collect(),
        };
        part.encode_length_delimited(&mut encoded).expect("a vector grows");
    }
    let (types, sample_type) = match types {
        SampleTypes::All => (v1::ShareTypes::Unspecified, 0),
        SampleTypes::One(index) => (v1::ShareTypes::One, index as u32),
        SampleTypes::Default => (v1::ShareTypes::Default, 0),
    };
    v1::MergeShareRequest { parts: encoded.into(), types: types.into(), sample_type, estimate_bytes }
}

/// Returns how long a sibling is waited for that does a share, where so many shares have no answer yet, this one among them.
///
/// The first share, of about the same weight, took `here`. A sibling that takes a few times as long is too slow: the share is sooner done
/// here, while others go on. It is given up before there is no time left to do here all that have no answer, or where that is too much,
/// this one; and where there is no time for that either, it is waited for to the end.
pub(super) fn patience(
    limits: &Limits,
    (asked_at, now, until): (Instant, Instant, Instant),
    here: Duration,
    undone: usize,
) -> Instant {
    let slow = asked_at + (limits.timeout / PATIENCE_PART).max(here * SLOWER_MAX);
    let redo = here.saturating_mul(REDO_FACTOR);
    let last = |shares: usize| {
        let last = until.checked_sub(redo.saturating_mul(u32::try_from(shares).unwrap_or(u32::MAX)))?;
        (last > now).then_some(last)
    };
    last(undone).or_else(|| last(1)).map_or(until, |last| slow.min(last))
}

/// Asks siblings for a share, one after the other, and notes which in `asked`; none where nobody does it.
async fn ask(
    engine: Engine,
    tenant: TenantId,
    siblings: Arc<[Sibling]>,
    asked: Arc<AtomicUsize>,
    (request, types): (v1::MergeShareRequest, SampleTypes),
) -> Option<Done> {
    for (number, sibling) in siblings.iter().enumerate() {
        asked.store(number, Ordering::Relaxed);
        let mut call = tonic::Request::new(request.clone());
        engine.0.siblings.present(&tenant, call.metadata_mut());
        let mut client = SiblingServiceClient::with_interceptor(sibling.channel(), Propagate)
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(SHARE_BYTES_MAX);
        let span = tracing::info_span!("ask", otel.kind = "client", sibling = sibling.address());
        match client.merge_share(call).instrument(span).await {
            Ok(answer) => {
                let v1::MergeShareResponse { profile, sample_type, declined } = answer.into_inner();
                if !declined.is_empty() {
                    tracing::debug!(sibling = sibling.address(), declined, "a share is done here");
                    break;
                }
                // Without room for it, it is done here piece by piece.
                let Ok(admitted) = engine.0.budget.try_admit(profile.len() as u64 * BYTES_PER_SHARE_BYTE) else {
                    break;
                };
                let sample_type = sample_type.map(|index| index as usize);
                let done = Done { profile, sample_type, _admitted: admitted };
                let check = move || (done.check(types), done);
                // Where that does not end, nobody waits for it.
                let (checked, done) = engine.compute(check).await.ok()?;
                let Err(reason) = checked else {
                    engine.0.metrics.shares_done.inc();
                    return Some(done);
                };
                sibling.leave_alone();
                tracing::warn!(sibling = sibling.address(), reason, "a sibling answered what is no share");
            }
            Err(status) => {
                // One that is busy, or has met damaged data, is there all the same.
                if !matches!(status.code(), Code::ResourceExhausted | Code::DataLoss) {
                    sibling.leave_alone();
                }
                tracing::info!(
                    sibling = sibling.address(),
                    code = ?status.code(),
                    reason = status.message(),
                    "a sibling did not do its share"
                );
            }
        }
    }
    None
}

// === impl Share, Done ===

impl Share {
    /// Says whether there is an answer, be it that nobody does it.
    pub(super) fn is_answered(&self) -> bool {
        self.call.is_finished()
    }

    /// Waits for the sibling until then; none where the parts are to be read here. One that is given up is left alone for a while.
    pub(super) async fn done(&mut self, engine: &Engine, until: Instant) -> Option<Done> {
        let done = match tokio::time::timeout_at(until, &mut self.call).await {
            // A task that panicked did nothing.
            Ok(done) => done.ok().flatten(),
            Err(_elapsed) => {
                // A call that is dropped ends there, too.
                self.call.abort();
                let slow = &self.siblings[self.asked.load(Ordering::Relaxed)];
                slow.leave_alone();
                tracing::info!(sibling = slow.address(), "a sibling takes too long for its share");
                None
            }
        };
        if done.is_none() {
            engine.0.metrics.shares_returned.inc();
        }
        done
    }
}

impl Done {
    /// Checks that it is what was asked for: a profile, of the one sample type where that is one, and of all where not. Whoever asks for all
    /// again and again must not be told of one each time.
    fn check(&self, asked: SampleTypes) -> Result<(), String> {
        let profile = self.decode().map_err(|error| error.to_string())?;
        let is_asked = match (asked, self.sample_type) {
            (SampleTypes::All, None) => true,
            (SampleTypes::One(asked), Some(shown)) => shown == asked && profile.sample_types.len() == 1,
            (SampleTypes::Default, Some(_)) => profile.sample_types.len() == 1,
            (SampleTypes::All, Some(_)) | (SampleTypes::One(_) | SampleTypes::Default, None) => false,
        };
        if is_asked { Ok(()) } else { Err("it is of other sample types than were asked for".to_owned()) }
    }

    fn decode(&self) -> Result<Profile<'_>, afterglow_profile::Error> {
        decode::decode(&self.profile, &afterglow_profile::Limits::default())
    }

    /// Hands the share to `add` as a profile.
    ///
    /// # Errors
    /// Those of `add`.
    pub(super) fn with<T>(&self, add: impl FnOnce(&Profile<'_>) -> Result<T, Error>) -> Result<T, Error> {
        add(&self.decode().expect("it was decoded when it came"))
    }
}

/// Does a share for a sibling.
pub(in super::super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::MergeShareRequest,
) -> Result<v1::MergeShareResponse, Error> {
    let types = match v1::ShareTypes::try_from(request.types) {
        Ok(v1::ShareTypes::Unspecified) => SampleTypes::All,
        Ok(v1::ShareTypes::One) => SampleTypes::One(request.sample_type as usize),
        Ok(v1::ShareTypes::Default) => SampleTypes::Default,
        Err(_) => return Ok(declined("other versions have other sample types")),
    };
    let (mut parts, mut datasets) = (Vec::new(), HashSet::new());
    let mut opened =
        stream::iter(read(request.parts).map(|part| open(engine, tenant, part, types))).buffered(OPENS_MAX);
    while let Some(part) = opened.next().await {
        match part {
            // A key can be spelled in several ways, and a block has one.
            Ok(part) if datasets.insert((part.block.path().clone(), part.dataset)) => parts.push(part),
            Ok(_) => return Ok(declined("a dataset stands in it twice")),
            Err(reason) => return Ok(declined(reason)),
        }
    }
    drop(opened);
    if parts.is_empty() {
        return Ok(declined("nothing is asked for"));
    }
    // What whoever asks thinks is not all that counts: anybody who may read may ask. A sibling that waits here holds memory of its own,
    // for which a share of ours may wait there.
    let reading = plan::reading(parts.iter().map(|part| part.estimate), engine.0.limits.merge_reads);
    let estimate = request.estimate_bytes.max(reading);
    let admitted = engine.0.budget.try_admit(estimate)?;
    let mut problems = Vec::new();
    let read = gather::merge(engine, (parts, Vec::new()), types, admitted, 0, &mut problems).await?;
    let (merged, types) = match read {
        Read::Merged { worked, types, .. } if problems.is_empty() => {
            engine.keep(worked.2);
            (worked.0, types)
        }
        Read::Merged { .. } | Read::Nothing => return Ok(declined("not everything could be read")),
        Read::Apart(_) => return Ok(declined("the profiles show different sample types")),
    };
    if !merged.warnings().is_empty() {
        return Ok(declined("a profile has no place for what is to be said of it"));
    }
    let encoded = move || {
        let bytes = encode::encode(&merged.profile());
        let is_taken =
            bytes.len() <= SHARE_BYTES_MAX && decode::decode(&bytes, &afterglow_profile::Limits::default()).is_ok();
        is_taken.then_some(bytes)
    };
    let Some(profile) = engine.compute(encoded).await? else {
        return Ok(declined("it is larger than a profile may be"));
    };
    let sample_type = match types {
        SampleTypes::One(index) => Some(index as u32),
        SampleTypes::All | SampleTypes::Default => None,
    };
    Ok(v1::MergeShareResponse { profile: profile.into(), sample_type, declined: String::new() })
}

fn declined(reason: &str) -> v1::MergeShareResponse {
    v1::MergeShareResponse { declined: reason.to_owned(), ..Default::default() }
}

/// Reads the parts of a request, one when the next is asked for; what cannot be read is the last.
fn read(mut left: Bytes) -> impl Iterator<Item = Option<v1::SharePart>> {
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let part = v1::SharePart::decode_length_delimited(&mut left).ok();
        if part.is_none() {
            left.clear();
        }
        Some(part)
    })
}

/// Opens the block of a part, if it is one of the tenant's and has such rows, with such sample types. Says why not.
async fn open(
    engine: &Engine,
    tenant: &TenantId,
    part: Option<v1::SharePart>,
    types: SampleTypes,
) -> Result<Part, &'static str> {
    const NO_ROWS: &str = "a block has no such rows";
    let v1::SharePart { path, bytes, dataset, row_steps } = part.ok_or("its parts cannot be read")?;
    let open = engine.0.catalog.block(tenant, &path, bytes).await.ok_or("a block cannot be opened")?;
    // Each row once, in their order; so there are no more than the block has.
    let is_each_once = row_steps.iter().skip(1).all(|&step| step > 0) && row_steps.len() <= open.rows().len();
    if row_steps.is_empty() || !is_each_once {
        return Err(NO_ROWS);
    }
    let mut row = 0usize;
    let rows: Arc<[usize]> = row_steps
        .into_iter()
        .map(|step| {
            row = row.saturating_add(step as usize);
            row
        })
        .collect();
    if !rows.iter().all(|&row| open.rows().get(row).is_some_and(|of| of.dataset == dataset)) {
        return Err(NO_ROWS);
    }
    // Where it is read, the block would be taken for damaged.
    if let SampleTypes::One(index) = types
        && rows.iter().any(|&row| open.rows()[row].totals.len() <= index)
    {
        return Err("a profile has no such sample type");
    }
    Ok(Part::of_rows(Arc::clone(open.block()), dataset as usize, rows, open.rows()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one share is what is cut")]
    fn shares_are_about_as_heavy_as_each_other() {
        assert_eq!(cut(&[1; 9], 3), [0..3, 3..6, 6..9]);
        assert_eq!(cut(&[8, 1, 1, 1, 1], 2), [0..1, 1..5]);
        assert_eq!(cut(&[1, 1, 1, 8], 3), [0..3, 3..4], "nothing is left for a third");
        assert_eq!(cut(&[5], 3), [0..1]);
        assert_eq!(cut(&[], 3), [0..0; 0]);
        assert_eq!(cut(&[0, 0], 1), [0..2]);
    }

    /// Goal: no sibling is given up where that fails a merge that it would have saved, and none is waited for until it is too late.
    #[test]
    fn a_sibling_is_waited_for_as_long_as_its_share_can_still_be_done_here() {
        let seconds = Duration::from_secs;
        let limits = Limits {
            timeout: seconds(30),
            memory_bytes: 0,
            merge_profiles_max: 0,
            merge_reads: 1,
            share_above_bytes: 0,
            tenant_queries_max: 0,
        };
        let began = Instant::now();
        let patience = |waited: u64, here, undone| {
            let now = began + seconds(here);
            patience(&limits, (began, now, began + seconds(30 - waited)), seconds(here), undone) - began
        };
        assert_eq!(patience(0, 1, 1), seconds(10), "a third of the time, where this one was fast");
        assert_eq!(patience(0, 4, 1), seconds(12), "else some times as long as it took here");
        assert_eq!(patience(0, 4, 3), seconds(6), "but three shares take a while here");
        assert_eq!(patience(0, 4, 2), seconds(12), "and when one is done, there is more time for the next");
        assert_eq!(patience(20, 1, 1), seconds(8), "the question waited before its merge began");
        assert_eq!(patience(0, 4, 7), seconds(12), "not all could be done here, but this one can");
        assert_eq!(patience(0, 12, 1), seconds(30), "nothing else can be done");
        assert_eq!(patience(0, 40, 64), seconds(30));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the weights are, each thing is in one share, in its order, and no share is empty.
        #[test]
        fn nothing_is_lost_between_shares(weights in prop::collection::vec(0..1_000u64, 0..40), shares in 1..9usize) {
            let cut = cut(&weights, shares);
            prop_assert!(cut.len() <= shares && cut.iter().all(|range| !range.is_empty()));
            prop_assert_eq!(cut.into_iter().flatten().collect::<Vec<_>>(), (0..weights.len()).collect::<Vec<_>>());
        }
    }
}
