//! The way into a server for its own process: a connection that no network carries, so that the process reaches itself
//! whatever the port speaks and whomever it trusts.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// How many connections may wait to be accepted. A process has one client of itself, and that one connection.
const WAITING_MAX: usize = 4;

/// How much of what one side wrote may wait for the other.
const BUFFER_BYTES: usize = 64 << 10;

/// Opens connections to a server of the same process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Door(mpsc::Sender<DuplexStream>);

/// The side of the door at which the server stands.
#[derive(Debug)]
pub(super) struct Threshold(mpsc::Receiver<DuplexStream>);

pub(super) fn door() -> (Door, Threshold) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Door(sender), Threshold(receiver))
}

// === impl Door ===

impl Door {
    /// Opens a connection, on which the server speaks HTTP/1.1 and HTTP/2 without TLS, whatever its port does.
    ///
    /// # Errors
    /// Connection refused: the server does not serve any more.
    pub async fn open(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        self.0.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}

// === impl Threshold ===

impl Threshold {
    /// Waits for the next connection; for ever once nobody holds the door any more.
    pub(super) async fn accept(&mut self) -> DuplexStream {
        match self.0.recv().await {
            Some(stream) => stream,
            None => std::future::pending().await,
        }
    }
}
