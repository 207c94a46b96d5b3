//! Which profiles a question is about, read and checked: the request's texts become a selector, a type, a window, a freshness.

use std::fmt;

use afterglow_profile::{ProfileType, Selector};
use afterglow_proto::v1;
use afterglow_store::catalog::{Freshness, Query};
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use crate::window::Window;

/// A checked selection.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// By labels.
    pub(crate) selector: Selector,
    /// By profile type; none means any.
    pub(crate) profile_type: Option<ProfileType>,
    /// By time.
    pub(crate) window: Window,
    /// How recent the view must be.
    pub(crate) freshness: Freshness,
}

impl Selection {
    /// Reads the selection of a request that came at `now_nanos`. A missing one is everything in the last hour.
    ///
    /// # Errors
    /// When the selector, the type, a time or the token is malformed, or the window empty.
    pub(crate) fn read(request: Option<v1::Selection>, now_nanos: i64) -> Result<Self, Error> {
        let v1::Selection { query, r#type, start, end, read_token } = request.unwrap_or_default();
        let selector = Selector::parse(&query)?;
        let profile_type = match r#type.as_str() {
            "" => None,
            word => Some(ProfileType::parse(word)?),
        };
        let window = Window::resolve(start.as_ref(), end.as_ref(), now_nanos)?;
        Ok(Self { selector, profile_type, window, freshness: freshness(&read_token)? })
    }

    /// Returns the same selection over another window.
    pub(crate) fn within(&self, window: Window) -> Self {
        Self { window, ..self.clone() }
    }

    /// Returns a digest of the selector and the type, the same in every querier.
    pub(crate) fn digest(&self) -> u64 {
        let profile_type = self.profile_type.as_ref().map_or("", ProfileType::as_str);
        // A type has no zero in it.
        xxh3_64(format!("{profile_type}\0{}", self.selector).as_bytes())
    }

    /// Returns it as the catalog asks.
    pub(crate) fn query(&self) -> Query {
        Query {
            selector: self.selector.clone(),
            profile_type: self.profile_type.clone(),
            start_nanos: self.window.start_nanos,
            end_nanos: self.window.end_nanos,
        }
    }
}

/// Shows it as messages do: `{service="api"} of type cpu in [start, end)`.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.selector)?;
        if let Some(profile_type) = &self.profile_type {
            write!(f, " of type {}", profile_type.as_str())?;
        }
        write!(f, " in {}", self.window)
    }
}

/// Reads a token from an acknowledgement.
///
/// # Errors
/// When it is none.
pub(crate) fn freshness(read_token: &str) -> Result<Freshness, Error> {
    match read_token {
        "" => Ok(Freshness::AtMostOld),
        token => Ok(Freshness::AtLeast(token.parse().map_err(|_| Error::ReadToken { token: token.to_owned() })?)),
    }
}
