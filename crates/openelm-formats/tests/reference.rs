//! Files that other programs wrote, read here.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use openelm_formats::{DType, Gguf, GgufWriter, PickleValue, Safetensors, TensorSource, TorchFile, encode_f32};

/// A file of the reference folder; `None`, with a line that says so, where the folder is absent.
fn reference(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference"));
    if folder.is_dir() {
        return Some(folder.join(name));
    }
    assert!(std::env::var("OPENELM_REQUIRE_REFERENCE").as_deref() != Ok("1"), "{} is missing", folder.display());
    eprintln!("skipped: {} is absent", folder.display());
    None
}

#[test]
fn hugging_face_folders_open() {
    for (folder, tensors) in [("hf-tiny", 42), ("hf-5m", 66)] {
        let Some(folder) = reference(folder) else { return };
        let weights = Safetensors::open(&folder).unwrap();
        assert_eq!(weights.infos().len(), tensors);
        assert_eq!(weights.metadata()["format"], "pt");
        for info in weights.infos() {
            assert_eq!(weights.f32(&info.name).unwrap().len(), info.count());
        }
    }
}

#[test]
fn corenet_weights_equal_their_safetensors() {
    let (Some(pt), Some(expected)) = (reference("corenet-run/checkpoint_last.pt"), reference("corenet-run/final.safetensors")) else {
        return;
    };
    let weights = TorchFile::open(&pt).unwrap().state_dict().unwrap();
    let expected = Safetensors::open(&expected).unwrap();
    assert_eq!(weights.infos().len(), 42);
    assert_eq!(weights.infos()[0].name, "token_embeddings.weight", "the order of the dict");
    assert_eq!(expected.infos().len(), 42);
    for info in expected.infos() {
        assert_eq!(weights.info(&info.name), Some(info));
        assert_eq!(weights.bytes(&info.name).unwrap(), expected.bytes(&info.name).unwrap(), "{}", info.name);
        for source in [&weights as &dyn TensorSource, &expected] {
            let before = source.bytes(&info.name).unwrap();
            source.release(&info.name);
            assert_eq!(source.bytes(&info.name).unwrap(), before, "{} after its release", info.name);
        }
    }
}

#[test]
fn corenet_training_checkpoints_give_model_and_optimizer() {
    let (Some(pt), Some(expected)) = (reference("corenet-run/training_checkpoint_last.pt"), reference("corenet-run/final.safetensors"))
    else {
        return;
    };
    let file = TorchFile::open(&pt).unwrap();
    let weights = file.state_dict().unwrap();
    let expected = Safetensors::open(&expected).unwrap();
    for info in expected.infos() {
        assert_eq!(weights.bytes(&info.name).unwrap(), expected.bytes(&info.name).unwrap(), "{}", info.name);
    }
    let root = file.root();
    assert_eq!(root.get("iterations").and_then(PickleValue::as_int), Some(41));
    assert_eq!(root.get("is_interval_ckpt"), Some(&PickleValue::Bool(false)));
    let optimizer = root.get("optim_state_dict").unwrap();
    let groups = optimizer.get("param_groups").and_then(PickleValue::items).unwrap();
    let decay: Vec<_> = groups.iter().map(|group| group.get("weight_decay").and_then(PickleValue::as_f64).unwrap()).collect();
    assert_eq!(decay, [0.1, 0.0]);
    assert_eq!(groups[1].get("betas").unwrap(), &PickleValue::Tuple(vec![PickleValue::Float(0.9), PickleValue::Float(0.95)]));
    let ids: Vec<_> =
        groups.iter().flat_map(|group| group.get("params").and_then(PickleValue::items).unwrap()).map(|id| id.as_int().unwrap()).collect();
    assert_eq!(ids, (0..42).collect::<Vec<_>>());
    let state = optimizer.get("state").unwrap();
    assert_eq!(state.pairs().unwrap().len(), 42);
    for id in ids {
        let entry = state.get_int(id).unwrap();
        let read = |key: &str| file.tensor_f32(entry.get(key).and_then(PickleValue::as_tensor).unwrap()).unwrap();
        assert_eq!(read("step"), [41.0]);
        let (mean, square) = (read("exp_avg"), read("exp_avg_sq"));
        assert_eq!(mean.len(), square.len());
        assert!(mean.iter().any(|value| *value != 0.0) && square.iter().all(|value| *value >= 0.0));
        assert_eq!(entry.get("step").and_then(PickleValue::as_tensor).unwrap().dtype, DType::F32);
    }
}

/// The files that llama.cpp made of hf-5m and hf-tiny, and the folder each was made from.
const GGUF: [(&str, &str); 6] = [
    ("tiny-f32", "hf-tiny"),
    ("5m-f16", "hf-5m"),
    ("5m-q8_0", "hf-5m"),
    ("5m-Q4_0", "hf-5m"),
    ("5m-Q6_K", "hf-5m"),
    ("5m-Q4_K_M", "hf-5m"),
];

#[test]
fn gguf_files_are_written_as_llama_cpp_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    for (name, _) in GGUF {
        let Some(path) = reference(&format!("gguf/{name}.gguf")) else { return };
        let file = Gguf::open(&path).unwrap();
        let mut writer = GgufWriter::create(&copy, file.metadata(), file.infos()).unwrap();
        for info in file.infos() {
            writer.write(&info.name, &file.bytes(&info.name).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&path).unwrap(), "{name}");
    }
}

/// The values of a GGUF tensor in the Hugging Face folder: other names, and the halves of proj_1 apart.
fn original(weights: &Safetensors, name: &str) -> Vec<f32> {
    let names = [
        ("blk.", "layers."),
        ("attn_q_norm", "attn.q_norm"),
        ("attn_k_norm", "attn.k_norm"),
        ("attn_qkv", "attn.qkv_proj"),
        ("attn_output", "attn.out_proj"),
        ("ffn_gate", "ffn.proj_1"),
        ("ffn_up", "ffn.proj_1"),
        ("ffn_down", "ffn.proj_2"),
        ("output_norm", "norm"),
        ("token_embd", "token_embeddings"),
    ];
    let own_name = names.iter().fold(name.to_owned(), |name, (theirs, own)| name.replace(theirs, own));
    let values = weights.f32(&format!("transformer.{own_name}")).unwrap();
    let half = values.len() / 2;
    match name {
        _ if name.contains("ffn_gate") => values[..half].to_vec(),
        _ if name.contains("ffn_up") => values[half..].to_vec(),
        _ => values,
    }
}

#[test]
fn blocks_equal_llama_cpps() {
    let mut types = std::collections::BTreeMap::new();
    for (name, folder) in GGUF {
        let (Some(path), Some(folder)) = (reference(&format!("gguf/{name}.gguf")), reference(folder)) else { return };
        let (file, weights) = (Gguf::open(&path).unwrap(), Safetensors::open(&folder).unwrap());
        for info in file.infos() {
            let own = encode_f32(&original(&weights, &info.name), info.dtype).unwrap();
            assert!(own == *file.bytes(&info.name).unwrap(), "{name}: {} of {}", info.name, info.dtype);
            *types.entry(info.dtype).or_insert(0) += 1;
        }
    }
    let counted: Vec<_> = types.into_iter().collect();
    let expected = [
        (DType::F32, 47 + 5 * 33),
        (DType::F16, 41),
        (DType::Q4_0, 40),
        (DType::Q5_0, 3),
        (DType::Q8_0, 48),
        (DType::Q4_K, 29),
        (DType::Q6_K, 44),
    ];
    assert_eq!(counted, expected, "no Q5_K among them");
}
