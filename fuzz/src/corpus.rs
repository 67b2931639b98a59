//! A shard read in every way there is; the ways are compared.

use std::path::Path;

use openelm_data::{CorpusConfig, DataConfig, DataError, Document, documents, read_rows, verify};

/// The texts of a shard, or the first error.
pub fn check(path: &Path) -> Result<Vec<Document>, DataError> {
    let name = path.to_string_lossy().into_owned();
    let mut config = DataConfig::new(vec![CorpusConfig::new("fuzz", vec![name.clone()])], 8);
    config.threads = 1;
    let found: Result<Vec<_>, _> = documents(&config.corpora, &config.object_store).collect();
    let reports = verify(&config).expect("the shard is there");
    let report = reports.first().expect("there is one shard");
    match &found {
        Ok(texts) => {
            assert!(report.is_sound(), "read without an error, but {report:?}");
            assert_eq!(report.documents, texts.len() as u64);
        }
        Err(error) => {
            assert!(!report.is_sound(), "{error}, but found sound");
            let message = error.to_string();
            assert!(message.contains(&name) && message.contains("\nhint: "), "{message}");
        }
    }
    let mut rows = Vec::new();
    let whole = read_rows::<DataError>("fuzz", &[name.clone()], |_, row| {
        rows.push(row);
        Ok(())
    });
    // Rows are read more strictly in some respects and cover more columns, but where both succeed the texts are the same.
    if let (Ok(texts), Ok(())) = (&found, whole) {
        assert_eq!(texts.len(), rows.len());
        for (text, row) in texts.iter().zip(&rows) {
            assert_eq!(row.fields.get("text").and_then(|text| text.as_str()), Some(text.text.as_str()));
            assert_eq!(row.place, text.place);
        }
    }
    found
}
