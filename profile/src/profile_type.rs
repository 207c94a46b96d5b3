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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Function, Line, Location, NONE, Samples, ValueType};

    /// A profile with these sample types, a default one among them, and a period type; empty for none.
    fn detected(kinds: &[&'static str], default: &'static str, period: &'static str) -> String {
        let mut profile = Profile { strings: vec![b""], ..Profile::default() };
        let mut intern = |text: &'static str| {
            if !text.is_empty() {
                profile.strings.push(text.as_bytes());
            }
            if text.is_empty() { 0 } else { profile.strings.len() as u32 - 1 }
        };
        let kinds: Vec<_> = kinds.iter().map(|kind| ValueType { kind: intern(kind), ..ValueType::default() }).collect();
        let (default, period) = (intern(default), intern(period));
        profile.sample_types = kinds;
        profile.default_sample_type = default;
        profile.period_type = (period != 0).then_some(ValueType { kind: period, ..ValueType::default() });
        ProfileType::detect(&profile).to_string()
    }

    #[test]
    fn words_have_a_form() {
        for word in ["cpu", "heap", "a", "x9_", &"x".repeat(BYTES_MAX)] {
            assert_eq!(ProfileType::parse(word).map(|t| t.to_string()), Ok(word.to_owned()));
        }
        for word in ["", "CPU", "9a", "_a", "a-b", "a b", "é", "a\n", &"x".repeat(BYTES_MAX + 1)] {
            assert!(ProfileType::parse(word).is_err(), "{word}");
        }
        let error = ProfileType::parse("Wall Time").expect_err("it is no word");
        assert_eq!(
            error.to_string(),
            "profile type \"Wall Time\" is not of the form [a-z][a-z0-9_]*, at most 64 bytes"
        );
    }

    #[test]
    fn sample_types_tell_the_type() {
        let heap = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"];
        for (kinds, default, period, expected) in [
            (&["samples", "cpu"][..], "", "cpu", "cpu"),
            (&["CPU"], "", "CPU", "cpu"),
            (&["samples"], "", "cpu", "cpu"),
            (&heap, "", "space", "heap"),
            (&heap, "inuse_space", "space", "heap"),
            (&heap, "alloc_space", "space", "allocs"),
            (&heap[..2], "", "space", "allocs"),
            (&heap[2..], "", "space", "heap"),
            (&["objects", "space"], "", "space", "heap"),
            (&["goroutine"], "", "goroutine", "goroutine"),
            (&["goroutines"], "", "", "goroutine"),
            (&["threadcreate"], "", "threadcreate", "threadcreate"),
            (&["contentions", "delay"], "", "contentions", "mutex"),
            (&["sample", "wall"], "", "wall", "wall"),
            (&["samples", "time"], "", "wallclock", "wall"),
            (&["lock_count", "lock_duration"], "", "", "lock"),
            (&["exceptions"], "", "", "other"),
            (&["samples"], "", "", "other"),
        ] {
            assert_eq!(detected(kinds, default, period), expected, "{kinds:?}");
        }
    }

    #[test]
    fn leaf_functions_tell_block_from_mutex() {
        let with_leaf = |name: &'static [u8]| {
            let profile = Profile {
                strings: vec![b"", b"contentions", b"delay", name],
                sample_types: [1, 2].map(|kind| ValueType { kind, ..ValueType::default() }).to_vec(),
                functions: vec![Function { id: 1, name: 3, ..Function::default() }],
                lines: vec![Line { function: 0, ..Line::default() }, Line { function: NONE, ..Line::default() }],
                locations: vec![Location { id: 1, mapping: NONE, lines_end: 2, ..Location::default() }],
                samples: Samples {
                    location_ends: vec![1],
                    locations: vec![0],
                    values: vec![1, 2],
                    label_ends: vec![0],
                    ..Samples::default()
                },
                ..Profile::default()
            };
            ProfileType::detect(&profile).to_string()
        };
        assert_eq!(with_leaf(b"sync.(*Mutex).Unlock"), "mutex");
        assert_eq!(with_leaf(b"runtime._LostContendedRuntimeLock"), "mutex");
        assert_eq!(with_leaf(b"runtime.unlock"), "mutex");
        assert_eq!(with_leaf(b"sync.(*Mutex).Lock"), "block");
        assert_eq!(with_leaf(b"runtime.chanrecv1"), "block");
    }
}
