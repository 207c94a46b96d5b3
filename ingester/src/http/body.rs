//! Reads the body of a request that holds a profile: every byte is paid for before it is kept, and nobody waits for ever.

use afterglow_service::Failure;
use afterglow_service::http::body_failure;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::budget::Permit;
use crate::ingest::{Ingest, STALL_MAX, stalled};

/// What is paid for at once where nobody announced a length: enough for most profiles.
const STEP_BYTES: u64 = 256 << 10;

/// Reads the body whole and returns it with what pays for it. That it is not too large the server's own layers have seen to.
///
/// # Errors
/// It stops or breaks off or is too large, or the budget has no bytes for it.
pub(super) async fn read(ingest: &Ingest, headers: &HeaderMap, mut body: Body) -> Result<(Bytes, Permit), Failure> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut paid = announced.unwrap_or(STEP_BYTES);
    let mut permit = ingest.budget().acquire(paid).await?;
    let mut whole = BytesMut::with_capacity(usize::try_from(paid).unwrap_or(usize::MAX));
    loop {
        let frame = match timeout(STALL_MAX, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|error| body_failure(&error))?,
            Ok(None) => return Ok((whole.freeze(), permit)),
            Err(_) => return Err(stalled()),
        };
        let Ok(data) = frame.into_data() else { continue };
        while paid < whole.len() as u64 + data.len() as u64 {
            permit.merge(ingest.budget().acquire(STEP_BYTES).await?);
            paid += STEP_BYTES;
        }
        whole.extend_from_slice(&data);
    }
}
