//! The rule by which the boundary moves, and what writers of segments owe to it.
//!
//! The boundary is part of the state: a commit moves it, readers ignore all segments below it. It stays a day behind the store's
//! clock, so the name of a segment lies far above it when its PUT ends, unless the writer's clock is a day behind. A writer that knows
//! the boundary therefore names its segments [`NAMES_ABOVE`] it at least; and it acknowledges nothing whose PUT took a minute
//! or more, for in between any number of moves may have been made.

use std::time::Duration;

use super::REMOVED_KEPT;

/// How far above the boundary writers name their segments at least. Half of what the boundary stays behind: never in the future.
pub const NAMES_ABOVE: Duration = Duration::from_secs(12 * 3_600);
/// The furthest that the boundary moves at once.
const STEP_MAX: Duration = Duration::from_secs(4 * 3_600);
/// How long it rests after a move: what a writer knows of it may be two moves old.
const STEP_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Returns where the boundary may move to, if anywhere: a day behind the store's clock, not past the oldest segment that no commit
/// removed, and by steps. All times are in milliseconds; `moved_at` is when it last moved, by the store's clock.
pub fn next(now_millis: u64, oldest_segment_millis: Option<u64>, boundary: u64, moved_at: Option<u64>) -> Option<u64> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    if moved_at.is_some_and(|at| now_millis < at + millis(STEP_PAUSE)) {
        return None;
    }
    let behind = now_millis.saturating_sub(millis(REMOVED_KEPT));
    let furthest = match boundary {
        // Nobody has named anything by an older one.
        0 => behind,
        boundary => boundary.saturating_add(millis(STEP_MAX)),
    };
    let next = behind.min(furthest).min(oldest_segment_millis.unwrap_or(u64::MAX));
    (next > boundary).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn the_boundary_stays_a_day_behind_and_below_what_is_not_compacted() {
        let day_behind = NOW - 24 * HOUR;
        assert_eq!(next(NOW, None, 0, None), Some(day_behind));
        assert_eq!(next(NOW, Some(NOW - HOUR), 0, None), Some(day_behind));
        assert_eq!(next(NOW, Some(NOW - 30 * HOUR), 0, None), Some(NOW - 30 * HOUR));
        assert_eq!(next(NOW, None, day_behind, None), None);
        assert_eq!(next(NOW, None, day_behind + HOUR, None), None, "it does not go back with a clock that does");
    }

    #[test]
    fn it_moves_by_steps_that_names_stay_ahead_of() {
        let behind = NOW - 100 * HOUR;
        assert_eq!(next(NOW, None, behind, Some(NOW - HOUR)), Some(behind + 4 * HOUR));
        assert_eq!(next(NOW, None, behind, Some(NOW - HOUR / 4 + 1)), None);
        assert!(STEP_MAX * 2 < NAMES_ABOVE);
    }
}
