//! A damaged block is reported or answers as if it were whole; it never answers otherwise, and never panics.

use bytes::Bytes;

use afterglow_store::block::{Error, Finished, SampleTypes};

use crate::samples::{File, files, number, opened, segment};

/// A small block of real profiles of several types, and the profiles.
fn block() -> (Vec<File>, Finished) {
    let mut files = files();
    files.retain(|file| file.gzip_bytes < 6_000);
    files.truncate(8);
    let finished = segment(&files);
    (files, finished)
}

/// Asks a block everything, and returns how many questions met damage.
async fn ask_everything(bytes: Bytes, files: &[File]) -> usize {
    let report = |error: Error| assert!(error.is_corrupt() || matches!(error, Error::TooNew { .. }), "{error}");
    let block = match opened(bytes).await {
        Ok(block) => block,
        Err(error) => {
            report(error);
            return 1;
        }
    };
    let rows = match block.rows().await {
        Ok(rows) => rows,
        Err(error) => {
            report(error);
            return 1;
        }
    };
    let mut damaged = 0;
    for row in rows.iter() {
        match block.fetch(row).await {
            Ok(raw) => assert!(raw == files[number(row)].raw, "damage changed an answer"),
            Err(error) => {
                report(error);
                damaged += 1;
            }
        }
    }
    for (dataset, index) in block.toc().datasets().iter().zip(0..) {
        let of_dataset: Vec<_> = dataset.rows().collect();
        match block.aggregate(index, &of_dataset, SampleTypes::All).await {
            Ok(aggregates) => {
                let mut totals = vec![0i128; 64];
                for aggregate in &aggregates {
                    let profile = aggregate.profile();
                    let types = profile.sample_types.len();
                    profile.samples.values.iter().enumerate().for_each(|(i, &v)| totals[i % types] += i128::from(v));
                }
                let mut expected = vec![0i128; 64];
                for row in &of_dataset {
                    rows[*row].totals.iter().zip(&mut expected).for_each(|(&t, sum)| *sum += i128::from(t));
                }
                assert_eq!(totals, expected, "damage changed a sum");
            }
            Err(error) => {
                report(error);
                damaged += 1;
            }
        }
    }
    damaged
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_or_does_no_harm() {
    let (files, finished) = block();
    assert_eq!(ask_everything(finished.bytes.clone(), &files).await, 0);
    // Only the magic at the start is read by nobody here.
    const UNREAD_BYTES: usize = 4;
    let bits = finished.bytes.len() * 8;
    // An odd step visits other bits of each byte and covers all parts of the block.
    let step = (bits / 8_000) | 1;
    for bit in (0..bits).step_by(step).chain(bits - 64..bits) {
        let mut bytes = finished.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = ask_everything(bytes.into(), &files).await;
        assert!(damaged > 0 || bit / 8 < UNREAD_BYTES, "nobody noticed bit {bit} of {bits}");
    }
}

#[tokio::test]
async fn a_block_cut_short_is_noticed() {
    let (files, finished) = block();
    let len = finished.bytes.len();
    for len in (0..len).step_by(len / 200).chain(len - 20..len) {
        assert!(ask_everything(finished.bytes.slice(..len), &files).await > 0, "nobody noticed a cut at {len}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_block_are_refused() {
    for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1\xff\xff\xff\x7fPAR1", &[0; 100_000]] {
        assert!(opened(Bytes::from_static(bytes)).await.is_err_and(|error| error.is_corrupt()));
    }
}
