//! What all parts of a run share: its time, its chance and its trace.
//!
//! One seed decides all. Each part draws from a generator of its own, made from the seed and the part's name, so that a part that draws
//! more does not change what the others meet. Time is tokio's, which stands still while anything can run. The trace is what happened, in
//! its order, as a hash; two runs of a seed have the same, or something escaped the seed.

use std::fmt;
use std::hash::Hasher;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_store::clock::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHasher;
use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3Default;

use crate::met::{Counts, Met};

/// Noon of a day in UTC, in milliseconds since 1970. A run begins then, or shortly before the end of the day.
const NOON_MILLIS: u64 = 1_700_049_600_000;
/// How long before the end of the day.
const BEFORE_MIDNIGHT: Duration = Duration::from_secs(300);

/// The world of a run; cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    seed: u64,
    began: Instant,
    /// The true time then, since 1970.
    beginning: Duration,
    trace: Mutex<Trace>,
    met: Mutex<Counts>,
}

#[derive(Default)]
struct Trace {
    /// Takes text as it is written, in whatever pieces: most runs keep no line, and need none made.
    hash: Xxh3Default,
    events: u64,
    lines: Option<Vec<String>>,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// The hash of all events in their order.
    pub hash: u64,
    /// How many there were.
    pub events: u64,
    /// Each event, where they were kept.
    pub lines: Vec<String>,
}

impl World {
    /// Makes the world of a seed, as of now; call it within a runtime whose time is paused. Keeps the text of every event where told to.
    pub fn new(seed: u64, keeps_lines: bool) -> Self {
        let trace = Trace { lines: keeps_lines.then(Vec::new), ..Trace::default() };
        let mut beginning = Duration::from_millis(NOON_MILLIS);
        if begins_before_midnight(seed) {
            beginning += Duration::from_secs(12 * 3_600) - BEFORE_MIDNIGHT;
        }
        let (trace, met) = (Mutex::new(trace), Mutex::default());
        Self(Arc::new(Inner { seed, began: Instant::now(), beginning, trace, met }))
    }

    /// Returns whether a day ends a few minutes after the run begins.
    pub fn begins_before_midnight(&self) -> bool {
        begins_before_midnight(self.0.seed)
    }

    /// Counts what befell the run.
    pub fn meets(&self, met: Met) {
        self.0.met.lock().expect("nothing panics while it holds the lock").add(met);
    }

    /// Returns what befell the run so far.
    pub fn met(&self) -> Counts {
        self.0.met.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// Makes the generator of a part.
    pub fn chance(&self, part: impl fmt::Display) -> Chance {
        Chance(StdRng::seed_from_u64(self.seed_of(part)))
    }

    /// Returns the seed of a part.
    pub fn seed_of(&self, part: impl fmt::Display) -> u64 {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.0.seed);
        hasher.write(part.to_string().as_bytes());
        hasher.finish()
    }

    /// Returns how long the run has gone on.
    pub fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Returns the true time, which is the store's.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.beginning + self.elapsed()
    }

    /// Makes a clock that shows the true time until it is set wrong.
    pub fn clock(&self) -> Arc<WrongClock> {
        Arc::new(WrongClock { world: self.clone(), ahead_millis: AtomicI64::new(0) })
    }

    /// Adds an event to the trace.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let at = self.elapsed();
        let (seconds, millis) = (at.as_secs(), at.subsec_millis());
        let mut trace = self.trace();
        write!(trace.hash, "{seconds:5}.{millis:03} {event}").expect("a hash takes all");
        trace.events += 1;
        if let Some(lines) = &mut trace.lines {
            lines.push(format!("{seconds:5}.{millis:03} {event}"));
        }
    }

    /// Returns what happened so far.
    pub fn traced(&self) -> Traced {
        let trace = self.trace();
        Traced { hash: trace.hash.digest(), events: trace.events, lines: trace.lines.clone().unwrap_or_default() }
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.0.trace.lock().expect("nothing panics while it holds the lock")
    }
}

fn begins_before_midnight(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}

// === impl WrongClock ===

/// The wall clock of a process: ahead or behind by what it is told, also in the midst of things.
#[derive(Debug)]
pub struct WrongClock {
    world: World,
    ahead_millis: AtomicI64,
}

impl WrongClock {
    /// Sets how far it is ahead, or below zero behind.
    pub fn leap(&self, ahead_millis: i64) {
        self.ahead_millis.store(ahead_millis, Ordering::SeqCst);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> SystemTime {
        let ahead = self.ahead_millis.load(Ordering::SeqCst);
        let apart = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { self.world.now() - apart } else { self.world.now() + apart }
    }
}

// === impl Calm ===

/// Says when the trouble is over; cheap to clone. Wakes who waits in the order in which they came, which `tokio::sync::watch` does not.
#[derive(Clone, Debug, Default)]
pub struct Calm(Arc<(AtomicBool, Notify)>);

impl Calm {
    /// Ends the trouble.
    pub fn begin(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Returns whether it is over.
    pub fn is_now(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits until it is over.
    pub async fn begun(&self) {
        let notified = self.0.1.notified();
        if !self.is_now() {
            notified.await;
        }
    }
}

// === impl Chance ===

/// The generator of a part.
#[derive(Debug)]
pub struct Chance(StdRng);

impl Chance {
    /// Says yes with this probability.
    pub fn is(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// Draws a number from a range, its end excluded.
    pub fn number(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// Draws a time up to `most`, in whole milliseconds.
    pub fn time(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.0.random_range(0..=most.as_millis() as u64))
    }

    /// Draws a time whose mean this is, as between things that happen independently of each other.
    pub fn interval(&mut self, mean: Duration) -> Duration {
        let unit: f64 = self.0.random_range(0.0..1.0);
        Duration::from_millis((mean.as_secs_f64() * -(1.0 - unit).ln() * 1e3) as u64)
    }

    /// Draws how long a request takes: lognormal about the median, with a tail.
    pub fn latency(&mut self, median: Duration) -> Duration {
        // The sum of twelve uniform numbers is near enough to a normal one.
        let normal: f64 = (0..12).map(|_| self.0.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        Duration::from_micros((median.as_secs_f64() * (0.7 * normal).exp() * 1e6) as u64)
    }

    /// Chooses one of several.
    pub fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.0.random_range(0..of.len())]
    }
}
