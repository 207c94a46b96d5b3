//! A merge changes where profiles lie and nothing else: real and odd profiles, merged once or again and again, come back bit for bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use afterglow_store::block::{Block, Error, Input, Merge, MergeOptions, Merged, Row, Stats};
use bytes::Bytes;

use crate::samples::{File, files, number, opened, segment_from};

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
pub(crate) async fn merge_inputs(inputs: Vec<Input>, options: &MergeOptions) -> Result<(Vec<Merged>, Stats), Error> {
    let mut merge = Merge::begin(inputs, options.clone()).await?;
    let mut merged = Vec::new();
    while let Some(block) = merge.next().await? {
        merged.push(block);
    }
    Ok((merged, merge.stats()))
}

/// Merges a level into the next, `at_once` blocks at a time.
async fn level(blocks: &[Arc<Block>], at_once: usize, options: &MergeOptions) -> Vec<Arc<Block>> {
    let mut next = Vec::new();
    for blocks in blocks.chunks(at_once) {
        let (merged, _) = merge(blocks, options).await.expect("sound blocks merge");
        next.extend(all_opened(merged.into_iter().map(|merged| merged.bytes)).await);
    }
    next
}

/// Returns the rows of all blocks by id, with what they refer to.
async fn rows(blocks: &[Arc<Block>]) -> BTreeMap<ulid::Ulid, (Arc<Block>, Row)> {
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
