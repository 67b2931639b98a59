//! Regular expressions of an adapter's configuration: `PATTERN \0 NAME`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::{BASE, within};
use pattern::Pattern;

/// The crate that it belongs to brings burn, which takes many minutes to build with instrumentation.
#[path = "../../crates/openelm-finetune/src/adapter/pattern.rs"]
mod pattern;

fuzz_target!(|text: &str| {
    let (text, name) = text.split_once('\0').unwrap_or((text, "transformer.layers.0.attn.qkv_proj"));
    within(BASE + 512 * text.len(), || {
        let Ok(pattern) = Pattern::new(text) else { return };
        let first = pattern.matches(name);
        assert_eq!(first, pattern.matches(name));
        // A text without any sign of its own means itself.
        if text.chars().all(|char| char.is_alphanumeric() || char == '_') {
            assert_eq!(first, Ok(text == name), "{text:?} over {name:?}");
        }
    });
});
