//! The ingester as a program of its own: settings, one port, and the steps from start to end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_agent::itself::{self, Elsewhere, Itself};
use afterglow_service::causes::Causes;
use afterglow_service::config;
use afterglow_service::debug::Profiles;
use afterglow_service::health::Part;
use afterglow_service::listen::{self, Server};
use afterglow_service::{Health, Metrics, Program, access, shutdown, telemetry};
use afterglow_store::watch::Need;
use afterglow_store::{Environment, StorageUrl, Store, StoreOptions};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role};
use crate::maintenance;

/// Takes profiles, commits them to object storage in groups, and acknowledges what is durable
///
/// Many may run over one bucket, behind any load balancer: they share nothing else.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "afterglow-ingester", version, after_help = EXAMPLES)]
// Behind a load balancer, which needs a moment to notice.
#[command(mut_arg("delay", |delay| delay.default_value("5s")))]
// Each of its own profiles may be a PUT that nobody else needs.
#[command(mut_arg("self_profile_period", |period| period.default_value("1m")))]
pub struct Settings {
    /// Where profiles are kept: file:///var/lib/afterglow, s3://bucket/prefix, gs://bucket, az://container
    #[arg(long, value_name = "URL")]
    pub storage: StorageUrl,
    /// Address to listen on, for gRPC and HTTP alike
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4100")]
    pub listen: SocketAddr,
    /// What this process does: ingest, maintain or both. To maintain is to compact, to delete what is too old, and to collect
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_value = "ingest,maintain")]
    pub roles: Vec<Role>,
    /// How profiles are taken and committed.
    #[command(flatten)]
    pub ingester: Config,
    /// How the bucket is maintained.
    #[command(flatten)]
    pub maintenance: maintenance::Config,
    /// Whether it profiles itself.
    #[command(flatten)]
    pub itself: itself::Options,
    /// Where its own profiles go.
    #[command(flatten)]
    pub elsewhere: Elsewhere,
    /// What the server takes on.
    #[command(flatten)]
    pub server: listen::Options,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
    /// Where settings come from.
    #[command(flatten)]
    pub source: config::Source,
}

const EXAMPLES: &str = "\
Examples:
  afterglow-ingester --storage s3://profiles --auth.tokens-file tokens.toml
  afterglow-ingester --storage file:///var/lib/afterglow --listen 127.0.0.1:4100
  curl --data-binary @cpu.pb.gz 'http://127.0.0.1:4100/api/v1/profiles?service=api&type=cpu'";

// === impl Settings ===

impl config::Settings for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.ingester.problems();
        problems.extend(self.maintenance.problems());
        problems.extend(self.server.problems(self.listen));
        problems.extend(self.itself.problems());
        problems.extend(self.elsewhere.problems(self.roles.contains(&Role::Ingest)));
        problems.extend(self.telemetry.problems());
        problems.extend(Environment::of_process().problems(&self.storage));
        if self.roles.is_empty() {
            problems.push("roles is empty: there is nothing to do".to_owned());
        }
        problems
    }
}

/// Why the ingester did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage cannot be used.
    #[error("cannot use the storage")]
    Storage(#[from] afterglow_store::Error),
    /// Logs or traces cannot begin.
    #[error("cannot begin telemetry")]
    Telemetry(#[from] telemetry::Error),
    /// The port cannot be served.
    #[error("cannot serve")]
    Listen(#[from] listen::Error),
    /// The system does not let signals be awaited.
    #[error("cannot await signals")]
    Signals(#[from] std::io::Error),
    /// It cannot profile itself.
    #[error("cannot profile itself")]
    Profiler(#[from] afterglow_agent::profiler::Error),
}

/// What this program is called.
pub const PROGRAM: Program = Program::new("afterglow-ingester");

/// What its own profiles are called where it only maintains.
const MAINTAINER: Program = Program::new("afterglow-maintainer");

/// Runs an ingester that is built from `revision` until SIGTERM or SIGINT, then drains; `profiles`, if any, take profiles of this process
/// for `/debug/pprof/`.
///
/// # Errors
/// It did not start; once it serves, it ends well.
pub async fn run(settings: Settings, revision: &'static str, profiles: Option<Arc<dyn Profiles>>) -> Result<(), Error> {
    let program = PROGRAM.built_from(revision);
    let telemetry = telemetry::init(program, &settings.telemetry)?;
    let stop = shutdown::on_signals()?;
    let served = stop.run_until_cancelled(start(&settings, program)).await;
    let ended = match served {
        Some(Ok(started)) => serve(settings, started, profiles, stop).await,
        Some(Err(error)) => Err(error),
        // Asked to stop before it began.
        None => Ok(()),
    };
    telemetry.shutdown().await;
    ended
}

/// Begins and ends at once, and returns the metrics that [`run`] has: their reference is made of them.
///
/// # Errors
/// As [`run`].
pub async fn registered(settings: Settings) -> Result<Metrics, Error> {
    let (started, stop) = (start(&settings, PROGRAM).await?, CancellationToken::new());
    let metrics = started.metrics.clone();
    stop.cancel();
    serve(settings, started, Some(Arc::new(SelfProfiles)), stop).await?;
    Ok(metrics)
}

/// What is there before a port is.
struct Started {
    program: Program,
    store: Store,
    metrics: Metrics,
    health: Health,
    storage: Part,
}

async fn start(settings: &Settings, program: Program) -> Result<Started, Error> {
    let metrics = Metrics::new(program);
    let health = Health::new();
    let storage = health.part("storage");
    let options = StoreOptions { metrics: metrics.register(afterglow_store::Metrics::new), ..StoreOptions::default() };
    let store = afterglow_store::open(&settings.storage, options).await?;
    store.probe().await?;
    storage.ready();
    Ok(Started { program, store, metrics, health, storage })
}

async fn serve(
    settings: Settings,
    started: Started,
    profiles: Option<Arc<dyn Profiles>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Started { program, store, metrics, health, storage } = started;
    let ingests = settings.roles.contains(&Role::Ingest);
    if settings.roles.contains(&Role::Maintain) {
        let options = StoreOptions {
            metrics: store.metrics().clone(),
            boundaries: store.boundaries().clone(),
            ..StoreOptions::default()
        };
        let writer = ingests.then(|| store.writer().clone());
        let url = settings.storage.clone();
        maintenance::spawn(url, options, writer, &settings.maintenance, &metrics, stop.clone());
    }
    let retention = settings.maintenance.retention.policy();
    let ingester = crate::build(&settings.ingester, &settings.server.limits, retention, store, &metrics);
    let drain = settings.server.drain.clone();
    let mut server = Server::new(program, settings.server, health.clone(), metrics);
    if ingests {
        server = server
            .grpc(access::Role::Write, ingester.grpc())
            .admission(crate::PUSH_PROFILE, ingester.admission())
            .http(access::Role::Write, ingester.routes());
    }
    if let Some(profiles) = profiles {
        server = server.profiles(profiles);
    }
    let listener = listen::bind(settings.listen).await?;
    let program = if ingests { program } else { MAINTAINER.built_from(program.revision) };
    let itself = if settings.elsewhere.is_here() {
        Itself::by_door(&settings.itself, program, &mut server)?
    } else {
        Itself::elsewhere(&settings.itself, &settings.elsewhere, program)?
    };
    let stop_serving = CancellationToken::new();
    let served = itself.run(server, listener, &stop, &health, &stop_serving);
    // Until the end of the drain: what is under way may still wait for the store.
    let watched = ingester.watch(Need::Answers, storage);
    let ran = async { tokio::join!(served, ingester.run(stop_serving.clone(), &drain)) };
    let (served, _) = tokio::select! {
        never = watched => match never {},
        ended = ran => ended,
    };
    served?;
    Ok(())
}

// === impl Error ===

impl Error {
    /// Says what happened, and returns the exit code: 78 where the configuration is to be corrected, 1 otherwise.
    pub fn report(self) -> ExitCode {
        let is_bad_configuration = match &self {
            Self::Storage(error) => !error.is_passing(),
            Self::Telemetry(_) => true,
            Self::Listen(error) => error.is_bad_configuration(),
            Self::Signals(_) | Self::Profiler(_) => false,
        };
        let text = Causes(&self).to_string();
        if is_bad_configuration {
            return config::Exit::Bad(vec![text]).report();
        }
        tracing::error!("{text}");
        ExitCode::FAILURE
    }
}
