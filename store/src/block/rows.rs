//! The rows of a block: one a profile, in Parquet, sorted by service, type, series, time and id.
//!
//! Other programs read the rows with any Parquet library; we read them with the `parquet` crate too, but never trust the Parquet
//! footer before its checksum was checked (see [`super::toc`]). Columns are found by their path, so that later versions may add some.
//!
//! Statistics are kept for what a query prunes by (id, service, type, time), not for the rest: in a segment of few rows they would
//! take more room than the values.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use afterglow_profile::Labels;
use bytes::{Buf, Bytes};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};
use ulid::Ulid;

use super::toc::{Dataset, SampleType, Toc};

/// What a block says of one profile without its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The id of the profile.
    pub id: Ulid,
    /// An index into [`Toc::datasets`](super::Toc::datasets).
    pub dataset: u32,
    /// An index into [`Dataset::series`](super::Dataset::series).
    pub series: u32,
    /// An index into [`Dataset::sample_types`](super::Dataset::sample_types): what the totals count.
    pub sample_types: u32,
    /// When it was taken, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration_nanos: i64,
    /// The sum of each sample type's values, saturating.
    pub totals: Box<[i64]>,
    /// The length of its protobuf bytes.
    pub raw_bytes: u64,
    /// How many samples it has.
    pub samples: u64,
    /// The SHA-256 of its protobuf bytes.
    pub sha256: [u8; 32],
    /// Whether it is kept as columns; else its protobuf bytes are kept as they were sent.
    pub columns: bool,
    pub(crate) chunk: u32,
    pub(crate) position: u32,
}

/// A row and the names that stand beside it for other readers.
#[derive(Clone, Copy, Debug)]
struct Named<'a> {
    row: &'a Row,
    of: &'a Dataset,
}

impl Named<'_> {
    fn labels(&self) -> &Labels {
        &self.of.series[self.row.series as usize]
    }

    fn sample_types(&self) -> &[SampleType] {
        &self.of.sample_types[self.row.sample_types as usize]
    }
}

static SCHEMA: LazyLock<TypePtr> = LazyLock::new(|| {
    let schema = parse_message_type(
        "message profile {
            required binary id (UTF8);
            required binary service (UTF8);
            required binary type (UTF8);
            required int64 time (TIMESTAMP(NANOS,true));
            required int64 duration;
            required group labels (MAP) {
                repeated group key_value { required binary key (UTF8); required binary value (UTF8); }
            }
            required group totals (LIST) {
                repeated group list {
                    required group element {
                        required binary type (UTF8);
                        required binary unit (UTF8);
                        required int64 value;
                    }
                }
            }
            required int64 samples;
            required int64 raw_bytes;
            required fixed_len_byte_array(32) sha256;
        }",
    );
    Arc::new(schema.expect("the schema is well formed"))
});

/// Returns how the columns are written: compressed with zstd's `level`, or not at all.
fn properties(level: Option<i32>) -> Result<WriterPropertiesPtr> {
    let compression = match level {
        Some(level) => Compression::ZSTD(ZstdLevel::try_new(level)?),
        None => Compression::UNCOMPRESSED,
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("afterglow ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_write_row_group_number_distinct_values(false);
    for pruned_by in ["id", "service", "type", "time"] {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(pruned_by), EnabledStatistics::Chunk);
    }
    for repeats in ["service", "type"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(repeats), true);
    }
    // Digests are random, they do not compress.
    properties = properties.set_column_compression(ColumnPath::from("sha256"), Compression::UNCOMPRESSED);
    for counted in ["time", "duration", "samples", "raw_bytes"] {
        properties = properties.set_column_encoding(ColumnPath::from(counted), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(Arc::new(properties.build()))
}

/// Starts a Parquet file of rows, which will be compressed with zstd's `level`, or not at all.
pub(crate) fn begin(level: Option<i32>) -> Result<SerializedFileWriter<Vec<u8>>> {
    SerializedFileWriter::new(Vec::new(), SCHEMA.clone(), properties(level)?)
}

/// Writes `rows`, of the datasets of `toc`, as one row group.
pub(crate) fn write(file: &mut SerializedFileWriter<Vec<u8>>, rows: &[Row], toc: &Toc) -> Result<()> {
    let named = |row| Named { row, of: &toc.datasets[row.dataset as usize] };
    let rows = &rows.iter().map(named).collect::<Vec<_>>()[..];
    let mut group = file.next_row_group()?;
    let group_ref = &mut group;
    let text = |text: &str| ByteArray::from(text);
    flat::<ByteArrayType>(group_ref, rows, |r| text(&r.row.id.to_string()))?;
    flat::<ByteArrayType>(group_ref, rows, |r| text(&r.of.service))?;
    flat::<ByteArrayType>(group_ref, rows, |r| text(r.of.profile_type.as_str()))?;
    flat::<Int64Type>(group_ref, rows, |r| r.row.time_nanos)?;
    flat::<Int64Type>(group_ref, rows, |r| r.row.duration_nanos)?;
    nested::<ByteArrayType>(group_ref, rows, |r| r.labels().iter().map(|(name, _)| text(name)).collect())?;
    nested::<ByteArrayType>(group_ref, rows, |r| r.labels().iter().map(|(_, value)| text(value)).collect())?;
    nested::<ByteArrayType>(group_ref, rows, |r| r.sample_types().iter().map(|t| text(&t.kind)).collect())?;
    nested::<ByteArrayType>(group_ref, rows, |r| r.sample_types().iter().map(|t| text(&t.unit)).collect())?;
    nested::<Int64Type>(group_ref, rows, |r| r.row.totals.to_vec())?;
    flat::<Int64Type>(group_ref, rows, |r| r.row.samples as i64)?;
    flat::<Int64Type>(group_ref, rows, |r| r.row.raw_bytes as i64)?;
    flat::<FixedLenByteArrayType>(group_ref, rows, |r| FixedLenByteArray::from(r.row.sha256.to_vec()))?;
    group.close().map(drop)
}

/// Writes the next column, which has one value a row.
fn flat<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    rows: &[Named<'_>],
    value: impl Fn(&Named<'_>) -> T::T,
) -> Result<()> {
    let values: Vec<T::T> = rows.iter().map(value).collect();
    column::<T>(group, &values, None)
}

/// Writes the next column, which has any number of values a row.
fn nested<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    rows: &[Named<'_>],
    values_of: impl Fn(&Named<'_>) -> Vec<T::T>,
) -> Result<()> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let of_row = values_of(row);
        definitions.extend((0..of_row.len().max(1)).map(|_| i16::from(!of_row.is_empty())));
        repetitions.extend((0..of_row.len().max(1)).map(|i| i16::from(i > 0)));
        values.extend(of_row);
    }
    column::<T>(group, &values, Some((&definitions, &repetitions)))
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<()> {
    let mut column = group.next_column()?.expect("as many columns are written as the schema has");
    let (definitions, repetitions) = levels.unzip();
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    column.close()
}

/// A part of an object that stands for the whole: what lies outside cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) bytes: Bytes,
    /// Where the bytes start in the object.
    pub(crate) start: u64,
}

impl Window {
    /// Returns a range of the object, if the window has it.
    pub(crate) fn slice(&self, range: Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = Length::len(self).checked_sub(start).ok_or(OUTSIDE)?;
        self.get_bytes(start, length as usize).map(Buf::reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64).ok_or(OUTSIDE)?;
        self.slice(start..end).ok_or(OUTSIDE)
    }
}

const OUTSIDE: ParquetError = ParquetError::EOF(String::new());

/// Reads all rows; what a row refers to stands in the table of contents and is left for the caller to set.
pub(crate) fn read(metadata: &ParquetMetaData, window: &Window) -> Result<Vec<Row>> {
    let window = Arc::new(window.clone());
    let mut rows = Vec::new();
    for group in metadata.row_groups() {
        read_group(group, &window, &mut rows)?;
    }
    Ok(rows)
}

fn read_group(group: &RowGroupMetaData, window: &Arc<Window>, out: &mut Vec<Row>) -> Result<()> {
    let ids = read_flat::<ByteArrayType>(group, window, "id")?;
    let times = read_flat::<Int64Type>(group, window, "time")?;
    let durations = read_flat::<Int64Type>(group, window, "duration")?;
    let samples = read_flat::<Int64Type>(group, window, "samples")?;
    let raw_bytes = read_flat::<Int64Type>(group, window, "raw_bytes")?;
    let digests = read_flat::<FixedLenByteArrayType>(group, window, "sha256")?;
    let mut totals = read_nested::<Int64Type>(group, window, "totals.list.element.value")?.into_iter();
    for (i, id) in ids.iter().enumerate() {
        let id = std::str::from_utf8(id.data()).ok().and_then(|id| Ulid::from_string(id).ok());
        let number = |n: i64| u64::try_from(n).map_err(|_| ParquetError::General("a count is negative".into()));
        out.push(Row {
            id: id.ok_or_else(|| ParquetError::General("an id is no ulid".into()))?,
            dataset: 0,
            series: 0,
            sample_types: 0,
            time_nanos: times[i],
            duration_nanos: durations[i],
            totals: totals.next().unwrap_or_default().into(),
            raw_bytes: number(raw_bytes[i])?,
            samples: number(samples[i])?,
            sha256: digests[i].data().try_into().map_err(|_| ParquetError::General("a digest is too short".into()))?,
            columns: false,
            chunk: 0,
            position: 0,
        });
    }
    Ok(())
}

type Levels = Vec<i16>;

fn read_column<T: DataType>(
    group: &RowGroupMetaData,
    window: &Arc<Window>,
    path: &str,
) -> Result<(Vec<T::T>, Levels, Levels)> {
    let missing = || ParquetError::General(format!("there is no column {path} of the right type"));
    let column = group.columns().iter().find(|column| column.column_path().string() == path).ok_or_else(missing)?;
    if column.column_type() != T::get_physical_type() {
        return Err(missing());
    }
    let rows = usize::try_from(group.num_rows())?;
    let pages = SerializedPageReader::new(window.clone(), column, rows, None)?;
    let mut reader = get_typed_column_reader::<T>(get_column_reader(column.column_descr_ptr(), Box::new(pages)));
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(rows, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
    if records != rows { Err(missing()) } else { Ok((values, definitions, repetitions)) }
}

fn read_flat<T: DataType>(group: &RowGroupMetaData, window: &Arc<Window>, path: &str) -> Result<Vec<T::T>> {
    let (values, _, _) = read_column::<T>(group, window, path)?;
    if values.len() as i64 == group.num_rows() {
        Ok(values)
    } else {
        Err(ParquetError::General(format!("column {path} has another number of values than rows")))
    }
}

fn read_nested<T: DataType>(group: &RowGroupMetaData, window: &Arc<Window>, path: &str) -> Result<Vec<Vec<T::T>>> {
    let (values, definitions, repetitions) = read_column::<T>(group, window, path)?;
    let mut values = values.into_iter();
    let mut rows: Vec<Vec<T::T>> = Vec::new();
    for (definition, repetition) in definitions.into_iter().zip(repetitions) {
        if repetition == 0 {
            rows.push(Vec::new());
        }
        if definition > 0 {
            let row = rows.last_mut().ok_or_else(|| ParquetError::General("a list has no start".into()))?;
            row.extend(values.next());
        }
    }
    Ok(rows)
}
