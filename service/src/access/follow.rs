//! Reads the file of tokens again when it has changed. A file that cannot be used leaves the tokens read before it in
//! force: whoever edits it must not lock everybody out, and whoever deletes it must not let everybody in.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::tokens::{self, Error};
use super::{Outcome, Tokens};

/// How often the file is looked at. It is small, and a token that was taken back should not live long.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was last seen of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing since the start.
    #[default]
    Start,
    /// These bytes. Not the time of its last change: a Secret that is mounted, or a copy that keeps times, changes
    /// without one.
    Contents(Vec<u8>),
    /// That it could not be read.
    Failed(String),
}

/// Follows the file; never returns.
pub(super) async fn follow(held: &Tokens) {
    let mut seen = Seen::Start;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(held, &mut seen).await;
    }
}

/// Looks once, and takes the tokens where they have changed.
pub(super) async fn look(held: &Tokens, seen: &mut Seen) {
    let file = held.file.clone();
    let read = tokio::task::spawn_blocking(move || tokens::read_contents(&file)).await;
    // It fails where the runtime is at its end.
    let Ok(read) = read else { return };
    let now = match &read {
        Ok(contents) => Seen::Contents(contents.clone()),
        Err(error) => Seen::Failed(error.to_string()),
    };
    if now == *seen {
        return;
    }
    let is_first = *seen == Seen::Start;
    *seen = now;
    match read.and_then(|contents| tokens::parse(&held.file, &contents)) {
        // Most likely what was read at the start; it may have changed since.
        Ok(table) if is_first => held.replace(table),
        Ok(table) => {
            tracing::info!(file = %held.file.display(), tokens = table.len(), "took the changed tokens");
            held.replace(table);
            held.counters.is_stale.set(0);
            held.counters.reads.get_or_create(&Outcome { outcome: "ok" }).inc();
        }
        Err(error) => failed(held, &error),
    }
}

fn failed(held: &Tokens, error: &Error) {
    tracing::error!(error = %error, "cannot use the changed tokens; those read before stay in force");
    held.counters.is_stale.set(1);
    held.counters.reads.get_or_create(&Outcome { outcome: "failed" }).inc();
}
