//! A fake ingester on a real socket, which answers as a script says: late, in any order, not at all, with failures, and which dies in
//! mid-stream.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterglow_proto::Any;
use afterglow_proto::google::rpc::Status as RpcStatus;
use afterglow_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushProfileRequest, PushProfileResponse, PushRequest, PushResponse};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::pb::RetryInfo;

/// What the fake does with the n-th profile it receives, over all streams.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Stores and acknowledges it.
    Ack,
    /// Stores it, but the stream breaks before the answer.
    StoreAndBreak,
    /// Breaks the stream with a status before anything is stored.
    Break(Code),
    /// Ends the stream with OK, as a server that drains.
    EndStream,
    /// Answers with this code, and a delay in milliseconds if any.
    Answer(Code, Option<u64>),
    /// Never answers.
    Ignore,
    /// Acknowledges it after the next profile's answer.
    AckAfterNext,
}

pub(crate) type Script = Arc<dyn Fn(usize, &Profile) -> Act + Send + Sync>;

/// What the fake has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) received: usize,
    /// Stored profiles by id, and how often each came.
    pub(crate) stored: BTreeMap<String, (Profile, usize)>,
    /// When each profile arrived.
    pub(crate) arrivals: Vec<(String, Instant)>,
    pub(crate) streams: usize,
    pub(crate) metadata: HashMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) script: Script,
    /// Whether a stream is refused when it opens.
    pub(crate) denies: Arc<AtomicBool>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
}

/// A running fake. Dropped, it dies as by SIGKILL: the port closes and every connection breaks.
pub(crate) struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fake {
    pub(crate) fn new(script: impl Fn(usize, &Profile) -> Act + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), denies: Arc::default(), seen: Arc::default(), changed: Arc::default() }
    }

    /// Serves on `address` in a runtime of its own.
    pub(crate) async fn serve(&self, address: SocketAddr) -> (SocketAddr, Running) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = IngestServiceServer::new(self.clone()).max_decoding_message_size(4 << 20);
        let address = runtime
            .spawn(async move {
                let listener = bind(address).await;
                let address = listener.local_addr().unwrap();
                let incoming = TcpListenerStream::new(listener);
                tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
                address
            })
            .await
            .unwrap();
        (address, Running(Some(runtime)))
    }

    pub(crate) fn stored(&self) -> usize {
        self.seen.lock().unwrap().stored.len()
    }

    pub(crate) async fn wait_until(&self, condition: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.seen.lock().unwrap()) {
                return;
            }
            changed.await;
        }
    }
}

/// Binds; a port that was just given up may take a moment.
pub(crate) async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

pub(crate) fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tonic::async_trait]
impl IngestService for Fake {
    type PushStream = BoxStream<'static, Result<PushResponse, Status>>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.streams += 1;
            for key in ["x-scope-orgid", "authorization", "user-agent"] {
                if let Some(value) = request.metadata().get(key) {
                    seen.metadata.insert(key.into(), value.to_str().unwrap().into());
                }
            }
        }
        if self.denies.load(Ordering::Relaxed) {
            return Err(Status::unauthenticated("not for you"));
        }
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(self.clone().answer(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn push_profile(&self, _: Request<PushProfileRequest>) -> Result<Response<PushProfileResponse>, Status> {
        Err(Status::unimplemented("only streams"))
    }
}

impl Fake {
    async fn answer(self, mut requests: Streaming<PushRequest>, answers: mpsc::Sender<Result<PushResponse, Status>>) {
        let mut parts: HashMap<u64, (Profile, u64, Vec<u8>)> = HashMap::new();
        let mut delayed = Vec::new();
        while let Some(request) = requests.next().await {
            let request = match request {
                Ok(request) => request,
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            };
            let seq = request.seq;
            let profile = match request.part.expect("every request has a part") {
                Part::Profile(profile) => profile,
                Part::Header(header) => {
                    parts.insert(seq, (header.profile.expect("a header has a profile"), header.size, Vec::new()));
                    continue;
                }
                Part::Chunk(chunk) => {
                    let (_, size, bytes) = parts.get_mut(&seq).expect("a chunk follows its header");
                    bytes.extend_from_slice(&chunk.data);
                    if (bytes.len() as u64) < *size {
                        continue;
                    }
                    let (mut profile, size, bytes) = parts.remove(&seq).unwrap();
                    assert_eq!(bytes.len() as u64, size);
                    profile.pprof = bytes.into();
                    profile
                }
            };
            let act = {
                let mut seen = self.seen.lock().unwrap();
                seen.received += 1;
                seen.arrivals.push((profile.id.clone(), Instant::now()));
                (self.script)(seen.received, &profile)
            };
            let mut answer = PushResponse { seq, id: profile.id.clone(), ..Default::default() };
            if matches!(act, Act::Ack | Act::AckAfterNext | Act::StoreAndBreak) {
                let mut seen = self.seen.lock().unwrap();
                let stored = seen.stored.entry(profile.id.clone()).or_insert((profile, 0));
                stored.1 += 1;
                answer.duplicate = stored.1 > 1;
            }
            self.changed.notify_waiters();
            match act {
                Act::Ack => {}
                Act::AckAfterNext => {
                    delayed.push(answer);
                    continue;
                }
                Act::StoreAndBreak => {
                    let _ = answers.send(Err(Status::unknown("h2 protocol error"))).await;
                    return;
                }
                Act::Break(code) => {
                    let _ = answers.send(Err(Status::new(code, "broken on purpose"))).await;
                    return;
                }
                Act::EndStream => return,
                Act::Ignore => continue,
                Act::Answer(code, delay) => {
                    let details = delay.map(|millis| Any {
                        type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                        value: RetryInfo { retry_delay: Some(Duration::from_millis(millis).try_into().unwrap()) }
                            .encode_to_vec()
                            .into(),
                    });
                    answer.status = Some(RpcStatus {
                        code: code as i32,
                        message: "said on purpose".into(),
                        details: details.into_iter().collect(),
                    });
                }
            }
            let mut out = vec![answer];
            out.append(&mut delayed);
            for answer in out {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        }
        for answer in delayed {
            let _ = answers.send(Ok(answer)).await;
        }
    }
}
