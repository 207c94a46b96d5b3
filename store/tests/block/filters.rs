//! Filters of functions: what a service has is never denied, most of what it has not is, and a damaged filter denies nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use afterglow_store::block::{Block, MergeOptions, Options, SegmentWriter};

use crate::merge::{all_opened, merge};
use crate::samples::{File, add, decoded, files, meta, opened, segment};

/// A field that pprof does not know, so that a profile is kept as it was sent.
const UNKNOWN_FIELD: [u8; 3] = [0xf8, 0x07, 1];

/// Returns the names of the functions of a profile, as they are shown.
fn functions(raw: &[u8]) -> BTreeSet<String> {
    let profile = decoded(raw);
    let names =
        profile.functions.iter().map(|function| String::from_utf8_lossy(profile.string(function.name)).into_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// Returns the block of a level that all these files make.
async fn block_of(files: &[File], level: u8) -> Arc<Block> {
    let segments = all_opened(files.chunks(16).map(|files| segment(files).bytes)).await;
    let (mut merged, _) = merge(&segments, &MergeOptions::of_level(level)).await.expect("sound blocks merge");
    // Files are of several days; the largest block is of most of them.
    merged.sort_by_key(|merged| merged.summary.rows);
    let bytes = merged.pop().expect("there are profiles").bytes;
    Arc::new(opened(bytes).await.expect("a fresh block opens"))
}

#[tokio::test]
async fn real_functions_are_found_and_most_others_are_not() {
    let files = files();
    let names: BTreeSet<String> = files.iter().flat_map(|file| functions(&file.raw)).collect();
    let block = block_of(&files, 2).await;
    let (mut asked, mut denied, mut had) = (0, 0, 0);
    for (dataset, index) in block.toc().datasets().iter().zip(0..) {
        let mut of_dataset = BTreeSet::new();
        for row in &block.rows().await.expect("it has rows")[dataset.rows()] {
            of_dataset.extend(functions(&block.fetch(row).await.expect("it comes back")));
        }
        for name in &names {
            let may_have = block.may_have_function(index, name).await;
            assert!(may_have || !of_dataset.contains(name), "{name} is in {}", dataset.service());
            asked += 1;
            denied += usize::from(!may_have);
            had += usize::from(of_dataset.contains(name));
        }
    }
    // Types of one service share a filter, so some names are had by another type alone.
    assert!(denied * 2 > asked - had, "{denied} of {asked} names are denied, of which {had} are there");
    assert!(block.check_filters().await.expect("fresh filters are right") > 1);
}

#[tokio::test]
async fn a_damaged_filter_denies_nothing_and_is_named() {
    let files: Vec<_> = files().into_iter().filter(|file| file.gzip_bytes < 6_000).take(8).collect();
    let block = block_of(&files, 2).await;
    let section =
        block.toc().sections().iter().find(|section| section.kind() == 5).expect("level 2 has filters").range();
    assert!(!block.may_have_function(0, "absent").await);
    let sound = {
        let segments = all_opened(files.chunks(16).map(|files| segment(files).bytes)).await;
        let (mut merged, _) = merge(&segments, &MergeOptions::of_level(2)).await.expect("sound blocks merge");
        merged.sort_by_key(|merged| merged.summary.rows);
        merged.pop().expect("there are profiles").bytes
    };
    for at in section.clone().step_by(1 + (section.end - section.start) as usize / 100) {
        let mut bytes = sound.to_vec();
        bytes[at as usize] ^= 1 << (at % 8);
        let block = opened(bytes.into()).await.expect("nothing else is damaged");
        assert!(block.may_have_function(0, "absent").await);
        assert!(block.check_filters().await.is_err_and(|error| error.to_string().contains("filters of functions")));
    }
}

#[tokio::test]
async fn blobs_brackets_and_lower_levels_are_never_denied() {
    let file = files().into_iter().find(|file| file.is_go()).expect("there are profiles of Go");
    let write = |raw: &[u8]| {
        let mut writer = SegmentWriter::new(Options::default());
        let added = add(&mut writer, meta(1, "a", "cpu", &decoded(raw)), raw);
        (writer.finish().expect("a segment can be finished").bytes, added.columns)
    };
    let (columns, is_columns) = write(&file.raw);
    let (blob, is_no_blob) = write(&[&file.raw[..], &UNKNOWN_FIELD].concat());
    assert!(is_columns && !is_no_blob);
    for (bytes, level, name, may_have) in [
        (&columns, 2, "absent", false),
        (&columns, 2, "[absent]", true),
        (&columns, 2, "<unknown>", true),
        (&columns, 1, "absent", true),
        (&blob, 2, "absent", true),
    ] {
        let segments = all_opened([bytes.clone()]).await;
        let (merged, _) = merge(&segments, &MergeOptions::of_level(level)).await.expect("sound blocks merge");
        let block = opened(merged[0].bytes.clone()).await.expect("a fresh block opens");
        assert_eq!(block.may_have_function(0, name).await, may_have, "{name} at level {level}");
    }
    assert!(all_opened([columns]).await[0].may_have_function(0, "absent").await);
}
