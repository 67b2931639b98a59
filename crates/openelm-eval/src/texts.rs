//! Whole documents to score: the texts of shards of any layout.

use openelm_data::{CorpusConfig, ObjectStoreConfig, documents};

use crate::error::EvalError;

/// The documents of `files` (paths and globs), without the first `skip`, at most `limit`. No files, no texts.
///
/// # Errors
/// When a shard cannot be read, or the files hold no document.
pub fn read_texts(files: &[String], text_key: &str, skip: usize, limit: Option<usize>) -> Result<Vec<String>, EvalError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let mut corpus = CorpusConfig::new("text", files.to_vec());
    text_key.clone_into(&mut corpus.text_key);
    let texts =
        documents(&[corpus], &ObjectStoreConfig::default()).skip(skip).take(limit.unwrap_or(usize::MAX)).map(|document| Ok(document?.text));
    let texts: Vec<String> = texts.collect::<Result<_, EvalError>>()?;
    match texts.is_empty() {
        true => Err(EvalError::Settings {
            reason: format!("{} hold(s) no document", files.join(", ")),
            hint: "give shards with text, and a limit of at least 1".into(),
        }),
        false => Ok(texts),
    }
}
