//! Why a question is not answered, and what whoever asked may do about it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use afterglow_profile::labels::NAME_BYTES_MAX;
use afterglow_profile::{filter, merge, profile_type, selector};
use afterglow_service::causes::Causes;
use afterglow_service::{Failure, Kind, time};
use afterglow_store::block;
use afterglow_store::catalog::{self, Problem};
use tokio::task::JoinError;
use ulid::Ulid;

use super::budget::Refused;
use super::cursor::NotACursor;
use super::merge::disagreement::Disagreement;
use super::{gate, regressions, statistics, step, top, view};
use crate::window;

/// How long to wait for a store that did not answer, or for other questions to end.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long to wait for other large questions to end: not all come back at once.
const RETRY_LARGE_AFTER: Range<Duration> = Duration::from_secs(2)..Duration::from_secs(6);

/// A question that is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The selector is malformed.
    #[error("query: {0}")]
    Selector(#[from] selector::Error),
    /// The profile type is malformed.
    #[error("type: {0}")]
    Type(#[from] profile_type::Error),
    /// The window is malformed or empty.
    #[error(transparent)]
    Window(#[from] window::Error),
    /// A pattern of the filter is malformed.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// The token is none.
    #[error("read_token {token:?} is not one that an acknowledgement carried")]
    ReadToken {
        /// What was given.
        token: String,
    },
    /// The cursor is none.
    #[error(transparent)]
    Cursor(#[from] NotACursor),
    /// The page is too large.
    #[error(
        "limit {limit} exceeds the {max} profiles of a page; ask for the next page with the cursor that the answer carries"
    )]
    PageSize {
        /// What was asked for.
        limit: u32,
        /// The most there is.
        max: u32,
    },
    /// The id is none.
    #[error("id {text:?} is not a ULID of 26 characters, such as 01JDF8Z3M5Q0V7T2N4R6S8W9XA")]
    Id {
        /// What was given.
        text: String,
    },
    /// The label has no name.
    #[error("name is empty: say which label's values are asked for")]
    LabelName,
    /// The page after one of another selection is asked for.
    #[error(
        "cursor belongs to another selection than {selection}: a page follows with the query and the type of the one before"
    )]
    OtherSelection {
        /// What is asked for now.
        selection: String,
    },
    /// The format of a merge has no name.
    #[error("format {number} is not one of pprof, flamegraph, top, folded, dot")]
    Format {
        /// What was given.
        number: i32,
    },
    /// A label to group by is none.
    #[error("by: {name:?} is no name of a label, which has 1 to {NAME_BYTES_MAX} bytes")]
    By {
        /// Its beginning.
        name: String,
    },
    /// There are too many labels to group by.
    #[error("by names {labels} labels, more than the {max} that one question may group by")]
    TooManyLabels {
        /// How many there are.
        labels: usize,
        /// The most allowed.
        max: usize,
    },
    /// More series are asked for than there may be.
    #[error("limit {limit} exceeds the {max} series of an answer; group by fewer labels, or narrow the selector")]
    SeriesLimit {
        /// What was asked for.
        limit: u32,
        /// The most there is.
        max: u32,
    },
    /// Which value of a function is meant has no name.
    #[error("value {number} is not one of total, self")]
    Value {
        /// What was given.
        number: i32,
    },
    /// A value of a function is asked for, but of no function.
    #[error("value is self, of which there is only a function's: say which, as function")]
    ValueOfNone,
    /// No function is named.
    #[error("name is empty: say which function is meant")]
    FunctionName,
    /// The expression that functions are to match cannot be used.
    #[error("function: {0}")]
    Pattern(#[from] top::BadPattern),
    /// A comparison that cannot be made.
    #[error(transparent)]
    Regressions(#[from] regressions::Refused),
    /// Statistics that cannot be made.
    #[error(transparent)]
    Statistics(#[from] statistics::Refused),
    /// The step cannot be used.
    #[error(transparent)]
    Step(#[from] step::Error),
    /// A view is malformed, or does not go with the format.
    #[error(transparent)]
    View(#[from] view::Error),
    /// Only a pprof has a place for the mark.
    #[error(
        "mark_base goes with format pprof alone, not {format}: the others show both sides apart, or their difference"
    )]
    MarkBase {
        /// What was asked for.
        format: &'static str,
    },
    /// A limit of what is never cut.
    #[error("limit goes with formats flamegraph, top and dot, not {format}, which is always whole")]
    Limit {
        /// What was asked for.
        format: &'static str,
    },
    /// A diff without anything to compare with.
    #[error("the base is the selection itself: give a base of its own, by its query or its window")]
    NoBase,
    /// The base of a diff is not to be had.
    #[error("base: {0}")]
    Base(Box<Self>),
    /// The base that nobody named is not to be had.
    #[error("base, which is the window just before where none is given: {0}")]
    Before(Box<Self>),
    /// No stack has the function that is looked at.
    #[error("no stack has the function {name:?}; it is its exact name that counts")]
    NoFunction {
        /// What was asked for.
        name: String,
    },
    /// There is no such profile.
    #[error("no profile has the id {id}{unread}")]
    NoProfile {
        /// The id.
        id: Ulid,
        /// What could not be read, in which it may be.
        unread: Unread,
    },
    /// The profile is there, but its block cannot be read any more.
    #[error("profile {id} cannot be read: {problem}")]
    Unread {
        /// The id.
        id: Ulid,
        /// What is wrong with the block.
        problem: Problem,
    },
    /// Nothing is selected.
    #[error("no profiles match {selection}{nearest}{unread}")]
    NoMatch {
        /// What was asked for.
        selection: String,
        /// Where there is something.
        nearest: Nearest,
        /// What could not be read, in which there may be some.
        unread: Unread,
    },
    /// Profiles of several types are selected.
    #[error("profiles of different types do not merge, and {selection} selects {}: give one as type", types.join(", "))]
    Types {
        /// What was asked for.
        selection: String,
        /// The types, in the order of their names.
        types: Vec<String>,
    },
    /// Profiles of several types are to be told apart, and have no sample type in common by which to compare them.
    #[error(
        "profiles of different types go together only where they have a sample type in common, and of what {selection} selects {}: give \
         one as type", types.join(", ")
    )]
    TypesApart {
        /// What was asked for.
        selection: String,
        /// The types, in the order of their names, and what each of them counts.
        types: Vec<String>,
    },
    /// Profiles whose samples count different things are selected.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The merged profile has no such sample type.
    #[error("sample_type {asked:?} is not among those of the profiles: {}", present.join(", "))]
    SampleType {
        /// What was asked for.
        asked: String,
        /// What there is.
        present: Vec<String>,
    },
    /// More profiles are selected than a merge may take.
    #[error(
        "{profiles} profiles are selected, more than the {max} that one merge may take (--query.max-merge-profiles); \
         narrow the window or the selector"
    )]
    TooManyProfiles {
        /// How many there are.
        profiles: u64,
        /// The most allowed.
        max: u64,
    },
    /// It needs more memory than there is for it.
    #[error(transparent)]
    Budget(#[from] Refused),
    /// It is large, and there are others.
    #[error(transparent)]
    Gate(#[from] gate::Refused),
    /// It took too long.
    #[error("the answer took longer than {} (--query.timeout); narrow the window or the selector", humantime::format_duration(*after))]
    Deadline {
        /// How long it was tried.
        after: Duration,
    },
    /// The bucket cannot be listed now, or holds too much.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// A block cannot be read, now or at all.
    #[error(transparent)]
    Block(#[from] block::Error),
    /// All that was selected is damaged.
    #[error("nothing of what {selection} selects could be read{problems}")]
    Damaged {
        /// What was asked for.
        selection: String,
        /// What is damaged.
        problems: Unread,
    },
    /// Profiles do not go together in a way that their sample types do not explain.
    #[error("profiles do not merge: {0}")]
    Merge(#[from] merge::Error),
    /// Nobody waits for the answer any more.
    #[error("the question was abandoned")]
    Cancelled,
    /// A bug.
    #[error("the task that answers panicked")]
    Panicked(#[from] JoinError),
}

/// Where the next profile lies that a selection would have, were its window another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearest {
    /// At this time, in nanoseconds since 1970.
    At(i64),
    /// There is none.
    Nowhere,
    /// Nobody has looked: that would have taken more than there was room for.
    Unknown,
}

/// What could not be read of the blocks that a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread(Vec<String>);

// === impl Error ===

impl Error {
    /// Returns what the caller does next.
    fn kind(&self) -> Kind {
        match self {
            Self::Selector(_)
            | Self::Type(_)
            | Self::Window(_)
            | Self::Filter(_)
            | Self::ReadToken { .. }
            | Self::Cursor(_)
            | Self::OtherSelection { .. }
            | Self::PageSize { .. }
            | Self::Id { .. }
            | Self::LabelName
            | Self::Format { .. }
            | Self::View(_)
            | Self::MarkBase { .. }
            | Self::Limit { .. }
            | Self::NoBase
            | Self::By { .. }
            | Self::TooManyLabels { .. }
            | Self::SeriesLimit { .. }
            | Self::Value { .. }
            | Self::ValueOfNone
            | Self::FunctionName
            | Self::Pattern(_)
            | Self::Regressions(_)
            | Self::Statistics(_)
            | Self::Step(_)
            | Self::Types { .. }
            | Self::TypesApart { .. }
            | Self::Disagreement(_)
            | Self::SampleType { .. } => Kind::Invalid,
            Self::Merge(merge::Error::TooLarge { .. })
            | Self::TooManyProfiles { .. }
            | Self::Budget(Refused::TooLarge { .. })
            | Self::Catalog(catalog::Error::TooManySegments { .. }) => Kind::TooLarge,
            Self::Merge(_) => Kind::Invalid,
            Self::Budget(Refused::Busy { .. }) | Self::Gate(_) => Kind::Exhausted,
            Self::NoProfile { .. } | Self::NoMatch { .. } | Self::NoFunction { .. } => Kind::NotFound,
            Self::Base(error) | Self::Before(error) => error.kind(),
            Self::Deadline { .. } => Kind::DeadlineExceeded,
            Self::Catalog(catalog::Error::Commits { source, .. }) if source.is_damage() => Kind::Corrupt,
            Self::Catalog(catalog::Error::List { .. } | catalog::Error::Commits { .. })
            | Self::Block(block::Error::Read { .. })
            | Self::Unread { .. } => Kind::Unavailable,
            Self::Block(_) | Self::Damaged { .. } => Kind::Corrupt,
            Self::Cancelled | Self::Panicked(_) => Kind::Internal,
        }
    }
}

impl From<Error> for Failure {
    /// Folds it into what the caller gets to see. What the store said stays in the log: it may name the bucket.
    fn from(error: Error) -> Self {
        let after = if let Error::Gate(_) = error { rand::random_range(RETRY_LARGE_AFTER) } else { RETRY_AFTER };
        match error.kind() {
            Kind::Internal => Self::internal(error),
            Kind::Unavailable => {
                let message = "stored profiles cannot be read now";
                tracing::warn!(error = %Causes(&error), "{message}");
                Self::unavailable(message, RETRY_AFTER)
            }
            kind => Self::new(kind, error.to_string()).after(after),
        }
    }
}

// === impl Nearest, Unread ===

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(nanos) => write!(f, "; the nearest one is of {}: choose start and end", time::format(*nanos)),
            Self::Nowhere => f.write_str(", nor at any other time"),
            Self::Unknown => Ok(()),
        }
    }
}

impl Unread {
    /// Returns what could not be read.
    pub(crate) fn of(problems: &[Problem]) -> Self {
        Self(problems.iter().map(ToString::to_string).collect())
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; but not all that is stored could be read: {}", self.0.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a retry can heal carries a delay, and nothing else does.
    #[test]
    fn a_delay_is_there_exactly_where_a_retry_can_help() {
        let busy = Failure::from(Error::from(Refused::Busy { estimate: 2 << 20, total: 1 << 20 }));
        assert_eq!((busy.kind(), busy.retry_after()), (Kind::Exhausted, Some(RETRY_AFTER)));
        let crowded = Failure::from(Error::from(gate::Refused::Full { places: 2, waiting: 100 }));
        assert_eq!(crowded.kind(), Kind::Exhausted);
        assert!(crowded.retry_after().is_some_and(|after| RETRY_LARGE_AFTER.contains(&after)), "{crowded:?}");
        let too_large = Failure::from(Error::from(Refused::TooLarge { estimate: 2 << 20, total: 1 << 20 }));
        assert_eq!((too_large.kind(), too_large.retry_after()), (Kind::TooLarge, None));
        let deadline = Failure::from(Error::Deadline { after: Duration::from_secs(30) });
        assert_eq!((deadline.kind(), deadline.retry_after()), (Kind::DeadlineExceeded, None));
    }

    /// Goal: a bug is told by its id, not by what it says.
    #[test]
    fn a_bug_is_not_told() {
        let failure = Failure::from(Error::Cancelled);
        assert_eq!(failure.kind(), Kind::Internal);
        assert!(failure.message().starts_with("internal error, id "), "{failure}");
    }
}
