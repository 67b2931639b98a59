//! GGUF: header, metadata the tokenizer in it, list of tensors; all tensors read; written again and read again, they are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelm_formats::{Gguf, GgufWriter, TensorSource};
use openelm_fuzz::{BASE, file, folder, read_all, within};
use openelm_tokenizer::Tokenizer;

/// The crate that it belongs to brings burn, which takes many minutes to build with instrumentation.
#[path = "../../crates/openelm-checkpoint/src/gguf_tokenizer.rs"]
mod gguf_tokenizer;
#[path = "../src/tokenizer_use.rs"]
mod tokenizer_use;

/// The writer pads to the file's alignment, which may be 2 GiB.
const LARGEST_ALIGNMENT: u64 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let path = file("a.gguf", bytes);
    // An empty string of a list takes 8 bytes of the file and 24 of memory.
    let Ok(gguf) = within(BASE + 64 * bytes.len(), || Gguf::open(&path)) else { return };
    read_all(&gguf);
    if let Some(model) = gguf_tokenizer::sentencepiece_of(&gguf)
        && let Ok(tokenizer) = Tokenizer::from_model_bytes(&model, &path)
    {
        tokenizer_use::check(&tokenizer, true);
    }
    if gguf.get("general.alignment").and_then(|value| value.as_u64()).is_some_and(|alignment| alignment > LARGEST_ALIGNMENT) {
        return;
    }
    for (key, value) in gguf.metadata() {
        assert!(gguf.get(key).is_some());
        let _ = (value.as_u64(), value.as_f64(), value.as_bool(), value.as_str(), value.as_strings(), value.as_f32s(), value.as_u64s());
    }
    let copy = folder().join("b.gguf");
    let mut writer = GgufWriter::create(&copy, gguf.metadata(), gguf.infos()).expect("what was read can be written");
    for info in gguf.infos() {
        writer.write(&info.name, &gguf.bytes(&info.name).expect("it is listed")).expect("it is as long as it says");
    }
    writer.finish().expect("all were written");
    let again = Gguf::open(&copy).expect("what was written can be read");
    // As text, in which NaN equals NaN.
    assert_eq!(format!("{:?}", gguf.metadata()), format!("{:?}", again.metadata()));
    assert_eq!(gguf.infos(), again.infos());
    for info in gguf.infos() {
        assert_eq!(gguf.bytes(&info.name).expect("it is listed"), again.bytes(&info.name).expect("it is listed"));
    }
});
