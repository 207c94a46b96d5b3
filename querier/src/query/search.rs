//! Search: the profiles of a selection, newest first, page by page.
//!
//! Labels may be long, so a page ends where it has its number of profiles or [`BYTES_MAX`], whichever comes first: the next one goes on there.

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;

use super::cursor::{Cursor, Position};
use super::explain::Step;
use super::lane::SMALL_LISTED;
use super::selection::Selection;
use super::{Engine, Error, Match, completeness, info};

/// How many profiles are in a page when the request does not say.
const LIMIT_DEFAULT: u32 = 100;

/// The most profiles in a page.
const LIMIT_MAX: u32 = 10_000;

/// The most that the profiles of a page say, in bytes, but for a single one that says more. Those of 10,000 profiles with a dozen labels are
/// some 5 MB.
const BYTES_MAX: usize = 8 << 20;

/// What is said of a profile beside its labels and what it counts: id, times, sizes and checksum.
const ROW_BYTES: usize = 256;

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::SearchRequest,
) -> Result<v1::SearchResponse, Error> {
    let limit = page_size(request.limit)?;
    let mut selection = Selection::read(request.selection, engine.now_nanos())?;
    let mut after = None;
    if !request.cursor.is_empty() {
        let cursor = Cursor::decode(&request.cursor)?;
        if cursor.selection != selection.digest() {
            return Err(Error::OtherSelection { selection: selection.to_string() });
        }
        selection = selection.within(cursor.window);
        after = Some(cursor.after);
    }
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let engine = engine.enter(tenant, &[(&view, &selection)], SMALL_LISTED).await?;
    let selected = engine.select_in(&view, &selection).await?;
    let explaining = engine.1.clone();
    let write = move || {
        let _timed = explaining.step(Step::Encode);
        let (page, more) = cut(&selected.matches, after, limit);
        let next_cursor = match page.last() {
            Some(last) if more => {
                Cursor { selection: selection.digest(), window: selection.window, after: position(last) }.encode()
            }
            _ => String::new(),
        };
        v1::SearchResponse {
            profiles: page.into_iter().map(info).collect(),
            next_cursor,
            completeness: Some(completeness(&selected.problems)),
            explain: None,
        }
    };
    engine.aside(write).await
}

fn page_size(limit: u32) -> Result<usize, Error> {
    match limit {
        0 => Ok(LIMIT_DEFAULT as usize),
        1..=LIMIT_MAX => Ok(limit as usize),
        _ => Err(Error::PageSize { limit, max: LIMIT_MAX }),
    }
}

/// Returns the first matches behind `after`, in the order of answers, and whether there are more: `limit` of them, or as many as a page holds.
///
/// Only what is in the page gets sorted: the rest is merely known to lie behind it.
fn cut(matches: &[Match], after: Option<Position>, limit: usize) -> (Vec<&Match>, bool) {
    let mut left: Vec<&Match> = matches.iter().filter(|m| after.is_none_or(|after| position(m) > after)).collect();
    let more = left.len() > limit;
    if more {
        left.select_nth_unstable_by_key(limit, |m| position(m));
        left.truncate(limit);
    }
    left.sort_unstable_by_key(|m| position(m));
    let fitting = fitting(left.iter().map(|m| bytes(m)));
    let more = more || fitting < left.len();
    left.truncate(fitting);
    (left, more)
}

/// Returns how many profiles are in a page, by how many bytes is said of each: at least one, where there is any.
fn fitting(bytes: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0_usize;
    let fits = |(i, bytes): &(usize, usize)| {
        sum = sum.saturating_add(*bytes);
        *i == 0 || sum <= BYTES_MAX
    };
    bytes.enumerate().take_while(fits).count()
}

/// Returns how many bytes is said of a profile, about.
fn bytes(found: &Match) -> usize {
    let labels: usize = found.labels().iter().map(|(name, value)| name.len() + value.len()).sum();
    let counts: usize = found.sample_types().iter().map(|counts| counts.kind.len() + counts.unit.len()).sum();
    ROW_BYTES + labels + counts
}

fn position(found: &Match) -> Position {
    let row = found.row();
    Position { time_nanos: row.time_nanos, id: row.id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_profile_at_least() {
        assert_eq!(fitting([].into_iter()), 0);
        assert_eq!(fitting([BYTES_MAX + 1, 1].into_iter()), 1);
        assert_eq!(fitting([1, BYTES_MAX].into_iter()), 1);
        assert_eq!(fitting([1, BYTES_MAX - 1, 0, 1].into_iter()), 3);
        assert_eq!(fitting([usize::MAX, usize::MAX].into_iter()), 1);
    }
}
