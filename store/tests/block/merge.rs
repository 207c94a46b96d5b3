//! A merge changes where profiles lie and nothing else: real and odd profiles, merged once or again and again, come back bit for bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use afterglow_profile::{Limits, decode};
use afterglow_store::block::{
    Block, Error, Footprint, Input, Merge, MergeOptions, Merged, Options, Row, SampleTypes, SegmentWriter, Stats,
    Summary,
};
use afterglow_store::testing::odd;
use afterglow_store::testing::segments::{Sent, segment as small_segment};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use ulid::Ulid;

use crate::aggregate;
use crate::samples::{File, add, files, meta, number, opened, opened_as, segment, segment_from};

/// Opens blocks.
pub(crate) async fn all_opened(blocks: impl IntoIterator<Item = Bytes>) -> Vec<Arc<Block>> {
    let mut all = Vec::new();
    for bytes in blocks {
        all.push(Arc::new(opened(bytes).await.expect("a fresh block opens")));
    }
    all
}

/// Merges blocks whole.
pub(crate) async fn merge(blocks: &[Arc<Block>], options: &MergeOptions) -> Result<(Vec<Merged>, Stats), Error> {
    let input = |block: &Arc<Block>| Input { block: block.clone(), skip: Arc::from([]) };
    merge_inputs(blocks.iter().map(input).collect(), options).await
}

/// Merges inputs.
async fn merge_inputs(inputs: Vec<Input>, options: &MergeOptions) -> Result<(Vec<Merged>, Stats), Error> {
    let mut merge = Merge::begin(inputs, options.clone()).await?;
    let mut merged = Vec::new();
    while let Some(block) = merge.next().await? {
        merged.push(block);
    }
    Ok((merged, merge.stats()))
}

/// Merges a level into the next, `at_once` blocks at a time.
pub(crate) async fn level(blocks: &[Arc<Block>], at_once: usize, options: &MergeOptions) -> Vec<Arc<Block>> {
    let mut next = Vec::new();
    for blocks in blocks.chunks(at_once) {
        let (merged, _) = merge(blocks, options).await.expect("sound blocks merge");
        next.extend(all_opened(merged.into_iter().map(|merged| merged.bytes)).await);
    }
    next
}

/// Returns the rows of all blocks by id, with what they refer to.
async fn rows(blocks: &[Arc<Block>]) -> BTreeMap<Ulid, (Arc<Block>, Row)> {
    let mut all = BTreeMap::new();
    for block in blocks {
        for row in block.rows().await.expect("a fresh block has rows").iter() {
            let before = all.insert(row.id, (block.clone(), row.clone()));
            assert!(before.is_none(), "each id has one row");
        }
    }
    all
}

/// Checks that blocks hold exactly these files, each bit for bit, in sorted rows.
async fn check(blocks: &[Arc<Block>], files: &[File], first: usize) {
    let all = rows(blocks).await;
    assert_eq!(all.len(), files.len());
    for (block, row) in all.values() {
        let file = &files[number(row) - first];
        let raw = block.fetch(row).await.unwrap_or_else(|error| panic!("{}: {error}", file.path.display()));
        assert!(raw == file.raw, "{} comes back with other bytes", file.path.display());
        let dataset = &block.toc().datasets()[row.dataset as usize];
        let (service, profile_type) = file.names();
        assert_eq!((dataset.service(), dataset.profile_type().as_str()), (&*service, &*profile_type));
        assert_eq!(dataset.series()[row.series as usize].get("instance"), Some(&*format!("i{}", number(row) % 3)));
        assert!(dataset.time_nanos().contains(&row.time_nanos));
    }
    for block in blocks {
        let rows = block.rows().await.expect("a fresh block has rows");
        assert!(rows.is_sorted_by_key(|row| (row.dataset, row.series, row.time_nanos, row.id)));
        for dataset in block.toc().datasets() {
            assert!(dataset.series().is_sorted());
        }
        let names = block.toc().datasets().iter().map(|dataset| (dataset.service(), dataset.profile_type()));
        assert!(names.is_sorted_by(|a, b| a < b), "each dataset stands once");
    }
}

#[tokio::test]
async fn every_profile_comes_back_from_every_level() {
    let files = files();
    let mut first = 0;
    let mut segments = Vec::new();
    for files in files.chunks(16) {
        segments.push(segment_from(files, first).bytes);
        first += files.len() as u64;
    }
    let level0 = all_opened(segments).await;
    check(&level0, &files, 0).await;
    let level1 = level(&level0, 4, &MergeOptions::of_level(1)).await;
    check(&level1, &files, 0).await;
    let level2 = level(&level1, 3, &MergeOptions::of_level(2)).await;
    check(&level2, &files, 0).await;
    let level3 = level(&level2, usize::MAX, &MergeOptions::of_level(3)).await;
    check(&level3, &files, 0).await;
    let stored = |blocks: &[Arc<Block>]| blocks.iter().map(|block| block.size()).sum::<u64>();
    assert!(stored(&level1) < stored(&level0));
    assert!(stored(&level3) < stored(&level1));
}

/// Returns what the profiles of each dataset merge to, where they go together.
async fn meanings(blocks: &[Arc<Block>]) -> BTreeMap<(String, String), aggregate::Meaning> {
    let mut sums: BTreeMap<_, (Vec<_>, Vec<_>)> = BTreeMap::new();
    for block in blocks {
        for (dataset, index) in block.toc().datasets().iter().zip(0..) {
            let aggregates =
                block.aggregate(index, &dataset.rows().collect::<Vec<_>>(), SampleTypes::All).await.expect("it sums");
            let name = (dataset.service().to_owned(), dataset.profile_type().as_str().to_owned());
            let (of_dataset, lists) = sums.entry(name).or_default();
            of_dataset.extend(aggregates);
            lists.extend(dataset.sample_types().iter().cloned());
        }
    }
    // Profiles of other programs under one name have other sample types and do not go together.
    sums.retain(|_, (_, lists)| lists.iter().all(|list| *list == lists[0]));
    let meaning = |(name, (sums, _)): (_, (Vec<afterglow_store::block::Aggregate>, _))| {
        (name, aggregate::merged(sums.iter().map(|sum| sum.profile())))
    };
    sums.into_iter().map(meaning).collect()
}

#[tokio::test]
async fn each_sample_type_sums_alone_after_compaction() {
    let files = files();
    let blocks = all_opened(files.chunks(16).zip(0..).map(|(files, n)| segment_from(files, 16 * n).bytes)).await;
    let mut compared = 0;
    for block in level(&blocks, usize::MAX, &MergeOptions::of_level(2)).await {
        compared += aggregate::check_each_type_alone(&block).await;
    }
    assert!(compared > 20);
}

#[tokio::test]
async fn sums_are_the_same_before_and_after() {
    let files: Vec<_> = files().into_iter().filter(File::is_go).collect();
    let blocks = all_opened(files.chunks(5).zip(0..).map(|(files, n)| segment_from(files, 5 * n).bytes)).await;
    let before = meanings(&blocks).await;
    assert!(before.len() > 2);
    let once = level(&blocks, usize::MAX, &MergeOptions::of_level(2)).await;
    assert!(meanings(&once).await == before);
    let again = level(&level(&blocks, 2, &MergeOptions::of_level(1)).await, 2, &MergeOptions::of_level(2)).await;
    assert!(meanings(&again).await == before);
}

/// Makes segments of odd profiles, whose encoders chose at random.
fn odd_segments(runner: &mut proptest::test_runner::TestRunner, segments: u64) -> (Vec<Bytes>, Vec<Vec<u8>>) {
    let strategy = proptest::collection::vec(any::<u8>(), 0..400);
    let (mut blocks, mut raws) = (Vec::new(), Vec::new());
    let mut choices = Vec::new();
    for _ in 0..segments {
        let mut writer = SegmentWriter::new(Options::default());
        for _ in 0..4 {
            let mut next = strategy.new_tree(runner).expect("choices can be made").current();
            if raws.len() % 2 == 1 {
                // One of two begins as the one before: its entries are mostly equal, what it does with them is not.
                let kept = choices.len() / 2;
                next.splice(..kept.min(next.len()), choices[..kept].iter().copied());
            }
            choices = next;
            let raw = odd::profile(&choices);
            let n = raws.len() as u64;
            let meta = meta(
                n,
                ["a", "b"][n as usize / 2 % 2],
                "cpu",
                &decode::decode(&raw, &Limits::default()).expect("it decodes"),
            );
            add(&mut writer, meta, &raw);
            raws.push(raw);
        }
        blocks.push(writer.finish().expect("a segment can be finished").bytes);
    }
    (blocks, raws)
}

/// Checks that blocks hold exactly these profiles.
async fn check_raws(blocks: &[Arc<Block>], raws: &[Vec<u8>]) {
    let all = rows(blocks).await;
    assert_eq!(all.len(), raws.len());
    for (block, row) in all.values() {
        assert!(block.fetch(row).await.expect("it comes back") == raws[number(row)]);
    }
}

#[tokio::test]
async fn odd_profiles_come_back_however_they_are_merged() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let plain = MergeOptions::of_level(1);
    let few = MergeOptions { symbols_max: 60, rows_max_of_dataset: 5, chunk_profiles_max: 3, ..plain.clone() };
    for _ in 0..12 {
        let (blocks, raws) = odd_segments(&mut runner, 8);
        let blocks = all_opened(blocks).await;
        for options in [&plain, &few] {
            let at_once = level(&blocks, 8, options).await;
            check_raws(&at_once, &raws).await;
            let again = level(&level(&level(&blocks, 2, options).await, 3, options).await, usize::MAX, options).await;
            check_raws(&again, &raws).await;
            let content = |rows: BTreeMap<Ulid, (Arc<Block>, Row)>| -> Vec<_> {
                rows.into_values().map(|(_, row)| (row.id, row.sha256, row.totals, row.samples, row.columns)).collect()
            };
            assert_eq!(content(rows(&at_once).await), content(rows(&again).await));
        }
    }
}

#[tokio::test]
async fn a_merge_of_the_same_blocks_is_the_same() {
    let files = files();
    let segments = files.chunks(10).zip(0..).map(|(files, n)| segment_from(files, 10 * n).bytes);
    let blocks = all_opened(segments.take(6)).await;
    let options = MergeOptions { block_bytes_max: 300_000, ..MergeOptions::of_level(1) };
    let (once, _) = merge(&blocks, &options).await.expect("sound blocks merge");
    let (again, stats) = merge(&blocks, &options).await.expect("sound blocks merge");
    assert!(once.iter().map(|merged| &merged.bytes).eq(again.iter().map(|merged| &merged.bytes)));
    assert_eq!(stats.rows, once.iter().map(|merged| merged.summary.rows).sum::<u64>());
    assert!(stats.checked * 20 >= stats.rows);
}

#[tokio::test]
async fn of_what_stays_behind_nothing_comes_along() {
    let files: Vec<_> = files().into_iter().filter(File::is_go).collect();
    let both = Arc::new(opened(segment(&files).bytes).await.expect("it opens"));
    let rows = both.rows().await.expect("it has rows");
    for kept in [0, rows.len() / 2, rows.len() - 1] {
        let alone = Arc::new(
            opened(segment_from(&files[number(&rows[kept])..][..1], number(&rows[kept]) as u64).bytes)
                .await
                .expect("it opens"),
        );
        let skip: Arc<[u32]> = (0..rows.len() as u32).filter(|&row| row as usize != kept).collect();
        let options = MergeOptions::of_level(1);
        let (skipped, _) = merge_inputs(vec![Input { block: both.clone(), skip }], &options).await.expect("it merges");
        let (alone, _) = merge(&[alone], &options).await.expect("it merges");
        assert_eq!(skipped.len(), 1);
        assert_eq!(skipped[0].summary, alone[0].summary);
        assert_eq!(skipped[0].summary.first_id, rows[kept].id);
        // The samples may be said in another way, as the profiles they lay with in a chunk had a say in that.
        let [skipped, alone] = [&skipped[0], &alone[0]].map(|merged| tables(merged.bytes.clone()));
        assert!(skipped.await == alone.await, "the tables hold what only others need");
    }
}

/// Returns the symbol tables of a block, as they lie in it.
async fn tables(bytes: Bytes) -> Vec<Bytes> {
    const SYMBOLS: u32 = 1;
    let block = opened(bytes.clone()).await.expect("a fresh block opens");
    let sections = block.toc().sections().iter().filter(|section| section.kind() == SYMBOLS);
    sections.map(|section| bytes.slice(section.range().start as usize..section.range().end as usize)).collect()
}

#[tokio::test]
async fn the_first_of_equal_ids_counts() {
    let sent = |id, value| Sent::new(id, "api", &[("dc", "1")], 5_000 + id as i64).with_value(value);
    let segments = [
        small_segment(&[sent(1, 10), sent(2, 10)]),
        small_segment(&[sent(2, 20), sent(3, 20), sent(1, 20)]),
        small_segment(&[sent(3, 30), sent(4, 30)]),
    ];
    let blocks = all_opened(segments).await;
    let input = |i: usize, skip: &[u32]| Input { block: blocks[i].clone(), skip: skip.into() };
    // Of the second block 2 is skipped, of the third 4; rows are sorted by time.
    let inputs = vec![input(0, &[1]), input(1, &[]), input(2, &[1])];
    let (merged, stats) = merge_inputs(inputs, &MergeOptions::of_level(1)).await.expect("they merge");
    assert_eq!((merged.len(), stats.rows, stats.duplicates), (1, 3, 2));
    let merged = all_opened([merged[0].bytes.clone()]).await;
    let values: Vec<_> =
        rows(&merged).await.into_values().map(|(_, row)| (u128::from(row.id), row.totals[0])).collect();
    assert_eq!(values, [(1, 10), (2, 20), (3, 20)]);
}

#[tokio::test]
async fn nothing_of_nothing() {
    assert!(merge(&[], &MergeOptions::of_level(1)).await.expect("nothing merges").0.is_empty());
    let blocks = all_opened([small_segment(&[]), small_segment(&[Sent::new(1, "api", &[], 1)])]).await;
    let inputs = blocks.iter().map(|block| Input { block: block.clone(), skip: Arc::from([0]) });
    let (merged, stats) = merge_inputs(inputs.collect(), &MergeOptions::of_level(1)).await.expect("nothing merges");
    assert!(merged.is_empty());
    assert_eq!(stats, Stats::default());
}

#[tokio::test]
async fn a_block_holds_one_day_and_keeps_its_bounds() {
    const DAY: i64 = 86_400_000_000_000;
    let sent: Vec<_> = (0..60u128)
        .map(|n| {
            let (service, dc) = ([("a", "1"), ("a", "2"), ("b", "1")])[n as usize % 3];
            // Three days, the first of them before 1970.
            Sent::new(n, service, &[("dc", dc)], (n as i64 % 5) * DAY / 2 - 1)
        })
        .collect();
    let blocks = all_opened(sent.chunks(7).map(small_segment)).await;
    let options = MergeOptions { rows_max_of_dataset: 4, ..MergeOptions::of_level(1) };
    let (merged, _) = merge(&blocks, &options).await.expect("they merge");
    let mut days = Vec::new();
    for Merged { bytes, summary } in &merged {
        let block = opened(bytes.clone()).await.expect("it opens");
        let rows = block.rows().await.expect("it has rows");
        assert_eq!(Summary::of(&rows), Some(*summary));
        assert!(rows.iter().all(|row| row.time_nanos.div_euclid(DAY) == summary.day.number()));
        assert!(block.toc().datasets().iter().all(|dataset| dataset.rows().len() <= 4));
        days.push(summary.day.number());
    }
    assert!(days.is_sorted());
    days.dedup();
    assert_eq!(days, [-1, 0, 1]);
    assert_eq!(rows(&all_opened(merged.into_iter().map(|merged| merged.bytes)).await).await.len(), 60);
}

/// Goal: no reader has to hold more rows of a block than its writer allows, whichever services they are of.
#[tokio::test]
async fn a_block_has_no_more_rows_than_allowed() {
    let sent: Vec<_> = (0..60u128).map(|n| Sent::new(n, &format!("s{}", n % 9), &[], n as i64)).collect();
    let blocks = all_opened(sent.chunks(7).map(small_segment)).await;
    let options = MergeOptions { rows_max: 16, ..MergeOptions::of_level(1) };
    let (merged, _) = merge(&blocks, &options).await.expect("they merge");
    assert_eq!(merged.iter().map(|merged| merged.summary.rows).collect::<Vec<_>>(), [16, 16, 16, 12]);
    assert_eq!(rows(&all_opened(merged.into_iter().map(|merged| merged.bytes)).await).await.len(), 60);
}

/// Goal: what a merge reads of an input follows from the bytes of it, not from how many services it has.
#[tokio::test]
async fn many_small_services_are_read_together() {
    let sent: Vec<_> = (0..600u128).map(|n| Sent::new(n, &format!("s{:03}", n % 200), &[], n as i64)).collect();
    let blocks = all_opened(sent.chunks(200).map(small_segment)).await;
    let bytes: u64 = blocks.iter().map(|block| block.size()).sum();
    let (_, stats) = merge(&blocks, &MergeOptions::of_level(1)).await.expect("they merge");
    assert_eq!(stats.rows, 600);
    assert!(stats.reads <= 3 + bytes / (64 << 10), "{} reads of {bytes} bytes", stats.reads);
}

#[tokio::test]
async fn more_memory_than_there_is_is_refused_before_anything_is_read() {
    let blocks = all_opened([segment(&files()[..8]).bytes]).await;
    let needed = Footprint::of(blocks.iter().map(|block| &**block)).tables();
    let options = MergeOptions { memory_max: needed - 1, ..MergeOptions::of_level(1) };
    assert!(matches!(merge(&blocks, &options).await, Err(Error::Memory { needed: n, .. }) if n == needed));
    merge(&blocks, &MergeOptions { memory_max: needed, ..options }).await.expect("it fits");
}

/// Damage is named by the input it is in, or does no harm.
#[tokio::test]
async fn a_damaged_input_is_named() {
    let mut files = files();
    files.retain(|file| file.gzip_bytes < 6_000);
    files.truncate(6);
    let sound = Arc::new(opened_as("sound", segment_from(&files[..3], 0).bytes).await.expect("it opens"));
    let other = segment_from(&files[3..], 3).bytes;
    let bits = other.len() * 8;
    let (mut named, mut harmless) = (0, 0);
    for bit in (0..bits).step_by((bits / 3_000) | 1) {
        let mut bytes = other.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(damaged) = opened_as("damaged", bytes.into()).await else { continue };
        match merge(&[sound.clone(), Arc::new(damaged)], &MergeOptions::of_level(1)).await {
            Err(Error::Corrupt { block, .. }) => {
                assert_eq!(block.as_ref(), "damaged");
                named += 1;
            }
            Err(error) => panic!("{error}"),
            Ok((merged, _)) => {
                let raws: Vec<_> = files.iter().map(|file| file.raw.clone()).collect();
                check_raws(&all_opened(merged.into_iter().map(|merged| merged.bytes)).await, &raws).await;
                harmless += 1;
            }
        }
    }
    // Only the magic at the start and the sums of sections as a whole are not looked at.
    assert!(named > 300 && harmless < 10, "{named} were named, {harmless} did no harm");
}
