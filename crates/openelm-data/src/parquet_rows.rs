//! The text column of a parquet file, row group by row group; no other column is read.
//!
//! A text column is a top-level byte array: UTF-8 by its annotation, or without one and then checked here. A panic of the decoder
//! over a damaged file becomes an error like any other.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as PhysicalType;

use crate::error::{DataError, FOOTER};
use crate::shard::Shard;
use crate::shard_reader::Place;

/// Rows decoded at a time. Documents are large; more rows would only hold more of them in memory.
const BATCH_ROWS: usize = 32;

pub(crate) struct ParquetRows {
    path: PathBuf,
    column: Arc<str>,
    file: File,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// The row group that `rows` reads, or the next one.
    group: usize,
    /// The next row in `group`.
    row: u64,
    rows: Option<ParquetRecordBatchReader>,
    batch: Option<ArrayRef>,
    /// The next row of `batch`.
    in_batch: usize,
}

impl ParquetRows {
    pub fn open(shard: &Shard) -> Result<Self, DataError> {
        let path = shard.path.clone();
        let file = shard.open_file()?;
        // The embedded Arrow schema could ask for dictionaries; the parquet types alone give plain strings.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options)).map_err(|reason| DataError::Parquet {
            path: path.clone(),
            place: FOOTER.into(),
            reason,
        })?;
        let schema = metadata.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields();
        let Some(index) = fields.iter().position(|field| field.name() == &*shard.text_key) else {
            let columns: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            return Err(DataError::NoColumn { path, column: shard.text_key.to_string(), columns: columns.join(", ") });
        };
        let field = &fields[index];
        let text = field.is_primitive()
            && field.get_physical_type() == PhysicalType::BYTE_ARRAY
            && !(field.get_basic_info().has_repetition() && field.get_basic_info().repetition() == parquet::basic::Repetition::REPEATED);
        if !text {
            let found = if field.is_primitive() { format!("{:?}", field.get_physical_type()) } else { "a nested column".into() };
            return Err(DataError::ColumnType { path, column: shard.text_key.to_string(), found });
        }
        let mask = ProjectionMask::roots(schema, [index]);
        Ok(Self { path, column: shard.text_key.clone(), file, metadata, mask, group: 0, row: 0, rows: None, batch: None, in_batch: 0 })
    }

    /// The number of the document that `next` gives.
    pub fn document(&self) -> u64 {
        let before = (0..self.group.min(self.groups())).map(|group| self.metadata.metadata().row_group(group).num_rows().max(0) as u64);
        before.sum::<u64>() + self.row
    }

    /// Documents in the file, from its footer.
    pub fn documents(&self) -> u64 {
        self.metadata.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64).sum()
    }

    /// Passes over the row at which an error was met.
    pub fn pass_row(&mut self) {
        self.in_batch += 1;
        self.row += 1;
    }

    /// Passes over the rest of the row group at which an error was met.
    pub fn pass_group(&mut self) {
        self.enter(self.group + 1, 0);
    }

    pub fn skip(&mut self, count: u64) -> Result<(), DataError> {
        let mut left = count;
        while left > 0 && self.group < self.groups() {
            let in_group = self.group_rows() - self.row;
            if left >= in_group {
                left -= in_group;
                self.enter(self.group + 1, 0);
            } else if let Some(batch) = self.batch.as_ref().map(|batch| (batch.len() - self.in_batch) as u64).filter(|rows| *rows > 0) {
                let step = left.min(batch);
                self.in_batch += step as usize;
                self.row += step;
                left -= step;
            } else if self.rows.is_none() {
                // Not decoding yet: start at the row itself.
                self.row += left;
                left = 0;
            } else if !self.next_batch()? {
                return Err(self.short());
            }
        }
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<(String, Place)>, DataError> {
        loop {
            if self.group >= self.groups() {
                return Ok(None);
            }
            if self.row >= self.group_rows() {
                self.enter(self.group + 1, 0);
                continue;
            }
            if self.batch.as_ref().is_some_and(|batch| self.in_batch < batch.len()) {
                return self.take().map(Some);
            }
            if !self.next_batch()? {
                return Err(self.short());
            }
        }
    }

    fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn group_rows(&self) -> u64 {
        self.metadata.metadata().row_group(self.group).num_rows().max(0) as u64
    }

    fn enter(&mut self, group: usize, row: u64) {
        self.group = group;
        self.row = row;
        self.rows = None;
        self.batch = None;
        self.in_batch = 0;
    }

    fn place(&self) -> Place {
        Place::Row { group: self.group, row: self.row }
    }

    fn broken(&self, reason: impl ToString) -> DataError {
        let reason = reason.to_string();
        if reason.to_ascii_lowercase().contains("utf-8") || reason.to_ascii_lowercase().contains("utf8") {
            return DataError::NotUtf8 { path: self.path.clone(), place: self.place(), byte: 0, undecoded: true };
        }
        DataError::Parquet { path: self.path.clone(), place: self.place().to_string(), reason }
    }

    fn short(&self) -> DataError {
        self.broken("the row group has fewer rows than the footer says")
    }

    /// Decodes the next rows of the group. False at its end.
    fn next_batch(&mut self) -> Result<bool, DataError> {
        if self.rows.is_none() {
            let file = self.file.try_clone().map_err(|error| DataError::io(self.path.clone(), "reading it", error))?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(self.mask.clone())
                .with_row_groups(vec![self.group])
                .with_offset(self.row as usize)
                .with_batch_size(BATCH_ROWS);
            self.rows = Some(guarded(|| builder.build()).map_err(|reason| self.broken(reason))?);
        }
        let next = match &mut self.rows {
            Some(rows) => guarded(|| rows.next().transpose()),
            None => Ok(None),
        };
        let Some(batch) = next.map_err(|reason| self.broken(reason))? else { return Ok(false) };
        self.batch = batch.columns().first().cloned();
        self.in_batch = 0;
        Ok(true)
    }

    /// The text at the current row.
    fn take(&mut self) -> Result<(String, Place), DataError> {
        let place = self.place();
        let index = self.in_batch;
        let not_text = |found| DataError::NotText { path: self.path.clone(), place, key: self.column.to_string(), found };
        let array = self.batch.as_ref().ok_or_else(|| not_text("nothing"))?;
        if array.is_null(index) {
            return Err(not_text("null"));
        }
        let any = array.as_any();
        let bytes: &[u8] = if let Some(texts) = any.downcast_ref::<StringArray>() {
            texts.value(index).as_bytes()
        } else if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
            texts.value(index).as_bytes()
        } else if let Some(texts) = any.downcast_ref::<StringViewArray>() {
            texts.value(index).as_bytes()
        } else if let Some(texts) = any.downcast_ref::<BinaryArray>() {
            texts.value(index)
        } else if let Some(texts) = any.downcast_ref::<LargeBinaryArray>() {
            texts.value(index)
        } else if let Some(texts) = any.downcast_ref::<BinaryViewArray>() {
            texts.value(index)
        } else {
            return Err(DataError::ColumnType {
                path: self.path.clone(),
                column: self.column.to_string(),
                found: array.data_type().to_string(),
            });
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|error| DataError::NotUtf8 { path: self.path.clone(), place, byte: error.valid_up_to(), undecoded: false })?
            .to_owned();
        self.in_batch += 1;
        self.row += 1;
        Ok((text, place))
    }
}

/// Calls the decoder; its error or its panic as text.
pub(crate) fn guarded<T, E: ToString>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the decoder gave up on damaged data".into()),
    }
}
