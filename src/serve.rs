//! `afterglow serve`: the write tier, the read tier and a profiler of both in one process on one port.
//!
//! It only puts together what the tiers offer: one store, one registry, one server. The profiler sends to it like any other agent, but
//! for the network: whatever the port speaks and whomever it trusts, the process reaches itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_agent::itself::{self, Itself};
use afterglow_ingester::maintenance;
use afterglow_service::access::Role;
use afterglow_service::causes::Causes;
use afterglow_service::health::Part;
use afterglow_service::listen::{self, Server};
use afterglow_service::{Health, Metrics, Program, config, shutdown, telemetry};
use afterglow_store::watch::Need;
use afterglow_store::{Environment, StorageUrl, Store, StoreOptions};
use tokio_util::sync::CancellationToken;

const PROGRAM: Program = Program::new("afterglow").built_from(crate::REVISION);

/// Runs ingester and querier in one process on one port
///
/// It profiles itself, so that the first search finds something.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow serve\n  \
    afterglow serve --storage file:///var/lib/afterglow --listen 0.0.0.0:4100 --auth.tokens-file tokens.toml\n  \
    afterglow serve --storage s3://profiles")]
pub(crate) struct Args {
    /// Where profiles are kept: file:///var/lib/afterglow, s3://bucket/prefix, gs://bucket, az://container
    #[arg(long, value_name = "URL", default_value = "file://./afterglow-data")]
    storage: StorageUrl,
    /// Address to listen on, for gRPC and HTTP alike
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4100")]
    listen: SocketAddr,
    /// Whether it profiles itself.
    #[command(flatten)]
    itself: itself::Options,
    /// How profiles are taken and committed.
    #[command(flatten)]
    ingester: afterglow_ingester::Config,
    /// How the bucket is maintained.
    #[command(flatten)]
    maintenance: maintenance::Config,
    /// How questions are answered.
    #[command(flatten)]
    querier: afterglow_querier::Config,
    /// What the server takes on.
    #[command(flatten)]
    server: listen::Options,
    /// Logs.
    #[command(flatten)]
    telemetry: telemetry::Options,
    /// Where settings come from.
    #[command(flatten)]
    source: config::Source,
}

// === impl Args ===

impl Args {
    /// Returns what is wrong with the settings as a whole.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.ingester.problems();
        problems.extend(self.maintenance.problems());
        problems.extend(self.querier.problems());
        problems.extend(self.server.problems(self.listen));
        problems.extend(self.telemetry.problems());
        problems.extend(self.itself.problems());
        problems.extend(Environment::of_process().problems(&self.storage));
        problems
    }
}

/// Runs both tiers until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// It did not start; once it serves, it ends well.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let telemetry = telemetry::init(PROGRAM, &args.telemetry)?;
    let stop = shutdown::on_signals()?;
    let ended = match stop.run_until_cancelled(start(&args)).await {
        Some(Ok(started)) => serve(args, started, stop).await,
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
#[cfg(test)]
pub(crate) async fn registered(args: Args) -> Result<Metrics, Error> {
    let (started, stop) = (start(&args).await?, CancellationToken::new());
    let metrics = started.metrics.clone();
    stop.cancel();
    serve(args, started, stop).await?;
    Ok(metrics)
}

/// What is there before a port is.
struct Started {
    store: Store,
    metrics: Metrics,
    health: Health,
    storage: Part,
}

async fn start(args: &Args) -> Result<Started, Error> {
    let metrics = Metrics::new(PROGRAM);
    let health = Health::new();
    let storage_part = health.part("storage");
    let registered = metrics.register(afterglow_store::Metrics::new);
    let options = StoreOptions { metrics: registered, read: args.querier.reads(), ..StoreOptions::default() };
    let store = afterglow_store::open(&args.storage, options).await?;
    store.probe().await?;
    storage_part.ready();
    Ok(Started { store, metrics, health, storage: storage_part })
}

async fn serve(args: Args, started: Started, stop: CancellationToken) -> Result<(), Error> {
    let Started { store, metrics, health, storage } = started;
    let (metrics_of_store, boundaries) = (store.metrics().clone(), store.boundaries().clone());
    let store_options = StoreOptions { metrics: metrics_of_store, boundaries, ..StoreOptions::default() };
    let writer = Some(store.writer().clone());
    maintenance::spawn(args.storage.clone(), store_options, writer, &args.maintenance, &metrics, stop.clone());
    let retention = args.maintenance.retention.policy();
    let ingester = afterglow_ingester::build(&args.ingester, &args.server.limits, retention, store.clone(), &metrics);
    let querier = afterglow_querier::build(&args.querier, store, &metrics);
    querier.set_retention(args.maintenance.retention.options().retention);
    let drain = args.server.drain.clone();
    let scheme = if args.server.tls.is_on() { "https" } else { "http" };
    let mut server = Server::new(PROGRAM, args.server, health.clone(), metrics)
        .grpc(Role::Write, ingester.grpc())
        .admission(afterglow_ingester::PUSH_PROFILE, ingester.admission())
        .grpc(Role::Read, querier.grpc())
        .grpc(Role::Read, querier.shares())
        .http(Role::Write, ingester.routes())
        .http(Role::Read, querier.routes())
        .pages(querier.pages())
        .profiles(Arc::new(SelfProfiles));
    let listener = listen::bind(args.listen).await?;
    let url = format!("{scheme}://{}", reachable(listener.local_addr()?));
    tracing::info!(%url, "open it in a browser, or: afterglow search --server {url}");

    let stop_serving = CancellationToken::new();
    let itself = Itself::by_door(&args.itself, PROGRAM, &mut server)?;
    let served = itself.run(server, listener, &stop, &health, &stop_serving);
    let watched = ingester.watch(Need::Lists, storage);
    let ran = async { tokio::join!(served, ingester.run(stop_serving.clone(), &drain)) };
    let (served, _) = tokio::select! {
        never = watched => match never {},
        ended = ran => ended,
    };
    served?;
    Ok(())
}

/// Returns an address by which this machine reaches what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The storage cannot be used.
    #[error("cannot use the storage")]
    Storage(#[from] afterglow_store::Error),
    /// Logs or traces cannot begin.
    #[error("cannot begin telemetry")]
    Telemetry(#[from] telemetry::Error),
    /// The port cannot be served.
    #[error("cannot serve")]
    Listen(#[from] listen::Error),
    /// The system does not let signals be awaited, or a listener has no address.
    #[error("cannot start")]
    System(#[from] std::io::Error),
    /// It cannot profile itself.
    #[error("cannot profile itself")]
    Profiler(#[from] afterglow_agent::profiler::Error),
}

// === impl Error ===

impl Error {
    /// Says what happened, and returns the exit code: 78 where the configuration is to be corrected, 1 otherwise.
    pub(crate) fn report(self) -> ExitCode {
        let is_bad_configuration = match &self {
            Self::Storage(error) => !error.is_passing(),
            Self::Telemetry(_) => true,
            Self::Listen(error) => error.is_bad_configuration(),
            Self::System(_) | Self::Profiler(_) => false,
        };
        let text = Causes(&self).to_string();
        if is_bad_configuration {
            return config::Exit::Bad(vec![text]).report();
        }
        tracing::error!("{text}");
        ExitCode::FAILURE
    }
}
