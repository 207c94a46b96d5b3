//! Reads the body of a request that holds a profile: every byte is paid for before it is kept, and nobody waits for ever.

use afterglow_service::Failure;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::{Duration, timeout};

use crate::budget::Permit;
use crate::ingest::{Ingest, body_too_large};

/// How long a sender may stop in the middle of a body.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What is paid for at once where nobody announced a length: enough for most profiles.
const STEP_BYTES: u64 = 256 << 10;

/// Reads the body whole and returns it with what pays for it.
///
/// # Errors
/// It is too large, or stops, or breaks off, or the budget has no bytes for it.
pub(super) async fn read(ingest: &Ingest, headers: &HeaderMap, mut body: Body) -> Result<(Bytes, Permit), Failure> {
    let limit = ingest.limits().body_bytes_max;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = announced.filter(|bytes| *bytes > limit) {
        return Err(body_too_large(bytes, ingest.limits()));
    }
    let mut permit = ingest.budget().acquire(announced.unwrap_or(STEP_BYTES)).await?;
    let mut paid = announced.unwrap_or(STEP_BYTES);
    let mut whole = BytesMut::with_capacity(paid as usize);
    loop {
        let frame = match timeout(STALL_MAX, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|error| afterglow_service::http::body_failure(&error))?,
            Ok(None) => break,
            Err(_) => {
                let seconds = STALL_MAX.as_secs();
                return Err(Failure::deadline_exceeded(format!("no bytes for {seconds} s in the middle of a profile")));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let needed = whole.len() as u64 + data.len() as u64;
        if needed > limit {
            return Err(body_too_large(needed, ingest.limits()));
        }
        while paid < needed {
            permit.merge(ingest.budget().acquire(STEP_BYTES).await?);
            paid += STEP_BYTES;
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), permit))
}
