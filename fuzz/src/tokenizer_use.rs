//! A tokenizer that was read, put to use.

use openelm_tokenizer::Tokenizer;

/// Texts that meet the special cases: spaces, bytes, control tokens, characters of all lengths.
pub const TEXTS: [&str; 10] = [
    "",
    " ",
    "a",
    "  ab  c\n",
    "Hello, world! 123",
    "<s>the</s> <unk>",
    "é中😀\0\u{fffd}",
    "\u{2581}a \u{2581}",
    "<0x41>",
    "aaaaaaaaaaaaaaaaaaaab",
];

/// Encodes texts and the first pieces; all ids must be of the vocabulary. `streams`: decoding ids one by one must give what decoding
/// them together does, which decoders of the `tokenizers` crate that look back cannot promise.
pub fn check(tokenizer: &Tokenizer, streams: bool) {
    let size = tokenizer.vocab_size() as u32;
    let pieces: Vec<String> = (0..size.min(40)).filter_map(|id| tokenizer.token(id).map(str::to_owned)).collect();
    for text in TEXTS.into_iter().chain(pieces.iter().map(String::as_str)).chain([pieces.concat().as_str()]) {
        for ids in [tokenizer.encode(text), tokenizer.encode_with_special(text)] {
            assert!(ids.iter().all(|id| *id < size), "{text:?} has ids beyond {size}: {ids:?}");
            let mut decoder = tokenizer.decoder();
            let mut streamed: String = ids.iter().filter_map(|id| decoder.push(*id)).collect();
            streamed += &decoder.finish();
            let whole = tokenizer.decode(&ids);
            assert!(!streams || streamed == whole, "{text:?} as {ids:?}: {streamed:?} is not {whole:?}");
        }
    }
    let _ = tokenizer.decode(&[size, u32::MAX, 0]);
    for id in 0..size.min(40) {
        let _ = (tokenizer.score(id), tokenizer.kind(id));
    }
    let _ = (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id(), tokenizer.padding_id(), tokenizer.piece_rules());
}
