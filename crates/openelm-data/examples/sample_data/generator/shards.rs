//! Documents into files, each as its layout has it on disk, and the same bytes every time.
//!
//! Metadata is made up and constant, or follows from the text. Nothing tells the time or the machine: gzip headers have no
//! date, parquet footers a constant writer.

use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field};
use flate2::{Compression, GzBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::document::{Document, Genre};
use super::error::SampleError;
use super::plan::{Layout, Shard};
use super::unicode::decomposed;

/// 2022-01-17 10:00:00 UTC in milliseconds.
const CRAWLED: i64 = 1_642_413_600_000;
const WEB_GROUP: usize = 64;
const PILE_GROUP: usize = 50;

/// The bytes of a shard. `first` is the number of its first document within the corpus.
pub fn pack(shard: &Shard, corpus: &str, documents: &[Document], first: u64) -> Result<Vec<u8>, SampleError> {
    let lines = |object: &dyn Fn(&Document, u64) -> Value| -> Vec<String> {
        documents.iter().zip(first..).map(|(document, index)| format!("{}\n", object(document, index))).collect()
    };
    match shard.layout {
        Layout::RefinedWeb { decomposed } => refined_web(shard, documents, first, decomposed),
        Layout::Pile => pile(shard, documents),
        Layout::PileOriginal => {
            let text = lines(&|document, _| json!({"text": document.text, "meta": {"pile_set_name": pile_set(document.genre)}})).concat();
            zstd::encode_all(text.as_bytes(), 19).map_err(|error| SampleError::pack(shard.path, "zstd", error))
        }
        Layout::RedPajama => {
            let subset = corpus.rsplit('/').next().unwrap_or(corpus);
            Ok(lines(&|document, index| json!({"text": document.text, "meta": red_pajama_meta(subset, document, index)}))
                .concat()
                .into_bytes())
        }
        Layout::Dolma { source, members } => {
            let lines = lines(&|document, index| {
                json!({
                    "id": fingerprint(&document.text),
                    "text": document.text,
                    "source": source,
                    "added": "2023-04-02T18:44:52.021Z",
                    "created": "2020-01-01T00:00:00.000Z",
                    "metadata": {"title": title(document.genre, index)},
                })
            });
            gzip(shard, &lines, members)
        }
        Layout::Validation => Ok(lines(&|document, index| {
            let bits = (document.bits * 1000.0).round() / 1000.0;
            json!({"text": document.text, "meta": {"title": title(document.genre, index), "genre": document.genre.name(), "bits": bits}})
        })
        .concat()
        .into_bytes()),
    }
}

fn title(genre: Genre, index: u64) -> String {
    format!("{}-{index}", genre.name())
}

fn address(genre: Genre, index: u64) -> String {
    format!("https://example.org/veyra/{}/{index}", genre.name())
}

/// 40 hexadecimal digits that depend on the text alone.
fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

fn pile_set(genre: Genre) -> &'static str {
    match genre {
        Genre::Story | Genre::Blog => "Pile-CC",
        Genre::Chapter => "Gutenberg (PG-19)",
        Genre::Article => "Wikipedia (en)",
        Genre::Questions => "StackExchange",
        Genre::Sums => "DM Mathematics",
        Genre::Notes => "ArXiv",
        Genre::Code => "Github",
    }
}

fn red_pajama_meta(subset: &str, document: &Document, index: u64) -> Value {
    let url = address(document.genre, index);
    match subset {
        "book" => json!({"short_book_title": title(document.genre, index), "publication_date": 1900 + index % 100}),
        "stackexchange" => json!({
            "language": "en", "url": url, "timestamp": "2023-03-29T00:00:00", "source": "stackexchange",
            "question_score": (document.text.len() % 40).to_string(),
        }),
        "wikipedia" => json!({"title": title(document.genre, index), "url": url, "language": "en", "timestamp": "20230320"}),
        "arxiv" => json!({
            "timestamp": "2013-08-01T00:00:00", "yymm": "1308", "arxiv_id": format!("1308.{index:05}"), "language": "en", "url": url,
        }),
        "github" => {
            let lengths: Vec<usize> = document.text.lines().map(|line| line.chars().count()).collect();
            let characters = document.text.chars().count().max(1);
            let alphanumeric = document.text.chars().filter(|letter| letter.is_alphanumeric()).count();
            json!({
                "content_hash": fingerprint(&document.text), "timestamp": "", "source": "github", "line_count": lengths.len(),
                "max_line_length": lengths.iter().max().unwrap_or(&0),
                "avg_line_length": lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64,
                "alnum_prop": alphanumeric as f64 / characters as f64,
            })
        }
        _ => json!({"timestamp": "2019-04-25T12:57:54Z", "url": url, "language": "en", "source": "c4"}),
    }
}

fn gzip(shard: &Shard, lines: &[String], members: usize) -> Result<Vec<u8>, SampleError> {
    let mut packed = Vec::new();
    for part in lines.chunks(lines.len().div_ceil(members.max(1)).max(1)) {
        // No date, and "unknown" as the operating system.
        let mut member = GzBuilder::new().mtime(0).operating_system(255).write(packed, Compression::best());
        member.write_all(part.concat().as_bytes()).map_err(|error| SampleError::pack(shard.path, "gzip", error))?;
        packed = member.finish().map_err(|error| SampleError::pack(shard.path, "gzip", error))?;
    }
    Ok(packed)
}

fn pile(shard: &Shard, documents: &[Document]) -> Result<Vec<u8>, SampleError> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(documents.iter().map(|document| &document.text)));
    let level = ZstdLevel::try_new(19).map_err(|error| SampleError::pack(shard.path, "parquet", error))?;
    parquet(shard, vec![("text", texts)], PILE_GROUP, ParquetCompression::ZSTD(level))
}

fn refined_web(shard: &Shard, documents: &[Document], first: u64, apart: bool) -> Result<Vec<u8>, SampleError> {
    let all = |value: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(documents.iter().map(|_| value))) };
    let urls: Vec<String> = documents.iter().zip(first..).map(|(document, index)| address(document.genre, index)).collect();
    let contents = documents.iter().map(|document| if apart { decomposed(&document.text) } else { document.text.clone() });
    let element = |data: DataType| Arc::new(Field::new("element", data, true));
    let inner = ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8));
    let mut images = ListBuilder::new(inner).with_field(element(DataType::List(element(DataType::Utf8))));
    for (at, url) in urls.iter().enumerate() {
        // Every second page has a picture.
        if at % 2 == 0 {
            images.values().values().append_value(format!("{url}/a.png"));
            images.values().values().append_value("a picture");
            images.values().append(true);
        }
        images.append(true);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("content", Arc::new(StringArray::from_iter_values(contents))),
        ("url", Arc::new(StringArray::from_iter_values(&urls))),
        ("timestamp", Arc::new(TimestampMillisecondArray::from_iter_values(documents.iter().map(|_| CRAWLED)))),
        ("dump", all("CC-MAIN-2022-05")),
        ("segment", all("1642320300533.72")),
        ("image_urls", Arc::new(images.finish())),
    ];
    parquet(shard, columns, WEB_GROUP, ParquetCompression::SNAPPY)
}

fn parquet(shard: &Shard, columns: Vec<(&str, ArrayRef)>, group: usize, compression: ParquetCompression) -> Result<Vec<u8>, SampleError> {
    let fail = |reason: String| SampleError::pack(shard.path, "parquet", reason);
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|error| fail(error.to_string()))?;
    let properties = WriterProperties::builder()
        .set_created_by("sample_data".to_string())
        .set_compression(compression)
        // Dictionaries and statistics of whole documents would only store them again.
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(|error| fail(error.to_string()))?;
    writer.write(&batch).map_err(|error| fail(error.to_string()))?;
    writer.close().map_err(|error| fail(error.to_string()))?;
    Ok(bytes)
}
