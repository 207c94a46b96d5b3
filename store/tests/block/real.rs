//! Every real profile at hand comes back bit for bit, however many share a segment.

use crate::samples::{File, files, number, opened, segment};

/// Checks that each of `files` comes back from one segment, and returns how many were kept as columns.
async fn check(files: &[File]) -> usize {
    let finished = segment(files);
    assert_eq!(finished.profiles, files.len());
    let block = opened(finished.bytes.clone()).await.expect("a fresh block opens");
    let rows = block.rows().await.expect("a fresh block has rows");
    assert_eq!(rows.len(), files.len());
    assert_eq!(block.toc().profiles(), files.len());
    let mut seen = vec![false; files.len()];
    for row in rows.iter() {
        let file = &files[number(row)];
        assert!(!std::mem::replace(&mut seen[number(row)], true), "each profile has one row");
        let raw = block.fetch(row).await.unwrap_or_else(|error| panic!("{}: {error}", file.path.display()));
        assert!(raw == file.raw, "{} comes back with other bytes", file.path.display());
        assert_eq!(row.raw_bytes, file.raw.len() as u64);
        let profile = crate::samples::decoded(&file.raw);
        assert_eq!(*row.totals, *profile.totals().0);
        assert_eq!(row.samples, profile.samples.len() as u64);
        assert_eq!(row.time_nanos, profile.time_nanos);
        let dataset = &block.toc().datasets()[row.dataset as usize];
        let (service, profile_type) = file.names();
        assert_eq!((dataset.service(), dataset.profile_type().as_str()), (&*service, &*profile_type));
        assert_eq!(dataset.series()[row.series as usize].service(), service);
        assert!(dataset.time_nanos().contains(&row.time_nanos));
        let kinds = dataset.sample_types()[row.sample_types as usize].iter().map(|t| t.kind.as_bytes().to_vec());
        assert!(kinds.eq(profile.sample_types.iter().map(|t| profile.string(t.kind).to_vec())));
    }
    assert_eq!(finished.columns, rows.iter().filter(|row| row.columns).count());
    finished.columns
}

#[tokio::test]
async fn all_profiles_come_back_from_one_segment() {
    check(&files()).await;
}

#[tokio::test]
async fn all_profiles_come_back_from_segments_of_sixteen() {
    for files in files().chunks(16) {
        check(files).await;
    }
}

#[tokio::test]
async fn all_profiles_come_back_from_segments_of_one() {
    for file in files().chunks(1) {
        let columns = check(file).await;
        if file[0].is_go() {
            assert_eq!(columns, 1, "{} is kept as it was sent", file[0].path.display());
        }
    }
}

#[test]
fn a_segment_is_the_same_whenever_it_is_written() {
    let files = files();
    assert_eq!(segment(&files).bytes, segment(&files).bytes);
}

#[test]
fn a_segment_is_much_smaller_than_what_was_sent() {
    let files = files();
    let gzip: usize = files.iter().map(|file| file.gzip_bytes).sum();
    let stored = segment(&files).bytes.len();
    // The fixtures alone hardly repeat and take 37 %; a fleet takes far less, and without shared tables it would be 70 %.
    assert!(stored * 2 < gzip, "{stored} bytes are stored of {gzip} bytes of gzip");
}
