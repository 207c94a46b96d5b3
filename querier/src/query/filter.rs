//! Which samples a question is about, read and checked: the request's patterns, compiled.

use afterglow_profile::filter::{Error, Filter, Patterns};
use afterglow_proto::v1;

/// Reads the filter of a request. A missing one keeps everything.
///
/// # Errors
/// A pattern is malformed or too long.
pub(super) fn read(request: Option<v1::StackFilter>) -> Result<Filter, Error> {
    let request = request.unwrap_or_default();
    let v1::StackFilter { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site } = request;
    Filter::new(&Patterns { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site })
}

/// Says of a pattern that it matched nothing, which is likely a slip.
pub(super) fn warning(pattern: &str) -> String {
    format!("{pattern} matched nothing")
}
