//! What lies in the bucket, and the only code that may change it.
//!
//! ```text
//! catalog   what can be found: the profiles of a tenant as of a listing that is fresh enough
//! commit    which blocks are live: the numbered record of what compactions and retention add and remove
//! compaction, retention, collect   merge small blocks, drop what is too old, delete what no view can name; maintenance runs all three
//! verify    reads the bucket from outside and compares it with the commits
//! block     the form in which profiles lie in the bucket: writing a segment, reading a block
//! open      a storage URL becomes a Store: the real client under the wrappers that count, retry and prefix
//! ranges    parts of blocks that are kept in memory; bill: what one question asks of the store
//! put       the ack path: a segment becomes durable, or the caller learns what is known of it
//! patient   reads are made again where that may help; hedge: what it takes to make a slow request a second time
//! probe     finds out at start whether the store keeps the promises everything here rests on
//! watch     finds out later whether it still answers
//! bucket    prepares a store for its first use
//! paths     every object key; location: every storage URL
//! clock     time and chance, handed in; nothing else here asks the machine; now: what time it is by the store's own clock
//! ```
//!
//! Objects are immutable and written once. Ingesters and queriers share nothing but what lies here.

pub mod bill;
pub mod block;
pub mod bucket;
pub mod catalog;
pub mod clock;
pub mod collect;
pub mod commit;
pub mod compaction;
mod error;
mod fault;
mod hedge;
pub mod location;
pub mod maintenance;
mod metrics;
mod now;
mod open;
pub mod paths;
pub mod patient;
pub mod probe;
pub mod put;
mod ranges;
pub mod retention;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verify;
pub mod watch;

pub use error::Error;
pub use location::StorageUrl;
pub use metrics::Metrics;
pub use open::{Environment, Store, StoreOptions, open};
