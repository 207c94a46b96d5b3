//! Shares of merges. Any bytes as a request by a sibling: declined, or the sum of the rows that it names, each once, and never a fault of what is
//! stored. Any profile as a sibling's answer: the question is answered as without it, or with what it brought.

#![no_main]

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use afterglow_fuzz::querier::{Answer, Bucket, Segment, read};
use afterglow_fuzz::{parts, protobuf};
use afterglow_profile::{Limits, decode};
use afterglow_proto::v1;
use afterglow_proto::v1::sibling_service_server::{SiblingService, SiblingServiceServer};
use afterglow_querier::Shares;
use axum::Router;
use axum::body::Body;
use http::Request;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tonic::transport::server::TcpIncoming;
use tower::ServiceExt as _;

/// The parts of a request at most.
const PARTS_MAX: usize = 6;

/// What is asked of a querier that has a sibling, and what it is answered alone.
const QUESTIONS: [&str; 5] = [
    "format=folded",
    "format=flamegraph&limit=8",
    "format=folded&focus=a",
    "format=top&sample_type=contentions",
    "format=pprof",
];

/// A sibling that says whatever it is told to.
#[derive(Clone, Default)]
struct Sibling(Arc<Mutex<v1::MergeShareResponse>>);

#[tonic::async_trait]
impl SiblingService for Sibling {
    async fn merge_share(
        &self,
        _: tonic::Request<v1::MergeShareRequest>,
    ) -> Result<tonic::Response<v1::MergeShareResponse>, tonic::Status> {
        Ok(tonic::Response::new(self.0.lock().expect("nobody panics").clone()))
    }
}

struct World {
    bucket: Bucket,
    segments: [Segment; 2],
    /// What answers requests of siblings.
    shares: Shares,
    sibling: Sibling,
    /// Where it listens.
    address: SocketAddr,
    /// What the questions are answered without it.
    alone: Vec<Answer>,
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

impl World {
    fn new() -> Self {
        let bucket = Bucket::default();
        let segments = [bucket.put(1), bucket.put(2)];
        let querier = bucket.querier(&[]);
        let alone = QUESTIONS.iter().map(|question| get(&bucket, &querier.routes(), question)).collect();
        let (shares, sibling) = (querier.shares(), Sibling::default());
        let address = {
            let _entered = bucket.runtime.enter();
            let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
            let incoming = incoming.with_nodelay(Some(true));
            let address = incoming.local_addr().expect("an address");
            let service = SiblingServiceServer::new(sibling.clone());
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
            address
        };
        Self { bucket, segments, shares, sibling, address, alone }
    }

    /// Returns the routes of a querier that asks the sibling: a new one each time, for who lies is left alone for a while.
    fn asking(&self) -> Router {
        let siblings = format!("--query.siblings={}", self.address);
        self.bucket.querier(&[&siblings, "--query.share-above=1B"]).routes()
    }
}

fn get(bucket: &Bucket, routes: &Router, question: &str) -> Answer {
    let request = Request::get(format!("/api/v1/merge?type=block&{question}")).body(Body::empty()).expect("a request");
    bucket.runtime.block_on(async { read(routes.clone().oneshot(request).await.expect("routes answer")).await })
}

/// A request: its own bytes, but that short keys stand for those of segments, or parts that are made of pieces of the input.
fn request(world: &World, input: &[u8]) -> Vec<u8> {
    let Some((&[how, sample_type], rest)) = input.split_first_chunk::<2>() else { return Vec::new() };
    if how & 1 == 0 {
        return rest.to_vec();
    }
    let mut encoded = Vec::new();
    for piece in parts(rest, PARTS_MAX) {
        let Some((&[which, dataset], steps)) = piece.split_first_chunk::<2>() else { continue };
        let segment = &world.segments[usize::from(which & 1)];
        v1::SharePart {
            path: if which & 2 == 0 { segment.path.to_string() } else { format!("/{}", segment.path) },
            bytes: if which & 4 == 0 { segment.bytes } else { segment.bytes + u64::from(which) },
            dataset: dataset.into(),
            row_steps: steps.iter().map(|&step| if step == u8::MAX { u32::MAX } else { step.into() }).collect(),
        }
        .encode_length_delimited(&mut encoded)
        .expect("a vector grows");
    }
    let request = v1::MergeShareRequest {
        parts: encoded.into(),
        types: i32::from(how >> 1) % 4,
        sample_type: if sample_type == u8::MAX { u32::MAX } else { sample_type.into() },
        estimate_bytes: if how > 128 { u64::MAX } else { 0 },
    };
    request.encode_to_vec()
}

/// Returns the totals of what a request names.
fn named(world: &World, request: &v1::MergeShareRequest) -> Vec<i128> {
    let (mut sums, mut left, mut rows) = (Vec::new(), &request.parts[..], HashSet::new());
    while !left.is_empty() {
        let part = v1::SharePart::decode_length_delimited(&mut left).expect("it was done");
        let segment = world.segments.iter().find(|segment| part.path.ends_with(segment.path.as_ref()));
        let mut row = 0;
        for step in part.row_steps {
            row += step as usize;
            let segment = segment.expect("it was done");
            assert!(rows.insert((&segment.path, row)), "row {row} counts twice");
            let totals = &segment.rows[row].totals;
            sums.resize(totals.len(), 0);
            sums.iter_mut().zip(totals).for_each(|(sum, &total)| *sum += i128::from(total));
        }
    }
    sums
}

/// Asks for a share.
fn share(world: &World, message: &[u8]) {
    let length = u32::try_from(message.len()).expect("an input is short");
    let frame = [&[0][..], &length.to_be_bytes(), message].concat();
    let call = Request::post("/afterglow.v1.SiblingService/MergeShare").header("content-type", "application/grpc");
    let call = call.body(tonic::body::Body::new(http_body_util::Full::from(frame))).expect("a request");
    let response = world.bucket.runtime.block_on(async {
        let response = world.shares.clone().oneshot(call).await.expect("it answers");
        read(response.map(Body::new)).await
    });
    let request = v1::MergeShareRequest::decode(message);
    match (response.grpc_status.as_deref(), request) {
        (Some("0"), Ok(request)) => {
            let answer = v1::MergeShareResponse::decode(&response.body[5..]).expect("an answer is protobuf");
            // What is stored is sound, so all that is there can be read.
            assert_ne!(answer.declined, "not everything could be read");
            if answer.declined.is_empty() {
                let profile = decode::decode(&answer.profile, &Limits::default()).expect("a share is a profile");
                let (totals, sums) = (profile.totals().0.to_vec(), named(world, &request));
                let sums = answer.sample_type.map_or(sums.clone(), |t| vec![sums[t as usize]]);
                assert_eq!(totals.into_iter().map(i128::from).collect::<Vec<_>>(), sums);
            }
        }
        // There is not as much memory as it claims.
        (Some("8"), Ok(request)) => assert!(request.estimate_bytes > 0),
        (Some("13"), Err(_)) => {}
        (status, request) => panic!("{status:?} for {request:?}"),
    }
}

/// Answers a querier that asks for a share.
fn answer(world: &World, input: &[u8]) {
    let Some((&[how, sample_type], profile)) = input.split_first_chunk::<2>() else { return };
    let said = v1::MergeShareResponse {
        profile: protobuf(profile).into(),
        sample_type: match sample_type {
            0 => None,
            u8::MAX => Some(u32::MAX),
            t => Some(u32::from(t) - 1),
        },
        declined: if how & 64 == 0 { String::new() } else { "no".to_owned() },
    };
    let is_profile = said.declined.is_empty() && decode::decode(&said.profile, &Limits::default()).is_ok();
    *world.sibling.0.lock().expect("nobody panics") = said;
    let number = usize::from(how) % QUESTIONS.len();
    let answer = get(&world.bucket, &world.asking(), QUESTIONS[number]);
    let alone = &world.alone[number];
    assert_eq!(alone.status, 200);
    if !is_profile {
        assert!(answer.status == 200 && answer.body == alone.body, "what is no share changes nothing");
    }
    // Profiles that do not go together are said so.
    let said = String::from_utf8_lossy(&answer.body);
    assert!(matches!(answer.status, 200 | 400 | 404 | 422), "{}: {said}", answer.status);
}

fuzz_target!(|input: &[u8]| {
    let Some((&side, rest)) = input.split_first() else { return };
    WORLD.with(|world| {
        let world = world.get_or_init(World::new);
        if side & 1 == 0 { share(world, &request(world, rest)) } else { answer(world, rest) }
    });
});
