//! A server over real sockets whose handlers do what a test asks of them, and clients to ask.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use afterglow_proto::v1::{Profile, PushProfileRequest, PushProfileResponse, PushRequest, PushResponse};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream::{Stream, StreamExt as _};
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::access::Role;
use crate::listen::{Admission, Door, Drained, Error, Options, Server, bind};
use crate::stack::{self, Closing, Hold};
use crate::{Failure, Health, Metrics, Program};

pub(crate) const PROGRAM: Program = Program { name: "afterglow-test", version: "1.2.3", revision: "abc" };

/// Long enough for any machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes handlers wait until the test says so, and lets the test wait for them.
#[derive(Debug)]
pub(crate) struct Gate {
    arrived: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self { arrived: Semaphore::new(0), open: Semaphore::new(0) }
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }

    /// Waits until a handler stands at the gate.
    pub(crate) async fn arrival(&self) {
        let arrived = tokio::time::timeout(PATIENCE, self.arrived.acquire()).await;
        arrived.expect("a handler arrives in time").expect("never closed").forget();
    }

    /// Lets one handler pass.
    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) gate: Arc<Gate>,
    /// Whether calls of `PushProfile` are sent back.
    pub(crate) full: Arc<AtomicBool>,
    /// The bytes of answers of `/large` that their clients have not taken.
    pub(crate) held: Arc<AtomicUsize>,
    pub(crate) stop: CancellationToken,
    pub(crate) door: Door,
    task: JoinHandle<Result<Drained, Error>>,
}

/// What came back over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

impl Running {
    pub(crate) async fn start(options: Options) -> Self {
        subscribe();
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let (health, metrics) = (Health::new(), Metrics::new(PROGRAM));
        let gate = Arc::new(Gate::new());
        let full = Arc::new(AtomicBool::new(false));
        let held = Arc::new(AtomicUsize::new(0));
        let service = IngestServiceServer::new(Ingest { gate: Arc::clone(&gate) })
            .max_decoding_message_size(options.limits.message_bytes_max())
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        let server = Server::new(PROGRAM, options, health.clone(), metrics.clone())
            .grpc(Role::Write, service)
            .admission("/afterglow.v1.IngestService/PushProfile", Arc::new(Switch(Arc::clone(&full))))
            .http(Role::Read, routes(&gate, &held))
            .pages(Router::new().route("/page", get(async || "a page")));
        let door = server.door();
        let (address, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
        let task = tokio::spawn(server.run(listener, stop.clone()));
        Self { address, health, metrics, gate, full, held, stop, door, task }
    }

    /// Waits until the server has ended.
    pub(crate) async fn end(self) -> Drained {
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("the server ends in time");
        ended.expect("no panic").expect("no error")
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("a URI");
        endpoint.connect().await.expect("a connection")
    }

    pub(crate) async fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel().await)
    }

    /// Sends a request over a connection of its own, by HTTP/1.1 or, if it says so, HTTP/2.
    pub(crate) async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        self.try_send(request, Full::new(body.into())).await.expect("an answer")
    }

    pub(crate) async fn try_send<B>(
        &self,
        request: http::request::Builder,
        body: B,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut request = request.body(body)?;
        let path = request.uri().path_and_query().expect("a path").clone();
        *request.uri_mut() = format!("http://{}{path}", self.address).parse()?;
        let http2 = request.version() == Version::HTTP_2;
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let response = client.request(request).await?;
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await?;
        // gRPC says the same in trailers as in the head of an answer without messages.
        parts.headers.extend(body.trailers().cloned().unwrap_or_default());
        let body = body.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), version: parts.version, headers: parts.headers, body })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    /// Waits until the text of the metrics has the line.
    pub(crate) async fn metric(&self, line: &str) {
        let found = async {
            while !self.metrics.text().expect("text").lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{line} is missing in\n{}", self.metrics.text().expect("text")));
    }
}

/// Returns a request to push a profile of this id, which says what the handler does.
pub(crate) fn push(id: &str) -> PushProfileRequest {
    PushProfileRequest { profile: Some(Profile { id: id.to_owned(), ..Profile::default() }) }
}

/// Lets calls in until it is switched.
struct Switch(Arc<AtomicBool>);

impl Admission for Switch {
    fn admit(&self, _: &mut http::Extensions) -> bool {
        !self.0.load(Ordering::SeqCst)
    }

    fn refusal(&self) -> Failure {
        Failure::exhausted("no room", Duration::from_secs(2).mul_f64(rand::random_range(1.0..2.0)))
    }
}

/// Does by the id of a profile: `wait` at the gate, `panic`, or answer at once.
struct Ingest {
    gate: Arc<Gate>,
}

#[tonic::async_trait]
impl IngestService for Ingest {
    type PushStream = Pin<Box<dyn Stream<Item = Result<PushResponse, Status>> + Send>>;

    async fn push(
        &self,
        request: tonic::Request<Streaming<PushRequest>>,
    ) -> Result<tonic::Response<Self::PushStream>, Status> {
        let closing = request.extensions().get::<Closing>().cloned().expect("the listener says when it closes");
        let answers = request.into_inner().map(|request| {
            let request = request?;
            assert_ne!(request.seq, 13, "a panic in the middle of a stream");
            Ok(PushResponse { seq: request.seq, ..PushResponse::default() })
        });
        let answers = answers.take_until(async move { closing.wait().await });
        Ok(tonic::Response::new(Box::pin(answers)))
    }

    async fn push_profile(
        &self,
        request: tonic::Request<PushProfileRequest>,
    ) -> Result<tonic::Response<PushProfileResponse>, Status> {
        let id = request.into_inner().profile.unwrap_or_default().id;
        match id.as_str() {
            "wait" => self.gate.pass().await,
            "panic" => panic!("asked to, secretly"),
            _ => {}
        }
        Ok(tonic::Response::new(PushProfileResponse { id, ..PushProfileResponse::default() }))
    }
}

fn routes(gate: &Arc<Gate>, held: &Arc<AtomicUsize>) -> Router {
    let held = Arc::clone(held);
    let (gate, call_gate) = (Arc::clone(gate), Arc::clone(gate));
    let broken = || {
        futures::stream::iter([Ok::<_, io::Error>("begin"), Ok("end")]).map(|part| {
            assert!(!matches!(part, Ok("end")), "a panic in the middle of a body");
            part
        })
    };
    Router::new()
        .route(
            "/wait",
            get(async move || {
                gate.pass().await;
                "waited"
            }),
        )
        .route("/panic", get(async || -> &'static str { panic!("asked to, secretly") }))
        .route("/panic-in-body", get(async move || Response::new(Body::from_stream(broken()))))
        .route("/things/{id}", get(async || "a thing"))
        .route("/tenant", get(async |headers: http::HeaderMap| seen(&headers)).post(async |headers| seen(&headers)))
        .route("/echo", post(async |body: Body| crate::http::read_body(body).await))
        .route("/json", get(async || crate::http::json(&vec!["a string"; 1000])))
        .route("/pprof", get(async || crate::http::file("cpu.pb.gz", vec![b'a'; 10_000])))
        .route(
            "/large",
            get(async move || {
                stack::keep(Held { bytes: 0, all: held });
                crate::http::file("large", vec![b'a'; LARGE_BYTES])
            }),
        )
        .route("/fail", get(async || Failure::unavailable("store is down", Duration::from_secs(2))))
        .route("/test.v1.Things/Fail", post(async || Failure::unavailable("store is down", Duration::from_secs(2))))
        .route("/test.v1.Things/Echo", post(async |body: Body| crate::http::read_body(body).await))
        .route(
            "/test.v1.Things/Wait",
            post(async move || {
                call_gate.pass().await;
                "waited"
            }),
        )
}

/// An answer of which the kernel holds a part at most.
pub(crate) const LARGE_BYTES: usize = 6 << 20;

/// Counts what an answer comes to for as long as it is held.
struct Held {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Hold for Held {
    fn settle(&mut self, bytes: u64) {
        self.bytes = bytes as usize;
        self.all.fetch_add(self.bytes, Ordering::SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Says what a handler sees of who asks.
fn seen(headers: &http::HeaderMap) -> Result<String, Failure> {
    let tenant = crate::tenant::from_headers(headers)?;
    let token = if headers.contains_key(http::header::AUTHORIZATION) { "with" } else { "without" };
    Ok(format!("{tenant} {token} token"))
}

/// Runs `act` and returns what it logged, as text lines of all levels.
pub(crate) fn logged<T>(act: impl FnOnce() -> T) -> (T, String) {
    let lines = Lines::capture();
    let result = act();
    (result, lines.text())
}

/// What is logged on a test's thread, on which its runtime runs as well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static CAPTURED: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

impl Lines {
    /// Captures what this thread logs from now on.
    pub(crate) fn capture() -> Self {
        subscribe();
        let lines = Self::default();
        CAPTURED.set(Some(lines.clone()));
        lines
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes this process listen to our own spans and events. Every test that logs needs it, captured or not: where one
/// thread alone has a subscriber, a span that another thread meets first is taken for one that nobody wants, for ever
/// (tokio-rs/tracing#3611).
pub(crate) fn subscribe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ours = filter_fn(|metadata| metadata.target().starts_with("afterglow") || metadata.target() == "audit");
        let captured = || CAPTURED.with_borrow(Clone::clone).unwrap_or_default();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(captured).with_filter(ours);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("the only one");
    });
}
