//! Shards of parquet: footer, pages, the text column, and whole rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::{allow_caught_panics, file};

#[path = "../src/corpus.rs"]
mod corpus;

fuzz_target!(|bytes: &[u8]| {
    // A panic of the decoder over a damaged file becomes an error of the reader.
    allow_caught_panics();
    let path = file("a.parquet", bytes);
    let _ = corpus::check(&path);
});
