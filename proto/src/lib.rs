//! The wire contract of Afterglow, generated from `proto/`: the messages and services of `afterglow.v1`, `google.rpc.Status`, and
//! the messages of Pyroscope's questions, which Grafana asks.
//!
//! Messages carry serde implementations that follow protobuf's JSON mapping, so HTTP and gRPC answer from the same types. The
//! feature `grpc` (on by default) adds tonic's clients and servers. No logic lives here, but for how a time and a
//! double are written in JSON.

#![allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)]

/// The packages of `google`.
pub mod google {
    /// `google.rpc`: the status that gRPC carries.
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
        include!(concat!(env!("OUT_DIR"), "/google.rpc.serde.rs"));
    }
}

/// The packages of `afterglow`.
pub mod afterglow {
    /// `afterglow.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/afterglow.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/afterglow.v1.serde.rs"));
    }
}

/// The messages by which Grafana asks Pyroscope.
pub mod pyroscope {
    /// The packages of `querier`.
    pub mod querier {
        /// `querier.v1`: questions and answers.
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/querier.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/querier.v1.serde.rs"));
        }
    }

    /// The packages of `types`.
    pub mod types {
        /// `types.v1`: what they speak of.
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/types.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/types.v1.serde.rs"));
        }
    }
}

pub use afterglow::v1;

/// The compiled descriptor set, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

mod double;
mod timestamp;

use double::Double;
pub use pbjson_types::{Any, Duration};
pub use timestamp::Timestamp;
