//! The file that says what to scrape: TOML with the words of Prometheus's `scrape_configs`.
//!
//! [`File`] is what is written, [`File::plan`] what it means: an [`Endpoint`] for each target and profile type, with everything
//! resolved. All that is wrong is found before anything is scraped; keys nobody knows are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use afterglow_profile::{Labels, ProfileType};
use afterglow_service::config::{ByteSize, Secret, toml_problem};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::value::MapAccessDeserializer};

use super::credentials::Credentials;
use crate::connect::is_this_machine;

/// How often a target is scraped where nothing else is said.
pub(crate) const INTERVAL: Duration = Duration::from_secs(15);

/// How long an answer may take, beyond the seconds that were asked for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a CPU profile is, where the interval leaves room for it.
const CPU_SECONDS: u32 = 10;

/// The profile types of Go's net/http/pprof, where they are, and which are scraped where nothing is said. `allocs` has the same samples as
/// `heap` and is not among those.
const KNOWN: &[(&str, &str, bool)] = &[
    ("cpu", "/debug/pprof/profile", true),
    ("heap", "/debug/pprof/heap", true),
    ("goroutine", "/debug/pprof/goroutine", true),
    ("mutex", "/debug/pprof/mutex", true),
    ("block", "/debug/pprof/block", true),
    ("allocs", "/debug/pprof/allocs", false),
    ("threadcreate", "/debug/pprof/threadcreate", false),
];

/// The whole file. Flags and environment go over its first eight settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where profiles are pushed to.
    pub server: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The bearer token.
    #[serde(default, deserialize_with = "parsed")]
    pub token: Option<Secret>,
    /// The file that holds the token instead.
    pub token_file: Option<PathBuf>,
    /// Presents the token over plain `http://` to other machines, too.
    #[serde(default)]
    pub token_in_clear: bool,
    /// How an `https://` server is verified.
    pub tls_config: Option<PushTls>,
    /// Where the agent's own health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// Memory for profiles that wait for their acknowledgement.
    #[serde(default, deserialize_with = "parsed")]
    pub queue: Option<ByteSize>,
    /// How often to scrape where a job does not say.
    #[serde(default, deserialize_with = "duration")]
    scrape_interval: Option<Duration>,
    /// How long an answer may take where a job does not say.
    #[serde(default, deserialize_with = "duration")]
    scrape_timeout: Option<Duration>,
    /// Labels of every profile.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// The jobs.
    #[serde(default)]
    scrape_configs: Vec<ScrapeConfig>,
}

/// TLS towards the server, with the words of Prometheus's `tls_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushTls {
    /// The authorities to believe; none for those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate to present.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// TLS towards the targets of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScrapeTls {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    /// Takes any certificate: what is scraped is then read, and may be made up, by whoever is on the way.
    #[serde(default)]
    pub(super) insecure_skip_verify: bool,
}

/// How the agent says to the targets of a job who it is, with the words of Prometheus's `authorization`: by a bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorization {
    /// Holds the token and nothing else. There is no way to write the token itself: the file of jobs is no secret.
    credentials_file: PathBuf,
    /// Presents the token over plain `http://` to other machines, too.
    #[serde(default)]
    token_in_clear: bool,
}

/// A job: targets that are scraped alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeConfig {
    job_name: String,
    /// The label `service`; the job's name where it is missing.
    service: Option<String>,
    #[serde(default)]
    scheme: Scheme,
    tls_config: Option<ScrapeTls>,
    authorization: Option<Authorization>,
    #[serde(default, deserialize_with = "duration")]
    scrape_interval: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    scrape_timeout: Option<Duration>,
    /// `HOST:PORT` each.
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Groups of targets with labels of their own.
    #[serde(default)]
    static_configs: Vec<StaticConfig>,
    profiles: Option<Vec<ProfileConfig>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticConfig {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    #[default]
    Http,
    Https,
}

/// A profile type to scrape: `"heap"`, or `{ type = "cpu", path = "/pprof/profile", seconds = 5 }`.
#[derive(Clone, Debug, PartialEq)]
struct ProfileConfig {
    profile_type: String,
    path: Option<String>,
    seconds: Option<u32>,
}

/// One profile type of one target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    /// How a target that speaks TLS is verified.
    pub(super) tls: ScrapeTls,
    /// The file of the token to present.
    pub(super) credentials_file: Option<PathBuf>,
    /// `HOST:PORT`.
    pub(super) target: String,
    pub(super) profile_type: String,
    /// All labels of its profiles.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) interval: Duration,
    /// For one scrape, the seconds it asks for included.
    pub(super) timeout: Duration,
    /// When within the interval it is scraped: spread over all endpoints, and the same after a restart.
    pub(super) offset: Duration,
}

// === impl File ===

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence, with the place in the file where there is one.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        #[expect(clippy::disallowed_methods, reason = "variables that the file names are no settings of ours")]
        let variable = |name: &str| std::env::var(name).ok();
        let file = text.parse::<Self>().and_then(|file| file.expanded(&variable));
        file.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Puts variables of the environment in place of `${NAME}` in targets and values of labels, so that one file serves every machine.
    fn expanded(mut self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let jobs = &mut self.scrape_configs;
        let targets = jobs.iter_mut().flat_map(|job| {
            job.targets.iter_mut().chain(job.static_configs.iter_mut().flat_map(|group| &mut group.targets))
        });
        for target in targets {
            *target = expand(target, variable).map_err(|error| format!("target {target:?}: {error}"))?;
        }
        let labels = jobs.iter_mut().flat_map(|job| {
            std::iter::once(&mut job.labels).chain(job.static_configs.iter_mut().map(|g| &mut g.labels))
        });
        for (name, value) in std::iter::once(&mut self.labels).chain(labels).flatten() {
            *value = expand(value, variable).map_err(|error| format!("label {name:?}: {error}"))?;
        }
        Ok(self)
    }

    /// Returns what is wrong beyond what could not be read, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.plan().err().unwrap_or_default()
    }

    /// Returns what to scrape.
    ///
    /// # Errors
    /// All that is wrong, one sentence each.
    pub(super) fn plan(&self) -> Result<Vec<Endpoint>, Vec<String>> {
        let mut problems = Vec::new();
        let mut endpoints = Vec::new();
        if self.queue == Some(ByteSize(0)) {
            problems.push("queue is 0: no profile could wait".to_owned());
        }
        if self.token.is_some() && self.token_file.is_some() {
            problems.push("token and token_file are both given: say one".to_owned());
        }
        if self.scrape_configs.is_empty() {
            problems.push("scrape_configs is empty: there is nothing to scrape".to_owned());
        }
        let mut jobs = BTreeSet::new();
        for job in &self.scrape_configs {
            if !jobs.insert(&job.job_name) {
                problems.push(format!("job {:?}: the name is taken by another job", job.job_name));
            }
            let mut job_problems = Vec::new();
            self.plan_job(job, &mut endpoints, &mut job_problems);
            problems.extend(job_problems.into_iter().map(|problem| format!("job {:?}: {problem}", job.job_name)));
        }
        if problems.is_empty() { Ok(endpoints) } else { Err(problems) }
    }

    fn plan_job(&self, job: &ScrapeConfig, endpoints: &mut Vec<Endpoint>, problems: &mut Vec<String>) {
        let interval = job.scrape_interval.or(self.scrape_interval).unwrap_or(INTERVAL);
        let timeout = job.scrape_timeout.or(self.scrape_timeout).unwrap_or(TIMEOUT);
        if interval < Duration::from_secs(1) {
            problems.push(format!("scrape_interval {} is shorter than 1s", humantime::format_duration(interval)));
            return;
        }
        if timeout.is_zero() {
            problems.push("scrape_timeout is 0: no answer could arrive in time".to_owned());
        }
        if let Some(tls) = &job.tls_config {
            if job.scheme == Scheme::Http {
                problems.push("tls_config is given, but scheme is not \"https\"".to_owned());
            } else if let Err(problem) = tls.client() {
                problems.push(format!("tls_config: {problem}"));
            }
        }
        if let Some(Authorization { credentials_file, .. }) = &job.authorization
            && let Err(problem) = Credentials::read(credentials_file)
        {
            problems.push(format!("authorization: {problem}"));
        }
        let profiles = job.profiles(interval, problems);
        let mut seen = BTreeSet::new();
        let own = StaticConfig { targets: job.targets.clone(), labels: BTreeMap::new() };
        for group in std::iter::once(&own).chain(&job.static_configs) {
            for target in &group.targets {
                if let Err(problem) = check_target(target) {
                    problems.push(problem);
                    continue;
                }
                if !seen.insert(target) {
                    problems.push(format!("target {target:?} is named twice"));
                }
                problems.extend(job.token_in_clear(target));
                let labels = self.labels_of(job, group, target);
                if let Err(error) = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
                    problems.push(format!("target {target:?}: {error}"));
                    continue;
                }
                for profile in &profiles {
                    endpoints.push(profile.endpoint(job, target, labels.clone(), interval, timeout));
                }
            }
        }
        if seen.is_empty() && problems.is_empty() {
            problems.push("no targets: give targets or static_configs".to_owned());
        }
    }

    /// Returns the labels of a target; the nearer ones win.
    fn labels_of(&self, job: &ScrapeConfig, group: &StaticConfig, target: &str) -> BTreeMap<String, String> {
        let service = job.service.as_ref().unwrap_or(&job.job_name);
        let own = [("service", service.as_str()), ("job", &job.job_name), ("instance", target)];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let given = [&self.labels, &job.labels, &group.labels].into_iter().flatten();
        own.into_iter().chain(given.map(|(name, value)| (name.clone(), value.clone()))).collect()
    }
}

impl std::str::FromStr for File {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| toml_problem(text, &error))
    }
}

// === impl ScrapeConfig ===

impl ScrapeConfig {
    /// Says that a token would be for everybody on the way to a target to read, where that is not meant.
    fn token_in_clear(&self, target: &str) -> Option<String> {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let is_meant = self.authorization.as_ref().is_none_or(|authorization| authorization.token_in_clear);
        (self.scheme == Scheme::Http && !is_meant && !is_this_machine(host)).then(|| {
            format!(
                "target {target:?}: the token would go there in the clear, where whoever is on the way can read it: set \
                 scheme = \"https\", or say that this is meant (token_in_clear = true in authorization)"
            )
        })
    }

    /// Returns the profile types to scrape, each with its path and seconds.
    fn profiles(&self, interval: Duration, problems: &mut Vec<String>) -> Vec<ProfileConfig> {
        let default = || KNOWN.iter().filter(|(_, _, default)| *default).map(|(name, ..)| ProfileConfig::named(name));
        let mut profiles = self.profiles.clone().unwrap_or_else(|| default().collect());
        if profiles.is_empty() {
            problems.push("profiles is empty: there is nothing to scrape".to_owned());
        }
        let mut seen = BTreeSet::new();
        for profile in &mut profiles {
            let name = profile.profile_type.clone();
            if !seen.insert(name.clone()) {
                problems.push(format!("profile type {name:?} is named twice"));
            }
            if let Err(error) = ProfileType::parse(&name) {
                problems.push(error.to_string());
                continue;
            }
            let known = KNOWN.iter().find(|(known, ..)| *known == name);
            match (&profile.path, known) {
                (Some(path), _) if !path.starts_with('/') => {
                    problems.push(format!("profile type {name:?}: path {path:?} does not begin with a slash"));
                }
                (None, Some((_, path, _))) => profile.path = Some((*path).to_owned()),
                (None, None) => problems.push(format!("profile type {name:?}: no path is known, give one")),
                (Some(_), _) => {}
            }
            if name == "cpu" && profile.seconds.is_none() {
                // An interval of whole seconds less one: the next scrape must not meet this one.
                profile.seconds = Some(CPU_SECONDS.min(interval.as_secs().saturating_sub(1).max(1) as u32));
            }
            if let Some(seconds) = profile.seconds
                && (seconds == 0 || Duration::from_secs(seconds.into()) > interval)
            {
                let interval = humantime::format_duration(interval);
                problems.push(format!(
                    "profile type {name:?}: {seconds} seconds are not within 1s..={interval}, the scrape_interval"
                ));
            }
        }
        profiles
    }
}

// === impl ProfileConfig ===

impl ProfileConfig {
    fn named(profile_type: &str) -> Self {
        Self { profile_type: profile_type.to_owned(), path: None, seconds: None }
    }

    fn endpoint(
        &self,
        job: &ScrapeConfig,
        target: &str,
        labels: BTreeMap<String, String>,
        interval: Duration,
        timeout: Duration,
    ) -> Endpoint {
        let scheme = match job.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let path = self.path.as_deref().unwrap_or_default();
        let mut url = format!("{scheme}://{target}{path}");
        let seconds = self.seconds.unwrap_or(0);
        if seconds > 0 {
            let separator = if path.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{separator}seconds={seconds}"));
        }
        // Fixed keys: the same place in the interval after every restart.
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        let offset = interval.mul_f64(hasher.finish() as f64 / u64::MAX as f64);
        Endpoint {
            url,
            tls: job.tls_config.clone().unwrap_or_default(),
            credentials_file: job.authorization.as_ref().map(|authorization| authorization.credentials_file.clone()),
            target: target.to_owned(),
            profile_type: self.profile_type.clone(),
            labels,
            interval,
            timeout: timeout + Duration::from_secs(seconds.into()),
            offset,
        }
    }
}

impl<'de> Deserialize<'de> for ProfileConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The long form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            r#type: String,
            path: Option<String>,
            seconds: Option<u32>,
        }

        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = ProfileConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a profile type, or a table with type, path and seconds")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ProfileConfig, E> {
                Ok(ProfileConfig::named(name))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProfileConfig, A::Error> {
                let Table { r#type, path, seconds } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ProfileConfig { profile_type: r#type, path, seconds })
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

/// Puts variables in place of `${NAME}`; all else stays as it is.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or("${ has no }")?;
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name(name) {
            return Err(format!("${{{name}}} is no name of a variable"));
        }
        let value = variable(name).filter(|value| !value.is_empty());
        expanded.push_str(before);
        expanded.push_str(&value.ok_or_else(|| format!("the environment has no variable {name}"))?);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Checks that a target is `HOST:PORT` and nothing more.
fn check_target(target: &str) -> Result<(), String> {
    let port = target.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    let only_authority = !target.contains(['/', '?', '#', '@', ' ']);
    let url_reads_it = reqwest::Url::parse(&format!("http://{target}/")).is_ok();
    match port {
        Some(port) if port > 0 && only_authority && url_reads_it => Ok(()),
        _ => Err(format!("target {target:?} is not HOST:PORT")),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(|error| de::Error::custom(format!("duration {text:?}: {error}")))
}

fn parsed<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Vec<Endpoint>, Vec<String>> {
        text.parse::<File>().unwrap().plan()
    }

    #[test]
    fn the_shortest_file_scrapes_all_default_types_of_its_targets() {
        let endpoints = plan("[[scrape_configs]]\njob_name = \"checkout\"\ntargets = [\"10.0.0.7:6060\"]\n").unwrap();
        let urls: Vec<_> = endpoints.iter().map(|e| e.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "http://10.0.0.7:6060/debug/pprof/profile?seconds=10",
                "http://10.0.0.7:6060/debug/pprof/heap",
                "http://10.0.0.7:6060/debug/pprof/goroutine",
                "http://10.0.0.7:6060/debug/pprof/mutex",
                "http://10.0.0.7:6060/debug/pprof/block",
            ]
        );
        let labels: Vec<_> = endpoints[0].labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(labels, ["instance=10.0.0.7:6060", "job=checkout", "service=checkout"]);
        assert_eq!(endpoints[0].timeout, Duration::from_secs(20));
        assert!(endpoints.iter().all(|e| e.interval == INTERVAL && e.offset < INTERVAL));
        assert!(endpoints[1].offset != endpoints[2].offset, "scrapes are spread");
    }

    /// Goal: a file names the machine that it is on by variables, in targets and labels, and what is not there is said.
    #[test]
    fn variables_stand_in_targets_and_labels() {
        let variable = |name: &str| match name {
            "NODE_IP" => Some("10.0.0.7".to_owned()),
            "NODE_NAME" => Some("node-1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let expanded = |text: &str| text.parse::<File>().unwrap().expanded(&variable);
        let text = "labels = { node = \"${NODE_NAME}\" }\n[[scrape_configs]]\njob_name = \"a\"\nprofiles = [\"heap\"]\n\
                    targets = [\"${NODE_IP}:6060\"]\n[[scrape_configs.static_configs]]\ntargets = [\"x:1\"]\n\
                    labels = { at = \"${NODE_NAME}/${NODE_IP}, 5$\" }\n";
        let endpoints = expanded(text).unwrap().plan().unwrap();
        let of = |number: usize| (endpoints[number].target.as_str(), &endpoints[number].labels);
        assert_eq!(
            (of(0).0, of(0).1["node"].as_str(), of(0).1["instance"].as_str()),
            ("10.0.0.7:6060", "node-1", "10.0.0.7:6060")
        );
        assert_eq!((of(1).0, of(1).1["at"].as_str()), ("x:1", "node-1/10.0.0.7, 5$"));
        for (target, said) in [
            ("${NOWHERE}:1", "target \"${NOWHERE}:1\": the environment has no variable NOWHERE"),
            ("${EMPTY}:1", "target \"${EMPTY}:1\": the environment has no variable EMPTY"),
            ("${NODE_IP:1", "target \"${NODE_IP:1\": ${ has no }"),
            ("${a b}:1", "target \"${a b}:1\": ${a b} is no name of a variable"),
        ] {
            let text = format!("[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"{target}\"]\n");
            assert_eq!(expanded(&text).unwrap_err(), said);
        }
    }

    #[test]
    fn the_example_file_is_good() {
        let endpoints = plan(include_str!("../../agent.example.toml")).unwrap();
        assert_eq!(endpoints.len(), 2 * 5 + 2 * 3);
    }

    /// Goal: what the documentation shows can be used as it stands.
    #[test]
    fn the_examples_of_the_documentation_are_good() {
        for (name, text) in [
            ("docs/agent.md", include_str!("../../../docs/agent.md")),
            ("README.md", include_str!("../../../README.md")),
        ] {
            let examples: Vec<_> =
                text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
            assert!(!examples.is_empty(), "{name} lost its examples");
            for example in examples {
                let file = example.parse::<File>().unwrap().expanded(&|_| Some("10.0.0.7".to_owned()));
                let endpoints = file.unwrap().plan();
                let endpoints = endpoints.unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{example}"));
                assert!(!endpoints.is_empty(), "{name}: {example}");
            }
        }
    }

    #[test]
    fn nearer_settings_and_labels_win() {
        let endpoints = plan(
            r#"
            server = "http://ingester:4100"
            queue = "16MiB"
            scrape_interval = "1m"
            labels = { dc = "eu-1", version = "0" }
            [[scrape_configs]]
            job_name = "api"
            service = "checkout"
            scheme = "https"
            scrape_interval = "5s"
            scrape_timeout = "2s"
            labels = { version = "1" }
            profiles = ["heap", { type = "cpu", path = "/pprof/profile?x=1", seconds = 3 }, { type = "fgprof", path = "/fgprof" }]
            [[scrape_configs.static_configs]]
            targets = ["[::1]:6060"]
            labels = { version = "2", instance = "a7" }
            "#,
        )
        .unwrap();
        assert_eq!(endpoints.len(), 3);
        let labels: Vec<_> = endpoints[0].labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(labels, ["dc=eu-1", "instance=a7", "job=api", "service=checkout", "version=2"]);
        assert_eq!(endpoints[1].url, "https://[::1]:6060/pprof/profile?x=1&seconds=3");
        assert_eq!((endpoints[1].interval, endpoints[1].timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let problems = plan(
            r#"
            [[scrape_configs]]
            job_name = "a"
            targets = ["http://host:1", "host", "host:0", "ok:1", "ok:1"]
            labels = { "" = "x" }
            profiles = ["cpu", "cpu", "wall", { type = "Heap", path = "/h" }, { type = "heap", path = "h", seconds = 99 }]
            [[scrape_configs]]
            job_name = "a"
            [[scrape_configs]]
            job_name = "fast"
            scrape_interval = "10ms"
            "#,
        )
        .unwrap_err();
        let expected = [
            r#"job "a": profile type "cpu" is named twice"#,
            r#"job "a": profile type "wall": no path is known, give one"#,
            r#"job "a": profile type "heap": path "h" does not begin with a slash"#,
            r#"job "a": profile type "heap": 99 seconds are not within 1s..=15s, the scrape_interval"#,
            r#"job "a": target "http://host:1" is not HOST:PORT"#,
            r#"job "a": target "host" is not HOST:PORT"#,
            r#"job "a": target "host:0" is not HOST:PORT"#,
            r#"job "a": target "ok:1" is named twice"#,
            r#"job "a": the name is taken by another job"#,
            r#"job "a": no targets: give targets or static_configs"#,
            r#"job "fast": scrape_interval 10ms is shorter than 1s"#,
        ];
        for text in expected {
            assert!(problems.iter().any(|p| p == text), "{text} is missing in {problems:#?}");
        }
        let label = problems.iter().filter(|p| p.contains("\"ok:1\"") && !p.contains("twice"));
        assert_eq!(label.count(), 2, "{problems:#?}");
        assert!(problems.iter().any(|p| p.contains("Heap")), "{problems:#?}");
        assert_eq!(plan("").unwrap_err(), ["scrape_configs is empty: there is nothing to scrape"]);
    }

    /// Goal: a token goes over TLS, or to this machine, unless the job says otherwise, and a file that holds none is found at the start.
    #[test]
    fn a_token_goes_to_targets_in_the_clear_only_where_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "agw_secret\n").unwrap();
        let job = |target: &str, scheme: &str, more: &str| {
            let authorization = format!("authorization = {{ credentials_file = {path:?}{more} }}");
            plan(&format!(
                "[[scrape_configs]]\njob_name = \"a\"\nscheme = \"{scheme}\"\ntargets = [\"{target}\"]\n{authorization}\n"
            ))
        };
        for here in ["localhost:1", "127.0.0.2:1", "[::1]:1"] {
            let endpoints = job(here, "http", "").unwrap();
            assert!(endpoints.iter().all(|endpoint| endpoint.credentials_file.as_deref() == Some(&*path)), "{here}");
        }
        for there in ["10.0.0.7:1", "api:1", "localhost.example.com:1", "[2001:db8::1]:1"] {
            let problems = job(there, "http", "").unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert!(problem.contains(there) && problem.contains("token_in_clear = true"), "{problem}");
            assert!(job(there, "http", ", token_in_clear = true").is_ok(), "{there}");
            assert!(job(there, "https", "").is_ok(), "{there}");
        }
        std::fs::write(&path, "agw_secret agw_other").unwrap();
        let [odd] = job("localhost:1", "http", "").unwrap_err().try_into().unwrap();
        assert_eq!(
            odd,
            format!("job \"a\": authorization: credentials_file {}: does not hold one token", path.display())
        );
        std::fs::remove_file(&path).unwrap();
        let [gone] = job("localhost:1", "http", "").unwrap_err().try_into().unwrap();
        assert!(
            gone.starts_with(&format!("job \"a\": authorization: credentials_file {}: No such", path.display())),
            "{gone}"
        );
    }

    #[test]
    fn keys_nobody_knows_are_refused_with_their_place() {
        for (text, said) in [
            ("scrap_interval = \"1s\"", "unknown field `scrap_interval`"),
            ("[[scrape_configs]]\njob_name = \"a\"\ntarget = []", "unknown field `target`"),
            (
                "[[scrape_configs]]\njob_name = \"a\"\nprofiles = [{ type = \"cpu\", paht = \"/\" }]",
                "unknown field `paht`",
            ),
            ("[[scrape_configs]]\njob_name = \"a\"\nprofiles = [1]", "a profile type, or a table"),
            (
                "[[scrape_configs]]\njob_name = \"a\"\nauthorization = { credentials = \"agw_1\" }",
                "unknown field `credentials`",
            ),
            ("scrape_interval = \"often\"", "duration \"often\""),
            ("queue = \"much\"", "`much` is not a size"),
        ] {
            let error = text.parse::<File>().unwrap_err();
            assert!(error.contains(said) && error.contains("line "), "{text}: {error}");
        }
    }
    /// Symptom: what the parser says quoted the line, and with it the credentials.
    #[test]
    fn what_is_wrong_with_a_file_shows_no_secret() {
        for (text, said) in [
            ("token = hunter2", "line 1: "),
            ("\ntoken = \"hunter2\" x", "line 2: "),
            ("queue = \"1MiB\"\nlisten = { token = \"hunter2\" }", "line 2: invalid type: map, expected "),
            (
                "[[scrape_configs]]\njob_name = \"a\"\nauthorization = { credentials = \"hunter2\", bogus = 1 }",
                "line 3: unknown field `",
            ),
            (
                "[[scrape_configs]]\njob_name = \"a\"\nauthorization = \"hunter2\"",
                "line 3: invalid type: string, expected ",
            ),
        ] {
            let error = text.parse::<File>().unwrap_err();
            assert!(error.starts_with(said) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
