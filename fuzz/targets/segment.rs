//! Several profiles in a segment: each comes back bit for bit, by columns or as it was sent, and their sums are those of a merge.

#![no_main]

use afterglow_fuzz::{check_fetches, limits, opened, run, segment, sent};
use afterglow_profile::decode::decode;
use afterglow_profile::merge::Merger;
use afterglow_store::block::SampleTypes;
use libfuzzer_sys::fuzz_target;

const PROFILES_MAX: usize = 6;

fuzz_target!(|input: &[u8]| {
    let all = sent(input, PROFILES_MAX);
    if all.is_empty() {
        return;
    }
    run(async {
        let block = opened(segment(&all)).await;
        check_fetches(&block, &all).await;
        let rows = block.rows().await.expect("it has rows");
        for dataset in 0..block.toc().datasets().len() {
            let of: Vec<_> = block.toc().datasets()[dataset].rows().collect();
            let (mut summed, mut one_by_one) = (Merger::new(), Merger::new());
            let refused = block
                .aggregate(dataset, &of, SampleTypes::All)
                .await
                .expect("it can be summed")
                .iter()
                .filter(|sums| summed.add(&sums.profile()).is_err())
                .count();
            for &row in &of {
                let raw = &all.iter().find(|sent| sent.meta.id == rows[row].id).expect("it was sent").raw;
                _ = one_by_one.add(&decode(raw, &limits()).expect("it was decoded before"));
            }
            // Which of profiles that do not go together come in depends on their order.
            if refused == 0 {
                let (summed, one_by_one) = (summed.finish(), one_by_one.finish());
                if summed.warnings().is_empty() && one_by_one.warnings().is_empty() {
                    assert_eq!(summed.profile().totals(), one_by_one.profile().totals());
                }
            }
        }
    });
});
