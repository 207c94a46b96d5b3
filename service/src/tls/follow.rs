//! Reads the files of TLS again when they have changed. Files that cannot be used leave those read before them in force:
//! a certificate that is renewed wrongly must not end a server that has days to go with the old one.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::files::{Contents, Error};
use super::{Inner, Outcome};

/// How often the files are looked at. They are small, and who renews a certificate waits for it to be in force.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was last seen of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// These bytes, by their digest. Not the time of their last change: a Secret that is mounted changes as a whole by a
    /// symbolic link, and a copy may keep times.
    Contents([u8; 32]),
    /// That one could not be read.
    Failed(String),
}

/// What is known from looking.
#[derive(Debug)]
pub(super) struct State {
    seen: Seen,
    /// What was seen cannot be used, and that has not been said yet: of a certificate and a key that are copied one after
    /// the other, one is new for a moment and the other is not.
    doubtful: Option<Error>,
}

// === impl State ===

impl State {
    /// Knows what the server began with.
    pub(super) fn of(inner: &Inner) -> Self {
        Self { seen: Seen::Contents(inner.begun_with), doubtful: None }
    }
}

/// Follows the files; never returns.
pub(super) async fn follow(inner: &Inner) {
    let mut state = State::of(inner);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(inner, &mut state).await;
    }
}

/// Looks once, and takes what has changed.
pub(super) async fn look(inner: &Inner, state: &mut State) {
    let files = inner.files.clone();
    let read = tokio::task::spawn_blocking(move || files.read()).await;
    // It fails where the runtime is at its end.
    let Ok(read) = read else { return };
    let now = match &read {
        Ok(contents) => Seen::Contents(contents.digest()),
        Err(error) => Seen::Failed(error.to_string()),
    };
    if now == state.seen {
        if let Some(error) = state.doubtful.take() {
            failed(inner, &error);
        }
        return;
    }
    state.seen = now;
    state.doubtful = take(inner, read).err();
}

fn take(inner: &Inner, read: Result<Contents, Error>) -> Result<(), Error> {
    let loaded = inner.files.parse(&read?)?;
    let certificate = inner.certificate().display();
    tracing::info!(%certificate, expires = loaded.expires(), "took the changed files of TLS");
    inner.counters.reads.get_or_create(&Outcome { outcome: "ok" }).inc();
    inner.replace(loaded);
    inner.counters.is_stale.set(0);
    Ok(())
}

fn failed(inner: &Inner, error: &Error) {
    tracing::error!(error = %error, "cannot use the changed files of TLS; those read before stay in force");
    inner.counters.is_stale.set(1);
    inner.counters.reads.get_or_create(&Outcome { outcome: "failed" }).inc();
}
