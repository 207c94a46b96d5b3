//! The proofs of the storage engine.
//!
//! ```text
//! model     the protocol of commits and collection, small enough to visit every state it can reach
//! ```

pub mod model;
