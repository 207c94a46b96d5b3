//! What the targets share: how an input becomes several parts, profiles, and blocks.
//!
//! An input is cut at its own lengths ([`parts`]), and each part is either the protobuf of a profile itself or the choices of an encoder
//! that makes one ([`protobuf`]); so the fuzzer gets far with few bytes, and real profiles are seeds all the same.

pub mod querier;

use std::sync::Arc;

use afterglow_profile::{Labels, Limits, ProfileType, decode};
use afterglow_store::block::{Block, Options, ProfileMeta, SegmentWriter};
use afterglow_store::testing::odd;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

/// The limits of the targets: as promised, but that a body of a few KiB may not cost more than a few MiB.
pub fn limits() -> Limits {
    Limits { inflated_bytes_max: 4 << 20, ..Limits::default() }
}

/// Cuts an input into at most `max` parts: two bytes of length, the part, and again. The last one has what is left.
pub fn parts(mut input: &[u8], max: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while parts.len() + 1 < max
        && let Some((length, rest)) = input.split_first_chunk::<2>()
    {
        let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        parts.push(part);
        input = rest;
    }
    parts.push(input);
    parts
}

/// Returns the protobuf of a profile: made by an encoder whose choices follow the first byte, or what follows as it is.
pub fn protobuf(part: &[u8]) -> Vec<u8> {
    match part.split_first() {
        Some((0, choices)) => odd::profile(choices),
        Some((1, choices)) => odd::wild_profile(choices),
        Some((_, raw)) => raw.to_vec(),
        None => Vec::new(),
    }
}

/// A profile that a segment takes.
pub struct Sent {
    /// The bytes.
    pub raw: Vec<u8>,
    /// What its sender says of it.
    pub meta: ProfileMeta,
}

/// Returns those of the parts that are profiles, of two services and two types, each with an id of its own.
pub fn sent(input: &[u8], max: usize) -> Vec<Sent> {
    let mut all = Vec::new();
    for (part, n) in parts(input, max).into_iter().zip(0_u64..) {
        let raw = protobuf(part);
        let Ok(profile) = decode::decode(&raw, &limits()) else { continue };
        let meta = ProfileMeta {
            id: Ulid::from((n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            profile_type: ProfileType::parse(["cpu", "heap"][n as usize % 2]).expect("a word"),
            labels: Labels::new([("service", ["a", "b"][n as usize / 2 % 2])]).expect("valid labels"),
            time_nanos: profile.time_nanos,
            duration_nanos: profile.duration_nanos,
        };
        all.push(Sent { raw, meta });
    }
    all
}

/// Writes profiles as a segment.
pub fn segment<'a>(profiles: impl IntoIterator<Item = &'a Sent>) -> Bytes {
    let mut writer = SegmentWriter::new(Options::default());
    for sent in profiles {
        let profile = decode::decode(&sent.raw, &limits()).expect("it was decoded before");
        writer.add(sent.meta.clone(), &sent.raw, &profile).expect("a segment takes any profile");
    }
    writer.finish().expect("a segment can be finished").bytes
}

/// Opens a block that lies in memory.
pub async fn opened(bytes: Bytes) -> Block {
    let (store, key): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Path::from("block.agb"));
    store.put(&key, bytes.into()).await.expect("memory takes any object");
    Block::open(store, key).await.expect("what was just written opens")
}

/// Checks that a block gives each of its profiles back as it was sent.
pub async fn check_fetches(block: &Block, all: &[Sent]) {
    for row in block.rows().await.expect("it has rows").iter() {
        let sent = all.iter().find(|sent| sent.meta.id == row.id).expect("it holds what was sent");
        assert_eq!(block.fetch(row).await.expect("it comes back"), sent.raw);
    }
}

/// Runs a future to its end; nothing in it waits for the world.
pub fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing");
    runtime.block_on(future);
}
