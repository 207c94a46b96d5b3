//! The profiler that runs as long as the program: window after window of CPU time, and at the end of each a snapshot of the heap.
//!
//! It shows soon: the first snapshot of the heap is taken at once, and the first window of CPU time is short. What it samples is at least
//! that the profiler starts, so that the first profile of a program that waits for work is not empty.

use std::collections::BTreeMap;
use std::time::Duration;

use afterglow_proto::v1::Profile;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::cpu::{Lease, Snapshot, profile_between};
use super::{Error, FREQUENCY_HZ, check_frequency, heap, worker};
use crate::connect::{Connector, Target, Tls};
use crate::upload::{Client, Options};

/// The default length of a window: two profiles of each type a minute.
const PERIOD: Duration = Duration::from_secs(30);

/// The longest first window: a program that has just started shows soon, and its start shows apart from its work.
const FIRST_WINDOW_MAX: Duration = Duration::from_secs(1);

/// How long a stopped profiler waits for the outcome of its last profiles.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Describes a [`Profiler`].
#[derive(Clone, Debug)]
pub struct ProfilerBuilder {
    target: Target,
    labels: BTreeMap<String, String>,
    period: Duration,
    frequency: u32,
    cpu: bool,
    heap: bool,
    options: Options,
}

/// Profiles this process until it is stopped or dropped.
#[derive(Debug)]
pub struct Profiler {
    client: Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

// === impl ProfilerBuilder ===

impl ProfilerBuilder {
    /// Describes a profiler that sends to `server` as `service`: CPU at 100 Hz in windows of 30 s, and heap where it is available.
    pub fn new(server: impl Into<String>, service: impl Into<String>) -> Self {
        Self::to(Target::new(server), service)
    }

    /// Describes a profiler that sends to `target` as `service`, and is otherwise as [`ProfilerBuilder::new`] has it.
    pub fn to(target: Target, service: impl Into<String>) -> Self {
        Self {
            target,
            labels: BTreeMap::from([("service".to_owned(), service.into())]),
            period: PERIOD,
            frequency: FREQUENCY_HZ,
            cpu: true,
            heap: heap::is_available(),
            options: Options { queue_bytes_max: 16 << 20, ..Options::default() },
        }
    }

    /// Adds a label to every profile.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.target.tenant = Some(tenant.into());
        self
    }

    /// Sets the bearer token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.target.token = Some(token.into());
        self
    }

    /// Sends the token over plain `http://` to other machines, too, where whoever is on the way can read it.
    pub fn token_in_clear(mut self) -> Self {
        self.target.token_in_clear = true;
        self
    }

    /// Sets how an `https://` server is verified, and what is presented to it.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.target.tls = tls;
        self
    }

    /// Sets what opens connections in place of the network.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.target.connector = Some(connector);
        self
    }

    /// Sets the length of a window.
    pub fn period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    /// Sets how often to sample, per second of CPU time; a profiler that runs already keeps its own frequency.
    pub fn frequency(mut self, frequency: u32) -> Self {
        self.frequency = frequency;
        self
    }

    /// Sets whether to profile CPU time.
    pub fn cpu(mut self, cpu: bool) -> Self {
        self.cpu = cpu;
        self
    }

    /// Sets whether to profile the heap. Asked for where it is not available, `start` fails.
    pub fn heap(mut self, heap: bool) -> Self {
        self.heap = heap;
        self
    }

    /// Sets how profiles are pushed.
    pub fn upload(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Starts to profile. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Target`], [`Error::Frequency`], [`Error::HeapUnavailable`]. That the server does not answer is no error: profiles wait in
    /// the queue.
    pub fn start(self) -> Result<Profiler, Error> {
        check_frequency(self.frequency)?;
        if self.heap && !heap::is_available() {
            return Err(Error::HeapUnavailable);
        }
        let client = Client::new(self.target.clone(), self.options.clone())?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.run(client.clone(), stop.clone()));
        Ok(Profiler { client, stop, task })
    }

    async fn run(self, client: Client, stop: CancellationToken) {
        if self.heap
            && let Err(error) = heap::activate().await
        {
            tracing::warn!(error = %error, "cannot profile the heap");
        }
        let mut window = self.period.min(FIRST_WINDOW_MAX);
        let mut cpu = None;
        let mut is_first = true;
        while !stop.is_cancelled() {
            if self.cpu && cpu.is_none() {
                cpu = self.start_cpu().await.map_err(|error| warn("cannot profile the CPU", &error)).ok();
            }
            if std::mem::take(&mut is_first) {
                self.push_heap(&client).await;
            }
            tokio::select! {
                () = sleep(window) => {}
                () = stop.cancelled() => {}
            }
            window = self.period;
            if let Some((lease, start)) = cpu.take() {
                match worker::run(move || end_window(lease, start)).await {
                    Ok((pprof, next)) => {
                        self.push(&client, "cpu", pprof);
                        cpu = Some(next);
                    }
                    Err(error) => warn("cannot profile the CPU", &error),
                }
            }
            self.push_heap(&client).await;
        }
        // Ends the sampling, which takes milliseconds.
        worker::run(move || drop(cpu)).await;
    }

    async fn push_heap(&self, client: &Client) {
        if self.heap {
            match worker::run(heap::snapshot).await {
                Ok(pprof) => self.push(client, "heap", pprof),
                Err(error) => warn("cannot profile the heap", &error),
            }
        }
    }

    async fn start_cpu(&self) -> Result<(Lease, Snapshot), Error> {
        let frequency = self.frequency;
        worker::run(move || {
            let lease = Lease::acquire(frequency)?;
            let start = lease.snapshot()?;
            Ok((lease, start))
        })
        .await
    }

    fn push(&self, client: &Client, profile_type: &str, pprof: Vec<u8>) {
        let profile = Profile {
            id: Ulid::generate().to_string(),
            r#type: profile_type.to_owned(),
            labels: self.labels.clone(),
            pprof: pprof.into(),
            ..Profile::default()
        };
        if let Err(error) = client.try_push(profile) {
            tracing::warn!(%error, profile_type, "dropped a profile");
        }
    }
}

// === impl Profiler ===

impl Profiler {
    /// Returns the client that pushes, for its statistics.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the window, sends what there is and waits up to 10 s for the outcome. Returns how many profiles have none.
    pub async fn stop(mut self) -> usize {
        self.stop.cancel();
        // A panic of the task has been reported where it happened; what is queued is still sent.
        let _ = (&mut self.task).await;
        self.client.close(STOP_TIMEOUT).await
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the profile of the window that began with `start`, and what the next one begins with.
fn end_window(lease: Lease, start: Snapshot) -> Result<(Vec<u8>, (Lease, Snapshot)), Error> {
    let end = lease.snapshot()?;
    let pprof = profile_between(&start, &end);
    let next = lease.renew(end)?;
    Ok((pprof, (lease, next)))
}

fn warn(what: &'static str, error: &Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "{what}");
}
