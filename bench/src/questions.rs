//! A querier that is asked, and what an answer cost it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_e2e::Program;
use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{bucket, process};

/// A warm question is asked again until it has taken this much CPU time, so that the clock's ticks of 10 ms are small beside it.
const WARM_CPU: Duration = Duration::from_millis(500);

/// And no more often.
const WARM_ASKS_MAX: usize = 200;

/// And this often, whatever it takes.
const WARM_ASKS_MIN: usize = 5;

/// A querier over a folder.
pub struct Querier {
    program: Program,
    client: reqwest::Client,
}

/// What a question cost at first and then.
pub struct Cost {
    /// The answer.
    pub body: Vec<u8>,
    /// How many profiles it says it is of, where it says so.
    pub profiles: Option<usize>,
    /// The first time.
    pub cold: (Duration, Duration),
    /// The median wall time and the mean CPU time of those after it.
    pub warm: (Duration, Duration),
    /// The 99th in 100 of the wall times of those after it.
    pub warm_p99: Duration,
    /// How often it was asked after the first time.
    pub asks: usize,
    /// The bytes that the store gave, and the requests that it was asked, the first time.
    pub read: (f64, Value),
    /// The same of all times after it.
    pub read_warm: (f64, Value),
    /// The most memory that the querier has held.
    pub peak_rss: u64,
}

// === impl Querier ===

impl Querier {
    /// Starts one.
    ///
    /// # Errors
    /// No client can be made.
    pub fn start(program: &Path, storage: &Path, args: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        // The one program that is all servers takes the name of one first.
        if program.file_name().is_some_and(|name| name == "afterglow") {
            command.arg("querier");
        }
        command.args(["--listen", "127.0.0.1:0", "--storage", &format!("file://{}", storage.display())]).args(args);
        Ok(Self { program: Program::spawn("afterglow-querier", command), client: reqwest::Client::builder().build()? })
    }

    /// Returns its process.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Returns the URL of a question.
    ///
    /// # Errors
    /// It is none.
    pub fn question(&self, path: &str, params: &[(&str, String)]) -> anyhow::Result<reqwest::Url> {
        Ok(reqwest::Url::parse_with_params(&format!("{}{path}", self.program.url()), params)?)
    }

    /// Returns its page of metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.client.get(self.question("/metrics", &[])?).send().await?.error_for_status()?.text().await?)
    }

    /// Asks it, and returns the answer with the number of profiles that it is of.
    ///
    /// # Errors
    /// It refuses.
    pub async fn ask(&self, url: &reqwest::Url) -> anyhow::Result<(Vec<u8>, Option<usize>)> {
        let answer = self.client.get(url.clone()).send().await?;
        let status = answer.status();
        let counted = answer.headers().get("x-afterglow-profiles");
        let profiles = counted.and_then(|count| count.to_str().ok()?.parse().ok());
        let body = answer.bytes().await?.to_vec();
        anyhow::ensure!(status.is_success(), "{url}: {status}: {}", String::from_utf8_lossy(&body));
        Ok((body, profiles))
    }

    /// Asks the same again and again.
    ///
    /// # Errors
    /// It refuses.
    pub async fn cost(&self, url: &reqwest::Url) -> anyhow::Result<Cost> {
        let (idle, before) = (process::cpu_time(self.pid())?, self.metrics().await?);
        let began = Instant::now();
        let (body, profiles) = self.ask(url).await?;
        let cold = (began.elapsed(), process::cpu_time(self.pid())?.saturating_sub(idle));
        let after = self.metrics().await?;
        let (begun, mut walls) = (process::cpu_time(self.pid())?, Vec::new());
        let mut took = Duration::ZERO;
        while walls.len() < WARM_ASKS_MIN || (took < WARM_CPU && walls.len() < WARM_ASKS_MAX) {
            let began = Instant::now();
            self.ask(url).await?;
            walls.push(began.elapsed());
            took = process::cpu_time(self.pid())?.saturating_sub(begun);
        }
        let asks = walls.len();
        let end = self.metrics().await?;
        Ok(Cost {
            body,
            profiles,
            cold,
            warm: (quantile(&mut walls, 0.5), took / asks as u32),
            warm_p99: quantile(&mut walls, 0.99),
            asks,
            read: between(&before, &after),
            read_warm: between(&after, &end),
            peak_rss: process::peak_rss(self.pid())?,
        })
    }
}

// === impl Cost ===

impl Cost {
    /// Returns all but the answer.
    pub fn report(&self) -> Value {
        json!({
            "answer_bytes": self.body.len(), "profiles": self.profiles,
            "cold_cpu_ms": millis(self.cold.1), "cold_wall_ms": millis(self.cold.0),
            "warm_cpu_ms": millis(self.warm.1), "warm_wall_ms": millis(self.warm.0), "warm_wall_p99_ms": millis(self.warm_p99),
            "asks": self.asks, "bytes_read": self.read.0, "requests": self.read.1,
            "warm_bytes_read": self.read_warm.0, "warm_requests": self.read_warm.1,
            "peak_rss_mib": self.peak_rss >> 20,
        })
    }

    /// Returns the answer as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).context("the answer is JSON")
    }
}

/// Returns the bytes that were read of the store between two pages of metrics, and the requests.
fn between(before: &str, after: &str) -> (f64, Value) {
    let (from, to) = (bucket::requests(before), bucket::requests(after));
    let mut requests = serde_json::Map::new();
    for (operation, count) in to.as_object().into_iter().flatten() {
        let more = count.as_f64().unwrap_or_default() - from[operation].as_f64().unwrap_or_default();
        if more > 0.0 {
            requests.insert(operation.clone(), json!(more));
        }
    }
    (received(after) - received(before), Value::Object(requests))
}

/// Sums the bytes that a querier received from its store.
pub fn received(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with("afterglow_store_received_bytes_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Returns a quantile of times, which it sorts; zero of none.
pub fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort_unstable();
    times.get((times.len().saturating_sub(1) as f64 * q).round() as usize).copied().unwrap_or_default()
}

/// Returns milliseconds, with fractions.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
