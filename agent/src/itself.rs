//! A server that profiles itself and keeps what it finds in Afterglow, as of any other program: its own trouble is found with it.
//!
//! [`Options`] say whether and how often, [`Elsewhere`] to which server. [`Itself`] is the profiler while it runs. A tier begins when it is told a
//! server, for its profiles lie beside those of its users; one that takes profiles may be told [`HERE`], and sends them to itself by its own door.

use std::path::PathBuf;
use std::time::Duration;

use afterglow_service::config::{Secret, not_within};
use afterglow_service::listen::{self, Drained, Server};
use afterglow_service::{Health, Program};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connect::{self, Connector, Target, Tls, read_token};
use crate::profiler::{self, Profiler, ProfilerBuilder};

/// What stands for the process itself in place of a server's address.
const HERE: &str = "here";

/// What stands for the process in the addresses of its own requests; nobody looks it up.
const OWN_ADDRESS: &str = "http://localhost";

/// The bounds of the time between two of its own profiles: below, symbols would take more than the samples.
const PERIOD_MIN: Duration = Duration::from_secs(1);
const PERIOD_MAX: Duration = Duration::from_secs(3600);

/// How long the end waits for the last profiles: they matter less than an end in time.
const LAST_PROFILES_MAX: Duration = Duration::from_millis(500);

/// Where Linux says what the machine, or the pod, is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Whether a server profiles itself.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Options {
    /// Does not profile this process
    #[arg(long)]
    pub no_self_profile: bool,
    /// Time between two of its own profiles of a type
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    pub self_profile_period: Duration,
}

/// Where a server sends the profiles of itself that it does not take itself.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Elsewhere {
    /// The server to which this process pushes profiles of itself, such as http://ingester:4100; "here" is the process itself, if it takes
    /// profiles. Without it none are taken
    #[arg(id = "self-profile.server", long = "self-profile.server", value_name = "URL")]
    pub server: Option<String>,
    /// The tenant whose profiles these are there; a server without tenants needs none
    #[arg(id = "self-profile.tenant", long = "self-profile.tenant", value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The bearer token to present there, with the role write. Better given by the environment or a file
    #[arg(
        id = "self-profile.token",
        long = "self-profile.token",
        value_name = "TOKEN",
        conflicts_with = "self-profile.token-file"
    )]
    pub token: Option<Secret>,
    /// The file that holds the token to present there
    #[arg(id = "self-profile.token-file", long = "self-profile.token-file", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Presents the token over plain http:// to other machines, too, where whoever is on the way can read it
    #[arg(id = "self-profile.token-in-clear", long = "self-profile.token-in-clear")]
    pub token_in_clear: bool,
    /// PEM file of the authorities by which that server is verified, instead of the system's
    #[arg(id = "self-profile.ca-file", long = "self-profile.ca-file", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate to present there, where it asks for one
    #[arg(id = "self-profile.cert-file", long = "self-profile.cert-file", value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(id = "self-profile.key-file", long = "self-profile.key-file", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Profiles this process, if anything does.
#[derive(Debug)]
pub struct Itself(Option<Profiler>);

// === impl Options ===

impl Options {
    /// Returns what cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        not_within("self-profile-period", self.self_profile_period, PERIOD_MIN, PERIOD_MAX).into_iter().collect()
    }
}

// === impl Elsewhere ===

impl Elsewhere {
    /// Returns whether the process shall push to itself.
    pub fn is_here(&self) -> bool {
        self.server.as_deref() == Some(HERE)
    }

    /// Returns what cannot work, one sentence each; reads the files. `takes_profiles` says whether the process can push to itself.
    pub fn problems(&self, takes_profiles: bool) -> Vec<String> {
        if self.is_here() && !takes_profiles {
            return vec![format!(
                "self-profile.server is {HERE:?}, but this process takes no profiles: name an ingester"
            )];
        }
        let checked = self.target().and_then(|target| target.map_or(Ok(()), |target| target.check()));
        let problem = |error| match error {
            // It is called by the name of the setting.
            connect::Error::Header { .. } => format!("self-profile.{error}"),
            error => format!("self-profile: {error}"),
        };
        checked.err().map(problem).into_iter().collect()
    }

    /// Returns where that is, if it is said.
    fn target(&self) -> Result<Option<Target>, connect::Error> {
        let Some(server) = self.server.as_ref().filter(|_| !self.is_here()) else { return Ok(None) };
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.reveal().to_owned()),
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => None,
        };
        Ok(Some(Target {
            tenant: self.tenant.clone(),
            token,
            token_in_clear: self.token_in_clear,
            tls: Tls {
                ca_file: self.ca_file.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
            },
            ..Target::new(server.clone())
        }))
    }
}

// === impl Itself ===

impl Itself {
    /// Profiles nothing.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// Begins to profile this process as `program`, and sends what comes of it to `server`, which it is about to run, by its own door: whatever the port
    /// speaks and whomever it trusts, as the tenant `anonymous`. Call it once, within a tokio runtime.
    ///
    /// # Errors
    /// [`profiler::Error`], where there is no profiler.
    pub fn by_door(options: &Options, program: Program, server: &mut Server) -> Result<Self, profiler::Error> {
        if options.no_self_profile {
            return Ok(Self::nothing());
        }
        let (door, token) = (server.door(), server.own_token(program.name));
        let connector = Connector::new(move || {
            let door = door.clone();
            async move { door.open().await }
        });
        let target = Target {
            token: token.map(|token| token.reveal().to_owned()),
            connector: Some(connector),
            ..Target::new(OWN_ADDRESS)
        };
        Self::begin(options, program, target)
    }

    /// Begins to profile this process as `program`, and sends what comes of it to another server; nothing where none is said. Call it once, within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`profiler::Error`], where there is no profiler, or the server's address cannot be used.
    pub fn elsewhere(options: &Options, elsewhere: &Elsewhere, program: Program) -> Result<Self, profiler::Error> {
        match elsewhere.target()? {
            Some(target) if !options.no_self_profile => Self::begin(options, program, target),
            Some(_) | None => Ok(Self::nothing()),
        }
    }

    /// Begins to profile this process as `program`, which pushes to `target` anyway. Call it once, within a tokio runtime.
    ///
    /// # Errors
    /// As [`Itself::elsewhere`].
    pub(crate) fn beside(options: &Options, target: Target, program: Program) -> Result<Self, profiler::Error> {
        if options.no_self_profile { Ok(Self::nothing()) } else { Self::begin(options, program, target) }
    }

    fn begin(options: &Options, program: Program, target: Target) -> Result<Self, profiler::Error> {
        let mut builder = ProfilerBuilder::to(target, program.name)
            .label("version", program.version)
            .period(options.self_profile_period);
        // Of many replicas the one that is in trouble is to be told from the others.
        if let Ok(host) = std::fs::read_to_string(HOST_NAME)
            && !host.trim().is_empty()
        {
            builder = builder.label("instance", host.trim());
        }
        Ok(Self(Some(builder.start()?)))
    }

    /// Runs `server`, which this profiles or does not, until `stop`; whatever runs beside it ends by `stop_serving`, as it does.
    ///
    /// # Errors
    /// Those of [`Server::run`]. One that could not begin cancels `stop`, so that the rest does not wait for a signal.
    pub async fn run(
        self,
        server: Server,
        listener: TcpListener,
        stop: &CancellationToken,
        health: &Health,
        stop_serving: &CancellationToken,
    ) -> Result<Drained, listen::Error> {
        let served = async {
            let served = server.run(listener, stop_serving.clone()).await;
            stop.cancel();
            served
        };
        tokio::join!(served, self.end_first(stop, health, stop_serving)).0
    }

    /// Ends the profiler, whose last window is pushed, in half a second at most.
    pub(crate) async fn end(self) {
        if let Some(profiler) = self.0 {
            let _ = tokio::time::timeout(LAST_PROFILES_MAX, profiler.stop()).await;
        }
    }

    /// Waits for `stop`; then says that the server is not ready, ends the profiler first, so that its last window still finds a port
    /// open, half a second at most, and cancels `stop_serving`.
    async fn end_first(self, stop: &CancellationToken, health: &Health, stop_serving: &CancellationToken) {
        stop.cancelled().await;
        health.drain();
        self.end().await;
        stop_serving.cancel();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        elsewhere: Elsewhere,
    }

    fn problems(flags: &[&str]) -> Vec<String> {
        let flags = Flags::try_parse_from([&["program"], flags].concat()).expect("flags");
        [flags.options.problems(), flags.elsewhere.problems(false)].concat()
    }

    #[test]
    fn what_cannot_work_is_said_at_once() {
        assert_eq!(problems(&[]), [""; 0]);
        assert_eq!(problems(&["--self-profile.server=http://ingester:4100"]), [""; 0]);
        let found = problems(&["--self-profile-period=1ms", "--self-profile.server=ftp://ingester"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].starts_with("self-profile: server address \"ftp://ingester\" is not valid"), "{found:?}");
        let here = problems(&["--self-profile.server=here"]);
        assert_eq!(here, ["self-profile.server is \"here\", but this process takes no profiles: name an ingester"]);
        let in_clear = problems(&["--self-profile.server=http://ingester:4100", "--self-profile.token=agw_1"]).join("");
        assert!(in_clear.contains("in the clear"), "{in_clear}");
        let missing = problems(&["--self-profile.server=https://a", "--self-profile.token-file=/nowhere"]).join("");
        assert!(missing.starts_with("self-profile: token-file /nowhere: "), "{missing}");
        let with_token = |token: &str| problems(&["--self-profile.server=https://a", "--self-profile.token", token]);
        assert_eq!(with_token("agw_1\n"), [""; 0], "the line break of a file is no part of a token");
        for bad in ["agw_1\nagw_2", "\n"] {
            let said = "self-profile.token is empty, or holds characters that a header cannot carry";
            assert_eq!(with_token(bad), [said], "{bad:?}");
        }
    }

    /// Goal: a process that is told nothing, or told not to, profiles nothing.
    #[tokio::test]
    async fn nothing_is_profiled_that_is_not_asked_for() {
        let program = Program::new("test");
        let of = |flags: &[&str]| {
            let flags = Flags::try_parse_from([&["program"], flags].concat()).expect("flags");
            Itself::elsewhere(&flags.options, &flags.elsewhere, program).expect("a profiler").0
        };
        assert!(of(&[]).is_none());
        assert!(of(&["--self-profile.server=http://127.0.0.1:1", "--no-self-profile"]).is_none());
    }
}
