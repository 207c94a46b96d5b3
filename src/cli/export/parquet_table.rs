//! A Parquet file that is written row by row, column by column within each group of rows.

use std::fs::File;
use std::path::Path;
use std::slice::IterMut;
use std::sync::Arc;

use anyhow::Context as _;
use parquet::basic::{Compression, Type, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

/// How many rows a group has: enough to compress well, few enough to hold.
const GROUP_ROWS: usize = 1 << 18;

/// A table while it is written.
pub(super) struct Table {
    file: SerializedFileWriter<File>,
    columns: Vec<Column>,
    rows: usize,
    written: u64,
}

/// The values of a column in the group that is gathered.
struct Column {
    values: Values,
    /// How deep each value is defined and repeated, where a row may have any number of values.
    levels: Option<(Vec<i16>, Vec<i16>)>,
}

enum Values {
    Text(Vec<ByteArray>),
    Long(Vec<i64>),
    Int(Vec<i32>),
    Flag(Vec<bool>),
}

/// A row that is filled column by column, in the order of the schema.
pub(super) struct Row<'a>(IterMut<'a, Column>);

// === impl Table ===

impl Table {
    /// Makes a file of `schema`, in Parquet's notation; one that is there is replaced.
    ///
    /// # Errors
    /// Says that the file cannot be made.
    pub(super) fn create(path: &Path, schema: &str) -> anyhow::Result<Self> {
        let schema = Arc::new(parse_message_type(schema)?);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("afterglow ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::ZSTD(ZstdLevel::default()));
        let create = || -> anyhow::Result<_> {
            Ok(SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties.build()))?)
        };
        let file = create().with_context(|| format!("cannot write {}", path.display()))?;
        let columns = file.schema_descr().columns().iter().map(|column| Column {
            values: match column.physical_type() {
                Type::INT64 => Values::Long(Vec::new()),
                Type::INT32 => Values::Int(Vec::new()),
                Type::BOOLEAN => Values::Flag(Vec::new()),
                _ => Values::Text(Vec::new()),
            },
            levels: (column.max_rep_level() > 0).then(Default::default),
        });
        Ok(Self { columns: columns.collect(), file, rows: 0, written: 0 })
    }

    /// Begins a row, every column of which must be filled.
    ///
    /// # Errors
    /// Says that the group before it cannot be written.
    pub(super) fn row(&mut self) -> Result<Row<'_>> {
        if self.rows == GROUP_ROWS {
            self.write_group()?;
        }
        self.rows += 1;
        Ok(Row(self.columns.iter_mut()))
    }

    /// Writes what is left and the footer, and returns how many rows there are.
    ///
    /// # Errors
    /// Says that the file cannot be written.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.write_group()?;
        self.file.close()?;
        Ok(self.written)
    }

    fn write_group(&mut self) -> Result<()> {
        let mut group = self.file.next_row_group()?;
        for column in &mut self.columns {
            let levels = column.levels.take();
            match &mut column.values {
                Values::Text(values) => write::<ByteArrayType>(&mut group, values, levels.as_ref())?,
                Values::Long(values) => write::<Int64Type>(&mut group, values, levels.as_ref())?,
                Values::Int(values) => write::<Int32Type>(&mut group, values, levels.as_ref())?,
                Values::Flag(values) => write::<BoolType>(&mut group, values, levels.as_ref())?,
            }
            column.levels = levels.map(|_| Default::default());
        }
        group.close()?;
        self.written += std::mem::take(&mut self.rows) as u64;
        Ok(())
    }
}

/// Writes the next column of a group, and empties it.
fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &mut Vec<T::T>,
    levels: Option<&(Vec<i16>, Vec<i16>)>,
) -> Result<()> {
    let mut column = group.next_column()?.expect("there are as many columns as the schema has");
    let (definitions, repetitions) =
        levels.map(|(definitions, repetitions)| (&definitions[..], &repetitions[..])).unzip();
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    values.clear();
    column.close()
}

// === impl Row ===

impl Row<'_> {
    /// Fills a column of text.
    pub(super) fn text(mut self, text: &ByteArray) -> Self {
        match self.next() {
            Column { values: Values::Text(values), .. } => values.push(text.clone()),
            _ => unreachable!("the schema has text here"),
        }
        self
    }

    /// Fills a column of 64-bit numbers.
    pub(super) fn long(mut self, number: i64) -> Self {
        match self.next() {
            Column { values: Values::Long(values), .. } => values.push(number),
            _ => unreachable!("the schema has 64 bits here"),
        }
        self
    }

    /// Fills a column of 32-bit numbers.
    pub(super) fn int(mut self, number: i32) -> Self {
        match self.next() {
            Column { values: Values::Int(values), .. } => values.push(number),
            _ => unreachable!("the schema has 32 bits here"),
        }
        self
    }

    /// Fills a column of flags.
    pub(super) fn flag(mut self, flag: bool) -> Self {
        match self.next() {
            Column { values: Values::Flag(values), .. } => values.push(flag),
            _ => unreachable!("the schema has a flag here"),
        }
        self
    }

    /// Fills the two columns of a map.
    pub(super) fn map(mut self, entries: &[(ByteArray, ByteArray)]) -> Self {
        self.list(entries.iter().map(|(key, _)| key));
        self.list(entries.iter().map(|(_, value)| value));
        self
    }

    fn list<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t ByteArray>) {
        let Column { values: Values::Text(values), levels: Some((definitions, repetitions)) } = self.next() else {
            unreachable!("the schema has a map of texts here")
        };
        definitions.extend((0..texts.len().max(1)).map(|_| i16::from(texts.len() > 0)));
        repetitions.extend((0..texts.len().max(1)).map(|i| i16::from(i > 0)));
        values.extend(texts.cloned());
    }

    fn next(&mut self) -> &mut Column {
        self.0.next().expect("the schema has a column more")
    }
}
