//! Several profiles in two segments that are merged into blocks of level 1, and those into blocks of level 2: each comes back bit for bit,
//! once.

#![no_main]

use std::sync::Arc;

use afterglow_fuzz::{Sent, check_fetches, opened, run, segment, sent};
use afterglow_store::block::{Block, Input, Merge, MergeOptions};
use libfuzzer_sys::fuzz_target;

const PROFILES_MAX: usize = 6;

async fn compacted(inputs: Vec<Block>, level: u8, all: &[Sent]) -> Vec<Block> {
    let inputs = inputs.into_iter().map(|block| Input { block: Arc::new(block), skip: Arc::from([]) }).collect();
    let mut merge = Merge::begin(inputs, MergeOptions::of_level(level)).await.expect("small blocks can be merged");
    let (mut blocks, mut rows) = (Vec::new(), 0);
    while let Some(merged) = merge.next().await.expect("sound blocks are merged") {
        let block = opened(merged.bytes).await;
        check_fetches(&block, all).await;
        rows += block.toc().profiles();
        blocks.push(block);
    }
    assert_eq!(rows, all.len());
    blocks
}

fuzz_target!(|input: &[u8]| {
    let all = sent(input, PROFILES_MAX);
    if all.len() < 2 {
        return;
    }
    run(async {
        let (before, after) = all.split_at(all.len() / 2);
        let segments = vec![opened(segment(before)).await, opened(segment(after)).await];
        let blocks = compacted(segments, 1, &all).await;
        compacted(blocks, 2, &all).await;
    });
});
