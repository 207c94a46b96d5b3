//! Logs and traces of a program.
//!
//! Logs go to stderr as text for people or JSON for machines. Spans go to an OpenTelemetry collector where the usual
//! variables name one (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`, over gRPC), over TLS where that begins with
//! `https://` ([`collector`]);
//! `OTEL_SDK_DISABLED=true` keeps them here, and without an endpoint nothing is recorded. The trace context of W3C
//! crosses programs: [`extract`] reads it from a request, [`inject`] writes it into one, and a [`Place`] goes where there are no headers.
//!
//! What happens for nearly each profile and each request to the store is a span of the target `afterglow_spans`: it goes to a collector, and where
//! there is none it is not even made, unless `--log-level` names that target.
//!
//! Fields carry the data, the text says what happened; a request is one info line at most, loops speak at debug.

mod collector;
mod propagation;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use collector::Collector;

use crate::causes::Causes;
use crate::{Program, tls};

pub use propagation::{Place, Propagate, extract, inject};

/// The flags about logs, flattened into each program.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Options {
    /// How log lines are written: for people or for machines
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,afterglow_store=debug`; RUST_LOG
    /// goes over it
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// How log lines are written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people, coloured on a terminal
    Text,
    /// A JSON object a line
    Json,
}

/// Why telemetry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directives of what to log cannot be read.
    #[error("log level `{directives}` ({setting}) cannot be read")]
    Level {
        /// What was given.
        directives: String,
        /// Where it was given.
        setting: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word among the directives stands for a level and is none.
    #[error(
        "log level `{directive}` ({setting}) is not known: it may be off, error, warn, info, debug or trace, or TARGET=LEVEL for a part of \
         the program"
    )]
    NoLevel {
        /// The word.
        directive: String,
        /// Where it was given.
        setting: &'static str,
    },
    /// The way of talking to the collector is not one we know.
    #[error("{setting}={protocol} is not supported: spans leave over grpc (usually port 4317)")]
    Protocol {
        /// The variable.
        setting: &'static str,
        /// Its value.
        protocol: String,
    },
    /// A file that is needed to speak TLS with the collector cannot be used.
    #[error("cannot speak TLS with the collector of spans")]
    Tls(#[from] tls::Error),
    /// Of a certificate and its key one is missing.
    #[error("{given} is given without {missing}")]
    HalfPair {
        /// The variable that is set.
        given: &'static str,
        /// The one that goes with it.
        missing: &'static str,
    },
    /// The address of the collector is not one.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT {endpoint:?} is not valid: expected http://HOST:PORT or https://HOST:PORT")]
    Endpoint {
        /// The address as given.
        endpoint: String,
    },
    /// The exporter of spans cannot be built.
    #[error("the exporter of spans cannot be built (OTEL_EXPORTER_OTLP_*)")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process logs elsewhere already.
    #[error("telemetry is initialised already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

impl Options {
    /// Returns why [`init`] would fail, one sentence each; looks at the environment as it does, and at the files that it names.
    pub fn problems(&self) -> Vec<String> {
        #[expect(clippy::disallowed_methods, reason = "variables that others have named are read where they are meant")]
        let wanted = Wanted::from_env(&|name| std::env::var(name).ok());
        self.problems_with(wanted)
    }

    fn problems_with(&self, wanted: Result<Wanted, Error>) -> Vec<String> {
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => return vec![Causes(&error).to_string()],
        };
        let level = filter(self, wanted.rust_log).err();
        let collector = wanted.collector.and_then(|collector| collector.check().err());
        [level, collector].into_iter().flatten().map(|error| Causes(&error).to_string()).collect()
    }
}

/// Logs and traces under way; ends with [`Telemetry::shutdown`].
#[must_use = "spans that are not flushed are lost"]
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// How long the last spans may take on their way out: a collector that is gone must not hold up the exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the plumbing says at debug is about bytes and frames; whoever wants it names it. What is written for auditors is written at every
/// level, until somebody says `audit=off`. Spans that are for collectors alone would be made for the log, too.
const DIRECTIVES: &str = "h2=info,hyper=info,hyper_util=info,tonic=info,tower=info,rustls=info,opentelemetry=warn,audit=info,\
     afterglow_spans=off";

/// Starts logs and traces for the process and makes panics log lines. Call it once, within a tokio runtime.
///
/// # Errors
/// When the log level cannot be read, the exporter cannot be built, or it was called before.
pub fn init(program: Program, options: &Options) -> Result<Telemetry, Error> {
    #[expect(clippy::disallowed_methods, reason = "variables that others have named are read where they are meant")]
    let wanted = Wanted::from_env(&|name| std::env::var(name).ok())?;
    let provider = wanted.collector.map(|collector| provider(program, wanted.service_name, &collector)).transpose()?;
    let colour = wanted.colour && io::stderr().is_terminal();
    let lines = lines(options.log_format, colour, io::stderr).with_filter(filter(options, wanted.rust_log)?);
    let subscriber = tracing_subscriber::registry().with(provider.as_ref().map(spans)).with(lines);
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(log_panic));
    for warning in wanted.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Telemetry { provider })
}

/// What the environment wants, in the variables that OpenTelemetry and others agree on.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Where spans go, if anywhere.
    collector: Option<Collector>,
    service_name: Option<String>,
    colour: bool,
    rust_log: Option<String>,
    /// What is not understood and so is not heeded, as OpenTelemetry asks for: a sentence each.
    warnings: Vec<String>,
}

/// The samplers that the SDK has; the last two of each kind take a ratio.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

// === impl Wanted ===

impl Wanted {
    fn from_env(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        // OpenTelemetry and NO_COLOR agree that empty means unset.
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        // What is said of traces goes over what is said of all.
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, set(name)?)));

        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint =
            first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]).filter(|_| !disabled);
        let file = |names| first(names).map(|(name, path)| (name, PathBuf::from(path)));
        let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        if let (Some(_), Some((setting, protocol))) = (&endpoint, protocol)
            && protocol != "grpc"
        {
            return Err(Error::Protocol { setting, protocol });
        }
        let warnings = match &endpoint {
            Some(_) => sampler_warning(set("OTEL_TRACES_SAMPLER"), set("OTEL_TRACES_SAMPLER_ARG")),
            None => None,
        };
        Ok(Self {
            collector: endpoint.map(|(_, endpoint)| Collector {
                endpoint,
                is_insecure: first(["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"])
                    .is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")),
                ca: file(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]),
                cert: file(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"]),
                key: file(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]),
            }),
            service_name: set("OTEL_SERVICE_NAME"),
            colour: set("NO_COLOR").is_none(),
            rust_log: set("RUST_LOG"),
            warnings: warnings.into_iter().collect(),
        })
    }
}

/// Returns what the SDK will not heed of the sampler: it would say so itself before there is a log to say it in.
fn sampler_warning(sampler: Option<String>, argument: Option<String>) -> Option<String> {
    let sampler = sampler?;
    if !SAMPLERS.contains(&sampler.as_str()) {
        let known = SAMPLERS.join(", ");
        return Some(format!(
            "OTEL_TRACES_SAMPLER={sampler} is not known and not heeded, all traces are kept: it may be one of {known}"
        ));
    }
    let is_ratio = |argument: &String| argument.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
    if !sampler.ends_with("traceidratio") || argument.as_ref().is_some_and(is_ratio) {
        return None;
    }
    let argument = argument.map_or_else(|| "is missing".to_owned(), |argument| format!("is {argument:?}"));
    Some(format!(
        "OTEL_TRACES_SAMPLER={sampler} needs a ratio from 0 to 1 in OTEL_TRACES_SAMPLER_ARG, which {argument}: it is not heeded as it stands"
    ))
}

// === impl Telemetry ===

impl Telemetry {
    /// Sends the last spans and stops; takes a second at most.
    pub async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // The provider blocks while its own thread sends.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the last spans are lost"),
            Err(error) => tracing::warn!(error = %error, "the last spans are lost"),
        }
    }
}

/// Builds the way of spans to the collector. Headers, time-outs, batches and the sampler come from the variables
/// OTEL_*, which the SDK reads.
fn provider(program: Program, service_name: Option<String>, collector: &Collector) -> Result<SdkTracerProvider, Error> {
    let tls = collector.check()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(&collector.endpoint);
    let exporter = match tls {
        Some(tls) => exporter.with_tls_config(tls).build()?,
        None => exporter.build()?,
    };
    let resource = Resource::builder()
        .with_service_name(service_name.unwrap_or_else(|| program.name.to_owned()))
        .with_attribute(KeyValue::new("service.version", program.version))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Builds the layer that hands spans to the provider.
fn spans<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    // The exporter's own gRPC client makes spans, too; exporting those would never end.
    let ours = filter_fn(|metadata| metadata.target().starts_with("afterglow"));
    tracing_opentelemetry::layer().with_tracer(provider.tracer("afterglow")).with_filter(LevelFilter::INFO.and(ours))
}

fn filter(options: &Options, rust_log: Option<String>) -> Result<EnvFilter, Error> {
    let (directives, setting) = match rust_log {
        Some(directives) => (directives, "RUST_LOG"),
        None => (options.log_level.clone(), "--log-level"),
    };
    // A word alone that is no level would be the name of a target, of which everything is logged, and of all else nothing.
    let is_level = |directive: &str| directive.is_empty() || directive.parse::<LevelFilter>().is_ok();
    let words = directives.split(',').map(str::trim).filter(|directive| !directive.contains(['=', '[']));
    if let Some(directive) = words.into_iter().find(|directive| !is_level(directive)) {
        return Err(Error::NoLevel { directive: directive.to_owned(), setting });
    }
    // Later directives go over earlier ones of the same target.
    EnvFilter::try_new(format!("{DIRECTIVES},{directives}")).map_err(|source| Error::Level {
        directives,
        setting,
        source,
    })
}

/// Builds the layer that writes lines. Text says when, how grave, where and what; JSON holds the same, a key each.
fn lines<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(colour).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    }
}

/// Logs a panic where it happened. Whoever catches it logs what it ended.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    // Empty unless RUST_BACKTRACE asks for it.
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(location, backtrace = %backtrace, "panic: {message}");
}

#[cfg(test)]
mod tests;
