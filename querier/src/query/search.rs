//! Search: the profiles of a selection, newest first, page by page.

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;

use super::cursor::{Cursor, Position};
use super::explain::Step;
use super::lane::SMALL_LISTED;
use super::selection::Selection;
use super::{Engine, Error, Match, completeness, info};

/// How many profiles are in a page when the request does not say.
const LIMIT_DEFAULT: u32 = 100;

/// The most profiles in a page: some 5 MB of JSON.
const LIMIT_MAX: u32 = 10_000;

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

/// Returns the first `limit` matches behind `after`, in the order of answers, and whether there are more.
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
    (left, more)
}

fn position(found: &Match) -> Position {
    let row = found.row();
    Position { time_nanos: row.time_nanos, id: row.id }
}
