//! The rows are Parquet for anybody.

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::samples::{files, number, opened, segment};

#[tokio::test]
async fn any_parquet_reader_reads_the_rows() {
    let files = files();
    let finished = segment(&files);
    let block = opened(finished.bytes.clone()).await.expect("a fresh block opens");
    let rows = block.rows().await.expect("a fresh block has rows");
    let reader = SerializedFileReader::new(finished.bytes).expect("a block is a parquet file");
    let mut read = 0;
    let records = reader.get_row_iter(None).expect("the rows can be read");
    for (record, row) in records.zip(rows.iter()) {
        let record = record.expect("a row can be read");
        let fields: std::collections::HashMap<_, _> =
            record.get_column_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let (service, profile_type) = files[number(row)].names();
        assert_eq!(fields["id"], Field::Str(row.id.to_string()));
        assert_eq!(fields["service"], Field::Str(service.clone()));
        assert_eq!(fields["type"], Field::Str(profile_type));
        assert_eq!(fields["raw_bytes"], Field::Long(row.raw_bytes as i64));
        assert_eq!(fields["samples"], Field::Long(row.samples as i64));
        assert_eq!(fields["sha256"], Field::Bytes(row.sha256.to_vec().into()));
        let Field::MapInternal(labels) = &fields["labels"] else { panic!("labels are a map") };
        assert!(labels.entries().contains(&(Field::Str("service".into()), Field::Str(service))));
        let Field::ListInternal(totals) = &fields["totals"] else { panic!("totals are a list") };
        assert_eq!(totals.len(), row.totals.len());
        read += 1;
    }
    assert_eq!(read, files.len());
}

#[tokio::test]
async fn a_segment_of_nothing_is_a_block() {
    let finished = segment(&[]);
    let block = opened(finished.bytes.clone()).await.expect("an empty block opens");
    assert!(block.rows().await.expect("it has no rows").is_empty());
    assert!(SerializedFileReader::new(Bytes::clone(&finished.bytes)).is_ok());
}
