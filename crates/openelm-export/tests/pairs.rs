//! Every format into every other: the same model comes out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use openelm_checkpoint::{WeightKind, Weights};
use openelm_export::{
    CardFacts, ExportDtype, ExportSettings, GgufType, MlxSettings, export_corenet, export_gguf, export_hugging_face, export_mlx,
};
use openelm_formats::{DType, FormatError, Safetensors, TensorInfo, TensorSource, TorchFile, decode_f32, write_sharded};
use openelm_tokenizer::Tokenizer;
use reference_values::{reference, shared};
use support::{assert_same, tokenizer_of};

#[derive(Clone, Copy, Debug)]
enum Kind {
    HuggingFace,
    Gguf,
    Mlx,
    CoreNet,
}

const KINDS: [Kind; 4] = [Kind::HuggingFace, Kind::Gguf, Kind::Mlx, Kind::CoreNet];

/// Writes `weights` unrounded in the folder `place`.
fn write(kind: Kind, weights: &Weights, tokenizer: &Tokenizer, place: &Path, name: &str) -> PathBuf {
    let (dtype, max_shard_bytes) = (Some(ExportDtype::F32), 3_000_000);
    match kind {
        Kind::HuggingFace => {
            let out = place.join(name);
            let settings = ExportSettings { dtype, max_shard_bytes };
            export_hugging_face(weights, Some(tokenizer), &CardFacts::default(), &settings, &out).unwrap();
            out
        }
        Kind::Mlx => {
            let out = place.join(name);
            let settings = MlxSettings { dtype, bits: None, max_shard_bytes };
            export_mlx(weights, Some(tokenizer), &CardFacts::default(), &settings, &out).unwrap();
            out
        }
        Kind::Gguf => {
            let out = place.join(format!("{name}.gguf"));
            export_gguf(weights, Some(tokenizer), "model", GgufType::F32, &out).unwrap();
            out
        }
        Kind::CoreNet => {
            let out = place.join(format!("{name}.pt"));
            export_corenet(weights, dtype, &out).unwrap();
            out
        }
    }
}

#[test]
fn every_pair_is_exact() {
    let (Some(shared), Some(folder)) = (shared(), reference()) else { return };
    let own = Tokenizer::load(&shared.join("tokenizers/spm-2k")).unwrap();
    for model in ["hf-tiny", "hf-5m"] {
        let place = tempfile::tempdir().unwrap();
        let original = Weights::open(&folder.join(model)).unwrap();
        for first in KINDS {
            let written = Weights::open(&write(first, &original, &own, place.path(), &format!("{first:?}"))).unwrap();
            assert_same(&original, &written, &format!("{model} as {first:?}"));
            // A .pt file has no tokenizer; the others bring their own.
            let tokenizer = tokenizer_of(&written).unwrap_or_else(|| own.clone());
            assert_eq!(tokenizer.fingerprint(), own.fingerprint(), "{first:?}");
            for second in KINDS {
                let again = write(second, &written, &tokenizer, place.path(), &format!("{first:?}-{second:?}"));
                assert_same(&written, &Weights::open(&again).unwrap(), &format!("{model} as {first:?} as {second:?}"));
            }
        }
    }
}

#[test]
fn mlx_tensors_are_mlx_lms() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::open(&folder.join("hf-5m")).unwrap();
    let out = place.path().join("5m-4bit");
    let settings = MlxSettings { dtype: None, bits: Some(4), max_shard_bytes: u64::MAX };
    export_mlx(&weights, tokenizer_of(&weights).as_ref(), &CardFacts::default(), &settings, &out).unwrap();
    let (own, theirs) = (Safetensors::open(&out).unwrap(), Safetensors::open(&folder.join("mlx/5m-4bit")).unwrap());
    assert_eq!(own.infos().len(), theirs.infos().len());
    for info in theirs.infos() {
        assert_eq!(own.info(&info.name), Some(info));
        assert!(own.bytes(&info.name).unwrap() == theirs.bytes(&info.name).unwrap(), "{}", info.name);
    }
    let (own, theirs) = (Weights::open(&out).unwrap(), Weights::open(&folder.join("mlx/5m-4bit")).unwrap());
    assert_eq!(theirs.kind(), WeightKind::Mlx);
    assert_same(&own, &theirs, "4 bits");
}

#[test]
fn mlx_levels_are_kept_in_blocks_of_the_same_values() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::open(&folder.join("hf-5m")).unwrap();
    for (dtype, bits, expected) in [
        (ExportDtype::F32, 4, DType::Affine4),
        (ExportDtype::Bf16, 4, DType::Q4_1),
        (ExportDtype::F16, 4, DType::Q4_1),
        (ExportDtype::Bf16, 8, DType::Affine8),
        (ExportDtype::F32, 3, DType::Affine4),
        (ExportDtype::Bf16, 5, DType::Q5_1),
        (ExportDtype::F16, 6, DType::Affine8),
    ] {
        let out = place.path().join(format!("{dtype:?}-{bits}"));
        let settings = MlxSettings { dtype: Some(dtype), bits: Some(bits), max_shard_bytes: u64::MAX };
        export_mlx(&weights, tokenizer_of(&weights).as_ref(), &CardFacts::default(), &settings, &out).unwrap();
        let written = Weights::open(&out).unwrap();
        for info in openelm_model::OpenElm::infos_of(weights.config()).unwrap() {
            let [(part, bytes)] = &written.parts(&info).unwrap()[..] else { panic!("{} in parts", info.name) };
            assert_eq!((&part.shape, part.dtype == expected), (&info.shape, info.shape.len() == 2), "{}", info.name);
            assert_eq!(decode_f32(bytes, part.dtype).unwrap(), written.values(&info).unwrap(), "{dtype:?}, {bits} bits, {}", info.name);
        }
    }
}

#[test]
fn modules_may_have_bits_of_their_own() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::open(&folder.join("hf-5m")).unwrap();
    // Of each layer the module `proj_2` has 6 bits, and `out_proj` none; all others have 3.
    let [three, six, plain] = [Some(3), Some(6), None].map(|bits| {
        let out = place.path().join(format!("{bits:?}"));
        let settings = MlxSettings { dtype: None, bits, max_shard_bytes: u64::MAX };
        export_mlx(&weights, tokenizer_of(&weights).as_ref(), &CardFacts::default(), &settings, &out).unwrap();
        out
    });
    let files = [&three, &six, &plain].map(|folder| Safetensors::open(folder).unwrap());
    let file_of = |name: &str| &files[if name.contains("proj_2") { 1 } else { 2 * usize::from(name.contains("out_proj")) }];
    let names = files[0].infos().iter().filter(|info| file_of(&info.name).info(&info.name).is_some());
    let mut infos: Vec<_> = names.map(|info| file_of(&info.name).info(&info.name).unwrap().clone()).collect();
    infos.sort_by_key(|info| info.dtype != DType::U32);
    let mixed = place.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    let bytes = |info: &TensorInfo| Ok::<_, FormatError>(file_of(&info.name).bytes(&info.name)?.into_owned());
    write_sharded(&mixed, &infos, u64::MAX, &Default::default(), bytes).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(three.join("config.json")).unwrap()).unwrap();
    for layer in 0..weights.config().layers().unwrap().len() {
        config["quantization"][format!("transformer.layers.{layer}.ffn.proj_2")] = serde_json::json!({"group_size": 64, "bits": 6});
        config["quantization"][format!("transformer.layers.{layer}.attn.out_proj")] = false.into();
        config["quantization"][format!("transformer.layers.{layer}.attn.qkv_proj")] = true.into();
    }
    std::fs::write(mixed.join("config.json"), config.to_string()).unwrap();
    let [mixed, three, six] = [mixed, three, six].map(|folder| Weights::open(&folder).unwrap());
    for info in openelm_model::OpenElm::infos_of(weights.config()).unwrap() {
        let source = match &info.name {
            name if name.contains("proj_2") => &six,
            name if name.contains("out_proj") => &weights,
            _ => &three,
        };
        let values = mixed.values(&info).unwrap();
        assert_eq!(values, source.values(&info).unwrap(), "{}", info.name);
        let parts: Vec<f32> = mixed.parts(&info).unwrap().iter().flat_map(|(part, bytes)| decode_f32(bytes, part.dtype).unwrap()).collect();
        assert_eq!(parts, values, "{} in its own bits", info.name);
    }
}

#[test]
fn eight_bits_and_bf16_read_back_near() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    // Rows of 96 and 288 elements are no whole groups of 64 and stay plain.
    let weights = Weights::open(&folder.join("hf-tiny")).unwrap();
    let out = place.path().join("tiny-8bit");
    let settings = MlxSettings { dtype: Some(ExportDtype::Bf16), bits: Some(8), max_shard_bytes: 1_000_000 };
    export_mlx(&weights, tokenizer_of(&weights).as_ref(), &CardFacts::default(), &settings, &out).unwrap();
    let back = Weights::open(&out).unwrap();
    for info in openelm_model::OpenElm::infos_of(weights.config()).unwrap() {
        let (values, read) = (weights.values(&info).unwrap(), back.values(&info).unwrap());
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let worst = values.iter().zip(&read).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        // A level of 8 bits over at most twice the largest value, and scales and biases of 8 significant bits.
        assert!(worst < largest * 0.02, "{}: {worst} of {largest}", info.name);
    }
}

#[test]
fn corenet_files_have_corenets_order() {
    let Some(folder) = reference() else { return };
    let place = tempfile::tempdir().unwrap();
    let theirs = folder.join("corenet-run/checkpoint_last.pt");
    let out = place.path().join("checkpoint_last.pt");
    export_corenet(&Weights::open(&theirs).unwrap(), None, &out).unwrap();
    let open = |path: &Path| TorchFile::open(path).unwrap().state_dict().unwrap();
    let (own, theirs) = (open(&out), open(&theirs));
    assert_eq!(own.infos(), theirs.infos());
    for info in theirs.infos() {
        assert_eq!(own.bytes(&info.name).unwrap(), theirs.bytes(&info.name).unwrap(), "{}", info.name);
    }
}
