//! Whether the server is alive and whether it is ready.
//!
//! Alive is whoever answers. Ready is a server that has started, is not draining, and whose parts (the store probe,
//! say) all work; load balancers send work to ready servers only. Each part keeps its own word here by a [`Part`];
//! `/readyz`, `/healthz` and `grpc.health.v1` read the sum. Readiness never ends work under way and never refuses a
//! request by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// What all parts of a server say of themselves; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Why a part is not ready, by its name; nothing when it is.
    parts: BTreeMap<&'static str, Option<Cow<'static, str>>>,
}

/// The sum of what the parts say at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// `name: reason` of each part that is not ready, by name; empty means ready.
    pub reasons: Vec<String>,
}

/// One part's word on whether the server can work. It starts as not ready; a part that is dropped keeps its last word.
#[derive(Clone, Debug)]
pub struct Part {
    name: &'static str,
    state: Arc<watch::Sender<State>>,
}

/// The readiness over time.
#[derive(Debug)]
pub(crate) struct Changes {
    health: Health,
    changed: watch::Receiver<State>,
}

// === impl Health ===

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Creates the health of a server that has no parts yet, which is ready.
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Adds a part, not ready because it is `starting`. The same name twice is the same part.
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { name, state: Arc::clone(&self.state) };
        part.not_ready("starting");
        part
    }

    /// Makes the server not ready for good.
    pub fn drain(&self) {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.draining, true));
    }

    /// Returns the sum of the parts.
    pub fn readiness(&self) -> Readiness {
        let state = self.state.borrow();
        let mut reasons = Vec::new();
        if state.draining {
            reasons.push("server: shutting down".to_owned());
        }
        for (name, reason) in &state.parts {
            if let Some(reason) = reason {
                reasons.push(format!("{name}: {reason}"));
            }
        }
        Readiness { reasons }
    }

    /// Follows the readiness from now on.
    pub(crate) fn changes(&self) -> Changes {
        let mut changed = self.state.subscribe();
        changed.mark_changed();
        Changes { health: self.clone(), changed }
    }
}

// === impl Changes ===

impl Changes {
    /// Returns the readiness at first at once, then after each change.
    pub(crate) async fn next(&mut self) -> Readiness {
        self.changed.changed().await.expect("the sender is held beside");
        self.health.readiness()
    }
}

// === impl Readiness ===

impl Readiness {
    /// Returns whether nothing stands against sending work here.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

// === impl Part ===

impl Part {
    /// Says that the part works.
    pub fn ready(&self) {
        self.set(None);
    }

    /// Says why the part does not work; the text goes to whoever asks `/readyz`, so no secrets.
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<Cow<'static, str>>) {
        self.state.send_if_modified(|state| state.parts.insert(self.name, reason.clone()) != Some(reason));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Goal: one part that does not work is enough to be not ready, and says why.
    #[test]
    fn ready_when_all_parts_are() {
        let health = Health::new();
        assert!(health.readiness().is_ready());
        let store = health.part("store");
        let catalog = health.part("catalog");
        assert_eq!(health.readiness().reasons, ["catalog: starting", "store: starting"]);
        store.ready();
        catalog.ready();
        assert!(health.readiness().is_ready());
        store.not_ready("probe failed 3 times");
        drop(store);
        assert_eq!(health.readiness().reasons, ["store: probe failed 3 times"]);
    }

    /// Goal: nothing a part says makes a draining server ready again.
    #[test]
    fn draining_is_for_good() {
        let health = Health::new();
        let store = health.part("store");
        health.drain();
        store.ready();
        assert_eq!(health.readiness().reasons, ["server: shutting down"]);
    }

    /// Goal: whoever follows sees each change, and no change that is none.
    #[tokio::test]
    async fn changes_are_followed() {
        let health = Health::new();
        let store = health.part("store");
        let mut changes = health.changes();
        assert!(!changes.next().await.is_ready());
        store.ready();
        assert!(changes.next().await.is_ready());
        store.ready();
        assert_eq!(changes.next().now_or_never(), None);
        health.drain();
        assert!(!changes.next().await.is_ready());
    }
}
