//! What a profile is about, in a word: `cpu`, `heap`, `goroutine` …
//!
//! The sender says it; where it does not, [`ProfileType::detect`] takes it from the sample types.

use crate::model::Profile;
use std::fmt;
use std::sync::Arc;

/// The most bytes of a profile type.
pub const BYTES_MAX: usize = 64;

/// A word that is no profile type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile type {word:?} is not of the form [a-z][a-z0-9_]*, at most {BYTES_MAX} bytes")]
pub struct Error {
    /// Its beginning.
    pub word: String,
}

/// A profile type: a word of the form `[a-z][a-z0-9_]*`. Any such word is one; clones share memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileType(Arc<str>);

impl ProfileType {
    /// Checks a word.
    ///
    /// # Errors
    /// It is not of the form of a profile type.
    pub fn parse(word: &str) -> Result<Self, Error> {
        let bytes = word.as_bytes();
        let fits = bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.len() <= BYTES_MAX
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
        if fits { Ok(Self(word.into())) } else { Err(Error { word: word.chars().take(BYTES_MAX).collect() }) }
    }

    /// Returns the word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ProfileType {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        Self::parse(word)
    }
}

impl ProfileType {
    /// Takes the type from what the values count, in lower or upper case, as Go, Python, Node, Rust, .NET and the JVM name it.
    ///
    /// Go writes heap and allocs with the same four sample types: the default one, if it is `alloc_space`, says allocs. Block and
    /// mutex profiles have the same sample types as well: what they count happens where a lock is released in a mutex profile, so the
    /// names of the leaf functions tell; without samples it is taken for `mutex`. What is not recognised is `other`.
    pub fn detect(profile: &Profile<'_>) -> Self {
        Self(detect(profile).into())
    }
}

fn detect(profile: &Profile<'_>) -> &'static str {
    let lower = |index| String::from_utf8_lossy(profile.string(index)).to_ascii_lowercase();
    let kinds: Vec<String> = profile.sample_types.iter().map(|t| lower(t.kind)).collect();
    let has = |names: &[&str]| kinds.iter().any(|kind| names.contains(&kind.as_str()));
    let period = profile.period_type.map(|t| lower(t.kind)).unwrap_or_default();

    if has(&["inuse_space", "inuse_objects", "inuse_bytes"]) {
        let default = lower(profile.default_sample_type);
        if default.starts_with("alloc_") { "allocs" } else { "heap" }
    } else if has(&["alloc_space", "alloc_objects", "alloc_bytes", "alloc_size", "alloc_samples"]) {
        "allocs"
    } else if has(&["contentions", "delay"]) {
        if is_block(profile) { "block" } else { "mutex" }
    } else if has(&["goroutine", "goroutines"]) {
        "goroutine"
    } else if has(&["threadcreate"]) {
        "threadcreate"
    } else if has(&["lock", "locks", "lock_count", "lock_duration", "lock-acquire", "lock-release"]) {
        "lock"
    } else if has(&["cpu", "cpu_samples", "cpu-time", "itimer"]) {
        "cpu"
    } else if has(&["wall", "wall_time", "wall-time"]) {
        "wall"
    } else if has(&["space"]) {
        "heap"
    } else {
        match period.as_str() {
            "cpu" | "cycles" | "itimer" => "cpu",
            "wall" | "wallclock" | "time" => "wall",
            "space" => "heap",
            _ if has(&["time"]) => "wall",
            _ => "other",
        }
    }
}

/// Returns whether a profile of contentions counts where goroutines waited rather than where a lock was released.
fn is_block(profile: &Profile<'_>) -> bool {
    let releases = |location: &u32| {
        profile.lines_of(*location).iter().filter_map(|line| profile.functions.get(line.function as usize)).any(|f| {
            let name = profile.string(f.name);
            [&b"Unlock"[..], b"unlock", b"_LostContendedRuntimeLock"].iter().any(|end| name.ends_with(end))
        })
    };
    let samples = &profile.samples;
    !samples.is_empty() && !(0..samples.len()).any(|i| samples.stack(i).first().is_some_and(releases))
}
