//! Weights of other programs with bytes changed or metadata that lie: an error or other weights, never a panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use damaged_text::{damaged, damages};
use openelm_checkpoint::{CheckpointError, Weights};
use openelm_formats::{Gguf, GgufArray, GgufValue, GgufWriter, TensorSource};
use proptest::prelude::*;
use reference_values::reference;

fn put(path: &Path, place: u64, byte: u8) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn changed_bytes_of_a_header() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("tiny.gguf");
    let original = std::fs::read(folder.join("gguf/tiny-f32.gguf")).unwrap();
    std::fs::write(&path, &original).unwrap();
    // The header's first part with the keys, and its last with the list of tensors: this file's data begin at 50 016 or before.
    let tensors = original.windows(19).position(|bytes| bytes == b"blk.0.attn_k_norm.w").unwrap();
    let mut state = 7_u32;
    for round in 0..600 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = (state >> 8) as usize % 2600 + if round % 2 == 0 { 0 } else { tensors - 8 };
        put(&path, at as u64, state as u8);
        if let Ok(weights) = Weights::open(&path) {
            weights.config().validate().unwrap();
        }
        put(&path, at as u64, original[at]);
    }
    Weights::open(&path).unwrap();
}

/// The tiny model's file with other metadata.
fn with(folder: &Path, path: &Path, key: &str, value: GgufValue) -> Result<Weights, CheckpointError> {
    let file = Gguf::open(&folder.join("gguf/tiny-f32.gguf")).unwrap();
    let mut metadata = file.metadata().to_vec();
    metadata.iter_mut().find(|(known, _)| known == key).unwrap().1 = value;
    let mut writer = GgufWriter::create(path, &metadata, file.infos()).unwrap();
    for info in file.infos() {
        writer.write(&info.name, &file.bytes(&info.name).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    Weights::open(path)
}

#[test]
fn lying_metadata() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("tiny.gguf");
    let refused = |key: &str, value| with(&folder, &path, key, value).unwrap_err().to_string();
    let list = |values: &[i32]| GgufValue::Array(GgufArray::I32(values.to_vec()));
    assert!(refused("general.architecture", GgufValue::String("llama".into())).contains("architecture \"llama\""));
    assert!(refused("openelm.block_count", GgufValue::U32(6)).contains("block_count is 6, but the tensors have 5"));
    assert!(refused("openelm.context_length", GgufValue::U32(0)).contains("max_context_length"));
    assert!(refused("openelm.context_length", GgufValue::String("x".into())).contains("no natural number"));
    assert!(refused("openelm.rope.freq_base", GgufValue::F32(f32::NAN)).contains("rope_freq_constant"));
    assert!(refused("openelm.attention.head_count", list(&[8, 12])).contains("head_count is not what the tensors have"));
    assert!(refused("openelm.feed_forward_length", list(&[-1, 192, 288, 384, 512])).contains("feed_forward_length"));
    // A tokenizer that cannot be used is none; the weights can.
    let weights = with(&folder, &path, "tokenizer.ggml.scores", GgufValue::Array(GgufArray::F32(vec![0.0]))).unwrap();
    assert!(weights.tokenizer_model().is_none());
}

#[test]
fn lying_quantisation() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let original = folder.join("mlx/5m-4bit");
    std::fs::copy(original.join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(original.join("config.json")).unwrap()).unwrap();
    let refused = |section: serde_json::Value| {
        let mut config = config.clone();
        config["quantization"] = section;
        std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
        Weights::open(place.path()).unwrap_err().to_string()
    };
    assert!(refused(serde_json::json!({"bits": 7, "group_size": 64})).contains("no such layout"));
    assert!(refused(serde_json::json!({"bits": 4, "group_size": 0})).contains("no such layout"));
    assert!(refused(serde_json::json!({"bits": 4, "group_size": 64, "mode": "mxfp4"})).contains("\"mxfp4\": it is not affine"));
    assert!(refused(serde_json::json!({"bits": 4})).contains("bits or group_size is missing"));
    let own = |module: &str, settings: serde_json::Value| refused(serde_json::json!({"bits": 4, "group_size": 64, module: settings}));
    let module = "transformer.layers.0.ffn.proj_1";
    assert!(own("lm_head", serde_json::json!({})).contains("\"lm_head\", {}: bits or group_size is missing"));
    assert!(own("lm_head", serde_json::json!({"bits": 4, "group_size": 64})).contains("\"lm_head\" is quantised, which has no weight"));
    assert!(own(module, serde_json::json!({"bits": 4, "group_size": 64, "rank": 1})).contains("an unknown key \"rank\""));
    assert!(own(module, serde_json::json!({"bits": 8, "group_size": 64})).contains("do not fit its scales"));
    assert!(own(module, serde_json::json!(false)).contains("not quantised by config.json"));
    assert!(own(module, serde_json::json!(4)).contains("bits or group_size is missing"));
    assert!(refused(serde_json::json!({"bits": 8, "group_size": 64})).contains("do not fit its scales"));
    assert!(refused(serde_json::json!({"bits": 4, "group_size": 32})).contains("do not fit its scales"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_configurations(quantised in any::<bool>(), damages in damages()) {
        let Some(folder) = reference() else { return Ok(()) };
        let original = folder.join(if quantised { "mlx/5m-4bit" } else { "hf-tiny" });
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(original.join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
        let text = damaged(&std::fs::read_to_string(original.join("config.json")).unwrap(), &damages);
        std::fs::write(place.path().join("config.json"), &text).unwrap();
        let begin = Instant::now();
        match Weights::open(place.path()) {
            // What still reads has a configuration that fits its tensors.
            Ok(weights) => prop_assert!(weights.config().validate().is_ok(), "{text}"),
            Err(error) => prop_assert!(error.to_string().contains(&place.path().display().to_string()), "{error}\n{text}"),
        }
        prop_assert!(begin.elapsed() < Duration::from_secs(2), "{:?} for\n{text}", begin.elapsed());
    }
}
