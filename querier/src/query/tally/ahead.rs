//! Reading ahead: the ranges of some parts of a block together, while those before are summed up.
//!
//! What a question about a whole fleet reads of each service is small, and lies next to what it reads of the one after. Part by part, a store
//! that is 30 ms away and is asked for eight parts at once would take four seconds for a thousand.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use afterglow_store::bill;
use afterglow_store::block::Ahead;
use futures::{Stream, StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::Part;

/// How far what is read together reaches, in bytes, what lies between included: less than a store sends in the time of a round trip.
const SPAN_MAX: u64 = 1 << 20;

/// How many such reads are ahead of those that are used.
const READS: usize = 4;

/// Parts of one block whose ranges are read together; no ranges where that is not worth it.
struct Together {
    parts: Vec<Part>,
    ranges: Vec<Range<u64>>,
}

/// Returns how many bytes are held at most of what is read ahead, while so many parts are read at once.
pub(super) fn held(parts: &[Part], reads: usize) -> u64 {
    let all: u64 = parts.iter().map(|part| part.held).sum();
    all.min(SPAN_MAX * (READS + reads) as u64)
}

/// Returns the parts, each with what was read ahead of it. What cannot be read ahead is left to whoever reads the part.
pub(super) fn each_with_ahead(parts: Vec<Part>) -> impl Stream<Item = (Part, Ahead)> + Send {
    // One alone in its block reads for itself, and nothing has to be known of it.
    let of_several: HashSet<_> = parts
        .windows(2)
        .filter(|pair| Arc::ptr_eq(&pair[0].block, &pair[1].block))
        .map(|pair| pair[0].block.path().clone())
        .collect();
    let needed = move |part: Part| {
        let is_kept = part.key.is_some_and(|key| key.is_kept(&part.block));
        let reads_ahead = !is_kept && of_several.contains(part.block.path());
        let ranges = if reads_ahead { part.block.ranges_by_group(part.dataset, &part.rows) } else { Vec::new() };
        (part, ranges)
    };
    let mut left = parts.into_iter().map(needed).peekable();
    let groups = std::iter::from_fn(move || {
        let (mut together, mut readers) = (Together { parts: Vec::new(), ranges: Vec::new() }, 0);
        while let Some((part, ranges)) = left.next_if(|(part, ranges)| together.takes(part, ranges)) {
            readers += usize::from(!ranges.is_empty());
            together.ranges.extend(ranges);
            together.parts.push(part);
        }
        // So does one that is alone here, as much at once as it may.
        if readers < 2 {
            together.ranges.clear();
        }
        (!together.parts.is_empty()).then_some(together)
    });
    let each =
        |(parts, ahead): (Vec<Part>, Ahead)| stream::iter(parts.into_iter().map(move |part| (part, ahead.clone())));
    stream::iter(groups.map(Together::read)).buffered(READS).flat_map(each)
}

// === impl Together ===

impl Together {
    /// Returns whether a part and its ranges, in the order in which they lie, belong to these.
    fn takes(&self, part: &Part, ranges: &[Range<u64>]) -> bool {
        let is_of_block = self.parts.first().is_none_or(|first| Arc::ptr_eq(&first.block, &part.block));
        let is_near = match (self.ranges.first(), ranges) {
            (Some(from), [first, ..]) => {
                let reaches = ranges.iter().map(|range| range.end).max().unwrap_or_default();
                from.start <= first.start && reaches.saturating_sub(from.start) <= SPAN_MAX
            }
            _ => true,
        };
        is_of_block && is_near
    }

    /// Reads the ranges, on a task of its own: it goes on while others are summed up, and ends where nobody waits for it.
    async fn read(self) -> (Vec<Part>, Ahead) {
        let Self { parts, ranges } = self;
        if ranges.is_empty() {
            return (parts, Ahead::default());
        }
        let block = Arc::clone(&parts[0].block);
        let read = async move { block.read_ahead(&ranges).await };
        let read = AbortOnDropHandle::new(tokio::spawn(bill::carried(read).in_current_span()));
        // Whoever reads a part for itself says what is wrong with it.
        let ahead = read.await.ok().and_then(Result::ok).unwrap_or_default();
        (parts, ahead)
    }
}
