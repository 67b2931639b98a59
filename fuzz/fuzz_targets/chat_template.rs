//! A chat template, which comes with the weights: parsed and rendered, within its fuel and a bound on memory.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::within;
use openelm_tokenizer::{ChatMessage, ChatTemplate, Tokenizer};

/// A step of the template's fuel pays for 64 bytes of text.
const MEMORY: usize = 256 << 20;

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    const MODEL: &[u8] = include_bytes!("../../crates/openelm-tokenizer/tests/fixtures/models/bpe-plain.model");
    TOKENIZER.get_or_init(|| Tokenizer::from_model_bytes(MODEL, Path::new("bpe-plain.model")).expect("the model is sound"))
}

fuzz_target!(|source: &str| {
    let messages = [("system", ""), ("user", "Hello, \u{e9}"), ("assistant", " hi\n"), ("user", "and { this }")];
    let messages = messages.map(|(role, content)| ChatMessage::new(role, content));
    within(MEMORY, || {
        let Ok(template) = ChatTemplate::new(source, "of the input") else { return };
        assert_eq!(template.source(), source);
        for prompt in [false, true] {
            if let Ok(ids) = template.encode(&messages, tokenizer(), prompt) {
                assert!(ids.iter().all(|id| (*id as usize) < tokenizer().vocab_size()));
            }
        }
    });
});
