//! Which part of stacks an answer shows, read and checked.

use afterglow_profile::tree;
use afterglow_proto::v1;

/// A view that owns the name of its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Whole stacks.
    All,
    /// What called the function.
    Callers(String),
    /// What the function called.
    Callees(String),
}

/// Why a view is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It has no name.
    #[error("view {number} is not one of callers, callees")]
    View {
        /// What was given.
        number: i32,
    },
    /// It is of no function.
    #[error("view callers and view callees are of a function: give its exact name")]
    NoFunction,
    /// There is a function, and nothing to look at it for.
    #[error("function {name:?} goes with view callers or view callees alone")]
    NoView {
        /// The function.
        name: String,
    },
    /// The format has no stacks to cut.
    #[error("view callers and view callees have the formats flamegraph and folded, not {format}")]
    Format {
        /// The format.
        format: &'static str,
    },
}

impl View {
    /// Reads the view of a request.
    ///
    /// # Errors
    /// There is no such view, or its function is missing, or a function is given without a view.
    pub(super) fn read(number: i32, function: &str) -> Result<Self, Error> {
        let view = v1::StackView::try_from(number).map_err(|_| Error::View { number })?;
        match (view, function) {
            (v1::StackView::Unspecified, "") => Ok(Self::All),
            (v1::StackView::Unspecified, name) => Err(Error::NoView { name: name.to_owned() }),
            (_, "") => Err(Error::NoFunction),
            (v1::StackView::Callers, name) => Ok(Self::Callers(name.to_owned())),
            (v1::StackView::Callees, name) => Ok(Self::Callees(name.to_owned())),
        }
    }

    /// Returns it as trees take it.
    pub(super) fn as_tree(&self) -> tree::View<'_> {
        match self {
            Self::All => tree::View::All,
            Self::Callers(name) => tree::View::Callers(name),
            Self::Callees(name) => tree::View::Callees(name),
        }
    }

    /// Returns the function it is of.
    pub(super) fn function(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Callers(name) | Self::Callees(name) => Some(name),
        }
    }
}
