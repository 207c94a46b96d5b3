//! `afterglow.v1.IngestService`: translates messages to [`Request`]s and outcomes to answers.
//!
//! A request passes, from outside in: for a call, [`Heads`] (whether a core would be free for it in time), the layers of the server
//! (limits of size, deadline, tracing), [`frames`] (each message is paid for before it is buffered), tonic (framing, protobuf), and
//! then [`session`] for a stream or [`Grpc::push_profile`] for a call. Messages may be compressed, though a profile is gzip'd itself: some clients do so
//! whatever they send.

use std::pin::Pin;

use afterglow_proto::google::rpc;
use afterglow_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use afterglow_proto::v1::{Profile, PushProfileRequest, PushProfileResponse, PushRequest, PushResponse};
use afterglow_service::listen::Admission;
use afterglow_service::stack::{Closing, Deadline};
use afterglow_service::{Failure, Kind, tenant};
use afterglow_store::paths::TenantId;
use futures::Stream;
use http::Extensions;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status, Streaming};

use crate::budget::Permit;
use crate::ingest::{Accepted, Ingest, Names, Protocol, Refused, Request};
use crate::pool::{Busy, Ticket};

pub(crate) mod frames;
mod session;

use frames::{Frames, Permits};
use session::Session;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Grpc {
    ingest: Ingest,
}

/// What all profiles of one call share.
#[derive(Clone, Debug)]
struct Call {
    protocol: Protocol,
    tenant: TenantId,
    deadline: Option<Instant>,
}

/// Lets calls in by their heads alone, for as long as a core would be free for them in time.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    ingest: Ingest,
}

/// The method whose calls are let in by their heads: each is a profile, read and worked on as a whole. A stream is not refused, it is
/// read as fast as its profiles find cores.
pub const PUSH_PROFILE: &str = "/afterglow.v1.IngestService/PushProfile";

/// Builds the service as a server mounts it; no message is larger than `message_bytes_max`.
pub(crate) fn service(ingest: Ingest, message_bytes_max: usize) -> Frames<IngestServiceServer<Grpc>> {
    let (budget, stall_timeout) = (ingest.budget().clone(), ingest.stall_timeout());
    let service = IngestServiceServer::new(Grpc { ingest })
        .max_decoding_message_size(message_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip);
    Frames::new(service, budget, message_bytes_max as u64, stall_timeout)
}

#[tonic::async_trait]
impl IngestService for Grpc {
    type PushStream = Pin<Box<dyn Stream<Item = Result<PushResponse, Status>> + Send>>;

    async fn push(
        &self,
        request: tonic::Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let (metadata, extensions, messages) = request.into_parts();
        // A stream's deadline is its own, not that of a profile: the server ends the stream then.
        let call = Call { protocol: Protocol::GrpcStream, tenant: tenant_of(&metadata)?, deadline: None };
        let permits = permits_of(&extensions)?;
        let closing = extensions.get::<Closing>().cloned();
        let session = Session::new(self.ingest.clone(), call, messages, permits, closing);
        Ok(Response::new(Box::pin(session.answers())))
    }

    async fn push_profile(
        &self,
        request: tonic::Request<PushProfileRequest>,
    ) -> Result<Response<PushProfileResponse>, Status> {
        let (metadata, mut extensions, message) = request.into_parts();
        let permit = permits_of(&extensions)?.next()?;
        let ticket = extensions.remove::<Ticket>();
        let deadline = Deadline::of(&extensions).map(Deadline::instant);
        let call = Call { protocol: Protocol::Grpc, tenant: tenant_of(&metadata)?, deadline };
        let profile = message.profile.ok_or_else(|| Failure::invalid("profile is missing"))?;
        let request = Request { ticket, ..call.request(profile, permit) };
        let accepted = self.ingest.push(request).await.map_err(|refused| refused.failure)?;
        Ok(Response::new(PushProfileResponse {
            id: accepted.id.to_string(),
            duplicate: accepted.duplicate,
            warnings: accepted.warnings,
            read_token: accepted.read_token,
        }))
    }
}

// === impl Heads ===

impl Heads {
    pub(crate) fn new(ingest: Ingest) -> Self {
        Self { ingest }
    }
}

impl Admission for Heads {
    fn admit(&self, extensions: &mut Extensions) -> bool {
        match self.ingest.admit() {
            Ok(ticket) => {
                extensions.insert(ticket);
                true
            }
            Err(_) => {
                self.ingest.count_refused(Protocol::Grpc, Kind::Exhausted);
                false
            }
        }
    }

    fn refusal(&self) -> Failure {
        self.ingest.busy(Busy::Queue)
    }
}

// === impl Call ===

impl Call {
    fn request(&self, profile: Profile, mut permit: Permit) -> Request {
        let Profile { id, r#type, labels, time, duration, pprof } = profile;
        permit.shrink_to(pprof.len() as u64);
        Request {
            protocol: self.protocol,
            tenant: self.tenant.clone(),
            names: Names { id, profile_type: r#type, labels: labels.into_iter().collect() },
            time_nanos: time.map(|time| nanos(time.seconds, time.nanos)),
            duration_nanos: duration.map(|duration| nanos(duration.seconds, duration.nanos)),
            body: pprof,
            permit,
            deadline: self.deadline,
            turn: None,
            ticket: None,
            trace: None,
        }
    }
}

/// Joins the two parts of protobuf's times and durations; what 64 bits cannot hold becomes the nearest that they can.
fn nanos(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into())
}

fn tenant_of(metadata: &MetadataMap) -> Result<TenantId, Failure> {
    tenant::from_metadata(metadata)?
        .parse()
        .map_err(|error: afterglow_store::paths::TenantError| Failure::invalid(error.to_string()))
}

fn permits_of(extensions: &Extensions) -> Result<Permits, Failure> {
    let permits = extensions.get::<Permits>().cloned();
    permits.ok_or_else(|| Failure::internal(anyhow::anyhow!("the service is mounted without its frames")))
}

fn answer(seq: u64, outcome: Result<Accepted, Refused>) -> PushResponse {
    match outcome {
        Ok(Accepted { id, duplicate, warnings, read_token }) => {
            PushResponse { seq, id: id.to_string(), duplicate, warnings, read_token, status: None }
        }
        Err(Refused { id, failure }) => PushResponse {
            seq,
            id: id.map(|id| id.to_string()).unwrap_or_default(),
            status: Some(rpc::Status::from(failure)),
            ..PushResponse::default()
        },
    }
}

#[cfg(test)]
mod tests;
