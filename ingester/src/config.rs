//! The settings of the write tier, as clap arguments that each program flattens into its own.
//!
//! The largest body is not among them: it is the server's (`--limits.max-body`), for it is refused before it gets here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use afterglow_profile::Limits as ProfileLimits;
use afterglow_service::config::ByteSize;
use afterglow_service::memory;

use crate::commit;
use crate::ingest::{Rates, TimeWindow};

/// The share of the memory that the budget takes where it is not set: the rest is for decoding buffers in transit, the
/// allocator's slack and the other parts of the process.
const MEMORY_SHARE: u64 = 4;

/// The most that the budget takes where it is not set: flushes that keep up never need more.
const MEMORY_DEFAULT_MAX: ByteSize = ByteSize::mib(1024);

/// The budget where the system does not say how much memory there is.
const MEMORY_UNKNOWN: ByteSize = ByteSize::mib(256);

/// The shortest time between two flushes: no store answers in less.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// At 1,000 profiles a second these are the ids of the last two minutes, which is when nearly all retries come.
const IDS_REMEMBERED: usize = 131_072;
/// The most that may be asked for: some 3 GB of ids.
const IDS_REMEMBERED_MAX: usize = 10_000_000;

/// How profiles are taken and committed.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Config {
    /// Time between two flushes: what a profile waits for company at most
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub flush_interval: Duration,
    /// Bytes of profiles, as sent, that are flushed without waiting for the interval
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub flush_bytes: ByteSize,
    /// Flushes under way at once, for each tenant and core; beyond, the next flush grows
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub flushes_in_flight: usize,
    /// Memory for profiles on their way in; beyond, they are refused and may be retried [default: a quarter of the
    /// memory, at most 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory_budget: Option<ByteSize>,
    /// Ids of acknowledged profiles that are remembered at least, and twice as many at most, some 150 bytes each: a retry is answered
    /// without being stored again
    #[arg(long, value_name = "N", default_value_t = IDS_REMEMBERED)]
    pub remembered_ids: usize,
    /// What a profile may hold.
    #[command(flatten)]
    pub limits: Limits,
    /// How much a tenant may send.
    #[command(flatten)]
    pub tenants: Tenants,
}

/// How much each tenant may send to one ingester, in the long run; beyond, it is refused and may retry.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Tenants {
    /// Profiles that a tenant may send to this ingester a second, after a burst of ten seconds' worth; 0 for any number
    #[arg(long = "tenant.max-profiles-per-second", value_name = "N", default_value_t = 0)]
    pub profiles_per_second_max: u32,
    /// Bytes of profiles, as sent, that a tenant may send to this ingester a second, after a burst of ten seconds' worth; 0
    /// for any number
    #[arg(long = "tenant.max-bytes-per-second", value_name = "SIZE", default_value = "0")]
    pub bytes_per_second_max: ByteSize,
}

/// What a profile may hold; each refusal names its flag.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Limits {
    /// Largest profile after gunzip
    #[arg(long = "limits.max-inflated", value_name = "SIZE", default_value = "64MiB")]
    pub inflated_bytes_max: ByteSize,
    /// Times its size that a body beyond 8 MiB may inflate to
    #[arg(long = "limits.max-inflate-ratio", value_name = "N", default_value_t = 200)]
    pub inflate_ratio_max: u64,
    /// Most samples of a profile
    #[arg(long = "limits.max-samples", value_name = "N", default_value_t = 1_000_000)]
    pub samples_max: u64,
    /// Most locations of a stack
    #[arg(long = "limits.max-stack-depth", value_name = "N", default_value_t = 4096)]
    pub stack_depth_max: u64,
    /// Most locations in the stacks of all samples of a profile together
    #[arg(long = "limits.max-stack-locations", value_name = "N", default_value_t = 16_000_000)]
    pub stack_locations_max: u64,
    /// Longest string of a profile
    #[arg(long = "limits.max-string", value_name = "SIZE", default_value = "64KiB")]
    pub string_bytes_max: ByteSize,
    /// Most sample types of a profile
    #[arg(long = "limits.max-sample-types", value_name = "N", default_value_t = 64)]
    pub sample_types_max: u64,
    /// Most mappings of a profile
    #[arg(long = "limits.max-mappings", value_name = "N", default_value_t = 65_536)]
    pub mappings_max: u64,
    /// Most locations of a profile
    #[arg(long = "limits.max-locations", value_name = "N", default_value_t = 1_000_000)]
    pub locations_max: u64,
    /// Most lines of all locations of a profile
    #[arg(long = "limits.max-lines", value_name = "N", default_value_t = 4_000_000)]
    pub lines_max: u64,
    /// Most functions of a profile
    #[arg(long = "limits.max-functions", value_name = "N", default_value_t = 1_000_000)]
    pub functions_max: u64,
    /// Most strings of a profile
    #[arg(long = "limits.max-strings", value_name = "N", default_value_t = 1_000_000)]
    pub strings_max: u64,
    /// Most labels of all samples of a profile
    #[arg(long = "limits.max-labels", value_name = "N", default_value_t = 4_000_000)]
    pub labels_max: u64,
    /// Most comments of a profile
    #[arg(long = "limits.max-comments", value_name = "N", default_value_t = 65_536)]
    pub comments_max: u64,
    /// Age beyond which a profile is refused; 0s for none
    #[arg(long = "limits.max-age", value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    pub age_max: Duration,
    /// How far in the future a profile may lie, for hosts whose clock is wrong
    #[arg(long = "limits.max-future", value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub future_max: Duration,
}

/// What a process of the write tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes profiles.
    Ingest,
    /// Compacts, deletes what is too old, and collects.
    Maintain,
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: give ingest, maintain or both")]
pub struct NotARole(String);

// === impl Config ===

impl Config {
    /// Returns what cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let limits = &self.limits;
        let zeros = [
            ("flush-interval", self.flush_interval.is_zero()),
            ("flush-bytes", self.flush_bytes.bytes() == 0),
            ("flushes-in-flight", self.flushes_in_flight == 0),
            ("memory-budget", self.memory_budget == Some(ByteSize(0))),
            ("limits.max-inflated", limits.inflated_bytes_max.bytes() == 0),
            ("limits.max-inflate-ratio", limits.inflate_ratio_max == 0),
            ("limits.max-sample-types", limits.sample_types_max == 0),
            ("limits.max-strings", limits.strings_max == 0),
        ];
        let mut problems: Vec<_> = zeros
            .iter()
            .filter(|(_, zero)| *zero)
            .map(|(name, _)| format!("{name} is 0: no profile could be taken"))
            .collect();
        if !(1..=IDS_REMEMBERED_MAX).contains(&self.remembered_ids) {
            let ids = self.remembered_ids;
            problems.push(format!("remembered-ids {ids} is not within 1 and {IDS_REMEMBERED_MAX}"));
        }
        if !self.flush_interval.is_zero() && self.flush_interval < FLUSH_INTERVAL_MIN {
            let (interval, least) = (self.flush_interval, FLUSH_INTERVAL_MIN);
            problems
                .push(format!("flush-interval {interval:?} is below {least:?}: each flush is a request of the store"));
        }
        if self.flush_interval >= commit::FLUSH_TIMEOUT {
            let (interval, timeout) = (self.flush_interval, commit::FLUSH_TIMEOUT);
            problems.push(format!(
                "flush-interval {interval:?} is not below {timeout:?}: senders would have given up by then"
            ));
        }
        problems
    }

    /// Returns the memory budget in effect.
    pub fn memory_budget(&self) -> ByteSize {
        self.memory_budget.unwrap_or_else(|| memory::share(MEMORY_SHARE, MEMORY_DEFAULT_MAX, MEMORY_UNKNOWN))
    }

    pub(crate) fn commit_options(&self) -> commit::Options {
        commit::Options {
            flush_interval: self.flush_interval,
            flush_bytes: self.flush_bytes.bytes(),
            flushes_in_flight_max: self.flushes_in_flight,
        }
    }
}

// === impl Tenants ===

impl Tenants {
    pub(crate) fn rates(&self) -> Rates {
        Rates { profiles: self.profiles_per_second_max, bytes: self.bytes_per_second_max }
    }
}

// === impl Limits ===

impl Limits {
    /// Returns the limits of decoding; `body_bytes_max` is the server's.
    pub(crate) fn of_profiles(&self, body_bytes_max: ByteSize) -> ProfileLimits {
        ProfileLimits {
            body_bytes_max: body_bytes_max.bytes(),
            inflated_bytes_max: self.inflated_bytes_max.bytes(),
            inflate_ratio_max: self.inflate_ratio_max,
            samples_max: self.samples_max,
            stack_depth_max: self.stack_depth_max,
            stack_locations_max: self.stack_locations_max,
            string_bytes_max: self.string_bytes_max.bytes(),
            sample_types_max: self.sample_types_max,
            mappings_max: self.mappings_max,
            locations_max: self.locations_max,
            lines_max: self.lines_max,
            functions_max: self.functions_max,
            strings_max: self.strings_max,
            labels_max: self.labels_max,
            comments_max: self.comments_max,
        }
    }

    pub(crate) fn time_window(&self) -> TimeWindow {
        TimeWindow { past: (!self.age_max.is_zero()).then_some(self.age_max), future: self.future_max }
    }
}

// === impl Role ===

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(word: &str) -> Result<Self, NotARole> {
        match word {
            "ingest" => Ok(Self::Ingest),
            "maintain" => Ok(Self::Maintain),
            other => Err(NotARole(other.to_owned())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::Maintain => "maintain",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        config: Config,
    }

    fn config(args: &[&str]) -> Config {
        Program::try_parse_from([&["program"], args].concat()).expect("arguments").config
    }

    /// Goal: without settings the limits are the documented ones, those of the profile crate.
    #[test]
    fn defaults_are_those_of_the_parts() {
        let config = config(&[]);
        assert_eq!(config.limits.of_profiles(ByteSize::mib(32)), ProfileLimits::default());
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(config.limits.time_window(), TimeWindow { past: Some(30 * day), future: day });
        assert_eq!(config.problems(), [""; 0]);
        assert!(config.memory_budget() <= MEMORY_DEFAULT_MAX);
    }

    /// Goal: each limit reaches the decoder by the flag that its refusal names.
    #[test]
    fn flags_of_limits_are_the_names_in_refusals() {
        for (flag, read) in [
            ("max-inflated", (|l| l.inflated_bytes_max) as fn(&ProfileLimits) -> u64),
            ("max-inflate-ratio", |l| l.inflate_ratio_max),
            ("max-samples", |l| l.samples_max),
            ("max-stack-depth", |l| l.stack_depth_max),
            ("max-stack-locations", |l| l.stack_locations_max),
            ("max-string", |l| l.string_bytes_max),
            ("max-sample-types", |l| l.sample_types_max),
            ("max-mappings", |l| l.mappings_max),
            ("max-locations", |l| l.locations_max),
            ("max-lines", |l| l.lines_max),
            ("max-functions", |l| l.functions_max),
            ("max-strings", |l| l.strings_max),
            ("max-labels", |l| l.labels_max),
            ("max-comments", |l| l.comments_max),
        ] {
            let limits = config(&[&format!("--limits.{flag}=7")]).limits.of_profiles(ByteSize::mib(32));
            assert_eq!(read(&limits), 7, "{flag}");
        }
        assert_eq!(config(&["--limits.max-age=0s"]).limits.time_window().past, None);
    }

    #[test]
    fn what_cannot_work_is_said_at_once() {
        let zeros = ["--flush-interval=0s", "--flushes-in-flight=0", "--memory-budget=0", "--remembered-ids=0"];
        let problems = config(&zeros).problems();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(config(&["--flush-interval=5s"]).problems().len(), 1);
        assert_eq!(config(&["--flush-interval=1us"]).problems().len(), 1);
    }
}
