//! The proofs of the storage engine.
//!
//! ```text
//! model     the protocol of commits and collection, small enough to visit every state it can reach
//!
//! run       a simulated world from a seed: trouble, then peace, and what is checked in both
//! world     its time, chance and trace
//! store     an object store that fails as clouds do
//! process   what can be killed, paused and started anew: ingester, querier, maintainer
//! agent     sends profiles until they are acknowledged, through network
//! oracle    what was sent and what was acknowledged: what must be true
//! retention what may be removed, and what the commits say that was
//! met       which faults befell a run, and how often
//! ```

pub mod agent;
pub mod ingester;
pub mod maintainer;
pub mod met;
pub mod model;
pub mod network;
pub mod oracle;
pub mod process;
pub mod querier;
pub mod retention;
pub mod run;
pub mod store;
pub mod world;
