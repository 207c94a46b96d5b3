//! The audit log: one line for each request that was refused for who asked, each download of a stored profile, and each
//! thing done with the role admin. Its target is `audit`, so that it can be told from all other lines; with
//! `--log-format json` each is a JSON object.
//!
//! Refusals can be had by anybody, as fast as the network carries them. So beyond some a second they are only counted,
//! and the next line says how many were left out; the metric `afterglow_access_refusals_total` counts all of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use http::Extensions;
use tokio::time::Instant;

use super::Caller;
use crate::listen::Peer;
use crate::stack::RequestId;
use crate::tenant;
use crate::tls::ClientCertificate;

/// How many refusals are written down in a second.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Bounds the lines about refusals.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begin: Option<Instant>,
    lines: u32,
    left_out: u64,
}

// === impl Audit ===

impl Audit {
    pub(super) fn refused(&self, reason: &'static str, token: Option<&str>, request: &Request) {
        let Some(left_out) = self.room(Instant::now()) else { return };
        let extensions = request.extensions();
        tracing::warn!(
            target: "audit",
            event = "refused",
            reason,
            token,
            certificate = certificate(extensions),
            tenant = request.headers().get(tenant::HEADER).and_then(|value| value.to_str().ok()),
            method = %request.method(),
            path = request.uri().path(),
            peer = extensions.get::<Peer>().map(tracing::field::display),
            request_id = extensions.get::<RequestId>().map(RequestId::as_str),
            left_out,
            "access refused"
        );
    }

    /// Writes down that a connection was turned away for the certificate that its client presented.
    pub(crate) fn certificate_refused(&self, peer: Peer, error: &str) {
        let Some(left_out) = self.room(Instant::now()) else { return };
        tracing::warn!(
            target: "audit",
            event = "refused",
            reason = "bad_certificate",
            error,
            peer = %peer,
            left_out,
            "access refused"
        );
    }

    /// Returns how many lines were left out before one that may be written now.
    fn room(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.begin.is_none_or(|begin| now.duration_since(begin) >= WINDOW) {
            (state.begin, state.lines) = (Some(now), 0);
        }
        if state.lines >= LINES_MAX {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

/// Writes down that a stored profile left as it was sent: `id`, of `tenant`, in `bytes` after gunzip.
pub fn downloaded(extensions: &Extensions, tenant: &str, id: &str, bytes: usize) {
    tracing::info!(
        target: "audit",
        event = "downloaded",
        token = extensions.get::<Caller>().map(Caller::name),
        certificate = certificate(extensions),
        tenant,
        id,
        bytes,
        peer = extensions.get::<Peer>().map(tracing::field::display),
        request_id = extensions.get::<RequestId>().map(RequestId::as_str),
        "profile downloaded"
    );
}

/// Writes down that something was done with the role admin.
pub(super) fn administered(caller: Option<&Caller>, request: &Request) {
    let extensions = request.extensions();
    tracing::info!(
        target: "audit",
        event = "administered",
        token = caller.map(Caller::name),
        certificate = certificate(extensions),
        method = %request.method(),
        path = request.uri().path(),
        peer = extensions.get::<Peer>().map(tracing::field::display),
        request_id = extensions.get::<RequestId>().map(RequestId::as_str),
        "admin action"
    );
}

fn certificate(extensions: &Extensions) -> Option<&str> {
    extensions.get::<ClientCertificate>().map(ClientCertificate::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a flood of refusals fills no disk, and none is forgotten.
    #[test]
    fn refusals_beyond_some_a_second_are_counted() {
        let audit = Audit::default();
        let begin = Instant::now();
        let written = (0..1000).filter(|_| audit.room(begin).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(audit.room(begin + WINDOW), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(audit.room(begin + WINDOW), Some(0));
    }
}
