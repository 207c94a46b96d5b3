//! Watches how a connection begins, so that one that never says which protocol it speaks does not stay for ever.
//!
//! HTTP/2 begins with a preface of 24 bytes; anything else is HTTP/1. Until that is decided no timeout of hyper's runs:
//! not the one on heads of HTTP/1, not the pings of HTTP/2. Once it is decided they do, and this stands aside.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::RECORD_OF_HANDSHAKE;
use super::seats::Line;

/// The connection preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of the preface has come; the whole length once the protocol is decided.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    seen: Arc<AtomicUsize>,
    /// It began as TLS does.
    is_tls: Arc<AtomicBool>,
}

/// A stream whose first bytes are looked at as they pass, and of which is noted when any passed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    greeting: Greeting,
    line: Line,
}

// === impl Greeting ===

impl Greeting {
    pub(super) fn watch<S>(stream: S, line: Line) -> (Watched<S>, Self) {
        let greeting = Self { seen: Arc::default(), is_tls: Arc::default() };
        (Watched { stream, greeting: greeting.clone(), line }, greeting)
    }

    /// Returns when the protocol is not decided within `timeout`; never, when it is.
    pub(super) async fn missing(&self, timeout: Duration) {
        tokio::time::sleep(timeout).await;
        if self.is_decided() {
            std::future::pending().await
        }
    }

    /// Returns whether what came was TLS, which nobody understands at this place.
    pub(super) fn is_of_tls(&self) -> bool {
        self.is_tls.load(Ordering::Relaxed)
    }

    fn is_decided(&self) -> bool {
        self.seen.load(Ordering::Relaxed) == PREFACE.len()
    }

    fn look(&self, data: &[u8]) {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen == 0 && data.first() == Some(&RECORD_OF_HANDSHAKE) {
            self.is_tls.store(true, Ordering::Relaxed);
        }
        let expected = &PREFACE[seen..];
        let common = data.len().min(expected.len());
        // Only one task reads, so the count cannot change between load and store.
        let seen = if data[..common] == expected[..common] { seen + common } else { PREFACE.len() };
        self.seen.store(seen, Ordering::Relaxed);
    }
}

// === impl Watched ===

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.line.heard();
        if !self.greeting.is_decided() {
            self.greeting.look(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        self.line.heard();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, data));
        self.line.heard();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn decided(reads: &[&[u8]]) -> bool {
        let (_, greeting) = Greeting::watch(tokio::io::empty(), Line::new(Instant::now()));
        for data in reads {
            if !greeting.is_decided() {
                greeting.look(data);
            }
        }
        greeting.is_decided()
    }

    #[test]
    fn decided_by_the_whole_preface_or_the_first_other_byte() {
        assert!(!decided(&[]));
        assert!(!decided(&[b"PRI * HTTP/2.0"]));
        assert!(!decided(&[b"P", b"R"]));
        assert!(decided(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"\r\n\0\0\0"]));
        assert!(decided(&[b"G"]));
        assert!(decided(&[b"P", b"OST / HTTP/1.1\r\n"]));
        assert!(decided(&[b"PRI * HTTP/1.1"]));
    }

    #[test]
    fn tls_is_known_by_its_first_byte() {
        for (data, is_tls) in [(&b"\x16\x03\x01"[..], true), (b"GET \x16", false), (b"P\x16", false), (b"", false)] {
            let (_, greeting) = Greeting::watch(tokio::io::empty(), Line::new(Instant::now()));
            greeting.look(data);
            assert_eq!(greeting.is_of_tls(), is_tls, "{data:?}");
        }
    }
}
