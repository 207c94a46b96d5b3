//! When to stop: the first SIGTERM or SIGINT asks the server to drain, the second ends the process at once.
//!
//! SIGHUP changes nothing, and so ends nothing either: files of tokens and certificates are read again by themselves when they change, and
//! every other setting takes effect with a restart. The log says so to whoever sends it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that is cancelled by the first SIGTERM or SIGINT. A second signal exits the process with 128 + its
/// number, whatever is under way. SIGHUP is heard and left at that. Must be called within a tokio runtime.
///
/// # Errors
/// When the operating system refuses to install a handler.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(
                signal = "SIGHUP",
                "files of tokens and certificates are read again by themselves when they change; other settings take a restart"
            );
        }
    });
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first.name(), "shutting down, a second signal ends the process at once");
        stop.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second.name(), "second signal, going at once");
        #[expect(clippy::disallowed_methods, reason = "at once is what the second signal asks for")]
        std::process::exit(128 + second.number());
    });
    Ok(token)
}

/// The two signals that mean: stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy)]
enum Stop {
    Terminate,
    Interrupt,
}

impl Signals {
    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Stop::Terminate => "SIGTERM",
            Stop::Interrupt => "SIGINT",
        }
    }

    fn number(self) -> i32 {
        let kind = match self {
            Stop::Terminate => SignalKind::terminate(),
            Stop::Interrupt => SignalKind::interrupt(),
        };
        kind.as_raw_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(signal: &str) {
        let this = std::process::id().to_string();
        let sent = tokio::process::Command::new("kill").args([signal, &this]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// Goal: what an orchestrator sends is heard. The second signal would end the test itself.
    #[tokio::test]
    async fn sigterm_cancels_the_token() {
        let token = on_signals().expect("handlers");
        assert!(!token.is_cancelled());
        send("-HUP").await;
        assert!(!token.is_cancelled(), "nor does SIGHUP end this process");
        send("-TERM").await;
        tokio::time::timeout(crate::testing::PATIENCE, token.cancelled()).await.expect("heard in time");
    }
}
