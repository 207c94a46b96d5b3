//! Which blocks are live: the numbered record of what compaction, retention and collection add and remove.
//!
//! ```text
//! sealed    magic, version, body, checksum: the form of all objects here
//! log       numbered entries, each created once and by one; knows nothing of blocks
//! record    what one commit says: blocks added, blocks and segments removed, the boundary moved
//! state     what all commits up to a number come to; a pure function of them and of when the store took them
//! removed   its segments that are not read any more, told in few bytes each
//! snapshot  a state written down, by days, so that nobody replays from the first commit
//! replay    Commits::refresh: from the newest snapshot, then commit by commit until there is none
//! append    Commits::commit: check, create the next number, or replay what won and check again
//! boundary  the rule by which the boundary moves; boundaries: what writers of segments know of it
//! inspect   the log from outside: every object of it, for verification
//! ```
//!
//! Invariants. Commit n exists only where commit n-1 did when it was made, and was valid in the state after it. Whoever replays the
//! same commits has the same state. Of a commit's blocks and what they replace nothing is ever seen by half: they are one object.

mod append;
mod boundaries;
pub mod boundary;
pub(crate) mod inspect;
pub(crate) mod log;
pub mod record;
mod removed;
mod replay;
mod sealed;
pub(crate) mod snapshot;
pub mod state;

use std::fmt;
use std::sync::Arc;

use object_store::path::Path;

pub use self::append::{Draft, Outcome, Rejection};
pub use self::boundaries::Boundaries;
use self::log::Log;
pub use self::record::{BlockEntry, Commit, Reason};
use self::replay::Held;
pub use self::snapshot::{SNAPSHOT_EVERY, Written};
pub use self::state::{Conflict, Live, REMOVED_KEPT, State};
use crate::Store;
use crate::block::varint::Damage;
use crate::paths::TenantId;
pub use crate::put::Cause;

/// Why commits could not be read or made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store did not give what was asked for; a retry may help.
    #[error("{key} could not be read")]
    Read {
        /// The object, or the folder that was listed.
        key: Path,
        /// What the object store says.
        source: Arc<object_store::Error>,
    },
    /// The store did not take what was written, and will not.
    #[error("{key} could not be written")]
    Write {
        /// The object.
        key: Path,
        /// What went wrong last.
        source: Arc<Cause>,
    },
    /// An object is not what was written.
    #[error("{key} is damaged: it {damage}")]
    Damaged {
        /// The object.
        key: Path,
        /// What is wrong with it, continuing the sentence.
        damage: &'static str,
    },
    /// A commit is not there, though later ones are: it was deleted by something other than us.
    #[error("{key} is missing, though later commits are there")]
    Missing {
        /// The commit.
        key: Path,
    },
    /// A newer version wrote an object in a way that this one does not know.
    #[error("{key} has format version {version}, this program knows {known}")]
    TooNew {
        /// The object.
        key: Path,
        /// Its version.
        version: u64,
        /// The newest that is known.
        known: u64,
    },
    /// A commit that is there does not follow upon the one before it.
    #[error("{key} does not follow upon the commit before it")]
    Broken {
        /// The commit.
        key: Path,
        /// Why not.
        source: Conflict,
    },
    /// Others were faster again and again. They did get on.
    #[error("{races} others committed first")]
    Outrun {
        /// How often.
        races: u32,
    },
}

/// Reads the commit that an object is.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn decode(key: &Path, object: &bytes::Bytes) -> Result<Commit, Error> {
    Commit::decode(&log::payload_of(key, object)?).map_err(|damage| Error::damaged(key, damage))
}

impl Error {
    fn read(key: &Path, source: object_store::Error) -> Self {
        Self::Read { key: key.clone(), source: source.into() }
    }

    fn damaged(key: &Path, damage: Damage) -> Self {
        Self::Damaged { key: key.clone(), damage: damage.0 }
    }

    /// Whether the objects themselves are at fault, so that reading them again will not help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::TooNew { .. } | Self::Broken { .. })
    }
}

/// The commits of a tenant; cheap to clone, each clone shares what was read.
#[derive(Clone)]
pub struct Commits {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    tenant: TenantId,
    log: Log,
    held: tokio::sync::Mutex<Held>,
}

impl Commits {
    /// Makes a handle on the commits of `tenant`. Makes no request.
    pub fn new(store: Store, tenant: TenantId) -> Self {
        let log = Log::new(store.clone(), tenant.clone());
        Self { inner: Arc::new(Inner { store, tenant, log, held: tokio::sync::Mutex::default() }) }
    }

    /// Returns whose commits these are.
    pub fn tenant(&self) -> &TenantId {
        &self.inner.tenant
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").field("tenant", &self.inner.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
