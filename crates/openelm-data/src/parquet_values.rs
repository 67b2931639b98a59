//! The rows of a parquet file as JSON objects: texts, numbers, lists and structures of them.
//!
//! What must stay true: an absent value is null; a column of another kind is an error that names it, not a gap.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, StructArray};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use crate::error::{DataError, FOOTER};
use crate::parquet_rows::guarded;
use crate::rows::Row;
use crate::shard_reader::Place;

/// Gives `each` every row of the file that was opened at `path`.
pub(crate) fn read_parquet<E: From<DataError>>(path: &Path, file: File, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
    // The embedded Arrow schema could ask for dictionaries; the parquet types alone give plain strings.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let damaged = |place: String| move |reason| DataError::Parquet { path: path.to_owned(), place, reason };
    let metadata = guarded(|| ArrowReaderMetadata::load(&file, options)).map_err(damaged(FOOTER.into()))?;
    for group in 0..metadata.metadata().num_row_groups() {
        let at = |row| Place::Row { group, row };
        let file = file.try_clone().map_err(|error| DataError::io(path, "reading it", error))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone()).with_row_groups(vec![group]);
        let mut batches = guarded(|| builder.build()).map_err(damaged(at(0).to_string()))?;
        let mut row = 0;
        while let Some(batch) = guarded(|| batches.next().transpose()).map_err(damaged(at(row).to_string()))? {
            let columns = StructArray::from(batch);
            for index in 0..columns.len() {
                let fields =
                    object(&columns, index).map_err(|(column, found)| DataError::ColumnType { path: path.to_owned(), column, found })?;
                each(Row { fields, place: at(row) })?;
                row += 1;
            }
        }
    }
    Ok(())
}

/// The error of a column: its name and its type.
type Unknown = (String, String);

fn object(columns: &StructArray, index: usize) -> Result<Map<String, Value>, Unknown> {
    let mut fields = Map::new();
    for (name, column) in columns.column_names().into_iter().zip(columns.columns()) {
        let found = value(column, index).map_err(|(inner, found)| {
            let column = if inner.is_empty() { name.to_owned() } else { format!("{name}.{inner}") };
            (column, found)
        })?;
        fields.insert(name.to_owned(), found);
    }
    Ok(fields)
}

fn value(array: &ArrayRef, index: usize) -> Result<Value, Unknown> {
    if array.is_null(index) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($($kind:ty),*) => {
            $(if let Some(numbers) = array.as_primitive_opt::<$kind>() {
                return Ok(Value::from(numbers.value(index)));
            })*
        };
    }
    number!(Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type, Float32Type, Float64Type);
    let list = |elements: ArrayRef| (0..elements.len()).map(|at| value(&elements, at)).collect::<Result<Vec<_>, _>>().map(Value::from);
    if let Some(texts) = array.as_string_opt::<i32>() {
        Ok(Value::from(texts.value(index)))
    } else if let Some(texts) = array.as_string_opt::<i64>() {
        Ok(Value::from(texts.value(index)))
    } else if let Some(flags) = array.as_boolean_opt() {
        Ok(Value::from(flags.value(index)))
    } else if let Some(lists) = array.as_list_opt::<i32>() {
        list(lists.value(index))
    } else if let Some(lists) = array.as_list_opt::<i64>() {
        list(lists.value(index))
    } else if let Some(columns) = array.as_struct_opt() {
        object(columns, index).map(Value::Object)
    } else {
        Err((String::new(), array.data_type().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
    use arrow_array::{Float64Array, RecordBatch, StringArray};
    use arrow_schema::{DataType, Field, Fields, Schema};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn conversations_come_out_of_nested_columns() {
        let turn = Fields::from(vec![Field::new("content", DataType::Utf8, true), Field::new("role", DataType::Utf8, true)]);
        let mut lists = ListBuilder::new(StructBuilder::from_fields(turn.clone(), 2));
        for texts in [&["hi", "ho"][..], &[]] {
            for text in texts {
                for (at, part) in [*text, "user"].into_iter().enumerate() {
                    lists.values().field_builder::<StringBuilder>(at).unwrap().append_value(part);
                }
                lists.values().append(true);
            }
            lists.append(true);
        }
        let schema = Arc::new(Schema::new(vec![
            Field::new("prompt", DataType::Utf8, true),
            Field::new_list("chosen", Field::new("item", DataType::Struct(turn), true), false),
            Field::new("score", DataType::Float64, false),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("hi"), None])),
            Arc::new(lists.finish()),
            Arc::new(Float64Array::from(vec![0.5, 2.0])),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let mut found = Vec::new();
        read_parquet(&path, File::open(&path).unwrap(), |row| {
            found.push(format!("{}: {}", row.place, Value::Object(row.fields)));
            Ok::<_, DataError>(())
        })
        .unwrap();
        let first = r#"{"prompt":"hi","chosen":[{"content":"hi","role":"user"},{"content":"ho","role":"user"}],"score":0.5}"#;
        let second = r#"{"prompt":null,"chosen":[],"score":2.0}"#;
        assert_eq!(found, [format!("row group 0, row 0: {first}"), format!("row group 0, row 1: {second}")]);
        std::fs::write(&path, "PAR1").unwrap();
        assert!(read_parquet(&path, File::open(&path).unwrap(), |_| Ok::<_, DataError>(())).unwrap_err().to_string().contains("footer"));
    }
}
