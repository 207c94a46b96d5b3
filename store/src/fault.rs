//! What a failed request means for whoever made it: one reading of `object_store`'s errors for all of this crate.
//!
//! The question that matters is whether a write may have happened all the same. The rule is to claim "no" only where the answer of
//! the server, or its absence, proves it: an HTTP status 4xx (the request was read and turned down), or a connection that never
//! came to be. All else, a 5xx included, is [`Fault::Ambiguous`]: providers have answered 500 and 503 after they had stored the object.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::open::StatusError;

/// The kinds of failure that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// There is no such object (or bucket).
    NotFound,
    /// A condition did not hold, or another write was in the way: nothing was written by this request.
    Conflict,
    /// The credentials do not suffice, or are missing.
    Denied,
    /// The store asks to slow down. It may have written.
    Throttled,
    /// The store turned the request down for another reason, for good: nothing was written.
    Refused,
    /// The store was never reached: nothing was written.
    Unreachable,
    /// Anything else: it may have written.
    Ambiguous,
}

impl Fault {
    /// Reads an error.
    pub(crate) fn of(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::NotFound,
            E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Self::Conflict,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Denied,
            E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::UnknownConfigurationKey { .. } => Self::Refused,
            _ => Self::of_cause(error),
        }
    }

    /// Reads the causes behind an error that says nothing itself.
    fn of_cause(error: &(dyn StdError + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(fault) = Self::of_http(error).or_else(|| Self::of_io(error)) {
                return fault;
            }
            cause = error.source();
        }
        Self::Ambiguous
    }

    fn of_http(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<StatusError>() {
            return Some(match error.status.as_u16() {
                // Of listings; those of objects have errors of their own.
                401 | 403 => Self::Denied,
                404 => Self::NotFound,
                429 | 503 => Self::Throttled,
                // A time-out that the server noticed while it read the request.
                408 => Self::Ambiguous,
                // The request asks for what the store does not know.
                501 => Self::Refused,
                400..=499 => Self::Refused,
                _ => Self::Ambiguous,
            });
        }
        match error.downcast_ref::<HttpError>()?.kind() {
            HttpErrorKind::Connect => Some(Self::Unreachable),
            // Its cause may be a status.
            _ => None,
        }
    }

    /// A local folder: of these errors it is known that they arise before a file takes its final name.
    fn of_io(error: &(dyn StdError + 'static)) -> Option<Self> {
        match error.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(Self::Denied),
            _ => None,
        }
    }

    /// Says it to users, without what an error's own text may tell of the bucket.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NotFound => "it is not there",
            Self::Conflict => "another write is in the way",
            Self::Denied => "the store denies access",
            Self::Throttled => "the store asks to slow down",
            Self::Refused => "the store refuses the request",
            Self::Unreachable => "the store cannot be reached",
            Self::Ambiguous => "the store does not answer as it should",
        }
    }

    /// Whether the write that failed so may have happened.
    pub(crate) fn may_have_written(self) -> bool {
        matches!(self, Self::Throttled | Self::Ambiguous)
    }

    /// Whether the same request may succeed when it is made again soon.
    pub(crate) fn is_passing(self) -> bool {
        matches!(self, Self::Throttled | Self::Ambiguous | Self::Unreachable)
    }
}
