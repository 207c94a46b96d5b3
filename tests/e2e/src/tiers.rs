//! Both tiers as processes of their own over one bucket of MinIO, and what a test asks them.

use std::collections::HashSet;
use std::process::Command;

use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_proto::v1::{MergeFormat, MergeRequest, Selection};

use crate::{MinIo, Program, built, client};

/// Accepts profiles of any age, and keeps them: the real ones were taken when they were taken.
const ANY_AGE: [(&str, &str); 2] = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];

/// MinIO with a bucket, over which ingesters and queriers run as processes of their own.
pub struct Tiers {
    minio: MinIo,
    storage: String,
}

impl Tiers {
    /// Starts MinIO and makes a bucket.
    pub fn new(bucket: &str) -> Self {
        let minio = MinIo::start();
        let storage = minio.bucket(bucket);
        Self { minio, storage }
    }

    /// Starts an ingester.
    pub fn ingester(&self) -> Program {
        self.ingester_with(&[])
    }

    /// Starts an ingester with these flags.
    pub fn ingester_with(&self, flags: &[&str]) -> Program {
        self.start("afterglow-ingester", flags)
    }

    /// Starts a querier.
    pub fn querier(&self) -> Program {
        self.querier_with(&[])
    }

    /// Starts a querier with these flags.
    pub fn querier_with(&self, flags: &[&str]) -> Program {
        self.start("afterglow-querier", flags)
    }

    /// Starts a querier at an address of loopback, with these flags and this environment.
    pub fn querier_at(&self, address: &str, flags: &[&str], env: &[(&str, &str)]) -> Program {
        self.start_at("afterglow-querier", address, flags, env)
    }

    /// Returns a command over the storage itself, with no server between.
    pub fn over_storage(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built("afterglow"));
        command.args(args).args(["--storage", &self.storage]).envs(self.minio.env());
        command
    }

    fn start(&self, name: &str, flags: &[&str]) -> Program {
        self.start_at(name, "127.0.0.1:0", flags, &[])
    }

    fn start_at(&self, name: &str, address: &str, flags: &[&str], env: &[(&str, &str)]) -> Program {
        let env = [&self.minio.env()[..], &ANY_AGE, env].concat();
        Program::start_at(name, address, &[&["--storage", &*self.storage], flags].concat(), &env)
    }
}

/// Asks a querier how many profiles a merge of the service counts.
pub async fn merged_profiles(querier: &Program, service: &str) -> u64 {
    let mut client = QueryServiceClient::connect(querier.url()).await.expect("the querier answers");
    let selection = Selection {
        query: format!("{{service={service:?}}}"),
        start: Some(afterglow_proto::Timestamp { seconds: 0, nanos: 0 }),
        ..Selection::default()
    };
    let request =
        MergeRequest { selection: Some(selection), format: MergeFormat::Top.into(), ..MergeRequest::default() };
    client.merge(request).await.expect("a merge").into_inner().profiles
}

/// Asks a querier for the ids of a service, of any time.
///
/// # Panics
/// Where an id is listed twice.
pub fn ids(querier: &Program, service: &str) -> HashSet<String> {
    let query = format!("{{service={service:?}}}");
    let args = ["search", &query, "--from", "2000-01-01T00:00:00Z", "--limit", "100000", "--output", "json"];
    let found: serde_json::Value = serde_json::from_slice(&client(&args, &querier.url())).expect("search prints JSON");
    let profiles = found["profiles"].as_array().cloned().unwrap_or_default();
    let ids: HashSet<String> = profiles.iter().map(|p| p["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), profiles.len(), "an id was listed twice");
    ids
}
