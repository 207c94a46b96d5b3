//! Time and chance, as values that are handed in.
//!
//! Nothing else in this crate asks the machine what time it is or throws dice (clippy's disallowed methods see to it), so a
//! simulation can give every process its own skewed clock and replay a run from one seed. Two kinds of time must not be mixed:
//! the [`Clock`] here is the wall's, may leap in both directions, and is only ever written into keys and compared with a stated
//! allowance; how long something takes is measured with `tokio::time::Instant`, which only advances and which tests can pause.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ulid::Ulid;

/// Tells the wall time of this process, which may be wrong and may leap.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time now.
    fn now(&self) -> SystemTime;

    /// Returns the time now in milliseconds since 1970; 0 for any time before.
    fn unix_millis(&self) -> u64 {
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the time now in nanoseconds since 1970, as pprof counts; 0 for any time before.
    fn unix_nanos(&self) -> i64 {
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// The furthest that the clocks of a machine and of its store may be apart for the machine to write. The boundary stays a day behind the
/// store's clock and what writers know of it, and names lie where writers' clocks say: an hour is far from both, and far more than
/// any clock that is kept is wrong by.
pub const SKEW_MAX: Duration = Duration::from_secs(3_600);

/// How far the clock of this machine is from the store's: further than [`SKEW_MAX`], where one is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// How far it is ahead, in milliseconds; below zero behind.
    pub ahead_millis: i64,
}

impl Skew {
    /// Returns the skew of a clock that says this while the store's says that, in milliseconds since 1970; none where it is tolerable.
    pub fn of(own_millis: u64, store_millis: u64) -> Option<Self> {
        let apart = Duration::from_millis(own_millis.abs_diff(store_millis));
        let ahead_millis = i64::try_from(i128::from(own_millis) - i128::from(store_millis)).unwrap_or(i64::MAX);
        (apart > SKEW_MAX).then_some(Self { ahead_millis })
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Minutes will do for what is an hour at least.
        let minutes = self.ahead_millis.unsigned_abs() / 60_000;
        let apart = humantime::format_duration(Duration::from_secs(60 * minutes));
        let side = if self.ahead_millis < 0 { "behind" } else { "ahead of" };
        write!(f, "the clock of this machine is {apart} {side} that of the object store")
    }
}

/// When a store took what was put, in milliseconds since 1970 by its own clock. Stores that know it attach it to their answer, as an
/// extension of [`object_store::PutResult`].
#[derive(Clone, Copy, Debug)]
pub struct TakenAt(pub u64);

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Gives numbers that nobody foresees: for names that must not collide and delays that must not march in step.
pub trait Random: fmt::Debug + Send + Sync + 'static {
    /// Returns the next number, any of the 2^64 equally likely.
    fn next_u64(&self) -> u64;

    /// Returns a number in `[0, 1)`.
    fn next_unit(&self) -> f64 {
        // The 53 upper bits: as many as the mantissa of an f64 holds.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The generator of the operating system, through a thread's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// A generator whose numbers follow from its seed: for tests and simulations.
#[derive(Debug)]
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// Makes the generator that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

/// Mints the id of a profile whose sender gave it none.
pub fn mint_ulid(clock: &dyn Clock, random: &dyn Random) -> Ulid {
    let chance = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    Ulid::from_parts(clock.unix_millis(), chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(SystemTime);

    impl Clock for Fixed {
        fn now(&self) -> SystemTime {
            self.0
        }
    }

    #[test]
    fn a_time_before_1970_counts_as_zero() {
        let clock = Fixed(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!((clock.unix_millis(), clock.unix_nanos()), (0, 0));
        let clock = Fixed(UNIX_EPOCH + Duration::new(1, 2_000_003));
        assert_eq!((clock.unix_millis(), clock.unix_nanos()), (1_002, 1_002_000_003));
    }

    #[test]
    fn a_skew_says_which_clock_is_where() {
        const HOUR: u64 = 3_600_000;
        assert_eq!((Skew::of(5 * HOUR, 6 * HOUR), Skew::of(6 * HOUR, 5 * HOUR)), (None, None));
        let told = |own, store| Skew::of(own, store).expect("too far apart").to_string();
        assert_eq!(
            told(2 * HOUR, 50 * HOUR + 59_000),
            "the clock of this machine is 2days behind that of the object store"
        );
        assert_eq!(
            told(4 * HOUR + 60_000, 2 * HOUR),
            "the clock of this machine is 2h 1m ahead of that of the object store"
        );
        assert_eq!(Skew::of(u64::MAX, 0).map(|skew| skew.ahead_millis), Some(i64::MAX));
    }

    #[test]
    fn a_seed_decides_all_numbers() {
        let (a, b, c) = (SeededRandom::new(7), SeededRandom::new(7), SeededRandom::new(8));
        let draw = |random: &SeededRandom| (0..8).map(|_| random.next_u64()).collect::<Vec<_>>();
        let first = draw(&a);
        assert_eq!(first, draw(&b));
        assert_ne!(first, draw(&c));
        assert!((0..1_000).map(|_| a.next_unit()).all(|unit| (0.0..1.0).contains(&unit)));
    }

    #[test]
    fn an_id_carries_its_time() {
        let clock = Fixed(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        let random = SeededRandom::new(1);
        let (a, b) = (mint_ulid(&clock, &random), mint_ulid(&clock, &random));
        assert_eq!(a.timestamp_ms(), 1_700_000_000_123);
        assert_ne!(a, b);
    }
}
