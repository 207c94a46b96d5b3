//! `afterglow.v1.QueryService`, and `SiblingService` for other queriers: reads the tenant, asks, and folds what went wrong into a status.

use afterglow_proto::v1;
use afterglow_proto::v1::query_service_server::{QueryService, QueryServiceServer};
use afterglow_proto::v1::sibling_service_server::{SiblingService, SiblingServiceServer};
use afterglow_service::access::audit;
use afterglow_service::config::ByteSize;
use afterglow_service::{Failure, tenant};
use afterglow_store::paths::TenantId;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::query::merge::share;
use crate::query::{Engine, Fetched};

/// The largest request: a selector with a long list of values fits many times.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The largest answer of a call, in bytes: four times the largest profile that is taken by default. A client takes as much. Over HTTP answers have no bound, for they are read
/// piece by piece.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The service, to be added to a server's routes.
pub type Service = QueryServiceServer<Queries>;

/// Answers calls.
#[derive(Clone, Debug)]
pub struct Queries {
    engine: Engine,
}

/// Makes the service.
pub(crate) fn service(engine: Engine) -> Service {
    QueryServiceServer::new(Queries { engine })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
}

/// The service for siblings, to be added to a server's routes.
pub type Shares = SiblingServiceServer<Queries>;

/// Makes the service for siblings.
pub(crate) fn shares(engine: Engine) -> Shares {
    SiblingServiceServer::new(Queries { engine }).max_decoding_message_size(share::REQUEST_BYTES_MAX)
}

/// Takes a call apart.
fn open<T>(call: Request<T>) -> Result<(TenantId, T), Status> {
    let tenant = tenant::from_metadata(call.metadata())?;
    let tenant = tenant.parse().map_err(|error| Failure::invalid(format!("header {}: {error}", tenant::HEADER)))?;
    Ok((tenant, call.into_inner()))
}

/// Makes the answer to a call.
fn answer<M: Message>(message: M) -> Result<Response<M>, Status> {
    let bytes = message.encoded_len();
    if bytes > ANSWER_BYTES_MAX {
        // tonic itself would say OUT_OF_RANGE, which clients retry.
        let (bytes, max) = (ByteSize(bytes as u64), ByteSize(ANSWER_BYTES_MAX as u64));
        let message = format!("the answer has {bytes}, more than the {max} of a message; ask for less, or over HTTP");
        return Err(Failure::too_large(message).into());
    }
    Ok(Response::new(message))
}

#[tonic::async_trait]
impl QueryService for Queries {
    async fn search(&self, call: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.search(&tenant, request).await?)
    }

    async fn get_profile(
        &self,
        call: Request<v1::GetProfileRequest>,
    ) -> Result<Response<v1::GetProfileResponse>, Status> {
        let extensions = call.extensions().clone();
        let (tenant, request) = open(call)?;
        let Fetched { info, pprof } = self.engine.get_profile(&tenant, request, |_| false).await?;
        audit::downloaded(&extensions, tenant.as_str(), &info.id, pprof.as_ref().map_or(0, |pprof| pprof.len()));
        answer(v1::GetProfileResponse { info: Some(info), pprof: pprof.unwrap_or_default() })
    }

    async fn merge(&self, call: Request<v1::MergeRequest>) -> Result<Response<v1::MergeResponse>, Status> {
        let (tenant, request) = open(call)?;
        let merged = self.engine.merge(&tenant, request).await?;
        let is_gzip = matches!(merged.result, Some(v1::merge_response::Result::Pprof(_)));
        let mut response = answer(merged)?;
        if is_gzip {
            // Once is enough.
            response.disable_compression();
        }
        Ok(response)
    }

    async fn series(&self, call: Request<v1::SeriesRequest>) -> Result<Response<v1::SeriesResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.series(&tenant, request).await?)
    }

    async fn top(&self, call: Request<v1::TopRequest>) -> Result<Response<v1::TopResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.top(&tenant, request).await?)
    }

    async fn regressions(
        &self,
        call: Request<v1::RegressionsRequest>,
    ) -> Result<Response<v1::RegressionsResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.regressions(&tenant, request).await?)
    }

    async fn function(&self, call: Request<v1::FunctionRequest>) -> Result<Response<v1::FunctionResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.function(&tenant, request).await?)
    }

    async fn statistics(
        &self,
        call: Request<v1::StatisticsRequest>,
    ) -> Result<Response<v1::StatisticsResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.statistics(&tenant, request).await?)
    }

    async fn stats(&self, call: Request<v1::StatsRequest>) -> Result<Response<v1::StatsResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.stats(&tenant, request).await?)
    }

    async fn diff(&self, call: Request<v1::DiffRequest>) -> Result<Response<v1::DiffResponse>, Status> {
        let (tenant, request) = open(call)?;
        let diff = self.engine.diff(&tenant, request).await?;
        let is_gzip = matches!(diff.result, Some(v1::diff_response::Result::Pprof(_)));
        let mut response = answer(diff)?;
        if is_gzip {
            response.disable_compression();
        }
        Ok(response)
    }

    async fn profile_types(
        &self,
        call: Request<v1::ProfileTypesRequest>,
    ) -> Result<Response<v1::ProfileTypesResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.profile_types(&tenant, request).await?)
    }

    async fn services(&self, call: Request<v1::ServicesRequest>) -> Result<Response<v1::ServicesResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.services(&tenant, request).await?)
    }

    async fn label_names(
        &self,
        call: Request<v1::LabelNamesRequest>,
    ) -> Result<Response<v1::LabelNamesResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.label_names(&tenant, request).await?)
    }

    async fn label_values(
        &self,
        call: Request<v1::LabelValuesRequest>,
    ) -> Result<Response<v1::LabelValuesResponse>, Status> {
        let (tenant, request) = open(call)?;
        answer(self.engine.label_values(&tenant, request).await?)
    }
}

#[tonic::async_trait]
impl SiblingService for Queries {
    async fn merge_share(
        &self,
        call: Request<v1::MergeShareRequest>,
    ) -> Result<Response<v1::MergeShareResponse>, Status> {
        let (tenant, request) = open(call)?;
        Ok(Response::new(self.engine.share(&tenant, request).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an answer that is too large is refused for good, where tonic would say OUT_OF_RANGE and clients retry for ever.
    #[test]
    fn an_answer_that_is_too_large_is_refused_for_good() {
        let of = |bytes: usize| v1::GetProfileResponse { pprof: vec![0; bytes].into(), ..Default::default() };
        assert!(answer(of(1 << 10)).is_ok());
        let status = answer(of(ANSWER_BYTES_MAX)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.details(), [0; 0], "no delay");
        assert!(status.message().starts_with("the answer has 256 MiB, more than the 256 MiB of a message"), "{status}");
    }
}
