//! Blocks of older versions, and one of this, are read and merged.

use std::path::Path;
use std::sync::Arc;

use afterglow_profile::{Limits, compress};
use afterglow_store::block::{Block, Input, Merge, MergeOptions, SampleTypes};

use crate::samples::{number, opened};

/// Returns the profiles that a block holds as tests/fixtures/blocks/README.md says, by the numbers of its rows, or in their order where
/// they came in with ids of a server's.
fn expected(version: &str) -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let raw = |name: &str| {
        let body = std::fs::read(fixtures.join(name).with_extension("pb.gz")).expect("the fixture is there");
        compress::inflate(&body, &Limits::default()).expect("it inflates").into_owned()
    };
    match version {
        "v1" | "v2" | "v3" => {
            ["profiles/parca-goroutine-1795481626", "profiles/profefe-heap-1795481626"].map(raw).to_vec()
        }
        _ => {
            let again = vec![raw("profiles/profefe-goroutine-1795481626"); 20];
            [["producers/python/a-all", "producers/python/b-all"].map(raw).to_vec(), again].concat()
        }
    }
}

/// Checks that a block holds these profiles, and can sum them.
async fn check(block: &Block, expected: &[Vec<u8>], is_numbered: bool) {
    let rows = block.rows().await.expect("it has rows");
    assert_eq!(rows.len(), expected.len());
    for (place, row) in rows.iter().enumerate() {
        let of = if is_numbered { number(row) } else { place };
        assert!(block.fetch(row).await.expect("it comes back") == expected[of], "{of} comes back with other bytes");
    }
    for (at, dataset) in block.toc().datasets().iter().enumerate() {
        let rows: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].dataset as usize == at).collect();
        assert_eq!(rows.len(), dataset.rows().len());
        block.aggregate(at, &rows, SampleTypes::All).await.expect("it sums");
    }
}

#[tokio::test]
async fn blocks_of_all_versions_are_read_and_merged() {
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/blocks").join(version);
        let bytes = std::fs::read(path.with_extension("agb")).expect("the fixture is there");
        let block = opened(bytes.into()).await.expect("it opens");
        let (expected, is_numbered) = (expected(version), version >= "v4");
        check(&block, &expected, is_numbered).await;
        let input = Input { block: Arc::new(block), skip: Arc::from([]) };
        for level in [1, 2] {
            let options = MergeOptions::of_level(level);
            let mut merge = Merge::begin(vec![input.clone()], options).await.expect("it can be merged");
            let merged = merge.next().await.expect("it can be merged").expect("there are profiles");
            check(&opened(merged.bytes).await.expect("it opens"), &expected, is_numbered).await;
        }
    }
}
