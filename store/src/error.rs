//! What can go wrong above a single put (see `put::PutError`) and within a single block (see `block`).

use crate::clock::Skew;
use crate::location::UrlError;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage URL is wrong: correct the configuration.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The store could not be opened: correct the configuration or the environment.
    #[error("storage {url} cannot be opened")]
    Open {
        /// Its URL.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the environment says about the store is wrong: correct the variable that is named.
    #[error("storage {url} cannot be opened: {problem}")]
    Environment {
        /// Its URL.
        url: String,
        /// Which variable, and what is wrong with it; without what may be secret.
        problem: String,
    },
    /// The bucket could be neither found nor made: correct its name, the endpoint or the credentials.
    #[error("storage {url} cannot be prepared: could not {step}")]
    Bucket {
        /// Its URL.
        url: String,
        /// What was being done.
        step: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store ignores the condition of a conditional write: compactors would overwrite each other's commits.
    #[error(
        "storage {url} ignores conditional writes (If-None-Match: *): two writers could both win, and profiles would be lost; \
         use a store that honours them, such as S3, GCS, Azure, Cloudflare R2, MinIO or a local folder, or upgrade this one"
    )]
    ConditionalWrites {
        /// Its URL.
        url: String,
    },
    /// The clocks of this machine and of the store are too far apart: names of what would be written, and what is too old, would be wrong.
    #[error("storage {url} cannot be written from here: {skew}; set the clock (at most an hour is tolerated)")]
    Clock {
        /// Its URL.
        url: String,
        /// How far.
        skew: Skew,
    },
    /// The store could not be written, read or emptied as the probe did: correct permissions, or look whether it is up.
    #[error("storage {url} failed the start-up probe: it could not {step}; {advice}")]
    Probe {
        /// Its URL.
        url: String,
        /// What the probe was doing.
        step: &'static str,
        /// What to do about it.
        advice: &'static str,
        /// Why.
        source: object_store::Error,
    },
}

impl Error {
    /// Says whether another try may succeed without anyone changing the configuration.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::Open { .. }
            | Self::Environment { .. }
            | Self::Bucket { .. }
            | Self::ConditionalWrites { .. } => false,
            // The system may set its clock any moment, as it does after a boot.
            Self::Clock { .. } => true,
            // Whoever owns the store may grant what is denied, and make the bucket.
            Self::Probe { source, .. } => crate::fault::Fault::of(source) != crate::fault::Fault::Refused,
        }
    }
}
