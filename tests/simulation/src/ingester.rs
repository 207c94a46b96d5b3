//! The real ingester as a process.

use std::sync::LazyLock;

use afterglow_ingester::Settings;
use afterglow_proto::v1::{PushProfileResponse, PushResponse};
use afterglow_service::{Metrics, Program};
use afterglow_store::retention::Policy;
use clap::Parser;
use futures::future::LocalBoxFuture;
use prost::Message;

use crate::network::{Network, serve};
use crate::oracle::Oracle;
use crate::process::{Life, Process};
use crate::store::SimStore;

/// What `afterglow-ingester` does by default.
static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    Settings::try_parse_from(["afterglow-ingester", "--storage=memory://", "--memory-budget=64MiB"])
        .expect("the settings are valid")
});

/// An ingester: gRPC in, segments out.
#[derive(Debug)]
pub struct Ingester {
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub port: usize,
    /// Who calls.
    pub network: Network,
    /// Who sees each acknowledgement before it leaves.
    pub oracle: Oracle,
    /// What the oracle looks into.
    pub objects: SimStore,
}

impl Process for Ingester {
    fn name(&self) -> &str {
        &self.name
    }

    fn live(&self, life: Life) -> LocalBoxFuture<'static, ()> {
        let (network, port) = (self.network.clone(), self.port);
        let (oracle, objects) = (self.oracle.clone(), self.objects.clone());
        Box::pin(async move {
            let Life { store, stop, .. } = life;
            let metrics = Metrics::new(Program::new("simulation"));
            let Settings { ingester: config, server, .. } = &*SETTINGS;
            // What is too old when it comes is a profile's own matter; here retention meets what was acknowledged.
            let retention = Policy { age_max: None, ..Policy::default() };
            let ingester =
                afterglow_ingester::build_without_threads(config, &server.limits, retention, store, &metrics);
            let calls = network.listen(port);
            let service = ingester.grpc();
            let inspect = |path: &str, message: &[u8]| match answer(path, message) {
                Ok(Some((id, token))) => oracle.leaves(&objects, &id, &token),
                Ok(None) => {}
                Err(error) => oracle.wrong(format!("an answer to {path} cannot be decoded: {error}")),
            };
            tokio::select! {
                biased;
                drained = ingester.run(stop, &server.drain) => {
                    // A store that answers nothing for seconds leaves no outcome in time: callers come back with the same id.
                    if drained.left > 0 && !objects.may_fail() {
                        oracle.wrong(format!("{} profiles had no outcome in the drain", drained.left));
                    }
                }
                never = serve(calls, service, inspect) => never,
            }
        })
    }
}

/// Returns the id and the token of an answer that acknowledges.
fn answer(path: &str, message: &[u8]) -> Result<Option<(String, String)>, prost::DecodeError> {
    if path.ends_with("/PushProfile") {
        let PushProfileResponse { id, read_token, .. } = PushProfileResponse::decode(message)?;
        return Ok(Some((id, read_token)));
    }
    let PushResponse { id, read_token, status, .. } = PushResponse::decode(message)?;
    Ok(status.is_none_or(|status| status.code == 0).then_some((id, read_token)))
}
