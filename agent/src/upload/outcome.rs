//! What an answer means for a profile: acknowledged, worth another try, or refused for good.
//!
//! The table follows what the server promises: a retry helps where it sends `google.rpc.RetryInfo`, and after statuses that speak of
//! the moment and not of the profile. Everything else would be refused again.

use std::time::Duration;

use afterglow_proto::google::rpc::Status as RpcStatus;
use afterglow_proto::v1::PushResponse;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tonic_types::pb::RetryInfo;

/// The profile is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The identity of the profile, a ULID.
    pub id: String,
    /// The server had acknowledged the same id and bytes before; it counts once.
    pub duplicate: bool,
    /// What was accepted but looks wrong.
    pub warnings: Vec<String>,
    /// Gives read-your-write when handed to a query as `Selection.read_token`.
    pub read_token: String,
}

/// Why a profile was not acknowledged.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PushError {
    /// The server refused it; another try would be refused, too.
    #[error("refused with {}: {message}", code_name(*code))]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The server's text.
        message: String,
    },
    /// No try succeeded in time. The profile may be stored all the same: a later push must carry the same id.
    #[error("not acknowledged within {} s: {last}", after.as_secs_f64())]
    Deadline {
        /// How long it was tried.
        after: Duration,
        /// What stood in the way last.
        last: String,
    },
    /// It is larger than the whole queue.
    #[error("profile of {bytes} bytes does not fit in the queue of {queue_bytes_max} bytes")]
    TooLarge {
        /// What it would take in the queue.
        bytes: usize,
        /// The size of the queue.
        queue_bytes_max: usize,
    },
    /// The queue holds nothing that may be dropped for it.
    #[error("the queue of {queue_bytes_max} bytes is full")]
    Full {
        /// The size of the queue.
        queue_bytes_max: usize,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// What the answer to one profile asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Acked(Ack),
    /// Send it again with the same id.
    Retry {
        /// The server's text.
        reason: String,
        /// At least this long from now.
        delay: Option<Duration>,
        /// The server has too much to do: hold all others back, too.
        slow_down: bool,
    },
    /// It is done, without success.
    Refused(PushError),
}

/// What the end of a stream says about the profiles that were under way on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nothing: connect again and send them again.
    Passing,
    /// This client may not push here; no profile will fare better.
    Denied,
    /// One of them may be the reason. Sent one at a time, the guilty one shows.
    Suspect,
}

/// Judges the answer to one profile.
pub(crate) fn judge(response: PushResponse) -> Verdict {
    let status = match response.status {
        Some(status) if status.code != 0 => status,
        _ => {
            return Verdict::Acked(Ack {
                id: response.id,
                duplicate: response.duplicate,
                warnings: response.warnings,
                read_token: response.read_token,
            });
        }
    };
    let code = Code::from_i32(status.code);
    let delay = retry_delay(&status);
    let passing = matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled);
    if delay.is_some() || passing {
        Verdict::Retry { reason: status.message, delay, slow_down: code == Code::ResourceExhausted }
    } else {
        Verdict::Refused(PushError::Refused { code, message: status.message })
    }
}

/// Judges the status that ended a stream.
pub(crate) fn judge_stream(status: &Status) -> Broken {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => Broken::Denied,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::NotFound => Broken::Suspect,
        Code::ResourceExhausted if stream_retry_delay(status).is_none() => Broken::Suspect,
        // Unknown and Internal are what a connection that broke in mid-stream looks like.
        _ => Broken::Passing,
    }
}

/// Returns the delay that the status of a stream asks for.
pub(crate) fn stream_retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().map(|info| info.retry_delay.unwrap_or_default())
}

fn retry_delay(status: &RpcStatus) -> Option<Duration> {
    let detail = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let info = RetryInfo::decode(detail.value.clone()).ok()?;
    let delay = info.retry_delay.unwrap_or_default();
    Some(Duration::try_from(delay).unwrap_or_default())
}

/// Returns the name of a code as the gRPC specification writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use afterglow_proto::Any;

    use super::*;

    fn answer(code: Code, retry: Option<u64>) -> PushResponse {
        let details = retry.map(|seconds| Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: RetryInfo { retry_delay: Some(Duration::from_secs(seconds).try_into().unwrap()) }
                .encode_to_vec()
                .into(),
        });
        let status = RpcStatus { code: code as i32, message: "text".into(), details: details.into_iter().collect() };
        PushResponse { status: Some(status), ..Default::default() }
    }

    #[test]
    fn an_answer_without_status_or_with_code_0_acknowledges() {
        assert!(matches!(judge(PushResponse::default()), Verdict::Acked(_)));
        assert!(matches!(judge(answer(Code::Ok, None)), Verdict::Acked(_)));
    }

    #[test]
    fn exhausted_is_retried_only_where_the_server_names_a_delay() {
        let refused = PushError::Refused { code: Code::ResourceExhausted, message: "text".into() };
        assert_eq!(judge(answer(Code::ResourceExhausted, None)), Verdict::Refused(refused));
        let retry = Verdict::Retry { reason: "text".into(), delay: Some(Duration::from_secs(7)), slow_down: true };
        assert_eq!(judge(answer(Code::ResourceExhausted, Some(7))), retry);
    }

    #[test]
    fn what_speaks_of_the_profile_is_never_retried() {
        for code in [Code::InvalidArgument, Code::AlreadyExists, Code::Internal, Code::OutOfRange, Code::Unimplemented]
        {
            assert!(matches!(judge(answer(code, None)), Verdict::Refused(_)), "{code:?}");
        }
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted] {
            assert!(matches!(judge(answer(code, None)), Verdict::Retry { slow_down: false, .. }), "{code:?}");
        }
    }

    #[test]
    fn a_refusal_reads_like_grpc() {
        let error = PushError::Refused { code: Code::InvalidArgument, message: "profile is empty".into() };
        assert_eq!(error.to_string(), "refused with INVALID_ARGUMENT: profile is empty");
    }
}
