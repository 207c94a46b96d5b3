//! The querier as a program of its own: settings, one port, and the steps from start to end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_agent::itself::{self, Elsewhere, Itself};
use afterglow_service::access::Role;
use afterglow_service::causes::Causes;
use afterglow_service::config;
use afterglow_service::debug::Profiles;
use afterglow_service::listen::{self, Server};
use afterglow_service::{Health, Metrics, Program, shutdown, telemetry};
use afterglow_store::watch::Need;
use afterglow_store::{Environment, StorageUrl, Store, StoreOptions};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Finds, fetches and merges the profiles that ingesters committed to object storage
///
/// Many may run over one bucket, behind any load balancer: they share nothing else.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "afterglow-querier", version, after_help = EXAMPLES)]
// Behind a load balancer, which needs a moment to notice.
#[command(mut_arg("delay", |delay| delay.default_value("5s")))]
// Each of its own profiles may be a PUT that nobody else needs.
#[command(mut_arg("self_profile_period", |period| period.default_value("1m")))]
pub struct Settings {
    /// Where profiles are kept: file:///var/lib/afterglow, s3://bucket/prefix, gs://bucket, az://container
    #[arg(long, value_name = "URL")]
    pub storage: StorageUrl,
    /// Address to listen on, for gRPC and HTTP alike
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4200")]
    pub listen: SocketAddr,
    /// How questions are answered.
    #[command(flatten)]
    pub querier: Config,
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
  afterglow-querier --storage s3://profiles --auth.tokens-file tokens.toml
  afterglow-querier --storage file:///var/lib/afterglow --listen 127.0.0.1:4200
  go tool pprof 'http://127.0.0.1:4200/api/v1/merge?query={service=\"api\"}&type=cpu&start=-1h'";

// === impl Settings ===

impl config::Settings for Settings {
    fn problems(&self) -> Vec<String> {
        let own = [self.itself.problems(), self.elsewhere.problems(false)].concat();
        let own = [own, Environment::of_process().problems(&self.storage)].concat();
        [self.querier.problems(), self.server.problems(self.listen), own, self.telemetry.problems()].concat()
    }
}

/// Why the querier did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage cannot be used.
    #[error("cannot use the storage")]
    Storage(#[from] afterglow_store::Error),
    /// There is no such folder. Whoever only reads does not make it: the name may be wrong, and nothing would ever be found.
    #[error("storage {storage}: there is no such folder; correct its name, or start an ingester over it first")]
    NoFolder {
        /// The folder.
        storage: StorageUrl,
    },
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
pub const PROGRAM: Program = Program::new("afterglow-querier");

/// Runs a querier that is built from `revision` until SIGTERM or SIGINT, then drains; `profiles`, if any, take profiles of this process
/// for `/debug/pprof/`.
///
/// # Errors
/// It did not start; once it serves, it ends well.
pub async fn run(settings: Settings, revision: &'static str, profiles: Option<Arc<dyn Profiles>>) -> Result<(), Error> {
    let program = PROGRAM.built_from(revision);
    let telemetry = telemetry::init(program, &settings.telemetry)?;
    let stop = shutdown::on_signals()?;
    let metrics = Metrics::new(program);
    let ended = match stop.run_until_cancelled(open(&settings, &metrics)).await {
        Some(Ok(store)) => serve(settings, program, store, metrics, profiles, stop).await,
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
    let (metrics, stop) = (Metrics::new(PROGRAM), CancellationToken::new());
    let store = open(&settings, &metrics).await?;
    stop.cancel();
    serve(settings, PROGRAM, store, metrics.clone(), Some(Arc::new(SelfProfiles)), stop).await?;
    Ok(metrics)
}

/// Opens the store, and makes sure that it can be listed: a querier needs no more of it.
async fn open(settings: &Settings, metrics: &Metrics) -> Result<Store, Error> {
    let storage = &settings.storage;
    if let StorageUrl::File { folder } = storage
        && !folder.is_dir()
    {
        return Err(Error::NoFolder { storage: storage.clone() });
    }
    let metrics = metrics.register(afterglow_store::Metrics::new);
    let options = StoreOptions { metrics, read: settings.querier.reads(), ..StoreOptions::default() };
    let store = afterglow_store::open(storage, options).await?;
    store.probe_read().await?;
    Ok(store)
}

async fn serve(
    settings: Settings,
    program: Program,
    store: Store,
    metrics: Metrics,
    profiles: Option<Arc<dyn Profiles>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let health = Health::new();
    let storage = health.part("storage");
    storage.ready();
    let watched = {
        let store = store.clone();
        async move {
            let tell = |answers| match answers {
                Ok(()) => storage.ready(),
                Err(reason) => storage.not_ready(reason),
            };
            store.watch(Need::Lists, tell).await
        }
    };
    let querier = crate::build(&settings.querier, store, &metrics);
    let mut server = Server::new(program, settings.server, health.clone(), metrics)
        .grpc(Role::Read, querier.grpc())
        .grpc(Role::Read, querier.shares())
        .http(Role::Read, querier.routes())
        .pages(querier.pages());
    if let Some(profiles) = profiles {
        server = server.profiles(profiles);
    }
    let listener = listen::bind(settings.listen).await?;
    let itself = Itself::elsewhere(&settings.itself, &settings.elsewhere, program)?;
    let stop_serving = CancellationToken::new();
    let served = itself.run(server, listener, &stop, &health, &stop_serving);
    let served = tokio::select! {
        never = watched => match never {},
        served = served => served,
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
            Self::Telemetry(_) | Self::NoFolder { .. } => true,
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn trusting() -> afterglow_service::access::Options {
        afterglow_service::access::Options { insecure: true, ..Default::default() }
    }

    /// Goal: the flags of all parts fit beside each other, and all that has to be said is the storage, and who may ask.
    #[test]
    fn settings_need_a_storage_and_who_may_ask() {
        Settings::command().debug_assert();
        let settings =
            Settings::try_parse_from(["afterglow-querier", "--storage", "s3://profiles/prefix"]).expect("settings");
        assert_eq!(settings.listen, SocketAddr::from(([0, 0, 0, 0], 4200)));
        let problems = config::Settings::problems(&settings);
        assert!(matches!(problems.as_slice(), [one] if one.contains("--insecure")), "{problems:?}");
        let trusting =
            Settings { server: listen::Options { access: trusting(), ..settings.server.clone() }, ..settings.clone() };
        assert_eq!(config::Settings::problems(&trusting), [""; 0]);
        assert_eq!(settings.server.drain.delay, std::time::Duration::from_secs(5));
        assert!(Settings::try_parse_from(["afterglow-querier"]).is_err());
    }
}
