//! A `tokenizer.json`, read by this project's encoder or by the `tokenizers` crate, and put to use.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::{allow_caught_panics, folder};
use openelm_tokenizer::Tokenizer;

#[path = "../src/tokenizer_use.rs"]
mod tokenizer_use;

fuzz_target!(|bytes: &[u8]| {
    // The crate panics on files that contradict themselves.
    allow_caught_panics();
    let Ok(tokenizer) = Tokenizer::from_json_bytes(bytes, &folder().join("tokenizer.json")) else { return };
    tokenizer_use::check(&tokenizer, false);
});
