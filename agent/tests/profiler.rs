//! The profiler on a process whose work is known: shares of CPU time, what the heap holds, and profiles that meet an ingester.
//!
//! All in one test program of its own: SIGPROF and jemalloc belong to the whole process.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afterglow_agent::ProfilerBuilder;
use afterglow_agent::profiler::{self, Error};
use afterglow_profile::{Limits, Profile, ProfileType, compress, decode, top::Top};
use afterglow_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{PushProfileRequest, PushProfileResponse, PushRequest, PushResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// What they return goes through `black_box`: a call in the last place becomes a jump, and its caller is in no stack. And they differ:
// of two functions with the same code one is kept.
#[inline(never)]
fn three_quarters(n: u64) -> u64 {
    black_box(spin(n).wrapping_add(3))
}

#[inline(never)]
fn one_quarter(n: u64) -> u64 {
    black_box(spin(n))
}

// Not inlined: a copy in each caller may be compiled to loops of different speed.
#[inline(never)]
fn spin(n: u64) -> u64 {
    let mut hash = 1u64;
    for i in 0..n {
        hash = black_box(hash ^ i).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[inline(never)]
fn allocate_for_the_profile() -> Vec<Vec<u8>> {
    black_box((0..64).map(|_| black_box(vec![1u8; 1 << 20])).collect())
}

/// Works on a thread of its own until dropped.
struct Work(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Work {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let mut unit = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                // Rounds of equal length could keep step with the kernel's ticks, and samples would all fall into one part.
                unit = (unit + 61_803) % 100_000;
                three_quarters(3 * (50_000 + unit));
                one_quarter(50_000 + unit);
            }
        };
        Self(stop, Some(std::thread::Builder::new().name("worker".into()).spawn(work).unwrap()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

fn with_profile<T>(pprof: &[u8], look: impl FnOnce(&Profile<'_>) -> T) -> T {
    let limits = Limits::default();
    let bytes = compress::inflate(pprof, &limits).unwrap();
    look(&decode::decode(&bytes, &limits).unwrap())
}

/// Returns the total of a function.
fn total(profile: &Profile<'_>, sample_type: usize, function: &str) -> i64 {
    let top = Top::new(profile, sample_type, None);
    let rows = top.rows.iter().filter(|row| row.name.rsplit("::").next() == Some(function));
    rows.map(|row| row.total).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_profile_has_the_shares_of_the_work_and_says_where_it_ran() {
    let _work = Work::start();
    let pprof = profiler::cpu_profile(Duration::from_secs(3)).await.unwrap();
    with_profile(&pprof, |profile| {
        assert_eq!(ProfileType::detect(profile).as_str(), "cpu");
        assert_eq!(profile.period, 10_000_000);
        assert!((2_900_000_000..6_000_000_000).contains(&profile.duration_nanos), "{}", profile.duration_nanos);
        let three = total(profile, 1, "three_quarters");
        let one = total(profile, 1, "one_quarter");
        let share = three as f64 / (three + one) as f64;
        // Some 100 samples on a busy machine: four standard deviations.
        assert!((0.58..0.92).contains(&share), "{three} and {one}");

        let program = std::env::current_exe().unwrap();
        let main = &profile.mappings[0];
        assert_eq!(profile.string(main.file), program.to_str().unwrap().as_bytes());
        assert!(main.has[0] && !profile.string(main.build_id).is_empty());
        let thread = profile.samples.labels.iter().any(|label| profile.string(label.str) == b"worker");
        assert!(thread, "samples say which thread");
        for i in 0..profile.samples.len() {
            let leaf = profile.lines_of(profile.samples.stack(i)[0]);
            let names: Vec<_> =
                leaf.iter().map(|l| profile.string(profile.functions[l.function as usize].name)).collect();
            assert!(!names.contains(&&b"perf_signal_handler"[..]), "the sampling is not part of the profile");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heap_profile_has_what_is_alive() {
    profiler::heap_profile().await.unwrap();
    let held = allocate_for_the_profile();
    let pprof = profiler::heap_profile().await.unwrap();
    with_profile(&pprof, |profile| {
        assert_eq!(ProfileType::detect(profile).as_str(), "heap");
        let bytes = total(profile, 1, "allocate_for_the_profile");
        let expected = (held.len() << 20) as f64;
        assert!((0.7..1.4).contains(&(bytes as f64 / expected)), "{bytes} of {expected}");
    });
    drop(held);
    let pprof = profiler::heap_profile().await.unwrap();
    with_profile(&pprof, |profile| {
        let bytes = total(profile, 1, "allocate_for_the_profile");
        assert!(bytes < 16 << 20, "{bytes}");
    });
}

#[tokio::test]
async fn a_frequency_out_of_range_is_refused() {
    for frequency in [0, 1001] {
        let started = ProfilerBuilder::new("http://127.0.0.1:1", "tested").frequency(frequency).start();
        assert!(matches!(started, Err(Error::Frequency { .. })));
    }
}

/// Acknowledges all profiles and passes them on.
struct Ingester(mpsc::Sender<afterglow_proto::v1::Profile>);

#[tonic::async_trait]
impl IngestService for Ingester {
    type PushStream = ReceiverStream<Result<PushResponse, Status>>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        let (answers, receiver) = mpsc::channel(16);
        let (mut requests, profiles) = (request.into_inner(), self.0.clone());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(Part::Profile(profile)) = request.part else { panic!("only small profiles are expected") };
                let answer = PushResponse { seq: request.seq, id: profile.id.clone(), ..Default::default() };
                profiles.send(profile).await.unwrap();
                answers.send(Ok(answer)).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn push_profile(&self, _: Request<PushProfileRequest>) -> Result<Response<PushProfileResponse>, Status> {
        Err(Status::unimplemented("only streams"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_profiler_sends_window_after_window_and_lets_requests_in_between() {
    let (sender, mut received) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let service = IngestServiceServer::new(Ingester(sender));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));

    let builder = ProfilerBuilder::new(server, "tested").label("version", "1");
    let profiler = builder.period(Duration::from_secs(1)).start().unwrap();
    let _work = Work::start();
    let mut next = async |profile_type: &str| {
        loop {
            let profile = received.recv().await.expect("the server is there");
            if profile.r#type == profile_type {
                return profile;
            }
        }
    };
    let first = next("cpu").await;
    assert_eq!(
        first.labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>(),
        ["service=tested", "version=1"]
    );
    next("heap").await;
    // On demand, two at once, longer than a window of the other.
    let demand = async || profiler::cpu_profile(Duration::from_secs(2)).await.unwrap();
    let began = Instant::now();
    let (one, two) = tokio::join!(demand(), demand());
    assert!(began.elapsed() < Duration::from_secs(10));
    for on_demand in [one, two] {
        with_profile(&on_demand, |profile| {
            assert!(profile.duration_nanos >= 1_900_000_000, "{}", profile.duration_nanos);
            assert!(total(profile, 1, "three_quarters") > 0);
        });
    }
    let after = next("cpu").await;
    assert_ne!(first.id, after.id);
    with_profile(&after.pprof, |profile| {
        assert!(profile.duration_nanos < 2_000_000_000, "a window ends though others are recording");
    });
    assert_eq!(profiler.stop().await, 0);
}
