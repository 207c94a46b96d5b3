//! The Rust SDK of Afterglow and its scraper.
//!
//! - [`connect`]: how a client reaches a server.
//! - [`profiler`]: profiles of the program itself, continuously or on demand.
//! - [`upload`]: [`Client`] pushes profiles over one gRPC stream, with retries under the same id and bounded memory.
//!
//! The SDK never blocks the program it profiles and never grows past its queue.

pub mod connect;
pub mod profiler;
pub mod upload;

pub use connect::{Target, connect};
pub use profiler::{Profiler, ProfilerBuilder};
pub use upload::{Ack, Backoff, Client, Options, PushError, Stats};
