//! Which blocks are live: the numbered record of what compaction, retention and collection add and remove.
//!
//! ```text
//! record    what one commit says: blocks added, blocks and segments removed, the boundary moved
//! state     what all commits up to a number come to; a pure function of them and of when the store took them
//! ```
//!
//! Invariants. Commit n exists only where commit n-1 did when it was made, and was valid in the state after it. Whoever replays the
//! same commits has the same state. Of a commit's blocks and what they replace nothing is ever seen by half: they are one object.

pub mod record;
pub mod state;

pub use self::record::{BlockEntry, Commit, Reason};
pub use self::state::{Conflict, Live, REMOVED_KEPT, State};
