//! A fleet: real profiles, perturbed, as if S services ran in I instances each.
//!
//! A base series is the files `<server>-<type>-*.pb.gz` of one folder, in the order of their names: one instance over time. Each service
//! runs one of the recorded servers and sends every type that was recorded of it. Instance i of a service walks the series from an
//! offset of its own, and every value is scaled by a factor of its own around 1, so that no two profiles are equal and each has the
//! structure, the stacks and the sizes of a real one. The same seed gives the same bytes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use afterglow_profile::compress::{gzip, inflate};
use afterglow_profile::decode::decode;
use afterglow_profile::encode::encode_exact;
use afterglow_profile::limits::Limits;
use afterglow_proto::v1::Profile;
use anyhow::Context as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// What a fleet looks like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many services.
    pub services: usize,
    /// How many instances each service has.
    pub instances: usize,
    /// The most that a value differs from the recorded one, as a share: 0.1 is ten per cent up or down.
    pub noise: f64,
    /// What the random numbers start from.
    pub seed: u64,
    /// The time of the first profile, in nanoseconds since 1970. Rounds follow each other by 15 s.
    pub start_nanos: i64,
}

/// The time between two profiles of one type of an instance, unless said otherwise.
const ROUND_NANOS: i64 = 15_000_000_000;

/// A source of profiles.
pub struct Fleet {
    options: Options,
    /// What one instance of each service sends in a round: the number of the service, and the series.
    sends: Vec<(usize, Series)>,
    rng: SmallRng,
    next: usize,
    round_nanos: i64,
    first_service: usize,
    factors: Option<NonZeroU32>,
}

/// A profile to store, as its protobuf.
#[derive(Clone, Debug)]
pub struct Made {
    /// The profile type.
    pub profile_type: String,
    /// The labels.
    pub labels: [(&'static str, String); 3],
    /// The protobuf.
    pub raw: Vec<u8>,
}

/// The protobufs of one type of one instance over time.
#[derive(Clone)]
struct Series {
    profile_type: String,
    raw: Arc<[Vec<u8>]>,
}

/// One profile to send.
#[derive(Clone, Debug)]
pub struct Item {
    /// What to push; the pprof is gzip'd as Go's runtime does it.
    pub profile: Profile,
    /// The length of the protobuf.
    pub raw_bytes: usize,
}

// === impl Fleet ===

impl Fleet {
    /// Reads the base series of a folder.
    ///
    /// # Errors
    /// Says which file cannot be read or decoded, or that the folder holds none.
    pub fn open(folder: &Path, options: Options) -> anyhow::Result<Self> {
        Self::open_of(folder, options, |_server, _profile_type| true)
    }

    /// Reads those of the base series of a folder that `wants` takes, by their server and type.
    ///
    /// # Errors
    /// As [`Fleet::open`].
    pub fn open_of(folder: &Path, options: Options, wants: impl Fn(&str, &str) -> bool) -> anyhow::Result<Self> {
        let mut servers: BTreeMap<String, BTreeMap<String, Vec<Vec<u8>>>> = BTreeMap::new();
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some((server, rest)) = name.strip_suffix(".pb.gz").and_then(|n| n.split_once('-')) else { continue };
            let profile_type = rest.split('-').next().unwrap_or_default();
            if !wants(server, profile_type) {
                continue;
            }
            let body = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let raw = inflate(&body, &Limits::default()).with_context(|| format!("{}", path.display()))?.into_owned();
            servers.entry(server.to_owned()).or_default().entry(profile_type.to_owned()).or_default().push(raw);
        }
        anyhow::ensure!(!servers.is_empty(), "{} holds no such <server>-<type>-*.pb.gz", folder.display());
        let series = |(profile_type, raw): (String, Vec<Vec<u8>>)| Series { profile_type, raw: raw.into() };
        let servers: Vec<Vec<Series>> =
            servers.into_values().map(|types| types.into_iter().map(series).collect()).collect();
        let of_service = |service: usize| servers[service % servers.len()].iter().map(move |s| (service, s.clone()));
        let sends = (0..options.services).flat_map(of_service).collect();
        let rng = SmallRng::seed_from_u64(options.seed);
        Ok(Self { options, sends, rng, next: 0, round_nanos: ROUND_NANOS, first_service: 0, factors: None })
    }

    /// Lets so many nanoseconds lie between two profiles of one type of an instance.
    pub fn every(self, round_nanos: i64) -> Self {
        Self { round_nanos, ..self }
    }

    /// Perturbs values by one of so many factors, evenly apart, instead of by any.
    pub fn by_factors(self, factors: Option<NonZeroU32>) -> Self {
        Self { factors, ..self }
    }

    /// Counts services from this number.
    pub fn from_service(self, first_service: usize) -> Self {
        Self { first_service, ..self }
    }

    /// Returns how many profiles all send in a round.
    pub fn of_round(&self) -> usize {
        self.sends.len() * self.options.instances
    }

    /// Returns the next profile: all types of an instance of each service, instance by instance, then the next round.
    ///
    /// # Errors
    /// Says that a base profile cannot be decoded, or is one whose bytes cannot be written anew.
    pub fn next_item(&mut self) -> anyhow::Result<Item> {
        let Made { profile_type, labels, raw } = self.next_made()?;
        Ok(Item {
            raw_bytes: raw.len(),
            profile: Profile {
                r#type: profile_type,
                labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
                pprof: gzip(&raw).into(),
                ..Profile::default()
            },
        })
    }

    /// Returns the next profile, in the same order, without gzip.
    ///
    /// # Errors
    /// As [`Fleet::next_item`].
    pub fn next_made(&mut self) -> anyhow::Result<Made> {
        let n = self.next;
        self.next += 1;
        let (service, series) = &self.sends[n % self.sends.len()];
        let instance = n / self.sends.len() % self.options.instances;
        let round = n / (self.sends.len() * self.options.instances);

        let raw = &series.raw[(round + 7 * instance + 3 * service) % series.raw.len()];
        let mut profile = decode(raw, &Limits::default())?;
        profile.time_nanos = self.options.start_nanos + round as i64 * self.round_nanos;
        let (low, high) = (1.0 - self.options.noise, 1.0 + self.options.noise);
        for value in &mut profile.samples.values {
            // Zero means "nothing here" and stays.
            if *value != 0 && self.options.noise > 0.0 {
                let factor = match self.factors.map(u32::from) {
                    Some(of) => low + (high - low) * f64::from(self.rng.random_range(0..of)) / f64::from(of),
                    None => self.rng.random_range(low..high),
                };
                *value = ((*value as f64) * factor).round().max(1.0) as i64;
            }
        }
        let mut bytes = Vec::with_capacity(raw.len() + 1024);
        encode_exact(&profile, &mut bytes).map_err(|_| anyhow::anyhow!("a base profile is not exact"))?;
        let service = self.first_service + service;
        let labels = [
            ("service", format!("service-{service:03}")),
            ("instance", format!("10.0.{service}.{instance}:6060")),
            ("version", "1.0.0".to_owned()),
        ];
        Ok(Made { profile_type: series.profile_type.clone(), labels, raw: bytes })
    }
}
