//! The audit log: one line for each request that was refused for who asked, each download of a stored profile, and each
//! thing done with the role admin. Its target is `audit`, so that it can be told from all other lines; with
//! `--log-format json` each is a JSON object. What retention deletes is written down where it is committed, in the store.
//!
//! Refusals can be had by anybody, as fast as the network carries them. So beyond some a second they are only counted,
//! and the next line says how many were left out; the metric `afterglow_access_refusals_total` counts all of them.

use std::time::Duration;

use axum::extract::Request;
use http::Extensions;

use super::Caller;
use crate::listen::Peer;
use crate::stack::RequestId;
use crate::tenant;
use crate::throttle::{Bounds, Throttle};
use crate::tls::ClientCertificate;

/// How many refusals are written down.
const REFUSALS: Bounds = Bounds { interval: Duration::from_secs(1), lines: 20, subjects: 1 };

/// Bounds the lines about refusals.
#[derive(Debug)]
pub(crate) struct Audit {
    refusals: Throttle,
}

// === impl Audit ===

impl Default for Audit {
    fn default() -> Self {
        Self { refusals: Throttle::new(REFUSALS) }
    }
}

impl Audit {
    pub(super) fn refused(&self, reason: &'static str, token: Option<&str>, request: &Request) {
        let Some(left_out) = self.refusals.line() else { return };
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
        let Some(left_out) = self.refusals.line() else { return };
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
