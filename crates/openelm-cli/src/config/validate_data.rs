//! Numbers that make no run, in the data, the validation and the tokenizer sections.

use std::collections::HashSet;

use super::paths::is_remote;
use super::validate::{Check, at_least_one, at_most, not_negative, require};
use super::{CorpusSection, Order, Packing, RunConfig, TokenizerSection};

/// The unknown token, the beginning and the end of a text.
const SPECIAL_TOKENS: u64 = 3;

/// Checks the tokenizer, the corpora and the sequences of a run.
pub(super) fn check_data(config: &RunConfig) -> Check {
    check_tokenizer(&config.tokenizer, config.model.vocabulary())?;
    let data = &config.data;
    at_least_one("data.sequence_length", data.sequence_length)?;
    if let Some(context) = config.model.context_length() {
        require(
            data.sequence_length <= context,
            "data.sequence_length",
            format!("{} is above the model's context length ({context})", data.sequence_length),
            "shorten the sequences or raise model.max_context_length",
        )?;
    }
    at_least_one("data.document_split_words", data.document_split_words)?;
    at_least_one("data.lanes", data.lanes)?;
    at_least_one("data.shuffle_buffer", data.shuffle_buffer)?;
    at_least_one("data.prefetch", data.prefetch)?;
    // Each of these many things takes memory or a thread.
    at_most("data.sequence_length", data.sequence_length, 1 << 24)?;
    at_most("data.lanes", data.lanes, 1 << 16)?;
    at_most("data.shuffle_buffer", data.shuffle_buffer, 1 << 20)?;
    at_most("data.workers", data.workers, 1 << 16)?;
    at_most("data.prefetch", data.prefetch, 1 << 16)?;
    at_most("data.threads", data.threads, 1 << 12)?;
    let corenet = data.order == Order::Corenet;
    let whole = "leave it out, or use `order: mixed`";
    require(!corenet || data.packing == Packing::Concat, "data.packing", "does not go with order: corenet", whole)?;
    if let Some(cache) = &data.cache {
        require(!corenet, "data.cache", "does not go with order: corenet", whole)?;
        require(!cache.as_os_str().is_empty(), "data.cache", "is empty", "name a folder")?;
        check_local("data.cache", &cache.to_string_lossy())?;
    }
    if let Some(objects) = &data.object_store {
        if let Some(cache) = &objects.cache {
            require(!cache.as_os_str().is_empty(), "data.object_store.cache", "is empty", "name a folder, or leave it out")?;
            check_local("data.object_store.cache", &cache.to_string_lossy())?;
        }
        at_least_one("data.object_store.max_bytes", objects.max_bytes.unwrap_or(1))?;
        at_most("data.object_store.retries", objects.retries.unwrap_or(0), 1000)?;
    }
    check_corpora("data.corpora", &data.corpora)?;
    for (index, corpus) in data.corpora.iter().enumerate() {
        let key = format!("data.corpora[{index}].max_epochs");
        require(!corenet || corpus.max_epochs.is_none(), key, "does not go with order: corenet", whole)?;
    }
    let weighted = data.corpora.iter().any(|corpus| corpus.weight > 0.0);
    require(
        data.order == Order::Corenet || weighted,
        "data.corpora",
        "no corpus has a weight above 0",
        "give at least one corpus a positive weight",
    )?;
    match &config.validation {
        Some(validation) => check_corpora("validation.corpora", &validation.corpora),
        None => Ok(()),
    }
}

fn check_tokenizer(tokenizer: &TokenizerSection, rows: Option<u64>) -> Check {
    let hint = "give either `path` (a tokenizer that exists) or `train` (one to make)";
    match (&tokenizer.path, &tokenizer.train) {
        (None, None) => require(false, "tokenizer", "has neither `path` nor `train`", hint),
        (Some(_), Some(_)) => require(false, "tokenizer", "has both `path` and `train`", hint),
        (Some(path), None) => {
            require(!path.as_os_str().is_empty(), "tokenizer.path", "is empty", hint)?;
            check_local("tokenizer.path", &path.to_string_lossy())
        }
        (None, Some(train)) => {
            let fewest = if train.byte_fallback { 256 + SPECIAL_TOKENS } else { SPECIAL_TOKENS };
            require(
                train.vocab_size > fewest,
                "tokenizer.train.vocab_size",
                format!("is {}, but {fewest} tokens are there before the first piece of text", train.vocab_size),
                "use 1024 for a small model; OpenELM has 32000",
            )?;
            let rows = rows.unwrap_or(u64::MAX);
            require(
                train.vocab_size <= rows,
                "tokenizer.train.vocab_size",
                format!("{} is above model.vocab_size ({rows})", train.vocab_size),
                "every token needs a row of the embedding: raise model.vocab_size",
            )
        }
    }
}

fn check_local(key: &str, path: &str) -> Check {
    require(!is_remote(path), key, format!("{path} is on another machine"), "copy it here, and name the file")
}

fn check_corpora(key: &str, corpora: &[CorpusSection]) -> Check {
    require(!corpora.is_empty(), key, "names no corpus", "add at least one corpus with its files")?;
    let mut names = HashSet::new();
    for (index, corpus) in corpora.iter().enumerate() {
        let at = |field: &str| format!("{key}[{index}].{field}");
        require(!corpus.name.trim().is_empty(), at("name"), "is empty", "give the corpus a name")?;
        require(
            names.insert(corpus.name.as_str()),
            at("name"),
            format!("`{}` is the name of an earlier corpus", corpus.name),
            "give every corpus its own name",
        )?;
        require(!corpus.files.is_empty(), at("files"), "names no file", "name the corpus's files")?;
        require(!corpus.text_key.is_empty(), at("text_key"), "is empty", "name the key or column of the text")?;
        not_negative(at("weight"), corpus.weight)?;
        if let Some(limit) = corpus.max_epochs {
            at_least_one(at("max_epochs"), limit)?;
        }
        if let Some([first, end]) = corpus.file_id_range {
            require(first < end, at("file_id_range"), format!("[{first}, {end}] holds no id"), "give the first id and one past the last")?;
        }
        for (number, file) in corpus.files.iter().enumerate() {
            let key = at(&format!("files[{number}]"));
            require(!file.is_empty(), key.as_str(), "is empty", "name a file, a glob, a pattern or a URL")?;
            require(
                !file.contains("{file_id") || corpus.file_id_range.is_some(),
                key,
                "has {file_id}, but the corpus has no file_id_range",
                "add `file_id_range: [first, one past the last]`",
            )?;
        }
    }
    Ok(())
}
