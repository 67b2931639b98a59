//! Shards of JSON lines: the first byte says whether plain, gzip or zstd, the rest is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::file;

#[path = "../src/corpus.rs"]
mod corpus;

const NAMES: [&str; 3] = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"];

fuzz_target!(|bytes: &[u8]| {
    let Some((layout, bytes)) = bytes.split_first() else { return };
    let layout = usize::from(*layout) % NAMES.len();
    let path = file(NAMES[layout], bytes);
    let found = corpus::check(&path);
    // A text of a plain file stands in it: nothing makes it longer.
    if let Ok(texts) = found.as_ref()
        && layout == 0
    {
        assert!(texts.iter().map(|text| text.text.len()).sum::<usize>() <= bytes.len());
    }
});
