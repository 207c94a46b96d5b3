//! The registry that all parts of a server share, and its text on `/metrics`.
//!
//! A metric is defined beside what it measures, under its full name `afterglow_<part>_<thing>_<unit>`;
//! [`Metrics::register`] puts it here. Counters get `_total` from the encoder. Of its own the registry has the process
//! metrics of Prometheus's clients, read from `/proc` when asked, and `afterglow_build_info`.

mod process;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::Program;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Creates the registry of `program`, with the metrics of the process.
    pub fn new(program: Program) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::new()));
        let build = [("program", program.name), ("version", program.version), ("revision", program.revision)];
        let info: Family<[(&str, &str); 3], ConstGauge<i64>> = Family::new_with_constructor(|| ConstGauge::new(1));
        drop(info.get_or_create(&build));
        registry.register("afterglow_build_info", "The program and its version, always 1", info);
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Lets a part add its metrics.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        // A panic while adding leaves the registry whole: it only ever pushes.
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes all metrics in OpenMetrics text, which Prometheus reads.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// Adds a gauge whose value is read when the metrics are asked for.
pub fn register_reading<N: EncodeGaugeValue + 'static>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> N + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Reading { name, help, read }));
}

/// A gauge that somebody else keeps.
struct Reading<F> {
    name: &'static str,
    help: &'static str,
    read: F,
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&self.name).finish()
    }
}

impl<N: EncodeGaugeValue + 'static, F: Fn() -> N + Send + Sync + 'static> Collector for Reading<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new((self.read)());
        gauge.encode(encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    /// Goal: the text has the process, the build, and what the parts added.
    #[test]
    fn text_has_process_build_and_parts() {
        let metrics = Metrics::new(Program { name: "afterglow-test", version: "1.2.3", revision: "abc" });
        let pushed: Counter = metrics.clone().register(|registry| {
            let pushed = Counter::default();
            registry.register("afterglow_test_things", "Things", pushed.clone());
            pushed
        });
        pushed.inc_by(7);
        let text = metrics.text().expect("text");
        for line in [
            "afterglow_build_info{program=\"afterglow-test\",version=\"1.2.3\",revision=\"abc\"} 1",
            "afterglow_test_things_total 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
        {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
            let value: f64 = line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number");
            // A test may have used less than the hundredth of a second that the kernel counts in.
            assert!(value > 0.0 || name == "process_cpu_seconds_total", "{line}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
