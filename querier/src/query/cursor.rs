//! Where a page of a search ends: the text that a client hands back to get the next page.
//!
//! It holds a position in the order of answers (newest first, equal times by id) and the window of the first page, not an offset
//! and not a reference to anything that a querier remembers. So any querier can continue it, profiles that arrive meanwhile
//! neither repeat nor hide one, and a window such as "the last hour" does not move from page to page.
//!
//! The text is URL-safe base64 of a version byte, a digest of the selector and the type, the window's start and end, the time of the last
//! profile of the page (nanoseconds, big endian) and its id. The digest is there because the next page of another selection would be an
//! answer to no question. Clients must not look inside.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ulid::Ulid;

use crate::window::Window;

/// The version of the bytes below; a cursor of another version is refused rather than misread.
const VERSION: u8 = 2;

/// The version byte, the digest, three times, the id.
const LEN: usize = 1 + 8 + 3 * 8 + 16;

/// A position in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Of the selector and the type of all pages: [`Selection::digest`](super::selection::Selection::digest).
    pub(crate) selection: u64,
    /// The window of all pages.
    pub(crate) window: Window,
    /// The last profile of the page before.
    pub(crate) after: Position,
}

/// A place in the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The time of a profile, in nanoseconds since 1970.
    pub(crate) time_nanos: i64,
    /// Its id.
    pub(crate) id: Ulid,
}

/// The text is not a cursor of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor is not one that this version of the querier gave; begin the search anew without it")]
pub(crate) struct NotACursor;

// === impl Position ===

impl Ord for Position {
    /// Newest first; equal times in order of their ids.
    fn cmp(&self, other: &Self) -> Ordering {
        other.time_nanos.cmp(&self.time_nanos).then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// === impl Cursor ===

impl Cursor {
    /// Returns the text for a client.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.selection.to_be_bytes());
        bytes.extend_from_slice(&self.window.start_nanos.to_be_bytes());
        bytes.extend_from_slice(&self.window.end_nanos.to_be_bytes());
        bytes.extend_from_slice(&self.after.time_nanos.to_be_bytes());
        bytes.extend_from_slice(&u128::from(self.after.id).to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text back.
    ///
    /// # Errors
    /// When it is anything else than what [`Cursor::encode`] wrote.
    pub(crate) fn decode(text: &str) -> Result<Self, NotACursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let Some((&VERSION, rest)) = bytes.split_first() else { return Err(NotACursor) };
        let (selection, rest) = rest.split_first_chunk().ok_or(NotACursor)?;
        let (start, rest) = rest.split_first_chunk().ok_or(NotACursor)?;
        let (end, rest) = rest.split_first_chunk().ok_or(NotACursor)?;
        let (time, rest) = rest.split_first_chunk().ok_or(NotACursor)?;
        let id = rest.try_into().map_err(|_| NotACursor)?;
        let window = Window { start_nanos: i64::from_be_bytes(*start), end_nanos: i64::from_be_bytes(*end) };
        let after = Position { time_nanos: i64::from_be_bytes(*time), id: Ulid::from(u128::from_be_bytes(id)) };
        // Also what a client made up must not reach the catalog.
        if window.is_empty() || !window.contains(after.time_nanos) {
            return Err(NotACursor);
        }
        Ok(Self { selection: u64::from_be_bytes(*selection), window, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            selection: 0x0123_4567_89ab_cdef,
            window: Window { start_nanos: 1_000, end_nanos: 2_000 },
            after: Position { time_nanos: 1_500, id: Ulid::from(0x0193_5E2A_0000_0000_0000_0000_0000_0007) },
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let text = cursor().encode();
        assert_eq!(Cursor::decode(&text), Ok(cursor()));
        assert!(
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            "{text} needs no escape in a URL"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        let text = cursor().encode();
        let other_version = BASE64_URL_SAFE_NO_PAD.encode([&[9], &[0; LEN - 1][..]].concat());
        let outside = Cursor { after: Position { time_nanos: 2_000, ..cursor().after }, ..cursor() }.encode();
        let longer = format!("{text}AAAA");
        for bad in ["", "x", "%%%", &text[1..], &text[..text.len() - 4], &longer, &other_version, &outside] {
            assert_eq!(Cursor::decode(bad), Err(NotACursor), "{bad}");
        }
    }

    #[test]
    fn the_order_is_newest_first_then_by_id() {
        let at = |time_nanos, id: u128| Position { time_nanos, id: Ulid::from(id) };
        let mut positions = vec![at(1, 1), at(2, 9), at(2, 3), at(3, 5)];
        positions.sort();
        assert_eq!(positions, [at(3, 5), at(2, 3), at(2, 9), at(1, 1)]);
    }
}
