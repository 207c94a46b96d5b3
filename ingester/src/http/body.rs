//! Reads the body of a request that holds a profile: every byte is paid for before it is kept, and nobody waits for
//! ever.

use afterglow_service::Failure;
use afterglow_service::http::body_failure;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::budget::Permit;
use crate::ingest::{Ingest, stalled};

/// What is paid for at once where nobody announced a length: enough for most profiles.
const STEP_BYTES: u64 = 256 << 10;

/// Reads the body whole and returns it with what pays for it. That it is not too large the server's own layers have
/// seen to.
///
/// # Errors
/// It stops or breaks off or is too large, or the budget has no bytes for it.
pub(super) async fn read(ingest: &Ingest, headers: &HeaderMap, mut body: Body) -> Result<(Bytes, Permit), Failure> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut paid = announced.unwrap_or(STEP_BYTES);
    let mut permit = ingest.budget().acquire(paid).await?;
    let mut whole = BytesMut::with_capacity(usize::try_from(paid).unwrap_or(usize::MAX));
    let stall_timeout = ingest.stall_timeout();
    loop {
        let frame = match timeout(stall_timeout, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|error| body_failure(&error))?,
            Ok(None) => return Ok((whole.freeze(), permit)),
            Err(_) => return Err(stalled(stall_timeout)),
        };
        let Ok(data) = frame.into_data() else { continue };
        while paid < whole.len() as u64 + data.len() as u64 {
            permit.merge(ingest.budget().acquire(STEP_BYTES).await?);
            paid += STEP_BYTES;
        }
        whole.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use afterglow_service::Kind;
    use futures::stream::{self, StreamExt};
    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::testing::Harness;

    fn announced(length: u64) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    fn pieces(count: usize, bytes: usize) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
        stream::iter((0..count).map(move |n| Ok(Bytes::from(vec![n as u8; bytes]))))
    }

    /// Goal: a body is read whole, and what it takes is paid for whether its length was announced or not.
    #[tokio::test(start_paused = true)]
    async fn a_body_is_paid_for() {
        let harness = Harness::new(&["--memory-budget=4MiB"]);
        for headers in [announced(1 << 20), HeaderMap::new()] {
            let body = Body::from_stream(pieces(64, 16 << 10));
            let (bytes, permit) = read(&harness.ingest, &headers, body).await.expect("the budget has room");
            assert_eq!(bytes.len(), 1 << 20);
            assert!(permit.bytes() >= 1 << 20);
            assert_eq!(harness.ingest.budget().bytes_held(), permit.bytes());
        }
        assert_eq!(harness.ingest.budget().bytes_held(), 0);
        let _taken = harness.ingest.budget().acquire(3 << 19).await.expect("the budget has room");
        for headers in [announced(1 << 20), HeaderMap::new()] {
            let body = Body::from_stream(pieces(64, 16 << 10));
            let refused = read(&harness.ingest, &headers, body).await.expect_err("half a MiB is left for bodies");
            assert_eq!(refused.kind(), Kind::Exhausted);
        }
        assert_eq!(harness.ingest.budget().bytes_held(), 3 << 19);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_in_a_body_is_cut_off() {
        let harness = Harness::new(&[]);
        let start = Instant::now();
        let body = Body::from_stream(pieces(2, 10).chain(stream::pending()));
        let refused = read(&harness.ingest, &announced(100), body).await.expect_err("it stops");
        assert_eq!(refused.kind(), Kind::DeadlineExceeded);
        assert_eq!(refused.message(), "no bytes for 30s in the middle of a profile (--limits.stall-timeout)");
        assert_eq!(start.elapsed().as_secs(), 30);
        assert_eq!(harness.ingest.budget().bytes_held(), 0);
    }
}
