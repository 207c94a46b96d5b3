//! A querier over a few real profiles in memory, whose services are called without a port.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_profile::compress::inflate;
use afterglow_profile::{Labels, Limits, ProfileType, decode};
use afterglow_querier::{Config, Querier};
use afterglow_service::{Metrics, Program};
use afterglow_store::block::{Options, ProfileMeta, Row, SegmentWriter};
use afterglow_store::clock::Clock;
use afterglow_store::paths::TenantId;
use afterglow_store::{Store, StoreOptions};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use clap::Parser;
use http_body_util::BodyExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use ulid::Ulid;

use crate::opened;

/// Now, always.
pub const NOW_NANOS: i64 = 1_795_482_000_000_000_000;

/// Real profiles of one program, which go together.
const PROFILES: [&[u8]; 2] = [
    include_bytes!("../../tests/fixtures/producers/go/a-block.pb.gz"),
    include_bytes!("../../tests/fixtures/producers/go/b-block.pb.gz"),
];

/// The services that have them: a dataset each, so that there is something to share.
pub const SERVICES: [&str; 2] = ["api", "web"];

#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(NOW_NANOS as u64)
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    query: Config,
}

/// A segment, of which each service has the rows of a dataset.
pub struct Segment {
    /// Its key.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
    /// What each row says.
    pub rows: Arc<Vec<Row>>,
}

/// A bucket.
pub struct Bucket {
    /// What futures run on: one thread, for what runs in turns is covered alike each time.
    pub runtime: Runtime,
    store: Store,
}

impl Default for Bucket {
    fn default() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs little");
        let options = StoreOptions { clock: Arc::new(Standing), ..StoreOptions::default() };
        Self { runtime, store: Store::new(Arc::new(InMemory::new()), "memory://".to_owned(), options) }
    }
}

impl Bucket {
    /// Stores the profiles, each for each service, as one segment; no two may have the same number.
    pub fn put(&self, number: u128) -> Segment {
        let mut writer = SegmentWriter::new(Options::default());
        for (service, of) in SERVICES.into_iter().zip(0_u128..) {
            for (body, n) in PROFILES.into_iter().zip(0_u128..) {
                let raw = inflate(body, &Limits::default()).expect("a fixture is gzip");
                let profile = decode::decode(&raw, &Limits::default()).expect("a fixture is a profile");
                let meta = ProfileMeta {
                    id: Ulid::from((number << 16) + (of << 8) + n),
                    profile_type: ProfileType::parse("block").expect("a word"),
                    labels: Labels::new([("service", service)]).expect("valid labels"),
                    time_nanos: NOW_NANOS - (60 + n as i64) * 1_000_000_000,
                    duration_nanos: 10_000_000_000,
                };
                writer.add(meta, &raw, &profile).expect("a segment takes any profile");
            }
        }
        let bytes = writer.finish().expect("a segment can be finished").bytes;
        self.runtime.block_on(async {
            let (deadline, length) = (Instant::now() + Duration::from_secs(60), bytes.len() as u64);
            let put = self.store.put_segment(&TenantId::anonymous(), bytes.clone(), deadline).await;
            let path = put.expect("memory takes any object").path();
            Segment { path, bytes: length, rows: opened(bytes).await.rows().await.expect("it has rows") }
        })
    }

    /// Builds a querier with these flags.
    pub fn querier(&self, flags: &[&str]) -> Querier {
        let Arguments { query } = Arguments::parse_from([&["querier"], flags].concat());
        let _entered = self.runtime.enter();
        afterglow_querier::build(&query, self.store.clone(), &Metrics::new(Program::new("fuzz")))
    }
}

/// An answer that is there as a whole.
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The status of gRPC, where it is one of gRPC.
    pub grpc_status: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Reads an answer to its end.
pub async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body that is made here");
    let grpc_status = parts.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status"));
    let grpc_status = grpc_status.map(|status| status.to_str().expect("digits").to_owned());
    Answer { status: parts.status.as_u16(), grpc_status, body: body.to_bytes() }
}
