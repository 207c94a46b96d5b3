//! The settings of the read tier, as clap arguments that each program flattens into its own.

use std::path::PathBuf;
use std::time::Duration;

use afterglow_service::config::{ByteSize, Secret, not_within};
use afterglow_service::memory;
use afterglow_store::{catalog, patient};

use crate::query::Limits;
use crate::siblings::{self, SiblingNames, Tls};

/// The oldest listing that the promise "visible within a second of its acknowledgement" allows, with room for the listing itself.
const LIST_AGE_MAX: Duration = Duration::from_secs(1);

/// The share of the memory that merges take where it is not set: beside them there are the cache, answers on their way out, and in
/// one process the write tier with as much.
const MERGE_MEMORY_SHARE: u64 = 4;

/// The most that merges take where it is not set.
const MERGE_MEMORY_MAX: ByteSize = ByteSize::mib(1024);

/// The share of the memory that the cache of blocks takes where it is not set.
const BLOCK_CACHE_SHARE: u64 = 8;

/// The most that the cache takes where it is not set: some 200,000 profiles.
const BLOCK_CACHE_MAX: ByteSize = ByteSize::mib(256);

/// The share of the memory that parts of blocks take where it is not set; what was decoded of them takes as much.
const RANGE_CACHE_SHARE: u64 = 16;

/// The most that they take where it is not set: the samples of some 100,000 profiles.
const RANGE_CACHE_MAX: ByteSize = ByteSize::mib(256);

/// The share of the memory that decoded tables and sums take where it is not set.
const DECODED_CACHE_SHARE: u64 = 16;

/// The most that they take where it is not set: the tables and a week of sums of some hundred services.
const DECODED_CACHE_MAX: ByteSize = ByteSize::mib(256);

/// The least that parts on disk may take: some of 4 MiB each, as large as they come.
const DISK_CACHE_MIN: ByteSize = ByteSize::mib(64);

/// The most reads in a hundred that may be made twice: beyond, a store in trouble would be asked for far more than it was.
const HEDGED_READS_MAX: i64 = 20;

/// All of these where the system does not say how much memory there is.
const MEMORY_UNKNOWN: ByteSize = ByteSize::mib(128);

/// The bounds of the time for an answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// How questions are answered.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Config {
    /// Time for an answer
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub answer_timeout: Duration,
    /// Memory that questions under way share with answers that their clients have not taken; beyond, questions wait, then are refused and may
    /// be retried [default: a quarter of the memory, at most 1GiB]
    #[arg(long = "query.memory", value_name = "SIZE")]
    pub merge_memory: Option<ByteSize>,
    /// Most profiles in one merge
    #[arg(long = "query.max-merge-profiles", value_name = "N", default_value_t = 1_000_000)]
    pub merge_profiles_max: u64,
    /// Datasets that one merge reads at once
    #[arg(long = "query.merge-reads", value_name = "N", default_value_t = 8)]
    pub merge_reads: usize,
    /// Memory for what is known of blocks that were asked for, so that they need not be opened again [default: an eighth
    /// of the memory, at most 256MiB]
    #[arg(long = "query.cache", value_name = "SIZE")]
    pub block_cache: Option<ByteSize>,
    /// Memory for parts of blocks that were read, symbol tables and samples, so that they need not be read again; 0 keeps none [default: a
    /// sixteenth of the memory, at most 256MiB]
    #[arg(long = "query.range-cache", value_name = "SIZE")]
    pub range_cache: Option<ByteSize>,
    /// Folder in which parts of blocks that were read are kept on disk as well, so that they need not be read again after memory had no room
    /// for them, or after a restart; for this process alone [default: none are]
    #[arg(long = "query.disk-cache-dir", value_name = "DIR")]
    pub disk_cache_dir: Option<PathBuf>,
    /// Disk that these parts may take
    #[arg(long = "query.disk-cache-bytes", value_name = "SIZE", default_value = "10GiB")]
    pub disk_cache_bytes: ByteSize,
    /// Memory for what was decoded of them, symbol tables and sums of profiles, so that it need not be decoded again; 0 keeps none
    /// [default: a sixteenth of the memory, at most 256MiB]
    #[arg(long = "query.decoded-cache", value_name = "SIZE")]
    pub decoded_cache: Option<ByteSize>,
    /// Other queriers over the same bucket, which do shares of heavy merges: host:port,host:port, or dns+host:port for all addresses of a
    /// name, such as that of a headless service
    #[arg(long = "query.siblings", value_name = "ADDRESSES")]
    pub siblings: Option<SiblingNames>,
    /// Token presented to them: one with the role read for every tenant. Better given by the environment
    #[arg(long = "query.siblings-token", value_name = "TOKEN")]
    pub siblings_token: Option<Secret>,
    /// Asks siblings over TLS, and verifies them by the authorities of the system. It has to be what they speak
    #[arg(long = "query.siblings-tls")]
    pub siblings_tls: bool,
    /// PEM file of the authorities by which siblings are verified instead; asks them over TLS. The name that is verified is the one in
    /// query.siblings. Read again when it changes
    #[arg(long = "query.siblings-ca-file", value_name = "FILE")]
    pub siblings_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to present to siblings that ask for one; it may be that of the port, if it is for clients, too. Read
    /// again when it changes
    #[arg(long = "query.siblings-cert-file", value_name = "FILE")]
    pub siblings_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(long = "query.siblings-key-file", value_name = "FILE")]
    pub siblings_key_file: Option<PathBuf>,
    /// Size of the samples that a merge sums, 16 bytes each, above which siblings do shares of it
    #[arg(long = "query.share-above", value_name = "SIZE", default_value = "64MiB")]
    pub share_above: ByteSize,
    /// Age of the listing of the bucket from which a question needs a new one
    #[arg(long = "query.max-list-age", value_name = "DURATION", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub list_age_max: Duration,
    /// Of a hundred reads of the storage, how many may be made a second time because they take longer than nearly all others; the
    /// first answer counts; 0 for none. A local folder is never read twice
    #[arg(long = "query.hedged-reads", value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=HEDGED_READS_MAX))]
    pub hedged_reads: u8,
    /// Questions that a tenant may ask this querier at once; beyond, they are refused and may be retried; 0 for any number
    #[arg(long = "tenant.max-queries", value_name = "N", default_value_t = 0)]
    pub tenant_queries_max: usize,
}

// === impl Config ===

impl Config {
    /// Returns what cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let zeros = [
            ("query.timeout", self.answer_timeout.is_zero()),
            ("query.memory", self.merge_memory == Some(ByteSize(0))),
            ("query.max-merge-profiles", self.merge_profiles_max == 0),
            ("query.merge-reads", self.merge_reads == 0),
        ];
        let mut problems: Vec<_> = zeros
            .iter()
            .filter(|(_, zero)| *zero)
            .map(|(name, _)| format!("{name} is 0: nothing could be answered"))
            .collect();
        if self.disk_cache_dir.is_some() && self.disk_cache_bytes.bytes() < DISK_CACHE_MIN.bytes() {
            problems.push(format!(
                "query.disk-cache-bytes {} is below {DISK_CACHE_MIN}, which a few parts of blocks take; without \
                 query.disk-cache-dir none are kept",
                self.disk_cache_bytes
            ));
        }
        if !self.answer_timeout.is_zero() {
            problems.extend(not_within("query.timeout", self.answer_timeout, TIMEOUT_MIN, TIMEOUT_MAX));
        }
        if self.siblings_token.as_ref().is_some_and(|token| !siblings::is_token(token)) {
            problems.push("query.siblings-token is empty, or has what no header can carry".to_owned());
        }
        problems.extend(self.siblings_tls().and_then(|tls| tls.load().err()));
        if self.list_age_max >= LIST_AGE_MAX {
            let age = humantime::format_duration(self.list_age_max);
            problems.push(format!(
                "query.max-list-age {age} is not below 1s: what is acknowledged has to be found by then"
            ));
        }
        problems
    }

    /// Returns the memory for merges in effect.
    pub fn merge_memory(&self) -> ByteSize {
        self.merge_memory.unwrap_or_else(|| memory::share(MERGE_MEMORY_SHARE, MERGE_MEMORY_MAX, MEMORY_UNKNOWN))
    }

    /// Returns the memory for the cache of blocks in effect.
    pub fn block_cache(&self) -> ByteSize {
        self.block_cache.unwrap_or_else(|| memory::share(BLOCK_CACHE_SHARE, BLOCK_CACHE_MAX, MEMORY_UNKNOWN))
    }

    /// Returns the memory for parts of blocks in effect.
    pub fn range_cache(&self) -> ByteSize {
        self.range_cache.unwrap_or_else(|| memory::share(RANGE_CACHE_SHARE, RANGE_CACHE_MAX, MEMORY_UNKNOWN))
    }

    /// Returns how siblings are asked over TLS; nothing where they are asked in the clear.
    pub(crate) fn siblings_tls(&self) -> Option<Tls> {
        let [ca, cert, key] =
            [&self.siblings_ca_file, &self.siblings_cert_file, &self.siblings_key_file].map(Clone::clone);
        let is_on = self.siblings_tls || ca.is_some() || cert.is_some() || key.is_some();
        is_on.then_some(Tls { ca, cert, key })
    }

    /// Returns the memory for decoded tables and sums in effect.
    pub fn decoded_cache(&self) -> ByteSize {
        self.decoded_cache.unwrap_or_else(|| memory::share(DECODED_CACHE_SHARE, DECODED_CACHE_MAX, MEMORY_UNKNOWN))
    }

    /// Returns how the storage is read.
    pub fn reads(&self) -> patient::Policy {
        let hedging = (self.hedged_reads > 0).then(|| patient::Hedging {
            budget_ratio: f64::from(self.hedged_reads) / 100.0,
            ..patient::Hedging::default()
        });
        patient::Policy { hedging, ..patient::Policy::default() }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            timeout: self.answer_timeout,
            memory_bytes: self.merge_memory().bytes(),
            merge_profiles_max: self.merge_profiles_max,
            merge_reads: self.merge_reads,
            share_above_bytes: self.share_above.bytes(),
            tenant_queries_max: self.tenant_queries_max,
        }
    }

    pub(crate) fn catalog_options(&self) -> catalog::Options {
        catalog::Options {
            list_age_max: self.list_age_max,
            cache_bytes_max: self.block_cache().bytes(),
            ranges_bytes_max: self.range_cache().bytes(),
            disk: self
                .disk_cache_dir
                .clone()
                .map(|folder| catalog::DiskOptions { folder, bytes_max: self.disk_cache_bytes.bytes() }),
            decoded_bytes_max: self.decoded_cache().bytes(),
            ..catalog::Options::default()
        }
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

    fn problems(args: &[&str]) -> Vec<String> {
        config(args).problems()
    }

    #[test]
    fn defaults_work() {
        let config = config(&[]);
        assert_eq!(config.problems(), [""; 0]);
        assert!(config.merge_memory() <= MERGE_MEMORY_MAX && config.merge_memory().bytes() > 0);
        assert!(config.block_cache() <= BLOCK_CACHE_MAX && config.block_cache().bytes() > 0);
        assert!(config.range_cache() <= RANGE_CACHE_MAX && config.range_cache().bytes() > 0);
        assert!(config.decoded_cache() <= DECODED_CACHE_MAX && config.decoded_cache().bytes() > 0);
        let shares = [MERGE_MEMORY_SHARE, BLOCK_CACHE_SHARE, RANGE_CACHE_SHARE, DECODED_CACHE_SHARE];
        assert_eq!(shares.iter().map(|share| 16 / share).sum::<u64>(), 8, "together half of the memory");
    }

    #[test]
    fn slow_reads_are_made_twice_unless_told_otherwise() {
        let ratio = |args| config(args).reads().hedging.map(|hedging| hedging.budget_ratio);
        assert_eq!(ratio(&[]), Some(0.05));
        assert_eq!(ratio(&["--query.hedged-reads=1"]), Some(0.01));
        assert_eq!(ratio(&["--query.hedged-reads=0"]), None);
        assert!(Program::try_parse_from(["program", "--query.hedged-reads=21"]).is_err());
    }

    #[test]
    fn any_setting_of_their_tls_turns_it_on() {
        assert_eq!(config(&[]).siblings_tls(), None);
        for flags in
            [&["--query.siblings-tls"][..], &["--query.siblings-ca-file=ca.pem"], &["--query.siblings-cert-file=c.pem"]]
        {
            assert!(config(flags).siblings_tls().is_some(), "{flags:?}");
        }
        let missing = problems(&["--query.siblings-ca-file=/nowhere/ca.pem"]).join("; ");
        assert!(missing.starts_with("query.siblings-ca-file /nowhere/ca.pem: cannot be read: "), "{missing}");
        let half = problems(&["--query.siblings-cert-file=c.pem"]).join("; ");
        assert_eq!(half, "query.siblings-cert-file and query.siblings-key-file go together: one of them is missing");
    }

    #[test]
    fn what_cannot_work_is_said_at_once() {
        let zeros = ["--query.timeout=0s", "--query.memory=0", "--query.max-merge-profiles=0", "--query.merge-reads=0"];
        assert_eq!(problems(&zeros).len(), zeros.len());
        let small = ["--query.disk-cache-dir=cache", "--query.disk-cache-bytes=63MiB"];
        assert_eq!(problems(&small[1..]), [""; 0], "nothing is kept");
        assert!(problems(&small).join("").starts_with("query.disk-cache-bytes 63 MiB is below 64 MiB"));
        assert_eq!(
            problems(&["--query.max-list-age=2s"]),
            ["query.max-list-age 2s is not below 1s: what is acknowledged has to be found by then"]
        );
    }
}
