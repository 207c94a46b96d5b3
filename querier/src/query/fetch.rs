//! GetProfile: one profile, bit for bit as it was sent.

use std::sync::Arc;

use afterglow_proto::v1;
use afterglow_store::catalog::Freshness;
use afterglow_store::paths::TenantId;
use bytes::Bytes;
use ulid::Ulid;

use super::budget::UNCOUNTED_BYTES;
use super::error::Unread;
use super::metrics::Question;
use super::{Engine, Error, info, selection};

/// What a profile takes while it is read, as a multiple of its own bytes: these, and the parts of the block that it is made of.
const MEMORY_FACTOR: u64 = 2;

/// A profile that was found.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// What is known of it.
    pub(crate) info: v1::ProfileInfo,
    /// The protobuf as it was sent; none where the one who asked has it.
    pub(crate) pprof: Option<Bytes>,
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::GetProfileRequest,
    is_known: impl FnOnce(&str) -> bool,
) -> Result<Fetched, Error> {
    let id = Ulid::from_string(&request.id).map_err(|_| Error::Id { text: request.id })?;
    let freshness = selection::freshness(&request.read_token)?;
    let mut view = engine.view(tenant, freshness).await?;
    let mut found = view.get(id).await.map_err(|problem| Error::Unread { id, problem })?;
    if found.is_none() {
        // Whoever asks for an id has it from somewhere, often from an acknowledgement a moment ago: look again before saying no.
        view = engine.view(tenant, Freshness::Now).await?;
        found = view.get(id).await.map_err(|problem| Error::Unread { id, problem })?;
    }
    let Some(found) = found else {
        return Err(Error::NoProfile { id, unread: Unread::of(view.problems()) });
    };
    let info = info(&found);
    if is_known(&info.sha256) {
        return Ok(Fetched { info, pprof: None });
    }
    let estimate = found.row().raw_bytes.saturating_mul(MEMORY_FACTOR);
    let admitted = if estimate < UNCOUNTED_BYTES { None } else { Some(engine.admit_whole(estimate).await?) };
    let block = Arc::clone(found.block());
    let pprof = engine.drive(async move { found.block().fetch(found.row()).await }).await?.inspect_err(|error| {
        if error.is_corrupt() {
            engine.note_damage(&block);
        }
    })?;
    engine.0.metrics.read(Question::GetProfile, 1, pprof.len() as u64, 1);
    if let Some(admitted) = admitted {
        engine.keep(admitted);
    }
    Ok(Fetched { info, pprof: Some(pprof) })
}
