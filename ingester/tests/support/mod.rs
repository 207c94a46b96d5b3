//! A real server on a real port, over a store in memory that fails as it is told, and the three ways to push to it.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod pprof;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_ingester::Settings;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushProfileRequest, PushRequest, PushResponse};
use afterglow_service::access::Role;
use afterglow_service::listen::{Drain, Server};
use afterglow_service::{Health, Metrics, Program};
use afterglow_store::clock::{Clock, SystemRandom};
use afterglow_store::testing::faults::Faulty;
use afterglow_store::{Store, StoreOptions, put};
use bytes::Bytes;
use clap::Parser;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::memory::InMemory;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

/// The time of arrival of everything: 2026-11-24T22:23:20Z.
pub(crate) const NOW_NANOS: i64 = 1_795_559_000_000_000_000;

/// A clock that stands still, so that what refusals say of the time is always the same.
#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(NOW_NANOS.unsigned_abs())
    }
}

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A server under test; it ends with the runtime of the test.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) store: Faulty,
    pub(crate) objects: Store,
    pub(crate) metrics: Metrics,
    /// Drains the ingester, the server, or both.
    pub(crate) stop_ingester: CancellationToken,
    pub(crate) stop_server: CancellationToken,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

impl TestServer {
    /// Starts a server with these arguments. A PUT is tried once.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let arguments = [&["afterglow-ingester", "--storage=memory://"], arguments].concat();
        let settings = Settings::try_parse_from(arguments).expect("arguments of the test");
        let program = Program::new("test");
        let metrics = Metrics::new(program);
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let options = StoreOptions {
            clock: Arc::new(Standing),
            random: Arc::new(SystemRandom),
            put: Some(put::Policy::local()),
            ..StoreOptions::default()
        };
        let objects = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options);
        let (limits, retention) = (&settings.server.limits, settings.maintenance.retention.policy());
        let ingester = afterglow_ingester::build(&settings.ingester, limits, retention, objects.clone(), &metrics);
        let server = Server::new(program, settings.server.clone(), Health::new(), metrics.clone())
            .grpc(Role::Write, ingester.grpc())
            .admission(afterglow_ingester::PUSH_PROFILE, ingester.admission())
            .http(Role::Write, ingester.routes());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop_ingester, stop_server) = (CancellationToken::new(), CancellationToken::new());
        let (ingester_stopped, server_stopped) = (stop_ingester.clone(), stop_server.clone());
        let ended = tokio::spawn(async move {
            let drain = Drain { ..settings.server.drain };
            let (served, drained) =
                tokio::join!(server.run(listener, server_stopped), ingester.run(ingester_stopped, &drain));
            served.expect("the server begins");
            assert_eq!(drained.left, 0);
        });
        Self { address, store: faulty, objects, metrics, stop_ingester, stop_server, ended }
    }

    /// Opens a connection of its own.
    pub(crate) async fn grpc(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::connect(format!("http://{}", self.address)).await.expect("a connection")
    }

    /// Opens a stream: what is sent goes in at the left, answers come out at the right.
    pub(crate) async fn stream(&self) -> (mpsc::Sender<PushRequest>, tonic::Streaming<PushResponse>) {
        let (sender, receiver) = mpsc::channel(1024);
        let answers = self.grpc().await.push(ReceiverStream::new(receiver)).await.expect("a stream");
        (sender, answers.into_inner())
    }
}

/// How to push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Stream,
    Chunks,
    Call,
    Http,
}

/// A profile to push.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) id: String,
    pub(crate) profile_type: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) time_nanos: Option<i64>,
    pub(crate) tenant: Option<String>,
    /// What is sent as `authorization`.
    pub(crate) authorization: Option<String>,
    pub(crate) body: Bytes,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    /// The status, over HTTP.
    pub(crate) http: Option<u16>,
    pub(crate) message: String,
    /// Whether the answer says when to try again.
    pub(crate) retriable: bool,
    pub(crate) id: String,
    pub(crate) duplicate: bool,
    pub(crate) warnings: Vec<String>,
    pub(crate) read_token: String,
}

impl Push {
    /// A profile of service `api` and type `cpu`.
    pub(crate) fn new(body: impl Into<Bytes>) -> Self {
        Self {
            id: String::new(),
            profile_type: "cpu".to_owned(),
            labels: vec![("service".to_owned(), "api".to_owned())],
            time_nanos: None,
            tenant: None,
            authorization: None,
            body: body.into(),
        }
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn id(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile {
            id: self.id.clone(),
            r#type: self.profile_type.clone(),
            labels: self.labels.iter().cloned().collect(),
            time: self.time_nanos.map(|nanos| afterglow_proto::Timestamp {
                seconds: nanos.div_euclid(1_000_000_000),
                nanos: nanos.rem_euclid(1_000_000_000) as i32,
            }),
            duration: None,
            pprof: self.body.clone(),
        }
    }

    pub(crate) fn request(&self) -> PushProfileRequest {
        PushProfileRequest { profile: Some(self.profile()) }
    }

    /// Pushes it.
    pub(crate) async fn by(&self, way: Way, server: &TestServer) -> Outcome {
        match way {
            Way::Stream => {
                let whole = PushRequest { seq: 7, part: Some(Part::Profile(self.profile())), ..PushRequest::default() };
                self.stream(server, vec![whole]).await
            }
            Way::Chunks => self.stream(server, pprof::chunks(7, self.profile(), 1000)).await,
            Way::Call => self.call(server).await,
            Way::Http => self.http(server).await,
        }
    }

    async fn stream(&self, server: &TestServer, messages: Vec<PushRequest>) -> Outcome {
        let mut request = tonic::Request::new(tokio_stream::iter(messages));
        self.name_sender(&mut request);
        let answers = match server.grpc().await.push(request).await {
            Ok(answers) => answers,
            Err(status) => return Outcome::of_status(&status),
        };
        let mut answers = answers.into_inner();
        let answer = match answers.message().await {
            Ok(answer) => answer.expect("an answer for a profile"),
            Err(status) => return Outcome::of_status(&status),
        };
        assert_eq!(answer.seq, 7);
        assert_eq!(answers.message().await.expect("a good end"), None, "one answer a profile");
        Outcome::of_answer(answer)
    }

    async fn call(&self, server: &TestServer) -> Outcome {
        let mut request = tonic::Request::new(self.request());
        self.name_sender(&mut request);
        match server.grpc().await.push_profile(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                Outcome {
                    id: answer.id,
                    duplicate: answer.duplicate,
                    warnings: answer.warnings,
                    read_token: answer.read_token,
                    ..Outcome::ok()
                }
            }
            Err(status) => Outcome::of_status(&status),
        }
    }

    fn name_sender<T>(&self, request: &mut tonic::Request<T>) {
        for (name, value) in self.sender() {
            request.metadata_mut().insert(name, value.parse().expect("a metadata value"));
        }
    }

    /// The headers that say who sends, and for whom.
    fn sender(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let sender = [("x-scope-orgid", &self.tenant), ("authorization", &self.authorization)];
        sender.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    async fn http(&self, server: &TestServer) -> Outcome {
        let mut url = url::Url::parse(&format!("http://{}/api/v1/profiles", server.address)).expect("a URL");
        let mut query = url.query_pairs_mut();
        for (name, value) in [("type", &self.profile_type), ("id", &self.id)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if let Some(nanos) = self.time_nanos {
            query.append_pair("time", &nanos.to_string());
        }
        for (name, value) in &self.labels {
            let name = if name == "service" { name.clone() } else { format!("label.{name}") };
            query.append_pair(&name, value);
        }
        drop(query);
        let mut request = reqwest::Client::new().post(url).body(self.body.clone());
        for (name, value) in self.sender() {
            request = request.header(name, value);
        }
        Outcome::of_response(request.send().await.expect("an answer")).await
    }
}

impl Outcome {
    fn ok() -> Self {
        Self {
            code: Code::Ok,
            http: None,
            message: String::new(),
            retriable: false,
            id: String::new(),
            duplicate: false,
            warnings: Vec::new(),
            read_token: String::new(),
        }
    }

    pub(crate) fn of_status(status: &tonic::Status) -> Self {
        let retriable = status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some());
        Self { code: status.code(), message: status.message().to_owned(), retriable, ..Self::ok() }
    }

    pub(crate) fn of_answer(answer: PushResponse) -> Self {
        let status = answer.status.unwrap_or_default();
        Self {
            code: Code::from(status.code),
            message: status.message,
            retriable: status.details.iter().any(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo")),
            id: answer.id,
            duplicate: answer.duplicate,
            warnings: answer.warnings,
            read_token: answer.read_token,
            ..Self::ok()
        }
    }

    pub(crate) async fn of_response(response: reqwest::Response) -> Self {
        let http = Some(response.status().as_u16());
        let retry_after = response.headers().contains_key("retry-after");
        let text = response.text().await.expect("a body");
        let body: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let text_of = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let error = &body["error"];
        if error.is_null() {
            let warnings = body["warnings"].as_array().expect("a list").iter().map(text_of).collect();
            return Self {
                http,
                id: text_of(&body["id"]),
                duplicate: body["duplicate"].as_bool().expect("a flag"),
                warnings,
                read_token: text_of(&body["readToken"]),
                ..Self::ok()
            };
        }
        let details = error["details"].as_array().expect("a list");
        assert_eq!(details.len(), usize::from(retry_after), "Retry-After and RetryInfo say the same: {text}");
        let code = (0..17)
            .map(Code::from)
            .find(|code| screaming(*code) == text_of(&error["code"]))
            .unwrap_or_else(|| panic!("no code in {text}"));
        Self { http, code, message: text_of(&error["message"]), retriable: retry_after, ..Self::ok() }
    }
}

/// A body that is sent as it stands.
pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that begins like this and never goes on.
pub(crate) fn stops_after(begin: impl Into<Bytes>) -> Body {
    let frame = http_body::Frame::data(begin.into());
    let frames = futures::stream::iter([Ok(frame)]).chain(futures::stream::pending());
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Sends a request over a connection of its own, as curl does, and reads the answer to its end.
pub(crate) async fn plain(
    server: &TestServer,
    version: http::Version,
    mut request: http::Request<Body>,
) -> http::Response<Bytes> {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(server.address).await.expect("a connection"));
    let own = || server.address.to_string().parse().expect("a header");
    let host = request.headers_mut().remove("host").unwrap_or_else(own);
    let answer = if version == http::Version::HTTP_2 {
        let at = format!("http://{}{}", host.to_str().expect("ASCII"), request.uri());
        *request.uri_mut() = at.parse().expect("a URI");
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        client.send_request(request).await
    } else {
        request.headers_mut().insert("host", host);
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1");
        tokio::spawn(connection);
        client.send_request(request).await
    };
    let (head, body) = answer.expect("an answer").into_parts();
    assert_eq!(head.version, version);
    http::Response::from_parts(head, body.collect().await.expect("a whole answer").to_bytes())
}

/// Calls a method of the service with a body as it stands, and returns the headers of the answer besides.
pub(crate) async fn raw(server: &TestServer, method: &str, encoding: &str, body: Body) -> (Outcome, http::HeaderMap) {
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/afterglow.v1.IngestService/{method}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(body)
        .expect("a request");
    let (head, body) = client.send_request(request).await.expect("an answer").into_parts();
    let trailers = body.collect().await.expect("a whole answer").trailers().cloned();
    let status = tonic::Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers)).expect("a status");
    (Outcome::of_status(&status), head.headers)
}

/// Returns the name of a code as protobuf has it: `INVALID_ARGUMENT`.
pub(crate) fn screaming(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}
