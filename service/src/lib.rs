//! What every server of Afterglow does alike.
//!
//! A server's life: [`config::load`] gives its settings, [`telemetry::init`] starts logs and traces, the server builds
//! its parts, and [`listen::Server`] runs them on one port until [`shutdown`] says stop. In between, [`status`] is the
//! only table from a failure to the codes of gRPC and HTTP, [`stack`] is the way of a request through the layers,
//! [`metrics`] the registry all parts share, [`health`] whether the server is alive and ready.
//!
//! What does not belong here: anything that knows what a profile is, or what lies in the bucket.

pub mod access;
pub mod causes;
pub mod config;
pub mod debug;
pub mod health;
pub mod http;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod shutdown;
pub mod stack;
pub mod status;
pub mod telemetry;
pub mod tenant;
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod time;
pub mod tls;

pub use health::Health;
pub use metrics::Metrics;
pub use status::{Failure, Kind};

/// Says which program this is; goes into `/version`, the metric `afterglow_build_info`, and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// The name of the program, such as `afterglow-ingester`.
    pub name: &'static str,
    /// Its version, by semantic versioning.
    pub version: &'static str,
    /// The git revision it was built from, `unknown` where the build did not know.
    pub revision: &'static str,
}

impl Program {
    /// Describes the program `name` with the version of this workspace, of an unknown revision.
    pub const fn new(name: &'static str) -> Self {
        Self { name, version: env!("CARGO_PKG_VERSION"), revision: "unknown" }
    }

    /// Describes the same program as built from `revision`, which its `main.rs` alone knows.
    pub const fn built_from(self, revision: &'static str) -> Self {
        Self { revision, ..self }
    }
}
