//! Blocks of older versions are read and merged.

use std::path::Path;
use std::sync::Arc;

use afterglow_profile::{Limits, compress};
use afterglow_store::block::{Block, Input, Merge, MergeOptions, SampleTypes};

use crate::samples::opened;

/// Checks that a block holds the two profiles of tests/fixtures/blocks/README.md.
async fn check(block: &Block) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/profiles");
    let rows = block.rows().await.expect("it has rows");
    let names = ["parca-goroutine-1795481626", "profefe-heap-1795481626"];
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        let body = std::fs::read(fixtures.join(name).with_extension("pb.gz")).expect("the fixture is there");
        let raw = compress::inflate(&body, &Limits::default()).expect("it inflates");
        assert!(block.fetch(row).await.expect("it comes back") == *raw, "{name} comes back with other bytes");
    }
    for dataset in 0..names.len() {
        block.aggregate(dataset, &[dataset], SampleTypes::All).await.expect("it sums");
    }
}

#[tokio::test]
async fn blocks_of_older_versions_are_read_and_merged() {
    for version in ["v1", "v2", "v3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/blocks").join(version);
        let bytes = std::fs::read(path.with_extension("agb")).expect("the fixture is there");
        let block = opened(bytes.into()).await.expect("it opens");
        check(&block).await;
        let input = Input { block: Arc::new(block), skip: Arc::from([]) };
        for level in [1, 2] {
            let options = MergeOptions::of_level(level);
            let mut merge = Merge::begin(vec![input.clone()], options).await.expect("it can be merged");
            let merged = merge.next().await.expect("it can be merged").expect("there are profiles");
            check(&opened(merged.bytes).await.expect("it opens")).await;
        }
    }
}
