//! A querier on a real port over a bucket in memory, whose objects can be damaged and whose store fails as told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_profile::model::{Function, Line, Location, NONE, ValueType};
use afterglow_profile::{Labels, Limits, Profile, ProfileType, compress, decode, encode};
use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_querier::Config;
use afterglow_service::access::Role;
use afterglow_service::{Health, Metrics, Program, listen};
use afterglow_store::block::{self, ProfileMeta, SegmentWriter};
use afterglow_store::clock::Clock;
use afterglow_store::maintenance::{self, Maintainer};
use afterglow_store::paths::{SegmentKey, TenantId};
use afterglow_store::retention::Policy;
use afterglow_store::testing::faults::Faulty;
use afterglow_store::{Store, StoreOptions};
use bytes::Bytes;
use clap::Parser;
use http::HeaderMap;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use ulid::Ulid;
use url::form_urlencoded;

/// Now, in all tests: the fixtures are of the quarter of an hour before.
pub(crate) const NOW_NANOS: i64 = 1_795_482_000 * SECOND;
pub(crate) const SECOND: i64 = 1_000_000_000;

/// A clock that stands.
#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(NOW_NANOS as u64)
    }
}

/// A bucket, a querier over it, and clients.
pub(crate) struct World {
    pub(crate) store: Store,
    /// What makes the store fail.
    pub(crate) faults: Faulty,
    pub(crate) grpc: QueryServiceClient<Channel>,
    address: String,
    http: reqwest::Client,
    _stop: DropGuard,
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A profile as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) meta: ProfileMeta,
    pub(crate) raw: Vec<u8>,
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    server: listen::Options,
    #[command(flatten)]
    query: Config,
}

// === impl World ===

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Starts a querier with these flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        Self::over(Arc::new(InMemory::new()), flags).await
    }

    /// Starts a querier over objects that others may have as well; what makes its store fail is its own.
    pub(crate) async fn over(objects: Arc<dyn ObjectStore>, flags: &[&str]) -> Self {
        let faults = Faulty::new(objects);
        let options = StoreOptions { clock: Arc::new(Standing), ..StoreOptions::default() };
        let Arguments { server, query } = Arguments::parse_from([&["querier"], flags].concat());

        let program = Program::new("afterglow-querier");
        let metrics = Metrics::new(program);
        let options = StoreOptions { metrics: metrics.register(afterglow_store::Metrics::new), ..options };
        let store = Store::new(Arc::new(faults.clone()), "memory://".to_owned(), options);
        let querier = afterglow_querier::build(&query, store.clone(), &metrics);
        let listener = listen::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let server = listen::Server::new(program, server, Health::new(), metrics)
            .grpc(Role::Read, querier.grpc())
            .grpc(Role::Read, querier.shares())
            .http(Role::Read, querier.routes())
            .pages(querier.pages());
        tokio::spawn(server.run(listener, stop.clone()));

        let channel = Channel::from_shared(address.clone()).unwrap().connect().await.unwrap();
        let grpc = QueryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Self { store, faults, grpc, address, http: reqwest::Client::new(), _stop: stop.drop_guard() }
    }

    /// Returns the URL of the querier.
    pub(crate) fn url(&self) -> &str {
        &self.address
    }

    /// Stores profiles as one segment.
    pub(crate) async fn put(&self, profiles: &[Sent]) -> SegmentKey {
        self.put_as(&TenantId::anonymous(), profiles).await
    }

    pub(crate) async fn put_as(&self, tenant: &TenantId, profiles: &[Sent]) -> SegmentKey {
        let mut writer = SegmentWriter::new(block::Options::default());
        for Sent { meta, raw } in profiles {
            writer.add(meta.clone(), raw, &decoded(raw)).unwrap();
        }
        let bytes = writer.finish().unwrap().bytes;
        let deadline = Instant::now() + Duration::from_secs(5);
        self.store.put_segment(tenant, bytes, deadline).await.unwrap()
    }

    /// Compacts until nothing is left to do.
    pub(crate) async fn compact(&self) {
        // Its clock stands; nothing is to go by age.
        let retention = Policy { age_max: None, ..Policy::default() };
        let options = maintenance::Options { retention, ..maintenance::Options::default() };
        let report = Maintainer::new(self.store.clone(), options).run_to_rest().await.unwrap();
        assert_eq!(report.failed, []);
    }

    /// Asks by GET. A path without `?` takes the parameters in `query`, which are escaped here.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Answer {
        self.get_with(path, query, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, query: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        self.ask(reqwest::Method::GET, path, query, headers).await
    }

    pub(crate) async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let separator = if query.is_empty() { "" } else { "?" };
        send(self.http.request(method, format!("{}{path}{separator}{query}", self.address)), headers).await
    }

    /// Asks by POST, as callers of Connect do.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        send(self.http.post(format!("{}{path}", self.address)).body(body.into()), headers).await
    }

    /// Asks for JSON, and expects it.
    pub(crate) async fn json(&self, path: &str, query: &[(&str, &str)]) -> serde_json::Value {
        let answer = self.get(path, query).await;
        assert_eq!(answer.status, 200, "{answer}");
        answer.json()
    }

    /// Asks what must be refused, and returns status, code and message in a line.
    pub(crate) async fn refusal(&self, path: &str, query: &[(&str, &str)]) -> String {
        let answer = self.get(path, query).await;
        let error = &answer.json()["error"];
        format!("{} {} {}", answer.status, error["code"].as_str().unwrap(), error["message"].as_str().unwrap())
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

// === profiles ===

/// Returns a profile of the fixtures, with its own time.
pub(crate) fn fixture(file: &str, id: u128, labels: &[(&str, &str)]) -> Sent {
    let raw = fixture_raw(file);
    let profile = decoded(&raw);
    let meta = ProfileMeta {
        id: Ulid::from(id),
        profile_type: ProfileType::parse(file.split('-').nth(1).unwrap()).unwrap(),
        labels: Labels::new(labels.iter().copied()).unwrap(),
        time_nanos: profile.time_nanos,
        duration_nanos: profile.duration_nanos,
    };
    drop(profile);
    Sent { meta, raw }
}

/// Returns the protobuf of a profile of the fixtures.
pub(crate) fn fixture_raw(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/profiles");
    let body = std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    compress::inflate(&body, &Limits::default()).unwrap().into_owned()
}

/// Returns the names of all fixtures.
pub(crate) fn fixtures() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/profiles");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".pb.gz")).collect();
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    names
}

/// Makes a small profile: what it counts, and its stacks, root first, with their values.
pub(crate) fn small(
    id: u128,
    profile_type: &str,
    labels: &[(&str, &str)],
    time_nanos: i64,
    counts: &[(&str, &str)],
    stacks: &[(&[&str], &[i64])],
) -> Sent {
    let mut profile = Profile { strings: vec![b""], time_nanos, duration_nanos: 10 * SECOND, ..Profile::default() };
    fn intern<'a>(profile: &mut Profile<'a>, text: &'a str) -> u32 {
        let known = profile.strings.iter().position(|&string| string == text.as_bytes());
        known.unwrap_or_else(|| {
            profile.strings.push(text.as_bytes());
            profile.strings.len() - 1
        }) as u32
    }
    for (kind, unit) in counts {
        let (kind, unit) = (intern(&mut profile, kind), intern(&mut profile, unit));
        profile.sample_types.push(ValueType { kind, unit, shape: 0 });
    }
    for (stack, values) in stacks {
        for name in stack.iter().rev() {
            let name = intern(&mut profile, name);
            let known = profile.functions.iter().position(|function| function.name == name);
            let index = known.unwrap_or_else(|| {
                let at = profile.functions.len() as u32;
                let id = u64::from(at) + 1;
                profile.functions.push(Function { id, name, ..Function::default() });
                profile.lines.push(Line { function: at, line: 7, ..Line::default() });
                let (lines_start, lines_end) = (at, at + 1);
                profile.locations.push(Location { id, mapping: NONE, lines_start, lines_end, ..Location::default() });
                at as usize
            });
            profile.samples.locations.push(index as u32);
        }
        let samples = &mut profile.samples;
        samples.location_ends.push(samples.locations.len() as u32);
        samples.label_ends.push(0);
        samples.values.extend_from_slice(values);
    }
    let raw = encode::encode(&profile);
    let meta = ProfileMeta {
        id: Ulid::from(id),
        profile_type: ProfileType::parse(profile_type).unwrap(),
        labels: Labels::new(labels.iter().copied()).unwrap(),
        time_nanos,
        duration_nanos: 10 * SECOND,
    };
    Sent { meta, raw }
}

/// Makes a small CPU profile, `seconds` before now.
pub(crate) fn cpu(id: u128, labels: &[(&str, &str)], seconds: i64) -> Sent {
    let stacks: [(&[&str], &[i64]); 2] = [(&["main", "work"], &[3, 30]), (&["main", "idle"], &[1, 10])];
    small(id, "cpu", labels, NOW_NANOS - seconds * SECOND, &[("samples", "count"), ("cpu", "nanoseconds")], &stacks)
}

/// Decodes a protobuf.
pub(crate) fn decoded(raw: &[u8]) -> Profile<'_> {
    decode::decode(raw, &Limits::default()).unwrap()
}

/// Returns what a profile means, whatever the order of its tables: its header, and its samples as texts with their values.
pub(crate) fn meaning(profile: &Profile<'_>) -> (String, BTreeMap<String, Vec<i64>>) {
    let text = |index| String::from_utf8_lossy(profile.string(index)).into_owned();
    let value_type = |t: &ValueType| format!("{}/{}", text(t.kind), text(t.unit));
    let sample_types: Vec<String> = profile.sample_types.iter().map(value_type).collect();
    let main = profile.mappings.first().map(|main| text(main.file));
    let header = format!(
        "{sample_types:?} {:?} {} at {} for {} default {:?} of {main:?} without {:?}",
        profile.period_type.as_ref().map(value_type),
        profile.period,
        profile.time_nanos,
        profile.duration_nanos,
        text(profile.default_sample_type),
        text(profile.drop_frames),
    );
    let location = |&index: &u32| {
        let location = &profile.locations[index as usize];
        let place = match profile.mappings.get(location.mapping as usize) {
            Some(mapping) => {
                let (file, build) = (text(mapping.file), text(mapping.build_id));
                format!("{file} {build} {:x}", location.address.wrapping_sub(mapping.start))
            }
            None => format!("{:x}", location.address),
        };
        let lines = profile.lines_of(index).iter().map(|line| match profile.functions.get(line.function as usize) {
            Some(function) => format!("{} {} {}", text(function.name), text(function.file), line.line),
            None => format!("? {}", line.line),
        });
        format!("{place} {:?}", lines.collect::<Vec<_>>())
    };
    let mut samples = BTreeMap::new();
    for i in 0..profile.samples.len() {
        let stack: Vec<String> = profile.samples.stack(i).iter().map(location).collect();
        let mut labels: Vec<String> = (profile.samples.labels(i).iter())
            .map(|label| format!("{}={}{}{}", text(label.key), text(label.str), label.num, text(label.num_unit)))
            .collect();
        labels.sort();
        let sums = samples.entry(format!("{stack:?} {labels:?}")).or_insert_with(|| vec![0; sample_types.len()]);
        sums.iter_mut().zip(profile.values(i)).for_each(|(sum, value)| *sum += value);
    }
    (header, samples)
}

async fn send(mut request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> Answer {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap() }
}
