//! The commands that ask a server: each file is one command, its flags and what it prints.
//!
//! They speak gRPC to any ingester or querier (`--server`), write answers to standard output and everything else to standard
//! error, so that output can be piped. [`Connection`] is what they have in common.

pub(crate) mod bucket;
pub(crate) mod diff;
mod explain;
pub(crate) mod export;
pub(crate) mod fetch;
mod forms;
pub(crate) mod function;
pub(crate) mod labels;
pub(crate) mod maintain;
pub(crate) mod merge;
pub(crate) mod push;
pub(crate) mod regressions;
pub(crate) mod search;
pub(crate) mod series;
pub(crate) mod statistics;
pub(crate) mod stats;
mod table;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod verify;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use afterglow_agent::Target;
use afterglow_agent::connect::{Connection as Channel, Tls, read_token};
use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_proto::v1::{Completeness, Selection};
use afterglow_proto::{Duration, Timestamp};
use afterglow_service::config::Secret;
use afterglow_service::status::code_name;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Context as _;

/// How a command reaches a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// The server to ask.
    #[arg(long, default_value = "http://127.0.0.1:4100", value_name = "URL")]
    pub(crate) server: String,
    /// The tenant whose profiles are meant; a server without tenants needs none.
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
    /// The bearer token to present; in the environment or in --token-file it is not seen by who lists processes.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<Secret>,
    /// The file that holds the token to present.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Presents the token over plain http:// to other machines, too, where whoever is on the way can read it.
    #[arg(long)]
    pub(crate) token_in_clear: bool,
    /// PEM file of the authorities by which an https:// server is verified, instead of the system's.
    #[arg(long = "tls.ca-file", value_name = "FILE")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to present to the server, where it asks for one.
    #[arg(long = "tls.cert-file", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    #[arg(long = "tls.key-file", value_name = "FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,
}

/// Which profiles a command is about.
#[derive(Debug, clap::Args)]
pub(crate) struct SelectionArgs {
    /// A selector, such as '{service="api", dc=~"eu-.*"}'.
    #[arg(value_name = "SELECTOR", default_value = "{}")]
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) window: WindowArgs,
}

/// The type and window of the profiles a command is about.
#[derive(Debug, clap::Args)]
pub(crate) struct WindowArgs {
    /// The profile type, such as cpu or heap.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) profile_type: Option<String>,
    /// The start of the window: RFC 3339, unix seconds, or relative to now such as -1h.
    #[arg(long, default_value = "-1h", value_name = "TIME", value_parser = Moment::bound, allow_hyphen_values = true)]
    pub(crate) from: Moment,
    /// The end of the window, exclusive.
    #[arg(long, default_value = "now", value_name = "TIME", value_parser = Moment::bound, allow_hyphen_values = true)]
    pub(crate) to: Moment,
}

/// What a selection is compared with.
#[derive(Debug, clap::Args)]
pub(crate) struct BaseArgs {
    /// The selector of the base; by default SELECTOR.
    #[arg(id = "base", long = "base", value_name = "SELECTOR")]
    query: Option<String>,
    /// The start of the base's window; without it the window ends at --base-to and is as long as the other.
    #[arg(id = "base_from", long = "base-from", value_name = "TIME", value_parser = Moment::bound, allow_hyphen_values = true)]
    from: Option<Moment>,
    /// The end of the base's window, exclusive; without it the window begins at --base-from and is as long as the other.
    #[arg(id = "base_to", long = "base-to", value_name = "TIME", value_parser = Moment::bound, allow_hyphen_values = true)]
    to: Option<Moment>,
}

// === impl Connection ===

impl Connection {
    /// Returns where to connect to, and as whom.
    ///
    /// # Errors
    /// Says why the file of the token cannot be read.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.reveal().to_owned()),
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => None,
        };
        let tls = Tls {
            ca_file: self.tls_ca_file.clone(),
            cert_file: self.tls_cert_file.clone(),
            key_file: self.tls_key_file.clone(),
        };
        Ok(Target {
            token_in_clear: self.token_in_clear,
            tls,
            connector: None,
            server: self.server.clone(),
            tenant: self.tenant.clone(),
            token,
            user_agent: concat!("afterglow/", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// Opens a client of the query service.
    ///
    /// # Errors
    /// Says which server cannot be reached.
    pub(crate) async fn query_client(&self) -> anyhow::Result<QueryServiceClient<Channel>> {
        let channel = self.target()?.dial().await.context("is it running, and --server right?")?;
        Ok(QueryServiceClient::new(channel).max_decoding_message_size(afterglow_querier::ANSWER_BYTES_MAX))
    }
}

// === impl SelectionArgs ===

impl SelectionArgs {
    /// Turns the flags into a selection; relative times are relative to this call.
    pub(crate) fn selection(&self) -> Selection {
        self.window.selection(&self.query)
    }
}

impl WindowArgs {
    /// Turns the flags into a selection of what `query` selects.
    pub(crate) fn selection(&self, query: &str) -> Selection {
        Selection {
            query: query.to_owned(),
            r#type: self.profile_type.clone().unwrap_or_default(),
            start: Some(self.from.timestamp()),
            end: Some(self.to.timestamp()),
            read_token: String::new(),
        }
    }
}

impl BaseArgs {
    /// Turns the flags into the selection of the base, where one of them is given.
    pub(crate) fn selection(&self, of: &SelectionArgs) -> Option<Selection> {
        let (from, to) = match (self.from, self.to) {
            (None, None) if self.query.is_none() => return None,
            (None, None) => (of.window.from, of.window.to),
            (from, to) => Moment::as_long(from, to, of.window.from, of.window.to),
        };
        let query = self.query.clone().unwrap_or_else(|| of.query.clone());
        Some(Selection { query, start: Some(from.timestamp()), end: Some(to.timestamp()), ..of.selection() })
    }
}

/// How to print an answer.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Output {
    /// Columns for people.
    Table,
    /// The answer as JSON by protobuf's mapping.
    Json,
}

/// A time on the command line, relative ones to its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(i64);

impl FromStr for Moment {
    type Err = afterglow_service::time::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        afterglow_service::time::parse(text, SystemClock.unix_nanos()).map(Self)
    }
}

impl Moment {
    /// Reads a time that bounds a window: one that cannot be stored is the nearest that can.
    fn bound(text: &str) -> Result<Self, afterglow_service::time::Error> {
        afterglow_service::time::parse_bound(text, SystemClock.unix_nanos()).map(Self)
    }

    /// Returns it in protobuf's form.
    pub(crate) fn timestamp(self) -> Timestamp {
        timestamp(self.0)
    }

    /// Completes a window of which one end is missing: it is as long as the one from `like_from` to `like_to`.
    pub(crate) fn as_long(from: Option<Self>, to: Option<Self>, like_from: Self, like_to: Self) -> (Self, Self) {
        let length = like_to.0.saturating_sub(like_from.0);
        let from = from.unwrap_or_else(|| Self(to.unwrap_or(like_to).0.saturating_sub(length)));
        (from, to.unwrap_or(Self(from.0.saturating_add(length))))
    }
}

/// Arguments that are each right but do not go together; ends with the exit code of wrong usage.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// Returns the error for arguments that do not go together.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// Turns nanoseconds since 1970 into protobuf's form.
pub(crate) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as i32 }
}

/// Turns a length of time into protobuf's form.
///
/// # Errors
/// It is longer than 64 bits of seconds; wrong usage.
pub(crate) fn duration(length: std::time::Duration) -> anyhow::Result<Duration> {
    let seconds = i64::try_from(length.as_secs()).map_err(|_| usage("the step is longer than any window"))?;
    Ok(Duration { seconds, nanos: length.subsec_nanos() as i32 })
}

/// Says on standard error what an answer lacks.
pub(crate) fn warn_incomplete(completeness: Option<&Completeness>) {
    for problem in completeness.iter().flat_map(|c| &c.problems) {
        let _ = writeln!(std::io::stderr(), "warning: the answer is partial: {problem}");
    }
}

/// Says on standard error what the reader of an answer should know.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
}

/// Turns a refused call into an error that says what the server said.
pub(crate) fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", code_name(status.code()), status.message())
}

/// Writes bytes to `output`, or to standard output unless that is a terminal.
///
/// # Errors
/// Says that binary data do not belong on a terminal, or why the file cannot be written.
pub(crate) fn write_binary(output: Option<&PathBuf>, bytes: &[u8]) -> anyhow::Result<()> {
    match output {
        Some(path) if path.as_os_str() != "-" => {
            std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
        }
        None if std::io::stdout().is_terminal() => {
            anyhow::bail!("the answer is binary: name a file with -o FILE, pipe it, or force it with -o -")
        }
        _ => write_out(bytes),
    }
}

/// Writes an answer as JSON to standard output.
pub(crate) fn write_json(answer: &impl serde::Serialize) -> anyhow::Result<()> {
    write_text(None, &(serde_json::to_string_pretty(answer)? + "\n"))
}

/// Writes text to `output`, or to standard output.
pub(crate) fn write_text(output: Option<&PathBuf>, text: &str) -> anyhow::Result<()> {
    match output {
        Some(path) if path.as_os_str() != "-" => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        }
        _ => write_out(text.as_bytes()),
    }
}

/// Writes an answer to standard output. A reader that has seen enough, such as `head`, is no failure.
fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}
