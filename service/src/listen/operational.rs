//! The routes for whoever operates the server: health, readiness, metrics, version, and for gRPC health and reflection.

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use super::Error;
use crate::health::Readiness;
use crate::{Failure, Health, Metrics, Program, http as answers, metrics};

/// The contract that all of Afterglow speaks, and those that every server does.
fn descriptors() -> [&'static [u8]; 4] {
    [
        afterglow_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]
}

/// Returns the path of each method that the contracts name.
pub(super) fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for bytes in descriptors() {
        let set = FileDescriptorSet::decode(bytes).expect("compiled in and tested");
        for file in &set.file {
            for service in &file.service {
                let names = service.method.iter();
                methods.extend(names.map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name())));
            }
        }
    }
    methods
}

/// Returns the contracts without those of our services that are not mounted: a client may believe what is listed.
fn mounted(services: &[&str]) -> Vec<FileDescriptorSet> {
    let mut sets = descriptors().map(|bytes| FileDescriptorSet::decode(bytes).expect("compiled in and tested"));
    for file in &mut sets[0].file {
        let package = file.package().to_owned();
        file.service.retain(|service| services.contains(&format!("{package}.{}", service.name()).as_str()));
    }
    sets.into()
}

/// Builds the routes, and the reporter that [`report`] feeds; `services` are the names of those that are mounted beside.
pub(super) fn router(
    program: Program,
    health: &Health,
    metrics: &Metrics,
    services: &[&str],
) -> Result<(HealthReporter, Router), Error> {
    let reflection = || {
        mounted(services).into_iter().fold(tonic_reflection::server::Builder::configure(), |builder, descriptors| {
            builder.register_file_descriptor_set(descriptors)
        })
    };
    let reporter = HealthReporter::new();
    let grpc = Routes::default()
        .add_service(tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(
            reporter.clone(),
        )))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .into_axum_router()
        .reset_fallback();

    let mut http = Router::new();
    // The same under the names that Prometheus and others of its family have.
    for path in ["/healthz", "/-/healthy"] {
        http = http.route(path, get(async || "ok\n"));
    }
    for path in ["/readyz", "/ready", "/-/ready"] {
        let health = health.clone();
        http = http.route(path, get(async move || readiness(&health.readiness())));
    }
    let metrics = metrics.clone();
    let http = http
        .route("/metrics", get(async move || metrics_text(&metrics)))
        .route("/version", get(async move || version(program)));
    Ok((reporter, grpc.merge(http)))
}

/// Tells `grpc.health.v1` what the parts of the server say, for the server and each of its services, until the server
/// ends.
pub(super) async fn report(health: Health, reporter: HealthReporter, services: Vec<&'static str>) {
    let mut changes = health.changes();
    loop {
        let status = if changes.next().await.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in std::iter::once("").chain(services.iter().copied()) {
            reporter.set_service_status(service, status).await;
        }
    }
}

fn readiness(readiness: &Readiness) -> Response {
    if readiness.is_ready() {
        return "ok\n".into_response();
    }
    let reasons: String = readiness.reasons.iter().flat_map(|reason| [reason.as_str(), "\n"]).collect();
    (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
}

fn metrics_text(metrics: &Metrics) -> Result<Response, Failure> {
    let text = metrics.text().map_err(Failure::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn version(program: Program) -> Response {
    answers::json(&program)
}
