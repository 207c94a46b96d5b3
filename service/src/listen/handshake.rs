//! How a connection begins on a port with TLS, and what becomes of those that begin in another way.
//!
//! Who speaks plain text to it gets an answer that says so, in the protocol it speaks: HTTP has nothing of the kind, but a
//! person reads it. Of everything else there is a counter, and a line in the log at most once a minute, for a port is
//! open to anybody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Peer;
use crate::Metrics;
use crate::access::audit::Audit;
use crate::causes::Causes;
use crate::throttle::{Bounds, Throttle};
use crate::tls::{ClientCertificate, Tls};

/// The first byte of TLS: a record that holds a handshake (RFC 8446, 5.1). No method of HTTP begins with it.
pub(super) const RECORD_OF_HANDSHAKE: u8 = 0x16;

/// How often the log says that clients speak another protocol than the port.
const HINT_INTERVAL: Duration = Duration::from_secs(60);

/// Begins connections.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// Nothing where the port speaks plain text.
    tls: Option<Tls>,
    timeout: Duration,
    audit: Arc<Audit>,
    outcomes: Family<Outcome, Counter>,
    hints: Throttle,
}

/// How a connection began.
pub(super) enum Begun {
    /// In plain text, on a port that speaks it.
    Plain(TcpStream),
    /// With TLS.
    Tls { stream: Box<TlsStream<TcpStream>>, certificate: Option<ClientCertificate> },
    /// In plain text, on a port that speaks TLS.
    Misled(TcpStream),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

// === impl Handshakes ===

impl Handshakes {
    pub(super) fn new(tls: Option<Tls>, timeout: Duration, audit: Arc<Audit>, metrics: &Metrics) -> Self {
        let outcomes = Family::<Outcome, Counter>::default();
        // What begins at 1 is no rise to whoever watches.
        for outcome in ["ok", "failed", "bad_certificate", "timed_out", "plain", "tls"] {
            drop(outcomes.get_or_create(&Outcome { outcome }));
        }
        metrics.register(|registry| {
            registry.register(
                "afterglow_server_handshakes",
                "Beginnings of connections by outcome: ok, failed, bad_certificate, timed_out of TLS; plain where the port \
                 speaks TLS and the client did not, tls where it is the other way round",
                outcomes.clone(),
            );
        });
        Self { tls, timeout, audit, outcomes, hints: Throttle::new(Bounds::one_each(HINT_INTERVAL)) }
    }

    /// Sees to the beginning of a connection; nothing where it is at its end already.
    pub(super) async fn begin(&self, stream: TcpStream, peer: Peer) -> Option<Begun> {
        let Some(tls) = &self.tls else { return Some(Begun::Plain(stream)) };
        // In a place of its own, which is given back: what this future holds a connection holds to its end.
        match timeout(self.timeout, Box::pin(accept(tls, stream))).await {
            Ok(Ok(Begun::Misled(stream))) => {
                self.count("plain");
                self.hint(peer, "a client spoke plain HTTP to this port, which speaks TLS: it has to use https://");
                Some(Begun::Misled(stream))
            }
            Ok(Ok(begun)) => {
                self.count("ok");
                Some(begun)
            }
            Ok(Err(error)) => {
                self.failed(peer, &error);
                None
            }
            Err(_elapsed) => {
                self.count("timed_out");
                tracing::debug!(%peer, "no handshake in time");
                None
            }
        }
    }

    /// Notices that a client spoke TLS to a port that speaks plain text.
    pub(super) fn spoke_tls(&self, peer: Peer) {
        self.count("tls");
        self.hint(
            peer,
            "a client spoke TLS to this port, which speaks plain HTTP: give --tls.cert-file and --tls.key-file, or let it \
             use http://",
        );
    }

    fn failed(&self, peer: Peer, error: &io::Error) {
        let text = Causes(error).to_string();
        let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        if matches!(reason, Some(rustls::Error::InvalidCertificate(_))) {
            self.count("bad_certificate");
            self.audit.certificate_refused(peer, &text);
        } else {
            self.count("failed");
            tracing::debug!(%peer, error = text, "handshake failed");
        }
    }

    fn count(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&Outcome { outcome }).inc();
    }

    fn hint(&self, peer: Peer, text: &str) {
        if let Some(left_out) = self.hints.line() {
            tracing::warn!(%peer, left_out, "{text}");
        }
    }
}

/// Tells by its first byte what a client speaks, and does the handshake of TLS.
async fn accept(tls: &Tls, stream: TcpStream) -> io::Result<Begun> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != RECORD_OF_HANDSHAKE {
        return Ok(Begun::Misled(stream));
    }
    let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first).map(ClientCertificate::of);
    Ok(Begun::Tls { stream: Box::new(stream), certificate })
}
