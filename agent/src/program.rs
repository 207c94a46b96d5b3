//! `afterglow-agent` as a program: settings, and the steps from start to end. `afterglow agent` runs the same.

mod printed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use afterglow_service::causes::Causes;
use afterglow_service::config::{self, ByteSize, Secret};
use afterglow_service::listen::{self, Server};
use afterglow_service::{Health, Metrics, Program, access, shutdown, telemetry, tls};
use tokio_util::sync::CancellationToken;

use crate::connect::{self, Target, Tls};
use crate::debug::SelfProfiles;
use crate::itself::{self, Itself};
use crate::profiler;
use crate::scrape::{File, Scraper};
use crate::upload::{Client, Options};

/// What this program is called.
pub const PROGRAM: Program = Program::new("afterglow-agent");

/// Where profiles are pushed to where nothing else is said.
const SERVER_DEFAULT: &str = "http://127.0.0.1:4100";

/// Memory for profiles that wait where nothing else is said.
const QUEUE_DEFAULT: ByteSize = ByteSize::mib(64);

/// How long a stopped agent waits for the outcome of its last profiles.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What its TLS is called.
const LISTEN_TLS_NAMES: tls::Names = tls::Names {
    cert_file: "listen-tls.cert-file",
    key_file: "listen-tls.key-file",
    client_ca_file: "listen-tls.client-ca-file",
};

const EXAMPLES: &str = "\
Examples:
  afterglow-agent --config agent.toml
  afterglow-agent --config agent.toml --server https://profiles.example.com --listen 127.0.0.1:4300
  afterglow-agent --config agent.toml --check-config
  afterglow-agent --config agent.toml --print-config

A file that scrapes CPU, heap, goroutine, mutex and block of two targets:
  [[scrape_configs]]
  job_name = \"checkout\"
  scrape_interval = \"15s\"
  targets = [\"10.0.0.7:6060\", \"10.0.0.8:6060\"]";

/// Scrapes pprof from targets that serve it over HTTP, and pushes the profiles over one stream
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "afterglow-agent", version, after_help = EXAMPLES)]
// One of many, on many nodes.
#[command(mut_arg("self_profile_period", |period| period.default_value("1m")))]
pub struct Settings {
    /// The TOML file that says what to scrape; flags and environment go over its settings of the same names, and over those of its tls_config
    // An id of its own, for it is not the file of settings that other programs have by that flag.
    #[arg(long = "config", id = "scrape_file", value_name = "FILE")]
    pub config: PathBuf,
    /// Prints the settings in effect as such a file, with secrets masked, and exits
    #[arg(long)]
    pub print_config: bool,
    /// Checks the file and exits: 0 when it is good, 78 when not
    #[arg(long)]
    pub check_config: bool,
    /// The server to push to [default: http://127.0.0.1:4100]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The tenant whose profiles these are; a server without tenants needs none
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The bearer token to present; in the environment or in --token-file it is not seen by who lists processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<Secret>,
    /// The file that holds the token to present
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Presents the token over plain http:// to other machines, too, where whoever is on the way can read it
    #[arg(long)]
    pub token_in_clear: bool,
    /// PEM file of the authorities by which an https:// server is verified, and no others [default: those of the system]
    #[arg(long = "tls.ca-file", value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to present to the server, where it asks for one; read again for each connection
    #[arg(long = "tls.cert-file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(long = "tls.key-file", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Address on which to serve the agent's own health, metrics and profiles; none where it is not given
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Who may use that address.
    #[command(flatten)]
    pub access: access::Options,
    /// Whether that address speaks TLS.
    #[command(flatten)]
    pub listen_tls: ListenTls,
    /// Memory for profiles that wait to be acknowledged; beyond, the oldest are dropped [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub queue: Option<ByteSize>,
    /// Whether it profiles itself, and pushes what comes of it beside the rest.
    #[command(flatten)]
    pub itself: itself::Options,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// TLS of the agent's own port. The names that servers have for this are taken: the agent is a client of one.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct ListenTls {
    /// PEM file of the certificate of the agent's own address, which then speaks TLS and nothing else; read again when it changes
    #[arg(long = "listen-tls.cert-file", value_name = "FILE")]
    pub listen_tls_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key; read again when it changes
    #[arg(long = "listen-tls.key-file", value_name = "FILE")]
    pub listen_tls_key_file: Option<PathBuf>,
    /// PEM file of the authorities of which clients have to present a certificate there, for all but health and metrics; read again when it
    /// changes
    #[arg(long = "listen-tls.client-ca-file", value_name = "FILE")]
    pub listen_tls_client_ca_file: Option<PathBuf>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not good; a sentence each.
    #[error("{}", .0.join("; "))]
    File(Vec<String>),
    /// The server's address is not one.
    #[error("cannot push")]
    Target(#[from] connect::Error),
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
    Profiler(#[from] profiler::Error),
}

// === impl Settings ===

impl config::Settings for Settings {
    fn problems(&self) -> Vec<String> {
        let file = match File::read(&self.config) {
            Ok(file) => file,
            Err(problem) => return vec![problem],
        };
        let path = self.config.display();
        let mut problems: Vec<_> = file.problems().into_iter().map(|problem| format!("{path}: {problem}")).collect();
        if self.queue == Some(ByteSize(0)) {
            problems.push("queue is 0: no profile could wait".to_owned());
        }
        let target = self.target(&file).and_then(|target| target.check());
        problems.extend(target.err().map(|error| error.to_string()));
        match self.listen(&file) {
            Some(address) => problems.extend(self.port().problems(address)),
            None => problems.extend(self.listen_tls.without_listen()),
        }
        problems.extend(self.itself.problems());
        problems.extend(self.telemetry.problems());
        problems
    }

    fn printed(&self, flags: &str) -> Option<String> {
        let text = std::fs::read_to_string(&self.config).ok()?;
        Some(printed::printed(flags, text.parse().ok()?))
    }
}

impl Settings {
    /// Returns where the agent's own port is, if it has one.
    fn listen(&self, file: &File) -> Option<SocketAddr> {
        self.listen.or(file.listen)
    }

    /// Returns who may use that port, and how.
    fn port(&self) -> listen::Options {
        let ListenTls { listen_tls_cert_file, listen_tls_key_file, listen_tls_client_ca_file } =
            self.listen_tls.clone();
        let tls = tls::Options {
            cert_file: listen_tls_cert_file,
            key_file: listen_tls_key_file,
            client_ca_file: listen_tls_client_ca_file,
            names: LISTEN_TLS_NAMES,
        };
        listen::Options { access: self.access.clone(), tls, ..listen::Options::default() }
    }

    /// Returns where to push to, with flags and environment over the file.
    fn target(&self, file: &File) -> Result<Target, connect::Error> {
        let server = self.server.as_ref().or(file.server.as_ref());
        // Either way of giving it here goes over both ways there.
        let (token, token_file) = match (&self.token, &self.token_file) {
            (None, None) => (&file.token, &file.token_file),
            here => here,
        };
        let token = match (token, token_file) {
            (Some(token), _) => Some(token.reveal().to_owned()),
            (None, Some(path)) => Some(connect::read_token(path)?),
            (None, None) => None,
        };
        let own = file.tls_config.clone().unwrap_or_default();
        let tls = Tls {
            ca_file: self.tls_ca_file.clone().or(own.ca_file),
            cert_file: self.tls_cert_file.clone().or(own.cert_file),
            key_file: self.tls_key_file.clone().or(own.key_file),
        };
        Ok(Target {
            token_in_clear: self.token_in_clear || file.token_in_clear,
            tls,
            connector: None,
            server: server.cloned().unwrap_or_else(|| SERVER_DEFAULT.to_owned()),
            tenant: self.tenant.clone().or_else(|| file.tenant.clone()),
            token,
            user_agent: concat!("afterglow-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }
}

// === impl ListenTls ===

impl ListenTls {
    /// Says of each setting that is given that there is no address for it: who gives one believes that there is.
    fn without_listen(&self) -> Vec<String> {
        let given = [
            (LISTEN_TLS_NAMES.cert_file, &self.listen_tls_cert_file),
            (LISTEN_TLS_NAMES.key_file, &self.listen_tls_key_file),
            (LISTEN_TLS_NAMES.client_ca_file, &self.listen_tls_client_ca_file),
        ];
        let given = given.into_iter().filter(|(_, file)| file.is_some());
        given.map(|(name, _)| format!("{name} is given without listen")).collect()
    }
}

/// Scrapes, as a program that is built from `revision`, until SIGTERM or SIGINT, then waits up to 10 s for what is queued.
///
/// # Errors
/// It did not start; once it scrapes, it ends well.
pub async fn run(settings: Settings, revision: &'static str) -> Result<(), Error> {
    let program = PROGRAM.built_from(revision);
    let telemetry = telemetry::init(program, &settings.telemetry)?;
    let stop = shutdown::on_signals()?;
    let ended = scrape(&settings, program, Metrics::new(program), stop).await;
    telemetry.shutdown().await;
    ended
}

/// Begins and ends at once, and returns the metrics that [`run`] has: their reference is made of them.
///
/// # Errors
/// As [`run`].
pub async fn registered(settings: Settings) -> Result<Metrics, Error> {
    let (metrics, stop) = (Metrics::new(PROGRAM), CancellationToken::new());
    stop.cancel();
    scrape(&settings, PROGRAM, metrics.clone(), stop).await?;
    Ok(metrics)
}

async fn scrape(settings: &Settings, program: Program, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    let file = File::read(&settings.config).map_err(|problem| Error::File(vec![problem]))?;
    let queue = settings.queue.or(file.queue).unwrap_or(QUEUE_DEFAULT);
    let options = Options { queue_bytes_max: queue.as_usize(), ..Options::default() };
    let target = settings.target(&file)?;
    let client = Client::new(target.clone(), options)?;
    let scraper = Scraper::new(&file, client.clone(), &metrics).map_err(Error::File)?;
    let itself = Itself::beside(&settings.itself, target, program)?;

    let served = async {
        let Some(address) = settings.listen(&file) else { return Ok(()) };
        let listener = listen::bind(address).await?;
        let server = Server::new(program, settings.port(), Health::new(), metrics);
        server.profiles(Arc::new(SelfProfiles)).run(listener, stop.clone()).await.map(drop)
    };
    let served = async {
        let served: Result<(), listen::Error> = served.await;
        if served.is_err() {
            // An agent that was to be watched must not work unwatched.
            stop.cancel();
        }
        served
    };
    let (served, ()) = tokio::join!(served, scraper.run(stop.clone()));
    itself.end().await;
    let left = client.close(DRAIN_TIMEOUT).await;
    if left > 0 {
        tracing::warn!(profiles = left, "ended with profiles that have no outcome");
    }
    Ok(served?)
}

// === impl Error ===

impl Error {
    /// Says what happened, and returns the exit code: 78 where the configuration is to be corrected, 1 otherwise.
    pub fn report(self) -> ExitCode {
        let problems = match self {
            Self::File(problems) => problems,
            Self::Target(_) | Self::Telemetry(_) => vec![Causes(&self).to_string()],
            Self::Listen(ref error) if error.is_bad_configuration() => vec![Causes(&self).to_string()],
            Self::Listen(_) | Self::Signals(_) | Self::Profiler(_) => {
                tracing::error!("{}", Causes(&self));
                return ExitCode::FAILURE;
            }
        };
        config::Exit::Bad(problems).report()
    }
}
