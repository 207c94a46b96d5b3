//! The Rust SDK of Afterglow and its scraper.
//!
//! - [`connect`]: how a client reaches a server.
//! - [`upload`]: [`Client`] pushes profiles over one gRPC stream, with retries under the same id and bounded memory.
//! - [`profiler`] (feature `profiler`): profiles of the program itself, continuously or on demand.
//! - [`scrape`], [`program`] (feature `scraper`): the agent that scrapes pprof endpoints.
//! - [`debug`], [`itself`] (feature `scraper`): what servers show of themselves, and what they push of themselves.
//!
//! ```no_run
//! # async fn start() -> Result<(), afterglow_agent::profiler::Error> {
//! let profiler = afterglow_agent::ProfilerBuilder::new("http://127.0.0.1:4100", "checkout")
//!     .label("version", "1.3")
//!     .start()?;
//! # profiler.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! The SDK never blocks the program it profiles and never grows past its queue. A program that only wants to profile itself turns the
//! default features off and `profiler` on: then nothing of a server is built.

pub mod connect;
#[cfg(feature = "scraper")]
pub mod debug;
#[cfg(feature = "scraper")]
pub mod itself;
#[cfg(feature = "profiler")]
pub mod profiler;
#[cfg(feature = "scraper")]
pub mod program;
#[cfg(feature = "scraper")]
pub mod scrape;
#[cfg(test)]
mod testing;
pub mod upload;

pub use connect::{Target, connect};
#[cfg(feature = "profiler")]
pub use profiler::{Profiler, ProfilerBuilder};
pub use upload::{Ack, Backoff, Client, Options, PushError, Stats};
